/* Models shown, compared, checked against a machine, freed; and tables with mistakes. */
#include "codec_helper.h"

#include <jansson.h>

static char *captured(void (*show)(FILE *out, const void *p), const void *p)
{
	char *text = NULL;
	size_t len;
	FILE *f = open_memstream(&text, &len);

	assert_non_null(f);
	show(f, p);
	fclose(f);
	return text;
}

static void show_json(FILE *out, const void *p) { state_json(out, &hive_record, p, 0); }
static void show_dump(FILE *out, const void *p) { state_dump(out, "h", &hive_record, p); }

static void json(void **state)
{
	struct hive h = hive_sample();
	char *text;
	json_t *j, *bee;
	json_error_t err;

	strcpy(h.label, "a\"b\\c\xc3\xb6");
	h.u64 = INT64_MAX;	/* jansson has no unsigned numbers */
	text = captured(show_json, &h);
	j = json_loads(text, 0, &err);
	if (!j)
		fail_msg("%s: %s", err.text, text);
	assert_string_equal(json_string_value(json_object_get(j, "label")), "a\"b\\c\xc3\xb6");
	assert_string_equal(json_string_value(json_object_get(j, "raw")), "00ab01");
	assert_string_equal(json_string_value(json_array_get(json_object_get(j, "rows"), 1)), "65666768");
	assert_int_equal(json_integer_value(json_object_get(j, "when")), -5);
	assert_true(json_is_true(json_array_get(json_object_get(j, "flags"), 1)));
	assert_int_equal(json_array_size(json_object_get(j, "matrix")), 6);
	assert_int_equal(json_array_size(json_object_get(j, "guests")), 0);
	assert_null(json_object_get(j, "turbo"));	/* retired */
	bee = json_array_get(json_object_get(j, "bees"), 1);
	assert_string_equal(json_string_value(json_object_get(bee, "load")), "706f6c6c656e");
	assert_int_equal(json_integer_value(json_object_get(json_array_get(json_object_get(j, "rooms"), 0),
							    "width")), 1);
	assert_non_null(strstr(text, "\"u64\": 9223372036854775807,\n"));
	json_decref(j);
	free(text);
	state_free(&hive_record, &h);
}

static void dump(void **state)
{
	struct hive h = hive_sample();
	char *text = captured(show_dump, &h);

	assert_non_null(strstr(text, "h.label = K\xc3\xb6nigin 1\nh.honey = 737765657400737469636b79\n"
				     "h.bees = 2 items\nh.bees[0].name = Ada\nh.bees[0].age = 0x190\n"
				     "h.bees[0].load = \nh.bees[1].name = elevenbytes\n"));
	assert_non_null(strstr(text, "h.queue = 0x7000\nh.door.width = 0x9\n"));
	assert_non_null(strstr(text, "h.guests = 0 items\n"));
	assert_null(strstr(text, "speed_khz"));
	free(text);
	state_free(&hive_record, &h);
}

/* ---- CBOR that nobody knows ------------------------------------------- */

struct bytes { const char *data; size_t len; };

static void show_cbor(FILE *out, const void *p)
{
	const struct bytes *b = p;
	struct skep_error e;

	if (state_json_cbor(out, (const uint8_t *)b->data, b->len, 0, &e) < 0)
		fprintf(out, "!%s", e.text);
}

static void assert_shown(const char *data, size_t len, const char *want)
{
	const struct bytes b = { data, len };
	char *text = captured(show_cbor, &b);

	assert_string_equal(text, want);
	free(text);
}
#define SHOWN(data, want) assert_shown(data, sizeof(data) - 1, want)

