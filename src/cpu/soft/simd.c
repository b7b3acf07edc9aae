/*
 * Slow ways of SSE, MXCSR, and the watch for unmasked floating-point exceptions.
 *
 * MXCSR.  While the processor runs, the host's register has the guest's
 * rounding, DAZ and FTZ, with everything masked.  Its flags collect what the
 * guest's instructions raise; s.fpu.mxcsr has the guest's masks and the flags up
 * to the last soft_mxcsr_sync.
 *
 * When the guest unmasks something (MODE_FPSTRICT), each instruction that can
 * raise stands between two more ops.  The first saves what the instruction may
 * change and clears the host's flags; the second looks at the flags and, if one
 * that the guest wants to see is there, puts everything back and raises.
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

#define MX_FLAGS	0x003fu
#define MX_IE_DE_ZE	0x0007u
#define MX_UE		0x0010u
#define MX_CONTROL	0xe040u		/* FTZ, rounding, DAZ */
#define MX_MASKS	0x1f80u
#define MX_UM		0x0800u
#define MX_FTZ		0x8000u

static uint32_t host_mxcsr(void)
{
	uint32_t v;

	asm volatile("stmxcsr %0" : "=m"(v));
	return v;
}

static void set_host_mxcsr(uint32_t v)
{
	asm volatile("ldmxcsr %0" : : "m"(v));
}

void soft_mxcsr_sync(struct soft_cpu *c)
{
	c->s.fpu.mxcsr |= host_mxcsr() & MX_FLAGS;
}

void soft_mxcsr_load(struct soft_cpu *c)
{
	set_host_mxcsr((c->s.fpu.mxcsr & (MX_CONTROL | MX_FLAGS)) | MX_MASKS);
}

/* ---- Strict floating point ------------------------------------------------ */

struct fp_saved {
	v2di reg;		/* XMM or, with its exponent, MM */
	uint64_t gpr;
	uint16_t cc, fsw;
	uint8_t ftw;
};
_Static_assert(sizeof(struct fp_saved) <= sizeof(((struct soft_cpu *)0)->fp_save),
	       "the save area is too small");

static v2di *saved_reg(struct soft_cpu *c, const struct soft_op *op)
{
	if (op->size >> 4 == FPD_MMX)
		return (v2di *)((char *)c->s.fpu.st + op->dst);
	return op->size >> 4 == FPD_XMM ? &XMM(c, op->dst) : NULL;
}

OP_FN(simd_fp_before)
{
	struct fp_saved *save = (struct fp_saved *)c->fp_save;
	const v2di *reg = saved_reg(c, op);
	uint32_t control = c->s.fpu.mxcsr & MX_CONTROL;

	if (reg)
		save->reg = *reg;
	else if (op->size >> 4 == FPD_GPR)
		save->gpr = R64(c, op->dst);
	save->cc = c->cc;
	save->fsw = c->s.fpu.fsw;
	save->ftw = c->s.fpu.ftw;
	/* Flush-to-zero is not in force while underflow is unmasked (SDM vol. 1, 10.2.3.3). */
	if (!(c->s.fpu.mxcsr & MX_UM))
		control &= ~MX_FTZ;
	soft_mxcsr_sync(c);
	set_host_mxcsr(control | MX_MASKS);
	return op + 1;
}

static bool tiny32(uint32_t v)
{
	return !(v & 0x7f800000) && (v & 0x007fffff);
}

static bool tiny64(uint64_t v)
{
	return !(v & 0x7ff0000000000000ull) && (v & 0x000fffffffffffffull);
}

/*
 * Unmasked, underflow is raised by any tiny result; masked, as the host runs,
 * only by an inexact one (SDM vol. 1, 4.9.1.5).  So exact tiny results are looked for.
 */
static bool result_is_tiny(struct soft_cpu *c, const struct soft_op *op)
{
	unsigned elem = op->size & 15, n, i;

	switch (elem) {
	case FPE_SD:
		return tiny64(XQ(c, op->dst, 0));
	case FPE_PD:
		return tiny64(XQ(c, op->dst, 0)) || tiny64(XQ(c, op->dst, 1));
	case FPE_SS:
	case FPE_PS2:
	case FPE_PS:
		n = elem == FPE_SS ? 1 : elem == FPE_PS2 ? 2 : 4;
		for (i = 0; i < n; i++)
			if (tiny32(XD(c, op->dst, i)))
				return true;
	}
	return false;
}

static void restore(struct soft_cpu *c, const struct soft_op *op)
{
	const struct fp_saved *save = (const struct fp_saved *)c->fp_save;
	v2di *reg = saved_reg(c, op);

	if (reg)
		*reg = save->reg;
	else if (op->size >> 4 == FPD_GPR)
		R64(c, op->dst) = save->gpr;
	c->cc = save->cc;
	c->s.fpu.fsw = save->fsw;
	c->s.fpu.ftw = save->ftw;
}

OP_FN(simd_fp_after)
{
	uint32_t masks = c->s.fpu.mxcsr >> 7;
	uint32_t raised = host_mxcsr() & MX_FLAGS, wanted;

	if (!(masks & MX_UE) && result_is_tiny(c, op))
		raised |= MX_UE;
	wanted = raised & ~masks;
	if (likely(!wanted))
		return op + 1;
	/* What is found before computing hides what would come of it (SDM vol. 1, 11.5.3). */
	if (wanted & MX_IE_DE_ZE)
		raised &= MX_IE_DE_ZE;
	restore(c, op);
	c->s.fpu.mxcsr |= raised;
	soft_mxcsr_load(c);
	soft_raise(c, op, c->s.cr4 & CR4_OSXMMEXCPT ? EXC_XM : EXC_UD);
}
