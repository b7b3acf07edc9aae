/*
 * The HPET against IA-PC HPET specification 1.0a, driven by registers and the clock alone; and
 * legacy replacement on a whole board.
 */
#include "board.h"

#include "chipset/hpet.h"

#define TICK		(NSEC_PER_SEC / HPET_HZ)

#define ID		0x000
#define CONF		0x010
#define STATUS		0x020
#define COUNTER		0x0f0
#define TN_CONF(n)	(0x100 + 0x20 * (n))
#define TN_COMP(n)	(0x108 + 0x20 * (n))
#define TN_FSB(n)	(0x110 + 0x20 * (n))

#define ENABLE		1u
#define LEGACY		2u
#define LEVEL		0x0002u
#define INT_ENABLE	0x0004u
#define PERIODIC	0x0008u
#define VAL_SET		0x0040u
#define MODE32		0x0100u
#define ROUTE(pin)	((pin) << 9)
#define FSB_ENABLE	0x4000u

static struct vm *vm;
static struct hpet *hpet;
static struct chip_wire pin[HPET_TIMERS][HPET_PINS], legacy[2];

static struct { unsigned n; uint64_t address; uint32_t data; int64_t at; } message;
static struct { unsigned n; bool on, restored; } replacement;

static void take_message(struct vm *from, uint64_t address, uint32_t data)
{
	message.n++;
	message.address = address;
	message.data = data;
	message.at = chip_now(from);
}

static void take_replacement(void *opaque, bool on, bool restored)
{
	if (on != replacement.on)
		replacement.n++;
	replacement.on = on;
	replacement.restored = restored;
}

static int setup(void **state)
{
	struct skep_error e;

	vm = chip_vm();
	hpet = hpet_create(vm, &e);
	assert_non_null(hpet);
	for (unsigned n = 0; n < HPET_TIMERS; n++)
		for (unsigned p = 0; p < HPET_PINS; p++)
			hpet_connect_pin(hpet, n, p, chip_wire(&pin[n][p], vm));
	hpet_connect_legacy(hpet, 0, chip_wire(&legacy[0], vm));
	hpet_connect_legacy(hpet, 1, chip_wire(&legacy[1], vm));
	memset(&message, 0, sizeof(message));
	memset(&replacement, 0, sizeof(replacement));
	hpet_connect_msi(hpet, take_message);
	hpet_connect_replace(hpet, take_replacement, NULL);
	/* Away from tick 0, and from a tick's edge. */
	chip_run_to(vm, 123456789);
	return 0;
}

static int teardown(void **state)
{
	chip_vm_end(vm);
	return 0;
}

static uint64_t rd(unsigned reg) { return bus_read(&vm->mmio, HPET_BASE + reg, 8); }
static uint32_t rd32(unsigned reg) { return bus_read(&vm->mmio, HPET_BASE + reg, 4); }
static void wr(unsigned reg, uint64_t v) { bus_write(&vm->mmio, HPET_BASE + reg, 8, v); }
static void wr32(unsigned reg, uint32_t v) { bus_write(&vm->mmio, HPET_BASE + reg, 4, v); }

/* Guest time at which the counter comes to be `ticks` more than it is now. */
static int64_t in_ticks(uint64_t ticks)
{
	return clock_ticks_to_ns(clock_ticks(chip_now(vm), HPET_HZ) + ticks, HPET_HZ);
}

static void ticks(uint64_t n) { chip_run_to(vm, in_ticks(n)); }

static void start_from(uint64_t counter)
{
	wr(CONF, 0);
	wr(COUNTER, counter);
	wr(CONF, ENABLE);
}

static void capabilities(void **state)
{
	uint64_t id = rd(ID);

	assert_int_equal(id >> 32, 100000000);		/* femtoseconds; 0x05f5e100 is the most */
	assert_int_equal(id >> 32, NSEC_PER_SEC / HPET_HZ * 1000000);
	assert_int_equal(id & 0xff, 1);			/* REV_ID */
	assert_int_equal(id >> 8 & 31, HPET_TIMERS - 1);
	assert_true(id & BIT(13));			/* 64 bits */
	assert_true(id & BIT(15));			/* legacy replacement */
	assert_int_equal(id >> 16 & 0xffff, 0x8086);
	wr(ID, UINT64_MAX);
	assert_int_equal(rd(ID), id);
	assert_int_equal(rd32(ID), (uint32_t)id);
	assert_int_equal(rd32(ID + 4), id >> 32);
}

