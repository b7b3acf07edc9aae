#include "boot/aml.h"

#include <string.h>

#include "base/util.h"

/* Names. */

static void put_segment(struct blob *b, const char *s, size_t len)
{
	char seg[4] = { '_', '_', '_', '_' };

	memcpy(seg, s, MIN(len, sizeof(seg)));
	blob_put(b, seg, sizeof(seg));
}

void aml_path(struct blob *b, const char *path)
{
	unsigned segments = 1;

	if (*path == '\\')
		blob_u8(b, *path++);
	for (const char *p = path; *p; p++)
		segments += *p == '.';
	if (segments == 2)
		blob_u8(b, 0x2e);	/* DualNamePrefix */
	if (segments > 2) {
		blob_u8(b, 0x2f);	/* MultiNamePrefix */
		blob_u8(b, segments);
	}
	for (;;) {
		size_t len = strcspn(path, ".");

		put_segment(b, path, len);
		if (!path[len])
			return;
		path += len + 1;
	}
}

/* Packages: the length goes in front when it is known. */

static size_t open_op(struct blob *b, uint8_t op)
{
	blob_u8(b, op);
	return b->len;
}

static size_t open_ext(struct blob *b, uint8_t op)
{
	blob_u8(b, 0x5b);
	return open_op(b, op);
}

size_t aml_scope(struct blob *b, const char *path)
{
	size_t open = open_op(b, 0x10);

	aml_path(b, path);
	return open;
}

size_t aml_device(struct blob *b, const char *name)
{
	size_t open = open_ext(b, 0x82);

	aml_path(b, name);
	return open;
}

size_t aml_method(struct blob *b, const char *name, unsigned args)
{
	size_t open = open_op(b, 0x14);

	aml_path(b, name);
	blob_u8(b, args & 15);
	return open;
}

size_t aml_package(struct blob *b, uint8_t elements)
{
	size_t open = open_op(b, 0x12);

	blob_u8(b, elements);
	return open;
}

size_t aml_if(struct blob *b) { return open_op(b, 0xa0); }
size_t aml_else(struct blob *b) { return open_op(b, 0xa1); }

/*
 * PkgLength counts itself (section 20.2.4): one byte up to 63, else the low
 * four bits in the first byte and eight more in each byte that follows.
 */
void aml_end(struct blob *b, size_t open)
{
	size_t len = b->len - open;
	uint8_t enc[4];
	unsigned n = len + 1 <= 0x3f ? 1 : len + 2 <= 0xfff ? 2 : len + 3 <= 0xfffff ? 3 : 4;

	if (b->failed)
		return;
	blob_zero(b, n);
	if (b->failed)
		return;
	memmove(b->data + open + n, b->data + open, len);
	len += n;
	enc[0] = n == 1 ? len : (n - 1) << 6 | (len & 0xf);
	for (unsigned i = 1; i < n; i++)
		enc[i] = len >> (4 + 8 * (i - 1));
	memcpy(b->data + open, enc, n);
}

/* Objects. */

void aml_int(struct blob *b, uint64_t v)
{
	if (v <= 1) {
		blob_u8(b, v);
	} else if (v <= UINT8_MAX) {
		blob_u8(b, 0x0a);
		blob_u8(b, v);
	} else if (v <= UINT16_MAX) {
		blob_u8(b, 0x0b);
		blob_u16(b, v);
	} else if (v <= UINT32_MAX) {
		blob_u8(b, 0x0c);
		blob_u32(b, v);
	} else {
		blob_u8(b, 0x0e);
		blob_u64(b, v);
	}
}

size_t aml_dword(struct blob *b, uint32_t v)
{
	blob_u8(b, 0x0c);
	return blob_u32(b, v);
}

void aml_string(struct blob *b, const char *text)
{
	blob_u8(b, 0x0d);
	blob_put(b, text, strlen(text) + 1);
}

static unsigned hex_digit(char c)
{
	return c <= '9' ? c - '0' : c - 'A' + 10;
}

/* Three letters of five bits, then four hexadecimal digits, most significant first. */
void aml_eisa(struct blob *b, const char *id)
{
	uint32_t v = (uint32_t)(id[0] - 0x40) << 26 | (uint32_t)(id[1] - 0x40) << 21 |
		     (uint32_t)(id[2] - 0x40) << 16 | hex_digit(id[3]) << 12 |
		     hex_digit(id[4]) << 8 | hex_digit(id[5]) << 4 | hex_digit(id[6]);

	blob_u8(b, 0x0c);
	blob_u32(b, __builtin_bswap32(v));
}

void aml_buffer(struct blob *b, const void *data, size_t len)
{
	size_t open = open_op(b, 0x11);

	aml_int(b, len);
	blob_put(b, data, len);
	aml_end(b, open);
}

