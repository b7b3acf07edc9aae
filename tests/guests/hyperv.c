/*
 * Hyper-V's clocks as a guest uses them: identification, hypercall page, reference counter and
 * page, frequencies, invariant TSC.  With the option "restored" it goes on until the page's
 * sequence number says that it was restored.  Nothing to check where CPUID does not offer it.
 */
#include "lib/clock.h"

#define GUEST_OS_ID	0x40000000
#define HYPERCALL	0x40000001
#define VP_INDEX	0x40000002
#define COUNTER		0x40000020
#define REFERENCE	0x40000021
#define TSC_HZ		0x40000022
#define APIC_HZ		0x40000023
#define TPR		0x40000072
#define INVARIANT	0x40000118

static u8 call_page[4096] __attribute__((aligned(4096)));
static volatile struct page {
	u32 sequence, reserved;
	u64 scale, offset;
	u8 rest[4096 - 24];
} page __attribute__((aligned(4096)));

static u64 now(u64 *tsc)
{
	u64 lo, hi;
	u32 sequence;

	do {
		sequence = page.sequence;
		*tsc = rdtsc();
		asm("mul %3" : "=a"(lo), "=d"(hi) : "0"(*tsc), "r"(page.scale) : "cc");
		hi += page.offset;
	} while (sequence != page.sequence);
	return hi;
}

static void registers(void)
{
	u32 a, b, c, d;

	section("registers");
	cpuid(0x40000001, 0, &a, &b, &c, &d);
	check_eq(a, 0x31237648, "interface Hv#1");
	cpuid(0x40000003, 0, &a, &b, &c, &d);
	check_eq(a, 0x8a72, "privileges");
	check_eq(d, 0x100, "features");
	check_eq(rdmsr(VP_INDEX), 0, "VP index");
	check_eq(rdmsr(APIC_HZ), 1000000000, "APIC frequency");
	check_eq(rdmsr(TSC_HZ) % 1000000, 0, "TSC frequency");
	check_eq(try_call(wrmsr, VP_INDEX, 1, 0), 13, "VP index is read only");
	check_eq(try_call(rdmsr, 0x400000b0, 0, 0), 13, "no synthetic timer");
	check_eq(try_call(rdmsr, 0x4b564d01, 0, 0), 13, "no kvmclock");
	wrmsr(TPR, 0x20);
	check_eq(rdmsr(TPR), 0x20, "TPR");
	check_eq(*(volatile u32 *)0xfee00080ul, 0x20, "TPR in the APIC");
	wrmsr(TPR, 0);
	cpuid(0x80000007, 0, &a, &b, &c, &d);
	check_eq(d >> 8 & 1, 0, "invariant TSC is not shown");
	wrmsr(INVARIANT, 1);
	cpuid(0x80000007, 0, &a, &b, &c, &d);
	check_eq(d >> 8 & 1, 1, "until it is asked for");
}

static void vmcall(void)
{
	asm volatile("vmcall" ::: "rax", "rdx", "memory");
}

static void hypercalls(void)
{
	u64 r;

	section("hypercalls");
	wrmsr(HYPERCALL, (ulong)call_page | 1);
	check_eq(rdmsr(HYPERCALL), 0, "nothing before the guest has a name");
	check_eq(try_call(vmcall, 0, 0, 0), 6, "and no call");
	wrmsr(GUEST_OS_ID, 0x8100000000000000);
	wrmsr(HYPERCALL, (ulong)call_page | 1);
	check_eq(rdmsr(HYPERCALL), (ulong)call_page | 1, "on");
	asm volatile("call *%1" : "=a"(r) : "r"(call_page), "c"(0x10008ull), "d"(0ull)
		     : "memory", "r8", "r9", "r10", "r11");
	check_eq(r, 2, "HV_STATUS_INVALID_HYPERCALL_CODE");
}

static unsigned outside;

/* The page, between two looks at the counter. */
static u64 now_between(u64 *tsc)
{
	u64 before = rdmsr(COUNTER), t = now(tsc), after = rdmsr(COUNTER);

	outside += before > t || t > after + 1;
	return t;
}

static void agree(u64 ticks)
{
	outside = 0;
	clock_agrees(now_between, 10000000, rdmsr(TSC_HZ), ticks, 10);
	check_eq(outside, 0, "the page lies between two looks at the counter");
}

static void reference(void)
{
	section("reference time");
	wrmsr(REFERENCE, (ulong)&page | 1);
	check_eq(rdmsr(REFERENCE), (ulong)&page | 1, "on");
	check(page.sequence != 0 && page.sequence != 0xffffffff, "sequence %u", page.sequence);
	agree(200000);
	check_eq(try_call(wrmsr, REFERENCE, 0xfffffffffffff001, 0), 13, "a page beyond memory");
}

static u32 before;

static bool another(void)
{
	return page.sequence != before;
}

static void restored(void)
{
	section("restored");
	before = page.sequence;
	clock_until(now, another);
	check_eq(page.sequence, before + 1, "the next sequence");
	check_eq(rdmsr(REFERENCE), (ulong)&page | 1, "the register stays");
	agree(200000);
}

void guest_main(void)
{
	if (!hypervisor_is("Microsoft Hv")) {
		skip("no Hyper-V here");
		return;
	}
	registers();
	hypercalls();
	reference();
	if (guest_option("restored"))
		restored();
}
