/*
 * Hardware task switches in 32-bit protected mode: far jump, far call, task
 * gates, interrupts, IRET with NT; what is saved, loaded, marked busy, and
 * what is refused.  SDM vol. 3, chapter 7.
 */
#include "lib/guest.h"

#define TSS_B	(SPARE + 8)	/* the task under test */
#define GATE_B	(SPARE + 16)	/* task gate to B */
#define TSS16	(SPARE + 32)
#define LDT_B	(SPARE + 40)
#define SHORT	(SPARE + 48)
#define DATA_NP	(SPARE + 56)

struct small { u16 link, sp0, ss0, sp1, ss1, sp2, ss2, ip, flags, ax, cx, dx, bx, sp, bp, si, di, es,
	       cs, ss, ds, ldt; } __attribute__((packed));

static struct tss b;
static struct small old16;
static u8 stack_b[8192];
static volatile u32 log[16];
static volatile unsigned nlog;

asm(".pushsection .text\n"
    "jump_b: ljmp $0x58, $0\n ret\n"
    "call_b: lcall $0x58, $0\n ret\n"
    "call_gate_b: lcall $0x60, $0\n ret\n"
    "jump_gate_b: ljmp $0x60, $0\n ret\n"
    "jump_short: ljmp $0x80, $0\n ret\n"
    "call_16: lcall $0x70, $0\n ret\n"
    "int_b: int $0x90\n ret\n"
    "iret_nt: pushfl\n orl $0x4000, (%esp)\n popfl\n iret\n ret\n"
    ".popsection");
extern const char jump_b[], call_b[], call_gate_b[], jump_gate_b[], jump_short[],
	call_16[], int_b[], iret_nt[];

SNIPPET(bad_load, "mov $0x1f0, %eax\n mov %eax, %fs\n bl1: ret");
SNIPPET(mend, "popl %ebx\n addl $2, (%edi)\n pushl %ebx\n pushl %ebx\n pushfl\n call note\n addl $12, %esp\n iret\n jmp mend");
SNIPPET(read_va, "rv0: mov 0x40000000, %eax\n mov %eax, 0x40000004\n iret\n jmp rv0");

static bool busy(unsigned sel)
{
	return gdt[sel / 8] >> 41 & 1;
}

static u32 task_register(void)
{
	u32 tr = 0;

	asm volatile("str %0" : "=r"(tr));
	return tr & 0xffff;
}

/* What task B does each time: notes where it is, goes back as it came. */
static void __attribute__((noinline, used)) note(u32 flags, u32 value)
{
	log[nlog++ & 15] = task_register();
	log[nlog++ & 15] = flags;
	log[nlog++ & 15] = value;
}

/* Entered with registers from its TSS; %ebx is the value to note. */
asm(".pushsection .text\n"
    "task_iret: pushl %ebx\n pushfl\n call note\n addl $8, %esp\n incl %ebx\n iret\n jmp task_iret\n"
    "task_jump: pushl %ebx\n pushfl\n call note\n addl $8, %esp\n incl %ebx\n ljmp $0x40, $0\n jmp task_jump\n"
    "task_error: popl %ebx\n pushl %ebx\n pushfl\n call note\n addl $8, %esp\n iret\n jmp task_error\n"
    ".code16\n task_16: incw %bx\n iret\n jmp task_16\n .code32\n"
    ".popsection");
extern const char task_iret[], task_jump[], task_error[], task_16[];

static void init_task(struct tss *t, unsigned sel, const void *ip, u8 *stack)
{
	memset(t, 0, 104);
	t->eip = (ulong)ip;
	t->esp = (ulong)stack + 8192;
	t->eflags = 2;
	t->cs = KCODE;
	t->ds = t->es = t->fs = t->gs = t->ss = KDATA;
	t->esp0 = t->esp;
	t->ss0 = KDATA;
	t->cr3 = get_cr3();
	t->iomap = 104;
	t->ebx = 0x1000;
	t->ecx = 0x2222;
	gdt[sel / 8] = segment((ulong)t, 103, 0x89);
	nlog = 0;
}

static int go(const void *fn)
{
	return try_call(fn, 0, 0, 0);
}

