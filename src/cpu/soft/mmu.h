/* Paging and the TLBs: what core.c and cache.c need beyond soft.h. */
#ifndef SKEP_CPU_SOFT_MMU_H
#define SKEP_CPU_SOFT_MMU_H

#include "cpu/soft/soft.h"

/* exact: nothing shows what the TLBs hold (clock=virtual). */
struct soft_mmu *soft_mmu_create(bool exact);
void soft_mmu_destroy(struct soft_mmu *m);

/* Chooses c->tlb for the current mode and the jump key.  Called by soft_update_mode. */
void soft_mmu_select(struct soft_cpu *c);

/* A jump entry leads to code in the page of lin: what drops the page drops the entry, too. */
void soft_mmu_note_jump(struct soft_cpu *c, uint64_t lin);

/* One page of code. */
struct soft_fetch {
	uint64_t phys;		/* of the page */
	const uint8_t *host;	/* NULL: not memory */
};

/*
 * Translates the page of lin for an instruction fetch; raises #PF with the address
 * lin, or #GP(0) where it is not canonical (op NULL, at c->rip).
 */
struct soft_fetch soft_fetch(struct soft_cpu *c, uint64_t lin);

/* The linear address of the code at rip, which may be beyond the end of an instruction's page. */
static inline uint64_t soft_fetch_lin(const struct soft_cpu *c, uint64_t rip)
{
	return c->mode & MODE_CS64 ? rip : (uint32_t)(rip + c->s.seg[SEG_CS].base);
}

/* A device has written [phys, phys+len). */
void soft_tables_written(struct soft_cpu *c, uint64_t phys, uint64_t len);

/*
 * The page is about to hold decoded code: no processor may have a write tag for it, so that writes
 * are noticed.  Comes before the bytes are read.  False: another processor may still write unnoticed,
 * and what is decoded now may not be kept.
 */
bool soft_mmu_protect_code(struct soft_cpu *c, uint64_t phys_page);

#endif
