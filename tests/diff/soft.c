/*
 * The soft processor, in a machine that consists of page tables, descriptor tables and handlers
 * that HLT: user code runs until something raises, and the handler's frame says what.
 */
#include <stdlib.h>

#include "chipset/lapic.h"
#include "cpu/model.h"
#include "cpu/soft/cache.h"
#include "cpu/soft/soft.h"
#include "cpu/soft/system.h"
#include "diff.h"
#include "vm/core.h"

#define RAM_SIZE	(4 * MiB)

/* Guest-physical pages.  The system's own are mapped at KERNEL plus their address. */
#define PHYS_CODE	0x200000u
#define PHYS_DATA	0x210000u
#define PHYS_TABLES	0x300000u
#define PHYS_GDT	0x100000u
#define PHYS_IDT	0x101000u
#define PHYS_TSS	0x102000u
#define PHYS_HANDLERS	0x103000u
#define PHYS_STACK	0x104000u
#define KERNEL		0xffff800000000000ull
#define HANDLER_SIZE	16u
#define STACK_TOP	(KERNEL + PHYS_STACK + 0x1000)

#define PTE_P	1u
#define PTE_W	2u
#define PTE_U	4u
#define PTE_AD	0x60u
#define PTE_NX	BIT(63)

#define SEL_KERNEL	0x10
#define SEL_TSS		0x40

struct soft_machine {
	struct vm *vm;
	struct vcpu *v;
	struct soft_cpu *c;
	uint8_t *ram;
	uint64_t next_table;
	struct cpu_arch_state template;
	volatile bool running;
	volatile unsigned ticks;	/* since it runs */
};

/* One for each way to run code, and the one that is meant. */
static struct soft_machine machines[2], *soft;

/* ---- Tables ------------------------------------------------------------------- */

static uint64_t *table_below(uint64_t *entry)
{
	if (!(*entry & PTE_P)) {
		*entry = soft->next_table | PTE_P | PTE_W | PTE_U | PTE_AD;
		soft->next_table += 0x1000;
	}
	return (uint64_t *)(soft->ram + (*entry & 0xfffff000));
}

static void map_page(uint64_t lin, uint64_t phys, uint64_t flags)
{
	uint64_t *t = (uint64_t *)(soft->ram + PHYS_TABLES);

	for (unsigned shift = 39; shift > 12; shift -= 9)
		t = table_below(&t[lin >> shift & 511]);
	t[lin >> 12 & 511] = phys | flags | PTE_P | PTE_AD;
}

static void make_page_tables(void)
{
	soft->next_table = PHYS_TABLES + 0x1000;
	for (unsigned i = 0; i < CODE_SIZE / 0x1000; i++)
		map_page(CODE_BASE + i * 0x1000, PHYS_CODE + i * 0x1000, PTE_U);
	for (unsigned i = 0; i < DATA_PAGES; i++)
		if (i != DATA_HOLE)
			map_page(DATA_BASE + i * 0x1000, PHYS_DATA + i * 0x1000,
				 PTE_U | PTE_NX | (i == DATA_RO ? 0 : PTE_W));
	for (uint64_t p = PHYS_GDT; p <= PHYS_STACK; p += 0x1000)
		map_page(KERNEL + p, p, PTE_W);
}

/* A segment's descriptor: attributes as in struct cpu_segment, no limit but 4 GiB. */
static void set_descriptor(unsigned selector, uint16_t attr)
{
	store64(soft->ram + PHYS_GDT + (selector & ~7u),
		0xffff | (uint64_t)(attr & 0xff) << 40 | 0xfull << 48 |
		(uint64_t)(attr >> 12 & 0xf) << 52);
}

static struct cpu_segment segment(uint16_t selector, uint16_t attr)
{
	return (struct cpu_segment){ .selector = selector, .attr = attr, .limit = UINT32_MAX };
}

#define ATTR_KERNEL	0xa09b
#define ATTR_CODE64	0xa0fb
#define ATTR_CODE32	0xc0fb
#define ATTR_DATA	0xc0f3

