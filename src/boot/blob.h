/* A byte buffer that grows: tables are built in these. */
#ifndef SKEP_BOOT_BLOB_H
#define SKEP_BOOT_BLOB_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * Zero-initialised is empty.  When memory runs out, failed is set and every
 * later append does nothing: builders check it once, at the end.
 */
struct blob {
	uint8_t *data;
	size_t len, cap;
	bool failed;
};

void blob_free(struct blob *b);
/* Appends; returns the offset of what was appended. */
size_t blob_put(struct blob *b, const void *data, size_t len);
size_t blob_zero(struct blob *b, size_t len);
size_t blob_u8(struct blob *b, uint8_t v);
size_t blob_u16(struct blob *b, uint16_t v);
size_t blob_u32(struct blob *b, uint32_t v);
size_t blob_u64(struct blob *b, uint64_t v);
/* Appends exactly len bytes: the text, then padding. */
size_t blob_text(struct blob *b, const char *text, size_t len, char pad);
/* Appends zeroes up to a multiple of align. */
void blob_align(struct blob *b, size_t align);
/* Overwrites 32 bits that are there already. */
void blob_patch32(struct blob *b, size_t offset, uint32_t v);

/* The byte that makes data[0, len) sum to zero, if that byte is zero now. */
uint8_t blob_checksum(const uint8_t *data, size_t len);

#endif
