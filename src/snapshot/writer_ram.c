/* RAM into the file, a chunk at a time. */
#include "snapshot/helper.h"
#include "snapshot/writer_priv.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/uio.h>
#include <zstd.h>

#define RUNS_WHOLE 16	/* runs of a chunk beyond which a whole file takes the chunk as one */
#define BATCH 64
#define SPLIT (512 * KiB)	/* compressed by two from here on */
#define WARM (256 * KiB)	/* measured: half to twice as much is as good */

struct packer {			/* sums and compresses a run */
	ZSTD_CCtx *zstd;	/* NULL: not compressed */
	uint8_t *out;		/* a compressed chunk */
	struct snap_run run;
	const uint8_t *data;
};

struct snap_ram_batch {		/* stored runs that lie side by side in the file */
	struct iovec iov[BATCH];
	int n;
	uint64_t offset, len;
	struct packer packer[2];
	struct snap_helper *helper;	/* works the second one; NULL: there is none */
	uint8_t *gather;	/* whole: a chunk with its zeroes */
};

int snap_writer_ram_init(struct snap_writer *w, const struct snap_layout *l)
{
	struct snap_ram_batch *b;
	int i;

	if (!l->runs) {
		w->sums = calloc(w->nchunks, sizeof(*w->sums));
		return w->sums ? 0 : -ENOMEM;
	}
	b = w->batch = calloc(1, sizeof(*b));
	if (!b)
		return -ENOMEM;
	if (l->whole) {
		b->gather = malloc(RAM_CHUNK);
		if (!b->gather)
			return -ENOMEM;
	}
	if (!l->zstd_level)
		return 0;
	for (i = 0; i < 2; i++) {
		struct packer *p = &b->packer[i];

		p->out = malloc(RAM_CHUNK);
		p->zstd = ZSTD_createCCtx();
		if (!p->out || !p->zstd)
			return -ENOMEM;
		/* A level beyond what zstd knows becomes its highest or lowest. */
		ZSTD_CCtx_setParameter(p->zstd, ZSTD_c_compressionLevel, l->zstd_level);
	}
	b->helper = snap_helper_create();
	return 0;
}

void snap_writer_ram_finish(struct snap_writer *w)
{
	struct snap_ram_batch *b = w->batch;
	int i;

	if (b) {
		snap_helper_destroy(b->helper);
		for (i = 0; i < 2; i++) {
			ZSTD_freeCCtx(b->packer[i].zstd);
			free(b->packer[i].out);
		}
		free(b->gather);
		free(b);
	}
	free(w->sums);
	free(w->runs);
}

static bool is_there(const struct ram_chunk *c, uint32_t page)
{
	return c->there[page / 64] >> (page % 64) & 1;
}

/* The next run of pages that are there, from page `from` on: its end; npages: none. */
static uint32_t next_run(const struct ram_chunk *c, uint32_t from, uint32_t *first)
{
	while (from < c->npages && !is_there(c, from))
		from++;
	*first = from;
	while (from < c->npages && is_there(c, from))
		from++;
	return from;
}

/* ---- Plain -------------------------------------------------------------- */

/*
 * A run of a chunk, piece by piece: what has just been summed lies in the processor's second-level
 * cache when it is written.
 */
static int write_piece(struct snap_writer *w, const uint8_t *data, size_t len, uint64_t offset,
		       struct skep_error *e)
{
	size_t at, n;
	int err;

	for (at = 0; at < len; at += n) {
		n = MIN(len - at, WARM);
		snap_hash_update(w->hash, data + at, n);
		err = snap_pwrite(w->fd, data + at, n, offset + at, e);
		if (err < 0)
			return err;
		w->bytes += n;
	}
	return 0;
}

/* Where there is nothing, the sum is of zeroes, without a look at them. */
static int write_plain(struct snap_writer *w, const struct snap_region *r,
		       const struct ram_chunk *c, struct skep_error *e)
{
	uint64_t offset = r->offset + (c->gpa - r->gpa);
	uint32_t first, end, last = 0;
	int err;

	snap_hash_begin(w->hash);
	for (end = 0; end < c->npages; last = end) {
		end = next_run(c, end, &first);
		snap_hash_zeroes(w->hash, (first - last) * SNAP_PAGE);
		err = write_piece(w, c->data + first * SNAP_PAGE, (end - first) * SNAP_PAGE,
				  offset + first * SNAP_PAGE, e);
		if (err < 0)
			return err;
	}
	w->sums[snap_chunk_index(r, c->gpa)] = snap_chunk_entry(snap_hash_sum(w->hash));
	return 0;
}

