/*
 * The FPU from the system's side: #MF and #XM, TS and EM, saved images, what
 * FNINIT and INIT leave.  SDM vol. 1, chapters 8, 10.5 and 13.
 */
#include "lib/guest.h"

#define CR0_MP 2ul
#define CR0_EM 4ul
#define CR0_TS 8ul
#define CR0_NE 32ul
#define CR4_OSFXSR BIT(9)
#define CR4_OSXMMEXCPT BIT(10)
#define CR4_OSXSAVE BIT(18)

struct fxsave {
	u16 fcw, fsw;
	u8 ftw, reserved0;
	u16 fop;
	u64 fip, fdp;
	u32 mxcsr, mxcsr_mask;
	u8 st[8][16];
	u8 xmm[16][16];
	u8 reserved1[96];
	u8 header[64];		/* XSAVE */
	u8 more[4096 - 576];
};

static struct fxsave image __attribute__((aligned(64))), other __attribute__((aligned(64)));
static const u32 one = 0x3f800000, zero = 0, nan_bits = 0x7fa00000;
static u16 cw;
static u32 mxcsr;

SNIPPET(f_div0, "fninit\n fldcw (%rdi)\n fld1\n fldz\n z0: fdivrp\n z1: nop\n z2: fwait\n z3: fnclex\n ret");
SNIPPET(f_div0_next, "fninit\n fldcw (%rdi)\n fld1\n fldz\n fdivrp\n nop\n y1: fld1\n fnclex\n ret");
SNIPPET(f_noncontrol, "fninit\n fldcw (%rdi)\n fld1\n fldz\n fdivrp\n fnstsw %ax\n fnstcw (%rsi)\n fnclex\n ret");
SNIPPET(f_invalid_int, "fninit\n fldcw (%rdi)\n fldz\n fldz\n fdivrp\n w1: fistpl (%rsi)\n fnclex\n ret");
SNIPPET(f_fnop, "fnop\n ret");
SNIPPET(f_fwait, "fwait\n ret");
SNIPPET(f_fninit, "fninit\n ret");
SNIPPET(f_emms, "emms\n ret");
SNIPPET(f_mmx, "paddb %mm0, %mm1\n ret");
SNIPPET(f_sse, "addps %xmm0, %xmm1\n ret");
SNIPPET(f_movups, "movups (%rdi), %xmm0\n ret");
SNIPPET(f_fxsave, "fxsave (%rdi)\n ret");
SNIPPET(f_fxrstor, "fxrstor (%rdi)\n ret");
SNIPPET(f_ldmxcsr, "ldmxcsr (%rdi)\n ret");
SNIPPET(f_clflush, "clflush (%rdi)\n ret");
SNIPPET(f_prefetch, "prefetcht0 (%rdi)\n ret");
SNIPPET(f_movnti, "movnti %eax, (%rdi)\n ret");
SNIPPET(f_pause, "pause\n ret");
SNIPPET(f_lfence, "lfence\n mfence\n sfence\n ret");
SNIPPET(f_crc, "crc32b %al, %ecx\n popcnt %eax, %edx\n ret");
SNIPPET(f_xsave, "mov $-1, %eax\n mov $-1, %edx\n xsave (%rdi)\n ret");
SNIPPET(f_xrstor, "mov $-1, %eax\n mov $-1, %edx\n xrstor (%rdi)\n ret");
SNIPPET(f_xsaveopt, "mov $-1, %eax\n mov $-1, %edx\n xsaveopt (%rdi)\n ret");
SNIPPET(f_xsavec, "mov $-1, %eax\n mov $-1, %edx\n xsavec (%rdi)\n ret");
SNIPPET(f_xgetbv, "mov %edi, %ecx\n xgetbv\n ret");
SNIPPET(f_xsetbv, "xor %ecx, %ecx\n mov %edi, %eax\n xor %edx, %edx\n xsetbv\n ret");
SNIPPET(f_sse_div0, "ldmxcsr (%rdi)\n movss (%rsi), %xmm0\n movss (%rdx), %xmm1\n q0: divss %xmm1, %xmm0\n ret");
SNIPPET(f_sse_div_mem, "ldmxcsr (%rdi)\n movss (%rsi), %xmm0\n r0: divss (%rdx), %xmm0\n ret");

