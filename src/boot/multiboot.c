/*
 * Multiboot 1 (Multiboot Specification 0.6.96): ELF images, and images whose
 * header tells by address fields what to load.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "boot/image.h"
#include "vm/vm.h"

#define MB_HEADER_MAGIC		0x1badb002
#define MB_LOADER_MAGIC		0x2badb002
#define MB_UNKNOWN_FLAGS	0x0000fff8	/* 15:0: refuse what we do not know (section 3.1.2) */
#define MB_ADDRESSES		0x00010000

#define MBI_SIZE		116
#define MBI_MEMORY		BIT(0)
#define MBI_CMDLINE		BIT(2)
#define MBI_MODULES		BIT(3)
#define MBI_MMAP		BIT(6)
#define MBI_LOADER_NAME		BIT(9)

/* Offset of the header in the file, or -1. */
static long find_header(const uint8_t *head, size_t len)
{
	for (size_t i = 0; i + 12 <= len; i += 4)
		if (load32(head + i) == MB_HEADER_MAGIC &&
		    !(uint32_t)(load32(head + i) + load32(head + i + 4) + load32(head + i + 8)))
			return i;
	return -1;
}

static bool multiboot_detect(const struct boot_image *b, const uint8_t *head, size_t len)
{
	return find_header(head, len) >= 0;
}

static int corrupt(const struct boot_file *f, const char *what, struct skep_error *e)
{
	return skep_fail(e, ENOEXEC, "%s: '%s' has a damaged multiboot header (%s): link it again",
			 f->key, f->path, what);
}

/* Sections 3.1.3: the address fields say where the header itself is loaded. */
static int load_addresses(struct boot_image *b, const uint8_t *head, size_t len, size_t at,
			  struct skep_error *e)
{
	struct multiboot_image *m = &b->multiboot;
	const struct boot_file *f = &b->kernel;
	uint32_t header, load, load_end, bss_end;

	if (at + 32 > len)
		return corrupt(f, "it is cut short", e);
	header = load32(head + at + 12);
	load = load32(head + at + 16);
	load_end = load32(head + at + 20);
	bss_end = load32(head + at + 24);
	m->entry = load32(head + at + 28);
	if (load > header || header - load > at)
		return corrupt(f, "its load address is not before the header", e);
	m->load = load;
	m->offset = at - (header - load);
	if (!load_end && f->size - m->offset > UINT32_MAX - load)
		return corrupt(f, "the file does not fit below 4 GiB", e);
	if (!load_end)
		load_end = load + (f->size - m->offset);
	if (load_end < load || load_end - load > f->size - m->offset)
		return corrupt(f, "it wants to load more than the file holds", e);
	m->load_size = load_end - load;
	m->bss_end = MAX(bss_end, load_end);
	if (m->entry < load || m->entry >= m->bss_end)
		return corrupt(f, "its entry point lies outside what it loads", e);
	return 0;
}

static int load_elf(struct boot_image *b, struct skep_error *e)
{
	struct multiboot_image *m = &b->multiboot;
	const struct elf_image *elf = &b->elf;
	uint64_t entry;
	int r = elf_parse(&b->kernel, &b->elf, e);

	if (r)
		return r;
	/* A kernel linked for a virtual address is entered at the physical one. */
	entry = elf->entry;
	for (unsigned i = 0; i < elf->nsegments; i++) {
		const struct elf_segment *s = &elf->segment[i];

		if (elf->entry >= s->vaddr && elf->entry - s->vaddr < s->memsz) {
			entry = elf->entry - s->vaddr + s->paddr;
			break;
		}
	}
	if (entry > UINT32_MAX)
		return corrupt(&b->kernel, "its entry point lies above 4 GiB", e);
	m->elf = true;
	m->entry = entry;
	return 0;
}

/* Takes the kernel's memory and returns the first address after it. */
static int claim(struct placement *p, struct boot_image *b, uint64_t *end, struct skep_error *e)
{
	struct multiboot_image *m = &b->multiboot;

	if (m->elf) {
		*end = elf_end(&b->elf);
		return elf_claim(p, &b->kernel, &b->elf, e);
	}
	*end = m->bss_end;
	if (m->bss_end > place_low_end(p->vm))
		return boot_fail_ram(&b->kernel, p->vm, m->bss_end, e);
	if (place_claim(p, m->load, m->bss_end - m->load))
		return skep_fail(e, ENOEXEC, "%s: '%s' wants to lie at %#x-%#x, where a PC has no free "
				 "RAM: link it for 1 MiB or above", b->kernel.key, b->kernel.path,
				 m->load, m->bss_end - 1);
	return 0;
}

