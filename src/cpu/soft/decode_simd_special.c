/*
 * Decoding of the SSE and MMX instructions that are more than two operands and
 * a host instruction: moves, immediates, general registers, conversions between register files.
 */
#include "cpu/soft/simd.h"
#include "cpu/soft/simd_special.h"

static uint64_t imm8(const struct soft_decode *d)
{
	unsigned i;

	for (i = 0; i < d->insn->operand_count; i++)
		if (d->op[i].type == ZYDIS_OPERAND_TYPE_IMMEDIATE)
			return d->op[i].imm.value.u & 0xff;
	return 0;
}

static uint8_t slot(const ZydisDecodedOperand *o)
{
	return soft_slot_of(o->reg.value);
}

static bool is_gpr(const ZydisDecodedOperand *o)
{
	return o->type == ZYDIS_OPERAND_TYPE_REGISTER && !simd_is_mm(o) && !simd_is_xmm(o);
}

/* An XMM or MM destination, and a source of the same kind or memory. */
static void dst_src(struct soft_decode *d, struct soft_op *op)
{
	bool mm = simd_is_mm(&d->op[0]);

	op->dst = mm ? simd_mm(&d->op[0]) : simd_xmm(&d->op[0]);
	op->src = !soft_is_reg(d, 1) ? 0 :
		  simd_is_mm(&d->op[1]) ? simd_mm(&d->op[1]) : simd_xmm(&d->op[1]);
}

static bool pick(struct soft_decode *d, struct soft_op *op, op_fn *rr, op_fn *rm)
{
	dst_src(d, op);
	op->fn = soft_is_mem(d, 1) ? rm : rr;
	return true;
}

/* ---- Moves ------------------------------------------------------------ */

/* Whole registers, aligned or not. */
static bool move_whole(struct soft_decode *d, struct soft_op *op, bool aligned)
{
	if (soft_is_mem(d, 0)) {
		op->src = simd_xmm(&d->op[1]);
		op->fn = aligned ? sse_store_a : sse_store_u;
		return true;
	}
	return pick(d, op, sse_mov_rr, aligned ? sse_load_a : sse_load_u);
}

/* To or from memory; between registers. */
static bool move_part(struct soft_decode *d, struct soft_op *op, op_fn *rr, op_fn *load,
		      op_fn *store)
{
	if (soft_is_mem(d, 0)) {
		op->src = simd_xmm(&d->op[1]);
		op->fn = store;
		return true;
	}
	return pick(d, op, rr, load);
}

/* MOVD and MOVQ between XMM or MM, general registers and memory. */
static bool move_dq(struct soft_decode *d, struct soft_op *op)
{
	const ZydisDecodedOperand *a = &d->op[0], *b = &d->op[1];
	bool mm = simd_is_mm(a) || simd_is_mm(b);
	bool wide = d->insn->mnemonic == ZYDIS_MNEMONIC_MOVQ;

	if (soft_is_mem(d, 0)) {
		op->src = mm ? simd_mm(b) : simd_xmm(b);
		op->fn = mm ? (wide ? mmx_store8 : mmx_store4) : (wide ? sse_store8 : sse_store4);
	} else if (is_gpr(a)) {
		op->dst = slot(a);
		op->src = mm ? simd_mm(b) : simd_xmm(b);
		op->fn = mm ? (wide ? mmx_to_gpr64 : mmx_to_gpr32) :
			      (wide ? sse_to_gpr64 : sse_to_gpr32);
	} else if (is_gpr(b)) {
		op->dst = mm ? simd_mm(a) : simd_xmm(a);
		op->src = slot(b);
		op->fn = mm ? (wide ? mmx_from_gpr64 : mmx_from_gpr32) :
			      (wide ? sse_from_gpr64 : sse_from_gpr32);
	} else if (mm) {
		pick(d, op, mmx_mov_rr, wide ? mmx_mov_rm : mmx_load4);
	} else {
		pick(d, op, sse_movq_rr, wide ? sse_load8z : sse_load4z);
	}
	return true;
}

static bool mask_to_gpr(struct soft_decode *d, struct soft_op *op, op_fn *fn, op_fn *mm)
{
	op->dst = slot(&d->op[0]);
	op->src = simd_is_mm(&d->op[1]) ? simd_mm(&d->op[1]) : simd_xmm(&d->op[1]);
	op->fn = simd_is_mm(&d->op[1]) ? mm : fn;
	return true;
}