static void x87_exceptions(void)
{
	u16 stored;

	section("#MF");
	set_cr0(get_cr0() | CR0_NE);
	cw = 0x37f & ~4;		/* division by zero unmasked */
	check_eq(try_call(f_div0, (ulong)&cw, 0, 0), MF, "division by zero");
	extern const char z2[], y1[], w1[], q0[], r0[];
	check_eq(last.f.ip, (ulong)z2, "at the next instruction that waits");
	asm volatile("fnclex");
	if (on_tcg) {
		skip("TCG raises #MF at FWAIT only, and no #XM");
		return;
	}
	check_eq(try_call(f_div0_next, (ulong)&cw, 0, 0), MF, "and at FLD1 as well");
	check_eq(last.f.ip, (ulong)y1, "rip");
	asm volatile("fnstsw %0" : "=m"(stored));
	check_eq(stored & 0x8084, 0x8084, "status: ES, B, ZE");
	check_eq(stored >> 11 & 7, 6, "operands stay: TOP");
	asm volatile("fnclex");
	check_eq(try_call(f_noncontrol, (ulong)&cw, (ulong)&stored, 0), -1, "FNSTSW and FNSTCW do not");
	check_eq(stored, cw, "control word");
	cw = 0x37f & ~1;
	check_eq(try_call(f_invalid_int, (ulong)&cw, (ulong)&stored, 0), MF, "0 by 0, invalid");
	check_eq(last.f.ip, (ulong)w1, "rip");
	asm volatile("fnclex");
	/* An unmasked exception that is already there when the mask is opened. */
	asm volatile("fninit; fld1; fldz; fdivrp");
	cw = 0x37b;
	asm volatile("fldcw %0" :: "m"(cw));
	check_eq(try_call(f_fwait, 0, 0, 0), MF, "opening the mask later");
	asm volatile("fninit");

	section("#XM");
	set_cr4(get_cr4() | CR4_OSXMMEXCPT);
	mxcsr = 0x1f80 & ~0x200;
	check_eq(try_call(f_sse_div0, (ulong)&mxcsr, (ulong)&one, (ulong)&zero), XM, "division by zero");
	check_eq(last.f.ip, (ulong)q0, "is a fault at the instruction");
	asm volatile("stmxcsr %0" : "=m"(mxcsr));
	check_eq(mxcsr & 0x3f, 4, "ZE is set");
	asm volatile("movups %%xmm0, %0" : "=m"(image.xmm[0]));
	check_eq(*(u32 *)image.xmm[0], one, "the destination is not changed");
	mxcsr = 0x1f80 & ~0x200;
	check_eq(try_call(f_sse_div_mem, (ulong)&mxcsr, (ulong)&one, (ulong)&zero), XM, "memory operand");
	check_eq(last.f.ip, (ulong)r0, "rip");
	mxcsr = 0x1f80 & ~0x80;
	check_eq(try_call(f_sse_div0, (ulong)&mxcsr, (ulong)&nan_bits, (ulong)&one), XM, "signalling NaN");
	set_cr4(get_cr4() & ~CR4_OSXMMEXCPT);
	mxcsr = 0x1f80 & ~0x200;
	check_eq(try_call(f_sse_div0, (ulong)&mxcsr, (ulong)&one, (ulong)&zero), UD,
		 "#UD without CR4.OSXMMEXCPT");
	set_cr4(get_cr4() | CR4_OSXMMEXCPT);
	mxcsr = 0x1f80;
	asm volatile("ldmxcsr %0" :: "m"(mxcsr));
}

struct avail {
	const char *name;
	const void *fn;
	int ts, em, ts_mp, nofxsr;	/* the vector, or -1 */
};

