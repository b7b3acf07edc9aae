/* Memory operands that land where something can be seen. */
#include "generate.h"

bool gen_pin(struct gen *g, unsigned reg, uint64_t value)
{
	value = gen_truncate(g, value);
	if (g->changed >> reg & 1)
		return false;
	if (g->pinned >> reg & 1)
		return g->k->in.gpr[reg] == value;
	g->k->in.gpr[reg] = value;
	g->pinned |= (uint16_t)(1u << reg);
	return true;
}

bool gen_patch(struct gen *g, uint64_t addr, const void *bytes, unsigned len)
{
	struct diff_case *k = g->k;
	uint64_t off = addr - DATA_BASE, page = off >> 12;
	struct case_patch *p;

	if (off >= DATA_SIZE || (off & 0xfff) + len > 0x1000 || page == DATA_RO || page == DATA_HOLE ||
	    k->npatches == CASE_MAX_PATCHES || len > sizeof p->bytes)
		return false;
	p = &k->patch[k->npatches++];
	p->addr = (uint32_t)addr;
	p->len = (uint16_t)len;
	memcpy(p->bytes, bytes, len);
	return true;
}

static void patch_noise(struct gen *g, uint32_t target)
{
	uint8_t noise[32];

	if (!rng_percent(&g->r, 70))
		return;
	if (rng_percent(&g->r, 25)) {
		memset(noise, 0, sizeof noise);
		value_x87(&g->r, noise);
	} else {
		value_vector(&g->r, noise);
		value_vector(&g->r, noise + 16);
	}
	gen_patch(g, target, noise, MIN(32u, 0x1000 - (target & 0xfff)));
}

uint32_t gen_target(struct gen *g, unsigned size)
{
	static const uint8_t pages[] = { DATA_RW0, DATA_RW0, DATA_RW0, DATA_RW1, DATA_RW1, DATA_RW2,
					 DATA_RW2, DATA_RW0, DATA_RW1, DATA_RW2, DATA_RO, DATA_HOLE };
	unsigned page = pages[rng_below(&g->r, ARRAY_SIZE(pages))];
	unsigned how = rng_below(&g->r, 100), off;

	if (page == DATA_HOLE && rng_percent(&g->r, 60))
		page = DATA_RW1;
	off = rng_below(&g->r, 0x1000);
	if (size > 64 && how < 85)
		off = rng_below(&g->r, (0x1000 - size) / 64) * 64;
	else if (how < 45)
		off &= ~63u;
	else if (how < 65)
		off &= ~15u;
	else if (how < 72)
		off &= ~7u;
	else if (how < 82)
		off = 0x1000 - rng_below(&g->r, 2 * MAX(size, 8u));
	else if (how < 86)
		off = rng_below(&g->r, 16);
	if (page == DATA_RW0 && rng_percent(&g->r, 2))
		off = 0u - rng_below(&g->r, 16);	/* the hole before it */
	return DATA_BASE + page * 0x1000 + off;
}

/* ---- Choosing registers ------------------------------------------------------------ */

static uint64_t segment_base(const struct gen *g, const struct gen_insn *n)
{
	const ZydisDecodedInstruction *in = &n->insn;

	if (g->k->compat)
		return 0;
	if (in->attributes & ZYDIS_ATTRIB_HAS_SEGMENT_FS)
		return g->k->in.fs_base;
	return in->attributes & ZYDIS_ATTRIB_HAS_SEGMENT_GS ? g->k->in.gs_base : 0;
}

/* A register that still has its first value; -1: none found. */
static int pick_register(struct gen *g, const struct gen_insn *n, bool index)
{
	unsigned all = g->k->compat || (n->rex < 0 && n->vex < 0) ? 8 : 16;

	for (unsigned tries = 0; tries < 6; tries++) {
		unsigned reg = rng_below(&g->r, all);

		if (!(g->changed >> reg & 1) && !(index && reg == GEN_RSP))
			return (int)reg;
	}
	return -1;
}

struct form {
	int base, index;
	unsigned scale;
	int32_t disp;
};

