/*
 * The event loop and the timers.
 *
 * Timers are in guest nanoseconds (clock/clock.h).  With clock=realtime they
 * fire on the vm thread; with clock=virtual they fire on the vCPU side,
 * between instructions, at exactly their due count.  Either way the callback
 * runs with the device lock held, and a device cannot tell the difference.
 *
 * File descriptors belong to host backends and are watched by the vm thread;
 * their callbacks run with the device lock held and never touch a device
 * directly when clock=virtual: what comes from outside enters through
 * vm_input (vm/input.h).
 */
#ifndef SKEP_VM_EVENT_H
#define SKEP_VM_EVENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

struct vm;

typedef void (*event_fn)(void *opaque);

struct vm_timer {
	struct vm *vm;
	event_fn fn;
	void *opaque;
	const char *name;
	int64_t due;		/* guest ns; meaningful while armed */
	uint64_t order;		/* of timer_init: breaks ties, and is the same after a restore */
	uint64_t run;		/* of timers_run, in or after which it was armed */
	size_t slot;		/* place in the heap + 1; 0: not armed */
};

/* Device lock held for all five.  A timer that is due already fires as soon as it can. */
void timer_init(struct vm_timer *t, struct vm *vm, const char *name, event_fn fn, void *opaque);
void timer_arm(struct vm_timer *t, int64_t due_ns);
void timer_disarm(struct vm_timer *t);
static inline bool timer_armed(const struct vm_timer *t) { return t->slot != 0; }
/* Earliest due time of any armed timer, INT64_MAX if none. */
int64_t timers_next_due(struct vm *vm);
/*
 * Fires the timers with due <= now by due time, and those of the same due time in order of
 * timer_init: the order of arming is history, which no snapshot tells.  What a callback arms
 * waits for the next call, even if it is due already, and with it what stands behind it.
 */
void timers_run(struct vm *vm, int64_t now);

/*
 * Watches fd for EPOLLIN/EPOLLOUT, level-triggered.  A regular file is always
 * ready: unwatch it at its end.  Returns a handle (owned by the loop, valid
 * until loop_unwatch) or NULL with e set.  Device lock, or before the VM runs.
 */
struct loop_watch;
struct loop_watch *loop_watch(struct vm *vm, int fd, uint32_t events,
			      void (*fn)(void *opaque, uint32_t events), void *opaque,
			      struct skep_error *e);
void loop_set_events(struct loop_watch *w, uint32_t events);
void loop_unwatch(struct loop_watch *w);

/*
 * Makes the vm thread run fn soon, with the device lock held.  Calls with the
 * same arguments that have not run yet are one. Any thread, any lock state.
 */
void loop_post(struct vm *vm, event_fn fn, void *opaque);

#endif
