/*
 * Delivery of exceptions, software and hardware interrupts.  SDM vol. 3, chapter 6;
 * 20.3 for virtual-8086 mode; 17.2 for the debug registers.
 *
 * Whatever can fault is checked before the processor's state changes, so that
 * a second exception is delivered from the state of the first.
 */
#include "cpu/soft/desc.h"
#include "cpu/soft/system.h"

/* Classes of table 6-5; double fault is one more. */
enum { CLASS_BENIGN, CLASS_CONTRIBUTORY, CLASS_PAGE_FAULT, CLASS_DOUBLE_FAULT };

struct event {
	uint8_t vector, kind;
	bool has_error;
	bool soft;		/* INT n, INT3, INTO: the gate's DPL counts, EXT is 0 */
	uint32_t error;
	uint64_t rip;		/* to be pushed */
	uint64_t flags;		/* to be pushed */
};

static unsigned event_class(unsigned kind, unsigned vector)
{
	if (kind != EXC_KIND_FAULT)
		return CLASS_BENIGN;
	switch (vector) {
	case EXC_DE: case EXC_TS: case EXC_NP: case EXC_SS: case EXC_GP:
		return CLASS_CONTRIBUTORY;
	case EXC_PF:
		return CLASS_PAGE_FAULT;
	case EXC_DF:
		return CLASS_DOUBLE_FAULT;
	default:
		return CLASS_BENIGN;
	}
}

/* Table 6-5: what the second exception makes of the first.  False: shutdown. */
static bool combine(struct soft_cpu *c)
{
	unsigned second = event_class(c->exc.kind, c->exc.vector);
	unsigned first = c->sys.first;

	if (first == CLASS_DOUBLE_FAULT && second != CLASS_BENIGN)
		return false;
	if ((first == CLASS_CONTRIBUTORY && second == CLASS_CONTRIBUTORY) ||
	    (first == CLASS_PAGE_FAULT && second != CLASS_BENIGN)) {
		c->exc.vector = EXC_DF;
		c->exc.kind = EXC_KIND_FAULT;
		c->exc.has_error = true;
		c->exc.error = 0;
	}
	return true;
}

/* #DB: DR6 says why, and the handler may use the debug registers (17.2.3, 17.2.4). */
static void note_debug(struct soft_cpu *c)
{
	c->s.dr6 = (c->s.dr6 & ~0xfull) | c->sys.dr6 | DR6_FIXED;
	c->sys.dr6 = 0;
	c->s.dr7 &= ~DR7_GD;
}

static uint64_t pushed_flags(struct soft_cpu *c, const struct event *e)
{
	uint64_t f = soft_rflags(c);

	/*
	 * 17.3.1.1: faults push RF set so that a breakpoint on their
	 * instruction does not come again, all but #DB.
	 */
	if (e->kind == EXC_KIND_FAULT && e->vector != EXC_DB)
		f |= RFLAGS_RF;
	if (e->kind == EXC_KIND_SOFT)
		f &= ~(uint64_t)RFLAGS_RF;
	return f;
}

static _Noreturn void gate_fault(struct soft_cpu *c, const struct event *e, unsigned vector)
{
	/* The IDT bit, and the index. */
	soft_raise_err(c, NULL, vector, (uint32_t)e->vector << 3 | 2 | c->sys.ext);
}

/* The last step of all: flags, RIP, mode. */
static void enter_handler(struct soft_cpu *c, bool interrupt_gate, uint64_t rip)
{
	uint64_t f = soft_rflags(c) & ~(uint64_t)(RFLAGS_TF | RFLAGS_NT | RFLAGS_RF | RFLAGS_VM);

	if (interrupt_gate)
		f &= ~(uint64_t)RFLAGS_IF;
	soft_set_rflags(c, f);
	c->rip = rip;
	soft_update_mode(c);
}

/* ---- Real mode (20.1.4) -------------------------------------------------- */

static void deliver_real(struct soft_cpu *c, const struct event *e)
{
	struct soft_stack st = soft_stack_current(c);
	unsigned at = e->vector * 4u;
	struct cpu_segment cs;
	uint32_t entry;

	if (at + 3 > c->s.idtr.limit)
		gate_fault(c, e, EXC_GP);
	entry = (uint32_t)soft_sys_load(c, NULL, soft_lin_wrap(c, c->s.idtr.base + at), 4);
	stack_push(c, NULL, &st, 2, e->flags);
	stack_push(c, NULL, &st, 2, c->s.seg[SEG_CS].selector);
	stack_push(c, NULL, &st, 2, e->rip);
	if ((entry & 0xffff) > c->s.seg[SEG_CS].limit)
		soft_fault(c, NULL, EXC_GP, 0);
	stack_commit(c, &st);
	cs = desc_real(c, SEG_CS, (uint16_t)(entry >> 16));
	soft_set_segment(c, SEG_CS, &cs);
	c->s.rflags &= ~(uint64_t)RFLAGS_AC;
	enter_handler(c, true, entry & 0xffff);
}

