/*
 * The translator: a second tier above the interpreter.  A block that runs often is written
 * again for the host, which has the same instruction set: registers, flags and SSE stay where
 * they are, memory accesses go through the TLB, and what is unusual is left to the
 * interpreter's handlers, one instruction at a time, on the same state.
 *
 * One of these belongs to one processor.  soft_jit_create and soft_jit_destroy are called before its
 * thread begins and after it has ended; everything else is the thread's own.  Nothing here is part of
 * the machine's state: it may be forgotten between any two instructions.  doc/ARCHITECTURE.md tells how
 * it works.
 */
#ifndef SKEP_CPU_SOFT_JIT_JIT_H
#define SKEP_CPU_SOFT_JIT_JIT_H

#include "cpu/soft/soft.h"

/*
 * Makes c->jit as the key soft.tier says.  A host that forbids executable memory: -errno and a sentence
 * if the translator was asked for; 0 and no translator if not.
 */
int soft_jit_create(struct soft_cpu *c, struct skep_error *e);
void soft_jit_destroy(struct soft_jit *j);
/* The processor's thread begins to run it. */
void soft_jit_enter_thread(struct soft_cpu *c);

/* How many times the interpreter runs a new block before it is translated; 0: never. */
int32_t soft_jit_threshold(const struct soft_cpu *c);

/*
 * Translates up to nbytes of code that stand at bytes, with the offset ip (0-4095, bytes) in their page,
 * which they do not leave, in the processor's current mode, and puts itself at the head of the
 * interpreter's block.  The bytes are not kept; the head is the cache's, and stays until
 * soft_jit_kill or soft_jit_flush.  May do nothing.  Takes memory from the oldest translations if
 * need be, whose heads are op_head again.  Run loop only.
 */
void soft_jit_translate(struct soft_cpu *c, const uint8_t *bytes, unsigned nbytes, unsigned ip,
			struct soft_op *head);

/* The code behind this head (op_head_jit) is not there any more: nobody enters it from now on. */
void soft_jit_kill(struct soft_cpu *c, struct soft_op *head);
/* Forgets everything, heads too.  Run loop only. */
void soft_jit_flush(struct soft_cpu *c);

/* Head of a block that has been translated; its disp is the block's number. */
op_fn op_head_jit;

#endif
