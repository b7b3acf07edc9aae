/* Unmasked floating-point exceptions: what SSE (simd_strict.c) and AVX (vex_strict.c) share. */
#ifndef SKEP_CPU_SOFT_SIMD_STRICT_H
#define SKEP_CPU_SOFT_SIMD_STRICT_H

#include "cpu/soft/simd.h"

/* Found before an operation is computed, alike masked or not. */
#define MX_BEFORE	(MX_IE | MX_DE | MX_ZE)

/* What an instruction does with its elements. */
enum { K_NONE, K_ADD, K_SUB, K_MUL, K_DIV, K_CONVERT, K_HADD, K_HSUB, K_ADDSUB };

/* Is overflow or underflow unmasked?  Then the host's flags do not tell all. */
bool strict_recomputes(const struct soft_cpu *c);
/* The host's flags become the guest's, and the host's are clear; everything is masked. */
void strict_begin(struct soft_cpu *c);
/* #XM, or #UD where the guest does not want it; these flags are set in MXCSR. */
_Noreturn void strict_raise(struct soft_cpu *c, const struct soft_op *op, uint32_t flags);

/*
 * OE, UE and PE of elem (FPE_*) results of a K_ operation on d and s, under the guest's masks;
 * result is what the host computed with everything masked.
 */
uint32_t strict_result_flags(const struct soft_cpu *c, unsigned kind, unsigned elem,
			     const v2di *d, const v2di *s, const v2di *result);

/* Raises what DPPS (of n times 128 bits) or DPPD of d and s would raise, in its order. */
void strict_dot_ps(struct soft_cpu *c, const struct soft_op *op, unsigned n, const v2di *d,
		   const v2di *s, unsigned imm);
void strict_dot_pd(struct soft_cpu *c, const struct soft_op *op, v2di d, v2di s, unsigned imm);

#endif
