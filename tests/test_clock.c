/* Guest time: exact conversions, at their limits; virtual time; pauses. */
#include "vm_helper.h"

#include <time.h>

typedef unsigned __int128 u128;

static const uint32_t rates[] = { 1, 2, 3, 7, 32768, 1193182, 3579545, 14318180, 24000000,
				  999999999, 1000000000, 1000000001, UINT32_MAX };

static void ticks_are_exact(void **state)
{
	static const int64_t times[] = { 0, 1, 2, 838, 999999999, 1000000000, 1000000001,
					 86400ll * 1000000000, INT64_MAX / 3, INT64_MAX - 1,
					 INT64_MAX };
	unsigned i, k;

	for (i = 0; i < ARRAY_SIZE(rates); i++)
		for (k = 0; k < ARRAY_SIZE(times); k++) {
			u128 want = (u128)times[k] * rates[i] / 1000000000u;

			if (want > UINT64_MAX)
				want = UINT64_MAX;
			assert_true(clock_ticks(times[k], rates[i]) == (uint64_t)want);
		}
	assert_int_equal(clock_ticks(-1, 1000), 0);
	assert_int_equal(clock_ticks(INT64_MIN, 1000), 0);
}

/* The first time at which the count is reached: there it is, a ns before it is not. */
static void ticks_back_to_time(void **state)
{
	static const uint64_t counts[] = { 1, 2, 3, 1000, 65536, 1193182, 1ull << 32,
					   (1ull << 40) + 12345 };
	unsigned i, k;

	for (i = 0; i < ARRAY_SIZE(rates); i++)
		for (k = 0; k < ARRAY_SIZE(counts); k++) {
			int64_t ns = clock_ticks_to_ns(counts[k], rates[i]);

			if (ns == INT64_MAX)
				continue;
			assert_true(clock_ticks(ns, rates[i]) >= counts[k]);
			assert_true(clock_ticks(ns - 1, rates[i]) < counts[k]);
		}
	assert_int_equal(clock_ticks_to_ns(0, 1193182), 0);
	assert_true(clock_ticks_to_ns(UINT64_MAX, 1) == INT64_MAX);
	assert_true(clock_ticks_to_ns(UINT64_MAX, UINT32_MAX) ==
		    (int64_t)(((u128)UINT64_MAX * 1000000000u + UINT32_MAX - 1) / UINT32_MAX));
}

static void tsc(void **state)
{
	static const uint32_t khz[] = { 1000, 999999, 1000000, 2893201, 10000000 };
	static const int64_t times[] = { 0, 1, 999999, 1000000, 1ll << 52, INT64_MAX };
	struct guest_clock c;
	unsigned i, k;

	clock_init(&c, CLOCK_MODE_VIRTUAL);
	for (i = 0; i < ARRAY_SIZE(khz); i++)
		for (k = 0; k < ARRAY_SIZE(times); k++) {
			u128 want = (u128)times[k] * khz[i] / 1000000u;
			uint64_t got;

			c.tsc_khz = khz[i];
			got = clock_ns_to_tsc(&c, times[k]);
			assert_true(got == (want > UINT64_MAX ? UINT64_MAX : (uint64_t)want));
			/* A deadline at the value of now is due now, not later. */
			assert_true(clock_tsc_to_ns(&c, got) <= times[k] || want > UINT64_MAX);
		}
	c.tsc_khz = 1000;
	assert_true(clock_tsc_to_ns(&c, UINT64_MAX) == INT64_MAX);
	assert_int_equal(clock_ns_to_tsc(&c, -5), 0);
}

static void virtual_time(void **state)
{
	static const uint32_t ps[] = { 1, 3, 333, 999, 1000, 1001, 250000, 1000000000 };
	struct guest_clock c;
	unsigned i;
	int64_t ns;

	clock_init(&c, CLOCK_MODE_VIRTUAL);
	assert_int_equal(clock_now(&c), 0);
	assert_true(clock_wall(&c) == CLOCK_VIRTUAL_START * NSEC_PER_SEC);
	for (i = 0; i < ARRAY_SIZE(ps); i++) {
		c.insn_ps = ps[i];
		atomic_store(&c.skipped_ns, 100);
		assert_int_equal(clock_insns_until(&c, 0), 0);
		assert_int_equal(clock_insns_until(&c, 100), 0);
		for (ns = 101; ns < 100000; ns = ns * 3 + 1) {
			uint64_t n = clock_insns_until(&c, ns);

			atomic_store(&c.insns, n);
			assert_true(clock_now(&c) >= ns);
			atomic_store(&c.insns, n - 1);
			assert_true(clock_now(&c) < ns);
		}
	}
	c.insn_ps = 1;
	assert_true(clock_insns_until(&c, INT64_MAX) == UINT64_MAX);
	assert_int_equal(clock_insns_until(&c, INT64_MIN), 0);
	atomic_store(&c.insns, UINT64_MAX);
	c.insn_ps = 1000000000;
	assert_true(clock_now(&c) == INT64_MAX);
}

static void skipping(void **state)
{
	struct guest_clock c;

	clock_init(&c, CLOCK_MODE_VIRTUAL);
	atomic_store(&c.insns, 50);
	clock_skip_to(&c, 1000);
	assert_int_equal(clock_now(&c), 1000);
	clock_skip_to(&c, 10);		/* never back */
	assert_int_equal(clock_now(&c), 1000);
	atomic_store(&c.insns, 51);
	assert_int_equal(clock_now(&c), 1001);
	clock_skip_to(&c, INT64_MAX);
	assert_true(clock_now(&c) == INT64_MAX);
	/* Pausing is nothing to it. */
	clock_pause(&c);
	assert_false(c.paused);
}

static void pauses(void **state)
{
	struct timespec ms = { .tv_nsec = 2000000 };
	struct guest_clock c;
	int64_t at, wall;

	clock_init(&c, CLOCK_MODE_REALTIME);
	nanosleep(&ms, NULL);
	assert_true(clock_now(&c) >= 2000000);
	clock_pause(&c);
	clock_pause(&c);
	at = clock_now(&c);
	wall = clock_wall(&c);
	nanosleep(&ms, NULL);
	assert_true(clock_now(&c) == at);
	assert_true(clock_wall(&c) == wall);
	clock_resume(&c);
	clock_resume(&c);
	assert_true(clock_now(&c) >= at);
	assert_true(clock_now(&c) < at + 1000000000);
	clock_skip_to(&c, at * 1000);	/* not for real time */
	assert_true(clock_now(&c) < at + 1000000000);
	clock_set_wall_now(&c);
	assert_true(clock_wall(&c) / NSEC_PER_SEC - time(NULL) <= 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(ticks_are_exact),
		cmocka_unit_test(ticks_back_to_time),
		cmocka_unit_test(tsc),
		cmocka_unit_test(virtual_time),
		cmocka_unit_test(skipping),
		cmocka_unit_test(pauses),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
