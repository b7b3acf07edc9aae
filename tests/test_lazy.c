/* RAM that comes from a snapshot: mapped, or fetched when it is first looked at. */
#include "vm_helper.h"

#include <errno.h>
#include <limits.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "vm/cut.h"
#include "vm/loop.h"

static struct vm *vm;
static struct guest_memory *m;
static struct skep_error e;
static int file = -1;

#define FILE_SIZE (8 * MiB)

static uint8_t pattern(uint64_t offset)
{
	return (uint8_t)((offset >> 12) * 14 + (offset >> 20) * 2) | 1;	/* never zero */
}

static int setup(void **state)
{
	struct vm_core_options o = { .ram = TEST_RAM, .seeded = true };
	uint8_t page[4096];
	uint64_t at;

	clock_init(&o.clock, CLOCK_MODE_VIRTUAL);
	vm = test_vm_options(&o);
	m = &vm->memory;
	e.text[0] = '\0';
	/* A file of its own: a memfd is as good as any. */
	file = memfd_create("snapshot", MFD_CLOEXEC);
	assert_true(file >= 0);
	for (at = 0; at < FILE_SIZE; at += sizeof(page)) {
		memset(page, pattern(at), sizeof(page));
		assert_int_equal(pwrite(file, page, sizeof(page), (off_t)at), sizeof(page));
	}
	return 0;
}

static int teardown(void **state)
{
	test_vm_free(vm);
	close(file);
	return 0;
}

static uint8_t get(uint64_t gpa)
{
	uint8_t v = 0;

	assert_int_equal(dma_read(m, gpa, &v, 1), 0);
	return v;
}

static void put(uint64_t gpa, uint8_t v)
{
	assert_int_equal(dma_write(m, gpa, &v, 1), 0);
}

static void map(uint64_t gpa, uint64_t len, uint64_t offset)
{
	if (memory_map_file(m, gpa, len, file, offset, &e) < 0)
		fail_msg("%s", e.text);
}

/* What a cut says, laid over an image of RAM; returns the number of pages. */
static unsigned take_cut(unsigned flags, uint8_t *image, bool commit)
{
	struct ram_cut *c = memory_cut(m, flags, &e);
	struct ram_chunk k;
	unsigned n = 0, i;
	int got;

	if (!c)
		fail_msg("%s", e.text);
	/* Writers come after the cut. */
	if (flags & CUT_LIVE) {
		put(0x100000, 0xee);
		put(0x3ff000, 0xee);
	}
	while ((got = ram_cut_next(c, &k, &e)) > 0)
		for (i = 0; i < k.npages; i++)
			if (k.there[i / 64] >> i % 64 & 1) {
				memcpy(image + k.gpa + i * 4096, k.data + i * 4096, 4096);
				n++;
			}
	if (got < 0)
		fail_msg("%s", e.text);
	if (commit)
		ram_cut_commit(c);
	else
		ram_cut_abort(c);
	return n;
}

static bool told_to_stop(const char *word)
{
	loop_wake(vm);
	loop_iterate(vm);
	loop_wake(vm);
	loop_iterate(vm);
	return vm_exiting(vm) && vm->exit_code == VM_EXIT_ERROR && strstr(vm->exit_error.text, word);
}

/* ---- Mappings ----------------------------------------------------------- */

static void mapped_ram(void **state)
{
	map(0x200000, 0x400000, 0x100000);
	assert_int_equal(memory_touched(m), 0x400000);
	assert_int_equal(memory_count_dirty(m), 0);
	assert_int_equal(get(0x200000), pattern(0x100000));
	assert_int_equal(get(0x5fffff), pattern(0x4fffff));
	assert_int_equal(get(0x600000), 0);
	put(0x200000, 99);
	assert_int_equal(get(0x200000), 99);
	assert_int_equal(memory_count_dirty(m), 1);
	assert_int_equal(memory_lost(m, &e), 0);
	/* The file is as it was. */
	uint8_t v;

	assert_int_equal(pread(file, &v, 1, 0x100000), 1);
	assert_int_equal(v, pattern(0x100000));
	assert_int_equal(memory_prefault(m, 0, TEST_RAM, false, &e), 0);
	assert_int_equal(memory_prefault(m, 0x3000, 1, true, &e), 0);
	assert_true(memory_prefault(m, TEST_RAM, 1, false, &e) < 0);
}

