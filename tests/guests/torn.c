/*
 * A guest that finds out whether a snapshot of it is of one moment.  It writes the number of the
 * round to thousands of pages, one after the other in an order that jumps about, in every way in
 * which a processor writes: plain and locked stores, strings, the stack, sixteen bytes at once, across
 * two pages, through page tables that it changes, to code that it runs, and from an interrupt.  Before
 * each store it looks whether what was there is the round before: registers and RAM of two moments
 * would tell.  It says "." after each round, and "TORN ..." once when something does not fit, and
 * then halts for good.
 *
 * The command line's number is how many MiB it fills with noise first, so that a save takes a while.
 */
#include "lib/ticks.h"

#define PAGE	4096ul
#define MIB	(1ul << 20)
#define COM1	0x3f8
#define TICK_HZ	4000u

#define POOL	((u64 *)(32 * MIB))	/* pages of numbers */
#define NPAGES	8192u
#define CROSS	((u8 *)(80 * MIB))	/* pages in whose seams numbers lie */
#define NCROSS	512u
#define CODE	((u8 *)(96 * MIB))	/* pages of code */
#define NCODE	256u
#define PAIR	((volatile u64 *)(104 * MIB))	/* the interrupt's two pages, far apart */
#define PAIR_B	(PAIR + 7 * MIB / 8)
#define NOISE	(128 * MIB)
#define WINDOW	(0x3fe00000ul)		/* where pages show through a table of ours */

void guest_start(void);

extern u64 boot_pd[4 * 512];
extern u32 multiboot_info;

static volatile u64 table[512] __attribute__((aligned(4096)));
static u64 words;		/* how long the interrupt's line of counters is by now */

/* ---- Saying ---------------------------------------------------------------- */

static void put(char c)
{
	while (!(inb(COM1 + 5) & 0x20))
		;
	outb(COM1, c);
}

static void say(const char *text)
{
	while (*text)
		put(*text++);
}

static void say_number(u64 v)
{
	char digits[22], *p = digits + sizeof(digits) - 1;

	*p = 0;
	do
		*--p = '0' + v % 10;
	while (v /= 10);
	say(p);
	put(' ');
}

static void torn(const char *what, u64 where, u64 got, u64 want)
{
	cli();
	say("TORN ");
	say(what);
	put(' ');
	say_number(where);
	say_number(got);
	say_number(want);
	put('\n');
	for (;;)
		asm volatile("hlt");
}

static inline void expect(const char *what, u64 where, u64 got, u64 want)
{
	if (got != want)
		torn(what, where, got, want);
}

/* ---- Interrupts ------------------------------------------------------------ */

__attribute__((interrupt)) static void tick(struct frame *f)
{
	expect("interrupt", words, PAIR_B[words % 512], PAIR[words % 512]);
	PAIR[words % 512]++;
	PAIR_B[words % 512]++;
	words++;
	ticks_eoi();
}

/* ---- Ways to write a number ------------------------------------------------ */

static void by_store(u64 *p, u64 n)
{
	expect("store", (ulong)p, *(volatile u64 *)p, n);
	*(volatile u64 *)p = n + 1;
}

static void by_lock(u64 *p, u64 n)
{
	u64 one = 1;

	asm volatile("lock xaddq %0, %1" : "+r"(one), "+m"(*p) :: "memory");
	expect("lock", (ulong)p, one, n);
}

static void by_string(u64 *p, u64 n)
{
	void *to = p;
	u64 count = 512;

	for (unsigned i = 0; i < 512; i++)
		expect("string", (ulong)(p + i), ((volatile u64 *)p)[i], n);
	asm volatile("rep stosq" : "+D"(to), "+c"(count) : "a"(n + 1) : "memory");
}

static void by_stack(u64 *p, u64 n)
{
	expect("stack", (ulong)p, *(volatile u64 *)p, n);
	/* No interrupt may come onto that stack: it would write beside the number. */
	asm volatile("cli; mov %%rsp, %%r8; lea 8(%0), %%rsp; push %1; mov %%r8, %%rsp; sti"
		     :: "r"(p), "r"(n + 1) : "r8", "memory");
}

