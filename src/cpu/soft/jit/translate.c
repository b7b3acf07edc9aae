/*
 * The code of a block: each instruction in turn, most of them as they are with other operands.
 */
#include "cpu/soft/exec.h"
#include "cpu/soft/jit/inside.h"

/* ---- Operands ----------------------------------------------------------------- */

/* Host registers that stand for guest registers in memory, for one instruction. */
struct borrowed {
	int host[2], guest[2];
	bool loaded[2], store[2];
	unsigned n;
};

static bool writes(const ZydisDecodedOperand *o)
{
	return o->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE;
}

/* xor r, r and the like */
static bool makes_zero(const struct jit_insn *x)
{
	return (x->in.mnemonic == ZYDIS_MNEMONIC_XOR || x->in.mnemonic == ZYDIS_MNEMONIC_SUB) &&
	       x->op[0].type == ZYDIS_OPERAND_TYPE_REGISTER && x->op[1].type == ZYDIS_OPERAND_TYPE_REGISTER &&
	       x->op[0].reg.value == x->op[1].reg.value && x->op[0].size >= 32;
}

/* Does what was in the register before matter? */
static bool needs_old(const struct jit_insn *x, const ZydisDecodedOperand *o)
{
	if (makes_zero(x))
		return false;
	return o->actions & (ZYDIS_OPERAND_ACTION_READ | ZYDIS_OPERAND_ACTION_CONDREAD |
			     ZYDIS_OPERAND_ACTION_CONDWRITE) || o->size < 32 ||
	       x->in.mnemonic == ZYDIS_MNEMONIC_BSF || x->in.mnemonic == ZYDIS_MNEMONIC_BSR;
}

/* The host register for a general register operand. */
static int register_operand(struct jit_translation *t, const struct jit_insn *x,
			    const ZydisDecodedOperand *o, struct borrowed *w)
{
	unsigned slot = soft_slot_of(o->reg.value), guest = slot / 8;
	int host = jit_host_of(guest);
	unsigned i;

	if (slot & 1)
		return (int)guest + 4;		/* AH CH DH BH */
	if (host >= 0)
		return host;
	for (i = 0; i < w->n; i++)
		if (w->guest[i] == (int)guest)
			break;
	if (i == w->n) {
		/* With a memory operand, whose address is in HOST_A, there is one at the most. */
		w->host[i] = i == 0 ? HOST_B : HOST_A;
		w->guest[i] = (int)guest;
		w->n++;
	}
	if (needs_old(x, o) && !w->loaded[i]) {
		emit_gs(&t->e, true, OP_MOV_LOAD, w->host[i], GS_SLOT(guest));
		w->loaded[i] = true;
	}
	w->store[i] |= writes(o);
	return w->host[i];
}

static void give_back(struct jit_translation *t, const struct borrowed *w)
{
	for (unsigned i = 0; i < w->n; i++)
		if (w->store[i])
			emit_gs(&t->e, true, OP_MOV_STORE, w->host[i], GS_SLOT(w->guest[i]));
}

/* May a guest register in memory be named there, instead of borrowing a host register? */
static bool operand_in_place(const struct jit_insn *x, const ZydisDecodedOperand *o)
{
	if (makes_zero(x))
		return false;		/* what is there would be read */
	switch (x->in.mnemonic) {
	case ZYDIS_MNEMONIC_XCHG:		/* would be atomic */
	case ZYDIS_MNEMONIC_BT:			/* would be a bit string */
	case ZYDIS_MNEMONIC_BTS:
	case ZYDIS_MNEMONIC_BTR:
	case ZYDIS_MNEMONIC_BTC:
	case ZYDIS_MNEMONIC_CMPXCHG:
	case ZYDIS_MNEMONIC_XADD:
	case ZYDIS_MNEMONIC_ROL:		/* may leave other undefined flags */
	case ZYDIS_MNEMONIC_ROR:
	case ZYDIS_MNEMONIC_RCL:
	case ZYDIS_MNEMONIC_RCR:
	case ZYDIS_MNEMONIC_SHL:
	case ZYDIS_MNEMONIC_SHR:
	case ZYDIS_MNEMONIC_SAR:
	case ZYDIS_MNEMONIC_SHLD:
	case ZYDIS_MNEMONIC_SHRD:
		return false;
	default:
		break;
	}
	if (x->xmm)
		return !writes(o);
	return !writes(o) || o->size != 32;
}

