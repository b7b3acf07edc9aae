/* skep save: asks a running machine for a snapshot, and puts the file in its place. */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/text.h"
#include "base/util.h"
#include "cli/cli.h"
#include "control/client.h"
#include "snapshot/target.h"

#define END_MS	30000		/* a console that takes its last output slowly can delay the end */

static const char help[] =
	"usage: skep save [options] NAME FILE\n"
	"\n"
	"Saves the running machine NAME to FILE and lets it go on.  FILE appears whole or not at\n"
	"all; one that exists is replaced at the end, and not before.\n"
	"\n"
	"  --suspend          end the machine after the save, and wait for that; it exits with 5\n"
	"  --live             let the guest go on at once; what it writes meanwhile is copied first\n"
	"  --disks            keep the disks as they are at that moment too, in their overlays\n"
	"  --delta            save only what changed since the last save or the restore\n"
	"  --compress[=LEVEL] compress RAM with zstd (1 to 19; 1 if left out)\n"
	"  --generation N     write an older generation of the format (skep profile list)\n"
	"  --no-sync          do not wait until the file is on the disk\n"
	"  --json             tell the result, or the error, as JSON\n"
	"  --quiet            show no progress\n"
	"\n"
	"Examples:\n"
	"  skep save web web.skep\n"
	"  skep save --suspend web web.skep && skep restore web.skep\n"
	"  skep save --live --delta web web-2.skep\n";

struct save_command {
	bool suspend, live, disks, delta, no_sync, json, quiet;
	int level;
	unsigned generation;
	const char *name, *file;
	bool progress;		/* a progress line is on the terminal */
};

/* ---- Arguments --------------------------------------------------------- */

enum { OPT_SUSPEND = 256, OPT_LIVE, OPT_DISKS, OPT_DELTA, OPT_COMPRESS, OPT_GENERATION, OPT_NO_SYNC, OPT_JSON,
       OPT_QUIET };

static const struct option options[] = {
	{ "suspend", no_argument, NULL, OPT_SUSPEND },
	{ "live", no_argument, NULL, OPT_LIVE },
	{ "disks", no_argument, NULL, OPT_DISKS },
	{ "delta", no_argument, NULL, OPT_DELTA },
	{ "compress", optional_argument, NULL, OPT_COMPRESS },
	{ "generation", required_argument, NULL, OPT_GENERATION },
	{ "no-sync", no_argument, NULL, OPT_NO_SYNC },
	{ "json", no_argument, NULL, OPT_JSON },
	{ "quiet", no_argument, NULL, OPT_QUIET },
	{ "help", no_argument, NULL, 'h' },
	{ 0 },
};

static int parse_number(const char *what, const char *text, unsigned min, unsigned max,
			unsigned *v, struct skep_error *e)
{
	char *end;
	unsigned long n;

	errno = 0;
	n = strtoul(text, &end, 10);
	if (errno || *end || *text < '0' || *text > '9' || n < min || n > max)
		return skep_fail(e, EINVAL, "%s: \"%s\" is not a number from %u to %u", what, text, min,
				 max);
	*v = (unsigned)n;
	return 0;
}

static int apply(int got, struct save_command *s, struct skep_error *e)
{
	unsigned level = 1;
	int err = 0;

	switch (got) {
	case OPT_SUSPEND: s->suspend = true; break;
	case OPT_LIVE: s->live = true; break;
	case OPT_DISKS: s->disks = true; break;
	case OPT_DELTA: s->delta = true; break;
	case OPT_NO_SYNC: s->no_sync = true; break;
	case OPT_JSON: s->json = true; break;
	case OPT_QUIET: s->quiet = true; break;
	case OPT_COMPRESS:
		if (optarg && !strncmp(optarg, "zstd", 4))
			optarg = optarg[4] == ':' ? optarg + 5 : !optarg[4] ? NULL : optarg;
		if (optarg)
			err = parse_number("--compress", optarg, 1, 19, &level, e);
		s->level = (int)level;
		break;
	case OPT_GENERATION:
		err = parse_number("--generation", optarg, 1, 65535, &s->generation, e);
		break;
	}
	return err;
}

/* 1: help was asked for. */
static int parse(int argc, char **argv, struct save_command *s, struct skep_error *e)
{
	int got, err = 0;

	optind = 0;
	opterr = 0;
	while (!err && (got = getopt_long(argc, argv, ":h", options, NULL)) != -1) {
		if (got == 'h')
			return 1;
		if (got == '?')
			return skep_fail(e, EINVAL, "there is no option %s; `skep save --help` lists them",
					 argv[optind - 1]);
		if (got == ':')
			return skep_fail(e, EINVAL, "%s needs a value", argv[optind - 1]);
		err = apply(got, s, e);
	}
	if (err)
		return err;
	if (argc - optind != 2)
		return skep_fail(e, EINVAL, "want the machine's name and a file: skep save NAME FILE");
	s->name = argv[optind];
	s->file = argv[optind + 1];
	if (s->suspend && s->live)
		return skep_fail(e, EINVAL, "--suspend stops the guest and --live does not: choose one");
	return 0;
}

/* ---- Progress ---------------------------------------------------------- */

static double number(json_t *o, const char *key)
{
	return json_number_value(json_object_get(o, key));
}

static const char *size_text(double bytes, char buf[32])
{
	if (bytes >= GiB)
		snprintf(buf, 32, "%.1f GiB", bytes / GiB);
	else if (bytes >= MiB)
		snprintf(buf, 32, "%.1f MiB", bytes / MiB);
	else
		snprintf(buf, 32, "%.0f KiB", bytes / KiB);
	return buf;
}

