/*
 * Real mode: 16-bit code, the vector table, segments and their limits, the
 * way there and back, unreal mode, virtual-8086 mode.  SDM vol. 3, chapter 20.
 *
 * The 16-bit code is copied to 0x8000 and called with a command in %al; what
 * it finds it leaves in a block of words at 0x7000.
 */
#include "lib/guest.h"

#define CODE16	SPARE		/* 64 KiB, base 0 */
#define DATA16	(SPARE + 8)

#define LOAD	0x8000
#define RESULT	((volatile u16 *)0x7000)
#define RESULT32 ((volatile u32 *)0x7000)

/* From flat 32-bit code to real mode and back; the routine's offset is in %ebx. */
asm(".pushsection .text\n"
"enter_real: pushal\n mov 36(%esp), %ebx\n mov %esp, saved_esp\n sidt saved_idt\n"
"	lidt real_idt\n ljmp $0x50, $(LOAD + to_real - blob)\n"
"back32: mov $0x10, %eax\n mov %eax, %ds\n mov %eax, %es\n mov %eax, %ss\n mov %eax, %fs\n mov %eax, %gs\n"
"	mov saved_esp, %esp\n lidt saved_idt\n popal\n ret\n"
".set LOAD, 0x8000\n"
"blob:\n"
".code16\n"
"to_real: mov $0x58, %ax\n mov %ax, %ds\n mov %ax, %es\n mov %ax, %ss\n"
"	mov %cr0, %eax\n and $0xfffffffe, %eax\n mov %eax, %cr0\n ljmp $0, $(LOAD + 1f - blob)\n"
"1:	xor %ax, %ax\n mov %ax, %ds\n mov %ax, %es\n mov %ax, %ss\n mov %ax, %fs\n mov %ax, %gs\n"
"	mov $0x6ff0, %esp\n mov $0x7000, %di\n cld\n call *%bx\n"
"	cli\n mov %cr0, %eax\n or $1, %eax\n mov %eax, %cr0\n ljmpl $0x08, $back32\n"

/* Handlers: note the vector, the return address and the flags. */
"int60: push %bp\n mov %sp, %bp\n mov 2(%bp), %ax\n mov %ax, 2(%di)\n mov 4(%bp), %ax\n mov %ax, 4(%di)\n"
"	mov 6(%bp), %ax\n mov %ax, 6(%di)\n pop %bp\n pushf\n pop %ax\n mov %ax, 8(%di)\n movw $0x60, (%di)\n"
"	mov %sp, %ax\n mov %ax, 10(%di)\n iret\n"
/* Faults: note, then step over an instruction whose length is in 30(%di). */
"fault: push %bp\n mov %sp, %bp\n mov 2(%bp), %ax\n mov %ax, 2(%di)\n movw $0xfa, (%di)\n mov 30(%di), %ax\n"
"	add %ax, 2(%bp)\n pop %bp\n iret\n"

"r_basic: mov $0x1234, %ax\n mov %ax, (%di)\n mov %cs, %ax\n mov %ax, 2(%di)\n mov $0x89abcdef, %eax\n"
"	mov %eax, 4(%di)\n smsw %ax\n mov %ax, 8(%di)\n ret\n"
/* Segment arithmetic: 0x700:0 is the same byte as 0:0x7000. */
"r_segments: mov $0x700, %ax\n mov %ax, %es\n mov $0xbeef, %ax\n mov %ax, %es:(0)\n mov $0x6f0, %ax\n mov %ax, %fs\n"
"	mov %fs:(0x100), %ax\n mov %ax, 2(%di)\n xor %ax, %ax\n mov %ax, %es\n"
"	mov $0xffff, %ax\n mov %ax, %gs\n mov %gs:(0x10), %ax\n mov %ax, 4(%di)\n ret\n"
"r_int: sti\n stc\n int $0x60\n after_int: cli\n mov %sp, %ax\n mov %ax, 12(%di)\n ret\n"
"r_div: movw $2, 30(%di)\n xor %bx, %bx\n mov $5, %ax\n xor %dx, %dx\n div_at: div %bx\n ret\n"
"r_ud: movw $2, 30(%di)\n ud_at: ud2\n ret\n"
"r_limit: movw $4, 30(%di)\n mov $0xffff, %si\n lim_at: mov (%si), %ax\n .byte 0x90, 0x90\n ret\n"
"r_limit32: movw $5, 30(%di)\n mov $0x12345, %esi\n lim32_at: mov (%esi), %eax\n .byte 0x90\n ret\n"
"r_bound: movw $3, 30(%di)\n movl $0x00050001, 16(%di)\n mov $9, %ax\n bound_at: bound %ax, 16(%di)\n ret\n"
"r_refused: movw $3, 30(%di)\n ref_at: lldt %ax\n ret\n"
/* 16-bit push and pop, wrapping %sp; leave and enter; 32-bit pushes. */
"r_stack: mov %sp, %bp\n pushl $0x11223344\n pop %ax\n mov %ax, (%di)\n pop %ax\n mov %ax, 2(%di)\n"
"	push %sp\n pop %ax\n mov %sp, %bx\n sub %bx, %ax\n mov %ax, 4(%di)\n pusha\n popa\n mov %sp, %ax\n sub %bp, %ax\n"
"	mov %ax, 6(%di)\n enter $8, $0\n mov %sp, %ax\n sub %bp, %ax\n mov %ax, 8(%di)\n leave\n"
"	mov $0xffff0000, %edx\n mov %esp, %ecx\n or %edx, %esp\n push %ax\n pop %ax\n mov %esp, %eax\n mov %eax, 12(%di)\n mov %ecx, %esp\n"
"	ret\n"
"r_strings: mov $0x7100, %si\n mov $0x7200, %di\n mov $16, %cx\n rep movsw\n mov %si, %ax\n mov %di, %bx\n mov $0x7000, %di\n"
"	mov %ax, (%di)\n mov %bx, 2(%di)\n mov %cx, 4(%di)\n ret\n"
/* Offsets wrap at 64 KiB. */
"r_wrap: mov $0x1000, %ax\n mov %ax, %es\n mov $0xfffe, %bx\n movw $0x7777, %es:2(%bx)\n mov %es:(0), %ax\n mov %ax, (%di)\n"
"	xor %ax, %ax\n mov %ax, %es\n ret\n"
"r_far: lcall $0x700, $(0x1000 + far_at - blob)\n mov %ax, 2(%di)\n ret\n"
"far_at: mov %cs, %ax\n mov %ax, (%di)\n mov %sp, %ax\n lret\n"
"r_loop: mov $300, %cx\n xor %ax, %ax\n 1: inc %ax\n loop 1b\n mov %ax, (%di)\n xor %cx, %cx\n jcxz 2f\n movw $0, (%di)\n 2: ret\n"
/* Unreal mode: %es keeps the limit that it got in protected mode. */
"r_unreal: push %ds\n lgdtl LOAD + 9f - blob\n mov %cr0, %eax\n or $1, %al\n mov %eax, %cr0\n mov $8, %bx\n mov %bx, %es\n"
"	and $0xfe, %al\n mov %eax, %cr0\n mov $0x200000, %ebx\n movl $0x600df00d, %es:(%ebx)\n mov %es:(%ebx), %eax\n mov %eax, (%di)\n"
"	xor %ax, %ax\n mov %ax, %es\n mov %es:(%ebx), %eax\n mov %eax, 4(%di)\n lgdtl LOAD + 8f - blob\n pop %ds\n ret\n"
".align 4\n 9: .word 15\n .long LOAD + 7f - blob\n 8: .word 511\n .long gdt\n .align 8\n 7: .quad 0\n .quad 0x00cf92000000ffff\n"
/* TF in real mode. */
"step: push %bp\n mov %sp, %bp\n incw 14(%di)\n pop %bp\n iret\n"
"r_step: movw $0, 14(%di)\n pushf\n pop %ax\n or $0x100, %ax\n push %ax\n popf\n nop\n nop\n nop\n pushf\n pop %ax\n and $0xfeff, %ax\n push %ax\n popf\n ret\n"
/* A hardware interrupt: the 8254 through the 8259 at vector 8. */
"tick: push %ax\n incw 16(%di)\n mov $0x20, %al\n out %al, $0x20\n pop %ax\n iret\n"
"r_tick: movw $0, 16(%di)\n sti\n 1: hlt\n cmpw $3, 16(%di)\n jb 1b\n cli\n ret\n"
"r_flags: pushf\n pop %ax\n or $0xf000, %ax\n push %ax\n popf\n pushf\n pop %ax\n mov %ax, (%di)\n xor %ax, %ax\n push %ax\n popf\n ret\n"
"blob_end:\n"
".code32\n.popsection\n"
".pushsection .data\nreal_idt: .word 0x3ff\n .long 0\nsaved_idt: .word 0\n .long 0\nsaved_esp: .long 0\n.popsection\n");

