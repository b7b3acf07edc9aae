/*
 * Is a state that comes from outside one that a processor can be in?  The rules
 * are those of a VM entry (SDM vol. 3, 26.3.1), which name them all, the
 * reserved bits of the registers, and what this CPU model never does.  They must
 * not refuse what the processor itself can come to: a save checks its own state by them.
 */
#include <errno.h>
#include <stdlib.h>

#include "cpu/model.h"
#include "cpu/soft/desc.h"
#include "cpu/soft/msr.h"
#include "cpu/soft/system.h"
#include "cpu/soft/x87.h"

typedef unsigned long long ull;

#define RFLAGS_DEFINED	0x003f7fd7ull
#define CR0_RESERVED	(~(CR0_PE | CR0_MP | CR0_EM | CR0_TS | CR0_ET | CR0_NE | CR0_WP | \
			   CR0_AM | CR0_NW | CR0_CD | CR0_PG))
#define PDPTE_P		0x001ull
#define PDPTE_RESERVED	0x1e6ull
#define APIC_BASE_BSP	BIT(8)
#define APIC_BASE_EXTD	BIT(10)
#define APIC_BASE_EN	BIT(11)
#define EFER_DEFINED	(EFER_SCE | EFER_LME | EFER_LMA | EFER_NXE)

static int refuse_bits(struct skep_error *e, const char *name, uint64_t v)
{
	return skep_fail(e, EINVAL, "cpu: %s %#llx has reserved bits that are not as this CPU model has them",
			 name, (ull)v);
}

static int refuse_canonical(struct skep_error *e, const char *name, uint64_t v)
{
	return skep_fail(e, EINVAL, "cpu: %s %#llx is not a canonical address", name, (ull)v);
}

static int check_control(const struct soft_cpu *c, const struct cpu_arch_state *s,
			 struct skep_error *e)
{
	bool lma = s->efer & EFER_LMA;

	if (s->cr0 & CR0_RESERVED || !(s->cr0 & CR0_ET))
		return refuse_bits(e, "cr0", s->cr0);
	if ((s->cr0 & (CR0_PG | CR0_PE)) == CR0_PG)
		return skep_fail(e, EINVAL, "cpu: cr0 %#llx has paging without protection",
				 (ull)s->cr0);
	if ((s->cr0 & (CR0_NW | CR0_CD)) == CR0_NW)
		return skep_fail(e, EINVAL, "cpu: cr0 %#llx has NW without CD", (ull)s->cr0);
	if (s->cr4 & ~soft_cr4_allowed(c))
		return refuse_bits(e, "cr4", s->cr4);
	if (s->efer & ~EFER_DEFINED)
		return refuse_bits(e, "efer", s->efer);
	if (lma != (s->efer & EFER_LME && s->cr0 & CR0_PG))
		return skep_fail(e, EINVAL,
				 "cpu: efer %#llx does not fit cr0 %#llx: LMA is LME with paging",
				 (ull)s->efer, (ull)s->cr0);
	if (lma && !(s->cr4 & CR4_PAE))
		return skep_fail(e, EINVAL, "cpu: cr4 %#llx has no PAE in long mode", (ull)s->cr4);
	if (s->cr4 & CR4_PCIDE && !lma)
		return skep_fail(e, EINVAL, "cpu: cr4 %#llx has PCIDE outside long mode",
				 (ull)s->cr4);
	if (s->cr3 >> c->model->phys_bits)
		return refuse_bits(e, "cr3", s->cr3);
	if (s->cr8 > 15)
		return refuse_bits(e, "cr8", s->cr8);
	if ((s->dr6 & ~DR6_WRITABLE) != DR6_FIXED)
		return refuse_bits(e, "dr6", s->dr6);
	if ((s->dr7 & ~DR7_WRITABLE) != DR7_FIXED)
		return refuse_bits(e, "dr7", s->dr7);
	if (s->pending_dbg & ~(0xfull | DR6_BS | DR6_BT))
		return refuse_bits(e, "pending_dbg", s->pending_dbg);
	if (!soft_xcr0_ok(c, s->xcr0))
		return refuse_bits(e, "xcr0", s->xcr0);
	/* 4.4.1: they were checked when they were loaded, and are kept when not in use. */
	for (unsigned i = 0; i < ARRAY_SIZE(s->pdpte); i++)
		if (s->pdpte[i] & PDPTE_P && (s->pdpte[i] & PDPTE_RESERVED ||
					      s->pdpte[i] >> c->model->phys_bits))
			return refuse_bits(e, "pdpte", s->pdpte[i]);
	return 0;
}

