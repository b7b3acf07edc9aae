/*
 * Work for the virtual clock that shows where every single instruction went: an
 * interrupt comes every few hundred instructions, and what it interrupts, with
 * what time, goes into a running hash.  Code that changes, faults, repeated
 * strings, single steps, interrupt shadows, halts, devices in the middle of
 * straight code.  Goes on until it has done ROUNDS rounds; tests/soft_exact.c
 * stops it wherever it likes.
 */
#include "lib/guest.h"

#define ROUNDS	40
#define VECTOR	0x60
#define APIC	((volatile u32 *)0xfee00000ul)

static ulong call(const void *p, ulong a);
static volatile u64 hash;
static volatile unsigned ticks, steps, page_faults, rf_seen, rf_wrong;
extern const char strings[], strings_end[];
static const ulong window = 5ul << 40;
static u8 *pages[4];

static void mix(u64 v)
{
	hash = (hash ^ v) * 0x9e3779b97f4a7c15ull;
	hash ^= hash >> 29;
}

/*
 * RF is set between two iterations of a repeated instruction (SDM vol. 3, 17.3.1.1); not
 * where it has just been returned to.
 */
static void check_rf(const struct frame *f)
{
	bool repeated = (*(const u8 *)f->ip & 0xfe) == 0xf2;

	rf_seen += repeated && f->flags & FL_RF;
	rf_wrong += !repeated && f->flags & FL_RF;
}

static void on_tick(struct frame *f)
{
	ticks++;
	if (f->ip - (ulong)strings < (ulong)(strings_end - strings))
		check_rf(f);
	mix(f->ip);
	mix(f->cx ^ f->di << 20 ^ f->flags << 40);
	mix(rdtsc());
	APIC[0xb0 / 4] = 0;
	/* The next one a little later than this one was. */
	APIC[0x380 / 4] = 211 + (ticks * 37) % 797;
}

static void on_fault(struct frame *f)
{
	ulong cr2 = get_cr2(), n = (cr2 - window) >> 12;

	page_faults++;
	mix(cr2);
	mix(f->ip ^ f->cx << 32);
	if (n == 512) {
		*pte_of(cr2, 1) &= ~PTE_NX;
		return;
	}
	if (n >= 4)
		die("fault at 0x%lx, ip 0x%lx", cr2, f->ip);
	map(cr2 & ~0xffful, (ulong)pages[n], PTE_P | PTE_W, 1);
}

static void on_step(struct frame *f)
{
	steps++;
	mix(f->ip ^ f->cx << 32);
}

static void unmap_all(bool flush)
{
	for (unsigned n = 0; n < 4; n++) {
		map(window + n * 4096ul, 0, 0, 1);
		if (flush)
			invlpg(window + n * 4096ul);
	}
	if (!flush)
		set_cr3(get_cr3());
}

SNIPPET(strings, "push %rbx\n cld\n mov %rdi, %rbx\n mov $0x5a, %eax\n mov $12000, %ecx\n rep stosb\n"
	"mov %rbx, %rdi\n lea 1(%rbx), %rsi\n mov $1500, %ecx\n rep movsq\n"
	"mov %rbx, %rsi\n lea 8(%rbx), %rdi\n mov $700, %ecx\n repe cmpsb\n"
	"mov %rbx, %rdi\n mov $0x77, %al\n mov $3000, %ecx\n repne scasb\n"
	"mov %rbx, %rsi\n mov $500, %ecx\n rep lodsl\n std\n lea 5000(%rbx), %rsi\n lea 5003(%rbx), %rdi\n"
	"mov $1000, %ecx\n rep movsb\n cld\n pop %rbx\n ret");
