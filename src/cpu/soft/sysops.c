/*
 * Flags and interrupts, software interrupts, time, identification, entropy.
 * SDM vol. 2 for each instruction.
 */
#include "cpu/soft/desc.h"
#include "cpu/soft/sysops.h"
#include "cpu/soft/system.h"
#include "vm/vm.h"

static _Noreturn void gp0(struct soft_cpu *c, const struct soft_op *op)
{
	soft_raise_err(c, op, EXC_GP, 0);
}

/* CLI, STI: IOPL must allow it.  Virtual-8086 mode has CPL 3. */
static void need_iopl(struct soft_cpu *c, const struct soft_op *op)
{
	if (c->mode & MODE_PE && c->cpl > soft_iopl(c))
		gp0(c, op);
}

/* PUSHF, POPF, INT n in virtual-8086 mode. */
static void need_vm86_iopl(struct soft_cpu *c, const struct soft_op *op)
{
	if (c->mode & MODE_VM86 && soft_iopl(c) != 3)
		gp0(c, op);
}

/* ---- Interrupt flag ------------------------------------------------------ */

const struct soft_op *op_hlt(struct soft_cpu *c, const struct soft_op *op)
{
	soft_need_cpl0(c, op);
	c->s.halted = 1;
	return soft_leave(c, op, soft_next_rip(c, op));
}

const struct soft_op *op_cli(struct soft_cpu *c, const struct soft_op *op)
{
	need_iopl(c, op);
	c->s.rflags &= ~(uint64_t)RFLAGS_IF;
	return op + 1;
}

/*
 * The instruction after STI runs before any interrupt is taken.  Inside a block
 * that is so by itself, as long as nothing waits: the run loop looks only
 * where a block ends, and a block that does not fit the budget is not entered.
 */
const struct soft_op *op_sti(struct soft_cpu *c, const struct soft_op *op)
{
	need_iopl(c, op);
	if (c->s.rflags & RFLAGS_IF)
		return op + 1;
	c->s.rflags |= RFLAGS_IF;
	if (op->left && !c->sys.intr_held && !c->stepping)
		return op + 1;
	c->s.sti_shadow = 1;
	soft_interrupts_changed(c);
	return soft_leave(c, op, soft_next_rip(c, op));
}

const struct soft_op *op_pushf(struct soft_cpu *c, const struct soft_op *op)
{
	need_vm86_iopl(c, op);
	soft_push(c, op, op->size, soft_rflags(c) & ~(uint64_t)(RFLAGS_VM | RFLAGS_RF));
	return op + 1;
}

const struct soft_op *op_popf(struct soft_cpu *c, const struct soft_op *op)
{
	uint64_t mask, old, new;

	need_vm86_iopl(c, op);
	mask = soft_flags_writable(c, op->size);
	new = soft_pop(c, op, op->size);
	old = soft_rflags(c) & ~(uint64_t)RFLAGS_RF;
	new = (old & ~mask) | (new & mask);
	soft_set_rflags(c, new);
	if (!((old ^ new) & (RFLAGS_TF | RFLAGS_AC | RFLAGS_IF)))
		return op + 1;
	soft_interrupts_changed(c);
	return soft_go_on(c, op, soft_next_rip(c, op));
}

static const struct soft_op *set_ac(struct soft_cpu *c, const struct soft_op *op, bool ac)
{
	uint64_t f = soft_rflags(c);

	if (c->cpl != 0 || c->mode & MODE_VM86)
		soft_raise(c, op, EXC_UD);
	soft_set_rflags(c, ac ? f | RFLAGS_AC : f & ~(uint64_t)RFLAGS_AC);
	return soft_go_on(c, op, soft_next_rip(c, op));
}

const struct soft_op *op_clac(struct soft_cpu *c, const struct soft_op *op)
{
	return set_ac(c, op, false);
}

const struct soft_op *op_stac(struct soft_cpu *c, const struct soft_op *op)
{
	return set_ac(c, op, true);
}

/* ---- Software interrupts -------------------------------------------------- */

const struct soft_op *op_int(struct soft_cpu *c, const struct soft_op *op)
{
	need_vm86_iopl(c, op);
	soft_raise_after(c, op, op->imm & 0xff, EXC_KIND_SOFT);
}

const struct soft_op *op_int3(struct soft_cpu *c, const struct soft_op *op)
{
	soft_raise_after(c, op, EXC_BP, EXC_KIND_TRAP);
}

const struct soft_op *op_int1(struct soft_cpu *c, const struct soft_op *op)
{
	c->sys.dr6 = 0;
	soft_raise_after(c, op, EXC_DB, EXC_KIND_TRAP);
}

const struct soft_op *op_into(struct soft_cpu *c, const struct soft_op *op)
{
	if (c->cc & CC_OF)
		soft_raise_after(c, op, EXC_OF, EXC_KIND_TRAP);
	return op + 1;
}

