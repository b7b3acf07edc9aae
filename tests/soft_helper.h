/*
 * A soft processor with 16 MiB and a flat 32-bit protected mode (no paging),
 * whose handlers and deliveries a test calls one by one.
 */
#ifndef SKEP_TESTS_SOFT_HELPER_H
#define SKEP_TESTS_SOFT_HELPER_H

#include "vm_helper.h"

#include "chipset/lapic.h"
#include "cpu/model.h"
#include "cpu/soft/cache.h"
#include "cpu/soft/desc.h"
#include "cpu/soft/msr.h"
#include "cpu/soft/sysops.h"
#include "cpu/soft/system.h"
#include "vm/vm.h"

enum { GDT = 0x1000, IDT = 0x2000, TSS_A = 0x3000, TSS_B = 0x4000, TSS_C = 0x5000, LDT = 0x6000,
       KERNEL_STACK = 0x8000, USER_STACK = 0x9000, CODE = 0x10000, HANDLER = 0x20000 };

/* Selectors. */
enum { CODE0 = 0x08, DATA0 = 0x10, CODE3 = 0x1b, DATA3 = 0x23, TSS32_A = 0x28, TSS32_B = 0x30,
       TSS16_C = 0x38, CONFORMING = 0x40, GATE32 = 0x48, GATE16 = 0x50, LDT_SEL = 0x58,
       ABSENT = 0x60, CODE16 = 0x68, STACK16 = 0x70, TASK_GATE = 0x78, EXEC_ONLY = 0x80,
       GDT_END = 0x88 };

static struct vm *machine;
static const char *soft_model;	/* cpu.model; NULL: the default */
static struct soft_cpu *cpu;
static uint8_t *ram;

static void seg_desc(unsigned sel, uint32_t base, uint32_t limit, unsigned attr)
{
	uint64_t d = (limit & 0xffff) | (uint64_t)(base & 0xffffff) << 16 |
		     (uint64_t)(attr & 0xf0ff) << 40 | (uint64_t)(limit >> 16 & 0xf) << 48 |
		     (uint64_t)(base >> 24) << 56;

	store64(ram + GDT + (sel & ~7u), d);
}

/* A gate at any table entry: attr is the access byte, count the parameter words. */
static void gate(uint32_t at, unsigned sel, uint32_t off, unsigned attr, unsigned count)
{
	store64(ram + at, (off & 0xffff) | (uint64_t)sel << 16 | (uint64_t)count << 32 |
			  (uint64_t)attr << 40 | (uint64_t)(off >> 16) << 48);
}

static void idt_gate(unsigned vector, unsigned sel, unsigned attr)
{
	gate(IDT + vector * 8, sel, HANDLER + vector * 16, attr, 0);
}

static void tables(void)
{
	memset(ram, 0, 0x30000);
	seg_desc(CODE0, 0, 0xfffff, 0xc09b);
	seg_desc(DATA0, 0, 0xfffff, 0xc093);
	seg_desc(CODE3, 0, 0xfffff, 0xc0fb);
	seg_desc(DATA3, 0, 0xfffff, 0xc0f3);
	seg_desc(TSS32_A, TSS_A, 0x67, 0x8b);
	seg_desc(TSS32_B, TSS_B, 0x67, 0x89);
	seg_desc(TSS16_C, TSS_C, 0x2b, 0x81);
	seg_desc(CONFORMING, 0, 0xfffff, 0xc09f);
	gate(GDT + GATE32, CODE0, 0x12345, 0xec, 2);
	gate(GDT + GATE16, CODE16, 0x2345, 0xe4, 1);
	seg_desc(LDT_SEL, LDT, 0xff, 0x82);
	seg_desc(ABSENT, 0, 0xfffff, 0xc013);
	seg_desc(CODE16, 0, 0xffff, 0x009b);
	seg_desc(STACK16, 0, 0xffff, 0x0093);
	gate(GDT + TASK_GATE, TSS32_B, 0, 0xe5, 0);
	seg_desc(EXEC_ONLY, 0, 0xfffff, 0xc099);
	/* Ring 0's stack. */
	store32(ram + TSS_A + 4, KERNEL_STACK);
	store32(ram + TSS_A + 8, DATA0);
	/* Interrupt gates for everything. */
	for (unsigned i = 0; i < 64; i++)
		idt_gate(i, CODE0, 0x8e);
}

