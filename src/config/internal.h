/* What the files of src/config share, and nobody else needs. */
#ifndef SKEP_CONFIG_INTERNAL_H
#define SKEP_CONFIG_INTERNAL_H

#include "config/config.h"

#define CONFIG_PATH_MAX		256	/* characters of a dotted path */
#define CONFIG_VALUE_MAX	65536	/* characters of a value after expansion */

enum expand_mark { EXPAND_NOT, EXPAND_NOW, EXPAND_DONE };

struct config_node {
	struct config *tree;
	struct config_node *parent, *first, *next;
	char *name, *path;		/* owned; "" for the root */
	char *raw;			/* as it was set; NULL: a place without a value */
	char *origin;			/* of raw */
	char *value;			/* expanded; from config_freeze on */
	const struct config_key *key;	/* from config_freeze on */
	uint64_t number;		/* BOOL, UINT, SIZE: parsed; from config_freeze on */
	bool is_default;
	enum expand_mark mark;
};

struct config {
	struct config_node root;
	bool frozen;
};

/* tree.c */
struct config_node *tree_find(struct config_node *n, const char *path);
int tree_set(struct config *c, const char *key, const char *value, const char *origin,
	     bool is_default, struct skep_error *e);
/* Depth-first, parents before children; NULL after the last. */
struct config_node *tree_next(const struct config_node *n);

/* value.c: 0 or -EINVAL; what says the key in errors. number may be NULL. */
int value_parse(const struct config_key *k, const char *what, const char *text,
		uint64_t *number, struct skep_error *e);
int value_parse_bool(const char *text, bool *v);
int value_parse_uint(const char *text, uint64_t *v);
int value_parse_size(const char *text, uint64_t unit, uint64_t *v);
int value_parse_uuid(const char *text, uint8_t out[16]);
/* "256M", "4K", "123": the shortest exact way to write a size. */
const char *value_size_text(uint64_t v, char buf[24]);
const char *value_type_name(enum config_type t);

/* expand.c: fills n->value from n->raw, and those of the nodes it names. */
int expand_node(struct config_node *n, struct skep_error *e);

/* schema.c */
struct device_type;

/* A place in the tree at which a schema of its own stands. '#' in pattern: any number. */
struct config_place {
	const char *pattern;		/* "lpc.com1", "pci.#.#.#" */
	const struct config_schema *schema;	/* keys that every node there has; may be NULL */
	const char *type;		/* the device type whose keys it has too; NULL: none */
	bool by_device;			/* the type is the value of the node's `device` key */
};
extern const struct config_place config_places[];	/* ends with pattern NULL */

/* A known key that has one possible value (only), or none yet (only NULL). '*': any suffix. */
struct config_limit {
	const char *key, *only, *why;
};
const struct config_limit *schema_limit(const char *path);

/* The place that the node is at, or is below; *at is the node of the place itself. */
const struct config_place *schema_place(struct config_node *n, struct config_node **at);
/* The key that describes the node, or NULL. */
const struct config_key *schema_key(struct config_node *n);
/* The device type's schema of the place at `at`, or NULL. */
const struct config_schema *schema_device(const struct config_place *p, struct config_node *at);
const struct config_slot_type *schema_slot_type(const char *name);
/* Calls fn with the full path of every key that could stand here instead of n. */
void schema_each_near(struct config_node *n, void (*fn)(void *opaque, const char *path),
		      void *opaque);
/* Checks of the tree as a whole. */
int schema_check_places(struct config *c, struct skep_error *e);
int schema_check_clock(struct config *c, struct skep_error *e);
int schema_check_name(struct config *c, struct skep_error *e);
int schema_check_backend(struct config *c, struct skep_error *e);
int schema_check_memory(struct config *c, struct skep_error *e);
/* NUMA domains: each processor in one, all memory in them.  -EINVAL. */
int schema_check_domains(struct config *c, uint64_t ncpus, struct skep_error *e);
int schema_check_topology(struct config *c, uint64_t *cpus, uint64_t *sockets,
			  struct skep_error *e);

#endif
