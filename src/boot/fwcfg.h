/*
 * fw_cfg: QEMU's interface by which firmware and kernels read the machine's
 * tables (QEMU docs/specs/fw_cfg).  Selector 0x510, data 0x511, DMA 0x514.
 *
 * Items are added before the VM runs.  Device lock held for everything.
 */
#ifndef SKEP_BOOT_FWCFG_H
#define SKEP_BOOT_FWCFG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "vm/device.h"

/* Numeric items. */
#define FWCFG_SIGNATURE		0x00
#define FWCFG_ID		0x01
#define FWCFG_UUID		0x02
#define FWCFG_RAM_SIZE		0x03
#define FWCFG_NOGRAPHIC		0x04
#define FWCFG_NB_CPUS		0x05
#define FWCFG_KERNEL_ADDR	0x07
#define FWCFG_KERNEL_SIZE	0x08
#define FWCFG_KERNEL_CMDLINE	0x09
#define FWCFG_INITRD_ADDR	0x0a
#define FWCFG_INITRD_SIZE	0x0b
#define FWCFG_BOOT_DEVICE	0x0c
#define FWCFG_NUMA		0x0d
#define FWCFG_BOOT_MENU		0x0e
#define FWCFG_MAX_CPUS		0x0f
#define FWCFG_KERNEL_ENTRY	0x10
#define FWCFG_CMDLINE_ADDR	0x13
#define FWCFG_CMDLINE_SIZE	0x14
#define FWCFG_CMDLINE_DATA	0x15
#define FWCFG_SETUP_ADDR	0x16
#define FWCFG_SETUP_SIZE	0x17
#define FWCFG_SETUP_DATA	0x18
#define FWCFG_FILE_DIR		0x19
#define FWCFG_FILE_FIRST	0x20
#define FWCFG_FILE_SLOTS	96
#define FWCFG_NAME_MAX		55	/* without the NUL */

struct fwcfg;

extern const struct device_type fwcfg_type;
extern const struct state_record fwcfg_record;

/* Makes the device at FWCFG_BASE with the items that every machine has. */
struct fwcfg *fwcfg_create(struct vm *vm, struct skep_error *e);
/* The VM's fw_cfg, or NULL before fwcfg_create. */
struct fwcfg *fwcfg_of(struct vm *vm);

/* data is copied.  An item that exists is replaced. */
int fwcfg_set_item(struct fwcfg *f, uint16_t key, const void *data, size_t len,
		   struct skep_error *e);
/* writable: the guest may write it by DMA. */
int fwcfg_set_file(struct fwcfg *f, const char *name, const void *data, size_t len,
		   bool writable, struct skep_error *e);
/*
 * Bytes of a file that is there, in place; no file by that name or too short a one is left alone.
 * Nobody is told.
 */
void fwcfg_update_file(struct fwcfg *f, const char *name, size_t offset, const void *data,
		       size_t len);
/*
 * The same as the guest does it by DMA, whom the loader acts for: only a writable file, and who asked
 * for it is told.  -EINVAL: no such bytes.
 */
int fwcfg_write_file(struct fwcfg *f, const char *name, size_t offset, const void *data,
		     size_t len);
/* Calls fn after the guest has written to the file, which may be there later. While it is made. */
int fwcfg_on_write(struct fwcfg *f, const char *name, void (*fn)(void *opaque), void *opaque,
		   struct skep_error *e);
/* Contents of a file; NULL if there is none.  Valid until the file is replaced. */
const uint8_t *fwcfg_get_file(const struct fwcfg *f, const char *name, size_t *len);

#endif
