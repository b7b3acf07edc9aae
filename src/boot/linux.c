/*
 * Linux bzImage by the 64-bit boot protocol (Linux, Documentation/arch/x86/boot.rst).
 */
#include <errno.h>
#include <stdio.h>

#include "boot/image.h"
#include "vm/vm.h"

/* The setup header: offsets are the same in the file and in boot_params. */
#define HDR_START		0x1f1
#define HDR_SETUP_SECTS		0x1f1
#define HDR_SYSSIZE		0x1f4	/* in 16-byte paragraphs */
#define HDR_BOOT_FLAG		0x1fe
#define HDR_JUMP_LENGTH		0x201
#define HDR_MAGIC		0x202
#define HDR_VERSION		0x206
#define HDR_LOADER_TYPE		0x210
#define HDR_LOADFLAGS		0x211
#define HDR_CODE32_START	0x214
#define HDR_RAMDISK_IMAGE	0x218
#define HDR_RAMDISK_SIZE	0x21c
#define HDR_CMDLINE_PTR		0x228
#define HDR_INITRD_ADDR_MAX	0x22c
#define HDR_ALIGNMENT		0x230
#define HDR_RELOCATABLE		0x234
#define HDR_XLOADFLAGS		0x236
#define HDR_CMDLINE_SIZE	0x238
#define HDR_PAYLOAD_OFFSET	0x248
#define HDR_PAYLOAD_LENGTH	0x24c
#define HDR_SETUP_DATA		0x250
#define HDR_PREF_ADDRESS	0x258
#define HDR_INIT_SIZE		0x260
#define HDR_MIN_END		0x264

#define MAGIC_HDRS		0x53726448	/* "HdrS" */
#define VERSION_MIN		0x020c
#define LOADED_HIGH		0x01
#define XLF_KERNEL_64		0x01
#define ENTRY_64		0x200
#define LOADER_UNDEFINED	0xff

/* boot_params outside the header. */
#define ZP_SIZE			4096
#define ZP_ACPI_RSDP		0x070
#define ZP_E820_ENTRIES		0x1e8
#define ZP_E820_TABLE		0x2d0
#define ZP_E820_SIZE		20

#define SETUP_RNG_SEED		9
#define RNG_SEED_BYTES		32

static bool linux_detect(const struct boot_image *b, const uint8_t *head, size_t len)
{
	return len >= HDR_MAGIC + 4 && load32(head + HDR_MAGIC) == MAGIC_HDRS &&
	       load16(head + HDR_BOOT_FLAG) == 0xaa55;
}

static int corrupt(const struct boot_file *f, const char *what, struct skep_error *e)
{
	return skep_fail(e, ENOEXEC, "%s: '%s' is a damaged Linux bzImage (%s): fetch it again",
			 f->key, f->path, what);
}

/* Version, word size, lengths: is this a kernel that the 64-bit protocol starts? */
static int check_header(struct boot_image *b, struct skep_error *e)
{
	struct linux_image *l = &b->linux_;
	const struct boot_file *f = &b->kernel;
	const uint8_t *h = l->header;
	unsigned sects = h[HDR_SETUP_SECTS] ? h[HDR_SETUP_SECTS] : 4;
	uint16_t version = load16(h + HDR_VERSION);
	uint32_t align = load32(h + HDR_ALIGNMENT);

	if (version < VERSION_MIN)
		return skep_fail(e, ENOEXEC, "%s: '%s' speaks Linux boot protocol %u.%02u, and 2.12 is "
				 "needed: use Linux 3.8 or newer", f->key, f->path, version >> 8,
				 version & 0xff);
	if (!(h[HDR_LOADFLAGS] & LOADED_HIGH))
		return skep_fail(e, ENOEXEC, "%s: '%s' is a zImage: build a bzImage", f->key, f->path);
	if (!(load16(h + HDR_XLOADFLAGS) & XLF_KERNEL_64))
		return skep_fail(e, ENOEXEC, "%s: '%s' is a 32-bit kernel without a 64-bit entry: use "
				 "an amd64 kernel", f->key, f->path);
	l->header_end = HDR_MAGIC + h[HDR_JUMP_LENGTH];
	if (l->header_end < HDR_MIN_END || l->header_end > sizeof(l->header))
		return corrupt(f, "its setup header has an impossible length", e);
	l->payload_offset = 512ull * (sects + 1);
	l->payload_size = 16ull * load32(h + HDR_SYSSIZE);
	if (l->payload_size <= ENTRY_64)
		return corrupt(f, "it holds no kernel", e);
	/* The size is rounded up to paragraphs: up to 15 bytes may be missing. */
	if (f->size < l->payload_offset || f->size - l->payload_offset + 15 < l->payload_size)
		return skep_fail(e, ENOEXEC, "%s: '%s' is truncated: it has %llu bytes, and its header "
				 "promises %llu: fetch it again", f->key, f->path,
				 (unsigned long long)f->size,
				 (unsigned long long)(l->payload_offset + l->payload_size));
	l->payload_size = MIN(l->payload_size, f->size - l->payload_offset);
	if (load32(h + HDR_PAYLOAD_OFFSET) > l->payload_size ||
	    load32(h + HDR_PAYLOAD_LENGTH) > l->payload_size - load32(h + HDR_PAYLOAD_OFFSET))
		return corrupt(f, "its compressed part lies outside the file", e);
	if (load32(h + HDR_INIT_SIZE) < l->payload_size)
		return corrupt(f, "it needs less memory than it is long", e);
	if (h[HDR_RELOCATABLE] && (align & (align - 1) || align < GUEST_PAGE_SIZE))
		return corrupt(f, "its alignment is no power of two", e);
	return 0;
}

