/* See options.h. */
#include <stdlib.h>
#include <sys/random.h>
#include <time.h>

#include "options.h"

bool run_option(struct run_options *o, int c)
{
	switch (c) {
	case 's':
		o->seed = strtoull(optarg, NULL, 0);
		o->have_seed = true;
		return true;
	case 'k':
		o->only_case = strtoull(optarg, NULL, 0);
		o->have_case = true;
		return true;
	case 'n': o->cases = strtoull(optarg, NULL, 0); return true;
	case 't': o->seconds = strtod(optarg, NULL); return true;
	case 'm': o->max_failures = (unsigned)strtoul(optarg, NULL, 0); return true;
	case '3': o->v3 = true; return true;
	default: return false;
	}
}

uint64_t new_seed(void)
{
	uint32_t seed;

	if (getrandom(&seed, sizeof seed, 0) != sizeof seed)
		seed = (uint32_t)time(NULL);
	return seed;
}

double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}
