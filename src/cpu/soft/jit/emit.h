/*
 * Writing host instructions.  An instruction is described by its fields, so that one of the
 * guest's can be written again with other registers: SDM vol. 2, chapter 2.
 */
#ifndef SKEP_CPU_SOFT_JIT_EMIT_H
#define SKEP_CPU_SOFT_JIT_EMIT_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

/* Where code is written; its run address is at + delta. */
struct emit {
	uint8_t *at, *end;
	intptr_t delta;
};

enum { RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8, R9, R10, R11, R12, R13, R14, R15 };

enum emit_rm {
	RM_NONE,	/* no ModRM; reg is the register in the opcode, or -1 */
	RM_REG,		/* rm is a register */
	RM_MEM,		/* [rm + disp] */
	RM_SIB,		/* [rm + index << scale + disp]; rm -1: no base */
	RM_GS,		/* gs:[disp] */
};

struct emit_insn {
	bool p66, lock, w, rex;		/* rex: a REX prefix in any case (SPL, DIL ...) */
	uint8_t rep;			/* 0xf2, 0xf3 or 0 */
	uint8_t map;			/* 0: one byte; 1: 0f; 2: 0f 38; 3: 0f 3a */
	uint8_t op;
	int8_t reg;
	enum emit_rm kind;
	int8_t rm, index;
	uint8_t scale;
	int32_t disp;
	uint8_t imm_size;
	uint64_t imm;
};

static inline void emit_bytes(struct emit *e, const void *p, unsigned n)
{
	memcpy(e->at, p, n);
	e->at += n;
}

static inline void emit8(struct emit *e, uint8_t v)
{
	*e->at++ = v;
}

static inline void emit32(struct emit *e, uint32_t v)
{
	emit_bytes(e, &v, 4);
}

static inline void emit64(struct emit *e, uint64_t v)
{
	emit_bytes(e, &v, 8);
}

void emit_insn(struct emit *e, const struct emit_insn *i);

/* ---- What the translator itself needs ---------------------------------- */

/* op reg, rm and the like: 64-bit if w. */
void emit_rr(struct emit *e, bool w, uint8_t op, int reg, int rm);
void emit_gs(struct emit *e, bool w, uint8_t op, int reg, int32_t disp);
void emit_mem(struct emit *e, bool w, uint8_t op, int reg, int base, int32_t disp);
/* The 81 and 83 group: digit is the operation. */
void emit_alu_imm(struct emit *e, bool w, unsigned digit, int rm, int32_t imm);
void emit_lea(struct emit *e, int reg, int base, int index, unsigned scale, int32_t disp);
void emit_mov_imm(struct emit *e, int reg, uint64_t v);

enum { ALU_DIGIT_ADD, ALU_DIGIT_OR, ALU_DIGIT_ADC, ALU_DIGIT_SBB, ALU_DIGIT_AND, ALU_DIGIT_SUB,
       ALU_DIGIT_XOR, ALU_DIGIT_CMP };
#define OP_MOV_LOAD	0x8b
#define OP_MOV_STORE	0x89

/* jmp, call or jcc (condition 0-15) with a 32-bit displacement; returns where that stands. */
#define EMIT_JMP	16
#define EMIT_CALL	17
uint8_t *emit_branch(struct emit *e, unsigned kind, const uint8_t *run_target);
/* Lets the displacement at `site` lead to the run address. */
static inline void emit_patch(const struct emit *e, uint8_t *site, const uint8_t *run_target)
{
	int32_t d = (int32_t)(run_target - (site + 4 + e->delta));

	memcpy(site, &d, 4);
}

static inline uint8_t *emit_run(const struct emit *e)
{
	return e->at + e->delta;
}

#endif
