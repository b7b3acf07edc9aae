/* fw_cfg as a guest drives it: selector, data, directory, DMA. */
#include "vm_helper.h"

#include <string.h>
#include <unistd.h>

#include "boot/fwcfg.h"
#include "chipset/chipset.h"
#include "fields.h"

#define BLOCK	0x1000
#define BUFFER	0x2000

enum { ERROR = 1, READ = 2, SKIP = 4, SELECT = 8, WRITE = 16 };

static struct vm *vm;
static struct fwcfg *f;

static int setup(void **state)
{
	struct skep_error e = { .text = "" };

	vm = test_vm(CLOCK_MODE_VIRTUAL);
	memcpy(vm->uuid, "0123456789abcdef", 16);
	f = fwcfg_create(vm, &e);
	if (!f)
		fail_msg("%s", e.text);
	assert_int_equal(fwcfg_set_file(f, "opt/test", "hello", 5, false, &e), 0);
	return 0;
}

static int teardown(void **state)
{
	test_vm_free(vm);
	return 0;
}

static void choose(uint16_t key) { bus_write(&vm->ports, 0x510, 2, key); }
static uint8_t get(void) { return bus_read(&vm->ports, 0x511, 1); }

static uint64_t get_le(uint16_t key, unsigned bytes)
{
	uint64_t v = 0;

	choose(key);
	for (unsigned i = 0; i < bytes; i++)
		v |= (uint64_t)get() << 8 * i;
	return v;
}

static uint32_t get_be32(void)
{
	uint32_t v = 0;

	for (int i = 0; i < 4; i++)
		v = v << 8 | get();
	return v;
}

/* The selector and size of a file; 0: none. */
static uint16_t find(const char *name, uint32_t *size)
{
	uint32_t n;

	choose(FWCFG_FILE_DIR);
	n = get_be32();
	assert_in_range(n, 1, FWCFG_FILE_SLOTS);
	while (n--) {
		uint16_t key;
		char text[56];

		*size = get_be32();
		key = get_be32() >> 16;
		for (unsigned i = 0; i < sizeof(text); i++)
			text[i] = get();
		if (!strcmp(text, name))
			return key;
	}
	return 0;
}

/* Returns the answer in the command block. */
static uint32_t dma_at(uint64_t block, uint32_t control, uint32_t len, uint64_t address)
{
	uint8_t b[16];

	store32(b, __builtin_bswap32(control));
	store32(b + 4, __builtin_bswap32(len));
	store64(b + 8, __builtin_bswap64(address));
	dma_write(&vm->memory, block, b, sizeof(b));
	bus_write(&vm->ports, 0x514, 4, __builtin_bswap32(block >> 32));
	bus_write(&vm->ports, 0x518, 4, __builtin_bswap32((uint32_t)block));
	memset(b, 0xee, sizeof(b));
	dma_read(&vm->memory, block, b, sizeof(b));
	return __builtin_bswap32(load32(b));
}

static uint32_t dma(uint32_t control, uint32_t len, uint64_t address)
{
	return dma_at(BLOCK, control, len, address);
}

static void numbers(void **state)
{
	assert_int_equal(get_le(FWCFG_SIGNATURE, 4), 0x554d4551);
	assert_int_equal(get_le(FWCFG_ID, 4), 3);
	assert_int_equal(get_le(FWCFG_RAM_SIZE, 8), TEST_RAM);
	assert_int_equal(get_le(FWCFG_NB_CPUS, 2), 1);
	assert_int_equal(get_le(FWCFG_MAX_CPUS, 2), 1);
	choose(FWCFG_UUID);
	for (unsigned i = 0; i < 16; i++)
		assert_int_equal(get(), "0123456789abcdef"[i]);
	assert_int_equal(get(), 0);
}