/* SDM vol. 3, table 2-2 and 9.2: which instruction minds which bit. */
static void availability(void)
{
	static const struct avail list[] = {
		{ "fnop", f_fnop, NM, NM, NM, -1 },
		{ "fninit", f_fninit, NM, NM, NM, -1 },
		{ "fwait", f_fwait, -1, -1, NM, -1 },
		{ "emms", f_emms, NM, UD, NM, -1 },
		{ "paddb", f_mmx, NM, UD, NM, -1 },
		{ "addps", f_sse, NM, UD, NM, UD },
		{ "movups", f_movups, NM, UD, NM, UD },
		{ "ldmxcsr", f_ldmxcsr, NM, UD, NM, UD },
		{ "fxsave", f_fxsave, NM, NM, NM, -1 },
		{ "fxrstor", f_fxrstor, NM, NM, NM, -1 },
		{ "clflush", f_clflush, -1, -1, -1, -1 },
		{ "prefetch", f_prefetch, -1, -1, -1, -1 },
		{ "movnti", f_movnti, -1, -1, -1, -1 },
		{ "pause", f_pause, -1, -1, -1, -1 },
		{ "fences", f_lfence, -1, -1, -1, -1 },
		{ "crc32, popcnt", f_crc, -1, -1, -1, -1 },
	};
	ulong cr0 = get_cr0(), cr4 = get_cr4();

	section("TS, EM, OSFXSR");
	asm volatile("fninit; fxsave %0" : "=m"(image));
	for (unsigned i = 0; i < ARRAY_SIZE(list); i++) {
		const struct avail *a = &list[i];

		if (on_tcg && a->fn == f_emms)
			continue;
		ulong arg = a->fn == f_ldmxcsr ? (ulong)&image.mxcsr : (ulong)&image;

		if (a->fn == f_movnti)
			arg = (ulong)&other;
		set_cr0((cr0 & ~(CR0_EM | CR0_MP)) | CR0_TS);
		check_eq(try_call(a->fn, arg, 0, 0), a->ts, "%s with TS", a->name);
		set_cr0(cr0 | CR0_TS | CR0_MP);
		check_eq(try_call(a->fn, arg, 0, 0), a->ts_mp, "%s with TS and MP", a->name);
		set_cr0((cr0 & ~(CR0_TS | CR0_MP)) | CR0_EM);
		check_eq(try_call(a->fn, arg, 0, 0), a->em, "%s with EM", a->name);
		set_cr0(cr0);
		set_cr4(cr4 & ~CR4_OSFXSR);
		check_eq(try_call(a->fn, arg, 0, 0), a->nofxsr, "%s without OSFXSR", a->name);
		set_cr4(cr4);
	}
	set_cr0(cr0 | CR0_TS);
	asm volatile("clts");
	check_eq(get_cr0(), cr0 & ~CR0_TS, "clts");
	set_cr0(cr0);
}

static void images(void)
{
	u64 v = 0x1122334455667788;

	section("FXSAVE and FXRSTOR");
	memset(&image, 0xa5, sizeof(image));
	asm volatile("fninit; fld1; fldpi; movq %1, %%xmm3; movq %1, %%xmm15; fxsave %0"
		     : "=m"(image) : "m"(v));
	check_eq(image.fcw, 0x37f, "control word");
	check_eq(image.fsw, 0x3000, "status word: TOP 6");
	check_eq(image.ftw, 0xc0, "abridged tag word");
	check_eq(*(u64 *)image.st[0], 0xc90fdaa22168c235, "st(0) is pi");
	check_eq(*(u16 *)(image.st[0] + 8), 0x4000, "its exponent");
	check_eq(*(u64 *)image.st[1], 1ull << 63, "st(1) is 1");
	check_eq(*(u64 *)image.xmm[3], v, "xmm3");
	check_eq(*(u64 *)image.xmm[15], v, "xmm15");
	check_eq(*(u64 *)(image.xmm[15] + 8), 0, "its upper half");
	check_eq(image.mxcsr, 0x1f80, "MXCSR");
	check((image.mxcsr_mask & 0xffbf) == 0xffbf, "MXCSR mask 0x%x", image.mxcsr_mask);
	check_eq(*(u32 *)((u8 *)&image + 464), 0xa5a5a5a5, "the last 48 bytes are not written");
	memcpy(&other, &image, 512);
	asm volatile("fninit; pxor %%xmm3, %%xmm3; fxrstor %0" :: "m"(other));
	asm volatile("fxsave %0" : "=m"(image));
	check(memcmp(&image, &other, 416) == 0, "there and back");
	other.mxcsr = 1u << 20;
	if (!on_tcg)
		check_eq(try_call(f_fxrstor, (ulong)&other, 0, 0), GP, "reserved bits of MXCSR");
	check_eq(try_call(f_fxsave, (ulong)&image + 8, 0, 0), GP, "not aligned");
	check_eq(try_call(f_fxrstor, (ulong)&image + 8, 0, 0), GP, "not aligned");
	mxcsr = 1u << 16;
	if (!on_tcg)
		check_eq(try_call(f_ldmxcsr, (ulong)&mxcsr, 0, 0), GP, "ldmxcsr of reserved bits");
	asm volatile("fninit; fldpi; fsave %0" : "=m"(image));
	asm volatile("fxsave %0" : "=m"(other));
	check_eq(other.ftw, 0, "FSAVE empties the registers");
	check_eq(*(u16 *)((u8 *)&image + 8), 0x3fff, "its full tag word");
}

/* Our own pointers: the guest's, never the host's. */
static void pointers(void)
{
	section("instruction and data pointers");
	asm volatile("fninit; fld1; fldpi; fadd %%st(1), %%st; fxsave %0" : "=m"(image));
	check(image.fip < (1ul << 30), "FIP 0x%llx is an address of this guest",
	      (unsigned long long)image.fip);
	check(image.fdp < (1ul << 30), "FDP");
}

