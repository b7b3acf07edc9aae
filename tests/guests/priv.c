/*
 * Privilege: rings, call gates, conforming code, SYSCALL and SYSENTER, I/O
 * permissions, what is refused outside ring 0, GS and FS bases, compatibility
 * mode.  SDM vol. 3, chapter 5.
 */
#include "lib/guest.h"

#define STAR 0xc0000081
#define LSTAR 0xc0000082
#define CSTAR 0xc0000083
#define SFMASK 0xc0000084
#define FS_BASE 0xc0000100
#define GS_BASE 0xc0000101
#define KERNEL_GS_BASE 0xc0000102
#define SYSENTER_CS 0x174
#define SYSENTER_ESP 0x175
#define SYSENTER_EIP 0x176
#define EFER 0xc0000080

#define GATE (SPARE)			/* two entries */
#define CONFORMING (SPARE + 16)
#define GATE3 (SPARE + 24)		/* two entries, DPL 0 */
#define DATA0 (SPARE + 40)
#define DATA3 (SPARE + 48)
#define NOTPRESENT (SPARE + 56)
#define LDT_SEL (SPARE + 64)		/* two entries */

static u64 *user_data;
SNIPPET(u_fs, "mov %fs, %eax\n int $0x80");
SNIPPET(k_sysret, "mov $0x8000000000000000, %rcx\n sysretq");

/* Runs a snippet at CPL 3 with the given flags. */
static int user_flags(const void *code, const void *end, ulong flags)
{
	return try_call(enter_user, user_code(code, end), USER_STACK - 256, flags);
}

static int user(const void *code, const void *end)
{
	return user_flags(code, end, 2);
}

static int user32(const void *code, const void *end)
{
	/* 32-bit code must lie below 4 GiB. */
	static ulong at;
	size_t len = (const char *)end - (const char *)code;

	if (!at)
		at = (ulong)pages_alloc(2);
	*pte_of(0, 4) |= PTE_U;
	*pte_of(0, 3) |= PTE_U;
	*pte_of(at, 2) |= PTE_U;
	set_cr3(get_cr3());
	memcpy((void *)at, code, len);
	return try_call(enter_user32, at, at + 8192 - 64, 2);
}

#define USER(name, text) SNIPPET(name, text "\n int $0x80\n")

/* --- instructions that CPL 3 may not execute --- */

SNIPPET(p_hlt, "hlt");
SNIPPET(p_cli, "cli");
SNIPPET(p_sti, "sti");
SNIPPET(p_in, "in $0x80, %al");
SNIPPET(p_cr0, "mov %cr0, %rax");
SNIPPET(p_cr3, "mov %rax, %cr3");
SNIPPET(p_cr8, "mov %cr8, %rax");
SNIPPET(p_dr, "mov %dr7, %rax");
SNIPPET(p_rdmsr, "mov $0xc0000080, %ecx\n rdmsr");
SNIPPET(p_wrmsr, "wrmsr");
SNIPPET(p_invlpg, "invlpg (%rsp)");
SNIPPET(p_lgdt, "lgdt (%rsp)");
SNIPPET(p_lidt, "lidt (%rsp)");
SNIPPET(p_lldt, "xor %eax, %eax\n lldt %ax");
SNIPPET(p_ltr, "ltr %ax");
SNIPPET(p_clts, "clts");
SNIPPET(p_lmsw, "lmsw %ax");
SNIPPET(p_wbinvd, "wbinvd");
SNIPPET(p_swapgs, "swapgs");
SNIPPET(p_sysret, "sysretq");
SNIPPET(p_sysexit, "sysexitl");
SNIPPET(p_int20, "int $0x20");
SNIPPET(p_mov_ss, "mov $0x10, %eax\n mov %eax, %ss");
SNIPPET(p_mov_ds, "mov $0x10, %eax\n mov %eax, %ds");
SNIPPET(p_rdtsc, "rdtsc");
SNIPPET(p_xsetbv, "xor %ecx, %ecx\n xgetbv\n xsetbv");