static const ZydisDecodedOperand *operand_of(const struct jit_insn *x, ZydisOperandEncoding e)
{
	for (unsigned i = 0; i < x->in.operand_count_visible; i++)
		if (x->op[i].encoding == e && x->op[i].type == ZYDIS_OPERAND_TYPE_REGISTER)
			return &x->op[i];
	return NULL;
}

/* SPL, BPL, SIL, DIL need a REX prefix to be named. */
static bool needs_rex(const ZydisDecodedOperand *o)
{
	return o->reg.value >= ZYDIS_REGISTER_SPL && o->reg.value <= ZYDIS_REGISTER_DIL;
}

static struct emit_insn same_opcode(const struct jit_insn *x)
{
	const ZydisDecodedInstruction *in = &x->in;
	struct emit_insn i = {
		.w = in->raw.rex.W, .op = in->opcode, .reg = -1,
		.lock = in->attributes & ZYDIS_ATTRIB_HAS_LOCK,
	};

	i.map = in->opcode_map == ZYDIS_OPCODE_MAP_0F ? 1 :
		in->opcode_map == ZYDIS_OPCODE_MAP_0F38 ? 2 :
		in->opcode_map == ZYDIS_OPCODE_MAP_0F3A ? 3 : 0;
	for (unsigned k = 0; k < in->raw.prefix_count; k++) {
		if (in->raw.prefixes[k].type == ZYDIS_PREFIX_TYPE_IGNORED)
			continue;
		if (in->raw.prefixes[k].value == 0x66)
			i.p66 = true;
		else if ((in->raw.prefixes[k].value & 0xfe) == 0xf2 &&
			 in->raw.prefixes[k].type == ZYDIS_PREFIX_TYPE_MANDATORY)
			i.rep = in->raw.prefixes[k].value;
	}
	i.imm_size = in->raw.imm[0].size / 8;
	i.imm = in->raw.imm[0].value.u;
	return i;
}

/*
 * OP r, r whose source has no register of its own: the form that reads it from memory.  Returns
 * whether i is that now.
 */
static bool source_in_place(const struct jit_insn *x, const ZydisDecodedOperand *reg,
			    const ZydisDecodedOperand *rm, struct emit_insn *i)
{
	bool alu = !i->map && i->op < 0x40 && (i->op & 7) < 2;		/* ADD ... CMP */
	bool move = !i->map && (i->op == 0x88 || i->op == 0x89);
	bool test = !i->map && (i->op == 0x84 || i->op == 0x85);
	unsigned from, to;

	if (!(alu || move || test) || x->mem >= 0 || !reg || !rm || !jit_is_general(reg) || !jit_is_general(rm))
		return false;
	from = soft_slot_of(reg->reg.value);
	to = soft_slot_of(rm->reg.value);
	if (jit_host_of(from / 8) >= 0 || jit_host_of(to / 8) < 0 || to & 1)
		return false;
	if (!test)
		i->op |= 2;
	i->reg = (int8_t)jit_host_of(to / 8);
	i->kind = RM_GS;
	i->disp = GS_SLOT(from / 8);
	return true;
}

