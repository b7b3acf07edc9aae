#include "vm/memory.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#include "vm/vm.h"

#define HOLE_BASE	0xa0000ull	/* legacy video memory: never RAM */
#define PAM_BASE	0xc0000ull
#define PAM_END		0x100000ull
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

static int map_region(struct guest_memory *m, uint64_t gpa, uint64_t size, uint64_t offset)
{
	struct mem_region *r = &m->ram[m->nram];

	r->host = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, m->memfd,
		       (off_t)offset);
	if (r->host == MAP_FAILED)
		return -errno;
	/* Large pages where the host gives them to shared memory: only faster. */
	madvise(r->host, size, MADV_HUGEPAGE);
	madvise(r->host, size, MADV_DONTDUMP);
	r->gpa = gpa;
	r->size = size;
	r->first_page = offset / GUEST_PAGE_SIZE;
	m->nram++;
	return 0;
}

int memory_init(struct guest_memory *m, struct vm *vm, uint64_t size, bool anonymous,
		struct skep_error *e)
{
	uint64_t low = MIN(size, RAM_LOW_MAX);
	void *flags;
	int err;

	memset(m, 0, sizeof(*m));
	m->vm = vm;
	m->memfd = -1;
	memset(m->pam, PAM_READ | PAM_WRITE, sizeof(m->pam));
	err = check_size(size, e);
	if (err < 0)
		return err;

	m->memfd = memfd_create("skep-ram", MFD_CLOEXEC);
	if (m->memfd < 0 || ftruncate(m->memfd, (off_t)size) < 0)
		goto fail;
	if (map_region(m, 0, low, 0) < 0)
		goto fail;
	if (size > low && map_region(m, RAM_HIGH_BASE, size - low, low) < 0)
		goto fail;
	m->size = size;
	m->npages = size / GUEST_PAGE_SIZE;
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

	for (i = 0; i < m->nram; i++)
		munmap(m->ram[i].host, m->ram[i].size);
	m->nram = 0;
	if (m->page_flags)
		munmap((void *)m->page_flags, m->npages);
	m->page_flags = NULL;
	if (m->memfd >= 0)
		close(m->memfd);
	m->memfd = -1;
	m->size = 0;
	m->npages = 0;
	free(m->rom);
	m->rom = NULL;
	m->rom_size = 0;
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

static struct mem_page ram_page(const struct guest_memory *m, const struct mem_region *r,
				uint64_t gpa)
{
	uint8_t *host = r->host + (gpa - r->gpa);

	return (struct mem_page){
		.read = host,
		.write = host,
		.flags = &m->page_flags[r->first_page + (gpa - r->gpa) / GUEST_PAGE_SIZE],
	};
}

/* The firmware's page that shows at gpa below 1 MiB, or NULL. */
static uint8_t *rom_alias(const struct guest_memory *m, uint64_t gpa)
{
	uint64_t back = PAM_END - gpa;	/* distance from the end of the ROM */

	if (!m->rom || gpa < BIOS_ALIAS || back > m->rom_size)
		return NULL;
	return m->rom + (m->rom_size - back);
}

static struct mem_page pam_page(const struct guest_memory *m, uint64_t gpa)
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

/* ---- Dirty pages ----------------------------------------------------- */

/* Eight flag bytes at a time: most of them are zero. */
static uint64_t flags_word(const struct guest_memory *m, size_t page)
{
	return atomic_load_explicit((_Atomic uint64_t *)(void *)&m->page_flags[page],
				    memory_order_relaxed);
}

static size_t flags_step(const struct guest_memory *m, size_t page)
{
	return page % 8 == 0 && page + 8 <= m->npages && !flags_word(m, page) ? 8 : 1;
}

void memory_clear_dirty(struct guest_memory *m)
{
	size_t i;

	for (i = 0; i < m->npages; i += flags_step(m, i))
		if (atomic_load_explicit(&m->page_flags[i], memory_order_relaxed) & PAGE_DIRTY)
			atomic_fetch_and(&m->page_flags[i], (uint8_t)~PAGE_DIRTY);
	vm_flush_tlbs(m->vm);
}

uint64_t memory_count_dirty(const struct guest_memory *m)
{
	uint64_t n = 0;
	size_t i;

	for (i = 0; i < m->npages; i += flags_step(m, i))
		n += atomic_load_explicit(&m->page_flags[i], memory_order_relaxed) & PAGE_DIRTY;
	return n;
}

uint64_t memory_touched(const struct guest_memory *m)
{
	struct stat st;

	if (m->memfd < 0 || fstat(m->memfd, &st) < 0)
		return memory_count_dirty(m) * GUEST_PAGE_SIZE;
	return (uint64_t)st.st_blocks * 512;
}

void memory_each_extent(const struct guest_memory *m,
			void (*fn)(void *opaque, uint64_t gpa, const uint8_t *host, uint64_t len),
			void *opaque)
{
	unsigned i;

	for (i = 0; i < m->nram; i++) {
		const struct mem_region *r = &m->ram[i];
		uint64_t base = r->first_page * GUEST_PAGE_SIZE, end = base + r->size, at = base;

		while (at < end) {
			off_t data = -1, hole = (off_t)end;

			/* Reading a hole through the mapping would allocate it. */
			if (m->memfd >= 0) {
				data = lseek(m->memfd, (off_t)at, SEEK_DATA);
				if (data < 0 && errno == ENXIO)
					break;
				if (data >= 0)
					hole = lseek(m->memfd, data, SEEK_HOLE);
			}
			if (data < 0 || hole < 0) {
				data = (off_t)at;
				hole = (off_t)end;
			}
			if ((uint64_t)data >= end)
				break;
			hole = MIN(hole, (off_t)end);
			fn(opaque, r->gpa + ((uint64_t)data - base),
			   r->host + ((uint64_t)data - base), (uint64_t)(hole - data));
			at = (uint64_t)hole;
		}
	}
}

/* ---- DMA ------------------------------------------------------------- */

/* The RAM region that holds all of [gpa, gpa+len), or NULL.  len > 0. */
static const struct mem_region *dma_region(const struct guest_memory *m, uint64_t gpa,
					   uint64_t len)
{
	unsigned i;

	for (i = 0; i < m->nram; i++) {
		const struct mem_region *r = &m->ram[i];
		uint64_t offset = gpa - r->gpa;

		if (gpa < r->gpa || offset >= r->size || len > r->size - offset)
			continue;
		/* Video memory lies over RAM, for devices as for processors. */
		if (gpa < PAM_BASE && gpa + len > HOLE_BASE)
			return NULL;
		return r;
	}
	return NULL;
}

/*
 * The bytes of these pages have just been written.  The fence orders them before
 * the look at PAGE_CODE: a processor that decodes at the same time sets the
 * flag before it reads, so one of the two sees the other.
 */
static void mark_written(struct guest_memory *m, const struct mem_region *r, uint64_t gpa,
			 uint64_t len)
{
	uint64_t first = (gpa - r->gpa) / GUEST_PAGE_SIZE;
	uint64_t last = (gpa - r->gpa + len - 1) / GUEST_PAGE_SIZE, i;
	_Atomic uint8_t *flags = &m->page_flags[r->first_page];
	uint8_t seen = 0;

	atomic_thread_fence(memory_order_seq_cst);
	for (i = first; i <= last; i++) {
		uint8_t f = atomic_load_explicit(&flags[i], memory_order_relaxed);

		if (!(f & PAGE_DIRTY))
			f |= atomic_fetch_or(&flags[i], PAGE_DIRTY);
		seen |= f;
	}
	if (seen & (PAGE_CODE | PAGE_TABLE))
		vm_invalidate_code(m->vm, gpa, len);
}

int dma_map(struct guest_memory *m, uint64_t gpa, size_t len, enum dma_dir dir,
	    struct dma_view *view)
{
	const struct mem_region *r;

