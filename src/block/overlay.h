/*
 * Overlays: what is written to a disk lies in a file of ours, over a base that is only read; the
 * file also keeps snapshots of the disk.  doc/skep-overlay.5 describes the format.
 *
 * Blocks of 4 KiB.  A tree of maps says for each block of the disk where it lies in the file.
 * Nothing that the newest superblock or a snapshot leads to is ever overwritten, but for the content
 * of blocks that no snapshot has: maps are written anew elsewhere, then synced, and then one of two
 * superblocks is written, with the higher number.  So a crash leaves the state of the last flush,
 * but for blocks that were written since, each old or new, as on any disk.
 */
#ifndef SKEP_BLOCK_OVERLAY_H
#define SKEP_BLOCK_OVERLAY_H

#include "block/image.h"

#define OVERLAY_LABEL	192u
#define OVERLAY_SNAPSHOTS_MAX 256u

struct overlay_snapshot {
	uint8_t id[IMAGE_ID_SIZE];
	uint64_t size;			/* of the disk then, bytes */
	int64_t taken_ns;		/* since the Epoch */
	char label[OVERLAY_LABEL];	/* the snapshot file that goes with it; its end if it is longer */
};

/* Is it one?  The rest fails with -ENOTSUP where it is none.  Any thread. */
bool image_is_overlay(const struct image *im);
/* Takes the disk as it is now, at once; durable with the next flush.  No request under way. */
int overlay_take(struct image *im, const uint8_t id[IMAGE_ID_SIZE], const char *label,
		 struct skep_error *e);
/* Gives a snapshot up; -EBUSY: a clone reads it; -ENOENT: there is none. Durable when it returns. */
int overlay_drop(struct image *im, const uint8_t id[IMAGE_ID_SIZE], struct skep_error *e);
/* Gives those up that have this label, but for one: what they belonged to has been replaced. */
void overlay_drop_label(struct image *im, const char *label, const uint8_t keep[IMAGE_ID_SIZE]);
/*
 * For a disk that was just opened: it is what it was in the snapshot, which stays.  What came since is lost with the next write
 * or flush, and not before.
 */
int overlay_revert(struct image *im, const uint8_t id[IMAGE_ID_SIZE], struct skep_error *e);
/* The disk grows to size bytes; the new part is zero. Durable. */
int overlay_grow(struct image *im, uint64_t size, struct skep_error *e);
/* The disk that an overlay lies over; another image is returned as it is. */
struct image *overlay_under(struct image *im);
unsigned overlay_count(struct image *im);
int overlay_get(struct image *im, unsigned n, struct overlay_snapshot *s);

#endif
