/*
 * Ways out of a block.  A direct jump within the page is linked to its target's code once that
 * exists; every other one looks the target up in the jump cache, by its linear address and the
 * processor's key.
 */
#include <stdlib.h>

#include "cpu/soft/exec.h"
#include "cpu/soft/jit/inside.h"

#define PAGE 4096

/* ---- Links ----------------------------------------------------------------------- */

/* A jump (or jcc) to the target; its way out is written with the detours. */
static void emit_link(struct jit_translation *t, unsigned kind, int32_t target)
{
	t->links[t->nlinks++] = (struct jit_link){
		.page = t->b->page, .target = (uint16_t)target,
		.site = emit_branch(&t->e, kind, NULL),
	};
}

/* ---- The jump cache --------------------------------------------------------------- */

void jit_emit_table(struct jit_translation *t, bool w, uint8_t op, int reg, int32_t table)
{
	emit8(&t->e, 0x65);
	emit_insn(&t->e, &(struct emit_insn){ .w = w, .op = op, .reg = (int8_t)reg, .kind = RM_SIB,
					      .rm = -1, .index = HOST_B, .scale = 3, .disp = table });
}

/*
 * HOST_A is the target, which may be any number.  Leaves its index in HOST_B, and adds the jumps that
 * are taken when it is not known to d; HOST_A and RFLAGS are lost.
 */
static void emit_lookup(struct jit_translation *t, struct jit_detour *d)
{
	struct emit *e = &t->e;

	jit_emit_shifted(t->j, e, 4);
	emit_rr(e, false, 0x30, HOST_A, HOST_B);		/* xor r15b, r14b */
	emit_alu_imm(e, false, ALU_DIGIT_AND, HOST_B, JIT_JUMPS - 1);
	jit_emit_table(t, true, 0x3b, HOST_A, GS(jit_rips));	/* cmp */
	d->site[d->nsites++] = emit_branch(e, 5, NULL);
	emit_gs(e, true, OP_MOV_LOAD, HOST_A, GS(jump_key));
	jit_emit_table(t, true, 0x3b, HOST_A, GS(jit_keys));
	d->site[d->nsites++] = emit_branch(e, 5, NULL);
}

/* jmp to the code that emit_lookup has found. */
static void emit_go(struct jit_translation *t)
{
	jit_emit_table(t, false, 0xff, 4, GS(jit_codes));
}

/* The address of an offset in this page. */
static void emit_page_address(struct jit_translation *t, int host, int32_t offset)
{
	emit_gs(&t->e, true, OP_MOV_LOAD, host, GS_SLOT(SLOT_IPBASE));
	emit_lea(&t->e, host, host, -1, 0, offset);
}

static bool in_page(int32_t target)
{
	return target >= 0 && target < PAGE;
}

/* ---- Conditional branches ---------------------------------------------------------- */

/*
 * The block is a loop: the jump leads to its second copy, which begins with the flags within reach as
 * they are here, so that no turn has to save them.
 */
static void loop_end(struct jit_translation *t, unsigned condition)
{
	uint8_t *site = emit_branch(&t->e, condition, t->loop);

	if (!t->loop) {
		t->loop_site = site;
		t->loop_flags = t->flags;
	}
	jit_save_flags(t);
}

void jit_emit_jcc(struct jit_translation *t, const struct jit_insn *x)
{
	unsigned condition = x->ops->dst & 15;
	bool last = !x->left;
	struct jit_detour *d;

	jit_need_flags(t);
	if (last && x->ops->disp == t->b->ip && t->flags.recipe.kind != RECIPE_NONE) {
		loop_end(t, condition);
		return;
	}
	if (last)
		jit_save_flags(t);
	if (last && in_page(x->ops->disp)) {
		emit_link(t, condition, x->ops->disp);
		return;
	}
	d = jit_slow_way(t, x);
	d->kind = DETOUR_TAKEN;
	d->site[d->nsites++] = emit_branch(&t->e, condition, NULL);
}

/* The flags are as they were at the branch. */
static void taken(struct jit_translation *t, struct jit_detour *d)
{
	const struct jit_insn *x = d->insn;
	struct jit_detour slow = { .insn = x, .kind = DETOUR_SLOW };

	t->flags = d->flags;
	jit_save_flags(t);
	if (in_page(x->ops->disp)) {
		if (x->left)
			emit_lea(&t->e, HOST_BUDGET, HOST_BUDGET, -1, 0, x->left);
		emit_link(t, EMIT_JMP, x->ops->disp);
		return;
	}
	emit_page_address(t, HOST_A, x->ops->disp);
	emit_lookup(t, &slow);
	if (x->left)
		emit_lea(&t->e, HOST_BUDGET, HOST_BUDGET, -1, 0, x->left);
	emit_go(t);
	slow.flags = t->flags;
	t->detour[t->ndetours++] = slow;
}

