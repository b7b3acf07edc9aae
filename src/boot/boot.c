#include "boot/boot.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "boot/demo.h"
#include "boot/fwcfg.h"
#include "boot/image.h"
#include "boot/tables.h"
#include "chipset/chipset.h"
#include "pci/pci.h"
#include "vm/vm.h"

/* In the order in which they are tried: an ELF may be both of the last two. */
static const struct boot_format *const formats[] = {
	&boot_linux, &boot_multiboot, &boot_pvh,
};

int boot_fail_ram(const struct boot_file *f, const struct vm *vm, uint64_t needs,
		  struct skep_error *e)
{
	return skep_fail(e, ENOMEM, "%s: '%s' needs %llu MiB of RAM and the machine has %llu: raise "
			 "memory.size", f->key, f->path,
			 (unsigned long long)(ALIGN_UP(needs, MiB) / MiB),
			 (unsigned long long)(vm->memory.size / MiB));
}

int boot_place_initrd(struct placement *p, struct boot_image *b, uint64_t min, uint64_t max,
		      uint64_t *base, struct skep_error *e)
{
	const struct boot_file *f = &b->initrd;

	if (!place_find(p, f->size, GUEST_PAGE_SIZE, min, MIN(max, place_low_end(p->vm)), true,
			base))
		return skep_fail(e, ENOMEM, "%s: '%s' does not fit: its %llu KiB must lie between %llu "
				 "and %llu MiB, above the kernel: raise memory.size or build it "
				 "smaller", f->key, f->path, (unsigned long long)(f->size / KiB),
				 (unsigned long long)(min / MiB),
				 (unsigned long long)(MIN(max, place_low_end(p->vm)) / MiB));
	return place_file(p->vm, *base, f, 0, f->size, e);
}

static int fail_format(const struct boot_image *b, const uint8_t *head, size_t len,
		       struct skep_error *e)
{
	static const struct { uint8_t magic[6]; unsigned len; const char *name; } packed[] = {
		{ { 0x1f, 0x8b }, 2, "gzip" }, { { 0xfd, '7', 'z', 'X', 'Z', 0 }, 6, "xz" },
		{ { 0x28, 0xb5, 0x2f, 0xfd }, 4, "zstd" }, { { 'B', 'Z', 'h' }, 3, "bzip2" },
		{ { 0x02, 0x21, 0x4c, 0x18 }, 4, "lz4" },
	};
	const struct boot_file *f = &b->kernel;

	if (!len)
		return skep_fail(e, ENOEXEC, "%s: '%s' is empty: fetch it again", f->key, f->path);
	for (unsigned i = 0; i < ARRAY_SIZE(packed); i++)
		if (len >= packed[i].len && !memcmp(head, packed[i].magic, packed[i].len))
			return skep_fail(e, ENOEXEC, "%s: '%s' is compressed by %s: unpack it, or give the "
					 "bzImage (vmlinuz)", f->key, f->path, packed[i].name);
	if (elf_detect(head, len)) {
		struct elf_image elf;
		int r = elf_parse(f, &elf, e);

		return r ? r : skep_fail(e, ENOEXEC, "%s: '%s' is an ELF file with neither a PVH note "
					 "nor a multiboot header: give a bzImage, a vmlinux built with "
					 "CONFIG_PVH, or a multiboot kernel", f->key, f->path);
	}
	return skep_fail(e, ENOEXEC, "%s: '%s' is not a kernel (a Linux bzImage, an ELF with a PVH "
			 "note, or a multiboot image)", f->key, f->path);
}

static int choose_format(struct boot_image *b, struct skep_error *e)
{
	uint8_t head[BOOT_HEAD];
	size_t len = MIN(b->kernel.size, (uint64_t)sizeof(head));
	int r = boot_file_read(&b->kernel, 0, head, len, e);

	if (r)
		return r;
	for (unsigned i = 0; i < ARRAY_SIZE(formats); i++)
		if (formats[i]->detect(b, head, len)) {
			b->format = formats[i];
			return 0;
		}
	return fail_format(b, head, len, e);
}

static int open_demo(struct boot_image *b, struct skep_error *e)
{
	size_t size;
	const void *image = demo_image(&size);

	return boot_file_borrow(&b->kernel, "boot.demo", "the demonstration guest", image, size, e);
}

/*
 * A restored machine comes here when it resets, in the midst of its run, and by a name that may come
 * from the snapshot: a pipe has given its bytes to the machine's first life, and one that nobody
 * writes to would stop this one for good.
 */
static int open_file(struct vm *vm, struct boot_file *f, const char *key, const char *path,
		     struct skep_error *e)
{
	struct stat st;

	if (vm->restored && stat(path, &st) == 0 && !S_ISREG(st.st_mode) && !S_ISDIR(st.st_mode))
		return skep_fail(e, EINVAL, "%s: '%s' is not a regular file, and a machine that was "
				 "restored starts again from nothing else: give one with -o %s=FILE", key,
				 path, key);
	return boot_file_open(f, key, path, vm->memory.size, e);
}