static struct cpu_segment flat_segment(uint16_t sel, uint16_t attr)
{
	return (struct cpu_segment){ .selector = sel, .attr = attr, .limit = 0xffffffff };
}

/* Flat protected mode at this privilege, at CODE with a stack of its own. */
static inline void protected_mode(unsigned cpl)
{
	struct skep_error e = { .text = "" };
	struct cpu_arch_state s;

	soft_reset(cpu, false);
	tables();
	soft_get_state(cpu, &s);
	s.cr0 = CR0_PE | CR0_ET;
	s.rip = CODE;
	s.rflags = 2;
	for (unsigned i = SEG_ES; i <= SEG_GS; i++)
		s.seg[i] = flat_segment(cpl ? DATA3 : DATA0, cpl ? 0xc0f3 : 0xc093);
	s.seg[SEG_CS] = flat_segment(cpl ? CODE3 : CODE0, cpl ? 0xc0fb : 0xc09b);
	s.seg[SEG_TR] = (struct cpu_segment){ .selector = TSS32_A, .attr = 0x8b, .limit = 0x67,
					      .base = TSS_A };
	s.gdtr = (struct cpu_table){ GDT, GDT_END - 1 };
	s.idtr = (struct cpu_table){ IDT, 64 * 8 - 1 };
	s.gpr[REG_RSP] = cpl ? USER_STACK : KERNEL_STACK;
	if (soft_set_state(cpu, &s, &e) < 0)
		fail_msg("%s", e.text);
	atomic_store(&cpu->v->requests, 0);
	atomic_store(&cpu->kick, 0);
}

/* Runs a handler; the vector it raises, or -1. */
static inline int run_op(op_fn *fn, struct soft_op op)
{
	sigjmp_buf jmp;
	volatile int raised = -1;

	op.fn = fn;
	op.len = 2;
	if (!op.size)
		op.size = 4;
	cpu->r[SLOT_IPBASE] = cpu->rip;
	cpu->jmp = &jmp;
	cpu->exc_raised = false;
	if (!sigsetjmp(jmp, 0))
		fn(cpu, &op);
	else
		raised = cpu->exc.vector;
	cpu->jmp = NULL;
	return raised;
}

/* What the run loop does with c->exc; false: triple fault. */
static inline bool deliver(void)
{
	volatile unsigned tries = 0;
	sigjmp_buf jmp;
	bool ok;

	cpu->jmp = &jmp;
	sigsetjmp(jmp, 0);
	assert_true(tries++ < 5);
	ok = soft_deliver(cpu);
	cpu->jmp = NULL;
	return ok;
}

static inline bool deliver_event(unsigned vector, unsigned kind, bool has_error, uint32_t error)
{
	cpu->exc.vector = (uint8_t)vector;
	cpu->exc.kind = (uint8_t)kind;
	cpu->exc.has_error = has_error;
	cpu->exc.error = error;
	cpu->exc.insn_rip = cpu->rip;
	return deliver();
}

static inline uint32_t mem32(uint32_t at)
{
	return load32(ram + at);
}

static inline uint16_t selector(unsigned seg)
{
	return cpu->s.seg[seg].selector;
}

static int soft_setup(void **state)
{
	struct vm_core_options o = { .ram = TEST_RAM, .seeded = true };
	struct skep_error e = { .text = "" };

	machine = calloc(1, sizeof *machine);
	clock_init(&o.clock, CLOCK_MODE_VIRTUAL);
	if (!machine || vm_core_init(machine, &o, &e) < 0)
		return -1;
	machine->config = config_create();
	if (soft_model && config_set(machine->config, "cpu.model", soft_model, NULL, &e) < 0)
		return -1;
	machine->ncpus = 1;
	machine->vcpus[0] = vcpu_create(machine, 0, &vcpu_soft_ops, &e);
	device_lock(machine);
	if (!machine->vcpus[0] || !lapic_create(machine->vcpus[0], &e))
		return -1;
	device_unlock(machine);
	cpu = machine->vcpus[0]->backend;
	ram = memory_page(&machine->memory, 0).write;
	return 0;
}

static int soft_teardown(void **state)
{
	vcpu_destroy(machine->vcpus[0]);
	machine->vcpus[0] = NULL;
	machine->ncpus = 0;
	config_destroy(machine->config);
	vm_core_finish(machine);
	free(machine);
	return 0;
}

#endif
