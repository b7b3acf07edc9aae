/* What save.c and restore.c share: the manifest of a machine, and what of its settings is saved. */
#ifndef SKEP_SNAPSHOT_CONTENTS_H
#define SKEP_SNAPSHOT_CONTENTS_H

#include <stdbool.h>

#include "base/error.h"
#include "snapshot/manifest.h"

struct vm;
struct save_options;

/* How a setting is bound to a snapshot. */
enum setting_kind {
	SETTING_MACHINE,	/* the guest can see it: a restore may not change it */
	SETTING_HOST,		/* saved, and a restore may give another */
	SETTING_RUN,		/* of one run of the command: not saved, and a restore may set it */
};
enum setting_kind setting_kind(const char *key);

/*
 * Fills in the manifest of a machine that stands; the caller frees it with
 * state_free(&manifest_record, m).  The parent's fields are left to the caller.
 */
int manifest_fill(struct manifest *m, struct vm *vm, unsigned generation, bool draft,
		  struct skep_error *e);
/* Is the processor that this release has under the manifest's name the one that was saved? */
int manifest_check_cpu(const struct manifest *m, struct skep_error *e);

#endif
