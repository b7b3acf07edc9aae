/* The control socket in one process: names, the client's side, and a server that is ended. */
#include <errno.h>
#include <fcntl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "vm_helper.h"

#include "control/client.h"
#include "control/control.h"
#include "control/internal.h"

static char directory[64];

static int make_directory(void **state)
{
	char base[] = "/tmp/skep-control-XXXXXX";

	assert_non_null(mkdtemp(base));
	snprintf(directory, sizeof(directory), "%s/run", base);
	return setenv("SKEP_RUNTIME_DIR", directory, 1);
}

static int remove_directory(void **state)
{
	rmdir(directory);
	*strrchr(directory, '/') = '\0';
	/* Whatever a test leaves there is a failure. */
	return rmdir(directory);
}

static struct vm *named(const char *name)
{
	struct vm *vm = test_vm(CLOCK_MODE_REALTIME);

	snprintf(vm->name, sizeof(vm->name), "%s", name);
	return vm;
}

static struct control *start(struct vm *vm)
{
	struct skep_error e = { "" };
	struct control *c;

	if (control_start(vm, &c, &e))
		fail_msg("%s", e.text);
	return c;
}

static json_t *ask(struct control_client *c, const char *command, json_t *args)
{
	struct skep_error e = { "" };
	json_t *r = control_call(c, command, args, -1, NULL, NULL, &e);

	if (!r)
		fail_msg("%s", e.text);
	return r;
}

static struct control_client *reach(const char *name)
{
	struct skep_error e = { "" };
	struct control_client *c = control_connect(name, &e);

	if (!c)
		fail_msg("%s", e.text);
	return c;
}

static void expect_state(struct control_client *c, const char *state)
{
	json_t *r = ask(c, "status", NULL);

	assert_string_equal(json_string_value(json_object_get(r, "state")), state);
	json_decref(r);
}

static void test_two_machines(void **state)
{
	struct vm *a = named("a"), *b = named("b"), *second = named("a");
	struct control *ca = start(a), *cb = start(b), *none;
	struct skep_error e = { "" };
	struct control_client *k;
	char **names;

	assert_int_equal(control_start(second, &none, &e), -EADDRINUSE);
	assert_null(none);
	assert_non_null(strstr(e.text, "\"a\" runs already"));
	names = control_names(&e);
	assert_string_equal(names[0], "a");
	assert_string_equal(names[1], "b");
	assert_null(names[2]);
	control_free_names(names);

	k = reach("b");
	json_decref(ask(k, "pause", NULL));
	assert_int_equal(b->pause_reasons, STOP_USER);
	assert_int_equal(a->pause_reasons, 0);
	expect_state(k, "paused");
	json_decref(ask(k, "resume", NULL));
	expect_state(k, "running");
	control_close(k);

	control_stop(ca);
	ca = start(second);	/* the name is free again */
	control_stop(ca);
	control_stop(cb);
	control_stop(NULL);
	test_vm_free(a);
	test_vm_free(b);
	test_vm_free(second);
}

static void test_names(void **state)
{
	static const char *const bad[] = { "", "a/b", "..", ".x", "0123456789012345678901234567890123456789"
					   "012345678901234567890123" };
	struct skep_error e = { "" };

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		assert_int_equal(control_check_name(bad[i], &e), -EINVAL);
		assert_null(control_connect(bad[i], &e));
	}
	e.text[0] = '\0';
	assert_null(control_connect("nobody", &e));
	assert_non_null(strstr(e.text, "no machine named \"nobody\" runs"));
}

static void check_directory_is(const char *want)
{
	struct skep_error e = { "" };
	char got[PATH_MAX];

	assert_int_equal(control_directory(got, sizeof(got), &e), 0);
	assert_string_equal(got, want);
}

static void test_directory(void **state)
{
	struct skep_error e = { "" };
	char want[64], tiny[4];

	check_directory_is(directory);
	assert_int_equal(control_directory(tiny, sizeof(tiny), &e), -ENAMETOOLONG);
	unsetenv("SKEP_RUNTIME_DIR");
	setenv("XDG_RUNTIME_DIR", "/nowhere", 1);
	if (geteuid() == 0)
		snprintf(want, sizeof(want), "/run/skep");
	else
		snprintf(want, sizeof(want), "/tmp/skep-%u", (unsigned)geteuid());
	check_directory_is(want);
	if (geteuid() != 0) {
		*strrchr(directory, '/') = '\0';
		setenv("XDG_RUNTIME_DIR", directory, 1);
		strcpy(want, directory);
		strcat(want, "/skep");
		check_directory_is(want);
		strcat(directory, "/run");
	}
	unsetenv("XDG_RUNTIME_DIR");
	setenv("SKEP_RUNTIME_DIR", directory, 1);
}

/* What a line of a name that is not UTF-8 makes of it. */
static void test_text(void **state)
{
	json_t *j = control_text("a\xff" "b\xc3");

	assert_string_equal(json_string_value(j), "a?b?");
	json_decref(j);
	j = control_text("z\xc3\xbcri");
	assert_string_equal(json_string_value(j), "z\xc3\xbcri");
	json_decref(j);
}

struct seen {
	unsigned count;
	char last[32];
	json_int_t code;
};

static void see(void *opaque, json_t *event)
{
	struct seen *s = opaque;

	s->count++;
	snprintf(s->last, sizeof(s->last), "%s", json_string_value(json_object_get(event, "event")));
	s->code = json_integer_value(json_object_get(event, "code"));
}

