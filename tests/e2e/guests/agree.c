/*
 * agree SOURCE... : in Debian, for ever: do all clocks of the machine agree?
 *
 * The TSC is the yardstick (1 GHz).  CLOCK_MONOTONIC and _RAW, of each clocksource in turn and as user
 * code reads them (vDSO), HPET, PM timer, the 8254's counter 2 and the RTC's seconds must go on as
 * it does, within a millisecond, and none may go back.  Gaps in time are nobody's business here: all see
 * the same ones.  Prints a line a source, or DISAGREE.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/io.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define MS		1000000ll
#define SAMPLES		20		/* for each source */
#define PAUSE_NS	(10 * MS)
#define PM_PORT		0x608
#define CURRENT "/sys/devices/system/clocksource/clocksource0/current_clocksource"

static volatile uint64_t *hpet;
static const char *source = "?";

static uint64_t tsc(void)
{
	uint32_t lo, hi;

	__asm__ volatile("lfence; rdtsc; lfence" : "=a"(lo), "=d"(hi) : : "memory");
	return (uint64_t)hi << 32 | lo;
}

static int64_t timespec(clockid_t id)
{
	struct timespec t;

	clock_gettime(id, &t);
	return t.tv_sec * 1000 * MS + t.tv_nsec;
}

static uint64_t read_monotonic(void) { return (uint64_t)timespec(CLOCK_MONOTONIC); }
static uint64_t read_raw(void) { return (uint64_t)timespec(CLOCK_MONOTONIC_RAW); }
static uint64_t read_boot(void) { return (uint64_t)timespec(CLOCK_BOOTTIME); }
static uint64_t read_wall(void) { return (uint64_t)timespec(CLOCK_REALTIME); }
static uint64_t read_hpet(void) { return hpet[0xf0 / 8]; }
static uint64_t read_pm(void) { return inl(PM_PORT); }

/* It counts down. */
static uint64_t read_pit(void)
{
	unsigned lo;

	outb(0x80, 0x43);
	lo = inb(0x42);
	return 0x10000 - (lo | (unsigned)inb(0x42) << 8);
}

struct clock {
	const char *name;
	uint64_t (*read)(void);
	uint64_t hz, wrap;		/* 0: it does not */
	int kernels;			/* kept by Linux, from the clocksource */
	uint64_t begin, begin_tsc, last;
	int64_t worst;
};

static struct clock clocks[] = {
	{ "CLOCK_MONOTONIC", read_monotonic, 1000000000, 0, 1 },
	{ "CLOCK_MONOTONIC_RAW", read_raw, 1000000000, 0, 1 },
	{ "CLOCK_BOOTTIME", read_boot, 1000000000, 0, 1 },
	{ "CLOCK_REALTIME", read_wall, 1000000000, 0, 1 },
	{ "HPET", read_hpet, 10000000, 0, 0 },
	{ "PM timer", read_pm, 3579545, 1 << 24, 0 },
	{ "8254", read_pit, 1193182, 1 << 16, 0 },
};
#define CLOCKS (sizeof(clocks) / sizeof(clocks[0]))

/* The value, and the TSC in the middle of reading it; a reading that took long is not one. */
static uint64_t sample(struct clock *c, uint64_t *at)
{
	uint64_t before, after, v;

	do {
		before = tsc();
		v = c->read();
		after = tsc();
	} while (after - before > MS / 5);
	*at = before + (after - before) / 2;
	return v;
}

static void begin(struct clock *c)
{
	c->begin = c->last = sample(c, &c->begin_tsc);
}

/* What a clock should have counted, less what it has, in ns. */
static int64_t off_by(const struct clock *c, uint64_t v, uint64_t at)
{
	int64_t off = (int64_t)((unsigned __int128)(at - c->begin_tsc) * c->hz / 1000000000) -
		      (int64_t)(v - c->begin);

	if (c->wrap) {
		off &= c->wrap - 1;
		if (off >= (int64_t)c->wrap / 2)
			off -= c->wrap;
	}
	return off * 1000000000 / (int64_t)c->hz;
}

static void disagree(const char *name, const char *what, int64_t ns)
{
	for (unsigned i = 0; i < CLOCKS; i++) {
		uint64_t at, v = sample(&clocks[i], &at);

		printf("%s: %lld ns\n", clocks[i].name, (long long)off_by(&clocks[i], v, at));
	}
	printf("DISAGREE: %s %s by %lld ns, with clocksource %s\n", name, what, (long long)ns, source);
	fflush(stdout);
	sleep(3600);
	exit(1);
}

