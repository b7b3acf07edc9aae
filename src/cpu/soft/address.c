/*
 * Segments, addresses and the stack: everything between an effective address
 * and a linear one.  SDM vol. 1 §3.3.7, vol. 3 §5.3.
 */
#include "cpu/soft/exec.h"

static _Noreturn void segment_fault(struct soft_cpu *c, const struct soft_op *op, unsigned seg)
{
	soft_raise_err(c, op, seg == SEG_SS ? EXC_SS : EXC_GP, 0);
}

/* Bytes [off, off+size) against the limit, expand-down segments included. */
static bool limit_ok(const struct cpu_segment *s, uint64_t off, unsigned size)
{
	uint64_t last = off + (size ? size - 1 : 0);
	bool down = (s->attr & 0x1c) == 0x14;	/* data, expand-down */

	/* With a limit of 4 GiB nothing is beyond it: addresses wrap (vol. 3, 5.3.1). */
	if (!down)
		return (last <= s->limit && last >= off) || s->limit == UINT32_MAX;
	return off > s->limit && last <= (s->attr & BIT(14) ? UINT32_MAX : 0xffffu);
}

uint64_t soft_seg_lin(struct soft_cpu *c, const struct soft_op *op, unsigned seg, uint64_t off,
		      unsigned size, bool write)
{
	const struct cpu_segment *s = &c->s.seg[seg];

	if (c->mode & MODE_CS64) {
		uint64_t lin = off + (seg == SEG_FS || seg == SEG_GS ? s->base : 0);

		if (!soft_canonical(lin) || (size && !soft_canonical(lin + size - 1)))
			segment_fault(c, op, seg);
		return lin;
	}
	if (c->mode & MODE_PE && !(c->mode & MODE_VM86)) {
		bool code = s->attr & 8;

		if (s->unusable || !(s->attr & 0x80))
			segment_fault(c, op, seg);
		/* Writes want writable data; reads want data or readable code. */
		if (write ? code || !(s->attr & 2) : code && !(s->attr & 2))
			segment_fault(c, op, seg);
	}
	if (!limit_ok(s, off, size))
		segment_fault(c, op, seg);
	return (uint32_t)(s->base + off);
}

/* ---- Address ops --------------------------------------------------------- */

static inline uint64_t ea_offset(const struct soft_cpu *c, const struct soft_op *op)
{
	uint64_t off = R64(c, op->base) + (R64(c, op->index) << op->scale) + op->imm;

	if (op->flags & OPF_ADDR32)
		return (uint32_t)off;
	return op->flags & OPF_ADDR16 ? (uint16_t)off : off;
}

/* Any segment with all its checks; op->disp is the operand's size. */
const struct soft_op *op_ea_seg(struct soft_cpu *c, const struct soft_op *op)
{
	c->r[SLOT_EA] = soft_seg_lin(c, op, op->seg, ea_offset(c, op), (unsigned)op->disp,
				     op->flags & OPF_WRITE);
	NEXT(c, op);
}

const struct soft_op *op_ea_flat32(struct soft_cpu *c, const struct soft_op *op)
{
	c->r[SLOT_EA] = (uint32_t)(R64(c, op->base) + (R64(c, op->index) << op->scale) + op->imm);
	NEXT(c, op);
}

const struct soft_op *op_ea_noseg(struct soft_cpu *c, const struct soft_op *op)
{
	c->r[SLOT_EA] = ea_offset(c, op);
	NEXT(c, op);
}

/* FS or GS in 64-bit mode: the access itself finds out whether the sum is canonical. */
const struct soft_op *op_ea_fsgs(struct soft_cpu *c, const struct soft_op *op)
{
	c->r[SLOT_EA] = ea_offset(c, op) + R64(c, op->seg == SEG_FS ? SLOT(SLOT_FS) : SLOT(SLOT_GS));
	NEXT(c, op);
}

/*
 * A bit string with 16- or 32-bit addresses: the bit's operand may lie anywhere
 * around the effective address, and wraps like it.  op->src is the bit index,
 * op->disp the operand's size.
 */
const struct soft_op *op_ea_bits(struct soft_cpu *c, const struct soft_op *op)
{
	unsigned size = (unsigned)op->disp;
	uint64_t raw = soft_reg_get(c, op->src, size);
	int64_t index = size == 2 ? (int16_t)raw : size == 4 ? (int32_t)raw : (int64_t)raw;
	struct soft_op ea = *op;

	ea.imm += (uint64_t)((index >> (size == 2 ? 4 : size == 4 ? 5 : 6)) * size);
	if (c->mode & MODE_CS64 && op->seg != SEG_FS && op->seg != SEG_GS)
		c->r[SLOT_EA] = ea_offset(c, &ea);
	else
		c->r[SLOT_EA] = soft_seg_lin(c, op, op->seg, ea_offset(c, &ea), size,
					     op->flags & OPF_WRITE);
	return op + 1;
}

