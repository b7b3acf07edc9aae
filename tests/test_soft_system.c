/*
 * The system side of the soft processor, handler by handler: legacy modes
 * foremost, since the guests of tests/guests run in long mode.
 */
#include "soft_helper.h"

/* ---- Events in protected mode ------------------------------------------------ */

static void same_privilege(void **state)
{
	protected_mode(0);
	cpu->s.rflags |= RFLAGS_IF | RFLAGS_TF;
	assert_true(deliver_event(EXC_GP, EXC_KIND_FAULT, true, 0x50));
	assert_int_equal(cpu->rip, HANDLER + 13 * 16);
	assert_int_equal(cpu->r[REG_RSP], KERNEL_STACK - 16);
	assert_int_equal(mem32(KERNEL_STACK - 16), 0x50);
	assert_int_equal(mem32(KERNEL_STACK - 12), CODE);
	assert_int_equal(mem32(KERNEL_STACK - 8), CODE0);
	/* A fault pushes RF; interrupt gates clear IF, all clear TF. */
	assert_int_equal(mem32(KERNEL_STACK - 4), 2 | RFLAGS_IF | RFLAGS_TF | RFLAGS_RF);
	assert_int_equal(soft_rflags(cpu), 2);
	protected_mode(0);
	idt_gate(32, CODE0, 0x8f);
	cpu->s.rflags |= RFLAGS_IF;
	assert_true(deliver_event(32, EXC_KIND_HARD, false, 0));
	assert_int_equal(soft_rflags(cpu), 2 | RFLAGS_IF);
	assert_int_equal(mem32(KERNEL_STACK - 4), 2 | RFLAGS_IF);
}

static void inward_and_back(void **state)
{
	protected_mode(3);
	cpu->s.rflags |= RFLAGS_IF;
	assert_true(deliver_event(33, EXC_KIND_HARD, false, 0));
	assert_int_equal(cpu->cpl, 0);
	assert_int_equal(selector(SEG_CS), CODE0);
	assert_int_equal(selector(SEG_SS), DATA0);
	assert_int_equal(cpu->r[REG_RSP], KERNEL_STACK - 20);
	assert_int_equal(mem32(KERNEL_STACK - 4), DATA3);
	assert_int_equal(mem32(KERNEL_STACK - 8), USER_STACK);
	assert_int_equal(mem32(KERNEL_STACK - 16), CODE3);
	assert_int_equal(run_op(op_iret, (struct soft_op){ 0 }), -1);
	assert_int_equal(cpu->cpl, 3);
	assert_int_equal(cpu->rip, CODE);
	assert_int_equal(cpu->r[REG_RSP], USER_STACK);
	assert_true(cpu->s.rflags & RFLAGS_IF);
}

static void gate16(void **state)
{
	protected_mode(0);
	idt_gate(34, CODE0, 0x86);
	assert_true(deliver_event(34, EXC_KIND_HARD, false, 0));
	assert_int_equal(cpu->r[REG_RSP], KERNEL_STACK - 6);
	assert_int_equal(load16(ram + KERNEL_STACK - 4), CODE0);
	assert_int_equal(cpu->rip, (HANDLER + 34 * 16) & 0xffff);
}

/* INT n: the gate's DPL, and error codes without EXT. */
static void software_interrupts(void **state)
{
	protected_mode(3);
	assert_int_equal(run_op(op_int, (struct soft_op){ .imm = 40 }), 40);
	assert_true(deliver());
	assert_int_equal(cpu->rip, HANDLER + 13 * 16);
	assert_int_equal(mem32(KERNEL_STACK - 24), 40 << 3 | 2);
	assert_int_equal(mem32(KERNEL_STACK - 20), CODE);	/* of INT itself */
	protected_mode(3);
	idt_gate(40, CODE0, 0xee);
	assert_int_equal(run_op(op_int, (struct soft_op){ .imm = 40 }), 40);
	assert_true(deliver());
	assert_int_equal(mem32(KERNEL_STACK - 20), CODE + 2);
	/* An exception asks for no DPL, and sets EXT in what goes wrong. */
	protected_mode(3);
	idt_gate(EXC_UD, ABSENT, 0x8e);
	assert_true(deliver_event(EXC_UD, EXC_KIND_FAULT, false, 0));
	assert_int_equal(cpu->rip, HANDLER + 13 * 16);
	assert_int_equal(mem32(KERNEL_STACK - 24), ABSENT | 1);
}

