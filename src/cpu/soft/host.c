#include "cpu/soft/host.h"

#include <errno.h>

#include "base/util.h"

static const struct { unsigned bit; const char *name; } names[] = {
	{ HOST_SSE42, "SSE4.2" }, { HOST_POPCNT, "POPCNT" }, { HOST_AES, "AES" },
	{ HOST_PCLMULQDQ, "PCLMULQDQ" }, { HOST_AVX, "AVX" }, { HOST_AVX2, "AVX2" },
	{ HOST_BMI1, "BMI1" }, { HOST_BMI2, "BMI2" }, { HOST_FMA, "FMA" }, { HOST_F16C, "F16C" },
	{ HOST_LZCNT, "LZCNT" },
};

#define EVERY_MODEL (HOST_SSE42 | HOST_POPCNT | HOST_AES | HOST_PCLMULQDQ)
#define MODEL_V3 (HOST_AVX | HOST_AVX2 | HOST_BMI1 | HOST_BMI2 | HOST_FMA | HOST_F16C | HOST_LZCNT)

unsigned soft_host_features(void)
{
#define HAS(name, bit) (__builtin_cpu_supports(name) ? (unsigned)(bit) : 0u)
	return HAS("sse4.2", HOST_SSE42) | HAS("popcnt", HOST_POPCNT) | HAS("aes", HOST_AES) |
	       HAS("pclmul", HOST_PCLMULQDQ) | HAS("avx", HOST_AVX) | HAS("avx2", HOST_AVX2) |
	       HAS("bmi", HOST_BMI1) | HAS("bmi2", HOST_BMI2) | HAS("fma", HOST_FMA) |
	       HAS("f16c", HOST_F16C) | HAS("lzcnt", HOST_LZCNT);
#undef HAS
}

int soft_host_check(const struct cpu_model *m, unsigned has, struct skep_error *e)
{
	unsigned missing = (EVERY_MODEL | (m->v3 ? MODEL_V3 : 0)) & ~has;

	for (unsigned i = 0; i < ARRAY_SIZE(names); i++) {
		if (!(missing & names[i].bit))
			continue;
		if (EVERY_MODEL & names[i].bit)
			return skep_fail(e, ENOTSUP, "backend=soft: this host's processor has no %s, which "
					 "the soft processor runs on", names[i].name);
		return skep_fail(e, ENOTSUP, "cpu.model=%s: this host's processor has no %s; skep-v2.1 does "
				 "without", m->name, names[i].name);
	}
	return 0;
}
