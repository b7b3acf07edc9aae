/*
 * Several processors: starting them, every kind of message between them, translations that all must
 * drop, code that one writes and another one runs, locks of every width and in every place.
 */
#include "lib/smp.h"

#define ROUNDS 20000u
#define SPLITS 20000u			/* they take turns: slow */

static volatile unsigned got[SMP_MAX][256];
static volatile unsigned nmis[SMP_MAX];

static void on_vector(struct frame *f)
{
	__atomic_fetch_add(&got[smp_self()][f->vec], 1, __ATOMIC_SEQ_CST);
	apic_eoi();
}

static void on_nmi(struct frame *f)
{
	__atomic_fetch_add(&nmis[smp_self()], 1, __ATOMIC_SEQ_CST);
}

/* ---- Who is there --------------------------------------------------------- */

static void numbers(unsigned cpu, ulong arg)
{
	u32 a, b, c, d, x;

	cpuid(1, 0, &a, &b, &c, &d);
	got[cpu][0] = b >> 24;
	cpuid(0xb, 0, &a, &b, &c, &x);
	got[cpu][1] = x;
}

static void topology(void)
{
	u32 a, b, c, d, e;

	section("who is there");
	check(smp_count > 1, "%u processors", smp_count);
	smp_run(numbers, 0);
	for (unsigned i = 0; i < smp_count; i++) {
		check_eq(got[i][0], smp_apic_id[i], "leaf 1 of processor %u", i);
		check_eq(got[i][1], smp_apic_id[i], "leaf 0xb of processor %u", i);
		got[i][0] = got[i][1] = 0;
		for (unsigned j = 0; j < i; j++)
			check(smp_apic_id[i] != smp_apic_id[j], "processors %u and %u are two", i, j);
	}
	cpuid(0xb, 0, &a, &b, &c, &d);
	check_eq(c, 1 << 8, "level 0 of leaf 0xb is threads");
	check(b <= 1u << a, "%u threads have numbers of %u bits", b, a);
	e = a;
	cpuid(0xb, 1, &a, &b, &c, &d);
	check_eq(c, 2 << 8 | 1, "level 1 of leaf 0xb is cores");
	check(a >= e && b <= 1u << a, "%u in a package have numbers of %u bits", b, a);
	cpuid(0xb, 2, &a, &b, &c, &d);
	check_eq(c, 2, "no level 2");
	cpuid(1, 0, &a, &b, &c, &d);
	e = b >> 16 & 0xff;
	cpuid(0xb, 1, &a, &b, &c, &d);
	check(e >= b || !has_leaf1_edx(28), "leaf 1 has room for a package: %u for %u", e, b);
}

/* ---- Messages ----------------------------------------------------------------- */

static volatile bool over;

static void listen(unsigned cpu, ulong arg)
{
	sti();
	while (!over)
		cpu_pause();
	cli();
}

/* The others in HLT, so that the message has to wake them. */
static void listen_halted(unsigned cpu, ulong arg)
{
	while (!over) {
		cli();
		if (!over)
			asm volatile("sti; hlt");
	}
	cli();
}

static void forget(void)
{
	for (unsigned i = 0; i < SMP_MAX; i++)
		for (unsigned v = 0; v < 256; v++)
			got[i][v] = 0;
}

static unsigned total(u8 vec)
{
	unsigned n = 0;

	for (unsigned i = 0; i < smp_count; i++)
		n += got[i][vec];
	return n;
}

/* Sends, and checks that exactly the processors in mask got it. */
static void message(const char *what, u32 dest, u32 low, unsigned mask)
{
	unsigned want = 0;

	forget();
	for (unsigned i = 0; i < smp_count; i++)
		want += mask >> i & 1;
	sti();
	ipi(dest, low | ASSERT);
	UNTIL(total(low & 0xff) >= want);
	/* One more, to all: what was too much has come by then. */
	ipi(0, TO_ALL | ASSERT | 0xf0);
	UNTIL(total(0xf0) >= smp_count);
	cli();
	for (unsigned i = 0; i < smp_count; i++)
		check_eq(got[i][low & 0xff], mask >> i & 1, "%s at processor %u", what, i);
}

