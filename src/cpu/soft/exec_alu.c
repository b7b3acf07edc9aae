/*
 * Integer arithmetic and logic.  Every handler lets the host's own instruction
 * compute result and flags.
 *
 * The macros below make one handler for each combination of operation, operand
 * form and size.  A form reads its operands, computes, and writes memory before
 * it writes flags, because the write may fault.
 */
#include "cpu/soft/exec.h"

typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;

/* Register writes by size. */
#define SET8(c, off, v)		(R8(c, off) = (v))
#define SET16(c, off, v)	(R16(c, off) = (v))
#define SET32(c, off, v)	W32(c, off, v)
#define SET64(c, off, v)	(R64(c, off) = (v))

/*
 * An atomic operation must not cross a cache line: hosts that detect split
 * locks would kill us, and the store is made in the separate way instead, alone.
 */
static inline void *lockable(struct soft_cpu *c, const struct soft_op *op, u64 lin, unsigned size)
{
	void *p = soft_rmw(c, op, lin, size);

	if (likely(p && (lin & 63) + size <= 64))
		return p;
	soft_exclusive(c, op, lin, size);
	return NULL;
}

/* ---- Two operands ---------------------------------------------------- */

/* Operations that only set flags from their operands. */
#define COMPUTE_PLAIN(insn, sfx, d, s, f) \
	__asm__(insn sfx " %2, %0" FLAGS_OUT : "+q"(d), "=&a"(f) : "qi"(s) : "cc")
/* ADC and SBB take CF in. */
#define COMPUTE_CARRY(insn, sfx, d, s, f) \
	__asm__("bt $8, %3\n\t" insn sfx " %2, %0" FLAGS_OUT \
		: "+q"(d), "=&a"(f) : "qi"(s), "r"((u32)c->cc) : "cc")

