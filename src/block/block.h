/*
 * Block backends: the asynchronous side of disk images, for devices.
 *
 * A device fills in a request, submits it, and is told by `done` when it has ended: out of
 * block_run (what the host has in its cache ends at once), out of block_drain, or on the vm
 * thread.  Requests may end in any order.  A FLUSH covers the requests that ended before it
 * was submitted; after it has ended well they survive a crash of the host.  Once a flush of a
 * file has failed nobody knows what is on the disk, and every later one fails as well.
 *
 * The device lock is held for every function and callback, but where it says otherwise.
 */
#ifndef SKEP_BLOCK_BLOCK_H
#define SKEP_BLOCK_BLOCK_H

#include "block/image.h"

struct vm;
struct block;

enum block_op { BLOCK_READ, BLOCK_WRITE, BLOCK_FLUSH, BLOCK_DISCARD, BLOCK_ZERO };

struct block_request {
	enum block_op op;
	bool unmap;		/* BLOCK_ZERO: the space may be given back */
	uint64_t offset, len;	/* bytes, multiples of IMAGE_SECTOR; none for a flush */
	struct iovec *iov;	/* READ, WRITE: len bytes in all; stays the caller's, may be changed */
	unsigned niov;
	/*
	 * 0, or a negative errno: -EIO, -ENOSPC ..., and -ECANCELED where block_hold gave it back
	 * undone (it may be submitted again, and must be: something of it may have happened).
	 */
	void (*done)(struct block_request *r, int err);

	/* The backend's, from block_submit to done. */
	struct block_request *next;
	int result;
};

enum block_engine { BLOCK_AUTO, BLOCK_IO_URING, BLOCK_THREADS };

/*
 * The image is owned from now on, whatever is returned.  NULL with e set; BLOCK_AUTO never fails
 * for want of io_uring.  vm thread, before any vCPU.
 */
struct block *block_create(struct vm *vm, const char *owner, struct image *im,
			   enum block_engine engine, struct skep_error *e);
void block_destroy(struct block *b);	/* drains; NULL is fine */
/* fn is called after each batch of requests that ended on the vm thread. */
void block_on_batch(struct block *b, void (*fn)(void *opaque), void *opaque);

/* Takes the request; it starts with the next block_run. */
void block_submit(struct block *b, struct block_request *r);
/* Starts what was submitted, and ends what is ready. */
void block_run(struct block *b);
/* Waits until nothing is under way, bounded only by the host's disk and by retry_s. Not out of done. */
void block_drain(struct block *b);
/*
 * The same for a machine that is about to stand: what waits for a server that is gone is given
 * back with -ECANCELED instead.
 */
void block_hold(struct block *b);

/* Flushes what has ended by now, at once. Any thread, no lock; as a failed flush, a failure stays. */
int block_sync(struct block *b);

/* The disks of a machine (vm->disks), in order of creation; the list changes before it runs only. */
struct block *block_next(const struct block *b);
const char *block_owner(const struct block *b);
struct image *block_image(const struct block *b);
uint64_t block_size(const struct block *b);	/* bytes, now */
/* Has the image another size by now? Nothing under way. */
int block_refresh(struct block *b, struct skep_error *e);
/*
 * The disk is to have so many bytes, more than it has; 0: as many as its file or device has by now.  A
 * file or overlay is enlarged.  Whoever asked with block_on_resize is told. The machine runs.
 */
int block_resize(struct block *b, uint64_t bytes, struct skep_error *e);
void block_on_resize(struct block *b, void (*fn)(void *opaque), void *opaque);
/* What carries the requests: "io_uring" or "threads". */
const char *block_engine_name(const struct block *b);

struct block_counts {
	uint64_t requests[5];	/* by enum block_op */
	uint64_t bytes[5];
	uint64_t errors;
	uint64_t at_once;	/* ended within block_run */
};
const struct block_counts *block_counts(const struct block *b);

#endif
