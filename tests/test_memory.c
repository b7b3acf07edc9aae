/* Guest memory: regions, holes, PAM, ROM, dirty pages, code, DMA. */
#include "vm_helper.h"

#include <errno.h>
#include <string.h>

static struct vm *vm;
static struct guest_memory *m;

static int setup(void **state)
{
	vm = test_vm(CLOCK_MODE_VIRTUAL);
	m = &vm->memory;
	return 0;
}

static int teardown(void **state)
{
	test_vm_free(vm);
	return 0;
}

static int map(uint64_t gpa, size_t len)
{
	struct dma_view v;
	int err = dma_map(m, gpa, len, DMA_BOTH, &v);

	if (!err)
		dma_unmap(m, &v);
	return err;
}

static void sizes_are_checked(void **state)
{
	static const uint64_t bad[] = { 0, 1, 4096, MiB - 1, MiB + 1, 16 * MiB + 512, UINT64_MAX,
					UINT64_MAX & ~4095ull, RAM_SIZE_MAX + 4096 };
	struct guest_memory other;
	struct skep_error e;
	unsigned i;

	for (i = 0; i < ARRAY_SIZE(bad); i++) {
		e.text[0] = '\0';
		assert_true(memory_init(&other, vm, bad[i], &e) < 0);
		assert_non_null(strstr(e.text, "memory.size"));
	}
	/* More than this host has, however large it is within reason. */
	e.text[0] = '\0';
	assert_int_equal(memory_init(&other, vm, RAM_SIZE_MAX, &e), -ENOMEM);
	assert_non_null(strstr(e.text, "ask for less"));
}

static void low_and_high(void **state)
{
	struct guest_memory big;
	struct skep_error e = { .text = "" };
	struct mem_page p;
	uint64_t v = 0x1122334455667788, got;

	/* Sparse: touches two pages.  Skipped where the host is too small. */
	if (memory_init(&big, vm, RAM_LOW_MAX + 4 * MiB, &e) < 0)
		skip();
	assert_int_equal(big.nram, 2);
	assert_int_equal(big.ram[1].gpa, RAM_HIGH_BASE);
	assert_int_equal(big.ram[1].first_page, RAM_LOW_MAX / 4096);

	assert_non_null(memory_page(&big, RAM_LOW_MAX - 1).read);
	assert_null(memory_page(&big, RAM_LOW_MAX).read);
	assert_null(memory_page(&big, RAM_HIGH_BASE - 1).read);
	p = memory_page(&big, RAM_HIGH_BASE + 5);
	assert_ptr_equal(p.read, big.ram[1].host);
	assert_ptr_equal(p.flags, &big.page_flags[RAM_LOW_MAX / 4096]);
	assert_null(memory_page(&big, RAM_HIGH_BASE + 4 * MiB).read);

	/* The two regions are two: nothing spans the PCI hole. */
	assert_int_equal(dma_write(&big, RAM_LOW_MAX - 4, &v, 8), -EFAULT);
	assert_int_equal(memory_count_dirty(&big), 0);
	assert_int_equal(dma_write(&big, RAM_LOW_MAX - 8, &v, 8), 0);
	assert_int_equal(dma_write(&big, RAM_HIGH_BASE, &v, 8), 0);
	assert_int_equal(dma_read(&big, RAM_HIGH_BASE, &got, 8), 0);
	assert_true(got == v);
	assert_int_equal(memory_count_dirty(&big), 2);
	memory_finish(&big);
}

