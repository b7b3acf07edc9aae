/*
 * How long a machine on KVM takes from vm_create to the first instruction: the guest, whose first
 * instruction but two ends the machine, is loaded and run so many times.  Not a test: what
 * bench/run prints.
 *
 *	kvm_start GUEST TIMES		(tests/e2e/guests/exit.S)
 *
 * One line: the medians in us of making the machine, and of all until a processor enters the guest,
 * and the least of each.
 * Exit code 77 where there is no KVM.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "vm/vm.h"

#define TIMES_MAX 1000

static int64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * NSEC_PER_SEC + t.tv_nsec;
}

static void die(const char *what, const struct skep_error *e)
{
	fprintf(stderr, "kvm_start: %s: %s\n", what, e->text);
	exit(1);
}

static struct config *configure(const char *guest)
{
	static const char *const settings[][2] = {
		{ "cpus", "4" }, { "memory.size", "1G" }, { "cpu.model", "skep-v1.1" },
		{ "backend", "kvm" }, { "lpc.debug_exit", "true" },
	};
	struct config *c = config_create();
	struct skep_error e = { "" };
	unsigned i;

	for (i = 0; i < ARRAY_SIZE(settings); i++)
		if (config_set(c, settings[i][0], settings[i][1], "bench", &e) < 0)
			die("configuration", &e);
	if (config_set(c, "boot.kernel", guest, "bench", &e) < 0 || config_freeze(c, &e) < 0)
		die("configuration", &e);
	return c;
}

static int by_value(const void *a, const void *b)
{
	int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

	return x < y ? -1 : x > y;
}

int main(int argc, char **argv)
{
	static int64_t made[TIMES_MAX], first[TIMES_MAX];
	struct skep_error e = { "" };
	unsigned times, i;

	if (argc != 3) {
		fprintf(stderr, "usage: kvm_start GUEST TIMES\n");
		return 2;
	}
	if (access("/dev/kvm", R_OK | W_OK) < 0)
		return 77;
	times = (unsigned)strtoul(argv[2], NULL, 0);
	times = times < 1 ? 1 : times > TIMES_MAX ? TIMES_MAX : times;
	for (i = 0; i < times; i++) {
		struct config *c = configure(argv[1]);
		int64_t begin = now_ns();
		struct vm *vm = vm_create(c, &e);

		if (!vm)
			die("no machine", &e);
		made[i] = now_ns() - begin;
		vm_run(vm, &e);
		first[i] = vm->first_run_ns - begin;
		vm_destroy(vm);
		config_destroy(c);
	}
	qsort(made, times, sizeof(made[0]), by_value);
	qsort(first, times, sizeof(first[0]), by_value);
	printf("%.1f %.1f %.1f %.1f\n", (double)made[times / 2] / 1000, (double)first[times / 2] / 1000,
	       (double)made[0] / 1000, (double)first[0] / 1000);
	return 0;
}
