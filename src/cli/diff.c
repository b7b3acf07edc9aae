/* skep diff: which fields of which records differ, and how much RAM. */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <string.h>

#include "base/text.h"
#include "base/util.h"
#include "cli/cli.h"
#include "cli/look.h"
#include "snapshot/compare.h"
#include "snapshot/records.h"
#include "snapshot/restore.h"

static const char help[] =
	"usage: skep diff [options] A B\n"
	"\n"
	"Tells how two snapshots differ: fields by name, records that only one of them has, and how\n"
	"much RAM.  What is about the file and the host, and not about the machine (when it was\n"
	"saved, its id, its parent, where its console is), is listed apart and does not count.\n"
	"\n"
	"  --ram        list which pages of RAM differ\n"
	"  --ram=bytes  the same, and compare every stored byte, also where checksums are equal\n"
	"  --json       everything as JSON\n"
	"  --quiet      nothing but the exit code\n"
	"\n"
	"The exit code is 0 if the machines are the same, 1 if they differ, 4 after an error.\n"
	"\n"
	"Examples:\n"
	"  skep diff before.skep after.skep\n"
	"  skep diff --json a.skep b.skep | jq '.fields[] | select(.host | not)'\n";

struct side {
	const char *path;
	struct snap_reader *reader;
	struct snap_models models;
};

struct diff_command {
	struct side side[2];
	bool json, quiet, ranges, bytes;
	/* While fields are told. */
	const char *record;	/* whose they are */
	bool want_host;		/* text: which kind of them is told now */
	bool headed;		/* and its heading has been printed */
	uint64_t told;		/* json: items of the list */
	uint64_t fields, host_fields, records;
	struct snap_compare ram;
};

/* ---- Arguments --------------------------------------------------------- */

enum { OPT_JSON = 256, OPT_QUIET, OPT_RAM };

static const struct option options[] = {
	{ "json", no_argument, NULL, OPT_JSON },
	{ "quiet", no_argument, NULL, OPT_QUIET },
	{ "ram", optional_argument, NULL, OPT_RAM },
	{ "help", no_argument, NULL, 'h' },
	{ 0 },
};

/* 1: help was asked for. */
static int parse(int argc, char **argv, struct diff_command *d, struct skep_error *e)
{
	int got;

	optind = 0;
	opterr = 0;
	while ((got = getopt_long(argc, argv, ":h", options, NULL)) != -1) {
		switch (got) {
		case 'h': return 1;
		case OPT_JSON: d->json = true; break;
		case OPT_QUIET: d->quiet = true; break;
		case OPT_RAM:
			if (optarg && strcmp(optarg, "bytes"))
				return skep_fail(e, EINVAL, "--ram takes no \"%.40s\", only --ram=bytes", optarg);
			d->ranges = true;
			d->bytes = optarg != NULL;
			break;
		default: return look_bad_option("diff", options, argv, got, e);
		}
	}
	if (argc - optind != 2)
		return skep_fail(e, EINVAL, "want two snapshots: skep diff A B");
	if (d->json && d->quiet)
		return skep_fail(e, EINVAL, "--json prints and --quiet does not: choose one");
	d->side[0].path = argv[optind];
	d->side[1].path = argv[optind + 1];
	return 0;
}

/* ---- Fields ------------------------------------------------------------ */

static void print_json_field(struct diff_command *d, const char *name, const char *a,
			     const char *b, bool host)
{
	printf("%s\n  {\"field\": ", d->told++ ? "," : "");
	text_json(stdout, name, strlen(name));
	printf(", \"a\": ");
	text_json(stdout, a, strlen(a));
	printf(", \"b\": ");
	text_json(stdout, b, strlen(b));
	printf(", \"host\": %s}", host ? "true" : "false");
}

static void print_field(struct diff_command *d, const char *name, const char *a, const char *b,
			bool host)
{
	if (!d->headed)
		puts(host ? "About the file and the host:" : "About the machine:");
	d->headed = true;
	printf("  ");
	look_text(name);
	printf("%*s  ", (int)(strlen(name) < 32 ? 32 - strlen(name) : 0), "");
	look_text(a);
	printf("  ->  ");
	look_text(b);
	putchar('\n');
}

static void tell_field(void *opaque, const char *field, const char *a, const char *b, bool host)
{
	struct diff_command *d = opaque;
	char name[512];

	/* Text is told in two passes; JSON, and nothing at all, in one. */
	if (!d->json && !d->quiet && host != d->want_host)
		return;
	if (host)
		d->host_fields++;
	else
		d->fields++;
	if (d->quiet)
		return;
	snprintf(name, sizeof(name), "%s%s%s", d->record, *field ? "." : "", field);
	if (d->json)
		print_json_field(d, name, a, b, host);
	else
		print_field(d, name, a, b, host);
}

