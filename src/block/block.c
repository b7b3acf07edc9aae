/*
 * Requests on their way: by io_uring where the image is a plain descriptor and the host has it,
 * by worker threads otherwise, and for what io_uring began and did not finish.
 *
 * A worker touches nothing but its request and the image; what it has done waits in a list
 * until somebody with the device lock tells the device.
 */
#include "block/block.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/thread.h"
#include "base/util.h"
#include "block/ring.h"
#include "vm/event.h"
#include "vm/vm.h"

#define WORKERS_MAX	8

struct request_list {
	struct block_request *head, **tail;
};

struct block {
	struct vm *vm;
	struct block *next;		/* in vm->disks */
	struct image *im;
	char *owner;
	struct ring *ring;		/* NULL: none */
	int event;			/* eventfd: something has ended */
	struct loop_watch *watch;
	unsigned pending;		/* submitted and not done. Device lock */
	_Atomic int lost;		/* what the first failed flush said */
	bool running;			/* block_run is at it. Device lock */
	bool handed;			/* something was ever given to a worker. Device lock */
	void (*batch)(void *opaque);	/* NULL: nobody asked */
	void *batch_opaque;
	void (*resized)(void *opaque);	/* likewise */
	void *resized_opaque;
	struct block_counts counts;

	/* The workers' side. */
	pthread_mutex_t lock;		/* innermost */
	pthread_cond_t work, ended;
	struct request_list todo, ready;
	unsigned idle;			/* workers that wait */
	unsigned nworkers;
	pthread_t workers[WORKERS_MAX];
	bool stop;
};

static void list_init(struct request_list *l)
{
	l->head = NULL;
	l->tail = &l->head;
}

static void list_put(struct request_list *l, struct block_request *r)
{
	r->next = NULL;
	*l->tail = r;
	l->tail = &r->next;
}

static struct block_request *list_get(struct request_list *l)
{
	struct block_request *r = l->head;

	if (r) {
		l->head = r->next;
		if (!l->head)
			l->tail = &l->head;
	}
	return r;
}

/* ---- Workers ----------------------------------------------------------- */

static int execute(struct image *im, const struct block_request *r)
{
	switch (r->op) {
	case BLOCK_READ:
		return im->ops->read(im, r->iov, r->niov, r->offset);
	case BLOCK_WRITE:
		return im->ops->write(im, r->iov, r->niov, r->offset);
	case BLOCK_FLUSH:
		return im->ops->flush(im);
	case BLOCK_DISCARD:
		return im->ops->discard(im, r->offset, r->len);
	case BLOCK_ZERO:
		return im->ops->zero(im, r->offset, r->len, r->unmap);
	}
	return -EINVAL;
}

static void *worker_main(void *opaque)
{
	struct block *b = opaque;
	struct block_request *r;
	uint64_t one = 1;

	pthread_setname_np(pthread_self(), "block");
	pthread_mutex_lock(&b->lock);
	for (;;) {
		bool first;

		while (!(r = list_get(&b->todo)) && !b->stop) {
			b->idle++;
			pthread_cond_wait(&b->work, &b->lock);
			b->idle--;
		}
		if (!r)
			break;
		pthread_mutex_unlock(&b->lock);
		r->result = execute(b->im, r);
		pthread_mutex_lock(&b->lock);
		first = !b->ready.head;
		list_put(&b->ready, r);
		pthread_cond_signal(&b->ended);
		/* A full counter is one that nobody has read yet. */
		if (first && write(b->event, &one, sizeof(one)) < 0)
			continue;
	}
	pthread_mutex_unlock(&b->lock);
	return NULL;
}

/* One more worker, if all are busy and there may be more; b->lock held. */
static void want_worker(struct block *b)
{
	if (b->idle || b->nworkers >= MIN(b->im->threads, (unsigned)WORKERS_MAX))
		return;
	if (!thread_start(&b->workers[b->nworkers], worker_main, b))
		b->nworkers++;
}

/* Device lock. */
static void give_worker(struct block *b, struct block_request *r)
{
	bool nobody;

	b->handed = true;
	pthread_mutex_lock(&b->lock);
	want_worker(b);
	nobody = !b->nworkers;
	if (!nobody) {
		list_put(&b->todo, r);
		pthread_cond_signal(&b->work);
	}
	pthread_mutex_unlock(&b->lock);
	if (!nobody)
		return;
	/* It needs none, or the host gives none: slow is better than never. */
	r->result = execute(b->im, r);
	pthread_mutex_lock(&b->lock);
	list_put(&b->ready, r);
	pthread_mutex_unlock(&b->lock);
}

/* ---- Ends -------------------------------------------------------------- */

