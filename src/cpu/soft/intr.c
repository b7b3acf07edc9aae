/*
 * Between instructions: interrupts that are waiting, traps that are due,
 * breakpoints.  SDM vol. 3, 6.7 (NMI), 6.8 (masking), 6.9 (priorities),
 * chapter 17 (debugging).
 */
#include "cpu/soft/system.h"
#include "cpu/vcpu.h"
#include "vm/vm.h"

/* ---- Interrupts ---------------------------------------------------------- */

static void set_event(struct soft_cpu *c, unsigned vector, unsigned kind)
{
	c->exc.vector = (uint8_t)vector;
	c->exc.kind = (uint8_t)kind;
	c->exc.has_error = false;
	c->exc.error = 0;
	c->exc.insn_rip = c->rip;
}

static void ask_again(struct soft_cpu *c, uint32_t requests)
{
	atomic_fetch_or(&c->v->requests, requests);
	atomic_store(&c->kick, KICKED);
}

void soft_interrupts_changed(struct soft_cpu *c)
{
	if (c->sys.intr_held && c->s.rflags & RFLAGS_IF) {
		c->sys.intr_held = false;
		ask_again(c, VCPU_REQ_INTR);
	}
	if (c->s.nmi_pending && !c->s.nmi_blocked)
		ask_again(c, VCPU_REQ_NMI);
}

/* INIT, then SIPI (SDM vol. 3, 9.4): what an application processor waits for. */
static void take_init(struct soft_cpu *c)
{
	uint32_t r = atomic_fetch_and(&c->v->requests,
				      ~(uint32_t)(VCPU_REQ_INIT | VCPU_REQ_SIPI));

	if (r & VCPU_REQ_INIT) {
		soft_reset(c, true);
		device_lock(c->vm);
		paravirt_init_cpu(c->v);
		device_unlock(c->vm);
	}
	if (r & VCPU_REQ_SIPI && c->s.wait_sipi) {
		unsigned vector = atomic_load(&c->v->sipi_vector);
		struct cpu_segment cs = c->s.seg[SEG_CS];

		cs.selector = (uint16_t)(vector << 8);
		cs.base = (uint64_t)vector << 12;
		soft_set_segment(c, SEG_CS, &cs);
		c->rip = 0;
		c->s.wait_sipi = 0;
		soft_update_mode(c);
		soft_interrupts_changed(c);
	}
}

static bool take_nmi(struct soft_cpu *c)
{
	if (atomic_load(&c->v->requests) & VCPU_REQ_NMI) {
		/* After MOV SS an NMI waits for one instruction. */
		if (c->s.ss_shadow)
			return false;
		atomic_fetch_and(&c->v->requests, ~(uint32_t)VCPU_REQ_NMI);
		c->s.nmi_pending = 1;
	}
	if (!c->s.nmi_pending || c->s.nmi_blocked || c->s.ss_shadow)
		return false;
	c->s.nmi_pending = 0;
	c->s.nmi_blocked = 1;
	set_event(c, EXC_NMI, EXC_KIND_HARD);
	return true;
}

static bool take_maskable(struct soft_cpu *c)
{
	int vector;

	if (!(atomic_load(&c->v->requests) & VCPU_REQ_INTR))
		return false;
	if (c->s.sti_shadow || c->s.ss_shadow)
		return false;		/* stays requested: one instruction more */
	atomic_fetch_and(&c->v->requests, ~(uint32_t)VCPU_REQ_INTR);
	if (!(c->s.rflags & RFLAGS_IF)) {
		c->sys.intr_held = true;
		return false;
	}
	if (!vcpu_intr_pending(c->v))
		return false;
	vector = vcpu_intr_ack(c->v);
	/* There may be more behind it; it is looked for when IF is set again. */
	c->sys.intr_held = true;
	if (vector < 0)
		return false;
	set_event(c, (unsigned)vector, EXC_KIND_HARD);
	return true;
}

bool soft_take_interrupt(struct soft_cpu *c)
{
	if (atomic_load(&c->v->requests) & (VCPU_REQ_INIT | VCPU_REQ_SIPI))
		take_init(c);
	if (c->s.wait_sipi) {
		/* Nothing else is taken (SDM vol. 3, 9.4.3); an NMI is not forgotten. */
		if (atomic_fetch_and(&c->v->requests, ~(uint32_t)(VCPU_REQ_NMI | VCPU_REQ_INTR)) &
		    VCPU_REQ_NMI)
			c->s.nmi_pending = 1;
		c->sys.intr_held = true;
		return false;
	}
	return take_nmi(c) || take_maskable(c);
}

