/*
 * From bytes to a block of ops.  What is common to all instructions is here:
 * limits of the block, prefixes, the memory operand; the families choose the
 * handlers (decode_int.c, decode_sse.c, decode_x87.c, decode_sys.c).
 */
#include "cpu/model.h"
#include "cpu/soft/cache.h"
#include "cpu/soft/decode.h"
#include "cpu/soft/exec.h"
#include "cpu/soft/exec_x87.h"
#include "cpu/soft/specialise.h"

uint8_t soft_slot_of(ZydisRegister reg)
{
	if (reg >= ZYDIS_REGISTER_AL && reg <= ZYDIS_REGISTER_BL)
		return SLOT(reg - ZYDIS_REGISTER_AL);
	if (reg >= ZYDIS_REGISTER_AH && reg <= ZYDIS_REGISTER_BH)
		return SLOT(reg - ZYDIS_REGISTER_AH) + 1;
	if (reg >= ZYDIS_REGISTER_SPL && reg <= ZYDIS_REGISTER_R15B)
		return SLOT(reg - ZYDIS_REGISTER_SPL + 4);
	if (reg >= ZYDIS_REGISTER_AX && reg <= ZYDIS_REGISTER_R15W)
		return SLOT(reg - ZYDIS_REGISTER_AX);
	if (reg >= ZYDIS_REGISTER_EAX && reg <= ZYDIS_REGISTER_R15D)
		return SLOT(reg - ZYDIS_REGISTER_EAX);
	if (reg >= ZYDIS_REGISTER_RAX && reg <= ZYDIS_REGISTER_R15)
		return SLOT(reg - ZYDIS_REGISTER_RAX);
	return SLOT(SLOT_ZERO);
}

uint8_t soft_reg_number(ZydisRegister reg)
{
	switch (reg) {
	case ZYDIS_REGISTER_ES: return SEG_ES;
	case ZYDIS_REGISTER_CS: return SEG_CS;
	case ZYDIS_REGISTER_SS: return SEG_SS;
	case ZYDIS_REGISTER_DS: return SEG_DS;
	case ZYDIS_REGISTER_FS: return SEG_FS;
	case ZYDIS_REGISTER_GS: return SEG_GS;
	default: return (uint8_t)ZydisRegisterGetId(reg);
	}
}

/* BT and its kin with a register: the index is part of the address. */
static bool is_bit_string(const struct soft_decode *d)
{
	switch (d->insn->mnemonic) {
	case ZYDIS_MNEMONIC_BT:
	case ZYDIS_MNEMONIC_BTS:
	case ZYDIS_MNEMONIC_BTR:
	case ZYDIS_MNEMONIC_BTC:
		return soft_is_mem(d, 0) && soft_is_reg(d, 1);
	default:
		return false;
	}
}

/*
 * Fills in the memory operand.  Returns true when an address op is needed in
 * front, which is then in *ea; the instruction's own op finds the linear
 * address in SLOT_EA.
 */
static bool memory_operand(const struct soft_decode *d, struct soft_op *op, struct soft_op *ea)
{
	const ZydisDecodedOperand *o = &d->op[d->mem];
	const ZydisDecodedInstruction *in = d->insn;
	bool agen = o->mem.type == ZYDIS_MEMOP_TYPE_AGEN;
	bool long64 = d->mode & MODE_CS64;
	unsigned seg = agen ? SEG_DS : soft_reg_number(o->mem.segment);
	int64_t disp = o->mem.disp.has_displacement ? o->mem.disp.value : 0;
	uint8_t base = SLOT(SLOT_ZERO), index = SLOT(SLOT_ZERO), scale = 0;
	bool write = o->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE;

	/* Zydis 4.0 takes the absence of a base for R13 if REX.B is set and the address is 32 bits. */
	if (in->raw.modrm.mod == 0 && in->raw.sib.offset && in->raw.sib.base == 5)
		disp = in->raw.disp.value;
	else if (o->mem.base == ZYDIS_REGISTER_RIP || o->mem.base == ZYDIS_REGISTER_EIP) {
		base = SLOT(SLOT_IPBASE);
		disp += op->ip + op->len;
	} else if (o->mem.base != ZYDIS_REGISTER_NONE) {
		base = soft_slot_of(o->mem.base);
	}
	if (o->mem.index != ZYDIS_REGISTER_NONE) {
		index = soft_slot_of(o->mem.index);
		scale = (uint8_t)__builtin_ctz(o->mem.scale ? o->mem.scale : 1);
	}
	/* POP m computes its address with the stack pointer already moved. */
	if (in->mnemonic == ZYDIS_MNEMONIC_POP && base == SLOT(REG_RSP) && !agen)
		disp += in->operand_width / 8;

	op->seg = (uint8_t)seg;
	op->flags |= OPF_MEM;
	if (long64 && in->address_width == 64 && disp == (int32_t)disp) {
		bool fsgs = (seg == SEG_FS || seg == SEG_GS) && !agen;
		uint8_t slot = seg == SEG_FS ? SLOT(SLOT_FS) : SLOT(SLOT_GS);
		bool fits = true;

		if (fsgs && base == SLOT(SLOT_ZERO))
			base = slot;
		else if (fsgs && index == SLOT(SLOT_ZERO))
			index = slot;
		else
			fits = !fsgs;
		if (fits) {
			op->base = base;
			op->index = index;
			op->scale = scale;
			op->disp = (int32_t)disp;
			return false;
		}
	}
	*ea = *op;
	ea->base = base;
	ea->index = index;
	ea->scale = scale;
	ea->imm = (uint64_t)disp;
	ea->disp = o->size / 8;
	ea->flags |= write ? OPF_WRITE : 0;
	if (in->address_width == 32)
		ea->flags |= OPF_ADDR32;
	else if (in->address_width == 16)
		ea->flags |= OPF_ADDR16;
	if (is_bit_string(d) && in->address_width != 64) {
		ea->fn = op_ea_bits;
		ea->src = soft_slot_of(d->op[1].reg.value);
	} else if (agen || (long64 && seg != SEG_FS && seg != SEG_GS)) {
		ea->fn = op_ea_noseg;
	} else if (long64) {
		ea->fn = op_ea_fsgs;
	} else if (d->mode & MODE_FLAT && !long64 && in->address_width == 32 && seg <= SEG_DS &&
		 !(seg == SEG_CS && write)) {
		ea->fn = op_ea_flat32;
	} else {
		ea->fn = op_ea_seg;
	}
	op->base = SLOT(SLOT_EA);
	op->index = SLOT(SLOT_ZERO);
	op->scale = 0;
	op->disp = 0;
	return true;
}