static void start_listening(void (*how)(unsigned, ulong))
{
	over = false;
	smp_begin(how, 0);
}

static void stop_listening(void)
{
	over = true;
	barrier();
	ipi(0, TO_OTHERS | ASSERT | 0xf1);
	smp_join();
}

static void set_logical(unsigned cpu, ulong cluster)
{
	apic_write(DFR, cluster ? 0x0fffffff : 0xffffffff);
	apic_write(LDR, cluster ? (cpu / 2 << 4 | 1u << (cpu % 2)) << 24 : 1u << cpu << 24);
}

static void kinds(const char *where)
{
	unsigned all = (1u << smp_count) - 1;

	section(where);
	message("physical", smp_apic_id[1], 0x40, 2);
	message("physical to itself", smp_apic_id[0], 0x41, 1);
	message("physical to all", 0xff, 0x42, all);
	message("to nobody", 0xee, 0x43, 0);
	message("shorthand self", 0, TO_SELF | 0x44, 1);
	message("shorthand all", 0, TO_ALL | 0x45, all);
	message("shorthand others", 0, TO_OTHERS | 0x46, all & ~1u);
	for (unsigned i = 0; i < smp_count; i++)
		message("flat", 1u << i, LOGICAL | 0x47, 1u << i);
	message("flat to two", 3, LOGICAL | 0x48, 3);
	message("flat to all", 0xff, LOGICAL | 0x49, all);
}

static void lowest(void)
{
	section("lowest priority");
	forget();
	sti();
	for (unsigned i = 0; i < 50; i++) {
		ipi(0xff, LOGICAL | LOWEST | ASSERT | 0x50);
		UNTIL(total(0x50) >= i + 1);
	}
	ipi(0, TO_ALL | ASSERT | 0xf0);
	UNTIL(total(0xf0) >= smp_count);
	cli();
	check_eq(total(0x50), 50, "each goes to one processor");
	if (on_tcg) {
		skip("TCG gives what has the lowest priority to the first processor");
		return;
	}
	apic_write(TPR, 0x80);
	forget();
	for (unsigned i = 0; i < 20; i++) {
		ipi(0xff, LOGICAL | LOWEST | ASSERT | 0x51);
		UNTIL(total(0x51) >= i + 1);
	}
	check_eq(total(0x51), 20, "with a high priority here the others take them");
	apic_write(TPR, 0);
}

static void clusters(void)
{
	section("clusters");
	smp_run(set_logical, 1);
	start_listening(listen);
	for (unsigned i = 0; i < smp_count; i++)
		message("cluster", i / 2 << 4 | 1u << (i % 2), LOGICAL | 0x52, 1u << i);
	message("two of a cluster", 3, LOGICAL | 0x53, 3);
	stop_listening();
	smp_run(set_logical, 0);
}

static void send_nmi(void)
{
	section("NMI");
	start_listening(listen_halted);
	for (unsigned n = 1; n <= 20; n++) {
		ipi(0, TO_OTHERS | ASSERT | SEND_NMI);
		for (unsigned i = 1; i < smp_count; i++)
			UNTIL(nmis[i] >= n);
	}
	for (unsigned i = 1; i < smp_count; i++)
		check_eq(nmis[i], 20, "NMIs at processor %u", i);
	check_eq(nmis[0], 0, "none here");
	stop_listening();
}