/* Table 6-5 of SDM vol. 3: contributory, page fault, benign. */
static void double_faults(void **state)
{
	static const struct { uint8_t first, second; bool df; } t[] = {
		{ EXC_UD, EXC_NP, false }, { EXC_GP, EXC_NP, true }, { EXC_PF, EXC_NP, true },
		{ EXC_SS, EXC_NP, true }, { EXC_DE, EXC_NP, true }, { EXC_BR, EXC_NP, false },
		{ EXC_AC, EXC_NP, false }, { EXC_TS, EXC_NP, true }, { EXC_MF, EXC_NP, false },
	};

	for (unsigned i = 0; i < ARRAY_SIZE(t); i++) {
		protected_mode(0);
		idt_gate(t[i].first, CODE0, 0x0e);	/* not present: #NP */
		assert_true(deliver_event(t[i].first, EXC_KIND_FAULT, false, 0));
		assert_int_equal(cpu->rip,
				 HANDLER + (t[i].df ? EXC_DF : t[i].second) * 16);
		assert_int_equal(mem32((uint32_t)cpu->r[REG_RSP]),
				 t[i].df ? 0 : t[i].first << 3 | 3);
	}
	/* #DF that cannot be delivered. */
	protected_mode(0);
	cpu->s.idtr.limit = 0;
	assert_false(deliver_event(EXC_UD, EXC_KIND_FAULT, false, 0));
	assert_false(cpu->sys.delivering);
}

static void bad_inner_stack(void **state)
{
	static const struct { uint16_t ss; unsigned vector; uint32_t error; } t[] = {
		{ 0, EXC_TS, 1 }, { DATA3, EXC_TS, (DATA3 & ~3) | 1 },
		{ CODE0, EXC_TS, CODE0 | 1 }, { ABSENT, EXC_SS, ABSENT | 1 },
		{ 0xff8, EXC_TS, 0xff8 | 1 },
	};

	for (unsigned i = 0; i < ARRAY_SIZE(t); i++) {
		protected_mode(3);
		/* The handlers of what goes wrong are tasks: they need no stack from here. */
		gate(IDT + t[i].vector * 8, TSS32_B, 0, 0x85, 0);
		store32(ram + TSS_B + 0x20, CODE + 0x100);
		store32(ram + TSS_B + 0x38, 0xa000);
		for (unsigned k = 0; k < 6; k++)
			store32(ram + TSS_B + 0x48 + k * 4, k == SEG_CS ? CODE0 : DATA0);
		store32(ram + TSS_A + 8, t[i].ss);
		assert_true(deliver_event(35, EXC_KIND_HARD, false, 0));
		assert_int_equal(cpu->rip, CODE + 0x100);
		assert_int_equal(mem32(0xa000 - 4), t[i].error);
		assert_int_equal(mem32(TSS_A + 0x20), CODE);
	}
}

/* ---- Real and virtual-8086 mode ------------------------------------------------ */

static void real_mode(void **state)
{
	soft_reset(cpu, false);
	memset(ram, 0, 0x30000);
	store32(ram + 0x21 * 4, 0x12345678);
	cpu->r[REG_RSP] = 0xabcd0100;
	cpu->rip = 0x4000;
	cpu->s.rflags = 2 | RFLAGS_IF;
	assert_int_equal(run_op(op_int, (struct soft_op){ .imm = 0x21, .size = 2 }), 0x21);
	assert_true(deliver());
	assert_int_equal(selector(SEG_CS), 0x1234);
	assert_int_equal(cpu->s.seg[SEG_CS].base, 0x12340);
	assert_int_equal(cpu->rip, 0x5678);
	assert_int_equal(cpu->r[REG_RSP], 0xabcd00fa);
	assert_int_equal(load16(ram + 0xfa), 0x4002);
	assert_int_equal(load16(ram + 0xfc), 0xf000);
	assert_int_equal(load16(ram + 0xfe), 0x202);
	assert_int_equal(run_op(op_iret, (struct soft_op){ .size = 2 }), -1);
	assert_int_equal(selector(SEG_CS), 0xf000);
	assert_int_equal(cpu->rip, 0x4002);
	assert_true(cpu->s.rflags & RFLAGS_IF);
	/* Beyond the vector table: #GP, which is beyond it too. */
	cpu->s.idtr.limit = 7;
	assert_false(deliver_event(0x21, EXC_KIND_HARD, false, 0));
}

