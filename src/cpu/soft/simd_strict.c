/*
 * SSE with unmasked floating-point exceptions (SDM vol. 1, 11.5).
 *
 * The host always runs with everything masked.  When the guest unmasks
 * something (MODE_FPSTRICT), each instruction that can raise stands between two
 * more ops.  The first saves what the instruction may change and clears the
 * host's flags; the second looks at the flags and, if one that the guest wants
 * to see is there, puts the destination back and raises.
 *
 * The flags of invalid, denormal and divide-by-zero are the same whether masked
 * or not.  Those of overflow and underflow are not: unmasked, underflow is raised
 * by exact tiny results too, and precision says whether the result would be
 * exact if exponents had no limits (4.9.1.4, 4.9.1.5).  So when one of the two is
 * unmasked, each element is computed again on the host's x87, which rounds to
 * the same 24 or 53 bits with an exponent wide enough.
 */
#include "cpu/soft/simd.h"
#include "cpu/soft/simd_special.h"
#include "cpu/soft/simd_strict.h"
#include "cpu/soft/x87.h"

struct fp_saved {
	v2di reg;		/* XMM or MM */
	v2di src;		/* second operand, where elements are computed again */
	uint64_t gpr;
	uint16_t cc;
};
_Static_assert(sizeof(struct fp_saved) <= sizeof(((struct soft_cpu *)0)->fp_save),
	       "the save area is too small");

static struct fp_saved *saved(struct soft_cpu *c)
{
	return (struct fp_saved *)c->fp_save;
}

/* Is overflow or underflow unmasked? */
bool strict_recomputes(const struct soft_cpu *c)
{
	return (c->s.fpu.mxcsr >> 7 & (MX_OE | MX_UE)) != (MX_OE | MX_UE);
}

/* The flags are the guest's now, and the host's are clear. */
void strict_begin(struct soft_cpu *c)
{
	uint32_t control = c->s.fpu.mxcsr & MX_CONTROL;

	/* Flush-to-zero is not in force while underflow is unmasked (10.2.3.3). */
	if (!(c->s.fpu.mxcsr >> 7 & MX_UE))
		control &= ~MX_FTZ;
	soft_mxcsr_sync(c);
	simd_set_host_mxcsr(control | MX_MASKS);
}

_Noreturn void strict_raise(struct soft_cpu *c, const struct soft_op *op, uint32_t flags)
{
	c->s.fpu.mxcsr |= flags;
	soft_mxcsr_load(c);
	soft_raise(c, op, c->s.cr4 & CR4_OSXMMEXCPT ? EXC_XM : EXC_UD);
}

/* ---- One element, with exponents as wide as need be --------------------------- */

struct element {
	unsigned kind;			/* K_ADD to K_DIV */
	unsigned in_bits, out_bits;
	uint64_t a, b, result;		/* result: as the host left it, all masked */
};

static void push_float(uint64_t v, unsigned bits)
{
	uint32_t single = (uint32_t)v;

	if (bits == 32)
		asm volatile("flds %0" : : "m"(single));
	else
		asm volatile("fldl %0" : : "m"(v));
}

static uint64_t daz(uint64_t v, unsigned bits)
{
	uint64_t sign = BIT(bits - 1), exponent = bits == 32 ? 0x7f800000 : 0x7ff0000000000000;

	return v & exponent ? v : v & sign;
}

/* Computes with `cw`; returns the x87 status, and the result in *u. */
static uint16_t compute(const struct element *e, uint16_t cw, x87_m10 *u)
{
	uint16_t sw;

	asm volatile("fldcw %0" : : "m"(cw));
	push_float(e->b, e->in_bits);
	push_float(e->a, e->in_bits);
	asm volatile("fnclex");
	switch (e->kind) {
	case K_ADD: asm volatile("fadd %st(1), %st"); break;
	case K_SUB: asm volatile("fsub %st(1), %st"); break;
	case K_MUL: asm volatile("fmul %st(1), %st"); break;
	case K_DIV: asm volatile("fdiv %st(1), %st"); break;
	}
	asm volatile("fnstsw %0\n\tfstpt %1\n\tfstp %%st(0)" : "=a"(sw), "=m"(*u));
	return sw;
}

/* Does the host's result have the value u? */
static bool same_value(const struct element *e, const x87_m10 *u)
{
	uint8_t equal;

	asm volatile("fldt %0" : : "m"(*u));
	push_float(e->result, e->out_bits);
	asm volatile("fucomip %%st(1), %%st\n\tfstp %%st(0)\n\tsete %0" : "=q"(equal) : : "cc");
	return equal;
}

