/*
 * Memory access when the TLB does not have the answer: translation, pages that
 * are crossed, memory-mapped I/O, pages with code.
 */
#include "chipset/lapic.h"
#include "cpu/soft/cache.h"
#include "cpu/soft/shared.h"
#include "cpu/soft/system.h"
#include "cpu/soft/tlb.h"
#include "vm/vm.h"

/* ---- Guest memory ---------------------------------------------------- */

/*
 * Every byte once, and what is naturally aligned in one access: another processor may look on, or
 * write meanwhile (SDM vol. 3, 8.1.1).  memcpy promises neither.
 */
static void copy_pieces(void *to, const void *from, unsigned n, const void *guest)
{
	volatile uint8_t *d = to;
	const volatile uint8_t *s = from;
	uintptr_t at = (uintptr_t)guest;

	while (n) {
		if (n >= 8 && !(at & 7)) {
			typedef volatile uint64_t __attribute__((may_alias, aligned(1))) u64_any;

			*(u64_any *)d = *(const u64_any *)s;
			d += 8, s += 8, at += 8, n -= 8;
		} else if (n >= 4 && !(at & 3)) {
			typedef volatile uint32_t __attribute__((may_alias, aligned(1))) u32_any;

			*(u32_any *)d = *(const u32_any *)s;
			d += 4, s += 4, at += 4, n -= 4;
		} else if (n >= 2 && !(at & 1)) {
			typedef volatile uint16_t __attribute__((may_alias, aligned(1))) u16_any;

			*(u16_any *)d = *(const u16_any *)s;
			d += 2, s += 2, at += 2, n -= 2;
		} else {
			*d++ = *s++;
			at++, n--;
		}
	}
}

static void from_guest(void *to, const uint8_t *host, unsigned n)
{
	copy_pieces(to, host, n, host);
}

static void to_guest(uint8_t *host, const void *from, unsigned n)
{
	copy_pieces(host, from, n, host);
}

/* ---- Translation ----------------------------------------------------- */

static _Noreturn void page_fault(struct soft_cpu *c, const struct soft_op *op, uint64_t lin,
				 uint32_t code)
{
	c->s.cr2 = lin;
	soft_raise_err(c, op, EXC_PF, code);
}

/* Where an access goes: host memory, or (host NULL) the bus at phys. */
struct target {
	uint8_t *host;
	uint64_t phys;		/* of the byte */
	bool rom;		/* a write that is dropped */
	bool watched;		/* RAM that holds decoded code, or tables of translations */
};

/*
 * Translates the page of lin for an access, fills the TLB where it may be
 * filled, raises #PF.
 */
static struct target translate(struct soft_cpu *c, const struct soft_op *op, uint64_t lin,
			       enum access access, unsigned context)
{
	const struct tlb_entry *e = soft_tlb_find(c, context, lin, access == ACCESS_WRITE);
	uint64_t tag = lin & ~0xfffull;
	struct target t = { 0 };
	struct mem_page page;
	struct walk w;

	if (access == ACCESS_WRITE)
		SOFT_COUNT(c, tlb_write_misses);
	else
		SOFT_COUNT(c, tlb_read_misses);
	if (e) {
		t.host = (uint8_t *)(lin + e->addend);
		return t;
	}
	w = soft_walk(c, lin, access, context);
	t.phys = w.phys | (lin & 0xfff);
	if (unlikely(w.failed))
		page_fault(c, op, lin, w.fault);
	page = memory_page(&c->vm->memory, w.phys);
	if (access == ACCESS_WRITE) {
		t.rom = page.rom;
		if (!page.write)
			return t;
		t.host = page.write + (lin & 0xfff);
		if (page.flags)
			t.watched = memory_will_write(&c->vm->memory, page.flags) &
				    (PAGE_CODE | PAGE_TABLE);
	} else {
		if (!page.read)
			return t;
		t.host = page.read + (lin & 0xfff);
	}
	/* Accesses that are to be looked at must go on missing. */
	if (!page.read || c->alignment_check || soft_page_has_breakpoint(c, tag))
		return t;