#define ALU_FORMS(name, insn, compute, bits, sfx)					\
static const struct soft_op *name##bits##_rr(struct soft_cpu *c, const struct soft_op *op) \
{											\
	u##bits d = R##bits(c, op->dst);						\
	u32 f;										\
	compute(insn, sfx, d, R##bits(c, op->src), f);					\
	SET##bits(c, op->dst, d);							\
	c->cc = (u16)f;									\
	NEXT(c, op);									\
}											\
static const struct soft_op *name##bits##_ri(struct soft_cpu *c, const struct soft_op *op) \
{											\
	u##bits d = R##bits(c, op->dst);						\
	u32 f;										\
	compute(insn, sfx, d, (u##bits)op->imm, f);					\
	SET##bits(c, op->dst, d);							\
	c->cc = (u16)f;									\
	NEXT(c, op);									\
}											\
COLD name##bits##_rm_slow(struct soft_cpu *c, const struct soft_op *op)		\
{											\
	u##bits s = (u##bits)soft_load_slow(c, op, soft_ea(c, op), sizeof s);		\
	u##bits d = R##bits(c, op->dst);						\
	u32 f;										\
	compute(insn, sfx, d, s, f);							\
	SET##bits(c, op->dst, d);							\
	c->cc = (u16)f;									\
	return op + 1;									\
}											\
BOTH_EA(ALU_LOAD, name, insn, compute, bits, sfx)					\
EXEC_PAIR(name##bits##_rm);
#define ALU_LOAD(name, insn, compute, bits, sfx, v_, ea)				\
static const struct soft_op *name##bits##_rm##v_(struct soft_cpu *c, const struct soft_op *op) \
{											\
	u64 lin = ea(c, op);								\
	u##bits d = R##bits(c, op->dst), s;						\
	u32 f;										\
	HOT_LOAD(bits, s, lin, name##bits##_rm_slow);					\
	compute(insn, sfx, d, s, f);							\
	SET##bits(c, op->dst, d);							\
	c->cc = (u16)f;									\
	NEXT(c, op);									\
}

#define ALU_STORE_FORM(name, insn, compute, bits, sfx, form, src)			\
COLD name##bits##_##form##_slow(struct soft_cpu *c, const struct soft_op *op)		\
{											\
	u64 lin = soft_ea(c, op);							\
	u##bits *p = soft_rmw(c, op, lin, sizeof *p);					\
	u##bits d;									\
	u32 f;										\
	if (p)										\
		memcpy(&d, p, sizeof d);						\
	else										\
		d = soft_ld##bits(c, op, lin);						\
	compute(insn, sfx, d, (src), f);						\
	if (p)										\
		memcpy(p, &d, sizeof d);						\
	else										\
		soft_st##bits(c, op, lin, d);						\
	c->cc = (u16)f;									\
	return op + 1;									\
}											\
static const struct soft_op *name##bits##_##form(struct soft_cpu *c, const struct soft_op *op) \
{											\
	u64 lin = soft_ea(c, op);							\
	u##bits *p, d;									\
	u32 f;										\
	HOT_WRITE(bits, p, lin, name##bits##_##form##_slow);				\
	memcpy(&d, p, sizeof d);							\
	compute(insn, sfx, d, (src), f);						\
	memcpy(p, &d, sizeof d);							\
	c->cc = (u16)f;									\
	NEXT(c, op);									\
}
#define ALU_STORE_FORMS(name, insn, compute, bits, sfx)					\
	ALU_STORE_FORM(name, insn, compute, bits, sfx, mr, R##bits(c, op->src))		\
	ALU_STORE_FORM(name, insn, compute, bits, sfx, mi, (u##bits)op->imm)

#define LOCK_PLAIN(insn, sfx, p, s, f) \
	__asm__ volatile("lock " insn sfx " %2, %0" FLAGS_OUT \
			 : "+m"(*(p)), "=&a"(f) : "q"(s) : "cc", "memory")
#define LOCK_CARRY(insn, sfx, p, s, f) \
	__asm__ volatile("bt $8, %3\n\tlock " insn sfx " %2, %0" FLAGS_OUT \
			 : "+m"(*(p)), "=&a"(f) : "q"(s), "r"((u32)c->cc) : "cc", "memory")

#define ALU_LOCK_FORM(name, insn, locked, compute, bits, sfx, form, src)		\
static const struct soft_op *name##bits##_lock_##form(struct soft_cpu *c,		\
						      const struct soft_op *op)		\
{											\
	u64 lin = soft_ea(c, op);							\
	u##bits *p = lockable(c, op, lin, sizeof *p);					\
	u32 f;										\
	if (unlikely(!p))								\
		return name##bits##_##form##_slow(c, op);				\
	locked(insn, sfx, p, (src), f);							\
	c->cc = (u16)f;									\
	NEXT(c, op);									\
}
#define ALU_LOCK_FORMS(name, insn, locked, compute, bits, sfx)				\
	ALU_LOCK_FORM(name, insn, locked, compute, bits, sfx, mr, R##bits(c, op->src))	\
	ALU_LOCK_FORM(name, insn, locked, compute, bits, sfx, mi, (u##bits)op->imm)

#define ALU_ALL(name, insn, compute, locked)		\
	ALU_SIZE(name, insn, compute, locked, 8, "b")	\
	ALU_SIZE(name, insn, compute, locked, 16, "w")	\
	ALU_SIZE(name, insn, compute, locked, 32, "l")	\
	ALU_SIZE(name, insn, compute, locked, 64, "q")
#define ALU_SIZE(name, insn, compute, locked, bits, sfx)	\
	ALU_FORMS(name, insn, compute, bits, sfx)		\
	ALU_STORE_FORMS(name, insn, compute, bits, sfx)		\
	ALU_LOCK_FORMS(name, insn, locked, compute, bits, sfx)

ALU_ALL(add, "add", COMPUTE_PLAIN, LOCK_PLAIN)
ALU_ALL(or, "or", COMPUTE_PLAIN, LOCK_PLAIN)
ALU_ALL(adc, "adc", COMPUTE_CARRY, LOCK_CARRY)
ALU_ALL(sbb, "sbb", COMPUTE_CARRY, LOCK_CARRY)
ALU_ALL(and, "and", COMPUTE_PLAIN, LOCK_PLAIN)
ALU_ALL(sub, "sub", COMPUTE_PLAIN, LOCK_PLAIN)
ALU_ALL(xor, "xor", COMPUTE_PLAIN, LOCK_PLAIN)

/* Flags not wanted: plain C.  32 and 64 bits are what compilers use. */
#define ALU_FLAGLESS(name, expr, bits)							\
static const struct soft_op *name##bits##_rr_nf(struct soft_cpu *c, const struct soft_op *op) \
{											\
	u##bits d = R##bits(c, op->dst), s = R##bits(c, op->src);			\
	SET##bits(c, op->dst, expr);							\
	NEXT(c, op);									\
}											\
EXEC_FLAGLESS(name##bits##_rr);								\
static const struct soft_op *name##bits##_ri_nf(struct soft_cpu *c, const struct soft_op *op) \
{											\
	u##bits d = R##bits(c, op->dst), s = (u##bits)op->imm;				\
	SET##bits(c, op->dst, expr);							\
	NEXT(c, op);									\
}											\
EXEC_FLAGLESS(name##bits##_ri);
#define ALU_FLAGLESS_BOTH(name, expr) ALU_FLAGLESS(name, expr, 32) ALU_FLAGLESS(name, expr, 64)
ALU_FLAGLESS_BOTH(add, d + s)
ALU_FLAGLESS_BOTH(sub, d - s)
ALU_FLAGLESS_BOTH(and, d & s)
ALU_FLAGLESS_BOTH(or, d | s)
ALU_FLAGLESS_BOTH(xor, d ^ s)

/* CMP and TEST write no operand. */
#define COMPARE_SIZE(name, insn, bits, sfx)						\
static inline u16 name##bits(u##bits d, u##bits s)					\
{											\
	u32 f;										\
	__asm__(insn sfx " %2, %1" FLAGS_OUT : "=&a"(f) : "q"(d), "q"(s) : "cc");	\
	return (u16)f;									\
}											\
static const struct soft_op *name##bits##_rr(struct soft_cpu *c, const struct soft_op *op) \
{											\
	c->cc = name##bits(R##bits(c, op->dst), R##bits(c, op->src));			\
	NEXT(c, op);									\
}											\
static const struct soft_op *name##bits##_ri(struct soft_cpu *c, const struct soft_op *op) \
{											\
	c->cc = name##bits(R##bits(c, op->dst), (u##bits)op->imm);			\
	NEXT(c, op);									\
}											\
COMPARE_MEM(name, bits, rm, R##bits(c, op->dst), m)					\
COMPARE_MEM(name, bits, mr, m, R##bits(c, op->src))					\
COMPARE_MEM(name, bits, mi, m, (u##bits)op->imm)
#define COMPARE_MEM(name, bits, form, left_op, right_op)				\
COLD name##bits##_##form##_slow(struct soft_cpu *c, const struct soft_op *op)		\
{											\
	u##bits m = (u##bits)soft_load_slow(c, op, soft_ea(c, op), sizeof m);		\
	c->cc = name##bits(left_op, right_op);						\
	return op + 1;									\
}											\
BOTH_EA(COMPARE_LOAD, name, bits, form, left_op, right_op)				\
EXEC_PAIR(name##bits##_##form);
#define COMPARE_LOAD(name, bits, form, left_op, right_op, v_, ea)			\
static const struct soft_op *name##bits##_##form##v_(struct soft_cpu *c, const struct soft_op *op) \
{											\
	u64 lin = ea(c, op);								\
	u##bits m;									\
	HOT_LOAD(bits, m, lin, name##bits##_##form##_slow);				\
	c->cc = name##bits(left_op, right_op);						\
	NEXT(c, op);									\
}
#define COMPARE_ALL(name, insn)		\
	COMPARE_SIZE(name, insn, 8, "b")	\
	COMPARE_SIZE(name, insn, 16, "w")	\
	COMPARE_SIZE(name, insn, 32, "l")	\
	COMPARE_SIZE(name, insn, 64, "q")
COMPARE_ALL(cmp, "cmp")
COMPARE_ALL(test, "test")

#define SIZES(name, form) { name##8_##form, name##16_##form, name##32_##form, name##64_##form }
#define ALU_ROW(name) {					\
	[FORM_RR] = SIZES(name, rr), [FORM_RI] = SIZES(name, ri),	\
	[FORM_RM] = SIZES(name, rm), [FORM_MR] = SIZES(name, mr),	\
	[FORM_MI] = SIZES(name, mi),					\
	[FORM_LOCK_MR] = SIZES(name, lock_mr), [FORM_LOCK_MI] = SIZES(name, lock_mi) }
#define COMPARE_ROW(name) {				\
	[FORM_RR] = SIZES(name, rr), [FORM_RI] = SIZES(name, ri),	\
	[FORM_RM] = SIZES(name, rm), [FORM_MR] = SIZES(name, mr),	\
	[FORM_MI] = SIZES(name, mi) }

op_fn *const exec_alu[ALU_OPS][FORMS][4] = {
	[ALU_ADD] = ALU_ROW(add), [ALU_OR] = ALU_ROW(or), [ALU_ADC] = ALU_ROW(adc),
	[ALU_SBB] = ALU_ROW(sbb), [ALU_AND] = ALU_ROW(and), [ALU_SUB] = ALU_ROW(sub),
	[ALU_XOR] = ALU_ROW(xor), [ALU_CMP] = COMPARE_ROW(cmp), [ALU_TEST] = COMPARE_ROW(test),
};

/* ---- Compare and branch in one ----------------------------------------- */

/*
 * The pair that ends most blocks.  The flags are stored as by CMP alone; the
 * branch does not wait for them.
 */
#define FUSED(name, kind, bits, sfx, n, test_expr)					\
static const struct soft_op *name##bits##_##kind##_j##n(struct soft_cpu *c,		\
							const struct soft_op *op)	\
{											\
	u##bits d = R##bits(c, op->dst), s = FUSED_SRC_##kind(bits);			\
	c->cc = name##bits(d, s);							\
	if (test_expr) {								\
		const struct soft_op *to = (const struct soft_op *)op[1].imm;		\
		if (likely(to)) {							\
			c->budget += op[1].left;					\
			GOTO_OP(c, to);							\
		}									\
		GOTO_OP(c, op + 1);							\
	}										\
	NEXT(c, op + 1);								\
}
#define FUSED_SRC_rr(bits) R##bits(c, op->src)
#define FUSED_SRC_ri(bits) (u##bits)op->imm

/* Conditions as C expressions of d and s where that is shorter than the flags. */
#define CC_COND(n) exec_cond(c->cc, n)
#define FUSED_CMP(kind, bits, sfx)						\
	FUSED(cmp, kind, bits, sfx, 0, CC_COND(0))				\
	FUSED(cmp, kind, bits, sfx, 1, CC_COND(1))				\
	FUSED(cmp, kind, bits, sfx, 2, d < s)					\
	FUSED(cmp, kind, bits, sfx, 3, d >= s)					\
	FUSED(cmp, kind, bits, sfx, 4, d == s)					\
	FUSED(cmp, kind, bits, sfx, 5, d != s)					\
	FUSED(cmp, kind, bits, sfx, 6, d <= s)					\
	FUSED(cmp, kind, bits, sfx, 7, d > s)					\
	FUSED(cmp, kind, bits, sfx, 8, CC_COND(8))				\
	FUSED(cmp, kind, bits, sfx, 9, CC_COND(9))				\
	FUSED(cmp, kind, bits, sfx, 10, CC_COND(10))				\
	FUSED(cmp, kind, bits, sfx, 11, CC_COND(11))				\
	FUSED(cmp, kind, bits, sfx, 12, (int##bits##_t)d < (int##bits##_t)s)	\
	FUSED(cmp, kind, bits, sfx, 13, (int##bits##_t)d >= (int##bits##_t)s)	\
	FUSED(cmp, kind, bits, sfx, 14, (int##bits##_t)d <= (int##bits##_t)s)	\
	FUSED(cmp, kind, bits, sfx, 15, (int##bits##_t)d > (int##bits##_t)s)
#define FUSED_TEST(kind, bits, sfx)						\
	FUSED(test, kind, bits, sfx, 0, ((void)d, (void)s, false))		\
	FUSED(test, kind, bits, sfx, 1, ((void)d, (void)s, true))		\
	FUSED(test, kind, bits, sfx, 2, ((void)d, (void)s, false))		\
	FUSED(test, kind, bits, sfx, 3, ((void)d, (void)s, true))		\
	FUSED(test, kind, bits, sfx, 4, !(d & s))				\
	FUSED(test, kind, bits, sfx, 5, d & s)					\
	FUSED(test, kind, bits, sfx, 6, !(d & s))				\
	FUSED(test, kind, bits, sfx, 7, d & s)					\
	FUSED(test, kind, bits, sfx, 8, (int##bits##_t)(d & s) < 0)		\
	FUSED(test, kind, bits, sfx, 9, (int##bits##_t)(d & s) >= 0)		\
	FUSED(test, kind, bits, sfx, 10, CC_COND(10))				\
	FUSED(test, kind, bits, sfx, 11, CC_COND(11))				\
	FUSED(test, kind, bits, sfx, 12, (int##bits##_t)(d & s) < 0)		\
	FUSED(test, kind, bits, sfx, 13, (int##bits##_t)(d & s) >= 0)		\
	FUSED(test, kind, bits, sfx, 14, (int##bits##_t)(d & s) <= 0)		\
	FUSED(test, kind, bits, sfx, 15, (int##bits##_t)(d & s) > 0)
FUSED_CMP(rr, 32, "l") FUSED_CMP(ri, 32, "l") FUSED_CMP(rr, 64, "q") FUSED_CMP(ri, 64, "q")
FUSED_TEST(rr, 32, "l") FUSED_TEST(ri, 32, "l") FUSED_TEST(rr, 64, "q") FUSED_TEST(ri, 64, "q")

#define FUSED_ROW(p) { p##_j0, p##_j1, p##_j2, p##_j3, p##_j4, p##_j5, p##_j6, p##_j7, \
		       p##_j8, p##_j9, p##_j10, p##_j11, p##_j12, p##_j13, p##_j14, p##_j15 }
op_fn *const exec_cmp_jcc[2][2][2][16] = {
	{ { FUSED_ROW(cmp32_rr), FUSED_ROW(cmp64_rr) },
	  { FUSED_ROW(cmp32_ri), FUSED_ROW(cmp64_ri) } },
	{ { FUSED_ROW(test32_rr), FUSED_ROW(test64_rr) },
	  { FUSED_ROW(test32_ri), FUSED_ROW(test64_ri) } },
};

/* ---- One operand ------------------------------------------------------- */

#define UNARY_SIZE(name, insn, bits, sfx)						\
static const struct soft_op *name##bits##_r(struct soft_cpu *c, const struct soft_op *op) \
{											\
	u##bits d = R##bits(c, op->dst);						\
	u32 f = c->cc;									\
	__asm__(FLAGS_IN insn sfx " %0" FLAGS_OUT : "+q"(d), "+a"(f) : : "cc");		\
	SET##bits(c, op->dst, d);							\
	c->cc = (u16)f;									\
	NEXT(c, op);									\
}											\
static const struct soft_op *name##bits##_m(struct soft_cpu *c, const struct soft_op *op) \
{											\
	u64 lin = soft_ea(c, op);							\
	u##bits *p = soft_rmw(c, op, lin, sizeof *p);					\
	u##bits d;									\
	u32 f = c->cc;									\
	if (likely(p))									\
		memcpy(&d, p, sizeof d);						\
	else										\
		d = soft_ld##bits(c, op, lin);						\
	__asm__(FLAGS_IN insn sfx " %0" FLAGS_OUT : "+q"(d), "+a"(f) : : "cc");		\
	if (likely(p))									\
		memcpy(p, &d, sizeof d);						\
	else										\
		soft_st##bits(c, op, lin, d);						\
	c->cc = (u16)f;									\
	NEXT(c, op);									\
}											\
static const struct soft_op *name##bits##_lock(struct soft_cpu *c, const struct soft_op *op) \
{											\
	u##bits *p = lockable(c, op, soft_ea(c, op), sizeof *p);			\
	u32 f = c->cc;									\
	if (unlikely(!p))								\
		return name##bits##_m(c, op);						\
	__asm__ volatile(FLAGS_IN "lock " insn sfx " %0" FLAGS_OUT			\
			 : "+m"(*p), "+a"(f) : : "cc", "memory");			\
	c->cc = (u16)f;									\
	NEXT(c, op);									\
}
#define UNARY_ALL(name, insn)		\
	UNARY_SIZE(name, insn, 8, "b")	\
	UNARY_SIZE(name, insn, 16, "w")	\
	UNARY_SIZE(name, insn, 32, "l")	\
	UNARY_SIZE(name, insn, 64, "q")
UNARY_ALL(inc, "inc")
UNARY_ALL(dec, "dec")
UNARY_ALL(not, "not")
UNARY_ALL(neg, "neg")
#define UNARY_FLAGLESS(name, expr, bits)						\
static const struct soft_op *name##bits##_r_nf(struct soft_cpu *c, const struct soft_op *op) \
{											\
	u##bits d = R##bits(c, op->dst);						\
	SET##bits(c, op->dst, expr);							\
	NEXT(c, op);									\
}											\
EXEC_FLAGLESS(name##bits##_r);
UNARY_FLAGLESS(inc, d + 1, 32) UNARY_FLAGLESS(inc, d + 1, 64)
UNARY_FLAGLESS(dec, d - 1, 32) UNARY_FLAGLESS(dec, d - 1, 64)
UNARY_FLAGLESS(neg, -d, 32) UNARY_FLAGLESS(neg, -d, 64)
/* NOT has no flags at all. */
UNARY_FLAGLESS(not, ~d, 32) UNARY_FLAGLESS(not, ~d, 64)

#define UNARY_ROW(n) { [UFORM_R] = SIZES(n, r), [UFORM_M] = SIZES(n, m), [UFORM_LOCK] = SIZES(n, lock) }
op_fn *const exec_unary[UNARY_OPS][UFORMS][4] = {
	[UNARY_INC] = UNARY_ROW(inc), [UNARY_DEC] = UNARY_ROW(dec),
	[UNARY_NOT] = UNARY_ROW(not), [UNARY_NEG] = UNARY_ROW(neg),
};
