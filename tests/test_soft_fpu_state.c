/*
 * The FPU of the soft processor where the host cannot be asked: pending
 * exceptions, control bits, images, faults in the middle of an instruction.
 */
#include "soft_fpu.h"

#include "cpu/model.h"

static void fresh(void)
{
	static const uint8_t zeros[512];

	image_to_cpu(zeros);
	cpu->model = cpu_model_find("skep-v2.1");
	memset(guest_page, 0, sizeof guest_page);
	cpu->s.fpu.fcw = FCW_INIT;
	cpu->s.fpu.mxcsr = 0x1f80;
	cpu->s.cr0 = CR0_PE | CR0_NE | CR0_MP | CR0_ET;
	cpu->s.cr4 = CR4_OSFXSR | CR4_OSXMMEXCPT | CR4_OSXSAVE;
	cpu->mode = MODE_CS64 | MODE_PE | MODE_LMA | MODE_FLAT;
	cpu->r[REG_RSI] = LIN;
	cpu->r[REG_RDI] = LIN + 64;
	cpu->r[SLOT_IPBASE] = 0x400000;
	cpu->cpl = 0;
	soft_update_mode(cpu);
}

/* -1: it ran; else the vector that it raised. */
static int execute(const void *insn, unsigned len)
{
	struct decoded x;

	assert_true(decode(&x, insn, len));
	return run_soft(&x) ? -1 : (int)raised_vector;
}

#define RUN(...) execute((const uint8_t[]){ __VA_ARGS__ }, sizeof((const uint8_t[]){ __VA_ARGS__ }))

#define FADD		0xd8, 0xc1
#define FNINIT		0xdb, 0xe3
#define FWAIT		0x9b
#define PADDB_MM	0x0f, 0xfc, 0xc1
#define PADDB_XMM	0x66, 0x0f, 0xfc, 0xc1
#define MOVAPS_LOAD	0x0f, 0x28, 0x06
#define MOVUPS_LOAD	0x0f, 0x10, 0x06
#define MOVAPS_STORE	0x0f, 0x29, 0x06
#define DIVSS		0xf3, 0x0f, 0x5e, 0xc1
#define FXSAVE		0x0f, 0xae, 0x06
#define FXRSTOR		0x0f, 0xae, 0x0e
#define XSAVE		0x0f, 0xae, 0x26
#define XSAVEC		0x0f, 0xc7, 0x26
#define XSAVEOPT	0x0f, 0xae, 0x36
#define XRSTOR		0x0f, 0xae, 0x2e
#define LDMXCSR		0x0f, 0xae, 0x16
#define XGETBV		0x0f, 0x01, 0xd0
#define XSETBV		0x0f, 0x01, 0xd1

static void pending_exceptions(void **state)
{
	static struct vm vm = { .chipset = (struct chipset *)&vm };

	pthread_mutex_init(&vm.device_lock, NULL);
	fresh();
	cpu->s.fpu.fcw &= (uint16_t)~FSW_ZE;
	cpu->s.fpu.fsw = FSW_ZE | FSW_ES | FSW_B;
	cpu->s.fpu.ftw = 0xff;
	assert_int_equal(RUN(FADD), EXC_MF);
	assert_int_equal(RUN(FWAIT), EXC_MF);
	assert_int_equal(RUN(PADDB_MM), EXC_MF);
	assert_int_equal(RUN(0x0f, 0x77), EXC_MF);
	assert_int_equal(RUN(PADDB_XMM), -1);
	assert_int_equal(RUN(0xdd, 0x3e), -1);			/* fnstsw */
	assert_int_equal(load16(guest_page), FSW_ZE | FSW_ES | FSW_B);
	/* FERR# instead: the processor stands before the instruction. */
	cpu->s.cr0 &= ~CR0_NE;
	cpu->rip = 0;
	cpu->vm = &vm;
	assert_int_equal(RUN(FADD), -1);
	assert_int_equal(ferr_pulses, 1);
	assert_int_equal(cpu->rip, 0x400000);
	assert_int_equal(cpu->s.fpu.ftw, 0xff);
	assert_int_equal(RUN(0xdb, 0xe2), -1);			/* fnclex */
	assert_int_equal(cpu->s.fpu.fsw, 0);
	assert_int_equal(RUN(FADD), -1);
	assert_int_equal(ferr_pulses, 1);
	cpu->vm = NULL;
}

