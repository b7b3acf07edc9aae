/*
 * SSE, MMX and x87 of the soft processor against the host's own: each
 * instruction is executed by both on the same random and awkward operands, and
 * everything that it can change is compared.
 */
#include "soft_fpu.h"

/* ---- Random operands ----------------------------------------------------------- */

static uint64_t seed = 0x9e3779b97f4a7c15ull;

static uint64_t rnd(void)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return seed * 0x2545f4914f6cdd1dull;
}

static uint32_t awkward32(void)
{
	static const uint32_t v[] = {
		0, 0x80000000, 0x3f800000, 0xbf800000, 0x7f800000, 0xff800000, 0x7fc00000,
		0xffc00000, 0x7f800001, 0xff812345, 0x00000001, 0x807fffff, 0x00800000, 0x7f7fffff,
		0x4f000000, 0xcf000000, 0x4effffff, 0x3f000000, 0x40200000, 0x0c000000, 0x1f800000,
		0x5f000000, 0xdf000000, 0x3fc00000, 0x34000000,
	};

	switch (rnd() % 4) {
	case 0: return (uint32_t)rnd();
	case 1: return (uint32_t)(rnd() & 0x807fffff) | (uint32_t)(120 + rnd() % 16) << 23;
	default: return v[rnd() % ARRAY_SIZE(v)];
	}
}

static uint64_t awkward64(void)
{
	static const uint64_t v[] = {
		0, 0x8000000000000000, 0x3ff0000000000000, 0xbff0000000000000, 0x7ff0000000000000,
		0xfff0000000000000, 0x7ff8000000000000, 0xfff8000000000001, 0x7ff0000000000001,
		0xfff4000000000000, 1, 0x800fffffffffffff, 0x0010000000000000, 0x7fefffffffffffff,
		0x41dfffffffc00000, 0x41e0000000000000, 0xc1e0000000000000, 0x43e0000000000000,
		0xc3e0000000000000, 0x3fe0000000000000, 0x4004000000000000, 0x47efffffffffffff,
		0x36a0000000000000, 0x3800000000000000, 0x0000000100000000, 0x3cb0000000000000,
		0x1e60000000000000,
	};

	switch (rnd() % 5) {
	case 0: return rnd();
	case 1: return (rnd() & 0x800fffffffffffff) | (1016 + rnd() % 16) << 52;
	case 2: return (uint64_t)awkward32() << 32 | awkward32();
	default: return v[rnd() % ARRAY_SIZE(v)];
	}
}

static void awkward80(uint8_t *p)
{
	static const uint64_t sig[] = {
		0, 0x8000000000000000, 0xffffffffffffffff, 0xc000000000000000, 0x8000000000000001,
		1, 0x4000000000000000, 0xa000000000000000, 0x7fffffffffffffff, 0xfffffffffffff800,
		0xffffff0000000000,
	};
	static const uint16_t exp[] = {
		0, 0, 1, 0x3fff, 0x3ffe, 0x4000, 0x3fbf, 0x403d, 0x403e, 0x403f, 0x7ffe, 0x7fff,
		0x7fff, 0x400e, 0x401e, 0x3f81, 0x3c01, 0x407f, 0x43ff, 0x3f80, 0x3c00, 0x1fff,
		0x5fff,
	};

	store64(p, rnd() % 2 ? sig[rnd() % ARRAY_SIZE(sig)] : rnd() | 1ull << 63);
	store16(p + 8, (uint16_t)((rnd() % 3 ? exp[rnd() % ARRAY_SIZE(exp)] : rnd() % 0x8000) |
				  (rnd() & 0x8000)));
	if (rnd() % 4 == 0) {	/* a number of ordinary size */
		store64(p, rnd() | 1ull << 63);
		store16(p + 8, (uint16_t)((0x3ff0 + rnd() % 80) | (rnd() & 0x8000)));
	}
}

/* ---- The host's processor --------------------------------------------------------- */

struct native {
	_Alignas(16) uint8_t in[512];
	uint8_t out[512];
	uint64_t rax, rcx, rdx, rsi, rdi, flags;
	void *code;
};

