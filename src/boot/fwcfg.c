#include "boot/fwcfg.h"

#include <errno.h>
#include <stdlib.h>

#include "boot/file.h"
#include "chipset/chipset.h"
#include "state/state.h"
#include "vm/vm.h"

#define KEY_MASK	0x3fff		/* bit 14: write (obsolete), bit 15: architecture's own */
#define KEY_LOCAL	0x8000
#define KEY_INVALID	0xffff
#define KEYS		(FWCFG_FILE_FIRST + FWCFG_FILE_SLOTS)

#define ID_TRADITIONAL	1
#define ID_DMA		2

#define DMA_REGISTER	4		/* offset; the second half starts the transfer */

#define DMA_ERROR	0x01
#define DMA_READ	0x02
#define DMA_SKIP	0x04
#define DMA_SELECT	0x08
#define DMA_WRITE	0x10

#define DIR_ENTRY	64
#define VMCOREINFO	"etc/vmcoreinfo"
#define VMCOREINFO_SIZE	16
#define ITEM_MAX	(64 * MiB)	/* bytes of one item, and of all of them */
#define TOTAL_MAX	(256 * MiB)

struct item {
	uint8_t *data;
	size_t len;
	bool writable;
	char name[FWCFG_NAME_MAX + 1];
};

struct write_hook {
	const char *name;		/* of a file; static */
	void (*fn)(void *opaque);
	void *opaque;
};

struct fwcfg {
	struct device dev;
	struct item item[KEYS];
	struct write_hook hook[4];
	unsigned nhooks;
	unsigned nfiles;
	uint16_t key;			/* selected; KEY_INVALID: none such */
	uint32_t offset;		/* in the selected item, at most its length */
	uint32_t dma_high;
};

struct item_model {
	uint16_t key;
	char name[FWCFG_NAME_MAX + 1];	/* of a file, else empty */
	uint8_t writable;
	struct state_blob data;
};

/* Every item by content, by rising key, but the directory: it follows from the others. */
struct fwcfg_model {
	uint16_t key;
	uint32_t offset;
	uint32_t dma_high;
	struct state_list items;
	bool failed;			/* export had no memory; in no snapshot */
};

/* Items. */

static size_t total_size(const struct fwcfg *f)
{
	size_t total = 0;

	for (unsigned i = 0; i < KEYS; i++)
		total += f->item[i].len;
	return total;
}

int fwcfg_set_item(struct fwcfg *f, uint16_t key, const void *data, size_t len,
		   struct skep_error *e)
{
	struct item *it;
	uint8_t *copy;

	if (key >= KEYS || len > ITEM_MAX)
		return skep_fail(e, EINVAL, "fwcfg: item %#x of %zu bytes cannot be", key, len);
	if (total_size(f) - f->item[key].len + len > TOTAL_MAX)
		return skep_fail(e, EFBIG, "fwcfg: all items together are larger than %llu MiB",
				 TOTAL_MAX / MiB);
	copy = malloc(len ? len : 1);
	if (!copy)
		return skep_fail(e, ENOMEM, "fwcfg: no memory left");
	if (len)
		memcpy(copy, data, len);
	it = &f->item[key];
	free(it->data);
	it->data = copy;
	it->len = len;
	if (f->key == key)
		f->offset = 0;
	return 0;
}

static int find_file(const struct fwcfg *f, const char *name)
{
	for (unsigned i = 0; i < f->nfiles; i++)
		if (!strcmp(f->item[FWCFG_FILE_FIRST + i].name, name))
			return FWCFG_FILE_FIRST + i;
	return -1;
}

const uint8_t *fwcfg_get_file(const struct fwcfg *f, const char *name, size_t *len)
{
	int key = find_file(f, name);

	if (key < 0)
		return NULL;
	*len = f->item[key].len;
	return f->item[key].data;
}

void fwcfg_update_file(struct fwcfg *f, const char *name, size_t offset, const void *data,
		       size_t len)
{
	int key = find_file(f, name);

	if (key >= 0 && offset <= f->item[key].len && len <= f->item[key].len - offset)
		memcpy(f->item[key].data + offset, data, len);
}

