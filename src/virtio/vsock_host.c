/*
 * The host's side of virtio-vsock: a Unix stream socket for each connection.
 *
 * What a guest can make us keep is bounded: CONNECTIONS_MAX of them, and what it may send ahead of
 * the host's reader is what we give it credit for (5.10.6.3); one that sends more is cut off.
 */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/util.h"
#include "virtio/vsock.h"
#include "vm/vm.h"

#define CONNECTIONS_MAX	256u
#define BUFFER		(128u * 1024)	/* bytes of credit for each of the guest's connections */
#define FIRST_PORT	0x40000000u	/* of the host's ends */
#define LINE_MAX_	32u		/* "CONNECT 4294967295\n" and some */

enum connection_state {
	READING_LINE,	/* from the host: which port? */
	REQUESTED,	/* the guest has not answered yet */
	CONNECTED,
};

struct connection {
	struct vsock_host *host;
	enum connection_state state;
	int fd;
	struct loop_watch *watch;
	uint32_t events;
	uint32_t host_port, guest_port;
	char line[LINE_MAX_ + 1];	/* READING_LINE: as much as there is of it */
	size_t line_len;

	/* To the host: bytes that its socket has not taken. */
	uint8_t *out;
	size_t out_head, out_len;
	uint32_t received, forwarded;	/* counts of 5.10.6.3, modulo 2^32 */
	uint32_t told;			/* forwarded, as the guest knows it */
	bool guest_done, host_done;	/* nothing more will be sent; nothing more will be read */
	bool no_reader;			/* the guest reads no more */

	/* To the guest. */
	uint32_t sent, peer_alloc, peer_forwarded;
	struct connection *next;
};

struct vsock_host {
	struct vm *vm;
	char owner[32];
	char path[sizeof(((struct sockaddr_un *)0)->sun_path)];
	dev_t dev;
	ino_t ino;
	int listener;
	struct loop_watch *listen_watch;
	bool listening, standing;
	struct connection *connections;
	unsigned count;
	uint32_t next_port;
	const struct vsock_receiver *receiver;
	void *opaque;
};

static bool held(const struct vsock_host *h)
{
	return h->standing || vm_suspended(h->vm);
}

static bool room(const struct vsock_host *h)
{
	return !held(h) && h->receiver->room(h->opaque);
}

/* ---- Packets ------------------------------------------------------------- */

static void tell(struct connection *c, enum vsock_op op, uint32_t flags, const uint8_t *data,
		 uint32_t len)
{
	struct vsock_packet p = {
		.src_port = c->host_port, .dst_port = c->guest_port, .len = len,
		.type = VSOCK_STREAM, .op = (uint16_t)op, .flags = flags,
		.buf_alloc = BUFFER, .fwd_cnt = c->forwarded,
	};

	c->told = c->forwarded;
	c->host->receiver->packet(c->host->opaque, &p, data);
}

/* To a packet that belongs to no connection. */
static void refuse(struct vsock_host *h, const struct vsock_packet *to)
{
	struct vsock_packet p = {
		.src_port = to->dst_port, .dst_port = to->src_port, .type = to->type, .op = VSOCK_RST,
	};

	if (to->op != VSOCK_RST)
		h->receiver->packet(h->opaque, &p, NULL);
}

/* ---- Connections --------------------------------------------------------- */

static void update_watch(struct connection *c);
static void update_listening(struct vsock_host *h);

static struct connection *find(struct vsock_host *h, const struct vsock_packet *p)
{
	struct connection *c = h->connections;

	while (c && (c->host_port != p->dst_port || c->guest_port != p->src_port ||
		     c->state == READING_LINE))
		c = c->next;
	return c;
}

static bool port_taken(const struct vsock_host *h, uint32_t port)
{
	for (const struct connection *c = h->connections; c; c = c->next)
		if (c->host_port == port)
			return true;
	return false;
}

static uint32_t new_port(struct vsock_host *h)
{
	do
		h->next_port = h->next_port < FIRST_PORT ? FIRST_PORT : h->next_port + 1;
	while (port_taken(h, h->next_port));
	return h->next_port;
}

/* Takes fd; NULL: there are too many. */
static struct connection *add(struct vsock_host *h, int fd, enum connection_state state)
{
	struct connection *c = h->count < CONNECTIONS_MAX ? calloc(1, sizeof(*c)) : NULL;

	if (!c) {
		close(fd);
		return NULL;
	}
	c->host = h;
	c->fd = fd;
	c->state = state;
	c->next = h->connections;
	h->connections = c;
	h->count++;
	return c;
}