/* ---- Jumps, calls and returns --------------------------------------------------------- */

/* HOST_A = the target of an indirect jump or call. */
static void emit_indirect_target(struct jit_translation *t, const struct jit_insn *x,
				 struct jit_detour *d)
{
	const struct soft_op *op = x->ops;

	if (op->fn == op_jmp_m || op->fn == op_call_m) {
		jit_emit_address(t, op, HOST_A, true);
		jit_emit_check(t, d, 8, false, jit_front_for(t, op, false));
		emit_mem(&t->e, true, OP_MOV_LOAD, HOST_A, HOST_A, 0);
	} else if (jit_host_of(op->dst / 8) >= 0) {
		emit_rr(&t->e, true, OP_MOV_STORE, jit_host_of(op->dst / 8), HOST_A);
	} else {
		emit_gs(&t->e, true, OP_MOV_LOAD, HOST_A, GS_SLOT(op->dst / 8));
	}
}

/*
 * Writes the address behind x below the stack pointer, which moves last.  (A target that turns out
 * to be a wrong one is found with that in memory, as on real processors.)
 */
static void emit_push_return(struct jit_translation *t, const struct jit_insn *x,
			     struct jit_detour *d)
{
	int32_t at = 0;

	if (t->grouped) {
		at = jit_group_offset(t, x);
	} else {
		emit_lea(&t->e, HOST_A, HOST_RSP, -1, 0, -8);
		jit_emit_check(t, d, 8, true, jit_stack_front(t));
	}
	emit_page_address(t, HOST_B, x->ip + x->in.length);
	emit_mem(&t->e, true, OP_MOV_STORE, HOST_B, HOST_A, at);
}

/*
 * By a word in memory: that may be the one that the return address goes to, so nothing is written before the
 * target is known for good.
 */
static void call_memory(struct jit_translation *t, const struct jit_insn *x, struct jit_detour *d)
{
	emit_indirect_target(t, x, d);
	emit_lookup(t, d);
	emit_gs(&t->e, true, OP_MOV_STORE, HOST_B, GS(jit_target));
	emit_push_return(t, x, d);
	emit_gs(&t->e, true, OP_MOV_LOAD, HOST_B, GS(jit_target));
	emit_lea(&t->e, HOST_RSP, HOST_RSP, -1, 0, -8);
	emit_go(t);
}

static void call(struct jit_translation *t, const struct jit_insn *x, struct jit_detour *d)
{
	if (x->ops->fn == op_call_m) {
		call_memory(t, x, d);
		return;
	}
	emit_push_return(t, x, d);
	if (x->class == JIT_CALL && in_page(x->ops->disp)) {
		emit_lea(&t->e, HOST_RSP, HOST_RSP, -1, 0, -8);
		emit_link(t, EMIT_JMP, x->ops->disp);
		return;
	}
	if (x->class == JIT_CALL)
		emit_page_address(t, HOST_A, x->ops->disp);
	else
		emit_indirect_target(t, x, d);
	emit_lookup(t, d);
	emit_lea(&t->e, HOST_RSP, HOST_RSP, -1, 0, -8);
	emit_go(t);
}

static void ret(struct jit_translation *t, const struct jit_insn *x, struct jit_detour *d)
{
	int32_t at = 0;

	if (t->grouped) {
		at = jit_group_offset(t, x);
	} else {
		emit_rr(&t->e, true, OP_MOV_STORE, HOST_RSP, HOST_A);
		jit_emit_check(t, d, 8, false, jit_stack_front(t));
	}
	emit_mem(&t->e, true, OP_MOV_LOAD, HOST_A, HOST_A, at);
	emit_lookup(t, d);
	emit_lea(&t->e, HOST_RSP, HOST_RSP, -1, 0, (int32_t)(8 + x->ops->imm));
	emit_go(t);
}

