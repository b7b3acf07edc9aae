/*
 * Code that changes: what is stored must be what runs, without any help from
 * the program where the store and the fetch use the same linear address (SDM
 * vol. 3, 9.1.3, as all processors since P6 do it), and after a serializing
 * instruction where they do not.
 */
#include "lib/guest.h"

typedef ulong (*code_fn)(ulong a, ulong b);

static void serialize(void)
{
	u32 a, b, c, d;

	cpuid(0, 0, &a, &b, &c, &d);
}

/* mov $imm32, %eax; ret */
static void emit_mov_ret(u8 *p, u32 imm)
{
	p[0] = 0xb8;
	memcpy(p + 1, &imm, 4);
	p[5] = 0xc3;
}

static ulong call(const void *p, ulong a, ulong b)
{
	return ((code_fn)(ulong)p)(a, b);
}

/* Each snippet stores into the instruction that follows it, and returns what that loads. */
SNIPPET(next_byte, "movb $0x77, 1f+1(%rip)\n 1: mov $0x11, %eax\n ret");
SNIPPET(next_quad, "mov $0xc300000055b8, %rax\n mov %rax, 1f(%rip)\n 1: mov $0x11, %eax\n ret\n nop\n nop");
SNIPPET(next_rep, "lea 1f+1(%rip), %rdi\n mov $1, %ecx\n mov $0x44, %al\n cld\n rep stosb\n"
	"1: mov $0x11, %eax\n ret");
SNIPPET(next_movs, "lea 2f(%rip), %rsi\n lea 1f(%rip), %rdi\n mov $6, %ecx\n cld\n rep movsb\n"
	"1: mov $0x11, %eax\n ret\n 2: mov $0x33, %eax\n ret");
SNIPPET(next_xchg, "mov $0x22, %dl\n xchg %dl, 1f+1(%rip)\n 1: mov $0x11, %eax\n ret");
SNIPPET(next_lock, "lock addb $0x10, 1f+1(%rip)\n 1: mov $0x11, %eax\n ret");
SNIPPET(next_sse, "movups 2f(%rip), %xmm0\n movups %xmm0, 1f(%rip)\n 1: mov $0x11, %eax\n ret\n"
	".skip 16, 0x90\n 2: mov $0x88, %eax\n ret\n .skip 16, 0x90");
/* A loop that counts in its own immediate: returns the sum 0 + 1 + ... + 99. */
SNIPPET(counting, "xor %eax, %eax\n mov $100, %ecx\n 1: mov $0, %edx\n add %edx, %eax\n"
	"incl 1b+1(%rip)\n dec %ecx\n jnz 1b\n ret");
/* Overwrites a jump on the path that was just taken. */
SNIPPET(jump_away, "xor %eax, %eax\n mov $3, %ecx\n 1: inc %eax\n 2: jmp 3f\n add $100, %eax\n"
	"3: cmp $2, %ecx\n jne 4f\n movb $0, 2b+1(%rip)\n 4: dec %ecx\n jnz 1b\n ret");