/* The kernel; b->kernel.path stays NULL if there is none. */
static int open_kernel(struct vm *vm, struct boot_image *b, struct skep_error *e)
{
	struct config_node *root = config_root(vm->config);
	const char *kernel = config_string(root, "boot.kernel");
	bool demo = config_bool(root, "boot.demo");

	if (demo && kernel)
		return skep_fail(e, EINVAL, "boot.demo: the built-in guest and boot.kernel '%s' cannot "
				 "both start: leave one out", kernel);
	if (demo)
		return open_demo(b, e);
	return kernel ? open_file(vm, &b->kernel, "boot.kernel", kernel, e) : 0;
}

static int open_files(struct vm *vm, struct boot_image *b, struct skep_error *e)
{
	struct config_node *root = config_root(vm->config);
	const char *initrd = config_string(root, "boot.initrd");
	const char *cmdline = config_string(root, "boot.cmdline");
	int r = open_kernel(vm, b, e);

	b->cmdline = cmdline ? cmdline : "";
	if (r)
		return r;
	if (!b->kernel.path && initrd)
		return skep_fail(e, EINVAL, "boot.initrd: '%s' has no kernel to go with: set "
				 "boot.kernel", initrd);
	if (!b->kernel.path)
		return 0;
	if (initrd) {
		r = open_file(vm, &b->initrd, "boot.initrd", initrd, e);
		b->has_initrd = !r;
	}
	return r ? r : choose_format(b, e);
}

int boot_load(struct vm *vm, struct skep_error *e)
{
	struct fwcfg *f = fwcfg_of(vm);
	struct boot_image *b = calloc(1, sizeof(*b));
	int r;

	/* Without a kernel a machine can be made, and is refused when it is to start. */
	if (!b)
		return skep_fail(e, ENOMEM, "boot.kernel: no memory left");
	vm->boot = b;
	r = open_files(vm, b, e);
	b->initrd_gzip = UINT64_MAX;
	if (!r && b->format)
		r = b->format->load(vm, b, e);
	if (!r && f && !vm->restored)	/* a restored machine has its tables already */
		r = tables_build(vm, f, e);
	if (!r && b->initrd_gzip != UINT64_MAX)
		r = inflate_start(&b->inflate, vm, &b->initrd, b->initrd_gzip, e);
	if (r)
		boot_unload(vm);
	return r;
}

void boot_unload(struct vm *vm)
{
	struct boot_image *b = vm->boot;

	if (!b)
		return;
	inflate_stop(&b->inflate);
	boot_file_close(&b->kernel);
	boot_file_close(&b->initrd);
	free(b);
	vm->boot = NULL;
}

/*
 * What firmware leaves behind in the chip set, written as firmware would write
 * it: the memory under the BIOS area, ECAM, the power management block, and
 * the routing of PCI interrupts.
 */
static void set_up_board(struct vm *vm)
{
	static const uint8_t pirq[] = { 0x60, 0x61, 0x62, 0x63, 0x68, 0x69, 0x6a, 0x6b };
	static const uint8_t irq[] = { 10, 10, 11, 11, 10, 10, 11, 11 };
	const uint8_t mch = PCI_DEVFN(0, 0), lpc = PCI_DEVFN(31, 0);
	struct pci_bus *pci = pci_of(vm);

	if (!pci)
		return;
	pci_config_write(pci, 0, mch, 0x90, 1, 0x30);
	for (unsigned pam = 0x91; pam <= 0x96; pam++)
		pci_config_write(pci, 0, mch, pam, 1, 0x33);
	pci_config_write(pci, 0, mch, 0x64, 4, ECAM_BASE >> 32);
	pci_config_write(pci, 0, mch, 0x60, 4, (uint32_t)ECAM_BASE | 1);
	pci_config_write(pci, 0, lpc, 0x40, 4, PM_BASE);
	pci_config_write(pci, 0, lpc, 0x44, 1, 0x80);
	for (unsigned i = 0; i < ARRAY_SIZE(pirq); i++)
		pci_config_write(pci, 0, lpc, pirq[i], 1, irq[i]);
}

int boot_place(struct vm *vm, struct skep_error *e)
{
	struct boot_image *b = vm->boot;
	struct fwcfg *f = fwcfg_of(vm);
	struct placement p;
	int r;

	if (!b || !b->format)
		return skep_fail(e, EINVAL, "boot.kernel is not set, and there is nothing else to start: "
				 "give --kernel FILE, or run 'skep demo'");
	set_up_board(vm);
	place_init(&p, vm);
	r = f ? tables_place(vm, f, &b->rsdp, e) : 0;
	return r ? r : b->format->place(&p, b, e);
}