static void bad_mappings(void **state)
{
	static const uint64_t bad[][3] = {
		{ 0x200001, 0x1000, 0 }, { 0x200000, 0x1001, 0 }, { 0x200000, 0x1000, 1 },
		{ TEST_RAM, 0x1000, 0 }, { TEST_RAM - 0x1000, 0x2000, 0 },
		{ 0x1000, UINT64_MAX - 0xfff, 0 }, { UINT64_MAX - 0xfff, 0x1000, 0 },
		{ 0x200000, 0x1000, FILE_SIZE }, { 0x200000, 0x2000, FILE_SIZE - 0x1000 },
		{ 0x200000, 0x1000, UINT64_MAX - 0xfff }, { 0x200000, 0x1000, INT64_MAX - 0xfff },
	};
	unsigned i;

	for (i = 0; i < ARRAY_SIZE(bad); i++) {
		e.text[0] = '\0';
		assert_true(memory_map_file(m, bad[i][0], bad[i][1], file, bad[i][2], &e) < 0);
		assert_true(e.text[0]);
	}
	assert_true(memory_map_file(m, 0x200000, 0x1000, -1, 0, &e) < 0);
	assert_int_equal(memory_touched(m), 0);
	assert_int_equal(memory_map_file(m, 0x200000, 0, file, 0, &e), 0);
}

static void many_mappings(void **state)
{
	uint64_t i;

	/* Thousands, no two of which are one to the host; then more than it may have. */
	for (i = 0; i < 2000; i++)
		map(0x100000 + i * 0x1000, 0x1000, (2000 - i) * 0x1000 % FILE_SIZE);
	for (i = 0; i < 2000; i++)
		assert_int_equal(get(0x100000 + i * 0x1000),
				 pattern((2000 - i) * 0x1000 % FILE_SIZE));
	m->max_maps = m->nmaps + 2048 + 1;
	assert_int_equal(memory_map_file(m, 0xf00000, 0x1000, file, 0, &e), -ENOMEM);
	assert_non_null(strstr(e.text, "max_map_count"));
	/* What goes on where the last one ended is no other mapping. */
	m->map_end.gpa = 0xf00000;
	m->map_end.offset = 0x5000;
	m->map_end.fd = file;
	map(0xf00000, 0x1000, 0x5000);
	assert_int_equal(get(0xf00000), pattern(0x5000));
}

static void mapped_then_cut(void **state)
{
	uint8_t *image = calloc(1, TEST_RAM), *want = calloc(1, TEST_RAM);
	unsigned live;

	assert_true(image && want);
	map(0x100000, 0x300000, 0);
	for (live = 0; live <= CUT_LIVE; live += CUT_LIVE) {
		put(0x180000, (uint8_t)(10 + live));
		put(0xa00000, (uint8_t)(20 + live));
		memcpy(want, m->ram[0].host, TEST_RAM);
		/* The delta is for who has the snapshot that RAM comes from. */
		memset(image, 0, TEST_RAM);
		assert_int_equal(pread(file, image + 0x100000, 0x300000, 0), 0x300000);
		if (live) {	/* what the round before has written */
			image[0x180000] = 10;
			image[0xa00000] = 20;
		}
		assert_int_equal(take_cut(live | CUT_DELTA, image, false), 2);
		assert_memory_equal(image, want, TEST_RAM);
		memcpy(want, m->ram[0].host, TEST_RAM);
		assert_int_equal(take_cut(live | CUT_DELTA, image, true), live ? 4 : 2);
		assert_memory_equal(image, want, TEST_RAM);
		/* And everything. */
		memset(image, 0, TEST_RAM);
		memcpy(want, m->ram[0].host, TEST_RAM);
		assert_int_equal(take_cut(live, image, true), 0x301);
		assert_memory_equal(image, want, TEST_RAM);
	}
	free(image);
	free(want);
}