static void dma_bounds(void **state)
{
	uint8_t b[16] = { 1 };
	struct dma_view v;

	assert_int_equal(map(0, TEST_RAM), -EFAULT);	/* the video hole is within */
	assert_int_equal(map(0, 0xa0000), 0);
	assert_int_equal(map(0, 0xa0001), -EFAULT);
	assert_int_equal(map(0xa0000, 1), -EFAULT);
	assert_int_equal(map(0xbffff, 2), -EFAULT);
	assert_int_equal(map(0xc0000, TEST_RAM - 0xc0000), 0);
	assert_int_equal(map(0xc0000, TEST_RAM - 0xc0000 + 1), -EFAULT);
	assert_int_equal(map(TEST_RAM, 1), -EFAULT);
	assert_int_equal(map(TEST_RAM - 1, 2), -EFAULT);
	assert_int_equal(map(UINT64_MAX, 1), -EFAULT);
	assert_int_equal(map(UINT64_MAX, 2), -EFAULT);
	assert_int_equal(map(UINT64_MAX - 4095, SIZE_MAX), -EFAULT);
	assert_int_equal(map(4096, SIZE_MAX), -EFAULT);
	assert_int_equal(map(4096, SIZE_MAX - 4096 + 1), -EFAULT);

	/* Nothing is copied when the end is out of reach. */
	assert_int_equal(dma_write(m, TEST_RAM - 8, b, 16), -EFAULT);
	assert_int_equal(m->ram[0].host[TEST_RAM - 8], 0);
	assert_int_equal(dma_zero(m, UINT64_MAX - 7, 16), -EFAULT);
	assert_int_equal(dma_read(m, UINT64_MAX - 7, b, 16), -EFAULT);

	/* An empty view is fine anywhere and has no address. */
	assert_int_equal(dma_map(m, UINT64_MAX, 0, DMA_BOTH, &v), 0);
	assert_null(v.host);
	dma_unmap(m, &v);
}

static void dirty_pages(void **state)
{
	uint8_t b[3] = { 1, 2, 3 };
	struct dma_view v;

	memory_clear_dirty(m);
	assert_int_equal(memory_count_dirty(m), 0);
	assert_int_equal(dma_write(m, 0x2fff, b, 2), 0);	/* crosses */
	assert_int_equal(memory_count_dirty(m), 2);
	assert_int_equal(dma_read(m, 0x5000, b, 2), 0);
	assert_int_equal(memory_count_dirty(m), 2);
	assert_int_equal(dma_map(m, 0x7000, 4096, DMA_FROM_GUEST, &v), 0);
	dma_unmap(m, &v);
	assert_int_equal(memory_count_dirty(m), 2);

	/* A writable view is dirty at once, and dirty again at its end. */
	assert_int_equal(dma_map(m, 0x7ffe, 4, DMA_TO_GUEST, &v), 0);
	assert_int_equal(memory_count_dirty(m), 4);
	memory_clear_dirty(m);
	assert_int_equal(memory_count_dirty(m), 0);
	assert_true(vm->vcpus[0]->requests & VCPU_REQ_TLB);
	dma_unmap(m, &v);
	assert_int_equal(memory_count_dirty(m), 2);
	assert_int_equal(memory_page(m, 0x7000).flags[0], PAGE_DIRTY | PAGE_TOUCHED);

	/* The last page, beyond a whole word of flags or not. */
	assert_int_equal(dma_zero(m, TEST_RAM - 1, 1), 0);
	assert_int_equal(memory_count_dirty(m), 3);
}

static void code_is_invalidated(void **state)
{
	struct fake_cpu *cpu = test_cpu(vm);
	struct dma_view v;
	uint8_t b = 1;

	atomic_fetch_or(memory_page(m, 0x3000).flags, PAGE_CODE);
	assert_int_equal(dma_write(m, 0x2fff, &b, 1), 0);
	assert_int_equal(cpu->invalidations, 0);
	assert_int_equal(dma_write(m, 0x3fff, &b, 1), 0);
	assert_int_equal(cpu->invalidations, 1);
	assert_int_equal(cpu->gpa, 0x3fff);
	assert_int_equal(cpu->len, 1);
	/* A view writes at any time until it ends. */
	assert_int_equal(dma_map(m, 0x2000, 0x2000, DMA_TO_GUEST, &v), 0);
	assert_int_equal(cpu->invalidations, 2);
	dma_unmap(m, &v);
	assert_int_equal(cpu->invalidations, 3);
	assert_int_equal(dma_zero(m, 0x3800, 8), 0);
	assert_int_equal(cpu->invalidations, 4);
	/* Clearing the dirty flags leaves the code flags. */
	memory_clear_dirty(m);
	assert_int_equal(*memory_page(m, 0x3000).flags, PAGE_CODE | PAGE_TOUCHED);
}

