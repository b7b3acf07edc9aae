/*
 * Far RET and IRET.  SDM vol. 2, RET and IRET; vol. 3, 6.14.3 (IRET in 64-bit
 * mode), 20.2 (virtual-8086 mode), 17.3.1.1 (RF).
 *
 * Everything is popped and checked first and committed at the end.
 */
#include "cpu/soft/desc.h"
#include "cpu/soft/sysops.h"
#include "cpu/soft/system.h"

/* Where a return goes. */
struct far_return {
	uint64_t rip, rsp;
	uint16_t cs, ss;
	bool outer;		/* SS:RSP are to be loaded */
	struct soft_desc code;
	struct cpu_segment stack;
};

static uint64_t clip(unsigned size, uint64_t v)
{
	return size == 8 ? v : v & (BIT(size * 8) - 1);
}

/* The code segment that RPL of cs leads back to. */
static void return_code(struct soft_cpu *c, const struct soft_op *op, struct far_return *r)
{
	unsigned rpl = r->cs & 3;
	unsigned dpl;

	if (!(r->cs & 0xfffc))
		soft_raise_err(c, op, EXC_GP, 0);
	if (!desc_fetch(c, op, r->cs, &r->code) || !desc_is_code(r->code.attr) || rpl < c->cpl)
		soft_fault(c, op, EXC_GP, r->cs);
	dpl = desc_dpl(r->code.attr);
	if (r->code.attr & ATTR_EXPAND ? dpl > rpl : dpl != rpl)
		soft_fault(c, op, EXC_GP, r->cs);
	if (soft_long_mode(c) && (r->code.attr & (ATTR_L | ATTR_DB)) == (ATTR_L | ATTR_DB))
		soft_fault(c, op, EXC_GP, r->cs);
	if (!(r->code.attr & ATTR_P))
		soft_fault(c, op, EXC_NP, r->cs);
	soft_check_rip(c, op, &r->code, r->rip);
}

static void return_stack(struct soft_cpu *c, const struct soft_op *op, struct far_return *r)
{
	unsigned rpl = r->cs & 3;
	bool to64 = soft_long_mode(c) && r->code.attr & ATTR_L;

	/* A null SS is fine for 64-bit code of rings 0 to 2. */
	if (!(r->ss & 0xfffc) && to64 && rpl != 3 && (r->ss & 3u) == rpl)
		r->stack = desc_null(r->ss);
	else
		r->stack = soft_check_stack_segment(c, op, r->ss, rpl, EXC_GP);
}

/* Enters the code segment, and the stack where there is a new one. */
static void return_commit(struct soft_cpu *c, const struct soft_op *op, struct far_return *r,
			  const struct soft_stack *st, unsigned size)
{
	bool lower = (r->cs & 3) > c->cpl;
	bool to64 = soft_long_mode(c) && r->code.attr & ATTR_L;

	desc_touch(c, op, &r->code);
	soft_enter_code(c, &r->code, r->cs, r->cs & 3);
	if (!r->outer) {
		stack_commit(c, st);
		return;
	}
	soft_set_segment(c, SEG_SS, &r->stack);
	/* A 16-bit stack takes the low half of the pointer only. */
	if (to64)
		c->r[REG_RSP] = r->rsp;
	else
		soft_reg_set(c, SLOT(REG_RSP), r->stack.attr & ATTR_DB ? MAX(size, 4u) : 2, r->rsp);
	if (lower)
		soft_drop_inner_segments(c);
}

/* ---- RET far -------------------------------------------------------------- */

static const struct soft_op *far_ret_real(struct soft_cpu *c, const struct soft_op *op)
{
	struct soft_stack st = soft_stack_current(c);
	uint64_t rip = stack_pop(c, op, &st, op->size);
	uint16_t sel = (uint16_t)stack_pop(c, op, &st, op->size);
	struct cpu_segment cs = desc_real(c, SEG_CS, sel);

	if (rip > c->s.seg[SEG_CS].limit)
		soft_raise_err(c, op, EXC_GP, 0);
	st.sp += op->imm;
	soft_set_segment(c, SEG_CS, &cs);
	stack_commit(c, &st);
	soft_update_mode(c);
	return soft_go_on(c, op, rip);
}

/* imm: bytes of parameters to release, on both stacks. */
const struct soft_op *op_far_ret(struct soft_cpu *c, const struct soft_op *op)
{
	struct soft_stack st = soft_stack_current(c);
	struct far_return r = { 0 };

	if (!soft_protected(c))
		return far_ret_real(c, op);
	r.rip = stack_pop(c, op, &st, op->size);
	r.cs = (uint16_t)stack_pop(c, op, &st, op->size);
	return_code(c, op, &r);
	st.sp += op->imm;
	r.outer = (r.cs & 3) > c->cpl;
	if (r.outer) {
		r.rsp = stack_pop(c, op, &st, op->size) + op->imm;
		r.ss = (uint16_t)stack_pop(c, op, &st, op->size);
		r.rsp = clip(op->size, r.rsp);
		return_stack(c, op, &r);
	}
	return_commit(c, op, &r, &st, op->size);
	soft_update_mode(c);
	return soft_go_on(c, op, r.rip);
}

/* ---- IRET ----------------------------------------------------------------- */

