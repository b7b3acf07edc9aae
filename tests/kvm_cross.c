/*
 * A machine that is carried from KVM to the soft processor and back, again and again: only
 * architectural state goes along, through its encoding, and the guest checks itself.  The records
 * that both sides make of one state differ in nothing but what `differences` lists.
 *
 *	kvm_cross GUEST TIMES [DEVICES]
 *
 * Exit code 77 where there is no KVM.
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "chipset/lapic_model.h"
#include "cpu/arch.h"
#include "state/codec.h"
#include "vm/machine.h"
#include "vm/vm.h"

struct machine {
	struct config *config;
	struct vm *vm;
	pthread_t thread;
	bool runs;
	int code;
	struct skep_error e;
};

static char console[] = "/tmp/kvm_cross-XXXXXX";

static void die(const char *what, const struct skep_error *e)
{
	printf("kvm_cross: %s: %s\n", what, e ? e->text : "");
	unlink(console);
	exit(1);
}

static void set(struct config *c, const char *key, const char *value)
{
	struct skep_error e = { "" };

	if (config_set(c, key, value, "test", &e) < 0)
		die("setting", &e);
}

static struct machine *make(const char *guest, const struct machine *from, const char *backend)
{
	struct machine *m = calloc(1, sizeof(*m));
	char khz[16];

	if (!m)
		die("out of memory", NULL);
	m->config = config_create();
	set(m->config, "memory.size", "32M");
	set(m->config, "cpu.model", "skep-v1.1");
	set(m->config, "backend", backend);
	set(m->config, "lpc.com1.path", console);
	set(m->config, "lpc.debug_exit", "true");
	set(m->config, "boot.kernel", guest);
	if (from) {
		snprintf(khz, sizeof(khz), "%u", from->vm->clock.tsc_khz);
		set(m->config, "clock.tsc_khz", khz);
	}
	if (config_freeze(m->config, &m->e) < 0)
		die("configuration", &m->e);
	m->vm = from ? vm_create_restored(m->config, &m->e) : vm_create(m->config, &m->e);
	if (!m->vm)
		die("no machine", &m->e);
	return m;
}

static void *run(void *opaque)
{
	struct machine *m = opaque;

	m->code = vm_run(m->vm, &m->e);
	return NULL;
}

/* Lets it run for so long, and stops it. */
static void run_for(struct machine *m, unsigned us)
{
	m->runs = true;
	pthread_create(&m->thread, NULL, run, m);
	usleep(us);
	vm_pause(m->vm, STOP_SAVE);
	if (vm_exiting(m->vm)) {
		pthread_join(m->thread, NULL);
		printf("the machine ended with %d\n", m->code);
		die("the machine ended", &m->e);
	}
}

static void end(struct machine *m)
{
	if (m->runs) {
		vm_request_exit(m->vm, VM_EXIT_POWEROFF);
		pthread_join(m->thread, NULL);
	}
	vm_destroy(m->vm);
	config_destroy(m->config);
	free(m);
}

/* ---- What may differ ----------------------------------------------------- */

/* Paths of state_diff, as far as they are given, and why that is no state of the guest's. */
static const struct { const char *record, *field; bool amd; const char *why; } differences[] = {
	{ "cpu.0", "fpu.fip", true, "AMD's processors store it with a pending exception only" },
	{ "cpu.0", "fpu.fop", true, "the same" },
	{ "cpu.0", "fpu.fdp", true, "the same" },
	{ NULL, NULL, false, NULL },
};

struct comparison {
	const char *record, *direction;
	unsigned wrong;
};

static void differs(void *opaque, const char *path, const char *a, const char *b, bool host)
{
	struct comparison *c = opaque;

	for (unsigned i = 0; differences[i].record; i++)
		if ((!differences[i].amd || __builtin_cpu_is("amd")) &&
		    !strcmp(differences[i].record, c->record) &&
		    !strncmp(differences[i].field, path, strlen(differences[i].field)))
			return;
	printf("%s: %s.%s is %s, and %s on the other side\n", c->direction, c->record, path, a, b);
	c->wrong++;
}

static struct state_buf encode(struct machine_part *p)
{
	struct state_buf b = { 0 };
	struct skep_error e = { "" };

	if (state_encode(p->record, p->name, p->model, p->record->version, &b, &e) < 0)
		die(p->name, &e);
	return b;
}