static void finish(struct block *b, struct block_request *r, int err)
{
	int none = 0;

	if (err && err != -ECANCELED)
		b->counts.errors++;
	if (r->op == BLOCK_FLUSH && err && err != -ECANCELED && b->im->forgets)
		atomic_compare_exchange_strong(&b->lost, &none, err);
	if (r->op == BLOCK_FLUSH && !err)
		err = atomic_load(&b->lost);
	b->counts.at_once += b->running;
	b->pending--;
	r->done(r, err);
}

/* What the ring says of a request: all of it, a part, or nothing. */
static void ring_ended(struct block *b, struct block_request *r, int res)
{
	size_t n = res > 0 ? (size_t)res : 0;

	if (r->op == BLOCK_FLUSH || (res < 0 && res != -EAGAIN && res != -EINTR)) {
		finish(b, r, res < 0 ? res : 0);
		return;
	}
	if (n >= r->len) {
		finish(b, r, 0);
		return;
	}
	/* A worker does the rest, and finds out why it was so little. */
	r->offset += n;
	r->len -= n;
	while (r->niov && n >= r->iov->iov_len) {
		n -= r->iov->iov_len;
		r->iov++;
		r->niov--;
	}
	if (r->niov) {
		r->iov->iov_base = (uint8_t *)r->iov->iov_base + n;
		r->iov->iov_len -= n;
	}
	give_worker(b, r);
}

static struct block_request *take_ready(struct block *b)
{
	struct block_request *r;

	pthread_mutex_lock(&b->lock);
	r = list_get(&b->ready);
	pthread_mutex_unlock(&b->lock);
	return r;
}

/* Ends all that is ready; true if there was any. */
static bool end_ready(struct block *b)
{
	struct block_request *r;
	bool some = false;
	int res;

	while (b->ring && (r = ring_reap(b->ring, false, &res))) {
		ring_ended(b, r, res);
		some = true;
	}
	while (b->handed && (r = take_ready(b))) {
		finish(b, r, r->result);
		some = true;
	}
	return some;
}

static void on_event(void *opaque, uint32_t events)
{
	struct block *b = opaque;
	uint64_t count;

	if (read(b->event, &count, sizeof(count)) < 0 && errno != EAGAIN)
		return;
	if (end_ready(b)) {
		block_run(b);		/* what their ends have submitted */
		if (b->batch)
			b->batch(b->batch_opaque);
	}
}

/* ---- The device's side ------------------------------------------------- */

static bool fits(const struct block *b, const struct block_request *r)
{
	uint64_t size = b->im->size;

	return r->op == BLOCK_FLUSH || (r->offset <= size && r->len <= size - r->offset);
}

static bool may_ring(const struct block *b, const struct block_request *r)
{
	uint64_t bits = r->offset;
	unsigned i;

	if (!b->ring || b->im->align <= 1)
		return b->ring;
	for (i = 0; i < r->niov; i++)
		bits |= (uintptr_t)r->iov[i].iov_base | r->iov[i].iov_len;
	return !(bits & (b->im->align - 1));
}

void block_on_batch(struct block *b, void (*fn)(void *opaque), void *opaque)
{
	b->batch = fn;
	b->batch_opaque = opaque;
}

void block_submit(struct block *b, struct block_request *r)
{
	b->counts.requests[r->op]++;
	b->counts.bytes[r->op] += r->len;
	b->pending++;
	r->result = !fits(b, r) ? -EIO :
		    r->op != BLOCK_READ && r->op != BLOCK_FLUSH && b->im->read_only ? -EROFS : 0;
	if (r->result)
		finish(b, r, r->result);
	else if (r->op == BLOCK_FLUSH && b->im->read_only)
		finish(b, r, 0);
	else if (!may_ring(b, r) || !ring_queue(b->ring, r))
		give_worker(b, r);
}

void block_run(struct block *b)
{
	if (b->running)
		return;
	b->running = true;
	if (b->ring) {
		ring_mute(b->ring, true);
		do
			ring_submit(b->ring);
		while (end_ready(b));
		ring_mute(b->ring, false);
	}
	/* What ended between the last look and the un-muting. */
	end_ready(b);
	if (b->ring)
		ring_submit(b->ring);
	b->running = false;
}

/* Waits for one of the workers' to end. */
static void wait_worker(struct block *b)
{
	pthread_mutex_lock(&b->lock);
	while (!b->ready.head)
		pthread_cond_wait(&b->ended, &b->lock);
	pthread_mutex_unlock(&b->lock);
}

void block_drain(struct block *b)
{
	struct block_request *r;
	int res;

	while (b->pending) {
		block_run(b);
		if (!b->pending)
			break;
		if (b->ring && ring_pending(b->ring)) {
			r = ring_reap(b->ring, true, &res);
			if (r)
				ring_ended(b, r, res);
		} else {
			wait_worker(b);
		}
	}
}

void block_hold(struct block *b)
{
	if (!b->pending)
		return;
	b->im->ops->interrupt(b->im, true);
	block_drain(b);
	b->im->ops->interrupt(b->im, false);
}

