/* The codec: what it writes, what it takes back, and that it takes nothing else. */
#include "codec_helper.h"

#include "cpu/arch.h"

/* ---- malloc, which can be made to fail -------------------------------- */

static long allocations_left = -1;	/* -1: as many as are wanted */

void *__real_malloc(size_t n);
void *__real_calloc(size_t n, size_t size);
void *__real_realloc(void *p, size_t n);
void *__wrap_malloc(size_t n);
void *__wrap_calloc(size_t n, size_t size);
void *__wrap_realloc(void *p, size_t n);

static size_t largest;			/* allocation since it was set to 0 */

static bool may_allocate(size_t n)
{
	largest = MAX(largest, n);
	return allocations_left < 0 || allocations_left-- > 0;
}

void *__wrap_malloc(size_t n) { return may_allocate(n) ? __real_malloc(n) : NULL; }
void *__wrap_calloc(size_t n, size_t s) { return may_allocate(n * s) ? __real_calloc(n, s) : NULL; }
void *__wrap_realloc(void *p, size_t n) { return may_allocate(n) ? __real_realloc(p, n) : NULL; }

/* ---- There and back --------------------------------------------------- */

static void round_trip(void **state)
{
	struct hive h = hive_sample(), back;
	struct state_buf b = hive_bytes(&h, 3), again;
	struct state_head head;
	struct skep_error e;

	assert_int_equal(state_peek(b.data, b.len, &head, &e), 0);
	assert_string_equal(head.kind, "hive");
	assert_string_equal(head.name, "h.0");
	assert_int_equal(head.version, 3);
	if (hive_decode(b.data, b.len, &back, &e) < 0)
		fail_msg("%s", e.text);
	again = hive_bytes(&back, 3);
	assert_int_equal(again.len, b.len);
	assert_memory_equal(again.data, b.data, b.len);
	assert_int_equal(back.bees.count, 2);
	assert_string_equal(((struct bee *)back.bees.items)[1].name, "elevenbytes");
	assert_memory_equal(back.honey.data, "sweet\0sticky", 12);
	assert_int_equal(back.since[0], INT64_MIN);
	assert_int_equal(back.rooms[1].cells[0], 256);
	assert_int_equal(back.hint, 77);
	state_buf_free(&b);
	state_buf_free(&again);
	state_free(&hive_record, &h);
	state_free(&hive_record, &back);
	assert_null(back.bees.items);
}

struct tiny { uint16_t b; int64_t aa; bool a; };
static const struct state_field tiny_fields[] = {
	STATE_U16(struct tiny, b),
	STATE_TIME(struct tiny, aa),
	STATE_BOOL(struct tiny, a, .opt = true),
};
static const struct state_record tiny_record = {
	.kind = "tiny", .version = 1, .model_size = sizeof(struct tiny),
	.fields = tiny_fields, .nfields = ARRAY_SIZE(tiny_fields),
};

/* Byte by byte, as RFC 8949, 4.2.1 has it: shorter keys first, then by byte. */
static void bytes_are_deterministic(void **state)
{
	static const uint8_t want[] =
		"\xa5" "\x63opt" "\xa1\x61" "a\xf5" "\x63req" "\xa2\x61" "b\x19\x01\x00" "\x62" "aa\x38\x18"
		"\x64kind" "\x64tiny" "\x64name" "\x61t" "\x67version" "\x01";
	struct tiny t = { .b = 256, .aa = -25, .a = true };
	struct state_buf b = { 0 };
	struct skep_error e;

	assert_int_equal(state_encode(&tiny_record, "t", &t, 1, &b, &e), 0);
	assert_int_equal(b.len, sizeof(want) - 1);
	assert_memory_equal(b.data, want, b.len);
	/* A second one goes behind the first. */
	assert_int_equal(state_encode(&tiny_record, "t", &t, 1, &b, &e), 0);
	assert_int_equal(b.len, 2 * (sizeof(want) - 1));
	assert_memory_equal(b.data + sizeof(want) - 1, want, sizeof(want) - 1);
	state_buf_free(&b);
	assert_int_equal(state_encode(&STATE_NONE, "n", NULL, 1, &b, &e), 0);
	assert_int_equal(state_decode(&STATE_NONE, "n", b.data, b.len, NULL, NULL, NULL, &e), 0);
	state_buf_free(&b);
}

