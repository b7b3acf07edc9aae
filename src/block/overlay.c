/* Overlays as images: reading, writing, and their snapshots. */
#include "block/overlay.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "block/overlay_inside.h"

#define IOV_MOST	512u
#define RUN_MAX		1024u		/* blocks allocated at a time */

struct request {		/* of all calls that move bytes */
	const struct iovec *iov;
	unsigned niov;
	uint64_t start;		/* where its first byte lies on the disk */
	struct iovec *slice;	/* room for niov */
};

/* ---- Reading ---------------------------------------------------------------- */

static int entry_of(struct overlay *o, uint64_t n, uint64_t *entry)
{
	struct node *leaf;
	int err = map_leaf(o, n, false, &leaf);

	*entry = !err && leaf ? leaf->entry[n % LEAF_ENTRIES] : ENTRY_NONE;
	return err;
}

static bool follows(uint64_t first, uint64_t next, uint64_t n)
{
	uint64_t a = ENTRY_BLOCK(first), b = ENTRY_BLOCK(next);

	return a <= ENTRY_ZERO ? a == b : b == a + n;
}

/* The end of the stretch from block n on whose blocks lie in turn, at most limit (a block number). */
static int stretch(struct overlay *o, uint64_t n, uint64_t limit, uint64_t entry, uint64_t *end)
{
	uint64_t at = n + 1, next;
	int err = 0;

	for (; at < limit; at++) {
		err = entry_of(o, at, &next);
		if (err || !follows(entry, next, at - n))
			break;
	}
	*end = at;
	return err;
}

static void zero_iov(const struct iovec *iov, unsigned niov)
{
	unsigned i;

	for (i = 0; i < niov; i++)
		memset(iov[i].iov_base, 0, iov[i].iov_len);
}

static int read_base_part(struct overlay *o, const struct request *r, uint64_t pos, uint64_t len)
{
	uint64_t there = pos < o->base_size ? MIN(len, o->base_size - pos) : 0;
	unsigned n;
	int err = 0;

	if (there) {
		n = iov_slice(r->iov, r->niov, pos - r->start, there, r->slice);
		err = o->base->ops->read(o->base, r->slice, n, pos);
	}
	n = iov_slice(r->iov, r->niov, pos - r->start + there, len - there, r->slice);
	zero_iov(r->slice, n);
	return err;
}

static int read_locked(struct overlay *o, const struct request *r, uint64_t end)
{
	uint64_t pos = r->start, entry, last, to;
	int err = 0;

	for (; pos < end && !err; pos = to) {
		err = entry_of(o, pos / OB, &entry);
		if (!err)
			err = stretch(o, pos / OB, (end + OB - 1) / OB, entry, &last);
		if (err)
			break;
		to = MIN(end, last * OB);
		if (ENTRY_BLOCK(entry) == ENTRY_NONE) {
			err = read_base_part(o, r, pos, to - pos);
			continue;
		}
		unsigned n = iov_slice(r->iov, r->niov, pos - r->start, to - pos, r->slice);

		if (ENTRY_BLOCK(entry) == ENTRY_ZERO)
			zero_iov(r->slice, n);
		else
			err = fd_read(o->fd, r->slice, n, ENTRY_BLOCK(entry) * OB + pos % OB);
	}
	return err;
}

static int overlay_read(struct image *im, const struct iovec *iov, unsigned niov, uint64_t offset)
{
	struct overlay *o = overlay_of(im);
	struct iovec slice[IOV_MOST];
	struct request r = { iov, niov, offset, slice };
	int err;

	if (niov > IOV_MOST)
		return -EINVAL;
	pthread_mutex_lock(&o->lock);
	err = read_locked(o, &r, offset + iov_length(iov, niov));
	pthread_mutex_unlock(&o->lock);
	return err;
}

/* ---- Writing ---------------------------------------------------------------- */

/* May the block be written over where it lies? Not if a snapshot has it. */
static bool is_ours(const struct overlay *o, uint64_t entry)
{
	return ENTRY_BLOCK(entry) > ENTRY_ZERO && ENTRY_BIRTH(entry) > o->pinned;
}

/* Part of a block that is new: the rest of it comes from where it was. */
static int write_partial(struct overlay *o, const struct request *r, uint64_t pos, uint64_t end,
			 uint64_t block)
{
	uint8_t buf[OB];
	struct iovec whole = { buf, OB }, one[1];
	struct request old = { &whole, 1, pos / OB * OB, one };
	unsigned n;
	int err = read_locked(o, &old, old.start + OB);

	if (err)
		return err;
	n = iov_slice(r->iov, r->niov, pos - r->start, end - pos, r->slice);
	iov_gather(buf + pos % OB, r->slice, n, end - pos);
	return overlay_write_block(o, block, buf, OB);
}

