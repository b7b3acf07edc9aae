/*
 * A thread beside the writing one, for a piece of work at a time: compression takes half as long.
 * On a host that has no processor to spare, who gave the work does it.
 * (Sums do not profit: they wait for memory, as the write that follows them does.)
 */
#ifndef SKEP_SNAPSHOT_HELPER_H
#define SKEP_SNAPSHOT_HELPER_H

struct snap_helper;

/* NULL where no thread can be made: the caller does without. */
struct snap_helper *snap_helper_create(void);
void snap_helper_destroy(struct snap_helper *h);	/* idle; NULL is fine */
/* Gives it one piece of work; one at a time. */
void snap_helper_begin(struct snap_helper *h, void (*work)(void *opaque), void *opaque);
/* The work is done when this returns: by the helper, or, if it had not begun, here. */
void snap_helper_end(struct snap_helper *h);

#endif
