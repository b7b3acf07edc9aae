/* SIGBUS: what is watched reads as zeroes, everything else is as without us. */
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "vm/sigbus.h"

#define PAGES 4
#define LEN (PAGES * 4096)

/* A private mapping of a file of one page: the rest is beyond its end. */
static uint8_t *map_short(void)
{
	int fd = memfd_create("short", MFD_CLOEXEC);
	uint8_t *p;

	if (fd < 0 || ftruncate(fd, 4096) < 0 || pwrite(fd, "abc", 3, 0) != 3)
		_exit(90);
	p = mmap(NULL, LEN, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_NORESERVE, fd, 0);
	close(fd);
	if (p == MAP_FAILED)
		_exit(91);
	return p;
}

/* How a child ended: its exit code, or minus the signal. */
static int run(int (*fn)(void))
{
	pid_t pid = fork();
	int status;

	assert_true(pid >= 0);
	if (!pid) {
		struct rlimit none = { 0, 0 };

		setrlimit(RLIMIT_CORE, &none);
		signal(SIGBUS, SIG_DFL);	/* not the test library's, nor a sanitizer's */
		_exit(fn());
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	return WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status);
}

static int reads_zeroes(void)
{
	struct sigbus_sink sink = { .eventfd = eventfd(0, EFD_NONBLOCK) };
	volatile uint8_t *p = map_short();
	uint64_t told;

	if (sigbus_watch((void *)p, LEN, 0x100000, &sink))
		return 1;
	if (p[0] != 'a' || sink.where)
		return 2;
	errno = 77;
	if (p[2 * 4096 + 5] != 0 || errno != 77)
		return 3;
	if (sink.where != (0x102000 | 1))
		return 4;
	if (read(sink.eventfd, &told, sizeof(told)) != sizeof(told) || told != 1)
		return 5;
	/* The first one is remembered; a write finds its page, and is kept. */
	p[3 * 4096] = 9;
	if (p[3 * 4096] != 9 || p[0] != 'a' || sink.where != (0x102000 | 1))
		return 6;
	return 0;
}

static int elsewhere(void)
{
	struct sigbus_sink sink = { .eventfd = -1 };
	volatile uint8_t *p = map_short(), *q = map_short();

	if (sigbus_watch((void *)p, LEN, 0, &sink))
		return 1;
	return q[4096];
}

static int unwatched(void)
{
	struct sigbus_sink sink = { .eventfd = -1 };
	volatile uint8_t *p = map_short();

	if (sigbus_watch((void *)p, LEN, 0, &sink))
		return 1;
	sigbus_unwatch(&sink);
	return p[4096];
}

static int sent(void)
{
	struct sigbus_sink sink = { .eventfd = -1 };
	uint8_t *p = map_short();

	if (sigbus_watch(p, LEN, 0, &sink))
		return 1;
	raise(SIGBUS);
	return 2;
}

static sigjmp_buf back;

static void jump(int sig)
{
	siglongjmp(back, 1);
}

/* Who had the signal before has it still, for what is not ours. */
static int chained(void)
{
	struct sigbus_sink sink = { .eventfd = -1 };
	volatile uint8_t *p = map_short(), *q = map_short();

	signal(SIGBUS, jump);
	if (sigbus_watch((void *)p, LEN, 0, &sink) || p[4096])
		return 1;
	if (sigsetjmp(back, 1))
		return 42;
	return q[4096];
}

/* And who takes it afterwards, until the next range comes. */
static int taken_over(void)
{
	struct sigbus_sink sink = { .eventfd = -1 }, other = { .eventfd = -1 };
	volatile uint8_t *p = map_short(), *q = map_short();

	if (sigbus_watch((void *)p, LEN, 0, &sink))
		return 1;
	signal(SIGBUS, SIG_DFL);
	if (sigbus_watch((void *)q, LEN, 0x4000, &other))
		return 2;
	return p[4096] | q[8192] | (sink.where != (0x1000 | 1)) | (other.where != (0x6000 | 1));
}

static int too_many(void)
{
	struct sigbus_sink sink = { .eventfd = -1 };
	uint8_t *p = map_short();
	unsigned n = 0;
	int err;

	while (!(err = sigbus_watch(p, LEN, 0, &sink)) && n < 100000)
		n++;
	if (err != -ENOSPC || n < 100)
		return 1;
	sigbus_unwatch(&sink);
	return sigbus_watch(p, LEN, 0, &sink) ? 2 : *(volatile uint8_t *)(p + 4096);
}

static void lost_pages_are_zero(void **state) { assert_int_equal(run(reads_zeroes), 0); }
static void others_die_as_ever(void **state)
{
	assert_int_equal(run(elsewhere), -SIGBUS);
	assert_int_equal(run(unwatched), -SIGBUS);
	assert_int_equal(run(sent), -SIGBUS);
}
static void handlers_are_chained(void **state)
{
	assert_int_equal(run(chained), 42);
	assert_int_equal(run(taken_over), 0);
}
static void table_is_bounded(void **state) { assert_int_equal(run(too_many), 0); }

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(lost_pages_are_zero),
		cmocka_unit_test(others_die_as_ever),
		cmocka_unit_test(handlers_are_chained),
		cmocka_unit_test(table_is_bounded),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
