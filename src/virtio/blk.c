/*
 * virtio-blk: requests from the rings to a block backend and back (VIRTIO 1.2, section 5.2).
 *
 * Data moves between guest memory and the backend without a copy.  What a request says is copied
 * out once, with the chain; what is wrong with it is answered with IOERR or UNSUPP as 5.2.6.2 has
 * it, and a chain without room for an answer breaks the device.
 *
 * clock=virtual: a request is finished by the host before the kick returns, so that the guest's
 * next instruction cannot tell how fast the host is; its answer appears after a time that is a
 * function of the request alone (latency), by a timer.  What waits for that is part of a save.
 */
#include "virtio/blk.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "vm/vm.h"

#define AT_ONCE		(2 * BLK_QUEUE_SIZE)	/* taken in one go, so that other processors cannot hold us */
#define UNMAP		1u			/* flag of a range */

static struct blk *blk_of(struct virtio *v)
{
	return container_of(v, struct blk, v);
}

static bool is_virtual(const struct blk *b)
{
	return b->v.pci.dev.vm->clock.mode == CLOCK_MODE_VIRTUAL;
}

/* ---- Requests ---------------------------------------------------------- */

struct blk_request *blk_request_get(struct blk *b)
{
	struct blk_request *rq = b->spare;

	if (rq)
		b->spare = rq->next;
	else
		rq = malloc(sizeof(*rq));
	if (rq) {
		rq->b = b;
		rq->next = NULL;
		rq->stage = BLK_DISK;
		rq->flushing = false;
		rq->status = VIRTIO_BLK_S_OK;
		rq->nranges = rq->at = 0;
		rq->due = 0;
		rq->order = b->orders++;
	}
	return rq;
}

void blk_request_put(struct blk *b, struct blk_request *rq)
{
	rq->next = b->spare;
	b->spare = rq;
}

static void free_list(struct blk_request **list)
{
	struct blk_request *rq;

	while ((rq = *list)) {
		*list = rq->next;
		free(rq);
	}
}

/*
 * What a request takes in guest time with clock=virtual: a disk of 2 GB/s that answers in 50 us, and
 * flushes in 250.
 */
static int64_t latency(const struct blk_request *rq)
{
	int64_t bytes = (int64_t)rq->chain.readable + rq->chain.writable;

	return (rq->type == VIRTIO_BLK_T_FLUSH ? 250000 : 50000) + bytes / 2;
}

/* The guest sees the answer. */
static void answer(struct blk *b, struct blk_request *rq)
{
	struct virtqueue *q = &b->v.queue[rq->queue];
	uint32_t last = rq->chain.writable - 1;
	bool in = rq->type == VIRTIO_BLK_T_IN || rq->type == VIRTIO_BLK_T_GET_ID;

	if (virtq_current(q, &rq->chain)) {
		virtq_write(q, &rq->chain, last, &rq->status, 1);
		virtq_push(q, &rq->chain, in && !rq->status ? last + 1 : 1);
		b->signal |= BIT(rq->queue);
	}
	blk_request_put(b, rq);
}

void blk_await(struct blk *b, struct blk_request *rq)
{
	struct blk_request **p = &b->ended;

	while (*p && ((*p)->due < rq->due || ((*p)->due == rq->due && (*p)->order < rq->order)))
		p = &(*p)->next;
	rq->stage = BLK_ENDED;
	rq->next = *p;
	*p = rq;
	timer_arm(&b->timer, b->ended->due);
}

static void end(struct blk *b, struct blk_request *rq, uint8_t status)
{
	rq->status = status;
	if (!is_virtual(b)) {
		answer(b, rq);
		return;
	}
	rq->due = clock_now(&b->v.pci.dev.vm->clock) + latency(rq);
	blk_await(b, rq);
}

static void hold(struct blk *b, struct blk_request *rq)
{
	struct blk_request **p = &b->held;

	while (*p && (*p)->order < rq->order)
		p = &(*p)->next;
	rq->stage = BLK_HELD;
	rq->next = *p;
	*p = rq;
}

/* Is each write on stable storage when it is answered (5.2.6.2)? */
static bool write_through(const struct blk *b)
{
	if (virtio_has(&b->v, VIRTIO_BLK_F_CONFIG_WCE))
		return !b->writeback;
	return !virtio_has(&b->v, VIRTIO_BLK_F_FLUSH);
}

