/* SSE instructions with an immediate. */
#include "cpu/soft/simd.h"
#include "cpu/soft/simd_special.h"

/* op->imm is the address of the byte masks that the immediate means. */
static inline v2di imm_mask(const struct soft_op *op, unsigned i)
{
	return ((const v2di_u *)(uintptr_t)op->imm)[i];
}

static inline v2di pshufb(v2di v, v2di mask)
{
	asm("pshufb %1, %0" : "+x"(v) : "x"(mask));
	return v;
}

/* PSHUFD, PSHUFLW, PSHUFHW, PSLLDQ, PSRLDQ */
OP_FN(sse_permute_rr)
{
	XMM(c, op->dst) = pshufb(XMM(c, op->src), imm_mask(op, 0));
	NEXT(c, op);
}

SIMD_RM(sse_permute_rm, 16,
	XMM(c, op->dst) = pshufb(*s, imm_mask(op, 0));
	NEXT(c, op);
)

/* SHUFPS, SHUFPD, PALIGNR: some bytes of the destination, the others of the source. */
OP_FN(sse_permute2_rr)
{
	XMM(c, op->dst) = pshufb(XMM(c, op->dst), imm_mask(op, 0)) |
			  pshufb(XMM(c, op->src), imm_mask(op, 1));
	NEXT(c, op);
}

SIMD_RM(sse_permute2_rm, 16,
	XMM(c, op->dst) = pshufb(XMM(c, op->dst), imm_mask(op, 0)) |
			  pshufb(*s, imm_mask(op, 1));
	NEXT(c, op);
)

/* PBLENDW, BLENDPS, BLENDPD */
OP_FN(sse_select_rr)
{
	v2di m = imm_mask(op, 0);

	XMM(c, op->dst) = (XMM(c, op->dst) & ~m) | (XMM(c, op->src) & m);
	NEXT(c, op);
}

SIMD_RM(sse_select_rm, 16,
	v2di m = imm_mask(op, 0);

	XMM(c, op->dst) = (XMM(c, op->dst) & ~m) | (*s & m);
	NEXT(c, op);
)

/* Shifts: the count is zero-extended to the 64 bits that the register form takes. */
#define SHIFT_I(name)								\
OP_FN(sse_##name##_i)								\
{										\
	v2di d = XMM(c, op->dst);						\
	v2di n = { (long long)op->imm, 0 };					\
										\
	asm(#name " %1, %0" : "+x"(d) : "x"(n));				\
	XMM(c, op->dst) = d;							\
	NEXT(c, op);								\
}
SHIFT_I(psllw)
SHIFT_I(pslld)
SHIFT_I(psllq)
SHIFT_I(psrlw)
SHIFT_I(psrld)
SHIFT_I(psrlq)
SHIFT_I(psraw)
SHIFT_I(psrad)

/*
 * The host wants these immediates in its own instruction: one case for each
 * value that has a meaning.
 */
#define CASE(insn, n)	case n: asm volatile(insn " $" #n ", %1, %0" : "+x"(d) : "x"(s)); break;
#define CASE4(insn, a, b, e, f)	CASE(insn, a) CASE(insn, b) CASE(insn, e) CASE(insn, f)
#define CASES_16(insn)								\
	CASE4(insn, 0x0, 0x1, 0x2, 0x3) CASE4(insn, 0x4, 0x5, 0x6, 0x7)		\
	CASE4(insn, 0x8, 0x9, 0xa, 0xb) CASE4(insn, 0xc, 0xd, 0xe, 0xf)
#define CASES_HIGH(insn, h)							\
	CASE4(insn, 0x##h##0, 0x##h##1, 0x##h##2, 0x##h##3)			\
	CASE4(insn, 0x##h##4, 0x##h##5, 0x##h##6, 0x##h##7)			\
	CASE4(insn, 0x##h##8, 0x##h##9, 0x##h##a, 0x##h##b)			\
	CASE4(insn, 0x##h##c, 0x##h##d, 0x##h##e, 0x##h##f)
#define CASES_256(insn)								\
	CASES_16(insn) CASES_HIGH(insn, 1) CASES_HIGH(insn, 2)			\
	CASES_HIGH(insn, 3) CASES_HIGH(insn, 4) CASES_HIGH(insn, 5)		\
	CASES_HIGH(insn, 6) CASES_HIGH(insn, 7) CASES_HIGH(insn, 8)		\
	CASES_HIGH(insn, 9) CASES_HIGH(insn, a) CASES_HIGH(insn, b)		\
	CASES_HIGH(insn, c) CASES_HIGH(insn, d) CASES_HIGH(insn, e)		\
	CASES_HIGH(insn, f)

#define IMM_RR_RM(name, size, meaning, cases)					\
static v2di do_##name(v2di d, v2di s, unsigned imm)				\
{										\
	switch (imm & (meaning)) {						\
	cases									\
	}									\
	return d;								\
}										\
OP_FN(sse_##name##_rr)								\
{										\
	XMM(c, op->dst) = do_##name(XMM(c, op->dst), XMM(c, op->src), (unsigned)op->imm); \
	NEXT(c, op);								\
}										\
SIMD_RM(sse_##name##_rm, size,							\
	XMM(c, op->dst) = do_##name(XMM(c, op->dst), LOAD_##size(s), (unsigned)op->imm); \
	NEXT(c, op);								\
)
#define LOAD_4(s)	((v2di){ load32(s), 0 })
#define LOAD_8(s)	((v2di){ (long long)load64(s), 0 })
#define LOAD_16(s)	(*(s))

IMM_RR_RM(roundps, 16, 15, CASES_16("roundps"))
IMM_RR_RM(roundpd, 16, 15, CASES_16("roundpd"))
IMM_RR_RM(roundss, 4, 15, CASES_16("roundss"))
IMM_RR_RM(roundsd, 8, 15, CASES_16("roundsd"))
IMM_RR_RM(dpps, 16, 255, CASES_256("dpps"))
IMM_RR_RM(dppd, 16, 255, CASES_256("dppd"))
IMM_RR_RM(mpsadbw, 16, 7, CASE4("mpsadbw", 0, 1, 2, 3) CASE4("mpsadbw", 4, 5, 6, 7))
IMM_RR_RM(pclmulqdq, 16, 0x11, CASE4("pclmulqdq", 0x00, 0x01, 0x10, 0x11))

/* AESKEYGENASSIST adds RCON, the immediate, to elements 1 and 3 (SDM vol. 2A). */
static inline v2di keygen(v2di s, uint64_t rcon)
{
	v2di d;

	asm("aeskeygenassist $0, %1, %0" : "=x"(d) : "x"(s));
	return d ^ (v2di){ (long long)(rcon << 32), (long long)(rcon << 32) };
}

OP_FN(sse_aeskeygenassist_rr)
{
	XMM(c, op->dst) = keygen(XMM(c, op->src), op->imm);
	NEXT(c, op);
}

SIMD_RM(sse_aeskeygenassist_rm, 16,
	XMM(c, op->dst) = keygen(*s, op->imm);
	NEXT(c, op);
)
