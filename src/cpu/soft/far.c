/*
 * Far JMP and CALL: directly, through call gates, to tasks.  SDM vol. 2, CALL and
 * JMP; vol. 3, 5.8 (privilege), 8.3 (tasks).
 */
#include "cpu/soft/desc.h"
#include "cpu/soft/sysops.h"

static const struct soft_op *far_done(struct soft_cpu *c, const struct soft_op *op, uint64_t rip)
{
	soft_update_mode(c);
	return soft_go_on(c, op, rip);
}

/* Real and virtual-8086 mode. */
static const struct soft_op *far_real(struct soft_cpu *c, const struct soft_op *op, uint16_t sel,
				      uint64_t off, bool call)
{
	struct soft_stack st = soft_stack_current(c);
	struct cpu_segment cs = desc_real(c, SEG_CS, sel);

	if (off > c->s.seg[SEG_CS].limit)
		soft_raise_err(c, op, EXC_GP, 0);
	if (call) {
		stack_push(c, op, &st, op->size, c->s.seg[SEG_CS].selector);
		stack_push(c, op, &st, op->size, soft_next_rip(c, op));
		stack_commit(c, &st);
	}
	soft_set_segment(c, SEG_CS, &cs);
	return far_done(c, op, off);
}

/* A code segment may not claim to be 64-bit and 32-bit at once. */
static bool code_malformed(struct soft_cpu *c, uint16_t attr)
{
	return soft_long_mode(c) && (attr & (ATTR_L | ATTR_DB)) == (ATTR_L | ATTR_DB);
}

/* Straight to a code segment; the privilege stays. */
static const struct soft_op *far_code(struct soft_cpu *c, const struct soft_op *op, uint16_t sel,
				      struct soft_desc *d, uint64_t off, bool call)
{
	struct soft_stack st = soft_stack_current(c);
	unsigned dpl = desc_dpl(d->attr);
	bool ok;

	if (d->attr & ATTR_EXPAND)
		ok = dpl <= c->cpl;
	else
		ok = dpl == c->cpl && (sel & 3) <= c->cpl;
	if (!desc_is_code(d->attr) || !ok || code_malformed(c, d->attr))
		soft_fault(c, op, EXC_GP, sel);
	if (!(d->attr & ATTR_P))
		soft_fault(c, op, EXC_NP, sel);
	soft_check_rip(c, op, d, off);
	if (call) {
		stack_push(c, op, &st, op->size, c->s.seg[SEG_CS].selector);
		stack_push(c, op, &st, op->size, soft_next_rip(c, op));
	}
	desc_touch(c, op, d);
	if (call)
		stack_commit(c, &st);
	soft_enter_code(c, d, sel, c->cpl);
	return far_done(c, op, off);
}

/* ---- Call gates --------------------------------------------------------- */

struct call_gate {
	uint16_t sel;		/* code segment */
	uint64_t off;
	unsigned params;	/* stack words to copy */
	unsigned size;		/* of everything pushed */
	struct soft_desc code;
};

static struct call_gate call_gate(struct soft_cpu *c, const struct soft_op *op, uint16_t sel,
				  struct soft_desc *d)
{
	struct call_gate g = { .sel = d->raw >> 16 & 0xffff, .params = d->raw >> 32 & 0x1f };
	uint64_t high = 0;

	if (desc_dpl(d->attr) < MAX((unsigned)c->cpl, sel & 3u))
		soft_fault(c, op, EXC_GP, sel);
	if (soft_long_mode(c) && !desc_extend(c, op, sel, d, &high))
		soft_fault(c, op, EXC_GP, sel);
	if (!(d->attr & ATTR_P))
		soft_fault(c, op, EXC_NP, sel);
	g.off = d->raw & 0xffff;
	if (desc_system(d->attr) == SYS_CALL16) {
		g.size = 2;
	} else {
		g.off |= (d->raw >> 32 & 0xffff0000) | high << 32;
		g.size = soft_long_mode(c) ? 8 : 4;
	}
	if (!(g.sel & 0xfffc))
		soft_fault(c, op, EXC_GP, 0);
	if (!desc_fetch(c, op, g.sel, &g.code) || !desc_is_code(g.code.attr) ||
	    desc_dpl(g.code.attr) > c->cpl)
		soft_fault(c, op, EXC_GP, g.sel);
	if (soft_long_mode(c) && (g.code.attr & (ATTR_L | ATTR_DB)) != ATTR_L)
		soft_fault(c, op, EXC_GP, g.sel);
	if (!(g.code.attr & ATTR_P))
		soft_fault(c, op, EXC_NP, g.sel);
	return g;
}

/* The stack of the inner ring that a gate leads to, nothing pushed yet. */
static struct soft_stack gate_stack(struct soft_cpu *c, const struct soft_op *op, unsigned cpl)
{
	struct soft_stack st = { .inner = true };
	struct soft_inner in;

	if (soft_long_mode(c)) {
		st.sp = soft_inner_rsp(c, op, cpl);
		st.width = 8;
		st.seg = desc_null((uint16_t)cpl);
		return st;
	}
	in = soft_inner_stack(c, op, cpl);
	st.seg = soft_check_stack_segment(c, op, in.ss, cpl, EXC_TS);
	st.sp = in.sp;
	st.width = st.seg.attr & ATTR_DB ? 4 : 2;
	st.error = in.ss;
	return st;
}

