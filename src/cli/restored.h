/* The configuration of a machine that is restored or cloned, for these two commands. */
#ifndef SKEP_CLI_RESTORED_H
#define SKEP_CLI_RESTORED_H

#include "base/error.h"

struct config;
struct snap_reader;

#define RESTORED_ASSIGNMENTS 64

struct restored_settings {
	const char *assignments[RESTORED_ASSIGNMENTS];	/* -o; borrowed */
	unsigned nassignments;
	const char *name;	/* of the machine; NULL: as it was saved */
	const char *clone;	/* its number as a clone, or NULL */
};

int restored_assign(struct restored_settings *s, const char *assignment, struct skep_error *e);
/* The snapshot's settings with these on top, frozen; the caller's.  NULL with e set. */
struct config *restored_config(const struct snap_reader *r, const struct restored_settings *s,
			       struct skep_error *e);

#endif
