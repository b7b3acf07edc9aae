/* CBOR as a tree that may be changed into anything, also into what no encoder would write. */
#ifndef SKEP_TESTS_HOSTILE_CBOR_H
#define SKEP_TESTS_HOSTILE_CBOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum node_type { NODE_UINT, NODE_NEGATIVE, NODE_BYTES, NODE_TEXT, NODE_ARRAY, NODE_MAP, NODE_TAG,
		 NODE_SIMPLE };	/* as the major types */

struct node {
	enum node_type type;
	uint64_t value;		/* number (NEGATIVE: -1 - value), tag, simple value */
	uint8_t *data;		/* BYTES, TEXT */
	size_t len;
	struct node *first;	/* ARRAY, MAP (keys and values in turn), TAG */
	struct node *next;
	int64_t claim;		/* what the head says is more than there is, by so many */
	uint8_t wide;		/* bytes of the head's argument; 0: as few as will do */
};

/* What trees are made of: freed all at once. */
struct arena {
	struct block { struct block *next; size_t used, size; } *blocks;
};
void *arena_get(struct arena *a, size_t len);
void arena_free(struct arena *a);

/* NULL: it is no CBOR of definite lengths. */
struct node *node_parse(struct arena *a, const uint8_t *data, size_t len);
struct node *node_copy(struct arena *a, const struct node *n);
/* From malloc.  sorted: keys of maps in deterministic order. */
uint8_t *node_bytes(struct node *n, bool sorted, size_t *len);

struct node *node_uint(struct arena *a, uint64_t v);
struct node *node_text(struct arena *a, const char *text);
struct node *node_string(struct arena *a, enum node_type type, const void *data, size_t len);
/* The value of a key, NULL if it is not there; n may be NULL. */
struct node *node_get(struct node *n, const char *key);
/* A number, if there is one at n. */
bool node_set(struct node *n, uint64_t v);
unsigned node_children(const struct node *n);
/* All nodes of a tree in order: into list (room for max), returns how many. */
size_t node_list(struct node *n, struct node **list, size_t max);

#endif
