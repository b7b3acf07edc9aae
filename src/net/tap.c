/*
 * tap: an interface of the host, to which a bridge or a route leads.
 *
 * An interface that is there and belongs to the user (ip tuntap add dev tap0 mode tap user NAME)
 * needs no rights; one that is not there is made, which needs CAP_NET_ADMIN, and is gone
 * afterwards.  Each frame has a virtio_net_hdr in front of it (IFF_VNET_HDR), so that checksums
 * and segmentation pass through to where they are needed, which is often nowhere.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/util.h"
#include "net/backend.h"
#include "vm/vm.h"

#define BATCH	32	/* frames at a time, so that other descriptors get their turn */
#define HEADER	10u	/* struct virtio_net_hdr, little-endian as we are */

struct tap_backend {
	struct net_backend base;
	int fd;
	struct loop_watch *watch;
	uint32_t events;
	bool full;		/* the last write said EAGAIN */
	uint8_t frame[HEADER + NET_FRAME_MAX];
};

static struct tap_backend *tap_of(const struct net_backend *b)
{
	return container_of(b, struct tap_backend, base);
}

static void update_watch(struct tap_backend *t)
{
	uint32_t want = (net_room(&t->base) ? EPOLLIN : 0) |
			(t->full && !net_held(&t->base) ? EPOLLOUT : 0);

	if (t->watch && want != t->events)
		loop_set_events(t->watch, want);
	t->events = want;
}

static void receive(struct tap_backend *t, size_t len)
{
	const uint8_t *h = t->frame;
	struct net_offload o = {
		.flags = h[0] & (NET_NEEDS_CSUM | NET_DATA_VALID), .gso_type = h[1],
		.hdr_len = load16(h + 2), .gso_size = load16(h + 4),
		.csum_start = load16(h + 6), .csum_offset = load16(h + 8),
	};

	if (offload_valid(len - HEADER, &o))
		net_receive(&t->base, t->frame + HEADER, len - HEADER, &o);
}

static void on_event(void *opaque, uint32_t events)
{
	struct tap_backend *t = opaque;

	if (events & EPOLLOUT) {
		t->full = false;
		net_drained(&t->base);
	}
	for (unsigned i = 0; i < BATCH && net_room(&t->base); i++) {
		ssize_t n = read(t->fd, t->frame, sizeof(t->frame));

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= (ssize_t)HEADER) {
			/* The interface was taken away: EBADFD. */
			if (n < 0 && errno != EAGAIN) {
				loop_unwatch(t->watch);
				t->watch = NULL;
				net_set_link(&t->base, false);
			}
			break;
		}
		receive(t, (size_t)n);
	}
	update_watch(t);
}

static bool tap_ready(struct net_backend *b)
{
	return !tap_of(b)->full;
}

static void tap_send(struct net_backend *b, const uint8_t *frame, size_t len,
		     const struct net_offload *o)
{
	struct tap_backend *t = tap_of(b);
	uint8_t h[HEADER] = { o->flags & NET_NEEDS_CSUM, o->gso_type };
	struct iovec iov[2] = { { h, HEADER }, { (void *)frame, len } };
	ssize_t n;

	store16(h + 2, o->hdr_len);
	store16(h + 4, o->gso_size);
	store16(h + 6, o->csum_start);
	store16(h + 8, o->csum_offset);
	do
		n = writev(t->fd, iov, 2);
	while (n < 0 && errno == EINTR);
	/* The frame itself is lost, as in any switch whose buffers are full; the next one waits. */
	if (n < 0 && errno == EAGAIN) {
		t->full = true;
		update_watch(t);
	}
}

static void tap_accept(struct net_backend *b)
{
	update_watch(tap_of(b));
}

