/* Outside input and the virtual clock: points, recording, replay, what is wrong with a log. */
#include "vm_helper.h"

#include <inttypes.h>
#include <string.h>
#include <unistd.h>

#include "vm/inputlog.h"
#include "vm/virtual.h"

#define HEADER "skep-input 1 seed=7 insn_ps=1000 start=1767225600000000000\n"

static char path[64], path2[64];

static int setup(void **state)
{
	snprintf(path, sizeof(path), "/tmp/skep-test-input-%d-a", getpid());
	snprintf(path2, sizeof(path2), "/tmp/skep-test-input-%d-b", getpid());
	return 0;
}

static int teardown(void **state)
{
	unlink(path);
	unlink(path2);
	return 0;
}

static void write_file(const char *name, const char *text)
{
	FILE *f = fopen(name, "w");

	assert_non_null(f);
	fputs(text, f);
	fclose(f);
}

static char *read_file(const char *name)
{
	static char text[65536];
	FILE *f = fopen(name, "r");
	size_t n;

	assert_non_null(f);
	n = fread(text, 1, sizeof(text) - 1, f);
	text[n] = '\0';
	fclose(f);
	return text;
}

/* A machine that takes everything in: every event is mixed into one number. */
struct machine {
	struct vm *vm;
	struct input_port a, b;
	struct vm_timer timer;
	int64_t period;
	uint64_t mix;
	unsigned given, taken;		/* interrupts */
	char seen[256];
};

static void mix(struct machine *m, uint64_t v)
{
	m->mix = (m->mix ^ v) * 0x9e3779b97f4a7c15ull;
	m->mix ^= m->mix >> 29;
}

static void take(struct machine *m, char tag, const uint8_t *data, size_t len)
{
	size_t i;

	m->given++;
	mix(m, atomic_load(&m->vm->clock.insns));
	mix(m, (uint64_t)clock_now(&m->vm->clock));
	for (i = 0; i < len; i++)
		mix(m, (uint64_t)tag << 8 | data[i]);
	snprintf(m->seen + strlen(m->seen), sizeof(m->seen) - strlen(m->seen), "%c%.*s@%" PRIu64
		 " ", tag, (int)len, (const char *)data, atomic_load(&m->vm->clock.insns));
}

static void take_a(void *opaque, const uint8_t *data, size_t len) { take(opaque, 'a', data, len); }
static void take_b(void *opaque, const uint8_t *data, size_t len) { take(opaque, 'b', data, len); }

static void on_timer(void *opaque)
{
	struct machine *m = opaque;

	m->given++;
	mix(m, (uint64_t)clock_now(&m->vm->clock) + 1);
	timer_arm(&m->timer, m->timer.due + m->period);
}

static void make(struct machine *m, const char *record, const char *replay)
{
	struct vm_core_options o = { .ram = TEST_RAM, .seeded = true, .seed = 7,
				     .record = record, .replay = replay };
	struct skep_error e;

	memset(m, 0, sizeof(*m));
	clock_init(&o.clock, CLOCK_MODE_VIRTUAL);
	m->vm = test_vm_options(&o);
	input_port_add(&m->a, m->vm, "lpc.com1", take_a, m);
	input_port_add(&m->b, m->vm, "power", take_b, m);
	timer_init(&m->timer, m->vm, "test", on_timer, m);
	if (input_log_check(m->vm, &e) < 0)
		fail_msg("%s", e.text);
}

static void say(struct input_port *p, const char *text)
{
	device_lock(p->vm);
	vm_input(p, (const uint8_t *)text, strlen(text));
	device_unlock(p->vm);
}

static void run_to(struct machine *m, uint64_t insns)
{
	atomic_store(&m->vm->clock.insns, insns);
	virtual_run_due(m->vm);
}

static void real_time_is_direct(void **state)
{
	struct vm *vm = test_vm(CLOCK_MODE_REALTIME);
	struct machine m = { .vm = vm };

	input_port_add(&m.a, vm, "a", take_a, &m);
	say(&m.a, "x");
	assert_string_equal(m.seen, "ax@0 ");
	say(&m.a, "");
	assert_string_equal(m.seen, "ax@0 ");
	/* A machine that stands takes nothing in, and loses nothing. */
	device_lock(vm);
	vm->quiesced = true;
	device_unlock(vm);
	say(&m.a, "y");
	say(&m.a, "z");
	assert_string_equal(m.seen, "ax@0 ");
	device_lock(vm);
	vm->quiesced = false;
	input_log_resume(vm);
	device_unlock(vm);
	assert_string_equal(m.seen, "ax@0 ay@0 az@0 ");
	test_vm_free(vm);
}

