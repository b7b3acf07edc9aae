/*
 * What cpu.model=skep-v3.1 adds, from the system's side: CPUID, XCR0, what raises without it, XSAVE's
 * component, masked accesses that run into a page that is not there, and values that live in YMM
 * registers for a long time.  SDM vol. 1, chapters 13 and 14; vol. 2, 2.4.
 */
#include "lib/guest.h"

#define CR0_TS BIT(3)
#define CR0_EM BIT(2)
#define CR4_OSFXSR BIT(9)
#define CR4_OSXMMEXCPT BIT(10)
#define CR4_OSXSAVE BIT(18)
#define PAGES 0x9000000000ul		/* where nothing else is mapped */

struct area {
	u8 legacy[512];
	u64 bv, comp, reserved[6];
	u8 ymmh[16][16];
	u8 more[1024];
};

static struct area area __attribute__((aligned(64)));
static u8 wide[2][32] __attribute__((aligned(32)));
static u32 mxcsr;

SNIPPET(f_vaddps, "vaddps %ymm0, %ymm1, %ymm2\n ret");
SNIPPET(f_vmovups, "vmovups (%rdi), %ymm0\n ret");
SNIPPET(f_vzeroupper, "vzeroupper\n ret");
SNIPPET(f_andn, "andn %rdi, %rsi, %rax\n ret");
SNIPPET(f_lzcnt, "lzcnt %rdi, %rax\n ret");
SNIPPET(f_tzcnt, "tzcnt %rdi, %rax\n ret");
SNIPPET(f_xsetbv, "xor %ecx, %ecx\n mov %edi, %eax\n xor %edx, %edx\n xsetbv\n ret");
SNIPPET(f_load_a, "vmovaps (%rdi), %ymm0\n ret");
SNIPPET(f_load_u, "vmovups (%rdi), %ymm0\n vmovups %ymm0, (%rsi)\n ret");
SNIPPET(f_store_u, "vmovups (%rsi), %ymm0\n vmovups %ymm0, (%rdi)\n ret");
SNIPPET(f_mask_store, "vmovups (%rsi), %ymm1\n vmovups (%rdx), %ymm2\n vmaskmovps %ymm2, %ymm1, (%rdi)\n ret");
SNIPPET(f_mask_load, "vmovups (%rsi), %ymm1\n vmaskmovps (%rdi), %ymm1, %ymm2\n vmovups %ymm2, (%rdx)\n ret");
SNIPPET(f_gather, "vmovups (%rsi), %ymm1\n vpcmpeqd %ymm2, %ymm2, %ymm2\n vpxor %ymm3, %ymm3, %ymm3\n"
	"vpgatherdd %ymm2, (%rdi, %ymm1, 4), %ymm3\n ret");
SNIPPET(f_put, "vmovups %ymm2, (%rdi)\n vmovups %ymm3, (%rsi)\n ret");
SNIPPET(f_div, "vldmxcsr (%rdi)\n vpxor %xmm0, %xmm0, %xmm0\n vpcmpeqd %ymm1, %ymm1, %ymm1\n"
	"vpsrld $25, %ymm1, %ymm1\n vpslld $23, %ymm1, %ymm1\n vmovaps %ymm1, %ymm2\n avx_div: vdivps %ymm0, %ymm1, %ymm2\n ret");

