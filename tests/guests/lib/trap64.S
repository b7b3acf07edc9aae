/* Interrupt stubs, try_call, and the way to user mode, for 64-bit guests. */
#include "layout.h"
	.text
	.code64
	.globl trap_stubs
	.align 16
trap_stubs:
	.set vec, 0
	.rept 256
	.align 16
	.if (vec == 8) || ((vec >= 10) && (vec <= 14)) || (vec == 17) || (vec == 21)
	.else
	pushq $0
	.endif
	pushq $vec
	jmp trap_common
	.set vec, vec + 1
	.endr

trap_common:
	pushq %rax
	pushq %rbx
	pushq %rcx
	pushq %rdx
	pushq %rsi
	pushq %rdi
	pushq %rbp
	pushq %r8
	pushq %r9
	pushq %r10
	pushq %r11
	pushq %r12
	pushq %r13
	pushq %r14
	pushq %r15
	cld
	movq %rsp, %rdi
	movq %rsp, %rbx
	andq $-16, %rsp
	call trap_c			/* returns: go back; or goes to try_unwind */
	movq %rbx, %rsp
	popq %r15
	popq %r14
	popq %r13
	popq %r12
	popq %r11
	popq %r10
	popq %r9
	popq %r8
	popq %rbp
	popq %rdi
	popq %rsi
	popq %rdx
	popq %rcx
	popq %rbx
	popq %rax
	addq $16, %rsp
	iretq

	.globl try_call
try_call:
	pushq %rbx
	pushq %rbp
	pushq %r12
	pushq %r13
	pushq %r14
	pushq %r15
	pushfq
	pushq try_sp
	movq %rsp, try_sp
	movq %rdi, %rax
	movq %rsi, %rdi
	movq %rdx, %rsi
	movq %rcx, %rdx
	subq $8, %rsp
	call *%rax
	movq %rax, try_result
	movl $-1, %eax
try_out:
	movq try_sp, %rsp
	popq try_sp
	popfq
	popq %r15
	popq %r14
	popq %r13
	popq %r12
	popq %rbp
	popq %rbx
	ret

	/* try_unwind(vector) */
	.globl try_unwind
try_unwind:
	movl %edi, %eax
	movl $KDATA, %ecx
	movl %ecx, %ds
	movl %ecx, %es
	movl %ecx, %ss
	jmp try_out

	.globl enter_user, enter_user32
enter_user:
	pushq $(UDATA | 3)
	pushq %rsi
	pushq %rdx
	pushq $(UCODE | 3)
	pushq %rdi
	iretq
enter_user32:
	movl $(UDATA | 3), %eax
	movl %eax, %ds
	movl %eax, %es
	pushq $(UDATA | 3)
	pushq %rsi
	pushq %rdx
	pushq $(UCODE32 | 3)
	pushq %rdi
	iretq

	.bss
	.globl try_sp
	.align 8
try_sp:	.quad 0
