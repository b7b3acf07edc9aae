#include "state/item.h"

#include <errno.h>
#include <inttypes.h>

#include <cbor.h>

#include "state/fields.h"

static void put(void *it, enum item_type type, uint64_t value)
{
	*(struct item *)it = (struct item){ .type = type, .value = value };
}

static void put_string(void *it, enum item_type type, cbor_data p, size_t n)
{
	*(struct item *)it = (struct item){ .type = type, .value = n, .data = p };
}

static void put_number(void *it, double v)
{
	*(struct item *)it = (struct item){ .type = ITEM_FLOAT, .number = v };
}

static void on_uint8(void *it, uint8_t v) { put(it, ITEM_UINT, v); }
static void on_uint16(void *it, uint16_t v) { put(it, ITEM_UINT, v); }
static void on_uint32(void *it, uint32_t v) { put(it, ITEM_UINT, v); }
static void on_uint64(void *it, uint64_t v) { put(it, ITEM_UINT, v); }
static void on_neg8(void *it, uint8_t v) { put(it, ITEM_NEGATIVE, v); }
static void on_neg16(void *it, uint16_t v) { put(it, ITEM_NEGATIVE, v); }
static void on_neg32(void *it, uint32_t v) { put(it, ITEM_NEGATIVE, v); }
static void on_neg64(void *it, uint64_t v) { put(it, ITEM_NEGATIVE, v); }
static void on_bytes(void *it, cbor_data p, size_t n) { put_string(it, ITEM_BYTES, p, n); }
static void on_text(void *it, cbor_data p, size_t n) { put_string(it, ITEM_TEXT, p, n); }
static void on_array(void *it, size_t n) { put(it, ITEM_ARRAY, n); }
static void on_map(void *it, size_t n) { put(it, ITEM_MAP, n); }
static void on_tag(void *it, uint64_t v) { put(it, ITEM_TAG, v); }
static void on_bool(void *it, bool v) { put(it, ITEM_BOOL, v); }
static void on_float(void *it, float v) { put_number(it, v); }
static void on_double(void *it, double v) { put_number(it, v); }
static void on_null(void *it) { put(it, ITEM_NULL, 0); }
static void on_undefined(void *it) { put(it, ITEM_UNDEFINED, 0); }
static void on_bytes_parts(void *it) { put(it, ITEM_BYTES_PARTS, 0); }
static void on_text_parts(void *it) { put(it, ITEM_TEXT_PARTS, 0); }
static void on_array_open(void *it) { put(it, ITEM_ARRAY_OPEN, 0); }
static void on_map_open(void *it) { put(it, ITEM_MAP_OPEN, 0); }
static void on_break(void *it) { put(it, ITEM_BREAK, 0); }

static const struct cbor_callbacks callbacks = {
	.uint8 = on_uint8, .uint16 = on_uint16, .uint32 = on_uint32, .uint64 = on_uint64,
	.negint8 = on_neg8, .negint16 = on_neg16, .negint32 = on_neg32, .negint64 = on_neg64,
	.byte_string = on_bytes, .byte_string_start = on_bytes_parts,
	.string = on_text, .string_start = on_text_parts,
	.array_start = on_array, .indef_array_start = on_array_open,
	.map_start = on_map, .indef_map_start = on_map_open,
	.tag = on_tag, .float2 = on_float, .float4 = on_float, .float8 = on_double,
	.undefined = on_undefined, .null = on_null, .boolean = on_bool, .indef_break = on_break,
};

const char *item_type_text(enum item_type t)
{
	static const char *const text[] = {
		[ITEM_UINT] = "an unsigned number", [ITEM_NEGATIVE] = "a negative number",
		[ITEM_BYTES] = "a byte string", [ITEM_TEXT] = "a text", [ITEM_ARRAY] = "an array",
		[ITEM_MAP] = "a map", [ITEM_BOOL] = "a boolean", [ITEM_TAG] = "a tag",
		[ITEM_FLOAT] = "a floating-point number", [ITEM_NULL] = "null",
		[ITEM_UNDEFINED] = "undefined", [ITEM_BYTES_PARTS] = "a byte string in parts",
		[ITEM_TEXT_PARTS] = "a text in parts", [ITEM_ARRAY_OPEN] = "an array without a length",
		[ITEM_MAP_OPEN] = "a map without a length", [ITEM_BREAK] = "a break",
	};

	return (size_t)t < ARRAY_SIZE(text) ? text[t] : "something else";
}

int item_next(struct item_reader *in, struct item *it, struct skep_error *e)
{
	struct cbor_decoder_result r;

	*it = (struct item){ .type = ITEM_UNDEFINED };
	r = cbor_stream_decode(in->data + in->pos, in->len - in->pos, &callbacks, it);
	switch (r.status) {
	case CBOR_DECODER_FINISHED:
		in->pos += r.read;
		return 0;
	case CBOR_DECODER_NEDATA:
		return skep_fail(e, EBADMSG, "byte %zu: it ends in the middle of an item", in->pos);
	default:
		return skep_fail(e, EBADMSG, "byte %zu: this is not CBOR", in->pos);
	}
}

/* Bytes of the shortest head for this number. */
static size_t head_size(uint64_t v)
{
	return v < 24 ? 1 : v <= UINT8_MAX ? 2 : v <= UINT16_MAX ? 3 : v <= UINT32_MAX ? 5 : 9;
}

