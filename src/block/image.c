#include "block/image.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/util.h"

/* ---- Nothing ----------------------------------------------------------- */

#define NULL_SIZE	(1ull << 45)	/* the largest that any disk of ours can be */

static int null_read(struct image *im, const struct iovec *iov, unsigned niov, uint64_t offset)
{
	unsigned i;

	for (i = 0; i < niov; i++)
		memset(iov[i].iov_base, 0, iov[i].iov_len);
	return 0;
}

static int null_write(struct image *im, const struct iovec *iov, unsigned niov, uint64_t offset)
{
	return 0;
}

static int null_flush(struct image *im)
{
	return 0;
}

static int null_zero(struct image *im, uint64_t offset, uint64_t len, bool unmap)
{
	return 0;
}

static int null_discard(struct image *im, uint64_t offset, uint64_t len)
{
	return 0;
}

static void null_interrupt(struct image *im, bool on)
{
}

static int null_refresh(struct image *im, struct skep_error *e)
{
	return 0;
}

static int null_grow(struct image *im, uint64_t size, struct skep_error *e)
{
	return skep_fail(e, EINVAL, "no disk of ours is larger");
}

static int null_identify(struct image *im, struct image_identity *id, struct skep_error *e)
{
	*id = (struct image_identity){ .kind = IMAGE_UNKNOWN, .size = im->size };
	return 0;
}

static void null_close(struct image *im)
{
	free(im);
}

static const struct image_ops null_ops = {
	.name = "null", .read = null_read, .write = null_write, .flush = null_flush, .zero = null_zero,
	.discard = null_discard, .interrupt = null_interrupt, .refresh = null_refresh, .grow = null_grow,
	.identify = null_identify, .close = null_close,
};

static struct image *null_open(const struct image_options *o, struct skep_error *e)
{
	struct image *im = calloc(1, sizeof(*im));

	if (!im) {
		skep_fail(e, ENOMEM, "%s: no memory for a disk", o->owner);
		return NULL;
	}
	*im = (struct image){ .ops = &null_ops, .name = "null", .size = NULL_SIZE,
			      .read_only = o->read_only, .can_discard = true, .align = 1, .threads = 0,
			      .physical = 4096, .fd = -1 };
	return im;
}

struct image *image_open(const struct image_options *o, struct skep_error *e)
{
	if (o->overlay && *o->overlay)
		return overlay_open(o, e);
	if (o->path && !strcmp(o->path, "null"))
		return null_open(o, e);
	if (!o->path) {
		skep_fail(e, EINVAL, "%s: a disk needs a path", o->owner);
		return NULL;
	}
	return nbd_is_uri(o->path) ? nbd_open(o, e) : raw_open(o, e);
}

void image_close(struct image *im)
{
	if (im)
		im->ops->close(im);
}