static void pam_and_rom(void **state)
{
	struct skep_error e = { .text = "" };
	uint8_t *rom = calloc(1, 256 * KiB);
	struct mem_page p;
	unsigned i;

	assert_non_null(rom);
	for (i = 0; i < 64; i++)
		rom[i * 4096] = (uint8_t)i;

	assert_null(memory_page(m, 0xa0000).read);
	assert_null(memory_page(m, 0xbffff).write);
	p = memory_page(m, 0xc0000);
	assert_non_null(p.read);
	assert_ptr_equal(p.read, p.write);

	/* Neither, without a ROM: nothing answers. */
	memory_set_pam(m, 15, 0);
	p = memory_page(m, 0xfffff);
	assert_null(p.read);
	assert_null(p.write);
	assert_null(p.flags);
	assert_true(vm->vcpus[0]->requests & VCPU_REQ_TLB);
	assert_int_equal(test_cpu(vm)->gpa, 0xfc000);
	assert_int_equal(test_cpu(vm)->len, 0x4000);

	assert_true(memory_set_rom(m, rom, 0xfffc0000, 256 * KiB + 4096, &e) < 0);
	assert_true(memory_set_rom(m, rom, 0xfffc0001, 4096, &e) < 0);
	assert_true(memory_set_rom(m, rom, UINT64_MAX - 4095, 4096, &e) < 0);
	assert_true(memory_set_rom(m, rom, RAM_HIGH_BASE + 4096, 4096, &e) < 0);
	assert_int_equal(memory_set_rom(m, rom, 0xfffc0000, 256 * KiB, &e), 0);
	assert_int_equal(*memory_page(m, 0xfffff000).read, 63);
	assert_true(memory_page(m, 0xfffff000).rom);
	assert_null(memory_page(m, 0xfffff000).write);
	assert_null(memory_page(m, 0xfffbffff).read);

	/* ROM shows at the end of the first MiB; writes are dropped, or go to RAM below it. */
	p = memory_page(m, 0xff000);
	assert_int_equal(*p.read, 63);
	assert_null(p.write);
	assert_true(p.rom);
	memory_set_pam(m, 15, PAM_WRITE);
	p = memory_page(m, 0xff000);
	assert_int_equal(*p.read, 63);
	assert_ptr_equal(p.write, m->ram[0].host + 0xff000);
	memory_set_pam(m, 15, PAM_READ);
	p = memory_page(m, 0xff000);
	assert_ptr_equal(p.read, m->ram[0].host + 0xff000);
	assert_null(p.write);
	assert_true(p.rom);
	/* Only its last 128 KiB, and no segment that does not exist. */
	memory_set_pam(m, 0, 0);
	assert_null(memory_page(m, 0xc0000).read);
	memory_set_pam(m, 16, 0);
	memory_set_pam(m, UINT32_MAX, 0);
	/* Devices see RAM there regardless. */
	assert_int_equal(map(0xc0000, 0x40000), 0);
}

static void add_extent(void *opaque, uint64_t gpa, const uint8_t *host, uint64_t len)
{
	uint64_t *sum = opaque;

	sum[0] += len;
	if (gpa <= 0x800000 && gpa + len > 0x800000)
		sum[1] = host[0x800000 - gpa];
}

static void touched_is_counted(void **state)
{
	uint64_t sum[2] = { 0, 0 };
	uint8_t b = 77;

	assert_int_equal(memory_touched(m), 0);
	memory_each_extent(m, add_extent, sum);
	assert_int_equal(sum[0], 0);
	assert_int_equal(dma_write(m, 0x800000, &b, 1), 0);
	assert_true(memory_touched(m) >= 4096);
	memory_each_extent(m, add_extent, sum);
	assert_true(sum[0] >= 4096 && sum[0] < TEST_RAM);
	assert_int_equal(sum[1], 77);
	/* Looking did not allocate. */
	assert_true(memory_touched(m) < TEST_RAM);
}

struct extents {
	unsigned n;
	uint64_t gpa[8], len[8];
};

