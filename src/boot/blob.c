#include "boot/blob.h"

#include <stdlib.h>
#include <string.h>

#include "base/util.h"

void blob_free(struct blob *b)
{
	free(b->data);
	*b = (struct blob){ 0 };
}

/* Room for len more bytes, or NULL. */
static uint8_t *blob_grow(struct blob *b, size_t len)
{
	uint8_t *p;

	if (b->failed)
		return NULL;
	if (len > b->cap - b->len) {
		size_t cap = MAX(b->len + len, MAX(2 * b->cap, (size_t)1024));
		uint8_t *data = cap > b->len ? realloc(b->data, cap) : NULL;

		if (!data) {
			b->failed = true;
			return NULL;
		}
		b->data = data;
		b->cap = cap;
	}
	p = b->data + b->len;
	b->len += len;
	return p;
}

size_t blob_put(struct blob *b, const void *data, size_t len)
{
	size_t at = b->len;
	uint8_t *p = blob_grow(b, len);

	if (p && len)
		memcpy(p, data, len);
	return at;
}

size_t blob_zero(struct blob *b, size_t len)
{
	size_t at = b->len;
	uint8_t *p = blob_grow(b, len);

	if (p)
		memset(p, 0, len);
	return at;
}

size_t blob_u8(struct blob *b, uint8_t v) { return blob_put(b, &v, 1); }
size_t blob_u16(struct blob *b, uint16_t v) { return blob_put(b, &v, 2); }
size_t blob_u32(struct blob *b, uint32_t v) { return blob_put(b, &v, 4); }
size_t blob_u64(struct blob *b, uint64_t v) { return blob_put(b, &v, 8); }

size_t blob_text(struct blob *b, const char *text, size_t len, char pad)
{
	size_t at = b->len, n = strnlen(text, len);
	uint8_t *p = blob_grow(b, len);

	if (p) {
		memcpy(p, text, n);
		memset(p + n, pad, len - n);
	}
	return at;
}

void blob_align(struct blob *b, size_t align)
{
	blob_zero(b, ALIGN_UP(b->len, align) - b->len);
}

void blob_patch32(struct blob *b, size_t offset, uint32_t v)
{
	if (!b->failed && offset + 4 <= b->len)
		store32(b->data + offset, v);
}

uint8_t blob_checksum(const uint8_t *data, size_t len)
{
	uint8_t sum = 0;

	for (size_t i = 0; i < len; i++)
		sum += data[i];
	return -sum;
}
