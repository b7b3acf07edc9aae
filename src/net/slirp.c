/*
 * slirp: the host's own connections, through libslirp, which is loaded when a machine asks for it.
 *
 * libslirp wants to be asked before each poll which descriptors it waits for and how long.  They
 * stand in an epoll set of its own, which the machine's loop watches as one descriptor, and
 * a timerfd tells the time; both are brought up to date after whatever happened.
 *
 * The library's clock stands while the machine does, so that a machine that was paused for an hour
 * finds its connections as it left them.  What a connection is beyond its frames (sockets of
 * this process) no file can carry: flows.c remembers them, and a restored machine's are reset.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#include "base/util.h"
#include "net/backend.h"
#include "net/slirp_large.h"
#include "net/slirp_library.h"
#include "vm/vm.h"

#define RULES_MAX	64u	/* of hostfwd */
#define TIMERS		4u	/* libslirp 4.7 has one */

/* A descriptor that the library waits for. */
struct slirp_fd {
	int fd;
	int want;		/* SLIRP_POLL_*, this time */
	uint32_t added;		/* what the epoll set has; 0: it is not in there */
	int got;		/* what the last look gave */
};

struct slirp_timer {
	bool used;
	SlirpTimerId id;
	void *opaque;
	int64_t due_ms;		/* INT64_MAX: off */
	struct slirp_backend *s;
};

struct slirp_backend {
	struct net_backend base;
	struct slirp_library lib;
	Slirp *slirp;
	int epoll, timer;
	struct loop_watch *epoll_watch, *timer_watch;
	bool watching;
	int64_t stood_ns, stood_since;	/* all in all, host monotonic; and the current stop */
	int64_t poll_due_ms;		/* when the library wants to be polled anyway */
	struct slirp_timer timers[TIMERS];
	struct slirp_fd *fds;
	size_t nfds, cap;
	bool posted;			/* an update is on its way */
	bool busy;			/* in slirp_pollfds_poll */
	size_t mtu;			/* the guest's */
	uint8_t large[14 + SLIRP_MTU];
};

static int64_t host_now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * NSEC_PER_SEC + ts.tv_nsec;
}

/* The library's time, in ns. */
static int64_t now(const struct slirp_backend *s)
{
	return (s->stood_since ? s->stood_since : host_now()) - s->stood_ns;
}

/* ---- What the library calls ---------------------------------------------- */

static void look(void *opaque);

/* Lets the library look at what the guest sent, soon, on the vm thread. */
static void update_soon(struct slirp_backend *s)
{
	if (s->posted || s->busy)
		return;
	s->posted = true;
	loop_post(s->base.vm, look, s);
}

static ssize_t on_packet(const void *buf, size_t len, void *opaque)
{
	/* The library has made the checksums itself, here and now: the guest need not look. */
	static const struct net_offload valid = { .flags = NET_DATA_VALID };
	struct slirp_backend *s = opaque;

	if (len >= NET_FRAME_MIN)
		flows_hear(s->base.flows, buf, len);
	if (len <= 14 + s->mtu) {
		net_receive(&s->base, buf, len, s->base.takes & NET_TAKES_CSUM ? &valid : NULL);
	} else if (len <= sizeof(s->large)) {
		memcpy(s->large, buf, len);
		slirp_receive_large(&s->base, s->large, len, s->mtu);
	}
	return (ssize_t)len;
}

static void on_guest_error(const char *msg, void *opaque)
{
	/* The guest could fill a terminal with these. */
}

static int64_t on_clock(void *opaque)
{
	return now(opaque);
}

static void *on_timer_new(SlirpTimerId id, void *cb_opaque, void *opaque)
{
	struct slirp_backend *s = opaque;

	for (unsigned i = 0; i < TIMERS; i++)
		if (!s->timers[i].used) {
			s->timers[i] = (struct slirp_timer){ .used = true, .id = id, .s = s,
							     .opaque = cb_opaque,
							     .due_ms = INT64_MAX };
			return &s->timers[i];
		}
	abort();	/* a library that is not the one whose version was asked for */
}

