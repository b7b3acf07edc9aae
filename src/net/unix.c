/*
 * unix:/path: the wire to one other machine, a Unix stream socket.
 *
 * Each frame has its length in front of it, four bytes in network order, which is what QEMU's
 * "-netdev stream" and passt speak.  Both ends are given the same path: the first one listens
 * there, the second one connects; whoever is left when the other goes listens again, or finds
 * somebody who does.  While nobody is at the other end the link is down and frames
 * vanish.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/timerfd.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/util.h"
#include "net/backend.h"
#include "vm/vm.h"

#define PREFIX		4u
#define OUT_LIMIT	1u			/* the kernel's buffer is full: the guest waits */
#define OUT_LIMIT_VIRTUAL (1u << 20)		/* clock=virtual: the guest cannot wait */
#define IN_SIZE		(PREFIX + NET_FRAME_MAX)
#define RETRY_NS	200000000		/* to look again for somebody at the path */

struct unix_backend {
	struct net_backend base;
	struct sockaddr_un path;
	int listener, peer, timer;
	struct loop_watch *listen_watch, *peer_watch, *timer_watch;
	uint32_t events;
	dev_t dev;		/* of our own socket at the path */
	ino_t ino;

	uint8_t *out;		/* out_len bytes from out_head on are to be sent */
	size_t out_head, out_len, out_cap;
	size_t first_left;	/* bytes of the first frame that are to be sent; 0: none */
	size_t first_len;	/* and of all of it, with its prefix */
	uint8_t in[IN_SIZE];
	size_t in_len;
};

static struct unix_backend *unix_of(const struct net_backend *b)
{
	return container_of(b, struct unix_backend, base);
}

static void look_for_peer(struct unix_backend *u);
static void on_peer(void *opaque, uint32_t events);

static void set_timer(struct unix_backend *u, int64_t ns)
{
	struct itimerspec t = { .it_value = { ns / NSEC_PER_SEC, ns % NSEC_PER_SEC } };

	timerfd_settime(u->timer, 0, &t, NULL);
}

/* ---- Output -------------------------------------------------------------- */

static size_t limit(const struct unix_backend *u)
{
	return u->base.vm->clock.mode == CLOCK_MODE_VIRTUAL ? OUT_LIMIT_VIRTUAL : OUT_LIMIT;
}

static void update_watch(struct unix_backend *u)
{
	bool held = net_held(&u->base);
	uint32_t want = held ? 0 : (net_room(&u->base) ? EPOLLIN : 0) |
				   (u->out_len ? EPOLLOUT : 0);

	struct skep_error e;

	if (u->peer < 0 || want == u->events)
		return;
	u->events = want;
	/* Not watched at all while nothing is wanted: epoll would tell again and again that it left. */
	if (!want) {
		loop_unwatch(u->peer_watch);
		u->peer_watch = NULL;
	} else if (u->peer_watch) {
		loop_set_events(u->peer_watch, want);
	} else {
		u->peer_watch = loop_watch(u->base.vm, u->peer, want, on_peer, u, &e);
		if (!u->peer_watch)
			vm_request_error(u->base.vm, "%s: %s", u->base.owner, e.text);
	}
}

static void peer_gone(struct unix_backend *u)
{
	loop_unwatch(u->peer_watch);
	close(u->peer);
	u->peer_watch = NULL;
	u->peer = -1;
	u->events = 0;
	u->in_len = u->out_head = u->out_len = u->first_left = 0;
	net_set_link(&u->base, false);
	net_drained(&u->base);
	if (u->listener < 0)
		look_for_peer(u);
}

/* n bytes have gone: whose frame stands at the head now? */
static void sent(struct unix_backend *u, size_t n)
{
	while (n) {
		size_t part;

		if (!u->first_left)
			u->first_left = u->first_len = PREFIX + be32(u->out + u->out_head);
		part = MIN(n, u->first_left);
		u->first_left -= part;
		u->out_head += part;
		u->out_len -= part;
		n -= part;
	}
	if (!u->out_len)
		u->out_head = 0;	/* and first_left is 0 */
}

static void write_out(struct unix_backend *u)
{
	while (u->out_len) {
		ssize_t n = send(u->peer, u->out + u->out_head, u->out_len,
				 MSG_NOSIGNAL | MSG_DONTWAIT);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno != EAGAIN)
			peer_gone(u);
		if (n < 0)
			return;
		sent(u, (size_t)n);
	}
}