/* Finds registers and a displacement that make up addr. */
static bool solve(struct gen *g, const struct gen_insn *n, uint64_t addr, bool indexed,
		  struct form *f)
{
	for (unsigned tries = 0; tries < 6; tries++) {
		uint64_t sum = 0, rest;

		f->base = pick_register(g, n, false);
		f->index = indexed ? pick_register(g, n, true) : -1;
		f->scale = indexed ? rng_below(&g->r, 4) : 0;
		if (f->base < 0 || (indexed && f->index < 0))
			continue;
		sum = g->k->in.gpr[f->base];
		if (indexed)
			sum += g->k->in.gpr[f->index] << f->scale;
		rest = addr - sum;
		f->disp = (int32_t)rest;
		if (n->insn.address_width == 32 || (uint64_t)(int64_t)f->disp == rest)
			return true;
		/* The base is free: it may become what is missing. */
		if (!(g->pinned >> f->base & 1) && f->base != f->index) {
			f->disp = (int32_t)rng_below(&g->r, 0x200) - 0x100;
			g->k->in.gpr[f->base] = gen_truncate(g, g->k->in.gpr[f->base] + rest -
							     (uint64_t)(int64_t)f->disp);
			return true;
		}
	}
	return false;
}

/* ---- Encoding ------------------------------------------------------------------------ */

static unsigned put_disp(uint8_t *at, int32_t disp, unsigned size)
{
	if (size == 1)
		at[0] = (uint8_t)disp;
	else if (size == 4)
		store32(at, (uint32_t)disp);
	return size;
}

/* Of REX, or of a VEX prefix, where the bits are inverted; 0 is B, 1 is X. */
static void set_rex(struct gen_insn *n, unsigned bit, bool on)
{
	if (n->vex >= 0)
		n->bytes[n->vex + 1] = (uint8_t)((n->bytes[n->vex + 1] & ~(0x20u << bit)) |
						 (unsigned)!on << (5 + bit));
	if (n->rex < 0)
		return;
	n->bytes[n->rex] = (uint8_t)((n->bytes[n->rex] & ~(1u << bit)) | (unsigned)on << bit);
}

/* ModRM, SIB and displacement at *at; the register field stays. Returns their length. */
static unsigned encode(struct gen *g, struct gen_insn *n, uint8_t *at, const struct form *f)
{
	unsigned reg = at[0] & 0x38, size = 4, mod = 2, len = 1;
	bool sib = f->index >= 0 || (f->base & 7) == 4;

	if (f->disp == (int8_t)f->disp && rng_percent(&g->r, 80)) {
		mod = 1;
		size = 1;
	}
	if (!f->disp && (f->base & 7) != 5 && rng_percent(&g->r, 60))
		mod = size = 0;
	at[0] = (uint8_t)(mod << 6 | reg | (sib ? 4u : (unsigned)f->base & 7));
	set_rex(n, 0, f->base >> 3 & 1);
	if (sib) {
		unsigned index = f->index >= 0 ? (unsigned)f->index : 4;

		at[len++] = (uint8_t)(f->scale << 6 | (index & 7) << 3 | (f->base & 7));
		set_rex(n, 1, index >> 3 & 1);
	}
	return len + put_disp(at + len, f->disp, size);
}

/* No registers: an absolute address. */
static unsigned encode_absolute(struct gen *g, struct gen_insn *n, uint8_t *at, uint32_t addr)
{
	unsigned reg = at[0] & 0x38, len = 1;

	if (g->k->compat && rng_percent(&g->r, 70)) {
		at[0] = (uint8_t)(reg | 5);
	} else {
		at[0] = (uint8_t)(reg | 4);
		at[len++] = 0x25;
		set_rex(n, 1, false);
	}
	return len + put_disp(at + len, (int32_t)addr, 4);
}

/* The operand of the instruction before, as loops have it. */
static bool repeat_address(struct gen *g, struct gen_insn *n, unsigned modrm)
{
	unsigned reg = n->bytes[modrm] & 0x38;

	if (g->theme != THEME_FLOAT || !g->address_len || !rng_percent(&g->r, 60) ||
	    (n->rex < 0 && n->vex < 0 && g->address_rex))
		return false;
	memcpy(n->bytes + modrm, g->address, g->address_len);
	n->bytes[modrm] = (uint8_t)((n->bytes[modrm] & 0xc7) | reg);
	set_rex(n, 0, g->address_rex & 1);
	set_rex(n, 1, g->address_rex >> 1 & 1);
	return true;
}

