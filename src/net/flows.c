/* The guest's TCP connections: a hash table with a list in order of use through it. */
#include "net/flows.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "net/backend.h"

#define BUCKETS		256u	/* a power of two */
#define NONE		UINT16_MAX

/* TCP flags, RFC 9293, 3.1. */
#define TCP_FIN		0x01
#define TCP_SYN		0x02
#define TCP_RST		0x04
#define TCP_ACK		0x10

struct entry {
	struct net_flow f;
	bool guest_closed, host_closed;	/* it has sent its FIN */
	uint16_t next;		/* in the bucket, or free */
	uint16_t newer, older;	/* by use */
};

struct net_flows {
	uint16_t buckets[BUCKETS];
	uint16_t free, newest, oldest;
	unsigned count;
	struct entry entries[NET_FLOWS_MAX];
};

void flows_clear(struct net_flows *f)
{
	for (unsigned i = 0; i < BUCKETS; i++)
		f->buckets[i] = NONE;
	for (unsigned i = 0; i < NET_FLOWS_MAX; i++)
		f->entries[i].next = i + 1 < NET_FLOWS_MAX ? (uint16_t)(i + 1) : NONE;
	f->free = 0;
	f->newest = f->oldest = NONE;
	f->count = 0;
}

struct net_flows *flows_create(void)
{
	struct net_flows *f = calloc(1, sizeof(*f));

	if (f)
		flows_clear(f);
	return f;
}

void flows_destroy(struct net_flows *f)
{
	free(f);
}

unsigned flows_count(const struct net_flows *f)
{
	return f->count;
}

static bool same(const struct net_flow *a, const struct net_flow *b)
{
	return a->v6 == b->v6 && a->guest_port == b->guest_port && a->host_port == b->host_port &&
	       !memcmp(a->guest_ip, b->guest_ip, 16) && !memcmp(a->host_ip, b->host_ip, 16);
}

/* A guest that makes collisions slows itself down, and by no more than the table's size. */
static uint16_t *bucket(struct net_flows *f, const struct net_flow *k)
{
	uint32_t h = k->guest_port * 31u + k->host_port;

	h = h * 31 + load32(k->guest_ip) + load32(k->guest_ip + 12);
	h = h * 31 + load32(k->host_ip) + load32(k->host_ip + 12);
	h *= 0x9e3779b1u;
	return &f->buckets[h >> 24];
}

static void unlink_use(struct net_flows *f, uint16_t i)
{
	struct entry *e = &f->entries[i];

	*(e->newer == NONE ? &f->newest : &f->entries[e->newer].older) = e->older;
	*(e->older == NONE ? &f->oldest : &f->entries[e->older].newer) = e->newer;
}

static void link_newest(struct net_flows *f, uint16_t i)
{
	struct entry *e = &f->entries[i];

	e->newer = NONE;
	e->older = f->newest;
	if (f->newest != NONE)
		f->entries[f->newest].newer = i;
	else
		f->oldest = i;
	f->newest = i;
}

static void forget(struct net_flows *f, uint16_t i)
{
	uint16_t *p = bucket(f, &f->entries[i].f);

	while (*p != i)
		p = &f->entries[*p].next;
	*p = f->entries[i].next;
	unlink_use(f, i);
	f->entries[i].next = f->free;
	f->free = i;
	f->count--;
}

static uint16_t find(struct net_flows *f, const struct net_flow *k)
{
	uint16_t i = *bucket(f, k);

	while (i != NONE && !same(&f->entries[i].f, k))
		i = f->entries[i].next;
	return i;
}

static uint16_t add(struct net_flows *f, const struct net_flow *k)
{
	uint16_t *b = bucket(f, k), i;

	if (f->free == NONE)
		forget(f, f->oldest);
	i = f->free;
	f->free = f->entries[i].next;
	f->entries[i] = (struct entry){ .f = *k, .next = *b };
	*b = i;
	link_newest(f, i);
	f->count++;
	return i;
}

static void key_of(const uint8_t *frame, const struct tcp_frame *t, struct net_flow *k)
{
	const uint8_t *ip = frame + t->ip, *tcp = frame + t->tcp;

	memset(k, 0, sizeof(*k));
	k->v6 = t->v6;
	memcpy(k->host_mac, frame, 6);
	memcpy(k->guest_mac, frame + 6, 6);
	memcpy(k->guest_ip, ip + (t->v6 ? 8 : 12), t->v6 ? 16 : 4);
	memcpy(k->host_ip, ip + (t->v6 ? 24 : 16), t->v6 ? 16 : 4);
	k->guest_port = load16(tcp);
	k->host_port = load16(tcp + 2);
	k->seq = be32(tcp + 4);
	k->ack = be32(tcp + 8);
}

/* The same, of a frame that goes the other way. */
static void key_to(const uint8_t *frame, const struct tcp_frame *t, struct net_flow *k)
{
	const uint8_t *ip = frame + t->ip, *tcp = frame + t->tcp;

	memset(k, 0, sizeof(*k));
	k->v6 = t->v6;
	memcpy(k->host_ip, ip + (t->v6 ? 8 : 12), t->v6 ? 16 : 4);
	memcpy(k->guest_ip, ip + (t->v6 ? 24 : 16), t->v6 ? 16 : 4);
	k->host_port = load16(tcp);
	k->guest_port = load16(tcp + 2);
}