static void calls(void)
{
	section("far call and IRET");
	init_task(&b, TSS_B, task_iret, stack_b);
	check_eq(go(call_b), -1, "there and back");
	check_eq(nlog, 3, "B ran once");
	check_eq(log[0], TSS_B, "with its own task register");
	check_eq(log[1] & FL_NT, FL_NT, "with NT set");
	check_eq(log[2], 0x1000, "with its own registers");
	check_eq(b.link, TSS_SEL, "its back link is the main task");
	check_eq(task_register(), TSS_SEL, "back in the main task");
	check(busy(TSS_SEL) && !busy(TSS_B), "busy bits");
	check_eq(b.ebx, 0x1001, "its registers were saved");
	check_eq(b.ecx, 0x2222, "all of them");
	check(!(b.eflags & FL_NT), "NT is clear in its saved flags");
	check(!(get_flags() & FL_NT), "and in ours");
	check_eq(go(call_b), -1, "a second time");
	check_eq(log[5], 0x1001, "it went on after its IRET");
	check(get_cr0() & 8, "CR0.TS is set");
	asm volatile("clts");
	/* By a task gate. */
	gdt[GATE_B / 8] = (u64)TSS_B << 16 | (u64)0x85 << 40;
	check_eq(go(call_gate_b), -1, "through a task gate");
	check_eq(log[8], 0x1002, "it ran");
	gdt[GATE_B / 8] &= ~BIT(47);
	check_eq(go(call_gate_b), NP, "a gate that is not present");
	check_eq(last.f.err, GATE_B, "its error code");
}

static void jumps(void)
{
	section("far jump");
	init_task(&b, TSS_B, task_jump, stack_b);
	b.link = 0x1234;
	check_eq(go(jump_b), -1, "there and back");
	check_eq(log[0], TSS_B, "B ran");
	check_eq(log[1] & FL_NT, 0, "without NT");
	check_eq(b.link, 0x1234, "no back link");
	check(busy(TSS_SEL) && !busy(TSS_B), "busy bits");
	gdt[GATE_B / 8] = (u64)TSS_B << 16 | (u64)0x85 << 40;
	check_eq(go(jump_gate_b), -1, "through a task gate");
	check_eq(log[5], 0x1001, "it went on");
}

static void interrupts(void)
{
	section("interrupts");
	init_task(&b, TSS_B, task_iret, stack_b);
	set_gate(0x90, 0, TSS_B, 5, 0, 0);
	check_eq(go(int_b), -1, "INT through a task gate");
	check_eq(log[0], TSS_B, "B ran");
	check_eq(b.link, TSS_SEL, "back link");
	check(!(get_flags() & FL_NT), "and back");
	set_gate(0x90, trap_stub(0x90), KCODE, 0xe, 0, 0);
	/* An exception with an error code: it is pushed on B's stack. */
	init_task(&b, TSS_B, task_error, stack_b);
	set_gate(GP, 0, TSS_B, 5, 0, 0);
	u8 *insn = (u8 *)bad_load + 5;
	tss.eip = 0;
	on_trap(GP, NULL);
	/* The handler cannot mend it, so the main task's EIP is moved on in its TSS. */
	b.eip = (ulong)mend;
	b.edi = (ulong)&tss.eip;
	check_eq(go(bad_load), -1, "#GP through a task gate");
	check_eq(log[2], 0x1f0, "its error code");
	check_eq(tss.eip, (ulong)insn + 2, "EIP in the TSS was the instruction's, and we moved it on");
	set_gate(GP, trap_stub(GP), KCODE, 0xe, 0, 0);
	init_task(&b, TSS_B, task_iret, stack_b);
}

static void refusals(void)
{
	section("refusals");
	init_task(&b, TSS_B, task_iret, stack_b);
	gdt[TSS_B / 8] |= 1ull << 41;
	check_eq(go(call_b), GP, "a busy task");
	check_eq(last.f.err, TSS_B, "its error code");
	init_task(&b, TSS_B, task_iret, stack_b);
	gdt[TSS_B / 8] &= ~BIT(47);
	check_eq(go(call_b), NP, "a TSS that is not present");
	check_eq(last.f.err, TSS_B, "its error code");
	gdt[SHORT / 8] = segment((ulong)&b, 102, 0x89);
	check_eq(go(jump_short), TS, "a TSS that is too short");
	check_eq(last.f.err, SHORT, "its error code");
	check_eq(task_register(), TSS_SEL, "still in the main task");
	gdt[GATE_B / 8] = (u64)KDATA << 16 | (u64)0x85 << 40;
	check_eq(go(call_gate_b), GP, "a task gate to data");
	check_eq(last.f.err, KDATA, "its error code");
	/* Returning by NT to a task that is not busy. */
	init_task(&b, TSS_B, task_iret, stack_b);
	tss.link = TSS_B;
	check_eq(go(iret_nt), TS, "IRET to a task that is not busy");
	check_eq(last.f.err, TSS_B, "its error code");
	asm volatile("pushfl; andl $~0x4000, (%esp); popfl");
	tss.link = 0;
}

/*
 * Errors of the new task's data segments come in the new task, on its stack.
 * (With a bad CS, SS or LDT there is no stack yet on which they could.)
 */
