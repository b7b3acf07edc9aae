/* Reads and verifies all RAM of a file and of its parents. */
#include "snapshot/reader_priv.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

struct verify {
	bool (*progress)(void *opaque, uint64_t done, uint64_t all);
	void *opaque;
	uint64_t done, all;
	uint8_t *buf;		/* a chunk */
};

static uint64_t ram_of(const struct snap_reader *r)
{
	uint64_t n = 0;
	size_t i;

	if (r->checksums) {
		for (i = 0; i < r->nregions; i++)
			n += r->region[i].size;
	} else {
		for (i = 0; i < r->nruns; i++)
			n += r->runs[i].len;
	}
	return n;
}

static int went_on(struct verify *v, uint64_t len, struct skep_error *e)
{
	v->done += len;
	if (v->progress && !v->progress(v->opaque, v->done, v->all))
		return skep_fail(e, ECANCELED, "interrupted");
	return 0;
}

/* A chunk that the table says is zero: almost always a hole. */
static int check_zero(struct snap_reader *r, const struct snap_region *region, uint64_t gpa,
		      uint64_t len, uint8_t *buf, struct skep_error *e)
{
	uint64_t offset = region->offset + (gpa - region->gpa);
	off_t data = lseek(r->fd, offset, SEEK_DATA);
	int err;

	if (data < 0 ? errno == ENXIO : (uint64_t)data >= offset + len)
		return 0;
	err = snap_pread(r->fd, buf, len, offset, e);
	if (err < 0) {
		skep_error_prefix(e, "%s", r->path);
		return err;
	}
	if (snap_is_zero(buf, len))
		return 0;
	return skep_fail(e, EBADMSG, "%s: RAM at %#llx (%llu KiB) is damaged: it is not zero, and "
			 "its table says so", r->path, (unsigned long long)gpa,
			 (unsigned long long)(len / KiB));
}

static int verify_plain(struct verify *v, struct snap_reader *r, struct skep_error *e)
{
	uint64_t at, len;
	unsigned i;
	int err;

	for (i = 0; i < r->nregions; i++) {
		const struct snap_region *region = &r->region[i];

		for (at = 0; at < region->size; at += len) {
			uint64_t gpa = region->gpa + at;

			len = MIN(RAM_CHUNK, region->size - at);
			if (r->checksums[snap_chunk_index(region, gpa)])
				err = snap_load_plain(r, region, gpa, v->buf, len, e);
			else
				err = check_zero(r, region, gpa, len, v->buf, e);
			if (!err)
				err = went_on(v, len, e);
			if (err < 0)
				return err;
		}
	}
	return 0;
}

static int verify_runs(struct verify *v, struct snap_reader *r, struct skep_error *e)
{
	size_t i;
	int err = 0;

	for (i = 0; !err && i < r->nruns; i++) {
		err = snap_load_run(r, &r->runs[i], v->buf, e);
		if (!err)
			err = went_on(v, r->runs[i].len, e);
	}
	return err;
}

int snap_verify_ram(struct snap_reader *r, bool (*progress)(void *, uint64_t done, uint64_t all),
		    void *opaque, struct skep_error *e)
{
	struct verify v = { .progress = progress, .opaque = opaque };
	struct snap_reader *f;
	int err = 0;

	v.buf = malloc(RAM_CHUNK);
	if (!v.buf)
		return skep_fail(e, ENOMEM, "%s: no memory left to verify it", r->path);
	for (f = r; f; f = f->parent)
		v.all += ram_of(f);
	for (f = r; !err && f; f = f->parent)
		err = f->checksums ? verify_plain(&v, f, e) : verify_runs(&v, f, e);
	free(v.buf);
	return err;
}
