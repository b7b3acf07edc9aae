/*
 * The guest that is saved and restored by the clock.  It says "ready" on COM1, then sends one
 * byte at each of the timer's TICK_HZ ticks, 0x80 plus the low 7 bits of their count, and sleeps
 * between them: who listens sees when it stands still, and that it goes on where it was.  Lines
 * from COM1 tell it what to do, numbers in decimal, places and lengths in MiB:
 *
 *	fill FROM COUNT SEED	random bytes, no quadword zero; "filled SUM"
 *	stamp FROM COUNT SEED	one new quadword a page; "stamped SUM"
 *	churn FROM COUNT SEED	stamps again and again until a byte comes; "churned ROUNDS"
 *	walk FROM COUNT		reads all; "walked SUM", the sum of all quadwords
 *	reset			pulses the reset line
 *
 * All replies are ASCII, so that ticks can fall between their letters.
 */
#include "../../tests/guests/lib/ticks.h"

#define TICK_HZ		2000u
#define PAGE		4096ul
#define MIB		(1ul << 20)
#define MAPPED		(64ul << 30)	/* one to one; start64.S maps the first 4 GiB */

#define COM1		0x3f8
#define LSR_READY	0x01
#define LSR_EMPTY	0x20

void guest_start(void);

extern u64 boot_pdpt[512];

static u64 page_directories[MAPPED / (1ul << 30) - 4][512] __attribute__((aligned(4096)));
static u32 ticks;

__attribute__((interrupt)) static void tick(struct frame *f)
{
	ticks++;
	if (inb(COM1 + 5) & LSR_EMPTY)
		outb(COM1, 0x80 | (ticks & 0x7f));
	ticks_eoi();
}

/* Waits for the port with interrupts off only while it looks: ticks go on. */
static void put(char c)
{
	for (;;) {
		cli();
		if (inb(COM1 + 5) & LSR_EMPTY)
			break;
		sti();
	}
	outb(COM1, c);
	sti();
}

static void say(const char *text)
{
	while (*text)
		put(*text++);
}

static void say_number(u64 v)
{
	char digits[21], *p = digits + sizeof(digits) - 1;

	*p = 0;
	do
		*--p = '0' + v % 10;
	while (v /= 10);
	say(p);
	put('\n');
}

/* Asleep until a byte has come: every tick wakes it and it looks. */
static char get(void)
{
	while (!(inb(COM1 + 5) & LSR_READY))
		asm volatile("hlt" ::: "memory");
	return inb(COM1);
}

static u64 next(u64 *x)
{
	*x ^= *x << 13;		/* xorshift64: never zero, no quadword comes twice */
	*x ^= *x >> 7;
	*x ^= *x << 17;
	return *x;
}

static u64 fill(u64 *p, u64 bytes, u64 seed)
{
	u64 sum = 0;

	for (u64 *end = p + bytes / 8; p < end; p++)
		sum += *p = next(&seed);
	return sum;
}

static u64 stamp(u64 *p, u64 bytes, u64 seed)
{
	u64 sum = 0;

	for (u64 at = 0; at < bytes / 8; at += PAGE / 8)
		sum += p[at] = next(&seed);
	return sum;
}

static u64 churn(u64 *p, u64 bytes, u64 seed)
{
	u64 rounds = 0;

	while (!(inb(COM1 + 5) & LSR_READY)) {
		for (u64 at = 0; at < bytes && !(inb(COM1 + 5) & LSR_READY); at += MIB)
			seed = stamp(p + at / 8, MIB, seed | 1);
		rounds++;
	}
	inb(COM1);
	return rounds;
}

static u64 walk(const u64 *p, u64 bytes)
{
	u64 sum = 0;

	for (const u64 *end = p + bytes / 8; p < end; p++)
		sum += *p;
	return sum;
}

static u64 number(const char **at)
{
	u64 v = 0;

	while (**at == ' ')
		(*at)++;
	while (**at >= '0' && **at <= '9')
		v = v * 10 + *(*at)++ - '0';
	return v;
}

static void obey(const char *line)
{
	char verb = line[0];
	u64 from, count, seed;

	while (*line && *line != ' ')
		line++;
	from = number(&line) * MIB;
	count = number(&line) * MIB;
	seed = number(&line) * 0x9e3779b97f4a7c15ull | 1;
	if (from < 16 * MIB || from > MAPPED || count > MAPPED - from)
		verb = verb == 'r' ? verb : '?';
	switch (verb) {
	case 'f':
		from = fill((u64 *)from, count, seed);
		say("filled ");
		break;
	case 's':
		from = stamp((u64 *)from, count, seed);
		say("stamped ");
		break;
	case 'c':
		say("churning\n");
		from = churn((u64 *)from, count, seed);
		say("churned ");
		break;
	case 'w':
		from = walk((u64 *)from, count);
		say("walked ");
		break;
	case 'r':
		outb(0x64, 0xfe);
		for (;;)
			asm volatile("hlt");
	default:
		say("what? ");
	}
	say_number(from);
}

static void map_all(void)
{
	u64 gpa = 4ul << 30;

	for (unsigned i = 0; i < ARRAY_SIZE(page_directories); i++) {
		for (unsigned k = 0; k < 512; k++, gpa += 2 * MIB)
			page_directories[i][k] = gpa | 0x83;	/* present, writable, 2 MiB */
		boot_pdpt[4 + i] = (ulong)page_directories[i] | 3;
	}
}

static void start_port(void)
{
	outb(COM1 + 3, 0x80);
	outb(COM1, 1);			/* 115200 baud */
	outb(COM1 + 1, 0);
	outb(COM1 + 3, 3);
	outb(COM1 + 1, 0);
	outb(COM1 + 2, 7);		/* FIFOs on, empty */
	outb(COM1 + 4, 3);
}

void guest_start(void)
{
	static char line[64];
	unsigned n = 0;

	map_all();
	start_port();
	ticks_start(tick, TICK_HZ);
	say("ready\n");
	for (;;) {
		char c = get();

		if (c != '\n') {
			if (n < sizeof(line) - 1)
				line[n++] = c;
			continue;
		}
		line[n] = 0;
		n = 0;
		obey(line);
	}
}
