/*
 * Virtqueues (VIRTIO 1.2, sections 2.7 split and 2.8 packed), the device's side.
 *
 * A device takes buffers with virtq_pop, which hands it a *chain*: the segments of guest memory that
 * one buffer consists of, copied out and checked once (each lies whole in RAM that DMA reaches,
 * readable ones first, no more of them than the queue has places).  A chain is a value: keep it as
 * long as the request takes, pop others meanwhile, and give each back exactly once, in any order,
 * with virtq_push; then say virtq_signal once for all that was pushed.
 *
 *	while (virtq_pop(q, &c) > 0) {
 *		n = virtq_read(q, &c, 0, &header, sizeof(header));
 *		...
 *		virtq_push(q, &c, written);
 *	}
 *	virtq_signal(q);
 *
 * A ring that is not as the specification wants it breaks the device: it asks the driver for a
 * reset (DEVICE_NEEDS_RESET), every pop gives 0 from then on, and pushes are dropped.
 *
 * Later completions.  Between pop and push the device may leave its callback, and complete from a
 * callback of the loop or a timer; always with the device lock held.  After a reset (of the device
 * or of the queue) chains from before it are stale: their push does nothing, and virtq_iov refuses them.
 * But a device whose host side writes to guest memory by itself must see that it has stopped
 * before its reset hook returns.  When its quiesce hook returns every chain must have been pushed,
 * or unpopped: nothing in flight is ever saved, and a save with a chain in flight is refused.
 *
 * Kicks.  A queue stays *kicked* from the driver's notification until a pop finds it empty.  A
 * device that stops before that (as much is in flight as it takes, or it needs a packet for each
 * buffer) pops again by itself when it can.  virtio.c calls the notify hook again for each queue
 * that is kicked when the machine goes on, restored or not: so a device needs no
 * hook for that, but its notify hook must do nothing where there is nothing to do.  A notify hook may
 * pop until there is nothing more: should the guest fill the queue as fast as that, a pop gives 0 all
 * the same after a while, and the hook is called again soon, so that nobody holds the device lock.
 *
 * Everything here: device lock.
 */
#ifndef SKEP_VIRTIO_QUEUE_H
#define SKEP_VIRTIO_QUEUE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "base/error.h"
#include "vm/memory.h"

struct virtio;

#define VIRTQ_SIZE_MAX	256u	/* places of a queue, and so segments of a chain */

struct virtq_seg {
	uint64_t gpa;
	uint32_t len;		/* never 0 */
};

struct virtq_chain {
	uint32_t generation;	/* of the queue; another one: the chain is stale */
	uint16_t id;		/* what the driver knows the buffer by */
	uint16_t places;	/* of a packed ring that it takes */
	uint16_t nreadable, nwritable;
	/* Bytes in each part; together at most 4 GiB - 1 (2.7.4.2). */
	uint32_t readable, writable;
	/* First what the device may read, then what it may write. */
	struct virtq_seg seg[VIRTQ_SIZE_MAX];
};

struct virtqueue {
	struct virtio *v;
	uint16_t index;
	uint16_t max;		/* places that the device offers */

	/* The driver's choice. */
	uint16_t size;
	uint16_t vector;	/* of MSI-X; VIRTQ_NO_VECTOR */
	bool enabled;
	uint64_t desc, driver, device;	/* split: descriptors, available and used ring */

	/*
	 * Split: avail and used count on, modulo 65536.  Packed: places, each with the wrap counter
	 * that goes with it in bit 15, as the driver writes them (2.8.6.1).
	 */
	uint16_t avail, used;
	uint16_t signalled;	/* `used` as it was when it was last decided whether to signal */
	bool kicked;

	uint16_t in_flight;	/* chains popped and not pushed */
	uint32_t generation;
	bool want_kicks;	/* not saved: see virtq_want_kicks */
	unsigned budget;	/* pops left to the notify hook that runs */

	/* What virtq_fill took and virtq_flush has not told yet. */
	unsigned nfilled;
	struct virtq_filled {
		uint16_t id, places;
		uint32_t written;
	} filled[VIRTQ_SIZE_MAX];
};

