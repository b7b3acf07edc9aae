/*
 * SSE floating point: the host's instruction under the guest's rounding, DAZ and
 * FTZ.  The statements are volatile, since they read and set MXCSR.
 */
#include "cpu/soft/simd.h"
#include "cpu/soft/simd_list.h"
#include "cpu/soft/simd_special.h"

SIMD_FP_ARITH(SIMD_DECLARE_RR_RM)
op_fn sse_comiss_rr, sse_comiss_rm, sse_comisd_rr, sse_comisd_rm;
op_fn sse_ucomiss_rr, sse_ucomiss_rm, sse_ucomisd_rr, sse_ucomisd_rm;

#define FP_RR_RM(M, name, size, ...)						\
OP_FN(sse_##name##_rr)								\
{										\
	v2di d = XMM(c, op->dst);						\
										\
	asm volatile(#name " %1, %0" : "+x"(d) : "xm"(XMM(c, op->src)));	\
	XMM(c, op->dst) = d;							\
	NEXT(c, op);								\
}										\
SIMD_RM(sse_##name##_rm, size,							\
	v2di d = XMM(c, op->dst);						\
										\
	asm volatile(#name " %1, %0" : "+x"(d) : "m"(*s));			\
	XMM(c, op->dst) = d;							\
	NEXT(c, op);								\
)

SIMD_FP_ARITH(FP_RR_RM)

#define COMI_RR_RM(name, size)							\
OP_FN(sse_##name##_rr)								\
{										\
	SIMD_SET_CC(c, #name " %2, %1", XMM(c, op->dst), XMM(c, op->src));	\
	NEXT(c, op);								\
}										\
SIMD_RM(sse_##name##_rm, size,							\
	uint16_t cc;								\
										\
	asm volatile(#name " %2, %1\n\tlahf\n\tseto %%al"			\
		     : "=a"(cc) : "x"(XMM(c, op->dst)), "m"(*s) : "cc");	\
	c->cc = cc;								\
	NEXT(c, op);								\
)

COMI_RR_RM(comiss, 4)
COMI_RR_RM(comisd, 8)
COMI_RR_RM(ucomiss, 4)
COMI_RR_RM(ucomisd, 8)

/* CMPccPS and its kin: the predicate is the immediate's low three bits. */
#define CMP_ONE(name, size, n)							\
static OP_FN(name##_##n##_rr)							\
{										\
	v2di d = XMM(c, op->dst);						\
										\
	asm volatile(#name " $" #n ", %1, %0" : "+x"(d) : "xm"(XMM(c, op->src))); \
	XMM(c, op->dst) = d;							\
	NEXT(c, op);								\
}										\
SIMD_RM_STATIC(name##_##n##_rm, size,						\
	v2di d = XMM(c, op->dst);						\
										\
	asm volatile(#name " $" #n ", %1, %0" : "+x"(d) : "m"(*s));		\
	XMM(c, op->dst) = d;							\
	NEXT(c, op);								\
)
#define CMP_TABLE(name, size)							\
	CMP_ONE(name, size, 0) CMP_ONE(name, size, 1) CMP_ONE(name, size, 2)	\
	CMP_ONE(name, size, 3) CMP_ONE(name, size, 4) CMP_ONE(name, size, 5)	\
	CMP_ONE(name, size, 6) CMP_ONE(name, size, 7)				\
op_fn *const sse_##name##_fns[8][2] = {						\
	{ name##_0_rr, name##_0_rm }, { name##_1_rr, name##_1_rm },		\
	{ name##_2_rr, name##_2_rm }, { name##_3_rr, name##_3_rm },		\
	{ name##_4_rr, name##_4_rm }, { name##_5_rr, name##_5_rm },		\
	{ name##_6_rr, name##_6_rm }, { name##_7_rr, name##_7_rm },		\
};
CMP_TABLE(cmpps, 16)
CMP_TABLE(cmppd, 16)
CMP_TABLE(cmpss, 4)
CMP_TABLE(cmpsd, 8)

/* Integer to scalar: src is a slot.  The upper part of the destination stays. */
#define CVTSI(name, insn, type)							\
OP_FN(sse_##name##_r)								\
{										\
	v2di d = XMM(c, op->dst);						\
										\
	asm volatile(insn " %1, %0" : "+x"(d) : "r"(*(type *)((char *)c->r + op->src))); \
	XMM(c, op->dst) = d;							\
	NEXT(c, op);								\
}
CVTSI(cvtsi2ss32, "cvtsi2ssl", uint32_t)
CVTSI(cvtsi2ss64, "cvtsi2ssq", uint64_t)
CVTSI(cvtsi2sd32, "cvtsi2sdl", uint32_t)
CVTSI(cvtsi2sd64, "cvtsi2sdq", uint64_t)

#define CVTSI_MEM(name, insn, size)						\
SIMD_RM(sse_##name##_m, size,							\
	v2di d = XMM(c, op->dst);						\
										\
	asm volatile(insn " %1, %0" : "+x"(d) : "m"(*s));			\
	XMM(c, op->dst) = d;							\
	NEXT(c, op);								\
)
CVTSI_MEM(cvtsi2ss32, "cvtsi2ssl", 4)
CVTSI_MEM(cvtsi2ss64, "cvtsi2ssq", 8)
CVTSI_MEM(cvtsi2sd32, "cvtsi2sdl", 4)
CVTSI_MEM(cvtsi2sd64, "cvtsi2sdq", 8)

/* Scalar to integer: dst is a slot; 32-bit results clear the upper half of it. */
#define CVT2SI(name, size)							\
OP_FN(sse_##name##32_rr)							\
{										\
	uint32_t v;								\
										\
	asm volatile(#name " %1, %0" : "=r"(v) : "xm"(XMM(c, op->src)));	\
	W32(c, op->dst, v);							\
	NEXT(c, op);								\
}										\
OP_FN(sse_##name##64_rr)							\
{										\
	uint64_t v;								\
										\
	asm volatile(#name " %1, %0" : "=r"(v) : "xm"(XMM(c, op->src)));	\
	R64(c, op->dst) = v;							\
	NEXT(c, op);								\
}										\
SIMD_RM(sse_##name##32_rm, size,						\
	uint32_t v;								\
										\
	asm volatile(#name " %1, %0" : "=r"(v) : "m"(*s));			\
	W32(c, op->dst, v);							\
	NEXT(c, op);								\
)										\
SIMD_RM(sse_##name##64_rm, size,						\
	uint64_t v;								\
										\
	asm volatile(#name " %1, %0" : "=r"(v) : "m"(*s));			\
	R64(c, op->dst) = v;							\
	NEXT(c, op);								\
)
CVT2SI(cvtss2si, 4)
CVT2SI(cvttss2si, 4)
CVT2SI(cvtsd2si, 8)
CVT2SI(cvttsd2si, 8)
