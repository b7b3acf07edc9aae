#include <stdlib.h>

#include "cpu/soft/exec.h"
#include "cpu/soft/specialise.h"

#define TABLE_SIZE 1024u	/* a power of two, several times the number of twins */

struct twin { op_fn *any, *base_only, *flagless; bool begins_pair; };
struct soft_twins { struct twin at[TABLE_SIZE]; };

/* The arrays that EXEC_PAIR and EXEC_FLAGLESS make. */
extern const struct exec_pair __start_exec_pairs[], __stop_exec_pairs[];
extern const struct exec_flagless __start_exec_flagless[], __stop_exec_flagless[];

#define SECTION_LENGTH(s) \
	(((uintptr_t)__stop_##s - (uintptr_t)__start_##s) / sizeof(__start_##s[0]))

/* The entry of fn, or the free one where it belongs. */
static struct twin *slot_of(const struct soft_twins *t, op_fn *fn)
{
	unsigned i = (unsigned)((uintptr_t)fn >> 4) * 0x9e3779b1u >> 22;

	while (t->at[i].any && t->at[i].any != fn)
		i = (i + 1) & (TABLE_SIZE - 1);
	return (struct twin *)&t->at[i];
}

struct soft_twins *soft_twins_create(void)
{
	struct soft_twins *t = calloc(1, sizeof *t);
	struct twin *w;

	if (!t)
		return NULL;
	for (size_t i = 0; i < SECTION_LENGTH(exec_pairs); i++) {
		w = slot_of(t, __start_exec_pairs[i].any);
		w->any = __start_exec_pairs[i].any;
		w->base_only = __start_exec_pairs[i].base_only;
	}
	for (size_t i = 0; i < SECTION_LENGTH(exec_flagless); i++) {
		w = slot_of(t, __start_exec_flagless[i].any);
		w->any = __start_exec_flagless[i].any;
		w->flagless = __start_exec_flagless[i].flagless;
	}
	for (const struct exec_fused *p = exec_fused; p < exec_fused + exec_fused_count; p++) {
		w = slot_of(t, p->first);
		w->any = p->first;
		w->begins_pair = true;
	}
	return t;
}

uint8_t soft_flag_effect(const struct soft_decode *d)
{
	if (d->mem >= 0 && d->op[d->mem].mem.type != ZYDIS_MEMOP_TYPE_AGEN)
		return EFFECT_BARRIER;
	switch (d->insn->mnemonic) {
	case ZYDIS_MNEMONIC_ADD:
	case ZYDIS_MNEMONIC_SUB:
	case ZYDIS_MNEMONIC_AND:
	case ZYDIS_MNEMONIC_OR:
	case ZYDIS_MNEMONIC_XOR:
	case ZYDIS_MNEMONIC_CMP:
	case ZYDIS_MNEMONIC_TEST:
	case ZYDIS_MNEMONIC_NEG:
		return EFFECT_KILLS;
	case ZYDIS_MNEMONIC_MOV:
		/* Not of segment, control or debug registers. */
		for (unsigned i = 0; i < 2; i++)
			if (soft_is_reg(d, i)) {
				ZydisRegisterClass k = ZydisRegisterGetClass(d->op[i].reg.value);

				if (k != ZYDIS_REGCLASS_GPR32 && k != ZYDIS_REGCLASS_GPR64)
					return EFFECT_BARRIER;
			}
		return EFFECT_NEUTRAL;
	case ZYDIS_MNEMONIC_LEA:
	case ZYDIS_MNEMONIC_MOVZX:
	case ZYDIS_MNEMONIC_MOVSX:
	case ZYDIS_MNEMONIC_MOVSXD:
	case ZYDIS_MNEMONIC_NOT:
	case ZYDIS_MNEMONIC_BSWAP:
	case ZYDIS_MNEMONIC_NOP:
		return EFFECT_NEUTRAL;
	default:
		return EFFECT_BARRIER;
	}
}

/*
 * Instructions that write some flags and keep others (INC, shifts, IMUL leaves
 * some undefined) are barriers to those before them, but may lose their own.
 */
static bool may_lose_flags(const struct soft_twins *t, const struct soft_op *op)
{
	return slot_of(t, op->fn)->flagless != NULL;
}

/*
 * CMP or TEST of registers and immediates followed by a linked Jcc: the first
 * does the work of both.  The branch's op stays where it is and holds the link.
 */
static void fuse(struct soft_op *op)
{
	struct soft_op *branch = op + 1;

	if (branch->fn != exec_jcc[branch->dst & 15])
		return;
	for (unsigned test = 0; test < 2; test++)
		for (unsigned imm = 0; imm < 2; imm++)
			for (unsigned wide = 0; wide < 2; wide++)
				if (op->fn == exec_alu[test ? ALU_TEST : ALU_CMP]
						      [imm ? FORM_RI : FORM_RR][2 + wide]) {
					op->fn = exec_cmp_jcc[test][imm][wide][branch->dst];
					return;
				}
}

/* A memory operand that does not change between two ops. */
static bool same_memory(const struct soft_op *a, const struct soft_op *b)
{
	return a->base == b->base && a->index == b->index && a->scale == b->scale &&
	       a->disp == b->disp;
}

/* Returns whether the op and the next have become one. */
static bool fuse_pair(const struct soft_twins *t, struct soft_op *op)
{
	struct soft_op *next = op + 1;

	if (!slot_of(t, op->fn)->begins_pair)
		return false;
	for (const struct exec_fused *p = exec_fused; p < exec_fused + exec_fused_count; p++) {
		if (p->first != op->fn || p->second != next->fn)
			continue;
		/* load x; OP x, y -- or OP x, [m]; store [m], x */
		if (p->same_memory ? next->src != op->dst || !same_memory(op, next)
				   : next->dst != op->dst || next->src == op->dst)
			return false;
		op->fn = op->index == SLOT(SLOT_ZERO) ? p->both_base_only : p->both;
		return true;
	}
	return false;
}

void soft_specialise(const struct soft_twins *t, struct soft_op *ops, const uint8_t *first_op,
		     const uint8_t *effect, unsigned count)
{
	bool dead = false;	/* flags written here are overwritten before they are seen */

	for (unsigned i = count; i-- > 0;) {
		bool single = first_op[i + 1] == first_op[i] + 1;
		struct soft_op *op = &ops[first_op[i]];

		if (single && dead && may_lose_flags(t, op)) {
			op->fn = slot_of(t, op->fn)->flagless;
			/* Like a move now: it neither reads nor writes flags. */
			continue;
		}
		dead = effect[i] == EFFECT_KILLS || (dead && effect[i] == EFFECT_NEUTRAL);
		if (single && i + 1 < count && first_op[i + 2] == first_op[i + 1] + 1)
			fuse(op);
	}
	for (unsigned i = 0; i + 1 < count; i++)
		if (first_op[i + 1] == first_op[i] + 1 && first_op[i + 2] == first_op[i + 1] + 1 &&
		    fuse_pair(t, &ops[first_op[i]]))
			i++;
	for (unsigned k = first_op[0]; k < first_op[count]; k++)
		if (ops[k].index == SLOT(SLOT_ZERO) && ops[k].flags & OPF_MEM) {
			op_fn *fn = slot_of(t, ops[k].fn)->base_only;

			if (fn)
				ops[k].fn = fn;
		}
}