static void refused(void)
{
	static const struct { const char *name; const void *code; int at; int err; } list[] = {
		{ "hlt", p_hlt, 0, 0 }, { "cli", p_cli, 0, 0 }, { "sti", p_sti, 0, 0 },
		{ "in", p_in, 0, 0 }, { "mov from cr0", p_cr0, 0, 0 }, { "mov to cr3", p_cr3, 0, 0 },
		{ "mov from cr8", p_cr8, 0, 0 }, { "mov from dr7", p_dr, 0, 0 },
		{ "rdmsr", p_rdmsr, 5, 0 }, { "wrmsr", p_wrmsr, 0, 0 }, { "invlpg", p_invlpg, 0, 0 },
		{ "lgdt", p_lgdt, 0, 0 }, { "lidt", p_lidt, 0, 0 }, { "lldt", p_lldt, 2, 0 },
		{ "ltr", p_ltr, 0, 0 }, { "clts", p_clts, 0, 0 }, { "lmsw", p_lmsw, 0, 0 },
		{ "wbinvd", p_wbinvd, 0, 0 }, { "swapgs", p_swapgs, 0, 0 },
		{ "sysret", p_sysret, 0, 0 }, { "sysexit", p_sysexit, 0, 0 },
		{ "int to a gate of DPL 0", p_int20, 0, 0x20 * 8 + 2 },
		{ "kernel data in ss", p_mov_ss, 5, KDATA }, { "kernel data in ds", p_mov_ds, 5, KDATA },
	};

	section("refused at CPL 3");
	for (unsigned i = 0; i < ARRAY_SIZE(list); i++) {
		if (on_tcg && list[i].code == p_wbinvd)
			continue;
		check_eq(user(list[i].code, (const char *)list[i].code + 16), GP, "%s", list[i].name);
		if (!(on_tcg && list[i].code == p_int20))	/* it scales the code by 16 */
			check_eq(last.f.err, list[i].err, "%s: error code", list[i].name);
		check_eq(last.f.ip, USER_BASE + list[i].at, "%s: rip", list[i].name);
		check_eq(last.f.cs, UCODE | 3, "%s: cs", list[i].name);
	}
	set_cr4(get_cr4() | 4);		/* TSD */
	check_eq(user(p_rdtsc, p_rdtsc_end), GP, "rdtsc with CR4.TSD");
	set_cr4(get_cr4() & ~4ul);
}

USER(u_popf, "pushfq\n pop %rbx\n push $-1\n andq $~0x100, (%rsp)\n popfq\n pushfq\n pop %rax\n push $2\n popfq");
USER(u_nothing, "nop");
USER(u_cli_sti, "cli\n pushfq\n pop %rax\n sti\n pushfq\n pop %rbx");
USER(u_in, "mov $0x123, %edx\n in %dx, %al");
USER(u_in_next, "mov $0x124, %edx\n in %dx, %al");
USER(u_in32, "mov $0x121, %edx\n in %dx, %eax");
USER(u_in_last, "mov $0xffff, %edx\n in %dx, %al");
USER(u_outs, "mov $0x123, %edx\n mov %rsp, %rsi\n outsb");

