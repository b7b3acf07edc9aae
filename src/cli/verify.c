/* skep verify: is all of a snapshot as it was written, and would a restore take it? */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>

#include "base/text.h"
#include "base/util.h"
#include "cli/cli.h"
#include "cli/look.h"
#include "config/config.h"
#include "snapshot/draft.h"
#include "snapshot/records.h"
#include "snapshot/restore.h"
#include "vm/vm.h"

static const char help[] =
	"usage: skep verify [options] FILE...\n"
	"\n"
	"Reads a snapshot and its parents: headers, notes, digest and manifest; decodes every record\n"
	"and checks it; builds the machine, as a restore would, without running it or opening its\n"
	"consoles; and compares all of RAM with its checksums.  What verify calls good, this release\n"
	"restores.\n"
	"\n"
	"  --json    tell the result as JSON\n"
	"  --quiet   nothing but the exit code and what is wrong\n"
	"\n"
	"The exit code is 0 if all files are good, 1 if one is damaged or would be refused by a\n"
	"restore (a sentence names the record, or the guest's address), 4 if one cannot be read.\n"
	"\n"
	"Example:\n"
	"  skep verify *.skep\n";

#define BAD 1

struct verify_command {
	bool json, quiet;
	unsigned told;
};

/* What was found in one file. */
struct finding {
	const char *path;
	int code;		/* 0, BAD, CLI_ERROR */
	struct skep_error error;
	struct snap_models models;
	uint8_t digest[SNAP_DIGEST_SIZE];
	unsigned parents;
	uint64_t ram;		/* bytes that were compared with their checksums */
	int64_t elapsed_ns;
	struct look_progress progress;
};

/* ---- Arguments --------------------------------------------------------- */

enum { OPT_JSON = 256, OPT_QUIET };

static const struct option options[] = {
	{ "json", no_argument, NULL, OPT_JSON },
	{ "quiet", no_argument, NULL, OPT_QUIET },
	{ "help", no_argument, NULL, 'h' },
	{ 0 },
};

/* 1: help was asked for. */
static int parse(int argc, char **argv, struct verify_command *v, struct skep_error *e)
{
	int got;

	optind = 0;
	opterr = 0;
	while ((got = getopt_long(argc, argv, ":h", options, NULL)) != -1) {
		switch (got) {
		case 'h': return 1;
		case OPT_JSON: v->json = true; break;
		case OPT_QUIET: v->quiet = true; break;
		default: return look_bad_option("verify", options, argv, got, e);
		}
	}
	return optind < argc ? 0 : skep_fail(e, EINVAL, "want a snapshot: skep verify FILE...");
}

/* ---- The machine ------------------------------------------------------- */

/* Nothing of the host's side is opened: every console, wire and disk is nowhere. */
static int close_consoles(struct config *c, const struct manifest *m, struct skep_error *e)
{
	const struct manifest_setting *s = m->config.items;
	uint32_t i;
	int err = 0;

	for (i = 0; i < m->config.count && !err; i++) {
		const char *last = strrchr(s[i].key, '.');

		if (!last || !restore_may_remap(s[i].key) || !s[i].value.len)
			continue;
		if (!strcmp(last, ".path") || !strcmp(last, ".backend"))
			err = config_set_literal(c, s[i].key, "null", "verify", e);
		else if (!strcmp(last, ".overlay"))
			err = config_set_literal(c, s[i].key, "", "verify", e);
	}
	return err;
}

/* Takes the reader if it succeeds, and sets it to NULL. */
static int build_machine(struct snap_reader **r, struct skep_error *e)
{
	const struct restore_options o = { .exact = true, .any_disks = true };
	struct config *c = restore_config(*r, e);
	struct vm *vm = NULL;
	int err = c ? close_consoles(c, &(*r)->manifest, e) : -EINVAL;

	if (!err)
		err = snap_draft_frozen(&(*r)->manifest, config_freeze(c, e), e);
	if (!err) {
		vm = restore_vm(*r, c, &o, e);
		err = vm ? 0 : -EINVAL;
	}
	if (vm)
		*r = NULL;
	vm_destroy(vm);
	if (c)
		config_destroy(c);
	return err;
}

/* ---- One file ---------------------------------------------------------- */

/* What says nothing about the file. */
static bool cannot_tell(int err)
{
	static const int host[] = {
		ENOMEM, EBUSY, EIO, EACCES, EPERM, EMFILE, ENFILE, ENOTSUP, EISDIR, EINTR, ESTALE,
	};
	size_t i;

	for (i = 0; i < ARRAY_SIZE(host); i++)
		if (err == -host[i])
			return true;
	return false;
}

