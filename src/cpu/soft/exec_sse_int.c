/* SSE integer, logic and shuffle instructions without an immediate. */
#include "cpu/soft/simd.h"
#include "cpu/soft/simd_list.h"

SIMD_BOTH(SIMD_DECLARE_RR_RM)
SIMD_PAIR(SIMD_DECLARE_RR_RM)
SIMD_UNPCKL(SIMD_DECLARE_RR_RM)
SIMD_UNPCKH(SIMD_DECLARE_RR_RM)
SIMD_XMM_ONLY(SIMD_DECLARE_RR_RM)
SIMD_BLENDV(SIMD_DECLARE_RR_RM)
op_fn sse_ptest_rr, sse_ptest_rm;

#define INT_RR_RM(M, name, size, ...)						\
OP_FN(sse_##name##_rr)								\
{										\
	v2di d = XMM(c, op->dst);						\
										\
	asm(#name " %1, %0" : "+x"(d) : "xm"(XMM(c, op->src)));			\
	XMM(c, op->dst) = d;							\
	NEXT(c, op);								\
}										\
SIMD_RM(sse_##name##_rm, size,							\
	v2di d = XMM(c, op->dst);						\
										\
	asm(#name " %1, %0" : "+x"(d) : "m"(*s));				\
	XMM(c, op->dst) = d;							\
	NEXT(c, op);								\
)

#define INT_RR_RM16(M, name, ...) INT_RR_RM(M, name, 16)

SIMD_BOTH(INT_RR_RM16)
SIMD_PAIR(INT_RR_RM16)
SIMD_UNPCKL(INT_RR_RM16)
SIMD_UNPCKH(INT_RR_RM16)
SIMD_XMM_ONLY(INT_RR_RM)

#define BLENDV_RR_RM(M, name)							\
OP_FN(sse_##name##_rr)								\
{										\
	v2di d = XMM(c, op->dst);						\
										\
	asm(#name " %%xmm0, %1, %0" : "+x"(d) : "x"(XMM(c, op->src)), "Yz"(XMM(c, 0))); \
	XMM(c, op->dst) = d;							\
	NEXT(c, op);								\
}										\
SIMD_RM(sse_##name##_rm, 16,							\
	v2di d = XMM(c, op->dst);						\
										\
	asm(#name " %%xmm0, %1, %0" : "+x"(d) : "m"(*s), "Yz"(XMM(c, 0)));	\
	XMM(c, op->dst) = d;							\
	NEXT(c, op);								\
)

SIMD_BLENDV(BLENDV_RR_RM)

OP_FN(sse_ptest_rr)
{
	SIMD_SET_CC(c, "ptest %2, %1", XMM(c, op->dst), XMM(c, op->src));
	NEXT(c, op);
}

SIMD_RM(sse_ptest_rm, 16,
	SIMD_SET_CC(c, "ptest %2, %1", XMM(c, op->dst), *s);
	NEXT(c, op);
)