static void real_mode_segments(void **state)
{
	soft_reset(cpu, false);
	store16(&cpu->r[REG_RAX], 0xb800);
	cpu->s.seg[SEG_ES].limit = 0xffffffff;		/* as protected mode left it */
	assert_int_equal(run_op(op_mov_to_seg, (struct soft_op){ .dst = SEG_ES }), -1);
	assert_int_equal(cpu->s.seg[SEG_ES].base, 0xb8000);
	assert_int_equal(cpu->s.seg[SEG_ES].limit, 0xffffffff);
	assert_int_equal(run_op(op_lar, (struct soft_op){ 0 }), EXC_UD);
	assert_int_equal(run_op(op_ltr, (struct soft_op){ 0 }), EXC_UD);
	/* Into protected mode, as boot loaders do. */
	tables();
	cpu->s.gdtr = (struct cpu_table){ GDT, GDT_END - 1 };
	cpu->rip = 0x7c00;
	cpu->r[REG_RAX] = CR0_PE;
	assert_int_equal(run_op(op_mov_to_cr, (struct soft_op){ .dst = 0 }), -1);
	assert_int_equal(run_op(op_far_jmp_imm, (struct soft_op){
		.imm = (uint64_t)CODE0 << 32 | CODE }), -1);
	assert_int_equal(cpu->rip, CODE);
	assert_true(cpu->mode & MODE_CS32);
}

static void vm86(void **state)
{
	protected_mode(0);
	/* IRET into it. */
	uint32_t sp = KERNEL_STACK - 36;
	const uint32_t frame[] = { 0x100, 0x2000, RFLAGS_VM | RFLAGS_IF | 2, 0x1fe, 0x3000,
				   0x4000, 0x5000, 0x6000, 0x7000 };

	memcpy(ram + sp, frame, sizeof frame);
	cpu->r[REG_RSP] = sp;
	assert_int_equal(run_op(op_iret, (struct soft_op){ 0 }), -1);
	assert_int_equal(cpu->cpl, 3);
	assert_true(cpu->mode & MODE_VM86);
	assert_int_equal(cpu->s.seg[SEG_CS].base, 0x20000);
	assert_int_equal(cpu->s.seg[SEG_GS].base, 0x70000);
	assert_int_equal(cpu->r[REG_RSP], 0x1fe);
	/* IOPL 0: these belong to the monitor. */
	assert_int_equal(run_op(op_cli, (struct soft_op){ 0 }), EXC_GP);
	assert_int_equal(run_op(op_sti, (struct soft_op){ 0 }), EXC_GP);
	assert_int_equal(run_op(op_pushf, (struct soft_op){ .size = 2 }), EXC_GP);
	assert_int_equal(run_op(op_popf, (struct soft_op){ .size = 2 }), EXC_GP);
	assert_int_equal(run_op(op_iret, (struct soft_op){ .size = 2 }), EXC_GP);
	assert_int_equal(run_op(op_int, (struct soft_op){ .imm = 0x21 }), EXC_GP);
	assert_int_equal(run_op(op_hlt, (struct soft_op){ 0 }), EXC_GP);
	/* An interrupt leaves it. */
	assert_true(deliver_event(36, EXC_KIND_HARD, false, 0));
	assert_int_equal(cpu->cpl, 0);
	assert_false(cpu->mode & MODE_VM86);
	assert_int_equal(cpu->r[REG_RSP], KERNEL_STACK - 36);
	assert_memory_equal(ram + sp, frame, sizeof frame);
	assert_int_equal(selector(SEG_DS), 0);
	assert_true(cpu->s.seg[SEG_DS].unusable);
	/* A handler of another ring: #GP, delivered from virtual-8086 mode. */
	assert_int_equal(run_op(op_iret, (struct soft_op){ 0 }), -1);
	idt_gate(37, CONFORMING, 0x8e);
	assert_true(deliver_event(37, EXC_KIND_HARD, false, 0));
	assert_int_equal(cpu->rip, HANDLER + EXC_GP * 16);
	assert_int_equal(mem32((uint32_t)cpu->r[REG_RSP]), CONFORMING | 1);
}

/* ---- Far transfers ---------------------------------------------------------------- */

static struct soft_op far_to(uint16_t sel, uint32_t off)
{
	return (struct soft_op){ .imm = (uint64_t)sel << 32 | off };
}

