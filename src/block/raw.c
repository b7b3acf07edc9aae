/*
 * Files and block devices as they are.
 *
 * nocache is O_DIRECT: memory, offsets and lengths have to be aligned then, and what a guest gives
 * otherwise goes through a buffer.  sync is O_SYNC.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/util.h"
#include "block/image.h"

#define DIRECT_ALIGN	4096u
#define ZERO_BYTES	(1u << 20)	/* written at a time where the host cannot make zeroes */

struct raw {
	struct image im;
	bool device;
	pthread_mutex_t bounce;		/* whole blocks are read and written back: one at a time */
};

static struct raw *raw_of(struct image *im)
{
	return container_of(im, struct raw, im);
}

static bool aligned(const struct image *im, const struct iovec *iov, unsigned niov, uint64_t offset)
{
	uint64_t bits = offset;
	unsigned i;

	for (i = 0; i < niov; i++)
		bits |= (uintptr_t)iov[i].iov_base | iov[i].iov_len;
	return !(bits & (im->align - 1));
}

/*
 * O_DIRECT, but not aligned: whole blocks around it go through a buffer.  Of writes one at a time, or
 * a neighbour's sector would be written back as it was.
 */
static int move_bounced(struct image *im, const struct iovec *iov, unsigned niov, uint64_t offset,
			bool write)
{
	uint64_t len = iov_length(iov, niov);
	uint64_t start = offset & ~(uint64_t)(im->align - 1);
	/* The end of a file may be less aligned than its blocks; the kernel takes sectors there. */
	uint64_t end = MIN(ALIGN_UP(offset + len, (uint64_t)im->align), im->size);
	struct iovec whole = { .iov_len = end - start };
	int err;

	if (posix_memalign(&whole.iov_base, im->align, whole.iov_len))
		return -ENOMEM;
	err = !write || start != offset || end != offset + len ? fd_read(im->fd, &whole, 1, start) : 0;
	if (!err && write) {
		iov_gather((uint8_t *)whole.iov_base + (offset - start), iov, niov, len);
		err = fd_write(im->fd, &whole, 1, start);
	} else if (!err) {
		iov_scatter(iov, niov, (uint8_t *)whole.iov_base + (offset - start), len);
	}
	free(whole.iov_base);
	return err;
}

static int raw_read(struct image *im, const struct iovec *iov, unsigned niov, uint64_t offset)
{
	return aligned(im, iov, niov, offset) ? fd_read(im->fd, iov, niov, offset) :
	       move_bounced(im, iov, niov, offset, false);
}

static int raw_write(struct image *im, const struct iovec *iov, unsigned niov, uint64_t offset)
{
	int err;

	if (aligned(im, iov, niov, offset))
		return fd_write(im->fd, iov, niov, offset);
	pthread_mutex_lock(&raw_of(im)->bounce);
	err = move_bounced(im, iov, niov, offset, true);
	pthread_mutex_unlock(&raw_of(im)->bounce);
	return err;
}

static int raw_flush(struct image *im)
{
	return fdatasync(im->fd) < 0 ? -errno : 0;
}

static int write_zeroes(struct image *im, uint64_t offset, uint64_t len)
{
	void *zeroes;
	int err = 0;

	if (posix_memalign(&zeroes, DIRECT_ALIGN, ZERO_BYTES))
		return -ENOMEM;
	memset(zeroes, 0, ZERO_BYTES);
	while (len && !err) {
		uint64_t part = MIN(len, (uint64_t)ZERO_BYTES);
		struct iovec v = { zeroes, part };

		err = raw_write(im, &v, 1, offset);
		offset += v.iov_len;
		len -= v.iov_len;
	}
	free(zeroes);
	return err;
}

static int allocate(struct image *im, int mode, uint64_t offset, uint64_t len)
{
	int err;

	do
		err = fallocate(im->fd, mode | FALLOC_FL_KEEP_SIZE, (off_t)offset, (off_t)len) < 0 ?
		      -errno : 0;
	while (err == -EINTR);
	return err;
}

static int raw_zero(struct image *im, uint64_t offset, uint64_t len, bool unmap)
{
	int err = allocate(im, unmap ? FALLOC_FL_PUNCH_HOLE : FALLOC_FL_ZERO_RANGE, offset, len);

	if (err == -EOPNOTSUPP || err == -ENOSYS || err == -EINVAL)
		err = write_zeroes(im, offset, len);
	return err;
}

static int raw_discard(struct image *im, uint64_t offset, uint64_t len)
{
	int err = allocate(im, FALLOC_FL_PUNCH_HOLE, offset, len);

	/* It is only a hint: what the host cannot do is not an error. */
	return err == -EOPNOTSUPP || err == -ENOSYS || err == -EINVAL ? 0 : err;
}

static void raw_interrupt(struct image *im, bool on)
{
}

static int find_size(struct raw *r, const char *owner, struct skep_error *e)
{
	struct stat st;
	uint64_t size;

	if (fstat(r->im.fd, &st) < 0)
		return skep_fail(e, errno, "%s: %s: %s", owner, r->im.name, strerror(errno));
	if (S_ISBLK(st.st_mode)) {
		if (ioctl(r->im.fd, BLKGETSIZE64, &size) < 0)
			return skep_fail(e, errno, "%s: the size of %s cannot be found out: %s", owner,
					 r->im.name, strerror(errno));
		r->device = true;
	} else if (S_ISREG(st.st_mode)) {
		size = (uint64_t)st.st_size;
	} else {
		return skep_fail(e, EINVAL, "%s: %s is neither a file nor a block device", owner,
				 r->im.name);
	}
	if (size % IMAGE_SECTOR)
		return skep_fail(e, EINVAL, "%s: the size of %s, %llu bytes, is not a multiple of %u; "
				 "enlarge it with truncate -s %%%u %s", owner, r->im.name,
				 (unsigned long long)size, IMAGE_SECTOR, IMAGE_SECTOR, r->im.name);
	if (!size)
		return skep_fail(e, EINVAL, "%s: %s is empty; make it as large as the disk is to be: "
				 "truncate -s 10G %s", owner, r->im.name, r->im.name);
	__atomic_store_n(&r->im.size, size, __ATOMIC_RELEASE);
	return 0;
}