void native_run(struct native *n);
asm(".text\n"
    "native_run:\n"
    "	push %rbx\n	push %rbp\n	push %r15\n"
    "	mov %rdi, %r15\n"
    "	fxrstor64 (%r15)\n"
    "	push 1064(%r15)\n"
    "	mov 1024(%r15), %rax\n	mov 1032(%r15), %rcx\n	mov 1040(%r15), %rdx\n"
    "	mov 1048(%r15), %rsi\n	mov 1056(%r15), %rdi\n"
    "	popfq\n"
    "	call *1072(%r15)\n"
    "	pushfq\n	pop 1064(%r15)\n"
    "	fxsave64 512(%r15)\n"
    "	mov %rax, 1024(%r15)\n	mov %rcx, 1032(%r15)\n	mov %rdx, 1040(%r15)\n"
    "	pop %r15\n	pop %rbp\n	pop %rbx\n"
    "	ret\n");
_Static_assert(offsetof(struct native, rax) == 1024 && offsetof(struct native, code) == 1072,
	       "native_run knows the offsets");

static uint8_t *code_page;
static sigjmp_buf trapped;
static struct _libc_fpstate trapped_state;

static void on_sigfpe(int sig, siginfo_t *info, void *context)
{
	ucontext_t *u = context;

	memcpy(&trapped_state, u->uc_mcontext.fpregs, sizeof trapped_state);
	siglongjmp(trapped, 1);
}

static _Alignas(64) uint8_t host_mem[1024];

/* False: it trapped; then the state before it, with its MXCSR, is in n->out. */
static bool run_native(struct native *n, const uint8_t *insn, unsigned len)
{
	volatile bool ok = true;

	memcpy(code_page, insn, len);
	code_page[len] = 0xc3;
	n->code = code_page;
	n->rsi = (uintptr_t)host_mem;
	n->rdi = (uintptr_t)host_mem + 64;
	if (sigsetjmp(trapped, 1) == 0) {
		native_run(n);
	} else {
		memcpy(n->out, &trapped_state, 416);
		ok = false;
	}
	host_fpu_default();
	return ok;
}

/* ---- Comparing ------------------------------------------------------------------------ */

static void cpu_to_image(uint8_t *out)
{
	const struct cpu_fpu *f = &cpu->s.fpu;
	unsigned i;

	memset(out, 0, 512);
	store16(out, f->fcw);
	store16(out + 2, f->fsw);
	out[4] = f->ftw;
	store32(out + 24, f->mxcsr);
	for (i = 0; i < 8; i++)
		memcpy(out + 32 + 16 * i, x87_st(cpu, i), 10);
	memcpy(out + 160, f->xmm, 256);
}

static void random_state(struct native *n, bool unmask_x87, bool unmask_sse)
{
	unsigned i;
	uint16_t fcw = 0x7f;

	memset(n, 0, sizeof *n);
	fcw |= (uint16_t)((rnd() & 3) << 10);			/* rounding */
	fcw |= (uint16_t)((uint16_t[]){ 0, 2, 3, 3, 3 }[rnd() % 5] << 8);	/* precision */
	if (unmask_x87)
		fcw &= (uint16_t)~(rnd() & 0x3f);
	store16(n->in, fcw);
	/* Sticky flags only of what is masked, or an exception would be pending. */
	store16(n->in + 2, (uint16_t)((rnd() & 0x7f00) | (rnd() & fcw & 0x3f) |
				      (rnd() & fcw & 1 ? 0x41 : 0)));
	n->in[4] = (uint8_t)(rnd() % 4 == 0 ? rnd() : rnd() % 4 == 1 ? 0xffull :
			     0xffull << (rnd() % 8));
	if (rnd() % 2) {
		/* The usual: a few registers from TOP up are in use. */
		unsigned top = load16(n->in + 2) >> 11 & 7, used = 2 + rnd() % 5, v = 0;

		for (i = 0; i < used; i++)
			v |= 1u << ((top + i) & 7);
		n->in[4] = (uint8_t)v;
	}
	for (i = 0; i < 8; i++)
		awkward80(n->in + 32 + 16 * i);
	for (i = 0; i < 32; i++)
		store64(n->in + 160 + 8 * i, awkward64());
	store32(n->in + 24, (uint32_t)(0x1f80 | (rnd() & 0x6000) | (rnd() & 0x3f) |
				       (rnd() % 4 ? 0 : rnd() & 0x8040)));
	if (unmask_sse)
		store32(n->in + 24, load32(n->in + 24) & ~(uint32_t)(rnd() & 0x1f80) & ~0x3fu);
	n->rax = rnd() % 2 ? rnd() : rnd() % 40 - 20;
	n->rcx = awkward64();
	n->rdx = rnd() % 2 ? rnd() : rnd() % 40 - 20;
	n->flags = 2 | (rnd() & 0x8d5);
	for (i = 0; i < sizeof host_mem; i += 8)
		store64(host_mem + i, awkward64());
	if (rnd() % 3 == 0)
		awkward80(host_mem);
	if (rnd() % 4 == 0)
		for (i = 0; i < 9; i++)		/* packed decimal */
			host_mem[i] = (uint8_t)(rnd() % 10 << 4 | rnd() % 10);
}

