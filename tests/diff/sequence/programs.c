/*
 * Programs.  Some registers are pointers to begin with, and seldom written; some are small; the
 * others hold what is worth computing with.  An opcode comes from a table, its operand bytes are
 * chosen here, the rest is noise, and the decoder says how long it all is.
 */
#include "cpu/soft/vex.h"
#include "sequence.h"

enum { M1, M0F, M38, M3A };	/* opcode maps */

#define F_MODRM	0x01
#define F_MEM	0x02		/* memory operand only */
#define F_BYTE	0x04		/* registers 4-7 are AH to BH without REX */
#define F_LOCK	0x08		/* may be locked */
#define F_REP	0x10
#define F_WIDE	0x20		/* 66 and REX.W are operand sizes */

struct form {
	uint8_t map, from, to;	/* opcodes */
	int8_t ext;		/* /n of ModRM, or -1 */
	uint8_t prefix;		/* mandatory: 0x66, 0xf3, 0xf2; 1: one of these or none; 0: none */
	uint8_t flags, weight;
};

#define ALU(n) \
	{ M1, (n) * 8, (n) * 8, -1, 0, F_MODRM | F_BYTE | F_LOCK, 3 }, \
	{ M1, (n) * 8 + 1, (n) * 8 + 1, -1, 0, F_MODRM | F_WIDE | F_LOCK, 10 }, \
	{ M1, (n) * 8 + 2, (n) * 8 + 2, -1, 0, F_MODRM | F_BYTE, 3 }, \
	{ M1, (n) * 8 + 3, (n) * 8 + 3, -1, 0, F_MODRM | F_WIDE, 8 }, \
	{ M1, (n) * 8 + 4, (n) * 8 + 5, -1, 0, F_WIDE, 2 }, \
	{ M1, 0x80, 0x80, (n), 0, F_MODRM | F_BYTE | F_LOCK, 2 }, \
	{ M1, 0x81, 0x81, (n), 0, F_MODRM | F_WIDE | F_LOCK, 2 }, \
	{ M1, 0x83, 0x83, (n), 0, F_MODRM | F_WIDE | F_LOCK, 4 }

#define SHIFT(n) \
	{ M1, 0xc0, 0xc0, (n), 0, F_MODRM | F_BYTE, 1 }, { M1, 0xc1, 0xc1, (n), 0, F_MODRM | F_WIDE, 3 }, \
	{ M1, 0xd0, 0xd0, (n), 0, F_MODRM | F_BYTE, 1 }, { M1, 0xd1, 0xd1, (n), 0, F_MODRM | F_WIDE, 2 }, \
	{ M1, 0xd2, 0xd2, (n), 0, F_MODRM | F_BYTE, 1 }, { M1, 0xd3, 0xd3, (n), 0, F_MODRM | F_WIDE, 3 }

