/* See bare.h. */
#include <stdlib.h>

#include "bare.h"
#include "chipset/lapic.h"
#include "cpu/model.h"
#include "cpu/soft/system.h"

#define SEL_KERNEL	0x10
#define SEL_TSS		0x40

#define ATTR_KERNEL	0xa09b
#define ATTR_CODE64	0xa0fb
#define ATTR_CODE32	0xc0fb
#define ATTR_DATA	0xc0f3

/* ---- Tables ------------------------------------------------------------------- */

static uint64_t *table_below(struct bare *b, uint64_t *entry)
{
	if (!(*entry & PTE_P)) {
		*entry = b->next_table | PTE_P | PTE_W | PTE_U | PTE_AD;
		b->next_table += 0x1000;
	}
	return (uint64_t *)(void *)(b->ram + (*entry & 0xfffff000));
}

void bare_map(struct bare *b, uint64_t lin, uint64_t phys, uint64_t flags)
{
	uint64_t *t = (uint64_t *)(void *)(b->ram + PHYS_TABLES);

	for (unsigned shift = 39; shift > 12; shift -= 9)
		t = table_below(b, &t[lin >> shift & 511]);
	t[lin >> 12 & 511] = phys | flags | PTE_P | PTE_AD;
}

/* A segment's descriptor: attributes as in struct cpu_segment, no limit but 4 GiB. */
static void set_descriptor(struct bare *b, unsigned selector, uint16_t attr)
{
	store64(b->ram + PHYS_GDT + (selector & ~7u),
		0xffff | (uint64_t)(attr & 0xff) << 40 | 0xfull << 48 |
		(uint64_t)(attr >> 12 & 0xf) << 52);
}

static struct cpu_segment segment(uint16_t selector, uint16_t attr)
{
	return (struct cpu_segment){ .selector = selector, .attr = attr, .limit = UINT32_MAX };
}

static void make_descriptors(struct bare *b, uint64_t stack)
{
	uint64_t tss = KERNEL + PHYS_TSS;

	set_descriptor(b, SEL_KERNEL, ATTR_KERNEL);
	set_descriptor(b, SEL_CS32, ATTR_CODE32);
	set_descriptor(b, SEL_DATA, ATTR_DATA);
	set_descriptor(b, SEL_CS64, ATTR_CODE64);
	store64(b->ram + PHYS_GDT + SEL_TSS,
		0x67 | (tss & 0xffffff) << 16 | 0x8bull << 40 | (tss >> 24 & 0xff) << 56);
	store64(b->ram + PHYS_GDT + SEL_TSS + 8, tss >> 32);
	store64(b->ram + PHYS_TSS + 4, KERNEL + stack + 0x1000);
	store16(b->ram + PHYS_TSS + 0x66, 0x68);	/* no I/O permission map */
	for (unsigned i = 0; i < 256; i++) {
		/* INT n from user mode: INT3 and INTO only. */
		uint64_t dpl = i == EXC_BP || i == EXC_OF ? 3 : 0;
		uint64_t at = KERNEL + PHYS_HANDLERS + MIN(i, 32u) * HANDLER_SIZE;

		store64(b->ram + PHYS_IDT + i * 16, (at & 0xffff) | SEL_KERNEL << 16 |
			(0x8e | dpl << 5) << 40 | (at >> 16 & 0xffff) << 48);
		store64(b->ram + PHYS_IDT + i * 16 + 8, at >> 32);
	}
	memset(b->ram + PHYS_HANDLERS, 0xf4, 33 * HANDLER_SIZE);	/* HLT */
}

static void make_template(struct bare *b)
{
	struct cpu_arch_state *s = &b->template;

	*s = b->c->s;
	s->cr0 = CR0_PE | CR0_MP | CR0_ET | CR0_NE | CR0_WP | CR0_AM | CR0_PG;
	s->cr4 = CR4_DE | CR4_PAE | CR4_PGE | CR4_MCE | CR4_OSFXSR | CR4_OSXMMEXCPT | CR4_OSXSAVE |
		 CR4_FSGSBASE;
	s->efer = EFER_SCE | EFER_LME | EFER_LMA | EFER_NXE;
	s->cr3 = PHYS_TABLES;
	s->xcr0 = b->c->model->xcr0;
	s->gdtr = (struct cpu_table){ KERNEL + PHYS_GDT, 0xfff };
	s->idtr = (struct cpu_table){ KERNEL + PHYS_IDT, 0xfff };
	s->seg[SEG_TR] = (struct cpu_segment){ .selector = SEL_TSS, .attr = 0x8b, .limit = 0x67,
					       .base = KERNEL + PHYS_TSS };
	for (unsigned i = 0; i < SEG_COUNT; i++)
		if (i == SEG_ES || i == SEG_DS || i == SEG_FS || i == SEG_GS || i == SEG_LDTR)
			s->seg[i] = (struct cpu_segment){ .unusable = 1 };
	s->seg[SEG_SS] = segment(SEL_DATA, ATTR_DATA);
}

