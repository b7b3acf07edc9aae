/* Between the files of virtio-net: net.c, net_ctrl.c, net_rx.c and net_state.c. Device lock. */
#ifndef SKEP_VIRTIO_NET_PRIV_H
#define SKEP_VIRTIO_NET_PRIV_H

#include "net/net.h"
#include "virtio/virtio.h"
#include "vm/vm.h"

/* Feature bits, VIRTIO 1.2, 5.1.3. */
#define NET_F_CSUM		BIT(0)
#define NET_F_GUEST_CSUM	BIT(1)
#define NET_F_CTRL_GUEST_OFFLOADS BIT(2)
#define NET_F_MTU		BIT(3)
#define NET_F_MAC		BIT(5)
#define NET_F_GUEST_TSO4	BIT(7)
#define NET_F_GUEST_TSO6	BIT(8)
#define NET_F_GUEST_ECN		BIT(9)
#define NET_F_HOST_TSO4		BIT(11)
#define NET_F_HOST_TSO6		BIT(12)
#define NET_F_HOST_ECN		BIT(13)
#define NET_F_MRG_RXBUF		BIT(15)
#define NET_F_STATUS		BIT(16)
#define NET_F_CTRL_VQ		BIT(17)
#define NET_F_CTRL_RX		BIT(18)
#define NET_F_CTRL_VLAN		BIT(19)
#define NET_F_CTRL_RX_EXTRA	BIT(20)
#define NET_F_GUEST_ANNOUNCE	BIT(21)
#define NET_F_MQ		BIT(22)
#define NET_F_CTRL_MAC_ADDR	BIT(23)

/* What NET_F_CTRL_GUEST_OFFLOADS switches on and off, 5.1.6.5.6. */
#define NET_GUEST_OFFLOADS \
	(NET_F_GUEST_CSUM | NET_F_GUEST_TSO4 | NET_F_GUEST_TSO6 | NET_F_GUEST_ECN)

#define NET_S_LINK_UP	1
#define NET_S_ANNOUNCE	2

#define NET_HEADER	12u	/* struct virtio_net_hdr, 5.1.6 */
#define NET_PAIRS_MAX	8u
#define NET_QUEUE_SIZE	256u
#define NET_MACS_MAX	64u	/* entries of each filter table */
#define NET_STEER	256u	/* flows that are told apart by their hash */
#define NET_MERGE_MAX	64u	/* buffers that one frame is spread over */
/* Frames that wait for buffers: the backend is held back by the first, and bounded by the rest. */
#define NET_BACKLOG	32u
#define NET_BACKLOG_MAX	1024u
#define NET_BACKLOG_BYTES (4u << 20)

struct net_mac_entry {
	uint8_t mac[6];
};

/* What the driver programs, and what follows from the wire: live and model are the same. */
struct net_control {
	uint8_t mac[6];
	uint8_t permanent_mac[6];
	uint8_t promisc, allmulti, alluni, nomulti, nouni, nobcast;
	uint8_t nuni, nmulti;			/* entries; of more, 5.1.6.5.2: all are taken */
	uint8_t uni_overflow, multi_overflow;
	struct net_mac_entry uni[NET_MACS_MAX], multi[NET_MACS_MAX];
	uint8_t vlans[512];			/* a bit a VLAN id */
	uint8_t announce;			/* NET_S_ANNOUNCE */
	uint8_t link;				/* NET_S_LINK_UP, as the driver has been told */
	uint16_t pairs;				/* queue pairs in use */
	uint64_t offloads;			/* of NET_GUEST_OFFLOADS, in use */
	uint8_t steer[NET_STEER];		/* the pair that a flow was last sent on */
};

/* A frame that waits for a buffer. */
struct net_waiting {
	struct net_waiting *next;
	struct net_offload o;
	uint16_t pair;
	uint32_t len;
	uint8_t data[];
};

struct virtio_net {
	struct virtio v;	/* first */
	struct net_backend *backend;
	struct net_control c;
	unsigned max_pairs;
	uint16_t mtu;
	struct input_port input;

	struct net_waiting *waiting, **waiting_end;
	unsigned nwaiting;
	size_t waiting_bytes;
	bool was_full;			/* net_accept is owed */

	bool restored;			/* the next start is that of a restore */
	bool announce;			/* so is the next resume */
	bool tx_posted;
	struct virtq_chain *tx_chain;	/* owned; what is being sent */
	struct virtq_chain *chains;	/* NET_MERGE_MAX of them */
	uint8_t *frame;			/* on its way out */
};

static inline struct virtio_net *net_of(const struct virtio *v)
{
	return container_of((struct virtio *)v, struct virtio_net, v);
}
static inline struct virtqueue *net_rxq(struct virtio_net *n, unsigned pair)
{
	return &n->v.queue[2 * pair];
}
static inline struct virtqueue *net_txq(struct virtio_net *n, unsigned pair)
{
	return &n->v.queue[2 * pair + 1];
}
static inline bool net_virtual(const struct virtio_net *n)
{
	return n->v.pci.dev.vm->clock.mode == CLOCK_MODE_VIRTUAL;
}

/* net.c: the backend takes frames again. */
void virtio_net_drained(struct virtio_net *n);

/* ---- net_rx.c: frames for the guest -------------------------------------- */

extern const struct net_receiver net_receiver;
/* What vm_input delivers: a frame, or a change of the link. */
void net_deliver(void *opaque, const uint8_t *data, size_t len);
/* Buffers have come: what waits goes into them. */
void net_rx_kick(struct virtio_net *n);
void net_rx_drop_waiting(struct virtio_net *n);
/* Appends to what waits, within the bounds. */
void net_rx_wait(struct virtio_net *n, unsigned pair, const uint8_t *frame, size_t len,
		 const struct net_offload *o);
/* Which flow is it, of NET_STEER? */
unsigned net_flow_hash(const uint8_t *frame, size_t len);

/* ---- net_ctrl.c: the control queue --------------------------------------- */

void net_ctrl_kick(struct virtio_net *n);
/* As after a reset; then as the driver is ready. */
void net_ctrl_reset(struct virtio_net *n);
void net_ctrl_start(struct virtio_net *n);
/* Is the frame one that the driver wants? */
bool net_ctrl_wants(const struct virtio_net *n, const uint8_t *frame, size_t len);
/* Tells the backend what the guest takes now. */
void net_ctrl_takes(struct virtio_net *n);

/* ---- net_state.c --------------------------------------------------------- */

void virtio_net_export(const struct virtio *v, void *model);
int virtio_net_validate(const struct virtio *v, const void *model, struct skep_error *e);
void virtio_net_commit(struct virtio *v, const void *model);
extern const struct state_record virtio_net_record;

#endif