static unsigned compare(struct machine_state *a, struct machine_state *b, const char *direction)
{
	struct comparison c = { .direction = direction };

	for (size_t i = 0; i < a->nparts; i++) {
		c.record = a->parts[i].name;
		state_diff(a->parts[i].record, a->parts[i].model, b->parts[i].model, differs, &c);
	}
	return c.wrong;
}

/* The guest arms its timer again before it ends the interrupt: it is never without. */
static unsigned check_timer(struct machine_state *ms)
{
	const struct lapic_model *m = machine_state_find(ms, "lapic.0")->model;
	uint8_t vector = (uint8_t)m->lvt[LVT_TIMER];

	if (m->timer_next || !m->initial_count ||
	    (m->irr[vector / 32] | m->isr[vector / 32]) >> vector % 32 & 1)
		return 0;
	printf("the timer's interrupt is lost\n");
	return 1;
}

/* ---- Carrying ------------------------------------------------------------- */

static void copy_extent(void *opaque, uint64_t gpa, const uint8_t *host, uint64_t len)
{
	if (dma_write(opaque, gpa, host, len) < 0)
		die("RAM cannot be copied", NULL);
}

static void carry(struct machine_state *from, struct machine_state *to)
{
	struct skep_error e = { "" };

	for (size_t i = 0; i < from->nparts; i++) {
		struct machine_part *p = machine_state_find(to, from->parts[i].name);
		struct state_buf b = encode(&from->parts[i]);

		if (!p || state_decode(p->record, p->name, b.data, b.len, p->model, NULL, NULL, &e) < 0)
			die(from->parts[i].name, &e);
		p->filled = true;
		state_buf_free(&b);
	}
}

static struct machine *move(struct machine *from, const char *guest, const char *backend,
			    unsigned *wrong)
{
	struct machine *to = make(guest, from, backend);
	struct machine_state *a, *b, *again;
	struct skep_error e = { "" };

	if (from->vm->vcpus[0]->ops->sync_dirty(from->vm->vcpus[0], &e) < 0)
		die("the pages that were written", &e);
	memory_each_extent(&from->vm->memory, copy_extent, &to->vm->memory);
	a = machine_state_export(from->vm, &e);
	b = a ? machine_state_blank(to->vm, &e) : NULL;
	if (!b)
		die("export", &e);
	carry(a, b);
	if (machine_state_validate(to->vm, b, &e) < 0)
		die("validate", &e);
	machine_state_commit(to->vm, b);
	again = machine_state_export(to->vm, &e);
	if (!again)
		die("export after the commit", &e);
	*wrong += check_timer(a);
	*wrong += compare(a, again, !strcmp(backend, "kvm") ? "soft to KVM" : "KVM to soft");
	machine_state_free(a);
	machine_state_free(b);
	machine_state_free(again);
	return to;
}

/* The guest's last round. */
static unsigned told(void)
{
	char line[200];
	unsigned round = 0;
	FILE *f = fopen(console, "r");

	while (f && fgets(line, sizeof(line), f))
		if (sscanf(line, "round %u", &round) != 1) {
			printf("the guest says: %s", line);
			die("the guest found an error", NULL);
		}
	if (f)
		fclose(f);
	return round;
}

int main(int argc, char **argv)
{
	static const char *const backends[] = { "kvm", "soft" };
	struct machine *m, *next;
	unsigned times, i, wrong = 0, seed = 1, rounds;
	int fd;

	if (argc != 3) {
		fprintf(stderr, "usage: kvm_cross GUEST TIMES\n");
		return 2;
	}
	if (access("/dev/kvm", R_OK | W_OK) < 0) {
		printf("SKIP: there is no /dev/kvm, or it may not be opened\n");
		return 77;
	}
	times = (unsigned)strtoul(argv[2], NULL, 0);
	fd = mkstemp(console);
	if (fd < 0)
		die("no file for the console", NULL);
	close(fd);
	m = make(argv[1], NULL, backends[0]);
	run_for(m, 200000);
	for (i = 1; i <= times && wrong < 10; i++) {
		next = move(m, argv[1], backends[i & 1], &wrong);
		end(m);
		m = next;
		seed = seed * 1103515245 + 12345;
		run_for(m, 2000 + (seed >> 8) % 20000);
	}
	rounds = told();
	/* It still counts. */
	vm_resume(m->vm, STOP_SAVE);
	usleep(300000);
	if (told() <= rounds) {
		printf("the guest stands at round %u\n", rounds);
		wrong++;
	}
	rounds = told();
	end(m);
	unlink(console);
	printf("%u times carried, %u rounds, %u wrong\n", i - 1, rounds, wrong);
	return wrong != 0;
}
