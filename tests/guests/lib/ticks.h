/*
 * The 8254 interrupts through the 8259 and LINT0, for guests that are one source file and have an IDT
 * of nothing else.  64-bit guests only.
 */
#ifndef GUEST_TICKS_H
#define GUEST_TICKS_H

#include "guest.h"

#define TICKS_VECTOR	0x20
#define PIT_HZ		1193182u

/* Calls tick, an interrupt function, hz times a second from now on; it ends with ticks_eoi(). */
static void ticks_start(void (*tick)(struct frame *f), unsigned hz)
{
	static struct { u16 lo, sel, attr, mid; u32 hi, zero; } __attribute__((packed, aligned(16)))
		idt[TICKS_VECTOR + 1];
	struct { u16 limit; u64 base; } __attribute__((packed)) idtr = { sizeof(idt) - 1, (ulong)idt };
	volatile u32 *apic = (volatile u32 *)0xfee00000ul;
	ulong t = (ulong)tick;

	idt[TICKS_VECTOR].lo = t;
	idt[TICKS_VECTOR].sel = KCODE;
	idt[TICKS_VECTOR].attr = 0x8e00;
	idt[TICKS_VECTOR].mid = t >> 16;
	idt[TICKS_VECTOR].hi = t >> 32;
	asm volatile("lidt %0" :: "m"(idtr));
	apic[0xf0 / 4] = 0x1ff;		/* on */
	apic[0x350 / 4] = 0x700;	/* LINT0: what the 8259 says */
	outb(0x20, 0x11);
	outb(0x21, TICKS_VECTOR);
	outb(0x21, 4);
	outb(0x21, 1);
	outb(0x21, 0xfe);		/* the timer alone */
	outb(0xa1, 0xff);
	outb(0x43, 0x34);
	outb(0x40, PIT_HZ / hz & 0xff);
	outb(0x40, PIT_HZ / hz >> 8);
	sti();
}

static inline void ticks_eoi(void)
{
	outb(0x20, 0x20);
}

#endif