/* ---- What the two protected forms share ---------------------------------- */

struct gate {
	uint64_t raw, high;
	unsigned type;
	uint16_t sel;
	uint64_t rip;
	struct soft_desc code;
	unsigned cpl;		/* of the handler */
};

/* Reads the gate and checks all but its code segment. */
static struct gate load_gate(struct soft_cpu *c, const struct event *e)
{
	unsigned size = soft_long_mode(c) ? 16 : 8;
	unsigned at = e->vector * size;
	uint64_t lin = soft_lin_wrap(c, c->s.idtr.base + at);
	struct gate g = { 0 };

	if (at + size - 1 > c->s.idtr.limit)
		gate_fault(c, e, EXC_GP);
	g.raw = soft_sys_load(c, NULL, lin, 8);
	if (size == 16)
		g.high = soft_sys_load(c, NULL, lin + 8, 8);
	g.type = g.raw >> 40 & 0x1f;
	switch (g.type) {
	case SYS_INT32: case SYS_TRAP32:
		g.rip = (g.raw & 0xffff) | (g.raw >> 32 & 0xffff0000) | g.high << 32;
		break;
	case SYS_INT16: case SYS_TRAP16: case SYS_TASK:
		if (soft_long_mode(c))
			gate_fault(c, e, EXC_GP);
		g.rip = g.raw & 0xffff;
		break;
	default:
		gate_fault(c, e, EXC_GP);
	}
	if (e->soft && (g.raw >> 45 & 3) < c->cpl)
		gate_fault(c, e, EXC_GP);
	if (!(g.raw & BIT(47)))
		gate_fault(c, e, EXC_NP);
	g.sel = g.raw >> 16 & 0xffff;
	return g;
}

/* The handler's code segment and privilege (6.12.1). */
static void load_code(struct soft_cpu *c, struct gate *g)
{
	unsigned dpl;

	if (!(g->sel & 0xfffc))
		soft_fault(c, NULL, EXC_GP, 0);
	if (!desc_fetch(c, NULL, g->sel, &g->code) || !desc_is_code(g->code.attr))
		soft_fault(c, NULL, EXC_GP, g->sel);
	dpl = desc_dpl(g->code.attr);
	if (dpl > c->cpl)
		soft_fault(c, NULL, EXC_GP, g->sel);
	if (soft_long_mode(c) && (g->code.attr & (ATTR_L | ATTR_DB)) != ATTR_L)
		soft_fault(c, NULL, EXC_GP, g->sel);
	if (!(g->code.attr & ATTR_P))
		soft_fault(c, NULL, EXC_NP, g->sel);
	g->cpl = g->code.attr & ATTR_EXPAND ? c->cpl : dpl;
}

/* ---- Long mode (6.14) ---------------------------------------------------- */

static void deliver_long(struct soft_cpu *c, const struct event *e)
{
	struct gate g = load_gate(c, e);
	unsigned ist = g.raw >> 32 & 7;
	struct soft_stack st = { .width = 8 };
	bool inward;

	load_code(c, &g);
	inward = g.cpl < c->cpl;
	if (ist)
		st.sp = soft_inner_rsp(c, NULL, 3 + ist);
	else
		st.sp = inward ? soft_inner_rsp(c, NULL, g.cpl) : c->r[REG_RSP];
	st.sp &= ~0xfull;
	st.inner = g.cpl != 3;
	soft_check_rip(c, NULL, &g.code, g.rip);

	stack_push(c, NULL, &st, 8, c->s.seg[SEG_SS].selector);
	stack_push(c, NULL, &st, 8, c->r[REG_RSP]);
	stack_push(c, NULL, &st, 8, e->flags);
	stack_push(c, NULL, &st, 8, c->s.seg[SEG_CS].selector);
	stack_push(c, NULL, &st, 8, e->rip);
	if (e->has_error)
		stack_push(c, NULL, &st, 8, e->error);
	desc_touch(c, NULL, &g.code);

	if (inward) {
		struct cpu_segment ss = desc_null((uint16_t)g.cpl);

		soft_set_segment(c, SEG_SS, &ss);
	}
	c->r[REG_RSP] = st.sp;
	soft_enter_code(c, &g.code, g.sel, g.cpl);
	enter_handler(c, g.type == SYS_INT32, g.rip);
}

/* ---- Protected and virtual-8086 mode -------------------------------------- */

static void push_frame(struct soft_cpu *c, const struct event *e, struct soft_stack *st,
		       unsigned size, bool with_stack)
{
	if (with_stack) {
		stack_push(c, NULL, st, size, c->s.seg[SEG_SS].selector);
		stack_push(c, NULL, st, size, c->r[REG_RSP]);
	}
	stack_push(c, NULL, st, size, e->flags);
	stack_push(c, NULL, st, size, c->s.seg[SEG_CS].selector);
	stack_push(c, NULL, st, size, e->rip);
	if (e->has_error)
		stack_push(c, NULL, st, size, e->error);
}

