/*
 * Paging: page walks in every mode, the TLBs, and memory access when the TLB
 * does not have the answer.  SDM vol. 3, chapter 4.
 */
#include <stdlib.h>

#include "cpu/soft/mmu.h"
#include "chipset/lapic.h"
#include "cpu/model.h"
#include "cpu/soft/cache.h"
#include "cpu/soft/system.h"
#include "vm/vm.h"

#define PTE_P	BIT(0)
#define PTE_W	BIT(1)
#define PTE_U	BIT(2)
#define PTE_A	BIT(5)
#define PTE_D	BIT(6)
#define PTE_PS	BIT(7)
#define PTE_G	BIT(8)
#define PTE_PAT_LARGE BIT(12)
#define PTE_NX	BIT(63)

#define PF_P	0x01u
#define PF_W	0x02u
#define PF_U	0x04u
#define PF_RSVD	0x08u
#define PF_I	0x10u

#define CODE_TLB_SIZE 256
#define CODE_INVALID 2		/* no page */
#define MMU_SETS 4

enum access { ACCESS_READ, ACCESS_WRITE, ACCESS_EXEC };

struct code_tlb_entry {
	uint64_t tag;		/* linear page | 1 for user; or CODE_INVALID */
	uint64_t phys;
	const uint8_t *host;
};

/* The translations of one PCID (set 0 also serves when there are no PCIDs). */
struct tlb_set {
	uint16_t pcid;
	bool used;
	uint64_t epoch;		/* changes whenever translations are dropped */
	uint64_t last_use;
	/* Pieces of large pages may stand here, of the lower and the upper half. */
	bool large[2];
	struct tlb_entry data[TLB_CONTEXTS][TLB_SIZE];
	struct code_tlb_entry code[CODE_TLB_SIZE];
};

struct soft_mmu {
	struct tlb_set set[MMU_SETS];
	struct tlb_set *cur;
	uint64_t epochs;	/* the last epoch given out */
	uint64_t uses;
};

/* ---- TLB upkeep ------------------------------------------------------ */

static void set_clear(struct soft_mmu *m, struct tlb_set *s, bool global_too)
{
	for (unsigned x = 0; x < TLB_CONTEXTS; x++)
		for (unsigned i = 0; i < TLB_SIZE; i++) {
			struct tlb_entry *t = &s->data[x][i];

			if (global_too || !t->global)
				t->rtag = t->wtag = TLB_INVALID((uint64_t)i << 12);
		}
	for (unsigned i = 0; i < CODE_TLB_SIZE; i++)
		s->code[i].tag = CODE_INVALID;
	if (global_too)
		s->large[0] = s->large[1] = false;
	s->epoch = ++m->epochs;
}

/*
 * SDM vol. 3, 4.10.4.1: INVLPG drops a large page whole, and here it stands in
 * pieces of 4 KiB.  Its size is not known any more: all of the gigabyte goes.
 */
static void set_clear_large(struct soft_mmu *m, struct tlb_set *s, uint64_t lin)
{
	for (unsigned x = 0; x < TLB_CONTEXTS; x++)
		for (unsigned i = 0; i < TLB_SIZE; i++) {
			struct tlb_entry *t = &s->data[x][i];

			if ((t->rtag ^ lin) >> 30 == 0 || (t->wtag ^ lin) >> 30 == 0)
				t->rtag = t->wtag = TLB_INVALID((uint64_t)i << 12);
		}
	for (unsigned i = 0; i < CODE_TLB_SIZE; i++)
		if ((s->code[i].tag ^ lin) >> 30 == 0)
			s->code[i].tag = CODE_INVALID;
	s->epoch = ++m->epochs;
}

struct soft_mmu *soft_mmu_create(void)
{
	struct soft_mmu *m = calloc(1, sizeof *m);

	if (!m)
		return NULL;
	for (unsigned i = 0; i < MMU_SETS; i++)
		set_clear(m, &m->set[i], true);
	m->cur = &m->set[0];
	m->cur->used = true;
	return m;
}

void soft_mmu_destroy(struct soft_mmu *m)
{
	free(m);
}

