/*
 * Power-on and INIT (SDM vol. 3, table 9-1), and architectural state in and out.
 */
#include "chipset/lapic.h"
#include "cpu/model.h"
#include "cpu/soft/desc.h"
#include "cpu/soft/msr.h"
#include "cpu/soft/system.h"
#include "vm/vm.h"

void soft_reset(struct soft_cpu *c, bool init)
{
	uint32_t id[4];

	/* EDX: the processor's signature. */
	soft_cpuid(c, 1, 0, id);
	cpu_arch_reset(&c->s, init, !c->v || c->v->index == 0, id[0]);
	memset(&c->sys, 0, sizeof c->sys);
	memset(&c->exc, 0, sizeof c->exc);
	memset(c->r, 0, sizeof c->r);
	memcpy(c->r, c->s.gpr, sizeof c->s.gpr);
	c->cc = CC_ONE;
	for (unsigned i = 0; i < SEG_COUNT; i++)
		soft_set_seg_base(c, i, c->s.seg[i].base);
	c->cpl = 0;
	c->rip = c->s.rip;
	soft_tlb_flush(c, true);
	soft_tlb_set_cr3(c, 0, false);
	soft_update_mode(c);
}

/* ---- State in and out ---------------------------------------------------------- */

/*
 * A segment's cached contents mean nothing while it is unusable: one form of it.  SS.DPL is the
 * privilege level all the same.
 */
static void canonical_segments(struct cpu_arch_state *s, unsigned cpl)
{
	for (unsigned i = 0; i < SEG_COUNT; i++) {
		struct cpu_segment *g = &s->seg[i];

		if (!g->unusable)
			continue;
		g->attr = i == SEG_SS ? (uint16_t)(cpl << 5) : 0;
		g->limit = 0;
		/* FS and GS have a base of their own in 64-bit mode. */
		if (i != SEG_FS && i != SEG_GS)
			g->base = 0;
	}
}

/* What came, and was not looked at before the stop. */
static void export_requests(struct vcpu *v, struct cpu_arch_state *s)
{
	uint32_t requests = atomic_load(&v->requests);

	if (requests & VCPU_REQ_NMI)
		s->nmi_pending = 1;
	s->init_pending = !!(requests & VCPU_REQ_INIT);
	s->sipi_pending = !!(requests & VCPU_REQ_SIPI);
	s->sipi_vector = s->sipi_pending ? atomic_load(&v->sipi_vector) : 0;
}

/* The way back; everything is looked at once. */
static void import_requests(struct vcpu *v, const struct cpu_arch_state *s)
{
	uint32_t bits = VCPU_REQ_INTR;

	if (s->init_pending)
		bits |= VCPU_REQ_INIT;
	if (s->sipi_pending)
		bits |= VCPU_REQ_SIPI;
	atomic_store(&v->sipi_vector, s->sipi_vector);
	atomic_fetch_and(&v->requests,
			 ~(uint32_t)(VCPU_REQ_NMI | VCPU_REQ_INIT | VCPU_REQ_SIPI));
	atomic_fetch_or(&v->requests, bits);
}

void soft_get_state(struct soft_cpu *c, struct cpu_arch_state *s)
{
	if (c->jmp)
		soft_mxcsr_sync(c);
	*s = c->s;
	memcpy(s->gpr, c->r, sizeof s->gpr);
	s->rip = c->rip;
	s->rflags = soft_rflags(c);
	if (c->v)
		export_requests(c->v, s);
	canonical_segments(s, c->cpl);
	if (c->v && c->v->lapic) {
		s->cr8 = lapic_get_tpr(c->v->lapic);
		s->apic_base = lapic_get_base(c->v->lapic);
	}
}

int soft_set_state(struct soft_cpu *c, const struct cpu_arch_state *s, struct skep_error *e)
{
	int err = soft_validate_state(c, s, e);
	uint64_t cr3;

	if (err)
		return err;
	cr3 = s->cr3;
	memset(&c->sys, 0, sizeof c->sys);
	memset(&c->exc, 0, sizeof c->exc);
	c->s = *s;
	memcpy(c->r, s->gpr, sizeof s->gpr);
	memset(&c->r[SLOT_ZERO], 0, (SLOT_COUNT - SLOT_ZERO) * sizeof c->r[0]);
	c->rip = s->rip;
	c->s.rflags = (s->rflags & ~(uint64_t)RFLAGS_STATUS) | 2;
	c->cc = soft_cc_from_rflags(s->rflags);
	for (unsigned i = 0; i < SEG_COUNT; i++)
		soft_set_segment(c, i, &s->seg[i]);
	if (!(s->cr0 & CR0_PE))
		c->cpl = 0;
	else if (s->rflags & RFLAGS_VM)
		c->cpl = 3;
	else
		c->cpl = (uint8_t)desc_dpl(s->seg[SEG_SS].attr);
	soft_tlb_flush(c, true);
	soft_tlb_set_cr3(c, cr3, false);
	soft_update_mode(c);
	/* The machine is stopped: its device lock is the caller's. */
	if (c->v && c->v->lapic)
		lapic_set_tsc_adjust(c->v->lapic, s->tsc_adjust);
	/* What was under way belongs to the state before. */
	if (c->v) {
		import_requests(c->v, s);
		atomic_store(&c->kick, KICKED);
	}
	/* The machine's count, which may be another by now. */
	if (c->vm) {
		c->insns_base = atomic_load(&c->vm->clock.insns);
		c->budget = 0;
		c->budget_given = 0;
		c->step_rest = 0;
	}
	return 0;
}