static void far_direct(void **state)
{
	static const struct { uint16_t sel; int vector; uint32_t error; } t[] = {
		{ CODE0, -1, 0 }, { CONFORMING, -1, 0 }, { 0, EXC_GP, 0 }, { 3, EXC_GP, 0 },
		{ DATA0, EXC_GP, DATA0 }, { CODE3, EXC_GP, CODE3 & ~3 }, { 0xff8, EXC_GP, 0xff8 },
		{ CODE0 | 3, EXC_GP, CODE0 }, { LDT_SEL, EXC_GP, LDT_SEL },
		{ 0x0c, EXC_GP, 0x0c },		/* no LDT */
	};

	for (unsigned i = 0; i < ARRAY_SIZE(t); i++) {
		protected_mode(0);
		assert_int_equal(run_op(op_far_jmp_imm, far_to(t[i].sel, 0x777)), t[i].vector);
		if (t[i].vector >= 0) {
			assert_int_equal(cpu->exc.error, t[i].error);
			assert_int_equal(cpu->rip, CODE);
		} else {
			assert_int_equal(cpu->rip, 0x777);
		}
	}
	protected_mode(0);
	assert_int_equal(run_op(op_far_jmp_imm, far_to(CODE16, 0x10000)), EXC_GP);
	assert_int_equal(cpu->exc.error, 0);
	/* From ring 3 a conforming segment runs at ring 3. */
	protected_mode(3);
	assert_int_equal(run_op(op_far_call_imm, far_to(CONFORMING, 0x777)), -1);
	assert_int_equal(cpu->cpl, 3);
	assert_int_equal(selector(SEG_CS), CONFORMING | 3);
	assert_int_equal(mem32(USER_STACK - 4), CODE3);
	assert_int_equal(mem32(USER_STACK - 8), CODE + 2);
	assert_int_equal(run_op(op_far_ret, (struct soft_op){ .imm = 8 }), -1);
	assert_int_equal(cpu->r[REG_RSP], USER_STACK + 8);
	assert_int_equal(selector(SEG_CS), CODE3);
}

static void call_gates(void **state)
{
	protected_mode(3);
	store32(ram + USER_STACK, 0x11111111);
	store32(ram + USER_STACK + 4, 0x22222222);
	assert_int_equal(run_op(op_far_call_imm, far_to(GATE32, 0)), -1);
	assert_int_equal(cpu->cpl, 0);
	assert_int_equal(cpu->rip, 0x12345);
	assert_int_equal(cpu->r[REG_RSP], KERNEL_STACK - 24);
	assert_int_equal(mem32(KERNEL_STACK - 4), DATA3);
	assert_int_equal(mem32(KERNEL_STACK - 8), USER_STACK);
	assert_int_equal(mem32(KERNEL_STACK - 12), 0x22222222);
	assert_int_equal(mem32(KERNEL_STACK - 16), 0x11111111);
	assert_int_equal(mem32(KERNEL_STACK - 20), CODE3);
	assert_int_equal(mem32(KERNEL_STACK - 24), CODE + 2);
	assert_int_equal(run_op(op_far_ret, (struct soft_op){ .imm = 8 }), -1);
	assert_int_equal(cpu->cpl, 3);
	assert_int_equal(cpu->r[REG_RSP], USER_STACK + 8);
	/* Ring 0's data segments do not go along. */
	protected_mode(0);
	cpu->r[REG_RSP] = KERNEL_STACK - 16;
	store32(ram + KERNEL_STACK - 16, CODE);
	store32(ram + KERNEL_STACK - 12, CODE3);
	store32(ram + KERNEL_STACK - 8, USER_STACK);
	store32(ram + KERNEL_STACK - 4, DATA3);
	assert_int_equal(run_op(op_far_ret, (struct soft_op){ 0 }), -1);
	assert_true(cpu->s.seg[SEG_DS].unusable);
	/* A 16-bit gate; a stack of 16 bits. */
	protected_mode(3);
	store32(ram + TSS_A + 8, STACK16);
	assert_int_equal(run_op(op_far_call_imm, far_to(GATE16, 0)), -1);
	assert_int_equal(cpu->rip, 0x2345);
	assert_int_equal(cpu->r[REG_RSP], KERNEL_STACK - 10);
	assert_int_equal(load16(ram + KERNEL_STACK - 10), (CODE + 2) & 0xffff);
	/* JMP cannot change the privilege; the gate's own DPL counts. */
	protected_mode(3);
	assert_int_equal(run_op(op_far_jmp_imm, far_to(GATE32, 0)), EXC_GP);
	assert_int_equal(cpu->exc.error, CODE0);
	gate(GDT + GATE32, CODE0, 0x12345, 0x8c, 0);
	assert_int_equal(run_op(op_far_call_imm, far_to(GATE32, 0)), EXC_GP);
	assert_int_equal(cpu->exc.error, GATE32);
	gate(GDT + GATE32, CODE0, 0x12345, 0x6c, 0);
	assert_int_equal(run_op(op_far_call_imm, far_to(GATE32, 0)), EXC_NP);
}

