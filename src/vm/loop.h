/* The event loop, for its owner: vm.c.  vm thread unless a function says otherwise. */
#ifndef SKEP_VM_LOOP_H
#define SKEP_VM_LOOP_H

#include "vm/event.h"

int loop_create(struct vm *vm, struct skep_error *e);
void loop_destroy(struct vm *vm);
/* Waits for one batch of events and handles it.  Returns early after loop_wake. */
void loop_iterate(struct vm *vm);
/* Makes loop_iterate return soon. Any thread, any lock state. */
void loop_wake(struct vm *vm);
/*
 * clock=realtime: the earliest due time changed (it became earlier, or the
 * clock was stopped or went on). Device lock, any thread.
 */
void loop_timer_changed(struct vm *vm, int64_t due);

#endif
