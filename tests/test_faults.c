/*
 * Every call of a save and of a restore fails, one after the other: the n-th malloc, write, fsync,
 * link, mmap and so on, for every n up to the first one that is not reached any more.  After
 * each of them the old file is whole, the guest goes on, the sentence names the cause, nothing is left
 * behind, and the next save and the next delta are right.
 *
 *	test_faults GUEST		(faults/guest.S)
 */
#include "faults/machine.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "faults/inject.h"
#include "snapshot/container.h"

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/lsan_interface.h>
#endif

#define CHAIN		8	/* deltas of checks on one another, before a base is written anew */
#define ONE_THREAD	3	/* entries in /proc/self/task */
#define NEVER		10000	/* no save makes so many calls */

struct fault {
	enum fault_kind kind;
	int error;
	bool stays;
};

static const struct fault faults[] = {
	{ FAULT_MEMORY, ENOMEM, false }, { FAULT_MEMORY, ENOMEM, true },
	{ FAULT_COPY, ENOMEM, false },
	{ FAULT_OPEN, EMFILE, false }, { FAULT_OPEN, EOPNOTSUPP, false },
	{ FAULT_READ, EIO, false }, { FAULT_READ, EINTR, false }, { FAULT_READ, FAULT_SHORT, false },
	{ FAULT_WRITE, ENOSPC, false }, { FAULT_WRITE, ENOSPC, true }, { FAULT_WRITE, EIO, false },
	{ FAULT_WRITE, EFBIG, false }, { FAULT_WRITE, EINTR, false },
	{ FAULT_WRITE, FAULT_SHORT, false },
	{ FAULT_FSYNC, EIO, false }, { FAULT_FSYNC, ENOSPC, false },
	{ FAULT_LINK, EIO, false }, { FAULT_LINK, ENOSPC, false }, { FAULT_LINK, EEXIST, false },
	{ FAULT_RENAME, EIO, false }, { FAULT_RENAME, ENOSPC, false },
	{ FAULT_UNLINK, EIO, false },
	{ FAULT_STAT, EIO, false },
	{ FAULT_LOCK, EIO, false }, { FAULT_LOCK, ENOLCK, false }, { FAULT_LOCK, EWOULDBLOCK, false },
	{ FAULT_ACCESS, EACCES, false },
	{ FAULT_MMAP, ENOMEM, false }, { FAULT_MADVISE, ENOMEM, false },
	{ FAULT_THREAD, EAGAIN, false },
	{ FAULT_RANDOM, ENOSYS, false },
	{ FAULT_WATCH, ENOMEM, false }, { FAULT_SIGNAL, EINVAL, false },
	{ FAULT_IOCTL, EINVAL, false },
	{ FAULT_SEND, EPIPE, false }, { FAULT_SEND, EINTR, false }, { FAULT_SEND, FAULT_SHORT, false },
	{ FAULT_RECEIVE, ECONNRESET, false }, { FAULT_RECEIVE, EINTR, false },
	{ FAULT_RECEIVE, FAULT_SHORT, false },
};

static const char *guest;

/* What was tried, by kind: printed at the end of each test. */
static unsigned tried[FAULT_KINDS];

static const char *const known[] = {
	"console", "base", "delta", "check.0", "check.1", "check.2", "check.3", "check.4", "check.5",
	"check.6", "check.7", "run", NULL
};

static void tell_tried(const char *what)
{
	unsigned i, sum = 0;

	printf("# %s:", what);
	for (i = 0; i < FAULT_KINDS; i++) {
		sum += tried[i];
		if (tried[i])
			printf(" %s %u,", fault_names[i], tried[i]);
	}
	printf(" %u in all\n", sum);
	fflush(stdout);
	memset(tried, 0, sizeof(tried));
}

/* The point at which the test is, should it fail. */
static char point[128];

static void set_point(const char *what, const struct fault *f, unsigned n)
{
	snprintf(point, sizeof(point), "%s: call %u%s of kind %s, error %d", what, n,
		 f->stays ? " and all after it" : "", fault_names[f->kind], f->error);
	if (getenv("SKEP_TEST_VERBOSE"))
		fprintf(stderr, "%s\n", point);
}

