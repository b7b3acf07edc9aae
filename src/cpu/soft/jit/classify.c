/*
 * What the translator makes of an instruction.  Whatever is not listed here is left to the
 * interpreter's handler.
 */
#include "cpu/soft/exec.h"
#include "cpu/soft/exec_vex.h"
#include "cpu/soft/jit/inside.h"

/* How an instruction treats the status flags. */
enum effect { NO_FLAGS, READS, SETS, CHANGES /* some, and keeps others */, NOT_OURS };

static uint64_t immediate(const struct jit_insn *x, unsigned i)
{
	return x->op[i].imm.value.u;
}

/* A shift by a constant sets all flags, unless the count is 0; one by CL may leave them alone. */
static enum effect shift_effect(const struct jit_insn *x, unsigned count_operand)
{
	unsigned mask = x->op[0].size == 64 ? 63 : 31;

	if (x->op[count_operand].type == ZYDIS_OPERAND_TYPE_IMMEDIATE &&
	    immediate(x, count_operand) & mask)
		return SETS;
	return CHANGES;
}

/* The index of a bit string in memory is part of its address. */
static enum effect bit_effect(const struct jit_insn *x)
{
	return x->mem >= 0 && x->op[1].type == ZYDIS_OPERAND_TYPE_REGISTER ? NOT_OURS : CHANGES;
}

/* See exec_bits.c: a rotation by a constant leaves OF alone, if the host's does (in memory it does not). */
static enum effect rotate_effect(const struct jit_translation *t, const struct jit_insn *x)
{
	if (x->mem >= 0 || (x->op[1].type == ZYDIS_OPERAND_TYPE_IMMEDIATE && immediate(x, 1) != 1 &&
			    !t->j->rotate_keeps_of))
		return NOT_OURS;
	return CHANGES;
}

static enum effect integer_effect(const struct jit_translation *t, const struct jit_insn *x)
{
	switch (x->in.mnemonic) {
	case ZYDIS_MNEMONIC_MOV:
	case ZYDIS_MNEMONIC_MOVZX:
	case ZYDIS_MNEMONIC_MOVSX:
	case ZYDIS_MNEMONIC_MOVSXD:
	case ZYDIS_MNEMONIC_NOT:
	case ZYDIS_MNEMONIC_MOVBE:
	case ZYDIS_MNEMONIC_CRC32:
	case ZYDIS_MNEMONIC_CBW:
	case ZYDIS_MNEMONIC_CWDE:
	case ZYDIS_MNEMONIC_CDQE:
	case ZYDIS_MNEMONIC_CWD:
	case ZYDIS_MNEMONIC_CDQ:
	case ZYDIS_MNEMONIC_CQO:
	case ZYDIS_MNEMONIC_XCHG:
	case ZYDIS_MNEMONIC_LFENCE:
	case ZYDIS_MNEMONIC_MFENCE:
	case ZYDIS_MNEMONIC_SFENCE:
	case ZYDIS_MNEMONIC_MOVNTI:
		return NO_FLAGS;
	case ZYDIS_MNEMONIC_ADD:
	case ZYDIS_MNEMONIC_SUB:
	case ZYDIS_MNEMONIC_CMP:
	case ZYDIS_MNEMONIC_AND:
	case ZYDIS_MNEMONIC_OR:
	case ZYDIS_MNEMONIC_XOR:
	case ZYDIS_MNEMONIC_TEST:
	case ZYDIS_MNEMONIC_NEG:
	case ZYDIS_MNEMONIC_XADD:
	case ZYDIS_MNEMONIC_IMUL:
	case ZYDIS_MNEMONIC_MUL:
	case ZYDIS_MNEMONIC_POPCNT:
		return SETS;
	case ZYDIS_MNEMONIC_BSWAP:
		return x->op[0].size == 16 ? NOT_OURS : NO_FLAGS;
	case ZYDIS_MNEMONIC_CMPXCHG:
		return x->mem >= 0 || x->op[0].size == 64 ? SETS : NOT_OURS;
	case ZYDIS_MNEMONIC_SHL:
	case ZYDIS_MNEMONIC_SHR:
	case ZYDIS_MNEMONIC_SAR:
		return shift_effect(x, 1);
	case ZYDIS_MNEMONIC_SHLD:
	case ZYDIS_MNEMONIC_SHRD:
		return x->op[0].size == 16 ? NOT_OURS : shift_effect(x, 2);
	case ZYDIS_MNEMONIC_ADC:
	case ZYDIS_MNEMONIC_SBB:
	case ZYDIS_MNEMONIC_INC:
	case ZYDIS_MNEMONIC_DEC:
	case ZYDIS_MNEMONIC_RCL:
	case ZYDIS_MNEMONIC_RCR:
	case ZYDIS_MNEMONIC_BSF:
	case ZYDIS_MNEMONIC_BSR:
	case ZYDIS_MNEMONIC_TZCNT:
	case ZYDIS_MNEMONIC_LZCNT:
	case ZYDIS_MNEMONIC_CLC:
	case ZYDIS_MNEMONIC_STC:
	case ZYDIS_MNEMONIC_CMC:
		return CHANGES;
	case ZYDIS_MNEMONIC_BT:
	case ZYDIS_MNEMONIC_BTS:
	case ZYDIS_MNEMONIC_BTR:
	case ZYDIS_MNEMONIC_BTC:
		return bit_effect(x);
	case ZYDIS_MNEMONIC_ROL:
	case ZYDIS_MNEMONIC_ROR:
		return rotate_effect(t, x);
	case ZYDIS_MNEMONIC_LAHF:
		return READS;
	default:
		break;
	}
	if (x->in.meta.category == ZYDIS_CATEGORY_CMOV)
		return READS;
	/* SETcc */
	if (x->in.opcode_map == ZYDIS_OPCODE_MAP_0F && (x->in.opcode & 0xf0) == 0x90)
		return READS;
	return NOT_OURS;
}