static const struct form forms[] = {
	ALU(0), ALU(1), ALU(2), ALU(3), ALU(4), ALU(5), ALU(6), ALU(7),
	SHIFT(0), SHIFT(1), SHIFT(2), SHIFT(3), SHIFT(4), SHIFT(5), SHIFT(7),
	{ M1, 0x84, 0x84, -1, 0, F_MODRM | F_BYTE, 3 }, { M1, 0x85, 0x85, -1, 0, F_MODRM | F_WIDE, 6 },
	{ M1, 0x86, 0x86, -1, 0, F_MODRM | F_BYTE, 2 }, { M1, 0x87, 0x87, -1, 0, F_MODRM | F_WIDE, 3 },
	{ M1, 0x88, 0x88, -1, 0, F_MODRM | F_BYTE, 5 }, { M1, 0x89, 0x89, -1, 0, F_MODRM | F_WIDE, 14 },
	{ M1, 0x8a, 0x8a, -1, 0, F_MODRM | F_BYTE, 4 }, { M1, 0x8b, 0x8b, -1, 0, F_MODRM | F_WIDE, 14 },
	{ M1, 0x8d, 0x8d, -1, 0, F_MODRM | F_MEM | F_WIDE, 8 }, { M1, 0x63, 0x63, -1, 0, F_MODRM | F_WIDE, 3 },
	{ M1, 0xc6, 0xc6, 0, 0, F_MODRM | F_BYTE, 3 }, { M1, 0xc7, 0xc7, 0, 0, F_MODRM | F_WIDE, 4 },
	{ M1, 0xb0, 0xb7, -1, 0, F_BYTE, 3 }, { M1, 0xb8, 0xbf, -1, 0, F_WIDE, 3 },
	{ M1, 0xfe, 0xfe, 0, 0, F_MODRM | F_BYTE | F_LOCK, 2 }, { M1, 0xfe, 0xfe, 1, 0, F_MODRM | F_BYTE, 2 },
	{ M1, 0xff, 0xff, 0, 0, F_MODRM | F_WIDE | F_LOCK, 5 }, { M1, 0xff, 0xff, 1, 0, F_MODRM | F_WIDE | F_LOCK, 5 },
	{ M1, 0xff, 0xff, 6, 0, F_MODRM, 4 }, { M1, 0x8f, 0x8f, 0, 0, F_MODRM, 3 },
	{ M1, 0xf6, 0xf6, 0, 0, F_MODRM | F_BYTE, 1 }, { M1, 0xf7, 0xf7, 0, 0, F_MODRM | F_WIDE, 2 },
	{ M1, 0xf6, 0xf6, 2, 0, F_MODRM | F_BYTE | F_LOCK, 1 }, { M1, 0xf7, 0xf7, 2, 0, F_MODRM | F_WIDE | F_LOCK, 3 },
	{ M1, 0xf6, 0xf6, 3, 0, F_MODRM | F_BYTE, 1 }, { M1, 0xf7, 0xf7, 3, 0, F_MODRM | F_WIDE | F_LOCK, 3 },
	{ M1, 0xf6, 0xf6, 4, 0, F_MODRM | F_BYTE, 1 }, { M1, 0xf7, 0xf7, 4, 0, F_MODRM | F_WIDE, 2 },
	{ M1, 0xf6, 0xf6, 5, 0, F_MODRM | F_BYTE, 1 }, { M1, 0xf7, 0xf7, 5, 0, F_MODRM | F_WIDE, 2 },
	{ M1, 0xf6, 0xf6, 6, 0, F_MODRM | F_BYTE, 1 }, { M1, 0xf7, 0xf7, 6, 0, F_MODRM | F_WIDE, 1 },
	{ M1, 0xf6, 0xf6, 7, 0, F_MODRM | F_BYTE, 1 }, { M1, 0xf7, 0xf7, 7, 0, F_MODRM | F_WIDE, 1 },
	{ M1, 0x69, 0x69, -1, 0, F_MODRM | F_WIDE, 3 }, { M1, 0x6b, 0x6b, -1, 0, F_MODRM | F_WIDE, 3 },
	{ M1, 0x50, 0x57, -1, 0, 0, 14 }, { M1, 0x58, 0x5f, -1, 0, 0, 8 },
	{ M1, 0x68, 0x68, -1, 0, 0, 2 }, { M1, 0x6a, 0x6a, -1, 0, 0, 2 },
	{ M1, 0x98, 0x99, -1, 0, F_WIDE, 4 }, { M1, 0x9c, 0x9c, -1, 0, 0, 5 }, { M1, 0x9d, 0x9d, -1, 0, 0, 2 },
	{ M1, 0x9e, 0x9f, -1, 0, 0, 5 }, { M1, 0xf5, 0xf5, -1, 0, 0, 3 }, { M1, 0xf8, 0xf9, -1, 0, 0, 4 },
	{ M1, 0xfc, 0xfd, -1, 0, 0, 2 }, { M1, 0x90, 0x97, -1, 0, F_WIDE, 3 }, { M1, 0xd7, 0xd7, -1, 0, 0, 1 },
	{ M1, 0xa4, 0xa5, -1, 0, F_WIDE | F_REP, 4 }, { M1, 0xa6, 0xa7, -1, 0, F_WIDE | F_REP, 2 },
	{ M1, 0xaa, 0xaf, -1, 0, F_WIDE | F_REP, 6 }, { M1, 0xc8, 0xc8, -1, 0, 0, 1 },
	{ M1, 0xc9, 0xc9, -1, 0, 0, 2 }, { M1, 0xcc, 0xcc, -1, 0, 0, 1 }, { M1, 0xd8, 0xdf, -1, 0, F_MODRM, 8 },
	{ M0F, 0x40, 0x4f, -1, 0, F_MODRM | F_WIDE, 18 }, { M0F, 0x90, 0x9f, -1, 0, F_MODRM | F_BYTE, 18 },
	{ M0F, 0xa3, 0xa3, -1, 0, F_MODRM | F_WIDE, 3 }, { M0F, 0xab, 0xab, -1, 0, F_MODRM | F_WIDE | F_LOCK, 2 },
	{ M0F, 0xb3, 0xb3, -1, 0, F_MODRM | F_WIDE | F_LOCK, 2 }, { M0F, 0xbb, 0xbb, -1, 0, F_MODRM | F_WIDE, 2 },
	{ M0F, 0xba, 0xba, 4, 0, F_MODRM | F_WIDE, 2 }, { M0F, 0xba, 0xba, 5, 0, F_MODRM | F_WIDE | F_LOCK, 2 },
	{ M0F, 0xba, 0xba, 6, 0, F_MODRM | F_WIDE, 1 }, { M0F, 0xba, 0xba, 7, 0, F_MODRM | F_WIDE, 1 },
	{ M0F, 0xa4, 0xa5, -1, 0, F_MODRM | F_WIDE, 3 }, { M0F, 0xac, 0xad, -1, 0, F_MODRM | F_WIDE, 3 },
	{ M0F, 0xaf, 0xaf, -1, 0, F_MODRM | F_WIDE, 5 }, { M0F, 0xb0, 0xb0, -1, 0, F_MODRM | F_BYTE | F_LOCK, 2 },
	{ M0F, 0xb1, 0xb1, -1, 0, F_MODRM | F_WIDE | F_LOCK, 4 }, { M0F, 0xc0, 0xc0, -1, 0, F_MODRM | F_BYTE | F_LOCK, 2 },
	{ M0F, 0xc1, 0xc1, -1, 0, F_MODRM | F_WIDE | F_LOCK, 4 }, { M0F, 0xc7, 0xc7, 1, 0, F_MODRM | F_MEM | F_WIDE | F_LOCK, 2 },
	{ M0F, 0xc8, 0xcf, -1, 0, F_WIDE, 2 }, { M0F, 0xb6, 0xb6, -1, 0, F_MODRM | F_WIDE | F_BYTE, 5 },
	{ M0F, 0xb7, 0xb7, -1, 0, F_MODRM | F_WIDE, 4 }, { M0F, 0xbe, 0xbe, -1, 0, F_MODRM | F_WIDE | F_BYTE, 4 },
	{ M0F, 0xbf, 0xbf, -1, 0, F_MODRM | F_WIDE, 3 }, { M0F, 0xbc, 0xbd, -1, 0, F_MODRM | F_WIDE, 3 },
	{ M0F, 0xb8, 0xb8, -1, 0xf3, F_MODRM | F_WIDE, 2 }, { M0F, 0x1f, 0x1f, 0, 0, F_MODRM, 2 },
	{ M0F, 0x31, 0x31, -1, 0, 0, 2 }, { M0F, 0xae, 0xae, -1, 1, F_MODRM, 2 },
	{ M0F, 0x10, 0x17, -1, 1, F_MODRM, 8 }, { M0F, 0x28, 0x29, -1, 1, F_MODRM, 5 },
	{ M0F, 0x2a, 0x2d, -1, 1, F_MODRM | F_WIDE, 6 }, { M0F, 0x2e, 0x2f, -1, 1, F_MODRM, 6 },
	{ M0F, 0x50, 0x5f, -1, 1, F_MODRM, 14 }, { M0F, 0x60, 0x76, -1, 1, F_MODRM, 16 },
	{ M0F, 0x7e, 0x7f, -1, 1, F_MODRM | F_WIDE, 6 }, { M0F, 0x6e, 0x6f, -1, 1, F_MODRM | F_WIDE, 6 },
	{ M0F, 0xc2, 0xc2, -1, 1, F_MODRM, 2 }, { M0F, 0xc4, 0xc6, -1, 1, F_MODRM, 4 },
	{ M0F, 0xd0, 0xfe, -1, 1, F_MODRM, 20 }, { M0F, 0x77, 0x77, -1, 0, 0, 1 },
	{ M38, 0x00, 0x1e, -1, 1, F_MODRM, 6 }, { M38, 0x20, 0x41, -1, 1, F_MODRM, 5 },
	{ M38, 0xf0, 0xf1, -1, 1, F_MODRM | F_WIDE, 3 }, { M3A, 0x08, 0x22, -1, 1, F_MODRM | F_WIDE, 5 },
	{ M3A, 0x60, 0x63, -1, 0x66, F_MODRM, 1 },
};

