/* skep restore: a machine from a snapshot, which needs no other flags. */
#include <errno.h>
#include <getopt.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "cli/cli.h"
#include "cli/restored.h"
#include "config/config.h"
#include "config/nearest.h"
#include "snapshot/restore.h"
#include "snapshot/schedule.h"
#include "vm/vm.h"

static const char help[] =
	"usage: skep restore [options] FILE [NAME]\n"
	"\n"
	"Starts the machine that was saved in FILE where it stood.  RAM is read when the guest looks\n"
	"at it; FILE must stay as it is while the machine runs (a save over it is fine).\n"
	"\n"
	"  -o KEY=VALUE         another host side: a console's path, the name, what a reboot does;\n"
	"                       what the guest can see stays as it was saved\n"
	"  --time=continue      the guest sees no gap; its wall clock lags (default)\n"
	"  --time=advance       all of its clocks move on by the time that has passed\n"
	"  --disks=any          whatever its disks hold by now; they have to be as they were saved\n"
	"  --exact              change nothing that the guest can see\n"
	"  --check=ram          verify each 2 MiB of RAM before the guest sees it\n"
	"  --prefault           read all of RAM before the guest goes on\n"
	"  --prefetch           read what the guest had written last before it goes on\n"
	"  --paused             do not let it go on before `skep resume NAME`\n"
	"  --stats FILE         at the end, write figures as JSON\n"
	"  --dump-state FILE    at the end, write the machine's state as text\n"
	"  --save-at COUNT:FILE clock.mode=virtual: save at exactly this instruction\n"
	"\n"
	"A snapshot that is damaged, or not of this release's machine, is refused with a sentence and\n"
	"exit code 4.\n"
	"\n"
	"Examples:\n"
	"  skep restore web.skep\n"
	"  skep restore -o lpc.com1.path=/dev/null --time=advance web.skep web-2\n";

struct restore_command {
	struct run_options run;
	struct restore_options restore;
	struct restored_settings settings;
	const char *file;
	struct snap_reader *reader;	/* until restore_vm has it */
};

/* ---- Arguments --------------------------------------------------------- */

enum { OPT_TIME = 256, OPT_DISKS, OPT_EXACT, OPT_CHECK, OPT_PREFAULT, OPT_PREFETCH, OPT_PAUSED, OPT_STATS,
       OPT_DUMP_STATE, OPT_SAVE_AT, OPT_CLONE };

static const struct option options[] = {
	{ "time", required_argument, NULL, OPT_TIME },
	{ "disks", required_argument, NULL, OPT_DISKS },
	{ "exact", no_argument, NULL, OPT_EXACT },
	{ "check", required_argument, NULL, OPT_CHECK },
	{ "prefault", no_argument, NULL, OPT_PREFAULT },
	{ "prefetch", no_argument, NULL, OPT_PREFETCH },
	{ "paused", no_argument, NULL, OPT_PAUSED },
	{ "stats", required_argument, NULL, OPT_STATS },
	{ "dump-state", required_argument, NULL, OPT_DUMP_STATE },
	{ "save-at", required_argument, NULL, OPT_SAVE_AT },
	{ "clone", required_argument, NULL, OPT_CLONE },	/* by skep clone */
	{ "help", no_argument, NULL, 'h' },
	{ 0 },
};

static int apply_time(struct restore_command *r, struct skep_error *e)
{
	if (!strcmp(optarg, "continue"))
		r->restore.time = RESTORE_TIME_CONTINUE;
	else if (!strcmp(optarg, "advance"))
		r->restore.time = RESTORE_TIME_ADVANCE;
	else
		return skep_fail(e, EINVAL, "--time: \"%s\" is neither continue nor advance", optarg);
	return 0;
}

