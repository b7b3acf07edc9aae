/*
 * Inside of the translator.
 *
 * While translated code runs, the guest's registers are where the table says, gs is the base of
 * struct soft_cpu, and R14 and R15 are free:
 *
 *	RAX RCX RDX RBX RBP RSI RDI R8-R11	themselves
 *	RSP					R12
 *	R12-R15					in memory: c->r[]
 *	the rest of the budget			R13
 *	XMM0-XMM15				themselves, if c->jit_xmm; else in c->s.fpu
 *	their upper halves (YMM)		themselves, if c->jit_xmm is 2; else in c->s.fpu
 *
 * Blocks are entered with the status flags in c->cc; SLOT_IPBASE is up to date.
 *
 * Code has two addresses (code_memory.h): it is written at one and runs at another, emit.delta bytes
 * away; what is called a run address is the latter.  ip and target are bytes from the start of the
 * guest's page.  All of it belongs to the processor's thread.
 */
#ifndef SKEP_CPU_SOFT_JIT_INSIDE_H
#define SKEP_CPU_SOFT_JIT_INSIDE_H

#include <stddef.h>

#include "cpu/soft/code_memory.h"
#include "cpu/soft/decode.h"
#include "cpu/soft/jit/emit.h"
#include "cpu/soft/jit/jit.h"
#include "cpu/soft/vex.h"

#define HOST_RSP	R12	/* the guest's stack pointer */
#define HOST_BUDGET	R13
#define HOST_A		R14
#define HOST_B		R15
#define GUEST_RSP	4
#define FIRST_IN_MEMORY	12	/* guest registers from here on have no register */

#define GS(field)	((int32_t)offsetof(struct soft_cpu, field))
#define GS_SLOT(n)	((int32_t)(offsetof(struct soft_cpu, r) + (n) * 8))

#define JIT_MAX_INSNS	64	/* of a block */
/* Of n branches, or n instructions.  Code may stand four times: in line and out of it, and once more in a loop. */
#define JIT_LINKS(n)	(4 * (n) + 4)
#define JIT_DETOURS(n)	(8 * (n) + 8)
#define JIT_REGIONS	32u
#define JIT_REGION_SIZE	(1u << 20)	/* bytes */
#define JIT_THUNKS_SIZE	8192u
#define JIT_MAX_BLOCKS	(32u * 1024)
#define JIT_BLOCK_ROOM	(128u << 10)	/* no block is longer than this */

/* A jump from one block to another of the same page. */
struct jit_link {
	struct jit_block *to;		/* NULL: it leads to its own exit */
	struct jit_link *next, **at;	/* in the list of `to` */
	uint8_t *site;			/* the displacement, where it is written */
	const uint8_t *exit;		/* run address of the way out */
	const uint8_t *page;		/* of the block that it belongs to */
	uint16_t target;		/* offset in the page */
};

struct jit_block {
	const uint8_t *far_entry;	/* run addresses: HOST_B is the number in the jump cache */
	const uint8_t *near_entry;	/* SLOT_IPBASE is right already */
	const uint8_t *page;		/* host address of the page of code */
	uint16_t ip, ninsns;
	bool dead;
	struct soft_op *head;		/* of the interpreter's block */
	struct jit_link *incoming;
	struct jit_link *links;
	unsigned nlinks;
	struct jit_block *next;		/* in its region */
	struct soft_op *ops;
	uint16_t nops;
};

/*
 * Fronts: copies of entries of the TLB, before which they are asked by accesses that mostly go where the
 * last one went: the stack's, and those of a loop by registers that only constants are added to.
 * An offset from the tag below the end that stands for the access's span is a hit; an end of 0 says that
 * the front holds nothing.  They are emptied on every way from C to translated code, so that whatever
 * changes the TLB need not know of them.
 */
enum { FRONT_STACK, FRONT_WRITE, FRONT_READ, FRONT_READ2, FRONT_NONE = -1 };
_Static_assert(FRONT_READ2 + 1 == JIT_FRONTS, "each has its place");
static inline bool jit_front_writes(int front)
{
	return front < FRONT_READ;
}
static const uint16_t jit_spans[JIT_SPANS] = { 8, 64, 256 };	/* bytes */

