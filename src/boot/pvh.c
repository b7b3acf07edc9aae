/*
 * ELF kernels with a PVH entry (Xen, xen/include/public/arch-x86/hvm/start_info.h):
 * a 32-bit entry point, told about the machine by a structure in EBX.
 */
#include <errno.h>

#include "boot/image.h"
#include "vm/vm.h"

#define XEN_ELFNOTE_PHYS32_ENTRY	18

#define START_INFO_MAGIC	0x336ec578
#define START_INFO_SIZE		56
#define MODULE_SIZE		32
#define MEMMAP_SIZE		24

static bool pvh_detect(const struct boot_image *b, const uint8_t *head, size_t len)
{
	struct skep_error ignored = { 0 };
	struct elf_image elf;
	uint64_t entry;

	/* An ELF without the note is of another kind, or of none; see boot.c. */
	return elf_detect(head, len) && !elf_parse(&b->kernel, &elf, &ignored) &&
	       elf_find_note(&b->kernel, &elf, "Xen", XEN_ELFNOTE_PHYS32_ENTRY, &entry,
			     sizeof(entry), &ignored) > 0;
}

static int pvh_load(struct vm *vm, struct boot_image *b, struct skep_error *e)
{
	const struct boot_file *f = &b->kernel;
	struct placement scratch;
	uint64_t entry = 0;
	int r = elf_parse(f, &b->elf, e);

	if (r)
		return r;
	r = elf_find_note(f, &b->elf, "Xen", XEN_ELFNOTE_PHYS32_ENTRY, &entry, sizeof(entry), e);
	if (r < 0)
		return r;
	if ((r != 4 && r != 8) || entry > UINT32_MAX)
		return skep_fail(e, ENOEXEC, "%s: '%s' is a damaged ELF file (its PVH entry is not a "
				 "32-bit address): fetch or link it again", f->key, f->path);
	b->pvh_entry = entry;
	place_init(&scratch, vm);
	r = elf_claim(&scratch, f, &b->elf, e);
	if (!r && b->has_initrd)
		r = initrd_check(&b->initrd, &b->initrd_gzip, e);
	return r;
}

static int place_memmap(struct placement *p, uint64_t *base, struct skep_error *e)
{
	uint8_t map[E820_MAX * MEMMAP_SIZE] = { 0 };

	for (unsigned i = 0; i < p->nmap; i++) {
		uint8_t *entry = map + i * MEMMAP_SIZE;

		store64(entry, p->map[i].base);
		store64(entry + 8, p->map[i].size);
		store32(entry + 16, p->map[i].type);
	}
	return place_low(p, map, p->nmap * MEMMAP_SIZE, 8, base, e);
}

static int place_module(struct placement *p, struct boot_image *b, uint64_t *base,
			struct skep_error *e)
{
	uint8_t module[MODULE_SIZE] = { 0 };
	uint64_t initrd;
	int r = boot_place_initrd(p, b, elf_end(&b->elf), place_low_end(p->vm), &initrd, e);

	if (r)
		return r;
	store64(module, initrd);
	store64(module + 8, b->initrd.size);
	return place_low(p, module, sizeof(module), 8, base, e);
}

static int pvh_place(struct placement *p, struct boot_image *b, struct skep_error *e)
{
	uint8_t info[START_INFO_SIZE] = { 0 };
	uint64_t cmdline, memmap, module = 0, base;
	int r = elf_claim(p, &b->kernel, &b->elf, e);

	if (!r)
		r = elf_write(p, &b->kernel, &b->elf, e);
	if (!r && b->has_initrd)
		r = place_module(p, b, &module, e);
	if (!r)
		r = place_low(p, b->cmdline, strlen(b->cmdline) + 1, 16, &cmdline, e);
	if (!r)
		r = place_memmap(p, &memmap, e);
	if (r)
		return r;
	store32(info, START_INFO_MAGIC);
	store32(info + 4, 1);			/* version: with a memory map */
	store32(info + 12, b->has_initrd);	/* modules */
	store64(info + 16, module);
	store64(info + 24, cmdline);
	store64(info + 32, b->rsdp);
	store64(info + 40, memmap);
	store32(info + 48, p->nmap);
	r = place_low(p, info, sizeof(info), 16, &base, e);
	return r ? r : entry_protected_mode(p, b->pvh_entry, 0, base, e);
}

const struct boot_format boot_pvh = {
	.name = "ELF with a PVH entry",
	.detect = pvh_detect,
	.load = pvh_load,
	.place = pvh_place,
};
