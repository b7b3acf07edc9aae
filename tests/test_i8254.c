/* The 8254 against its data sheet (Intel 231164), driven by registers and the clock alone. */
#include "chip.h"

#include "chipset/i8254.h"

#define HZ I8254_HZ

static struct vm *vm;
static struct i8254 *pit;
static struct chip_wire irq0;

static int setup(void **state)
{
	struct skep_error e;

	vm = chip_vm();
	pit = i8254_create(vm, &e);
	assert_non_null(pit);
	i8254_connect_irq(pit, chip_wire(&irq0, vm));
	/* Away from tick 0, where an error by wrapping could hide, and from a tick's edge. */
	chip_run_to(vm, clock_ticks_to_ns(100000, HZ));
	return 0;
}

static int teardown(void **state)
{
	chip_vm_end(vm);
	return 0;
}

static uint64_t tick(void) { return clock_ticks(chip_now(vm), HZ); }
static void to_tick(uint64_t t) { chip_run_to(vm, clock_ticks_to_ns(t, HZ)); }
static void ticks(uint64_t n) { to_tick(tick() + n); }

static void control(uint8_t v) { out8(vm, 0x43, v); }

static void count16(unsigned ch, uint16_t n)
{
	out8(vm, 0x40 + ch, n & 0xff);
	out8(vm, 0x40 + ch, n >> 8);
}

static unsigned read16(unsigned ch)
{
	unsigned lo = in8(vm, 0x40 + ch);

	return lo | in8(vm, 0x40 + ch) << 8;
}

/* Counter latch command, then both bytes. */
static unsigned latched(unsigned ch)
{
	control(ch << 6);
	return read16(ch);
}

static uint8_t status(unsigned ch)
{
	control(0xe0 | 2 << ch);
	return in8(vm, 0x40 + ch);
}

static bool out(unsigned ch) { return status(ch) & 0x80; }
static void gate2(bool on) { out8(vm, 0x61, on); }

/* "OUT will not go high until N + 1 clock pulses after the initial count is written." */
static void mode0_interrupt_on_terminal_count(void **state)
{
	control(0x30);
	assert_false(out(0));
	count16(0, 10);
	ticks(10);
	assert_false(out(0));
	assert_int_equal(irq0.rises, 0);
	ticks(1);
	assert_true(out(0));
	assert_int_equal(irq0.rises, 1);
	/* It stays high and the counter goes on through zero, without another interrupt. */
	ticks(5);
	assert_int_equal(latched(0), 0xfffb);
	ticks(70000);
	assert_true(out(0));
	assert_int_equal(irq0.rises, 1);
}

static void mode0_new_count_restarts(void **state)
{
	control(0x30);
	count16(0, 100);
	ticks(50);
	out8(vm, 0x40, 20);		/* first byte: counting stops */
	ticks(500);
	assert_false(out(0));
	assert_int_equal(irq0.rises, 0);
	out8(vm, 0x40, 0);
	ticks(20);
	assert_false(out(0));
	ticks(1);
	assert_true(out(0));
	count16(0, 5);			/* and OUT goes low again at once */
	assert_false(out(0));
	ticks(6);
	assert_true(out(0));
	assert_int_equal(irq0.rises, 2);
}

static void mode0_gate_suspends(void **state)
{
	control(0xb0);
	gate2(true);
	count16(2, 100);
	ticks(41);			/* loaded by the first pulse: 40 counted */
	assert_int_equal(latched(2), 60);
	gate2(false);
	ticks(1000);
	assert_int_equal(latched(2), 60);
	gate2(true);
	ticks(59);
	assert_false(out(2));
	ticks(1);
	assert_true(out(2));
}

/* "If GATE is low when the count is written it is loaded all the same; counting waits." */
static void mode0_written_while_gate_low(void **state)
{
	gate2(false);
	control(0xb0);
	count16(2, 30);
	ticks(100);
	assert_int_equal(latched(2), 30);
	gate2(true);
	ticks(29);
	assert_false(out(2));
	ticks(1);
	assert_true(out(2));
}

static void mode1_one_shot(void **state)
{
	gate2(false);
	control(0xb2);
	assert_true(out(2));
	count16(2, 50);
	ticks(200);
	assert_true(out(2));		/* nothing without a trigger */
	gate2(true);
	assert_true(out(2));
	ticks(1);
	assert_false(out(2));
	ticks(49);
	assert_false(out(2));
	ticks(1);
	assert_true(out(2));
}

