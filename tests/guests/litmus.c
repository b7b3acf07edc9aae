/*
 * Litmus tests of memory order (SDM vol. 3, 8.2.3; Sewell et al., "x86-TSO", 2010): two to four
 * processors run a few instructions at the same moment, over and over, and outcomes are counted.
 * What x86-TSO forbids must not come; what it allows is printed, and need not come.
 */
#include "lib/smp.h"

#define PLACES	64			/* a batch of independent tests between two meetings */
#define LINE	16			/* u32s in a cache line */

struct place {
	volatile u32 x[LINE], y[LINE], z[LINE];
} __attribute__((aligned(64)));

static struct place at[PLACES];
static volatile u32 seen[SMP_MAX][2][PLACES];
static unsigned counts[4];

#define LOAD(v, p) asm volatile("movl %1, %0" : "=r"(v) : "m"(p) : "memory")
#define STORE(p, v) asm volatile("movl %1, %0" : "=m"(p) : "r"(v) : "memory")

struct litmus {
	const char *name;
	unsigned cpus;
	void (*run)(unsigned cpu, struct place *p, u32 *a, u32 *b);
	/* 0-3 by what was seen (first and second value of each), or 4: forbidden */
	unsigned (*outcome)(const u32 v[4][2]);
};

/* Message passing: data, then a flag. */
static void mp(unsigned cpu, struct place *p, u32 *a, u32 *b)
{
	if (cpu == 0) {
		STORE(p->x[0], 1);
		STORE(p->y[0], 1);
	} else {
		LOAD(*a, p->y[0]);
		LOAD(*b, p->x[0]);
	}
}

static unsigned mp_outcome(const u32 v[4][2])
{
	return v[1][0] && !v[1][1] ? 4 : v[1][0] * 2 + v[1][1];
}

/* Store buffering: each may still see the other's old value. */
static void sb(unsigned cpu, struct place *p, u32 *a, u32 *b)
{
	if (cpu == 0) {
		STORE(p->x[0], 1);
		LOAD(*a, p->y[0]);
	} else {
		STORE(p->y[0], 1);
		LOAD(*a, p->x[0]);
	}
}

static unsigned sb_outcome(const u32 v[4][2])
{
	return v[0][0] * 2 + v[1][0];
}

static void sb_fenced(unsigned cpu, struct place *p, u32 *a, u32 *b)
{
	if (cpu == 0) {
		STORE(p->x[0], 1);
		mfence();
		LOAD(*a, p->y[0]);
	} else {
		STORE(p->y[0], 1);
		mfence();
		LOAD(*a, p->x[0]);
	}
}

static void sb_locked(unsigned cpu, struct place *p, u32 *a, u32 *b)
{
	u32 one = 1;

	if (cpu == 0) {
		asm volatile("xchgl %0, %1" : "+r"(one), "+m"(p->x[0]) :: "memory");
		LOAD(*a, p->y[0]);
	} else {
		asm volatile("xchgl %0, %1" : "+r"(one), "+m"(p->y[0]) :: "memory");
		LOAD(*a, p->x[0]);
	}
}

static unsigned sb_forbidden(const u32 v[4][2])
{
	return !v[0][0] && !v[1][0] ? 4 : v[0][0] * 2 + v[1][0];
}

/* Load buffering: a load is not moved behind a later store. */
static void lb(unsigned cpu, struct place *p, u32 *a, u32 *b)
{
	if (cpu == 0) {
		LOAD(*a, p->x[0]);
		STORE(p->y[0], 1);
	} else {
		LOAD(*a, p->y[0]);
		STORE(p->x[0], 1);
	}
}

static unsigned lb_outcome(const u32 v[4][2])
{
	return v[0][0] && v[1][0] ? 4 : v[0][0] * 2 + v[1][0];
}

/* Independent reads of independent writes: all see stores in one order. */
static void iriw(unsigned cpu, struct place *p, u32 *a, u32 *b)
{
	switch (cpu) {
	case 0:
		STORE(p->x[0], 1);
		break;
	case 1:
		STORE(p->y[0], 1);
		break;
	case 2:
		LOAD(*a, p->x[0]);
		LOAD(*b, p->y[0]);
		break;
	default:
		LOAD(*a, p->y[0]);
		LOAD(*b, p->x[0]);
		break;
	}
}

static unsigned iriw_outcome(const u32 v[4][2])
{
	if (v[2][0] && !v[2][1] && v[3][0] && !v[3][1])
		return 4;
	return v[2][1] * 2 + v[3][1];
}

/* Write to read causality: what was seen, and passed on, is seen by the next one. */
static void wrc(unsigned cpu, struct place *p, u32 *a, u32 *b)
{
	switch (cpu) {
	case 0:
		STORE(p->x[0], 1);
		break;
	case 1:
		LOAD(*a, p->x[0]);
		if (*a)
			STORE(p->y[0], 1);
		break;
	case 2:
		LOAD(*a, p->y[0]);
		LOAD(*b, p->x[0]);
		break;
	default:
		break;
	}
}