static void any_cbor(void **state)
{
	SHOWN("\x00", "0");
	SHOWN("\x1b\xff\xff\xff\xff\xff\xff\xff\xff", "18446744073709551615");
	SHOWN("\x3b\xff\xff\xff\xff\xff\xff\xff\xff", "-18446744073709551616");
	SHOWN("\x20", "-1");
	SHOWN("\x83\x01\x18\x01\x40", "[1, 1, \"\"]");
	SHOWN("\x9f\x01\x9f\xff\xff", "[1, []]");
	SHOWN("\x5f\x42\1\2\x41\3\xff", "[\"0102\", \"03\"]");
	SHOWN("\x62\"\\", "\"\\\"\\\\\"");
	SHOWN("\x63" "a\n\xff", "\"a\\u000a\\u00ff\"");
	SHOWN("\xc2\xf6", "{\"tag\": 2, \"value\": null}");
	SHOWN("\x84\xf4\xf5\xf7\xf9\x3c\x00", "[false, true, null, 1]");
	SHOWN("\x82\xf9\x7c\x00\xf9\x7e\x00", "[\"inf\", \"nan\"]");
	SHOWN("\xa3\x01\x02\x61k\x20\x81\x00\xa0", "{\n  \"1\": 2,\n  \"k\": -1,\n  \"8100\": {}\n}");
	SHOWN("\xbf\x61k\x9f\xff\xff", "{\n  \"k\": []\n}");
	SHOWN("", "!byte 0: it ends in the middle of an item");
	SHOWN("\x01\x02", "!1 bytes are left over behind the CBOR");
	SHOWN("\xff", "!byte 0: a break where nothing is open");
	SHOWN("\x81\xff", "!byte 1: a break where nothing is open");
	SHOWN("\x5f\x61k\xff", "!byte 1: a text is no part of a string");
	SHOWN("\x9b\xff\xff\xff\xff\xff\xff\xff\xff\x01", "!byte 10: it ends in the middle of an item");
	SHOWN("\xbf\x01\xff", "!byte 2: a break where nothing is open");
	SHOWN("\x1c", "!byte 0: this is not CBOR");
}

/* Every record is CBOR: both views say the same of it. */
static void known_and_unknown(void **state)
{
	struct hive h = hive_sample();
	struct state_buf b;
	struct bytes bytes;
	char *known, *unknown;
	json_t *a, *c, *req, *value;
	const char *key;

	h.u64 = INT64_MAX;	/* jansson has no unsigned numbers */
	b = hive_bytes(&h, 3);
	bytes = (struct bytes){ (const char *)b.data, b.len };
	known = captured(show_json, &h);
	unknown = captured(show_cbor, &bytes);
	a = json_loads(known, 0, NULL);
	c = json_loads(unknown, 0, NULL);
	assert_non_null(a);
	assert_non_null(c);
	req = json_object_get(c, "req");
	json_object_foreach(req, key, value)
		if (!json_equal(value, json_object_get(a, key)))
			fail_msg("%s differs", key);
	assert_int_equal(json_object_size(req) + 1, json_object_size(a));
	json_decref(a);
	json_decref(c);
	free(known);
	free(unknown);
	state_buf_free(&b);
	state_free(&hive_record, &h);
}

/* ---- Differences ------------------------------------------------------ */

static void on_difference(void *opaque, const char *field, const char *a, const char *b, bool host)
{
	fprintf(opaque, "%s: %s | %s%s\n", field, a, b, host ? " (host)" : "");
}

static void show_diff(FILE *out, const void *p)
{
	const struct hive *const *h = p;

	state_diff(&hive_record, h[0], h[1], on_difference, out);
}

static void differences(void **state)
{
	struct hive a = hive_sample(), b = hive_sample();
	const struct hive *both[] = { &a, &b };
	char *text = captured(show_diff, both);

	assert_string_equal(text, "");
	free(text);
	b.u8 = 1;
	b.flags[2] = true;
	b.since[1] = -1;
	b.rows[1][3] = 0;
	b.matrix[1][2]++;
	strcpy(b.label, "other");
	b.honey.data[0] = 'S';
	b.honey.len = 5;
	b.rooms[1].cells[0] = 0;
	b.turbo = 1;		/* retired: nobody cares */
	((struct bee *)b.bees.items)[0].age = 7;
	((struct bee *)b.bees.items)[1].load.data[5] = 0;
	text = captured(show_diff, both);
	assert_string_equal(text,
		"u8: 0xff | 0x1\nflags[2]: false | true\nsince[1]: 9223372036854775807 | -1\n"
		"rows[1]: 65666768 | 65666700\nmatrix[5]: 0x88b8 | 0x88b9\n"
		"label: \"K\xc3\xb6nigin 1\" | \"other\" (host)\n"
		"honey: 737765657400737469636b79 | 5377656574\n"
		"bees[0].age: 0x190 | 0x7\nbees[1].load: 706f6c6c656e | 706f6c6c6500\n"
		"rooms[1].cells[0]: 0x100 | 0x0\n");
	free(text);
	state_free(&hive_record, &b);
	text = captured(show_diff, both);
	assert_non_null(strstr(text, "bees: 2 items | 0 items\n"));
	assert_non_null(strstr(text, "honey: 737765657400737469636b79 | (0 bytes)\n"));
	free(text);
	state_free(&hive_record, &a);
}

