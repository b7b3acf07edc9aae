/*
 * The local APIC from inside: identification, self IPIs, priorities, the
 * timer in its three modes, x2APIC.  SDM vol. 3, chapter 11.
 */
#include "lib/guest.h"

#define APIC_BASE_MSR 0x1b
#define DEADLINE_MSR 0x6e0

enum { ID = 0x20, VERSION = 0x30, TPR = 0x80, PPR = 0xa0, EOI = 0xb0, LDR = 0xd0, DFR = 0xe0,
       SVR = 0xf0, ISR = 0x100, TMR = 0x180, IRR = 0x200, ESR = 0x280, ICR = 0x300, ICR_HI = 0x310,
       LVT_TIMER = 0x320, LVT_LINT0 = 0x350, LVT_LINT1 = 0x360, LVT_ERROR = 0x370, TICR = 0x380,
       TCCR = 0x390, TDCR = 0x3e0 };

#define SELF (1u << 18)
#define ASSERT (1u << 14)

static bool x2;

static u32 rd(unsigned reg)
{
	return x2 ? rdmsr(0x800 + reg / 16) : *(volatile u32 *)(0xfee00000ul + reg);
}

static void wr(unsigned reg, u32 v)
{
	if (x2)
		wrmsr(0x800 + reg / 16, v);
	else
		*(volatile u32 *)(0xfee00000ul + reg) = v;
}

static u8 order[64];
static volatile unsigned norder;
static bool hold_eoi;

static void on_vector(struct frame *f)
{
	if (norder < sizeof(order))
		order[norder] = f->vec;
	norder++;
	if (!hold_eoi)
		wr(EOI, 0);
}

static void ipi(u8 vec)
{
	wr(ICR, SELF | ASSERT | vec);
}

/* Lets in what is pending; bounded, so that a lost interrupt is a failed check. */
static void window(void)
{
	sti();
	for (volatile unsigned i = 0; i < 2000; i++)
		;
	cli();
}

static bool wait_count(unsigned n)
{
	u64 end = rdtsc() + 20000000000ull;

	while (norder < n && rdtsc() < end) {
		sti();
		asm volatile("nop; nop");
		cli();
	}
	return norder >= n;
}

static bool bit_of(unsigned base, u8 vec)
{
	return rd(base + (vec >> 5) * 16) >> (vec & 31) & 1;
}

static void identity(void)
{
	u32 a, b, c, d;

	cpuid(1, 0, &a, &b, &c, &d);
	check_eq(x2 ? rd(ID) : rd(ID) >> 24, b >> 24, "ID is what CPUID says");
	check(d & 1 << 9, "CPUID tells of an APIC");
	check((rd(VERSION) & 0xff) >= 0x10 && (rd(VERSION) & 0xff) <= 0x15, "version 0x%x",
	      rd(VERSION));
	check((rd(VERSION) >> 16 & 0xff) >= 4, "LVT entries");
	check(rdmsr(APIC_BASE_MSR) & BIT(8), "this is the boot processor");
	check(rdmsr(APIC_BASE_MSR) & BIT(11), "the APIC is enabled");
}

static void self_ipis(void)
{
	norder = 0;
	ipi(0x41);
	check(bit_of(IRR, 0x41), "pending in IRR");
	check(!bit_of(ISR, 0x41), "not in service");
	check_eq(norder, 0, "IF clear keeps it out");
	window();
	check_eq(norder, 1, "delivered once");
	check_eq(order[0], 0x41, "the vector");
	check(!bit_of(IRR, 0x41) && !bit_of(ISR, 0x41), "all clear after EOI");
	norder = 0;
	ipi(0x41);
	ipi(0x41);
	window();
	check_eq(norder, 1, "two of the same vector are one");
	/* The highest first, whatever the order of sending. */
	norder = 0;
	ipi(0x52);
	ipi(0x91);
	ipi(0x33);
	ipi(0x90);
	window();
	check_eq(norder, 4, "four");
	check_eq((u32)order[0] << 24 | order[1] << 16 | order[2] << 8 | order[3], 0x91905233,
		 "by priority");
}

