/* Models to CBOR. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include <cbor.h>

#include "state/codec.h"
#include "state/fields.h"

#define HEAD_MAX 9	/* bytes of the head of an item */

void state_buf_free(struct state_buf *b)
{
	free(b->data);
	*b = (struct state_buf){ 0 };
}

struct encoder {
	struct state_buf *out;
	uint16_t version;
	bool failed;		/* no memory; what follows is dropped */
};

/* Room for n more bytes; NULL: no memory. */
static uint8_t *reserve(struct encoder *en, size_t n)
{
	struct state_buf *b = en->out;
	size_t cap = b->cap ? b->cap : 512;
	uint8_t *data;

	if (en->failed)
		return NULL;
	if (b->cap - b->len >= n)
		return b->data + b->len;
	while (cap - b->len < n) {
		if (cap > SIZE_MAX / 2)
			goto fail;
		cap *= 2;
	}
	data = realloc(b->data, cap);
	if (!data)
		goto fail;
	b->data = data;
	b->cap = cap;
	return data + b->len;
fail:
	en->failed = true;
	return NULL;
}

typedef size_t head_fn(size_t n, unsigned char *buf, size_t size);

static void put_head(struct encoder *en, head_fn *fn, size_t n)
{
	uint8_t *p = reserve(en, HEAD_MAX);

	if (p)
		en->out->len += fn(n, p, HEAD_MAX);
}

static void put_bytes(struct encoder *en, head_fn *fn, const void *data, size_t n)
{
	uint8_t *p;

	put_head(en, fn, n);
	p = reserve(en, n);
	if (!p || !n)
		return;
	memcpy(p, data, n);
	en->out->len += n;
}

static void put_text(struct encoder *en, const char *s)
{
	put_bytes(en, cbor_encode_string_start, s, strlen(s));
}

static void put_scalar(struct encoder *en, enum state_type type, uint64_t v)
{
	uint8_t *p = reserve(en, HEAD_MAX);
	size_t n;

	if (!p)
		return;
	if (type == STATE_T_BOOL)
		n = cbor_encode_bool(v, p, HEAD_MAX);
	else if (type == STATE_T_TIME && (int64_t)v < 0)
		n = cbor_encode_negint(~v, p, HEAD_MAX);
	else
		n = cbor_encode_uint(v, p, HEAD_MAX);
	en->out->len += n;
}

static void put_fields(struct encoder *en, const struct state_plan *plan, const uint8_t *model);

/* count models of a sub-record, one after the other; the order of its keys is found once. */
static void put_subs(struct encoder *en, const struct state_record *r, const uint8_t *models,
		     uint32_t count)
{
	struct state_plan plan;

	state_plan(&plan, r, en->version, STATE_ALL);
	for (uint32_t i = 0; i < count; i++)
		put_fields(en, &plan, models + (size_t)i * r->model_size);
}

static void put_element(struct encoder *en, const struct state_field *f, const uint8_t *p)
{
	const struct state_blob *b = (const struct state_blob *)p;
	const struct state_list *l = (const struct state_list *)p;

	switch (f->type) {
	case STATE_T_BYTES:
		put_bytes(en, cbor_encode_bytestring_start, p, f->size);
		return;
	case STATE_T_TEXT:
		put_text(en, (const char *)p);
		return;
	case STATE_T_BLOB:
		put_bytes(en, cbor_encode_bytestring_start, b->data, b->len);
		return;
	case STATE_T_LIST:
		put_head(en, cbor_encode_array_start, l->count);
		put_subs(en, f->sub, l->items, l->count);
		return;
	default:
		put_scalar(en, f->type, state_scalar_get(p, state_scalar_size(f->type)));
		return;
	}
}

static void put_fields(struct encoder *en, const struct state_plan *plan, const uint8_t *model)
{
	put_head(en, cbor_encode_map_start, plan->n);
	for (uint16_t k = 0; k < plan->n; k++) {
		const struct state_field *f = plan->key[k].f;
		const uint8_t *p = model + f->offset;
		uint32_t n = state_elements(f);

		put_bytes(en, cbor_encode_string_start, f->name, plan->key[k].len);
		if (n > 1)
			put_head(en, cbor_encode_array_start, n);
		if (f->type == STATE_T_STRUCT) {
			put_subs(en, f->sub, p, n);
			continue;
		}
		for (uint32_t i = 0; i < n; i++)
			put_element(en, f, p + (size_t)i * state_element_size(f));
	}
}

