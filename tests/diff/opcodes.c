/* Which opcodes, how often, behind which prefixes. */
#include "generate.h"

/*
 * Weights by opcode.  A range that comes later overrides an earlier one.  Groups, whose ModRM
 * selects the instruction, weigh more.
 */
struct row { uint8_t first, last, weight; };

static const struct row one_byte[] = {
	{ 0x00, 0xff, 2 },
	{ 0x00, 0x3f, 3 },
	{ 0x0f, 0x0f, 0 }, { 0x26, 0x26, 0 }, { 0x2e, 0x2e, 0 }, { 0x36, 0x36, 0 },
	{ 0x3e, 0x3e, 0 }, { 0x64, 0x67, 0 }, { 0xf0, 0xf0, 0 }, { 0xf2, 0xf3, 0 },
	{ 0x06, 0x07, 1 }, { 0x0e, 0x0e, 1 }, { 0x16, 0x17, 1 }, { 0x1e, 0x1f, 1 },
	{ 0x40, 0x4f, 1 }, { 0x50, 0x5f, 1 }, { 0x63, 0x63, 6 }, { 0x62, 0x62, 2 },
	{ 0x69, 0x69, 8 }, { 0x6b, 0x6b, 8 }, { 0x6c, 0x6f, 1 }, { 0x70, 0x7f, 1 },
	{ 0x80, 0x81, 10 }, { 0x83, 0x83, 10 }, { 0x84, 0x8b, 5 }, { 0x8d, 0x8d, 5 },
	{ 0x8f, 0x8f, 4 }, { 0x90, 0x97, 1 }, { 0x9a, 0x9a, 1 }, { 0x9c, 0x9d, 4 },
	{ 0xa4, 0xa7, 10 }, { 0xaa, 0xaf, 10 }, { 0xb0, 0xbf, 1 }, { 0xc0, 0xc1, 20 },
	{ 0xc2, 0xc3, 4 }, { 0xc4, 0xc5, 3 }, { 0xc8, 0xc9, 4 }, { 0xca, 0xcb, 0 },
	{ 0xcc, 0xcf, 1 }, { 0xd0, 0xd3, 20 }, { 0xd6, 0xd6, 1 }, { 0xd8, 0xdf, 36 },
	{ 0xe0, 0xe3, 5 }, { 0xe4, 0xe7, 1 }, { 0xe8, 0xe9, 4 }, { 0xec, 0xef, 1 },
	{ 0xf1, 0xf1, 1 }, { 0xf4, 0xf4, 1 }, { 0xf6, 0xf7, 30 }, { 0xfa, 0xfb, 1 },
	{ 0xfe, 0xfe, 5 }, { 0xff, 0xff, 14 },
};

static const struct row two_byte[] = {
	{ 0x00, 0xff, 4 },
	{ 0x05, 0x05, 0 }, { 0x07, 0x07, 1 }, { 0x34, 0x34, 0 }, { 0x35, 0x35, 1 }, { 0x38, 0x38, 0 }, { 0x3a, 0x3a, 0 },
	{ 0x00, 0x01, 2 }, { 0x06, 0x09, 1 }, { 0x0a, 0x0f, 1 }, { 0x18, 0x1f, 1 },
	{ 0x20, 0x23, 1 }, { 0x24, 0x27, 1 }, { 0x30, 0x33, 1 }, { 0x36, 0x3f, 1 },
	{ 0x80, 0x8f, 1 }, { 0xa2, 0xa2, 0 }, { 0xa3, 0xa5, 6 }, { 0xa6, 0xa7, 1 },
	{ 0xab, 0xad, 6 }, { 0xae, 0xae, 40 }, { 0xaf, 0xaf, 10 }, { 0xb0, 0xb1, 8 },
	{ 0xb3, 0xb3, 6 }, { 0xb2, 0xb2, 1 }, { 0xb4, 0xb5, 1 }, { 0xb9, 0xb9, 1 }, { 0xba, 0xba, 10 },
	{ 0xbb, 0xbd, 6 }, { 0xc0, 0xc1, 6 }, { 0xc7, 0xc7, 10 }, { 0xff, 0xff, 1 },
};

