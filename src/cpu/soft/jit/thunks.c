/*
 * The few pieces of code that all blocks share: into translated code, out of it, and around a
 * handler of the interpreter.
 */
#include "cpu/soft/jit/inside.h"

#define COND_B	2
#define COND_E	4
#define COND_NE	5

static void move_registers(struct emit *e, uint8_t op)
{
	for (unsigned g = 0; g < FIRST_IN_MEMORY; g++)
		emit_gs(e, true, op, jit_host_of(g), GS_SLOT(g));
	emit_gs(e, true, op, HOST_BUDGET, GS(budget));
}

/* movaps */
static void move_xmm(struct emit *e, bool store)
{
	for (int i = 0; i < 16; i++)
		emit_insn(e, &(struct emit_insn){ .map = 1, .op = store ? 0x29 : 0x28,
						  .reg = (int8_t)i, .kind = RM_GS,
						  .disp = GS(s.fpu.xmm) + i * 16 });
}

/* jcc over what is emitted next */
static uint8_t *skip(struct emit *e, unsigned condition)
{
	return emit_branch(e, condition, NULL);
}

static void here(struct emit *e, uint8_t *site)
{
	emit_patch(e, site, emit_run(e));
}

void jit_emit_compare_level(struct emit *e, unsigned level)
{
	emit_insn(e, &(struct emit_insn){ .op = 0x80, .reg = ALU_DIGIT_CMP, .kind = RM_GS,
					  .disp = GS(jit_xmm), .imm = level, .imm_size = 1 });
}

static void set_xmm_flag(struct emit *e, unsigned v)
{
	emit_insn(e, &(struct emit_insn){ .op = 0xc6, .reg = 0, .kind = RM_GS, .disp = GS(jit_xmm),
					  .imm = v, .imm_size = 1 });
}

/* A VEX instruction with 66 implied, of register n and the upper half of register `half` in c. */
static void upper_half(struct emit *e, unsigned map, bool wide, uint8_t op, unsigned n, unsigned vvvv,
		       unsigned half)
{
	emit8(e, 0x65);
	emit8(e, 0xc4);
	emit8(e, (uint8_t)((n < 8 ? 0xe0 : 0x60) | map));
	emit8(e, (uint8_t)((~vvvv & 15) << 3 | wide << 2 | 1));
	emit8(e, op);
	emit8(e, (uint8_t)((n & 7) << 3 | 4));
	emit8(e, 0x25);
	emit32(e, (uint32_t)(GS(s.fpu.ymmh) + (int32_t)half * 16));
}

static void vzeroupper(struct emit *e)
{
	emit_bytes(e, "\xc5\xf8\x77", 3);
}

/* C code and SSE code run slowly while the host's upper halves are not zero. */
static void save_xmm_if_live(struct emit *e, bool forget)
{
	uint8_t *none, *low;

	jit_emit_compare_level(e, 1);
	none = skip(e, COND_B);
	move_xmm(e, true);
	low = skip(e, COND_E);
	for (unsigned n = 0; n < 16; n++) {
		upper_half(e, 3, true, 0x19, n, 0, n);		/* vextractf128 */
		emit8(e, 1);
	}
	vzeroupper(e);
	here(e, low);
	if (forget)
		set_xmm_flag(e, 0);
	here(e, none);
}

/* As jit_xmm says.  Upper halves that are all zero are so without being written: see above. */
static void load_vectors(struct emit *e)
{
	uint8_t *none, *low, *zero;

	jit_emit_compare_level(e, 1);
	none = skip(e, COND_B);
	low = skip(e, COND_E);
	vzeroupper(e);
	upper_half(e, 1, false, 0x6f, 0, 0, 0);			/* vmovdqa */
	for (unsigned n = 1; n < 16; n++)
		upper_half(e, 1, false, 0xeb, 0, 0, n);		/* vpor */
	emit_bytes(e, "\xc4\xe2\x79\x17\xc0", 5);		/* vptest xmm0, xmm0 */
	here(e, low);
	move_xmm(e, false);
	zero = skip(e, COND_E);
	for (unsigned n = 0; n < 16; n++) {
		upper_half(e, 3, true, 0x18, n, n, n);		/* vinsertf128 */
		emit8(e, 1);
	}
	here(e, zero);
	here(e, none);
}

