/* Three versions of one record: read, completed, written again, refused by name; and their schema. */
#include "codec_helper.h"

static int decode(const struct state_buf *b, struct hive *h, struct skep_error *e)
{
	return hive_decode(b->data, b->len, h, e);
}

/* ---- Reading older versions ------------------------------------------- */

/* Version 1 as version 3: what it does not have is at its default, or migrated. */
static void older_is_completed(void **state)
{
	struct hive h = hive_sample(), back;
	struct state_buf b = hive_bytes(&h, 1), again;
	struct skep_error e;

	assert_non_null(memmem(b.data, b.len, "\x69speed_khz\x19\x09\x60", 13));
	assert_null(memmem(b.data, b.len, "speed_hz", 8));
	assert_null(memmem(b.data, b.len, "guests", 6));
	assert_null(memmem(b.data, b.len, "dust", 4));
	if (decode(&b, &back, &e) < 0)
		fail_msg("%s", e.text);
	assert_int_equal(back.speed_hz, 2400000);
	assert_int_equal(back.speed_khz, 0);		/* retired fields do not stay */
	assert_int_equal(back.level, 7);
	assert_int_equal(back.turbo, 0);
	assert_int_equal(back.door.dust, 3);
	assert_int_equal(back.rooms[1].dust, 3);
	assert_int_equal(back.guests.count, 0);
	/* It is the same machine: its newest form is what the newest form was. */
	again = hive_bytes(&h, 3);
	state_buf_free(&b);
	b = hive_bytes(&back, 3);
	assert_int_equal(again.len, b.len);
	assert_memory_equal(again.data, b.data, b.len);
	state_buf_free(&b);
	state_buf_free(&again);
	state_free(&hive_record, &back);
	state_free(&hive_record, &h);
}

static void retired_is_migrated(void **state)
{
	struct hive h = hive_sample(), back;
	struct state_buf b;
	struct skep_error e;

	h.level = 9;		/* which version 2 says with turbo */
	b = hive_bytes(&h, 2);
	assert_non_null(memmem(b.data, b.len, "\x65turbo\x01", 7));
	assert_int_equal(h.level, 9);	/* the model is not changed by saving it */
	assert_int_equal(h.turbo, 0);
	assert_int_equal(decode(&b, &back, &e), 0);
	assert_int_equal(back.level, 9);
	assert_int_equal(back.turbo, 0);
	state_buf_free(&b);
	state_free(&hive_record, &back);
	state_free(&hive_record, &h);
}

/* Each version holds exactly its own keys, and its retired fields have their ranges. */
static void versions_are_strict(void **state)
{
	struct hive h = hive_sample();
	struct state_buf one = hive_bytes(&h, 1), two = hive_bytes(&h, 2), three = hive_bytes(&h, 3);

	REFUSE(&one, "\x67version\x01", "\x67version\x02", "h.0: \"level\" is missing, which version 2 of record hive has");
	REFUSE(&two, "\x67version\x02", "\x67version\x01", "h.0: version 1 of record hive has no \"level\"");
	REFUSE(&two, "\x67version\x02", "\x67version\x03", "h.0.door: \"dust\" is missing, which version 3");
	REFUSE(&three, "\x67version\x03", "\x67version\x02", "has no \"dust\"");
	REFUSE(&two, "\x65turbo\x00", "\x65turbo\x02", "h.0.turbo: 0x2 is more than the largest value, 0x1");
	REFUSE(&one, "\x69speed_khz\x19\x09\x60", "\x69speed_khz\x1a\x00\x01\x00\x00", "h.0.speed_khz: 0x10000 is more");
	state_buf_free(&one);
	state_buf_free(&two);
	state_buf_free(&three);
	state_free(&hive_record, &h);
}

/* ---- Writing older versions ------------------------------------------- */

static void assert_unwritable(const struct hive *h, uint16_t version, const char *words)
{
	struct state_buf b = { 0 };
	struct skep_error e = { .text = "" };

	assert_true(state_encode(&hive_record, "h.0", h, version, &b, &e) < 0);
	if (!strstr(e.text, words))
		fail_msg("\"%s\" is not in \"%s\"", words, e.text);
	assert_int_equal(b.len, 0);
	state_buf_free(&b);
}

static void unspeakable_is_named(void **state)
{
	struct hive h = hive_sample();
	struct bee *guest = calloc(1, sizeof(*guest));
	struct state_buf b;

	assert_non_null(guest);
	h.level = 4;
	assert_unwritable(&h, 1, "h.0.level: its value 0x4 cannot be expressed in version 1");
	b = hive_bytes(&h, 2);
	state_buf_free(&b);
	h.level = 7;
	h.rooms[1].dust = 8;
	assert_unwritable(&h, 2, "h.0.rooms[1].dust: its value 0x8 cannot be expressed in version 2");
	h.rooms[1].dust = 3;
	h.speed_hz = 2400001;
	assert_unwritable(&h, 1, "h.0: speed_hz: 2400001 is no whole number of kHz");
	h.speed_hz = 2400000;
	strcpy(guest->name, "Eve");
	h.guests = (struct state_list){ guest, 1 };
	assert_unwritable(&h, 1, "h.0.guests: it is not empty");
	assert_unwritable(&h, 2, "h.0.guests: it is not empty");
	state_free(&hive_record, &h);
}

