/* skep inspect: what a snapshot holds, as a page, as fields, or as JSON. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/text.h"
#include "base/util.h"
#include "cli/cli.h"
#include "cli/inspect.h"
#include "config/nearest.h"
#include "cpu/arch.h"
#include "snapshot/restore.h"
#include "vm/machine_record.h"

static const char help[] =
	"usage: skep inspect [--json] [RECORD...] FILE\n"
	"\n"
	"Shows what a snapshot holds: the machine, when it was saved, its settings, what its processors\n"
	"are about, its records.  With RECORD (cpu.0, lpc.com1, manifest; or a kind, such as cpu): all\n"
	"fields of these.  RAM is not read; skep verify does that.\n"
	"\n"
	"  --json  everything, or the records named, as JSON\n"
	"\n"
	"Examples:\n"
	"  skep inspect web.skep\n"
	"  skep inspect cpu.0 web.skep\n"
	"  skep inspect --json web.skep | jq '.manifest.guest_ns'\n";

struct inspect_command {
	struct inspected s;
	bool json;
	char **wanted;		/* records; argv's */
	int nwanted;
};

/* ---- Arguments --------------------------------------------------------- */

enum { OPT_JSON = 256 };

static const struct option options[] = {
	{ "json", no_argument, NULL, OPT_JSON },
	{ "help", no_argument, NULL, 'h' },
	{ 0 },
};

/* 1: help was asked for. */
static int parse(int argc, char **argv, struct inspect_command *c, struct skep_error *e)
{
	int got;

	optind = 0;
	opterr = 0;
	while ((got = getopt_long(argc, argv, ":h", options, NULL)) != -1) {
		switch (got) {
		case 'h': return 1;
		case OPT_JSON: c->json = true; break;
		default: return look_bad_option("inspect", options, argv, got, e);
		}
	}
	if (optind == argc)
		return skep_fail(e, EINVAL, "want a snapshot: skep inspect [RECORD...] FILE");
	c->s.path = argv[argc - 1];
	c->wanted = argv + optind;
	c->nwanted = argc - 1 - optind;
	return 0;
}

static bool is_manifest(const char *word)
{
	return !strcmp(word, "manifest");
}

/* By its name, or its kind. */
static bool names(const char *word, const struct snap_model *m)
{
	return m->head.name[0] && (!strcmp(word, m->head.name) || !strcmp(word, m->head.kind));
}

static bool is_wanted(const struct inspect_command *c, const struct snap_model *m)
{
	int i;

	for (i = 0; i < c->nwanted; i++)
		if (names(c->wanted[i], m))
			return true;
	return !c->nwanted;
}

static bool manifest_wanted(const struct inspect_command *c)
{
	int i;

	for (i = 0; i < c->nwanted; i++)
		if (is_manifest(c->wanted[i]))
			return true;
	return !c->nwanted;
}

static int check_wanted(const struct inspect_command *c, struct skep_error *e)
{
	struct nearest near;
	char hint[160];
	size_t k;
	int i;

	for (i = 0; i < c->nwanted; i++) {
		nearest_init(&near, c->wanted[i]);
		nearest_offer(&near, "manifest");
		for (k = 0; k < c->s.models.count && !names(c->wanted[i], &c->s.models.items[k]); k++)
			nearest_offer(&near, c->s.models.items[k].head.name);
		if (k < c->s.models.count || is_manifest(c->wanted[i]))
			continue;
		nearest_hint(&near, hint, sizeof(hint));
		return skep_fail(e, ENOENT, "%s: has no record \"%.60s\"%s", c->s.path, c->wanted[i],
				 *hint ? hint : "; `skep inspect` with the file alone lists them");
	}
	return 0;
}

/* ---- Fields as text ---------------------------------------------------- */

/* What was written into memory, line by line, as text for a terminal. */
static void print_lines(const char *text, size_t len)
{
	const char *end;

	for (; len; len -= (size_t)(end + 1 - text), text = end + 1) {
		end = memchr(text, '\n', len);
		if (!end) {
			text_print(stdout, text, len);
			putchar('\n');
			return;
		}
		text_print(stdout, text, (size_t)(end - text));
		putchar('\n');
	}
}

