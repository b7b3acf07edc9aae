/*
 * Which exceptions a fused multiplication and addition raises where overflow or underflow is
 * unmasked (SDM vol. 1, 4.9.1.4, 4.9.1.5): as if exponents had no limits.  Its operands are brought
 * near one, where the host computes with the same rounding and nothing overflows; an addend too
 * far from the product to be more than a sticky bit is brought nearer.
 */
#include "cpu/soft/vex_strict.h"

/* A finite number other than zero is m * 2^e, 1 <= |m| < 2. */
struct number {
	double m;
	int e;
	bool zero, finite;
};

static struct number split(uint64_t v, unsigned bits, bool daz, bool negative)
{
	unsigned fraction = bits == 32 ? 23 : 52;
	int bias = bits == 32 ? 127 : 1023, e = (int)(v >> fraction & (bits == 32 ? 0xff : 0x7ff));
	uint64_t f = v & (BIT(fraction) - 1), m;
	struct number n = { .finite = e != 2 * bias + 1 };

	n.zero = !e && (!f || daz);
	if (n.zero || !n.finite)
		return n;
	if (!e) {
		unsigned up = (unsigned)__builtin_clzll(f) - (63 - fraction);

		f = f << up & (BIT(fraction) - 1);
		e = 1 - (int)up;
	}
	n.e = e - bias;
	m = 1023ull << 52 | f << (52 - fraction);
	if (negative != (v >> (bits - 1) & 1))
		m |= BIT(63);
	memcpy(&n.m, &m, 8);
	return n;
}

static double power(int e)
{
	uint64_t v = (uint64_t)(e + 1023) << 52;
	double d;

	memcpy(&d, &v, 8);
	return d;
}

/* a * b + c in that precision; the flags that come of it. The result's exponent in *e. */
static uint32_t compute(double a, double b, double c, unsigned bits, uint32_t control, int *e,
			bool *zero)
{
	uint32_t before = simd_host_mxcsr(), flags;
	uint64_t r = 0;

	simd_set_host_mxcsr((control & ~(MX_FTZ | MX_DAZ)) | MX_MASKS);
	if (bits == 32) {
		float x = (float)a, y = (float)b, z = (float)c;
		uint32_t v;

		asm volatile("vfmadd213ss %2, %1, %0" : "+x"(x) : "x"(y), "x"(z));
		memcpy(&v, &x, 4);
		*e = (int)(v >> 23 & 0xff) - 127;
		*zero = !(v << 1);
	} else {
		asm volatile("vfmadd213sd %2, %1, %0" : "+x"(a) : "x"(b), "x"(c));
		memcpy(&r, &a, 8);
		*e = (int)(r >> 52 & 0x7ff) - 1023;
		*zero = !(r << 1);
	}
	flags = simd_host_mxcsr() & MX_FLAGS;
	simd_set_host_mxcsr(before);
	return flags;
}

/* The same on the operands as they are, underflow masked: is the result exact? */
static bool inexact_when_masked(const struct fma *f, uint32_t control)
{
	uint32_t before = simd_host_mxcsr(), flags;
	uint64_t a = f->a ^ (f->negate_product ? BIT(f->bits - 1) : 0);
	uint64_t c = f->c ^ (f->negate_addend ? BIT(f->bits - 1) : 0);
	v2di x = { (long long)a, 0 }, y = { (long long)f->b, 0 }, z = { (long long)c, 0 };

	simd_set_host_mxcsr(control | MX_MASKS);
	if (f->bits == 32)
		asm volatile("vfmadd213ss %2, %1, %0" : "+x"(x) : "x"(y), "x"(z));
	else
		asm volatile("vfmadd213sd %2, %1, %0" : "+x"(x) : "x"(y), "x"(z));
	flags = simd_host_mxcsr() & MX_FLAGS;
	simd_set_host_mxcsr(before);
	return flags & MX_PE;
}

uint32_t strict_fma_flags(const struct soft_cpu *c, const struct fma *f)
{
	uint32_t mxcsr = c->s.fpu.mxcsr, masks = mxcsr >> 7, inexact;
	uint32_t control = mxcsr & MX_CONTROL;
	int far = f->bits == 32 ? 60 : 120, max = f->bits == 32 ? 127 : 1023, base, apart, e;
	struct number p = split(f->a, f->bits, mxcsr & MX_DAZ, f->negate_product);
	struct number q = split(f->b, f->bits, mxcsr & MX_DAZ, false);
	struct number r = split(f->c, f->bits, mxcsr & MX_DAZ, f->negate_addend);
	bool zero;

	if (!p.finite || !q.finite || !r.finite)
		return 0;
	/* A product of zero leaves the addend: exact, and perhaps tiny. */
	base = p.zero || q.zero ? r.e : p.e + q.e;
	apart = r.zero ? 0 : r.e - base;
	if (apart > far)
		base = r.e - far;
	apart = MAX(-far, MIN(far, apart));
	inexact = compute(p.zero || q.zero ? 0 : p.m, q.zero ? 0 : q.m, r.zero ? 0 : r.m * power(apart),
			  f->bits, control, &e, &zero) & MX_PE;
	if (zero)
		return 0;
	e += base;
	if (e > max)
		return MX_OE | (masks & MX_OE ? MX_PE : inexact);
	if (e >= 1 - max)
		return inexact;
	if (!(masks & MX_UE))
		return MX_UE | inexact;
	return inexact_when_masked(f, control) ? MX_UE | MX_PE : 0;
}