static void unavailable(void **state)
{
	fresh();
	cpu->s.cr0 |= CR0_TS;
	cpu->mode |= MODE_NOFPU | MODE_NOSSE;
	assert_int_equal(RUN(FADD), EXC_NM);
	assert_int_equal(RUN(FNINIT), EXC_NM);
	assert_int_equal(RUN(FWAIT), EXC_NM);
	assert_int_equal(RUN(PADDB_MM), EXC_NM);
	assert_int_equal(RUN(PADDB_XMM), EXC_NM);
	assert_int_equal(RUN(FXSAVE), EXC_NM);
	assert_int_equal(RUN(XSAVE), EXC_NM);
	assert_int_equal(RUN(LDMXCSR), EXC_NM);
	cpu->s.cr0 &= ~CR0_MP;
	assert_int_equal(RUN(FWAIT), -1);
	cpu->s.cr0 = (cpu->s.cr0 & ~CR0_TS) | CR0_EM;
	assert_int_equal(RUN(FADD), EXC_NM);
	assert_int_equal(RUN(FWAIT), -1);
	assert_int_equal(RUN(PADDB_MM), EXC_UD);
	assert_int_equal(RUN(PADDB_XMM), EXC_UD);
	assert_int_equal(RUN(FXSAVE), EXC_NM);
	assert_int_equal(RUN(XSAVE), -1);
	fresh();
	cpu->s.cr4 = 0;
	cpu->mode |= MODE_NOSSE;
	assert_int_equal(RUN(PADDB_MM), -1);
	assert_int_equal(RUN(PADDB_XMM), EXC_UD);
	assert_int_equal(RUN(LDMXCSR), EXC_UD);
	assert_int_equal(RUN(XSAVE), EXC_UD);
	assert_int_equal(RUN(XGETBV), EXC_UD);
	assert_int_equal(RUN(FXSAVE), -1);
}

/* Alignment, faults in the middle, and nothing changed by them. */
static void memory_faults(void **state)
{
	fresh();
	memset(cpu->s.fpu.xmm[0], 0x5a, 16);
	cpu->r[REG_RSI] = LIN + 8;
	assert_int_equal(RUN(MOVAPS_LOAD), EXC_GP);
	assert_int_equal(RUN(MOVAPS_STORE), EXC_GP);
	assert_int_equal(RUN(0x66, 0x0f, 0xfc, 0x06), EXC_GP);	/* paddb xmm0, [rsi] */
	assert_int_equal(RUN(MOVUPS_LOAD), -1);
	memset(cpu->s.fpu.xmm[0], 0x5a, 16);
	cpu->r[REG_RSI] = LIN + PAGE - 8;			/* across the end */
	assert_int_equal(RUN(MOVUPS_LOAD), EXC_PF);
	assert_int_equal(cpu->s.fpu.xmm[0][0], 0x5a);
	/* FSTP m80 at the end of the page: TOP and tags stay. */
	cpu->s.fpu.ftw = 1;
	cpu->r[REG_RSI] = LIN + PAGE - 4;
	assert_int_equal(RUN(0xdb, 0x3e), EXC_PF);
	assert_int_equal(cpu->s.fpu.ftw, 1);
	assert_int_equal(cpu->s.fpu.fsw, 0);
	/* An empty register to be stored: no flags either when the store faults. */
	cpu->s.fpu.ftw = 0;
	assert_int_equal(RUN(0xdd, 0x1e), EXC_PF);		/* fstp m64 */
	assert_int_equal(cpu->s.fpu.fsw, 0);
	/* MMX: the change of state comes after the fault. */
	assert_int_equal(RUN(0x0f, 0xfc, 0x06), EXC_PF);	/* paddb mm0, [rsi] */
	assert_int_equal(cpu->s.fpu.ftw, 0);
	/* Images. */
	cpu->r[REG_RSI] = LIN + 8;
	assert_int_equal(RUN(FXSAVE), EXC_GP);
	cpu->r[REG_RSI] = LIN + 16;
	assert_int_equal(RUN(XSAVE), EXC_GP);
	cpu->r[REG_RSI] = LIN + PAGE - 64;
	cpu->r[REG_RAX] = 3;
	assert_int_equal(RUN(XSAVE), EXC_PF);
	assert_int_equal(guest_page[PAGE - 64], 0);
}