static void mode1_retriggerable(void **state)
{
	gate2(false);
	control(0xb2);
	count16(2, 50);
	gate2(true);
	ticks(31);
	assert_int_equal(latched(2), 20);
	gate2(false);			/* the gate's level does not matter, its edge does */
	ticks(5);
	assert_int_equal(latched(2), 15);
	gate2(true);
	assert_false(out(2));		/* no glitch */
	ticks(50);
	assert_false(out(2));
	ticks(1);
	assert_true(out(2));
	/* A new count is for the next trigger. */
	gate2(false);
	gate2(true);
	ticks(10);
	count16(2, 5);
	ticks(30);
	assert_false(out(2));
	ticks(11);
	assert_true(out(2));
	gate2(false);
	gate2(true);
	ticks(5);
	assert_false(out(2));
	ticks(1);
	assert_true(out(2));
}

static void mode2_rate_generator(void **state)
{
	uint64_t start = tick();

	control(0x34);
	assert_true(out(0));
	count16(0, 1000);
	to_tick(start + 1 + 999 - 1);
	assert_int_equal(latched(0), 2);
	assert_true(out(0));
	ticks(1);
	assert_int_equal(latched(0), 1);
	assert_false(out(0));		/* low for one clock, at 1 */
	ticks(1);
	assert_int_equal(latched(0), 1000);
	assert_true(out(0));
	assert_int_equal(irq0.rises, 2);	/* the control word took OUT up, then this */
	/* Exactly every 1000 ticks, for long. */
	to_tick(start + 1 + 1000 * 5000ull);
	assert_int_equal(irq0.rises, 1 + 5000);
	assert_int_equal(irq0.last_rise, clock_ticks_to_ns(start + 1 + 1000 * 5000ull, HZ));
}

/* "GATE = 0 disables counting"; in mode 3 it takes OUT high at once, and a rise starts a new cycle. */
static void mode3_gate(void **state)
{
	control(0xb6);
	gate2(true);
	count16(2, 100);
	ticks(1 + 60);
	assert_false(out(2));
	gate2(false);
	assert_true(out(2));
	ticks(1000);
	assert_true(out(2));
	gate2(true);
	ticks(1 + 49);
	assert_true(out(2));
	ticks(1);
	assert_false(out(2));
	ticks(50);
	assert_true(out(2));
}

/* The gate stops mode 4's count and lets it go on; it does not touch OUT. */
static void mode4_gate_suspends(void **state)
{
	control(0xb8);
	gate2(true);
	count16(2, 50);
	ticks(31);
	assert_int_equal(latched(2), 20);
	gate2(false);
	ticks(500);
	assert_true(out(2));
	assert_int_equal(latched(2), 20);
	gate2(true);
	ticks(19);
	assert_true(out(2));
	ticks(1);
	assert_false(out(2));
	ticks(1);
	assert_true(out(2));
}

/* "If a new count is written during counting, it will be loaded on the next CLK pulse." */
static void mode4_new_count_retriggers(void **state)
{
	control(0x38);
	count16(0, 50);
	ticks(30);
	irq0.rises = 0;
	out8(vm, 0x40, 40);
	ticks(1);
	assert_int_equal(latched(0), 20);	/* the first byte has no effect */
	out8(vm, 0x40, 0);
	ticks(40);
	assert_true(out(0));
	ticks(1);
	assert_false(out(0));
	ticks(1);
	assert_int_equal(irq0.rises, 1);
}

/* Mode 5 starts anew with each trigger; a new count waits for one. */
static void mode5_retrigger_and_new_count(void **state)
{
	gate2(false);
	control(0xba);
	count16(2, 20);
	gate2(true);
	ticks(11);
	assert_int_equal(latched(2), 10);
	gate2(false);
	gate2(true);
	ticks(20);
	assert_true(out(2));
	count16(2, 5);
	ticks(1);
	assert_false(out(2));			/* the running one, to its end */
	ticks(100);
	assert_true(out(2));
	gate2(false);
	gate2(true);
	ticks(5);
	assert_true(out(2));
	ticks(1);
	assert_false(out(2));
}

