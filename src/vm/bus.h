/*
 * Port and memory-mapped I/O buses.
 *
 * A map is a sorted array that is swapped as a whole when a range is added or
 * removed, so that look-up takes no lock; the writer waits until no look-up is
 * under way in the old one, which then goes.  A device may change the map from
 * within its own callback.  The call into the device is made with the VM's
 * device lock held (vm.h: vm_pio_read and friends).
 * Reads of nothing give all ones; writes to nothing are dropped.
 */
#ifndef SKEP_VM_BUS_H
#define SKEP_VM_BUS_H

#include <stdatomic.h>
#include <stdint.h>

#include "base/error.h"

/* offset is from the start of the range; size is 1, 2, 4 or 8 bytes. */
struct bus_ops {
	uint64_t (*read)(void *opaque, uint64_t offset, unsigned size);
	void (*write)(void *opaque, uint64_t offset, unsigned size, uint64_t value);
	/* Widest access the device takes; a wider one is split by the bus. 0 = 8. */
	unsigned max_size;
};

struct bus_map;

struct bus {
	const char *name;		/* "port" or "memory" */
	uint64_t limit;			/* last address */
	_Atomic(struct bus_map *) map;
	_Atomic unsigned readers;	/* look-ups under way */
};

void bus_init(struct bus *b, const char *name, uint64_t limit);
void bus_finish(struct bus *b);
/* Overlaps are refused by name of both owners.  name must outlive the mapping. Device lock. */
int bus_map(struct bus *b, uint64_t base, uint64_t size, const struct bus_ops *ops,
	    void *opaque, const char *name, struct skep_error *e);
/* Removes the range that begins at base, if there is one. Device lock. */
void bus_unmap(struct bus *b, uint64_t base);
/* size is 1, 2, 4 or 8; device lock held.  An access may span ranges and gaps. */
uint64_t bus_read(struct bus *b, uint64_t addr, unsigned size);
void bus_write(struct bus *b, uint64_t addr, unsigned size, uint64_t value);

#endif
