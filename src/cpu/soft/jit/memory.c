/*
 * Memory accesses: the TLB is looked up in line, and what it does not answer takes the slow way,
 * which is the instruction's handler.
 */
#include <assert.h>

#include "cpu/soft/jit/inside.h"

/* Loads the address register that has no host register into `scratch`; returns where it is. */
static int address_register(struct jit_translation *t, unsigned slot, int scratch)
{
	int host = slot < 16 ? jit_host_of(slot) : -1;

	if (host >= 0)
		return host;
	emit_gs(&t->e, true, OP_MOV_LOAD, scratch, GS_SLOT(slot));
	return scratch;
}

void jit_emit_address(struct jit_translation *t, const struct soft_op *op, int to, bool wide)
{
	unsigned b = op->base / 8, x = op->index / 8;
	int base = -1, index = -1;

	if (b != SLOT_ZERO)
		base = address_register(t, b, HOST_A);
	if (x != SLOT_ZERO)
		index = x == b ? base : address_register(t, x, HOST_B);
	if (base < 0 && index < 0) {
		emit_mov_imm(&t->e, to, wide ? (uint64_t)(int64_t)op->disp : (uint32_t)op->disp);
	} else if (index < 0 && !op->disp) {
		if (to != base || !wide)
			emit_rr(&t->e, wide, OP_MOV_STORE, base, to);
	} else {
		emit_insn(&t->e, &(struct emit_insn){
			.w = wide, .op = 0x8d, .reg = (int8_t)to,
			.kind = index < 0 ? RM_MEM : RM_SIB, .rm = (int8_t)base,
			.index = (int8_t)index, .scale = op->scale, .disp = op->disp });
	}
}

struct jit_detour *jit_slow_way(struct jit_translation *t, const struct jit_insn *x)
{
	struct jit_detour *d = &t->detour[t->ndetours++];

	*d = (struct jit_detour){ .insn = x, .kind = DETOUR_SLOW, .flags = t->flags };
	return d;
}

void jit_emit_shifted(const struct soft_jit *j, struct emit *e, unsigned n)
{
	if (j->bmi2) {
		/* rorx r15, r14, n: the upper bits are masked off by whoever uses it */
		emit_bytes(e, "\xc4\x43\xfb\xf0\xfe", 5);
		emit8(e, (uint8_t)n);
	} else {
		emit_rr(e, true, OP_MOV_STORE, HOST_A, HOST_B);
		emit_insn(e, &(struct emit_insn){ .w = true, .op = 0xc1, .reg = 5, .kind = RM_REG,
						  .rm = HOST_B, .imm = n, .imm_size = 1 });
	}
}

void jit_emit_align_check(struct jit_translation *t, struct jit_detour *d, int host, unsigned align)
{
	/* test host, align - 1: of its lowest byte */
	emit_insn(&t->e, &(struct emit_insn){ .rex = true, .op = 0xf6, .reg = 0, .kind = RM_REG,
					      .rm = (int8_t)host, .imm = align - 1, .imm_size = 1 });
	d->site[d->nsites++] = emit_branch(&t->e, 5, NULL);
}

/* The entry of the TLB for HOST_A is at HOST_B: is it for that page? */
static void ask_entry(struct emit *e, struct jit_detour *d, unsigned size, bool write)
{
	emit_mem(e, true, 0x2b, HOST_A, HOST_B, write ? (int)offsetof(struct tlb_entry, wtag) :
							(int)offsetof(struct tlb_entry, rtag));
	emit_alu_imm(e, true, ALU_DIGIT_CMP, HOST_A, (int32_t)(4096 - size));
	d->site[d->nsites++] = emit_branch(e, 7, NULL);		/* ja */
	emit_mem(e, true, 0x03, HOST_A, HOST_B, (int)offsetof(struct tlb_entry, page));
}

void jit_emit_entry(struct soft_jit *j, struct emit *e)
{
	_Static_assert(sizeof(struct tlb_entry) == 32, "the index is scaled by 32");
	jit_emit_shifted(j, e, 7);
	emit_alu_imm(e, false, ALU_DIGIT_AND, HOST_B, (TLB_SIZE - 1) << 5);
	emit_gs(e, true, 0x03, HOST_B, GS(tlb));
}

static int32_t end_of(int front, unsigned size)
{
	unsigned span = 0;

	while (size > jit_spans[span])
		span++;
	return GS(jit_front_end) + (front * JIT_SPANS + (int)span) * 8;
}

void jit_emit_check(struct jit_translation *t, struct jit_detour *d, unsigned size, bool write,
		    int front)
{
	struct emit *e = &t->e;
	struct jit_refill *r;

	assert(size && size <= GROUP_SPAN);
	if (front == FRONT_NONE) {
		jit_emit_entry(t->j, e);
		ask_entry(e, d, size, write);
		return;
	}
	r = &t->refill[t->nrefills++];
	*r = (struct jit_refill){ .slow = d, .front = (int8_t)front, .write = write, .size = (uint16_t)size };
	emit_gs(e, true, 0x2b, HOST_A, GS(jit_front[0].tag) + front * (int)sizeof(t->c->jit_front[0]));
	emit_gs(e, true, 0x3b, HOST_A, end_of(front, size));
	r->site = emit_branch(e, 3, NULL);			/* jae */
	emit_gs(e, true, 0x03, HOST_A, GS(jit_front[0].page) + front * (int)sizeof(t->c->jit_front[0]));
	r->back = emit_run(e);
}

void jit_emit_refills(struct jit_translation *t)
{
	for (struct jit_refill *r = t->refill; r < &t->refill[t->nrefills]; r++) {
		emit_patch(&t->e, r->site, emit_run(&t->e));
		emit_branch(&t->e, EMIT_CALL, t->j->thunk.refill[r->front]);
		ask_entry(&t->e, r->slow, r->size, r->write);
		emit_branch(&t->e, EMIT_JMP, r->back);
	}
}