/* ---- The stack ------------------------------------------------------------ */

/* Stack pointer as an offset, and how it is written back, by the stack's size. */
static uint64_t stack_get(const struct soft_cpu *c)
{
	uint64_t rsp = c->r[REG_RSP];

	if (c->mode & MODE_CS64)
		return rsp;
	return c->mode & MODE_SS32 ? (uint32_t)rsp : (uint16_t)rsp;
}

static void stack_set(struct soft_cpu *c, uint64_t v)
{
	if (c->mode & MODE_CS64)
		c->r[REG_RSP] = v;
	else if (c->mode & MODE_SS32)
		W32(c, SLOT(REG_RSP), v);
	else
		R16(c, SLOT(REG_RSP)) = (uint16_t)v;
}

static uint64_t stack_wrap(const struct soft_cpu *c, uint64_t off)
{
	if (c->mode & MODE_CS64)
		return off;
	return c->mode & MODE_SS32 ? (uint32_t)off : (uint16_t)off;
}

void soft_push(struct soft_cpu *c, const struct soft_op *op, unsigned size, uint64_t v)
{
	uint64_t off = stack_wrap(c, stack_get(c) - size);
	uint64_t lin = soft_seg_lin(c, op, SEG_SS, off, size, true);

	soft_store(c, op, lin, size, v);
	stack_set(c, off);
}

uint64_t soft_pop(struct soft_cpu *c, const struct soft_op *op, unsigned size)
{
	uint64_t off = stack_get(c);
	uint64_t v = soft_load(c, op, soft_seg_lin(c, op, SEG_SS, off, size, false), size);

	stack_set(c, stack_wrap(c, off + size));
	return v;
}

/* ---- PUSH and POP in 64-bit mode ------------------------------------------ */

COLD push64_r_slow(struct soft_cpu *c, const struct soft_op *op)
{
	soft_push(c, op, 8, R64(c, op->dst));
	return op + 1;
}

const struct soft_op *op_push64_r(struct soft_cpu *c, const struct soft_op *op)
{
	uint64_t lin = c->r[REG_RSP] - 8;
	void *p;

	HOT_WRITE(64, p, lin, push64_r_slow);
	store64(p, R64(c, op->dst));
	c->r[REG_RSP] = lin;
	NEXT(c, op);
}

COLD push64_i_slow(struct soft_cpu *c, const struct soft_op *op)
{
	soft_push(c, op, 8, op->imm);
	return op + 1;
}

const struct soft_op *op_push64_i(struct soft_cpu *c, const struct soft_op *op)
{
	uint64_t lin = c->r[REG_RSP] - 8;
	void *p;

	HOT_WRITE(64, p, lin, push64_i_slow);
	store64(p, op->imm);
	c->r[REG_RSP] = lin;
	NEXT(c, op);
}

COLD pop64_r_slow(struct soft_cpu *c, const struct soft_op *op)
{
	/* POP RSP: the value read wins over the increment. */
	R64(c, op->dst) = soft_pop(c, op, 8);
	return op + 1;
}

const struct soft_op *op_pop64_r(struct soft_cpu *c, const struct soft_op *op)
{
	uint64_t lin = c->r[REG_RSP], v;

	HOT_LOAD(64, v, lin, pop64_r_slow);
	c->r[REG_RSP] = lin + 8;
	R64(c, op->dst) = v;
	NEXT(c, op);
}

/* ---- PUSH and POP in general ---------------------------------------------- */

const struct soft_op *op_push_r(struct soft_cpu *c, const struct soft_op *op)
{
	soft_push(c, op, op->size, soft_reg_get(c, op->dst, op->size));
	return op + 1;
}

const struct soft_op *op_push_i(struct soft_cpu *c, const struct soft_op *op)
{
	soft_push(c, op, op->size, op->imm);
	return op + 1;
}

const struct soft_op *op_push_m(struct soft_cpu *c, const struct soft_op *op)
{
	soft_push(c, op, op->size, soft_load(c, op, soft_ea(c, op), op->size));
	return op + 1;
}

