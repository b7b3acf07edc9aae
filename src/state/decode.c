/* CBOR to models.  The bytes are hostile: every count is compared with the table's. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "state/codec.h"
#include "state/fields.h"
#include "state/item.h"

static bool item_is(const struct item *it, const char *text)
{
	return it->type == ITEM_TEXT && it->value == strlen(text) &&
	       !memcmp(it->data, text, it->value);
}

static int next_key(struct item_reader *in, const char *want, struct skep_error *e)
{
	size_t at = in->pos;
	struct item it;
	int err = item_next_strict(in, &it, e);

	if (err < 0)
		return err;
	if (!item_is(&it, want))
		return skep_fail(e, EBADMSG, "byte %zu: the key \"%s\" belongs here", at, want);
	return 0;
}

static int next_name(struct item_reader *in, const char *key, char *out, struct skep_error *e)
{
	struct item it;
	int err = next_key(in, key, e);

	if (err == 0)
		err = item_next_strict(in, &it, e);
	if (err < 0)
		return err;
	if (it.type != ITEM_TEXT || !it.value || it.value > STATE_NAME_MAX ||
	    !state_text_ok(it.data, it.value))
		return skep_fail(e, EBADMSG, "its %s is not a text of 1 to %d bytes", key,
				 STATE_NAME_MAX);
	memcpy(out, it.data, it.value);
	out[it.value] = '\0';
	return 0;
}

/* The map of the key; its contents are passed over. */
static int skip_half(struct item_reader *in, const char *key, struct skep_error *e)
{
	int err = next_key(in, key, e);

	if (err < 0)
		return err;
	if (in->pos < in->len && in->data[in->pos] >> 5 != 5)
		return skep_fail(e, EBADMSG, "\"%s\" is not a map", key);
	return item_skip(in, 1, e);
}

static int read_head(struct item_reader *in, struct state_head *head, struct skep_error *e)
{
	struct item it;
	int err = item_next_strict(in, &it, e);

	if (err < 0)
		return err;
	if (it.type != ITEM_MAP || it.value != 5)
		return skep_fail(e, EBADMSG, "it is not a map of opt, req, kind, name and version");
	err = skip_half(in, "opt", e);
	if (err == 0)
		err = skip_half(in, "req", e);
	if (err == 0)
		err = next_name(in, "kind", head->kind, e);
	if (err == 0)
		err = next_name(in, "name", head->name, e);
	if (err == 0)
		err = next_key(in, "version", e);
	if (err == 0)
		err = item_next_strict(in, &it, e);
	if (err < 0)
		return err;
	if (it.type != ITEM_UINT || !it.value || it.value > UINT16_MAX)
		return skep_fail(e, EBADMSG, "its version is not a number from 1 to %u", UINT16_MAX);
	head->version = (uint16_t)it.value;
	if (in->pos != in->len)
		return skep_fail(e, EBADMSG, "%zu bytes are left over behind it", in->len - in->pos);
	return 0;
}

int state_peek(const uint8_t *data, size_t len, struct state_head *head, struct skep_error *e)
{
	struct item_reader in = { data, len, 0 };
	int err;

	*head = (struct state_head){ .version = 0 };
	err = read_head(&in, head, e);
	if (err < 0) {
		*head = (struct state_head){ .version = 0 };
		skep_error_prefix(e, "not a record");
	}
	return err;
}

/* ---- Fields ----------------------------------------------------------- */

struct decoder {
	struct item_reader in;
	uint16_t version;
	const char *kind, *name;
	state_skipped_fn *skipped;
	void *opaque;
	struct skep_error *e;
};

static int read_fields(struct decoder *d, const struct state_plan *plan,
		       const struct state_path *path, uint8_t *model, enum state_half half);

/* The next item, which must be of this type. */
static int read_item(struct decoder *d, const struct state_path *path, enum item_type want,
		     struct item *it)
{
	int err = item_next_strict(&d->in, it, d->e);

	if (err < 0 || it->type == want)
		return err;
	return state_path_fail(path, d->e, EPROTO, "it is %s, not %s", item_type_text(it->type),
			       item_type_text(want));
}

static int read_count(struct decoder *d, const struct state_path *path, uint32_t want)
{
	struct item it;
	int err = read_item(d, path, ITEM_ARRAY, &it);

	if (err == 0 && it.value != want)
		err = state_path_fail(path, d->e, EPROTO, "%" PRIu64 " elements, not %" PRIu32,
				      it.value, want);
	return err;
}

static int read_time(struct decoder *d, const struct state_field *f,
		     const struct state_path *path, uint8_t *p)
{
	struct item it;
	uint64_t v;
	int err = item_next_strict(&d->in, &it, d->e);

	if (err < 0)
		return err;
	if (it.type != ITEM_UINT && it.type != ITEM_NEGATIVE)
		return state_path_fail(path, d->e, EPROTO, "it is %s, not a time",
				       item_type_text(it.type));
	if (it.value > INT64_MAX)
		return state_path_fail(path, d->e, EINVAL, "it is out of the range of times");
	v = it.type == ITEM_NEGATIVE ? ~it.value : it.value;
	err = state_check_scalar(f, path, v, d->e);
	if (err == 0)
		store64(p, v);
	return err;
}