/* SDM vol. 1, 8.1: what control and status word read as; ST has ten bytes a register. */
static int check_fpu(const struct soft_cpu *c, const struct cpu_arch_state *s,
		     struct skep_error *e)
{
	const struct cpu_fpu *f = &s->fpu;
	uint16_t summary = f->fsw & ~f->fcw & FSW_EXCEPTIONS ? FSW_ES | FSW_B : 0;

	if (f->mxcsr & 0xffff0000)
		return refuse_bits(e, "fpu.mxcsr", f->mxcsr);
	if ((f->fcw & ~0x1f3f) != 0x40)
		return refuse_bits(e, "fpu.fcw", f->fcw);
	if ((f->fsw & (FSW_ES | FSW_B)) != summary)
		return skep_fail(e, EINVAL, "cpu: fpu.fsw %#x does not fit fpu.fcw %#x: ES and B follow "
				 "from the exceptions and their masks", f->fsw, f->fcw);
	if (f->fop & ~0x7ff)
		return refuse_bits(e, "fpu.fop", f->fop);
	/* CPUID 7, EBX bit 13. */
	if (f->fcs || f->fds)
		return refuse_bits(e, f->fcs ? "fpu.fcs" : "fpu.fds", f->fcs ? f->fcs : f->fds);
	for (unsigned i = 0; i < 8; i++)
		if (load32(f->st[i] + 10) | load16(f->st[i] + 14))
			return skep_fail(e, EINVAL, "cpu: fpu.st[%u] has more than ten bytes", i);
	for (unsigned i = 0; i < 16; i++)
		if (!(c->model->xcr0 & XCR0_AVX) && (load64(f->ymmh[i]) | load64(f->ymmh[i] + 8)))
			return skep_fail(e, EINVAL, "cpu: fpu.ymmh[%u] is not zero, and cpu.model=%s has no AVX",
					 i, c->model->name);
	return 0;
}

static bool apic_base_ok(const struct soft_cpu *c, uint64_t v)
{
	bool bsp = !c->v || c->v->index == 0;

	return !(v >> c->model->phys_bits) &&
	       !(v & 0xfff & ~(APIC_BASE_BSP | APIC_BASE_EXTD | APIC_BASE_EN)) &&
	       (v & (APIC_BASE_EXTD | APIC_BASE_EN)) != APIC_BASE_EXTD &&
	       !(v & APIC_BASE_BSP) == !bsp;
}

static int check_msrs(const struct soft_cpu *c, const struct cpu_arch_state *s,
		      struct skep_error *e)
{
	struct soft_cpu *scratch = (struct soft_cpu *)c;	/* the checks do not write */