static void iopl_and_bitmap(void)
{
	section("IOPL");
	check_eq(user(u_popf, u_popf_end), VEC_RETURN, "popf of everything at CPL 3");
	check_eq(last.f.ax & 0x3200, 0, "leaves IOPL and IF");
	check_eq(last.f.ax & 0x4d5, 0x4d5, "and sets DF and the status flags");
	check_eq(user_flags(u_cli_sti, u_cli_sti_end, 0x3002), VEC_RETURN, "cli and sti with IOPL 3");
	check_eq(last.f.ax & FL_IF, 0, "cli");
	check_eq(last.f.bx & FL_IF, FL_IF, "sti");
	check_eq(user_flags(u_in, u_in_end, 0x3002), VEC_RETURN, "in with IOPL 3");
	check_eq(user_flags(u_in, u_in_end, 0x2002), GP, "in with IOPL 2");

	section("I/O bitmap");
	tss.bitmap[0x123 / 8] &= ~(1 << (0x123 & 7));
	check_eq(user(u_in, u_in_end), VEC_RETURN, "a port that is allowed");
	check_eq(user(u_outs, u_outs_end), VEC_RETURN, "outs to it");
	check_eq(user(u_in_next, u_in_next_end), GP, "the next one");
	check_eq(user(u_in32, u_in32_end), GP, "four ports of which three are refused");
	tss.bitmap[0x120 / 8] &= ~0x1e;
	check_eq(user(u_in32, u_in32_end), VEC_RETURN, "four that are allowed");
	tss.bitmap[0x120 / 8] |= 0x1e;
	tss.bitmap[8191] = 0x7f;
	check_eq(user(u_in_last, u_in_last_end), VEC_RETURN, "the last port");
	tss.bitmap[8191] = 0xff;
	u16 iomap = tss.iomap;
	tss.iomap = 0xdfff;
	check_eq(user(u_in, u_in_end), GP, "a map beyond the limit refuses all");
	tss.iomap = iomap;
}

/* --- gates --- */

static void gate64(unsigned sel, const void *target, u16 cs, unsigned dpl, unsigned type)
{
	ulong t = (ulong)target;

	gdt[sel / 8] = (t & 0xffff) | (u64)cs << 16 | (u64)(0x80 | dpl << 5 | type) << 40 |
		       (u64)(t >> 16 & 0xffff) << 48;
	gdt[sel / 8 + 1] = t >> 32;
}

/* Called through the gate at CPL 0: notes its stack, and returns far. */
asm(".pushsection .text\ngate_target: mov %cs, %eax\n mov %rsp, %rbx\n mov 16(%rsp), %rcx\n"
    "mov 8(%rsp), %rdi\n mov %ss, %esi\n lretq\n"
    "conforming_target: mov %cs, %eax\n lretq\n.popsection");
extern const char gate_target[], conforming_target[];

USER(u_gate, "mov %rsp, %rbp\n lcall *1f(%rip)\n sub %rsp, %rbp\n jmp 2f\n 1: .long 0\n .word 0x50\n 2:");
USER(u_gate3, "lcall *1f(%rip)\n jmp 2f\n 1: .long 0\n .word 0x68\n 2:");
USER(u_jmp_gate, "ljmp *1f(%rip)\n jmp 2f\n 1: .long 0\n .word 0x50\n 2:");
USER(u_conf, "mov $0x8000200100, %rbx\n lcall *(%rbx)");

