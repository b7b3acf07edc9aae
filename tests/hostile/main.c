/*
 * hostile [-v] [-m] [--seed N] [--cases M] [--only K] GUESTS DIRECTORY
 * hostile --corpus DIRECTORY GUESTS
 *
 * Loads what no skep has written: every single bit of header and notes flipped, every length
 * of the file, and M mutations whose digest is right, of good snapshots that it makes first.
 * Each comes to a machine, which runs for a moment, or to a sentence.  The mutations (-m: nothing
 * else) are a function of N; what fails is kept in DIRECTORY as failed.skep, and `--only K`
 * does case K again.  The second form writes the good ones down, as a corpus for the fuzzer.
 */
#include "hostile.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/util.h"

struct options {
	uint64_t seed, cases, only;
	bool one, verbose, mutations;	/* nothing but mutations */
	const char *guests, *directory, *corpus;
};

/* What is tried now, for hostile_failed. */
static struct {
	const char *what, *directory;
	uint64_t seed, number;
	const struct seed *of;
	int fd;
} now = { .fd = -1 };

struct tally {
	uint64_t cases, accepted;
	double longest;		/* seconds that the slowest one took */
	uint64_t slowest;
};

static double seconds(void)
{
	static struct timespec begin;
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	if (!begin.tv_sec)
		begin = t;
	return (double)(t.tv_sec - begin.tv_sec) + (double)(t.tv_nsec - begin.tv_nsec) / 1e9;
}

