/*
 * Network backends: where the frames of a network device come from and go to.
 *
 *	slirp		the host's own connections, through libslirp: no rights are needed
 *	tapN, tap=NAME	a tap interface of the host
 *	unix:/path	the wire to another machine, or to passt: a Unix stream socket
 *	null		nothing: frames vanish
 *
 * A frame begins with its Ethernet header and has no checksum at its end.  What a device does
 * not do itself travels beside it in struct net_offload, in the terms of VIRTIO 1.2, 5.1.6; what
 * the backend cannot do is done here in software, so that a device may offer the same features
 * whatever it is connected to.
 *
 * Pacing.  A backend hands over a frame only after room() said yes; but libslirp sends all that
 * a window holds at once, and what is beyond a device's bound is lost, as on any network.  A device
 * that had no room calls net_accept when it has some.  net_send says false when the host takes
 * nothing now: the frame is still the device's, and drained() says when to ask again.  Neither
 * side ever blocks.
 *
 * While the machine stands nothing goes out and nothing reaches the device.  What a backend
 * holds then, which is a frame that the host took half of and little more, is saved by content.
 *
 * The device lock is held for every function and callback here.  Callbacks come from the vm
 * thread, or from within net_send.
 */
#ifndef SKEP_NET_NET_H
#define SKEP_NET_NET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "base/error.h"
#include "config/config.h"
#include "state/state.h"

#define NET_FRAME_MIN	14u			/* an Ethernet header */
#define NET_FRAME_MAX	(65535u + 18)		/* of an IP packet, with a VLAN tag */
#define NET_UNSENT_MAX	(8u << 20)		/* bytes that wait for the host, at most */
#define NET_FLOWS_MAX	1024u			/* connections that are remembered */

struct vm;
struct net_backend;

/* struct net_offload's flags and gso_type, VIRTIO 1.2, 5.1.6. */
#define NET_NEEDS_CSUM	1	/* the checksum from csum_start on is to be put at csum_offset */
#define NET_DATA_VALID	2	/* the checksum has been looked at: it is right */
#define NET_GSO_NONE	0
#define NET_GSO_TCPV4	1
#define NET_GSO_UDP	3
#define NET_GSO_TCPV6	4
#define NET_GSO_ECN	0x80	/* with a TCPV: the ECN bits are set */

struct net_offload {
	uint8_t flags;
	uint8_t gso_type;
	uint16_t hdr_len;	/* a hint; never relied on */
	uint16_t gso_size;	/* payload bytes of each segment */
	uint16_t csum_start;	/* from the start of the frame */
	uint16_t csum_offset;	/* from csum_start */
};

/* What a device takes besides whole frames with right checksums. */
#define NET_TAKES_CSUM	1	/* NET_NEEDS_CSUM */
#define NET_TAKES_TSO4	2
#define NET_TAKES_TSO6	4
#define NET_TAKES_ECN	8

/* The device's side. */
struct net_receiver {
	bool (*room)(void *opaque);
	/* Copies what it wants to keep; len is NET_FRAME_MIN to NET_FRAME_MAX. */
	void (*receive)(void *opaque, const uint8_t *frame, size_t len,
			const struct net_offload *o);
	void (*link)(void *opaque, bool up);	/* it changed */
	void (*drained)(void *opaque);		/* net_send said false */
};

/* A device's keys for its backend; for the middle of its own array of keys. */
#define NET_BACKEND_KEYS \
	{ .name = "backend", .type = CONFIG_STRING, .def = "null", \
	  .help = "slirp, tapN, tap=NAME, unix:/path or null" }, \
	{ .name = "hostfwd", .type = CONFIG_STRING, \
	  .help = "slirp: tcp:[host address]:port-[guest address]:port, several with ';'; a host " \
	  "address that is left out is 127.0.0.1" }, \
	{ .name = "open", .type = CONFIG_BOOL, .def = "true", \
	  .help = "slirp: the guest may open connections to the outside" }, \
	{ .name = "mac", .type = CONFIG_STRING, \
	  .help = "Ethernet address, xx:xx:xx:xx:xx:xx; unset: made from the machine's name and the " \
	  "slot" }, \
	{ .name = "mtu", .type = CONFIG_UINT, .min = 68, .max = 65521, \
	  .help = "largest packet, which the guest is told; unset: it is not told, and 1500 is meant" }

/*
 * Opens what the keys at config (NET_BACKEND_KEYS) describe.  owner is the configuration path
 * ("pci.0.2.0") and names the device in sentences; copied.  A machine that replays its input
 * gets null, since nothing from outside would be heard.  vm thread, before any vCPU runs; NULL
 * with e set on failure.
 */
struct net_backend *net_create(struct vm *vm, const char *owner, struct config_node *config,
			       struct skep_error *e);
void net_destroy(struct net_backend *b);	/* NULL is fine */
void net_set_receiver(struct net_backend *b, const struct net_receiver *r, void *opaque);

/*
 * Sends a frame of NET_FRAME_MIN to NET_FRAME_MAX bytes, which the call may change and the
 * guest may not.  o may be NULL.  True: it is on its way (or was nonsense, and is gone).
 */
bool net_send(struct net_backend *b, uint8_t *frame, size_t len, const struct net_offload *o);
/* Would net_send take a frame now? */
bool net_ready(struct net_backend *b);
/* room() says yes again. */
void net_accept(struct net_backend *b);
/* What the device takes: NET_TAKES_*. */
void net_set_takes(struct net_backend *b, unsigned takes);
bool net_link(const struct net_backend *b);

/* The machine is about to stand, and goes on (soon, on the vm thread). */
void net_quiesce(struct net_backend *b);
void net_resume(struct net_backend *b);

/*
 * What of the host's side a restored machine needs.  unsent: frames that the host has not taken, or
 * in part only, each with its length in four bytes (network order) in front; they go out, whole, on
 * a new wire.  flows: the guest's TCP connections that
 * end with this process, of struct net_flow: a restored machine's are reset, by a segment that
 * the guest cannot tell from its peer's.
 */
struct net_model {
	struct state_blob unsent;
	struct state_list flows;
};

extern const struct state_record net_record;

/* -ENOMEM: not all is there. */
int net_export(const struct net_backend *b, struct net_model *m);
/* Names what cannot be. */
int net_validate(const char *owner, const struct net_model *m, struct skep_error *e);
/* The machine stands; what follows from it happens when it goes on. */
void net_import(struct net_backend *b, const struct net_model *m);

/* One line a backend, for help. Any thread, no lock. */
void net_describe(FILE *out);

/*
 * The address of mac= at config, or one that the machine's name and owner give: bhyve's range
 * 58:9c:fc, the same at every start.
 */
int net_mac(struct vm *vm, const char *owner, struct config_node *config, uint8_t mac[6],
	    struct skep_error *e);

#endif