static void end(struct connection *c)
{
	struct connection **p = &c->host->connections;

	while (*p != c)
		p = &(*p)->next;
	*p = c->next;
	c->host->count--;
	loop_unwatch(c->watch);
	close(c->fd);
	free(c->out);
	update_listening(c->host);
	free(c);
}

static void cut_off(struct connection *c)
{
	if (c->state != READING_LINE)
		tell(c, VSOCK_RST, 0, NULL, 0);
	end(c);
}

/* ---- To the host --------------------------------------------------------- */

/* False: the connection is gone. */
static bool flush(struct connection *c)
{
	while (c->out_len) {
		ssize_t n = send(c->fd, c->out + c->out_head, c->out_len, MSG_NOSIGNAL | MSG_DONTWAIT);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN)
			break;
		if (n < 0) {
			cut_off(c);
			return false;
		}
		c->out_head += (size_t)n;
		c->out_len -= (size_t)n;
		c->forwarded += (uint32_t)n;
	}
	if (!c->out_len) {
		c->out_head = 0;
		if (c->guest_done)
			shutdown(c->fd, SHUT_WR);
		if (c->guest_done && c->no_reader) {
			cut_off(c);	/* 5.10.6.6: the answer to a full shutdown */
			return false;
		}
	}
	/* Before the guest runs out of credit, and not for every byte. */
	if (c->forwarded - c->told >= BUFFER / 4)
		tell(c, VSOCK_CREDIT_UPDATE, 0, NULL, 0);
	return true;
}

static void take_data(struct connection *c, const struct vsock_packet *p, const uint8_t *data)
{
	if (p->len > BUFFER - (c->received - c->forwarded) || c->guest_done) {
		cut_off(c);
		return;
	}
	if (!c->out)
		c->out = malloc(BUFFER);
	if (!c->out) {
		cut_off(c);
		return;
	}
	if (c->out_head + c->out_len + p->len > BUFFER) {
		memmove(c->out, c->out + c->out_head, c->out_len);
		c->out_head = 0;
	}
	memcpy(c->out + c->out_head + c->out_len, data, p->len);
	c->out_len += p->len;
	c->received += p->len;
	if (flush(c))
		update_watch(c);
}

static void take_shutdown(struct connection *c, const struct vsock_packet *p)
{
	c->guest_done |= !!(p->flags & VSOCK_NO_SEND);
	c->no_reader |= !!(p->flags & VSOCK_NO_RECEIVE);
	if (flush(c))
		update_watch(c);
}

static void take_response(struct connection *c)
{
	char line[LINE_MAX_];
	int len = snprintf(line, sizeof(line), "OK %u\n", c->host_port);

	if (c->state != REQUESTED) {
		cut_off(c);
		return;
	}
	c->state = CONNECTED;
	/* A new socket's buffer has room for a line, or nobody is there. */
	if (send(c->fd, line, (size_t)len, MSG_NOSIGNAL | MSG_DONTWAIT) != len)
		cut_off(c);
	else
		update_watch(c);
}

static void take_request(struct vsock_host *h, const struct vsock_packet *p)
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	struct connection *c;
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	if (fd < 0 || snprintf(sa.sun_path, sizeof(sa.sun_path), "%s_%u", h->path, p->dst_port) >=
		      (int)sizeof(sa.sun_path) ||
	    connect(fd, (const struct sockaddr *)&sa, sizeof(sa)) < 0) {
		if (fd >= 0)
			close(fd);
		refuse(h, p);
		return;
	}
	c = add(h, fd, CONNECTED);
	if (!c) {
		refuse(h, p);
		return;
	}
	c->host_port = p->dst_port;
	c->guest_port = p->src_port;
	c->peer_alloc = p->buf_alloc;
	c->peer_forwarded = p->fwd_cnt;
	tell(c, VSOCK_RESPONSE, 0, NULL, 0);
	update_watch(c);
}

