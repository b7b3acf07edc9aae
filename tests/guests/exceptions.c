/*
 * Exceptions and debugging: every vector that code can raise, error codes,
 * IST, double faults, single steps, breakpoints, RF, interrupt shadows.
 * SDM vol. 3, chapters 6 and 17.
 */
#include "lib/guest.h"

SNIPPET(x_ud2, "ud2");
SNIPPET(x_int3, "int3\n nop\n ret");
SNIPPET(x_int_3, ".byte 0xcd, 3\n ret");
SNIPPET(x_int1, ".byte 0xf1\n ret");
SNIPPET(x_int41, "int $0x41\n ret");
SNIPPET(x_pf, "movabs 0x50000000000, %rax\n ret");
SNIPPET(x_int40, "int $0x40\n ret");
SNIPPET(x_div0, "xor %edx, %edx\n xor %ecx, %ecx\n mov $1, %eax\n 1: div %ecx\n ret");
SNIPPET(x_divover, "mov $2, %edx\n mov $2, %ecx\n xor %eax, %eax\n div %ecx\n ret");
SNIPPET(x_idivmin, "mov $0x80000000, %eax\n cdq\n mov $-1, %ecx\n idiv %ecx\n ret");
SNIPPET(x_div8, "mov $0x400, %ax\n mov $2, %cl\n div %cl\n ret");
SNIPPET(x_lds_bad, "mov $0x1f0, %eax\n mov %eax, %ds\n ret");
SNIPPET(x_beyond, "mov $0x7ff8, %eax\n mov %eax, %ds\n ret");
SNIPPET(x_ds, "mov %edi, %ds\n ret");
SNIPPET(x_ss, "mov %edi, %ss\n ret");
SNIPPET(x_ss_null, "xor %eax, %eax\n mov %eax, %ss\n push %rax\n pop %rax\n mov $0x10, %eax\n mov %eax, %ss\n ret");
SNIPPET(x_noncanon, "movabs $0x8000000000000000, %rax\n mov (%rax), %eax\n ret");
SNIPPET(x_noncanon_sp, "mov %rsp, %rdx\n movabs $0x8000000000000000, %rsp\n mov (%rsp), %eax\n ret");
SNIPPET(x_push_noncanon, "movabs $0x8000000000000000, %rsp\n push %rax\n ret");
SNIPPET(x_call_noncanon, "movabs $0x8000000000000000, %rax\n call *%rax\n ret");
SNIPPET(x_lock, ".byte 0xf0, 0x90\n ret");
SNIPPET(x_lock_reg, ".byte 0xf0, 0x01, 0xc0\n ret");
SNIPPET(x_long, ".byte 0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x90\n ret");
SNIPPET(x_fifteen, ".byte 0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x90\n ret");
SNIPPET(x_push_es, ".byte 0x06\n ret");
SNIPPET(x_aaa, ".byte 0x37\n ret");
SNIPPET(x_movaps, "movaps 1(%rsp), %xmm0\n ret");
SNIPPET(x_ltr, "ltr %di\n ret");
SNIPPET(x_iret_bad, "mov %rsp, %rax\n push $0x10\n push %rax\n pushfq\n push %rdi\n lea 1f(%rip), %rax\n"
	"push %rax\n iretq\n 1: ret");
SNIPPET(x_wrmsr, "mov %edi, %ecx\n xor %eax, %eax\n xor %edx, %edx\n wrmsr\n ret");
SNIPPET(x_rdmsr, "mov %edi, %ecx\n rdmsr\n ret");
SNIPPET(x_hlt, "hlt");
SNIPPET(x_dr, "mov %rdi, %dr7\n ret");
SNIPPET(x_dr4, ".byte 0x0f, 0x21, 0xe0\n ret");
SNIPPET(x_cr1, ".byte 0x0f, 0x20, 0xc8\n ret");
SNIPPET(x_ac, "mov 1(%rsp), %eax\n int $0x80");

