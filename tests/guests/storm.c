/*
 * A handler whose own first instruction faults, on a stack that it is given anew
 * each time: for ever.  Guest time goes on all the same, so that clock.limit ends it.
 */
#include "lib/guest.h"

SNIPPET(ud_for_ever, "ud2");

void guest_main(void)
{
	print("PASSED if clock.limit ends this\n");
	tss.ist[0] = (ulong)page_alloc() + 4096;
	set_gate(UD, ud_for_ever, 8, 0xe, 0, 1);
	asm volatile("ud2");
}
