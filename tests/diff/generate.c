/* Cases: a state, and instructions that suit each other. */
#include "cpu/arch.h"
#include "generate.h"

static const struct host_facts *host_facts;

void generate_init(const struct host_facts *host)
{
	host_facts = host;
}

void generate_base_memory(uint8_t *memory, uint64_t seed)
{
	struct rng r;

	rng_seed(&r, seed, UINT64_MAX);
	for (unsigned i = 0; i < DATA_SIZE; i += 16)
		value_vector(&r, memory + i);
}

/* ---- The first state ------------------------------------------------------------- */

static uint64_t pointer(struct gen *g)
{
	return gen_target(g, 16) + (rng_percent(&g->r, 30) ? rng_below(&g->r, 64) : 0);
}

static void make_registers(struct gen *g)
{
	struct machine *m = &g->k->in;
	struct rng *r = &g->r;
	uint64_t flags = rng_next(r) & RFLAGS_STATUS;

	for (unsigned i = 0; i < 16; i++)
		m->gpr[i] = gen_truncate(g, rng_percent(r, 40) ? pointer(g) : value_int(r));
	if (rng_percent(r, 97)) {
		static const uint8_t pages[] = { DATA_RW0, DATA_RW1, DATA_RW2 };
		uint32_t off = 0x100 + rng_below(r, 0xe00);

		if (rng_percent(r, 92))
			off &= ~7u;
		if (rng_percent(r, 6))
			off = rng_below(r, 32);
		m->gpr[GEN_RSP] = DATA_BASE + pages[rng_below(r, 3)] * 0x1000 + off;
	}
	g->pinned = 1u << GEN_RSP;
	if (rng_percent(r, 12))
		flags |= RFLAGS_DF;
	if (rng_percent(r, 2))
		flags |= RFLAGS_AC;
	if (rng_percent(r, 2))
		flags |= RFLAGS_NT;
	if (rng_percent(r, 8))
		flags |= RFLAGS_ID;
	m->rflags = flags | RFLAGS_IF | 2;
	m->fs_base = m->gs_base = 0;
	if (g->host->fsgsbase && !g->k->compat) {
		m->fs_base = rng_percent(r, 50) ? gen_target(g, 8) : rng_below(r, 0x10000);
		m->gs_base = rng_percent(r, 50) ? 0 - (uint64_t)rng_below(r, 0x10000) : gen_target(g, 8);
	}
}

static uint16_t make_fcw(struct rng *r)
{
	static const uint16_t precision[] = { 0x300, 0x300, 0x200, 0 };
	uint16_t fcw = 0x7f;

	if (rng_percent(r, 12))
		fcw = (uint16_t)(0x40 | rng_below(r, 64));
	if (rng_percent(r, 50))
		return fcw | 0x300;
	return (uint16_t)(fcw | precision[rng_below(r, 4)] | rng_below(r, 4) << 10 |
			  rng_below(r, 16) / 15 << 12);
}

static void make_fpu(struct gen *g)
{
	struct fx_image *x = &g->k->in.fx;
	struct rng *r = &g->r;

	memset(x, 0, sizeof *x);
	x->fcw = make_fcw(r);
	x->fsw = (uint16_t)(rng_next(r) & 0x7f00);	/* condition codes and TOP */
	if (rng_percent(r, 25))
		x->fsw |= rng_next(r) & 0x7f & (rng_percent(r, 85) ? x->fcw | 0x40 : 0x7f);
	if (x->fsw & ~x->fcw & 0x3f)
		x->fsw |= 0x8080;
	switch (rng_below(r, 4)) {
	case 0: x->ftw = (uint8_t)rng_next(r); break;
	case 1: x->ftw = 0; break;
	default: x->ftw = 0xff; break;
	}
	for (unsigned i = 0; i < 8; i++)
		value_x87(r, x->st[i]);
	for (unsigned i = 0; i < 16; i++)
		value_vector(r, x->xmm[i]);
	x->mxcsr = value_mxcsr(r);
	for (unsigned i = 0; i < 16 && g->host->v3; i++) {
		memset(g->k->in.ymmh[i], 0, 16);
		if (rng_percent(r, 95))
			value_vector(r, g->k->in.ymmh[i]);
	}
}