#define must(condition, ...)									\
	do {											\
		if (!(condition)) {								\
			print_error("%s: ", point);						\
			fail_msg(__VA_ARGS__);							\
		}										\
	} while (0)

/* A thread that was joined may be seen for a moment, and a server closes when it comes to it. */
static bool settles(const char *directory, unsigned entries)
{
	unsigned turns = 0;

	while (count_entries(directory) != entries && ++turns < 20000)
		usleep(50);
	return turns < 20000;
}

/* ---- Files --------------------------------------------------------------- */

/* What a file holds, without a look at its holes. */
struct contents {
	uint64_t len, sum;
};

/* A page of zeroes is as good as a hole, and may come from one when it is looked at. */
static void add_page(struct contents *c, const uint8_t *map, uint64_t at)
{
	size_t len = MIN(c->len - at, GUEST_PAGE_SIZE);

	if (!snap_is_zero(map + at, GUEST_PAGE_SIZE))
		c->sum = (c->sum ^ at) * 0x9e3779b97f4a7c15 + snap_sum(map + at, len);
}

static struct contents slurp(const char *path)
{
	struct contents c = { 0, 0 };
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	off_t at = 0, end;
	struct stat st;
	uint8_t *map;

	if (fd < 0)
		return c;
	assert_int_equal(fstat(fd, &st), 0);
	c.len = st.st_size;
	map = c.len ? mmap(NULL, c.len, PROT_READ, MAP_SHARED, fd, 0) : NULL;
	assert_true(map != MAP_FAILED);
	while (map && (at = lseek(fd, at, SEEK_DATA)) >= 0)
		for (end = lseek(fd, at, SEEK_HOLE); at < end; at += GUEST_PAGE_SIZE)
			add_page(&c, map, at);
	if (map)
		munmap(map, c.len);
	close(fd);
	return c;
}

static bool same_contents(const struct contents *a, const char *path)
{
	struct contents b = slurp(path);

	return a->len == b.len && a->sum == b.sum;
}

/* Every call; but where sanitizers make it slow, and another test takes the same way, every third. */
static unsigned step(const struct fault *f, bool few)
{
	bool many = f->kind == FAULT_MEMORY || f->kind == FAULT_WRITE;

	return few && many && getenv("SKEP_TEST_SANITIZED") ? 3 : 1;
}

/* ---- Saves ---------------------------------------------------------------- */

struct save_test {
	const char *name, *target;
	struct save_options o;
	bool named;		/* as on file systems without unnamed files */
	bool realtime;
	bool few;		/* leave out what lasts */
	bool socket;		/* as the command does; the control thread's calls fail, too */
};

struct run {
	const struct save_test *test;
	struct machine *m;
	unsigned deltas;	/* checks in the chain */
	struct contents old;	/* of the target */
	unsigned fds, tasks;	/* that the process has beside a save */
};

static void plain_save(struct run *r, const char *path, bool delta)
{
	struct save_options o = { .delta = delta };
	struct skep_error e;

	must(machine_save(r->m, path, &o, &e) == 0, "a save afterwards: %s", e.text);
}

static void new_base(struct run *r)
{
	plain_save(r, in_place("base"), false);
	r->deltas = 0;
}

/* The machine has ended as it should, and goes on from the file. */
static void take_up(struct run *r)
{
	struct restore_options o = { .exact = true };
	struct machine *m;
	struct skep_error e;
	int code = machine_join(r->m);

	must(code == VM_EXIT_SUSPENDED, "exit code %d after a suspend", code);
	m = machine_restore(in_place(r->test->target), &o, false, &e);
	must(m != NULL, "%s", e.text);
	m->told = r->m->told;
	m->console_at = r->m->console_at;
	m->named = r->m->named;
	machine_end(r->m);
	machine_run(m);
	r->m = m;
	r->deltas = 0;
	r->fds = count_entries("/proc/self/fd");	/* with the file that it came from */
}