static void xsave(void)
{
	u32 a, b, c, d;

	section("XSAVE");
	if (!HAS_XSAVE) {
		skip("no XSAVE");
		return;
	}
	check_eq(try_call(f_xsave, (ulong)&image, 0, 0), UD, "without CR4.OSXSAVE");
	check_eq(try_call(f_xgetbv, 0, 0, 0), UD, "xgetbv without CR4.OSXSAVE");
	set_cr4(get_cr4() | CR4_OSXSAVE);
	check(has_leaf1_ecx(27), "CPUID.OSXSAVE follows CR4");
	check_eq(try_call(f_xgetbv, 0, 0, 0), -1, "xgetbv");
	check_eq(try_result, 1, "XCR0 is x87 only");
	check_eq(try_call(f_xsetbv, 2, 0, 0), GP, "XCR0 without x87");
	check_eq(try_call(f_xsetbv, 1u << 30 | 1, 0, 0), GP, "XCR0 with unknown bits");
	check_eq(try_call(f_xgetbv, 7, 0, 0), GP, "xgetbv 7");
	check_eq(try_call(f_xsetbv, 3, 0, 0), -1, "x87 and SSE");
	cpuid(13, 0, &a, &b, &c, &d);
	check(a & 3, "leaf 13 announces both");
	check_eq(b, 576, "size for what is enabled");
	check_eq(try_call(f_xsave, (ulong)&image + 16, 0, 0), GP, "not aligned to 64");
	/* Initial state: XSTATE_BV shows what is in use. */
	memset(&image, 0, sizeof(image));
	memset(&other, 0, sizeof(other));
	asm volatile("xrstor %0" :: "m"(other), "a"(3), "d"(0));
	asm volatile("fxsave %0" : "=m"(image));
	check_eq(image.fcw, 0x37f, "XRSTOR with XSTATE_BV 0 gives the initial state");
	check_eq(*(u64 *)image.xmm[3], 0, "xmm3");
	memset(&image, 0, sizeof(image));
	u64 v = 77;
	asm volatile("movq %0, %%xmm5; fld1" :: "m"(v));
	asm volatile("xsave %0" : "+m"(image) : "a"(3), "d"(0));
	check_eq(image.header[0] & 3, 3, "XSTATE_BV");
	check_eq(*(u64 *)image.xmm[5], 77, "xmm5");
	memset(&image, 0x5a, 576);
	memset(image.header, 0, 64);
	asm volatile("xsave %0" : "+m"(image) : "a"(1), "d"(0));
	check_eq(image.xmm[5][0], 0x5a, "a mask leaves SSE out");
	check_eq(image.header[0] & 2, 0, "and its bit");
	memcpy(&other, &image, sizeof(other));
	other.header[0] = 4;
	check_eq(try_call(f_xrstor, (ulong)&other, 0, 0), GP, "XSTATE_BV beyond XCR0");
	other.header[0] = 3;
	other.header[20] = 1;
	if (!on_tcg)
		check_eq(try_call(f_xrstor, (ulong)&other, 0, 0), GP, "reserved header bytes");
	other.header[20] = 0;
	cpuid(13, 1, &a, &b, &c, &d);
	if (a & 1) {
		memset(&image, 0, sizeof(image));
		check_eq(try_call(f_xsaveopt, (ulong)&image, 0, 0), -1, "xsaveopt");
		check_eq(image.header[0] & 1, 1, "its XSTATE_BV");
	}
	if (a & 2) {
		memset(&image, 0, sizeof(image));
		check_eq(try_call(f_xsavec, (ulong)&image, 0, 0), -1, "xsavec");
		check_eq(*(u64 *)(image.header + 8) >> 63, 1, "its XCOMP_BV says compacted");
		asm volatile("pxor %%xmm5, %%xmm5" ::);
		check_eq(try_call(f_xrstor, (ulong)&image, 0, 0), -1, "xrstor of it");
		asm volatile("movq %%xmm5, %0" : "=m"(v));
		check_eq(v, 77, "xmm5 is back");
	}
	set_cr0(get_cr0() | CR0_TS);
	if (!on_tcg)
		check_eq(try_call(f_xsave, (ulong)&image, 0, 0), NM, "xsave with TS");
	check_eq(try_call(f_xgetbv, 0, 0, 0), -1, "xgetbv with TS");
	asm volatile("clts");
	set_cr4(get_cr4() & ~CR4_OSXSAVE);
}

void guest_main(void)
{
	u16 w;

	section("initial state");
	asm volatile("fninit; fnstcw %0" : "=m"(w));
	check_eq(w, 0x37f, "control word after FNINIT");
	asm volatile("fnstsw %0" : "=m"(w));
	check_eq(w, 0, "status word after FNINIT");
	x87_exceptions();
	availability();
	images();
	pointers();
	xsave();
}
