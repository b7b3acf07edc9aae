/*
 * Says "b" on COM1 when it starts, fills 4 MiB with noise, says "r", and then writes to all of it, page
 * after page, until a letter comes: r resets, t takes a triple fault, h halts for good, p powers off.
 */
#include "multiboot.h"
#define FROM	0x800000
#define BYTES	0x400000
guest:
	mov $'b', %al
	call say
	mov $FROM, %edi
	mov $0x9e3779b9, %eax
1:	mov %eax, %edx			/* xorshift32 */
	shl $13, %edx
	xor %edx, %eax
	mov %eax, %edx
	shr $17, %edx
	xor %edx, %eax
	mov %eax, %edx
	shl $5, %edx
	xor %edx, %eax
	stosl
	cmp $FROM + BYTES, %edi
	jne 1b
	mov $'r', %al
	call say
2:	mov $FROM, %edi
3:	incl (%edi)
	add $4096, %edi
	mov $0x3fd, %dx
	in %dx, %al
	test $1, %al
	jnz 4f
	cmp $FROM + BYTES, %edi
	jne 3b
	jmp 2b
4:	mov $0x3f8, %dx
	in %dx, %al
	cmp $'r', %al
	je reset
	cmp $'t', %al
	je triple
	cmp $'h', %al
	je halt
	cmp $'p', %al
	je power
	call say
	jmp 2b
reset:
	mov $0xcf9, %dx
	mov $2, %al
	out %al, %dx
	mov $6, %al
	out %al, %dx
1:	jmp 1b
triple:
	lidt empty
	int3
halt:
	cli
	hlt
	jmp halt
power:
	mov $0x604, %dx			/* PM1a_CNT: S5 */
	mov $0x3c01, %ax
	out %ax, %dx
1:	jmp 1b
say:
	mov $0x3f8, %dx
	out %al, %dx
	ret
empty:
	.word 0
	.long 0
