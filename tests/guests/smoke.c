/* The framework itself: every helper does what the other guests rely on. */
#include "lib/guest.h"

SNIPPET(returns, "mov %rdi, %rax\n add %rsi, %rax\n ret");
SNIPPET(undefined, "ud2");
SNIPPET(user, "mov $0x1234, %eax\n int $0x80");

static void skip_ud2(struct frame *f)
{
	f->ip += 2;
}

void guest_main(void)
{
	section("traps");
	check_eq(try_call(returns, 40, 2, 0), -1, "a function that returns");
	check_eq(try_result, 42, "its result");
	check_eq(try_call(undefined, 0, 0, 0), UD, "ud2");
	check_eq(last.f.ip, (ulong)undefined, "its address");
	on_trap(UD, skip_ud2);
	asm volatile("ud2");
	on_trap(UD, NULL);
	check_eq(trap_count[UD], 2, "both were counted");

	section("user mode");
	check_eq(try_call(enter_user, user_code(user, user_end), USER_STACK, 2), VEC_RETURN,
		 "int $0x80 from user code");
	check_eq(last.f.ax, 0x1234, "rax");
	check_eq(last.f.cs, UCODE | 3, "cs");
}