/* ---- Registers ---------------------------------------------------------------------- */

static const uint8_t pointers[] = { 3, 5, 6, 7, 12, 13, 14, 4 };

static bool is_pointer(unsigned reg)
{
	return memchr(pointers, (int)reg, sizeof pointers);
}

struct maker {
	struct rng r;
	struct program *p;
	ZydisDecoder decoder;
	bool v3;
	struct { uint16_t insn; uint8_t at, size; } link[SEQ_MAX_INSNS];	/* to another instruction */
	unsigned nlinks;
};

static uint64_t target(struct maker *m)
{
	struct program *p = m->p;
	static const uint8_t pages[] = { 0, 0, 0, 1, 1, 4, 4, 4, 5, 5, 0, 1, SEQ_DATA_RO, SEQ_DATA_HOLE };
	unsigned page = pages[rng_below(&m->r, sizeof pages)], how = rng_below(&m->r, 100);
	uint32_t code = rng_percent(&m->r, 50) ? SEQ_CODE : SEQ_ALIAS;
	unsigned off = rng_below(&m->r, 0x1000);

	if (p->writes_code && rng_percent(&m->r, 30))
		return code + (p->start - SEQ_CODE) + rng_below(&m->r, 150) - 10;
	if (rng_percent(&m->r, 6))	/* data beside the code */
		return code + (p->start - SEQ_CODE + 0x800 + off % 0x400) % (SEQ_CODE_PAGES * 0x1000);
	if (how < 60)
		off &= ~15u;
	else if (how < 85)
		off = 0x1000 - rng_below(&m->r, 24);
	return SEQ_DATA + page * 0x1000 + off;
}