static void deliver_inward(struct soft_cpu *c, const struct event *e, struct gate *g,
			   unsigned size)
{
	bool vm86 = c->mode & MODE_VM86;
	struct soft_inner in = soft_inner_stack(c, NULL, g->cpl);
	struct soft_stack st = { .inner = true, .sp = in.sp, .error = in.ss };

	st.seg = soft_check_stack_segment(c, NULL, in.ss, g->cpl, EXC_TS);
	st.width = st.seg.attr & ATTR_DB ? 4 : 2;
	soft_check_rip(c, NULL, &g->code, g->rip);
	if (vm86) {
		stack_push(c, NULL, &st, size, c->s.seg[SEG_GS].selector);
		stack_push(c, NULL, &st, size, c->s.seg[SEG_FS].selector);
		stack_push(c, NULL, &st, size, c->s.seg[SEG_DS].selector);
		stack_push(c, NULL, &st, size, c->s.seg[SEG_ES].selector);
	}
	push_frame(c, e, &st, size, true);
	desc_touch(c, NULL, &g->code);

	if (vm86) {
		static const uint8_t data[] = { SEG_ES, SEG_DS, SEG_FS, SEG_GS };
		struct cpu_segment null = desc_null(0);

		for (unsigned i = 0; i < ARRAY_SIZE(data); i++)
			soft_set_segment(c, data[i], &null);
	}
	soft_set_segment(c, SEG_SS, &st.seg);
	stack_commit(c, &st);
}

static void deliver_protected(struct soft_cpu *c, const struct event *e)
{
	struct gate g = load_gate(c, e);
	unsigned size = g.type >= SYS_INT32 ? 4 : 2;

	if (g.type == SYS_TASK) {
		soft_task_gate(c, NULL, g.raw, SWITCH_INT, e->rip, e->has_error, e->error);
		return;
	}
	load_code(c, &g);
	if (c->mode & MODE_VM86 && g.cpl != 0)
		soft_fault(c, NULL, EXC_GP, g.sel);
	if (g.cpl < c->cpl) {
		deliver_inward(c, e, &g, size);
	} else {
		struct soft_stack st = soft_stack_current(c);

		soft_check_rip(c, NULL, &g.code, g.rip);
		push_frame(c, e, &st, size, false);
		desc_touch(c, NULL, &g.code);
		stack_commit(c, &st);
	}
	soft_enter_code(c, &g.code, g.sel, g.cpl);
	enter_handler(c, g.type == SYS_INT32 || g.type == SYS_INT16, g.rip);
}

/* ---- Everything ----------------------------------------------------------- */

bool soft_deliver(struct soft_cpu *c)
{
	struct event e;

	if (c->sys.delivering && !combine(c)) {
		c->sys.delivering = false;
		c->sys.ext = 0;
		return false;
	}
	e = (struct event){ .vector = c->exc.vector, .kind = c->exc.kind,
			    .has_error = c->exc.has_error, .error = c->exc.error, .rip = c->rip };
	e.soft = e.kind == EXC_KIND_SOFT ||
		 (e.kind == EXC_KIND_TRAP && (e.vector == EXC_BP || e.vector == EXC_OF));
	c->sys.delivering = true;
	if (e.kind == EXC_KIND_HARD && e.vector != EXC_NMI)
		SOFT_COUNT(c, interrupts_maskable);
	else if (e.kind == EXC_KIND_HARD)
		SOFT_COUNT(c, interrupts_nmi);
	else if (e.vector < SOFT_VECTORS)
		SOFT_COUNT(c, exceptions[e.vector]);
	c->sys.first = (uint8_t)event_class(e.kind, e.vector);
	c->sys.ext = !e.soft;
	if (e.vector == EXC_DB && !e.soft && e.kind != EXC_KIND_HARD)
		note_debug(c);
	e.flags = pushed_flags(c, &e);

	/* A fault on the way is the instruction's that asked for the interrupt. */
	if (e.kind == EXC_KIND_SOFT || e.kind == EXC_KIND_TRAP)
		c->rip = c->exc.insn_rip;
	if (!(c->mode & MODE_PE))
		deliver_real(c, &e);
	else if (soft_long_mode(c))
		deliver_long(c, &e);
	else
		deliver_protected(c, &e);

	c->sys.delivering = false;
	c->sys.ext = 0;
	c->sys.step = false;
	c->s.halted = 0;
	c->s.sti_shadow = c->s.ss_shadow = 0;
	if (e.kind == EXC_KIND_FAULT && e.vector != EXC_DB)
		c->s.pending_dbg = 0;	/* the access that hit a breakpoint is not complete */
	if (e.kind == EXC_KIND_HARD)
		soft_interrupts_changed(c);	/* through a trap gate IF stays set */
	return true;
}
