	.section .multiboot, "ax"
	.align 4
	.long 0x1badb002, 0, -0x1badb002
	.text
	.globl _start
_start:
	xorl %eax, %eax
	movw $0xf4, %dx
	outb %al, %dx
1:	cli
	hlt
	jmp 1b
