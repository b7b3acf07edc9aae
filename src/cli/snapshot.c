/* skep snapshot: a file out of a chain of deltas, and the chain itself. */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/text.h"
#include "base/util.h"
#include "cli/cli.h"
#include "cli/look.h"
#include "config/nearest.h"
#include "snapshot/flatten.h"
#include "snapshot/target.h"

static const char help[] =
	"usage: skep snapshot flatten [options] FILE OUT\n"
	"       skep snapshot chain [--json] FILE\n"
	"\n"
	"flatten writes the machine that FILE and its parents hold into one file, OUT, which needs no\n"
	"parent; chain lists a delta and its parents.  Any snapshot can be flattened: that is also how\n"
	"one is compressed, or unpacked.  All RAM is verified on the way.  OUT appears whole or not at\n"
	"all.\n"
	"\n"
	"  --compress[=LEVEL]  compress RAM with zstd (1 to 19; 1 if left out)\n"
	"  --no-sync           do not wait until OUT is on the disk\n"
	"  --json              tell the result as JSON\n"
	"  --quiet             show nothing\n"
	"\n"
	"Examples:\n"
	"  skep snapshot chain web-9.skep\n"
	"  skep snapshot flatten web-9.skep web.skep\n"
	"  skep snapshot flatten --compress=9 web.skep web-small.skep\n";

struct snapshot_command {
	const char *verb, *file, *out;
	unsigned level;
	bool no_sync, json, quiet;
	struct snap_reader *reader;
	struct look_progress progress;
	int64_t begin_ns;
};

/* ---- Arguments --------------------------------------------------------- */

enum { OPT_COMPRESS = 256, OPT_NO_SYNC, OPT_JSON, OPT_QUIET };

static const struct option options[] = {
	{ "compress", optional_argument, NULL, OPT_COMPRESS },
	{ "no-sync", no_argument, NULL, OPT_NO_SYNC },
	{ "json", no_argument, NULL, OPT_JSON },
	{ "quiet", no_argument, NULL, OPT_QUIET },
	{ "help", no_argument, NULL, 'h' },
	{ 0 },
};

static int parse_level(const char *text, unsigned *level, struct skep_error *e)
{
	char *end;
	unsigned long n;

	*level = 1;
	if (text && !strncmp(text, "zstd", 4) && (!text[4] || text[4] == ':'))
		text = text[4] ? text + 5 : NULL;
	if (!text)
		return 0;
	n = strtoul(text, &end, 10);
	if (*text < '0' || *text > '9' || *end || n < 1 || n > 19)
		return skep_fail(e, EINVAL, "--compress: \"%.40s\" is not a level from 1 to 19", text);
	*level = (unsigned)n;
	return 0;
}

static int unknown_verb(const char *word, struct skep_error *e)
{
	struct nearest near;
	char hint[160];

	nearest_init(&near, word);
	nearest_offer(&near, "flatten");
	nearest_offer(&near, "chain");
	nearest_hint(&near, hint, sizeof(hint));
	return skep_fail(e, EINVAL, "snapshot: there is no \"%.60s\"%s", word,
			 *hint ? hint : "; there are flatten and chain");
}

static int check_words(struct snapshot_command *c, int n, char **word, struct skep_error *e)
{
	bool flatten;

	if (!n)
		return skep_fail(e, EINVAL, "snapshot: flatten or chain? `skep snapshot --help` tells more");
	c->verb = word[0];
	flatten = !strcmp(c->verb, "flatten");
	if (!flatten && strcmp(c->verb, "chain"))
		return unknown_verb(c->verb, e);
	if (n != (flatten ? 3 : 2))
		return skep_fail(e, EINVAL, flatten ? "want a snapshot and a file to write: skep snapshot "
				 "flatten FILE OUT" : "want a snapshot: skep snapshot chain FILE");
	if (!flatten && (c->level || c->no_sync))
		return skep_fail(e, EINVAL, "chain writes nothing: --compress and --no-sync are for flatten");
	if (c->json && c->quiet)
		return skep_fail(e, EINVAL, "--json prints and --quiet does not: choose one");
	c->file = word[1];
	c->out = flatten ? word[2] : NULL;
	return 0;
}

/* 1: help was asked for. */
static int parse(int argc, char **argv, struct snapshot_command *c, struct skep_error *e)
{
	int got, err;

	optind = 0;
	opterr = 0;
	while ((got = getopt_long(argc, argv, ":h", options, NULL)) != -1) {
		switch (got) {
		case 'h': return 1;
		case OPT_COMPRESS:
			err = parse_level(optarg, &c->level, e);
			if (err < 0)
				return err;
			break;
		case OPT_NO_SYNC: c->no_sync = true; break;
		case OPT_JSON: c->json = true; break;
		case OPT_QUIET: c->quiet = true; break;
		default: return look_bad_option("snapshot", options, argv, got, e);
		}
	}
	return check_words(c, argc - optind, argv + optind, e);
}

/* ---- flatten ----------------------------------------------------------- */