/* [pos, end) to new blocks from `block` on, nothing of which any map knows yet. */
static int write_new(struct overlay *o, const struct request *r, uint64_t pos, uint64_t end,
		     uint64_t block)
{
	uint64_t to;
	int err = 0;

	for (; pos < end && !err; pos = to) {
		if (pos % OB || end - pos < OB) {
			to = MIN(end, (pos / OB + 1) * OB);
			err = write_partial(o, r, pos, to, block++);
			continue;
		}
		to = end / OB * OB;
		unsigned n = iov_slice(r->iov, r->niov, pos - r->start, to - pos, r->slice);

		err = fd_write(o->fd, r->slice, n, block * OB);
		block += (to - pos) / OB;
	}
	return err;
}

static int enter(struct overlay *o, uint64_t n, uint64_t entry)
{
	struct node *leaf;
	int err = map_leaf(o, n, true, &leaf);

	if (!err)
		leaf->entry[n % LEAF_ENTRIES] = entry;
	return err;
}

/* [pos, end), none of whose blocks may be written over; *to: how far it came. */
static int write_run(struct overlay *o, const struct request *r, uint64_t pos, uint64_t end,
		     uint64_t *to)
{
	uint64_t first = pos / OB, want = (end + OB - 1) / OB - first, block, got, i;
	int err = space_get(o, MIN(want, (uint64_t)RUN_MAX), &block, &got);

	if (err)
		return err;
	*to = MIN(end, (first + got) * OB);
	err = write_new(o, r, pos, *to, block);
	for (i = 0; i < got && !err; i++)
		err = enter(o, first + i, ENTRY(block + i, o->generation));
	/* What is in a map already stays taken: only the start of a run can be. */
	if (err)
		space_unget(o, block + (i ? i - 1 : 0), got - (i ? i - 1 : 0));
	return err;
}

/* The end of the blocks from n on that all may be written over in turn, or all may not. */
static int like(struct overlay *o, uint64_t n, uint64_t limit, uint64_t entry, uint64_t *end)
{
	uint64_t at = n + 1, next;
	bool ours = is_ours(o, entry);
	int err = 0;

	for (; at < limit; at++) {
		err = entry_of(o, at, &next);
		if (err || is_ours(o, next) != ours || (ours && !follows(entry, next, at - n)))
			break;
	}
	*end = at;
	return err;
}

static int write_locked(struct overlay *o, const struct request *r, uint64_t end)
{
	uint64_t pos = r->start, entry, last, to = 0;
	int err = 0;

	for (; pos < end && !err; pos = to) {
		err = entry_of(o, pos / OB, &entry);
		if (!err)
			err = like(o, pos / OB, (end + OB - 1) / OB, entry, &last);
		if (err)
			break;
		to = MIN(end, last * OB);
		if (!is_ours(o, entry)) {
			err = write_run(o, r, pos, to, &to);
			continue;
		}
		unsigned n = iov_slice(r->iov, r->niov, pos - r->start, to - pos, r->slice);

		err = fd_write(o->fd, r->slice, n, ENTRY_BLOCK(entry) * OB + pos % OB);
	}
	return err;
}

/* Who compares sequence numbers must find another one before the first byte has changed. */
static int begin_change(struct overlay *o)
{
	bool must;

	pthread_mutex_lock(&o->lock);
	if (o->told && o->told == o->sequence)
		o->sequence++;
	must = o->sequence != o->super.sequence;
	pthread_mutex_unlock(&o->lock);
	return must ? overlay_commit(o) : 0;
}

/* sync: the maps are part of what has to be durable. */
static int end_change(struct overlay *o)
{
	return o->sync ? overlay_commit(o) : 0;
}

static int overlay_write(struct image *im, const struct iovec *iov, unsigned niov, uint64_t offset)
{
	struct overlay *o = overlay_of(im);
	struct iovec slice[IOV_MOST];
	struct request r = { iov, niov, offset, slice };
	int err = niov > IOV_MOST ? -EINVAL : begin_change(o);

	if (err)
		return err;
	pthread_mutex_lock(&o->lock);
	err = write_locked(o, &r, offset + iov_length(iov, niov));
	pthread_mutex_unlock(&o->lock);
	return err ? err : end_change(o);
}

