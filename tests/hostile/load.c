#include "hostile.h"

#include <dirent.h>
#include <errno.h>
#include <malloc.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "base/text.h"
#include "base/util.h"
#include "config/config.h"
#include "snapshot/records.h"
#include "snapshot/restore.h"
#include "state/codec.h"
#include "vm/machine.h"
#include "vm/vm.h"

/* A machine that still runs after so long is told to stop; its clock may be the host's. */
#define SOFT_NS		(1 * 1000000ll)
#define SOFT_VIRTUAL_NS	(200 * 1000000ll)
/* A case that takes so long hangs; on a host that is very busy, too. */
#define HARD_NS		(20 * NSEC_PER_SEC)
#define POLL_NS		200000
/* Of the whole process, whatever it has loaded. */
#define RSS_MAX		(192 * MiB)
#define RSS_SANITIZED	(1536 * MiB)

void (*hostile_failed)(void);

#if defined(__SANITIZE_ADDRESS__)
#define SANITIZED true
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SANITIZED true
#endif
#endif
#ifndef SANITIZED
#define SANITIZED false
#endif

bool hostile_sanitized(void)
{
	return SANITIZED;
}

static _Noreturn void __attribute__((format(printf, 1, 2))) violation(const char *fmt, ...)
{
	va_list ap;

	fprintf(stderr, "hostile: ");
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fprintf(stderr, "\n");
	abort();	/* whose signal calls hostile_failed, where there is a handler */
}

/* ---- The watchdog -------------------------------------------------------------- */

static struct {
	pthread_mutex_t lock;
	struct vm *vm;			/* runs now, or NULL */
	int64_t soft, hard;		/* when it must stop, and when the case must be over */
	bool idle;			/* waited already at the last look */
} dog = { .lock = PTHREAD_MUTEX_INITIALIZER };

static int64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * NSEC_PER_SEC + t.tv_nsec;
}

/* With a virtual clock and nobody at its console, who waits once waits for ever. */
static bool waits_for_ever(struct vm *vm)
{
	bool waits = vm->clock.mode == CLOCK_MODE_VIRTUAL && atomic_load(&vm->vcpus[0]->waiting);
	bool twice = waits && dog.idle;

	dog.idle = waits;
	return twice;
}

static void *watch(void *unused)
{
	const struct timespec poll = { .tv_nsec = POLL_NS };

	for (;;) {
		nanosleep(&poll, NULL);
		pthread_mutex_lock(&dog.lock);
		if (dog.vm && (now_ns() > dog.soft || waits_for_ever(dog.vm)))
			vm_request_exit(dog.vm, VM_EXIT_POWEROFF);
		if (dog.hard && now_ns() > dog.hard)
			violation("no end within %lld s", HARD_NS / NSEC_PER_SEC);
		pthread_mutex_unlock(&dog.lock);
	}
	return NULL;
}

static void dog_case(bool begins)
{
	pthread_mutex_lock(&dog.lock);
	dog.hard = begins ? now_ns() + HARD_NS : 0;
	pthread_mutex_unlock(&dog.lock);
}

static void dog_run(struct vm *vm)
{
	pthread_mutex_lock(&dog.lock);
	dog.vm = vm;
	dog.idle = false;
	if (vm)
		dog.soft = now_ns() + (vm->clock.mode == CLOCK_MODE_VIRTUAL ? SOFT_VIRTUAL_NS : SOFT_NS);
	pthread_mutex_unlock(&dog.lock);
}

/* ---- What is given back ---------------------------------------------------------- */

static unsigned descriptors;
static FILE *nowhere;

static unsigned count_descriptors(void)
{
	DIR *d = opendir("/proc/self/fd");
	unsigned n = 0;

	if (!d)
		return 0;
	while (readdir(d))
		n++;
	closedir(d);
	return n;
}

static uint64_t resident(void)
{
	FILE *f = fopen("/proc/self/statm", "re");
	unsigned long long size, pages = 0;

	if (f && fscanf(f, "%llu %llu", &size, &pages) != 2)
		pages = 0;
	if (f)
		fclose(f);
	return pages * 4096;
}

static void check_memory(void)
{
	uint64_t rss = resident(), max = SANITIZED ? RSS_SANITIZED : RSS_MAX;

	if (rss > max)
		violation("%llu MiB of memory are in use, and %llu are allowed",
			  (unsigned long long)(rss / MiB), (unsigned long long)(max / MiB));
}

void hostile_begin(void)
{
	pthread_t thread;

	/* Memory that was given back is given back: what is in use shows what leaks. */
	mallopt(M_ARENA_MAX, 1);
	if (pthread_create(&thread, NULL, watch, NULL))
		abort();
	pthread_detach(thread);
	nowhere = fopen("/dev/null", "we");
	descriptors = count_descriptors();
}

bool hostile_end(void)
{
	unsigned n = count_descriptors();
	struct rusage u;
	uint64_t max = SANITIZED ? RSS_SANITIZED : RSS_MAX;

	if (n != descriptors) {
		fprintf(stderr, "hostile: %u descriptors are open, and %u were\n", n, descriptors);
		return false;
	}
	getrusage(RUSAGE_SELF, &u);
	if ((uint64_t)u.ru_maxrss * KiB > max) {
		fprintf(stderr, "hostile: %ld MiB of memory were in use, and %llu are allowed\n",
			u.ru_maxrss / 1024, (unsigned long long)(max / MiB));
		return false;
	}
	return true;
}

/* ---- Sentences ------------------------------------------------------------------ */