/* Where the code stands: anywhere, across two pages, or cut off by the hole. */
static uint32_t make_start(struct gen *g, bool may_cut)
{
	unsigned how = rng_below(&g->r, 100);

	if (how < 15)
		return CODE_BASE + 0x1000 - rng_below(&g->r, 40);
	if (how < 17 && may_cut)
		return CODE_BASE + CODE_SIZE - 1 - rng_below(&g->r, 16);
	return CODE_BASE + 0x80 + rng_below(&g->r, 0x60) * 0x20;
}

/* ---- Operands that make an instruction interesting -------------------------------- */

static bool pinnable(const struct gen *g, unsigned reg)
{
	return !((g->changed | g->pinned) >> reg & 1);
}

static void link_add(struct gen *g, int kind, unsigned at, unsigned size, bool backward)
{
	if (g->nlinks < ARRAY_SIZE(g->link))
		g->link[g->nlinks++] = (struct gen_link){ .kind = kind, .insn = g->k->ninsns,
							  .at = at, .size = size,
							  .backward = backward };
}

static bool has_rep(const struct gen_insn *n)
{
	return n->insn.attributes & (ZYDIS_ATTRIB_HAS_REP | ZYDIS_ATTRIB_HAS_REPE |
				     ZYDIS_ATTRIB_HAS_REPNE);
}

static bool fix_string(struct gen *g, struct gen_insn *n)
{
	struct rng *r = &g->r;
	unsigned size = MAX(n->insn.operand_width / 8u, 1u);
	uint64_t upper = 0;
	uint64_t from = gen_target(g, size), to = gen_target(g, size);

	if (rng_percent(r, 30))
		to = from + rng_below(r, 40) - 20;
	/* With 32-bit addresses the upper halves do not matter. */
	if (n->insn.address_width == 32 && !g->k->compat) {
		if (!g->host->intel)
			return false;	/* what becomes of them differs */
		upper = rng_percent(r, 50) ? rng_next(r) << 32 : 0;
	}
	if (has_rep(n)) {
		unsigned how = rng_below(r, 100), count = rng_below(r, how < 90 ? 40 : 300);

		if (how < 20)
			count = rng_below(r, 4);
		if (how == 99 && pinnable(g, GEN_RCX))
			return true;
		if (!gen_pin(g, GEN_RCX, count | upper))
			return false;
		if (rng_percent(r, 30) && count) {	/* run into an end of a page */
			from = (from | 0xfff) + 1 - rng_below(r, count * size + 8);
			to = (to | 0xfff) + 1 - rng_below(r, count * size + 8);
		}
	}
	if (rng_percent(r, 95) && pinnable(g, GEN_RSI))
		gen_pin(g, GEN_RSI, from | upper);
	if (rng_percent(r, 95) && pinnable(g, GEN_RDI))
		gen_pin(g, GEN_RDI, to | upper);
	return true;
}

static void fix_bit(struct gen *g, struct gen_insn *n)
{
	unsigned reg;

	if (n->ops[0].type != ZYDIS_OPERAND_TYPE_MEMORY ||
	    n->ops[1].type != ZYDIS_OPERAND_TYPE_REGISTER)
		return;
	reg = (unsigned)ZydisRegisterGetId(n->ops[1].reg.value) & 15;
	if (pinnable(g, reg) && rng_percent(&g->r, 85))
		gen_pin(g, reg, (uint64_t)((int64_t)rng_below(&g->r, 40000) - 20000));
}

static void fix_divide(struct gen *g)
{
	if (!rng_percent(&g->r, 60) || !pinnable(g, GEN_RDX))
		return;
	if (g->pinned & 1 || rng_percent(&g->r, 50))
		gen_pin(g, GEN_RDX, rng_below(&g->r, 3) - 1ull);
	else
		gen_pin(g, GEN_RDX, (uint64_t)((int64_t)g->k->in.gpr[0] >> 63));
}

/* Memory that compares equal. */
static void fix_cmpxchg(struct gen *g, struct gen_insn *n)
{
	uint8_t bytes[16];
	uint64_t lin;
	bool wide = n->insn.mnemonic == ZYDIS_MNEMONIC_CMPXCHG16B;
	bool pair = wide || n->insn.mnemonic == ZYDIS_MNEMONIC_CMPXCHG8B;

	if (!rng_percent(&g->r, 50) || g->changed & (1u << 0 | 1u << GEN_RDX) ||
	    !gen_linear(g, n, &lin))
		return;
	g->pinned |= 1u << 0 | 1u << GEN_RDX;
	store64(bytes, g->k->in.gpr[0]);
	if (pair)
		store64(bytes + (wide ? 8 : 4), g->k->in.gpr[GEN_RDX]);
	gen_patch(g, lin, bytes, wide ? 16 : 8);
}

