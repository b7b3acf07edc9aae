/*
 * diff: the soft processor against the host's.
 *
 *	diff				half a million cases: half with a fixed seed, half with a new one
 *	diff --seed N --cases M		cases 0 to M-1 of seed N
 *	diff --seed N --case K		that one, whatever comes of it
 *	diff --forever			new seeds until something differs
 *	diff --seconds S		new seeds until S seconds are over, or something differs
 *	--only MNEMONIC			only cases that hold it
 *	--verbose			each failing case in full, and counts by mnemonic
 *	--strict			flags that the SDM calls undefined, too
 *	--coverage			what is announced and was not generated
 *	--soft-only			no native code: the soft processor's paths with each other
 *	--v3				cpu.model=skep-v3.1: half of all instructions have a VEX prefix
 */
#include <inttypes.h>
#include <stdlib.h>

#include "diff.h"
#include "options.h"

#define FIXED_SEED	2
#ifdef __SANITIZE_ADDRESS__
#define SANITIZED	true
#define CHECK_CASES	100000ull
#else
#define SANITIZED	false
#define CHECK_CASES	500000ull
#endif
#define MNEMONICS	(ZYDIS_MNEMONIC_MAX_VALUE + 1)

static struct {
	struct run_options run;
	bool forever, verbose, strict, coverage, soft_only;
	ZydisMnemonic only;
} option = { .run.max_failures = 10 };

static struct {
	uint64_t run, unannounced, faults, ends, undecided, failures;
	uint32_t seen[MNEMONICS], failed[MNEMONICS];
} stats;

static uint8_t base_memory[DATA_SIZE], memory[DATA_SIZE];
static struct host_facts host;
/* Large, and written whole for every case. */
static struct diff_case the_case;
static struct outcome native, soft[SOFT_PATHS];
static unsigned paths;		/* of these there are so many */

/* ---- One case ------------------------------------------------------------------------ */

static void patch(const struct diff_case *k, bool in)
{
	for (unsigned i = 0; i < k->npatches; i++) {
		const struct case_patch *p = &k->patch[i];
		unsigned off = p->addr - DATA_BASE;

		memcpy(memory + off, in ? p->bytes : base_memory + off, p->len);
	}
}

/* What was found first, for the case that it does not come again. */
static char first_words[4096];

static void take_down(const struct diff_case *k, unsigned path)
{
	FILE *f = fmemopen(first_words, sizeof first_words, "w");

	if (!f)
		return;
	fprintf(f, "  %s:\n", path_name(path));
	if (k->kind == CASE_UD)
		compare_ud(k, memory, &soft[path], f);
	else
		compare_outcomes(k, option.soft_only ? &soft[0] : &native, &soft[path], f);
	fclose(f);
}

/* Do two paths fail in the same way?  Then one is told. */
static bool same_failure(unsigned a, unsigned b)
{
	return soft[a].ending == soft[b].ending && soft[a].vector == soft[b].vector &&
	       !memcmp(&soft[a].m, &soft[b].m, sizeof soft[a].m);
}

/* Runs the case everywhere; true: all agree.  out not NULL: prints what does not. */
static bool agrees(const struct diff_case *k, FILE *out)
{
	bool same = true;

	if (k->kind == CASE_COMPARE && !option.soft_only)
		native_run(k, memory, &native);
	soft_place(k);
	for (unsigned p = 0; p < paths; p++) {
		bool ok;

		soft_execute(k, memory, p, &soft[p]);
		if (k->kind == CASE_UD)
			ok = compare_ud(k, memory, &soft[p], NULL);
		else
			ok = compare_outcomes(k, option.soft_only ? &soft[0] : &native, &soft[p], NULL);
		if (!ok && !out && same)
			take_down(k, p);
		if (!ok && out && p && same_failure(p, 0)) {
			fprintf(out, "  %s: the same\n", path_name(p));
		} else if (!ok && out) {
			fprintf(out, "  %s:\n", path_name(p));
			if (k->kind == CASE_UD)
				compare_ud(k, memory, &soft[p], out);
			else
				compare_outcomes(k, option.soft_only ? &soft[0] : &native, &soft[p],
						 out);
		}
		same &= ok;
		if (option.soft_only && p == 0) {
			/* What was first is what the others are held against. */
			static uint8_t kept[DATA_SIZE];

			memcpy(kept, soft[0].memory, DATA_SIZE);
			soft[0].memory = kept;
		}
	}
	soft_unplace(k);
	return same;
}

