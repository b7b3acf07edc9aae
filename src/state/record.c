/* Is a table right?  Asked of each at start-up and by the tests: a mistake in one is ours. */
#include <errno.h>
#include <inttypes.h>

#include "state/fields.h"

#define MODEL_SIZE_MAX	(16 * MiB)

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
		return state_scalar_size(f->type);
	}
}

/* Keys are C identifiers as they stand in models: letters, digits, underscores. */
static bool key_ok(const char *s)
{
	size_t n = s ? strlen(s) : 0;

	return n && n <= STATE_KEY_MAX &&
	       strspn(s, "abcdefghijklmnopqrstuvwxyz0123456789_") == n && !(s[0] >= '0' && s[0] <= '9');
}

static bool kind_ok(const char *s)
{
	size_t n = s ? strlen(s) : 0;

	return n && n <= STATE_NAME_MAX && s[0] >= 'a' && s[0] <= 'z' && s[n - 1] != '-' &&
	       strspn(s, "abcdefghijklmnopqrstuvwxyz0123456789-") == n;
}

/* What is wrong with the bounds of a field, or NULL. */
static const char *bounds_fault(const struct state_field *f)
{
	unsigned unit = state_scalar_size(f->type);

	switch (f->type) {
	case STATE_T_BLOB:
	case STATE_T_LIST:
		if (!f->max || f->max > UINT32_MAX)
			return "needs .max, the most it may hold";
		break;
	case STATE_T_TIME:
		if (f->max > INT64_MAX)
			return "has a .max that is no time";
		break;
	case STATE_T_BYTES:
	case STATE_T_TEXT:
	case STATE_T_STRUCT:
		if (f->max)
			return "has a .max, which says nothing here";
		break;
	default:
		if (f->max && unit < 8 && f->max >> (8 * unit))
			return "has a .max that its type does not hold";
		break;
	}
	if (f->def && !unit)
		return "has a .def, which only scalars have";
	if (unit && f->type != STATE_T_TIME && f->def > state_scalar_max(f))
		return "has a .def that is out of its range";
	if (f->type == STATE_T_TIME && f->max && (int64_t)f->def > (int64_t)f->max)
		return "has a .def that is out of its range";
	if (f->type == STATE_T_GPA ? !f->len : f->len != 0)
		return "has no .len, or one where none belongs";
	if (f->sub && f->type != STATE_T_STRUCT && f->type != STATE_T_LIST)
		return "has a .sub, which only sub-records have";
	return NULL;
}

static const char *field_fault(const struct state_record *r, const struct state_field *f,
			       unsigned depth)
{
	size_t unit = field_unit(f);

	if (!key_ok(f->name))
		return "has a name that is no key";
	if (!unit || !f->count || f->size % unit || (f->sub && f->size != unit) ||
	    (uint64_t)f->offset + (uint64_t)f->size * f->count > r->model_size)
		return "does not fit its model";
	if (f->since > r->version || f->until >= r->version || (f->until && f->since > f->until))
		return "lives in versions that its record has not had";
	if (f->opt && depth)
		return "is .opt, but lies in a sub-record";
	for (const struct state_field *g = r->fields; g < f; g++)
		if (!strcmp(g->name, f->name))
			return "is there twice";
	return bounds_fault(f);
}

static int check_record(const struct state_record *r, uint16_t outer, unsigned depth,
			struct skep_error *e)
{
	if (!kind_ok(r->kind) || (r->nfields && !r->fields))
		return skep_fail(e, EINVAL, "state record %s: its kind is no name, or it has no fields",
				 r->kind ? r->kind : "?");
	if (r->nfields > STATE_FIELDS_MAX || r->model_size > MODEL_SIZE_MAX || depth > STATE_NEST_MAX)
		return skep_fail(e, EINVAL, "state record %s: too large, or nested too deeply", r->kind);
	/* A sub-record counts in the versions of the record that it lies in: only those are told. */
	if (!r->version || r->version > outer)
		return skep_fail(e, EINVAL, "state record %s: there is no version %u of it", r->kind,
				 r->version);
	if (depth && (r->upgrade || r->downgrade))
		return skep_fail(e, EINVAL, "state record %s: a sub-record is migrated by the record "
				 "that it lies in", r->kind);
	for (size_t i = 0; i < r->nfields; i++) {
		const struct state_field *f = &r->fields[i];
		const char *fault = field_fault(r, f, depth);

		if (fault)
			return skep_fail(e, EINVAL, "state record %s: field %s %s", r->kind,
					 f->name ? f->name : "?", fault);
		if (f->sub && check_record(f->sub, r->version, depth + 1, e) < 0)
			return -EINVAL;
	}
	return 0;
}

int state_record_check(const struct state_record *r, struct skep_error *e)
{
	return check_record(r, UINT16_MAX, 0, e);
}
