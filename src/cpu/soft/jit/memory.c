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

void jit_emit_check(struct jit_translation *t, struct jit_detour *d, unsigned size, bool write)
{
	struct emit *e = &t->e;
	int tag = write ? (int)offsetof(struct tlb_entry, wtag) : (int)offsetof(struct tlb_entry, rtag);

	assert(size && size <= 4096);
	_Static_assert(sizeof(struct tlb_entry) == 32, "the index is scaled by 32");
	if (t->j->bmi2) {
		/* rorx r15, r14, 7 */
		static const uint8_t rorx[] = { 0xc4, 0x43, 0xfb, 0xf0, 0xfe, 0x07 };

		emit_bytes(e, rorx, sizeof(rorx));
	} else {
		emit_rr(e, true, OP_MOV_STORE, HOST_A, HOST_B);
		emit_insn(e, &(struct emit_insn){ .w = true, .op = 0xc1, .reg = 5, .kind = RM_REG,
						  .rm = HOST_B, .imm = 7, .imm_size = 1 });
	}
	emit_alu_imm(e, false, ALU_DIGIT_AND, HOST_B, (TLB_SIZE - 1) << 5);
	emit_gs(e, true, 0x03, HOST_B, GS(tlb));
	emit_mem(e, true, 0x2b, HOST_A, HOST_B, tag);
	emit_alu_imm(e, true, ALU_DIGIT_CMP, HOST_A, (int32_t)(4096 - size));
	d->site[d->nsites++] = emit_branch(e, 7, NULL);		/* ja */
	emit_mem(e, true, 0x03, HOST_A, HOST_B, (int)offsetof(struct tlb_entry, page));
}
