/* Models and unknown records as JSON. */
#include <errno.h>
#include <inttypes.h>
#include <math.h>

#include "state/codec.h"
#include "state/fields.h"
#include "state/item.h"

static void line(FILE *out, unsigned indent)
{
	fprintf(out, "\n%*s", (int)indent, "");
}

static void json_hex(FILE *out, const uint8_t *p, size_t n)
{
	fputc('"', out);
	for (size_t i = 0; i < n; i++)
		fprintf(out, "%02x", p[i]);
	fputc('"', out);
}

/* What is no printable UTF-8 is shown byte by byte, as if it were Latin-1. */
static void json_text(FILE *out, const void *text, size_t len)
{
	const uint8_t *s = text;
	bool utf8 = state_text_ok(text, len);

	fputc('"', out);
	for (size_t i = 0; i < len; i++) {
		if (s[i] == '"' || s[i] == '\\')
			fprintf(out, "\\%c", s[i]);
		else if (s[i] < 0x20 || s[i] == 0x7f || (!utf8 && s[i] >= 0x80))
			fprintf(out, "\\u%04x", s[i]);
		else
			fputc(s[i], out);
	}
	fputc('"', out);
}

/* ---- Models ----------------------------------------------------------- */

static void json_models(FILE *out, const struct state_record *r, const uint8_t *models, uint32_t n,
			unsigned indent)
{
	fputc('[', out);
	for (uint32_t i = 0; i < n; i++) {
		if (i)
			fputc(',', out);
		line(out, indent + 2);
		state_json(out, r, models + (size_t)i * r->model_size, indent + 2);
	}
	if (n)
		line(out, indent);
	fputc(']', out);
}

static void json_element(FILE *out, const struct state_field *f, const uint8_t *p, unsigned indent)
{
	const struct state_blob *b = (const struct state_blob *)p;
	const struct state_list *l = (const struct state_list *)p;

	switch (f->type) {
	case STATE_T_STRUCT:
		state_json(out, f->sub, p, indent);
		return;
	case STATE_T_LIST:
		json_models(out, f->sub, l->items, l->count, indent);
		return;
	case STATE_T_BYTES:
		json_hex(out, p, f->size);
		return;
	case STATE_T_BLOB:
		json_hex(out, b->data, b->len);
		return;
	case STATE_T_TEXT:
		json_text(out, p, strnlen((const char *)p, f->size));
		return;
	case STATE_T_BOOL:
		fputs(*p ? "true" : "false", out);
		return;
	case STATE_T_TIME:
		fprintf(out, "%" PRId64, (int64_t)load64(p));
		return;
	default:
		fprintf(out, "%" PRIu64, state_scalar_get(p, state_scalar_size(f->type)));
		return;
	}
}

static void json_field(FILE *out, const struct state_field *f, const uint8_t *p, unsigned indent)
{
	uint32_t n = state_elements(f);

	if (n == 1) {
		json_element(out, f, p, indent);
		return;
	}
	if (f->type == STATE_T_STRUCT) {
		json_models(out, f->sub, p, n, indent);
		return;
	}
	fputc('[', out);
	for (uint32_t i = 0; i < n; i++) {
		if (i)
			fputs(", ", out);
		json_element(out, f, p + (size_t)i * state_element_size(f), indent);
	}
	fputc(']', out);
}

void state_json(FILE *out, const struct state_record *r, const void *model, unsigned indent)
{
	bool any = false;

	fputc('{', out);
	for (size_t k = 0; k < r->nfields; k++) {
		const struct state_field *f = &r->fields[k];

		if (f->until)	/* no longer part of the machine */
			continue;
		if (any)
			fputc(',', out);
		any = true;
		line(out, indent + 2);
		fprintf(out, "\"%s\": ", f->name);
		json_field(out, f, (const uint8_t *)model + f->offset, indent + 2);
	}
	if (any)
		line(out, indent);
	fputc('}', out);
}

/* ---- Any CBOR --------------------------------------------------------- */

/* All of it is well formed, as item_pass has seen: what is read here cannot fail. */
struct viewer {
	FILE *out;
	struct item_reader in;
	struct skep_error e;
};

static void view(struct viewer *v, unsigned indent);

static struct item view_next(struct viewer *v)
{
	struct item it;

	if (item_next(&v->in, &it, &v->e) < 0)
		it.type = ITEM_BREAK;
	return it;
}