static void bad_segment(const char *what, size_t field, u16 value, int vec)
{
	init_task(&b, TSS_B, task_iret, stack_b);
	memcpy((u8 *)&b + field, &value, 2);
	check_eq(go(jump_b), vec, "%s", what);
	check_eq(last.f.err, value & ~3u, "%s: error code", what);
	check_eq(task_register(), TSS_B, "%s: already in the new task", what);
	/* Back to the main task, whose descriptor is free by now. */
	asm volatile("ltr %w0" :: "r"(TSS_SEL));
}

static void segments(void)
{
	section("segments of the new task");
	gdt[DATA_NP / 8] = segment(0, 0xffffffff, 0x4013);
	bad_segment("ds beyond the table", offsetof(struct tss, ds), 0x7ff8, TS);
	bad_segment("es not present", offsetof(struct tss, es), DATA_NP, NP);
	bad_segment("fs is a TSS", offsetof(struct tss, fs), TSS_SEL, TS);
	/* An LDT of its own, and a segment in it. */
	static u64 ldt[2];
	init_task(&b, TSS_B, task_iret, stack_b);
	ldt[1] = segment(0, 0xffffffff, 0x4093);
	gdt[LDT_B / 8] = segment((ulong)ldt, 15, 0x82);
	b.ldt = LDT_B;
	b.ds = 0x0c;
	check_eq(go(call_b), -1, "a task with an LDT");
	u32 sel = 0xffff;
	asm volatile("sldt %0" : "=r"(sel));
	check_eq(sel & 0xffff, 0, "and ours again");
}

/* A fault with the T bit: #DB on arrival. */
static void debug_trap(void)
{
	section("debug trap");
	init_task(&b, TSS_B, task_iret, stack_b);
	b.trap = 1;
	set_dr6(0);
	check_eq(go(jump_b), DB, "T in the TSS");
	check_eq(last.dr6 & 0xf00f, 0x8000, "dr6.BT");
	check_eq(last.f.ip, (ulong)task_iret, "before its first instruction");
	set_dr6(0);
	b.trap = 0;
	asm volatile("ltr %w0" :: "r"(TSS_SEL));
}

static void sixteen(void)
{
	section("16-bit TSS");
	memset(&old16, 0, sizeof(old16));
	gdt[0xa0 / 8] = segment((ulong)task_16 & ~0xful, 0xffff, 0x009b);
	old16.ip = (ulong)task_16 & 0xf;
	old16.cs = 0xa0;
	old16.ss = old16.ds = old16.es = KDATA;
	old16.sp = 0x7000;
	old16.flags = 2;
	old16.bx = 0x41;
	gdt[TSS16 / 8] = segment((ulong)&old16, 43, 0x81);
	check_eq(go(call_16), -1, "there and back");
	check_eq(old16.bx, 0x42, "its registers were saved");
	check_eq(old16.link, TSS_SEL, "its back link");
}

/* A task of another address space: CR3 comes from the TSS. */
static void address_space(void)
{
	u32 *pd = page_alloc(), *other = page_alloc();
	ulong one = (ulong)page_alloc(), two = (ulong)page_alloc(), code = (ulong)page_alloc();

	section("CR3");
	*(u32 *)one = 1;
	*(u32 *)two = 2;
	set_cr4(get_cr4() | 0x10);	/* PSE */
	for (unsigned i = 0; i < 64; i++)
		pd[i] = other[i] = i << 22 | 0x83;
	u32 *t1 = page_alloc(), *t2 = page_alloc();
	t1[0] = one | 3;
	t2[0] = two | 3;
	pd[256] = (ulong)t1 | 3;
	other[256] = (ulong)t2 | 3;
	memcpy((void *)code, read_va, read_va_end - read_va);
	set_cr3((ulong)pd);
	set_cr0(get_cr0() | BIT(31));
	init_task(&b, TSS_B, (void *)code, stack_b);
	b.cr3 = (ulong)other;
	tss.cr3 = (ulong)pd;
	check_eq(*(volatile u32 *)0x40000000, 1, "our page");
	check_eq(go(call_b), -1, "a task with its own CR3");
	check_eq(b.eax, 2, "it read its page");
	check_eq(((u32 *)two)[1], 2, "and wrote to it");
	check_eq(get_cr3(), (ulong)pd, "our CR3 is back");
	check_eq(*(volatile u32 *)0x40000000, 1, "and our page");
	set_cr0(get_cr0() & ~BIT(31));
}

void guest_main(void)
{
	tss.cr3 = get_cr3();
	calls();
	jumps();
	interrupts();
	refusals();
	segments();
	if (on_tcg)
		skip("TCG has no T bit");
	else
		debug_trap();
	sixteen();
	address_space();
}
