/* vCPU threads: reasons to be stopped that overlap, waking, ending; with a processor that waits. */
#include "vm_helper.h"

#include <time.h>

static struct vm *vm;
static struct vcpu *v;

static int setup(void **state)
{
	struct skep_error e;

	vm = test_vm(CLOCK_MODE_REALTIME);
	v = vm->vcpus[0];
	assert_int_equal(vcpu_start(v, &e), 0);
	return 0;
}

static int teardown(void **state)
{
	test_vm_free(vm);	/* ends the thread, whatever it does */
	return 0;
}

static void nap(void)
{
	nanosleep(&(struct timespec){ .tv_nsec = 2000000 }, NULL);
}

static bool runs_soon(void)
{
	unsigned i;

	for (i = 0; i < 1000 && !v->running; i++)
		nap();
	return v->running;
}

static void reasons_overlap(void **state)
{
	nap();
	assert_false(v->running);	/* made stopped */
	vcpu_stop(v, STOP_SAVE | STOP_DEBUG);
	vcpu_go(v, STOP_PAUSE);
	nap();
	assert_false(v->running);
	vcpu_go(v, STOP_SAVE);
	nap();
	assert_false(v->running);
	vcpu_go(v, STOP_DEBUG);
	assert_true(runs_soon());
	vcpu_stop(v, STOP_SAVE);
	vcpu_wait_stopped(v);
	assert_false(v->running);
	vcpu_wait_stopped(v);
	vcpu_go(v, STOP_SAVE);
	assert_true(runs_soon());
}

static void stop_and_go_often(void **state)
{
	unsigned i;

	vcpu_go(v, STOP_PAUSE);
	for (i = 0; i < 5000; i++) {
		vcpu_stop(v, STOP_RESET);
		if (i % 2)
			vcpu_wait_stopped(v);
		vcpu_go(v, STOP_RESET);
		if (i % 3 == 0)
			vcpu_request(v, VCPU_REQ_INTR);
	}
	assert_true(runs_soon());
	vcpu_stop(v, STOP_RESET);
	vcpu_wait_stopped(v);
}

static void requests_end_the_wait(void **state)
{
	unsigned i, k;

	vcpu_go(v, STOP_PAUSE);
	assert_true(runs_soon());
	for (i = 0; i < 1000; i++) {
		vcpu_request(v, VCPU_REQ_INTR);
		for (k = 0; k < 1000 && atomic_load(&v->requests); k++)
			nanosleep(&(struct timespec){ .tv_nsec = 10000 }, NULL);
		assert_int_equal(atomic_load(&v->requests), 0);
	}
	assert_true(test_cpu(vm)->kicks >= 1000);
}

static void shutdown_while_stopped(void **state)
{
	vcpu_stop(v, STOP_SAVE);
	vcpu_stop(v, STOP_SHUTDOWN);
	vcpu_join(v);
	assert_false(v->thread_started);
}

static void first_exit_wins(void **state)
{
	vcpu_go(v, STOP_PAUSE);
	assert_true(runs_soon());
	assert_null(vcpu_current(vm));
	vm_request_exit(vm, VM_EXIT_POWEROFF);
	vm_request_error(vm, "too late");
	vcpu_wait_stopped(v);
	vcpu_join(v);
	assert_true(vm_exiting(vm));
	assert_int_equal(vm->exit_code, VM_EXIT_POWEROFF);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(reasons_overlap, setup, teardown),
		cmocka_unit_test_setup_teardown(stop_and_go_often, setup, teardown),
		cmocka_unit_test_setup_teardown(requests_end_the_wait, setup, teardown),
		cmocka_unit_test_setup_teardown(shutdown_while_stopped, setup, teardown),
		cmocka_unit_test_setup_teardown(first_exit_wins, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
