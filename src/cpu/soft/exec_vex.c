/*
 * VEX instructions: most by their thunk, with the memory operand's place as the host sees it; here
 * in C whole moves, and those that touch memory element by element.
 */
#include "cpu/soft/exec_vex.h"
#include "cpu/soft/simd.h"
#include "cpu/soft/vex_thunk.h"

static inline const struct vex_thunk *thunk(const struct soft_op *op)
{
	return (const struct vex_thunk *)(uintptr_t)op->imm;
}

OP_FN(vex_rr)
{
	thunk(op)->run(c, NULL);
	NEXT(c, op);
}

static bool in_bytes(const struct soft_cpu *c, const struct soft_op *op)
{
	return unlikely(c->alignment_check) && thunk(op)->insn.no_ac;
}

const void *vex_source(struct soft_cpu *c, const struct soft_op *op)
{
	if (!in_bytes(c, op))
		return simd_src(c, op, op->size);
	for (unsigned i = 0; i < op->size; i++)
		soft_load_bytes(c, op, soft_ea(c, op) + i, c->fp_tmp + i, 1);
	return c->fp_tmp;
}

void vex_sink(struct soft_cpu *c, const struct soft_op *op, const void *bytes)
{
	uint64_t lin = soft_ea(c, op);

	if (!in_bytes(c, op)) {
		soft_store_bytes(c, op, lin, bytes, op->size);
		return;
	}
	soft_check_write(c, op, lin, 1);
	soft_check_write(c, op, lin + op->size - 1, 1);
	for (unsigned i = 0; i < op->size; i++)
		soft_st8(c, op, lin + i, ((const uint8_t *)bytes)[i]);
}

OP_FN(vex_load)
{
	/* What the thunk reads it does not write. */
	thunk(op)->run(c, (void *)vex_source(c, op));
	NEXT(c, op);
}

OP_FN(vex_store)
{
	uint64_t lin = soft_ea(c, op);
	void *p = soft_host_write(c, lin, op->size);

	if (likely(p != NULL)) {
		thunk(op)->run(c, p);
		NEXT(c, op);
	}
	/* The flags of MXCSR may change before a fault, as they do on processors. */
	thunk(op)->run(c, c->fp_tmp);
	vex_sink(c, op, c->fp_tmp);
	return op + 1;
}

/* SDM vol. 2, 2.4: CR0.EM and CR4.OSFXSR are not looked at. */
OP_FN(vex_unavailable)
{
	bool enabled = c->s.cr4 & CR4_OSXSAVE && !(~c->s.xcr0 & (XCR0_SSE | XCR0_AVX));

	soft_raise(c, op, enabled ? EXC_NM : EXC_UD);
}

/* ---- Whole registers -------------------------------------------------------- */

static unsigned registers(const struct soft_cpu *c)
{
	return c->mode & MODE_CS64 ? 16 : 8;
}

OP_FN(vex_zeroupper)
{
	memset(c->s.fpu.ymmh, 0, 16 * registers(c));
	return op + 1;
}

OP_FN(vex_zeroall)
{
	memset(c->s.fpu.xmm, 0, 16 * registers(c));
	memset(c->s.fpu.ymmh, 0, 16 * registers(c));
	return op + 1;
}

OP_FN(vex_mov_rr128)
{
	XMM(c, op->dst) = XMM(c, op->src);
	YMMH(c, op->dst) = (v2di){ 0, 0 };
	NEXT(c, op);
}

OP_FN(vex_mov_rr256)
{
	XMM(c, op->dst) = XMM(c, op->src);
	YMMH(c, op->dst) = YMMH(c, op->src);
	NEXT(c, op);
}

static inline const struct soft_op *load(struct soft_cpu *c, const struct soft_op *op,
					 const simd_m16u *s, bool wide)
{
	XMM(c, op->dst) = s[0];
	YMMH(c, op->dst) = wide ? s[1] : (v2di){ 0, 0 };
	NEXT(c, op);
}

