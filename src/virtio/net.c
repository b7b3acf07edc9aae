/*
 * virtio-net: VIRTIO 1.2, section 5.1.
 *
 * The same features are offered whatever the backend is, since net.c does in software what that
 * cannot: so a machine goes on with another backend after a restore.
 *
 * A frame from the guest is copied out as a whole before anything looks at it.  It is sent from
 * the vm thread, so that the processor goes on; with clock=virtual where the driver kicks, since
 * the moment at which a buffer comes back is part of what the guest sees: whatever the host
 * does not take then is lost, as on a network.
 */
#include <errno.h>
#include <stdlib.h>

#include "base/util.h"
#include "virtio/net.h"
#include "virtio/net_priv.h"
#include "vm/vm.h"

#define TX_BATCH	64u	/* frames, before others get the device lock */
#define TX_SEGMENTS	64u	/* that one may be cut into, and is still one */
#define PAIRS_DEFAULT	"1"

/* ---- Frames from the guest ----------------------------------------------- */

/* False: the buffer holds no frame, 5.1.6.2.2, and is given back without one. */
static bool read_frame(struct virtio_net *n, struct virtqueue *q, const struct virtq_chain *c,
		       size_t *len, struct net_offload *o)
{
	uint8_t h[NET_HEADER];

	if (c->readable < NET_HEADER + NET_FRAME_MIN || c->readable > NET_HEADER + NET_FRAME_MAX ||
	    virtq_read(q, c, 0, h, NET_HEADER) != NET_HEADER)
		return false;
	*len = c->readable - NET_HEADER;
	*o = (struct net_offload){
		.flags = h[0] & NET_NEEDS_CSUM, .gso_type = h[1], .hdr_len = load16(h + 2),
		.gso_size = load16(h + 4), .csum_start = load16(h + 6), .csum_offset = load16(h + 8),
	};
	/* What was not negotiated has no meaning. */
	if (!virtio_has(&n->v, NET_F_CSUM))
		o->flags = 0;
	if (!virtio_has(&n->v, NET_F_HOST_TSO4 | NET_F_HOST_TSO6))
		o->gso_type = NET_GSO_NONE;
	return virtq_read(q, c, NET_HEADER, n->frame, *len) == *len;
}

/* One buffer; false: it waits until the backend takes more. *work: grows by what it was, in frames. */
static bool send_one(struct virtio_net *n, unsigned pair, struct virtq_chain *c, unsigned *work)
{
	struct virtqueue *q = net_txq(n, pair);
	struct net_offload o;
	size_t len;

	if (read_frame(n, q, c, &len, &o)) {
		if (n->max_pairs > 1)
			n->c.steer[net_flow_hash(n->frame, len)] = (uint8_t)pair;
		if (!net_send(n->backend, n->frame, len, &o) && !net_virtual(n)) {
			virtq_unpop(q, c);
			return false;
		}
		if (o.gso_type != NET_GSO_NONE && o.gso_size)
			*work += (unsigned)(len / o.gso_size / TX_SEGMENTS);
	}
	++*work;
	virtq_push(q, c, 0);
	return true;
}

/* At most max frames of one queue; false: there may be more. */
static bool send_some(struct virtio_net *n, unsigned pair, unsigned max)
{
	struct virtqueue *q = net_txq(n, pair);
	struct virtq_chain *c = n->tx_chain;
	unsigned i = 0;

	virtq_want_kicks(q, false);
	while (i < max && (net_virtual(n) || net_ready(n->backend))) {
		if (virtq_pop(q, c) <= 0) {
			/* Kicks are wanted again; and what came in between is looked for. */
			virtq_want_kicks(q, true);
			if (virtq_pop(q, c) <= 0)
				break;
			virtq_want_kicks(q, false);
		}
		if (!send_one(n, pair, c, &i))
			break;
	}
	virtq_signal(q);
	return i < max;
}

static void send_all(void *opaque)
{
	struct virtio_net *n = opaque;
	bool done = true;

	n->tx_posted = false;
	if (n->v.quiesced || !virtio_running(&n->v))
		return;
	for (unsigned i = 0; i < n->c.pairs; i++)
		done &= send_some(n, i, TX_BATCH);
	if (!done) {
		n->tx_posted = true;
		loop_post(n->v.pci.dev.vm, send_all, n);
	}
}

static void send_soon(struct virtio_net *n)
{
	if (n->tx_posted)
		return;
	n->tx_posted = true;
	loop_post(n->v.pci.dev.vm, send_all, n);
}

static void net_notify(struct virtio *v, struct virtqueue *q)
{
	struct virtio_net *n = net_of(v);
	unsigned pair = q->index / 2;

	if (q->index == 2 * n->max_pairs)
		net_ctrl_kick(n);
	else if (pair >= n->c.pairs)
		return;		/* 5.1.6.5.5: not in use until the driver says so */
	else if (!(q->index & 1))
		net_rx_kick(n);
	else if (net_virtual(n))
		send_some(n, pair, UINT32_MAX);
	else
		send_soon(n);
}

/* ---- Configuration, 5.1.4 ------------------------------------------------ */

static void net_config_read(struct virtio *v, unsigned offset, unsigned size, void *buf)
{
	struct virtio_net *n = net_of(v);
	uint8_t config[12];

	memcpy(config, n->c.mac, 6);
	store16(config + 6, (n->c.link ? NET_S_LINK_UP : 0) | (n->c.announce ? NET_S_ANNOUNCE : 0));
	store16(config + 8, (uint16_t)n->max_pairs);
	store16(config + 10, n->mtu);
	memcpy(buf, config + offset, size);
}