static void long_differences(void **state)
{
	struct hive a = hive_sample(), b = hive_sample();
	const struct hive *both[] = { &a, &b };
	char *text;

	state_free(&hive_record, &a);
	state_free(&hive_record, &b);
	a.honey = (struct state_blob){ calloc(1, 100), 100 };
	b.honey = (struct state_blob){ calloc(1, 60), 60 };
	text = captured(show_diff, both);
	assert_non_null(strstr(text, "honey: +0x3c: 000000000000000000000000000000000000000000000000... | "
				     "+0x3c: (60 bytes)\n"));
	free(text);
	b.honey.data[50] = 0xab;
	text = captured(show_diff, both);
	assert_non_null(strstr(text, "+0x32: 000000000000000000000000000000000000000000000000... | "
				     "+0x32: ab000000000000000000\n"));
	free(text);
	state_free(&hive_record, &a);
	state_free(&hive_record, &b);
}

/* ---- Checks ----------------------------------------------------------- */

static bool is_ram(void *opaque, uint64_t gpa, uint64_t len)
{
	return gpa <= *(uint64_t *)opaque && *(uint64_t *)opaque - gpa >= len;
}

static void assert_bad(const struct hive *h, const struct state_context *c, const char *words)
{
	struct skep_error e = { .text = "" };

	assert_int_equal(state_check(&hive_record, "h", h, c, &e), -EINVAL);
	if (!strstr(e.text, words))
		fail_msg("\"%s\" is not in \"%s\"", words, e.text);
}

static void checks(void **state)
{
	uint64_t ram = 0x8000;
	const struct state_context c = { is_ram, &ram };
	struct hive h = hive_sample();
	struct skep_error e;
	struct bee *bees = h.bees.items;

	assert_int_equal(state_check(&hive_record, "h", &h, &c, &e), 0);
	h.queue = 0x7001;
	assert_bad(&h, &c, "h.queue: the 4096 bytes at 0x7001 are not RAM");
	assert_int_equal(state_check(&hive_record, "h", &h, NULL, &e), 0);
	h.queue = UINT64_MAX;
	assert_bad(&h, &c, "h.queue: the 4096 bytes at 0xffffffffffffffff are not RAM");
	h.queue = 0;
	strcpy(bees[1].name, "\x7f");
	assert_bad(&h, &c, "h.bees[1].name: the text is not printable");
	strcpy(bees[1].name, "\xf4\x90\x80\x80");
	assert_bad(&h, &c, "h.bees[1].name: the text is not printable");
	strcpy(bees[1].name, "\xf0\x9f\x90\x9d");
	assert_int_equal(state_check(&hive_record, "h", &h, &c, &e), 0);
	memset(bees[0].name, 'x', sizeof(bees[0].name));
	assert_bad(&h, &c, "h.bees[0].name: the text does not end within 12 bytes");
	bees[0].name[11] = '\0';
	bees[0].age = 401;
	assert_bad(&h, &c, "h.bees[0].age: 0x191 is more");
	bees[0].age = 0;
	h.honey.len = 301;
	assert_bad(&h, &c, "h.honey: 301 bytes are more than the most there may be, 300");
	h.honey.len = 0;
	assert_bad(&h, &c, "h.honey: 0 bytes, but there are some");
	h.honey.len = 12;
	h.guests.count = 1;
	assert_bad(&h, &c, "h.guests: 1 items, but they are not there");
	h.guests.count = 3;
	assert_bad(&h, &c, "h.guests: 3 items are more than the most there may be, 2");
	h.guests.count = 0;
	state_free(&hive_record, &h);
	assert_null(h.honey.data);
	assert_int_equal(h.u8, 0);
}

/* ---- Tables with mistakes --------------------------------------------- */

struct m { uint8_t a; uint32_t n; char t[4]; struct state_blob b; struct state_list l; uint64_t g; };

static void assert_fault(const struct state_record *r, const char *words)
{
	struct skep_error e = { .text = "" };

	assert_int_equal(state_record_check(r, &e), -EINVAL);
	if (!strstr(e.text, words))
		fail_msg("\"%s\" is not in \"%s\"", words, e.text);
}

static void one_field(struct state_field f, uint16_t version, const char *words)
{
	const struct state_record r = { .kind = "m", .version = version, .model_size = sizeof(struct m),
					.fields = &f, .nfields = 1 };
	struct skep_error e = { .text = "" };

	if (words)
		assert_fault(&r, words);
	else if (state_record_check(&r, &e) < 0)
		fail_msg("%s", e.text);
}
#define FIELD(...) ((struct state_field)__VA_ARGS__)

