/*
 * libFuzzer's target for whoever loads a snapshot: `make fuzz` builds it with clang, with the
 * mutator of tests/hostile beside libFuzzer's own, from the corpus in tests/fuzz/corpus.  `make
 * check` sends that corpus through the same function (replay.c), without clang.
 *
 * An input is a snapshot, or one with its holes left out (sparse_pack).  A delta finds its
 * parent in the corpus.
 */
#include "hostile.h"

#include <stdlib.h>
#include <string.h>

#include "base/util.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);
int LLVMFuzzerInitialize(int *argc, char ***argv);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t len, size_t max, unsigned seed);
size_t LLVMFuzzerMutate(uint8_t *data, size_t len, size_t max) __attribute__((weak));

unsigned long fuzz_accepted;

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	hostile_begin();
	return 0;
}

/* Which options the restore gets follows from the bytes alone. */
static uint64_t sum(const uint8_t *data, size_t len)
{
	uint64_t h = 0xcbf29ce484222325ull;

	while (len--)
		h = (h ^ *data++) * 0x100000001b3ull;
	return h ^ h >> 32;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	const struct hostile_options o = { .path = SKEP_CORPUS "/input", .choice = sum(data, len),
					   .insns = 2000 };
	size_t size = len;
	uint8_t *whole = sparse_unpack(data, len, &size);

	fuzz_accepted += hostile_load(whole ? whole : data, size, &o, NULL) == HOSTILE_ACCEPTED;
	free(whole);
	return 0;
}

/* A change that leaves a snapshot a snapshot; where the bytes are none, libFuzzer's own. */
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t len, size_t max, unsigned seed)
{
	struct rng r = { seed };
	size_t size = len, n;
	uint8_t *whole = sparse_unpack(data, len, &size), *out, *packed;
	struct image m;

	if (rng_chance(&r, 10) || !image_parse(&m, whole ? whole : data, size)) {
		free(whole);
		return LLVMFuzzerMutate ? LLVMFuzzerMutate(data, len, max) : len;
	}
	mutate(&m, &r, &m, 1);
	out = image_bytes(&m, &n);
	packed = whole ? sparse_pack(out, n, &n) : out;
	if (n <= max) {
		memcpy(data, packed, n);
		len = n;
	}
	if (whole)
		free(packed);
	free(out);
	free(whole);
	image_free(&m);
	return len;
}
