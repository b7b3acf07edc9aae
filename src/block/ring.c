#include "block/ring.h"

#include <errno.h>
#include <liburing.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#define ENTRIES	128

struct ring {
	struct io_uring u;
	int fd;
	unsigned queued;	/* not yet with the kernel */
	unsigned pending;	/* queued or under way */
};

/* liburing 2.3 declares functions for restrictions and enabling, and does not export them. */
static int do_register(struct io_uring *u, unsigned what, void *arg, unsigned n)
{
	return syscall(SYS_io_uring_register, u->ring_fd, what, arg, n) < 0 ? -errno : 0;
}

/* The ring does nothing but what a disk needs, whatever may be written into it later. */
static int restrict_ring(struct io_uring *u)
{
	static const uint8_t ops[] = { IORING_OP_READV, IORING_OP_WRITEV, IORING_OP_FSYNC };
	struct io_uring_restriction r[2 + sizeof(ops)] = {
		{ .opcode = IORING_RESTRICTION_SQE_FLAGS_ALLOWED, .sqe_flags = 0 },
		{ .opcode = IORING_RESTRICTION_REGISTER_OP, .register_op = IORING_UNREGISTER_EVENTFD },
	};
	size_t i;

	for (i = 0; i < sizeof(ops); i++) {
		r[2 + i].opcode = IORING_RESTRICTION_SQE_OP;
		r[2 + i].sqe_op = ops[i];
	}
	return do_register(u, IORING_REGISTER_RESTRICTIONS, r, 2 + sizeof(ops));
}


struct ring *ring_create(int fd, int event, int *err)
{
	struct ring *r = calloc(1, sizeof(*r));

	if (!r) {
		*err = -ENOMEM;
		return NULL;
	}
	r->fd = fd;
	*err = io_uring_queue_init(ENTRIES, &r->u, IORING_SETUP_R_DISABLED);
	if (*err < 0) {
		free(r);
		return NULL;
	}
	*err = io_uring_register_eventfd(&r->u, event);
	if (!*err)
		*err = restrict_ring(&r->u);
	if (!*err)
		*err = do_register(&r->u, IORING_REGISTER_ENABLE_RINGS, NULL, 0);
	if (*err < 0) {
		io_uring_queue_exit(&r->u);
		free(r);
		return NULL;
	}
	return r;
}

void ring_destroy(struct ring *r)
{
	if (!r)
		return;
	io_uring_queue_exit(&r->u);
	free(r);
}

bool ring_queue(struct ring *r, struct block_request *q)
{
	struct io_uring_sqe *s;

	if (q->op != BLOCK_READ && q->op != BLOCK_WRITE && q->op != BLOCK_FLUSH)
		return false;
	s = io_uring_get_sqe(&r->u);
	if (!s)
		return false;
	if (q->op == BLOCK_READ)
		io_uring_prep_readv(s, r->fd, q->iov, q->niov, q->offset);
	else if (q->op == BLOCK_WRITE)
		io_uring_prep_writev(s, r->fd, q->iov, q->niov, q->offset);
	else
		io_uring_prep_fsync(s, r->fd, IORING_FSYNC_DATASYNC);
	io_uring_sqe_set_data(s, q);
	r->queued++;
	r->pending++;
	return true;
}

void ring_submit(struct ring *r)
{
	while (r->queued) {
		int n = io_uring_submit(&r->u);

		/* EAGAIN, EBUSY: no memory now; what has ended must be taken first. */
		if (n < 0 && n != -EINTR)
			return;
		if (n > 0)
			r->queued -= (unsigned)n < r->queued ? (unsigned)n : r->queued;
	}
}

struct block_request *ring_reap(struct ring *r, bool wait, int *res)
{
	struct io_uring_cqe *c = NULL;
	struct block_request *q;

	if (!r->pending)
		return NULL;
	while (io_uring_peek_cqe(&r->u, &c) < 0 || !c) {
		int err;

		if (!wait)
			return NULL;
		ring_submit(r);
		err = io_uring_wait_cqe(&r->u, &c);
		if (err < 0 && err != -EINTR && err != -EAGAIN)
			return NULL;
	}
	q = io_uring_cqe_get_data(c);
	*res = c->res;
	io_uring_cqe_seen(&r->u, c);
	r->pending--;
	return q;
}

unsigned ring_pending(const struct ring *r)
{
	return r->pending;
}

void ring_mute(struct ring *r, bool on)
{
	io_uring_cq_eventfd_toggle(&r->u, !on);
}