static void state_to_cpu(const struct native *n)
{
	memset(guest_page, 0xee, sizeof guest_page);
	memcpy(guest_page, host_mem, sizeof host_mem);
	image_to_cpu(n->in);
	soft_update_mode(cpu);
	cpu->r[REG_RAX] = n->rax;
	cpu->r[REG_RCX] = n->rcx;
	cpu->r[REG_RDX] = n->rdx;
	cpu->r[REG_RSI] = LIN;
	cpu->r[REG_RDI] = LIN + 64;
	cpu->cc = soft_cc_from_rflags(n->flags);
}

/*
 * Where the SDM leaves condition codes undefined we do as Intel's processors do;
 * on others C0-C3 are not compared.
 */
static unsigned fsw_high = 0xff;

static unsigned failures, same, tried;
static ZydisMnemonic last;

static void explain(const char *what, const struct decoded *x, const uint8_t *insn,
		    const struct native *n, const uint8_t *soft, unsigned at)
{
	ZydisFormatter f;
	char text[96];
	unsigned i;

	/* Three of each instruction tell enough. */
	failures++;
	same = x->insn.mnemonic == last ? same + 1 : 0;
	last = x->insn.mnemonic;
	if (same > 2)
		return;
	ZydisFormatterInit(&f, ZYDIS_FORMATTER_STYLE_INTEL);
	ZydisFormatterFormatInstruction(&f, &x->insn, x->op, x->insn.operand_count_visible, text,
					sizeof text, 0, NULL);
	print_error("%s: %s differ at %u; fcw %04x fsw %04x ftw %02x mxcsr %04x -> "
		    "host fsw %04x ftw %02x mxcsr %04x, soft fsw %04x ftw %02x mxcsr %04x\n",
		    text, what, at, load16(n->in), load16(n->in + 2), n->in[4],
		    load32(n->in + 24), load16(n->out + 2), n->out[4], load32(n->out + 24),
		    load16(soft + 2), soft[4], load32(soft + 24));
	for (i = 0; i < 3 && at >= 32; i++) {
		const uint8_t *p = i == 0 ? n->in : i == 1 ? n->out : soft;
		unsigned a = at & ~15u;

		print_error("  %s %016lx %016lx\n", i == 0 ? "in  " : i == 1 ? "host" : "soft",
			    load64(p + a + 8), load64(p + a));
	}
	print_error("  st0 %04x:%016lx st1 %04x:%016lx mem %016lx %016lx\n", load16(n->in + 40),
		    load64(n->in + 32), load16(n->in + 56), load64(n->in + 48),
		    load64(host_mem + 8), load64(host_mem));
}

/* FIP, FDP and FOP are not the same thing on the host; RSVD bytes are not compared. */
static bool compared(unsigned i)
{
	if (i >= 6 && i < 24)
		return false;
	if (i >= 28 && i < 32)
		return false;
	return i < 32 || i >= 160 || (i & 15) < 10;
}