/* ---- The manifest ------------------------------------------------------ */

/* Settings are compared by key, and not by their place in the list. */
static void tell_but_settings(void *opaque, const char *field, const char *a, const char *b,
			      bool host)
{
	if (strncmp(field, "config", 6) || (field[6] && field[6] != '['))
		tell_field(opaque, field, a, b, host);
}

static const struct manifest_setting *find_setting(const struct manifest *m, const char *key)
{
	const struct manifest_setting *s = m->config.items;
	uint32_t i;

	for (i = 0; i < m->config.count; i++)
		if (!strcmp(s[i].key, key))
			return &s[i];
	return NULL;
}

static void tell_setting(struct diff_command *d, const char *key, const struct manifest_setting *a,
			 const struct manifest_setting *b)
{
	const struct manifest_setting *s[2] = { a, b };
	char text[2][1024], field[160];
	int i;

	if (a && b && a->value.len == b->value.len &&
	    (!a->value.len || !memcmp(a->value.data, b->value.data, a->value.len)))
		return;
	for (i = 0; i < 2; i++) {
		strcpy(text[i], "(not set)");
		if (s[i])
			text_escape(text[i], sizeof(text[i]), s[i]->value.data, s[i]->value.len, 0);
	}
	snprintf(field, sizeof(field), "config.%s", key);
	tell_field(d, field, text[0], text[1], restore_may_remap(key));
}

static void diff_settings(struct diff_command *d)
{
	const struct manifest *a = &d->side[0].reader->manifest, *b = &d->side[1].reader->manifest;
	const struct manifest_setting *s;
	uint32_t i;

	for (i = 0, s = a->config.items; i < a->config.count; i++)
		tell_setting(d, s[i].key, &s[i], find_setting(b, s[i].key));
	for (i = 0, s = b->config.items; i < b->config.count; i++)
		if (!find_setting(a, s[i].key))
			tell_setting(d, s[i].key, NULL, &s[i]);
}

/* ---- Records ----------------------------------------------------------- */

/* Records that this release cannot read are the same if their bytes are. */
static void diff_raw(struct diff_command *d, const struct snap_model *a, const struct snap_model *b)
{
	char text[2][96];

	if (a->raw->len == b->raw->len && !memcmp(a->raw->data, b->raw->data, a->raw->len))
		return;
	snprintf(text[0], sizeof(text[0]), "%s version %u, %zu bytes", a->head.kind, a->head.version,
		 a->raw->len);
	snprintf(text[1], sizeof(text[1]), "%s version %u, %zu bytes%s", b->head.kind, b->head.version,
		 b->raw->len, strcmp(a->head.kind, b->head.kind) ? "" : ", which differ");
	tell_field(d, "", text[0], text[1], false);
}

static void diff_record(struct diff_command *d, const struct snap_model *a,
			const struct snap_model *b)
{
	d->record = a->head.name;
	if (a->model && b->model && a->table == b->table)
		state_diff(a->table, a->model, b->model, tell_field, d);
	else
		diff_raw(d, a, b);
}

static void diff_fields(struct diff_command *d)
{
	const struct snap_models *a = &d->side[0].models, *b = &d->side[1].models;
	const struct snap_model *other;
	size_t i;

	d->record = "manifest";
	state_diff(&manifest_record, &d->side[0].reader->manifest, &d->side[1].reader->manifest,
		   tell_but_settings, d);
	diff_settings(d);
	for (i = 0; i < a->count; i++) {
		other = snap_models_find(b, a->items[i].head.name);
		if (other)
			diff_record(d, &a->items[i], other);
	}
}

/* Those that only one of the files has. */
static void diff_lonely(struct diff_command *d)
{
	int side;
	size_t i;

	d->told = 0;
	for (side = 0; side < 2; side++) {
		const struct snap_models *m = &d->side[side].models, *other = &d->side[!side].models;

		for (i = 0; i < m->count; i++) {
			const struct state_head *h = &m->items[i].head;

			if (h->name[0] && snap_models_find(other, h->name))
				continue;
			d->records++;
			if (d->json) {
				printf("%s\n  {\"name\": ", d->told++ ? "," : "");
				text_json(stdout, h->name, strlen(h->name));
				printf(", \"kind\": ");
				text_json(stdout, h->kind, strlen(h->kind));
				printf(", \"in\": \"%c\"}", "ab"[side]);
			} else if (!d->quiet) {
				printf("Only in ");
				look_text(d->side[side].path);
				printf(": ");
				look_text(h->name[0] ? h->name : "a record that cannot be read");
				printf(" (%s)\n", h->kind);
			}
		}
	}
}

/* ---- RAM --------------------------------------------------------------- */

