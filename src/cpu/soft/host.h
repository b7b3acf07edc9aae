/* What the host's processor must have: the handlers are its own instructions. */
#ifndef SKEP_CPU_SOFT_HOST_H
#define SKEP_CPU_SOFT_HOST_H

#include "base/error.h"
#include "cpu/model.h"

/* Features that a model may need, as bits. */
enum {
	HOST_SSE42 = 1, HOST_POPCNT = 2, HOST_AES = 4, HOST_PCLMULQDQ = 8,
	HOST_AVX = 16, HOST_AVX2 = 32, HOST_BMI1 = 64, HOST_BMI2 = 128, HOST_FMA = 256,
	HOST_F16C = 512, HOST_LZCNT = 1024,
};

/* Those that this host has and its kernel lets programs use. */
unsigned soft_host_features(void);
/* -ENOTSUP and a sentence that names the first one that the model needs and `has` does not have. */
int soft_host_check(const struct cpu_model *m, unsigned has, struct skep_error *e);

#endif