static void on_timer_free(void *timer, void *opaque)
{
	((struct slirp_timer *)timer)->used = false;
}

static void on_timer_mod(void *timer, int64_t expire_ms, void *opaque)
{
	struct slirp_timer *t = timer;

	t->due_ms = expire_ms;
	update_soon(t->s);
}

static struct slirp_fd *find_fd(struct slirp_backend *s, int fd)
{
	for (size_t i = 0; i < s->nfds; i++)
		if (s->fds[i].fd == fd)
			return &s->fds[i];
	return NULL;
}

static void on_register(int fd, void *opaque)
{
}

/* It is about to be closed, which takes it out of the set; its number may come again. */
static void on_unregister(int fd, void *opaque)
{
	struct slirp_backend *s = opaque;
	struct slirp_fd *f = find_fd(s, fd);

	if (!f)
		return;
	if (f->added)
		epoll_ctl(s->epoll, EPOLL_CTL_DEL, fd, NULL);
	f->added = 0;
	f->got = 0;
	f->fd = -1;
}

static void on_notify(void *opaque)
{
	update_soon(opaque);
}

static const SlirpCb callbacks = {
	.send_packet = on_packet,
	.guest_error = on_guest_error,
	.clock_get_ns = on_clock,
	.timer_free = on_timer_free,
	.timer_mod = on_timer_mod,
	.register_poll_fd = on_register,
	.unregister_poll_fd = on_unregister,
	.notify = on_notify,
	.init_completed = NULL,
	.timer_new_opaque = on_timer_new,
};

/* ---- Descriptors and time ------------------------------------------------ */

static int add_poll(int fd, int events, void *opaque)
{
	struct slirp_backend *s = opaque;
	struct slirp_fd *f = find_fd(s, fd);

	if (!f && s->nfds == s->cap) {
		size_t cap = s->cap * 2 + 16;
		struct slirp_fd *p = realloc(s->fds, cap * sizeof(*p));

		if (!p)
			return -1;
		s->fds = p;
		s->cap = cap;
	}
	if (!f) {
		f = &s->fds[s->nfds++];
		*f = (struct slirp_fd){ .fd = fd };
	}
	f->want |= events;
	return (int)(f - s->fds);
}

static int get_revents(int index, void *opaque)
{
	struct slirp_backend *s = opaque;

	return index >= 0 && (size_t)index < s->nfds ? s->fds[index].got : 0;
}

static uint32_t to_epoll(int want)
{
	return (want & SLIRP_POLL_IN ? EPOLLIN : 0) | (want & SLIRP_POLL_OUT ? EPOLLOUT : 0) |
	       (want & SLIRP_POLL_PRI ? EPOLLPRI : 0);
}

static int from_epoll(uint32_t got)
{
	return (got & EPOLLIN ? SLIRP_POLL_IN : 0) | (got & EPOLLOUT ? SLIRP_POLL_OUT : 0) |
	       (got & EPOLLPRI ? SLIRP_POLL_PRI : 0) | (got & EPOLLERR ? SLIRP_POLL_ERR : 0) |
	       (got & EPOLLHUP ? SLIRP_POLL_HUP : 0);
}

static void sync_fd(struct slirp_backend *s, struct slirp_fd *f)
{
	struct epoll_event ev = { .events = to_epoll(f->want), .data.fd = f->fd };

	if (ev.events == f->added)
		return;
	if (!ev.events)
		epoll_ctl(s->epoll, EPOLL_CTL_DEL, f->fd, NULL);
	else if (epoll_ctl(s->epoll, f->added ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, f->fd, &ev) < 0)
		/* The number was closed, or opened again, behind our back. */
		epoll_ctl(s->epoll, errno == ENOENT ? EPOLL_CTL_ADD : EPOLL_CTL_MOD, f->fd, &ev);
	f->added = ev.events;
}