static void by_sixteen(u64 *p, u64 n)
{
	bool done;

	asm volatile("lock cmpxchg16b %1" : "=@ccz"(done), "+m"(*(unsigned __int128 *)p)
		     : "a"(n), "d"(n), "b"(n + 1), "c"(n + 1) : "memory");
	if (!done)
		torn("sixteen", (ulong)p, p[0], n);
}

/* Each time through another table entry, whose A and D bits the processor has to set. */
static void by_window(u64 *p, u64 n)
{
	unsigned slot = ((ulong)p / PAGE) % 512;
	volatile u64 *w = (volatile u64 *)(WINDOW + slot * PAGE);

	table[slot] = (ulong)p | PTE_P | PTE_W;
	invlpg((ulong)w);
	expect("window", (ulong)p, *w, n);
	expect("accessed", (ulong)p, table[slot] & (PTE_A | PTE_D), PTE_A);
	*w = n + 1;
	expect("dirty", (ulong)p, table[slot] & (PTE_A | PTE_D), PTE_A | PTE_D);
}

static void by_code(u8 *p, u64 n)
{
	u32 (*fn)(void) = (u32 (*)(void))(ulong)p;

	expect("code", (ulong)p, fn(), (u32)n);
	*(volatile u32 *)(p + 1) = (u32)(n + 1);
	expect("new code", (ulong)p, fn(), (u32)(n + 1));
}

static void by_crossing(u8 *p, u64 n)
{
	volatile u64 *q = (volatile u64 *)(p + PAGE - 3);

	expect("crossing", (ulong)q, *q, n * 0x0101010101010101ul);
	*q = (n + 1) * 0x0101010101010101ul;
}

/* ---- Rounds ---------------------------------------------------------------- */

static void write_page(unsigned i, u64 n)
{
	u64 *p = POOL + (ulong)i * (PAGE / 8);

	switch (i % 32) {
	case 0:
		by_string(p, n);
		break;
	case 1: case 2: case 3: case 4:
		by_lock(p + 7, n);
		break;
	case 5: case 6: case 7:
		by_stack(p + 100, n);
		break;
	case 8: case 9: case 10:
		by_sixteen(p + 40, n);
		break;
	case 11: case 12: case 13: case 14:
		by_window(p, n);
		break;
	default:
		by_store(p + i % 512, n);
	}
}

static void round(u64 n)
{
	/* An odd stride visits all pages of a power of two, far from each other. */
	for (unsigned k = 0; k < NPAGES; k++) {
		write_page(k * 2741 % NPAGES, n);
		if (k % (NPAGES / NCODE) == 0)
			by_code(CODE + k / (NPAGES / NCODE) * PAGE, n);
		if (k % (NPAGES / NCROSS) == 0)
			by_crossing(CROSS + k / (NPAGES / NCROSS) * 2 * PAGE, n);
	}
}

static u64 noise_wanted(void)
{
	const u32 *info = (const u32 *)(ulong)multiboot_info;
	const char *s = info[0] & 4 ? (const char *)(ulong)info[4] : "";
	u64 v = 0;

	/* The loader may put its own name first. */
	while (*s && (*s < '0' || *s > '9'))
		s++;
	while (*s >= '0' && *s <= '9')
		v = v * 10 + *s++ - '0';
	return v * MIB;
}

static void make_noise(u64 *p, u64 bytes)
{
	u64 x = 88172645463325252ul;

	for (u64 *end = p + bytes / 8; p < end; p++) {
		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		*p = x;
	}
}

void guest_start(void)
{
	u64 n = 0;

	boot_pd[WINDOW >> 21] = (ulong)table | 3;
	set_cr3(get_cr3());
	for (unsigned i = 0; i < NCODE; i++) {
		CODE[i * PAGE] = 0xb8;		/* mov $imm32, %eax; ret */
		CODE[i * PAGE + 5] = 0xc3;
	}
	make_noise((u64 *)NOISE, noise_wanted());
	ticks_start(tick, TICK_HZ);
	say("ready\n");
	for (;; n++) {
		round(n);
		put('.');
	}
}