static void fix_shift(struct gen *g)
{
	if (rng_percent(&g->r, 50) && pinnable(g, GEN_RCX))
		gen_pin(g, GEN_RCX, rng_below(&g->r, 72));
}

/* An immediate of up to 16 bits. */
static void set_imm(struct gen_insn *n, unsigned which, unsigned value)
{
	uint8_t *at = n->bytes + n->insn.raw.imm[which].offset;

	if (n->insn.raw.imm[which].size == 8)
		*at = (uint8_t)value;
	else if (n->insn.raw.imm[which].size == 16)
		store16(at, (uint16_t)value);
}

static void fix_enter(struct gen *g, struct gen_insn *n)
{
	if (!rng_percent(&g->r, 85))
		return;
	set_imm(n, 0, rng_below(&g->r, 200));
	set_imm(n, 1, rng_percent(&g->r, 70) ? rng_below(&g->r, 4) : rng_below(&g->r, 256));
	if (rng_percent(&g->r, 80) && pinnable(g, 5))
		gen_pin(g, 5, gen_target(g, 64));
}

static void fix_popf(struct gen *g)
{
	uint64_t flags = rng_next(&g->r) & (RFLAGS_STATUS | RFLAGS_DF | RFLAGS_ID);

	if (g->changed >> GEN_RSP & 1)
		return;
	if (rng_percent(&g->r, 20))
		flags |= rng_next(&g->r) & ~(uint64_t)RFLAGS_TF;
	if (rng_percent(&g->r, 3))
		flags |= RFLAGS_TF;
	gen_patch(g, g->k->in.gpr[GEN_RSP], &flags, 8);
}

static void fix_ret(struct gen *g, struct gen_insn *n)
{
	if (n->insn.raw.imm[0].size && rng_percent(&g->r, 90))
		set_imm(n, 0, rng_below(&g->r, 64));
	if (!(g->changed >> GEN_RSP & 1) && rng_percent(&g->r, 90))
		link_add(g, LINK_MEMORY, (unsigned)g->k->in.gpr[GEN_RSP], 8, false);
}

/* Direct and indirect near branches. */
static bool fix_branch(struct gen *g, struct gen_insn *n)
{
	const ZydisDecodedInstruction *in = &n->insn;
	uint64_t lin;

	if (in->raw.imm[0].is_relative) {
		bool loop = in->mnemonic == ZYDIS_MNEMONIC_LOOP ||
			    in->mnemonic == ZYDIS_MNEMONIC_LOOPE ||
			    in->mnemonic == ZYDIS_MNEMONIC_LOOPNE;
		bool counts = loop || in->meta.category == ZYDIS_CATEGORY_COND_BR;

		if (loop && !gen_pin(g, GEN_RCX, 1 + rng_below(&g->r, 5)))
			loop = false;
		else if (!loop && counts && rng_percent(&g->r, 50) && pinnable(g, GEN_RCX))
			gen_pin(g, GEN_RCX, 0);
		if (in->raw.imm[0].size != 16)
			link_add(g, LINK_REL, in->raw.imm[0].offset, in->raw.imm[0].size / 8u, loop);
		return true;
	}
	if (n->ops[0].type == ZYDIS_OPERAND_TYPE_REGISTER) {
		unsigned reg = (unsigned)ZydisRegisterGetId(n->ops[0].reg.value) & 15;

		if (!pinnable(g, reg))
			return false;	/* twice the same target: for ever */
		if (rng_percent(&g->r, 90)) {
			g->pinned |= (uint16_t)(1u << reg);
			link_add(g, LINK_REG, reg, 8, false);
		}
	} else if (rng_percent(&g->r, 90) && gen_linear(g, n, &lin)) {
		link_add(g, LINK_MEMORY, (unsigned)lin, 8, false);
	}
	return true;
}