static void priorities(void)
{
	norder = 0;
	wr(TPR, 0x50);
	check_eq(rd(PPR), 0x50, "PPR follows TPR");
	ipi(0x5f);
	ipi(0x60);
	window();
	check_eq(norder, 1, "TPR keeps its own class and below out");
	check_eq(order[0], 0x60, "the one above came");
	wr(TPR, 0x4f);
	window();
	check_eq(norder, 2, "the other one after TPR is lowered");
	wr(TPR, 0);
	asm volatile("mov %0, %%cr8" :: "r"(6ul));
	check_eq(rd(TPR), 0x60, "CR8 is TPR 7:4");
	wr(TPR, 0x37);
	ulong cr8;
	asm volatile("mov %%cr8, %0" : "=r"(cr8));
	check_eq(cr8, 3, "and the other way round");
	wr(TPR, 0);
	/* An interrupt in service keeps lower ones out until EOI. */
	norder = 0;
	hold_eoi = true;
	ipi(0x70);
	window();
	check(bit_of(ISR, 0x70), "in service without EOI");
	check_eq(rd(PPR), 0x70, "PPR follows what is in service");
	ipi(0x71);
	ipi(0x80);
	window();
	check_eq(norder, 2, "only the higher class comes");
	check_eq(order[1], 0x80, "which it is");
	wr(EOI, 0);
	check(bit_of(ISR, 0x70) && !bit_of(ISR, 0x80), "EOI ends the highest");
	hold_eoi = false;
	wr(EOI, 0);
	window();
	check_eq(norder, 3, "then the waiting one");
	check_eq(order[2], 0x71, "which it is");
}

static void stop_timer(void)
{
	wr(TICR, 0);
	wr(LVT_TIMER, 1 << 16);
	window();
	norder = 0;
}

static void one_shot(void)
{
	stop_timer();
	wr(TDCR, 0xb);			/* by 1 */
	wr(LVT_TIMER, 0x61);
	wr(TICR, 20000000);
	check(rd(TCCR) > 0 && rd(TCCR) <= 20000000, "counting: %u", rd(TCCR));
	u32 before = rd(TCCR);
	for (volatile unsigned i = 0; i < 1000; i++)
		;
	check(rd(TCCR) < before, "downwards");
	check(wait_count(1), "it fires");
	check_eq(order[0], 0x61, "its vector");
	check_eq(rd(TCCR), 0, "and stays at 0");
	for (volatile unsigned i = 0; i < 200000; i++)
		;
	window();
	check_eq(norder, 1, "only once");
	/* Masked it counts and says nothing. */
	norder = 0;
	wr(LVT_TIMER, 1 << 16 | 0x61);
	wr(TICR, 1000);
	for (volatile unsigned i = 0; i < 200000; i++)
		;
	window();
	check_eq(norder, 0, "masked");
	check_eq(rd(TCCR), 0, "but it ran out");
	/* A slower clock by the divider. */
	wr(TDCR, 0xa);			/* by 128 */
	wr(TICR, 0xffffffff);
	u64 t = rdtsc();
	while (rdtsc() - t < 1000000)
		;
	u32 slow = 0xffffffff - rd(TCCR);
	wr(TDCR, 0xb);
	wr(TICR, 0xffffffff);
	t = rdtsc();
	while (rdtsc() - t < 1000000)
		;
	u32 fast = 0xffffffff - rd(TCCR);
	check(fast / 128 < slow * 2 && fast / 128 > slow / 2, "divider: %u and %u", fast, slow);
	stop_timer();
}

static void periodic(void)
{
	stop_timer();
	wr(TDCR, 0xb);
	wr(LVT_TIMER, 1 << 17 | 0x62);
	wr(TICR, 3000000);
	check(wait_count(5), "five periods");
	check_eq(order[4], 0x62, "the vector");
	wr(TICR, 0);
	window();
	norder = 0;
	for (volatile unsigned i = 0; i < 500000; i++)
		;
	window();
	check_eq(norder, 0, "an initial count of 0 stops it");
	/* HLT ends with each tick. */
	wr(TICR, 2000000);
	norder = 0;
	for (unsigned i = 0; i < 3; i++)
		asm volatile("sti; hlt; cli");
	check(norder >= 3, "HLT wakes: %u", norder);
	stop_timer();
}

static void deadline(void)
{
	if (!HAS_DEADLINE) {
		skip("no TSC deadline");
		return;
	}
	stop_timer();
	wr(LVT_TIMER, 2 << 17 | 0x63);
	check_eq(rdmsr(DEADLINE_MSR), 0, "not armed");
	wr(TICR, 1000);
	check_eq(rd(TCCR), 0, "the counter does not run");
	u64 due = rdtsc() + 5000000;
	wrmsr(DEADLINE_MSR, due);
	check_eq(rdmsr(DEADLINE_MSR), due, "armed");
	check(wait_count(1), "it fires");
	check(rdtsc() >= due, "not before its time");
	check_eq(rdmsr(DEADLINE_MSR), 0, "and is disarmed");
	norder = 0;
	wrmsr(DEADLINE_MSR, 1);
	window();
	check_eq(norder, 1, "a time long past fires at once");
	norder = 0;
	wrmsr(DEADLINE_MSR, rdtsc() + 1000000);
	wrmsr(DEADLINE_MSR, 0);
	for (volatile unsigned i = 0; i < 500000; i++)
		;
	window();
	check_eq(norder, 0, "0 disarms");
	wrmsr(DEADLINE_MSR, ~0ull);
	wr(LVT_TIMER, 0x61);
	check_eq(rdmsr(DEADLINE_MSR), 0, "another mode disarms");
	stop_timer();
}