/* In every mode 0 is the largest count, and BCD's is 10000. */
static void count_zero_in_every_mode(void **state)
{
	for (unsigned bcd = 0; bcd < 2; bcd++)
		for (unsigned mode = 0; mode < 6; mode++) {
			unsigned n = bcd ? 10000 : 65536, first = mode == 3 ? n / 2 : mode == 2 ? n - 1 : n;
			bool before;

			gate2(false);
			control(0xb0 | mode << 1 | bcd);
			if (mode != 1 && mode != 5)
				gate2(true);
			count16(2, 0);
			gate2(true);
			ticks(mode == 1 ? 1 : 0);
			before = out(2);
			ticks(first + (mode != 1) - 1);
			assert_int_equal(out(2), before);
			ticks(1);
			assert_int_equal(out(2), !before);
		}
}

static void bcd_in_mode_3(void **state)
{
	control(0x37);
	count16(0, 0x0100);
	ticks(1);
	for (unsigned i = 0; i < 200; i++) {
		unsigned v = 100 - 2 * (i % 50);

		assert_int_equal(out(0), i % 100 < 50);
		assert_int_equal(latched(0), v / 100 << 8 | v / 10 % 10 << 4 | v % 10);
		ticks(1);
	}
}

/* Status and count of one counter, latched together or apart, each only once until it is read. */
static void read_back_repeated(void **state)
{
	control(0x34);
	count16(0, 1000);
	ticks(1 + 100);
	control(0xd2);				/* count only */
	ticks(10);
	control(0xe2);				/* status only: it is read first all the same */
	ticks(10);
	control(0xc2);				/* both again: ignored */
	assert_int_equal(in8(vm, 0x40), 0xb4);
	assert_int_equal(read16(0), 900);
	assert_int_equal(read16(0), 880);
	/* The status is of when it was latched. */
	count16(0, 50);
	control(0xe2);
	ticks(2000);
	control(0xe2);
	assert_int_equal(in8(vm, 0x40), 0x80 | 0x40 | 0x34);
	assert_int_equal(status(0) & 0x40, 0);
	/* A control word for the counter throws away what was latched. */
	control(0xc2);
	control(0x30);
	assert_int_equal(status(0), 0x40 | 0x30);
}

/* The latch command in the middle of a two-byte read does not break its phase. */
static void latch_between_two_bytes(void **state)
{
	control(0x34);
	count16(0, 0x1234);
	ticks(1);
	assert_int_equal(in8(vm, 0x40), 0x34);
	control(0x00);
	assert_int_equal(in8(vm, 0x40), 0x12);	/* the high byte is due */
	/* Nor do bytes that are written between those that are read. */
	control(0x34);
	count16(0, 0x1234);
	ticks(1);
	assert_int_equal(in8(vm, 0x40), 0x34);
	out8(vm, 0x40, 0x78);
	assert_int_equal(in8(vm, 0x40), 0x12);
	out8(vm, 0x40, 0x56);
	ticks(0x1234);
	assert_int_equal(latched(0), 0x5678);
}

/* A new count does not disturb the cycle that runs. */
static void mode2_new_count_after_cycle(void **state)
{
	control(0x34);
	count16(0, 100);
	ticks(1 + 30);
	count16(0, 10);
	assert_true(status(0) & 0x40);	/* null count: not loaded yet */
	assert_int_equal(latched(0), 70);
	ticks(69);
	assert_int_equal(latched(0), 1);
	ticks(1);
	assert_int_equal(latched(0), 10);
	assert_false(status(0) & 0x40);
	irq0.rises = 0;
	ticks(100);
	assert_int_equal(irq0.rises, 10);
}

static void mode2_gate_synchronizes(void **state)
{
	control(0xb4);
	gate2(true);
	count16(2, 100);
	ticks(1 + 99);
	assert_false(out(2));
	gate2(false);			/* "a low GATE during the pulse sets OUT high immediately" */
	assert_true(out(2));
	ticks(500);
	assert_true(out(2));
	assert_int_equal(latched(2), 1);
	gate2(true);
	ticks(1);
	assert_int_equal(latched(2), 100);
	ticks(99);
	assert_false(out(2));
}

static void mode3_square_even(void **state)
{
	control(0x36);
	count16(0, 8);
	ticks(1);
	for (unsigned cycle = 0; cycle < 3; cycle++)
		for (unsigned i = 0; i < 8; i++) {
			assert_int_equal(out(0), i < 4);
			assert_int_equal(latched(0), 8 - 2 * (i % 4));
			ticks(1);
		}
}

