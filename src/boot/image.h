/* What boot_load keeps for boot_place.  Private to src/boot. */
#ifndef SKEP_BOOT_IMAGE_H
#define SKEP_BOOT_IMAGE_H

#include <pthread.h>
#include <stdatomic.h>

#include "boot/elf.h"
#include "boot/file.h"
#include "boot/place.h"

struct boot_image;
struct inflate_check;

/* One kernel format. */
struct boot_format {
	const char *name;		/* "Linux bzImage" */
	/* Is it this?  head is the first BOOT_HEAD bytes of the file, or fewer. */
	bool (*detect)(const struct boot_image *b, const uint8_t *head, size_t len);
	/* Checks everything that can be checked without writing to guest memory. */
	int (*load)(struct vm *vm, struct boot_image *b, struct skep_error *e);
	/* Writes it all and sets the boot processor's registers. */
	int (*place)(struct placement *p, struct boot_image *b, struct skep_error *e);
};

#define BOOT_HEAD 8192		/* the multiboot header lies within it */

extern const struct boot_format boot_linux, boot_pvh, boot_multiboot;

/* The setup header of a bzImage, as far as we use it (linux.c). */
struct linux_image {
	uint8_t header[0x290];		/* file bytes 0-0x28f */
	unsigned header_end;		/* first byte after the setup header */
	uint64_t payload_offset, payload_size;
	uint64_t load;			/* where the payload goes */
};

struct multiboot_image {
	uint32_t flags;
	bool elf;			/* else the address fields tell what to load */
	uint32_t load, load_size, bss_end, entry;
	uint64_t offset;		/* in the file */
};

struct inflate_check {
	struct vm *vm;
	const struct boot_file *file;
	uint64_t at;
	pthread_t thread;
	bool started;
	_Atomic bool stop;
};

struct boot_image {
	const struct boot_format *format;	/* NULL: nothing to boot */
	struct boot_file kernel, initrd;
	bool has_initrd;
	uint64_t initrd_gzip;			/* initrd_check */
	struct inflate_check inflate;
	const char *cmdline;			/* never NULL; borrowed from the configuration */
	uint64_t rsdp;				/* where the tables were placed, 0 if not */
	struct linux_image linux_;
	struct multiboot_image multiboot;
	struct elf_image elf;
	uint32_t pvh_entry;
};

/* The sentence for a kernel that does not fit: needs and has in bytes. */
int boot_fail_ram(const struct boot_file *f, const struct vm *vm, uint64_t needs,
		  struct skep_error *e);
/* Puts the initrd as high as it goes below max and above min; sets *base. */
int boot_place_initrd(struct placement *p, struct boot_image *b, uint64_t min, uint64_t max,
		      uint64_t *base, struct skep_error *e);
/*
 * Is it a cpio archive, or something compressed, and all there? (initrd.c)
 * *gzip: where a gzip stream starts, whose end this does not see; UINT64_MAX: none.
 */
int initrd_check(const struct boot_file *f, uint64_t *gzip, struct skep_error *e);

/*
 * Unpacks a gzip stream to nowhere on a thread of its own; damage ends the
 * machine with a sentence (inflate.c).  stop: also after a start that failed,
 * or none.
 */
int inflate_start(struct inflate_check *c, struct vm *vm, const struct boot_file *f, uint64_t at,
		  struct skep_error *e);
void inflate_stop(struct inflate_check *c);

#endif