void soft_mmu_select(struct soft_cpu *c)
{
	unsigned context = c->mode & MODE_USER ? TLB_USER :
			   c->mode & MODE_AC ? TLB_KERNEL_AC : TLB_KERNEL;

	c->tlb = c->mmu->cur->data[context];
	c->jump_key = c->mmu->cur->epoch << 16 | c->mode;
}

void soft_tlb_flush(struct soft_cpu *c, bool global_too)
{
	if (global_too)
		for (unsigned i = 0; i < MMU_SETS; i++)
			set_clear(c->mmu, &c->mmu->set[i], true);
	else
		set_clear(c->mmu, c->mmu->cur, false);
	soft_mmu_select(c);
}

static void set_clear_page(struct soft_cpu *c, struct tlb_set *s, uint64_t lin)
{
	uint64_t page = lin & ~0xfffull;

	if (s->large[lin >> 63]) {
		set_clear_large(c->mmu, s, lin);
		return;
	}
	for (unsigned x = 0; x < TLB_CONTEXTS; x++) {
		struct tlb_entry *t = &s->data[x][(lin >> 12) & (TLB_SIZE - 1)];

		if (t->rtag == page || t->wtag == page)
			t->rtag = t->wtag = TLB_INVALID(lin);
	}
	s->code[(lin >> 12) & (CODE_TLB_SIZE - 1)].tag = CODE_INVALID;
}

void soft_tlb_flush_page(struct soft_cpu *c, uint64_t lin)
{
	/* A global translation may stand in every set. */
	for (unsigned i = 0; i < MMU_SETS; i++)
		set_clear_page(c, &c->mmu->set[i], lin);
	/*
	 * Jump entries of the page.  In legacy modes the linear page is not that
	 * of the instruction pointer; and a block may end with an instruction
	 * that reaches into this page from the one before.
	 */
	if (!(c->mode & MODE_CS64)) {
		for (unsigned i = 0; i < MMU_SETS; i++)
			c->mmu->set[i].epoch = ++c->mmu->epochs;
		soft_mmu_select(c);
		return;
	}
	for (unsigned i = 0; i < 1u << JUMP_GROUP_BITS; i++) {
		c->jumps[soft_jump_group(lin) + i].key = 0;
		c->jumps[soft_jump_group(lin - 4096) + i].key = 0;
	}
	soft_mmu_select(c);	/* the epoch is another after large pages */
}

void soft_tlb_invpcid(struct soft_cpu *c, unsigned type, uint16_t pcid, uint64_t lin)
{
	for (unsigned i = 0; i < MMU_SETS; i++) {
		struct tlb_set *s = &c->mmu->set[i];

		switch (type) {
		case 0:		/* one address in one PCID */
			if (s->used && s->pcid == pcid) {
				set_clear_page(c, s, lin);
				s->epoch = ++c->mmu->epochs;
			}
			break;
		case 1:		/* one PCID, globals stay */
			if (s->used && s->pcid == pcid)
				set_clear(c->mmu, s, false);
			break;
		case 2:		/* all, globals too */
			set_clear(c->mmu, s, true);
			break;
		default:	/* all, globals stay */
			set_clear(c->mmu, s, false);
			break;
		}
	}
	soft_mmu_select(c);
}

void soft_tlb_set_cr3(struct soft_cpu *c, uint64_t cr3, bool keep)
{
	struct soft_mmu *m = c->mmu;
	bool pcide = c->s.cr4 & CR4_PCIDE;
	uint16_t pcid = pcide ? cr3 & 0xfff : 0;
	struct tlb_set *victim = NULL;

	c->s.cr3 = cr3;
	for (unsigned i = 0; i < MMU_SETS; i++) {
		struct tlb_set *s = &m->set[i];

		if (s->used && s->pcid == pcid) {
			m->cur = s;
			s->last_use = ++m->uses;
			if (!keep)
				set_clear(m, s, false);
			soft_mmu_select(c);
			return;
		}
		if (!victim || s->last_use < victim->last_use)
			victim = s;
	}
	set_clear(m, victim, true);
	victim->used = true;
	victim->pcid = pcid;
	victim->last_use = ++m->uses;
	m->cur = victim;
	soft_mmu_select(c);
}