/* pref_address if it fits, else the lowest aligned place above 1 MiB. */
static int choose_address(struct vm *vm, struct boot_image *b, struct skep_error *e)
{
	struct linux_image *l = &b->linux_;
	const uint8_t *h = l->header;
	uint64_t init_size = load32(h + HDR_INIT_SIZE), low = place_low_end(vm);
	uint64_t pref = load64(h + HDR_PREF_ADDRESS);

	if (pref < 1 * MiB || pref >= 4 * GiB)
		return corrupt(&b->kernel, "it wants to lie at an impossible address", e);
	l->load = pref;
	if (h[HDR_RELOCATABLE] && (pref > low || low - pref < init_size))
		l->load = ALIGN_UP(1 * MiB, (uint64_t)load32(h + HDR_ALIGNMENT));
	if (l->load > low || low - l->load < init_size)
		return boot_fail_ram(&b->kernel, vm, l->load + init_size, e);
	return 0;
}

static int linux_load(struct vm *vm, struct boot_image *b, struct skep_error *e)
{
	struct linux_image *l = &b->linux_;
	const struct boot_file *f = &b->kernel;
	size_t max;
	int r;

	r = boot_file_read(f, 0, l->header, sizeof(l->header), e);
	if (!r)
		r = check_header(b, e);
	if (!r)
		r = choose_address(vm, b, e);
	if (!r && b->has_initrd)
		r = initrd_check(&b->initrd, &b->initrd_gzip, e);
	if (r)
		return r;
	max = load32(l->header + HDR_CMDLINE_SIZE);
	if (strlen(b->cmdline) > max)
		return skep_fail(e, E2BIG, "boot.cmdline: the command line has %zu characters, and '%s' takes at "
				 "most %zu: shorten it", strlen(b->cmdline), f->path, max);
	return 0;
}

static int place_rng_seed(struct placement *p, uint64_t *base, struct skep_error *e)
{
	uint8_t node[16 + RNG_SEED_BYTES] = { 0 };	/* next, type, length, data */

	store32(node + 8, SETUP_RNG_SEED);
	store32(node + 12, RNG_SEED_BYTES);
	for (unsigned i = 0; i < RNG_SEED_BYTES; i += 8)
		store64(node + 16 + i, vm_entropy(p->vm));
	return place_low(p, node, sizeof(node), 16, base, e);
}

static void fill_e820(const struct placement *p, uint8_t *zp)
{
	zp[ZP_E820_ENTRIES] = p->nmap;
	for (unsigned i = 0; i < p->nmap; i++) {
		uint8_t *entry = zp + ZP_E820_TABLE + i * ZP_E820_SIZE;

		store64(entry, p->map[i].base);
		store64(entry + 8, p->map[i].size);
		store32(entry + 16, p->map[i].type);
	}
}

static int linux_place(struct placement *p, struct boot_image *b, struct skep_error *e)
{
	struct linux_image *l = &b->linux_;
	uint8_t zp[ZP_SIZE] = { 0 };
	uint64_t init_size = load32(l->header + HDR_INIT_SIZE);
	uint64_t zp_base, cmdline, seed, initrd = 0;
	int r;

	if (place_claim(p, l->load, init_size))
		return boot_fail_ram(&b->kernel, p->vm, l->load + init_size, e);
	r = place_file(p->vm, l->load, &b->kernel, l->payload_offset, l->payload_size, e);
	if (!r && b->has_initrd)
		r = boot_place_initrd(p, b, l->load + init_size,
				      load32(l->header + HDR_INITRD_ADDR_MAX) + 1ull, &initrd, e);
	if (!r)
		r = place_low(p, b->cmdline, strlen(b->cmdline) + 1, 16, &cmdline, e);
	if (!r)
		r = place_rng_seed(p, &seed, e);
	if (r)
		return r;

	memcpy(zp + HDR_START, l->header + HDR_START, l->header_end - HDR_START);
	zp[HDR_LOADER_TYPE] = LOADER_UNDEFINED;
	store32(zp + HDR_CODE32_START, l->load);
	store32(zp + HDR_RAMDISK_IMAGE, initrd);
	store32(zp + HDR_RAMDISK_SIZE, b->has_initrd ? b->initrd.size : 0);
	store32(zp + HDR_CMDLINE_PTR, cmdline);
	store64(zp + HDR_SETUP_DATA, seed);
	store64(zp + ZP_ACPI_RSDP, b->rsdp);
	fill_e820(p, zp);
	r = place_low(p, zp, sizeof(zp), GUEST_PAGE_SIZE, &zp_base, e);
	if (r)
		return r;
	return entry_long_mode(p, l->load + ENTRY_64, zp_base, e);
}

const struct boot_format boot_linux = {
	.name = "Linux bzImage",
	.detect = linux_detect,
	.load = linux_load,
	.place = linux_place,
};