int item_next_strict(struct item_reader *in, struct item *it, struct skep_error *e)
{
	size_t at = in->pos, used, left;
	int err = item_next(in, it, e);

	if (err < 0)
		return err;
	used = in->pos - at;
	left = in->len - in->pos;
	switch (it->type) {
	case ITEM_BYTES:
	case ITEM_TEXT:
		used -= it->value;
		break;
	case ITEM_UINT:
	case ITEM_NEGATIVE:
		break;
	case ITEM_ARRAY:
	case ITEM_MAP:
		if (it->value > (it->type == ITEM_MAP ? left / 2 : left))
			return skep_fail(e, EBADMSG, "byte %zu: %s of %" PRIu64 " items, but only %zu "
					 "bytes follow", at, item_type_text(it->type), it->value, left);
		break;
	case ITEM_BOOL:
		return 0;
	default:
		return skep_fail(e, EBADMSG, "byte %zu: %s, which no record has", at,
				 item_type_text(it->type));
	}
	if (used != head_size(it->value))
		return skep_fail(e, EBADMSG, "byte %zu: %s is not in its shortest form", at,
				 item_type_text(it->type));
	return 0;
}

static int skip_map(struct item_reader *in, uint64_t n, unsigned depth, struct skep_error *e)
{
	struct item key, last = { .type = ITEM_NULL };

	for (uint64_t i = 0; i < n; i++, last = key) {
		size_t at = in->pos;
		int err = item_next_strict(in, &key, e);

		if (err < 0)
			return err;
		if (key.type != ITEM_TEXT || !state_text_ok(key.data, key.value))
			return skep_fail(e, EBADMSG, "byte %zu: a key is not printable text", at);
		if (i && state_key_compare(last.data, last.value, key.data, key.value) >= 0)
			return skep_fail(e, EBADMSG, "byte %zu: the key \"%.*s\" is there twice or out "
					 "of order", at, (int)MIN(key.value, 64u), (const char *)key.data);
		err = item_skip(in, depth, e);
		if (err < 0)
			return err;
	}
	return 0;
}

int item_skip(struct item_reader *in, unsigned depth, struct skep_error *e)
{
	size_t at = in->pos;
	struct item it;
	int err = item_next_strict(in, &it, e);

	if (err < 0)
		return err;
	if (it.type == ITEM_TEXT && !state_text_ok(it.data, it.value))
		return skep_fail(e, EBADMSG, "byte %zu: a text is not printable UTF-8", at);
	if (it.type != ITEM_ARRAY && it.type != ITEM_MAP)
		return 0;
	if (depth >= CBOR_DEPTH_MAX)
		return skep_fail(e, EBADMSG, "byte %zu: more than %u items within each other", at,
				 CBOR_DEPTH_MAX);
	if (it.type == ITEM_MAP)
		return skip_map(in, it.value, depth + 1, e);
	for (uint64_t i = 0; i < it.value && err == 0; i++)
		err = item_skip(in, depth + 1, e);
	return err;
}

/* The parts of a string: each of the same type, with a length. */
static int pass_parts(struct item_reader *in, enum item_type part, struct skep_error *e)
{
	struct item it;
	int err;

	for (;;) {
		size_t at = in->pos;

		err = item_next(in, &it, e);
		if (err < 0 || it.type == ITEM_BREAK)
			return err;
		if (it.type != part)
			return skep_fail(e, EBADMSG, "byte %zu: %s is no part of a string", at,
					 item_type_text(it.type));
	}
}

/* What the head announced; open: until a break. */
static int pass_items(struct item_reader *in, const struct item *head, bool open, bool map,
		      unsigned depth, struct skep_error *e)
{
	int err = 0;

	for (uint64_t i = 0; err == 0 && (open || i < head->value); i++) {
		if (open && in->pos < in->len && in->data[in->pos] == CBOR_BREAK) {
			in->pos++;
			return 0;
		}
		err = item_pass(in, depth, e);
		if (err == 0 && map)
			err = item_pass(in, depth, e);
	}
	return err;
}

int item_pass(struct item_reader *in, unsigned depth, struct skep_error *e)
{
	size_t at = in->pos;
	struct item it;
	int err = item_next(in, &it, e);

	if (err < 0)
		return err;
	if (depth > CBOR_DEPTH_MAX)
		return skep_fail(e, EBADMSG, "byte %zu: more than %u items within each other", at,
				 CBOR_DEPTH_MAX);
	switch (it.type) {
	case ITEM_ARRAY:
	case ITEM_ARRAY_OPEN:
		return pass_items(in, &it, it.type == ITEM_ARRAY_OPEN, false, depth + 1, e);
	case ITEM_MAP:
	case ITEM_MAP_OPEN:
		return pass_items(in, &it, it.type == ITEM_MAP_OPEN, true, depth + 1, e);
	case ITEM_BYTES_PARTS:
		return pass_parts(in, ITEM_BYTES, e);
	case ITEM_TEXT_PARTS:
		return pass_parts(in, ITEM_TEXT, e);
	case ITEM_TAG:
		return item_pass(in, depth + 1, e);
	case ITEM_BREAK:
		return skep_fail(e, EBADMSG, "byte %zu: a break where nothing is open", at);
	default:
		return 0;
	}
}
