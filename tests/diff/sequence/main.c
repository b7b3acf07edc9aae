/*
 * sequence: every way of the soft processor to run code, against one instruction at a time.
 *
 *	sequence			programs for about half a minute, a third with a fixed seed
 *	sequence --seed N --cases M	programs 0 to M-1 of seed N
 *	sequence --seed N --case K	that one
 *	sequence --seconds S		new seeds until S seconds are over, or something differs
 *	--v3				cpu.model=skep-v3.1: VEX instructions between the others
 *	--ways WORDS			of blocks, short, translated; with commas between
 *	--keep				a failing program as it is, not with what does not matter left out
 */
#include <inttypes.h>
#include <stdlib.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "../options.h"
#include "sequence.h"
#include "state/codec.h"
#include "state/state.h"

#ifdef __SANITIZE_ADDRESS__
#define CHECK_CASES	1500ull
#else
#define CHECK_CASES	6000ull
#endif

static const char *const way_names[BOX_WAYS] = { "alone", "blocks", "short", "translated" };

static struct {
	struct run_options run;
	bool keep;
	const char *ways;
} option = { .ways = "blocks,short,translated", .run.max_failures = 5 };

static struct bare *box[BOX_WAYS];

/* What the reference is like after each instruction. */
static struct step {
	struct cpu_arch_state s;
	uint64_t ram, insns;
} ref[SEQ_MAX_COUNT + 1];
static unsigned ref_end;	/* steps, and whether the last one halted */
static bool ref_halted;

static struct { uint64_t programs, runs, instructions, failures, faults; } stats;

/* ---- One program ---------------------------------------------------------------------- */

static void look(struct bare *b, struct step *s)
{
	box_state(b, &s->s);
	s->ram = XXH3_64bits(box_ram(b), SEQ_RAM);
	s->insns = box_insns(b);
}

static void run_reference(const struct program *p)
{
	box_load(box[BOX_ALONE], p, true);
	ref[0].insns = 0;
	ref_halted = false;
	for (ref_end = 0; ref_end < SEQ_MAX_COUNT && !ref_halted;) {
		ref_halted = box_run(box[BOX_ALONE], 1);
		look(box[BOX_ALONE], &ref[++ref_end]);
	}
	/* That it halts is seen with one more step, which does nothing. */
	if (ref_halted)
		ref_end--;
}

static void count_difference(void *opaque, const char *field, const char *a, const char *b, bool host)
{
	++*(unsigned *)opaque;
}

static bool same(const struct step *a, const struct step *b)
{
	unsigned n = 0;

	if (a->ram != b->ram || a->insns != b->insns)
		return false;
	if (memcmp(&a->s, &b->s, sizeof a->s))
		state_diff(&cpu_arch_record, &a->s, &b->s, count_difference, &n);
	return !n;
}

struct failure {
	enum box_way way;
	unsigned stop, n;	/* stopped after so many (0: not), looked at after n */
	bool cold;
	struct step got;
};

/* Runs to stop, if it is not 0, and on to n; true: it is as it must be. */
static bool try(const struct program *p, enum box_way way, unsigned stop, unsigned n, bool cold,
		struct failure *f)
{
	*f = (struct failure){ .way = way, .stop = stop, .n = n, .cold = cold };
	box_load(box[way], p, cold);
	/* INT whose delivery faults takes two counts, between which nothing can stop. */
	if (stop)
		box_run(box[way], ref[stop].insns);
	box_run(box[way], ref[n].insns - ref[stop].insns);
	look(box[way], &f->got);
	stats.runs++;
	stats.instructions += n;
	return same(&f->got, &ref[n]);
}

static bool try_way(const struct program *p, enum box_way way, struct failure *f)
{
	if (!try(p, way, 0, ref_end, true, f) || !try(p, way, 0, ref_end, false, f))
		return false;
	for (unsigned n = 1; n < ref_end; n++) {
		/* Each count; from there on to the end for some. */
		if (!try(p, way, 0, n, n % 7 == 3, f))
			return false;
		if ((n ^ p->number) % 4 == 0 && !try(p, way, n, ref_end, false, f))
			return false;
	}
	return true;
}

static bool wanted(enum box_way way)
{
	return box[way] && strstr(option.ways, way_names[way]);
}

static bool agrees(const struct program *p, struct failure *f)
{
	run_reference(p);
	for (enum box_way way = BOX_BLOCKS; way < BOX_WAYS; way++)
		if (wanted(way) && ref_end && !try_way(p, way, f))
			return false;
	return true;
}

/* ---- A failure in words ------------------------------------------------------------------ */

static void tell(void *opaque, const char *field, const char *a, const char *b, bool host)
{
	static const char *const names[16] = { "rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
					       "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15" };
	unsigned n;

	if (sscanf(field, "gpr[%u]", &n) == 1 && n < 16)
		field = names[n];
	printf("    %-12s %s, must be %s\n", field, b, a);
}

static void print_memory(const struct program *p, const struct failure *f)
{
	static uint8_t got[SEQ_RAM];
	const uint8_t *want;
	unsigned shown = 0;

	try(p, f->way, f->stop, f->n, f->cold, &(struct failure){ 0 });
	memcpy(got, box_ram(box[f->way]), SEQ_RAM);
	box_load(box[BOX_ALONE], p, true);
	for (unsigned i = 0; i < f->n; i++)
		box_run(box[BOX_ALONE], 1);
	want = box_ram(box[BOX_ALONE]);
	for (unsigned i = 0; i < SEQ_RAM && shown < 16; i++) {
		uint32_t lin = i < SEQ_CODE_PAGES * 0x1000 ? SEQ_CODE + i :
			       SEQ_DATA + i - SEQ_CODE_PAGES * 0x1000;

		if (got[i] != want[i] && shown++ < 16)
			printf("    [%08x] %02x, must be %02x\n", lin, got[i], want[i]);
	}
}

