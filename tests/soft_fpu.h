/*
 * The SSE, MMX and x87 handlers without the rest of the soft processor: one page
 * of memory, and what they call.
 */
#ifndef SKEP_TESTS_SOFT_FPU_H
#define SKEP_TESTS_SOFT_FPU_H

/* With all of GNU, <ucontext.h> takes the names REG_*. */
#undef _GNU_SOURCE
#define _DEFAULT_SOURCE

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <ucontext.h>

#include <cmocka.h>

#include "cpu/soft/exec_x87.h"
#include "cpu/soft/simd_special.h"
#include "vm/vm.h"

/* ---- What the handlers call ------------------------------------------------- */

#define LIN	0x10000ull
#define PAGE	4096u

static struct soft_cpu *cpu;
static struct tlb_entry tlb[TLB_SIZE];
static _Alignas(4096) uint8_t guest_page[PAGE];
static sigjmp_buf raised;
static unsigned raised_vector;
static bool xgetbv1 = true;

_Noreturn void soft_raise(struct soft_cpu *c, const struct soft_op *op, unsigned vector)
{
	raised_vector = vector;
	siglongjmp(raised, 1);
}

_Noreturn void soft_raise_err(struct soft_cpu *c, const struct soft_op *op, unsigned vector,
			      uint32_t error)
{
	soft_raise(c, op, vector);
}

static void *place(struct soft_cpu *c, const struct soft_op *op, uint64_t lin, unsigned size)
{
	if (lin < LIN || lin + size > LIN + PAGE)
		soft_raise(c, op, EXC_PF);
	return guest_page + (lin - LIN);
}

void soft_load_bytes(struct soft_cpu *c, const struct soft_op *op, uint64_t lin, void *buf,
		     unsigned size)
{
	memcpy(buf, place(c, op, lin, size), size);
}

void soft_store_bytes(struct soft_cpu *c, const struct soft_op *op, uint64_t lin,
		      const void *buf, unsigned size)
{
	memcpy(place(c, op, lin, size), buf, size);
}

void soft_check_write(struct soft_cpu *c, const struct soft_op *op, uint64_t lin, unsigned size)
{
	place(c, op, lin, size);
}

uint64_t soft_load(struct soft_cpu *c, const struct soft_op *op, uint64_t lin, unsigned size)
{
	uint64_t v = 0;

	soft_load_bytes(c, op, lin, &v, size);
	return v;
}

uint64_t soft_load_slow(struct soft_cpu *c, const struct soft_op *op, uint64_t lin, unsigned size)
{
	return soft_load(c, op, lin, size);
}

void soft_store_slow(struct soft_cpu *c, const struct soft_op *op, uint64_t lin, unsigned size,
		     uint64_t v)
{
	soft_store_bytes(c, op, lin, &v, size);
}

uint64_t soft_seg_lin(struct soft_cpu *c, const struct soft_op *op, unsigned seg, uint64_t off,
		      unsigned size, bool write)
{
	return off;
}

void soft_update_mode(struct soft_cpu *c)
{
	c->mode &= ~MODE_FPSTRICT;
	if ((c->s.fpu.mxcsr & 0x1f80) != 0x1f80)
		c->mode |= MODE_FPSTRICT;
}

static unsigned ferr_pulses;

static void ferr_set(void *opaque, int n, int level)
{
	ferr_pulses += level;
}

struct irq_line chipset_gsi(struct vm *vm, unsigned gsi)
{
	assert_int_equal(gsi, 13);
	return (struct irq_line){ .set = ferr_set };
}

void soft_cpuid(struct soft_cpu *c, uint32_t leaf, uint32_t sub, uint32_t out[4])
{
	out[0] = xgetbv1 ? 7 : 3;
}

const struct soft_op *op_ud(struct soft_cpu *c, const struct soft_op *op)
{
	soft_raise(c, op, EXC_UD);
}

uint8_t soft_slot_of(ZydisRegister reg)
{
	if (reg >= ZYDIS_REGISTER_AX && reg <= ZYDIS_REGISTER_R15W)
		return SLOT(reg - ZYDIS_REGISTER_AX);
	if (reg >= ZYDIS_REGISTER_EAX && reg <= ZYDIS_REGISTER_R15D)
		return SLOT(reg - ZYDIS_REGISTER_EAX);
	if (reg >= ZYDIS_REGISTER_RAX && reg <= ZYDIS_REGISTER_R15)
		return SLOT(reg - ZYDIS_REGISTER_RAX);
	return SLOT(SLOT_ZERO);
}

uint8_t soft_reg_number(ZydisRegister reg)
{
	return reg == ZYDIS_REGISTER_DS ? SEG_DS : (uint8_t)ZydisRegisterGetId(reg);
}

static void host_fpu_default(void)
{
	static const uint32_t mxcsr = 0x1f80;

	asm volatile("fninit\n\tldmxcsr %0" : : "m"(mxcsr));
}