/* Numbers at the edges of every length of a head. */
static void every_number(void **state)
{
	static const int64_t edge[] = { 0, 1, 23, 24, 255, 256, 65535, 65536, UINT32_MAX,
					UINT32_MAX + 1ll, INT64_MAX, -1, -24, -25, -256, -257, INT64_MIN };
	struct skep_error e;

	for (size_t i = 0; i < ARRAY_SIZE(edge); i++) {
		struct tiny t = { .aa = edge[i], .b = (uint16_t)edge[i] }, back = { 0 };
		struct state_buf b = { 0 };

		assert_int_equal(state_encode(&tiny_record, "t", &t, 1, &b, &e), 0);
		assert_int_equal(state_decode(&tiny_record, "t", b.data, b.len, &back, NULL, NULL, &e), 0);
		assert_true(back.aa == t.aa && back.b == t.b && !back.a);
		state_buf_free(&b);
	}
}

/* The processor's record is what every restore reads: whole, and again. */
static void processor(void **state)
{
	struct cpu_arch_state *s = test_calloc(1, sizeof(*s)), *t = test_calloc(1, sizeof(*t));
	struct state_buf b = { 0 };
	struct skep_error e = { .text = "" };

	s->rip = 0xffffffff81000000;
	s->seg[1].base = 77;
	s->gpr[15] = UINT64_MAX;
	assert_int_equal(state_record_check(&cpu_arch_record, &e), 0);
	assert_int_equal(state_encode(&cpu_arch_record, "cpu.0", s, 1, &b, &e), 0);
	if (state_decode(&cpu_arch_record, "cpu.0", b.data, b.len, t, NULL, NULL, &e) < 0)
		fail_msg("%s", e.text);
	assert_memory_equal(s, t, sizeof(*s));
	state_buf_free(&b);
	test_free(s);
	test_free(t);
}

/* ---- What is not taken ------------------------------------------------ */

static void truncated(void **state)
{
	struct hive h = hive_sample(), back;
	struct state_buf b = hive_bytes(&h, 3);
	struct skep_error e;

	for (size_t len = 0; len < b.len; len++) {
		/* Its own allocation, so that a read beyond it is seen. */
		uint8_t *part = test_malloc(len ? len : 1);

		memcpy(part, b.data, len);
		assert_true(hive_decode(part, len, &back, &e) < 0);
		assert_non_null(strstr(e.text, "h.0: not a record: "));
		test_free(part);
	}
	b.data = realloc(b.data, b.len + 1);
	b.data[b.len] = 0;
	assert_refused(b.data, b.len + 1, "1 bytes are left over");
	state_buf_free(&b);
	state_free(&hive_record, &h);
}

static void count_skipped(void *opaque, const char *name, const char *key)
{
	++*(unsigned *)opaque;
}

/* What is taken is a model that passes its check, and says the same when it is written again. */
static void take_or_refuse(const uint8_t *data, size_t len)
{
	struct skep_error e = { .text = "" };
	unsigned skipped = 0;
	struct hive h;

	memset(&h, 0, sizeof(h));
	if (state_decode(&hive_record, "h.0", data, len, &h, count_skipped, &skipped, &e) < 0) {
		assert_true(e.text[0]);
		return;
	}
	assert_int_equal(state_check(&hive_record, "h.0", &h, NULL, &e), 0);
	if (!skipped) {
		struct state_buf b = hive_bytes(&h, 3);

		assert_int_equal(b.len, len);
		assert_memory_equal(b.data, data, len);
		state_buf_free(&b);
	}
	state_free(&hive_record, &h);
}

static void every_bit(void **state)
{
	struct hive h = hive_sample();
	struct state_buf b = hive_bytes(&h, 3);

	for (size_t i = 0; i < b.len * 8; i++) {
		b.data[i / 8] ^= (uint8_t)(1 << i % 8);
		take_or_refuse(b.data, b.len);
		b.data[i / 8] ^= (uint8_t)(1 << i % 8);
	}
	state_buf_free(&b);
	state_free(&hive_record, &h);
}

static uint64_t xorshift(uint64_t *x)
{
	*x ^= *x << 13;
	*x ^= *x >> 7;
	*x ^= *x << 17;
	return *x;
}

