/*
 * What writer and reader of the container share: where things lie, the ELF headers, sums.
 * Internal to src/snapshot.  Any thread.
 */
#ifndef SKEP_SNAPSHOT_CONTAINER_H
#define SKEP_SNAPSHOT_CONTAINER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "snapshot/format.h"
#include "snapshot/reader.h"
#include "vm/memory.h"

#define SNAP_PAGE		4096ull
#define SNAP_REGIONS_MAX	2
#define SNAP_NOTES_MAX		(256 * MiB)	/* of one file */
#define SNAP_HEADERS_MAX	(64 + 56 * (1 + SNAP_REGIONS_MAX))
#define SNAP_NHDR		12		/* bytes of a note's header */
#define SNAP_RUNS_BASE		SNAP_PAGE	/* where stored runs begin in a file that has them */

/* ---- Places (elf.c) ---------------------------------------------------- */

/*
 * Regions as every reader and writer wants them: one or two, page aligned, not empty, the low
 * one at 0 and within RAM_LOW_MAX, the high one at RAM_HIGH_BASE and only above a full low one,
 * within RAM_SIZE_MAX in all.
 */
int snap_check_regions(const struct snap_region *r, unsigned n, struct skep_error *e);
/* Fills in offset and first_chunk.  Returns where a plain file's RAM ends; *chunks: how many. */
uint64_t snap_place_regions(struct snap_region *r, unsigned n, size_t *chunks);
/* The region that all of [gpa, gpa+len) lies in, or NULL. */
const struct snap_region *snap_find_region(const struct snap_region *r, unsigned n, uint64_t gpa,
					   uint64_t len);
/* Index of the chunk at gpa, in a region. */
static inline size_t snap_chunk_index(const struct snap_region *r, uint64_t gpa)
{
	return r->first_chunk + (gpa - r->gpa) / RAM_CHUNK;
}
/* ELF and program headers: bytes of them.  loads: each region has a PT_LOAD. */
size_t snap_headers(uint8_t out[SNAP_HEADERS_MAX], const struct snap_region *r, unsigned loads,
		    uint64_t notes_offset, uint64_t notes_len);

/* ---- Sums (sum.c) ------------------------------------------------------ */

uint64_t snap_sum(const void *data, size_t len);

struct snap_hash;	/* of a stream: one sum after the other */
struct snap_hash *snap_hash_create(void);	/* NULL: no memory */
void snap_hash_free(struct snap_hash *h);
void snap_hash_begin(struct snap_hash *h);
void snap_hash_update(struct snap_hash *h, const void *data, size_t len);
void snap_hash_zeroes(struct snap_hash *h, size_t len);
uint64_t snap_hash_sum(struct snap_hash *h);		/* XXH3_64bits */
/* The digest is 128 bits wide and has a stream of its own. */
void snap_digest_begin(struct snap_hash *h);
void snap_digest_update(struct snap_hash *h, const void *data, size_t len);
void snap_digest_end(struct snap_hash *h, uint8_t digest[SNAP_DIGEST_SIZE]);

/* A chunk's entry in the table of a plain file: 0 is kept for "all zero". */
static inline uint64_t snap_chunk_entry(uint64_t sum)
{
	return sum ? sum : 1;
}

bool snap_is_zero(const void *data, size_t len);	/* len: a multiple of 64 */

/* ---- Bytes to and from a file (io.c) ------------------------------------ */

struct iovec;
/* All of it, or a negative errno and a sentence; iov is used up. */
int snap_pwrite(int fd, const void *data, size_t len, uint64_t offset, struct skep_error *e);
int snap_pwritev(int fd, struct iovec *iov, int n, uint64_t offset, struct skep_error *e);
/* What to do about an error of a file that is written, to end a sentence with: "" or ": ...". */
const char *snap_remedy(int err);
/* Bytes that are not there: -ENODATA. */
int snap_pread(int fd, void *data, size_t len, uint64_t offset, struct skep_error *e);

#endif
