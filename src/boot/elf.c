#include "boot/elf.h"

#include <elf.h>
#include <errno.h>
#include <stdlib.h>

#include "boot/image.h"
#include "vm/vm.h"

#define NOTES_MAX	(64 * KiB)

bool elf_detect(const uint8_t *head, size_t len)
{
	return len >= SELFMAG && !memcmp(head, ELFMAG, SELFMAG);
}

static int corrupt(const struct boot_file *f, const char *what, struct skep_error *e)
{
	return skep_fail(e, ENOEXEC, "%s: '%s' is a damaged ELF file (%s): fetch or link it again",
			 f->key, f->path, what);
}

struct program_headers {
	uint64_t offset;
	unsigned count, size;
};

static int parse_header32(const struct boot_file *f, struct elf_image *elf,
			  struct program_headers *ph, uint16_t *type, uint16_t *machine,
			  struct skep_error *e)
{
	Elf32_Ehdr h;
	int r = boot_file_read(f, 0, &h, sizeof(h), e);

	if (r)
		return r;
	elf->entry = h.e_entry;
	*type = h.e_type;
	*machine = h.e_machine;
	*ph = (struct program_headers){ h.e_phoff, h.e_phnum, h.e_phentsize };
	return ph->size < sizeof(Elf32_Phdr) ? corrupt(f, "program header size", e) : 0;
}

static int parse_header64(const struct boot_file *f, struct elf_image *elf,
			  struct program_headers *ph, uint16_t *type, uint16_t *machine,
			  struct skep_error *e)
{
	Elf64_Ehdr h;
	int r = boot_file_read(f, 0, &h, sizeof(h), e);

	if (r)
		return r;
	elf->entry = h.e_entry;
	*type = h.e_type;
	*machine = h.e_machine;
	*ph = (struct program_headers){ h.e_phoff, h.e_phnum, h.e_phentsize };
	return ph->size < sizeof(Elf64_Phdr) ? corrupt(f, "program header size", e) : 0;
}

static int read_segment(const struct boot_file *f, const struct elf_image *elf, uint64_t offset,
			uint32_t *type, struct elf_segment *s, struct skep_error *e)
{
	Elf32_Phdr p32;
	Elf64_Phdr p64;
	int r;

	if (elf->is64) {
		r = boot_file_read(f, offset, &p64, sizeof(p64), e);
		if (r)
			return r;
		*type = p64.p_type;
		*s = (struct elf_segment){ p64.p_offset, p64.p_filesz, p64.p_paddr, p64.p_vaddr,
					   p64.p_memsz };
	} else {
		r = boot_file_read(f, offset, &p32, sizeof(p32), e);
		if (r)
			return r;
		*type = p32.p_type;
		*s = (struct elf_segment){ p32.p_offset, p32.p_filesz, p32.p_paddr, p32.p_vaddr,
					   p32.p_memsz };
	}
	return 0;
}

/* Nothing that comes later adds these numbers again without this check. */
static int check_segment(const struct boot_file *f, const struct elf_segment *s,
			 struct skep_error *e)
{
	if (s->offset > f->size || s->filesz > f->size - s->offset)
		return skep_fail(e, ENOEXEC, "%s: '%s' is truncated: it has %llu bytes, and a segment "
				 "of %llu bytes starts at byte %llu: fetch it again", f->key, f->path,
				 (unsigned long long)f->size, (unsigned long long)s->filesz,
				 (unsigned long long)s->offset);
	if (s->memsz < s->filesz)
		return corrupt(f, "a segment is longer in the file than in memory", e);
	if (s->paddr + s->memsz < s->paddr || s->vaddr + s->memsz < s->vaddr)
		return corrupt(f, "a segment wraps around the end of memory", e);
	return 0;
}

static int parse_segments(const struct boot_file *f, struct elf_image *elf,
			  const struct program_headers *ph, struct skep_error *e)
{
	if (!ph->count || ph->count > 128)
		return corrupt(f, "number of program headers", e);
	if (ph->offset > f->size)
		return corrupt(f, "its program headers lie outside the file", e);
	for (unsigned i = 0; i < ph->count; i++) {
		struct elf_segment s;
		uint32_t type;
		int r = read_segment(f, elf, ph->offset + (uint64_t)i * ph->size, &type, &s, e);

		if (r)
			return r;
		if (type == PT_LOAD && s.memsz) {
			r = check_segment(f, &s, e);
			if (!r && elf->nsegments == ELF_MAX_SEGMENTS)
				r = corrupt(f, "too many segments", e);
			if (!r)
				elf->segment[elf->nsegments++] = s;
		} else if (type == PT_NOTE && elf->nnotes < ELF_MAX_SEGMENTS) {
			s.memsz = MAX(s.memsz, s.filesz);
			r = check_segment(f, &s, e);
			if (!r)
				elf->note[elf->nnotes++] = s;
		}
		if (r)
			return r;
	}
	return elf->nsegments ? 0 : corrupt(f, "nothing to load", e);
}