static void make_descriptors(void)
{
	uint64_t tss = KERNEL + PHYS_TSS, idt = PHYS_IDT;

	set_descriptor(SEL_KERNEL, ATTR_KERNEL);
	set_descriptor(SEL_CS32, ATTR_CODE32);
	set_descriptor(SEL_DATA, ATTR_DATA);
	set_descriptor(SEL_CS64, ATTR_CODE64);
	store64(soft->ram + PHYS_GDT + SEL_TSS,
		0x67 | (tss & 0xffffff) << 16 | 0x8bull << 40 | (tss >> 24 & 0xff) << 56);
	store64(soft->ram + PHYS_GDT + SEL_TSS + 8, tss >> 32);
	store64(soft->ram + PHYS_TSS + 4, STACK_TOP);
	store16(soft->ram + PHYS_TSS + 0x66, 0x68);	/* no I/O permission map */
	for (unsigned i = 0; i < 256; i++) {
		/* INT n from user mode: INT3 and INTO only. */
		uint64_t dpl = i == EXC_BP || i == EXC_OF ? 3 : 0;
		uint64_t at = KERNEL + PHYS_HANDLERS + (i < 32 ? i : 32) * HANDLER_SIZE;

		store64(soft->ram + idt + i * 16, (at & 0xffff) | SEL_KERNEL << 16 |
			(0x8e | dpl << 5) << 40 | (at >> 16 & 0xffff) << 48);
		store64(soft->ram + idt + i * 16 + 8, at >> 32);
	}
	memset(soft->ram + PHYS_HANDLERS, 0xf4, 33 * HANDLER_SIZE);	/* HLT */
}

static void make_template(void)
{
	struct cpu_arch_state *s = &soft->template;

	*s = soft->c->s;
	s->cr0 = CR0_PE | CR0_MP | CR0_ET | CR0_NE | CR0_WP | CR0_AM | CR0_PG;
	s->cr4 = CR4_DE | CR4_PAE | CR4_PGE | CR4_MCE | CR4_OSFXSR | CR4_OSXMMEXCPT | CR4_OSXSAVE |
		 CR4_FSGSBASE;
	s->efer = EFER_SCE | EFER_LME | EFER_LMA | EFER_NXE;
	s->cr3 = PHYS_TABLES;
	s->xcr0 = soft->c->model->xcr0;
	s->gdtr = (struct cpu_table){ KERNEL + PHYS_GDT, 0xfff };
	s->idtr = (struct cpu_table){ KERNEL + PHYS_IDT, 0xfff };
	s->seg[SEG_TR] = (struct cpu_segment){ .selector = SEL_TSS, .attr = 0x8b, .limit = 0x67,
					       .base = KERNEL + PHYS_TSS };
	s->seg[SEG_LDTR] = (struct cpu_segment){ .unusable = 1 };
	s->seg[SEG_SS] = segment(SEL_DATA, ATTR_DATA);
	for (unsigned i = 0; i < SEG_COUNT; i++)
		if (i == SEG_ES || i == SEG_DS || i == SEG_FS || i == SEG_GS)
			s->seg[i] = (struct cpu_segment){ .unusable = 1 };
}

/* ---- Running ----------------------------------------------------------------------- */

static void write_code(struct soft_machine *m, const struct diff_case *k, bool in)
{
	uint64_t at = PHYS_CODE + (k->start - CODE_BASE);

	if (in)
		memcpy(m->ram + at, k->code, k->len);
	else
		memset(m->ram + at, CODE_FILL, k->len);
	soft_code_written(m->c, at, k->len);
}

static void set_fpu(struct cpu_fpu *f, const struct machine *m)
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

static void get_fpu(struct machine *m, const struct cpu_fpu *f)
{
	struct fx_image *x = &m->fx;
	unsigned top = f->fsw >> 11 & 7;

	memset(x, 0, sizeof *x);
	x->fcw = f->fcw;
	x->fsw = f->fsw;
	x->ftw = f->ftw;
	x->mxcsr = f->mxcsr;
	for (unsigned i = 0; i < 8; i++)
		memcpy(x->st[i], f->st[(top + i) & 7], 10);
	memcpy(x->xmm, f->xmm, sizeof f->xmm);
	memcpy(m->ymmh, f->ymmh, sizeof f->ymmh);
}

