/*
 * CPU models: a name with a revision is a contract, the same on every host and
 * for ever.  It says what CPUID answers and therefore what may be executed.
 */
#ifndef SKEP_CPU_MODEL_H
#define SKEP_CPU_MODEL_H

#include <stdbool.h>
#include <stdint.h>

struct cpuid_leaf {
	uint32_t leaf, sub;	/* sub is UINT32_MAX where the leaf has none */
	uint32_t eax, ebx, ecx, edx;
};

struct cpu_model {
	const char *name;	/* "skep-v2.1" */
	const char *help;
	unsigned phys_bits, lin_bits;
	uint64_t xcr0;		/* state components that XSETBV may enable */
	bool v3;		/* AVX, AVX2, BMI1, BMI2, FMA, F16C, LZCNT: VEX prefixes, LZCNT, TZCNT */
	const struct cpuid_leaf *leaves;
	unsigned nleaves;
};

/* The model's own words on a leaf, or NULL; sub is ECX. */
const struct cpuid_leaf *cpu_model_leaf(const struct cpu_model *m, uint32_t leaf, uint32_t sub);
/* Bits of CR4 that it has. */
uint64_t cpu_model_cr4(const struct cpu_model *m);

/* NULL: no such model. */
const struct cpu_model *cpu_model_find(const char *name);
extern const struct cpu_model *const cpu_models[];	/* NULL-terminated */

#endif
