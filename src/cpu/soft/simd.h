/*
 * What the SSE and MMX files share.
 *
 * Register operands of these ops (dst, src) are byte offsets: number times 16,
 * into s.fpu.xmm for XMM, into s.fpu.st for MMX (MMn is physical register n).
 * General registers are slots as everywhere.
 *
 * Handlers run the host's own instruction on values taken from and put back
 * into the state; the host's MXCSR holds the guest's control bits meanwhile.
 */
#ifndef SKEP_CPU_SOFT_SIMD_H
#define SKEP_CPU_SOFT_SIMD_H

#include "cpu/soft/decode.h"
#include "cpu/soft/exec.h"

typedef long long v2di __attribute__((vector_size(16), may_alias));
typedef long long v2di_u __attribute__((vector_size(16), may_alias, aligned(1)));

/* Operand bytes of a host instruction's memory operand. */
typedef struct { uint8_t b[2]; } __attribute__((may_alias)) simd_m2;
typedef struct { uint8_t b[4]; } __attribute__((may_alias)) simd_m4;
typedef struct { uint8_t b[8]; } __attribute__((may_alias)) simd_m8;
typedef v2di simd_m16;
typedef v2di_u simd_m16u;

#define XMM(c, off) (*(v2di *)((char *)(c)->s.fpu.xmm + (off)))
typedef uint64_t u64a __attribute__((may_alias));
typedef uint32_t u32a __attribute__((may_alias));
typedef uint16_t u16a __attribute__((may_alias));
#define YMMH(c, off) (*(v2di *)((char *)(c)->s.fpu.ymmh + (off)))	/* bits 255:128 */
#define XQ(c, off, i) (((u64a *)((char *)(c)->s.fpu.xmm + (off)))[i])
#define XD(c, off, i) (((u32a *)((char *)(c)->s.fpu.xmm + (off)))[i])
#define XW(c, off, i) (((u16a *)((char *)(c)->s.fpu.xmm + (off)))[i])
#define XB(c, off, i) (((uint8_t *)((char *)(c)->s.fpu.xmm + (off)))[i])

#define MMX(c, off) (*(u64a *)((char *)(c)->s.fpu.st + (off)))

/* Loads what the fast path could not into c->fp_tmp; raises what the load raises. */
const void *simd_load_slow(struct soft_cpu *c, const struct soft_op *op, uint64_t lin,
			   unsigned size);
/* Raises #GP(0). */
const struct soft_op *simd_misaligned(struct soft_cpu *c, const struct soft_op *op);

/* A readable copy or the place itself of a memory operand (cold code). */
static inline const void *simd_src(struct soft_cpu *c, const struct soft_op *op, unsigned size)
{
	uint64_t lin = soft_ea(c, op);
	const void *p = soft_host_read(c, lin, size);

	return likely(p != NULL) ? p : simd_load_slow(c, op, lin, size);
}

/* 16-byte operands of legacy SSE have to be aligned: #GP(0) (SDM vol. 1, 4.1.1). */
#define SIMD_MUST_ALIGN_2	0
#define SIMD_MUST_ALIGN_4	0
#define SIMD_MUST_ALIGN_8	0
#define SIMD_MUST_ALIGN_16	15
#define SIMD_MUST_ALIGN_16u	0
#define SIMD_BYTES_2		2
#define SIMD_BYTES_4		4
#define SIMD_BYTES_8		8
#define SIMD_BYTES_16		16
#define SIMD_BYTES_16u		16

#define OP_FN(name) const struct soft_op *name(struct soft_cpu *c, const struct soft_op *op)

/*
 * A handler with a memory operand of `size` bytes, at `s` for its body, which
 * ends with NEXT.  The body stands twice, so that the common way has no call
 * in it and needs no stack frame.
 */
