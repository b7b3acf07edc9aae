/*
 * Decoding: one instruction at a time from Zydis to ops.
 */
#ifndef SKEP_CPU_SOFT_DECODE_H
#define SKEP_CPU_SOFT_DECODE_H

#include <Zydis/Zydis.h>

#include "cpu/soft/soft.h"

struct soft_decode {
	struct soft_cpu *c;
	uint32_t mode;			/* MODE_*, as the block's key */
	const ZydisDecodedInstruction *insn;
	const ZydisDecodedOperand *op;	/* all operands, hidden ones too */
	unsigned opsize;		/* effective operand size in bytes: 2, 4, 8 (1 where the opcode says so) */
	int mem;			/* index of the explicit memory operand in op[], or -1 */
	bool ends_block;		/* out: no instruction of this block follows */
	bool raises;			/* out: it only raises, before it looks at its operands */
	/*
	 * An op to be placed after this one, part of the same instruction (fn NULL:
	 * none); used by the strict floating-point wrapper.
	 */
	struct soft_op after;
	struct soft_op before;
};

/* A decoder of what the model has, in the mode (MODE_*). */
void soft_decoder_init(ZydisDecoder *z, const struct soft_cpu *c);
/* One instruction, at `offset` in its page, into at most OPS_PER_INSN ops at *out; returns how many. */
unsigned soft_decode_one(struct soft_decode *d, unsigned offset, struct soft_op *out);
#define OPS_PER_INSN 5

/* Byte offset into r[] of a general register (8-bit high ones too). */
uint8_t soft_slot_of(ZydisRegister reg);
/* Number 0-15 of an XMM, MM, ST, segment, control or debug register. */
uint8_t soft_reg_number(ZydisRegister reg);

static inline bool soft_is_mem(const struct soft_decode *d, unsigned i)
{
	return i < d->insn->operand_count && d->op[i].type == ZYDIS_OPERAND_TYPE_MEMORY;
}

static inline bool soft_is_reg(const struct soft_decode *d, unsigned i)
{
	return i < d->insn->operand_count && d->op[i].type == ZYDIS_OPERAND_TYPE_REGISTER;
}

#endif