struct jit_thunks {
	const uint8_t *enter;
	const uint8_t *one;		/* HOST_A: the op; runs its instruction */
	const uint8_t *link;		/* HOST_A: the link */
	const uint8_t *miss;		/* HOST_A: rip */
	const uint8_t *leave;		/* HOST_A: offset in the page; back to the run loop */
	const uint8_t *load_xmm, *load_ymm;	/* jit_xmm becomes 1, 2 */
	const uint8_t *refill[JIT_FRONTS];	/* HOST_A: offset from its tag; then the address, HOST_B: the TLB's entry */
};

struct soft_jit {
	struct code_memory code;
	struct jit_thunks thunk;
	struct emit e;			/* of the region that is being filled */
	unsigned region;
	struct jit_block *blocks[JIT_REGIONS];	/* the newest first */
	struct jit_block *oldest[JIT_REGIONS];	/* of those, if there are any */
	struct jit_block *doomed;		/* nobody knows them: to be freed */
	struct jit_block *pool, *free;	/* head->disp is a number in the pool */
	unsigned npool;
	unsigned threshold;
	bool bmi2;
	bool rotate_keeps_of;		/* the host's ROL by a constant does */
	struct jit_translation *t;	/* room for the one that is being made */
};

/* ---- A translation that is being made ----------------------------------- */

enum jit_class {
	JIT_INTERPRET,		/* its handler is called */
	JIT_NOTHING,		/* prefetches, long NOPs */
	JIT_REWRITE,		/* the same instruction with other operands */
	JIT_LEA, JIT_PUSH, JIT_PUSH_MEMORY, JIT_POP, JIT_LEAVE,
	JIT_JCC, JIT_JMP, JIT_JMP_INDIRECT, JIT_CALL, JIT_CALL_INDIRECT, JIT_RET,
};

struct jit_insn {
	ZydisDecodedInstruction in;
	ZydisDecodedOperand op[ZYDIS_MAX_OPERAND_COUNT];
	struct soft_op *ops;
	uint16_t ip;
	uint8_t nops;
	uint8_t left;		/* instructions behind it */
	uint8_t class;		/* enum jit_class */
	int8_t mem;		/* its memory operand in op[], or -1 */
	uint8_t mem_size;	/* bytes */
	bool mem_write;
	uint8_t align;		/* its address must be a multiple of this, or the handler does it */
	bool needs_flags;	/* reads them, or leaves some as they were */
	bool sets_flags;
	bool xmm, ymm;		/* needs jit_xmm to be at least 1, 2 */
	struct vex_insn vex;	/* REWRITE of one with VEX encoding */
	uint16_t writes;	/* guest registers, as bits */
};

/*
 * How to get the flags again that an instruction left, as long as its operands are what they were: by
 * doing it once more.  So flags need not be saved before each memory access, which clobbers them.
 */
struct jit_recipe {
	enum { RECIPE_NONE, RECIPE_CMP, RECIPE_TEST, RECIPE_ADD, RECIPE_SUB, RECIPE_NEG } kind;
	uint8_t size;
	int8_t dst, src;	/* guest registers; src -1: imm */
	int32_t imm;
};

/* Where the guest's flags can be had from: at least one of these. */
struct jit_flags {
	bool host;		/* RFLAGS */
	bool cc;		/* c->cc */
	struct jit_recipe recipe;
};

/* Memory operands that lie near each other, by the same registers. */
struct jit_stream {
	int32_t low, high;		/* of the addresses, from the registers at the group's begin */
	bool write;
	int32_t aligned;		/* an address that is a multiple of align; or NOT_ALIGNED */
	uint8_t align;			/* 16 or 32 */
};

/*
 * A run of instructions whose memory operands are one stream or two: one check serves each, and
 * HOST_A stays the host address of the lowest; of two, that of the one used last, and both are in
 * c->jit_stream.  Where a check fails, the same instructions stand again out of line, each with its
 * own.
 */