static void compare(const struct decoded *x, const uint8_t *insn, const struct native *n,
		    uint64_t flags_mask)
{
	uint8_t soft[512];
	unsigned i;
	uint64_t flags = soft_status_flags(cpu);

	cpu_to_image(soft);
	for (i = 0; i < 416; i++)
		if (compared(i) && ((soft[i] ^ n->out[i]) & (i == 3 ? fsw_high : 0xff))) {
			explain("registers", x, insn, n, soft, i);
			return;
		}
	if (cpu->r[REG_RAX] != n->rax || cpu->r[REG_RCX] != n->rcx || cpu->r[REG_RDX] != n->rdx)
		explain("general registers", x, insn, n, soft, 0);
	else if ((flags ^ n->flags) & flags_mask)
		explain("flags", x, insn, n, soft, (unsigned)flags);
	for (i = 0; i < sizeof host_mem; i++)
		if (guest_page[i] != host_mem[i]) {
			explain("memory", x, insn, n, soft, i);
			return;
		}
}

#define STATUS 0x8d5ull

/* One instruction on one random state. */
static void try(const uint8_t *insn, unsigned len, bool unmask_x87, bool unmask_sse)
{
	static struct native n;
	struct decoded x;
	bool native_ok, soft_ok;

	random_state(&n, unmask_x87, unmask_sse);
	state_to_cpu(&n);
	if (!decode(&x, insn, len))
		return;
	soft_ok = run_soft(&x);
	native_ok = run_native(&n, insn, len);
	if (soft_ok != native_ok) {
		uint8_t soft[512];

		cpu_to_image(soft);
		explain(soft_ok ? "host trapped" : "soft raised", &x, insn, &n, soft,
			raised_vector);
		return;
	}
	compare(&x, insn, &n, STATUS);
	tried++;
}

