/*
 * The HPET and its interrupts: by pin of the I/O APIC, as edge and as level, by message, and in place
 * of the 8254 and the RTC.
 */
#include "lib/guest.h"

#define VECTOR 0x40		/* + timer */
#define OTHER_VECTOR 0x48	/* the 8254 */
#define TIMEOUT_VECTOR 0x50
#define APIC ((volatile u32 *)0xfee00000ul)
#define IOAPIC ((volatile u32 *)0xfec00000ul)
#define HPET(reg) (*(volatile u64 *)(0xfed00000ul + (reg)))
#define HPET32(reg) (*(volatile u32 *)(0xfed00000ul + (reg)))

#define CONF 0x10
#define STATUS 0x20
#define COUNTER 0xf0
#define TN_CONF(n) (0x100 + 0x20 * (n))
#define TN_COMP(n) (0x108 + 0x20 * (n))
#define TN_FSB(n) (0x110 + 0x20 * (n))

#define LEVEL 2
#define INT_ENABLE 4
#define PERIODIC 8
#define VAL_SET 0x40
#define MODE32 0x100
#define FSB_ENABLE 0x4000

static volatile unsigned ticks[8], other;
static volatile bool timed_out;
static u64 per_ms;		/* ticks of the HPET */
static u32 apic_per_ms;
static u32 pm_port;

static u32 pm_since(u32 start)
{
	return (inl(pm_port) - start) & 0xffffff;
}

static void on_timer(struct frame *f)
{
	ticks[f->vec - VECTOR]++;
	HPET(STATUS) = 1 << (f->vec - VECTOR);	/* a level goes down first */
	APIC[0xb0 / 4] = 0;
}

static void on_other(struct frame *f)
{
	other++;
	APIC[0xb0 / 4] = 0;
}

static void on_timeout(struct frame *f)
{
	timed_out = true;
	APIC[0xb0 / 4] = 0;
}

static void timeout_init(void)
{
	u32 start;

	APIC[0x3e0 / 4] = 3;			/* by 16 */
	APIC[0x320 / 4] = 1 << 16;
	APIC[0x380 / 4] = 0xffffffff;
	start = inl(pm_port);
	while (pm_since(start) < 3580)
		;
	apic_per_ms = 0xffffffff - APIC[0x390 / 4];
}

/* Halts until *count is n, or so many ms have gone by. */
static bool wait_for(volatile unsigned *count, unsigned n, u32 ms)
{
	timed_out = false;
	APIC[0x320 / 4] = TIMEOUT_VECTOR;
	APIC[0x380 / 4] = apic_per_ms * ms;
	while (*count < n && !timed_out)
		asm volatile("sti; hlt; cli");
	APIC[0x380 / 4] = 0;
	return *count >= n;
}

static bool near(u64 got, u64 want, u32 percent)
{
	return got > want - want * percent / 100 && got < want + want * percent / 100;
}

static void route(unsigned pin, unsigned vector, bool level)
{
	IOAPIC[0] = 0x11 + pin * 2;
	IOAPIC[4] = 0;
	IOAPIC[0] = 0x10 + pin * 2;
	IOAPIC[4] = vector ? vector | level << 15 : 1 << 16;
}

/* A pin that only the given timer will use. */
static unsigned pin_of(unsigned n)
{
	u32 can = HPET(TN_CONF(n)) >> 32;

	for (unsigned pin = 23 - n; pin >= 16; pin--)
		if (can >> pin & 1)
			return pin;
	return 0;
}

