#include "cpu/soft/vex.h"

#include <string.h>

#include "base/util.h"

static bool known(const ZydisDecodedInstruction *in, bool *avx)
{
	*avx = true;
	switch (in->meta.isa_set) {
	case ZYDIS_ISA_SET_AVX:
	case ZYDIS_ISA_SET_AVX2:
	case ZYDIS_ISA_SET_AVX2GATHER:
	case ZYDIS_ISA_SET_AVXAES:
	case ZYDIS_ISA_SET_F16C:
	case ZYDIS_ISA_SET_FMA:
		return true;
	case ZYDIS_ISA_SET_BMI1:
	case ZYDIS_ISA_SET_BMI2:
		*avx = false;
		return true;
	default:
		return false;
	}
}

/* SDM vol. 2, 2.4: the classes of AVX instructions that raise SIMD floating-point exceptions. */
static bool raises(const ZydisDecodedInstruction *in)
{
	switch (in->meta.exception_class) {
	case ZYDIS_EXCEPTION_CLASS_AVX2:
	case ZYDIS_EXCEPTION_CLASS_AVX3:
	case ZYDIS_EXCEPTION_CLASS_AVX11:
		return true;
	default:
		return false;
	}
}

static struct vex_operand *field(struct vex_insn *v, ZydisOperandEncoding e)
{
	switch (e) {
	case ZYDIS_OPERAND_ENCODING_MODRM_REG: return &v->reg;
	case ZYDIS_OPERAND_ENCODING_MODRM_RM: return &v->rm;
	case ZYDIS_OPERAND_ENCODING_NDSNDD: return &v->vvvv;
	case ZYDIS_OPERAND_ENCODING_IS4: return &v->is4;
	default: return NULL;
	}
}

static bool is_vector(ZydisRegisterClass k)
{
	return k == ZYDIS_REGCLASS_XMM || k == ZYDIS_REGCLASS_YMM;
}

static bool add_register(struct vex_insn *v, const ZydisDecodedOperand *o)
{
	ZydisRegisterClass k = ZydisRegisterGetClass(o->reg.value);
	bool general = k == ZYDIS_REGCLASS_GPR32 || k == ZYDIS_REGCLASS_GPR64;
	bool read = o->actions & ZYDIS_OPERAND_ACTION_MASK_READ;
	bool write = o->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE;
	struct vex_operand *f = field(v, o->encoding);
	uint8_t n = (uint8_t)ZydisRegisterGetId(o->reg.value);
	uint16_t bit = (uint16_t)(1u << (n & 15));

	if (!is_vector(k) && !general)		/* MXCSR, the flags */
		return o->visibility == ZYDIS_OPERAND_VISIBILITY_HIDDEN;
	if (n > 15)
		return false;
	if (is_vector(k)) {
		v->vec_read |= read ? bit : 0;
		v->vec_read_wide |= read && k == ZYDIS_REGCLASS_YMM ? bit : 0;
		v->vec_write |= write ? bit : 0;
		v->wide |= k == ZYDIS_REGCLASS_YMM;
	} else if (!f) {
		v->implicit_read |= read ? bit : 0;
		v->implicit_write |= write ? bit : 0;
	}
	if (f)
		*f = (struct vex_operand){ is_vector(k) ? VEX_VECTOR : VEX_GENERAL, n, read, write };
	return true;
}

static bool add_memory(struct vex_insn *v, const ZydisDecodedOperand *o)
{
	/* Of maskmov: an address that no field names. */
	if (o->visibility != ZYDIS_OPERAND_VISIBILITY_EXPLICIT)
		return true;
	if (o->size % 8 || o->size > 256)
		return false;
	v->mem_size = (uint8_t)(o->size / 8);
	v->mem_read = o->actions & ZYDIS_OPERAND_ACTION_MASK_READ;
	v->mem_write = o->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE;
	v->wide |= o->size == 256;
	if (o->mem.type == ZYDIS_MEMOP_TYPE_VSIB) {
		v->has_vsib = true;
		v->vsib = (uint8_t)(ZydisRegisterGetId(o->mem.index) & 15);
		v->wide |= ZydisRegisterGetClass(o->mem.index) == ZYDIS_REGCLASS_YMM;
	}
	return true;
}

