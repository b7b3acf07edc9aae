/*
 * The control socket of a machine: JSON lines over a Unix socket NAME.sock in the runtime
 * directory (doc/skep-control.7).  Served by a thread of its own that waits with no lock held, so
 * that no client, stuck or hostile, holds the machine; a save runs on yet another one.
 */
#ifndef SKEP_CONTROL_CONTROL_H
#define SKEP_CONTROL_CONTROL_H

#include "base/error.h"

struct vm;
struct control;

/*
 * Takes the machine's name and listens.  A socket that nobody listens on any more is replaced.  0
 * with *out (NULL where the key control says none), -EADDRINUSE when a machine of that name runs,
 * or another negative errno when there can be no socket, which a machine can do without; e is set.
 * vm thread, after vm_create, before vm_run; no lock held.
 */
int control_start(struct vm *vm, struct control **out, struct skep_error *e);
/* Ends it, clients are told; waits for what runs.  vm thread, after vm_run.  NULL is fine. */
void control_stop(struct control *c);

#endif