static const struct row map_38[] = {
	{ 0x00, 0x0b, 4 }, { 0x10, 0x10, 4 }, { 0x14, 0x15, 4 }, { 0x17, 0x17, 4 },
	{ 0x1c, 0x1e, 4 }, { 0x20, 0x25, 4 }, { 0x28, 0x2b, 4 }, { 0x30, 0x35, 4 },
	{ 0x37, 0x41, 4 }, { 0x80, 0x82, 1 }, { 0xc8, 0xcd, 1 }, { 0xcf, 0xcf, 1 }, { 0xdb, 0xdf, 4 },
	{ 0xf0, 0xf1, 14 }, { 0xf5, 0xf9, 1 },
};

static const struct row map_3a[] = {
	{ 0x08, 0x0f, 4 }, { 0x14, 0x17, 4 }, { 0x20, 0x22, 4 }, { 0x40, 0x42, 4 },
	{ 0x44, 0x44, 4 }, { 0x60, 0x63, 8 }, { 0xcc, 0xcc, 1 }, { 0xce, 0xcf, 1 }, { 0xdf, 0xdf, 4 },
};

/* Maps, and a share of all instructions in percent. */
static const struct {
	const struct row *rows;
	unsigned nrows, share;
} maps[4] = {
	{ one_byte, ARRAY_SIZE(one_byte), 46 },
	{ two_byte, ARRAY_SIZE(two_byte), 37 },
	{ map_38, ARRAY_SIZE(map_38), 10 },
	{ map_3a, ARRAY_SIZE(map_3a), 7 },
};

/* Opcodes of a map, each as often as its weight. */
static struct { uint8_t op[1024]; unsigned n; } tickets[4];

static void make_tickets(void)
{
	for (unsigned m = 0; m < 4; m++) {
		uint8_t weight[256] = { 0 };

		for (unsigned i = 0; i < maps[m].nrows; i++)
			for (unsigned op = maps[m].rows[i].first; op <= maps[m].rows[i].last; op++)
				weight[op] = maps[m].rows[i].weight;
		tickets[m].n = 0;
		for (unsigned op = 0; op < 256; op++)
			for (unsigned w = 0; w < weight[op] && tickets[m].n < 1024; w++)
				tickets[m].op[tickets[m].n++] = (uint8_t)op;
	}
}

static bool is_string(unsigned op)
{
	return (op >= 0xa4 && op <= 0xa7) || (op >= 0xaa && op <= 0xaf) ||
	       (op >= 0x6c && op <= 0x6f);
}

/* Opcodes that LOCK goes with, should their operand be memory. */
static bool takes_lock(unsigned map, unsigned op)
{
	if (map == 0)
		return (op < 0x38 && (op & 7) < 2) || (op >= 0x80 && op <= 0x83) || op == 0x86 ||
		       op == 0x87 || op == 0xf6 || op == 0xf7 || op == 0xfe || op == 0xff;
	return map == 1 && (op == 0xab || op == 0xb3 || op == 0xba || op == 0xbb || op == 0xb0 ||
			    op == 0xb1 || op == 0xc0 || op == 0xc1 || op == 0xc7);
}

/* ---- Themes ------------------------------------------------------------------------- */

