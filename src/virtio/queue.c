/*
 * Virtqueues: the chains that devices see, over split and packed rings (rings.h).
 */
#include "virtio/queue.h"

#include <errno.h>
#include <inttypes.h>

#include "virtio/rings.h"
#include "virtio/virtio.h"
#include "vm/vm.h"

struct guest_memory *ring_memory(const struct virtqueue *q)
{
	return &q->v->pci.dev.vm->memory;
}

/* ---- Access to rings ----------------------------------------------------- */

bool ring_copy(struct virtqueue *q, uint64_t gpa, void *buf, size_t len)
{
	if (!dma_read(ring_memory(q), gpa, buf, len))
		return true;
	virtio_broken(q->v, "queue %u: %#" PRIx64 " is no memory", q->index, gpa);
	return false;
}

bool ring_write(struct virtqueue *q, uint64_t gpa, const void *buf, size_t len)
{
	if (!dma_write(ring_memory(q), gpa, buf, len))
		return true;
	virtio_broken(q->v, "queue %u: %#" PRIx64 " is no memory", q->index, gpa);
	return false;
}

/* Rings are aligned (virtq_check_addresses), so these are one access each on the host, too. */
bool ring_load16(struct virtqueue *q, uint64_t gpa, uint16_t *v)
{
	if (!dma_load16(ring_memory(q), gpa, v))
		return true;
	virtio_broken(q->v, "queue %u: %#" PRIx64 " is no memory", q->index, gpa);
	return false;
}

bool ring_store16(struct virtqueue *q, uint64_t gpa, uint16_t v)
{
	if (!dma_store16(ring_memory(q), gpa, v))
		return true;
	virtio_broken(q->v, "queue %u: %#" PRIx64 " is no memory", q->index, gpa);
	return false;
}

/* ---- Chains -------------------------------------------------------------- */

bool chain_add(struct virtqueue *q, struct virtq_chain *c, uint64_t gpa, uint32_t len, bool writable)
{
	unsigned n = c->nreadable + c->nwritable;

	if (!writable && c->nwritable) {
		virtio_broken(q->v, "queue %u: a buffer's readable part lies behind its writable part",
			      q->index);
		return false;
	}
	/* It holds nothing, so it may say that it lies anywhere. */
	if (!len)
		return true;
	if (n == VIRTQ_SIZE_MAX || (uint64_t)c->readable + c->writable + len > UINT32_MAX) {
		virtio_broken(q->v, "queue %u: a buffer of more than %u segments, or of 4 GiB", q->index, n);
		return false;
	}
	if (!dma_reaches(ring_memory(q), gpa, len)) {
		virtio_broken(q->v, "queue %u: a buffer at %#" PRIx64 " of %u bytes, where there is no RAM",
			      q->index, gpa, len);
		return false;
	}
	c->seg[n] = (struct virtq_seg){ gpa, len };
	if (writable) {
		c->nwritable++;
		c->writable += len;
	} else {
		c->nreadable++;
		c->readable += len;
	}
	return true;
}

int virtq_pop(struct virtqueue *q, struct virtq_chain *c)
{
	bool packed = virtio_has(q->v, VIRTIO_F_RING_PACKED);

	/* Whatever happens, *c is a chain that may be pushed to no effect. */
	c->generation = q->generation - 1;
	if (!q->enabled || !q->budget || !virtio_running(q->v))
		return 0;
	c->places = 1;
	c->nreadable = c->nwritable = 0;
	c->readable = c->writable = 0;
	if (!(packed ? packed_pop(q, c) : split_pop(q, c)))
		return 0;
	c->generation = q->generation;
	if (q->budget != VIRTQ_NO_BUDGET)
		q->budget--;
	q->in_flight++;
	return 1;
}

bool virtq_enough(struct virtqueue *q)
{
	if (q->budget == VIRTQ_NO_BUDGET)
		return false;
	q->budget = 0;
	return true;
}

bool virtq_current(const struct virtqueue *q, const struct virtq_chain *c)
{
	return q->generation == c->generation && q->enabled;
}

void virtq_unpop(struct virtqueue *q, const struct virtq_chain *c)
{
	if (!virtq_current(q, c) || !q->in_flight)
		return;
	q->in_flight--;
	if (virtio_has(q->v, VIRTIO_F_RING_PACKED))
		packed_unpop(q, c);
	else
		q->avail--;
}