static void reset_x87(void)
{
	static const uint16_t init = FCW_INIT;

	asm volatile("fnclex\n\tfldcw %0" : : "m"(init));
}

/* OE, UE, PE of one element under the guest's masks and rounding. */
static uint32_t element_flags(const struct soft_cpu *c, struct element *e)
{
	uint32_t mxcsr = c->s.fpu.mxcsr, masks = mxcsr >> 7;
	uint16_t cw = (uint16_t)(0x7f | (e->out_bits == 64 ? 0x200 : 0) | (mxcsr >> 13 & 3) << 10);
	int exponent, max = e->out_bits == 64 ? 1023 : 127;
	uint32_t inexact, flags = 0;
	x87_m10 u;
	uint16_t sw;

	if (mxcsr & MX_DAZ) {
		e->a = daz(e->a, e->in_bits);
		e->b = daz(e->b, e->in_bits);
	}
	sw = compute(e, cw, &u);
	inexact = sw & MX_PE;
	exponent = load16(u.b + 8) & 0x7fff;
	if ((sw & (MX_IE | MX_ZE)) || exponent == 0x7fff || !load64(u.b))
		flags = 0;			/* NaN, infinity, zero: nothing is rounded */
	else if (exponent - 16383 > max)
		flags = MX_OE | (masks & MX_OE ? MX_PE : inexact);
	else if (exponent - 16383 >= 1 - max)
		flags = inexact;
	else if (!(masks & MX_UE))
		flags = MX_UE | inexact;
	else if (inexact || !same_value(e, &u))
		flags = MX_UE | MX_PE;
	reset_x87();
	return flags;
}

static uint64_t get(const v2di *v, unsigned i, unsigned bits)
{
	const uint8_t *p = (const uint8_t *)v;

	return bits == 32 ? load32(p + 4 * i) : load64(p + 8 * i);
}

static bool is_single(unsigned elem)
{
	return elem == FPE_SS || elem == FPE_PS || elem == FPE_PS2;
}

static unsigned element_count(unsigned elem)
{
	switch (elem) {
	case FPE_PS: return 4;
	case FPE_PD:
	case FPE_PS2: return 2;
	default: return 1;
	}
}

/* The two operands of result element i, and the operation on them. */
static void element_operands(struct element *e, unsigned kind, unsigned i, unsigned n,
			     const v2di *d, const v2di *s)
{
	const v2di *half = i < n / 2 ? d : s;
	unsigned k = i % (n / 2 ? n / 2 : 1) * 2;

	e->kind = kind;
	switch (kind) {
	case K_HADD:
	case K_HSUB:
		e->kind = kind == K_HADD ? K_ADD : K_SUB;
		e->a = get(half, k, e->in_bits);
		e->b = get(half, k + 1, e->in_bits);
		return;
	case K_CONVERT:		/* a multiplication by one rounds */
		e->kind = K_MUL;
		e->a = get(s, i, e->in_bits);
		e->b = 0x3ff0000000000000ull;
		return;
	case K_ADDSUB:
		e->kind = i & 1 ? K_ADD : K_SUB;
		break;
	}
	e->a = get(d, i, e->in_bits);
	e->b = get(s, i, e->in_bits);
}

uint32_t strict_result_flags(const struct soft_cpu *c, unsigned kind, unsigned elem,
			     const v2di *d, const v2di *s, const v2di *result)
{
	unsigned i, n = element_count(elem);
	uint32_t flags = 0;

	for (i = 0; i < n; i++) {
		struct element e = { .out_bits = is_single(elem) ? 32 : 64 };

		e.in_bits = kind == K_CONVERT ? 64 : e.out_bits;
		e.result = get(result, i, e.out_bits);
		element_operands(&e, kind, i, n, d, s);
		flags |= element_flags(c, &e);
	}
	return flags;
}

/* ---- Before and after ---------------------------------------------------------- */

/* Fields of both: dst and src as the instruction has them; size: FP(); imm: kind. */

static v2di *destination(struct soft_cpu *c, const struct soft_op *op)
{
	switch (op->size >> 4) {
	case FPD_XMM: return &XMM(c, op->dst);
	case FPD_MMX: return (v2di *)((char *)c->s.fpu.st + op->dst);
	default: return NULL;
	}
}

