/*
 * Snapshot files from somebody who means harm, in one process: loaded, and where they are
 * accepted, run for a moment.
 *
 *	seeds.c		good snapshots of small machines, made here
 *	image.c		a file as header, RAM and notes, and back, its digest right
 *	cbor.c		a record as a tree that can be made into anything
 *	mutate.c	the changes; deterministic from a seed
 *	load.c		what a file must come to: a machine, or a sentence
 *	limits.c	what is too large to come of a few changes
 *	main.c		every bit, every length, and very many mutations
 */
#ifndef SKEP_TESTS_HOSTILE_H
#define SKEP_TESTS_HOSTILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

/* ---- Random numbers ------------------------------------------------------- */

struct rng { uint64_t state; };

static inline uint64_t rng_next(struct rng *r)		/* splitmix64 */
{
	uint64_t z = r->state += 0x9e3779b97f4a7c15ull;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ z >> 27) * 0x94d049bb133111ebull;
	return z ^ z >> 31;
}

static inline size_t rng_below(struct rng *r, size_t n) { return n ? rng_next(r) % n : 0; }
static inline bool rng_chance(struct rng *r, unsigned percent) { return rng_below(r, 100) < percent; }

/* ---- Images (image.c) ----------------------------------------------------- */

#define IMAGE_HEAD	4096		/* bytes before RAM: ELF header, program headers */
#define IMAGE_MAX	(16u << 20)	/* of a whole file */

struct image_note {
	uint8_t *name;			/* with its NUL, if it has one */
	uint32_t name_len;
	uint32_t type;
	uint8_t *data;
	size_t len;
};

struct image_part {			/* bytes of RAM in the file */
	uint64_t offset;
	uint8_t *data;
	size_t len;
};

struct image {
	uint8_t head[IMAGE_HEAD];
	struct image_part *parts;
	size_t nparts;
	struct image_note *note;
	size_t nnotes, room;
	uint64_t notes_offset;
	bool loose;			/* the note segment's size is left as the header has it */
	bool other_ram;			/* parts or places of RAM are not the seed's any more */
};

/* Takes a snapshot apart; false: it is none. Copies. */
bool image_parse(struct image *m, const uint8_t *data, size_t len);
void image_copy(struct image *to, const struct image *from);
/* Another note at k; its bytes are copied. */
void image_insert(struct image *m, size_t k, const struct image_note *n);
void image_free(struct image *m);
/* The note segment, with a right digest in its end mark if it has one; from malloc. */
uint8_t *image_notes(struct image *m, size_t *len);
/* The whole file, from malloc. */
uint8_t *image_bytes(struct image *m, size_t *len);
/*
 * A file with its holes left out, so that a plain snapshot is a few KiB: "SKEPHOLE", then
 * (offset, length: 8 bytes each; bytes) until a length of 0, whose offset is the file's size.
 */
uint8_t *sparse_pack(const uint8_t *data, size_t len, size_t *packed);
/* NULL where data is not packed; at most IMAGE_MAX bytes. */
uint8_t *sparse_unpack(const uint8_t *data, size_t len, size_t *unpacked);

/* ---- The mutator (mutate.c) ------------------------------------------------ */

/* Changes m in one to a few ways; others are snapshots to take pieces from. */
void mutate(struct image *m, struct rng *r, const struct image *others, size_t nothers);

/* ---- Loading (load.c) ------------------------------------------------------ */

struct hostile_options {
	const char *path;	/* where the file says that it lies: its parent is looked for there */
	uint64_t choice;	/* options of the restore, and which views are looked at */
	uint64_t insns;		/* how long an accepted machine runs, at most */
};

enum hostile_result { HOSTILE_REFUSED, HOSTILE_ACCEPTED };

/*
 * Opens, restores, runs and ends what lies in fd (owned).  Whatever the file holds it comes
 * back with an answer; text (256 bytes) gets the sentence of a refusal.  A violation of what a
 * hostile file may do is told on stderr, and ends the process after hostile_failed().
 */
enum hostile_result hostile_load_fd(int fd, const struct hostile_options *o, char *text);
enum hostile_result hostile_load(const uint8_t *data, size_t len, const struct hostile_options *o,
				 char *text);
/* Is told of a violation before the process ends; saves what led to it. */
extern void (*hostile_failed)(void);
/* Starts the watchdog. */
void hostile_begin(void);
/* Descriptors and memory that were not given back since hostile_begin: 0, and a sentence. */
bool hostile_end(void);
/* Are we built with a sanitizer? */
bool hostile_sanitized(void);

/* ---- Seeds (seeds.c) -------------------------------------------------------- */

struct seed {
	char name[32];
	char path[128];		/* of the file, in the directory */
	struct image image;
	uint8_t *data;
	size_t len;
};

/* Makes good snapshots in a directory; guests: where tests/guests are built. Or ends the process. */
size_t seeds_make(struct seed **seeds, const char *directory, const char *guests);
void seeds_free(struct seed *seeds, size_t n);

/* ---- Files that are too large (limits.c) ---------------------------------------- */

void limits(const struct seed *seed);	/* one that is not plain */

#endif
