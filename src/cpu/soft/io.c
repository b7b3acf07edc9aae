/*
 * IN, OUT, INS, OUTS.  SDM vol. 1, chapter 18: protection by IOPL and the I/O
 * permission bitmap.
 *
 * Every one of them ends its block: it may have armed a timer or raised an
 * interrupt.  A repeated one does one iteration each time it is executed, so
 * that interrupts come between iterations.
 */
#include "cpu/soft/desc.h"
#include "cpu/soft/sysops.h"
#include "cpu/soft/system.h"
#include "vm/vm.h"

/* imm of IN and OUT: the port, or this bit for DX. */
#define PORT_DX	BIT(16)

/* #GP(0) unless all size ports from port may be used (18.5.2). */
static void check_port(struct soft_cpu *c, const struct soft_op *op, uint16_t port, unsigned size)
{
	const struct cpu_segment *tr = &c->s.seg[SEG_TR];
	uint32_t at;
	uint64_t map;

	if (!(c->mode & MODE_PE) || (!(c->mode & MODE_VM86) && c->cpl <= soft_iopl(c)))
		return;
	if (tr->unusable || !(tr->attr & 8) || tr->limit < 0x67)
		soft_raise_err(c, op, EXC_GP, 0);
	at = (uint32_t)soft_sys_load(c, op, soft_lin_wrap(c, tr->base + 0x66), 2) + port / 8;
	if (at + 1 > tr->limit)
		soft_raise_err(c, op, EXC_GP, 0);
	map = soft_sys_load(c, op, soft_lin_wrap(c, tr->base + at), 2);
	if (map >> (port & 7) & (BIT(size) - 1))
		soft_raise_err(c, op, EXC_GP, 0);
}

static uint16_t port_of(struct soft_cpu *c, const struct soft_op *op)
{
	return op->imm & PORT_DX ? R16(c, SLOT(REG_RDX)) : (uint16_t)op->imm;
}

static const struct soft_op *io_done(struct soft_cpu *c, const struct soft_op *op)
{
	return soft_go_on(c, op, soft_next_rip(c, op));
}

const struct soft_op *op_in(struct soft_cpu *c, const struct soft_op *op)
{
	uint16_t port = port_of(c, op);

	check_port(c, op, port, op->size);
	soft_sync_clock(c, op);
	soft_reg_set(c, SLOT(REG_RAX), op->size, vm_pio_read(c->vm, port, op->size));
	soft_io_breakpoint(c, port, op->size);
	return io_done(c, op);
}

const struct soft_op *op_out(struct soft_cpu *c, const struct soft_op *op)
{
	uint16_t port = port_of(c, op);

	check_port(c, op, port, op->size);
	soft_sync_clock(c, op);
	vm_pio_write(c->vm, port, op->size, soft_reg_get(c, SLOT(REG_RAX), op->size));
	soft_io_breakpoint(c, port, op->size);
	return io_done(c, op);
}

/* ---- Strings --------------------------------------------------------------- */

static uint64_t addr_mask(const struct soft_op *op)
{
	return op->flags & OPF_ADDR16 ? 0xffff : op->flags & OPF_ADDR32 ? 0xffffffff : UINT64_MAX;
}

/* Writes an address-sized register: 16 bits leave the rest, 32 clear it. */
static void addr_reg_set(struct soft_cpu *c, const struct soft_op *op, unsigned reg, uint64_t v)
{
	soft_reg_set(c, SLOT(reg),
		     op->flags & OPF_ADDR16 ? 2 : op->flags & OPF_ADDR32 ? 4 : 8, v);
}

static bool repeated(const struct soft_op *op)
{
	return op->flags & (OPF_REP | OPF_REPNE);
}

/*
 * Moves the pointer on and counts; leaves for the next iteration or instruction.
 * RF is set between iterations and clear after the last (17.3.1.1).
 */
static const struct soft_op *next_iteration(struct soft_cpu *c, const struct soft_op *op,
					    unsigned reg)
{
	uint64_t mask = addr_mask(op);
	uint64_t step = c->s.rflags & RFLAGS_DF ? (uint64_t)0 - op->size : op->size;

	addr_reg_set(c, op, reg, (c->r[reg] + step) & mask);
	if (!repeated(op))
		return io_done(c, op);
	addr_reg_set(c, op, REG_RCX, (c->r[REG_RCX] - 1) & mask);
	if (!(c->r[REG_RCX] & mask)) {
		c->s.rflags &= ~(uint64_t)RFLAGS_RF;
		return io_done(c, op);
	}
	c->s.rflags |= RFLAGS_RF;
	return soft_leave(c, op, soft_op_rip(c, op));
}

const struct soft_op *op_ins(struct soft_cpu *c, const struct soft_op *op)
{
	uint16_t port = R16(c, SLOT(REG_RDX));
	uint64_t lin, v;

	check_port(c, op, port, op->size);	/* even if there is nothing to repeat */
	if (repeated(op) && !(c->r[REG_RCX] & addr_mask(op)))
		return io_done(c, op);
	lin = soft_seg_lin(c, op, SEG_ES, c->r[REG_RDI] & addr_mask(op), op->size, true);
	soft_check_write(c, op, lin, op->size);
	soft_sync_clock(c, op);
	v = vm_pio_read(c->vm, port, op->size);
	soft_store(c, op, lin, op->size, v);
	soft_io_breakpoint(c, port, op->size);
	return next_iteration(c, op, REG_RDI);
}

const struct soft_op *op_outs(struct soft_cpu *c, const struct soft_op *op)
{
	uint16_t port = R16(c, SLOT(REG_RDX));
	uint64_t lin, v;

	check_port(c, op, port, op->size);	/* even if there is nothing to repeat */
	if (repeated(op) && !(c->r[REG_RCX] & addr_mask(op)))
		return io_done(c, op);
	lin = soft_seg_lin(c, op, op->seg, c->r[REG_RSI] & addr_mask(op), op->size, false);
	v = soft_load(c, op, lin, op->size);
	soft_sync_clock(c, op);
	vm_pio_write(c->vm, port, op->size, v);
	soft_io_breakpoint(c, port, op->size);
	return next_iteration(c, op, REG_RSI);
}