/* Dirty pages: what has changed since the last good save is in a delta that comes now. */
static void check_delta(struct run *r)
{
	const char *path;
	char name[16];

	if (r->deltas == CHAIN)
		new_base(r);
	snprintf(name, sizeof(name), "check.%u", r->deltas++);
	path = in_place(name);
	vm_pause(r->m->vm, STOP_USER);
	plain_save(r, path, true);
	file_is_machine(path, r->m);
	vm_resume(r->m->vm, STOP_USER);
}

/* The file is in its place, though its directory may not be on the disk: it is the new one. */
static bool is_there(const struct skep_error *e)
{
	return strstr(e->text, "is there, but its directory") != NULL;
}

static void renew_old(struct run *r)
{
	r->old = slurp(in_place(r->test->target));
}

/* What the next delta would be based on has been replaced: it could never be restored. */
static void refuse_delta(struct run *r)
{
	struct save_options o = { .delta = true };
	struct skep_error e;

	if (r->test->o.delta)
		return;
	must(machine_save(r->m, in_place("check.7"), &o, &e) < 0 && strstr(e.text, "another snapshot"),
	     "a delta on a file that is another one now: '%s'", e.text);
}

/* One attempt; false: the fault was not reached. */
static bool save_with(struct run *r, const struct fault *f, unsigned n)
{
	const char *target = in_place(r->test->target);
	struct skep_error e;
	bool fired;
	int err;

	set_point(r->test->name, f, n);
	fault_arm(f->kind, n, f->error, f->stays);
	err = machine_save(r->m, target, &r->test->o, &e);
	fired = fault_disarm();
	tried[f->kind] += fired;
	must(!err || fired, "%s", e.text);

	/* A machine without the means to answer ends the connection. */
	if (err)
		must(names_cause(e.text, f->error) || (r->test->socket && strstr(e.text, "connection")),
		     "'%s' does not name the cause", e.text);
	if (err && err != -ENOTCONN && !is_there(&e)) {
		must(same_contents(&r->old, target), "the old file has changed");
	} else {
		if (!err && r->test->o.suspend)
			take_up(r);
		file_is_whole(target);
		if (err && err != -ENOTCONN)
			refuse_delta(r);
		/* jansson may lose a letter of a path when it has no memory: the next delta is refused. */
		if (err || r->test->o.delta || (r->test->socket && f->kind == FAULT_MEMORY))
			new_base(r);
		r->deltas = 0;
		renew_old(r);
	}
	must(settles("/proc/self/fd", r->fds), "a descriptor is left");
	must(settles("/proc/self/task", r->tasks), "a thread is left");
	only_there(known);
	machine_goes_on(r->m);
	check_delta(r);
	if (!strcmp(r->test->target, "base") && r->deltas == 1)
		renew_old(r);
	return fired;
}

static void save_every(struct run *r, const struct fault *f)
{
	unsigned n;

	for (n = 1; save_with(r, f, n); n += step(f, r->test->few))
		assert_true(n < NEVER);
}

static void test_save(void **state)
{
	const struct save_test *t = *state;
	struct run r = { .test = t, .m = machine_start(guest, !t->realtime) };
	size_t i;

	while (machine_round(r.m) < 2)
		usleep(100);
	r.m->named = t->named;
	if (t->socket)
		machine_listen(r.m);
	fault_everywhere(t->socket);
	r.fds = count_entries("/proc/self/fd");
	r.tasks = count_entries("/proc/self/task");
	new_base(&r);
	if (strcmp(t->target, "base")) {
		plain_save(&r, in_place(t->target), true);
		new_base(&r);
	}
	renew_old(&r);
	for (i = 0; i < sizeof(faults) / sizeof(faults[0]); i++)
		if (!t->few || !faults[i].stays)
			save_every(&r, &faults[i]);
	fault_everywhere(false);
	machine_end(r.m);
	tell_tried(t->name);
}

