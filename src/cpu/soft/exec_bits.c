/* Shifts, bits, multiplication and division, decimal adjustment, single flags. */
#include "cpu/soft/exec.h"

typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;
typedef int8_t s8;
typedef int16_t s16;
typedef int32_t s32;
typedef int64_t s64;

#define SET8(c, off, v)		(R8(c, off) = (u8)(v))
#define SET16(c, off, v)	(R16(c, off) = (u16)(v))
#define SET32(c, off, v)	W32(c, off, v)
#define SET64(c, off, v)	(R64(c, off) = (u64)(v))

/* ---- Shifts and rotates ------------------------------------------------- */

/*
 * The host gets the guest's flags first, so what an operation leaves alone stays.  OF is undefined
 * after more than one step of ROL and ROR: by a constant it stays, by CL it is what the host makes of it.
 */
#define SHIFT(name, insn, bits, sfx, keeps_of)							\
static inline u##bits name##bits(u##bits d, u8 count, u32 *f)				\
{											\
	__asm__(FLAGS_IN insn sfx " %%cl, %0" FLAGS_OUT					\
		: "+q"(d), "+a"(*f) : "c"(count) : "cc");				\
	return d;									\
}											\
SHIFT_FORM(name, bits, i, (u8)op->imm, keeps_of)					\
SHIFT_FORM(name, bits, c, R8(c, SLOT(REG_RCX)), false)
#define OF_KEPT(f, c, count, bits, keeps_of)						\
	((keeps_of) && ((count) & (bits == 64 ? 63 : 31)) != 1				\
	 ? ((f) & ~(u32)CC_OF) | ((c)->cc & CC_OF) : (f))
#define SHIFT_FORM(name, bits, form, count, keeps_of)					\
static const struct soft_op *name##bits##_r##form(struct soft_cpu *c, const struct soft_op *op) \
{											\
	u32 f = c->cc;									\
	SET##bits(c, op->dst, name##bits(R##bits(c, op->dst), count, &f));		\
	c->cc = (u16)OF_KEPT(f, c, count, bits, keeps_of);				\
	NEXT(c, op);									\
}											\
static const struct soft_op *name##bits##_m##form(struct soft_cpu *c, const struct soft_op *op) \
{											\
	u64 lin = soft_ea(c, op);							\
	u##bits *p = soft_rmw(c, op, lin, sizeof *p), d;				\
	u32 f = c->cc;									\
	if (likely(p))									\
		memcpy(&d, p, sizeof d);						\
	else										\
		d = soft_ld##bits(c, op, lin);						\
	d = name##bits(d, count, &f);							\
	if (likely(p))									\
		memcpy(p, &d, sizeof d);						\
	else										\
		soft_st##bits(c, op, lin, d);						\
	c->cc = (u16)OF_KEPT(f, c, count, bits, keeps_of);				\
	return op + 1;									\
}
#define SHIFT_ALL(name, insn, keeps_of) \
	SHIFT(name, insn, 8, "b", keeps_of) SHIFT(name, insn, 16, "w", keeps_of) \
	SHIFT(name, insn, 32, "l", keeps_of) SHIFT(name, insn, 64, "q", keeps_of)
SHIFT_ALL(rol, "rol", true) SHIFT_ALL(ror, "ror", true)
SHIFT_ALL(rcl, "rcl", false) SHIFT_ALL(rcr, "rcr", false)
SHIFT_ALL(shl, "shl", false) SHIFT_ALL(shr, "shr", false) SHIFT_ALL(sar, "sar", false)

#define SHIFT_FLAGLESS(name, bits, type, operator)					\
static const struct soft_op *name##bits##_ri_nf(struct soft_cpu *c, const struct soft_op *op) \
{											\
	type d = (type)R##bits(c, op->dst);						\
	SET##bits(c, op->dst, d operator (op->imm & (bits - 1)));			\
	NEXT(c, op);									\
}											\
EXEC_FLAGLESS(name##bits##_ri);
SHIFT_FLAGLESS(shl, 32, u32, <<) SHIFT_FLAGLESS(shl, 64, u64, <<)
SHIFT_FLAGLESS(shr, 32, u32, >>) SHIFT_FLAGLESS(shr, 64, u64, >>)
SHIFT_FLAGLESS(sar, 32, s32, >>) SHIFT_FLAGLESS(sar, 64, s64, >>)

#define SIZES(name, form) { name##8_##form, name##16_##form, name##32_##form, name##64_##form }
#define SHIFT_ROW(n) { [SFORM_RI] = SIZES(n, ri), [SFORM_RC] = SIZES(n, rc), \
		       [SFORM_MI] = SIZES(n, mi), [SFORM_MC] = SIZES(n, mc) }
