/* Where RAM and notes lie in the file, and the ELF headers that say so. */
#include "snapshot/container.h"

#include <elf.h>
#include <errno.h>

#include "base/util.h"

int snap_check_regions(const struct snap_region *r, unsigned n, struct skep_error *e)
{
	static const uint64_t base[] = { 0, RAM_HIGH_BASE };
	static const uint64_t most[] = { RAM_LOW_MAX, RAM_SIZE_MAX - RAM_LOW_MAX };
	unsigned i;

	if (n < 1 || n > SNAP_REGIONS_MAX)
		return skep_fail(e, EINVAL, "it has %u regions of RAM, and one or two are possible", n);
	for (i = 0; i < n; i++)
		if (r[i].gpa != base[i] || !r[i].size || r[i].size % SNAP_PAGE ||
		    r[i].size > most[i])
			return skep_fail(e, EINVAL, "region %u of its RAM, %#llx bytes at %#llx, is "
					 "not possible", i, (unsigned long long)r[i].size,
					 (unsigned long long)r[i].gpa);
	if (n == 2 && r[0].size != RAM_LOW_MAX)
		return skep_fail(e, EINVAL, "it has RAM above 4 GiB and only %#llx bytes below",
				 (unsigned long long)r[0].size);
	return 0;
}

uint64_t snap_place_regions(struct snap_region *r, unsigned n, size_t *chunks)
{
	uint64_t end = RAM_CHUNK;
	unsigned i;

	*chunks = 0;
	for (i = 0; i < n; i++) {
		r[i].offset = ALIGN_UP(end, RAM_CHUNK);
		r[i].first_chunk = *chunks;
		end = r[i].offset + r[i].size;
		*chunks += ALIGN_UP(r[i].size, RAM_CHUNK) / RAM_CHUNK;
	}
	return end;
}

const struct snap_region *snap_find_region(const struct snap_region *r, unsigned n, uint64_t gpa,
					   uint64_t len)
{
	unsigned i;

	for (i = 0; i < n; i++)
		if (gpa >= r[i].gpa && gpa - r[i].gpa < r[i].size &&
		    len <= r[i].size - (gpa - r[i].gpa))
			return &r[i];
	return NULL;
}

size_t snap_headers(uint8_t out[SNAP_HEADERS_MAX], const struct snap_region *r, unsigned loads,
		    uint64_t notes_offset, uint64_t notes_len)
{
	const Elf64_Ehdr eh = {
		.e_ident = { ELFMAG0, ELFMAG1, ELFMAG2, ELFMAG3, ELFCLASS64, ELFDATA2LSB,
			     EV_CURRENT, ELFOSABI_NONE },
		.e_type = ET_CORE, .e_machine = EM_X86_64, .e_version = EV_CURRENT,
		.e_phoff = sizeof(eh), .e_ehsize = sizeof(eh),
		.e_phentsize = sizeof(Elf64_Phdr), .e_phnum = 1 + loads,
	};
	Elf64_Phdr ph = {
		.p_type = PT_NOTE, .p_offset = notes_offset, .p_filesz = notes_len,
		.p_memsz = notes_len, .p_align = 4,
	};
	size_t at = sizeof(eh);
	unsigned i;

	memcpy(out, &eh, sizeof(eh));
	memcpy(out + at, &ph, sizeof(ph));
	at += sizeof(ph);
	for (i = 0; i < loads; i++, at += sizeof(ph)) {
		/* Guest-physical addresses on both sides: gdb's x/ shows physical memory. */
		ph = (Elf64_Phdr){
			.p_type = PT_LOAD, .p_flags = PF_R | PF_W | PF_X, .p_offset = r[i].offset,
			.p_vaddr = r[i].gpa, .p_paddr = r[i].gpa, .p_filesz = r[i].size,
			.p_memsz = r[i].size, .p_align = RAM_CHUNK,
		};
		memcpy(out + at, &ph, sizeof(ph));
	}
	return at;
}
