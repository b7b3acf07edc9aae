/* The 9P fuzzer's target, for libFuzzer and for replay_p9. */
#ifndef SKEP_TESTS_FUZZ_P9_H
#define SKEP_TESTS_FUZZ_P9_H

#include <stddef.h>
#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);
int LLVMFuzzerInitialize(int *argc, char ***argv);

extern unsigned long fuzz_answers, fuzz_successes;

#endif