/* Is there one more of what the head announced?  The break of an open one is passed over. */
static bool view_more(struct viewer *v, const struct item *head, bool open, uint64_t i)
{
	if (!open)
		return i < head->value;
	if (v->in.pos < v->in.len && v->in.data[v->in.pos] != CBOR_BREAK)
		return true;
	v->in.pos++;
	return false;
}

static void view_integer(FILE *out, const struct item *it)
{
	if (it->type == ITEM_UINT)
		fprintf(out, "%" PRIu64, it->value);
	else if (it->value == UINT64_MAX)
		fputs("-18446744073709551616", out);
	else
		fprintf(out, "-%" PRIu64, it->value + 1);
}

static void view_array(struct viewer *v, const struct item *head, unsigned indent)
{
	fputc('[', v->out);
	for (uint64_t i = 0; view_more(v, head, head->type == ITEM_ARRAY_OPEN, i); i++) {
		if (i)
			fputs(", ", v->out);
		view(v, indent);
	}
	fputc(']', v->out);
}

/* JSON's keys are text: a number is written as text, and anything else as the hex of its CBOR. */
static void view_key(struct viewer *v)
{
	size_t at = v->in.pos;
	struct item it = view_next(v);

	switch (it.type) {
	case ITEM_TEXT:
		json_text(v->out, it.data, it.value);
		return;
	case ITEM_UINT:
	case ITEM_NEGATIVE:
		fputc('"', v->out);
		view_integer(v->out, &it);
		fputc('"', v->out);
		return;
	default:
		v->in.pos = at;
		if (item_pass(&v->in, 0, &v->e) < 0)
			v->in.pos = v->in.len;
		json_hex(v->out, v->in.data + at, v->in.pos - at);
		return;
	}
}

static void view_map(struct viewer *v, const struct item *head, unsigned indent)
{
	uint64_t i = 0;

	fputc('{', v->out);
	for (; view_more(v, head, head->type == ITEM_MAP_OPEN, i); i++) {
		if (i)
			fputc(',', v->out);
		line(v->out, indent + 2);
		view_key(v);
		fputs(": ", v->out);
		view(v, indent + 2);
	}
	if (i)
		line(v->out, indent);
	fputc('}', v->out);
}

/* A string in parts, as an array of them. */
static void view_parts(struct viewer *v, const struct item *head)
{
	fputc('[', v->out);
	for (uint64_t i = 0; view_more(v, head, true, i); i++) {
		if (i)
			fputs(", ", v->out);
		view(v, 0);
	}
	fputc(']', v->out);
}

static void view(struct viewer *v, unsigned indent)
{
	struct item it = view_next(v);

	switch (it.type) {
	case ITEM_UINT:
	case ITEM_NEGATIVE:
		view_integer(v->out, &it);
		return;
	case ITEM_BYTES:
		json_hex(v->out, it.data, it.value);
		return;
	case ITEM_TEXT:
		json_text(v->out, it.data, it.value);
		return;
	case ITEM_ARRAY:
	case ITEM_ARRAY_OPEN:
		view_array(v, &it, indent);
		return;
	case ITEM_MAP:
	case ITEM_MAP_OPEN:
		view_map(v, &it, indent);
		return;
	case ITEM_BYTES_PARTS:
	case ITEM_TEXT_PARTS:
		view_parts(v, &it);
		return;
	case ITEM_TAG:
		fprintf(v->out, "{\"tag\": %" PRIu64 ", \"value\": ", it.value);
		view(v, indent);
		fputc('}', v->out);
		return;
	case ITEM_BOOL:
		fputs(it.value ? "true" : "false", v->out);
		return;
	case ITEM_FLOAT:
		if (isfinite(it.number))
			fprintf(v->out, "%.17g", it.number);
		else
			fprintf(v->out, "\"%s\"", isnan(it.number) ? "nan" :
				it.number < 0 ? "-inf" : "inf");
		return;
	default:
		fputs("null", v->out);
		return;
	}
}

int state_json_cbor(FILE *out, const uint8_t *data, size_t len, unsigned indent,
		    struct skep_error *e)
{
	struct viewer v = { .out = out, .in = { data, len, 0 } };
	int err = item_pass(&v.in, 0, e);

	if (err < 0)
		return err;
	if (v.in.pos != len)
		return skep_fail(e, EBADMSG, "%zu bytes are left over behind the CBOR",
				 len - v.in.pos);
	v.in.pos = 0;
	view(&v, indent);
	return 0;
}