static void iret_checks(void **state)
{
	static const struct { uint16_t cs, ss; int vector; uint32_t error; } t[] = {
		{ CODE3, DATA3, -1, 0 }, { CODE0, 0, -1, 0 }, { 0, 0, EXC_GP, 0 },
		{ CODE3, 0, EXC_GP, 0 }, { CODE3, DATA0, EXC_GP, DATA0 },
		{ CODE3, CODE3, EXC_GP, CODE3 & ~3 }, { CODE3 & ~3, 0, EXC_GP, CODE3 & ~3 },
		{ DATA0, 0, EXC_GP, DATA0 }, { CODE3, ABSENT | 3, EXC_GP, ABSENT },
	};

	for (unsigned i = 0; i < ARRAY_SIZE(t); i++) {
		protected_mode(0);
		cpu->r[REG_RSP] = KERNEL_STACK - 20;
		store32(ram + KERNEL_STACK - 20, 0x777);
		store32(ram + KERNEL_STACK - 16, t[i].cs);
		store32(ram + KERNEL_STACK - 12, 2);
		store32(ram + KERNEL_STACK - 8, USER_STACK);
		store32(ram + KERNEL_STACK - 4, t[i].ss);
		assert_int_equal(run_op(op_iret, (struct soft_op){ 0 }), t[i].vector);
		assert_int_equal(cpu->rip, t[i].vector < 0 ? 0x777 : CODE);
		if (t[i].vector >= 0)
			assert_int_equal(cpu->exc.error, t[i].error);
	}
	/* Ring 3 cannot give itself IOPL or IF. */
	protected_mode(3);
	store32(ram + USER_STACK, 0x777);
	store32(ram + USER_STACK + 4, CODE3);
	store32(ram + USER_STACK + 8, RFLAGS_IOPL | RFLAGS_IF | RFLAGS_CF | 2);
	assert_int_equal(run_op(op_iret, (struct soft_op){ 0 }), -1);
	assert_int_equal(soft_rflags(cpu), RFLAGS_CF | 2);
}

/* ---- Tasks -------------------------------------------------------------------------- */

static void make_task(uint32_t tss, uint32_t eip, uint32_t flags, uint16_t cs, uint16_t ds,
		      uint32_t esp)
{
	store32(ram + tss + 0x20, eip);
	store32(ram + tss + 0x24, flags);
	store32(ram + tss + 0x28, 0xaaaaaaaa);
	store32(ram + tss + 0x38, esp);
	for (unsigned k = 0; k < 6; k++)
		store32(ram + tss + 0x48 + k * 4, k == SEG_CS ? cs : ds);
}

static unsigned tss_type(unsigned sel)
{
	return ram[GDT + sel + 5] & 0xf;
}

static void task_jump(void **state)
{
	protected_mode(0);
	make_task(TSS_B, 0x777, 2, CODE3, DATA3, USER_STACK);
	cpu->r[REG_RBX] = 0x12345678;
	assert_int_equal(run_op(op_far_jmp_imm, far_to(TSS32_B, 0)), -1);
	assert_int_equal(cpu->rip, 0x777);
	assert_int_equal(cpu->cpl, 3);
	assert_int_equal(cpu->r[REG_RAX], 0xaaaaaaaa);
	assert_int_equal(selector(SEG_TR), TSS32_B);
	assert_int_equal(tss_type(TSS32_A), SYS_TSS32);
	assert_int_equal(tss_type(TSS32_B), SYS_TSS32_BUSY);
	assert_true(cpu->s.cr0 & CR0_TS);
	assert_int_equal(mem32(TSS_A + 0x20), CODE + 2);
	assert_int_equal(mem32(TSS_A + 0x34), 0x12345678);
	assert_int_equal(mem32(TSS_A + 0x4c), CODE0);
	/* A busy task: #GP from the old one. */
	assert_int_equal(run_op(op_far_jmp_imm, far_to(TSS32_B, 0)), EXC_GP);
}

static void task_call_and_return(void **state)
{
	protected_mode(0);
	make_task(TSS_B, 0x777, 2, CODE0, DATA0, 0xa000);
	store16(ram + TSS_B + 0x64, 1);			/* T: debug trap */
	assert_int_equal(run_op(op_far_call_imm, far_to(TASK_GATE, 0)), -1);
	assert_int_equal(cpu->rip, 0x777);
	assert_true(cpu->s.rflags & RFLAGS_NT);
	assert_int_equal(load16(ram + TSS_B), TSS32_A);
	assert_int_equal(tss_type(TSS32_A), SYS_TSS32_BUSY);
	assert_true(cpu->exc_raised);
	assert_int_equal(cpu->exc.vector, EXC_DB);
	cpu->exc_raised = false;
	assert_int_equal(run_op(op_iret, (struct soft_op){ 0 }), -1);
	assert_int_equal(selector(SEG_TR), TSS32_A);
	assert_int_equal(cpu->rip, CODE + 2);
	assert_int_equal(cpu->r[REG_RSP], KERNEL_STACK);
	assert_int_equal(tss_type(TSS32_B), SYS_TSS32);
	assert_false(mem32(TSS_B + 0x24) & RFLAGS_NT);
	assert_false(cpu->s.rflags & RFLAGS_NT);
}