/* Every processor sends to every other one, all at once. */
static void flood(unsigned cpu, ulong arg)
{
	unsigned phase = 0, before;

	for (unsigned i = 0; i < 500; i++) {
		unsigned to = (cpu + 1 + i % (smp_count - 1)) % smp_count;

		before = got[to][0x60 + cpu];
		sti();
		ipi(smp_apic_id[to], ASSERT | (0x60 + cpu));
		if (!UNTIL(got[to][0x60 + cpu] != before))
			break;
		cli();
	}
	sti();
	smp_meet(&phase, smp_count);
	cli();
}

static void messages(void)
{
	for (unsigned v = 0x40; v < 0xf8; v++)
		on_trap(v, on_vector);
	on_trap(2, on_nmi);
	smp_run(set_logical, 0);
	start_listening(listen);
	kinds("messages to those who run");
	lowest();
	stop_listening();
	start_listening(listen_halted);
	kinds("messages to those who sleep");
	stop_listening();
	clusters();
	send_nmi();
	section("everybody to everybody");
	forget();
	smp_run(flood, 0);
	for (unsigned i = 0; i < smp_count; i++) {
		unsigned sent = 0;

		for (unsigned j = 0; j < smp_count; j++)
			sent += got[j][0x60 + i];
		check_eq(sent, 500, "messages of processor %u", i);
	}
}

/* ---- INIT again -------------------------------------------------------------------- */

static void restart(void)
{
	/* Real mode: increments a word, and waits for INIT. */
	static const u8 code[] = { 0xfa, 0x31, 0xc0, 0x8e, 0xd8, 0xf0, 0xff, 0x06, 0x00, 0x96,
				   0xf4, 0xeb, 0xfd };
	volatile u16 *count = (u16 *)0x9600;

	section("INIT and start-up again");
	memcpy((void *)0x9000, code, sizeof(code));
	*count = 0;
	for (unsigned n = 1; n <= 5; n++) {
		ipi(smp_apic_id[smp_count - 1], ASSERT | INIT);
		ipi(smp_apic_id[smp_count - 1], ASSERT | STARTUP | 9);
		check(UNTIL(*count == n), "start %u of the last processor", n);
		/* Without INIT a start-up is nothing. */
		ipi(smp_apic_id[smp_count - 1], ASSERT | STARTUP | 9);
	}
	check_eq(*count, 5, "starts");
	ipi(smp_apic_id[smp_count - 1], ASSERT | INIT);
	smp_count--;			/* it is not one of us any more */
}

/* ---- Translations -------------------------------------------------------------------- */

#define BETWEEN ~0u		/* rounds: anything goes */
#define WINDOW	0xffff800000000000ul	/* far from the large pages, with which INVLPG is slow */

static u64 window_pdpt[512] __attribute__((aligned(4096)));
static u64 window_pd[512] __attribute__((aligned(4096)));
static u64 window_pt[512] __attribute__((aligned(4096)));
static volatile u64 page_a[512] __attribute__((aligned(4096)));
static volatile u64 page_b[512] __attribute__((aligned(4096)));
static volatile unsigned shot[SMP_MAX], stale, round_now;

static void on_shootdown(struct frame *f)
{
	invlpg(WINDOW);
	__atomic_fetch_add(&shot[smp_self()], 1, __ATOMIC_SEQ_CST);
	apic_eoi();
}

static void read_window(unsigned cpu, ulong arg)
{
	volatile u64 *p = (u64 *)WINDOW;

	if (!cpu)
		return;
	sti();
	while (!over) {
		/* After the round has begun, all TLBs agree: what it says is its parity. */
		unsigned before = round_now, v = (unsigned)*p, after;

		barrier();
		after = round_now;
		if (before == after && before != BETWEEN && v != before % 2)
			__atomic_fetch_add(&stale, 1, __ATOMIC_SEQ_CST);
	}
	cli();
}

