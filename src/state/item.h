/*
 * CBOR one item at a time: libcbor's stream decoder finds where an item ends and what it is,
 * and its callbacks leave that in a struct.  Bytes may be anything; nothing is copied.
 */
#ifndef SKEP_STATE_ITEM_H
#define SKEP_STATE_ITEM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

#define CBOR_DEPTH_MAX	16	/* items within items */
#define CBOR_BREAK	0xff	/* the byte that ends what has no length */

enum item_type {
	ITEM_UINT, ITEM_NEGATIVE, ITEM_BYTES, ITEM_TEXT, ITEM_ARRAY, ITEM_MAP, ITEM_BOOL,
	/* What no record has, but any CBOR may: */
	ITEM_TAG, ITEM_FLOAT, ITEM_NULL, ITEM_UNDEFINED,
	ITEM_BYTES_PARTS, ITEM_TEXT_PARTS, ITEM_ARRAY_OPEN, ITEM_MAP_OPEN, ITEM_BREAK,
};

struct item {
	enum item_type type;
	uint64_t value;		/* number; NEGATIVE: -1 - value; length; count; 0 or 1; tag */
	const uint8_t *data;	/* BYTES, TEXT: value bytes */
	double number;
};

struct item_reader {
	const uint8_t *data;
	size_t len, pos;
};

/* The next item, of any kind; of arrays and maps only the head. -EBADMSG: it is none. */
int item_next(struct item_reader *in, struct item *it, struct skep_error *e);
/*
 * The next one in the form of records: definite lengths, shortest heads, no other types; a count
 * that the bytes which are left cannot hold is refused.
 */
int item_next_strict(struct item_reader *in, struct item *it, struct skep_error *e);
/* Passes over one whole item in the form of records: text is UTF-8, keys are text, and rise. */
int item_skip(struct item_reader *in, unsigned depth, struct skep_error *e);
/* The same over any well-formed item. */
int item_pass(struct item_reader *in, unsigned depth, struct skep_error *e);
/* "an unsigned number", for sentences. */
const char *item_type_text(enum item_type t);

#endif