static void unknown_items_read_as_zero(void **state)
{
	static const uint16_t keys[] = { 0x06, 0x1f, 0x7f, 0x80, 0x3fff, 0x8000, 0xc000, 0xffff };

	for (unsigned i = 0; i < ARRAY_SIZE(keys); i++)
		assert_int_equal(get_le(keys[i], 8), 0);
	/* Bit 14 is ignored. */
	assert_int_equal(get_le(0x4000 | FWCFG_SIGNATURE, 4), 0x554d4551);
}

static void files(void **state)
{
	uint32_t size;
	uint16_t key = find("opt/test", &size);

	assert_true(key >= FWCFG_FILE_FIRST);
	assert_int_equal(size, 5);
	choose(key);
	for (unsigned i = 0; i < 5; i++)
		assert_int_equal(get(), "hello"[i]);
	assert_int_equal(get(), 0);
	assert_int_equal(find("opt/tes", &size), 0);
	assert_true(find("etc/e820", &size));
	assert_int_equal(size, 20);
	assert_true(find("bootorder", &size));
	assert_true(find("etc/vmcoreinfo", &size));
	assert_int_equal(size, 16);
}

static void too_many_files(void **state)
{
	struct skep_error e;
	char name[64];
	int r = 0;

	for (unsigned i = 0; i < 200 && !r; i++) {
		snprintf(name, sizeof(name), "file%u", i);
		r = fwcfg_set_file(f, name, "x", 1, false, &e);
	}
	assert_true(r < 0);
	memset(name, 'x', sizeof(name));
	name[56] = 0;
	assert_true(fwcfg_set_file(f, name, "x", 1, false, &e) < 0);
	assert_int_equal(fwcfg_set_file(f, "opt/test", "longer than it was", 18, false, &e), 0);
}

static void dma_signature(void **state)
{
	assert_int_equal(bus_read(&vm->ports, 0x514, 4), 0x554d4551);
	assert_int_equal(bus_read(&vm->ports, 0x518, 4), 0x47464320);
}

static void dma_reads(void **state)
{
	uint8_t buf[16];
	uint32_t size, key = find("opt/test", &size);

	memset(buf, 0xaa, sizeof(buf));
	dma_write(&vm->memory, BUFFER, buf, sizeof(buf));
	assert_int_equal(dma(key << 16 | SELECT | READ, 8, BUFFER), 0);
	dma_read(&vm->memory, BUFFER, buf, sizeof(buf));
	assert_memory_equal(buf, "hello\0\0\0\xaa", 9);
	assert_int_equal(dma(key << 16 | SELECT, 0, 0), 0);
	assert_int_equal(dma(SKIP, 2, 0), 0);
	assert_int_equal(dma(READ, 2, BUFFER), 0);
	dma_read(&vm->memory, BUFFER, buf, sizeof(buf));
	assert_memory_equal(buf, "ll", 2);
	assert_int_equal(get(), 'o');
	assert_int_equal(dma(SKIP, UINT32_MAX, 0), 0);
	assert_int_equal(get(), 0);
}

static void dma_out_of_bounds(void **state)
{
	uint32_t size, key = find("opt/test", &size);
	static const uint64_t bad[] = { TEST_RAM - 2, TEST_RAM, 0xb0000000, UINT64_MAX - 1, 1ull << 63 };

	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
		assert_int_equal(dma(key << 16 | SELECT | READ, 5, bad[i]), ERROR);
		dma_at(bad[i], key << 16 | SELECT | READ, 5, BUFFER);
	}
	/* A read of almost 4 GiB of zeroes does not fit into RAM. */
	assert_int_equal(dma(0x3f << 16 | SELECT | READ, UINT32_MAX, BUFFER), ERROR);
	/* The answer cannot be written when the block is the buffer's neighbour: harmless. */
	assert_int_equal(dma(key << 16 | SELECT | READ, 5, BUFFER), 0);
}

