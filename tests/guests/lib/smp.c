#include "smp.h"

#define TRAMPOLINE	0x8000ul	/* a page below 1 MiB; its number is the vector */
#define STACK		16384
#define VEC_JOB		0xfe

extern const char ap_begin[], ap_end[];
void ap_entry(unsigned number) __attribute__((noreturn));

volatile unsigned smp_count = 1;
u32 smp_apic_id[SMP_MAX];
unsigned ap_next = 1;			/* number of the next one that comes up */
u8 ap_stacks[SMP_MAX][STACK] __attribute__((aligned(16)));

static struct { u16 limit; ulong base; } __attribute__((packed)) idtr;
static void (*volatile job)(unsigned cpu, ulong arg);
static volatile ulong job_arg;
static volatile unsigned job_number, job_done, arrived;

/* From real mode at TRAMPOLINE:0 to ap_entry, with a stack by number. */
asm(".pushsection .text\n"
    ".code16\n"
    ".globl ap_begin, ap_end\n"
    "ap_begin:\n"
    "	cli\n"
    "	xorw %ax, %ax\n"
    "	movw %ax, %ds\n"
    "	lgdtl ap_gdtr - ap_begin + 0x8000\n"
    "	movl $0x620, %eax\n"
    "	movl %eax, %cr4\n"
    "	movl $boot_pml4, %eax\n"
    "	movl %eax, %cr3\n"
    "	movl $0xc0000080, %ecx\n"
    "	rdmsr\n"
    "	orl $0x901, %eax\n"
    "	wrmsr\n"
    "	movl $0x80010033, %eax\n"
    "	movl %eax, %cr0\n"
    "	ljmpl $0x08, $ap_long\n"
    "	.align 8\n"
    "ap_gdtr:\n"
    "	.word 64 * 8 - 1\n"
    "	.long gdt\n"
    "ap_end:\n"
    ".code64\n"
    "ap_long:\n"
    "	movl $0x10, %eax\n"
    "	movl %eax, %ss\n"
    "	movl %eax, %ds\n"
    "	movl %eax, %es\n"
    "	movl $1, %edi\n"
    "	lock xaddl %edi, ap_next\n"
    "	leal 1(%rdi), %eax\n"
    "	imull $16384, %eax\n"
    "	leaq ap_stacks(%rax), %rsp\n"
    "	xorl %ebp, %ebp\n"
    "	call ap_entry\n"
    ".popsection\n");

static bool in_x2apic(void)
{
	return rdmsr(0x1b) & BIT(10);
}

u32 apic_read(unsigned reg)
{
	return in_x2apic() ? (u32)rdmsr(0x800 + reg / 16) : *(volatile u32 *)(0xfee00000ul + reg);
}

void apic_write(unsigned reg, u32 v)
{
	if (in_x2apic())
		wrmsr(0x800 + reg / 16, v);
	else
		*(volatile u32 *)(0xfee00000ul + reg) = v;
}

void apic_eoi(void)
{
	apic_write(EOI, 0);
}

void ipi(u32 dest, u32 low)
{
	if (in_x2apic()) {
		wrmsr(0x830, (u64)dest << 32 | low);
		return;
	}
	apic_write(ICR_HI, dest << 24);
	apic_write(ICR, low);
}

void x2apic_on(void)
{
	wrmsr(0x1b, rdmsr(0x1b) | BIT(10));
}

static u32 my_id(void)
{
	return in_x2apic() ? (u32)rdmsr(0x802) : apic_read(ID) >> 24;
}

unsigned smp_self(void)
{
	u32 id = my_id();

	for (unsigned i = 0; i < SMP_MAX; i++)
		if (smp_apic_id[i] == id && (i == 0 || id))
			return i;
	return SMP_MAX;
}

static void on_job(struct frame *f)
{
	apic_eoi();
}

void ap_entry(unsigned number)
{
	unsigned seen = job_number;

	asm volatile("lidt %0" :: "m"(idtr));
	apic_write(SVR, 0x1ff);
	smp_apic_id[number] = my_id();
	__atomic_fetch_add(&smp_count, 1, __ATOMIC_SEQ_CST);
	for (;;) {
		/* Who has nothing to do takes nothing from those who have. */
		while (job_number == seen)
			asm volatile("sti; hlt; cli" ::: "memory");
		seen = job_number;
		job(number, job_arg);
		__atomic_fetch_add(&job_done, 1, __ATOMIC_SEQ_CST);
	}
}

static void delay_us(u64 us)
{
	u64 end = rdtsc() + us * 1000;	/* the TSC runs at about 1 GHz */

	while (rdtsc() < end)
		cpu_pause();
}

void smp_start(void)
{
	unsigned before;

	on_trap(VEC_JOB, on_job);
	outb(0x21, 0xff);		/* no interrupts but messages */
	outb(0xa1, 0xff);
	asm volatile("sidt %0" : "=m"(idtr));
	apic_write(SVR, 0x1ff);
	smp_apic_id[0] = my_id();
	memcpy((void *)TRAMPOLINE, ap_begin, ap_end - ap_begin);
	ipi(0, TO_OTHERS | ASSERT | INIT);
	delay_us(10000);
	ipi(0, TO_OTHERS | ASSERT | STARTUP | TRAMPOLINE >> 12);
	delay_us(200);
	ipi(0, TO_OTHERS | ASSERT | STARTUP | TRAMPOLINE >> 12);
	/* Until nobody has come for a while. */
	do {
		before = smp_count;
		delay_us(200000);
	} while (smp_count != before);
}

void smp_begin(void (*fn)(unsigned cpu, ulong arg), ulong arg)
{
	job = fn;
	job_arg = arg;
	job_done = 0;
	arrived = 0;
	__atomic_fetch_add(&job_number, 1, __ATOMIC_SEQ_CST);
	ipi(0, TO_OTHERS | ASSERT | VEC_JOB);
}

void smp_join(void)
{
	while (job_done != smp_count - 1)
		cpu_pause();
}

void smp_run(void (*fn)(unsigned cpu, ulong arg), ulong arg)
{
	smp_begin(fn, arg);
	fn(0, arg);
	smp_join();
}

void smp_meet(unsigned *phase, unsigned n)
{
	*phase += n;
	__atomic_fetch_add(&arrived, 1, __ATOMIC_SEQ_CST);
	while ((int)(arrived - *phase) < 0)
		cpu_pause();
}