static void shootdown(void)
{
	section("TLB shootdown");
	boot_pml4[WINDOW >> 39 & 511] = (ulong)window_pdpt | 3;
	window_pdpt[0] = (ulong)window_pd | 3;
	window_pd[0] = (ulong)window_pt | 3;
	window_pt[0] = (ulong)page_a | 3;
	page_a[0] = 0;
	page_b[0] = 1;
	round_now = 0;
	on_trap(0x70, on_shootdown);
	over = false;
	smp_begin(read_window, 0);
	for (unsigned n = 1; n <= 300; n++) {
		unsigned before[SMP_MAX];

		for (unsigned i = 1; i < smp_count; i++)
			before[i] = shot[i];
		round_now = BETWEEN;
		((volatile u64 *)window_pt)[0] = (ulong)(n % 2 ? page_b : page_a) | 3;
		invlpg(WINDOW);
		for (unsigned i = 1; i < smp_count; i++)
			ipi(smp_apic_id[i], ASSERT | 0x70);
		for (unsigned i = 1; i < smp_count; i++)
			UNTIL(shot[i] != before[i]);
		round_now = n;
		for (volatile unsigned i = 0; i < 300; i++)
			;
	}
	over = true;
	smp_join();
	check_eq(stale, 0, "reads through a translation that was shot down");
}

/* ---- Code ------------------------------------------------------------------------------- */

static u8 code[4 * 4096] __attribute__((aligned(4096)));
static volatile unsigned version, seen_version[SMP_MAX], wrong;

static void put_version(u8 *at, unsigned n)
{
	at[0] = 0xb8;			/* mov $n, %eax; ret */
	at[1] = n, at[2] = n >> 8, at[3] = n >> 16, at[4] = n >> 24;
	at[5] = 0xc3;
}

/* The way that the SDM asks for: a flag, a serializing instruction, the new code. */
static void run_versions(unsigned cpu, ulong serialize)
{
	unsigned (*fn)(void) = (void *)(code + 64 * 5);
	u32 a, b, c, d;

	if (!cpu)
		return;
	for (unsigned n = 1; n <= 2000; n++) {
		while (version < n)
			cpu_pause();
		if (serialize)
			cpuid(0, 0, &a, &b, &c, &d);
		if (fn() != n)
			__atomic_fetch_add(&wrong, 1, __ATOMIC_SEQ_CST);
		seen_version[cpu] = n;
	}
}

static void begin_versions(void (*run)(unsigned cpu, ulong arg), ulong arg)
{
	version = 0;
	wrong = 0;
	for (unsigned i = 0; i < SMP_MAX; i++)
		seen_version[i] = 0;
	smp_begin(run, arg);
}

/* The code for it stands there; waits until all others have run it. */
static void publish(unsigned n)
{
	barrier();
	version = n;
	for (unsigned i = 1; i < smp_count; i++)
		while (seen_version[i] != n)
			cpu_pause();
}

static void modify(bool serialize)
{
	put_version(code + 64 * 5, 0);
	begin_versions(run_versions, serialize);
	for (unsigned n = 1; n <= 2000; n++) {
		put_version(code + 64 * 5, n);
		publish(n);
	}
	smp_join();
	check_eq(wrong, 0, "old code was run %s", serialize ? "after a serializing instruction" :
		 "where it had been run before");
}

/* Code in pages that nobody has run yet, next to data that the writer goes on writing. */
static void run_fresh(unsigned cpu, ulong arg)
{
	if (!cpu)
		return;
	for (unsigned n = 1; n <= 1500; n++) {
		unsigned (*fn)(void);

		while (version < n)
			cpu_pause();
		fn = (void *)(code + n * 8 % sizeof(code));
		if (fn() != n)
			__atomic_fetch_add(&wrong, 1, __ATOMIC_SEQ_CST);
		seen_version[cpu] = n;
	}
}

static void fresh(void)
{
	begin_versions(run_fresh, 0);
	for (unsigned n = 1; n <= 1500; n++) {
		put_version(code + n * 8 % sizeof(code), n);
		publish(n);
	}
	smp_join();
	check_eq(wrong, 0, "old code was run in a page that was written all the time");
}

