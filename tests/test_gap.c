/*
 * A machine that is restored with --time=advance: guest time stands while it is restored, is moved
 * on by the gap, and goes on.  Each timer that came due in the gap, however long, comes once; each
 * clock reads what it would have read; periodic ones keep their phase.
 */
#include "board.h"
#include "chipset/acpi_pm.h"
#include "chipset/i8254.h"

#define PM	0x600
#define SECOND	NSEC_PER_SEC
#define HOUR	(3600 * SECOND)
#define YEAR	(365 * 24 * HOUR)

static const int64_t gaps[] = { 1, 999999, SECOND + 1, HOUR + 12345678, 3 * YEAR + 7654321 };

static struct config *config;
static struct board *b;

static int group_setup(void **state)
{
	const char *const start[][2] = { { "clock.start", "1780000000" } };

	config = board_config(start, 1);
	return 0;
}

static int group_teardown(void **state)
{
	config_destroy(config);
	return 0;
}

static int setup(void **state)
{
	b = board_make_mode(config, CLOCK_MODE_REALTIME);
	b->vm->clock.wall_base = 1780000000 * SECOND;
	for (struct device *d = b->vm->devices; d; d = d->next)
		d->type->reset(d);
	lapic_mmio_write(b->apic, 0xf0, 4, 0x1ff);
	return 0;
}

static int teardown(void **state)
{
	board_free(b);
	return 0;
}

/* What the vm thread does when nobody is late. */
static void run_to(int64_t ns)
{
	int64_t due;

	while ((due = timers_next_due(b->vm)) <= ns) {
		clock_set_paused(&b->vm->clock, due > chip_now(b->vm) ? due : chip_now(b->vm));
		timers_run(b->vm, chip_now(b->vm));
	}
	clock_set_paused(&b->vm->clock, ns);
}

static void run(int64_t ns)
{
	run_to(chip_now(b->vm) + ns);
}

static void restore(int64_t gap)
{
	struct board *to = board_make_mode(config, CLOCK_MODE_REALTIME);
	int64_t now = chip_now(b->vm);

	to->vm->clock.wall_base = b->vm->clock.wall_base;
	board_copy(b, to);
	board_free(b);
	b = to;
	assert_true(chip_now(b->vm) == now);
	clock_advance(&b->vm->clock, gap);
	assert_true(chip_now(b->vm) == now + gap);
}

/* A machine of its own for each gap. */
static void again(void)
{
	teardown(NULL);
	setup(NULL);
}

static void o8(uint16_t port, uint8_t v) { out8(b->vm, port, v); }

static void io_entry(unsigned pin, uint32_t low)
{
	bus_write(&b->vm->mmio, IOAPIC_BASE, 4, 0x10 + 2 * pin);
	bus_write(&b->vm->mmio, IOAPIC_BASE + 0x10, 4, low);
}

static void eoi(void)
{
	lapic_mmio_write(b->apic, 0xb0, 4, 0);
}

/* This vector, once, and nothing else. */
static void expect_once(int vector)
{
	assert_int_equal(lapic_ack(b->apic), vector);
	eoi();
	assert_int_equal(lapic_ack(b->apic), -1);
}

/* ---- Clocks ------------------------------------------------------------- */

static void every_clock_moves_by_the_gap(void **state)
{
	for (unsigned i = 0; i < ARRAY_SIZE(gaps); i++, again()) {
		int64_t then;
		uint64_t tsc;

		out32(b->vm, 0xcf8, 0x8000f840);
		bus_write(&b->vm->ports, 0xcfc, 4, PM);
		out32(b->vm, 0xcf8, 0x8000f844);
		bus_write(&b->vm->ports, 0xcfc, 1, 0x80);
		run(77777777);
		then = chip_now(b->vm) + gaps[i];
		tsc = clock_tsc(&b->vm->clock);
		restore(gaps[i]);
		assert_true(clock_tsc(&b->vm->clock) - tsc ==
			    clock_ns_to_tsc(&b->vm->clock, then) -
			    clock_ns_to_tsc(&b->vm->clock, then - gaps[i]));
		assert_true(clock_wall(&b->vm->clock) == 1780000000 * SECOND + then);
		timers_run(b->vm, chip_now(b->vm));
		assert_int_equal(in32(b->vm, PM + PM_TMR_OFFSET),
				 (uint32_t)clock_ticks(then, PM_TIMER_HZ));
	}
}