bool simd_mask_move(struct soft_decode *d, struct soft_op *op, op_fn *fn)
{
	unsigned i;

	dst_src(d, op);
	op->seg = SEG_DS;
	for (i = 0; i < d->insn->operand_count; i++)
		if (d->op[i].type == ZYDIS_OPERAND_TYPE_MEMORY)
			op->seg = soft_reg_number(d->op[i].mem.segment);
	/* Address size: these have no explicit memory operand. */
	op->flags &= (uint8_t)~(OPF_ADDR32 | OPF_ADDR16);
	if (d->insn->address_width == 32)
		op->flags |= OPF_ADDR32;
	else if (d->insn->address_width == 16)
		op->flags |= OPF_ADDR16;
	op->fn = fn;
	return true;
}

static bool decode_move(struct soft_decode *d, struct soft_op *op)
{
	switch (d->insn->mnemonic) {
	case ZYDIS_MNEMONIC_MOVAPS:
	case ZYDIS_MNEMONIC_MOVAPD:
	case ZYDIS_MNEMONIC_MOVDQA:
	case ZYDIS_MNEMONIC_MOVNTPS:
	case ZYDIS_MNEMONIC_MOVNTPD:
	case ZYDIS_MNEMONIC_MOVNTDQ:
	case ZYDIS_MNEMONIC_MOVNTDQA:
		return move_whole(d, op, true);
	case ZYDIS_MNEMONIC_MOVUPS:
	case ZYDIS_MNEMONIC_MOVUPD:
	case ZYDIS_MNEMONIC_MOVDQU:
	case ZYDIS_MNEMONIC_LDDQU:
		return move_whole(d, op, false);
	case ZYDIS_MNEMONIC_MOVSS:
		return move_part(d, op, sse_movss_rr, sse_load4z, sse_store4);
	case ZYDIS_MNEMONIC_MOVSD:
		return move_part(d, op, sse_movsd_rr, sse_load8z, sse_store8);
	case ZYDIS_MNEMONIC_MOVLPS:
	case ZYDIS_MNEMONIC_MOVLPD:
		return move_part(d, op, NULL, sse_movlp_load, sse_store8);
	case ZYDIS_MNEMONIC_MOVHPS:
	case ZYDIS_MNEMONIC_MOVHPD:
		return move_part(d, op, NULL, sse_movhp_load, sse_store8_high);
	case ZYDIS_MNEMONIC_MOVHLPS:
		return pick(d, op, sse_movhlps_rr, NULL);
	case ZYDIS_MNEMONIC_MOVLHPS:
		return pick(d, op, sse_movlhps_rr, NULL);
	case ZYDIS_MNEMONIC_MOVD:
	case ZYDIS_MNEMONIC_MOVQ:
		return move_dq(d, op);
	case ZYDIS_MNEMONIC_MOVDQ2Q:
		return pick(d, op, mmx_movdq2q, NULL);
	case ZYDIS_MNEMONIC_MOVQ2DQ:
		return pick(d, op, mmx_movq2dq, NULL);
	case ZYDIS_MNEMONIC_MOVNTQ:
		op->src = simd_mm(&d->op[1]);
		op->fn = mmx_store8;
		return true;
	case ZYDIS_MNEMONIC_MOVMSKPS:
		return mask_to_gpr(d, op, sse_movmskps, NULL);
	case ZYDIS_MNEMONIC_MOVMSKPD:
		return mask_to_gpr(d, op, sse_movmskpd, NULL);
	case ZYDIS_MNEMONIC_PMOVMSKB:
		return mask_to_gpr(d, op, sse_pmovmskb, mmx_pmovmskb);
	case ZYDIS_MNEMONIC_MASKMOVDQU:
		return simd_mask_move(d, op, sse_maskmovdqu);
	case ZYDIS_MNEMONIC_MASKMOVQ:
		return simd_mask_move(d, op, mmx_maskmovq);
	default:
		return false;
	}
}

/* ---- Elements ----------------------------------------------------------- */

