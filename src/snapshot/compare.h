/* How the RAM of two snapshots differs. */
#ifndef SKEP_SNAPSHOT_COMPARE_H
#define SKEP_SNAPSHOT_COMPARE_H

#include "snapshot/reader.h"

struct snap_compare {
	/*
	 * Look at every byte that is stored.  Otherwise chunks of which both files have the same
	 * checksum, or which they take from the same file, count as the same, unread.
	 */
	bool bytes;
	/* May be NULL.  Whole pages that differ, by rising address; neighbours come as one. */
	void (*range)(void *opaque, uint64_t gpa, uint64_t len);
	/* May be NULL; false stops it (-ECANCELED). */
	bool (*progress)(void *opaque, uint64_t done, uint64_t all);
	void *opaque;
	/* Result.  RAM that only one of the machines has differs. */
	uint64_t pages, differing;	/* pages, and bytes in them, that differ */
	uint64_t all, looked_at;	/* bytes: RAM, and of it those that were read */
};

/* Readers with their parents.  e names the place where RAM is damaged.  One thread. */
int snap_compare_ram(struct snap_reader *a, struct snap_reader *b, struct snap_compare *c,
		     struct skep_error *e);

#endif