static void set_state(const struct diff_case *k, enum soft_path path)
{
	struct soft_cpu *c = soft->c;
	struct cpu_segment data = segment(SEL_DATA, ATTR_DATA);
	struct cpu_segment code = k->compat ? segment(SEL_CS32, ATTR_CODE32)
					    : segment(SEL_CS64, ATTR_CODE64);

	c->s = soft->template;
	set_fpu(&c->s.fpu, &k->in);
	memcpy(c->r, k->in.gpr, sizeof k->in.gpr);
	soft_set_segment(c, SEG_CS, &code);
	if (k->compat) {
		soft_set_segment(c, SEG_DS, &data);
		soft_set_segment(c, SEG_ES, &data);
	}
	soft_set_seg_base(c, SEG_FS, k->in.fs_base);
	soft_set_seg_base(c, SEG_GS, k->in.gs_base);
	c->s.rflags = (k->in.rflags & ~(uint64_t)RFLAGS_STATUS) | RFLAGS_IF | 2;
	c->cc = soft_cc_from_rflags(k->in.rflags);
	c->rip = k->in.rip;
	c->cpl = 3;
	c->exc_raised = c->step_once = false;
	if (path == SOFT_ALONE) {
		/* A breakpoint that nothing reaches: every instruction runs by itself. */
		c->s.dr[0] = 0x7ffffffff000;
		c->s.dr7 |= 2;
	}
	soft_update_mode(c);
}

static const uint64_t *stack_at(uint64_t lin)
{
	return (const uint64_t *)(soft->ram + (lin - KERNEL));
}

static bool has_error_code(unsigned vector)
{
	return vector == EXC_DF || (vector >= EXC_TS && vector <= EXC_PF) || vector == EXC_AC;
}

/* The handler's frame. */
static void read_frame(struct outcome *o)
{
	struct soft_cpu *c = soft->c;
	uint64_t at = c->rip - 1 - (KERNEL + PHYS_HANDLERS);
	const uint64_t *f;

	if (at >= 32 * HANDLER_SIZE || at % HANDLER_SIZE || c->cpl != 0 ||
	    c->r[REG_RSP] - (KERNEL + PHYS_STACK) >= 0x1000)
		return;
	f = stack_at(c->r[REG_RSP]);
	o->vector = (uint8_t)(at / HANDLER_SIZE);
	o->error = has_error_code(o->vector) ? (uint32_t)*f++ : 0;
	o->m.rip = f[0];
	o->m.rflags = f[2];
	memcpy(o->m.gpr, c->r, sizeof o->m.gpr);
	o->m.gpr[REG_RSP] = f[3];
	o->cr2 = c->s.cr2;
	if (o->vector == EXC_PF && (o->m.rip == EXIT_BASE || o->m.rip == EXIT32_BASE) &&
	    o->cr2 == o->m.rip)
		o->ending = END_EXIT;
	else
		o->ending = END_FAULT;
}

void soft_execute(const struct diff_case *k, const uint8_t *memory, enum soft_path path,
		  struct outcome *o)
{
	struct soft_cpu *c;
	enum vcpu_exit why;

	soft = &machines[path >= SOFT_TRANSLATED];
	c = soft->c;
	memcpy(soft->ram + PHYS_DATA, memory, DATA_HOLE * 0x1000);
	memcpy(soft->ram + PHYS_DATA + DATA_RW2 * 0x1000, memory + DATA_RW2 * 0x1000, 0x1000);
	set_state(k, path);
	soft->ticks = 0;
	soft->running = true;
	why = soft->v->ops->run(soft->v);
	soft->running = false;
	o->ending = END_BROKEN;
	o->vector = 0;
	o->error = 0;
	o->memory = soft->ram + PHYS_DATA;
	get_fpu(&o->m, &c->s.fpu);
	o->m.fs_base = c->s.seg[SEG_FS].base;
	o->m.gs_base = c->s.seg[SEG_GS].base;
	o->m.rip = c->rip;
	if (why == VCPU_EXIT_HALTED) {
		read_frame(o);
	} else if (why == VCPU_EXIT_STOPPED) {
		o->ending = END_TIMEOUT;
		atomic_store(&soft->v->stop_reasons, 0);
	}
}

