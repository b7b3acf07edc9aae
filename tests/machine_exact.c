/*
 * machine_exact [--seed N] [--tiers A,B] KERNEL[,INITRD] POINTS LAST
 *
 * A machine that was carried to another one goes on exactly.  One machine runs to LAST and stands
 * at POINTS pseudo-random instruction counts on the way; at each of them its state is written down
 * as text.  Beside it a chain of machines: each is made anew, gets RAM and every record (encoded
 * and decoded again) of the one before, and runs to the next point, where its state must be the
 * same text.  Each is also exported again before it runs: the records must be the same bytes.
 * Status 0: all the same.  --tiers: soft.tier of the one machine and of those in the chain, whose
 * odd ones take the first one again.  Status 77: one of them is not there.
 */
#include <inttypes.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "config/config.h"
#include "state/codec.h"
#include "vm/machine.h"
#include "vm/vm.h"

static _Noreturn void die(const char *what, const struct skep_error *e)
{
	fprintf(stderr, "machine_exact: %s%s%s\n", what, e ? ": " : "", e ? e->text : "");
	exit(2);
}

struct machine {
	struct config *config;
	struct vm *vm;
	pthread_t thread;
	sem_t stands;
	int code;
	struct skep_error e;
};

/* ---- Machines ---------------------------------------------------------- */

static void set(struct config *c, const char *key, const char *value)
{
	struct skep_error e = { "" };

	if (config_set(c, key, value, NULL, &e))
		die(key, &e);
}

/* The boot files are not named to a restored machine: it must not miss them. */
static struct config *configure(const char *guest, bool restored, const char *tier)
{
	struct config *c = config_create();
	struct skep_error e = { "" };
	char *kernel = strdup(guest), *initrd = strchr(kernel, ',');

	if (!c)
		die("out of memory", NULL);
	set(c, "name", "exact");
	set(c, "memory.size", initrd ? "256M" : "64M");
	set(c, "clock.mode", "virtual");
	set(c, "lpc.debug_exit", "true");
	set(c, "soft.tier", tier);
	if (initrd) {
		*initrd++ = '\0';
		set(c, "boot.initrd", restored ? "/nonexistent/initrd" : initrd);
		set(c, "boot.cmdline", "console=ttyS0");
	}
	set(c, "boot.kernel", restored ? "/nonexistent/kernel" : kernel);
	if (config_freeze(c, &e))
		die("configuration", &e);
	free(kernel);
	return c;
}

static struct machine *make(const char *guest, bool restored, const char *tier)
{
	struct machine *m = calloc(1, sizeof(*m));

	if (!m)
		die("out of memory", NULL);
	m->config = configure(guest, restored, tier);
	m->vm = restored ? vm_create_restored(m->config, &m->e) : vm_create(m->config, &m->e);
	if (!m->vm && strstr(m->e.text, "gives no memory for translated code")) {
		printf("%s\n", m->e.text);
		exit(77);
	}
	if (!m->vm)
		die("no machine", &m->e);
	sem_init(&m->stands, 0, 0);
	return m;
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

/* Goes on to an instruction count, unless the guest ends before. */
static void run_to(struct machine *m, uint64_t insns)
{
	m->vm->stop_point = (struct vm_stop_point){ insns, reached, m };
	if (m->thread)
		vm_resume(m->vm, STOP_POINT);
	else
		pthread_create(&m->thread, NULL, run, m);
	sem_wait(&m->stands);
	if (!vm_exiting(m->vm))
		vm_pause(m->vm, STOP_POINT);
}

static void end(struct machine *m)
{
	if (m->thread) {
		vm_request_exit(m->vm, VM_EXIT_POWEROFF);
		pthread_join(m->thread, NULL);
		if (m->code == VM_EXIT_ERROR)
			die("the machine ended", &m->e);
	}
	vm_destroy(m->vm);
	config_destroy(m->config);
	sem_destroy(&m->stands);
	free(m);
}

/* ---- States ------------------------------------------------------------ */

static char *dump(struct vm *vm)
{
	char *text = NULL;
	size_t size = 0;
	FILE *out = open_memstream(&text, &size);

	if (!out)
		die("out of memory", NULL);
	vm_dump_state(vm, out);
	fclose(out);
	return text;
}

/* Says in which lines two states differ. */
static void show_difference(const char *a, const char *b)
{
	unsigned shown = 0;

	while (*a && *b && shown < 8) {
		size_t la = strcspn(a, "\n"), lb = strcspn(b, "\n");

		if (la != lb || memcmp(a, b, la)) {
			printf("    %.*s\n    %.*s\n", (int)MIN(la, (size_t)200), a, (int)MIN(lb, (size_t)200), b);
			shown++;
		}
		a += la + !!a[la];
		b += lb + !!b[lb];
	}
}

static struct state_buf encode(struct machine_part *p)
{
	struct state_buf b = { 0 };
	struct skep_error e = { "" };

