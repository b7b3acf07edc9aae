/* The file of an overlay: making it, opening it, and making durable what was done. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "block/overlay_inside.h"

#define BASE_BLOCK	2u
#define ENTRIES_A_BLOCK	(OB / sizeof(struct snapshot_entry))

static uint64_t block_sum(const void *block)
{
	return XXH3_64bits(block, OB - 8);
}

/* ---- Commit --------------------------------------------------------------- */

static uint64_t table_blocks(unsigned snapshots)
{
	return (snapshots + ENTRIES_A_BLOCK - 1) / ENTRIES_A_BLOCK;
}

/* The list of snapshots, to a new place. */
static int write_table(struct overlay *o, struct overlay_super *s)
{
	uint64_t n = table_blocks(o->nsnaps), i, block = 0, got = 0;
	int err = 0;

	for (i = 0; i < table_blocks(o->super.nsnapshots) && !err; i++)
		err = space_free(o, o->super.snapshots.block + i);
	s->snapshots = (struct overlay_ref){ 0 };
	s->nsnapshots = o->nsnaps;
	if (err || !n)
		return err;
	/* It has to be one run: at the end of the file there is always one. */
	o->hint = o->nblocks;
	err = space_get(o, n, &block, &got);
	if (!err && got < n)
		err = -ENOSPC;
	if (!err)
		err = overlay_write_block(o, block, o->snap, n * OB);
	s->snapshots.block = block;
	s->snapshots.sum = overlay_sum(o->snap, n * OB);
	return err;
}

/* Writes maps and table, and fills in the superblock that will lead to them; o->lock held. */
static int prepare(struct overlay *o, struct overlay_super *s)
{
	int err;

	memset(o->snap + o->nsnaps, 0, sizeof(o->snap) - o->nsnaps * sizeof(o->snap[0]));
	*s = o->super;
	err = map_write(o);
	if (!err && o->snaps_dirty)
		err = write_table(o, s);
	s->commit++;
	s->sequence = o->sequence;
	s->size = o->im.size;
	s->end = o->nblocks;
	s->generation = o->generation;
	s->root = o->root->at;
	s->sum = block_sum(s);
	return err;
}

static bool differs(const struct overlay *o, const struct overlay_super *s)
{
	return o->snaps_dirty || s->root.block != o->super.root.block || s->size != o->super.size ||
	       s->sequence != o->super.sequence || s->generation != o->super.generation;
}

/* A write that failed may have left the end of the file short of what counts as used. */
static int fill_file(const struct overlay *o, uint64_t end)
{
	struct stat st;

	if (fstat(o->fd, &st) < 0)
		return -errno;
	return (uint64_t)st.st_size < end * OB && ftruncate(o->fd, (off_t)(end * OB)) < 0 ? -errno : 0;
}

/* The kernel tells of a failure once, and forgets what it could not write: it is remembered here. */
static int sync_fd(struct overlay *o)
{
	if (!o->lost && fdatasync(o->fd) < 0)
		o->lost = -errno;
	return o->lost;
}

/* The superblock that is the older one gives way. */
static int write_super(struct overlay *o, const struct overlay_super *s)
{
	int err = overlay_write_block(o, s->commit & 1, s, sizeof(*s));

	return err ? err : sync_fd(o);
}

/* What the maps before this one had, and no other has, is free; o->lock held. */
static void release(struct overlay *o, size_t n)
{
	size_t i;

	if (!n)
		return;
	for (i = 0; i < n; i++)
		space_unget(o, o->freed[i], 1);
	memmove(o->freed, o->freed + n, (o->nfreed - n) * sizeof(*o->freed));
	o->nfreed -= n;
}

/*
 * What only snapshots had that are given up may be written over from now on: no list on the disk
 * has them any more.  o->lock held.
 */
static void unpin(struct overlay *o)
{
	unsigned i;

	if (o->snaps_dirty)
		return;
	o->pinned = 0;
	for (i = 0; i < o->nsnaps; i++)
		o->pinned = MAX(o->pinned, o->snap[i].generation);
}

int overlay_commit(struct overlay *o)
{
	struct overlay_super s;
	size_t nfreed;
	bool some, list;
	int err;

	pthread_mutex_lock(&o->flush_lock);
	pthread_mutex_lock(&o->lock);
	err = prepare(o, &s);
	some = differs(o, &s);
	list = o->snaps_dirty;
	/* Who changes the list from here on is the next commit's business. */
	o->snaps_dirty = false;
	o->taken_back = false;
	nfreed = o->nfreed;
	/* Requests go on meanwhile: nothing that they change is what this superblock leads to. */
	pthread_mutex_unlock(&o->lock);
	if (!err && some)
		err = fill_file(o, s.end);
	if (!err)
		err = sync_fd(o);
	if (!err && some)
		err = write_super(o, &s);
	pthread_mutex_lock(&o->lock);
	if (!err && some) {
		o->super = s;
		release(o, nfreed);
		unpin(o);
	}
	o->snaps_dirty |= err && list;
	pthread_mutex_unlock(&o->lock);
	pthread_mutex_unlock(&o->flush_lock);
	return err;
}

