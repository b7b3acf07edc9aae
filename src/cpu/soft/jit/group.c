/*
 * Finding memory accesses that one check can serve, and what the turns of a loop have in common.
 */
#include "cpu/soft/exec.h"
#include "cpu/soft/jit/inside.h"

/* What has become of the registers since the group began. */
struct walk {
	int32_t moved[16];	/* by so much */
	uint16_t over;		/* they have other values now */
};

static bool uses_stack(const struct jit_insn *x)
{
	return x->class == JIT_PUSH || x->class == JIT_POP || x->class == JIT_RET ||
	       x->class == JIT_CALL || (x->class == JIT_CALL_INDIRECT && x->ops->fn != op_call_m);
}

/* Offset of its access from its registers; false: it has none that a group can have. */
static bool access_of(const struct jit_insn *x, struct soft_op *address, unsigned *size, bool *write)
{
	if (uses_stack(x)) {
		*address = (struct soft_op){ .base = SLOT(REG_RSP), .index = SLOT(SLOT_ZERO) };
		*size = 8;
		*write = x->class != JIT_POP && x->class != JIT_RET;
		address->disp = *write ? -8 : 0;
		return true;
	}
	if (x->class != JIT_REWRITE || x->mem < 0)
		return false;
	*address = *x->ops;
	*size = x->mem_size;
	*write = x->mem_write;
	return true;
}

/* Does it name more than one register that is in memory? */
static bool names_two(const struct jit_insn *x)
{
	unsigned first = 0;

	for (unsigned i = 0; i < x->in.operand_count_visible; i++) {
		const ZydisDecodedOperand *o = &x->op[i];

		if (!jit_is_general(o) || jit_host_of(soft_slot_of(o->reg.value) / 8) >= 0)
			continue;
		if (first && soft_slot_of(o->reg.value) / 8 != first)
			return true;
		first = soft_slot_of(o->reg.value) / 8;
	}
	return false;
}

/* Does its code need HOST_A, which is the group's? */
static bool needs_scratch(const struct jit_insn *x)
{
	switch ((enum jit_class)x->class) {
	case JIT_NOTHING:
	case JIT_PUSH:
	case JIT_POP:
	case JIT_JCC:
	case JIT_CALL:
	case JIT_RET:
		return false;
	case JIT_CALL_INDIRECT:
		return x->ops->fn == op_call_m;
	case JIT_LEA:
		return jit_host_of(x->ops->dst / 8) < 0 ||
		       (x->ops->base / 8 != SLOT_ZERO && (x->ops->base / 8 >= 16 ||
							  jit_host_of(x->ops->base / 8) < 0));
	case JIT_REWRITE:
		return names_two(x);
	default:
		return true;
	}
}

/* add, sub and lea of the register by a constant */
static bool moves_base(const struct jit_insn *x, uint8_t base, int32_t *by)
{
	const ZydisDecodedOperand *d = &x->op[0], *s = &x->op[1];

	if (x->class == JIT_LEA && x->ops->dst == base && x->ops->base == base &&
	    x->ops->index == SLOT(SLOT_ZERO) && d->size == 64) {
		*by = x->ops->disp;
	} else {
		if (x->class != JIT_REWRITE || d->type != ZYDIS_OPERAND_TYPE_REGISTER ||
		    d->size != 64 || soft_slot_of(d->reg.value) != base ||
		    s->type != ZYDIS_OPERAND_TYPE_IMMEDIATE ||
		    (x->in.mnemonic != ZYDIS_MNEMONIC_ADD && x->in.mnemonic != ZYDIS_MNEMONIC_SUB))
			return false;
		*by = (int32_t)(x->in.mnemonic == ZYDIS_MNEMONIC_ADD ? s->imm.value.s :
									   -s->imm.value.s);
	}
	return *by > -4096 && *by < 4096;
}

/* What x does to the registers. */
static void follow(struct walk *w, const struct jit_insn *x)
{
	for (unsigned r = 0; r < 16; r++) {
		int32_t by;

		if (!(x->writes & BIT(r)))
			continue;
		if (r == REG_RSP && x->class == JIT_PUSH)
			w->moved[r] -= 8;
		else if (r == REG_RSP && x->class == JIT_POP && x->ops->dst != SLOT(REG_RSP))
			w->moved[r] += 8;
		else if (moves_base(x, (uint8_t)SLOT(r), &by))
			w->moved[r] += by;
		else
			w->over |= BIT(r);
	}
}

/* By how much the address has moved; false: it is over. */
static bool moved(const struct walk *w, const struct soft_op *address, int64_t *by)
{
	unsigned b = address->base / 8, x = address->index / 8;

	*by = 0;
	if (b < 16) {
		*by += w->moved[b];
		if (w->over & BIT(b))
			return false;
	}
	if (x < 16) {
		*by += (int64_t)w->moved[x] << address->scale;
		if (w->over & BIT(x))
			return false;
	}
	return true;
}

