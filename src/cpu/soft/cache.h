/*
 * The cache of decoded blocks.
 *
 * Blocks are found by physical address and mode.  A block that was written
 * over is not freed at once: its ops are turned into op_stale, which leads back
 * to the run loop from wherever something still points at it, so that links
 * and jump entries need no back references.  Memory is given back all at once
 * when the arena is full.
 */
#ifndef SKEP_CPU_SOFT_CACHE_H
#define SKEP_CPU_SOFT_CACHE_H

#include "cpu/soft/soft.h"

#define BLOCK_MAX_INSNS	48
/* head, per instruction up to five ops, end */
#define BLOCK_MAX_OPS	(2 + 5 * BLOCK_MAX_INSNS)

struct soft_cache *soft_cache_create(struct skep_error *e);
void soft_cache_destroy(struct soft_cache *k);
/* Forgets everything (restore, reset). */
void soft_cache_flush(struct soft_cpu *c);

/*
 * The block that starts at c->rip, decoded now if need be; its head op.  Raises
 * #PF and #GP of the fetch.  NULL: the instruction cannot stand in a cached
 * block (limit of CS, not memory): run it alone.
 */
const struct soft_op *soft_cache_find(struct soft_cpu *c);

/* Do two ops belong to blocks of the cache that begin in the same page of RAM?  Not a fast path's. */
bool soft_cache_same_page(const struct soft_cpu *c, const struct soft_op *a, const struct soft_op *b);

/* The block at c->rip has run often: makes a translation of it, if it can be had.  Run loop. */
void soft_cache_translate(struct soft_cpu *c);

/* RAM [phys, phys+len), len > 0, was written: drops blocks that overlap it. vCPU's thread. */
void soft_code_written(struct soft_cpu *c, uint64_t phys, uint64_t len);

/* decode.c */
struct block_bytes {
	const uint8_t *bytes;
	unsigned avail;		/* bytes that may be read */
	unsigned page_offset;	/* linear offset in page of the first byte */
};
/*
 * Decodes up to max instructions into ops, which starts with a head and ends
 * with an op that leaves.  Fills *ninsns and *nbytes.  Returns the number of
 * ops; 0 when the first instruction needs more bytes than there are.
 */
unsigned soft_decode_block(struct soft_cpu *c, const struct block_bytes *in, unsigned max,
			   struct soft_op *ops, unsigned *ninsns, unsigned *nbytes);

op_fn op_head, op_end, op_stale, op_stale_head;

/* core.c: leaves the block before op and runs its instruction by itself. */
_Noreturn void soft_restart_alone(struct soft_cpu *c, const struct soft_op *op);

#endif