void soft_decoder_init(ZydisDecoder *z, const struct soft_cpu *c)
{
	uint32_t mode = c->mode;
	bool pe = mode & MODE_PE && !(mode & MODE_VM86);

	if (mode & MODE_CS64)
		ZydisDecoderInit(z, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
	else if (mode & MODE_CS32)
		ZydisDecoderInit(z, ZYDIS_MACHINE_MODE_LEGACY_32, ZYDIS_STACK_WIDTH_32);
	else
		ZydisDecoderInit(z, pe ? ZYDIS_MACHINE_MODE_LEGACY_16 : ZYDIS_MACHINE_MODE_REAL_16,
				 ZYDIS_STACK_WIDTH_16);
	/* Encodings of features that the model does not announce mean what they meant before. */
	ZydisDecoderEnableMode(z, ZYDIS_DECODER_MODE_MPX, ZYAN_FALSE);
	ZydisDecoderEnableMode(z, ZYDIS_DECODER_MODE_CET, ZYAN_FALSE);
	ZydisDecoderEnableMode(z, ZYDIS_DECODER_MODE_LZCNT, c->model->v3);
	ZydisDecoderEnableMode(z, ZYDIS_DECODER_MODE_TZCNT, c->model->v3);
	ZydisDecoderEnableMode(z, ZYDIS_DECODER_MODE_WBNOINVD, ZYAN_FALSE);
	ZydisDecoderEnableMode(z, ZYDIS_DECODER_MODE_CLDEMOTE, ZYAN_FALSE);
}

/*
 * A pending x87 exception comes before what is wrong with the address, which
 * is found by an op in front of the one that looks for the exception.
 */
static bool waits(const struct soft_decode *d)
{
	switch (d->insn->mnemonic) {
	case ZYDIS_MNEMONIC_FNSTCW:
	case ZYDIS_MNEMONIC_FNSTSW:
	case ZYDIS_MNEMONIC_FNSTENV:
	case ZYDIS_MNEMONIC_FNSAVE:
		return false;
	default:
		break;
	}
	if (d->insn->opcode_map == ZYDIS_OPCODE_MAP_DEFAULT && d->insn->opcode >= 0xd8 &&
	    d->insn->opcode <= 0xdf)
		return true;
	for (unsigned i = 0; i < d->insn->operand_count; i++)
		if (soft_is_reg(d, i) &&
		    ZydisRegisterGetClass(d->op[i].reg.value) == ZYDIS_REGCLASS_MMX)
			return true;
	return false;
}

static const struct soft_op *op_gp0(struct soft_cpu *c, const struct soft_op *op)
{
	soft_raise_err(c, op, EXC_GP, 0);
}

unsigned soft_decode_one(struct soft_decode *d, unsigned offset, struct soft_op *out)
{
	const ZydisDecodedInstruction *in = d->insn;
	struct soft_op op = { 0 }, ea = { 0 };
	bool need_ea = false;
	unsigned n = 0;

	op.base = op.index = op.dst = op.src = SLOT(SLOT_ZERO);
	op.len = in->length;
	op.ip = (uint16_t)offset;
	op.size = (uint8_t)(in->operand_width / 8);
	op.seg = SEG_DS;
	d->opsize = in->operand_width / 8;
	if (in->attributes & ZYDIS_ATTRIB_HAS_LOCK)
		op.flags |= OPF_LOCK;
	for (unsigned i = 0; i < in->raw.prefix_count; i++) {
		if (in->raw.prefixes[i].value == 0xf3)
			op.flags = (op.flags & ~OPF_REPNE) | OPF_REP;
		else if (in->raw.prefixes[i].value == 0xf2)
			op.flags = (op.flags & ~OPF_REP) | OPF_REPNE;
	}
	d->mem = -1;
	for (unsigned i = 0; i < in->operand_count; i++)
		if (d->op[i].type == ZYDIS_OPERAND_TYPE_MEMORY &&
		    d->op[i].visibility == ZYDIS_OPERAND_VISIBILITY_EXPLICIT)
			d->mem = (int)i;
	if (d->mem >= 0 && !soft_vex_own_address(d))
		need_ea = memory_operand(d, &op, &ea);
	if (in->address_width == 32)
		op.flags |= OPF_ADDR32;
	else if (in->address_width == 16)
		op.flags |= OPF_ADDR16;

	if (in->encoding == ZYDIS_INSTRUCTION_ENCODING_VEX ? !soft_decode_vex(d, &op) :
	    in->encoding != ZYDIS_INSTRUCTION_ENCODING_LEGACY ||
	    !(soft_decode_int(d, &op) || soft_decode_sse(d, &op) || soft_decode_x87(d, &op) ||
	      soft_decode_sys(d, &op))) {
		op.fn = op_ud;
		d->ends_block = d->raises = true;
		d->before.fn = d->after.fn = NULL;
	}
	if (need_ea && op.fn != op_nop && !d->raises) {
		if (ea.fn == op_ea_seg && waits(d)) {
			out[n] = op;
			out[n++].fn = x87_fwait;
		}
		out[n++] = ea;
	}
	if (d->before.fn) {
		d->before.ip = op.ip;
		d->before.len = op.len;
		out[n++] = d->before;
	}
	out[n++] = op;
	if (d->after.fn) {
		d->after.ip = op.ip;
		d->after.len = op.len;
		out[n++] = d->after;
	}
	for (unsigned i = 1; i < n; i++)
		out[i].flags &= (uint8_t)~OPF_FIRST;
	out[0].flags |= OPF_FIRST;
	return n;
}

unsigned soft_decode_block(struct soft_cpu *c, const struct block_bytes *in, unsigned max,
			   struct soft_op *ops, unsigned *ninsns, unsigned *nbytes)
{
	ZydisDecoder z;
	ZydisDecoderContext context;
	ZydisDecodedInstruction insn;
	ZydisDecodedOperand operands[ZYDIS_MAX_OPERAND_COUNT];
	uint8_t first_op[BLOCK_MAX_INSNS + 1];
	uint8_t effect[BLOCK_MAX_INSNS];
	unsigned at = 0, n = 1, count = 0;
	bool ends = false;

	soft_decoder_init(&z, c);
	while (count < max && !ends && at < in->avail) {
		struct soft_decode d = { .c = c, .mode = c->mode, .insn = &insn, .op = operands };
		unsigned avail = in->avail - at;
		ZyanStatus s = ZydisDecoderDecodeInstruction(&z, &context, in->bytes + at, avail,
							     &insn);

		if (s == ZYDIS_STATUS_NO_MORE_DATA && avail < 15) {
			if (count == 0)
				return 0;
			break;
		}
		effect[count] = EFFECT_BARRIER;
		first_op[count++] = (uint8_t)n;
		if (ZYAN_SUCCESS(s))
			s = ZydisDecoderDecodeOperands(&z, &context, &insn, operands,
						       insn.operand_count);
		if (!ZYAN_SUCCESS(s)) {
			/* Not an instruction, or longer than 15 bytes. */
			bool too_long = s == ZYDIS_STATUS_INSTRUCTION_TOO_LONG ||
					s == ZYDIS_STATUS_NO_MORE_DATA;

			ops[n] = (struct soft_op){ .fn = too_long ? op_gp0 : op_ud,
				.ip = (uint16_t)(in->page_offset + at), .len = 1,
				.flags = OPF_FIRST };
			n++;
			/* Any of the bytes that were looked at may make it one. */
			at += MIN(avail, 15u);
			ends = true;
			break;
		}
		n += soft_decode_one(&d, in->page_offset + at, ops + n);
		effect[count - 1] = soft_flag_effect(&d);
		at += insn.length;
		ends = d.ends_block;
	}
	first_op[count] = (uint8_t)n;
	for (unsigned i = 0; i < count; i++)
		for (unsigned k = first_op[i]; k < first_op[i + 1]; k++)
			ops[k].left = (uint8_t)(count - 1 - i);
	soft_specialise(c->twins, ops, first_op, effect, count);
	ops[0] = (struct soft_op){ .fn = op_head, .ip = (uint16_t)in->page_offset, .imm = count };
	ops[n] = (struct soft_op){ .fn = op_end, .ip = (uint16_t)(in->page_offset + at) };
	*ninsns = count;
	*nbytes = at;
	return n + 1;
}
