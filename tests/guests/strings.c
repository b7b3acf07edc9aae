/*
 * String instructions: all forms against a plain model, faults in the middle
 * with registers at the failing iteration, overlap, both directions, page
 * boundaries, 32-bit addresses.  SDM vol. 1, 7.3.9; vol. 2, REP.
 */
#include "lib/guest.h"

struct regs { ulong ax, cx, si, di, flags; };

/* Runs one instruction with the given registers: r8 points to struct regs. */
#define STRING(name, insn) \
	SNIPPET(s_##name, "push %rbx\n mov %rdi, %rbx\n mov (%rbx), %rax\n mov 8(%rbx), %rcx\n" \
		"mov 16(%rbx), %rsi\n mov 24(%rbx), %rdi\n push 32(%rbx)\n popfq\n" \
		insn "\n" \
		"pushfq\n pop 32(%rbx)\n mov %rax, (%rbx)\n mov %rcx, 8(%rbx)\n mov %rsi, 16(%rbx)\n" \
		"mov %rdi, 24(%rbx)\n cld\n pop %rbx\n ret")

STRING(rep_movsb, "rep movsb");
STRING(rep_movsw, "rep movsw");
STRING(rep_movsl, "rep movsl");
STRING(rep_movsq, "rep movsq");
STRING(rep_stosb, "rep stosb");
STRING(rep_stosw, "rep stosw");
STRING(rep_stosl, "rep stosl");
STRING(rep_stosq, "rep stosq");
STRING(rep_lodsb, "rep lodsb");
STRING(rep_lodsq, "rep lodsq");
STRING(repe_cmpsb, "repe cmpsb");
STRING(repe_cmpsl, "repe cmpsl");
STRING(repne_scasb, "repne scasb");
STRING(repne_scasw, "repne scasw");
STRING(repe_scasq, "repe scasq");
STRING(a32_movsb, "addr32 rep movsb");
STRING(a32_stosl, "addr32 rep stosl");
STRING(a32_lodsb, "addr32 rep lodsb");
STRING(movsb, "movsb");

#define PAGES 6
#define SIZE (PAGES * 4096ul)

static u8 *a, *b, *model;
static const ulong window = 5ul << 40;

static void fill(u8 *p, u32 seed)
{
	for (ulong i = 0; i < SIZE; i++) {
		seed = seed * 1664525 + 1013904223;
		p[i] = seed >> 24;
	}
}

static ulong run(const void *fn, struct regs *r)
{
	return try_call(fn, (ulong)r, 0, 0);
}

/* One element after the other, as the manual has it. */
static void model_movs(u8 *base, ulong dst, ulong src, ulong n, unsigned size, bool down)
{
	for (ulong i = 0; i < n; i++) {
		u8 t[8];

		memcpy(t, base + src, size);
		memcpy(base + dst, t, size);
		src += down ? -(long)size : size;
		dst += down ? -(long)size : size;
	}
}

static void movs_case(const void *fn, unsigned size, ulong dst, ulong src, ulong n, bool down)
{
	struct regs r = { .cx = n, .si = (ulong)a + src, .di = (ulong)a + dst,
			  .flags = 2 | (down ? FL_DF : 0) };
	long step = (down ? -(long)size : (long)size) * (long)n;

	fill(a, n + dst);
	memcpy(model, a, SIZE);
	model_movs(model, dst, src, n, size, down);
	check_eq(run(fn, &r), -1, "movs size %u", size);
	check(memcmp(a, model, SIZE) == 0, "movs size %u from 0x%lx to 0x%lx count 0x%lx down %u: "
	      "memory differs", size, src, dst, n, down);
	check(r.cx == 0 && r.si == (ulong)a + src + step && r.di == (ulong)a + dst + step,
	      "movs size %u: cx 0x%lx si 0x%lx di 0x%lx", size, r.cx, r.si, r.di);
}

