/*
 * Every clock and periodic interrupt of the board at once, and a line about them for each byte that
 * comes from COM1: "tsc T pit N apic N rtc N seconds S pm P", where N counts interrupts since the start
 * and S is the time of day that the RTC tells, in seconds since the year 2000.
 */
#include "lib/guest.h"

#define COM1	0x3f8
#define PM_TMR	0x608
#define PIT_HZ	1193182u
#define APIC	((volatile u32 *)0xfee00000ul)

void guest_start(void);

struct gate { u16 lo, sel, attr, mid; u32 hi, zero; } __attribute__((packed));
static struct gate idt[0x40] __attribute__((aligned(16)));
static volatile u64 pit, apic, rtc;

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

__attribute__((interrupt)) static void on_pit(struct frame *f)
{
	pit++;
	outb(0x20, 0x20);
}

__attribute__((interrupt)) static void on_rtc(struct frame *f)
{
	rtc++;
	cmos(0xc);
	outb(0xa0, 0x20);
	outb(0x20, 0x20);
}

__attribute__((interrupt)) static void on_apic(struct frame *f)
{
	apic++;
	APIC[0xb0 / 4] = 0;
}

static void set(unsigned vector, void (*fn)(struct frame *))
{
	ulong t = (ulong)fn;

	idt[vector] = (struct gate){ t, KCODE, 0x8e00, t >> 16, t >> 32, 0 };
}

static void start(void)
{
	struct { u16 limit; u64 base; } __attribute__((packed)) idtr = { sizeof(idt) - 1, (ulong)idt };

	set(0x20, on_pit);
	set(0x28, on_rtc);
	set(0x30, on_apic);
	asm volatile("lidt %0" :: "m"(idtr));
	outb(0x20, 0x11);
	outb(0xa0, 0x11);
	outb(0x21, 0x20);
	outb(0xa1, 0x28);
	outb(0x21, 4);
	outb(0xa1, 2);
	outb(0x21, 1);
	outb(0xa1, 1);
	outb(0x21, 0xfa);		/* the timer and the other 8259 */
	outb(0xa1, 0xfe);		/* the RTC */
	outb(0x43, 0x34);
	outb(0x40, PIT_HZ / 100 & 0xff);
	outb(0x40, PIT_HZ / 100 >> 8);
	APIC[0xf0 / 4] = 0x1ff;
	APIC[0x350 / 4] = 0x700;	/* LINT0: what the 8259 says */
	APIC[0x3e0 / 4] = 0xb;		/* divide by 1: nanoseconds */
	APIC[0x320 / 4] = 0x20030;	/* periodic */
	APIC[0x380 / 4] = 10000000;
	set_cmos(0xa, 0x20 | 10);	/* 64 Hz */
	set_cmos(0xb, 0x40 | 6);	/* periodic interrupts; 24 hours, binary */
	cmos(0xc);
	asm volatile("sti");
}

static void put(char c)
{
	while (!(inb(COM1 + 5) & 0x20))
		;
	outb(COM1, c);
}

static void say(const char *text, u64 v)
{
	char digits[21], *p = digits + sizeof(digits) - 1;

	while (*text)
		put(*text++);
	*p = 0;
	do
		*--p = '0' + v % 10;
	while (v /= 10);
	while (*p)
		put(*p++);
}

static u64 seconds(void)
{
	static const u16 before[] = { 0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334 };
	u64 day, y, m;
	ulong flags = get_flags();
	u64 s;

	/* The interrupt uses the index port, too. */
	cli();
	while (cmos(0xa) & 0x80)
		;
	y = cmos(9);
	m = cmos(8);
	day = y * 365 + (y + 3) / 4 + before[m - 1] + (m > 2 && y % 4 == 0) + cmos(7) - 1;
	s = ((day * 24 + cmos(4)) * 60 + cmos(2)) * 60 + cmos(0);
	if (flags & FL_IF)
		sti();
	return s;
}

void guest_start(void)
{
	start();
	say("ready ", 0);
	for (;;) {
		while (!(inb(COM1 + 5) & 1))
			asm volatile("hlt");
		inb(COM1);
		say("tsc ", rdtsc());
		say(" pit ", pit);
		say(" apic ", apic);
		say(" rtc ", rtc);
		say(" seconds ", seconds());
		say(" pm ", inl(PM_TMR));
		put('\n');
	}
}
