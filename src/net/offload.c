/*
 * Checksums and segmentation in software, for backends that leave them to the sender.  Every
 * offset comes from the guest, and is compared with the frame before it is used.
 */
#include <string.h>

#include "base/util.h"
#include "net/backend.h"

#define ETHERTYPE_IPV4	0x0800
#define ETHERTYPE_VLAN	0x8100
#define ETHERTYPE_IPV6	0x86dd
#define IPPROTO_TCP_	6

/* TCP header, RFC 9293, 3.1. */
#define TCP_SEQ		4
#define TCP_OFFSET	12
#define TCP_FLAGS	13
#define TCP_CSUM	16
#define TCP_HEADER	20u
#define TCP_FIN		0x01
#define TCP_PSH		0x08
#define TCP_CWR		0x80

/*
 * One's complement addition works in any byte order: words are added as they lie in memory, eight
 * bytes at a time, and the result is turned at the end.
 */
uint32_t offload_sum(const uint8_t *data, size_t len, uint32_t sum)
{
	uint64_t s = 0;
	uint32_t folded;

	for (; len >= 8; data += 8, len -= 8) {
		uint64_t v = load64(data);

		s += (uint32_t)v;
		s += v >> 32;
	}
	for (; len >= 2; data += 2, len -= 2)
		s += load16(data);
	if (len)
		s += *data;
	while (s >> 16)
		s = (s & 0xffff) + (s >> 16);
	folded = __builtin_bswap16((uint16_t)s);
	return sum + folded;
}

uint16_t offload_fold(uint32_t sum)
{
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return (uint16_t)~sum;
}

bool offload_valid(size_t len, const struct net_offload *o)
{
	uint8_t type = o->gso_type & ~NET_GSO_ECN;

	if ((o->flags & NET_NEEDS_CSUM) &&
	    (size_t)o->csum_start + o->csum_offset + 2 > len)
		return false;
	if (type == NET_GSO_NONE)
		return !(o->gso_type & NET_GSO_ECN);
	/* A large segment's checksums cannot be there yet, 5.1.6.2.1. */
	return (type == NET_GSO_TCPV4 || type == NET_GSO_TCPV6) && o->gso_size &&
	       (o->flags & NET_NEEDS_CSUM);
}

void offload_checksum(uint8_t *frame, size_t len, const struct net_offload *o)
{
	size_t at = (size_t)o->csum_start + o->csum_offset;
	uint16_t csum = offload_fold(offload_sum(frame + o->csum_start, len - o->csum_start, 0));

	/* For UDP zero means that there is none; for TCP both are the same (RFC 768). */
	put_be16(frame + at, csum ? csum : 0xffff);
}

/* The place of the IP header, behind at most one VLAN tag; *type: what follows it. */
static size_t find_ip(const uint8_t *frame, size_t len, uint16_t *type)
{
	*type = be16(frame + 12);
	if (*type != ETHERTYPE_VLAN)
		return 14;
	if (len < 18)
		return 0;
	*type = be16(frame + 16);
	return 18;
}

static bool find_ipv4(const uint8_t *frame, size_t len, struct tcp_frame *t)
{
	const uint8_t *ip = frame + t->ip;
	size_t header, total;

	if (len < t->ip + 20 || ip[0] >> 4 != 4)
		return false;
	header = (size_t)(ip[0] & 15) * 4;
	total = be16(ip + 2);
	/* No fragments: only the first one has a TCP header. */
	if (header < 20 || ip[9] != IPPROTO_TCP_ || (be16(ip + 6) & 0x3fff))
		return false;
	t->tcp = t->ip + header;
	t->end = t->ip + total;
	return true;
}

static bool find_ipv6(const uint8_t *frame, size_t len, struct tcp_frame *t)
{
	const uint8_t *ip = frame + t->ip;

	/* With extension headers it is left alone. */
	if (len < t->ip + 40 || ip[0] >> 4 != 6 || ip[6] != IPPROTO_TCP_)
		return false;
	t->tcp = t->ip + 40;
	t->end = t->tcp + be16(ip + 4);
	return true;
}

bool offload_find_tcp(const uint8_t *frame, size_t len, struct tcp_frame *t)
{
	uint16_t type;

	if (len < NET_FRAME_MIN)
		return false;
	t->ip = find_ip(frame, len, &type);
	t->v6 = type == ETHERTYPE_IPV6;
	if (!t->ip || !(type == ETHERTYPE_IPV4 ? find_ipv4(frame, len, t) :
			type == ETHERTYPE_IPV6 ? find_ipv6(frame, len, t) : false))
		return false;
	if (t->end > len || t->tcp + TCP_HEADER > t->end)
		return false;
	t->payload = t->tcp + (size_t)(frame[t->tcp + TCP_OFFSET] >> 4) * 4;
	return t->payload >= t->tcp + TCP_HEADER && t->payload <= t->end;
}

uint32_t offload_pseudo(const uint8_t *frame, const struct tcp_frame *t, size_t len)
{
	uint32_t sum = IPPROTO_TCP_ + (uint32_t)len;

	return t->v6 ? offload_sum(frame + t->ip + 8, 32, sum) :
	       offload_sum(frame + t->ip + 12, 8, sum);
}

/* Headers of one piece: n bytes of payload from `at` on, of total. */
static void fix_headers(uint8_t *piece, const struct tcp_frame *t, size_t at, size_t n,
			size_t total, unsigned number)
{
	uint8_t *ip = piece + t->ip, *tcp = piece + t->tcp;
	size_t tcp_len = t->payload - t->tcp + n;

	if (t->v6) {
		put_be16(ip + 4, (uint16_t)tcp_len);
	} else {
		put_be16(ip + 2, (uint16_t)(t->tcp - t->ip + tcp_len));
		put_be16(ip + 4, (uint16_t)(be16(ip + 4) + number));
		put_be16(ip + 10, 0);
		put_be16(ip + 10, offload_fold(offload_sum(ip, t->tcp - t->ip, 0)));
	}
	put_be32(tcp + TCP_SEQ, be32(tcp + TCP_SEQ) + (uint32_t)at);
	/* FIN and PSH belong to the last byte, CWR to the first segment (RFC 3168, 6.1.2). */
	if (at + n < total)
		tcp[TCP_FLAGS] &= ~(TCP_FIN | TCP_PSH);
	if (at)
		tcp[TCP_FLAGS] &= ~TCP_CWR;
	put_be16(tcp + TCP_CSUM, 0);
	put_be16(tcp + TCP_CSUM,
		 offload_fold(offload_sum(tcp, tcp_len, offload_pseudo(piece, t, tcp_len))));
}

bool offload_segment(const uint8_t *frame, size_t len, const struct net_offload *o,
		     void (*emit)(void *opaque, uint8_t *frame, size_t len), void *opaque)
{
	uint8_t piece[NET_FRAME_MAX];
	struct tcp_frame t;
	size_t at = 0, total;
	unsigned number = 0;

	if (!offload_find_tcp(frame, len, &t) ||
	    t.v6 != ((o->gso_type & ~NET_GSO_ECN) == NET_GSO_TCPV6))
		return false;
	total = t.end - t.payload;
	do {
		size_t n = MIN(total - at, (size_t)o->gso_size);

		memcpy(piece, frame, t.payload);
		memcpy(piece + t.payload, frame + t.payload + at, n);
		fix_headers(piece, &t, at, n, total, number++);
		emit(opaque, piece, t.payload + n);
		at += n;
	} while (at < total);
	return true;
}