int block_sync(struct block *b)
{
	int err = b->im->ops->flush(b->im), none = 0;

	if (err && err != -ECANCELED && b->im->forgets)
		atomic_compare_exchange_strong(&b->lost, &none, err);
	return err ? err : atomic_load(&b->lost);
}

struct block *block_next(const struct block *b)
{
	return b->next;
}

const char *block_owner(const struct block *b)
{
	return b->owner;
}

struct image *block_image(const struct block *b)
{
	return b->im;
}

uint64_t block_size(const struct block *b)
{
	return __atomic_load_n(&b->im->size, __ATOMIC_ACQUIRE);
}

int block_refresh(struct block *b, struct skep_error *e)
{
	return b->im->ops->refresh(b->im, e);
}

int block_resize(struct block *b, uint64_t bytes, struct skep_error *e)
{
	uint64_t was = block_size(b);
	int err;

	if (bytes && (bytes < was || bytes % IMAGE_SECTOR))
		return skep_fail(e, EINVAL, "%s has %" PRIu64 " bytes and cannot become a disk of %" PRIu64
				 "; it can only grow, by multiples of %u", b->owner, was, bytes,
				 IMAGE_SECTOR);
	err = bytes > was ? b->im->ops->grow(b->im, bytes, e) : 0;
	if (!err)
		err = b->im->ops->refresh(b->im, e);
	if (!err && block_size(b) != was && b->resized)
		b->resized(b->resized_opaque);
	return err;
}

void block_on_resize(struct block *b, void (*fn)(void *opaque), void *opaque)
{
	b->resized = fn;
	b->resized_opaque = opaque;
}

const char *block_engine_name(const struct block *b)
{
	return b->ring ? "io_uring" : "threads";
}

const struct block_counts *block_counts(const struct block *b)
{
	return &b->counts;
}

/* ---- Making ------------------------------------------------------------ */

static int choose_engine(struct block *b, enum block_engine engine, struct skep_error *e)
{
	int err = 0;

	if (engine == BLOCK_THREADS || (engine == BLOCK_AUTO && b->im->fd < 0))
		return 0;
	if (b->im->fd < 0)
		return skep_fail(e, ENOTSUP, "%s.aio: io_uring serves plain files and block devices, and "
				 "%s is neither; leave the key out", b->owner, b->im->name);
	b->ring = ring_create(b->im->fd, b->event, &err);
	if (!b->ring && engine == BLOCK_IO_URING)
		return skep_fail(e, -err, "%s.aio: this host allows no io_uring: %s; leave the key out",
				 b->owner, strerror(-err));
	return 0;
}

struct block *block_create(struct vm *vm, const char *owner, struct image *im,
			   enum block_engine engine, struct skep_error *e)
{
	struct block *b = calloc(1, sizeof(*b)), **p;
	int err;

	if (!b) {
		image_close(im);
		skep_fail(e, ENOMEM, "%s: no memory for a disk", owner);
		return NULL;
	}
	b->vm = vm;
	b->im = im;
	list_init(&b->todo);
	list_init(&b->ready);
	pthread_mutex_init(&b->lock, NULL);
	pthread_cond_init(&b->work, NULL);
	pthread_cond_init(&b->ended, NULL);
	b->event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	b->owner = strdup(owner);
	err = b->event < 0 ? skep_fail(e, errno, "%s: no eventfd: %s", owner, strerror(errno)) :
	      !b->owner ? skep_fail(e, ENOMEM, "%s: no memory for a disk", owner) : 0;
	if (!err)
		err = choose_engine(b, engine, e);
	if (!err && !(b->watch = loop_watch(vm, b->event, EPOLLIN, on_event, b, e)))
		err = -ENOMEM;
	if (err) {
		block_destroy(b);
		return NULL;
	}
	for (p = &vm->disks; *p; p = &(*p)->next)
		;
	*p = b;
	return b;
}

void block_destroy(struct block *b)
{
	struct block **p;
	unsigned i;

	if (!b)
		return;
	for (p = &b->vm->disks; *p; p = &(*p)->next)
		if (*p == b) {
			*p = b->next;
			break;
		}
	if (b->pending)
		block_hold(b);
	pthread_mutex_lock(&b->lock);
	b->stop = true;
	pthread_cond_broadcast(&b->work);
	pthread_mutex_unlock(&b->lock);
	for (i = 0; i < b->nworkers; i++)
		pthread_join(b->workers[i], NULL);
	loop_unwatch(b->watch);
	ring_destroy(b->ring);
	if (b->event >= 0)
		close(b->event);
	pthread_cond_destroy(&b->ended);
	pthread_cond_destroy(&b->work);
	pthread_mutex_destroy(&b->lock);
	image_close(b->im);
	free(b->owner);
	free(b);
}