static void note_address(struct gen *g, const struct gen_insn *n, unsigned modrm, unsigned len)
{
	memcpy(g->address, n->bytes + modrm, len);
	g->address_len = len;
	g->address_rex = n->vex >= 0 ? (~n->bytes[n->vex + 1] >> 5 & 3u) :
			 n->rex < 0 ? 0 : n->bytes[n->rex] & 3;
}

void gen_readdress(struct gen *g, struct gen_insn *n)
{
	const ZydisDecodedInstruction *in = &n->insn;
	unsigned modrm = in->raw.modrm.offset, size = 0, len, rest;
	unsigned how = rng_below(&g->r, 100);
	uint8_t tail[8];
	uint32_t target;
	uint64_t addr;
	struct form f;

	for (unsigned i = 0; i < in->operand_count; i++)
		if (n->ops[i].type == ZYDIS_OPERAND_TYPE_MEMORY &&
		    n->ops[i].visibility == ZYDIS_OPERAND_VISIBILITY_EXPLICIT)
			size = n->ops[i].size / 8;
	if (how < 3 || in->address_width == 16)
		return;
	rest = (unsigned)(in->raw.disp.size / 8 + (in->raw.sib.offset ? 1 : 0) + 1);
	memcpy(tail, n->bytes + modrm + rest, sizeof tail);
	if (repeat_address(g, n, modrm)) {
		memcpy(n->bytes + modrm + g->address_len, tail, sizeof tail);
		return;
	}
	target = gen_target(g, size);
	addr = target - segment_base(g, n);
	if (how < 12 && !g->k->compat) {	/* RIP-relative: filled in later */
		n->bytes[modrm] = (uint8_t)((n->bytes[modrm] & 0x38) | 5);
		len = 5;
		n->target = addr;
		n->target_known = true;
	} else if (how >= 18 && solve(g, n, addr, how > 65, &f)) {
		len = encode(g, n, n->bytes + modrm, &f);
		g->pinned |= (uint16_t)(1u << f.base | (f.index >= 0 ? 1u << f.index : 0));
		note_address(g, n, modrm, len);
	} else {
		len = encode_absolute(g, n, n->bytes + modrm, (uint32_t)addr);
	}
	memcpy(n->bytes + modrm + len, tail, sizeof tail);
	patch_noise(g, target);
}

void gen_rip_relative(struct gen_insn *n)
{
	const ZydisDecodedInstruction *in = &n->insn;

	if (n->target_known && in->attributes & ZYDIS_ATTRIB_IS_RELATIVE && in->raw.disp.size == 32)
		store32(n->bytes + in->raw.disp.offset,
			(uint32_t)(n->target - (n->rip + in->length)));
}

static bool register_value(struct gen *g, ZydisRegister reg, uint64_t *v)
{
	int id = ZydisRegisterGetId(reg);

	*v = 0;
	if (reg == ZYDIS_REGISTER_NONE)
		return true;
	if (id < 0 || id > 15 || g->changed >> id & 1)
		return false;
	*v = g->k->in.gpr[id];
	g->pinned |= (uint16_t)(1u << id);
	return true;
}

bool gen_linear(struct gen *g, struct gen_insn *n, uint64_t *lin)
{
	const ZydisDecodedInstruction *in = &n->insn;
	uint64_t base, index;

	for (unsigned i = 0; i < in->operand_count; i++) {
		const ZydisDecodedOperand *o = &n->ops[i];

		if (o->type != ZYDIS_OPERAND_TYPE_MEMORY ||
		    o->visibility != ZYDIS_OPERAND_VISIBILITY_EXPLICIT)
			continue;
		if (o->mem.base == ZYDIS_REGISTER_RIP || o->mem.base == ZYDIS_REGISTER_EIP)
			base = n->rip + in->length;
		else if (!register_value(g, o->mem.base, &base))
			return false;
		if (!register_value(g, o->mem.index, &index) || in->address_width == 16)
			return false;
		*lin = base + index * o->mem.scale + (uint64_t)o->mem.disp.value;
		if (in->address_width == 32)
			*lin = (uint32_t)*lin;
		if (segment_base(g, n) && g->bases_changed)
			return false;
		*lin = gen_truncate(g, *lin + segment_base(g, n));
		return true;
	}
	return false;
}
