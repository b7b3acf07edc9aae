/* The handlers of system instructions, which decode_sys.c chooses from. */
#ifndef SKEP_CPU_SOFT_SYSOPS_H
#define SKEP_CPU_SOFT_SYSOPS_H

#include "cpu/soft/soft.h"

/* seg.c */
extern op_fn op_mov_to_seg, op_mov_from_seg, op_push_seg, op_pop_seg, op_load_far_pointer;
extern op_fn op_lar, op_lsl, op_verr, op_verw, op_arpl;
extern op_fn op_lldt, op_ltr, op_sldt, op_str, op_lgdt, op_lidt, op_sgdt, op_sidt;

/* far.c; ret.c */
extern op_fn op_far_jmp_imm, op_far_jmp_mem, op_far_call_imm, op_far_call_mem;
extern op_fn op_far_ret, op_iret;

/* control.c */
extern op_fn op_mov_from_cr, op_mov_to_cr, op_mov_from_dr, op_mov_to_dr;
extern op_fn op_clts, op_lmsw, op_smsw, op_invlpg, op_invpcid, op_wbinvd;

/* fastcall.c */
extern op_fn op_syscall, op_sysret, op_sysenter, op_sysexit, op_swapgs;
extern op_fn op_rdfsgsbase, op_wrfsgsbase;

/* sysops.c */
extern op_fn op_hlt, op_cli, op_sti, op_pushf, op_popf, op_clac, op_stac;
extern op_fn op_int, op_int3, op_int1, op_into, op_bound;
extern op_fn op_rdtsc, op_rdtscp, op_rdpmc, op_cpuid, op_rdrand, op_rdmsr, op_wrmsr, op_clflush;
extern op_fn op_vmcall;

/* io.c */
extern op_fn op_in, op_out, op_ins, op_outs;

/*
 * Ends the block as soft_leave does, and goes on with the next one if it is
 * known; its head looks at the budget and at what is asked for.  Not where the run
 * loop must have a look first: HLT, an interrupt shadow, a debug trap.
 */
static inline const struct soft_op *soft_go_on(struct soft_cpu *c, const struct soft_op *op,
					       uint64_t rip)
{
	const struct soft_op *head;

	soft_leave(c, op, rip);
	if (unlikely(c->stepping))
		return NULL;
	head = soft_jump_find(c, rip);
	if (head)
		c->r[SLOT_IPBASE] = rip - head->ip;
	return head;
}

/* RFLAGS bits that POPF and IRET of this operand size may change at this CPL and IOPL. */
uint64_t soft_flags_writable(const struct soft_cpu *c, unsigned size);

#endif