static void byte_masks(void **state)
{
	fresh();
	memset(guest_page, 0x11, 64 + 16);
	memset(cpu->s.fpu.xmm[0], 0x77, 16);
	memset(cpu->s.fpu.xmm[1], 0, 16);
	cpu->r[REG_RDI] = LIN + PAGE + 100;
	/* No byte selected: memory is not touched. */
	assert_int_equal(RUN(0x66, 0x0f, 0xf7, 0xc1), -1);
	cpu->s.fpu.xmm[1][3] = 0x80;
	assert_int_equal(RUN(0x66, 0x0f, 0xf7, 0xc1), EXC_PF);
	/* The first bytes before the end of the page, the others not selected. */
	cpu->r[REG_RDI] = LIN + PAGE - 4;
	assert_int_equal(RUN(0x66, 0x0f, 0xf7, 0xc1), -1);
	assert_int_equal(guest_page[PAGE - 1], 0x77);
	assert_int_equal(guest_page[PAGE - 2], 0);
	cpu->s.fpu.xmm[1][5] = 0x80;
	guest_page[PAGE - 1] = 0;
	assert_int_equal(RUN(0x66, 0x0f, 0xf7, 0xc1), EXC_PF);
	assert_int_equal(guest_page[PAGE - 1], 0);
}

static void reserved_bits(void **state)
{
	fresh();
	store32(guest_page, 0x00010000);
	assert_int_equal(RUN(LDMXCSR), EXC_GP);
	store32(guest_page, 0x9fc0);
	assert_int_equal(RUN(LDMXCSR), -1);
	assert_int_equal(cpu->s.fpu.mxcsr, 0x9fc0);
	store32(guest_page + 24, 0x80001f80);
	assert_int_equal(RUN(FXRSTOR), EXC_GP);
	cpu->r[REG_RAX] = 3;
	cpu->r[REG_RDX] = 0;
	assert_int_equal(RUN(XRSTOR), EXC_GP);			/* MXCSR */
	cpu->r[REG_RAX] = 1;
	assert_int_equal(RUN(XRSTOR), -1);			/* is not asked for */
	store32(guest_page + 24, 0x1f80);
	store64(guest_page + 512, 4);				/* not in XCR0 */
	assert_int_equal(RUN(XRSTOR), EXC_GP);
	store64(guest_page + 512, 1);
	store64(guest_page + 520, 1);				/* XCOMP_BV, not compacted */
	assert_int_equal(RUN(XRSTOR), EXC_GP);
	store64(guest_page + 520, BIT(63) | 2);			/* XSTATE_BV beyond it */
	assert_int_equal(RUN(XRSTOR), EXC_GP);
	store64(guest_page + 520, BIT(63) | 3);
	assert_int_equal(RUN(XRSTOR), -1);
	store64(guest_page + 528, 1);
	assert_int_equal(RUN(XRSTOR), EXC_GP);
}

static void xcr0(void **state)
{
	fresh();
	cpu->r[REG_RCX] = cpu->r[REG_RDX] = 0;
	cpu->r[REG_RAX] = 1;
	assert_int_equal(RUN(XSETBV), -1);
	assert_int_equal(cpu->s.xcr0, 1);
	cpu->r[REG_RAX] = 2;
	assert_int_equal(RUN(XSETBV), EXC_GP);
	cpu->r[REG_RAX] = 7;
	assert_int_equal(RUN(XSETBV), EXC_GP);
	cpu->r[REG_RAX] = 3;
	cpu->cpl = 3;
	assert_int_equal(RUN(XSETBV), EXC_GP);
	cpu->cpl = 0;
	cpu->r[REG_RCX] = 1;
	assert_int_equal(RUN(XSETBV), EXC_GP);
	assert_int_equal(RUN(XGETBV), -1);			/* XCR0 & XINUSE */
	assert_int_equal(cpu->r[REG_RAX], 0);
	xgetbv1 = false;
	assert_int_equal(RUN(XGETBV), EXC_GP);
	cpu->r[REG_RCX] = 2;
	assert_int_equal(RUN(XGETBV), EXC_GP);
	cpu->r[REG_RCX] = 0;
	assert_int_equal(RUN(XGETBV), -1);
	assert_int_equal(cpu->r[REG_RAX], 1);
	cpu->s.xcr0 = 3;
}

