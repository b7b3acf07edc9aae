/*
 * The differential tester: random user-mode instructions run on the host's own processor and on
 * the soft one, from the same state, and everything that a program can see afterwards is compared.
 *
 * Both worlds have the same pages at the same linear addresses (below 2 GiB, so that every way of
 * addressing reaches them).  A case is a few instructions, a state to begin with, and what memory
 * holds; it follows from a seed and a number alone.  Its last instruction jumps to EXIT_BASE.
 */
#ifndef SKEP_TESTS_DIFF_H
#define SKEP_TESTS_DIFF_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <Zydis/Zydis.h>

#include "base/util.h"

/* ---- The common address space -------------------------------------------- */

#define CODE_BASE	0x10000000u	/* executable, not writable; then a hole */
#define CODE_SIZE	0x2000u
#define DATA_BASE	0x10020000u	/* pages as below; holes on both sides */
enum { DATA_RW0, DATA_RW1, DATA_RO, DATA_HOLE, DATA_RW2, DATA_PAGES };
#define DATA_SIZE	(DATA_PAGES * 0x1000u)
#define EXIT_BASE	0x1d3c5000u	/* where 64-bit code ends; nothing else points there */
#define EXIT32_BASE	(EXIT_BASE + 0x40)
#define CODE_FILL	0xcc		/* INT3 wherever no case put code */

/* Linux's selectors, which the soft side's descriptor table mirrors. */
#define SEL_CS64	0x33
#define SEL_CS32	0x23
#define SEL_DATA	0x2b

/* ---- States ---------------------------------------------------------------- */

/* FXSAVE64's image (SDM vol. 1, table 10-2), pointers always zero. */
struct fx_image {
	uint16_t fcw, fsw;
	uint8_t ftw, pad;
	uint16_t fop;
	uint64_t fip, fdp;
	uint32_t mxcsr, mxcsr_mask;
	uint8_t st[8][16];		/* from the top of the stack */
	uint8_t xmm[16][16];
	uint8_t reserved[96];
};
_Static_assert(sizeof(struct fx_image) == 512, "FXSAVE image");

struct machine {
	uint64_t gpr[16], rip, rflags, fs_base, gs_base;
	_Alignas(64) struct fx_image fx;
	uint8_t ymmh[16][16];		/* bits 255:128 of YMM0-15; zeros where the model has no AVX */
};

enum ending {
	END_EXIT,		/* reached the exit */
	END_FAULT,
	END_TIMEOUT,
	END_ESCAPED,		/* native only: code we did not make called the system */
	END_BROKEN,		/* soft only: triple fault or worse */
};

struct outcome {
	struct machine m;
	enum ending ending;
	uint8_t vector;
	uint32_t error;
	uint64_t cr2;
	const uint8_t *memory;	/* DATA_SIZE bytes afterwards, the hole undefined */
};

/* ---- Cases ----------------------------------------------------------------- */

#define CASE_MAX_INSNS	6
#define CASE_MAX_BYTES	(CASE_MAX_INSNS * 15 + 8)
#define CASE_MAX_PATCHES 24

struct case_insn {
	uint8_t off, len;
	ZydisMnemonic mnemonic;
	bool mmx;		/* has an MM operand */
	uint16_t operand;	/* bytes of its explicit memory operand */
	uint32_t undefined;	/* status flags that may be undefined after it */
};

struct case_patch {
	uint32_t addr;		/* within a writable data page */
	uint16_t len;
	uint8_t bytes[64];
};

enum case_kind {
	CASE_COMPARE,		/* run on both sides */
	CASE_UD,		/* soft only: a feature that is not announced raises #UD */
};

struct diff_case {
	uint64_t seed, number;
	enum case_kind kind;
	bool compat;			/* 32-bit code under a 64-bit system */
	bool foreign;			/* the host is not of the model's vendor */
	uint32_t start;			/* linear address of the first byte */
	uint8_t code[CASE_MAX_BYTES];
	/* The same with LOCK replaced where the host must not split a lock. */
	uint8_t native_code[CASE_MAX_BYTES];
	unsigned len;			/* with the jump to the exit */
	unsigned ninsns;
	struct case_insn insn[CASE_MAX_INSNS];
	uint32_t undefined_end;		/* status flags undefined if it runs to the end */
	uint32_t undefined_any;		/* ... if it stops anywhere */
	struct machine in;
	struct case_patch patch[CASE_MAX_PATCHES];
	unsigned npatches;
};

/* ---- generate.c, rules.c ----------------------------------------------------- */

