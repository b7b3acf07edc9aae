/*
 * The translator from inside: what it writes, where it writes it, and what becomes of blocks when
 * their memory is wanted again.  What translated code does is for guests/, diff/ and lockstep/.
 */
#include "soft_helper.h"

#include <errno.h>
#include <sys/mman.h>

#include "cpu/soft/jit/inside.h"

/* A host that forbids executable memory. */
static bool no_code;

void *__real_mmap64(void *at, size_t len, int prot, int flags, int fd, off_t offset);
void *__wrap_mmap64(void *at, size_t len, int prot, int flags, int fd, off_t offset);
void *__wrap_mmap64(void *at, size_t len, int prot, int flags, int fd, off_t offset)
{
	if (no_code && prot & PROT_EXEC) {
		errno = EACCES;
		return MAP_FAILED;
	}
	return __real_mmap64(at, len, prot, flags, fd, offset);
}

static uint64_t seed = 1;

static uint32_t any(void)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return (uint32_t)(seed >> 16);
}

static int32_t any_disp(void)
{
	static const int32_t edge[] = { 0, 1, -1, 127, -128, 128, -129, INT32_MAX, INT32_MIN };

	return any() & 1 ? edge[any() % ARRAY_SIZE(edge)] : (int32_t)any();
}

/* ---- Instructions ------------------------------------------------------------------ */

static ZydisDecodedInstruction in;
static ZydisDecodedOperand op[ZYDIS_MAX_OPERAND_COUNT];
static uint8_t code[64];

static struct emit begin(void)
{
	memset(code, 0xcc, sizeof(code));
	return (struct emit){ .at = code, .end = code + sizeof(code) };
}