/* XINUSE is a function of the state: initial components are not written by XSAVEC. */
static void initial_components(void **state)
{
	fresh();
	memset(guest_page, 0xaa, 512);
	cpu->r[REG_RAX] = 3;
	cpu->r[REG_RDX] = 0;
	assert_int_equal(RUN(XSAVEC), -1);
	assert_int_equal(load64(guest_page + 512), 0);
	assert_true(load64(guest_page + 520) == (BIT(63) | 3));
	assert_int_equal(load16(guest_page), 0xaaaa);
	cpu->s.fpu.mxcsr = 0x3f80;				/* counts as SSE in use */
	assert_int_equal(RUN(XSAVEC), -1);
	assert_int_equal(load64(guest_page + 512), 2);
	assert_int_equal(load32(guest_page + 24), 0x3f80);
	assert_int_equal(RUN(XSAVE), -1);
	assert_int_equal(load64(guest_page + 512), 0);
	assert_int_equal(load16(guest_page), FCW_INIT);
	/* Restoring "initial" in the compacted form resets MXCSR as well. */
	store64(guest_page + 512, 0);
	cpu->s.fpu.ftw = 0x80;
	memset(cpu->s.fpu.xmm[3], 1, 16);
	store64(guest_page + 520, BIT(63) | 3);
	assert_int_equal(RUN(XRSTOR), -1);
	assert_int_equal(cpu->s.fpu.mxcsr, 0x1f80);
	assert_int_equal(cpu->s.fpu.ftw, 0);
	assert_int_equal(cpu->s.fpu.xmm[3][0], 0);
}

/* The values of XCR0 that cpu.model=skep-v3.1 takes: AVX with SSE only, and nothing else new. */
static void xcr0_avx(void **state)
{
	static const uint8_t taken[] = { 1, 3, 7 };

	fresh();
	cpu->model = cpu_model_find("skep-v3.1");
	cpu->r[REG_RCX] = cpu->r[REG_RDX] = 0;
	for (unsigned v = 0; v < 32; v++) {
		bool ok = memchr(taken, (int)v, sizeof taken);

		cpu->r[REG_RAX] = v;
		assert_int_equal(RUN(XSETBV), ok ? -1 : EXC_GP);
		if (ok)
			assert_int_equal(cpu->s.xcr0, v);
	}
	cpu->r[REG_RAX] = 7;
	cpu->r[REG_RDX] = 1;
	assert_int_equal(RUN(XSETBV), EXC_GP);
	cpu->s.xcr0 = 3;
}

#define AREA(n) (guest_page + (n))

static void avx_fresh(void)
{
	fresh();
	cpu->model = cpu_model_find("skep-v3.1");
	cpu->s.xcr0 = 7;
	cpu->r[REG_RDX] = 0;
	memset(AREA(0), 0xaa, 1024);
	memset(AREA(512), 0, 64);
}

static bool all(const uint8_t *p, unsigned n, uint8_t v)
{
	while (n--)
		if (*p++ != v)
			return false;
	return true;
}

