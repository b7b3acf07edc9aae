/*
 * Several processors that all halt with interrupts off, one after the other: the machine has ended.  Before
 * that, with the option "reset", the machine is reset while all others halt with interrupts on: then they
 * wait to be started, and the first one's halt ends it.
 */
#include "lib/smp.h"

#define MARK	0x5a		/* in the RTC's RAM, which a reset leaves alone */

static bool was_reset(void)
{
	outb(0x70, 0x40);
	return inb(0x71) == MARK;
}

static void halt_ready(unsigned cpu, ulong arg)
{
	if (cpu)
		for (;;)
			asm volatile("sti; hlt");
	for (volatile unsigned i = 0; i < 1000000; i++)
		;
	outb(0xcf9, 6);
	for (;;)
		cpu_pause();
}

static void halt_alone(unsigned cpu, ulong arg)
{
	for (volatile unsigned i = 0; i < cpu * 10000; i++)
		;
	for (;;)
		asm volatile("cli; hlt");
}

void guest_main(void)
{
	if (was_reset())
		halt_alone(0, 0);
	smp_start();
	if (guest_option("reset")) {
		outb(0x70, 0x40);
		outb(0x71, MARK);
		print("now the reset\n");
		smp_run(halt_ready, 0);
	}
	print("now the halt\n");
	smp_run(halt_alone, 0);
}