	for (unsigned i = 0; i < soft_nmsrs; i++) {
		const struct soft_msr *m = &soft_msrs[i];
		uint64_t v;

		if (!m->is_field)
			continue;
		memcpy(&v, (const char *)s + m->field, sizeof v);
		if (v & m->reserved || (m->keep && v & ~(m->keep | m->always)) ||
		    (v & m->always) != m->always)
			return refuse_bits(e, m->name, v);
		if (m->check && !m->check(scratch, m, v))
			return skep_fail(e, EINVAL, "cpu: %s %#llx is not a value for this MSR",
					 m->name, (ull)v);
	}
	for (unsigned i = 0; i < ARRAY_SIZE(s->mtrr_var_base); i++) {
		uint64_t high = ~(BIT(c->model->phys_bits) - 1);

		if (s->mtrr_var_base[i] & (high | 0xf00) ||
		    !soft_mtrr_type(s->mtrr_var_base[i] & 0xff))
			return refuse_bits(e, "mtrr_var_base", s->mtrr_var_base[i]);
		if (s->mtrr_var_mask[i] & (high | 0x7ff))
			return refuse_bits(e, "mtrr_var_mask", s->mtrr_var_mask[i]);
	}
	if (!apic_base_ok(c, s->apic_base))
		return refuse_bits(e, "apic_base", s->apic_base);
	if (s->xss)
		return refuse_bits(e, "xss", s->xss);
	if (!soft_canonical(s->seg[SEG_FS].base))
		return refuse_canonical(e, "fs base", s->seg[SEG_FS].base);
	if (!soft_canonical(s->seg[SEG_GS].base))
		return refuse_canonical(e, "gs base", s->seg[SEG_GS].base);
	return 0;
}

static int check_flags(const struct cpu_arch_state *s, struct skep_error *e)
{
	bool lma = s->efer & EFER_LMA;
	bool cs64 = lma && s->seg[SEG_CS].attr & ATTR_L;

	if (s->rflags & ~RFLAGS_DEFINED || !(s->rflags & 2))
		return refuse_bits(e, "rflags", s->rflags);
	if (s->rflags & RFLAGS_VM && (lma || !(s->cr0 & CR0_PE)))
		return skep_fail(e, EINVAL,
				 "cpu: rflags %#llx has VM outside protected mode", (ull)s->rflags);
	/*
	 * 26.3.1.4: bits 63:48 are the same.  The first byte after the lower half is where the
	 * processor stands when it has run to its end; there is the fault.
	 */
	if (cs64 ? (uint64_t)((int64_t)s->rip >> 48) + 1 > 1 : s->rip >> 32)
		return refuse_canonical(e, "rip", s->rip);
	if (!soft_canonical(s->gdtr.base))
		return refuse_canonical(e, "gdtr.base", s->gdtr.base);
	if (!soft_canonical(s->idtr.base))
		return refuse_canonical(e, "idtr.base", s->idtr.base);
	return 0;
}

/* ---- Segments ------------------------------------------------------------------ */

static const char *const seg_names[SEG_COUNT] = { "es", "cs", "ss", "ds", "fs", "gs", "ldtr",
						  "tr" };

static int refuse_segment(struct skep_error *e, const struct cpu_arch_state *s, unsigned i,
			  const char *why)
{
	const struct cpu_segment *g = &s->seg[i];

	return skep_fail(e, EINVAL, "cpu: segment register %s (selector %#x, attr %#x, limit %#x, "
			 "base %#llx) %s", seg_names[i], g->selector, g->attr, g->limit,
			 (ull)g->base, why);
}

/* What is not used is kept in one form: nothing but the base of FS and GS, and SS.DPL. */
static int check_unusable(const struct cpu_arch_state *s, unsigned i, struct skep_error *e)
{
	const struct cpu_segment *g = &s->seg[i];
	bool based = i == SEG_FS || i == SEG_GS;

	if (i == SEG_CS || i == SEG_TR)
		return refuse_segment(e, s, i, "is unusable, which it cannot be");
	if (g->attr & ~(i == SEG_SS ? ATTR_DPL : 0) || g->limit || (g->base && !based))
		return refuse_segment(e, s, i, "is unusable and yet describes something");
	return 0;
}