#define GROUP_STREAMS 2
struct jit_group {
	unsigned first, last;		/* in insn[] */
	unsigned nstreams;
	struct jit_stream stream[GROUP_STREAMS];
	struct soft_op address[GROUP_STREAMS];	/* the registers */
	int32_t at[JIT_MAX_INSNS];	/* by instruction: address, from its stream's lowest */
	uint8_t of[JIT_MAX_INSNS];	/* its stream; or NO_STREAM */
};
#define NO_STREAM UINT8_MAX
#define NOT_ALIGNED INT32_MIN
#define GROUP_SPAN 256		/* bytes; more would cross pages too often */

/* Code out of line, where a memory access or a jump did not go as hoped. */
struct jit_detour {
	uint8_t *site[4];
	unsigned nsites;
	const struct jit_insn *insn;	/* that the handler is to execute */
	struct jit_flags flags;
	const uint8_t *back;		/* run address; NULL: it does not come back */
	struct jit_flags flags_back;	/* GROUP: what is expected there */
	unsigned last;			/* GROUP: from insn to this one */
	enum { DETOUR_SLOW, DETOUR_TAKEN, DETOUR_MISS, DETOUR_GROUP, DETOUR_LEAVE } kind;
};

/* Code out of line, where a front did not have the page: it is asked of the TLB. */
struct jit_refill {
	uint8_t *site;
	const uint8_t *back;		/* run address: HOST_A is the host address */
	struct jit_detour *slow;
	int8_t front;
	bool write;
	uint16_t size;
};

/* The registers of an address in a loop that has a front. */
struct jit_walker {
	bool used;
	struct soft_op address;
};

struct jit_translation {
	struct soft_cpu *c;
	struct soft_jit *j;
	struct emit e;
	struct jit_block *b;
	unsigned ninsns, end_ip;
	struct jit_flags flags;
	struct jit_insn insn[JIT_MAX_INSNS];
	struct soft_op ops[JIT_MAX_INSNS * (OPS_PER_INSN + 1)];
	unsigned nops;
	struct jit_link links[JIT_LINKS(JIT_MAX_INSNS)];
	unsigned nlinks;
	struct jit_detour detour[JIT_DETOURS(JIT_MAX_INSNS)];
	unsigned ndetours;
	struct jit_refill refill[JIT_DETOURS(JIT_MAX_INSNS)];
	unsigned nrefills;
	bool out_of_line;		/* detours are being written */
	struct jit_group group;
	bool grouped;			/* the instruction's operand is in the group */
	/* A block that is a loop: its second copy, the jump to it, the flags there. */
	const uint8_t *loop;
	uint8_t *loop_site;
	struct jit_flags loop_flags;
	uint16_t steady;		/* registers that a turn moves by loop_move, and nothing else does */
	int32_t loop_move[16];
	struct jit_walker walker[JIT_FRONTS];	/* by front */
};

/* group.c: is there a group that begins with t->insn[first]?  Then it is in t->group. */
bool jit_find_group(struct jit_translation *t, unsigned first);
/* What a turn of the loop does to the registers: fills steady and loop_move. */
void jit_find_steady(struct jit_translation *t);
/* The front for such an access; or FRONT_NONE. */
int jit_front_for(struct jit_translation *t, const struct soft_op *address, bool write);
/* Of the stack; out of line there is none. */
static inline int jit_stack_front(const struct jit_translation *t)
{
	return t->out_of_line ? FRONT_NONE : FRONT_STACK;
}
/*
 * In a loop's second copy: an address that was a multiple of align in the first copy, which ran before,
 * and still is.  (Instructions that need 16 or 32 fault otherwise.)
 */
bool jit_stays_aligned(const struct jit_translation *t, const struct soft_op *address, unsigned align);

/* classify.c: fills class and what follows it. */
void jit_classify(struct jit_translation *t, struct jit_insn *x);
/* translate.c: writes the code of t->insn[]. */
bool jit_emit_block(struct jit_translation *t);	/* false: no memory for its links */
/* The same of one instruction. */
void jit_emit_one(struct jit_translation *t, const struct jit_insn *x);
/* Out through the run loop, before the block. */
void jit_emit_leave(struct jit_translation *t);
/* Where the group has the operand of x, from HOST_A. */
static inline int32_t jit_group_offset(const struct jit_translation *t, const struct jit_insn *x)
{
	return t->group.at[x - t->insn];
}

