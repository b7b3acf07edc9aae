/* The real-time clock against the MC146818 data sheet, by its ports. */
#include "chip.h"

#include "chipset/mc146818.h"
#include "chipset/rtc_time.h"

#define MS 1000000ll

enum { SEC, SEC_ALARM, MIN, MIN_ALARM, HOUR, HOUR_ALARM, WEEKDAY, DAY, MONTH, YEAR, A, B, C, D,
       CENTURY = 0x32 };

static struct vm *vm;
static struct mc146818 *rtc;
static struct chip_wire irq8;

static uint8_t rd(uint8_t reg)
{
	out8(vm, 0x70, reg);
	return in8(vm, 0x71);
}

static void wr(uint8_t reg, uint8_t v)
{
	out8(vm, 0x70, reg);
	out8(vm, 0x71, v);
}

static int setup(void **state)
{
	struct skep_error e;

	vm = chip_vm();		/* 2026-01-01 00:00:00, a Thursday */
	rtc = mc146818_create(vm, &e);
	assert_non_null(rtc);
	mc146818_connect_irq(rtc, chip_wire(&irq8, vm));
	return 0;
}

static int teardown(void **state)
{
	chip_vm_end(vm);
	return 0;
}

static void expect_time(uint8_t h, uint8_t m, uint8_t s)
{
	assert_int_equal(rd(HOUR), h);
	assert_int_equal(rd(MIN), m);
	assert_int_equal(rd(SEC), s);
}

static void expect_date(uint8_t century, uint8_t year, uint8_t month, uint8_t day)
{
	assert_int_equal(rd(CENTURY), century);
	assert_int_equal(rd(YEAR), year);
	assert_int_equal(rd(MONTH), month);
	assert_int_equal(rd(DAY), day);
}

/* Sets the clock as firmware and kernels do: SET, registers, SET off. */
static void set_clock(uint8_t century, uint8_t year, uint8_t month, uint8_t day, uint8_t weekday,
		      uint8_t h, uint8_t m, uint8_t s)
{
	uint8_t b = rd(B);

	wr(B, b | 0x80);
	wr(CENTURY, century);
	wr(YEAR, year);
	wr(MONTH, month);
	wr(DAY, day);
	wr(WEEKDAY, weekday);
	wr(HOUR, h);
	wr(MIN, m);
	wr(SEC, s);
	wr(B, b);
}

static void starts_with_the_wall_clock(void **state)
{
	assert_int_equal(rd(A), 0x26);
	assert_int_equal(rd(B), 0x02);
	assert_int_equal(rd(C), 0x00);
	assert_int_equal(rd(D), 0x80);		/* valid RAM and time */
	expect_date(0x20, 0x26, 0x01, 0x01);
	expect_time(0x00, 0x00, 0x00);
	assert_int_equal(rd(WEEKDAY), 5);
	chip_run(vm, (13 * 3600 + 59 * 60 + 59) * NSEC_PER_SEC);
	expect_time(0x13, 0x59, 0x59);
	chip_run(vm, NSEC_PER_SEC);
	expect_time(0x14, 0x00, 0x00);
	chip_run(vm, 10 * 3600 * NSEC_PER_SEC);
	expect_date(0x20, 0x26, 0x01, 0x02);
	assert_int_equal(rd(WEEKDAY), 6);
}

static void binary_and_12_hours(void **state)
{
	chip_run(vm, (12 * 3600 + 34 * 60 + 56) * NSEC_PER_SEC);
	expect_time(0x12, 0x34, 0x56);
	wr(B, 0x06);
	expect_time(12, 34, 56);
	assert_int_equal(rd(YEAR), 26);
	assert_int_equal(rd(CENTURY), 20);
	wr(B, 0x00);
	assert_int_equal(rd(HOUR), 0x92);	/* 12 PM is noon */
	chip_run(vm, 3600 * NSEC_PER_SEC);
	assert_int_equal(rd(HOUR), 0x81);
	wr(B, 0x04);
	assert_int_equal(rd(HOUR), 0x81);
	chip_run(vm, 11 * 3600 * NSEC_PER_SEC);
	assert_int_equal(rd(HOUR), 12);		/* 12 AM is midnight */
	wr(B, 0x00);
	assert_int_equal(rd(HOUR), 0x12);
}

