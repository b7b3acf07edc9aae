/*
 * A disk on a server that speaks NBD, through libnbd, which is loaded when such a disk is opened.
 * qcow2 and everything else that qemu-nbd reads come in this way.
 *
 * A server may die and come back.  A request that was under way is then sent again, and so is
 * every write that the server has acknowledged and that no flush has covered: a server that keeps
 * writes in its own memory may have lost them.  They are kept here for that (struct kept), and
 * when they become many the server is told to flush.  Who waits longer than retry_s gets -EIO.
 *
 * One request at a time is under way; its pieces go out together.
 */
#include <dlfcn.h>
#include <errno.h>
#include <libnbd.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/say.h"
#include "base/util.h"
#include "block/image.h"

#define KEPT_MAX	(16u << 20)	/* bytes of writes kept before the server has to flush */
#define PIECE_MAX	(8u << 20)	/* bytes of one command */
#define ZERO_MAX	(512u << 20)
#define POLL_MS		200
#define HURRY_NS	(2 * NSEC_PER_SEC)	/* for a server that is slow while the machine is to stand */
#define CONNECT_NS	(10 * NSEC_PER_SEC)
#define AWAY_MAX_MS	1000			/* between two attempts to connect */

/* libnbd's functions, as it declares them. */
#define NBD_FUNCTIONS(X) \
	X(nbd_create) X(nbd_close) X(nbd_get_error) X(nbd_get_errno) \
	X(nbd_aio_connect_uri) X(nbd_aio_is_ready) X(nbd_aio_is_dead) X(nbd_aio_is_closed) \
	X(nbd_poll) X(nbd_get_size) X(nbd_is_read_only) X(nbd_can_flush) X(nbd_can_trim) \
	X(nbd_can_zero) X(nbd_aio_pread) X(nbd_aio_pwrite) X(nbd_aio_flush) X(nbd_aio_trim) \
	X(nbd_aio_zero) X(nbd_aio_command_completed) X(nbd_set_uri_allow_local_file)

struct nbd_library {
	void *handle;
#define MEMBER(f) __typeof__(f) *f;
	NBD_FUNCTIONS(MEMBER)
#undef MEMBER
};

enum nbd_op { NBD_READ, NBD_WRITE, NBD_FLUSH, NBD_TRIM, NBD_ZERO };

struct nbd_call {
	enum nbd_op op;
	const struct iovec *iov;
	unsigned niov;
	uint64_t offset, len;
	bool unmap;
};

/* A write that the server has acknowledged and may still lose. */
struct kept {
	struct kept *next;
	enum nbd_op op;
	uint64_t offset, len;
	uint8_t data[];
};

struct nbd {
	struct image im;
	struct nbd_library lib;
	char *owner, *uri;
	int64_t retry_ns;
	bool can_flush, can_trim, can_zero;
	bool sync;			/* each write is flushed */
	pthread_mutex_t lock;		/* one request at a time */
	struct nbd_handle *h;		/* NULL: not connected */
	bool was_there, away;		/* connected once; it is gone and that was said */
	bool foreign;			/* it came back as another disk */
	struct kept *kept, **kept_end;
	size_t nkept;			/* bytes */

	pthread_mutex_t wait_lock;
	pthread_cond_t wait;
	_Atomic bool interrupted;
};

static struct nbd *nbd_of(struct image *im)
{
	return container_of(im, struct nbd, im);
}

static int64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * NSEC_PER_SEC + t.tv_nsec;
}

bool nbd_is_uri(const char *path)
{
	return !strncmp(path, "nbd://", 6) || !strncmp(path, "nbd+unix://", 11) ||
	       !strncmp(path, "nbds://", 7) || !strncmp(path, "nbds+unix://", 12);
}