static void tell_range(void *opaque, uint64_t gpa, uint64_t len)
{
	struct diff_command *d = *(struct diff_command **)opaque;
	char pages[48];

	if (d->json)
		printf("%s\n  {\"gpa\": %" PRIu64 ", \"len\": %" PRIu64 "}", d->told++ ? "," : "", gpa, len);
	else
		printf("  RAM at %#" PRIx64 "-%#" PRIx64 ": %s\n", gpa, gpa + len - 1,
		       look_count(len / 4096, "page", pages));
}

struct ram_callbacks {		/* what opaque points to: the first member is for tell_range */
	struct diff_command *d;
	struct look_progress progress;
};

static bool ram_progress(void *opaque, uint64_t done, uint64_t all)
{
	return look_progress(&((struct ram_callbacks *)opaque)->progress, done, all);
}

static int diff_ram(struct diff_command *d, struct skep_error *e)
{
	struct ram_callbacks c = { .d = d, .progress = { .what = "comparing RAM", .quiet = d->quiet } };
	int err;

	d->told = 0;
	d->ram = (struct snap_compare){
		.bytes = d->bytes, .range = d->ranges && !d->quiet ? tell_range : NULL,
		.progress = ram_progress, .opaque = &c,
	};
	err = snap_compare_ram(d->side[0].reader, d->side[1].reader, &d->ram, e);
	look_progress_end(&c.progress);
	return err;
}

/* ---- All of it --------------------------------------------------------- */

static int open_side(struct side *s, struct skep_error *e)
{
	s->reader = snap_open(s->path, 0, e);
	return s->reader ? snap_models_read(&s->models, s->reader, e) : -EINVAL;
}

static bool differ(const struct diff_command *d)
{
	return d->fields || d->records || d->ram.pages;
}

/* A list that has begun is ended, whatever happens, so that the output is JSON. */
static int diff_json(struct diff_command *d, struct skep_error *e)
{
	int err, i;

	printf("{");
	for (i = 0; i < 2; i++) {
		printf("\"%c\": {\"file\": ", "ab"[i]);
		text_json(stdout, d->side[i].path, strlen(d->side[i].path));
		printf(", \"digest\": \"");
		look_hex(stdout, d->side[i].reader->digest, SNAP_DIGEST_SIZE);
		printf("\"},\n ");
	}
	printf("\"fields\": [");
	diff_fields(d);
	printf("],\n \"records\": [");
	diff_lonely(d);
	printf("],\n \"ram_ranges\": [");
	err = diff_ram(d, e);
	printf("],\n \"ram_pages\": %" PRIu64 ", \"ram_bytes\": %" PRIu64 ", \"ram_size\": %" PRIu64
	       ", \"ram_read\": %" PRIu64 ",\n ", d->ram.pages, d->ram.differing, d->ram.all,
	       d->ram.looked_at);
	if (err < 0) {
		printf("\"error\": ");
		text_json(stdout, e->text, strlen(e->text));
		printf("}\n");
	} else {
		printf("\"same\": %s}\n", differ(d) ? "false" : "true");
	}
	return err;
}

static void print_ram(const struct diff_command *d)
{
	char pages[48], bytes[32], size[32];

	if (d->ram.pages)
		printf("RAM: %s of %" PRIu64 " differ, %s in them\n",
		       look_count(d->ram.pages, "page", pages), d->ram.all / 4096,
		       look_size(d->ram.differing, bytes));
	else
		printf("RAM: the same, %s\n", look_size(d->ram.all, size));
}

static int diff_text(struct diff_command *d, struct skep_error *e)
{
	int err;

	diff_fields(d);
	if (!d->quiet) {
		d->want_host = true;
		d->headed = false;
		diff_fields(d);
	}
	diff_lonely(d);
	err = diff_ram(d, e);
	if (err < 0 || d->quiet)
		return err;
	print_ram(d);
	if (!differ(d))
		puts("The machines are the same.");
	return 0;
}

static int diff(struct diff_command *d, struct skep_error *e)
{
	int i, err = 0;

	for (i = 0; i < 2 && !err; i++)
		err = open_side(&d->side[i], e);
	if (!err)
		err = d->json ? diff_json(d, e) : diff_text(d, e);
	for (i = 0; i < 2; i++) {
		snap_models_free(&d->side[i].models);
		snap_close(d->side[i].reader);
	}
	return err;
}

int cli_diff(int argc, char **argv, const struct cli_start *start)
{
	struct diff_command d = { .json = false };
	struct skep_error e = { "" };
	int got = parse(argc, argv, &d, &e);

	if (got > 0) {
		fputs(help, stdout);
		return look_end(0);
	}
	if (!got)
		got = diff(&d, &e);
	if (!got)
		return look_end(differ(&d) ? 1 : 0);
	fflush(stdout);
	cli_complain("%s", e.text);
	return CLI_ERROR;
}