static void movs_tests(void)
{
	static const void *const fns[] = { s_rep_movsb, s_rep_movsw, s_rep_movsl, s_rep_movsq };
	static const u16 gaps[] = { 0, 1, 2, 3, 4, 7, 8, 9, 15, 16, 17, 31, 33, 64, 100, 4095, 4096, 4097 };

	section("MOVS");
	for (unsigned f = 0; f < 4; f++) {
		unsigned size = 1 << f;

		for (unsigned g = 0; g < ARRAY_SIZE(gaps); g++) {
			movs_case(fns[f], size, 64 + gaps[g], 64, 777, false);
			movs_case(fns[f], size, 64, 64 + gaps[g], 777, false);
			movs_case(fns[f], size, 8192 + gaps[g], 8192, 777, true);
			movs_case(fns[f], size, 8192, 8192 + gaps[g], 777, true);
		}
		movs_case(fns[f], size, 12288 + 5, 3, 8192 / size, false);
		movs_case(fns[f], size, 100, 8000, 0, false);
		movs_case(fns[f], size, 4090, 9000, 1, false);
	}
}

static void stos_case(const void *fn, unsigned size, ulong at, ulong n, bool down)
{
	ulong value = 0x8877665544332211;
	struct regs r = { .ax = value, .cx = n, .di = (ulong)a + at, .flags = 2 | (down ? FL_DF : 0) };

	fill(a, n);
	memcpy(model, a, SIZE);
	for (ulong i = 0; i < n; i++)
		memcpy(model + at + (down ? -(long)(i * size) : (long)(i * size)), &value, size);
	check_eq(run(fn, &r), -1, "stos size %u", size);
	check(memcmp(a, model, SIZE) == 0, "stos size %u at 0x%lx count 0x%lx down %u: memory differs",
	      size, at, n, down);
	check(r.cx == 0 && r.ax == value, "cx 0x%lx, rax 0x%lx", r.cx, r.ax);
}

static void stos_tests(void)
{
	static const void *const fns[] = { s_rep_stosb, s_rep_stosw, s_rep_stosl, s_rep_stosq };

	section("STOS");
	for (unsigned f = 0; f < 4; f++) {
		for (ulong at = 4000; at < 4100; at += 13) {
			stos_case(fns[f], 1 << f, at, 1000, false);
			stos_case(fns[f], 1 << f, at + 12288, 1000, true);
		}
		stos_case(fns[f], 1 << f, 5, 0, false);
	}
}

static void compare_tests(void)
{
	struct regs r;

	section("CMPS, SCAS, LODS");
	fill(a, 1);
	memcpy(b, a, SIZE);
	b[5000] ^= 1;
	r = (struct regs){ .cx = SIZE, .si = (ulong)a, .di = (ulong)b, .flags = 2 };
	check_eq(run(s_repe_cmpsb, &r), -1, "repe cmpsb");
	check_eq(SIZE - r.cx, 5001, "it stops after the difference");
	check_eq(r.si, (ulong)a + 5001, "rsi");
	check_eq(r.flags & FL_ZF, 0, "ZF is clear");
	check_eq(!!(r.flags & FL_CF), a[5000] < b[5000], "CF is that of the comparison");
	r = (struct regs){ .cx = 1000, .si = (ulong)a, .di = (ulong)b, .flags = 2 };
	run(s_repe_cmpsl, &r);
	check(r.cx == 0 && (r.flags & FL_ZF), "repe cmpsl of equal memory");
	r = (struct regs){ .cx = 0, .si = 0x123, .di = 0x456, .flags = 2 | FL_CF };
	run(s_repe_cmpsb, &r);
	check(r.si == 0x123 && r.di == 0x456 && (r.flags & (FL_CF | FL_ZF)) == FL_CF,
	      "a count of 0 touches nothing, not even flags");

	memset(a, 7, SIZE);
	a[9001] = 9;
	r = (struct regs){ .ax = 0xffffff09, .cx = -1ul, .di = (ulong)a, .flags = 2 };
	run(s_repne_scasb, &r);
	check_eq(r.di, (ulong)a + 9002, "repne scasb");
	check(r.flags & FL_ZF, "ZF is set");
	check_eq(-1ul - r.cx, 9002, "rcx");
	r = (struct regs){ .ax = 0x0907, .cx = 9000, .di = (ulong)a, .flags = 2 };
	run(s_repne_scasw, &r);
	check_eq(r.di, (ulong)a + 9002, "repne scasw");
	r = (struct regs){ .ax = 0x0707070707070707, .cx = 2000, .di = (ulong)a, .flags = 2 };
	run(s_repe_scasq, &r);
	check_eq(r.di, (ulong)a + 9008, "repe scasq");
	r = (struct regs){ .ax = -1ul, .cx = 100, .si = (ulong)a + 9000 - 98, .flags = 2 };
	run(s_rep_lodsb, &r);
	check_eq(r.ax, 0xffffffffffffff09, "rep lodsb leaves the last byte in al");
	r = (struct regs){ .cx = 3, .si = (ulong)a + 8985, .flags = 2 };
	run(s_rep_lodsq, &r);
	check_eq(r.ax, 0x0707070707070709, "rep lodsq leaves the last element");
}