/* Processor time, which a busy host makes no longer. */
static double spent(void)
{
	struct timespec t;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* ---- Failures ------------------------------------------------------------------ */

static void keep(void)
{
	char path[300], chunk[65536];
	ssize_t n;
	off_t at;
	int fd;

	fprintf(stderr, "hostile: %s of %s, number %llu, seed %llu\n", now.what ? now.what : "nothing",
		now.of ? now.of->name : "-", (unsigned long long)now.number, (unsigned long long)now.seed);
	snprintf(path, sizeof(path), "%s/failed.skep", now.directory);
	fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	for (at = 0; fd >= 0 && (n = pread(now.fd, chunk, sizeof(chunk), at)) > 0; at += n)
		if (pwrite(fd, chunk, n, at) != n)
			break;
	fprintf(stderr, "hostile: the file is kept in %s\n", path);
}

static void on_signal(int sig)
{
	signal(sig, SIG_DFL);
	keep();
	raise(sig);
}

/* Sanitizers end the process their own ways: one tells us, the other is made to raise a signal. */
void __sanitizer_set_death_callback(void (*fn)(void)) __attribute__((weak));
const char *__ubsan_default_options(void);

const char *__ubsan_default_options(void)
{
	return "abort_on_error=1";
}

static void watch_failures(void)
{
	static const int signals[] = { SIGSEGV, SIGABRT, SIGFPE, SIGILL };

	hostile_failed = keep;
	if (__sanitizer_set_death_callback)
		__sanitizer_set_death_callback(keep);
	signal(SIGABRT, on_signal);
	for (unsigned i = 0; i < ARRAY_SIZE(signals) && !hostile_sanitized(); i++)
		signal(signals[i], on_signal);
}

/* ---- One file in memory, changed in place ------------------------------------------- */

static void put(const void *data, size_t len, uint64_t offset)
{
	if (len && pwrite(now.fd, data, len, (off_t)offset) != (ssize_t)len) {
		perror("hostile: memory");
		exit(2);
	}
}

static void resize(uint64_t len)
{
	if (ftruncate(now.fd, (off_t)len) < 0) {
		perror("hostile: memory");
		exit(2);
	}
}

static void put_image(struct image *m, bool ram)
{
	size_t len, i;
	uint8_t *notes = image_notes(m, &len);

	if (ram)
		resize(0);
	/* Parts may lie in the place of notes that were moved: the notes win. */
	for (i = 0; i < m->nparts && ram; i++)
		put(m->parts[i].data, m->parts[i].len, m->parts[i].offset);
	resize(m->notes_offset + len);
	put(m->head, sizeof(m->head), 0);
	put(notes, len, m->notes_offset);
	free(notes);
}

static void start_file(const struct seed *s)
{
	struct image m;

	if (now.fd >= 0)
		close(now.fd);
	now.of = s;
	now.fd = memfd_create("hostile", MFD_CLOEXEC);
	image_copy(&m, &s->image);
	put_image(&m, true);
	image_free(&m);
}

static enum hostile_result load(uint64_t choice, uint64_t insns, char *text)
{
	const struct hostile_options o = { .path = now.of->path, .choice = choice, .insns = insns };

	return hostile_load_fd(fcntl(now.fd, F_DUPFD_CLOEXEC, 3), &o, text);
}

static _Noreturn void wrong(const char *why)
{
	fprintf(stderr, "hostile: %s\n", why);
	abort();
}

/* ---- Good ones, every bit, every length ---------------------------------------------- */

static void good(const struct seed *s)
{
	char text[256];

	now.what = "the good file";
	start_file(s);
	for (now.number = 0; now.number < 512; now.number += 13)
		if ((now.number & 15) != 2 && load(now.number, 20000, text) != HOSTILE_ACCEPTED)
			wrong(text);
}

static void flip(const struct seed *s, uint64_t from, uint64_t to)
{
	uint8_t byte;

	for (now.number = 8 * from; now.number < 8 * to; now.number++) {
		byte = s->data[now.number / 8] ^ 1 << now.number % 8;
		put(&byte, 1, now.number / 8);
		if (load(UINT64_MAX, 0, NULL) != HOSTILE_REFUSED)
			wrong("a flipped bit went unnoticed");
		put(&s->data[now.number / 8], 1, now.number / 8);
	}
}

static uint64_t every_bit(const struct seed *s)
{
	uint64_t head = 64 + 56 * load16(s->data + 56);

	now.what = "a flipped bit";
	start_file(s);
	flip(s, 0, head);
	flip(s, s->image.notes_offset, s->len);
	return 8 * (head + s->len - s->image.notes_offset);
}

static uint64_t every_length(const struct seed *s)
{
	now.what = "a file cut short";
	start_file(s);
	for (now.number = s->len; now.number-- > 0;) {
		resize(now.number);
		if (load(UINT64_MAX, 0, NULL) != HOSTILE_REFUSED)
			wrong("a file that was cut short went unnoticed");
		/* Within megabytes of RAM: each page's edges. */
		if (s->len > MiB && now.number > IMAGE_HEAD + 1 && now.number < s->image.notes_offset &&
		    now.number % 4096 == 4095)
			now.number -= 4093;
	}
	return s->len;
}

/* ---- Mutations ------------------------------------------------------------------------ */

static void mutant(const struct options *o, const struct seed *seeds, const struct image *images,
		   size_t n, uint64_t number, bool *whole, struct tally *t)
{
	struct rng r = { o->seed ^ number * 0xd1342543de82ef95ull };
	const struct seed *s = &seeds[number / 256 % n];
	char text[256] = "accepted";
	struct image m;
	double begin = spent();
	uint64_t insns;

	if (now.of != s || o->one) {
		start_file(s);
		*whole = false;
	}
	now.number = number;
	image_copy(&m, &s->image);
	rng_next(&r);
	mutate(&m, &r, images, n);
	/* The last one may have left its own RAM behind. */
	put_image(&m, *whole || m.other_ram);
	*whole = m.other_ram;
	insns = rng_chance(&r, 4) ? 20000 : 300;
	t->cases++;
	t->accepted += load(rng_next(&r), insns, text) == HOSTILE_ACCEPTED;
	if (spent() - begin > t->longest) {
		t->longest = spent() - begin;
		t->slowest = number;
	}
	if (o->verbose)
		printf("%llu: %.2f ms: %s\n", (unsigned long long)number, 1e3 * (spent() - begin), text);
	image_free(&m);
}

static struct tally mutations(const struct options *o, const struct seed *seeds, size_t n)
{
	struct image *images = calloc(n, sizeof(*images));
	struct tally t = { 0 };
	bool whole = false;
	uint64_t k;
	size_t i;

	if (!images)
		exit(2);
	for (i = 0; i < n; i++)
		images[i] = seeds[i].image;
	now.what = "a mutation";
	now.of = NULL;
	for (k = o->one ? o->only : 0; k < (o->one ? o->only + 1 : o->cases); k++)
		mutant(o, seeds, images, n, k, &whole, &t);
	free(images);
	return t;
}

/* ---- All of it -------------------------------------------------------------------------- */

/* Where there are no holes the file stays what it is. */
static void pack_file(const struct seed *s)
{
	size_t len;
	uint8_t *packed = sparse_pack(s->data, s->len, &len);
	int fd = s->len < MiB ? -1 : open(s->path, O_WRONLY | O_TRUNC | O_CLOEXEC);

	if (fd >= 0 && pwrite(fd, packed, len, 0) != (ssize_t)len)
		perror(s->path);
	if (fd >= 0)
		close(fd);
	free(packed);
}

/* Some of the good ones as the fuzzer's corpus, which may well be older than the program. */
static int write_corpus(const struct options *o)
{
	static const char chosen[] = "plain zstd delta real fpu kvm hyperv demo";
	struct seed *seeds;
	size_t n = seeds_make(&seeds, o->corpus, o->guests), i;

	for (i = 0; i < n; i++) {
		if (strstr(chosen, seeds[i].name))
			pack_file(&seeds[i]);
		else
			unlink(seeds[i].path);
	}
	seeds_free(seeds, n);
	return 0;
}

static int all(const struct options *o)
{
	struct seed *seeds;
	struct tally t;
	size_t n, i;

	n = seeds_make(&seeds, o->directory, o->guests);
	hostile_begin();
	for (i = 0; i < n && !o->mutations; i++)
		good(&seeds[i]);
	printf("%.1f s: %zu good snapshots restored\n", seconds(), n);
	for (i = 0; i < n && !o->mutations; i++)
		if (!strcmp(seeds[i].name, "zstd") || (!hostile_sanitized() &&
		    (!strcmp(seeds[i].name, "plain") || !strcmp(seeds[i].name, "delta")))) {
			uint64_t bits = every_bit(&seeds[i]), lengths = every_length(&seeds[i]);

			printf("%.1f s: %s: %llu bits flipped, %llu lengths: all refused\n", seconds(),
			       seeds[i].name, (unsigned long long)bits, (unsigned long long)lengths);
		}
	now.what = "a file that is too large";
	for (i = 0; i < n && !o->mutations; i++)
		if (!strcmp(seeds[i].name, "zstd"))
			limits(&seeds[i]);
	printf("%.1f s: files that are too large\n", seconds());
	t = mutations(o, seeds, n);
	printf("%.1f s: %llu mutations, %llu accepted, seed %llu; the slowest took %.0f ms: %llu\n",
	       seconds(), (unsigned long long)t.cases, (unsigned long long)t.accepted,
	       (unsigned long long)o->seed, 1e3 * t.longest, (unsigned long long)t.slowest);
	close(now.fd);
	seeds_free(seeds, n);
	return hostile_end() ? 0 : 1;
}

static int parse(int argc, char **argv, struct options *o)
{
	int i;

	for (i = 1; i < argc && argv[i][0] == '-'; i++) {
		if (!strcmp(argv[i], "-v")) {
			o->verbose = true;
		} else if (!strcmp(argv[i], "-m")) {
			o->mutations = true;
		} else if (i + 1 == argc) {
			return -1;
		} else if (!strcmp(argv[i], "--corpus")) {
			o->corpus = argv[++i];
		} else if (!strcmp(argv[i], "--seed")) {
			o->seed = strtoull(argv[++i], NULL, 0);
		} else if (!strcmp(argv[i], "--cases")) {
			o->cases = strtoull(argv[++i], NULL, 0);
		} else if (!strcmp(argv[i], "--only")) {
			o->only = strtoull(argv[++i], NULL, 0);
			o->one = o->mutations = true;
		} else {
			return -1;
		}
	}
	if (argc - i != (o->corpus ? 1 : 2))
		return -1;
	o->guests = argv[i];
	o->directory = argv[i + 1];
	return 0;
}

int main(int argc, char **argv)
{
	/* A hundred thousand in make check, which does both. */
	struct options o = { .seed = 1, .cases = hostile_sanitized() ? 7000 : 30000 };

	setvbuf(stdout, NULL, _IOLBF, 0);
	if (parse(argc, argv, &o) < 0) {
		fprintf(stderr, "usage: hostile [-v] [-m] [--seed N] [--cases M] [--only K] GUESTS DIRECTORY\n"
			"       hostile --corpus DIRECTORY GUESTS\n");
		return 2;
	}
	if (o.corpus)
		return write_corpus(&o);
	now.directory = o.directory;
	now.seed = o.seed;
	printf("%.1f s: seed %llu\n", seconds(), (unsigned long long)o.seed);
	watch_failures();
	return all(&o);
}
