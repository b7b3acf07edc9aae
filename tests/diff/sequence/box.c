/*
 * A machine of page tables, descriptor tables and handlers that HLT, with clock.mode=virtual, so that
 * it can be stopped after any instruction.
 */
#include <stdlib.h>

#include "chipset/lapic.h"
#include "cpu/soft/cache.h"
#include "cpu/soft/soft.h"
#include "sequence.h"
#include "vm/core.h"

#define RAM_SIZE	(4 * MiB)

/* Guest-physical; the system's own pages are mapped at KERNEL plus their address. */
#define PHYS_WRITTEN	0x200000u	/* code, data, stack: SEQ_RAM bytes */
#define PHYS_STACK	(PHYS_WRITTEN + (SEQ_CODE_PAGES + SEQ_DATA_PAGES) * 0x1000)
#define PHYS_TABLES	0x300000u
#define PHYS_GDT	0x100000u
#define PHYS_IDT	0x101000u
#define PHYS_TSS	0x102000u
#define PHYS_HANDLERS	0x103000u
#define KERNEL		0xffff800000000000ull
#define HANDLER_SIZE	16u

#define PTE_P	1u
#define PTE_W	2u
#define PTE_U	4u
#define PTE_AD	0x60u
#define PTE_NX	BIT(63)

#define SEL_KERNEL	0x10
#define SEL_TSS		0x40

struct box {
	struct vm *vm;
	struct vcpu *v;
	struct soft_cpu *c;
	uint8_t *ram;
	uint64_t next_table;
	struct cpu_arch_state template;
};

/* ---- Tables ---------------------------------------------------------------------- */

static uint64_t *table_below(struct box *b, uint64_t *entry)
{
	if (!(*entry & PTE_P)) {
		*entry = b->next_table | PTE_P | PTE_W | PTE_U | PTE_AD;
		b->next_table += 0x1000;
	}
	return (uint64_t *)(void *)(b->ram + (*entry & 0xfffff000));
}

static void map_page(struct box *b, uint64_t lin, uint64_t phys, uint64_t flags)
{
	uint64_t *t = (uint64_t *)(void *)(b->ram + PHYS_TABLES);

	for (unsigned shift = 39; shift > 12; shift -= 9)
		t = table_below(b, &t[lin >> shift & 511]);
	t[lin >> 12 & 511] = phys | flags | PTE_P | PTE_AD;
}

static void make_page_tables(struct box *b)
{
	uint64_t phys = PHYS_WRITTEN;

	b->next_table = PHYS_TABLES + 0x1000;
	for (unsigned i = 0; i < SEQ_CODE_PAGES; i++, phys += 0x1000) {
		map_page(b, SEQ_CODE + i * 0x1000, phys, PTE_U | PTE_W);
		map_page(b, SEQ_ALIAS + i * 0x1000, phys, PTE_U | PTE_W | PTE_NX);
	}
	for (unsigned i = 0; i < SEQ_DATA_PAGES; i++, phys += 0x1000)
		if (i != SEQ_DATA_HOLE)
			map_page(b, SEQ_DATA + i * 0x1000, phys,
				 PTE_U | PTE_NX | (i == SEQ_DATA_RO ? 0 : PTE_W));
	map_page(b, KERNEL + PHYS_STACK, PHYS_STACK, PTE_W | PTE_NX);
	for (uint64_t p = PHYS_GDT; p <= PHYS_HANDLERS; p += 0x1000)
		map_page(b, KERNEL + p, p, PTE_W);
}

static void set_descriptor(struct box *b, unsigned selector, uint16_t attr)
{
	store64(b->ram + PHYS_GDT + (selector & ~7u),
		0xffff | (uint64_t)(attr & 0xff) << 40 | 0xfull << 48 |
		(uint64_t)(attr >> 12 & 0xf) << 52);
}

static struct cpu_segment segment(uint16_t selector, uint16_t attr)
{
	return (struct cpu_segment){ .selector = selector, .attr = attr, .limit = UINT32_MAX };
}