/* XSAVE and its kin: components that both sides have, and an image to restore. */
static bool fix_xsave(struct gen *g, struct gen_insn *n)
{
	struct rng *r = &g->r;
	uint64_t header[8] = { 0 }, lin;
	unsigned all = g->host->v3 ? 8 : 4;
	uint64_t mask = rng_below(r, all);
	uint8_t legacy[32];

	/* Where an area crosses the 64 KiB of 16-bit addresses, each processor has its own way. */
	if (n->insn.address_width == 16)
		return false;
	if (!gen_pin(g, 0, mask) || !gen_pin(g, GEN_RDX, 0))
		return false;
	if (!gen_linear(g, n, &lin) || (lin & 0xfff) + 832 > 0x1000)
		return true;
	header[0] = rng_below(r, all);
	if (rng_percent(r, 30)) {
		header[1] = BIT(63) | rng_below(r, all);
		header[0] &= rng_percent(r, 90) ? header[1] : 7;
	}
	if (rng_percent(r, 5)) {	/* no components that the host may have */
		unsigned word = rng_below(r, 8);

		header[word] |= BIT(word < 2 ? 62 : rng_below(r, 64));
	}
	value_vector(r, legacy);
	value_vector(r, legacy + 16);
	store32(legacy + 24, rng_percent(r, 90) ? value_mxcsr(r) : (uint32_t)rng_next(r));
	gen_patch(g, lin, legacy, sizeof legacy);
	gen_patch(g, lin + 512, header, sizeof header);
	return true;
}

/* Which faults bytes raise that are masked is the processor's affair: none here. */
static bool fix_maskmov(struct gen *g, struct gen_insn *n)
{
	static const uint8_t pages[] = { DATA_RW0, DATA_RW1, DATA_RW2 };
	uint64_t to = DATA_BASE + pages[rng_below(&g->r, 3)] * 0x1000 + rng_below(&g->r, 0xff0);

	if (n->insn.attributes & ZYDIS_ATTRIB_HAS_SEGMENT || n->insn.address_width == 16 ||
	    g->k->in.rflags & RFLAGS_AC)
		return false;
	return gen_pin(g, GEN_RDI, to);
}

static void fix_mxcsr(struct gen *g, struct gen_insn *n, unsigned off)
{
	uint32_t v = value_mxcsr(&g->r);
	uint64_t lin;

	if (rng_percent(&g->r, 85) && gen_linear(g, n, &lin))
		gen_patch(g, lin + off, &v, 4);
}

static const ZydisDecodedOperand *vsib(const struct gen_insn *n)
{
	for (unsigned i = 0; i < n->insn.operand_count; i++)
		if (n->ops[i].type == ZYDIS_OPERAND_TYPE_MEMORY &&
		    n->ops[i].mem.type == ZYDIS_MEMOP_TYPE_VSIB)
			return &n->ops[i];
	return NULL;
}

static bool is_gather(const struct gen_insn *n)
{
	return vsib(n);
}

/* A base where the data is, and elements that stay near it, for the most part. */
static bool fix_gather(struct gen *g, struct gen_insn *n)
{
	const ZydisDecodedOperand *m = vsib(n);
	struct machine *in = &g->k->in;
	unsigned index = (unsigned)ZydisRegisterGetId(m->mem.index) & 15;
	unsigned size = n->insn.opcode & 1 ? 8 : 4;
	int base = ZydisRegisterGetId(m->mem.base);
	uint64_t at = gen_target(g, 8) - (uint64_t)m->mem.disp.value;

	if (m->mem.base == ZYDIS_REGISTER_NONE || n->insn.attributes & ZYDIS_ATTRIB_HAS_SEGMENT ||
	    !gen_pin(g, (unsigned)base, at))
		return false;
	for (unsigned i = 0; i < 32 / size; i++) {
		uint8_t *to = (i * size < 16 ? in->fx.xmm[index] : in->ymmh[index] - 16) + i * size;
		int64_t v = (int64_t)rng_below(&g->r, 0x400) - 0x200;

		if (rng_percent(&g->r, 3))
			v = (int64_t)value_int(&g->r);
		else if (rng_percent(&g->r, 10))
			v *= 8;
		memcpy(to, &v, size);
	}
	return true;
}