/* A register to compute with: pointers stay what they are, mostly. */
static unsigned value_register(struct maker *m, bool high)
{
	unsigned reg;

	do {
		reg = rng_below(&m->r, high ? 16 : 8);
	} while (is_pointer(reg) && rng_percent(&m->r, reg == 4 ? 95 : 75));
	return reg;
}

static void make_registers(struct maker *m)
{
	struct program *p = m->p;
	uint64_t *gpr = p->in.gpr;

	for (unsigned i = 0; i < 16; i++)
		gpr[i] = value_int(&m->r);
	for (unsigned i = 0; i < sizeof pointers; i++)
		gpr[pointers[i]] = target(m);
	gpr[1] = rng_below(&m->r, 12);
	gpr[9] = rng_below(&m->r, 64);
	if (rng_percent(&m->r, 95)) {
		gpr[4] = SEQ_DATA + 4 * 0x1000 + 0x200 + rng_below(&m->r, 0xd00) * (rng_percent(&m->r, 20) ? 1 : 0);
		if (rng_percent(&m->r, 90))
			gpr[4] &= ~7ull;
		/* A stack that comes to an end. */
		if (rng_percent(&m->r, 12))
			gpr[4] = SEQ_DATA + 4 * 0x1000 + rng_below(&m->r, 6) * 8;
	}
	p->in.rflags = (rng_next(&m->r) & RFLAGS_STATUS) | 2;
	if (rng_percent(&m->r, 10))
		p->in.rflags |= RFLAGS_DF;
	if (rng_percent(&m->r, 2))
		p->in.rflags |= RFLAGS_AC;
	p->in.fs_base = rng_below(&m->r, 32);
	p->in.gs_base = 0x1000;
}

