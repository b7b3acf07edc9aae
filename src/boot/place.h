/*
 * Where things go in guest memory when we boot without firmware: the memory
 * map that the kernel is told, and the ranges that the image, its tables and
 * its initrd take.  And the state in which the boot processor starts.
 *
 * vm thread, device lock held, no vCPU running.
 */
#ifndef SKEP_BOOT_PLACE_H
#define SKEP_BOOT_PLACE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "boot/file.h"

struct vm;
struct guest_memory;

enum e820_type { E820_RAM = 1, E820_RESERVED = 2, E820_ACPI = 3 };

struct e820_entry {
	uint64_t base, size;
	uint32_t type;
};

#define E820_MAX	8
#define EBDA_BASE	0x9fc00ull	/* RAM below 1 MiB ends here, as on a PC */
#define BIOS_BASE	0xe0000ull	/* firmware's tables: here up to 1 MiB */

/* Fills in map (E820_MAX entries), sorted; returns how many. */
unsigned e820_build(const struct guest_memory *m, struct e820_entry *map);

#define PLACE_MAX 48

struct place_range { uint64_t base, end; };

struct placement {
	struct vm *vm;
	struct e820_entry map[E820_MAX];
	unsigned nmap;
	struct place_range used[PLACE_MAX];
	unsigned nused;
};

void place_init(struct placement *p, struct vm *vm);
/*
 * Takes [base, base + len), which must be free RAM: -EFAULT if it is not RAM,
 * -EBUSY if it overlaps what is taken, -ENOSPC if the list is full.
 */
int place_claim(struct placement *p, uint64_t base, uint64_t len);
/*
 * Takes len bytes of free RAM within [min, max), the highest place if top,
 * else the lowest.  align is a power of two.  False: none.
 */
bool place_find(struct placement *p, uint64_t len, uint64_t align, uint64_t min, uint64_t max,
		bool top, uint64_t *base);
/* place_find from the bottom of the first 640 KiB, then writes; for small tables. */
int place_low(struct placement *p, const void *data, size_t len, uint64_t align,
	      uint64_t *base, struct skep_error *e);
/* End of RAM below 4 GiB. */
uint64_t place_low_end(const struct vm *vm);
/* Width of the processor's physical addresses. */
unsigned place_phys_bits(const struct vm *vm);

/* Writes bytes, or part of a file, to RAM; a range outside RAM is an error. */
int place_write(struct vm *vm, uint64_t gpa, const void *data, size_t len,
		struct skep_error *e);
int place_file(struct vm *vm, uint64_t gpa, const struct boot_file *f, uint64_t offset,
	       uint64_t len, struct skep_error *e);

/*
 * Both entries also set the memory types as firmware does.
 *
 * Boot processor: 64-bit mode, the first 4 GiB identity-mapped, CS 0x10,
 * data segments 0x18, interrupts off (Linux boot protocol, "64-bit boot protocol").
 */
int entry_long_mode(struct placement *p, uint64_t rip, uint64_t rsi, struct skep_error *e);
/*
 * Boot processor: 32-bit protected mode, paging off, flat segments, interrupts
 * off, as PVH and multiboot want it.
 */
int entry_protected_mode(struct placement *p, uint32_t eip, uint32_t eax, uint32_t ebx,
			 struct skep_error *e);

#endif
