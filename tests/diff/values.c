/* Random numbers, and operands that are worth trying. */
#include "diff.h"

/* xoshiro256**, seeded by splitmix64. */
void rng_seed(struct rng *r, uint64_t seed, uint64_t number)
{
	uint64_t x = seed * 0x9e3779b97f4a7c15ull ^ number;

	for (unsigned i = 0; i < 4; i++) {
		uint64_t z = x += 0x9e3779b97f4a7c15ull;

		z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
		z = (z ^ z >> 27) * 0x94d049bb133111ebull;
		r->s[i] = z ^ z >> 31;
	}
}

static uint64_t rotl(uint64_t v, unsigned n)
{
	return v << n | v >> (64 - n);
}

uint64_t rng_next(struct rng *r)
{
	uint64_t *s = r->s, result = rotl(s[1] * 5, 7) * 9, t = s[1] << 17;

	s[2] ^= s[0];
	s[3] ^= s[1];
	s[1] ^= s[2];
	s[0] ^= s[3];
	s[2] ^= t;
	s[3] = rotl(s[3], 45);
	return result;
}

uint64_t value_int(struct rng *r)
{
	uint64_t v = rng_next(r);
	unsigned n = v >> 8 & 63;

	switch (v & 31) {
	case 0: return 0;
	case 1: return 1;
	case 2: return UINT64_MAX;
	case 3: return BIT(n);
	case 4: return BIT(n) - 1;
	case 5: return 0 - BIT(n);
	case 6: return BIT(n) + (v >> 16 & 7) - 4;
	case 7: case 8: return v >> 16 & 0xff;
	case 9: return 0 - (v >> 16 & 0xff);
	case 10: return 0x80 + (v >> 16 & 3) - 2;
	case 11: return 0x8000 + (v >> 16 & 3) - 2;
	case 12: return 0x80000000ull + (v >> 16 & 3) - 2;
	case 13: return 0x8000000000000000ull + (v >> 16 & 3) - 2;
	case 14: return 0xffffffff80000000ull + (v >> 16 & 3) - 2;
	case 15: return 0x0101010101010101ull * (v >> 16 & 0xff);
	case 16: case 17: return v >> 48;
	case 18: case 19: return v >> 32;
	case 20: return (uint64_t)((int64_t)v >> 32);
	case 21: return (uint64_t)((int64_t)v >> (v >> 8 & 63));
	case 22: return v >> 16 & 63;
	default: return rng_next(r);
	}
}

static uint32_t single(struct rng *r)
{
	static const uint32_t edge[] = {
		0x00000000, 0x3f800000, 0x40000000, 0x3f000000, 0x7f800000, 0x7fc00000, 0x7f800001,
		0x7fbfffff, 0x7fffffff, 0x00000001, 0x007fffff, 0x00800000, 0x7f7fffff, 0x4effffff,
		0x4f000000, 0x4f800000, 0x5f000000, 0x3eaaaaab, 0x40490fdb, 0x4b000000, 0x4b7fffff,
	};
	uint64_t v = rng_next(r);

	switch (v & 7) {
	case 0: return (uint32_t)(v >> 32);
	case 1: case 2:		/* near one another, so that sums cancel and round */
		return (uint32_t)(v >> 32 & 0x807fffff) | (uint32_t)(120 + (v >> 8 & 15)) << 23;
	case 3:			/* near both ends of the range */
		return (uint32_t)(v >> 32 & 0x807fffff) |
		       (uint32_t)(v & 8 ? v >> 8 & 3 : 0xfe - (v >> 8 & 3)) << 23;
	default: return edge[(v >> 8) % ARRAY_SIZE(edge)] | (uint32_t)(v >> 32 & 0x80000000);
	}
}