static void note_extent(void *opaque, uint64_t gpa, const uint8_t *host, uint64_t len)
{
	struct extents *x = opaque;

	assert_true(x->n < ARRAY_SIZE(x->gpa));
	assert_ptr_equal(memory_page(m, gpa).read, host);
	x->gpa[x->n] = gpa;
	x->len[x->n++] = len;
}

/* Whoever writes calls memory_will_write; once that was so, the pages are told for good. */
static void written_pages(void **state)
{
	static const uint64_t want[][2] = {
		{ 0x0, 0x1000 }, { 0x7000, 0x2000 }, { 0x20000, 0x11000 }, { TEST_RAM - 4096, 4096 },
	};
	_Atomic uint8_t *flags = memory_page(m, 0x7000).flags;
	struct extents x = { 0 };
	unsigned i;

	assert_int_equal(memory_will_write(m, flags), 0);
	assert_int_equal(*flags, PAGE_DIRTY | PAGE_TOUCHED);
	assert_int_equal(memory_will_write(m, flags), PAGE_DIRTY | PAGE_TOUCHED);
	atomic_fetch_or(flags, PAGE_CODE | PAGE_TABLE);
	assert_int_equal(memory_will_write(m, flags), *flags);
	memory_clear_dirty(m);
	assert_int_equal(memory_will_write(m, flags), PAGE_TOUCHED | PAGE_CODE | PAGE_TABLE);
	atomic_fetch_and(flags, (uint8_t)~(PAGE_CODE | PAGE_TABLE));
	memory_will_write(m, memory_page(m, 0).flags);
	memory_will_write(m, memory_page(m, 0x8000).flags);
	memory_will_write(m, memory_page(m, TEST_RAM - 1).flags);
	assert_int_equal(dma_zero(m, 0x20fff, 0x10000), 0);
	memory_each_extent(m, note_extent, &x);
	assert_int_equal(x.n, ARRAY_SIZE(want));
	for (i = 0; i < x.n; i++) {
		assert_int_equal(x.gpa[i], want[i][0]);
		assert_int_equal(x.len[i], want[i][1]);
	}
	assert_int_equal(memory_touched(m), 21 * 4096);
	memory_clear_dirty(m);
	assert_int_equal(memory_touched(m), 21 * 4096);
}

static void another_memory(void **state)
{
	struct guest_memory a;
	struct skep_error e;
	uint64_t v = 0x1122334455667788, got = 0;
	FILE *f = tmpfile();

	assert_int_equal(memory_init(&a, vm, 4 * MiB, &e), 0);
	assert_int_equal(dma_read(&a, 0x200000, &got, 8), 0);
	assert_true(got == 0);
	assert_int_equal(dma_write(&a, 0x200000, &v, 8), 0);
	assert_int_equal(dma_read(&a, 0x200000, &got, 8), 0);
	assert_true(got == v);
	assert_non_null(f);
	assert_int_equal(fwrite(&v, 1, 8, f), 8);
	fflush(f);
	assert_int_equal(memory_load_file(&a, 0x300ffc, fileno(f), 0, 8), 0);
	assert_int_equal(dma_read(&a, 0x300ffc, &got, 8), 0);
	assert_true(got == v);
	assert_int_equal(memory_touched(&a), 3 * 4096);
	assert_int_equal(memory_discard(&a, 0x200000, 0x2000), 0);
	assert_int_equal(dma_read(&a, 0x200000, &got, 8), 0);
	assert_true(got == 0);
	fclose(f);
	memory_finish(&a);
}

/* What a balloon takes is zero, in no full save, and in the next delta. */
static void forgotten_pages(void **state)
{
	uint64_t v = 0x1122334455667788, got, before = memory_touched(m);

	for (uint64_t gpa = 0x340000; gpa < 0x344000; gpa += 4096)
		assert_int_equal(dma_write(m, gpa, &v, 8), 0);
	memory_clear_dirty(m);
	assert_int_equal(memory_touched(m), before + 4 * 4096);
	assert_int_equal(memory_forget(m, 0x341000, 0x2000), 0);
	assert_int_equal(memory_touched(m), before + 2 * 4096);
	assert_int_equal(memory_count_dirty(m), 2);
	assert_int_equal(dma_read(m, 0x341000, &got, 8), 0);
	assert_int_equal(got, 0);
	assert_int_equal(dma_read(m, 0x343000, &got, 8), 0);
	assert_true(got == v);
	/* Written again, it counts again. */
	assert_int_equal(dma_write(m, 0x342ff8, &v, 8), 0);
	assert_int_equal(memory_touched(m), before + 3 * 4096);
	assert_int_equal(memory_forget(m, 0x341800, 0x1000), -EINVAL);
	assert_int_equal(memory_forget(m, 0xa0000, 0x1000), -EFAULT);
	assert_int_equal(memory_forget(m, UINT64_MAX & ~0xfffull, 0x1000), -EFAULT);
	assert_int_equal(memory_forget(m, 0x341000, 0), 0);
}