static unsigned wrc_outcome(const u32 v[4][2])
{
	return v[2][0] && !v[2][1] ? 4 : v[2][0] * 2 + v[2][1];
}

/* An 8-byte store is seen whole, also by 16-byte loads of SSE and by strings. */
static void whole(unsigned cpu, struct place *p, u32 *a, u32 *b)
{
	volatile u64 *q = (volatile u64 *)p->z;
	u64 v = 0;

	if (cpu == 0) {
		*q = 0x100000001ull;
	} else {
		v = *q;
		*a = (u32)v;
		*b = (u32)(v >> 32);
	}
}

static void whole_string(unsigned cpu, struct place *p, u32 *a, u32 *b)
{
	volatile u64 *q = (volatile u64 *)p->z;
	u64 from = 0x100000001ull, v = 0;
	const void *s = cpu ? (const void *)q : &from;
	void *d = cpu ? (void *)&v : (void *)q;
	ulong n = 1;

	asm volatile("rep movsq" : "+S"(s), "+D"(d), "+c"(n) :: "memory");
	if (cpu) {
		*a = (u32)v;
		*b = (u32)(v >> 32);
	}
}

static unsigned whole_outcome(const u32 v[4][2])
{
	return v[1][0] != v[1][1] ? 4 : v[1][0] * 3;
}

static const struct litmus tests[] = {
	{ "MP", 2, mp, mp_outcome },
	{ "SB", 2, sb, sb_outcome },
	{ "SB with MFENCE", 2, sb_fenced, sb_forbidden },
	{ "SB with XCHG", 2, sb_locked, sb_forbidden },
	{ "LB", 2, lb, lb_outcome },
	{ "WRC", 3, wrc, wrc_outcome },
	{ "IRIW", 4, iriw, iriw_outcome },
	{ "8 bytes", 2, whole, whole_outcome },
	{ "8 bytes by REP MOVSQ", 2, whole_string, whole_outcome },
};

static unsigned forbidden, batches = 100;
static volatile u32 ready[PLACES][LINE] __attribute__((aligned(64)));

static void evaluate(const struct litmus *t)
{
	for (unsigned i = 0; i < PLACES; i++) {
		u32 v[4][2];
		unsigned how;

		for (unsigned c = 0; c < 4; c++) {
			v[c][0] = seen[c][0][i];
			v[c][1] = seen[c][1][i];
		}
		how = t->outcome(v);
		if (how == 4)
			forbidden++;
		else
			counts[how & 3]++;
	}
	memset(at, 0, sizeof(at));
	memset((void *)seen, 0, sizeof(seen));
	memset((void *)ready, 0, sizeof(ready));
}

/*
 * They come to a place together, as nearly as can be: spinning hard, since what PAUSE does to a
 * virtual processor takes longer than the test; but not for ever, the other one may not be running.
 */
static void together(unsigned cpus, unsigned i, u32 delay)
{
	__atomic_fetch_add(&ready[i][0], 1, __ATOMIC_SEQ_CST);
	for (unsigned n = 0; ready[i][0] < cpus; n++)
		if (n > (cpus == 2 ? 20000 : 1000))
			cpu_pause();
	while (delay--)
		barrier();
}

static void batch(unsigned cpu, ulong which)
{
	const struct litmus *t = &tests[which];
	unsigned phase = 0;
	u32 random = 12345 + cpu;

	for (unsigned n = 0; cpu < t->cpus && n < batches; n++) {
		smp_meet(&phase, t->cpus);
		for (unsigned i = 0; i < PLACES; i++) {
			u32 a = 0, b = 0;

			random = random * 1664525 + 1013904223;
			together(t->cpus, i, random >> 27);
			t->run(cpu, &at[i], &a, &b);
			seen[cpu][0][i] = a;
			seen[cpu][1][i] = b;
		}
		smp_meet(&phase, t->cpus);
		if (!cpu)
			evaluate(t);
	}
}

void guest_main(void)
{
	if (guest_option("short"))
		batches = 10;
	if (guest_option("long"))
		batches = 30000;
	smp_start();
	for (unsigned i = 0; i < ARRAY_SIZE(tests); i++) {
		section(tests[i].name);
		if (smp_count < tests[i].cpus) {
			skip("it needs more processors");
			continue;
		}
		memset(counts, 0, sizeof(counts));
		forbidden = 0;
		smp_run(batch, i);
		print("  00: %u  01: %u  10: %u  11: %u\n", counts[0], counts[1], counts[2], counts[3]);
		check_eq(forbidden, 0, "outcomes that x86-TSO forbids");
		check_eq(counts[0] + counts[1] + counts[2] + counts[3] + forbidden, PLACES * batches, "outcomes");
	}
}
