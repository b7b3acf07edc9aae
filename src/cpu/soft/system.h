/*
 * The system side of the soft processor, as the core sees it: interrupts,
 * debugging, reset, state in and out.  vCPU thread only.
 */
#ifndef SKEP_CPU_SOFT_SYSTEM_H
#define SKEP_CPU_SOFT_SYSTEM_H

#include "base/error.h"
#include "cpu/soft/soft.h"

/* DR6. */
#define DR6_BD		BIT(13)
#define DR6_BS		BIT(14)
#define DR6_BT		BIT(15)
#define DR6_FIXED	0xffff0ff0ull	/* bits that read as one */
#define DR6_WRITABLE	0x0000e00full
/* DR7. */
#define DR7_ENABLED	0xffull
#define DR7_GD		BIT(13)
#define DR7_FIXED	0x400ull
#define DR7_WRITABLE	0xffff23ffull

/*
 * Looks at v->requests (NMI, INTR, INIT, SIPI) and at #DB traps that are due,
 * between instructions.  Takes the request bits that it has dealt with.  True:
 * c->exc is set and soft_deliver is to be called.  False: nothing can be taken
 * now.  An interrupt that waits for IF is held, its request bit cleared, and
 * asked for again (request bit and kick) when IF is set; one that waits for the end of an
 * interrupt shadow stays requested.  The run loop calls it whenever requests is not
 * zero, and clears sti_shadow and ss_shadow just before it executes the
 * instruction that they protect.
 */
bool soft_take_interrupt(struct soft_cpu *c);

/* IF, NMI blocking or the TPR has changed: asks again for what was held back. */
void soft_interrupts_changed(struct soft_cpu *c);

/* ---- Debugging (SDM vol. 3, chapter 17) -------------------------------- */

/* TF is set, or DR7 enables something: one instruction at a time (c->stepping). */
static inline bool soft_wants_stepping(const struct soft_cpu *c)
{
	return (c->s.rflags & RFLAGS_TF) || (c->s.dr7 & DR7_ENABLED);
}

/*
 * Around every instruction while stepping.  True: c->exc holds the #DB that
 * is to be delivered.  soft_after_insn is called after an instruction that has
 * completed (not one that raised); c->rip is the next one's.
 */
bool soft_before_insn(struct soft_cpu *c);
bool soft_after_insn(struct soft_cpu *c);

/* Does an enabled data breakpoint lie in this (4 KiB) linear page? */
bool soft_page_has_breakpoint(const struct soft_cpu *c, uint64_t page);
/* Notes the data breakpoints that an access hits; soft_after_insn reports them. */
void soft_data_breakpoint(struct soft_cpu *c, uint64_t lin, unsigned size, bool write);
/* A #DB trap at the boundary that has just been reached: the run loop delivers it next. */
void soft_set_debug_trap(struct soft_cpu *c, uint64_t dr6);
/* The same for ports, with CR4.DE. */
void soft_io_breakpoint(struct soft_cpu *c, uint16_t port, unsigned size);

/* ---- State ------------------------------------------------------------ */

/* vcpu_ops.get_state and set_state.  set_state validates first and then cannot fail. */
void soft_get_state(struct soft_cpu *c, struct cpu_arch_state *s);
int soft_set_state(struct soft_cpu *c, const struct cpu_arch_state *s, struct skep_error *e);

/* Guest's time stamp counter, TSC_ADJUST included; soft_sync_clock comes before. */
uint64_t soft_tsc(const struct soft_cpu *c);

/*
 * RDMSR and WRMSR without the privilege check.  op is the instruction, or NULL in
 * tests.  False: #GP(0), and nothing has changed.
 */
bool soft_msr_read(struct soft_cpu *c, const struct soft_op *op, uint32_t msr, uint64_t *value);
bool soft_msr_write(struct soft_cpu *c, const struct soft_op *op, uint32_t msr, uint64_t value);

/* CR4 bits that the model knows. */
uint64_t soft_cr4_allowed(const struct soft_cpu *c);
/* Is this a value that XSETBV takes: components that the model has, x87, and AVX with SSE only? */
bool soft_xcr0_ok(const struct soft_cpu *c, uint64_t v);
/* Bytes of an XSAVE area with AVX's component, in either form (fxstate.c). */

#endif
