/*
 * What the machine starts: a Linux bzImage (64-bit protocol), an ELF with a
 * PVH note, or a multiboot (1) ELF; and the tables that firmware would build.
 * The format is told by content.
 *
 * boot_load opens and checks the files once; boot_place writes them into RAM
 * and sets the boot processor's registers, at power-on and at every reset.
 */
#ifndef SKEP_BOOT_BOOT_H
#define SKEP_BOOT_BOOT_H

#include "base/error.h"

struct vm;

/*
 * Keys boot.kernel, boot.initrd, boot.cmdline, boot.demo.  Also builds the
 * tables into fw_cfg, so the chip set must exist.  With no kernel set it
 * succeeds, and boot_place is what refuses.  vm thread.
 */
int boot_load(struct vm *vm, struct skep_error *e);
/*
 * After every device and vcpus[0] were reset: sets up the chip set as firmware
 * would (PAM, ECAM, power management), places tables and kernel.
 * vm thread, device lock held, no vCPU running.
 */
int boot_place(struct vm *vm, struct skep_error *e);
void boot_unload(struct vm *vm);	/* without boot_load: fine */

#endif