/* dst: the index, compared signed with the two bounds in memory. */
const struct soft_op *op_bound(struct soft_cpu *c, const struct soft_op *op)
{
	uint32_t lin = (uint32_t)soft_ea(c, op);

	/* Below the lower bound the upper one is not looked at. */
	if (op->size == 2) {
		int16_t index = (int16_t)R16(c, op->dst);

		if (index < (int16_t)soft_ld16(c, op, lin) ||
		    index > (int16_t)soft_ld16(c, op, (uint32_t)(lin + 2)))
			soft_raise(c, op, EXC_BR);
	} else {
		int32_t index = (int32_t)R32(c, op->dst);

		if (index < (int32_t)soft_ld32(c, op, lin) ||
		    index > (int32_t)soft_ld32(c, op, (uint32_t)(lin + 4)))
			soft_raise(c, op, EXC_BR);
	}
	return op + 1;
}

/* ---- Time, identification, entropy ----------------------------------------- */

uint64_t soft_tsc(const struct soft_cpu *c)
{
	return clock_tsc(&c->vm->clock) + c->s.tsc_adjust;
}

static void read_tsc(struct soft_cpu *c, const struct soft_op *op)
{
	uint64_t tsc;

	if (c->s.cr4 & CR4_TSD && c->cpl != 0)
		gp0(c, op);
	soft_sync_clock(c, op);
	tsc = soft_tsc(c);
	c->r[REG_RAX] = (uint32_t)tsc;
	c->r[REG_RDX] = tsc >> 32;
}

const struct soft_op *op_rdtsc(struct soft_cpu *c, const struct soft_op *op)
{
	read_tsc(c, op);
	return op + 1;
}

const struct soft_op *op_rdtscp(struct soft_cpu *c, const struct soft_op *op)
{
	read_tsc(c, op);
	c->r[REG_RCX] = (uint32_t)c->s.tsc_aux;
	return op + 1;
}

/* No model has performance counters: every counter number is out of range. */
const struct soft_op *op_rdpmc(struct soft_cpu *c, const struct soft_op *op)
{
	gp0(c, op);
}

const struct soft_op *op_cpuid(struct soft_cpu *c, const struct soft_op *op)
{
	uint32_t out[4];

	soft_cpuid(c, (uint32_t)c->r[REG_RAX], (uint32_t)c->r[REG_RCX], out);
	c->r[REG_RAX] = out[0];
	c->r[REG_RBX] = out[1];
	c->r[REG_RCX] = out[2];
	c->r[REG_RDX] = out[3];
	return op + 1;
}

const struct soft_op *op_rdrand(struct soft_cpu *c, const struct soft_op *op)
{
	uint64_t v;

	device_lock(c->vm);
	v = vm_entropy(c->vm);
	device_unlock(c->vm);
	soft_reg_set(c, op->dst, op->size, v);
	c->cc = CC_ONE | CC_CF;
	return op + 1;
}

const struct soft_op *op_rdmsr(struct soft_cpu *c, const struct soft_op *op)
{
	uint64_t v;

	soft_need_cpl0(c, op);
	if (!soft_msr_read(c, op, (uint32_t)c->r[REG_RCX], &v))
		gp0(c, op);
	c->r[REG_RAX] = (uint32_t)v;
	c->r[REG_RDX] = v >> 32;
	return op + 1;
}

const struct soft_op *op_wrmsr(struct soft_cpu *c, const struct soft_op *op)
{
	uint64_t v = (uint32_t)c->r[REG_RAX] | c->r[REG_RDX] << 32;

	soft_need_cpl0(c, op);
	if (!soft_msr_write(c, op, (uint32_t)c->r[REG_RCX], v))
		gp0(c, op);
	return soft_go_on(c, op, soft_next_rip(c, op));
}

/* There is no cache to flush; the address is checked as for a load. */
const struct soft_op *op_clflush(struct soft_cpu *c, const struct soft_op *op)
{
	soft_load(c, op, soft_ea(c, op), 1);
	return op + 1;
}

/* To the hypervisor that the machine's identity names; there is none in real mode. */
const struct soft_op *op_vmcall(struct soft_cpu *c, const struct soft_op *op)
{
	uint64_t result;

	if (!c->v || !(c->mode & MODE_PE) || c->mode & MODE_VM86 ||
	    !paravirt_hypercall(c->v, c->cpl, &result))
		soft_raise(c, op, EXC_UD);
	c->r[REG_RAX] = c->mode & MODE_CS64 ? result : (uint32_t)result;
	/* 32-bit callers of Hyper-V have the upper half in EDX. */
	if (!(c->mode & MODE_CS64) && c->vm->identity == IDENTITY_HYPERV)
		c->r[REG_RDX] = result >> 32;
	return op + 1;
}