static void after_reset(void **state)
{
	assert_int_equal(rd(CONF), 0);
	assert_int_equal(rd(STATUS), 0);
	assert_int_equal(rd(COUNTER), 0);
	for (unsigned n = 0; n < HPET_TIMERS; n++) {
		/* Periodic, 64 bits, messages; the pins it may be routed to. */
		assert_int_equal(rd(TN_CONF(n)), (uint64_t)HPET_ROUTES(n) << 32 | 0x8030);
		assert_int_equal(rd(TN_COMP(n)), UINT64_MAX);
		assert_int_equal(rd(TN_FSB(n)), 0);
	}
	assert_int_equal(rd(TN_CONF(3)), 0);
	wr(TN_COMP(3), 5);
	assert_int_equal(rd(TN_COMP(3)), 0);
	assert_int_equal(timers_next_due(vm), INT64_MAX);
}

/* "The main counter will halt (will not increment)" while ENABLE_CNF is 0. */
static void the_counter(void **state)
{
	ticks(1000);
	assert_int_equal(rd(COUNTER), 0);
	wr(COUNTER, 0x123456789abcdef0);
	ticks(10);
	assert_int_equal(rd(COUNTER), 0x123456789abcdef0);
	wr(CONF, ENABLE);
	ticks(0x10);
	assert_int_equal(rd(COUNTER), 0x123456789abcdf00);
	assert_int_equal(rd32(COUNTER), 0x9abcdf00);
	assert_int_equal(rd32(COUNTER + 4), 0x12345678);
	wr(CONF, 0);
	ticks(77);
	assert_int_equal(rd(COUNTER), 0x123456789abcdf00);
	wr32(COUNTER, 0xffffffff);
	assert_int_equal(rd(COUNTER), 0x12345678ffffffff);
	wr32(COUNTER + 4, 0xffffffff);
	wr(CONF, ENABLE);
	ticks(3);
	assert_int_equal(rd(COUNTER), 2);		/* all of it turned over */
	chip_run(vm, TICK - 1);
	chip_run(vm, 1);
	assert_int_equal(rd(COUNTER), 3);
	/* It keeps time for as long as a machine lives. */
	start_from(0);
	chip_run(vm, 86400ll * 365 * NSEC_PER_SEC);
	assert_int_equal(rd(COUNTER), 86400ull * 365 * HPET_HZ);
}

/* "Must be aligned, 32 or 64 bits" (2.3.2): nothing else does anything. */
static void odd_accesses(void **state)
{
	wr(COUNTER, 0x1122334455667788);
	bus_write(&vm->mmio, HPET_BASE + COUNTER, 1, 0);
	bus_write(&vm->mmio, HPET_BASE + COUNTER, 2, 0);
	bus_write(&vm->mmio, HPET_BASE + COUNTER + 2, 4, 0);
	bus_write(&vm->mmio, HPET_BASE + COUNTER + 4, 8, 0);
	assert_int_equal(rd(COUNTER), 0x1122334455667788);
	assert_int_equal(bus_read(&vm->mmio, HPET_BASE + COUNTER + 1, 1), 0x77);
	assert_int_equal(bus_read(&vm->mmio, HPET_BASE + COUNTER + 6, 2), 0x1122);
	for (unsigned reg = 0; reg < HPET_SIZE; reg += 8)
		rd(reg);
	assert_int_equal(rd(0x200), 0);
	assert_int_equal(rd(0x28), 0);
}

