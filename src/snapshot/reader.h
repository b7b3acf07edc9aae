/*
 * Reads a snapshot.  The file is hostile: whatever it holds, opening it takes bounded time and
 * memory and ends with a reader or with a sentence.  No thread rule but one reader, one thread at
 * a time; two readers of one file do not disturb each other.
 */
#ifndef SKEP_SNAPSHOT_READER_H
#define SKEP_SNAPSHOT_READER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "snapshot/manifest.h"

#define SNAP_RECORDS_MAX 4096	/* of one file: far more than any machine of ours has */

struct snap_inflate;

struct snap_record {
	const uint8_t *data;	/* CBOR; in the reader's memory */
	size_t len;
	uint64_t offset;	/* of the note's content in the file, for those who look */
};

struct snap_region {
	uint64_t gpa, size;
	uint64_t offset;	/* plain: of its bytes in the file */
	size_t first_chunk;	/* index into checksums */
};

struct snap_reader {
	int fd;			/* owned; a shared flock is held on it */
	char *path;		/* as given */
	uint64_t file_size;
	uint8_t digest[SNAP_DIGEST_SIZE];
	struct manifest manifest;	/* decoded and checked against headers and tables */
	struct snap_record manifest_note;
	struct snap_record *records;
	size_t nrecords;
	struct snap_region region[2];
	unsigned nregions;
	const uint64_t *checksums;	/* plain: one a chunk; else NULL */
	size_t nchunks;
	const struct snap_run *runs;	/* not plain; else NULL */
	size_t nruns;
	struct snap_reader *parent;	/* delta: its parent, or NULL when opened alone */
	/* The rest is the reader's own. */
	uint8_t *notes;		/* the note segment, notes_len bytes at notes_offset of the file */
	size_t notes_len;
	uint64_t notes_offset;
	void *notes_memory;	/* what notes lies in */
	struct snap_inflate *inflate;	/* for compressed runs, from the first one on */
};

enum {
	SNAP_OPEN_ALONE = 1,	/* do not look for the parents of a delta */
	SNAP_OPEN_PART = 2,	/* as much of the chain as there is; e->text says what is missing, or is "" */
};

/*
 * Opens a file and, for a delta, its chain of parents: by the path in the manifest, then by the
 * same name beside the child; the digest decides.  Checks the ELF structure, the digest, the
 * manifest and the tables.  A chain that is broken, cyclic, too deep or of another machine is
 * refused.  NULL with e set, and errno: EBADMSG for damage.  snap_open_fd owns fd from now
 * on, whatever is returned; path says where it lies, for sentences and for the search, and
 * may be NULL.
 */
struct snap_reader *snap_open(const char *path, unsigned flags, struct skep_error *e);
struct snap_reader *snap_open_fd(int fd, const char *path, unsigned flags, struct skep_error *e);
void snap_close(struct snap_reader *r);		/* and its parents; NULL is fine */
/*
 * Could a delta on the snapshot at path, which had this digest, be restored if it were written to
 * target (NULL: nobody knows where)?  0, or a negative errno and why not: path is another file now,
 * its chain is broken or as long as can be, or target is a part of it.  Any thread.
 */
int snap_check_base(const char *path, const uint8_t digest[SNAP_DIGEST_SIZE], const char *target,
		    struct skep_error *e);

/* Is a byte of this chunk stored in this file or a parent (it may be other than zero)? */
bool snap_chunk_stored(const struct snap_reader *r, uint64_t gpa);
/*
 * RAM of the chunk at gpa, through the whole chain, verified, into host: len bytes of zeroes, all
 * of the chunk (RAM_CHUNK, or what is left of the region).
 */
int snap_load_chunk(struct snap_reader *r, uint64_t gpa, uint8_t *host, size_t len,
		    struct skep_error *e);
/*
 * Reads and verifies all RAM, parents too.  progress may be NULL; it returns false to stop
 * (-ECANCELED).  e names the first place that is damaged.
 */
int snap_verify_ram(struct snap_reader *r, bool (*progress)(void *, uint64_t done, uint64_t all),
		    void *opaque, struct skep_error *e);

#endif
