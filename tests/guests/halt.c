/* HLT with interrupts off and nothing to end it: the exit code says it. */
#include "lib/guest.h"

void guest_main(void)
{
	print("now the halt\n");
	for (;;)
		asm volatile("cli; hlt");
}