static void sync_fds(struct slirp_backend *s)
{
	for (size_t i = 0; i < s->nfds; i++)
		if (s->fds[i].fd >= 0)
			sync_fd(s, &s->fds[i]);
}

/* Forgets those that it does not wait for.  Indices are good from one fill to the next. */
static void forget_fds(struct slirp_backend *s)
{
	size_t n = 0;

	for (size_t i = 0; i < s->nfds; i++)
		if (s->fds[i].fd >= 0 && s->fds[i].added) {
			s->fds[n] = s->fds[i];
			s->fds[n++].want = 0;
		}
	s->nfds = n;
}

static void program(struct slirp_backend *s)
{
	struct itimerspec t = { 0 };
	int64_t due = s->poll_due_ms, host;

	for (unsigned i = 0; i < TIMERS; i++)
		if (s->timers[i].used)
			due = MIN(due, s->timers[i].due_ms);
	if (due != INT64_MAX && !net_held(&s->base)) {
		host = MAX(due * 1000000 + s->stood_ns, (int64_t)1);
		t.it_value.tv_sec = host / NSEC_PER_SEC;
		t.it_value.tv_nsec = host % NSEC_PER_SEC;
	}
	timerfd_settime(s->timer, TFD_TIMER_ABSTIME, &t, NULL);
}

/* Descriptors are looked at only while the device has room for what may come of it. */
static void update_watch(struct slirp_backend *s)
{
	bool want = net_room(&s->base);

	if (want != s->watching)
		loop_set_events(s->epoll_watch, want ? EPOLLIN : 0);
	s->watching = want;
}

static void update(struct slirp_backend *s)
{
	uint32_t timeout = UINT32_MAX;

	if (net_held(&s->base))
		return;
	forget_fds(s);
	s->lib.pollfds_fill(s->slirp, &timeout, add_poll, s);
	s->poll_due_ms = timeout == UINT32_MAX ? INT64_MAX : now(s) / 1000000 + timeout;
	sync_fds(s);
	program(s);
	update_watch(s);
}

static void poll_once(struct slirp_backend *s)
{
	s->busy = true;
	s->lib.pollfds_poll(s->slirp, 0, get_revents, s);
	s->busy = false;
	for (size_t i = 0; i < s->nfds; i++)
		s->fds[i].got = 0;
}

/* What waits in the library for an answer to its ARP request goes out with the next poll only. */
static void look(void *opaque)
{
	struct slirp_backend *s = opaque;

	s->posted = false;
	if (net_held(&s->base))
		return;
	poll_once(s);
	update(s);
}

static void on_descriptors(void *opaque, uint32_t events)
{
	struct slirp_backend *s = opaque;
	struct epoll_event ev[32];
	int n;

	if (!net_room(&s->base)) {
		update_watch(s);
		return;
	}
	n = epoll_wait(s->epoll, ev, ARRAY_SIZE(ev), 0);
	for (int i = 0; i < n; i++) {
		struct slirp_fd *f = find_fd(s, ev[i].data.fd);

		if (f)
			f->got = from_epoll(ev[i].events);
	}
	if (n > 0)
		poll_once(s);
	update(s);
}

static void on_timer(void *opaque, uint32_t events)
{
	struct slirp_backend *s = opaque;
	uint64_t expired;
	int64_t ms;

	if (read(s->timer, &expired, sizeof(expired)) < 0 || net_held(&s->base))
		return;
	ms = now(s) / 1000000;
	for (unsigned i = 0; i < TIMERS; i++)
		if (s->timers[i].used && s->timers[i].due_ms <= ms) {
			s->timers[i].due_ms = INT64_MAX;
			s->lib.handle_timer(s->slirp, s->timers[i].id, s->timers[i].opaque);
		}
	poll_once(s);
	update(s);
}

/* ---- The device's side --------------------------------------------------- */

