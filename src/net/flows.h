/*
 * The guest's TCP connections, as its frames tell them: for a backend that is the other end of
 * each, and that a restored machine no longer has.
 *
 * The table is bounded, and the guest fills it: when it is full the flow that was
 * quiet longest makes way.  Device lock.
 */
#ifndef SKEP_NET_FLOWS_H
#define SKEP_NET_FLOWS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "state/state.h"

/* From the guest's side; addresses and ports in network order, as in the frame. */
struct net_flow {
	uint8_t v6;		/* 0: the addresses' first four bytes */
	uint8_t guest_mac[6], host_mac[6];
	uint8_t guest_ip[16], host_ip[16];
	uint16_t guest_port, host_port;
	uint32_t seq;		/* what the guest sends next */
	uint32_t ack;		/* what the guest has acknowledged: what it takes next */
};

struct net_flows;

struct net_flows *flows_create(void);
void flows_destroy(struct net_flows *f);
/* A frame from the guest, complete and of the guest's own making; anything may be in it. */
void flows_see(struct net_flows *f, const uint8_t *frame, size_t len);
/* One on its way to the guest. */
void flows_hear(struct net_flows *f, const uint8_t *frame, size_t len);
void flows_clear(struct net_flows *f);
unsigned flows_count(const struct net_flows *f);
/* All of them, from malloc, in the order in which they were last used. */
int flows_export(const struct net_flows *f, struct state_list *list);
/* Writes the frame that resets a flow, from the host to the guest; its length. */
#define FLOW_RESET_MAX 74u
size_t flow_reset(const struct net_flow *flow, uint8_t frame[FLOW_RESET_MAX]);

extern const struct state_record net_flow_record;

#endif