static int overlay_flush(struct image *im)
{
	return overlay_commit(overlay_of(im));
}

/* ---- Zeroes ----------------------------------------------------------------- */

static int zero_block(struct overlay *o, uint64_t n)
{
	uint64_t entry;
	int err = entry_of(o, n, &entry);

	if (err || ENTRY_BLOCK(entry) == ENTRY_ZERO ||
	    (ENTRY_BLOCK(entry) == ENTRY_NONE && n * OB >= o->base_size))
		return err;
	if (is_ours(o, entry))
		err = space_free(o, ENTRY_BLOCK(entry));
	return err ? err : enter(o, n, ENTRY_ZERO);
}

static int zero_part(struct overlay *o, uint64_t pos, uint64_t end)
{
	static const uint8_t zeroes[OB];
	struct iovec v = { (void *)zeroes, end - pos }, one[1];
	struct request r = { &v, 1, pos, one };

	return pos < end ? write_locked(o, &r, end) : 0;
}

/* Whole blocks; what is left at the two ends is written, if it has to be zero. */
static int zero_range(struct overlay *o, uint64_t pos, uint64_t len, bool exact)
{
	uint64_t end = pos + len, first = (pos + OB - 1) / OB, last = end / OB, n;
	int err = begin_change(o);

	if (err)
		return err;
	pthread_mutex_lock(&o->lock);
	if (first > last) {
		err = exact ? zero_part(o, pos, end) : 0;
	} else {
		err = exact ? zero_part(o, pos, first * OB) : 0;
		for (n = first; n < last && !err; n++)
			err = zero_block(o, n);
		if (!err && exact)
			err = zero_part(o, last * OB, end);
	}
	pthread_mutex_unlock(&o->lock);
	return err ? err : end_change(o);
}

static int overlay_zero(struct image *im, uint64_t offset, uint64_t len, bool unmap)
{
	return zero_range(overlay_of(im), offset, len, true);
}

static int overlay_discard(struct image *im, uint64_t offset, uint64_t len)
{
	return zero_range(overlay_of(im), offset, len, false);
}

/* ---- The rest of an image ----------------------------------------------------- */

static void overlay_interrupt(struct image *im, bool on)
{
	struct overlay *o = overlay_of(im);

	if (o->base)
		o->base->ops->interrupt(o->base, on);
}

static int overlay_refresh(struct image *im, struct skep_error *e)
{
	return 0;		/* it grows by overlay_grow only */
}

static int overlay_identify(struct image *im, struct image_identity *id, struct skep_error *e)
{
	struct overlay *o = overlay_of(im);

	pthread_mutex_lock(&o->lock);
	o->told = o->sequence;
	*id = (struct image_identity){ .kind = IMAGE_OVERLAY, .size = im->size, .sequence = o->sequence };
	memcpy(id->id, o->super.id, sizeof(id->id));
	pthread_mutex_unlock(&o->lock);
	return 0;
}

static void overlay_close(struct image *im)
{
	struct overlay *o = overlay_of(im);

	/* A machine that was restored and never wrote leaves the disk as it was before. */
	if (o->root && !o->view && !im->read_only && !o->taken_back)
		overlay_commit(o);
	node_free(o->root);
	image_close(o->base);
	if (o->fd >= 0)
		close(o->fd);
	pthread_mutex_destroy(&o->lock);
	pthread_mutex_destroy(&o->flush_lock);
	free(o->used);
	free(o->freed);
	free(o->owner);
	free((char *)im->name);
	free(o);
}

const struct image_ops overlay_ops = {
	.name = "overlay", .read = overlay_read, .write = overlay_write, .flush = overlay_flush,
	.zero = overlay_zero, .discard = overlay_discard, .interrupt = overlay_interrupt,
	.refresh = overlay_refresh, .grow = overlay_grow, .identify = overlay_identify, .close = overlay_close,
};

struct image *overlay_open(const struct image_options *io, struct skep_error *e)
{
	struct overlay *o = calloc(1, sizeof(*o));
	int err;

