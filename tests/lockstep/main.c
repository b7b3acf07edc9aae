/*
 * lockstep: two tiers of the soft processor run one guest, and are compared on the way.
 * See lockstep.h, and usage() below.
 */
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "cpu/soft/cache.h"
#include "lockstep.h"

static const char usage_text[] =
"usage: lockstep [options] --kernel FILE [--initrd FILE] [--append TEXT]\n"
"\n"
"Runs the guest in two machines side by side, with clock.mode=virtual, and compares them: the\n"
"processor at every step, everything else every few steps.  At the first difference it looks for\n"
"the smallest piece of the run that makes it, and prints its instructions and what differs.\n"
"Exit code 0: no difference; 1: a difference; 2: it could not run; 77: a tier is not there.\n"
"\n"
"  --kernel FILE  --initrd FILE  --append TEXT  -m SIZE  -o KEY=VALUE   as in skep run\n"
"  --step N         instructions between two looks at the processor (100000)\n"
"  --ram-every K    RAM, devices and the console at every K-th of them (10)\n"
"  --start N        no comparison before this instruction\n"
"  --limit N        end there; else at the guest's own end\n"
"  --tier-a TIER  --tier-b TIER      soft.tier of the two (interpreter, translator)\n"
"  --b-blocks N     B cuts its code into blocks of at most N instructions\n"
"  --b-forget N     B empties its caches every N blocks\n"
"  --b-alone        B runs every instruction by itself\n"
"  --no-rerun       no tries from power-on when the last equal point does not show it again\n"
"  --quiet          no progress on standard error\n"
"\n"
"To see that a difference is found, one can be put into B:\n"
"  --plant N        after N instructions a bit of DR2 changes\n"
"  --plant-ram GPA  ... a bit of this byte of RAM instead\n"
"  --plant-within K ... only if the K instructions before were run in one go\n";

enum { OPT_KERNEL = 256, OPT_INITRD, OPT_APPEND, OPT_STEP, OPT_RAM_EVERY, OPT_START, OPT_LIMIT, OPT_TIER_A,
       OPT_TIER_B, OPT_BLOCKS, OPT_FORGET, OPT_ALONE, OPT_NO_RERUN, OPT_QUIET, OPT_PLANT,
       OPT_PLANT_RAM, OPT_PLANT_WITHIN, OPT_HELP };

static const struct option longs[] = {
	{ "kernel", 1, NULL, OPT_KERNEL }, { "initrd", 1, NULL, OPT_INITRD },
	{ "append", 1, NULL, OPT_APPEND }, { "step", 1, NULL, OPT_STEP },
	{ "ram-every", 1, NULL, OPT_RAM_EVERY }, { "start", 1, NULL, OPT_START },
	{ "limit", 1, NULL, OPT_LIMIT }, { "tier-a", 1, NULL, OPT_TIER_A },
	{ "tier-b", 1, NULL, OPT_TIER_B }, { "b-blocks", 1, NULL, OPT_BLOCKS },
	{ "b-forget", 1, NULL, OPT_FORGET }, { "b-alone", 0, NULL, OPT_ALONE },
	{ "no-rerun", 0, NULL, OPT_NO_RERUN }, { "quiet", 0, NULL, OPT_QUIET },
	{ "plant", 1, NULL, OPT_PLANT }, { "plant-ram", 1, NULL, OPT_PLANT_RAM },
	{ "plant-within", 1, NULL, OPT_PLANT_WITHIN }, { "help", 0, NULL, OPT_HELP }, { 0 },
};

/* ---- Options ------------------------------------------------------------------- */

static void add_setting(struct options *o, const char *key, const char *value)
{
	char *text;

	if (o->nsettings == MAX_SETTINGS)
		lockstep_die("too many settings", NULL);
	/* Kept to the end of the process. */
	if (asprintf(&text, "%s%s", key, value) < 0)
		lockstep_die("out of memory", NULL);
	o->settings[o->nsettings++] = text;
}

static uint64_t number(const char *text)
{
	char *end;
	uint64_t v = strtoull(text, &end, 0);

	if (!*text || *end) {
		fprintf(stderr, "lockstep: \"%s\" is not a number\n", text);
		exit(2);
	}
	return v;
}