static void make_fpu(struct maker *m)
{
	struct fx_image *x = &m->p->in.fx;

	memset(x, 0, sizeof *x);
	x->fcw = rng_percent(&m->r, 90) ? 0x37f : (uint16_t)(0x340 | rng_below(&m->r, 64));
	x->fsw = (uint16_t)(rng_below(&m->r, 8) << 11);
	x->ftw = rng_percent(&m->r, 50) ? 0xff : (uint8_t)rng_next(&m->r);
	for (unsigned i = 0; i < 8; i++)
		value_x87(&m->r, x->st[i]);
	for (unsigned i = 0; i < 16; i++)
		value_vector(&m->r, x->xmm[i]);
	memset(m->p->in.ymmh, 0, sizeof m->p->in.ymmh);
	/* Or nothing there, which the translator treats as a case of its own. */
	for (unsigned i = 0; m->v3 && rng_percent(&m->r, 96) && i < 16; i++)
		value_vector(&m->r, m->p->in.ymmh[i]);
	x->mxcsr = rng_percent(&m->r, 80) ? 0x1f80 : value_mxcsr(&m->r);
}

/* ---- One instruction --------------------------------------------------------------------- */

struct making {
	uint8_t b[32];
	unsigned n;
	int rex;		/* where the REX prefix is, or -1 */
};

static const struct form *choose_form(struct maker *m)
{
	static unsigned total;
	unsigned at;

	if (!total)
		for (unsigned i = 0; i < ARRAY_SIZE(forms); i++)
			total += forms[i].weight;
	at = rng_below(&m->r, total);
	for (unsigned i = 0;; i++) {
		if (at < forms[i].weight)
			return &forms[i];
		at -= forms[i].weight;
	}
}

static void put_prefixes(struct maker *m, const struct form *f, struct making *k)
{
	static const uint8_t mandatory[] = { 0, 0x66, 0xf3, 0xf2 };
	uint8_t prefix = f->prefix == 1 ? mandatory[rng_below(&m->r, 4)] : f->prefix;
	unsigned size = rng_below(&m->r, 100);

	if (rng_percent(&m->r, 2))
		k->b[k->n++] = rng_percent(&m->r, 50) ? 0x64 : 0x65;
	if (f->flags & F_LOCK && rng_percent(&m->r, 12))
		k->b[k->n++] = 0xf0;
	if (f->flags & F_REP && rng_percent(&m->r, 60))
		k->b[k->n++] = rng_percent(&m->r, 50) ? 0xf3 : 0xf2;
	if (f->flags & F_WIDE && !f->prefix && size < 12)
		k->b[k->n++] = 0x66;
	if (prefix)
		k->b[k->n++] = prefix;
	k->rex = -1;
	if (size >= 45 || rng_percent(&m->r, 30)) {
		k->rex = (int)k->n;
		k->b[k->n++] = 0x40 | (f->flags & F_WIDE && size >= 45 ? 8 : 0);
	}
}

static void put_opcode(struct maker *m, const struct form *f, struct making *k)
{
	unsigned op = f->from + rng_below(&m->r, f->to - f->from + 1u);

	if (f->map != M1)
		k->b[k->n++] = 0x0f;
	if (f->map >= M38)
		k->b[k->n++] = f->map == M38 ? 0x38 : 0x3a;
	/* Where the opcode names a register. */
	if (!(f->flags & F_MODRM) && f->to - f->from == 7 && f->from != 0x90 && f->from != 0x50) {
		unsigned reg = value_register(m, k->rex >= 0);

		op = f->from + (reg & 7);
		if (reg > 7)
			k->b[k->rex] |= 1;
	}
	k->b[k->n++] = (uint8_t)op;
}