#define LOAD(bits)								\
COLD load##bits##_slow(struct soft_cpu *c, const struct soft_op *op)		\
{										\
	return load(c, op, simd_load_slow(c, op, soft_ea(c, op), bits / 8), bits == 256); \
}										\
OP_FN(vex_load##bits)								\
{										\
	uint64_t lin = soft_ea(c, op);						\
	const struct tlb_entry *t = TLB_ENTRY(c, lin);				\
										\
	if (unlikely(lin & op->imm))						\
		return simd_misaligned(c, op);					\
	if (unlikely(lin - t->rtag > 4096 - bits / 8))				\
		return load##bits##_slow(c, op);				\
	return load(c, op, (const simd_m16u *)(lin + t->addend), bits == 256);	\
}
LOAD(128)
LOAD(256)

COLD store_slow(struct soft_cpu *c, const struct soft_op *op)
{
	memcpy(c->fp_tmp, &XMM(c, op->src), 16);
	memcpy(c->fp_tmp + 16, &YMMH(c, op->src), 16);
	soft_store_bytes(c, op, soft_ea(c, op), c->fp_tmp, op->size);
	return op + 1;
}

#define STORE(bits)								\
OP_FN(vex_store##bits)								\
{										\
	uint64_t lin = soft_ea(c, op);						\
	const struct tlb_entry *t = TLB_ENTRY(c, lin);				\
	simd_m16u *p;								\
										\
	if (unlikely(lin & op->imm))						\
		return simd_misaligned(c, op);					\
	if (unlikely(lin - t->wtag > 4096 - bits / 8))				\
		return store_slow(c, op);					\
	p = (simd_m16u *)(lin + t->addend);					\
	p[0] = XMM(c, op->src);							\
	if (bits == 256)							\
		p[1] = YMMH(c, op->src);					\
	NEXT(c, op);								\
}
STORE(128)
STORE(256)

/* ---- Element by element -------------------------------------------------------- */

/* A register as 32 bytes. */
static void get_wide(const struct soft_cpu *c, unsigned reg, uint8_t out[32])
{
	memcpy(out, (const char *)c->s.fpu.xmm + reg, 16);
	memcpy(out + 16, (const char *)c->s.fpu.ymmh + reg, 16);
}

static void set_wide(struct soft_cpu *c, unsigned reg, const uint8_t in[32])
{
	memcpy((char *)c->s.fpu.xmm + reg, in, 16);
	memcpy((char *)c->s.fpu.ymmh + reg, in + 16, 16);
}

/* The sign of element i. */
static bool selected(const uint8_t mask[32], unsigned i, unsigned size)
{
	return mask[i * size + size - 1] & 0x80;
}

/* None of these raises #AC, which single bytes do not, either. */
static void load_element(struct soft_cpu *c, const struct soft_op *op, uint64_t lin, unsigned size,
			 uint8_t *out)
{
	uint64_t v;

	if (unlikely(c->alignment_check)) {
		for (unsigned i = 0; i < size; i++)
			out[i] = soft_ld8(c, op, lin + i);
		return;
	}
	v = soft_load(c, op, lin, size);
	memcpy(out, &v, size);
}

static void store_element(struct soft_cpu *c, const struct soft_op *op, uint64_t lin,
			  unsigned size, const uint8_t *in)
{
	uint64_t v = 0;

	if (unlikely(c->alignment_check)) {
		for (unsigned i = 0; i < size; i++)
			soft_st8(c, op, lin + i, in[i]);
		return;
	}
	memcpy(&v, in, size);
	soft_store(c, op, lin, size, v);
}

/* The linear address of size bytes at this offset into the operand. */
static uint64_t element_at(struct soft_cpu *c, const struct soft_op *op, uint64_t off,
			   unsigned size, bool write)
{
	return soft_seg_lin(c, op, op->seg, off, size, write);
}

/* By the address size. */
static uint64_t truncate_offset(const struct soft_op *op, uint64_t off)
{
	if (op->flags & OPF_ADDR32)
		return (uint32_t)off;
	return op->flags & OPF_ADDR16 ? (uint16_t)off : off;
}

static uint64_t mask_offset(const struct soft_cpu *c, const struct soft_op *op)
{
	return truncate_offset(op, R64(c, op->base) + (R64(c, op->index) << op->scale) + op->imm);
}

static const struct soft_op *mask_load(struct soft_cpu *c, const struct soft_op *op, unsigned size)
{
	uint64_t off = mask_offset(c, op);
	uint8_t mask[32], v[32] = { 0 };

	get_wide(c, op->src, mask);
	for (unsigned i = 0; i < op->size; i += size)
		if (selected(mask, i / size, size))
			load_element(c, op, element_at(c, op, off + i, size, false), size, v + i);
	set_wide(c, op->dst, v);
	return op + 1;
}

/* Nothing is stored unless all can be. */
static const struct soft_op *mask_store(struct soft_cpu *c, const struct soft_op *op, unsigned size)
{
	uint64_t off = mask_offset(c, op), lin[8];
	uint8_t mask[32], v[32];

	get_wide(c, op->src, mask);
	get_wide(c, op->dst, v);
	for (unsigned i = 0; i < op->size / size; i++)
		if (selected(mask, i, size)) {
			lin[i] = element_at(c, op, off + i * size, size, true);
			soft_check_write(c, op, lin[i], 1);
			soft_check_write(c, op, lin[i] + size - 1, 1);
		}
	for (unsigned i = 0; i < op->size / size; i++)
		if (selected(mask, i, size))
			store_element(c, op, lin[i], size, v + i * size);
	return op + 1;
}

OP_FN(vex_mask_load32)
{
	return mask_load(c, op, 4);
}

OP_FN(vex_mask_load64)
{
	return mask_load(c, op, 8);
}

OP_FN(vex_mask_store32)
{
	return mask_store(c, op, 4);
}

OP_FN(vex_mask_store64)
{
	return mask_store(c, op, 8);
}

/* The linear address of one element. */
static uint64_t gather_at(struct soft_cpu *c, const struct soft_op *op, const uint8_t *index,
			  unsigned index_size, unsigned size)
{
	int64_t n = index_size == 4 ? (int32_t)load32(index) : (int64_t)load64(index);
	uint64_t off = R64(c, op->base) + ((uint64_t)n << op->scale) + (uint64_t)(int64_t)op->disp;

	return element_at(c, op, truncate_offset(op, off), size, false);
}

/*
 * Elements are loaded one after the other; where one faults, those before it stay loaded and are
 * no longer selected, so that the instruction goes on with the one that faulted.  The mask has all
 * bits of an element alike by then.
 */
OP_FN(vex_gather)
{
	unsigned index_size = op->imm >> 8 & 0xff, size = op->imm >> 16 & 0xff;
	unsigned count = op->imm >> 24 & 0xff, length = op->imm >> 32 & 1 ? 32 : 16;
	uint8_t index[32], mask[32], v[32];

	get_wide(c, (op->imm & 15) * 16, index);
	get_wide(c, op->src, mask);
	get_wide(c, op->dst, v);
	for (unsigned i = 0; i < length / size; i++)
		memset(mask + i * size, selected(mask, i, size) ? 0xff : 0, size);
	memset(mask + length, 0, 32 - length);
	memset(v + length, 0, 32 - length);
	set_wide(c, op->src, mask);
	for (unsigned i = 0; i < count; i++) {
		if (!selected(mask, i, size))
			continue;
		load_element(c, op, gather_at(c, op, index + i * index_size, index_size, size), size,
			     v + i * size);
		memset(mask + i * size, 0, size);
		set_wide(c, op->dst, v);
		set_wide(c, op->src, mask);
	}
	memset(v + count * size, 0, 32 - count * size);
	memset(mask, 0, sizeof mask);
	set_wide(c, op->dst, v);
	set_wide(c, op->src, mask);
	return op + 1;
}
