/*
 * What the machine starts: a Linux bzImage (64-bit protocol), an ELF with a
 * PVH note, or a multiboot (1) ELF; and the tables that firmware would build.
 *
 * boot_load reads and checks the files once; boot_place writes them into RAM
 * and sets the boot processor's registers, at power-on and at every reset.
 */
#ifndef SKEP_BOOT_BOOT_H
#define SKEP_BOOT_BOOT_H

#include "base/error.h"

struct vm;

/* Keys boot.kernel, boot.initrd, boot.cmdline, boot.demo. vm thread. */
int boot_load(struct vm *vm, struct skep_error *e);
int boot_place(struct vm *vm, struct skep_error *e);
void boot_unload(struct vm *vm);

#endif
