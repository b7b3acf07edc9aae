/* Cuts of RAM: what is read is what was there, whoever writes meanwhile. */
#include "vm_helper.h"

#include <errno.h>
#include <sched.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "vm/cut.h"

/* For tests that want the host to have no memory left, or little to spare. */
static _Thread_local bool no_memory, no_meminfo;
static _Thread_local const char *meminfo;	/* instead of the host's own, if set */

void *__real_mmap64(void *at, size_t len, int prot, int flags, int fd, off_t offset);
void *__wrap_mmap64(void *at, size_t len, int prot, int flags, int fd, off_t offset);
void *__wrap_mmap64(void *at, size_t len, int prot, int flags, int fd, off_t offset)
{
	return no_memory ? MAP_FAILED : __real_mmap64(at, len, prot, flags, fd, offset);
}

FILE *__real_fopen64(const char *path, const char *mode);
FILE *__wrap_fopen64(const char *path, const char *mode);
FILE *__wrap_fopen64(const char *path, const char *mode)
{
	if (no_meminfo)
		return NULL;
	return meminfo ? fmemopen((void *)meminfo, strlen(meminfo), mode) : __real_fopen64(path, mode);
}

static struct vm *vm;
static struct guest_memory *m;
static struct skep_error e;

static void make(uint64_t ram)
{
	struct vm_core_options o = { .ram = ram, .seeded = true };

	clock_init(&o.clock, CLOCK_MODE_VIRTUAL);
	vm = test_vm_options(&o);
	m = &vm->memory;
	e.text[0] = '\0';
}

static int setup(void **state)
{
	make(TEST_RAM);
	return 0;
}

static int teardown(void **state)
{
	test_vm_free(vm);
	return 0;
}

static void put(uint64_t gpa, uint8_t v)
{
	assert_int_equal(dma_write(m, gpa, &v, 1), 0);
}

static uint8_t flags_at(uint64_t gpa)
{
	return *memory_page(m, gpa).flags;
}

/* Reads the next page that is there, or stops at the end. */
struct reader {
	struct ram_cut *cut;
	struct ram_chunk chunk;
	unsigned at;
};

static const uint8_t *next_page(struct reader *r, uint64_t *gpa)
{
	for (;;) {
		int got;

		for (; r->at < CUT_CHUNK_PAGES; r->at++)
			if (r->chunk.there[r->at / 64] >> r->at % 64 & 1) {
				*gpa = r->chunk.gpa + r->at * 4096;
				return r->chunk.data + r->at++ * 4096;
			}
		got = ram_cut_next(r->cut, &r->chunk, &e);
		if (got < 0)
			fail_msg("%s", e.text);
		if (!got)
			return NULL;
		assert_true(r->chunk.nthere && r->chunk.npages <= CUT_CHUNK_PAGES);
		assert_int_equal(r->chunk.gpa % RAM_CHUNK, 0);
		r->at = 0;
	}
}

static struct reader begin(unsigned flags)
{
	struct reader r = { .cut = memory_cut(m, flags, &e), .at = CUT_CHUNK_PAGES };

	if (!r.cut)
		fail_msg("%s", e.text);
	return r;
}

static void expect_pages(struct reader *r, const uint64_t *pages, unsigned n)
{
	uint64_t gpa;
	unsigned i;

	for (i = 0; i < n; i++) {
		assert_non_null(next_page(r, &gpa));
		assert_true(gpa == pages[i]);
	}
	assert_null(next_page(r, &gpa));
	assert_null(next_page(r, &gpa));	/* and again */
}

/* ---- One after the other ----------------------------------------------- */

static void standing_cut(void **state)
{
	static const uint64_t pages[] = { 0x3000, 0x200000, 0xfff000 };
	struct reader r;
	uint64_t gpa;

	put(0x3004, 7);
	put(0x5000, 0);			/* written, and zero: not there */
	put(0x200fff, 8);
	put(TEST_RAM - 1, 9);
	vm->vcpus[0]->requests = 0;
	r = begin(0);
	assert_int_equal(ram_cut_pages(r.cut), 4);
	assert_true(vm->vcpus[0]->requests & VCPU_REQ_TLB);
	assert_int_equal(memory_count_dirty(m), 0);
	assert_int_equal(memory_touched(m), 4 * 4096);
	/* In place. */
	assert_ptr_equal(next_page(&r, &gpa), m->ram[0].host + 0x3000);
	expect_pages(&r, pages + 1, 2);
	ram_cut_commit(r.cut);
	assert_int_equal(memory_touched(m), 4 * 4096);
	ram_cut_abort(NULL);
}

