/*
 * FXSAVE, XSAVE and their kin; MXCSR; XCR0 (SDM vol. 1, 10.5 and 13).
 *
 * The x87 instruction and data pointers follow AMD's rule (APM vol. 2, 11.4.4):
 * FXSAVE and XSAVE store FOP, FIP and FDP when an unmasked exception is pending
 * (FSW.ES), and zeros otherwise; FXRSTOR and XRSTOR load them when the image's
 * FSW and FCW say that one is pending, and set them to zero otherwise.  So they
 * never leak from one task of the guest to another.  FNSTENV and FNSAVE report
 * what is stored.  FIP and FOP are set by each x87 instruction that is not a
 * control instruction, FDP by one that raises an unmasked exception (the models
 * announce that: CPUID 7, EBX bit 6).  They are offsets of the guest.  FCS and FDS
 * are zero (CPUID 7, EBX bit 13).
 *
 * Components are x87 (0), SSE (1) and, where the model has it, AVX (2): the upper
 * halves of YMM0-15, which lie behind the header in either form of the area.
 * XINUSE is a function of the state: x87 is in use unless FCW = 037FH, FSW = 0,
 * all registers are empty and zero; SSE unless XMM0-15 are zero; AVX unless all
 * upper halves are.  There is no modified optimisation.
 */
#include "cpu/model.h"
#include "cpu/soft/simd.h"
#include "cpu/soft/simd_special.h"
#include "cpu/soft/system.h"
#include "cpu/soft/x87.h"

#define X87	0x1u
#define SSE	0x2u
#define AVX	0x4u
#define MXCSR_VALID 0xffffu
#define MXCSR_INIT  0x1f80u
#define CPUID_XGETBV1 0x4u	/* leaf 0xd.1, EAX */

/* Image offsets (SDM vol. 1, 10.5.1 and 13.4). */
#define FX_MXCSR	24
#define FX_ST		32
#define FX_XMM		160
#define XS_HEADER	512
#define XS_SIZE		576
#define XS_AVX		576	/* the only extended component: there in either form */
_Static_assert(XS_AVX + sizeof(((struct cpu_fpu *)0)->ymmh) == XSAVE_AVX_END, "XSAVE area");

static unsigned xmm_count(const struct soft_cpu *c)
{
	return c->mode & MODE_CS64 ? 16 : 8;
}

/* ---- The image, in a buffer ------------------------------------------------ */

static void put_x87(const struct soft_cpu *c, uint8_t *p, bool wide)
{
	const struct cpu_fpu *f = &c->s.fpu;
	bool pending = f->fsw & FSW_ES;
	unsigned i;

	memset(p, 0, 24);
	store16(p, f->fcw);
	store16(p + 2, f->fsw);
	p[4] = f->ftw;
	if (pending) {
		store16(p + 6, f->fop);
		store64(p + 8, wide ? f->fip : (uint32_t)f->fip);
		store64(p + 16, wide ? f->fdp : (uint32_t)f->fdp);
	}
	for (i = 0; i < 8; i++) {
		memset(p + FX_ST + 16 * i, 0, 16);
		memcpy(p + FX_ST + 16 * i, f->st[(x87_top(c) + i) & 7], 10);
	}
}

static void get_x87(struct soft_cpu *c, const uint8_t *p, bool wide)
{
	struct cpu_fpu *f = &c->s.fpu;
	unsigned i;

	x87_set_control(c, load16(p));
	f->fsw = load16(p + 2);
	x87_update_summary(c);
	f->ftw = p[4];
	x87_clear_pointers(c);
	if (f->fsw & FSW_ES) {
		f->fop = load16(p + 6) & 0x7ff;
		f->fip = wide ? load64(p + 8) : load32(p + 8);
		f->fdp = wide ? load64(p + 16) : load32(p + 16);
	}
	for (i = 0; i < 8; i++) {
		uint8_t *st = f->st[(x87_top(c) + i) & 7];

		memset(st, 0, 16);
		memcpy(st, p + FX_ST + 16 * i, 10);
	}
}

static void init_x87(struct soft_cpu *c)
{
	x87_init(c);
	memset(c->s.fpu.st, 0, sizeof c->s.fpu.st);
}

static void put_mxcsr(struct soft_cpu *c, uint8_t *p)
{
	soft_mxcsr_sync(c);
	store32(p + FX_MXCSR, c->s.fpu.mxcsr);
	store32(p + FX_MXCSR + 4, MXCSR_VALID);
}

