/* virtio-net: frames for the guest, VIRTIO 1.2, 5.1.6.3 and 5.1.6.4. */
#include <stdlib.h>

#include "base/util.h"
#include "virtio/net_priv.h"
#include "vm/vm.h"

/* A record of input (clock=virtual, or while the machine stands): what it is, then its bytes. */
#define RECORD_FRAME	0
#define RECORD_LINK	1
#define RECORD_HEADER	12u
#define RECORD_MAX	65536u		/* vm/machine_record.h */
#define INPUT_MAX	(256u * 1024)	/* bytes that may wait for their instruction */

/* ---- Into the ring ------------------------------------------------------- */

static void fill_header(const struct virtio_net *n, const struct net_offload *o, unsigned buffers,
			uint8_t h[NET_HEADER])
{
	memset(h, 0, NET_HEADER);
	store16(h + 10, (uint16_t)buffers);
	if (!(n->c.offloads & NET_F_GUEST_CSUM))
		return;
	h[0] = o->flags;
	h[1] = o->gso_type;
	store16(h + 2, o->gso_type ? o->hdr_len : 0);
	store16(h + 4, o->gso_size);
	store16(h + 6, o->csum_start);
	store16(h + 8, o->csum_offset);
}

/*
 * Pops buffers for so many bytes and returns how many.  0: there are too few yet; -1: buffers of
 * this size will never hold it.  Either way none is taken.
 */
static int take_buffers(struct virtio_net *n, struct virtqueue *q, size_t want)
{
	unsigned max = virtio_has(&n->v, NET_F_MRG_RXBUF) ? MIN(NET_MERGE_MAX, q->size) : 1, i = 0;
	size_t have = 0;
	bool full;

	while (have < want && i < max && virtq_pop(q, &n->chains[i]) > 0)
		have += n->chains[i++].writable;
	if (have >= want)
		return (int)i;
	full = i == max;
	while (i)
		virtq_unpop(q, &n->chains[--i]);
	return full ? -1 : 0;
}

static void spread(struct virtqueue *q, const struct virtq_chain *c, unsigned buffers,
		   const uint8_t h[NET_HEADER], const uint8_t *frame, size_t len)
{
	size_t at = 0, n;

	virtq_write(q, &c[0], 0, h, NET_HEADER);
	for (unsigned i = 0; i < buffers; i++) {
		size_t offset = i ? 0 : NET_HEADER;

		n = MIN(len - at, (size_t)c[i].writable - offset);
		virtq_write(q, &c[i], offset, frame + at, n);
		virtq_fill(q, &c[i], (uint32_t)(offset + n));
		at += n;
	}
	virtq_flush(q);
}

/* False: there are no buffers for it now. */
static bool put(struct virtio_net *n, unsigned pair, const uint8_t *frame, size_t len,
		const struct net_offload *o)
{
	struct virtqueue *q = net_rxq(n, pair < n->c.pairs ? pair : 0);
	uint8_t h[NET_HEADER];
	int buffers = take_buffers(n, q, NET_HEADER + len);

	/* What does not fit is dropped, 5.1.6.3.1. */
	if (buffers <= 0)
		return buffers < 0;
	if (n->chains[0].writable < NET_HEADER) {
		virtio_broken(&n->v, "queue %u: a buffer of %u bytes has no room for the header", q->index,
			      n->chains[0].writable);
		while (buffers)
			virtq_unpop(q, &n->chains[--buffers]);
		return true;
	}
	fill_header(n, o, (unsigned)buffers, h);
	spread(q, n->chains, (unsigned)buffers, h, frame, len);
	virtq_signal(q);
	return true;
}

/* ---- What waits ---------------------------------------------------------- */

void net_rx_wait(struct virtio_net *n, unsigned pair, const uint8_t *frame, size_t len,
		 const struct net_offload *o)
{
	struct net_waiting *w;

	if (n->nwaiting >= NET_BACKLOG_MAX || n->waiting_bytes + len > NET_BACKLOG_BYTES)
		return;
	w = malloc(sizeof(*w) + len);
	if (!w)
		return;		/* a frame lost */
	*w = (struct net_waiting){ .o = *o, .pair = (uint16_t)pair, .len = (uint32_t)len };
	memcpy(w->data, frame, len);
	*n->waiting_end = w;
	n->waiting_end = &w->next;
	n->nwaiting++;
	n->waiting_bytes += len;
}

static void drop_first(struct virtio_net *n)
{
	struct net_waiting *w = n->waiting;

	n->waiting = w->next;
	if (!n->waiting)
		n->waiting_end = &n->waiting;
	n->nwaiting--;
	n->waiting_bytes -= w->len;
	free(w);
}

void net_rx_drop_waiting(struct virtio_net *n)
{
	while (n->waiting)
		drop_first(n);
}