static bool ram_progress(void *opaque, uint64_t done, uint64_t all)
{
	struct finding *f = opaque;

	f->ram = done;
	return look_progress(&f->progress, done, all);
}

static int check(struct finding *f, struct snap_reader **r, struct skep_error *e)
{
	const struct snap_reader *p;
	int err;

	memcpy(f->digest, (*r)->digest, sizeof(f->digest));
	for (p = (*r)->parent; p; p = p->parent)
		f->parents++;
	err = snap_models_read(&f->models, *r, e);
	if (!err)
		err = snap_models_check(&f->models, e);
	if (err < 0) {
		skep_error_prefix(e, "%s", f->path);
		return err;
	}
	err = snap_verify_ram(*r, ram_progress, f, e);
	look_progress_end(&f->progress);
	if (err < 0)
		return err;
	err = build_machine(r, e);
	if (err < 0)
		skep_error_prefix(e, "%s", f->path);
	return err;
}

static void look_at(struct finding *f)
{
	int64_t begin = cli_monotonic_ns();
	struct snap_reader *r = snap_open(f->path, 0, &f->error);
	struct stat st;
	int err;

	if (r) {
		err = check(f, &r, &f->error);
		f->code = !err ? 0 : cannot_tell(err) ? CLI_ERROR : BAD;
	} else {
		err = -errno;
		/* A file that is not there is another thing than a parent that is not. */
		f->code = cannot_tell(err) || stat(f->path, &st) < 0 || !S_ISREG(st.st_mode) ?
			  CLI_ERROR : BAD;
	}
	f->elapsed_ns = cli_monotonic_ns() - begin;
	snap_close(r);
}

/* ---- The result -------------------------------------------------------- */

static void tell_json(struct verify_command *v, const struct finding *f)
{
	printf("%s\n {\"file\": ", v->told++ ? "," : "");
	text_json(stdout, f->path, strlen(f->path));
	printf(", \"good\": %s", f->code ? "false" : "true");
	if (f->code) {
		printf(", \"readable\": %s, \"error\": ", f->code == BAD ? "true" : "false");
		text_json(stdout, f->error.text, strlen(f->error.text));
	} else {
		printf(", \"digest\": \"");
		look_hex(stdout, f->digest, sizeof(f->digest));
		printf("\", \"records\": %zu, \"parents\": %u, \"ram_bytes\": %" PRIu64, f->models.count,
		       f->parents, f->ram);
	}
	printf(", \"elapsed_ns\": %" PRId64 "}", f->elapsed_ns);
}

static void tell(struct verify_command *v, const struct finding *f)
{
	double seconds = (double)f->elapsed_ns / NSEC_PER_SEC;
	char a[48], b[32], c[48], d[32];

	if (v->json) {
		tell_json(v, f);
		return;
	}
	if (f->code) {
		fflush(stdout);
		cli_complain("%s", f->error.text);
		return;
	}
	if (v->quiet)
		return;
	look_text(f->path);
	printf(": good: %s, %s of RAM%s%s; %.2f s, %s/s\n",
	       look_count(f->models.count, "record", a), look_size(f->ram, b),
	       f->parents ? ", " : "", f->parents ? look_count(f->parents, "parent", c) : "", seconds,
	       look_size(seconds > 0 ? (uint64_t)((double)f->ram / seconds) : 0, d));
}

static int verify_file(struct verify_command *v, const char *path)
{
	char what[300], name[256];
	struct finding f = { .path = path, .progress = { .quiet = v->quiet || v->json } };

	text_escape(name, sizeof(name), path, strlen(path), 0);
	snprintf(what, sizeof(what), "verifying %s", name);
	f.progress.what = what;
	look_at(&f);
	tell(v, &f);
	snap_models_free(&f.models);
	return f.code;
}

int cli_verify(int argc, char **argv, const struct cli_start *start)
{
	struct verify_command v = { .json = false };
	struct skep_error e = { "" };
	int got = parse(argc, argv, &v, &e), code = 0, i;

	if (got > 0) {
		fputs(help, stdout);
		return look_end(0);
	}
	if (got < 0) {
		cli_complain("%s", e.text);
		return CLI_ERROR;
	}
	if (v.json)
		printf("{\"files\": [");
	for (i = optind; i < argc; i++) {
		got = verify_file(&v, argv[i]);
		code = MAX(code, got);
	}
	if (v.json)
		printf("\n ],\n \"good\": %s}\n", code ? "false" : "true");
	return look_end(code);
}
