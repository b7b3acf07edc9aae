/*
 * Is a state that comes from outside one that a processor can be in?  The rules
 * are those of a VM entry (SDM vol. 3, 26.3.1), which name them all, and the
 * reserved bits of the registers.
 */
#include <errno.h>

#include "cpu/model.h"
#include "cpu/soft/desc.h"
#include "cpu/soft/msr.h"
#include "cpu/soft/system.h"

typedef unsigned long long ull;

#define RFLAGS_DEFINED	0x003f7fd7ull
#define CR0_RESERVED	(~(CR0_PE | CR0_MP | CR0_EM | CR0_TS | CR0_ET | CR0_NE | CR0_WP | \
			   CR0_AM | CR0_NW | CR0_CD | CR0_PG))
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
	if (s->xcr0 & ~3ull || !(s->xcr0 & 1))
		return refuse_bits(e, "xcr0", s->xcr0);
	if (s->fpu.mxcsr & 0xffff0000)
		return refuse_bits(e, "fpu.mxcsr", s->fpu.mxcsr);
	return 0;
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
		if (v & m->reserved || (m->keep && v & ~(m->keep | m->always)))
			return refuse_bits(e, m->name, v);
		if (m->check && !m->check(scratch, m, v))
			return skep_fail(e, EINVAL, "cpu: %s %#llx is not a value for this MSR",
					 m->name, (ull)v);
	}
	for (unsigned i = 0; i < ARRAY_SIZE(s->mtrr_var_base); i++) {
		uint64_t high = ~(BIT(c->model->phys_bits) - 1);

		if (s->mtrr_var_base[i] & (high | 0xf00))
			return refuse_bits(e, "mtrr_var_base", s->mtrr_var_base[i]);
		if (s->mtrr_var_mask[i] & (high | 0x7ff))
			return refuse_bits(e, "mtrr_var_mask", s->mtrr_var_mask[i]);
	}
	if (s->apic_base & ~(0xd00ull | 0xfffffff000ull))
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
	if (cs64 ? !soft_canonical(s->rip) : s->rip >> 32)
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

static int refuse_segment(struct skep_error *e, unsigned i, const char *why)
{
	return skep_fail(e, EINVAL, "cpu: segment register %s %s", seg_names[i], why);
}

/* Base, limit and granularity, whatever the segment is. */
static int check_segment_form(const struct cpu_arch_state *s, unsigned i, struct skep_error *e)
{
	const struct cpu_segment *g = &s->seg[i];
	bool wide = i == SEG_FS || i == SEG_GS || i == SEG_LDTR || i == SEG_TR;

	if (g->attr & 0x0f00 || g->unusable > 1)
		return refuse_segment(e, i, "has undefined attribute bits");
	if (g->unusable)
		return 0;
	if (!soft_canonical(g->base) || (!wide && g->base >> 32))
		return refuse_segment(e, i, "has a base that no descriptor can give");
	/* 26.3.1.2: G says which bits of the limit can be anything. */
	if (g->attr & ATTR_G ? (g->limit & 0xfff) != 0xfff : g->limit >> 20)
		return refuse_segment(e, i, "has a limit that does not fit its granularity");
	return 0;
}

static int check_vm86_segment(const struct cpu_arch_state *s, unsigned i, struct skep_error *e)
{
	const struct cpu_segment *g = &s->seg[i];

	if (g->unusable || g->base != (uint64_t)g->selector << 4 || g->limit != 0xffff ||
	    g->attr != 0xf3)
		return refuse_segment(e, i, "is not a virtual-8086 segment");
	return 0;
}

static int check_data_segment(const struct cpu_arch_state *s, unsigned i, struct skep_error *e)
{
	const struct cpu_segment *g = &s->seg[i];

	if (g->unusable)
		return 0;
	if (!(g->attr & ATTR_S) || !(g->attr & ATTR_P))
		return refuse_segment(e, i, "is not a present code or data segment");
	if (desc_is_code(g->attr) && !(g->attr & ATTR_WRITE))
		return refuse_segment(e, i, "is code that cannot be read");
	return 0;
}

static int check_code_and_stack(const struct cpu_arch_state *s, struct skep_error *e)
{
	const struct cpu_segment *cs = &s->seg[SEG_CS], *ss = &s->seg[SEG_SS];
	bool lma = s->efer & EFER_LMA;
	bool pe = s->cr0 & CR0_PE;

	if (cs->unusable || !(cs->attr & ATTR_P) || !(cs->attr & ATTR_S))
		return refuse_segment(e, SEG_CS, "is not a present code segment");
	/* In real mode CS may hold what data segments hold. */
	if (pe && !(cs->attr & ATTR_CODE))
		return refuse_segment(e, SEG_CS, "is not a code segment");
	if (lma && (cs->attr & (ATTR_L | ATTR_DB)) == (ATTR_L | ATTR_DB))
		return refuse_segment(e, SEG_CS, "is both 64-bit and 32-bit");
	if (ss->unusable) {
		if (!(lma && cs->attr & ATTR_L && (cs->selector & 3) != 3))
			return refuse_segment(e, SEG_SS, "is null where that is not allowed");
		return 0;
	}
	if (!desc_is_stack(ss->attr) || !(ss->attr & ATTR_P))
		return refuse_segment(e, SEG_SS, "is not a present writable data segment");
	if (!pe)
		return 0;
	if (cs->attr & ATTR_EXPAND ? desc_dpl(cs->attr) > desc_dpl(ss->attr) :
				     desc_dpl(cs->attr) != desc_dpl(ss->attr))
		return refuse_segment(e, SEG_SS, "has another privilege than cs");
	return 0;
}

static int check_system_segments(const struct cpu_arch_state *s, struct skep_error *e)
{
	const struct cpu_segment *tr = &s->seg[SEG_TR], *ldt = &s->seg[SEG_LDTR];
	unsigned type = desc_system(tr->attr);
	bool lma = s->efer & EFER_LMA;

	if (!ldt->unusable && (desc_system(ldt->attr) != SYS_LDT || !(ldt->attr & ATTR_P)))
		return refuse_segment(e, SEG_LDTR, "is not a present LDT");
	if (tr->unusable)
		return 0;
	if (!(tr->attr & ATTR_P) || !(type == SYS_TSS32_BUSY || (type == SYS_TSS16_BUSY && !lma)))
		return refuse_segment(e, SEG_TR, "is not a busy TSS");
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

static int check_events(const struct cpu_arch_state *s, struct skep_error *e)
{
	if (s->halted > 1 || s->wait_sipi > 1 || s->sti_shadow > 1 || s->ss_shadow > 1 ||
	    s->nmi_pending > 1 || s->nmi_blocked > 1)
		return skep_fail(e, EINVAL, "cpu: an event flag is neither 0 nor 1");
	if (s->sti_shadow && !(s->rflags & RFLAGS_IF))
		return skep_fail(e, EINVAL, "cpu: sti_shadow is set while interrupts are off");
	if (s->halted && (s->sti_shadow || s->ss_shadow))
		return skep_fail(e, EINVAL, "cpu: halted within an interrupt shadow");
	return 0;
}

int soft_validate_state(const struct soft_cpu *c, const struct cpu_arch_state *s,
			struct skep_error *e)
{
	int err = check_control(c, s, e);

	if (!err)
		err = check_msrs(c, s, e);
	if (!err)
		err = check_flags(s, e);
	if (!err)
		err = check_segments(s, e);
	return err ? err : check_events(s, e);
}
