/* What CPUID answers on a machine, whatever executes it. */
#ifndef SKEP_CPU_CPUID_H
#define SKEP_CPU_CPUID_H

#include <stdbool.h>
#include <stdint.h>

struct vm;
struct cpu_model;

/* The live state that some leaves depend on. */
struct cpuid_context {
	const struct vm *vm;
	const struct cpu_model *model;
	unsigned index;			/* of the processor */
	uint64_t xcr0;
	bool osxsave;			/* CR4.OSXSAVE */
	bool apic_off;			/* IA32_APIC_BASE: EN is clear */
	bool variant_tsc;		/* the identity does not announce the invariant TSC (yet) */
};

/* EAX, EBX, ECX and EDX of a leaf; sub is ECX.  Any thread, no lock. */
void cpu_cpuid(const struct cpuid_context *c, uint32_t leaf, uint32_t sub, uint32_t out[4]);

#endif