static void submit_range(struct blk *b, struct blk_request *rq)
{
	const struct blk_range *g = &rq->range[rq->at];

	rq->r.op = rq->type == VIRTIO_BLK_T_DISCARD ? BLOCK_DISCARD : BLOCK_ZERO;
	rq->r.unmap = g->flags & UNMAP;
	rq->r.offset = g->sector * IMAGE_SECTOR;
	rq->r.len = (uint64_t)g->sectors * IMAGE_SECTOR;
	block_submit(b->disk, &rq->r);
}

/* The backend is done with what was asked of it; err as block.h has it. */
static void done(struct block_request *r, int err)
{
	struct blk_request *rq = container_of(r, struct blk_request, r);
	struct blk *b = rq->b;
	bool writes = rq->type != VIRTIO_BLK_T_IN && rq->type != VIRTIO_BLK_T_FLUSH;

	if (rq->type == VIRTIO_BLK_T_IN)
		virtq_iov_done(&b->v.queue[rq->queue], &rq->chain, 0, rq->chain.writable - 1);
	if (b->dropping) {
		blk_request_put(b, rq);
		return;
	}
	if (err == -ECANCELED) {
		hold(b, rq);
		return;
	}
	if (err) {
		end(b, rq, VIRTIO_BLK_S_IOERR);
		return;
	}
	if (!rq->flushing && rq->at + 1 < rq->nranges) {
		rq->at++;
		submit_range(b, rq);
		return;
	}
	if (writes && !rq->flushing && write_through(b)) {
		rq->flushing = true;
		rq->r.op = BLOCK_FLUSH;
		rq->r.len = 0;
		block_submit(b->disk, &rq->r);
		return;
	}
	end(b, rq, VIRTIO_BLK_S_OK);
}

/* ---- What a request says ------------------------------------------------ */

static bool fits(const struct blk *b, uint64_t sector, uint64_t sectors)
{
	return sector <= b->capacity && sectors <= b->capacity - sector;
}

static void start_io(struct blk *b, struct blk_request *rq)
{
	bool in = rq->type == VIRTIO_BLK_T_IN;
	uint32_t len = in ? rq->chain.writable - 1 : rq->chain.readable - sizeof(struct blk_header);
	struct virtqueue *q = &b->v.queue[rq->queue];
	unsigned i;
	int n;

	for (i = 0; i < (unsigned)rq->chain.nreadable + rq->chain.nwritable; i++)
		if (rq->chain.seg[i].len > BLK_SIZE_MAX + sizeof(struct blk_header)) {
			end(b, rq, VIRTIO_BLK_S_IOERR);
			return;
		}
	if (len % IMAGE_SECTOR || !fits(b, rq->sector, len / IMAGE_SECTOR) ||
	    (!in && (b->v.features & VIRTIO_BLK_F_RO))) {
		end(b, rq, VIRTIO_BLK_S_IOERR);
		return;
	}
	if (!len) {
		end(b, rq, VIRTIO_BLK_S_OK);
		return;
	}
	n = virtq_iov(q, &rq->chain, in, in ? 0 : sizeof(struct blk_header), len, rq->iov, BLK_IOV);
	if (n < 0) {
		end(b, rq, VIRTIO_BLK_S_IOERR);
		return;
	}
	rq->r = (struct block_request){ .op = in ? BLOCK_READ : BLOCK_WRITE,
		.offset = rq->sector * IMAGE_SECTOR, .len = len, .iov = rq->iov, .niov = (unsigned)n,
		.done = done };
	block_submit(b->disk, &rq->r);
}

/* 0, or the answer that a discard or write-zeroes request gets at once. */
static uint8_t check_ranges(const struct blk *b, const struct blk_request *rq)
{
	bool discard = rq->type == VIRTIO_BLK_T_DISCARD;
	unsigned i;

	for (i = 0; i < rq->nranges; i++) {
		const struct blk_range *g = &rq->range[i];

		if (g->flags & ~UNMAP || (discard && g->flags))
			return VIRTIO_BLK_S_UNSUPP;
		if (g->sectors > BLK_RANGE_MAX || !fits(b, g->sector, g->sectors))
			return VIRTIO_BLK_S_IOERR;
	}
	return VIRTIO_BLK_S_OK;
}