static int setup(void **state)
{
	code_page = mmap(NULL, PAGE, PROT_READ | PROT_WRITE | PROT_EXEC,
			 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	assert_true(code_page != MAP_FAILED);
	cpu_create();
	if (!__builtin_cpu_is("intel"))
		fsw_high = 0xb8;
	return 0;
}

static int teardown(void **state)
{
	munmap(code_page, PAGE);
	free(cpu);
	return 0;
}

/* ---- x87 ------------------------------------------------------------------------------ */

/* Instructions with images of pointers or whole environments in them have tests of their own. */
static bool has_image(unsigned opcode, unsigned modrm)
{
	unsigned reg = modrm >> 3 & 7;

	return modrm < 0xc0 && ((opcode == 0xd9 && (reg == 4 || reg == 6)) ||
				(opcode == 0xdd && (reg == 4 || reg == 6)));
}

static void all_x87(unsigned rounds, bool unmask)
{
	unsigned opcode, m, r;

	failures = host_dirty = tried = 0;
	for (opcode = 0xd8; opcode <= 0xdf; opcode++)
		for (m = 0; m < 8 + 64; m++) {
			uint8_t insn[2] = { (uint8_t)opcode,
					    (uint8_t)(m < 8 ? m << 3 | 6 : 0xc0 + m - 8) };

			if (has_image(opcode, insn[1]))
				continue;
			for (r = 0; r < rounds; r++)
				try(insn, 2, unmask, false);
		}
	assert_int_equal(failures, 0);
	assert_int_equal(host_dirty, 0);
	assert_true(tried > 100000);
}

static void x87_masked(void **state)
{
	all_x87(300, false);
}

static void x87_unmasked(void **state)
{
	all_x87(300, true);
}

/* ---- SSE and MMX ----------------------------------------------------------------------- */

static bool is_gpr_operand(const ZydisDecodedOperand *o)
{
	ZydisRegisterClass k;

	if (o->type != ZYDIS_OPERAND_TYPE_REGISTER)
		return false;
	k = ZydisRegisterGetClass(o->reg.value);
	return k == ZYDIS_REGCLASS_GPR32 || k == ZYDIS_REGCLASS_GPR64 ||
	       k == ZYDIS_REGCLASS_GPR16 || k == ZYDIS_REGCLASS_GPR8;
}

/* Fit to be executed with what native_run sets up? */
static bool usable(const struct decoded *x)
{
	unsigned i;

	switch (x->insn.mnemonic) {
	case ZYDIS_MNEMONIC_FXSAVE: case ZYDIS_MNEMONIC_FXRSTOR:
	case ZYDIS_MNEMONIC_FXSAVE64: case ZYDIS_MNEMONIC_FXRSTOR64:
	case ZYDIS_MNEMONIC_XSAVE: case ZYDIS_MNEMONIC_XSAVE64:
	case ZYDIS_MNEMONIC_XSAVEC: case ZYDIS_MNEMONIC_XSAVEC64:
	case ZYDIS_MNEMONIC_XSAVEOPT: case ZYDIS_MNEMONIC_XSAVEOPT64:
	case ZYDIS_MNEMONIC_XRSTOR: case ZYDIS_MNEMONIC_XRSTOR64:
	case ZYDIS_MNEMONIC_XGETBV: case ZYDIS_MNEMONIC_XSETBV:
	case ZYDIS_MNEMONIC_LDMXCSR:
		return false;
	default:
		break;
	}
	for (i = 0; i < x->insn.operand_count_visible; i++) {
		const ZydisDecodedOperand *o = &x->op[i];

		if (is_gpr_operand(o) && ZydisRegisterGetId(o->reg.value) > 2)
			return false;
		if (o->type == ZYDIS_OPERAND_TYPE_MEMORY && o->mem.base != ZYDIS_REGISTER_RSI)
			return false;
	}
	return true;
}

static unsigned make_insn(uint8_t *p, unsigned prefix, unsigned map, unsigned opcode, bool mem)
{
	static const uint8_t prefixes[4] = { 0, 0x66, 0xf3, 0xf2 };
	unsigned n = 0, rex = rnd() % 4 == 0 ? 0x40 | (rnd() & (mem ? 0x0c : 0x0d)) : 0;

	if (prefix)
		p[n++] = prefixes[prefix];
	if (rex)
		p[n++] = (uint8_t)rex;
	p[n++] = 0x0f;
	if (map)
		p[n++] = map == 1 ? 0x38 : 0x3a;
	p[n++] = (uint8_t)opcode;
	/* Three registers of each kind, so that they are often the same. */
	p[n++] = (uint8_t)(mem ? rnd() % 3 << 3 | 6 : 0xc0 | rnd() % 3 << 3 | rnd() % 3);
	if (mem && rnd() % 8 == 0)
		p[n - 1] = (uint8_t)(rnd() % 8 << 3 | 6);
	else if (!mem && rnd() % 4 == 0)
		p[n - 1] = (uint8_t)(0xc0 | (rnd() & 63));
	return n;
}

static void all_simd(unsigned rounds, bool strict)
{
	unsigned prefix, map, opcode, r;
	struct decoded x;

	failures = host_dirty = tried = 0;
	for (prefix = 0; prefix < 4; prefix++)
	for (map = 0; map < 3; map++)
	for (opcode = 0; opcode < 256; opcode++)
	for (r = 0; r < rounds; r++) {
		uint8_t insn[16];
		unsigned n = make_insn(insn, prefix, map, opcode, r & 1);

		if (map == 0 && opcode == 0x38)
			break;
		insn[n] = (uint8_t)(rnd() % 2 ? rnd() : rnd() % 33);
		if (!decode(&x, insn, n) && !decode(&x, insn, ++n))
			continue;
		if (!usable(&x))
			continue;
		try(insn, n, false, strict);
	}
	assert_int_equal(failures, 0);
	assert_int_equal(host_dirty, 0);
	assert_true(tried > 100000);
}

static void simd_masked(void **state)
{
	all_simd(400, false);
}

static void simd_strict(void **state)
{
	/* Here and not in setup: cmocka sets its own for each test. */
	struct sigaction sa = { .sa_sigaction = on_sigfpe, .sa_flags = SA_SIGINFO | SA_NODEFER };

	sigaction(SIGFPE, &sa, NULL);
	all_simd(400, true);
}

/* ---- Images ------------------------------------------------------------------------------ */

static uint8_t *image_byte(unsigned i)
{
	return host_mem + i;
}

/* A valid image for FXRSTOR and XRSTOR; bv, comp: the header. */
static void make_image(uint64_t bv, uint64_t comp)
{
	struct native n;

	random_state(&n, true, true);
	memcpy(host_mem, n.in, 416);
	memset(image_byte(6), 0, 18);
	memset(image_byte(512), 0, 64);
	store64(image_byte(512), bv);
	store64(image_byte(520), comp);
	store32(image_byte(28), 0xffff);
}

/* One instruction on a random state and the memory as it is. */
static void try_image(const uint8_t *insn, unsigned len, uint32_t rax)
{
	static struct native n;
	uint8_t mem[sizeof host_mem];
	struct decoded x;

	memcpy(mem, host_mem, sizeof mem);
	random_state(&n, rnd() & 1, false);
	memcpy(host_mem, mem, sizeof mem);
	n.rax = rax;
	n.rdx = 0;
	state_to_cpu(&n);
	assert_true(decode(&x, insn, len));
	assert_true(run_soft(&x));
	assert_true(run_native(&n, insn, len));
	compare(&x, insn, &n, STATUS);
}

static void environments(void **state)
{
	static const uint8_t insns[][3] = {
		{ 0xd9, 0x36 }, { 0xd9, 0x26 }, { 0xdd, 0x36 }, { 0xdd, 0x26 },	/* 32-bit */
		{ 0x66, 0xd9, 0x36 }, { 0x66, 0xd9, 0x26 },
		{ 0x66, 0xdd, 0x36 }, { 0x66, 0xdd, 0x26 },
		{ 0x0f, 0x77 }, { 0x9b },
	};
	unsigned i, r;

	failures = host_dirty = 0;
	for (i = 0; i < ARRAY_SIZE(insns); i++)
		for (r = 0; r < 2000; r++) {
			const uint8_t *p = insns[i];
			unsigned len = p[0] == 0x66 ? 3 : p[0] == 0x9b ? 1 : 2, k;

			for (k = 0; k < sizeof host_mem; k += 8)
				store64(host_mem + k, awkward64());
			try_image(p, len, 0);
		}
	assert_int_equal(failures, 0);
	assert_int_equal(host_dirty, 0);
}

static void extended_images(void **state)
{
	static const uint8_t save[][4] = {
		{ 0x0f, 0xae, 0x06 }, { 0x48, 0x0f, 0xae, 0x06 },	/* fxsave */
		{ 0x0f, 0xae, 0x26 }, { 0x48, 0x0f, 0xae, 0x26 },	/* xsave */
		{ 0x0f, 0xae, 0x36 }, { 0x48, 0x0f, 0xae, 0x36 },	/* xsaveopt */
		{ 0x0f, 0xc7, 0x26 }, { 0x48, 0x0f, 0xc7, 0x26 },	/* xsavec */
	};
	static const uint8_t restore[][4] = {
		{ 0x0f, 0xae, 0x0e }, { 0x48, 0x0f, 0xae, 0x0e },	/* fxrstor */
		{ 0x0f, 0xae, 0x2e }, { 0x48, 0x0f, 0xae, 0x2e },	/* xrstor */
	};
	unsigned i, r;

	failures = 0;
	for (i = 0; i < ARRAY_SIZE(save); i++)
		for (r = 0; r < 2000; r++) {
			make_image(rnd() & 3, 0);
			try_image(save[i], save[i][0] == 0x48 ? 4 : 3, (uint32_t)rnd() & 3);
		}
	for (i = 0; i < ARRAY_SIZE(restore); i++)
		for (r = 0; r < 4000; r++) {
			uint64_t comp = r & 1 ? BIT(63) | (rnd() & 3) : 0;

			make_image(rnd() & (comp ? comp & 3 : 3), comp);
			try_image(restore[i], restore[i][0] == 0x48 ? 4 : 3, (uint32_t)rnd() & 3);
		}
	assert_int_equal(failures, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(x87_masked),
		cmocka_unit_test(x87_unmasked),
		cmocka_unit_test(simd_masked),
		cmocka_unit_test(simd_strict),
		cmocka_unit_test(environments),
		cmocka_unit_test(extended_images),
	};

	return cmocka_run_group_tests_name("SSE, MMX and x87", tests, setup, teardown);
}