/* False: the instruction does not suit this case. */
static bool fix(struct gen *g, struct gen_insn *n)
{
	switch (n->insn.mnemonic) {
	case ZYDIS_MNEMONIC_BT: case ZYDIS_MNEMONIC_BTS: case ZYDIS_MNEMONIC_BTR:
	case ZYDIS_MNEMONIC_BTC:
		fix_bit(g, n);
		return true;
	case ZYDIS_MNEMONIC_DIV: case ZYDIS_MNEMONIC_IDIV:
		fix_divide(g);
		return true;
	case ZYDIS_MNEMONIC_CMPXCHG: case ZYDIS_MNEMONIC_CMPXCHG8B: case ZYDIS_MNEMONIC_CMPXCHG16B:
		fix_cmpxchg(g, n);
		return true;
	case ZYDIS_MNEMONIC_ROL: case ZYDIS_MNEMONIC_ROR: case ZYDIS_MNEMONIC_RCL:
	case ZYDIS_MNEMONIC_RCR: case ZYDIS_MNEMONIC_SHL: case ZYDIS_MNEMONIC_SHR:
	case ZYDIS_MNEMONIC_SAR: case ZYDIS_MNEMONIC_SHLD: case ZYDIS_MNEMONIC_SHRD:
		fix_shift(g);
		return true;
	case ZYDIS_MNEMONIC_ENTER:
		fix_enter(g, n);
		return true;
	case ZYDIS_MNEMONIC_LEAVE:
		if (pinnable(g, 5) && rng_percent(&g->r, 90))
			gen_pin(g, 5, gen_target(g, 8));
		return true;
	case ZYDIS_MNEMONIC_XLAT:
		if (pinnable(g, 3) && rng_percent(&g->r, 90))
			gen_pin(g, 3, gen_target(g, 1));
		return true;
	case ZYDIS_MNEMONIC_MASKMOVQ: case ZYDIS_MNEMONIC_MASKMOVDQU:
	case ZYDIS_MNEMONIC_VMASKMOVDQU:
		return fix_maskmov(g, n);
	case ZYDIS_MNEMONIC_POPF: case ZYDIS_MNEMONIC_POPFD: case ZYDIS_MNEMONIC_POPFQ:
		fix_popf(g);
		return true;
	case ZYDIS_MNEMONIC_RET:
		fix_ret(g, n);
		return true;
	case ZYDIS_MNEMONIC_XSAVE: case ZYDIS_MNEMONIC_XSAVE64: case ZYDIS_MNEMONIC_XSAVEC:
	case ZYDIS_MNEMONIC_XSAVEC64: case ZYDIS_MNEMONIC_XSAVEOPT: case ZYDIS_MNEMONIC_XSAVEOPT64:
	case ZYDIS_MNEMONIC_XRSTOR: case ZYDIS_MNEMONIC_XRSTOR64:
		return fix_xsave(g, n);
	case ZYDIS_MNEMONIC_LDMXCSR: case ZYDIS_MNEMONIC_VLDMXCSR:
		fix_mxcsr(g, n, 0);
		return true;
	case ZYDIS_MNEMONIC_FXRSTOR: case ZYDIS_MNEMONIC_FXRSTOR64:
		fix_mxcsr(g, n, 24);
		return true;
	default:
		break;
	}
	if (is_gather(n))
		return fix_gather(g, n);
	if (n->insn.meta.category == ZYDIS_CATEGORY_STRINGOP ||
	    n->insn.meta.category == ZYDIS_CATEGORY_IOSTRINGOP)
		return fix_string(g, n);
	if (n->insn.meta.branch_type != ZYDIS_BRANCH_TYPE_NONE)
		return fix_branch(g, n);
	return true;
}

/* ---- Atomic operations --------------------------------------------------------------- */

/*
 * Hosts may punish an atomic operation that crosses a cache line with seconds of delay: where one
 * might, the host gets the same instruction without LOCK, as a meaningless DS prefix, and XCHG
 * with memory, which needs none, is not tried.
 */
static bool fix_lock(struct gen *g, struct gen_insn *n, int *lock_at)
{
	const ZydisDecodedInstruction *in = &n->insn;
	bool lock = in->attributes & ZYDIS_ATTRIB_HAS_LOCK, split;
	bool xchg = in->mnemonic == ZYDIS_MNEMONIC_XCHG &&
		    (n->ops[0].type == ZYDIS_OPERAND_TYPE_MEMORY ||
		     n->ops[1].type == ZYDIS_OPERAND_TYPE_MEMORY);
	unsigned size = n->ops[0].size / 8;
	uint64_t lin;

	*lock_at = -1;
	if (!lock && !xchg)
		return true;
	g->locks = true;
	if (!gen_linear(g, n, &lin))
		return false;
	if (n->ops[1].type == ZYDIS_OPERAND_TYPE_REGISTER &&
	    (in->mnemonic == ZYDIS_MNEMONIC_BTS || in->mnemonic == ZYDIS_MNEMONIC_BTR ||
	     in->mnemonic == ZYDIS_MNEMONIC_BTC)) {
		/* Moves in steps of the operand's size: as well aligned as before, or not. */
		split = lin & (size - 1);
	} else {
		split = (lin & 63) + size > 64;
	}
	if (!split)
		return true;
	if (xchg || in->attributes & ZYDIS_ATTRIB_HAS_SEGMENT)
		return false;
	for (unsigned i = 0; i < in->raw.prefix_count; i++)
		if (in->raw.prefixes[i].value == 0xf0)
			*lock_at = (int)i;
	return in->mnemonic != ZYDIS_MNEMONIC_CMPXCHG16B;
}

