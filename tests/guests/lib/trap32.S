/* Interrupt stubs, try_call, and the way to user mode, for 32-bit guests. */
#include "layout.h"
	.text
	.code32
	.globl trap_stubs
	.align 16
trap_stubs:
	.set vec, 0
	.rept 256
	.align 16
	.if (vec == 8) || ((vec >= 10) && (vec <= 14)) || (vec == 17) || (vec == 21)
	.else
	pushl $0
	.endif
	pushl $vec
	jmp trap_common
	.set vec, vec + 1
	.endr

trap_common:
	pushl %eax
	pushl %ebx
	pushl %ecx
	pushl %edx
	pushl %esi
	pushl %edi
	pushl %ebp
	movl %ds, %esi
	movl %es, %edi
	movl %ss, %eax
	movl %eax, %ds
	movl %eax, %es
	cld
	movl %esp, %ebx
	pushl %ebx
	call trap_c
	movl %ebx, %esp
	movl %esi, %ds
	movl %edi, %es
	popl %ebp
	popl %edi
	popl %esi
	popl %edx
	popl %ecx
	popl %ebx
	popl %eax
	addl $8, %esp
	iret

	.globl try_call
try_call:
	pushl %ebx
	pushl %ebp
	pushl %esi
	pushl %edi
	pushfl
	pushl try_sp
	movl %esp, try_sp
	pushl 40(%esp)			/* c */
	pushl 40(%esp)			/* b */
	pushl 40(%esp)			/* a */
	call *40(%esp)			/* fn */
	movl %eax, try_result
	movl $-1, %eax
try_out:
	movl try_sp, %esp
	popl try_sp
	popfl
	popl %edi
	popl %esi
	popl %ebp
	popl %ebx
	ret

	.globl try_unwind
try_unwind:
	movl 4(%esp), %eax
	movl $KDATA, %ecx
	movl %ecx, %ds
	movl %ecx, %es
	movl %ecx, %fs
	movl %ecx, %gs
	movl %ecx, %ss
	jmp try_out

	.globl enter_user, enter_user32
enter_user:
enter_user32:
	movl $(UDATA | 3), %eax
	movl %eax, %ds
	movl %eax, %es
	movl 4(%esp), %ecx		/* ip */
	movl 8(%esp), %edx		/* sp */
	movl 12(%esp), %eax		/* flags */
	pushl $(UDATA | 3)
	pushl %edx
	pushl %eax
	pushl $(UCODE32 | 3)
	pushl %ecx
	iret

	.bss
	.globl try_sp
	.align 4
try_sp:	.long 0