static void counter(void)
{
	u64 a, b;
	u32 start;

	section("counter");
	check(HPET32(0) >> 13 & 1, "it has 64 bits");
	check(HPET32(0) >> 15 & 1, "it can replace the 8254 and the RTC");
	check((HPET32(0) >> 8 & 31) >= 2, "it has three timers or more");
	check(HPET32(4) && HPET32(4) <= 100000000, "its period of %u fs", HPET32(4));
	per_ms = 1000000000000ull / HPET32(4);
	HPET(CONF) = 0;
	HPET(COUNTER) = 0xfffffff0;
	a = HPET(COUNTER);
	check_eq(a, 0xfffffff0, "it can be written while it is halted");
	for (start = inl(pm_port); pm_since(start) < 1000;)
		;
	check_eq(HPET(COUNTER), a, "and stands");
	HPET(CONF) = 1;
	for (start = inl(pm_port); pm_since(start) < 35795;)
		;
	b = HPET(COUNTER);
	check(near(b - a, per_ms * 10, 10), "10 ms are %u of its ticks, not %u", (u32)per_ms * 10,
	      (u32)(b - a));
	check(HPET32(COUNTER + 4) == 1, "both halves can be read");
	for (unsigned i = 0; i < 10000; i++) {
		a = HPET(COUNTER);
		if (a < b)
			break;
		b = a;
	}
	check(a >= b, "it does not go back");
}

static void one_shots(void)
{
	u64 start;

	section("one-shot");
	for (unsigned n = 0; n < 3; n++) {
		unsigned pin = pin_of(n), seen = ticks[n];

		for (unsigned mode = 0; mode <= MODE32; mode += MODE32) {
			route(pin, VECTOR + n, false);
			/* Enabled last: QEMU takes a comparator in the past for one that is due. */
			HPET(TN_CONF(n)) = pin << 9 | mode;
			check_eq(HPET(TN_CONF(n)) >> 9 & 31, pin, "timer %u is routed", n);
			start = HPET(COUNTER);
			HPET(TN_COMP(n)) = start + 5 * per_ms;
			HPET(TN_CONF(n)) = INT_ENABLE | pin << 9 | mode;
			check(wait_for(&ticks[n], ++seen, 500), "timer %u comes", n);
			check(near(HPET(COUNTER) - start, 5 * per_ms, 20), "after %u ticks",
			      (u32)(HPET(COUNTER) - start));
			wait_for(&ticks[n], seen + 1, 20);
			check_eq(ticks[n], seen, "once");
		}
		HPET(TN_CONF(n)) = 0;
		route(pin, 0, false);
	}
}

/* By halves, as the specification has it (2.3.9.2.2); the period needs only the low one. */
static void set_period(unsigned n, unsigned config, u64 first, u32 period)
{
	HPET32(TN_CONF(n)) = config | VAL_SET;
	HPET32(TN_COMP(n)) = (u32)first;
	HPET32(TN_CONF(n)) = config | VAL_SET;
	HPET32(TN_COMP(n) + 4) = first >> 32;
	HPET32(TN_COMP(n)) = period;
}

static void periodic(unsigned mode)
{
	section(mode & LEVEL ? "periodic, level" : mode & MODE32 ? "periodic, 32 bits" : "periodic");
	for (unsigned n = 0; n < 3; n++) {
		unsigned pin = pin_of(n), seen = ticks[n];
		u64 start;

		if (!(HPET(TN_CONF(n)) & 0x10)) {
			skip("a timer cannot be periodic");
			continue;
		}
		route(pin, VECTOR + n, mode & LEVEL);
		HPET(CONF) = 0;
		HPET(COUNTER) = 0;
		set_period(n, INT_ENABLE | PERIODIC | mode | pin << 9, 20 * per_ms, 2 * per_ms);
		HPET(CONF) = 1;
		check(wait_for(&ticks[n], seen + 1, 500), "timer %u comes", n);
		start = HPET(COUNTER);
		check(near(start, 20 * per_ms, 20), "first after %u ticks", (u32)start);
		check(wait_for(&ticks[n], seen + 26, 500), "and again");
		check(near(HPET(COUNTER) - start, 50 * per_ms, 20), "25 times in %u ticks",
		      (u32)(HPET(COUNTER) - start));
		HPET(CONF) = 0;
		seen = ticks[n];
		wait_for(&ticks[n], seen + 1, 20);
		check_eq(ticks[n], seen, "not while it is halted");
		HPET(TN_CONF(n)) = 0;
		HPET(STATUS) = 1 << n;
		route(pin, 0, false);
		HPET(CONF) = 1;
	}
}