	/* Acquire: as in memory_will_write, in whose place the tag stands. */
	bool write_ok = w.dirty && page.write == page.read && page.flags &&
			(atomic_load_explicit(page.flags, memory_order_acquire) &
			 (PAGE_DIRTY | PAGE_FROZEN | PAGE_CODE | PAGE_TABLE)) == PAGE_DIRTY &&
			soft_walk_allowed(c, &w, ACCESS_WRITE, context);

	soft_tlb_fill(c->mmu, context, lin, page.read, &w, write_ok);
	return t;
}

struct soft_fetch soft_fetch(struct soft_cpu *c, uint64_t lin)
{
	bool user = c->cpl == 3;
	struct code_tlb_entry *e = &c->mmu->cur->code[(lin >> 12) & (CODE_TLB_SIZE - 1)];
	uint64_t tag = (lin & ~0xfffull) | user;

	if (e->tag != tag) {
		struct walk w;

		SOFT_COUNT(c, tlb_code_misses);
		/* Code may run on to the end of the lower half. */
		if (unlikely(!soft_canonical(lin)))
			soft_raise_err(c, NULL, EXC_GP, 0);
		w = soft_walk(c, lin, ACCESS_EXEC, user ? TLB_USER : TLB_KERNEL);
		if (w.failed)
			page_fault(c, NULL, lin, w.fault);
		e = soft_tlb_fill_code(c, tag, &w, memory_page(&c->vm->memory, w.phys).read);
	}
	return (struct soft_fetch){ e->phys, e->host };
}

static bool own_apic_page(struct soft_cpu *c, uint64_t phys)
{
	uint64_t base = lapic_get_base(c->v->lapic);

	/* Enabled and not x2APIC. */
	return (phys ^ base) >> 12 == 0 && (base & 0xc00) == 0x800;
}

/*
 * With clock=virtual an access that may arm a timer must be the last of its
 * block, so that the timer is due at its exact count: run it alone.
 */
static void alone(struct soft_cpu *c, const struct soft_op *op)
{
	if (c->vm->clock.mode == CLOCK_MODE_VIRTUAL && op && op->left)
		soft_restart_alone(c, op);
	soft_sync_clock(c, op);
}

static uint64_t mmio_load(struct soft_cpu *c, const struct soft_op *op, uint64_t phys,
			  unsigned size)
{
	uint64_t v;

	SOFT_COUNT(c, io_mmio_reads);
	alone(c, op);
	if (c->v->lapic && own_apic_page(c, phys)) {
		device_lock(c->vm);
		v = lapic_mmio_read(c->v->lapic, phys & 0xfff, size);
		device_unlock(c->vm);
		return v;
	}
	return vm_mmio_read(c->vm, phys, size);
}

static void mmio_store(struct soft_cpu *c, const struct soft_op *op, uint64_t phys, unsigned size,
		       uint64_t v)
{
	SOFT_COUNT(c, io_mmio_writes);
	alone(c, op);
	if (c->v->lapic && own_apic_page(c, phys)) {
		device_lock(c->vm);
		lapic_mmio_write(c->v->lapic, phys & 0xfff, size, v);
		device_unlock(c->vm);
		return;
	}
	vm_mmio_write(c->vm, phys, size, v);
}

/* Linear address of the next byte: wraps at 4 GiB outside 64-bit mode. */
static uint64_t lin_add(const struct soft_cpu *c, uint64_t lin, uint64_t n)
{
	lin += n;
	return c->mode & MODE_CS64 ? lin : (uint32_t)lin;
}

/* Canonical, aligned where that is asked for; data breakpoints are noted. */
/* SDM vol. 3, table 6-7.  16-byte operands and FXSAVE's have rules of their own. */
static bool misaligned(uint64_t lin, unsigned size)
{
	switch (size) {
	case 10: size = 8; break;		/* 80-bit reals */
	case 28: case 108: size = 4; break;	/* x87 environment and state */
	case 14: case 94: size = 2; break;
	default: break;
	}
	return size <= 8 && lin & (size - 1);
}

static void check_linear(struct soft_cpu *c, const struct soft_op *op, uint64_t lin, unsigned size,
			 bool write)
{
	bool canonical = !(c->mode & MODE_LMA) || soft_canonical(lin);

	/* Alignment comes between the first byte and the last. */
	if (unlikely(c->alignment_check && canonical && size && misaligned(lin, size)))
		soft_raise_err(c, op, EXC_AC, 0);
	if (unlikely(!canonical ||
		     (c->mode & MODE_LMA && size && !soft_canonical(lin + size - 1))))
		soft_raise_err(c, op, op && op->seg == SEG_SS ? EXC_SS : EXC_GP, 0);
	if (unlikely(c->stepping))
		soft_data_breakpoint(c, lin, size, write);
}

