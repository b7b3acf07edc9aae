/* Room for the pages that writers give to a live cut (cut.c), and a bound for it. */
#ifndef SKEP_VM_COPIES_H
#define SKEP_VM_COPIES_H

#include <stdint.h>

struct guest_memory;
struct copies;

/* NULL: no memory. */
struct copies *copies_create(struct guest_memory *m);
void copies_destroy(struct copies *c);		/* with all pages; nobody uses it any more. NULL is fine */
/* Room for a page; NULL: no memory.  Any thread, any lock state. */
uint8_t *copies_take(struct copies *c);
void copies_return(struct copies *c, uint8_t *page);	/* the same */
/* Since when (host monotonic ns) processors wait because there are too many; 0: they do not. */
int64_t copies_braked(const struct copies *c);

#endif