/*
 * Outside 64-bit mode W chooses no 64-bit general register (SDM vol. 2, 2.3.5.5): it is ignored
 * where one is named, and must not make one on the host.
 */
static bool ignores_w(const struct vex_insn *v)
{
	switch (v->mnemonic) {
	case ZYDIS_MNEMONIC_VMOVD:
	case ZYDIS_MNEMONIC_VPINSRD:
	case ZYDIS_MNEMONIC_VPEXTRD:
	case ZYDIS_MNEMONIC_VCVTSI2SS:
	case ZYDIS_MNEMONIC_VCVTSI2SD:
		return true;
	default:
		return v->reg.file == VEX_GENERAL || v->rm.file == VEX_GENERAL ||
		       v->vvvv.file == VEX_GENERAL || v->implicit_read;
	}
}

bool vex_parse(struct vex_insn *v, const ZydisDecodedInstruction *in, const ZydisDecodedOperand *op,
	       bool long64)
{
	const ZydisAccessedFlags *f = in->cpu_flags;

	*v = (struct vex_insn){ .mnemonic = in->mnemonic };
	if (in->encoding != ZYDIS_INSTRUCTION_ENCODING_VEX || !known(in, &v->avx))
		return false;
	v->map = in->raw.vex.m_mmmm;
	v->pp = in->raw.vex.pp;
	v->w = in->raw.vex.W;
	v->opcode = in->opcode;
	v->reg.number = in->raw.modrm.reg;
	if (in->mnemonic == ZYDIS_MNEMONIC_VZEROALL)
		v->wide = true;
	for (unsigned i = 0; i < in->operand_count; i++) {
		const ZydisDecodedOperand *o = &op[i];
		bool ok = o->type == ZYDIS_OPERAND_TYPE_REGISTER ? add_register(v, o) :
			  o->type == ZYDIS_OPERAND_TYPE_MEMORY ? add_memory(v, o) : true;

		if (!ok)
			return false;
		if (o->type == ZYDIS_OPERAND_TYPE_IMMEDIATE) {
			v->has_imm = true;
			v->imm = (uint8_t)o->imm.value.u;
		}
	}
	if (!long64 && ignores_w(v))
		v->w = false;
	v->raises = v->avx && raises(in);
	v->no_ac = in->meta.exception_class == ZYDIS_EXCEPTION_CLASS_AVX11;
	v->writes_flags = f && ((f->modified | f->set_0 | f->set_1 | f->undefined) & 0x8d5);
	return true;
}

unsigned vex_encode(const struct vex_insn *v, unsigned base, int32_t disp, uint8_t *out)
{
	bool mem = v->mem_size;
	unsigned rm = mem ? base : v->rm.number, n = 0;
	unsigned vvvv = v->vvvv.file == VEX_NONE ? 0 : v->vvvv.number;
	unsigned mod = !mem ? 3 : disp == (int8_t)disp ? (disp || (rm & 7) == 5) : 2;

	out[n++] = 0xc4;
	out[n++] = (uint8_t)((v->reg.number < 8 ? 0x80 : 0) | 0x40 | (rm < 8 ? 0x20 : 0) | v->map);
	out[n++] = (uint8_t)(v->w << 7 | (~vvvv & 15) << 3 | v->wide << 2 | v->pp);
	out[n++] = v->opcode;
	out[n++] = (uint8_t)(mod << 6 | (v->reg.number & 7) << 3 | (rm & 7));
	if (mem && (rm & 7) == 4)
		out[n++] = 0x24;		/* SIB: no index */
	if (mem && mod == 1) {
		out[n++] = (uint8_t)disp;
	} else if (mem && mod == 2) {
		memcpy(out + n, &disp, 4);
		n += 4;
	}
	if (v->is4.file != VEX_NONE)
		out[n++] = (uint8_t)(v->is4.number << 4 | (v->has_imm ? v->imm & 15 : 0));
	else if (v->has_imm)
		out[n++] = v->imm;
	return n;
}