/* Bytes changed, taken out, put in, and pieces moved. */
static void mutations(void **state)
{
	struct hive h = hive_sample();
	struct state_buf b = hive_bytes(&h, 3);
	uint8_t *m = test_malloc(2 * b.len);
	uint64_t x = 88172645463325252ull;

	for (unsigned round = 0; round < 20000; round++) {
		size_t len = b.len;

		memcpy(m, b.data, len);
		for (unsigned n = 1 + xorshift(&x) % 3; n; n--) {
			size_t at = xorshift(&x) % len, to = xorshift(&x) % len;
			size_t some = 1 + xorshift(&x) % 8;

			some = MIN(some, len - MAX(at, to));
			if (round % 3 == 0) {
				m[at] = (uint8_t)xorshift(&x);
			} else if (round % 3 == 1) {
				memmove(m + at, m + to, some);
			} else if (len > some + 1) {
				memmove(m + at, m + at + some, len - at - some);
				len -= some;
			}
		}
		take_or_refuse(m, len);
	}
	test_free(m);
	state_buf_free(&b);
	state_free(&hive_record, &h);
}

static void wrong_types(void **state)
{
	struct hive h = hive_sample();
	struct state_buf b = hive_bytes(&h, 3);

	REFUSE(&b, "\x62u8\x18\xff", "\x62u8\x20", "h.0.u8: it is a negative number, not an unsigned");
	REFUSE(&b, "\x62u8\x18\xff", "\x62u8\xf5", "h.0.u8: it is a boolean");
	REFUSE(&b, "\x62u8\x18\xff", "\x62u8\x60", "h.0.u8: it is a text");
	REFUSE(&b, "\x62u8\x18\xff", "\x62u8\x80", "h.0.u8: it is an array");
	REFUSE(&b, "\x64" "flag\xf5", "\x64" "flag\x01", "h.0.flag: it is an unsigned number, not a boolean");
	REFUSE(&b, "\x63raw\x43", "\x63raw\x63", "not printable");
	REFUSE(&b, "\x63raw\x43\x00\xab\x01", "\x63raw\x63xyz", "h.0.raw: it is a text, not a byte string");
	REFUSE(&b, "\x64when\x24", "\x64when\xf4", "h.0.when: it is a boolean, not a time");
	REFUSE(&b, "\x65label\x6a", "\x65label\x4a", "h.0.label: it is a byte string, not a text");
	REFUSE(&b, "\x66guests\x80", "\x66guests\xa0", "h.0.guests: it is a map, not an array");
	REFUSE(&b, "\x66guests\x80", "\x66guests\x81\x01", "h.0.guests[0]: it is an unsigned number, not a map");
	REFUSE(&b, "\x62u8\x18\xff", "\x62u8\xf6", "null, which no record has");
	REFUSE(&b, "\x62u8\x18\xff", "\x62u8\xf7", "undefined, which no record has");
	REFUSE(&b, "\x62u8\x18\xff", "\x62u8\xf9\x3c\x00", "floating-point number, which no record has");
	REFUSE(&b, "\x62u8\x18\xff", "\x62u8\xc1\x01", "a tag, which no record has");
	REFUSE(&b, "\x62u8\x18\xff", "\x62u8\xe0", "this is not CBOR");
	REFUSE(&b, "\x62u8\x18\xff", "\x62u8\xff", "a break, which no record has");
	state_buf_free(&b);
	state_free(&hive_record, &h);
}

static void wrong_values(void **state)
{
	struct hive h = hive_sample();
	struct state_buf b = hive_bytes(&h, 3);

	REFUSE(&b, "\x62u8\x18\xff", "\x62u8\x19\x01\x00", "h.0.u8: 0x100 is more than the largest value, 0xff");
	REFUSE(&b, "\x63u16\x19\x01\x00", "\x63u16\x19\x01\x01", "h.0.u16: 0x101 is more than the largest value, 0x100");
	REFUSE(&b, "\x63u32\x1a\xff\xff\xff\xff", "\x63u32\x1b\0\0\0\1\0\0\0\0", "h.0.u32: 0x100000000 is more");
	REFUSE(&b, "\x64when\x24", "\x64when\x1a\x00\x0f\x42\x41", "h.0.when: 0xf4241 is more");
	REFUSE(&b, "\x64when\x24", "\x64when\x1b\x80\0\0\0\0\0\0\0", "h.0.when: it is out of the range of times");
	REFUSE(&b, "\x64when\x24", "\x64when\x3b\x80\0\0\0\0\0\0\0", "h.0.when: it is out of the range of times");
	REFUSE(&b, "\x63" "Ada", "\x6c" "twelve bytes", "h.0.bees[0].name: a text of 12 bytes, but at most 11");
	REFUSE(&b, "\x63" "Ada", "\x63" "A\0a", "not printable");
	REFUSE(&b, "\x63" "Ada", "\x63" "A\na", "not printable");
	REFUSE(&b, "\x63" "Ada", "\x63" "A\xc0\x80", "not printable");
	REFUSE(&b, "\x63" "Ada", "\x63\xed\xa0\x80", "not printable");
	REFUSE(&b, "\x63" "Ada", "\x62\xc2\x85", "not printable");
	REFUSE(&b, "\x63" "age\x19\x01\x90", "\x63" "age\x19\x01\x91", "h.0.bees[0].age: 0x191 is more");
	/* rooms[1].cells[0] */
	REFUSE(&b, "\x83\x19\x01\x00\x00\x03", "\x83\x19\x03\xe9\x00\x03", "h.0.rooms[1].cells[0]: 0x3e9 is more");
	state_buf_free(&b);
	state_free(&hive_record, &h);
}

