/* Elements, names of places, defaults and copies: what the other files of this room build on. */
#include "state/fields.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>

unsigned state_scalar_size(enum state_type t)
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

uint64_t state_scalar_get(const void *p, unsigned size)
{
	switch (size) {
	case 1: return *(const uint8_t *)p;
	case 2: return load16(p);
	case 4: return load32(p);
	default: return load64(p);
	}
}

void state_scalar_set(void *p, unsigned size, uint64_t v)
{
	switch (size) {
	case 1: memcpy(p, &v, 1); return;
	case 2: store16(p, (uint16_t)v); return;
	case 4: store32(p, (uint32_t)v); return;
	default: store64(p, v); return;
	}
}

uint64_t state_scalar_max(const struct state_field *f)
{
	if (f->type == STATE_T_BOOL)
		return 1;
	if (f->max)
		return f->max;
	return UINT64_MAX >> (64 - 8 * state_scalar_size(f->type));
}

/* ---- Names of places -------------------------------------------------- */

static size_t path_write(const struct state_path *path, char *buf, size_t at)
{
	int n;

	if (path->up)
		at = path_write(path->up, buf, at);
	if (at >= STATE_PATH_TEXT - 1)
		return at;
	n = path->name ? snprintf(buf + at, STATE_PATH_TEXT - at, "%s%s", at ? "." : "", path->name) : 0;
	at = MIN(at + (size_t)n, (size_t)STATE_PATH_TEXT - 1);
	if (!path->indexed)
		return at;
	n = snprintf(buf + at, STATE_PATH_TEXT - at, "[%" PRIu32 "]", path->index);
	return MIN(at + (size_t)n, (size_t)STATE_PATH_TEXT - 1);
}

const char *state_path_text(const struct state_path *path, char *buf)
{
	buf[0] = '\0';
	path_write(path, buf, 0);
	return buf;
}

int state_path_fail(const struct state_path *path, struct skep_error *e, int err, const char *fmt,
		    ...)
{
	char name[STATE_PATH_TEXT], what[SKEP_ERROR_TEXT];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(what, sizeof(what), fmt, ap);
	va_end(ap);
	return skep_fail(e, err, "%s: %s", state_path_text(path, name), what);
}

/* ---- Text ------------------------------------------------------------- */

/* Bytes of the UTF-8 character at s, 0 if there is none; its number in *c. */
static size_t utf8_one(const uint8_t *s, size_t len, uint32_t *c)
{
	static const uint32_t least[] = { 0, 0, 0x80, 0x800, 0x10000 };
	size_t n = s[0] < 0x80 ? 1 : s[0] >= 0xc2 && s[0] < 0xe0 ? 2 : (s[0] & 0xf0) == 0xe0 ? 3 :
		   (s[0] & 0xf8) == 0xf0 ? 4 : 0;

	if (!n || n > len)
		return 0;
	*c = n == 1 ? s[0] : s[0] & (0xff >> (n + 1));
	for (size_t i = 1; i < n; i++) {
		if ((s[i] & 0xc0) != 0x80)
			return 0;
		*c = *c << 6 | (s[i] & 0x3f);
	}
	if (*c < least[n] || *c > 0x10ffff || (*c >= 0xd800 && *c < 0xe000))
		return 0;
	return n;
}

bool state_text_ok(const void *text, size_t len)
{
	const uint8_t *s = text;
	size_t n;
	uint32_t c;

	for (; len; s += n, len -= n) {
		n = utf8_one(s, len, &c);
		if (!n || c < 0x20 || (c >= 0x7f && c < 0xa0))
			return false;
	}
	return true;
}

/* ---- Defaults and copies ---------------------------------------------- */

static void free_element(const struct state_field *f, void *p)
{
	struct state_blob *b = p;
	struct state_list *l = p;

	switch (f->type) {
	case STATE_T_BLOB:
		free(b->data);
		break;
	case STATE_T_LIST:
		for (uint32_t i = 0; i < l->count; i++)
			state_free(f->sub, (uint8_t *)l->items + (size_t)i * f->sub->model_size);
		free(l->items);
		break;
	case STATE_T_STRUCT:
		state_free(f->sub, p);
		return;
	default:
		break;
	}
	memset(p, 0, state_element_size(f));
}

void state_free(const struct state_record *r, void *model)
{
	for (size_t k = 0; k < r->nfields; k++) {
		const struct state_field *f = &r->fields[k];

		for (uint32_t i = 0; i < state_elements(f); i++)
			free_element(f, (uint8_t *)model + f->offset +
				     (size_t)i * state_element_size(f));
	}
	if (r->model_size)
		memset(model, 0, r->model_size);
}

void state_field_default(const struct state_field *f, void *p)
{
	unsigned unit = state_scalar_size(f->type);
	uint8_t *at = p;

	for (uint32_t i = 0; i < state_elements(f); i++, at += state_element_size(f)) {
		free_element(f, at);
		if (unit)
			state_scalar_set(at, unit, f->def);
		for (size_t k = 0; f->type == STATE_T_STRUCT && k < f->sub->nfields; k++)
			state_field_default(&f->sub->fields[k], at + f->sub->fields[k].offset);
	}
}