static void one_shot_edge(void **state)
{
	int64_t at;

	wr(TN_CONF(0), INT_ENABLE | ROUTE(21));
	start_from(0);
	wr(TN_COMP(0), 1000);
	at = in_ticks(1000);
	chip_run_to(vm, at - 1);
	assert_int_equal(pin[0][21].rises, 0);
	chip_run(vm, 1);
	assert_int_equal(pin[0][21].rises, 1);
	assert_int_equal(pin[0][21].last_rise, at);
	assert_int_equal(pin[0][21].level, 0);		/* a pulse */
	/* "The value in the comparator will not be changed by the hardware", and there is no status. */
	assert_int_equal(rd(TN_COMP(0)), 1000);
	assert_int_equal(rd(STATUS), 0);
	ticks(BIT(33));
	assert_int_equal(pin[0][21].rises, 1);
	assert_int_equal(timers_next_due(vm), INT64_MAX);
	/* Once more, by a new comparator. */
	wr(TN_COMP(0), rd(COUNTER) + 5);
	ticks(5);
	assert_int_equal(pin[0][21].rises, 2);
}

/* "The counter may pass the value before it reaches the register and the interrupt will be missed." */
static void a_comparator_in_the_past(void **state)
{
	wr(TN_CONF(0), INT_ENABLE | ROUTE(21));
	wr(TN_CONF(1), INT_ENABLE | MODE32 | ROUTE(22));
	start_from(5000);
	wr(TN_COMP(0), 4000);
	wr(TN_COMP(1), 4000);
	ticks(BIT(32) - 1001);
	assert_int_equal(pin[1][22].rises, 0);
	ticks(1);
	assert_int_equal(pin[1][22].rises, 1);		/* of 32 bits it comes round */
	ticks(BIT(32));
	assert_int_equal(pin[1][22].rises, 2);
	assert_int_equal(pin[0][21].rises, 0);
}

static void width_of_32_bits(void **state)
{
	wr(TN_COMP(2), 0x123456789);
	wr(TN_CONF(2), MODE32 | INT_ENABLE | ROUTE(11));
	assert_int_equal(rd(TN_COMP(2)), 0x23456789);
	wr(TN_COMP(2), UINT64_MAX);
	assert_int_equal(rd(TN_COMP(2)), UINT32_MAX);
	wr32(TN_COMP(2) + 4, 7);
	assert_int_equal(rd(TN_COMP(2)), UINT32_MAX);
	/* It looks at the low half of the counter, which has 64 bits all the same. */
	start_from(0x500000000 - 100);
	wr(TN_COMP(2), 50);
	ticks(149);
	assert_int_equal(pin[2][11].rises, 0);
	ticks(1);
	assert_int_equal(pin[2][11].rises, 1);
	assert_int_equal(rd(COUNTER), 0x500000000 + 50);
}

static void halted_nothing_comes(void **state)
{
	wr(TN_CONF(0), INT_ENABLE | ROUTE(20));
	start_from(0);
	wr(TN_COMP(0), 100);
	ticks(60);
	wr(CONF, 0);
	ticks(1000);
	assert_int_equal(pin[0][20].rises, 0);
	assert_int_equal(timers_next_due(vm), INT64_MAX);
	wr(CONF, ENABLE);
	ticks(39);
	assert_int_equal(pin[0][20].rises, 0);
	ticks(1);
	assert_int_equal(pin[0][20].rises, 1);
	/* The counter is moved over the comparator: it never equals it. */
	wr(TN_COMP(0), 200);
	start_from(201);
	ticks(1000);
	assert_int_equal(pin[0][20].rises, 1);
	/* And back. */
	start_from(190);
	ticks(10);
	assert_int_equal(pin[0][20].rises, 2);
}

/* The specification's way: halt, clear, VAL_SET, accumulator, period (2.3.9.2.2). */
static void periodic(void **state)
{
	wr(CONF, 0);
	wr(COUNTER, 0);
	wr(TN_CONF(0), PERIODIC | VAL_SET | INT_ENABLE | ROUTE(20));
	assert_true(rd(TN_CONF(0)) & VAL_SET);
	wr(TN_COMP(0), 300);
	assert_false(rd(TN_CONF(0)) & VAL_SET);		/* "automatically clears" */
	wr(TN_COMP(0), 100);
	assert_int_equal(rd(TN_COMP(0)), 300);		/* the period alone */
	wr(CONF, ENABLE);
	ticks(299);
	assert_int_equal(pin[0][20].rises, 0);
	ticks(1);
	assert_int_equal(pin[0][20].rises, 1);
	assert_int_equal(rd(TN_COMP(0)), 400);		/* what it says is the next match */
	for (unsigned i = 2; i < 50; i++) {
		int64_t at = in_ticks(100);

		ticks(99);
		assert_int_equal(pin[0][20].rises, i - 1);
		ticks(1);
		assert_int_equal(pin[0][20].rises, i);
		assert_int_equal(pin[0][20].last_rise, at);
	}
	/* A new period counts from the match that follows. */
	wr(TN_COMP(0), 1000);
	ticks(100);
	assert_int_equal(pin[0][20].rises, 50);
	ticks(999);
	assert_int_equal(pin[0][20].rises, 50);
	ticks(1);
	assert_int_equal(pin[0][20].rises, 51);
}