/* The shortest beginning of the case that still fails. */
static void shorten(struct diff_case *k)
{
	for (unsigned n = 1; n < k->ninsns; n++) {
		struct diff_case cut = *k;

		generate_cut(&cut, n);
		if (!agrees(&cut, NULL)) {
			*k = cut;
			return;
		}
	}
}

static void report(struct diff_case *k)
{
	ZydisMnemonic m;

	if (agrees(k, NULL)) {
		/* The host's signals, or the soft processor's own history? */
		compare_print_case(k, option.verbose, stdout);
		printf("  only once, and no more when tried again:\n%s", first_words);
		stats.failed[k->insn[k->ninsns - 1].mnemonic]++;
		stats.failures++;
		return;
	}
	shorten(k);
	m = k->insn[k->ninsns - 1].mnemonic;
	stats.failures++;
	if (stats.failed[m]++ < 2 || option.verbose) {
		compare_print_case(k, option.verbose, stdout);
		agrees(k, stdout);
		fflush(stdout);
	}
}

static bool wanted(const struct diff_case *k)
{
	if (option.only == ZYDIS_MNEMONIC_INVALID)
		return true;
	for (unsigned i = 0; i < k->ninsns; i++)
		if (k->insn[i].mnemonic == option.only)
			return true;
	return false;
}

static void count(const struct diff_case *k)
{
	const struct outcome *o = option.soft_only || k->kind == CASE_UD ? &soft[0] : &native;

	stats.run++;
	for (unsigned i = 0; i < k->ninsns; i++)
		stats.seen[k->insn[i].mnemonic]++;
	if (k->kind == CASE_UD)
		stats.unannounced++;
	else if (o->ending == END_FAULT)
		stats.faults++;
	else if (o->ending == END_EXIT)
		stats.ends++;
	else
		stats.undecided++;
	if (option.verbose && k->kind == CASE_COMPARE && o->ending > END_FAULT)
		printf("undecided: seed %" PRIu64 " case %" PRIu64 ", ending %d\n", k->seed, k->number,
		       (int)o->ending);
}

static void run_case(uint64_t seed, uint64_t number)
{
	struct diff_case *k = &the_case;
	bool ok;

	generate_case(k, seed, number);
	if (!wanted(k))
		return;
	if (option.strict)
		k->undefined_end = k->undefined_any = 0;
	patch(k, true);
	if (option.run.have_case)
		compare_print_case(k, true, stdout);
	ok = agrees(k, NULL);
	count(k);
	if (!ok && !(k->kind == CASE_COMPARE && native.ending == END_ESCAPED))
		report(k);
	patch(k, false);
}

/* Cases [0, n) of a seed; true: none failed. */
static bool run_seed(uint64_t seed, uint64_t n)
{
	uint64_t before = stats.failures;

	generate_base_memory(base_memory, seed);
	memcpy(memory, base_memory, DATA_SIZE);
	if (option.run.have_case)
		run_case(seed, option.run.only_case);
	else
		for (uint64_t i = 0; i < n && stats.failures < option.run.max_failures; i++)
			run_case(seed, i);
	return stats.failures == before;
}

/* ---- The whole -------------------------------------------------------------------------- */

