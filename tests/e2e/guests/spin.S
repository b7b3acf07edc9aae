/* Runs for ever and listens to nobody. */
#include "multiboot.h"
guest:
1:	jmp 1b
