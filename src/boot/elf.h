/*
 * ELF executables, read with distrust: every offset, size and count of the
 * file is checked before it is used (System V ABI, gABI chapters 4 and 5).
 */
#ifndef SKEP_BOOT_ELF_H
#define SKEP_BOOT_ELF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "boot/file.h"
#include "boot/place.h"

#define ELF_MAX_SEGMENTS 16

struct elf_segment {
	uint64_t offset, filesz;	/* in the file */
	uint64_t paddr, vaddr, memsz;	/* in memory; memsz >= filesz, nothing wraps */
};

struct elf_image {
	bool is64;
	uint64_t entry;
	unsigned nsegments;		/* PT_LOAD with memsz > 0 */
	struct elf_segment segment[ELF_MAX_SEGMENTS];
	unsigned nnotes;		/* PT_NOTE */
	struct elf_segment note[ELF_MAX_SEGMENTS];
};

bool elf_detect(const uint8_t *head, size_t len);
/* Headers of an x86 executable. */
int elf_parse(const struct boot_file *f, struct elf_image *elf, struct skep_error *e);
/*
 * A note's descriptor: up to size bytes are copied to desc.  Returns its
 * length, 0 if there is no such note, or a negative errno with e set.
 */
int elf_find_note(const struct boot_file *f, const struct elf_image *elf, const char *name,
		  uint32_t type, void *desc, size_t size, struct skep_error *e);
/* Takes the memory that the segments want; a sentence if it is not to be had. */
int elf_claim(struct placement *p, const struct boot_file *f, const struct elf_image *elf,
	      struct skep_error *e);
/* Copies the segments to where they belong and clears the rest of each. */
int elf_write(struct placement *p, const struct boot_file *f, const struct elf_image *elf,
	      struct skep_error *e);
/* First address after the highest segment. */
uint64_t elf_end(const struct elf_image *elf);

#endif
