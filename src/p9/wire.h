/*
 * Messages taken apart and put together, with every bound checked.  A reader or writer that
 * was asked for too much stays bad, so that one look at the end is enough.
 */
#ifndef SKEP_P9_WIRE_H
#define SKEP_P9_WIRE_H

#include <stdbool.h>
#include <stddef.h>

#include "base/util.h"
#include "p9/proto.h"

struct p9_in {
	const uint8_t *p;
	size_t left;
	bool bad;
};

/* Text in a message: not terminated, may hold anything. */
struct p9_text {
	const char *p;
	uint16_t len;
};

static inline const uint8_t *p9_take(struct p9_in *in, size_t n)
{
	const uint8_t *p = in->p;

	if (in->bad || n > in->left) {
		in->bad = true;
		return NULL;
	}
	in->p += n;
	in->left -= n;
	return p;
}

static inline uint8_t p9_get8(struct p9_in *in)
{
	const uint8_t *p = p9_take(in, 1);

	return p ? *p : 0;
}

static inline uint16_t p9_get16(struct p9_in *in)
{
	const uint8_t *p = p9_take(in, 2);

	return p ? load16(p) : 0;
}

static inline uint32_t p9_get32(struct p9_in *in)
{
	const uint8_t *p = p9_take(in, 4);

	return p ? load32(p) : 0;
}

static inline uint64_t p9_get64(struct p9_in *in)
{
	const uint8_t *p = p9_take(in, 8);

	return p ? load64(p) : 0;
}

static inline struct p9_text p9_get_text(struct p9_in *in)
{
	uint16_t len = p9_get16(in);
	const uint8_t *p = p9_take(in, len);

	return p ? (struct p9_text){ (const char *)p, len } : (struct p9_text){ "", 0 };
}

struct p9_out {
	uint8_t *p;
	size_t len, room;
	bool full;
};

static inline uint8_t *p9_put(struct p9_out *out, size_t n)
{
	uint8_t *p = out->p + out->len;

	if (out->full || n > out->room - out->len) {
		out->full = true;
		return NULL;
	}
	out->len += n;
	return p;
}

static inline void p9_put_bytes(struct p9_out *out, const void *from, size_t n)
{
	uint8_t *p = p9_put(out, n);

	if (p && n)
		memcpy(p, from, n);
}

static inline void p9_put8(struct p9_out *out, uint8_t v) { p9_put_bytes(out, &v, 1); }
static inline void p9_put16(struct p9_out *out, uint16_t v) { p9_put_bytes(out, &v, 2); }
static inline void p9_put32(struct p9_out *out, uint32_t v) { p9_put_bytes(out, &v, 4); }
static inline void p9_put64(struct p9_out *out, uint64_t v) { p9_put_bytes(out, &v, 8); }

static inline void p9_put_text(struct p9_out *out, const char *text, size_t len)
{
	if (len > UINT16_MAX)
		out->full = true;
	p9_put16(out, (uint16_t)len);
	p9_put_bytes(out, text, len);
}

static inline void p9_put_qid(struct p9_out *out, const struct p9_qid *q)
{
	p9_put8(out, q->type);
	p9_put32(out, q->version);
	p9_put64(out, q->path);
}

#endif