static void set_and_go_on(void **state)
{
	chip_run(vm, 300 * MS);
	set_clock(0x19, 0x99, 0x12, 0x31, 6, 0x23, 0x59, 0x58);
	expect_time(0x23, 0x59, 0x58);
	chip_run(vm, 699 * MS);
	expect_time(0x23, 0x59, 0x58);		/* SET does not touch the divider: same phase */
	chip_run(vm, 1 * MS);
	expect_time(0x23, 0x59, 0x59);
	chip_run(vm, NSEC_PER_SEC);
	expect_time(0x00, 0x00, 0x00);
	expect_date(0x20, 0x00, 0x01, 0x01);
	assert_int_equal(rd(WEEKDAY), 7);	/* a Saturday */
	/* 2000 is a leap year, 1900 and 2100 are not. */
	set_clock(0x20, 0x00, 0x02, 0x28, 2, 0x23, 0x59, 0x59);
	chip_run(vm, NSEC_PER_SEC);
	expect_date(0x20, 0x00, 0x02, 0x29);
	set_clock(0x21, 0x00, 0x02, 0x28, 1, 0x23, 0x59, 0x59);
	chip_run(vm, NSEC_PER_SEC);
	expect_date(0x21, 0x00, 0x03, 0x01);
}

static void set_stops_updates(void **state)
{
	wr(B, 0x82);
	chip_run(vm, 100 * NSEC_PER_SEC);
	expect_time(0x00, 0x00, 0x00);
	assert_false(rd(A) & 0x80);
	assert_int_equal(rd(C), 0x40);		/* the divider still makes periodic flags */
	wr(SEC, 0x77);				/* plain memory meanwhile */
	assert_int_equal(rd(SEC), 0x77);
	wr(SEC, 0x30);
	wr(B, 0x02);
	expect_time(0x00, 0x00, 0x30);
	chip_run(vm, 2 * NSEC_PER_SEC);
	expect_time(0x00, 0x00, 0x32);
}

/* Data sheet, DV: "the first update cycle begins one-half second after the divider reset ends." */
static void divider_reset_half_a_second(void **state)
{
	chip_run(vm, 123 * MS);
	wr(B, 0x82);
	wr(A, 0x70 | 0x6);
	set_clock(0x20, 0x26, 0x06, 0x15, 2, 0x12, 0x00, 0x00);
	wr(B, 0x02);
	chip_run(vm, 10 * NSEC_PER_SEC);
	expect_time(0x12, 0x00, 0x00);		/* the divider is held */
	wr(A, 0x26);
	chip_run(vm, 499 * MS);
	expect_time(0x12, 0x00, 0x00);
	chip_run(vm, 1 * MS);
	expect_time(0x12, 0x00, 0x01);
	chip_run(vm, 999 * MS);
	expect_time(0x12, 0x00, 0x01);
	chip_run(vm, 1 * MS);
	expect_time(0x12, 0x00, 0x02);
}

static void write_without_set(void **state)
{
	chip_run(vm, 5 * NSEC_PER_SEC + 400 * MS);
	wr(MIN, 0x45);
	expect_time(0x00, 0x45, 0x05);
	chip_run(vm, 600 * MS);
	expect_time(0x00, 0x45, 0x06);
	wr(MONTH, 0x02);
	wr(DAY, 0x31);				/* carries over */
	expect_date(0x20, 0x26, 0x03, 0x03);
}

static void nonsense_in_every_register(void **state)
{
	for (unsigned v = 0; v < 256; v += 5)
		for (unsigned b = 0; b < 8; b += 2) {
			wr(B, 0x80 | b);
			for (uint8_t r = 0; r < 10; r++)
				wr(r, (uint8_t)(v + r * 17));
			wr(CENTURY, (uint8_t)v);
			wr(B, 0x70 | b);
			chip_run(vm, 1500 * MS);
			rd(C);
			assert_in_range(rtc_decode(rd(SEC), b & 4), 0, 59);
			assert_in_range(rtc_decode(rd(MONTH), b & 4), 1, 12);
		}
}

/* 244 us before the update, and the 1984 us it takes. */
static void update_in_progress(void **state)
{
	chip_run(vm, 900 * MS);
	assert_false(rd(A) & 0x80);
	chip_run(vm, 100 * MS - 2229000);
	assert_false(rd(A) & 0x80);
	chip_run(vm, 2000);
	assert_true(rd(A) & 0x80);
	assert_int_equal(rd(A) & 0x7f, 0x26);
	assert_int_equal(rd(SEC), 0x00);
	chip_run(vm, 2227000);
	assert_false(rd(A) & 0x80);
	assert_int_equal(rd(SEC), 0x01);
}