static void delta_cut(void **state)
{
	static const uint64_t changed[] = { 0x3000, 0x5000, 0x400000 };
	struct reader r;
	uint64_t gpa;
	unsigned live;

	put(0x1000, 1);
	put(0x3000, 1);
	put(0x5000, 1);
	for (live = 0; live <= CUT_LIVE; live += CUT_LIVE) {
		r = begin(live);
		assert_int_equal(r.cut ? ram_cut_pages(r.cut) : 0, live ? 4 : 3);
		while (next_page(&r, &gpa))
			;
		ram_cut_commit(r.cut);
		/* Nothing was written since. */
		r = begin(live | CUT_DELTA);
		expect_pages(&r, NULL, 0);
		ram_cut_commit(r.cut);

		put(0x3000, 2);
		put(0x5000, 0);		/* zero, and it must be told */
		put(0x400000, 1);
		r = begin(live | CUT_DELTA);
		assert_int_equal(ram_cut_pages(r.cut), 3);
		expect_pages(&r, changed, 3);
		/* Not saved after all: the next delta has it, and what came since. */
		put(0x3001, 3);
		ram_cut_abort(r.cut);
		assert_int_equal(memory_count_dirty(m), 3);
		r = begin(live | CUT_DELTA);
		expect_pages(&r, changed, 3);
		ram_cut_commit(r.cut);
		assert_int_equal(memory_count_dirty(m), 0);
	}
}

static void aborted_full_cut(void **state)
{
	static const uint64_t changed[] = { 0x9000 };
	struct reader r;
	unsigned live;

	for (live = 0; live <= CUT_LIVE; live += CUT_LIVE) {
		put(0x2000, 1);
		r = begin(live);
		ram_cut_commit(r.cut);
		put(0x9000, 1);
		r = begin(live);
		assert_int_equal(memory_count_dirty(m), 0);
		ram_cut_abort(r.cut);
		r = begin(live | CUT_DELTA);
		expect_pages(&r, changed, 1);
		ram_cut_commit(r.cut);
		assert_int_equal(flags_at(0x2000), PAGE_TOUCHED);
	}
}

static void one_at_a_time(void **state)
{
	struct reader r = begin(CUT_LIVE);

	assert_null(memory_cut(m, 0, &e));
	assert_non_null(strstr(e.text, "already"));
	ram_cut_abort(r.cut);
	r = begin(0);
	assert_null(memory_cut(m, CUT_LIVE | CUT_DELTA, &e));
	ram_cut_commit(r.cut);
	r = begin(0);
	ram_cut_commit(r.cut);
}

static void live_cut(void **state)
{
	struct reader r;
	const uint8_t *data;
	struct dma_view v;
	uint64_t gpa;

	put(0x1000, 1);
	put(0x2000, 2);
	put(0x3000, 3);
	put(0x4000, 4);
	put(0x5000, 5);
	r = begin(CUT_LIVE);
	assert_int_equal(flags_at(0x1000), PAGE_TOUCHED | PAGE_FROZEN);
	/* Every kind of writer gives its copy. */
	put(0x1000, 0x81);
	assert_int_equal(flags_at(0x1000), PAGE_TOUCHED | PAGE_DIRTY);
	assert_int_equal(dma_zero(m, 0x2000, 4096), 0);
	assert_int_equal(dma_map(m, 0x3000, 1, DMA_TO_GUEST, &v), 0);
	*(uint8_t *)v.host = 0x83;
	dma_unmap(m, &v);
	memory_will_write(m, memory_page(m, 0x4000).flags);
	*memory_page(m, 0x4000).write = 0x84;
	assert_int_equal(memory_discard(m, 0x5000, 4096), 0);
	put(0x6000, 6);			/* came later: it is not in the cut */
	for (unsigned i = 1; i <= 5; i++) {
		data = next_page(&r, &gpa);
		assert_non_null(data);
		assert_int_equal(gpa, i * 0x1000);
		assert_int_equal(data[0], i);
	}
	assert_null(next_page(&r, &gpa));
	assert_int_equal(memory_count_dirty(m), 6);
	ram_cut_commit(r.cut);
	assert_int_equal(*memory_page(m, 0x4000).read, 0x84);
	assert_int_equal(*memory_page(m, 0x5000).read, 0);
}