/* Register to register for the most part, with flags made, passed over and used. */
static unsigned integer_opcode(struct gen *g, struct gen_insn *n, unsigned len)
{
	static const uint8_t one[] = {
		0x01, 0x03, 0x09, 0x0b, 0x21, 0x23, 0x29, 0x2b, 0x31, 0x33, 0x39, 0x3b, 0x39, 0x3b,
		0x11, 0x1b, 0x81, 0x83, 0x81, 0x83, 0x85, 0x85, 0x89, 0x8b, 0x8d, 0x63, 0xc1, 0xd1,
		0xf7, 0xff, 0x69, 0x6b, 0x70, 0x72, 0x74, 0x75, 0x76, 0x78, 0x7a, 0x7c, 0x7e, 0x00,
		0x02, 0x38, 0x3c, 0x84, 0x80, 0xa8,
	};
	static const uint8_t two[] = {
		0x40, 0x42, 0x44, 0x46, 0x48, 0x4a, 0x4c, 0x4f, 0x90, 0x92, 0x94, 0x96, 0x9c, 0xaf,
		0xb6, 0xb7, 0xbe, 0xbf, 0xc8, 0xc9, 0xa3, 0xba,
	};

	if (rng_percent(&g->r, 25)) {
		n->bytes[len++] = 0x0f;
		n->bytes[len++] = two[rng_below(&g->r, ARRAY_SIZE(two))];
	} else {
		n->bytes[len++] = one[rng_below(&g->r, ARRAY_SIZE(one))];
	}
	return len;
}

/* Load, compute, store, on few registers. */
static unsigned float_opcode(struct gen *g, struct gen_insn *n, unsigned len)
{
	static const uint8_t ops[] = { 0x10, 0x11, 0x28, 0x29, 0x58, 0x59, 0x5c, 0x58, 0x59, 0x5e, 0x51 };

	n->bytes[len++] = 0x0f;
	n->bytes[len++] = ops[rng_below(&g->r, ARRAY_SIZE(ops))];
	return len;
}

static void themed_opcode(struct gen *g, struct gen_insn *n)
{
	static const uint8_t mandatory[] = { 0x66, 0xf2, 0xf3 };
	unsigned len = 0, pick = rng_below(&g->r, 4);

	n->rex = -1;
	if (g->theme == THEME_FLOAT) {
		if (pick < 3)
			n->bytes[len++] = mandatory[pick];
	} else if (rng_percent(&g->r, 8)) {
		n->bytes[len++] = 0x66;
	}
	if (!g->k->compat && rng_percent(&g->r, 60)) {
		n->rex = (int)len;
		n->bytes[len++] = (uint8_t)(0x40 | (rng_percent(&g->r, 70) ? 8 : 0) |
					    (g->theme == THEME_FLOAT ? 0 : rng_below(&g->r, 8)));
	}
	len = g->theme == THEME_FLOAT ? float_opcode(g, n, len) : integer_opcode(g, n, len);
	for (unsigned i = len; i < sizeof n->bytes; i++)
		n->bytes[i] = (uint8_t)rng_next(&g->r);
	if (rng_percent(&g->r, g->theme == THEME_FLOAT ? 40 : 85))
		n->bytes[len] |= 0xc0;
	if (g->theme == THEME_FLOAT)
		n->bytes[len] &= 0xcf;
}

/* ---- Any instruction ------------------------------------------------------------------ */

/* Prefixes in any order, REX last (or, seldom, ignored because it is not). */
static unsigned prefixes(struct gen *g, struct gen_insn *n, unsigned map, unsigned op)
{
	static const uint8_t segments[] = { 0x64, 0x65, 0x64, 0x65, 0x64, 0x65, 0x2e, 0x3e, 0x26, 0x36 };
	struct rng *r = &g->r;
	uint8_t p[8];
	unsigned count = 0, len = 0;
	bool rex_early = false;

	n->rex = -1;
	if (map == 0 ? rng_percent(r, is_string(op) ? 60 : 4) : rng_percent(r, 25))
		p[count++] = rng_percent(r, 50) ? 0xf3 : 0xf2;
	if (rng_percent(r, map == 0 ? 18 : map == 1 ? 32 : 65))
		p[count++] = 0x66;
	if (rng_percent(r, 6))
		p[count++] = 0x67;
	if (rng_percent(r, 6))
		p[count++] = segments[rng_below(r, ARRAY_SIZE(segments))];
	if (rng_percent(r, takes_lock(map, op) ? 35 : 1))
		p[count++] = 0xf0;
	for (unsigned i = count; i > 1; i--) {
		unsigned j = rng_below(r, i);
		uint8_t t = p[j];

		p[j] = p[i - 1];
		p[i - 1] = t;
	}
	if (rng_percent(r, 1))		/* many: up to and beyond 15 bytes */
		for (unsigned i = rng_below(r, 14); i; i--)
			n->bytes[len++] = rng_percent(r, 50) ? 0x66 : 0x2e;
	if (!g->k->compat && rng_percent(r, 1)) {
		n->bytes[len++] = (uint8_t)(0x40 | rng_below(r, 16));
		rex_early = true;
	}
	memcpy(n->bytes + len, p, count);
	len += count;
	if (!g->k->compat && rng_percent(r, rex_early ? 20 : 50)) {
		n->rex = (int)len;
		n->bytes[len++] = (uint8_t)(0x40 | rng_below(r, 16));
	}
	return len;
}

