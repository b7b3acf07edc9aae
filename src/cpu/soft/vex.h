/*
 * VEX-encoded instructions (SDM vol. 2, 2.3), taken apart and put together again with other
 * registers, or with their memory operand elsewhere.
 *
 * vex_parse says which registers of which file an instruction reads and writes, implicit ones
 * included; who runs it on the host chooses host registers for them, writes their numbers into
 * reg, vvvv, rm and is4, and calls vex_encode.  Only the features of cpu.model=skep-v3.1 are
 * known: AVX, AVX2, FMA, F16C, BMI1, BMI2.
 *
 * Pure functions; any thread.
 */
#ifndef SKEP_CPU_SOFT_VEX_H
#define SKEP_CPU_SOFT_VEX_H

#include <stdbool.h>
#include <stdint.h>

#include <Zydis/Zydis.h>

/* What an operand field of the encoding names. */
enum vex_file { VEX_NONE, VEX_VECTOR, VEX_GENERAL };

struct vex_operand {
	uint8_t file;			/* enum vex_file */
	uint8_t number;			/* 0-15 */
	bool read, write;
};

struct vex_insn {
	ZydisMnemonic mnemonic;
	uint8_t map, pp, opcode;	/* map: 1 0F, 2 0F38, 3 0F3A */
	bool w, wide;			/* VEX.W, VEX.L */
	/*
	 * The four fields.  reg of file VEX_NONE is part of the opcode; rm of file VEX_NONE is
	 * memory.  is4 is never written.
	 */
	struct vex_operand reg, vvvv, rm, is4;
	bool has_imm;
	uint8_t imm;
	uint8_t mem_size;		/* bytes of the memory operand; 0: there is none */
	bool mem_read, mem_write;
	uint8_t vsib;			/* VSIB: the number of the index register */
	bool has_vsib;

	/* All of them together, implicit ones too: bit n is register n. */
	uint16_t vec_read, vec_write;
	uint16_t vec_read_wide;		/* those of vec_read of which bits 255:128 are read */
	uint16_t implicit_read, implicit_write;	/* general registers in no field */
	bool writes_flags;		/* some of the six status flags; none reads them */
	bool avx;			/* needs AVX state (else BMI) */
	bool raises;			/* may raise SIMD floating-point exceptions (#XM) */
	bool no_ac;			/* its memory operand is never checked for alignment (#AC) */
};

/*
 * False: no VEX instruction, or of a feature that is not known.  The memory operand's address is
 * not looked at, but for VSIB's index.  long64: the code is 64-bit code.
 */
bool vex_parse(struct vex_insn *v, const ZydisDecodedInstruction *in, const ZydisDecodedOperand *op,
	       bool long64);

#define VEX_MAX_BYTES 12
/*
 * The bytes of v for 64-bit mode, its memory operand at [base + disp] (base a general register;
 * instructions with VSIB cannot be encoded).  Returns their number.
 */
unsigned vex_encode(const struct vex_insn *v, unsigned base, int32_t disp, uint8_t *out);

#endif
