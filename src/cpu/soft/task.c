/*
 * Hardware task switches.  SDM vol. 3, chapter 8 (8.3 for the order of steps,
 * table 8-1 for the checks).  Never in IA-32e mode.
 */
#include "cpu/soft/desc.h"
#include "cpu/soft/system.h"

/* Offsets in a TSS (figures 8-2 and 8-10). */
struct tss_layout {
	unsigned width;			/* of registers */
	unsigned min_limit;
	unsigned eip, eflags, gpr, seg, seg_step, nseg, ldt;
};

static const struct tss_layout layout32 = { 4, 0x67, 0x20, 0x24, 0x28, 0x48, 4, 6, 0x60 };
static const struct tss_layout layout16 = { 2, 0x2b, 0x0e, 0x10, 0x12, 0x22, 2, 4, 0x2a };

#define TSS_LINK	0x00
#define TSS_CR3		0x1c
#define TSS_TRAP	0x64

#define EFLAGS_DEFINED	0x003f7fd5u

/* The state that a TSS holds; segments in the order ES CS SS DS FS GS. */
struct task {
	uint32_t eip, eflags, cr3;
	uint32_t gpr[8];
	uint16_t seg[6];
	uint16_t ldt;
	bool trap;
};

static const struct tss_layout *layout(uint16_t attr)
{
	return attr & 8 ? &layout32 : &layout16;
}

static struct task task_load(struct soft_cpu *c, const struct soft_op *op,
			     const struct soft_desc *tss)
{
	const struct tss_layout *l = layout(tss->attr);
	uint64_t base = tss->base;
	struct task t = { 0 };

	t.eip = (uint32_t)soft_sys_load(c, op, (uint32_t)(base + l->eip), l->width);
	t.eflags = (uint32_t)soft_sys_load(c, op, (uint32_t)(base + l->eflags), l->width);
	for (unsigned i = 0; i < 8; i++)
		t.gpr[i] = (uint32_t)soft_sys_load(c, op, (uint32_t)(base + l->gpr + i * l->width),
						   l->width);
	for (unsigned i = 0; i < l->nseg; i++)
		t.seg[i] = (uint16_t)soft_sys_load(c, op,
						   (uint32_t)(base + l->seg + i * l->seg_step), 2);
	t.ldt = (uint16_t)soft_sys_load(c, op, (uint32_t)(base + l->ldt), 2);
	if (l == &layout32) {
		t.cr3 = (uint32_t)soft_sys_load(c, op, (uint32_t)(base + TSS_CR3), 4);
		t.trap = soft_sys_load(c, op, (uint32_t)(base + TSS_TRAP), 2) & 1;
	}
	return t;
}

/* Writes the dynamic fields of the old task. */
static void task_save(struct soft_cpu *c, const struct soft_op *op, uint32_t eip, uint32_t eflags)
{
	const struct cpu_segment *tr = &c->s.seg[SEG_TR];
	const struct tss_layout *l = layout(tr->attr);
	uint64_t base = tr->base;

	soft_sys_store(c, op, (uint32_t)(base + l->eip), l->width, eip);
	soft_sys_store(c, op, (uint32_t)(base + l->eflags), l->width, eflags);
	for (unsigned i = 0; i < 8; i++)
		soft_sys_store(c, op, (uint32_t)(base + l->gpr + i * l->width), l->width, c->r[i]);
	for (unsigned i = 0; i < l->nseg; i++)
		soft_sys_store(c, op, (uint32_t)(base + l->seg + i * l->seg_step), 2,
			       c->s.seg[i].selector);
}

/* ---- The new task's segments: faults from here on belong to the new task ----- */

static void load_ldt(struct soft_cpu *c, uint16_t sel)
{
	struct cpu_segment v;
	struct soft_desc d;

	if (!(sel & 0xfffc))
		return;
	if (sel & 4 || !desc_fetch(c, NULL, sel, &d) || desc_system(d.attr) != SYS_LDT ||
	    !(d.attr & ATTR_P))
		soft_fault(c, NULL, EXC_TS, sel);
	v = desc_segment(&d, sel);
	soft_set_segment(c, SEG_LDTR, &v);
}

