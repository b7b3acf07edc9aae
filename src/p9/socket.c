/* 9P over a stream socket: see socket.h. */
#include "p9/socket.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/thread.h"
#include "base/util.h"

#define INFLIGHT_MIN	(4 * MiB)	/* bytes of messages and answers; or four of the largest */

struct item {
	struct p9_request r;
	struct p9_connection *c;
	struct item *next;		/* to be sent */
	unsigned refs;			/* connection lock: the server's, the sender's */
	size_t bytes;			/* what it counts for */
	struct iovec wdata, rdata;
	uint8_t *message;
};

struct p9_connection {
	struct p9_session *session;
	int fd;
	uint32_t msize;			/* of the server: no message is larger */
	pthread_t reader, writer;
	pthread_mutex_t lock;
	pthread_cond_t some;		/* something to send, or less in flight */
	struct item *first, **last;
	size_t bytes, bytes_max;	/* in flight */
	bool reading, broken;
	_Atomic bool over;
};

/* ---- items ------------------------------------------------------------- */

/* Connection lock held. */
static void item_put(struct item *i)
{
	struct p9_connection *c = i->c;

	if (--i->refs)
		return;
	c->bytes -= i->bytes;
	pthread_cond_broadcast(&c->some);
	free(i->rdata.iov_base);
	free(i->message);
	free(i);
}

static void answer(struct p9_request *r)
{
	struct item *i = container_of(r, struct item, r);
	struct p9_connection *c = i->c;

	pthread_mutex_lock(&c->lock);
	if (r->reply_len) {
		i->refs++;
		i->next = NULL;
		*c->last = i;
		c->last = &i->next;
		pthread_cond_broadcast(&c->some);
	}
	pthread_mutex_unlock(&c->lock);
}

static void release(struct p9_request *r)
{
	struct item *i = container_of(r, struct item, r);
	struct p9_connection *c = i->c;

	pthread_mutex_lock(&c->lock);
	item_put(i);
	pthread_mutex_unlock(&c->lock);
}

/* ---- sending ----------------------------------------------------------- */

static bool send_all(int fd, struct iovec *v, unsigned n)
{
	while (n) {
		struct msghdr m = { .msg_iov = v, .msg_iovlen = n };
		ssize_t got = sendmsg(fd, &m, MSG_NOSIGNAL);

		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return false;
		while (n && (size_t)got >= v->iov_len) {
			got -= (ssize_t)v->iov_len;
			v++;
			n--;
		}
		if (n) {
			v->iov_base = (uint8_t *)v->iov_base + got;
			v->iov_len -= (size_t)got;
		}
	}
	return true;
}

static void *writer(void *opaque)
{
	struct p9_connection *c = opaque;

	pthread_mutex_lock(&c->lock);
	for (;;) {
		struct item *i = c->first;
		struct iovec v[2];
		bool sent = false;

		if (!i && !c->reading && !c->bytes)
			break;
		if (!i) {
			pthread_cond_wait(&c->some, &c->lock);
			continue;
		}
		c->first = i->next;
		if (!c->first)
			c->last = &c->first;
		v[0] = (struct iovec){ i->r.reply, i->r.reply_len };
		v[1] = (struct iovec){ i->rdata.iov_base, i->r.data };
		if (!c->broken) {
			pthread_mutex_unlock(&c->lock);
			sent = send_all(c->fd, v, v[1].iov_len ? 2 : 1);
			pthread_mutex_lock(&c->lock);
		}
		if (!sent && !c->broken) {
			c->broken = true;
			shutdown(c->fd, SHUT_RDWR);
		}
		item_put(i);
	}
	pthread_mutex_unlock(&c->lock);
	atomic_store(&c->over, true);
	return NULL;
}

/* ---- receiving --------------------------------------------------------- */

static bool receive(int fd, void *buf, size_t n)
{
	while (n) {
		ssize_t got = recv(fd, buf, n, 0);

		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0)
			return false;
		buf = (uint8_t *)buf + got;
		n -= (size_t)got;
	}
	return true;
}

/* Waits until this much more may be in flight. */
static bool reserve(struct p9_connection *c, size_t bytes)
{
	bool good;

	pthread_mutex_lock(&c->lock);
	while (c->bytes && c->bytes + bytes > c->bytes_max && !c->broken)
		pthread_cond_wait(&c->some, &c->lock);
	good = !c->broken;
	if (good)
		c->bytes += bytes;
	pthread_mutex_unlock(&c->lock);
	return good;
}

/* What the answer's data may want. */
static size_t data_room(const struct item *i, uint32_t msize)
{
	uint8_t type = i->message[4];

	if ((type != P9_TREAD && type != P9_TREADDIR) || i->r.len < P9_HEAD + 16)
		return 0;
	return MIN(load32(i->message + P9_HEAD + 12), msize - P9_READ_HEAD);
}