void soft_mmu_protect_code(struct soft_cpu *c, uint64_t phys_page)
{
	struct mem_page page = memory_page(&c->vm->memory, phys_page);

	if (!page.flags || atomic_load_explicit(page.flags, memory_order_relaxed) & PAGE_CODE)
		return;
	atomic_fetch_or(page.flags, PAGE_CODE);
	for (unsigned i = 0; i < MMU_SETS; i++)
		for (unsigned x = 0; x < TLB_CONTEXTS; x++)
			for (unsigned n = 0; n < TLB_SIZE; n++) {
				struct tlb_entry *t = &c->mmu->set[i].data[x][n];

				if ((t->wtag >> 12 & (TLB_SIZE - 1)) == n &&
				    (uint8_t *)(t->wtag + t->addend) == page.write)
					t->wtag = TLB_INVALID(t->wtag);
			}
}

/* ---- Page walks ------------------------------------------------------ */

struct walk {
	uint64_t phys;		/* of the page, 4 KiB aligned */
	bool writable, user, nx, global, dirty, large;
	uint32_t fault;		/* error code; 0 with present pages */
	bool failed;
};

/* A paging-structure entry in RAM; NULL where there is no RAM (reads as zero). */
static void *entry_host(struct soft_cpu *c, uint64_t gpa)
{
	struct mem_page page = memory_page(&c->vm->memory, gpa);

	return page.read ? page.read + (gpa & 0xfff) : NULL;
}

/* Sets A (and D) bits; the entry is guest memory like any other. */
static void entry_set(struct soft_cpu *c, uint64_t gpa, void *host, uint64_t bits)
{
	struct mem_page page = memory_page(&c->vm->memory, gpa);

	if (!page.write || !host)
		return;		/* paging structures in ROM: the bits cannot be set */
	__atomic_fetch_or((uint32_t *)host, (uint32_t)bits, __ATOMIC_SEQ_CST);
	if (page.flags) {
		uint8_t f = atomic_fetch_or_explicit(page.flags, PAGE_DIRTY, memory_order_relaxed);

		if (f & PAGE_CODE)
			soft_code_written(c, gpa, 4);
	}
}

static struct walk walk_fault(uint32_t code)
{
	return (struct walk){ .failed = true, .fault = code };
}

static bool walk_allowed(struct soft_cpu *c, const struct walk *w, enum access access,
			 unsigned context)
{
	if (context == TLB_USER) {
		if (!w->user)
			return false;
		return access == ACCESS_READ || (access == ACCESS_WRITE ? w->writable : !w->nx);
	}
	if (access == ACCESS_EXEC)
		return !w->nx && !(w->user && c->s.cr4 & CR4_SMEP);
	if (w->user && context == TLB_KERNEL && c->s.cr4 & CR4_SMAP)
		return false;
	return access == ACCESS_READ || w->writable || !(c->s.cr0 & CR0_WP);
}

static uint32_t fault_code(struct soft_cpu *c, enum access access, unsigned context, uint32_t more)
{
	uint32_t code = more;

	if (access == ACCESS_WRITE)
		code |= PF_W;
	if (context == TLB_USER)
		code |= PF_U;
	if (access == ACCESS_EXEC &&
	    (c->s.cr4 & CR4_SMEP || (c->s.efer & EFER_NXE && c->s.cr4 & CR4_PAE)))
		code |= PF_I;
	return code;
}

/* 32-bit paging (SDM 4.3). */
static struct walk walk32(struct soft_cpu *c, uint64_t lin, enum access access, unsigned context)
{
	uint64_t pde_gpa = (c->s.cr3 & 0xfffff000) + (lin >> 22 & 0x3ff) * 4;
	void *pde_host = entry_host(c, pde_gpa);
	uint32_t pde = pde_host ? load32(pde_host) : 0;
	struct walk w = { 0 };
	uint64_t leaf_gpa = pde_gpa;
	void *leaf_host = pde_host;
	uint32_t leaf = pde;