int elf_parse(const struct boot_file *f, struct elf_image *elf, struct skep_error *e)
{
	uint8_t ident[EI_NIDENT];
	struct program_headers ph;
	uint16_t type, machine;
	int r = boot_file_read(f, 0, ident, sizeof(ident), e);

	*elf = (struct elf_image){ 0 };
	if (r)
		return r;
	if (!elf_detect(ident, sizeof(ident)))
		return corrupt(f, "no ELF magic", e);
	if (ident[EI_DATA] != ELFDATA2LSB || ident[EI_VERSION] != EV_CURRENT)
		return corrupt(f, "not little-endian version 1", e);
	elf->is64 = ident[EI_CLASS] == ELFCLASS64;
	if (!elf->is64 && ident[EI_CLASS] != ELFCLASS32)
		return corrupt(f, "neither 32 nor 64 bits wide", e);
	r = elf->is64 ? parse_header64(f, elf, &ph, &type, &machine, e) :
			parse_header32(f, elf, &ph, &type, &machine, e);
	if (r)
		return r;
	if (machine != EM_386 && machine != EM_X86_64)
		return skep_fail(e, ENOEXEC, "%s: '%s' is for another processor (ELF machine %u): use "
				 "an x86 kernel", f->key, f->path, machine);
	if (type != ET_EXEC && type != ET_DYN)
		return skep_fail(e, ENOEXEC, "%s: '%s' is not an executable (ELF type %u): give a "
				 "linked kernel", f->key, f->path, type);
	return parse_segments(f, elf, &ph, e);
}

/* One segment of notes: name and descriptor are padded to 4 bytes each. */
static int search_notes(const uint8_t *n, size_t len, const char *name, uint32_t type,
			void *desc, size_t size)
{
	size_t at = 0;

	while (len - at >= sizeof(Elf32_Nhdr)) {
		uint32_t namesz = load32(n + at), descsz = load32(n + at + 4);
		uint32_t ntype = load32(n + at + 8);
		uint64_t name_at = at + sizeof(Elf32_Nhdr);
		uint64_t desc_at = name_at + ALIGN_UP((uint64_t)namesz, 4);
		uint64_t next = desc_at + ALIGN_UP((uint64_t)descsz, 4);

		if (desc_at > len || descsz > len - desc_at)
			return 0;
		if (ntype == type && namesz == strlen(name) + 1 && !memcmp(n + name_at, name, namesz)) {
			memcpy(desc, n + desc_at, MIN(size, (size_t)descsz));
			return MIN(descsz, (uint32_t)NOTES_MAX);
		}
		if (next > len)
			return 0;
		at = next;
	}
	return 0;
}

int elf_find_note(const struct boot_file *f, const struct elf_image *elf, const char *name,
		  uint32_t type, void *desc, size_t size, struct skep_error *e)
{
	for (unsigned i = 0; i < elf->nnotes; i++) {
		size_t len = MIN(elf->note[i].filesz, (uint64_t)NOTES_MAX);
		uint8_t *buf = malloc(len ? len : 1);
		int r;

		if (!buf)
			return skep_fail(e, ENOMEM, "%s: no memory left", f->key);
		r = boot_file_read(f, elf->note[i].offset, buf, len, e);
		if (!r)
			r = search_notes(buf, len, name, type, desc, size);
		free(buf);
		if (r)
			return r;
	}
	return 0;
}

uint64_t elf_end(const struct elf_image *elf)
{
	uint64_t end = 0;

	for (unsigned i = 0; i < elf->nsegments; i++)
		end = MAX(end, elf->segment[i].paddr + elf->segment[i].memsz);
	return end;
}

int elf_claim(struct placement *p, const struct boot_file *f, const struct elf_image *elf,
	      struct skep_error *e)
{
	uint64_t end = elf_end(elf);

	/* A kernel linked for far above is not helped by more memory. */
	if (end <= RAM_LOW_MAX && end > place_low_end(p->vm))
		return boot_fail_ram(f, p->vm, end, e);
	for (unsigned i = 0; i < elf->nsegments; i++) {
		const struct elf_segment *s = &elf->segment[i];
		int r = place_claim(p, s->paddr, s->memsz);

		if (r == -EBUSY)
			return corrupt(f, "two segments share memory", e);
		if (r)
			return skep_fail(e, ENOEXEC, "%s: '%s' wants to lie at %#llx-%#llx, where a PC has "
					 "no free RAM: link it for 1 MiB or above", f->key, f->path,
					 (unsigned long long)s->paddr,
					 (unsigned long long)(s->paddr + s->memsz - 1));
	}
	return 0;
}

int elf_write(struct placement *p, const struct boot_file *f, const struct elf_image *elf,
	      struct skep_error *e)
{
	for (unsigned i = 0; i < elf->nsegments; i++) {
		const struct elf_segment *s = &elf->segment[i];
		int r = place_file(p->vm, s->paddr, f, s->offset, s->filesz, e);

		if (r)
			return r;
		if (dma_zero(&p->vm->memory, s->paddr + s->filesz, s->memsz - s->filesz))
			return boot_fail_ram(f, p->vm, s->paddr + s->memsz, e);
	}
	return 0;
}