static int raw_refresh(struct image *im, struct skep_error *e)
{
	return find_size(raw_of(im), im->name, e);
}

static int raw_grow(struct image *im, uint64_t size, struct skep_error *e)
{
	if (raw_of(im)->device)
		return skep_fail(e, ENOTSUP, "%s is a device, whose size is its own", im->name);
	if (im->read_only)
		return skep_fail(e, EROFS, "%s is opened read-only", im->name);
	return ftruncate(im->fd, (off_t)size) < 0 ?
	       skep_fail(e, errno, "%s cannot be made larger: %s", im->name, strerror(errno)) : 0;
}

static int raw_identify(struct image *im, struct image_identity *id, struct skep_error *e)
{
	struct stat st;

	if (fstat(im->fd, &st) < 0)
		return skep_fail(e, errno, "%s: %s", im->name, strerror(errno));
	*id = (struct image_identity){
		.kind = raw_of(im)->device ? IMAGE_UNKNOWN : IMAGE_FILE, .size = im->size,
		.inode = st.st_ino,
		.changed_ns = st.st_mtim.tv_sec * NSEC_PER_SEC + st.st_mtim.tv_nsec,
	};
	return 0;
}

static void raw_close(struct image *im)
{
	struct raw *r = raw_of(im);

	if (im->fd >= 0)
		close(im->fd);
	pthread_mutex_destroy(&r->bounce);
	free((char *)im->name);
	free(r);
}

static const struct image_ops raw_ops = {
	.name = "raw", .read = raw_read, .write = raw_write, .flush = raw_flush, .zero = raw_zero,
	.discard = raw_discard, .interrupt = raw_interrupt, .refresh = raw_refresh, .grow = raw_grow,
	.identify = raw_identify, .close = raw_close,
};

static int open_flags(const struct image_options *o)
{
	return (o->read_only ? O_RDONLY : O_RDWR) | O_CLOEXEC | O_NONBLOCK |
	       (o->nocache ? O_DIRECT : 0) | (o->sync ? O_SYNC : 0);
}

static int open_file(struct raw *r, const struct image_options *o, struct skep_error *e)
{
	r->im.fd = open(o->path, open_flags(o));
	if (r->im.fd >= 0)
		return 0;
	if (errno == ENOENT)
		return skep_fail(e, ENOENT, "%s: there is no file %s; truncate -s 10G %s makes one", o->owner,
				 o->path, o->path);
	if ((errno == EACCES || errno == EROFS || errno == EPERM) && !o->read_only)
		return skep_fail(e, errno, "%s: %s cannot be written to: %s; with ro it is opened "
				 "read-only", o->owner, o->path, strerror(errno));
	if (errno == EINVAL && o->nocache)
		return skep_fail(e, EINVAL, "%s: the file system of %s has no O_DIRECT; leave nocache out",
				 o->owner, o->path);
	return skep_fail(e, errno, "%s: %s: %s", o->owner, o->path, strerror(errno));
}

/* A device that the host has mounted is not ours to write to. */
static int exclude_host(struct raw *r, const struct image_options *o, struct skep_error *e)
{
	int fd;

	if (!r->device || o->read_only)
		return 0;
	fd = open(o->path, open_flags(o) | O_EXCL);
	if (fd < 0)
		return skep_fail(e, errno, "%s: %s: %s; a device that the host uses cannot be a machine's",
				 o->owner, o->path, strerror(errno));
	/* O_EXCL is held by who opened with it: that one is the disk from now on. */
	close(r->im.fd);
	r->im.fd = fd;
	return 0;
}

static unsigned physical_block(const struct raw *r)
{
	struct stat st;
	unsigned size = 0;

	if (r->device && !ioctl(r->im.fd, BLKPBSZGET, &size))
		return size;
	return !fstat(r->im.fd, &st) && st.st_blksize > 0 ? (unsigned)st.st_blksize : 4096;
}

struct image *raw_open(const struct image_options *o, struct skep_error *e)
{
	struct raw *r = calloc(1, sizeof(*r));
	int err;

	if (!r || !(r->im.name = strdup(o->path))) {
		free(r);
		skep_fail(e, ENOMEM, "%s: no memory for a disk", o->owner);
		return NULL;
	}
	pthread_mutex_init(&r->bounce, NULL);
	r->im.ops = &raw_ops;
	r->im.read_only = o->read_only;
	r->im.can_discard = r->im.forgets = true;
	r->im.align = o->nocache ? DIRECT_ALIGN : 1;
	r->im.threads = 4;
	r->im.fd = -1;
	err = open_file(r, o, e);
	if (!err)
		err = find_size(r, o->owner, e);
	if (!err)
		err = exclude_host(r, o, e);
	if (!err)
		err = image_lock(r->im.fd, o->owner, o->path, !o->read_only, e);
	if (err) {
		raw_close(&r->im);
		return NULL;
	}
	r->im.physical = physical_block(r);
	return &r->im;
}