static void leaves(void)
{
	u32 r[4];

	section("CPUID");
	cpuid(1, 0, &r[0], &r[1], &r[2], &r[3]);
	check_eq(r[2] & 0x30001000, 0x30001000, "FMA, AVX, F16C");
	cpuid(7, 0, &r[0], &r[1], &r[2], &r[3]);
	check_eq(r[1] & 0x128, 0x128, "BMI1, AVX2, BMI2");
	cpuid(0x80000001, 0, &r[0], &r[1], &r[2], &r[3]);
	check(r[2] & 0x20, "LZCNT");
	cpuid(0xd, 2, &r[0], &r[1], &r[2], &r[3]);
	check_eq(r[0], 256, "component 2: size");
	check_eq(r[1], 576, "component 2: offset");
	set_cr4(get_cr4() | CR4_OSFXSR | CR4_OSXMMEXCPT | CR4_OSXSAVE);
	check_eq(try_call(f_xsetbv, 5, 0, 0), GP, "XCR0: AVX without SSE");
	check_eq(try_call(f_xsetbv, 3, 0, 0), -1, "XCR0: SSE");
	cpuid(0xd, 0, &r[0], &r[1], &r[2], &r[3]);
	check_eq(r[1], 576, "size of the area without AVX");
	check_eq(try_call(f_xsetbv, 7, 0, 0), -1, "XCR0: AVX");
	cpuid(0xd, 0, &r[0], &r[1], &r[2], &r[3]);
	check_eq(r[1], 832, "size of the area");
	cpuid(0xd, 1, &r[0], &r[1], &r[2], &r[3]);
	if (!on_tcg)
		check_eq(r[1], 832, "size of the compacted area");
}

static int avx(const void *fn)
{
	return try_call(fn, (ulong)wide, 0, 0);
}

static void availability(void)
{
	ulong cr0 = get_cr0(), cr4 = get_cr4();

	section("what raises");
	check_eq(avx(f_vaddps), -1, "as it should be");
	set_cr0(cr0 | CR0_TS);
	check_eq(avx(f_vaddps), NM, "CR0.TS");
	check_eq(avx(f_vmovups), NM, "CR0.TS, memory");
	check_eq(avx(f_vzeroupper), NM, "CR0.TS, VZEROUPPER");
	check_eq(try_call(f_andn, 5, ~4ul, 0), -1, "CR0.TS, ANDN");
	check_eq(try_result, 4, "ANDN's result");
	set_cr0(cr0);
	try_call(f_xsetbv, 3, 0, 0);
	check_eq(avx(f_vaddps), UD, "XCR0 without AVX");
	set_cr0(cr0 | CR0_TS);
	check_eq(avx(f_vaddps), UD, "... comes before CR0.TS");
	set_cr0(cr0);
	try_call(f_xsetbv, 7, 0, 0);
	check_eq(avx(f_vaddps), -1, "and with it again");
	set_cr4(cr4 & ~CR4_OSXSAVE);
	check_eq(avx(f_vmovups), UD, "CR4.OSXSAVE");
	check_eq(try_call(f_lzcnt, 1, 0, 0), -1, "LZCNT");
	check_eq(try_result, 63, "LZCNT's result");
	check_eq(try_call(f_tzcnt, 0, 0, 0), -1, "TZCNT");
	check_eq(try_result, 64, "TZCNT of 0");
	set_cr4(cr4);
	check_eq(try_call(f_load_a, (ulong)wide + 16, 0, 0), GP, "VMOVAPS, misaligned");
	check_eq(try_call(f_vmovups, (ulong)wide + 3, 0, 0), -1, "VMOVUPS, misaligned");
	check_eq(try_call(f_vmovups, 1ul << 63, 0, 0), GP, "an address that is not canonical");
}

static void fill(u8 *p, unsigned n, unsigned first)
{
	while (n--)
		*p++ = (u8)(first++ * 37);
}