/* Counts are compared with the table's, and never allocate more than it allows. */
static void wrong_counts(void **state)
{
	struct hive h = hive_sample();
	struct state_buf b = hive_bytes(&h, 3);

	largest = 0;
	REFUSE(&b, "\x65" "flags\x83\xf4\xf5\xf4", "\x65" "flags\x82\xf4\xf5", "h.0.flags: 2 elements, not 3");
	REFUSE(&b, "\x65" "flags\x83\xf4\xf5\xf4", "\x65" "flags\x84\xf4\xf5\xf4\xf4", "h.0.flags: 4 elements, not 3");
	REFUSE(&b, "\x65" "flags\x83\xf4\xf5\xf4", "\x65" "flags\x80", "h.0.flags: 0 elements, not 3");
	REFUSE(&b, "\x63raw\x43\x00\xab\x01", "\x63raw\x42\x00\xab", "h.0.raw: 2 bytes, not 3");
	REFUSE(&b, "\x63raw\x43\x00\xab\x01", "\x63raw\x44\x00\xab\x01\x02", "h.0.raw: 4 bytes, not 3");
	REFUSE(&b, "\x66guests\x80", "\x66guests\x83\x01\x01\x01", "h.0.guests: 3 items are more than");
	REFUSE(&b, "\x66guests\x80", "\x66guests\x9b\x7f\xff\xff\xff\xff\xff\xff\xff", "but only");
	REFUSE(&b, "\x66guests\x80", "\x66guests\x9b\xff\xff\xff\xff\xff\xff\xff\xff", "but only");
	REFUSE(&b, "\x66guests\x80", "\x66guests\xbb\x80\0\0\0\0\0\0\0", "but only");
	REFUSE(&b, "\x65honey\x4c", "\x65honey\x5b\xff\xff\xff\xff\xff\xff\xff\xff", "the middle of an item");
	REFUSE(&b, "\x65honey\x4c", "\x65honey\x5b\x7f\xff\xff\xff\xff\xff\xff\xff", "the middle of an item");
	REFUSE(&b, "\x65label\x6a", "\x65label\x7b\xff\xff\xff\xff\xff\xff\xff\xff", "the middle of an item");
	assert_true(largest < 4096);
	state_buf_free(&b);
	state_free(&hive_record, &h);
}

/* More than a table allows is refused before there is memory for it. */
static void bounded_memory(void **state)
{
	struct hive h = hive_sample();
	struct state_buf b = hive_bytes(&h, 3), r;
	static uint8_t large[8 + 1 + 4 + 1000000];

	memcpy(large, "\x65honey\x5a\x00\x0f\x42\x40", 11);
	r = replaced(&b, "\x65honey\x4csweet\0sticky", 19, large, 11 + 1000000);
	largest = 0;
	assert_refused(r.data, r.len, "h.0.honey: 1000000 bytes are more than the most there may be, 300");
	assert_true(largest < 4096);
	state_buf_free(&r);
	memcpy(large, "\x66guests\x9a\x00\x0f\x42\x40", 12);
	memset(large + 12, 0xa0, 1000000);
	r = replaced(&b, "\x66guests\x80", 8, large, 12 + 1000000);
	largest = 0;
	assert_refused(r.data, r.len, "h.0.guests: 1000000 items are more than the most there may be, 2");
	assert_true(largest < 4096);
	state_buf_free(&r);
	state_buf_free(&b);
	state_free(&hive_record, &h);
}