/* Adds an access to the stream; false: it is too far away. */
static bool take(struct jit_stream *s, bool first, int64_t at, unsigned size, bool write, unsigned align)
{
	int32_t low, high;

	if (at < -(1ll << 30) || at > 1ll << 30)
		return false;
	low = first ? (int32_t)at : MIN(s->low, (int32_t)at);
	high = MAX(first ? INT32_MIN : s->high, (int32_t)(at + size));
	if ((int64_t)high - low > GROUP_SPAN)
		return false;
	if (align > 1 && align < 16)
		return false;
	if (align > 1 && s->aligned != NOT_ALIGNED && (at - s->aligned) & (MIN(align, s->align) - 1))
		return false;
	if (align > 1 && (s->aligned == NOT_ALIGNED || align > s->align)) {
		s->aligned = (int32_t)at;
		s->align = (uint8_t)align;
	}
	s->low = low;
	s->high = high;
	s->write |= write;
	return true;
}

static bool same_registers(const struct soft_op *a, const struct soft_op *b)
{
	return a->base == b->base && a->index == b->index && a->scale == b->scale;
}

/* Adds the access of insn[i]; false: the group ends before it. */
static bool add(struct jit_group *g, const struct walk *w, unsigned i, const struct jit_insn *x)
{
	struct soft_op address;
	unsigned size, k = 0;
	int64_t by;
	bool write;

	g->of[i] = NO_STREAM;
	if (needs_scratch(x))
		return false;
	if (!access_of(x, &address, &size, &write))
		return true;
	while (k < g->nstreams && !same_registers(&g->address[k], &address))
		k++;
	if (k == GROUP_STREAMS || !moved(w, &address, &by))
		return false;
	by += address.disp;
	if (k == g->nstreams)
		g->stream[k] = (struct jit_stream){ .aligned = NOT_ALIGNED };
	if (!take(&g->stream[k], k == g->nstreams, by, size, write, x->align))
		return false;
	if (k == g->nstreams)
		g->address[g->nstreams++] = address;
	g->at[i] = (int32_t)by;
	g->of[i] = (uint8_t)k;
	g->last = i;
	return true;
}

bool jit_find_group(struct jit_translation *t, unsigned first)
{
	struct jit_group *g = &t->group;
	struct walk w = { 0 };
	struct soft_op address;
	unsigned size, n = 0;
	bool write;

	if (!access_of(&t->insn[first], &address, &size, &write))
		return false;
	g->first = g->last = first;
	g->nstreams = 0;
	for (unsigned i = first; i < t->ninsns && add(g, &w, i, &t->insn[i]); i++) {
		const struct jit_insn *x = &t->insn[i];

		n += g->of[i] != NO_STREAM;
		follow(&w, x);
		if (x->class == JIT_RET || x->class == JIT_CALL || x->class == JIT_CALL_INDIRECT)
			break;
	}
	for (unsigned i = first; i <= g->last && g->nstreams; i++)
		if (g->of[i] != NO_STREAM)
			g->at[i] -= g->stream[g->of[i]].low;
	return n > g->nstreams;
}

/* ---- Loops -------------------------------------------------------------------- */

void jit_find_steady(struct jit_translation *t)
{
	struct walk w = { 0 };

	for (unsigned i = 0; i < t->ninsns; i++)
		follow(&w, &t->insn[i]);
	t->steady = (uint16_t)~w.over;
	memcpy(t->loop_move, w.moved, sizeof(t->loop_move));
	for (unsigned k = 0; k < JIT_FRONTS; k++)
		t->walker[k].used = false;
}

/* Does each turn of the loop move the address by a constant?  The stack's has a front of its own. */
static bool steady(const struct jit_translation *t, const struct soft_op *address, int64_t *by)
{
	struct walk w = { .over = (uint16_t)~t->steady };

	if (!t->loop || t->out_of_line)
		return false;
	memcpy(w.moved, t->loop_move, sizeof(w.moved));
	return moved(&w, address, by);
}

int jit_front_for(struct jit_translation *t, const struct soft_op *address, bool write)
{
	int64_t by;

	if (t->out_of_line)
		return FRONT_NONE;
	if (address->base == SLOT(REG_RSP) && address->index == SLOT(SLOT_ZERO))
		return FRONT_STACK;
	if (!steady(t, address, &by))
		return FRONT_NONE;
	for (int k = write ? FRONT_WRITE : FRONT_READ; k < (write ? FRONT_READ : JIT_FRONTS); k++) {
		struct jit_walker *w = &t->walker[k];

		if (w->used && !same_registers(&w->address, address))
			continue;
		*w = (struct jit_walker){ .used = true, .address = *address };
		return k;
	}
	return FRONT_NONE;
}

bool jit_stays_aligned(const struct jit_translation *t, const struct soft_op *address, unsigned align)
{
	int64_t by;

	/* What needs less than 16 does not fault: the first copy's handler may have done it. */
	return align >= 16 && steady(t, address, &by) && !(by & (align - 1));
}