/* Straight code with devices in it: APIC's counter and ID, ports, the time stamp. */
SNIPPET(devices, "mov $0xfee00000, %edi\n mov 0x390(%rdi), %eax\n add $1, %eax\n mov 0x20(%rdi), %ecx\n add %ecx, %eax\n"
	"mov %eax, -8(%rsp)\n xor %edx, %edx\n in $0x61, %al\n add %al, %cl\n rdtsc\n add %eax, %ecx\n"
	"push 0x390(%rdi)\n pop %rdx\n add %edx, %ecx\n mov $0x20, %dl\n xadd %ecx, 0x80(%rdi)\n movl $0, 0x80(%rdi)\n"
	"mov 0x390(%rdi), %esi\n lea (%rcx,%rsi), %eax\n ret");
/* Interrupts on for one instruction at a time. */
SNIPPET(shadows, "mov $60, %ecx\n xor %eax, %eax\n 1: sti\n inc %eax\n cli\n sti\n cli\n sti\n nop\n mov %ss, %edx\n mov %edx, %ss\n"
	"inc %eax\n pushf\n popf\n cli\n dec %ecx\n jnz 1b\n sti\n ret");
/* Counts in its own immediate, and changes the next instruction. */
SNIPPET(changing, "mov $150, %ecx\n xor %eax, %eax\n 1: mov $0, %edx\n add %edx, %eax\n incl 1b+1(%rip)\n"
	"movb %cl, 2f+1(%rip)\n 2: mov $0x11, %dl\n add %edx, %eax\n dec %ecx\n jnz 1b\n movl $0, 1b+1(%rip)\n ret");
/* A repeated store that reaches itself: its prefix becomes a NOP, two iterations before the end. */
SNIPPET(over_itself, "lea 1f(%rip), %rdi\n sub $20, %rdi\n mov $0x90, %al\n mov $22, %ecx\n jmp 1f\n"
	".skip 20, 0x90\n 1: rep stosb\n mov %rcx, %rax\n ret");
/* 8-byte stores into the page of the code, beside it and across its end. */
SNIPPET(beside, "mov $300, %ecx\n 1: mov %rcx, 2048(%rdi)\n mov %rcx, 4092(%rdi)\n lock incl 3000(%rdi)\n"
	"dec %ecx\n jnz 1b\n mov 3000(%rdi), %eax\n ret");
SNIPPET(stepped, "pushf\n orl $0x100, (%rsp)\n popf\n mov $5, %ecx\n 1: nop\n cmp $3, %ecx\n je 2f\n xor %eax, %eax\n 2: dec %ecx\n jnz 1b\n"
	"mov $20, %ecx\n cld\n rep stosb\n mov %ss, %eax\n mov %eax, %ss\n nop\n pushf\n andl $~0x100, (%rsp)\n popf\n ret");
SNIPPET(user, "mov $2000, %ecx\n 1: add %ecx, %eax\n mov %rax, -64(%rsp)\n dec %ecx\n jnz 1b\n movabs $0x8000200000, %rdi\n"
	"mov $4096, %ecx\n rep stosb\n int $0x80");

/* Writes its own entry; what comes next is of the new page. */
SNIPPET(remap, "xor %eax, %eax\n mov %rsi, (%rdi)\n add $0x20, %eax\n jmp 1f\n 1: add $0x20, %eax\n ret");

static void mix_entries(ulong va)
{
	for (unsigned level = 1; level <= 4; level++)
		mix(*pte_of(va, level));
}

/*
 * Entries that change without INVLPG.  What a TLB knew of them is the processor's
 * affair, but the same whether it has just been restored or has been running.
 */