/* A refusal is told through text_escape: there must be something to tell. */
static enum hostile_result refused(const struct skep_error *e, char *text)
{
	char shown[256];

	if (strnlen(e->text, sizeof(e->text)) < 8)
		violation("refused without a sentence: '%.20s'", e->text);
	text_escape(shown, sizeof(shown), e->text, strlen(e->text), 0);
	if (strstr(shown, "(null)") || strstr(shown, ": : "))
		violation("a sentence about nothing: %s", shown);
	if (text)
		memcpy(text, shown, sizeof(shown));
	return HOSTILE_REFUSED;
}

/* ---- Looking --------------------------------------------------------------------- */

/* What inspect, verify and diff do with a file that nobody has decided about yet. */
static void look(struct snap_reader *r, FILE *out)
{
	struct snap_models models = { 0 };
	struct skep_error e = { "" };
	size_t i;

	if (snap_models_read(&models, r, &e) < 0) {
		refused(&e, NULL);
		return;
	}
	if (snap_models_check(&models, &e) < 0)
		refused(&e, NULL);
	state_json(out, &manifest_record, &r->manifest, 0);
	for (i = 0; i < models.count; i++) {
		const struct snap_model *m = &models.items[i];

		if (m->model)
			state_json(out, m->table, m->model, 1);
		else if (state_json_cbor(out, m->raw->data, m->raw->len, 1, &e) < 0)
			refused(&e, NULL);
	}
	snap_models_free(&models);
}

static void look_at(struct snap_reader *r, uint64_t choice)
{
	struct skep_error e = { "" };

	if (!(choice >> 9 & 31) && nowhere)
		look(r, nowhere);
	if (!(choice >> 14 & 31) && snap_verify_ram(r, NULL, NULL, &e) < 0)
		refused(&e, NULL);
}

/* ---- The machine ------------------------------------------------------------------- */

/* The host's side is not what is tried here: nothing of it is opened. */
static int close_consoles(struct config *c, const struct manifest *m, struct skep_error *e)
{
	static const char end[] = ".path";
	const struct manifest_setting *s = m->config.items;
	uint32_t i;
	int err = 0;

	for (i = 0; i < m->config.count && !err; i++) {
		size_t n = strlen(s[i].key);

		if (n >= sizeof(end) && !strcmp(s[i].key + n - (sizeof(end) - 1), end) &&
		    restore_may_remap(s[i].key) && s[i].value.len)
			err = config_set_literal(c, s[i].key, "null", "hostile", e);
	}
	return err;
}

/* What was accepted is a state that can be saved again. */
static void check_export(struct vm *vm, const char *when)
{
	struct skep_error e = { "" };
	struct machine_state *ms = machine_state_export(vm, &e);

	if (!ms)
		violation("accepted, and %s it cannot be saved: %s", when, e.text);
	machine_state_free(ms);
}

static void run(struct vm *vm, const struct hostile_options *o)
{
	struct skep_error e = { "" };

	if (!(o->choice >> 19 & 7))
		check_export(vm, "before it runs");
	if (vm->clock.mode == CLOCK_MODE_VIRTUAL)
		vm->insn_limit = atomic_load(&vm->clock.insns) + o->insns;
	dog_run(vm);
	if (vm_run(vm, &e) == VM_EXIT_ERROR)
		refused(&e, NULL);
	dog_run(NULL);
	if (!(o->choice >> 22 & 7) && clock_now(&vm->clock) < CLOCK_END &&
	    memory_lost(&vm->memory, &e) == 0 && vm->has_state)
		check_export(vm, "after it ran");
}

static enum hostile_result restore(struct snap_reader *r, const struct hostile_options *o,
				   char *text)
{
	const struct restore_options options = {
		.exact = o->choice & 1,
		.time = (o->choice & 15) == 2 ? RESTORE_TIME_ADVANCE : RESTORE_TIME_CONTINUE,
		.clone = (o->choice & 15) == 4, .check_ram = (o->choice >> 4 & 15) == 1,
		.prefault = (o->choice >> 4 & 31) == 2, .prefetch = (o->choice >> 4 & 15) == 3,
	};
	struct skep_error e = { "" };
	struct config *c = restore_config(r, &e);
	struct vm *vm = NULL;

	if (c && close_consoles(c, &r->manifest, &e) == 0 && config_freeze(c, &e) == 0)
		vm = restore_vm(r, c, &options, &e);
	if (vm)
		run(vm, o);
	else
		snap_close(r);
	vm_destroy(vm);
	if (c)
		config_destroy(c);
	return vm ? HOSTILE_ACCEPTED : refused(&e, text);
}

enum hostile_result hostile_load_fd(int fd, const struct hostile_options *o, char *text)
{
	struct skep_error e = { "" };
	enum hostile_result result;
	static unsigned count;
	struct snap_reader *r;

	dog_case(true);
	r = snap_open_fd(fd, o->path, 0, &e);
	if (r) {
		look_at(r, o->choice);
		result = restore(r, o, text);
	} else {
		result = refused(&e, text);
	}
	if (count++ % 256 == 0)
		check_memory();
	dog_case(false);
	return result;
}

enum hostile_result hostile_load(const uint8_t *data, size_t len, const struct hostile_options *o,
				 char *text)
{
	int fd = memfd_create("hostile", MFD_CLOEXEC);

	if (fd < 0 || (len && pwrite(fd, data, len, 0) != (ssize_t)len))
		violation("no memory for a file: %s", strerror(errno));
	return hostile_load_fd(fd, o, text);
}