/* ---- Making ---------------------------------------------------------------- */

static int fail_file(const struct overlay *o, int err, const char *what, struct skep_error *e)
{
	return skep_fail(e, -err, "%s.overlay: %s: %s: %s", o->owner, o->im.name, what, strerror(-err));
}

static int open_base(struct overlay *o, const struct image_options *io, struct skep_error *e)
{
	struct image_options b = { .owner = io->owner, .path = o->about.path, .read_only = true,
				   .retry_s = io->retry_s, .depth = io->depth + 1 };

	if (!o->about.path[0])
		return 0;
	if (b.depth > OVERLAY_DEPTH_MAX)
		return skep_fail(e, ELOOP, "%s.overlay: %s is the last of %u disks that lie one over the other, "
				 "and that is one too many; or they lie in a ring", o->owner, o->im.name,
				 b.depth);
	if (o->about.has_snapshot) {
		b.overlay = o->about.path;
		b.path = NULL;
		b.snapshot = o->about.snapshot;
	}
	o->base = image_open(&b, e);
	if (!o->base)
		return -EINVAL;
	o->base_size = o->base->size;
	return 0;
}

static int fill_base(struct overlay *o, const struct image_options *io, struct skep_error *e)
{
	const char *path = io->from ? io->from : io->path;
	char *real;

	if (!path)
		return skep_fail(e, EINVAL, "%s.overlay: %s is not there yet, and to make it the disk under "
				 "it has to be named: path=", o->owner, o->im.name);
	memset(&o->about, 0, sizeof(o->about));
	memcpy(o->about.magic, OVERLAY_MAGIC, sizeof(o->about.magic));
	real = nbd_is_uri(path) ? strdup(path) : realpath(path, NULL);
	if (!real)
		return skep_fail(e, errno, "%s.path: %s: %s", o->owner, path, strerror(errno));
	if (strlen(real) >= sizeof(o->about.path)) {
		free(real);
		return skep_fail(e, ENAMETOOLONG, "%s.path: the name is too long for an overlay", o->owner);
	}
	strcpy(o->about.path, real);
	free(real);
	if (io->from) {
		o->about.has_snapshot = 1;
		memcpy(o->about.snapshot, io->from_snapshot, IMAGE_ID_SIZE);
	}
	return 0;
}

static void note_base(struct overlay *o, const struct image_identity *id)
{
	o->about.kind = id->kind;
	o->about.size = id->size;
	o->about.inode = id->inode;
	o->about.changed_ns = id->changed_ns;
	memcpy(o->about.id, id->id, sizeof(id->id));
	o->about.sequence = id->sequence;
	o->about.sum = block_sum(&o->about);
}

/* The file is empty: the last thing that is written to it makes it an overlay. */
static int make_file(struct overlay *o, const struct image_options *io, struct skep_error *e)
{
	struct overlay_super *s = &o->super;
	struct image_identity id;
	int err = fill_base(o, io, e);

	if (!err)
		err = open_base(o, io, e);
	if (!err)
		err = o->base->ops->identify(o->base, &id, e);
	if (err)
		return err;
	if (o->base_size > OVERLAY_SIZE_MAX)
		return skep_fail(e, EFBIG, "%s.overlay: a disk of %" PRIu64 " bytes is too large for an "
				 "overlay", o->owner, o->base_size);
	note_base(o, &id);
	*s = (struct overlay_super){ .version = OVERLAY_VERSION, .commit = 1, .sequence = 1,
				     .size = o->base_size, .end = FIRST_BLOCK, .generation = 1 };
	memcpy(s->magic, OVERLAY_MAGIC, sizeof(s->magic));
	if (getrandom(s->id, sizeof(s->id), 0) != sizeof(s->id))
		return skep_fail(e, errno, "the host gives no random bytes: %s", strerror(errno));
	s->sum = block_sum(s);
	err = ftruncate(o->fd, FIRST_BLOCK * OB) < 0 ? -errno :
	      overlay_write_block(o, BASE_BLOCK, &o->about, OB);
	if (!err)
		err = sync_fd(o);
	if (!err)
		err = write_super(o, s);
	return err ? fail_file(o, err, "it cannot be made", e) : 0;
}

