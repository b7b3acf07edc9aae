/* Multiboot (1) to long mode, 4 GiB mapped one to one, and the interrupt stubs. */
	.section .multiboot, "ax"
	.align 4
	.long 0x1badb002, 0, -0x1badb002

	.text
	.code32
	.globl _start
_start:
	cld
	movl $stack_top, %esp
	movl %eax, boot_magic
	movl %ebx, boot_info

	movl $(pdpt + 3), pml4
	movl $(pd + 3), %eax
	movl $pdpt, %edi
	movl $4, %ecx
1:	movl %eax, (%edi)
	addl $4096, %eax
	addl $8, %edi
	loop 1b
	movl $0x83, %eax		/* present, writable, 2 MiB */
	movl $pd, %edi
	movl $2048, %ecx
2:	movl %eax, (%edi)
	addl $0x200000, %eax
	addl $8, %edi
	loop 2b

	movl $0x20, %eax		/* PAE */
	movl %eax, %cr4
	movl $pml4, %eax
	movl %eax, %cr3
	movl $0xc0000080, %ecx		/* EFER: LME */
	rdmsr
	orl $0x100, %eax
	wrmsr
	movl %cr0, %eax
	orl $0x80010001, %eax		/* PG, WP, PE */
	movl %eax, %cr0
	lgdt gdtr
	ljmp $8, $1f

	.code64
1:	movl $16, %eax
	movl %eax, %ss
	movl %eax, %ds
	movl %eax, %es
	movl %eax, %fs
	movl %eax, %gs
	movq $stack_top, %rsp
	call demo_main
2:	cli
	hlt
	jmp 2b

	/* One stub a vector, 16 bytes apart; the frame is in board.h. */
	.globl stubs
	.align 16
stubs:
	.set vec, 0
	.rept 256
	.align 16
	.if (vec == 8) || ((vec >= 10) && (vec <= 14)) || (vec == 17) || (vec == 21)
	.else
	pushq $0
	.endif
	pushq $vec
	jmp common
	.set vec, vec + 1
	.endr
common:
	pushq %rax
	pushq %rcx
	pushq %rdx
	pushq %rsi
	pushq %rdi
	pushq %r8
	pushq %r9
	pushq %r10
	pushq %r11
	cld
	leaq 72(%rsp), %rdi
	/* Nine registers, vector, error code and the processor's aligned five: even by 16. */
	call interrupt
	popq %r11
	popq %r10
	popq %r9
	popq %r8
	popq %rdi
	popq %rsi
	popq %rdx
	popq %rcx
	popq %rax
	addq $16, %rsp
	iretq

	.data
	.align 8
gdt:	.quad 0
	.quad 0x00af9b000000ffff
	.quad 0x00cf93000000ffff
gdtr:	.word 23
	.quad gdt

	.globl boot_magic, boot_info
boot_magic: .long 0
boot_info: .long 0

	.bss
	.align 4096
pml4:	.skip 4096
pdpt:	.skip 4096
pd:	.skip 4 * 4096
	.skip 16384
stack_top:
