/*
 * The regular SSE and MMX instructions: two operands, the second a register or
 * memory, the host's instruction of the same name does the work.
 */
#ifndef SKEP_CPU_SOFT_SIMD_LIST_H
#define SKEP_CPU_SOFT_SIMD_LIST_H

/* Integer, XMM with an aligned 16-byte operand; the low half of it is the MMX form. */
#define SIMD_BOTH(X)								\
	X(PADDB, paddb) X(PADDW, paddw) X(PADDD, paddd) X(PADDQ, paddq)		\
	X(PADDSB, paddsb) X(PADDSW, paddsw) X(PADDUSB, paddusb)			\
	X(PADDUSW, paddusw)							\
	X(PSUBB, psubb) X(PSUBW, psubw) X(PSUBD, psubd) X(PSUBQ, psubq)		\
	X(PSUBSB, psubsb) X(PSUBSW, psubsw) X(PSUBUSB, psubusb)			\
	X(PSUBUSW, psubusw)							\
	X(PMULLW, pmullw) X(PMULHW, pmulhw) X(PMULHUW, pmulhuw)			\
	X(PMULUDQ, pmuludq) X(PMADDWD, pmaddwd)					\
	X(PAVGB, pavgb) X(PAVGW, pavgw)						\
	X(PMAXSW, pmaxsw) X(PMAXUB, pmaxub) X(PMINSW, pminsw)			\
	X(PMINUB, pminub) X(PSADBW, psadbw)					\
	X(PAND, pand) X(PANDN, pandn) X(POR, por) X(PXOR, pxor)			\
	X(PCMPEQB, pcmpeqb) X(PCMPEQW, pcmpeqw) X(PCMPEQD, pcmpeqd)		\
	X(PCMPGTB, pcmpgtb) X(PCMPGTW, pcmpgtw) X(PCMPGTD, pcmpgtd)		\
	X(PSLLW, psllw) X(PSLLD, pslld) X(PSLLQ, psllq)				\
	X(PSRLW, psrlw) X(PSRLD, psrld) X(PSRLQ, psrlq)				\
	X(PSRAW, psraw) X(PSRAD, psrad)						\
	X(PABSB, pabsb) X(PABSW, pabsw) X(PABSD, pabsd)				\
	X(PSIGNB, psignb) X(PSIGNW, psignw) X(PSIGND, psignd)			\
	X(PMULHRSW, pmulhrsw) X(PMADDUBSW, pmaddubsw)

/* Integer, both; the MMX form works on the pair (destination, source) as on one XMM register. */
#define SIMD_PAIR(X)								\
	X(PACKSSWB, packsswb) X(PACKSSDW, packssdw) X(PACKUSWB, packuswb)	\
	X(PHADDW, phaddw) X(PHADDD, phaddd) X(PHADDSW, phaddsw)			\
	X(PHSUBW, phsubw) X(PHSUBD, phsubd) X(PHSUBSW, phsubsw)

/* Interleaving: low half (MMX memory operand of 4 bytes); high half with the low one's name. */
#define SIMD_UNPCKL(X)								\
	X(PUNPCKLBW, punpcklbw) X(PUNPCKLWD, punpcklwd) X(PUNPCKLDQ, punpckldq)
#define SIMD_UNPCKH(X)								\
	X(PUNPCKHBW, punpckhbw, punpcklbw) X(PUNPCKHWD, punpckhwd, punpcklwd)	\
	X(PUNPCKHDQ, punpckhdq, punpckldq)