/* With VAL_SET one write sets both, as every driver that writes once expects. */
static void periodic_by_one_write(void **state)
{
	start_from(0);
	wr32(TN_CONF(1), PERIODIC | VAL_SET | MODE32 | INT_ENABLE | ROUTE(23));
	wr32(TN_COMP(1), 500);
	ticks(5000);
	assert_int_equal(pin[1][23].rises, 10);
	/* It goes round at 32 bits. */
	start_from(BIT(32) - 250);
	wr32(TN_CONF(1), PERIODIC | VAL_SET | MODE32 | INT_ENABLE | ROUTE(23));
	wr32(TN_COMP(1), -150);
	wr32(TN_COMP(1), 200);
	ticks(100);
	assert_int_equal(pin[1][23].rises, 11);
	assert_int_equal(rd(TN_COMP(1)), 50);
	ticks(200);
	assert_int_equal(pin[1][23].rises, 12);
	/* Not periodic any more: the comparator stands. */
	wr32(TN_CONF(1), MODE32 | INT_ENABLE | ROUTE(23));
	ticks(200);
	assert_int_equal(pin[1][23].rises, 13);
	assert_int_equal(rd(TN_COMP(1)), 250);
}

/* 64 bits by halves need VAL_SET before each (2.3.9.2.2). */
static void periodic_by_halves(void **state)
{
	start_from(0x2fffffff0);
	wr(TN_CONF(0), PERIODIC | VAL_SET | INT_ENABLE | ROUTE(20));
	wr32(TN_COMP(0), 0x20);
	wr32(TN_CONF(0), PERIODIC | VAL_SET | INT_ENABLE | ROUTE(20));
	wr32(TN_COMP(0) + 4, 3);
	assert_int_equal(rd(TN_COMP(0)), 0x300000020);
	ticks(0x30);
	assert_int_equal(pin[0][20].rises, 1);
	assert_int_equal(rd(TN_COMP(0)), 0x600000040);
	/* VAL_SET means nothing to a timer that is not periodic. */
	wr(TN_CONF(0), VAL_SET | INT_ENABLE | ROUTE(20));
	assert_false(rd(TN_CONF(0)) & VAL_SET);
}

static void period_of_nothing(void **state)
{
	start_from(0);
	wr(TN_CONF(0), PERIODIC | VAL_SET | INT_ENABLE | ROUTE(20));
	wr(TN_COMP(0), 100);
	wr(TN_COMP(0), 0);
	ticks(100000);
	assert_int_equal(pin[0][20].rises, 1);
	assert_int_equal(rd(TN_COMP(0)), 100);
}

static void level_triggered(void **state)
{
	struct chip_wire *w = &pin[0][22];

	wr(TN_CONF(0), LEVEL | PERIODIC | VAL_SET | INT_ENABLE | ROUTE(22));
	start_from(0);
	wr(TN_COMP(0), 100);
	ticks(100);
	assert_int_equal(w->level, 1);
	assert_int_equal(rd(STATUS), 1);
	ticks(350);
	assert_int_equal(w->rises, 1);			/* it was up all the time */
	assert_int_equal(rd(TN_COMP(0)), 500);		/* though it went on */
	wr(STATUS, 6);					/* the others' bits */
	assert_int_equal(w->level, 1);
	wr(STATUS, 1);
	assert_int_equal(w->level, 0);
	assert_int_equal(rd(STATUS), 0);
	ticks(50);
	assert_int_equal(w->level, 1);
	assert_int_equal(w->rises, 2);
	/* "The interrupt status indications will not be cleared", but none is caused. */
	wr(CONF, 0);
	assert_int_equal(rd(STATUS), 1);
	assert_int_equal(w->level, 0);
	wr(CONF, ENABLE);
	assert_int_equal(w->level, 1);
	/* Elsewhere: the wire it had goes down. */
	wr(TN_CONF(0), LEVEL | PERIODIC | INT_ENABLE | ROUTE(20));
	assert_int_equal(w->level, 0);
	assert_int_equal(pin[0][20].level, 1);
	wr(TN_CONF(0), PERIODIC | INT_ENABLE | ROUTE(20));
	assert_int_equal(pin[0][20].level, 0);
	assert_int_equal(rd(STATUS), 0);
}