void virtq_fill(struct virtqueue *q, const struct virtq_chain *c, uint32_t written)
{
	if (!virtq_current(q, c) || !q->in_flight || q->nfilled == VIRTQ_SIZE_MAX)
		return;
	q->in_flight--;
	written = MIN(written, c->writable);
	q->filled[q->nfilled++] = (struct virtq_filled){ c->id, c->places, written };
}

void virtq_flush(struct virtqueue *q)
{
	/* A driver that took the bus away (kexec) must not find its memory changed. */
	if (q->nfilled && q->enabled && virtio_running(q->v)) {
		if (virtio_has(q->v, VIRTIO_F_RING_PACKED))
			packed_flush(q);
		else
			split_flush(q);
	}
	q->nfilled = 0;
}

void virtq_push(struct virtqueue *q, const struct virtq_chain *c, uint32_t written)
{
	virtq_fill(q, c, written);
	virtq_flush(q);
}

struct virtq_mark virtq_mark(const struct virtqueue *q)
{
	return (struct virtq_mark){ q->generation, q->avail, q->in_flight };
}

void virtq_rewind(struct virtqueue *q, const struct virtq_mark *m)
{
	if (q->generation != m->generation)
		return;
	q->avail = m->avail;
	q->in_flight = m->in_flight;
	q->nfilled = 0;
}

void virtq_signal(struct virtqueue *q)
{
	bool wanted;

	if (!q->enabled || q->used == q->signalled || !virtio_running(q->v))
		return;
	/* What was pushed is seen before we look whether anybody waits for it. */
	atomic_thread_fence(memory_order_seq_cst);
	wanted = virtio_has(q->v, VIRTIO_F_RING_PACKED) ? packed_wants_signal(q) : split_wants_signal(q);
	q->signalled = q->used;
	if (wanted)
		virtio_queue_interrupt(q);
}

void virtq_want_kicks(struct virtqueue *q, bool want)
{
	if (q->want_kicks == want)
		return;
	q->want_kicks = want;
	if (!q->enabled || !virtio_running(q->v))
		return;
	if (virtio_has(q->v, VIRTIO_F_RING_PACKED))
		packed_want_kicks(q);
	else
		split_want_kicks(q);
	atomic_thread_fence(memory_order_seq_cst);
}

/* ---- Copies -------------------------------------------------------------- */

struct cursor {
	const struct virtq_seg *seg;
	unsigned left;		/* segments */
	size_t offset;		/* into the first */
};

/* The part of the chain from byte `offset` on; false: it is not that long. */
static bool seek(const struct virtq_chain *c, bool writable, size_t offset, struct cursor *at)
{
	at->seg = c->seg + (writable ? c->nreadable : 0);
	at->left = writable ? c->nwritable : c->nreadable;
	while (at->left && offset >= at->seg->len) {
		offset -= at->seg->len;
		at->seg++;
		at->left--;
	}
	at->offset = offset;
	return at->left;
}

/* The next stretch of at most len bytes; 0: the end. */
static size_t next_piece(struct cursor *at, size_t len, uint64_t *gpa)
{
	size_t n;

	if (!at->left || !len)
		return 0;
	n = MIN(len, at->seg->len - at->offset);
	*gpa = at->seg->gpa + at->offset;
	at->offset += n;
	if (at->offset == at->seg->len) {
		at->seg++;
		at->left--;
		at->offset = 0;
	}
	return n;
}

size_t virtq_read(struct virtqueue *q, const struct virtq_chain *c, size_t offset, void *buf,
		  size_t len)
{
	struct cursor at;
	size_t done = 0, n;
	uint64_t gpa;

	if (!virtq_current(q, c) || !virtio_running(q->v) || !seek(c, false, offset, &at))
		return 0;
	while ((n = next_piece(&at, len - done, &gpa))) {
		if (dma_read(ring_memory(q), gpa, (uint8_t *)buf + done, n))
			break;
		done += n;
	}
	return done;
}

