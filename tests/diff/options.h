/* What both testers are asked for: seeds, numbers of cases, time. */
#ifndef SKEP_TESTS_DIFF_OPTIONS_H
#define SKEP_TESTS_DIFF_OPTIONS_H

#include <getopt.h>
#include <stdbool.h>
#include <stdint.h>

struct run_options {
	uint64_t seed, cases, only_case;
	bool have_seed, have_case, v3;
	unsigned max_failures;
	double seconds;
};

/* For the table of getopt_long. */
#define RUN_OPTIONS \
	{ "seed", 1, NULL, 's' }, { "cases", 1, NULL, 'n' }, { "case", 1, NULL, 'k' }, \
	{ "seconds", 1, NULL, 't' }, { "max-failures", 1, NULL, 'm' }, { "v3", 0, NULL, '3' }

/* Takes what getopt_long has found; false: it is none of these. */
bool run_option(struct run_options *o, int c);

uint64_t new_seed(void);
double now(void);	/* seconds */

#endif