static void gates(void)
{
	section("call gates");
	gate64(GATE, gate_target, KCODE, 3, 0xc);
	gate64(GATE3, gate_target, KCODE, 0, 0xc);
	check_eq(user(u_gate, u_gate_end), VEC_RETURN, "call through a gate");
	check_eq(last.f.ax, KCODE, "cs in the target: CPL 0");
	check_eq(last.f.si, 0, "ss is null there");
	check_eq(last.f.bx, tss.rsp[0] - 32, "on the stack of the TSS");
	check_eq(last.f.cx, USER_STACK - 256, "rsp of the caller is on it");
	check_eq(last.f.di, UCODE | 3, "cs of the caller is on it");
	check_eq(last.f.bp, 0, "rsp is back");
	check_eq(last.f.cs, UCODE | 3, "back at CPL 3");
	check_eq(user(u_gate3, u_gate3_end), GP, "a gate of DPL 0");
	check_eq(last.f.err, GATE3, "its error code");
	check_eq(user(u_jmp_gate, u_jmp_gate_end), GP, "a jump through a gate to CPL 0");
	check_eq(last.f.err, KCODE, "its error code");
	gdt[GATE / 8] &= ~BIT(47);
	check_eq(user(u_gate, u_gate_end), NP, "a gate that is not present");
	check_eq(last.f.err, GATE, "its error code");
	gate64(GATE, gate_target, KDATA, 3, 0xc);
	check_eq(user(u_gate, u_gate_end), GP, "a gate to data");
	check_eq(last.f.err, KDATA, "its error code");
	gate64(GATE, gate_target, KCODE, 3, 0x4);
	check_eq(user(u_gate, u_gate_end), GP, "a 16-bit gate in long mode");
	gate64(GATE, gate_target, KCODE, 3, 0xc);
	gdt[GATE / 8 + 1] |= 1ull << 40;
	check_eq(user(u_gate, u_gate_end), GP, "type bits in the upper half");
	gate64(GATE, gate_target, KCODE, 3, 0xc);

	section("conforming code");
	gdt[CONFORMING / 8] = segment(0, 0xffffffff, 0x209e);
	user_code(u_nothing, u_nothing_end);
	/* Its target must be executable for the user. */
	memcpy((u8 *)user_data + 0x200, conforming_target, 16);
	user_data[0x100 / 8] = (u32)0;
	*(u32 *)((u8 *)user_data + 0x100) = 0;
	*(u16 *)((u8 *)user_data + 0x104) = GATE;
	gate64(GATE, (void *)(USER_DATA + 0x200), CONFORMING, 3, 0xc);
	if (on_tcg) {
		skip("TCG takes the CPL from the descriptor");
		return;
	}
	check_eq(user(u_conf, u_conf_end), VEC_RETURN, "call through a gate to conforming code");
	check_eq(last.f.ax, CONFORMING | 3, "stays at CPL 3");
}

/* --- SYSCALL and SYSENTER --- */

asm(".pushsection .text\nsyscall_target: mov %cs, %eax\n mov %ss, %ebx\n pushfq\n pop %rdx\n"
    "mov $0x3246, %r11\n sysretq\n"
    "syscall_up: mov %cs, %eax\n mov %ss, %ebx\n ud2\n"
    "sysenter_target: mov %cs, %eax\n mov %ss, %ebx\n mov %rsp, %rsi\n pushfq\n pop %rdi\n"
    "movabs $0x8000000000, %rdx\n add %r8, %rdx\n mov %r9, %rcx\n sysexitq\n.popsection");
extern const char syscall_target[], syscall_up[], sysenter_target[];

USER(u_syscall, "mov %rsp, %r8\n stc\n std\n syscall\n 1: cld\n mov %rsp, %r9\n mov %ss, %esi\n mov %cs, %edi\n"
	"pushfq\n pop %r12");
USER(u_syscall_tf, "syscall");
USER(u_sysenter, "lea 1f(%rip), %r8\n movabs $0x8000000000, %rax\n sub %rax, %r8\n mov %rsp, %r9\n"
	"sysenter\n 1: mov %cs, %r10d\n mov %ss, %r11d");

