/* The two layouts of a ring, below queue.c. Device lock. */
#ifndef SKEP_VIRTIO_RINGS_H
#define SKEP_VIRTIO_RINGS_H

#include "virtio/queue.h"

#define DESC_NEXT	1
#define DESC_WRITE	2
#define DESC_INDIRECT	4
#define DESC_SIZE	16u

#define RING_WRAP	0x8000u	/* packed: the wrap counter beside a place */

/* 2.7.5; a packed one (2.8.8) has its id in the place of flags, and the flags after it. */
struct split_desc {
	uint64_t gpa;
	uint32_t len;
	uint16_t flags, next;
};

struct packed_desc {
	uint64_t gpa;
	uint32_t len;
	uint16_t id, flags;
};

struct guest_memory *ring_memory(const struct virtqueue *q);
/* Of guest memory: false, and the device is broken, where there is none. */
bool ring_copy(struct virtqueue *q, uint64_t gpa, void *buf, size_t len);
bool ring_write(struct virtqueue *q, uint64_t gpa, const void *buf, size_t len);
bool ring_load16(struct virtqueue *q, uint64_t gpa, uint16_t *v);
bool ring_store16(struct virtqueue *q, uint64_t gpa, uint16_t v);
/* One more segment; false: the device is broken. */
bool chain_add(struct virtqueue *q, struct virtq_chain *c, uint64_t gpa, uint32_t len,
	       bool writable);
/* 2.7.10: did the count pass `event` on its way from old to now? */
static inline bool ring_passed(uint16_t event, uint16_t now, uint16_t old)
{
	return (uint16_t)(now - event - 1) < (uint16_t)(now - old);
}

bool split_pop(struct virtqueue *q, struct virtq_chain *c);
void split_flush(struct virtqueue *q);
bool split_wants_signal(struct virtqueue *q);
void split_want_kicks(struct virtqueue *q);

bool packed_pop(struct virtqueue *q, struct virtq_chain *c);
void packed_unpop(struct virtqueue *q, const struct virtq_chain *c);
void packed_carry(struct virtqueue *q, const struct virtq_chain *c);
void packed_flush(struct virtqueue *q);
bool packed_wants_signal(struct virtqueue *q);
void packed_want_kicks(struct virtqueue *q);

#endif
