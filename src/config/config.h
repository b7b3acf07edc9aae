/*
 * The configuration tree: typed keys, dotted paths, later settings win.
 *
 * A node is a place in the tree ("pci.0.3.0"); a schema names the keys that
 * may stand in it.  Unknown keys and mistyped values are errors which name the
 * nearest right key.  The tree is frozen before devices are made.
 */
#ifndef SKEP_CONFIG_CONFIG_H
#define SKEP_CONFIG_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "base/error.h"

enum config_type {
	CONFIG_STRING, CONFIG_PATH, CONFIG_BOOL, CONFIG_UINT,
	CONFIG_SIZE,		/* bytes; K M G T suffixes; unit says what a bare number is */
	CONFIG_CHOICE,		/* one of .choices */
	CONFIG_UUID,
};

struct config_key {
	const char *name;	/* relative to the node: "path"; may be dotted */
	enum config_type type;
	const char *def;	/* as text; NULL: unset unless given */
	uint64_t min, max;	/* UINT, SIZE; max 0 = no bound */
	uint64_t unit;		/* SIZE: multiplier of a bare number; 0 = 1 */
	const char *const *choices;	/* NULL-terminated */
	const char *help;	/* one line */
};

struct config_schema {
	const struct config_key *keys;
	size_t nkeys;
};

struct config;		/* a whole tree */
struct config_node;	/* a place in it; owned by the tree */

struct config *config_create(void);
void config_destroy(struct config *c);

/*
 * Sets a value as text.  Checks the type at once when the key is known by now;
 * config_freeze checks everything.  "%(name)" expands at freeze, "%%" is '%'.
 * origin says where it came from ("-o", "vm.conf:12") for later errors; copied.
 */
int config_set(struct config *c, const char *key, const char *value, const char *origin,
	       struct skep_error *e);
/* "key=value". */
int config_set_assignment(struct config *c, const char *assignment, const char *origin,
			  struct skep_error *e);
/*
 * bhyve_config(5) file: key=value lines, '#' comments on lines of their own.  Blanks around
 * key and value are dropped ("%()", which expands to nothing, keeps a blank at an end).
 * Errors say file:line.
 */
int config_load_file(struct config *c, const char *path, struct skep_error *e);
/*
 * Expands, checks every key against its schema, fills defaults; no sets afterwards.  After a
 * refusal the tree is still open, and may be corrected and frozen again.  -ENOENT: a key that is
 * not known.
 */
int config_freeze(struct config *c, struct skep_error *e);
/* Prints a file that config_load_file reads back to the same tree. */
void config_dump(const struct config *c, FILE *out);

/*
 * Calls fn for every value of a frozen tree, expanded, in the tree's order; given says that
 * somebody set it (the others are defaults).
 */
void config_each(const struct config *c,
		 void (*fn)(void *opaque, const char *key, const char *value, bool given),
		 void *opaque);
/* Sets a value that is taken as it is: "%" has no meaning in it. */
int config_set_literal(struct config *c, const char *key, const char *value, const char *origin,
		       struct skep_error *e);

/* Look-up.  path is from the root; NULL if no such node. Frozen tree: any thread. */
struct config_node *config_find(struct config *c, const char *path);
struct config_node *config_root(struct config *c);
/* Children in natural order (numbers by value): first child, next sibling. */
struct config_node *config_first(struct config_node *n);
struct config_node *config_next(struct config_node *n);
const char *config_name(const struct config_node *n);
const char *config_path(const struct config_node *n);	/* full dotted path */

/* Values of keys below a node (key may be dotted, n may be NULL: then unset). */
const char *config_string(struct config_node *n, const char *key);	/* NULL: unset */
bool config_bool(struct config_node *n, const char *key);
uint64_t config_uint(struct config_node *n, const char *key);		/* also SIZE, in bytes */
/* Has a value, given or by default: exactly when config_string() is not NULL. */
bool config_is_set(struct config_node *n, const char *key);
/* The 16 bytes of a UUID key in RFC 4122 (big-endian) order; false: unset. */
bool config_uuid(struct config_node *n, const char *key, uint8_t out[16]);

/* NUMA domains, which lie in RAM one after the other. */
#define CONFIG_DOMAINS_MAX 8
struct config_domain {
	uint64_t size;		/* bytes */
	uint64_t cpus;		/* a bit for each processor's number */
};
/* Those of a frozen tree by their numbers; returns how many, 0 where nobody asked for any. */
unsigned config_domains(struct config *c, struct config_domain d[static CONFIG_DOMAINS_MAX]);

/* The VM-wide keys (name, uuid, cpus, memory.size, boot.*, clock, ...): config/schema.c */
extern const struct config_schema config_vm_schema;
/* Writes every known key with type, default and help, for -o help and --json. */
void config_describe(FILE *out, bool json);

/*
 * What `-s` and `-l` and errors need to know about PCI slots.  bus, slot and func are -1 for a
 * device that may stand in any slot; positional is the key that a bare first word after the
 * comma sets, or NULL.
 */
struct config_slot_type {
	const char *name;
	int bus, slot, func;
	const char *positional;
	const char *help;
};
extern const struct config_slot_type config_slot_types[];	/* ends with name NULL */

#endif