const struct soft_op *op_pop_r(struct soft_cpu *c, const struct soft_op *op)
{
	soft_reg_set(c, op->dst, op->size, soft_pop(c, op, op->size));
	return op + 1;
}

/* The address was computed with the stack pointer already moved (decode.c). */
const struct soft_op *op_pop_m(struct soft_cpu *c, const struct soft_op *op)
{
	uint64_t rsp = c->r[REG_RSP];
	uint64_t lin = soft_ea(c, op);
	uint64_t v = soft_pop(c, op, op->size);
	uint64_t after = c->r[REG_RSP];

	c->r[REG_RSP] = rsp;
	soft_store(c, op, lin, op->size, v);
	c->r[REG_RSP] = after;
	return op + 1;
}

/* PUSHA and POPA: registers change when all of memory could be reached. */
const struct soft_op *op_pusha(struct soft_cpu *c, const struct soft_op *op)
{
	unsigned size = op->size;
	uint64_t off = stack_get(c);

	for (unsigned i = 0; i < 8; i++) {
		off = stack_wrap(c, off - size);
		soft_store(c, op, soft_seg_lin(c, op, SEG_SS, off, size, true), size, c->r[i]);
	}
	stack_set(c, off);
	return op + 1;
}

const struct soft_op *op_popa(struct soft_cpu *c, const struct soft_op *op)
{
	unsigned size = op->size;
	uint64_t off = stack_get(c), v[8];

	for (unsigned i = 0; i < 8; i++)
		v[7 - i] = soft_load(c, op, soft_seg_lin(c, op, SEG_SS, stack_wrap(c, off + i * size),
							 size, false), size);
	for (unsigned i = 0; i < 8; i++)
		if (i != REG_RSP)
			soft_reg_set(c, SLOT(i), size, v[i]);
	stack_set(c, stack_wrap(c, off + 8 * size));
	return op + 1;
}

/* ENTER imm16, imm8: op->imm is the size of the frame, op->dst the nesting level. */
const struct soft_op *op_enter(struct soft_cpu *c, const struct soft_op *op)
{
	unsigned size = op->size, level = op->dst & 31;
	uint64_t bp = c->r[REG_RBP], frame, off, top;

	/* What is pushed before a fault stays below the stack pointer: registers change last. */
	off = stack_wrap(c, stack_get(c) - size);
	frame = off;
	soft_store(c, op, soft_seg_lin(c, op, SEG_SS, off, size, true), size, bp);
	for (unsigned i = 1; i < level; i++) {
		uint64_t link = soft_load(c, op, soft_seg_lin(c, op, SEG_SS,
							      stack_wrap(c, bp - i * size), size,
							      false), size);

		off = stack_wrap(c, off - size);
		soft_store(c, op, soft_seg_lin(c, op, SEG_SS, off, size, true), size, link);
	}
	if (level) {
		off = stack_wrap(c, off - size);
		soft_store(c, op, soft_seg_lin(c, op, SEG_SS, off, size, true), size, frame);
	}
	/* The new top of the stack must be writable (SDM vol. 2, ENTER). */
	top = stack_wrap(c, off - op->imm);
	soft_check_write(c, op, soft_seg_lin(c, op, SEG_SS, top, size, true), size);
	soft_reg_set(c, SLOT(REG_RBP), size, frame);
	stack_set(c, top);
	return op + 1;
}

COLD leave64_slow(struct soft_cpu *c, const struct soft_op *op)
{
	uint64_t frame = c->r[REG_RBP];
	uint64_t v = soft_load(c, op, soft_seg_lin(c, op, SEG_SS, frame, 8, false), 8);

	c->r[REG_RSP] = frame + 8;
	c->r[REG_RBP] = v;
	return op + 1;
}

const struct soft_op *op_leave64(struct soft_cpu *c, const struct soft_op *op)
{
	uint64_t lin = c->r[REG_RBP], v;

	HOT_LOAD(64, v, lin, leave64_slow);
	c->r[REG_RSP] = lin + 8;
	c->r[REG_RBP] = v;
	NEXT(c, op);
}

const struct soft_op *op_leave(struct soft_cpu *c, const struct soft_op *op)
{
	uint64_t frame = stack_wrap(c, c->r[REG_RBP]);
	uint64_t v = soft_load(c, op, soft_seg_lin(c, op, SEG_SS, frame, op->size, false),
			       op->size);

	stack_set(c, stack_wrap(c, frame + op->size));
	soft_reg_set(c, SLOT(REG_RBP), op->size, v);
	return op + 1;
}