static void without_invlpg(unsigned n)
{
	static u64 root[512] __attribute__((aligned(4096)));
	const ulong all = window + 0x100000, code = window + 0x200000;
	volatile u64 *p = (u64 *)window;
	ulong old = get_cr3();

	for (unsigned level = 1; level <= 4; level++) {
		(void)*p;
		p[512] = n;
		*pte_of(window, level) &= ~(PTE_A | PTE_D);
		*pte_of(window + 4096, level) &= ~(PTE_A | PTE_D);
		mix(*p + p[512]);
		mix_entries(window);
		p[512] = n + 1;
		mix_entries(window + 4096);
	}
	map(window, (ulong)pages[n % 4], PTE_P | PTE_W, 1);
	mix(*p);
	map(window, (ulong)pages[1], PTE_P, 1);
	mix(*p);

	/* Code, and a page of instructions that is taken away. */
	memset(pages[3], 0x90, 64);
	pages[3][64] = 0xc3;
	map(code, (ulong)pages[3], PTE_P, 1);
	call((void *)code, 0);
	*pte_of(code, 1) &= ~PTE_A;
	*pte_of(code, 2) &= ~PTE_A;
	call((void *)code, 0);
	mix_entries(code);
	memcpy(pages[3] + 128, remap, remap_end - remap);
	*pte_of(code, 1) = (ulong)pages[3] | PTE_P | PTE_NX;
	call((void *)code, 0);
	/* The page that runs goes, and another takes its place. */
	memcpy(pages[2], pages[3], 4096);
	pages[2][128 + 7] = 0x40;
	mix(((ulong (*)(u64 *, u64))(code + 128))(pte_of(code, 1), (ulong)pages[2] | PTE_P));
	mix_entries(code);

	/* Global pages, and other tables. */
	set_cr4(get_cr4() | 0x80);
	map(all, (ulong)pages[0], PTE_P | PTE_G, 1);
	mix(*(volatile u64 *)all);
	for (unsigned i = 0; i < 512; i++)
		root[i] = boot_pml4[i] & ~PTE_A;
	set_cr3((ulong)root);
	mix(*(volatile u64 *)all);
	set_cr3(old);
	for (unsigned i = 0; i < 512; i++)
		mix(root[i]);
}

static ulong call(const void *p, ulong a)
{
	return ((ulong (*)(ulong))(ulong)p)(a);
}

static void round_of_work(u8 *code, unsigned n)
{
	unmap_all(n & 1);
	call(strings, window + 3 * n);
	for (unsigned i = 0; i < 20; i++)
		mix(call(devices, 0));
	mix(call(shadows, 0));
	memcpy(code + n % 64, changing, changing_end - changing);
	mix(call(code + n % 64, 0));
	memcpy(code + 200, beside, beside_end - beside);
	mix(call(code + 200, (ulong)code));
	memcpy(code + 5000, over_itself, over_itself_end - over_itself);
	mix(call(code + 5000, 0));
	call(stepped, window);
	mix(try_call(enter_user, USER_BASE, USER_STACK, FL_IF | 2));
	sti();
	for (unsigned i = 0; i < 5; i++)
		asm volatile("hlt" ::: "memory");
	mix(get_flags());
	without_invlpg(n);
}

void guest_main(void)
{
	u8 *code = pages_alloc(3);

	for (unsigned i = 0; i < 4; i++)
		pages[i] = page_alloc();
	user_code(user, user_end);
	map(window, 0, 0, 1);
	on_trap(PF, on_fault);
	on_trap(DB, on_step);
	on_trap(VECTOR, on_tick);
	outb(0x21, 0xff);
	outb(0xa1, 0xff);
	APIC[0xf0 / 4] = 0x1ff;
	APIC[0x3e0 / 4] = 0xb;
	APIC[0x320 / 4] = VECTOR;
	APIC[0x380 / 4] = 1000;
	sti();
	for (unsigned n = 0; n < ROUNDS; n++)
		round_of_work(code, n);
	cli();
	section("work for the virtual clock");
	print("hash %lx, %u ticks, %u steps, %u page faults\n", (ulong)hash, ticks, steps, page_faults);
	check((rf_seen > 100 || !guest_option("virtual")) && !rf_wrong, "RF: %u times as it should be, %u times wrong", rf_seen, rf_wrong);
	check(ticks > 1000 && steps > 100 && page_faults > 100, "all of it happened");
}