static int load_library(struct nbd_library *l, const char *owner, struct skep_error *e)
{
	l->handle = dlopen("libnbd.so.0", RTLD_NOW | RTLD_LOCAL);
	if (!l->handle)
		return skep_fail(e, ENOENT, "%s.path: a disk by NBD needs the library libnbd (Debian's "
				 "package libnbd0): %s", owner, dlerror());
#define LOAD(f) \
	*(void **)&l->f = dlsym(l->handle, #f); \
	if (!l->f) \
		return skep_fail(e, ENOENT, "%s.path: libnbd has no " #f "; it is too old", owner);
	NBD_FUNCTIONS(LOAD)
#undef LOAD
	return 0;
}

/* ---- Connection -------------------------------------------------------- */

static void drop(struct nbd *n)
{
	if (n->h)
		n->lib.nbd_close(n->h);
	n->h = NULL;
}

static bool gone(struct nbd *n)
{
	return n->lib.nbd_aio_is_dead(n->h) == 1 || n->lib.nbd_aio_is_closed(n->h) == 1;
}

/* One attempt; on failure there is no handle, and e says why. */
static int connect_once(struct nbd *n, struct skep_error *e)
{
	int64_t until = now_ns() + CONNECT_NS;

	n->h = n->lib.nbd_create();
	if (!n->h)
		return skep_fail(e, ENOMEM, "%s.path: %s", n->owner, n->lib.nbd_get_error());
	n->lib.nbd_set_uri_allow_local_file(n->h, true);
	if (n->lib.nbd_aio_connect_uri(n->h, n->uri) < 0)
		goto failed;
	while (n->lib.nbd_aio_is_ready(n->h) != 1) {
		if (gone(n) || n->lib.nbd_poll(n->h, POLL_MS) < 0)
			goto failed;
		if (now_ns() > until || atomic_load(&n->interrupted)) {
			drop(n);
			return skep_fail(e, ETIMEDOUT, "%s.path: %s does not answer", n->owner, n->uri);
		}
	}
	return 0;
failed:
	skep_fail(e, ECONNREFUSED, "%s.path: %s: %s", n->owner, n->uri,
		  n->lib.nbd_get_error() ? n->lib.nbd_get_error() : "no connection");
	drop(n);
	return -ECONNREFUSED;
}

static int attempt(struct nbd *n, const struct nbd_call *c);

/* The server is back: is it the same disk, and has it all that it had acknowledged? */
static int catch_up(struct nbd *n)
{
	struct nbd_call c = { 0 };
	struct kept *k;
	int err = 0;

	if ((uint64_t)n->lib.nbd_get_size(n->h) != n->im.size ||
	    (!n->im.read_only && n->lib.nbd_is_read_only(n->h) == 1)) {
		skep_say("skep: %s: %s came back as another disk, and is not used any more\n", n->owner,
			 n->uri);
		n->foreign = true;
		return -EIO;
	}
	for (k = n->kept; k && !err; k = k->next) {
		struct iovec v = { k->data, k->op == NBD_WRITE ? k->len : 0 };

		c = (struct nbd_call){ .op = k->op, .iov = &v, .niov = 1, .offset = k->offset,
				       .len = k->len };
		err = attempt(n, &c);
	}
	return err;
}

/* Waits a while; false: do not wait any longer. */
static bool wait_away(struct nbd *n, int64_t until, unsigned ms)
{
	struct timespec t;

	if (now_ns() + ms * 1000000ll > until)
		return false;
	clock_gettime(CLOCK_REALTIME, &t);
	t.tv_nsec += (long)ms * 1000000;
	t.tv_sec += t.tv_nsec / NSEC_PER_SEC;
	t.tv_nsec %= NSEC_PER_SEC;
	pthread_mutex_lock(&n->wait_lock);
	if (!atomic_load(&n->interrupted))
		pthread_cond_timedwait(&n->wait, &n->wait_lock, &t);
	pthread_mutex_unlock(&n->wait_lock);
	return !atomic_load(&n->interrupted);
}

/* n->lock.  0, -EIO, or -ECANCELED when interrupted. */
static int reconnect(struct nbd *n, int64_t until)
{
	struct skep_error e = { "" };
	unsigned ms = 20;
	int err;

	if (n->foreign)
		return -EIO;
	if (!n->away)
		skep_say("skep: %s: %s is gone; its requests wait for it up to %d s\n", n->owner, n->uri,
			 (int)(n->retry_ns / NSEC_PER_SEC));
	n->away = true;
	for (;;) {
		err = connect_once(n, &e);
		if (!err)
			err = catch_up(n);
		if (!err)
			break;
		drop(n);
		if (n->foreign)
			return -EIO;
		if (!wait_away(n, until, ms))
			return atomic_load(&n->interrupted) ? -ECANCELED : -EIO;
		ms = MIN(2 * ms, (unsigned)AWAY_MAX_MS);
	}
	n->away = false;
	skep_say("skep: %s: %s is back\n", n->owner, n->uri);
	return 0;
}

/* ---- Requests ---------------------------------------------------------- */

/* Sends one command; its cookie, or a negative errno. */
static int64_t send_piece(struct nbd *n, const struct nbd_call *c, void *at, uint64_t offset,
			  uint64_t len)
{
	const nbd_completion_callback none = { .callback = NULL };
	int64_t cookie = -1;

	switch (c->op) {
	case NBD_READ:
		cookie = n->lib.nbd_aio_pread(n->h, at, len, offset, none, 0);
		break;
	case NBD_WRITE:
		cookie = n->lib.nbd_aio_pwrite(n->h, at, len, offset, none, 0);
		break;
	case NBD_FLUSH:
		cookie = n->lib.nbd_aio_flush(n->h, none, 0);
		break;
	case NBD_TRIM:
		cookie = n->lib.nbd_aio_trim(n->h, len, offset, none, 0);
		break;
	case NBD_ZERO:
		cookie = n->lib.nbd_aio_zero(n->h, len, offset, none,
					     c->unmap ? 0 : LIBNBD_CMD_FLAG_NO_HOLE);
		break;
	}
	if (cookie >= 0)
		return cookie;
	return gone(n) ? -ENOTCONN : n->lib.nbd_get_errno() ? -n->lib.nbd_get_errno() : -EIO;
}

/* Waits for one command. */
static int await_piece(struct nbd *n, int64_t cookie, int64_t until)
{
	for (;;) {
		int r = n->lib.nbd_aio_command_completed(n->h, (uint64_t)cookie), err;

		if (r > 0)
			return 0;
		err = r < 0 ? n->lib.nbd_get_errno() : 0;
		/* A connection that has ended fails its commands with ENOTCONN. */
		if (gone(n) || err == ENOTCONN)
			return -ENOTCONN;
		if (r < 0)
			return err ? -err : -EIO;
		if (atomic_load(&n->interrupted))
			until = MIN(until, now_ns() + HURRY_NS);
		if (now_ns() > until)
			return -ENOTCONN;
		if (n->lib.nbd_poll(n->h, POLL_MS) < 0)
			return -ENOTCONN;
	}
}

#define PIECES	64

struct pieces {
	int64_t cookie[PIECES];
	unsigned n;
	int64_t until;
	int err;	/* the first one */
};

static void await_pieces(struct nbd *n, struct pieces *p)
{
	unsigned i;

	for (i = 0; i < p->n; i++) {
		int err = await_piece(n, p->cookie[i], p->until);

		if (err == -ENOTCONN || !p->err)
			p->err = err;
		/* Nothing more comes; what was sent ends with the connection. */
		if (err == -ENOTCONN)
			break;
	}
	p->n = 0;
}

static void add_piece(struct nbd *n, struct pieces *p, const struct nbd_call *c, void *at,
		      uint64_t offset, uint64_t len)
{
	int64_t cookie;

	if (p->n == PIECES)
		await_pieces(n, p);
	if (p->err)
		return;
	cookie = send_piece(n, c, at, offset, len);
	if (cookie < 0)
		p->err = (int)cookie;
	else
		p->cookie[p->n++] = cookie;
}

/* On a connection: 0, what the server says, or -ENOTCONN when it has ended. */
static int attempt(struct nbd *n, const struct nbd_call *c)
{
	int64_t patience = MAX(n->retry_ns, CONNECT_NS);
	struct pieces p = { .until = now_ns() + patience };
	uint64_t offset = c->offset, at;
	unsigned i;

	if (c->op == NBD_FLUSH)
		add_piece(n, &p, c, NULL, 0, 0);
	for (i = 0; i < c->niov && (c->op == NBD_READ || c->op == NBD_WRITE); i++)
		for (at = 0; at < c->iov[i].iov_len; at += PIECE_MAX) {
			uint64_t len = MIN(c->iov[i].iov_len - at, (uint64_t)PIECE_MAX);

			add_piece(n, &p, c, (uint8_t *)c->iov[i].iov_base + at, offset, len);
			offset += len;
		}
	for (at = 0; at < c->len && (c->op == NBD_TRIM || c->op == NBD_ZERO); at += ZERO_MAX)
		add_piece(n, &p, c, NULL, offset + at, MIN(c->len - at, (uint64_t)ZERO_MAX));
	await_pieces(n, &p);
	return p.err;
}

static void forget_kept(struct nbd *n)
{
	struct kept *k;

	while ((k = n->kept)) {
		n->kept = k->next;
		free(k);
	}
	n->kept_end = &n->kept;
	n->nkept = 0;
}

/* n->lock: until it is done, or nobody is to wait any longer. */
static int call_locked(struct nbd *n, const struct nbd_call *c)
{
	int64_t until = now_ns() + n->retry_ns;
	int err;

	do {
		err = n->h ? 0 : reconnect(n, until);
		if (err)
			return err;
		err = attempt(n, c);
		if (err == -ENOTCONN)
			drop(n);
	} while (err == -ENOTCONN);
	if (!err && c->op == NBD_FLUSH)
		forget_kept(n);
	return err;
}

/*
 * A write that is done, and is not kept: the server flushes it.  One that dies of that may have lost
 * it, so it is written again to the one that is there then.
 */
static int flush_now(struct nbd *n, const struct nbd_call *c)
{
	static const struct nbd_call flush = { .op = NBD_FLUSH };
	int err = attempt(n, &flush);

	while (err == -ENOTCONN) {
		drop(n);
		err = call_locked(n, c);
		if (!err)
			err = attempt(n, &flush);
	}
	if (!err)
		forget_kept(n);
	return err;
}

/* A write is done: it is kept until the server has flushed it. */
static int keep(struct nbd *n, const struct nbd_call *c)
{
	size_t data = c->op == NBD_WRITE ? (size_t)c->len : 0;
	struct kept *k;

	if (!n->can_flush || (c->op != NBD_WRITE && c->op != NBD_ZERO))
		return 0;
	k = n->sync || n->nkept + data > KEPT_MAX ? NULL : malloc(sizeof(*k) + data);
	if (!k)
		return flush_now(n, c);
	*k = (struct kept){ .op = c->op, .offset = c->offset, .len = c->len };
	iov_gather(k->data, c->iov, c->niov, data);
	*n->kept_end = k;
	n->kept_end = &k->next;
	n->nkept += data + sizeof(*k);
	return 0;
}

static int call(struct nbd *n, const struct nbd_call *c)
{
	int err;

	pthread_mutex_lock(&n->lock);
	err = call_locked(n, c);
	if (!err)
		err = keep(n, c);
	pthread_mutex_unlock(&n->lock);
	return err;
}

static int nbd_image_read(struct image *im, const struct iovec *iov, unsigned niov, uint64_t offset)
{
	const struct nbd_call c = { .op = NBD_READ, .iov = iov, .niov = niov, .offset = offset };

	return call(nbd_of(im), &c);
}

static int nbd_image_write(struct image *im, const struct iovec *iov, unsigned niov, uint64_t offset)
{
	const struct nbd_call c = { .op = NBD_WRITE, .iov = iov, .niov = niov, .offset = offset,
				    .len = iov_length(iov, niov) };

	return call(nbd_of(im), &c);
}

static int nbd_image_flush(struct image *im)
{
	const struct nbd_call c = { .op = NBD_FLUSH };

	return nbd_of(im)->can_flush ? call(nbd_of(im), &c) : 0;
}

static int nbd_image_zero(struct image *im, uint64_t offset, uint64_t len, bool unmap)
{
	struct nbd *n = nbd_of(im);
	const struct nbd_call c = { .op = NBD_ZERO, .offset = offset, .len = len, .unmap = unmap };
	struct iovec v;
	int err = 0;

	if (n->can_zero)
		return call(n, &c);
	v.iov_len = MIN(len, (uint64_t)PIECE_MAX);
	v.iov_base = calloc(1, v.iov_len);
	if (!v.iov_base)
		return -ENOMEM;
	while (len && !err) {
		v.iov_len = MIN(len, (uint64_t)PIECE_MAX);
		err = nbd_image_write(im, &v, 1, offset);
		offset += v.iov_len;
		len -= v.iov_len;
	}
	free(v.iov_base);
	return err;
}

static int nbd_image_discard(struct image *im, uint64_t offset, uint64_t len)
{
	const struct nbd_call c = { .op = NBD_TRIM, .offset = offset, .len = len };

	return nbd_of(im)->can_trim ? call(nbd_of(im), &c) : 0;
}

static void nbd_image_interrupt(struct image *im, bool on)
{
	struct nbd *n = nbd_of(im);

	pthread_mutex_lock(&n->wait_lock);
	atomic_store(&n->interrupted, on);
	pthread_cond_broadcast(&n->wait);
	pthread_mutex_unlock(&n->wait_lock);
}

static int nbd_image_refresh(struct image *im, struct skep_error *e)
{
	return skep_fail(e, ENOTSUP, "%s: an NBD server does not tell of a new size; start the machine "
			 "again", nbd_of(im)->owner);
}

static int nbd_image_grow(struct image *im, uint64_t size, struct skep_error *e)
{
	return nbd_image_refresh(im, e);
}

static int nbd_image_identify(struct image *im, struct image_identity *id, struct skep_error *e)
{
	*id = (struct image_identity){ .kind = IMAGE_UNKNOWN, .size = im->size };
	return 0;
}

static void nbd_image_close(struct image *im)
{
	struct nbd *n = nbd_of(im);

	if (n->h && n->kept) {
		n->retry_ns = 0;
		nbd_image_flush(im);
	}
	drop(n);
	forget_kept(n);
	if (n->lib.handle)
		dlclose(n->lib.handle);
	pthread_cond_destroy(&n->wait);
	pthread_mutex_destroy(&n->wait_lock);
	pthread_mutex_destroy(&n->lock);
	free(n->uri);
	free(n->owner);
	free(n);
}

static const struct image_ops nbd_ops = {
	.name = "nbd", .read = nbd_image_read, .write = nbd_image_write, .flush = nbd_image_flush,
	.zero = nbd_image_zero, .discard = nbd_image_discard, .interrupt = nbd_image_interrupt,
	.refresh = nbd_image_refresh, .grow = nbd_image_grow, .identify = nbd_image_identify, .close = nbd_image_close,
};

static int look_at_server(struct nbd *n, const struct image_options *o, struct skep_error *e)
{
	int64_t size = n->lib.nbd_get_size(n->h);

	if (size <= 0)
		return skep_fail(e, EINVAL, "%s.path: %s has no size", n->owner, n->uri);
	if (n->lib.nbd_is_read_only(n->h) == 1 && !o->read_only)
		return skep_fail(e, EROFS, "%s.path: %s is served read-only; open it with ro", n->owner,
				 n->uri);
	n->im.size = (uint64_t)size & ~(uint64_t)(IMAGE_SECTOR - 1);
	n->can_flush = n->lib.nbd_can_flush(n->h) == 1;
	n->can_trim = n->lib.nbd_can_trim(n->h) == 1;
	n->can_zero = n->lib.nbd_can_zero(n->h) == 1;
	n->im.can_discard = n->can_trim;
	return 0;
}

struct image *nbd_open(const struct image_options *o, struct skep_error *e)
{
	struct nbd *n = calloc(1, sizeof(*n));
	int err;

	if (!n) {
		skep_fail(e, ENOMEM, "%s: no memory for a disk", o->owner);
		return NULL;
	}
	pthread_mutex_init(&n->lock, NULL);
	pthread_mutex_init(&n->wait_lock, NULL);
	pthread_cond_init(&n->wait, NULL);
	n->kept_end = &n->kept;
	n->owner = strdup(o->owner);
	n->uri = strdup(o->path);
	n->retry_ns = o->retry_s * NSEC_PER_SEC;
	n->sync = o->sync;
	n->im = (struct image){ .ops = &nbd_ops, .name = n->uri, .read_only = o->read_only, .align = 1,
				.threads = 1, .physical = 4096, .fd = -1 };
	err = n->owner && n->uri ? 0 : skep_fail(e, ENOMEM, "%s: no memory for a disk", o->owner);
	if (!err)
		err = load_library(&n->lib, o->owner, e);
	if (!err)
		err = connect_once(n, e);
	if (!err)
		err = look_at_server(n, o, e);
	if (!err)
		return &n->im;
	nbd_image_close(&n->im);
	return NULL;
}