void aml_name(struct blob *b, const char *name)
{
	blob_u8(b, 0x08);
	aml_path(b, name);
}

void aml_name_int(struct blob *b, const char *name, uint64_t v)
{
	aml_name(b, name);
	aml_int(b, v);
}

void aml_name_string(struct blob *b, const char *name, const char *text)
{
	aml_name(b, name);
	aml_string(b, text);
}

void aml_name_eisa(struct blob *b, const char *name, const char *id)
{
	aml_name(b, name);
	aml_eisa(b, id);
}

void aml_op(struct blob *b, uint8_t op)
{
	blob_u8(b, op);
}

void aml_dword_field(struct blob *b, uint8_t source, uint64_t byte, const char *name)
{
	blob_u8(b, 0x8a);
	blob_u8(b, source);
	aml_int(b, byte);
	aml_path(b, name);
}

void aml_region(struct blob *b, const char *name, uint8_t space, uint64_t offset, uint64_t len)
{
	open_ext(b, 0x80);
	aml_path(b, name);
	blob_u8(b, space);
	aml_int(b, offset);
	aml_int(b, len);
}

size_t aml_field(struct blob *b, const char *region)
{
	size_t open = open_ext(b, 0x81);

	aml_path(b, region);
	blob_u8(b, 0x01);	/* byte access, no lock, the other bits preserved */
	return open;
}

void aml_field_entry(struct blob *b, const char *name, uint8_t bits)
{
	if (name)
		aml_path(b, name);
	else
		blob_u8(b, 0);
	blob_u8(b, bits);
}

/* Resources. */

#define RES_FIXED	0x0c	/* both ends fixed, positive decode, resource producer */
#define RES_IO_RANGES	0x03	/* ISA and non-ISA addresses */
#define RES_MEMORY_RW	0x01	/* read-write, not cacheable */

void aml_res_io(struct blob *r, uint16_t base, uint8_t len)
{
	blob_u8(r, 0x47);
	blob_u8(r, 1);		/* decodes 16 bits */
	blob_u16(r, base);
	blob_u16(r, base);
	blob_u8(r, 1);
	blob_u8(r, len);
}

void aml_res_irq(struct blob *r, unsigned irq)
{
	blob_u8(r, 0x22);	/* without flags: edge, active high, exclusive */
	blob_u16(r, 1u << irq);
}

void aml_res_memory32(struct blob *r, uint32_t base, uint32_t len)
{
	blob_u8(r, 0x86);
	blob_u16(r, 9);
	blob_u8(r, 1);		/* read-write */
	blob_u32(r, base);
	blob_u32(r, len);
}

static void window16(struct blob *r, uint8_t type, uint8_t flags, uint16_t first, uint16_t last,
		     uint32_t len)
{
	blob_u8(r, 0x88);
	blob_u16(r, 13);
	blob_u8(r, type);
	blob_u8(r, RES_FIXED);
	blob_u8(r, flags);
	blob_u16(r, 0);
	blob_u16(r, first);
	blob_u16(r, last);
	blob_u16(r, 0);
	blob_u16(r, len);
}

void aml_res_bus(struct blob *r, uint16_t first, uint16_t last)
{
	window16(r, 2, 0, first, last, last - first + 1);
}

void aml_res_io_window(struct blob *r, uint16_t first, uint16_t last)
{
	window16(r, 1, RES_IO_RANGES, first, last, last - first + 1);
}

void aml_res_memory_window32(struct blob *r, uint32_t first, uint32_t last)
{
	blob_u8(r, 0x87);
	blob_u16(r, 23);
	blob_u8(r, 0);
	blob_u8(r, RES_FIXED);
	blob_u8(r, RES_MEMORY_RW);
	blob_u32(r, 0);
	blob_u32(r, first);
	blob_u32(r, last);
	blob_u32(r, 0);
	blob_u32(r, last - first + 1);
}

void aml_res_memory_window64(struct blob *r, uint64_t first, uint64_t last)
{
	blob_u8(r, 0x8a);
	blob_u16(r, 43);
	blob_u8(r, 0);
	blob_u8(r, RES_FIXED);
	blob_u8(r, RES_MEMORY_RW);
	blob_u64(r, 0);
	blob_u64(r, first);
	blob_u64(r, last);
	blob_u64(r, 0);
	blob_u64(r, last - first + 1);
}

void aml_crs(struct blob *b, struct blob *r)
{
	blob_u8(r, 0x79);	/* end tag; a checksum of zero counts as right */
	blob_u8(r, 0);
	aml_name(b, "_CRS");
	if (r->failed)
		b->failed = true;
	else
		aml_buffer(b, r->data, r->len);
	blob_free(r);
}