/* "The timer will still operate and generate appropriate status bits" without INT_ENB. */
static void not_enabled(void **state)
{
	wr(TN_CONF(2), LEVEL | ROUTE(11));
	start_from(0);
	wr(TN_COMP(2), 100);
	assert_int_equal(timers_next_due(vm), INT64_MAX);
	ticks(99);
	assert_int_equal(rd(STATUS), 0);
	ticks(1);
	assert_int_equal(rd(STATUS), 4);
	assert_int_equal(pin[2][11].level, 0);
	wr(TN_CONF(2), LEVEL | INT_ENABLE | ROUTE(11));
	assert_int_equal(pin[2][11].level, 1);
	wr(TN_CONF(2), LEVEL | ROUTE(11));
	assert_int_equal(pin[2][11].level, 0);
	assert_int_equal(rd(STATUS), 4);
	wr(STATUS, 4);
	/* An edge comes and goes unseen. */
	wr(TN_CONF(2), ROUTE(11));
	wr(TN_COMP(2), 200);
	ticks(200);
	wr(TN_CONF(2), INT_ENABLE | ROUTE(11));
	ticks(1000);
	assert_int_equal(pin[2][11].rises, 1);
}

static void routes(void **state)
{
	for (unsigned n = 0; n < HPET_TIMERS; n++) {
		uint32_t can = rd32(TN_CONF(n) + 4);

		assert_true(can);
		for (unsigned p = 1; p < 32; p++) {
			wr(TN_CONF(n), ROUTE(p));
			/* What is not supported does not read back. */
			assert_int_equal((rd(TN_CONF(n)) >> 9 & 31) == p, can >> p & 1);
		}
		for (unsigned p = 0; p < HPET_PINS; p++) {
			if (!(can >> p & 1))
				continue;
			wr(TN_CONF(n), INT_ENABLE | ROUTE(p));
			start_from(0);
			wr(TN_COMP(n), 10);
			ticks(10);
			assert_int_equal(pin[n][p].rises, 1);
		}
	}
	for (unsigned p = 0; p < HPET_PINS; p++)
		if (!(HPET_ROUTES(2) >> p & 1))
			assert_int_equal(pin[0][p].rises + pin[1][p].rises + pin[2][p].rises, 0);
}

static void messages(void **state)
{
	int64_t at;

	wr(TN_FSB(1), 0xfee0100c00004931);
	assert_int_equal(rd(TN_FSB(1)), 0xfee0100c00004931);
	wr32(TN_FSB(1), 0x4932);
	wr32(TN_FSB(1) + 4, 0xfee02000);
	assert_int_equal(rd(TN_FSB(1)), 0xfee0200000004932);
	wr(TN_CONF(1), FSB_ENABLE | INT_ENABLE | PERIODIC | VAL_SET | ROUTE(20));
	start_from(0);
	wr(TN_COMP(1), 1000);
	at = in_ticks(1000);
	ticks(1000);
	assert_int_equal(message.n, 1);
	assert_int_equal(message.at, at);
	assert_int_equal(message.address, 0xfee02000);
	assert_int_equal(message.data, 0x4932);
	ticks(9000);
	assert_int_equal(message.n, 10);
	assert_int_equal(pin[1][20].rises, 0);		/* the route has no effect */
	wr(TN_CONF(1), INT_ENABLE | PERIODIC | ROUTE(20));
	ticks(1000);
	assert_int_equal(message.n, 10);
	assert_int_equal(pin[1][20].rises, 1);
}