static void reset_window(void)
{
	for (unsigned i = 0; i < PAGES; i++)
		map(window + i * 4096, (ulong)a + i * 4096, PTE_P | PTE_W, 1);
	set_cr3(get_cr3());
}

/* After the fault the registers say where it stopped, and it can go on from there. */
static void fault_case(const void *fn, unsigned size, bool to, bool down)
{
	ulong hole = window + 3 * 4096, other = (ulong)b + 8192 + 3;
	ulong start = down ? hole + 4096 + 96 : hole - 96;
	struct regs r = { .cx = 400, .flags = 2 | (down ? FL_DF : 0) };
	ulong done = down ? 96 / size + 1 : 96 / size;
	long step = down ? -(long)size : (long)size;

	/* down: elements at hole + 4096 + 96, ..., hole + 4096, then into the hole */
	r.si = to ? other : start;
	r.di = to ? start : other;
	*pte_of(hole, 1) = 0;
	invlpg(hole);
	fill(a, 3);
	fill(b, 4);
	check_eq(run(fn, &r), PF, "size %u down %u: fault", size, down);
	check_eq(last.f.cx, 400 - done, "size %u down %u to %u: rcx", size, down, to);
	check_eq(last.f.di, r.di + step * (long)done, "rdi");
	if (fn != s_rep_stosb)
		check_eq(last.f.si, r.si + step * (long)done, "rsi");
	check_eq(last.cr2, down ? hole + 4096 - size : hole, "cr2");
	check_eq(last.f.err, to ? 2 : 0, "error code");
	check(last.f.ip > (ulong)fn && last.f.ip < (ulong)fn + 64, "rip is at the instruction");
	check(last.f.flags & FL_RF || on_tcg, "RF is set in the saved flags of a fault");
	reset_window();
}

static void fill_hole(struct frame *f)
{
	ulong page = get_cr2() & ~0xffful;

	map(page, (ulong)a + (page - window), PTE_P | PTE_W, 1);
	invlpg(page);
}

