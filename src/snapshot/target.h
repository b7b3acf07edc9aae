/*
 * A file that appears whole or not at all: written without a name, fsynced, linked to a temporary
 * name, renamed over the target, and the directory fsynced.  Where the file system has no unnamed
 * files, a temporary name stands in from the beginning.  One thread.
 *
 * A target that is a symbolic link is refused: renaming would replace the link, and writing
 * through it would let whoever made it choose the file.  The file is its owner's alone (0600):
 * it holds the machine's memory.  Two saves to one target: the later commit wins.
 */
#ifndef SKEP_SNAPSHOT_TARGET_H
#define SKEP_SNAPSHOT_TARGET_H

#include <stdbool.h>
#include "base/error.h"

struct snap_target {
	int dir;		/* descriptor of the directory */
	int fd;			/* of the file: open for reading and writing, empty */
	char *path, *name;	/* as given; its last component */
	char temporary[64];	/* where it has a name already, else "" */
};

/* The directory must exist; an existing target must be a regular file.  Nothing is left on failure. */
int snap_target_open(struct snap_target *t, const char *path, struct skep_error *e);
/* The way of file systems without unnamed files, which the tests take on any. */
int snap_target_open_named(struct snap_target *t, const char *path, struct skep_error *e);
/* sync: false skips both fsyncs (for benchmarks and tests). Closes everything, whatever happens. */
int snap_target_commit(struct snap_target *t, bool sync, struct skep_error *e);
void snap_target_abort(struct snap_target *t);	/* after a commit, or zeroed: nothing to do */

#endif
