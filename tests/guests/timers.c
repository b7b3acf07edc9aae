/*
 * The board's timers and their interrupts, through the 8259 pair and through
 * the I/O APIC: 8254, MC146818, ACPI PM timer.
 */
#include "lib/guest.h"

#define IRQ_BASE 0x30
#define TIMEOUT_VECTOR 0x50
#define APIC ((volatile u32 *)0xfee00000ul)
#define IOAPIC ((volatile u32 *)0xfec00000ul)

static volatile unsigned ticks[16];
static volatile u64 last_tsc[16];
static bool with_ioapic;

static void eoi(unsigned irq)
{
	if (with_ioapic) {
		APIC[0xb0 / 4] = 0;
		return;
	}
	if (irq >= 8)
		outb(0xa0, 0x20);
	outb(0x20, 0x20);
}

static u8 cmos(u8 reg)
{
	outb(0x70, reg);
	return inb(0x71);
}

static void set_cmos(u8 reg, u8 v)
{
	outb(0x70, reg);
	outb(0x71, v);
}

static u8 rtc_flags;

static void on_irq(struct frame *f)
{
	unsigned irq = f->vec - IRQ_BASE;

	ticks[irq]++;
	last_tsc[irq] = rdtsc();
	if (irq == 8)
		rtc_flags |= cmos(0xc);
	eoi(irq);
}

static void pic_init(void)
{
	outb(0x20, 0x11);
	outb(0xa0, 0x11);
	outb(0x21, IRQ_BASE);
	outb(0xa1, IRQ_BASE + 8);
	outb(0x21, 4);
	outb(0xa1, 2);
	outb(0x21, 1);
	outb(0xa1, 1);
	outb(0x21, 0xff);
	outb(0xa1, 0xff);
}

/* IRQ 0 arrives at pin 2. */
static void ioapic_route(unsigned irq, bool on)
{
	unsigned pin = irq ? irq : 2;

	IOAPIC[0] = 0x11 + pin * 2;
	IOAPIC[4] = 0;
	IOAPIC[0] = 0x10 + pin * 2;
	IOAPIC[4] = (on ? 0 : 1 << 16) | (IRQ_BASE + irq);
}

static void unmask(unsigned irq, bool on)
{
	u16 mask;

	if (with_ioapic) {
		ioapic_route(irq, on);
		return;
	}
	mask = inb(0x21) | inb(0xa1) << 8;
	mask = on ? mask & ~(1 << irq) : mask | 1 << irq;
	if (irq >= 8)
		mask &= ~4;
	outb(0x21, mask);
	outb(0xa1, mask >> 8);
}

static u32 pm_port;

static u32 pm(void)
{
	return inl(pm_port) & 0xffffff;
}

/* So that a lost interrupt is a failed check and not a hang: the local APIC's timer. */
static u32 apic_per_ms;
static volatile bool timed_out;

static void on_timeout(struct frame *f)
{
	timed_out = true;
	APIC[0xb0 / 4] = 0;
}

static void timeout_after(u32 ms)
{
	timed_out = false;
	APIC[0x320 / 4] = TIMEOUT_VECTOR;
	APIC[0x380 / 4] = apic_per_ms * ms;
}

static void timeout_init(void)
{
	u32 start;

	on_trap(TIMEOUT_VECTOR, on_timeout);
	APIC[0x3e0 / 4] = 3;			/* by 16 */
	APIC[0x320 / 4] = 1 << 16;
	APIC[0x380 / 4] = 0xffffffff;
	start = pm();
	while (((pm() - start) & 0xffffff) < 3580)
		;
	apic_per_ms = 0xffffffff - APIC[0x390 / 4];
}

/* Halts until irq has come n times in all; false after ms. */
static bool wait_irq(unsigned irq, unsigned n, u32 ms)
{
	timeout_after(ms);
	while (ticks[irq] < n && !timed_out)
		asm volatile("sti; hlt; cli");
	APIC[0x380 / 4] = 0;
	return ticks[irq] >= n;
}

/* PM timer ticks (3.579545 MHz) until irq has come n times; 0 if it does not. */
static u32 time_of(unsigned irq, unsigned n)
{
	u32 start = pm();

	return wait_irq(irq, ticks[irq] + n, 2000) ? (pm() - start) & 0xffffff : 0;
}

static bool near(u32 got, u32 want, u32 percent)
{
	return got > want - want / 100 * percent && got < want + want / 100 * percent;
}

static void pit(unsigned mode, u16 count)
{
	outb(0x43, 0x30 | mode << 1);
	outb(0x40, count);
	outb(0x40, count >> 8);
}

static void pit_tests(void)
{
	u32 t;

	section(with_ioapic ? "8254 through the I/O APIC" : "8254 through the 8259");
	unmask(0, true);
	for (unsigned mode = 2; mode <= 3; mode++) {
		if (mode == 3 && with_ioapic && on_tcg)
			continue;		/* its I/O APIC takes the falling edge too */
		pit(mode, 11932);		/* 100 Hz */
		time_of(0, 1);
		t = time_of(0, 20);
		check(near(t, 3579545 / 5, 10), "mode %u: 20 ticks in %u PM ticks", mode, t);
	}
	pit(0, 11932);
	t = time_of(0, 1);
	check(near(t, 35795, 30), "mode 0: one after %u PM ticks", t);
	u32 seen = ticks[0];
	wait_irq(0, seen + 1, 50);
	check_eq(ticks[0], seen, "and no more");
	unmask(0, false);
}

