/*
 * Saving a machine: preflight, pause, export, cut, write, and (live or checkpoint) go on.
 *
 * A save runs on a thread of its own.  The file it fills is open already; who opened it links it
 * into place after `done` says it is complete, and then says commit, or abort.  Only then does a
 * suspended machine end, and only then do the pages of the cut count as saved.
 */
#ifndef SKEP_SNAPSHOT_SAVE_H
#define SKEP_SNAPSHOT_SAVE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "snapshot/format.h"

struct vm;
struct save;

struct save_options {
	bool suspend;		/* stands until commit, and then ends with VM_EXIT_SUSPENDED */
	bool live;		/* goes on right after the cut */
	bool disks;		/* overlays keep their disks as they are at the same moment */
	bool delta;		/* only what changed since the last save or the restore */
	int zstd_level;		/* 0: not compressed */
	unsigned generation;	/* 0: the newest */
	bool no_sync;		/* leave out the fsync */
	const char *path;	/* where it will be: for a later delta's manifest; may be NULL */
};

struct save_progress {
	uint64_t done, total;	/* bytes of RAM */
	int64_t elapsed_ns;
};

struct save_result {
	uint64_t bytes;		/* written to the file, without holes */
	uint64_t ram_bytes;	/* RAM that it holds */
	int64_t pause_ns;	/* how long the guest stood still for it; suspend: until written */
	int64_t elapsed_ns;
	uint8_t digest[SNAP_DIGEST_SIZE];
	uint8_t id[16];
};

struct save_callbacks {		/* on the save's thread, no lock held */
	void (*progress)(void *opaque, const struct save_progress *p);
	/* Once, at the end; error is NULL when the file is complete. save_end is due then. */
	void (*done)(void *opaque, const struct save_result *r, const struct skep_error *error);
	void *opaque;
};

/*
 * Names every obstacle, one a line in e, before anything is paused.  Any thread.
 */
int save_preflight(struct vm *vm, const struct save_options *o, struct skep_error *e);
/* Starts it.  fd is owned from now on, whatever is returned.  NULL with e set. Any thread. */
struct save *save_start(struct vm *vm, int fd, const struct save_options *o,
			const struct save_callbacks *cb, struct skep_error *e);
/* Asks it to give up; `done` comes with a sentence. Any thread. */
void save_cancel(struct save *s);
/*
 * After done: commit says the file is in its place.  Waits for the thread, frees it; a machine
 * that was suspended ends or goes on. Any thread but the save's and a vCPU's, no lock held.
 */
void save_end(struct save *s, bool commit);

#endif