static bool next_message(struct p9_connection *c, uint32_t size, const uint8_t head[P9_HEAD])
{
	struct item *i = calloc(1, sizeof(*i));
	size_t room, bytes = sizeof(*i) + size;

	if (i)
		i->message = malloc(size);
	if (!i || !i->message) {
		free(i);
		return false;
	}
	memcpy(i->message, head, P9_HEAD);
	i->c = c;
	i->r = (struct p9_request){ .session = c->session, .message = i->message, .len = size,
				    .reply_room = c->msize, .answer = answer, .release = release };
	if (!receive(c->fd, i->message + P9_HEAD, size - P9_HEAD))
		goto gone;
	room = data_room(i, p9_session_msize(c->session));
	bytes += room;
	if (room && !(i->rdata.iov_base = malloc(room)))
		goto gone;
	i->rdata.iov_len = room;
	i->r.rdata = &i->rdata;
	i->r.nrdata = 1;
	if (i->message[4] == P9_TWRITE && size >= P9_WRITE_HEAD) {
		i->r.len = P9_WRITE_HEAD;
		i->wdata = (struct iovec){ i->message + P9_WRITE_HEAD, size - P9_WRITE_HEAD };
		i->r.wdata = &i->wdata;
		i->r.nwdata = 1;
	}
	if (!reserve(c, bytes))
		goto gone;
	i->bytes = bytes;
	i->refs = 1;
	p9_submit(&i->r);
	return true;
gone:
	free(i->rdata.iov_base);
	free(i->message);
	free(i);
	return false;
}

/* A size that cannot be is the end: nobody knows where the next message begins. */
static void *reader(void *opaque)
{
	struct p9_connection *c = opaque;
	uint8_t head[P9_HEAD];
	uint32_t size;

	do {
		if (!receive(c->fd, head, sizeof(head)))
			break;
		size = load32(head);
	} while (size >= P9_HEAD && size <= p9_session_msize(c->session) &&
		 next_message(c, size, head));
	shutdown(c->fd, SHUT_RD);
	pthread_mutex_lock(&c->lock);
	c->reading = false;
	pthread_cond_broadcast(&c->some);
	pthread_mutex_unlock(&c->lock);
	p9_session_drain(c->session);
	/* What has been answered is sent; then the client hears that this is the end. */
	pthread_mutex_lock(&c->lock);
	while (c->bytes && !c->broken)
		pthread_cond_wait(&c->some, &c->lock);
	pthread_mutex_unlock(&c->lock);
	shutdown(c->fd, SHUT_RDWR);
	return NULL;
}

/* ---- connections ------------------------------------------------------- */

struct p9_connection *p9_connection_start(struct p9_server *s, uint32_t msize, int fd,
					  struct skep_error *e)
{
	struct p9_connection *c = calloc(1, sizeof(*c));
	int err = 0;

	if (c)
		c->session = p9_session_create(s);
	if (!c || !c->session) {
		free(c);
		close(fd);
		skep_fail(e, ENOMEM, "no memory for a connection");
		return NULL;
	}
	c->fd = fd;
	c->msize = msize;
	c->bytes_max = MAX(INFLIGHT_MIN, 4ull * msize);
	c->last = &c->first;
	c->reading = true;
	pthread_mutex_init(&c->lock, NULL);
	pthread_cond_init(&c->some, NULL);
	err = thread_start(&c->writer, writer, c);
	if (!err) {
		err = thread_start(&c->reader, reader, c);
		if (!err)
			return c;
		pthread_mutex_lock(&c->lock);
		c->reading = false;
		pthread_cond_broadcast(&c->some);
		pthread_mutex_unlock(&c->lock);
		pthread_join(c->writer, NULL);
	}
	skep_fail(e, -err, "cannot start a thread: %s", strerror(-err));
	p9_session_destroy(c->session);
	close(fd);
	free(c);
	return NULL;
}

bool p9_connection_over(const struct p9_connection *c)
{
	return atomic_load(&c->over);
}

void p9_connection_end(struct p9_connection *c)
{
	pthread_mutex_lock(&c->lock);
	c->broken = true;
	shutdown(c->fd, SHUT_RDWR);
	pthread_cond_broadcast(&c->some);
	pthread_mutex_unlock(&c->lock);
	pthread_join(c->reader, NULL);
	pthread_join(c->writer, NULL);
	p9_session_destroy(c->session);
	close(c->fd);
	pthread_cond_destroy(&c->some);
	pthread_mutex_destroy(&c->lock);
	free(c);
}

struct p9_session *p9_connection_session(struct p9_connection *c)
{
	return c->session;
}
