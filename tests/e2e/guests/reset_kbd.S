/* The keyboard controller pulses the processor's reset line. */
#include "multiboot.h"
guest:
	mov $0xfe, %al
	out %al, $0x64
1:	jmp 1b
