/* Handlers of VEX instructions.  dst and src are numbers of vector registers times 16. */
#ifndef SKEP_CPU_SOFT_EXEC_VEX_H
#define SKEP_CPU_SOFT_EXEC_VEX_H

#include "cpu/soft/soft.h"

/* imm: a struct vex_thunk; size: bytes of the memory operand. */
op_fn vex_rr, vex_load, vex_store;
/* The memory operand's bytes, at hand or in c->fp_tmp; and the way back. */
const void *vex_source(struct soft_cpu *c, const struct soft_op *op);
void vex_sink(struct soft_cpu *c, const struct soft_op *op, const void *bytes);
op_fn vex_strict;		/* the same where exceptions are unmasked (vex_strict.c) */

op_fn vex_unavailable;		/* #UD or #NM */
op_fn vex_zeroupper, vex_zeroall;

/* Whole registers; imm: the bits of the address that have to be zero. */
op_fn vex_mov_rr128, vex_mov_rr256;
op_fn vex_load128, vex_load256, vex_store128, vex_store256;

/*
 * VMASKMOV and VPMASKMOV: dst is the register loaded or stored, src the mask, size 16 or 32; the
 * address is base, index, scale, imm and seg, with no op in front that would look at all of it.
 */
op_fn vex_mask_load32, vex_mask_load64, vex_mask_store32, vex_mask_store64;

/* VGATHER and VPGATHER: dst, the mask in src, the address in base, scale, disp and seg. */
#define GATHER_IMM(index, index_size, size, count, wide) \
	((uint64_t)(index) | (uint64_t)(index_size) << 8 | (uint64_t)(size) << 16 | \
	 (uint64_t)(count) << 24 | (uint64_t)(wide) << 32)
op_fn vex_gather;

#endif
