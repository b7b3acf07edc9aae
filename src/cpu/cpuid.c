/*
 * CPUID: the model's leaves, completed with what depends on the machine and on the processor's
 * live state.  SDM vol. 2, CPUID.
 */
#include "cpu/cpuid.h"

#include "cpu/arch.h"
#include "cpu/model.h"
#include "vm/topology.h"
#include "vm/vm.h"

#define LEAF_EXTENDED	0x80000000u

/*
 * A leaf beyond the last of its range answers as the last basic one does.
 * An unknown leaf inside a range is all zeros.
 */
static uint32_t effective_leaf(const struct cpu_model *m, uint32_t leaf)
{
	uint32_t last_basic = cpu_model_leaf(m, 0, 0)->eax;
	const struct cpuid_leaf *range;

	if (leaf <= last_basic)
		return leaf;
	range = cpu_model_leaf(m, LEAF_EXTENDED, 0);
	if (leaf >= LEAF_EXTENDED && range && leaf <= range->eax)
		return leaf;
	return last_basic;
}

static uint32_t apic_id(const struct cpuid_context *c)
{
	return c->vm ? topology_apic_id(c->vm, c->index) : 0;
}

static void complete_features(const struct cpuid_context *c, uint32_t out[4])
{
	struct topology t = topology_of(c->vm);

	out[1] |= apic_id(c) << 24 | 1u << t.package_shift << 16;
	if (t.package_threads > 1)
		out[3] |= 1u << 28;	/* HTT: the count above is valid */
	if (c->osxsave)
		out[2] |= 1u << 27;
	if (c->apic_off)
		out[3] &= ~(1u << 9);
}

/* Leaf 4: who shares a cache, and how many core numbers a package has. */
static void complete_caches(const struct cpuid_context *c, uint32_t out[4])
{
	struct topology t = topology_of(c->vm);

	out[0] |= ((1u << t.core_shift) - 1) << 14 |
		  ((1u << (t.package_shift - t.core_shift)) - 1) << 26;
}

/* Leaf 0bh: level 0 is the threads of a core, level 1 the cores of a package. */
static void complete_topology(const struct cpuid_context *c, uint32_t sub, uint32_t out[4])
{
	struct topology t = topology_of(c->vm);

	if (sub == 0) {
		out[0] = t.core_shift;
		out[1] = t.core_threads;
	} else if (sub == 1) {
		out[0] = t.package_shift;
		out[1] = t.package_threads;
	} else {
		out[2] = sub & 0xff;
	}
	out[3] = apic_id(c);
}

static uint32_t gcd(uint32_t a, uint32_t b)
{
	while (b) {
		uint32_t t = a % b;

		a = b;
		b = t;
	}
	return a;
}

/*
 * TSC = crystal x EBX / EAX.  Guests multiply in 32 bits of kHz: a ratio that would
 * overflow is not given (EBX 0: not enumerated).
 */
static void complete_tsc(const struct cpuid_context *c, uint32_t out[4])
{
	uint32_t khz = c->vm->clock.tsc_khz;
	uint32_t g = gcd(khz, 1000000);

	out[0] = 1000000 / g;
	out[1] = khz / g;
	if (!khz || (uint64_t)out[1] * 1000000 > UINT32_MAX)
		out[0] = out[1] = out[2] = 0;
}

static void complete_frequency(const struct cpuid_context *c, uint32_t out[4])
{
	uint32_t mhz = (c->vm->clock.tsc_khz + 500) / 1000;

	out[0] = out[1] = mhz > 0xffff ? 0 : mhz;
}

void cpu_cpuid(const struct cpuid_context *c, uint32_t leaf, uint32_t sub, uint32_t out[4])
{
	const struct cpuid_leaf *l;

	if (c->vm && identity_cpuid(c->vm, leaf, out))
		return;
	leaf = effective_leaf(c->model, leaf);
	l = cpu_model_leaf(c->model, leaf, sub);
	out[0] = l ? l->eax : 0;
	out[1] = l ? l->ebx : 0;
	out[2] = l ? l->ecx : 0;
	out[3] = l ? l->edx : 0;
	switch (leaf) {
	case 0x1:
		complete_features(c, out);
		break;
	case 0x4:
		if (l)
			complete_caches(c, out);
		break;
	case 0xb:
		complete_topology(c, sub, out);
		break;
	case 0xd:
		/* The size of an area with all enabled components; sub-leaf 1: in the compacted form. */
		if (l && sub < 2 && c->xcr0 & XCR0_AVX)
			out[1] = XSAVE_AVX_END;
		break;
	case 0x15:
		complete_tsc(c, out);
		break;
	case 0x16:
		complete_frequency(c, out);
		break;
	case 0x80000007:
		if (c->variant_tsc)
			out[3] &= ~(1u << 8);
		break;
	default:
		break;
	}
}