static enum effect sse_effect(const struct jit_insn *x)
{
	switch (x->in.mnemonic) {
	case ZYDIS_MNEMONIC_LDMXCSR:
	case ZYDIS_MNEMONIC_STMXCSR:
	case ZYDIS_MNEMONIC_MASKMOVDQU:
	case ZYDIS_MNEMONIC_CVTPI2PS:		/* may enter MMX state whatever its operand is */
	case ZYDIS_MNEMONIC_CVTPI2PD:
		return NOT_OURS;
	case ZYDIS_MNEMONIC_COMISS:
	case ZYDIS_MNEMONIC_COMISD:
	case ZYDIS_MNEMONIC_UCOMISS:
	case ZYDIS_MNEMONIC_UCOMISD:
	case ZYDIS_MNEMONIC_PTEST:
	case ZYDIS_MNEMONIC_PCMPESTRI:
	case ZYDIS_MNEMONIC_PCMPESTRM:
	case ZYDIS_MNEMONIC_PCMPISTRI:
	case ZYDIS_MNEMONIC_PCMPISTRM:
		return SETS;
	default:
		return NO_FLAGS;
	}
}

static bool is_sse(const struct jit_insn *x)
{
	switch (x->in.meta.isa_set) {
	case ZYDIS_ISA_SET_SSE:
	case ZYDIS_ISA_SET_SSE2:
	case ZYDIS_ISA_SET_SSE3:
	case ZYDIS_ISA_SET_SSSE3:
	case ZYDIS_ISA_SET_SSE4:
	case ZYDIS_ISA_SET_SSE42:
	case ZYDIS_ISA_SET_AES:
	case ZYDIS_ISA_SET_PCLMULQDQ:
		return true;
	default:
		return false;
	}
}

/* Memory operands of 16 bytes must be aligned, but for these. */
static bool may_be_unaligned(ZydisMnemonic m)
{
	switch (m) {
	case ZYDIS_MNEMONIC_MOVUPS:
	case ZYDIS_MNEMONIC_MOVUPD:
	case ZYDIS_MNEMONIC_MOVDQU:
	case ZYDIS_MNEMONIC_LDDQU:
	case ZYDIS_MNEMONIC_PCMPESTRI:
	case ZYDIS_MNEMONIC_PCMPESTRM:
	case ZYDIS_MNEMONIC_PCMPISTRI:
	case ZYDIS_MNEMONIC_PCMPISTRM:
		return true;
	default:
		return false;
	}
}

