/* Chooses the handlers of the integer instructions. */
#include "cpu/soft/decode.h"
#include "cpu/soft/exec.h"

/* 1, 2, 4, 8 bytes -> 0, 1, 2, 3. */
static unsigned size_index(unsigned bytes)
{
	return (unsigned)__builtin_ctz(bytes);
}

static bool is_imm(const struct soft_decode *d, unsigned i)
{
	return i < d->insn->operand_count && d->op[i].type == ZYDIS_OPERAND_TYPE_IMMEDIATE;
}

static uint64_t imm_of(const struct soft_decode *d, unsigned i)
{
	return d->op[i].imm.value.u;
}

static uint8_t reg_of(const struct soft_decode *d, unsigned i)
{
	return soft_slot_of(d->op[i].reg.value);
}

/* Size in bytes of operand i. */
static unsigned size_of(const struct soft_decode *d, unsigned i)
{
	return d->op[i].size / 8;
}

/* ---- Families by operand form ---------------------------------------------- */

static bool decode_alu(struct soft_decode *d, struct soft_op *op, unsigned kind)
{
	unsigned size = size_index(size_of(d, 0));
	bool lock = op->flags & OPF_LOCK;
	unsigned form;

	if (soft_is_mem(d, 0)) {
		if (is_imm(d, 1)) {
			form = lock ? FORM_LOCK_MI : FORM_MI;
			op->imm = imm_of(d, 1);
		} else {
			form = lock ? FORM_LOCK_MR : FORM_MR;
			op->src = reg_of(d, 1);
		}
	} else {
		op->dst = reg_of(d, 0);
		if (is_imm(d, 1)) {
			form = FORM_RI;
			op->imm = imm_of(d, 1);
		} else if (soft_is_mem(d, 1)) {
			form = FORM_RM;
		} else {
			form = FORM_RR;
			op->src = reg_of(d, 1);
		}
	}
	op->fn = exec_alu[kind][form][size];
	return true;
}

static bool decode_unary(struct soft_decode *d, struct soft_op *op, unsigned kind)
{
	unsigned size = size_index(size_of(d, 0));

	if (soft_is_mem(d, 0)) {
		op->fn = exec_unary[kind][op->flags & OPF_LOCK ? UFORM_LOCK : UFORM_M][size];
	} else {
		op->dst = reg_of(d, 0);
		op->fn = exec_unary[kind][UFORM_R][size];
	}
	return true;
}

static bool decode_shift(struct soft_decode *d, struct soft_op *op, unsigned kind)
{
	bool mem = soft_is_mem(d, 0), imm = is_imm(d, 1);

	if (!mem)
		op->dst = reg_of(d, 0);
	if (imm)
		op->imm = imm_of(d, 1);
	op->fn = exec_shift[kind][(mem ? SFORM_MI : SFORM_RI) + !imm][size_index(size_of(d, 0))];
	return true;
}

static bool decode_shiftd(struct soft_decode *d, struct soft_op *op, unsigned kind)
{
	bool mem = soft_is_mem(d, 0), imm = is_imm(d, 2);

	if (!mem)
		op->dst = reg_of(d, 0);
	op->src = reg_of(d, 1);
	if (imm)
		op->imm = imm_of(d, 2);
	op->fn = exec_shiftd[kind][(mem ? SFORM_MI : SFORM_RI) + !imm]
			    [size_index(size_of(d, 0)) - 1];
	return true;
}

static bool decode_bit(struct soft_decode *d, struct soft_op *op, unsigned kind)
{
	bool mem = soft_is_mem(d, 0), imm = is_imm(d, 1);

	if (!mem)
		op->dst = reg_of(d, 0);
	if (imm)
		op->imm = imm_of(d, 1);
	else
		op->src = reg_of(d, 1);
	op->fn = exec_bit[kind][mem ? (imm ? FORM_MI : FORM_MR) : (imm ? FORM_RI : FORM_RR)]
			 [size_index(size_of(d, 0))];
	return true;
}

/* One operand that is read, in dst or memory. */
static bool decode_mul(struct soft_decode *d, struct soft_op *op, unsigned kind)
{
	bool mem = soft_is_mem(d, 0);

	if (!mem)
		op->dst = reg_of(d, 0);
	op->fn = exec_mul[kind][mem][size_index(size_of(d, 0))];
	return true;
}

