/*
 * Segment registers and descriptor tables.  SDM vol. 2 for each instruction,
 * vol. 3 chapter 3 for the descriptors.
 *
 * dst and src: numbers of segment registers, or byte offsets of general ones
 * when there is no memory operand.
 */
#include "cpu/soft/desc.h"
#include "cpu/soft/sysops.h"

/* These instructions exist in protected mode only. */
static void need_protected(struct soft_cpu *c, const struct soft_op *op)
{
	if (!soft_protected(c))
		soft_raise(c, op, EXC_UD);
}

/* CR4.UMIP keeps table addresses from users (SDM vol. 3, 2.5). */
static void need_umip(struct soft_cpu *c, const struct soft_op *op)
{
	if (c->s.cr4 & CR4_UMIP && c->cpl != 0)
		soft_raise_err(c, op, EXC_GP, 0);
}

static uint16_t selector_operand(struct soft_cpu *c, const struct soft_op *op)
{
	if (op->flags & OPF_MEM)
		return (uint16_t)soft_load(c, op, soft_ea(c, op), 2);
	return R16(c, op->src);
}

/* A 16-bit result: 16 bits of memory, a register of the operand size. */
static void selector_result(struct soft_cpu *c, const struct soft_op *op, uint16_t v)
{
	if (op->flags & OPF_MEM)
		soft_store(c, op, soft_ea(c, op), 2, v);
	else
		soft_reg_set(c, op->dst, op->size, v);
}

/* ---- Loading and storing segment registers ----------------------------- */

/* The end of an instruction that loaded seg. */
static const struct soft_op *segment_loaded(struct soft_cpu *c, const struct soft_op *op,
					    unsigned seg, const struct cpu_segment *v)
{
	soft_set_segment(c, seg, v);
	/* 64-bit code does not depend on these. */
	if (c->mode & MODE_CS64 && seg != SEG_SS)
		return op + 1;
	soft_update_mode(c);
	if (c->s.ss_shadow)
		return soft_leave(c, op, soft_next_rip(c, op));
	return soft_go_on(c, op, soft_next_rip(c, op));
}

/* MOV and POP SS hold events off until the next instruction has run (6.8.3). */
static void stack_shadow(struct soft_cpu *c, unsigned seg)
{
	if (seg == SEG_SS)
		c->s.ss_shadow = 1;
}

const struct soft_op *op_mov_to_seg(struct soft_cpu *c, const struct soft_op *op)
{
	struct cpu_segment v = soft_check_data_segment(c, op, op->dst, selector_operand(c, op));

	stack_shadow(c, op->dst);
	return segment_loaded(c, op, op->dst, &v);
}

const struct soft_op *op_mov_from_seg(struct soft_cpu *c, const struct soft_op *op)
{
	selector_result(c, op, c->s.seg[op->src].selector);
	return op + 1;
}

/*
 * A 32-bit push moves RSP by four and writes the selector's two bytes, as processors
 * have done since the Core (SDM vol. 2, PUSH).
 */
const struct soft_op *op_push_seg(struct soft_cpu *c, const struct soft_op *op)
{
	uint16_t selector = c->s.seg[op->src].selector;
	uint64_t rsp = c->r[REG_RSP], down;

	if (op->size != 4) {
		soft_push(c, op, op->size, selector);
		return op + 1;
	}
	down = c->mode & MODE_SS32 ? (uint32_t)(rsp - 4) : (uint16_t)(rsp - 4);
	soft_st16(c, op, soft_seg_lin(c, op, SEG_SS, down, 2, true), selector);
	if (c->mode & MODE_SS32)
		W32(c, SLOT(REG_RSP), down);
	else
		R16(c, SLOT(REG_RSP)) = (uint16_t)down;
	return op + 1;
}

const struct soft_op *op_pop_seg(struct soft_cpu *c, const struct soft_op *op)
{
	struct soft_stack st = soft_stack_current(c);
	uint16_t sel = (uint16_t)stack_pop(c, op, &st, op->size);
	struct cpu_segment v = soft_check_data_segment(c, op, op->dst, sel);

	stack_commit(c, &st);
	stack_shadow(c, op->dst);
	return segment_loaded(c, op, op->dst, &v);
}

