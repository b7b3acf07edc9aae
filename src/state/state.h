/*
 * State tables: one declarative table a record.
 *
 * A device declares the *modelled* chip (what a data sheet names) as a plain
 * struct of fixed-width fields, and a table of its fields.  The table drives
 * the text dump and the digest that prove determinism today, and encoding,
 * validation and the published schema of snapshots next.
 */
#ifndef SKEP_STATE_STATE_H
#define SKEP_STATE_STATE_H

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
};

struct state_record {
	const char *kind;	/* "i8254" */
	uint16_t version;
	uint32_t model_size;
	const struct state_field *fields;
	size_t nfields;
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
/* Arrays of scalars: type is one of the STATE_T_ names. */
#define STATE_ARRAY(st, m, t, ...) \
	STATE_FIELD_(st, m, t, ARRAY_SIZE(((st *)0)->m), __VA_ARGS__)
#define STATE_STRUCT(st, m, rec, ...) \
	STATE_FIELD_(st, m, STATE_T_STRUCT, 1, .sub = (rec), __VA_ARGS__)
#define STATE_STRUCTS(st, m, rec, ...) \
	STATE_FIELD_(st, m, STATE_T_STRUCT, ARRAY_SIZE(((st *)0)->m), .sub = (rec), __VA_ARGS__)

/* A device that has no state of its own says so. */
extern const struct state_record STATE_NONE;

/* Writes "instance.field = value" lines, one a scalar, in table order. */
void state_dump(FILE *out, const char *instance, const struct state_record *r,
		const void *model);
/* Checks every field against its max; names the field and value on failure. */
int state_check(const struct state_record *r, const char *instance, const void *model,
		struct skep_error *e);

#endif
