/* Handlers of the instructions that decode_simd_special.c places. */
#ifndef SKEP_CPU_SOFT_SIMD_SPECIAL_H
#define SKEP_CPU_SOFT_SIMD_SPECIAL_H

#include "cpu/soft/soft.h"

/* exec_sse_mov.c */
op_fn sse_mov_rr, sse_load_a, sse_store_a, sse_load_u, sse_store_u;
op_fn sse_movss_rr, sse_movsd_rr, sse_load4z, sse_load8z, sse_store4, sse_store8;
op_fn sse_movlp_load, sse_movhp_load, sse_store8_high, sse_movhlps_rr, sse_movlhps_rr;
op_fn sse_movq_rr, sse_from_gpr32, sse_from_gpr64, sse_to_gpr32, sse_to_gpr64;
op_fn sse_movmskps, sse_movmskpd, sse_pmovmskb;
op_fn sse_pextrb_r, sse_pextrw_r, sse_pextrd_r, sse_pextrq_r;
op_fn sse_pextrb_m, sse_pextrw_m, sse_pextrd_m, sse_pextrq_m;
op_fn sse_pinsrb_r, sse_pinsrw_r, sse_pinsrd_r, sse_pinsrq_r;
op_fn sse_pinsrb_m, sse_pinsrw_m, sse_pinsrd_m, sse_pinsrq_m;
op_fn sse_insertps_r, sse_insertps_m, sse_maskmovdqu, sse_movnti32, sse_movnti64;

/* exec_sse_fp.c */
extern op_fn *const sse_cmpps_fns[8][2], *const sse_cmppd_fns[8][2];
extern op_fn *const sse_cmpss_fns[8][2], *const sse_cmpsd_fns[8][2];
op_fn sse_cvtsi2ss32_r, sse_cvtsi2ss64_r, sse_cvtsi2sd32_r, sse_cvtsi2sd64_r;
op_fn sse_cvtsi2ss32_m, sse_cvtsi2ss64_m, sse_cvtsi2sd32_m, sse_cvtsi2sd64_m;
op_fn sse_cvtss2si32_rr, sse_cvtss2si64_rr, sse_cvtss2si32_rm, sse_cvtss2si64_rm;
op_fn sse_cvttss2si32_rr, sse_cvttss2si64_rr, sse_cvttss2si32_rm, sse_cvttss2si64_rm;
op_fn sse_cvtsd2si32_rr, sse_cvtsd2si64_rr, sse_cvtsd2si32_rm, sse_cvtsd2si64_rm;
op_fn sse_cvttsd2si32_rr, sse_cvttsd2si64_rr, sse_cvttsd2si32_rm, sse_cvttsd2si64_rm;

/* exec_sse_imm.c: imm is a pointer to byte masks, a shift count or the immediate. */
op_fn sse_permute_rr, sse_permute_rm, sse_permute2_rr, sse_permute2_rm;
op_fn sse_select_rr, sse_select_rm;
op_fn sse_psllw_i, sse_pslld_i, sse_psllq_i, sse_psrlw_i, sse_psrld_i, sse_psrlq_i;
op_fn sse_psraw_i, sse_psrad_i;
op_fn sse_roundps_rr, sse_roundps_rm, sse_roundpd_rr, sse_roundpd_rm;
op_fn sse_roundss_rr, sse_roundss_rm, sse_roundsd_rr, sse_roundsd_rm;
op_fn sse_dpps_rr, sse_dpps_rm, sse_dppd_rr, sse_dppd_rm;
op_fn sse_mpsadbw_rr, sse_mpsadbw_rm, sse_pclmulqdq_rr, sse_pclmulqdq_rm;
op_fn sse_aeskeygenassist_rr, sse_aeskeygenassist_rm;

/* exec_sse_str.c */
op_fn sse_pcmpestri_rr, sse_pcmpestri_rm, sse_pcmpestrm_rr, sse_pcmpestrm_rm;
op_fn sse_pcmpistri_rr, sse_pcmpistri_rm, sse_pcmpistrm_rr, sse_pcmpistrm_rm;

/* simd_tables.c: byte masks for PSHUFB, and word masks for blending. */
extern const uint8_t simd_pshufd[256][16], simd_pshuflw[256][16], simd_pshufhw[256][16];
extern const uint8_t simd_shufps[256][2][16], simd_blendw[256][16];
/* 32 times "zero", 0-15, 32 times "zero": a window on it shifts by bytes. */
extern const uint8_t simd_slide[80];

/* exec_mmx.c */
op_fn mmx_mov_rr, mmx_mov_rm, mmx_store8, mmx_from_gpr32, mmx_from_gpr64, mmx_load4;
op_fn mmx_to_gpr32, mmx_to_gpr64, mmx_store4, mmx_emms;
op_fn mmx_movdq2q, mmx_movq2dq, mmx_pmovmskb, mmx_pshufw_rr, mmx_pshufw_rm;
op_fn mmx_palignr_rr, mmx_palignr_rm, mmx_pextrw, mmx_pinsrw_r, mmx_pinsrw_m, mmx_maskmovq;
op_fn mmx_psllw_i, mmx_pslld_i, mmx_psllq_i, mmx_psrlw_i, mmx_psrld_i, mmx_psrlq_i;
op_fn mmx_psraw_i, mmx_psrad_i;
op_fn mmx_cvtpi2ps_rr, mmx_cvtpi2ps_rm, mmx_cvtpi2pd_rr, mmx_cvtpi2pd_rm;
op_fn mmx_cvtps2pi_rr, mmx_cvtps2pi_rm, mmx_cvttps2pi_rr, mmx_cvttps2pi_rm;
op_fn mmx_cvtpd2pi_rr, mmx_cvtpd2pi_rm, mmx_cvttpd2pi_rr, mmx_cvttpd2pi_rm;

/* fxstate.c */
op_fn op_fxsave, op_fxrstor, op_xsave, op_xsaveopt, op_xsavec, op_xrstor;
op_fn op_xgetbv, op_xsetbv, op_ldmxcsr, op_stmxcsr;

#endif