void vsock_host_packet(struct vsock_host *h, const struct vsock_packet *p, const uint8_t *data)
{
	struct connection *c = p->type == VSOCK_STREAM ? find(h, p) : NULL;

	if (!c) {
		if (p->op == VSOCK_REQUEST && p->type == VSOCK_STREAM)
			take_request(h, p);
		else
			refuse(h, p);
		return;
	}
	c->peer_alloc = p->buf_alloc;
	c->peer_forwarded = p->fwd_cnt;
	switch (p->op) {
	case VSOCK_RW: take_data(c, p, data); break;
	case VSOCK_SHUTDOWN: take_shutdown(c, p); break;
	case VSOCK_RESPONSE: take_response(c); break;
	case VSOCK_RST: end(c); break;
	case VSOCK_CREDIT_REQUEST: tell(c, VSOCK_CREDIT_UPDATE, 0, NULL, 0); break;
	case VSOCK_CREDIT_UPDATE: update_watch(c); break;
	default: cut_off(c); break;	/* a second request among them */
	}
}

/* ---- From the host ------------------------------------------------------- */

/* What the guest has room for.  A peer whose counts are nonsense has none. */
static uint32_t credit(const struct connection *c)
{
	uint32_t used = c->sent - c->peer_forwarded;

	return used < c->peer_alloc ? c->peer_alloc - used : 0;
}

static bool reads(const struct connection *c)
{
	return c->state == READING_LINE ||
	       (c->state == CONNECTED && !c->host_done && !c->no_reader && credit(c));
}

/* It sends no more; if it has closed its socket altogether it reads no more, either. */
static void host_closed(struct connection *c)
{
	struct pollfd p = { .fd = c->fd };
	bool gone = poll(&p, 1, 0) == 1 && (p.revents & POLLHUP);

	c->host_done = true;
	tell(c, VSOCK_SHUTDOWN, VSOCK_NO_SEND | (gone ? VSOCK_NO_RECEIVE : 0), NULL, 0);
	update_watch(c);
}

static void read_data(struct connection *c)
{
	uint8_t data[VSOCK_HOST_DATA];
	ssize_t n = recv(c->fd, data, MIN((uint32_t)sizeof(data), credit(c)), MSG_DONTWAIT);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n < 0) {
		cut_off(c);
		return;
	}
	if (!n) {
		host_closed(c);
		return;
	}
	c->sent += (uint32_t)n;
	tell(c, VSOCK_RW, 0, data, (uint32_t)n);
	update_watch(c);
}

/* "CONNECT port\n": what follows it stays in the socket. */
static void read_line(struct connection *c)
{
	char *line = c->line, *at = line + c->line_len, *newline, *end_;
	ssize_t n = recv(c->fd, at, LINE_MAX_ - c->line_len, MSG_PEEK | MSG_DONTWAIT);
	unsigned long port;

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	newline = n > 0 ? memchr(at, '\n', (size_t)n) : NULL;
	/* The rest is to come; what there is would be told of again and again. */
	if (n > 0 && !newline && c->line_len + (size_t)n < LINE_MAX_) {
		n = recv(c->fd, at, (size_t)n, MSG_DONTWAIT);
		c->line_len += (size_t)MAX(n, 0);
		return;
	}
	if (!newline || strncmp(line, "CONNECT ", 8) || line[8] < '0' || line[8] > '9') {
		end(c);
		return;
	}
	*newline = '\0';
	port = strtoul(line + 8, &end_, 10);
	if (end_ != newline || port > UINT32_MAX ||
	    recv(c->fd, at, (size_t)(newline - at) + 1, MSG_DONTWAIT) < 0) {
		end(c);
		return;
	}
	c->guest_port = (uint32_t)port;
	c->host_port = new_port(c->host);
	c->state = REQUESTED;
	tell(c, VSOCK_REQUEST, 0, NULL, 0);
	update_watch(c);
}

static void on_socket(void *opaque, uint32_t events)
{
	struct connection *c = opaque;

	if (held(c->host) || (c->out_len && !flush(c)))
		return;
	if (!room(c->host) || !(events & ~EPOLLOUT))
		update_watch(c);
	else if (c->state == READING_LINE)
		read_line(c);
	else if (reads(c))
		read_data(c);
	else
		update_watch(c);
}

/*
 * A socket for which there is nothing to do now is not watched at all: epoll would tell again and
 * again that its peer has left.
 */
static void update_watch(struct connection *c)
{
	uint32_t want = (reads(c) && room(c->host) ? EPOLLIN : 0) | (c->out_len ? EPOLLOUT : 0);
	struct skep_error e;

	if (held(c->host))
		want = 0;
	if (want == c->events)
		return;
	c->events = want;
	if (!want) {
		loop_unwatch(c->watch);
		c->watch = NULL;
	} else if (c->watch) {
		loop_set_events(c->watch, want);
	} else {
		c->watch = loop_watch(c->host->vm, c->fd, want, on_socket, c, &e);
		if (!c->watch)
			vm_request_error(c->host->vm, "%s: %s", c->host->owner, e.text);
	}
}

