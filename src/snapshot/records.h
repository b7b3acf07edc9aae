/*
 * The records of a file as models, by the tables of this release and without a machine: for
 * those who look at a snapshot.  Any thread; the reader outlives the set.
 */
#ifndef SKEP_SNAPSHOT_RECORDS_H
#define SKEP_SNAPSHOT_RECORDS_H

#include "snapshot/reader.h"
#include "state/codec.h"

struct snap_model {
	struct state_head head;		/* name "" and why set: not even that could be read */
	const struct state_record *table;	/* NULL: this release does not know the kind */
	void *model;			/* NULL: not decoded; why says why not */
	const struct snap_record *raw;
	struct skep_error *why;		/* owned; NULL where there is a model */
	unsigned skipped;		/* optional fields that this release does not know */
};

struct snap_models {
	struct snap_model *items;	/* one a record, in the file's order */
	size_t count;
};

/* Fails only where there is no memory. */
int snap_models_read(struct snap_models *m, const struct snap_reader *r, struct skep_error *e);
void snap_models_free(struct snap_models *m);	/* all zeroes is fine */
/* The first one of that name, or NULL. */
const struct snap_model *snap_models_find(const struct snap_models *m, const char *name);
/*
 * Is every record one that this release can read, and none there twice?  The sentence names
 * the first one that is not.
 */
int snap_models_check(const struct snap_models *m, struct skep_error *e);

#endif