static void discarded_memory(void **state)
{
	uint8_t *image = calloc(1, TEST_RAM);

	assert_non_null(image);
	map(0x100000, 0x100000, 0);
	put(0x300000, 1);
	ram_cut_commit(memory_cut(m, 0, &e));
	assert_int_equal(memory_discard(m, 0x100800, 0x1000), -EINVAL);
	assert_int_equal(memory_discard(m, 0x100000, 0x800), -EINVAL);
	assert_int_equal(memory_discard(m, TEST_RAM, 0x1000), -EFAULT);
	assert_int_equal(memory_discard(m, 0x9f000, 0x2000), -EFAULT);
	assert_int_equal(memory_discard(m, 0x100000, 0), 0);
	/* The file's bytes do not come back. */
	assert_int_equal(memory_discard(m, 0x1ff000, 0x200000), 0);
	assert_int_equal(get(0x1fe000), pattern(0xfe000));
	assert_int_equal(get(0x1ff000), 0);
	assert_int_equal(get(0x300000), 0);
	/* Only what was there is new to a delta, as zeroes. */
	assert_int_equal(memory_count_dirty(m), 2);
	memset(image, 1, TEST_RAM);
	assert_int_equal(take_cut(CUT_DELTA, image, true), 2);
	assert_int_equal(image[0x1ff000] | image[0x300fff], 0);
	put(0x1ff001, 4);
	assert_int_equal(get(0x1ff001), 4);
	free(image);
}

/* ---- A file that is truncated ------------------------------------------- */

static void truncated_file(void **state)
{
	struct ram_chunk k;
	struct ram_cut *c;

	map(0x200000, 0x400000, 0);
	put(0x500000, 5);
	put(0x900000, 6);
	c = memory_cut(m, 0, &e);
	assert_non_null(c);
	assert_int_equal(ram_cut_next(c, &k, &e), 1);
	assert_int_equal(ftruncate(file, 0x1000), 0);
	assert_int_equal(get(0x200000), pattern(0));
	/* Known before anybody has looked. */
	assert_int_equal(memory_lost(m, &e), -EIO);
	assert_non_null(strstr(e.text, "written to"));
	assert_int_equal(get(0x345678), 0);
	/* The kernel takes back the copies of what was cut off, too. */
	assert_int_equal(get(0x500000), 0);
	assert_int_equal(get(0x900000), 6);
	assert_int_equal(memory_lost(m, &e), -EIO);
	assert_non_null(strstr(e.text, "0x345000"));
	assert_non_null(strstr(e.text, "truncated"));
	assert_true(told_to_stop("RAM at 0x345000 is gone"));
	/* A save of that is refused, one that goes on too. */
	assert_true(ram_cut_next(c, &k, &e) < 0);
	ram_cut_abort(c);
	assert_null(memory_cut(m, CUT_LIVE, &e));
	assert_non_null(strstr(e.text, "truncated"));
	assert_true(memory_prefault(m, 0, TEST_RAM, false, &e) < 0);
}