/* SDM vol. 1, 13.4 and 13.7: component 2 is 256 bytes at 576. */
static void avx_saved(void **state)
{
	avx_fresh();
	for (unsigned i = 0; i < 16; i++)
		memset(cpu->s.fpu.ymmh[i], (int)i + 1, 16);
	cpu->r[REG_RAX] = 4;
	cpu->s.fpu.mxcsr = 0x3f80;
	assert_int_equal(RUN(XSAVE), -1);
	assert_int_equal(load64(AREA(512)), 4);
	assert_memory_equal(AREA(576), cpu->s.fpu.ymmh, 256);
	assert_true(all(AREA(832), 192, 0xaa));
	/* The registers of neither x87 nor SSE, but MXCSR, which belongs to AVX as well. */
	assert_true(all(AREA(0), 24, 0xaa) && all(AREA(32), 480, 0xaa));
	assert_int_equal(load32(AREA(24)), 0x3f80);
	/* Not so in the compacted form. */
	memset(AREA(0), 0xaa, 512);
	assert_int_equal(RUN(XSAVEC), -1);
	assert_int_equal(load64(AREA(512)), 4);
	assert_true(load64(AREA(520)) == (BIT(63) | 4));
	assert_true(all(AREA(0), 512, 0xaa));
	/* An initial component is not written by XSAVEC and XSAVEOPT, and is by XSAVE. */
	memset(cpu->s.fpu.ymmh, 0, sizeof cpu->s.fpu.ymmh);
	memset(AREA(576), 0xaa, 256);
	store64(AREA(520), 0);
	assert_int_equal(RUN(XSAVEOPT), -1);
	assert_int_equal(load64(AREA(512)), 0);
	assert_true(all(AREA(576), 256, 0xaa));
	assert_int_equal(RUN(XSAVE), -1);
	assert_true(all(AREA(576), 256, 0));
	/* XCR0 says what is saved. */
	cpu->s.xcr0 = 3;
	cpu->r[REG_RAX] = 7;
	memset(AREA(576), 0xaa, 256);
	memset(cpu->s.fpu.ymmh, 0x55, sizeof cpu->s.fpu.ymmh);
	assert_int_equal(RUN(XSAVE), -1);
	assert_true(all(AREA(576), 256, 0xaa));
}

static void avx_restored(void **state)
{
	avx_fresh();
	memset(cpu->s.fpu.xmm, 0x11, sizeof cpu->s.fpu.xmm);
	cpu->r[REG_RAX] = 4;
	store64(AREA(512), 4);
	store32(AREA(24), 0x5f80);
	assert_int_equal(RUN(XRSTOR), -1);
	assert_memory_equal(cpu->s.fpu.ymmh, AREA(576), 256);
	assert_true(all(cpu->s.fpu.xmm[0], 256, 0x11));
	assert_int_equal(cpu->s.fpu.mxcsr, 0x5f80);
	/* MXCSR is checked with AVX alone, too, in the standard form only. */
	store32(AREA(24), 0x10000);
	assert_int_equal(RUN(XRSTOR), EXC_GP);
	store64(AREA(520), BIT(63) | 4);
	assert_int_equal(RUN(XRSTOR), -1);
	assert_int_equal(cpu->s.fpu.mxcsr, 0x5f80);
	/* Initial. */
	store64(AREA(512), 0);
	assert_int_equal(RUN(XRSTOR), -1);
	assert_true(all(cpu->s.fpu.ymmh[0], 256, 0));
	/* A component that XCR0 has not. */
	store64(AREA(512), 4);
	cpu->s.xcr0 = 3;
	assert_int_equal(RUN(XRSTOR), EXC_GP);
	/* Where the component is not there, nothing changes. */
	avx_fresh();
	memcpy(AREA(PAGE - 768), AREA(0), 768);
	store64(AREA(PAGE - 768 + 512), 7);
	store32(AREA(PAGE - 768 + 24), 0x1f80);
	cpu->r[REG_RAX] = 7;
	cpu->r[REG_RSI] = LIN + PAGE - 768;
	assert_int_equal(RUN(XRSTOR), EXC_PF);
	assert_true(all(cpu->s.fpu.xmm[0], 256, 0));
	assert_int_equal(cpu->s.fpu.fcw, FCW_INIT);
}