static void dma_writes(void **state)
{
	uint32_t size, key = find("etc/vmcoreinfo", &size), other = find("opt/test", &size);
	const uint8_t *data;
	size_t len;

	dma_write(&vm->memory, BUFFER, "\1\0\1\0\20\0\0\0abcdefgh", 16);
	assert_int_equal(dma(other << 16 | SELECT | WRITE, 5, BUFFER), ERROR);
	assert_int_equal(dma(key << 16 | SELECT | WRITE, 17, BUFFER), ERROR);
	assert_int_equal(dma(key << 16 | SELECT | WRITE, 16, 0xb0000000), ERROR);
	assert_int_equal(dma(key << 16 | SELECT | WRITE, 16, BUFFER), 0);
	data = fwcfg_get_file(f, "etc/vmcoreinfo", &len);
	assert_int_equal(len, 16);
	assert_memory_equal(data, "\1\0\1\0\20\0\0\0abcdefgh", 16);
	/* Beyond the end now. */
	assert_int_equal(dma(WRITE, 1, BUFFER), ERROR);
	for (struct device *d = vm->devices; d; d = d->next)
		d->type->reset(d);
	data = fwcfg_get_file(f, "etc/vmcoreinfo", &len);
	assert_memory_equal(data, "\1\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 16);
}

static void odd_accesses(void **state)
{
	uint64_t x = 123456789;

	choose(FWCFG_SIGNATURE);
	for (unsigned port = 0x510; port < 0x51c; port++)
		for (unsigned size = 1; size <= 4; size *= 2) {
			(void)bus_read(&vm->ports, port, size);
			if (port < 0x514)
				bus_write(&vm->ports, port, size, 0xffffffff);
		}
	for (unsigned i = 0; i < 100000; i++) {
		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		switch (x & 7) {
		case 0: choose(x >> 8 & 0x7f); break;
		case 1: dma(x >> 8 & 0xffff001e, x >> 3 & 0xffff, x >> 20 & 0x1fffff); break;
		case 2: bus_write(&vm->ports, 0x510 + (x >> 8) % 12, 1u << (x >> 4 & 3), x >> 9); break;
		default: (void)bus_read(&vm->ports, 0x510 + (x >> 8) % 12, 1u << (x >> 4 & 3));
		}
	}
}

static char *model_text(const struct state_record *r, const void *model)
{
	char *text = NULL;
	size_t size;
	FILE *out = open_memstream(&text, &size);

	state_dump(out, "fwcfg", r, model);
	fclose(out);
	return text;
}

/* Exports, changes one field (text: a name of that element), and says whether that is refused. */
static void refused(const char *path, uint64_t value, const char *text, const char *want)
{
	struct device *d = vm->devices;
	const struct state_record *r = d->type->state;
	void *model = calloc(1, r->model_size);
	struct skep_error e = { .text = "" };

	d->type->export(d, model);
	if (text)
		strcpy((char *)field_find(r, model, path).p, text);
	else
		assert_true(field_set(r, model, path, value));
	assert_true(d->type->validate(d, model, &e) < 0);
	if (!strstr(e.text, want))
		fail_msg("%s = %#llx: %s", path, (unsigned long long)value, e.text);
	state_free(r, model);
	free(model);
}

static void state_round_trip(void **state)
{
	struct device *d = vm->devices;
	const struct state_record *r = d->type->state;
	void *model = calloc(1, r->model_size), *again = calloc(1, r->model_size);
	char *before, *after;
	struct skep_error e;
	uint32_t size;

	/* The items are the state's, not this machine's: names, contents, and what was written. */
	choose(find("etc/vmcoreinfo", &size));
	assert_int_equal(dma_write(&vm->memory, BUFFER, "sixteen bytes...", 16), 0);
	assert_int_equal(dma(WRITE, 16, BUFFER), 0);
	choose(FWCFG_SIGNATURE);
	get();
	bus_write(&vm->ports, 0x514, 4, 0x01000000);
	d->type->export(d, model);
	assert_int_equal(state_check(r, d->name, model, NULL, &e), 0);
	assert_int_equal(d->type->validate(d, model, &e), 0);
	before = model_text(r, model);

	d->type->reset(d);
	assert_int_equal(fwcfg_set_file(f, "opt/test", "other", 3, false, &e), 0);
	assert_int_equal(fwcfg_set_file(f, "opt/new", "new", 3, false, &e), 0);
	assert_int_equal(fwcfg_set_item(f, FWCFG_KERNEL_SIZE, "1234", 4, &e), 0);
	d->type->commit(d, model);
	d->type->export(d, again);
	after = model_text(r, again);
	assert_string_equal(before, after);
	assert_int_equal(get(), 'E');
	assert_int_equal(find("opt/new", &size), 0);
	choose(find("opt/test", &size));
	assert_int_equal(size, 5);
	assert_int_equal(get(), 'h');
	free(before);
	free(after);
	state_free(r, model);
	state_free(r, again);
	free(model);
	free(again);
}

static void bad_states(void **state)
{
	refused("key", 0x80, NULL, "key 0x80");
	refused("offset", 5, NULL, "offset 5");
	refused("items[0].key", 0x19, NULL, "items[0].key 0x19");
	refused("items[0].key", 0x80, NULL, "items[0].key 0x80");
	refused("items[1].key", 0, NULL, "items[1].key 0");
	refused("items[0].name", 0, "opt/x", "items[0].name 'opt/x'");
	refused("items[0].writable", 1, NULL, "items[0].name");
	refused("items[8].name", 0, "", "items[8].name ''");
	refused("items[8].name", 0, "etc/e820", "is there twice");
	refused("items[8].key", 0x1f, NULL, "items[8].name");
	refused("items[9].key", 0x7f, NULL, "leaves a file out");
	refused("items[10].writable", 0, NULL, "no etc/vmcoreinfo");
	/* The directory follows from the files. */
	choose(FWCFG_FILE_DIR);
	refused("offset", 4 + 4 * 64 + 1, NULL, "offset 261");
}

static struct config *configured(const char *const *keys)
{
	struct config *c = config_create();
	struct skep_error e = { .text = "" };

	for (; *keys; keys++)
		if (config_set_assignment(c, *keys, "test", &e))
			fail_msg("%s", e.text);
	if (config_freeze(c, &e))
		fail_msg("%s", e.text);
	return c;
}

static void user_files(void **state)
{
	char path[] = "/tmp/skep-fwcfg-XXXXXX", key[64];
	const char *keys[] = { "fwcfg.0.name=opt/a", "fwcfg.0.string=text", "fwcfg.1.name=opt/b",
			       key, NULL };
	struct skep_error e = { .text = "" };
	struct vm *other = test_vm(CLOCK_MODE_VIRTUAL);
	const uint8_t *data;
	size_t len;
	int fd = mkstemp(path);

	assert_int_equal(write(fd, "bytes", 5), 5);
	close(fd);
	snprintf(key, sizeof(key), "fwcfg.1.file=%s", path);
	other->config = configured(keys);
	f = fwcfg_create(other, &e);
	if (!f)
		fail_msg("%s", e.text);
	data = fwcfg_get_file(f, "opt/a", &len);
	assert_int_equal(len, 4);
	assert_memory_equal(data, "text", 4);
	data = fwcfg_get_file(f, "opt/b", &len);
	assert_int_equal(len, 5);
	assert_memory_equal(data, "bytes", 5);
	config_destroy(other->config);
	test_vm_free(other);
	unlink(path);

	other = test_vm(CLOCK_MODE_VIRTUAL);
	other->config = configured(keys);
	assert_null(fwcfg_create(other, &e));
	assert_non_null(strstr(e.text, path));
	config_destroy(other->config);
	test_vm_free(other);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(numbers), T(unknown_items_read_as_zero), T(files), T(too_many_files),
		T(dma_signature), T(dma_reads), T(dma_out_of_bounds), T(dma_writes),
		T(odd_accesses), T(state_round_trip), T(bad_states), T(user_files),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