static void start_ranges(struct blk *b, struct blk_request *rq, uint64_t feature)
{
	struct virtqueue *q = &b->v.queue[rq->queue];
	uint32_t len = rq->chain.readable - sizeof(struct blk_header);
	uint8_t status;

	if (!virtio_has(&b->v, feature)) {
		end(b, rq, VIRTIO_BLK_S_UNSUPP);
		return;
	}
	if (b->v.features & VIRTIO_BLK_F_RO || !len || len % sizeof(struct blk_range) ||
	    len > sizeof(rq->range)) {
		end(b, rq, VIRTIO_BLK_S_IOERR);
		return;
	}
	virtq_read(q, &rq->chain, sizeof(struct blk_header), rq->range, len);
	rq->nranges = len / sizeof(struct blk_range);
	status = check_ranges(b, rq);
	if (status) {
		end(b, rq, status);
		return;
	}
	rq->r = (struct block_request){ .done = done };
	submit_range(b, rq);
}

static void start_id(struct blk *b, struct blk_request *rq)
{
	struct virtqueue *q = &b->v.queue[rq->queue];

	virtq_write(q, &rq->chain, 0, b->serial, MIN(rq->chain.writable - 1, BLK_SERIAL));
	end(b, rq, VIRTIO_BLK_S_OK);
}

void blk_start(struct blk *b, struct blk_request *rq)
{
	struct virtqueue *q = &b->v.queue[rq->queue];
	struct blk_header h = { 0 };

	rq->type = VIRTIO_BLK_T_FLUSH;
	rq->stage = BLK_DISK;
	rq->flushing = false;
	rq->nranges = rq->at = 0;
	if (virtq_read(q, &rq->chain, 0, &h, sizeof(h)) < sizeof(h)) {
		end(b, rq, VIRTIO_BLK_S_IOERR);
		return;
	}
	rq->type = h.type;
	rq->sector = h.sector;
	switch (h.type) {
	case VIRTIO_BLK_T_IN:
	case VIRTIO_BLK_T_OUT:
		start_io(b, rq);
		break;
	case VIRTIO_BLK_T_FLUSH:
		rq->r = (struct block_request){ .op = BLOCK_FLUSH, .done = done };
		block_submit(b->disk, &rq->r);
		break;
	case VIRTIO_BLK_T_GET_ID:
		start_id(b, rq);
		break;
	case VIRTIO_BLK_T_DISCARD:
		start_ranges(b, rq, VIRTIO_BLK_F_DISCARD);
		break;
	case VIRTIO_BLK_T_WRITE_ZEROES:
		start_ranges(b, rq, VIRTIO_BLK_F_WRITE_ZEROES);
		break;
	default:
		end(b, rq, VIRTIO_BLK_S_UNSUPP);
		break;
	}
}

/* ---- Rings -------------------------------------------------------------- */

/* False: the queue is empty, or there is no memory now (what ends then looks again). */
static bool take_one(struct blk *b, struct virtqueue *q)
{
	struct blk_request *rq = blk_request_get(b);

	if (!rq)
		return false;
	rq->queue = q->index;
	if (virtq_pop(q, &rq->chain) <= 0) {
		blk_request_put(b, rq);
		return false;
	}
	if (!rq->chain.writable) {
		virtio_broken(&b->v, "a request on queue %u has no room for its status", q->index);
		virtq_push(q, &rq->chain, 0);		/* which only says that it is not in flight */
		blk_request_put(b, rq);
		return false;
	}
	blk_start(b, rq);
	return true;
}

static void signal_queues(struct blk *b)
{
	while (b->signal) {
		unsigned n = (unsigned)__builtin_ctzll(b->signal);

		b->signal &= b->signal - 1;
		virtq_signal(&b->v.queue[n]);
	}
}

static void run(struct blk *b)
{
	block_run(b->disk);
	if (is_virtual(b))
		block_drain(b->disk);
	signal_queues(b);
}

/* More was there than is taken in one go. */
static void look_again(void *opaque)
{
	struct blk *b = opaque;
	unsigned i;

	if (b->v.quiesced)
		return;
	for (i = 0; i < b->v.nqueues; i++)
		if (b->v.queue[i].kicked)
			virtio_blk_type.notify(&b->v, &b->v.queue[i]);
}

static void blk_notify(struct virtio *v, struct virtqueue *q)
{
	struct blk *b = blk_of(v);
	unsigned n;

	for (n = 0; n < AT_ONCE && take_one(b, q); n++)
		;
	run(b);
	if (n == AT_ONCE)
		loop_post(v->pci.dev.vm, look_again, b);
}

