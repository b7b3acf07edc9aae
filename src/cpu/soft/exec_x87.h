/* Handlers of the x87 instructions, and what their files share. */
#ifndef SKEP_CPU_SOFT_EXEC_X87_H
#define SKEP_CPU_SOFT_EXEC_X87_H

#include "cpu/soft/x87.h"

/*
 * Fields of an op: dst and src are numbers i of ST(i); size is how often the
 * instruction pops; imm is FOP, the opcode's eleven bits.
 */

/* Notes where the last non-control instruction was. */
static inline void x87_note(struct soft_cpu *c, const struct soft_op *op)
{
	c->s.fpu.fip = soft_op_rip(c, op);
	c->s.fpu.fop = (uint16_t)op->imm;
}

/* An unmasked exception was raised: the operand's offset is noted too. */
static inline void x87_note_operand(struct soft_cpu *c, const struct soft_op *op)
{
	const struct cpu_segment *seg = &c->s.seg[op->seg];
	uint64_t lin = soft_ea(c, op);

	if (!(op->flags & OPF_MEM))
		return;
	if (!(c->mode & MODE_CS64))
		c->s.fpu.fdp = (uint32_t)(lin - seg->base);
	else
		c->s.fpu.fdp = op->seg == SEG_FS || op->seg == SEG_GS ? lin - seg->base : lin;
}

/* The control instructions: exec_x87_env.c */
op_fn x87_unavailable, x87_fwait, x87_fnop, x87_nothing, x87_fninit, x87_fnclex;
op_fn x87_fnstcw, x87_fldcw, x87_fnstsw_m, x87_fnstsw_ax;
op_fn x87_fnstenv, x87_fldenv, x87_fnsave, x87_frstor;

/* FADD FMUL FCOM FCOMP FSUB FSUBR FDIV FDIVR, as in the opcode's bits 5:3: exec_x87_arith.c */
extern op_fn *const x87_arith_st[8], *const x87_arith_m32[8], *const x87_arith_m64[8];
extern op_fn *const x87_arith_i16[8], *const x87_arith_i32[8];
op_fn x87_fcom, x87_fucom, x87_fcomi, x87_fucomi, x87_ftst, x87_fxam;

/* Loads, stores, moves: exec_x87_mov.c */
op_fn x87_fld_m32, x87_fld_m64, x87_fld_m80, x87_fild_m16, x87_fild_m32, x87_fild_m64, x87_fbld;
op_fn x87_fst_m32, x87_fst_m64, x87_fstp_m80, x87_fbstp;
op_fn x87_fist_m16, x87_fist_m32, x87_fistp_m64;
op_fn x87_fisttp_m16, x87_fisttp_m32, x87_fisttp_m64;
op_fn x87_fld_st, x87_fst_st, x87_fstpnce, x87_fxch, x87_fchs, x87_fabs, x87_ffree;
op_fn x87_fincstp, x87_fdecstp;
extern op_fn *const x87_constant[7], *const x87_fcmov[8];

/* exec_x87_math.c */
op_fn x87_fsqrt, x87_frndint, x87_f2xm1, x87_fsin, x87_fcos;
op_fn x87_fscale, x87_fprem, x87_fprem1, x87_fyl2x, x87_fyl2xp1, x87_fpatan;
op_fn x87_fptan, x87_fsincos, x87_fxtract;

/* ---- Running the host's x87 ---------------------------------------------- */

/*
 * The host's x87 stack is empty and its control word FCW_INIT between ops.  An
 * op runs under the guest's own control word, unmasked exceptions included:
 * the host then leaves exactly the flags and results that the guest is to see.
 * It would report them at its next *waiting* instruction, so FNCLEX (which does
 * not wait) follows the operation at once, and no SIGFPE can come of it.
 */
static inline void x87_host_enter(const struct soft_cpu *c)
{
	if (c->s.fpu.fcw != FCW_INIT)
		asm volatile("fldcw %0" : : "m"(c->s.fpu.fcw));
}

static inline void x87_host_leave(const struct soft_cpu *c)
{
	static const uint16_t init = FCW_INIT;

	if (c->s.fpu.fcw != FCW_INIT)
		asm volatile("fldcw %0" : : "m"(init));
}

/* Whatever is left on the host's stack goes. */
static inline void x87_host_drop(void)
{
	asm volatile("emms");
}

#define X87_M10(p) (*(x87_m10 *)(p))
#define X87_CONST_M10(p) (*(const x87_m10 *)(p))

static inline void x87_copy(void *to, const void *from)
{
	store64(to, load64(from));
	store16((uint8_t *)to + 8, load16((const uint8_t *)from + 8));
}

/* The host's flags and the condition bits in cc become the guest's. */
static inline void x87_take_flags(struct soft_cpu *c, const struct soft_op *op, uint16_t sw,
				  uint16_t cc)
{
	struct cpu_fpu *f = &c->s.fpu;

	f->fsw = (uint16_t)((f->fsw & ~cc) | (sw & (cc | FSW_EXCEPTIONS)));
	if (unlikely(sw & FSW_ES)) {
		f->fsw |= FSW_ES | FSW_B;
		x87_note_operand(c, op);
	}
}

/* An unmasked exception that keeps a register result, a memory result, from being stored. */
static inline bool x87_stops(const struct soft_cpu *c, uint16_t sw)
{
	return unlikely(sw & FSW_ES) && (sw & ~c->s.fpu.fcw & FSW_BEFORE);
}

static inline bool x87_stops_store(const struct soft_cpu *c, uint16_t sw)
{
	return unlikely(sw & FSW_ES) &&
	       (sw & ~c->s.fpu.fcw & (FSW_BEFORE | FSW_OE | FSW_UE));
}

/*
 * Stack overflow or underflow: flags are set; true: masked, go on with the
 * default NaN as the result.
 */
bool x87_stack_fault(struct soft_cpu *c, const struct soft_op *op, bool overflow);
void x87_default_nan(void *to);

static inline void x87_pops(struct soft_cpu *c, unsigned n)
{
	while (n--)
		x87_pop(c);
}

/* The new ST(0); the caller has checked that it is free or is to be overwritten. */
static inline uint8_t *x87_push(struct soft_cpu *c)
{
	x87_set_top(c, x87_top(c) - 1);
	x87_set_valid(c, 0);
	return x87_st(c, 0);
}

#endif