static void update_ended_interrupt(void **state)
{
	chip_run(vm, 250 * MS);
	wr(B, 0x12);
	chip_run(vm, 749 * MS);
	assert_int_equal(irq8.rises, 0);
	chip_run(vm, 1 * MS);
	assert_int_equal(irq8.rises, 1);
	assert_int_equal(irq8.last_rise, NSEC_PER_SEC);
	/* The line stays up until register C is read. */
	chip_run(vm, 3 * NSEC_PER_SEC);
	assert_int_equal(irq8.level, 1);
	assert_int_equal(irq8.rises, 1);
	assert_int_equal(rd(C), 0xd0);		/* the periodic flag is set, enabled or not */
	assert_int_equal(irq8.level, 0);
	assert_int_equal(rd(C), 0x00);
	chip_run(vm, NSEC_PER_SEC);
	assert_int_equal(irq8.rises, 2);
	/* SET clears the enable. */
	wr(B, 0x92);
	assert_int_equal(rd(B), 0x82);
}

static void flags_without_interrupts(void **state)
{
	chip_run(vm, 1100 * MS);
	assert_int_equal(rd(C), 0x50);
	assert_int_equal(irq8.rises, 0);
	assert_int_equal(timers_next_due(vm), INT64_MAX);	/* and nothing runs for them */
	chip_run(vm, 500000);
	assert_int_equal(rd(C), 0x00);
	chip_run(vm, 500000);
	assert_int_equal(rd(C), 0x40);
}

static void periodic_rates(void **state)
{
	static const unsigned hz[16] = { 0, 256, 128, 8192, 4096, 2048, 1024, 512, 256, 128, 64, 32,
					 16, 8, 4, 2 };

	for (unsigned rs = 0; rs < 16; rs++) {
		int64_t end;

		wr(A, 0x20 | rs);
		wr(B, 0x42);
		rd(C);
		irq8.rises = 0;
		end = chip_now(vm) + NSEC_PER_SEC;
		while (chip_now(vm) < end) {
			int64_t due = timers_next_due(vm);

			chip_run_to(vm, MIN(due, end));
			if (irq8.level)
				assert_int_equal(rd(C) & 0xc0, 0xc0);
		}
		assert_int_equal(irq8.rises, hz[rs]);
		wr(B, 0x02);
	}
}

static void alarm_exact(void **state)
{
	wr(HOUR_ALARM, 0x01);
	wr(MIN_ALARM, 0x30);
	wr(SEC_ALARM, 0x15);
	wr(B, 0x22);
	chip_run(vm, 20 * 3600 * NSEC_PER_SEC);
	assert_int_equal(irq8.rises, 1);
	assert_int_equal(irq8.last_rise, (3600 + 30 * 60 + 15) * NSEC_PER_SEC);
	assert_int_equal(rd(C) & 0xa0, 0xa0);
	chip_run(vm, 20 * 3600 * NSEC_PER_SEC);	/* and the next day */
	assert_int_equal(irq8.rises, 2);
	assert_int_equal(irq8.last_rise, (86400 + 3600 + 30 * 60 + 15) * NSEC_PER_SEC);
}

/* "0xc0 to 0xff" is a don't-care: every hour, every minute, every second. */
static void alarm_dont_care(void **state)
{
	unsigned n = 0;

	wr(HOUR_ALARM, 0xff);
	wr(MIN_ALARM, 0xc0);
	wr(SEC_ALARM, 0x20);
	wr(B, 0x22);
	for (unsigned i = 0; i < 10; i++) {
		chip_run(vm, 60 * NSEC_PER_SEC);
		n += (rd(C) & 0xa0) == 0xa0;
	}
	assert_int_equal(n, 10);
	wr(SEC_ALARM, 0xff);
	for (n = 0; n < 10; n++) {
		chip_run(vm, NSEC_PER_SEC);
		assert_true(rd(C) & 0x20);
	}
	/* A time that never is gives none, and costs nothing. */
	wr(SEC_ALARM, 0x7f);
	rd(C);
	chip_run(vm, 100000 * NSEC_PER_SEC);
	assert_false(rd(C) & 0x20);
	assert_int_equal(timers_next_due(vm), INT64_MAX);
}

