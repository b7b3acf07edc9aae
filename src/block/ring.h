/* io_uring, for block.c.  The device lock is held for all of it. */
#ifndef SKEP_BLOCK_RING_H
#define SKEP_BLOCK_RING_H

#include "block/block.h"

struct ring;

/* event: an eventfd that is written to when something has ended. NULL with *err: the host has none. */
struct ring *ring_create(int fd, int event, int *err);
void ring_destroy(struct ring *r);
/* False: it cannot take this request (full, or not its kind). */
bool ring_queue(struct ring *r, struct block_request *q);
/* Hands what was queued to the kernel. */
void ring_submit(struct ring *r);
/* The next one that has ended, its result (>= 0: bytes) in *res; NULL: none.  wait: if any is under way. */
struct block_request *ring_reap(struct ring *r, bool wait, int *res);
unsigned ring_pending(const struct ring *r);
/* Between the two, what ends is not told through the eventfd. */
void ring_mute(struct ring *r, bool on);

#endif
