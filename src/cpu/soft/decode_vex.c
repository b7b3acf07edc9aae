/* Chooses the handlers of VEX instructions. */
#include "cpu/soft/exec_vex.h"
#include "cpu/soft/simd.h"
#include "cpu/soft/simd_special.h"
#include "cpu/soft/vex_thunk.h"

/* Whole registers, aligned or not. */
static bool move(struct soft_op *op, const struct vex_insn *v, bool aligned)
{
	unsigned size = v->wide ? 32 : 16;

	op->imm = aligned ? size - 1 : 0;
	op->size = (uint8_t)size;
	op->dst = op->src = (uint8_t)(v->reg.number * 16);
	if (v->mem_write) {
		op->fn = v->wide ? vex_store256 : vex_store128;
	} else if (v->mem_read) {
		op->fn = v->wide ? vex_load256 : vex_load128;
	} else {
		if (v->reg.write)
			op->src = (uint8_t)(v->rm.number * 16);
		else
			op->dst = (uint8_t)(v->rm.number * 16);
		op->fn = v->wide ? vex_mov_rr256 : vex_mov_rr128;
	}
	return true;
}

/* The address of an operand of which only parts may be looked at. */
static void raw_address(const struct soft_decode *d, struct soft_op *op)
{
	const ZydisDecodedInstruction *in = d->insn;
	const ZydisDecodedOperand *m = &d->op[d->mem];

	op->base = op->index = SLOT(SLOT_ZERO);
	op->imm = m->mem.disp.has_displacement ? (uint64_t)m->mem.disp.value : 0;
	/* Without a base Zydis 4.0 may name one all the same. */
	if (in->raw.modrm.mod == 0 && in->raw.sib.offset && in->raw.sib.base == 5) {
		op->imm = (uint64_t)in->raw.disp.value;
	} else if (m->mem.base == ZYDIS_REGISTER_RIP || m->mem.base == ZYDIS_REGISTER_EIP) {
		op->base = SLOT(SLOT_IPBASE);
		op->imm += op->ip + op->len;
	} else if (m->mem.base != ZYDIS_REGISTER_NONE) {
		op->base = soft_slot_of(m->mem.base);
	}
	if (m->mem.index != ZYDIS_REGISTER_NONE && m->mem.type != ZYDIS_MEMOP_TYPE_VSIB)
		op->index = soft_slot_of(m->mem.index);
	if (in->raw.sib.offset)
		op->scale = in->raw.sib.scale;
	op->seg = soft_reg_number(m->mem.segment);
}

static bool mask_move(const struct soft_decode *d, struct soft_op *op, const struct vex_insn *v,
		      op_fn *load, op_fn *store)
{
	raw_address(d, op);
	op->dst = (uint8_t)(v->reg.number * 16);
	op->src = (uint8_t)(v->vvvv.number * 16);
	op->size = v->wide ? 32 : 16;
	op->fn = v->mem_write ? store : load;
	return true;
}

/* SDM vol. 2, VGATHERDPS and its kin. */
static bool gather(struct soft_decode *d, struct soft_op *op, const struct vex_insn *v)
{
	unsigned size = v->w ? 8 : 4, index_size = v->opcode & 1 ? 8 : 4;
	unsigned count = (v->wide ? 32u : 16u) / MAX(size, index_size);

	if (!v->has_vsib || v->reg.number == v->vvvv.number || v->reg.number == v->vsib ||
	    v->vvvv.number == v->vsib || d->insn->address_width == 16)
		return false;
	raw_address(d, op);
	op->disp = (int32_t)op->imm;
	op->dst = (uint8_t)(v->reg.number * 16);
	op->src = (uint8_t)(v->vvvv.number * 16);
	op->imm = GATHER_IMM(v->vsib, index_size, size, count, v->wide);
	op->fn = vex_gather;
	return true;
}