/* What a writer gave and nobody read is freed, and no page stays frozen. */
static void live_cut_given_up(void **state)
{
	struct reader r;
	unsigned i;

	for (i = 0; i < 64; i++)
		put(0x100000 + i * 0x10000, 1);
	r = begin(CUT_LIVE);
	for (i = 0; i < 64; i += 2)
		put(0x100000 + i * 0x10000, 2);
	ram_cut_abort(r.cut);
	for (i = 0; i < 64; i++)
		assert_int_equal(flags_at(0x100000 + i * 0x10000), PAGE_TOUCHED | PAGE_DIRTY);
	r = begin(CUT_LIVE);
	for (i = 0; i < 64; i += 2)
		put(0x100000 + i * 0x10000, 3);
	ram_cut_commit(r.cut);
	assert_int_equal(memory_count_dirty(m), 32);
}

/* The guest goes on, the save does not. */
static void writer_without_memory(void **state)
{
	struct ram_cut *c;
	struct ram_chunk k;

	put(0x200000, 1);
	c = memory_cut(m, CUT_LIVE, &e);
	assert_non_null(c);
	no_memory = true;
	put(0x200000, 2);
	no_memory = false;
	assert_int_equal(*memory_page(m, 0x200000).read, 2);
	assert_true(ram_cut_next(c, &k, &e) < 0);
	assert_non_null(strstr(e.text, "no memory"));
	ram_cut_abort(c);
	assert_int_equal(memory_count_dirty(m), 1);
}

/* The host has no memory to spare: 16 MiB of copies are granted, and then the processors wait. */
static void writers_are_braked(void **state)
{
	struct vcpu *v;
	struct reader r;
	uint64_t gpa, first = 16 * MiB;
	unsigned i;

	make(64 * MiB);
	v = vm->vcpus[0];
	for (i = 0; i < 6000; i++)
		put(first + i * 4096, 1);
	no_meminfo = true;
	r = begin(CUT_LIVE);
	for (i = 0; i < 4095; i++)
		put(first + i * 4096, 2);
	assert_false(ram_cut_braked(r.cut) || v->stop_reasons & STOP_CUT);
	put(first + i++ * 4096, 2);
	assert_true(ram_cut_braked(r.cut) && v->stop_reasons & STOP_CUT);
	/* Who does not listen is not refused. */
	for (; i < 5000; i++)
		put(first + i * 4096, 2);
	for (i = 0; i < 5000 && ram_cut_braked(r.cut); i++)
		assert_int_equal(*next_page(&r, &gpa), 1);
	/* Half of them have been read, in whole chunks. */
	assert_true(i > 5000 - 2048 - 512 && i <= 5000 - 2048 + 512);
	assert_false(v->stop_reasons & STOP_CUT);
	ram_cut_abort(r.cut);

	/* A cut that ends lets go, whatever it still holds. */
	r = begin(CUT_LIVE);
	for (i = 0; i < 4096; i++)
		put(first + i * 4096, 3);
	assert_true(v->stop_reasons & STOP_CUT);
	ram_cut_abort(r.cut);
	assert_false(v->stop_reasons & STOP_CUT);
	no_meminfo = false;
	teardown(state);
}

/* Are the processors braked when this is what the host says of its memory? */
static bool braked_with(const char *text)
{
	struct reader r = begin(CUT_LIVE);
	bool braked;
	unsigned i;

	meminfo = text;
	for (i = 0; i < 6000; i++)
		put(16 * MiB + i * 4096, 2);
	meminfo = NULL;
	braked = ram_cut_braked(r.cut);
	ram_cut_abort(r.cut);
	return braked;
}

/* A host that has more than a quarter of its memory to spare gives some. */
static void writers_are_not_braked(void **state)
{
	unsigned i;

	make(64 * MiB);
	for (i = 0; i < 6000; i++)
		put(16 * MiB + i * 4096, 1);
	assert_false(braked_with("MemTotal: 4000 kB\nMemFree: 0 kB\nMemAvailable: 1001 kB\n"));
	assert_true(braked_with("MemTotal: 4000 kB\nMemFree: 4000 kB\nMemAvailable: 1000 kB\n"));
	assert_true(braked_with("MemTotal: 4000 kB\nMemFree: 4000 kB\n"));
	teardown(state);
}

static void write_tags_are_dropped(void **state)
{
	struct reader r;

	put(0x1000, 1);
	for (unsigned flags = 0; flags <= (CUT_LIVE | CUT_DELTA); flags++) {
		vm->vcpus[0]->requests = 0;
		r = begin(flags);
		assert_true(vm->vcpus[0]->requests & VCPU_REQ_TLB);
		ram_cut_commit(r.cut);
	}
}

/* ---- Large and sparse --------------------------------------------------- */

static size_t resident(void)
{
	size_t pages = 0, i, k;

	for (k = 0; k < m->nram; k++) {
		size_t n = m->ram[k].size / 4096;
		unsigned char *vec = malloc(n);

		assert_non_null(vec);
		assert_int_equal(mincore(m->ram[k].host, m->ram[k].size, vec), 0);
		for (i = 0; i < n; i++)
			pages += vec[i] & 1;
		free(vec);
	}
	return pages;
}