struct one {
	const char *name;
	const void *fn;
	ulong arg;
	int vec;
	int err;		/* -1: none */
	int at;			/* RIP after the start of the snippet, -1: do not look */
};

static const struct one simple[] = {
	{ "ud2", x_ud2, 0, UD, -1, 0 },
	{ "int3", x_int3, 0, BP, -1, 1 },
	{ "int $3", x_int_3, 0, BP, -1, 2 },
	{ "int1", x_int1, 0, DB, -1, 1 },
	{ "int $0x40", x_int40, 0, 0x40, -1, 2 },
	{ "division by 0", x_div0, 0, DE, -1, 9 },
	{ "division overflow", x_divover, 0, DE, -1, 12 },
	{ "idiv of the smallest by -1", x_idivmin, 0, DE, -1, 11 },
	{ "8-bit division overflow", x_div8, 0, DE, -1, 6 },
	{ "descriptor that is empty", x_lds_bad, 0, GP, 0x1f0, 5 },
	{ "selector beyond the limit", x_beyond, 0, GP, 0x7ff8, 5 },
	{ "code segment in ds, execute-only", x_ds, SPARE, GP, SPARE, 0 },
	{ "segment not present in ds", x_ds, SPARE + 8, NP, SPARE + 8, 0 },
	{ "segment not present in ss", x_ss, SPARE + 8, SS, SPARE + 8, 0 },
	{ "read-only segment in ss", x_ss, SPARE + 16, GP, SPARE + 16, 0 },
	{ "ss with RPL 3", x_ss, KDATA | 3, GP, KDATA, 0 },
	{ "system descriptor in ds", x_ds, TSS_SEL, GP, TSS_SEL, 0 },
	{ "LDT selector without an LDT", x_ds, 0x0c, GP, 0x0c, 0 },
	{ "null in ss at CPL 0", x_ss_null, 0, -1, -1, -1 },
	{ "address not canonical", x_noncanon, 0, GP, 0, 10 },
	{ "stack address not canonical", x_noncanon_sp, 0, SS, 0, 13 },
	{ "push on a stack not canonical", x_push_noncanon, 0, DF, 0, -1 },
	{ "call to an address not canonical", x_call_noncanon, 0, GP, 0, 10 },
	{ "lock nop", x_lock, 0, UD, -1, 0 },
	{ "lock on a register", x_lock_reg, 0, UD, -1, 0 },
	{ "16 bytes of instruction", x_long, 0, GP, 0, 0 },
	{ "15 bytes of instruction", x_fifteen, 0, -1, -1, -1 },
	{ "push %es in 64-bit code", x_push_es, 0, UD, -1, 0 },
	{ "aaa in 64-bit code", x_aaa, 0, UD, -1, 0 },
	{ "movaps not aligned", x_movaps, 0, GP, 0, 0 },
	{ "ltr of a data segment", x_ltr, KDATA, GP, KDATA, 0 },
	{ "ltr of null", x_ltr, 0, GP, 0, 0 },
	{ "ltr of a busy TSS", x_ltr, TSS_SEL, GP, TSS_SEL, 0 },
	{ "iret to a data segment", x_iret_bad, KDATA, GP, KDATA, -1 },
	{ "iret to null", x_iret_bad, 0, GP, 0, -1 },
	{ "rdmsr of an unknown MSR", x_rdmsr, 0x40001234, GP, 0, 2 },
	{ "wrmsr of an unknown MSR", x_wrmsr, 0x40001234, GP, 0, 6 },
	{ "dr7 with high bits", x_dr, 1ul << 32, GP, 0, 0 },
	{ "cr1", x_cr1, 0, UD, -1, 0 },
};

/* TCG knows no error for unknown MSRs and lets some of the rest pass. */
static bool tcg_is_wrong(const void *fn, ulong arg)
{
	return on_tcg && (fn == x_rdmsr || fn == x_wrmsr || fn == x_long ||
			  fn == x_push_noncanon || fn == x_noncanon || fn == x_noncanon_sp ||
			  fn == x_call_noncanon || fn == x_ss_null || fn == x_int1 ||
			  (fn == x_ltr && !arg));
}

