/*
 * clock=virtual, from the side of the processor that runs it.
 *
 * What happens to the machine happens at a *point*: an instruction count and a
 * guest time (HLT moves the time at the same count).  Timers fire and input
 * arrives at points, on the vCPU's thread, so that a run can be repeated.
 *
 * The backend's part:
 *
 *	for (;;) {
 *		bring vm->clock.insns up to date;
 *		if (VCPU_REQ_EVENT taken, or the budget is used up) {
 *			virtual_run_due(vm);
 *			budget = virtual_budget(vm);
 *			if (!budget)
 *				return VCPU_EXIT_LIMIT;
 *		}
 *		deliver an interrupt, if one is pending and may be;
 *		execute: at least one instruction, at most budget;
 *	}
 *
 * When the budget is used up, virtual_run_due comes before any interrupt is
 * delivered at that point; elsewhere it may be called at will.  Every
 * instruction that reaches a device ends there, followed by a look at
 * v->requests, since the device may have armed a timer (VCPU_REQ_EVENT), or
 * stopped the machine (VCPU_REQ_STOP), which then stops right there.
 *
 * vCPU side, without the device lock; clock.insns up to date.
 */
#ifndef SKEP_VM_VIRTUAL_H
#define SKEP_VM_VIRTUAL_H

#include <stdbool.h>
#include <stdint.h>

struct vm;
struct vcpu;

/*
 * How many instructions may be executed before virtual_run_due is called again;
 * 0: the limit (clock.limit) or the machine's stop point is reached.
 */
uint64_t virtual_budget(struct vm *vm);
/* Fires what is due now, delivers input that has come or is replayed here. */
void virtual_run_due(struct vm *vm);
/*
 * The processor is halted: moves guest time to the next event and does what
 * virtual_run_due does.  False: there is no event; only the outside can end the
 * halt, and the backend waits for it in vcpu_wait.
 */
bool virtual_idle(struct vm *vm);

/*
 * After VCPU_EXIT_LIMIT: is this where the machine is to stand (vm->stop_point)? Then it does, and
 * who waits for it has been told.
 */
bool virtual_stop_point(struct vm *vm);

/* ---- Several processors (turns.c) --------------------------------------- */

#define TURN_INSNS	10000	/* instructions in a turn */
#define TURN_PAUSE	63	/* and what a PAUSE takes of it besides itself */

/* Do processors take turns?  Then only the one whose turn it is calls what stands above. */
bool turns_taken(const struct vm *vm);
/* Waits until it is v's turn; false: it is to stop first. */
bool turn_wait(struct vcpu *v);
/*
 * Ends v's turn; v->idle says whether v waits for something.  False: everybody waits, the turn is
 * v's, which is processor 0, and virtual_idle is what helps.
 */
bool turn_pass(struct vcpu *v);
/* Instructions left of the turn; takes n of them away. */
uint64_t turn_left(const struct vm *vm);
void turn_shorten(struct vm *vm, uint64_t n);
/* Reset, and a state that comes from elsewhere.  vCPUs stopped. */
void turn_set(struct vm *vm, unsigned cpu, uint64_t left);

/* Every processor looks at the clock again. Any thread. */
void virtual_changed(struct vm *vm);

/* For timers_create: tells the processor that something is due earlier. Device lock. */
void virtual_earlier(struct vm *vm, int64_t due);

#endif