/* LDS LES LFS LGS LSS: seg in src, register in dst. */
const struct soft_op *op_load_far_pointer(struct soft_cpu *c, const struct soft_op *op)
{
	uint8_t bytes[10];
	uint64_t off = 0;
	struct cpu_segment v;

	soft_load_bytes(c, op, soft_ea(c, op), bytes, op->size + 2u);
	memcpy(&off, bytes, op->size);
	v = soft_check_data_segment(c, op, op->src, load16(bytes + op->size));
	soft_reg_set(c, op->dst, op->size, off);
	return segment_loaded(c, op, op->src, &v);
}

/* ---- Asking about selectors -------------------------------------------- */

static const struct soft_op *set_zf(struct soft_cpu *c, const struct soft_op *op, bool zf)
{
	c->cc = zf ? c->cc | CC_ZF : c->cc & (uint16_t)~CC_ZF;
	return op + 1;
}

/* Could this privilege see the descriptor at all? */
static bool visible(struct soft_cpu *c, const struct soft_op *op, uint16_t sel,
		    struct soft_desc *d)
{
	if (!desc_fetch(c, op, sel, d))
		return false;
	if (desc_is_code(d->attr) && d->attr & ATTR_EXPAND)
		return true;
	return desc_dpl(d->attr) >= MAX((unsigned)c->cpl, sel & 3u);
}

/* Bit n: LAR (LSL) knows system type n. */
#define LAR_LEGACY	0x1a3eu		/* 1 2 3 4 5 9 11 12 */
#define LAR_LONG	0x1a04u		/* 2 9 11 12 */
#define LSL_LEGACY	0x0a0eu		/* 1 2 3 9 11 */
#define LSL_LONG	0x0a04u		/* 2 9 11 */

static bool type_known(const struct soft_desc *d, unsigned types)
{
	return d->attr & ATTR_S || types >> (d->attr & ATTR_TYPE) & 1;
}

const struct soft_op *op_lar(struct soft_cpu *c, const struct soft_op *op)
{
	struct soft_desc d;
	uint16_t sel;

	need_protected(c, op);
	sel = selector_operand(c, op);
	if (!visible(c, op, sel, &d) ||
	    !type_known(&d, soft_long_mode(c) ? LAR_LONG : LAR_LEGACY))
		return set_zf(c, op, false);
	soft_reg_set(c, op->dst, op->size, d.raw >> 32 & (op->size == 2 ? 0xff00 : 0xf0ff00));
	return set_zf(c, op, true);
}

const struct soft_op *op_lsl(struct soft_cpu *c, const struct soft_op *op)
{
	struct soft_desc d;
	uint16_t sel;

	need_protected(c, op);
	sel = selector_operand(c, op);
	if (!visible(c, op, sel, &d) ||
	    !type_known(&d, soft_long_mode(c) ? LSL_LONG : LSL_LEGACY))
		return set_zf(c, op, false);
	soft_reg_set(c, op->dst, op->size, d.limit);
	return set_zf(c, op, true);
}

const struct soft_op *op_verr(struct soft_cpu *c, const struct soft_op *op)
{
	struct soft_desc d;

	need_protected(c, op);
	if (!visible(c, op, selector_operand(c, op), &d) || !(d.attr & ATTR_S))
		return set_zf(c, op, false);
	return set_zf(c, op, !(d.attr & ATTR_CODE) || d.attr & ATTR_WRITE);
}

const struct soft_op *op_verw(struct soft_cpu *c, const struct soft_op *op)
{
	struct soft_desc d;

	need_protected(c, op);
	return set_zf(c, op, visible(c, op, selector_operand(c, op), &d) && desc_is_stack(d.attr));
}

/* dst: the selector that is adjusted (or memory); src: the one it is compared with. */
const struct soft_op *op_arpl(struct soft_cpu *c, const struct soft_op *op)
{
	bool mem = op->flags & OPF_MEM;
	uint16_t dst, src;

	need_protected(c, op);
	src = R16(c, op->src);
	dst = mem ? (uint16_t)soft_load(c, op, soft_ea(c, op), 2) : R16(c, op->dst);
	if ((dst & 3) >= (src & 3))
		return set_zf(c, op, false);
	dst = (uint16_t)((dst & ~3) | (src & 3));
	if (mem)
		soft_store(c, op, soft_ea(c, op), 2, dst);
	else
		R16(c, op->dst) = dst;
	return set_zf(c, op, true);
}

/* ---- System segments ---------------------------------------------------- */