static void one_exception(const struct one *o)
{
	int vec;

	if (tcg_is_wrong(o->fn, o->arg))
		return;
	/* An #SS of a push cannot be delivered on that stack. */
	set_gate(DF, trap_stub(DF), KCODE, 0xe, 0, 1);
	set_gate(SS, trap_stub(SS), KCODE, 0xe, 0, o->vec == SS ? 1 : 0);
	vec = try_call(o->fn, o->arg, 0, 0);
	check_eq(vec, o->vec, "%s", o->name);
	if (vec != o->vec || vec < 0)
		return;
	if (o->err >= 0)
		check_eq(last.f.err, o->err, "%s: error code", o->name);
	if (o->at >= 0)
		check_eq(last.f.ip - (ulong)o->fn, o->at, "%s: rip", o->name);
	check_eq(last.f.cs, KCODE, "%s: cs", o->name);
}

static void simple_exceptions(void)
{
	section("exceptions");
	gdt[SPARE / 8] = segment(0, 0xffffffff, 0x4099);	/* execute-only */
	gdt[SPARE / 8 + 1] = segment(0, 0xffffffff, 0x4013);	/* data, not present */
	gdt[SPARE / 8 + 2] = segment(0, 0xffffffff, 0x4091);	/* data, read-only */
	tss.ist[0] = (ulong)pages_alloc(2) + 8192;
	tss.ist[1] = (ulong)pages_alloc(2) + 8192;
	asm volatile("lldt %w0" :: "r"(0));
	for (unsigned i = 0; i < ARRAY_SIZE(simple); i++)
		one_exception(&simple[i]);
	set_gate(DF, trap_stub(DF), KCODE, 0xe, 0, 0);
	set_gate(SS, trap_stub(SS), KCODE, 0xe, 0, 0);
}

/* The frame: 16-byte aligned, SS:RSP always pushed, IST stacks. */
static void frames(void)
{
	ulong ist_top = tss.ist[0];

	section("frames");
	try_call(x_ud2, 0, 0, 0);
	check_eq(last.f.ss, KDATA, "ss");
	check_eq((last.kernel_sp + sizeof(struct frame)) & 15, 0, "the stack is aligned");
	check(last.f.flags & FL_RF || on_tcg, "RF is set in the saved flags of a fault");
	try_call(x_int40, 0, 0, 0);
	check(!(last.f.flags & FL_RF), "and not by an INT");
	set_gate(UD, trap_stub(UD), KCODE, 0xe, 0, 1);
	try_call(x_ud2, 0, 0, 0);
	check_eq(last.kernel_sp + sizeof(struct frame), ist_top, "on the IST stack");
	tss.ist[0] = ist_top - 5;
	try_call(x_ud2, 0, 0, 0);
	check_eq(last.kernel_sp + sizeof(struct frame), (ist_top - 5) & ~15ul, "which is aligned");
	tss.ist[0] = ist_top;
	set_gate(UD, trap_stub(UD), KCODE, 0xe, 0, 0);
}

SNIPPET(x_if, "sti\n nop\n ud2");

/* The error code that names an IDT entry; TCG scales it by the size of the gate. */
static void check_idt_error(unsigned vec, unsigned ext)
{
	if (!on_tcg)
		check_eq(last.f.err, vec * 8 + 2 + ext, "error code of vector 0x%x", vec);
}

