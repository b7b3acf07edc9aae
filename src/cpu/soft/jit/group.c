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
	return o->type == ZYDIS_OPERAND_TYPE_REGISTER &&
	       ZydisRegisterGetClass(o->reg.value) <= ZYDIS_REGCLASS_GPR64 &&
	       ZydisRegisterGetClass(o->reg.value) >= ZYDIS_REGCLASS_GPR8 &&
	       jit_host_of(soft_slot_of(o->reg.value) / 8) < 0;
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
	case JIT_RET:
		return false;
	case JIT_CALL:
		return false;
	case JIT_CALL_INDIRECT:
		return x->ops->fn == op_call_m;
	case JIT_JMP:
	case JIT_LEA:
		return x->class == JIT_JMP || jit_host_of(x->ops->dst / 8) < 0 ||
		       (x->ops->base / 8 != SLOT_ZERO && (x->ops->base / 8 >= 16 ||
							  jit_host_of(x->ops->base / 8) < 0));
	case JIT_REWRITE:
		for (unsigned i = 0; i < x->in.operand_count_visible; i++)
			n += is_memory_register(&x->op[i]);
		return n > 1 || (n && x->mem >= 0 && x->in.operand_count_visible > 3);
	default:
		return true;
	}
}

/* add, sub and lea of the stack pointer by a constant */
static bool moves_stack(const struct jit_insn *x, int32_t *by)
{
	const ZydisDecodedOperand *d = &x->op[0], *s = &x->op[1];

	if (x->class == JIT_LEA && x->ops->dst == SLOT(REG_RSP) && x->ops->base == SLOT(REG_RSP) &&
	    x->ops->index == SLOT(SLOT_ZERO) && d->size == 64) {
		*by = x->ops->disp;
		return true;
	}
	if (x->class != JIT_REWRITE || d->type != ZYDIS_OPERAND_TYPE_REGISTER ||
	    d->reg.value != ZYDIS_REGISTER_RSP || s->type != ZYDIS_OPERAND_TYPE_IMMEDIATE ||
	    (x->in.mnemonic != ZYDIS_MNEMONIC_ADD && x->in.mnemonic != ZYDIS_MNEMONIC_SUB))
		return false;
	*by = (int32_t)(x->in.mnemonic == ZYDIS_MNEMONIC_ADD ? s->imm.value.s : -s->imm.value.s);
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
		if (moves_stack(x, &by)) {
			w->moved += by;
			return;
		}
	}
	w->over = true;
}

/* Adds an access to the group; false: it is too far away. */
static bool take(struct jit_group *g, unsigned i, int64_t at, unsigned size, bool write, unsigned align)
{
	int32_t low = g->low, high = g->high;

	if (at < -(1ll << 30) || at > 1ll << 30)
		return false;
	if (g->first == i) {
		low = (int32_t)at;
		high = (int32_t)at + (int32_t)size;
	}
	low = MIN(low, (int32_t)at);
	high = MAX(high, (int32_t)(at + size));
	if (high - low > GROUP_SPAN)
		return false;
	if (align > 1 && align < 16)
		return false;
	if (align > 1 && g->aligned != NOT_ALIGNED && (at - g->aligned) & (MIN(align, g->align) - 1))
		return false;
	if (align > 1 && (g->aligned == NOT_ALIGNED || align > g->align)) {
		g->aligned = (int32_t)at;
		g->align = (uint8_t)align;
	}
	g->low = low;
	g->high = high;
	g->at[i] = (int32_t)at;
	g->write |= write;
	return true;
}

bool jit_find_group(struct jit_translation *t, unsigned first)
{
	struct jit_group *g = &t->group;
	struct soft_op address;
	struct walk w;
	unsigned size, n = 0;
	bool write;

	if (!access_of(&t->insn[first], &address, &size, &write))
		return false;
	w = (struct walk){ .base = address.base, .index = address.index, .scale = address.scale };
	g->first = g->last = first;
	g->write = false;
	g->aligned = NOT_ALIGNED;
	for (unsigned i = first; i < t->ninsns && !w.over; i++) {
		const struct jit_insn *x = &t->insn[i];
		bool last = x->class == JIT_RET || x->class == JIT_CALL || x->class == JIT_CALL_INDIRECT;

		if (needs_scratch(x))
			break;
		if (access_of(x, &address, &size, &write)) {
			if (address.base != w.base || address.index != w.index ||
			    address.scale != w.scale ||
			    !take(g, i, (int64_t)address.disp + w.moved, size, write, x->align))
				break;
			n++;
			g->last = i;
		}
		follow(&w, x);
		if (last)
			break;
	}
	return n > 1;
}