/* ---- One instruction -------------------------------------------------------------------- */

static ZyanStatus decode(struct gen *g, struct gen_insn *n)
{
	return rule_decode(&g->decoder, n->bytes, &n->insn, n->ops);
}

static void note_writes(struct gen *g, const struct gen_insn *n)
{
	for (unsigned i = 0; i < n->insn.operand_count; i++) {
		const ZydisDecodedOperand *o = &n->ops[i];
		ZydisRegister whole;

		if (o->type == ZYDIS_OPERAND_TYPE_MEMORY &&
		    n->insn.meta.category == ZYDIS_CATEGORY_STRINGOP)
			g->changed |= 1u << GEN_RSI | 1u << GEN_RDI | (has_rep(n) ? 1u << GEN_RCX : 0);
		if (o->type != ZYDIS_OPERAND_TYPE_REGISTER ||
		    !(o->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE))
			continue;
		whole = ZydisRegisterGetLargestEnclosing(ZYDIS_MACHINE_MODE_LONG_64, o->reg.value);
		if (ZydisRegisterGetClass(whole) == ZYDIS_REGCLASS_GPR64)
			g->changed |= (uint16_t)(1u << (whole - ZYDIS_REGISTER_RAX));
	}
	switch (n->insn.mnemonic) {
	case ZYDIS_MNEMONIC_WRFSBASE: case ZYDIS_MNEMONIC_WRGSBASE:
		g->bases_changed = true;
		break;
	case ZYDIS_MNEMONIC_PUSHA: case ZYDIS_MNEMONIC_PUSHAD: case ZYDIS_MNEMONIC_POPA:
	case ZYDIS_MNEMONIC_POPAD:
		g->changed |= 0xff;
		break;
	default:
		break;
	}
}

/* Flags that are certainly written, whatever the operands. */
static uint32_t flags_written(const struct gen_insn *n)
{
	const ZydisAccessedFlags *f = n->insn.cpu_flags;

	if (!f || n->insn.meta.category == ZYDIS_CATEGORY_SHIFT ||
	    n->insn.meta.category == ZYDIS_CATEGORY_ROTATE || has_rep(n))
		return 0;
	return f->modified | f->set_0 | f->set_1;
}

static bool note_flags(struct gen *g, const struct gen_insn *n)
{
	const ZydisAccessedFlags *f = n->insn.cpu_flags;

	if (f && f->tested & g->undefined)
		return false;
	if (!g->branches)
		g->undefined &= ~flags_written(n);
	g->undefined |= rule_undefined_flags(&n->insn, n->ops);
	g->k->undefined_any |= g->undefined;
	return true;
}

static void commit(struct gen *g, const struct gen_insn *n, unsigned len, ZydisMnemonic mnemonic,
		   int lock_at)
{
	struct diff_case *k = g->k;

	unsigned operand = 0;
	bool mmx = false;

	for (unsigned i = 0; mnemonic && i < n->insn.operand_count; i++) {
		const ZydisDecodedOperand *o = &n->ops[i];

		if (o->type == ZYDIS_OPERAND_TYPE_REGISTER)
			mmx |= ZydisRegisterGetClass(o->reg.value) == ZYDIS_REGCLASS_MMX;
		else if (o->type == ZYDIS_OPERAND_TYPE_MEMORY)
			operand = o->size / 8u;
	}
	k->insn[k->ninsns] = (struct case_insn){ .mmx = mmx, .operand = (uint16_t)operand, .off = (uint8_t)k->len, .len = (uint8_t)len,
						 .mnemonic = mnemonic, .undefined = g->undefined };
	memcpy(k->code + k->len, n->bytes, len);
	memcpy(k->native_code + k->len, n->bytes, len);
	if (lock_at >= 0)
		k->native_code[k->len + (unsigned)lock_at] = 0x3e;
	k->len += len;
	k->ninsns++;
}