/* Figure 18 of the data sheet: 5 counts 4 2 0 4 2. */
static void mode3_square_odd(void **state)
{
	static const unsigned value[5] = { 4, 2, 0, 4, 2 };

	control(0x36);
	count16(0, 5);
	ticks(1);
	for (unsigned i = 0; i < 15; i++) {
		assert_int_equal(out(0), i % 5 < 3);
		assert_int_equal(latched(0), value[i % 5]);
		ticks(1);
	}
}

/* A known bug of others: mode 3 gave one interrupt and no more. */
static void mode3_fires_for_ever(void **state)
{
	control(0x36);
	count16(0, 11932);		/* 100 Hz */
	irq0.rises = irq0.falls = 0;
	chip_run(vm, 10 * NSEC_PER_SEC);
	assert_in_range(irq0.rises, 999, 1000);
	assert_in_range(irq0.falls, 999, 1000);
}

static void mode3_new_count_after_half(void **state)
{
	control(0x36);
	count16(0, 100);
	ticks(1 + 20);
	count16(0, 40);
	ticks(29);
	assert_true(out(0));
	ticks(1);
	assert_false(out(0));		/* the high half was the old one's, */
	ticks(19);
	assert_false(out(0));
	ticks(1);
	assert_true(out(0));		/* the low half is the new one's */
	ticks(20);
	assert_false(out(0));
	count16(0, 60);
	ticks(20);
	assert_true(out(0));
	ticks(29);
	assert_true(out(0));
	ticks(1);
	assert_false(out(0));
}

static void mode4_software_strobe(void **state)
{
	control(0x38);
	assert_true(out(0));
	irq0.rises = 0;
	count16(0, 10);
	ticks(10);
	assert_true(out(0));
	ticks(1);			/* N + 1 pulses after the write */
	assert_false(out(0));
	ticks(1);
	assert_true(out(0));
	assert_int_equal(irq0.rises, 1);
	ticks(200000);
	assert_int_equal(irq0.rises, 1);	/* once only */
	count16(0, 10);
	ticks(12);
	assert_int_equal(irq0.rises, 2);
}

static void mode5_hardware_strobe(void **state)
{
	gate2(false);
	control(0xba);
	count16(2, 10);
	ticks(100);
	assert_true(out(2));
	gate2(true);
	ticks(10);
	assert_true(out(2));
	ticks(1);
	assert_false(out(2));
	ticks(1);
	assert_true(out(2));
	gate2(false);
	gate2(true);			/* again */
	ticks(11);
	assert_false(out(2));
}

/* A known bug of others: a count of 0 is 65536, not 65535. */
static void count_zero_is_65536(void **state)
{
	uint64_t start = tick();

	control(0x34);
	count16(0, 0);
	irq0.rises = 0;
	to_tick(start + 1 + 65535);
	assert_int_equal(irq0.rises, 0);
	ticks(1);
	assert_int_equal(irq0.rises, 1);
	to_tick(start + 1 + 10 * 65536ull);
	assert_int_equal(irq0.rises, 10);
	assert_int_equal(latched(0), 0);	/* just loaded: reads as 0 */
	ticks(1);
	assert_int_equal(latched(0), 0xffff);
}

static void bcd_counts_in_decimal(void **state)
{
	control(0x31);
	count16(0, 0x1000);
	ticks(1 + 1);
	assert_int_equal(latched(0), 0x0999);
	ticks(899);
	assert_int_equal(latched(0), 0x0100);
	ticks(100);
	assert_true(out(0));
	ticks(1);
	assert_int_equal(latched(0), 0x9999);
	/* 0 is 10000. */
	control(0x35);
	count16(0, 0);
	irq0.rises = 0;
	ticks(1 + 10000);
	assert_int_equal(irq0.rises, 1);
}

