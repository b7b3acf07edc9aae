/* Descriptors, selectors, stacks: see desc.h. */
#include "cpu/soft/desc.h"

_Noreturn void soft_fault(struct soft_cpu *c, const struct soft_op *op, unsigned vector,
			  uint32_t selector)
{
	soft_raise_err(c, op, vector, (selector & 0xfffc) | c->sys.ext);
}

void soft_need_cpl0(struct soft_cpu *c, const struct soft_op *op)
{
	if (unlikely(c->cpl != 0))
		soft_raise_err(c, op, EXC_GP, 0);
}

/* ---- Descriptors ------------------------------------------------------ */

/* Linear address of a descriptor of size bytes; false: null or beyond the table. */
static bool table_lookup(struct soft_cpu *c, uint16_t sel, unsigned size, uint64_t *lin)
{
	uint32_t at = sel & 0xfff8;
	uint64_t base = c->s.gdtr.base;
	uint64_t limit = c->s.gdtr.limit;

	if (!(sel & 0xfffc))
		return false;
	if (sel & 4) {
		const struct cpu_segment *ldt = &c->s.seg[SEG_LDTR];

		if (ldt->unusable || !(ldt->attr & ATTR_P))
			return false;
		base = ldt->base;
		limit = ldt->limit;
	}
	if (at + size - 1 > limit)
		return false;
	*lin = soft_lin_wrap(c, base + at);
	return true;
}

static void desc_parse(struct soft_desc *d)
{
	uint64_t r = d->raw;

	d->attr = r >> 40 & 0xf0ff;
	d->base = (r >> 16 & 0xffffff) | (r >> 32 & 0xff000000);
	d->limit = (uint32_t)((r & 0xffff) | (r >> 32 & 0xf0000));
	if (d->attr & ATTR_G)
		d->limit = d->limit << 12 | 0xfff;
}

bool desc_fetch(struct soft_cpu *c, const struct soft_op *op, uint16_t sel, struct soft_desc *d)
{
	if (!table_lookup(c, sel, 8, &d->lin))
		return false;
	d->raw = soft_sys_load(c, op, d->lin, 8);
	desc_parse(d);
	return true;
}

bool desc_extend(struct soft_cpu *c, const struct soft_op *op, uint16_t sel, struct soft_desc *d,
		 uint64_t *high)
{
	uint64_t lin;

	if (!table_lookup(c, sel, 16, &lin))
		return false;
	*high = soft_sys_load(c, op, soft_lin_wrap(c, lin + 8), 8);
	d->base = (d->base & 0xffffffff) | *high << 32;
	/* SDM vol. 3, 3.5.2: the type field of the second half must be zero. */
	return !(*high >> 40 & 0x1f);
}

void desc_touch(struct soft_cpu *c, const struct soft_op *op, struct soft_desc *d)
{
	if (d->attr & ATTR_ACCESSED)
		return;
	d->attr |= ATTR_ACCESSED;
	d->raw |= BIT(40);
	soft_sys_store(c, op, soft_lin_wrap(c, d->lin + 5), 1, d->raw >> 40 & 0xff);
}

void desc_set_busy(struct soft_cpu *c, const struct soft_op *op, struct soft_desc *d, bool busy)
{
	uint16_t attr = busy ? d->attr | 2 : d->attr & (uint16_t)~2;

	soft_sys_store(c, op, soft_lin_wrap(c, d->lin + 5), 1, attr & 0xff);
	d->attr = attr;
	d->raw = (d->raw & ~BIT(41)) | (busy ? BIT(41) : 0);
}

struct cpu_segment desc_segment(const struct soft_desc *d, uint16_t sel)
{
	return (struct cpu_segment){ .selector = sel, .attr = d->attr, .limit = d->limit,
				     .base = d->base };
}

struct cpu_segment desc_null(uint16_t sel)
{
	return (struct cpu_segment){ .selector = sel, .unusable = 1 };
}

struct cpu_segment desc_real(struct soft_cpu *c, unsigned seg, uint16_t sel)
{
	struct cpu_segment s = c->s.seg[seg];

	s.selector = sel;
	s.base = (uint32_t)sel << 4;
	if (c->mode & MODE_VM86) {
		s.attr = 0xf3;
		s.limit = 0xffff;
	} else if (s.unusable || !(s.attr & ATTR_P)) {
		/* Real mode changes base and selector only; this was a null one. */
		s.attr = 0x93;
		s.limit = 0xffff;
	}
	s.unusable = 0;
	return s;
}

