/*
 * A record as bytes: deterministic CBOR (RFC 8949, 4.2.1), through libcbor.
 *
 *	{ "kind": tstr, "name": tstr, "version": uint, "req": { ... }, "opt": { ... } }
 *
 * All five are there, in the order of their encodings: opt, req, kind, name, version; so are
 * the field names, which are the keys of req and opt: shorter ones first, then by byte.
 * Scalars are unsigned integers, times are integers, booleans are booleans, TEXT is text,
 * BYTES and BLOB are byte strings, arrays (flat, however many dimensions) and lists are
 * arrays, sub-records are maps.  An array of one element is written as that element.  What is
 * read must be in the same deterministic form.  A key of req must be there; one of opt that is
 * not there means its .def, or nothing.
 *
 * Errors: -EBADMSG where the bytes are no record, -EPROTO where the record has another shape than
 * the table (a key, a type, a count, a newer version), -EINVAL where a value is not as the table
 * wants it, -ENOTSUP where an older version cannot express it, -ENOMEM.  Any thread.
 */
#ifndef SKEP_STATE_CODEC_H
#define SKEP_STATE_CODEC_H

#include "state/state.h"

#define STATE_NAME_MAX 31	/* bytes of a kind or an instance name */

struct state_buf {		/* all zeroes at first; data from malloc, owned by the holder */
	uint8_t *data;
	size_t len, cap;
};
void state_buf_free(struct state_buf *b);

/*
 * Appends one record, as its version `version` (1 to r->version).  The model is checked first
 * (state_check without context) and not changed.  On failure nothing has been appended.
 */
int state_encode(const struct state_record *r, const char *name, const void *model,
		 uint16_t version, struct state_buf *out, struct skep_error *e);

struct state_head {		/* what a record says of itself */
	char kind[STATE_NAME_MAX + 1], name[STATE_NAME_MAX + 1];
	uint16_t version;
};

/* Reads the head of the record in [data, data+len); the bytes may be anything. */
int state_peek(const uint8_t *data, size_t len, struct state_head *head, struct skep_error *e);

/* Told of every key in opt that this release does not know: it is skipped. May be NULL. */
typedef void state_skipped_fn(void *opaque, const char *name, const char *key);

/*
 * Decodes the record into model: model_size bytes of zeroes, which own nothing yet.
 * Kind and name must be those given; an unknown key in req, a missing key, a newer version,
 * a wrong type, a value out of range, a count that is not the table's, bytes that are left
 * over: refused by naming it.  Older versions are completed.  Includes state_check without
 * context.  Never allocates more than the table allows.  On failure the model owns nothing.
 */
int state_decode(const struct state_record *r, const char *name, const uint8_t *data, size_t len,
		 void *model, state_skipped_fn *skipped, void *opaque, struct skep_error *e);

/* ---- Views ------------------------------------------------------------ */

/*
 * The model as a JSON object, indented by so many spaces; no newline at the end.  Numbers are
 * whole, from -2^63 to 2^64-1; bytes are hexadecimal text.
 */
void state_json(FILE *out, const struct state_record *r, const void *model, unsigned indent);
/*
 * Any well-formed CBOR as JSON, for records that this release does not know; nothing is written
 * if it is not well formed, or deeper than CBOR_DEPTH_MAX (item.h).
 */
int state_json_cbor(FILE *out, const uint8_t *data, size_t len, unsigned indent,
		    struct skep_error *e);

/* Calls fn for each scalar or byte string that differs: "seg[1].base", and both values as text. */
typedef void state_diff_fn(void *opaque, const char *field, const char *a, const char *b, bool host);
void state_diff(const struct state_record *r, const void *a, const void *b, state_diff_fn *fn,
		void *opaque);

#endif