int fwcfg_on_write(struct fwcfg *f, const char *name, void (*fn)(void *opaque), void *opaque,
		   struct skep_error *e)
{
	if (f->nhooks == ARRAY_SIZE(f->hook))
		return skep_fail(e, ENOSPC, "fwcfg: too many devices wait for '%s'", name);
	f->hook[f->nhooks++] = (struct write_hook){ name, fn, opaque };
	return 0;
}

static void tell_written(struct fwcfg *f, const struct item *it)
{
	for (unsigned i = 0; i < f->nhooks; i++)
		if (!strcmp(f->hook[i].name, it->name))
			f->hook[i].fn(f->hook[i].opaque);
}

int fwcfg_write_file(struct fwcfg *f, const char *name, size_t offset, const void *data,
		     size_t len)
{
	int key = find_file(f, name);
	struct item *it = key < 0 ? NULL : &f->item[key];

	if (!it || !it->writable || offset > it->len || len > it->len - offset)
		return -EINVAL;
	memcpy(it->data + offset, data, len);
	tell_written(f, it);
	return 0;
}

/* Big-endian: count, then size, selector, two reserved bytes and 56 of name each. */
static int build_directory(struct fwcfg *f, struct skep_error *e)
{
	uint8_t dir[4 + FWCFG_FILE_SLOTS * DIR_ENTRY] = { 0 };

	store32(dir, __builtin_bswap32(f->nfiles));
	for (unsigned i = 0; i < f->nfiles; i++) {
		const struct item *it = &f->item[FWCFG_FILE_FIRST + i];
		uint8_t *entry = dir + 4 + i * DIR_ENTRY;

		store32(entry, __builtin_bswap32(it->len));
		store16(entry + 4, __builtin_bswap16(FWCFG_FILE_FIRST + i));
		memcpy(entry + 8, it->name, sizeof(it->name));
	}
	return fwcfg_set_item(f, FWCFG_FILE_DIR, dir, 4 + f->nfiles * DIR_ENTRY, e);
}

int fwcfg_set_file(struct fwcfg *f, const char *name, const void *data, size_t len,
		   bool writable, struct skep_error *e)
{
	int key = find_file(f, name), r;

	if (!*name || strlen(name) > FWCFG_NAME_MAX)
		return skep_fail(e, EINVAL, "fwcfg: the file name '%s' must have 1 to %d characters",
				 name, FWCFG_NAME_MAX);
	if (key < 0) {
		if (f->nfiles == FWCFG_FILE_SLOTS)
			return skep_fail(e, ENOSPC, "fwcfg: no room for '%s': at most %d files", name,
					 FWCFG_FILE_SLOTS);
		key = FWCFG_FILE_FIRST + f->nfiles;
	}
	r = fwcfg_set_item(f, key, data, len, e);
	if (r)
		return r;
	if (key == FWCFG_FILE_FIRST + (int)f->nfiles) {
		memcpy(f->item[key].name, name, strlen(name) + 1);
		f->nfiles++;
	}
	f->item[key].writable = writable;
	return build_directory(f, e);
}

/* The selected item, or NULL: it reads as zeroes. */
static struct item *selected(struct fwcfg *f)
{
	return f->key < KEYS && f->item[f->key].data ? &f->item[f->key] : NULL;
}

static void select_item(struct fwcfg *f, uint16_t key)
{
	f->offset = 0;
	f->key = (key & KEY_LOCAL) || (key & KEY_MASK) >= KEYS ? KEY_INVALID : key & KEY_MASK;
}

/* DMA: a command block of control, length and address, all big-endian. */

static bool dma_to_guest(struct fwcfg *f, uint64_t address, uint32_t len)
{
	struct guest_memory *m = &f->dev.vm->memory;
	struct item *it = selected(f);
	uint32_t n = it ? MIN(len, (uint32_t)(it->len - f->offset)) : 0;

	if (n && dma_write(m, address, it->data + f->offset, n))
		return false;
	f->offset += n;
	/* What lies after the end reads as zeroes; dma_zero takes no more than RAM. */
	return n == len || !dma_zero(m, address + n, len - n);
}

