/*
 * SSE moves, and insertion and extraction of elements.
 *
 * Scalar loads and merges write the whole register where they can: a full read
 * after a partial write waits for the host's store buffer.
 */
#include "cpu/soft/simd.h"
#include "cpu/soft/simd_special.h"

OP_FN(sse_mov_rr)
{
	XMM(c, op->dst) = XMM(c, op->src);
	NEXT(c, op);
}

SIMD_RM(sse_load_a, 16,
	XMM(c, op->dst) = *s;
	NEXT(c, op);
)

SIMD_RM(sse_load_u, 16u,
	XMM(c, op->dst) = *s;
	NEXT(c, op);
)

/* movd, movss: the rest becomes zero */
SIMD_RM(sse_load4z, 4,
	XMM(c, op->dst) = (v2di){ load32(s), 0 };
	NEXT(c, op);
)

SIMD_RM(sse_load8z, 8,
	XMM(c, op->dst) = (v2di){ (long long)load64(s), 0 };
	NEXT(c, op);
)

SIMD_RM(sse_movlp_load, 8,
	v2di d = XMM(c, op->dst);

	asm("movlps %1, %0" : "+x"(d) : "m"(*s));
	XMM(c, op->dst) = d;
	NEXT(c, op);
)

SIMD_RM(sse_movhp_load, 8,
	v2di d = XMM(c, op->dst);

	asm("movhps %1, %0" : "+x"(d) : "m"(*s));
	XMM(c, op->dst) = d;
	NEXT(c, op);
)

static __attribute__((noinline, cold)) OP_FN(store16_slow)
{
	soft_store_bytes(c, op, soft_ea(c, op), &XMM(c, op->src), 16);
	NEXT(c, op);
}