static struct save_test saves[] = {
	{ .name = "save", .target = "base" },
	{ .name = "save to a named file, realtime", .target = "base", .named = true, .realtime = true,
	  .few = true },
	{ .name = "save --live", .target = "base", .o.live = true, .few = true },
	{ .name = "save --live, realtime", .target = "base", .o.live = true, .realtime = true,
	  .few = true },
	{ .name = "save --delta", .target = "delta", .o.delta = true },
	{ .name = "save --compress", .target = "base", .o.zstd_level = 1, .few = true },
	{ .name = "save --live --delta --compress", .target = "delta",
	  .o = { .live = true, .delta = true, .zstd_level = 1 }, .few = true },
	{ .name = "save --suspend", .target = "base", .o.suspend = true, .few = true },
	{ .name = "save by the socket", .target = "base", .socket = true, .few = true },
};

/* A chain that is as long as can be restored, and no file of it is written over by a delta. */
static void test_chain(void **state)
{
	struct machine *m = machine_start(guest, true);
	struct save_options o = { .delta = false };
	struct skep_error e;
	char name[16];
	int i, err = 0;

	snprintf(point, sizeof(point), "chain");
	for (i = 0; !err && i < 2 * SNAP_CHAIN_MAX; i++) {
		machine_goes_on(m);
		if (i == 3) {
			must(machine_save(m, in_place("0"), &o, &e) < 0 &&
			     strstr(e.text, "is the file to write, too"), "'%s'", e.text);
			must(machine_save(m, in_place("2"), &o, &e) < 0 &&
			     strstr(e.text, "is the file to write, too"), "'%s'", e.text);
		}
		snprintf(name, sizeof(name), "%d", i);
		err = machine_save(m, in_place(name), &o, &e);
		o.delta = true;
	}
	must(strstr(e.text, "31 parents already") != NULL, "'%s'", e.text);
	assert_int_equal(i, SNAP_CHAIN_MAX + 1);
	file_is_whole(in_place("31"));
	machine_goes_on(m);
	machine_end(m);
}

/* ---- Restores -------------------------------------------------------------- */

struct restore_test {
	const char *name;
	struct save_options base, delta;	/* how the file is made */
	bool is_delta;
	bool few;
	struct restore_options o;
};

/* What a process has. */
struct holdings {
	unsigned fds, tasks;
	long blocks, mapped;
};

static struct holdings take_stock(void)
{
	settles("/proc/self/task", ONE_THREAD);
	return (struct holdings){
		.fds = count_entries("/proc/self/fd"), .tasks = count_entries("/proc/self/task"),
		.blocks = fault_blocks(), .mapped = fault_mapped(),
	};
}

/* Sanitizers count memory themselves, and have some of their own. */
static void nothing_left(const struct holdings *was)
{
	struct holdings is = take_stock();

	must(is.tasks == was->tasks, "%d threads are left", (int)(is.tasks - was->tasks));
	must(is.fds == was->fds, "%d descriptors are left", (int)(is.fds - was->fds));
#ifndef __SANITIZE_ADDRESS__
	must(is.blocks == was->blocks, "%ld blocks of memory are left", is.blocks - was->blocks);
	must(is.mapped == was->mapped, "%ld mapped bytes are left", is.mapped - was->mapped);
#endif
}

static void leak_check(void)
{
#ifdef __SANITIZE_ADDRESS__
	assert_int_equal(__lsan_do_recoverable_leak_check(), 0);
#endif
}

static const char *make_file(const struct restore_test *t)
{
	const char *path = in_place("base");
	struct machine *m = machine_start(guest, true);
	struct skep_error e;
	int i;

	snprintf(point, sizeof(point), "%s", t->name);
	machine_goes_on(m);
	must(machine_save(m, path, &t->base, &e) == 0, "%s", e.text);
	for (i = 0; i < 2 && t->is_delta; i++) {
		path = in_place(i ? "delta" : "check.0");
		machine_goes_on(m);
		must(machine_save(m, path, &t->delta, &e) == 0, "%s", e.text);
	}
	machine_end(m);
	return path;
}

