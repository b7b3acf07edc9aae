/* Which fields of two models differ. */
#include <errno.h>
#include <inttypes.h>

#include "state/codec.h"
#include "state/fields.h"

#define DIFF_BYTES 24	/* of a byte string are shown */

struct differ {
	state_diff_fn *fn;
	void *opaque;
};

static void diff_models(const struct differ *d, const struct state_record *r,
			const struct state_path *path, const uint8_t *a, const uint8_t *b, bool host);

static void tell(const struct differ *d, const struct state_path *path, const char *a,
		 const char *b, bool host)
{
	char name[STATE_PATH_TEXT];

	d->fn(d->opaque, state_path_text(path, name), a, b, host);
}

/* Up to DIFF_BYTES bytes from `from` on; where they start, if not at the first. */
static void hex_text(char *out, size_t size, const uint8_t *p, size_t n, size_t from)
{
	size_t at = 0;

	if (from)
		at += (size_t)snprintf(out, size, "+%#zx: ", from);
	if (from >= n)
		snprintf(out + at, size - at, "(%zu bytes)", n);
	for (size_t i = from; i < n && i < from + DIFF_BYTES; i++)
		at += (size_t)snprintf(out + at, size - at, "%02x", p[i]);
	if (n > from + DIFF_BYTES)
		snprintf(out + at, size - at, "...");
}

static void diff_bytes(const struct differ *d, const struct state_path *path, const uint8_t *a,
		       size_t na, const uint8_t *b, size_t nb, bool host)
{
	char ta[96], tb[96];
	size_t at = 0;

	while (at < na && at < nb && a[at] == b[at])
		at++;
	if (at == na && at == nb)
		return;
	/* What fits is shown from its start. */
	if (na <= DIFF_BYTES && nb <= DIFF_BYTES)
		at = 0;
	hex_text(ta, sizeof(ta), a, na, at);
	hex_text(tb, sizeof(tb), b, nb, at);
	tell(d, path, ta, tb, host);
}

static void diff_text(const struct differ *d, const struct state_field *f,
		      const struct state_path *path, const char *a, const char *b, bool host)
{
	char ta[128], tb[128];

	if (!strncmp(a, b, f->size))
		return;
	snprintf(ta, sizeof(ta), "\"%.*s\"", (int)f->size, a);
	snprintf(tb, sizeof(tb), "\"%.*s\"", (int)f->size, b);
	tell(d, path, ta, tb, host);
}

static void diff_lists(const struct differ *d, const struct state_field *f,
		       const struct state_path *path, const struct state_list *a,
		       const struct state_list *b, bool host)
{
	char ta[32], tb[32];

	if (a->count != b->count) {
		snprintf(ta, sizeof(ta), "%" PRIu32 " items", a->count);
		snprintf(tb, sizeof(tb), "%" PRIu32 " items", b->count);
		tell(d, path, ta, tb, host);
	}
	for (uint32_t i = 0; i < a->count && i < b->count; i++) {
		const struct state_path item = state_path_item(path, i);
		size_t at = (size_t)i * f->sub->model_size;

		diff_models(d, f->sub, &item, (const uint8_t *)a->items + at,
			    (const uint8_t *)b->items + at, host);
	}
}

static void diff_scalars(const struct differ *d, const struct state_field *f,
			 const struct state_path *path, const uint8_t *a, const uint8_t *b, bool host)
{
	unsigned unit = state_scalar_size(f->type);
	uint64_t va = state_scalar_get(a, unit), vb = state_scalar_get(b, unit);
	char ta[32], tb[32];

	if (va == vb)
		return;
	if (f->type == STATE_T_TIME) {
		snprintf(ta, sizeof(ta), "%" PRId64, (int64_t)va);
		snprintf(tb, sizeof(tb), "%" PRId64, (int64_t)vb);
	} else if (f->type == STATE_T_BOOL) {
		snprintf(ta, sizeof(ta), "%s", va ? "true" : "false");
		snprintf(tb, sizeof(tb), "%s", vb ? "true" : "false");
	} else {
		snprintf(ta, sizeof(ta), "0x%" PRIx64, va);
		snprintf(tb, sizeof(tb), "0x%" PRIx64, vb);
	}
	tell(d, path, ta, tb, host);
}

static void diff_element(const struct differ *d, const struct state_field *f,
			 const struct state_path *path, const uint8_t *a, const uint8_t *b, bool host)
{
	const struct state_blob *ba = (const struct state_blob *)a, *bb = (const struct state_blob *)b;

	switch (f->type) {
	case STATE_T_STRUCT:
		diff_models(d, f->sub, path, a, b, host);
		return;
	case STATE_T_LIST:
		diff_lists(d, f, path, (const struct state_list *)a, (const struct state_list *)b, host);
		return;
	case STATE_T_BYTES:
		diff_bytes(d, path, a, f->size, b, f->size, host);
		return;
	case STATE_T_BLOB:
		diff_bytes(d, path, ba->data, ba->len, bb->data, bb->len, host);
		return;
	case STATE_T_TEXT:
		diff_text(d, f, path, (const char *)a, (const char *)b, host);
		return;
	default:
		diff_scalars(d, f, path, a, b, host);
		return;
	}
}

static void diff_models(const struct differ *d, const struct state_record *r,
			const struct state_path *path, const uint8_t *a, const uint8_t *b, bool host)
{
	for (size_t k = 0; k < r->nfields; k++) {
		const struct state_field *f = &r->fields[k];

		if (f->until)	/* no longer part of the machine */
			continue;
		for (uint32_t i = 0; i < state_elements(f); i++) {
			const struct state_path at = state_path_field(path, f, i);
			size_t off = f->offset + (size_t)i * state_element_size(f);

			diff_element(d, f, &at, a + off, b + off, host || f->host);
		}
	}
}

void state_diff(const struct state_record *r, const void *a, const void *b, state_diff_fn *fn,
		void *opaque)
{
	const struct differ d = { fn, opaque };

	diff_models(&d, r, NULL, a, b, false);
}