static int multiboot_load(struct vm *vm, struct boot_image *b, struct skep_error *e)
{
	struct multiboot_image *m = &b->multiboot;
	uint8_t head[BOOT_HEAD];
	size_t len = MIN(b->kernel.size, (uint64_t)sizeof(head));
	struct placement scratch;
	uint64_t end;
	long at;
	int r = boot_file_read(&b->kernel, 0, head, len, e);

	if (r)
		return r;
	at = find_header(head, len);
	if (at < 0)
		return corrupt(&b->kernel, "it is gone", e);
	m->flags = load32(head + at + 4);
	if (m->flags & MB_UNKNOWN_FLAGS)
		return skep_fail(e, ENOTSUP, "%s: '%s' demands multiboot features that are not known "
				 "(flags %#x): link it without them", b->kernel.key, b->kernel.path,
				 m->flags);
	if (m->flags & MB_ADDRESSES)
		r = load_addresses(b, head, len, at, e);
	else if (elf_detect(head, len))
		r = load_elf(b, e);
	else
		r = corrupt(&b->kernel, "it is no ELF file and has no address fields", e);
	if (r)
		return r;
	place_init(&scratch, vm);
	return claim(&scratch, b, &end, e);
}

static int place_kernel(struct placement *p, struct boot_image *b, struct skep_error *e)
{
	struct multiboot_image *m = &b->multiboot;
	uint64_t bss = (uint64_t)m->load + m->load_size;
	int r;

	if (m->elf)
		return elf_write(p, &b->kernel, &b->elf, e);
	r = place_file(p->vm, m->load, &b->kernel, m->offset, m->load_size, e);
	if (!r && dma_zero(&p->vm->memory, bss, m->bss_end - bss))
		r = boot_fail_ram(&b->kernel, p->vm, m->bss_end, e);
	return r;
}

/* The initrd is the one module; its string is its file name. */
static int place_module(struct placement *p, struct boot_image *b, uint64_t end, uint8_t *mbi,
			struct skep_error *e)
{
	uint8_t module[16] = { 0 };
	uint64_t start, name, base;
	int r;

	if (!place_find(p, b->initrd.size, GUEST_PAGE_SIZE, MAX(end, 1 * MiB), 4 * GiB, false,
			&start))
		return boot_fail_ram(&b->initrd, p->vm, end + b->initrd.size, e);
	r = place_file(p->vm, start, &b->initrd, 0, b->initrd.size, e);
	if (!r)
		r = place_low(p, b->initrd.path, strlen(b->initrd.path) + 1, 4, &name, e);
	if (r)
		return r;
	store32(module, start);
	store32(module + 4, start + b->initrd.size);
	store32(module + 8, name);
	r = place_low(p, module, sizeof(module), 4, &base, e);
	store32(mbi + 20, 1);
	store32(mbi + 24, base);
	return r;
}

/* Section 3.3: each entry is preceded by its size, which does not count itself. */
static int place_mmap(struct placement *p, uint8_t *mbi, struct skep_error *e)
{
	uint8_t map[E820_MAX * 24];
	uint64_t base;
	int r;

	for (unsigned i = 0; i < p->nmap; i++) {
		uint8_t *entry = map + i * 24;

		store32(entry, 20);
		store64(entry + 4, p->map[i].base);
		store64(entry + 12, p->map[i].size);
		store32(entry + 20, p->map[i].type);
	}
	r = place_low(p, map, p->nmap * 24, 4, &base, e);
	store32(mbi + 44, p->nmap * 24);
	store32(mbi + 48, base);
	return r;
}

/* As boot loaders do it, the first word is the kernel's file name. */
static int place_strings(struct placement *p, struct boot_image *b, uint8_t *mbi,
			 struct skep_error *e)
{
	uint64_t base;
	char *line;
	int r;

	if (asprintf(&line, "%s%s%s", b->kernel.path, *b->cmdline ? " " : "", b->cmdline) < 0)
		return skep_fail(e, ENOMEM, "boot.cmdline: no memory left");
	r = place_low(p, line, strlen(line) + 1, 4, &base, e);
	free(line);
	store32(mbi + 16, base);
	if (!r)
		r = place_low(p, "skep", sizeof("skep"), 4, &base, e);
	store32(mbi + 64, base);
	return r;
}

static int multiboot_place(struct placement *p, struct boot_image *b, struct skep_error *e)
{
	uint8_t mbi[MBI_SIZE] = { 0 };
	uint64_t end, base;
	int r = claim(p, b, &end, e);

	if (!r)
		r = place_kernel(p, b, e);
	if (!r && b->has_initrd)
		r = place_module(p, b, end, mbi, e);
	if (!r)
		r = place_strings(p, b, mbi, e);
	if (!r)
		r = place_mmap(p, mbi, e);
	if (r)
		return r;
	store32(mbi, MBI_MEMORY | MBI_CMDLINE | MBI_MMAP | MBI_LOADER_NAME |
		(b->has_initrd ? MBI_MODULES : 0));
	store32(mbi + 4, EBDA_BASE / KiB);
	store32(mbi + 8, (place_low_end(p->vm) - 1 * MiB) / KiB);
	r = place_low(p, mbi, sizeof(mbi), 4, &base, e);
	return r ? r : entry_protected_mode(p, b->multiboot.entry, MB_LOADER_MAGIC, base, e);
}

const struct boot_format boot_multiboot = {
	.name = "multiboot",
	.detect = multiboot_detect,
	.load = multiboot_load,
	.place = multiboot_place,
};
