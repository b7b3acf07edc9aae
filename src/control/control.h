/*
 * The control socket of a machine: JSON lines over a Unix socket NAME.sock in the runtime
 * directory (doc/skep-control.7).  Served by the vm thread's loop; commands that pause or save run
 * on threads of their own, so that no client, stuck or hostile, holds the machine.
 */
#ifndef SKEP_CONTROL_CONTROL_H
#define SKEP_CONTROL_CONTROL_H

#include "base/error.h"

struct vm;
struct control;

/*
 * Listens.  A machine of the same name that runs is an error; a socket that nobody listens on any
 * more is replaced.  vm thread, after vm_create, before vm_run; no lock held.  NULL with e set.
 */
struct control *control_start(struct vm *vm, struct skep_error *e);
/* Ends it, clients are told; waits for what runs.  vm thread, after vm_run.  NULL is fine. */
void control_stop(struct control *c);

#endif