#define STORE16(name, aligned, type, v_, ea)					\
OP_FN(name##v_);								\
OP_FN(name##v_)									\
{										\
	uint64_t lin = ea(c, op);						\
	const struct tlb_entry *t = TLB_ENTRY(c, lin);				\
										\
	if (unlikely(aligned && lin & 15))					\
		return simd_misaligned(c, op);					\
	if (unlikely(lin - t->wtag > 4096 - 16))				\
		return store16_slow(c, op);					\
	*(type *)(lin + t->addend) = XMM(c, op->src);				\
	NEXT(c, op);								\
}
BOTH_EA(STORE16, sse_store_a, true, v2di)
EXEC_PAIR(sse_store_a);
BOTH_EA(STORE16, sse_store_u, false, v2di_u)
EXEC_PAIR(sse_store_u);

#define STORE_LOW(name, bits, part, v_, ea)					\
OP_FN(name##v_);								\
OP_FN(name##v_)									\
{										\
	uint64_t lin = ea(c, op);						\
	void *p;								\
										\
	HOT_WRITE(bits, p, lin, name##_slow);					\
	store##bits(p, part(c, op->src, 0));					\
	NEXT(c, op);								\
}
COLD sse_store4_slow(struct soft_cpu *c, const struct soft_op *op)
{
	soft_st32(c, op, soft_ea(c, op), XD(c, op->src, 0));
	return op + 1;
}
BOTH_EA(STORE_LOW, sse_store4, 32, XD)
EXEC_PAIR(sse_store4);
COLD sse_store8_slow(struct soft_cpu *c, const struct soft_op *op)
{
	soft_st64(c, op, soft_ea(c, op), XQ(c, op->src, 0));
	return op + 1;
}
BOTH_EA(STORE_LOW, sse_store8, 64, XQ)
EXEC_PAIR(sse_store8);

OP_FN(sse_store8_high)
{
	soft_st64(c, op, soft_ea(c, op), XQ(c, op->src, 1));
	NEXT(c, op);
}

#define MERGE_RR(name, insn)							\
OP_FN(name)									\
{										\
	v2di d = XMM(c, op->dst);						\
										\
	asm(insn " %1, %0" : "+x"(d) : "x"(XMM(c, op->src)));			\
	XMM(c, op->dst) = d;							\
	NEXT(c, op);								\
}
MERGE_RR(sse_movss_rr, "movss")
MERGE_RR(sse_movsd_rr, "movsd")
MERGE_RR(sse_movhlps_rr, "movhlps")
MERGE_RR(sse_movlhps_rr, "movlhps")
MERGE_RR(sse_movq_rr, "movq")

OP_FN(sse_from_gpr32)
{
	XMM(c, op->dst) = (v2di){ R32(c, op->src), 0 };
	NEXT(c, op);
}

OP_FN(sse_from_gpr64)
{
	XMM(c, op->dst) = (v2di){ (long long)R64(c, op->src), 0 };
	NEXT(c, op);
}

OP_FN(sse_to_gpr32)
{
	W32(c, op->dst, XD(c, op->src, 0));
	NEXT(c, op);
}

OP_FN(sse_to_gpr64)
{
	R64(c, op->dst) = XQ(c, op->src, 0);
	NEXT(c, op);
}

#define MASK_TO_GPR(name, insn)							\
OP_FN(name)									\
{										\
	uint32_t v;								\
										\
	asm(insn " %1, %0" : "=r"(v) : "x"(XMM(c, op->src)));			\
	W32(c, op->dst, v);							\
	NEXT(c, op);								\
}
MASK_TO_GPR(sse_movmskps, "movmskps")
MASK_TO_GPR(sse_movmskpd, "movmskpd")
MASK_TO_GPR(sse_pmovmskb, "pmovmskb")

/* Extraction: imm is the element's number, cut to the count of elements. */
OP_FN(sse_pextrb_r) { W32(c, op->dst, XB(c, op->src, op->imm)); NEXT(c, op); }
OP_FN(sse_pextrw_r) { W32(c, op->dst, XW(c, op->src, op->imm)); NEXT(c, op); }
OP_FN(sse_pextrd_r) { W32(c, op->dst, XD(c, op->src, op->imm)); NEXT(c, op); }
OP_FN(sse_pextrq_r) { R64(c, op->dst) = XQ(c, op->src, op->imm); NEXT(c, op); }

OP_FN(sse_pextrb_m) { soft_st8(c, op, soft_ea(c, op), XB(c, op->src, op->imm)); NEXT(c, op); }
OP_FN(sse_pextrw_m) { soft_st16(c, op, soft_ea(c, op), XW(c, op->src, op->imm)); NEXT(c, op); }
OP_FN(sse_pextrd_m) { soft_st32(c, op, soft_ea(c, op), XD(c, op->src, op->imm)); NEXT(c, op); }
OP_FN(sse_pextrq_m) { soft_st64(c, op, soft_ea(c, op), XQ(c, op->src, op->imm)); NEXT(c, op); }

OP_FN(sse_pinsrb_r) { XB(c, op->dst, op->imm) = R8(c, op->src); NEXT(c, op); }
OP_FN(sse_pinsrw_r) { XW(c, op->dst, op->imm) = R16(c, op->src); NEXT(c, op); }
OP_FN(sse_pinsrd_r) { XD(c, op->dst, op->imm) = R32(c, op->src); NEXT(c, op); }
OP_FN(sse_pinsrq_r) { XQ(c, op->dst, op->imm) = R64(c, op->src); NEXT(c, op); }

OP_FN(sse_pinsrb_m) { XB(c, op->dst, op->imm) = soft_ld8(c, op, soft_ea(c, op)); NEXT(c, op); }
OP_FN(sse_pinsrw_m) { XW(c, op->dst, op->imm) = soft_ld16(c, op, soft_ea(c, op)); NEXT(c, op); }
OP_FN(sse_pinsrd_m) { XD(c, op->dst, op->imm) = soft_ld32(c, op, soft_ea(c, op)); NEXT(c, op); }
OP_FN(sse_pinsrq_m) { XQ(c, op->dst, op->imm) = soft_ld64(c, op, soft_ea(c, op)); NEXT(c, op); }

/* INSERTPS: source element 7:6 (register only), place 5:4, elements to clear 3:0. */
static void insertps(struct soft_cpu *c, const struct soft_op *op, uint32_t v)
{
	unsigned i;

	XD(c, op->dst, op->imm >> 4 & 3) = v;
	for (i = 0; i < 4; i++)
		if (op->imm >> i & 1)
			XD(c, op->dst, i) = 0;
}

OP_FN(sse_insertps_r)
{
	insertps(c, op, XD(c, op->src, op->imm >> 6 & 3));
	NEXT(c, op);
}

OP_FN(sse_insertps_m)
{
	insertps(c, op, soft_ld32(c, op, soft_ea(c, op)));
	NEXT(c, op);
}

/*
 * Bytes of v whose mask has the top bit, to seg:rDI.  All or nothing: the span
 * from the first to the last byte that is written is checked first; with no byte
 * selected memory is not touched at all (SDM: the fault then is
 * implementation-specific).
 */
static void mask_store(struct soft_cpu *c, const struct soft_op *op, const uint8_t *v,
		       const uint8_t *mask, unsigned n)
{
	uint64_t off = c->r[REG_RDI], lin;
	unsigned i, first = n, last = 0;

	for (i = 0; i < n; i++) {
		if (!(mask[i] & 0x80))
			continue;
		if (first == n)
			first = i;
		last = i;
	}
	if (first == n)
		return;
	if (op->flags & OPF_ADDR32)
		off = (uint32_t)off;
	else if (op->flags & OPF_ADDR16)
		off = (uint16_t)off;
	lin = soft_seg_lin(c, op, op->seg, off + first, last - first + 1, true);
	soft_check_write(c, op, lin, last - first + 1);
	for (i = first; i <= last; i++)
		if (mask[i] & 0x80)
			soft_st8(c, op, lin + i - first, v[i]);
}

OP_FN(sse_maskmovdqu)
{
	mask_store(c, op, &XB(c, op->dst, 0), &XB(c, op->src, 0), 16);
	return op + 1;
}

OP_FN(mmx_maskmovq)
{
	MMX_GUARD(c, op);
	mask_store(c, op, (uint8_t *)c->s.fpu.st + op->dst, (uint8_t *)c->s.fpu.st + op->src, 8);
	mmx_enter(c);
	return op + 1;
}

OP_FN(sse_movnti32)
{
	soft_st32(c, op, soft_ea(c, op), R32(c, op->src));
	NEXT(c, op);
}

OP_FN(sse_movnti64)
{
	soft_st64(c, op, soft_ea(c, op), R64(c, op->src));
	NEXT(c, op);
}