/* All that was written is one instruction. */
static void decode_written(const struct emit *e)
{
	ZydisDecoder z;

	ZydisDecoderInit(&z, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
	assert_true(ZYAN_SUCCESS(ZydisDecoderDecodeFull(&z, code, sizeof(code), &in, op)));
	assert_int_equal(in.length, e->at - code);
}

static ZydisRegister wide(unsigned n)
{
	return (ZydisRegister)(ZYDIS_REGISTER_RAX + n);
}

static ZydisRegister sized(unsigned n, unsigned size)
{
	switch (size) {
	case 1: return (ZydisRegister)(n < 4 ? ZYDIS_REGISTER_AL + n : ZYDIS_REGISTER_SPL + n - 4);
	case 2: return (ZydisRegister)(ZYDIS_REGISTER_AX + n);
	case 4: return (ZydisRegister)(ZYDIS_REGISTER_EAX + n);
	default: return wide(n);
	}
}

static void memory_is(const ZydisDecodedOperand *o, const struct emit_insn *i, unsigned size)
{
	bool sib = i->kind == RM_SIB, gs = i->kind == RM_GS;

	assert_int_equal(o->type, ZYDIS_OPERAND_TYPE_MEMORY);
	assert_int_equal(o->size, size * 8);
	assert_int_equal(o->mem.segment == ZYDIS_REGISTER_GS, gs);
	assert_int_equal(o->mem.base, gs || i->rm < 0 ? ZYDIS_REGISTER_NONE : wide((unsigned)i->rm));
	assert_int_equal(o->mem.index, sib ? wide((unsigned)i->index) : ZYDIS_REGISTER_NONE);
	if (sib)
		assert_int_equal(o->mem.scale, 1 << i->scale);
	assert_true(o->mem.disp.value == i->disp);
}

/* A random place for an operand. */
static void any_place(struct emit_insn *i)
{
	i->kind = (enum emit_rm)(RM_REG + any() % 4);
	i->rm = (int8_t)(any() & 15);
	if (i->kind == RM_SIB && !(any() & 3))
		i->rm = -1;
	do {
		i->index = (int8_t)(any() & 15);
	} while (i->index == RSP);
	i->scale = any() & 3;
	i->disp = any_disp();
}

static void any_size(struct emit_insn *i, unsigned size)
{
	i->p66 = size == 2;
	i->w = size == 8;
	i->rex = size == 1;
}

static void operands(void **state)
{
	for (unsigned n = 0; n < 200000; n++) {
		unsigned size = 1u << (any() & 3);
		bool load = any() & 1;
		struct emit e = begin();
		struct emit_insn i = { .op = (uint8_t)(0x88 | load << 1 | (size > 1)),
				       .reg = (int8_t)(any() & 15) };
		const ZydisDecodedOperand *reg = &op[!load], *rm = &op[load];

		any_place(&i);
		any_size(&i, size);
		emit_insn(&e, &i);
		decode_written(&e);
		assert_int_equal(in.mnemonic, ZYDIS_MNEMONIC_MOV);
		assert_int_equal(reg->reg.value, sized((unsigned)i.reg, size));
		if (i.kind == RM_REG)
			assert_int_equal(rm->reg.value, sized((unsigned)i.rm, size));
		else
			memory_is(rm, &i, size);
	}
}

static void prefixes_maps_and_immediates(void **state)
{
	for (unsigned n = 0; n < 100000; n++) {
		static const struct {
			ZydisMnemonic mnemonic;
			uint8_t map, op, rep, imm_size, size;
			bool p66, lock;
		} t[] = {
			{ ZYDIS_MNEMONIC_MOVAPS, 1, 0x28, 0, 0, 16, false, false },
			{ ZYDIS_MNEMONIC_MOVDQU, 1, 0x6f, 0xf3, 0, 16, false, false },
			{ ZYDIS_MNEMONIC_ADDSD, 1, 0x58, 0xf2, 0, 8, false, false },
			{ ZYDIS_MNEMONIC_PSHUFB, 2, 0x00, 0, 0, 16, true, false },
			{ ZYDIS_MNEMONIC_PALIGNR, 3, 0x0f, 0, 1, 16, true, false },
			{ ZYDIS_MNEMONIC_CRC32, 2, 0xf1, 0xf2, 0, 4, false, false },
			{ ZYDIS_MNEMONIC_IMUL, 0, 0x69, 0, 4, 4, false, false },
			{ ZYDIS_MNEMONIC_XADD, 1, 0xc1, 0, 0, 4, false, true },
		};
		unsigned k = any() % ARRAY_SIZE(t);
		struct emit e = begin();
		struct emit_insn i = { .op = t[k].op, .map = t[k].map, .rep = t[k].rep, .p66 = t[k].p66,
				       .lock = t[k].lock, .reg = (int8_t)(any() & 15),
				       .imm = any() & 0x7f, .imm_size = t[k].imm_size };

		do {
			any_place(&i);
		} while (i.kind == RM_REG);
		emit_insn(&e, &i);
		decode_written(&e);
		assert_int_equal(in.mnemonic, t[k].mnemonic);
		assert_int_equal(!!(in.attributes & ZYDIS_ATTRIB_HAS_LOCK), t[k].lock);
		memory_is(&op[!t[k].lock], &i, t[k].size);
		assert_int_equal(ZydisRegisterGetId(op[t[k].lock].reg.value), i.reg);
		if (i.imm_size)
			assert_int_equal(op[2].imm.value.u, i.imm);
	}
}

static void what_the_translator_needs(void **state)
{
	for (unsigned n = 0; n < 100000; n++) {
		int a = (int)(any() & 15), b = (int)(any() & 15), x;
		int32_t d = any_disp();
		uint64_t v = (uint64_t)any_disp() << (any() & 32) ^ (uint64_t)(int64_t)any_disp();
		unsigned digit = any() & 7;
		bool w = any() & 1;
		struct emit e = begin();
		static const ZydisMnemonic alu[] = {
			ZYDIS_MNEMONIC_ADD, ZYDIS_MNEMONIC_OR, ZYDIS_MNEMONIC_ADC, ZYDIS_MNEMONIC_SBB,
			ZYDIS_MNEMONIC_AND, ZYDIS_MNEMONIC_SUB, ZYDIS_MNEMONIC_XOR, ZYDIS_MNEMONIC_CMP,
		};

		emit_mov_imm(&e, a, v);
		decode_written(&e);
		assert_int_equal(ZydisRegisterGetId(op[0].reg.value), a);
		/* A 32-bit register takes zeroes above. */
		assert_true((op[0].size == 32 ? (uint32_t)op[1].imm.value.u : op[1].imm.value.u) == v);
		e = begin();
		emit_alu_imm(&e, w, digit, a, d);
		decode_written(&e);
		assert_int_equal(in.mnemonic, alu[digit]);
		assert_int_equal(op[0].reg.value, sized((unsigned)a, w ? 8 : 4));
		assert_int_equal((int32_t)op[1].imm.value.s, d);
		e = begin();
		x = any() & 1 ? -1 : (int)(any() % 4);
		emit_lea(&e, a, b, x, 3, d);
		decode_written(&e);
		assert_int_equal(in.mnemonic, ZYDIS_MNEMONIC_LEA);
		assert_int_equal(op[0].reg.value, wide((unsigned)a));
		assert_int_equal(op[1].mem.base, wide((unsigned)b));
		assert_int_equal(op[1].mem.index, x < 0 ? ZYDIS_REGISTER_NONE : wide((unsigned)x));
		assert_true(op[1].mem.disp.value == d);
	}
}

/* A displacement counts from where the code runs, which is not where it is written. */
static void branches(void **state)
{
	for (unsigned kind = 0; kind <= EMIT_CALL; kind++) {
		struct emit e = begin();
		const uint8_t *target, *other;
		uint8_t *site;
		ZyanU64 to;

		e.delta = 0x1234560;
		target = (const uint8_t *)((uintptr_t)code + 0x1230000);
		other = (const uint8_t *)((uintptr_t)code + 0x1bcdef0);
		site = emit_branch(&e, kind, target);
		decode_written(&e);
		assert_true(site + 4 == e.at);
		assert_int_equal(in.meta.category, kind == EMIT_JMP ? ZYDIS_CATEGORY_UNCOND_BR :
				 kind == EMIT_CALL ? ZYDIS_CATEGORY_CALL : ZYDIS_CATEGORY_COND_BR);
		if (kind < EMIT_JMP)
			assert_int_equal(in.opcode & 15, kind);
		for (unsigned i = 0; i < 2; i++) {
			assert_true(ZYAN_SUCCESS(ZydisCalcAbsoluteAddress(&in, &op[0],
						 (uintptr_t)code + (uintptr_t)e.delta, &to)));
			assert_true(to == (uintptr_t)(i ? other : target));
			emit_patch(&e, site, other);
			decode_written(&e);
		}
	}
}

/* ---- Memory ------------------------------------------------------------------------ */

/* What /proc says of the mapping that holds p: "r-xs" and the like. */
static void permissions(const void *p, char out[5])
{
	FILE *f = fopen("/proc/self/maps", "re");
	unsigned long from, to;
	char line[512];

	assert_non_null(f);
	out[0] = '\0';
	while (!out[0] && fgets(line, sizeof(line), f))
		if (sscanf(line, "%lx-%lx %4s", &from, &to, out) != 3 || (uintptr_t)p < from ||
		    (uintptr_t)p >= to)
			out[0] = '\0';
	fclose(f);
}

static void never_both(void **state)
{
	struct code_memory m;
	struct skep_error e = { .text = "" };
	char p[5];

	assert_int_equal(code_memory_create(&m, 3 * 4096, &e), 0);
	assert_int_equal(m.size, 3 * 4096);
	for (size_t at = 0; at < m.size; at += 4095) {
		permissions(m.write + at, p);
		assert_string_equal(p, "rw-s");
		permissions(m.run + at, p);
		assert_string_equal(p, "r-xs");
		m.write[at] = (uint8_t)(at + 1);
		assert_int_equal(m.run[at], (uint8_t)(at + 1));
	}
	code_memory_destroy(&m);
	assert_null(m.run);
	code_memory_destroy(&m);
}

/* The translator's own, and all of the process with it. */
static void nothing_both(void **state)
{
	FILE *f = fopen("/proc/self/maps", "re");
	char line[512], p[5];

	permissions(cpu->jit->code.run, p);
	assert_string_equal(p, "r-xs");
	permissions(cpu->jit->code.write, p);
	assert_string_equal(p, "rw-s");
	assert_non_null(f);
	while (fgets(line, sizeof(line), f))
		if (sscanf(line, "%*x-%*x %4s", p) == 1 && p[1] == 'w' && p[2] == 'x')
			fail_msg("both writable and executable: %s", line);
	fclose(f);
}

/* A second processor of this tier. */
static struct vcpu *another(const char *tier, struct skep_error *e)
{
	e->text[0] = '\0';
	assert_int_equal(config_set(machine->config, "soft.tier", tier, NULL, e), 0);
	return vcpu_create(machine, 1, &vcpu_soft_ops, e);
}

static void forbidden(void **state)
{
	struct skep_error e;
	struct code_memory m;
	struct vcpu *v;

	no_code = true;
	assert_int_equal(code_memory_create(&m, 4096, &e), -EACCES);
	assert_null(m.write);
	v = another("translator", &e);
	assert_null(v);
	assert_non_null(strstr(e.text, "no memory for translated code"));
	assert_non_null(strstr(e.text, "soft.tier=interpreter"));
	v = another("auto", &e);
	assert_non_null(v);
	assert_null(((struct soft_cpu *)v->backend)->jit);
	vcpu_destroy(v);
	no_code = false;
	v = another("auto", &e);
	assert_non_null(v);
	assert_non_null(((struct soft_cpu *)v->backend)->jit);
	vcpu_destroy(v);
	v = another("interpreter", &e);
	assert_non_null(v);
	assert_null(((struct soft_cpu *)v->backend)->jit);
	vcpu_destroy(v);
}

/* ---- Blocks ------------------------------------------------------------------------ */

#define PAGE 4096

static unsigned counted(_Atomic uint64_t *n)
{
	return (unsigned)atomic_load(n);
}

static void long_mode(void)
{
	cpu->mode = MODE_CS64 | MODE_LMA | MODE_PE;
}

static struct soft_op new_head(void)
{
	return (struct soft_op){ .fn = op_head };
}

/* No two regions overlap, and the one being filled has not been left. */
static void within_region(void)
{
	struct soft_jit *j = cpu->jit;
	uint8_t *start = j->code.write + JIT_THUNKS_SIZE + (size_t)j->region * JIT_REGION_SIZE;

	assert_true(j->e.at >= start && j->e.at <= j->e.end && j->e.end == start + JIT_REGION_SIZE);
	assert_true(j->e.end <= j->code.write + j->code.size);
}

/* 64 instructions that each have a memory access of their own, which make long code. */
static unsigned long_block(uint8_t *bytes)
{
	/* adc qword [r13 + r14 * 8 + disp32], r15: nothing has a register, and the flags are needed. */
	static const uint8_t adc[] = { 0x4f, 0x11, 0xbc, 0xf5, 0, 0, 0, 0 };

	for (unsigned i = 0; i < JIT_MAX_INSNS; i++) {
		memcpy(bytes + i * sizeof(adc), adc, sizeof(adc));
		store32(bytes + i * sizeof(adc) + 4, i * 4096);
	}
	return JIT_MAX_INSNS * sizeof(adc);
}

static void regions_are_given_up(void **state)
{
	enum { N = 9000 };
	struct soft_op *head = calloc(N, sizeof(*head));
	uint8_t bytes[PAGE];
	unsigned nbytes = long_block(bytes), evicted, killed = 0, live = 0;
	uint64_t written, before = counted(&cpu->stats.translator_evictions);

	assert_non_null(head);
	long_mode();
	for (unsigned i = 0; i < N; i++) {
		head[i] = new_head();
		soft_jit_translate(cpu, bytes, nbytes, 0, &head[i]);
		assert_ptr_equal(head[i].fn, op_head_jit);
		within_region();
		/* What was written over has no head any more. */
		if (i % 10 == 9) {
			soft_jit_kill(cpu, &head[i]);
			head[i].fn = op_stale_head;
			killed++;
		}
	}
	written = atomic_load(&cpu->stats.translator_code_bytes);
	assert_true(written > (uint64_t)JIT_REGIONS * JIT_REGION_SIZE);
	evicted = counted(&cpu->stats.translator_evictions) - (unsigned)before;
	assert_true(evicted > 0);
	for (unsigned i = 0; i < N; i++) {
		if (head[i].fn == op_head_jit)
			live++;
		else if (i % 10 == 9)
			assert_ptr_equal(head[i].fn, op_stale_head);
		else
			assert_true(head[i].fn == op_head && head[i].disp == (int32_t)cpu->jit->threshold);
	}
	/* The oldest are gone, the newest are not. */
	assert_ptr_equal(head[0].fn, op_head);
	assert_ptr_equal(head[N - 2].fn, op_head_jit);
	assert_int_equal(live + killed + evicted, N);
	soft_jit_flush(cpu);
	for (unsigned i = 0; i < JIT_REGIONS; i++)
		assert_null(cpu->jit->blocks[i]);
	assert_int_equal(cpu->jit->region, 0);
	within_region();
	free(head);
}

/* A flush is short whatever there is to forget: memory is given back while new blocks are made. */
static void freed_by_and_by(void **state)
{
	enum { N = 1000 };
	struct soft_op *head = calloc(N, sizeof(*head));
	struct soft_jit *j = cpu->jit;
	unsigned doomed = 0;

	assert_non_null(head);
	long_mode();
	for (unsigned round = 0; round < 3; round++) {
		for (unsigned i = 0; i < N; i++) {
			head[i] = new_head();
			soft_jit_translate(cpu, (const uint8_t *)"\x90\xc3", 2, 0, &head[i]);
			assert_ptr_equal(head[i].fn, op_head_jit);
		}
		assert_null(j->doomed);
		/* Those of the round before have been used again. */
		assert_true(j->npool <= 2 * N);
		soft_jit_flush(cpu);
		doomed = 0;
		for (const struct jit_block *b = j->doomed; b; b = b->next)
			doomed++;
		assert_int_equal(doomed, N);
	}
	free(head);
}

/* Whatever the bytes are, a block keeps to the room that is set aside for it. */
static void within_bounds(const uint8_t *bytes, unsigned nbytes, unsigned ip)
{
	struct soft_jit *j = cpu->jit;
	struct soft_op head = new_head();
	uint64_t before = atomic_load(&cpu->stats.translator_code_bytes);

	soft_jit_translate(cpu, bytes, nbytes, ip, &head);
	within_region();
	if (head.fn != op_head_jit)
		return;
	assert_true(atomic_load(&cpu->stats.translator_code_bytes) - before < JIT_BLOCK_ROOM);
	assert_true(j->t->ninsns > 0 && j->t->ninsns <= JIT_MAX_INSNS);
	assert_true(j->t->nlinks <= ARRAY_SIZE(j->t->links));
	assert_true(j->t->nrefills <= ARRAY_SIZE(j->t->refill));
	assert_true(j->t->ndetours <= JIT_DETOURS(JIT_MAX_INSNS));
	assert_true(j->t->nops <= ARRAY_SIZE(j->t->ops));
	assert_true(j->t->end_ip <= ip + nbytes);
	soft_jit_kill(cpu, &head);
}

static void hostile_code(void **state)
{
	static const uint8_t prefix[] = { 0x66, 0xf2, 0xf3, 0xf0, 0x48, 0x41, 0x4d, 0x0f };
	static const uint8_t plain[] = { 0x01, 0x8b, 0x89, 0x50, 0x58, 0x75, 0x74, 0xff, 0x83, 0x81, 0x11 };
	uint8_t bytes[PAGE];

	long_mode();
	for (unsigned n = 0; n < 20000; n++) {
		unsigned ip = any() % PAGE, nbytes = MIN(1 + any() % 512, PAGE - ip);

		for (unsigned i = 0; i < nbytes; i++)
			bytes[i] = any() % 3 ? (uint8_t)any() : any() & 1 ? prefix[any() % sizeof(prefix)] :
				   plain[any() % sizeof(plain)];
		within_bounds(bytes, nbytes, ip);
	}
	/* Each may be left by a jump, and all of it stands twice: a loop. */
	for (unsigned i = 0; i < JIT_MAX_INSNS - 2; i++)
		memcpy(bytes + i * 6, "\x0f\x84\x00\x00\x10\x00", 6);		/* jz +1 MiB */
	memcpy(bytes + (JIT_MAX_INSNS - 2) * 6, "\x39\xd8\x0f\x85", 4);		/* cmp; jnz to the first */
	store32(bytes + (JIT_MAX_INSNS - 2) * 6 + 4, (uint32_t)-(int32_t)((JIT_MAX_INSNS - 2) * 6 + 8));
	within_bounds(bytes, (JIT_MAX_INSNS - 2) * 6 + 8, 0);
	assert_int_equal(cpu->jit->t->ninsns, JIT_MAX_INSNS);
	assert_non_null(cpu->jit->t->loop);
	/* The longest code in a loop. */
	long_block(bytes);
	memcpy(bytes + (JIT_MAX_INSNS - 2) * 8, "\x39\xd8\x0f\x85", 4);
	store32(bytes + (JIT_MAX_INSNS - 2) * 8 + 4, (uint32_t)-(int32_t)((JIT_MAX_INSNS - 2) * 8 + 8));
	within_bounds(bytes, (JIT_MAX_INSNS - 2) * 8 + 8, 0);
	assert_non_null(cpu->jit->t->loop);
	soft_jit_flush(cpu);
}

/* ---- Keys -------------------------------------------------------------------------- */

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(operands),
		cmocka_unit_test(prefixes_maps_and_immediates),
		cmocka_unit_test(what_the_translator_needs),
		cmocka_unit_test(branches),
		cmocka_unit_test(never_both),
		cmocka_unit_test_setup_teardown(nothing_both, soft_setup, soft_teardown),
		cmocka_unit_test_setup_teardown(forbidden, soft_setup, soft_teardown),
		cmocka_unit_test_setup_teardown(regions_are_given_up, soft_setup, soft_teardown),
		cmocka_unit_test_setup_teardown(freed_by_and_by, soft_setup, soft_teardown),
		cmocka_unit_test_setup_teardown(hostile_code, soft_setup, soft_teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