static bool dma_from_guest(struct fwcfg *f, uint64_t address, uint32_t len)
{
	struct item *it = selected(f);

	if (!it || !it->writable || len > it->len - f->offset)
		return false;
	if (dma_read(&f->dev.vm->memory, address, it->data + f->offset, len))
		return false;
	f->offset += len;
	tell_written(f, it);
	return true;
}

static void dma_skip(struct fwcfg *f, uint32_t len)
{
	struct item *it = selected(f);

	if (it)
		f->offset += MIN(len, (uint32_t)(it->len - f->offset));
}

static void dma_run(struct fwcfg *f, uint64_t block)
{
	struct guest_memory *m = &f->dev.vm->memory;
	uint8_t command[16];
	uint32_t control, len, result = DMA_ERROR;
	uint64_t address;
	bool ok = true;

	if (!dma_read(m, block, command, sizeof(command))) {
		control = __builtin_bswap32(load32(command));
		len = __builtin_bswap32(load32(command + 4));
		address = __builtin_bswap64(load64(command + 8));
		if (control & DMA_SELECT)
			select_item(f, control >> 16);
		if (control & DMA_READ)
			ok = dma_to_guest(f, address, len);
		else if (control & DMA_WRITE)
			ok = dma_from_guest(f, address, len);
		else if (control & DMA_SKIP)
			dma_skip(f, len);
		result = ok ? 0 : DMA_ERROR;
	}
	result = __builtin_bswap32(result);
	/* A block that is not in RAM cannot be answered. */
	(void)dma_write(m, block, &result, sizeof(result));
}

/* Registers. */

static uint64_t fwcfg_read(void *opaque, uint64_t offset, unsigned size)
{
	static const uint8_t signature[8] = { 'Q', 'E', 'M', 'U', ' ', 'C', 'F', 'G' };
	struct fwcfg *f = opaque;
	uint64_t v = 0;

	if (offset == 1 && size == 1) {
		struct item *it = selected(f);

		return it && f->offset < it->len ? it->data[f->offset++] : 0;
	}
	if (offset >= 4 && offset - 4 + size <= sizeof(signature)) {
		memcpy(&v, signature + (offset - 4), size);
		return v;
	}
	return UINT64_MAX;
}

static void fwcfg_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
	struct fwcfg *f = opaque;

	if (offset == 0 && size == 2) {
		select_item(f, value);
	} else if (offset == DMA_REGISTER && size == 4) {
		f->dma_high = __builtin_bswap32(value);
	} else if (offset == DMA_REGISTER + 4 && size == 4) {
		uint64_t block = (uint64_t)f->dma_high << 32 | __builtin_bswap32(value);

		f->dma_high = 0;
		dma_run(f, block);
	}
}

static const struct bus_ops fwcfg_ops = {
	.read = fwcfg_read,
	.write = fwcfg_write,
	.max_size = 4,
};

/* What every machine has. */

static int set_u16(struct fwcfg *f, uint16_t key, uint16_t v, struct skep_error *e)
{
	return fwcfg_set_item(f, key, &v, sizeof(v), e);
}

static int set_numbers(struct fwcfg *f, struct skep_error *e)
{
	struct vm *vm = f->dev.vm;
	uint32_t id = ID_TRADITIONAL | ID_DMA;
	uint64_t ram = vm->memory.size;
	int r = fwcfg_set_item(f, FWCFG_SIGNATURE, "QEMU", 4, e);

	if (!r)
		r = fwcfg_set_item(f, FWCFG_ID, &id, sizeof(id), e);
	if (!r)
		r = fwcfg_set_item(f, FWCFG_UUID, vm->uuid, sizeof(vm->uuid), e);
	if (!r)
		r = fwcfg_set_item(f, FWCFG_RAM_SIZE, &ram, sizeof(ram), e);
	if (!r)
		r = set_u16(f, FWCFG_NOGRAPHIC, 1, e);
	if (!r)
		r = set_u16(f, FWCFG_NB_CPUS, vm->ncpus, e);
	if (!r)
		r = set_u16(f, FWCFG_BOOT_MENU, 0, e);
	return r ? r : set_u16(f, FWCFG_MAX_CPUS, vm->ncpus, e);
}

