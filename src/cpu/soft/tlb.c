/*
 * TLB upkeep: what drops translations.  SDM vol. 3, 4.10.
 */
#include <stdlib.h>

#include "cpu/soft/shared.h"
#include "cpu/soft/tlb.h"
#include "vm/vm.h"

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

/* What translates [lin, lin + 2^bits), by pieces of 4 KiB. */
static void set_clear_range(struct soft_mmu *m, struct tlb_set *s, uint64_t lin, unsigned bits)
{
	for (unsigned x = 0; x < TLB_CONTEXTS; x++)
		for (unsigned i = 0; i < TLB_SIZE; i++) {
			struct tlb_entry *t = &s->data[x][i];

			if ((t->rtag ^ lin) >> bits == 0 || (t->wtag ^ lin) >> bits == 0)
				t->rtag = t->wtag = TLB_INVALID((uint64_t)i << 12);
		}
	for (unsigned i = 0; i < CODE_TLB_SIZE; i++)
		if ((s->code[i].tag ^ lin) >> bits == 0)
			s->code[i].tag = CODE_INVALID;
	s->epoch = ++m->epochs;
}

struct soft_mmu *soft_mmu_create(bool exact)
{
	struct soft_mmu *m = calloc(1, sizeof *m);

	if (m && exact)
		m->tables = soft_tables_create();
	if (!m || (exact && !m->tables)) {
		free(m);
		return NULL;
	}
	for (unsigned i = 0; i < MMU_SETS; i++)
		set_clear(m, &m->set[i], true);
	m->cur = &m->set[0];
	m->cur->used = true;
	return m;
}

void soft_mmu_destroy(struct soft_mmu *m)
{
	if (m)
		free(m->tables);
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

static void set_clear_4k(struct tlb_set *s, uint64_t lin)
{
	uint64_t page = lin & ~0xfffull;

	for (unsigned x = 0; x < TLB_CONTEXTS; x++) {
		struct tlb_entry *t = &s->data[x][(lin >> 12) & (TLB_SIZE - 1)];

		if (t->rtag == page || t->wtag == page)
			t->rtag = t->wtag = TLB_INVALID(lin);
	}
	s->code[(lin >> 12) & (CODE_TLB_SIZE - 1)].tag = CODE_INVALID;
}

/*
 * SDM vol. 3, 4.10.4.1: INVLPG drops a large page whole, and here it stands in
 * pieces of 4 KiB.  Its size is not known any more: all of the gigabyte goes.
 */
static void set_clear_page(struct soft_cpu *c, struct tlb_set *s, uint64_t lin)
{
	if (s->large[lin >> 63])
		set_clear_range(c->mmu, s, lin, 30);
	else
		set_clear_4k(s, lin);
}

/*
 * Jump entries of a page.  In legacy modes the linear page is not that of the
 * instruction pointer; and a block may end with an instruction that reaches into
 * this page from the one before.
 */
static void drop_jumps(struct soft_cpu *c, uint64_t lin)
{
	if (!(c->mode & MODE_CS64)) {
		for (unsigned i = 0; i < MMU_SETS; i++)
			c->mmu->set[i].epoch = ++c->mmu->epochs;
		return;
	}
	for (unsigned i = 0; i < 1u << JUMP_GROUP_BITS; i++) {
		c->jumps[soft_jump_group(lin) + i].key = 0;
		c->jumps[soft_jump_group(lin - 4096) + i].key = 0;
	}
}

void soft_tlb_drop_range(struct soft_cpu *c, uint64_t lin, unsigned bits)
{
	if (bits >= 48) {
		soft_tlb_flush(c, true);
		return;
	}
	for (unsigned i = 0; i < MMU_SETS; i++)
		set_clear_range(c->mmu, &c->mmu->set[i], lin, bits);
	soft_mmu_select(c);
}

void soft_tlb_drop_page(struct soft_cpu *c, uint64_t lin, bool code)
{
	for (unsigned i = 0; i < MMU_SETS; i++)
		set_clear_4k(&c->mmu->set[i], lin);
	if (code)
		drop_jumps(c, lin);
	soft_mmu_select(c);
}

void soft_tlb_flush_page(struct soft_cpu *c, uint64_t lin)
{
	/* A global translation may stand in every set. */
	for (unsigned i = 0; i < MMU_SETS; i++)
		set_clear_page(c, &c->mmu->set[i], lin);
	drop_jumps(c, lin);
	soft_mmu_select(c);	/* the epoch may be another */
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
	uint64_t root = cr3 & ~0xfffull;
	struct tlb_set *victim = NULL;

	c->s.cr3 = cr3;
	for (unsigned i = 0; i < MMU_SETS; i++) {
		struct tlb_set *s = &m->set[i];

		if (s->used && s->pcid == pcid) {
			/*
			 * Global translations stay; but where it must not show, only those
			 * that a walk of the new tables would give.  (With PAE paging CR3 itself
			 * does not tell whether they are others.)
			 */
			bool other = m->tables && (s->root != root || (c->s.cr4 & CR4_PAE &&
								       !(c->s.efer & EFER_LMA)));

			m->cur = s;
			s->last_use = ++m->uses;
			s->root = root;
			if (!keep || other)
				set_clear(m, s, other);
			soft_mmu_select(c);
			return;
		}
		if (!victim || s->last_use < victim->last_use)
			victim = s;
	}
	set_clear(m, victim, true);
	victim->used = true;
	victim->pcid = pcid;
	victim->root = root;
	victim->last_use = ++m->uses;
	m->cur = victim;
	soft_mmu_select(c);
}

void soft_tlb_drop_writes(struct soft_cpu *c, uint64_t phys_page)
{
	struct mem_page page = memory_page(&c->vm->memory, phys_page);

	for (unsigned i = 0; i < MMU_SETS; i++)
		for (unsigned x = 0; x < TLB_CONTEXTS; x++)
			for (unsigned n = 0; n < TLB_SIZE; n++) {
				struct tlb_entry *t = &c->mmu->set[i].data[x][n];

				if ((t->wtag >> 12 & (TLB_SIZE - 1)) == n &&
				    (uint8_t *)(t->wtag + t->addend) == page.write)
					t->wtag = TLB_INVALID(t->wtag);
			}
}

bool soft_mmu_protect_code(struct soft_cpu *c, uint64_t phys_page)
{
	struct mem_page page = memory_page(&c->vm->memory, phys_page);

	if (!page.flags)
		return true;		/* nobody writes it */
	if (c->shared)
		return soft_share_code(c, page.flags);
	if (!(atomic_load_explicit(page.flags, memory_order_relaxed) & PAGE_CODE)) {
		atomic_fetch_or(page.flags, PAGE_CODE);
		soft_tlb_drop_writes(c, phys_page);
	}
	return true;
}