static void task16(void **state)
{
	protected_mode(0);
	store16(ram + TSS_C + 0x0e, 0x888);
	store16(ram + TSS_C + 0x10, 2);
	store16(ram + TSS_C + 0x1a, 0x7000);
	store16(ram + TSS_C + 0x22, DATA0);
	store16(ram + TSS_C + 0x24, CODE16);
	store16(ram + TSS_C + 0x26, STACK16);
	store16(ram + TSS_C + 0x28, DATA0);
	assert_int_equal(run_op(op_far_jmp_imm, far_to(TSS16_C, 0)), -1);
	assert_int_equal(cpu->rip, 0x888);
	assert_int_equal(cpu->r[REG_RSP], 0x7000);
	assert_true(cpu->s.seg[SEG_FS].unusable);
	assert_false(cpu->mode & MODE_CS32);
	assert_int_equal(run_op(op_far_jmp_imm, far_to(TSS32_A, 0)), -1);
	assert_int_equal(cpu->rip, CODE + 2);
	assert_int_equal(load16(ram + TSS_C + 0x0e), 0x88a);
}

static void task_faults(void **state)
{
	/* Before the switch: the old task's. */
	protected_mode(0);
	seg_desc(TSS32_B, TSS_B, 0x66, 0x89);
	assert_int_equal(run_op(op_far_jmp_imm, far_to(TSS32_B, 0)), EXC_TS);
	assert_int_equal(cpu->exc.error, TSS32_B);
	assert_int_equal(cpu->rip, CODE);
	seg_desc(TSS32_B, TSS_B, 0x67, 0x09);
	assert_int_equal(run_op(op_far_jmp_imm, far_to(TSS32_B, 0)), EXC_NP);
	assert_int_equal(tss_type(TSS32_A), SYS_TSS32_BUSY);
	/* After it: the new one's, at its first instruction. */
	protected_mode(0);
	make_task(TSS_B, 0x777, 2, CODE0, DATA3 & ~3, 0xa000);
	assert_int_equal(run_op(op_far_jmp_imm, far_to(TSS32_B, 0)), EXC_TS);
	assert_int_equal(cpu->exc.error, DATA3 & ~3);
	assert_int_equal(cpu->rip, 0x777);
	assert_int_equal(selector(SEG_TR), TSS32_B);
	protected_mode(0);
	make_task(TSS_B, 0x777, 2, CODE0, DATA0, 0xa000);
	store32(ram + TSS_B + 0x60, CODE0);
	assert_int_equal(run_op(op_far_jmp_imm, far_to(TSS32_B, 0)), EXC_TS);
	assert_int_equal(cpu->exc.error, CODE0);
}

/* ---- Segment loads ------------------------------------------------------------------ */

static void segment_loads(void **state)
{
	static const struct { unsigned cpl; uint8_t seg; uint16_t sel; int vector; } t[] = {
		{ 0, SEG_DS, DATA0, -1 }, { 0, SEG_DS, 0, -1 }, { 0, SEG_DS, 3, -1 },
		{ 0, SEG_DS, EXEC_ONLY, EXC_GP }, { 0, SEG_DS, CODE0, -1 },
		{ 0, SEG_DS, ABSENT, EXC_NP }, { 0, SEG_SS, ABSENT, EXC_SS },
		{ 0, SEG_SS, 0, EXC_GP }, { 0, SEG_SS, DATA3, EXC_GP }, { 0, SEG_SS, CODE0, EXC_GP },
		{ 0, SEG_SS, DATA0 | 3, EXC_GP }, { 3, SEG_DS, DATA0, EXC_GP },
		{ 3, SEG_DS, DATA3, -1 }, { 3, SEG_DS, CONFORMING | 3, -1 },
		{ 3, SEG_SS, DATA3, -1 }, { 3, SEG_DS, 0xff8, EXC_GP },
		{ 0, SEG_FS, TSS32_A, EXC_GP },
	};

	for (unsigned i = 0; i < ARRAY_SIZE(t); i++) {
		protected_mode(t[i].cpl);
		store16(&cpu->r[REG_RAX], t[i].sel);
		assert_int_equal(run_op(op_mov_to_seg, (struct soft_op){ .dst = t[i].seg }),
				 t[i].vector);
		if (t[i].vector < 0)
			assert_int_equal(selector(t[i].seg), t[i].sel);
		assert_int_equal(cpu->s.ss_shadow, t[i].seg == SEG_SS && t[i].vector < 0);
	}
	/* The accessed bit, in memory and in the register. */
	protected_mode(0);
	seg_desc(DATA0, 0, 0xfffff, 0xc092);
	store16(&cpu->r[REG_RAX], DATA0);
	assert_int_equal(run_op(op_mov_to_seg, (struct soft_op){ .dst = SEG_ES }), -1);
	assert_int_equal(ram[GDT + DATA0 + 5], 0x93);
	assert_int_equal(cpu->s.seg[SEG_ES].attr, 0xc093);
}