/* etc/e820: the RAM that there is; firmware itself knows what it reserves. */
static int set_e820(struct fwcfg *f, struct skep_error *e)
{
	const struct guest_memory *m = &f->dev.vm->memory;
	uint8_t map[ARRAY_SIZE(m->ram) * 20];

	for (unsigned i = 0; i < m->nram; i++) {
		store64(map + 20 * i, m->ram[i].gpa);
		store64(map + 20 * i + 8, m->ram[i].size);
		store32(map + 20 * i + 16, 1);
	}
	return fwcfg_set_file(f, "etc/e820", map, 20 * m->nram, false, e);
}

/*
 * vmcoreinfo (QEMU, docs/specs/vmcoreinfo): host format, guest format, size,
 * address; format 1 is an ELF note.
 */
static const uint8_t vmcoreinfo_initial[VMCOREINFO_SIZE] = { 1 };

static int read_user_file(struct config_node *n, struct boot_file *file, uint8_t **data,
			  struct skep_error *e)
{
	int r = boot_file_open(file, config_path(n), config_string(n, "file"), ITEM_MAX, e);

	if (r)
		return r;
	if (file->size > ITEM_MAX)
		return skep_fail(e, EFBIG, "%s.file: '%s' is larger than %llu MiB, the most that a "
				 "fw_cfg file may have", config_path(n), file->path,
				 ITEM_MAX / MiB);
	*data = malloc(file->size ? file->size : 1);
	if (!*data)
		return skep_fail(e, ENOMEM, "%s.file: no memory left", config_path(n));
	return boot_file_read(file, 0, *data, file->size, e);
}

/* Keys fwcfg.N.name with .string or .file (-f on the command line). */
static int set_user_file(struct fwcfg *f, struct config_node *n, struct skep_error *e)
{
	const char *name = config_string(n, "name"), *text = config_string(n, "string");
	struct boot_file file = { 0 };
	uint8_t *data = NULL;
	int r;

	if (!name)
		return skep_fail(e, EINVAL, "%s.name is not set: a fw_cfg file needs a name",
				 config_path(n));
	if (text)
		return fwcfg_set_file(f, name, text, strlen(text), false, e);
	if (!config_string(n, "file"))
		return skep_fail(e, EINVAL, "%s: '%s' needs a string or a file", config_path(n), name);
	r = read_user_file(n, &file, &data, e);
	if (!r)
		r = fwcfg_set_file(f, name, data, file.size, false, e);
	free(data);
	boot_file_close(&file);
	return r;
}

static void free_items(struct fwcfg *f)
{
	for (unsigned i = 0; i < KEYS; i++)
		free(f->item[i].data);
}

static int fwcfg_init(struct device *d, struct skep_error *e)
{
	struct fwcfg *f = container_of(d, struct fwcfg, dev);
	int r = set_numbers(f, e);

	if (!r)
		r = build_directory(f, e);
	if (!r)
		r = fwcfg_set_file(f, "bootorder", "", 0, false, e);
	if (!r)
		r = set_e820(f, e);
	if (!r)
		r = fwcfg_set_file(f, VMCOREINFO, vmcoreinfo_initial, VMCOREINFO_SIZE, true, e);
	/* A restored machine's files come with its state: those of the host may be gone. */
	for (struct config_node *n = d->config && !d->vm->restored ? config_first(d->config) : NULL;
	     n && !r; n = config_next(n))
		r = set_user_file(f, n, e);
	if (!r)
		r = bus_map(&d->vm->ports, FWCFG_BASE, 12, &fwcfg_ops, f, d->name, e);
	if (r)
		free_items(f);
	return r;
}

static void fwcfg_finish(struct device *d)
{
	struct fwcfg *f = container_of(d, struct fwcfg, dev);

	bus_unmap(&d->vm->ports, FWCFG_BASE);
	free_items(f);
}

static void fwcfg_reset(struct device *d)
{
	struct fwcfg *f = container_of(d, struct fwcfg, dev);
	int key = find_file(f, VMCOREINFO);

	f->key = 0;
	f->offset = 0;
	f->dma_high = 0;
	/* It is there unless memory ran out, and then the machine ends. */
	if (key >= 0)
		memcpy(f->item[key].data, vmcoreinfo_initial, VMCOREINFO_SIZE);
}