static void wrong_keys(void **state)
{
	struct hive h = hive_sample();
	struct state_buf b = hive_bytes(&h, 3);

	REFUSE(&b, "\x62u8", "\x62u9", "h.0: \"u8\" is missing, which version 3 of record hive has");
	REFUSE(&b, "\x62u8", "\x62u7", "h.0: version 3 of record hive has no \"u7\"");
	REFUSE(&b, "\x62u8", "\x62\xc0\x80", "a key is not printable text");
	REFUSE(&b, "\x62u8", "\x18\x20", "a key is not printable text");
	REFUSE(&b, "\x63u16", "\x63raw", "the key \"raw\" is there twice or out of order");
	REFUSE(&b, "\x63u32", "\x63u15", "out of order");
	REFUSE(&b, "\x65width\x09", "\x65width\x0a", "h.0.door.width: 0xa is more");
	REFUSE(&b, "\x64kind\x64hive", "\x64kind\x64" "five", "a record hive belongs here, not \"h.0\" of kind five");
	REFUSE(&b, "\x64name\x63h.0", "\x64name\x63h.1", "a record hive belongs here, not \"h.1\"");
	REFUSE(&b, "\x67version\x03", "\x67version\x04", "version 4 of record hive is newer");
	REFUSE(&b, "\x67version\x03", "\x67version\x00", "its version is not a number from 1");
	REFUSE(&b, "\x67version\x03", "\x67version\x1a\x00\x01\x00\x00", "its version is not a number from 1");
	REFUSE(&b, "\x67version\x03", "\x67version\xa0", "its version is not a number from 1");
	REFUSE(&b, "\x67version\x03", "\x67wersion\x03", "the key \"version\" belongs here");
	REFUSE(&b, "\x64kind\x64hive", "\x64kind\x60", "its kind is not a text of 1 to 31 bytes");
	REFUSE(&b, "\x64kind\x64hive", "\x64kind\x78\x20" "abcdefghabcdefghabcdefghabcdefgh", "1 to 31 bytes");
	state_buf_free(&b);
	state_free(&hive_record, &h);
	assert_refused("\xa0", 1, "it is not a map of opt, req, kind, name and version");
	assert_refused("\x85", 1, "but only 0 bytes follow");
	assert_refused("\xa5\x63opt\x00\x63req\xa0", 11, "\"opt\" is not a map");
	assert_refused("", 0, "not a record");
	assert_refused(NULL, 0, "not a record");
}

static void other_forms(void **state)
{
	struct hive h = hive_sample();
	struct state_buf b = hive_bytes(&h, 3);

	REFUSE(&b, "\x62u8\x18\xff", "\x62u8\x18\x17", "not in its shortest form");
	REFUSE(&b, "\x62u8\x18\xff", "\x62u8\x19\x00\xff", "not in its shortest form");
	REFUSE(&b, "\x62u8\x18\xff", "\x62u8\x1a\0\0\0\xff", "not in its shortest form");
	REFUSE(&b, "\x62u8\x18\xff", "\x62u8\x1b\0\0\0\0\0\0\0\xff", "not in its shortest form");
	REFUSE(&b, "\x62u8\x18\xff", "\x78\x02u8\x18\xff", "not in its shortest form");
	REFUSE(&b, "\x64when\x24", "\x64when\x38\x04", "not in its shortest form");
	REFUSE(&b, "\x66guests\x80", "\x66guests\x98\x00", "not in its shortest form");
	REFUSE(&b, "\x65honey\x4c", "\x65honey\x58\x0c", "not in its shortest form");
	REFUSE(&b, "\x66guests\x80", "\x66guests\x9f\xff", "an array without a length");
	REFUSE(&b, "\x63raw\x43\x00\xab\x01", "\x63raw\x5f\x43\x00\xab\x01\xff", "a byte string in parts");
	REFUSE(&b, "\x63" "Ada", "\x7f\x63" "Ada\xff", "a text in parts");
	REFUSE(&b, "\x64" "flag\xf5", "\x64" "flag\xf8\x15", "this is not CBOR");
	REFUSE(&b, "\xa5\x63opt", "\xbf\x63opt", "a map without a length");
	REFUSE(&b, "\xa5\x63opt", "\xb8\x05\x63opt", "not in its shortest form");
	state_buf_free(&b);
	state_free(&hive_record, &h);
}

