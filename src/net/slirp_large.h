/* Large segments through slirp (slirp_large.c). Device lock. */
#ifndef SKEP_NET_SLIRP_LARGE_H
#define SKEP_NET_SLIRP_LARGE_H

#include "net/backend.h"

#define SLIRP_MTU	16384u	/* libslirp's own: packets it makes are no larger */
#define SLIRP_SYN_MAX	128u

/* A guest's SYN with the largest segment size that we want: in copy; false: it stays as it is. */
bool slirp_raise_mss(const uint8_t *frame, size_t len, uint8_t copy[SLIRP_SYN_MAX]);
/* A frame from libslirp (of at most 14 + SLIRP_MTU bytes, changed) that is larger than the guest's MTU. */
void slirp_receive_large(struct net_backend *b, uint8_t *frame, size_t len, size_t mtu);

#endif