static void alarm_pm_and_polled(void **state)
{
	wr(B, 0x00);				/* 12 hours, BCD */
	wr(HOUR_ALARM, 0x81);
	wr(MIN_ALARM, 0x00);
	wr(SEC_ALARM, 0x00);
	chip_run(vm, 2 * 3600 * NSEC_PER_SEC);
	assert_false(rd(C) & 0x20);
	chip_run(vm, 12 * 3600 * NSEC_PER_SEC);
	assert_int_equal(rd(C) & 0xa0, 0x20);
}

/* Each of the eight ways to care about hour, minute and second. */
static void alarm_every_combination_of_dont_care(void **state)
{
	for (unsigned any = 0; any < 8; any++) {
		int64_t due;
		unsigned s = any & 1 ? 0 : 15, m = any & 2 ? 0 : 30, h = any & 4 ? 0 : 1;

		set_clock(0x20, 0x26, 0x01, 0x01, 5, 0x00, 0x00, 0x00);
		wr(SEC_ALARM, any & 1 ? 0xc0 + 9 * any : 0x15);
		wr(MIN_ALARM, any & 2 ? 0xff - any : 0x30);
		wr(HOUR_ALARM, any & 4 ? 0xc1 + any : 0x01);
		/* The first second that fits, and no earlier one; 00:00:00 itself has begun. */
		due = h * 3600 + m * 60 + s;
		if (any == 7)
			due = 1;
		else if (any == 6)
			due = 15;
		else if (any == 5)
			due = 1800;
		rd(C);
		wr(B, 0x22);
		irq8.rises = 0;
		chip_run(vm, due * NSEC_PER_SEC - 1);
		assert_int_equal(irq8.rises, 0);
		chip_run(vm, 1);
		assert_int_equal(irq8.rises, 1);
		assert_int_equal(rd(C) & 0xa0, 0xa0);
		wr(B, 0x02);
	}
}

static void alarm_in_every_mode(void **state)
{
	static const struct { uint8_t b, alarm, hour; } table[] = {
		{ 0x02, 0x17, 0x16 }, { 0x06, 17, 16 }, { 0x00, 0x85, 0x84 }, { 0x04, 0x85, 0x84 },
		{ 0x00, 0x12, 0x91 }, { 0x04, 0x8c, 0x0b }, { 0x04, 0x0c, 0x8b }, { 0x02, 0x00, 0x23 },
	};

	for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
		wr(B, 0x80 | table[i].b);
		wr(HOUR, table[i].hour);
		wr(MIN, table[i].b & 4 ? 59 : 0x59);
		wr(SEC, table[i].b & 4 ? 59 : 0x59);
		wr(HOUR_ALARM, table[i].alarm);
		wr(MIN_ALARM, 0);
		wr(SEC_ALARM, 0);
		wr(B, 0x20 | table[i].b);
		rd(C);
		chip_run(vm, NSEC_PER_SEC);
		assert_int_equal(rd(C) & 0x20, 0x20);
		assert_int_equal(rd(HOUR), table[i].alarm);
	}
}

/* Flags tell what happened, enabled or not, at every rate. */
static void periodic_flag_without_its_interrupt(void **state)
{
	for (unsigned rs = 1; rs < 16; rs++) {
		unsigned hz = rs < 3 ? 512u >> rs : 65536u >> rs;

		wr(A, 0x20 | rs);
		rd(C);
		chip_run(vm, (NSEC_PER_SEC + hz - 1) / hz);
		assert_int_equal(rd(C) & 0x40, 0x40);
		assert_int_equal(irq8.rises, 0);
	}
	wr(A, 0x20);
	rd(C);
	chip_run(vm, 10 * NSEC_PER_SEC);
	assert_int_equal(rd(C) & 0x40, 0);
}

/* SET in the middle of an update: it is not in progress any more, and the time stands. */
static void set_during_an_update(void **state)
{
	chip_run(vm, 999 * MS);
	assert_true(rd(A) & 0x80);
	wr(B, 0x82);
	assert_false(rd(A) & 0x80);
	chip_run(vm, 10 * MS);
	expect_time(0x00, 0x00, 0x00);
	assert_false(rd(C) & 0x10);
	wr(A, 0xa6);				/* UIP is read-only */
	assert_int_equal(rd(A), 0x26);
}

