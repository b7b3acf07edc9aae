/*
 * Guest memory as the kernel sees it, and which pages of it processors have written.
 *
 * Slots follow vm/memory.c: RAM around the hole of video memory, the PAM window piece by piece, the
 * ROM.  Where a write is dropped or read and write go to different places the slot is read-only, and
 * writes come to us.
 */
#include "cpu/kvm/kvm.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "vm/memory_inside.h"
#include "vm/vm.h"

/* Documentation/admin-guide/mm/pagemap.rst */
#define PAGEMAP_PRESENT	BIT(63)
#define PAGEMAP_SWAPPED	BIT(62)
#define PAM_PIECE	0x4000ull	/* a PAM register's 16 KiB */

static void add_slot(struct kvm_slot *layout, unsigned *n, const struct kvm_slot *s)
{
	struct kvm_slot *last = *n ? &layout[*n - 1] : NULL;

	/* Pieces of the PAM window that are alike are one, and never one with what lies around. */
	if (last && last->gpa >= PAM_BASE && s->gpa < PAM_END && last->gpa + last->size == s->gpa &&
	    last->host + last->size == s->host && last->ram == s->ram &&
	    last->read_only == s->read_only) {
		last->size += s->size;
		return;
	}
	if (*n < KVM_SLOTS_MAX)
		layout[(*n)++] = *s;
}

static void add_pam(struct guest_memory *mem, struct kvm_slot *layout, unsigned *n)
{
	for (uint64_t gpa = PAM_BASE; gpa < PAM_END; gpa += PAM_PIECE) {
		struct mem_page p = memory_page(mem, gpa);
		uint8_t *ram = mem->ram[0].host + gpa;

		if (p.read)
			add_slot(layout, n, &(struct kvm_slot){
				.gpa = gpa, .size = PAM_PIECE, .host = p.read, .used = true,
				.ram = p.read == ram, .read_only = p.read != p.write });
	}
}

static unsigned lay_out(struct guest_memory *mem, struct kvm_slot *layout)
{
	const struct mem_region *low = &mem->ram[0];
	unsigned n = 0;

	add_slot(layout, &n, &(struct kvm_slot){ .gpa = 0, .size = HOLE_BASE, .host = low->host,
						 .ram = true, .used = true });
	add_pam(mem, layout, &n);
	if (low->size > PAM_END)
		add_slot(layout, &n, &(struct kvm_slot){
			.gpa = PAM_END, .size = low->size - PAM_END, .host = low->host + PAM_END,
			.ram = true, .used = true });
	if (mem->nram > 1)
		add_slot(layout, &n, &(struct kvm_slot){
			.gpa = mem->ram[1].gpa, .size = mem->ram[1].size, .host = mem->ram[1].host,
			.ram = true, .used = true });
	if (mem->rom)
		add_slot(layout, &n, &(struct kvm_slot){
			.gpa = mem->rom_gpa, .size = mem->rom_size, .host = mem->rom,
			.read_only = true, .used = true });
	return n;
}

/* size 0 takes the slot away. */
static int tell_slot(struct kvm_machine *m, unsigned id, const struct kvm_slot *s, uint64_t size,
		     struct skep_error *e)
{
	struct kvm_userspace_memory_region r = {
		.slot = id,
		.flags = (s->read_only ? KVM_MEM_READONLY : 0) |
			 (m->logging && s->ram && size ? KVM_MEM_LOG_DIRTY_PAGES : 0),
		.guest_phys_addr = s->gpa,
		.memory_size = size,
		.userspace_addr = (uintptr_t)s->host,
	};
	int err = kvm_call(m->fd, KVM_SET_USER_MEMORY_REGION, &r);

	return err < 0 ? kvm_fail(e, err, "KVM_SET_USER_MEMORY_REGION") : 0;
}

static bool same(const struct kvm_slot *a, const struct kvm_slot *b)
{
	return a->used && b->used && a->gpa == b->gpa && a->size == b->size && a->host == b->host &&
	       a->read_only == b->read_only;
}

static void mark_written(struct kvm_machine *m, uint64_t gpa, uint64_t len)
{
	struct guest_memory *mem = &m->vm->memory;
	const struct mem_region *r = memory_region(mem, gpa, len);
	size_t page = region_page(r, gpa), end = page + len / GUEST_PAGE_SIZE;

	for (; page < end; page++)
		memory_will_write(mem, &mem->page_flags[page]);
}

/* What processors write to it until it is gone is not asked for any more: it may be all of it. */
static int drop_slot(struct kvm_machine *m, unsigned id, struct skep_error *e)
{
	struct kvm_slot *s = &m->slots[id];
	int err = tell_slot(m, id, s, 0, e);

	if (!err && s->ram && !s->read_only)
		mark_written(m, s->gpa, s->size);
	s->used = err != 0;
	return err;
}

static int take_layout(struct kvm_machine *m, const struct kvm_slot *layout, unsigned n,
		       struct skep_error *e)
{
	bool there[KVM_SLOTS_MAX] = { false };
	unsigned i, k;
	int err = 0;

