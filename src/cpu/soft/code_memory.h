/*
 * Memory for host code that we write ourselves: never writable and executable by the same
 * address (W^X).  The same pages are mapped twice, once to write and once to run.
 */
#ifndef SKEP_CPU_SOFT_CODE_MEMORY_H
#define SKEP_CPU_SOFT_CODE_MEMORY_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

struct code_memory {
	uint8_t *run;		/* executable, not writable */
	uint8_t *write;		/* the same bytes, writable, not executable */
	size_t size;
};

/*
 * size bytes, a multiple of 4096, of zeroes.
 * A host that forbids executable mappings: -EPERM or the like, with a sentence.
 */
int code_memory_create(struct code_memory *m, size_t size, struct skep_error *e);
void code_memory_destroy(struct code_memory *m);	/* zeroes *m; a zeroed one is fine */

#endif
