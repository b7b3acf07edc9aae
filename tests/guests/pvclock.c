/*
 * kvmclock as a guest uses it: both pairs of MSRs, the version protocol, agreement with the TSC
 * and the ACPI PM timer, VMCALL.  With the option "restored" it goes on until it is told that
 * it stood, and finds its clocks as they were.  Nothing to check where CPUID does not offer it.
 */
#include "lib/clock.h"

#define OLD_WALL	0x11
#define OLD_TIME	0x12
#define WALL		0x4b564d00
#define TIME		0x4b564d01
#define PM_TIMER	0x608
#define STABLE		1
#define STOPPED		2
#define KVM_ENOSYS	1000

static volatile struct page {
	u32 version, pad;
	u64 tsc, system;
	u32 mul;
	signed char shift;
	u8 flags, pad2[2];
} page __attribute__((aligned(64)));

static volatile struct { u32 version, sec, nsec; } wall __attribute__((aligned(4)));

static u64 scale(u64 tsc)
{
	u64 lo, hi;

	tsc = page.shift < 0 ? tsc >> -page.shift : tsc << page.shift;
	asm("mul %3" : "=a"(lo), "=d"(hi) : "0"(tsc), "r"((u64)page.mul) : "cc");
	return lo >> 32 | hi << 32;
}

static u64 now(u64 *tsc)
{
	u32 version;
	u64 ns;

	do {
		version = page.version & ~1u;
		*tsc = rdtsc();
		ns = page.system + scale(*tsc - page.tsc);
	} while (version != page.version);
	return ns;
}

static u64 tsc_khz(void)
{
	u32 a, b, c, d;

	cpuid(0x40000010, 0, &a, &b, &c, &d);
	return a;
}

static void registers(void)
{
	static const struct { u32 time, wall; } pair[] = { { OLD_TIME, OLD_WALL }, { TIME, WALL } };
	u32 a, b, c, d;

	section("registers");
	cpuid(0x40000001, 0, &a, &b, &c, &d);
	check((a & 0x01000009) == 0x01000009, "features %x", a);
	for (unsigned i = 0; i < 2; i++) {
		u32 version = page.version;

		wrmsr(pair[i].time, (ulong)&page | 1);
		check_eq(rdmsr(pair[!i].time), (ulong)&page | 1, "one register by both names");
		check(page.version > version && !(page.version & 1), "version %u", page.version);
		check_eq(page.flags, STABLE, "flags");
		wrmsr(pair[i].wall, (ulong)&wall);
		check_eq(rdmsr(pair[!i].wall), (ulong)&wall, "wall clock");
		check(wall.sec > 1700000000 && wall.nsec < 1000000000, "wall %u.%09u", wall.sec,
		      wall.nsec);
	}
}

static void refused(void)
{
	section("refused");
	for (u32 msr = 0x4b564d02; msr < 0x4b564d0a; msr++)
		check_eq(try_call(rdmsr, msr, 0, 0), 13, "MSR %x", msr);
	check_eq(try_call(rdmsr, 0x40000000, 0, 0), 13, "a Hyper-V MSR");
	check_eq(try_call(wrmsr, TIME, 0xfffffffffffff001, 0), 13, "an address beyond memory");
	check_eq(try_call(wrmsr, TIME, ((ulong)&page + 2) | 1, 0), 13, "an address off by two");
	check_eq(rdmsr(TIME), (ulong)&page | 1, "what was there stays");
}

static void agree(u64 ns)
{
	clock_agrees(now, 1000000000, tsc_khz() * 1000, ns, 1000);
}

/* The host may be busy between any two looks: each look at the timer lies between two at the clock. */
static void pm_timer(void)
{
	u64 tsc, start, started, before, after, ticks = 0, ns;
	u32 last, v;

	section("PM timer");
	start = now(&tsc);
	last = inl(PM_TIMER);
	started = now(&tsc);
	do {
		before = now(&tsc);
		v = inl(PM_TIMER);
		after = now(&tsc);
		ticks += (v - last) & 0xffffff;
		last = v;
	} while (before - started < 20000000);
	ns = ticks * 1000000000 / 3579545;
	check(ns + 1000 >= before - started && ns <= after - start + 1000,
	      "%llu ns by the PM timer, from %llu to %llu here", (unsigned long long)ns,
	      (unsigned long long)(before - started), (unsigned long long)(after - start));
}

static void moved_tsc(void)
{
	u64 tsc, before, after;

	section("a TSC that is moved");
	before = now(&tsc);
	wrmsr(0x3b, 5ull << 40);
	after = now(&tsc);
	check(after >= before && after - before < 1000000000, "time goes on: %llu, %llu",
	      (unsigned long long)before, (unsigned long long)after);
	wrmsr(0x10, 12345);
	before = now(&tsc);
	check(before >= after && before - after < 1000000000, "and again: %llu, %llu",
	      (unsigned long long)after, (unsigned long long)before);
	wrmsr(0x3b, 0);
	after = now(&tsc);
	check(after >= before && after - before < 1000000000, "and back");
}

static void vmcall(void)
{
	long r;

	section("VMCALL");
	asm volatile("vmcall" : "=a"(r) : "a"(9), "b"(0), "c"(0) : "memory");
	check_eq((u64)r, (u64)-KVM_ENOSYS, "a call that is not there");
}

static bool stood(void)
{
	return page.flags & STOPPED;
}

static void restored(void)
{
	u32 version = page.version, seconds = wall.sec;

	section("restored");
	clock_until(now, stood);
	check(page.version > version, "the page was written anew");
	check_eq(page.flags, STOPPED | STABLE, "flags");
	check_eq(wall.sec, seconds, "the wall clock stays");
	check_eq(rdmsr(TIME), (ulong)&page | 1, "the register stays");
	page.flags &= ~STOPPED;
	agree(20000000);
	check_eq(page.flags, STABLE, "it is told once");
}

void guest_main(void)
{
	if (!hypervisor_is("KVMKVMKVM\0\0")) {
		skip("no kvmclock here");
		return;
	}
	registers();
	refused();
	section("agreement");
	agree(20000000);
	pm_timer();
	moved_tsc();
	if (!guest_option("novmcall"))		/* a KVM whose kernel mode is emulated knows none */
		vmcall();
	if (guest_option("restored"))
		restored();
	wrmsr(TIME, 0);
	check_eq(rdmsr(OLD_TIME), 0, "off");
}