/* ---- State ----------------------------------------------------------- */

static bool carried(const struct fwcfg *f, unsigned key)
{
	return f->item[key].data && key != FWCFG_FILE_DIR;
}

static bool export_item(const struct item *it, struct item_model *m)
{
	strcpy(m->name, it->name);
	m->writable = it->writable;
	if (!it->len)
		return true;
	m->data.data = malloc(it->len);
	if (!m->data.data)
		return false;
	memcpy(m->data.data, it->data, it->len);
	m->data.len = (uint32_t)it->len;
	return true;
}

static void fwcfg_export(const struct device *d, void *model)
{
	const struct fwcfg *f = container_of(d, const struct fwcfg, dev);
	struct fwcfg_model *m = model;
	struct item_model *to;
	unsigned n = 0;

	m->key = f->key;
	m->offset = f->offset;
	m->dma_high = f->dma_high;
	for (unsigned key = 0; key < KEYS; key++)
		n += carried(f, key);
	m->items.items = to = calloc(n, sizeof(*to));
	m->items.count = to ? n : 0;
	m->failed = !to;
	for (unsigned key = 0; key < KEYS && !m->failed; key++) {
		if (!carried(f, key))
			continue;
		to->key = (uint16_t)key;
		m->failed = !export_item(&f->item[key], to++);
	}
}

static int validate_item(const struct device *d, const struct fwcfg_model *m, uint32_t i,
			 struct skep_error *e)
{
	const struct item_model *it = (const struct item_model *)m->items.items + i;
	bool file = it->key >= FWCFG_FILE_FIRST;

	if (it->key >= KEYS || it->key == FWCFG_FILE_DIR)
		return skep_fail(e, EINVAL, "%s: items[%u].key %#x is no item", d->name, i, it->key);
	if (i && it->key <= it[-1].key)
		return skep_fail(e, EINVAL, "%s: items[%u].key %#x is not above the one before", d->name,
				 i, it->key);
	if (file && it->key > FWCFG_FILE_FIRST && (!i || it[-1].key != it->key - 1))
		return skep_fail(e, EINVAL, "%s: items[%u].key %#x leaves a file out", d->name, i,
				 it->key);
	if (file != !!*it->name || (it->writable && !file))
		return skep_fail(e, EINVAL, "%s: items[%u].name '%s' does not fit key %#x", d->name, i,
				 it->name, it->key);
	for (uint32_t k = 0; file && k < i; k++)
		if (!strcmp(it->name, it[-1 - (int64_t)k].name))
			return skep_fail(e, EINVAL, "%s: items[%u].name '%s' is there twice", d->name, i,
					 it->name);
	return 0;
}

static int validate_items(const struct device *d, const struct fwcfg_model *m,
			  struct skep_error *e)
{
	const struct item_model *it = m->items.items;
	bool vmcoreinfo_there = false;
	uint64_t total = 4 + FWCFG_FILE_SLOTS * DIR_ENTRY;

	for (uint32_t i = 0; i < m->items.count; i++) {
		if (validate_item(d, m, i, e) < 0)
			return -EINVAL;
		total += it[i].data.len;
		vmcoreinfo_there |= !strcmp(it[i].name, VMCOREINFO) && it[i].writable &&
				    it[i].data.len == VMCOREINFO_SIZE;
	}
	if (total > TOTAL_MAX)
		return skep_fail(e, EINVAL, "%s: items hold %llu bytes, more than %llu MiB", d->name,
				 (unsigned long long)total, TOTAL_MAX / MiB);
	if (!vmcoreinfo_there)
		return skep_fail(e, EINVAL, "%s: items have no " VMCOREINFO " of %d bytes", d->name,
				 VMCOREINFO_SIZE);
	return 0;
}

/* Bytes of the selected item, as it will be. */
static uint32_t model_item_size(const struct fwcfg_model *m, uint16_t key)
{
	const struct item_model *it = m->items.items;
	uint32_t files = 0;

	for (uint32_t i = 0; i < m->items.count; i++) {
		if (it[i].key == key)
			return it[i].data.len;
		files += it[i].key >= FWCFG_FILE_FIRST;
	}
	return key == FWCFG_FILE_DIR ? 4 + files * DIR_ENTRY : 0;
}

