/* The generator's parts: opcodes and prefixes (opcodes.c), addresses (address.c), cases (generate.c). */
#ifndef SKEP_TESTS_DIFF_GENERATE_H
#define SKEP_TESTS_DIFF_GENERATE_H

#include "diff.h"

#define GEN_RCX	1
#define GEN_RDX	2
#define GEN_RSP	4
#define GEN_RSI	6
#define GEN_RDI	7

/* A branch target that is known only when the whole case is. */
struct gen_link {
	enum { LINK_REL, LINK_REG, LINK_MEMORY } kind;
	unsigned insn;		/* the branch */
	unsigned at;		/* offset in the code, register, or address */
	unsigned size;		/* bytes of a relative displacement */
	bool backward;		/* may go back: LOOP with a small count */
};

/* What a sequence is made of: what the soft processor makes one op of, or leaves flags out of. */
enum gen_theme { THEME_ANY, THEME_INTEGER, THEME_FLOAT };

struct gen {
	struct rng r;
	enum gen_theme theme;
	struct diff_case *k;
	const struct host_facts *host;
	ZydisDecoder decoder;
	uint16_t changed;	/* registers that an earlier instruction writes */
	uint16_t pinned;	/* registers whose first value is settled */
	bool bases_changed;	/* FS or GS base too */
	bool branches;		/* an earlier instruction may jump */
	bool locks;		/* holds an atomic operation */
	bool reads_flags;
	uint32_t undefined;	/* status flags that may be undefined here */
	struct gen_link link[CASE_MAX_INSNS * 2];
	unsigned nlinks;
	uint8_t address[8];	/* ModRM to displacement of the last memory operand */
	unsigned address_len, address_rex;
};

/* An instruction in the making. */
struct gen_insn {
	uint8_t bytes[32];	/* random beyond the opcode */
	uint32_t rip;
	ZydisDecodedInstruction insn;
	ZydisDecodedOperand ops[ZYDIS_MAX_OPERAND_COUNT];
	uint64_t target;	/* linear address of the explicit memory operand, if known */
	bool target_known;
	bool has_memory;
	int rex;		/* offset of the REX prefix, or -1 */
	int vex;		/* offset of a VEX prefix of three bytes, or -1 */
};

/* opcodes.c: prefixes, opcode, and noise behind it. */
void gen_opcode(struct gen *g, struct gen_insn *n);

/* address.c */
/* A linear address worth an operand of size bytes. */
uint32_t gen_target(struct gen *g, unsigned size);
/* Gives the decoded instruction a new address that lands where we want; decode again. */
void gen_readdress(struct gen *g, struct gen_insn *n);
/* Patches a RIP-relative displacement, now that the length is known. */
void gen_rip_relative(struct gen_insn *n);
/* The linear address of the memory operand, if only settled registers make it up. */
bool gen_linear(struct gen *g, struct gen_insn *n, uint64_t *lin);
/* The registers' first value is settled; false: too late. */
bool gen_pin(struct gen *g, unsigned reg, uint64_t value);
/* Memory holds this at the start of the case. */
bool gen_patch(struct gen *g, uint64_t addr, const void *bytes, unsigned len);

static inline uint64_t gen_truncate(const struct gen *g, uint64_t v)
{
	return g->k->compat ? (uint32_t)v : v;
}

#endif
