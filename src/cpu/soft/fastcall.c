/*
 * SYSCALL, SYSRET, SYSENTER, SYSEXIT, SWAPGS and the segment base instructions, as
 * Intel's processors do them.  SDM vol. 2; vol. 3, 5.8.7 and 5.8.8.
 */
#include "cpu/soft/desc.h"
#include "cpu/soft/sysops.h"
#include "cpu/soft/system.h"

/* The flat segments that these load without looking at a descriptor table. */
#define CODE_64		0xa09b	/* accessed, readable, S, P, L, G */
#define CODE_32		0xc09b	/* the same with D */
#define DATA_32		0xc093

static void flat(struct soft_cpu *c, unsigned seg, uint64_t sel, uint16_t attr, unsigned dpl)
{
	/* CS or SS, field by field: a copy would wait for the stores that made it. */
	struct cpu_segment *s = &c->s.seg[seg];

	s->selector = (uint16_t)((sel & 0xfffc) | dpl);
	s->attr = (uint16_t)(attr | dpl << 5);
	s->limit = 0xffffffff;
	s->base = 0;
	s->unusable = 0;
}

static const struct soft_op *entered(struct soft_cpu *c, const struct soft_op *op, unsigned cpl,
				     uint64_t rip)
{
	c->cpl = (uint8_t)cpl;
	soft_update_mode(c);
	soft_interrupts_changed(c);
	/* Here TF counts as it is after the instruction, not before it. */
	c->sys.step = c->s.rflags & RFLAGS_TF;
	return soft_go_on(c, op, rip);
}

const struct soft_op *op_syscall(struct soft_cpu *c, const struct soft_op *op)
{
	uint64_t flags, sel = c->s.star >> 32;

	if (!(c->mode & MODE_CS64) || !(c->s.efer & EFER_SCE))
		soft_raise(c, op, EXC_UD);
	flags = soft_rflags(c) & ~(uint64_t)RFLAGS_RF;
	c->r[REG_RCX] = soft_next_rip(c, op);
	c->r[REG_R11] = flags;
	soft_set_rflags(c, flags & ~c->s.sfmask);
	flat(c, SEG_CS, sel & 0xfffc, CODE_64, 0);
	flat(c, SEG_SS, (sel & 0xfffc) + 8, DATA_32, 0);
	return entered(c, op, 0, c->s.lstar);
}

const struct soft_op *op_sysret(struct soft_cpu *c, const struct soft_op *op)
{
	uint64_t sel = c->s.star >> 48;
	bool to64 = op->size == 8;
	uint64_t rip = c->r[REG_RCX];

	if (!(c->mode & MODE_CS64) || !(c->s.efer & EFER_SCE))
		soft_raise(c, op, EXC_UD);
	soft_need_cpl0(c, op);
	if (to64 && !soft_canonical(rip))
		soft_raise_err(c, op, EXC_GP, 0);
	soft_set_rflags(c, (c->r[REG_R11] & 0x3c7fd7) | 2);
	flat(c, SEG_CS, to64 ? sel + 16 : sel, to64 ? CODE_64 : CODE_32, 3);
	flat(c, SEG_SS, sel + 8, DATA_32, 3);
	return entered(c, op, 3, to64 ? rip : (uint32_t)rip);
}

const struct soft_op *op_sysenter(struct soft_cpu *c, const struct soft_op *op)
{
	uint64_t sel = c->s.sysenter_cs & 0xfffc;
	bool lm = soft_long_mode(c);

	if (!(c->mode & MODE_PE) || !sel)
		soft_raise_err(c, op, EXC_GP, 0);
	soft_set_rflags(c, soft_rflags(c) & ~(uint64_t)(RFLAGS_VM | RFLAGS_IF | RFLAGS_RF));
	flat(c, SEG_CS, sel, lm ? CODE_64 : CODE_32, 0);
	flat(c, SEG_SS, sel + 8, DATA_32, 0);
	c->r[REG_RSP] = lm ? c->s.sysenter_esp : (uint32_t)c->s.sysenter_esp;
	return entered(c, op, 0, lm ? c->s.sysenter_eip : (uint32_t)c->s.sysenter_eip);
}

const struct soft_op *op_sysexit(struct soft_cpu *c, const struct soft_op *op)
{
	uint64_t sel = c->s.sysenter_cs & 0xfffc;
	bool to64 = op->size == 8;
	uint64_t rip = c->r[REG_RDX], rsp = c->r[REG_RCX];

	if (!soft_protected(c) || !sel || c->cpl != 0)
		soft_raise_err(c, op, EXC_GP, 0);
	if (to64 && (!soft_canonical(rip) || !soft_canonical(rsp)))
		soft_raise_err(c, op, EXC_GP, 0);
	flat(c, SEG_CS, to64 ? sel + 32 : sel + 16, to64 ? CODE_64 : CODE_32, 3);
	flat(c, SEG_SS, to64 ? sel + 40 : sel + 24, DATA_32, 3);
	c->r[REG_RSP] = to64 ? rsp : (uint32_t)rsp;
	return entered(c, op, 3, to64 ? rip : (uint32_t)rip);
}

const struct soft_op *op_swapgs(struct soft_cpu *c, const struct soft_op *op)
{
	uint64_t base = c->s.seg[SEG_GS].base;

	if (!(c->mode & MODE_CS64))
		soft_raise(c, op, EXC_UD);
	soft_need_cpl0(c, op);
	soft_set_seg_base(c, SEG_GS, c->s.kernel_gs_base);
	c->s.kernel_gs_base = base;
	return op + 1;
}

/* imm: SEG_FS or SEG_GS; dst or src: the general register. */
const struct soft_op *op_rdfsgsbase(struct soft_cpu *c, const struct soft_op *op)
{
	if (!(c->mode & MODE_CS64) || !(c->s.cr4 & CR4_FSGSBASE))
		soft_raise(c, op, EXC_UD);
	soft_reg_set(c, op->dst, op->size, c->s.seg[op->imm == SEG_FS ? SEG_FS : SEG_GS].base);
	return op + 1;
}

const struct soft_op *op_wrfsgsbase(struct soft_cpu *c, const struct soft_op *op)
{
	uint64_t base = soft_reg_get(c, op->dst, op->size);

	if (!(c->mode & MODE_CS64) || !(c->s.cr4 & CR4_FSGSBASE))
		soft_raise(c, op, EXC_UD);
	if (!soft_canonical(base))
		soft_raise_err(c, op, EXC_GP, 0);
	soft_set_seg_base(c, op->imm == SEG_FS ? SEG_FS : SEG_GS, base);
	return op + 1;
}
