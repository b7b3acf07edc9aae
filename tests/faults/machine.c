#include "faults/machine.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "config/config.h"
#include "control/client.h"
#include "control/control.h"
#include "faults/inject.h"
#include "snapshot/target.h"

#define ROUND		0x160000	/* guest.S */
#define ERRORS		0x160004
#define PATIENCE_NS	(20 * NSEC_PER_SEC)
#define LINE		9		/* of the console: eight digits and a newline */

static char place[64];

/* ---- Files -------------------------------------------------------------- */

void make_place(void)
{
	snprintf(place, sizeof(place), "/dev/shm/skep-faults-XXXXXX");
	if (!mkdtemp(place)) {
		snprintf(place, sizeof(place), "/tmp/skep-faults-XXXXXX");
		assert_non_null(mkdtemp(place));
	}
}

void remove_place(void)
{
	char command[128];

	snprintf(command, sizeof(command), "rm -rf '%s'", place);
	assert_int_equal(system(command), 0);
}

const char *in_place(const char *name)
{
	static char path[16][PATH_MAX];
	static unsigned turn;
	char *p = path[turn++ % 16];

	snprintf(p, PATH_MAX, "%s/%s", place, name);
	return p;
}

void only_there(const char *const *names)
{
	DIR *d = opendir(place);
	struct dirent *entry;
	const char *const *n;

	assert_non_null(d);
	while ((entry = readdir(d))) {
		for (n = names; *n && strcmp(*n, entry->d_name); n++)
			;
		if (!*n && strcmp(entry->d_name, ".") && strcmp(entry->d_name, ".."))
			fail_msg("%s was left behind", entry->d_name);
	}
	closedir(d);
}

unsigned count_entries(const char *directory)
{
	DIR *d = opendir(directory);
	unsigned n = 0;

	assert_non_null(d);
	while (readdir(d))
		n++;
	closedir(d);
	return n;
}

/* ---- Machines ------------------------------------------------------------ */

static void set(struct config *c, const char *key, const char *value)
{
	struct skep_error e = { "" };

	if (config_set(c, key, value, NULL, &e))
		fail_msg("%s: %s", key, e.text);
}

static int64_t now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * NSEC_PER_SEC + t.tv_nsec;
}

static void *run(void *opaque)
{
	struct machine *m = opaque;

	fault_spare_me();
	m->code = vm_run(m->vm, &m->error);
	atomic_store(&m->ended, true);
	return NULL;
}

void machine_run(struct machine *m)
{
	int err = pthread_create(&m->thread, NULL, run, m);

	m->runs = !err;
	if (!err)
		return;
	m->code = VM_EXIT_ERROR;
	atomic_store(&m->ended, true);
	skep_fail(&m->error, err, "no thread for this test: %s", strerror(err));
}

struct machine *machine_start(const char *guest, bool virtual)
{
	struct machine *m = calloc(1, sizeof(*m));
	struct skep_error e = { "" };

	assert_non_null(m);
	unlink(in_place("console"));
	m->config = config_create();
	set(m->config, "name", "faults");
	set(m->config, "memory.size", "4M");
	set(m->config, "clock.mode", virtual ? "virtual" : "realtime");
	set(m->config, "boot.kernel", guest);
	set(m->config, "lpc.com1.path", in_place("console"));
	if (config_freeze(m->config, &e))
		fail_msg("%s", e.text);
	m->vm = vm_create(m->config, &e);
	if (!m->vm)
		fail_msg("%s", e.text);
	machine_run(m);
	return m;
}

void machine_listen(struct machine *m)
{
	struct skep_error e = { "" };

	setenv("SKEP_RUNTIME_DIR", in_place("run"), 1);
	if (control_start(m->vm, &m->control, &e))
		fail_msg("%s", e.text);
}

int machine_join(struct machine *m)
{
	if (m->runs)
		pthread_join(m->thread, NULL);
	m->runs = false;
	return m->code;
}