/* flags.c */
void jit_save_flags(struct jit_translation *t);		/* to cc, from wherever they are */
void jit_need_flags(struct jit_translation *t);		/* to RFLAGS; uses HOST_B */
/* Before code that clobbers RFLAGS, ahead of x. */
void jit_before_clobber(struct jit_translation *t, const struct jit_insn *x);
/* Before x, which clobbers nothing but what it sets itself. */
void jit_before_insn(struct jit_translation *t, const struct jit_insn *x);
void jit_after_insn(struct jit_translation *t, const struct jit_insn *x);

/* memory.c: HOST_A = address of the operand; then its host address, or a detour. */
void jit_emit_address(struct jit_translation *t, const struct soft_op *op, int to, bool wide);
/* A new detour that executes x by its handler; code that leads there is to be added to site[]. */
struct jit_detour *jit_slow_way(struct jit_translation *t, const struct jit_insn *x);
void jit_emit_check(struct jit_translation *t, struct jit_detour *d, unsigned size, bool write,
		    int front);
/* The ways round through the TLB. */
void jit_emit_refills(struct jit_translation *t);
/* To the detour if the address in the register is no multiple of align (2 to 32). */
void jit_emit_align_check(struct jit_translation *t, struct jit_detour *d, int host, unsigned align);
/* HOST_B = HOST_A >> n in its lower 32 - n bits, what is above does not matter; RFLAGS are lost. */
void jit_emit_shifted(const struct soft_jit *j, struct emit *e, unsigned n);
/* HOST_B = the address of the TLB's entry for HOST_A. */
void jit_emit_entry(struct soft_jit *j, struct emit *e);

/* exits.c */
void jit_emit_jcc(struct jit_translation *t, const struct jit_insn *x);
void jit_emit_jump(struct jit_translation *t, const struct jit_insn *x);
void jit_emit_end(struct jit_translation *t);		/* the block ends without a branch */
bool jit_emit_detours(struct jit_translation *t);
/* OP reg, gs:[HOST_B * 8 + table]: the entry of a table of the jump cache. */
void jit_emit_table(struct jit_translation *t, bool w, uint8_t op, int reg, int32_t table);

/* Where a guest register is: a host register, or -1: in memory. */
static inline int jit_host_of(unsigned guest)
{
	return guest == GUEST_RSP ? HOST_RSP : guest < FIRST_IN_MEMORY ? (int)guest : -1;
}

static inline bool jit_is_general(const ZydisDecodedOperand *o)
{
	ZydisRegisterClass k = ZydisRegisterGetClass(o->reg.value);

	return o->type == ZYDIS_OPERAND_TYPE_REGISTER && k >= ZYDIS_REGCLASS_GPR8 &&
	       k <= ZYDIS_REGCLASS_GPR64;
}

/* What an exit says to op_head_jit, in RAX; everything else is a link.  c->rip is set, but for a link. */
#define JIT_EXIT_LEAVE	0	/* a block may not run now, or is dead */
#define JIT_EXIT_MISS	1	/* the jump cache does not know the target */
#define JIT_EXIT_ONE	2	/* jit_run_one said so */

/* Writes the thunks at j->e. */
void jit_make_thunks(struct soft_jit *j);
/* cmp c->jit_xmm, level */
void jit_emit_compare_level(struct emit *e, unsigned level);
/* Runs one instruction by its handlers; false: the block has been left, c->rip says where to. */
bool jit_run_one(struct soft_cpu *c, const struct soft_op *op);
/* The op behind each instruction's; imm is the block. */
op_fn op_back;

/* ---- The jump cache ----------------------------------------------------- */

static inline unsigned jit_jump_index(uint64_t rip)
{
	return (unsigned)(((rip >> 4 ^ (rip & 0xff)) & 0xff) | (rip >> 12 & 63) << 8);
}

#endif