/* ---- Runs --------------------------------------------------------------- */

static int flush(struct snap_writer *w, struct skep_error *e)
{
	struct snap_ram_batch *b = w->batch;
	int n = b->n;

	if (!n)
		return 0;
	b->n = 0;
	w->bytes += b->len;
	return snap_pwritev(w->fd, b->iov, n, b->offset, e);
}

/* Bytes for the end of the file; they stay where they are until the batch is flushed. */
static int store(struct snap_writer *w, const void *data, size_t len, struct skep_error *e)
{
	struct snap_ram_batch *b = w->batch;
	int err;

	if (b->n && (b->n == BATCH || b->offset + b->len != w->end)) {
		err = flush(w, e);
		if (err < 0)
			return err;
	}
	if (!b->n) {
		b->offset = w->end;
		b->len = 0;
	}
	b->iov[b->n++] = (struct iovec){ (void *)data, len };
	b->len += len;
	w->end += len;
	return 0;
}

static int new_run(struct snap_writer *w, const struct snap_run *run, struct skep_error *e)
{
	if (w->nruns == w->runs_cap) {
		size_t cap = w->runs_cap ? 2 * w->runs_cap : 1024;
		struct snap_run *p;

		if (cap * sizeof(*p) > 2 * SNAP_NOTES_MAX)
			return skep_fail(e, EFBIG, "the pages of this snapshot are so scattered that "
					 "their table grows beyond %llu MiB: save without --delta",
					 (unsigned long long)(SNAP_NOTES_MAX / MiB));
		p = realloc(w->runs, cap * sizeof(*p));
		if (!p)
			return skep_fail(e, ENOMEM, "no memory left for the snapshot's page table");
		w->runs = p;
		w->runs_cap = cap;
	}
	w->runs[w->nruns++] = *run;
	return 0;
}

static void pack(void *opaque)
{
	struct packer *p = opaque;
	size_t n;

	p->run.checksum = snap_sum(p->data, p->run.len);
	p->run.encoding = SNAP_RAW;
	p->run.stored = p->run.len;
	if (!p->zstd)
		return;
	n = ZSTD_compress2(p->zstd, p->out, p->run.len - 1, p->data, p->run.len);
	if (ZSTD_isError(n))
		return;		/* it does not shrink */
	p->run.encoding = SNAP_ZSTD;
	p->run.stored = n;
}

static int store_packed(struct snap_writer *w, struct packer *p, struct skep_error *e)
{
	bool raw = p->run.encoding == SNAP_RAW;
	int err;

	/* Raw bytes can be mapped: they are page aligned in the file. */
	if (raw)
		w->end = ALIGN_UP(w->end, SNAP_PAGE);
	p->run.offset = w->end;
	err = new_run(w, &p->run, e);
	return err ? err : store(w, raw ? p->data : p->out, p->run.stored, e);
}

/* A run that is not zero: a long one that is compressed becomes two, on two processors. */
static int write_run(struct snap_writer *w, uint64_t gpa, const uint8_t *data, size_t len,
		     struct skep_error *e)
{
	struct snap_ram_batch *b = w->batch;
	struct packer *p = b->packer;
	bool two = p->zstd && len >= SPLIT;
	size_t half = two ? ALIGN_UP(len / 2, SNAP_PAGE) : len;
	int err = 0;

	/* What the last run was compressed into is needed again. */
	if (p->zstd)
		err = flush(w, e);
	if (err < 0)
		return err;
	p[0].run = (struct snap_run){ .gpa = gpa, .len = half };
	p[0].data = data;
	p[1].run = (struct snap_run){ .gpa = gpa + half, .len = len - half };
	p[1].data = data + half;
	if (two && b->helper)
		snap_helper_begin(b->helper, pack, &p[1]);
	pack(&p[0]);
	if (two && b->helper)
		snap_helper_end(b->helper);
	else if (two)
		pack(&p[1]);
	err = store_packed(w, &p[0], e);
	return err || !two ? err : store_packed(w, &p[1], e);
}

