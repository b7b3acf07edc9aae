/*
 * A cut: guest RAM as it was at one moment, for whoever writes it down.
 *
 * A cut that is not live is read while the machine stands.  A live one is read while the guest
 * goes on: each page is copied before its first write after the cut (PAGE_FROZEN; the way
 * every writer takes is memory_will_write, in memory.h).  Nobody stops for it, and no
 * kernel feature is needed.
 *
 * One cut at a time for a machine.  The thread that made it does the rest, too.
 */
#ifndef SKEP_VM_CUT_H
#define SKEP_VM_CUT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "vm/memory.h"

#define CUT_CHUNK_PAGES (RAM_CHUNK / GUEST_PAGE_SIZE)

enum { CUT_LIVE = 1, CUT_DELTA = 2 };

struct ram_cut;

/*
 * Machine quiesced.  CUT_DELTA: only pages written since the last cut that was committed (or
 * since the restore).  All pages count as clean from now on, for the next delta.  Takes time in
 * proportion to the flags (a byte a page), not to RAM.
 */
struct ram_cut *memory_cut(struct guest_memory *m, unsigned flags, struct skep_error *e);

/* Up to RAM_CHUNK bytes at a RAM_CHUNK-aligned place of a region (shorter at its end). */
struct ram_chunk {
	uint64_t gpa;
	uint32_t npages;
	uint32_t nthere;	/* bits set in `there` */
	const uint8_t *data;	/* npages pages; read only those that are there */
	/*
	 * Bit n: page n is in the cut.  The others are zero (or as in the parent, for a
	 * delta).  A page of zeroes is not there, but in a delta, where it must be told.
	 */
	uint64_t there[CUT_CHUNK_PAGES / 64];
};

/* The next chunk with any page in it, by rising address; 0: no more; valid until the next call. */
int ram_cut_next(struct ram_cut *c, struct ram_chunk *chunk, struct skep_error *e);
/* Upper bounds, for progress: pages in the cut, and those that were returned. */
uint64_t ram_cut_pages(const struct ram_cut *c);

/*
 * Live: the host has no memory for more copies, and the processors wait until half of them have been
 * read.  Since when (host monotonic ns); 0: they do not.  Guest time goes on meanwhile: whoever sees it
 * pauses the machine.  Any thread.
 */
int64_t ram_cut_braked(const struct ram_cut *c);

/*
 * Calls fn for each stretch of pages that were written since the last cut that was committed, or
 * since the restore; by rising address.
 */
void ram_cut_written(const struct ram_cut *c, void (*fn)(void *opaque, uint64_t gpa, uint64_t npages),
		     void *opaque);

/* The save is complete: frees it.  A live one: writers go on unwatched. */
void ram_cut_commit(struct ram_cut *c);
/* It is not: the pages that were dirty are dirty again, for the next delta.  Frees it. NULL is fine. */
void ram_cut_abort(struct ram_cut *c);

#endif