op_fn *const exec_shift[SHIFT_OPS][SFORMS][4] = {
	[SHIFT_ROL] = SHIFT_ROW(rol), [SHIFT_ROR] = SHIFT_ROW(ror), [SHIFT_RCL] = SHIFT_ROW(rcl),
	[SHIFT_RCR] = SHIFT_ROW(rcr), [SHIFT_SHL] = SHIFT_ROW(shl), [SHIFT_SHR] = SHIFT_ROW(shr),
	[SHIFT_SAR] = SHIFT_ROW(sar),
};

/* SHLD and SHRD: src is the register whose bits come in. */
#define SHIFTD(name, insn, bits, sfx)							\
static inline u##bits name##bits(u##bits d, u##bits s, u8 count, u32 *f)		\
{											\
	__asm__(FLAGS_IN insn sfx " %%cl, %2, %0" FLAGS_OUT				\
		: "+r"(d), "+a"(*f) : "r"(s), "c"(count) : "cc");			\
	return d;									\
}											\
SHIFTD_FORM(name, bits, i, (u8)op->imm)							\
SHIFTD_FORM(name, bits, c, R8(c, SLOT(REG_RCX)))
#define SHIFTD_FORM(name, bits, form, count)						\
static const struct soft_op *name##bits##_r##form(struct soft_cpu *c, const struct soft_op *op) \
{											\
	u32 f = c->cc;									\
	u##bits d = name##bits(R##bits(c, op->dst), R##bits(c, op->src), count, &f);	\
	SET##bits(c, op->dst, d);							\
	c->cc = (u16)f;									\
	NEXT(c, op);									\
}											\
static const struct soft_op *name##bits##_m##form(struct soft_cpu *c, const struct soft_op *op) \
{											\
	u64 lin = soft_ea(c, op);							\
	u32 f = c->cc;									\
	u##bits d;									\
	soft_rmw(c, op, lin, sizeof d);							\
	d = name##bits(soft_ld##bits(c, op, lin), R##bits(c, op->src), count, &f);	\
	soft_st##bits(c, op, lin, d);							\
	c->cc = (u16)f;									\
	return op + 1;									\
}
SHIFTD(shld, "shld", 16, "w") SHIFTD(shld, "shld", 32, "l") SHIFTD(shld, "shld", 64, "q")
SHIFTD(shrd, "shrd", 16, "w") SHIFTD(shrd, "shrd", 32, "l") SHIFTD(shrd, "shrd", 64, "q")
#define WIDE(name, form) { name##16_##form, name##32_##form, name##64_##form }
#define SHIFTD_ROW(n) { [SFORM_RI] = WIDE(n, ri), [SFORM_RC] = WIDE(n, rc), \
			[SFORM_MI] = WIDE(n, mi), [SFORM_MC] = WIDE(n, mc) }
op_fn *const exec_shiftd[2][SFORMS][3] = { SHIFTD_ROW(shld), SHIFTD_ROW(shrd) };

/* ---- Bit tests ---------------------------------------------------------- */

/*
 * Only CF changes.  With a register index the memory operand is a bit string:
 * the index reaches beyond the operand, in whole operands, signed.
 */
static inline void set_cf(struct soft_cpu *c, bool on)
{
	c->cc = on ? c->cc | CC_CF : c->cc & (u16)~CC_CF;
}

#define BIT_CHANGE_bt(d, m)	(d)
#define BIT_CHANGE_bts(d, m)	((d) | (m))
#define BIT_CHANGE_btr(d, m)	((d) & ~(m))
#define BIT_CHANGE_btc(d, m)	((d) ^ (m))
#define BIT_ATOMIC_bt(p, m)	__atomic_load_n(p, __ATOMIC_SEQ_CST)
#define BIT_ATOMIC_bts(p, m)	__atomic_fetch_or(p, m, __ATOMIC_SEQ_CST)
#define BIT_ATOMIC_btr(p, m)	__atomic_fetch_and(p, (__typeof__(m))~(m), __ATOMIC_SEQ_CST)
#define BIT_ATOMIC_btc(p, m)	__atomic_fetch_xor(p, m, __ATOMIC_SEQ_CST)

