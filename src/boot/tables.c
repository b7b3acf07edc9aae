#include "boot/tables.h"

#include <errno.h>

#include "boot/fwcfg.h"
#include "boot/place.h"
#include "vm/vm.h"

/* Firmware finds SMBIOS by its file names; we use the same commands on ourselves. */
static void smbios_script(struct blob *script)
{
	loader_allocate(script, FILE_SMBIOS_ANCHOR, 16, LOADER_FSEG);
	loader_allocate(script, FILE_SMBIOS_TABLES, 16, LOADER_FSEG);
	loader_add_pointer(script, FILE_SMBIOS_ANCHOR, SMBIOS_ANCHOR_ADDRESS, 8,
			   FILE_SMBIOS_TABLES);
	loader_add_checksum(script, FILE_SMBIOS_ANCHOR, 5, 0, 24);
}

static int put_file(struct fwcfg *f, const char *name, const struct blob *b, struct skep_error *e)
{
	if (b->failed)
		return skep_fail(e, ENOMEM, "no memory left for the machine's tables");
	return fwcfg_set_file(f, name, b->data, b->len, false, e);
}

int tables_build(struct vm *vm, struct fwcfg *f, struct skep_error *e)
{
	struct blob acpi = { 0 }, rsdp = { 0 }, script = { 0 }, smbios = { 0 }, anchor = { 0 };
	int r;

	acpi_build(vm, place_phys_bits(vm), &acpi, &rsdp, &script);
	smbios_build(vm, &smbios, &anchor);
	r = put_file(f, FILE_ACPI_TABLES, &acpi, e);
	if (!r)
		r = put_file(f, FILE_ACPI_RSDP, &rsdp, e);
	if (!r)
		r = put_file(f, FILE_LOADER, &script, e);
	if (!r)
		r = put_file(f, FILE_SMBIOS_TABLES, &smbios, e);
	if (!r)
		r = put_file(f, FILE_SMBIOS_ANCHOR, &anchor, e);
	blob_free(&acpi);
	blob_free(&rsdp);
	blob_free(&script);
	blob_free(&smbios);
	blob_free(&anchor);
	return r;
}

int tables_place(struct vm *vm, struct fwcfg *f, uint64_t *rsdp, struct skep_error *e)
{
	struct blob smbios = { 0 };
	struct loader l;
	const uint8_t *script;
	size_t len;
	int r;

	script = fwcfg_get_file(f, FILE_LOADER, &len);
	if (!script)
		return skep_fail(e, ENOENT, "the machine's tables were not built");
	smbios_script(&smbios);
	if (smbios.failed) {
		blob_free(&smbios);
		return skep_fail(e, ENOMEM, "no memory left for the machine's tables");
	}
	loader_init(&l, vm, f);
	r = loader_run(&l, script, len, e);
	if (!r)
		r = loader_run(&l, smbios.data, smbios.len, e);
	if (!r)
		r = loader_write(&l, e);
	if (!r)
		r = loader_tell(&l, script, len, e);
	*rsdp = loader_address(&l, FILE_ACPI_RSDP);
	loader_finish(&l);
	blob_free(&smbios);
	return r;
}