/* ---- Checks ----------------------------------------------------------- */

void soft_check_rip(struct soft_cpu *c, const struct soft_op *op, const struct soft_desc *d,
		    uint64_t rip)
{
	uint16_t attr = d ? d->attr : c->s.seg[SEG_CS].attr;
	uint32_t limit = d ? d->limit : c->s.seg[SEG_CS].limit;

	if (soft_long_mode(c) && attr & ATTR_L ? !soft_canonical(rip) : rip > limit)
		soft_fault(c, op, EXC_GP, 0);
}

struct cpu_segment soft_check_stack_segment(struct soft_cpu *c, const struct soft_op *op,
					    uint16_t sel, unsigned cpl, unsigned vector)
{
	struct soft_desc d;

	if (!(sel & 0xfffc))
		soft_fault(c, op, vector, 0);
	if (!desc_fetch(c, op, sel, &d) || (sel & 3u) != cpl || !desc_is_stack(d.attr) ||
	    desc_dpl(d.attr) != cpl)
		soft_fault(c, op, vector, sel);
	if (!(d.attr & ATTR_P))
		soft_fault(c, op, EXC_SS, sel);
	desc_touch(c, op, &d);
	return desc_segment(&d, sel);
}

struct cpu_segment soft_check_data_desc(struct soft_cpu *c, const struct soft_op *op, uint16_t sel,
					unsigned vector)
{
	struct soft_desc d;

	if (!(sel & 0xfffc))
		return desc_null(sel);
	if (!desc_fetch(c, op, sel, &d) || !(d.attr & ATTR_S))
		soft_fault(c, op, vector, sel);
	if (desc_is_code(d.attr) && !(d.attr & ATTR_WRITE))
		soft_fault(c, op, vector, sel);
	if ((d.attr & (ATTR_CODE | ATTR_EXPAND)) != (ATTR_CODE | ATTR_EXPAND) &&
	    MAX((unsigned)c->cpl, sel & 3u) > desc_dpl(d.attr))
		soft_fault(c, op, vector, sel);
	if (!(d.attr & ATTR_P))
		soft_fault(c, op, EXC_NP, sel);
	desc_touch(c, op, &d);
	return desc_segment(&d, sel);
}

struct cpu_segment soft_check_data_segment(struct soft_cpu *c, const struct soft_op *op,
					   unsigned seg, uint16_t sel)
{
	if (!soft_protected(c))
		return desc_real(c, seg, sel);
	if (seg != SEG_SS)
		return soft_check_data_desc(c, op, sel, EXC_GP);
	/* SDM vol. 2, MOV: a null SS is allowed in 64-bit mode, CPL 0-2. */
	if (!(sel & 0xfffc) && c->mode & MODE_CS64 && c->cpl != 3 && (sel & 3) == c->cpl)
		return desc_null(sel);
	return soft_check_stack_segment(c, op, sel, c->cpl, EXC_GP);
}

/* ---- Stacks ----------------------------------------------------------- */

struct soft_inner soft_inner_stack(struct soft_cpu *c, const struct soft_op *op, unsigned cpl)
{
	const struct cpu_segment *tr = &c->s.seg[SEG_TR];
	bool tss32 = tr->attr & 8;
	unsigned at = tss32 ? 4 + cpl * 8 : 2 + cpl * 4;
	unsigned size = tss32 ? 4 : 2;
	struct soft_inner in;

	if (tr->unusable || at + size + 1 > tr->limit)
		soft_fault(c, op, EXC_TS, tr->selector);
	in.sp = soft_sys_load(c, op, soft_lin_wrap(c, tr->base + at), size);
	in.ss = (uint16_t)soft_sys_load(c, op, soft_lin_wrap(c, tr->base + at + size), 2);
	return in;
}

uint64_t soft_inner_rsp(struct soft_cpu *c, const struct soft_op *op, unsigned slot)
{
	const struct cpu_segment *tr = &c->s.seg[SEG_TR];
	/* RSP0 at 4; IST1 at 36 (SDM vol. 3, figure 8-11). */
	unsigned at = 4 + slot * 8;
	uint64_t rsp;

	if (tr->unusable || at + 7 > tr->limit)
		soft_fault(c, op, EXC_TS, tr->selector);
	rsp = soft_sys_load(c, op, tr->base + at, 8);
	if (!soft_canonical(rsp))
		soft_fault(c, op, EXC_SS, 0);
	return rsp;
}