/* The settings as what they are: text. */
static void print_manifest(const struct manifest *m)
{
	const struct manifest_setting *s = m->config.items;
	struct manifest others = *m;
	char *text = NULL;
	size_t len = 0;
	uint32_t i;
	FILE *f = open_memstream(&text, &len);

	if (f) {
		others.config = (struct state_list){ NULL, 0 };
		state_dump(f, "manifest", &manifest_record, &others);
		fclose(f);
		print_lines(text, len);
		free(text);
	}
	for (i = 0; i < m->config.count; i++) {
		printf("manifest.config.");
		look_text(s[i].key);
		printf(" = ");
		text_print(stdout, s[i].value.data, s[i].value.len);
		putchar('\n');
	}
}

static int print_record(const struct snap_model *m, struct skep_error *e)
{
	char *text = NULL;
	size_t len = 0;
	FILE *f = open_memstream(&text, &len);
	int err = 0;

	if (!f)
		return skep_fail(e, ENOMEM, "no memory for a record");
	if (m->model) {
		state_dump(f, m->head.name, m->table, m->model);
	} else {
		fprintf(f, "%s: %s\n", m->head.name, m->why->text);
		err = state_json_cbor(f, m->raw->data, m->raw->len, 0, e);
	}
	if (fclose(f))
		err = skep_fail(e, ENOMEM, "no memory for a record");
	else
		print_lines(text, len);
	free(text);
	return err;
}

static int print_wanted(const struct inspect_command *c, struct skep_error *e)
{
	size_t i;
	int err = 0;

	if (manifest_wanted(c))
		print_manifest(&c->s.reader->manifest);
	for (i = 0; i < c->s.models.count && !err; i++)
		if (is_wanted(c, &c->s.models.items[i]))
			err = print_record(&c->s.models.items[i], e);
	return err;
}

/* ---- JSON -------------------------------------------------------------- */

static void json_text(const char *name, const char *text)
{
	printf(",\n \"%s\": ", name);
	text_json(stdout, text, strlen(text));
}

static void json_settings(const struct manifest *m)
{
	const struct manifest_setting *s = m->config.items;
	uint32_t i;

	printf(",\n \"settings\": {");
	for (i = 0; i < m->config.count; i++) {
		printf("%s\n  ", i ? "," : "");
		text_json(stdout, s[i].key, strlen(s[i].key));
		printf(": {\"value\": ");
		text_json(stdout, s[i].value.data, s[i].value.len);
		printf(", \"host\": %s}", restore_may_remap(s[i].key) ? "true" : "false");
	}
	printf("\n }");
}

static void json_chain(const struct inspected *s)
{
	const struct snap_reader *p;

	printf(",\n \"parents\": [");
	for (p = s->reader->parent; p; p = p->parent) {
		struct look_file f;

		look_file(p, &f);
		printf("%s\n  {\"file\": ", p == s->reader->parent ? "" : ",");
		text_json(stdout, p->path, strlen(p->path));
		printf(", \"digest\": \"");
		look_hex(stdout, p->digest, SNAP_DIGEST_SIZE);
		printf("\", ");
		look_file_json(&f);
		printf("}");
	}
	printf("]");
	if (s->chain.text[0])
		json_text("parents_error", s->chain.text);
}

static void json_cpus(const struct inspected *s)
{
	bool any = false;
	size_t i;

	printf(",\n \"cpus\": [");
	for (i = 0; i < s->models.count; i++) {
		const struct cpu_arch_state *c = inspect_cpu(&s->models.items[i]);

		if (!c)
			continue;
		printf("%s\n  {\"name\": ", any ? "," : "");
		text_json(stdout, s->models.items[i].head.name, strlen(s->models.items[i].head.name));
		printf(", \"mode\": \"%s\", \"cpl\": %u, \"state\": \"%s\", \"interrupts\": %s, \"rip\": %"
		       PRIu64 "}", inspect_mode(c), inspect_cpl(c), inspect_activity(c),
		       c->rflags & RFLAGS_IF ? "true" : "false", c->rip);
		any = true;
	}
	printf("]");
}