static bool by_thunk(struct soft_decode *d, struct soft_op *op, const struct vex_insn *v)
{
	if (v->has_vsib || v->mem_size > sizeof d->c->fp_tmp ||
	    (v->mem_size && v->mem_read == v->mem_write))
		return false;
	op->imm = (uintptr_t)soft_vex_thunk(d->c->vex, v);
	op->size = v->mem_size;
	op->fn = v->mem_write ? vex_store : v->mem_read ? vex_load : vex_rr;
	if (v->raises && d->mode & MODE_FPSTRICT)
		op->fn = vex_strict;
	return true;
}

static bool plain(struct soft_op *op, op_fn *fn)
{
	op->fn = fn;
	return true;
}

static bool mxcsr(struct soft_op *op, op_fn *fn)
{
	op->imm = 1;
	op->fn = fn;
	return true;
}

static bool choose(struct soft_decode *d, struct soft_op *op, const struct vex_insn *v)
{
	switch (v->mnemonic) {
	case ZYDIS_MNEMONIC_VZEROUPPER: return plain(op, vex_zeroupper);
	case ZYDIS_MNEMONIC_VZEROALL: return plain(op, vex_zeroall);
	case ZYDIS_MNEMONIC_VLDMXCSR: return mxcsr(op, op_ldmxcsr);
	case ZYDIS_MNEMONIC_VSTMXCSR: return mxcsr(op, op_stmxcsr);
	case ZYDIS_MNEMONIC_VMASKMOVDQU: return simd_mask_move(d, op, sse_maskmovdqu);
	case ZYDIS_MNEMONIC_VMASKMOVPS:
	case ZYDIS_MNEMONIC_VPMASKMOVD:
		return mask_move(d, op, v, vex_mask_load32, vex_mask_store32);
	case ZYDIS_MNEMONIC_VMASKMOVPD:
	case ZYDIS_MNEMONIC_VPMASKMOVQ:
		return mask_move(d, op, v, vex_mask_load64, vex_mask_store64);
	case ZYDIS_MNEMONIC_VGATHERDPS: case ZYDIS_MNEMONIC_VGATHERDPD:
	case ZYDIS_MNEMONIC_VGATHERQPS: case ZYDIS_MNEMONIC_VGATHERQPD:
	case ZYDIS_MNEMONIC_VPGATHERDD: case ZYDIS_MNEMONIC_VPGATHERDQ:
	case ZYDIS_MNEMONIC_VPGATHERQD: case ZYDIS_MNEMONIC_VPGATHERQQ:
		return gather(d, op, v);
	case ZYDIS_MNEMONIC_VMOVAPS: case ZYDIS_MNEMONIC_VMOVAPD: case ZYDIS_MNEMONIC_VMOVDQA:
	case ZYDIS_MNEMONIC_VMOVNTPS: case ZYDIS_MNEMONIC_VMOVNTPD: case ZYDIS_MNEMONIC_VMOVNTDQ:
	case ZYDIS_MNEMONIC_VMOVNTDQA:
		return move(op, v, true);
	case ZYDIS_MNEMONIC_VMOVUPS: case ZYDIS_MNEMONIC_VMOVUPD: case ZYDIS_MNEMONIC_VMOVDQU:
	case ZYDIS_MNEMONIC_VLDDQU:
		return move(op, v, false);
	default:
		return by_thunk(d, op, v);
	}
}

bool soft_vex_own_address(const struct soft_decode *d)
{
	switch (d->insn->mnemonic) {
	case ZYDIS_MNEMONIC_VMASKMOVPS:
	case ZYDIS_MNEMONIC_VMASKMOVPD:
	case ZYDIS_MNEMONIC_VPMASKMOVD:
	case ZYDIS_MNEMONIC_VPMASKMOVQ:
		return true;
	default:
		return d->op[d->mem].mem.type == ZYDIS_MEMOP_TYPE_VSIB;
	}
}

bool soft_decode_vex(struct soft_decode *d, struct soft_op *op)
{
	struct vex_insn v;

	if (!d->c->vex || !vex_parse(&v, d->insn, d->op, d->mode & MODE_CS64) || !choose(d, op, &v))
		return false;
	if (v.avx && d->mode & MODE_NOAVX) {
		op->fn = vex_unavailable;
		d->raises = true;
	}
	return true;
}