/* What does not matter becomes NOPs. */
static void reduce(struct program *p)
{
	struct program *less = malloc(sizeof *less);
	struct failure f;

	if (!less)
		abort();
	for (unsigned round = 0; round < 2; round++)
		for (unsigned i = 0; i < p->ninsns; i++) {
			unsigned at = p->off[i], end = i + 1 < p->ninsns ? p->off[i + 1] : p->len;

			*less = *p;
			memset(less->code + at, 0x90, end - at);
			if (!agrees(less, &f))
				*p = *less;
		}
	free(less);
}

static void report(struct program *p, const struct failure *first)
{
	struct failure f;
	bool again;

	if (!option.keep)
		reduce(p);
	printf("seed %" PRIu64 " case %" PRIu64 "%s%s:\n", p->seed, p->number,
	       p->loops ? ", loops" : "", p->writes_code ? ", writes code" : "");
	program_print(p, p->code, stdout);
	again = !agrees(p, &f);
	if (!again) {
		printf("  only once, and no more when tried again; then:\n");
		f = *first;
	}
	printf("  %s%s, after %u instructions%s%u%s, at %08" PRIx64 " (before it %08" PRIx64 "):\n",
	       way_names[f.way], f.cold ? " (caches empty)" : "", f.n,
	       f.stop ? ", stopped after " : " (of ", f.stop ? f.stop : ref_end, f.stop ? "" : ")",
	       ref[f.n].s.rip, f.n > 1 ? ref[f.n - 1].s.rip : p->in.rip);
	if (f.got.insns != ref[f.n].insns)
		printf("    instructions %" PRIu64 ", must be %" PRIu64 "\n", f.got.insns, ref[f.n].insns);
	state_diff(&cpu_arch_record, &ref[f.n].s, &f.got.s, tell, NULL);
	if (again && f.got.ram != ref[f.n].ram)
		print_memory(p, &f);
	for (unsigned i = 0; i < 16; i++)
		printf("    %s%u=%" PRIx64 "%s", "r", i, p->in.gpr[i], i % 4 == 3 ? "\n" : " ");
	printf("    rflags=%" PRIx64 "\n", p->in.rflags);
	fflush(stdout);
}

static void run_case(uint64_t seed, uint64_t number)
{
	static struct program p;
	struct failure f;

	program_make(&p, seed, number, option.run.v3);
	stats.programs++;
	if (option.run.have_case) {
		program_print(&p, p.code, stdout);
	}
	if (!agrees(&p, &f)) {
		stats.failures++;
		report(&p, &f);
	}
	stats.faults += ref_halted;
}

/* ---- The whole ------------------------------------------------------------------------------ */

/* One line that scripts/check counts. */
static void run_seed(uint64_t seed, uint64_t n)
{
	uint64_t before = stats.failures;

	if (option.run.have_case)
		run_case(seed, option.run.only_case);
	else
		for (uint64_t i = 0; i < n && stats.failures < option.run.max_failures; i++)
			run_case(seed, i);
	if (stats.failures == before)
		printf("ok seed-%" PRIu64 "\n", seed);
	else
		printf("not ok seed-%" PRIu64 " - the ways differ; sequence%s --seed %" PRIu64 "\n", seed,
		       option.run.v3 ? " --v3" : "", seed);
	fflush(stdout);
}

static void run_all(double start)
{
	uint64_t n = option.run.cases ? option.run.cases : CHECK_CASES;

	if (option.run.have_seed || option.run.have_case) {
		run_seed(option.run.seed, n);
		return;
	}
	run_seed(1, n / 3);
	do {
		run_seed(new_seed(), n - n / 3);
	} while (now() - start < option.run.seconds && !stats.failures);
}

static void parse(int argc, char **argv)
{
	static const struct option longs[] = {
		RUN_OPTIONS, { "ways", 1, NULL, 'w' }, { "keep", 0, NULL, 'K' }, { 0 },
	};
	int c;

	while ((c = getopt_long(argc, argv, "", longs, NULL)) != -1) {
		switch (c) {
		case 'w': option.ways = optarg; break;
		case 'K': option.keep = true; break;
		default:
			if (!run_option(&option.run, c))
				exit(2);
		}
	}
}

int main(int argc, char **argv)
{
	double start;

	parse(argc, argv);
	rule_set_model(option.run.v3);
	for (enum box_way way = 0; way < BOX_WAYS; way++) {
		const char *why;

		box[way] = box_create(way, option.run.v3, &why);
		if (!box[way] && !strstr(why, NO_TRANSLATOR)) {
			printf("sequence: %s: %s\n", way_names[way], why);
			return strstr(why, NO_MODEL) ? 77 : 2;
		}
		if (!box[way])
			printf("skip %s - %s\n", way_names[way], why);
	}
	start = now();
	run_all(start);
	printf("%" PRIu64 " programs (%" PRIu64 " ended in a fault or a breakpoint), %" PRIu64 " runs, %" PRIu64
	       " instructions, %" PRIu64 " failures; %.0f programs a second\n", stats.programs, stats.faults,
	       stats.runs, stats.instructions, stats.failures, (double)stats.programs / (now() - start));
	for (enum box_way way = 0; way < BOX_WAYS; way++)
		box_destroy(box[way]);
	return stats.failures ? 1 : 0;
}