static void test_last_words(void **state)
{
	struct vm *vm = named("last");
	struct control *c = start(vm);
	struct control_client *k = reach("last");
	struct skep_error e = { "" };
	struct seen seen = { 0 };
	json_t *args;

	json_decref(ask(k, "subscribe", NULL));
	args = json_pack("{s:s}", "mode", "poweroff");
	json_decref(ask(k, "stop", args));
	json_decref(args);
	assert_true(vm_exiting(vm));
	expect_state(k, "ending");
	assert_int_equal(control_wait(k, 50, see, &seen, &e), -ETIMEDOUT);
	control_stop(c);
	/* The socket is at its end, and the process (this one) is not. */
	assert_int_equal(control_wait(k, 50, see, &seen, &e), -ETIMEDOUT);
	assert_int_equal(seen.count, 1);
	assert_string_equal(seen.last, "stopping");
	assert_int_equal(seen.code, VM_EXIT_POWEROFF);
	assert_null(control_call(k, "status", NULL, -1, NULL, NULL, &e));
	assert_non_null(strstr(e.text, "has ended the connection"));
	control_close(k);
	test_vm_free(vm);
}

/* A descriptor that no command takes is closed with its connection. */
static void test_descriptors(void **state)
{
	struct vm *vm = named("fds");
	struct control *c = start(vm);
	struct control_client *k = reach("fds");
	struct skep_error e = { "" };
	int p[2];
	char byte;

	assert_int_equal(pipe2(p, O_CLOEXEC), 0);
	json_decref(control_call(k, "status", NULL, p[1], NULL, NULL, &e));
	json_decref(control_call(k, "status", NULL, p[1], NULL, NULL, &e));
	assert_null(control_call(k, "save", NULL, -1, NULL, NULL, &e));
	assert_non_null(strstr(e.text, "not a regular file"));
	assert_null(control_call(k, "save", NULL, -1, NULL, NULL, &e));
	assert_non_null(strstr(e.text, "is to come with the request"));
	close(p[1]);
	control_close(k);
	control_stop(c);
	/* Nobody holds the writing end any more. */
	assert_int_equal(read(p[0], &byte, 1), 0);
	close(p[0]);
	test_vm_free(vm);
}

/* No descriptor left to accept with: the thread rests, and goes on when there is one. */
static void test_no_descriptors(void **state)
{
	struct vm *vm = named("poor");
	struct control *c = start(vm);
	struct sockaddr_un sa;
	struct skep_error e = { "" };
	struct rlimit old, low;
	struct rusage before, after;
	char path[PATH_MAX], byte;
	int dir = control_open_directory(false, path, &e), fd;

	assert_int_equal(control_address(dir, path, "poor", &sa, &e), 0);
	close(dir);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &old), 0);
	low = old;
	low.rlim_cur = 3;
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &low), 0);
	getrusage(RUSAGE_SELF, &before);
	assert_int_equal(connect(fd, (struct sockaddr *)&sa, sizeof(sa)), 0);
	usleep(300000);
	getrusage(RUSAGE_SELF, &after);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &old), 0);
	assert_true(after.ru_utime.tv_sec - before.ru_utime.tv_sec < 2);
	assert_true((after.ru_stime.tv_sec - before.ru_stime.tv_sec) * 1000000 +
		    after.ru_stime.tv_usec - before.ru_stime.tv_usec < 150000);
	assert_int_equal(recv(fd, &byte, 1, 0), 1);
	close(fd);
	control_stop(c);
	test_vm_free(vm);
}

/* Another process takes the name and dies; it is ours then, whatever lies there. */
static void test_died(void **state)
{
	struct vm *vm = named("k");
	struct skep_error e = { "" };
	struct control *c;
	int ready[2], end[2], err = 0;
	pid_t pid;
	char byte;

	assert_int_equal(pipe(ready), 0);
	assert_int_equal(pipe(end), 0);
	pid = fork();
	if (!pid) {
		struct claim claim;

		if (claim_open(&claim, "k", &e) == 0 && write(ready[1], "x", 1) == 1)
			close(end[1]);
		_exit((int)read(end[0], &byte, 1));	/* cleans nothing up */
	}
	assert_int_equal(read(ready[0], &byte, 1), 1);
	assert_int_equal(control_start(vm, &c, &e), -EADDRINUSE);
	snprintf(e.text + 300, 100, "(pid %d)", (int)pid);
	assert_non_null(strstr(e.text, e.text + 300));
	close(end[1]);
	close(ready[1]);
	assert_int_equal(read(ready[0], &byte, 1), 0);
	/* It is dying; its lock may go a little later than its end of the pipe. */
	for (int i = 0; i < 1000 && (err = control_start(vm, &c, &e)) == -EADDRINUSE; i++)
		usleep(1000);
	assert_int_equal(err, 0);
	control_close(reach("k"));
	control_stop(c);
	close(end[0]);
	close(ready[0]);
	test_vm_free(vm);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_two_machines),
		cmocka_unit_test(test_names),
		cmocka_unit_test(test_directory),
		cmocka_unit_test(test_text),
		cmocka_unit_test(test_last_words),
		cmocka_unit_test(test_descriptors),
		cmocka_unit_test(test_no_descriptors),
		cmocka_unit_test(test_died),
	};

	return cmocka_run_group_tests(tests, make_directory, remove_directory);
}