#define AT(name) ((u16)(LOAD + ((ulong)name - (ulong)blob)))
extern const char blob[], blob_end[], int60[], fault[], step[], tick[], after_int[], div_at[], ud_at[], lim_at[],
	lim32_at[], bound_at[], ref_at[], far_at[];
extern const char r_basic[], r_segments[], r_int[], r_div[], r_ud[], r_limit[], r_limit32[], r_bound[],
	r_refused[], r_stack[], r_strings[], r_wrap[], r_far[], r_loop[], r_unreal[], r_step[], r_tick[],
	r_flags[];
void enter_real(u32 routine);

static void vector(unsigned n, const char *handler)
{
	ulong entry = n * 4ul;

	asm("" : "+r"(entry));	/* the compiler has opinions about address 0 */
	*(volatile u32 *)entry = AT(handler);
}

static void run(const char *routine)
{
	memset((void *)0x7000, 0, 64);
	enter_real(AT(routine));
}

static void basics(void)
{
	section("16-bit code");
	run(r_basic);
	check_eq(RESULT[0], 0x1234, "a 16-bit move");
	check_eq(RESULT[1], 0, "cs");
	check_eq(RESULT32[1], 0x89abcdef, "a 32-bit move by prefix");
	check_eq(RESULT[4] & 1, 0, "PE is clear");
	*(volatile u16 *)0x100000 = 0x5aa5;
	u16 above = *(volatile u16 *)0x100000;
	run(r_segments);
	check_eq(RESULT[0], 0xbeef, "a store through es");
	check_eq(RESULT[1], 0xbeef, "a load through fs");
	check_eq(RESULT[2], above, "0xffff:0x10 is 1 MiB");
	run(r_stack);
	check_eq(RESULT[0], 0x3344, "pushl, pop: low half");
	check_eq(RESULT[1], 0x1122, "high half");
	check_eq(RESULT[2], 0, "push %%sp pushes the old value");
	check_eq(RESULT[3], 0, "pusha and popa");
	check_eq(RESULT[4], (u16)-8, "enter");
	check_eq(RESULT32[3] >> 16, 0xffff, "16-bit pushes leave the upper half of esp");
	for (unsigned i = 0; i < 16; i++)
		((volatile u16 *)0x7100)[i] = i * 257;
	run(r_strings);
	check(memcmp((void *)0x7100, (void *)0x7200, 32) == 0, "rep movsw");
	check_eq(RESULT[0] | RESULT[1] << 16, 0x72207120, "si and di");
	*(volatile u16 *)0x10000 = 0;
	run(r_wrap);
	check_eq(RESULT[0], 0x7777, "an offset wraps at 64 KiB");
	run(r_far);
	check_eq(RESULT[0], 0x700, "cs of a far call");
	check_eq(RESULT[1], 0x6ff0 - 2 - 4, "sp there");
	run(r_loop);
	check_eq(RESULT[0], 300, "loop counts in cx");
	run(r_flags);
	check_eq(RESULT[0] & 0xf000, 0x7000, "IOPL and NT can be set, bit 15 cannot");
}

