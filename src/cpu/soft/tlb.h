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
	uint64_t root;		/* CR3 that the translations were made with, the global ones too */
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
	struct soft_tables *tables;	/* clock=virtual: what is watched; else NULL */
};

/* Drops what translates [lin, lin + 2^bits) in every set, and the jump entries there. */
void soft_tlb_drop_range(struct soft_cpu *c, uint64_t lin, unsigned bits);
/* The same for one page of 4 KiB that no large page covers; code says that it may hold some. */
void soft_tlb_drop_page(struct soft_cpu *c, uint64_t lin, bool code);
/* Writes to this page of RAM are to be seen from now on. */
void soft_tlb_drop_writes(struct soft_cpu *c, uint64_t phys_page);

/* ---- Watched tables (tables.c); nothing happens without clock=virtual ---- */

struct soft_tables *soft_tables_create(void);	/* free() releases it */
/* A walk begins; then each table that it reads, from the top: the address it is for, the form. */
void soft_tables_walk(struct soft_cpu *c);
void soft_table_used(struct soft_cpu *c, uint64_t phys, uint64_t lin, unsigned shift,
		     unsigned entry_bits);
/*
 * Before this processor writes [phys, phys+len), within one page of RAM, which is at host.
 * Does not return when op has to be run alone (soft_restart_alone).
 */
void soft_table_write(struct soft_cpu *c, const struct soft_op *op, uint64_t phys,
		      const uint8_t *host, unsigned len);

/* ---- Page walks (walk.c) ---------------------------------------------- */

enum access { ACCESS_READ, ACCESS_WRITE, ACCESS_EXEC };

struct walk {
	uint64_t phys;		/* of the page, 4 KiB aligned */
	bool writable, user, nx, global, dirty, large;
	uint32_t fault;		/* error code; 0 with present pages */
	bool failed;
	bool again;		/* inside of walk.c: another processor changed an entry meanwhile */
};

/* Walks the tables for the page of lin, and sets A and D; raises nothing. */
struct walk soft_walk(struct soft_cpu *c, uint64_t lin, enum access access, unsigned context);
/* Do the rights of a translation allow this access? */
bool soft_walk_allowed(struct soft_cpu *c, const struct walk *w, enum access access,
		       unsigned context);

#endif