/* What Linux keeps begins anew, but not earlier than it was. */
static void begin_kernels(void)
{
	for (unsigned i = 0; i < CLOCKS; i++) {
		uint64_t last = clocks[i].last;

		if (!clocks[i].kernels)
			continue;
		begin(&clocks[i]);
		if (clocks[i].last < last)
			disagree(clocks[i].name, "went back", (int64_t)(last - clocks[i].last));
	}
}

/*
 * The PM timer has 24 bits: who does not look at it for half of 4.7 s may take it to go back, and
 * Linux then stands still until it has come round.  It is so on every machine.
 */
static int forgive_wraps(void)
{
	static uint64_t last;
	uint64_t now = tsc();
	int gap = last && now - last > 2000 * MS && !strcmp(source, "acpi_pm");

	if (gap) {
		sleep(5);
		begin_kernels();
	}
	last = tsc();
	return gap;
}

static void look(struct clock *c)
{
	uint64_t at, v = sample(c, &at);
	int64_t off;

	if (forgive_wraps())
		return;
	off = off_by(c, v, at);
	if (llabs(off) > llabs(c->worst))
		c->worst = off;
	if (llabs(off) > MS)
		disagree(c->name, "is off", off);
	if (!c->wrap && v < c->last)
		disagree(c->name, "went back", (int64_t)(c->last - v));
	c->last = v;
}

static unsigned rtc_second(void)
{
	outb(0, 0x70);
	return inb(0x71);
}

/* When, in the TSC's second, the RTC's begins: between two looks that are close to each other. */
static int64_t rtc_phase(void)
{
	uint64_t last = tsc(), now, end;
	unsigned was = rtc_second(), is;

	for (;; last = now, was = is) {
		now = tsc();
		is = rtc_second();
		end = tsc();
		if (is != was && end - last < MS / 5)
			return (int64_t)(last % 1000000000);
	}
}

static void look_at_rtc(void)
{
	static int64_t phase = -1;
	int64_t off, is = rtc_phase();

	if (phase < 0)
		phase = is;
	off = (is - phase + 1500000000) % 1000000000 - 500000000;
	if (llabs(off) > MS)
		disagree("the RTC", "is off", off);
}

static void choose(const char *name)
{
	int fd = open(CURRENT, O_RDWR);
	char is[64] = "";

	if (fd < 0 || write(fd, name, strlen(name)) < 0 || pread(fd, is, sizeof(is) - 1, 0) < 0 ||
	    strncmp(is, name, strlen(name))) {
		printf("DISAGREE: no clocksource %s: %s\n", name, strerror(errno));
		exit(1);
	}
	close(fd);
	source = name;
}

static void watch(const char *name)
{
	const struct timespec pause = { .tv_nsec = PAUSE_NS };

	/* Between its looks at the old one and at the new one Linux may be kept waiting by a busy host. */
	choose(name);
	begin_kernels();
	for (unsigned n = 0; n < SAMPLES; n++) {
		for (unsigned i = 0; i < CLOCKS; i++)
			look(&clocks[i]);
		nanosleep(&pause, NULL);
	}
	printf("agree: %s:", name);
	for (unsigned i = 0; i < CLOCKS; i++) {
		printf(" %lld", (long long)clocks[i].worst);
		clocks[i].worst = 0;
	}
	printf(" ns\n");
	fflush(stdout);
}

int main(int argc, char **argv)
{
	int fd = open("/dev/mem", O_RDWR | O_SYNC);

	if (argc < 2 || fd < 0 || iopl(3) < 0) {
		printf("DISAGREE: no permission\n");
		return 1;
	}
	hpet = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0xfed00000);
	if (hpet == MAP_FAILED) {
		printf("DISAGREE: no HPET: %s\n", strerror(errno));
		return 1;
	}
	hpet[0x10 / 8] |= 1;		/* it counts, also if Linux was told to leave it alone */
	/* Counter 2: rate generator, 65536, gate on, speaker off. */
	outb((inb(0x61) & ~2) | 1, 0x61);
	outb(0xb4, 0x43);
	outb(0, 0x42);
	outb(0, 0x42);
	usleep(1000);
	for (unsigned i = 0; i < CLOCKS; i++)
		begin(&clocks[i]);
	for (;;) {
		for (int i = 1; i < argc; i++)
			watch(argv[i]);
		look_at_rtc();
	}
}
