/*
 * VEX instructions on the host: for each a piece of host code that takes the registers which it
 * names from the processor's state, executes it, and puts back what it has written.
 *
 * Vector registers keep their numbers.  The host's MXCSR is the guest's, as ever.  The upper
 * halves of the host's registers are zero again afterwards, as compiled code wants them.
 *
 * Instructions that differ in nothing but their address share one piece.  The vCPU's thread.
 */
#ifndef SKEP_CPU_SOFT_VEX_THUNK_H
#define SKEP_CPU_SOFT_VEX_THUNK_H

#include "base/error.h"
#include "cpu/soft/soft.h"
#include "cpu/soft/vex.h"

struct vex_thunk {
	/* mem: where the memory operand's bytes are (or go), NULL where there is none. */
	void (*run)(struct soft_cpu *c, void *mem);
	struct vex_insn insn;
	uint32_t hash;
	uint16_t len, next;
};

/* NULL and a sentence: the host has no memory, or none that may be executed. */
struct soft_vex *soft_vex_create(struct skep_error *e);
void soft_vex_destroy(struct soft_vex *v);	/* NULL: nothing */

/*
 * Is there room for all that a block may need?  v NULL: yes.  If not, soft_cache_flush makes some:
 * no block and no translation may remain that names a thunk.
 */
bool soft_vex_room(const struct soft_vex *v);
/* Forgets all thunks.  They may still be running. */
void soft_vex_flush(struct soft_vex *v);

/* The thunk of i, which has no VSIB; needs soft_vex_room.  Good until the next flush. */
const struct vex_thunk *soft_vex_thunk(struct soft_vex *v, const struct vex_insn *i);

#endif