/* Sets MXCSR and goes on, or leaves the block when other code is to be decoded now. */
static const struct soft_op *set_mxcsr(struct soft_cpu *c, const struct soft_op *op, uint32_t v)
{
	uint32_t mode = c->mode;

	c->s.fpu.mxcsr = v;
	soft_mxcsr_load(c);
	soft_update_mode(c);
	if (c->mode != mode)
		return soft_leave(c, op, soft_next_rip(c, op));
	return op + 1;
}

static bool zero(const void *p, size_t n)
{
	const uint8_t *b = p;

	while (n--)
		if (*b++)
			return false;
	return true;
}

static unsigned xinuse(const struct soft_cpu *c)
{
	const struct cpu_fpu *f = &c->s.fpu;
	unsigned v = 0;

	if (f->fcw != FCW_INIT || f->fsw || f->ftw || !zero(f->st, sizeof f->st))
		v |= X87;
	if (!zero(f->xmm, sizeof f->xmm))
		v |= SSE;
	if (!zero(f->ymmh, sizeof f->ymmh))
		v |= AVX;
	return v;
}

/* ---- FXSAVE, FXRSTOR ----------------------------------------------------- */

/* Unlike with SSE operands, an address that is not canonical is found first. */
static void check_aligned(struct soft_cpu *c, const struct soft_op *op, uint64_t lin,
			  unsigned alignment)
{
	bool stack = op->seg == SEG_SS && c->mode & MODE_CS64 && !soft_canonical(lin);

	if (lin & (alignment - 1))
		soft_raise_err(c, op, stack ? EXC_SS : EXC_GP, 0);
}

static void check_fx(struct soft_cpu *c, const struct soft_op *op, uint64_t lin)
{
	if (c->s.cr0 & (CR0_EM | CR0_TS))
		soft_raise(c, op, EXC_NM);
	check_aligned(c, op, lin, 16);
}

OP_FN(op_fxsave)
{
	uint8_t image[XS_HEADER];
	uint64_t lin = soft_ea(c, op);
	unsigned n = xmm_count(c) * 16;

	check_fx(c, op, lin);
	put_x87(c, image, op->size == 8);
	put_mxcsr(c, image);
	memcpy(image + FX_XMM, c->s.fpu.xmm, n);
	/* The reserved end of the image must be there, and is not written. */
	soft_check_write(c, op, lin, XS_HEADER);
	soft_store_bytes(c, op, lin, image, FX_XMM + n);
	return op + 1;
}

OP_FN(op_fxrstor)
{
	uint8_t image[XS_HEADER];
	uint64_t lin = soft_ea(c, op);
	unsigned n = xmm_count(c) * 16;

	check_fx(c, op, lin);
	soft_load_bytes(c, op, lin, image, sizeof image);
	if (load32(image + FX_MXCSR) & ~MXCSR_VALID)
		soft_raise_err(c, op, EXC_GP, 0);
	get_x87(c, image, op->size == 8);
	memcpy(c->s.fpu.xmm, image + FX_XMM, n);
	return set_mxcsr(c, op, load32(image + FX_MXCSR));
}

/* ---- XSAVE, XRSTOR -------------------------------------------------------- */

static void check_xsave(struct soft_cpu *c, const struct soft_op *op)
{
	if (!(c->s.cr4 & CR4_OSXSAVE))
		soft_raise(c, op, EXC_UD);
	if (c->s.cr0 & CR0_TS)
		soft_raise(c, op, EXC_NM);
}

/* Requested components: EDX:EAX and XCR0. */
static unsigned requested(const struct soft_cpu *c)
{
	return (unsigned)c->r[REG_RAX] & (unsigned)c->s.xcr0;
}

/*
 * SDM vol. 1, 13.7 to 13.10.  write: components whose data is stored; mxcsr: its
 * field too; bv and comp: the header's first two fields, comp only if compacted.
 */
struct xsave_plan {
	unsigned write;
	bool mxcsr, compact;
	uint64_t bv, comp;
};

static void do_xsave(struct soft_cpu *c, const struct soft_op *op, uint64_t lin,
		     const struct xsave_plan *p)
{
	uint8_t image[XS_HEADER], header[16];

	soft_check_write(c, op, lin, XS_SIZE + (p->write & AVX ? sizeof c->s.fpu.ymmh : 0));
	if (p->write & X87) {
		put_x87(c, image, op->size == 8);
		soft_store_bytes(c, op, lin, image, FX_MXCSR);
		soft_store_bytes(c, op, lin + FX_ST, image + FX_ST, FX_XMM - FX_ST);
	}
	if (p->mxcsr) {
		put_mxcsr(c, image);
		soft_store_bytes(c, op, lin + FX_MXCSR, image + FX_MXCSR, 8);
	}
	if (p->write & SSE)
		soft_store_bytes(c, op, lin + FX_XMM, c->s.fpu.xmm, xmm_count(c) * 16);
	if (p->write & AVX)
		soft_store_bytes(c, op, lin + XS_AVX, c->s.fpu.ymmh, xmm_count(c) * 16);
	store64(header, p->bv);
	store64(header + 8, p->comp);
	soft_store_bytes(c, op, lin + XS_HEADER, header, p->compact ? 16 : 8);
}

