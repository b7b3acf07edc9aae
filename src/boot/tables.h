/*
 * The tables by which the machine describes itself: ACPI and SMBIOS.
 *
 * They are built once as blobs in fw_cfg, with QEMU's loader script beside
 * them that tells firmware how to lay them out in memory and link them
 * (etc/table-loader).  On direct boot we are the firmware and run the script.
 */
#ifndef SKEP_BOOT_TABLES_H
#define SKEP_BOOT_TABLES_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "boot/blob.h"

struct vm;
struct fwcfg;

/* Builds every table file into fw_cfg. Before the VM runs. */
int tables_build(struct vm *vm, struct fwcfg *f, struct skep_error *e);
/* Runs the script into 0xe0000-0xfffff; *rsdp is where the ACPI root lies. Device lock. */
int tables_place(struct vm *vm, struct fwcfg *f, uint64_t *rsdp, struct skep_error *e);

/* The loader script (loader.c). */
enum loader_zone { LOADER_HIGH = 1, LOADER_FSEG = 2 };

void loader_allocate(struct blob *script, const char *file, uint32_t align, enum loader_zone zone);
/* The size-byte integer at dest+offset gets src's address added. */
void loader_add_pointer(struct blob *script, const char *dest, uint32_t offset, uint8_t size,
			const char *src);
/* The byte at file+offset makes [start, start + length) sum to zero. */
void loader_add_checksum(struct blob *script, const char *file, uint32_t offset, uint32_t start,
			 uint32_t length);

/* The 8 bytes at the start of dest, a writable fw_cfg file, become src's address. */
void loader_write_pointer(struct blob *script, const char *dest, const char *src);

/*
 * The side of the script that runs it: files of f are given places in
 * [0xe0000, 1 MiB), patched in copies, and written to guest memory at the end.
 */
#define LOADER_MAX_FILES 8

struct loader_file {
	char name[56];
	uint8_t *data;
	size_t len;
	uint64_t address;
};

struct loader {
	struct vm *vm;
	struct fwcfg *fwcfg;
	uint64_t next[2];		/* free address in zone HIGH and FSEG */
	struct loader_file file[LOADER_MAX_FILES];
	unsigned nfiles;
};

void loader_init(struct loader *l, struct vm *vm, struct fwcfg *f);
void loader_finish(struct loader *l);
/* A script that does not hold together is an error, whoever wrote it. */
int loader_run(struct loader *l, const uint8_t *script, size_t len, struct skep_error *e);
/* Writes every allocated file to its place. */
int loader_write(struct loader *l, struct skep_error *e);
/* Then tells fw_cfg what the script wants it to know: where files lie. */
int loader_tell(struct loader *l, const uint8_t *script, size_t len, struct skep_error *e);
/* Where a file was put; 0: nowhere. */
uint64_t loader_address(const struct loader *l, const char *name);

#define FILE_ACPI_TABLES	"etc/acpi/tables"
#define FILE_ACPI_RSDP		"etc/acpi/rsdp"
#define FILE_LOADER		"etc/table-loader"
#define FILE_SMBIOS_TABLES	"etc/smbios/smbios-tables"
#define FILE_SMBIOS_ANCHOR	"etc/smbios/smbios-anchor"

/* Pages that devices share with the guest (page.h), and where firmware says that they lie. */
#define FILE_VMGENID		"etc/vmgenid_guid"
#define FILE_VMGENID_ADDR	"etc/vmgenid_addr"
#define FILE_VMCLOCK		"etc/vmclock"
#define FILE_VMCLOCK_ADDR	"etc/vmclock_addr"

/* Offset of the entry point's address field in the SMBIOS anchor. */
#define SMBIOS_ANCHOR_ADDRESS	16

/*
 * Appends every ACPI table to tables, the root pointer to rsdp, and the links
 * to script.  phys_bits: width of the processor's physical addresses.
 */
void acpi_build(const struct vm *vm, unsigned phys_bits, struct blob *tables, struct blob *rsdp,
		struct blob *script);
/*
 * Appends the AML of the DSDT (dsdt.c).  Says where in it the 32-bit addresses of shared pages
 * stand, which the script adds; 0: the machine has no such device.
 */
struct dsdt_pages { size_t vmgenid, vmclock; };
struct dsdt_pages dsdt_build(const struct vm *vm, unsigned phys_bits, struct blob *aml);
/* SMBIOS 3 structures and entry point; its address and checksum are left zero. */
void smbios_build(const struct vm *vm, struct blob *tables, struct blob *anchor);

#endif
