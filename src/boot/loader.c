/*
 * QEMU's table loader script: entries of 128 bytes, little-endian (QEMU,
 * hw/acpi/bios-linker-loader.c): a command, then its arguments.  Written here
 * for firmware, and run here when there is none.
 */
#include <errno.h>
#include <stdlib.h>

#include "base/util.h"
#include "boot/fwcfg.h"
#include "boot/place.h"
#include "boot/tables.h"
#include "vm/vm.h"

#define ENTRY_SIZE	128
#define NAME_SIZE	56

#define CMD_ALLOCATE		1
#define CMD_ADD_POINTER		2
#define CMD_ADD_CHECKSUM	3
#define CMD_WRITE_POINTER	4

#define FSEG_BASE	0xf0000ull

static size_t put_entry(struct blob *s, uint32_t command, const char *file)
{
	size_t at = blob_u32(s, command);

	blob_text(s, file, NAME_SIZE, 0);
	return at;
}

void loader_allocate(struct blob *s, const char *file, uint32_t align, enum loader_zone zone)
{
	size_t at = put_entry(s, CMD_ALLOCATE, file);

	blob_u32(s, align);
	blob_u8(s, zone);
	blob_zero(s, at + ENTRY_SIZE - s->len);
}

void loader_add_pointer(struct blob *s, const char *dest, uint32_t offset, uint8_t size,
			const char *src)
{
	size_t at = put_entry(s, CMD_ADD_POINTER, dest);

	blob_text(s, src, NAME_SIZE, 0);
	blob_u32(s, offset);
	blob_u8(s, size);
	blob_zero(s, at + ENTRY_SIZE - s->len);
}

void loader_add_checksum(struct blob *s, const char *file, uint32_t offset, uint32_t start,
			 uint32_t length)
{
	size_t at = put_entry(s, CMD_ADD_CHECKSUM, file);

	blob_u32(s, offset);
	blob_u32(s, start);
	blob_u32(s, length);
	blob_zero(s, at + ENTRY_SIZE - s->len);
}

void loader_write_pointer(struct blob *s, const char *dest, const char *src)
{
	size_t at = put_entry(s, CMD_WRITE_POINTER, dest);

	blob_text(s, src, NAME_SIZE, 0);
	blob_u32(s, 0);				/* offset in dest, in src; bytes */
	blob_u32(s, 0);
	blob_u8(s, 8);
	blob_zero(s, at + ENTRY_SIZE - s->len);
}

/* Running it. */

void loader_init(struct loader *l, struct vm *vm, struct fwcfg *f)
{
	*l = (struct loader){ .vm = vm, .fwcfg = f, .next = { BIOS_BASE, FSEG_BASE } };
}

void loader_finish(struct loader *l)
{
	for (unsigned i = 0; i < l->nfiles; i++)
		free(l->file[i].data);
	l->nfiles = 0;
}

/* The name in an entry need not end in a NUL: compare all of it. */
static struct loader_file *find_file(const struct loader *l, const uint8_t *name)
{
	for (unsigned i = 0; i < l->nfiles; i++)
		if (!strncmp(l->file[i].name, (const char *)name, NAME_SIZE))
			return (struct loader_file *)&l->file[i];
	return NULL;
}

uint64_t loader_address(const struct loader *l, const char *name)
{
	for (unsigned i = 0; i < l->nfiles; i++)
		if (!strcmp(l->file[i].name, name))
			return l->file[i].address;
	return 0;
}

static int bad_script(const char *what, struct skep_error *e)
{
	return skep_fail(e, EINVAL, "the table loader script does not hold together: %s", what);
}

static int run_allocate(struct loader *l, const uint8_t *arg, struct skep_error *e)
{
	static const uint64_t limit[2] = { FSEG_BASE, 1 * MiB };
	struct loader_file *f = &l->file[l->nfiles];
	uint32_t align = load32(arg + NAME_SIZE);
	unsigned zone = arg[NAME_SIZE + 4] - LOADER_HIGH;
	const uint8_t *data;
	uint64_t at;

	if (zone > 1 || !align || (align & (align - 1)) || align > 64 * KiB)
		return bad_script("a zone or an alignment is unknown", e);
	if (l->nfiles == LOADER_MAX_FILES || find_file(l, arg))
		return bad_script("too many files, or one twice", e);
	memcpy(f->name, arg, NAME_SIZE);
	f->name[NAME_SIZE - 1] = 0;
	data = fwcfg_get_file(l->fwcfg, f->name, &f->len);
	if (!data)
		return bad_script("it names a file that is not there", e);
	at = ALIGN_UP(l->next[zone], (uint64_t)align);
	if (at > limit[zone] || f->len > limit[zone] - at)
		return bad_script("the tables do not fit below 1 MiB", e);
	f->data = malloc(f->len ? f->len : 1);
	if (!f->data)
		return skep_fail(e, ENOMEM, "no memory left for the machine's tables");
	memcpy(f->data, data, f->len);
	f->address = at;
	l->next[zone] = at + f->len;
	l->nfiles++;
	return 0;
}

