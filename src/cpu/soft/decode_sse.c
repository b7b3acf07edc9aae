/*
 * Decoding of SSE and MMX: the regular instructions from one table, the others
 * in decode_simd_special.c; and what every one of them has in common: the
 * checks of CR0 and CR4, and the wrapper that watches for unmasked exceptions.
 */
#include "cpu/soft/simd.h"
#include "cpu/soft/simd_list.h"
#include "cpu/soft/simd_special.h"

SIMD_BOTH(SIMD_DECLARE_RR_RM)
SIMD_BOTH(SIMD_DECLARE_MMX)
SIMD_PAIR(SIMD_DECLARE_RR_RM)
SIMD_PAIR(SIMD_DECLARE_MMX)
SIMD_UNPCKL(SIMD_DECLARE_RR_RM)
SIMD_UNPCKL(SIMD_DECLARE_MMX)
SIMD_UNPCKH(SIMD_DECLARE_RR_RM)
SIMD_UNPCKH(SIMD_DECLARE_MMX)
SIMD_XMM_ONLY(SIMD_DECLARE_RR_RM)
SIMD_FP_ARITH(SIMD_DECLARE_RR_RM)
SIMD_FLAGS(SIMD_DECLARE_RR_RM)
SIMD_BLENDV(SIMD_DECLARE_RR_RM)
op_fn mmx_pshufb_rr, mmx_pshufb_rm;

#define E_BOTH(M, name, ...) [ZYDIS_MNEMONIC_##M] =				\
	{ sse_##name##_rr, sse_##name##_rm, mmx_##name##_rr, mmx_##name##_rm, 0 },
#define E_XMM(M, name, ...) [ZYDIS_MNEMONIC_##M] =				\
	{ sse_##name##_rr, sse_##name##_rm, NULL, NULL, 0 },
#define E_FP(M, name, size, elem) [ZYDIS_MNEMONIC_##M] =			\
	{ sse_##name##_rr, sse_##name##_rm, NULL, NULL, FP(FPD_XMM, FPE_##elem) },
#define E_FLAGS(M, name, size, dest) [ZYDIS_MNEMONIC_##M] =			\
	{ sse_##name##_rr, sse_##name##_rm, NULL, NULL, FP(dest, FPE_NONE) },

static const struct simd_entry table[ZYDIS_MNEMONIC_MAX_VALUE + 1] = {
	SIMD_BOTH(E_BOTH)
	SIMD_PAIR(E_BOTH)
	SIMD_UNPCKL(E_BOTH)
	SIMD_UNPCKH(E_BOTH)
	SIMD_XMM_ONLY(E_XMM)
	SIMD_FP_ARITH(E_FP)
	SIMD_FLAGS(E_FLAGS)
	SIMD_BLENDV(E_XMM)
};

static bool is_class(const ZydisDecodedOperand *o, ZydisRegisterClass class)
{
	return o->type == ZYDIS_OPERAND_TYPE_REGISTER &&
	       ZydisRegisterGetClass(o->reg.value) == class;
}

bool simd_is_mm(const ZydisDecodedOperand *o)
{
	return is_class(o, ZYDIS_REGCLASS_MMX);
}

bool simd_is_xmm(const ZydisDecodedOperand *o)
{
	return is_class(o, ZYDIS_REGCLASS_XMM);
}

uint8_t simd_xmm(const ZydisDecodedOperand *o)
{
	return (uint8_t)(((unsigned)(o->reg.value - ZYDIS_REGISTER_XMM0) & 15) * 16);
}

uint8_t simd_mm(const ZydisDecodedOperand *o)
{
	return (uint8_t)(((unsigned)(o->reg.value - ZYDIS_REGISTER_MM0) & 7) * 16);
}

/* Two operands, the first a register: by the table.  False: not in it. */
static bool decode_table(struct soft_decode *d, struct soft_op *op, uint8_t *fp)
{
	const struct simd_entry *e = &table[d->insn->mnemonic];
	bool mem = soft_is_mem(d, 1);

	if (d->insn->operand_count < 2 || (!mem && !soft_is_reg(d, 1)))
		return false;
	if (simd_is_mm(&d->op[0])) {
		bool pshufb = d->insn->mnemonic == ZYDIS_MNEMONIC_PSHUFB;

		if (pshufb)
			op->fn = mem ? mmx_pshufb_rm : mmx_pshufb_rr;
		else
			op->fn = mem ? e->mrm : e->mrr;
		op->dst = simd_mm(&d->op[0]);
		op->src = mem ? 0 : simd_mm(&d->op[1]);
	} else if (simd_is_xmm(&d->op[0])) {
		op->fn = mem ? e->rm : e->rr;
		op->dst = simd_xmm(&d->op[0]);
		op->src = mem ? 0 : simd_xmm(&d->op[1]);
	} else {
		return false;
	}
	*fp = e->fp;
	return op->fn != NULL;
}

static bool uses_class(const struct soft_decode *d, bool (*is)(const ZydisDecodedOperand *))
{
	unsigned i;

	for (i = 0; i < d->insn->operand_count; i++)
		if (is(&d->op[i]))
			return true;
	return false;
}

/*
 * SDM vol. 3, 2.5 table 2-2 and 13.1: CR0.EM raises #UD for SSE and MMX, before
 * CR0.TS raises #NM; SSE on XMM registers also wants CR4.OSFXSR.  Which of them
 * it is, the block's mode does not tell.
 */
static OP_FN(no_xmm)
{
	bool ud = (c->s.cr0 & CR0_EM) || !(c->s.cr4 & CR4_OSFXSR);

	soft_raise(c, op, ud ? EXC_UD : EXC_NM);
}

static OP_FN(no_mmx)
{
	soft_raise(c, op, c->s.cr0 & CR0_EM ? EXC_UD : EXC_NM);
}

static void check_available(struct soft_decode *d, struct soft_op *op)
{
	bool xmm = uses_class(d, simd_is_xmm);

	if (!(d->mode & (xmm ? MODE_NOSSE : MODE_NOFPU)))
		return;
	op->fn = xmm ? no_xmm : no_mmx;
	d->raises = true;
	d->before.fn = NULL;
	d->after.fn = NULL;
}

bool soft_decode_sse(struct soft_decode *d, struct soft_op *op)
{
	uint8_t fp = 0;

	if (d->insn->encoding != ZYDIS_INSTRUCTION_ENCODING_LEGACY ||
	    d->insn->opcode_map == ZYDIS_OPCODE_MAP_DEFAULT)
		return false;
	if (simd_decode_state(d, op))
		return true;
	if (d->insn->mnemonic == ZYDIS_MNEMONIC_MOVNTI) {
		op->src = soft_slot_of(d->op[1].reg.value);
		op->fn = d->op[0].size == 64 ? sse_movnti64 : sse_movnti32;
		return true;
	}
	if (!decode_table(d, op, &fp) && !simd_decode_special(d, op, &fp))
		return false;
	if (fp && (d->mode & MODE_FPSTRICT))
		simd_watch(d, op, fp);
	check_available(d, op);
	return true;
}