#define VIRTQ_NO_VECTOR	0xffff
#define VIRTQ_NO_BUDGET	(~0u)

/*
 * Takes the next buffer.  1: there is one, in *c; 0: the queue is empty, not enabled, or the
 * device is broken or may not master the bus.
 */
int virtq_pop(struct virtqueue *q, struct virtq_chain *c);
/*
 * Ends the notify hook's turn early, after much work for few buffers: pops give 0, and the hook is called
 * again soon.  False: it is not in a turn that could end (clock=virtual, a callback), and goes on.
 */
bool virtq_enough(struct virtqueue *q);
/* Puts the chain that was popped last back, as if it had not been; only before any other pop or push. */
void virtq_unpop(struct virtqueue *q, const struct virtq_chain *c);
/* Gives the buffer back; written is how many bytes of its writable part the device wrote, from the first. */
void virtq_push(struct virtqueue *q, const struct virtq_chain *c, uint32_t written);
/*
 * The same in two steps, for what the driver must see at once or not at all (a packet in several
 * buffers): it sees what was filled when it is flushed.  Nothing is filled when a callback returns.
 */
void virtq_fill(struct virtqueue *q, const struct virtq_chain *c, uint32_t written);
void virtq_flush(struct virtqueue *q);
/*
 * The way back: a mark taken before some pops, and everything is as it was then, what was filled
 * included; if nothing was pushed or flushed since.
 */
struct virtq_mark {
	uint32_t generation;
	uint16_t avail, in_flight;
};
struct virtq_mark virtq_mark(const struct virtqueue *q);
void virtq_rewind(struct virtqueue *q, const struct virtq_mark *m);
/* An interrupt, if the driver wants one for what was pushed since the last call. */
void virtq_signal(struct virtqueue *q);
/* May the chain still be used? False after a reset. */
bool virtq_current(const struct virtqueue *q, const struct virtq_chain *c);
/*
 * While a device looks at the queue by itself it may say that it wants no kicks; when it wants them
 * again it must look once more afterwards.  Devices want them unless they say so.
 */
void virtq_want_kicks(struct virtqueue *q, bool want);

/*
 * Copies from the readable, or to the writable part of a chain, from byte `offset` of that part on.
 * Returns the bytes copied, fewer than len at the end of the part.
 */
size_t virtq_read(struct virtqueue *q, const struct virtq_chain *c, size_t offset, void *buf,
		  size_t len);
size_t virtq_write(struct virtqueue *q, const struct virtq_chain *c, size_t offset, const void *buf,
		   size_t len);
size_t virtq_zero(struct virtqueue *q, const struct virtq_chain *c, size_t offset, size_t len);

/*
 * Bytes [offset, offset+len) of one part as an iovec for the host's I/O; writable says which part.
 * Returns the number of elements, -ERANGE if the part is shorter, -E2BIG if max elements are too few,
 * -ESTALE for a stale chain.  What the host wrote to a writable part is told with virtq_iov_done,
 * for the same bytes, when it is finished and before the push; the pointers are void then.  No
 * such writable iovec is alive when quiesce returns.
 */
int virtq_iov(struct virtqueue *q, const struct virtq_chain *c, bool writable, size_t offset,
	      size_t len, struct iovec *iov, unsigned max);
void virtq_iov_done(struct virtqueue *q, const struct virtq_chain *c, size_t offset, size_t len);

/* ---- For virtio.c and tests ---------------------------------------------- */

/* The driver enables the queue, with size and addresses set: are they right? */
int virtq_check_addresses(const struct virtqueue *q, bool packed, struct skep_error *e);
/* Everything as after power-on; chains become stale. */
void virtq_reset(struct virtqueue *q);
/*
 * For a restore: a chain that was in flight, and that the device's own record carried; checked.
 * In order of popping, for each queue, as far as it matters to the device.
 */
void virtq_carry(struct virtqueue *q, struct virtq_chain *c);
/* The first index or place, for a queue that is being enabled. */
void virtq_start(struct virtqueue *q, bool packed);

#endif