/* Arrays in arrays in arrays: refused by depth, with little stack. */
static void depth_bombs(void **state)
{
	static const uint8_t open[] = { 0x81, 0x9f, 0xa1, 0xbf, 0xc1, 0xd8 };
	size_t n = 1000000;
	uint8_t *bomb = test_malloc(n + 16);
	struct skep_error e;
	struct state_head head;
	FILE *sink = fopen("/dev/null", "w");

	assert_non_null(sink);
	for (size_t i = 0; i < ARRAY_SIZE(open); i++) {
		memset(bomb, open[i], n);
		assert_true(state_json_cbor(sink, bomb, n, 0, &e) < 0);
		assert_true(state_peek(bomb, n, &head, &e) < 0);
		/* In the part that is skipped. */
		memcpy(bomb, "\xa5\x63opt\xa1\x61z", 8);
		assert_true(state_peek(bomb, n, &head, &e) < 0);
	}
	memset(bomb, 0x81, n);
	memcpy(bomb, "\xa5\x63opt\xa1\x61z", 8);
	assert_refused(bomb, n, "more than 16 items within each other");
	fclose(sink);
	test_free(bomb);
}

/* ---- What cannot be written ------------------------------------------- */

static void models_are_checked(void **state)
{
	struct state_buf b = { 0 };
	struct skep_error e;
	struct hive h = hive_sample();

	h.rooms[1].cells[2] = 1001;
	assert_int_equal(state_encode(&hive_record, "h.0", &h, 3, &b, &e), -EINVAL);
	assert_non_null(strstr(e.text, "h.0.rooms[1].cells[2]: 0x3e9"));
	h.rooms[1].cells[2] = 0;
	memset(h.label, 'x', sizeof(h.label));
	assert_int_equal(state_encode(&hive_record, "h.0", &h, 3, &b, &e), -EINVAL);
	assert_non_null(strstr(e.text, "h.0.label: the text does not end within 16 bytes"));
	strcpy(h.label, "a\nb");
	assert_int_equal(state_encode(&hive_record, "h.0", &h, 3, &b, &e), -EINVAL);
	assert_non_null(strstr(e.text, "h.0.label: the text is not printable"));
	h.label[0] = '\0';
	assert_int_equal(state_encode(&hive_record, "", &h, 3, &b, &e), -EINVAL);
	assert_int_equal(state_encode(&hive_record, "an instance name of 32 bytes....", &h, 3, &b, &e),
			 -EINVAL);
	assert_int_equal(state_encode(&hive_record, "h.0", &h, 0, &b, &e), -EINVAL);
	assert_int_equal(state_encode(&hive_record, "h.0", &h, 4, &b, &e), -EINVAL);
	assert_non_null(strstr(e.text, "there is no version 4 of record hive"));
	assert_int_equal(b.len, 0);
	state_buf_free(&b);
	state_free(&hive_record, &h);
}

/* Every allocation fails once: an error, nothing leaks, what was there before stays. */
static void memory_runs_out(void **state)
{
	struct hive h = hive_sample(), back;
	struct state_buf whole = hive_bytes(&h, 3), b;
	struct skep_error e;
	int err = -1;
	long n;

	for (uint16_t version = 2; version <= 3; version++) {
		for (n = 0, err = -1; err < 0; n++) {
			b = (struct state_buf){ __real_malloc(3), 2, 3 };
			memcpy(b.data, "ab", 2);
			allocations_left = n;
			err = state_encode(&hive_record, "h.0", &h, version, &b, &e);
			allocations_left = -1;
			assert_true(err == 0 || (err == -ENOMEM && b.len == 2));
			assert_memory_equal(b.data, "ab", 2);
			state_buf_free(&b);
		}
		assert_true(n > 1);
	}
	for (n = 0, err = -1; err < 0; n++) {
		allocations_left = n;
		err = hive_decode(whole.data, whole.len, &back, &e);
		allocations_left = -1;
		assert_true(err == 0 || err == -ENOMEM);
	}
	assert_true(n > 3);
	state_free(&hive_record, &back);
	state_buf_free(&whole);
	state_free(&hive_record, &h);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(round_trip),
		cmocka_unit_test(bytes_are_deterministic),
		cmocka_unit_test(every_number),
		cmocka_unit_test(processor),
		cmocka_unit_test(truncated),
		cmocka_unit_test(every_bit),
		cmocka_unit_test(mutations),
		cmocka_unit_test(wrong_types),
		cmocka_unit_test(wrong_values),
		cmocka_unit_test(wrong_counts),
		cmocka_unit_test(bounded_memory),
		cmocka_unit_test(wrong_keys),
		cmocka_unit_test(other_forms),
		cmocka_unit_test(depth_bombs),
		cmocka_unit_test(models_are_checked),
		cmocka_unit_test(memory_runs_out),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
