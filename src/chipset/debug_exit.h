/*
 * The exit port of test kernels (QEMU's isa-debug-exit): writing V to port
 * 0xf4 ends the process with exit code (V << 1) | 1.  lpc.debug_exit=true.
 */
#ifndef SKEP_CHIPSET_DEBUG_EXIT_H
#define SKEP_CHIPSET_DEBUG_EXIT_H

#include "vm/device.h"

extern const struct device_type debug_exit_type;

/* Does nothing unless lpc.debug_exit is set.  vm thread, before any vCPU, device lock. */
int debug_exit_create(struct vm *vm, struct skep_error *e);

#endif