static void save_area(void)
{
	u8 got[32];

	section("XSAVE");
	fill(wide[0], 64, 1);
	memset(&area, 0, sizeof area);
	asm volatile("vmovups %0, %%ymm7\n vmovups %1, %%ymm14\n xsave %2" : :
		     "m"(wide[0]), "m"(wide[1]), "m"(area), "a"(7), "d"(0) : "memory");
	check_eq(area.bv & 6, 6, "XSTATE_BV");
	check(!memcmp(area.ymmh[7], wide[0] + 16, 16), "the upper half of YMM7");
	check(!memcmp(area.legacy + 160 + 7 * 16, wide[0], 16), "the lower half of YMM7");
	check(!memcmp(area.ymmh[14], wide[1] + 16, 16), "the upper half of YMM14");
	memset(area.ymmh[7], 0x5a, 16);
	asm volatile("vzeroall\n xrstor %1\n vmovups %%ymm7, %0" : "=m"(got) : "m"(area), "a"(7), "d"(0)
		     : "memory");
	check(!memcmp(got, wide[0], 16) && got[16] == 0x5a && got[31] == 0x5a, "restored");
	area.bv &= ~4ull;
	asm volatile("xrstor %1\n vmovups %%ymm7, %0" : "=m"(got) : "m"(area), "a"(4), "d"(0) : "memory");
	check(!memcmp(got, wide[0], 16) && !got[16] && !got[31], "initial, and SSE is left alone");
	/* Legacy SSE leaves the upper halves, VEX.128 clears them. */
	asm volatile("vmovups %1, %%ymm7\n paddb %%xmm7, %%xmm7\n vmovups %%ymm7, %0" : "=m"(got) :
		     "m"(wide[1]) : "memory");
	check(!memcmp(got + 16, wide[1] + 16, 16), "PADDB leaves the upper half");
	asm volatile("vmovups %1, %%ymm7\n vpaddb %%xmm7, %%xmm7, %%xmm7\n vmovups %%ymm7, %0" : "=m"(got) :
		     "m"(wide[1]) : "memory");
	check(!got[16] && !got[31], "VPADDB of 128 bits clears it");
}

/* Two pages, and none behind them. */
static u8 *two_pages(void)
{
	u8 *p = (u8 *)PAGES;

	map(PAGES, (ulong)page_alloc(), PTE_P | PTE_W, 1);
	map(PAGES + 4096, (ulong)page_alloc(), PTE_P | PTE_W, 1);
	fill(p, 8192, 3);
	return p;
}

static void masked(void)
{
	static u32 mask[8], index[8], got[8], rest[8];
	u8 *p = two_pages(), *end = p + 8192, before[32];

	section("pages that are not there");
	check_eq(try_call(f_load_u, (ulong)end - 32, (ulong)got, 0), -1, "up to the end");
	check(!memcmp(got, end - 32, 32), "what was loaded");
	check_eq(try_call(f_load_u, (ulong)end - 31, (ulong)got, 0), PF, "a byte more");
	check_eq(last.cr2, (ulong)end, "CR2");
	check_eq(try_call(f_load_u, (ulong)p + 4096 - 7, (ulong)got, 0), -1, "across two pages");
	check(!memcmp(got, p + 4096 - 7, 32), "what was loaded");
	memcpy(before, end - 32, 32);
	check_eq(try_call(f_store_u, (ulong)end - 16, (ulong)wide, 0), PF, "a store");
	if (on_tcg) {
		skip("TCG stores what it can, and looks at elements that a mask leaves out");
		return;
	}
	check(!memcmp(before, end - 32, 32), "nothing was stored");
	/* Four elements of eight. */
	for (unsigned i = 0; i < 8; i++)
		mask[i] = i < 4 ? 0x80000000 : 0x7fffffff;
	check_eq(try_call(f_mask_load, (ulong)end - 16, (ulong)mask, (ulong)got), -1, "VMASKMOV loads");
	check(!memcmp(got, end - 16, 16) && !got[4] && !got[7], "zeros for the others");
	check_eq(try_call(f_mask_store, (ulong)end - 16, (ulong)mask, (ulong)wide), -1, "VMASKMOV stores");
	check(!memcmp(end - 16, wide, 16), "what was stored");
	mask[4] = ~0u;
	memcpy(before, end - 32, 32);
	check_eq(try_call(f_mask_load, (ulong)end - 16, (ulong)mask, (ulong)got), PF, "one element too many");
	check_eq(last.cr2, (ulong)end, "CR2");
	check_eq(try_call(f_mask_store, (ulong)end - 16, (ulong)mask, (ulong)got), PF, "stored");
	check(!memcmp(before, end - 32, 32), "nothing was stored");
	/* The last element of a gather is not there: the others are done, and it is still asked for. */
	for (unsigned i = 0; i < 8; i++)
		index[i] = i < 7 ? i * 5 : 2048;
	check_eq(try_call(f_gather, (ulong)p, (ulong)index, 0), PF, "VPGATHERDD");
	check_eq(last.cr2, (ulong)end, "CR2");
	try_call(f_put, (ulong)rest, (ulong)got, 0);
	for (unsigned i = 0; i < 7; i++)
		check(!rest[i] && got[i] == ((u32 *)p)[i * 5], "element %u", i);
	check_eq(rest[7], ~0u, "the mask of the last one");
}

