/*
 * Generations: the versions of all records that a release writes, published as CDDL
 * (RFC 8610) in profiles/genN.cddl, which `skep profile show N` prints again.
 */
#ifndef SKEP_STATE_GENERATION_H
#define SKEP_STATE_GENERATION_H

#include "state/state.h"

struct state_generation {
	unsigned number;		/* from 1 */
	bool draft;			/* until its release is tagged: it may still change */
	/* Records whose version is not the newest; ends with kind NULL. */
	const struct { const char *kind; uint16_t version; } *older;
};

extern const struct state_generation state_generations[];	/* rising; ends with number 0 */

/* NULL: no such generation; e says which there are. 0 asks for the newest. */
const struct state_generation *state_generation_find(unsigned number, struct skep_error *e);
/* The version of a record in a generation; 0: the record did not exist then. */
uint16_t state_generation_version(const struct state_generation *g, const struct state_record *r);
/*
 * Writes the schema of these records (NULL-terminated) and all their sub-records.  Fails
 * where one kind would have two shapes.
 */
int state_generation_cddl(FILE *out, const struct state_generation *g,
			  const struct state_record *const *records, struct skep_error *e);
/* Are the tables right, and do the generations (ending with number 0) fit them? For tests. */
int state_generations_check(const struct state_generation *g,
			    const struct state_record *const *records, struct skep_error *e);

#endif