/* Bytes that are no instruction; behind them, bytes that stop. */
static bool make_undefined(struct gen *g, struct gen_insn *n, ZyanStatus status)
{
	unsigned len = 0;

	/* Whether the missing bytes or the opcode is found first is the processor's affair. */
	if (n->rip + 15 > CODE_BASE + CODE_SIZE)
		return false;
	if (status == ZYDIS_STATUS_INSTRUCTION_TOO_LONG) {
		/* Some opcodes of the later maps are found to be undefined first. */
		if (memchr(n->bytes, 0x0f, 15))
			return false;
		commit(g, n, 15, ZYDIS_MNEMONIC_INVALID, -1);
		return true;
	}
	if (!rule_undefined_is_safe(n->bytes, status, g->k->compat))
		return false;
	/* Nor whether it is undefined or too long. */
	while (len < 12 && n->bytes[len] != 0x0f && (n->bytes[len] & 0xf0) != 0xd0 &&
	       (n->bytes[len] < 0x26 || (n->bytes[len] & 0xf0) == 0x40 || n->bytes[len] >= 0x60))
		len++;
	if (len > 4)
		return false;
	memset(n->bytes + len + 4, CODE_FILL, sizeof n->bytes - (len + 4));
	if (decode(g, n) != status)
		return false;
	commit(g, n, 15, ZYDIS_MNEMONIC_INVALID, -1);
	return true;
}

/*
 * These may find that there is nothing to store, or nothing to take from the stack, and do not look
 * at a segment's limits and type then; the soft processor does, first of all.
 */
static bool writes_late(const struct gen_insn *n)
{
	return (n->insn.opcode_map == ZYDIS_OPCODE_MAP_DEFAULT && (n->insn.opcode & 0xf8) == 0xd8) ||
	       n->insn.mnemonic == ZYDIS_MNEMONIC_ARPL || n->insn.mnemonic == ZYDIS_MNEMONIC_POP ||
	       n->insn.mnemonic == ZYDIS_MNEMONIC_VCVTPS2PH;	/* raises #XM first */
}

/* Adds one instruction; false: this one did not suit. last: set when nothing may follow. */
static bool try_insn(struct gen *g, bool alone, bool *last)
{
	struct diff_case *k = g->k;
	struct gen_insn n = { .rip = k->start + k->len };
	ZyanStatus status;
	ZydisMnemonic mnemonic;
	enum rule rule;
	int lock_at;

	*last = false;
	gen_opcode(g, &n);
	status = decode(g, &n);
	if (!ZYAN_SUCCESS(status)) {
		*last = true;
		return make_undefined(g, &n, status);
	}
	mnemonic = n.insn.mnemonic;
	if ((n.insn.encoding == ZYDIS_INSTRUCTION_ENCODING_LEGACY ||
	     n.insn.encoding == ZYDIS_INSTRUCTION_ENCODING_VEX) && !is_gather(&n) &&
	    n.insn.attributes & ZYDIS_ATTRIB_HAS_MODRM && n.insn.raw.modrm.mod != 3) {
		gen_readdress(g, &n);
		if (!ZYAN_SUCCESS(decode(g, &n)) || n.insn.mnemonic != mnemonic)
			return false;
		if (n.target_known) {
			gen_rip_relative(&n);
			decode(g, &n);
		}
	}
	rule = rule_for(&n.insn, n.ops, g->host);
	if (rule == RULE_SKIP || (rule != RULE_RUN && !alone))
		return false;
	if (rule == RULE_UD) {
		if (k->start + k->len + n.insn.length > CODE_BASE + CODE_SIZE)
			return false;
		k->kind = CASE_UD;
		commit(g, &n, n.insn.length, mnemonic, -1);
		*last = true;
		return true;
	}
	if (!g->host->fsgsbase && n.insn.attributes & (ZYDIS_ATTRIB_HAS_SEGMENT_FS |
						       ZYDIS_ATTRIB_HAS_SEGMENT_GS))
		return false;
	if (k->compat && n.insn.attributes & ZYDIS_ATTRIB_HAS_SEGMENT && writes_late(&n))
		return false;
	if (!fix(g, &n) || !fix_lock(g, &n, &lock_at) || !note_flags(g, &n))
		return false;
	note_writes(g, &n);
	if (n.insn.meta.branch_type != ZYDIS_BRANCH_TYPE_NONE)
		g->branches = true;
	commit(g, &n, n.insn.length, mnemonic, lock_at);
	return true;
}

