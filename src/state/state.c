#include "state/state.h"

#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>

const struct state_record STATE_NONE = { .kind = "none", .version = 1 };

/* Bytes of one scalar; 0 for what is not a scalar. */
static unsigned scalar_size(enum state_type t)
{
	switch (t) {
	case STATE_T_U8: return 1;
	case STATE_T_BOOL: return 1;
	case STATE_T_U16: return 2;
	case STATE_T_U32: return 4;
	case STATE_T_U64: return 8;
	case STATE_T_TIME: return 8;
	case STATE_T_BYTES: return 0;
	case STATE_T_STRUCT: return 0;
	case STATE_T_TEXT: return 0;
	case STATE_T_BLOB: return 0;
	case STATE_T_LIST: return 0;
	case STATE_T_GPA: return 8;
	}
	return 0;
}

static uint64_t scalar_get(const uint8_t *p, unsigned size)
{
	switch (size) {
	case 1: return *p;
	case 2: return load16(p);
	case 4: return load32(p);
	default: return load64(p);
	}
}

/* Elements as they are shown: an array of arrays of scalars counts flat. */
static uint32_t element_count(const struct state_field *f)
{
	unsigned unit = scalar_size(f->type);

	return unit ? f->size / unit * f->count : f->count;
}

static uint32_t element_size(const struct state_field *f)
{
	unsigned unit = scalar_size(f->type);

	return unit ? unit : f->size;
}

static void name_element(char *buf, size_t n, const char *instance, const struct state_field *f,
			 uint32_t i)
{
	if (element_count(f) > 1)
		snprintf(buf, n, "%s.%s[%" PRIu32 "]", instance, f->name, i);
	else
		snprintf(buf, n, "%s.%s", instance, f->name);
}

static void dump_element(FILE *out, const char *name, const struct state_field *f,
			 const uint8_t *p)
{
	unsigned unit = scalar_size(f->type);
	uint32_t i;

	switch (f->type) {
	case STATE_T_STRUCT:
		state_dump(out, name, f->sub, p);
		return;
	case STATE_T_BYTES:
		fprintf(out, "%s = ", name);
		for (i = 0; i < f->size; i++)
			fprintf(out, "%02x", p[i]);
		fputc('\n', out);
		return;
	case STATE_T_TIME:
		fprintf(out, "%s = %" PRId64 "\n", name, (int64_t)load64(p));
		return;
	default:
		fprintf(out, "%s = 0x%" PRIx64 "\n", name, scalar_get(p, unit));
		return;
	}
}

void state_dump(FILE *out, const char *instance, const struct state_record *r, const void *model)
{
	char name[256];
	size_t k;
	uint32_t i;

	for (k = 0; k < r->nfields; k++) {
		const struct state_field *f = &r->fields[k];
		const uint8_t *p = (const uint8_t *)model + f->offset;

		for (i = 0; i < element_count(f); i++) {
			name_element(name, sizeof(name), instance, f, i);
			dump_element(out, name, f, p + (size_t)i * element_size(f));
		}
	}
}

static int check_element(const struct state_field *f, const char *name, const uint8_t *p,
			 const struct state_context *context, struct skep_error *e)
{
	unsigned unit = scalar_size(f->type);
	uint64_t v, max = f->max;

	if (f->type == STATE_T_STRUCT)
		return state_check(f->sub, name, p, context, e);
	if (!unit)
		return 0;
	v = scalar_get(p, unit);
	if (f->type == STATE_T_BOOL)
		max = 1;
	if (!max)
		return 0;
	/* A time is signed: its max bounds it from above only. */
	if (f->type == STATE_T_TIME ? (int64_t)v > (int64_t)max : v > max)
		return skep_fail(e, EINVAL, "%s: %#" PRIx64 " is more than the largest value, %#"
				 PRIx64, name, v, max);
	return 0;
}

int state_check(const struct state_record *r, const char *instance, const void *model,
		const struct state_context *context, struct skep_error *e)
{
	char name[256];
	size_t k;
	uint32_t i;
	int err;

	for (k = 0; k < r->nfields; k++) {
		const struct state_field *f = &r->fields[k];
		const uint8_t *p = (const uint8_t *)model + f->offset;

		for (i = 0; i < element_count(f); i++) {
			name_element(name, sizeof(name), instance, f, i);
			err = check_element(f, name, p + (size_t)i * element_size(f), context, e);
			if (err < 0)
				return err;
		}
	}
	return 0;
}

/* Bytes of one element of a field in its model; 0: the table is wrong. */
static size_t field_unit(const struct state_field *f)
{
	switch (f->type) {
	case STATE_T_BYTES:
	case STATE_T_TEXT:
		return f->size;
	case STATE_T_STRUCT:
		return f->sub ? f->sub->model_size : 0;
	case STATE_T_BLOB:
		return sizeof(struct state_blob);
	case STATE_T_LIST:
		return f->sub ? sizeof(struct state_list) : 0;
	default:
		return scalar_size(f->type);
	}
}

int state_record_check(const struct state_record *r, struct skep_error *e)
{
	size_t i, unit;

	if (!r->kind || (r->nfields && !r->fields))
		return skep_fail(e, EINVAL, "a state record has no kind or no fields");
	for (i = 0; i < r->nfields; i++) {
		const struct state_field *f = &r->fields[i];

		unit = field_unit(f);
		if (!f->name || !unit || !f->count || f->size % unit ||
		    (uint64_t)f->offset + (uint64_t)f->size * f->count > r->model_size)
			return skep_fail(e, EINVAL, "state record %s: field %s does not fit its model",
					 r->kind, f->name ? f->name : "?");
		if (f->sub && state_record_check(f->sub, e) < 0)
			return -EINVAL;
	}
	return 0;
}
