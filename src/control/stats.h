#ifndef SKEP_CONTROL_STATS_H
#define SKEP_CONTROL_STATS_H

#include <jansson.h>

struct vm;

/*
 * {"insns": n, "vcpus": [{SECTION: {NAME: count}}]}: instructions up to when the machine last
 * looked at its clock, and the counters of each processor (vcpu_ops.stats).  The caller's; NULL
 * without memory.  Any thread that keeps the machine alive.
 */
json_t *control_stats(struct vm *vm);

#endif
