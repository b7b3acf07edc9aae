/*
 * The string comparisons of SSE4.2: the host's instruction, one case for each
 * immediate.  Their memory operands need no alignment.
 */
#include "cpu/soft/simd.h"
#include "cpu/soft/simd_special.h"

struct str_result {
	v2di mask;
	uint32_t index;
	uint16_t cc;
};

struct str_operands {
	v2di a, b;
	int32_t la, lb;
};

typedef void str_fn(struct str_result *r, const struct str_operands *o);

#define STR_E(n)								\
static void pcmpestri_##n(struct str_result *r, const struct str_operands *o)	\
{										\
	asm("pcmpestri $0x" #n ", %3, %2\n\tlahf\n\tseto %%al"			\
	    : "=c"(r->index), "=a"(r->cc)					\
	    : "x"(o->a), "x"(o->b), "1"(o->la), "d"(o->lb) : "cc");		\
}										\
static void pcmpestrm_##n(struct str_result *r, const struct str_operands *o)	\
{										\
	asm("pcmpestrm $0x" #n ", %3, %2\n\tlahf\n\tseto %%al"			\
	    : "=Yz"(r->mask), "=a"(r->cc)					\
	    : "x"(o->a), "x"(o->b), "1"(o->la), "d"(o->lb) : "cc");		\
}										\
static void pcmpistri_##n(struct str_result *r, const struct str_operands *o)	\
{										\
	asm("pcmpistri $0x" #n ", %3, %2\n\tlahf\n\tseto %%al"			\
	    : "=c"(r->index), "=a"(r->cc) : "x"(o->a), "x"(o->b) : "cc");	\
}										\
static void pcmpistrm_##n(struct str_result *r, const struct str_operands *o)	\
{										\
	asm("pcmpistrm $0x" #n ", %3, %2\n\tlahf\n\tseto %%al"			\
	    : "=Yz"(r->mask), "=a"(r->cc) : "x"(o->a), "x"(o->b) : "cc");	\
}
#define STR_16(h)								\
	STR_E(h##0) STR_E(h##1) STR_E(h##2) STR_E(h##3)				\
	STR_E(h##4) STR_E(h##5) STR_E(h##6) STR_E(h##7)				\
	STR_E(h##8) STR_E(h##9) STR_E(h##a) STR_E(h##b)				\
	STR_E(h##c) STR_E(h##d) STR_E(h##e) STR_E(h##f)
/* Bit 7 of the immediate has no meaning. */
STR_16(0) STR_16(1) STR_16(2) STR_16(3) STR_16(4) STR_16(5) STR_16(6) STR_16(7)

#define ROW(name, h)								\
	name##_##h##0, name##_##h##1, name##_##h##2, name##_##h##3,		\
	name##_##h##4, name##_##h##5, name##_##h##6, name##_##h##7,		\
	name##_##h##8, name##_##h##9, name##_##h##a, name##_##h##b,		\
	name##_##h##c, name##_##h##d, name##_##h##e, name##_##h##f,
#define TABLE(name)								\
static str_fn *const name##_fns[128] = {					\
	ROW(name, 0) ROW(name, 1) ROW(name, 2) ROW(name, 3)			\
	ROW(name, 4) ROW(name, 5) ROW(name, 6) ROW(name, 7)			\
};
TABLE(pcmpestri)
TABLE(pcmpestrm)
TABLE(pcmpistri)
TABLE(pcmpistrm)

/* Lengths saturate at 16 in either sign, so 16 is as good as any larger one. */
static int32_t str_length(uint64_t reg, bool wide)
{
	int64_t v = wide ? (int64_t)reg : (int32_t)(uint32_t)reg;

	return v > 16 ? 16 : v < -16 ? -16 : (int32_t)v;
}

static void str_operands(struct soft_cpu *c, const struct soft_op *op, const void *b,
			 struct str_operands *o)
{
	o->a = XMM(c, op->dst);
	o->b = *(const v2di_u *)b;
	o->la = str_length(c->r[REG_RAX], op->size == 8);
	o->lb = str_length(c->r[REG_RDX], op->size == 8);
}

#define STR_INDEX(name)								\
static void do_##name(struct soft_cpu *c, const struct soft_op *op, const void *b) \
{										\
	struct str_operands o;							\
	struct str_result r;							\
										\
	str_operands(c, op, b, &o);						\
	name##_fns[op->imm & 127](&r, &o);					\
	c->r[REG_RCX] = r.index;						\
	c->cc = r.cc;								\
}
#define STR_MASK(name)								\
static void do_##name(struct soft_cpu *c, const struct soft_op *op, const void *b) \
{										\
	struct str_operands o;							\
	struct str_result r;							\
										\
	str_operands(c, op, b, &o);						\
	name##_fns[op->imm & 127](&r, &o);					\
	XMM(c, 0) = r.mask;							\
	c->cc = r.cc;								\
}
#define STR_RR_RM(name)								\
OP_FN(sse_##name##_rr)								\
{										\
	do_##name(c, op, &XMM(c, op->src));					\
	NEXT(c, op);								\
}										\
OP_FN(sse_##name##_rm)								\
{										\
	do_##name(c, op, simd_src(c, op, 16));					\
	NEXT(c, op);								\
}

STR_INDEX(pcmpestri)
STR_MASK(pcmpestrm)
STR_INDEX(pcmpistri)
STR_MASK(pcmpistrm)
STR_RR_RM(pcmpestri)
STR_RR_RM(pcmpestrm)
STR_RR_RM(pcmpistri)
STR_RR_RM(pcmpistrm)
