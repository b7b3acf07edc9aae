/*
 * Sequences: random programs of 5 to 40 instructions, straight or with loops, calls and jumps, whose
 * memory operands cross pages, fault in the middle, or write over the code.  Each is run one
 * instruction at a time, which is the reference; then, by every other way to run code, up to every
 * instruction count from the first to the last, where the whole state must be the same.
 *
 * programs.c makes them; box.c is a machine that runs them; main.c compares.
 */
#ifndef SKEP_TESTS_SEQUENCE_H
#define SKEP_TESTS_SEQUENCE_H

#include "../diff.h"
#include "cpu/arch.h"

/* ---- The address space: like ../diff.h's, with more pages -------------------------- */

#define SEQ_CODE	0x10000000u	/* two pages, readable, writable, executable */
#define SEQ_ALIAS	0x10010000u	/* the same two, not executable */
#define SEQ_DATA	0x10020000u	/* RW RW RO hole RW RW hole */
#define SEQ_CODE_PAGES	2u
#define SEQ_DATA_PAGES	6u		/* in RAM the hole has a page, too */
#define SEQ_DATA_RO	2u
#define SEQ_DATA_HOLE	3u
/* What a program can write to, as one stretch of RAM: code, then data, then the kernel's stack. */
#define SEQ_RAM		((SEQ_CODE_PAGES + SEQ_DATA_PAGES + 1) * 0x1000u)

#define SEQ_MAX_INSNS	40u
#define SEQ_MAX_BYTES	(SEQ_MAX_INSNS * 15)
#define SEQ_MAX_COUNT	160u		/* instructions that a run goes on for, at most */

struct program {
	uint64_t seed, number;
	bool loops, writes_code;
	uint32_t start;			/* linear */
	unsigned ninsns, len;
	uint16_t off[SEQ_MAX_INSNS + 1];
	uint8_t code[SEQ_MAX_BYTES + 16];
	struct machine in;		/* ../diff.h */
	uint8_t data[SEQ_DATA_PAGES * 0x1000];
};

/* v3: for cpu.model=skep-v3.1, with VEX instructions. */
void program_make(struct program *p, uint64_t seed, uint64_t number, bool v3);
void program_print(const struct program *p, const uint8_t *code, FILE *out);

/* ---- box.c ------------------------------------------------------------------------------ */

enum box_way {
	BOX_ALONE,		/* the reference: one instruction at a time */
	BOX_BLOCKS,
	BOX_SHORT_BLOCKS,	/* of three instructions */
	BOX_TRANSLATED,
	BOX_WAYS
};

struct bare;	/* ../bare.h */
/* NULL with *why set: there is none. */
struct bare *box_create(enum box_way way, bool v3, const char **why);
void box_destroy(struct bare *b);
/* Puts everything as the program finds it; cold: nothing is known of earlier runs. */
void box_load(struct bare *b, const struct program *p, bool cold);
/*
 * Runs n instructions more, or until the machine halts for good (a fault's handler does); returns
 * true if it has.
 */
bool box_run(struct bare *b, uint64_t n);
void box_state(struct bare *b, struct cpu_arch_state *s);
const uint8_t *box_ram(const struct bare *b);	/* SEQ_RAM bytes */
uint64_t box_insns(const struct bare *b);

#endif
