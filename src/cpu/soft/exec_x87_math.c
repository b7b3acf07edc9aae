/* x87: roots, rounding, remainders, transcendental functions: the host's own. */
#include "cpu/soft/exec_x87.h"

/*
 * Processors differ in what they leave in the condition codes that the SDM calls
 * undefined; these are a real one's: C2 is cleared by a stack fault where it has a
 * meaning, and FPREM gives no quotient bits when its result is a NaN or is not stored.
 */
static bool fault(struct soft_cpu *c, const struct soft_op *op, bool overflow, uint16_t cc)
{
	c->s.fpu.fsw &= (uint16_t)~(cc & FSW_C2);
	return x87_stack_fault(c, op, overflow);
}

static inline uint16_t remainder_cc(const struct soft_cpu *c, uint16_t sw, uint16_t cc)
{
	bool nan = (load16(c->fp_tmp + 8) & 0x7fff) == 0x7fff;

	return nan || x87_stops(c, sw) ? cc & (FSW_C1 | FSW_C2) : cc;
}

static void result_nan(struct soft_cpu *c, unsigned i)
{
	x87_default_nan(x87_st(c, i));
	x87_set_valid(c, i);
}

/* ---- ST(0) = f(ST(0)) -------------------------------------------------------- */

#define UNARY(name, cc)								\
OP_FN(x87_##name)								\
{										\
	uint16_t sw;								\
	uint8_t *d;								\
										\
	X87_GUARD(c, op);							\
	x87_note(c, op);							\
	if (unlikely(x87_empty(c, 0))) {					\
		if (fault(c, op, false, cc))						\
			result_nan(c, 0);					\
		NEXT(c, op);							\
	}									\
	d = x87_st(c, 0);							\
	x87_host_enter(c);							\
	asm volatile("fldt %2\n\t" #name "\n\tfnstsw %0\n\tfnclex\n\tfstpt %1"	\
		     : "=a"(sw), "=m"(X87_M10(c->fp_tmp)) : "m"(X87_M10(d)));	\
	x87_host_leave(c);							\
	x87_take_flags(c, op, sw, cc);						\
	if (!x87_stops(c, sw))							\
		x87_copy(d, c->fp_tmp);						\
	NEXT(c, op);								\
}
UNARY(fsqrt, FSW_C1)
UNARY(frndint, FSW_C1)
UNARY(f2xm1, FSW_C1)
UNARY(fsin, FSW_C1 | FSW_C2)
UNARY(fcos, FSW_C1 | FSW_C2)

/* ---- ST(0) = f(ST(0), ST(1)) -------------------------------------------------- */

#define BINARY(name, cc)							\
OP_FN(x87_##name)								\
{										\
	uint16_t sw;								\
	uint8_t *d;								\
										\
	X87_GUARD(c, op);							\
	x87_note(c, op);							\
	if (unlikely(x87_empty(c, 0) || x87_empty(c, 1))) {			\
		if (fault(c, op, false, cc))						\
			result_nan(c, 0);					\
		NEXT(c, op);							\
	}									\
	d = x87_st(c, 0);							\
	x87_host_enter(c);							\
	asm volatile("fldt %2\n\tfldt %3\n\t" #name "\n\tfnstsw %0\n\tfnclex\n\t" \
		     "fstpt %1\n\tfstp %%st(0)"					\
		     : "=a"(sw), "=m"(X87_M10(c->fp_tmp))			\
		     : "m"(X87_M10(x87_st(c, 1))), "m"(X87_M10(d)));		\
	x87_host_leave(c);							\
	x87_take_flags(c, op, sw, remainder_cc(c, sw, cc));			\
	if (!x87_stops(c, sw))							\
		x87_copy(d, c->fp_tmp);						\
	NEXT(c, op);								\
}
BINARY(fscale, FSW_C1)
BINARY(fprem, FSW_CC)
BINARY(fprem1, FSW_CC)

/* ---- ST(1) = f(ST(0), ST(1)), pop ----------------------------------------------- */

#define BINARY_POP(name)							\
OP_FN(x87_##name)								\
{										\
	uint16_t sw;								\
										\
	X87_GUARD(c, op);							\
	x87_note(c, op);							\
	if (unlikely(x87_empty(c, 0) || x87_empty(c, 1))) {			\
		if (fault(c, op, false, 0)) {					\
			result_nan(c, 1);					\
			x87_pop(c);						\
		}								\
		NEXT(c, op);							\
	}									\
	x87_host_enter(c);							\
	asm volatile("fldt %2\n\tfldt %3\n\t" #name "\n\tfnstsw %0\n\tfnclex\n\tfstpt %1" \
		     : "=a"(sw), "=m"(X87_M10(c->fp_tmp))			\
		     : "m"(X87_M10(x87_st(c, 1))), "m"(X87_M10(x87_st(c, 0))));	\
	x87_host_drop();							\
	x87_host_leave(c);							\
	x87_take_flags(c, op, sw, FSW_C1);						\
	if (!x87_stops(c, sw)) {						\
		x87_copy(x87_st(c, 1), c->fp_tmp);				\
		x87_pop(c);							\
	}									\
	NEXT(c, op);								\
}
BINARY_POP(fyl2x)
BINARY_POP(fyl2xp1)
BINARY_POP(fpatan)

/* ---- ST(0) = f(ST(0)), push g(ST(0)) ---------------------------------------------- */

static __attribute__((noinline, cold)) const struct soft_op *
two_results_fault(struct soft_cpu *c, const struct soft_op *op, uint16_t cc)
{
	if (fault(c, op, !x87_empty(c, 0), cc)) {
		result_nan(c, 0);
		x87_default_nan(x87_push(c));
	}
	NEXT(c, op);
}

/*
 * incomplete: the condition that says that the operand was out of range, and that
 * neither the operand nor the stack has changed.
 */
#define TWO_RESULTS(name, cc, incomplete)					\
OP_FN(x87_##name)								\
{										\
	uint16_t sw;								\
	uint8_t *d;								\
										\
	X87_GUARD(c, op);							\
	x87_note(c, op);							\
	if (unlikely(x87_empty(c, 0) || !x87_empty(c, 7)))			\
		return two_results_fault(c, op, cc);				\
	d = x87_st(c, 0);							\
	x87_host_enter(c);							\
	asm volatile("fldt %1\n\t" #name "\n\tfnstsw %0\n\tfnclex"		\
		     : "=a"(sw) : "m"(X87_M10(d)));				\
	if (x87_stops(c, sw) || (sw & (incomplete)))				\
		x87_host_drop();						\
	else									\
		asm volatile("fstpt %0\n\tfstpt %1"				\
			     : "=m"(X87_M10(x87_push(c))), "=m"(X87_M10(d)));	\
	x87_host_leave(c);							\
	x87_take_flags(c, op, sw, cc);						\
	NEXT(c, op);								\
}
TWO_RESULTS(fptan, FSW_C1 | FSW_C2, FSW_C2)
TWO_RESULTS(fsincos, FSW_C1 | FSW_C2, FSW_C2)
TWO_RESULTS(fxtract, FSW_C1, 0)
