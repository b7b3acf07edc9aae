/*
 * How processors are numbered: an APIC ID is package, core and thread, each in as many bits as
 * its largest number needs (SDM vol. 3, 9.9.1); processors come in the order of their IDs.
 * Any thread.
 */
#ifndef SKEP_VM_TOPOLOGY_H
#define SKEP_VM_TOPOLOGY_H

#include "vm/vm.h"

struct topology {
	unsigned core_threads;		/* threads in a core */
	unsigned package_threads;	/* threads in a package */
	unsigned core_shift;		/* an APIC ID shifted by this names the core */
	unsigned package_shift;		/* and the package */
};

static inline unsigned topology_bits(unsigned n)
{
	unsigned bits = 0;

	while (1u << bits < n)
		bits++;
	return bits;
}

/* vm may be NULL: one processor. */
static inline struct topology topology_of(const struct vm *vm)
{
	unsigned threads = vm ? MAX(vm->threads, 1u) : 1, cores = vm ? MAX(vm->cores, 1u) : 1;
	unsigned core_shift = topology_bits(threads);

	return (struct topology){ threads, threads * cores, core_shift,
				  core_shift + topology_bits(cores) };
}

static inline uint32_t topology_apic_id(const struct vm *vm, unsigned index)
{
	struct topology t = topology_of(vm);
	unsigned in_package = index % t.package_threads;

	return index / t.package_threads << t.package_shift |
	       in_package / t.core_threads << t.core_shift | in_package % t.core_threads;
}

#endif