/* Base, limit and granularity, whatever the segment is. */
static int check_segment_form(const struct cpu_arch_state *s, unsigned i, struct skep_error *e)
{
	const struct cpu_segment *g = &s->seg[i];
	bool wide = i == SEG_FS || i == SEG_GS || i == SEG_LDTR || i == SEG_TR;

	if (g->attr & 0x0f00 || g->unusable > 1)
		return refuse_segment(e, s, i, "has undefined attribute bits");
	if (g->unusable)
		return check_unusable(s, i, e);
	if (!soft_canonical(g->base) || (!wide && g->base >> 32))
		return refuse_segment(e, s, i, "has a base that no descriptor can give");
	/* 26.3.1.2: G says which bits of the limit can be anything. */
	if (g->attr & ATTR_G ? (g->limit & 0xfff) != 0xfff : g->limit >> 20)
		return refuse_segment(e, s, i, "has a limit that does not fit its granularity");
	return 0;
}

static int check_vm86_segment(const struct cpu_arch_state *s, unsigned i, struct skep_error *e)
{
	const struct cpu_segment *g = &s->seg[i];

	if (g->unusable || g->base != (uint64_t)g->selector << 4 || g->limit != 0xffff ||
	    g->attr != 0xf3)
		return refuse_segment(e, s, i, "is not a virtual-8086 segment");
	return 0;
}

static int check_data_segment(const struct cpu_arch_state *s, unsigned i, struct skep_error *e)
{
	const struct cpu_segment *g = &s->seg[i];

	if (g->unusable)
		return 0;
	if (!(g->attr & ATTR_S) || !(g->attr & ATTR_P) || !(g->attr & ATTR_ACCESSED))
		return refuse_segment(e, s, i, "is not a present and accessed code or data segment");
	if (desc_is_code(g->attr) && !(g->attr & ATTR_WRITE))
		return refuse_segment(e, s, i, "is code that cannot be read");
	return 0;
}

/*
 * SS.DPL is the current privilege level (26.3.1.2), also where SS is unusable: 64-bit code of
 * rings 0 to 2 may have no stack segment, and may leave that mode without one.
 */
static int check_code_and_stack(const struct cpu_arch_state *s, struct skep_error *e)
{
	const struct cpu_segment *cs = &s->seg[SEG_CS], *ss = &s->seg[SEG_SS];
	unsigned cpl = s->cr0 & CR0_PE ? desc_dpl(ss->attr) : 0;
	bool lma = s->efer & EFER_LMA;

	if (!desc_is_code(cs->attr) || !(cs->attr & ATTR_P) || !(cs->attr & ATTR_ACCESSED))
		return refuse_segment(e, s, SEG_CS, "is not a present and accessed code segment");
	if (lma && (cs->attr & (ATTR_L | ATTR_DB)) == (ATTR_L | ATTR_DB))
		return refuse_segment(e, s, SEG_CS, "is both 64-bit and 32-bit");
	if (ss->unusable && cpl == 3)
		return refuse_segment(e, s, SEG_SS, "is null where that is not allowed");
	if (!ss->unusable && (!desc_is_stack(ss->attr) || !(ss->attr & ATTR_P) ||
			      !(ss->attr & ATTR_ACCESSED)))
		return refuse_segment(e, s, SEG_SS, "is not a present and accessed writable segment");
	if (desc_dpl(ss->attr) != cpl)
		return refuse_segment(e, s, SEG_SS, "has a privilege, and there is none in real mode");
	if (cs->attr & ATTR_EXPAND ? desc_dpl(cs->attr) > cpl : desc_dpl(cs->attr) != cpl)
		return refuse_segment(e, s, SEG_CS, "has another privilege than ss");
	return 0;
}

static int check_system_segments(const struct cpu_arch_state *s, struct skep_error *e)
{
	const struct cpu_segment *tr = &s->seg[SEG_TR], *ldt = &s->seg[SEG_LDTR];
	unsigned type = desc_system(tr->attr);
	bool lma = s->efer & EFER_LMA;

	if (!ldt->unusable && (desc_system(ldt->attr) != SYS_LDT || !(ldt->attr & ATTR_P)))
		return refuse_segment(e, s, SEG_LDTR, "is not a present LDT");
	if (!(tr->attr & ATTR_P) || !(type == SYS_TSS32_BUSY || (type == SYS_TSS16_BUSY && !lma)))
		return refuse_segment(e, s, SEG_TR, "is not a busy TSS");
	return 0;
}

