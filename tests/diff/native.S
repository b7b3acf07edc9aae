/*
 * Into native code and out of it again.  struct native_context, at diff_context, in native.h.
 *
 * The signal handler runs with whatever FS base and flags the case had, so it puts these right
 * before it calls C.  It never returns to a case that faulted: it goes on as if the case had
 * jumped to the exit.
 */
#define GPR(n)		((n) * 8)
#define FRAME		128
#define FS_BASE		168
#define GS_BASE		176
#define HOST_RSP	184
#define HOST_FS		192
#define HOST_GS		200
#define IN_NATIVE	208
#define USE_FSGS	216
#define USE_SEGMENTS	224
#define HOST_DS		232
#define HOST_ES		240
#define RFLAGS_OUT	248
#define YMMH		256
#define HAS_AVX		512
#define FX		576

#define RFLAGS_AC_NT	0x44000

	.text
	.globl diff_native_enter, diff_native_exit, diff_native_signal, diff_native_end
	.hidden diff_context
	.type diff_native_enter, @function
	.type diff_native_signal, @function

/* void diff_native_enter(void) */
diff_native_enter:
	push	%rbx
	push	%rbp
	push	%r12
	push	%r13
	push	%r14
	push	%r15
	lea	diff_context(%rip), %rax
	mov	%rsp, HOST_RSP(%rax)
	cmpq	$0, USE_FSGS(%rax)
	je	1f
	rdfsbase %rcx
	mov	%rcx, HOST_FS(%rax)
	rdgsbase %rcx
	mov	%rcx, HOST_GS(%rax)
1:	movq	$1, IN_NATIVE(%rax)
	fxrstor64 FX(%rax)
	cmpq	$0, HAS_AVX(%rax)
	je	4f
	.irp	n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
	vinsertf128 $1, YMMH + 16 * \n(%rax), %ymm\n, %ymm\n
	.endr
4:
	cmpq	$0, USE_SEGMENTS(%rax)
	je	2f
	mov	%ds, %ecx
	mov	%rcx, HOST_DS(%rax)
	mov	%es, %ecx
	mov	%rcx, HOST_ES(%rax)
	mov	$0x2b, %ecx
	mov	%ecx, %ds
	mov	%ecx, %es
2:	cmpq	$0, USE_FSGS(%rax)
	je	3f
	mov	FS_BASE(%rax), %rcx
	wrfsbase %rcx
	mov	GS_BASE(%rax), %rcx
	wrgsbase %rcx
3:	lea	FRAME(%rax), %rsp
	mov	GPR(1)(%rax), %rcx
	mov	GPR(2)(%rax), %rdx
	mov	GPR(3)(%rax), %rbx
	mov	GPR(5)(%rax), %rbp
	mov	GPR(6)(%rax), %rsi
	mov	GPR(7)(%rax), %rdi
	mov	GPR(8)(%rax), %r8
	mov	GPR(9)(%rax), %r9
	mov	GPR(10)(%rax), %r10
	mov	GPR(11)(%rax), %r11
	mov	GPR(12)(%rax), %r12
	mov	GPR(13)(%rax), %r13
	mov	GPR(14)(%rax), %r14
	mov	GPR(15)(%rax), %r15
	mov	GPR(0)(%rax), %rax
	/* Serialises, too: the code was written through another mapping. */
	iretq

diff_native_exit:
	mov	%rax, diff_context(%rip)
	lea	diff_context(%rip), %rax
	mov	%rcx, GPR(1)(%rax)
	mov	%rdx, GPR(2)(%rax)
	mov	%rbx, GPR(3)(%rax)
	mov	%rsp, GPR(4)(%rax)
	mov	%rbp, GPR(5)(%rax)
	mov	%rsi, GPR(6)(%rax)
	mov	%rdi, GPR(7)(%rax)
	mov	%r8, GPR(8)(%rax)
	mov	%r9, GPR(9)(%rax)
	mov	%r10, GPR(10)(%rax)
	mov	%r11, GPR(11)(%rax)
	mov	%r12, GPR(12)(%rax)
	mov	%r13, GPR(13)(%rax)
	mov	%r14, GPR(14)(%rax)
	mov	%r15, GPR(15)(%rax)
	mov	HOST_RSP(%rax), %rsp
	pushfq
	popq	RFLAGS_OUT(%rax)
	pushq	$2
	popfq
	fxsave64 FX(%rax)
	cmpq	$0, HAS_AVX(%rax)
	je	5f
	.irp	n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
	vextractf128 $1, %ymm\n, YMMH + 16 * \n(%rax)
	.endr
	vzeroupper
5:
	fninit
	ldmxcsr	default_mxcsr(%rip)
	cmpq	$0, USE_FSGS(%rax)
	je	leave_native
	rdfsbase %rcx
	mov	%rcx, FS_BASE(%rax)
	rdgsbase %rcx
	mov	%rcx, GS_BASE(%rax)
	mov	HOST_FS(%rax), %rcx
	wrfsbase %rcx
	mov	HOST_GS(%rax), %rcx
	wrgsbase %rcx
leave_native:
	cmpq	$0, USE_SEGMENTS(%rax)
	je	1f
	mov	HOST_DS(%rax), %rcx
	mov	%ecx, %ds
	mov	HOST_ES(%rax), %rcx
	mov	%ecx, %es
1:	movq	$0, IN_NATIVE(%rax)
	pop	%r15
	pop	%r14
	pop	%r13
	pop	%r12
	pop	%rbp
	pop	%rbx
	ret

/* void diff_native_signal(int, siginfo_t *, void *): what it returns to restores every register. */
diff_native_signal:
	pushfq
	andq	$~RFLAGS_AC_NT, (%rsp)
	popfq
	lea	diff_context(%rip), %rbx
	cmpq	$0, IN_NATIVE(%rbx)
	je	plain
	cmpq	$0, USE_FSGS(%rbx)
	je	1f
	rdfsbase %r12
	rdgsbase %r13
	mov	HOST_FS(%rbx), %rax
	wrfsbase %rax
	mov	HOST_GS(%rbx), %rax
	wrgsbase %rax
1:	sub	$8, %rsp
	call	diff_native_caught
	add	$8, %rsp
	test	%eax, %eax
	jne	abandon
	cmpq	$0, USE_FSGS(%rbx)
	je	2f
	wrfsbase %r12
	wrgsbase %r13
2:	ret
plain:
	sub	$8, %rsp
	call	diff_native_caught
	add	$8, %rsp
	ret
abandon:
	mov	%rbx, %rax
	mov	HOST_RSP(%rax), %rsp
	cmpq	$0, USE_FSGS(%rax)
	je	leave_native
	mov	%r12, FS_BASE(%rax)
	mov	%r13, GS_BASE(%rax)
	jmp	leave_native
diff_native_end:

	.section .rodata
	.balign 4
default_mxcsr:
	.long	0x1f80

	.section .note.GNU-stack, "", @progbits
