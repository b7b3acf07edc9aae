/* What the backends share among themselves; devices include net/net.h only. */
#ifndef SKEP_NET_BACKEND_H
#define SKEP_NET_BACKEND_H

#include "base/util.h"
#include "net/flows.h"
#include "net/net.h"

/* What stands in frames: network order. */
static inline uint16_t be16(const void *p)
{
	return __builtin_bswap16(load16(p));
}
static inline uint32_t be32(const void *p)
{
	return __builtin_bswap32(load32(p));
}
static inline void put_be16(void *p, uint16_t v)
{
	store16(p, __builtin_bswap16(v));
}
static inline void put_be32(void *p, uint32_t v)
{
	store32(p, __builtin_bswap32(v));
}

struct net_ops {
	/* "slirp" matches as a whole; "unix:" and "tap" as a prefix. */
	const char *name;
	bool prefix;
	const char *help;
	size_t size;		/* of the instance, which starts with struct net_backend */
	unsigned sends;		/* NET_TAKES_*: what send takes besides plain frames */
	int (*open)(struct net_backend *b, const char *arg, struct skep_error *e);
	void (*close)(struct net_backend *b);
	/* Is there room for a frame of NET_FRAME_MAX, cut up or not? */
	bool (*ready)(struct net_backend *b);
	/* After ready, until the next call of it. */
	void (*send)(struct net_backend *b, const uint8_t *frame, size_t len,
		     const struct net_offload *o);
	void (*accept)(struct net_backend *b);	/* the device has room; not while the machine stands */
	void (*takes)(struct net_backend *b);	/* b->takes changed */
	void (*quiesce)(struct net_backend *b);
	void (*resume)(struct net_backend *b);
	/* What the host has not taken, from the start of a frame on, as in struct net_model. */
	const uint8_t *(*unsent)(const struct net_backend *b, size_t *len);
};

struct net_backend {
	const struct net_ops *ops;
	struct vm *vm;
	struct config_node *config;
	char owner[32];
	unsigned takes;
	bool link;
	bool blocked;		/* drained() is owed */
	bool standing;		/* between quiesce and resume */
	struct net_flows *flows;	/* whose connections end with us; NULL: no such */
	struct net_model restored;	/* to be acted on when the machine goes on */
	bool has_restored;

	const struct net_receiver *receiver;
	void *receiver_opaque;
};

/* Nothing goes in or out: the machine stands, or has gone into a snapshot for good. */
bool net_held(const struct net_backend *b);
bool net_room(struct net_backend *b);
/* A frame from the host.  Bad sizes are dropped. */
void net_receive(struct net_backend *b, const uint8_t *frame, size_t len,
		 const struct net_offload *o);
void net_set_link(struct net_backend *b, bool up);
/* ready() may say yes again. */
void net_drained(struct net_backend *b);

/* Default hooks. */
void net_nop(struct net_backend *b);
const uint8_t *net_unsent_nothing(const struct net_backend *b, size_t *len);
bool net_always_ready(struct net_backend *b);

extern const struct net_ops net_null, net_slirp, net_tap, net_unix;

/* ---- offload.c: what hardware would do ----------------------------------- */

/* Is o possible for a frame of this size?  False: the frame is nonsense. */
bool offload_valid(size_t len, const struct net_offload *o);
/* Puts the checksum in its place, as NET_NEEDS_CSUM asks. */
void offload_checksum(uint8_t *frame, size_t len, const struct net_offload *o);
/*
 * Cuts a large TCP segment up and calls emit for each piece, with right checksums.  False: it
 * is not what gso_type says.
 */
bool offload_segment(const uint8_t *frame, size_t len, const struct net_offload *o,
		     void (*emit)(void *opaque, uint8_t *frame, size_t len), void *opaque);

/* Where the parts of a TCP segment lie. */
struct tcp_frame {
	size_t ip, tcp, payload, end;	/* offsets in the frame */
	bool v6;
};

/* False: it is no TCP segment, a fragment, or its lengths do not fit the frame. */
bool offload_find_tcp(const uint8_t *frame, size_t len, struct tcp_frame *t);
/* The Internet checksum (RFC 1071): adds, and folds to the value that goes into a header. */
uint32_t offload_sum(const uint8_t *data, size_t len, uint32_t sum);
uint16_t offload_fold(uint32_t sum);
/* The sum of the pseudo header of a TCP segment of len bytes. */
uint32_t offload_pseudo(const uint8_t *frame, const struct tcp_frame *t, size_t len);

#endif
