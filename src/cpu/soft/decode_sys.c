/* From system instructions to their handlers. */
#include "cpu/soft/decode.h"
#include "cpu/soft/sysops.h"

static bool is_class(const struct soft_decode *d, unsigned i, ZydisRegisterClass class)
{
	return soft_is_reg(d, i) && ZydisRegisterGetClass(d->op[i].reg.value) == class;
}

static bool take(struct soft_decode *d, struct soft_op *op, op_fn *fn, bool ends)
{
	op->fn = fn;
	d->ends_block = ends;
	return true;
}

static uint8_t any_register(ZydisRegister reg)
{
	switch (ZydisRegisterGetClass(reg)) {
	case ZYDIS_REGCLASS_SEGMENT:
	case ZYDIS_REGCLASS_CONTROL:
	case ZYDIS_REGCLASS_DEBUG:
		return soft_reg_number(reg);
	default:
		return soft_slot_of(reg);
	}
}

/* dst and src from the first two visible operands, where they are registers. */
static void registers(struct soft_decode *d, struct soft_op *op)
{
	unsigned n = d->insn->operand_count_visible;

	if (n > 0 && soft_is_reg(d, 0))
		op->dst = any_register(d->op[0].reg.value);
	if (n > 1 && soft_is_reg(d, 1))
		op->src = any_register(d->op[1].reg.value);
}

/* Instructions with one operand that is read have it in src. */
static void source_only(struct soft_decode *d, struct soft_op *op)
{
	if (soft_is_reg(d, 0))
		op->src = any_register(d->op[0].reg.value);
}

/* ---- MOV, PUSH and POP of special registers --------------------------------- */

static bool decode_mov(struct soft_decode *d, struct soft_op *op)
{
	bool long64 = d->mode & MODE_CS64;

	registers(d, op);
	if (is_class(d, 0, ZYDIS_REGCLASS_CONTROL))
		return take(d, op, op_mov_to_cr, true);
	if (is_class(d, 1, ZYDIS_REGCLASS_CONTROL))
		return take(d, op, op_mov_from_cr, false);
	if (is_class(d, 0, ZYDIS_REGCLASS_DEBUG))
		return take(d, op, op_mov_to_dr, true);
	if (is_class(d, 1, ZYDIS_REGCLASS_DEBUG))
		return take(d, op, op_mov_from_dr, false);
	if (is_class(d, 0, ZYDIS_REGCLASS_SEGMENT)) {
		if (op->dst == SEG_CS)
			return false;
		return take(d, op, op_mov_to_seg, !long64 || op->dst == SEG_SS);
	}
	if (is_class(d, 1, ZYDIS_REGCLASS_SEGMENT))
		return take(d, op, op_mov_from_seg, false);
	return false;
}

static bool decode_push_pop(struct soft_decode *d, struct soft_op *op, bool pop)
{
	bool long64 = d->mode & MODE_CS64;
	bool operandsize = d->insn->attributes & ZYDIS_ATTRIB_HAS_OPERANDSIZE;

	if (!is_class(d, 0, ZYDIS_REGCLASS_SEGMENT))
		return false;
	op->dst = op->src = soft_reg_number(d->op[0].reg.value);
	/* As of any PUSH and POP, whatever the decoder thinks of the operand. */
	if (long64)
		op->size = operandsize && !d->insn->raw.rex.W ? 2 : 8;
	else
		op->size = !(d->mode & MODE_CS32) == operandsize ? 4 : 2;
	if (!pop)
		return take(d, op, op_push_seg, false);
	return take(d, op, op_pop_seg, !long64 || op->dst == SEG_SS);
}

static bool load_far_pointer(struct soft_decode *d, struct soft_op *op, unsigned seg)
{
	registers(d, op);
	op->src = (uint8_t)seg;
	return take(d, op, op_load_far_pointer, !(d->mode & MODE_CS64) || seg == SEG_SS);
}

/* ---- Far transfers ------------------------------------------------------------ */

static bool decode_far(struct soft_decode *d, struct soft_op *op, op_fn *imm, op_fn *mem)
{
	if (d->insn->meta.branch_type != ZYDIS_BRANCH_TYPE_FAR)
		return false;
	if (d->op[0].type == ZYDIS_OPERAND_TYPE_POINTER) {
		op->imm = (uint64_t)d->op[0].ptr.segment << 32 | (uint32_t)d->op[0].ptr.offset;
		return take(d, op, imm, true);
	}
	return take(d, op, mem, true);
}

static bool decode_ret(struct soft_decode *d, struct soft_op *op)
{
	if (d->insn->meta.branch_type != ZYDIS_BRANCH_TYPE_FAR)
		return false;
	if (d->insn->operand_count_visible)
		op->imm = d->op[0].imm.value.u & 0xffff;
	return take(d, op, op_far_ret, true);
}

/* ---- Ports -------------------------------------------------------------------- */

