/* A wire that leads nowhere: frames vanish, and the link is up. */
#include "net/backend.h"

static int null_open(struct net_backend *b, const char *arg, struct skep_error *e)
{
	b->link = true;
	return 0;
}

static void null_send(struct net_backend *b, const uint8_t *frame, size_t len,
		      const struct net_offload *o)
{
}

const struct net_ops net_null = {
	.name = "null",
	.help = "frames vanish",
	.size = sizeof(struct net_backend),
	.sends = ~0u,
	.open = null_open,
	.close = net_nop,
	.ready = net_always_ready,
	.send = null_send,
	.accept = net_nop,
	.takes = net_nop,
	.quiesce = net_nop,
	.resume = net_nop,
	.unsent = net_unsent_nothing,
};