static unsigned cmos(uint8_t index)
{
	o8(0x70, index);
	return in8(b->vm, 0x71);
}

static void cmos_set(uint8_t index, uint8_t v)
{
	o8(0x70, index);
	o8(0x71, v);
}

static int64_t cmos_time(void)
{
	struct tm t = {
		.tm_sec = (int)cmos(0), .tm_min = (int)cmos(2), .tm_hour = (int)cmos(4),
		.tm_mday = (int)cmos(7), .tm_mon = (int)cmos(8) - 1, .tm_year = (int)cmos(9) + 100,
	};

	return timegm(&t);
}

/* Over leap years and ends of months too. */
static void cmos_clock_moves_by_the_gap(void **state)
{
	for (unsigned i = 0; i < ARRAY_SIZE(gaps); i++, again()) {
		cmos_set(0xb, 6);		/* binary, 24 hours */
		run(SECOND / 2);
		assert_int_equal(cmos_time(), 1780000000);
		restore(gaps[i]);
		timers_run(b->vm, chip_now(b->vm));
		assert_int_equal(cmos_time(), 1780000000 + (SECOND / 2 + gaps[i]) / SECOND);
	}
}

/* A host whose clock was set back gives no gap; nor does time go beyond the end of time. */
static void time_never_goes_back(void **state)
{
	run(SECOND);
	clock_advance(&b->vm->clock, -HOUR);
	assert_true(chip_now(b->vm) == SECOND);
	clock_advance(&b->vm->clock, INT64_MAX);
	assert_true(chip_now(b->vm) == CLOCK_END);
	clock_advance(&b->vm->clock, INT64_MAX);
	assert_true(chip_now(b->vm) == CLOCK_END);
}

/* ---- The local APIC's timer --------------------------------------------- */

static void set_deadline(uint64_t in)
{
	lapic_mmio_write(b->apic, 0x320, 4, 0x40041);
	lapic_set_tsc_deadline(b->apic, clock_tsc(&b->vm->clock) + b->tsc_adjust + in);
}

static void deadline_in_the_gap_comes_once(void **state)
{
	static const uint64_t adjust[] = { 0, 1ull << 50, 0 - (1ull << 40) };

	for (unsigned i = 0; i < ARRAY_SIZE(gaps); i++, again()) {
		b->tsc_adjust = adjust[i % 3];
		lapic_set_tsc_adjust(b->apic, b->tsc_adjust);
		run(5000000);
		set_deadline(1);
		restore(gaps[i]);
		run(0);
		expect_once(0x41);
		assert_int_equal(lapic_get_tsc_deadline(b->apic), 0);
		set_deadline(3000000);		/* and the next one as ever */
		run(2999999);
		assert_int_equal(lapic_ack(b->apic), -1);
		run(1);
		expect_once(0x41);
	}
}

static void deadline_after_the_gap_is_not_early(void **state)
{
	for (unsigned i = 0; i < ARRAY_SIZE(gaps); i++, again()) {
		set_deadline((uint64_t)gaps[i] + 1000);
		restore(gaps[i]);
		run(999);
		assert_int_equal(lapic_ack(b->apic), -1);
		run(1);
		expect_once(0x41);
	}
}

static void periodic_apic_timer_comes_once_and_keeps_its_phase(void **state)
{
	for (unsigned i = 0; i < ARRAY_SIZE(gaps); i++, again()) {
		int64_t next;

		lapic_mmio_write(b->apic, 0x3e0, 4, 0xb);
		lapic_mmio_write(b->apic, 0x320, 4, 0x20042);
		lapic_mmio_write(b->apic, 0x380, 4, 100000);
		run(150000);
		expect_once(0x42);
		restore(gaps[i]);
		run(0);
		if (gaps[i] >= 50000)
			expect_once(0x42);
		next = (chip_now(b->vm) / 100000 + 1) * 100000;
		run_to(next - 1);
		assert_int_equal(lapic_ack(b->apic), -1);
		run_to(next);
		expect_once(0x42);
	}
}

