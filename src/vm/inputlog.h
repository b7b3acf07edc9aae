/*
 * The input log, for its owner (vm.c) and the virtual clock (virtual.c).
 *
 * A log is text: a header line that pins the machine's virtual clock and seed,
 * then a line for each input:
 *
 *	skep-input 1 seed=0 insn_ps=1000 start=1767225600000000000
 *	123456 234567 lpc.com1 6c730a
 *
 * that is the instruction count, the guest ns, the port and the bytes.  Lines
 * that begin with '#' are comments.
 */
#ifndef SKEP_VM_INPUTLOG_H
#define SKEP_VM_INPUTLOG_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "state/state.h"
#include "vm/input.h"

/* Paths may be NULL.  The clock and the seed are set up already. vm thread. */
int input_log_create(struct vm *vm, const char *record, const char *replay, struct skep_error *e);
void input_log_destroy(struct vm *vm);
/* After every device was made: do the ports that the replayed log names exist? */
int input_log_check(struct vm *vm, struct skep_error *e);

/* Device lock for the rest. */
/* Host input is queued and not delivered yet. */
bool input_log_waiting(const struct vm *vm);
/* The point of the next replayed input; false: none. */
bool input_log_next(const struct vm *vm, struct input_point *next);
/* Delivers the replayed input of this point, and tells if some was missed. */
void input_log_replay(struct vm *vm, const struct input_point *now);
/* Delivers what the host has sent, at this point, and records it. */
void input_log_deliver(struct vm *vm, const struct input_point *now);
/* clock=realtime: delivers what came while the machine stood. */
void input_log_resume(struct vm *vm);

/*
 * What waits, as a list of struct machine_input (machine_record.h), and back.  export fails when it
 * is more than a record holds.  commit replaces what waits, and passes over what a replayed log has
 * for points that were visited.
 */
int input_log_export(const struct vm *vm, struct state_list *list, struct skep_error *e);
int input_log_validate(const struct vm *vm, const struct state_list *list, struct skep_error *e);
void input_log_commit(struct vm *vm, const struct state_list *list);

#endif
