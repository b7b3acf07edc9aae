/* A multiboot (1) header and an entry in 32-bit protected mode: Multiboot specification 0.6.96, 3.1. */
	.section .text
	.align 4
	.long 0x1badb002, 0, -0x1badb002
	.globl _start
	.code32
_start:
	mov $stack_top, %esp
	jmp guest
	.bss
	.align 16
	.skip 4096
stack_top:
	.text