static void gates(void)
{
	section("gates");
	set_gate(UD, trap_stub(UD), KCODE, 0xf, 0, 0);
	check_eq(try_call(x_if, 0, 0, 0), UD, "through a trap gate");
	check(last.f.flags & FL_IF, "IF was set");
	set_gate(UD, trap_stub(UD), KCODE, 0xe, 0, 0);
	cli();
	/* A gate that is not present: #NP with the vector, and IDT set in the error code. */
	set_gate(0x41, trap_stub(0x41), KCODE, 0xe, 0, 0);
	struct { u16 limit; ulong base; } __attribute__((packed)) idtr, small;
	asm volatile("sidt %0" : "=m"(idtr));
	u8 *gate = (u8 *)idtr.base + 0x41 * 16;
	gate[5] &= 0x7f;
	check_eq(try_call(x_int41, 0, 0, 0), NP, "gate not present");
	check_idt_error(0x41, 0);
	check_eq(last.f.ip, (ulong)x_int41, "rip is at the INT");
	gate[5] |= 0x80;
	gate[2] = KDATA;
	check_eq(try_call(x_int41, 0, 0, 0), GP, "gate to a data segment");
	check_eq(last.f.err, KDATA, "its error code");
	gate[2] = 0;
	check_eq(try_call(x_int41, 0, 0, 0), GP, "gate to null");
	check_eq(last.f.err, 0, "its error code");
	gate[2] = KCODE;
	gate[5] = 0x85;
	check_eq(try_call(x_int41, 0, 0, 0), GP, "task gate in long mode");
	check_idt_error(0x41, 0);
	set_gate(0x41, trap_stub(0x41), KCODE, 0xe, 0, 0);
	small = idtr;
	small.limit = 0x41 * 16 + 14;
	asm volatile("lidt %0" :: "m"(small));
	check_eq(try_call(x_int41, 0, 0, 0), GP, "beyond the limit of the IDT");
	check_idt_error(0x41, 0);
	asm volatile("lidt %0" :: "m"(idtr));
}

/* Contributory pairs make a double fault; others are handled one after the other. */
static void double_faults(void)
{
	section("double faults");
	set_gate(DF, trap_stub(DF), KCODE, 0xe, 0, 1);
	/* #GP whose gate is not present: #NP of #GP, both contributory. */
	struct { u16 limit; ulong base; } __attribute__((packed)) idtr;
	asm volatile("sidt %0" : "=m"(idtr));
	u8 *gp = (u8 *)idtr.base + GP * 16, *ud = (u8 *)idtr.base + UD * 16;
	u8 *pf = (u8 *)idtr.base + PF * 16;
	gp[5] &= 0x7f;
	check_eq(try_call(x_ds, SPARE, 0, 0), DF, "#NP on the way to #GP");
	check_eq(last.f.err, 0, "error code");
	gp[5] |= 0x80;
	ud[5] &= 0x7f;
	check_eq(try_call(x_ud2, 0, 0, 0), NP, "#NP on the way to #UD stays #NP");
	check_idt_error(UD, 1);
	ud[5] |= 0x80;
	/* #PF on the way to #UD: the IST stack is not mapped. */
	tss.ist[1] = 5ul << 40;
	set_gate(UD, trap_stub(UD), KCODE, 0xe, 0, 2);
	check_eq(try_call(x_ud2, 0, 0, 0), PF, "#PF on the way to #UD stays #PF");
	check_eq(last.cr2, (5ul << 40) - 8, "cr2");
	check_eq(last.f.err, 2, "error code");
	set_gate(UD, trap_stub(UD), KCODE, 0xe, 0, 0);
	/* #PF on the way to #PF. */
	set_gate(PF, trap_stub(PF), KCODE, 0xe, 0, 2);
	check_eq(try_call(x_pf, 0, 0, 0), DF, "#PF on the way to #PF");
	set_gate(PF, trap_stub(PF), KCODE, 0xe, 0, 0);
	/* #NP on the way to #PF. */
	pf[5] &= 0x7f;
	check_eq(try_call(x_pf, 0, 0, 0), DF, "#NP on the way to #PF");
	pf[5] |= 0x80;
	set_gate(DF, trap_stub(DF), KCODE, 0xe, 0, 0);
}

/* A fault inside a handler, and the way back through both. */
static void nested_ud(struct frame *f)
{
	f->ip += 2;
	f->ax = try_call(x_div0, 0, 0, 0);
}