static void recording(void **state)
{
	struct machine m;

	make(&m, path, NULL);
	run_to(&m, 10);
	assert_true(virtual_budget(m.vm) == UINT64_MAX);
	atomic_store(&m.vm->vcpus[0]->requests, 0);
	say(&m.a, "hi");
	say(&m.b, "!");
	assert_true(atomic_load(&m.vm->vcpus[0]->requests) & VCPU_REQ_EVENT);
	assert_string_equal(m.seen, "");
	/* Not here, where the host happened to come, but after the next instruction. */
	virtual_run_due(m.vm);
	assert_string_equal(m.seen, "");
	assert_int_equal(virtual_budget(m.vm), 1);
	virtual_run_due(m.vm);
	assert_string_equal(m.seen, "");
	run_to(&m, 11);
	assert_string_equal(m.seen, "ahi@11 b!@11 ");
	/* Halted: a point is made for it. */
	say(&m.a, "z");
	virtual_run_due(m.vm);
	assert_string_equal(m.seen, "ahi@11 b!@11 ");
	assert_true(virtual_idle(m.vm));
	assert_int_equal(clock_now(&m.vm->clock), 12);
	assert_string_equal(m.seen, "ahi@11 b!@11 az@11 ");
	assert_false(virtual_idle(m.vm));
	assert_string_equal(read_file(path),
			    HEADER "11 11 lpc.com1 6869\n11 11 power 21\n11 12 lpc.com1 7a\n");
	test_vm_free(m.vm);
}

static void replaying(void **state)
{
	struct machine m;

	write_file(path, HEADER "# two at a point\n\n11 11 lpc.com1 6869\n11 11 power 21\n"
		   "11 12 lpc.com1 7A\n20 21 power 78\n");
	make(&m, path2, path);
	virtual_run_due(m.vm);
	assert_int_equal(virtual_budget(m.vm), 11);
	say(&m.a, "dropped");
	run_to(&m, 10);
	assert_int_equal(virtual_budget(m.vm), 1);
	run_to(&m, 11);
	assert_string_equal(m.seen, "ahi@11 b!@11 ");
	assert_true(virtual_idle(m.vm));
	assert_string_equal(m.seen, "ahi@11 b!@11 az@11 ");
	assert_int_equal(virtual_budget(m.vm), 9);
	run_to(&m, 20);
	assert_string_equal(m.seen, "ahi@11 b!@11 az@11 bx@20 ");
	assert_true(virtual_budget(m.vm) == UINT64_MAX);
	assert_false(virtual_idle(m.vm));
	assert_false(vm_exiting(m.vm));
	/* A replay may be recorded: the same again. */
	assert_non_null(strstr(read_file(path2), "11 12 lpc.com1 7a\n20 21 power 78\n"));
	test_vm_free(m.vm);
}

static void another_machine(void **state)
{
	struct machine m;

	/* The machine halts for good before the log's next input. */
	write_file(path, HEADER "100 100 power 21\n");
	make(&m, NULL, path);
	run_to(&m, 50);
	assert_false(virtual_idle(m.vm));
	assert_true(vm_exiting(m.vm));
	assert_non_null(strstr(m.vm->exit_error.text, "another machine"));
	test_vm_free(m.vm);

	/* Or skips over the time at which it came. */
	make(&m, NULL, path);
	timer_arm(&m.timer, 5000);
	m.period = 5000;
	run_to(&m, 50);
	assert_true(virtual_idle(m.vm));
	run_to(&m, 100);
	assert_true(vm_exiting(m.vm));
	assert_non_null(strstr(m.vm->exit_error.text, "missed"));
	assert_string_equal(m.seen, "");
	test_vm_free(m.vm);
}