static bool decode_port(struct soft_decode *d, struct soft_op *op, op_fn *fn, unsigned port,
			unsigned data)
{
	op->size = (uint8_t)(d->op[data].size / 8);
	op->imm = d->op[port].type == ZYDIS_OPERAND_TYPE_IMMEDIATE ?
		  d->op[port].imm.value.u & 0xff : BIT(16);
	return take(d, op, fn, true);
}

static bool decode_port_string(struct soft_decode *d, struct soft_op *op, op_fn *fn, unsigned size)
{
	for (unsigned i = 0; i < d->insn->operand_count; i++)
		if (d->op[i].type == ZYDIS_OPERAND_TYPE_MEMORY)
			op->seg = soft_reg_number(d->op[i].mem.segment);
	op->size = (uint8_t)size;
	return take(d, op, fn, true);
}

/* ---- Families ------------------------------------------------------------------ */

static bool decode_tables(struct soft_decode *d, struct soft_op *op)
{
	registers(d, op);
	switch (d->insn->mnemonic) {
	case ZYDIS_MNEMONIC_LAR: return take(d, op, op_lar, false);
	case ZYDIS_MNEMONIC_LSL: return take(d, op, op_lsl, false);
	case ZYDIS_MNEMONIC_ARPL: return take(d, op, op_arpl, false);
	case ZYDIS_MNEMONIC_SLDT: return take(d, op, op_sldt, false);
	case ZYDIS_MNEMONIC_STR: return take(d, op, op_str, false);
	case ZYDIS_MNEMONIC_SMSW: return take(d, op, op_smsw, false);
	case ZYDIS_MNEMONIC_SGDT: return take(d, op, op_sgdt, false);
	case ZYDIS_MNEMONIC_SIDT: return take(d, op, op_sidt, false);
	case ZYDIS_MNEMONIC_LGDT: return take(d, op, op_lgdt, false);
	case ZYDIS_MNEMONIC_LIDT: return take(d, op, op_lidt, false);
	default: break;
	}
	source_only(d, op);
	switch (d->insn->mnemonic) {
	case ZYDIS_MNEMONIC_VERR: return take(d, op, op_verr, false);
	case ZYDIS_MNEMONIC_VERW: return take(d, op, op_verw, false);
	case ZYDIS_MNEMONIC_LLDT: return take(d, op, op_lldt, false);
	case ZYDIS_MNEMONIC_LTR: return take(d, op, op_ltr, false);
	case ZYDIS_MNEMONIC_LMSW: return take(d, op, op_lmsw, true);
	default: return false;
	}
}

static bool decode_entry(struct soft_decode *d, struct soft_op *op)
{
	bool long64 = d->mode & MODE_CS64;

	switch (d->insn->mnemonic) {
	case ZYDIS_MNEMONIC_SYSCALL:
		return take(d, op, op_syscall, true);
	case ZYDIS_MNEMONIC_SYSRET:
		op->size = d->insn->raw.rex.W ? 8 : 4;
		return take(d, op, op_sysret, true);
	case ZYDIS_MNEMONIC_SYSENTER:
		return take(d, op, op_sysenter, true);
	case ZYDIS_MNEMONIC_SYSEXIT:
		op->size = d->insn->raw.rex.W ? 8 : 4;
		return take(d, op, op_sysexit, true);
	case ZYDIS_MNEMONIC_SWAPGS:
		return long64 && take(d, op, op_swapgs, false);
	case ZYDIS_MNEMONIC_RDFSBASE:
	case ZYDIS_MNEMONIC_RDGSBASE:
		registers(d, op);
		op->imm = d->insn->mnemonic == ZYDIS_MNEMONIC_RDFSBASE ? SEG_FS : SEG_GS;
		return take(d, op, op_rdfsgsbase, false);
	case ZYDIS_MNEMONIC_WRFSBASE:
	case ZYDIS_MNEMONIC_WRGSBASE:
		registers(d, op);
		op->imm = d->insn->mnemonic == ZYDIS_MNEMONIC_WRFSBASE ? SEG_FS : SEG_GS;
		return take(d, op, op_wrfsgsbase, false);
	default:
		return false;
	}
}