static void parse_option(struct options *o, int c)
{
	struct way *b = &o->way[1];

	switch (c) {
	case OPT_KERNEL: add_setting(o, "boot.kernel=", optarg); break;
	case OPT_INITRD: add_setting(o, "boot.initrd=", optarg); break;
	case OPT_APPEND: add_setting(o, "boot.cmdline=", optarg); break;
	case 'm': add_setting(o, "memory.size=", optarg); break;
	case 'o': add_setting(o, "", optarg); break;
	case OPT_STEP: o->step = number(optarg); break;
	case OPT_RAM_EVERY: o->ram_every = number(optarg); break;
	case OPT_START: o->start = number(optarg); break;
	case OPT_LIMIT: o->limit = number(optarg); break;
	case OPT_TIER_A: o->way[0].tier = optarg; break;
	case OPT_TIER_B: b->tier = optarg; break;
	case OPT_BLOCKS: b->block_insns = (unsigned)MIN(number(optarg), (uint64_t)BLOCK_MAX_INSNS); b->on = true; break;
	case OPT_FORGET: b->forget = (unsigned)number(optarg); b->on = true; break;
	case OPT_ALONE: b->alone = b->on = true; break;
	case OPT_NO_RERUN: o->no_rerun = true; break;
	case OPT_QUIET: o->quiet = true; break;
	case OPT_PLANT: o->plant.at = number(optarg); break;
	case OPT_PLANT_RAM: o->plant.gpa = number(optarg); break;
	case OPT_PLANT_WITHIN: o->plant.within = number(optarg); break;
	case OPT_HELP:
		fputs(usage_text, stdout);
		exit(0);
	default:
		fputs("lockstep --help shows how\n", stderr);
		exit(2);
	}
}

static void parse(struct options *o, int argc, char **argv)
{
	int c;

	while ((c = getopt_long(argc, argv, "m:o:", longs, NULL)) != -1)
		parse_option(o, c);
	if (optind != argc || !o->nsettings || !o->step || !o->ram_every) {
		fputs(usage_text, stderr);
		exit(2);
	}
}

/* ---- The walk -------------------------------------------------------------------- */

uint64_t walk_next(const struct options *o, uint64_t at)
{
	uint64_t next = at < o->start ? o->start : (at / o->step + 1) * o->step;

	return o->limit ? MIN(next, o->limit) : next;
}

bool walk_full(const struct options *o, uint64_t at)
{
	return at <= o->start || at == o->limit || at / o->step % o->ram_every == 0;
}

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void progress(const struct options *o, uint64_t at, double begin)
{
	if (o->quiet || !isatty(STDERR_FILENO))
		return;
	fprintf(stderr, "\rlockstep: %" PRIu64 " million instructions, %.0f s ", at / 1000000,
		now() - begin);
	fflush(stderr);
}

/* Returns true if they are the same as far as it is looked at here. */
static bool look(const struct options *o, struct pair *p, uint64_t at)
{
	bool full = walk_full(o, at) || machine_ended(p->a) || machine_ended(p->b);

	return full ? same_machines(p) && same_consoles(p) : same_processors(p);
}

static bool walk(const struct options *o, struct pair *p, struct checkpoint *c, uint64_t *differs)
{
	double begin = now(), shown = begin;
	uint64_t at = 0;

	do {
		at = walk_next(o, at);
		pair_run(p, at);
		if (!look(o, p, at)) {
			*differs = MIN(at, MAX(machine_insns(p->a), machine_insns(p->b)));
			return false;
		}
		if (walk_full(o, at) && !machine_ended(p->a))
			checkpoint_take(c, p);
		if (now() - shown > 1) {
			shown = now();
			progress(o, at, begin);
		}
	} while (!machine_ended(p->a) && at != o->limit);
	printf("%s and %s: the same for %" PRIu64 " instructions (%.1f s)\n", o->way[0].tier,
	       o->way[1].tier, machine_insns(p->a), now() - begin);
	return true;
}

int main(int argc, char **argv)
{
	static struct options o = {
		.way = { { .name = "A", .tier = "interpreter" }, { .name = "B", .tier = "translator" } },
		.step = 100000, .ram_every = 10,
	};
	struct checkpoint c;
	struct pair p;
	uint64_t differs;
	bool same;

	parse(&o, argc, argv);
	p = pair_create(&o, true);
	checkpoint_init(&c, p.a);
	same = walk(&o, &p, &c, &differs);
	if (!same) {
		printf("a difference at instruction %" PRIu64 "; both were the same at %" PRIu64 ":\n",
		       differs, c.at);
		print_differences(&p, NULL);
	}
	pair_destroy(&p);
	if (!same)
		narrow(&o, &c, differs);
	checkpoint_free(&c);
	return same ? 0 : 1;
}
