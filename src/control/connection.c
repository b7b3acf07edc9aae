/* A client of the control socket: lines in, lines out, and neither without a bound. */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/util.h"
#include "control/internal.h"

#define FDS_MAX 8	/* room for what a client may try to pass at once; one is kept */

struct connection *connection_create(struct control *c, int fd)
{
	struct connection *n = malloc(sizeof(*n));

	if (!n) {
		close(fd);
		return NULL;
	}
	/* Not the input: pages of it that are never used cost nothing. */
	memset(n, 0, offsetof(struct connection, in));
	n->control = c;
	n->fd = fd;
	n->passed = -1;
	return n;
}

void connection_destroy(struct connection *n)
{
	if (n->passed >= 0)
		close(n->passed);
	close(n->fd);
	free(n->out);
	free(n);
}

short connection_events(const struct connection *n)
{
	short events = connection_busy(n) ? POLLOUT : 0;

	/* Who does not take replies gets no more of them. */
	if (!n->ended && n->out_len - n->out_at < CONTROL_OUT_PAUSE)
		events |= POLLIN;
	return events;
}

/* ---- Output ---------------------------------------------------------- */

static void flush(struct connection *n)
{
	while (!n->dead && connection_busy(n)) {
		ssize_t k = send(n->fd, n->out + n->out_at, n->out_len - n->out_at,
				 MSG_NOSIGNAL | MSG_DONTWAIT);

		if (k < 0 && errno == EINTR)
			continue;
		if (k < 0 && errno != EAGAIN)
			n->dead = true;
		if (k < 0)
			break;
		n->out_at += k;
		n->stuck_since = 0;
	}
	if (!connection_busy(n)) {
		n->out_at = n->out_len = 0;
		n->stuck_since = 0;
		if (n->ended)
			n->dead = true;
	} else if (!n->stuck_since) {
		n->stuck_since = control_now();
	}
}

/* Room for len bytes more; false: there is none, and the client is dropped. */
static bool reserve(struct connection *n, size_t len)
{
	char *p;

	if (n->out_at) {
		memmove(n->out, n->out + n->out_at, n->out_len - n->out_at);
		n->out_len -= n->out_at;
		n->out_at = 0;
	}
	if (n->out_len + len <= n->out_cap)
		return true;
	if (n->out_len + len > CONTROL_OUT_MAX)
		return false;
	p = realloc(n->out, n->out_len + len + 4096);
	if (!p)
		return false;
	n->out = p;
	n->out_cap = n->out_len + len + 4096;
	return true;
}

void connection_send(struct connection *n, json_t *line)
{
	char *text = line ? json_dumps(line, JSON_COMPACT) : NULL;
	size_t len = text ? strlen(text) : 0;

	json_decref(line);
	if (n->dead) {
		free(text);
		return;
	}
	if (!text || !reserve(n, len + 1)) {
		n->dead = true;
	} else {
		memcpy(n->out + n->out_len, text, len);
		n->out[n->out_len + len] = '\n';
		n->out_len += len + 1;
		flush(n);
	}
	free(text);
}

void connection_reply(struct connection *n, json_t *id, json_t *value)
{
	json_t *line = json_pack("{s:o}", "return", value ? value : json_object());

	if (line && id)
		json_object_set(line, "id", id);
	connection_send(n, line);
}

void connection_fail(struct connection *n, json_t *id, int err, const char *text)
{
	const char *name = strerrorname_np(err);
	json_t *line = json_pack("{s:{s:o,s:s}}", "error", "text", control_text(text), "errno",
				 name ? name : "EIO");

	if (line && id)
		json_object_set(line, "id", id);
	connection_send(n, line);
}

/* ---- Input ----------------------------------------------------------- */

static void take_fds(struct connection *n, struct msghdr *msg)
{
	for (struct cmsghdr *m = CMSG_FIRSTHDR(msg); m; m = CMSG_NXTHDR(msg, m)) {
		size_t count;
		int fd;

		if (m->cmsg_level != SOL_SOCKET || m->cmsg_type != SCM_RIGHTS)
			continue;
		count = (m->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		for (size_t i = 0; i < count; i++) {
			memcpy(&fd, CMSG_DATA(m) + i * sizeof(int), sizeof(fd));
			if (n->passed < 0)
				n->passed = fd;
			else
				close(fd);
		}
	}
}

static ssize_t receive(struct connection *n, void *buf, size_t len)
{
	union {
		char space[CMSG_SPACE(FDS_MAX * sizeof(int))];
		struct cmsghdr align;
	} control;
	struct iovec iov = { buf, len };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.space,
			      .msg_controllen = sizeof(control.space) };
	ssize_t k = recvmsg(n->fd, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);

	if (k >= 0)
		take_fds(n, &msg);
	return k;
}

static void too_long(struct connection *n)
{
	n->skipping = true;
	n->in_len = n->searched = 0;
	connection_fail(n, NULL, EMSGSIZE, "a request is one line of at most 65536 bytes; the rest of "
			"this one is skipped");
}

/* Serves the lines that are whole, as long as their replies are taken. */
static void serve_lines(struct connection *n)
{
	while (!n->dead && n->out_len - n->out_at < CONTROL_OUT_PAUSE) {
		char *nl = memchr(n->in + n->searched, '\n', n->in_len - n->searched);
		size_t len;

		if (!nl) {
			n->searched = n->in_len;
			if (n->skipping)
				n->in_len = n->searched = 0;
			else if (n->in_len == sizeof(n->in))
				too_long(n);
			return;
		}
		len = nl - n->in;
		if (!n->skipping && len)
			control_serve(n, n->in, len);
		n->skipping = false;
		n->in_len -= len + 1;
		n->searched = 0;
		memmove(n->in, nl + 1, n->in_len);
	}
}

static void read_some(struct connection *n)
{
	ssize_t k = receive(n, n->in + n->in_len, sizeof(n->in) - n->in_len);

	if (k < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (k < 0) {
		n->dead = true;
		return;
	}
	if (k == 0) {
		/* It may have closed one direction only, and wait for its replies. */
		n->ended = true;
		saving_forget(n->control, n);
		flush(n);
		return;
	}
	n->in_len += k;
}

void connection_ready(struct connection *n, short revents)
{
	if (revents & POLLNVAL)
		n->dead = true;
	if (revents & POLLOUT)
		flush(n);
	/* What it sent before it left is not served when it cannot hear the replies. */
	if ((revents & (POLLERR | POLLHUP)) && !(revents & POLLIN))
		n->dead = true;
	if (!n->dead && !n->ended && (revents & POLLIN) && n->in_len < sizeof(n->in))
		read_some(n);
	if (!n->dead && !n->ended)
		serve_lines(n);
}
