/*
 * Interrupts and clocks: the 8259 pair in front of the local APIC's LINT0
 * (virtual wire), PIT at 100 Hz, the APIC's timer at 10 Hz, TSC and RTC.
 */
#include "board.h"

#define PIC1		0x20
#define PIC2		0xa0
#define PIC_VECTOR	0x20
#define APIC_VECTOR	0x40
#define SPURIOUS_VECTOR	0xff
#define COM1		0x3f8
#define PIT_CLOCK	1193182
#define CALIBRATE_TICKS	5	/* of the PIT: 50 ms */

/* Local APIC registers, SDM vol. 3, table 11-1. */
#define APIC_BASE	0xfee00000ull
#define APIC_EOI	0x0b0
#define APIC_SVR	0x0f0
#define APIC_LVT_TIMER	0x320
#define APIC_LVT_LINT0	0x350
#define APIC_INITIAL	0x380
#define APIC_CURRENT	0x390
#define APIC_DIVIDE	0x3e0

struct gate {
	uint16_t low, selector, attr, middle;
	uint32_t high, zero;
};

extern const char stubs[256][16];
void interrupt(struct frame *f);

volatile uint64_t pit_ticks, apic_ticks;
uint64_t tsc_hz;
static struct gate idt[256];
static volatile uint8_t keys[64];
static volatile unsigned key_head, key_tail;

static uint32_t apic_read(unsigned reg)
{
	return *(volatile uint32_t *)(APIC_BASE + reg);
}

static void apic_write(unsigned reg, uint32_t v)
{
	*(volatile uint32_t *)(APIC_BASE + reg) = v;
}

static void take_keys(void)
{
	while (inb(COM1 + 5) & 1) {
		uint8_t c = inb(COM1);

		if (key_head - key_tail < sizeof(keys))
			keys[key_head++ % sizeof(keys)] = c;
	}
}

void interrupt(struct frame *f)
{
	switch (f->vector) {
	case PIC_VECTOR:
		pit_ticks++;
		outb(PIC1, 0x20);
		break;
	case PIC_VECTOR + 4:
		take_keys();
		outb(PIC1, 0x20);
		break;
	case APIC_VECTOR:
		apic_ticks++;
		apic_write(APIC_EOI, 0);
		break;
	default:
		if (f->vector >= 32)
			break;		/* spurious */
		print("\nexception %lu, error code 0x%lx, at 0x%lx: stopping\n", f->vector, f->error,
		      f->rip);
		for (;;)
			__asm__ volatile("cli; hlt");
	}
}

static void idt_init(void)
{
	struct { uint16_t limit; uint64_t base; } __attribute__((packed)) idtr = {
		sizeof(idt) - 1, (uintptr_t)idt
	};

	for (unsigned i = 0; i < 256; i++) {
		uint64_t t = (uintptr_t)stubs[i];

		idt[i] = (struct gate){ t, 8, 0x8e00, t >> 16, t >> 32, 0 };
	}
	__asm__ volatile("lidt %0" :: "m"(idtr));
}

static void pic_init(void)
{
	outb(PIC1, 0x11);
	outb(PIC2, 0x11);
	outb(PIC1 + 1, PIC_VECTOR);
	outb(PIC2 + 1, PIC_VECTOR + 8);
	outb(PIC1 + 1, 4);
	outb(PIC2 + 1, 2);
	outb(PIC1 + 1, 1);
	outb(PIC2 + 1, 1);
	outb(PIC1 + 1, 0xff & ~(1 << 0 | 1 << 4));
	outb(PIC2 + 1, 0xff);
}

static void pit_init(void)
{
	unsigned reload = PIT_CLOCK / PIT_HZ;

	outb(0x43, 0x34);		/* channel 0, mode 2 */
	outb(0x40, reload & 0xff);
	outb(0x40, reload >> 8);
}

static void wait_pit(uint64_t until)
{
	while (pit_ticks < until)
		__asm__ volatile("hlt");
}