static void fast_calls(void)
{
	section("SYSCALL");
	wrmsr(STAR, (u64)(UCODE32 | 3) << 48 | (u64)KCODE << 32);
	wrmsr(LSTAR, (ulong)syscall_target);
	wrmsr(SFMASK, FL_DF | FL_IF | FL_TF);
	wrmsr(EFER, rdmsr(EFER) | 1);
	check_eq(user_flags(u_syscall, u_syscall_end, FL_IF | 2), VEC_RETURN, "there and back");
	check_eq(last.f.ax, KCODE, "cs");
	check_eq(last.f.bx, KDATA, "ss");
	check_eq(last.f.dx & (FL_DF | FL_IF | (on_tcg ? 0 : FL_CF)), on_tcg ? 0 : FL_CF, "flags after the mask");
	check_eq(last.f.r8, last.f.r9, "rsp is not touched");
	check_eq(last.f.di, UCODE | 3, "cs after SYSRET");
	check_eq(last.f.si, UDATA | 3, "ss after SYSRET");
	check_eq(last.f.r12 & 0x3fd7, 0x3246 & 0x3fd7, "flags come from r11");
	check(last.f.cx > USER_BASE && last.f.cx < USER_BASE + 64, "rcx is the return address");
	wrmsr(LSTAR, (ulong)syscall_up);
	check_eq(user(u_syscall_tf, u_syscall_tf_end), UD, "SYSCALL arrives at CPL 0");
	check_eq(last.f.r11 & ~FL_RF, 2, "r11 has the flags");
	check_eq(last.f.cx, USER_BASE + 2, "rcx has the return address");
	wrmsr(EFER, rdmsr(EFER) & ~1ull);
	check_eq(user(u_syscall_tf, u_syscall_tf_end), UD, "SYSCALL without EFER.SCE");
	check_eq(last.f.ip, USER_BASE, "is #UD at the instruction");
	wrmsr(EFER, rdmsr(EFER) | 1);
	if (!on_tcg)
		check_eq(try_call(k_sysret, 0, 0, 0), GP, "SYSRET to an address not canonical");

	section("SYSENTER");
	wrmsr(SYSENTER_CS, KCODE);
	wrmsr(SYSENTER_ESP, tss.rsp[0]);
	wrmsr(SYSENTER_EIP, (ulong)sysenter_target);
	check_eq(user_flags(u_sysenter, u_sysenter_end, FL_IF | 2), VEC_RETURN, "there and back");
	check_eq(last.f.ax, KCODE, "cs");
	check_eq(last.f.bx, KDATA, "ss");
	check_eq(last.f.si, tss.rsp[0], "rsp");
	check_eq(last.f.di & FL_IF, 0, "IF is clear");
	check_eq(last.f.r10, (KCODE + 32) | 3, "cs after SYSEXIT");
	check_eq(last.f.r11, (KCODE + 40) | 3, "ss after SYSEXIT");
	wrmsr(SYSENTER_CS, 0);
	check_eq(user(u_sysenter, u_sysenter_end), GP, "SYSENTER with CS 0");
	check_eq(last.f.err, 0, "its error code");
}

/* --- bases --- */

USER(u_fsgs, "mov $0x123456789a, %rax\n wrfsbase %rax\n rdfsbase %rbx\n mov $0x1234567899, %rcx\n wrgsbase %rcx\n"
	"rdgsbase %rdx\n mov $-1, %eax\n wrfsbase %eax\n rdfsbase %rsi\n rdfsbase %edi");
USER(u_gs_load, "mov %gs:8, %rax");
USER(u_null_fs, "xor %eax, %eax\n mov %eax, %fs\n mov %fs:0, %rax");
SNIPPET(k_noncanon_base, "mov $0x8000000000000000, %rax\n wrfsbase %rax\n ret");
SNIPPET(k_swap, "swapgs\n rdgsbase %rax\n swapgs\n ret");

