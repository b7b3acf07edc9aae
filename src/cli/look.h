/* What the commands share that look at snapshots: progress, sizes, options. */
#ifndef SKEP_CLI_LOOK_H
#define SKEP_CLI_LOOK_H

#include <getopt.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "base/error.h"

/* A line on a terminal's standard error, with rate and time left. All zeroes but what, at first. */
struct look_progress {
	const char *what;	/* "verifying web.skep": of whoever types the command */
	bool quiet;
	int64_t begin_ns, told_ns;
	bool shown;
};
/* For the callbacks of src/snapshot: opaque is the struct; bytes.  Always true. */
bool look_progress(void *opaque, uint64_t done, uint64_t all);
void look_progress_end(struct look_progress *p);	/* takes the line away */

/* "1.5 GiB", "640 KiB", "12 bytes". */
const char *look_size(uint64_t bytes, char buf[32]);
/* "1 page", "2 pages", "0 pages". */
const char *look_count(uint64_t n, const char *what, char buf[48]);
void look_hex(FILE *out, const uint8_t *p, size_t n);
/* Text from a file, for a terminal. */
void look_text(const char *text);

/* "2026-11-21 23:22:01 UTC", of nanoseconds since the Epoch. */
const char *look_date(int64_t ns, char buf[48]);
/* How long: "2 days 3 h", "4 min 5 s", "1.25 s", "3.5 ms"; without a sign. */
const char *look_span(int64_t ns, char buf[48]);

struct snap_reader;
struct look_file {		/* of one file, without its parents */
	const char *kind;	/* "plain", "compressed", "delta", "compressed delta" */
	uint64_t size, allocated;	/* bytes of the file, and on the disk */
	uint64_t ram;		/* of the machine */
	uint64_t told;		/* bytes of RAM that the file tells of: all but for a delta */
	uint64_t stored;	/* bytes that RAM takes on the disk */
	unsigned parents;	/* those that were opened */
};
void look_file(const struct snap_reader *r, struct look_file *f);
/* Its members, without braces: "size": 1, ... */
void look_file_json(const struct look_file *f);

/* The sentence about an option that getopt_long did not take; got is '?' or ':'. */
int look_bad_option(const char *command, const struct option *options, char **argv, int got,
		    struct skep_error *e);
/* Has all of standard output been written? CLI_ERROR and a complaint if not, else code. */
int look_end(int code);

#endif