	for (i = 0; i < KVM_SLOTS_MAX && !err; i++) {
		if (!m->slots[i].used)
			continue;
		for (k = 0; k < n && !same(&layout[k], &m->slots[i]); k++)
			;
		if (k < n)
			there[k] = true;
		else
			err = drop_slot(m, i, e);
	}
	for (k = 0; k < n && !err; k++) {
		if (there[k])
			continue;
		for (i = 0; i < KVM_SLOTS_MAX && m->slots[i].used; i++)
			;
		if (i == KVM_SLOTS_MAX)
			return skep_fail(e, ENOSPC, "backend=kvm: no memory slot is left");
		err = tell_slot(m, i, &layout[k], layout[k].size, e);
		if (!err)
			m->slots[i] = layout[k];
	}
	return err;
}

int kvm_slots_update(struct kvm_machine *m, struct skep_error *e)
{
	struct kvm_slot layout[KVM_SLOTS_MAX];
	unsigned n;
	int err;

	pthread_mutex_lock(&m->slots_lock);
	n = lay_out(&m->vm->memory, layout);
	err = take_layout(m, layout, n, e);
	pthread_mutex_unlock(&m->slots_lock);
	return err;
}

/* ---- What was written ---------------------------------------------------- */

static void take_bits(struct kvm_machine *m, const struct kvm_slot *s, const uint64_t *bits)
{
	struct guest_memory *mem = &m->vm->memory;
	size_t first = region_page(memory_region(mem, s->gpa, s->size), s->gpa);
	size_t n = s->size / GUEST_PAGE_SIZE, i;

	for (i = 0; i < n; i++) {
		if (!bits[i / 64]) {
			i |= 63;
			continue;
		}
		if (bits[i / 64] >> i % 64 & 1)
			memory_will_write(mem, &mem->page_flags[first + i]);
	}
}

static int read_log(struct kvm_machine *m, struct skep_error *e)
{
	unsigned i;
	int err = 0;

	for (i = 0; i < KVM_SLOTS_MAX && !err; i++) {
		const struct kvm_slot *s = &m->slots[i];
		struct kvm_dirty_log log = { .slot = i };
		uint64_t *bits;

		if (!s->used || !s->ram || s->read_only)
			continue;
		bits = calloc(s->size / GUEST_PAGE_SIZE / 64 + 1, sizeof(*bits));
		if (!bits)
			return skep_fail(e, ENOMEM, "no memory for a save");
		log.dirty_bitmap = bits;
		err = kvm_call(m->fd, KVM_GET_DIRTY_LOG, &log);
		if (err < 0)
			kvm_fail(e, err, "KVM_GET_DIRTY_LOG");
		else
			take_bits(m, s, bits);
		free(bits);
	}
	return err < 0 ? err : 0;
}

/* A large page may lie under video memory, which is never RAM to the guest. */
static bool under_video(const struct mem_region *r, size_t page)
{
	uint64_t gpa = r->gpa + page * GUEST_PAGE_SIZE;

	return gpa >= HOLE_BASE && gpa < PAM_BASE;
}

static int read_region(struct kvm_machine *m, int fd, const struct mem_region *r, struct skep_error *e)
{
	struct guest_memory *mem = &m->vm->memory;
	size_t npages = r->size / GUEST_PAGE_SIZE, page, i;
	uint64_t entry[512];
	ssize_t got;

	for (page = 0; page < npages; page += (size_t)got / sizeof(entry[0])) {
		got = pread(fd, entry, MIN(sizeof(entry), (npages - page) * sizeof(entry[0])),
			    (off_t)(((uintptr_t)r->host / GUEST_PAGE_SIZE + page) * sizeof(entry[0])));
		if (got < (ssize_t)sizeof(entry[0]))
			return kvm_fail(e, got < 0 ? -errno : -EIO, "reading /proc/self/pagemap");
		for (i = 0; i < (size_t)got / sizeof(entry[0]); i++)
			if (entry[i] & (PAGEMAP_PRESENT | PAGEMAP_SWAPPED) && !under_video(r, page + i))
				memory_will_write(mem, &mem->page_flags[r->first_page + page + i]);
	}
	return 0;
}

/* Nobody has noted anything so far: what holds memory may have been written. */
static int read_extents(struct kvm_machine *m, struct skep_error *e)
{
	struct guest_memory *mem = &m->vm->memory;
	int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC), err = 0;

	if (fd < 0)
		return kvm_fail(e, -errno, "/proc/self/pagemap");
	for (unsigned i = 0; i < mem->nram && !err; i++)
		err = read_region(m, fd, &mem->ram[i], e);
	close(fd);
	return err;
}

/* From now on the kernel takes notes. */
static int begin_log(struct kvm_machine *m, struct skep_error *e)
{
	unsigned i;
	int err = 0;

	m->logging = true;
	for (i = 0; i < KVM_SLOTS_MAX && !err; i++)
		if (m->slots[i].used && m->slots[i].ram && !m->slots[i].read_only)
			err = tell_slot(m, i, &m->slots[i], m->slots[i].size, e);
	/* The next one reads extents again, which is always right. */
	if (err)
		m->logging = false;
	return err;
}

int kvm_sync_dirty(struct vcpu *v, struct skep_error *e)
{
	struct kvm_machine *m = kvm_cpu_of(v)->m;
	int err;

	pthread_mutex_lock(&m->slots_lock);
	err = m->logging ? read_log(m, e) : read_extents(m, e);
	if (!err && !m->logging)
		err = begin_log(m, e);
	pthread_mutex_unlock(&m->slots_lock);
	return err;
}