static void nested(void)
{
	int vec;

	section("faults in handlers");
	on_trap(UD, nested_ud);
	asm volatile("ud2" : "=a"(vec));
	on_trap(UD, NULL);
	check_eq(vec, DE, "a division by 0 inside a #UD handler");
}

/* --- debugging --- */

static struct { ulong ip, dr6, flags; } dbs[32];
static unsigned ndbs;
static bool want_rf;

static void on_db(struct frame *f)
{
	if (ndbs < ARRAY_SIZE(dbs)) {
		dbs[ndbs].ip = f->ip;
		dbs[ndbs].dr6 = get_dr6();
		dbs[ndbs].flags = f->flags;
	}
	ndbs++;
	set_dr6(0);
	if (want_rf)
		f->flags |= FL_RF;
	if (ndbs > 1000)
		die("debug exceptions without end");
}

SNIPPET(step_me, "pushfq\n orl $0x100, (%rsp)\n popfq\n"
	"s1: nop\n s2: mov $5, %ecx\n s3: dec %ecx\n s4: jnz s3\n s5: pushfq\n s6: andl $~0x100, (%rsp)\n s7: popfq\n"
	"s8: nop\n ret");
SNIPPET(step_syscalls, "pushfq\n pushfq\n orl $0x100, (%rsp)\n popfq\n"
	"mov %ss, %eax\n mov %eax, %ss\n m1: nop\n m2: nop\n popfq\n nop\n ret");
extern const char s1[], s2[], s3[], s4[], s5[], s6[], s7[], s8[], m1[], m2[];

static void single_step(void)
{
	section("single step");
	on_trap(DB, on_db);
	ndbs = 0;
	set_dr6(0);
	check_eq(try_call(step_me, 0, 0, 0), -1, "stepping");
	check_eq(ndbs, 2 + 10 + 3, "traps");
	check_eq(dbs[0].ip, (ulong)s2, "the first one is after the instruction after popf");
	check_eq(dbs[0].dr6 & 0xf00f, 0x4000, "dr6.BS");
	check_eq(dbs[1].ip, (ulong)s3, "then the next");
	check_eq(dbs[2].ip, (ulong)s4, "then the next");
	check_eq(dbs[3].ip, (ulong)s3, "a jump taken");
	check_eq(dbs[11].ip, (ulong)s5, "a jump not taken");
	check_eq(dbs[14].ip, (ulong)s8, "popf that clears TF still traps");
	check(dbs[0].flags & FL_TF, "TF is set in the saved flags");
	ndbs = 0;
	check_eq(try_call(step_syscalls, 0, 0, 0), -1, "stepping over mov to ss");
	bool at_m1 = false, at_m2 = false;
	for (unsigned i = 0; i < ndbs && i < 32; i++) {
		at_m1 |= dbs[i].ip == (ulong)m1;
		at_m2 |= dbs[i].ip == (ulong)m2;
	}
	check(!at_m1, "no trap after mov to ss");
	check(at_m2, "but after the one that follows it");
	on_trap(DB, NULL);
}

SNIPPET(bp_code, "xor %eax, %eax\n b1: inc %eax\n b2: inc %eax\n b3: inc %eax\n ret");
extern const char b1[], b2[], b3[];

static void code_breakpoints(void)
{
	section("instruction breakpoints");
	on_trap(DB, on_db);
	ndbs = 0;
	want_rf = true;
	set_dr6(0);
	set_dr0((ulong)b2);
	set_dr3((ulong)b3);
	set_dr7(0x400 | 2 | 0x80);
	check_eq(try_call(bp_code, 0, 0, 0), -1, "run with RF set by the handler");
	check_eq(try_result, 3, "it ran to its end");
	check_eq(ndbs, 2, "two breakpoints");
	check_eq(dbs[0].ip, (ulong)b2, "the first is a fault: rip at the instruction");
	check_eq(dbs[0].dr6 & 0xf00f, 1, "dr6");
	check_eq(dbs[1].ip, (ulong)b3, "the second");
	check_eq(dbs[1].dr6 & 0xf00f, 8, "dr6");
	ndbs = 0;
	set_dr7(0x400);
	try_call(bp_code, 0, 0, 0);
	check_eq(ndbs, 0, "none when disabled");
	/* RF in the flags of the faulting instruction itself. */
	want_rf = false;
	set_dr7(0);
	on_trap(DB, NULL);
}