static void print_stats(double seconds)
{
	if (option.verbose)
		for (unsigned m = 0; m < MNEMONICS; m++)
			if (stats.seen[m])
				printf("%-14s %9u%s\n", m ? ZydisMnemonicGetString((ZydisMnemonic)m) :
				       "(invalid)", stats.seen[m], stats.failed[m] ? "  FAILED" : "");
	for (unsigned m = 0; m < MNEMONICS; m++)
		if (stats.failed[m])
			printf("failed: %-12s %u of %u\n", m ? ZydisMnemonicGetString((ZydisMnemonic)m) :
			       "(invalid)", stats.failed[m], stats.seen[m]);
	printf("%" PRIu64 " cases (%" PRIu64 " to the end, %" PRIu64 " faults, %" PRIu64
	       " not announced, %" PRIu64 " undecided), %" PRIu64 " failures; %.0f a second\n",
	       stats.run, stats.ends, stats.faults, stats.unannounced, stats.undecided,
	       stats.failures, (double)stats.run / seconds);
	if (option.coverage)
		rule_print_missing(stats.seen, &host, stdout);
}

static ZydisMnemonic mnemonic_named(const char *name)
{
	for (unsigned m = 1; m < MNEMONICS; m++)
		if (!strcasecmp(ZydisMnemonicGetString((ZydisMnemonic)m), name))
			return (ZydisMnemonic)m;
	fprintf(stderr, "diff: there is no instruction \"%s\"\n", name);
	exit(2);
}

static void parse_options(int argc, char **argv)
{
	static const struct option longs[] = {
		RUN_OPTIONS, { "only", 1, NULL, 'o' }, { "forever", 0, NULL, 'f' },
		{ "verbose", 0, NULL, 'v' }, { "strict", 0, NULL, 'S' }, { "coverage", 0, NULL, 'c' },
		{ "soft-only", 0, NULL, 'p' }, { 0 },
	};
	int c;

	while ((c = getopt_long(argc, argv, "", longs, NULL)) != -1) {
		switch (c) {
		case 'o': option.only = mnemonic_named(optarg); break;
		case 'f': option.forever = true; break;
		case 'v': option.verbose = true; break;
		case 'S': option.strict = true; break;
		case 'c': option.coverage = true; break;
		case 'p': option.soft_only = true; break;
		default:
			if (!run_option(&option.run, c))
				exit(2);
		}
	}
}

/* One line that scripts/check counts. */
static void verdict(uint64_t seed, bool ok)
{
	if (ok)
		printf("ok seed-%" PRIu64 "\n", seed);
	else
		printf("not ok seed-%" PRIu64 " - the processors differ; diff --seed %" PRIu64 "\n",
		       seed, seed);
	fflush(stdout);
}

static void run_all(double start)
{
	uint64_t n = option.run.cases ? option.run.cases : CHECK_CASES;
	uint64_t seed = option.run.have_seed ? option.run.seed : FIXED_SEED;

	if (option.run.have_seed || option.run.have_case) {
		verdict(seed, run_seed(seed, n));
		return;
	}
	verdict(FIXED_SEED, run_seed(FIXED_SEED, n / 2));
	do {
		seed = new_seed();
		verdict(seed, run_seed(seed, n / 2));
	} while ((option.forever || now() - start < option.run.seconds) && !stats.failures);
}

int main(int argc, char **argv)
{
	const char *why;
	double start;

	parse_options(argc, argv);
	/* The sanitizer's shadow lies where random addresses may point. */
	option.soft_only |= SANITIZED;
	rule_set_model(option.run.v3);
	why = soft_init(option.run.v3, &paths);
	if (why) {
		printf("diff: %s\n", why);
		return strstr(why, NO_MODEL) ? 77 : 2;
	}
	if (option.soft_only) {
		host = (struct host_facts){ .fsgsbase = true, .compat = true, .intel = true, .v3 = option.run.v3 };
	} else {
		host.v3 = option.run.v3;
		why = native_init(&host);
		native_tick = soft_tick;
	}
	if (why) {
		printf("diff: %s\n", why);
		return 77;
	}
	generate_init(&host);
	start = now();
	run_all(start);
	print_stats(now() - start);
	soft_finish();
	return stats.failures ? 1 : 0;
}
