/* Making machines, running them up to a point, and putting them back to one. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "cpu/soft/soft.h"
#include "lockstep.h"
#include "state/fields.h"
#include "vm/memory_inside.h"

_Noreturn void lockstep_die(const char *what, const struct skep_error *e)
{
	fflush(stdout);
	fprintf(stderr, "lockstep: %s%s%s\n", what, e ? ": " : "", e ? e->text : "");
	exit(2);
}

/* ---- Making one ----------------------------------------------------------------- */

static void set(struct config *c, const char *key, const char *value)
{
	struct skep_error e = { "" };

	if (config_set(c, key, value, NULL, &e))
		lockstep_die(key, &e);
}

static void configure(struct machine *m, bool restored)
{
	struct skep_error e = { "" };
	char path[32] = "null";

	m->config = config_create();
	if (!m->config)
		lockstep_die("out of memory", NULL);
	set(m->config, "name", "lockstep");
	set(m->config, "clock.mode", "virtual");
	set(m->config, "lpc.debug_exit", "true");
	set(m->config, "seed", "7");
	set(m->config, "uuid", "11111111-2222-4333-8444-555555555555");
	if (m->console >= 0)
		snprintf(path, sizeof(path), "/proc/self/fd/%d", m->console);
	set(m->config, "lpc.com1.path", path);
	for (unsigned i = 0; i < m->o->nsettings; i++)
		if (config_set_assignment(m->config, m->o->settings[i], "-o", &e))
			lockstep_die(m->o->settings[i], &e);
	set(m->config, "soft.tier", m->way->tier);
	/* A restored machine must not miss the files that it was booted from. */
	if (restored) {
		set(m->config, "boot.kernel", "/nonexistent/kernel");
		if (config_string(config_root(m->config), "boot.initrd"))
			set(m->config, "boot.initrd", "/nonexistent/initrd");
	}
	if (config_freeze(m->config, &e))
		lockstep_die("configuration", &e);
}

static struct machine *machine_create(const struct options *o, unsigned which, bool console,
				      bool restored)
{
	struct machine *m = calloc(1, sizeof(*m));
	struct soft_cpu *cpu;

	if (!m)
		lockstep_die("out of memory", NULL);
	m->o = o;
	m->way = &o->way[which];
	m->console = console ? memfd_create(m->way->name, MFD_CLOEXEC) : -1;
	if (console && m->console < 0)
		lockstep_die("no file in memory for a console", NULL);
	configure(m, restored);
	m->vm = restored ? vm_create_restored(m->config, &m->e) : vm_create(m->config, &m->e);
	if (!m->vm && strstr(m->e.text, "gives no memory for translated code")) {
		/* As scripts/check counts it. */
		printf("%s\n", m->e.text);
		exit(77);
	}
	if (!m->vm)
		lockstep_die(m->e.text, NULL);
	cpu = m->vm->vcpus[0]->backend;
	cpu->test.on = m->way->on;
	cpu->test.alone = m->way->alone;
	cpu->test.block_insns = (uint8_t)m->way->block_insns;
	cpu->test.forget = m->way->forget;
	sem_init(&m->stands, 0, 0);
	return m;
}

struct pair pair_create(const struct options *o, bool console)
{
	return (struct pair){ machine_create(o, 0, console, false),
			      machine_create(o, 1, console, false), 0 };
}

static void machine_destroy(struct machine *m)
{
	if (m->started) {
		vm_request_exit(m->vm, VM_EXIT_POWEROFF);
		pthread_join(m->thread, NULL);
	}
	vm_destroy(m->vm);
	config_destroy(m->config);
	if (m->console >= 0)
		close(m->console);
	sem_destroy(&m->stands);
	free(m);
}

void pair_destroy(struct pair *p)
{
	machine_destroy(p->a);
	machine_destroy(p->b);
	p->a = p->b = NULL;
}

/* ---- Running ---------------------------------------------------------------------- */

uint64_t machine_insns(const struct machine *m)
{
	return atomic_load(&m->vm->clock.insns);
}

bool machine_ended(const struct machine *m)
{
	return vm_exiting(m->vm);
}

static void reached(void *opaque)
{
	sem_post(&((struct machine *)opaque)->stands);
}

static void *run(void *opaque)
{
	struct machine *m = opaque;

	m->code = vm_run(m->vm, &m->e);
	sem_post(&m->stands);
	return NULL;
}

static void begin(struct machine *m, uint64_t insns)
{
	m->vm->stop_point = (struct vm_stop_point){ insns, reached, m };
	if (m->started) {
		vm_resume(m->vm, STOP_POINT);
		return;
	}
	m->started = true;
	if (pthread_create(&m->thread, NULL, run, m))
		lockstep_die("no thread", NULL);
}

static void finish(struct machine *m)
{
	while (sem_wait(&m->stands))
		;
	if (!machine_ended(m))
		vm_pause(m->vm, STOP_POINT);
	else if (m->code == VM_EXIT_ERROR)
		lockstep_die(m->way->name, &m->e);
}