/* It runs, or ends with a sentence, and may have seen zeroes where RAM could not be read. */
static void run_with(struct machine *m, const struct fault *f, bool armed)
{
	uint32_t from = machine_round(m);
	unsigned turns = 0;

	machine_run(m);
	while (machine_round(m) - from < 3 && !atomic_load(&m->ended) && ++turns < 200000)
		usleep(100);
	vm_request_exit(m->vm, VM_EXIT_POWEROFF);
	if (machine_join(m) == VM_EXIT_ERROR)
		must(armed && names_cause(m->error.text, f->error), "the machine ended: '%s'",
		     m->error.text);
	else
		must(turns < 200000 && !machine_errors(m), "%u errors, %u turns", machine_errors(m), turns);
}

/* The fault comes in the restore, or afterwards: when RAM is read. false: it was not reached. */
static bool restore_with(const struct restore_test *t, const char *path, const struct fault *f,
			 unsigned n, bool later)
{
	struct holdings was = take_stock();
	struct machine *m;
	struct skep_error e;
	bool fired = false;

	set_point(t->name, f, n);
	if (!later)
		fault_arm(f->kind, n, f->error, f->stays);
	m = machine_restore(path, &t->o, true, &e);
	if (!later)
		fired = fault_disarm();
	if (!m)
		must(fired && names_cause(e.text, f->error), "'%s' does not name the cause", e.text);
	if (later)
		fault_arm(f->kind, n, f->error, f->stays);
	if (m)
		run_with(m, f, later);
	if (later)
		fired = fault_disarm();
	if (m)
		machine_end(m);
	tried[f->kind] += fired;
	nothing_left(&was);
	return fired;
}

static void test_restore(void **state)
{
	const struct restore_test *t = *state;
	const char *path = make_file(t);
	struct contents file = slurp(path);
	struct fault none = { FAULT_IOCTL, 0, false };
	unsigned n, later;
	size_t i;

	/* What is made once in a process. */
	restore_with(t, path, &none, 0, false);
	for (later = 0; later < 2; later++) {
		for (i = 0; i < sizeof(faults) / sizeof(faults[0]); i++) {
			if (t->few && faults[i].stays)
				continue;
			for (n = 1; restore_with(t, path, &faults[i], n, later);
			     n += step(&faults[i], t->few))
				assert_true(n < NEVER);
		}
		tell_tried(later ? "its run" : t->name);
	}
	must(same_contents(&file, path), "the file has changed");
	only_there(known);
	leak_check();
}

static struct restore_test restores[] = {
	{ .name = "restore" },
	{ .name = "restore --prefault", .o.prefault = true, .few = true },
	{ .name = "restore --check=ram", .o.check_ram = true, .few = true },
	{ .name = "restore compressed", .base.zstd_level = 1, .few = true },
	{ .name = "restore a chain", .is_delta = true, .base.zstd_level = 1, .delta.delta = true,
	  .few = true },
};

static int begin(void **state)
{
	/* A test that failed leaves its machine running. */
	if (!settles("/proc/self/task", ONE_THREAD))
		return -1;
	make_place();
	return 0;
}

static int end(void **state)
{
	remove_place();
	return 0;
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		{ "save", test_save, begin, end, &saves[0] },
		{ "save_named_realtime", test_save, begin, end, &saves[1] },
		{ "save_live", test_save, begin, end, &saves[2] },
		{ "save_live_realtime", test_save, begin, end, &saves[3] },
		{ "save_delta", test_save, begin, end, &saves[4] },
		{ "save_compressed", test_save, begin, end, &saves[5] },
		{ "save_live_delta_compressed", test_save, begin, end, &saves[6] },
		{ "save_suspend", test_save, begin, end, &saves[7] },
		{ "save_by_socket", test_save, begin, end, &saves[8] },
		{ "chain", test_chain, begin, end, NULL },
		{ "restore", test_restore, begin, end, &restores[0] },
		{ "restore_prefault", test_restore, begin, end, &restores[1] },
		{ "restore_check_ram", test_restore, begin, end, &restores[2] },
		{ "restore_compressed", test_restore, begin, end, &restores[3] },
		{ "restore_chain", test_restore, begin, end, &restores[4] },
	};

	if (argc < 2)
		return 2;
	guest = argv[1];
	if (argc > 2)
		cmocka_set_test_filter(argv[2]);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