static void bases(void)
{
	section("FS and GS bases");
	wrmsr(GS_BASE, 0x1111);
	wrmsr(KERNEL_GS_BASE, 0x2222);
	asm volatile("swapgs");
	check_eq(rdmsr(GS_BASE), 0x2222, "swapgs");
	check_eq(rdmsr(KERNEL_GS_BASE), 0x1111, "and its other half");
	wrmsr(GS_BASE, USER_DATA);
	user_data[1] = 0x5555aaaa;
	check_eq(user(u_gs_load, u_gs_load_end), VEC_RETURN, "load by gs at CPL 3");
	check_eq(last.f.ax, 0x5555aaaa, "its value");
	if (!HAS_FSGSBASE) {
		skip("no FSGSBASE");
		return;
	}
	check_eq(user(u_fsgs, u_fsgs_end), UD, "wrfsbase without CR4.FSGSBASE");
	set_cr4(get_cr4() | BIT(16));
	check_eq(user(u_fsgs, u_fsgs_end), VEC_RETURN, "with it");
	check_eq(last.f.bx, 0x123456789a, "fs");
	check_eq(last.f.dx, 0x1234567899, "gs");
	check_eq(last.f.si, 0xffffffff, "32-bit wrfsbase zeroes the upper half");
	check_eq(rdmsr(FS_BASE), 0xffffffff, "the MSR is the same register");
	if (!on_tcg)
		check_eq(try_call(k_noncanon_base, 0, 0, 0), GP, "an address not canonical");
	wrmsr(KERNEL_GS_BASE, 0x77);
	check_eq(try_call(k_swap, 0, 0, 0), -1, "swapgs and rdgsbase");
	check_eq(try_result, 0x77, "value");
	set_cr4(get_cr4() & ~BIT(16));
	wrmsr(GS_BASE, 0);
	wrmsr(FS_BASE, 0);
}

/* --- looking at descriptors --- */

struct look { u32 lar, lsl; u8 lar_ok, lsl_ok, r, w; };

static struct look look_at(u16 sel)
{
	struct look l = { 0 };

	asm volatile("lar %2, %0\n setz %1" : "+&r"(l.lar), "=&q"(l.lar_ok) : "r"((u32)sel) : "cc");
	asm volatile("lsl %2, %0\n setz %1" : "+&r"(l.lsl), "=&q"(l.lsl_ok) : "r"((u32)sel) : "cc");
	asm volatile("verr %w1\n setz %0" : "=&q"(l.r) : "r"(sel) : "cc");
	asm volatile("verw %w1\n setz %0" : "=&q"(l.w) : "r"(sel) : "cc");
	return l;
}

USER(u_look, "mov $0x11, %eax\n mov $0x11, %ecx\n lar %ecx, %eax\n setz %bl\n mov $0x23, %ecx\n lar %ecx, %edx\n setz %bh\n"
	"verr %cx\n setz %sil\n verw %cx\n setz %dil\n lsl %ecx, %ebp");

static void looking(void)
{
	struct look l;

	section("LAR, LSL, VERR, VERW");
	gdt[DATA0 / 8] = segment(0x12345678, 0x1234, 0x4093);
	gdt[DATA3 / 8] = segment(0, 0x12345fff, 0x50f1);
	gdt[NOTPRESENT / 8] = segment(0, 0xfff, 0x4013);
	l = look_at(DATA0);
	check(l.lar_ok && l.lsl_ok && l.r && l.w, "writable data");
	check_eq(l.lar, 0x409300, "its rights");
	check_eq(l.lsl, 0x1234, "its limit");
	l = look_at(DATA3);
	check(l.lar_ok && l.lsl_ok && l.r && !l.w, "read-only data");
	check_eq(l.lar & 0xf0ff00, 0xd0f100, "its rights");
	check_eq(l.lsl, 0x12345fff, "its limit, scaled");
	l = look_at(NOTPRESENT);
	check(l.lar_ok && l.lsl_ok, "not present is still looked at");
	check_eq(l.lar, 0x401300, "its rights");
	l = look_at(KCODE);
	check(l.lar_ok && l.r && !l.w, "code is readable and never writable");
	l = look_at(TSS_SEL);
	check(l.lar_ok && l.lsl_ok && !l.r && !l.w, "a TSS");
	check_eq(l.lsl, sizeof(tss) - 1, "its limit");
	l = look_at(GATE);
	check(l.lar_ok && !l.lsl_ok && !l.r, "a call gate has rights but no limit");
	l = look_at(0);
	check(!l.lar_ok && !l.lsl_ok && !l.r && !l.w, "null");
	l = look_at(0x7ff8);
	check(!l.lar_ok && !l.lsl_ok, "beyond the table");
	check_eq(user(u_look, u_look_end), VEC_RETURN, "at CPL 3");
	check_eq(last.f.bx & 0xff, 0, "kernel data is invisible");
	check_eq(last.f.ax, 0x11, "and the register stays");
	check_eq(last.f.bx >> 8 & 0xff, 1, "user data is not");
	check_eq((last.f.si & 1) << 1 | (last.f.di & 1), 3, "readable and writable");
	check_eq(last.f.bp, 0xffffffff, "its limit");
}