static void system_segments(void **state)
{
	protected_mode(0);
	store16(&cpu->r[REG_RAX], LDT_SEL);
	assert_int_equal(run_op(op_lldt, (struct soft_op){ 0 }), -1);
	assert_int_equal(cpu->s.seg[SEG_LDTR].base, LDT);
	/* A selector of the LDT. */
	store64(ram + LDT + 8, load64(ram + GDT + DATA0));
	store16(&cpu->r[REG_RAX], 0x0c);
	assert_int_equal(run_op(op_mov_to_seg, (struct soft_op){ .dst = SEG_ES }), -1);
	assert_int_equal(run_op(op_lldt, (struct soft_op){ 0 }), EXC_GP);
	store16(&cpu->r[REG_RAX], TSS32_B);
	assert_int_equal(run_op(op_ltr, (struct soft_op){ 0 }), -1);
	assert_int_equal(tss_type(TSS32_B), SYS_TSS32_BUSY);
	assert_int_equal(run_op(op_ltr, (struct soft_op){ 0 }), EXC_GP);
	store16(&cpu->r[REG_RAX], 0);
	assert_int_equal(run_op(op_ltr, (struct soft_op){ 0 }), EXC_GP);
	assert_int_equal(run_op(op_lldt, (struct soft_op){ 0 }), -1);
	assert_true(cpu->s.seg[SEG_LDTR].unusable);
}

/* ---- Interrupts between instructions -------------------------------------------------- */

static void nmi(void **state)
{
	protected_mode(0);
	atomic_store(&cpu->v->requests, VCPU_REQ_NMI);
	cpu->s.ss_shadow = 1;
	assert_false(soft_take_interrupt(cpu));
	cpu->s.ss_shadow = 0;
	cpu->s.halted = 1;
	assert_true(soft_take_interrupt(cpu));
	assert_int_equal(cpu->exc.vector, EXC_NMI);
	assert_true(deliver());
	assert_false(cpu->s.halted);
	/* Blocked until IRET; one is remembered. */
	atomic_store(&cpu->v->requests, VCPU_REQ_NMI);
	assert_false(soft_take_interrupt(cpu));
	assert_int_equal(cpu->s.nmi_pending, 1);
	assert_int_equal(run_op(op_iret, (struct soft_op){ 0 }), -1);
	assert_int_equal(atomic_load(&cpu->v->requests), VCPU_REQ_NMI);
	assert_true(soft_take_interrupt(cpu));
}

/* One that the processor has not looked at yet is part of its state, and of nobody else's. */
static void nmi_in_state(void **state)
{
	struct skep_error e = { .text = "" };
	struct cpu_arch_state s, t;

	protected_mode(0);
	soft_get_state(cpu, &t);
	assert_int_equal(t.nmi_pending, 0);
	atomic_store(&cpu->v->requests, VCPU_REQ_NMI);
	soft_get_state(cpu, &s);
	assert_int_equal(s.nmi_pending, 1);
	assert_int_equal(soft_set_state(cpu, &t, &e), 0);
	assert_false(soft_take_interrupt(cpu));
	assert_int_equal(soft_set_state(cpu, &s, &e), 0);
	assert_true(soft_take_interrupt(cpu));
	assert_int_equal(cpu->exc.vector, EXC_NMI);
}

static void masked(void **state)
{
	protected_mode(0);
	atomic_store(&cpu->v->requests, VCPU_REQ_INTR);
	assert_false(soft_take_interrupt(cpu));
	assert_int_equal(atomic_load(&cpu->v->requests), 0);
	assert_true(cpu->sys.intr_held);
	/* STI asks again, and casts its shadow. */
	assert_int_equal(run_op(op_sti, (struct soft_op){ .left = 3 }), -1);
	assert_int_equal(atomic_load(&cpu->v->requests), VCPU_REQ_INTR);
	assert_int_equal(cpu->s.sti_shadow, 1);
	assert_false(soft_take_interrupt(cpu));
	assert_int_equal(atomic_load(&cpu->v->requests), VCPU_REQ_INTR);
	/* Nothing waits and the next instruction is in the same block: no shadow is needed. */
	protected_mode(0);
	assert_int_equal(run_op(op_sti, (struct soft_op){ .left = 3 }), -1);
	assert_int_equal(cpu->s.sti_shadow, 0);
	protected_mode(0);
	assert_int_equal(run_op(op_sti, (struct soft_op){ .left = 0 }), -1);
	assert_int_equal(cpu->s.sti_shadow, 1);
}

/* ---- Debugging ------------------------------------------------------------------------- */

