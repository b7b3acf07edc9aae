/* The whole machine with the built-in guest: refusals, two machines at once, pauses, the same state. */
#include "vm_helper.h"

#include <string.h>
#include <time.h>

#include "config/config.h"

static struct config *configure(const char *const *settings)
{
	struct config *c = config_create();
	struct skep_error e = { .text = "" };

	assert_non_null(c);
	assert_int_equal(config_set(c, "boot.demo", "true", "test", &e), 0);
	assert_int_equal(config_set(c, "memory.size", "32", "test", &e), 0);
	for (; *settings; settings++)
		if (config_set_assignment(c, *settings, "test", &e) < 0)
			fail_msg("%s", e.text);
	if (config_freeze(c, &e) < 0)
		fail_msg("%s", e.text);
	return c;
}

#define SETTINGS(...) ((const char *const[]){ __VA_ARGS__, NULL })

static void refused(const char *setting, const char *want)
{
	struct config *c = configure(SETTINGS(setting));
	struct skep_error e = { .text = "" };

	assert_null(vm_create(c, &e));
	if (!strstr(e.text, want))
		fail_msg("%s", e.text);
	config_destroy(c);
}

static void refusals(void **state)
{
	refused("memory.size=512G", "ask for less");
}

struct run {
	struct config *config;
	struct vm *vm;
	pthread_t thread;
	int code;
	struct skep_error e;
	char *dump;
	size_t len;
};

static void start(struct run *r, const char *const *settings)
{
	memset(r, 0, sizeof(*r));
	r->config = configure(settings);
	r->vm = vm_create(r->config, &r->e);
	if (!r->vm)
		fail_msg("%s", r->e.text);
}

static void *run_main(void *opaque)
{
	struct run *r = opaque;

	r->code = vm_run(r->vm, &r->e);
	return NULL;
}

static void go(struct run *r)
{
	assert_int_equal(pthread_create(&r->thread, NULL, run_main, r), 0);
}

static void finish(struct run *r)
{
	FILE *f;

	pthread_join(r->thread, NULL);
	f = open_memstream(&r->dump, &r->len);
	assert_non_null(f);
	vm_dump_state(r->vm, f);
	fclose(f);
	vm_destroy(r->vm);
	config_destroy(r->config);
}

#define VIRTUAL "clock.mode=virtual", "clock.limit=3000000", "seed=5"
#define LONGER "clock.mode=virtual", "clock.limit=20000000"

static void two_at_once_end_the_same(void **state)
{
	struct run a, b, c;

	start(&a, SETTINGS(VIRTUAL));
	start(&b, SETTINGS(VIRTUAL));
	start(&c, SETTINGS(VIRTUAL, "seed=6"));
	go(&a);
	go(&b);
	go(&c);
	finish(&a);
	finish(&b);
	finish(&c);
	assert_int_equal(a.code, VM_EXIT_HALT);
	assert_int_equal(b.code, VM_EXIT_HALT);
	assert_non_null(strstr(a.dump, "machine.insns = 0x2dc6c0\n"));
	assert_non_null(strstr(a.dump, "cpu.0.rip = "));
	assert_non_null(strstr(a.dump, "ram.xxh3_128 = "));
	assert_string_equal(a.dump, b.dump);
	assert_string_not_equal(a.dump, c.dump);
	free(a.dump);
	free(b.dump);
	free(c.dump);
}

static void pauses_leave_no_trace(void **state)
{
	struct run a, b;
	unsigned i;

	start(&a, SETTINGS(LONGER));
	start(&b, SETTINGS(LONGER));
	go(&a);
	finish(&a);
	go(&b);
	for (i = 0; i < 200 && !vm_exiting(b.vm); i++) {
		uint64_t insns;

		vm_pause(b.vm, STOP_SAVE);
		vm_pause(b.vm, STOP_DEBUG);
		insns = atomic_load(&b.vm->clock.insns);
		vm_resume(b.vm, STOP_SAVE);
		assert_int_equal(atomic_load(&b.vm->clock.insns), insns);
		vm_resume(b.vm, STOP_DEBUG);
		nanosleep(&(struct timespec){ .tv_nsec = 50000 }, NULL);
	}
	finish(&b);
	assert_true(i > 2);
	assert_string_equal(a.dump, b.dump);
	free(a.dump);
	free(b.dump);
}

static void ends_when_asked(void **state)
{
	struct run r;

	/* Before it runs, while it runs, while it is paused. */
	start(&r, SETTINGS("name=x"));
	vm_request_exit(r.vm, VM_EXIT_POWEROFF);
	go(&r);
	finish(&r);
	assert_int_equal(r.code, VM_EXIT_POWEROFF);
	free(r.dump);

	start(&r, SETTINGS("name=x"));
	go(&r);
	nanosleep(&(struct timespec){ .tv_nsec = 20000000 }, NULL);
	vm_pause(r.vm, STOP_DEBUG);
	vm_request_error(r.vm, "because of %s", "this");
	finish(&r);
	assert_int_equal(r.code, VM_EXIT_ERROR);
	assert_string_equal(r.e.text, "because of this");
	free(r.dump);

	/* Never run at all. */
	start(&r, SETTINGS("name=x"));
	vm_destroy(r.vm);
	config_destroy(r.config);
	vm_destroy(NULL);
}

static void resets_restart(void **state)
{
	struct run r;
	unsigned i;

	start(&r, SETTINGS("on_reboot=restart"));
	go(&r);
	for (i = 0; i < 20; i++) {
		vm_request_reset(r.vm);
		nanosleep(&(struct timespec){ .tv_nsec = 3000000 }, NULL);
	}
	assert_false(vm_exiting(r.vm));
	vm_request_exit(r.vm, VM_EXIT_POWEROFF);
	finish(&r);
	assert_int_equal(r.code, VM_EXIT_POWEROFF);
	free(r.dump);

	start(&r, SETTINGS("on_reboot=exit"));
	go(&r);
	vm_request_reset(r.vm);
	finish(&r);
	assert_int_equal(r.code, VM_EXIT_REBOOT);
	free(r.dump);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(refusals),
		cmocka_unit_test(two_at_once_end_the_same),
		cmocka_unit_test(pauses_leave_no_trace),
		cmocka_unit_test(ends_when_asked),
		cmocka_unit_test(resets_restart),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