	*view = (struct dma_view){ .gpa = gpa, .len = len, .dir = dir };
	if (!len)
		return 0;
	r = dma_region(m, gpa, len);
	if (!r)
		return -EFAULT;
	view->host = r->host + (gpa - r->gpa);
	if (dir & DMA_TO_GUEST)
		mark_written(m, r, gpa, len);
	return 0;
}

void dma_unmap(struct guest_memory *m, struct dma_view *view)
{
	const struct mem_region *r;

	if (view->host && (view->dir & DMA_TO_GUEST)) {
		r = dma_region(m, view->gpa, view->len);
		if (r)
			mark_written(m, r, view->gpa, view->len);
	}
	view->host = NULL;
	view->len = 0;
}

int dma_read(struct guest_memory *m, uint64_t gpa, void *buf, size_t len)
{
	const struct mem_region *r;

	if (!len)
		return 0;
	r = dma_region(m, gpa, len);
	if (!r)
		return -EFAULT;
	memcpy(buf, r->host + (gpa - r->gpa), len);
	return 0;
}

int dma_write(struct guest_memory *m, uint64_t gpa, const void *buf, size_t len)
{
	const struct mem_region *r;

	if (!len)
		return 0;
	r = dma_region(m, gpa, len);
	if (!r)
		return -EFAULT;
	memcpy(r->host + (gpa - r->gpa), buf, len);
	mark_written(m, r, gpa, len);
	return 0;
}

int dma_zero(struct guest_memory *m, uint64_t gpa, size_t len)
{
	const struct mem_region *r;

	if (!len)
		return 0;
	r = dma_region(m, gpa, len);
	if (!r)
		return -EFAULT;
	memset(r->host + (gpa - r->gpa), 0, len);
	mark_written(m, r, gpa, len);
	return 0;
}

/* One step of copying len bytes; like read(2). */
static ssize_t load_some(struct guest_memory *m, const struct mem_region *r, uint64_t at, int fd,
			 off_t *offset, uint64_t len)
{
	uint64_t in_file = r->first_page * GUEST_PAGE_SIZE + at;
	ssize_t n = -1;

	if (m->memfd >= 0 && lseek(m->memfd, (off_t)in_file, SEEK_SET) >= 0)
		n = sendfile(m->memfd, fd, offset, len);
	if (n >= 0)
		return n;
	/* Not every file system can: through the mapping, then. */
	n = pread(fd, r->host + at, len, *offset);
	if (n > 0)
		*offset += n;
	return n;
}

int memory_load_file(struct guest_memory *m, uint64_t gpa, int fd, uint64_t offset, uint64_t len)
{
	const struct mem_region *r;
	off_t from = (off_t)offset;
	uint64_t done = 0;
	int err = 0;

	if (!len)
		return 0;
	if (offset > INT64_MAX || len > INT64_MAX - offset)
		return -ENODATA;
	r = dma_region(m, gpa, len);
	if (!r)
		return -EFAULT;
	while (done < len && !err) {
		ssize_t n = load_some(m, r, gpa - r->gpa + done, fd, &from, len - done);

		if (n > 0)
			done += (uint64_t)n;
		else if (!n)
			err = -ENODATA;
		else if (errno != EINTR)
			err = -errno;
	}
	mark_written(m, r, gpa, len);
	return err;
}