static void put_modrm(struct maker *m, const struct form *f, struct making *k)
{
	unsigned reg = f->ext >= 0 ? (unsigned)f->ext : value_register(m, k->rex >= 0);
	unsigned how = rng_below(&m->r, 100), base, mod;
	bool sib;

	if (reg > 7)
		k->b[k->rex] |= 4;
	if (!(f->flags & F_MEM) && rng_percent(&m->r, 45)) {
		unsigned rm = value_register(m, k->rex >= 0);

		if (rm > 7)
			k->b[k->rex] |= 1;
		k->b[k->n++] = (uint8_t)(0xc0 | (reg & 7) << 3 | (rm & 7));
		return;
	}
	if (how < 8) {		/* relative to RIP: the displacement is put in later */
		k->b[k->n++] = (uint8_t)((reg & 7) << 3 | 5);
		return;
	}
	do {
		base = pointers[rng_below(&m->r, sizeof pointers)];
	} while (base > 7 && k->rex < 0);
	if (base > 7)
		k->b[k->rex] |= 1;
	mod = (base & 7) == 5 ? 1 + rng_below(&m->r, 2) : rng_below(&m->r, 3);
	sib = (base & 7) == 4 || how < 25;
	k->b[k->n++] = (uint8_t)(mod << 6 | (reg & 7) << 3 | (sib ? 4 : base & 7));
	if (sib) {
		/* RCX and R9 are small to begin with. */
		bool r9 = k->rex >= 0 && rng_percent(&m->r, 50);
		unsigned index = how >= 25 ? 4 : 1;

		if (index == 1 && r9)
			k->b[k->rex] |= 2;
		k->b[k->n++] = (uint8_t)(rng_below(&m->r, 4) << 6 | index << 3 | (base & 7));
	}
	if (mod == 1)
		k->b[k->n++] = (uint8_t)rng_next(&m->r);
	if (mod == 2) {
		store32(k->b + k->n, (uint32_t)((int)rng_below(&m->r, 0x3000) - 0x1800));
		k->n += 4;
	}
}

static bool finish(struct maker *m, struct making *k)
{
	ZydisDecodedInstruction insn;
	ZydisDecodedOperand ops[ZYDIS_MAX_OPERAND_COUNT];
	struct program *p = m->p;
	struct vex_insn vex;

	for (unsigned i = k->n; i < sizeof k->b; i++)
		k->b[i] = (uint8_t)rng_next(&m->r);
	/* Small immediates now and then. */
	if (rng_percent(&m->r, 30))
		memset(k->b + k->n + 1, rng_percent(&m->r, 50) ? 0 : 0xff, 6);
	if (!ZYAN_SUCCESS(rule_decode(&m->decoder, k->b, &insn, ops)))
		return false;
	if (insn.encoding == ZYDIS_INSTRUCTION_ENCODING_VEX && !vex_parse(&vex, &insn, ops, true))
		return false;
	if (insn.attributes & ZYDIS_ATTRIB_HAS_MODRM && insn.raw.modrm.mod == 0 && insn.raw.modrm.rm == 5 &&
	    insn.raw.disp.size == 32)
		store32(k->b + insn.raw.disp.offset,
			(uint32_t)target(m) - (p->start + p->len + insn.length));
	memcpy(p->code + p->len, k->b, insn.length);
	p->off[p->ninsns++] = (uint16_t)p->len;
	p->len += insn.length;
	return true;
}

/* A VEX prefix of three bytes and any opcode behind it: most are none, and another is tried. */
static bool make_vex(struct maker *m)
{
	static const struct form any = { .ext = -1, .flags = F_MODRM };
	static const uint8_t map_of[] = { 1, 1, 2, 2, 3 };
	unsigned map = map_of[rng_below(&m->r, sizeof map_of)];
	unsigned vvvv = rng_percent(&m->r, 35) ? 0 : value_register(m, true);
	struct making k = { .n = 4, .rex = 1 };

	k.b[0] = 0xc4;
	k.b[2] = (uint8_t)(rng_percent(&m->r, 35) << 7 | (~vvvv & 15) << 3 | rng_below(&m->r, 8));
	k.b[3] = (uint8_t)rng_next(&m->r);
	put_modrm(m, &any, &k);
	k.b[1] = (uint8_t)((~k.b[1] & 7u) << 5 | map);
	return finish(m, &k);
}