#define SIMD_RM(name, size, ...) SIMD_RM_LINKAGE(, name, size, __VA_ARGS__)
#define SIMD_RM_STATIC(name, size, ...) SIMD_RM_LINKAGE(static, name, size, __VA_ARGS__)
#define SIMD_RM_LINKAGE(linkage, name, size, ...)				\
static __attribute__((noinline, cold)) OP_FN(name##_slow)			\
{										\
	const simd_m##size *s = simd_load_slow(c, op, soft_ea(c, op), SIMD_BYTES_##size); \
	__VA_ARGS__								\
}										\
SIMD_HOT(linkage, name, name##_slow, size, soft_ea, __VA_ARGS__)		\
SIMD_HOT(static, name##_b, name##_slow, size, soft_ea_base, __VA_ARGS__)	\
EXEC_PAIR(name);
#define SIMD_HOT(linkage, name, slow, size, ea, ...)				\
linkage OP_FN(name)								\
{										\
	uint64_t lin_ = ea(c, op);						\
	const struct tlb_entry *t_ = TLB_ENTRY(c, lin_);			\
	const simd_m##size *s;							\
										\
	if (unlikely(lin_ & SIMD_MUST_ALIGN_##size))				\
		return simd_misaligned(c, op);					\
	if (unlikely(lin_ - t_->rtag > 4096 - SIMD_BYTES_##size))		\
		return slow(c, op);						\
	s = (const simd_m##size *)(lin_ + t_->addend);				\
	__VA_ARGS__								\
}

/*
 * The host puts a result's flags where the guest keeps them.  Every instruction
 * that uses it clears or sets all six.
 */
#define SIMD_SET_CC(c, insn, a, b)						\
	do {									\
		uint16_t cc_;							\
		asm volatile(insn "\n\tlahf\n\tseto %%al"			\
			     : "=a"(cc_) : "x"(a), "x"(b) : "cc");		\
		(c)->cc = cc_;							\
	} while (0)

#define FSW_ES 0x0080

/* x87.h says more; MMX needs these two. */
const struct soft_op *x87_pending(struct soft_cpu *c, const struct soft_op *op);

/* Entering MMX: TOP = 0, every register valid (SDM vol. 1, 9.5.1). */
static inline void mmx_enter(struct soft_cpu *c)
{
	c->s.fpu.fsw &= (uint16_t)~0x3800;
	c->s.fpu.ftw = 0xff;
}

static inline void mmx_write(struct soft_cpu *c, uint8_t off, uint64_t v)
{
	char *r = (char *)c->s.fpu.st + off;

	store64(r, v);
	store16(r + 8, 0xffff);
}

static inline v2di mmx_vec(uint64_t v)
{
	return (v2di){ (long long)v, 0 };
}

static inline uint64_t simd_low(v2di v)
{
	return (uint64_t)v[0];
}

#define MMX_GUARD(c, op)							\
	do {									\
		if (unlikely((c)->s.fpu.fsw & FSW_ES))				\
			return x87_pending(c, op);				\
	} while (0)

/* ---- The decoder's table -------------------------------------------------- */

/* How unmasked exceptions are watched for: where the result goes and of which elements it is. */
enum { FPD_NONE, FPD_XMM, FPD_GPR, FPD_MMX, FPD_CC };
enum { FPE_NONE, FPE_SS, FPE_SD, FPE_PS, FPE_PD, FPE_PS2 };
#define FP(dest, elem) ((dest) << 4 | (elem))

#define SIMD_MNEMONIC(m) ZYDIS_MNEMONIC_##m

struct simd_entry {
	op_fn *rr, *rm;		/* XMM, XMM or memory */
	op_fn *mrr, *mrm;	/* MM, MM or memory */
	uint8_t fp;		/* FP(): raises SIMD floating-point exceptions */
};

/* Mnemonics that are more than a table's line: decode_simd_special.c. */
bool simd_decode_special(struct soft_decode *d, struct soft_op *op, uint8_t *fp);

/* MASKMOVDQU and its kin, whose address no operand names. */
bool simd_mask_move(struct soft_decode *d, struct soft_op *op, op_fn *fn);

/* FXSAVE, XSAVE and their kin, MXCSR (fxstate.c); complete, with their own checks. */
bool simd_decode_state(struct soft_decode *d, struct soft_op *op);

uint8_t simd_xmm(const ZydisDecodedOperand *o);
uint8_t simd_mm(const ZydisDecodedOperand *o);
bool simd_is_mm(const ZydisDecodedOperand *o);
bool simd_is_xmm(const ZydisDecodedOperand *o);

/* ---- MXCSR ---------------------------------------------------------------- */

#define MX_IE		0x0001u
#define MX_DE		0x0002u
#define MX_ZE		0x0004u
#define MX_OE		0x0008u
#define MX_UE		0x0010u
#define MX_PE		0x0020u
#define MX_FLAGS	0x003fu
#define MX_DAZ		0x0040u
#define MX_MASKS	0x1f80u
#define MX_FTZ		0x8000u
#define MX_CONTROL	0xe040u		/* FTZ, rounding, DAZ */

static inline uint32_t simd_host_mxcsr(void)
{
	uint32_t v;

	asm volatile("stmxcsr %0" : "=m"(v));
	return v;
}

static inline void simd_set_host_mxcsr(uint32_t v)
{
	asm volatile("ldmxcsr %0" : : "m"(v));
}

/*
 * MODE_FPSTRICT (simd_strict.c): puts the ops that watch for unmasked exceptions
 * around an instruction, fp being its FP().
 */
void simd_watch(struct soft_decode *d, struct soft_op *op, uint8_t fp);

#endif