static int read_scalar(struct decoder *d, const struct state_field *f,
		       const struct state_path *path, uint8_t *p)
{
	struct item it;
	int err;

	if (f->type == STATE_T_TIME)
		return read_time(d, f, path, p);
	err = read_item(d, path, f->type == STATE_T_BOOL ? ITEM_BOOL : ITEM_UINT, &it);
	if (err == 0)
		err = state_check_scalar(f, path, it.value, d->e);
	if (err == 0)
		state_scalar_set(p, state_scalar_size(f->type), it.value);
	return err;
}

static int read_text(struct decoder *d, const struct state_field *f,
		     const struct state_path *path, uint8_t *p)
{
	struct item it;
	int err = read_item(d, path, ITEM_TEXT, &it);

	if (err < 0)
		return err;
	if (it.value >= f->size)
		return state_path_fail(path, d->e, EINVAL, "a text of %" PRIu64 " bytes, but at most "
				       "%" PRIu32 " may be there", it.value, f->size - 1);
	if (!state_text_ok(it.data, it.value))
		return state_path_fail(path, d->e, EINVAL, "the text is not printable UTF-8");
	memcpy(p, it.data, it.value);
	return 0;
}

static int read_blob(struct decoder *d, const struct state_field *f,
		     const struct state_path *path, struct state_blob *b)
{
	struct item it;
	int err = read_item(d, path, ITEM_BYTES, &it);

	if (err < 0)
		return err;
	if (it.value > f->max)
		return state_path_fail(path, d->e, EINVAL, "%" PRIu64 " bytes are more than the most "
				       "there may be, %" PRIu64, it.value, f->max);
	if (!it.value)
		return 0;
	b->data = malloc(it.value);
	if (!b->data)
		return state_path_fail(path, d->e, ENOMEM, "no memory for its %" PRIu64 " bytes",
				       it.value);
	memcpy(b->data, it.data, it.value);
	b->len = (uint32_t)it.value;
	return 0;
}

static int read_bytes(struct decoder *d, const struct state_field *f,
		      const struct state_path *path, uint8_t *p)
{
	struct item it;
	int err = read_item(d, path, ITEM_BYTES, &it);

	if (err < 0)
		return err;
	if (it.value != f->size)
		return state_path_fail(path, d->e, EPROTO, "%" PRIu64 " bytes, not %" PRIu32, it.value,
				       f->size);
	memcpy(p, it.data, f->size);
	return 0;
}

static int read_list(struct decoder *d, const struct state_field *f,
		     const struct state_path *path, struct state_list *l)
{
	struct state_plan plan;
	struct item it;
	int err = read_item(d, path, ITEM_ARRAY, &it);

	if (err < 0)
		return err;
	if (it.value > f->max)
		return state_path_fail(path, d->e, EINVAL, "%" PRIu64 " items are more than the most "
				       "there may be, %" PRIu64, it.value, f->max);
	if (!it.value)
		return 0;
	l->items = calloc(it.value, f->sub->model_size);
	if (!l->items)
		return state_path_fail(path, d->e, ENOMEM, "no memory for its %" PRIu64 " items",
				       it.value);
	l->count = (uint32_t)it.value;
	state_plan(&plan, f->sub, d->version, STATE_ALL);
	for (uint32_t i = 0; i < l->count && err == 0; i++) {
		const struct state_path item = state_path_item(path, i);

		err = read_fields(d, &plan, &item,
				  (uint8_t *)l->items + (size_t)i * f->sub->model_size, STATE_ALL);
	}
	return err;
}

static int read_element(struct decoder *d, const struct state_field *f,
			const struct state_path *path, uint8_t *p)
{
	switch (f->type) {
	case STATE_T_BYTES:
		return read_bytes(d, f, path, p);
	case STATE_T_TEXT:
		return read_text(d, f, path, p);
	case STATE_T_BLOB:
		return read_blob(d, f, path, (struct state_blob *)p);
	case STATE_T_LIST:
		return read_list(d, f, path, (struct state_list *)p);
	default:
		return read_scalar(d, f, path, p);
	}
}

static int read_structs(struct decoder *d, const struct state_field *f,
			const struct state_path *path, uint8_t *p)
{
	struct state_plan plan;
	int err = 0;

	state_plan(&plan, f->sub, d->version, STATE_ALL);
	for (uint32_t i = 0; i < f->count && err == 0; i++) {
		const struct state_path at = state_path_field(path, f, i);

		err = read_fields(d, &plan, &at, p + (size_t)i * f->size, STATE_ALL);
	}
	return err;
}