/* Nothing in it is the driver's to write: the address is set through the control queue. */
static void net_config_write(struct virtio *v, unsigned offset, unsigned size, const void *buf)
{
}

/* ---- Life ---------------------------------------------------------------- */

static void net_reset(struct virtio *v)
{
	struct virtio_net *n = net_of(v);

	net_rx_drop_waiting(n);
	net_ctrl_reset(n);
	n->c.link = net_virtual(n) ? n->c.link : net_link(n->backend);
}

static void net_start(struct virtio *v)
{
	net_ctrl_start(net_of(v));
}

static void virtio_net_quiesce(struct virtio *v)
{
	net_quiesce(net_of(v)->backend);
}

/*
 * A restored machine may be elsewhere on its network, which the guest is asked to tell (5.1.6.5.4):
 * with a gratuitous ARP, as a rule.
 */
static void announce(struct virtio_net *n)
{
	if (!n->announce)
		return;
	n->announce = false;
	if (!n->v.pci.dev.vm->renewed || !virtio_has(&n->v, NET_F_GUEST_ANNOUNCE) ||
	    !virtio_running(&n->v) || !n->c.link)
		return;
	n->c.announce = 1;
	virtio_config_changed(&n->v);
}

static void virtio_net_resume(struct virtio *v)
{
	net_resume(net_of(v)->backend);
	announce(net_of(v));
}

static int add_queues(struct virtio_net *n, struct skep_error *e)
{
	int err = 0;

	for (unsigned i = 0; i < 2 * n->max_pairs + 1 && !err; i++)
		err = virtio_add_queue(&n->v, i < 2 * n->max_pairs ? NET_QUEUE_SIZE : 64, e);
	return err;
}

static void free_parts(struct virtio_net *n)
{
	net_destroy(n->backend);
	net_rx_drop_waiting(n);
	free(n->tx_chain);
	free(n->frame);
}

static int open_parts(struct virtio_net *n, struct skep_error *e)
{
	struct device *d = &n->v.pci.dev;
	int err;

	n->waiting_end = &n->waiting;
	n->frame = malloc(NET_HEADER + NET_FRAME_MAX);
	/* slirp answers from within net_send: a chain to send from, and those to receive into. */
	n->tx_chain = malloc((1 + NET_MERGE_MAX) * sizeof(*n->tx_chain));
	if (!n->frame || !n->tx_chain)
		return skep_fail(e, ENOMEM, "%s: out of memory", d->name);
	n->chains = n->tx_chain + 1;
	err = net_mac(d->vm, d->name, d->config, n->c.permanent_mac, e);
	if (!err)
		err = add_queues(n, e);
	if (err)
		return err;
	n->backend = net_create(d->vm, d->name, d->config, e);
	return n->backend ? 0 : -EINVAL;
}

static int net_init(struct virtio *v, struct skep_error *e)
{
	struct virtio_net *n = net_of(v);
	struct device *d = &v->pci.dev;
	int err;

	n->max_pairs = (unsigned)config_uint(d->config, "queues");
	n->mtu = (uint16_t)config_uint(d->config, "mtu");
	err = open_parts(n, e);
	if (err) {
		free_parts(n);
		return err;
	}
	v->config_size = 12;
	v->features = NET_F_CSUM | NET_F_GUEST_CSUM | NET_F_CTRL_GUEST_OFFLOADS | NET_F_MAC |
		      NET_F_GUEST_TSO4 | NET_F_GUEST_TSO6 | NET_F_GUEST_ECN | NET_F_HOST_TSO4 |
		      NET_F_HOST_TSO6 | NET_F_HOST_ECN | NET_F_MRG_RXBUF | NET_F_STATUS |
		      NET_F_CTRL_VQ | NET_F_CTRL_RX | NET_F_CTRL_VLAN | NET_F_CTRL_RX_EXTRA |
		      NET_F_GUEST_ANNOUNCE | NET_F_CTRL_MAC_ADDR |
		      (n->max_pairs > 1 ? NET_F_MQ : 0) | (n->mtu ? NET_F_MTU : 0);
	n->c.link = net_link(n->backend);
	input_port_add(&n->input, d->vm, d->name, net_deliver, n);
	net_set_receiver(n->backend, &net_receiver, n);
	return 0;
}

static void net_finish(struct virtio *v)
{
	free_parts(net_of(v));
}

/* Buffers that a queue held are the driver's again at once: none is ever in flight. */
static void net_queue_reset(struct virtio *v, struct virtqueue *q)
{
}

void virtio_net_drained(struct virtio_net *n)
{
	if (!net_virtual(n))
		send_soon(n);
}

static const struct config_key net_keys[] = {
	NET_BACKEND_KEYS,
	{ .name = "queues", .type = CONFIG_UINT, .def = PAIRS_DEFAULT, .min = 1, .max = NET_PAIRS_MAX,
	  .help = "pairs of receive and transmit queues" },
};

static const struct config_schema net_schema = { net_keys, ARRAY_SIZE(net_keys) };

const struct virtio_type virtio_net_type = {
	VIRTIO_DEVICE("virtio-net", "network interface", 1, 0x020000, struct virtio_net, net_schema,
		      virtio_net_record),
	.init = net_init,
	.finish = net_finish,
	.reset = net_reset,
	.start = net_start,
	.notify = net_notify,
	.queue_reset = net_queue_reset,
	.config_read = net_config_read,
	.config_write = net_config_write,
	.quiesce = virtio_net_quiesce,
	.resume = virtio_net_resume,
	.export = virtio_net_export,
	.validate = virtio_net_validate,
	.commit = virtio_net_commit,
};