/* CALL through a gate to an inner ring. */
static const struct soft_op *gate_inward(struct soft_cpu *c, const struct soft_op *op,
					 struct call_gate *g)
{
	unsigned cpl = desc_dpl(g->code.attr);
	struct soft_stack old = soft_stack_current(c);
	struct soft_stack st = gate_stack(c, op, cpl);
	uint64_t params[31];

	soft_check_rip(c, op, &g->code, g->off);
	stack_push(c, op, &st, g->size, old.seg.selector);
	stack_push(c, op, &st, g->size, c->r[REG_RSP]);
	if (!soft_long_mode(c)) {
		for (unsigned i = 0; i < g->params; i++)
			params[i] = stack_pop(c, op, &old, g->size);
		for (unsigned i = g->params; i > 0; i--)
			stack_push(c, op, &st, g->size, params[i - 1]);
	}
	stack_push(c, op, &st, g->size, c->s.seg[SEG_CS].selector);
	stack_push(c, op, &st, g->size, soft_next_rip(c, op));
	desc_touch(c, op, &g->code);

	soft_enter_code(c, &g->code, g->sel, cpl);
	soft_set_segment(c, SEG_SS, &st.seg);
	stack_commit(c, &st);
	return far_done(c, op, g->off);
}

static const struct soft_op *far_gate(struct soft_cpu *c, const struct soft_op *op, uint16_t sel,
				      struct soft_desc *d, bool call)
{
	struct call_gate g = call_gate(c, op, sel, d);
	bool inward = !(g.code.attr & ATTR_EXPAND) && desc_dpl(g.code.attr) < c->cpl;
	struct soft_stack st = soft_stack_current(c);

	if (inward && call)
		return gate_inward(c, op, &g);
	if (inward)
		soft_fault(c, op, EXC_GP, g.sel);
	soft_check_rip(c, op, &g.code, g.off);
	if (call) {
		if (soft_long_mode(c))
			st.width = 8;
		stack_push(c, op, &st, g.size, c->s.seg[SEG_CS].selector);
		stack_push(c, op, &st, g.size, soft_next_rip(c, op));
	}
	desc_touch(c, op, &g.code);
	if (call)
		stack_commit(c, &st);
	soft_enter_code(c, &g.code, g.sel, c->cpl);
	return far_done(c, op, g.off);
}

/* ---- All far transfers --------------------------------------------------- */

/* JMP or CALL to a task, by its TSS or a task gate. */
static const struct soft_op *far_task(struct soft_cpu *c, const struct soft_op *op, uint16_t sel,
				      struct soft_desc *d, bool call)
{
	enum soft_switch how = call ? SWITCH_CALL : SWITCH_JMP;
	uint64_t next = soft_next_rip(c, op);

	if (desc_dpl(d->attr) < MAX((unsigned)c->cpl, sel & 3u))
		soft_fault(c, op, EXC_GP, sel);
	if (desc_system(d->attr) == SYS_TASK) {
		if (!(d->attr & ATTR_P))
			soft_fault(c, op, EXC_NP, sel);
		soft_task_gate(c, op, d->raw, how, next, false, 0);
	} else {
		if (sel & 4)
			soft_fault(c, op, EXC_GP, sel);
		soft_task_switch(c, op, sel, d, how, next, false, 0);
	}
	return NULL;
}

static const struct soft_op *far_transfer(struct soft_cpu *c, const struct soft_op *op,
					  uint16_t sel, uint64_t off, bool call)
{
	struct soft_desc d;

	if (!soft_protected(c))
		return far_real(c, op, sel, off, call);
	if (!(sel & 0xfffc))
		soft_raise_err(c, op, EXC_GP, 0);
	if (!desc_fetch(c, op, sel, &d))
		soft_fault(c, op, EXC_GP, sel);
	if (d.attr & ATTR_S)
		return far_code(c, op, sel, &d, off, call);
	switch (desc_system(d.attr)) {
	case SYS_CALL32:
		return far_gate(c, op, sel, &d, call);
	case SYS_CALL16:
		if (soft_long_mode(c))
			break;
		return far_gate(c, op, sel, &d, call);
	case SYS_TASK:
	case SYS_TSS16:
	case SYS_TSS32:
		if (soft_long_mode(c))
			break;
		return far_task(c, op, sel, &d, call);
	default:
		break;
	}
	soft_fault(c, op, EXC_GP, sel);
}

/* imm: offset, and the selector in bits 47:32. */
static const struct soft_op *far_imm(struct soft_cpu *c, const struct soft_op *op, bool call)
{
	uint64_t off = op->size == 2 ? op->imm & 0xffff : op->imm & 0xffffffff;

	return far_transfer(c, op, op->imm >> 32 & 0xffff, off, call);
}

static const struct soft_op *far_mem(struct soft_cpu *c, const struct soft_op *op, bool call)
{
	uint8_t bytes[10];
	uint64_t off = 0;

	soft_load_bytes(c, op, soft_ea(c, op), bytes, op->size + 2u);
	memcpy(&off, bytes, op->size);
	return far_transfer(c, op, load16(bytes + op->size), off, call);
}

const struct soft_op *op_far_jmp_imm(struct soft_cpu *c, const struct soft_op *op)
{
	return far_imm(c, op, false);
}

const struct soft_op *op_far_jmp_mem(struct soft_cpu *c, const struct soft_op *op)
{
	return far_mem(c, op, false);
}

const struct soft_op *op_far_call_imm(struct soft_cpu *c, const struct soft_op *op)
{
	return far_imm(c, op, true);
}

const struct soft_op *op_far_call_mem(struct soft_cpu *c, const struct soft_op *op)
{
	return far_mem(c, op, true);
}
