/* Disks and snapshots: memory and disk that do not belong together destroy file systems. */
#ifndef SKEP_SNAPSHOT_DISKS_H
#define SKEP_SNAPSHOT_DISKS_H

#include <stdbool.h>

#include "base/error.h"
#include "snapshot/manifest.h"

struct vm;
struct config;

/* ---- Saving ---------------------------------------------------------------- */

/* Can every disk of the machine be taken (skep save --disks)? Any thread. */
int disks_can_take(struct vm *vm, struct skep_error *e);
/*
 * Fills in the manifest's list of disks; take: each overlay gets a snapshot of this moment, with the
 * manifest's id.  The machine stands.
 */
int disks_describe(struct manifest *m, struct vm *vm, bool take, const char *path,
		   struct skep_error *e);
/* All that the disks hold by now is on stable storage. Any thread, no lock. */
int disks_flush(struct vm *vm, struct skep_error *e);
/*
 * The save is over.  commit: older snapshots that went with the same file are given up; else those
 * of this save.  Any thread, no lock.
 */
void disks_end(struct vm *vm, const struct manifest *m, const char *path, bool commit);

/* ---- Restoring -------------------------------------------------------------- */

/*
 * A disk whose overlay is to be another one than it was begins with the disk as it was saved: sets
 * what says so in c, which is open.  final: the same settings, frozen.  clone: no disk may be
 * written to that others write to.
 */
int disks_configure(struct config *c, struct config *final, const struct manifest *m, bool clone,
		    struct skep_error *e);
/* Are the machine's disks those that were saved, as they were?  An overlay is taken back to its
 * snapshot, which lasts once the machine writes or flushes.  any: whatever they are. */
int disks_restore(struct vm *vm, const struct manifest *m, bool any, struct skep_error *e);

#endif