static void next_instruction(void)
{
	u8 *p = page_alloc();
#define RUN(name, want) \
	do { \
		for (unsigned i = 0; i < 3; i++) { \
			memcpy(p, name, name##_end - name); \
			check_eq(call(p, 0, 0) & 0xffffffff, want, #name " time %u", i); \
		} \
	} while (0)

	section("the next instruction");
	RUN(next_byte, 0x77);
	RUN(next_quad, 0x55);
	RUN(next_rep, 0x44);
	RUN(next_movs, 0x33);
	RUN(next_xchg, 0x22);
	RUN(next_lock, 0x21);
	RUN(next_sse, 0x88);
	RUN(counting, 4950);
	RUN(jump_away, 103);
#undef RUN
}

/* The stack in the page of the code: pushes and calls write beside it all the time. */
SNIPPET(on_stack, "mov %rsp, %r8\n lea 4000(%rdi), %rsp\n xor %eax, %eax\n mov $1000, %ecx\n"
	"1: push %rcx\n call 2f\n pop %rdx\n add %rdx, %rax\n dec %ecx\n jnz 1b\n mov %r8, %rsp\n ret\n"
	"2: ret");
/* Pushes its way down onto an instruction that it then runs. */
SNIPPET(push_code, "mov %rsp, %r8\n lea 1f+8(%rip), %rsp\n mov $0x909000000066b890, %rax\n"
	"push %rax\n 1: .skip 8, 0x90\n mov %r8, %rsp\n ret");

static void stack_tests(void)
{
	u8 *p = page_alloc();

	section("code on the stack's page");
	memcpy(p, on_stack, on_stack_end - on_stack);
	for (unsigned i = 0; i < 3; i++)
		check_eq(call(p, (ulong)p, 0), 500500, "pushes beside the code");
	for (unsigned i = 0; i < 3; i++) {
		memcpy(p, push_code, push_code_end - push_code);
		check_eq(call(p, 0, 0), 0x66, "a push of the next instruction");
	}
}

static void crossing(void)
{
	u8 *p = pages_alloc(2);

	section("instructions across two pages");
	for (unsigned at = 4091; at < 4097; at++) {
		for (u32 i = 1; i < 20; i++) {
			emit_mov_ret(p + at, i * 0x01010101);
			check_eq(call(p + at, 0, 0), i * 0x01010101, "whole, at %u", at);
			p[at + 1] ^= 0x80;
			check_eq(call(p + at, 0, 0), (i * 0x01010101) ^ 0x80, "low byte, at %u", at);
			p[at + 4] ^= 0x7f;
			check_eq(call(p + at, 0, 0), (i * 0x01010101) ^ 0x7f000080, "high byte, at %u",
				 at);
		}
	}
	/* One store that goes from a page without code into one with. */
	emit_mov_ret(p + 4096, 0x11223344);
	check_eq(call(p + 4096, 0, 0), 0x11223344, "first byte of a page");
	*(volatile u64 *)(p + 4092) = 0x556677b800000000;
	check_eq(call(p + 4096, 0, 0), 0x11556677, "a store across the boundary");
}

static void aliases(void)
{
	u8 *p = page_alloc(), *q = page_alloc();
	ulong one = 5ul << 40, two = 6ul << 40;
	u64 *leaf;

	section("two addresses of one page");
	leaf = map(one, (ulong)p, PTE_P | PTE_W, 1);
	map(two, (ulong)p, PTE_P | PTE_W, 1);
	for (u32 i = 0; i < 10; i++) {
		emit_mov_ret((u8 *)two, i);
		serialize();
		check_eq(call((void *)one, 0, 0), i, "written at the other address");
		emit_mov_ret(p, i + 100);
		serialize();
		check_eq(call((void *)one, 0, 0), i + 100, "written at the third");
		check_eq(call((void *)two, 0, 0), i + 100, "run at the second");
	}
	section("an address with another page");
	emit_mov_ret(p, 1);
	emit_mov_ret(q, 2);
	for (u32 i = 0; i < 10; i++) {
		*leaf = (ulong)(i & 1 ? q : p) | PTE_P;
		invlpg(one);
		check_eq(call((void *)one, 0, 0), i & 1 ? 2 : 1, "page %u", i & 1);
	}
	*leaf = (ulong)p | PTE_P | PTE_NX;
	invlpg(one);
	check_eq(try_call((void *)one, 0, 0, 0), PF, "made non-executable");
	*leaf = 0;
	invlpg(one);
	check_eq(try_call((void *)one, 0, 0, 0), PF, "taken away");
	check_eq(last.cr2, one, "cr2");
}

/* Two pieces of code that jump to each other while one of them changes. */
static void chained(void)
{
	u8 *p = page_alloc(), *q = page_alloc();

	section("a jump's target changes");
	/* p: jmp q */
	p[0] = 0xe9;
	*(int32_t *)(p + 1) = (int32_t)(q - (p + 5));
	for (u32 i = 0; i < 100; i++) {
		emit_mov_ret(q + (i & 3) * 16, i);
		*(volatile int32_t *)(p + 1) = (int32_t)(q + (i & 3) * 16 - (p + 5));
		check_eq(call(p, 0, 0), i, "target and jump changed, time %u", i);
		emit_mov_ret(q + (i & 3) * 16, i + 1000);
		check_eq(call(p, 0, 0), i + 1000, "target changed, time %u", i);
	}
}

/* Data in the page of running code: nothing changes but the data. */
SNIPPET(beside, "lea 2048(%rdi), %rdx\n mov $10000, %ecx\n xor %eax, %eax\n"
	"1: incl (%rdx)\n add (%rdx), %eax\n dec %ecx\n jnz 1b\n ret");

static void data_beside_code(void)
{
	u8 *p = page_alloc();

	section("data in the code's page");
	memcpy(p, beside, beside_end - beside);
	check_eq(call(p, (ulong)p, 0), 50005000, "a counter beside the code");
	check_eq(*(u32 *)(p + 2048), 10000, "its last value");
}

/* What is no instruction becomes one by a change of any of its bytes. */
static void no_instruction(void)
{
	static const u8 none[] = { 0x0f, 0x04, 0x00, 0xc3 };	/* not defined */
	u8 *p = pages_alloc(2);

	section("bytes that are no instruction");
	for (unsigned at = 0; at < 4100; at += at == 0 ? 4090 : 1) {
		memcpy(p + at, none, sizeof none);
		check_eq(try_call(p + at, 0, 0, 0), UD, "undefined, at %u", at);
		p[at + 1] = 0x1f;
		check_eq(try_call(p + at, 0, 0, 0), -1, "made a NOP by its second byte, at %u", at);
		/* LOCK is not for a NOP, but for an addition to memory; 66 in front changes nothing. */
		memcpy(p + at, "\x66\xf0\x03\x0f\xc3", 5);
		check_eq(try_call(p + at, (ulong)p, 0, 0), UD, "LOCK with a register, at %u", at);
		p[at + 2] = 0x01;
		check_eq(try_call(p + at, (ulong)p + 5000, 0, 0), -1, "LOCK with memory, at %u", at);
	}
}

/* A store that faults must leave the code alone. */
SNIPPET(faulting, "mov %rsi, -4(%rdi)\n ret");

static void faults(void)
{
	u8 *p = page_alloc();
	ulong va = 7ul << 40;

	section("stores that fault");
	emit_mov_ret(p + 4096 - 6, 0x01020304);
	map(va, (ulong)p, PTE_P | PTE_W, 1);
	map(va + 4096, 0, 0, 1);
	invlpg(va + 4096);
	check_eq(call((void *)(va + 4090), 0, 0), 0x01020304, "before");
	check_eq(try_call(faulting, va + 4096, -1, 0), PF, "a store across the end");
	check_eq(call((void *)(va + 4090), 0, 0), 0x01020304, "after");
}

void guest_main(void)
{
	next_instruction();
	stack_tests();
	crossing();
	aliases();
	chained();
	data_beside_code();
	no_instruction();
	faults();
}
