/*
 * The x87 control instructions: initialisation, control and status words,
 * environment and state in their 16-bit and 32-bit forms (SDM vol. 1, 8.1.10),
 * and what a pending exception means to the next waiting instruction.
 */
#include "chipset/chipset.h"
#include "cpu/soft/exec_x87.h"
#include "vm/vm.h"

#define FERR_IRQ 13

/*
 * CR0.NE = 1: #MF.  CR0.NE = 0: the processor asserts FERR#, which is IRQ 13,
 * and stands still before this instruction until an interrupt comes (SDM vol. 1,
 * 8.7.2).  The block is left with RIP at this instruction, so that the interrupt
 * is taken there; each further attempt counts as an instruction and asks again.
 */
const struct soft_op *x87_pending(struct soft_cpu *c, const struct soft_op *op)
{
	if (c->s.cr0 & CR0_NE)
		soft_raise(c, op, EXC_MF);
	if (c->vm && c->vm->chipset) {
		device_lock(c->vm);
		/* Processors are made before the board: connected when first used. */
		if (!c->ferr.set)
			c->ferr = chipset_gsi(c->vm, FERR_IRQ);
		irq_pulse(&c->ferr);
		device_unlock(c->vm);
	}
	return soft_leave(c, op, soft_op_rip(c, op));
}

OP_FN(x87_unavailable)
{
	soft_raise(c, op, EXC_NM);
}

OP_FN(x87_fwait)
{
	if ((c->s.cr0 & (CR0_MP | CR0_TS)) == (CR0_MP | CR0_TS))
		soft_raise(c, op, EXC_NM);
	X87_GUARD(c, op);
	NEXT(c, op);
}

/* FNOP waits like any other; FENI, FDISI and FSETPM do nothing at all. */
OP_FN(x87_fnop)
{
	X87_GUARD(c, op);
	x87_note(c, op);
	NEXT(c, op);
}

OP_FN(x87_nothing)
{
	NEXT(c, op);
}

OP_FN(x87_fninit)
{
	x87_init(c);
	NEXT(c, op);
}

OP_FN(x87_fnclex)
{
	c->s.fpu.fsw &= FSW_TOP | FSW_CC;
	NEXT(c, op);
}

OP_FN(x87_fnstcw)
{
	soft_st16(c, op, soft_ea(c, op), c->s.fpu.fcw);
	NEXT(c, op);
}

OP_FN(x87_fldcw)
{
	X87_GUARD(c, op);
	x87_set_control(c, soft_ld16(c, op, soft_ea(c, op)));
	x87_update_summary(c);
	NEXT(c, op);
}

OP_FN(x87_fnstsw_m)
{
	soft_st16(c, op, soft_ea(c, op), c->s.fpu.fsw);
	NEXT(c, op);
}

OP_FN(x87_fnstsw_ax)
{
	R16(c, SLOT(REG_RAX)) = c->s.fpu.fsw;
	NEXT(c, op);
}

/* ---- Environment ---------------------------------------------------------- */

/* The two-bit tag of a physical register: valid, zero, special or empty. */
static unsigned full_tag(const struct soft_cpu *c, unsigned i)
{
	const uint8_t *st = c->s.fpu.st[i];
	uint64_t significand = load64(st);
	unsigned exponent = load16(st + 8) & 0x7fff;

	if (!(c->s.fpu.ftw >> i & 1))
		return 3;
	if (!exponent && !significand)
		return 1;
	return exponent && exponent != 0x7fff && significand >> 63 ? 0 : 2;
}

static uint16_t full_tags(const struct soft_cpu *c)
{
	unsigned i, v = 0;

	for (i = 0; i < 8; i++)
		v |= full_tag(c, i) << 2 * i;
	return (uint16_t)v;
}

static bool real_format(const struct soft_cpu *c)
{
	return !(c->mode & MODE_PE) || (c->mode & MODE_VM86);
}

/* The pointers as words of the image: low and high of each (SDM vol. 1, figures 8-9 to 8-12). */
struct env_pointers {
	uint32_t ip, ip_high, dp, dp_high;
};

static struct env_pointers env_pointers(const struct soft_cpu *c, bool wide)
{
	const struct cpu_fpu *f = &c->s.fpu;
	uint32_t ip = (uint32_t)f->fip, dp = (uint32_t)f->fdp;