/* ---- Opening ---------------------------------------------------------------- */

static bool super_whole(const struct overlay_super *s)
{
	return !memcmp(s->magic, OVERLAY_MAGIC, sizeof(s->magic)) && s->sum == block_sum(s);
}

static bool super_good(const struct overlay_super *s, uint64_t file_blocks)
{
	return super_whole(s) && s->version == OVERLAY_VERSION && !s->flags && s->size && s->size % IMAGE_SECTOR == 0 &&
	       s->size <= OVERLAY_SIZE_MAX && s->end >= FIRST_BLOCK && s->end <= file_blocks &&
	       s->nsnapshots <= OVERLAY_SNAPSHOTS_MAX && s->generation && s->generation < BIRTH_MAX &&
	       (!s->nsnapshots || (s->snapshots.block >= FIRST_BLOCK && s->snapshots.block < s->end &&
				   table_blocks(s->nsnapshots) <= s->end - s->snapshots.block));
}

static int fail_magic(struct overlay *o, const struct overlay_super *s, struct skep_error *e)
{
	if (memcmp(s->magic, OVERLAY_MAGIC, sizeof(s->magic)))
		return skep_fail(e, EINVAL, "%s.overlay: %s is there and is no overlay; choose another name, "
				 "under which one is made", o->owner, o->im.name);
	if (s->sum == block_sum(s) && s->version != OVERLAY_VERSION)
		return skep_fail(e, ENOTSUP, "%s.overlay: %s has format %u, and this release knows %u",
				 o->owner, o->im.name, s->version, OVERLAY_VERSION);
	return skep_fail(e, EIO, "%s.overlay: %s is damaged or cut short: its superblocks do not fit it",
			 o->owner, o->im.name);
}

static int read_supers(struct overlay *o, struct skep_error *e)
{
	struct overlay_super s[2];
	struct stat st;
	unsigned i;
	int err = fstat(o->fd, &st) < 0 ? -errno : 0;
	bool some = false;

	memset(s, 0, sizeof(s));
	for (i = 0; i < 2 && !err && st.st_size >= (off_t)(FIRST_BLOCK * OB); i++)
		err = overlay_read_block(o, i, &s[i], OB);
	if (err)
		return fail_file(o, err, "cannot be read", e);
	/* What the older one leads to may have been written over since: it is no way out. */
	for (i = 0; i < 2; i++)
		if (super_whole(&s[i]) && (!some || s[i].commit > o->super.commit)) {
			o->super = s[i];
			some = true;
		}
	if (some && super_good(&o->super, (uint64_t)st.st_size / OB))
		return 0;
	return fail_magic(o, some ? &o->super : s[0].magic[0] ? &s[0] : &s[1], e);
}

static int read_table(struct overlay *o, struct skep_error *e)
{
	uint64_t len = table_blocks(o->super.nsnapshots) * OB;
	unsigned i;
	int err = 0;

	if (len)
		err = overlay_read_block(o, o->super.snapshots.block, o->snap, len);
	if (!err && len && overlay_sum(o->snap, len) != o->super.snapshots.sum)
		err = -EIO;
	o->nsnaps = o->super.nsnapshots;
	for (i = 0; i < o->nsnaps && !err; i++) {
		struct snapshot_entry *s = &o->snap[i];

		s->label[sizeof(s->label) - 1] = '\0';
		if (s->generation >= o->super.generation || s->size > OVERLAY_SIZE_MAX || !s->size ||
		    s->size % IMAGE_SECTOR || s->root.birth > s->generation)
			err = -EIO;
		o->pinned = MAX(o->pinned, s->generation);
	}
	if (!err)
		return 0;
	o->nsnaps = 0;
	return fail_file(o, err, "its list of snapshots is damaged", e);
}

/* The disk below: it must not have changed, or what lies above does not fit it. */
static int check_base(struct overlay *o, struct skep_error *e)
{
	struct image_identity was = { .kind = o->about.kind, .size = o->about.size,
		.changed_ns = o->about.changed_ns, .sequence = o->about.sequence }, is;
	struct skep_error why = { "" };
	int err;

	if (!o->base)
		return 0;
	err = o->base->ops->identify(o->base, &is, e);
	if (err)
		return err;
	/* A copy of it elsewhere is as good, if its time was kept. */
	was.inode = is.inode;
	memcpy(was.id, o->about.id, sizeof(was.id));
	/* A snapshot of another overlay never changes, whatever that one does. */
	if (o->about.has_snapshot)
		was.sequence = is.sequence;
	err = image_compare(&was, &is, &why);
	return err ? skep_fail(e, -err, "%s.overlay: %s lies over %s, which is not what it was: %.200s; the "
			       "two belong together no more", o->owner, o->im.name, o->base->name,
			       why.text) : 0;
}