void flows_see(struct net_flows *f, const uint8_t *frame, size_t len)
{
	struct tcp_frame t;
	struct net_flow k;
	uint16_t i;
	uint8_t flags;

	if (!offload_find_tcp(frame, len, &t))
		return;
	key_of(frame, &t, &k);
	flags = frame[t.tcp + 13];
	i = find(f, &k);
	if (flags & TCP_RST) {
		if (i != NONE)
			forget(f, i);
		return;
	}
	if (!k.guest_port || !k.host_port)
		return;
	if (i == NONE)
		i = add(f, &k);
	unlink_use(f, i);
	link_newest(f, i);
	k.seq += (uint32_t)(t.end - t.payload) + !!(flags & TCP_SYN) + !!(flags & TCP_FIN);
	if (!(flags & TCP_ACK))
		k.ack = 0;
	f->entries[i].f = k;
	f->entries[i].guest_closed |= !!(flags & TCP_FIN);
	/* Both have said that they are done: whatever comes yet, there is nothing to reset. */
	if (f->entries[i].guest_closed && f->entries[i].host_closed)
		forget(f, i);
}

void flows_hear(struct net_flows *f, const uint8_t *frame, size_t len)
{
	struct tcp_frame t;
	struct net_flow k;
	uint8_t flags;
	uint16_t i;

	if (!offload_find_tcp(frame, len, &t))
		return;
	flags = frame[t.tcp + 13];
	if (!(flags & (TCP_FIN | TCP_RST)))
		return;
	key_to(frame, &t, &k);
	i = find(f, &k);
	if (i == NONE)
		return;
	f->entries[i].host_closed = true;
	if ((flags & TCP_RST) || f->entries[i].guest_closed)
		forget(f, i);
}

int flows_export(const struct net_flows *f, struct state_list *list)
{
	struct net_flow *out;

	if (!f->count)
		return 0;
	out = calloc(f->count, sizeof(*out));
	if (!out)
		return -ENOMEM;
	list->items = out;
	list->count = f->count;
	for (uint16_t i = f->oldest; i != NONE; i = f->entries[i].newer)
		*out++ = f->entries[i].f;
	return 0;
}

static void reset_ipv4(const struct net_flow *flow, uint8_t *ip)
{
	ip[0] = 0x45;
	put_be16(ip + 2, 40);
	ip[8] = 64;	/* time to live */
	ip[9] = 6;	/* TCP */
	memcpy(ip + 12, flow->host_ip, 4);
	memcpy(ip + 16, flow->guest_ip, 4);
	put_be16(ip + 10, offload_fold(offload_sum(ip, 20, 0)));
}

static void reset_ipv6(const struct net_flow *flow, uint8_t *ip)
{
	ip[0] = 0x60;
	put_be16(ip + 4, 20);
	ip[6] = 6;	/* TCP */
	ip[7] = 64;	/* hop limit */
	memcpy(ip + 8, flow->host_ip, 16);
	memcpy(ip + 24, flow->guest_ip, 16);
}

/*
 * RFC 9293, 3.10.7.4: the guest takes a reset whose sequence number is the very next; one that waits
 * for an answer to its SYN, if the reset acknowledges that.
 */
size_t flow_reset(const struct net_flow *flow, uint8_t frame[FLOW_RESET_MAX])
{
	struct tcp_frame t = { .ip = 14, .tcp = flow->v6 ? 54 : 34, .v6 = flow->v6 };
	uint8_t *tcp = frame + t.tcp;

	memset(frame, 0, FLOW_RESET_MAX);
	memcpy(frame, flow->guest_mac, 6);
	memcpy(frame + 6, flow->host_mac, 6);
	put_be16(frame + 12, flow->v6 ? 0x86dd : 0x0800);
	if (flow->v6)
		reset_ipv6(flow, frame + t.ip);
	else
		reset_ipv4(flow, frame + t.ip);
	store16(tcp, flow->host_port);
	store16(tcp + 2, flow->guest_port);
	put_be32(tcp + 4, flow->ack);
	put_be32(tcp + 8, flow->seq);
	tcp[12] = 5 << 4;
	tcp[13] = TCP_RST | TCP_ACK;
	put_be16(tcp + 16, offload_fold(offload_sum(tcp, 20, offload_pseudo(frame, &t, 20))));
	return t.tcp + 20;
}

static const struct state_field flow_fields[] = {
	STATE_BOOL(struct net_flow, v6),
	STATE_BYTES(struct net_flow, guest_mac),
	STATE_BYTES(struct net_flow, host_mac),
	STATE_BYTES(struct net_flow, guest_ip),
	STATE_BYTES(struct net_flow, host_ip),
	STATE_U16(struct net_flow, guest_port),
	STATE_U16(struct net_flow, host_port),
	STATE_U32(struct net_flow, seq),
	STATE_U32(struct net_flow, ack),
};

const struct state_record net_flow_record = {
	.kind = "net-flow",
	.version = 1,
	.model_size = sizeof(struct net_flow),
	.fields = flow_fields,
	.nfields = ARRAY_SIZE(flow_fields),
};
