/*
 * Large segments through slirp, in both directions.
 *
 * libslirp sends segments as large as its peer says it takes, and knows no offloads.  A guest that
 * takes large segments (GUEST_TSO4) takes many packets in one frame: so its maximum segment size is
 * raised on the way to the library, and what comes is handed over as one frame with the size
 * that the guest said.  What the library makes larger than the guest's MTU otherwise is cut up here.
 */
#include <string.h>

#include "base/util.h"
#include "net/slirp_large.h"

#define TCP_SYN		0x02
#define OPTION_END	0
#define OPTION_NOP	1
#define OPTION_MSS	2

static uint8_t *find_mss(uint8_t *frame, const struct tcp_frame *t)
{
	for (size_t at = t->tcp + 20; at + 4 <= t->payload && frame[at] != OPTION_END; ) {
		if (frame[at] == OPTION_MSS && frame[at + 1] == 4)
			return frame + at + 2;
		at += frame[at] == OPTION_NOP ? 1 : MAX(frame[at + 1], 2);
	}
	return NULL;
}

bool slirp_raise_mss(const uint8_t *frame, size_t len, uint8_t copy[SLIRP_SYN_MAX])
{
	struct tcp_frame t;
	uint8_t *mss;
	size_t n;

	if (len > SLIRP_SYN_MAX || !offload_find_tcp(frame, len, &t) || t.v6 ||
	    !(frame[t.tcp + 13] & TCP_SYN))
		return false;
	memcpy(copy, frame, len);
	mss = find_mss(copy, &t);
	/* A wrong checksum is not ours to make right. */
	n = t.end - t.tcp;
	if (!mss || be16(mss) >= SLIRP_MTU - 40 ||
	    offload_fold(offload_sum(copy + t.tcp, n, offload_pseudo(copy, &t, n))))
		return false;
	put_be16(mss, SLIRP_MTU - 40);
	put_be16(copy + t.tcp + 16, 0);
	put_be16(copy + t.tcp + 16,
		 offload_fold(offload_sum(copy + t.tcp, n, offload_pseudo(copy, &t, n))));
	return true;
}

/* RFC 791, 3.2: pieces of an IPv4 packet, each but the last a multiple of eight bytes. */
static void fragment(struct net_backend *b, uint8_t *frame, size_t len, size_t mtu)
{
	size_t header = (size_t)(frame[14] & 15) * 4, total = be16(frame + 16), each, at, n;
	uint8_t piece[14 + SLIRP_MTU];

	if (header < 20 || total < header || 14 + total > len || mtu < header + 8)
		return;
	each = (mtu - header) & ~(size_t)7;
	for (at = 0; at < total - header; at += n) {
		n = MIN(each, total - header - at);
		memcpy(piece, frame, 14 + header);
		memcpy(piece + 14 + header, frame + 14 + header + at, n);
		put_be16(piece + 16, (uint16_t)(header + n));
		put_be16(piece + 20, (uint16_t)(at / 8 | (at + n < total - header ? 0x2000 : 0)));
		put_be16(piece + 24, 0);
		put_be16(piece + 24, offload_fold(offload_sum(piece + 14, header, 0)));
		net_receive(b, piece, 14 + header + n, NULL);
	}
}

static void emit(void *opaque, uint8_t *frame, size_t len)
{
	net_receive(opaque, frame, len, NULL);
}

void slirp_receive_large(struct net_backend *b, uint8_t *frame, size_t len, size_t mtu)
{
	struct net_offload o = { .flags = NET_NEEDS_CSUM, .gso_type = NET_GSO_TCPV4, .csum_offset = 16 };
	struct tcp_frame t;

	if (!offload_find_tcp(frame, len, &t) || t.v6 || mtu + 14 <= t.payload) {
		if (be16(frame + 12) == 0x0800)
			fragment(b, frame, len, mtu);
		else
			net_receive(b, frame, len, NULL);	/* IPv6: the guest's to take or to drop */
		return;
	}
	o.hdr_len = (uint16_t)t.payload;
	o.gso_size = (uint16_t)(mtu + 14 - t.payload);
	o.csum_start = (uint16_t)t.tcp;
	if ((b->takes & (NET_TAKES_CSUM | NET_TAKES_TSO4)) != (NET_TAKES_CSUM | NET_TAKES_TSO4)) {
		offload_segment(frame, len, &o, emit, b);
		return;
	}
	/* 5.1.6.4: the checksum is to be completed by who needs it, from that of the pseudo header. */
	put_be16(frame + t.tcp + 16, (uint16_t)~offload_fold(offload_pseudo(frame, &t, t.end - t.tcp)));
	net_receive(b, frame, t.end, &o);
}