static void interrupts(void)
{
	section("interrupts through the vector table");
	vector(0x60, int60);
	run(r_int);
	check_eq(RESULT[0], 0x60, "INT");
	check_eq(RESULT[1], AT(after_int), "the return address");
	check_eq(RESULT[2], 0, "its segment");
	check_eq(RESULT[3] & 0x201, 0x201, "the flags, with IF and CF");
	check_eq(RESULT[4] & 0x300, 0, "IF and TF are clear in the handler");
	check_eq(RESULT[5], 0x6ff0 - 2 - 6, "six bytes on the stack");
	check_eq(RESULT[6], 0x6ff0 - 2, "which IRET takes off");
	static const struct { const char *name; unsigned vec; const char *fn, *at; } faults[] = {
		{ "division by 0", 0, r_div, div_at }, { "ud2", 6, r_ud, ud_at },
		{ "a word at 0xffff", 13, r_limit, lim_at },
		{ "an offset above 64 KiB", 13, r_limit32, lim32_at },
		{ "bound", 5, r_bound, bound_at }, { "lldt", 6, r_refused, ref_at },
	};
	for (unsigned i = 0; i < ARRAY_SIZE(faults); i++) {
		if (on_tcg && faults[i].vec == 13)
			continue;		/* TCG checks no limits */
		vector(faults[i].vec, fault);
		run(faults[i].fn);
		check_eq(RESULT[0], 0xfa, "%s faults", faults[i].name);
		check_eq(RESULT[1], AT(faults[i].at), "%s: at the instruction", faults[i].name);
	}
	vector(1, step);
	run(r_step);
	check_eq(RESULT[7], 8, "single steps");
}