/* Some requests have ended, on the vm thread. */
static void batch_ended(void *opaque)
{
	struct blk *b = opaque;

	signal_queues(b);
}

/* 5.2.4: the capacity may change at any time, and the driver is told. */
static void disk_resized(void *opaque)
{
	struct blk *b = opaque;

	b->capacity = block_size(b->disk) / IMAGE_SECTOR;
	virtio_config_changed(&b->v);
}

static void on_timer(void *opaque)
{
	struct blk *b = opaque;
	int64_t now = clock_now(&b->v.pci.dev.vm->clock);
	struct blk_request *rq;

	while ((rq = b->ended) && rq->due <= now) {
		b->ended = rq->next;
		answer(b, rq);
	}
	if (b->ended)
		timer_arm(&b->timer, b->ended->due);
	signal_queues(b);
}

/* ---- Stopping ----------------------------------------------------------- */

/* What waits of one queue, or of all (NULL), is forgotten. */
static void forget(struct blk *b, struct blk_request **list, const struct virtqueue *q)
{
	struct blk_request **p = list, *rq;

	while ((rq = *p)) {
		if (q && rq->queue != q->index) {
			p = &rq->next;
			continue;
		}
		*p = rq->next;
		blk_request_put(b, rq);
	}
}

static void blk_reset(struct virtio *v)
{
	struct blk *b = blk_of(v);

	b->dropping = true;
	block_hold(b->disk);
	b->dropping = false;
	forget(b, &b->held, NULL);
	forget(b, &b->ended, NULL);
	timer_disarm(&b->timer);
	b->signal = 0;
	b->writeback = true;
}

static void restart_held(struct blk *b)
{
	struct blk_request *rq, *list = b->held;

	b->held = NULL;
	while ((rq = list)) {
		list = rq->next;
		blk_start(b, rq);
	}
	run(b);
}

static void blk_queue_reset(struct virtio *v, struct virtqueue *q)
{
	struct blk *b = blk_of(v);

	block_hold(b->disk);
	forget(b, &b->held, q);
	forget(b, &b->ended, q);
	if (b->ended)
		timer_arm(&b->timer, b->ended->due);
	else
		timer_disarm(&b->timer);
	b->signal &= ~BIT(q->index);
	if (!v->quiesced)
		restart_held(b);
}

static void blk_quiesce(struct virtio *v)
{
	struct blk *b = blk_of(v);

	block_hold(b->disk);
	signal_queues(b);
}

static void blk_resume(struct virtio *v)
{
	restart_held(blk_of(v));
}

/* ---- Configuration ------------------------------------------------------ */

static void fill_config(const struct blk *b, struct blk_config *c)
{
	bool discard = b->v.features & VIRTIO_BLK_F_DISCARD;
	bool zeroes = b->v.features & VIRTIO_BLK_F_WRITE_ZEROES;

	*c = (struct blk_config){
		.capacity = b->capacity,
		.size_max = BLK_SIZE_MAX,
		.seg_max = BLK_QUEUE_SIZE - 2,
		.blk_size = b->blk_size,
		.physical_block_exp = b->physical_exp,
		.min_io_size = (uint16_t)(1u << b->physical_exp),
		.writeback = b->writeback,
		.num_queues = (uint16_t)b->v.nqueues,
		.max_discard_sectors = discard ? BLK_RANGE_MAX : 0,
		.max_discard_seg = discard ? BLK_SEGS : 0,
		.discard_sector_alignment = discard ? (b->blk_size << b->physical_exp) / IMAGE_SECTOR : 0,
		.max_write_zeroes_sectors = zeroes ? BLK_RANGE_MAX : 0,
		.max_write_zeroes_seg = zeroes ? BLK_SEGS : 0,
		.write_zeroes_may_unmap = discard && zeroes,
	};
}

static void blk_config_read(struct virtio *v, unsigned offset, unsigned size, void *buf)
{
	struct blk_config c;

	fill_config(blk_of(v), &c);
	memcpy(buf, (uint8_t *)&c + offset, size);
}

static void blk_config_write(struct virtio *v, unsigned offset, unsigned size, const void *buf)
{
	struct blk *b = blk_of(v);
	unsigned at = offsetof(struct blk_config, writeback);

	/* All else is read-only; a write to it does nothing. */
	if (offset <= at && at < offset + size && virtio_has(v, VIRTIO_BLK_F_CONFIG_WCE))
		b->writeback = ((const uint8_t *)buf)[at - offset] & 1;
}