static void cross_modifying(void)
{
	section("code that another processor writes");
	modify(true);
	modify(false);
	fresh();
}

/* ---- Locks -------------------------------------------------------------------------------- */

static u8 arena[3 * 4096] __attribute__((aligned(4096)));

#define COUNTER(name, type, insn) \
	static void name(unsigned cpu, ulong at) \
	{ \
		volatile type *p = (type *)at; \
		for (unsigned i = 0; i < ROUNDS; i++) \
			asm volatile(insn : "+m"(*p) :: "memory", "cc"); \
	}
COUNTER(inc8, u8, "lock incb %0")
COUNTER(inc16, u16, "lock incw %0")
COUNTER(inc32, u32, "lock incl %0")
COUNTER(inc64, u64, "lock incq %0")
COUNTER(add64, u64, "lock addq $1, %0")
COUNTER(sub32, u32, "lock subl $-1, %0")

static void xadd64(unsigned cpu, ulong at)
{
	for (unsigned i = 0; i < ROUNDS; i++) {
		ulong one = 1;
		asm volatile("lock xaddq %0, %1" : "+r"(one), "+m"(*(volatile u64 *)at) :: "memory", "cc");
	}
}

static void cmpxchg64(unsigned cpu, ulong at)
{
	volatile u64 *p = (u64 *)at;

	for (unsigned i = 0; i < ROUNDS; i++) {
		u64 old = *p, got_old;
		do {
			got_old = old;
			asm volatile("lock cmpxchgq %2, %1" : "+a"(old), "+m"(*p) : "r"(got_old + 1)
				     : "memory", "cc");
		} while (old != got_old);
	}
}

static void cmpxchg8b(unsigned cpu, ulong at)
{
	volatile u64 *p = (u64 *)at;

	for (unsigned i = 0; i < ROUNDS; i++) {
		u32 lo = (u32)*p, hi = (u32)(*p >> 32);
		bool done;
		do {
			u64 next = (lo | (u64)hi << 32) + 1;
			asm volatile("lock cmpxchg8b %1; setz %0" : "=q"(done), "+m"(*p), "+a"(lo), "+d"(hi)
				     : "b"((u32)next), "c"((u32)(next >> 32)) : "memory", "cc");
		} while (!done);
	}
}

/* Both halves count. */
static void cmpxchg16b(unsigned cpu, ulong at)
{
	volatile u64 *p = (u64 *)at;

	for (unsigned i = 0; i < ROUNDS; i++) {
		u64 lo = p[0], hi = p[1];
		bool done;
		do {
			asm volatile("lock cmpxchg16b %1; setz %0" : "=q"(done),
				     "+m"(*(volatile __uint128_t *)p), "+a"(lo), "+d"(hi)
				     : "b"(lo + 1), "c"(hi + 1) : "memory", "cc");
		} while (!done);
	}
}

/* A lock of XCHG around a plain counter behind it. */
static void xchg_lock(unsigned cpu, ulong at)
{
	volatile u32 *lock = (u32 *)at;
	volatile u64 *counter = (u64 *)(arena + 2048);

	for (unsigned i = 0; i < ROUNDS; i++) {
		u32 v;
		do {
			v = 1;
			asm volatile("xchgl %0, %1" : "+r"(v), "+m"(*lock) :: "memory");
			if (v)
				cpu_pause();
		} while (v);
		++*counter;
		barrier();
		*lock = 0;
	}
}

static void bit_lock(unsigned cpu, ulong at)
{
	volatile u64 *lock = (u64 *)at;
	volatile u64 *counter = (u64 *)(arena + 2048);

	for (unsigned i = 0; i < ROUNDS; i++) {
		bool was;
		do {
			asm volatile("lock btsq $17, %1; setc %0" : "=q"(was), "+m"(*lock) :: "memory", "cc");
			if (was)
				cpu_pause();
		} while (was);
		++*counter;
		barrier();
		asm volatile("lock btrq $17, %0" : "+m"(*lock) :: "memory", "cc");
	}
}

