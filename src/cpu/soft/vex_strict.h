/* Unmasked exceptions of what SSE does not have. */
#ifndef SKEP_CPU_SOFT_VEX_STRICT_H
#define SKEP_CPU_SOFT_VEX_STRICT_H

#include "cpu/soft/simd_strict.h"

/* One element: a * b + c, two of them perhaps with the other sign. */
struct fma {
	unsigned bits;			/* 32, 64 */
	uint64_t a, b, c;
	bool negate_product, negate_addend;
};

/* OE, UE and PE of it under the guest's masks (vex_fma.c). */
uint32_t strict_fma_flags(const struct soft_cpu *c, const struct fma *f);

#endif