/* A VEX prefix and any opcode behind it: most are none, and another is tried. */
static unsigned vex_opcode(struct gen *g, struct gen_insn *n)
{
	static const uint8_t map_of[] = { 1, 1, 2, 2, 3 };
	struct rng *r = &g->r;
	unsigned len = 0, map = map_of[rng_below(r, sizeof map_of)], v, inverted = 7;
	bool w = rng_percent(r, 35), wide = rng_percent(r, 50);

	n->rex = n->vex = -1;
	if (rng_percent(r, 3))
		n->bytes[len++] = 0x67;
	if (rng_percent(r, 3))
		n->bytes[len++] = rng_percent(r, 50) ? 0x64 : 0x65;
	v = rng_percent(r, 35) ? 15 : rng_below(r, 16);
	if (!g->k->compat)
		inverted = rng_below(r, 8);
	else
		v |= rng_percent(r, 80) ? 8 : 0;
	v = v << 3 | wide << 2 | rng_below(r, 4);
	if (map == 1 && !w && rng_percent(r, 40)) {
		n->bytes[len++] = 0xc5;
		n->bytes[len++] = (uint8_t)((inverted & 4) << 5 | v | (g->k->compat ? 0x40 : 0));
	} else {
		n->vex = (int)len;
		n->bytes[len++] = 0xc4;
		n->bytes[len++] = (uint8_t)(inverted << 5 | map);
		n->bytes[len++] = (uint8_t)(w << 7 | v);
	}
	/* Gathers, most encodings of which are none. */
	if (map == 2 && rng_percent(r, 10))
		n->bytes[len++] = (uint8_t)(0x90 + rng_below(r, 4));
	else
		n->bytes[len++] = (uint8_t)rng_next(r);
	return len;
}

/* A ModRM and what may follow; registers in 40 %. */
static void noise_behind(struct rng *r, struct gen_insn *n, unsigned len)
{
	for (unsigned i = len; i < sizeof n->bytes; i += 8) {
		uint64_t v = rng_next(r);

		memcpy(n->bytes + i, &v, MIN((size_t)8, sizeof n->bytes - i));
	}
	if (rng_percent(r, 40))
		n->bytes[len] |= 0xc0;
	else if (n->bytes[len] >= 0xc0)
		n->bytes[len] &= 0x7f;
	/* Immediates behind it: small ones are shift counts and the like. */
	if (rng_percent(r, 30))
		n->bytes[len + 1] &= 0x3f;
}

void gen_opcode(struct gen *g, struct gen_insn *n)
{
	struct rng *r = &g->r;
	unsigned pick = rng_below(r, 100), map = 0, len, op;

	n->vex = -1;
	if (g->host->v3 && rng_percent(r, 60)) {
		noise_behind(r, n, vex_opcode(g, n));
		return;
	}
	if (g->theme != THEME_ANY && rng_percent(r, 95)) {
		themed_opcode(g, n);
		return;
	}
	if (!tickets[0].n)
		make_tickets();
	while (pick >= maps[map].share)
		pick -= maps[map++].share;
	op = tickets[map].op[rng_below(r, tickets[map].n)];
	len = prefixes(g, n, map, op);
	if (map)
		n->bytes[len++] = 0x0f;
	if (map >= 2)
		n->bytes[len++] = map == 2 ? 0x38 : 0x3a;
	n->bytes[len++] = (uint8_t)op;
	noise_behind(r, n, len);
}
