/* Models by their tables: shown, and checked. */
#include "state/state.h"

#include <errno.h>
#include <inttypes.h>

#include "state/fields.h"

const struct state_record STATE_NONE = { .kind = "none", .version = 1 };

/* ---- Shown ------------------------------------------------------------ */

static void dump_model(FILE *out, const struct state_path *path, const struct state_record *r,
		       const uint8_t *model);

static void dump_bytes(FILE *out, const uint8_t *p, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++)
		fprintf(out, "%02x", p[i]);
	fputc('\n', out);
}

static void dump_list(FILE *out, const struct state_path *path, const struct state_field *f,
		      const struct state_list *l)
{
	for (uint32_t i = 0; i < l->count; i++) {
		struct state_path item = state_path_item(path, i);

		dump_model(out, &item, f->sub,
			   (const uint8_t *)l->items + (size_t)i * f->sub->model_size);
	}
}

static void dump_element(FILE *out, const struct state_path *path, const struct state_field *f,
			 const uint8_t *p)
{
	const struct state_blob *b = (const struct state_blob *)p;
	const struct state_list *l = (const struct state_list *)p;
	char name[STATE_PATH_TEXT];

	if (f->type == STATE_T_STRUCT) {
		dump_model(out, path, f->sub, p);
		return;
	}
	fprintf(out, "%s = ", state_path_text(path, name));
	switch (f->type) {
	case STATE_T_BYTES:
		dump_bytes(out, p, f->size);
		return;
	case STATE_T_BLOB:
		dump_bytes(out, b->data, b->len);
		return;
	case STATE_T_TEXT:
		fprintf(out, "%.*s\n", (int)f->size, (const char *)p);
		return;
	case STATE_T_LIST:
		fprintf(out, "%" PRIu32 " items\n", l->count);
		dump_list(out, path, f, l);
		return;
	case STATE_T_TIME:
		fprintf(out, "%" PRId64 "\n", (int64_t)load64(p));
		return;
	default:
		fprintf(out, "0x%" PRIx64 "\n", state_scalar_get(p, state_scalar_size(f->type)));
		return;
	}
}

/* A retired field is no longer part of the machine. */
static bool is_live(const struct state_field *f)
{
	return !f->until;
}

static void dump_model(FILE *out, const struct state_path *path, const struct state_record *r,
		       const uint8_t *model)
{
	for (size_t k = 0; k < r->nfields; k++) {
		const struct state_field *f = &r->fields[k];

		if (!is_live(f))
			continue;
		for (uint32_t i = 0; i < state_elements(f); i++) {
			struct state_path at = state_path_field(path, f, i);

			dump_element(out, &at, f,
				     model + f->offset + (size_t)i * state_element_size(f));
		}
	}
}

void state_dump(FILE *out, const char *instance, const struct state_record *r, const void *model)
{
	const struct state_path root = { .name = instance };

	dump_model(out, &root, r, model);
}

/* ---- Checked ---------------------------------------------------------- */

/* What a check is told: the version whose fields are looked at, and the machine. */
struct check {
	uint16_t version;
	const struct state_context *context;
	struct skep_error *e;
};

static int check_element(const struct check *c, const struct state_field *f,
			 const struct state_path *path, const void *p);

static int check_model(const struct check *c, const struct state_record *r,
		       const struct state_path *path, const uint8_t *model)
{
	for (size_t k = 0; k < r->nfields; k++) {
		const struct state_field *f = &r->fields[k];
		uint32_t n = state_elements(f), size = state_element_size(f);

		if (!state_has(f, c->version))
			continue;
		for (uint32_t i = 0; i < n; i++) {
			struct state_path at = state_path_field(path, f, i);
			int err = check_element(c, f, &at, model + f->offset + (size_t)i * size);

			if (err < 0)
				return err;
		}
	}
	return 0;
}

static int check_list(const struct check *c, const struct state_field *f,
		      const struct state_path *path, const struct state_list *l)
{
	if (l->count > f->max)
		return state_path_fail(path, c->e, EINVAL, "%" PRIu32 " items are more than the most "
				       "there may be, %" PRIu64, l->count, f->max);
	if (!l->items != !l->count)
		return state_path_fail(path, c->e, EINVAL, "%" PRIu32 " items, but %s", l->count,
				       l->items ? "there are some" : "they are not there");
	for (uint32_t i = 0; i < l->count; i++) {
		struct state_path item = state_path_item(path, i);
		int err = check_model(c, f->sub, &item,
				      (const uint8_t *)l->items + (size_t)i * f->sub->model_size);

		if (err < 0)
			return err;
	}
	return 0;
}

static int check_blob(const struct check *c, const struct state_field *f,
		      const struct state_path *path, const struct state_blob *b)
{
	if (b->len > f->max)
		return state_path_fail(path, c->e, EINVAL, "%" PRIu32 " bytes are more than the most "
				       "there may be, %" PRIu64, b->len, f->max);
	if (!b->data != !b->len)
		return state_path_fail(path, c->e, EINVAL, "%" PRIu32 " bytes, but %s", b->len,
				       b->data ? "there are some" : "they are not there");
	return 0;
}

static int check_text(const struct check *c, const struct state_field *f,
		      const struct state_path *path, const char *p)
{
	size_t len = strnlen(p, f->size);

	if (len == f->size)
		return state_path_fail(path, c->e, EINVAL, "the text does not end within %" PRIu32
				       " bytes", f->size);
	if (!state_text_ok(p, len))
		return state_path_fail(path, c->e, EINVAL, "the text is not printable UTF-8");
	return 0;
}

int state_check_scalar(const struct state_field *f, const struct state_path *path, uint64_t v,
		       struct skep_error *e)
{
	uint64_t max = f->max;

	/* A time is signed: its max bounds it from above only. */
	if (f->type == STATE_T_TIME ? !max || (int64_t)v <= (int64_t)max :
	    v <= (max = state_scalar_max(f)))
		return 0;
	return state_path_fail(path, e, EINVAL, "%#" PRIx64 " is more than the largest value, %#"
			       PRIx64, v, max);
}

static int check_element(const struct check *c, const struct state_field *f,
			 const struct state_path *path, const void *p)
{
	uint64_t v;

	switch (f->type) {
	case STATE_T_BYTES:
		return 0;
	case STATE_T_STRUCT:
		return check_model(c, f->sub, path, p);
	case STATE_T_TEXT:
		return check_text(c, f, path, p);
	case STATE_T_BLOB:
		return check_blob(c, f, path, p);
	case STATE_T_LIST:
		return check_list(c, f, path, p);
	default:
		v = state_scalar_get(p, state_scalar_size(f->type));
		if (f->type == STATE_T_GPA && c->context &&
		    !c->context->is_ram(c->context->opaque, v, f->len))
			return state_path_fail(path, c->e, EINVAL, "the %" PRIu64 " bytes at %#"
					       PRIx64 " are not RAM", f->len, v);
		return state_check_scalar(f, path, v, c->e);
	}
}

int state_check_version(const struct state_record *r, const char *instance, const void *model,
			uint16_t version, const struct state_context *context,
			struct skep_error *e)
{
	const struct state_path root = { .name = instance };
	const struct check c = { version, context, e };

	return check_model(&c, r, &root, model);
}

int state_check(const struct state_record *r, const char *instance, const void *model,
		const struct state_context *context, struct skep_error *e)
{
	return state_check_version(r, instance, model, r->version, context, e);
}
