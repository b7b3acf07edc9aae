/*
 * The places below the exported directory that clients have walked to.
 *
 * A node is a name in a parent.  It holds an O_PATH descriptor of what stood there, and that
 * descriptor is the file from then on: nobody can put another in its place.  The way to it is
 * one component at a time, openat2 with RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS and
 * RESOLVE_NO_MAGICLINKS, from the descriptor of the parent.  So a client, or whoever else
 * writes to the directory, can race with renames and symbolic links as they like; what we hold was
 * below the export when we looked, and ".." never reaches the kernel.
 *
 * Descriptors are few.  That of a node which nobody uses at the moment may be closed; it is opened
 * again by its name and has to be the same file then (device, inode, birth), else the node
 * is stale for good.  Restored nodes begin like that.
 *
 * Locks: `names` is about which name leads where (held for writing while a name is taken away
 * or moved), and is taken before `lock`, which is about everything else in here and is never
 * held over a system call that may wait.  A descriptor is pinned before `names` is taken.
 */
#ifndef SKEP_P9_NODE_H
#define SKEP_P9_NODE_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>

#include "base/error.h"

#define P9_DEPTH_MAX	1024	/* components of a path */

struct p9_ident {
	uint64_t dev, ino;
	int64_t born;		/* ns since 1970; 0: the file system does not tell */
};

struct p9_node {
	struct p9_node *parent;		/* NULL: the root */
	char *name;			/* in it; owned */
	struct p9_node *hash_next;
	struct p9_node *older, *newer;	/* in the list of those that may be closed */
	struct p9_ident ident;
	uint16_t type;			/* S_IFMT on the host */
	bool detached;			/* that name leads elsewhere now, or nowhere */
	bool stale;			/* was not found again */
	bool listed;
	uint32_t refs;			/* fids, children, calls */
	uint32_t pins;			/* who uses fd */
	int fd;				/* O_PATH, or -1 */
	uint32_t number;		/* state.c's, while it exports */
};

struct p9_tree {
	pthread_mutex_t lock;
	pthread_rwlock_t names;
	struct p9_node *root;
	struct p9_node **buckets;	/* nodes that are not detached, by parent and name */
	size_t nbuckets, nnodes;
	struct p9_node idle;		/* head of the list; idle.newer is the oldest */
	uint32_t fds, fds_max;		/* descriptors of nodes and open files */
};

/* Takes fd. */
int p9_tree_init(struct p9_tree *t, int fd, uint32_t fds_max, struct skep_error *e);
void p9_tree_finish(struct p9_tree *t);		/* all but the root have been put */

struct p9_node *p9_node_get(struct p9_tree *t, struct p9_node *n);
void p9_node_put(struct p9_tree *t, struct p9_node *n);	/* NULL is fine */

/* Its descriptor, which stays until unpin; or -errno, -ESTALE for what is not there any more. */
int p9_node_pin(struct p9_tree *t, struct p9_node *n);
void p9_node_unpin(struct p9_tree *t, struct p9_node *n);

/* The node of name (checked: p9_name_ok) in parent, referenced, and what statx says of it. */
int p9_node_walk(struct p9_tree *t, struct p9_node *parent, const char *name, struct statx *stx,
		 struct p9_node **out);
/* The node of a file that we have just made there, of which somebody else keeps a descriptor. */
int p9_node_made(struct p9_tree *t, struct p9_node *parent, const char *name,
		 const struct statx *stx, struct p9_node **out);
/* A node that is to be found again by its name; or, if it is not there, stale.  NULL: no memory. */
struct p9_node *p9_node_restored(struct p9_tree *t, struct p9_node *parent, const char *name,
				 const struct p9_ident *ident, uint16_t type, bool there);

/* unlinkat: who still has the file keeps it.  want: only if it is this file (may be NULL). */
int p9_node_unlink(struct p9_tree *t, struct p9_node *parent, const char *name, int flags,
		   struct p9_node *want);
/* renameat; want as above. */
int p9_node_rename(struct p9_tree *t, struct p9_node *from, const char *name, struct p9_node *to,
		   const char *as, struct p9_node *want);
/* The parent, referenced; the root's is itself. */
struct p9_node *p9_node_up(struct p9_tree *t, struct p9_node *n);
/* Its parent (referenced) and a copy of its name (from malloc): -EBUSY for the root. */
int p9_node_place(struct p9_tree *t, struct p9_node *n, struct p9_node **parent, char **name);

/* Room for one more open file: makes some by closing nodes; -ENFILE.  Given back with -1. */
int p9_tree_charge(struct p9_tree *t);
void p9_tree_uncharge(struct p9_tree *t);

void p9_ident_of(const struct statx *stx, struct p9_ident *id);
bool p9_ident_same(const struct p9_ident *a, const struct p9_ident *b);

/* One component, never through a symbolic link: flags as for open; O_NOFOLLOW is added. */
int p9_open_below(int dirfd, const char *name, int flags, unsigned mode);
#define P9_STATX (STATX_BASIC_STATS | STATX_BTIME)
int p9_statx(int fd, struct statx *stx);	/* of the file itself; -errno */

#endif
