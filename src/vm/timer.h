/* The timer heap, for those who own one: vm.c, the loop, tests. */
#ifndef SKEP_VM_TIMER_H
#define SKEP_VM_TIMER_H

#include "vm/event.h"

/*
 * Makes vm->timers.  earlier is called, with the device lock held, whenever
 * the earliest due time of all has become earlier: whoever waits for it must
 * look again.  It may be NULL.
 */
int timers_create(struct vm *vm, void (*earlier)(struct vm *vm, int64_t due),
		  struct skep_error *e);
void timers_destroy(struct vm *vm);
/* After the devices were made: is there a place for every timer of theirs? */
int timers_check(struct vm *vm, struct skep_error *e);

#endif