static bool extract(struct soft_decode *d, struct soft_op *op, op_fn *r, op_fn *m,
		    unsigned count)
{
	bool mm = simd_is_mm(&d->op[1]);

	op->src = mm ? simd_mm(&d->op[1]) : simd_xmm(&d->op[1]);
	op->imm = imm8(d) & ((mm ? 4 : count) - 1);
	if (soft_is_mem(d, 0)) {
		op->fn = m;
		return true;
	}
	op->dst = slot(&d->op[0]);
	op->fn = mm ? mmx_pextrw : r;
	return true;
}

static bool insert(struct soft_decode *d, struct soft_op *op, op_fn *r, op_fn *m,
		   unsigned count)
{
	bool mm = simd_is_mm(&d->op[0]), mem = soft_is_mem(d, 1);

	op->dst = mm ? simd_mm(&d->op[0]) : simd_xmm(&d->op[0]);
	op->imm = imm8(d) & ((mm ? 4 : count) - 1);
	if (!mem)
		op->src = slot(&d->op[1]);
	if (mm)
		op->fn = mem ? mmx_pinsrw_m : mmx_pinsrw_r;
	else
		op->fn = mem ? m : r;
	return true;
}

static bool decode_element(struct soft_decode *d, struct soft_op *op)
{
	switch (d->insn->mnemonic) {
	case ZYDIS_MNEMONIC_PEXTRB:
		return extract(d, op, sse_pextrb_r, sse_pextrb_m, 16);
	case ZYDIS_MNEMONIC_PEXTRW:
		return extract(d, op, sse_pextrw_r, sse_pextrw_m, 8);
	case ZYDIS_MNEMONIC_PEXTRD:
	case ZYDIS_MNEMONIC_EXTRACTPS:
		return extract(d, op, sse_pextrd_r, sse_pextrd_m, 4);
	case ZYDIS_MNEMONIC_PEXTRQ:
		return extract(d, op, sse_pextrq_r, sse_pextrq_m, 2);
	case ZYDIS_MNEMONIC_PINSRB:
		return insert(d, op, sse_pinsrb_r, sse_pinsrb_m, 16);
	case ZYDIS_MNEMONIC_PINSRW:
		return insert(d, op, sse_pinsrw_r, sse_pinsrw_m, 8);
	case ZYDIS_MNEMONIC_PINSRD:
		return insert(d, op, sse_pinsrd_r, sse_pinsrd_m, 4);
	case ZYDIS_MNEMONIC_PINSRQ:
		return insert(d, op, sse_pinsrq_r, sse_pinsrq_m, 2);
	case ZYDIS_MNEMONIC_INSERTPS:
		op->imm = imm8(d);
		return pick(d, op, sse_insertps_r, sse_insertps_m);
	default:
		return false;
	}
}

/* ---- Shuffles, blends, shifts: the immediate becomes masks ------------------ */

static bool permute(struct soft_decode *d, struct soft_op *op, const uint8_t *mask)
{
	op->imm = (uintptr_t)mask;
	return pick(d, op, sse_permute_rr, sse_permute_rm);
}

static bool permute2(struct soft_decode *d, struct soft_op *op, const uint8_t *masks)
{
	op->imm = (uintptr_t)masks;
	return pick(d, op, sse_permute2_rr, sse_permute2_rm);
}

static bool blend(struct soft_decode *d, struct soft_op *op, unsigned words)
{
	op->imm = (uintptr_t)simd_blendw[words];
	return pick(d, op, sse_select_rr, sse_select_rm);
}

/* Each of `count` bits of the immediate `n` times over. */
static unsigned spread(unsigned imm, unsigned count, unsigned n)
{
	unsigned i, out = 0;

	for (i = 0; i < count; i++)
		if (imm >> i & 1)
			out |= ((1u << n) - 1) << i * n;
	return out;
}

/* Shift of a register by bytes, left or right. */
static bool byte_shift(struct soft_decode *d, struct soft_op *op, bool left)
{
	int n = (int)MIN(imm8(d), 16u);

	op->imm = (uintptr_t)(simd_slide + 32 + (left ? -n : n));
	op->dst = op->src = simd_xmm(&d->op[0]);
	op->fn = sse_permute_rr;
	return true;
}

