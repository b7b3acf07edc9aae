/*
 * One file out of a chain: the same machine at the same moment, without parents.
 */
#ifndef SKEP_SNAPSHOT_FLATTEN_H
#define SKEP_SNAPSHOT_FLATTEN_H

#include "snapshot/reader.h"

struct flatten_options {
	int zstd_level;		/* 0: a plain file, which restores without a copy */
	/* May be NULL; in bytes of RAM; returns false to stop (-ECANCELED). */
	bool (*progress)(void *opaque, uint64_t done, uint64_t all);
	void *opaque;
};

/*
 * Writes what r and its parents hold into fd, an empty regular file that is open for reading and
 * writing (a snap_target's; borrowed, not fsynced).  Records and the notes of others are copied
 * as they are; the manifest loses its parent.  All RAM is verified on the way.  The source may be
 * any snapshot, with or without parents: this is also how one is compressed, or unpacked.
 * The reader's thread.
 */
int snap_flatten(struct snap_reader *r, int fd, const struct flatten_options *o,
		 uint8_t digest[SNAP_DIGEST_SIZE], struct skep_error *e);

#endif
