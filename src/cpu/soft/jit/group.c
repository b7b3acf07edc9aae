/*
 * Finding memory accesses that one check can serve.
 */
#include "cpu/soft/exec.h"
#include "cpu/soft/jit/inside.h"

/* The registers of an address, and what was added to them since the group began. */
struct walk {
	uint8_t base, index, scale;
	int32_t moved;
	bool over;		/* a register has another value now */
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

static bool is_memory_register(const ZydisDecodedOperand *o)
{
	return jit_is_general(o) && jit_host_of(soft_slot_of(o->reg.value) / 8) < 0;
}

/* Does its code need HOST_A, which is the group's? */
static bool needs_scratch(const struct jit_insn *x)
{
	unsigned n = 0;

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
		for (unsigned i = 0; i < x->in.operand_count_visible; i++)
			n += is_memory_register(&x->op[i]);
		return n > 1;
	default:
		return true;
	}
}

/* add, sub and lea of the address register by a constant */
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

/* What x does to the registers of the address. */
static void follow(struct walk *w, const struct jit_insn *x)
{
	int32_t by;

	if (w->index / 8 < 16 && x->writes & BIT(w->index / 8))
		w->over = true;
	if (w->base / 8 >= 16 || !(x->writes & BIT(w->base / 8)))
		return;
	if (w->base == SLOT(REG_RSP) && w->index == SLOT(SLOT_ZERO)) {
		if (x->class == JIT_PUSH) {
			w->moved -= 8;
			return;
		}
		if (x->class == JIT_POP && x->ops->dst != SLOT(REG_RSP)) {
			w->moved += 8;
			return;
		}
	}
	if (w->index == SLOT(SLOT_ZERO) && moves_base(x, w->base, &by))
		w->moved += by;
	else
		w->over = true;
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

/* The stream for an address of insn[i]: a new one, if its registers are as they were at the begin. */
static unsigned stream_for(struct jit_group *g, struct walk *w, unsigned i, const struct soft_op *address,
			   uint32_t written)
{
	unsigned k;

	for (k = 0; k < g->nstreams; k++)
		if (!w[k].over && w[k].base == address->base && w[k].index == address->index &&
		    w[k].scale == address->scale)
			return k;
	if (k == GROUP_STREAMS || (address->base / 8 < 16 && written & BIT(address->base / 8)) ||
	    (address->index / 8 < 16 && written & BIT(address->index / 8)))
		return NO_STREAM;
	w[k] = (struct walk){ .base = address->base, .index = address->index, .scale = address->scale };
	g->stream[k] = (struct jit_stream){ .first = i, .aligned = NOT_ALIGNED };
	return k;
}

/* Adds the access of insn[i]; false: the group ends before it. */
static bool add(struct jit_group *g, struct walk *w, unsigned i, const struct jit_insn *x, uint32_t written)
{
	struct soft_op address;
	unsigned size, k;
	bool write;

	g->of[i] = NO_STREAM;
	if (needs_scratch(x))
		return false;
	if (!access_of(x, &address, &size, &write))
		return true;
	k = stream_for(g, w, i, &address, written);
	if (k == NO_STREAM || !take(&g->stream[k], k == g->nstreams, (int64_t)address.disp + w[k].moved,
				    size, write, x->align))
		return false;
	g->at[i] = address.disp + w[k].moved;
	g->of[i] = (uint8_t)k;
	g->last = i;
	if (k == g->nstreams)
		g->nstreams++;
	return true;
}

bool jit_find_group(struct jit_translation *t, unsigned first)
{
	struct jit_group *g = &t->group;
	struct walk w[GROUP_STREAMS];
	struct soft_op address;
	uint32_t written = 0;
	unsigned size, n = 0;
	bool write;

	if (!access_of(&t->insn[first], &address, &size, &write))
		return false;
	g->first = g->last = first;
	g->nstreams = 0;
	for (unsigned i = first; i < t->ninsns && add(g, w, i, &t->insn[i], written); i++) {
		const struct jit_insn *x = &t->insn[i];

		n += g->of[i] != NO_STREAM;
		for (unsigned k = 0; k < g->nstreams; k++)
			follow(&w[k], x);
		written |= x->writes;
		if (x->class == JIT_RET || x->class == JIT_CALL || x->class == JIT_CALL_INDIRECT)
			break;
	}
	for (unsigned i = first; i <= g->last && g->nstreams; i++)
		if (g->of[i] != NO_STREAM)
			g->at[i] -= g->stream[g->of[i]].low;
	return n > g->nstreams;
}