static bool decode_shuffle(struct soft_decode *d, struct soft_op *op)
{
	unsigned imm = (unsigned)imm8(d);

	switch (d->insn->mnemonic) {
	case ZYDIS_MNEMONIC_PSHUFD:
		return permute(d, op, simd_pshufd[imm]);
	case ZYDIS_MNEMONIC_PSHUFLW:
		return permute(d, op, simd_pshuflw[imm]);
	case ZYDIS_MNEMONIC_PSHUFHW:
		return permute(d, op, simd_pshufhw[imm]);
	case ZYDIS_MNEMONIC_PSHUFW:
		op->imm = (uintptr_t)simd_pshuflw[imm];
		return pick(d, op, mmx_pshufw_rr, mmx_pshufw_rm);
	case ZYDIS_MNEMONIC_PSLLDQ:
		return byte_shift(d, op, true);
	case ZYDIS_MNEMONIC_PSRLDQ:
		return byte_shift(d, op, false);
	case ZYDIS_MNEMONIC_SHUFPS:
		return permute2(d, op, simd_shufps[imm][0]);
	case ZYDIS_MNEMONIC_SHUFPD:
		/* The same in pairs of elements: 0 is 1:0, 1 is 3:2. */
		return permute2(d, op, simd_shufps[(imm & 1 ? 0x0e : 0x04) |
						   (imm & 2 ? 0xe0 : 0x40)][0]);
	case ZYDIS_MNEMONIC_PALIGNR:
		if (simd_is_mm(&d->op[0])) {
			op->imm = imm;
			return pick(d, op, mmx_palignr_rr, mmx_palignr_rm);
		}
		return permute2(d, op, simd_slide + 16 + MIN(imm, 32u));
	case ZYDIS_MNEMONIC_PBLENDW:
		return blend(d, op, imm);
	case ZYDIS_MNEMONIC_BLENDPS:
		return blend(d, op, spread(imm, 4, 2));
	case ZYDIS_MNEMONIC_BLENDPD:
		return blend(d, op, spread(imm, 2, 4));
	default:
		return false;
	}
}

static bool shift(struct soft_decode *d, struct soft_op *op, op_fn *xmm, op_fn *mm)
{
	op->imm = imm8(d);
	op->dst = simd_is_mm(&d->op[0]) ? simd_mm(&d->op[0]) : simd_xmm(&d->op[0]);
	op->fn = simd_is_mm(&d->op[0]) ? mm : xmm;
	return true;
}

static bool decode_shift(struct soft_decode *d, struct soft_op *op)
{
	if (d->op[1].type != ZYDIS_OPERAND_TYPE_IMMEDIATE)
		return false;
	switch (d->insn->mnemonic) {
	case ZYDIS_MNEMONIC_PSLLW:
		return shift(d, op, sse_psllw_i, mmx_psllw_i);
	case ZYDIS_MNEMONIC_PSLLD:
		return shift(d, op, sse_pslld_i, mmx_pslld_i);
	case ZYDIS_MNEMONIC_PSLLQ:
		return shift(d, op, sse_psllq_i, mmx_psllq_i);
	case ZYDIS_MNEMONIC_PSRLW:
		return shift(d, op, sse_psrlw_i, mmx_psrlw_i);
	case ZYDIS_MNEMONIC_PSRLD:
		return shift(d, op, sse_psrld_i, mmx_psrld_i);
	case ZYDIS_MNEMONIC_PSRLQ:
		return shift(d, op, sse_psrlq_i, mmx_psrlq_i);
	case ZYDIS_MNEMONIC_PSRAW:
		return shift(d, op, sse_psraw_i, mmx_psraw_i);
	case ZYDIS_MNEMONIC_PSRAD:
		return shift(d, op, sse_psrad_i, mmx_psrad_i);
	default:
		return false;
	}
}

/* ---- Other immediates --------------------------------------------------- */