static void raw_load(struct soft_cpu *c, const struct soft_op *op, uint64_t lin, void *buf,
		     unsigned size, unsigned context)
{
	uint8_t *out = buf;

	while (size) {
		unsigned n = MIN(size, (unsigned)(4096 - (lin & 0xfff)));
		struct target t = translate(c, op, lin, ACCESS_READ, context);

		if (t.host) {
			from_guest(out, t.host, n);
		} else {
			for (unsigned i = 0; i < n;) {
				/* The widest naturally aligned pieces. */
				unsigned w = 8;
				uint64_t v;

				while (w > n - i || (t.phys + i) & (w - 1))
					w >>= 1;
				v = mmio_load(c, op, t.phys + i, w);
				memcpy(out + i, &v, w);
				i += w;
			}
		}
		out += n;
		size -= n;
		lin = lin_add(c, lin, n);
	}
}

static void raw_store(struct soft_cpu *c, const struct soft_op *op, uint64_t lin, const void *buf,
		      unsigned size, unsigned context)
{
	const uint8_t *in = buf;

	/* Nothing is written unless everything can be; the first page's fault comes first. */
	if ((lin & 0xfff) + size > 4096) {
		translate(c, op, lin, ACCESS_WRITE, context);
		for (uint64_t at = 4096 - (lin & 0xfff); at < size; at += 4096)
			translate(c, op, lin_add(c, lin, at), ACCESS_WRITE, context);
	}
	while (size) {
		unsigned n = MIN(size, (unsigned)(4096 - (lin & 0xfff)));
		struct target t = translate(c, op, lin, ACCESS_WRITE, context);

		if (t.host) {
			if (unlikely(t.watched))
				soft_table_write(c, op, t.phys, t.host, n);
			to_guest(t.host, in, n);
			if (unlikely(t.watched))
				soft_ram_written(c, t.phys, n);
		} else if (!t.rom) {
			for (unsigned i = 0; i < n;) {
				unsigned w = 8;
				uint64_t v = 0;

				while (w > n - i || (t.phys + i) & (w - 1))
					w >>= 1;
				memcpy(&v, in + i, w);
				mmio_store(c, op, t.phys + i, w, v);
				i += w;
			}
		}
		in += n;
		size -= n;
		lin = lin_add(c, lin, n);
	}
}

uint64_t soft_load_slow(struct soft_cpu *c, const struct soft_op *op, uint64_t lin, unsigned size)
{
	unsigned context = soft_mmu_context(c);
	uint64_t v = 0;

	check_linear(c, op, lin, size, false);
	if (likely((lin & 0xfff) + size <= 4096)) {
		struct target t = translate(c, op, lin, ACCESS_READ, context);

		if (unlikely(!t.host))
			return mmio_load(c, op, t.phys, size);
		from_guest(&v, t.host, size);
		return v;
	}
	raw_load(c, op, lin, &v, size, context);
	return v;
}

void soft_store_slow(struct soft_cpu *c, const struct soft_op *op, uint64_t lin, unsigned size,
		     uint64_t v)
{
	unsigned context = soft_mmu_context(c);

	check_linear(c, op, lin, size, true);
	if (likely((lin & 0xfff) + size <= 4096)) {
		struct target t = translate(c, op, lin, ACCESS_WRITE, context);

		if (t.host) {
			if (unlikely(t.watched))
				soft_table_write(c, op, t.phys, t.host, size);
			to_guest(t.host, &v, size);
			if (unlikely(t.watched))
				soft_ram_written(c, t.phys, size);
		} else if (!t.rom) {
			mmio_store(c, op, t.phys, size, v);
		}
		return;
	}
	raw_store(c, op, lin, &v, size, context);
}

void soft_load_bytes(struct soft_cpu *c, const struct soft_op *op, uint64_t lin, void *buf,
		     unsigned size)
{
	check_linear(c, op, lin, size, false);
	raw_load(c, op, lin, buf, size, soft_mmu_context(c));
}

