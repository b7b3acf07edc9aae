/*
 * The demonstration guest, built into the command: what is here boots with
 * nothing else installed.  Its source is in demo/.
 */
#ifndef SKEP_BOOT_DEMO_H
#define SKEP_BOOT_DEMO_H

#include <stddef.h>

/* A multiboot (1) ELF; static. Any thread. */
const void *demo_image(size_t *size);

#endif
