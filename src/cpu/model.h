/*
 * CPU models: a name with a revision is a contract, the same on every host and
 * for ever.  It says what CPUID answers and therefore what may be executed.
 */
#ifndef SKEP_CPU_MODEL_H
#define SKEP_CPU_MODEL_H

#include <stdbool.h>
#include <stdint.h>

#include "base/util.h"

/*
 * IA32_ARCH_CAPABILITIES where a model announces it: the soft processor is vulnerable to nothing, since
 * it does not speculate at all.  IBRS_ALL lets a guest set one bit once where it would otherwise
 * rebuild its indirect branches.
 */
#define CPU_ARCH_CAPABILITIES (BIT(0)  /* RDCL_NO */ | BIT(1) /* IBRS_ALL */ | \
			   BIT(3)  /* SKIP_L1DFL_VMENTRY */ | BIT(4) /* SSB_NO */ | \
			   BIT(5)  /* MDS_NO */ | BIT(6) /* PSCHANGE_MC_NO */ | \
			   BIT(8)  /* TAA_NO */ | BIT(13) /* SBDR_SSDP_NO */ | \
			   BIT(14) /* FBSDP_NO */ | BIT(15) /* PSDP_NO */ | \
			   BIT(20) /* BHI_NO */ | BIT(24) /* PBRSB_NO */ | \
			   BIT(26) /* GDS_NO */ | BIT(27) /* RFDS_NO */ | BIT(62) /* ITS_NO */)

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
