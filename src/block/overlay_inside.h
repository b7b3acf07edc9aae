/* The format of an overlay, and what its files share.  o->lock is held but where it says otherwise. */
#ifndef SKEP_BLOCK_OVERLAY_INSIDE_H
#define SKEP_BLOCK_OVERLAY_INSIDE_H

#include <pthread.h>

#include "base/util.h"
#include "block/overlay.h"

#define OB		4096u			/* bytes of a block */
#define OVERLAY_MAGIC	"skep overlay\r\n\x1a"	/* 15 bytes and the NUL */
#define OVERLAY_VERSION	1u
#define LEVELS		4u			/* of maps; level 0 leads to data */
#define LEAF_ENTRIES	512u
#define NODE_ENTRIES	256u
#define OVERLAY_SIZE_MAX ((uint64_t)OB * LEAF_ENTRIES * NODE_ENTRIES * NODE_ENTRIES * NODE_ENTRIES)
#define FIRST_BLOCK	3u			/* two superblocks and the base */
#define OVERLAY_DEPTH_MAX 32u			/* overlays that lie one over the other */

/* An entry of a leaf: block number in the file, and the generation in which it was written. */
#define ENTRY_BLOCK(x)	((x) & (BIT(40) - 1))
#define ENTRY_BIRTH(x)	((uint32_t)((x) >> 40))
#define ENTRY(block, birth) ((uint64_t)(block) | (uint64_t)(birth) << 40)
#define ENTRY_NONE	0u	/* as the base has it */
#define ENTRY_ZERO	1u	/* zeroes; no block has this number, it is a superblock's */
#define BIRTH_MAX	((1u << 24) - 1)

struct overlay_ref {		/* an entry of a map above the leaves; block 0: nothing there */
	uint64_t block;
	uint32_t birth;
	uint32_t sum;		/* low half of XXH3 of the block */
};

struct overlay_super {
	char magic[16];
	uint32_t version, flags;	/* flags: 0 */
	uint8_t id[IMAGE_ID_SIZE];
	uint64_t commit;		/* of the two, the higher one is the newer */
	uint64_t sequence;		/* of changes, for who compares: image_identity */
	uint64_t size;			/* of the disk, bytes */
	uint64_t end;			/* blocks of the file that are in use, or were */
	uint32_t generation, nsnapshots;
	struct overlay_ref root;
	struct overlay_ref snapshots;	/* the first of the blocks that hold them; sum: of all */
	uint8_t zero[OB - 8 - 112];
	uint64_t sum;			/* XXH3 of what stands before it */
};
_Static_assert(sizeof(struct overlay_super) == OB, "one block");

struct overlay_base {			/* block 2 */
	char magic[16];
	uint8_t snapshot[IMAGE_ID_SIZE];	/* path is an overlay, and this one of its snapshots */
	uint32_t has_snapshot, kind;	/* enum image_kind */
	uint64_t size, inode;
	int64_t changed_ns;
	uint8_t id[IMAGE_ID_SIZE];
	uint64_t sequence;
	char path[3072];
	uint8_t zero[OB - 8 - 3072 - 88];
	uint64_t sum;
};
_Static_assert(sizeof(struct overlay_base) == OB, "one block");

struct snapshot_entry {
	uint8_t id[IMAGE_ID_SIZE];
	struct overlay_ref root;
	uint64_t size;
	int64_t taken_ns;
	uint32_t generation, zero;
	char label[OVERLAY_LABEL + 8];
};
_Static_assert(sizeof(struct snapshot_entry) == 256, "sixteen a block");

struct node {			/* a map in memory */
	struct overlay_ref at;	/* where it was written last; block 0: nowhere */
	bool dirty;		/* it, or something below it, differs from that */
	uint8_t level;
	union {
		uint64_t *entry;	/* level 0: LEAF_ENTRIES */
		struct {
			struct overlay_ref *ref;	/* NODE_ENTRIES */
			struct node **child;		/* those that are in memory */
		};
	};
};

struct overlay {
	struct image im;
	char *owner;
	struct image *base;	/* NULL: nothing, zeroes */
	uint64_t base_size;
	int fd;
	pthread_mutex_t flush_lock;	/* one commit at a time; taken before lock */
	int lost;			/* what the first failed sync said; flush_lock */
	pthread_mutex_t lock;
	struct overlay_super super;	/* the newest on disk */
	struct overlay_base about;
	struct node *root;
	bool view;			/* of a snapshot: read-only */
	bool sync;			/* what has returned is durable */
	uint32_t generation;		/* of what is written now */
	struct snapshot_entry snap[OVERLAY_SNAPSHOTS_MAX];
	unsigned nsnaps;
	bool snaps_dirty;
	/* The newest generation of a snapshot, here or in a list on the disk: what is as old stays. */
	uint32_t pinned;
	uint64_t sequence;
	uint64_t told;			/* somebody relies on this sequence number; 0: nobody */
	bool taken_back;		/* to a snapshot, in memory only so far */

	/* Free space: a bit a block. */
	uint64_t *used;
	uint64_t nblocks, room;		/* blocks of the file; bits there is memory for */
	uint64_t hint;
	uint64_t *freed;		/* free as soon as the next superblock is written */
	size_t nfreed, max_freed;
};

static inline struct overlay *overlay_of(struct image *im)
{
	return container_of(im, struct overlay, im);
}

uint32_t overlay_sum(const void *block, size_t len);
int overlay_read_block(struct overlay *o, uint64_t block, void *buf, size_t len);
int overlay_write_block(struct overlay *o, uint64_t block, const void *buf, size_t len);

/* overlay_map.c */
struct node *node_new(unsigned level);
void node_free(struct node *n);		/* and all below it; NULL is fine */
/* The map that a superblock or a snapshot leads to; an empty one where ref leads nowhere. */
int map_root(struct overlay *o, const struct overlay_ref *ref, struct node **root);
/*
 * The leaf that has block n of the disk, in *leaf (NULL: there is none, and all of it is the base's).
 * make: made if it is not there, and all maps above it dirty.
 */
int map_leaf(struct overlay *o, uint64_t n, bool make, struct node **leaf);
/* Writes every dirty map to a new place, from below; nothing is synced. */
int map_write(struct overlay *o);
/* Finds out what is in use, from the maps of the disk, none of them dirty, and of all snapshots. */
int map_mark(struct overlay *o, struct skep_error *e);
/* A run of up to want blocks; 0 and *got, or -ENOSPC, -ENOMEM. */
int space_get(struct overlay *o, uint64_t want, uint64_t *block, uint64_t *got);
/* It was never written to a map, so it is free at once. */
void space_unget(struct overlay *o, uint64_t block, uint64_t n);
/* Free after the next commit. */
int space_free(struct overlay *o, uint64_t block);

/* overlay_file.c: makes all that was done durable.  No lock held. */
int overlay_commit(struct overlay *o);
int overlay_file_open(struct overlay *o, const struct image_options *io, struct skep_error *e);

extern const struct image_ops overlay_ops;

#endif
