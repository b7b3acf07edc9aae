/*
 * Saves at exact instruction counts (clock=virtual): what proves that a restored machine goes on
 * as if nothing had happened.  Each is a checkpoint into a file of its own.
 */
#ifndef SKEP_SNAPSHOT_SCHEDULE_H
#define SKEP_SNAPSHOT_SCHEDULE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

struct vm;
struct save_schedule;

struct save_point {
	uint64_t at;		/* instructions executed by then */
	const char *path;	/* borrowed until save_schedule_stop */
};

/* Points in rising order; before vm_run.  NULL with e set. vm thread. */
struct save_schedule *save_schedule_start(struct vm *vm, const struct save_point *points, size_t n,
					  struct skep_error *e);
/* After vm_run: a point that was never reached is an error. NULL is fine. */
int save_schedule_stop(struct save_schedule *s, struct skep_error *e);

#endif
