/*
 * State tables: one declarative table a record.
 *
 * A device declares the *modelled* chip (what a data sheet names) as a plain
 * struct of fixed-width fields, and a table of its fields.  The table drives
 * encoding and decoding (CBOR), range checks, the text dump, the JSON view, the
 * comparison of two states and the published schema (CDDL).
 *
 * Versions.  A record has a version, from 1; a field says from which version on
 * it exists (.since) and in which it was last there (.until).  A generation is
 * the set of the versions of all records that one release writes
 * (generation.h).  What an older file does not have takes its .def; what an older
 * version cannot express (a value that is not .def) refuses the save by name.
 *
 * A sub-record counts in the versions of the record that it lies in, since only those stand in
 * a file: its own version is the last one in which it changed.  In a model a retired field
 * (.until) is always at its default; only upgrade and downgrade hooks see other values in it.
 *
 * Any thread: tables are constant, and a model belongs to its caller.
 */
#ifndef SKEP_STATE_STATE_H
#define SKEP_STATE_STATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "base/error.h"
#include "base/util.h"

enum state_type {
	STATE_T_U8, STATE_T_U16, STATE_T_U32, STATE_T_U64, STATE_T_BOOL,
	STATE_T_TIME,		/* int64_t, guest ns */
	STATE_T_BYTES,		/* fixed-size byte string */
	STATE_T_STRUCT,		/* sub-record: .sub */
	STATE_T_TEXT,		/* char[n], NUL-terminated, printable UTF-8 */
	STATE_T_BLOB,		/* struct state_blob; at most .max bytes, which is never 0 */
	STATE_T_LIST,		/* struct state_list of .sub; at most .max of them, never 0 */
	STATE_T_GPA,		/* uint64_t: guest-physical address of .len bytes of RAM */
};

/* Bytes from malloc, owned by the model. */
struct state_blob {
	uint8_t *data;		/* NULL when len is 0 */
	uint32_t len;
};

/* Models of the sub-record one after the other, from malloc, owned by the model. */
struct state_list {
	void *items;		/* NULL when count is 0 */
	uint32_t count;
};

struct state_record;

struct state_field {
	const char *name;
	enum state_type type;
	uint32_t offset;	/* in the model struct */
	uint32_t size;		/* bytes of one element */
	uint32_t count;		/* elements; 1 for a scalar */
	uint64_t max;		/* largest value allowed; 0 = whole range of the type */
	const struct state_record *sub;
	uint64_t len;		/* STATE_T_GPA: bytes at the address, checked against RAM */
	uint16_t since;		/* record version; 0 means 1 */
	uint16_t until;		/* last record version that has it; 0: it is still there */
	uint64_t def;		/* scalars: what a file without it means, in each element */
	bool opt;		/* lies in the map that a reader may skip; not in sub-records */
	bool host;		/* about the host or this file, not about the guest: differs between
				 * two saves of the same machine (skep diff says so) */
};

struct state_record {
	const char *kind;	/* "i8254" */
	uint16_t version;	/* the newest one */
	uint32_t model_size;
	const struct state_field *fields;
	size_t nfields;
	/*
	 * May be NULL.  A model decoded from an older version, every missing field at its
	 * .def, is completed; and a copy of a model about to be saved as an older version gets its
	 * retired fields filled in, and what they express put to its .def, or is refused by naming
	 * the value that is in the way (what is left over is refused by itself).
	 */
	void (*upgrade)(void *model, uint16_t from);
	int (*downgrade)(void *model, uint16_t to, struct skep_error *e);
};

#define STATE_FIELD_(st, m, t, n, ...) \
	{ .name = #m, .type = (t), .offset = offsetof(st, m), \
	  .size = sizeof(((st *)0)->m) / (n), .count = (n), __VA_ARGS__ }
#define STATE_U8(st, m, ...)	STATE_FIELD_(st, m, STATE_T_U8, 1, __VA_ARGS__)
#define STATE_U16(st, m, ...)	STATE_FIELD_(st, m, STATE_T_U16, 1, __VA_ARGS__)
#define STATE_U32(st, m, ...)	STATE_FIELD_(st, m, STATE_T_U32, 1, __VA_ARGS__)
#define STATE_U64(st, m, ...)	STATE_FIELD_(st, m, STATE_T_U64, 1, __VA_ARGS__)
#define STATE_BOOL(st, m, ...)	STATE_FIELD_(st, m, STATE_T_BOOL, 1, __VA_ARGS__)
#define STATE_TIME(st, m, ...)	STATE_FIELD_(st, m, STATE_T_TIME, 1, __VA_ARGS__)
#define STATE_BYTES(st, m, ...)	STATE_FIELD_(st, m, STATE_T_BYTES, 1, __VA_ARGS__)
#define STATE_TEXT(st, m, ...)	STATE_FIELD_(st, m, STATE_T_TEXT, 1, __VA_ARGS__)
#define STATE_BLOB(st, m, ...)	STATE_FIELD_(st, m, STATE_T_BLOB, 1, __VA_ARGS__)
#define STATE_LIST(st, m, rec, ...) \
	STATE_FIELD_(st, m, STATE_T_LIST, 1, .sub = (rec), __VA_ARGS__)
#define STATE_GPA(st, m, ...)	STATE_FIELD_(st, m, STATE_T_GPA, 1, __VA_ARGS__)
/* Arrays of scalars: type is one of the STATE_T_ names. */
#define STATE_ARRAY(st, m, t, ...) \
	STATE_FIELD_(st, m, t, ARRAY_SIZE(((st *)0)->m), __VA_ARGS__)
#define STATE_STRUCT(st, m, rec, ...) \
	STATE_FIELD_(st, m, STATE_T_STRUCT, 1, .sub = (rec), __VA_ARGS__)
#define STATE_STRUCTS(st, m, rec, ...) \
	STATE_FIELD_(st, m, STATE_T_STRUCT, ARRAY_SIZE(((st *)0)->m), .sub = (rec), __VA_ARGS__)

/* A device that has no state of its own says so. */
extern const struct state_record STATE_NONE;

/* What a check needs to know of the machine: is [gpa, gpa+len) RAM? NULL: nothing to check. */
struct state_context {
	bool (*is_ram)(void *opaque, uint64_t gpa, uint64_t len);
	void *opaque;
};

/* Is the table right: every field within its model, bounds where they must be? At start-up. */
int state_record_check(const struct state_record *r, struct skep_error *e);

/* Writes "instance.field = value" lines, one a scalar, in table order. */
void state_dump(FILE *out, const char *instance, const struct state_record *r,
		const void *model);
/* Checks every field against its max and its type; names the field and value on failure. */
int state_check(const struct state_record *r, const char *instance, const void *model,
		const struct state_context *context, struct skep_error *e);
/* Frees what blobs and lists own and zeroes the model (model_size bytes). */
void state_free(const struct state_record *r, void *model);

#endif
