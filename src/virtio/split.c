/* Split virtqueues: VIRTIO 1.2, section 2.7. */
#include <inttypes.h>

#include "virtio/rings.h"
#include "virtio/virtio.h"
#include "vm/vm.h"

/* 2.7.6 and 2.7.8: flags, idx, then the ring, then the other side's event index. */
#define RING_FLAGS	0
#define RING_IDX	2
#define RING_ENTRIES	4
#define AVAIL_NO_INTERRUPT	1
#define USED_NO_NOTIFY	1

static uint64_t used_event_at(const struct virtqueue *q)
{
	return q->driver + RING_ENTRIES + 2u * q->size;
}

static uint64_t avail_event_at(const struct virtqueue *q)
{
	return q->device + RING_ENTRIES + 8u * q->size;
}

/* A table of n descriptors: where the next one comes from. */
struct table {
	uint64_t gpa;
	uint32_t n;
	bool indirect;
};

/* 2.7.5.3.2: it ends the chain, and its write flag means nothing. */
static bool enter_indirect(struct virtqueue *q, struct table *t, const struct split_desc *d)
{
	if (t->indirect || d->flags & DESC_NEXT || !virtio_has(q->v, VIRTIO_F_INDIRECT_DESC) ||
	    !d->len || d->len % DESC_SIZE || d->len / DESC_SIZE > UINT16_MAX) {
		virtio_broken(q->v, "queue %u: an indirect table of %u bytes that must not be there",
			      q->index, d->len);
		return false;
	}
	*t = (struct table){ d->gpa, d->len / DESC_SIZE, true };
	return true;
}

/* Follows the chain from its head; no more steps than the ring has places (2.7.5.3.1), so loops end. */
static bool walk(struct virtqueue *q, struct virtq_chain *c, uint16_t head)
{
	struct table t = { q->desc, q->size, false };
	struct split_desc d = { .next = head, .flags = DESC_NEXT };

	for (unsigned steps = 0; d.flags & DESC_NEXT; steps++) {
		if (d.next >= t.n || steps > q->size) {
			virtio_broken(q->v, "queue %u: descriptor %u %s", q->index, d.next,
				      d.next >= t.n ? "is not in the table" : "is one of too long a chain");
			return false;
		}
		if (!ring_copy(q, t.gpa + DESC_SIZE * d.next, &d, sizeof(d)))
			return false;
		if (d.flags & DESC_INDIRECT) {
			if (!enter_indirect(q, &t, &d))
				return false;
			d = (struct split_desc){ .next = 0, .flags = DESC_NEXT };
		} else if (!chain_add(q, c, d.gpa, d.len, d.flags & DESC_WRITE)) {
			return false;
		}
	}
	return true;
}

/* How many chains the driver made available that were not popped. */
static bool available(struct virtqueue *q, uint16_t *n)
{
	uint16_t idx;

	if (!ring_load16(q, q->driver + RING_IDX, &idx))
		return false;
	*n = (uint16_t)(idx - q->avail);
	if (*n > q->size - MIN(q->in_flight, q->size)) {
		virtio_broken(q->v, "queue %u: the index of available buffers went from %u to %u, and the "
			      "queue has %u places", q->index, q->avail, idx, q->size);
		return false;
	}
	return true;
}

/* Asks for a kick at the next buffer, and looks once more. */
static bool still_empty(struct virtqueue *q, uint16_t *n)
{
	if (virtio_has(q->v, VIRTIO_F_EVENT_IDX) && q->want_kicks) {
		if (!ring_store16(q, avail_event_at(q), q->avail))
			return true;
		atomic_thread_fence(memory_order_seq_cst);
		if (!available(q, n))
			return true;
	}
	return !*n;
}

bool split_pop(struct virtqueue *q, struct virtq_chain *c)
{
	uint16_t n;

	if (!available(q, &n))
		return false;
	if (!n && still_empty(q, &n)) {
		q->kicked = false;
		return false;
	}
	if (!ring_load16(q, q->driver + RING_ENTRIES + 2u * (q->avail % q->size), &c->id))
		return false;
	if (!walk(q, c, c->id))
		return false;
	q->avail++;
	return true;
}

void split_flush(struct virtqueue *q)
{
	for (unsigned i = 0; i < q->nfilled; i++) {
		struct { uint32_t id, len; } e = { q->filled[i].id, q->filled[i].written };
		uint16_t n = (uint16_t)(q->used + i) % q->size;

		if (!ring_write(q, q->device + RING_ENTRIES + 8u * n, &e, sizeof(e)))
			return;
	}
	q->used += q->nfilled;
	ring_store16(q, q->device + RING_IDX, q->used);
}

bool split_wants_signal(struct virtqueue *q)
{
	uint16_t v;

	if (virtio_has(q->v, VIRTIO_F_EVENT_IDX))
		return ring_load16(q, used_event_at(q), &v) && ring_passed(v, q->used, q->signalled);
	return ring_load16(q, q->driver + RING_FLAGS, &v) && !(v & AVAIL_NO_INTERRUPT);
}

void split_want_kicks(struct virtqueue *q)
{
	if (!virtio_has(q->v, VIRTIO_F_EVENT_IDX))
		ring_store16(q, q->device + RING_FLAGS, q->want_kicks ? 0 : USED_NO_NOTIFY);
	else if (q->want_kicks)
		ring_store16(q, avail_event_at(q), q->avail);
}
