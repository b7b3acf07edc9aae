/*
 * A machine without board, processors and configuration: locks, memory, buses,
 * clock, timers, loop, input.  vm_create builds on it, and so do the tests of
 * devices, which drive registers without a processor.
 */
#ifndef SKEP_VM_CORE_H
#define SKEP_VM_CORE_H

#include "vm/vm.h"

struct vm_core_options {
	uint64_t ram;			/* bytes */
	struct guest_clock clock;	/* set up by the caller, from clock_init on */
	bool seeded;
	uint64_t seed;
	const char *record, *replay;	/* paths of the input log, or NULL */
};

/* vm is all zeroes.  On failure nothing is left behind. */
int vm_core_init(struct vm *vm, const struct vm_core_options *o, struct skep_error *e);
/* Destroys the devices that are left, last one first, and everything else. */
void vm_core_finish(struct vm *vm);
/* The devices, last one first. Device lock. */
void vm_destroy_devices(struct vm *vm);

#endif