/* As long as before, and other bytes in it: no signal tells. */
static void overwritten_file(void **state)
{
	struct ram_chunk k;
	struct ram_cut *c;

	char path[] = "/tmp/skep-lazy-XXXXXX";

	/* One that has a name: the kernel tells nothing of writes to a memfd. */
	close(file);
	file = mkstemp(path);
	assert_true(file >= 0);
	unlink(path);
	assert_int_equal(ftruncate(file, 0x400000), 0);
	assert_int_equal(pwrite(file, "x", 1, 0x10000), 1);
	map(0x200000, 0x400000, 0);
	c = memory_cut(m, 0, &e);
	assert_non_null(c);
	assert_int_equal(ram_cut_next(c, &k, &e), 1);
	assert_int_equal(memory_lost(m, &e), 0);
	assert_int_equal(pwrite(file, "x", 1, 0x300000), 1);
	assert_int_equal(memory_lost(m, &e), -EIO);
	assert_non_null(strstr(e.text, "written to"));
	assert_true(ram_cut_next(c, &k, &e) < 0);
	ram_cut_abort(c);
	assert_null(memory_cut(m, CUT_LIVE, &e));
	assert_true(told_to_stop("or written to"));
}

/* A guest that falls over its zeroes before the vm thread has been told. */
static void guest_that_falls(void **state)
{
	map(0x200000, 0x400000, 0);
	assert_int_equal(ftruncate(file, 0x1000), 0);
	assert_int_equal(get(0x345678), 0);
	vm_request_exit(vm, VM_EXIT_TRIPLE_FAULT);
	assert_int_equal(vm->exit_code, VM_EXIT_ERROR);
	assert_non_null(strstr(vm->exit_error.text, "RAM at 0x345000 is gone"));
}

static void truncated_while_saved(void **state)
{
	struct ram_chunk k;
	struct ram_cut *c;
	unsigned live;

	for (live = 0; live <= CUT_LIVE; live += CUT_LIVE) {
		e.text[0] = '\0';
		map(0x200000, 0x400000, 0);
		c = memory_cut(m, live, &e);
		assert_non_null(c);
		assert_int_equal(ftruncate(file, 0x1000), 0);
		while (ram_cut_next(c, &k, &e) > 0)
			;
		assert_non_null(strstr(e.text, "truncated"));
		ram_cut_abort(c);
		teardown(NULL);
		setup(NULL);
	}
}

/* ---- Chunks from a source ------------------------------------------------ */

struct source {
	_Atomic unsigned loads[TEST_RAM / RAM_CHUNK];
	_Atomic unsigned busy, released;
	uint64_t fail_at;
	bool slow;
};

static struct source source;

static int load(void *opaque, uint64_t gpa, uint8_t *host, size_t len, struct skep_error *err)
{
	struct source *s = opaque;
	size_t i;

	if (atomic_fetch_add(&s->busy, 1))
		abort();	/* one at a time */
	assert_int_equal(gpa % RAM_CHUNK, 0);
	atomic_fetch_add(&s->loads[gpa / RAM_CHUNK], 1);
	for (i = 0; i < len; i += 4096) {
		memset(host + i, pattern(gpa + i), 4096);
		if (s->slow && i % 0x20000 == 0)
			usleep(50);
	}
	atomic_fetch_sub(&s->busy, 1);
	if (gpa == s->fail_at)
		return skep_fail(err, EBADMSG, "chunk is damaged");
	return 0;
}

static void release(void *opaque)
{
	atomic_fetch_add(&((struct source *)opaque)->released, 1);
}

static void use_source(uint64_t gpa, uint64_t len)
{
	struct memory_source s = { load, release, &source };

	memset(&source, 0, sizeof(source));
	source.fail_at = UINT64_MAX;
	if (memory_set_source(m, &s, &e) < 0)
		fail_msg("%s", e.text);
	memory_set_pending(m, gpa, len);
}

static unsigned loads(void)
{
	unsigned n = 0, i;

	for (i = 0; i < ARRAY_SIZE(source.loads); i++)
		n += source.loads[i];
	return n;
}