static int fwcfg_validate(const struct device *d, const void *model, struct skep_error *e)
{
	const struct fwcfg_model *m = model;

	if (m->failed)
		return skep_fail(e, ENOMEM, "%s: no memory for a copy of its items", d->name);
	if (validate_items(d, m, e) < 0)
		return -EINVAL;
	if (m->key >= KEYS && m->key != KEY_INVALID)
		return skep_fail(e, EINVAL, "%s: key %#x is no item", d->name, m->key);
	if (m->offset > model_item_size(m, m->key))
		return skep_fail(e, EINVAL, "%s: offset %u lies outside item %#x", d->name, m->offset,
				 m->key);
	return 0;
}

static int commit_items(struct fwcfg *f, const struct fwcfg_model *m, struct skep_error *e)
{
	const struct item_model *from = m->items.items;

	free_items(f);
	memset(f->item, 0, sizeof(f->item));
	f->nfiles = 0;
	for (uint32_t i = 0; i < m->items.count; i++) {
		struct item *it = &f->item[from[i].key];

		if (fwcfg_set_item(f, from[i].key, from[i].data.data, from[i].data.len, e) < 0)
			return -ENOMEM;
		memcpy(it->name, from[i].name, sizeof(it->name));
		it->writable = from[i].writable;
		f->nfiles += from[i].key >= FWCFG_FILE_FIRST;
	}
	return build_directory(f, e);
}

static void fwcfg_commit(struct device *d, const void *model)
{
	struct fwcfg *f = container_of(d, struct fwcfg, dev);
	const struct fwcfg_model *m = model;
	struct skep_error e = { .text = "" };

	/* Only memory can be missing: the machine ends before it runs. */
	if (commit_items(f, m, &e) < 0)
		vm_request_error(d->vm, "%s", e.text);
	f->key = m->key;
	f->offset = m->offset;
	f->dma_high = m->dma_high;
}

static const struct state_field item_fields[] = {
	STATE_U16(struct item_model, key),
	STATE_TEXT(struct item_model, name),
	STATE_BOOL(struct item_model, writable),
	STATE_BLOB(struct item_model, data, .max = ITEM_MAX),
};

static const struct state_record item_record = {
	.kind = "fwcfg-item",
	.version = 1,
	.model_size = sizeof(struct item_model),
	.fields = item_fields,
	.nfields = ARRAY_SIZE(item_fields),
};

static const struct state_field fwcfg_fields[] = {
	STATE_U16(struct fwcfg_model, key),
	STATE_U32(struct fwcfg_model, offset),
	STATE_U32(struct fwcfg_model, dma_high),
	STATE_LIST(struct fwcfg_model, items, &item_record, .max = KEYS),
};

const struct state_record fwcfg_record = {
	.kind = "fwcfg",
	.version = 1,
	.model_size = sizeof(struct fwcfg_model),
	.fields = fwcfg_fields,
	.nfields = ARRAY_SIZE(fwcfg_fields),
};

static const struct config_schema no_keys;	/* fwcfg.N.* stand in config/schema.c */

const struct device_type fwcfg_type = {
	.name = "fwcfg",
	.help = "QEMU's firmware configuration interface, ports 0x510-0x51b",
	.config = &no_keys,
	.state = &fwcfg_record,
	.size = sizeof(struct fwcfg),
	.init = fwcfg_init,
	.finish = fwcfg_finish,
	.reset = fwcfg_reset,
	.quiesce = device_nop,
	.resume = device_nop,
	.export = fwcfg_export,
	.validate = fwcfg_validate,
	.commit = fwcfg_commit,
};

struct fwcfg *fwcfg_create(struct vm *vm, struct skep_error *e)
{
	struct device *d = device_create(vm, &fwcfg_type, "fwcfg",
					 vm->config ? config_find(vm->config, "fwcfg") : NULL, e);

	return d ? container_of(d, struct fwcfg, dev) : NULL;
}

struct fwcfg *fwcfg_of(struct vm *vm)
{
	for (struct device *d = vm->devices; d; d = d->next)
		if (d->type == &fwcfg_type)
			return container_of(d, struct fwcfg, dev);
	return NULL;
}