/* The same instruction; a memory operand is at HOST_A + disp. */
static void emit_same(struct jit_translation *t, const struct jit_insn *x, int32_t disp)
{
	const ZydisDecodedOperand *reg = operand_of(x, ZYDIS_OPERAND_ENCODING_MODRM_REG);
	const ZydisDecodedOperand *rm = operand_of(x, ZYDIS_OPERAND_ENCODING_MODRM_RM);
	const ZydisDecodedOperand *code = operand_of(x, ZYDIS_OPERAND_ENCODING_OPCODE);
	struct emit_insn i = same_opcode(x);
	struct borrowed w = { 0 };

	for (unsigned k = 0; k < x->in.operand_count_visible; k++)
		if (x->op[k].type == ZYDIS_OPERAND_TYPE_REGISTER && needs_rex(&x->op[k]))
			i.rex = true;
	if (code && jit_is_general(code))
		i.reg = (int8_t)register_operand(t, x, code, &w);
	if (x->in.attributes & ZYDIS_ATTRIB_HAS_MODRM && !source_in_place(x, reg, rm, &i)) {
		i.reg = (int8_t)x->in.raw.modrm.reg;
		if (reg)
			i.reg = (int8_t)(jit_is_general(reg) ? register_operand(t, x, reg, &w) :
					 soft_reg_number(reg->reg.value));
		if (x->mem >= 0) {
			i.kind = RM_MEM;
			i.rm = HOST_A;
			i.disp = disp;
		} else if (rm && jit_is_general(rm) && jit_host_of(soft_slot_of(rm->reg.value) / 8) < 0 &&
			   operand_in_place(x, rm)) {
			i.kind = RM_GS;
			i.disp = GS_SLOT(soft_slot_of(rm->reg.value) / 8);
		} else {
			i.kind = RM_REG;
			i.rm = (int8_t)(!rm ? x->in.raw.modrm.rm :
					jit_is_general(rm) ? register_operand(t, x, rm, &w) :
					soft_reg_number(rm->reg.value));
		}
	}
	emit_insn(&t->e, &i);
	give_back(t, &w);
}

/* The same, of those with a VEX prefix.  What is read is borrowed first: it may be written as well. */
static void emit_vex(struct jit_translation *t, const struct jit_insn *x, int32_t disp)
{
	struct vex_insn v = x->vex;
	const struct { ZydisOperandEncoding encoding; struct vex_operand *o; } fields[] = {
		{ ZYDIS_OPERAND_ENCODING_MODRM_REG, &v.reg },
		{ ZYDIS_OPERAND_ENCODING_MODRM_RM, &v.rm },
		{ ZYDIS_OPERAND_ENCODING_NDSNDD, &v.vvvv },
	};
	struct borrowed w = { 0 };
	uint8_t bytes[VEX_MAX_BYTES];
	unsigned n;

	if (!(x->in.attributes & ZYDIS_ATTRIB_HAS_MODRM)) {
		/* vzeroupper, vzeroall */
		emit_bytes(&t->e, v.wide ? "\xc5\xfc\x77" : "\xc5\xf8\x77", 3);
		return;
	}
	for (unsigned write = 0; write < 2; write++)
		for (unsigned i = 0; i < ARRAY_SIZE(fields); i++)
			if (fields[i].o->file == VEX_GENERAL && fields[i].o->write == write)
				fields[i].o->number = (uint8_t)register_operand(t, x,
						operand_of(x, fields[i].encoding), &w);
	n = vex_encode(&v, HOST_A, disp, bytes);
	emit_bytes(&t->e, bytes, n);
	give_back(t, &w);
}

/* ---- Instructions --------------------------------------------------------------- */

/* After x: where its detour, if there is one, comes back. */
static void end_insn(struct jit_translation *t, const struct jit_insn *x, struct jit_detour *d)
{
	jit_after_insn(t, x);
	if (d)
		d->back = emit_run(&t->e);
}

static void rewrite(struct jit_translation *t, const struct jit_insn *x)
{
	bool grouped = t->grouped && x->mem >= 0;
	struct jit_detour *d = NULL;

	if (x->mem >= 0 && !grouped) {
		jit_before_clobber(t, x);
		d = jit_slow_way(t, x);
		jit_emit_address(t, x->ops, HOST_A, true);
		if (x->align > 1 && !jit_stays_aligned(t, x->ops, x->align))
			jit_emit_align_check(t, d, HOST_A, x->align);
		jit_emit_check(t, d, x->mem_size, x->mem_write, jit_front_for(t, x->ops, x->mem_write));
	}
	jit_before_insn(t, x);
	if (x->in.encoding == ZYDIS_INSTRUCTION_ENCODING_VEX)
		emit_vex(t, x, grouped ? jit_group_offset(t, x) : 0);
	else
		emit_same(t, x, grouped ? jit_group_offset(t, x) : 0);
	end_insn(t, x, d);
}