/* Timers 0 and 1 go to IRQ 0 and 8; their own routing, by pin or message, "will have no impact". */
static void legacy_replacement(void **state)
{
	assert_false(replacement.on);
	wr(TN_CONF(0), INT_ENABLE | PERIODIC | VAL_SET | ROUTE(20));
	wr(TN_COMP(0), 100);
	wr(TN_CONF(1), INT_ENABLE | FSB_ENABLE);
	wr(TN_COMP(1), 250);
	wr(TN_CONF(2), INT_ENABLE | ROUTE(22));
	wr(TN_COMP(2), 300);
	wr(COUNTER, 0);
	wr(CONF, ENABLE | LEGACY);
	assert_true(replacement.on && !replacement.restored);
	ticks(1000);
	assert_int_equal(legacy[0].rises, 10);
	assert_int_equal(legacy[1].rises, 1);
	assert_int_equal(pin[2][22].rises, 1);
	assert_int_equal(pin[0][20].rises, 0);
	assert_int_equal(message.n, 0);
	wr(CONF, ENABLE);
	assert_false(replacement.on);
	ticks(1000);
	assert_int_equal(legacy[0].rises, 10);
	assert_int_equal(pin[0][20].rises, 10);
	/* A level that is up changes hands. */
	wr(TN_CONF(0), LEVEL | INT_ENABLE | PERIODIC | ROUTE(20));
	ticks(100);
	assert_int_equal(pin[0][20].level, 1);
	wr(CONF, ENABLE | LEGACY);
	assert_int_equal(pin[0][20].level, 0);
	assert_int_equal(legacy[0].level, 1);
	((struct device *)hpet)->type->reset((struct device *)hpet);
	assert_int_equal(legacy[0].level, 0);
	assert_false(replacement.on);
	assert_int_equal(rd(CONF), 0);
}

/* The host was late: what was missed is one edge, and the phase is kept. */
static void a_late_host(void **state)
{
	wr(TN_CONF(0), INT_ENABLE | PERIODIC | VAL_SET | ROUTE(20));
	start_from(0);
	wr(TN_COMP(0), 100);
	chip_jump(vm, 1050 * TICK);
	timers_run(vm, chip_now(vm));
	assert_int_equal(pin[0][20].rises, 1);
	assert_int_equal(rd(TN_COMP(0)), 1100);
	ticks(50);
	assert_int_equal(pin[0][20].rises, 2);
	/* However long, and however short the period: one step. */
	wr(TN_COMP(0), 1);
	ticks(100);
	chip_jump(vm, CLOCK_END / 2);
	timers_run(vm, chip_now(vm));
	assert_int_equal(rd(TN_COMP(0)), rd(COUNTER) + 1);
	assert_true(pin[0][20].rises <= 5);
}

/* Every tick an edge: exact in virtual time, and merged in real time. */
static void the_shortest_period(void **state)
{
	wr(TN_CONF(0), INT_ENABLE | PERIODIC | VAL_SET | ROUTE(20));
	start_from(0);
	wr(TN_COMP(0), 1);
	ticks(1000);
	assert_int_equal(pin[0][20].rises, 1000);
	clock_init(&vm->clock, CLOCK_MODE_REALTIME);
	clock_set_paused(&vm->clock, 1000000000);
	for (unsigned i = 0; i < 100; i++) {
		int64_t due = timers_next_due(vm);

		clock_set_paused(&vm->clock, due);
		timers_run(vm, due);
		assert_true(timers_next_due(vm) - due >= HPET_MIN_TICK * TICK);
	}
}

