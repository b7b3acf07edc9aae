/*
 * What soft processors of one machine have to agree on: code that one of them writes and another
 * one has decoded, and LOCKed accesses that the host's own lock cannot do.  A machine with one
 * processor has none of this (c->shared is NULL).
 *
 * A processor is *in the guest* while it may touch guest memory.  Before it waits (HLT, stopped, not
 * its turn) it leaves, and what was asked meanwhile is done before it touches memory again.
 *
 * vCPU's own thread, unless said otherwise.
 */
#ifndef SKEP_CPU_SOFT_SHARED_H
#define SKEP_CPU_SOFT_SHARED_H

#include "cpu/soft/soft.h"

/* Joins the machine's, or makes it, if it has several processors. vm thread. */
int soft_shared_join(struct soft_cpu *c, struct skep_error *e);
void soft_shared_leave(struct soft_cpu *c);

/* See above; nothing happens without c->shared. */
void soft_enter_guest(struct soft_cpu *c);
void soft_leave_guest(struct soft_cpu *c);
/* Does what others ask for; between two blocks, after c->kick. */
void soft_shared_serve(struct soft_cpu *c);

/*
 * This processor is about to decode code from the page with these flags.  True: whoever writes
 * there from now on tells it.  False: not everybody has heard yet; what is read now may be used once.
 */
bool soft_share_code(struct soft_cpu *c, _Atomic uint8_t *flags);
/* It has no code left from there. */
void soft_unshare_code(struct soft_cpu *c, _Atomic uint8_t *flags);
/* The same of paging structures that are watched (clock=virtual: nobody else is in the guest). */
void soft_share_table(struct soft_cpu *c, _Atomic uint8_t *flags);
void soft_unshare_table(struct soft_cpu *c, _Atomic uint8_t *flags);
/* After this processor wrote [phys, phys+len) of a page that holds code or tables: its own, too. */
void soft_ram_written(struct soft_cpu *c, uint64_t phys, uint64_t len);

#endif