static bool have_room(const struct virtio_net *n)
{
	return n->nwaiting < NET_BACKLOG &&
	       (!net_virtual(n) || vm_input_waiting(&n->input) < INPUT_MAX);
}

static void accept_again(struct virtio_net *n)
{
	if (!n->was_full || !have_room(n))
		return;
	n->was_full = false;
	net_accept(n->backend);
}

void net_rx_kick(struct virtio_net *n)
{
	struct net_waiting *w;

	while ((w = n->waiting) && put(n, w->pair, w->data, w->len, &w->o))
		drop_first(n);
	accept_again(n);
}

/* ---- From the host ------------------------------------------------------- */

unsigned net_flow_hash(const uint8_t *frame, size_t len)
{
	unsigned ip = 14, at, n;
	uint32_t h = 0;
	uint16_t type;

	type = load16(frame + 12);
	if (type == __builtin_bswap16(0x8100) && len >= 18) {
		ip = 18;
		type = load16(frame + 16);
	}
	/* The sum of both ends' addresses and ports: the same both ways. */
	if (type == __builtin_bswap16(0x0800) && len >= ip + 20) {
		at = ip + 12;
		n = 8;
	} else if (type == __builtin_bswap16(0x86dd) && len >= ip + 40) {
		at = ip + 8;
		n = 32;
	} else {
		return 0;
	}
	for (unsigned i = 0; i < n; i += 4)
		h += load32(frame + at + i);
	at = n == 8 ? ip + (frame[ip] & 15) * 4u : ip + 40;
	if (len >= at + 4)
		h += (uint32_t)load16(frame + at) + load16(frame + at + 2);
	return h * 0x9e3779b1u >> 24;
}

static void receive(struct virtio_net *n, const uint8_t *frame, size_t len,
		    const struct net_offload *o)
{
	unsigned pair;

	/* Before DRIVER_OK nothing is received, and what is not addressed to the guest never is. */
	if (!virtio_running(&n->v) || !net_ctrl_wants(n, frame, len))
		return;
	pair = n->c.pairs > 1 ? n->c.steer[net_flow_hash(frame, len)] : 0;
	if (pair >= n->c.pairs)
		pair = 0;
	if (n->waiting || n->v.quiesced || !put(n, pair, frame, len, o))
		net_rx_wait(n, pair, frame, len, o);
}

static void set_link(struct virtio_net *n, bool up)
{
	if (n->c.link == up)
		return;
	n->c.link = up;
	if (virtio_has(&n->v, NET_F_STATUS))
		virtio_config_changed(&n->v);
}

void net_deliver(void *opaque, const uint8_t *data, size_t len)
{
	struct virtio_net *n = opaque;
	struct net_offload o;

	/* A log that somebody has edited may hold anything. */
	if (len == 2 && data[0] == RECORD_LINK)
		set_link(n, data[1]);
	if (len < RECORD_HEADER + NET_FRAME_MIN || data[0] != RECORD_FRAME)
		return;
	o = (struct net_offload){
		.flags = data[1] & (NET_NEEDS_CSUM | NET_DATA_VALID), .gso_type = data[2],
		.hdr_len = load16(data + 4), .gso_size = load16(data + 6),
		.csum_start = load16(data + 8), .csum_offset = load16(data + 10),
	};
	receive(n, data + RECORD_HEADER, len - RECORD_HEADER, &o);
	accept_again(n);
}

static bool on_room(void *opaque)
{
	struct virtio_net *n = opaque;
	bool room = have_room(n);

	n->was_full |= !room;
	return room;
}

static void on_receive(void *opaque, const uint8_t *frame, size_t len, const struct net_offload *o)
{
	struct virtio_net *n = opaque;
	uint8_t *r;

	if (!net_virtual(n)) {
		receive(n, frame, len, o);
		return;
	}
	if (RECORD_HEADER + len > RECORD_MAX)
		return;
	r = malloc(RECORD_HEADER + len);
	if (!r)
		return;
	memset(r, 0, RECORD_HEADER);
	r[1] = o->flags;
	r[2] = o->gso_type;
	store16(r + 4, o->hdr_len);
	store16(r + 6, o->gso_size);
	store16(r + 8, o->csum_start);
	store16(r + 10, o->csum_offset);
	memcpy(r + RECORD_HEADER, frame, len);
	vm_input(&n->input, r, RECORD_HEADER + len);
	free(r);
}

static void on_link(void *opaque, bool up)
{
	struct virtio_net *n = opaque;
	uint8_t record[2] = { RECORD_LINK, up };

	if (n->c.link != up)
		vm_input(&n->input, record, 2);
}

static void on_drained(void *opaque)
{
	virtio_net_drained(opaque);
}

const struct net_receiver net_receiver = { on_room, on_receive, on_link, on_drained };
