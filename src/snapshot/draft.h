/*
 * Snapshots of a generation that was a draft when they were written: it may have changed since,
 * and then a restore says so instead of leaving a strange key unexplained.
 */
#ifndef SKEP_SNAPSHOT_DRAFT_H
#define SKEP_SNAPSHOT_DRAFT_H

#include "base/error.h"
#include "snapshot/reader.h"

/*
 * Adds to the sentence in e that the draft has changed, where err is -EPROTO (a record of another
 * shape than the table's, state/codec.h) and the manifest says that it is of a draft.  Returns err.
 */
int snap_draft_changed(const struct manifest *m, int err, struct skep_error *e);
/* The same for what config_freeze said of the manifest's settings: -ENOENT is an unknown key. */
int snap_draft_frozen(const struct manifest *m, int err, struct skep_error *e);
/* The same for a manifest that could not be decoded itself. */
int snap_draft_manifest_changed(const struct snap_record *note, int err, struct skep_error *e);

#endif
