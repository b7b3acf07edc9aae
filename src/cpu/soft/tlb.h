/*
 * Inside of paging: the TLBs (tlb.c), page walks (walk.c), and memory access when
 * the TLB does not have the answer (mmu.c).  vCPU thread only.
 */
#ifndef SKEP_CPU_SOFT_TLB_H
#define SKEP_CPU_SOFT_TLB_H

#include "cpu/soft/mmu.h"

#define CODE_TLB_SIZE 512
#define CODE_INVALID 2		/* no page */
#define MMU_SETS 4
#define TLB_VICTIMS 8
#define TLB_WORDS(entries) ((entries) / 64)

struct code_tlb_entry {
	uint64_t tag;		/* linear page | 1 for user; or CODE_INVALID */
	uint64_t phys;
	const uint8_t *host;
};

/*
 * The data translations of one context.  A filled entry has its bit in one of the two maps,
 * so that what drops translations looks at those alone, however many entries there are.
 */
struct tlb_context {
	struct tlb_entry at[TLB_SIZE];
	uint64_t filled[2][TLB_WORDS(TLB_SIZE)];	/* [1]: global ones */
	bool any[2];		/* a bit of that map may be set */
	/*
	 * What was replaced last: two pages in turn that share an entry cost no walks.  The first
	 * so many of them stand for something.
	 */
	uint8_t victims, next_victim;
	struct {
		struct tlb_entry entry;
		bool global;
	} victim[TLB_VICTIMS];
};

/*
 * Where pieces of large pages may stand, by hash: bit n of a map.  What INVLPG need not look
 * at is what has no bit in any.  2 and 4 MiB pages count by pieces of 2 MiB.  The lower and the upper
 * half of the address space have maps of their own: a kernel maps all memory by large pages.
 */
struct tlb_large {
	uint64_t mega[2][16];
	uint64_t giga[2];
};

/* The translations of one PCID (set 0 also serves when there are no PCIDs). */
struct tlb_set {
	uint16_t pcid;
	bool used;
	uint64_t root;		/* CR3 that the translations were made with, the global ones too */
	uint64_t epoch;		/* changes whenever translations are dropped */
	uint64_t last_use;
	struct tlb_large large[2];	/* [1]: of global pages */
	struct tlb_context data[TLB_CONTEXTS];
	struct code_tlb_entry code[CODE_TLB_SIZE];
	uint64_t code_filled[2][TLB_WORDS(CODE_TLB_SIZE)];
};

/*
 * Where the write tags of a host page may stand: nowhere, at one place, or anywhere.  Pages that
 * share a slot share its answer.
 */
#define WRITE_HINTS	4096
#define HINT_NOWHERE	0
#define HINT_ANYWHERE	UINT32_MAX

struct soft_mmu {
	struct tlb_set set[MMU_SETS];	/* on a page of its own, zero until it is filled */
	struct tlb_set *cur;
	uint64_t epochs;	/* the last epoch given out */
	/*
	 * For supervisor code, as long as all of it was fetched through global translations:
	 * then its jump entries serve every set.
	 */
	uint64_t kernel_epoch;
	bool kernel_local;	/* some was not, or it would show */
	/* By half and hash: linear pages that jump entries lead to. */
	uint64_t jump_pages[2][64];
	uint64_t uses;
	struct soft_tables *tables;	/* clock=virtual: what is watched; else NULL */
	uint32_t write_hint[WRITE_HINTS];	/* else 1 + entry, counted over sets and contexts */
};

struct walk;

/* The access context of the current mode (TLB_KERNEL ...). */
unsigned soft_mmu_context(const struct soft_cpu *c);
/* Puts a translation into the current set: the entry of lin in a context. */
void soft_tlb_fill(struct soft_mmu *m, unsigned context, uint64_t lin, uint8_t *host,
		   const struct walk *w, bool writable);
/* A page of code. */
struct code_tlb_entry *soft_tlb_fill_code(struct soft_cpu *c, uint64_t tag, const struct walk *w,
					  const uint8_t *host);
/*
 * After a miss: the entry that has the answer after all, in its place now; NULL: walk.  What
 * comes of it is an entry as a walk made it, of this context or of one with lesser rights.
 */
struct tlb_entry *soft_tlb_find(struct soft_cpu *c, unsigned context, uint64_t lin, bool write);

/* Drops what translates [lin, lin + 2^bits) in every set, and the jump entries there. */
void soft_tlb_drop_range(struct soft_cpu *c, uint64_t lin, unsigned bits);
/* The same for one page of 4 KiB that no large page covers; code says that it may hold some. */
void soft_tlb_drop_page(struct soft_cpu *c, uint64_t lin, bool code);
/* Writes to this page of RAM are to be seen from now on. */
void soft_tlb_drop_writes(struct soft_cpu *c, uint64_t phys_page);
/* The same of every page, by its host address, that `drop` says true of. */
void soft_tlb_drop_writes_if(struct soft_cpu *c, bool (*drop)(struct soft_cpu *c, const uint8_t *host));

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
	bool writable, user, nx, global, dirty;
	uint8_t shift;		/* of the page's size; 0 without paging */
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