/* NULL, or why there is none. */
static const char *machine_init(const char *tier, bool v3, struct skep_error *e)
{
	struct vm_core_options o = { .ram = RAM_SIZE, .seeded = true };

	soft->vm = calloc(1, sizeof *soft->vm);
	clock_init(&o.clock, CLOCK_MODE_REALTIME);
	if (!soft->vm || vm_core_init(soft->vm, &o, e) < 0)
		return "no machine";
	soft->vm->config = config_create();
	if (config_set(soft->vm->config, "soft.tier", tier, NULL, e) ||
	    (v3 && config_set(soft->vm->config, "cpu.model", "skep-v3.1", NULL, e)))
		return e->text;
	soft->vm->ncpus = 1;
	soft->v = soft->vm->vcpus[0] = vcpu_create(soft->vm, 0, &vcpu_soft_ops, e);
	if (!soft->v)
		return e->text;
	device_lock(soft->vm);
	if (!lapic_create(soft->v, e))
		return "no processor";
	device_unlock(soft->vm);
	soft->c = soft->v->backend;
	soft->ram = memory_page(&soft->vm->memory, 0).write;
	make_page_tables();
	make_descriptors();
	make_template();
	memset(soft->ram + PHYS_CODE, CODE_FILL, CODE_SIZE);
	soft->c->s = soft->template;
	soft_tlb_set_cr3(soft->c, PHYS_TABLES, false);
	atomic_store(&soft->v->stop_reasons, 0);
	atomic_store(&soft->v->requests, 0);
	return NULL;
}

static void machine_finish(struct soft_machine *m)
{
	if (m->v)
		vcpu_destroy(m->v);
	m->vm->vcpus[0] = NULL;
	m->vm->ncpus = 0;
	config_destroy(m->vm->config);
	vm_core_finish(m->vm);
	free(m->vm);
	*m = (struct soft_machine){ 0 };
}

const char *soft_init(bool v3, unsigned *paths)
{
	static struct skep_error e;
	const char *why;

	soft = &machines[1];
	why = machine_init("translator", v3, &e);
	*paths = why ? SOFT_TRANSLATED : SOFT_PATHS;
	if (why && !strstr(why, "not built yet"))
		return why;
	if (why) {
		printf("# without translated code: %s\n", why);
		machine_finish(soft);
	}
	soft = &machines[0];
	return machine_init("interpreter", v3, &e);
}

void soft_finish(void)
{
	for (unsigned i = 0; i < ARRAY_SIZE(machines); i++)
		if (machines[i].vm)
			machine_finish(&machines[i]);
}

/*
 * A block of INT3 in each page of code, where no case comes: so that the pages stay marked as code,
 * which costs much more than a case does.  The cache forgets everything now and then.
 */
static void keep_code_pages(void)
{
	static struct diff_case k;
	static uint8_t memory[DATA_SIZE];
	static unsigned calls;
	struct outcome o;

	if (calls++ % 1024)
		return;
	for (unsigned i = 0; i < CODE_SIZE / 0x1000; i++) {
		k.in.rip = CODE_BASE + i * 0x1000 + (i ? 0x800 : 0);
		k.in.rflags = 2;
		k.in.fx.mxcsr = 0x1f80;
		k.in.fx.fcw = 0x37f;
		soft_execute(&k, memory, SOFT_COLD, &o);
		if (machines[1].vm)
			soft_execute(&k, memory, SOFT_TRANSLATED, &o);
	}
}

static void write_code_everywhere(const struct diff_case *k, bool in)
{
	for (unsigned i = 0; i < ARRAY_SIZE(machines); i++)
		if (machines[i].vm)
			write_code(&machines[i], k, in);
}

void soft_place(const struct diff_case *k)
{
	keep_code_pages();
	write_code_everywhere(k, true);
}

void soft_unplace(const struct diff_case *k)
{
	write_code_everywhere(k, false);
}

/* Stops a case that does not end.  From the signal handler. */
void soft_tick(void)
{
	if (!soft->running || ++soft->ticks < 3)
		return;
	atomic_store(&soft->v->stop_reasons, STOP_DEBUG);
	atomic_store(&soft->c->kick, KICKED);
	if (soft->ticks > 20)
		abort();	/* not the guest's loop, but ours */
}