static void words(void **state)
{
	uint16_t v;

	assert_int_equal(dma_store16(m, 0x345002, 0xbeef), 0);
	assert_int_equal(dma_load16(m, 0x345002, &v), 0);
	assert_int_equal(v, 0xbeef);
	assert_int_equal(dma_load16(m, 0x345003, &v), -EINVAL);
	assert_int_equal(dma_store16(m, 0x345001, 1), -EINVAL);
	assert_int_equal(dma_load16(m, 0xa0000, &v), -EFAULT);
	assert_int_equal(dma_store16(m, 0x9ffff, 1), -EFAULT);
	assert_int_equal(dma_store16(m, UINT64_MAX, 1), -EFAULT);
	assert_true(dma_reaches(m, 0x345000, 4096));
	assert_false(dma_reaches(m, 0x9ffff, 2));
	assert_true(dma_reaches(m, 0xa0000, 0));
}

static void files_are_loaded(void **state)
{
	uint8_t want[10000], got[10000];
	FILE *f = tmpfile();
	unsigned i;

	assert_non_null(f);
	for (i = 0; i < sizeof(want); i++)
		want[i] = (uint8_t)(i * 7 >> 3);
	assert_int_equal(fwrite(want, 1, sizeof(want), f), sizeof(want));
	fflush(f);
	memory_clear_dirty(m);
	atomic_fetch_or(memory_page(m, 0x6000).flags, PAGE_CODE);
	assert_int_equal(memory_load_file(m, 0x5ffd, fileno(f), 3, 5000), 0);
	assert_int_equal(dma_read(m, 0x5ffd, got, 5000), 0);
	assert_memory_equal(got, want + 3, 5000);
	assert_int_equal(memory_count_dirty(m), 3);
	assert_int_equal(test_cpu(vm)->invalidations, 1);
	assert_int_equal(memory_load_file(m, 0x5000, fileno(f), 0, 10001), -ENODATA);
	assert_int_equal(memory_load_file(m, 0x5000, fileno(f), UINT64_MAX, 1), -ENODATA);
	assert_int_equal(memory_load_file(m, 0x5000, fileno(f), 10000, 0), 0);
	assert_int_equal(memory_load_file(m, TEST_RAM - 1, fileno(f), 0, 2), -EFAULT);
	assert_int_equal(memory_load_file(m, UINT64_MAX, fileno(f), 0, 2), -EFAULT);
	assert_int_equal(memory_load_file(m, 0x5000, -1, 0, 2), -EBADF);
	fclose(f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(sizes_are_checked, setup, teardown),
		cmocka_unit_test_setup_teardown(low_and_high, setup, teardown),
		cmocka_unit_test_setup_teardown(dma_bounds, setup, teardown),
		cmocka_unit_test_setup_teardown(dirty_pages, setup, teardown),
		cmocka_unit_test_setup_teardown(code_is_invalidated, setup, teardown),
		cmocka_unit_test_setup_teardown(pam_and_rom, setup, teardown),
		cmocka_unit_test_setup_teardown(touched_is_counted, setup, teardown),
		cmocka_unit_test_setup_teardown(written_pages, setup, teardown),
		cmocka_unit_test_setup_teardown(another_memory, setup, teardown),
		cmocka_unit_test_setup_teardown(forgotten_pages, setup, teardown),
		cmocka_unit_test_setup_teardown(words, setup, teardown),
		cmocka_unit_test_setup_teardown(files_are_loaded, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