static bool decode_imul(struct soft_decode *d, struct soft_op *op)
{
	unsigned visible = d->insn->operand_count_visible;
	unsigned size;
	bool mem;

	if (visible == 1)
		return decode_mul(d, op, MUL_IMUL);
	size = size_index(size_of(d, 0)) - 1;
	mem = soft_is_mem(d, 1);
	op->dst = reg_of(d, 0);
	if (!mem)
		op->src = reg_of(d, 1);
	if (visible == 3) {
		op->imm = imm_of(d, 2);
		op->fn = exec_imul3[mem][size];
	} else {
		op->fn = exec_imul2[mem][size];
	}
	return true;
}

static bool decode_mov(struct soft_decode *d, struct soft_op *op)
{
	unsigned form;

	/* Segment, control and debug registers belong to decode_sys.c. */
	for (unsigned i = 0; i < 2; i++)
		if (soft_is_reg(d, i)) {
			ZydisRegisterClass class = ZydisRegisterGetClass(d->op[i].reg.value);

			if (class != ZYDIS_REGCLASS_GPR8 && class != ZYDIS_REGCLASS_GPR16 &&
			    class != ZYDIS_REGCLASS_GPR32 && class != ZYDIS_REGCLASS_GPR64)
				return false;
		}
	if (soft_is_mem(d, 0)) {
		form = is_imm(d, 1) ? FORM_MI : FORM_MR;
	} else {
		op->dst = reg_of(d, 0);
		form = is_imm(d, 1) ? FORM_RI : soft_is_mem(d, 1) ? FORM_RM : FORM_RR;
	}
	if (is_imm(d, 1))
		op->imm = imm_of(d, 1);
	else if (soft_is_reg(d, 1))
		op->src = reg_of(d, 1);
	op->fn = exec_mov[form][size_index(size_of(d, 0))];
	return true;
}

static bool decode_movx(struct soft_decode *d, struct soft_op *op, bool sign)
{
	bool mem = soft_is_mem(d, 1);

	op->dst = reg_of(d, 0);
	if (!mem)
		op->src = reg_of(d, 1);
	/* MOVSXD r16, r/m16 is a MOV; Zydis reads 32 bits. */
	if (size_of(d, 0) == 2 && size_of(d, 1) == 4)
		op->fn = exec_mov[mem ? FORM_RM : FORM_RR][1];
	else
		op->fn = exec_movx[sign][mem][size_index(size_of(d, 1))][size_index(size_of(d, 0))];
	return op->fn != NULL;
}

/* dst register, src register or memory; tables by [mem][size - 1]. */
static bool decode_rm(struct soft_decode *d, struct soft_op *op, op_fn *const table[2][3])
{
	bool mem = soft_is_mem(d, 1);

	op->dst = reg_of(d, 0);
	if (!mem)
		op->src = reg_of(d, 1);
	op->fn = table[mem][size_index(size_of(d, 0)) - 1];
	return true;
}

/* dst register or memory, src register; tables by [mem][size]. */
static bool decode_mr(struct soft_decode *d, struct soft_op *op, op_fn *const table[2][4])
{
	bool mem = soft_is_mem(d, 0);

	if (!mem)
		op->dst = reg_of(d, 0);
	op->src = reg_of(d, 1);
	op->fn = table[mem][size_index(size_of(d, 0))];
	return true;
}

/* XCHG is symmetric; the memory operand may be either one. */
static bool decode_xchg(struct soft_decode *d, struct soft_op *op)
{
	unsigned size = size_index(size_of(d, 0));

	if (soft_is_mem(d, 0)) {
		op->src = reg_of(d, 1);
		op->fn = exec_xchg[1][size];
	} else if (soft_is_mem(d, 1)) {
		op->src = reg_of(d, 0);
		op->fn = exec_xchg[1][size];
	} else {
		op->dst = reg_of(d, 0);
		op->src = reg_of(d, 1);
		op->fn = exec_xchg[0][size];
	}
	return true;
}

static bool decode_crc32(struct soft_decode *d, struct soft_op *op)
{
	bool mem = soft_is_mem(d, 1);

	op->dst = reg_of(d, 0);
	if (!mem)
		op->src = reg_of(d, 1);
	op->fn = exec_crc32[mem][size_index(size_of(d, 1))];
	return true;
}