static int read_base(struct overlay *o, const struct image_options *io, struct skep_error *e)
{
	int err = overlay_read_block(o, BASE_BLOCK, &o->about, OB);

	if (!err && (memcmp(o->about.magic, OVERLAY_MAGIC, sizeof(o->about.magic)) ||
		     o->about.sum != block_sum(&o->about)))
		err = -EIO;
	o->about.path[sizeof(o->about.path) - 1] = '\0';
	if (err)
		return fail_file(o, err, "the block that tells of the disk below is damaged", e);
	/* The disk below may have moved: what is given counts. */
	if (io->path && !o->about.has_snapshot) {
		if (strlen(io->path) >= sizeof(o->about.path))
			return skep_fail(e, ENAMETOOLONG, "%s.path: too long", o->owner);
		strcpy(o->about.path, io->path);
	}
	err = open_base(o, io, e);
	return err ? err : check_base(o, e);
}

static const struct snapshot_entry *find_snapshot(const struct overlay *o, const uint8_t *id)
{
	unsigned i;

	for (i = 0; i < o->nsnaps; i++)
		if (!memcmp(o->snap[i].id, id, IMAGE_ID_SIZE))
			return &o->snap[i];
	return NULL;
}

/* The root of the disk, or of the snapshot that is asked for. */
static int load_root(struct overlay *o, const struct image_options *io, struct skep_error *e)
{
	const struct overlay_ref *ref = &o->super.root;
	const struct snapshot_entry *s;
	int err;

	o->im.size = o->super.size;
	o->generation = o->super.generation;
	o->sequence = o->super.sequence;
	o->nblocks = o->super.end;
	if (io->snapshot) {
		s = find_snapshot(o, io->snapshot);
		if (!s)
			return skep_fail(e, ENOENT, "%s.overlay: %s has no such snapshot any more; it was "
					 "given up when a newer one took its place", o->owner, o->im.name);
		ref = &s->root;
		o->im.size = s->size;
	}
	err = map_root(o, ref, &o->root);
	return err ? fail_file(o, err, "its first map is damaged", e) : 0;
}

static int lock_file(struct overlay *o, const struct image_options *io, struct skep_error *e)
{
	int err;

	if (!io->snapshot)
		return image_lock(o->fd, o->owner, o->im.name, !io->read_only, e);
	/* Its machine may go on writing; the snapshot itself stays as long as this lock. */
	err = image_lock_part(o->fd, load32(io->snapshot), false);
	return err == -EAGAIN || err == -EACCES ?
	       skep_fail(e, EBUSY, "%s.overlay: the snapshot of %s is just being given up", o->owner,
			 o->im.name) : 0;
}

static int open_fd(struct overlay *o, const struct image_options *io, struct skep_error *e)
{
	bool write = !io->read_only && !io->snapshot;
	int flags = (write ? O_RDWR | O_CREAT : O_RDONLY) | O_CLOEXEC | (io->sync ? O_SYNC : 0) |
		    (io->fresh ? O_EXCL : 0);

	o->fd = open(io->overlay, flags, 0666);
	if (o->fd < 0 && errno == EEXIST)
		return skep_fail(e, EEXIST, "%s.overlay: %s is there already, and what is restored needs a "
				 "new one; choose another name, or remove it", o->owner, io->overlay);
	return o->fd < 0 ? skep_fail(e, errno, "%s.overlay: %s: %s", o->owner, io->overlay,
				     strerror(errno)) : 0;
}

int overlay_file_open(struct overlay *o, const struct image_options *io, struct skep_error *e)
{
	struct stat st;
	int err = open_fd(o, io, e);
	bool made;

	if (!err)
		err = lock_file(o, io, e);
	if (!err && fstat(o->fd, &st) < 0)
		err = fail_file(o, -errno, "cannot be looked at", e);
	if (!err && !S_ISREG(st.st_mode))
		err = skep_fail(e, EINVAL, "%s.overlay: %s is not a file", o->owner, o->im.name);
	if (err)
		return err;
	made = !st.st_size && !io->read_only && !io->snapshot;
	if (made) {
		err = make_file(o, io, e);
		/* A name without an overlay behind it would only be in the way. */
		if (err)
			unlink(io->overlay);
	} else {
		err = read_supers(o, e);
		if (!err)
			err = read_table(o, e);
		if (!err)
			err = read_base(o, io, e);
	}
	if (!err)
		err = load_root(o, io, e);
	if (!err && !io->read_only && !io->snapshot)
		err = map_mark(o, e);
	return err;
}
