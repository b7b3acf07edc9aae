/* Several processors that all halt with interrupts off, one after the other: the machine has ended. */
#include "lib/smp.h"

static void halt_alone(unsigned cpu, ulong arg)
{
	for (volatile unsigned i = 0; i < cpu * 10000; i++)
		;
	for (;;)
		asm volatile("cli; hlt");
}

void guest_main(void)
{
	smp_start();
	print("now the halt\n");
	smp_run(halt_alone, 0);
}