static void tables(void **state)
{
	static const struct state_field twice[] = { STATE_U8(struct m, a), STATE_U8(struct m, a) };
	struct state_field self_field = { .name = "l", .type = STATE_T_LIST,
					  .size = sizeof(struct state_list), .count = 1, .max = 1 };
	const struct state_record self = { .kind = "self", .version = 1,
					   .model_size = sizeof(struct state_list),
					   .fields = &self_field, .nfields = 1 };
	struct state_record r = { .kind = "m", .version = 1, .model_size = sizeof(struct m),
				  .fields = twice, .nfields = 2 };
	struct state_record hooked = bee_record, late = bee_record;

	assert_fault(&r, "field a is there twice");
	r.nfields = 1;
	r.version = 0;
	assert_fault(&r, "there is no version 0");
	r.version = 1;
	r.kind = "Has Space";
	assert_fault(&r, "its kind is no name");
	r.kind = NULL;
	assert_fault(&r, "its kind is no name");
	r.kind = "m";
	r.model_size = 0;
	assert_fault(&r, "does not fit its model");
	r.nfields = 200;
	assert_fault(&r, "too large");
	self_field.sub = &self;
	assert_fault(&self, "nested too deeply");
	one_field(FIELD(STATE_BLOB(struct m, b)), 1, "field b needs .max");
	one_field(FIELD(STATE_BLOB(struct m, b, .max = 1ull << 32)), 1, "field b needs .max");
	one_field(FIELD(STATE_BLOB(struct m, b, .max = 9)), 1, NULL);
	one_field(FIELD(STATE_LIST(struct m, l, &bee_record)), 1, "field l needs .max");
	one_field(FIELD(STATE_LIST(struct m, l, NULL, .max = 3)), 1, "does not fit");
	one_field(FIELD(STATE_TEXT(struct m, t, .max = 3)), 1, ".max, which says nothing");
	one_field(FIELD(STATE_U8(struct m, a, .max = 256)), 1, ".max that its type does not hold");
	one_field(FIELD(STATE_U8(struct m, a, .def = 256)), 1, ".def that is out of its range");
	one_field(FIELD(STATE_U32(struct m, n, .max = 4, .def = 5)), 1, ".def that is out of its range");
	one_field(FIELD(STATE_TEXT(struct m, t, .def = 1)), 1, ".def, which only scalars have");
	one_field(FIELD(STATE_GPA(struct m, g)), 1, "has no .len");
	one_field(FIELD(STATE_GPA(struct m, g, .len = 16)), 1, NULL);
	one_field(FIELD(STATE_U64(struct m, g, .len = 16)), 1, "one where none belongs");
	one_field(FIELD(STATE_U8(struct m, a, .since = 2)), 1, "versions that its record has not had");
	one_field(FIELD(STATE_U8(struct m, a, .until = 2)), 2, "versions that its record has not had");
	one_field(FIELD(STATE_U8(struct m, a, .since = 2, .until = 1)), 3, "versions that its record");
	one_field(FIELD(STATE_U8(struct m, a, .since = 2, .until = 2)), 3, NULL);
	one_field(FIELD({ .name = "Upper", .type = STATE_T_U8, .size = 1, .count = 1 }), 1, "no key");
	one_field(FIELD({ .name = "a.b", .type = STATE_T_U8, .size = 1, .count = 1 }), 1, "no key");
	one_field(FIELD({ .name = "a", .type = STATE_T_U8, .size = 1, .count = 0 }), 1, "does not fit");
	one_field(FIELD({ .name = "a", .type = STATE_T_U32, .size = 3, .count = 1 }), 1, "does not fit");
	one_field(FIELD({ .name = "a", .type = STATE_T_U8, .size = 1, .count = 1, .offset = 4000 }), 1,
		  "does not fit");
	hooked.upgrade = hive_upgrade;
	one_field(FIELD(STATE_LIST(struct m, l, &hooked, .max = 3)), 1, "migrated by the record");
	late.version = 2;
	one_field(FIELD(STATE_LIST(struct m, l, &late, .max = 3)), 1, "no version 2");
	one_field(FIELD(STATE_LIST(struct m, l, &late, .max = 3)), 2, NULL);
	assert_int_equal(state_record_check(&hive_record, &(struct skep_error){ .text = "" }), 0);
	assert_int_equal(state_record_check(&STATE_NONE, &(struct skep_error){ .text = "" }), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(json),
		cmocka_unit_test(dump),
		cmocka_unit_test(any_cbor),
		cmocka_unit_test(known_and_unknown),
		cmocka_unit_test(differences),
		cmocka_unit_test(long_differences),
		cmocka_unit_test(checks),
		cmocka_unit_test(tables),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