/* ---- What may be skipped ---------------------------------------------- */

struct told { unsigned n; char name[32], key[64]; };

static void tell(void *opaque, const char *name, const char *key)
{
	struct told *t = opaque;

	t->n++;
	snprintf(t->name, sizeof(t->name), "%s", name);
	snprintf(t->key, sizeof(t->key), "%s", key);
}

static void opt_is_skipped_and_told(void **state)
{
	struct hive h = hive_sample(), back;
	struct state_buf b = hive_bytes(&h, 3);
	struct state_buf more = REPLACED(&b, "\xa1\x64hint\x18\x4d",
					 "\xa3\x61" "a\xa1\x61x\x82\x01\x43\0\1\2\x64hint\x18\x4d\x69tomorrows\xf4");
	struct state_buf none = REPLACED(&b, "\xa1\x64hint\x18\x4d", "\xa0");
	struct state_buf wrong = REPLACED(&b, "\x64hint\x18\x4d", "\x64hint\x60");
	struct told told = { 0 };
	struct skep_error e;

	memset(&back, 0, sizeof(back));
	if (state_decode(&hive_record, "h.0", more.data, more.len, &back, tell, &told, &e) < 0)
		fail_msg("%s", e.text);
	assert_int_equal(told.n, 2);
	assert_string_equal(told.name, "h.0");
	assert_string_equal(told.key, "tomorrows");
	assert_int_equal(back.hint, 77);
	state_free(&hive_record, &back);
	assert_int_equal(decode(&more, &back, &e), 0);		/* nobody to tell */
	state_free(&hive_record, &back);
	/* A known one that is not there is at its default; of a wrong type it is refused. */
	assert_int_equal(decode(&none, &back, &e), 0);
	assert_int_equal(back.hint, 5);
	state_free(&hive_record, &back);
	assert_refused(wrong.data, wrong.len, "h.0.hint: it is a text");
	/* In req, an unknown key is refused. */
	REFUSE(&b, "\xb4\x62u8\x18\xff", "\xb5\x62u1\x01\x62u8\x18\xff", "version 3 of record hive has no \"u1\"");
	state_buf_free(&b);
	state_buf_free(&more);
	state_buf_free(&none);
	state_buf_free(&wrong);
	state_free(&hive_record, &h);
}

/* ---- The schema ------------------------------------------------------- */

static const struct state_record *const records[] = { &hive_record, &STATE_NONE, NULL };
static const struct state_record *const only_hive[] = { &hive_record, NULL };

#define OLDER(...) (const void *)(const struct { const char *kind; uint16_t version; }[]){ __VA_ARGS__ }

static char *cddl(const struct state_generation *g)
{
	struct skep_error e = { .text = "" };
	char *text = NULL;
	size_t len;
	FILE *f = open_memstream(&text, &len);

	assert_non_null(f);
	if (state_generation_cddl(f, g, records, &e) < 0)
		fail_msg("%s", e.text);
	fclose(f);
	return text;
}

static void schema(void **state)
{
	static const char hive_v3[] =
		"record-hive = {\n  \"opt\": {\n    ? \"hint\": u32,\n    * text => any,\n  },\n  \"req\": {\n"
		"    \"u8\": u8,\n    \"raw\": bytes .size 3,\n    \"u16\": 0..256,\n    \"u32\": u32,\n"
		"    \"u64\": uint,\n    \"bees\": [0*5 part-bee],\n    \"door\": part-room,\n"
		"    \"flag\": bool,\n    \"rows\": [2*2 bytes .size 4],\n"
		"    \"when\": -9223372036854775808..1000000,\n    \"flags\": [3*3 bool],\n"
		"    \"honey\": bytes .size (0..300),\n"
		"    \"label\": text .size (0..15),\t; of the host, not of the guest\n"
		"    \"level\": 0..9,\n    \"queue\": uint,\n    \"rooms\": [2*2 part-room],\n"
		"    \"since\": [2*2 guest-time],\n    \"guests\": [0*2 part-bee],\n"
		"    \"matrix\": [6*6 u16],\n    \"speed_hz\": u32,\n  },\n"
		"  \"kind\": \"hive\",\n  \"name\": instance,\n  \"version\": 3,\n}\n"
		"\npart-bee = {\n  \"age\": 0..400,\n  \"load\": bytes .size (0..64),\n"
		"  \"name\": text .size (0..11),\n}\n"
		"\npart-room = {\n  \"dust\": u32,\n  \"cells\": [3*3 (0..1000)],\n  \"width\": 0..9,\n}\n";
	const struct state_generation newest = { .number = 3, .draft = true };
	const struct state_generation first = { .number = 1,
						.older = OLDER({ "hive", 1 }, { "none", 0 }, { NULL, 0 }) };
	char *text = cddl(&newest);

	assert_non_null(strstr(text, "; DRAFT"));
	assert_non_null(strstr(text, "record = record-hive\n       / record-none\n"));
	if (!strstr(text, hive_v3))
		fail_msg("%s", text);
	free(text);
	text = cddl(&first);
	assert_null(strstr(text, "DRAFT"));
	assert_null(strstr(text, "none"));		/* it did not exist then */
	assert_null(strstr(text, "dust"));
	assert_null(strstr(text, "guests"));
	assert_non_null(strstr(text, "\"speed_khz\": u16,"));
	assert_non_null(strstr(text, "\"turbo\": 0..1,"));
	assert_non_null(strstr(text, "\"version\": 1,"));
	free(text);
	assert_int_equal(state_generation_version(&first, &hive_record), 1);
	assert_int_equal(state_generation_version(&first, &STATE_NONE), 0);
	assert_int_equal(state_generation_version(&newest, &hive_record), 3);
}