static bool make_room(struct unix_backend *u, size_t more)
{
	size_t cap = u->out_cap ? u->out_cap : 64 * 1024;
	uint8_t *p;

	if (u->out_head + u->out_len + more <= u->out_cap)
		return true;
	/* The bytes of a frame that is under way stay: unsent needs them. */
	if (u->out_head) {
		size_t keep = u->first_left ? u->first_len - u->first_left : 0;

		memmove(u->out, u->out + u->out_head - keep, keep + u->out_len);
		u->out_head = keep;
	}
	while (cap < u->out_head + u->out_len + more)
		cap *= 2;
	if (cap == u->out_cap)
		return true;
	p = realloc(u->out, cap);
	if (!p)
		return false;
	u->out = p;
	u->out_cap = cap;
	return true;
}

static bool unix_ready(struct net_backend *b)
{
	const struct unix_backend *u = unix_of(b);

	return u->peer < 0 || u->out_len < limit(u);
}

static void unix_send(struct net_backend *b, const uint8_t *frame, size_t len,
		      const struct net_offload *o)
{
	struct unix_backend *u = unix_of(b);
	uint8_t *p;

	/*
	 * A large segment that a hostile guest has cut into pieces of one byte becomes 65535 frames: what
	 * is beyond all measure is lost, as on any wire.
	 */
	if (u->peer < 0 || u->out_len + PREFIX + len > NET_UNSENT_MAX - IN_SIZE ||
	    !make_room(u, PREFIX + len))
		return;
	p = u->out + u->out_head + u->out_len;
	put_be32(p, (uint32_t)len);
	memcpy(p + PREFIX, frame, len);
	u->out_len += PREFIX + len;
	if (!(u->events & EPOLLOUT))
		write_out(u);
	update_watch(u);
}

/* From the frame on that the peer has the beginning of: its bytes are still there. */
static const uint8_t *unix_unsent(const struct net_backend *b, size_t *len)
{
	const struct unix_backend *u = unix_of(b);
	size_t gone = u->first_left ? u->first_len - u->first_left : 0;

	*len = u->out_len + gone;
	return u->out + u->out_head - gone;
}

/* ---- Input --------------------------------------------------------------- */

/* Hands over whole frames, while the device has room; false: the peer speaks nonsense. */
static bool hand_over(struct unix_backend *u)
{
	size_t at = 0;

	while (u->in_len - at >= PREFIX && net_room(&u->base)) {
		size_t len = be32(u->in + at);

		if (!len || len > NET_FRAME_MAX)
			return false;
		if (u->in_len - at < PREFIX + len)
			break;
		net_receive(&u->base, u->in + at + PREFIX, len, NULL);
		at += PREFIX + len;
	}
	memmove(u->in, u->in + at, u->in_len - at);
	u->in_len -= at;
	return true;
}

static void read_in(struct unix_backend *u)
{
	ssize_t n;

	if (!net_room(&u->base))
		return;
	n = recv(u->peer, u->in + u->in_len, sizeof(u->in) - u->in_len, MSG_DONTWAIT);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) {
		peer_gone(u);
		return;
	}
	u->in_len += (size_t)n;
	if (!hand_over(u))
		peer_gone(u);
}

static void on_peer(void *opaque, uint32_t events)
{
	struct unix_backend *u = opaque;

	if (events & EPOLLOUT)
		write_out(u);
	if (u->peer >= 0 && (events & EPOLLIN))
		read_in(u);
	else if (u->peer >= 0 && (events & (EPOLLERR | EPOLLHUP)))
		peer_gone(u);
	net_drained(&u->base);
	update_watch(u);
}

/* ---- Who is at the other end --------------------------------------------- */

static void adopt(struct unix_backend *u, int fd)
{
	u->peer = fd;
	u->events = 0;
	net_set_link(&u->base, true);
	update_watch(u);
}

static void on_connection(void *opaque, uint32_t events)
{
	struct unix_backend *u = opaque;
	int fd = accept4(u->listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	if (fd < 0)
		return;
	if (u->peer >= 0)
		close(fd);	/* a wire has two ends */
	else
		adopt(u, fd);
}

static int try_connect(struct unix_backend *u)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	if (fd < 0)
		return -errno;
	if (connect(fd, (const struct sockaddr *)&u->path, sizeof(u->path)) < 0) {
		int err = errno;

		close(fd);
		return -err;
	}
	adopt(u, fd);
	return 0;
}

/*
 * A socket appears at the path only when somebody listens on it: it is made under another name and
 * linked.  So one that refuses connections is left over, and may go.
 */