/* The new file would take a parent away, and with it every other child of that. */
static int check_out(const struct snapshot_command *c, struct skep_error *e)
{
	const struct snap_reader *p;
	struct stat out, st;

	if (stat(c->out, &out) < 0)
		return 0;	/* it is not there, or the target says what is wrong */
	for (p = c->reader->parent; p; p = p->parent)
		if (fstat(p->fd, &st) == 0 && st.st_dev == out.st_dev && st.st_ino == out.st_ino)
			return skep_fail(e, EINVAL, "%s: is a parent of %s, and of whatever else was saved "
					 "after it: choose another file, and remove this one later", c->out,
					 c->file);
	return 0;
}

static void tell_flattened(const struct snapshot_command *c, const uint8_t *digest,
			   const struct look_file *f)
{
	double seconds = (double)(cli_monotonic_ns() - c->begin_ns) / NSEC_PER_SEC;
	char a[32], b[32];

	if (c->quiet)
		return;
	if (c->json) {
		printf("{\"file\": ");
		text_json(stdout, c->out, strlen(c->out));
		printf(", \"digest\": \"");
		look_hex(stdout, digest, SNAP_DIGEST_SIZE);
		printf("\", ");
		look_file_json(f);
		printf(", \"elapsed_ns\": %" PRId64 "}\n", cli_monotonic_ns() - c->begin_ns);
		return;
	}
	look_text(c->out);
	printf(": %s, %s of RAM in a file of %s on the disk, in %.2f s\n", f->kind, look_size(f->ram, a),
	       look_size(f->allocated, b), seconds);
}

static int write_flat(struct snapshot_command *c, struct snap_target *t, struct skep_error *e)
{
	const struct flatten_options o = {
		.zstd_level = (int)c->level, .progress = look_progress, .opaque = &c->progress,
	};
	uint8_t digest[SNAP_DIGEST_SIZE];
	struct snap_reader *written;
	struct look_file f;
	int err = snap_flatten(c->reader, t->fd, &o, digest, e);

	look_progress_end(&c->progress);
	if (!err)
		err = snap_target_commit(t, !c->no_sync, e);
	if (err < 0)
		return err;
	written = snap_open(c->out, SNAP_OPEN_ALONE, e);
	if (!written)
		return -EIO;
	look_file(written, &f);
	tell_flattened(c, digest, &f);
	snap_close(written);
	return 0;
}

static int flatten(struct snapshot_command *c, struct skep_error *e)
{
	struct snap_target t = { 0 };
	char what[300], name[256];
	int err = check_out(c, e);

	text_escape(name, sizeof(name), c->out, strlen(c->out), 0);
	snprintf(what, sizeof(what), "writing %s", name);
	c->progress = (struct look_progress){ .what = what, .quiet = c->quiet || c->json };
	if (!err)
		err = snap_target_open(&t, c->out, e);
	if (!err) {
		err = write_flat(c, &t, e);
		snap_target_abort(&t);
	}
	return err;
}

/* ---- chain ------------------------------------------------------------- */

static void tell_link(const struct snap_reader *r)
{
	struct look_file f;
	char date[48], a[32], b[32];

	look_file(r, &f);
	look_text(r->path);
	printf("\n  %s, %s of RAM in %s on the disk; saved %s\n  digest ", f.kind, look_size(f.told, a),
	       look_size(f.allocated, b), look_date(r->manifest.host_wall_ns, date));
	look_hex(stdout, r->digest, SNAP_DIGEST_SIZE);
	putchar('\n');
}

static void tell_link_json(const struct snap_reader *r, bool first)
{
	struct look_file f;

	look_file(r, &f);
	printf("%s\n {\"file\": ", first ? "" : ",");
	text_json(stdout, r->path, strlen(r->path));
	printf(", \"digest\": \"");
	look_hex(stdout, r->digest, SNAP_DIGEST_SIZE);
	printf("\", \"host_wall_ns\": %" PRId64 ", ", r->manifest.host_wall_ns);
	look_file_json(&f);
	printf("}");
}

/* Where the chain is broken, what there is of it. */
static int chain(const struct snapshot_command *c, const struct skep_error *e)
{
	const struct snap_reader *r;

	if (c->quiet)
		return e->text[0] ? -ENOENT : 0;
	if (c->json)
		printf("{\"chain\": [");
	for (r = c->reader; r; r = r->parent) {
		if (c->json)
			tell_link_json(r, r == c->reader);
		else
			tell_link(r);
	}
	if (c->json)
		printf("]");
	if (c->json && e->text[0]) {
		printf(", \"error\": ");
		text_json(stdout, e->text, strlen(e->text));
	}
	if (c->json)
		printf("}\n");
	return e->text[0] ? -ENOENT : 0;
}

/* ---- The command ------------------------------------------------------- */

static int act(struct snapshot_command *c, struct skep_error *e)
{
	int err;

	c->begin_ns = cli_monotonic_ns();
	c->reader = snap_open(c->file, c->out ? 0 : SNAP_OPEN_PART, e);
	if (!c->reader)
		return -EINVAL;
	err = c->out ? flatten(c, e) : chain(c, e);
	snap_close(c->reader);
	return err;
}

int cli_snapshot(int argc, char **argv, const struct cli_start *start)
{
	struct snapshot_command c = { .level = 0 };
	struct skep_error e = { "" };
	int got = parse(argc, argv, &c, &e);

	if (got > 0) {
		fputs(help, stdout);
		return look_end(0);
	}
	if (!got)
		got = act(&c, &e);
	if (!got)
		return look_end(0);
	fflush(stdout);
	cli_complain("%s", e.text);
	return CLI_ERROR;
}