static void assert_wrong(const struct state_generation *g, const struct state_record *const *r,
			 const char *words)
{
	struct skep_error e = { .text = "" };

	assert_true(state_generations_check(g, r, &e) < 0);
	if (!strstr(e.text, words))
		fail_msg("\"%s\" is not in \"%s\"", words, e.text);
}

static void generations(void **state)
{
	static const struct state_record *const twice[] = { &hive_record, &hive_record, NULL };
	const struct state_generation good[] = {
		{ .number = 1, .older = OLDER({ "hive", 1 }, { "none", 0 }, { NULL, 0 }) },
		{ .number = 2, .older = OLDER({ "hive", 2 }, { NULL, 0 }) },
		{ .number = 3, .draft = true }, { .number = 0 },
	};
	const struct state_generation unknown[] = {
		{ .number = 1, .older = OLDER({ "bee", 1 }, { NULL, 0 }) }, { .number = 0 },
	};
	const struct state_generation not_older[] = {
		{ .number = 1, .older = OLDER({ "hive", 3 }, { NULL, 0 }) }, { .number = 0 },
	};
	const struct state_generation gap[] = { { .number = 1 }, { .number = 3 }, { .number = 0 } };
	const struct state_generation last[] = {
		{ .number = 1, .older = OLDER({ "hive", 2 }, { NULL, 0 }) }, { .number = 0 },
	};
	struct skep_error e = { .text = "" };

	assert_int_equal(state_generations_check(good, records, &e), 0);
	assert_wrong(good, twice, "there are two records hive");
	assert_wrong(unknown, records, "generation 1: version 1 of bee is no older version");
	assert_wrong(not_older, records, "generation 1: version 3 of hive is no older version");
	assert_wrong(gap, records, "generation 3 stands where 2 belongs");
	assert_wrong(last, only_hive, "the newest generation, 1, names older versions");

	assert_int_equal(state_generation_find(1, &e)->number, 1);
	assert_non_null(state_generation_find(0, &e));
	assert_null(state_generation_find(77, &e));
	assert_non_null(strstr(e.text, "there is no generation 77: this release knows 1 to "));
}

/* Saved for an older generation, read by this release, and told apart by nobody. */
static void whole_way_for_each_generation(void **state)
{
	struct hive h = hive_sample(), back;
	struct state_buf newest = hive_bytes(&h, 3);
	struct skep_error e;

	for (uint16_t version = 1; version <= 3; version++) {
		struct state_buf b = hive_bytes(&h, version), again;
		struct state_head head;

		assert_int_equal(state_peek(b.data, b.len, &head, &e), 0);
		assert_int_equal(head.version, version);
		assert_int_equal(decode(&b, &back, &e), 0);
		again = hive_bytes(&back, 3);
		assert_int_equal(again.len, newest.len);
		assert_memory_equal(again.data, newest.data, newest.len);
		state_buf_free(&again);
		again = hive_bytes(&back, version);
		assert_int_equal(again.len, b.len);
		assert_memory_equal(again.data, b.data, b.len);
		state_buf_free(&again);
		state_buf_free(&b);
		state_free(&hive_record, &back);
	}
	state_buf_free(&newest);
	state_free(&hive_record, &h);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(older_is_completed),
		cmocka_unit_test(retired_is_migrated),
		cmocka_unit_test(versions_are_strict),
		cmocka_unit_test(unspeakable_is_named),
		cmocka_unit_test(opt_is_skipped_and_told),
		cmocka_unit_test(schema),
		cmocka_unit_test(generations),
		cmocka_unit_test(whole_way_for_each_generation),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