struct soft_stack soft_stack_current(struct soft_cpu *c)
{
	const struct cpu_segment *ss = &c->s.seg[SEG_SS];

	return (struct soft_stack){
		.seg = *ss, .sp = c->r[REG_RSP],
		.width = c->mode & MODE_CS64 ? 8 : ss->attr & ATTR_DB ? 4 : 2,
	};
}

static uint64_t stack_mask(const struct soft_stack *st)
{
	return st->width == 8 ? UINT64_MAX : BIT(st->width * 8) - 1;
}

/* Linear address of [off, off+size) of the stack, or #SS. */
static uint64_t stack_lin(struct soft_cpu *c, const struct soft_op *op,
			  const struct soft_stack *st, uint64_t off, unsigned size)
{
	uint64_t limit = st->seg.limit;
	uint64_t last = off + size - 1;
	bool ok;

	if (st->width == 8) {
		if (!soft_canonical(off) || !soft_canonical(last))
			soft_fault(c, op, EXC_SS, st->error);
		return off;
	}
	if ((st->seg.attr & (ATTR_CODE | ATTR_EXPAND)) == ATTR_EXPAND)
		ok = off > limit && last <= (st->seg.attr & ATTR_DB ? 0xffffffff : 0xffff);
	else
		ok = last <= limit;
	if (st->seg.unusable || !ok)
		soft_fault(c, op, EXC_SS, st->error);
	return (uint32_t)(st->seg.base + off);
}

void stack_push(struct soft_cpu *c, const struct soft_op *op, struct soft_stack *st,
		unsigned size, uint64_t v)
{
	uint64_t mask = stack_mask(st);
	uint64_t sp = (st->sp - size) & mask;
	uint64_t lin = stack_lin(c, op, st, sp, size);

	if (st->inner)
		soft_sys_store(c, op, lin, size, v);
	else
		soft_store(c, op, lin, size, v);
	st->sp = (st->sp & ~mask) | sp;
}

uint64_t stack_pop(struct soft_cpu *c, const struct soft_op *op, struct soft_stack *st,
		   unsigned size)
{
	uint64_t mask = stack_mask(st);
	uint64_t lin = stack_lin(c, op, st, st->sp & mask, size);
	uint64_t v = st->inner ? soft_sys_load(c, op, lin, size) : soft_load(c, op, lin, size);

	st->sp = (st->sp & ~mask) | ((st->sp + size) & mask);
	return v;
}

void stack_commit(struct soft_cpu *c, const struct soft_stack *st)
{
	soft_reg_set(c, SLOT(REG_RSP), st->width, st->sp);
}

/* ---- Commits ---------------------------------------------------------- */

void soft_enter_code(struct soft_cpu *c, const struct soft_desc *d, uint16_t sel, unsigned cpl)
{
	struct cpu_segment cs = desc_segment(d, (uint16_t)((sel & 0xfffc) | cpl));

	soft_set_segment(c, SEG_CS, &cs);
	c->cpl = (uint8_t)cpl;
}

void soft_drop_inner_segments(struct soft_cpu *c)
{
	static const uint8_t data[] = { SEG_ES, SEG_DS, SEG_FS, SEG_GS };

	for (unsigned i = 0; i < ARRAY_SIZE(data); i++) {
		const struct cpu_segment *s = &c->s.seg[data[i]];
		struct cpu_segment null = desc_null(0);

		if (s->unusable || desc_dpl(s->attr) >= c->cpl ||
			 (s->attr & (ATTR_CODE | ATTR_EXPAND)) == (ATTR_CODE | ATTR_EXPAND))
			continue;
		soft_set_segment(c, data[i], &null);
	}
}

void soft_enter_vm86(struct soft_cpu *c, const uint16_t sel[6])
{
	for (unsigned i = SEG_ES; i <= SEG_GS; i++) {
		struct cpu_segment s = { .selector = sel[i], .attr = 0xf3, .limit = 0xffff,
					 .base = (uint32_t)sel[i] << 4 };

		soft_set_segment(c, i, &s);
	}
	c->cpl = 3;
}