static int check_segments(const struct cpu_arch_state *s, struct skep_error *e)
{
	int err = 0;

	for (unsigned i = 0; i < SEG_COUNT && !err; i++)
		err = check_segment_form(s, i, e);
	for (unsigned i = SEG_ES; i <= SEG_GS && !err; i++) {
		if (s->rflags & RFLAGS_VM)
			err = check_vm86_segment(s, i, e);
		else if (i != SEG_CS && i != SEG_SS)
			err = check_data_segment(s, i, e);
	}
	if (!err && !(s->rflags & RFLAGS_VM))
		err = check_code_and_stack(s, e);
	return err ? err : check_system_segments(s, e);
}

/* ---- Events ---------------------------------------------------------------------- */

static const struct { const char *name; size_t at; } event_flags[] = {
#define EVENT(f) { #f, offsetof(struct cpu_arch_state, f) }
	EVENT(halted), EVENT(wait_sipi), EVENT(sti_shadow), EVENT(ss_shadow), EVENT(nmi_pending),
	EVENT(nmi_blocked), EVENT(init_pending), EVENT(sipi_pending),
#undef EVENT
};

static unsigned privilege(const struct cpu_arch_state *s)
{
	if (!(s->cr0 & CR0_PE))
		return 0;
	return s->rflags & RFLAGS_VM ? 3 : desc_dpl(s->seg[SEG_SS].attr);
}

static int check_events(const struct soft_cpu *c, const struct cpu_arch_state *s,
			struct skep_error *e)
{
	for (unsigned i = 0; i < ARRAY_SIZE(event_flags); i++) {
		uint8_t v = ((const uint8_t *)s)[event_flags[i].at];

		if (v > 1)
			return skep_fail(e, EINVAL, "cpu: %s is %u, neither 0 nor 1",
					 event_flags[i].name, v);
	}
	if (s->sti_shadow && !(s->rflags & RFLAGS_IF))
		return skep_fail(e, EINVAL, "cpu: sti_shadow is set while interrupts are off");
	if (s->sti_shadow && s->ss_shadow)
		return skep_fail(e, EINVAL, "cpu: sti_shadow and ss_shadow are both set");
	if (s->halted && (s->sti_shadow || s->ss_shadow))
		return skep_fail(e, EINVAL, "cpu: halted within an interrupt shadow");
	if (s->halted && privilege(s) != 0)
		return skep_fail(e, EINVAL, "cpu: halted at privilege level %u, where HLT faults",
				 privilege(s));
	if (s->wait_sipi && (s->halted || !c->v || c->v->index == 0))
		return skep_fail(e, EINVAL, "cpu: wait_sipi is set, and this processor does not wait to "
				 "be started");
	if (s->sipi_vector && !s->sipi_pending)
		return skep_fail(e, EINVAL, "cpu: sipi_vector %#x without sipi_pending",
				 s->sipi_vector);
	return 0;
}

int soft_check_state(const struct cpu_model *model, struct vcpu *v, const struct cpu_arch_state *s,
		     struct skep_error *e)
{
	struct soft_cpu *c = aligned_alloc(64, ALIGN_UP(sizeof *c, 64));
	int err;

	if (!c)
		return skep_fail(e, ENOMEM, "not enough memory for a processor");
	memset(c, 0, sizeof *c);
	c->model = model;
	c->v = v;
	err = soft_validate_state(c, s, e);
	free(c);
	return err;
}

int soft_validate_state(const struct soft_cpu *c, const struct cpu_arch_state *s,
			struct skep_error *e)
{
	int err = check_control(c, s, e);

	if (!err)
		err = check_fpu(c, s, e);
	if (!err)
		err = check_msrs(c, s, e);
	if (!err)
		err = check_flags(s, e);
	if (!err)
		err = check_segments(s, e);
	return err ? err : check_events(c, s, e);
}
