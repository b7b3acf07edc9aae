/*
 * What a save carries of a virtio-blk device: besides the rings, the requests that are neither in
 * them nor done.  With clock=virtual these are answers whose time has not come; else those that
 * an NBD server that is gone has not answered.  A request is carried as its chain: a packed
 * ring's descriptors may have been overwritten by then (2.8.6).
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "virtio/blk.h"
#include "vm/vm.h"

#define PENDING_MAX	(BLK_QUEUES_MAX * BLK_QUEUE_SIZE)

struct blk_seg_model {
	uint64_t gpa;
	uint32_t len;
};

struct blk_pending_model {
	uint16_t queue, id, places;
	uint16_t readable;		/* segments that the device reads; the rest it writes */
	bool ended;			/* the answer waits for its time; else: not done yet */
	uint32_t type;			/* VIRTIO_BLK_T_ */
	uint8_t status;			/* ended: the answer */
	int64_t due;			/* ended: when the guest sees it */
	struct state_list segs;		/* of struct blk_seg_model */
};

struct blk_model {
	struct virtio_model virtio;
	uint64_t capacity;
	bool writeback;
	struct state_list pending;	/* of struct blk_pending_model, in order of submission */
};

static const struct state_field seg_fields[] = {
	STATE_U64(struct blk_seg_model, gpa),
	STATE_U32(struct blk_seg_model, len),
};

static const struct state_record seg_record = {
	.kind = "virtio-blk-segment", .version = 1, .model_size = sizeof(struct blk_seg_model),
	.fields = seg_fields, .nfields = ARRAY_SIZE(seg_fields),
};

static const struct state_field pending_fields[] = {
	STATE_U16(struct blk_pending_model, queue, .max = BLK_QUEUES_MAX - 1),
	STATE_U16(struct blk_pending_model, id),
	STATE_U16(struct blk_pending_model, places, .max = VIRTQ_SIZE_MAX),
	STATE_U16(struct blk_pending_model, readable, .max = VIRTQ_SIZE_MAX),
	STATE_BOOL(struct blk_pending_model, ended),
	STATE_U32(struct blk_pending_model, type),
	STATE_U8(struct blk_pending_model, status, .max = VIRTIO_BLK_S_UNSUPP),
	STATE_TIME(struct blk_pending_model, due),
	STATE_LIST(struct blk_pending_model, segs, &seg_record, .max = VIRTQ_SIZE_MAX),
};

static const struct state_record pending_record = {
	.kind = "virtio-blk-request", .version = 1, .model_size = sizeof(struct blk_pending_model),
	.fields = pending_fields, .nfields = ARRAY_SIZE(pending_fields),
};

static const struct state_field blk_fields[] = {
	VIRTIO_STATE(struct blk_model),
	STATE_U64(struct blk_model, capacity),
	STATE_BOOL(struct blk_model, writeback),
	STATE_LIST(struct blk_model, pending, &pending_record, .max = PENDING_MAX),
};

const struct state_record virtio_blk_record = {
	.kind = "virtio-blk", .version = 1, .model_size = sizeof(struct blk_model),
	.fields = blk_fields, .nfields = ARRAY_SIZE(blk_fields),
};

/* ---- Export -------------------------------------------------------------- */

static bool export_one(struct blk_pending_model *p, const struct blk_request *rq)
{
	const struct virtq_chain *c = &rq->chain;
	unsigned n = (unsigned)c->nreadable + c->nwritable, i;
	struct blk_seg_model *seg = calloc(n, sizeof(*seg));

	if (!seg)
		return false;
	for (i = 0; i < n; i++)
		seg[i] = (struct blk_seg_model){ c->seg[i].gpa, c->seg[i].len };
	*p = (struct blk_pending_model){
		.queue = rq->queue, .id = c->id, .places = c->places, .readable = c->nreadable,
		.ended = rq->stage == BLK_ENDED, .type = rq->type,
		.status = rq->stage == BLK_ENDED ? rq->status : 0,
		.due = rq->stage == BLK_ENDED ? rq->due : 0, .segs = { seg, n },
	};
	return true;
}

static unsigned count(const struct blk_request *rq)
{
	unsigned n = 0;

	for (; rq; rq = rq->next)
		n++;
	return n;
}

void blk_export(const struct virtio *v, void *model)
{
	const struct blk *b = container_of(v, struct blk, v);
	struct blk_model *m = model;
	unsigned n = count(b->held) + count(b->ended);
	struct blk_pending_model *p = n ? calloc(n, sizeof(*p)) : NULL;
	const struct blk_request *rq;
	bool ok = !n || p;

	m->capacity = b->capacity;
	m->writeback = b->writeback;
	m->pending = (struct state_list){ p, 0 };
	/* Only one of the two lists has anything in it, each is in an order that a restore keeps. */
	for (rq = b->held; rq && ok; rq = rq->next)
		ok = export_one(&p[m->pending.count], rq) && ++m->pending.count;
	for (rq = b->ended; rq && ok; rq = rq->next)
		ok = export_one(&p[m->pending.count], rq) && ++m->pending.count;
	m->virtio.failed |= !ok;
	m->virtio.in_flight -= ok ? n : 0;
}