/* Where the planted fault makes machine B stop on its way; 0: nowhere. */
static uint64_t plant_stop(const struct machine *m, uint64_t from, uint64_t to)
{
	const struct plant *p = &m->o->plant;

	if (!p->at || m->way != &m->o->way[1] || from + p->within > p->at || from >= p->at ||
	    p->at > to)
		return 0;
	return p->at;
}

static void plant_fault(struct machine *m)
{
	struct cpu_arch_state s;
	uint8_t byte;

	if (machine_ended(m))
		return;
	if (m->o->plant.gpa) {
		if (dma_read(&m->vm->memory, m->o->plant.gpa, &byte, 1) < 0)
			lockstep_die("--plant-ram: there is no RAM", NULL);
		byte ^= 0x10;
		dma_write(&m->vm->memory, m->o->plant.gpa, &byte, 1);
		return;
	}
	device_lock(m->vm);
	processor_state(m, &s);
	s.dr[2] ^= 0x10;
	if (m->vm->vcpus[0]->ops->set_state(m->vm->vcpus[0], &s, &m->e))
		lockstep_die("--plant", &m->e);
	device_unlock(m->vm);
}

void machine_run(struct machine *m, uint64_t insns)
{
	uint64_t stop = plant_stop(m, machine_insns(m), insns);

	if (stop) {
		begin(m, stop);
		finish(m);
		plant_fault(m);
	}
	if (machine_ended(m) || (m->started && machine_insns(m) >= insns))
		return;
	begin(m, insns);
	finish(m);
}

void pair_run(struct pair *p, uint64_t insns)
{
	bool both = !machine_ended(p->a) && !machine_ended(p->b) &&
		    !plant_stop(p->b, machine_insns(p->b), insns);

	if (both && (!p->a->started || machine_insns(p->a) < insns)) {
		begin(p->a, insns);
		begin(p->b, insns);
		finish(p->a);
		finish(p->b);
		return;
	}
	machine_run(p->a, insns);
	machine_run(p->b, insns);
}

/* ---- Checkpoints ------------------------------------------------------------------- */

void checkpoint_init(struct checkpoint *c, const struct machine *m)
{
	*c = (struct checkpoint){ .npages = m->vm->memory.npages };
	c->ram = mmap(NULL, c->npages * GUEST_PAGE_SIZE, PROT_READ | PROT_WRITE,
		      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	c->there = calloc(c->npages, 1);
	if (c->ram == MAP_FAILED || !c->there)
		lockstep_die("out of memory", NULL);
}

void checkpoint_free(struct checkpoint *c)
{
	machine_state_free(c->state);
	munmap(c->ram, c->npages * GUEST_PAGE_SIZE);
	free(c->there);
}

static void keep_page(struct checkpoint *c, const struct guest_memory *m, size_t page)
{
	const uint8_t *from = page_host(m, page);

	c->there[page] = !page_is_zero(from);
	memcpy(c->ram + page * GUEST_PAGE_SIZE, from, GUEST_PAGE_SIZE);
}

void checkpoint_take(struct checkpoint *c, struct pair *p)
{
	struct guest_memory *a = &p->a->vm->memory, *b = &p->b->vm->memory;
	struct skep_error e = { "" };
	size_t i;

	for (i = 0; (i = memory_find(a, i, a->npages, PAGE_DIRTY, true)) < a->npages; i++)
		keep_page(c, a, i);
	memory_clear_dirty(a);
	memory_clear_dirty(b);
	machine_state_free(c->state);
	c->state = machine_state_export(p->a->vm, &e);
	if (!c->state)
		lockstep_die("the state cannot be taken", &e);
	c->at = machine_insns(p->a);
}

static void restore_ram(struct guest_memory *m, const struct checkpoint *c)
{
	for (size_t i = 0; i < c->npages; i++)
		if (c->there[i]) {
			memory_will_write(m, &m->page_flags[i]);
			memcpy(page_host(m, i), c->ram + i * GUEST_PAGE_SIZE, GUEST_PAGE_SIZE);
		}
}

static void restore_state(struct vm *vm, const struct checkpoint *c)
{
	struct skep_error e = { "" };
	struct machine_state *to = machine_state_blank(vm, &e);

	if (!to || to->nparts != c->state->nparts)
		lockstep_die("the state cannot be put back", &e);
	for (size_t i = 0; i < to->nparts; i++) {
		struct machine_part *from = &c->state->parts[i];
		struct machine_part *part = machine_state_find(to, from->name);

		if (!part || state_copy(part->record, part->model, from->model))
			lockstep_die(from->name, NULL);
		part->filled = true;
	}
	if (machine_state_validate(vm, to, &e) < 0)
		lockstep_die("the state cannot be put back", &e);
	machine_state_commit(vm, to);
	machine_state_free(to);
}

struct pair pair_restore(const struct options *o, const struct checkpoint *c)
{
	struct pair p = { machine_create(o, 0, false, true), machine_create(o, 1, false, true), 0 };
	struct machine *both[2] = { p.a, p.b };

	for (unsigned i = 0; i < 2; i++) {
		restore_ram(&both[i]->vm->memory, c);
		restore_state(both[i]->vm, c);
		memory_clear_dirty(&both[i]->vm->memory);
	}
	return p;
}