static void breakpoints(void **state)
{
	protected_mode(0);
	cpu->s.dr[0] = CODE;
	cpu->s.dr[1] = 0x5004;			/* 4 bytes, write */
	cpu->s.dr[2] = 0x5008;			/* 8 bytes, read or write */
	cpu->s.dr7 = DR7_FIXED | 1 | 4 | 16 | 0xdull << 20 | 0xbull << 24;
	assert_true(soft_wants_stepping(cpu));
	assert_true(soft_before_insn(cpu));
	assert_int_equal(cpu->sys.dr6, 1);
	cpu->s.rflags |= RFLAGS_RF;
	assert_false(soft_before_insn(cpu));
	assert_false(cpu->s.rflags & RFLAGS_RF);
	assert_true(soft_page_has_breakpoint(cpu, 0x5000));
	assert_false(soft_page_has_breakpoint(cpu, CODE & ~0xfffu));
	soft_data_breakpoint(cpu, 0x5003, 1, true);
	soft_data_breakpoint(cpu, 0x5004, 4, false);
	assert_int_equal(cpu->s.pending_dbg, 0);
	soft_data_breakpoint(cpu, 0x5007, 4, true);
	assert_int_equal(cpu->s.pending_dbg, 6);
	cpu->s.ss_shadow = 1;			/* MOV SS: later */
	assert_false(soft_after_insn(cpu));
	cpu->s.ss_shadow = 0;
	assert_true(soft_after_insn(cpu));
	assert_true(deliver());
	assert_int_equal(cpu->s.dr6, DR6_FIXED | 6);
	assert_int_equal(cpu->s.pending_dbg, 0);
}

static void debug_registers(void **state)
{
	protected_mode(0);
	cpu->r[REG_RAX] = 0xffffffff;
	assert_int_equal(run_op(op_mov_to_dr, (struct soft_op){ .dst = 6 }), -1);
	assert_int_equal(cpu->s.dr6, DR6_FIXED | DR6_WRITABLE | 0xffff0ff0);
	cpu->r[REG_RAX] = DR7_GD;
	assert_int_equal(run_op(op_mov_to_dr, (struct soft_op){ .dst = 5 }), -1);
	assert_int_equal(cpu->s.dr7, DR7_FIXED | DR7_GD);
	assert_int_equal(run_op(op_mov_from_dr, (struct soft_op){ .src = 0 }), EXC_DB);
	assert_true(deliver());
	assert_true(cpu->s.dr6 & DR6_BD);
	assert_false(cpu->s.dr7 & DR7_GD);
	cpu->s.cr4 |= CR4_DE;
	assert_int_equal(run_op(op_mov_from_dr, (struct soft_op){ .src = 4 }), EXC_UD);
	protected_mode(3);
	assert_int_equal(run_op(op_mov_from_dr, (struct soft_op){ .src = 0 }), EXC_GP);
}

/* ---- Blocks --------------------------------------------------------------------- */

/* What a test asks for is no more than there is room for. */
static void long_blocks(void **state)
{
	const struct soft_op *head;

	protected_mode(0);
	memset(ram + CODE, 0x90, 4096);
	cpu->test.block_insns = 255;
	head = soft_cache_find(cpu);
	assert_non_null(head);
	assert_int_equal(head->imm, BLOCK_MAX_INSNS);
	soft_cache_flush(cpu);
	cpu->test.block_insns = 3;
	head = soft_cache_find(cpu);
	assert_non_null(head);
	assert_int_equal(head->imm, 3);
	cpu->test.block_insns = 0;
	soft_cache_flush(cpu);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(long_blocks),
		cmocka_unit_test(same_privilege),
		cmocka_unit_test(inward_and_back),
		cmocka_unit_test(gate16),
		cmocka_unit_test(software_interrupts),
		cmocka_unit_test(double_faults),
		cmocka_unit_test(bad_inner_stack),
		cmocka_unit_test(real_mode),
		cmocka_unit_test(real_mode_segments),
		cmocka_unit_test(vm86),
		cmocka_unit_test(far_direct),
		cmocka_unit_test(call_gates),
		cmocka_unit_test(iret_checks),
		cmocka_unit_test(task_jump),
		cmocka_unit_test(task_call_and_return),
		cmocka_unit_test(task16),
		cmocka_unit_test(task_faults),
		cmocka_unit_test(segment_loads),
		cmocka_unit_test(system_segments),
		cmocka_unit_test(nmi),
		cmocka_unit_test(nmi_in_state),
		cmocka_unit_test(masked),
		cmocka_unit_test(breakpoints),
		cmocka_unit_test(debug_registers),
	};

	return cmocka_run_group_tests_name("system instructions", tests, soft_setup, soft_teardown);
}