static void two_regions_sparse(void **state)
{
	static const uint64_t pages[] = { 0x1000, RAM_LOW_MAX - 0x1000, RAM_HIGH_BASE,
					  RAM_HIGH_BASE + 0x206000, RAM_HIGH_BASE + 0x5ff000 };
	struct vm_core_options o = { .ram = RAM_LOW_MAX + 6 * MiB, .seeded = true };
	struct guest_memory probe;
	struct reader r;
	unsigned live;

	clock_init(&o.clock, CLOCK_MODE_VIRTUAL);
	if (memory_init(&probe, NULL, o.ram, &e) < 0) {
		print_message("SKIP: %s\n", e.text);
		skip();
	}
	memory_finish(&probe);
	make(o.ram);
	for (unsigned k = 0; k < ARRAY_SIZE(pages); k++)
		put(pages[k] + 5, (uint8_t)(k + 1));
	size_t before = resident();

	for (live = 0; live <= CUT_LIVE; live += CUT_LIVE) {
		r = begin(live);
		assert_int_equal(ram_cut_pages(r.cut), ARRAY_SIZE(pages));
		expect_pages(&r, pages, ARRAY_SIZE(pages));
		ram_cut_commit(r.cut);
		put(pages[3], 1);
		r = begin(live | CUT_DELTA);
		expect_pages(&r, pages + 3, 1);
		ram_cut_commit(r.cut);
	}
	/* Only what was written is there: looking did not allocate. */
	assert_int_equal(resident(), before);
	assert_int_equal(memory_touched(m), ARRAY_SIZE(pages) * 4096);
	test_vm_free(vm);
}

/* RAM that is no whole number of chunks, pages or flag words. */
static void odd_sizes(void **state)
{
	static const uint64_t sizes[] = { MiB, MiB + 4096, 3 * MiB + 5 * 4096, 4 * MiB - 4096 };
	unsigned i, flags;

	for (i = 0; i < ARRAY_SIZE(sizes); i++)
		for (flags = 0; flags <= (CUT_LIVE | CUT_DELTA); flags++) {
			uint64_t last = sizes[i] - 4096;
			struct reader r;

			make(sizes[i]);
			put(sizes[i] - 1, 1);
			r = begin(flags);
			expect_pages(&r, &last, 1);
			ram_cut_abort(r.cut);
			assert_int_equal(memory_count_dirty(m), 1);
			test_vm_free(vm);
		}
}

/* ---- Everybody at once --------------------------------------------------- */

#define WRITERS	4
#define ALL	1000000u
#define HOT	96		/* pages that are written, spread over all chunks */

struct storm {
	pthread_rwlock_t machine;	/* writers read-lock it: wr-locked, the machine stands */
	_Atomic bool over;
	uint8_t *model, *base;		/* RAM at the cut, at the last cut that was committed */
	uint8_t *seen;			/* by page */
};

static struct storm storm;

static uint64_t hot_page(unsigned n)
{
	/* Beyond video memory; the last one is the last page. */
	return n == HOT - 1 ? TEST_RAM - 4096 : 0x100000 + (uint64_t)n * 0x28000;
}

static uint32_t draw(uint32_t *seed)
{
	*seed ^= *seed << 13;
	*seed ^= *seed >> 17;
	*seed ^= *seed << 5;
	return *seed;
}

/* Words of one writer are not another's: what races is only whether it comes before the cut. */
static void write_once(unsigned self, uint32_t *seed)
{
	uint64_t page = hot_page(draw(seed) % HOT);
	uint64_t gpa = page + (draw(seed) % (512 / WRITERS) * WRITERS + self) * 8;
	uint64_t v = (uint64_t)draw(seed) << 32 | draw(seed);
	struct mem_page p;
	struct dma_view view;

	switch (draw(seed) % 8) {
	case 0:
		dma_write(m, gpa, &v, 8);
		break;
	case 1:
		dma_zero(m, gpa, 8);
		break;
	case 2:
		if (!dma_map(m, gpa, 8, DMA_TO_GUEST, &view)) {
			store64(view.host, v);
			dma_unmap(m, &view);
		}
		break;
	default:
		/* As a processor does. */
		p = memory_page(m, gpa);
		memory_will_write(m, p.flags);
		__atomic_store_n((uint64_t *)(void *)(p.write + gpa % 4096), v, __ATOMIC_RELAXED);
	}
}