static void make_descriptors(struct box *b)
{
	uint64_t tss = KERNEL + PHYS_TSS;

	set_descriptor(b, SEL_KERNEL, 0xa09b);
	set_descriptor(b, SEL_DATA, 0xc0f3);
	set_descriptor(b, SEL_CS64, 0xa0fb);
	store64(b->ram + PHYS_GDT + SEL_TSS,
		0x67 | (tss & 0xffffff) << 16 | 0x8bull << 40 | (tss >> 24 & 0xff) << 56);
	store64(b->ram + PHYS_GDT + SEL_TSS + 8, tss >> 32);
	store64(b->ram + PHYS_TSS + 4, KERNEL + PHYS_STACK + 0x1000);
	store16(b->ram + PHYS_TSS + 0x66, 0x68);
	for (unsigned i = 0; i < 256; i++) {
		uint64_t dpl = i == EXC_BP || i == EXC_OF ? 3 : 0;
		uint64_t at = KERNEL + PHYS_HANDLERS + MIN(i, 32u) * HANDLER_SIZE;

		store64(b->ram + PHYS_IDT + i * 16, (at & 0xffff) | SEL_KERNEL << 16 |
			(0x8e | dpl << 5) << 40 | (at >> 16 & 0xffff) << 48);
		store64(b->ram + PHYS_IDT + i * 16 + 8, at >> 32);
	}
	memset(b->ram + PHYS_HANDLERS, 0xf4, 33 * HANDLER_SIZE);	/* HLT */
}

static void make_template(struct box *b, bool v3)
{
	struct cpu_arch_state *s = &b->template;

	*s = b->c->s;
	s->cr0 = CR0_PE | CR0_MP | CR0_ET | CR0_NE | CR0_WP | CR0_AM | CR0_PG;
	s->cr4 = CR4_DE | CR4_PAE | CR4_PGE | CR4_MCE | CR4_OSFXSR | CR4_OSXMMEXCPT | CR4_OSXSAVE |
		 CR4_FSGSBASE;
	s->efer = EFER_LME | EFER_LMA | EFER_NXE;
	s->cr3 = PHYS_TABLES;
	s->xcr0 = v3 ? 7 : 3;
	s->gdtr = (struct cpu_table){ KERNEL + PHYS_GDT, 0xfff };
	s->idtr = (struct cpu_table){ KERNEL + PHYS_IDT, 0xfff };
	s->seg[SEG_TR] = (struct cpu_segment){ .selector = SEL_TSS, .attr = 0x8b, .limit = 0x67,
					       .base = KERNEL + PHYS_TSS };
	for (unsigned i = 0; i < SEG_COUNT; i++)
		if (i == SEG_ES || i == SEG_DS || i == SEG_FS || i == SEG_GS || i == SEG_LDTR)
			s->seg[i] = (struct cpu_segment){ .unusable = 1 };
	s->seg[SEG_SS] = segment(SEL_DATA, 0xc0f3);
}

/* ---- Making one --------------------------------------------------------------------- */

void box_destroy(struct box *b)
{
	if (!b)
		return;
	if (b->v)
		vcpu_destroy(b->v);
	b->vm->vcpus[0] = NULL;
	b->vm->ncpus = 0;
	config_destroy(b->vm->config);
	vm_core_finish(b->vm);
	free(b->vm);
	free(b);
}

struct box *box_create(enum box_way way, bool v3, const char **why)
{
	struct vm_core_options o = { .ram = RAM_SIZE, .seeded = true };
	static struct skep_error e;
	struct box *b = calloc(1, sizeof(*b));

	*why = "no machine";
	clock_init(&o.clock, CLOCK_MODE_VIRTUAL);
	if (b)
		b->vm = calloc(1, sizeof(*b->vm));
	if (!b || !b->vm || vm_core_init(b->vm, &o, &e) < 0)
		abort();
	b->vm->config = config_create();
	if (config_set(b->vm->config, "soft.tier", way == BOX_TRANSLATED ? "translator" : "interpreter",
		       NULL, &e) ||
	    (v3 && config_set(b->vm->config, "cpu.model", "skep-v3.1", NULL, &e)))
		abort();
	b->vm->ncpus = 1;
	b->v = b->vm->vcpus[0] = vcpu_create(b->vm, 0, &vcpu_soft_ops, &e);
	if (!b->v) {
		*why = e.text;
		box_destroy(b);
		return NULL;
	}
	device_lock(b->vm);
	if (!lapic_create(b->v, &e))
		abort();
	device_unlock(b->vm);
	b->c = b->v->backend;
	b->c->test.on = b->c->test.alone = way == BOX_ALONE;
	if (way == BOX_SHORT_BLOCKS)
		b->c->test.block_insns = 3;
	b->ram = memory_page(&b->vm->memory, 0).write;
	make_page_tables(b);
	make_descriptors(b);
	make_template(b, v3);
	b->c->s = b->template;
	soft_tlb_set_cr3(b->c, PHYS_TABLES, false);
	atomic_store(&b->v->stop_reasons, 0);
	atomic_store(&b->v->requests, 0);
	return b;
}