/* buf NULL: zeroes. */
static size_t write_part(struct virtqueue *q, const struct virtq_chain *c, size_t offset,
			 const uint8_t *buf, size_t len)
{
	struct cursor at;
	size_t done = 0, n;
	uint64_t gpa;

	if (!virtq_current(q, c) || !virtio_running(q->v) || !seek(c, true, offset, &at))
		return 0;
	while ((n = next_piece(&at, len - done, &gpa))) {
		if (buf ? dma_write(ring_memory(q), gpa, buf + done, n) : dma_zero(ring_memory(q), gpa, n))
			break;
		done += n;
	}
	return done;
}

size_t virtq_write(struct virtqueue *q, const struct virtq_chain *c, size_t offset, const void *buf,
		   size_t len)
{
	return write_part(q, c, offset, buf, len);
}

size_t virtq_zero(struct virtqueue *q, const struct virtq_chain *c, size_t offset, size_t len)
{
	return write_part(q, c, offset, NULL, len);
}

int virtq_iov(struct virtqueue *q, const struct virtq_chain *c, bool writable, size_t offset,
	      size_t len, struct iovec *iov, unsigned max)
{
	size_t part = writable ? c->writable : c->readable, n;
	struct cursor at;
	uint64_t gpa;
	unsigned i = 0;

	if (!virtq_current(q, c))
		return -ESTALE;
	if (offset > part || len > part - offset)
		return -ERANGE;
	for (seek(c, writable, offset, &at); (n = next_piece(&at, len, &gpa)); len -= n, i++) {
		struct dma_view view;

		if (i == max)
			return -E2BIG;
		/* Cannot fail: RAM does not go away, and the segment was checked. */
		if (dma_map(ring_memory(q), gpa, n, writable ? DMA_TO_GUEST : DMA_FROM_GUEST, &view))
			return -EFAULT;
		iov[i] = (struct iovec){ view.host, n };
	}
	return (int)i;
}

void virtq_iov_done(struct virtqueue *q, const struct virtq_chain *c, size_t offset, size_t len)
{
	struct cursor at;
	uint64_t gpa;
	size_t n;

	/* The host wrote, stale or not. */
	for (seek(c, true, offset, &at); (n = next_piece(&at, len, &gpa)); len -= n) {
		struct dma_view view = { .host = &view, .gpa = gpa, .len = n, .dir = DMA_TO_GUEST };

		dma_unmap(ring_memory(q), &view);
	}
}

/* ---- Life of a queue ----------------------------------------------------- */

void virtq_reset(struct virtqueue *q)
{
	uint16_t max = q->max, index = q->index;
	uint32_t generation = q->generation;
	struct virtio *v = q->v;

	*q = (struct virtqueue){ .v = v, .index = index, .max = max, .size = max,
				 .vector = VIRTQ_NO_VECTOR, .generation = generation + 1,
				 .want_kicks = true, .budget = VIRTQ_NO_BUDGET };
}

void virtq_carry(struct virtqueue *q, struct virtq_chain *c)
{
	c->generation = q->generation;
	q->in_flight++;
	if (virtio_has(q->v, VIRTIO_F_RING_PACKED))
		packed_carry(q, c);
	else
		q->avail++;
}

void virtq_start(struct virtqueue *q, bool packed)
{
	q->avail = q->used = q->signalled = packed ? RING_WRAP : 0;
}

static bool good(const struct virtqueue *q, uint64_t gpa, size_t len, unsigned align)
{
	return gpa % align == 0 && dma_reaches(ring_memory(q), gpa, len);
}

int virtq_check_addresses(const struct virtqueue *q, bool packed, struct skep_error *e)
{
	const char *what = NULL;
	uint64_t at = 0;
	bool ok;

	if (!q->size || q->size > q->max || (!packed && q->size & (q->size - 1)))
		return skep_fail(e, EINVAL, "queue %u: %u places; the device offers %u%s", q->index, q->size,
				 q->max, packed ? "" : ", and powers of two below");
	/* 2.7 and 2.8.10: alignment and size of the three parts. */
	ok = good(q, at = q->desc, 16u * q->size, 16);
	if (!ok)
		what = "descriptor";
	else if (!good(q, at = q->driver, packed ? 4u : 6u + 2u * q->size, packed ? 4 : 2))
		what = "driver";
	else if (!good(q, at = q->device, packed ? 4u : 6u + 8u * q->size, 4))
		what = "device";
	if (what)
		return skep_fail(e, EFAULT, "queue %u: its %s area at %#" PRIx64 " is not aligned, or is no "
				 "RAM", q->index, what, at);
	return 0;
}