void jit_emit_jump(struct jit_translation *t, const struct jit_insn *x)
{
	struct jit_detour *d;

	jit_save_flags(t);
	if (x->class == JIT_JMP && in_page(x->ops->disp)) {
		emit_link(t, EMIT_JMP, x->ops->disp);
		return;
	}
	d = jit_slow_way(t, x);
	switch (x->class) {
	case JIT_CALL:
	case JIT_CALL_INDIRECT:
		call(t, x, d);
		break;
	case JIT_RET:
		ret(t, x, d);
		break;
	case JIT_JMP:
		emit_page_address(t, HOST_A, x->ops->disp);
		emit_lookup(t, d);
		emit_go(t);
		break;
	default:
		emit_indirect_target(t, x, d);
		emit_lookup(t, d);
		emit_go(t);
		break;
	}
}

void jit_emit_end(struct jit_translation *t)
{
	jit_save_flags(t);
	if (in_page((int32_t)t->end_ip)) {
		emit_link(t, EMIT_JMP, (int32_t)t->end_ip);
		return;
	}
	emit_page_address(t, HOST_A, (int32_t)t->end_ip);
	struct jit_detour d = { .kind = DETOUR_MISS, .flags = t->flags };

	emit_lookup(t, &d);
	emit_go(t);
	t->detour[t->ndetours++] = d;
}

/* ---- Out of line ------------------------------------------------------------------------ */

static void slow(struct jit_translation *t, struct jit_detour *d)
{
	t->flags = d->flags;
	t->flags.host = false;
	jit_save_flags(t);
	emit_mov_imm(&t->e, HOST_A, (uintptr_t)d->insn->ops);
	emit_branch(&t->e, EMIT_CALL, t->j->thunk.one);
	if (d->back)
		emit_branch(&t->e, EMIT_JMP, d->back);
	else
		emit8(&t->e, 0xcc);
}

/* What follows the block is not known: the run loop finds it. */
static void missed(struct jit_translation *t)
{
	emit_page_address(t, HOST_A, (int32_t)t->end_ip);
	emit_branch(&t->e, EMIT_JMP, t->j->thunk.miss);
}

/* The group's instructions, each with its own check. */
static void ungrouped(struct jit_translation *t, unsigned number)
{
	struct jit_detour *d = &t->detour[number];

	t->flags = d->flags;
	t->grouped = false;
	for (const struct jit_insn *x = d->insn; x <= &t->insn[d->last]; x++)
		jit_emit_one(t, x);
	if (t->insn[d->last].class >= JIT_JMP)
		return;
	if (d->flags_back.cc)
		jit_save_flags(t);
	if (d->flags_back.host)
		jit_need_flags(t);
	emit_branch(&t->e, EMIT_JMP, d->back);
}

/* Before a turn, which has been paid for. */
static void leave_loop(struct jit_translation *t, struct jit_detour *d)
{
	emit_lea(&t->e, HOST_BUDGET, HOST_BUDGET, -1, 0, (int32_t)t->ninsns);
	t->flags = d->flags;
	jit_save_flags(t);
	jit_emit_leave(t);
}

/* false: no memory for the links. */
bool jit_emit_detours(struct jit_translation *t)
{
	jit_emit_refills(t);
	t->out_of_line = true;
	for (unsigned i = 0; i < t->ndetours; i++) {
		struct jit_detour *d = &t->detour[i];

		for (unsigned k = 0; k < d->nsites; k++)
			emit_patch(&t->e, d->site[k], emit_run(&t->e));
		if (d->kind == DETOUR_TAKEN)
			taken(t, d);
		else if (d->kind == DETOUR_MISS)
			missed(t);
		else if (d->kind == DETOUR_GROUP)
			ungrouped(t, i);
		else if (d->kind == DETOUR_LEAVE)
			leave_loop(t, d);
		else
			slow(t, d);
	}
	/* Now that it is known how many they are: code refers to them by address. */
	t->b->links = t->nlinks ? malloc(t->nlinks * sizeof(*t->b->links)) : NULL;
	if (t->nlinks && !t->b->links)
		return false;
	for (unsigned i = 0; i < t->nlinks; i++) {
		struct jit_link *l = &t->links[i];

		l->exit = emit_run(&t->e);
		emit_patch(&t->e, l->site, l->exit);
		/* The link's own address: it moves to the block's memory, where it has the same number. */
		emit_mov_imm(&t->e, HOST_A, (uintptr_t)&t->b->links[i]);
		emit_branch(&t->e, EMIT_JMP, t->j->thunk.link);
	}
	return true;
}