static void leap_years_and_centuries(void **state)
{
	static const struct { uint8_t century, year; bool leap; } table[] = {
		{ 0x19, 0x00, false }, { 0x20, 0x00, true }, { 0x20, 0x24, true }, { 0x20, 0x26, false },
		{ 0x20, 0x96, true }, { 0x21, 0x00, false }, { 0x24, 0x00, true }, { 0x99, 0x96, true },
	};

	for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
		set_clock(table[i].century, table[i].year, 0x02, 0x28, 1, 0x23, 0x59, 0x59);
		chip_run(vm, NSEC_PER_SEC);
		expect_date(table[i].century, table[i].year, table[i].leap ? 0x02 : 0x03,
			    table[i].leap ? 0x29 : 0x01);
	}
	set_clock(0x20, 0x99, 0x12, 0x31, 5, 0x23, 0x59, 0x59);
	chip_run(vm, NSEC_PER_SEC);
	expect_date(0x21, 0x00, 0x01, 0x01);
	assert_int_equal(rd(WEEKDAY), 6);
}

static unsigned alarms;

static void count_alarm(void *opaque)
{
	++*(unsigned *)opaque;
}

/* What ACPI's RTC_STS latches: the alarm's interrupt, once, however it came to be. */
static void alarm_is_told(void **state)
{
	alarms = 0;
	mc146818_connect_alarm(rtc, count_alarm, &alarms);
	wr(SEC_ALARM, 0x05);
	wr(MIN_ALARM, 0xff);
	wr(HOUR_ALARM, 0xff);
	chip_run(vm, 10 * NSEC_PER_SEC);
	assert_int_equal(alarms, 0);		/* the flag alone is no interrupt */
	wr(B, 0x22);
	assert_int_equal(alarms, 1);		/* enabled while the flag stood */
	wr(B, 0x22);
	chip_run(vm, 120 * NSEC_PER_SEC);
	assert_int_equal(alarms, 1);		/* and nobody has read C */
	chip_save_restore(vm->devices);
	assert_int_equal(alarms, 1);
	rd(C);
	chip_run(vm, 60 * NSEC_PER_SEC);
	assert_int_equal(alarms, 2);
	rd(C);
	/* Another source holds the line: the alarm is told all the same, and in time. */
	wr(B, 0x32);
	chip_run(vm, 2 * NSEC_PER_SEC);
	assert_int_equal(irq8.level, 1);
	assert_int_equal(alarms, 2);
	chip_save_restore(vm->devices);
	chip_run(vm, 60 * NSEC_PER_SEC);
	assert_int_equal(alarms, 3);
	assert_int_equal(rd(C) & 0xb0, 0xb0);
}

static void memory_is_carried_by_content(void **state)
{
	for (unsigned i = 0x0e; i < 0x80; i++)
		if (i != CENTURY)
			wr((uint8_t)i, (uint8_t)(i * 7 + 1));
	for (unsigned i = 0; i < 0x80; i++) {
		out8(vm, 0x72, (uint8_t)i);
		out8(vm, 0x73, (uint8_t)(i * 5 + 3));
	}
	out8(vm, 0x70, 0xa0);
	chip_save_restore(vm->devices);
	assert_true(mc146818_nmi_masked(rtc));
	assert_int_equal(in8(vm, 0x71), 0x20 * 7 + 1);	/* the index is carried, too */
	assert_int_equal(in8(vm, 0x73), (0x7f * 5 + 3) & 0xff);
	for (unsigned i = 0x0e; i < 0x80; i++)
		if (i != CENTURY)
			assert_int_equal(rd((uint8_t)i), (i * 7 + 1) & 0xff);
}

static void ram_banks_and_nmi_mask(void **state)
{
	wr(0x0e, 0x12);
	wr(0x7f, 0x34);
	out8(vm, 0x72, 0x7f);
	out8(vm, 0x73, 0x56);
	assert_int_equal(rd(0x7f), 0x34);
	assert_int_equal(in8(vm, 0x73), 0x56);
	assert_int_equal(in8(vm, 0x70), 0xff);	/* write-only */
	assert_false(mc146818_nmi_masked(rtc));
	out8(vm, 0x70, 0x8e);
	assert_true(mc146818_nmi_masked(rtc));
	assert_int_equal(in8(vm, 0x71), 0x12);	/* bit 7 is no part of the index */
	wr(D, 0x00);
	assert_int_equal(rd(D), 0x80);
}