/* Every round, once, in order. */
static void read_console(struct machine *m)
{
	char line[LINE + 1] = "";
	FILE *f = fopen(in_place("console"), "re");

	if (!f)
		return;
	assert_int_equal(fseek(f, m->console_at, SEEK_SET), 0);
	while (fread(line, 1, LINE, f) == LINE) {
		if (line[LINE - 1] != '\n' || strtoul(line, NULL, 16) != m->told + 1)
			fail_msg("the console told '%.8s' after %08x", line, m->told);
		m->told++;
		m->console_at += LINE;
	}
	fclose(f);
}

static void destroy(struct machine *m)
{
	control_stop(m->control);
	vm_destroy(m->vm);
	config_destroy(m->config);
	free(m);
}

void machine_end(struct machine *m)
{
	vm_request_exit(m->vm, VM_EXIT_POWEROFF);
	if (m->runs && machine_join(m) == VM_EXIT_ERROR)
		fail_msg("the machine ended: %s", m->error.text);
	destroy(m);
}

static uint32_t read_word(struct machine *m, uint64_t gpa)
{
	struct mem_page p = memory_page(&m->vm->memory, gpa);

	return *(volatile uint32_t *)(p.read + gpa % GUEST_PAGE_SIZE);
}

uint32_t machine_round(struct machine *m)
{
	return read_word(m, ROUND);
}

uint32_t machine_errors(struct machine *m)
{
	return read_word(m, ERRORS);
}

void machine_goes_on(struct machine *m)
{
	uint32_t from = machine_round(m);
	int64_t until = now() + PATIENCE_NS;

	while (machine_round(m) - from < 3) {
		if (atomic_load(&m->ended))
			fail_msg("the guest has ended: %s", m->error.text);
		if (now() > until)
			fail_msg("the guest stands at round %u", from);
		usleep(100);
	}
	assert_int_equal(machine_errors(m), 0);
	read_console(m);
}

/* ---- Saves ---------------------------------------------------------------- */

struct waiting {
	pthread_mutex_t lock;
	pthread_cond_t cond;
	bool done;
	struct skep_error error;
};

static void done(void *opaque, const struct save_result *r, const struct skep_error *error)
{
	struct waiting *w = opaque;

	pthread_mutex_lock(&w->lock);
	w->done = true;
	if (error)
		w->error = *error;
	pthread_cond_signal(&w->cond);
	pthread_mutex_unlock(&w->lock);
}

static int save_into(struct machine *m, struct snap_target *t, const struct save_options *o,
		     struct skep_error *e)
{
	struct waiting w = { .lock = PTHREAD_MUTEX_INITIALIZER, .cond = PTHREAD_COND_INITIALIZER };
	struct save_callbacks cb = { .done = done, .opaque = &w };
	struct save *save;
	int fd = dup(t->fd), err;

	if (fd < 0)
		return skep_fail(e, errno, "no descriptor: %s", strerror(errno));
	save = save_start(m->vm, fd, o, &cb, e);
	if (!save)
		return -EIO;
	pthread_mutex_lock(&w.lock);
	while (!w.done)
		pthread_cond_wait(&w.cond, &w.lock);
	pthread_mutex_unlock(&w.lock);
	*e = w.error;
	err = e->text[0] ? -EIO : snap_target_commit(t, true, e);
	save_end(save, !err);
	return err;
}

static int call_save(struct control_client *c, struct snap_target *t, const struct save_options *o,
		     struct skep_error *e)
{
	struct skep_error ignored = { "" };
	json_t *args = json_pack("{s:b,s:b,s:b,s:i,s:s}", "suspend", o->suspend, "live", o->live,
				 "delta", o->delta, "zstd_level", o->zstd_level, "path", o->path);
	json_t *reply;
	int err;

	if (!args)
		return skep_fail(e, ENOMEM, "no memory for this test");
	reply = control_call(c, "save", args, t->fd, NULL, NULL, e);
	json_decref(args);
	if (!reply)
		return -EIO;
	json_decref(reply);
	err = snap_target_commit(t, true, e);
	reply = control_call(c, err ? "save-abort" : "save-commit", NULL, -1, NULL, NULL,
			     err ? &ignored : e);
	if (!err && !reply)
		err = -ENOTCONN;	/* the file is there, and the machine may not know */
	json_decref(reply);
	return err;
}