static void load_cs(struct soft_cpu *c, uint16_t sel)
{
	struct soft_desc d;
	unsigned dpl;

	if (!desc_fetch(c, NULL, sel, &d) || !desc_is_code(d.attr))
		soft_fault(c, NULL, EXC_TS, sel);
	dpl = desc_dpl(d.attr);
	if (d.attr & ATTR_EXPAND ? dpl > c->cpl : dpl != c->cpl)
		soft_fault(c, NULL, EXC_TS, sel);
	if (!(d.attr & ATTR_P))
		soft_fault(c, NULL, EXC_NP, sel);
	desc_touch(c, NULL, &d);
	soft_enter_code(c, &d, sel, c->cpl);
}

static void load_segments(struct soft_cpu *c, const struct task *t)
{
	static const uint8_t data[] = { SEG_ES, SEG_DS, SEG_FS, SEG_GS };
	struct cpu_segment v;

	load_ldt(c, t->ldt);
	if (t->eflags & RFLAGS_VM) {
		soft_enter_vm86(c, t->seg);
		soft_update_mode(c);
		return;
	}
	load_cs(c, t->seg[SEG_CS]);
	soft_update_mode(c);
	v = soft_check_stack_segment(c, NULL, t->seg[SEG_SS], c->cpl, EXC_TS);
	soft_set_segment(c, SEG_SS, &v);
	for (unsigned i = 0; i < ARRAY_SIZE(data); i++) {
		v = soft_check_data_desc(c, NULL, t->seg[data[i]], EXC_TS);
		soft_set_segment(c, data[i], &v);
	}
	soft_update_mode(c);
}

/* Registers, flags and selectors; the segments are unusable until load_segments. */
static void commit_registers(struct soft_cpu *c, const struct task *t)
{
	for (unsigned i = 0; i < 8; i++)
		c->r[i] = t->gpr[i];
	c->rip = t->eip;
	for (unsigned i = SEG_ES; i <= SEG_GS; i++) {
		struct cpu_segment v = desc_null(t->seg[i]);

		soft_set_segment(c, i, &v);
	}
	struct cpu_segment ldt = desc_null(t->ldt);

	soft_set_segment(c, SEG_LDTR, &ldt);
	c->cpl = t->eflags & RFLAGS_VM ? 3 : t->seg[SEG_CS] & 3;
	soft_set_rflags(c, (t->eflags & EFLAGS_DEFINED) | 2);
	/* 17.2.4: local breakpoints end with the task. */
	if (c->s.dr7 & 0x155) {
		c->s.dr7 &= ~0x155ull;
		soft_tlb_flush(c, true);
	}
	soft_update_mode(c);
}

/* ---- The switch ----------------------------------------------------------- */

static void switch_check(struct soft_cpu *c, const struct soft_op *op, uint16_t sel,
			 const struct soft_desc *tss, enum soft_switch how)
{
	unsigned type = desc_system(tss->attr);
	bool busy = type == SYS_TSS16_BUSY || type == SYS_TSS32_BUSY;
	bool available = type == SYS_TSS16 || type == SYS_TSS32;

	if (how == SWITCH_IRET ? !busy : !available)
		soft_fault(c, op, how == SWITCH_IRET ? EXC_TS : EXC_GP, sel);
	if (!(tss->attr & ATTR_P))
		soft_fault(c, op, EXC_NP, sel);
	if (tss->limit < layout(tss->attr)->min_limit)
		soft_fault(c, op, EXC_TS, sel);
}

/* Everything that the commit writes can be written. */
static void switch_check_writes(struct soft_cpu *c, const struct soft_op *op,
				const struct soft_desc *tss, const struct soft_desc *old,
				enum soft_switch how)
{
	const struct cpu_segment *tr = &c->s.seg[SEG_TR];
	const struct tss_layout *l = layout(tr->attr);