/* XMM only, no floating-point exceptions; size of the memory operand. */
#define SIMD_XMM_ONLY(X)							\
	X(PSHUFB, pshufb, 16)							\
	X(PUNPCKLQDQ, punpcklqdq, 16) X(PUNPCKHQDQ, punpckhqdq, 16)		\
	X(PACKUSDW, packusdw, 16) X(PMULDQ, pmuldq, 16) X(PMULLD, pmulld, 16)	\
	X(PCMPEQQ, pcmpeqq, 16) X(PCMPGTQ, pcmpgtq, 16)				\
	X(PMINSB, pminsb, 16) X(PMINSD, pminsd, 16) X(PMINUW, pminuw, 16)	\
	X(PMINUD, pminud, 16) X(PMAXSB, pmaxsb, 16) X(PMAXSD, pmaxsd, 16)	\
	X(PMAXUW, pmaxuw, 16) X(PMAXUD, pmaxud, 16)				\
	X(PHMINPOSUW, phminposuw, 16)						\
	X(PMOVSXBW, pmovsxbw, 8) X(PMOVSXBD, pmovsxbd, 4)			\
	X(PMOVSXBQ, pmovsxbq, 2) X(PMOVSXWD, pmovsxwd, 8)			\
	X(PMOVSXWQ, pmovsxwq, 4) X(PMOVSXDQ, pmovsxdq, 8)			\
	X(PMOVZXBW, pmovzxbw, 8) X(PMOVZXBD, pmovzxbd, 4)			\
	X(PMOVZXBQ, pmovzxbq, 2) X(PMOVZXWD, pmovzxwd, 8)			\
	X(PMOVZXWQ, pmovzxwq, 4) X(PMOVZXDQ, pmovzxdq, 8)			\
	X(AESENC, aesenc, 16) X(AESENCLAST, aesenclast, 16)			\
	X(AESDEC, aesdec, 16) X(AESDECLAST, aesdeclast, 16)			\
	X(AESIMC, aesimc, 16)							\
	X(ANDPS, andps, 16) X(ANDPD, andpd, 16) X(ANDNPS, andnps, 16)		\
	X(ANDNPD, andnpd, 16) X(ORPS, orps, 16) X(ORPD, orpd, 16)		\
	X(XORPS, xorps, 16) X(XORPD, xorpd, 16)					\
	X(UNPCKLPS, unpcklps, 16) X(UNPCKHPS, unpckhps, 16)			\
	X(UNPCKLPD, unpcklpd, 16) X(UNPCKHPD, unpckhpd, 16)			\
	X(RCPPS, rcpps, 16) X(RCPSS, rcpss, 4)					\
	X(RSQRTPS, rsqrtps, 16) X(RSQRTSS, rsqrtss, 4)				\
	X(MOVDDUP, movddup, 8) X(MOVSHDUP, movshdup, 16)			\
	X(MOVSLDUP, movsldup, 16) X(CVTDQ2PD, cvtdq2pd, 8)

/* Floating point: may set MXCSR flags. Size of memory operand, elements of the result. */
#define SIMD_FP_ARITH(X)							\
	X(ADDPS, addps, 16, PS) X(ADDPD, addpd, 16, PD)				\
	X(ADDSS, addss, 4, SS) X(ADDSD, addsd, 8, SD)				\
	X(SUBPS, subps, 16, PS) X(SUBPD, subpd, 16, PD)				\
	X(SUBSS, subss, 4, SS) X(SUBSD, subsd, 8, SD)				\
	X(MULPS, mulps, 16, PS) X(MULPD, mulpd, 16, PD)				\
	X(MULSS, mulss, 4, SS) X(MULSD, mulsd, 8, SD)				\
	X(DIVPS, divps, 16, PS) X(DIVPD, divpd, 16, PD)				\
	X(DIVSS, divss, 4, SS) X(DIVSD, divsd, 8, SD)				\
	X(MINPS, minps, 16, NONE) X(MINPD, minpd, 16, NONE)			\
	X(MINSS, minss, 4, NONE) X(MINSD, minsd, 8, NONE)			\
	X(MAXPS, maxps, 16, NONE) X(MAXPD, maxpd, 16, NONE)			\
	X(MAXSS, maxss, 4, NONE) X(MAXSD, maxsd, 8, NONE)			\
	X(SQRTPS, sqrtps, 16, NONE) X(SQRTPD, sqrtpd, 16, NONE)			\
	X(SQRTSS, sqrtss, 4, NONE) X(SQRTSD, sqrtsd, 8, NONE)			\
	X(HADDPS, haddps, 16, PS) X(HADDPD, haddpd, 16, PD)			\
	X(HSUBPS, hsubps, 16, PS) X(HSUBPD, hsubpd, 16, PD)			\
	X(ADDSUBPS, addsubps, 16, PS) X(ADDSUBPD, addsubpd, 16, PD)		\
	X(CVTDQ2PS, cvtdq2ps, 16, NONE) X(CVTPS2DQ, cvtps2dq, 16, NONE)		\
	X(CVTTPS2DQ, cvttps2dq, 16, NONE) X(CVTPD2DQ, cvtpd2dq, 16, NONE)	\
	X(CVTTPD2DQ, cvttpd2dq, 16, NONE) X(CVTPS2PD, cvtps2pd, 8, NONE)	\
	X(CVTPD2PS, cvtpd2ps, 16, PS2) X(CVTSS2SD, cvtss2sd, 4, NONE)		\
	X(CVTSD2SS, cvtsd2ss, 8, SS)

/* Compare into the flags: size, floating-point destination. */
#define SIMD_FLAGS(X)								\
	X(PTEST, ptest, 16, FPD_NONE)						\
	X(COMISS, comiss, 4, FPD_CC) X(COMISD, comisd, 8, FPD_CC)		\
	X(UCOMISS, ucomiss, 4, FPD_CC) X(UCOMISD, ucomisd, 8, FPD_CC)

/* With XMM0 as the implicit mask. */
#define SIMD_BLENDV(X)								\
	X(PBLENDVB, pblendvb) X(BLENDVPS, blendvps) X(BLENDVPD, blendvpd)

#define SIMD_DECLARE_RR_RM(M, name, ...) op_fn sse_##name##_rr, sse_##name##_rm;
#define SIMD_DECLARE_MMX(M, name, ...) op_fn mmx_##name##_rr, mmx_##name##_rm;

#endif