/* Fetches an LDT or TSS descriptor for LLDT and LTR. */
static struct soft_desc system_desc(struct soft_cpu *c, const struct soft_op *op, uint16_t sel,
				    unsigned types)
{
	struct soft_desc d;
	uint64_t high;

	if (sel & 4 || !desc_fetch(c, op, sel, &d) || d.attr & ATTR_S ||
	    !(types >> (d.attr & ATTR_TYPE) & 1))
		soft_fault(c, op, EXC_GP, sel);
	if (!(d.attr & ATTR_P))
		soft_fault(c, op, EXC_NP, sel);
	if (soft_long_mode(c) && (!desc_extend(c, op, sel, &d, &high) || !soft_canonical(d.base)))
		soft_fault(c, op, EXC_GP, sel);
	return d;
}

const struct soft_op *op_lldt(struct soft_cpu *c, const struct soft_op *op)
{
	struct cpu_segment v;
	uint16_t sel;

	need_protected(c, op);
	soft_need_cpl0(c, op);
	sel = selector_operand(c, op);
	if (sel & 0xfffc) {
		struct soft_desc d = system_desc(c, op, sel, BIT(SYS_LDT));

		v = desc_segment(&d, sel);
	} else {
		v = desc_null(sel);
	}
	soft_set_segment(c, SEG_LDTR, &v);
	return op + 1;
}

const struct soft_op *op_ltr(struct soft_cpu *c, const struct soft_op *op)
{
	struct cpu_segment v;
	struct soft_desc d;
	uint16_t sel;

	need_protected(c, op);
	soft_need_cpl0(c, op);
	sel = selector_operand(c, op);
	if (!(sel & 0xfffc))
		soft_raise_err(c, op, EXC_GP, 0);
	d = system_desc(c, op, sel,
			BIT(SYS_TSS32) | (soft_long_mode(c) ? 0 : BIT(SYS_TSS16)));
	desc_set_busy(c, op, &d, true);
	v = desc_segment(&d, sel);
	soft_set_segment(c, SEG_TR, &v);
	return op + 1;
}

const struct soft_op *op_sldt(struct soft_cpu *c, const struct soft_op *op)
{
	need_protected(c, op);
	need_umip(c, op);
	selector_result(c, op, c->s.seg[SEG_LDTR].selector);
	return op + 1;
}

const struct soft_op *op_str(struct soft_cpu *c, const struct soft_op *op)
{
	need_protected(c, op);
	need_umip(c, op);
	selector_result(c, op, c->s.seg[SEG_TR].selector);
	return op + 1;
}

/* ---- GDTR and IDTR ------------------------------------------------------ */

static struct cpu_table load_table(struct soft_cpu *c, const struct soft_op *op)
{
	bool long64 = c->mode & MODE_CS64;
	struct cpu_table t;
	uint8_t bytes[10];

	soft_need_cpl0(c, op);
	soft_load_bytes(c, op, soft_ea(c, op), bytes, long64 ? 10 : 6);
	t.limit = load16(bytes);
	t.base = long64 ? load64(bytes + 2) : load32(bytes + 2);
	if (!long64 && op->size == 2)
		t.base &= 0xffffff;
	if (!soft_canonical(t.base))
		soft_raise_err(c, op, EXC_GP, 0);
	return t;
}

static const struct soft_op *store_table(struct soft_cpu *c, const struct soft_op *op,
					 const struct cpu_table *t)
{
	bool long64 = c->mode & MODE_CS64;
	uint8_t bytes[10];

	need_umip(c, op);
	store16(bytes, t->limit);
	store64(bytes + 2, t->base);
	soft_store_bytes(c, op, soft_ea(c, op), bytes, long64 ? 10 : 6);
	return op + 1;
}

const struct soft_op *op_lgdt(struct soft_cpu *c, const struct soft_op *op)
{
	c->s.gdtr = load_table(c, op);
	return op + 1;
}

const struct soft_op *op_lidt(struct soft_cpu *c, const struct soft_op *op)
{
	c->s.idtr = load_table(c, op);
	return op + 1;
}

const struct soft_op *op_sgdt(struct soft_cpu *c, const struct soft_op *op)
{
	return store_table(c, op, &c->s.gdtr);
}

const struct soft_op *op_sidt(struct soft_cpu *c, const struct soft_op *op)
{
	return store_table(c, op, &c->s.idtr);
}
