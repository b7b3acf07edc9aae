/*
 * Slow ways of SSE, and MXCSR.
 *
 * MXCSR.  While the processor runs, the host's register has the guest's
 * rounding, DAZ and FTZ, with everything masked.  Its flags collect what the
 * guest's instructions raise; s.fpu.mxcsr has the guest's masks and the flags up
 * to the last soft_mxcsr_sync.
 */
#include "cpu/soft/simd.h"

const void *simd_load_slow(struct soft_cpu *c, const struct soft_op *op, uint64_t lin,
			   unsigned size)
{
	soft_load_bytes(c, op, lin, c->fp_tmp, size);
	return c->fp_tmp;
}

const struct soft_op *simd_misaligned(struct soft_cpu *c, const struct soft_op *op)
{
	soft_raise_err(c, op, EXC_GP, 0);
}

/* ---- MXCSR ---------------------------------------------------------------- */

void soft_mxcsr_sync(struct soft_cpu *c)
{
	c->s.fpu.mxcsr |= simd_host_mxcsr() & MX_FLAGS;
}

void soft_mxcsr_load(struct soft_cpu *c)
{
	simd_set_host_mxcsr((c->s.fpu.mxcsr & (MX_CONTROL | MX_FLAGS)) | MX_MASKS);
}