static void show_progress(void *opaque, json_t *event)
{
	struct save_command *s = opaque;
	const char *what = json_string_value(json_object_get(event, "event"));
	double done = number(event, "done"), total = number(event, "total");
	double seconds = number(event, "elapsed_ns") / 1e9;
	double rate = seconds > 0 ? done / seconds : 0;
	char a[32], b[32], c[32];

	if (s->quiet || !what || strcmp(what, "save-progress") || !isatty(STDERR_FILENO))
		return;
	fprintf(stderr, "\rsaving %s: %s of at most %s, %s/s", s->name, size_text(done, a),
		size_text(total, b), size_text(rate, c));
	if (rate > 0 && total > done)
		fprintf(stderr, ", %.0f s left", (total - done) / rate);
	fputs("\033[K", stderr);
	s->progress = true;
}

static void end_progress(struct save_command *s)
{
	if (s->progress)
		fputs("\r\033[K", stderr);
	s->progress = false;
}

static void show_result(const struct save_command *s, json_t *r)
{
	double seconds = number(r, "elapsed_ns") / 1e9, ram = number(r, "ram_bytes");
	char a[32], b[32], c[32];

	if (s->json) {
		json_object_set_new(r, "file", json_string(s->file));
		json_object_set_new(r, "name", json_string(s->name));
		json_dumpf(r, stdout, JSON_INDENT(1) | JSON_SORT_KEYS);
		putchar('\n');
		return;
	}
	if (s->quiet)
		return;
	printf("%s is saved in %s: %s of RAM, a file of %s, in %.2f s (%s/s); the guest stood still "
	       "for %.1f ms%s\n", s->name, s->file, size_text(ram, a),
	       size_text(number(r, "bytes"), b), seconds,
	       size_text(seconds > 0 ? ram / seconds : 0, c), number(r, "pause_ns") / 1e6,
	       s->suspend ? " and has ended" : "");
}

/* A program reads standard output: it finds an object there, whatever has happened. */
static void show_error(const struct save_command *s, const struct skep_error *e)
{
	printf("{\n \"error\": ");
	text_json(stdout, e->text, strlen(e->text));
	if (s->name) {
		printf(",\n \"name\": ");
		text_json(stdout, s->name, strlen(s->name));
	}
	if (s->file) {
		printf(",\n \"file\": ");
		text_json(stdout, s->file, strlen(s->file));
	}
	printf("\n}\n");
}

/* ---- The save ---------------------------------------------------------- */

static json_t *arguments(const struct save_command *s)
{
	char *dir = realpath(".", NULL), path[PATH_MAX + NAME_MAX + 2];
	json_t *a;

	/* The machine has a working directory of its own. */
	snprintf(path, sizeof(path), "%s%s%s", s->file[0] == '/' || !dir ? "" : dir,
		 s->file[0] == '/' ? "" : "/", s->file);
	free(dir);
	a = json_pack("{s:b, s:b, s:b, s:b, s:b, s:i, s:i}", "suspend", s->suspend, "live", s->live,
		      "disks", s->disks, "delta", s->delta, "no_sync", s->no_sync, "zstd_level", s->level, "generation",
		      (int)s->generation);
	/* JSON is UTF-8 and a path need not be: then only a later delta does without it. */
	if (a)
		json_object_set_new(a, "path", json_string(path));
	return a;
}

/* The file is written; from here on its place is the question. */
static int put_in_place(struct save_command *s, struct control_client *c, struct snap_target *t,
			struct skep_error *e)
{
	struct skep_error ignored = { "" };
	json_t *reply;
	int err = snap_target_commit(t, !s->no_sync, e);

	reply = control_call(c, err ? "save-abort" : "save-commit", NULL, -1, NULL, NULL,
			     err ? &ignored : e);
	if (!err && !reply) {
		/* A machine that goes on may end before it answers; the file is as good. */
		if (s->suspend)
			err = -EIO;
		else
			cli_complain("it is saved, but %s", e->text);
	}
	json_decref(reply);
	return err;
}

/*
 * A restore that comes next wants the name and the consoles of the machine, which are its own until
 * its process has ended.  The file is in its place, so that the save has not failed in any case.
 */
static void wait_for_end(struct control_client *c)
{
	struct skep_error e = { "" };

	if (control_wait(c, END_MS, NULL, NULL, &e))
		cli_complain("it is saved, but %s", e.text);
}

static int save(struct save_command *s, struct control_client *c, struct snap_target *t,
		struct skep_error *e)
{
	json_t *a = arguments(s), *result;
	int err;

	if (!a)
		return skep_fail(e, ENOMEM, "no memory for the request");
	result = control_call(c, "save", a, t->fd, show_progress, s, e);
	end_progress(s);
	json_decref(a);
	if (!result)
		return -EIO;
	err = put_in_place(s, c, t, e);
	if (!err && s->suspend)
		wait_for_end(c);
	if (!err)
		show_result(s, result);
	json_decref(result);
	return err;
}

static int connect_and_save(struct save_command *s, struct skep_error *e)
{
	struct control_client *c = control_connect(s->name, e);
	struct snap_target t = { 0 };
	int err;

	if (!c)
		return -ENOENT;
	err = snap_target_open(&t, s->file, e);
	if (!err) {
		err = save(s, c, &t, e);
		snap_target_abort(&t);
	}
	control_close(c);
	return err;
}

int cli_save(int argc, char **argv, const struct cli_start *start)
{
	struct save_command s = { .level = 0 };
	struct skep_error e = { "" };
	int got = parse(argc, argv, &s, &e);

	if (got > 0) {
		fputs(help, stdout);
		return 0;
	}
	if (!got)
		got = connect_and_save(&s, &e);
	if (!got)
		return 0;
	if (s.json)
		show_error(&s, &e);
	cli_complain("%s", e.text);
	return CLI_ERROR;
}