static void lea(struct jit_translation *t, const struct jit_insn *x)
{
	unsigned guest = x->ops->dst / 8;
	int host = jit_host_of(guest);

	jit_before_insn(t, x);
	jit_emit_address(t, x->ops, host >= 0 ? host : HOST_A, x->op[0].size == 64);
	if (host < 0)
		emit_gs(&t->e, true, OP_MOV_STORE, HOST_A, GS_SLOT(guest));
	jit_after_insn(t, x);
}

/*
 * HOST_A + *at becomes the host address of the eight bytes at base + disp.  Returns the detour; NULL: the
 * group has checked them.
 */
static struct jit_detour *stack_access(struct jit_translation *t, const struct jit_insn *x, int base,
				       int32_t disp, bool write, int32_t *at)
{
	struct jit_detour *d;

	*at = 0;
	if (t->grouped) {
		jit_before_insn(t, x);
		*at = jit_group_offset(t, x);
		return NULL;
	}
	jit_before_clobber(t, x);
	d = jit_slow_way(t, x);
	emit_lea(&t->e, HOST_A, base, -1, 0, disp);
	jit_emit_check(t, d, 8, write, base == HOST_RSP ? jit_stack_front(t) : FRONT_NONE);
	return d;
}

static void push(struct jit_translation *t, const struct jit_insn *x)
{
	const struct soft_op *op = x->ops;
	int host = jit_host_of(op->dst / 8);
	int32_t at;
	struct jit_detour *d = stack_access(t, x, HOST_RSP, -8, true, &at);

	if (op->fn == op_push64_i) {
		emit_insn(&t->e, &(struct emit_insn){ .w = true, .op = 0xc7, .reg = 0, .kind = RM_MEM,
			  .rm = HOST_A, .disp = at, .imm = (uint32_t)op->imm, .imm_size = 4 });
	} else {
		if (host < 0)
			emit_gs(&t->e, true, OP_MOV_LOAD, HOST_B, GS_SLOT(op->dst / 8));
		emit_mem(&t->e, true, OP_MOV_STORE, host < 0 ? HOST_B : host, HOST_A, at);
	}
	emit_lea(&t->e, HOST_RSP, HOST_RSP, -1, 0, -8);
	end_insn(t, x, d);
}

static void push_memory(struct jit_translation *t, const struct jit_insn *x)
{
	struct jit_detour *d;

	jit_before_clobber(t, x);
	d = jit_slow_way(t, x);
	jit_emit_address(t, x->ops, HOST_A, true);
	jit_emit_check(t, d, 8, false, jit_front_for(t, x->ops, false));
	emit_mem(&t->e, true, OP_MOV_LOAD, HOST_A, HOST_A, 0);
	emit_gs(&t->e, true, OP_MOV_STORE, HOST_A, GS(jit_target));
	emit_lea(&t->e, HOST_A, HOST_RSP, -1, 0, -8);
	jit_emit_check(t, d, 8, true, jit_stack_front(t));
	emit_gs(&t->e, true, OP_MOV_LOAD, HOST_B, GS(jit_target));
	emit_mem(&t->e, true, OP_MOV_STORE, HOST_B, HOST_A, 0);
	emit_lea(&t->e, HOST_RSP, HOST_RSP, -1, 0, -8);
	end_insn(t, x, d);
}