struct host_facts {
	bool fsgsbase;			/* RDFSBASE and its kin work in user mode */
	bool compat;			/* 32-bit code segments work */
	bool intel;			/* rules that differ between vendors are Intel's */
	bool v3;			/* compare cpu.model=skep-v3.1 */
};

void generate_init(const struct host_facts *host);
/* Fills *k from seed and number. */
void generate_case(struct diff_case *k, uint64_t seed, uint64_t number);
/* The same case cut after its first n instructions. */
void generate_cut(struct diff_case *k, unsigned n);
/* Resets and fills the DATA_SIZE bytes that every case starts from. */
void generate_base_memory(uint8_t *memory, uint64_t seed);

enum rule {
	RULE_RUN,		/* may be compared, anywhere in a sequence */
	RULE_ALONE,		/* may be compared, alone */
	RULE_UD,		/* not announced */
	RULE_SKIP,		/* depends on more than what is compared */
};
enum rule rule_for(const ZydisDecodedInstruction *insn, const ZydisDecodedOperand *ops,
		   const struct host_facts *host);
/* Bytes that are no instruction: does the host certainly say so too? */
bool rule_undefined_is_safe(const uint8_t *bytes, ZyanStatus status, bool compat);
/* Status flags that the SDM leaves undefined after it. */
uint32_t rule_undefined_flags(const ZydisDecodedInstruction *insn, const ZydisDecodedOperand *ops);
/* Prints the mnemonics that are announced, may be compared, and were not seen. */
unsigned rule_print_missing(const uint32_t *seen, const struct host_facts *host, FILE *out);
void rule_decoder(ZydisDecoder *z, bool compat);
/* Are VEX instructions and the like part of the model?  Of the decoder above, too. */
void rule_set_model(bool v3);
/* 15 bytes. */
ZyanStatus rule_decode(const ZydisDecoder *z, const uint8_t *bytes, ZydisDecodedInstruction *insn,
		       ZydisDecodedOperand *ops);

/* ---- values.c ----------------------------------------------------------------- */

struct rng { uint64_t s[4]; };
void rng_seed(struct rng *r, uint64_t seed, uint64_t number);
uint64_t rng_next(struct rng *r);
static inline unsigned rng_below(struct rng *r, unsigned n)
{
	return (unsigned)((rng_next(r) >> 32) * n >> 32);
}
static inline bool rng_percent(struct rng *r, unsigned p) { return rng_below(r, 100) < p; }
uint64_t value_int(struct rng *r);		/* edge cases and noise */
void value_vector(struct rng *r, uint8_t out[16]);	/* integers, singles, doubles */
void value_x87(struct rng *r, uint8_t out[10]);
uint32_t value_mxcsr(struct rng *r);

/* ---- native.c ------------------------------------------------------------------ */

/* NULL, or why the host cannot be compared with. */
const char *native_init(struct host_facts *host);
void native_run(const struct diff_case *k, const uint8_t *memory, struct outcome *o);
/* Called twice a second from a signal handler, outside native code. */
extern void (*native_tick)(void);

/* ---- What a host may lack, as skep says it ---------------------------------------- */

#define NO_TRANSLATOR	"gives no memory for translated code"
#define NO_MODEL	"this host's processor has no"

/* ---- soft.c --------------------------------------------------------------------- */

enum soft_path {
	SOFT_COLD,		/* decoded for the first time */
	SOFT_WARM,		/* from the cache of blocks */
	SOFT_ALONE,		/* each instruction by itself */
	SOFT_TRANSLATED,	/* translated, for the first time */
	SOFT_TRANSLATED_WARM,	/* ... and again */
	SOFT_PATHS
};
/* NULL, or why there is none; how many of the paths there are.  v3: cpu.model=skep-v3.1. */
const char *soft_init(bool v3, unsigned *paths);
/* Puts the code in place, and takes it away again. */
void soft_place(const struct diff_case *k);
void soft_unplace(const struct diff_case *k);
void soft_execute(const struct diff_case *k, const uint8_t *memory, enum soft_path path,
		  struct outcome *o);
void soft_finish(void);
void soft_tick(void);

/* ---- compare.c ------------------------------------------------------------------ */

/* Are they the same?  out not NULL: prints the differences. */
bool compare_outcomes(const struct diff_case *k, const struct outcome *native,
		      const struct outcome *soft, FILE *out);
/* Is this what CASE_UD wants? */
bool compare_ud(const struct diff_case *k, const uint8_t *memory, const struct outcome *soft,
		FILE *out);
/* Its code and, if wanted, the state that it begins with. */
void compare_print_case(const struct diff_case *k, bool state, FILE *out);
const char *path_name(enum soft_path path);

#endif
