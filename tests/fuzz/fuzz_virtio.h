/* libFuzzer's function, for those who call it without libFuzzer. */
#ifndef SKEP_TESTS_FUZZ_VIRTIO_H
#define SKEP_TESTS_FUZZ_VIRTIO_H

#include <stddef.h>
#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

#endif
