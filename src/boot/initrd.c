/*
 * Is an initial RAM disk what Linux can unpack, and is all of it there?
 *
 * Told without unpacking: cpio archives, zstd and lz4 streams are chains of
 * lengths that can be followed; of the others the first bytes are looked at.
 * gzip has nothing to follow: it is unpacked to nowhere on a thread of its own
 * while the machine starts (inflate.c).  An initramfs may be several archives
 * in a row, the first ones plain (microcode), the last one compressed.
 */
#include <errno.h>
#include <stdlib.h>

#include "base/util.h"
#include "boot/image.h"

#define CPIO_HEADER	110
#define CPIO_MEMBERS	2000000u	/* a bound, far above any real archive */

static int truncated(const struct boot_file *f, const char *what, struct skep_error *e)
{
	return skep_fail(e, ENOEXEC, "%s: '%s' is truncated: its %s goes on after byte %llu, where "
			 "the file ends: build it again", f->key, f->path, what,
			 (unsigned long long)f->size);
}

static int corrupt(const struct boot_file *f, uint64_t at, const char *what, struct skep_error *e)
{
	return skep_fail(e, ENOEXEC, "%s: '%s' is damaged at byte %llu (%s): build it again", f->key,
			 f->path, (unsigned long long)at, what);
}

static bool hex8(const uint8_t *p, uint64_t *value)
{
	*value = 0;
	for (int i = 0; i < 8; i++) {
		uint8_t c = p[i];

		if (c >= '0' && c <= '9')
			c -= '0';
		else if ((c | 0x20) >= 'a' && (c | 0x20) <= 'f')
			c = (c | 0x20) - 'a' + 10;
		else
			return false;
		*value = *value << 4 | c;
	}
	return true;
}

static bool is_cpio(const uint8_t *p)
{
	return !memcmp(p, "070701", 6) || !memcmp(p, "070702", 6);
}

/* Follows one "newc" archive; *at moves to the byte after its trailer. */
static int walk_cpio(const struct boot_file *f, uint64_t *at, struct skep_error *e)
{
	for (unsigned i = 0; i < CPIO_MEMBERS; i++) {
		uint8_t h[CPIO_HEADER + 11];
		uint64_t filesize, namesize, data;
		int r;

		if (*at > f->size || f->size - *at < sizeof(h))
			return truncated(f, "cpio archive", e);
		r = boot_file_read(f, *at, h, sizeof(h), e);
		if (r)
			return r;
		if (!is_cpio(h) || !hex8(h + 54, &filesize) || !hex8(h + 94, &namesize))
			return corrupt(f, *at, "no cpio header", e);
		data = ALIGN_UP(*at + CPIO_HEADER + namesize, 4);
		*at = ALIGN_UP(data + filesize, 4);
		if (namesize == 11 && !memcmp(h + CPIO_HEADER, "TRAILER!!!", 11))
			return 0;
		if (data + filesize > f->size)
			return truncated(f, "cpio archive", e);
	}
	return corrupt(f, *at, "too many members", e);
}

/* Zero bytes between archives; *at moves to the next byte that is not zero. */
static int skip_zeroes(const struct boot_file *f, uint64_t *at, struct skep_error *e)
{
	uint8_t buf[4096];

	while (*at < f->size) {
		size_t len = MIN(f->size - *at, (uint64_t)sizeof(buf));
		int r = boot_file_read(f, *at, buf, len, e);

		if (r)
			return r;
		for (size_t i = 0; i < len; i++, (*at)++)
			if (buf[i])
				return 0;
	}
	*at = f->size;
	return 0;
}