/* --- UMIP --- */

USER(u_sgdt, "sub $16, %rsp\n sgdt (%rsp)");
USER(u_sidt, "sub $16, %rsp\n sidt (%rsp)");
USER(u_sldt, "sldt %eax");
USER(u_str, "str %eax");
USER(u_smsw, "smsw %eax");

static void umip(void)
{
	static const struct { const char *name, *code, *end; } list[] = {
		{ "sgdt", u_sgdt, u_sgdt_end }, { "sidt", u_sidt, u_sidt_end },
		{ "sldt", u_sldt, u_sldt_end }, { "str", u_str, u_str_end },
		{ "smsw", u_smsw, u_smsw_end },
	};

	section("UMIP");
	for (unsigned i = 0; i < ARRAY_SIZE(list); i++)
		check_eq(user(list[i].code, list[i].end), VEC_RETURN, "%s without UMIP", list[i].name);
	if (!HAS_UMIP) {
		skip("no UMIP");
		return;
	}
	set_cr4(get_cr4() | BIT(11));
	for (unsigned i = 0; i < ARRAY_SIZE(list); i++)
		check_eq(user(list[i].code, list[i].end), GP, "%s with UMIP", list[i].name);
	set_cr4(get_cr4() & ~BIT(11));
}

/* --- compatibility mode --- */

SNIPPET(c_basic, ".code32\n mov $0x80000000, %eax\n inc %eax\n dec %eax\n push %eax\n pop %ebx\n"
	"mov %cs, %ecx\n .byte 0x40\n mov $0x1234, %edx\n int $0x80\n .code64");
SNIPPET(c_far, ".code32\n call 1f\n 1: pop %eax\n add $2f - 1b, %eax\n push $0x2b\n push %eax\n lret\n"
	".code64\n 2: mov $0x123456789abcdef0, %rbx\n mov %cs, %ecx\n int $0x80");
SNIPPET(c_segment, ".code32\n mov $0x9b, %eax\n mov %eax, %fs\n mov %fs:0x10, %ebx\n mov %fs:0x20, %ecx\n int $0x80\n .code64");
SNIPPET(c_wrap, ".code32\n mov $0xffffffff, %esi\n xor %eax, %eax\n mov (%esi), %al\n int $0x80\n .code64");
SNIPPET(c_aaa, ".code32\n mov $0x0a, %eax\n aaa\n mov %eax, %ebx\n mov $1, %eax\n bound %eax, (%esp)\n int $0x80\n .code64");
SNIPPET(c_into, ".code32\n mov $0x7fffffff, %eax\n inc %eax\n into\n int $0x80\n .code64");
SNIPPET(c_sysenter, ".code32\n mov %esp, %ecx\n sysenter\n .code64");

