/*
 * The guest of the probe, in 64-bit mode at CPL 0 from its first instruction, and the machine it runs
 * in, which is nothing but two megabytes of memory.  See probe.h.
 */
#include "cpu/kvm/probe_guest.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "base/util.h"
#include "cpu/kvm/call.h"

#define RAM	0x200000u
#define PML4	0x1000u
#define PDPT	0x2000u
#define PD	0x3000u
#define GDT	0x4000u
#define IDT	0x5000u
#define CODE	0x8000u
#define STACK	0x10000u
#define DATA	0x11000u
#define PORT	0x80
#define KCODE	8
#define ROUNDS	20000		/* of a loop of two instructions */
#define CPUID_MAX 256

/* Each stage ends with its number at the port; what is wrong ends with 0xff. */
extern const uint8_t probe_code[], probe_code_end[], probe_int3[];
__asm__(
	".pushsection .rodata\n"
	"probe_code:\n"
	"	mov $0, %al\n	out %al, $0x80\n"
	"	mov $20000, %ecx\n"
	"1:	dec %ecx\n	jnz 1b\n"
	"	mov $1, %al\n	out %al, $0x80\n"
	"	movl $0x11111111, 0x11000\n	movl $0x22222222, 0x11010\n"
	"	movd 0x11000, %xmm0\n	movd 0x11010, %xmm1\n"
	"	paddd %xmm1, %xmm0\n	movd %xmm0, %eax\n"
	"	cmp $0x33333333, %eax\n	jne 9f\n"
	"	mov $2, %al\n	out %al, $0x80\n"
	"	xor %eax, %eax\n	xor %edx, %edx\n	mov $5, %ebx\n	mov $6, %ecx\n"
	"	lock cmpxchg16b 0x11020\n	jnz 9f\n	cmpq $6, 0x11028\n	jne 9f\n"
	"	mov $3, %al\n	out %al, $0x80\n"
	"	xor %esi, %esi\n	int3\n	cmp $7, %esi\n	jne 9f\n"
	"	mov $4, %al\n	out %al, $0x80\n"
	"	mov $3, %eax\n	xor %edx, %edx\n	xsave 0x11400\n"
	"	testb $2, 0x11600\n	jz 9f\n"
	"	mov $5, %al\n	out %al, $0x80\n"
	"9:	mov $0xff, %al\n	out %al, $0x80\n	hlt\n"
	"probe_int3:\n"
	"	mov $7, %esi\n	iretq\n"
	"probe_code_end:\n"
	".popsection\n");

struct box {
	int kvm, fd, vcpu;
	struct kvm_run *run;
	uint8_t *ram;
	bool xsave;
};

static void fill_ram(uint8_t *ram)
{
	/* The labels are one object to the assembler; as numbers, to the compiler too. */
	uint32_t handler = CODE + (uint32_t)((uintptr_t)probe_int3 - (uintptr_t)probe_code);

	store64(ram + PML4, PDPT | 3);
	store64(ram + PDPT, PD | 3);
	store64(ram + PD, 0x83);
	store64(ram + GDT + KCODE, 0x00af9b000000ffffull);
	store64(ram + GDT + KCODE + 8, 0x00cf93000000ffffull);
	store64(ram + IDT + 16 * 3, (handler & 0xffff) | KCODE << 16 | 0x8e00ull << 32);
	memcpy(ram + CODE, probe_code, (uintptr_t)probe_code_end - (uintptr_t)probe_code);
}

static int set_cpuid(struct box *b)
{
	struct {
		struct kvm_cpuid2 head;
		struct kvm_cpuid_entry2 at[CPUID_MAX];
	} *t = calloc(1, sizeof(*t));
	int err;

	if (!t)
		return -ENOMEM;
	t->head.nent = CPUID_MAX;
	err = kvm_call(b->kvm, KVM_GET_SUPPORTED_CPUID, t);
	for (uint32_t i = 0; err >= 0 && i < t->head.nent; i++)
		if (t->at[i].function == 1)
			b->xsave = t->at[i].ecx >> 26 & 1;
	if (err >= 0)
		err = kvm_call(b->vcpu, KVM_SET_CPUID2, t);
	free(t);
	return err;
}