static void pop(struct jit_translation *t, const struct jit_insn *x)
{
	unsigned guest = x->ops->dst / 8;
	int host = jit_host_of(guest);
	int32_t at;
	struct jit_detour *d = stack_access(t, x, HOST_RSP, 0, false, &at);

	emit_lea(&t->e, HOST_RSP, HOST_RSP, -1, 0, 8);
	emit_mem(&t->e, true, OP_MOV_LOAD, host < 0 ? HOST_B : host, HOST_A, at);
	if (host < 0)
		emit_gs(&t->e, true, OP_MOV_STORE, HOST_B, GS_SLOT(guest));
	end_insn(t, x, d);
}

static void leave(struct jit_translation *t, const struct jit_insn *x)
{
	int32_t at;
	struct jit_detour *d = stack_access(t, x, RBP, 0, false, &at);

	emit_lea(&t->e, HOST_RSP, RBP, -1, 0, 8);
	emit_mem(&t->e, true, OP_MOV_LOAD, RBP, HOST_A, at);
	end_insn(t, x, d);
}

/* By its handler: everything goes to memory and comes back. */
static void interpret(struct jit_translation *t, const struct jit_insn *x)
{
	jit_save_flags(t);
	emit_mov_imm(&t->e, HOST_A, (uintptr_t)x->ops);
	emit_branch(&t->e, EMIT_CALL, t->j->thunk.one);
	t->flags = (struct jit_flags){ .host = true, .cc = true };
}

void jit_emit_one(struct jit_translation *t, const struct jit_insn *x)
{
	switch ((enum jit_class)x->class) {
	case JIT_INTERPRET:
		interpret(t, x);
		break;
	case JIT_NOTHING:
		break;
	case JIT_REWRITE:
		rewrite(t, x);
		break;
	case JIT_LEA:
		lea(t, x);
		break;
	case JIT_PUSH:
		push(t, x);
		break;
	case JIT_PUSH_MEMORY:
		push_memory(t, x);
		break;
	case JIT_POP:
		pop(t, x);
		break;
	case JIT_LEAVE:
		leave(t, x);
		break;
	case JIT_JCC:
		jit_emit_jcc(t, x);
		break;
	case JIT_JMP:
	case JIT_JMP_INDIRECT:
	case JIT_CALL:
	case JIT_CALL_INDIRECT:
	case JIT_RET:
		jit_emit_jump(t, x);
		break;
	}
}

/* ---- The block ------------------------------------------------------------------- */

void jit_emit_leave(struct jit_translation *t)
{
	emit_insn(&t->e, &(struct emit_insn){ .op = 0xb8, .reg = HOST_A, .imm = t->b->ip,
					      .imm_size = 4 });
	emit_branch(&t->e, EMIT_JMP, t->j->thunk.leave);
}

static void sub_budget(struct jit_translation *t, unsigned n, unsigned digit)
{
	/* Always the long form: the code of a dead block's entry is written over. */
	emit_insn(&t->e, &(struct emit_insn){ .w = true, .op = 0x81, .reg = (int8_t)digit,
		  .kind = RM_REG, .rm = HOST_BUDGET, .imm = n, .imm_size = 4 });
}

/* Pays for the block; the jump that is taken, with that paid, when it may not run now. */
static uint8_t *emit_pay(struct jit_translation *t)
{
	sub_budget(t, t->ninsns, ALU_DIGIT_SUB);
	emit_gs(&t->e, true, 0x3b, HOST_BUDGET, GS(kick));	/* cmp */
	return emit_branch(&t->e, 12, NULL);			/* jl */
}

static uint8_t *head(struct jit_translation *t)
{
	struct emit *e = &t->e;
	unsigned level = 0;
	uint8_t *out;

	t->b->far_entry = emit_run(e);
	jit_emit_table(t, true, OP_MOV_LOAD, HOST_A, GS(jit_rips));
	emit_alu_imm(e, true, ALU_DIGIT_AND, HOST_A, -4096);
	emit_gs(e, true, OP_MOV_STORE, HOST_A, GS_SLOT(SLOT_IPBASE));
	t->b->near_entry = emit_run(e);
	out = emit_pay(t);
	for (unsigned i = 0; i < t->ninsns; i++)
		level = MAX(level, t->insn[i].ymm ? 2u : t->insn[i].xmm);
	if (level) {
		uint8_t *over;

		jit_emit_compare_level(e, level);
		over = emit_branch(e, 3, NULL);		/* jae */
		emit_branch(e, EMIT_CALL, level > 1 ? t->j->thunk.load_ymm : t->j->thunk.load_xmm);
		emit_patch(e, over, emit_run(e));
	}
	return out;
}

