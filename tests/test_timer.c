/* Timers: order, ties, re-arming from callbacks, the ends of time; the loop's timerfd. */
#include "vm_helper.h"

#include <string.h>
#include <time.h>

#include "vm/loop.h"
#include "vm/timer.h"

static struct vm *vm;
static char fired[256];
static int64_t earliest;
static unsigned earlier_calls;

struct clockwork {
	struct vm_timer t;
	char letter;
	int64_t period;			/* re-arms itself so much later, if not 0 */
	struct clockwork *stops;	/* disarms this one */
	struct clockwork *starts;	/* arms this one at its own due time */
};

static void tick(void *opaque)
{
	struct clockwork *c = opaque;
	size_t n = strlen(fired);

	assert_false(timer_armed(&c->t));
	fired[n] = c->letter;
	fired[n + 1] = '\0';
	if (c->period)
		timer_arm(&c->t, c->t.due + c->period);
	if (c->stops)
		timer_disarm(&c->stops->t);
	if (c->starts)
		timer_arm(&c->starts->t, c->t.due);
}

static void make(struct clockwork *c, char letter)
{
	memset(c, 0, sizeof(*c));
	c->letter = letter;
	timer_init(&c->t, vm, "test", tick, c);
}

static void on_earlier(struct vm *v, int64_t due)
{
	earliest = due;
	earlier_calls++;
}

static int setup(void **state)
{
	struct skep_error e;

	vm = test_vm(CLOCK_MODE_VIRTUAL);
	timers_destroy(vm);
	assert_int_equal(timers_create(vm, on_earlier, &e), 0);
	fired[0] = '\0';
	earlier_calls = 0;
	return 0;
}

static int teardown(void **state)
{
	test_vm_free(vm);
	return 0;
}

static void order_and_ties(void **state)
{
	struct clockwork a, b, c, d;

	make(&a, 'a'); make(&b, 'b'); make(&c, 'c'); make(&d, 'd');
	assert_true(timers_next_due(vm) == INT64_MAX);
	timer_arm(&a.t, 20);
	timer_arm(&b.t, 10);
	timer_arm(&c.t, 20);
	timer_arm(&d.t, 10);
	/* When it was armed does not matter: a restored machine does not know. */
	timer_arm(&a.t, 20);
	assert_true(timers_next_due(vm) == 10);
	timers_run(vm, 9);
	assert_string_equal(fired, "");
	timers_run(vm, 15);
	assert_string_equal(fired, "bd");
	timers_run(vm, 20);
	assert_string_equal(fired, "bdac");
	assert_true(timers_next_due(vm) == INT64_MAX);
}

/* Ties fire in the order of timer_init, in whatever order they were armed. */
static void ties_forget_arming(void **state)
{
	enum { N = 26 };
	static struct clockwork c[N];
	char want[N + 1] = "";
	uint64_t x = 99;
	unsigned i, k;

	for (i = 0; i < N; i++) {
		want[i] = (char)('a' + i);
		make(&c[i], want[i]);
	}
	for (k = 0; k < 100; k++) {
		fired[0] = '\0';
		for (i = 0; i < 4 * N; i++) {
			x = x * 6364136223846793005ull + 1442695040888963407ull;
			timer_arm(&c[(x >> 33) % N].t, 7);
		}
		for (i = N; i--;)
			if (!timer_armed(&c[i].t))
				timer_arm(&c[i].t, 7);
		timers_run(vm, 7);
		assert_string_equal(fired, want);
	}
}

/* A timer armed between two runs is no callback's, whichever run came last. */
static void armed_between_runs(void **state)
{
	struct clockwork a, b;

	make(&a, 'a'); make(&b, 'b');
	timers_run(vm, 0);
	timer_arm(&b.t, 5);
	timers_run(vm, 5);
	timer_arm(&a.t, 5);
	timer_arm(&b.t, 5);
	timers_run(vm, 5);
	assert_string_equal(fired, "bab");
	/* One that a callback arms before its turn in the tie waits as well. */
	fired[0] = '\0';
	b.starts = &a;
	timer_arm(&b.t, 6);
	timers_run(vm, 6);
	assert_string_equal(fired, "b");
	timers_run(vm, 6);
	assert_string_equal(fired, "ba");
}

static void disarm(void **state)
{
	struct clockwork a, b, c;

	make(&a, 'a'); make(&b, 'b'); make(&c, 'c');
	timer_disarm(&a.t);		/* not armed: nothing */
	timer_arm(&a.t, 1);
	timer_arm(&b.t, 2);
	timer_arm(&c.t, 3);
	timer_disarm(&b.t);
	timer_disarm(&b.t);
	assert_false(timer_armed(&b.t));
	a.stops = &c;			/* due, and disarmed by an earlier one in the same run */
	timers_run(vm, 100);
	assert_string_equal(fired, "a");
}

static void rearming_in_callbacks(void **state)
{
	struct clockwork a, b;

	make(&a, 'a'); make(&b, 'b');
	a.period = 10;
	timer_arm(&a.t, 10);
	timer_arm(&b.t, 35);
	/* What is armed from within is for the next run, overdue or not. */
	timers_run(vm, 40);
	assert_string_equal(fired, "a");
	timers_run(vm, 40);
	timers_run(vm, 40);
	assert_string_equal(fired, "aaab");
	timers_run(vm, 40);
	assert_string_equal(fired, "aaaba");
	assert_true(timers_next_due(vm) == 50);

	/* A period of nothing does not hold us. */
	fired[0] = '\0';
	timer_disarm(&a.t);
	b.starts = &b;
	timer_arm(&b.t, 0);
	timers_run(vm, INT64_MAX);
	assert_string_equal(fired, "b");
}

