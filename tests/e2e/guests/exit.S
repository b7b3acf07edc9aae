/* Ends at once through the debug exit port: (0x10 << 1) | 1 = 33. */
#include "multiboot.h"
guest:
	mov $0x10, %al
	out %al, $0xf4
1:	hlt
	jmp 1b