static void timers_and_limit(void **state)
{
	struct machine m;

	make(&m, NULL, NULL);
	m.period = 1;
	m.vm->insn_limit = 1000;
	assert_int_equal(virtual_budget(m.vm), 1000);
	atomic_store(&m.vm->vcpus[0]->requests, 0);
	timer_arm(&m.timer, 300);
	assert_true(atomic_load(&m.vm->vcpus[0]->requests) & VCPU_REQ_EVENT);
	assert_int_equal(virtual_budget(m.vm), 300);
	/* Far behind and with a period of next to nothing: it stays bounded, and goes on. */
	run_to(&m, 900);
	assert_true(timers_next_due(m.vm) < 900);
	assert_int_equal(virtual_budget(m.vm), 1);
	timer_disarm(&m.timer);
	assert_int_equal(virtual_budget(m.vm), 100);
	run_to(&m, 1000);
	assert_int_equal(virtual_budget(m.vm), 0);
	assert_true(virtual_idle(m.vm));	/* the limit, not a wait */
	run_to(&m, UINT64_MAX);
	assert_int_equal(virtual_budget(m.vm), 0);
	test_vm_free(m.vm);

	/* HLT jumps to the timer. */
	make(&m, NULL, NULL);
	m.period = INT64_MAX / 2;
	timer_arm(&m.timer, 1ll << 60);
	assert_true(virtual_idle(m.vm));
	assert_true(clock_now(&m.vm->clock) == 1ll << 60);
	assert_int_equal(atomic_load(&m.vm->clock.insns), 0);
	/* Not to the end of time: the sums of clocks must fit. */
	timer_arm(&m.timer, CLOCK_END + 1);
	assert_false(virtual_idle(m.vm));
	assert_true(clock_now(&m.vm->clock) == 1ll << 60);
	timer_arm(&m.timer, CLOCK_END);
	assert_true(virtual_idle(m.vm));
	assert_true(clock_now(&m.vm->clock) == CLOCK_END);
	test_vm_free(m.vm);
}

static uint64_t next_random(uint64_t *x)
{
	*x = *x * 6364136223846793005ull + 1442695040888963407ull;
	return *x >> 33;
}

/*
 * Runs like a processor that halts now and then.  What it does depends on its
 * state only; when the host speaks is another matter, and random.
 */
static uint64_t play(struct machine *m, uint64_t host, uint64_t insns)
{
	uint64_t x = 1, n, budget, step;
	bool halted = false;

	m->period = 37;
	timer_arm(&m->timer, 37);
	virtual_run_due(m->vm);
	budget = virtual_budget(m->vm);
	for (n = 0; n < insns;) {
		/* The host speaks, and comes by, whenever it likes. */
		if (host && next_random(&host) % 5 == 0)
			say(host & 4096 ? &m->a : &m->b, "q");
		if (!budget || (host && next_random(&host) % 4 == 0)) {
			virtual_run_due(m->vm);
			budget = virtual_budget(m->vm);
		}
		/* An interrupt changes the state at a point, after what was due there. */
		if (m->taken != m->given) {
			m->taken = m->given;
			halted = false;
			mix(m, 99);
		}
		if (host && next_random(&host) % 4 == 0) {
			virtual_run_due(m->vm);
			budget = virtual_budget(m->vm);
		}
		if (halted) {
			halted = virtual_idle(m->vm) && m->taken == m->given;
			budget = virtual_budget(m->vm);
			continue;
		}
		/* Blocks are cut anywhere; the guest halts where its state says so. */
		for (step = MIN(budget, 1 + (host ? next_random(&host) % 20 : 13)); step; step--) {
			atomic_store(&m->vm->clock.insns, ++n);
			budget--;
			mix(m, n ^ next_random(&x));
			halted = m->mix % 7 == 1;
			if (halted || n == insns)
				break;
		}
	}
	return m->mix;
}

static void record_equals_replay(void **state)
{
	uint64_t seed;

	for (seed = 1; seed <= 50; seed++) {
		struct machine m;
		uint64_t recorded, replayed;

		make(&m, path, NULL);
		recorded = play(&m, seed * 977, 3000);
		assert_false(vm_exiting(m.vm));
		test_vm_free(m.vm);
		make(&m, path2, path);
		replayed = play(&m, 0, 3000);
		if (vm_exiting(m.vm))
			fail_msg("seed %" PRIu64 ": %s", seed, m.vm->exit_error.text);
		assert_true(recorded == replayed);
		test_vm_free(m.vm);
	}
}

static void refuse(const char *text, const char *want)
{
	struct vm_core_options o = { .ram = TEST_RAM, .seeded = true, .seed = 7, .replay = path };
	struct skep_error e = { .text = "" };
	struct vm *vm = calloc(1, sizeof(*vm));

	write_file(path, text);
	clock_init(&o.clock, CLOCK_MODE_VIRTUAL);
	assert_true(vm_core_init(vm, &o, &e) < 0);
	if (!strstr(e.text, want))
		fail_msg("%s", e.text);
	free(vm);
}