	/* The selectors are zero; see fxstate.c. */
	if (!real_format(c))
		return (struct env_pointers){ ip, wide ? (uint32_t)f->fop << 16 : 0,
					      dp, wide ? 0xffff0000u : 0 };
	/* Bits 15:0 and, shifted, the rest. */
	return (struct env_pointers){ (ip & 0xffff) | (wide ? 0xffff0000u : 0),
				      ip >> 16 << 12 | f->fop,
				      (dp & 0xffff) | (wide ? 0xffff0000u : 0), dp >> 16 << 12 };
}

static void put_env(const struct soft_cpu *c, uint8_t *p, bool wide)
{
	const struct cpu_fpu *f = &c->s.fpu;
	struct env_pointers q = env_pointers(c, wide);
	const uint32_t v[7] = { f->fcw, f->fsw, full_tags(c), q.ip, q.ip_high, q.dp, q.dp_high };
	unsigned i;

	for (i = 0; i < 7; i++) {
		if (wide)
			store32(p + 4 * i, i < 3 ? v[i] | 0xffff0000u : v[i]);
		else
			store16(p + 2 * i, (uint16_t)v[i]);
	}
}

static void get_pointers(struct soft_cpu *c, const uint32_t *v, bool wide)
{
	struct cpu_fpu *f = &c->s.fpu;

	f->fcs = f->fds = 0;
	if (!real_format(c)) {
		f->fip = v[3];
		f->fop = wide ? v[4] >> 16 & 0x7ff : 0;
		f->fdp = v[5];
		return;
	}
	f->fip = (v[3] & 0xffff) | (v[4] & 0x0ffff000) << 4;
	f->fdp = (v[5] & 0xffff) | (v[6] & 0x0ffff000) << 4;
	f->fop = v[4] & 0x7ff;
}

static void get_env(struct soft_cpu *c, const uint8_t *p, bool wide)
{
	struct cpu_fpu *f = &c->s.fpu;
	uint32_t v[7];
	unsigned i;

	for (i = 0; i < 7; i++)
		v[i] = wide ? load32(p + 4 * i) : load16(p + 2 * i);
	x87_set_control(c, (uint16_t)v[0]);
	f->fsw = (uint16_t)v[1];
	f->ftw = 0;
	for (i = 0; i < 8; i++)
		if ((v[2] >> 2 * i & 3) != 3)
			f->ftw |= (uint8_t)(1u << i);
	get_pointers(c, v, wide);
	x87_update_summary(c);
}

/* op->size: 4 or 2, the form of the image. */
OP_FN(x87_fnstenv)
{
	uint8_t image[28];
	bool wide = op->size == 4;

	put_env(c, image, wide);
	soft_store_bytes(c, op, soft_ea(c, op), image, wide ? 28 : 14);
	c->s.fpu.fcw |= FSW_EXCEPTIONS;
	x87_update_summary(c);
	return op + 1;
}

OP_FN(x87_fldenv)
{
	uint8_t image[28];
	bool wide = op->size == 4;

	X87_GUARD(c, op);
	soft_load_bytes(c, op, soft_ea(c, op), image, wide ? 28 : 14);
	get_env(c, image, wide);
	return op + 1;
}

OP_FN(x87_fnsave)
{
	uint8_t image[108];
	bool wide = op->size == 4;
	unsigned i, n = wide ? 28 : 14;

	put_env(c, image, wide);
	for (i = 0; i < 8; i++)
		memcpy(image + n + 10 * i, x87_st(c, i), 10);
	soft_store_bytes(c, op, soft_ea(c, op), image, n + 80);
	x87_init(c);
	return op + 1;
}

OP_FN(x87_frstor)
{
	uint8_t image[108];
	bool wide = op->size == 4;
	unsigned i, n = wide ? 28 : 14;

	X87_GUARD(c, op);
	soft_load_bytes(c, op, soft_ea(c, op), image, n + 80);
	get_env(c, image, wide);
	for (i = 0; i < 8; i++) {
		memset(x87_st(c, i), 0, 16);
		memcpy(x87_st(c, i), image + n + 10 * i, 10);
	}
	return op + 1;
}