static bool ends_block(const struct jit_insn *x)
{
	return x->class >= JIT_JMP;
}

/* HOST_A = the host address of the stream's lowest operand. */
static void emit_stream(struct jit_translation *t, struct jit_detour *d, unsigned k)
{
	const struct jit_stream *s = &t->group.stream[k];
	struct soft_op address = t->group.address[k];

	address.disp = s->low;
	jit_emit_address(t, &address, HOST_A, true);
	if (s->aligned != NOT_ALIGNED && !jit_stays_aligned(t, &address, s->align)) {
		emit_lea(&t->e, HOST_B, HOST_A, -1, 0, s->aligned - s->low);
		jit_emit_align_check(t, d, HOST_B, s->align);
	}
	jit_emit_check(t, d, (unsigned)(s->high - s->low), s->write, jit_front_for(t, &address, s->write));
}

/* One check for each stream of t->group, then its instructions without. */
static void emit_group(struct jit_translation *t)
{
	const struct jit_group *g = &t->group;
	struct jit_detour *d;
	uint8_t held = 0;

	if (!t->flags.cc && t->flags.recipe.kind == RECIPE_NONE)
		jit_save_flags(t);
	t->flags.host = false;
	d = jit_slow_way(t, &t->insn[g->first]);
	d->kind = DETOUR_GROUP;
	d->last = g->last;
	for (unsigned k = g->nstreams; k-- > 0;) {
		emit_stream(t, d, k);
		if (g->nstreams > 1)
			emit_gs(&t->e, true, OP_MOV_STORE, HOST_A, GS(jit_stream) + (int32_t)k * 8);
	}
	t->grouped = true;
	for (unsigned i = g->first; i <= g->last; i++) {
		if (g->of[i] != NO_STREAM && g->of[i] != held) {
			held = g->of[i];
			emit_gs(&t->e, true, OP_MOV_LOAD, HOST_A, GS(jit_stream) + held * 8);
		}
		jit_emit_one(t, &t->insn[i]);
	}
	t->grouped = false;
	d->flags_back = t->flags;
	d->back = emit_run(&t->e);
}

static void emit_insns(struct jit_translation *t)
{
	for (unsigned i = 0; i < t->ninsns; i++) {
		if (jit_find_group(t, i)) {
			emit_group(t);
			i = t->group.last;
		} else {
			jit_emit_one(t, &t->insn[i]);
		}
	}
	if (!ends_block(&t->insn[t->ninsns - 1]))
		jit_emit_end(t);
}

/* See loop_end in exits.c. */
static void emit_second_copy(struct jit_translation *t)
{
	struct jit_detour *d;

	while ((uintptr_t)t->e.at & 31)
		emit8(&t->e, 0xcc);
	t->flags = t->loop_flags;
	t->flags.host = t->flags.cc = false;
	t->loop = emit_run(&t->e);
	jit_find_steady(t);
	emit_patch(&t->e, t->loop_site, t->loop);
	d = jit_slow_way(t, &t->insn[0]);
	d->kind = DETOUR_LEAVE;
	d->nsites = 1;
	d->site[0] = emit_pay(t);
	emit_insns(t);
}

bool jit_emit_block(struct jit_translation *t)
{
	uint8_t *out = head(t);

	t->flags = (struct jit_flags){ .cc = true };
	emit_insns(t);
	if (t->loop_site)
		emit_second_copy(t);
	emit_patch(&t->e, out, emit_run(&t->e));
	sub_budget(t, t->ninsns, ALU_DIGIT_ADD);
	jit_emit_leave(t);
	return jit_emit_detours(t);
}
