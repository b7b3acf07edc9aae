/* RAM out of the file: a chunk through its chain, and all of it for verify. */
#include "snapshot/reader_priv.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>
#include <zstd.h>

struct snap_inflate {
	ZSTD_DCtx *zstd;
	uint8_t *in;		/* RAM_CHUNK bytes: what is stored is shorter than that */
};

void snap_inflate_free(struct snap_inflate *i)
{
	if (!i)
		return;
	ZSTD_freeDCtx(i->zstd);
	free(i->in);
	free(i);
}

static int need_inflate(struct snap_reader *r, struct skep_error *e)
{
	if (r->inflate)
		return 0;
	r->inflate = calloc(1, sizeof(*r->inflate));
	if (r->inflate) {
		r->inflate->zstd = ZSTD_createDCtx();
		r->inflate->in = malloc(RAM_CHUNK);
		if (r->inflate->zstd && r->inflate->in)
			return 0;
		snap_inflate_free(r->inflate);
		r->inflate = NULL;
	}
	return skep_fail(e, ENOMEM, "%s: no memory left to read it", r->path);
}

static int bad_ram(const struct snap_reader *r, uint64_t gpa, uint64_t len, const char *why,
		   struct skep_error *e)
{
	return skep_fail(e, EBADMSG, "%s: RAM at %#llx (%llu KiB) is damaged: %s", r->path,
			 (unsigned long long)gpa, (unsigned long long)(len / KiB), why);
}

static int read_ram(const struct snap_reader *r, void *data, size_t len, uint64_t offset,
		    struct skep_error *e)
{
	int err = snap_pread(r->fd, data, len, offset, e);

	if (err < 0)
		skep_error_prefix(e, "%s", r->path);
	return err;
}

int snap_load_plain(struct snap_reader *r, const struct snap_region *region, uint64_t gpa,
		    uint8_t *host, size_t len, struct skep_error *e)
{
	int err = read_ram(r, host, len, region->offset + (gpa - region->gpa), e);

	if (err < 0)
		return err;
	if (snap_chunk_entry(snap_sum(host, len)) != r->checksums[snap_chunk_index(region, gpa)])
		return bad_ram(r, gpa, len, "its checksum is another", e);
	return 0;
}

/* One frame, which gives exactly the run's bytes; zstd writes no further than that. */
static int inflate_run(struct snap_reader *r, const struct snap_run *run, uint8_t *host,
		       struct skep_error *e)
{
	size_t got;
	int err = need_inflate(r, e);

	if (!err)
		err = read_ram(r, r->inflate->in, run->stored, run->offset, e);
	if (err < 0)
		return err;
	if (ZSTD_getFrameContentSize(r->inflate->in, run->stored) != run->len ||
	    ZSTD_findFrameCompressedSize(r->inflate->in, run->stored) != run->stored)
		return bad_ram(r, run->gpa, run->len, "it is not one frame of its size", e);
	got = ZSTD_decompressDCtx(r->inflate->zstd, host, run->len, r->inflate->in, run->stored);
	if (got != run->len)
		return bad_ram(r, run->gpa, run->len,
			       ZSTD_isError(got) ? ZSTD_getErrorName(got) : "it is too short", e);
	return 0;
}

int snap_load_run(struct snap_reader *r, const struct snap_run *run, uint8_t *host,
		  struct skep_error *e)
{
	int err;

	if (run->encoding == SNAP_ZERO) {
		memset(host, 0, run->len);
		return 0;
	}
	if (run->encoding == SNAP_ZSTD)
		err = inflate_run(r, run, host, e);
	else
		err = read_ram(r, host, run->len, run->offset, e);
	if (err < 0)
		return err;
	if (snap_sum(host, run->len) != run->checksum)
		return bad_ram(r, run->gpa, run->len, "its checksum is another", e);
	return 0;
}

/* ---- One chunk ---------------------------------------------------------- */