static void fetched_when_needed(void **state)
{
	struct dma_view v;

	use_source(0x200000, TEST_RAM - 0x200000);
	assert_int_equal(memory_touched(m), TEST_RAM - 0x200000);
	put(0x1000, 1);
	assert_int_equal(loads(), 0);
	assert_int_equal(*memory_page(m, 0x200000).read, pattern(0x200000));
	assert_int_equal(loads(), 1);
	assert_int_equal(get(0x5ff000), pattern(0x5ff000));
	put(0x600001, 9);
	assert_int_equal(get(0x600000), pattern(0x600000));
	assert_int_equal(get(0x600001), 9);
	assert_int_equal(dma_zero(m, 0x800000, 1), 0);
	assert_int_equal(get(0x800001), pattern(0x800000));
	/* A view over two chunks. */
	assert_int_equal(dma_map(m, 0xbfffff, 2, DMA_FROM_GUEST, &v), 0);
	assert_int_equal(((uint8_t *)v.host)[0], pattern(0xbfffff));
	assert_int_equal(((uint8_t *)v.host)[1], pattern(0xc00000));
	dma_unmap(m, &v);
	assert_int_equal(loads(), 6);
	assert_int_equal(source.loads[1] | source.loads[2] | source.loads[3] | source.loads[4] |
			 source.loads[5] | source.loads[6], 1);
	assert_int_equal(source.released, 0);
	assert_int_equal(memory_need(m, 0, TEST_RAM, &e), 0);
	assert_int_equal(loads(), 7);
	assert_int_equal(source.released, 1);
	assert_true(memory_need(m, TEST_RAM, 1, &e) < 0);
	assert_true(memory_need(m, 0, TEST_RAM + 1, &e) < 0);
	/* Fetching is no writing. */
	assert_int_equal(memory_count_dirty(m), 3);
	assert_int_equal(memory_lost(m, &e), 0);
}

static void source_is_owned(void **state)
{
	struct memory_source s = { load, release, &source };
	struct guest_memory other;

	use_source(0x200000, 0x1000);
	memory_set_pending(m, 0x3fffff, 1);		/* the same chunk */
	memory_set_pending(m, TEST_RAM, 0x1000);	/* nowhere */
	memory_set_pending(m, 0, 0);
	assert_int_equal(memory_touched(m), RAM_CHUNK);
	assert_true(memory_set_source(m, &s, &e) < 0);
	assert_int_equal(source.released, 1);
	/* A machine that ends before. */
	assert_int_equal(memory_init(&other, vm, 4 * MiB, &e), 0);
	assert_int_equal(memory_set_source(&other, &s, &e), 0);
	memory_set_pending(&other, 0, 4 * MiB);
	memory_finish(&other);
	assert_int_equal(source.released, 2);
	assert_int_equal(loads(), 0);
}

static void failed_source(void **state)
{
	use_source(0, TEST_RAM);
	source.fail_at = 0x400000;
	assert_int_equal(memory_need(m, 0, 0x400000, &e), 0);
	assert_int_equal(memory_lost(m, &e), 0);
	/* Nothing of a chunk that is damaged is seen. */
	assert_int_equal(*memory_page(m, 0x4ff000).read, 0);
	assert_int_equal(memory_lost(m, &e), -EIO);
	assert_non_null(strstr(e.text, "RAM at 0x400000"));
	assert_non_null(strstr(e.text, "chunk is damaged"));
	assert_true(told_to_stop("chunk is damaged"));
	assert_null(memory_cut(m, 0, &e));
	assert_int_equal(source.loads[2], 1);
	source.fail_at = 0x600000;
	assert_int_equal(memory_need(m, 0, TEST_RAM, &e), -EBADMSG);
	assert_non_null(strstr(e.text, "0x600000"));
	/* The first one stays what is told. */
	assert_int_equal(memory_lost(m, &e), -EIO);
	assert_non_null(strstr(e.text, "0x400000"));
}

