/* Seeding vm_entropy (vm.h). */
#ifndef SKEP_VM_ENTROPY_H
#define SKEP_VM_ENTROPY_H

#include <stdbool.h>
#include <stdint.h>

struct vm;

/* seeded: a repeatable stream from seed; else the host's randomness. vm thread, before any vCPU. */
void entropy_init(struct vm *vm, bool seeded, uint64_t seed);

#endif