static void save_source(struct soft_cpu *c, const struct soft_op *op)
{
	unsigned elem = op->size & 15, n;

	if (!(op->flags & OPF_MEM)) {
		saved(c)->src = XMM(c, op->src);
		return;
	}
	n = op->imm == K_CONVERT ? 8 * element_count(elem) :
	    is_single(elem) ? 4 * element_count(elem) : 8 * element_count(elem);
	if (n == 16 && (soft_ea(c, op) & 15))
		simd_misaligned(c, op);
	memcpy(&saved(c)->src, simd_src(c, op, n), n);
}

static OP_FN(fp_before)
{
	const v2di *reg = destination(c, op);

	if (op->imm != K_NONE && strict_recomputes(c))
		save_source(c, op);
	if (reg)
		saved(c)->reg = *reg;
	else if (op->size >> 4 == FPD_GPR)
		saved(c)->gpr = R64(c, op->dst);
	saved(c)->cc = c->cc;
	strict_begin(c);
	return op + 1;
}

/* The change to MMX, if there was one, stays (as processors do it). */
static void put_back(struct soft_cpu *c, const struct soft_op *op)
{
	v2di *reg = destination(c, op);

	if (reg)
		*reg = saved(c)->reg;
	else if (op->size >> 4 == FPD_GPR)
		R64(c, op->dst) = saved(c)->gpr;
	c->cc = saved(c)->cc;
}

static OP_FN(fp_after)
{
	uint32_t masks = c->s.fpu.mxcsr >> 7;
	uint32_t raised = simd_host_mxcsr() & MX_FLAGS;

	if (op->imm != K_NONE && strict_recomputes(c))
		raised = (raised & MX_BEFORE) |
			 strict_result_flags(c, (unsigned)op->imm, op->size & 15, &saved(c)->reg,
				      &saved(c)->src, &XMM(c, op->dst));
	if (likely(!(raised & ~masks)))
		return op + 1;
	/* What is found before computing hides what would come of it (11.5.3). */
	if (raised & ~masks & MX_BEFORE)
		raised &= MX_BEFORE;
	put_back(c, op);
	strict_raise(c, op, raised);
}

/*
 * Dot products: their multiplications and additions raise one after the other.
 * They are gone through for what they raise; if it is nothing, the host's
 * instruction gives the result, whose NaNs no order of additions would give.
 */

static v2di packed(unsigned kind, unsigned elem, v2di a, v2di b)
{
	if (kind == K_MUL && elem == FPE_PS)
		asm volatile("mulps %1, %0" : "+x"(a) : "x"(b));
	else if (kind == K_MUL)
		asm volatile("mulpd %1, %0" : "+x"(a) : "x"(b));
	else if (elem == FPE_PS)
		asm volatile("addps %1, %0" : "+x"(a) : "x"(b));
	else
		asm volatile("addpd %1, %0" : "+x"(a) : "x"(b));
	return a;
}

/*
 * One packed operation with its own exceptions on n pairs of operands at once, in a[]; elem is
 * FPE_PS or FPE_PD.
 */
static void stage(struct soft_cpu *c, const struct soft_op *op, unsigned kind, unsigned elem,
		  unsigned n, v2di *a, const v2di *b)
{
	uint32_t masks = c->s.fpu.mxcsr >> 7, raised, flags = 0;
	v2di r[2];

	strict_begin(c);
	for (unsigned i = 0; i < n; i++)
		r[i] = packed(kind, elem, a[i], b[i]);
	raised = simd_host_mxcsr() & MX_FLAGS;
	for (unsigned i = 0; i < n; i++) {
		if (strict_recomputes(c))
			flags |= strict_result_flags(c, kind, elem, &a[i], &b[i], &r[i]);
		a[i] = r[i];
	}
	if (strict_recomputes(c))
		raised = (raised & MX_BEFORE) | flags;
	if (raised & ~masks) {
		if (raised & ~masks & MX_BEFORE)
			raised &= MX_BEFORE;
		strict_raise(c, op, raised);
	}
}

/* Elements a and b, and zeros. */
static inline v2di shuffle(v2di v, unsigned a, unsigned b)
{
	uint32_t e[4];

	memcpy(e, &v, 16);
	return (v2di){ (long long)((uint64_t)e[b] << 32 | e[a]), 0 };
}

static v2di dot_source(struct soft_cpu *c, const struct soft_op *op)
{
	if (!(op->flags & OPF_MEM))
		return XMM(c, op->src);
	if (soft_ea(c, op) & 15)
		simd_misaligned(c, op);
	return *(const v2di *)simd_src(c, op, 16);
}