	if (!o) {
		skep_fail(e, ENOMEM, "%s: no memory for a disk", io->owner);
		return NULL;
	}
	pthread_mutex_init(&o->lock, NULL);
	pthread_mutex_init(&o->flush_lock, NULL);
	o->fd = -1;
	o->view = io->snapshot;
	o->sync = io->sync;
	o->im = (struct image){ .ops = &overlay_ops, .name = strdup(io->overlay), .align = 1,
		.read_only = io->read_only || io->snapshot, .can_discard = true, .forgets = true, .threads = 2,
		.physical = OB, .fd = -1 };
	o->owner = strdup(io->owner);
	err = !o->im.name || !o->owner ? skep_fail(e, ENOMEM, "%s: no memory for a disk", io->owner) :
	      io->nocache ? skep_fail(e, EINVAL, "%s.nocache: an overlay is kept in the host's cache; leave "
				      "one of the two out", io->owner) : overlay_file_open(o, io, e);
	if (!err)
		return &o->im;
	/* Nothing of it is to be written. */
	o->view = true;
	overlay_close(&o->im);
	return NULL;
}

bool image_is_overlay(const struct image *im)
{
	return im->ops == &overlay_ops;
}

/* ---- Snapshots ---------------------------------------------------------------- */

static int fail_none(const struct image *im, struct skep_error *e)
{
	return skep_fail(e, ENOTSUP, "%s is no overlay, and has no snapshots", im->name);
}

static void fill_label(struct snapshot_entry *s, const char *label)
{
	size_t len = strlen(label);

	/* The end of a long path says more than its beginning. */
	if (len >= OVERLAY_LABEL)
		label += len - (OVERLAY_LABEL - 1);
	snprintf(s->label, OVERLAY_LABEL, "%s", label);
}

static int take_locked(struct overlay *o, const uint8_t *id, const char *label, struct skep_error *e)
{
	struct snapshot_entry *s = &o->snap[o->nsnaps];
	struct timespec t;
	int err;

	if (o->nsnaps == OVERLAY_SNAPSHOTS_MAX)
		return skep_fail(e, EMFILE, "%s: there are %u snapshots in it, and no more fit; save over a "
				 "file that one of them goes with", o->im.name, o->nsnaps);
	if (o->generation + 1 >= BIRTH_MAX)
		return skep_fail(e, EMFILE, "%s: no further snapshot fits into its numbers", o->im.name);
	err = map_write(o);
	if (err)
		return skep_fail(e, -err, "%s: %s", o->im.name, strerror(-err));
	clock_gettime(CLOCK_REALTIME, &t);
	*s = (struct snapshot_entry){ .root = o->root->at, .size = o->im.size,
		.taken_ns = t.tv_sec * NSEC_PER_SEC + t.tv_nsec, .generation = o->generation };
	memcpy(s->id, id, sizeof(s->id));
	fill_label(s, label);
	o->nsnaps++;
	o->pinned = o->generation++;
	o->snaps_dirty = true;
	return 0;
}

int overlay_take(struct image *im, const uint8_t id[IMAGE_ID_SIZE], const char *label,
		 struct skep_error *e)
{
	struct overlay *o = overlay_of(im);
	int err;

	if (!image_is_overlay(im))
		return fail_none(im, e);
	if (im->read_only)
		return skep_fail(e, EROFS, "%s is opened read-only", im->name);
	pthread_mutex_lock(&o->lock);
	err = take_locked(o, id, label ? label : "", e);
	pthread_mutex_unlock(&o->lock);
	return err;
}

static int find(const struct overlay *o, const uint8_t *id)
{
	unsigned i;

	for (i = 0; i < o->nsnaps; i++)
		if (!memcmp(o->snap[i].id, id, IMAGE_ID_SIZE))
			return (int)i;
	return -ENOENT;
}

/*
 * Out of the list, if it was there and nobody reads it; what it has stays as it is until a list without
 * it is durable.  Who would begin to read it is kept away until settle.
 */
static int remove_entry(struct overlay *o, const uint8_t *id)
{
	int at = find(o, id);

	if (at < 0)
		return at;
	if (image_lock_part(o->fd, load32(id), true) < 0)
		return -EBUSY;
	memmove(&o->snap[at], &o->snap[at + 1], (o->nsnaps - (unsigned)at - 1) * sizeof(o->snap[0]));
	o->nsnaps--;
	o->snaps_dirty = true;
	return 0;
}

/*
 * Space that only the removed snapshots had is free again.  The list without them is durable first,
 * and what is then in memory is what is on the disk.
 */
static int settle(struct overlay *o, struct skep_error *e)
{
	int err = overlay_commit(o);

	image_unlock_parts(o->fd);
	if (err)
		return skep_fail(e, -err, "%s: %s", o->im.name, strerror(-err));
	pthread_mutex_lock(&o->flush_lock);
	pthread_mutex_lock(&o->lock);
	/* Requests have gone on since: then it waits for the next time. */
	if (!o->root->dirty && !o->snaps_dirty && !o->nfreed && o->nblocks == o->super.end &&
	    o->root->at.block == o->super.root.block)
		err = map_mark(o, e);
	pthread_mutex_unlock(&o->lock);
	pthread_mutex_unlock(&o->flush_lock);
	return err;
}