/* A known bug of others: only two-byte access worked. */
static void access_low_only_and_high_only(void **state)
{
	control(0x14);
	out8(vm, 0x40, 50);
	irq0.rises = 0;
	ticks(1 + 500);
	assert_int_equal(irq0.rises, 10);
	assert_int_equal(in8(vm, 0x40), 50);
	ticks(1);
	assert_int_equal(in8(vm, 0x40), 49);	/* every read is the low byte */
	control(0x00);
	ticks(7);
	assert_int_equal(in8(vm, 0x40), 49);	/* latched */
	assert_int_equal(in8(vm, 0x40), 42);

	control(0x24);
	out8(vm, 0x40, 2);		/* 0x200 */
	irq0.rises = 0;
	ticks(1 + 512 * 4);
	assert_int_equal(irq0.rises, 4);
	assert_int_equal(in8(vm, 0x40), 2);
	ticks(1);
	assert_int_equal(in8(vm, 0x40), 1);
}

static void latch_holds_until_read(void **state)
{
	control(0x34);
	count16(0, 1000);
	ticks(1 + 100);
	control(0x00);
	ticks(50);
	control(0x00);			/* ignored: the first is still there */
	ticks(50);
	assert_int_equal(read16(0), 900);
	assert_int_equal(read16(0), 800);	/* now it follows the counter */
}

static void latch_of_one_counter_leaves_others(void **state)
{
	control(0x34);
	count16(0, 1000);
	control(0x74);
	count16(1, 2000);
	ticks(1 + 10);
	control(0x40);
	ticks(10);
	assert_int_equal(latched(0), 980);
	assert_int_equal(read16(1), 1990);
}

static void read_back_latches_several(void **state)
{
	gate2(true);
	control(0x34);
	count16(0, 1000);
	control(0xb6);
	count16(2, 3000);
	ticks(1 + 100);
	control(0xc0 | 0x0a);		/* count and status of 0 and 2 */
	ticks(77);
	assert_int_equal(in8(vm, 0x40), 0x80 | 0x34);
	assert_int_equal(read16(0), 900);
	assert_int_equal(in8(vm, 0x42), 0x80 | 0x36);
	assert_int_equal(read16(2), 2800);	/* mode 3 counts by two */
}

static void status_null_count(void **state)
{
	control(0x34);
	assert_int_equal(status(0), 0x80 | 0x40 | 0x34);
	count16(0, 100);
	assert_true(status(0) & 0x40);	/* written; loaded with the next pulse */
	ticks(1);
	assert_int_equal(status(0), 0x80 | 0x34);
}

static void modes_6_and_7_are_2_and_3(void **state)
{
	control(0x3c);
	count16(0, 10);
	irq0.rises = 0;
	ticks(1 + 100);
	assert_int_equal(irq0.rises, 10);
	assert_int_equal(status(0) & 0x3f, 0x3c);
	control(0x3e);
	count16(0, 4);
	ticks(1 + 2);
	assert_false(out(0));
}

/* A period that a real chip cannot make must not stop the machine. */
static void count_one_in_mode_2_and_3(void **state)
{
	for (uint8_t mode = 0x34; mode <= 0x36; mode += 2) {
		control(mode);
		count16(0, 1);
		irq0.rises = 0;
		ticks(10000);
		assert_int_equal(irq0.rises, 0);
		count16(0, 10);
		ticks(2 + 100);
		assert_in_range(irq0.rises, 9, 11);
	}
}

static void port61_gate_output_refresh(void **state)
{
	unsigned toggles = 0, last;
	int64_t begin;

	control(0xb0);
	out8(vm, 0x61, 0x01);
	count16(2, 1000);
	assert_int_equal(in8(vm, 0x61) & 0x2f, 0x01);
	ticks(1001);
	assert_int_equal(in8(vm, 0x61) & 0x2f, 0x21);
	out8(vm, 0x61, 0xfe);		/* gate off; only bits 3:0 are writable */
	assert_int_equal(in8(vm, 0x61) & 0xcf, 0x0e);
	/* The refresh bit toggles every 15.085 us. */
	begin = chip_now(vm);
	last = in8(vm, 0x61) & 0x10;
	while (chip_now(vm) < begin + 10000000) {
		chip_run(vm, 1000);
		if ((in8(vm, 0x61) & 0x10) != last)
			toggles++;
		last = in8(vm, 0x61) & 0x10;
	}
	assert_in_range(toggles, 660, 666);
}