static void one_shot_apic_timer_reads_zero(void **state)
{
	for (unsigned i = 1; i < ARRAY_SIZE(gaps); i++, again()) {
		lapic_mmio_write(b->apic, 0x3e0, 4, 0xb);
		lapic_mmio_write(b->apic, 0x320, 4, 0x42);
		lapic_mmio_write(b->apic, 0x380, 4, 100000);
		restore(gaps[i]);
		run(0);
		assert_int_equal(lapic_mmio_read(b->apic, 0x390, 4), 0);
		expect_once(0x42);
		run(HOUR);
		assert_int_equal(lapic_ack(b->apic), -1);
	}
}

/* ---- The board's timers ----------------------------------------------------- */

/* Periodic in mode 2 and 3: at most one edge for the gap, whatever its length, then its rate. */
static void periodic_8254_comes_once(void **state)
{
	for (unsigned i = 0; i < 2 * ARRAY_SIZE(gaps); i++, again()) {
		unsigned before;

		io_entry(2, 0x51);
		o8(0x43, i & 1 ? 0x36 : 0x34);
		o8(0x40, 11932 & 0xff);		/* 100 Hz */
		o8(0x40, 11932 >> 8);
		run(SECOND / 10 + 1000000);
		restore(gaps[i / 2]);
		before = b->messages;
		run(0);
		assert_in_range(b->messages - before, gaps[i / 2] > SECOND ? 1 : 0, 1);
		before = b->messages;
		run(SECOND);
		assert_in_range(b->messages - before, 99, 101);
	}
}

static void one_shot_8254_comes_once(void **state)
{
	for (unsigned i = 0; i < ARRAY_SIZE(gaps); i++, again()) {
		unsigned before;

		io_entry(2, 0x51);
		o8(0x43, 0x30);
		o8(0x40, 100);
		o8(0x40, 0);
		run(10000);
		restore(gaps[i]);
		before = b->messages;
		run(SECOND);
		assert_int_equal(b->messages - before, 1);
	}
}

/* Periodic, alarm and update: the flags of what happened in the gap, one interrupt. */
static void cmos_interrupts_come_once(void **state)
{
	for (unsigned i = 1; i < ARRAY_SIZE(gaps); i++, again()) {
		unsigned flags;

		io_entry(8, 0x58);
		cmos_set(0xa, 0x2a);		/* 64 Hz */
		cmos_set(0xb, 0x72);		/* all of them */
		cmos_set(1, 0xff);		/* an alarm every second */
		cmos_set(3, 0xff);
		cmos_set(5, 0xff);
		run(SECOND / 2 + 1000);
		cmos(0xc);
		while (lapic_ack(b->apic) == 0x58)
			eoi();
		restore(gaps[i]);
		run(0);
		flags = cmos(0xc);
		assert_int_equal(flags & 0x30, gaps[i] > SECOND ? 0x30 : 0);
		if (flags)
			expect_once(0x58);
		else
			assert_int_equal(lapic_ack(b->apic), -1);
		run(SECOND);
		assert_int_equal(cmos(0xc) & 0xf0, 0xf0);
	}
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(every_clock_moves_by_the_gap),
		T(cmos_clock_moves_by_the_gap),
		T(time_never_goes_back),
		T(deadline_in_the_gap_comes_once),
		T(deadline_after_the_gap_is_not_early),
		T(periodic_apic_timer_comes_once_and_keeps_its_phase),
		T(one_shot_apic_timer_reads_zero),
		T(periodic_8254_comes_once),
		T(one_shot_8254_comes_once),
		T(cmos_interrupts_come_once),
	};

	return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