static uint64_t check_xsave_area(struct soft_cpu *c, const struct soft_op *op)
{
	uint64_t lin = soft_ea(c, op);

	check_xsave(c, op);
	check_aligned(c, op, lin, 64);
	return lin;
}

static const struct soft_op *xsave(struct soft_cpu *c, const struct soft_op *op, bool optimise)
{
	uint64_t lin = check_xsave_area(c, op);
	unsigned rfbm = requested(c), used = xinuse(c);
	struct xsave_plan p = {
		.write = optimise ? rfbm & used : rfbm,
		.mxcsr = rfbm & (SSE | AVX),
	};

	p.bv = (soft_load(c, op, lin + XS_HEADER, 8) & ~(uint64_t)rfbm) | (used & rfbm);
	do_xsave(c, op, lin, &p);
	return op + 1;
}

OP_FN(op_xsave)
{
	return xsave(c, op, false);
}

OP_FN(op_xsaveopt)
{
	return xsave(c, op, true);
}

OP_FN(op_xsavec)
{
	uint64_t lin = check_xsave_area(c, op);
	unsigned rfbm = requested(c), used = xinuse(c);
	struct xsave_plan p = { .compact = true };

	soft_mxcsr_sync(c);
	/* SDM vol. 1, 13.10: SSE counts as in use when MXCSR is not what it was at reset. */
	if (c->s.fpu.mxcsr != MXCSR_INIT)
		used |= SSE;
	p.bv = p.write = rfbm & used;
	p.mxcsr = p.write & SSE;
	p.comp = BIT(63) | rfbm;
	do_xsave(c, op, lin, &p);
	return op + 1;
}

/* SDM vol. 1, 13.8: what of the header must be zero. */
static bool header_ok(const struct soft_cpu *c, const uint8_t *h)
{
	uint64_t bv = load64(h), comp = load64(h + 8);

	if (!(comp & BIT(63)))
		return !(bv & ~c->s.xcr0) && zero(h + 8, 16);
	comp &= ~BIT(63);
	return !(comp & ~c->s.xcr0) && !(bv & ~comp) && zero(h + 16, 48);
}

OP_FN(op_xrstor)
{
	uint8_t image[XSAVE_AVX_END];
	const uint8_t *h = image + XS_HEADER;
	uint64_t lin = check_xsave_area(c, op);
	unsigned rfbm = requested(c), n = xmm_count(c) * 16;
	uint32_t mxcsr;
	bool compact, sets_mxcsr;
	uint64_t bv;

	soft_load_bytes(c, op, lin, image, XS_SIZE);
	bv = load64(h);
	compact = load64(h + 8) & BIT(63);
	mxcsr = load32(image + FX_MXCSR);
	if (compact && !(bv & SSE))
		mxcsr = MXCSR_INIT;
	/* 13.8.1, 13.8.2: in the standard form MXCSR belongs to AVX, too. */
	sets_mxcsr = rfbm & (compact ? SSE : SSE | AVX);
	if (!header_ok(c, h) || (sets_mxcsr && (mxcsr & ~MXCSR_VALID)))
		soft_raise_err(c, op, EXC_GP, 0);
	if (rfbm & bv & AVX)
		soft_load_bytes(c, op, lin + XS_AVX, image + XS_AVX, n);
	if (rfbm & bv & X87)
		get_x87(c, image, op->size == 8);
	else if (rfbm & X87)
		init_x87(c);
	if (rfbm & bv & SSE)
		memcpy(c->s.fpu.xmm, image + FX_XMM, n);
	else if (rfbm & SSE)
		memset(c->s.fpu.xmm, 0, n);
	if (rfbm & bv & AVX)
		memcpy(c->s.fpu.ymmh, image + XS_AVX, n);
	else if (rfbm & AVX)
		memset(c->s.fpu.ymmh, 0, n);
	if (sets_mxcsr)
		return set_mxcsr(c, op, mxcsr);
	return op + 1;
}

/* ---- XCR0, MXCSR ---------------------------------------------------------- */