/* The fronts hold nothing.  XMM0 is lost. */
static void empty_fronts(struct emit *e)
{
	_Static_assert(sizeof(((struct soft_cpu *)0)->jit_front_end) % 16 == 0, "whole registers");
	emit_bytes(e, "\x66\x0f\xef\xc0", 4);			/* pxor xmm0, xmm0 */
	for (unsigned i = 0; i < sizeof(((struct soft_cpu *)0)->jit_front_end) / 16; i++)
		emit_insn(e, &(struct emit_insn){ .map = 1, .op = 0x29, .reg = 0, .kind = RM_GS,
						  .disp = GS(jit_front_end) + (int32_t)i * 16 });
}

/* From the TLB's entry for the address into the front, if it is for that page. */
static const uint8_t *make_refill(struct soft_jit *j, int front)
{
	struct emit *e = &j->e;
	const uint8_t *run = emit_run(e);
	int tag = jit_front_writes(front) ? (int)offsetof(struct tlb_entry, wtag) :
					    (int)offsetof(struct tlb_entry, rtag);
	int32_t at = GS(jit_front) + front * (int)sizeof(((struct soft_cpu *)0)->jit_front[0]);
	int32_t end = GS(jit_front_end) + front * JIT_SPANS * 8;
	uint8_t *other;

	emit_gs(e, true, 0x03, HOST_A, at);
	jit_emit_entry(j, e);
	emit_insn(e, &(struct emit_insn){ .op = 0x50, .reg = HOST_A });		/* push */
	emit_alu_imm(e, true, ALU_DIGIT_AND, HOST_A, -4096);
	emit_mem(e, true, 0x3b, HOST_A, HOST_B, tag);				/* cmp */
	other = skip(e, COND_NE);
	emit_gs(e, true, OP_MOV_STORE, HOST_A, at);
	emit_mem(e, true, OP_MOV_LOAD, HOST_A, HOST_B, (int)offsetof(struct tlb_entry, page));
	emit_gs(e, true, OP_MOV_STORE, HOST_A, at + 8);
	for (unsigned i = 0; i < JIT_SPANS; i++)
		emit_insn(e, &(struct emit_insn){ .w = true, .op = 0xc7, .reg = 0, .kind = RM_GS,
			  .disp = end + (int32_t)i * 8, .imm = 4096u - jit_spans[i] + 1, .imm_size = 4 });
	here(e, other);
	emit_insn(e, &(struct emit_insn){ .op = 0x58, .reg = HOST_A });		/* pop */
	emit8(e, 0xc3);
	return run;
}

static const int callee_saved[] = { RBX, RBP, R12, R13, R14, R15 };

static void push_pop(struct emit *e, bool pop)
{
	for (unsigned i = 0; i < ARRAY_SIZE(callee_saved); i++) {
		int r = callee_saved[pop ? ARRAY_SIZE(callee_saved) - 1 - i : i];

		emit_insn(e, &(struct emit_insn){ .op = pop ? 0x58 : 0x50, .reg = (int8_t)r });
	}
}

/* Everything is in memory: back to soft_jit_run. */
static void leave_to_c(struct emit *e)
{
	emit_alu_imm(e, true, ALU_DIGIT_ADD, RSP, 8);
	push_pop(e, true);
	emit8(e, 0xc3);
}