/* ---- Making ------------------------------------------------------------- */

static const char *const engines[] = { "auto", "io_uring", "threads", NULL };

static const struct config_key blk_keys[] = {
	{ "path", CONFIG_STRING, .help = "a file, a block device, or an NBD server (nbd://host/export, "
	  "nbd+unix:///?socket=/path)" },
	{ "overlay", CONFIG_STRING, .help = "what is written goes to this file, over path, which is only "
	  "read; made if it is not there" },
	{ "from", CONFIG_STRING, .help = "set by skep restore and clone: FILE@SNAPSHOT, what a new overlay lies "
	  "over" },
	{ "fresh", CONFIG_BOOL, .def = "false", .help = "set by skep restore and clone: the overlay must be new" },
	{ "ro", CONFIG_BOOL, .def = "false", .help = "the guest cannot write" },
	{ "nocache", CONFIG_BOOL, .def = "false", .help = "past the host's cache (O_DIRECT)" },
	{ "direct", CONFIG_BOOL, .def = "false", .help = "every write is on stable storage when it ends "
	  "(O_SYNC); bhyve's name" },
	{ "sync", CONFIG_BOOL, .def = "false", .help = "the same as direct" },
	{ "nodelete", CONFIG_BOOL, .def = "false", .help = "the guest cannot discard" },
	{ "sectorsize", CONFIG_STRING, .help = "what the guest sees: logical or logical/physical, each a "
	  "power of two from 512 to 65536" },
	{ "ser", CONFIG_STRING, .help = "serial number, up to 20 characters; unset: from the slot" },
	{ "queues", CONFIG_UINT, .def = "1", .min = 1, .max = BLK_QUEUES_MAX,
	  .help = "request queues; one a processor makes sense" },
	{ "aio", CONFIG_CHOICE, .def = "auto", .choices = engines,
	  .help = "how the host does it; auto: io_uring where it is allowed" },
	{ "retry", CONFIG_UINT, .def = "30", .max = 86400, .help = "seconds that requests wait for an NBD "
	  "server that is gone, before the guest sees an error" },
	{ "bootindex", CONFIG_UINT, .max = 255, .help = "firmware tries the lowest first" },
};
static const struct config_schema blk_schema = { blk_keys, ARRAY_SIZE(blk_keys) };

static bool parse_block(const char **p, uint32_t *size)
{
	char *end;
	unsigned long v = strtoul(*p, &end, 10);

	if (end == *p || v < 512 || v > 65536 || v & (v - 1))
		return false;
	*p = end;
	*size = (uint32_t)v;
	return true;
}

static int read_sectorsize(struct blk *b, struct config_node *n, struct skep_error *e)
{
	const char *text = config_string(n, "sectorsize"), *p = text;
	uint32_t logical = 512, physical = block_image(b->disk)->physical;

	if (text) {
		bool ok = parse_block(&p, &logical);

		physical = logical;
		if (ok && *p == '/') {
			p++;
			ok = parse_block(&p, &physical);
		}
		if (!ok || *p || physical < logical)
			return skep_fail(e, EINVAL, "%s.sectorsize: \"%s\" is not a size or two, as in 4096 "
					 "or 512/4096", b->v.pci.dev.name, text);
	}
	b->blk_size = logical;
	/* What the image's host says may be anything, and another host's may differ: a fixed choice. */
	b->physical_exp = text ? (uint8_t)__builtin_ctz(physical / logical) : 3;
	if (block_size(b->disk) % logical)
		return skep_fail(e, EINVAL, "%s.sectorsize: the disk's %" PRIu64 " bytes are not a multiple "
				 "of %u", b->v.pci.dev.name, block_size(b->disk), logical);
	return 0;
}

static int read_serial(struct blk *b, struct config_node *n, struct skep_error *e)
{
	const char *ser = config_string(n, "ser"), *name = b->v.pci.dev.name;
	char text[BLK_SERIAL + 1];

	if (ser && strlen(ser) > BLK_SERIAL)
		return skep_fail(e, EINVAL, "%s.ser: a serial number has at most %u characters", name,
				 BLK_SERIAL);
	if (!ser)
		snprintf(text, sizeof(text), "skep-%.15s", strncmp(name, "pci.", 4) ? name : name + 4);
	memcpy(b->serial, ser ? ser : text, strlen(ser ? ser : text));
	return 0;
}