static u64 watched[8] __attribute__((aligned(64)));
SNIPPET(touch, "d0: mov (%rdi), %al\n d1: mov %al, (%rdi)\n d2: mov %rax, 8(%rdi)\n d3: ret");
SNIPPET(touch_push, "mov %rsp, %rdx\n lea 16(%rdi), %rsp\n push %rax\n e1: pop %rax\n e2: mov %rdx, %rsp\n ret");
SNIPPET(touch_string, "xor %eax, %eax\n mov $8, %ecx\n cld\n f0: rep stosb\n f1: ret");
extern const char d0[], d1[], d2[], d3[], e1[], e2[], f0[], f1[];

static unsigned with_watch(const void *fn, ulong at, unsigned rw, unsigned len)
{
	ndbs = 0;
	set_dr6(0);
	set_dr1(at);
	set_dr7(0x400 | 8 | rw << 20 | len << 22);
	try_call(fn, (ulong)watched, 0, 0);
	set_dr7(0x400);
	return ndbs;
}

static void data_breakpoints(void)
{
	ulong w = (ulong)watched;

	section("data breakpoints");
	on_trap(DB, on_db);
	set_gate(DB, trap_stub(DB), KCODE, 0xe, 0, 1);	/* %rsp is inside what is watched */
	check_eq(with_watch(touch, w, 1, 0), 1, "write of one byte");
	check_eq(dbs[0].ip, (ulong)d2, "is a trap: rip after the instruction");
	check_eq(dbs[0].dr6 & 0xf00f, 2, "dr6");
	check_eq(with_watch(touch, w, 3, 0), 2, "read and write");
	check_eq(dbs[0].ip, (ulong)d1, "the read");
	check_eq(with_watch(touch, w + 1, 3, 0), 0, "the next byte");
	check_eq(with_watch(touch, w + 12, 1, 3), 1, "four bytes inside an 8-byte store");
	check_eq(dbs[0].ip, (ulong)d3, "rip");
	check_eq(with_watch(touch, w + 8, 1, 2), 1, "eight bytes");
	check_eq(with_watch(touch, w + 16, 1, 2), 0, "eight bytes further on");
	check_eq(with_watch(touch_push, w + 8, 3, 2), 2, "push and pop");
	check_eq(dbs[0].ip, (ulong)e1, "after the push");
	check_eq(dbs[1].ip, (ulong)e2, "after the pop");
	if (!on_tcg) {
		check(with_watch(touch_string, w + 3, 1, 0) >= 1, "rep stosb over it");
		check_eq(*(u8 *)(w + 3), 0, "the byte was stored before the trap");
	}
	on_trap(DB, NULL);
	set_gate(DB, trap_stub(DB), KCODE, 0xe, 0, 0);
}

SNIPPET(io_touch, "mov $0x80, %edx\n g0: in %dx, %al\n g1: out %al, %dx\n g2: ret");
extern const char g1[], g2[];

static void io_breakpoints(void)
{
	section("I/O breakpoints");
	on_trap(DB, on_db);
	set_cr4(get_cr4() | 8);	/* DE */
	check_eq(with_watch(io_touch, 0x80, 2, 0), 2, "in and out of port 0x80");
	check_eq(dbs[0].ip, (ulong)g1, "a trap after IN");
	check_eq(dbs[1].ip, (ulong)g2, "a trap after OUT");
	check_eq(with_watch(io_touch, 0x81, 2, 0), 0, "another port");
	check_eq(try_call(x_dr4, 0, 0, 0), UD, "dr4 with CR4.DE");
	set_cr4(get_cr4() & ~8ul);
	if (!on_tcg)
		check_eq(try_call(x_dr4, 0, 0, 0), -1, "dr4 is dr6 without it");
	on_trap(DB, NULL);
}