/* CBOR that is not well formed is found out before the first byte is written. */
static void json_cbor(const struct snap_model *m)
{
	struct skep_error e;

	printf(", \"error\": ");
	text_json(stdout, m->why->text, strlen(m->why->text));
	printf(",\n   \"cbor\": ");
	if (state_json_cbor(stdout, m->raw->data, m->raw->len, 3, &e) < 0)
		printf("null");
}

static void json_records(const struct inspect_command *c)
{
	bool any = false;
	size_t i;

	printf(",\n \"records\": [");
	for (i = 0; i < c->s.models.count; i++) {
		const struct snap_model *m = &c->s.models.items[i];

		if (!is_wanted(c, m))
			continue;
		printf("%s\n  {\"name\": ", any ? "," : "");
		any = true;
		text_json(stdout, m->head.name, strlen(m->head.name));
		printf(", \"kind\": ");
		text_json(stdout, m->head.kind, strlen(m->head.kind));
		printf(", \"version\": %u, \"offset\": %" PRIu64 ", \"size\": %zu, \"skipped\": %u",
		       m->head.version, m->raw->offset, m->raw->len, m->skipped);
		if (m->model) {
			printf(",\n   \"fields\": ");
			state_json(stdout, m->table, m->model, 3);
		} else {
			json_cbor(m);
		}
		printf("}");
	}
	printf("]");
}

static void json_all(const struct inspected *s)
{
	const struct manifest *m = &s->reader->manifest;
	const struct machine_model *machine = inspect_machine(s);
	char date[48];
	int64_t lag;

	printf(",\n ");
	look_file_json(&s->file);
	printf(",\n \"digest\": \"");
	look_hex(stdout, s->reader->digest, SNAP_DIGEST_SIZE);
	printf("\"");
	json_text("name", m->name);
	if (machine) {
		printf(",\n \"uuid\": \"");
		inspect_uuid(stdout, machine->uuid);
		printf("\"");
	}
	json_text("saved", look_date(m->host_wall_ns, date));
	json_text("guest_clock", look_date(m->guest_wall_ns, date));
	if (!__builtin_sub_overflow(m->host_wall_ns, m->guest_wall_ns, &lag))
		printf(",\n \"guest_clock_lag_ns\": %" PRId64, lag);
	json_chain(s);
	json_settings(m);
	json_cpus(s);
}

static void print_json(const struct inspect_command *c)
{
	printf("{\"file\": ");
	text_json(stdout, c->s.path, strlen(c->s.path));
	if (!c->nwanted)
		json_all(&c->s);
	if (manifest_wanted(c)) {
		printf(",\n \"manifest\": ");
		state_json(stdout, &manifest_record, &c->s.reader->manifest, 1);
	}
	json_records(c);
	printf("}\n");
}

/* ---- All of it --------------------------------------------------------- */

/* Without its parents, a delta can still be looked at. */
static int open_file(struct inspected *s, struct skep_error *e)
{
	s->reader = snap_open(s->path, 0, &s->chain);
	if (s->reader)
		s->chain.text[0] = '\0';
	else
		s->reader = snap_open(s->path, SNAP_OPEN_ALONE, e);
	if (!s->reader)
		return -EINVAL;
	look_file(s->reader, &s->file);
	return snap_models_read(&s->models, s->reader, e);
}

static int inspect(struct inspect_command *c, struct skep_error *e)
{
	int err = open_file(&c->s, e);

	if (!err)
		err = check_wanted(c, e);
	if (!err && c->json)
		print_json(c);
	else if (!err && c->nwanted)
		err = print_wanted(c, e);
	else if (!err)
		inspect_page(&c->s);
	snap_models_free(&c->s.models);
	snap_close(c->s.reader);
	return err;
}

int cli_inspect(int argc, char **argv, const struct cli_start *start)
{
	struct inspect_command c = { .json = false };
	struct skep_error e = { "" };
	int got = parse(argc, argv, &c, &e);

	if (got > 0) {
		fputs(help, stdout);
		return look_end(0);
	}
	if (!got)
		got = inspect(&c, &e);
	if (!got)
		return look_end(0);
	fflush(stdout);
	cli_complain("%s", e.text);
	return CLI_ERROR;
}