static void count(const char *what, void (*fn)(unsigned, ulong), u8 *at, unsigned size)
{
	u64 v = 0;

	memset(arena, 0, sizeof(arena));
	smp_run(fn, (ulong)at);
	memcpy(&v, at, size);
	check_eq(v, (u64)smp_count * ROUNDS & (size == 8 ? ~0ull : BIT(size * 8) - 1), "%s", what);
}

static void locks(void)
{
	u8 *line = arena + 128;

	section("locked counters");
	count("lock inc, 1 byte", inc8, line, 1);
	count("lock inc, 2 bytes", inc16, line, 2);
	count("lock inc, 4 bytes", inc32, line, 4);
	count("lock inc, 8 bytes", inc64, line, 8);
	count("lock inc, 8 bytes, not aligned", inc64, line + 3, 8);
	count("lock add", add64, line, 8);
	count("lock sub", sub32, line, 4);
	count("lock xadd", xadd64, line, 8);
	count("lock cmpxchg", cmpxchg64, line, 8);
	count("lock cmpxchg8b", cmpxchg8b, line, 8);
	count("lock cmpxchg16b, low", cmpxchg16b, line, 8);
	check_eq(*(u64 *)(line + 8), (u64)smp_count * ROUNDS, "lock cmpxchg16b, high");
	memset(arena, 0, sizeof(arena));
	smp_run(xchg_lock, (ulong)line);
	check_eq(*(u64 *)(arena + 2048), (u64)smp_count * ROUNDS, "behind xchg");
	memset(arena, 0, sizeof(arena));
	smp_run(bit_lock, (ulong)line);
	check_eq(*(u64 *)(arena + 2048), (u64)smp_count * ROUNDS, "behind lock bts");
}

static void split_inc(unsigned cpu, ulong at)
{
	unsigned phase = 0;

	smp_meet(&phase, smp_count);
	for (unsigned i = 0; i < SPLITS; i++)
		asm volatile("lock incq %0" : "+m"(*(volatile u64 *)at) :: "memory", "cc");
}

static void split_xadd(unsigned cpu, ulong at)
{
	unsigned phase = 0;

	smp_meet(&phase, smp_count);
	for (unsigned i = 0; i < SPLITS; i++) {
		u32 one = 1;
		asm volatile("lock xaddl %0, %1" : "+r"(one), "+m"(*(volatile u32 *)at) :: "memory", "cc");
	}
}

static void split_cmpxchg(unsigned cpu, ulong at)
{
	volatile u64 *p = (u64 *)at;
	unsigned phase = 0;

	smp_meet(&phase, smp_count);
	for (unsigned i = 0; i < SPLITS; i++) {
		u64 old = *p, was;
		do {
			was = old;
			asm volatile("lock cmpxchgq %2, %1" : "+a"(old), "+m"(*p) : "r"(was + 1)
				     : "memory", "cc");
		} while (old != was);
	}
}

static void split(const char *what, void (*fn)(unsigned, ulong), u8 *at, unsigned size)
{
	u64 v = 0;

	memset(at, 0, size);
	smp_run(fn, (ulong)at);
	memcpy(&v, at, size);
	check_eq(v, smp_count * SPLITS, "%s", what);
}

/* A counter in a page from which all of them run code. */
static void mixed(unsigned cpu, ulong at)
{
	unsigned (*fn)(void) = (void *)(code + 4096 + 512);

	for (unsigned i = 0; i < SPLITS; i++) {
		asm volatile("lock incq %0" : "+m"(*(volatile u64 *)at) :: "memory", "cc");
		if (fn() != 77)
			__atomic_fetch_add(&wrong, 1, __ATOMIC_SEQ_CST);
	}
}

