/* virtio-net: the control queue, VIRTIO 1.2, 5.1.6.5, and what the driver sets through it. */
#include "base/util.h"
#include "virtio/net_priv.h"
#include "vm/vm.h"

#define ACK_OK		0
#define ACK_ERR		1

#define CLASS_RX	0
#define RX_PROMISC	0
#define RX_ALLMULTI	1
#define RX_ALLUNI	2
#define RX_NOMULTI	3
#define RX_NOUNI	4
#define RX_NOBCAST	5
#define CLASS_MAC	1
#define MAC_TABLE_SET	0
#define MAC_ADDR_SET	1
#define CLASS_VLAN	2
#define VLAN_ADD	0
#define VLAN_DEL	1
#define CLASS_ANNOUNCE	3
#define ANNOUNCE_ACK	0
#define CLASS_MQ	4
#define MQ_PAIRS_SET	0
#define CLASS_OFFLOADS	5
#define OFFLOADS_SET	0

/* A command: what follows its class and number, read as it is needed. */
struct command {
	struct virtqueue *q;
	const struct virtq_chain *c;
	size_t at;		/* in the readable part */
};

static bool take(struct command *m, void *buf, size_t len)
{
	size_t n = virtq_read(m->q, m->c, m->at, buf, len);

	m->at += n;
	return n == len;
}

static bool at_end(const struct command *m)
{
	return m->at == m->c->readable;
}

/* ---- Commands ------------------------------------------------------------ */

static bool set_rx_mode(struct virtio_net *n, uint8_t number, struct command *m)
{
	uint8_t *const modes[] = {
		[RX_PROMISC] = &n->c.promisc, [RX_ALLMULTI] = &n->c.allmulti,
		[RX_ALLUNI] = &n->c.alluni, [RX_NOMULTI] = &n->c.nomulti,
		[RX_NOUNI] = &n->c.nouni, [RX_NOBCAST] = &n->c.nobcast,
	};
	uint64_t feature = number <= RX_ALLMULTI ? NET_F_CTRL_RX : NET_F_CTRL_RX_EXTRA;
	uint8_t on;

	if (number >= ARRAY_SIZE(modes) || !virtio_has(&n->v, feature) || !take(m, &on, 1) ||
	    !at_end(m))
		return false;
	*modes[number] = on != 0;
	return true;
}

/* One table of 5.1.6.5.2; more entries than we keep: all addresses of its kind are taken. */
static bool take_table(struct command *m, struct net_mac_entry *table, uint8_t *count,
		       uint8_t *overflow)
{
	uint32_t entries;

	if (!take(m, &entries, 4) || entries > (m->c->readable - m->at) / 6)
		return false;
	*overflow = entries > NET_MACS_MAX;
	*count = 0;
	if (*overflow) {
		m->at += 6 * (size_t)entries;
		return true;
	}
	while (*count < entries)
		if (!take(m, table[(*count)++].mac, 6))
			return false;
	return true;
}

static bool set_table(struct virtio_net *n, struct command *m)
{
	struct net_control c = n->c;

	memset(c.uni, 0, sizeof(c.uni));
	memset(c.multi, 0, sizeof(c.multi));
	if (!virtio_has(&n->v, NET_F_CTRL_RX) ||
	    !take_table(m, c.uni, &c.nuni, &c.uni_overflow) ||
	    !take_table(m, c.multi, &c.nmulti, &c.multi_overflow) || !at_end(m))
		return false;
	n->c = c;
	return true;
}

static bool set_mac(struct virtio_net *n, uint8_t number, struct command *m)
{
	uint8_t mac[6];

	if (number == MAC_TABLE_SET)
		return set_table(n, m);
	if (number != MAC_ADDR_SET || !virtio_has(&n->v, NET_F_CTRL_MAC_ADDR) || !take(m, mac, 6) ||
	    !at_end(m))
		return false;
	memcpy(n->c.mac, mac, 6);
	return true;
}

static bool set_vlan(struct virtio_net *n, uint8_t number, struct command *m)
{
	uint16_t id;

	if (number > VLAN_DEL || !virtio_has(&n->v, NET_F_CTRL_VLAN) || !take(m, &id, 2) ||
	    !at_end(m) || id >= 4096)
		return false;
	if (number == VLAN_ADD)
		n->c.vlans[id / 8] |= (uint8_t)(1 << id % 8);
	else
		n->c.vlans[id / 8] &= (uint8_t)~(1 << id % 8);
	return true;
}

/* The configuration changes with it, and the driver is the one who knows, 5.1.6.5.4. */
static bool acknowledge(struct virtio_net *n, uint8_t number, struct command *m)
{
	if (number != ANNOUNCE_ACK || !virtio_has(&n->v, NET_F_GUEST_ANNOUNCE) || !n->c.announce)
		return false;
	n->c.announce = 0;
	return true;
}

static bool set_pairs(struct virtio_net *n, uint8_t number, struct command *m)
{
	uint16_t pairs;

	if (number != MQ_PAIRS_SET || !virtio_has(&n->v, NET_F_MQ) || !take(m, &pairs, 2) ||
	    !at_end(m) || !pairs || pairs > n->max_pairs)
		return false;
	n->c.pairs = pairs;
	return true;
}