static int read_field(struct decoder *d, const struct state_field *f,
		      const struct state_path *path, uint8_t *p)
{
	const struct state_path whole = { .up = path, .name = f->name };
	uint32_t n = state_elements(f), size = state_element_size(f);
	int err = n > 1 ? read_count(d, &whole, n) : 0;

	if (err == 0 && f->type == STATE_T_STRUCT)
		return read_structs(d, f, path, p);
	for (uint32_t i = 0; i < n && err == 0; i++) {
		const struct state_path at = state_path_field(path, f, i);

		err = read_element(d, f, &at, p + (size_t)i * size);
	}
	return err;
}

/* A key that no field of this version has. */
static int strange_key(struct decoder *d, const struct state_path *path, const struct item *key,
		       enum state_half half)
{
	char text[STATE_KEY_MAX + 1];
	size_t n = MIN(key->value, (uint64_t)STATE_KEY_MAX);

	if (half != STATE_OPT)
		return state_path_fail(path, d->e, EPROTO, "version %u of record %s has no \"%.*s\"",
				       d->version, d->kind, (int)n, (const char *)key->data);
	memcpy(text, key->data, n);
	text[n] = '\0';
	if (d->skipped)
		d->skipped(d->opaque, d->name, text);
	return item_skip(&d->in, 2, d->e);
}

static int missing_key(struct decoder *d, const struct state_path *path,
		       const struct state_field *f, uint8_t *model, enum state_half half)
{
	if (half != STATE_OPT)
		return state_path_fail(path, d->e, EPROTO, "\"%s\" is missing, which version %u of "
				       "record %s has", f->name, d->version, d->kind);
	state_field_default(f, model + f->offset);
	return 0;
}

/*
 * One map.  Its keys rise, as state_peek has seen, and so do the plan's: both are walked at once.
 */
static int read_fields(struct decoder *d, const struct state_plan *plan,
		       const struct state_path *path, uint8_t *model, enum state_half half)
{
	uint16_t k = 0;
	struct item map, key;
	int err = read_item(d, path, ITEM_MAP, &map);

	for (uint64_t i = 0; err == 0 && i < map.value; i++) {
		const struct state_field *f;
		int order = -1;

		err = item_next_strict(&d->in, &key, d->e);
		for (; err == 0 && k < plan->n; k++) {
			f = plan->key[k].f;
			order = state_key_compare(key.data, key.value, f->name, plan->key[k].len);
			if (order <= 0)
				break;
			err = missing_key(d, path, f, model, half);
			order = -1;
		}
		if (err < 0)
			break;
		if (order) {
			err = strange_key(d, path, &key, half);
			continue;
		}
		f = plan->key[k++].f;
		err = read_field(d, f, path, model + f->offset);
	}
	for (; err == 0 && k < plan->n; k++)
		err = missing_key(d, path, plan->key[k].f, model, half);
	return err;
}

/* ---- Records ---------------------------------------------------------- */

static int read_halves(struct decoder *d, const struct state_record *r, uint8_t *model)
{
	const struct state_path root = { .name = d->name };
	struct state_plan plan;
	struct item it;
	int err = item_next_strict(&d->in, &it, d->e);

	if (err == 0)
		err = next_key(&d->in, "opt", d->e);
	if (err < 0)
		return err;
	state_plan(&plan, r, d->version, STATE_OPT);
	err = read_fields(d, &plan, &root, model, STATE_OPT);
	if (err == 0)
		err = next_key(&d->in, "req", d->e);
	if (err < 0)
		return err;
	state_plan(&plan, r, d->version, STATE_REQ);
	return read_fields(d, &plan, &root, model, STATE_REQ);
}

static int decode(const struct state_record *r, struct decoder *d, void *model)
{
	int err = read_halves(d, r, model);

	if (err < 0)
		return err;
	state_default_absent(r, d->version, model);
	if (d->version == r->version)
		return state_check(r, d->name, model, NULL, d->e);
	if (r->upgrade)
		r->upgrade(model, d->version);
	state_default_absent(r, r->version, model);
	err = state_check(r, d->name, model, NULL, d->e);
	if (err < 0)
		skep_error_prefix(d->e, "completed from version %u", d->version);
	return err;
}

int state_decode(const struct state_record *r, const char *name, const uint8_t *data, size_t len,
		 void *model, state_skipped_fn *skipped, void *opaque, struct skep_error *e)
{
	struct decoder d = { .in = { data, len, 0 }, .kind = r->kind, .name = name,
			     .skipped = skipped, .opaque = opaque, .e = e };
	struct state_head head;
	int err = state_peek(data, len, &head, e);

	if (err < 0) {
		skep_error_prefix(e, "%s", name);
		return err;
	}
	if (strcmp(head.kind, r->kind) || strcmp(head.name, name))
		return skep_fail(e, EPROTO, "%s: a record %s belongs here, not \"%s\" of kind %s", name,
				 r->kind, head.name, head.kind);
	if (head.version > r->version)
		return skep_fail(e, EPROTO, "%s: version %u of record %s is newer than this release "
				 "knows, which is %u", name, head.version, r->kind, r->version);
	d.version = head.version;
	err = decode(r, &d, model);
	if (err < 0)
		state_free(r, model);
	return err;
}
