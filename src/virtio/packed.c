/* Packed virtqueues: VIRTIO 1.2, section 2.8. */
#include <inttypes.h>

#include "virtio/rings.h"
#include "virtio/virtio.h"
#include "vm/vm.h"

#define PACKED_AVAIL	0x0080
#define PACKED_USED	0x8000
#define FLAGS_OFFSET	14u

/* Event suppression, 2.8.14: where and which lap, then the flags. */
#define EVENT_FLAGS	2
#define EVENT_ENABLE	0
#define EVENT_DISABLE	1
#define EVENT_DESC	2

static uint16_t place(uint16_t pos)
{
	return pos & ~RING_WRAP;
}

/* n places on, the lap counter with it. */
static uint16_t advance(const struct virtqueue *q, uint16_t pos, unsigned n)
{
	unsigned p = place(pos) + n, wrap = pos & RING_WRAP;

	if (p >= q->size) {
		p -= q->size;
		wrap ^= RING_WRAP;
	}
	return (uint16_t)(p | wrap);
}

static uint64_t desc_at(const struct virtqueue *q, uint16_t pos)
{
	return q->desc + DESC_SIZE * place(pos);
}

/* The flags are read first and once: what they say of the place is then true of the rest. */
static bool read_place(struct virtqueue *q, uint16_t pos, struct packed_desc *d)
{
	uint16_t flags;

	if (!ring_load16(q, desc_at(q, pos) + FLAGS_OFFSET, &flags) ||
	    !ring_copy(q, desc_at(q, pos), d, sizeof(*d)))
		return false;
	d->flags = flags;
	return true;
}

/* 2.8.1: available to the device if the driver's bit is that of this lap and the other is not. */
static bool is_available(uint16_t flags, uint16_t pos)
{
	bool wrap = pos & RING_WRAP;

	return !!(flags & PACKED_AVAIL) == wrap && !!(flags & PACKED_USED) != wrap;
}

/* 2.8.7: a table whose entries follow each other, all of them. */
static bool add_indirect(struct virtqueue *q, struct virtq_chain *c, const struct packed_desc *d)
{
	unsigned n = d->len / DESC_SIZE;

	if (d->flags & DESC_NEXT || !virtio_has(q->v, VIRTIO_F_INDIRECT_DESC) || !n ||
	    d->len % DESC_SIZE || n > q->size) {
		virtio_broken(q->v, "queue %u: an indirect table of %u bytes that must not be there",
			      q->index, d->len);
		return false;
	}
	for (unsigned i = 0; i < n; i++) {
		struct packed_desc e;

		if (!ring_copy(q, d->gpa + DESC_SIZE * i, &e, sizeof(e)))
			return false;
		if (e.flags & DESC_INDIRECT) {
			virtio_broken(q->v, "queue %u: an indirect table in an indirect table", q->index);
			return false;
		}
		if (!chain_add(q, c, e.gpa, e.len, e.flags & DESC_WRITE))
			return false;
	}
	return true;
}

bool packed_pop(struct virtqueue *q, struct virtq_chain *c)
{
	struct packed_desc d;
	uint16_t pos = q->avail;
	uint16_t flags;

	if (!ring_load16(q, desc_at(q, pos) + FLAGS_OFFSET, &flags))
		return false;
	if (!is_available(flags, pos)) {
		q->kicked = false;
		return false;
	}
	/* The driver may write to places that the device has not used yet: then it has no end of them. */
	if (q->in_flight >= q->size) {
		virtio_broken(q->v, "queue %u: more buffers than its %u places", q->index, q->size);
		return false;
	}
	c->places = 0;
	do {
		if (c->places == q->size) {
			virtio_broken(q->v, "queue %u: a chain that has no end", q->index);
			return false;
		}
		if (!read_place(q, pos, &d))
			return false;
		if (d.flags & DESC_INDIRECT ? !add_indirect(q, c, &d) :
		    !chain_add(q, c, d.gpa, d.len, d.flags & DESC_WRITE))
			return false;
		pos = advance(q, pos, 1);
		c->places++;
	} while (d.flags & DESC_NEXT);
	c->id = d.id;
	q->avail = pos;
	return true;
}

void packed_unpop(struct virtqueue *q, const struct virtq_chain *c)
{
	uint16_t back = advance(q, q->avail, q->size - c->places);

	/* A whole lap less those places: one turn of the counter too many. */
	q->avail = back ^ RING_WRAP;
}

void packed_carry(struct virtqueue *q, const struct virtq_chain *c)
{
	q->avail = advance(q, q->avail, c->places);
}

/* One buffer; its flags, which make it used, are the caller's to write. */
static bool put_used(struct virtqueue *q, uint16_t pos, const struct virtq_filled *f)
{
	struct { uint32_t len; uint16_t id; } e = { f->written, f->id };

	return ring_write(q, desc_at(q, pos) + 8, &e, 6);
}

static uint16_t used_flags(uint16_t pos, const struct virtq_filled *f)
{
	return (pos & RING_WRAP ? PACKED_AVAIL | PACKED_USED : 0) | (f->written ? DESC_WRITE : 0);
}

/* The driver looks at the first place alone until that is used, so its flags come last. */
void packed_flush(struct virtqueue *q)
{
	uint16_t first = q->used;

	for (unsigned i = 0; i < q->nfilled; i++) {
		const struct virtq_filled *f = &q->filled[i];

		if (!put_used(q, q->used, f))
			return;
		if (i && !ring_store16(q, desc_at(q, q->used) + FLAGS_OFFSET, used_flags(q->used, f)))
			return;
		q->used = advance(q, q->used, f->places);
	}
	ring_store16(q, desc_at(q, first) + FLAGS_OFFSET, used_flags(first, &q->filled[0]));
}

/* A count that goes back as far as it did since `from`, so that differences are right. */
static uint16_t behind(const struct virtqueue *q, uint16_t from)
{
	bool earlier_lap = (from ^ q->used) & RING_WRAP;

	return (uint16_t)(place(from) - (earlier_lap ? q->size : 0));
}

bool packed_wants_signal(struct virtqueue *q)
{
	uint16_t flags, event;

	if (!ring_load16(q, q->driver + EVENT_FLAGS, &flags))
		return false;
	if (flags != EVENT_DESC || !virtio_has(q->v, VIRTIO_F_EVENT_IDX))
		return flags != EVENT_DISABLE;
	if (!ring_load16(q, q->driver, &event))
		return false;
	return ring_passed(behind(q, event), place(q->used), behind(q, q->signalled));
}

void packed_want_kicks(struct virtqueue *q)
{
	ring_store16(q, q->device + EVENT_FLAGS, q->want_kicks ? EVENT_ENABLE : EVENT_DISABLE);
}
