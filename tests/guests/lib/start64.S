/*
 * Multiboot (1) start in 32-bit protected mode; on to long mode, with the
 * first 4 GiB mapped one to one for the supervisor, SSE on, and guest_main.
 */
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

	movl $(boot_pdpt + 3), boot_pml4
	movl $(boot_pd + 3), %eax
	movl $boot_pdpt, %edi
	movl $4, %ecx
1:	movl %eax, (%edi)
	addl $4096, %eax
	addl $8, %edi
	loop 1b
	movl $0x83, %eax		/* present, writable, 2 MiB */
	movl $boot_pd, %edi
	movl $2048, %ecx
2:	movl %eax, (%edi)
	addl $0x200000, %eax
	addl $8, %edi
	loop 2b

	movl $0x620, %eax		/* PAE, OSFXSR, OSXMMEXCPT */
	movl %eax, %cr4
	movl $boot_pml4, %eax
	movl %eax, %cr3
	movl $0xc0000080, %ecx
	rdmsr
	orl $0x901, %eax		/* SCE, LME, NXE */
	wrmsr
	movl $0x80010033, %eax		/* PG, WP, NE, ET, MP, PE */
	movl %eax, %cr0
	lgdt boot_gdtr
	ljmp $KCODE, $1f

	.code64
1:	movl $KDATA, %eax
	movl %eax, %ss
	movl %eax, %ds
	movl %eax, %es
	xorl %eax, %eax
	movl %eax, %fs
	movl %eax, %gs
	movq $boot_stack_top, %rsp
	xorl %ebp, %ebp
	call guest_start
2:	cli
	hlt
	jmp 2b

	.data
	.align 8
	.globl gdt
gdt:	.quad 0
	.quad 0x00af9b000000ffff	/* KCODE */
	.quad 0x00cf93000000ffff	/* KDATA */
	.quad 0x00cffb000000ffff	/* UCODE32 */
	.quad 0x00cff3000000ffff	/* UDATA */
	.quad 0x00affb000000ffff	/* UCODE */
	.quad 0x00cff3000000ffff	/* what SYSEXIT to 64 bits calls SS */
	.quad 0x00cf9b000000ffff	/* KCODE32 */
	.fill GDT_ENTRIES - 8, 8, 0
boot_gdtr:
	.word GDT_ENTRIES * 8 - 1
	.quad gdt

	.bss
	.align 4096
	.globl boot_pml4, boot_pdpt, boot_pd
boot_pml4: .skip 4096
boot_pdpt: .skip 4096
boot_pd: .skip 4 * 4096
	.skip 65536
	.globl boot_stack_top
boot_stack_top:
	.globl multiboot_magic, multiboot_info
multiboot_magic: .long 0
multiboot_info: .long 0