	if (!(pde & PTE_P))
		return walk_fault(fault_code(c, access, context, 0));
	if (pde & PTE_PS && c->s.cr4 & CR4_PSE) {
		/* PSE-36: bits 20:13 are address bits 39:32; bit 21 is reserved. */
		if (pde & BIT(21) || (pde >> 13 & 0xff) >> (c->model->phys_bits - 32))
			return walk_fault(fault_code(c, access, context, PF_P | PF_RSVD));
		w.phys = ((uint64_t)(pde >> 13 & 0xff) << 32 | (pde & 0xffc00000)) +
			 (lin & 0x3ff000);
		w.writable = pde & PTE_W;
		w.user = pde & PTE_U;
		w.large = true;
	} else {
		leaf_gpa = (pde & 0xfffff000) + (lin >> 12 & 0x3ff) * 4;
		leaf_host = entry_host(c, leaf_gpa);
		leaf = leaf_host ? load32(leaf_host) : 0;
		if (!(leaf & PTE_P))
			return walk_fault(fault_code(c, access, context, 0));
		w.phys = leaf & 0xfffff000;
		w.writable = pde & leaf & PTE_W;
		w.user = pde & leaf & PTE_U;
	}
	w.global = leaf & PTE_G && c->s.cr4 & CR4_PGE;
	if (!walk_allowed(c, &w, access, context))
		return walk_fault(fault_code(c, access, context, PF_P));
	if (leaf_host != pde_host && !(pde & PTE_A))
		entry_set(c, pde_gpa, pde_host, PTE_A);
	uint32_t bits = PTE_A | (access == ACCESS_WRITE ? PTE_D : 0);
	if ((leaf & bits) != bits)
		entry_set(c, leaf_gpa, leaf_host, bits);
	w.dirty = leaf & PTE_D || access == ACCESS_WRITE;
	return w;
}

/* PAE and 4-level paging (SDM 4.4, 4.5): one loop over the levels. */
static struct walk walk64(struct soft_cpu *c, uint64_t lin, enum access access, unsigned context)
{
	bool lma = c->s.efer & EFER_LMA;
	uint64_t addr_mask = (BIT(c->model->phys_bits) - 1) & ~0xfffull;
	uint64_t rsvd_addr = 0x000ffffffffff000ull & ~addr_mask;
	uint64_t rsvd_nx = c->s.efer & EFER_NXE ? 0 : PTE_NX;
	struct walk w = { .writable = true, .user = true };
	uint64_t gpas[4];
	void *hosts[4];
	uint64_t entries[4];
	unsigned n = 0;
	unsigned shift;
	uint64_t table;

	if (lma) {
		table = c->s.cr3 & addr_mask;
		shift = 39;
	} else {
		uint64_t pdpte = c->s.pdpte[lin >> 30 & 3];

		if (!(pdpte & PTE_P))
			return walk_fault(fault_code(c, access, context, 0));
		table = pdpte & addr_mask;
		shift = 21;
		rsvd_addr |= 0x7ff0000000000000ull;	/* bits 62:52 too without IA-32e */
	}
	for (;; shift -= 9) {
		uint64_t gpa = table + (lin >> shift & 0x1ff) * 8;
		void *host = entry_host(c, gpa);
		uint64_t e = host ? load64(host) : 0;
		uint64_t rsvd = rsvd_addr | rsvd_nx;
		bool leaf = shift == 12;

		if (!(e & PTE_P))
			return walk_fault(fault_code(c, access, context, 0));
		if (shift == 39)
			rsvd |= PTE_PS;
		else if (shift > 12 && e & PTE_PS) {
			leaf = true;
			rsvd |= (BIT(shift) - 1) & ~0x1fffull;
		}
		if (e & rsvd)
			return walk_fault(fault_code(c, access, context, PF_P | PF_RSVD));
		gpas[n] = gpa;
		hosts[n] = host;
		entries[n++] = e;
		w.writable &= !!(e & PTE_W);
		w.user &= !!(e & PTE_U);
		w.nx |= !!(e & PTE_NX);
		if (leaf) {
			uint64_t low = BIT(shift) - 1;

			w.phys = ((e & addr_mask & ~low) | (lin & low)) & ~0xfffull;
			w.global = e & PTE_G && c->s.cr4 & CR4_PGE;
			w.large = shift > 12;
			break;
		}
		table = e & addr_mask;
	}
	if (!walk_allowed(c, &w, access, context))
		return walk_fault(fault_code(c, access, context, PF_P));
	for (unsigned i = 0; i < n; i++) {
		uint64_t bits = PTE_A | (i == n - 1 && access == ACCESS_WRITE ? PTE_D : 0);

		if ((entries[i] & bits) != bits)
			entry_set(c, gpas[i], hosts[i], bits);
	}
	w.dirty = entries[n - 1] & PTE_D || access == ACCESS_WRITE;
	return w;
}