static uint64_t dbl(struct rng *r)
{
	static const uint64_t edge[] = {
		0, 0x3ff0000000000000, 0x4000000000000000, 0x3fe0000000000000, 0x7ff0000000000000,
		0x7ff8000000000000, 0x7ff0000000000001, 0x7ff7ffffffffffff, 0x7fffffffffffffff, 1,
		0x000fffffffffffff, 0x0010000000000000, 0x7fefffffffffffff, 0x41dfffffffc00000,
		0x41e0000000000000, 0x43e0000000000000, 0x47efffffe0000000, 0x36a0000000000000,
		0x380fffffffffffff, 0x3fd5555555555555, 0x400921fb54442d18, 0x4330000000000000,
	};
	uint64_t v = rng_next(r);

	switch (v & 7) {
	case 0: return rng_next(r);
	case 1: case 2:
		return (rng_next(r) & 0x800fffffffffffff) | (1016 + (v >> 8 & 15)) << 52;
	case 3:
		return (rng_next(r) & 0x800fffffffffffff) |
		       (v & 8 ? v >> 8 & 3 : 0x7fe - (v >> 8 & 3)) << 52;
	default: return edge[(v >> 8) % ARRAY_SIZE(edge)] | (v & BIT(63));
	}
}

void value_vector(struct rng *r, uint8_t out[16])
{
	switch (rng_below(r, 8)) {
	case 0: case 1: case 2:
		for (unsigned i = 0; i < 4; i++)
			store32(out + 4 * i, single(r));
		break;
	case 3: case 4: case 5:
		store64(out, dbl(r));
		store64(out + 8, dbl(r));
		break;
	default:
		store64(out, value_int(r));
		store64(out + 8, value_int(r));
	}
}

void value_x87(struct rng *r, uint8_t out[10])
{
	static const struct { uint16_t e; uint64_t m; } edge[] = {
		{ 0, 0 }, { 0x3fff, BIT(63) }, { 0x4000, BIT(63) }, { 0x3ffe, BIT(63) },
		{ 0x7fff, BIT(63) },			/* infinity */
		{ 0x7fff, 0xc000000000000000 },		/* the default NaN */
		{ 0x7fff, 0x8000000000000001 },		/* signalling */
		{ 0x7fff, 0xffffffffffffffff },
		{ 0x7fff, 0 }, { 0x7fff, 1 },		/* pseudo-infinity, pseudo-NaN */
		{ 0, 1 }, { 0, 0x7fffffffffffffff },	/* denormal */
		{ 0, BIT(63) }, { 0, 0xffffffffffffffff },	/* pseudo-denormal */
		{ 1, BIT(63) }, { 0x7ffe, 0xffffffffffffffff },
		{ 0x3fff, 0x4000000000000000 }, { 0x4000, 1 },	/* unnormal */
		{ 0x4000, 0xc90fdaa22168c235 },		/* pi */
		{ 0x403d, 0xffffffffffffffff }, { 0x403e, BIT(63) },
		{ 0x401d, 0xfffffffe00000000 }, { 0x401e, BIT(63) }, { 0x400e, BIT(63) },
		{ 0x3f81, BIT(63) }, { 0x3c01, BIT(63) }, { 0x407e, 0xffffff0000000000 },
		{ 0x43fe, 0xfffffffffffff800 },
		{ 0x3ffd, 0xb504f333f9de6484 },
	};
	uint64_t v = rng_next(r);
	uint16_t e;
	uint64_t m;

	switch (v & 7) {
	case 0:
		e = (uint16_t)(v >> 16);
		m = rng_next(r);
		break;
	case 1: case 2:
		e = (uint16_t)(0x3ff0 + (v >> 16 & 31));
		m = rng_next(r) | BIT(63);
		break;
	case 3: {		/* a small or large whole number */
		uint64_t n = (rng_next(r) >> (v >> 16 & 63)) | 1;
		unsigned up = (unsigned)__builtin_clzll(n);

		e = (uint16_t)(0x3fff + 63 - up);
		m = n << up;
		break;
	}
	default:
		e = edge[(v >> 16) % ARRAY_SIZE(edge)].e;
		m = edge[(v >> 16) % ARRAY_SIZE(edge)].m;
	}
	store64(out, m);
	store16(out + 8, (uint16_t)((e & 0x7fff) | (v >> 48 & 0x8000)));
}

uint32_t value_mxcsr(struct rng *r)
{
	uint64_t v = rng_next(r);
	uint32_t m = 0x1f80;

	if ((v & 7) == 0)
		m = v >> 32 & 0x1f80;
	else if ((v & 7) == 1)
		m &= ~(0x80u << (v >> 32) % 6);
	m |= v >> 40 & 0x6000;			/* rounding */
	if ((v & 0x30) == 0)
		m |= v >> 40 & 0x8040;		/* FTZ, DAZ */
	if (v & 0x40)
		m |= v >> 50 & 0x3f;		/* flags */
	return m;
}
