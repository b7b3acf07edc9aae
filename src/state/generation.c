/* Generations, and their schema in CDDL (RFC 8610). */
#include "state/generation.h"

#include <errno.h>
#include <inttypes.h>

#include "state/fields.h"

const struct state_generation state_generations[] = {
	{ .number = 1, .draft = true },
	{ .number = 0 },
};

const struct state_generation *state_generation_find(unsigned number, struct skep_error *e)
{
	const struct state_generation *g = state_generations, *newest = g;

	for (; g->number; newest = g++)
		if (g->number == number)
			return g;
	if (!number)
		return newest;
	skep_fail(e, ENOENT, "there is no generation %u: this release knows 1 to %u", number,
		  newest->number);
	return NULL;
}

uint16_t state_generation_version(const struct state_generation *g, const struct state_record *r)
{
	for (size_t i = 0; g->older && g->older[i].kind; i++)
		if (!strcmp(g->older[i].kind, r->kind))
			return g->older[i].version;
	return r->version;
}

/* Does every version that a generation names exist? */
static int check_older(const struct state_generation *g, const struct state_record *const *records,
		       struct skep_error *e)
{
	for (size_t i = 0; g->older && g->older[i].kind; i++) {
		const struct state_record *const *r = records;

		while (*r && strcmp((*r)->kind, g->older[i].kind))
			r++;
		if (!*r || g->older[i].version >= (*r)->version)
			return skep_fail(e, EINVAL, "generation %u: version %u of %s is no older version",
					 g->number, g->older[i].version, g->older[i].kind);
	}
	return 0;
}

int state_generations_check(const struct state_generation *g,
			    const struct state_record *const *records, struct skep_error *e)
{
	unsigned number = 0;

	for (const struct state_record *const *r = records; *r; r++) {
		int err = state_record_check(*r, e);

		if (err < 0)
			return err;
		for (const struct state_record *const *q = records; q < r; q++)
			if (!strcmp((*q)->kind, (*r)->kind))
				return skep_fail(e, EINVAL, "there are two records %s", (*r)->kind);
	}
	for (; g->number; g++) {
		int err = check_older(g, records, e);

		if (err < 0)
			return err;
		if (g->number != ++number)
			return skep_fail(e, EINVAL, "generation %u stands where %u belongs", g->number,
					 number);
	}
	/* What is written without --generation is what this release has. */
	if (number && (g - 1)->older && (g - 1)->older[0].kind)
		return skep_fail(e, EINVAL, "the newest generation, %u, names older versions", number);
	return 0;
}

/* ---- CDDL ------------------------------------------------------------- */

#define PARTS_MAX 256	/* sub-records of one generation */

/* A sub-record that a record of this version refers to. */
struct part {
	const struct state_record *record;
	uint16_t version;
};

struct writer {
	FILE *out;
	struct part part[PARTS_MAX];
	size_t nparts, written;
};

static bool same_in(const struct state_record *r, uint16_t a, uint16_t b)
{
	for (size_t k = 0; k < r->nfields; k++)
		if (state_has(&r->fields[k], a) != state_has(&r->fields[k], b) ||
		    (r->fields[k].sub && !same_in(r->fields[k].sub, a, b)))
			return false;
	return true;
}

/* Sub-records are rules by their kind: one kind has one shape in a generation. */
static int add_part(struct writer *w, const struct state_record *r, uint16_t version,
		    struct skep_error *e)
{
	for (size_t i = 0; i < w->nparts; i++) {
		const struct part *p = &w->part[i];

		if (strcmp(p->record->kind, r->kind))
			continue;
		if (p->record == r && same_in(r, p->version, version))
			return 0;
		return skep_fail(e, EINVAL, "there are two different sub-records %s", r->kind);
	}
	if (w->nparts == PARTS_MAX)
		return skep_fail(e, EINVAL, "more than %d sub-records", PARTS_MAX);
	w->part[w->nparts++] = (struct part){ r, version };
	return 0;
}

static void write_number(FILE *out, const struct state_field *f)
{
	uint64_t max = state_scalar_max(f);

	if (f->type == STATE_T_BOOL)
		fputs("bool", out);
	else if (f->type == STATE_T_TIME && f->max)
		fprintf(out, "%" PRId64 "..%" PRIu64, INT64_MIN, f->max);
	else if (f->type == STATE_T_TIME)
		fputs("guest-time", out);
	else if (max == UINT64_MAX)
		fputs("uint", out);
	else if (max == UINT8_MAX || max == UINT16_MAX || max == UINT32_MAX)
		fputs(max == UINT8_MAX ? "u8" : max == UINT16_MAX ? "u16" : "u32", out);
	else
		fprintf(out, "0..%" PRIu64, max);
}