SNIPPET(gd, "mov %dr0, %rax\n ret");

static void general_detect(void)
{
	section("general detect");
	set_dr6(0);
	check_eq(get_dr6(), 0xffff0ff0, "dr6 has its fixed bits");
	set_dr7(0);
	check_eq(get_dr7(), 0x400, "dr7 has its fixed bit");
	if (on_tcg) {
		skip("TCG has none");
		return;
	}
	set_dr6(0);
	set_dr7(0x400 | 1 << 13);
	check_eq(try_call(gd, 0, 0, 0), DB, "access to dr0 with GD");
	check_eq(last.f.ip, (ulong)gd, "is a fault");
	check_eq(get_dr6() & 0xe00f, 0x2000, "dr6.BD");
	check_eq(get_dr7() & 1 << 13, 0, "GD is cleared on the way");
	set_dr7(0x400);
	set_dr6(0);
}

/* An interrupt of our own through the local APIC shows where interrupts are taken. */
static volatile u32 *const apic = (volatile u32 *)0xfee00000ul;
static ulong taken_at;

static void on_self(struct frame *f)
{
	taken_at = f->ip;
	apic[0xb0 / 4] = 0;
}

static void self_ipi(u8 vec)
{
	apic[0x310 / 4] = 0;
	apic[0x300 / 4] = 1 << 18 | 1 << 14 | vec;
	for (volatile unsigned i = 0; i < 1000; i++)
		;
}

SNIPPET(sti_shadow, "sti\n h1: nop\n h2: nop\n h3: nop\n cli\n ret");
SNIPPET(sti_cli, "sti\n cli\n nop\n ret");
SNIPPET(sti_sti, "sti\n sti\n i1: nop\n i2: nop\n cli\n ret");
SNIPPET(popf_if, "pushfq\n orl $0x200, (%rsp)\n popfq\n j1: nop\n cli\n ret");
extern const char h1[], h2[], i1[], i2[], j1[];

static void shadows(void)
{
	section("interrupt shadows");
	cli();
	apic[0xf0 / 4] = 0x1ff;
	on_trap(0x51, on_self);
	taken_at = 0;
	self_ipi(0x51);
	try_call(sti_shadow, 0, 0, 0);
	check_eq(taken_at, (ulong)h2, "sti holds for one instruction");
	taken_at = 0;
	self_ipi(0x51);
	try_call(sti_cli, 0, 0, 0);
	check_eq(taken_at, 0, "sti; cli lets nothing in");
	try_call(popf_if, 0, 0, 0);
	check_eq(taken_at, (ulong)j1, "popf has no shadow");
	taken_at = 0;
	self_ipi(0x51);
	try_call(sti_sti, 0, 0, 0);
	check(taken_at == (ulong)i1 || taken_at == (ulong)i2, "the second sti has none: 0x%lx",
	      taken_at);
	on_trap(0x51, NULL);
}

/* #AC needs CR0.AM, EFLAGS.AC and CPL 3. */
static void alignment(void)
{
	ulong ip = user_code(x_ac, x_ac_end);

	section("alignment check");
	set_cr0(get_cr0() | BIT(18));
	check_eq(try_call(enter_user, ip, USER_STACK - 64, 2), VEC_RETURN, "without AC");
	if (on_tcg) {
		skip("TCG has no #AC");
	} else {
		check_eq(try_call(enter_user, ip, USER_STACK - 64, 2 | FL_AC), AC, "with AC");
		check_eq(last.f.err, 0, "error code");
	}
	set_cr0(get_cr0() & ~BIT(18));
	check_eq(try_call(enter_user, ip, USER_STACK - 64, 2 | FL_AC), VEC_RETURN, "without AM");
}

void guest_main(void)
{
	simple_exceptions();
	frames();
	gates();
	double_faults();
	nested();
	single_step();
	code_breakpoints();
	data_breakpoints();
	io_breakpoints();
	general_detect();
	shadows();
	alignment();
}
