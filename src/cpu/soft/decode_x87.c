/*
 * Decoding of x87 by opcode bytes D8-DF and 9B (SDM vol. 2, appendix A.5), the
 * undocumented aliases that Zydis knows included.
 */
#include "cpu/soft/exec_x87.h"

struct esc {
	unsigned opcode, reg, rm;	/* 0-7 for D8-DF, ModRM.reg, ModRM.rm */
};

static op_fn *arith_mem(const struct esc *e, struct soft_op *op)
{
	static op_fn *const *const tables[4] = {
		x87_arith_m32, x87_arith_i32, x87_arith_m64, x87_arith_i16,
	};

	op->size = e->reg == 3;		/* FCOMP, FICOMP */
	return tables[e->opcode >> 1][e->reg];
}

/* D9, DB, DD, DF with a memory operand: [opcode >> 1][reg], and how often they pop. */
struct mem_form {
	op_fn *fn;
	uint8_t pops;
};

static const struct mem_form mem_forms[4][8] = {
	{ { x87_fld_m32, 0 }, { NULL, 0 }, { x87_fst_m32, 0 }, { x87_fst_m32, 1 },
	  { x87_fldenv, 0 }, { x87_fldcw, 0 }, { x87_fnstenv, 0 }, { x87_fnstcw, 0 } },
	{ { x87_fild_m32, 0 }, { x87_fisttp_m32, 1 }, { x87_fist_m32, 0 }, { x87_fist_m32, 1 },
	  { NULL, 0 }, { x87_fld_m80, 0 }, { NULL, 0 }, { x87_fstp_m80, 1 } },
	{ { x87_fld_m64, 0 }, { x87_fisttp_m64, 1 }, { x87_fst_m64, 0 }, { x87_fst_m64, 1 },
	  { x87_frstor, 0 }, { NULL, 0 }, { x87_fnsave, 0 }, { x87_fnstsw_m, 0 } },
	{ { x87_fild_m16, 0 }, { x87_fisttp_m16, 1 }, { x87_fist_m16, 0 }, { x87_fist_m16, 1 },
	  { x87_fbld, 0 }, { x87_fild_m64, 0 }, { x87_fbstp, 1 }, { x87_fistp_m64, 1 } },
};

/* Environments come in two lengths, which Zydis has worked out. */
static unsigned image_form(const struct soft_decode *d)
{
	unsigned bytes = d->op[d->mem].size / 8;

	return bytes == 14 || bytes == 94 ? 2 : 4;
}

static op_fn *decode_mem(const struct soft_decode *d, const struct esc *e, struct soft_op *op)
{
	const struct mem_form *m = &mem_forms[e->opcode >> 1][e->reg];

	if (!(e->opcode & 1))
		return arith_mem(e, op);
	op->size = m->pops;
	if (m->fn == x87_fldenv || m->fn == x87_fnstenv || m->fn == x87_frstor ||
	    m->fn == x87_fnsave)
		op->size = (uint8_t)image_form(d);
	return m->fn;
}

/* D9 E0-FF */
static op_fn *decode_d9(const struct esc *e)
{
	static op_fn *const fns[4][8] = {
		{ x87_fchs, x87_fabs, NULL, NULL, x87_ftst, x87_fxam, NULL, NULL },
		{ NULL },
		{ x87_f2xm1, x87_fyl2x, x87_fptan, x87_fpatan,
		  x87_fxtract, x87_fprem1, x87_fdecstp, x87_fincstp },
		{ x87_fprem, x87_fyl2xp1, x87_fsqrt, x87_fsincos,
		  x87_frndint, x87_fscale, x87_fsin, x87_fcos },
	};

	if (e->reg == 5)
		return e->rm < 7 ? x87_constant[e->rm] : NULL;
	return fns[e->reg - 4][e->rm];
}

/* DB E0-E4 */
static op_fn *decode_db_e0(unsigned rm)
{
	static op_fn *const fns[8] = {
		x87_nothing, x87_nothing, x87_fnclex, x87_fninit, x87_nothing,
	};

	return fns[rm];
}