static bool set_offloads(struct virtio_net *n, uint8_t number, struct command *m)
{
	uint64_t offloads;

	if (number != OFFLOADS_SET || !virtio_has(&n->v, NET_F_CTRL_GUEST_OFFLOADS) ||
	    !take(m, &offloads, 8) || !at_end(m) ||
	    (offloads & ~(n->v.negotiated & NET_GUEST_OFFLOADS)))
		return false;
	n->c.offloads = offloads;
	net_ctrl_takes(n);
	return true;
}

static bool execute(struct virtio_net *n, struct command *m)
{
	uint8_t head[2];

	if (!take(m, head, 2))
		return false;
	switch (head[0]) {
	case CLASS_RX: return set_rx_mode(n, head[1], m);
	case CLASS_MAC: return set_mac(n, head[1], m);
	case CLASS_VLAN: return set_vlan(n, head[1], m);
	case CLASS_ANNOUNCE: return acknowledge(n, head[1], m);
	case CLASS_MQ: return set_pairs(n, head[1], m);
	case CLASS_OFFLOADS: return set_offloads(n, head[1], m);
	default: return false;
	}
}

void net_ctrl_kick(struct virtio_net *n)
{
	struct virtqueue *q = &n->v.queue[2 * n->max_pairs];
	struct virtq_chain *c = n->chains;
	uint16_t pairs = n->c.pairs;
	uint8_t ack;

	while (virtq_pop(q, c) > 0) {
		struct command m = { q, c, 0 };

		if (!c->writable) {
			virtio_broken(&n->v, "the control queue: a command without a place for its status");
			virtq_unpop(q, c);
			return;
		}
		ack = virtio_has(&n->v, NET_F_CTRL_VQ) && execute(n, &m) ? ACK_OK : ACK_ERR;
		virtq_push(q, c, (uint32_t)virtq_write(q, c, 0, &ack, 1));
	}
	virtq_signal(q);
	/* Buffers may have stood in the new ones before. */
	if (n->c.pairs > pairs)
		net_rx_kick(n);
}

/* ---- Life ---------------------------------------------------------------- */

void net_ctrl_takes(struct virtio_net *n)
{
	uint64_t o = n->c.offloads;

	/* clock=virtual: a frame is a record of the input log, which has no room for large ones. */
	if (!(o & NET_F_GUEST_CSUM))
		o = 0;
	else if (net_virtual(n))
		o = NET_F_GUEST_CSUM;
	net_set_takes(n->backend, (o & NET_F_GUEST_CSUM ? NET_TAKES_CSUM : 0) |
				  (o & NET_F_GUEST_TSO4 ? NET_TAKES_TSO4 : 0) |
				  (o & NET_F_GUEST_TSO6 ? NET_TAKES_TSO6 : 0) |
				  (o & NET_F_GUEST_ECN ? NET_TAKES_ECN : 0));
}

/* A driver without a control queue hears everything that is on the wire. */
void net_ctrl_reset(struct virtio_net *n)
{
	struct net_control c = { .promisc = 1, .pairs = 1, .link = n->c.link };

	memcpy(c.mac, n->c.permanent_mac, 6);
	memcpy(c.permanent_mac, n->c.permanent_mac, 6);
	n->c = c;
	n->restored = false;
	net_ctrl_takes(n);
}

void net_ctrl_start(struct virtio_net *n)
{
	/* What the driver has set since stays: a restore says so itself. */
	if (n->restored) {
		n->restored = false;
		return;
	}
	n->c.offloads = n->v.negotiated & NET_GUEST_OFFLOADS;
	net_ctrl_takes(n);
}

/* ---- Filters ------------------------------------------------------------- */

static bool in_table(const struct net_mac_entry *table, unsigned count, const uint8_t *mac)
{
	for (unsigned i = 0; i < count; i++)
		if (!memcmp(table[i].mac, mac, 6))
			return true;
	return false;
}

static bool vlan_wanted(const struct virtio_net *n, const uint8_t *frame, size_t len)
{
	unsigned id;

	if (!virtio_has(&n->v, NET_F_CTRL_VLAN) || len < 18 || frame[12] != 0x81 || frame[13])
		return true;
	id = (frame[14] & 15u) << 8 | frame[15];
	return n->c.vlans[id / 8] & 1 << id % 8;
}

bool net_ctrl_wants(const struct virtio_net *n, const uint8_t *frame, size_t len)
{
	static const uint8_t everybody[6] = { 0xff, 0xff, 0xff, 0xff, 0xff, 0xff };
	const struct net_control *c = &n->c;

	if (c->promisc)
		return true;
	if (!vlan_wanted(n, frame, len))
		return false;
	if (!memcmp(frame, everybody, 6))
		return !c->nobcast;
	if (frame[0] & 1)
		return !c->nomulti &&
		       (c->allmulti || c->multi_overflow || in_table(c->multi, c->nmulti, frame));
	return !c->nouni && (c->alluni || c->uni_overflow || !memcmp(frame, c->mac, 6) ||
			     in_table(c->uni, c->nuni, frame));
}
