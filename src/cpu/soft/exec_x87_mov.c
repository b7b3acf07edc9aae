/* x87 loads, stores and moves between registers. */
#include "cpu/soft/exec_x87.h"

bool x87_stack_fault(struct soft_cpu *c, const struct soft_op *op, bool overflow)
{
	struct cpu_fpu *f = &c->s.fpu;

	f->fsw = (uint16_t)((f->fsw & ~FSW_C1) | FSW_IE | FSW_SF | (overflow ? FSW_C1 : 0));
	x87_update_summary(c);
	if (f->fcw & FSW_IE)
		return true;
	x87_note_operand(c, op);
	return false;
}

void x87_default_nan(void *to)
{
	store64(to, 0xc000000000000000ull);
	store16((uint8_t *)to + 8, 0xffff);
}

static __attribute__((noinline, cold)) OP_FN(push_fault)
{
	if (x87_stack_fault(c, op, true))
		x87_default_nan(x87_push(c));
	NEXT(c, op);
}

/* ---- Loads ---------------------------------------------------------------- */

/*
 * A value of `bits` at v goes through the host's load, which may raise IE or DE.
 * With IE unmasked nothing is pushed, there as here; with DE the value is.
 */
#define FLD_MEM(name, insn, bits, size)						\
OP_FN(x87_##name)								\
{										\
	uint64_t lin = soft_ea(c, op);						\
	uint##bits##_t v;							\
	uint16_t sw;								\
										\
	X87_GUARD(c, op);							\
	v = soft_ld##bits(c, op, lin);						\
	x87_note(c, op);						\
	if (unlikely(!x87_empty(c, 7)))						\
		return push_fault(c, op);					\
	store##bits(c->fp_tmp, v);						\
	x87_host_enter(c);							\
	asm volatile(insn " %1\n\tfnstsw %0\n\tfnclex"				\
		     : "=a"(sw) : "m"(*(simd_m##size *)c->fp_tmp));		\
	if (unlikely(sw & ~c->s.fpu.fcw & FSW_IE))				\
		x87_host_drop();						\
	else									\
		asm volatile("fstpt %0" : "=m"(X87_M10(x87_push(c))));		\
	x87_host_leave(c);							\
	x87_take_flags(c, op, sw, FSW_C1);						\
	NEXT(c, op);								\
}
FLD_MEM(fld_m32, "flds", 32, 4)
FLD_MEM(fld_m64, "fldl", 64, 8)
FLD_MEM(fild_m16, "filds", 16, 2)
FLD_MEM(fild_m32, "fildl", 32, 4)
FLD_MEM(fild_m64, "fildll", 64, 8)

/* No conversion, no exception (SDM vol. 1, 8.5.1.2: SNaN and denormals load as they are). */
OP_FN(x87_fld_m80)
{
	const void *v;

	X87_GUARD(c, op);
	v = simd_src(c, op, 10);
	x87_note(c, op);
	if (unlikely(!x87_empty(c, 7)))
		return push_fault(c, op);
	x87_copy(x87_push(c), v);
	c->s.fpu.fsw &= (uint16_t)~FSW_C1;
	NEXT(c, op);
}

OP_FN(x87_fbld)
{
	const void *v;

	X87_GUARD(c, op);
	v = simd_src(c, op, 10);
	x87_note(c, op);
	if (unlikely(!x87_empty(c, 7)))
		return push_fault(c, op);
	asm volatile("fbld %1\n\tfstpt %0\n\tfnclex"
		     : "=m"(X87_M10(x87_push(c))) : "m"(X87_CONST_M10(v)));
	c->s.fpu.fsw &= (uint16_t)~FSW_C1;
	NEXT(c, op);
}

#define CONSTANT(name)								\
static OP_FN(name)								\
{										\
	X87_GUARD(c, op);							\
	x87_note(c, op);							\
	if (unlikely(!x87_empty(c, 7)))						\
		return push_fault(c, op);					\
	x87_host_enter(c);							\
	asm volatile(#name "\n\tfstpt %0" : "=m"(X87_M10(x87_push(c))));	\
	x87_host_leave(c);							\
	c->s.fpu.fsw &= (uint16_t)~FSW_C1;					\
	NEXT(c, op);								\
}
CONSTANT(fld1)
CONSTANT(fldl2t)
CONSTANT(fldl2e)
CONSTANT(fldpi)
CONSTANT(fldlg2)
CONSTANT(fldln2)
CONSTANT(fldz)
op_fn *const x87_constant[7] = { fld1, fldl2t, fldl2e, fldpi, fldlg2, fldln2, fldz };

OP_FN(x87_fld_st)
{
	const uint8_t *s;

	X87_GUARD(c, op);
	x87_note(c, op);
	if (unlikely(x87_empty(c, op->src))) {
		/* Underflow comes before overflow. */
		if (x87_stack_fault(c, op, false))
			x87_default_nan(x87_push(c));
		NEXT(c, op);
	}
	if (unlikely(!x87_empty(c, 7)))
		return push_fault(c, op);
	s = x87_st(c, op->src);
	x87_copy(x87_push(c), s);
	c->s.fpu.fsw &= (uint16_t)~FSW_C1;
	NEXT(c, op);
}

/* ---- Stores ---------------------------------------------------------------- */

/* ST(0) is empty: the indefinite value of the format is stored, if that is masked. */
static __attribute__((noinline, cold)) const struct soft_op *
store_empty(struct soft_cpu *c, const struct soft_op *op, uint64_t lin, const void *indefinite,
	    unsigned size)
{
	if (c->s.fpu.fcw & FSW_IE)
		soft_store_bytes(c, op, lin, indefinite, size);
	x87_note(c, op);
	if (x87_stack_fault(c, op, false))
		x87_pops(c, op->size);
	return op + 1;
}

static const uint8_t indef_f32[4] = { 0, 0, 0xc0, 0xff };
static const uint8_t indef_f64[8] = { 0, 0, 0, 0, 0, 0, 0xf8, 0xff };
static const uint8_t indef_f80[10] = { 0, 0, 0, 0, 0, 0, 0, 0xc0, 0xff, 0xff };
static const uint8_t indef_i16[2] = { 0, 0x80 };
static const uint8_t indef_i32[4] = { 0, 0, 0, 0x80 };
static const uint8_t indef_i64[8] = { 0, 0, 0, 0, 0, 0, 0, 0x80 };
static const uint8_t indef_bcd[10] = { 0, 0, 0, 0, 0, 0, 0, 0xc0, 0xff, 0xff };

/*
 * The host stores into fp_tmp; from there the guest's memory gets it, which may
 * fault, and only then the flags and the stack change.
 */
#define FST_MEM(name, insn, bits, bytes, indef)					\
OP_FN(x87_##name)								\
{										\
	uint64_t lin = soft_ea(c, op);						\
	uint16_t sw;								\
	bool stop;								\
										\
	X87_GUARD(c, op);							\
	if (unlikely(x87_empty(c, 0)))						\
		return store_empty(c, op, lin, indef, bits / 8);		\
	x87_host_enter(c);							\
	asm volatile("fldt %2\n\t" insn " %1\n\tfnstsw %0\n\tfnclex"		\
		     : "=a"(sw), "=m"(*(simd_m##bytes *)c->fp_tmp)		\
		     : "m"(X87_M10(x87_st(c, 0))));				\
	x87_host_drop();							\
	x87_host_leave(c);							\
	stop = x87_stops_store(c, sw);						\
	if (likely(!stop))							\
		soft_st##bits(c, op, lin, load##bits(c->fp_tmp));		\
	x87_note(c, op);						\
	x87_take_flags(c, op, sw, FSW_C1);						\
	if (likely(!stop))							\
		x87_pops(c, op->size);						\
	NEXT(c, op);								\
}
FST_MEM(fst_m32, "fsts", 32, 4, indef_f32)
FST_MEM(fst_m64, "fstl", 64, 8, indef_f64)
FST_MEM(fist_m16, "fists", 16, 2, indef_i16)
FST_MEM(fist_m32, "fistl", 32, 4, indef_i32)
FST_MEM(fistp_m64, "fistpll", 64, 8, indef_i64)
FST_MEM(fisttp_m16, "fisttps", 16, 2, indef_i16)
FST_MEM(fisttp_m32, "fisttpl", 32, 4, indef_i32)
FST_MEM(fisttp_m64, "fisttpll", 64, 8, indef_i64)

OP_FN(x87_fstp_m80)
{
	uint64_t lin = soft_ea(c, op);

	X87_GUARD(c, op);
	if (unlikely(x87_empty(c, 0)))
		return store_empty(c, op, lin, indef_f80, 10);
	soft_store_bytes(c, op, lin, x87_st(c, 0), 10);
	x87_note(c, op);
	c->s.fpu.fsw &= (uint16_t)~FSW_C1;
	x87_pop(c);
	NEXT(c, op);
}

OP_FN(x87_fbstp)
{
	uint64_t lin = soft_ea(c, op);
	uint16_t sw;
	bool stop;

	X87_GUARD(c, op);
	if (unlikely(x87_empty(c, 0)))
		return store_empty(c, op, lin, indef_bcd, 10);
	x87_host_enter(c);
	asm volatile("fldt %2\n\tfbstp %1\n\tfnstsw %0\n\tfnclex"
		     : "=a"(sw), "=m"(X87_M10(c->fp_tmp)) : "m"(X87_M10(x87_st(c, 0))));
	x87_host_drop();
	x87_host_leave(c);
	stop = x87_stops_store(c, sw);
	if (!stop)
		soft_store_bytes(c, op, lin, c->fp_tmp, 10);
	x87_note(c, op);
	x87_take_flags(c, op, sw, FSW_C1);
	if (!stop)
		x87_pop(c);
	NEXT(c, op);
}

/* ---- Registers -------------------------------------------------------------- */

/* FST, FSTP to ST(src) */
OP_FN(x87_fst_st)
{
	uint8_t *d;

	X87_GUARD(c, op);
	x87_note(c, op);
	d = x87_st(c, op->src);
	if (unlikely(x87_empty(c, 0))) {
		if (!x87_stack_fault(c, op, false))
			NEXT(c, op);
		x87_default_nan(d);
	} else {
		x87_copy(d, x87_st(c, 0));
		c->s.fpu.fsw &= (uint16_t)~FSW_C1;
	}
	x87_set_valid(c, op->src);
	x87_pops(c, op->size);
	NEXT(c, op);
}

/* FSTPNCE: as FSTP, but with an empty ST(0) it only pops. */
OP_FN(x87_fstpnce)
{
	X87_GUARD(c, op);
	x87_note(c, op);
	if (!x87_empty(c, 0)) {
		x87_copy(x87_st(c, op->src), x87_st(c, 0));
		x87_set_valid(c, op->src);
	}
	c->s.fpu.fsw &= (uint16_t)~FSW_C1;
	x87_pop(c);
	NEXT(c, op);
}

OP_FN(x87_fxch)
{
	uint8_t *a, *b;
	uint64_t significand;
	uint16_t exponent;

	X87_GUARD(c, op);
	x87_note(c, op);
	a = x87_st(c, 0);
	b = x87_st(c, op->src);
	if (unlikely(x87_empty(c, 0) || x87_empty(c, op->src))) {
		if (!x87_stack_fault(c, op, false))
			NEXT(c, op);
		if (x87_empty(c, 0))
			x87_default_nan(a);
		if (x87_empty(c, op->src))
			x87_default_nan(b);
		x87_set_valid(c, 0);
		x87_set_valid(c, op->src);
	} else {
		c->s.fpu.fsw &= (uint16_t)~FSW_C1;
	}
	significand = load64(a);
	exponent = load16(a + 8);
	x87_copy(a, b);
	store64(b, significand);
	store16(b + 8, exponent);
	NEXT(c, op);
}

/* FCMOVcc: the operands are checked whatever the condition is; C1 changes only in a fault. */
#define FCMOV(name, condition)							\
static OP_FN(name)								\
{										\
	X87_GUARD(c, op);							\
	x87_note(c, op);							\
	if (unlikely(x87_empty(c, 0) || x87_empty(c, op->src))) {		\
		if (x87_stack_fault(c, op, false)) {				\
			x87_default_nan(x87_st(c, 0));				\
			x87_set_valid(c, 0);					\
		}								\
		NEXT(c, op);							\
	}									\
	if (condition)								\
		x87_copy(x87_st(c, 0), x87_st(c, op->src));			\
	NEXT(c, op);								\
}
FCMOV(fcmovb, c->cc & CC_CF)
FCMOV(fcmove, c->cc & CC_ZF)
FCMOV(fcmovbe, c->cc & (CC_CF | CC_ZF))
FCMOV(fcmovu, c->cc & CC_PF)
FCMOV(fcmovnb, !(c->cc & CC_CF))
FCMOV(fcmovne, !(c->cc & CC_ZF))
FCMOV(fcmovnbe, !(c->cc & (CC_CF | CC_ZF)))
FCMOV(fcmovnu, !(c->cc & CC_PF))
op_fn *const x87_fcmov[8] = {
	fcmovb, fcmove, fcmovbe, fcmovu, fcmovnb, fcmovne, fcmovnbe, fcmovnu,
};

static bool sign_operand(struct soft_cpu *c, const struct soft_op *op)
{
	if (likely(!x87_empty(c, 0))) {
		c->s.fpu.fsw &= (uint16_t)~FSW_C1;
		return true;
	}
	if (x87_stack_fault(c, op, false)) {
		x87_default_nan(x87_st(c, 0));
		x87_set_valid(c, 0);
	}
	return false;
}

OP_FN(x87_fchs)
{
	X87_GUARD(c, op);
	x87_note(c, op);
	if (sign_operand(c, op))
		x87_st(c, 0)[9] ^= 0x80;
	NEXT(c, op);
}

OP_FN(x87_fabs)
{
	X87_GUARD(c, op);
	x87_note(c, op);
	if (sign_operand(c, op))
		x87_st(c, 0)[9] &= 0x7f;
	NEXT(c, op);
}

/* FFREE, and FFREEP, which pops as well. */
OP_FN(x87_ffree)
{
	X87_GUARD(c, op);
	x87_note(c, op);
	x87_set_empty(c, op->src);
	c->s.fpu.fsw &= (uint16_t)~FSW_C1;
	x87_pops(c, op->size);
	NEXT(c, op);
}

OP_FN(x87_fincstp)
{
	X87_GUARD(c, op);
	x87_note(c, op);
	x87_set_top(c, x87_top(c) + 1);
	c->s.fpu.fsw &= (uint16_t)~FSW_C1;
	NEXT(c, op);
}

OP_FN(x87_fdecstp)
{
	X87_GUARD(c, op);
	x87_note(c, op);
	x87_set_top(c, x87_top(c) - 1);
	c->s.fpu.fsw &= (uint16_t)~FSW_C1;
	NEXT(c, op);
}