static void ends_of_time(void **state)
{
	struct clockwork a, b, c;

	make(&a, 'a'); make(&b, 'b'); make(&c, 'c');
	timer_arm(&a.t, INT64_MAX);
	timer_arm(&b.t, INT64_MIN);
	timer_arm(&c.t, -1);
	assert_true(timers_next_due(vm) == INT64_MIN);
	timers_run(vm, 0);
	assert_string_equal(fired, "bc");
	assert_true(timers_next_due(vm) == INT64_MAX);
	assert_true(timer_armed(&a.t));
	timers_run(vm, INT64_MAX);
	assert_string_equal(fired, "bca");
}

static void earlier_is_told(void **state)
{
	struct clockwork a, b;

	make(&a, 'a'); make(&b, 'b');
	timer_arm(&a.t, INT64_MAX);	/* never: nothing to wait for */
	assert_int_equal(earlier_calls, 0);
	timer_arm(&a.t, 100);
	assert_int_equal(earliest, 100);
	earlier_calls = 0;
	timer_arm(&b.t, 200);
	timer_arm(&b.t, 100);
	assert_int_equal(earlier_calls, 0);
	timer_arm(&b.t, 99);
	assert_int_equal(earlier_calls, 1);
	assert_int_equal(earliest, 99);
	timer_disarm(&b.t);
	timer_arm(&a.t, 300);		/* later: nobody needs to know */
	assert_int_equal(earlier_calls, 1);
}

/* Against a plain list: the same order, whatever is armed and disarmed. */
static void random_heap(void **state)
{
	enum { N = 100 };
	static struct clockwork c[N];
	struct skep_error e;
	uint64_t x = 12345;
	unsigned i, k, round;

	for (i = 0; i < N; i++)
		make(&c[i], '.');
	assert_int_equal(timers_check(vm, &e), 0);
	for (round = 0; round < 2000; round++) {
		int64_t best = INT64_MAX;

		x = x * 6364136223846793005ull + 1442695040888963407ull;
		k = (unsigned)(x >> 33) % N;
		if (x >> 62)
			timer_arm(&c[k].t, (int64_t)(x >> 40) % 50);
		else
			timer_disarm(&c[k].t);
		for (i = 0; i < N; i++)
			if (timer_armed(&c[i].t))
				best = MIN(best, c[i].t.due);
		assert_true(timers_next_due(vm) == best);
	}
	for (i = 0; i < N; i++)
		timer_disarm(&c[i].t);
	assert_true(timers_next_due(vm) == INT64_MAX);
}

static void stop_loop(void *opaque)
{
	strcat(fired, "p");
}

static void loop_fires_in_real_time(void **state)
{
	struct vm *real = test_vm(CLOCK_MODE_REALTIME);
	struct clockwork a, b;
	int64_t start = clock_now(&real->clock);
	unsigned i;

	memset(&a, 0, sizeof(a));
	memset(&b, 0, sizeof(b));
	a.letter = 'a';
	b.letter = 'b';
	device_lock(real);
	timer_init(&a.t, real, "a", tick, &a);
	timer_init(&b.t, real, "b", tick, &b);
	timer_arm(&a.t, start + 20000000);
	timer_arm(&b.t, start + 5000000);
	device_unlock(real);
	for (i = 0; i < 10 && strlen(fired) < 2; i++)
		loop_iterate(real);
	assert_string_equal(fired, "ba");
	assert_true(clock_now(&real->clock) - start >= 20000000);

	/* A due time in the past fires at once; one of long ago does not switch the timer off. */
	device_lock(real);
	timer_arm(&a.t, INT64_MIN);
	timer_arm(&b.t, 0);
	device_unlock(real);
	for (i = 0; i < 10 && strlen(fired) < 4; i++)
		loop_iterate(real);
	assert_string_equal(fired, "baab");

	/* While the clock stands nothing is due; afterwards it is. */
	device_lock(real);
	clock_pause(&real->clock);
	start = clock_now(&real->clock);
	timer_arm(&a.t, start + 1000000);
	device_unlock(real);
	nanosleep(&(struct timespec){ .tv_nsec = 3000000 }, NULL);
	loop_post(real, stop_loop, real);
	loop_post(real, stop_loop, real);	/* the same call twice is one */
	loop_iterate(real);
	assert_string_equal(fired, "baabp");
	assert_true(clock_now(&real->clock) == start);
	device_lock(real);
	clock_resume(&real->clock);
	loop_timer_changed(real, timers_next_due(real));
	device_unlock(real);
	for (i = 0; i < 10 && strlen(fired) < 6; i++)
		loop_iterate(real);
	assert_string_equal(fired, "baabpa");
	test_vm_free(real);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(order_and_ties, setup, teardown),
		cmocka_unit_test_setup_teardown(ties_forget_arming, setup, teardown),
		cmocka_unit_test_setup_teardown(armed_between_runs, setup, teardown),
		cmocka_unit_test_setup_teardown(disarm, setup, teardown),
		cmocka_unit_test_setup_teardown(rearming_in_callbacks, setup, teardown),
		cmocka_unit_test_setup_teardown(ends_of_time, setup, teardown),
		cmocka_unit_test_setup_teardown(earlier_is_told, setup, teardown),
		cmocka_unit_test_setup_teardown(random_heap, setup, teardown),
		cmocka_unit_test_setup_teardown(loop_fires_in_real_time, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