/* Looks at all operands, hidden ones too; false: a register that we do not pass on. */
static bool look_at_operands(struct jit_insn *x)
{
	for (unsigned i = 0; i < x->in.operand_count; i++) {
		const ZydisDecodedOperand *o = &x->op[i];
		bool writes = o->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE;

		if (o->type == ZYDIS_OPERAND_TYPE_MEMORY) {
			if (o->mem.type == ZYDIS_MEMOP_TYPE_AGEN)
				continue;
			if (x->mem >= 0 || o->visibility != ZYDIS_OPERAND_VISIBILITY_EXPLICIT ||
			    o->size < 8 || o->size > 128)
				return false;
			x->mem = (int8_t)i;
			x->mem_size = (uint8_t)(o->size / 8);
			x->mem_write = writes;
			continue;
		}
		if (o->type != ZYDIS_OPERAND_TYPE_REGISTER)
			continue;
		switch (ZydisRegisterGetClass(o->reg.value)) {
		case ZYDIS_REGCLASS_GPR8:
		case ZYDIS_REGCLASS_GPR16:
		case ZYDIS_REGCLASS_GPR32:
		case ZYDIS_REGCLASS_GPR64:
			if (writes)
				x->writes |= (uint16_t)BIT(soft_slot_of(o->reg.value) / 8);
			break;
		case ZYDIS_REGCLASS_XMM:
			x->xmm = true;
			break;
		case ZYDIS_REGCLASS_FLAGS:
			break;
		default:
			return false;
		}
	}
	return true;
}

/* A byte register that no instruction with REX can name, beside what would need REX. */
static bool high_byte_with_rex(const struct jit_insn *x)
{
	bool high = false, rex = x->mem >= 0;

	for (unsigned i = 0; i < x->in.operand_count_visible; i++) {
		const ZydisDecodedOperand *o = &x->op[i];
		unsigned slot;

		if (o->type != ZYDIS_OPERAND_TYPE_REGISTER)
			continue;
		slot = soft_slot_of(o->reg.value);
		if (slot & 1)
			high = true;
		else if (slot / 8 == GUEST_RSP)
			rex = true;
	}
	return high && rex;
}

static bool rewrite(struct jit_insn *x, enum effect effect)
{
	const struct soft_op *op = x->ops;

	if (effect == NOT_OURS || x->nops != 1 || high_byte_with_rex(x))
		return false;
	if (x->mem >= 0 && (!(x->in.attributes & ZYDIS_ATTRIB_HAS_MODRM) ||
			    x->in.raw.modrm.mod == 3 || !(op->flags & OPF_MEM)))
		return false;
	x->class = JIT_REWRITE;
	x->needs_flags = effect == READS || effect == CHANGES;
	x->sets_flags = effect == SETS || effect == CHANGES;
	return true;
}

/* ---- VEX encoding ---------------------------------------------------------- */

static bool vex_needs_alignment(ZydisMnemonic m)
{
	switch (m) {
	case ZYDIS_MNEMONIC_VMOVAPS:
	case ZYDIS_MNEMONIC_VMOVAPD:
	case ZYDIS_MNEMONIC_VMOVDQA:
	case ZYDIS_MNEMONIC_VMOVNTPS:
	case ZYDIS_MNEMONIC_VMOVNTPD:
	case ZYDIS_MNEMONIC_VMOVNTDQ:
	case ZYDIS_MNEMONIC_VMOVNTDQA:
		return true;
	default:
		return false;
	}
}

/* The handlers that do no more than the instruction would on the host. */
static bool vex_passes(op_fn *fn)
{
	return fn == vex_rr || fn == vex_load || fn == vex_store || fn == vex_mov_rr128 ||
	       fn == vex_mov_rr256 || fn == vex_load128 || fn == vex_load256 ||
	       fn == vex_store128 || fn == vex_store256 || fn == vex_zeroupper || fn == vex_zeroall;
}

/* General registers that host registers would have to be borrowed for. */
static uint16_t vex_in_memory(const struct vex_insn *v)
{
	const struct vex_operand *o[] = { &v->reg, &v->vvvv, &v->rm };
	uint16_t set = 0;

	for (unsigned i = 0; i < ARRAY_SIZE(o); i++)
		if (o[i]->file == VEX_GENERAL && jit_host_of(o[i]->number) < 0)
			set |= (uint16_t)BIT(o[i]->number);
	return set;
}

static uint16_t vex_writes(const struct vex_insn *v)
{
	const struct vex_operand *o[] = { &v->reg, &v->vvvv, &v->rm };
	uint16_t set = v->implicit_write;

	for (unsigned i = 0; i < ARRAY_SIZE(o); i++)
		if (o[i]->file == VEX_GENERAL && o[i]->write)
			set |= (uint16_t)BIT(o[i]->number);
	return set;
}