static void bad_logs(void **state)
{
	refuse("", "empty");
	refuse("\n", "first line");
	refuse("skep-input 1 seed=8 insn_ps=1000 start=0\n", "another machine");
	refuse(HEADER "1 2 lpc.com1\n", ":2: want");
	refuse(HEADER "1 2 lpc.com1 6\n", ":2: want");
	refuse(HEADER "1 2 lpc.com1 6g\n", ":2: want");
	refuse(HEADER "1 2 lpc.com1 61 61\n", ":2: want");
	refuse(HEADER "-1 2 lpc.com1 61\n", ":2: want");
	refuse(HEADER "1 -2 lpc.com1 61\n", ":2: want");
	refuse(HEADER "1 9223372036854775808 lpc.com1 61\n", ":2: want");
	refuse(HEADER "18446744073709551616 2 lpc.com1 61\n", ":2: want");
	refuse(HEADER "1 2 a.port.with.a.name.that.is.much.too.long 61\n", ":2: want");
	refuse(HEADER "5 5 power 61\n\n5 4 power 61\n", ":4: want");
	refuse(HEADER "5 5 power 61\n4 6 power 61\n", ":3: want");
}

static void bad_settings(void **state)
{
	struct vm_core_options o = { .ram = TEST_RAM, .record = path };
	struct skep_error e = { .text = "" };
	struct vm *vm = calloc(1, sizeof(*vm));
	struct machine m;

	clock_init(&o.clock, CLOCK_MODE_REALTIME);
	assert_true(vm_core_init(vm, &o, &e) < 0);
	assert_non_null(strstr(e.text, "clock.mode=virtual"));
	memset(vm, 0, sizeof(*vm));
	clock_init(&o.clock, CLOCK_MODE_VIRTUAL);
	o.replay = path;
	assert_true(vm_core_init(vm, &o, &e) < 0);
	assert_non_null(strstr(e.text, "same file"));
	memset(vm, 0, sizeof(*vm));
	o.replay = "/nonexistent/log";
	assert_true(vm_core_init(vm, &o, &e) < 0);
	assert_non_null(strstr(e.text, "/nonexistent/log"));
	memset(vm, 0, sizeof(*vm));
	o.replay = NULL;
	o.record = "/nonexistent/log";
	assert_true(vm_core_init(vm, &o, &e) < 0);
	assert_non_null(strstr(e.text, "input.record: /nonexistent/log"));
	free(vm);

	/* A port that the machine does not have. */
	write_file(path, HEADER "5 5 lpc.com9 61\n");
	o = (struct vm_core_options){ .ram = TEST_RAM, .seeded = true, .seed = 7, .replay = path };
	clock_init(&o.clock, CLOCK_MODE_VIRTUAL);
	m.vm = test_vm_options(&o);
	assert_true(input_log_check(m.vm, &e) < 0);
	assert_non_null(strstr(e.text, "lpc.com9"));
	test_vm_free(m.vm);
}

static void full_disk(void **state)
{
	struct vm_core_options o = { .ram = TEST_RAM, .record = "/dev/full" };
	struct skep_error e = { .text = "" };
	struct vm *vm = calloc(1, sizeof(*vm));

	clock_init(&o.clock, CLOCK_MODE_VIRTUAL);
	assert_true(vm_core_init(vm, &o, &e) < 0);
	assert_non_null(strstr(e.text, "/dev/full cannot be written"));
	free(vm);
}

static void entropy(void **state)
{
	struct vm_core_options o = { .ram = TEST_RAM, .seeded = true, .seed = 7 };
	struct vm *a, *b;
	unsigned i;

	clock_init(&o.clock, CLOCK_MODE_VIRTUAL);
	a = test_vm_options(&o);
	b = test_vm_options(&o);
	for (i = 0; i < 100; i++)
		assert_true(vm_entropy(a) == vm_entropy(b));
	test_vm_free(b);
	o.seed = 8;
	b = test_vm_options(&o);
	assert_true(vm_entropy(a) != vm_entropy(b));
	test_vm_free(b);
	o.seeded = false;
	b = test_vm_options(&o);
	for (i = 0; i < 9; i++)
		assert_true(vm_entropy(a) != vm_entropy(b));
	test_vm_free(b);
	test_vm_free(a);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(real_time_is_direct, setup, teardown),
		cmocka_unit_test_setup_teardown(recording, setup, teardown),
		cmocka_unit_test_setup_teardown(replaying, setup, teardown),
		cmocka_unit_test_setup_teardown(another_machine, setup, teardown),
		cmocka_unit_test_setup_teardown(timers_and_limit, setup, teardown),
		cmocka_unit_test_setup_teardown(record_equals_replay, setup, teardown),
		cmocka_unit_test_setup_teardown(bad_logs, setup, teardown),
		cmocka_unit_test_setup_teardown(bad_settings, setup, teardown),
		cmocka_unit_test_setup_teardown(full_disk, setup, teardown),
		cmocka_unit_test_setup_teardown(entropy, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