static bool decode_movbe(struct soft_decode *d, struct soft_op *op)
{
	bool store = soft_is_mem(d, 0);

	if (store)
		op->src = reg_of(d, 1);
	else
		op->dst = reg_of(d, 0);
	op->fn = exec_movbe[store][size_index(size_of(d, 0)) - 1];
	return true;
}

/* ---- Branches ---------------------------------------------------------------- */

/* Links are for flat code; the target is given as an offset from the page's start. */
static bool linkable(const struct soft_decode *d, const struct soft_op *op, int64_t rel,
		     bool *same_page)
{
	int64_t to = (int64_t)op->ip + op->len + rel;

	if (d->mode & MODE_CSLIMIT || to != (int32_t)to)
		return false;
	if (!(d->mode & MODE_CS64) && (!(d->mode & MODE_CS32) || op->size == 2))
		return false;
	*same_page = to >= 0 && to < 4096;
	return true;
}

static bool decode_branch(struct soft_decode *d, struct soft_op *op, op_fn *near, op_fn *far,
			  op_fn *legacy, op_fn *reg, op_fn *mem, op_fn *ind_legacy)
{
	bool long64 = d->mode & MODE_CS64;
	bool same_page;

	if (d->insn->meta.branch_type == ZYDIS_BRANCH_TYPE_FAR)
		return false;		/* decode_sys.c */
	d->ends_block = true;
	if (is_imm(d, 0)) {
		int64_t rel = d->op[0].imm.value.s;
		bool call = near == op_call;	/* pushes eight bytes */

		if ((long64 || !call) && linkable(d, op, rel, &same_page)) {
			op->disp = (int32_t)(op->ip + op->len + rel);
			op->fn = same_page ? near : far;
		} else {
			op->imm = (uint64_t)rel;
			op->fn = legacy;
		}
		return true;
	}
	op->size = (uint8_t)size_of(d, 0);
	if (soft_is_reg(d, 0)) {
		op->dst = reg_of(d, 0);
		op->fn = long64 && op->size == 8 ? reg : ind_legacy;
	} else {
		op->fn = long64 && op->size == 8 ? mem : ind_legacy;
	}
	return true;
}

static bool decode_jcc(struct soft_decode *d, struct soft_op *op, unsigned cond)
{
	int64_t rel = d->op[0].imm.value.s;
	bool same_page;

	op->dst = (uint8_t)cond;
	if (linkable(d, op, rel, &same_page)) {
		op->disp = (int32_t)(op->ip + op->len + rel);
		op->fn = same_page ? exec_jcc[cond] : exec_jcc_far[cond];
	} else {
		op->imm = (uint64_t)rel;
		op->fn = op_jcc_legacy;
	}
	return true;
}

static bool decode_loop(struct soft_decode *d, struct soft_op *op, unsigned kind)
{
	op->dst = (uint8_t)kind;
	op->src = (uint8_t)(d->insn->address_width / 8);
	op->imm = d->op[0].imm.value.u;
	op->fn = op_loop;
	return true;
}

static bool decode_ret(struct soft_decode *d, struct soft_op *op)
{
	if (d->insn->meta.branch_type == ZYDIS_BRANCH_TYPE_FAR)
		return false;
	d->ends_block = true;
	op->seg = SEG_SS;
	op->imm = is_imm(d, 0) ? imm_of(d, 0) & 0xffff : 0;
	op->fn = d->mode & MODE_CS64 && op->size == 8 ? op_ret : op_ret_legacy;
	return true;
}

/* ---- Stack --------------------------------------------------------------------- */

static bool decode_push(struct soft_decode *d, struct soft_op *op)
{
	bool fast = d->mode & MODE_CS64 && op->size == 8;

	if (is_imm(d, 0)) {
		op->imm = imm_of(d, 0);
		op->seg = SEG_SS;
		op->fn = fast ? op_push64_i : op_push_i;
	} else if (soft_is_mem(d, 0)) {
		op->fn = op_push_m;
	} else {
		if (ZydisRegisterGetClass(d->op[0].reg.value) == ZYDIS_REGCLASS_SEGMENT)
			return false;
		op->dst = reg_of(d, 0);
		op->seg = SEG_SS;
		op->fn = fast ? op_push64_r : op_push_r;
	}
	return true;
}

