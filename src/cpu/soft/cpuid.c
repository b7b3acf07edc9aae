/* CPUID as the soft processor answers it: cpu/cpuid.c with its live state. */
#include "chipset/lapic.h"
#include "cpu/cpuid.h"
#include "cpu/soft/system.h"
#include "vm/vm.h"

void soft_cpuid(struct soft_cpu *c, uint32_t leaf, uint32_t sub, uint32_t out[4])
{
	const struct cpuid_context context = {
		.vm = c->vm,
		.model = c->model,
		.index = c->v ? c->v->index : 0,
		.xcr0 = c->s.xcr0,
		.osxsave = c->s.cr4 & CR4_OSXSAVE,
		.apic_off = leaf == 1 && c->v && c->v->lapic && !(lapic_get_base(c->v->lapic) & BIT(11)),
		.variant_tsc = leaf == 0x80000007 && !identity_invariant_tsc(c->vm),
	};

	cpu_cpuid(&context, leaf, sub, out);
}