static void write_type(FILE *out, const struct state_field *f)
{
	switch (f->type) {
	case STATE_T_BYTES:
		fprintf(out, "bytes .size %" PRIu32, f->size);
		return;
	case STATE_T_TEXT:
		fprintf(out, "text .size (0..%" PRIu32 ")", f->size - 1);
		return;
	case STATE_T_BLOB:
		fprintf(out, "bytes .size (0..%" PRIu64 ")", f->max);
		return;
	case STATE_T_STRUCT:
		fprintf(out, "part-%s", f->sub->kind);
		return;
	case STATE_T_LIST:
		fprintf(out, "[0*%" PRIu64 " part-%s]", f->max, f->sub->kind);
		return;
	default:
		write_number(out, f);
		return;
	}
}

/* A range in an array stands in parentheses, since not every parser reads it otherwise. */
static void write_array(FILE *out, const struct state_field *f, uint32_t n)
{
	bool range = state_scalar_size(f->type) && f->max && f->type != STATE_T_BOOL;

	fprintf(out, "[%" PRIu32 "*%" PRIu32 " %s", n, n, range ? "(" : "");
	write_type(out, f);
	fprintf(out, "%s]", range ? ")" : "");
}

/* The entries of a map, in the order of the encoding. */
static int write_fields(struct writer *w, const struct state_record *r, uint16_t version,
			enum state_half half, const char *indent, struct skep_error *e)
{
	struct state_plan plan;

	state_plan(&plan, r, version, half);
	for (uint16_t k = 0; k < plan.n; k++) {
		const struct state_field *f = plan.key[k].f;
		uint32_t n = state_elements(f);

		fprintf(w->out, "%s%s\"%s\": ", indent, f->opt ? "? " : "", f->name);
		if (n > 1)
			write_array(w->out, f, n);
		else
			write_type(w->out, f);
		fprintf(w->out, ",%s\n", f->host ? "\t; of the host, not of the guest" : "");
		if (f->sub && add_part(w, f->sub, version, e) < 0)
			return -EINVAL;
	}
	return 0;
}

static int write_record(struct writer *w, const struct state_record *r, uint16_t version,
			struct skep_error *e)
{
	int err;

	fprintf(w->out, "\nrecord-%s = {\n  \"opt\": {\n", r->kind);
	err = write_fields(w, r, version, STATE_OPT, "    ", e);
	fprintf(w->out, "    * text => any,\n  },\n  \"req\": {\n");
	if (err == 0)
		err = write_fields(w, r, version, STATE_REQ, "    ", e);
	fprintf(w->out, "  },\n  \"kind\": \"%s\",\n  \"name\": instance,\n  \"version\": %u,\n}\n",
		r->kind, version);
	/* What it is made of comes right behind it; those may be made of others in turn. */
	for (; err == 0 && w->written < w->nparts; w->written++) {
		const struct part *p = &w->part[w->written];

		fprintf(w->out, "\npart-%s = {\n", p->record->kind);
		err = write_fields(w, p->record, p->version, STATE_ALL, "  ", e);
		fputs("}\n", w->out);
	}
	return err;
}

static void write_head(FILE *out, const struct state_generation *g,
		       const struct state_record *const *records)
{
	const char *sign = " =";

	fprintf(out, "; The records of skep snapshots, generation %u.\n", g->number);
	if (g->draft)
		fputs("; DRAFT: it may still change, until the first release that writes it is tagged.\n",
		      out);
	fputs("; Written by `skep profile show` from the tables that encode and decode (RFC 8610).\n"
	      "; Every record is in deterministic form (RFC 8949, 4.2.1): the order of keys is theirs.\n"
	      "; Keys in opt that a reader does not know are skipped; in req there are no others.\n\n"
	      "record", out);
	for (; *records; records++) {
		if (!state_generation_version(g, *records))
			continue;
		fprintf(out, "%s record-%s", sign, (*records)->kind);
		sign = "\n       /";
	}
	fprintf(out, "\n\ninstance = text .size (1..%d)\n", STATE_NAME_MAX);
	fprintf(out, "guest-time = %" PRId64 "..%" PRId64 "\t; nanoseconds\n", INT64_MIN, INT64_MAX);
	fprintf(out, "u8 = 0..%u\nu16 = 0..%u\nu32 = 0..%" PRIu32 "\n", UINT8_MAX, UINT16_MAX, UINT32_MAX);
}

int state_generation_cddl(FILE *out, const struct state_generation *g,
			  const struct state_record *const *records, struct skep_error *e)
{
	struct writer w = { .out = out };

	write_head(out, g, records);
	for (; *records; records++) {
		uint16_t version = state_generation_version(g, *records);

		if (version && write_record(&w, *records, version, e) < 0)
			return -EINVAL;
	}
	return ferror(out) ? skep_fail(e, EIO, "the schema cannot be written") : 0;
}
