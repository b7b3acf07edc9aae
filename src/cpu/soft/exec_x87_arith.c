/* x87 arithmetic with two operands, and comparison. */
#include "cpu/soft/exec_x87.h"

/* An operand is missing: the default NaN is the result, if that is masked. */
static __attribute__((noinline, cold)) OP_FN(arith_empty)
{
	if (x87_stack_fault(c, op, false)) {
		x87_default_nan(x87_st(c, op->dst));
		x87_set_valid(c, op->dst);
		x87_pops(c, op->size);
	}
	NEXT(c, op);
}

/*
 * ST(dst) = ST(dst) op ST(src).  On the host the destination is on top and
 * nothing pops, so that two registers are to be freed whatever happened.
 */
#define ARITH_ST(name)								\
static OP_FN(name##_st)								\
{										\
	uint8_t *d = x87_st(c, op->dst);					\
	uint16_t sw;								\
										\
	X87_GUARD(c, op);							\
	x87_note(c, op);							\
	if (unlikely(x87_empty(c, op->dst) || x87_empty(c, op->src)))		\
		return arith_empty(c, op);					\
	x87_host_enter(c);							\
	asm volatile("fldt %2\n\tfldt %3\n\t" #name " %%st(1), %%st\n\t"	\
		     "fnstsw %0\n\tfnclex\n\tfstpt %1\n\tfstp %%st(0)"		\
		     : "=a"(sw), "=m"(X87_M10(c->fp_tmp))			\
		     : "m"(X87_M10(x87_st(c, op->src))), "m"(X87_M10(d)));	\
	x87_host_leave(c);							\
	x87_take_flags(c, op, sw, FSW_C1);						\
	if (x87_stops(c, sw))							\
		NEXT(c, op);							\
	x87_copy(d, c->fp_tmp);							\
	x87_pops(c, op->size);							\
	NEXT(c, op);								\
}

static __attribute__((noinline, cold)) OP_FN(mem_empty)
{
	if (x87_stack_fault(c, op, false)) {
		x87_default_nan(x87_st(c, 0));
		x87_set_valid(c, 0);
	}
	NEXT(c, op);
}

/* ST(0) = ST(0) op memory */
#define ARITH_MEM(name, suffix, insn, bits, size)				\
static OP_FN(name##_##suffix)							\
{										\
	uint64_t lin = soft_ea(c, op);						\
	uint##bits##_t v;							\
	uint8_t *d;								\
	uint16_t sw;								\
										\
	X87_GUARD(c, op);							\
	v = soft_ld##bits(c, op, lin);						\
	x87_note(c, op);						\
	if (unlikely(x87_empty(c, 0)))						\
		return mem_empty(c, op);					\
	d = x87_st(c, 0);							\
	store##bits(c->fp_tmp, v);						\
	x87_host_enter(c);							\
	asm volatile("fldt %2\n\t" insn " %3\n\tfnstsw %0\n\tfnclex\n\tfstpt %1" \
		     : "=a"(sw), "=m"(X87_M10(c->fp_tmp))			\
		     : "m"(X87_M10(d)), "m"(*(simd_m##size *)c->fp_tmp));	\
	x87_host_leave(c);							\
	x87_take_flags(c, op, sw, FSW_C1);						\
	if (x87_stops(c, sw))							\
		NEXT(c, op);							\
	x87_copy(d, c->fp_tmp);							\
	NEXT(c, op);								\
}

#define ARITH(name)								\
	ARITH_ST(f##name)							\
	ARITH_MEM(name, m32, "f" #name "s", 32, 4)				\
	ARITH_MEM(name, m64, "f" #name "l", 64, 8)				\
	ARITH_MEM(name, i16, "fi" #name "s", 16, 2)				\
	ARITH_MEM(name, i32, "fi" #name "l", 32, 4)
ARITH(add)
ARITH(mul)
ARITH(sub)
ARITH(subr)
ARITH(div)
ARITH(divr)

/* ---- Comparison -------------------------------------------------------------- */

/* Operands missing: unordered. */
static __attribute__((noinline, cold)) OP_FN(compare_empty)
{
	bool masked = x87_stack_fault(c, op, false);

	c->s.fpu.fsw |= FSW_C0 | FSW_C2 | FSW_C3;
	if (masked)
		x87_pops(c, op->size);
	NEXT(c, op);
}

/* The host says what the condition codes are, also when the exception is unmasked. */
static inline void compare_done(struct soft_cpu *c, const struct soft_op *op, uint16_t sw)
{
	x87_take_flags(c, op, sw, FSW_CC);
	if (!x87_stops(c, sw))
		x87_pops(c, op->size);
}

#define COMPARE_ST(name)							\
OP_FN(x87_##name)								\
{										\
	uint16_t sw;								\
										\
	X87_GUARD(c, op);							\
	x87_note(c, op);							\
	if (unlikely(x87_empty(c, 0) || x87_empty(c, op->src)))			\
		return compare_empty(c, op);					\
	x87_host_enter(c);							\
	asm volatile("fldt %1\n\tfldt %2\n\t" #name " %%st(1)\n\t"		\
		     "fnstsw %0\n\tfnclex\n\tfstp %%st(0)\n\tfstp %%st(0)"	\
		     : "=a"(sw)							\
		     : "m"(X87_M10(x87_st(c, op->src))), "m"(X87_M10(x87_st(c, 0)))); \
	x87_host_leave(c);							\
	compare_done(c, op, sw);						\
	NEXT(c, op);								\
}
COMPARE_ST(fcom)
COMPARE_ST(fucom)

#define COMPARE_MEM(suffix, insn, bits, size)					\
static OP_FN(com_##suffix)							\
{										\
	uint64_t lin = soft_ea(c, op);						\
	uint##bits##_t v;							\
	uint16_t sw;								\
										\
	X87_GUARD(c, op);							\
	v = soft_ld##bits(c, op, lin);						\
	x87_note(c, op);						\
	if (unlikely(x87_empty(c, 0)))						\
		return compare_empty(c, op);					\
	store##bits(c->fp_tmp, v);						\
	x87_host_enter(c);							\
	asm volatile("fldt %1\n\t" insn " %2\n\tfnstsw %0\n\tfnclex\n\tfstp %%st(0)" \
		     : "=a"(sw)							\
		     : "m"(X87_M10(x87_st(c, 0))), "m"(*(simd_m##size *)c->fp_tmp)); \
	x87_host_leave(c);							\
	compare_done(c, op, sw);						\
	NEXT(c, op);								\
}
COMPARE_MEM(m32, "fcoms", 32, 4)
COMPARE_MEM(m64, "fcoml", 64, 8)
COMPARE_MEM(i16, "ficoms", 16, 2)
COMPARE_MEM(i32, "ficoml", 32, 4)

OP_FN(x87_ftst)
{
	uint16_t sw;

	X87_GUARD(c, op);
	x87_note(c, op);
	if (unlikely(x87_empty(c, 0)))
		return compare_empty(c, op);
	x87_host_enter(c);
	asm volatile("fldt %1\n\tftst\n\tfnstsw %0\n\tfnclex\n\tfstp %%st(0)"
		     : "=a"(sw) : "m"(X87_M10(x87_st(c, 0))));
	x87_host_leave(c);
	compare_done(c, op, sw);
	NEXT(c, op);
}

/* FXAM: no exceptions; an empty register shows its sign too (SDM vol. 2A). */
OP_FN(x87_fxam)
{
	uint16_t sw;

	X87_GUARD(c, op);
	x87_note(c, op);
	if (x87_empty(c, 0)) {
		sw = FSW_C0 | FSW_C3 | (x87_st(c, 0)[9] & 0x80 ? FSW_C1 : 0);
	} else {
		asm volatile("fldt %1\n\tfxam\n\tfnstsw %0\n\tfstp %%st(0)"
			     : "=a"(sw) : "m"(X87_M10(x87_st(c, 0))));
		sw &= FSW_CC;
	}
	x87_take_flags(c, op, sw, FSW_CC);
	NEXT(c, op);
}

static __attribute__((noinline, cold)) OP_FN(comi_empty)
{
	c->cc = CC_ONE | CC_ZF | CC_PF | CC_CF;
	if (x87_stack_fault(c, op, false))
		x87_pops(c, op->size);
	NEXT(c, op);
}

#define COMPARE_I(name)								\
OP_FN(x87_##name)								\
{										\
	uint16_t sw;								\
	uint32_t flags;								\
										\
	X87_GUARD(c, op);							\
	x87_note(c, op);							\
	if (unlikely(x87_empty(c, 0) || x87_empty(c, op->src)))			\
		return comi_empty(c, op);					\
	x87_host_enter(c);							\
	asm volatile("fldt %2\n\tfldt %3\n\t" #name " %%st(1), %%st\n\t"	\
		     "lahf\n\tmovl %%eax, %1\n\tfnstsw %0\n\tfnclex\n\t"	\
		     "fstp %%st(0)\n\tfstp %%st(0)"				\
		     : "=&a"(sw), "=&r"(flags)					\
		     : "m"(X87_M10(x87_st(c, op->src))), "m"(X87_M10(x87_st(c, 0))) \
		     : "cc");							\
	x87_host_leave(c);							\
	x87_take_flags(c, op, sw, 0);						\
	c->cc = (uint16_t)((flags & (CC_ZF | CC_PF | CC_CF)) | CC_ONE);		\
	if (!x87_stops(c, sw))							\
		x87_pops(c, op->size);						\
	NEXT(c, op);								\
}
COMPARE_I(fcomi)
COMPARE_I(fucomi)

op_fn *const x87_arith_st[8] = {
	fadd_st, fmul_st, x87_fcom, x87_fcom, fsub_st, fsubr_st, fdiv_st, fdivr_st,
};
op_fn *const x87_arith_m32[8] = {
	add_m32, mul_m32, com_m32, com_m32, sub_m32, subr_m32, div_m32, divr_m32,
};
op_fn *const x87_arith_m64[8] = {
	add_m64, mul_m64, com_m64, com_m64, sub_m64, subr_m64, div_m64, divr_m64,
};
op_fn *const x87_arith_i16[8] = {
	add_i16, mul_i16, com_i16, com_i16, sub_i16, subr_i16, div_i16, divr_i16,
};
op_fn *const x87_arith_i32[8] = {
	add_i32, mul_i32, com_i32, com_i32, sub_i32, subr_i32, div_i32, divr_i32,
};