static void splits(void)
{
	section("locks that the host has not");
	split("lock inc over a line", split_inc, arena + 60, 8);
	split("lock inc over a page", split_inc, arena + 4096 - 3, 8);
	split("lock xadd over a line", split_xadd, arena + 62, 4);
	split("lock xadd over a page", split_xadd, arena + 4096 - 2, 4);
	split("lock cmpxchg over a line", split_cmpxchg, arena + 61, 8);
	put_version(code + 4096 + 512, 77);
	wrong = 0;
	split("lock inc beside code", mixed, code + 4096, 8);
	check_eq(wrong, 0, "the code beside it");
}

/* ---- Accessed and dirty bits ------------------------------------------------------------------- */

/*
 * The last processor takes an entry away with XCHG, over and over; a walk by the others must not bring
 * back bits of an entry that is gone: it is zero until it is put there again.
 */
static volatile u64 ghosts;
static volatile unsigned walked;

static void walker_fault(struct frame *f)
{
	f->ip += 3;			/* over the store: movb with a displacement-free operand */
}

static void race_entries(unsigned cpu, ulong arg)
{
	volatile u64 *entry = &window_pt[5];
	u64 here = (ulong)page_a | 3;
	unsigned phase = 0;

	smp_meet(&phase, smp_count);
	if (cpu == 1) {
		for (unsigned i = 0; i < 30000; i++) {
			u64 v = 0;

			*entry = here;
			for (unsigned k = i * 2654435761u >> 26; k; k--)
				barrier();
			asm volatile("xchgq %0, %1" : "+r"(v), "+m"(*entry) :: "memory");
			for (unsigned k = 0; k < 20; k++)
				if (*entry)
					ghosts++;
		}
		over = true;
		return;
	}
	while (!over) {
		invlpg(WINDOW + 5 * 4096);
		asm volatile("movb $1, (%0)" :: "r"(WINDOW + 5 * 4096 + 8) : "memory");
		__atomic_fetch_add(&walked, 1, __ATOMIC_SEQ_CST);
	}
}

static void accessed(void)
{
	section("accessed and dirty bits");
	on_trap(14, walker_fault);
	over = false;
	smp_run(race_entries, 0);
	on_trap(14, NULL);
	check(walked > 10, "walks: %u", walked);
	check_eq(ghosts, 0, "bits set in an entry that is gone");
}

/* ---- x2APIC ---------------------------------------------------------------------------------------- */

static void go_x2apic(unsigned cpu, ulong arg)
{
	x2apic_on();
}

static void x2apic(void)
{
	unsigned all = (1u << smp_count) - 1;

	section("x2APIC");
	if (!HAS_X2APIC) {
		skip("no x2APIC");
		return;
	}
	smp_run(go_x2apic, 0);
	start_listening(listen);
	message("physical", smp_apic_id[1], 0x40, 2);
	message("physical to all", 0xffffffff, 0x42, all);
	message("to nobody", 0xee, 0x43, 0);
	message("shorthand all", 0, TO_ALL | 0x45, all);
	message("shorthand others", 0, TO_OTHERS | 0x46, all & ~1u);
	for (unsigned i = 0; i < smp_count; i++)
		message("logical", smp_apic_id[i] >> 4 << 16 | 1u << (smp_apic_id[i] & 15), LOGICAL | 0x47,
			1u << i);
	/* Who started first is processor 1 here, whatever its APIC ID. */
	message("logical to two", 1u << smp_apic_id[0] | 1u << smp_apic_id[1], LOGICAL | 0x48, 3);
	stop_listening();
	forget();
	sti();
	wrmsr(0x83f, 0x77);
	UNTIL(got[0][0x77]);
	cli();
	check_eq(total(0x77), 1, "self IPI");
}

void guest_main(void)
{
	smp_start();
	topology();
	messages();
	shootdown();
	cross_modifying();
	locks();
	splits();
	accessed();
	x2apic();
	if (smp_count > 2)
		restart();
}