int overlay_drop(struct image *im, const uint8_t id[IMAGE_ID_SIZE], struct skep_error *e)
{
	struct overlay *o = overlay_of(im);
	int err;

	if (!image_is_overlay(im))
		return fail_none(im, e);
	pthread_mutex_lock(&o->lock);
	err = remove_entry(o, id);
	pthread_mutex_unlock(&o->lock);
	if (err == -EBUSY)
		return skep_fail(e, EBUSY, "%s: a clone reads that snapshot", im->name);
	if (err)
		return skep_fail(e, ENOENT, "%s: there is no such snapshot", im->name);
	return settle(o, e);
}

void overlay_drop_label(struct image *im, const char *label, const uint8_t keep[IMAGE_ID_SIZE])
{
	struct overlay *o = overlay_of(im);
	struct snapshot_entry want = { 0 };
	struct skep_error e;
	bool some = false;
	unsigned i;

	if (!image_is_overlay(im))
		return;
	fill_label(&want, label);
	pthread_mutex_lock(&o->lock);
	for (i = o->nsnaps; i--; ) {
		uint8_t id[IMAGE_ID_SIZE];

		memcpy(id, o->snap[i].id, sizeof(id));
		if (!strcmp(o->snap[i].label, want.label) && memcmp(id, keep, sizeof(id)))
			some |= !remove_entry(o, id);
	}
	pthread_mutex_unlock(&o->lock);
	if (some)
		settle(o, &e);
}

int overlay_revert(struct image *im, const uint8_t id[IMAGE_ID_SIZE], struct skep_error *e)
{
	struct overlay *o = overlay_of(im);
	struct node *root = NULL;
	int at, err = -ENOENT;

	if (!image_is_overlay(im))
		return fail_none(im, e);
	pthread_mutex_lock(&o->lock);
	at = find(o, id);
	if (at >= 0)
		err = map_root(o, &o->snap[at].root, &root);
	if (!err) {
		node_free(o->root);
		o->root = root;
		o->im.size = o->snap[at].size;
		o->sequence++;
		o->taken_back = true;
	}
	pthread_mutex_unlock(&o->lock);
	if (err == -ENOENT)
		return skep_fail(e, ENOENT, "%s has no snapshot that goes with it; it was given up when a "
				 "newer one took its place", im->name);
	if (err)
		return skep_fail(e, EIO, "%s: the snapshot's first map is damaged", im->name);
	return 0;
}

struct image *overlay_under(struct image *im)
{
	return image_is_overlay(im) ? overlay_of(im)->base : im;
}

int overlay_grow(struct image *im, uint64_t size, struct skep_error *e)
{
	struct overlay *o = overlay_of(im);
	int err;

	if (!image_is_overlay(im))
		return fail_none(im, e);
	if (size < im->size || size > OVERLAY_SIZE_MAX || size % IMAGE_SECTOR)
		return skep_fail(e, EINVAL, "%s: a disk of %" PRIu64 " bytes cannot become one of %" PRIu64,
				 im->name, im->size, size);
	pthread_mutex_lock(&o->lock);
	__atomic_store_n(&im->size, size, __ATOMIC_RELEASE);
	pthread_mutex_unlock(&o->lock);
	err = overlay_commit(o);
	return err ? skep_fail(e, -err, "%s: %s", im->name, strerror(-err)) : 0;
}

unsigned overlay_count(struct image *im)
{
	struct overlay *o = overlay_of(im);
	unsigned n;

	if (!image_is_overlay(im))
		return 0;
	pthread_mutex_lock(&o->lock);
	n = o->nsnaps;
	pthread_mutex_unlock(&o->lock);
	return n;
}

int overlay_get(struct image *im, unsigned n, struct overlay_snapshot *s)
{
	struct overlay *o = overlay_of(im);
	int err = -ENOENT;

	if (!image_is_overlay(im))
		return err;
	pthread_mutex_lock(&o->lock);
	if (n < o->nsnaps) {
		memcpy(s->id, o->snap[n].id, sizeof(s->id));
		s->size = o->snap[n].size;
		s->taken_ns = o->snap[n].taken_ns;
		snprintf(s->label, sizeof(s->label), "%s", o->snap[n].label);
		err = 0;
	}
	pthread_mutex_unlock(&o->lock);
	return err;
}