static bool decode_pop(struct soft_decode *d, struct soft_op *op)
{
	if (soft_is_mem(d, 0)) {
		op->fn = op_pop_m;
		return true;
	}
	if (ZydisRegisterGetClass(d->op[0].reg.value) == ZYDIS_REGCLASS_SEGMENT)
		return false;
	op->dst = reg_of(d, 0);
	op->seg = SEG_SS;
	op->fn = d->mode & MODE_CS64 && op->size == 8 ? op_pop64_r : op_pop_r;
	return true;
}

/* ---- Strings -------------------------------------------------------------------- */

static bool decode_string(struct soft_decode *d, struct soft_op *op, op_fn *fn, unsigned size)
{
	op->size = (uint8_t)size;
	op->seg = SEG_DS;
	for (unsigned i = 0; i < d->insn->operand_count; i++)
		if (d->op[i].type == ZYDIS_OPERAND_TYPE_MEMORY &&
		    (d->op[i].mem.base == ZYDIS_REGISTER_RSI ||
		     d->op[i].mem.base == ZYDIS_REGISTER_ESI ||
		     d->op[i].mem.base == ZYDIS_REGISTER_SI))
			op->seg = soft_reg_number(d->op[i].mem.segment);
	op->fn = fn;
	return true;
}

/* ---- One handler, no operands to look at ------------------------------------------- */

static bool plain(struct soft_op *op, op_fn *fn)
{
	op->fn = fn;
	return true;
}

/* The SSE2 instructions MOVSD and CMPSD share their mnemonic's name with strings. */
static bool is_string(const struct soft_decode *d)
{
	return d->insn->meta.category == ZYDIS_CATEGORY_STRINGOP;
}

#define BRANCH(near_fn, far_fn, legacy_fn, r, m, ind) \
	decode_branch(d, op, near_fn, far_fn, legacy_fn, r, m, ind)

static bool decode_conditional(struct soft_decode *d, struct soft_op *op)
{
	/* In the order of condition codes. */
	static const ZydisMnemonic j[16] = {
		ZYDIS_MNEMONIC_JO, ZYDIS_MNEMONIC_JNO, ZYDIS_MNEMONIC_JB, ZYDIS_MNEMONIC_JNB,
		ZYDIS_MNEMONIC_JZ, ZYDIS_MNEMONIC_JNZ, ZYDIS_MNEMONIC_JBE, ZYDIS_MNEMONIC_JNBE,
		ZYDIS_MNEMONIC_JS, ZYDIS_MNEMONIC_JNS, ZYDIS_MNEMONIC_JP, ZYDIS_MNEMONIC_JNP,
		ZYDIS_MNEMONIC_JL, ZYDIS_MNEMONIC_JNL, ZYDIS_MNEMONIC_JLE, ZYDIS_MNEMONIC_JNLE };
	static const ZydisMnemonic set[16] = {
		ZYDIS_MNEMONIC_SETO, ZYDIS_MNEMONIC_SETNO, ZYDIS_MNEMONIC_SETB, ZYDIS_MNEMONIC_SETNB,
		ZYDIS_MNEMONIC_SETZ, ZYDIS_MNEMONIC_SETNZ, ZYDIS_MNEMONIC_SETBE,
		ZYDIS_MNEMONIC_SETNBE, ZYDIS_MNEMONIC_SETS, ZYDIS_MNEMONIC_SETNS,
		ZYDIS_MNEMONIC_SETP, ZYDIS_MNEMONIC_SETNP, ZYDIS_MNEMONIC_SETL, ZYDIS_MNEMONIC_SETNL,
		ZYDIS_MNEMONIC_SETLE, ZYDIS_MNEMONIC_SETNLE };
	static const ZydisMnemonic cmov[16] = {
		ZYDIS_MNEMONIC_CMOVO, ZYDIS_MNEMONIC_CMOVNO, ZYDIS_MNEMONIC_CMOVB,
		ZYDIS_MNEMONIC_CMOVNB, ZYDIS_MNEMONIC_CMOVZ, ZYDIS_MNEMONIC_CMOVNZ,
		ZYDIS_MNEMONIC_CMOVBE, ZYDIS_MNEMONIC_CMOVNBE, ZYDIS_MNEMONIC_CMOVS,
		ZYDIS_MNEMONIC_CMOVNS, ZYDIS_MNEMONIC_CMOVP, ZYDIS_MNEMONIC_CMOVNP,
		ZYDIS_MNEMONIC_CMOVL, ZYDIS_MNEMONIC_CMOVNL, ZYDIS_MNEMONIC_CMOVLE,
		ZYDIS_MNEMONIC_CMOVNLE };

	for (unsigned n = 0; n < 16; n++) {
		ZydisMnemonic m = d->insn->mnemonic;

		if (m == j[n])
			return decode_jcc(d, op, n);
		if (m == cmov[n])
			return decode_rm(d, op, exec_cmov[n]);
		if (m == set[n]) {
			if (!soft_is_mem(d, 0))
				op->dst = reg_of(d, 0);
			return plain(op, exec_setcc[n][soft_is_mem(d, 0)]);
		}
	}
	return false;
}