/* Measures TSC and APIC timer against the PIT, then starts the latter. */
static void calibrate(void)
{
	uint64_t tsc, start;
	uint32_t count;

	apic_write(APIC_DIVIDE, 3);			/* by 16 */
	apic_write(APIC_LVT_TIMER, 1 << 16);
	wait_pit(pit_ticks + 1);
	start = pit_ticks;
	apic_write(APIC_INITIAL, 0xffffffff);
	tsc = read_tsc();
	wait_pit(start + CALIBRATE_TICKS);
	tsc = read_tsc() - tsc;
	count = 0xffffffff - apic_read(APIC_CURRENT);
	tsc_hz = tsc * PIT_HZ / CALIBRATE_TICKS;
	apic_write(APIC_LVT_TIMER, 1 << 17 | APIC_VECTOR);	/* periodic */
	apic_write(APIC_INITIAL, count * (uint64_t)PIT_HZ / CALIBRATE_TICKS / APIC_HZ);
}

void board_init(void)
{
	idt_init();
	pic_init();
	apic_write(APIC_SVR, 0x100 | SPURIOUS_VECTOR);
	apic_write(APIC_LVT_LINT0, 0x700);		/* ExtINT */
	pit_init();
	__asm__ volatile("sti");
	calibrate();
}

int board_key(void)
{
	if (key_head == key_tail)
		return -1;
	return keys[key_tail++ % sizeof(keys)];
}

static uint8_t cmos(uint8_t reg)
{
	outb(0x70, reg);
	return inb(0x71);
}

static unsigned decode(uint8_t v, bool binary)
{
	return binary ? v : (v >> 4) * 10 + (v & 15);
}

/* Reads twice until both agree, so that no update falls in between. */
struct wall_time board_wall_time(void)
{
	static const uint8_t regs[6] = { 9, 8, 7, 4, 2, 0 };
	uint8_t a[6], b[6];
	bool binary = cmos(11) & 4, same;
	struct wall_time t;

	do {
		same = true;
		for (unsigned i = 0; i < 6; i++)
			a[i] = cmos(regs[i]);
		for (unsigned i = 0; i < 6; i++) {
			b[i] = cmos(regs[i]);
			same = same && a[i] == b[i];
		}
	} while (!same || (cmos(10) & 0x80));
	t.year = 2000 + decode(a[0], binary);
	t.month = decode(a[1], binary);
	t.day = decode(a[2], binary);
	t.hour = decode(a[3], binary);
	t.minute = decode(a[4], binary);
	t.second = decode(a[5], binary);
	return t;
}

/* PMBASE is read from the LPC bridge (0:31.0, 40h), which need not be where we expect it. */
static uint16_t pm_base(void)
{
	uint32_t base;

	__asm__ volatile("outl %0, %1" :: "a"(0x8000f840u), "Nd"((uint16_t)0xcf8));
	__asm__ volatile("inl %1, %0" : "=a"(base) : "Nd"((uint16_t)0xcfc));
	return base & 0xff80;
}

/* PM1_STS bit 8 (ACPI 6.4, 4.8.3.1.1); writing it back clears it. */
bool board_power_button(void)
{
	uint16_t status, port = pm_base();

	__asm__ volatile("inw %1, %0" : "=a"(status) : "d"(port));
	if (!(status & 0x100))
		return false;
	__asm__ volatile("outw %0, %1" :: "a"((uint16_t)0x100), "d"(port));
	return true;
}

/* The sleep type of S5 is 7 on our board, as on the chip that it follows, and 0 on QEMU's. */
void board_power_off(void)
{
	uint16_t port = pm_base() + 4;

	__asm__ volatile("outw %0, %1" :: "a"((uint16_t)(1 << 13 | 7 << 10)), "d"(port));
	__asm__ volatile("outw %0, %1" :: "a"((uint16_t)(1 << 13)), "d"(port));
}

void board_reset(void)
{
	outb(0xcf9, 2);
	outb(0xcf9, 6);
}
