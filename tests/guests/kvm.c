/*
 * A guest for any backend, also for a KVM whose kernel-mode code is emulated: general registers only
 * at CPL 0, waiting by sti;hlt.  It checks the paths between the guest and what is outside of the
 * kernel's local APIC: ports, MMIO, level-triggered interrupts and their end, the 8259 pair through
 * LINT0, messages, the APIC's timer and the PIT.
 */
#include "lib/guest.h"

#define LAPIC		0xfee00000ul
#define IOAPIC		0xfec00000ul
#define APIC_ID		0x20
#define APIC_EOI	0xb0
#define APIC_SVR	0xf0
#define APIC_ICR	0x300
#define APIC_ICR_HIGH	0x310
#define APIC_TIMER	0x320
#define APIC_LINT0	0x350
#define APIC_INITIAL	0x380
#define APIC_CURRENT	0x390
#define APIC_DIVIDE	0x3e0

#define VEC_TIMER	0x40
#define VEC_PIT		0x41
#define VEC_UART	0x42
#define VEC_SELF	0x43
#define VEC_PIC		0x50
#define COM2		0x2f8

static u32 apic(u32 reg) { return *(volatile u32 *)(LAPIC + reg); }
static void apic_set(u32 reg, u32 v) { *(volatile u32 *)(LAPIC + reg) = v; }

static u32 ioapic(u32 reg)
{
	*(volatile u32 *)IOAPIC = reg;
	return *(volatile u32 *)(IOAPIC + 0x10);
}

static void ioapic_set(u32 reg, u32 v)
{
	*(volatile u32 *)IOAPIC = reg;
	*(volatile u32 *)(IOAPIC + 0x10) = v;
}

static void route(u32 pin, u32 low)
{
	ioapic_set(0x11 + 2 * pin, 0);
	ioapic_set(0x10 + 2 * pin, low);
}

static volatile u32 fired[256];

static void count_apic(struct frame *f)
{
	fired[f->vec]++;
	apic_set(APIC_EOI, 0);
}

/* A level that stays until the UART's reason is gone. */
static void count_uart(struct frame *f)
{
	fired[f->vec]++;
	if (fired[f->vec] >= 3)
		outb(COM2 + 1, 0);
	apic_set(APIC_EOI, 0);
}

static void count_pic(struct frame *f)
{
	fired[f->vec]++;
	outb(0x20, 0x20);
}

/* Waits until it has fired so often; the PIT or the APIC's timer ends each HLT. */
static bool wait_for(u32 vec, u32 n)
{
	u32 i;

	for (i = 0; i < 10000 && fired[vec] < n; i++)
		asm volatile("sti; hlt; cli" ::: "memory");
	return fired[vec] >= n;
}

static void test_timer(void)
{
	section("APIC timer");
	apic_set(APIC_DIVIDE, 0xb);
	apic_set(APIC_TIMER, VEC_TIMER | 1u << 17);
	apic_set(APIC_INITIAL, 1000000);
	check(apic(APIC_CURRENT) <= 1000000, "it counts down");
	check(wait_for(VEC_TIMER, 20), "periodic");
	apic_set(APIC_TIMER, VEC_TIMER);
	fired[VEC_TIMER] = 0;
	apic_set(APIC_INITIAL, 500000);
	check(wait_for(VEC_TIMER, 1), "one shot");
	check_eq(apic(APIC_CURRENT), 0, "and no more");
	apic_set(APIC_TIMER, VEC_TIMER | 1u << 17);	/* from here on it ends every wait */
	apic_set(APIC_INITIAL, 1000000);
}

static void test_ipi(void)
{
	section("interrupts between processors");
	apic_set(APIC_ICR_HIGH, apic(APIC_ID));
	apic_set(APIC_ICR, VEC_SELF);
	check(wait_for(VEC_SELF, 1), "to itself by its ID");
	apic_set(APIC_ICR, VEC_SELF | 1u << 18);
	check(wait_for(VEC_SELF, 2), "by the shorthand");
}

static void test_ioapic(void)
{
	u32 before;

	section("I/O APIC");
	check_eq(ioapic(1) >> 16 & 0xff, 23, "24 pins");
	route(2, VEC_PIT);
	outb(0x43, 0x34);
	outb(0x40, 0xa9);
	outb(0x40, 0x04);
	check(wait_for(VEC_PIT, 20), "the 8254 through pin 2, edges");
	route(2, 1u << 16);

	/* The transmitter is empty: COM2 asserts IRQ 3 until told otherwise. */
	route(3, VEC_UART | 1u << 15);
	outb(COM2 + 4, 8);
	outb(COM2 + 1, 2);
	check(wait_for(VEC_UART, 3), "a level that stays comes again after each EOI");
	before = fired[VEC_TIMER];
	wait_for(VEC_TIMER, before + 5);
	check_eq(fired[VEC_UART], 3, "and no more when it is gone");
	check_eq(ioapic(0x10 + 2 * 3) & 1u << 14, 0, "remote IRR is clear");
	route(3, 1u << 16);
}

static void test_pic(void)
{
	section("8259 pair through LINT0");
	outb(0x20, 0x11);
	outb(0x21, VEC_PIC);
	outb(0x21, 4);
	outb(0x21, 1);
	outb(0xa0, 0x11);
	outb(0xa1, VEC_PIC + 8);
	outb(0xa1, 2);
	outb(0xa1, 1);
	apic_set(APIC_LINT0, 0x700);
	outb(0x21, 0xfe);
	check(wait_for(VEC_PIC, 10), "the 8254 as ExtINT");
	outb(0x21, 0xff);
	apic_set(APIC_LINT0, 0x10700);
}

static void test_hpet(void)
{
	volatile u64 *hpet = (u64 *)0xfed00000ul;

	section("HPET");
	if (*(volatile u32 *)hpet == 0xffffffff || *(volatile u32 *)hpet == 0) {
		skip("no HPET");
		return;
	}
	hpet[2] = 0;
	hpet[0x100 / 8] = 1u << 6 | 1u << 3 | 1u << 2;		/* periodic, level off: edges */
	hpet[2] = 1;
	check(hpet[0xf0 / 8] <= hpet[0xf0 / 8], "its counter goes forward");
	hpet[2] = 0;
}

void guest_main(void)
{
	outb(0x21, 0xff);
	outb(0xa1, 0xff);
	on_trap(VEC_TIMER, count_apic);
	on_trap(VEC_PIT, count_apic);
	on_trap(VEC_SELF, count_apic);
	on_trap(VEC_UART, count_uart);
	on_trap(VEC_PIC, count_pic);
	apic_set(APIC_SVR, 0x1ff);
	test_timer();
	test_ipi();
	test_ioapic();
	test_pic();
	test_hpet();
	section("ports");
	outb(0x70, 0x0f);
	outb(0x71, 0x5a);
	outb(0x70, 0x0f);
	check_eq(inb(0x71), 0x5a, "a byte of the RTC's memory");
	outl(0xcf8, 0x80000000);
	check_eq(inl(0xcfc), 0x29c08086, "the host bridge");
}
