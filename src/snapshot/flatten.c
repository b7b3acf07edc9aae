#include "snapshot/flatten.h"

#include <errno.h>
#include <stdlib.h>

#include "snapshot/reader_priv.h"
#include "snapshot/writer_priv.h"
#include "state/codec.h"

/* Pages of zeroes are not there. */
static void find_pages(struct ram_chunk *c)
{
	uint32_t i;

	memset(c->there, 0, sizeof(c->there));
	c->nthere = 0;
	for (i = 0; i < c->npages; i++) {
		if (snap_is_zero(c->data + i * SNAP_PAGE, SNAP_PAGE))
			continue;
		c->there[i / 64] |= 1ull << (i % 64);
		c->nthere++;
	}
}

static int copy_chunk(struct snap_reader *r, struct snap_writer *w, uint64_t gpa, uint64_t len,
		      uint8_t *buf, struct skep_error *e)
{
	struct ram_chunk c = { .gpa = gpa, .npages = len / SNAP_PAGE, .data = buf };
	int err;

	if (!snap_chunk_stored(r, gpa))
		return 0;
	memset(buf, 0, len);
	err = snap_load_chunk(r, gpa, buf, len, e);
	if (err < 0)
		return err;
	find_pages(&c);
	return c.nthere ? snap_writer_ram(w, &c, e) : 0;
}

static int copy_ram(struct snap_reader *r, struct snap_writer *w, const struct flatten_options *o,
		    struct skep_error *e)
{
	uint8_t *buf = malloc(RAM_CHUNK);
	uint64_t at, len, done = 0, all = 0;
	unsigned i;
	int err = 0;

	if (!buf)
		return skep_fail(e, ENOMEM, "%s: no memory left to read it", r->path);
	for (i = 0; i < r->nregions; i++)
		all += r->region[i].size;
	for (i = 0; i < r->nregions; i++) {
		for (at = 0; !err && at < r->region[i].size; at += len) {
			len = MIN(RAM_CHUNK, r->region[i].size - at);
			err = copy_chunk(r, w, r->region[i].gpa + at, len, buf, e);
			done += len;
			if (!err && o->progress && !o->progress(o->opaque, done, all))
				err = skep_fail(e, ECANCELED, "interrupted");
		}
	}
	free(buf);
	return err;
}

static int copy_manifest(struct snap_reader *r, struct snap_writer *w, struct skep_error *e)
{
	struct manifest m = r->manifest;	/* its lists and blobs stay the reader's */
	struct state_buf buf = { 0 };
	struct state_head head;
	int err;

	m.delta = false;
	memset(m.parent, 0, sizeof(m.parent));
	m.parent_path = (struct state_blob){ 0 };
	err = state_peek(r->manifest_note.data, r->manifest_note.len, &head, e);
	if (!err)
		err = state_encode(&manifest_record, head.name, &m, head.version, &buf, e);
	if (!err)
		err = snap_writer_note(w, SNAP_NOTE_MANIFEST, buf.data, buf.len, e);
	state_buf_free(&buf);
	return err;
}

static int copy_notes(struct snap_reader *r, struct snap_writer *w, struct skep_error *e)
{
	struct snap_note_view n;
	size_t at = 0, i;
	int err = 0;

	while (!err && at < r->notes_len) {
		err = snap_next_note(r, &at, &n, e);
		if (err < 0)
			return err;
		if (!strcmp(n.name, SNAP_NOTE_NAME))
			break;
		err = snap_writer_foreign(w, n.name, n.type, n.data, n.len, e);
	}
	if (!err)
		err = copy_manifest(r, w, e);
	for (i = 0; !err && i < r->nrecords; i++)
		err = snap_writer_note(w, SNAP_NOTE_RECORD, r->records[i].data, r->records[i].len,
				       e);
	return err;
}

int snap_flatten(struct snap_reader *r, int fd, const struct flatten_options *o,
		 uint8_t digest[SNAP_DIGEST_SIZE], struct skep_error *e)
{
	struct snap_layout l = {
		.nregions = r->nregions, .runs = o->zstd_level != 0, .whole = true,
		.zstd_level = o->zstd_level,
	};
	struct snap_writer *w;
	unsigned i;
	int err;

	if (r->manifest.delta && !r->parent)
		return skep_fail(e, EINVAL, "%s: was opened without its parents", r->path);
	for (i = 0; i < r->nregions; i++) {
		l.region[i].gpa = r->region[i].gpa;
		l.region[i].size = r->region[i].size;
	}
	w = snap_writer_create(fd, &l, e);
	if (!w)
		return -ENOMEM;
	err = copy_ram(r, w, o, e);
	if (!err)
		err = copy_notes(r, w, e);
	if (!err)
		err = snap_writer_finish(w, digest, e);
	snap_writer_destroy(w);
	return err;
}