bool soft_decode_int(struct soft_decode *d, struct soft_op *op)
{
	unsigned os = op->size;
	bool sized32 = os == 4;

	switch (d->insn->mnemonic) {
	case ZYDIS_MNEMONIC_MOV: return decode_mov(d, op);
	case ZYDIS_MNEMONIC_ADD: return decode_alu(d, op, ALU_ADD);
	case ZYDIS_MNEMONIC_OR: return decode_alu(d, op, ALU_OR);
	case ZYDIS_MNEMONIC_ADC: return decode_alu(d, op, ALU_ADC);
	case ZYDIS_MNEMONIC_SBB: return decode_alu(d, op, ALU_SBB);
	case ZYDIS_MNEMONIC_AND: return decode_alu(d, op, ALU_AND);
	case ZYDIS_MNEMONIC_SUB: return decode_alu(d, op, ALU_SUB);
	case ZYDIS_MNEMONIC_XOR: return decode_alu(d, op, ALU_XOR);
	case ZYDIS_MNEMONIC_CMP: return decode_alu(d, op, ALU_CMP);
	case ZYDIS_MNEMONIC_TEST: return decode_alu(d, op, ALU_TEST);
	case ZYDIS_MNEMONIC_INC: return decode_unary(d, op, UNARY_INC);
	case ZYDIS_MNEMONIC_DEC: return decode_unary(d, op, UNARY_DEC);
	case ZYDIS_MNEMONIC_NOT: return decode_unary(d, op, UNARY_NOT);
	case ZYDIS_MNEMONIC_NEG: return decode_unary(d, op, UNARY_NEG);
	case ZYDIS_MNEMONIC_ROL: return decode_shift(d, op, SHIFT_ROL);
	case ZYDIS_MNEMONIC_ROR: return decode_shift(d, op, SHIFT_ROR);
	case ZYDIS_MNEMONIC_RCL: return decode_shift(d, op, SHIFT_RCL);
	case ZYDIS_MNEMONIC_RCR: return decode_shift(d, op, SHIFT_RCR);
	case ZYDIS_MNEMONIC_SHL: return decode_shift(d, op, SHIFT_SHL);
	case ZYDIS_MNEMONIC_SHR: return decode_shift(d, op, SHIFT_SHR);
	case ZYDIS_MNEMONIC_SAR: return decode_shift(d, op, SHIFT_SAR);
	case ZYDIS_MNEMONIC_SHLD: return decode_shiftd(d, op, 0);
	case ZYDIS_MNEMONIC_SHRD: return decode_shiftd(d, op, 1);
	case ZYDIS_MNEMONIC_BT: return decode_bit(d, op, BIT_BT);
	case ZYDIS_MNEMONIC_BTS: return decode_bit(d, op, BIT_BTS);
	case ZYDIS_MNEMONIC_BTR: return decode_bit(d, op, BIT_BTR);
	case ZYDIS_MNEMONIC_BTC: return decode_bit(d, op, BIT_BTC);
	case ZYDIS_MNEMONIC_BSF: return decode_rm(d, op, exec_bsf[0]);
	case ZYDIS_MNEMONIC_BSR: return decode_rm(d, op, exec_bsf[1]);
	case ZYDIS_MNEMONIC_POPCNT: return decode_rm(d, op, exec_popcnt);
	case ZYDIS_MNEMONIC_LZCNT: return decode_rm(d, op, exec_lzcnt);
	case ZYDIS_MNEMONIC_TZCNT: return decode_rm(d, op, exec_tzcnt);
	case ZYDIS_MNEMONIC_CRC32: return decode_crc32(d, op);
	case ZYDIS_MNEMONIC_MUL: return decode_mul(d, op, MUL_MUL);
	case ZYDIS_MNEMONIC_IMUL: return decode_imul(d, op);
	case ZYDIS_MNEMONIC_DIV: return decode_mul(d, op, MUL_DIV);
	case ZYDIS_MNEMONIC_IDIV: return decode_mul(d, op, MUL_IDIV);
	case ZYDIS_MNEMONIC_MOVZX: return decode_movx(d, op, false);
	case ZYDIS_MNEMONIC_MOVSX:
	case ZYDIS_MNEMONIC_MOVSXD: return decode_movx(d, op, true);
	case ZYDIS_MNEMONIC_LEA:
		op->dst = reg_of(d, 0);
		return plain(op, exec_lea[size_index(os) - 1]);
	case ZYDIS_MNEMONIC_XCHG: return decode_xchg(d, op);
	case ZYDIS_MNEMONIC_XADD: return decode_mr(d, op, exec_xadd);
	case ZYDIS_MNEMONIC_CMPXCHG: return decode_mr(d, op, exec_cmpxchg);
	case ZYDIS_MNEMONIC_CMPXCHG8B: return plain(op, op_cmpxchg8b);
	case ZYDIS_MNEMONIC_CMPXCHG16B: return plain(op, op_cmpxchg16b);
	case ZYDIS_MNEMONIC_MOVBE: return decode_movbe(d, op);
	case ZYDIS_MNEMONIC_BSWAP:
		op->dst = reg_of(d, 0);
		return plain(op, os == 8 ? op_bswap64 : sized32 ? op_bswap32 : op_bswap16);
	case ZYDIS_MNEMONIC_MOVNTI:
		op->src = reg_of(d, 1);
		return plain(op, exec_mov[FORM_MR][size_index(size_of(d, 0))]);

	case ZYDIS_MNEMONIC_JMP:
		return BRANCH(op_jmp, op_jmp_far, op_jmp_legacy, op_jmp_r, op_jmp_m,
			      op_jmp_ind_legacy);
	case ZYDIS_MNEMONIC_CALL:
		return BRANCH(op_call, op_call_far, op_call_legacy, op_call_r, op_call_m,
			      op_call_ind_legacy);
	case ZYDIS_MNEMONIC_RET: return decode_ret(d, op);
	case ZYDIS_MNEMONIC_LOOPNE: return decode_loop(d, op, 0);
	case ZYDIS_MNEMONIC_LOOPE: return decode_loop(d, op, 1);
	case ZYDIS_MNEMONIC_LOOP: return decode_loop(d, op, 2);
	case ZYDIS_MNEMONIC_JCXZ:
	case ZYDIS_MNEMONIC_JECXZ:
	case ZYDIS_MNEMONIC_JRCXZ: return decode_loop(d, op, 3);

	case ZYDIS_MNEMONIC_PUSH: return decode_push(d, op);
	case ZYDIS_MNEMONIC_POP: return decode_pop(d, op);
	case ZYDIS_MNEMONIC_PUSHA:
	case ZYDIS_MNEMONIC_PUSHAD: return plain(op, op_pusha);
	case ZYDIS_MNEMONIC_POPA:
	case ZYDIS_MNEMONIC_POPAD: return plain(op, op_popa);
	case ZYDIS_MNEMONIC_ENTER:
		op->imm = imm_of(d, 0) & 0xffff;
		op->dst = (uint8_t)imm_of(d, 1);
		return plain(op, op_enter);
	case ZYDIS_MNEMONIC_LEAVE:
		op->seg = SEG_SS;
		return plain(op, d->mode & MODE_CS64 && os == 8 ? op_leave64 : op_leave);

	case ZYDIS_MNEMONIC_MOVSB: return decode_string(d, op, op_movs, 1);
	case ZYDIS_MNEMONIC_MOVSW: return decode_string(d, op, op_movs, 2);
	case ZYDIS_MNEMONIC_MOVSD: return is_string(d) && decode_string(d, op, op_movs, 4);
	case ZYDIS_MNEMONIC_MOVSQ: return decode_string(d, op, op_movs, 8);
	case ZYDIS_MNEMONIC_STOSB: return decode_string(d, op, op_stos, 1);
	case ZYDIS_MNEMONIC_STOSW: return decode_string(d, op, op_stos, 2);
	case ZYDIS_MNEMONIC_STOSD: return decode_string(d, op, op_stos, 4);
	case ZYDIS_MNEMONIC_STOSQ: return decode_string(d, op, op_stos, 8);
	case ZYDIS_MNEMONIC_LODSB: return decode_string(d, op, op_lods, 1);
	case ZYDIS_MNEMONIC_LODSW: return decode_string(d, op, op_lods, 2);
	case ZYDIS_MNEMONIC_LODSD: return decode_string(d, op, op_lods, 4);
	case ZYDIS_MNEMONIC_LODSQ: return decode_string(d, op, op_lods, 8);
	case ZYDIS_MNEMONIC_SCASB: return decode_string(d, op, op_scas, 1);
	case ZYDIS_MNEMONIC_SCASW: return decode_string(d, op, op_scas, 2);
	case ZYDIS_MNEMONIC_SCASD: return decode_string(d, op, op_scas, 4);
	case ZYDIS_MNEMONIC_SCASQ: return decode_string(d, op, op_scas, 8);
	case ZYDIS_MNEMONIC_CMPSB: return decode_string(d, op, op_cmps, 1);
	case ZYDIS_MNEMONIC_CMPSW: return decode_string(d, op, op_cmps, 2);
	case ZYDIS_MNEMONIC_CMPSD: return is_string(d) && decode_string(d, op, op_cmps, 4);
	case ZYDIS_MNEMONIC_CMPSQ: return decode_string(d, op, op_cmps, 8);

	case ZYDIS_MNEMONIC_CBW: return plain(op, op_cbw);
	case ZYDIS_MNEMONIC_CWDE: return plain(op, op_cwde);
	case ZYDIS_MNEMONIC_CDQE: return plain(op, op_cdqe);
	case ZYDIS_MNEMONIC_CWD: return plain(op, op_cwd);
	case ZYDIS_MNEMONIC_CDQ: return plain(op, op_cdq);
	case ZYDIS_MNEMONIC_CQO: return plain(op, op_cqo);
	case ZYDIS_MNEMONIC_LAHF: return plain(op, op_lahf);
	case ZYDIS_MNEMONIC_SAHF: return plain(op, op_sahf);
	case ZYDIS_MNEMONIC_CLC: return plain(op, op_clc);
	case ZYDIS_MNEMONIC_STC: return plain(op, op_stc);
	case ZYDIS_MNEMONIC_CMC: return plain(op, op_cmc);
	case ZYDIS_MNEMONIC_CLD: return plain(op, op_cld);
	case ZYDIS_MNEMONIC_STD: return plain(op, op_std);
	case ZYDIS_MNEMONIC_SALC: return plain(op, op_salc);
	case ZYDIS_MNEMONIC_XLAT:
		for (unsigned i = 0; i < d->insn->operand_count; i++)
			if (d->op[i].type == ZYDIS_OPERAND_TYPE_MEMORY)
				op->seg = soft_reg_number(d->op[i].mem.segment);
		return plain(op, op_xlat);
	case ZYDIS_MNEMONIC_AAA: return plain(op, op_aaa);
	case ZYDIS_MNEMONIC_AAS: return plain(op, op_aas);
	case ZYDIS_MNEMONIC_DAA: return plain(op, op_daa);
	case ZYDIS_MNEMONIC_DAS: return plain(op, op_das);
	case ZYDIS_MNEMONIC_AAM:
		op->imm = imm_of(d, 0);
		return plain(op, op_aam);
	case ZYDIS_MNEMONIC_AAD:
		op->imm = imm_of(d, 0);
		return plain(op, op_aad);

	case ZYDIS_MNEMONIC_NOP:
	case ZYDIS_MNEMONIC_PREFETCH:
	case ZYDIS_MNEMONIC_PREFETCHNTA:
	case ZYDIS_MNEMONIC_PREFETCHT0:
	case ZYDIS_MNEMONIC_PREFETCHT1:
	case ZYDIS_MNEMONIC_PREFETCHT2:
	case ZYDIS_MNEMONIC_PREFETCHW:
	case ZYDIS_MNEMONIC_PREFETCHWT1: return plain(op, op_nop);
	case ZYDIS_MNEMONIC_PAUSE: return plain(op, op_pause);
	case ZYDIS_MNEMONIC_LFENCE:
	case ZYDIS_MNEMONIC_SFENCE:
	case ZYDIS_MNEMONIC_MFENCE: return plain(op, op_fence);
	default:
		return decode_conditional(d, op);
	}
}