static int save_by_socket(struct snap_target *t, const struct save_options *o, struct skep_error *e)
{
	struct control_client *c = control_connect("faults", e);
	int err;

	if (!c)
		return -ENOENT;
	control_set_timeout(c, 10000);
	err = call_save(c, t, o, e);
	control_close(c);
	return err;
}

int machine_save(struct machine *m, const char *path, const struct save_options *o,
		 struct skep_error *e)
{
	struct save_options with = *o;
	struct snap_target t = { 0 };
	int err;

	with.path = path;
	e->text[0] = '\0';
	err = m->named ? snap_target_open_named(&t, path, e) : snap_target_open(&t, path, e);
	if (!err) {
		err = m->control ? save_by_socket(&t, &with, e) : save_into(m, &t, &with, e);
		snap_target_abort(&t);
	}
	return err;
}

/* ---- Restoring ------------------------------------------------------------ */

struct machine *machine_restore(const char *path, const struct restore_options *o, bool quiet,
				struct skep_error *e)
{
	struct machine *m = calloc(1, sizeof(*m));
	struct snap_reader *r;

	e->text[0] = '\0';
	if (!m) {
		skep_fail(e, ENOMEM, "no memory for this test");
		return NULL;
	}
	r = snap_open(path, 0, e);
	m->config = r ? restore_config(r, e) : NULL;
	if (m->config && !config_set(m->config, "lpc.com1.path", quiet ? "null" : in_place("console"),
				     NULL, e) && !config_freeze(m->config, e))
		m->vm = restore_vm(r, m->config, o, e);
	if (m->vm)
		return m;
	if (m->config)
		config_destroy(m->config);
	snap_close(r);
	free(m);
	return NULL;
}

void file_is_whole(const char *path)
{
	struct restore_options o = { 0 };
	struct skep_error e = { "" };
	struct snap_reader *r = snap_open(path, 0, &e);
	struct machine *m;
	uint32_t from;

	if (!r || snap_verify_ram(r, NULL, NULL, &e) < 0)
		fail_msg("%s", e.text);
	snap_close(r);
	m = machine_restore(path, &o, true, &e);
	if (!m)
		fail_msg("%s", e.text);
	from = machine_round(m);
	machine_run(m);
	while (machine_round(m) - from < 3 && !atomic_load(&m->ended))
		usleep(100);
	assert_false(atomic_load(&m->ended));
	assert_int_equal(machine_errors(m), 0);
	machine_end(m);
}

static void chunk_is_machine(struct snap_reader *r, struct machine *m, uint64_t gpa, uint64_t len,
			     uint8_t *buf)
{
	struct skep_error e = { "" };
	uint64_t at;

	memset(buf, 0, len);
	if (snap_load_chunk(r, gpa, buf, len, &e) < 0 ||
	    memory_need(&m->vm->memory, gpa, len, &e) < 0)
		fail_msg("%s", e.text);
	/* RAM as it is, also where the guest sees a device. */
	for (at = 0; at < len; at += GUEST_PAGE_SIZE)
		if (memcmp(m->vm->memory.ram[0].host + gpa + at, buf + at, GUEST_PAGE_SIZE))
			fail_msg("%s: page %#llx is not what the machine has", r->path,
				 (unsigned long long)(gpa + at));
}

void file_is_machine(const char *path, struct machine *m)
{
	struct skep_error e = { "" };
	struct snap_reader *r = snap_open(path, 0, &e);
	uint8_t *buf = malloc(RAM_CHUNK);
	uint64_t at;

	if (!r)
		fail_msg("%s", e.text);
	assert_non_null(buf);
	for (at = 0; at < m->vm->memory.size; at += RAM_CHUNK)
		chunk_is_machine(r, m, at, MIN(RAM_CHUNK, m->vm->memory.size - at), buf);
	free(buf);
	snap_close(r);
}

/* ---- Sentences ------------------------------------------------------------ */

bool names_cause(const char *text, int error)
{
	if (!text[0] || text[strlen(text) - 1] == '\n')
		return false;
	if (error == ENOMEM && strcasestr(text, "memory"))
		return true;
	if (error == EWOULDBLOCK && strstr(text, "lock"))
		return true;
	if (error == ENOSPC && !strstr(text, "make room"))
		return false;
	return strcasestr(text, strerror(error)) != NULL;
}