static void compatibility(void)
{
	u32 *data = page_alloc();

	section("compatibility mode");
	check_eq(user32(c_basic, c_basic_end), VEC_RETURN, "32-bit code");
	check_eq(last.f.ax, 0x80000001, "0x40 is inc");
	check_eq(last.f.cs, UCODE32 | 3, "cs");
	check_eq(last.f.dx, 0x1234, "edx");
	check_eq(user32(c_far, c_far_end), VEC_RETURN, "far return to 64-bit code");
	check_eq(last.f.bx, 0x123456789abcdef0, "64-bit registers there");
	check_eq(last.f.cx, UCODE | 3, "cs there");
	/* Bases and limits count again: fs is 0x11 bytes + 3 above a page of ours. */
	data[4] = 0xabcd;
	*pte_of((ulong)data, 2) |= PTE_U;
	set_cr3(get_cr3());
	gdt[0x98 / 8] = segment((ulong)data, 0x1f, 0x40f3);
	check_eq(user32(c_segment, c_segment_end), on_tcg ? VEC_RETURN : GP,
		 "beyond the limit of fs, which TCG does not know");
	check_eq(last.f.bx, 0xabcd, "and within it, with its base");
	check_eq(user32(c_into, c_into_end), GP, "into with a gate of DPL 0");
	set_gate(OF, trap_stub(OF), KCODE, 0xe, 3, 0);
	check_eq(user32(c_into, c_into_end), OF, "into");
	check_eq(user32(c_aaa, c_aaa_end), BR, "bound");
	check_eq(last.f.bx, 0x100, "aaa");
	wrmsr(SYSENTER_CS, KCODE);
	wrmsr(SYSENTER_EIP, (ulong)syscall_up);
	check_eq(user32(c_sysenter, c_sysenter_end), UD, "SYSENTER from 32-bit code");
	check_eq(last.f.cs, KCODE, "arrives in 64-bit code");
	check_eq(user32(c_wrap, c_wrap_end), PF, "the last byte of 4 GiB");
	check_eq(last.cr2, 0xffffffff, "cr2");
}

/* IRET to user with the selectors that must be refused. */
asm(".pushsection .text\niret_to: push %rdx\n movabs $0x8000100000, %rax\n push %rax\n push $2\n push %rsi\n push %rdi\n iretq\n.popsection");
extern const char iret_to[];

static void irets(void)
{
	ulong ip = user_code(u_nothing, u_nothing_end);

	section("IRET");
	check_eq(try_call(iret_to, ip, UCODE | 3, UDATA | 3), VEC_RETURN, "to CPL 3");
	check_eq(last.f.ss, UDATA | 3, "ss");
	check_eq(try_call(iret_to, ip, UCODE | 3, KDATA), GP, "ss of CPL 0");
	check_eq(last.f.err, KDATA, "its error code");
	check_eq(try_call(iret_to, ip, UCODE, UDATA | 3), GP, "cs with RPL 0 and DPL 3");
	check_eq(last.f.err, UCODE, "its error code");
	check_eq(try_call(iret_to, ip, UCODE | 3, 3), GP, "null ss to CPL 3");
	check_eq(last.f.err, 0, "its error code");
	check_eq(try_call(iret_to, 1ul << 63, UCODE | 3, UDATA | 3), GP, "rip not canonical");
	gdt[NOTPRESENT / 8] = segment(0, 0xffffffff, 0x207b);
	check_eq(try_call(iret_to, ip, NOTPRESENT | 3, UDATA | 3), NP, "cs not present");
	check_eq(last.f.err, NOTPRESENT, "its error code");
	/* Data segments of DPL below the new CPL are emptied on the way out. */
	asm volatile("mov %0, %%fs" :: "r"(KDATA));
	check_eq(user(u_fs, u_fs_end), VEC_RETURN, "kernel data in fs");
	check_eq(last.f.ax, 0, "is null at CPL 3");
}

void guest_main(void)
{
	user_code(u_nothing, u_nothing_end);
	user_data = (u64 *)(*pte_of(USER_DATA, 1) & 0x000ffffffffff000ull);
	for (unsigned i = 0x30; i < 0x100; i++)
		if (i != VEC_RETURN)
			set_gate(i, trap_stub(i), KCODE, 0xe, 0, 0);
	refused();
	iopl_and_bitmap();
	gates();
	fast_calls();
	bases();
	looking();
	umip();
	irets();
	compatibility();
}