static void *look_around(void *opaque)
{
	uint32_t seed = 12345 + (uint32_t)(uintptr_t)opaque * 7;
	unsigned i, bad = 0;

	for (i = 0; i < 3000; i++) {
		uint64_t gpa;
		uint8_t v = 0;

		seed = seed * 1664525 + 1013904223;
		gpa = (uint64_t)(seed >> 8) % TEST_RAM;
		if (gpa >= 0xa0000 && gpa < 0xc0000)
			continue;	/* video memory */
		if (i & 1)
			v = *(volatile uint8_t *)(memory_page(m, gpa).read + gpa % 4096);
		else
			dma_read(m, gpa, &v, 1);
		bad += v != pattern(gpa);
		if (i % 16 == 0)
			usleep(20);
	}
	return (void *)(uintptr_t)bad;
}

static void fetched_by_many(void **state)
{
	pthread_t t[6];
	uintptr_t i;
	void *bad;

	use_source(0, TEST_RAM);
	source.slow = true;
	for (i = 0; i < 6; i++)
		assert_int_equal(pthread_create(&t[i], NULL, look_around, (void *)i), 0);
	for (i = 0; i < 6; i++) {
		pthread_join(t[i], &bad);
		assert_null(bad);
	}
	assert_int_equal(loads(), ARRAY_SIZE(source.loads));
	assert_int_equal(source.released, 1);
}

static void count_extent(void *opaque, uint64_t gpa, const uint8_t *host, uint64_t len)
{
	uint64_t *sum = opaque, i;

	sum[0] += len;
	for (i = 0; i < len; i += 4096)
		sum[1] += host[i] == pattern(gpa + i);
}

static void cut_fetches(void **state)
{
	uint8_t *image = calloc(1, TEST_RAM), *want = calloc(1, TEST_RAM);
	uint64_t sum[2] = { 0, 0 };
	unsigned live, i;

	assert_true(image && want);
	for (live = 0; live <= CUT_LIVE; live += CUT_LIVE) {
		memset(want, 0, TEST_RAM);
		memset(image, 0, TEST_RAM);
		for (i = 0x200; i < 0xa00; i++)
			memset(want + i * 4096, pattern(i * 4096), 4096);
		use_source(0x200000, 0x800000);
		put(0x400000, 0xaa);
		want[0x400000] = 0xaa;
		/* What is pending is not in a delta: the parent has it. */
		assert_int_equal(take_cut(CUT_DELTA, image, true), 1);
		assert_int_equal(loads(), 1);
		/* The writers of take_cut come before the chunks have been fetched. */
		assert_int_equal(take_cut(live, image, true), 0x800);
		assert_memory_equal(image, want, TEST_RAM);
		assert_int_equal(loads(), 4);
		assert_int_equal(source.released, 1);
		if (!live) {
			teardown(NULL);
			setup(NULL);
		}
	}
	free(image);
	free(want);
	teardown(NULL);
	setup(NULL);
	use_source(0x200000, 0x800000);
	memory_each_extent(m, count_extent, sum);
	assert_int_equal(sum[0], 0x800000);
	assert_int_equal(sum[1], 0x800);
	assert_int_equal(loads(), 4);
}

static void cut_of_failed_source(void **state)
{
	struct ram_chunk k;
	struct ram_cut *c;
	unsigned live;
	int got;

	for (live = 0; live <= CUT_LIVE; live += CUT_LIVE) {
		use_source(0, TEST_RAM);
		source.fail_at = 0x800000;
		c = memory_cut(m, live, &e);
		assert_non_null(c);
		while ((got = ram_cut_next(c, &k, &e)) > 0)
			assert_true(k.gpa < 0x800000);
		assert_true(got < 0);
		assert_non_null(strstr(e.text, "chunk is damaged"));
		ram_cut_abort(c);
		teardown(NULL);
		setup(NULL);
	}
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(mapped_ram), T(bad_mappings), T(many_mappings), T(mapped_then_cut),
		T(discarded_memory), T(truncated_file), T(overwritten_file),
		T(guest_that_falls), T(truncated_while_saved),
		T(fetched_when_needed), T(source_is_owned), T(failed_source), T(fetched_by_many),
		T(cut_fetches), T(cut_of_failed_source),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