uint64_t soft_flags_writable(const struct soft_cpu *c, unsigned size)
{
	uint64_t m = RFLAGS_STATUS | RFLAGS_TF | RFLAGS_DF | RFLAGS_NT;
	unsigned iopl = c->s.rflags >> 12 & 3;

	if (size > 2)
		m |= RFLAGS_AC | RFLAGS_ID;
	if (c->cpl <= iopl)
		m |= RFLAGS_IF;
	if (c->cpl == 0)
		m |= RFLAGS_IOPL;
	return m;
}

/*
 * RF suppresses an instruction breakpoint on the next instruction.  Where no
 * breakpoint is on it has no effect, and is not kept: nothing would clear it.
 */
static uint64_t iret_rf(struct soft_cpu *c, unsigned size)
{
	return size > 2 && c->s.dr7 & 0xff ? RFLAGS_RF : 0;
}

static const struct soft_op *iret_done(struct soft_cpu *c, const struct soft_op *op,
				       uint64_t flags, uint64_t mask, uint64_t rip)
{
	uint64_t old = soft_rflags(c) & ~(uint64_t)RFLAGS_RF;

	soft_set_rflags(c, (old & ~mask) | (flags & mask));
	soft_update_mode(c);
	soft_interrupts_changed(c);
	return soft_go_on(c, op, rip);
}

/* Real mode, and virtual-8086 mode with IOPL 3. */
static const struct soft_op *iret_real(struct soft_cpu *c, const struct soft_op *op)
{
	struct soft_stack st = soft_stack_current(c);
	uint64_t mask = soft_flags_writable(c, op->size) | iret_rf(c, op->size);
	struct cpu_segment cs;
	uint64_t rip, flags;
	uint16_t sel;

	if (c->mode & MODE_VM86 && soft_iopl(c) != 3)
		soft_raise_err(c, op, EXC_GP, 0);
	rip = stack_pop(c, op, &st, op->size);
	sel = (uint16_t)stack_pop(c, op, &st, op->size);
	flags = stack_pop(c, op, &st, op->size);
	if (rip > c->s.seg[SEG_CS].limit)
		soft_raise_err(c, op, EXC_GP, 0);
	cs = desc_real(c, SEG_CS, sel);
	soft_set_segment(c, SEG_CS, &cs);
	stack_commit(c, &st);
	return iret_done(c, op, flags, mask, rip);
}

/* From ring 0 back to virtual-8086 mode; EIP, CS and EFLAGS are popped already. */
static const struct soft_op *iret_vm86(struct soft_cpu *c, const struct soft_op *op,
				       struct soft_stack *st, uint64_t rip, uint16_t cs,
				       uint64_t flags)
{
	uint64_t mask = soft_flags_writable(c, 4) | RFLAGS_VM | RFLAGS_VIF | RFLAGS_VIP |
			iret_rf(c, 4);
	uint64_t esp = stack_pop(c, op, st, 4);
	uint16_t sel[6];

	sel[SEG_CS] = cs;
	sel[SEG_SS] = (uint16_t)stack_pop(c, op, st, 4);
	sel[SEG_ES] = (uint16_t)stack_pop(c, op, st, 4);
	sel[SEG_DS] = (uint16_t)stack_pop(c, op, st, 4);
	sel[SEG_FS] = (uint16_t)stack_pop(c, op, st, 4);
	sel[SEG_GS] = (uint16_t)stack_pop(c, op, st, 4);
	if (rip > 0xffff)
		soft_raise_err(c, op, EXC_GP, 0);
	soft_enter_vm86(c, sel);
	soft_reg_set(c, SLOT(REG_RSP), 4, esp);
	return iret_done(c, op, flags, mask, rip);
}

const struct soft_op *op_iret(struct soft_cpu *c, const struct soft_op *op)
{
	struct soft_stack st = soft_stack_current(c);
	struct far_return r = { 0 };
	uint64_t flags, mask;
	unsigned size = op->size;

	/* SDM vol. 3, 6.7.1: IRET ends the blocking of NMIs, even if it faults. */
	c->s.nmi_blocked = 0;
	if (!soft_protected(c))
		return iret_real(c, op);
	if (c->s.rflags & RFLAGS_NT) {
		if (soft_long_mode(c))
			soft_raise_err(c, op, EXC_GP, 0);
		soft_task_return(c, op, soft_next_rip(c, op));
		return NULL;
	}
	r.rip = stack_pop(c, op, &st, size);
	r.cs = (uint16_t)stack_pop(c, op, &st, size);
	flags = stack_pop(c, op, &st, size);
	if (size > 2 && flags & RFLAGS_VM && c->cpl == 0 && !soft_long_mode(c))
		return iret_vm86(c, op, &st, r.rip, r.cs, flags);
	mask = soft_flags_writable(c, size) | iret_rf(c, size);
	if (size > 2 && c->cpl == 0)
		mask |= RFLAGS_VIF | RFLAGS_VIP;
	return_code(c, op, &r);
	/* In 64-bit mode SS:RSP are popped always. */
	r.outer = c->mode & MODE_CS64 || (r.cs & 3) > c->cpl;
	if (r.outer) {
		r.rsp = stack_pop(c, op, &st, size);
		r.ss = (uint16_t)stack_pop(c, op, &st, size);
		return_stack(c, op, &r);
	}
	return_commit(c, op, &r, &st, size);
	return iret_done(c, op, flags, mask, r.rip);
}
