/* Several processors, and a triple fault of one that is not the first: it ends the machine. */
#include "lib/smp.h"

static void die_alone(unsigned cpu, ulong arg)
{
	static const struct { u16 limit; ulong base; } __attribute__((packed)) none = { 0, 0 };

	if (cpu == smp_count - 1)
		asm volatile("lidt %0; ud2" :: "m"(none));
	for (;;)
		cpu_pause();
}

void guest_main(void)
{
	smp_start();
	print("now the triple fault\n");
	smp_run(die_alone, 0);
}