void strict_dot_ps(struct soft_cpu *c, const struct soft_op *op, unsigned n, const v2di *d,
		   const v2di *s, unsigned imm)
{
	v2di mask, a[2] = { 0 }, b[2] = { 0 };
	uint32_t e[4];
	unsigned i;

	for (i = 0; i < 4; i++)
		e[i] = imm >> (4 + i) & 1 ? ~0u : 0;
	memcpy(&mask, e, 16);
	for (i = 0; i < n; i++) {
		a[i] = d[i] & mask;
		b[i] = s[i] & mask;
	}
	stage(c, op, K_MUL, FPE_PS, n, a, b);
	for (i = 0; i < n; i++) {
		b[i] = shuffle(a[i], 1, 3);
		a[i] = shuffle(a[i], 0, 2);
	}
	stage(c, op, K_ADD, FPE_PS, n, a, b);
	for (i = 0; i < n; i++) {
		b[i] = (v2di){ (long long)((uint64_t)a[i][0] >> 32), 0 };
		a[i] = (v2di){ (uint32_t)a[i][0], 0 };
	}
	stage(c, op, K_ADD, FPE_PS, n, a, b);
}

void strict_dot_pd(struct soft_cpu *c, const struct soft_op *op, v2di d, v2di s, unsigned imm)
{
	v2di mask = { -(long long)(imm >> 4 & 1), -(long long)(imm >> 5 & 1) };
	v2di a = d & mask, b = s & mask;

	stage(c, op, K_MUL, FPE_PD, 1, &a, &b);
	b = (v2di){ a[1], 0 };
	a = (v2di){ a[0], 0 };
	stage(c, op, K_ADD, FPE_PD, 1, &a, &b);
}

static OP_FN(dpps_strict)
{
	v2di s = dot_source(c, op);

	strict_dot_ps(c, op, 1, &XMM(c, op->dst), &s, (unsigned)op->imm);
	return op->flags & OPF_MEM ? sse_dpps_rm(c, op) : sse_dpps_rr(c, op);
}

static OP_FN(dppd_strict)
{
	strict_dot_pd(c, op, XMM(c, op->dst), dot_source(c, op), (unsigned)op->imm);
	return op->flags & OPF_MEM ? sse_dppd_rm(c, op) : sse_dppd_rr(c, op);
}

/* ---- Decoding ----------------------------------------------------------------- */

static unsigned kind_of(ZydisMnemonic m)
{
	switch (m) {
	case ZYDIS_MNEMONIC_ADDPS: case ZYDIS_MNEMONIC_ADDPD:
	case ZYDIS_MNEMONIC_ADDSS: case ZYDIS_MNEMONIC_ADDSD: return K_ADD;
	case ZYDIS_MNEMONIC_SUBPS: case ZYDIS_MNEMONIC_SUBPD:
	case ZYDIS_MNEMONIC_SUBSS: case ZYDIS_MNEMONIC_SUBSD: return K_SUB;
	case ZYDIS_MNEMONIC_MULPS: case ZYDIS_MNEMONIC_MULPD:
	case ZYDIS_MNEMONIC_MULSS: case ZYDIS_MNEMONIC_MULSD: return K_MUL;
	case ZYDIS_MNEMONIC_DIVPS: case ZYDIS_MNEMONIC_DIVPD:
	case ZYDIS_MNEMONIC_DIVSS: case ZYDIS_MNEMONIC_DIVSD: return K_DIV;
	case ZYDIS_MNEMONIC_CVTSD2SS: case ZYDIS_MNEMONIC_CVTPD2PS: return K_CONVERT;
	case ZYDIS_MNEMONIC_HADDPS: case ZYDIS_MNEMONIC_HADDPD: return K_HADD;
	case ZYDIS_MNEMONIC_HSUBPS: case ZYDIS_MNEMONIC_HSUBPD: return K_HSUB;
	case ZYDIS_MNEMONIC_ADDSUBPS: case ZYDIS_MNEMONIC_ADDSUBPD: return K_ADDSUB;
	default: return K_NONE;
	}
}

void simd_watch(struct soft_decode *d, struct soft_op *op, uint8_t fp)
{
	if (d->insn->mnemonic == ZYDIS_MNEMONIC_DPPS) {
		op->fn = dpps_strict;
		return;
	}
	if (d->insn->mnemonic == ZYDIS_MNEMONIC_DPPD) {
		op->fn = dppd_strict;
		return;
	}
	d->before = *op;
	d->before.fn = fp_before;
	d->before.size = fp;
	d->before.imm = kind_of(d->insn->mnemonic);
	d->after = d->before;
	d->after.fn = fp_after;
}