static bool decode_imm(struct soft_decode *d, struct soft_op *op, uint8_t *fp)
{
	op->imm = imm8(d);
	switch (d->insn->mnemonic) {
	case ZYDIS_MNEMONIC_MPSADBW:
		return pick(d, op, sse_mpsadbw_rr, sse_mpsadbw_rm);
	case ZYDIS_MNEMONIC_PCLMULQDQ:
		return pick(d, op, sse_pclmulqdq_rr, sse_pclmulqdq_rm);
	case ZYDIS_MNEMONIC_AESKEYGENASSIST:
		return pick(d, op, sse_aeskeygenassist_rr, sse_aeskeygenassist_rm);
	case ZYDIS_MNEMONIC_ROUNDPS:
		*fp = FP(FPD_XMM, FPE_NONE);
		return pick(d, op, sse_roundps_rr, sse_roundps_rm);
	case ZYDIS_MNEMONIC_ROUNDPD:
		*fp = FP(FPD_XMM, FPE_NONE);
		return pick(d, op, sse_roundpd_rr, sse_roundpd_rm);
	case ZYDIS_MNEMONIC_ROUNDSS:
		*fp = FP(FPD_XMM, FPE_NONE);
		return pick(d, op, sse_roundss_rr, sse_roundss_rm);
	case ZYDIS_MNEMONIC_ROUNDSD:
		*fp = FP(FPD_XMM, FPE_NONE);
		return pick(d, op, sse_roundsd_rr, sse_roundsd_rm);
	case ZYDIS_MNEMONIC_DPPS:
		*fp = FP(FPD_XMM, FPE_PS);
		return pick(d, op, sse_dpps_rr, sse_dpps_rm);
	case ZYDIS_MNEMONIC_DPPD:
		*fp = FP(FPD_XMM, FPE_PD);
		return pick(d, op, sse_dppd_rr, sse_dppd_rm);
	default:
		return false;
	}
}

static bool compare(struct soft_decode *d, struct soft_op *op, op_fn *const (*fns)[2],
		    uint8_t *fp)
{
	op_fn *const *f = fns[imm8(d) & 7];

	*fp = FP(FPD_XMM, FPE_NONE);
	return pick(d, op, f[0], f[1]);
}

static bool decode_compare(struct soft_decode *d, struct soft_op *op, uint8_t *fp)
{
	switch (d->insn->mnemonic) {
	case ZYDIS_MNEMONIC_CMPPS:
		return compare(d, op, sse_cmpps_fns, fp);
	case ZYDIS_MNEMONIC_CMPPD:
		return compare(d, op, sse_cmppd_fns, fp);
	case ZYDIS_MNEMONIC_CMPSS:
		return compare(d, op, sse_cmpss_fns, fp);
	case ZYDIS_MNEMONIC_CMPSD:
		return compare(d, op, sse_cmpsd_fns, fp);
	default:
		return false;
	}
}

static bool decode_string(struct soft_decode *d, struct soft_op *op)
{
	op->imm = imm8(d);
	/* The explicit lengths are in RAX and RDX with REX.W, else in EAX and EDX. */
	op->size = d->insn->attributes & ZYDIS_ATTRIB_HAS_REX && d->insn->raw.rex.W ? 8 : 4;
	switch (d->insn->mnemonic) {
	case ZYDIS_MNEMONIC_PCMPESTRI:
		return pick(d, op, sse_pcmpestri_rr, sse_pcmpestri_rm);
	case ZYDIS_MNEMONIC_PCMPESTRM:
		return pick(d, op, sse_pcmpestrm_rr, sse_pcmpestrm_rm);
	case ZYDIS_MNEMONIC_PCMPISTRI:
		return pick(d, op, sse_pcmpistri_rr, sse_pcmpistri_rm);
	case ZYDIS_MNEMONIC_PCMPISTRM:
		return pick(d, op, sse_pcmpistrm_rr, sse_pcmpistrm_rm);
	default:
		return false;
	}
}

/* ---- Conversions ---------------------------------------------------------- */

static bool to_scalar(struct soft_decode *d, struct soft_op *op, op_fn *const fns[4])
{
	unsigned wide = d->op[1].size == 64;

	op->dst = simd_xmm(&d->op[0]);
	if (soft_is_mem(d, 1)) {
		op->fn = fns[2 + wide];
	} else {
		op->src = slot(&d->op[1]);
		op->fn = fns[wide];
	}
	return true;
}

static bool to_integer(struct soft_decode *d, struct soft_op *op, op_fn *const fns[4])
{
	unsigned wide = d->op[0].size == 64;

	op->dst = slot(&d->op[0]);
	if (soft_is_mem(d, 1)) {
		op->fn = fns[2 + wide];
	} else {
		op->src = simd_xmm(&d->op[1]);
		op->fn = fns[wide];
	}
	return true;
}