/* Where the chunk that gpa lies in begins and ends; NULL: not in RAM. */
static const struct snap_region *find_chunk(const struct snap_reader *r, uint64_t gpa,
					    uint64_t *begin, uint64_t *end)
{
	const struct snap_region *region = snap_find_region(r->region, r->nregions, gpa, 1);

	if (!region)
		return NULL;
	*begin = gpa - (gpa - region->gpa) % RAM_CHUNK;
	*end = MIN(*begin + RAM_CHUNK, region->gpa + region->size);
	return region;
}

bool snap_chunk_stored(const struct snap_reader *r, uint64_t gpa)
{
	const struct snap_region *region;
	uint64_t begin, end;
	size_t i;

	for (; r; r = r->parent) {
		region = find_chunk(r, gpa, &begin, &end);
		if (!region)
			return false;
		if (r->checksums && r->checksums[snap_chunk_index(region, gpa)])
			return true;
		if (r->checksums)
			continue;
		for (i = snap_first_run(r, begin); i < r->nruns && r->runs[i].gpa < end; i++)
			if (r->runs[i].encoding != SNAP_ZERO)
				return true;
	}
	return false;
}

struct coverage {		/* pages of a chunk that nearer files tell */
	uint64_t page[RAM_CHUNK / SNAP_PAGE / 64];
};

static bool covers(const struct coverage *c, unsigned first, unsigned n)
{
	while (n && c->page[first / 64] >> (first % 64) & 1) {
		first++;
		n--;
	}
	return !n;
}

static void cover(struct coverage *c, const struct snap_reader *r, uint64_t begin, uint64_t end)
{
	size_t i;

	for (i = snap_first_run(r, begin); i < r->nruns && r->runs[i].gpa < end; i++) {
		unsigned page = (r->runs[i].gpa - begin) / SNAP_PAGE;
		unsigned n = r->runs[i].len / SNAP_PAGE;

		for (; n; n--, page++)
			c->page[page / 64] |= 1ull << (page % 64);
	}
}

/* What this file tells of the chunk, but for runs that nearer files tell anyway. */
static int load_own(struct snap_reader *r, const struct coverage *nearer, uint64_t begin,
		    uint64_t end, uint8_t *host, struct skep_error *e)
{
	size_t i;
	int err = 0;

	for (i = snap_first_run(r, begin); !err && i < r->nruns && r->runs[i].gpa < end; i++) {
		uint64_t at = r->runs[i].gpa - begin;

		if (!covers(nearer, at / SNAP_PAGE, r->runs[i].len / SNAP_PAGE))
			err = snap_load_run(r, &r->runs[i], host + at, e);
	}
	return err;
}

int snap_load_chunk(struct snap_reader *r, uint64_t gpa, uint8_t *host, size_t len,
		    struct skep_error *e)
{
	struct snap_reader *file[SNAP_CHAIN_MAX], *f;
	struct coverage nearer[SNAP_CHAIN_MAX];
	const struct snap_region *region;
	uint64_t begin, end;
	int n = 0, err = 0;

	region = find_chunk(r, gpa, &begin, &end);
	if (!region || gpa != begin || len != end - begin)
		return skep_fail(e, EINVAL, "%s: %#zx bytes at %#llx are no chunk of its RAM", r->path,
				 len, (unsigned long long)gpa);
	for (f = r; f && n < SNAP_CHAIN_MAX; f = f->parent, n++) {
		file[n] = f;
		if (n) {
			nearer[n] = nearer[n - 1];
			cover(&nearer[n], file[n - 1], begin, end);
		} else {
			memset(&nearer[0], 0, sizeof(nearer[0]));
		}
	}
	/* From the base upward; the base alone may be a plain file. */
	while (!err && n--) {
		if (!file[n]->checksums)
			err = load_own(file[n], &nearer[n], begin, end, host, e);
		else if (file[n]->checksums[snap_chunk_index(region, gpa)] &&
			 !covers(&nearer[n], 0, len / SNAP_PAGE))
			err = snap_load_plain(file[n], region, gpa, host, len, e);
	}
	return err;
}