/* The host was late by many periods: one edge, not none, and the phase is kept. */
static void late_host_keeps_an_edge_and_the_phase(void **state)
{
	uint64_t start = tick();

	control(0x34);
	count16(0, 1000);
	to_tick(start + 1 + 10);
	irq0.rises = 0;
	chip_jump(vm, clock_ticks_to_ns(10500, HZ));
	timers_run(vm, chip_now(vm));
	assert_int_equal(irq0.rises, 1);
	irq0.rises = 0;
	to_tick(start + 1 + 20000);
	assert_int_equal(irq0.rises, 10);
	assert_int_equal(irq0.last_rise, clock_ticks_to_ns(start + 1 + 20000, HZ));
}

/* Known bugs of others: timers not re-armed, latch not saved. */
static void save_restore_in_flight(void **state)
{
	struct device *d = vm->devices;

	control(0x34);
	count16(0, 1000);
	ticks(1 + 400);
	control(0x00);
	assert_int_equal(in8(vm, 0x40), 600 & 0xff);	/* half of the latch is read */
	out8(vm, 0x40, 50);				/* and half of a count is written */
	irq0.rises = 0;
	chip_save_restore(d);
	assert_int_equal(irq0.rises, 0);
	assert_int_equal(in8(vm, 0x40), 600 >> 8);
	out8(vm, 0x40, 0);
	ticks(600);
	assert_int_equal(irq0.rises, 1);
	assert_int_equal(latched(0), 50);
	for (unsigned mode = 0; mode < 6; mode++) {
		control(0x30 | mode << 1);
		count16(0, 77);
		ticks(30);
		chip_save_restore(d);
		irq0.rises = 0;
		ticks(77 * 3);
		assert_int_equal(irq0.rises, mode == 1 || mode == 5 ? 0 : mode == 2 || mode == 3 ? 3 : 1);
	}
}

static void refuses_states_that_cannot_be(void **state)
{
	struct device *d = vm->devices;
	void *model = calloc(1, d->type->state->model_size);
	const struct state_field *f = d->type->state->fields;
	struct skep_error e;

	/* The first channel's count: found in the table, as a loader finds it. */
	for (size_t i = 0; i < f->sub->nfields; i++) {
		if (strcmp(f->sub->fields[i].name, "count"))
			continue;
		d->type->export(d, model);
		store32((char *)model + f->offset + f->sub->fields[i].offset, 65537);
		assert_int_not_equal(d->type->validate(d, model, &e), 0);
	}
	free(model);
}

static void reset_is_one_state(void **state)
{
	struct device *d = vm->devices;
	size_t size = d->type->state->model_size;
	void *a = calloc(1, size), *b = calloc(1, size);

	d->type->reset(d);
	d->type->export(d, a);
	control(0x36);
	count16(0, 1234);
	control(0x00);
	in8(vm, 0x40);
	out8(vm, 0x61, 3);
	d->type->reset(d);
	d->type->export(d, b);
	assert_memory_equal(a, b, size);
	assert_int_equal(irq0.level, 0);
	chip_run(vm, NSEC_PER_SEC);
	assert_int_equal(timers_next_due(vm), INT64_MAX);
	free(a);
	free(b);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(mode0_interrupt_on_terminal_count),
		T(mode0_new_count_restarts),
		T(mode0_gate_suspends),
		T(mode0_written_while_gate_low),
		T(mode1_one_shot),
		T(mode1_retriggerable),
		T(mode2_rate_generator),
		T(mode2_new_count_after_cycle),
		T(mode2_gate_synchronizes),
		T(mode3_square_even),
		T(mode3_square_odd),
		T(mode3_fires_for_ever),
		T(mode3_new_count_after_half),
		T(mode4_software_strobe),
		T(mode5_hardware_strobe),
		T(mode3_gate),
		T(mode4_gate_suspends),
		T(mode4_new_count_retriggers),
		T(mode5_retrigger_and_new_count),
		T(count_zero_in_every_mode),
		T(bcd_in_mode_3),
		T(read_back_repeated),
		T(latch_between_two_bytes),
		T(count_zero_is_65536),
		T(bcd_counts_in_decimal),
		T(access_low_only_and_high_only),
		T(latch_holds_until_read),
		T(latch_of_one_counter_leaves_others),
		T(read_back_latches_several),
		T(status_null_count),
		T(modes_6_and_7_are_2_and_3),
		T(count_one_in_mode_2_and_3),
		T(port61_gate_output_refresh),
		T(late_host_keeps_an_edge_and_the_phase),
		T(save_restore_in_flight),
		T(refuses_states_that_cannot_be),
		T(reset_is_one_state),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
