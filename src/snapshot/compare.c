#include "snapshot/compare.h"

#include <errno.h>
#include <stdlib.h>

#include "snapshot/reader_priv.h"

struct comparison {
	struct snap_compare *c;
	struct snap_reader *file[2];
	uint8_t *buf[2];		/* a chunk each */
	uint64_t from, to;		/* pages that differ and have not been told yet */
	uint64_t done;
};

/* ---- Without reading it -------------------------------------------------- */

struct view {		/* of one chunk in one file */
	const struct snap_region *region;	/* NULL: it has no RAM there */
	uint64_t gpa;
	size_t len;
	bool stored;
};

/* The nearest file of the chain that says anything of the chunk, or its root. */
static const struct snap_reader *teller(const struct snap_reader *r, const struct view *v)
{
	for (; r->parent; r = r->parent) {
		size_t i = snap_first_run(r, v->gpa);

		if (i < r->nruns && r->runs[i].gpa < v->gpa + v->len)
			break;
	}
	return r;
}

/* The checksum of the whole chunk, if the file has it as such; a chunk of zeroes has 0. */
static bool whole_sum(const struct snap_reader *r, const struct view *v, uint64_t *sum)
{
	size_t i;

	if (r->checksums) {
		*sum = r->checksums[snap_chunk_index(v->region, v->gpa)];
		return true;
	}
	i = snap_first_run(r, v->gpa);
	if (i >= r->nruns || r->runs[i].gpa != v->gpa || r->runs[i].len != v->len ||
	    r->runs[i].encoding == SNAP_ZERO)
		return false;
	*sum = snap_chunk_entry(r->runs[i].checksum);
	return true;
}

static bool surely_same(const struct comparison *c, const struct view v[2])
{
	const struct snap_reader *a, *b;
	uint64_t sum[2];

	if (v[0].len != v[1].len)
		return false;
	if (!v[0].stored && !v[1].stored)
		return true;
	if (c->c->bytes)
		return false;
	a = teller(c->file[0], &v[0]);
	b = teller(c->file[1], &v[1]);
	return !memcmp(a->digest, b->digest, SNAP_DIGEST_SIZE) ||
	       (whole_sum(a, &v[0], &sum[0]) && whole_sum(b, &v[1], &sum[1]) && sum[0] == sum[1]);
}

/* ---- Pages --------------------------------------------------------------- */

static void tell_range(struct comparison *c)
{
	if (c->to > c->from && c->c->range)
		c->c->range(c->c->opaque, c->from, c->to - c->from);
	c->from = c->to = 0;
}

static void page_differs(struct comparison *c, uint64_t gpa, uint64_t bytes)
{
	c->c->pages++;
	c->c->differing += bytes;
	if (c->to != gpa || c->to == c->from) {
		tell_range(c);
		c->from = gpa;
	}
	c->to = gpa + SNAP_PAGE;
}

static unsigned differing_bytes(const uint8_t *a, const uint8_t *b)
{
	unsigned n = 0, i;

	for (i = 0; i < SNAP_PAGE; i++)
		n += a[i] != b[i];
	return n;
}

static void compare_pages(struct comparison *c, const struct view v[2])
{
	size_t both = MIN(v[0].len, v[1].len), all = MAX(v[0].len, v[1].len), at;
	uint64_t gpa = v[v[0].len ? 0 : 1].gpa;

	if (both == all && !memcmp(c->buf[0], c->buf[1], all))
		return;
	for (at = 0; at < all; at += SNAP_PAGE) {
		const uint8_t *a = c->buf[0] + at, *b = c->buf[1] + at;

		if (at >= both)
			page_differs(c, gpa + at, SNAP_PAGE);
		else if (memcmp(a, b, SNAP_PAGE))
			page_differs(c, gpa + at, differing_bytes(a, b));
	}
}

/* ---- Chunks -------------------------------------------------------------- */

static struct view view_of(const struct snap_reader *r, unsigned region, uint64_t at)
{
	struct view v = { 0 };

	if (region >= r->nregions || at >= r->region[region].size)
		return v;
	v.region = &r->region[region];
	v.gpa = v.region->gpa + at;
	v.len = MIN(RAM_CHUNK, v.region->size - at);
	v.stored = snap_chunk_stored(r, v.gpa);
	return v;
}

static int compare_chunk(struct comparison *c, unsigned region, uint64_t at, struct skep_error *e)
{
	struct view v[2];
	int i, err = 0;

	for (i = 0; i < 2; i++)
		v[i] = view_of(c->file[i], region, at);
	c->done += MAX(v[0].len, v[1].len);
	if (surely_same(c, v))
		return 0;
	for (i = 0; i < 2 && !err; i++) {
		memset(c->buf[i], 0, RAM_CHUNK);
		if (!v[i].stored)
			continue;
		c->c->looked_at += v[i].len;
		err = snap_load_chunk(c->file[i], v[i].gpa, c->buf[i], v[i].len, e);
	}
	if (!err)
		compare_pages(c, v);
	return err;
}

static uint64_t region_size(const struct comparison *c, unsigned i)
{
	uint64_t a = i < c->file[0]->nregions ? c->file[0]->region[i].size : 0;
	uint64_t b = i < c->file[1]->nregions ? c->file[1]->region[i].size : 0;

	return MAX(a, b);
}

int snap_compare_ram(struct snap_reader *a, struct snap_reader *b, struct snap_compare *c,
		     struct skep_error *e)
{
	struct comparison cmp = { .c = c, .file = { a, b } };
	uint64_t at;
	unsigned i;
	int err = 0;

	c->pages = c->differing = c->all = c->looked_at = 0;
	for (i = 0; i < SNAP_REGIONS_MAX; i++)
		c->all += region_size(&cmp, i);
	cmp.buf[0] = malloc(2 * RAM_CHUNK);
	if (!cmp.buf[0])
		return skep_fail(e, ENOMEM, "no memory for a comparison");
	cmp.buf[1] = cmp.buf[0] + RAM_CHUNK;
	for (i = 0; i < SNAP_REGIONS_MAX && !err; i++) {
		uint64_t size = region_size(&cmp, i);

		for (at = 0; at < size && !err; at += RAM_CHUNK) {
			err = compare_chunk(&cmp, i, at, e);
			if (!err && c->progress && !c->progress(c->opaque, cmp.done, c->all))
				err = skep_fail(e, ECANCELED, "interrupted");
		}
		tell_range(&cmp);
	}
	free(cmp.buf[0]);
	return err;
}