	soft_sys_check_write(c, op, (uint32_t)(tr->base + l->eip),
			     l->seg + l->nseg * l->seg_step - l->eip);
	if (how == SWITCH_JMP || how == SWITCH_IRET)
		soft_sys_check_write(c, op, (uint32_t)(old->lin + 5), 1);
	if (how != SWITCH_IRET)
		soft_sys_check_write(c, op, (uint32_t)(tss->lin + 5), 1);
	if (how == SWITCH_CALL || how == SWITCH_INT)
		soft_sys_check_write(c, op, (uint32_t)(tss->base + TSS_LINK), 2);
}

/* The error code of the exception that made the switch goes on the new stack. */
static void push_error(struct soft_cpu *c, unsigned size, uint32_t error)
{
	struct soft_stack st = soft_stack_current(c);

	stack_push(c, NULL, &st, size, error);
	stack_commit(c, &st);
}

void soft_task_switch(struct soft_cpu *c, const struct soft_op *op, uint16_t sel,
		      struct soft_desc *tss, enum soft_switch how, uint64_t rip,
		      bool has_error, uint32_t error)
{
	bool nested = how == SWITCH_CALL || how == SWITCH_INT;
	uint16_t old_sel = c->s.seg[SEG_TR].selector;
	uint32_t flags = (uint32_t)soft_rflags(c);
	struct cpu_segment tr;
	struct soft_desc old;
	struct task t;

	switch_check(c, op, sel, tss, how);
	if (!desc_fetch(c, op, old_sel, &old))
		soft_fault(c, op, EXC_TS, old_sel);
	t = task_load(c, op, tss);
	switch_check_writes(c, op, tss, &old, how);
	if (c->s.cr0 & CR0_PG && c->s.cr4 & CR4_PAE && tss->attr & 8)
		soft_load_pdptes(c, op, t.cr3);

	if (!nested)
		desc_set_busy(c, op, &old, false);
	if (how == SWITCH_IRET)
		flags &= ~RFLAGS_NT;
	task_save(c, op, (uint32_t)rip, flags);
	if (nested) {
		soft_sys_store(c, op, (uint32_t)(tss->base + TSS_LINK), 2, old_sel);
		t.eflags |= RFLAGS_NT;
	}
	if (how != SWITCH_IRET)
		desc_set_busy(c, op, tss, true);
	if (op)
		c->budget += op->left;	/* the instruction is done: the block is left */

	/* From here on a fault is the new task's. */
	tr = desc_segment(tss, sel);
	soft_set_segment(c, SEG_TR, &tr);
	c->s.cr0 |= CR0_TS;
	if (c->s.cr0 & CR0_PG && tss->attr & 8)
		soft_tlb_set_cr3(c, t.cr3, false);
	commit_registers(c, &t);
	load_segments(c, &t);
	soft_check_rip(c, NULL, NULL, t.eip);
	if (has_error)
		push_error(c, tss->attr & 8 ? 4 : 2, error);
	soft_interrupts_changed(c);
	if (t.trap)
		soft_set_debug_trap(c, DR6_BT);
}

void soft_task_gate(struct soft_cpu *c, const struct soft_op *op, uint64_t gate,
		    enum soft_switch how, uint64_t rip, bool has_error, uint32_t error)
{
	uint16_t sel = gate >> 16 & 0xffff;
	struct soft_desc tss;

	if (sel & 4 || !desc_fetch(c, op, sel, &tss))
		soft_fault(c, op, EXC_GP, sel);
	soft_task_switch(c, op, sel, &tss, how, rip, has_error, error);
}

void soft_task_return(struct soft_cpu *c, const struct soft_op *op, uint64_t rip)
{
	const struct cpu_segment *tr = &c->s.seg[SEG_TR];
	struct soft_desc tss;
	uint16_t sel;

	sel = (uint16_t)soft_sys_load(c, op, (uint32_t)(tr->base + TSS_LINK), 2);
	if (sel & 4 || !desc_fetch(c, op, sel, &tss))
		soft_fault(c, op, EXC_TS, sel);
	soft_task_switch(c, op, sel, &tss, SWITCH_IRET, rip, false, 0);
}
