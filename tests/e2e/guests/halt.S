/* HLT that nothing can end. */
#include "multiboot.h"
guest:
	cli
1:	hlt
	jmp 1b
