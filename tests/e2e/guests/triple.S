/* An interrupt with no IDT: #GP, #DF, shutdown (SDM vol. 3, 6.15, "Interrupt 8"). */
#include "multiboot.h"
guest:
	lidt empty
	int3
1:	jmp 1b
empty:
	.word 0
	.long 0