static int hex(char c)
{
	return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

bool image_id_parse(const char *text, uint8_t id[IMAGE_ID_SIZE])
{
	unsigned i;

	for (i = 0; i < IMAGE_ID_SIZE; i++) {
		int high = hex(text[2 * i]), low = high < 0 ? -1 : hex(text[2 * i + 1]);

		if (low < 0)
			return false;
		id[i] = (uint8_t)(high << 4 | low);
	}
	return !text[2 * IMAGE_ID_SIZE];
}

void image_id_print(const uint8_t id[IMAGE_ID_SIZE], char *text)
{
	unsigned i;

	for (i = 0; i < IMAGE_ID_SIZE; i++)
		sprintf(text + 2 * i, "%02x", id[i]);
}

int image_compare(const struct image_identity *was, const struct image_identity *is,
		  struct skep_error *e)
{
	if (was->kind != is->kind)
		return skep_fail(e, ESTALE, "it was %s and is %s now",
				 was->kind == IMAGE_OVERLAY ? "an overlay" : "no overlay",
				 is->kind == IMAGE_OVERLAY ? "an overlay" : "none");
	if (was->size != is->size)
		return skep_fail(e, ESTALE, "it had %" PRIu64 " bytes and has %" PRIu64 " now", was->size,
				 is->size);
	if (was->kind == IMAGE_FILE && was->inode != is->inode)
		return skep_fail(e, ESTALE, "it is another file than the one that was saved with");
	if (was->kind == IMAGE_FILE && was->changed_ns != is->changed_ns)
		return skep_fail(e, ESTALE, "it was written to since");
	if (was->kind == IMAGE_OVERLAY && memcmp(was->id, is->id, sizeof(was->id)))
		return skep_fail(e, ESTALE, "it is another overlay than the one that was saved with");
	if (was->kind == IMAGE_OVERLAY && was->sequence != is->sequence)
		return skep_fail(e, ESTALE, "it was written to since");
	return 0;
}

/* ---- Plain descriptors ------------------------------------------------- */

uint64_t iov_length(const struct iovec *iov, unsigned niov)
{
	uint64_t len = 0;
	unsigned i;

	for (i = 0; i < niov; i++)
		len += iov[i].iov_len;
	return len;
}

unsigned iov_slice(const struct iovec *iov, unsigned niov, uint64_t offset, uint64_t len,
		   struct iovec *out)
{
	unsigned n = 0;

	for (; niov && len; iov++, niov--) {
		uint64_t part;

		if (offset >= iov->iov_len) {
			offset -= iov->iov_len;
			continue;
		}
		part = MIN(len, iov->iov_len - offset);
		out[n++] = (struct iovec){ (uint8_t *)iov->iov_base + offset, part };
		len -= part;
		offset = 0;
	}
	return n;
}

void iov_gather(void *to, const struct iovec *iov, unsigned niov, size_t len)
{
	uint8_t *at = to;
	unsigned i;

	for (i = 0; i < niov && len; i++) {
		size_t n = MIN(len, iov[i].iov_len);

		memcpy(at, iov[i].iov_base, n);
		at += n;
		len -= n;
	}
}

void iov_scatter(const struct iovec *iov, unsigned niov, const void *from, size_t len)
{
	const uint8_t *at = from;
	unsigned i;

	for (i = 0; i < niov && len; i++) {
		size_t n = MIN(len, iov[i].iov_len);

		memcpy(iov[i].iov_base, at, n);
		at += n;
		len -= n;
	}
}

/* The rest of one vector, byte by byte of progress; the rest of them follow as they are. */
static int move_one(int fd, struct iovec rest, uint64_t offset, bool write)
{
	while (rest.iov_len) {
		ssize_t n = write ? pwrite(fd, rest.iov_base, rest.iov_len, (off_t)offset) :
				    pread(fd, rest.iov_base, rest.iov_len, (off_t)offset);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n ? -errno : -EIO;
		rest.iov_base = (uint8_t *)rest.iov_base + n;
		rest.iov_len -= (size_t)n;
		offset += (uint64_t)n;
	}
	return 0;
}

#define IOV_AT_ONCE	256u	/* below IOV_MAX */

static int move(int fd, const struct iovec *iov, unsigned niov, uint64_t offset, bool write)
{
	while (niov) {
		unsigned n = MIN(niov, IOV_AT_ONCE);
		ssize_t got = write ? pwritev(fd, iov, (int)n, (off_t)offset) :
				      preadv(fd, iov, (int)n, (off_t)offset);

		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0 && iov_length(iov, n))
			return got ? -errno : -EIO;
		offset += (uint64_t)got;
		while (n && (size_t)got >= iov->iov_len) {
			got -= (ssize_t)iov->iov_len;
			iov++;
			niov--;
			n--;
		}
		if (n && got) {
			struct iovec rest = { (uint8_t *)iov->iov_base + got,
					      iov->iov_len - (size_t)got };
			int err = move_one(fd, rest, offset, write);

			if (err)
				return err;
			offset += rest.iov_len;
			iov++;
			niov--;
		}
	}
	return 0;
}

int fd_read(int fd, const struct iovec *iov, unsigned niov, uint64_t offset)
{
	return move(fd, iov, niov, offset, false);
}

int fd_write(int fd, const struct iovec *iov, unsigned niov, uint64_t offset)
{
	return move(fd, iov, niov, offset, true);
}
