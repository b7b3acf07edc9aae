#include "hostile.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/util.h"
#include "config/config.h"
#include "snapshot/save.h"
#include "vm/vm.h"

struct recipe {
	const char *name;
	const char *guest;		/* NULL: the one that is built in */
	uint64_t insns;			/* saved here; 0: where it stands after a moment */
	unsigned then;			/* a delta, so many instructions later */
	bool plain;			/* not compressed */
	const char *settings[8];	/* key=value */
};

/* A point is reached within a second; a busy host and sanitizers have their part in this. */
#define AWAIT_S 120

#define VIRTUAL "lpc.com1.path=null", "clock.mode=virtual", "lpc.debug_exit=true"

static const struct recipe recipes[] = {
	{ "plain", "exact", 300000, 0, true, { VIRTUAL } },
	{ "zstd", "exact", 700000, 0, false, { VIRTUAL, "on_reboot=restart" } },
	{ "delta", "exact", 400000, 100000, false, { VIRTUAL } },
	{ "early", "exact", 100, 0, false, { "clock.mode=virtual", "lpc.com2.path=null", "seed=7" } },
	{ "real", "real", 15000, 0, false, { VIRTUAL } },
	{ "task", "task", 30000, 0, false, { VIRTUAL } },
	{ "fpu", "fpu", 40000, 0, false, { VIRTUAL } },
	{ "faults", "exceptions", 60000, 0, false, { VIRTUAL } },
	{ "code", "smc", 100000, 0, false, { VIRTUAL, "x86.triple_fault=reset" } },
	{ "timers", "apic", 2000000, 0, false, { VIRTUAL } },
	{ "hpet", "hpet", 2000000, 0, false, { VIRTUAL } },
	{ "kvm", "pvclock", 200000, 0, false, { VIRTUAL, "identity=kvm" } },
	{ "hyperv", "hyperv", 200000, 0, false, { VIRTUAL, "identity=hyperv" } },
	{ "idle", NULL, 3000000, 0, false, { VIRTUAL, "boot.demo=true" } },
	{ "demo", NULL, 0, 0, false, { "boot.demo=true", "lpc.com1.path=null", "on_reboot=restart",
		"x86.triple_fault=reset", "fwcfg.0.name=opt/a", "fwcfg.0.string=b" } },
};

static _Noreturn void die(const char *what, const char *why)
{
	fprintf(stderr, "hostile: no seed: %s: %s\n", what, why);
	exit(2);
}

/* ---- A machine that stands ----------------------------------------------------- */

struct machine {
	struct config *config;
	struct vm *vm;
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t cond;
	bool stands, done, ends;
	struct skep_error error;
};

static void tell(struct machine *m, bool *what)
{
	pthread_mutex_lock(&m->lock);
	*what = true;
	pthread_cond_broadcast(&m->cond);
	pthread_mutex_unlock(&m->lock);
}

/* What does not come must not look like a test that takes long. */
static void await(struct machine *m, bool *what, const char *name)
{
	struct timespec end;

	clock_gettime(CLOCK_REALTIME, &end);
	end.tv_sec += AWAIT_S;
	pthread_mutex_lock(&m->lock);
	while (!*what)
		if (pthread_cond_timedwait(&m->cond, &m->lock, &end) == ETIMEDOUT && !*what)
			die(name, "it waits for ever");
	*what = false;
	pthread_mutex_unlock(&m->lock);
}

static void reached(void *opaque)
{
	struct machine *m = opaque;

	tell(m, &m->stands);
}

static void *run(void *opaque)
{
	struct machine *m = opaque;
	struct skep_error e = { "" };

	if (vm_run(m->vm, &e) == VM_EXIT_ERROR)
		die("the guest", e.text);
	/* A guest that has become shorter never comes to its point. */
	pthread_mutex_lock(&m->lock);
	if (!m->ends)
		die("the guest", "it ended before the point at which it is to be saved");
	pthread_mutex_unlock(&m->lock);
	return NULL;
}

