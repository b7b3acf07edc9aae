/*
 * Status flags while a block is translated.  The check of a memory access clobbers RFLAGS, and at
 * each of them the guest may fault and see its flags; so they must always be within reach: in
 * RFLAGS, in c->cc, or by a recipe.
 */
#include "cpu/soft/jit/inside.h"

/* ---- Recipes -------------------------------------------------------------- */

/*
 * OP host, operand: the register or slot of a guest register (opcode `op`), or an immediate (opcode
 * `imm_op` with this digit).  Both are those of the byte forms.
 */
static void sized_op(struct jit_translation *t, const struct jit_recipe *r, int host, uint8_t op,
		     uint8_t imm_op, unsigned digit)
{
	bool wide = r->size > 1;
	struct emit_insn i = {
		.p66 = r->size == 2, .w = r->size == 8, .rex = r->size == 1,
		.op = op | wide, .reg = (int8_t)host,
	};

	if (r->src < 0) {
		i.op = imm_op | wide;
		i.reg = (int8_t)digit;
		i.kind = RM_REG;
		i.rm = (int8_t)host;
		i.imm = (uint32_t)r->imm;
		i.imm_size = MIN(r->size, 4);
	} else if (jit_host_of((unsigned)r->src) >= 0) {
		i.kind = RM_REG;
		i.rm = (int8_t)jit_host_of((unsigned)r->src);
	} else {
		i.kind = RM_GS;
		i.disp = GS_SLOT(r->src);
	}
	emit_insn(&t->e, &i);
}

static void alu_op(struct jit_translation *t, const struct jit_recipe *r, int host, unsigned digit)
{
	sized_op(t, r, host, (uint8_t)(digit << 3 | 2), 0x80, digit);
}

static void neg_op(struct jit_translation *t, unsigned size)
{
	emit_insn(&t->e, &(struct emit_insn){ .p66 = size == 2, .w = size == 8, .rex = true,
					      .op = size > 1 ? 0xf7 : 0xf6, .reg = 3,
					      .kind = RM_REG, .rm = HOST_B });
}

static void emit_recipe(struct jit_translation *t, const struct jit_recipe *r)
{
	int host = jit_host_of((unsigned)r->dst);

	/* The others undo the operation on a copy first. */
	if (host < 0)
		emit_gs(&t->e, true, OP_MOV_LOAD, HOST_B, GS_SLOT(r->dst));
	else if (r->kind >= RECIPE_ADD)
		emit_rr(&t->e, true, OP_MOV_STORE, host, HOST_B);
	if (host < 0 || r->kind >= RECIPE_ADD)
		host = HOST_B;
	switch (r->kind) {
	case RECIPE_CMP:
		alu_op(t, r, host, ALU_DIGIT_CMP);
		break;
	case RECIPE_TEST:
		sized_op(t, r, host, 0x84, 0xf6, 0);
		break;
	case RECIPE_ADD:
		alu_op(t, r, host, ALU_DIGIT_SUB);
		alu_op(t, r, host, ALU_DIGIT_ADD);
		break;
	case RECIPE_SUB:
		alu_op(t, r, host, ALU_DIGIT_ADD);
		alu_op(t, r, host, ALU_DIGIT_SUB);
		break;
	case RECIPE_NEG:
		neg_op(t, r->size);
		neg_op(t, r->size);
		break;
	case RECIPE_NONE:
		break;
	}
}

static bool high_byte(const ZydisDecodedOperand *o)
{
	return soft_slot_of(o->reg.value) & 1;
}

/* The recipe for what x has just done, if there is one. */
static struct jit_recipe recipe_for(const struct jit_insn *x)
{
	struct jit_recipe r = { RECIPE_NONE, 0, -1, -1, 0 };
	const ZydisDecodedOperand *d = &x->op[0], *s = &x->op[1];
	bool result_only = false;