static int put_record(const struct state_record *r, const char *name, const void *model,
		      uint16_t version, struct state_buf *out, struct skep_error *e)
{
	struct encoder en = { .out = out, .version = version };
	struct state_plan plan;
	size_t start = out->len;

	put_head(&en, cbor_encode_map_start, 5);
	put_text(&en, "opt");
	state_plan(&plan, r, version, STATE_OPT);
	put_fields(&en, &plan, model);
	put_text(&en, "req");
	state_plan(&plan, r, version, STATE_REQ);
	put_fields(&en, &plan, model);
	put_text(&en, "kind");
	put_text(&en, r->kind);
	put_text(&en, "name");
	put_text(&en, name);
	put_text(&en, "version");
	put_scalar(&en, STATE_T_U16, version);
	if (!en.failed)
		return 0;
	out->len = start;
	return skep_fail(e, ENOMEM, "%s: no memory to write its state down", name);
}

/* ---- Older versions --------------------------------------------------- */

static int refuse_model(const struct state_record *r, const struct state_path *path,
			const uint8_t *model, uint16_t version, struct skep_error *e);

static int refuse_field(const struct state_field *f, const struct state_path *path,
			const uint8_t *p, uint32_t i, uint16_t version, struct skep_error *e)
{
	const struct state_list *l = (const struct state_list *)p;
	const struct state_path at = state_path_field(path, f, i);
	int err = 0;

	if (f->type == STATE_T_STRUCT)
		return refuse_model(f->sub, &at, p, version, e);
	for (uint32_t k = 0; f->type == STATE_T_LIST && k < l->count && err == 0; k++) {
		const struct state_path item = state_path_item(&at, k);

		err = refuse_model(f->sub, &item,
				   (const uint8_t *)l->items + (size_t)k * f->sub->model_size,
				   version, e);
	}
	return err;
}

/* A field that the version does not have, and whose value is not what its absence means. */
static int refuse_value(const struct state_field *f, const struct state_path *path,
			const uint8_t *p, uint16_t version, struct skep_error *e)
{
	unsigned unit = state_scalar_size(f->type);
	uint32_t i = 0;
	struct state_path at;

	for (; unit && state_scalar_get(p + (size_t)i * unit, unit) == f->def; i++)
		;
	at = state_path_field(path, f, i);
	at.indexed &= unit != 0;
	if (unit)
		return state_path_fail(&at, e, ENOTSUP, "its value %#" PRIx64 " cannot be expressed "
				       "in version %u of this record",
				       state_scalar_get(p + (size_t)i * unit, unit), version);
	return state_path_fail(&at, e, ENOTSUP, "it is not empty, which cannot be expressed in "
			       "version %u of this record", version);
}

static int refuse_model(const struct state_record *r, const struct state_path *path,
			const uint8_t *model, uint16_t version, struct skep_error *e)
{
	for (size_t k = 0; k < r->nfields; k++) {
		const struct state_field *f = &r->fields[k];
		const uint8_t *p = model + f->offset;
		int err = 0;

		if (!state_has(f, version)) {
			/* What lies in opt may be left out by its nature. */
			if (!f->opt && !state_field_is_default(f, p))
				return refuse_value(f, path, p, version, e);
			continue;
		}
		for (uint32_t i = 0; f->sub && i < f->count && err == 0; i++)
			err = refuse_field(f, path, p + (size_t)i * f->size, i, version, e);
		if (err < 0)
			return err;
	}
	return 0;
}

static int encode_older(const struct state_record *r, const char *name, void *scratch,
			uint16_t version, struct state_buf *out, struct skep_error *e)
{
	const struct state_path root = { .name = name };
	int err;

	state_default_absent(r, r->version, scratch);
	err = r->downgrade ? r->downgrade(scratch, version, e) : 0;
	if (err < 0) {
		skep_error_prefix(e, "%s", name);
		return err;
	}
	err = refuse_model(r, &root, scratch, version, e);
	if (err == 0)	/* the hook may have got its values wrong */
		err = state_check_version(r, name, scratch, version, NULL, e);
	return err < 0 ? err : put_record(r, name, scratch, version, out, e);
}

int state_encode(const struct state_record *r, const char *name, const void *model,
		 uint16_t version, struct state_buf *out, struct skep_error *e)
{
	size_t len = strlen(name);
	void *scratch;
	int err;

	if (!len || len > STATE_NAME_MAX || !state_text_ok(name, len))
		return skep_fail(e, EINVAL, "record %s: \"%.64s\" cannot be the name of a record",
				 r->kind, name);
	if (!version || version > r->version)
		return skep_fail(e, EINVAL, "%s: there is no version %u of record %s", name, version,
				 r->kind);
	err = state_check(r, name, model, NULL, e);
	if (err < 0 || version == r->version)
		return err < 0 ? err : put_record(r, name, model, version, out, e);
	scratch = calloc(1, r->model_size ? r->model_size : 1);
	if (!scratch || state_copy(r, scratch, model) < 0) {
		free(scratch);
		return skep_fail(e, ENOMEM, "%s: no memory to write its state down", name);
	}
	err = encode_older(r, name, scratch, version, out, e);
	state_free(r, scratch);
	free(scratch);
	return err;
}
