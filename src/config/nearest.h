/* "Did you mean": the word that lies nearest to a mistyped one. */
#ifndef SKEP_CONFIG_NEAREST_H
#define SKEP_CONFIG_NEAREST_H

#include <limits.h>

struct nearest {
	const char *word;	/* mistyped; borrowed */
	unsigned best;		/* distance of the best so far */
	char text[128];		/* the best so far; empty: nothing is near enough */
};

void nearest_init(struct nearest *n, const char *word);
/* Offers a candidate; it is copied if it is better than those before. */
void nearest_offer(struct nearest *n, const char *candidate);
/* "; did you mean "x"?" or "": to be put at the end of a sentence.  buf is borrowed. */
const char *nearest_hint(const struct nearest *n, char *buf, unsigned size);

/* Edits (insert, delete, replace, swap neighbours) from a to b, UINT_MAX above 63 characters. */
unsigned nearest_distance(const char *a, const char *b);

#endif
