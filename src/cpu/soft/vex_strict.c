/*
 * AVX, FMA and F16C with unmasked floating-point exceptions; simd_strict.c says how.  Not as on a
 * processor: beside an unmasked overflow or underflow, PE of VCVTPS2PH says whether the masked
 * result is exact.
 */
#include "cpu/soft/exec_vex.h"
#include "cpu/soft/vex_strict.h"
#include "cpu/soft/vex_thunk.h"

struct wide {
	v2di half[2];
};

static struct wide get(const struct soft_cpu *c, const struct vex_operand *o)
{
	unsigned at = o->number * 16u;

	return (struct wide){ { XMM(c, at), YMMH(c, at) } };
}

/* What the arithmetic of an instruction is, and of which elements. */
struct arithmetic {
	uint8_t kind, elem;
};

/* Opcodes of map 0F by prefix: none PS, 66 PD, F3 SS, F2 SD. */
static const uint8_t elem_of_prefix[4] = { FPE_PS, FPE_PD, FPE_SS, FPE_SD };

static struct arithmetic arithmetic(const struct vex_insn *i)
{
	uint8_t elem = elem_of_prefix[i->pp & 3];

	if (i->map != 1)
		return (struct arithmetic){ K_NONE, FPE_NONE };
	switch (i->opcode) {
	case 0x58: return (struct arithmetic){ K_ADD, elem };
	case 0x59: return (struct arithmetic){ K_MUL, elem };
	case 0x5c: return (struct arithmetic){ K_SUB, elem };
	case 0x5e: return (struct arithmetic){ K_DIV, elem };
	/* 66 is PD and F2 is PS for these. */
	case 0x7c: return (struct arithmetic){ K_HADD, i->pp == 1 ? FPE_PD : FPE_PS };
	case 0x7d: return (struct arithmetic){ K_HSUB, i->pp == 1 ? FPE_PD : FPE_PS };
	case 0xd0: return (struct arithmetic){ K_ADDSUB, i->pp == 1 ? FPE_PD : FPE_PS };
	case 0x5a:	/* VCVTPD2PS and VCVTSD2SS */
		if (i->pp == 1)
			return (struct arithmetic){ K_CONVERT, FPE_PS2 };
		return (struct arithmetic){ i->pp == 3 ? K_CONVERT : K_NONE, FPE_SS };
	default:
		return (struct arithmetic){ K_NONE, FPE_NONE };
	}
}

/* FMA: 96-9F, A6-AF, B6-BF of map 0F38. */
static bool is_fma(const struct vex_insn *i)
{
	return i->map == 2 && i->opcode >= 0x96 && i->opcode <= 0xbf;
}

static bool denormal(const uint8_t *p, unsigned bits)
{
	switch (bits) {
	case 16: return !(load16(p) & 0x7c00) && load16(p) & 0x3ff;
	case 32: return !(load32(p) & 0x7f800000) && load32(p) & 0x7fffff;
	default: return !(load64(p) & 0x7ff0000000000000) && load64(p) & 0xfffffffffffff;
	}
}

/* A result that is tiny and exact: unmasked, it raises underflow too. */
static uint32_t tiny_flags(const struct soft_cpu *c, const uint8_t *result, unsigned n, unsigned bits)
{
	if (c->s.fpu.mxcsr >> 7 & MX_UE)
		return 0;
	for (unsigned i = 0; i < n; i++)
		if (denormal(result + i * bits / 8, bits))
			return MX_UE;
	return 0;
}

struct operands {
	struct wide a, b;	/* as the instruction has them: the first and the second source */
	struct wide before;	/* the destination's value, which FMA reads */
	const void *mem;
};

static uint64_t element(const struct wide *v, unsigned i, unsigned bits)
{
	const uint8_t *p = (const uint8_t *)v + i * bits / 8;

	return bits == 32 ? load32(p) : load64(p);
}

static uint32_t fma_flags(const struct soft_cpu *c, const struct vex_insn *i,
			  const struct operands *o)
{
	unsigned bits = i->w ? 64 : 32, n = (i->wide ? 256u : 128u) / bits, form = i->opcode & 15;
	/* 132, 213, 231 are 9, A, B: which operands are multiplied. */
	const struct wide *a = i->opcode >> 4 == 9 ? &o->before : &o->a;
	const struct wide *b = i->opcode >> 4 == 0xa ? &o->before : &o->b;
	const struct wide *s = i->opcode >> 4 == 9 ? &o->a : i->opcode >> 4 == 0xa ? &o->b : &o->before;
	uint32_t flags = 0;

	/* Odd forms are scalar, but for FMSUBADD, which is 7. */
	if (form & 1 && form > 7)
		n = 1;
	for (unsigned k = 0; k < n; k++) {
		struct fma f = { bits, element(a, k, bits), element(b, k, bits), element(s, k, bits),
				 form >= 12, form > 9 && form & 2 };

		if (form < 8)		/* FMADDSUB subtracts in even elements, FMSUBADD in odd ones */
			f.negate_addend = (form & 1) == (k & 1);
		flags |= strict_fma_flags(c, &f);
	}
	return flags;
}

