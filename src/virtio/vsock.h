/*
 * virtio-vsock, VIRTIO 1.2, section 5.10: its table entries, and the seam between the device
 * (vsock.c: rings, state) and the host's sockets (vsock_host.c).  Packets cross it in both
 * directions; those for the guest come from outside, and pass vm_input on their way. Device lock.
 */
#ifndef SKEP_VIRTIO_VSOCK_H
#define SKEP_VIRTIO_VSOCK_H

#include "virtio/virtio.h"

extern const struct virtio_type virtio_vsock_type;
extern const struct state_record virtio_vsock_record;

#define VSOCK_HOST_CID		2u
#define VSOCK_HEADER		44u
#define VSOCK_GUEST_DATA	65536u	/* bytes in a packet from the guest, at most */
#define VSOCK_HOST_DATA		16384u	/* and in one from the host */

#define VSOCK_STREAM		1

enum vsock_op {
	VSOCK_REQUEST = 1, VSOCK_RESPONSE, VSOCK_RST, VSOCK_SHUTDOWN, VSOCK_RW,
	VSOCK_CREDIT_UPDATE, VSOCK_CREDIT_REQUEST,
};

/* Flags of VSOCK_SHUTDOWN: what the sender of it does no more. */
#define VSOCK_NO_RECEIVE	1
#define VSOCK_NO_SEND		2

/* 5.10.6, without the two cids, which say nothing new. */
struct vsock_packet {
	uint32_t src_port, dst_port;
	uint32_t len;		/* of the payload */
	uint16_t type, op;
	uint32_t flags;
	uint32_t buf_alloc, fwd_cnt;
};

struct vsock_receiver {
	bool (*room)(void *opaque);	/* for data, and whatever else the host begins */
	/* A packet for the guest; always taken. */
	void (*packet)(void *opaque, const struct vsock_packet *p, const uint8_t *data);
};

struct vsock_host;

/*
 * Listens on the Unix socket at path.  Who connects writes "CONNECT port\n", reads "OK port\n",
 * and is connected to the guest's port.  A guest that connects to port P of the host finds
 * whoever listens on the Unix socket "path_P".  vm thread, before any vCPU.
 */
struct vsock_host *vsock_host_create(struct vm *vm, const char *owner, const char *path,
				     const struct vsock_receiver *r, void *opaque,
				     struct skep_error *e);
void vsock_host_destroy(struct vsock_host *h);		/* NULL is fine */
/* A packet of the guest's; its answers come from within. */
void vsock_host_packet(struct vsock_host *h, const struct vsock_packet *p, const uint8_t *data);
/* room() says yes again. */
void vsock_host_accept(struct vsock_host *h);
/* Ends all connections; the guest is not told. */
void vsock_host_reset(struct vsock_host *h);
unsigned vsock_host_connections(const struct vsock_host *h);
void vsock_host_quiesce(struct vsock_host *h);
void vsock_host_resume(struct vsock_host *h);

#endif