/* FIP, FDP, FOP: offsets of the guest; in images only with an exception pending. */
static void pointers(void **state)
{
	fresh();
	assert_int_equal(RUN(0xd9, 0x06), -1);			/* fld m32 */
	assert_true(cpu->s.fpu.fip == 0x400000);
	assert_true(cpu->s.fpu.fdp == 0);			/* no exception */
	assert_int_equal(cpu->s.fpu.fop, 0x106);
	assert_int_equal(RUN(0x48, FXSAVE), -1);
	assert_true(load64(guest_page + 8) == 0 && load64(guest_page + 16) == 0);
	cpu->s.fpu.fcw &= (uint16_t)~FSW_ZE;
	memset(guest_page, 0, 576);
	cpu->r[SLOT_IPBASE] = 0x412340;
	assert_int_equal(RUN(0xd9, 0xe8), -1);			/* fld1 */
	assert_int_equal(RUN(0xd8, 0x36), -1);			/* fdiv m32: by zero */
	assert_true(cpu->s.fpu.fdp == LIN);
	assert_int_equal(cpu->s.fpu.fsw & (FSW_ES | FSW_ZE), FSW_ES | FSW_ZE);
	assert_int_equal(RUN(0x48, FXSAVE), -1);
	assert_true(load64(guest_page + 8) == 0x412340);
	assert_true(load64(guest_page + 16) == LIN);
	assert_int_equal(load16(guest_page + 6), 0x036);
	/* And back; without the pending exception they become zero. */
	x87_init(cpu);
	assert_int_equal(RUN(0x48, FXRSTOR), -1);
	assert_true(cpu->s.fpu.fip == 0x412340);
	store16(guest_page, FCW_INIT);
	assert_int_equal(RUN(0x48, FXRSTOR), -1);
	assert_true(cpu->s.fpu.fip == 0);
	assert_int_equal(cpu->s.fpu.fsw & FSW_ES, 0);
}

/* Outside 64-bit mode XMM8-15 are neither saved nor changed. */
static void legacy_mode(void **state)
{
	struct decoded x;
	static const uint8_t save[] = { FXSAVE }, load[] = { FXRSTOR }, env[] = { 0xd9, 0x36 };

	fresh();
	memset(cpu->s.fpu.xmm[8], 0x88, 16);
	memset(guest_page, 0xaa, 512);
	assert_true(decode(&x, save, sizeof save));
	cpu->mode &= ~MODE_CS64;
	assert_true(run_soft(&x));
	assert_int_equal(guest_page[160 + 7 * 16], 0);
	assert_int_equal(guest_page[160 + 8 * 16], 0xaa);
	assert_true(decode(&x, load, sizeof load));
	assert_true(run_soft(&x));
	assert_int_equal(cpu->s.fpu.xmm[8][0], 0x88);
	/* Real mode: linear addresses in the environment, the opcode beside them. */
	cpu->mode = 0;
	cpu->s.fpu.fip = 0x179b8;
	cpu->s.fpu.fop = 0x1c1;
	assert_true(decode(&x, env, sizeof env));
	x.ops[0].size = 2;
	assert_true(run_soft(&x));
	assert_int_equal(load16(guest_page + 6), 0x79b8 & 0xffff);
	assert_int_equal(load16(guest_page + 8), 0x1 << 12 | 0x1c1);
}

/* #UD instead of #XM when the system does not know of it. */
static void no_xmm_exceptions(void **state)
{
	fresh();
	cpu->s.fpu.mxcsr = 0x1f80 & ~0x200u;			/* ZE unmasked */
	soft_update_mode(cpu);
	store32(cpu->s.fpu.xmm[0], 0x3f800000);
	assert_int_equal(RUN(DIVSS), EXC_XM);
	assert_int_equal(cpu->s.fpu.mxcsr & 0x3f, MX_ZE);
	assert_int_equal(load32(cpu->s.fpu.xmm[0]), 0x3f800000);
	cpu->s.cr4 &= ~CR4_OSXMMEXCPT;
	assert_int_equal(RUN(DIVSS), EXC_UD);
}

static int setup(void **state)
{
	cpu_create();
	return 0;
}

static int teardown(void **state)
{
	free(cpu);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(pending_exceptions),
		cmocka_unit_test(unavailable),
		cmocka_unit_test(memory_faults),
		cmocka_unit_test(byte_masks),
		cmocka_unit_test(reserved_bits),
		cmocka_unit_test(xcr0),
		cmocka_unit_test(initial_components),
		cmocka_unit_test(xcr0_avx),
		cmocka_unit_test(avx_saved),
		cmocka_unit_test(avx_restored),
		cmocka_unit_test(pointers),
		cmocka_unit_test(legacy_mode),
		cmocka_unit_test(no_xmm_exceptions),
	};

	return cmocka_run_group_tests_name("state of the FPU", tests, setup, teardown);
}