void jit_make_thunks(struct soft_jit *j)
{
	struct emit *e = &j->e;
	uint8_t *over;
	const uint8_t *done;

	/* uint64_t enter(code): gs is the processor already. */
	j->thunk.enter = emit_run(e);
	push_pop(e, false);
	emit_alu_imm(e, true, ALU_DIGIT_SUB, RSP, 8);
	emit_rr(e, true, OP_MOV_STORE, RDI, HOST_A);
	empty_fronts(e);
	move_registers(e, OP_MOV_LOAD);
	emit_insn(e, &(struct emit_insn){ .op = 0xff, .reg = 4, .kind = RM_REG, .rm = HOST_A });

	done = emit_run(e);
	leave_to_c(e);

	/* HOST_A is the link. */
	j->thunk.link = emit_run(e);
	move_registers(e, OP_MOV_STORE);
	save_xmm_if_live(e, true);
	emit_rr(e, true, OP_MOV_STORE, HOST_A, RAX);
	emit_branch(e, EMIT_JMP, done);

	j->thunk.miss = emit_run(e);
	move_registers(e, OP_MOV_STORE);
	save_xmm_if_live(e, true);
	emit_gs(e, true, OP_MOV_STORE, HOST_A, GS(rip));
	emit_mov_imm(e, RAX, JIT_EXIT_MISS);
	emit_branch(e, EMIT_JMP, done);

	j->thunk.leave = emit_run(e);
	move_registers(e, OP_MOV_STORE);
	save_xmm_if_live(e, true);
	emit_gs(e, true, 0x03, HOST_A, GS_SLOT(SLOT_IPBASE));
	emit_gs(e, true, OP_MOV_STORE, HOST_A, GS(rip));
	emit_mov_imm(e, RAX, JIT_EXIT_LEAVE);
	emit_branch(e, EMIT_JMP, done);

	/* One instruction by its handler: called, so the stack is 8 off. */
	j->thunk.one = emit_run(e);
	move_registers(e, OP_MOV_STORE);
	save_xmm_if_live(e, false);
	emit_gs(e, true, OP_MOV_LOAD, RDI, GS(jit_self));
	emit_rr(e, true, OP_MOV_STORE, HOST_A, RSI);
	emit_alu_imm(e, true, ALU_DIGIT_SUB, RSP, 8);
	emit_mov_imm(e, RAX, (uintptr_t)jit_run_one);
	emit_insn(e, &(struct emit_insn){ .op = 0xff, .reg = 2, .kind = RM_REG, .rm = RAX });
	emit_alu_imm(e, true, ALU_DIGIT_ADD, RSP, 8);
	emit_rr(e, false, 0x84, RAX, RAX);		/* test al, al */
	over = skip(e, COND_NE);
	/* It has left the block; the handler's state is the state. */
	emit_alu_imm(e, true, ALU_DIGIT_ADD, RSP, 8);
	set_xmm_flag(e, 0);
	emit_mov_imm(e, RAX, JIT_EXIT_ONE);
	emit_branch(e, EMIT_JMP, done);
	here(e, over);
	empty_fronts(e);
	load_vectors(e);
	move_registers(e, OP_MOV_LOAD);
	emit_insn(e, &(struct emit_insn){ .map = 1, .op = 0xb7, .reg = RAX, .kind = RM_GS,
					  .disp = GS(cc) });	/* movzx eax, cc */
	emit8(e, 0x04);
	emit8(e, 127);					/* add al, 127 */
	emit8(e, 0x9e);					/* sahf */
	emit_gs(e, true, OP_MOV_LOAD, RAX, GS_SLOT(RAX));
	emit8(e, 0xc3);

	j->thunk.load_xmm = emit_run(e);
	move_xmm(e, false);
	set_xmm_flag(e, 1);
	emit8(e, 0xc3);

	j->thunk.load_ymm = emit_run(e);
	jit_emit_compare_level(e, 0);
	over = skip(e, COND_E);
	move_xmm(e, true);
	here(e, over);
	set_xmm_flag(e, 2);
	load_vectors(e);
	emit8(e, 0xc3);

	for (int front = 0; front < JIT_FRONTS; front++)
		j->thunk.refill[front] = make_refill(j, front);
}
