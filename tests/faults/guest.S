/*
 * A guest that notices.  128 pages, filled with what does not compress; every round each of them
 * is checked for the word of the round before and gets the new one; then the round is told, in
 * RAM (ROUND) and on COM1, as eight digits and a newline.  A page that is not as it should be counts
 * in ERRORS, and is a '!' on COM1.
 */
#include "../e2e/guests/multiboot.h"

#ifndef PAGES
#define PAGES	128
#endif
#define BASE	0x1c0000	/* 128 pages: to 0x240000, in two chunks of 2 MiB */
#define ROUND	0x160000
#define ERRORS	0x160004

guest:
	cld
	movl $BASE, %edi
	movl $(PAGES * 1024), %ecx
	movl $0x2545f491, %eax
1:	imull $1664525, %eax, %eax
	addl $1013904223, %eax
	stosl
	loop 1b

	xorl %ebp, %ebp			/* the round */
	movl $BASE, %edi
	movl $PAGES, %ecx
	xorl %eax, %eax
2:	movl %eax, (%edi)		/* round 0 */
	incl %eax
	addl $4096, %edi
	loop 2b

round:	imull $0x9e3779b1, %ebp, %esi	/* what round n writes: n * K ^ page */
	incl %ebp
	imull $0x9e3779b1, %ebp, %edx
	movl $BASE, %edi
	xorl %ecx, %ecx
3:	movl %esi, %eax
	xorl %ecx, %eax
	cmpl %eax, (%edi)
	je 4f
	incl ERRORS
	pushl %edx
	movb $'!', %al
	call put
	popl %edx
4:	movl %edx, %eax
	xorl %ecx, %eax
	movl %eax, (%edi)
	addl $4096, %edi
	incl %ecx
	cmpl $PAGES, %ecx
	jb 3b
	movl %ebp, ROUND

	movl %ebp, %ebx
	movl $8, %ecx
5:	roll $4, %ebx
	movl %ebx, %eax
	andl $15, %eax
	movb digits(%eax), %al
	call put
	loop 5b
	movb $10, %al
	call put
	jmp round

put:	movb %al, %ah
	movw $0x3fd, %dx
6:	inb %dx, %al
	testb $0x20, %al
	jz 6b
	movw $0x3f8, %dx
	movb %ah, %al
	outb %al, %dx
	ret

digits:	.ascii "0123456789abcdef"