/* OE, UE and PE as the guest's masks make them; raised: as the host had them. */
static uint32_t refine(struct soft_cpu *c, const struct vex_insn *i, const struct operands *o,
		       uint32_t raised)
{
	struct arithmetic k = arithmetic(i);
	struct wide r = get(c, &i->reg);
	uint32_t flags = 0;

	if (is_fma(i))
		return (raised & MX_BEFORE) | fma_flags(c, i, o);
	if (i->mnemonic == ZYDIS_MNEMONIC_VCVTPS2PH) {
		struct wide to = get(c, &i->rm);

		return raised | tiny_flags(c, i->mem_write ? o->mem : (const uint8_t *)&to,
					   i->wide ? 8 : 4, 16);
	}
	if (k.kind == K_NONE)
		return raised;
	flags = strict_result_flags(c, k.kind, k.elem, &o->a.half[0], &o->b.half[0], &r.half[0]);
	if (k.elem == FPE_PS2 && i->wide) {
		v2di upper = { r.half[0][1], 0 };

		flags |= strict_result_flags(c, k.kind, k.elem, &o->a.half[1], &o->b.half[1], &upper);
	} else if ((k.elem == FPE_PS || k.elem == FPE_PD) && i->wide) {
		flags |= strict_result_flags(c, k.kind, k.elem, &o->a.half[1], &o->b.half[1],
					     &r.half[1]);
	}
	return (raised & MX_BEFORE) | flags;
}

/* Their steps raise one after the other. */
static void dot_product(struct soft_cpu *c, const struct soft_op *op, const struct vex_insn *i,
			const struct operands *o)
{
	if (i->mnemonic == ZYDIS_MNEMONIC_VDPPS)
		strict_dot_ps(c, op, i->wide ? 2 : 1, o->a.half, o->b.half, i->imm);
	else if (i->mnemonic == ZYDIS_MNEMONIC_VDPPD)
		strict_dot_pd(c, op, o->a.half[0], o->b.half[0], i->imm);
}

/* What the instruction writes, to be put back: it has one destination, or the flags. */
struct result {
	struct wide vector;
	uint64_t general;
	uint16_t cc;
};

static const struct vex_operand *destination(const struct vex_insn *i)
{
	return i->reg.write ? &i->reg : i->rm.write ? &i->rm : NULL;
}

static struct result keep(struct soft_cpu *c, const struct vex_insn *i)
{
	const struct vex_operand *d = destination(i);
	struct result r = { .cc = c->cc };

	if (d && d->file == VEX_VECTOR)
		r.vector = get(c, d);
	else if (d)
		r.general = c->r[d->number];
	return r;
}

static void put_back(struct soft_cpu *c, const struct vex_insn *i, const struct result *r)
{
	const struct vex_operand *d = destination(i);

	c->cc = r->cc;
	if (d && d->file == VEX_VECTOR) {
		XMM(c, d->number * 16) = r->vector.half[0];
		YMMH(c, d->number * 16) = r->vector.half[1];
	} else if (d) {
		c->r[d->number] = r->general;
	}
}

/* The memory operand's bytes, or room for them: exceptions come before what a store raises. */
static void *operand(struct soft_cpu *c, const struct soft_op *op, const struct vex_insn *i)
{
	if (i->mem_read)
		memmove(c->fp_tmp, vex_source(c, op), i->mem_size);
	return i->mem_size ? c->fp_tmp : NULL;
}

OP_FN(vex_strict)
{
	const struct vex_thunk *t = (const struct vex_thunk *)(uintptr_t)op->imm;
	const struct vex_insn *i = &t->insn;
	void *mem = operand(c, op, i);
	struct operands o = { .a = get(c, &i->vvvv), .b = get(c, &i->rm), .before = get(c, &i->reg),
			      .mem = mem };
	struct result before = keep(c, i);
	uint32_t masks = c->s.fpu.mxcsr >> 7, raised;

	if (i->mem_read)
		memcpy(&o.b, mem, i->mem_size);
	dot_product(c, op, i, &o);
	strict_begin(c);
	t->run(c, mem);
	raised = simd_host_mxcsr() & MX_FLAGS;
	if (strict_recomputes(c))
		raised = refine(c, i, &o, raised);
	if (unlikely(raised & ~masks)) {
		/* What is found before computing hides what would come of it (11.5.3). */
		if (raised & ~masks & MX_BEFORE)
			raised &= MX_BEFORE;
		put_back(c, i, &before);
		strict_raise(c, op, raised);
	}
	if (i->mem_write)
		vex_sink(c, op, mem);
	return op + 1;
}