static void slirp_send(struct net_backend *b, const uint8_t *frame, size_t len,
		       const struct net_offload *o)
{
	struct slirp_backend *s = container_of(b, struct slirp_backend, base);
	uint8_t syn[SLIRP_SYN_MAX];

	if ((b->takes & NET_TAKES_TSO4) && slirp_raise_mss(frame, len, syn))
		frame = syn;
	s->lib.input(s->slirp, frame, (int)len);
	update_soon(s);
}

static void slirp_accept(struct net_backend *b)
{
	struct slirp_backend *s = container_of(b, struct slirp_backend, base);

	if (!s->watching)
		update_soon(s);
}

static void slirp_quiesce(struct net_backend *b)
{
	struct slirp_backend *s = container_of(b, struct slirp_backend, base);

	s->stood_since = host_now();
	update_watch(s);
	program(s);
}

static void slirp_resume(struct net_backend *b)
{
	struct slirp_backend *s = container_of(b, struct slirp_backend, base);

	if (s->stood_since)
		s->stood_ns += host_now() - s->stood_since;
	s->stood_since = 0;
	update_soon(s);
}

/* ---- hostfwd ------------------------------------------------------------- */

static int fail_rule(const struct net_backend *b, const char *rule, const char *why,
		     struct skep_error *e)
{
	return skep_fail(e, EINVAL, "%s.hostfwd: \"%s\": %s; write tcp:127.0.0.1:2222-10.0.2.15:22",
			 b->owner, rule, why);
}

/* "address:port" up to the end; an empty address is what *address is already. */
static const char *parse_end(char *text, struct in_addr *address, int *port)
{
	char *colon = strrchr(text, ':'), *end;
	unsigned long v;

	if (!colon)
		return "an end has an address and a port, with a colon between them";
	*colon = '\0';
	if (*text && inet_pton(AF_INET, text, address) != 1)
		return "the address is not an IPv4 address";
	v = strtoul(colon + 1, &end, 10);
	if (colon[1] < '0' || colon[1] > '9' || *end || !v || v > 65535)
		return "a port is a number from 1 to 65535";
	*port = (int)v;
	return NULL;
}

static int add_rule(struct slirp_backend *s, const char *rule, struct skep_error *e)
{
	struct in_addr host = { htonl(INADDR_LOOPBACK) }, guest = { htonl(0x0a00020f) };
	int host_port, guest_port;
	char text[128], *dash;
	const char *why;
	bool udp = !strncmp(rule, "udp:", 4);

	if (!udp && strncmp(rule, "tcp:", 4))
		return fail_rule(&s->base, rule, "a rule begins with tcp: or udp:", e);
	if (snprintf(text, sizeof(text), "%s", rule + 4) >= (int)sizeof(text))
		return fail_rule(&s->base, rule, "it is too long", e);
	dash = strchr(text, '-');
	if (!dash)
		return fail_rule(&s->base, rule, "a '-' stands between the host's end and the guest's", e);
	*dash = '\0';
	why = parse_end(text, &host, &host_port);
	if (!why)
		why = parse_end(dash + 1, &guest, &guest_port);
	if (why)
		return fail_rule(&s->base, rule, why, e);
	if (s->lib.add_hostfwd(s->slirp, udp, host, host_port, guest, guest_port) < 0)
		return skep_fail(e, errno ? errno : EADDRINUSE, "%s.hostfwd: \"%s\": the host's port "
				 "cannot be had: %s", s->base.owner, rule,
				 errno ? strerror(errno) : "it is taken");
	return 0;
}

static int add_rules(struct slirp_backend *s, const char *rules, struct skep_error *e)
{
	char *copy = strdup(rules ? rules : ""), *rest = copy, *rule;
	unsigned n = 0;
	int err = 0;

	if (!copy)
		return skep_fail(e, ENOMEM, "%s: out of memory", s->base.owner);
	while (!err && (rule = strsep(&rest, ";"))) {
		if (*rule && ++n > RULES_MAX)
			err = fail_rule(&s->base, rule, "that is one rule too many", e);
		else if (*rule)
			err = add_rule(s, rule, e);
	}
	free(copy);
	return err;
}