static struct walk walk(struct soft_cpu *c, uint64_t lin, enum access access, unsigned context)
{
	if (!(c->s.cr0 & CR0_PG))
		return (struct walk){ .phys = lin & ~0xfffull & 0xffffffffull,
				      .writable = true, .user = true, .dirty = true };
	if (c->s.cr4 & CR4_PAE)
		return walk64(c, lin, access, context);
	return walk32(c, lin, access, context);
}

void soft_load_pdptes(struct soft_cpu *c, const struct soft_op *op, uint64_t cr3)
{
	uint64_t pdpte[4];
	uint64_t addr_mask = (BIT(c->model->phys_bits) - 1) & ~0xfffull;

	for (unsigned i = 0; i < 4; i++) {
		void *host = entry_host(c, (cr3 & 0xffffffe0) + i * 8);

		pdpte[i] = host ? load64(host) : 0;
		if (pdpte[i] & PTE_P && pdpte[i] & ~(addr_mask | 0xe19))
			soft_raise_err(c, op, EXC_GP, 0);
	}
	memcpy(c->s.pdpte, pdpte, sizeof pdpte);
}

/* ---- Translation and access ------------------------------------------ */

static _Noreturn void page_fault(struct soft_cpu *c, const struct soft_op *op, uint64_t lin,
				 uint32_t code)
{
	c->s.cr2 = lin;
	soft_raise_err(c, op, EXC_PF, code);
}

static unsigned current_context(const struct soft_cpu *c)
{
	return (unsigned)((c->tlb - c->mmu->cur->data[0]) / TLB_SIZE);
}

/* Where an access goes: host memory, or (host NULL) the bus at phys. */
struct target {
	uint8_t *host;
	uint64_t phys;		/* of the byte */
	bool rom;		/* a write that is dropped */
	bool code;		/* RAM that holds decoded code */
};

/*
 * Translates the page of lin for an access, fills the TLB where it may be
 * filled, raises #PF.
 */
static struct target translate(struct soft_cpu *c, const struct soft_op *op, uint64_t lin,
			       enum access access, unsigned context)
{
	struct walk w = walk(c, lin, access, context);
	struct target t = { .phys = w.phys | (lin & 0xfff) };
	struct tlb_entry *e = &c->mmu->cur->data[context][(lin >> 12) & (TLB_SIZE - 1)];
	uint64_t tag = lin & ~0xfffull;
	struct mem_page page;

	if (unlikely(w.failed))
		page_fault(c, op, lin, w.fault);
	page = memory_page(&c->vm->memory, w.phys);
	if (access == ACCESS_WRITE) {
		t.rom = page.rom;
		if (!page.write)
			return t;
		t.host = page.write + (lin & 0xfff);
		if (page.flags) {
			uint8_t f = atomic_load_explicit(page.flags, memory_order_relaxed);

			if (!(f & PAGE_DIRTY))
				f = atomic_fetch_or(page.flags, PAGE_DIRTY);
			t.code = f & PAGE_CODE;
		}
	} else {
		if (!page.read)
			return t;
		t.host = page.read + (lin & 0xfff);
	}
	/* Accesses that are to be looked at must go on missing. */
	if (!page.read || c->alignment_check || soft_page_has_breakpoint(c, tag))
		return t;

	bool write_ok = w.dirty && page.write == page.read && page.flags &&
			(atomic_load_explicit(page.flags, memory_order_relaxed) &
			 (PAGE_DIRTY | PAGE_CODE)) == PAGE_DIRTY &&
			walk_allowed(c, &w, ACCESS_WRITE, context);

