/* Page walks in every mode.  SDM vol. 3, chapter 4. */
#include "cpu/model.h"
#include "cpu/soft/shared.h"
#include "cpu/soft/tlb.h"
#include "vm/vm.h"

#define PTE_P	BIT(0)
#define PTE_W	BIT(1)
#define PTE_U	BIT(2)
#define PTE_A	BIT(5)
#define PTE_D	BIT(6)
#define PTE_PS	BIT(7)
#define PTE_G	BIT(8)
#define PTE_NX	BIT(63)

#define PF_P	0x01u
#define PF_W	0x02u
#define PF_U	0x04u
#define PF_RSVD	0x08u
#define PF_I	0x10u

/* A paging-structure entry in RAM; NULL where there is no RAM (reads as zero). */
static void *entry_host(struct soft_cpu *c, uint64_t gpa)
{
	struct mem_page page = memory_page(&c->vm->memory, gpa);

	return page.read ? page.read + (gpa & 0xfff) : NULL;
}

/*
 * Sets A (and D) bits in an entry of 1 << entry_bits bytes that was read as e; it is guest memory
 * like any other.  False: it has changed since, and the walk was of something that is no more.
 */
static bool entry_set(struct soft_cpu *c, uint64_t gpa, void *host, uint64_t e, uint64_t bits,
		      unsigned entry_bits)
{
	struct mem_page page = memory_page(&c->vm->memory, gpa);
	uint32_t e32 = (uint32_t)e;
	uint8_t flags = 0;
	bool same;

	if ((e & bits) == bits || !page.write || !host)
		return true;	/* paging structures in ROM: the bits cannot be set */
	if (page.flags)
		flags = memory_will_write(&c->vm->memory, page.flags);
	if (entry_bits == 3)
		same = __atomic_compare_exchange_n((uint64_t *)host, &e, e | bits, false,
						   __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
	else
		same = __atomic_compare_exchange_n((uint32_t *)host, &e32, e32 | (uint32_t)bits, false,
						   __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
	if (same && flags & PAGE_CODE)
		soft_ram_written(c, gpa, 4);
	return same;
}

static struct walk walk_again(void)
{
	return (struct walk){ .again = true };
}

static struct walk walk_fault(uint32_t code)
{
	return (struct walk){ .failed = true, .fault = code };
}

bool soft_walk_allowed(struct soft_cpu *c, const struct walk *w, enum access access,
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
	soft_table_used(c, pde_gpa, lin, 22, 2);
	if (pde & PTE_PS && c->s.cr4 & CR4_PSE) {
		/* PSE-36: bits 20:13 are address bits 39:32; bit 21 is reserved. */
		if (pde & BIT(21) || (pde >> 13 & 0xff) >> (c->model->phys_bits - 32))
			return walk_fault(fault_code(c, access, context, PF_P | PF_RSVD));
		w.phys = ((uint64_t)(pde >> 13 & 0xff) << 32 | (pde & 0xffc00000)) +
			 (lin & 0x3ff000);
		w.writable = pde & PTE_W;
		w.user = pde & PTE_U;
		w.shift = 22;
	} else {
		leaf_gpa = (pde & 0xfffff000) + (lin >> 12 & 0x3ff) * 4;
		leaf_host = entry_host(c, leaf_gpa);
		leaf = leaf_host ? load32(leaf_host) : 0;
		if (!(leaf & PTE_P))
			return walk_fault(fault_code(c, access, context, 0));
		soft_table_used(c, leaf_gpa, lin, 12, 2);
		w.phys = leaf & 0xfffff000;
		w.shift = 12;
		w.writable = pde & leaf & PTE_W;
		w.user = pde & leaf & PTE_U;
	}
	w.global = leaf & PTE_G && c->s.cr4 & CR4_PGE;
	if (!soft_walk_allowed(c, &w, access, context))
		return walk_fault(fault_code(c, access, context, PF_P));
	uint32_t bits = PTE_A | (access == ACCESS_WRITE ? PTE_D : 0);
	if ((leaf_host != pde_host && !entry_set(c, pde_gpa, pde_host, pde, PTE_A, 2)) ||
	    !entry_set(c, leaf_gpa, leaf_host, leaf, bits, 2))
		return walk_again();
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
		soft_table_used(c, gpa, lin, shift, 3);
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
			w.shift = (uint8_t)shift;
			break;
		}
		table = e & addr_mask;
	}
	if (!soft_walk_allowed(c, &w, access, context))
		return walk_fault(fault_code(c, access, context, PF_P));
	for (unsigned i = 0; i < n; i++) {
		uint64_t bits = PTE_A | (i == n - 1 && access == ACCESS_WRITE ? PTE_D : 0);

		if (!entry_set(c, gpas[i], hosts[i], entries[i], bits, 3))
			return walk_again();
	}
	w.dirty = entries[n - 1] & PTE_D || access == ACCESS_WRITE;
	return w;
}

struct walk soft_walk(struct soft_cpu *c, uint64_t lin, enum access access, unsigned context)
{
	struct walk w;

	if (!(c->s.cr0 & CR0_PG))
		return (struct walk){ .phys = lin & ~0xfffull & 0xffffffffull,
				      .writable = true, .user = true, .dirty = true };
	SOFT_COUNT(c, tlb_walks);
	soft_tables_walk(c);
	do
		w = c->s.cr4 & CR4_PAE ? walk64(c, lin, access, context) :
					 walk32(c, lin, access, context);
	while (unlikely(w.again));
	return w;
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
	if (c->mmu->tables && memcmp(c->s.pdpte, pdpte, sizeof pdpte))
		soft_tlb_flush(c, true);	/* CR0 and CR4 load them as well */
	memcpy(c->s.pdpte, pdpte, sizeof pdpte);
}