static void ticks(void)
{
	section("hardware interrupts");
	outb(0x20, 0x11);
	outb(0x21, 8);
	outb(0x21, 4);
	outb(0x21, 1);
	outb(0x21, 0xfe);
	outb(0xa1, 0xff);
	*(volatile u32 *)0xfee000f0 = 0x1ff;
	*(volatile u32 *)0xfee00350 = 0x700;
	outb(0x43, 0x34);
	outb(0x40, 0xa9);
	outb(0x40, 4);			/* 1 ms */
	vector(8, tick);
	run(r_tick);
	check(RESULT[8] >= 3, "three ticks of the 8254");
	outb(0x21, 0xff);
}

static void unreal(void)
{
	section("unreal mode");
	vector(13, fault);
	*(volatile u32 *)0x200000 = 0;
	run(r_unreal);
	check_eq(RESULT32[0], 0x600df00d, "a segment keeps its limit without PE");
	check_eq(*(volatile u32 *)0x200000, 0x600df00d, "it was stored");
	check_eq(RESULT32[1], 0x600df00d, "loading a selector changes the base only");
}

/* --- virtual-8086 mode --- */

asm(".pushsection .text\n"
"enter_v86: mov 4(%esp), %eax\n mov 8(%esp), %edx\n push $0\n push $0\n push $0\n push $0\n push $0\n push $0x6f00\n"
"	push %edx\n push $0\n push %eax\n iret\n"
"v86_blob:\n.code16\n"
"v_int: mov $0x700, %ax\n mov %ax, %ds\n mov (0), %bx\n mov %cs, %cx\n int $0x80\n"
"v_cli: cli\n int $0x80\n"
"v_in: in $0x80, %al\n int $0x80\n"
"v_hlt: hlt\n"
"v_lgdt: lmsw %ax\n"
"v_pushf: pushf\n pop %bx\n int $0x80\n"
"v86_end:\n.code32\n.popsection\n");
extern const char v86_blob[], v86_end[], v_int[], v_cli[], v_in[], v_hlt[], v_lgdt[], v_pushf[];
void enter_v86(u32 ip, u32 flags);

static int v86(const char *at, u32 flags)
{
	return try_call(enter_v86, 0x9000 + (at - v86_blob), flags | FL_VM | 2, 0);
}

static void virtual8086(void)
{
	section("virtual-8086 mode");
	memcpy((void *)0x9000, v86_blob, v86_end - v86_blob);
	RESULT[0] = 0xcafe;
	check_eq(v86(v_int, 0x3000), VEC_RETURN, "INT with IOPL 3");
	check_eq(last.f.bx & 0xffff, 0xcafe, "segments as in real mode");
	check_eq(last.f.flags & FL_VM, FL_VM, "VM in the saved flags");
	check_eq(((u32 *)(last.kernel_sp + sizeof(struct frame)))[1], 0x700, "ds above the frame");
	check_eq(last.f.sp, 0x6f00, "sp");
	check_eq(v86(v_int, 0), GP, "INT with IOPL 0");
	check_eq(last.f.err, 0, "its error code");
	check_eq(v86(v_cli, 0), GP, "cli with IOPL 0");
	check_eq(v86(v_cli, 0x3000), VEC_RETURN, "cli with IOPL 3");
	check_eq(v86(v_pushf, 0), GP, "pushf with IOPL 0");
	check_eq(v86(v_pushf, 0x3000), VEC_RETURN, "pushf with IOPL 3");
	check_eq(v86(v_in, 0x3000), GP, "in goes by the bitmap even with IOPL 3");
	tss.bitmap[0x80 / 8] &= ~1;
	check_eq(v86(v_in, 0x3000), VEC_RETURN, "which may allow it");
	check_eq(v86(v_hlt, 0x3000), GP, "hlt");
	check_eq(v86(v_lgdt, 0x3000), GP, "lmsw");
}

void guest_main(void)
{
	gdt[CODE16 / 8] = segment(0, 0xffff, 0x009b);
	gdt[DATA16 / 8] = segment(0, 0xffff, 0x0093);
	memcpy((void *)LOAD, blob, blob_end - blob);
	basics();
	interrupts();
	unreal();
	ticks();
	virtual8086();
}