	e->rtag = tag;
	e->wtag = write_ok ? tag : TLB_INVALID(tag);
	e->addend = (uintptr_t)page.read - tag;
	e->global = w.global;
	c->mmu->cur->large[tag >> 63] |= w.large;
	return t;
}

struct soft_fetch soft_fetch(struct soft_cpu *c, uint64_t lin)
{
	bool user = c->cpl == 3;
	struct code_tlb_entry *e = &c->mmu->cur->code[(lin >> 12) & (CODE_TLB_SIZE - 1)];
	uint64_t tag = (lin & ~0xfffull) | user;

	if (e->tag != tag) {
		struct walk w;

		/* Code may run on to the end of the lower half. */
		if (unlikely(!soft_canonical(lin)))
			soft_raise_err(c, NULL, EXC_GP, 0);
		w = walk(c, lin, ACCESS_EXEC, user ? TLB_USER : TLB_KERNEL);
		if (w.failed)
			page_fault(c, NULL, lin, w.fault);
		e->tag = tag;
		c->mmu->cur->large[tag >> 63] |= w.large;
		e->phys = w.phys;
		e->host = memory_page(&c->vm->memory, w.phys).read;
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
	if (c->mode & MODE_LMA &&
	    (!soft_canonical(lin) || (size && !soft_canonical(lin + size - 1))))
		soft_raise_err(c, op, op && op->seg == SEG_SS ? EXC_SS : EXC_GP, 0);
	if (unlikely(c->alignment_check && size && misaligned(lin, size)))
		soft_raise_err(c, op, EXC_AC, 0);
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
			memcpy(out, t.host, n);
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
			memcpy(t.host, in, n);
			if (unlikely(t.code))
				soft_code_written(c, t.phys, n);
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
	unsigned context = current_context(c);
	uint64_t v = 0;

	check_linear(c, op, lin, size, false);
	if (likely((lin & 0xfff) + size <= 4096)) {
		struct target t = translate(c, op, lin, ACCESS_READ, context);

		if (unlikely(!t.host))
			return mmio_load(c, op, t.phys, size);
		memcpy(&v, t.host, size);
		return v;
	}
	raw_load(c, op, lin, &v, size, context);
	return v;
}

void soft_store_slow(struct soft_cpu *c, const struct soft_op *op, uint64_t lin, unsigned size,
		     uint64_t v)
{
	unsigned context = current_context(c);

	check_linear(c, op, lin, size, true);
	if (likely((lin & 0xfff) + size <= 4096)) {
		struct target t = translate(c, op, lin, ACCESS_WRITE, context);

		if (t.host) {
			memcpy(t.host, &v, size);
			if (unlikely(t.code))
				soft_code_written(c, t.phys, size);
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
	raw_load(c, op, lin, buf, size, current_context(c));
}

void soft_store_bytes(struct soft_cpu *c, const struct soft_op *op, uint64_t lin, const void *buf,
		      unsigned size)
{
	check_linear(c, op, lin, size, true);
	raw_store(c, op, lin, buf, size, current_context(c));
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
	check_write(c, op, lin, size, current_context(c));
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
	t = translate(c, op, lin, write ? ACCESS_WRITE : ACCESS_READ, current_context(c));
	return t.code ? NULL : t.host;
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

uint64_t soft_sys_load(struct soft_cpu *c, const struct soft_op *op, uint64_t lin, unsigned size)
{
	uint64_t v = 0;

	if (c->mode & MODE_LMA && (!soft_canonical(lin) || !soft_canonical(lin + size - 1)))
		soft_raise_err(c, op, EXC_GP, 0);
	raw_load(c, op, lin, &v, size, TLB_KERNEL);
	return v;
}

void soft_sys_store(struct soft_cpu *c, const struct soft_op *op, uint64_t lin, unsigned size,
		    uint64_t v)
{
	if (c->mode & MODE_LMA && (!soft_canonical(lin) || !soft_canonical(lin + size - 1)))
		soft_raise_err(c, op, EXC_GP, 0);
	raw_store(c, op, lin, &v, size, TLB_KERNEL);
}

void soft_sys_check_write(struct soft_cpu *c, const struct soft_op *op, uint64_t lin, unsigned size)
{
	check_write(c, op, lin, size, TLB_KERNEL);
}
