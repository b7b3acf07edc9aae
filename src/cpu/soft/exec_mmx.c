/*
 * MMX.  The registers are the significands of the x87 registers, so an MMX
 * instruction sets TOP to 0, marks all registers valid and writes ones into the
 * exponent (SDM vol. 1, 9.2.1 and 9.5.1).  The work is done in the host's XMM registers:
 * the host's x87 state stays empty.
 *
 * Order: a pending x87 exception first (#MF), then the memory operand's faults,
 * then the change of state.
 */
#include "cpu/soft/simd.h"
#include "cpu/soft/simd_list.h"
#include "cpu/soft/simd_special.h"

SIMD_BOTH(SIMD_DECLARE_MMX)
SIMD_PAIR(SIMD_DECLARE_MMX)
SIMD_UNPCKL(SIMD_DECLARE_MMX)
SIMD_UNPCKH(SIMD_DECLARE_MMX)
op_fn mmx_pshufb_rr, mmx_pshufb_rm;

static inline void mmx_result(struct soft_cpu *c, const struct soft_op *op, uint64_t v)
{
	mmx_enter(c);
	mmx_write(c, op->dst, v);
}

/* A register form and a memory form of `expr`, made of d and s. */
#define MMX_RR_RM(name, bits, ...)						\
OP_FN(mmx_##name##_rr)								\
{										\
	uint64_t d, s;								\
										\
	MMX_GUARD(c, op);							\
	d = MMX(c, op->dst);							\
	s = MMX(c, op->src);							\
	(void)d;								\
	mmx_result(c, op, __VA_ARGS__);						\
	NEXT(c, op);								\
}										\
OP_FN(mmx_##name##_rm)								\
{										\
	uint64_t d, s;								\
										\
	MMX_GUARD(c, op);							\
	s = soft_ld##bits(c, op, soft_ea(c, op));				\
	d = MMX(c, op->dst);							\
	(void)d;								\
	mmx_result(c, op, __VA_ARGS__);						\
	NEXT(c, op);								\
}

#define XMM_DO(insn, d, s)							\
	({									\
		v2di d_ = (d);							\
										\
		asm volatile(insn " %1, %0" : "+x"(d_) : "x"(s));		\
		d_;								\
	})
#define LOW(insn)	simd_low(XMM_DO(insn, mmx_vec(d), mmx_vec(s)))
#define PAIR(insn)								\
	({									\
		v2di p_ = { (long long)d, (long long)s };			\
										\
		simd_low(XMM_DO(insn, p_, p_));					\
	})
#define HIGH(insn)	((uint64_t)XMM_DO(insn, mmx_vec(d), mmx_vec(s))[1])
/* From an XMM register's worth of one operand. */
#define CONVERT(insn)	simd_low(XMM_DO(insn, mmx_vec(0), mmx_vec(s)))

#define BOTH(M, name)		MMX_RR_RM(name, 64, LOW(#name))
#define PAIRED(M, name)		MMX_RR_RM(name, 64, PAIR(#name))
#define UNPCKL(M, name)		MMX_RR_RM(name, 32, LOW(#name))
#define UNPCKH(M, name, low)	MMX_RR_RM(name, 64, HIGH(#low))

SIMD_BOTH(BOTH)
SIMD_PAIR(PAIRED)
SIMD_UNPCKL(UNPCKL)
SIMD_UNPCKH(UNPCKH)

/* Only three bits of an index mean something here. */
MMX_RR_RM(pshufb, 64, ({
	v2di m_ = mmx_vec(s & 0x8787878787878787ull);
	simd_low(XMM_DO("pshufb", mmx_vec(d), m_));
}))

/* imm: the mask of PSHUFLW */
MMX_RR_RM(pshufw, 64, simd_low(XMM_DO("pshufb", mmx_vec(s),
				      *(const v2di_u *)(uintptr_t)op->imm)))

static inline uint64_t palignr(uint64_t d, uint64_t s, uint64_t bytes)
{
	unsigned __int128 v = (unsigned __int128)d << 64 | s;

	return bytes > 15 ? 0 : (uint64_t)(v >> bytes * 8);
}

MMX_RR_RM(palignr, 64, palignr(d, s, op->imm))

#define MMX_SHIFT_I(name)							\
OP_FN(mmx_##name##_i)								\
{										\
	uint64_t d, s = op->imm;						\
										\
	MMX_GUARD(c, op);							\
	d = MMX(c, op->dst);							\
	mmx_result(c, op, LOW(#name));						\
	NEXT(c, op);								\
}
MMX_SHIFT_I(psllw)
MMX_SHIFT_I(pslld)
MMX_SHIFT_I(psllq)
MMX_SHIFT_I(psrlw)
MMX_SHIFT_I(psrld)
MMX_SHIFT_I(psrlq)
MMX_SHIFT_I(psraw)
MMX_SHIFT_I(psrad)

/* ---- Moves ------------------------------------------------------------ */

MMX_RR_RM(mov, 64, s)

OP_FN(mmx_load4)
{
	uint64_t s;

	MMX_GUARD(c, op);
	s = soft_ld32(c, op, soft_ea(c, op));
	mmx_result(c, op, s);
	NEXT(c, op);
}

OP_FN(mmx_store8)
{
	MMX_GUARD(c, op);
	soft_st64(c, op, soft_ea(c, op), MMX(c, op->src));
	mmx_enter(c);
	NEXT(c, op);
}

OP_FN(mmx_store4)
{
	MMX_GUARD(c, op);
	soft_st32(c, op, soft_ea(c, op), (uint32_t)MMX(c, op->src));
	mmx_enter(c);
	NEXT(c, op);
}

OP_FN(mmx_from_gpr32)
{
	MMX_GUARD(c, op);
	mmx_result(c, op, R32(c, op->src));
	NEXT(c, op);
}

OP_FN(mmx_from_gpr64)
{
	MMX_GUARD(c, op);
	mmx_result(c, op, R64(c, op->src));
	NEXT(c, op);
}

OP_FN(mmx_to_gpr32)
{
	MMX_GUARD(c, op);
	W32(c, op->dst, MMX(c, op->src));
	mmx_enter(c);
	NEXT(c, op);
}

OP_FN(mmx_to_gpr64)
{
	MMX_GUARD(c, op);
	R64(c, op->dst) = MMX(c, op->src);
	mmx_enter(c);
	NEXT(c, op);
}

OP_FN(mmx_movdq2q)
{
	MMX_GUARD(c, op);
	mmx_result(c, op, XQ(c, op->src, 0));
	NEXT(c, op);
}

OP_FN(mmx_movq2dq)
{
	MMX_GUARD(c, op);
	XMM(c, op->dst) = mmx_vec(MMX(c, op->src));
	mmx_enter(c);
	NEXT(c, op);
}

OP_FN(mmx_pmovmskb)
{
	uint32_t v;

	MMX_GUARD(c, op);
	asm("pmovmskb %1, %0" : "=r"(v) : "x"(mmx_vec(MMX(c, op->src))));
	W32(c, op->dst, v);
	mmx_enter(c);
	NEXT(c, op);
}

OP_FN(mmx_pextrw)
{
	MMX_GUARD(c, op);
	W32(c, op->dst, (uint16_t)(MMX(c, op->src) >> 16 * op->imm));
	mmx_enter(c);
	NEXT(c, op);
}

static inline uint64_t pinsrw(uint64_t d, uint16_t v, unsigned i)
{
	return (d & ~(0xffffull << 16 * i)) | (uint64_t)v << 16 * i;
}

OP_FN(mmx_pinsrw_r)
{
	MMX_GUARD(c, op);
	mmx_result(c, op, pinsrw(MMX(c, op->dst), R16(c, op->src), (unsigned)op->imm));
	NEXT(c, op);
}

OP_FN(mmx_pinsrw_m)
{
	uint16_t v;

	MMX_GUARD(c, op);
	v = soft_ld16(c, op, soft_ea(c, op));
	mmx_result(c, op, pinsrw(MMX(c, op->dst), v, (unsigned)op->imm));
	NEXT(c, op);
}

/* All registers empty; a pending exception is reported first. */
OP_FN(mmx_emms)
{
	MMX_GUARD(c, op);
	mmx_enter(c);
	c->s.fpu.ftw = 0;
	NEXT(c, op);
}

/* ---- Conversions between packed integers in MM and floating point in XMM ------- */

static inline void cvtpi2ps(struct soft_cpu *c, const struct soft_op *op, uint64_t s)
{
	XQ(c, op->dst, 0) = CONVERT("cvtdq2ps");
}

OP_FN(mmx_cvtpi2ps_rr)
{
	MMX_GUARD(c, op);
	cvtpi2ps(c, op, MMX(c, op->src));
	mmx_enter(c);
	NEXT(c, op);
}

/* With a memory operand these two leave MMX alone. */
OP_FN(mmx_cvtpi2ps_rm)
{
	uint64_t s;

	s = soft_ld64(c, op, soft_ea(c, op));
	cvtpi2ps(c, op, s);
	NEXT(c, op);
}

OP_FN(mmx_cvtpi2pd_rr)
{
	MMX_GUARD(c, op);
	XMM(c, op->dst) = XMM_DO("cvtdq2pd", mmx_vec(0), mmx_vec(MMX(c, op->src)));
	mmx_enter(c);
	NEXT(c, op);
}

OP_FN(mmx_cvtpi2pd_rm)
{
	uint64_t s = soft_ld64(c, op, soft_ea(c, op));

	XMM(c, op->dst) = XMM_DO("cvtdq2pd", mmx_vec(0), mmx_vec(s));
	NEXT(c, op);
}

#define CVT_TO_MM8(name, insn)							\
OP_FN(mmx_##name##_rr)								\
{										\
	uint64_t s;								\
										\
	MMX_GUARD(c, op);							\
	s = XQ(c, op->src, 0);							\
	mmx_result(c, op, CONVERT(insn));					\
	NEXT(c, op);								\
}										\
OP_FN(mmx_##name##_rm)								\
{										\
	uint64_t s;								\
										\
	MMX_GUARD(c, op);							\
	s = soft_ld64(c, op, soft_ea(c, op));					\
	mmx_result(c, op, CONVERT(insn));					\
	NEXT(c, op);								\
}
CVT_TO_MM8(cvtps2pi, "cvtps2dq")
CVT_TO_MM8(cvttps2pi, "cvttps2dq")

#define CVT_TO_MM16(name, insn)							\
OP_FN(mmx_##name##_rr)								\
{										\
	MMX_GUARD(c, op);							\
	mmx_result(c, op, simd_low(XMM_DO(insn, mmx_vec(0), XMM(c, op->src))));	\
	NEXT(c, op);								\
}										\
OP_FN(mmx_##name##_rm)								\
{										\
	uint64_t lin = soft_ea(c, op);						\
	const v2di *s;								\
										\
	MMX_GUARD(c, op);							\
	if (lin & 15)								\
		return simd_misaligned(c, op);					\
	s = simd_src(c, op, 16);						\
	mmx_result(c, op, simd_low(XMM_DO(insn, mmx_vec(0), *s)));		\
	NEXT(c, op);								\
}
CVT_TO_MM16(cvtpd2pi, "cvtpd2dq")
CVT_TO_MM16(cvttpd2pi, "cvttpd2dq")