OP_FN(op_xgetbv)
{
	uint32_t n = R32(c, SLOT(REG_RCX)), leaf[4];
	uint64_t v = c->s.xcr0;

	if (!(c->s.cr4 & CR4_OSXSAVE))
		soft_raise(c, op, EXC_UD);
	soft_cpuid(c, 0xd, 1, leaf);
	if (n == 1 && (leaf[0] & CPUID_XGETBV1))
		v &= xinuse(c);
	else if (n)
		soft_raise_err(c, op, EXC_GP, 0);
	W32(c, SLOT(REG_RAX), v);
	W32(c, SLOT(REG_RDX), v >> 32);
	return op + 1;
}

bool soft_xcr0_ok(const struct soft_cpu *c, uint64_t v)
{
	return v & XCR0_X87 && !(v & ~c->model->xcr0) && (!(v & XCR0_AVX) || v & XCR0_SSE);
}

OP_FN(op_xsetbv)
{
	uint64_t v = R32(c, SLOT(REG_RAX)) | (uint64_t)R32(c, SLOT(REG_RDX)) << 32;

	if (!(c->s.cr4 & CR4_OSXSAVE))
		soft_raise(c, op, EXC_UD);
	if (c->cpl || R32(c, SLOT(REG_RCX)) || !soft_xcr0_ok(c, v))
		soft_raise_err(c, op, EXC_GP, 0);
	c->s.xcr0 = v;
	soft_update_mode(c);
	return soft_leave(c, op, soft_next_rip(c, op));
}

/* op->imm: the VEX form, whose checks have been made. */
static void check_mxcsr(struct soft_cpu *c, const struct soft_op *op)
{
	if (op->imm)
		return;
	if ((c->s.cr0 & CR0_EM) || !(c->s.cr4 & CR4_OSFXSR))
		soft_raise(c, op, EXC_UD);
	if (c->s.cr0 & CR0_TS)
		soft_raise(c, op, EXC_NM);
}

OP_FN(op_ldmxcsr)
{
	uint32_t v;

	check_mxcsr(c, op);
	v = soft_ld32(c, op, soft_ea(c, op));
	if (v & ~MXCSR_VALID)
		soft_raise_err(c, op, EXC_GP, 0);
	return set_mxcsr(c, op, v);
}

OP_FN(op_stmxcsr)
{
	check_mxcsr(c, op);
	soft_mxcsr_sync(c);
	soft_st32(c, op, soft_ea(c, op), c->s.fpu.mxcsr);
	return op + 1;
}

bool simd_decode_state(struct soft_decode *d, struct soft_op *op)
{
	op->size = 4;
	switch (d->insn->mnemonic) {
	case ZYDIS_MNEMONIC_FXSAVE64:
		op->size = 8;
		op->fn = op_fxsave;
		return true;
	case ZYDIS_MNEMONIC_FXSAVE:
		op->fn = op_fxsave;
		return true;
	case ZYDIS_MNEMONIC_FXRSTOR64:
		op->size = 8;
		op->fn = op_fxrstor;
		return true;
	case ZYDIS_MNEMONIC_FXRSTOR:
		op->fn = op_fxrstor;
		return true;
	case ZYDIS_MNEMONIC_XSAVE64:
		op->size = 8;
		op->fn = op_xsave;
		return true;
	case ZYDIS_MNEMONIC_XSAVE:
		op->fn = op_xsave;
		return true;
	case ZYDIS_MNEMONIC_XSAVEOPT64:
		op->size = 8;
		op->fn = op_xsaveopt;
		return true;
	case ZYDIS_MNEMONIC_XSAVEOPT:
		op->fn = op_xsaveopt;
		return true;
	case ZYDIS_MNEMONIC_XSAVEC64:
		op->size = 8;
		op->fn = op_xsavec;
		return true;
	case ZYDIS_MNEMONIC_XSAVEC:
		op->fn = op_xsavec;
		return true;
	case ZYDIS_MNEMONIC_XRSTOR64:
		op->size = 8;
		op->fn = op_xrstor;
		return true;
	case ZYDIS_MNEMONIC_XRSTOR:
		op->fn = op_xrstor;
		return true;
	case ZYDIS_MNEMONIC_XGETBV:
		op->fn = op_xgetbv;
		return true;
	case ZYDIS_MNEMONIC_XSETBV:
		op->fn = op_xsetbv;
		d->ends_block = true;
		return true;
	case ZYDIS_MNEMONIC_LDMXCSR:
		op->fn = op_ldmxcsr;
		return true;
	case ZYDIS_MNEMONIC_STMXCSR:
		op->fn = op_stmxcsr;
		return true;
	default:
		return false;
	}
}