static bool element_is_default(const struct state_field *f, const uint8_t *p)
{
	unsigned unit = state_scalar_size(f->type);

	if (unit)
		return state_scalar_get(p, unit) == f->def;
	switch (f->type) {
	case STATE_T_TEXT:
		return !p[0];
	case STATE_T_BLOB:
		return !((const struct state_blob *)p)->len;
	case STATE_T_LIST:
		return !((const struct state_list *)p)->count;
	case STATE_T_STRUCT:
		for (size_t k = 0; k < f->sub->nfields; k++)
			if (!state_field_is_default(&f->sub->fields[k],
						    p + f->sub->fields[k].offset))
				return false;
		return true;
	default:
		for (uint32_t i = 0; i < f->size; i++)
			if (p[i])
				return false;
		return true;
	}
}

bool state_field_is_default(const struct state_field *f, const void *p)
{
	const uint8_t *at = p;

	for (uint32_t i = 0; i < state_elements(f); i++, at += state_element_size(f))
		if (!element_is_default(f, at))
			return false;
	return true;
}

static void default_absent_in(const struct state_field *f, uint16_t version, uint8_t *p)
{
	struct state_list *l = (struct state_list *)p;

	if (f->type == STATE_T_STRUCT)
		state_default_absent(f->sub, version, p);
	for (uint32_t i = 0; f->type == STATE_T_LIST && i < l->count; i++)
		state_default_absent(f->sub, version,
				     (uint8_t *)l->items + (size_t)i * f->sub->model_size);
}

void state_default_absent(const struct state_record *r, uint16_t version, void *model)
{
	for (size_t k = 0; k < r->nfields; k++) {
		const struct state_field *f = &r->fields[k];
		uint8_t *p = (uint8_t *)model + f->offset;

		if (!state_has(f, version))
			state_field_default(f, p);
		else if (f->sub)
			for (uint32_t i = 0; i < f->count; i++)
				default_absent_in(f, version, p + (size_t)i * f->size);
	}
}

/* The element at p was copied byte by byte: what it points to becomes its own, or nothing. */
static int own_element(const struct state_field *f, uint8_t *p);

static int own_model(const struct state_record *r, uint8_t *model)
{
	int err = 0;

	/* To the end even after a failure: nothing that is not ours may stay in it. */
	for (size_t k = 0; k < r->nfields; k++) {
		const struct state_field *f = &r->fields[k];

		if (state_scalar_size(f->type))
			continue;
		for (uint32_t i = 0; i < f->count; i++)
			if (own_element(f, model + f->offset + (size_t)i * f->size) < 0)
				err = -ENOMEM;
	}
	return err;
}

static int own_element(const struct state_field *f, uint8_t *p)
{
	struct state_blob *b = (struct state_blob *)p;
	struct state_list *l = (struct state_list *)p;
	void *copy;
	int err = 0;

	switch (f->type) {
	case STATE_T_STRUCT:
		return own_model(f->sub, p);
	case STATE_T_BLOB:
		copy = b->len ? malloc(b->len) : NULL;
		if (copy)
			memcpy(copy, b->data, b->len);
		err = b->len && !copy ? -ENOMEM : 0;
		*b = (struct state_blob){ copy, copy ? b->len : 0 };
		return err;
	case STATE_T_LIST:
		copy = l->count ? calloc(l->count, f->sub->model_size) : NULL;
		if (copy)
			memcpy(copy, l->items, (size_t)l->count * f->sub->model_size);
		err = l->count && !copy ? -ENOMEM : 0;
		*l = (struct state_list){ copy, copy ? l->count : 0 };
		for (uint32_t i = 0; i < l->count; i++)
			if (own_model(f->sub, (uint8_t *)copy + (size_t)i * f->sub->model_size) < 0)
				err = -ENOMEM;
		return err;
	default:
		return 0;
	}
}

int state_copy(const struct state_record *r, void *dst, const void *src)
{
	if (r->model_size)
		memcpy(dst, src, r->model_size);
	if (own_model(r, dst) == 0)
		return 0;
	state_free(r, dst);
	return -ENOMEM;
}

/* ---- Order of keys ---------------------------------------------------- */

int state_key_compare(const void *a, size_t alen, const void *b, size_t blen)
{
	if (alen != blen)
		return alen < blen ? -1 : 1;
	return memcmp(a, b, alen);
}

void state_plan(struct state_plan *plan, const struct state_record *r, uint16_t version,
		enum state_half half)
{
	plan->n = 0;
	for (size_t k = 0; k < r->nfields && k < STATE_FIELDS_MAX; k++) {
		const struct state_field *f = &r->fields[k];
		uint8_t len;
		size_t i;

		if (!state_has(f, version) || (half != STATE_ALL && f->opt != (half == STATE_OPT)))
			continue;
		len = (uint8_t)strlen(f->name);
		for (i = plan->n; i > 0; i--) {
			if (state_key_compare(plan->key[i - 1].f->name, plan->key[i - 1].len,
					      f->name, len) < 0)
				break;
			plan->key[i] = plan->key[i - 1];
		}
		plan->key[i].f = f;
		plan->key[i].len = len;
		plan->n++;
	}
}
