/* Known registers, a word at 8 MiB, and a counter that is written to one page after the other. */
#include "multiboot.h"
guest:
	movl $0x736b6570, 0x800000
	movl $0x5ca1ab1e, %ebx
	movl $0x0ddba115, %ebp
	xorl %ecx, %ecx
	xorl %esi, %esi
1:	incl %ecx
	movl %ecx, %edi
	andl $0x3ff, %edi
	shll $12, %edi
	movl %ecx, 0x1000000(%edi)
	jmp 1b
