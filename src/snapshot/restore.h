/* A machine from a snapshot. */
#ifndef SKEP_SNAPSHOT_RESTORE_H
#define SKEP_SNAPSHOT_RESTORE_H

#include "base/error.h"
#include "snapshot/reader.h"

struct vm;
struct config;

enum restore_time { RESTORE_TIME_CONTINUE, RESTORE_TIME_ADVANCE };

struct restore_options {
	bool exact;		/* nothing that the guest can see changes */
	enum restore_time time;
	bool check_ram;		/* verify each chunk before it is seen */
	bool prefault;		/* read all of RAM before the guest runs */
	bool prefetch;		/* read what was written last before the guest runs */
	bool any_disks;		/* whatever the disks hold */
	bool clone;		/* one of several machines from one file */
};

/*
 * The configuration that the file holds, open for changes of host-side keys (config_freeze is
 * still to come).  NULL with e set.
 */
struct config *restore_config(const struct snap_reader *r, struct skep_error *e);
/* May this key differ from the file's? What a guest cannot see: console paths, its name ... */
bool restore_may_remap(const char *key);
/*
 * Builds the machine and gives it the state: decode all, validate all, commit.  The configuration
 * is frozen and outlives the VM; the reader is owned by the VM on success.  On failure nothing is
 * left behind.  vm_run goes on where the guest stood.
 */
struct vm *restore_vm(struct snap_reader *r, struct config *c, const struct restore_options *o,
		      struct skep_error *e);

#endif