/* Zeroes: told in a delta only. */
static int write_zero(struct snap_writer *w, uint64_t gpa, size_t len, struct skep_error *e)
{
	struct snap_run run = { .gpa = gpa, .len = len, .encoding = SNAP_ZERO };

	return w->whole ? 0 : new_run(w, &run, e);
}

/* One run of pages that are there, in pieces that are all zero and pieces that are not. */
static int write_pages(struct snap_writer *w, const struct ram_chunk *c, uint32_t first,
		       uint32_t end, struct skep_error *e)
{
	uint32_t i;
	int err;

	for (; first < end; first = i) {
		bool zero = snap_is_zero(c->data + first * SNAP_PAGE, SNAP_PAGE);

		for (i = first + 1; i < end; i++)
			if (snap_is_zero(c->data + i * SNAP_PAGE, SNAP_PAGE) != zero)
				break;
		if (zero)
			err = write_zero(w, c->gpa + first * SNAP_PAGE, (i - first) * SNAP_PAGE, e);
		else
			err = write_run(w, c->gpa + first * SNAP_PAGE, c->data + first * SNAP_PAGE,
					(i - first) * SNAP_PAGE, e);
		if (err < 0)
			return err;
	}
	return 0;
}

static uint32_t count_runs(const struct ram_chunk *c)
{
	uint32_t first, end, n = 0;

	for (end = next_run(c, 0, &first); first < c->npages; end = next_run(c, end, &first))
		n++;
	return n;
}

/* A chunk in so many pieces that it is better told as one, with the zeroes between them. */
static int write_gathered(struct snap_writer *w, const struct ram_chunk *c, struct skep_error *e)
{
	uint8_t *g = w->batch->gather;
	uint32_t first, end, begin = UINT32_MAX, last = 0;

	for (end = 0; end < c->npages; last = end) {
		end = next_run(c, end, &first);
		if (first == c->npages)
			break;
		if (begin == UINT32_MAX)
			begin = last = first;
		memset(g + last * SNAP_PAGE, 0, (first - last) * SNAP_PAGE);
		memcpy(g + first * SNAP_PAGE, c->data + first * SNAP_PAGE,
		       (end - first) * SNAP_PAGE);
	}
	return write_run(w, c->gpa + begin * SNAP_PAGE, g + begin * SNAP_PAGE,
			 (last - begin) * SNAP_PAGE, e);
}

static int write_runs(struct snap_writer *w, const struct ram_chunk *c, struct skep_error *e)
{
	uint32_t first, end;
	int err = 0;

	if (w->whole && count_runs(c) > RUNS_WHOLE) {
		err = write_gathered(w, c, e);
	} else {
		for (end = next_run(c, 0, &first); !err && first < c->npages;
		     end = next_run(c, end, &first))
			err = write_pages(w, c, first, end, e);
	}
	/* The chunk's bytes are the caller's, and gone after this call. */
	return err ? err : flush(w, e);
}

int snap_writer_ram(struct snap_writer *w, const struct ram_chunk *c, struct skep_error *e)
{
	const struct snap_region *r = snap_find_region(w->region, w->nregions, c->gpa,
						       c->npages * SNAP_PAGE);

	if (!r || c->gpa < w->next_gpa || (c->gpa - r->gpa) % RAM_CHUNK || !c->npages ||
	    c->npages != MIN((uint64_t)CUT_CHUNK_PAGES,
			     (r->size - (c->gpa - r->gpa)) / SNAP_PAGE))
		return skep_fail(e, EINVAL, "a chunk of %u pages at %#llx does not fit into the "
				 "snapshot's RAM", c->npages, (unsigned long long)c->gpa);
	w->next_gpa = c->gpa + c->npages * SNAP_PAGE;
	if (!c->nthere)
		return 0;
	return w->runs_wanted ? write_runs(w, c, e) : write_plain(w, r, c, e);
}