	if (state_encode(p->record, p->name, p->model, p->record->version, &b, &e) < 0)
		die(p->name, &e);
	return b;
}

static void copy_extent(void *opaque, uint64_t gpa, const uint8_t *host, uint64_t len)
{
	if (dma_write(opaque, gpa, host, len) < 0)
		die("RAM cannot be copied", NULL);
}

/* The records through their encoding. */
static void carry(struct machine_state *from, struct machine_state *to)
{
	struct skep_error e = { "" };
	size_t i;

	if (from->nparts != to->nparts)
		die("another number of parts", NULL);
	for (i = 0; i < from->nparts; i++) {
		struct machine_part *p = machine_state_find(to, from->parts[i].name);
		struct state_buf b = encode(&from->parts[i]);

		if (!p)
			die(from->parts[i].name, NULL);
		if (state_decode(p->record, p->name, b.data, b.len, p->model, NULL, NULL, &e) < 0)
			die(p->name, &e);
		p->filled = true;
		state_buf_free(&b);
	}
}

static unsigned compare_records(struct machine_state *a, struct machine_state *b)
{
	unsigned differ = 0;
	size_t i;

	for (i = 0; i < a->nparts; i++) {
		struct state_buf x = encode(&a->parts[i]), y = encode(&b->parts[i]);

		if (x.len != y.len || memcmp(x.data, y.data, x.len)) {
			printf("%s is exported as something else after its commit\n",
			       a->parts[i].name);
			differ++;
		}
		state_buf_free(&x);
		state_buf_free(&y);
	}
	return differ;
}

/* A new machine in the state of this one. */
static struct machine *move(struct machine *from, const char *guest, const char *tier,
			    unsigned *failed)
{
	struct machine *to = make(guest, true, tier);
	struct machine_state *a, *b, *again;
	struct skep_error e = { "" };

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
	*failed += compare_records(a, again);
	machine_state_free(a);
	machine_state_free(b);
	machine_state_free(again);
	return to;
}

/* ---- The points -------------------------------------------------------- */

static int by_value(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

static uint64_t *choose(unsigned n, uint64_t last, uint64_t seed)
{
	uint64_t *at = calloc(n + 1, sizeof(*at));
	unsigned i;

	if (!at)
		die("out of memory", NULL);
	for (i = 0; i < n; i++) {
		seed = seed * 6364136223846793005ull + 1442695040888963407ull;
		at[i] = 1 + (seed >> 16) % last;
		/* Every eighth one right behind another: a machine that lived for an instruction or so. */
		if (i % 8 == 7)
			at[i] = MIN(at[i - 1] + (seed >> 9) % 3, last);
	}
	at[n] = last;
	qsort(at, n + 1, sizeof(*at), by_value);
	return at;
}

/* Both stand, or both have ended; true: they stand. */
static bool compare(struct machine *a, struct machine *b, uint64_t at, const char *what,
		    unsigned *failed)
{
	char *want, *got;

	if (vm_exiting(a->vm) != vm_exiting(b->vm)) {
		printf("%s, at %" PRIu64 ": one has ended\n", what, at);
		(*failed)++;
	}
	if (vm_exiting(a->vm) || vm_exiting(b->vm))
		return false;
	want = dump(a->vm);
	got = dump(b->vm);
	if (strcmp(want, got)) {
		printf("%s, at %" PRIu64 ":\n", what, at);
		show_difference(want, got);
		(*failed)++;
	}
	free(want);
	free(got);
	return true;
}

int main(int argc, char **argv)
{
	struct machine *straight, *whole, *link, *next;
	const char *tiers[2] = { "auto", "auto" };
	uint64_t seed = 1, *at;
	unsigned n, i, failed = 0, done = 0;

	if (argc > 3 && !strcmp(argv[1], "--seed")) {
		seed = strtoull(argv[2], NULL, 0);
		argc -= 2;
		argv += 2;
	}
	if (argc > 3 && !strcmp(argv[1], "--tiers")) {
		tiers[0] = strtok(argv[2], ",");
		tiers[1] = strtok(NULL, ",");
		argc -= 2;
		argv += 2;
	}
	if (argc != 4 || !tiers[0] || !tiers[1]) {
		fprintf(stderr, "usage: machine_exact [--seed N] [--tiers A,B] KERNEL[,INITRD] POINTS LAST\n");
		return 2;
	}
	n = (unsigned)strtoul(argv[2], NULL, 0);
	at = choose(n, strtoull(argv[3], NULL, 0), seed);
	straight = make(argv[1], false, tiers[0]);
	whole = make(argv[1], false, tiers[0]);
	link = make(argv[1], false, tiers[1]);
	for (i = 0; i <= n && failed < 5; i++) {
		if (i && at[i] == at[i - 1])
			continue;
		run_to(whole, at[i]);
		run_to(link, at[i]);
		if (!compare(whole, link, at[i], "carried", &failed))
			break;
		next = move(link, argv[1], tiers[!(i & 1)], &failed);
		end(link);
		link = next;
		done++;
	}
	run_to(straight, at[n]);
	compare(straight, whole, at[n], "stopped on the way", &failed);
	end(straight);
	end(whole);
	end(link);
	free(at);
	printf("%s: %u points, %u wrong\n", argv[1], done, failed);
	return failed != 0;
}