#define FOUR(a, b, e, f) ((op_fn *const[4]){ a, b, e, f })

static bool decode_convert(struct soft_decode *d, struct soft_op *op, uint8_t *fp)
{
	switch (d->insn->mnemonic) {
	case ZYDIS_MNEMONIC_CVTSI2SS:
		*fp = FP(FPD_XMM, FPE_NONE);
		return to_scalar(d, op, FOUR(sse_cvtsi2ss32_r, sse_cvtsi2ss64_r,
					     sse_cvtsi2ss32_m, sse_cvtsi2ss64_m));
	case ZYDIS_MNEMONIC_CVTSI2SD:
		*fp = FP(FPD_XMM, FPE_NONE);
		return to_scalar(d, op, FOUR(sse_cvtsi2sd32_r, sse_cvtsi2sd64_r,
					     sse_cvtsi2sd32_m, sse_cvtsi2sd64_m));
	case ZYDIS_MNEMONIC_CVTSS2SI:
		*fp = FP(FPD_GPR, FPE_NONE);
		return to_integer(d, op, FOUR(sse_cvtss2si32_rr, sse_cvtss2si64_rr,
					      sse_cvtss2si32_rm, sse_cvtss2si64_rm));
	case ZYDIS_MNEMONIC_CVTTSS2SI:
		*fp = FP(FPD_GPR, FPE_NONE);
		return to_integer(d, op, FOUR(sse_cvttss2si32_rr, sse_cvttss2si64_rr,
					      sse_cvttss2si32_rm, sse_cvttss2si64_rm));
	case ZYDIS_MNEMONIC_CVTSD2SI:
		*fp = FP(FPD_GPR, FPE_NONE);
		return to_integer(d, op, FOUR(sse_cvtsd2si32_rr, sse_cvtsd2si64_rr,
					      sse_cvtsd2si32_rm, sse_cvtsd2si64_rm));
	case ZYDIS_MNEMONIC_CVTTSD2SI:
		*fp = FP(FPD_GPR, FPE_NONE);
		return to_integer(d, op, FOUR(sse_cvttsd2si32_rr, sse_cvttsd2si64_rr,
					      sse_cvttsd2si32_rm, sse_cvttsd2si64_rm));
	case ZYDIS_MNEMONIC_CVTPI2PS:
		*fp = FP(FPD_XMM, FPE_NONE);
		return pick(d, op, mmx_cvtpi2ps_rr, mmx_cvtpi2ps_rm);
	case ZYDIS_MNEMONIC_CVTPI2PD:
		return pick(d, op, mmx_cvtpi2pd_rr, mmx_cvtpi2pd_rm);
	case ZYDIS_MNEMONIC_CVTPS2PI:
		*fp = FP(FPD_MMX, FPE_NONE);
		return pick(d, op, mmx_cvtps2pi_rr, mmx_cvtps2pi_rm);
	case ZYDIS_MNEMONIC_CVTTPS2PI:
		*fp = FP(FPD_MMX, FPE_NONE);
		return pick(d, op, mmx_cvttps2pi_rr, mmx_cvttps2pi_rm);
	case ZYDIS_MNEMONIC_CVTPD2PI:
		*fp = FP(FPD_MMX, FPE_NONE);
		return pick(d, op, mmx_cvtpd2pi_rr, mmx_cvtpd2pi_rm);
	case ZYDIS_MNEMONIC_CVTTPD2PI:
		*fp = FP(FPD_MMX, FPE_NONE);
		return pick(d, op, mmx_cvttpd2pi_rr, mmx_cvttpd2pi_rm);
	default:
		return false;
	}
}

bool simd_decode_special(struct soft_decode *d, struct soft_op *op, uint8_t *fp)
{
	*fp = 0;
	if (d->insn->mnemonic == ZYDIS_MNEMONIC_EMMS) {
		op->fn = mmx_emms;
		return true;
	}
	return (decode_move(d, op) || decode_element(d, op) || decode_shuffle(d, op) ||
		decode_shift(d, op) || decode_imm(d, op, fp) || decode_compare(d, op, fp) ||
		decode_string(d, op) || decode_convert(d, op, fp)) && op->fn != NULL;
}
