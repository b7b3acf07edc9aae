#include "cpu/soft/jit/emit.h"

static void emit_modrm(struct emit *e, const struct emit_insn *i)
{
	unsigned reg = (unsigned)(i->reg & 7) << 3, mod;

	switch (i->kind) {
	case RM_NONE:
		return;
	case RM_REG:
		emit8(e, (uint8_t)(0xc0 | reg | (i->rm & 7)));
		return;
	case RM_GS:
		emit8(e, (uint8_t)(reg | 4));
		emit8(e, 0x25);
		emit32(e, (uint32_t)i->disp);
		return;
	case RM_SIB:
		if (i->rm < 0) {
			emit8(e, (uint8_t)(reg | 4));
			emit8(e, (uint8_t)(i->scale << 6 | (i->index & 7) << 3 | 5));
			emit32(e, (uint32_t)i->disp);
			return;
		}
		break;
	case RM_MEM:
		break;
	}
	mod = !i->disp && (i->rm & 7) != 5 ? 0 : i->disp == (int8_t)i->disp ? 1 : 2;
	if (i->kind == RM_SIB || (i->rm & 7) == 4) {
		unsigned index = i->kind == RM_SIB ? (unsigned)i->index & 7 : 4;

		emit8(e, (uint8_t)(mod << 6 | reg | 4));
		emit8(e, (uint8_t)(i->scale << 6 | index << 3 | (i->rm & 7)));
	} else {
		emit8(e, (uint8_t)(mod << 6 | reg | (i->rm & 7)));
	}
	if (mod == 1)
		emit8(e, (uint8_t)i->disp);
	else if (mod == 2)
		emit32(e, (uint32_t)i->disp);
}

void emit_insn(struct emit *e, const struct emit_insn *i)
{
	uint8_t rex = i->rex ? 0x40 : 0, op = i->op;

	if (i->kind == RM_GS)
		emit8(e, 0x65);
	if (i->lock)
		emit8(e, 0xf0);
	if (i->p66)
		emit8(e, 0x66);
	if (i->rep)
		emit8(e, i->rep);
	if (i->w)
		rex |= 0x48;
	if (i->kind == RM_NONE) {
		if (i->reg >= 0)
			op = (uint8_t)((op & 0xf8) | (i->reg & 7));
		if (i->reg >= 8)
			rex |= 0x41;
	} else {
		if (i->reg >= 8)
			rex |= 0x44;
		if (i->kind != RM_GS && i->rm >= 8)
			rex |= 0x41;
		if (i->kind == RM_SIB && i->index >= 8)
			rex |= 0x42;
	}
	if (rex)
		emit8(e, rex);
	if (i->map)
		emit8(e, 0x0f);
	if (i->map == 2)
		emit8(e, 0x38);
	else if (i->map == 3)
		emit8(e, 0x3a);
	emit8(e, op);
	emit_modrm(e, i);
	emit_bytes(e, &i->imm, i->imm_size);
}

void emit_rr(struct emit *e, bool w, uint8_t op, int reg, int rm)
{
	emit_insn(e, &(struct emit_insn){ .w = w, .op = op, .reg = (int8_t)reg, .kind = RM_REG,
					  .rm = (int8_t)rm });
}

void emit_gs(struct emit *e, bool w, uint8_t op, int reg, int32_t disp)
{
	emit_insn(e, &(struct emit_insn){ .w = w, .op = op, .reg = (int8_t)reg, .kind = RM_GS,
					  .disp = disp });
}

void emit_mem(struct emit *e, bool w, uint8_t op, int reg, int base, int32_t disp)
{
	emit_insn(e, &(struct emit_insn){ .w = w, .op = op, .reg = (int8_t)reg, .kind = RM_MEM,
					  .rm = (int8_t)base, .disp = disp });
}

void emit_alu_imm(struct emit *e, bool w, unsigned digit, int rm, int32_t imm)
{
	bool small = imm == (int8_t)imm;

	emit_insn(e, &(struct emit_insn){ .w = w, .op = small ? 0x83 : 0x81, .reg = (int8_t)digit,
					  .kind = RM_REG, .rm = (int8_t)rm, .imm = (uint32_t)imm,
					  .imm_size = small ? 1 : 4 });
}

void emit_lea(struct emit *e, int reg, int base, int index, unsigned scale, int32_t disp)
{
	emit_insn(e, &(struct emit_insn){ .w = true, .op = 0x8d, .reg = (int8_t)reg,
					  .kind = index < 0 ? RM_MEM : RM_SIB, .rm = (int8_t)base,
					  .index = (int8_t)index, .scale = (uint8_t)scale,
					  .disp = disp });
}

void emit_mov_imm(struct emit *e, int reg, uint64_t v)
{
	if (v == (uint32_t)v)
		emit_insn(e, &(struct emit_insn){ .op = 0xb8, .reg = (int8_t)reg, .imm = v,
						  .imm_size = 4 });
	else if (v == (uint64_t)(int64_t)(int32_t)v)
		emit_insn(e, &(struct emit_insn){ .w = true, .op = 0xc7, .reg = 0, .kind = RM_REG,
						  .rm = (int8_t)reg, .imm = (uint32_t)v,
						  .imm_size = 4 });
	else
		emit_insn(e, &(struct emit_insn){ .w = true, .op = 0xb8, .reg = (int8_t)reg,
						  .imm = v, .imm_size = 8 });
}

uint8_t *emit_branch(struct emit *e, unsigned kind, const uint8_t *run_target)
{
	uint8_t *site;

	if (kind == EMIT_JMP) {
		emit8(e, 0xe9);
	} else if (kind == EMIT_CALL) {
		emit8(e, 0xe8);
	} else {
		emit8(e, 0x0f);
		emit8(e, (uint8_t)(0x80 | kind));
	}
	site = e->at;
	emit32(e, 0);
	if (run_target)
		emit_patch(e, site, run_target);
	return site;
}