static void exceptions(void)
{
	section("#XM");
	if (on_tcg) {
		skip("TCG raises no #XM");
		return;
	}
	extern const char avx_div[];
	mxcsr = 0x1f80 & ~0x200;
	check_eq(try_call(f_div, (ulong)&mxcsr, 0, 0), XM, "division by zero");
	check_eq(last.f.ip, (ulong)avx_div, "rip");
	asm volatile("vstmxcsr %0" : "=m"(mxcsr));
	check_eq(mxcsr & 0x3f, 4, "ZE is set");
	mxcsr = 0x1f80;
	check_eq(try_call(f_div, (ulong)&mxcsr, 0, 0), -1, "masked");
}

/*
 * A generator in four YMM registers, for some hundred thousand instructions, beside the same in
 * general registers.
 */
static void live(void)
{
	enum { ROUNDS = 20000 };
	u32 lanes[4][8], want[4][8];

	section("live values");
	for (unsigned r = 0; r < 4; r++)
		for (unsigned i = 0; i < 8; i++)
			lanes[r][i] = want[r][i] = 0x9e3779b9u * (r * 8 + i + 1);
	asm volatile("vmovups %0, %%ymm12\n vmovups %1, %%ymm13\n vmovups %2, %%ymm14\n vmovups %3, %%ymm15\n"
		     "mov %4, %%ecx\n"
		     "1: vpslld $13, %%ymm12, %%ymm0\n vpxor %%ymm0, %%ymm12, %%ymm12\n"
		     "vpsrld $17, %%ymm12, %%ymm0\n vpxor %%ymm0, %%ymm12, %%ymm12\n"
		     "vpslld $5, %%ymm12, %%ymm0\n vpxor %%ymm0, %%ymm12, %%ymm12\n"
		     "vpaddd %%ymm12, %%ymm13, %%ymm13\n vpmulld %%ymm13, %%ymm14, %%ymm14\n"
		     "vpxor %%ymm12, %%ymm14, %%ymm14\n"
		     "vpsubd %%ymm14, %%ymm15, %%ymm15\n vpaddd %%ymm15, %%ymm12, %%ymm12\n"
		     "dec %%ecx\n jnz 1b\n"
		     "vmovups %%ymm12, %0\n vmovups %%ymm13, %1\n vmovups %%ymm14, %2\n vmovups %%ymm15, %3"
		     : "+m"(lanes[0]), "+m"(lanes[1]), "+m"(lanes[2]), "+m"(lanes[3]) : "i"(ROUNDS)
		     : "ecx", "memory", "cc");
	for (unsigned i = 0; i < 8; i++) {
		u32 a = want[0][i], b = want[1][i], c = want[2][i], d = want[3][i];

		for (unsigned n = 0; n < ROUNDS; n++) {
			a ^= a << 13;
			a ^= a >> 17;
			a ^= a << 5;
			b += a;
			c = (c * b) ^ a;
			d -= c;
			a += d;
		}
		check(lanes[0][i] == a && lanes[1][i] == b && lanes[2][i] == c && lanes[3][i] == d,
		      "lane %u", i);
	}
}

void guest_main(void)
{
	leaves();
	availability();
	save_area();
	masked();
	exceptions();
	live();
}
