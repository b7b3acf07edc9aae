/*
 * The soft processor, in machines of bare.h: user code runs until something raises, and the handler's
 * frame says what.
 */
#include "bare.h"
#include "cpu/soft/cache.h"

#define PHYS_CODE	0x200000u
#define PHYS_DATA	0x210000u
#define PHYS_STACK	0x104000u

struct soft_machine {
	struct bare b;
	volatile bool running;
	volatile unsigned ticks;	/* since it runs */
};

/* One for each way to run code, and the one that is meant. */
static struct soft_machine machines[2], *soft;

/* ---- Running ----------------------------------------------------------------------- */

static void write_code(struct bare *b, const struct diff_case *k, bool in)
{
	uint64_t at = PHYS_CODE + (k->start - CODE_BASE);

	if (in)
		memcpy(b->ram + at, k->code, k->len);
	else
		memset(b->ram + at, CODE_FILL, k->len);
	soft_code_written(b->c, at, k->len);
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
	struct soft_cpu *c = soft->b.c;

	bare_load(&soft->b, &k->in, k->compat);
	if (path == SOFT_ALONE) {
		/* A breakpoint that nothing reaches: every instruction runs by itself. */
		c->s.dr[0] = 0x7ffffffff000;
		c->s.dr7 |= 2;
		soft_update_mode(c);
	}
}

static const uint64_t *stack_at(uint64_t lin)
{
	return (const uint64_t *)(soft->b.ram + (lin - KERNEL));
}

static bool has_error_code(unsigned vector)
{
	return vector == EXC_DF || (vector >= EXC_TS && vector <= EXC_PF) || vector == EXC_AC;
}

/* The handler's frame. */
static void read_frame(struct outcome *o)
{
	struct soft_cpu *c = soft->b.c;
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
	c = soft->b.c;
	memcpy(soft->b.ram + PHYS_DATA, memory, DATA_HOLE * 0x1000);
	memcpy(soft->b.ram + PHYS_DATA + DATA_RW2 * 0x1000, memory + DATA_RW2 * 0x1000, 0x1000);
	set_state(k, path);
	soft->ticks = 0;
	soft->running = true;
	why = soft->b.v->ops->run(soft->b.v);
	soft->running = false;
	o->ending = END_BROKEN;
	o->vector = 0;
	o->error = 0;
	o->memory = soft->b.ram + PHYS_DATA;
	get_fpu(&o->m, &c->s.fpu);
	o->m.fs_base = c->s.seg[SEG_FS].base;
	o->m.gs_base = c->s.seg[SEG_GS].base;
	o->m.rip = c->rip;
	if (why == VCPU_EXIT_HALTED) {
		read_frame(o);
	} else if (why == VCPU_EXIT_STOPPED) {
		o->ending = END_TIMEOUT;
		atomic_store(&soft->b.v->stop_reasons, 0);
	}
}

/* NULL, or why there is none. */
static const char *machine_init(struct bare *b, const char *tier, bool v3)
{
	const char *why = bare_init(b, CLOCK_MODE_REALTIME, tier, v3, PHYS_STACK);

	if (why)
		return why;
	for (unsigned i = 0; i < CODE_SIZE / 0x1000; i++)
		bare_map(b, CODE_BASE + i * 0x1000, PHYS_CODE + i * 0x1000, PTE_U);
	for (unsigned i = 0; i < DATA_PAGES; i++)
		if (i != DATA_HOLE)
			bare_map(b, DATA_BASE + i * 0x1000, PHYS_DATA + i * 0x1000,
				 PTE_U | PTE_NX | (i == DATA_RO ? 0 : PTE_W));
	memset(b->ram + PHYS_CODE, CODE_FILL, CODE_SIZE);
	return NULL;
}

const char *soft_init(bool v3, unsigned *paths)
{
	const char *why = machine_init(&machines[1].b, "translator", v3);

	*paths = why ? SOFT_TRANSLATED : SOFT_PATHS;
	if (why && !strstr(why, NO_TRANSLATOR))
		return why;
	if (why) {
		printf("# without translated code: %s\n", why);
		bare_finish(&machines[1].b);
	}
	soft = &machines[0];
	return machine_init(&soft->b, "interpreter", v3);
}

void soft_finish(void)
{
	for (unsigned i = 0; i < ARRAY_SIZE(machines); i++)
		if (machines[i].b.vm)
			bare_finish(&machines[i].b);
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
		if (machines[1].b.vm)
			soft_execute(&k, memory, SOFT_TRANSLATED, &o);
	}
}

static void write_code_everywhere(const struct diff_case *k, bool in)
{
	for (unsigned i = 0; i < ARRAY_SIZE(machines); i++)
		if (machines[i].b.vm)
			write_code(&machines[i].b, k, in);
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
	atomic_store(&soft->b.v->stop_reasons, STOP_DEBUG);
	atomic_store(&soft->b.c->kick, KICKED);
	if (soft->ticks > 20)
		abort();	/* not the guest's loop, but ours */
}
