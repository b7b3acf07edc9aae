/* Hives that are full, and CBOR written by hand. */
#ifndef SKEP_TESTS_CODEC_HELPER_H
#define SKEP_TESTS_CODEC_HELPER_H

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "codec_synthetic.h"

#define COUNT_OF(a) ((uint32_t)ARRAY_SIZE(a))

static inline struct state_blob blob_of(const void *p, uint32_t len)
{
	struct state_blob b = { malloc(len), len };

	assert_non_null(b.data);
	memcpy(b.data, p, len);
	return b;
}

/* A hive that every version can express, if its level is 7 and its dust 3. */
static inline struct hive hive_sample(void)
{
	struct hive h;
	struct bee *bees = calloc(2, sizeof(*bees));

	assert_non_null(bees);
	memset(&h, 0, sizeof(h));	/* padding too: models are compared by byte */
	h.u8 = 255;
	h.u16 = 0x100;
	h.u32 = UINT32_MAX;
	h.u64 = UINT64_MAX;
	h.flag = h.flags[1] = true;
	h.when = -5;
	h.since[0] = INT64_MIN;
	h.since[1] = INT64_MAX;
	memcpy(h.raw, "\0\xab\1", 3);
	memcpy(h.rows, "abcdefgh", 8);
	for (unsigned i = 0; i < 6; i++)
		h.matrix[i / 3][i % 3] = (uint16_t)(i * 7000);
	strcpy(h.label, "K\xc3\xb6nigin 1");
	h.honey = blob_of("sweet\0sticky", 12);
	strcpy(bees[0].name, "Ada");
	bees[0].age = 400;
	strcpy(bees[1].name, "elevenbytes");
	bees[1].load = blob_of("pollen", 6);
	h.bees = (struct state_list){ bees, 2 };
	h.queue = 0x7000;
	h.door = (struct room){ .width = 9, .cells = { 1, 2, 1000 }, .dust = 3 };
	h.rooms[0] = (struct room){ .width = 1, .cells = { 24, 23, 255 }, .dust = 3 };
	h.rooms[1] = (struct room){ .width = 2, .cells = { 256, 0, 3 }, .dust = 3 };
	h.speed_hz = 2400000;
	h.level = 7;
	h.hint = 77;
	return h;
}

static inline struct state_buf hive_bytes(const struct hive *h, uint16_t version)
{
	struct state_buf b = { 0 };
	struct skep_error e = { .text = "" };

	if (state_encode(&hive_record, "h.0", h, version, &b, &e) < 0)
		fail_msg("%s", e.text);
	return b;
}

static inline int hive_decode(const void *data, size_t len, struct hive *h, struct skep_error *e)
{
	memset(h, 0, sizeof(*h));
	e->text[0] = '\0';
	return state_decode(&hive_record, "h.0", data, len, h, NULL, NULL, e);
}

/* Refused: with a sentence, an errno, and a model that owns nothing. */
static inline void assert_refused(const void *data, size_t len, const char *word)
{
	static const struct hive nothing;
	struct skep_error e;
	struct hive h;

	if (hive_decode(data, len, &h, &e) >= 0)
		fail_msg("it was taken, where \"%s\" was due", word);
	if (!strstr(e.text, word))
		fail_msg("\"%s\" is not in \"%s\"", word, e.text);
	assert_memory_equal(&h, &nothing, sizeof(h));
}

/* What `from` is in the bytes becomes `to`, at its only occurrence. */
static inline struct state_buf replaced(const struct state_buf *b, const void *from, size_t nfrom,
					const void *to, size_t nto)
{
	struct state_buf r = { malloc(b->len + nto), 0, 0 };
	uint8_t *at = memmem(b->data, b->len, from, nfrom);
	size_t head;

	assert_non_null(r.data);
	assert_non_null(at);
	head = (size_t)(at - b->data);
	assert_null(memmem(at + 1, b->len - head - 1, from, nfrom));
	memcpy(r.data, b->data, head);
	memcpy(r.data + head, to, nto);
	memcpy(r.data + head + nto, at + nfrom, b->len - head - nfrom);
	r.len = b->len - nfrom + nto;
	return r;
}

/* The same with literals, which may hold zeroes. */
#define REPLACED(b, from, to) replaced(b, from, sizeof(from) - 1, to, sizeof(to) - 1)

static inline void refuse_replaced(const struct state_buf *b, const void *from, size_t nfrom,
				   const void *to, size_t nto, const char *word)
{
	struct state_buf r = replaced(b, from, nfrom, to, nto);

	assert_refused(r.data, r.len, word);
	state_buf_free(&r);
}
#define REFUSE(b, from, to, word) \
	refuse_replaced(b, from, sizeof(from) - 1, to, sizeof(to) - 1, word)

#endif