/* One zstd frame (RFC 8878, section 3.1.1): its blocks carry their lengths. */
static int walk_zstd(const struct boot_file *f, uint64_t at, struct skep_error *e)
{
	static const uint8_t dict_size[4] = { 0, 1, 2, 4 }, content_size[4] = { 0, 2, 4, 8 };
	uint8_t h[4];
	bool single, checksum, last = false;
	int r;

	if (f->size - at < 6)
		return truncated(f, "zstd stream", e);
	r = boot_file_read(f, at + 4, h, 1, e);
	if (r)
		return r;
	single = h[0] & 0x20;
	checksum = h[0] & 0x04;
	at += 5 + !single + dict_size[h[0] & 3] + content_size[h[0] >> 6];
	at += single && !(h[0] >> 6);
	while (!last) {
		uint32_t block;
		unsigned type;

		if (at > f->size || f->size - at < 3)
			return truncated(f, "zstd stream", e);
		r = boot_file_read(f, at, h, 3, e);
		if (r)
			return r;
		block = h[0] | h[1] << 8 | (uint32_t)h[2] << 16;
		last = block & 1;
		type = block >> 1 & 3;
		if (type == 3)
			return corrupt(f, at, "no zstd block", e);
		at += 3 + (type == 1 ? 1 : block >> 3);	/* 1: one byte, repeated */
	}
	return at + 4 * checksum > f->size ? truncated(f, "zstd stream", e) : 0;
}

/* lz4 legacy frames, which is what Linux takes: length, block, length, block. */
static int walk_lz4(const struct boot_file *f, uint64_t at, struct skep_error *e)
{
	for (at += 4; at < f->size; ) {
		uint8_t h[4];
		int r;

		if (f->size - at < 4)
			return truncated(f, "lz4 stream", e);
		r = boot_file_read(f, at, h, 4, e);
		if (r)
			return r;
		if (load32(h) == 0x184c2102 || !load32(h))	/* another frame, or padding */
			return 0;
		if (load32(h) > f->size - at - 4)
			return truncated(f, "lz4 stream", e);
		at += 4 + load32(h);
	}
	return 0;
}

static int walk_xz(const struct boot_file *f, uint64_t at, struct skep_error *e)
{
	uint64_t end = f->size;
	uint8_t tail[4];

	/* Streams are padded with zeroes to 4 bytes (xz file format, section 2.2). */
	while (end - at >= 32) {
		int r = boot_file_read(f, end - 4, tail, 4, e);

		if (r)
			return r;
		if (load32(tail))
			return memcmp(tail + 2, "YZ", 2) ? truncated(f, "xz stream", e) : 0;
		end -= 4;
	}
	return truncated(f, "xz stream", e);
}

static bool is_gzip(const uint8_t *p)
{
	return p[0] == 0x1f && p[1] == 0x8b;
}

static int walk_compressed(const struct boot_file *f, uint64_t at, const uint8_t *p,
			   struct skep_error *e)
{
	if (p[0] == 0x28 && p[1] == 0xb5 && p[2] == 0x2f && p[3] == 0xfd)
		return walk_zstd(f, at, e);
	if (p[0] == 0x02 && p[1] == 0x21 && p[2] == 0x4c && p[3] == 0x18)
		return walk_lz4(f, at, e);
	if (!memcmp(p, "\xfd" "7zXZ", 6))
		return walk_xz(f, at, e);
	if (is_gzip(p))			/* header 10 bytes, trailer 8 */
		return f->size - at < 18 ? truncated(f, "gzip stream", e) : 0;
	if (!memcmp(p, "BZh", 3) || !memcmp(p, "\x5d\0\0", 3) || !memcmp(p, "\x89LZO\0", 5))
		return 0;
	if (at)
		return corrupt(f, at, "neither a cpio archive nor a compressed one", e);
	return skep_fail(e, ENOEXEC, "%s: '%s' is not an initial RAM disk (a cpio archive, plain or "
			 "compressed by gzip, bzip2, lzma, xz, lzo, lz4 or zstd)", f->key, f->path);
}

int initrd_check(const struct boot_file *f, uint64_t *gzip, struct skep_error *e)
{
	uint64_t at = 0;

	*gzip = UINT64_MAX;
	if (!f->size)
		return skep_fail(e, ENOEXEC, "%s: '%s' is empty: build it again, or leave it out", f->key,
				 f->path);
	while (at < f->size) {
		uint8_t p[6] = { 0 };
		int r = boot_file_read(f, at, p, MIN(f->size - at, (uint64_t)sizeof(p)), e);

		if (r)
			return r;
		if (is_gzip(p))
			*gzip = at;
		if (!is_cpio(p))
			return walk_compressed(f, at, p, e);
		r = walk_cpio(f, &at, e);
		if (!r)
			r = skip_zeroes(f, &at, e);
		if (r)
			return r;
	}
	return 0;
}