static void fault_tests(void)
{
	section("faults in the middle");
	reset_window();
	for (unsigned down = 0; down < 2; down++) {
		fault_case(s_rep_movsb, 1, true, down);
		fault_case(s_rep_movsb, 1, false, down);
		fault_case(s_rep_movsw, 2, true, down);
		fault_case(s_rep_movsl, 4, false, down);
		fault_case(s_rep_movsq, 8, true, down);
		fault_case(s_rep_movsq, 8, false, down);
		fault_case(s_rep_stosb, 1, true, down);
	}
	/* Demand paging: every page of the destination appears at its first touch. */
	for (unsigned i = 0; i < PAGES; i++)
		*pte_of(window + i * 4096, 1) = 0;
	set_cr3(get_cr3());
	fill(b, 9);
	memset(a, 0, SIZE);
	on_trap(PF, fill_hole);
	struct regs r = { .cx = SIZE, .si = (ulong)b, .di = window, .flags = 2 };
	ulong before = trap_count[PF];
	check_eq(run(s_rep_movsb, &r), -1, "copy into pages that are made as it goes");
	check_eq(trap_count[PF] - before, PAGES, "one fault a page");
	check(memcmp(a, b, SIZE) == 0, "the copy is right");
	on_trap(PF, NULL);
	/* An element that straddles into a missing page is not written in part. */
	*pte_of(window + 4096, 1) = 0;
	invlpg(window + 4096);
	memset(a, 0x33, SIZE);
	r = (struct regs){ .ax = 0, .cx = 4, .di = window + 4096 - 12, .flags = 2 };
	check_eq(run(s_rep_stosq, &r), PF, "stosq across the boundary");
	check_eq(last.f.cx, 3, "one element was stored");
	check_eq(last.cr2, window + 4096, "cr2");
	check_eq(*(u32 *)(a + 4096 - 4), 0x33333333, "the second one not even in part");
	reset_window();
}

static void address_size(void)
{
	struct regs r;

	section("32-bit addresses");
	fill(a, 5);
	r = (struct regs){ .cx = 0xdead00000010, .si = (ulong)a | 0x1234500000000,
			   .di = (ulong)b | 0x5432100000000, .flags = 2 };
	memset(b, 0, SIZE);
	check_eq(run(s_a32_movsb, &r), -1, "addr32 rep movsb with high halves set");
	check(memcmp(a, b, 16) == 0 && b[16] == 0, "it copies ecx bytes");
	check_eq(r.cx, 0, "ecx is written as a 32-bit register");
	check_eq(r.si, (u32)((ulong)a + 16), "esi is written as a 32-bit register");
	check_eq(r.di, (u32)((ulong)b + 16), "edi is written as a 32-bit register");
	r = (struct regs){ .ax = 0xabcdef01, .cx = 4, .di = (ulong)b, .flags = 2 };
	run(s_a32_stosl, &r);
	check_eq(*(u32 *)(b + 12), 0xabcdef01, "addr32 rep stosl");
	r = (struct regs){ .cx = 0x100000000, .si = 5, .flags = 2 };
	check_eq(run(s_a32_lodsb, &r), -1, "addr32 rep lodsb with ecx 0");
	check_eq((u32)r.si, 5, "does nothing");
}

/* TF traps after every iteration, each with RIP still on the instruction. */
static unsigned steps;
static ulong step_cx[16];

static void on_step(struct frame *f)
{
	if (f->ip >= (ulong)s_rep_movsb && f->ip < (ulong)s_rep_movsb_end && steps < 16)
		step_cx[steps++] = f->cx;
}

static void stepping(void)
{
	struct regs r = { .cx = 4, .si = (ulong)a, .di = (ulong)b, .flags = 2 | FL_TF };
	unsigned seen[5] = { 0 };

	section("single steps");
	on_trap(DB, on_step);
	run(s_rep_movsb, &r);
	on_trap(DB, NULL);
	for (unsigned i = 0; i < steps; i++)
		if (step_cx[i] < 5)
			seen[step_cx[i]]++;
	for (unsigned i = 1; i < 4; i++)
		check_eq(seen[i], 1, "a trap with %u iterations to go", i);
	check(seen[0] >= 1, "a trap after the last one");
}

void guest_main(void)
{
	a = pages_alloc(PAGES);
	b = pages_alloc(PAGES);
	model = pages_alloc(PAGES);
	movs_tests();
	stos_tests();
	compare_tests();
	fault_tests();
	address_size();
	stepping();
	struct regs r = { .si = (ulong)a, .di = (ulong)b, .cx = 77, .flags = 2 };
	run(s_movsb, &r);
	check_eq(r.cx, 77, "without REP, rcx stays");
}