	if (x->class != JIT_REWRITE || x->mem >= 0 || d->type != ZYDIS_OPERAND_TYPE_REGISTER ||
	    high_byte(d))
		return r;
	r.size = (uint8_t)(d->size / 8);
	r.dst = (int8_t)(soft_slot_of(d->reg.value) / 8);
	switch (x->in.mnemonic) {
	case ZYDIS_MNEMONIC_AND:
	case ZYDIS_MNEMONIC_OR:
	case ZYDIS_MNEMONIC_XOR:
		/* What they leave follows from the result. */
		r.kind = RECIPE_TEST;
		r.src = r.dst;
		return r;
	case ZYDIS_MNEMONIC_NEG:
		r.kind = RECIPE_NEG;
		return r;
	case ZYDIS_MNEMONIC_CMP:
		r.kind = RECIPE_CMP;
		break;
	case ZYDIS_MNEMONIC_TEST:
		r.kind = RECIPE_TEST;
		break;
	case ZYDIS_MNEMONIC_ADD:
		r.kind = RECIPE_ADD;
		result_only = true;
		break;
	case ZYDIS_MNEMONIC_SUB:
		r.kind = RECIPE_SUB;
		result_only = true;
		break;
	default:
		return r;
	}
	if (s->type == ZYDIS_OPERAND_TYPE_IMMEDIATE) {
		r.imm = (int32_t)s->imm.value.s;
	} else if (s->type == ZYDIS_OPERAND_TYPE_REGISTER && !high_byte(s)) {
		r.src = (int8_t)(soft_slot_of(s->reg.value) / 8);
		if (result_only && r.src == r.dst)
			r.kind = RECIPE_NONE;
	} else {
		r.kind = RECIPE_NONE;
	}
	return r;
}

static bool recipe_survives(const struct jit_recipe *r, const struct jit_insn *x)
{
	return r->kind != RECIPE_NONE && !(x->writes & BIT(r->dst)) &&
	       (r->src < 0 || !(x->writes & BIT(r->src)));
}

/* ---- Keeping them within reach ------------------------------------------------ */

void jit_need_flags(struct jit_translation *t)
{
	struct jit_flags *f = &t->flags;

	if (f->host)
		return;
	if (f->recipe.kind != RECIPE_NONE) {
		emit_recipe(t, &f->recipe);
	} else {
		emit_rr(&t->e, true, OP_MOV_STORE, RAX, HOST_B);
		emit_insn(&t->e, &(struct emit_insn){ .map = 1, .op = 0xb7, .reg = RAX,
						      .kind = RM_GS, .disp = GS(cc) });
		emit8(&t->e, 0x04);	/* add al, 127: OF from bit 0 */
		emit8(&t->e, 127);
		emit8(&t->e, 0x9e);	/* sahf */
		emit_rr(&t->e, true, OP_MOV_STORE, HOST_B, RAX);
	}
	f->host = true;
}

void jit_save_flags(struct jit_translation *t)
{
	struct jit_flags *f = &t->flags;

	if (f->cc)
		return;
	jit_need_flags(t);
	emit_rr(&t->e, true, OP_MOV_STORE, RAX, HOST_B);
	emit8(&t->e, 0x9f);				/* lahf */
	emit8(&t->e, 0x0f);				/* seto al */
	emit8(&t->e, 0x90);
	emit8(&t->e, 0xc0);
	emit_insn(&t->e, &(struct emit_insn){ .p66 = true, .op = OP_MOV_STORE, .reg = RAX,
					      .kind = RM_GS, .disp = GS(cc) });
	emit_rr(&t->e, true, OP_MOV_STORE, HOST_B, RAX);
	f->cc = true;
}

void jit_before_clobber(struct jit_translation *t, const struct jit_insn *x)
{
	struct jit_flags *f = &t->flags;
	bool overwritten = x->sets_flags && !x->needs_flags;

	/* The way round, which is before x, wants them too. */
	if (!f->cc && (f->recipe.kind == RECIPE_NONE ||
		       (!overwritten && !recipe_survives(&f->recipe, x))))
		jit_save_flags(t);
	f->host = false;
}

void jit_before_insn(struct jit_translation *t, const struct jit_insn *x)
{
	struct jit_flags *f = &t->flags;

	if (x->needs_flags)
		jit_need_flags(t);
	else if (!x->sets_flags && !f->host && !f->cc && !recipe_survives(&f->recipe, x))
		jit_need_flags(t);
}

void jit_after_insn(struct jit_translation *t, const struct jit_insn *x)
{
	struct jit_flags *f = &t->flags;

	if (x->sets_flags) {
		f->host = true;
		f->cc = false;
		f->recipe = recipe_for(x);
	} else if (!recipe_survives(&f->recipe, x)) {
		f->recipe.kind = RECIPE_NONE;
	}
}
