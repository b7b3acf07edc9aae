/*
 * Pairs that inner loops of floating-point code are made of, as one handler:
 *
 *	load x, [m]	OP x, y		one dispatch less
 *	OP x, [m]	store [m], x	one dispatch, address and TLB check less
 *
 * The second instruction's op stays where it is.  A pair only does the case in
 * which nothing can go wrong; otherwise the first handler runs as if alone and
 * goes on to the second by itself, so that a fault finds the right instruction.
 */
#include "cpu/soft/simd.h"

/* What follows the second op of the pair. */
#define NEXT_PAIR(c, op) NEXT((c), (op) + 1)

#define LOAD_OP(load, insn, size, get, v_, ea)						\
static OP_FN(load##_##insn##v_)								\
{											\
	uint64_t lin = ea(c, op);							\
	const struct tlb_entry *t = TLB_ENTRY(c, lin);					\
	v2di d;										\
											\
	if (unlikely((lin & SIMD_MUST_ALIGN_##size) ||					\
		     lin - t->rtag > 4096 - SIMD_BYTES_##size))				\
		return sse_##load(c, op);						\
	d = get(lin + t->addend);							\
	asm volatile(#insn " %1, %0" : "+x"(d) : "x"(XMM(c, op[1].src)));		\
	XMM(c, op->dst) = d;								\
	NEXT_PAIR(c, op);								\
}
#define GET_16(p)	(*(const v2di *)(p))
#define GET_16u(p)	(*(const v2di_u *)(p))
#define GET_8(p)	((v2di){ (long long)load64((const void *)(p)), 0 })
#define GET_4(p)	((v2di){ load32((const void *)(p)), 0 })

#define OP_STORE(insn, store, size, v_, ea)						\
static OP_FN(insn##_##store##v_)							\
{											\
	uint64_t lin = ea(c, op);							\
	const struct tlb_entry *t = TLB_ENTRY(c, lin);					\
	simd_m##size *p;								\
	v2di d;										\
											\
	/* What may be written may be read: a write tag stands only beside a read tag. */ \
	if (unlikely((lin & SIMD_MUST_ALIGN_##size) ||					\
		     lin - t->wtag > 4096 - SIMD_BYTES_##size))				\
		return sse_##insn##_rm(c, op);						\
	p = (simd_m##size *)(lin + t->addend);						\
	d = XMM(c, op->dst);								\
	asm volatile(#insn " %1, %0" : "+x"(d) : "m"(*p));				\
	XMM(c, op->dst) = d;								\
	PUT_##size(p, d);								\
	NEXT_PAIR(c, op);								\
}
#define PUT_16(p, d)	(*(p) = (d))
#define PUT_8(p, d)	store64((p), (uint64_t)(d)[0])
#define PUT_4(p, d)	store32((p), (uint32_t)(d)[0])

#define DECLARE(insn) OP_FN(sse_##insn##_rr); OP_FN(sse_##insn##_rm);
OP_FN(sse_load_a);
OP_FN(sse_load_u);
OP_FN(sse_load8z);
OP_FN(sse_load4z);
OP_FN(sse_store_a);
OP_FN(sse_store8);
OP_FN(sse_store4);

#define PACKED(insn)								\
	DECLARE(insn)								\
	BOTH_EA(LOAD_OP, load_a, insn, 16, GET_16)				\
	BOTH_EA(LOAD_OP, load_u, insn, 16u, GET_16u)				\
	BOTH_EA(OP_STORE, insn, store_a, 16)
#define SCALAR(insn, load, store, size)						\
	DECLARE(insn)								\
	BOTH_EA(LOAD_OP, load, insn, size, GET_##size)				\
	BOTH_EA(OP_STORE, insn, store, size)

PACKED(addpd) PACKED(subpd) PACKED(mulpd) PACKED(addps) PACKED(subps) PACKED(mulps)
SCALAR(addsd, load8z, store8, 8) SCALAR(subsd, load8z, store8, 8) SCALAR(mulsd, load8z, store8, 8)
SCALAR(addss, load4z, store4, 4) SCALAR(subss, load4z, store4, 4) SCALAR(mulss, load4z, store4, 4)

#define LOAD_ROW(load, insn) \
	{ sse_##load, sse_##insn##_rr, load##_##insn, load##_##insn##_b, false }
#define STORE_ROW(insn, store) \
	{ sse_##insn##_rm, sse_##store, insn##_##store, insn##_##store##_b, true }
#define PACKED_ROWS(insn) \
	LOAD_ROW(load_a, insn), LOAD_ROW(load_u, insn), STORE_ROW(insn, store_a)
#define SCALAR_ROWS(insn, load, store) LOAD_ROW(load, insn), STORE_ROW(insn, store)

const struct exec_fused exec_fused[] = {
	PACKED_ROWS(addpd), PACKED_ROWS(subpd), PACKED_ROWS(mulpd),
	PACKED_ROWS(addps), PACKED_ROWS(subps), PACKED_ROWS(mulps),
	SCALAR_ROWS(addsd, load8z, store8), SCALAR_ROWS(subsd, load8z, store8),
	SCALAR_ROWS(mulsd, load8z, store8), SCALAR_ROWS(addss, load4z, store4),
	SCALAR_ROWS(subss, load4z, store4), SCALAR_ROWS(mulss, load4z, store4),
};
const unsigned exec_fused_count = ARRAY_SIZE(exec_fused);