/* The kernel makes only such frames as the device takes. Small ones, with clock=virtual. */
static void tap_takes(struct net_backend *b)
{
	unsigned long o = 0;

	if (b->takes & NET_TAKES_CSUM) {
		o |= TUN_F_CSUM;
		o |= b->takes & NET_TAKES_TSO4 ? TUN_F_TSO4 : 0;
		o |= b->takes & NET_TAKES_TSO6 ? TUN_F_TSO6 : 0;
		if ((o & (TUN_F_TSO4 | TUN_F_TSO6)) && (b->takes & NET_TAKES_ECN))
			o |= TUN_F_TSO_ECN;
	}
	/* A kernel that cannot says so, and then makes plain frames only. */
	if (ioctl(tap_of(b)->fd, TUNSETOFFLOAD, o) < 0)
		ioctl(tap_of(b)->fd, TUNSETOFFLOAD, 0ul);
}

static void tap_update(struct net_backend *b)
{
	update_watch(tap_of(b));
}

static int fail_attach(const struct net_backend *b, const char *name, int err,
		       struct skep_error *e)
{
	switch (err) {
	case EPERM:
		return skep_fail(e, err, "%s.backend: the tap interface '%s' is not yours, or is not there "
				 "and you may not make it; as root: ip tuntap add dev %s mode tap user "
				 "$USER", b->owner, name, name);
	case EBUSY:
		return skep_fail(e, err, "%s.backend: the tap interface '%s' is in use by another process",
				 b->owner, name);
	case EINVAL:
		return skep_fail(e, err, "%s.backend: the interface '%s' is not a tap interface of one "
				 "queue", b->owner, name);
	default:
		return skep_fail(e, err, "%s.backend: the tap interface '%s' cannot be had: %s", b->owner,
				 name, strerror(err));
	}
}

static int attach(struct tap_backend *t, const char *name, struct skep_error *e)
{
	struct ifreq r = { .ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR };
	int size = HEADER;

	t->fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC | O_NONBLOCK);
	if (t->fd < 0)
		return skep_fail(e, errno, "%s.backend: /dev/net/tun cannot be opened, which tap needs: "
				 "%s; slirp needs no rights", t->base.owner, strerror(errno));
	memcpy(r.ifr_name, name, strlen(name));
	if (ioctl(t->fd, TUNSETIFF, &r) < 0)
		return fail_attach(&t->base, name, errno, e);
	if (ioctl(t->fd, TUNSETVNETHDRSZ, &size) < 0)
		return fail_attach(&t->base, name, errno, e);
	return 0;
}

static void tap_close(struct net_backend *b)
{
	struct tap_backend *t = tap_of(b);

	loop_unwatch(t->watch);
	if (t->fd >= 0)
		close(t->fd);
}

static int tap_open(struct net_backend *b, const char *arg, struct skep_error *e)
{
	struct tap_backend *t = tap_of(b);
	/* "tap=NAME", or the name itself, which begins with "tap". */
	const char *name = *arg == '=' ? arg + 1 : arg - strlen("tap");
	int err;

	t->fd = -1;
	if (!*name || strlen(name) >= IFNAMSIZ)
		return skep_fail(e, EINVAL, "%s.backend: the name of an interface has 1 to %d bytes, '%s' "
				 "has %zu", b->owner, IFNAMSIZ - 1, name, strlen(name));
	err = attach(t, name, e);
	if (!err) {
		t->watch = loop_watch(b->vm, t->fd, 0, on_event, t, e);
		err = t->watch ? 0 : -EIO;
	}
	if (err < 0) {
		tap_close(b);
		return err;
	}
	tap_takes(b);
	b->link = true;
	return 0;
}

const struct net_ops net_tap = {
	.name = "tap",
	.prefix = true,
	.help = "tapN, tap=NAME: a tap interface of the host",
	.size = sizeof(struct tap_backend),
	.sends = NET_TAKES_CSUM | NET_TAKES_TSO4 | NET_TAKES_TSO6 | NET_TAKES_ECN,
	.open = tap_open,
	.close = tap_close,
	.ready = tap_ready,
	.send = tap_send,
	.accept = tap_accept,
	.takes = tap_takes,
	.quiesce = tap_update,
	.resume = tap_update,
	.unsent = net_unsent_nothing,
};
