/*
 * The demonstration guest: ticks, tells the time, and keeps checking a
 * pattern in memory, so that one can see that a machine lives, and after a
 * restore that it is still the same one.
 */
#include "board.h"

#define PATTERN_BASE	((uint64_t *)0x400000)
#define PATTERN_KIB	4096

#define MULTIBOOT_MAGIC	0x2badb002
#define MULTIBOOT_CMDLINE 0x4			/* flags, and the pointer at +16 */

static uint64_t seconds, rounds, errors;
static uint64_t pattern_kib = PATTERN_KIB;

void demo_main(void);

/* xorshift64*, from the round: every word of every round is another. */
static uint64_t next_word(uint64_t *x)
{
	*x ^= *x >> 12;
	*x ^= *x << 25;
	*x ^= *x >> 27;
	return *x * 0x2545f4914f6cdd1dull;
}

static uint64_t seed_of(uint64_t round)
{
	return round * 0x9e3779b97f4a7c15ull + 1;
}

static void write_pattern(uint64_t round)
{
	uint64_t x = seed_of(round);

	for (unsigned i = 0; i < pattern_kib * 128; i++)
		PATTERN_BASE[i] = next_word(&x);
}

static void check_pattern(uint64_t round)
{
	uint64_t x = seed_of(round);

	for (unsigned i = 0; i < pattern_kib * 128; i++) {
		uint64_t want = next_word(&x);

		if (PATTERN_BASE[i] == want)
			continue;
		if (!errors++)
			print("memory at 0x%lx is 0x%lx and should be 0x%lx\n",
			      (uint64_t)&PATTERN_BASE[i], PATTERN_BASE[i], want);
	}
}

static void print_up(void)
{
	uint64_t tsc = read_tsc(), ms = tsc / (tsc_hz / 1000);
	struct wall_time t = board_wall_time();

	print("up %lu.%03lu s, %04u-%02u-%02u %02u:%02u:%02u", ms / 1000, ms % 1000, t.year,
	      t.month, t.day, t.hour, t.minute, t.second);
}

static void status(void)
{
	print("tick %lu: ", seconds);
	print_up();
	print(pattern_kib % 1024 ? ", %lu KiB" : ", %lu MiB",
	      pattern_kib % 1024 ? pattern_kib : pattern_kib / 1024);
	print(" checked %lu times, %lu errors\n", rounds, errors);
}

static void long_status(void)
{
	status();
	print("PIT %lu ticks at %u Hz, APIC timer %lu at %u Hz, TSC %lu at %lu kHz\n", pit_ticks,
	      PIT_HZ, apic_ticks, APIC_HZ, read_tsc(), tsc_hz / 1000);
}

static void help(void)
{
	print("keys: h help, s status, q power off, r reset\n");
}

static void wait_a_second(void)
{
	uint64_t until = apic_ticks + APIC_HZ;

	while (apic_ticks < until)
		__asm__ volatile("hlt");
}

static void handle_key(int key)
{
	switch (key) {
	case 'q':
		print("powering off\n");
		board_power_off();
		wait_a_second();
		print("the board does not power off\n");
		break;
	case 'r':
		print("resetting\n");
		board_reset();
		break;
	case 's':
		long_status();
		break;
	default:
		help();
		break;
	}
}

/* The number after key on the command line, or without one: other. */
static uint64_t option(const char *key, uint64_t other)
{
	const char *s;
	uint64_t n = 0;

	if (boot_magic != MULTIBOOT_MAGIC ||
	    !(*(const uint32_t *)(uintptr_t)boot_info & MULTIBOOT_CMDLINE))
		return other;
	s = (const char *)(uintptr_t)*(const uint32_t *)((uintptr_t)boot_info + 16);
	for (; *s; s++) {
		unsigned i = 0;

		while (key[i] && s[i] == key[i])
			i++;
		if (key[i])
			continue;
		for (s += i; *s >= '0' && *s <= '9'; s++)
			n = n * 10 + *s - '0';
		return n;
	}
	return other;
}

/*
 * On the command line: seconds=N, power off after N ticks (0: never); pattern=N, check N KiB of
 * memory (at most what it is without).
 */
void demo_main(void)
{
	uint64_t limit = option("seconds=", 0), next;

	pattern_kib = option("pattern=", PATTERN_KIB);
	if (pattern_kib > PATTERN_KIB)
		pattern_kib = PATTERN_KIB;

	console_init();
	print("\nskep demo guest: long mode, interrupts, clocks, and a memory pattern\n");
	help();
	board_init();
	print("TSC %lu MHz; PIT %u Hz; APIC timer %u Hz\n", tsc_hz / 1000000, PIT_HZ, APIC_HZ);
	write_pattern(rounds);
	next = apic_ticks + APIC_HZ;
	for (;;) {
		int key;

		while ((key = board_key()) >= 0)
			handle_key(key);
		if (board_power_button()) {
			print("power button: ");
			handle_key('q');
		}
		if (apic_ticks >= next) {
			next += APIC_HZ;
			check_pattern(rounds++);
			write_pattern(rounds);
			seconds++;
			status();
			if (limit && seconds >= limit)
				handle_key('q');
		}
		__asm__ volatile("hlt");
	}
}