static int set_registers(struct box *b)
{
	struct kvm_regs r = { .rip = CODE, .rsp = STACK, .rflags = 2 };
	struct kvm_segment code = { .selector = KCODE, .limit = 0xffffffff, .type = 11, .present = 1,
				    .s = 1, .l = 1, .g = 1 };
	struct kvm_segment data = { .selector = KCODE + 8, .limit = 0xffffffff, .type = 3,
				    .present = 1, .s = 1, .db = 1, .g = 1 };
	struct kvm_sregs s;
	int err = kvm_call(b->vcpu, KVM_GET_SREGS, &s);

	if (err < 0)
		return err;
	s.cs = code;
	s.ds = s.es = s.fs = s.gs = s.ss = data;
	s.gdt = (struct kvm_dtable){ .base = GDT, .limit = 31 };
	s.idt = (struct kvm_dtable){ .base = IDT, .limit = 16 * 4 - 1 };
	s.cr3 = PML4;
	s.cr4 = 0x620 | (b->xsave ? 0x40000 : 0);	/* PAE, SSE, OSXSAVE */
	s.cr0 = 0x80010033;
	s.efer = 0x500;
	err = kvm_call(b->vcpu, KVM_SET_SREGS, &s);
	if (err >= 0 && b->xsave) {
		struct kvm_xcrs x = { .nr_xcrs = 1, .xcrs[0].value = 3 };

		err = kvm_call(b->vcpu, KVM_SET_XCRS, &x);
	}
	return err < 0 ? err : kvm_call(b->vcpu, KVM_SET_REGS, &r);
}

static int make(struct box *b)
{
	struct kvm_userspace_memory_region slot = { .memory_size = RAM };
	int size = kvm_call_value(b->kvm, KVM_GET_VCPU_MMAP_SIZE, 0);

	if (size < (int)sizeof(struct kvm_run))
		return size < 0 ? size : -EINVAL;
	b->fd = kvm_call_value(b->kvm, KVM_CREATE_VM, 0);
	if (b->fd < 0)
		return b->fd;
	b->ram = mmap(NULL, RAM, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (b->ram == MAP_FAILED)
		return -errno;
	fill_ram(b->ram);
	slot.userspace_addr = (uintptr_t)b->ram;
	size = kvm_call(b->fd, KVM_SET_USER_MEMORY_REGION, &slot) < 0 ? -errno : size;
	if (size < 0)
		return size;
	b->vcpu = kvm_call_value(b->fd, KVM_CREATE_VCPU, 0);
	if (b->vcpu < 0)
		return b->vcpu;
	b->run = mmap(NULL, (size_t)size, PROT_READ | PROT_WRITE, MAP_SHARED, b->vcpu, 0);
	if (b->run == MAP_FAILED)
		return -errno;
	size = set_cpuid(b);
	return size < 0 ? size : set_registers(b);
}

static int64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * NSEC_PER_SEC + t.tv_nsec;
}

/* To the next number at the port, or a negative errno. */
static int next_stage(struct box *b)
{
	int err = kvm_run_once(b->vcpu);

	if (err < 0)
		return err;
	if (b->run->exit_reason != KVM_EXIT_IO || b->run->io.port != PORT)
		return -EOPNOTSUPP;
	return ((const uint8_t *)b->run)[b->run->io.data_offset];
}

void probe_guest_run(int kvm, struct probe_result *r)
{
	struct box b = { .kvm = kvm, .fd = -1, .vcpu = -1 };
	int64_t begin = now_ns(), loop = 0;
	int stage, khz;

	*r = (struct probe_result){ .stage = -1 };
	r->error = make(&b);
	if (r->error < 0)
		return;
	khz = kvm_call_value(b.vcpu, KVM_GET_TSC_KHZ, 0);
	r->tsc_khz = khz > 0 ? (uint32_t)khz : 0;
	r->xsave = b.xsave;
	while ((stage = next_stage(&b)) == r->stage + 1 && stage < PROBE_STAGES) {
		if (stage == PROBE_START)
			loop = now_ns();
		else if (stage == PROBE_LOOP)
			r->loop_ns = now_ns() - loop;
		r->stage = stage;
		if (stage == PROBE_INT3 && !b.xsave)
			break;
	}
	r->error = stage < 0 ? stage : 0;
	r->us = (uint32_t)((now_ns() - begin) / 1000);
	r->kips = r->loop_ns > 0 ? (uint32_t)(2ll * ROUNDS * 1000000 / r->loop_ns) : 0;
}