static void *write_on(void *opaque)
{
	unsigned self = (unsigned)(uintptr_t)opaque;
	uint32_t seed = 2463534242u + self * 7919;

	while (!atomic_load(&storm.over)) {
		unsigned n = draw(&seed) % 64;

		pthread_rwlock_rdlock(&storm.machine);
		while (n--)
			write_once(self, &seed);
		pthread_rwlock_unlock(&storm.machine);
		sched_yield();
	}
	return NULL;
}

static void check_cut(struct reader *r, bool delta, unsigned pages)
{
	bool all = pages == ALL;
	const uint8_t *data;
	uint64_t gpa;

	memset(storm.seen, 0, TEST_RAM / 4096);
	while (pages-- && (data = next_page(r, &gpa))) {
		assert_false(storm.seen[gpa / 4096]);
		storm.seen[gpa / 4096] = 1;
		if (memcmp(data, storm.model + gpa, 4096))
			fail_msg("page %#llx is not what it was at the cut", (unsigned long long)gpa);
	}
	if (!all)
		return;
	for (gpa = 0; gpa < TEST_RAM; gpa += 4096)
		if (!storm.seen[gpa / 4096] &&
		    memcmp(storm.model + gpa, (delta ? storm.base : storm.model + TEST_RAM) +
			   (delta ? gpa : 0), 4096))
			fail_msg("page %#llx is missing", (unsigned long long)gpa);
}

static void storm_round(uint32_t *seed, bool *have_base)
{
	bool delta = *have_base && draw(seed) % 2, live = draw(seed) % 4, give_up = draw(seed) % 4 == 0;
	unsigned pages = give_up ? draw(seed) % HOT : ALL;
	struct reader r;

	pthread_rwlock_wrlock(&storm.machine);
	memcpy(storm.model, m->ram[0].host, TEST_RAM);
	r = begin((delta ? CUT_DELTA : 0) | (live ? CUT_LIVE : 0));
	if (live)
		pthread_rwlock_unlock(&storm.machine);
	if (live && draw(seed) % 2)
		usleep(draw(seed) % 300);	/* writers come first, more or less */
	check_cut(&r, delta, pages);
	if (give_up) {
		ram_cut_abort(r.cut);
	} else {
		ram_cut_commit(r.cut);
		memcpy(storm.base, storm.model, TEST_RAM);
		*have_base = true;
	}
	if (!live)
		pthread_rwlock_unlock(&storm.machine);
}

static void storm_of_writers(void **state)
{
	unsigned rounds = getenv("SKEP_TEST_LONG") ? 5000 : getenv("SKEP_TEST_SANITIZED") ? 60 : 150;
	pthread_t thread[WRITERS];
	bool have_base = false;
	uint32_t seed = 88172645;
	uintptr_t i;

	pthread_rwlock_init(&storm.machine, NULL);
	atomic_store(&storm.over, false);
	storm.model = calloc(1, TEST_RAM + 4096);
	storm.base = calloc(1, TEST_RAM);
	storm.seen = calloc(1, TEST_RAM / 4096);
	assert_true(storm.model && storm.base && storm.seen);
	for (i = 0; i < WRITERS; i++)
		assert_int_equal(pthread_create(&thread[i], NULL, write_on, (void *)i), 0);
	while (rounds--)
		storm_round(&seed, &have_base);
	atomic_store(&storm.over, true);
	for (i = 0; i < WRITERS; i++)
		pthread_join(thread[i], NULL);
	for (i = 0; i < m->npages; i++)
		assert_false(m->page_flags[i] & PAGE_FROZEN);
	free(storm.model);
	free(storm.base);
	free(storm.seen);
	pthread_rwlock_destroy(&storm.machine);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(standing_cut, setup, teardown),
		cmocka_unit_test_setup_teardown(delta_cut, setup, teardown),
		cmocka_unit_test_setup_teardown(aborted_full_cut, setup, teardown),
		cmocka_unit_test_setup_teardown(one_at_a_time, setup, teardown),
		cmocka_unit_test_setup_teardown(live_cut, setup, teardown),
		cmocka_unit_test_setup_teardown(live_cut_given_up, setup, teardown),
		cmocka_unit_test_setup_teardown(writer_without_memory, setup, teardown),
		cmocka_unit_test(writers_are_braked),
		cmocka_unit_test(writers_are_not_braked),
		cmocka_unit_test_setup_teardown(write_tags_are_dropped, setup, teardown),
		cmocka_unit_test(two_regions_sparse),
		cmocka_unit_test(odd_sizes),
		cmocka_unit_test_setup_teardown(storm_of_writers, setup, teardown),
		cmocka_unit_test_setup_teardown(storm_of_writers, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