static bool vex(struct jit_insn *x)
{
	struct vex_insn *v = &x->vex;

	if (x->nops != 1 || !vex_passes(x->ops->fn) || !vex_parse(v, &x->in, x->op, true))
		return false;
	if (v->mem_size > 32 || v->has_vsib || (v->mem_size && !(x->ops->flags & OPF_MEM)) ||
	    __builtin_popcount(vex_in_memory(v)) > (v->mem_size ? 1 : 2))
		return false;
	for (unsigned i = 0; v->mem_size && i < x->in.operand_count_visible; i++)
		if (x->op[i].type == ZYDIS_OPERAND_TYPE_MEMORY)
			x->mem = (int8_t)i;
	x->class = JIT_REWRITE;
	x->xmm = x->ymm = v->avx;
	x->mem_size = v->mem_size;
	x->mem_write = v->mem_write;
	x->writes = vex_writes(v);
	if (v->mem_size && vex_needs_alignment(x->in.mnemonic))
		x->align = v->mem_size;
	x->sets_flags = v->writes_flags;
	/* Those of BMI1 and BMI2 that an instruction leaves undefined may be what they were. */
	x->needs_flags = v->writes_flags && !v->avx;
	return true;
}

static bool is_jcc(const struct soft_op *op)
{
	return op->fn == exec_jcc[op->dst & 15] || op->fn == exec_jcc_far[op->dst & 15];
}

/* The instructions that have code of their own, by the handlers that were chosen for them. */
static bool special(struct jit_insn *x)
{
	op_fn *fn = x->ops->fn;

	if (x->nops != 1)
		return false;
	if (fn == op_nop)
		x->class = JIT_NOTHING;
	else if (fn == exec_lea[1] || fn == exec_lea[2])
		x->class = JIT_LEA;
	else if (fn == op_push64_r || fn == op_push64_i)
		x->class = JIT_PUSH;
	else if (fn == op_push_m && x->ops->size == 8)
		x->class = JIT_PUSH_MEMORY;
	else if (fn == op_pop64_r)
		x->class = JIT_POP;
	else if (fn == op_leave64)
		x->class = JIT_LEAVE;
	else if (fn == op_jmp || fn == op_jmp_far)
		x->class = JIT_JMP;
	else if (fn == op_jmp_r || fn == op_jmp_m)
		x->class = JIT_JMP_INDIRECT;
	else if (fn == op_call || fn == op_call_far)
		x->class = JIT_CALL;
	else if (fn == op_call_r || fn == op_call_m)
		x->class = JIT_CALL_INDIRECT;
	else if (fn == op_ret)
		x->class = JIT_RET;
	else if (is_jcc(x->ops))
		x->class = JIT_JCC;
	else
		return false;
	switch (x->class) {
	case JIT_POP:
		x->writes = (uint16_t)(BIT(GUEST_RSP) | BIT(x->ops->dst / 8));
		break;
	case JIT_LEA:
		x->writes = (uint16_t)BIT(x->ops->dst / 8);
		break;
	case JIT_LEAVE:
		x->writes = BIT(GUEST_RSP) | BIT(RBP);
		break;
	case JIT_PUSH:
	case JIT_PUSH_MEMORY:
	case JIT_CALL:
	case JIT_CALL_INDIRECT:
	case JIT_RET:
		x->writes = BIT(GUEST_RSP);
		break;
	default:
		break;
	}
	return true;
}

void jit_classify(struct jit_translation *t, struct jit_insn *x)
{
	bool plain;

	x->class = JIT_INTERPRET;
	x->mem = -1;
	x->mem_size = x->align = 0;
	x->mem_write = x->needs_flags = x->sets_flags = x->xmm = x->ymm = false;
	x->writes = 0;
	if (special(x))
		return;
	if (x->in.encoding == ZYDIS_INSTRUCTION_ENCODING_VEX) {
		vex(x);
		return;
	}
	plain = x->in.encoding == ZYDIS_INSTRUCTION_ENCODING_LEGACY && look_at_operands(x) &&
		x->ops->fn != op_ud && x->ops->fn != op_nm;
	if (plain && x->xmm && t->c->mode & (MODE_NOSSE | MODE_FPSTRICT))
		plain = false;
	if (!plain || !rewrite(x, x->xmm ? is_sse(x) ? sse_effect(x) : NOT_OURS : integer_effect(t, x))) {
		x->xmm = false;
		return;
	}
	if (x->mem_size == 16 && !may_be_unaligned(x->in.mnemonic))
		x->align = 16;
	/* An atomic access across two lines of the host's cache can stop the host. */
	if (x->mem >= 0 && (x->in.attributes & ZYDIS_ATTRIB_HAS_LOCK ||
			    x->in.mnemonic == ZYDIS_MNEMONIC_XCHG))
		x->align = x->mem_size;
}