static int run_add_pointer(struct loader *l, const uint8_t *arg, struct skep_error *e)
{
	struct loader_file *dest = find_file(l, arg), *src = find_file(l, arg + NAME_SIZE);
	uint32_t offset = load32(arg + 2 * NAME_SIZE);
	uint8_t size = arg[2 * NAME_SIZE + 4];
	uint64_t v = 0;

	if (!dest || !src)
		return bad_script("a pointer names a file that was not placed", e);
	if ((size != 1 && size != 2 && size != 4 && size != 8) || offset > dest->len ||
	    size > dest->len - offset)
		return bad_script("a pointer lies outside its file", e);
	memcpy(&v, dest->data + offset, size);
	v += src->address;
	memcpy(dest->data + offset, &v, size);
	return 0;
}

static int run_add_checksum(struct loader *l, const uint8_t *arg, struct skep_error *e)
{
	struct loader_file *f = find_file(l, arg);
	uint32_t offset = load32(arg + NAME_SIZE), start = load32(arg + NAME_SIZE + 4);
	uint32_t length = load32(arg + NAME_SIZE + 8);

	if (!f)
		return bad_script("a checksum names a file that was not placed", e);
	if (offset >= f->len || start > f->len || length > f->len - start)
		return bad_script("a checksum lies outside its file", e);
	f->data[offset] = 0;
	f->data[offset] = blob_checksum(f->data + start, length);
	return 0;
}

int loader_run(struct loader *l, const uint8_t *script, size_t len, struct skep_error *e)
{
	for (size_t at = 0; len - at >= ENTRY_SIZE; at += ENTRY_SIZE) {
		const uint8_t *arg = script + at + 4;
		int r = 0;

		switch (load32(script + at)) {
		case CMD_ALLOCATE:
			r = run_allocate(l, arg, e);
			break;
		case CMD_ADD_POINTER:
			r = run_add_pointer(l, arg, e);
			break;
		case CMD_ADD_CHECKSUM:
			r = run_add_checksum(l, arg, e);
			break;
		default:
			/* As firmware does: commands of later times are skipped; see loader_tell. */
			break;
		}
		if (r)
			return r;
	}
	return 0;
}

int loader_write(struct loader *l, struct skep_error *e)
{
	for (unsigned i = 0; i < l->nfiles; i++) {
		int r = place_write(l->vm, l->file[i].address, l->file[i].data, l->file[i].len, e);

		if (r)
			return r;
	}
	return 0;
}

static int run_write_pointer(struct loader *l, const uint8_t *arg, struct skep_error *e)
{
	const struct loader_file *src = find_file(l, arg + NAME_SIZE);
	uint32_t offset = load32(arg + 2 * NAME_SIZE), in_src = load32(arg + 2 * NAME_SIZE + 4);
	uint8_t size = arg[2 * NAME_SIZE + 8];
	char dest[NAME_SIZE];
	uint64_t v;

	if (!src)
		return bad_script("a pointer to a file that was not placed is to be told", e);
	if ((size != 1 && size != 2 && size != 4 && size != 8) || in_src >= src->len)
		return bad_script("a pointer that is to be told lies outside its file", e);
	memcpy(dest, arg, NAME_SIZE);
	dest[NAME_SIZE - 1] = 0;
	v = src->address + in_src;
	if (fwcfg_write_file(l->fwcfg, dest, offset, &v, size) < 0)
		return bad_script("a pointer is to be told to a file that cannot be written", e);
	return 0;
}

int loader_tell(struct loader *l, const uint8_t *script, size_t len, struct skep_error *e)
{
	for (size_t at = 0; len - at >= ENTRY_SIZE; at += ENTRY_SIZE)
		if (load32(script + at) == CMD_WRITE_POINTER) {
			int r = run_write_pointer(l, script + at + 4, e);

			if (r)
				return r;
		}
	return 0;
}