static struct image *open_image(struct blk *b, struct config_node *n, struct skep_error *e)
{
	struct image_options o = {
		.owner = b->v.pci.dev.name,
		.path = config_string(n, "path"),
		.overlay = config_string(n, "overlay"),
		.fresh = config_bool(n, "fresh"),
		.read_only = config_bool(n, "ro"),
		.nocache = config_bool(n, "nocache"),
		.sync = config_bool(n, "direct") || config_bool(n, "sync"),
		.retry_s = (unsigned)config_uint(n, "retry"),
	};

	const char *from = config_string(n, "from"), *at = from ? strrchr(from, '@') : NULL;
	uint8_t id[IMAGE_ID_SIZE];
	struct image *im;
	char *file;

	if (!from)
		return image_open(&o, e);
	if (!at || !image_id_parse(at + 1, id)) {
		skep_fail(e, EINVAL, "%s.from: \"%.100s\" is not FILE@SNAPSHOT", o.owner, from);
		return NULL;
	}
	file = strndup(from, (size_t)(at - from));
	if (!file) {
		skep_fail(e, ENOMEM, "%s: no memory for a disk", o.owner);
		return NULL;
	}
	o.from = file;
	o.from_snapshot = id;
	im = image_open(&o, e);
	free(file);
	return im;
}

static enum block_engine choose_engine(struct config_node *n)
{
	const char *aio = config_string(n, "aio");

	return aio && !strcmp(aio, "io_uring") ? BLOCK_IO_URING :
	       aio && !strcmp(aio, "threads") ? BLOCK_THREADS : BLOCK_AUTO;
}

static void blk_finish(struct virtio *v)
{
	struct blk *b = blk_of(v);

	b->dropping = true;
	timer_disarm(&b->timer);
	block_destroy(b->disk);
	free_list(&b->held);
	free_list(&b->ended);
	free_list(&b->spare);
}

static int blk_init(struct virtio *v, struct skep_error *e)
{
	struct blk *b = blk_of(v);
	struct config_node *n = v->pci.dev.config;
	unsigned queues = (unsigned)config_uint(n, "queues"), i;
	struct image *im = open_image(b, n, e);
	int err;

	if (!im)
		return -EINVAL;
	b->disk = block_create(v->pci.dev.vm, v->pci.dev.name, im, choose_engine(n), e);
	if (!b->disk)
		return -EINVAL;
	block_on_batch(b->disk, batch_ended, b);
	block_on_resize(b->disk, disk_resized, b);
	timer_init(&b->timer, v->pci.dev.vm, v->pci.dev.name, on_timer, b);
	b->writeback = true;
	b->capacity = block_size(b->disk) / IMAGE_SECTOR;
	v->features = VIRTIO_BLK_F_SIZE_MAX | VIRTIO_BLK_F_SEG_MAX | VIRTIO_BLK_F_BLK_SIZE |
		      VIRTIO_BLK_F_FLUSH | VIRTIO_BLK_F_TOPOLOGY | VIRTIO_BLK_F_CONFIG_WCE |
		      (queues > 1 ? VIRTIO_BLK_F_MQ : 0);
	if (config_bool(n, "ro"))
		v->features |= VIRTIO_BLK_F_RO;
	else
		v->features |= VIRTIO_BLK_F_WRITE_ZEROES |
			       (config_bool(n, "nodelete") ? 0 : VIRTIO_BLK_F_DISCARD);
	v->config_size = sizeof(struct blk_config);
	err = read_sectorsize(b, n, e);
	if (!err)
		err = read_serial(b, n, e);
	for (i = 0; i < queues && !err; i++)
		err = virtio_add_queue(v, BLK_QUEUE_SIZE, e);
	if (err)
		blk_finish(v);
	return err;
}

const struct virtio_type virtio_blk_type = {
	VIRTIO_DEVICE("virtio-blk", "a disk", 2, 0x018000, struct blk, blk_schema, virtio_blk_record),
	.init = blk_init,
	.finish = blk_finish,
	.reset = blk_reset,
	.notify = blk_notify,
	.queue_reset = blk_queue_reset,
	.config_read = blk_config_read,
	.config_write = blk_config_write,
	.quiesce = blk_quiesce,
	.resume = blk_resume,
	.export = blk_export,
	.validate = blk_validate,
	.commit = blk_commit,
};