static void machine_make(struct machine *m, const struct recipe *r, const char *guests)
{
	struct skep_error e = { "" };
	char path[300];
	int err = 0;

	*m = (struct machine){ .config = config_create() };
	pthread_mutex_init(&m->lock, NULL);
	pthread_cond_init(&m->cond, NULL);
	for (unsigned i = 0; i < ARRAY_SIZE(r->settings) && r->settings[i] && !err; i++)
		err = config_set_assignment(m->config, r->settings[i], NULL, &e);
	if (!err)
		err = config_set(m->config, "memory.size", "4M", NULL, &e);
	snprintf(path, sizeof(path), "%s/%s", guests, r->guest ? r->guest : "");
	if (!err && r->guest)
		err = config_set(m->config, "boot.kernel", path, NULL, &e);
	if (!err)
		err = config_freeze(m->config, &e);
	m->vm = err ? NULL : vm_create(m->config, &e);
	if (!m->vm)
		die(r->name, e.text);
}

/* Goes on to an instruction count, or for a moment where nobody counts them, and stands there. */
static void machine_run(struct machine *m, uint64_t insns)
{
	m->vm->stop_point = (struct vm_stop_point){ insns, reached, m };
	if (m->thread)
		vm_resume(m->vm, STOP_POINT);
	else
		pthread_create(&m->thread, NULL, run, m);
	if (insns)
		await(m, &m->stands, "its point");
	else
		usleep(50000);
	vm_pause(m->vm, STOP_POINT);
}

static void machine_end(struct machine *m)
{
	pthread_mutex_lock(&m->lock);
	m->ends = true;
	pthread_mutex_unlock(&m->lock);
	vm_request_exit(m->vm, VM_EXIT_POWEROFF);
	pthread_join(m->thread, NULL);
	vm_destroy(m->vm);
	config_destroy(m->config);
	pthread_cond_destroy(&m->cond);
	pthread_mutex_destroy(&m->lock);
}

static void saved(void *opaque, const struct save_result *r, const struct skep_error *error)
{
	struct machine *m = opaque;

	if (error)
		m->error = *error;
	tell(m, &m->done);
}

static void machine_save(struct machine *m, const char *path, bool delta, int level)
{
	struct save_options o = { .delta = delta, .zstd_level = level, .no_sync = true, .path = path };
	struct save_callbacks cb = { .done = saved, .opaque = m };
	struct skep_error e = { "" };
	int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	struct save *s;

	if (fd < 0)
		die(path, strerror(errno));
	s = save_start(m->vm, fd, &o, &cb, &e);
	if (!s)
		die(path, e.text);
	await(m, &m->done, path);
	if (m->error.text[0])
		die(path, m->error.text);
	save_end(s, true);
}

/* ---- Files ----------------------------------------------------------------------- */

static void read_back(struct seed *s)
{
	int fd = open(s->path, O_RDONLY | O_CLOEXEC);
	struct stat st;

	if (fd < 0 || fstat(fd, &st) < 0)
		die(s->path, strerror(errno));
	s->len = (size_t)st.st_size;
	s->data = malloc(s->len);
	if (!s->data || pread(fd, s->data, s->len, 0) != st.st_size)
		die(s->path, "it cannot be read");
	close(fd);
	if (!image_parse(&s->image, s->data, s->len))
		die(s->path, "it is no snapshot");
}

static void make(struct seed *s, const struct recipe *r, const char *directory, const char *guests)
{
	int level = r->plain ? 0 : 1;
	char base[160];
	struct machine m;

	snprintf(s->name, sizeof(s->name), "%s", r->name);
	snprintf(s->path, sizeof(s->path), "%s/%s.skep", directory, r->name);
	snprintf(base, sizeof(base), "%s/%s.parent.skep", directory, r->name);
	machine_make(&m, r, guests);
	machine_run(&m, r->insns);
	machine_save(&m, r->then ? base : s->path, false, level);
	if (r->then) {
		machine_run(&m, r->insns + r->then);
		machine_save(&m, s->path, true, level);
	}
	machine_end(&m);
	read_back(s);
}

size_t seeds_make(struct seed **seeds, const char *directory, const char *guests)
{
	size_t n = ARRAY_SIZE(recipes), i;

	mkdir(directory, 0700);
	*seeds = calloc(n, sizeof(**seeds));
	if (!*seeds)
		die("seeds", "no memory");
	for (i = 0; i < n; i++)
		make(&(*seeds)[i], &recipes[i], directory, guests);
	return n;
}

void seeds_free(struct seed *seeds, size_t n)
{
	size_t i;

	for (i = 0; i < n; i++) {
		image_free(&seeds[i].image);
		free(seeds[i].data);
	}
	free(seeds);
}
