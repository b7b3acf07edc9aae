/* The reader's inside: reader.c opens one file, tables.c checks its tables, chain.c, load.c. */
#ifndef SKEP_SNAPSHOT_READER_PRIV_H
#define SKEP_SNAPSHOT_READER_PRIV_H

#include "base/util.h"
#include "snapshot/container.h"

/* Memory that the notes of a whole chain may take. */
#define SNAP_CHAIN_NOTES_MAX (4 * SNAP_NOTES_MAX)

/* One file, without its parents; path is not NULL. fd is owned, whatever is returned. */
struct snap_reader *snap_open_one(int fd, const char *path, struct skep_error *e);
/* A regular file, for reading; never waits for a pipe. Negative errno. */
int snap_open_file(const char *path, struct skep_error *e);
/* Opens the parents of r. */
int snap_open_chain(struct snap_reader *r, struct skep_error *e);

struct snap_note_view {
	const char *name;	/* one string */
	uint32_t type;
	const uint8_t *data;	/* in the reader's memory */
	size_t len;
};
/* The note at *at of the note segment, which is moved to the next one. */
int snap_next_note(const struct snap_reader *r, size_t *at, struct snap_note_view *n,
		   struct skep_error *e);

/* What the table note says, compared with regions, headers and file.  data is 8-byte aligned. */
int snap_check_checksums(struct snap_reader *r, const uint8_t *data, size_t len,
			 struct skep_error *e);
int snap_check_runs(struct snap_reader *r, const uint8_t *data, size_t len, struct skep_error *e);

/* Runs of the chunk at gpa: index of the first one at or above gpa. */
size_t snap_first_run(const struct snap_reader *r, uint64_t gpa);
/* Fetches and verifies one run of this file into host (run->len bytes). */
int snap_load_run(struct snap_reader *r, const struct snap_run *run, uint8_t *host,
		  struct skep_error *e);
/* Fetches and verifies one stored chunk of a plain file. */
int snap_load_plain(struct snap_reader *r, const struct snap_region *region, uint64_t gpa,
		    uint8_t *host, size_t len, struct skep_error *e);
void snap_inflate_free(struct snap_inflate *i);

#endif
