/*
 * Counts with timer interrupts, in user mode and in HLT, and checks itself all the time: whoever saves it
 * and goes on with it, on whatever executes it, must not be noticed.
 *
 * User mode holds a constant in each register, also of SSE and x87, and a sequence whose n-th member
 * is known; the kernel (general registers only) has a one-shot timer of the local APIC, which is lost
 * for good if one interrupt is, and the 8254 through the I/O APIC.  It never ends by itself; each
 * round says a line.
 */
#include "lib/guest.h"

#define LAPIC		0xfee00000ul
#define IOAPIC		0xfec00000ul
#define APIC_EOI	0xb0
#define APIC_SVR	0xf0
#define APIC_TIMER	0x320
#define APIC_INITIAL	0x380
#define APIC_DIVIDE	0x3e0

#define VEC_TIMER	0x40
#define VEC_PIT		0x41
#define ONE_SHOT	200000		/* ns */
#define LONG_SHOT	5000000		/* and every fourth one: a stop finds it half-way */
#define TICKS		10		/* of the timer in each half of a round */
#define FACTOR		6364136223846793005ul
#define ADDEND		1442695040888963407ul

SNIPPET(user,
	"movabs $0x8000200000, %rdi\n"		/* USER_DATA */
	"fninit\n fldpi\n fldl2e\n fldln2\n"
	"movabs $0x0808080808080808, %r8\n movabs $0x0909090909090909, %r9\n"
	"movabs $0x1010101010101010, %r10\n movabs $0x1111111111111111, %r11\n"
	"movabs $0x1212121212121212, %r12\n movabs $0x1313131313131313, %r13\n"
	"movabs $6364136223846793005, %r14\n movabs $1442695040888963407, %r15\n"
	"movq %r8, %xmm0\n movq %r9, %xmm1\n movq %r10, %xmm7\n movq %r11, %xmm8\n"
	"movq %r12, %xmm14\n movq %r13, %xmm15\n punpcklqdq %xmm15, %xmm15\n"
	"mov 8(%rdi), %rax\n mov 16(%rdi), %rcx\n"
	"1: inc %rax\n imul %r14, %rcx\n add %r15, %rcx\n"
	"movq %xmm0, %rdx\n cmp %r8, %rdx\n jne 2f\n movq %xmm1, %rdx\n cmp %r9, %rdx\n jne 2f\n"
	"movq %xmm7, %rdx\n cmp %r10, %rdx\n jne 2f\n movq %xmm8, %rdx\n cmp %r11, %rdx\n jne 2f\n"
	"movq %xmm14, %rdx\n cmp %r12, %rdx\n jne 2f\n"
	"movdqa %xmm15, %xmm2\n psrldq $8, %xmm2\n movq %xmm2, %rdx\n cmp %r13, %rdx\n jne 2f\n"
	"fldpi\n fcomip %st(3), %st\n jne 2f\n"
	"cmpl $0, (%rdi)\n je 1b\n"
	"mov %rax, 8(%rdi)\n mov %rcx, 16(%rdi)\n ud2\n"
	"2: int3\n");

static volatile u32 ticks, pits, wanted;
static volatile u32 *stop;

static void apic_set(u32 reg, u32 v) { *(volatile u32 *)(LAPIC + reg) = v; }

static void ioapic_set(u32 reg, u32 v)
{
	*(volatile u32 *)IOAPIC = reg;
	*(volatile u32 *)(IOAPIC + 0x10) = v;
}

static void on_timer(struct frame *f)
{
	if (++ticks >= wanted)
		*stop = 1;
	/* In this order it is armed, requested or in service at any time, once it has begun. */
	apic_set(APIC_INITIAL, ticks % 4 ? ONE_SHOT : LONG_SHOT);
	apic_set(APIC_EOI, 0);
}

static void on_pit(struct frame *f)
{
	pits++;
	apic_set(APIC_EOI, 0);
}

/* The n-th member of the sequence, by doubling. */
static u64 member(u64 n)
{
	u64 a = FACTOR, c = ADDEND, x = 1;

	for (; n; n >>= 1) {
		if (n & 1)
			x = x * a + c;
		c = a * c + c;
		a *= a;
	}
	return x;
}

void guest_main(void)
{
	volatile u64 *data;
	ulong code = user_code(user, user_end);
	u32 round, silent = 0;

	data = page_alloc();
	map(USER_DATA, (u64)data, PTE_P | PTE_W | PTE_U, 1);
	stop = (volatile u32 *)data;
	data[2] = 1;
	outb(0x21, 0xff);
	outb(0xa1, 0xff);
	on_trap(VEC_TIMER, on_timer);
	on_trap(VEC_PIT, on_pit);
	apic_set(APIC_SVR, 0x1ff);
	apic_set(APIC_DIVIDE, 0xb);
	apic_set(APIC_TIMER, VEC_TIMER);
	ioapic_set(0x10 + 2 * 2 + 1, 0);
	ioapic_set(0x10 + 2 * 2, VEC_PIT);
	outb(0x43, 0x34);
	outb(0x40, 0xa9);
	outb(0x40, 0x04);
	apic_set(APIC_INITIAL, ONE_SHOT);
	for (round = 1;; round++) {
		int trap;

		*stop = 0;
		wanted = ticks + TICKS;
		trap = try_call((const void *)enter_user, code, USER_STACK, FL_IF | 2);
		if (trap != UD)
			die("round %u: user mode ended with trap %d at 0x%lx", round, trap, last.f.ip);
		if (data[2] != member(data[1]))
			die("round %u: the sequence broke", round);
		wanted = ticks + TICKS;
		while (ticks < wanted)
			asm volatile("sti; hlt; cli" ::: "memory");
		print("round %u\n", round);
		/* A busy host may be late, but not for ever. */
		silent = pits ? 0 : silent + 1;
		if (silent == 500)
			die("round %u: the 8254 is silent", round);
		pits = 0;
	}
}