static bool decode_interrupts(struct soft_decode *d, struct soft_op *op)
{
	switch (d->insn->mnemonic) {
	case ZYDIS_MNEMONIC_HLT: return take(d, op, op_hlt, true);
	case ZYDIS_MNEMONIC_CLI: return take(d, op, op_cli, false);
	case ZYDIS_MNEMONIC_STI: return take(d, op, op_sti, false);
	case ZYDIS_MNEMONIC_CLAC: return take(d, op, op_clac, true);
	case ZYDIS_MNEMONIC_STAC: return take(d, op, op_stac, true);
	case ZYDIS_MNEMONIC_INT3: return take(d, op, op_int3, true);
	case ZYDIS_MNEMONIC_INT1: return take(d, op, op_int1, true);
	case ZYDIS_MNEMONIC_INTO: return take(d, op, op_into, false);
	case ZYDIS_MNEMONIC_INT:
		op->imm = d->op[0].imm.value.u & 0xff;
		return take(d, op, op_int, true);
	case ZYDIS_MNEMONIC_BOUND:
		registers(d, op);
		return take(d, op, op_bound, false);
	case ZYDIS_MNEMONIC_PUSHF: case ZYDIS_MNEMONIC_PUSHFD: case ZYDIS_MNEMONIC_PUSHFQ:
		return take(d, op, op_pushf, false);
	case ZYDIS_MNEMONIC_POPF: case ZYDIS_MNEMONIC_POPFD: case ZYDIS_MNEMONIC_POPFQ:
		return take(d, op, op_popf, false);
	case ZYDIS_MNEMONIC_IRET: case ZYDIS_MNEMONIC_IRETD: case ZYDIS_MNEMONIC_IRETQ:
		return take(d, op, op_iret, true);
	case ZYDIS_MNEMONIC_UD0: case ZYDIS_MNEMONIC_UD1: case ZYDIS_MNEMONIC_UD2:
		d->raises = true;
		return take(d, op, op_ud, true);
	default:
		return false;
	}
}

static bool decode_rest(struct soft_decode *d, struct soft_op *op)
{
	switch (d->insn->mnemonic) {
	case ZYDIS_MNEMONIC_CLTS: return take(d, op, op_clts, true);
	case ZYDIS_MNEMONIC_INVLPG: return take(d, op, op_invlpg, true);
	case ZYDIS_MNEMONIC_INVPCID:
		registers(d, op);
		return take(d, op, op_invpcid, true);
	case ZYDIS_MNEMONIC_INVD: case ZYDIS_MNEMONIC_WBINVD:
		return take(d, op, op_wbinvd, false);
	case ZYDIS_MNEMONIC_CLFLUSH: return take(d, op, op_clflush, false);
	case ZYDIS_MNEMONIC_RDTSC: return take(d, op, op_rdtsc, false);
	case ZYDIS_MNEMONIC_RDTSCP: return take(d, op, op_rdtscp, false);
	case ZYDIS_MNEMONIC_RDPMC: return take(d, op, op_rdpmc, true);
	case ZYDIS_MNEMONIC_VMCALL: return take(d, op, op_vmcall, false);
	case ZYDIS_MNEMONIC_CPUID: return take(d, op, op_cpuid, false);
	case ZYDIS_MNEMONIC_RDMSR: return take(d, op, op_rdmsr, false);
	case ZYDIS_MNEMONIC_WRMSR: return take(d, op, op_wrmsr, true);
	case ZYDIS_MNEMONIC_RDRAND:
		registers(d, op);
		return take(d, op, op_rdrand, false);
	default: return false;
	}
}

bool soft_decode_sys(struct soft_decode *d, struct soft_op *op)
{
	switch (d->insn->mnemonic) {
	case ZYDIS_MNEMONIC_MOV: return decode_mov(d, op);
	case ZYDIS_MNEMONIC_PUSH: return decode_push_pop(d, op, false);
	case ZYDIS_MNEMONIC_POP: return decode_push_pop(d, op, true);
	case ZYDIS_MNEMONIC_LDS: return load_far_pointer(d, op, SEG_DS);
	case ZYDIS_MNEMONIC_LES: return load_far_pointer(d, op, SEG_ES);
	case ZYDIS_MNEMONIC_LFS: return load_far_pointer(d, op, SEG_FS);
	case ZYDIS_MNEMONIC_LGS: return load_far_pointer(d, op, SEG_GS);
	case ZYDIS_MNEMONIC_LSS: return load_far_pointer(d, op, SEG_SS);
	case ZYDIS_MNEMONIC_JMP: return decode_far(d, op, op_far_jmp_imm, op_far_jmp_mem);
	case ZYDIS_MNEMONIC_CALL: return decode_far(d, op, op_far_call_imm, op_far_call_mem);
	case ZYDIS_MNEMONIC_RET: return decode_ret(d, op);
	case ZYDIS_MNEMONIC_IN: return decode_port(d, op, op_in, 1, 0);
	case ZYDIS_MNEMONIC_OUT: return decode_port(d, op, op_out, 0, 1);
	case ZYDIS_MNEMONIC_INSB: return decode_port_string(d, op, op_ins, 1);
	case ZYDIS_MNEMONIC_INSW: return decode_port_string(d, op, op_ins, 2);
	case ZYDIS_MNEMONIC_INSD: return decode_port_string(d, op, op_ins, 4);
	case ZYDIS_MNEMONIC_OUTSB: return decode_port_string(d, op, op_outs, 1);
	case ZYDIS_MNEMONIC_OUTSW: return decode_port_string(d, op, op_outs, 2);
	case ZYDIS_MNEMONIC_OUTSD: return decode_port_string(d, op, op_outs, 4);
	default:
		return decode_interrupts(d, op) || decode_entry(d, op) || decode_tables(d, op) ||
		       decode_rest(d, op);
	}
}