static int try_listen(struct unix_backend *u, struct skep_error *e)
{
	struct sockaddr_un own = { .sun_family = AF_UNIX };
	struct stat st;
	int fd, err = 0;

	if (snprintf(own.sun_path, sizeof(own.sun_path), "%s.%ld", u->path.sun_path,
		     (long)getpid()) >= (int)sizeof(own.sun_path))
		return skep_fail(e, ENAMETOOLONG, "%s.backend: '%s' is too long a name for a socket",
				 u->base.owner, u->path.sun_path);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	unlink(own.sun_path);
	if (fd < 0 || fchmod(fd, 0600) < 0 ||
	    bind(fd, (const struct sockaddr *)&own, sizeof(own)) < 0 || listen(fd, 1) < 0 ||
	    link(own.sun_path, u->path.sun_path) < 0)
		err = errno;
	if (!err && stat(own.sun_path, &st) == 0) {
		u->dev = st.st_dev;
		u->ino = st.st_ino;
	}
	unlink(own.sun_path);
	if (!err) {
		u->listen_watch = loop_watch(u->base.vm, fd, EPOLLIN, on_connection, u, e);
		u->listener = fd;
		return u->listen_watch ? 0 : -EIO;
	}
	if (fd >= 0)
		close(fd);
	return skep_fail(e, err, "%s.backend: cannot make the socket '%s': %s", u->base.owner,
			 u->path.sun_path, strerror(err));
}

static int find_peer(struct unix_backend *u, struct skep_error *e)
{
	struct stat st;
	int err = try_connect(u);

	if (!err)
		return 0;
	if (err == -ECONNREFUSED) {
		if (lstat(u->path.sun_path, &st) == 0 && S_ISSOCK(st.st_mode))
			unlink(u->path.sun_path);
	} else if (err != -ENOENT && err != -EAGAIN) {
		return skep_fail(e, -err, "%s.backend: cannot connect to '%s': %s", u->base.owner,
				 u->path.sun_path, strerror(-err));
	}
	/* EAGAIN: it listens, and another one is about to connect. */
	return err == -EAGAIN ? err : try_listen(u, e);
}

/* Later: what fails now may not fail next time. */
static void look_for_peer(struct unix_backend *u)
{
	struct skep_error e;

	if (find_peer(u, &e) < 0)
		set_timer(u, RETRY_NS);
}

static void on_timer(void *opaque, uint32_t events)
{
	struct unix_backend *u = opaque;
	uint64_t expired;

	if (read(u->timer, &expired, sizeof(expired)) < 0)
		return;
	if (u->peer < 0 && u->listener < 0)
		look_for_peer(u);
}

/* ---- Begin and end ------------------------------------------------------- */

static void unix_update(struct net_backend *b)
{
	struct unix_backend *u = unix_of(b);

	if (u->peer >= 0 && !net_held(b) && !hand_over(u))
		peer_gone(u);
	update_watch(u);
}

/* A frame that is under way is finished if the peer takes the rest now. */
static void unix_quiesce(struct net_backend *b)
{
	struct unix_backend *u = unix_of(b);

	if (u->peer >= 0)
		write_out(u);
	update_watch(u);
}

static void unix_close(struct net_backend *b)
{
	struct unix_backend *u = unix_of(b);
	struct stat st;

	loop_unwatch(u->listen_watch);
	loop_unwatch(u->peer_watch);
	loop_unwatch(u->timer_watch);
	if (u->listener >= 0) {
		close(u->listener);
		if (lstat(u->path.sun_path, &st) == 0 && st.st_dev == u->dev && st.st_ino == u->ino)
			unlink(u->path.sun_path);
	}
	if (u->peer >= 0)
		close(u->peer);
	if (u->timer >= 0)
		close(u->timer);
	free(u->out);
}

static int unix_open(struct net_backend *b, const char *arg, struct skep_error *e)
{
	struct unix_backend *u = unix_of(b);
	int err;

	u->listener = u->peer = u->timer = -1;
	u->path.sun_family = AF_UNIX;
	if (!*arg || strlen(arg) >= sizeof(u->path.sun_path))
		return skep_fail(e, ENAMETOOLONG, "%s.backend: a socket's name has 1 to %zu bytes, '%s' "
				 "has %zu", b->owner, sizeof(u->path.sun_path) - 1, arg, strlen(arg));
	memcpy(u->path.sun_path, arg, strlen(arg));
	u->timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	if (u->timer < 0)
		return skep_fail(e, errno, "%s: %s", b->owner, strerror(errno));
	u->timer_watch = loop_watch(b->vm, u->timer, EPOLLIN, on_timer, u, e);
	err = u->timer_watch ? find_peer(u, e) : -EIO;
	if (err == -EAGAIN) {
		set_timer(u, RETRY_NS);
		err = 0;
	}
	if (err < 0)
		unix_close(b);
	return err;
}

const struct net_ops net_unix = {
	.name = "unix:",
	.prefix = true,
	.help = "unix:/path: the wire to another machine, or to passt or QEMU",
	.size = sizeof(struct unix_backend),
	.sends = 0,
	.open = unix_open,
	.close = unix_close,
	.ready = unix_ready,
	.send = unix_send,
	.accept = unix_update,
	.takes = net_nop,
	.quiesce = unix_quiesce,
	.resume = unix_update,
	.unsent = unix_unsent,
};