/* Counting and reading back, without interrupts: channel 2 and its gate. */
static void pit_counter(void)
{
	u16 a, b;

	section("8254 channel 2");
	outb(0x61, (inb(0x61) & ~2) | 1);
	outb(0x43, 0xb0);			/* mode 0 */
	outb(0x42, 0xff);
	outb(0x42, 0xff);
	outb(0x43, 0x80);
	a = inb(0x42);
	a |= inb(0x42) << 8;
	for (u32 t = pm(); ((pm() - t) & 0xffffff) < 30000;)
		;
	outb(0x43, 0x80);
	b = inb(0x42);
	b |= inb(0x42) << 8;
	check(near(a - b, 10000, 15), "counts down by %u in 30000 PM ticks", a - b);
	check(!(inb(0x61) & 0x20), "output low while counting");
	outb(0x61, inb(0x61) & ~1);
	outb(0x43, 0x80);
	a = inb(0x42);
	a |= inb(0x42) << 8;
	for (u32 t = pm(); ((pm() - t) & 0xffffff) < 3000;)
		;
	outb(0x43, 0x80);
	b = inb(0x42);
	b |= inb(0x42) << 8;
	if (!on_tcg)		/* QEMU has no gate in mode 0 */
		check_eq(a, b, "gate low holds the count");
	outb(0x61, inb(0x61) | 1);
	for (u32 t = pm(); ((pm() - t) & 0xffffff) < 250000;)
		;
	check(inb(0x61) & 0x20, "output high at the end");
	/* Read-back: status shows mode and output. */
	outb(0x43, 0xe8);
	check_eq(inb(0x42) & 0xbf, 0x80 | 0x30, "read-back status");
}

static void rtc_tests(void)
{
	u32 t;

	section(with_ioapic ? "RTC through the I/O APIC" : "RTC through the 8259");
	unmask(8, true);
	set_cmos(0xa, 0x26);			/* 1024 Hz */
	cmos(0xc);
	rtc_flags = 0;
	set_cmos(0xb, 0x42);			/* periodic, 24 hours */
	time_of(8, 1);
	t = time_of(8, 64);
	/* QEMU with its RTC on guest time ticks at half the rate of the data sheet. */
	check(near(t, 3579545 / 16, 10) || (on_tcg && near(t, 3579545 / 8, 10)), "periodic: 64 ticks in %u PM ticks", t);
	check_eq(rtc_flags & 0xc0, 0xc0, "flags");
	set_cmos(0xb, 0x12);			/* update ended */
	cmos(0xc);
	rtc_flags = 0;
	time_of(8, 1);
	u8 s = cmos(0);
	t = time_of(8, 1);
	check(near(t, 3579545, 5), "update: one after %u PM ticks", t);
	check_eq(rtc_flags & 0x90, 0x90, "flags");
	check(cmos(0) != s, "the second changed");
	set_cmos(0xb, 2);
	cmos(0xc);
	unmask(8, false);
}

static void pm_timer(void)
{
	u32 last = pm(), wraps = 0, now;

	section("PM timer");
	for (unsigned i = 0; i < 10000; i++) {
		now = pm();
		if (now < last)
			wraps++;
		last = now;
	}
	check(wraps <= 1, "it does not go back: %u", wraps);
	u64 t0 = rdtsc();
	u32 p0 = pm();
	while (((pm() - p0) & 0xffffff) < 35795)
		;
	u64 t1 = rdtsc();
	p0 = pm();
	while (((pm() - p0) & 0xffffff) < 35795)
		;
	u64 t2 = rdtsc();
	u32 a = (t1 - t0) >> 10, b = (t2 - t1) >> 10;
	check(near(a, b, 20), "hundredths of a second in the TSC: %u and %u", a, b);
}

/*
 * The SCI comes when the timer's highest bit changes: every 2.3 s if it has 24
 * bits, every ten minutes if it has 32, which only clock=virtual can afford
 * (option "minutes").
 */
static void pm_interrupt(void)
{
	u16 base = pm_port - 8;
	unsigned seconds = on_tcg ? 4 : 1300;

	section("PM timer interrupt");
	if (!on_tcg && !guest_option("minutes")) {
		skip("it takes ten minutes");
		return;
	}
	if (!(inw(base + 4) & 1))
		outb(0xb2, 2);		/* QEMU's ACPI_ENABLE */
	outw(base, 1);			/* clear TMR_STS */
	outw(base + 2, 1);		/* TMR_EN */
	unmask(9, true);
	unmask(8, true);
	set_cmos(0xb, 0x12);		/* the RTC wakes us every second */
	cmos(0xc);
	for (unsigned i = 0; i < 2; i++) {
		unsigned sci = ticks[9] + 1, end = ticks[8] + seconds;

		while (ticks[9] < sci && ticks[8] < end)
			asm volatile("sti; hlt; cli");
		check(ticks[9] == sci, "the SCI came");
	}
	set_cmos(0xb, 2);
	cmos(0xc);
	unmask(8, false);
	unmask(9, false);
	outw(base + 2, 0);
	outw(base, 1);
}

static void all(void)
{
	pit_tests();
	rtc_tests();
}

static void on_sci(struct frame *f)
{
	ticks[9]++;
	outw(pm_port - 8, 1);		/* level triggered: the cause first */
	eoi(9);
}

void guest_main(void)
{
	outl(0xcf8, 0x8000f840);
	pm_port = (inl(0xcfc) & 0xff80) + 8;
	for (unsigned i = 0; i < 16; i++)
		on_trap(IRQ_BASE + i, on_irq);
	on_trap(IRQ_BASE + 9, on_sci);
	APIC[0xf0 / 4] = 0x1ff;
	APIC[0x350 / 4] = 0x700;	/* LINT0: ExtINT */
	pic_init();
	timeout_init();
	pm_timer();
	pit_counter();
	all();
	pm_interrupt();
	outb(0x21, 0xff);
	outb(0xa1, 0xff);
	APIC[0x350 / 4] = 0x10000;
	with_ioapic = true;
	all();
}
