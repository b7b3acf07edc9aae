/*
 * What a soft processor counts about itself, for `skep stats` and --stats.  None of
 * it is part of the machine: it is not saved, and nothing depends on it.
 *
 * The vCPU's thread writes, any thread may read: relaxed, so that counting costs what a plain
 * increment does.  The lists below are all there is to add to: the structure, JSON and text
 * follow from them.
 */
#ifndef SKEP_CPU_SOFT_STATS_H
#define SKEP_CPU_SOFT_STATS_H

#include <stdatomic.h>
#include <stdint.h>

/* X(section, name): sections stand together. */
#define SOFT_STATS(X)								\
	/* The run loop: rounds, and why it had to be gone to. */		\
	X(run, rounds)								\
	X(run, alone)		/* instructions run by themselves */		\
	X(run, requests)							\
	X(run, budget)		/* a new budget of instructions was due */	\
	X(run, halts)								\
	X(run, shadows)		/* STI, MOV SS */				\
	X(interrupts, maskable)							\
	X(interrupts, nmi)							\
	X(tlb, read_misses)							\
	X(tlb, write_misses)							\
	X(tlb, code_misses)							\
	X(tlb, victims)		/* misses that found what had just been replaced */	\
	X(tlb, shared)		/* misses that another context had the answer to */	\
	X(tlb, walks)								\
	X(tlb, switches)	/* CR3 was written */				\
	X(tlb, flushes)		/* of one address space */			\
	X(tlb, flushes_all)							\
	X(tlb, pages)		/* INVLPG and the like */			\
	X(tlb, ranges)		/* pages that might have been large */		\
	X(tlb, jumps)		/* flushes of the jump cache for a page of code */	\
	X(tlb, write_tags)	/* pages that lost theirs */			\
	X(code, lookups)	/* blocks that no jump entry led to */		\
	X(code, blocks)		/* decoded */					\
	X(code, instructions)	/* decoded, but for those run alone */		\
	X(code, killed)								\
	X(code, flushes)							\
	X(io, mmio_reads)							\
	X(io, mmio_writes)							\
	/* Translated code.  Nothing is counted inside it: only where it is made, entered and left. */ \
	X(translator, blocks)		/* translated */			\
	X(translator, loops)		/* of those with a second copy */	\
	X(translator, groups)		/* checks that serve several accesses */ \
	X(translator, code_bytes)	/* written for them */			\
	X(translator, ns)		/* of the host's processor: translating, evicting, flushing */ \
	X(translator, longest_ns)	/* the longest of these times: others may wait for its end */ \
	X(translator, links)		/* made: a jump leads to a block by itself */ \
	X(translator, evictions)	/* blocks that lost their region */	\
	X(translator, entries)		/* from the run loop */			\
	X(translator, exit_interpreter)	/* a handler went on elsewhere */	\
	X(translator, exit_unknown)	/* to code that is not translated */	\
	X(translator, exit_request)						\
	X(translator, exit_budget)						\
	X(translator, exit_fault)	/* or the instruction is to run alone */ \
	X(translator, exit_written)	/* the block is dead */

#define SOFT_VECTORS 32

struct soft_stats {
#define X(section, name) _Atomic uint64_t section##_##name;
	SOFT_STATS(X)
#undef X
	_Atomic uint64_t exceptions[SOFT_VECTORS];
};

static inline void soft_stat_add(_Atomic uint64_t *at, uint64_t n)
{
	atomic_store_explicit(at, atomic_load_explicit(at, memory_order_relaxed) + n,
			      memory_order_relaxed);
}

static inline void soft_stat_max(_Atomic uint64_t *at, uint64_t n)
{
	if (atomic_load_explicit(at, memory_order_relaxed) < n)
		atomic_store_explicit(at, n, memory_order_relaxed);
}

/* SOFT_COUNT(c, tlb_walks) */
#define SOFT_COUNT(c, field) soft_stat_add(&(c)->stats.field, 1)
#define SOFT_COUNT_N(c, field, n) soft_stat_add(&(c)->stats.field, (n))

struct vcpu;
/* vcpu_ops.stats. */
void soft_stats_tell(struct vcpu *v, void (*tell)(void *opaque, const char *section,
						  const char *name, uint64_t value),
		     void *opaque);

#endif