#define BIT_SIZE(name, writes, bits)							\
static const struct soft_op *name##bits##_rr(struct soft_cpu *c, const struct soft_op *op) \
{											\
	u##bits d = R##bits(c, op->dst);						\
	u##bits m = (u##bits)((u##bits)1 << (R##bits(c, op->src) & (bits - 1)));	\
	set_cf(c, d & m);								\
	if (writes)									\
		SET##bits(c, op->dst, BIT_CHANGE_##name(d, m));				\
	NEXT(c, op);									\
}											\
static const struct soft_op *name##bits##_ri(struct soft_cpu *c, const struct soft_op *op) \
{											\
	u##bits d = R##bits(c, op->dst);						\
	u##bits m = (u##bits)((u##bits)1 << (op->imm & (bits - 1)));			\
	set_cf(c, d & m);								\
	if (writes)									\
		SET##bits(c, op->dst, BIT_CHANGE_##name(d, m));				\
	NEXT(c, op);									\
}											\
static inline const struct soft_op *name##bits##_mem(struct soft_cpu *c, const struct soft_op *op, \
						     u64 lin, u##bits m)		\
{											\
	u##bits *p, d;									\
	if (!(writes)) {								\
		set_cf(c, soft_ld##bits(c, op, lin) & m);				\
		return op + 1;								\
	}										\
	p = soft_rmw(c, op, lin, sizeof *p);						\
	if (p && (!(op->flags & OPF_LOCK) || (lin & 63) + sizeof *p <= 64)) {		\
		if (op->flags & OPF_LOCK) {						\
			d = BIT_ATOMIC_##name(p, m);					\
		} else {								\
			memcpy(&d, p, sizeof d);					\
			u##bits n = BIT_CHANGE_##name(d, m);				\
			memcpy(p, &n, sizeof n);					\
		}									\
	} else {									\
		if (op->flags & OPF_LOCK)						\
			soft_exclusive(c, op, lin, sizeof *p);				\
		d = soft_ld##bits(c, op, lin);						\
		soft_st##bits(c, op, lin, BIT_CHANGE_##name(d, m));			\
	}										\
	set_cf(c, d & m);								\
	return op + 1;									\
}											\
static const struct soft_op *name##bits##_mr(struct soft_cpu *c, const struct soft_op *op) \
{											\
	s##bits index = (s##bits)R##bits(c, op->src);					\
	u64 lin = soft_ea(c, op);							\
	if (!(op->flags & (OPF_ADDR32 | OPF_ADDR16)))	/* else op_ea_bits has done it */ \
		lin += (u64)((s64)(index >> __builtin_ctz(bits)) * (bits / 8));		\
	return name##bits##_mem(c, op, lin, (u##bits)((u##bits)1 << (index & (bits - 1)))); \
}											\
static const struct soft_op *name##bits##_mi(struct soft_cpu *c, const struct soft_op *op) \
{											\
	return name##bits##_mem(c, op, soft_ea(c, op),					\
				(u##bits)((u##bits)1 << (op->imm & (bits - 1))));	\
}
#define BIT_ALL(name, writes) BIT_SIZE(name, writes, 16) BIT_SIZE(name, writes, 32) \
			      BIT_SIZE(name, writes, 64)
BIT_ALL(bt, false) BIT_ALL(bts, true) BIT_ALL(btr, true) BIT_ALL(btc, true)
#define BIT_FORM(n, form) { NULL, n##16_##form, n##32_##form, n##64_##form }
#define BIT_ROW(n) { [FORM_RR] = BIT_FORM(n, rr), [FORM_RI] = BIT_FORM(n, ri), \
		     [FORM_MR] = BIT_FORM(n, mr), [FORM_MI] = BIT_FORM(n, mi) }
op_fn *const exec_bit[BIT_OPS][FORMS][4] = {
	[BIT_BT] = BIT_ROW(bt), [BIT_BTS] = BIT_ROW(bts),
	[BIT_BTR] = BIT_ROW(btr), [BIT_BTC] = BIT_ROW(btc),
};

/* The register and the memory form of NAME(c, op, source). */
#define SOURCE_FORMS(name, bits)							\
static const struct soft_op *name##bits##_r(struct soft_cpu *c, const struct soft_op *op) \
{											\
	return name##bits(c, op, R##bits(c, op->src));					\
}											\
static const struct soft_op *name##bits##_m(struct soft_cpu *c, const struct soft_op *op) \
{											\
	return name##bits(c, op, soft_ld##bits(c, op, soft_ea(c, op)));			\
}

/* BSF and BSR leave the destination alone when the source is 0. */
#define SCAN(name, insn, bits, sfx)							\
static inline const struct soft_op *name##bits(struct soft_cpu *c, const struct soft_op *op, \
					       u##bits s)				\
{											\
	u##bits d = R##bits(c, op->dst);						\
	u32 f = c->cc;									\
	__asm__(FLAGS_IN insn sfx " %2, %0" FLAGS_OUT : "+r"(d), "+a"(f) : "r"(s) : "cc"); \
	if (s)										\
		SET##bits(c, op->dst, d);						\
	c->cc = (u16)f;									\
	NEXT(c, op);									\
}											\
SOURCE_FORMS(name, bits)
SCAN(bsf, "bsf", 16, "w") SCAN(bsf, "bsf", 32, "l") SCAN(bsf, "bsf", 64, "q")
SCAN(bsr, "bsr", 16, "w") SCAN(bsr, "bsr", 32, "l") SCAN(bsr, "bsr", 64, "q")
op_fn *const exec_bsf[2][2][3] = {
	{ WIDE(bsf, r), WIDE(bsf, m) }, { WIDE(bsr, r), WIDE(bsr, m) },
};

/* POPCNT clears every flag but ZF. */
#define POPCNT(bits)									\
static inline const struct soft_op *popcnt##bits(struct soft_cpu *c, const struct soft_op *op, \
						 u##bits s)				\
{											\
	SET##bits(c, op->dst, (u##bits)__builtin_popcountll(s));			\
	c->cc = CC_ONE | (s ? 0 : CC_ZF);						\
	NEXT(c, op);									\
}											\
SOURCE_FORMS(popcnt, bits)
POPCNT(16) POPCNT(32) POPCNT(64)
op_fn *const exec_popcnt[2][3] = { WIDE(popcnt, r), WIDE(popcnt, m) };

/* LZCNT and TZCNT set ZF and CF; what they leave undefined may be what it was. */
#define COUNT_ZEROS(name, bits)								\
static inline const struct soft_op *name##bits(struct soft_cpu *c, const struct soft_op *op, \
					       u##bits s)				\
{											\
	u##bits v;									\
	u16 cc = c->cc;									\
	__asm__(FLAGS_IN #name " %2, %1" FLAGS_OUT : "+a"(cc), "=&r"(v) : "r"(s) : "cc");	\
	SET##bits(c, op->dst, v);							\
	c->cc = cc;									\
	NEXT(c, op);									\
}											\
SOURCE_FORMS(name, bits)
COUNT_ZEROS(lzcnt, 16) COUNT_ZEROS(lzcnt, 32) COUNT_ZEROS(lzcnt, 64)
COUNT_ZEROS(tzcnt, 16) COUNT_ZEROS(tzcnt, 32) COUNT_ZEROS(tzcnt, 64)
op_fn *const exec_lzcnt[2][3] = { WIDE(lzcnt, r), WIDE(lzcnt, m) };
op_fn *const exec_tzcnt[2][3] = { WIDE(tzcnt, r), WIDE(tzcnt, m) };

/* CRC32: size of the source; the destination is 32 bits, zero-extended. */
static u32 crc32c(u32 crc, u64 v, unsigned bytes)
{
	/* The host announces SSE4.2 (psABI x86-64-v2 is required of it). */
	for (; bytes; bytes--, v >>= 8)
		__asm__("crc32b %b1, %0" : "+r"(crc) : "q"(v));
	return crc;
}
#define CRC32(bits)									\
static const struct soft_op *crc32_##bits##_r(struct soft_cpu *c, const struct soft_op *op) \
{											\
	W32(c, op->dst, crc32c(R32(c, op->dst), R##bits(c, op->src), bits / 8));	\
	NEXT(c, op);									\
}											\
static const struct soft_op *crc32_##bits##_m(struct soft_cpu *c, const struct soft_op *op) \
{											\
	u##bits v = soft_ld##bits(c, op, soft_ea(c, op));				\
	W32(c, op->dst, crc32c(R32(c, op->dst), v, bits / 8));				\
	NEXT(c, op);									\
}
CRC32(8) CRC32(16) CRC32(32) CRC32(64)
op_fn *const exec_crc32[2][4] = {
	{ crc32_8_r, crc32_16_r, crc32_32_r, crc32_64_r },
	{ crc32_8_m, crc32_16_m, crc32_32_m, crc32_64_m },
};

/* ---- Multiplication and division ---------------------------------------- */

/* The wide result goes to AX, or DX:AX and its wider forms. */
static inline void set_ax8(struct soft_cpu *c, u16 v) { R16(c, SLOT(REG_RAX)) = v; }

#define WIDE_MUL(name, insn, bits, sfx)							\
static inline const struct soft_op *name##bits(struct soft_cpu *c, const struct soft_op *op, \
					       u##bits s)				\
{											\
	u64 a = c->r[REG_RAX], d = c->r[REG_RDX], f;					\
	__asm__(insn sfx " %3\n\tmov %%rax, %2\n\tlahf\n\tseto %%al\n\txchg %%rax, %2"	\
		: "+a"(a), "+d"(d), "=&r"(f) : "r"(s) : "cc");				\
	if (bits == 8) {								\
		set_ax8(c, (u16)a);							\
	} else {									\
		SET##bits(c, SLOT(REG_RAX), a);						\
		SET##bits(c, SLOT(REG_RDX), d);						\
	}										\
	c->cc = (u16)f;									\
	NEXT(c, op);									\
}											\
static const struct soft_op *name##bits##_r(struct soft_cpu *c, const struct soft_op *op) \
{											\
	return name##bits(c, op, R##bits(c, op->dst));					\
}											\
static const struct soft_op *name##bits##_m(struct soft_cpu *c, const struct soft_op *op) \
{											\
	return name##bits(c, op, soft_ld##bits(c, op, soft_ea(c, op)));			\
}
WIDE_MUL(mul, "mul", 8, "b") WIDE_MUL(mul, "mul", 16, "w")
WIDE_MUL(mul, "mul", 32, "l") WIDE_MUL(mul, "mul", 64, "q")
WIDE_MUL(imul, "imul", 8, "b") WIDE_MUL(imul, "imul", 16, "w")
WIDE_MUL(imul, "imul", 32, "l") WIDE_MUL(imul, "imul", 64, "q")

/*
 * Division.  #DE is decided before the host divides; flags are left alone,
 * which is one of the things that "undefined" allows.
 */
#define UDIV(bits, wide)								\
static inline const struct soft_op *div##bits(struct soft_cpu *c, const struct soft_op *op, \
					      u##bits s)				\
{											\
	wide n = (wide)R##bits(c, SLOT(REG_RDX)) << bits | R##bits(c, SLOT(REG_RAX));	\
	if (!s || (u##bits)(n >> bits) >= s)						\
		soft_raise(c, op, EXC_DE);						\
	SET##bits(c, SLOT(REG_RAX), n / s);						\
	SET##bits(c, SLOT(REG_RDX), n % s);						\
	NEXT(c, op);									\
}
/* The magnitude of the quotient must fit; -2^(bits-1) does. */
#define SDIV(bits, uwide, swide)							\
static inline const struct soft_op *idiv##bits(struct soft_cpu *c, const struct soft_op *op, \
					       u##bits s)				\
{											\
	swide n = (swide)((uwide)R##bits(c, SLOT(REG_RDX)) << bits | R##bits(c, SLOT(REG_RAX))); \
	swide by = (s##bits)s;								\
	uwide an = n < 0 ? -(uwide)n : (uwide)n, ab = by < 0 ? -(uwide)by : (uwide)by;	\
	uwide q = ab ? an / ab : 0, limit = (uwide)1 << (bits - 1);			\
	bool negative = (n < 0) != (by < 0);						\
	if (!ab || (negative ? q > limit : q >= limit))					\
		soft_raise(c, op, EXC_DE);						\
	SET##bits(c, SLOT(REG_RAX), negative ? -(u##bits)q : (u##bits)q);		\
	an %= ab;									\
	SET##bits(c, SLOT(REG_RDX), n < 0 ? -(u##bits)an : (u##bits)an);		\
	NEXT(c, op);									\
}
UDIV(16, u32) UDIV(32, u64)
SDIV(16, u32, s32) SDIV(32, u64, s64)

static inline const struct soft_op *div64(struct soft_cpu *c, const struct soft_op *op, u64 s)
{
	u64 a = c->r[REG_RAX], d = c->r[REG_RDX];

	if (!s || d >= s)
		soft_raise(c, op, EXC_DE);
	__asm__("divq %2" : "+a"(a), "+d"(d) : "r"(s) : "cc");
	c->r[REG_RAX] = a;
	c->r[REG_RDX] = d;
	NEXT(c, op);
}

static inline const struct soft_op *idiv64(struct soft_cpu *c, const struct soft_op *op, u64 s)
{
	__int128 n = (__int128)((unsigned __int128)c->r[REG_RDX] << 64 | c->r[REG_RAX]);
	__int128 q;

	/* The one quotient that overflows 128 bits is far out of range anyway. */
	if (!s || (s == UINT64_MAX && n == (__int128)((unsigned __int128)1 << 127)))
		soft_raise(c, op, EXC_DE);
	q = n / (s64)s;
	if (q != (s64)q)
		soft_raise(c, op, EXC_DE);
	c->r[REG_RAX] = (u64)q;
	c->r[REG_RDX] = (u64)(n % (s64)s);
	NEXT(c, op);
}

static inline const struct soft_op *div8(struct soft_cpu *c, const struct soft_op *op, u8 s)
{
	u16 n = R16(c, SLOT(REG_RAX));

	if (!s || n / s > 0xff)
		soft_raise(c, op, EXC_DE);
	set_ax8(c, (u16)((n % s) << 8 | n / s));
	NEXT(c, op);
}

static inline const struct soft_op *idiv8(struct soft_cpu *c, const struct soft_op *op, u8 s)
{
	int n = (s16)R16(c, SLOT(REG_RAX)), by = (s8)s;

	if (!by || n / by > 127 || n / by < -128)
		soft_raise(c, op, EXC_DE);
	set_ax8(c, (u16)((u8)(n % by) << 8 | (u8)(n / by)));
	NEXT(c, op);
}

#define DIV_FORMS(name, bits)								\
static const struct soft_op *name##bits##_r(struct soft_cpu *c, const struct soft_op *op) \
{											\
	return name##bits(c, op, R##bits(c, op->dst));					\
}											\
static const struct soft_op *name##bits##_m(struct soft_cpu *c, const struct soft_op *op) \
{											\
	return name##bits(c, op, soft_ld##bits(c, op, soft_ea(c, op)));			\
}
DIV_FORMS(div, 8) DIV_FORMS(div, 16) DIV_FORMS(div, 32) DIV_FORMS(div, 64)
DIV_FORMS(idiv, 8) DIV_FORMS(idiv, 16) DIV_FORMS(idiv, 32) DIV_FORMS(idiv, 64)
#define MUL_ROW(n) { SIZES(n, r), SIZES(n, m) }
op_fn *const exec_mul[MUL_OPS][2][4] = {
	[MUL_MUL] = MUL_ROW(mul), [MUL_IMUL] = MUL_ROW(imul),
	[MUL_DIV] = MUL_ROW(div), [MUL_IDIV] = MUL_ROW(idiv),
};

#define IMUL(bits, sfx)									\
static inline const struct soft_op *imul_to##bits(struct soft_cpu *c, const struct soft_op *op, \
						  u##bits a, u##bits b)			\
{											\
	u32 f;										\
	__asm__("imul" sfx " %2, %0" FLAGS_OUT : "+r"(a), "=&a"(f) : "r"(b) : "cc");	\
	SET##bits(c, op->dst, a);							\
	c->cc = (u16)f;									\
	NEXT(c, op);									\
}											\
static const struct soft_op *imul2_##bits##_r(struct soft_cpu *c, const struct soft_op *op) \
{											\
	return imul_to##bits(c, op, R##bits(c, op->dst), R##bits(c, op->src));		\
}											\
static const struct soft_op *imul2_##bits##_m(struct soft_cpu *c, const struct soft_op *op) \
{											\
	return imul_to##bits(c, op, R##bits(c, op->dst), soft_ld##bits(c, op, soft_ea(c, op))); \
}											\
static const struct soft_op *imul3_##bits##_r(struct soft_cpu *c, const struct soft_op *op) \
{											\
	return imul_to##bits(c, op, R##bits(c, op->src), (u##bits)op->imm);		\
}											\
static const struct soft_op *imul3_##bits##_m(struct soft_cpu *c, const struct soft_op *op) \
{											\
	return imul_to##bits(c, op, soft_ld##bits(c, op, soft_ea(c, op)), (u##bits)op->imm); \
}
IMUL(16, "w") IMUL(32, "l") IMUL(64, "q")
#define IMUL_FLAGLESS(bits)								\
static const struct soft_op *imul2_##bits##_r_nf(struct soft_cpu *c, const struct soft_op *op) \
{											\
	SET##bits(c, op->dst, R##bits(c, op->dst) * R##bits(c, op->src));		\
	NEXT(c, op);									\
}											\
EXEC_FLAGLESS(imul2_##bits##_r);							\
static const struct soft_op *imul3_##bits##_r_nf(struct soft_cpu *c, const struct soft_op *op) \
{											\
	SET##bits(c, op->dst, R##bits(c, op->src) * (u##bits)op->imm);			\
	NEXT(c, op);									\
}											\
EXEC_FLAGLESS(imul3_##bits##_r);
IMUL_FLAGLESS(32) IMUL_FLAGLESS(64)
op_fn *const exec_imul2[2][3] = { { imul2_16_r, imul2_32_r, imul2_64_r },
				  { imul2_16_m, imul2_32_m, imul2_64_m } };
op_fn *const exec_imul3[2][3] = { { imul3_16_r, imul3_32_r, imul3_64_r },
				  { imul3_16_m, imul3_32_m, imul3_64_m } };

/* ---- Sign extension of the accumulator ----------------------------------- */

const struct soft_op *op_cbw(struct soft_cpu *c, const struct soft_op *op)
{
	R16(c, SLOT(REG_RAX)) = (u16)(s8)R8(c, SLOT(REG_RAX));
	NEXT(c, op);
}

const struct soft_op *op_cwde(struct soft_cpu *c, const struct soft_op *op)
{
	W32(c, SLOT(REG_RAX), (s16)R16(c, SLOT(REG_RAX)));
	NEXT(c, op);
}

const struct soft_op *op_cdqe(struct soft_cpu *c, const struct soft_op *op)
{
	c->r[REG_RAX] = (u64)(s64)(s32)R32(c, SLOT(REG_RAX));
	NEXT(c, op);
}

const struct soft_op *op_cwd(struct soft_cpu *c, const struct soft_op *op)
{
	R16(c, SLOT(REG_RDX)) = (u16)((s16)R16(c, SLOT(REG_RAX)) >> 15);
	NEXT(c, op);
}

const struct soft_op *op_cdq(struct soft_cpu *c, const struct soft_op *op)
{
	W32(c, SLOT(REG_RDX), (s32)R32(c, SLOT(REG_RAX)) >> 31);
	NEXT(c, op);
}

const struct soft_op *op_cqo(struct soft_cpu *c, const struct soft_op *op)
{
	c->r[REG_RDX] = (u64)((s64)c->r[REG_RAX] >> 63);
	NEXT(c, op);
}

/* ---- Single flags --------------------------------------------------------- */

const struct soft_op *op_nop(struct soft_cpu *c, const struct soft_op *op)
{
	NEXT(c, op);
}

const struct soft_op *op_pause(struct soft_cpu *c, const struct soft_op *op)
{
	if (unlikely(c->shared))
		return soft_pause(c, op);
	NEXT(c, op);
}

const struct soft_op *op_fence(struct soft_cpu *c, const struct soft_op *op)
{
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	NEXT(c, op);
}

const struct soft_op *op_lahf(struct soft_cpu *c, const struct soft_op *op)
{
	R8(c, 1) = (u8)(c->cc >> 8);
	NEXT(c, op);
}

const struct soft_op *op_sahf(struct soft_cpu *c, const struct soft_op *op)
{
	c->cc = (u16)((R8(c, 1) & 0xd5) << 8 | CC_ONE | (c->cc & CC_OF));
	NEXT(c, op);
}

const struct soft_op *op_clc(struct soft_cpu *c, const struct soft_op *op)
{
	c->cc &= (u16)~CC_CF;
	NEXT(c, op);
}

const struct soft_op *op_stc(struct soft_cpu *c, const struct soft_op *op)
{
	c->cc |= CC_CF;
	NEXT(c, op);
}

const struct soft_op *op_cmc(struct soft_cpu *c, const struct soft_op *op)
{
	c->cc ^= CC_CF;
	NEXT(c, op);
}

const struct soft_op *op_cld(struct soft_cpu *c, const struct soft_op *op)
{
	c->s.rflags &= ~(u64)RFLAGS_DF;
	NEXT(c, op);
}

const struct soft_op *op_std(struct soft_cpu *c, const struct soft_op *op)
{
	c->s.rflags |= RFLAGS_DF;
	NEXT(c, op);
}

const struct soft_op *op_salc(struct soft_cpu *c, const struct soft_op *op)
{
	R8(c, SLOT(REG_RAX)) = c->cc & CC_CF ? 0xff : 0;
	NEXT(c, op);
}

/* op->seg is the segment; the address is rBX + AL at the address size. */
const struct soft_op *op_xlat(struct soft_cpu *c, const struct soft_op *op)
{
	u64 off = c->r[REG_RBX] + R8(c, SLOT(REG_RAX));

	if (op->flags & OPF_ADDR32)
		off = (u32)off;
	else if (op->flags & OPF_ADDR16)
		off = (u16)off;
	R8(c, SLOT(REG_RAX)) = soft_ld8(c, op, soft_seg_lin(c, op, op->seg, off, 1, false));
	return op + 1;
}

/* ---- Decimal adjustment (not in 64-bit mode) -------------------------------- */

/* SF, ZF and PF of a byte; CF, AF as given; OF clear. */
static u16 byte_flags(u8 v, bool cf, bool af)
{
	return (u16)(CC_ONE | (v & 0x80 ? CC_SF : 0) | (v ? 0 : CC_ZF) |
		     (__builtin_parity(v) ? 0 : CC_PF) | (cf ? CC_CF : 0) | (af ? CC_AF : 0));
}

static const struct soft_op *adjust_ascii(struct soft_cpu *c, const struct soft_op *op, int sign)
{
	u8 al = R8(c, 0);
	bool adjust = (al & 15) > 9 || c->cc & CC_AF;

	if (adjust)
		R16(c, 0) = (u16)(R16(c, 0) + sign * 0x106);
	R8(c, 0) &= 15;
	c->cc = byte_flags(R8(c, 0), adjust, adjust);
	return op + 1;
}

const struct soft_op *op_aaa(struct soft_cpu *c, const struct soft_op *op)
{
	return adjust_ascii(c, op, 1);
}

const struct soft_op *op_aas(struct soft_cpu *c, const struct soft_op *op)
{
	return adjust_ascii(c, op, -1);
}

static const struct soft_op *adjust_decimal(struct soft_cpu *c, const struct soft_op *op, bool sub)
{
	u8 old = R8(c, 0), al = old;
	bool old_cf = c->cc & CC_CF, cf = false, af = false;

	if ((al & 15) > 9 || c->cc & CC_AF) {
		cf = old_cf || (sub ? al < 6 : al > 0xf9);
		al = (u8)(sub ? al - 6 : al + 6);
		af = true;
	}
	if (old > 0x99 || old_cf) {
		al = (u8)(sub ? al - 0x60 : al + 0x60);
		cf = true;
	}
	R8(c, 0) = al;
	c->cc = byte_flags(al, cf, af);
	return op + 1;
}

const struct soft_op *op_daa(struct soft_cpu *c, const struct soft_op *op)
{
	return adjust_decimal(c, op, false);
}

const struct soft_op *op_das(struct soft_cpu *c, const struct soft_op *op)
{
	return adjust_decimal(c, op, true);
}

const struct soft_op *op_aam(struct soft_cpu *c, const struct soft_op *op)
{
	u8 base = (u8)op->imm, al = R8(c, 0);

	if (!base)
		soft_raise(c, op, EXC_DE);
	R16(c, 0) = (u16)((al / base) << 8 | al % base);
	c->cc = byte_flags(R8(c, 0), false, false);
	return op + 1;
}

const struct soft_op *op_aad(struct soft_cpu *c, const struct soft_op *op)
{
	R16(c, 0) = (u8)(R8(c, 0) + R8(c, 1) * (u8)op->imm);
	c->cc = byte_flags(R8(c, 0), false, false);
	return op + 1;
}