static void status(void)
{
	u64 start;

	section("status");
	HPET(TN_CONF(2)) = LEVEL | pin_of(2) << 9;
	HPET(STATUS) = 4;
	start = HPET(COUNTER);
	HPET(TN_COMP(2)) = start + per_ms;
	check(!(HPET(STATUS) & 4), "not before the match");
	while (HPET(COUNTER) < start + 2 * per_ms)
		;
	if (on_tcg)
		skip("QEMU's timer does not run without its interrupt");
	else
		check(HPET(STATUS) & 4, "there without the interrupt");
	HPET(STATUS) = 4;
	check(!(HPET(STATUS) & 4), "a one clears it");
	HPET(TN_CONF(2)) = 0;
}

static void message(void)
{
	unsigned seen = ticks[1];

	section("message");
	if (!(HPET(TN_CONF(1)) & 0x8000)) {
		skip("this HPET cannot send messages");
		return;
	}
	HPET(TN_FSB(1)) = 0xfee0000000000000ull | (VECTOR + 1);
	HPET(TN_CONF(1)) = INT_ENABLE | FSB_ENABLE;
	HPET(TN_COMP(1)) = HPET(COUNTER) + per_ms;
	check(wait_for(&ticks[1], seen + 1, 500), "it comes");
	HPET(TN_CONF(1)) = 0;
}

static void pit_100hz(void)
{
	outb(0x43, 0x34);
	outb(0x40, 11932 & 0xff);
	outb(0x40, 11932 >> 8);
}

static void replacement(void)
{
	unsigned seen;

	section("in place of the 8254 and the RTC");
	route(2, OTHER_VECTOR, false);
	pit_100hz();
	other = 0;
	check(wait_for(&other, 3, 500), "the 8254 ticks");
	route(2, VECTOR, false);
	route(8, VECTOR + 1, false);
	HPET(CONF) = 0;
	HPET(COUNTER) = 0;
	for (unsigned n = 0; n < 2; n++) {
		HPET(TN_CONF(n)) = INT_ENABLE;
		HPET(TN_COMP(n)) = (n + 1) * 100 * per_ms;
	}
	HPET(CONF) = 3;
	check_eq(HPET(CONF), 3, "it is on");
	seen = ticks[0];
	check(wait_for(&ticks[0], seen + 1, 500), "timer 0 is IRQ 0");
	check(near(HPET(COUNTER), 100 * per_ms, 20), "and comes after %u ticks, not as the 8254",
	      (u32)HPET(COUNTER));
	seen = ticks[1];
	check(wait_for(&ticks[1], seen + 1, 500), "timer 1 is IRQ 8");
	check(near(HPET(COUNTER), 200 * per_ms, 20), "after %u ticks", (u32)HPET(COUNTER));
	for (unsigned n = 0; n < 2; n++)
		HPET(TN_CONF(n)) = 0;
	HPET(CONF) = 1;
	route(8, 0, false);
	route(2, OTHER_VECTOR, false);
	pit_100hz();
	other = 0;
	check(wait_for(&other, 3, 500), "the 8254 ticks again");
	route(2, 0, false);
}

void guest_main(void)
{
	outl(0xcf8, 0x8000f840);
	pm_port = (inl(0xcfc) & 0xff80) + 8;
	outb(0x21, 0xff);
	outb(0xa1, 0xff);
	for (unsigned n = 0; n < 3; n++)
		on_trap(VECTOR + n, on_timer);
	on_trap(OTHER_VECTOR, on_other);
	on_trap(TIMEOUT_VECTOR, on_timeout);
	APIC[0xf0 / 4] = 0x1ff;
	timeout_init();
	counter();
	one_shots();
	periodic(0);
	periodic(MODE32);
	periodic(LEVEL);
	status();
	message();
	replacement();
}
