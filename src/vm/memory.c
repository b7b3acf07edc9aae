#include "vm/memory.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#include "vm/memory_inside.h"
#include "vm/vm.h"

#define PAM_SHIFT	14		/* one attribute each 16 KiB */
#define BIOS_ALIAS	0xe0000ull	/* the ROM's last 128 KiB show here */

static int check_size(uint64_t size, struct skep_error *e)
{
	struct sysinfo host;
	uint64_t have;

	if (size < RAM_SIZE_MIN || size > RAM_SIZE_MAX || size % GUEST_PAGE_SIZE)
		return skep_fail(e, EINVAL, "memory.size: %" PRIu64 " bytes is not a multiple of"
				 " 4 KiB between 1 MiB and 512 GiB", size);
	if (sysinfo(&host) < 0)
		return 0;
	have = ((uint64_t)host.totalram + host.totalswap) * host.mem_unit;
	if (size > have)
		return skep_fail(e, ENOMEM, "memory.size: %llu MiB is more than the %llu"
				 " MiB of memory and swap of this host; ask for less",
				 size / MiB, have / MiB);
	return 0;
}

static int map_region(struct guest_memory *m, uint64_t gpa, uint64_t size, uint64_t first_page)
{
	struct mem_region *r = &m->ram[m->nram];
	uint8_t *room, *end;

	/*
	 * Large pages where the host gives them, for which the region begins at a multiple of theirs:
	 * only faster, but much so, since the guest's page tables and the host's are both in the way of
	 * each access.
	 */
	room = mmap(NULL, size + RAM_CHUNK, PROT_READ | PROT_WRITE,
		    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (room == MAP_FAILED)
		return -errno;
	end = room + size + RAM_CHUNK;
	r->host = (uint8_t *)ALIGN_UP((uintptr_t)room, RAM_CHUNK);
	if (r->host > room)
		munmap(room, (size_t)(r->host - room));
	if (end > r->host + size)
		munmap(r->host + size, (size_t)(end - (r->host + size)));
	madvise(r->host, size, MADV_HUGEPAGE);
	madvise(r->host, size, MADV_DONTDUMP);
	r->gpa = gpa;
	r->size = size;
	r->first_page = first_page;
	m->nram++;
	return 0;
}

int memory_init(struct guest_memory *m, struct vm *vm, uint64_t size, struct skep_error *e)
{
	uint64_t low = MIN(size, RAM_LOW_MAX);
	void *flags;
	int err;

	memset(m, 0, sizeof(*m));
	m->vm = vm;
	m->lost.eventfd = -1;
	m->changed.fd = m->changed.file = -1;
	memset(m->pam, PAM_READ | PAM_WRITE, sizeof(m->pam));
	err = check_size(size, e);
	if (err < 0)
		return err;

	pthread_mutex_init(&m->load_lock, NULL);
	m->has_lock = true;
	if (map_region(m, 0, low, 0) < 0)
		goto fail;
	if (size > low && map_region(m, RAM_HIGH_BASE, size - low, low / GUEST_PAGE_SIZE) < 0)
		goto fail;
	m->size = size;
	m->npages = size / GUEST_PAGE_SIZE;
	/* Whole pages, and so whole words. */
	flags = mmap(NULL, m->npages, PROT_READ | PROT_WRITE,
		     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (flags == MAP_FAILED)
		goto fail;
	m->page_flags = flags;
	return 0;
fail:
	err = -errno;
	memory_finish(m);
	return skep_fail(e, -err, "memory.size: the host does not give %llu MiB: %s",
			 size / MiB, strerror(-err));
}

void memory_finish(struct guest_memory *m)
{
	unsigned i;

	memory_lazy_finish(m);
	for (i = 0; i < m->nram; i++)
		munmap(m->ram[i].host, m->ram[i].size);
	m->nram = 0;
	if (m->page_flags)
		munmap((void *)m->page_flags, m->npages);
	m->page_flags = NULL;
	m->size = 0;
	m->npages = 0;
	free(m->rom);
	m->rom = NULL;
	m->rom_size = 0;
	if (m->has_lock)
		pthread_mutex_destroy(&m->load_lock);
	m->has_lock = false;
}

int memory_set_rom(struct guest_memory *m, uint8_t *image, uint64_t gpa, uint64_t size,
		   struct skep_error *e)
{
	if (!size || size % GUEST_PAGE_SIZE || gpa % GUEST_PAGE_SIZE || gpa < RAM_LOW_MAX ||
	    gpa > RAM_HIGH_BASE || size > RAM_HIGH_BASE - gpa)
		return skep_fail(e, EINVAL, "a ROM of %" PRIu64 " bytes at %#" PRIx64
				 " does not fit below 4 GiB", size, gpa);
	m->rom = image;
	m->rom_gpa = gpa;
	m->rom_size = size;
	return 0;
}

/* ---- What a processor sees ------------------------------------------- */

static struct mem_page ram_page(struct guest_memory *m, const struct mem_region *r, uint64_t gpa)
{
	uint8_t *host = r->host + (gpa - r->gpa);
	size_t page = region_page(r, gpa);

	memory_present(m, page, 1);
	return (struct mem_page){ .read = host, .write = host, .flags = &m->page_flags[page] };
}

/* The firmware's page that shows at gpa below 1 MiB, or NULL. */
static uint8_t *rom_alias(const struct guest_memory *m, uint64_t gpa)
{
	uint64_t back = PAM_END - gpa;	/* distance from the end of the ROM */

	if (!m->rom || gpa < BIOS_ALIAS || back > m->rom_size)
		return NULL;
	return m->rom + (m->rom_size - back);
}

static struct mem_page pam_page(struct guest_memory *m, uint64_t gpa)
{
	struct mem_page ram = ram_page(m, &m->ram[0], gpa);
	uint8_t attr = m->pam[(gpa - PAM_BASE) >> PAM_SHIFT];

	if (!(attr & PAM_READ))
		ram.read = rom_alias(m, gpa);
	if (!(attr & PAM_WRITE)) {
		ram.write = NULL;
		ram.rom = true;
		if (!(attr & PAM_READ))
			ram.flags = NULL;
	}
	return ram;
}

struct mem_page memory_page(struct guest_memory *m, uint64_t gpa)
{
	const struct mem_region *low = &m->ram[0], *high = &m->ram[1];

	gpa &= ~(GUEST_PAGE_SIZE - 1);
	if (gpa < low->size) {
		if (likely(gpa >= PAM_END || gpa < HOLE_BASE))
			return ram_page(m, low, gpa);
		if (gpa >= PAM_BASE)
			return pam_page(m, gpa);
		return (struct mem_page){ 0 };
	}
	if (m->nram > 1 && gpa - high->gpa < high->size)
		return ram_page(m, high, gpa);
	if (m->rom && gpa - m->rom_gpa < m->rom_size)
		return (struct mem_page){ .read = m->rom + (gpa - m->rom_gpa), .rom = true };
	return (struct mem_page){ 0 };
}

void memory_set_pam(struct guest_memory *m, unsigned segment, uint8_t attr)
{
	attr &= PAM_READ | PAM_WRITE;
	if (segment >= ARRAY_SIZE(m->pam) || m->pam[segment] == attr)
		return;
	m->pam[segment] = attr;
	/*
	 * Code that was decoded from one side of the switch must not run on
	 * the other: the flag may be on the RAM page, so ask without it.
	 */
	vm_invalidate_code(m->vm, PAM_BASE + ((uint64_t)segment << PAM_SHIFT), 1u << PAM_SHIFT);
	vm_flush_tlbs(m->vm);
}

/* ---- Page flags ------------------------------------------------------- */

uint8_t memory_will_write(struct guest_memory *m, _Atomic uint8_t *flags)
{
	/* Acquire: who cleared PAGE_FROZEN has read the page (cut.c). */
	uint8_t f = atomic_load_explicit(flags, memory_order_acquire);

	if (likely((f & (PAGE_DIRTY | PAGE_TOUCHED | PAGE_FROZEN)) == (PAGE_DIRTY | PAGE_TOUCHED)))
		return f;
	if (f & PAGE_FROZEN)
		cut_before_write(m, flags);
	return atomic_fetch_or(flags, PAGE_DIRTY | PAGE_TOUCHED);
}

size_t memory_find(const struct guest_memory *m, size_t from, size_t to, uint8_t flags, bool set)
{
	size_t i = from;

	while (i < to) {
		uint8_t f;

		if (i % 8 == 0 && i + 8 <= to) {
			uint64_t word = atomic_load_explicit(&flags_words(m)[i / 8],
							     memory_order_relaxed);

			word &= EVERY(flags);
			/* Most of what is looked through is nothing at all, or all of it. */
			if (set ? !word : word == EVERY(flags)) {
				i += 8;
				continue;
			}
		}
		f = atomic_load_explicit(&m->page_flags[i], memory_order_relaxed);
		if (!(f & flags) != set)
			return i;
		i++;
	}
	return to;
}

void memory_clear_dirty(struct guest_memory *m)
{
	size_t i = 0;

	while ((i = memory_find(m, i, m->npages, PAGE_DIRTY, true)) < m->npages)
		atomic_fetch_and(&m->page_flags[i++], (uint8_t)~PAGE_DIRTY);
	vm_flush_tlbs(m->vm);
}

static uint64_t count_pages(const struct guest_memory *m, uint8_t flag)
{
	uint64_t n = 0;
	size_t i;

	for (i = 0; i < ALIGN_UP(m->npages, 8) / 8; i++)
		n += (unsigned)__builtin_popcountll(
			atomic_load_explicit(&flags_words(m)[i], memory_order_relaxed) &
			EVERY(flag));
	return n;
}

uint64_t memory_count_dirty(const struct guest_memory *m)
{
	return count_pages(m, PAGE_DIRTY);
}

uint64_t memory_touched(const struct guest_memory *m)
{
	return count_pages(m, PAGE_TOUCHED) * GUEST_PAGE_SIZE;
}

void memory_each_extent(struct guest_memory *m,
			void (*fn)(void *opaque, uint64_t gpa, const uint8_t *host, uint64_t len),
			void *opaque)
{
	unsigned i;

	for (i = 0; i < m->nram; i++) {
		const struct mem_region *r = &m->ram[i];
		size_t at = r->first_page, end = at + r->size / GUEST_PAGE_SIZE, stop;

		for (;; at = stop) {
			at = memory_find(m, at, end, PAGE_TOUCHED, true);
			if (at == end)
				break;
			stop = memory_find(m, at, end, PAGE_TOUCHED, false);
			memory_present(m, at, stop - at);
			fn(opaque, page_gpa(m, at), page_host(m, at), (stop - at) * GUEST_PAGE_SIZE);
		}
	}
}