static int apply(int got, struct restore_command *r, struct skep_error *e)
{
	switch (got) {
	case OPT_TIME:
		return apply_time(r, e);
	case OPT_DISKS:
		if (strcmp(optarg, "any") && strcmp(optarg, "saved"))
			return skep_fail(e, EINVAL, "--disks: \"%s\" is neither saved nor any", optarg);
		r->restore.any_disks = !strcmp(optarg, "any");
		return 0;
	case OPT_CHECK:
		if (strcmp(optarg, "ram"))
			return skep_fail(e, EINVAL, "--check: \"%s\" is not known; the notes are always "
					 "checked, and --check=ram checks RAM too", optarg);
		r->restore.check_ram = true;
		return 0;
	case 'o':
		return restored_assign(&r->settings, optarg, e);
	case OPT_SAVE_AT:
		return run_options_save_at(&r->run, optarg, e);
	case OPT_CLONE:
		r->restore.clone = true;
		r->settings.clone = optarg;
		return 0;
	case OPT_EXACT: r->restore.exact = true; return 0;
	case OPT_PREFAULT: r->restore.prefault = true; return 0;
	case OPT_PREFETCH: r->restore.prefetch = true; return 0;
	case OPT_PAUSED: r->run.paused = true; return 0;
	case OPT_STATS: r->run.stats = optarg; return 0;
	case OPT_DUMP_STATE: r->run.dump_state = optarg; return 0;
	}
	return 0;
}

static int fail_option(char **argv, int got, struct skep_error *e)
{
	struct nearest near;
	char hint[160];

	if (got == ':')
		return skep_fail(e, EINVAL, "%s needs a value", argv[optind - 1]);
	nearest_init(&near, argv[optind - 1]);
	for (const struct option *o = options; o->name; o++) {
		char full[32];

		snprintf(full, sizeof(full), "--%s", o->name);
		nearest_offer(&near, full);
	}
	nearest_hint(&near, hint, sizeof(hint));
	return skep_fail(e, EINVAL, "there is no option %.60s%s", argv[optind - 1],
			 *hint ? hint : "; `skep restore --help` lists them");
}

/* 1: help was asked for. */
static int parse(int argc, char **argv, struct restore_command *r, struct skep_error *e)
{
	int got, err = 0;

	optind = 0;
	opterr = 0;
	while (!err && (got = getopt_long(argc, argv, ":o:h", options, NULL)) != -1) {
		if (got == 'h')
			return 1;
		err = got == '?' || got == ':' ? fail_option(argv, got, e) : apply(got, r, e);
	}
	if (err)
		return err;
	if (argc - optind < 1 || argc - optind > 2)
		return skep_fail(e, EINVAL, "want a snapshot, and a name for the machine if it should have "
				 "another: skep restore [options] FILE [NAME]");
	r->file = argv[optind];
	r->settings.name = argv[optind + 1];
	return 0;
}

/* ---- Running ----------------------------------------------------------- */

static struct vm *make_machine(struct config *c, void *opaque, struct skep_error *e)
{
	struct restore_command *r = opaque;
	struct vm *vm = restore_vm(r->reader, c, &r->restore, e);

	if (vm)
		r->reader = NULL;
	else
		skep_error_prefix(e, "%s", r->file);
	return vm;
}

static int restore(struct restore_command *r, const struct cli_start *start, struct skep_error *e)
{
	struct machine_maker maker = { make_machine, r };
	struct config *c;
	int code;

	r->reader = snap_open(r->file, 0, e);
	if (!r->reader)
		return CLI_ERROR;
	c = restored_config(r->reader, &r->settings, e);
	if (!c) {
		skep_error_prefix(e, "%s", r->file);
		return CLI_ERROR;
	}
	code = cli_run_machine(c, &r->run, start, &maker);
	config_destroy(c);
	return code;
}

int cli_restore(int argc, char **argv, const struct cli_start *start)
{
	struct restore_command r = { .file = NULL };
	struct skep_error e = { "" };
	int code = CLI_ERROR, got = parse(argc, argv, &r, &e);

	if (got > 0) {
		fputs(help, stdout);
		code = 0;
	} else if (!got) {
		code = restore(&r, start, &e);
	}
	if (e.text[0])
		cli_complain("%s", e.text);
	snap_close(r.reader);
	run_options_free(&r.run);
	return code;
}
