/* Multiboot (1) start; stays in flat 32-bit protected mode without paging. */
#include "layout.h"

	.section .multiboot, "ax"
	.align 4
	.long 0x1badb002, 0, -0x1badb002

	.text
	.code32
	.globl _start
_start:
	cld
	movl $boot_stack_top, %esp
	movl %eax, multiboot_magic
	movl %ebx, multiboot_info
	lgdt boot_gdtr
	ljmp $KCODE, $1f
1:	movl $KDATA, %eax
	movl %eax, %ss
	movl %eax, %ds
	movl %eax, %es
	movl %eax, %fs
	movl %eax, %gs
	movl $0x600, %eax		/* OSFXSR, OSXMMEXCPT */
	movl %eax, %cr4
	movl $0x00010033, %eax		/* WP, NE, ET, MP, PE */
	movl %eax, %cr0
	xorl %ebp, %ebp
	call guest_start
2:	cli
	hlt
	jmp 2b

	.data
	.align 8
	.globl gdt
gdt:	.quad 0
	.quad 0x00cf9b000000ffff	/* KCODE */
	.quad 0x00cf93000000ffff	/* KDATA */
	.quad 0x00cffb000000ffff	/* UCODE32 */
	.quad 0x00cff3000000ffff	/* UDATA */
	.quad 0x00cffb000000ffff	/* UCODE, the same here */
	.quad 0x00cff3000000ffff
	.quad 0x00cf9b000000ffff	/* KCODE32 */
	.fill GDT_ENTRIES - 8, 8, 0
boot_gdtr:
	.word GDT_ENTRIES * 8 - 1
	.long gdt

	.bss
	.align 4096
	.skip 65536
	.globl boot_stack_top
boot_stack_top:
	.globl multiboot_magic, multiboot_info
multiboot_magic: .long 0
multiboot_info: .long 0