/* ---- The soft processor -------------------------------------------------------------- */

static const struct soft_op *op_stop(struct soft_cpu *c, const struct soft_op *op)
{
	return NULL;
}

static void image_to_cpu(const uint8_t *in)
{
	struct cpu_fpu *f = &cpu->s.fpu;
	unsigned i;

	memset(f, 0, sizeof *f);
	f->fcw = load16(in);
	f->fsw = load16(in + 2);
	f->ftw = in[4];
	f->mxcsr = load32(in + 24);
	for (i = 0; i < 8; i++)
		memcpy(x87_st(cpu, i), in + 32 + 16 * i, 10);
	memcpy(f->xmm, in + 160, 256);
}

static unsigned host_dirty;

struct decoded {
	ZydisDecodedInstruction insn;
	ZydisDecodedOperand op[ZYDIS_MAX_OPERAND_COUNT];
	struct soft_decode d;
	struct soft_op ops[4];
};

/* Decodes as the core does, for memory operands at [rsi]. False: not ours or not an instruction. */
static bool decode(struct decoded *x, const uint8_t *insn, unsigned len)
{
	ZydisDecoder z;
	struct soft_op op = { .base = SLOT(SLOT_ZERO), .index = SLOT(SLOT_ZERO), .seg = SEG_DS };
	unsigned i, n = 0;

	ZydisDecoderInit(&z, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
	if (!ZYAN_SUCCESS(ZydisDecoderDecodeFull(&z, insn, len, &x->insn, x->op)) ||
	    x->insn.length != len)
		return false;
	memset(&x->d, 0, sizeof x->d);
	x->d.c = cpu;
	x->d.mode = cpu->mode;
	x->d.insn = &x->insn;
	x->d.op = x->op;
	x->d.opsize = x->insn.operand_width / 8;
	x->d.mem = -1;
	for (i = 0; i < x->insn.operand_count_visible; i++)
		if (x->op[i].type == ZYDIS_OPERAND_TYPE_MEMORY)
			x->d.mem = (int)i;
	if (x->d.mem >= 0) {
		op.base = soft_slot_of(x->op[x->d.mem].mem.base);
		op.flags = OPF_MEM;
	}
	op.len = (uint8_t)len;
	op.size = (uint8_t)x->d.opsize;
	if (!soft_decode_sse(&x->d, &op) && !soft_decode_x87(&x->d, &op))
		return false;
	if (x->d.before.fn)
		x->ops[n++] = x->d.before;
	x->ops[n++] = op;
	if (x->d.after.fn)
		x->ops[n++] = x->d.after;
	x->ops[n] = (struct soft_op){ .fn = op_stop };
	return true;
}

/* The host's x87 as the handlers have to leave it: empty, default control word, no exception. */
static void note_host_x87(void)
{
	struct { uint32_t cw, sw, tag, rest[4]; } env;

	asm volatile("fnstenv %0" : "=m"(env));
	if ((env.cw & 0xffff) != FCW_INIT || (env.tag & 0xffff) != 0xffff || (env.sw & 0xbf))
		host_dirty++;
}

/* Runs it. False: it raised raised_vector. */
static bool run_soft(const struct decoded *x)
{
	const struct soft_op *volatile op = x->ops;
	volatile bool ok = false;

	soft_mxcsr_load(cpu);
	if (sigsetjmp(raised, 0) == 0) {
		while (op)
			op = op->fn(cpu, op);
		ok = true;
	}
	soft_mxcsr_sync(cpu);
	note_host_x87();
	host_fpu_default();
	return ok;
}

/* A 64-bit processor with one page of memory at LIN. */
static void cpu_create(void)
{
	cpu = aligned_alloc(64, ALIGN_UP(sizeof *cpu, 64));
	assert_non_null(cpu);
	memset(cpu, 0, sizeof *cpu);
	for (unsigned i = 0; i < TLB_SIZE; i++)
		tlb[i].rtag = tlb[i].wtag = (uint64_t)i << 12 ^ 0x1000;	/* nobody's */
	tlb[LIN >> 12 & (TLB_SIZE - 1)] = (struct tlb_entry){
		.rtag = LIN, .wtag = LIN, .addend = (uintptr_t)guest_page - LIN,
		.page = (uintptr_t)guest_page,
	};
	cpu->tlb = tlb;
	cpu->mode = MODE_CS64 | MODE_PE | MODE_LMA | MODE_FLAT;
	cpu->ip_mask = ~0ull;
	cpu->s.cr0 = CR0_PE | CR0_NE | CR0_MP | CR0_ET;
	cpu->s.cr4 = CR4_OSFXSR | CR4_OSXMMEXCPT | CR4_OSXSAVE;
	cpu->s.xcr0 = 3;
}

#endif