/* ---- Making one --------------------------------------------------------------- */

const char *bare_init(struct bare *b, enum clock_mode mode, const char *tier, bool v3, uint64_t stack)
{
	struct vm_core_options o = { .ram = BARE_RAM, .seeded = true };
	static struct skep_error e;

	clock_init(&o.clock, mode);
	b->vm = calloc(1, sizeof *b->vm);
	if (!b->vm || vm_core_init(b->vm, &o, &e) < 0)
		abort();
	b->vm->config = config_create();
	if (config_set(b->vm->config, "soft.tier", tier, NULL, &e) ||
	    (v3 && config_set(b->vm->config, "cpu.model", "skep-v3.1", NULL, &e)))
		abort();
	b->vm->ncpus = 1;
	b->v = b->vm->vcpus[0] = vcpu_create(b->vm, 0, &vcpu_soft_ops, &e);
	if (!b->v)
		return e.text;
	device_lock(b->vm);
	if (!lapic_create(b->v, &e))
		abort();
	device_unlock(b->vm);
	b->c = b->v->backend;
	b->ram = memory_page(&b->vm->memory, 0).write;
	b->next_table = PHYS_TABLES + 0x1000;
	for (uint64_t p = PHYS_GDT; p <= PHYS_HANDLERS; p += 0x1000)
		bare_map(b, KERNEL + p, p, PTE_W);
	bare_map(b, KERNEL + stack, stack, PTE_W | PTE_NX);
	make_descriptors(b, stack);
	make_template(b);
	b->c->s = b->template;
	soft_tlb_set_cr3(b->c, PHYS_TABLES, false);
	atomic_store(&b->v->stop_reasons, 0);
	atomic_store(&b->v->requests, 0);
	return NULL;
}

void bare_finish(struct bare *b)
{
	if (b->v)
		vcpu_destroy(b->v);
	b->vm->vcpus[0] = NULL;
	b->vm->ncpus = 0;
	config_destroy(b->vm->config);
	vm_core_finish(b->vm);
	free(b->vm);
	*b = (struct bare){ 0 };
}

/* ---- What it begins with -------------------------------------------------------- */

static void load_fpu(struct cpu_fpu *f, const struct machine *m)
{
	const struct fx_image *x = &m->fx;
	unsigned top = x->fsw >> 11 & 7;

	memset(f, 0, sizeof *f);
	f->fcw = x->fcw;
	f->fsw = x->fsw;
	f->ftw = x->ftw;
	f->mxcsr = x->mxcsr;
	for (unsigned i = 0; i < 8; i++)
		memcpy(f->st[(top + i) & 7], x->st[i], 10);
	memcpy(f->xmm, x->xmm, sizeof f->xmm);
	memcpy(f->ymmh, m->ymmh, sizeof f->ymmh);
}

void bare_load(struct bare *b, const struct machine *m, bool compat)
{
	struct cpu_segment data = segment(SEL_DATA, ATTR_DATA);
	struct cpu_segment code = compat ? segment(SEL_CS32, ATTR_CODE32) : segment(SEL_CS64, ATTR_CODE64);
	struct soft_cpu *c = b->c;

	c->s = b->template;
	load_fpu(&c->s.fpu, m);
	memcpy(c->r, m->gpr, sizeof m->gpr);
	soft_set_segment(c, SEG_CS, &code);
	if (compat) {
		soft_set_segment(c, SEG_DS, &data);
		soft_set_segment(c, SEG_ES, &data);
	}
	soft_set_seg_base(c, SEG_FS, m->fs_base);
	soft_set_seg_base(c, SEG_GS, m->gs_base);
	c->s.rflags = (m->rflags & ~(uint64_t)RFLAGS_STATUS) | RFLAGS_IF | 2;
	c->cc = soft_cc_from_rflags(m->rflags);
	c->rip = m->rip;
	c->cpl = 3;
	c->exc_raised = c->step_once = false;
	soft_update_mode(c);
}