static bool make_insn(struct maker *m)
{
	const struct form *f = choose_form(m);
	struct making k = { .n = 0 };

	if (m->v3 && rng_percent(&m->r, 60))
		return make_vex(m);
	put_prefixes(m, f, &k);
	put_opcode(m, f, &k);
	if (f->flags & F_MODRM)
		put_modrm(m, f, &k);
	return finish(m, &k);
}

/* ---- Flow ------------------------------------------------------------------------------------ */

static void put(struct maker *m, const void *bytes, unsigned n, unsigned link_at, unsigned link_size)
{
	struct program *p = m->p;

	if (link_size) {
		m->link[m->nlinks].insn = (uint16_t)p->ninsns;
		m->link[m->nlinks].at = (uint8_t)link_at;
		m->link[m->nlinks++].size = (uint8_t)link_size;
	}
	memcpy(p->code + p->len, bytes, n);
	p->off[p->ninsns++] = (uint16_t)p->len;
	p->len += n;
}

/* lea target(%rip), %r10 or %r11, and later a jump or a call there. */
static void make_indirect(struct maker *m)
{
	unsigned reg = rng_below(&m->r, 2);
	uint8_t lea[7] = { 0x4c, 0x8d, (uint8_t)(0x15 | reg << 3) };
	uint8_t jump[3] = { 0x41, 0xff, (uint8_t)((rng_percent(&m->r, 50) ? 0xe2 : 0xd2) | reg) };

	put(m, lea, 7, 3, 4);
	if (rng_percent(&m->r, 40) && m->p->ninsns < SEQ_MAX_INSNS - 2)
		make_insn(m);
	put(m, jump, 3, 0, 0);
}

/* lea target(%rip), %rdi, and a string instruction that stores there: over itself, now and then. */
static void make_overwrite(struct maker *m)
{
	static const uint8_t rep[][3] = { { 0xf3, 0xaa }, { 0xf3, 0x48, 0xab }, { 0xf3, 0xa4 }, { 0xf3, 0x66, 0xab } };
	static const uint8_t lea[7] = { 0x48, 0x8d, 0x3d };
	unsigned how = rng_below(&m->r, ARRAY_SIZE(rep)), len = rep[how][2] ? 3 : 2;

	put(m, lea, 7, 3, 4);
	if (rng_percent(&m->r, 50)) {
		/* A little before where it stands itself. */
		m->nlinks--;
		store32(m->p->code + m->p->len - 4, 0u - rng_below(&m->r, 24) + 8);
	}
	put(m, rep[how], len, 0, 0);
}

static void make_branch(struct maker *m)
{
	unsigned how = rng_below(&m->r, 100);
	uint8_t b[6] = { 0 };

	if (how < 45) {
		b[0] = (uint8_t)(0x70 | rng_below(&m->r, 16));
		put(m, b, 2, 1, 1);
	} else if (how < 55) {
		b[0] = 0x0f;
		b[1] = (uint8_t)(0x80 | rng_below(&m->r, 16));
		put(m, b, 6, 2, 4);
	} else if (how < 62) {
		b[0] = 0xeb;
		put(m, b, 2, 1, 1);
	} else if (how < 68) {
		b[0] = (uint8_t)(0xe0 + rng_below(&m->r, 4));
		put(m, b, 2, 1, 1);
	} else if (how < 80) {
		b[0] = 0xe8;
		put(m, b, 5, 1, 4);
	} else if (how < 90) {
		b[0] = rng_percent(&m->r, 85) ? 0xc3 : 0xc2;
		b[1] = (uint8_t)(rng_below(&m->r, 4) * 8);
		put(m, b, b[0] == 0xc3 ? 1 : 3, 0, 0);
	} else if (m->p->ninsns < SEQ_MAX_INSNS - 3) {
		make_indirect(m);
	}
}

/* dec; jnz back: what loops in programs look like. */
static void make_loop_end(struct maker *m)
{
	static const uint8_t dec[2] = { 0xff, 0xc9 };
	uint8_t jnz[2] = { 0x75, 0 };

	put(m, dec, 2, 0, 0);
	put(m, jnz, 2, 1, 1);
}