/* ---- Begin and end ------------------------------------------------------- */

static void slirp_close(struct net_backend *b)
{
	struct slirp_backend *s = container_of(b, struct slirp_backend, base);

	loop_unwatch(s->epoll_watch);
	loop_unwatch(s->timer_watch);
	/* It says goodbye to its descriptors. */
	if (s->slirp)
		s->lib.cleanup(s->slirp);
	if (s->epoll >= 0)
		close(s->epoll);
	if (s->timer >= 0)
		close(s->timer);
	free(s->fds);
}

static void fill_config(struct slirp_backend *s, SlirpConfig *c)
{
	struct config_node *n = s->base.config;

	memset(c, 0, sizeof(*c));
	c->version = 4;
	c->restricted = !config_bool(n, "open");
	c->in_enabled = true;
	c->vnetwork.s_addr = htonl(0x0a000200);
	c->vnetmask.s_addr = htonl(0xffffff00);
	c->vhost.s_addr = htonl(0x0a000202);
	c->vdhcp_start.s_addr = htonl(0x0a00020f);
	c->vnameserver.s_addr = htonl(0x0a000203);
	c->in6_enabled = true;
	inet_pton(AF_INET6, "fec0::", &c->vprefix_addr6);
	c->vprefix_len = 64;
	inet_pton(AF_INET6, "fec0::2", &c->vhost6);
	inet_pton(AF_INET6, "fec0::3", &c->vnameserver6);
	s->mtu = config_is_set(n, "mtu") ? config_uint(n, "mtu") : 1500;
	s->mtu = MIN(s->mtu, (size_t)SLIRP_MTU);
	c->if_mtu = c->if_mru = SLIRP_MTU;
}

static int open_set(struct slirp_backend *s, struct skep_error *e)
{
	s->epoll = epoll_create1(EPOLL_CLOEXEC);
	s->timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	if (s->epoll < 0 || s->timer < 0)
		return skep_fail(e, errno, "%s: slirp cannot be set up: %s", s->base.owner,
				 strerror(errno));
	s->epoll_watch = loop_watch(s->base.vm, s->epoll, 0, on_descriptors, s, e);
	s->timer_watch = s->epoll_watch ?
			 loop_watch(s->base.vm, s->timer, EPOLLIN, on_timer, s, e) : NULL;
	return s->timer_watch ? 0 : -EIO;
}

static int slirp_open(struct net_backend *b, const char *arg, struct skep_error *e)
{
	struct slirp_backend *s = container_of(b, struct slirp_backend, base);
	SlirpConfig c;
	int err;

	s->epoll = s->timer = -1;
	s->poll_due_ms = INT64_MAX;
	b->flows = flows_create();
	err = slirp_library_load(&s->lib, b->owner, e);
	if (err < 0)
		return err;
	err = b->flows ? open_set(s, e) : skep_fail(e, ENOMEM, "%s: out of memory", b->owner);
	if (!err) {
		fill_config(s, &c);
		s->slirp = s->lib.create(&c, &callbacks, s);
		err = s->slirp ? add_rules(s, config_string(b->config, "hostfwd"), e) :
		      skep_fail(e, EIO, "%s: libslirp refuses to start", b->owner);
	}
	if (err < 0) {
		slirp_close(b);
		return err;
	}
	b->link = true;
	return 0;
}

const struct net_ops net_slirp = {
	.name = "slirp",
	.help = "the host's own connections, through libslirp; no rights are needed",
	.size = sizeof(struct slirp_backend),
	/* It takes a TCP segment of any length, and checks its checksum. */
	.sends = 0,
	.open = slirp_open,
	.close = slirp_close,
	.ready = net_always_ready,
	.send = slirp_send,
	.accept = slirp_accept,
	.takes = net_nop,
	.quiesce = slirp_quiesce,
	.resume = slirp_resume,
	.unsent = net_unsent_nothing,
};
