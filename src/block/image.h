/*
 * Disk images: what a disk's bytes are kept in, as synchronous calls.
 *
 *	/path			a file or a block device, as it is (raw.c)
 *	nbd://, nbd+unix://	a server that speaks NBD (nbd.c)
 *	null			zeroes; what is written is gone
 *	overlay=/path		a copy-on-write layer of ours over either (overlay.c)
 *
 * Devices do not call these: block.h is the asynchronous side.  All functions may be called
 * from any thread, several at a time, with any lock held but the image's own; none of them
 * takes a lock of the machine's.  A call moves all bytes or fails with a negative errno.
 */
#ifndef SKEP_BLOCK_IMAGE_H
#define SKEP_BLOCK_IMAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "base/error.h"

#define IMAGE_ID_SIZE	16
#define IMAGE_SECTOR	512u		/* every size and offset is a multiple of it */

/* How a disk is known again (manifest.h keeps it). */
enum image_kind {
	IMAGE_UNKNOWN,		/* only its size can be told */
	IMAGE_FILE,		/* a file or device: inode and time of the last change */
	IMAGE_OVERLAY,		/* a layer of ours: its id and a count of its changes */
};

struct image_identity {
	enum image_kind kind;
	uint64_t size;			/* bytes */
	uint64_t inode;			/* IMAGE_FILE: inode, or a device's number */
	int64_t changed_ns;		/* IMAGE_FILE: of the last change of content, since the Epoch */
	uint8_t id[IMAGE_ID_SIZE];	/* IMAGE_OVERLAY */
	uint64_t sequence;		/* IMAGE_OVERLAY */
};

struct image_options {
	const char *owner;	/* configuration path of the disk, for sentences: "pci.0.3.0" */
	const char *path;	/* file, device or NBD URI; NULL with an overlay that exists */
	const char *overlay;	/* NULL: none */
	/* Read-only view of one of the overlay's snapshots: IMAGE_ID_SIZE bytes, or NULL. */
	const uint8_t *snapshot;
	/*
	 * An overlay is to be new, over path, or over one of the snapshots of the overlay at `from`:
	 * what a restore or clone begins with.
	 */
	bool fresh;
	const char *from;
	const uint8_t *from_snapshot;
	bool read_only;
	bool nocache;		/* O_DIRECT */
	bool sync;		/* a write, zero or discard that has returned is on stable storage */
	unsigned retry_s;	/* NBD: how long a request waits for a server that is gone */
	unsigned depth;		/* overlays that lie over this one */
};

struct image;

struct image_ops {
	const char *name;
	int (*read)(struct image *im, const struct iovec *iov, unsigned niov, uint64_t offset);
	int (*write)(struct image *im, const struct iovec *iov, unsigned niov, uint64_t offset);
	/* All writes that have returned are on stable storage when this returns. */
	int (*flush)(struct image *im);
	/* The bytes read as zero afterwards; unmap: their space may be given back. */
	int (*zero)(struct image *im, uint64_t offset, uint64_t len, bool unmap);
	/* The bytes are not needed any more; what they read as afterwards is anything. */
	int (*discard)(struct image *im, uint64_t offset, uint64_t len);
	/* on: whoever waits for a peer that is gone gives up with -ECANCELED; off: waits again. */
	void (*interrupt)(struct image *im, bool on);
	/* Looks at the size again and updates im->size; -ENOTSUP where it cannot change. */
	int (*refresh)(struct image *im, struct skep_error *e);
	/* Makes it larger, if it can be by us; refresh comes afterwards. */
	int (*grow)(struct image *im, uint64_t size, struct skep_error *e);
	/* Flushed before; nothing is being written. */
	int (*identify)(struct image *im, struct image_identity *id, struct skep_error *e);
	void (*close)(struct image *im);
};

struct image {
	const struct image_ops *ops;
	const char *name;	/* for sentences; owned by the implementation */
	uint64_t size;		/* bytes, a multiple of IMAGE_SECTOR */
	bool read_only;
	bool can_discard;
	/* A flush that failed may have dropped what it was to write: no later one can be believed. */
	bool forgets;
	unsigned align;		/* of memory, offsets and lengths for fd; 1: any */
	unsigned threads;	/* calls that make sense at a time; 0: none waits, so no thread is needed */
	unsigned physical;	/* bytes that are written as one, a hint for the guest */
	int fd;			/* plain reads and writes may go straight to it (io_uring); -1: no */
};

/*
 * Opens what the options describe; a writable image is locked against a second writer, in this
 * process and others, and against readers that rely on its not changing.  NULL with e set.
 */
struct image *image_open(const struct image_options *o, struct skep_error *e);
void image_close(struct image *im);	/* NULL is fine */

/* The parts, for image.c and overlay.c. */
struct image *raw_open(const struct image_options *o, struct skep_error *e);
struct image *nbd_open(const struct image_options *o, struct skep_error *e);
struct image *overlay_open(const struct image_options *o, struct skep_error *e);
bool nbd_is_uri(const char *path);

/* 32 hexadecimal digits, and back (text has room for 33 bytes). */
bool image_id_parse(const char *text, uint8_t id[IMAGE_ID_SIZE]);
void image_id_print(const uint8_t id[IMAGE_ID_SIZE], char *text);

/* Do two identities tell of the same content?  e says what is different. */
int image_compare(const struct image_identity *was, const struct image_identity *is,
		  struct skep_error *e);

/* The part of a vector from byte `offset` on, len bytes; out has room for niov. Returns how many. */
unsigned iov_slice(const struct iovec *iov, unsigned niov, uint64_t offset, uint64_t len,
		   struct iovec *out);
/* Helpers on plain descriptors: all bytes, or a negative errno (-EIO at an early end). */
int fd_read(int fd, const struct iovec *iov, unsigned niov, uint64_t offset);
int fd_write(int fd, const struct iovec *iov, unsigned niov, uint64_t offset);
uint64_t iov_length(const struct iovec *iov, unsigned niov);
/* Copies between a buffer and a vector; len is at most what the vector holds. */
void iov_gather(void *to, const struct iovec *iov, unsigned niov, size_t len);
void iov_scatter(const struct iovec *iov, unsigned niov, const void *from, size_t len);

/* lock.c: -EBUSY with a sentence that says who has it, if that can be found out. */
int image_lock(int fd, const char *owner, const char *path, bool write, struct skep_error *e);
/* One byte of its own, that stands for a part of the file. */
int image_lock_part(int fd, uint64_t part, bool write);
void image_unlock_parts(int fd);	/* all of this descriptor's */

#endif
