/*
 * What the files of this room share: how a field's elements lie in a model, how an element is
 * called, which fields a version has, and defaults.  Not for other rooms.
 */
#ifndef SKEP_STATE_FIELDS_H
#define SKEP_STATE_FIELDS_H

#include "state/codec.h"
#include "state/state.h"

#define STATE_FIELDS_MAX 128	/* fields of one record */
#define STATE_NEST_MAX	6	/* records within records */
#define STATE_KEY_MAX	63	/* bytes of a field's name */
#define STATE_PATH_TEXT	320

/* Bytes of one scalar; 0 for what is not a scalar. */
unsigned state_scalar_size(enum state_type t);
uint64_t state_scalar_get(const void *p, unsigned size);
void state_scalar_set(void *p, unsigned size, uint64_t v);
/* The largest value that the type can hold and the table allows; not for times. */
uint64_t state_scalar_max(const struct state_field *f);

/* Elements as they are shown and encoded: an array of arrays of scalars counts flat. */
static inline uint32_t state_elements(const struct state_field *f)
{
	unsigned unit = state_scalar_size(f->type);

	return unit ? f->size / unit * f->count : f->count;
}

static inline uint32_t state_element_size(const struct state_field *f)
{
	unsigned unit = state_scalar_size(f->type);

	return unit ? unit : f->size;
}

static inline bool state_has(const struct state_field *f, uint16_t version)
{
	return f->since <= version && (!f->until || version <= f->until);
}

/*
 * Where in a record we are, innermost first, each on the stack of who looks there: names are
 * written only when somebody is to read them.
 */
struct state_path {
	const struct state_path *up;
	const char *name;	/* NULL: an index into what is above */
	uint32_t index;
	bool indexed;
};

static inline struct state_path state_path_field(const struct state_path *up,
						 const struct state_field *f, uint32_t i)
{
	return (struct state_path){ up, f->name, i, state_elements(f) > 1 };
}

static inline struct state_path state_path_item(const struct state_path *up, uint32_t i)
{
	return (struct state_path){ up, NULL, i, true };
}

/* "lpc.pit.channel[0].mode" into buf of STATE_PATH_TEXT bytes; a path with no root name is "". */
const char *state_path_text(const struct state_path *path, char *buf);
/* skep_fail with the name of the place, a colon and a space before the sentence. */
int state_path_fail(const struct state_path *path, struct skep_error *e, int err, const char *fmt,
		    ...) __attribute__((format(printf, 4, 5)));

/* Is it UTF-8 without control characters? */
bool state_text_ok(const void *text, size_t len);

/* Is the scalar within its range?  And state_check, of the fields that a version has. */
int state_check_scalar(const struct state_field *f, const struct state_path *path, uint64_t v,
		       struct skep_error *e);
int state_check_version(const struct state_record *r, const char *instance, const void *model,
			uint16_t version, const struct state_context *context,
			struct skep_error *e);

/* Every element of the field gets its default; what it owned is freed. */
void state_field_default(const struct state_field *f, void *p);
bool state_field_is_default(const struct state_field *f, const void *p);
/* Every field that the version does not have gets its default, at all depths. */
void state_default_absent(const struct state_record *r, uint16_t version, void *model);
/* dst, model_size bytes, becomes a copy that owns what it holds. -ENOMEM: it owns nothing. */
int state_copy(const struct state_record *r, void *dst, const void *src);

/*
 * The fields of a version in the order of their keys: shorter ones first, then by byte, which
 * is the order of their encodings (RFC 8949, 4.2.1).
 */
struct state_plan {
	uint16_t n;
	struct { const struct state_field *f; uint8_t len; } key[STATE_FIELDS_MAX];
};
enum state_half { STATE_REQ, STATE_OPT, STATE_ALL };
void state_plan(struct state_plan *plan, const struct state_record *r, uint16_t version,
		enum state_half half);
/* < 0, 0, > 0: which of two keys comes first. */
int state_key_compare(const void *a, size_t alen, const void *b, size_t blen);

#endif