/* DC and DE: the destination is ST(i); SUB and SUBR, DIV and DIVR have changed places. */
static op_fn *decode_reversed(const struct esc *e, struct soft_op *op)
{
	unsigned which = e->reg >= 4 ? e->reg ^ 1 : e->reg;

	if (e->opcode == 6 && e->reg == 3) {	/* FCOMPP */
		op->size = 2;
		return e->rm == 1 ? x87_arith_st[2] : NULL;
	}
	if (e->reg == 2 || e->reg == 3) {	/* aliases of FCOM and FCOMP */
		op->size = e->opcode == 6 || e->reg == 3;
		return x87_arith_st[2];
	}
	op->dst = (uint8_t)e->rm;
	op->src = 0;
	op->size = e->opcode == 6;
	return x87_arith_st[which];
}

static op_fn *decode_dd(const struct esc *e, struct soft_op *op)
{
	op->size = e->reg == 3 || e->reg == 5;
	switch (e->reg) {
	case 0: return x87_ffree;
	case 1: return x87_fxch;
	case 2:
	case 3: return x87_fst_st;
	case 4:
	case 5: return x87_fucom;
	default: return NULL;
	}
}

static op_fn *decode_df(const struct esc *e, struct soft_op *op)
{
	op->size = 1;
	switch (e->reg) {
	case 0: return x87_ffree;	/* FFREEP */
	case 1: op->size = 0; return x87_fxch;
	case 2:
	case 3: return x87_fst_st;
	case 4: return e->rm == 0 ? x87_fnstsw_ax : NULL;
	case 5: return x87_fucomi;
	case 6: return x87_fcomi;
	default: return NULL;
	}
}

static op_fn *decode_reg(const struct esc *e, struct soft_op *op)
{
	op->dst = 0;
	op->src = (uint8_t)e->rm;
	op->size = 0;
	switch (e->opcode) {
	case 0:
		op->size = e->reg == 3;
		return x87_arith_st[e->reg == 3 ? 2 : e->reg];
	case 1:
		switch (e->reg) {
		case 0: return x87_fld_st;
		case 1: return x87_fxch;
		case 2: return e->rm == 0 ? x87_fnop : NULL;
		case 3: op->size = 1; return x87_fstpnce;
		default: return decode_d9(e);
		}
	case 2:
		if (e->reg == 5 && e->rm == 1) {
			op->size = 2;
			return x87_fucom;
		}
		return e->reg < 4 ? x87_fcmov[e->reg] : NULL;
	case 3:
		switch (e->reg) {
		case 4: return decode_db_e0(e->rm);
		case 5: return x87_fucomi;
		case 6: return x87_fcomi;
		case 7: return NULL;
		default: return x87_fcmov[4 + e->reg];
		}
	case 5:
		return decode_dd(e, op);
	case 7:
		return decode_df(e, op);
	default:
		return decode_reversed(e, op);
	}
}

bool soft_decode_x87(struct soft_decode *d, struct soft_op *op)
{
	const ZydisDecodedInstruction *in = d->insn;
	struct esc e = { in->opcode & 7u, in->raw.modrm.reg, in->raw.modrm.rm };

	if (in->encoding != ZYDIS_INSTRUCTION_ENCODING_LEGACY ||
	    in->opcode_map != ZYDIS_OPCODE_MAP_DEFAULT)
		return false;
	if (in->opcode == 0x9b) {
		op->fn = x87_fwait;
		return true;
	}
	if (in->opcode < 0xd8 || in->opcode > 0xdf)
		return false;
	op->imm = (uint64_t)e.opcode << 8 | (unsigned)in->raw.modrm.mod << 6 | e.reg << 3 | e.rm;
	op->fn = in->raw.modrm.mod == 3 ? decode_reg(&e, op) : decode_mem(d, &e, op);
	if (!op->fn)
		return false;
	if (d->mode & MODE_NOFPU) {
		op->fn = x87_unavailable;
		d->raises = true;
	}
	return true;
}