/* At any moment it can be saved, and a fresh one goes on as it would have. */
static void saved_in_every_mode(void **state)
{
	static const uint16_t modes[] = {
		0, INT_ENABLE, INT_ENABLE | PERIODIC, LEVEL | INT_ENABLE, LEVEL | PERIODIC,
		LEVEL | INT_ENABLE | PERIODIC, FSB_ENABLE | INT_ENABLE | PERIODIC,
		MODE32 | INT_ENABLE | PERIODIC, MODE32 | LEVEL,
	};

	for (unsigned i = 0; i < ARRAY_SIZE(modes); i++)
		for (unsigned conf = 0; conf < 4; conf++) {
			unsigned rises;

			wr(CONF, 0);
			wr(COUNTER, 0);
			for (unsigned n = 0; n < HPET_TIMERS; n++) {
				wr(TN_CONF(n), modes[i] | ROUTE(20u) | (modes[i] & PERIODIC ? VAL_SET : 0));
				wr(TN_COMP(n), 50 + n);
			}
			wr(CONF, conf);
			for (unsigned k = 0; k < 30; k++) {
				chip_run(vm, 777);
				chip_save_restore((struct device *)hpet);
				chip_jump(vm, 1234);
				rises = pin[0][20].rises;
				chip_save_restore((struct device *)hpet);
				/* Nothing is raised by it; what is late comes afterwards. */
				assert_int_equal(pin[0][20].rises, rises);
				assert_int_equal(replacement.on, !!(conf & LEGACY));
			}
		}
}

static void expect_refused(const char *name, uint64_t value)
{
	struct device *d = (struct device *)hpet;
	struct state_buf bytes = { 0 };
	struct skep_error e = { .text = "" };
	const struct state_record *r = d->type->state;
	void *model;

	chip_export(d, &model, &bytes);
	for (size_t i = 0; i < r->nfields; i++) {
		const struct state_field *f = &r->fields[i];
		const struct state_record *sub = f->sub;

		if (!strcmp(f->name, name))
			memcpy((uint8_t *)model + f->offset, &value, f->size);
		for (size_t k = 0; sub && k < sub->nfields; k++)
			if (!strcmp(sub->fields[k].name, name))
				memcpy((uint8_t *)model + f->offset + sub->fields[k].offset, &value,
				       sub->fields[k].size);
	}
	if (chip_check(d, model, &e) == 0)
		fail_msg("%s = %#llx was accepted", name, (unsigned long long)value);
	assert_memory_equal(e.text, "hpet", 4);
	chip_model_free(d, model);
	state_buf_free(&bytes);
}

static void refused_states(void **state)
{
	expect_refused("tick", UINT64_MAX);
	expect_refused("tick", (uint64_t)CLOCK_DUE_MAX / TICK + 1);
	expect_refused("config", 4);			/* which is a timer's too */
	expect_refused("config", 0x8000);
	expect_refused("config", 1);
	expect_refused("config", VAL_SET);
	expect_refused("config", ROUTE(11));
	expect_refused("config", MODE32);		/* the comparator has 64 bits */
	expect_refused("status", 8);
	expect_refused("status", 1);			/* not level-triggered */
}

/* ---- On a board ------------------------------------------------------ */

static const char *const keys[][2] = { { "lpc.com1.path", "null" } };

static struct board *board;
static struct config *config;

static int board_setup(void **state)
{
	config = board_config(keys, ARRAY_SIZE(keys));
	board = board_make(config);
	vm = board->vm;
	return 0;
}

static int board_teardown(void **state)
{
	board_free(board);
	config_destroy(config);
	return 0;
}

/* Interrupts of the 8259 pair, by vector, in so many ms. */
static unsigned count_irq(unsigned irq, unsigned ms)
{
	unsigned n = 0;

	for (int64_t end = chip_now(vm) + ms * 1000000ll; chip_now(vm) < end;) {
		chip_run(vm, 50000);
		while (chipset_pic_intr(vm)) {
			int v = chipset_pic_ack(vm);

			n += v == (int)(0x20 + irq);
			if (v == 0x28) {		/* the RTC */
				out8(vm, 0x70, 0xc);
				in8(vm, 0x71);
			}
			out8(vm, 0xa0, 0x20);
			out8(vm, 0x20, 0x20);
		}
	}
	return n;
}

static void pic_open(void)
{
	static const uint16_t icw[][2] = {
		{ 0x20, 0x11 }, { 0xa0, 0x11 }, { 0x21, 0x20 }, { 0xa1, 0x28 }, { 0x21, 4 }, { 0xa1, 2 },
		{ 0x21, 1 }, { 0xa1, 1 }, { 0x21, 0xfa }, { 0xa1, 0xfe },
	};

	for (unsigned i = 0; i < ARRAY_SIZE(icw); i++)
		out8(vm, icw[i][0], (uint8_t)icw[i][1]);
}