/* ---- Running -------------------------------------------------------------------------- */

static void load_page(struct box *b, unsigned page, const uint8_t *bytes)
{
	uint64_t phys = PHYS_WRITTEN + page * 0x1000;

	if (!memcmp(b->ram + phys, bytes, 0x1000))
		return;
	memcpy(b->ram + phys, bytes, 0x1000);
	/* Pages of code only, and where somebody has jumped into data: nothing is executable there. */
	if (page < SEQ_CODE_PAGES)
		soft_code_written(b->c, phys, 0x1000);
}

static void load_ram(struct box *b, const struct program *p)
{
	static _Thread_local uint8_t code[SEQ_CODE_PAGES * 0x1000];

	memset(code, CODE_FILL, sizeof code);
	memcpy(code + (p->start - SEQ_CODE), p->code, p->len);
	for (unsigned i = 0; i < SEQ_CODE_PAGES; i++)
		load_page(b, i, code + i * 0x1000);
	for (unsigned i = 0; i < SEQ_DATA_PAGES; i++)
		load_page(b, SEQ_CODE_PAGES + i, p->data + i * 0x1000);
	memset(b->ram + PHYS_STACK, 0, 0x1000);
}

static void load_fpu(struct cpu_fpu *f, const struct machine *m)
{
	const struct fx_image *x = &m->fx;

	memset(f, 0, sizeof *f);
	f->fcw = x->fcw;
	f->fsw = x->fsw;
	f->ftw = x->ftw;
	f->mxcsr = x->mxcsr;
	for (unsigned i = 0; i < 8; i++)
		memcpy(f->st[((x->fsw >> 11) + i) & 7], x->st[i], 10);
	memcpy(f->xmm, x->xmm, sizeof f->xmm);
	memcpy(f->ymmh, m->ymmh, sizeof f->ymmh);
}

void box_load(struct box *b, const struct program *p, bool cold)
{
	struct cpu_segment code = segment(SEL_CS64, 0xa0fb);
	struct soft_cpu *c = b->c;

	if (cold) {
		soft_cache_flush(c);
		soft_tlb_flush(c, true);
	}
	load_ram(b, p);
	c->s = b->template;
	load_fpu(&c->s.fpu, &p->in);
	memcpy(c->r, p->in.gpr, sizeof p->in.gpr);
	soft_set_segment(c, SEG_CS, &code);
	soft_set_seg_base(c, SEG_FS, p->in.fs_base);
	soft_set_seg_base(c, SEG_GS, p->in.gs_base);
	c->s.rflags = (p->in.rflags & ~(uint64_t)RFLAGS_STATUS) | RFLAGS_IF | 2;
	c->cc = soft_cc_from_rflags(p->in.rflags);
	c->rip = p->in.rip;
	c->cpl = 3;
	c->exc_raised = c->step_once = false;
	memset(&c->sys, 0, sizeof c->sys);
	soft_update_mode(c);
	/* Time begins again. */
	c->insns_base = 0;
	c->budget = 0;
	c->budget_given = 0;
	b->vm->visited = false;
	atomic_store(&b->vm->clock.insns, 0);
}

bool box_run(struct box *b, uint64_t n)
{
	b->vm->insn_limit = box_insns(b) + n;
	return b->v->ops->run(b->v) != VCPU_EXIT_LIMIT;
}

void box_state(struct box *b, struct cpu_arch_state *s)
{
	memset(s, 0, sizeof *s);
	b->v->ops->get_state(b->v, s);
}

const uint8_t *box_ram(const struct box *b)
{
	return b->ram + PHYS_WRITTEN;
}

uint64_t box_insns(const struct box *b)
{
	return atomic_load(&b->vm->clock.insns);
}
