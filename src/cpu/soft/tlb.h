/*
 * Inside of paging: the TLBs (tlb.c), page walks (walk.c), and memory access when
 * the TLB does not have the answer (mmu.c).  vCPU thread only.
 */
#ifndef SKEP_CPU_SOFT_TLB_H
#define SKEP_CPU_SOFT_TLB_H

#include "cpu/soft/mmu.h"

#define CODE_TLB_SIZE 256
#define CODE_INVALID 2		/* no page */
#define MMU_SETS 4

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

/* ---- Page walks (walk.c) ---------------------------------------------- */

enum access { ACCESS_READ, ACCESS_WRITE, ACCESS_EXEC };

struct walk {
	uint64_t phys;		/* of the page, 4 KiB aligned */
	bool writable, user, nx, global, dirty, large;
	uint32_t fault;		/* error code; 0 with present pages */
	bool failed;
};

/* Walks the tables for the page of lin, and sets A and D; raises nothing. */
struct walk soft_walk(struct soft_cpu *c, uint64_t lin, enum access access, unsigned context);
/* Do the rights of a translation allow this access? */
bool soft_walk_allowed(struct soft_cpu *c, const struct walk *w, enum access access,
		       unsigned context);

#endif