static uint32_t boundary(struct maker *m, unsigned insn)
{
	struct program *p = m->p;

	return p->start + (insn < p->ninsns ? p->off[insn] : p->len);
}

static void resolve(struct maker *m)
{
	struct program *p = m->p;

	for (unsigned i = 0; i < m->nlinks; i++) {
		unsigned insn = m->link[i].insn, at = p->off[insn] + m->link[i].at;
		uint32_t next = boundary(m, insn + 1), to;
		int32_t rel;

		do {
			to = boundary(m, rng_below(&m->r, p->ninsns + 1));
			rel = (int32_t)(to - next);
		} while (m->link[i].size == 1 && rel != (int8_t)rel);
		memcpy(p->code + at, &rel, m->link[i].size);
	}
}

/* Data: values to compute with; on the stack addresses to return to. */
static void make_data(struct maker *m)
{
	struct program *p = m->p;

	for (unsigned i = 0; i < sizeof p->data; i += 16)
		value_vector(&m->r, p->data + i);
	for (unsigned i = 4 * 0x1000; i < 5 * 0x1000; i += 8)
		if (rng_percent(&m->r, 60))
			store64(p->data + i, boundary(m, rng_below(&m->r, p->ninsns + 1)));
}

void program_make(struct program *p, uint64_t seed, uint64_t number, bool v3)
{
	struct maker m = { .p = p, .v3 = v3 };
	unsigned want;

	memset(p, 0, offsetof(struct program, in));
	p->seed = seed;
	p->number = number;
	rng_seed(&m.r, seed, number);
	rule_decoder(&m.decoder, false);
	p->loops = rng_percent(&m.r, 50);
	p->writes_code = rng_percent(&m.r, 20);
	want = 5 + rng_below(&m.r, SEQ_MAX_INSNS - 10);
	p->start = SEQ_CODE + (rng_percent(&m.r, 40) ? 0x1000 - rng_below(&m.r, 120) :
			       16 + rng_below(&m.r, 0x1800));
	p->start = MIN(p->start, SEQ_CODE + SEQ_CODE_PAGES * 0x1000 - SEQ_MAX_BYTES - 16);
	make_registers(&m);
	make_fpu(&m);
	p->in.rip = p->start;
	while (p->ninsns < want) {
		if (p->writes_code && rng_percent(&m.r, 5))
			make_overwrite(&m);
		else if (p->loops && rng_percent(&m.r, 18))
			make_branch(&m);
		else if (p->loops && rng_percent(&m.r, 4))
			make_loop_end(&m);
		else
			make_insn(&m);
	}
	resolve(&m);
	make_data(&m);
}

/* ---- In words ----------------------------------------------------------------------------------- */

void program_print(const struct program *p, const uint8_t *code, FILE *out)
{
	ZydisDecoder z;
	ZydisFormatter f;
	ZydisDecodedInstruction insn;
	ZydisDecodedOperand ops[ZYDIS_MAX_OPERAND_COUNT];
	char text[128];

	rule_decoder(&z, false);
	ZydisFormatterInit(&f, ZYDIS_FORMATTER_STYLE_INTEL);
	for (unsigned i = 0; i < p->ninsns; i++) {
		unsigned at = p->off[i], len = (i + 1 < p->ninsns ? p->off[i + 1] : p->len) - at;
		bool nops = true;

		for (unsigned j = 0; j < len; j++)
			nops &= code[at + j] == 0x90;
		if (nops)
			continue;
		fprintf(out, "    %08x  ", p->start + at);
		for (unsigned j = 0; j < len; j++)
			fprintf(out, "%02x", code[at + j]);
		if (ZYAN_SUCCESS(rule_decode(&z, code + at, &insn, ops)) &&
		    ZYAN_SUCCESS(ZydisFormatterFormatInstruction(&f, &insn, ops, insn.operand_count_visible,
								 text, sizeof text, p->start + at, NULL)))
			fprintf(out, "  %s", text);
		fprintf(out, "\n");
	}
}