/* ---- Whole cases -------------------------------------------------------------------------- */

static uint32_t boundary(const struct diff_case *k, unsigned n)
{
	return k->start + (n < k->ninsns ? k->insn[n].off : k->insn[k->ninsns - 1].off +
						      k->insn[k->ninsns - 1].len);
}

static void resolve(struct gen *g, const struct gen_link *l)
{
	struct diff_case *k = g->k;
	const struct case_insn *i = &k->insn[l->insn];
	uint32_t next = k->start + i->off + i->len;
	uint64_t to = boundary(k, l->insn + 1 + rng_below(&g->r, k->ninsns - l->insn));

	if (l->backward && !g->locks && !k->undefined_any && rng_percent(&g->r, 60))
		to = boundary(k, rng_below(&g->r, l->insn + 1));
	else if (rng_percent(&g->r, 6))
		to = boundary(k, k->ninsns) + 5 + rng_below(&g->r, 16);		/* INT3 */
	else if (rng_percent(&g->r, 4) && l->size >= 4)
		to = l->kind == LINK_REL ? CODE_BASE ^ rng_next(&g->r) >> 34 : value_int(&g->r);
	switch (l->kind) {
	case LINK_REL: {
		uint32_t rel = (uint32_t)to - next;

		memcpy(k->code + i->off + l->at, &rel, l->size);
		memcpy(k->native_code + i->off + l->at, &rel, l->size);
		break;
	}
	case LINK_REG:
		k->in.gpr[l->at] = gen_truncate(g, to);
		break;
	case LINK_MEMORY:
		gen_patch(g, l->at, &to, 8);
		break;
	}
}

static void put_exit(struct diff_case *k)
{
	uint32_t from = k->start + k->len + 5;

	k->code[k->len] = 0xe9;
	store32(k->code + k->len + 1, (k->compat ? EXIT32_BASE : EXIT_BASE) - from);
	memcpy(k->native_code + k->len, k->code + k->len, 5);
	k->len += 5;
	if (k->start + k->len > CODE_BASE + CODE_SIZE)
		k->len = CODE_BASE + CODE_SIZE - k->start;
}

void generate_case(struct diff_case *k, uint64_t seed, uint64_t number)
{
	struct gen g = { .k = k, .host = host_facts };
	unsigned want;
	bool last = false;

	rng_seed(&g.r, seed, number);
	memset(k, 0, offsetof(struct diff_case, in));
	k->npatches = 0;
	k->seed = seed;
	k->number = number;
	k->foreign = !host_facts->intel;
	k->compat = host_facts->compat && rng_percent(&g.r, 20);
	rule_decoder(&g.decoder, k->compat);
	want = rng_percent(&g.r, 55) ? 1 : 2 + rng_below(&g.r, CASE_MAX_INSNS - 1);
	if (want > 1)
		g.theme = rng_below(&g.r, 100) < 25 ? THEME_INTEGER :
			  rng_below(&g.r, 100) < 12 ? THEME_FLOAT : THEME_ANY;
	k->start = make_start(&g, want == 1);
	make_registers(&g);
	make_fpu(&g);
	k->in.rip = k->start;
	while (k->ninsns < want && !last) {
		struct gen before = g;
		struct machine in = k->in;
		struct diff_case *c = k;
		unsigned npatches = c->npatches;
		uint32_t any = c->undefined_any;

		if (try_insn(&g, want == 1, &last))
			continue;
		/* As if it had never been tried, but for the random numbers. */
		before.r = g.r;
		g = before;
		k->in = in;
		k->npatches = npatches;
		k->undefined_any = any;
		last = false;
	}
	k->undefined_end = g.undefined;
	for (unsigned i = 0; i < g.nlinks; i++)
		resolve(&g, &g.link[i]);
	put_exit(k);
}

void generate_cut(struct diff_case *k, unsigned n)
{
	const struct case_insn *i = &k->insn[n - 1];
	unsigned old = k->len;

	k->ninsns = n;
	k->len = i->off + i->len;
	k->undefined_end = i->undefined;
	put_exit(k);
	if (k->len < old) {
		memset(k->code + k->len, CODE_FILL, old - k->len);
		memset(k->native_code + k->len, CODE_FILL, old - k->len);
		k->len = old;
	}
}