void soft_store_bytes(struct soft_cpu *c, const struct soft_op *op, uint64_t lin, const void *buf,
		      unsigned size)
{
	check_linear(c, op, lin, size, true);
	raw_store(c, op, lin, buf, size, soft_mmu_context(c));
}

static void check_write(struct soft_cpu *c, const struct soft_op *op, uint64_t lin, unsigned size,
			unsigned context)
{
	translate(c, op, lin, ACCESS_WRITE, context);
	if ((lin & 0xfff) + size > 4096)
		translate(c, op, lin_add(c, lin, 4096 - (lin & 0xfff)), ACCESS_WRITE, context);
}

void soft_check_write(struct soft_cpu *c, const struct soft_op *op, uint64_t lin, unsigned size)
{
	check_linear(c, op, lin, size, true);
	check_write(c, op, lin, size, soft_mmu_context(c));
}

void *soft_rmw_slow(struct soft_cpu *c, const struct soft_op *op, uint64_t lin, unsigned size)
{
	soft_check_write(c, op, lin, size);
	return soft_host_write(c, lin, size);
}

void *soft_bulk_slow(struct soft_cpu *c, const struct soft_op *op, uint64_t lin, unsigned size,
		     bool write)
{
	struct target t;

	/* Alignment and breakpoints are looked at element by element. */
	if (c->alignment_check || c->stepping)
		return NULL;
	check_linear(c, op, lin, size, write);
	t = translate(c, op, lin, write ? ACCESS_WRITE : ACCESS_READ, soft_mmu_context(c));
	return t.watched ? NULL : t.host;
}

uint64_t soft_load(struct soft_cpu *c, const struct soft_op *op, uint64_t lin, unsigned size)
{
	switch (size) {
	case 1: return soft_ld8(c, op, lin);
	case 2: return soft_ld16(c, op, lin);
	case 4: return soft_ld32(c, op, lin);
	default: return soft_ld64(c, op, lin);
	}
}

void soft_store(struct soft_cpu *c, const struct soft_op *op, uint64_t lin, unsigned size,
		uint64_t v)
{
	switch (size) {
	case 1: soft_st8(c, op, lin, (uint8_t)v); break;
	case 2: soft_st16(c, op, lin, (uint16_t)v); break;
	case 4: soft_st32(c, op, lin, (uint32_t)v); break;
	default: soft_st64(c, op, lin, v); break;
	}
}

static struct tlb_entry *system_entry(struct soft_cpu *c, uint64_t lin)
{
	return &c->mmu->cur->data[TLB_KERNEL].at[(lin >> 12) & (TLB_SIZE - 1)];
}

uint64_t soft_sys_load(struct soft_cpu *c, const struct soft_op *op, uint64_t lin, unsigned size)
{
	const struct tlb_entry *t = system_entry(c, lin);
	uint64_t v = 0;

	if (likely(lin - t->rtag <= 4096 - (uint64_t)size)) {
		memcpy(&v, (void *)(lin + t->addend), size);
		return v;
	}
	if (c->mode & MODE_LMA && (!soft_canonical(lin) || !soft_canonical(lin + size - 1)))
		soft_raise_err(c, op, EXC_GP, 0);
	raw_load(c, op, lin, &v, size, TLB_KERNEL);
	return v;
}

void soft_sys_store(struct soft_cpu *c, const struct soft_op *op, uint64_t lin, unsigned size,
		    uint64_t v)
{
	const struct tlb_entry *t = system_entry(c, lin);

	if (likely(lin - t->wtag <= 4096 - (uint64_t)size)) {
		memcpy((void *)(lin + t->addend), &v, size);
		return;
	}
	if (c->mode & MODE_LMA && (!soft_canonical(lin) || !soft_canonical(lin + size - 1)))
		soft_raise_err(c, op, EXC_GP, 0);
	raw_store(c, op, lin, &v, size, TLB_KERNEL);
}

void soft_sys_check_write(struct soft_cpu *c, const struct soft_op *op, uint64_t lin, unsigned size)
{
	if (likely(lin - system_entry(c, lin)->wtag <= 4096 - (uint64_t)size))
		return;
	check_write(c, op, lin, size, TLB_KERNEL);
}