/* ---- Who connects -------------------------------------------------------- */

static void update_listening(struct vsock_host *h)
{
	bool want = !held(h) && h->count < CONNECTIONS_MAX;

	if (h->listen_watch && want != h->listening)
		loop_set_events(h->listen_watch, want ? EPOLLIN : 0);
	h->listening = want;
}

static void on_connection(void *opaque, uint32_t events)
{
	struct vsock_host *h = opaque;
	int fd = accept4(h->listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	struct connection *c = fd < 0 ? NULL : add(h, fd, READING_LINE);

	if (c)
		update_watch(c);
	update_listening(h);
}

void vsock_host_accept(struct vsock_host *h)
{
	for (struct connection *c = h->connections; c; c = c->next)
		update_watch(c);
}

void vsock_host_reset(struct vsock_host *h)
{
	while (h->connections)
		end(h->connections);
}

unsigned vsock_host_connections(const struct vsock_host *h)
{
	unsigned n = 0;

	/* Those of which the guest has heard. */
	for (const struct connection *c = h->connections; c; c = c->next)
		n += c->state != READING_LINE;
	return n;
}

void vsock_host_quiesce(struct vsock_host *h)
{
	h->standing = true;
	vsock_host_accept(h);
	update_listening(h);
}

void vsock_host_resume(struct vsock_host *h)
{
	h->standing = false;
	vsock_host_accept(h);
	update_listening(h);
}

/* ---- Begin and end ------------------------------------------------------- */

static int listen_at(struct vsock_host *h, const char *path, struct skep_error *e)
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	struct stat st;
	int probe;

	memcpy(sa.sun_path, path, strlen(path));
	probe = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	/* A socket that refuses is left over from somebody who is no more. */
	if (probe >= 0 && connect(probe, (const struct sockaddr *)&sa, sizeof(sa)) < 0 &&
	    errno == ECONNREFUSED && lstat(path, &st) == 0 && S_ISSOCK(st.st_mode))
		unlink(path);
	if (probe >= 0)
		close(probe);
	h->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (h->listener < 0 || fchmod(h->listener, 0600) < 0 ||
	    bind(h->listener, (const struct sockaddr *)&sa, sizeof(sa)) < 0)
		return skep_fail(e, errno, "%s.path: cannot make the socket '%s': %s", h->owner, path,
				 strerror(errno));
	memcpy(h->path, sa.sun_path, sizeof(h->path));
	if (lstat(path, &st) == 0) {
		h->dev = st.st_dev;
		h->ino = st.st_ino;
	}
	if (listen(h->listener, 16) < 0)
		return skep_fail(e, errno, "%s.path: cannot listen on '%s': %s", h->owner, path,
				 strerror(errno));
	h->listen_watch = loop_watch(h->vm, h->listener, EPOLLIN, on_connection, h, e);
	h->listening = true;
	return h->listen_watch ? 0 : -EIO;
}

struct vsock_host *vsock_host_create(struct vm *vm, const char *owner, const char *path,
				     const struct vsock_receiver *r, void *opaque,
				     struct skep_error *e)
{
	struct vsock_host *h;

	/* "_" and a port's ten digits come behind it. */
	if (!*path || strlen(path) + 11 >= sizeof(h->path)) {
		skep_fail(e, ENAMETOOLONG, "%s.path: a socket's name has 1 to %zu bytes here, '%s' has %zu",
			  owner, sizeof(h->path) - 12, path, strlen(path));
		return NULL;
	}
	h = calloc(1, sizeof(*h));
	if (!h) {
		skep_fail(e, ENOMEM, "%s: out of memory", owner);
		return NULL;
	}
	h->vm = vm;
	h->listener = -1;
	h->receiver = r;
	h->opaque = opaque;
	snprintf(h->owner, sizeof(h->owner), "%s", owner);
	if (listen_at(h, path, e) < 0) {
		vsock_host_destroy(h);
		return NULL;
	}
	return h;
}

void vsock_host_destroy(struct vsock_host *h)
{
	struct stat st;

	if (!h)
		return;
	vsock_host_reset(h);
	loop_unwatch(h->listen_watch);
	if (h->listener >= 0)
		close(h->listener);
	if (h->path[0] && lstat(h->path, &st) == 0 && st.st_dev == h->dev && st.st_ino == h->ino)
		unlink(h->path);
	free(h);
}