static void errors(void)
{
	wr(ESR, 0);
	wr(ESR, 0);
	check_eq(rd(ESR), 0, "no errors");
	if (on_tcg) {
		skip("TCG has no illegal vector errors");
		return;
	}
	ipi(5);
	wr(ESR, 0);
	check_eq(rd(ESR), 0x20, "send of an illegal vector");
	wr(ESR, 0);
	check_eq(rd(ESR), 0, "cleared by the second write");
}

static void nmi(void)
{
	ulong before = trap_count[NMI];

	on_trap(NMI, on_vector);
	norder = 0;
	hold_eoi = true;
	wr(ICR, SELF | ASSERT | 4 << 8);	/* self NMI is not among the shorthands' modes */
	if (norder == 0) {
		if (x2)
			wrmsr(0x830, (u64)rd(ID) << 32 | ASSERT | 4 << 8);
		else {
			wr(ICR_HI, rd(ID));
			wr(ICR, ASSERT | 4 << 8);
		}
	}
	for (volatile unsigned i = 0; i < 2000; i++)
		;
	hold_eoi = false;
	check(trap_count[NMI] > before, "an NMI comes with IF clear");
	on_trap(NMI, NULL);
}

static void disabled(void)
{
	wr(SVR, 0xff);
	check(rd(LVT_TIMER) & 1 << 16, "software disable masks the timer");
	wr(LVT_TIMER, 0x61);
	check(rd(LVT_TIMER) & 1 << 16 || on_tcg, "and keeps it masked");
	wr(SVR, 0x1ff);
}

static void all_tests(void)
{
	wr(SVR, 0x1ff);
	wr(TPR, 0);
	section(x2 ? "x2APIC identity" : "identity");
	identity();
	section("self IPIs");
	self_ipis();
	section("priorities");
	priorities();
	section("one-shot timer");
	one_shot();
	section("periodic timer");
	periodic();
	section("TSC deadline");
	deadline();
	section("errors");
	errors();
	section("NMI");
	nmi();
	section("software disable");
	disabled();
}

SNIPPET(w_msr, "mov %edi, %ecx\n mov %esi, %eax\n xor %edx, %edx\n wrmsr\n ret");
SNIPPET(r_msr, "mov %edi, %ecx\n rdmsr\n ret");

static void x2apic(void)
{
	section("x2APIC");
	if (!HAS_X2APIC) {
		skip("no x2APIC");
		return;
	}
	check_eq(try_call(r_msr, 0x802, 0, 0), GP, "x2APIC register in xAPIC mode");
	wrmsr(APIC_BASE_MSR, rdmsr(APIC_BASE_MSR) | BIT(10));
	x2 = true;
	all_tests();
	section("x2APIC registers");
	norder = 0;
	wrmsr(0x83f, 0x44);		/* SELF IPI */
	window();
	check_eq(norder, 1, "self IPI register");
	check_eq(order[0], 0x44, "its vector");
	check_eq(try_call(w_msr, 0x802, 0, 0), GP, "ID is read-only");
	check_eq(try_call(w_msr, 0x80b, 1, 0), GP, "EOI takes 0 only");
	check_eq(try_call(r_msr, 0x80b, 0, 0), GP, "EOI is write-only");
	check_eq(try_call(r_msr, 0x80e, 0, 0), GP, "there is no DFR");
	check_eq(try_call(r_msr, 0x831, 0, 0), GP, "there is no high half of ICR");
	check_eq(try_call(w_msr, 0x808, 0x100, 0), GP, "TPR reserved bits");
	check_eq(rdmsr(0x80d), (rd(ID) >> 4) << 16 | 1u << (rd(ID) & 15), "LDR comes from the ID");
	check_eq(try_call(w_msr, APIC_BASE_MSR, 0xfee00000 | BIT(8) | BIT(11), 0), GP,
		 "straight back to xAPIC mode");
	wrmsr(APIC_BASE_MSR, 0xfee00000 | BIT(8));
	x2 = false;
	wrmsr(APIC_BASE_MSR, 0xfee00000 | BIT(8) | BIT(11));
	check_eq(rd(ID), 0, "xAPIC mode again by way of off");
}

void guest_main(void)
{
	outb(0x21, 0xff);	/* firmware may have left the 8259s open */
	outb(0xa1, 0xff);
	for (unsigned v = 0x30; v < 0xff; v++)
		if (v != VEC_RETURN)
			on_trap(v, on_vector);
	on_trap(0x80, on_vector);
	all_tests();
	x2apic();
}
