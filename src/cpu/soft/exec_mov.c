/* Moves: MOV and its extending, conditional, exchanging and byte-swapping kin. */
#include "cpu/soft/exec.h"

typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;

#define SET8(c, off, v)		(R8(c, off) = (u8)(v))
#define SET16(c, off, v)	(R16(c, off) = (u16)(v))
#define SET32(c, off, v)	W32(c, off, v)
#define SET64(c, off, v)	(R64(c, off) = (u64)(v))

#define MOV_SIZE(bits)								\
static const struct soft_op *mov##bits##_rr(struct soft_cpu *c, const struct soft_op *op) \
{										\
	SET##bits(c, op->dst, R##bits(c, op->src));				\
	NEXT(c, op);								\
}										\
static const struct soft_op *mov##bits##_ri(struct soft_cpu *c, const struct soft_op *op) \
{										\
	SET##bits(c, op->dst, op->imm);						\
	NEXT(c, op);								\
}										\
COLD mov##bits##_rm_slow(struct soft_cpu *c, const struct soft_op *op)		\
{										\
	SET##bits(c, op->dst, soft_load_slow(c, op, soft_ea(c, op), bits / 8));	\
	return op + 1;								\
}										\
BOTH_EA(MOV_LOAD, bits)								\
EXEC_PAIR(mov##bits##_rm);							\
MOV_STORE(bits, mr, R##bits(c, op->src))					\
MOV_STORE(bits, mi, (u##bits)op->imm)
#define MOV_LOAD(bits, v_, ea)							\
static const struct soft_op *mov##bits##_rm##v_(struct soft_cpu *c, const struct soft_op *op) \
{										\
	u64 lin = ea(c, op);							\
	u##bits v;								\
	HOT_LOAD(bits, v, lin, mov##bits##_rm_slow);				\
	SET##bits(c, op->dst, v);						\
	NEXT(c, op);								\
}
#define MOV_STORE(bits, form, value)						\
COLD mov##bits##_##form##_slow(struct soft_cpu *c, const struct soft_op *op)	\
{										\
	soft_store_slow(c, op, soft_ea(c, op), bits / 8, value);		\
	return op + 1;								\
}										\
BOTH_EA(MOV_STORE_HOT, bits, form, value)					\
EXEC_PAIR(mov##bits##_##form);
#define MOV_STORE_HOT(bits, form, value, v_, ea)				\
static const struct soft_op *mov##bits##_##form##v_(struct soft_cpu *c, const struct soft_op *op) \
{										\
	u64 lin = ea(c, op);							\
	u##bits v = value, *p;							\
	HOT_WRITE(bits, p, lin, mov##bits##_##form##_slow);			\
	memcpy(p, &v, sizeof v);						\
	NEXT(c, op);								\
}
MOV_SIZE(8) MOV_SIZE(16) MOV_SIZE(32) MOV_SIZE(64)

#define SIZES(name, form) { name##8_##form, name##16_##form, name##32_##form, name##64_##form }
op_fn *const exec_mov[5][4] = {
	[FORM_RR] = SIZES(mov, rr), [FORM_RI] = SIZES(mov, ri), [FORM_RM] = SIZES(mov, rm),
	[FORM_MR] = SIZES(mov, mr), [FORM_MI] = SIZES(mov, mi),
};

/* ---- MOVZX, MOVSX, MOVSXD ------------------------------------------------- */

#define MOVX(sign, from, to, ctype)						\
static const struct soft_op *mov##sign##from##_##to##_r(struct soft_cpu *c,	\
							const struct soft_op *op) \
{										\
	SET##to(c, op->dst, (ctype)R##from(c, op->src));			\
	NEXT(c, op);								\
}										\
COLD mov##sign##from##_##to##_slow(struct soft_cpu *c, const struct soft_op *op) \
{										\
	SET##to(c, op->dst, (ctype)soft_load_slow(c, op, soft_ea(c, op), from / 8)); \
	return op + 1;								\
}										\
BOTH_EA(MOVX_LOAD, sign, from, to, ctype)					\
EXEC_PAIR(mov##sign##from##_##to##_m);
#define MOVX_LOAD(sign, from, to, ctype, v_, ea)				\
static const struct soft_op *mov##sign##from##_##to##_m##v_(struct soft_cpu *c,	\
							    const struct soft_op *op) \
{										\
	u64 lin = ea(c, op);							\
	ctype v;								\
	HOT_LOAD(from, v, lin, mov##sign##from##_##to##_slow);			\
	SET##to(c, op->dst, v);							\
	NEXT(c, op);								\
}
MOVX(z, 8, 16, u8) MOVX(z, 8, 32, u8) MOVX(z, 8, 64, u8)
MOVX(z, 16, 16, u16) MOVX(z, 16, 32, u16) MOVX(z, 16, 64, u16)
MOVX(s, 8, 16, int8_t) MOVX(s, 8, 32, int8_t) MOVX(s, 8, 64, int8_t)
MOVX(s, 16, 16, int16_t) MOVX(s, 16, 32, int16_t) MOVX(s, 16, 64, int16_t)
MOVX(s, 32, 16, int32_t) MOVX(s, 32, 32, int32_t) MOVX(s, 32, 64, int32_t)
#define MOVX_ROW(sign, from, form) \
	{ NULL, mov##sign##from##_16_##form, mov##sign##from##_32_##form, mov##sign##from##_64_##form }
op_fn *const exec_movx[2][2][3][4] = {
	{ { MOVX_ROW(z, 8, r), MOVX_ROW(z, 16, r) }, { MOVX_ROW(z, 8, m), MOVX_ROW(z, 16, m) } },
	{ { MOVX_ROW(s, 8, r), MOVX_ROW(s, 16, r), MOVX_ROW(s, 32, r) },
	  { MOVX_ROW(s, 8, m), MOVX_ROW(s, 16, m), MOVX_ROW(s, 32, m) } },
};

/* ---- LEA -------------------------------------------------------------------- */

#define LEA(bits)								\
static const struct soft_op *lea##bits(struct soft_cpu *c, const struct soft_op *op) \
{										\
	SET##bits(c, op->dst, soft_ea(c, op));					\
	NEXT(c, op);								\
}
LEA(16) LEA(32) LEA(64)
op_fn *const exec_lea[3] = { lea16, lea32, lea64 };

/* ---- CMOVcc, SETcc ----------------------------------------------------------- */

/* A 32-bit CMOV clears the upper half whether it moves or not; a load is always made. */
#define CMOV(n, bits)								\
static const struct soft_op *cmov##n##_##bits##_r(struct soft_cpu *c, const struct soft_op *op) \
{										\
	u##bits d = R##bits(c, op->dst), s = R##bits(c, op->src);		\
	SET##bits(c, op->dst, exec_cond(c->cc, n) ? s : d);			\
	NEXT(c, op);								\
}										\
COLD cmov##n##_##bits##_slow(struct soft_cpu *c, const struct soft_op *op)	\
{										\
	u##bits s = (u##bits)soft_load_slow(c, op, soft_ea(c, op), bits / 8);	\
	SET##bits(c, op->dst, exec_cond(c->cc, n) ? s : R##bits(c, op->dst));	\
	return op + 1;								\
}										\
static const struct soft_op *cmov##n##_##bits##_m(struct soft_cpu *c, const struct soft_op *op) \
{										\
	u64 lin = soft_ea(c, op);						\
	u##bits s;								\
	HOT_LOAD(bits, s, lin, cmov##n##_##bits##_slow);			\
	SET##bits(c, op->dst, exec_cond(c->cc, n) ? s : R##bits(c, op->dst));	\
	NEXT(c, op);								\
}
#define COND(n)									\
CMOV(n, 16) CMOV(n, 32) CMOV(n, 64)						\
static const struct soft_op *set##n##_r(struct soft_cpu *c, const struct soft_op *op) \
{										\
	R8(c, op->dst) = exec_cond(c->cc, n);					\
	NEXT(c, op);								\
}										\
static const struct soft_op *set##n##_m(struct soft_cpu *c, const struct soft_op *op) \
{										\
	soft_st8(c, op, soft_ea(c, op), exec_cond(c->cc, n));			\
	NEXT(c, op);								\
}
COND(0) COND(1) COND(2) COND(3) COND(4) COND(5) COND(6) COND(7)
COND(8) COND(9) COND(10) COND(11) COND(12) COND(13) COND(14) COND(15)
#define CMOV_ROW(n) { { cmov##n##_16_r, cmov##n##_32_r, cmov##n##_64_r }, \
		      { cmov##n##_16_m, cmov##n##_32_m, cmov##n##_64_m } }
#define SET_ROW(n) { set##n##_r, set##n##_m }
#define ALL_CONDS(row) { row(0), row(1), row(2), row(3), row(4), row(5), row(6), row(7), \
			 row(8), row(9), row(10), row(11), row(12), row(13), row(14), row(15) }
op_fn *const exec_cmov[16][2][3] = ALL_CONDS(CMOV_ROW);
op_fn *const exec_setcc[16][2] = ALL_CONDS(SET_ROW);

/* ---- XCHG, XADD, CMPXCHG ------------------------------------------------------ */

/*
 * Host address for an atomic operation, or NULL: then it is done in steps, with no other
 * processor about, after all that there is to raise.
 */
static inline void *atomic_ptr(struct soft_cpu *c, const struct soft_op *op, u64 lin,
			       unsigned size)
{
	void *p = soft_rmw(c, op, lin, size);

	if (likely(p && (lin & 63) + size <= 64))
		return p;
	soft_exclusive(c, op, lin, size);
	return NULL;
}

#define EXCHANGES(bits, sfx, acc)						\
static const struct soft_op *xchg##bits##_r(struct soft_cpu *c, const struct soft_op *op) \
{										\
	u##bits a = R##bits(c, op->dst), b = R##bits(c, op->src);		\
	SET##bits(c, op->dst, b);						\
	SET##bits(c, op->src, a);						\
	NEXT(c, op);								\
}										\
static const struct soft_op *xchg##bits##_m(struct soft_cpu *c, const struct soft_op *op) \
{										\
	u64 lin = soft_ea(c, op);						\
	u##bits *p = atomic_ptr(c, op, lin, sizeof *p);				\
	u##bits s = R##bits(c, op->src), old;					\
	if (likely(p)) {							\
		old = __atomic_exchange_n(p, s, __ATOMIC_SEQ_CST);		\
	} else {								\
		old = soft_ld##bits(c, op, lin);				\
		soft_st##bits(c, op, lin, s);					\
	}									\
	SET##bits(c, op->src, old);						\
	NEXT(c, op);								\
}										\
static inline u##bits xadd##bits##_flags(struct soft_cpu *c, u##bits d, u##bits s) \
{										\
	u32 f;									\
	__asm__("add" sfx " %2, %0" FLAGS_OUT : "+q"(d), "=&a"(f) : "q"(s) : "cc"); \
	c->cc = (u16)f;								\
	return d;								\
}										\
static const struct soft_op *xadd##bits##_r(struct soft_cpu *c, const struct soft_op *op) \
{										\
	u##bits d = R##bits(c, op->dst), s = R##bits(c, op->src);		\
	u##bits sum = xadd##bits##_flags(c, d, s);				\
	SET##bits(c, op->src, d);						\
	SET##bits(c, op->dst, sum);						\
	NEXT(c, op);								\
}										\
static const struct soft_op *xadd##bits##_m(struct soft_cpu *c, const struct soft_op *op) \
{										\
	u64 lin = soft_ea(c, op);						\
	u##bits *p = atomic_ptr(c, op, lin, sizeof *p);				\
	u##bits s = R##bits(c, op->src), d;					\
	if (likely(p)) {							\
		d = __atomic_fetch_add(p, s, __ATOMIC_SEQ_CST);			\
	} else {								\
		d = soft_ld##bits(c, op, lin);					\
		soft_st##bits(c, op, lin, (u##bits)(d + s));			\
	}									\
	xadd##bits##_flags(c, d, s);						\
	SET##bits(c, op->src, d);						\
	NEXT(c, op);								\
}										\
static inline void cmpxchg##bits##_flags(struct soft_cpu *c, u##bits a, u##bits d) \
{										\
	u32 f;									\
	__asm__("cmp" sfx " %2, %1" FLAGS_OUT : "=&a"(f) : "q"(a), "q"(d) : "cc"); \
	c->cc = (u16)f;								\
}										\
static const struct soft_op *cmpxchg##bits##_r(struct soft_cpu *c, const struct soft_op *op) \
{										\
	u##bits a = R##bits(c, SLOT(REG_RAX)), d = R##bits(c, op->dst);		\
	cmpxchg##bits##_flags(c, a, d);						\
	if (a == d)								\
		SET##bits(c, op->dst, R##bits(c, op->src));			\
	else									\
		SET##bits(c, SLOT(REG_RAX), d);					\
	NEXT(c, op);								\
}										\
COLD cmpxchg##bits##_steps(struct soft_cpu *c, const struct soft_op *op)	\
{										\
	u64 lin = soft_ea(c, op);						\
	u##bits a = R##bits(c, SLOT(REG_RAX)), d = soft_ld##bits(c, op, lin);	\
	soft_st##bits(c, op, lin, a == d ? R##bits(c, op->src) : d);		\
	cmpxchg##bits##_flags(c, a, d);						\
	if (a != d)								\
		SET##bits(c, SLOT(REG_RAX), d);					\
	return op + 1;								\
}										\
static const struct soft_op *cmpxchg##bits##_m(struct soft_cpu *c, const struct soft_op *op) \
{										\
	u##bits *p = atomic_ptr(c, op, soft_ea(c, op), sizeof *p);		\
	u##bits a = R##bits(c, SLOT(REG_RAX)), d = a;				\
	if (unlikely(!p))							\
		return cmpxchg##bits##_steps(c, op);				\
	__asm__ volatile("lock cmpxchg" sfx " %2, %1"				\
			 : "+a"(d), "+m"(*p) : "q"(R##bits(c, op->src)) : "cc", "memory"); \
	cmpxchg##bits##_flags(c, a, d);						\
	if (a != d)								\
		SET##bits(c, SLOT(REG_RAX), d);					\
	NEXT(c, op);								\
}
EXCHANGES(8, "b", "al") EXCHANGES(16, "w", "ax") EXCHANGES(32, "l", "eax") EXCHANGES(64, "q", "rax")
#define RM_TABLE(name) { { name##8_r, name##16_r, name##32_r, name##64_r }, \
			 { name##8_m, name##16_m, name##32_m, name##64_m } }
op_fn *const exec_xchg[2][4] = RM_TABLE(xchg);
op_fn *const exec_xadd[2][4] = RM_TABLE(xadd);
op_fn *const exec_cmpxchg[2][4] = RM_TABLE(cmpxchg);

static void set_zf(struct soft_cpu *c, bool on)
{
	c->cc = on ? c->cc | CC_ZF : c->cc & (uint16_t)~CC_ZF;
}

const struct soft_op *op_cmpxchg8b(struct soft_cpu *c, const struct soft_op *op)
{
	u64 lin = soft_ea(c, op);
	u64 *p = atomic_ptr(c, op, lin, 8);
	u64 want = (u64)R32(c, SLOT(REG_RDX)) << 32 | R32(c, SLOT(REG_RAX));
	u64 with = (u64)R32(c, SLOT(REG_RCX)) << 32 | R32(c, SLOT(REG_RBX));
	u64 old;

	if (p) {
		old = __sync_val_compare_and_swap(p, want, with);
	} else {
		old = soft_ld64(c, op, lin);
		soft_st64(c, op, lin, old == want ? with : old);
	}
	set_zf(c, old == want);
	if (old != want) {
		W32(c, SLOT(REG_RAX), old);
		W32(c, SLOT(REG_RDX), old >> 32);
	}
	return op + 1;
}

const struct soft_op *op_cmpxchg16b(struct soft_cpu *c, const struct soft_op *op)
{
	u64 lin = soft_ea(c, op), lo = c->r[REG_RAX], hi = c->r[REG_RDX];
	u64 *p;
	bool same;

	if (lin & 15)
		soft_raise_err(c, op, EXC_GP, 0);
	p = atomic_ptr(c, op, lin, 16);
	if (p) {
		__asm__ volatile("lock cmpxchg16b %1"
				 : "=@ccz"(same), "+m"(*(unsigned __int128 *)p), "+a"(lo), "+d"(hi)
				 : "b"(c->r[REG_RBX]), "c"(c->r[REG_RCX]) : "memory");
	} else {
		u64 v[2];

		soft_load_bytes(c, op, lin, v, 16);
		same = v[0] == lo && v[1] == hi;
		lo = v[0];
		hi = v[1];
		if (same) {
			v[0] = c->r[REG_RBX];
			v[1] = c->r[REG_RCX];
		}
		soft_store_bytes(c, op, lin, v, 16);
	}
	set_zf(c, same);
	if (!same) {
		c->r[REG_RAX] = lo;
		c->r[REG_RDX] = hi;
	}
	return op + 1;
}

/* ---- Byte order ------------------------------------------------------------- */

const struct soft_op *op_bswap64(struct soft_cpu *c, const struct soft_op *op)
{
	R64(c, op->dst) = __builtin_bswap64(R64(c, op->dst));
	NEXT(c, op);
}

const struct soft_op *op_bswap32(struct soft_cpu *c, const struct soft_op *op)
{
	W32(c, op->dst, __builtin_bswap32(R32(c, op->dst)));
	NEXT(c, op);
}

/* Undefined by the SDM; processors clear the register. */
const struct soft_op *op_bswap16(struct soft_cpu *c, const struct soft_op *op)
{
	R16(c, op->dst) = 0;
	NEXT(c, op);
}

#define MOVBE(bits)								\
static const struct soft_op *movbe##bits##_load(struct soft_cpu *c, const struct soft_op *op) \
{										\
	SET##bits(c, op->dst, __builtin_bswap##bits(soft_ld##bits(c, op, soft_ea(c, op)))); \
	NEXT(c, op);								\
}										\
static const struct soft_op *movbe##bits##_store(struct soft_cpu *c, const struct soft_op *op) \
{										\
	soft_st##bits(c, op, soft_ea(c, op), __builtin_bswap##bits(R##bits(c, op->src))); \
	NEXT(c, op);								\
}
MOVBE(16) MOVBE(32) MOVBE(64)
op_fn *const exec_movbe[2][3] = {
	{ movbe16_load, movbe32_load, movbe64_load },
	{ movbe16_store, movbe32_store, movbe64_store },
};