/* The RESET pin clears enables and flags; time and memory are on the battery. */
static void reset_keeps_the_battery(void **state)
{
	set_clock(0x20, 0x30, 0x05, 0x06, 2, 0x07, 0x08, 0x09);
	wr(0x20, 0xab);
	wr(B, 0x72);
	chip_run(vm, NSEC_PER_SEC);
	assert_int_equal(irq8.level, 1);
	wr(B, 0xf2);				/* even if it happens while time is being set */
	vm->devices->type->reset(vm->devices);
	assert_int_equal(irq8.level, 0);
	assert_int_equal(rd(B), 0x02);
	assert_int_equal(rd(C), 0x00);
	assert_int_equal(rd(0x20), 0xab);
	expect_date(0x20, 0x30, 0x05, 0x06);
	expect_time(0x07, 0x08, 0x10);
}

/* Known bugs of others: the clock steps back after a restore, timers are not armed again. */
static void save_restore(void **state)
{
	set_clock(0x20, 0x27, 0x05, 0x06, 2, 0x07, 0x08, 0x09);
	chip_run(vm, 250 * MS);
	wr(B, 0x12);
	rd(C);
	chip_save_restore(vm->devices);
	assert_int_equal(irq8.rises, 0);
	expect_time(0x07, 0x08, 0x09);
	assert_int_equal(rd(WEEKDAY), 2);
	chip_run(vm, 750 * MS);
	assert_int_equal(irq8.rises, 1);
	chip_save_restore(vm->devices);		/* with the line up */
	assert_int_equal(irq8.rises, 1);
	assert_int_equal(rd(C) & 0x90, 0x90);
	assert_int_equal(irq8.level, 0);
	wr(B, 0x82);				/* while it is being set */
	wr(SEC, 0x44);
	chip_save_restore(vm->devices);
	chip_run(vm, 5 * NSEC_PER_SEC);
	wr(B, 0x02);
	expect_time(0x07, 0x08, 0x44);
}

static void calendar(void **state)
{
	static const struct { int64_t s; struct rtc_time t; } table[] = {
		{ 0, { 0, 0, 0, 1, 1, 1970, 4 } },
		{ -1, { 59, 59, 23, 31, 12, 1969, 3 } },
		{ 951782400, { 0, 0, 0, 29, 2, 2000, 2 } },
		{ 4107542399, { 59, 59, 23, 28, 2, 2100, 0 } },
		{ 253402300799, { 59, 59, 23, 31, 12, 9999, 5 } },
		{ -62167219200, { 0, 0, 0, 1, 1, 0, 6 } },
	};

	for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
		struct rtc_time t;

		rtc_from_seconds(table[i].s, &t);
		assert_memory_equal(&t, &table[i].t, sizeof(t));
		assert_int_equal(rtc_to_seconds(&t), table[i].s);
	}
	/* Every day of a whole cycle of 400 years follows the one before it. */
	for (int64_t day = 0, last = 4; day < 146097; day++) {
		struct rtc_time t;

		rtc_from_seconds(day * 86400, &t);
		assert_int_equal(rtc_to_seconds(&t), day * 86400);
		assert_int_equal(t.weekday, last);
		last = (last + 1) % 7;
	}
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(starts_with_the_wall_clock),
		T(binary_and_12_hours),
		T(set_and_go_on),
		T(set_stops_updates),
		T(divider_reset_half_a_second),
		T(write_without_set),
		T(nonsense_in_every_register),
		T(update_in_progress),
		T(update_ended_interrupt),
		T(flags_without_interrupts),
		T(periodic_rates),
		T(alarm_exact),
		T(alarm_dont_care),
		T(alarm_pm_and_polled),
		T(alarm_every_combination_of_dont_care),
		T(alarm_in_every_mode),
		T(periodic_flag_without_its_interrupt),
		T(set_during_an_update),
		T(leap_years_and_centuries),
		T(alarm_is_told),
		T(memory_is_carried_by_content),
		T(ram_banks_and_nmi_mask),
		T(reset_keeps_the_battery),
		T(save_restore),
		cmocka_unit_test(calendar),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