static void in_place_of_8254_and_rtc(void **state)
{
	pic_open();
	out8(vm, 0x43, 0x34);			/* 8254: 100 Hz */
	out8(vm, 0x40, 11932 & 0xff);
	out8(vm, 0x40, 11932 >> 8);
	out8(vm, 0x70, 0xb);			/* RTC: 1024 Hz */
	out8(vm, 0x71, 0x42);
	assert_in_range(count_irq(0, 1000), 99, 101);
	assert_in_range(count_irq(8, 1000), 1020, 1028);

	for (unsigned n = 0; n < 2; n++) {	/* HPET: 1000 and 250 Hz */
		wr(TN_CONF(n), INT_ENABLE | PERIODIC | VAL_SET);
		wr(TN_COMP(n), n ? HPET_HZ / 250 : HPET_HZ / 1000);
	}
	wr(COUNTER, 0);
	wr(CONF, ENABLE | LEGACY);
	assert_in_range(count_irq(0, 1000), 999, 1001);
	assert_in_range(count_irq(8, 1000), 249, 251);

	/* A board that this one is restored to has the same wires disconnected. */
	board = board_restore(board, config);
	vm = board->vm;
	assert_in_range(count_irq(0, 1000), 999, 1001);
	assert_in_range(count_irq(8, 1000), 249, 251);
	/* Halted, the old ones are still disconnected: LEG_RT_CNF says so by itself. */
	wr(CONF, LEGACY);
	assert_int_equal(count_irq(0, 100), 0);
	wr(CONF, ENABLE);
	assert_in_range(count_irq(0, 1000), 99, 101);
	assert_in_range(count_irq(8, 1000), 1020, 1028);
	board = board_restore(board, config);
	vm = board->vm;
	assert_in_range(count_irq(0, 1000), 99, 101);
	/* And a reset connects them again. */
	wr(CONF, ENABLE | LEGACY);
	for (struct device *d = vm->devices; d; d = d->next)
		d->type->reset(d);
	pic_open();
	out8(vm, 0x43, 0x34);
	out8(vm, 0x40, 11932 & 0xff);
	out8(vm, 0x40, 11932 >> 8);
	assert_in_range(count_irq(0, 1000), 99, 101);
}

static void to_the_processors(void **state)
{
	/* By pin 20 of the I/O APIC, an edge, and by message. */
	lapic_mmio_write(board->apic, 0xf0, 4, 0x1ff);
	bus_write(&vm->mmio, IOAPIC_BASE, 4, 0x10 + 2 * 20);
	bus_write(&vm->mmio, IOAPIC_BASE + 0x10, 4, 0x51);
	wr(TN_CONF(0), INT_ENABLE | ROUTE(20));
	wr(TN_COMP(0), 1000);
	wr(TN_FSB(1), LAPIC_BASE << 32 | 0x61);
	wr(TN_CONF(1), INT_ENABLE | FSB_ENABLE);
	wr(TN_COMP(1), 2000);
	start_from(0);
	ticks(999);
	assert_int_equal(lapic_pending_vector(board->apic), -1);
	ticks(1);
	assert_int_equal(lapic_ack(board->apic), 0x51);
	lapic_mmio_write(board->apic, 0xb0, 4, 0);
	ticks(999);
	assert_int_equal(lapic_pending_vector(board->apic), -1);
	ticks(1);
	assert_int_equal(lapic_ack(board->apic), 0x61);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
#define B(f) cmocka_unit_test_setup_teardown(f, board_setup, board_teardown)
	const struct CMUnitTest tests[] = {
		T(capabilities), T(after_reset), T(the_counter), T(odd_accesses), T(one_shot_edge),
		T(a_comparator_in_the_past), T(width_of_32_bits), T(halted_nothing_comes), T(periodic),
		T(periodic_by_one_write), T(periodic_by_halves), T(period_of_nothing),
		T(level_triggered), T(not_enabled), T(routes), T(messages), T(legacy_replacement),
		T(a_late_host), T(the_shortest_period), T(saved_in_every_mode), T(refused_states),
		B(in_place_of_8254_and_rtc), B(to_the_processors),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