/* ---- Debugging ------------------------------------------------------------ */

/* Breakpoint n: R/W field (0 execute, 1 write, 2 I/O, 3 read or write) and length. */
static unsigned bp_kind(const struct soft_cpu *c, unsigned n)
{
	return c->s.dr7 >> (16 + n * 4) & 3;
}

static unsigned bp_size(const struct soft_cpu *c, unsigned n)
{
	static const uint8_t size[] = { 1, 2, 8, 4 };

	return size[c->s.dr7 >> (18 + n * 4) & 3];
}

static bool bp_enabled(const struct soft_cpu *c, unsigned n)
{
	return c->s.dr7 >> (n * 2) & 3;
}

static void raise_debug(struct soft_cpu *c, unsigned kind, uint64_t dr6)
{
	set_event(c, EXC_DB, kind);
	c->sys.dr6 = dr6;
}

void soft_set_debug_trap(struct soft_cpu *c, uint64_t dr6)
{
	raise_debug(c, EXC_KIND_TRAP, dr6);
	c->exc_raised = true;
}

bool soft_before_insn(struct soft_cpu *c)
{
	uint64_t lin = c->rip, hit = 0;

	c->sys.step = c->s.rflags & RFLAGS_TF;
	if (c->s.rflags & RFLAGS_RF) {
		/* 17.3.1.1: for one instruction. */
		c->s.rflags &= ~(uint64_t)RFLAGS_RF;
		return false;
	}
	if (c->s.ss_shadow || !(c->s.dr7 & DR7_ENABLED))
		return false;
	if (!(c->mode & MODE_CS64))
		lin = (uint32_t)(lin + c->s.seg[SEG_CS].base);
	for (unsigned n = 0; n < 4; n++)
		if (bp_enabled(c, n) && bp_kind(c, n) == 0 && c->s.dr[n] == lin)
			hit |= BIT(n);
	if (!hit)
		return false;
	raise_debug(c, EXC_KIND_FAULT, hit);
	return true;
}

bool soft_after_insn(struct soft_cpu *c)
{
	uint64_t dr6 = c->s.pending_dbg;

	/* MOV SS has just been executed: traps wait for the next instruction (6.8.3). */
	if (c->s.ss_shadow) {
		c->sys.step = false;
		return false;
	}
	if (c->sys.step)
		dr6 |= DR6_BS;
	c->sys.step = false;
	c->s.pending_dbg = 0;
	if (!dr6)
		return false;
	raise_debug(c, EXC_KIND_TRAP, dr6);
	return true;
}

bool soft_page_has_breakpoint(const struct soft_cpu *c, uint64_t page)
{
	if (likely(!(c->s.dr7 & DR7_ENABLED)))
		return false;
	for (unsigned n = 0; n < 4; n++)
		/* Lengths are aligned: a breakpoint lies in one page. */
		if (bp_enabled(c, n) && bp_kind(c, n) & 1 &&
		    (c->s.dr[n] & ~0xfffull) == page)
			return true;
	return false;
}

static bool overlaps(const struct soft_cpu *c, unsigned n, uint64_t at, uint64_t size)
{
	uint64_t len = bp_size(c, n);
	uint64_t start = c->s.dr[n] & ~(len - 1);

	return at < start + len && start < at + size;
}

void soft_data_breakpoint(struct soft_cpu *c, uint64_t lin, unsigned size, bool write)
{
	for (unsigned n = 0; n < 4; n++)
		if (bp_enabled(c, n) && (bp_kind(c, n) == 3 || (bp_kind(c, n) == 1 && write)) &&
		    overlaps(c, n, lin, size))
			c->s.pending_dbg |= BIT(n);
}

void soft_io_breakpoint(struct soft_cpu *c, uint16_t port, unsigned size)
{
	if (likely(!(c->s.cr4 & CR4_DE)) || !(c->s.dr7 & DR7_ENABLED))
		return;
	for (unsigned n = 0; n < 4; n++)
		if (bp_enabled(c, n) && bp_kind(c, n) == 2 && overlaps(c, n, port, size))
			c->s.pending_dbg |= BIT(n);
}