/* ---- Validation ----------------------------------------------------------- */

static int fail_pending(const struct virtio *v, unsigned i, const char *what, struct skep_error *e)
{
	return skep_fail(e, EINVAL, "%s: pending request %u: %s", v->pci.dev.name, i, what);
}

static int check_segs(const struct virtio *v, const struct blk_pending_model *p, unsigned i,
		      struct skep_error *e)
{
	const struct blk_seg_model *s = p->segs.items;
	uint64_t bytes = 0;
	uint32_t k;

	if (p->readable >= p->segs.count)
		return fail_pending(v, i, "it has no room for an answer", e);
	for (k = 0; k < p->segs.count; k++) {
		bytes += s[k].len;
		if (!s[k].len || bytes > UINT32_MAX ||
		    !dma_reaches(&v->pci.dev.vm->memory, s[k].gpa, s[k].len))
			return fail_pending(v, i, "a segment of it is not in RAM", e);
	}
	return 0;
}

static int check_pending(const struct virtio *v, const struct blk_model *m, unsigned i,
			 unsigned *places, struct skep_error *e)
{
	const struct blk_pending_model *p = (const struct blk_pending_model *)m->pending.items + i;
	const struct virtio_queue_model *q = m->virtio.queues.items;
	bool virtual = v->pci.dev.vm->clock.mode == CLOCK_MODE_VIRTUAL;

	if (!(m->virtio.status & VIRTIO_DRIVER_OK))
		return fail_pending(v, i, "the driver was not ready", e);
	if (p->queue >= m->virtio.queues.count || !q[p->queue].enabled)
		return fail_pending(v, i, "its queue is not enabled", e);
	q += p->queue;
	if (p->id >= q->size && !(m->virtio.negotiated & VIRTIO_F_RING_PACKED))
		return fail_pending(v, i, "its id is no descriptor of the queue", e);
	places[p->queue] += p->places;
	if (!p->places || places[p->queue] > q->size)
		return fail_pending(v, i, "more of them than the queue has places", e);
	if (p->ended && !virtual)
		return fail_pending(v, i, "it waits for a time, which only clock.mode=virtual has", e);
	if (p->ended && (p->due < 0 || p->due > CLOCK_DUE_MAX))
		return fail_pending(v, i, "its time is beyond all time", e);
	return check_segs(v, p, i, e);
}

int blk_validate(const struct virtio *v, const void *model, struct skep_error *e)
{
	const struct blk *b = container_of(v, struct blk, v);
	const struct blk_model *m = model;
	unsigned places[BLK_QUEUES_MAX] = { 0 };
	uint32_t i;
	int err = 0;

	if (m->capacity > block_size(b->disk) / IMAGE_SECTOR)
		return skep_fail(e, EINVAL, "%s: the guest knows a disk of %" PRIu64 " sectors, and this one "
				 "has %" PRIu64, v->pci.dev.name, m->capacity,
				 block_size(b->disk) / IMAGE_SECTOR);
	for (i = 0; i < m->pending.count && !err; i++)
		err = check_pending(v, m, i, places, e);
	return err;
}

/* ---- Commit --------------------------------------------------------------- */

static void commit_one(struct blk *b, const struct blk_pending_model *p)
{
	const struct blk_seg_model *s = p->segs.items;
	struct blk_request *rq = blk_request_get(b), **last = &b->held;
	struct virtq_chain *c;
	uint32_t i;

	if (!rq) {
		vm_request_error(b->v.pci.dev.vm, "%s: no memory for a request", b->v.pci.dev.name);
		return;
	}
	c = &rq->chain;
	rq->queue = p->queue;
	rq->type = p->type;
	rq->status = p->status;
	rq->due = p->due;
	*c = (struct virtq_chain){ .id = p->id, .places = p->places, .nreadable = p->readable,
				   .nwritable = (uint16_t)(p->segs.count - p->readable) };
	for (i = 0; i < p->segs.count; i++) {
		c->seg[i] = (struct virtq_seg){ s[i].gpa, s[i].len };
		if (i < p->readable)
			c->readable += s[i].len;
		else
			c->writable += s[i].len;
	}
	virtq_carry(&b->v.queue[p->queue], c);
	if (p->ended) {
		blk_await(b, rq);
		return;
	}
	rq->stage = BLK_HELD;
	while (*last)
		last = &(*last)->next;
	*last = rq;
}

void blk_commit(struct virtio *v, const void *model)
{
	struct blk *b = container_of(v, struct blk, v);
	const struct blk_model *m = model;
	const struct blk_pending_model *p = m->pending.items;
	uint32_t i;

	b->writeback = m->writeback;
	b->capacity = m->capacity;
	for (i = 0; i < m->pending.count; i++)
		commit_one(b, &p[i]);
}
