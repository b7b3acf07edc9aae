/* A triple fault: the exit code says it. */
#include "lib/guest.h"

void guest_main(void)
{
	static const struct { u16 limit; ulong base; } __attribute__((packed)) none = { 0, 0 };

	print("now the triple fault\n");
	asm volatile("lidt %0; ud2" :: "m"(none));
}
