/* The snapshot file: what was written is what is read, plain, compressed, in chains, flattened. */
#include "snap_helper.h"

#include <elf.h>
#include <errno.h>
#include <sys/file.h>
#include <sys/wait.h>

#include "snapshot/flatten.h"
#include "snapshot/reader_priv.h"

#define SMALL (5 * MiB + 12 * KiB)	/* two chunks and a part of a third */

/* Some of everything: noise, text, scattered pages, a page of zeroes, the last page. */
static void fill_some(struct test_ram *ram)
{
	uint64_t gpa;

	ram_fill(ram, 0, 64 * KiB, 1, false);
	ram_fill(ram, 0x80000, 128 * KiB, 2, true);
	for (gpa = RAM_CHUNK; gpa < RAM_CHUNK + 80 * 8 * KiB; gpa += 8 * KiB)
		ram_fill(ram, gpa, 4 * KiB, gpa, false);
	memset(ram_page(ram, 0x40000), 0, 4 * KiB);
	ram_fill(ram, SMALL - 4 * KiB, 4 * KiB, 3, false);
}

static void round_trip(int level, unsigned records)
{
	const char *path = in_dir("a");
	struct snap_reader *r;
	struct test_ram ram;
	struct shot s = { .ram = &ram, .zstd_level = level, .records = records };
	unsigned i;

	ram_init(&ram, SMALL, 0);
	fill_some(&ram);
	shot_write(path, &s);
	r = shot_open(path);
	shot_same(r, &ram);
	assert_string_equal(r->manifest.writer, "skep test");
	assert_int_equal(r->manifest.guest_ns, 123456789);
	assert_int_equal(r->manifest.config.count, 1);
	assert_true(level ? r->runs && !r->checksums : r->checksums && !r->runs);
	assert_int_equal(r->nchunks, 3);
	assert_int_equal(r->nrecords, records);
	for (i = 0; i < records; i++) {
		uint8_t byte;

		assert_int_equal(r->records[i].len, 1 + i * 3 % 100);
		assert_int_equal(r->records[i].data[0], (uint8_t)(0x60 + i));
		assert_int_equal(pread(r->fd, &byte, 1, r->records[i].offset), 1);
		assert_int_equal(byte, (uint8_t)(0x60 + i));
	}
	snap_close(r);
	ram_free(&ram);
	unlink(path);
}

static void plain(void **state)
{
	round_trip(0, 0);
	round_trip(0, 7);
}

static void compressed(void **state)
{
	round_trip(1, 0);
	round_trip(3, 300);
	round_trip(1000, 4);	/* as high as it goes */
	round_trip(-5, 5);
}

static void plain_layout(void **state)
{
	const char *path = in_dir("a");
	struct snap_reader *r;
	struct test_ram ram;
	struct shot s = { .ram = &ram };
	Elf64_Phdr ph[3];
	struct stat st;
	Elf64_Ehdr eh;
	unsigned i;

	ram_init(&ram, RAM_LOW_MAX, 3 * MiB);
	ram_fill(&ram, 0x1000, 4 * KiB, 1, true);
	ram_fill(&ram, RAM_LOW_MAX - 4 * KiB, 4 * KiB, 2, true);
	ram_fill(&ram, RAM_HIGH_BASE + 4 * KiB, 4 * KiB, 3, true);
	ram_fill(&ram, RAM_HIGH_BASE + 3 * MiB - 4 * KiB, 4 * KiB, 4, true);
	shot_write(path, &s);
	r = shot_open(path);
	shot_same(r, &ram);
	assert_int_equal(pread(r->fd, &eh, sizeof(eh), 0), sizeof(eh));
	assert_int_equal(eh.e_phnum, 3);
	assert_int_equal(pread(r->fd, ph, sizeof(ph), eh.e_phoff), sizeof(ph));
	for (i = 0; i < 2; i++) {
		assert_int_equal(ph[1 + i].p_type, PT_LOAD);
		assert_int_equal(ph[1 + i].p_paddr, ram.region[i].gpa);
		assert_int_equal(ph[1 + i].p_filesz, ram.region[i].size);
		assert_int_equal(ph[1 + i].p_memsz, ram.region[i].size);
		assert_int_equal(ph[1 + i].p_offset % RAM_CHUNK, 0);
		assert_int_equal(ph[1 + i].p_offset, r->region[i].offset);
	}
	assert_true(snap_chunk_stored(r, 0));
	assert_true(snap_chunk_stored(r, RAM_HIGH_BASE + RAM_CHUNK));
	assert_false(snap_chunk_stored(r, 64 * MiB));
	assert_false(snap_chunk_stored(r, RAM_LOW_MAX));
	assert_false(snap_chunk_stored(r, UINT64_MAX));
	/* Holes stay holes. */
	assert_int_equal(fstat(r->fd, &st), 0);
	assert_true(st.st_blocks * 512ull < 1 * MiB);
	snap_close(r);
	ram_free(&ram);
	unlink(path);
}

static void two_regions_compressed(void **state)
{
	const char *path = in_dir("a");
	struct snap_reader *r;
	struct test_ram ram;
	struct shot s = { .ram = &ram, .zstd_level = 1 };

	ram_init(&ram, RAM_LOW_MAX, 5 * MiB);
	ram_fill(&ram, RAM_LOW_MAX - MiB, MiB, 2, false);
	ram_fill(&ram, RAM_HIGH_BASE, 5 * MiB, 3, false);
	shot_write(path, &s);
	r = shot_open(path);
	shot_same(r, &ram);
	assert_true(r->file_size < 3 * MiB);
	snap_close(r);
	ram_free(&ram);
	unlink(path);
}

static void nothing_at_all(void **state)
{
	static const int levels[] = { 0, 1 };
	const char *path = in_dir("a");
	struct snap_reader *r;
	struct test_ram ram;
	unsigned i;

	ram_init(&ram, 1 * MiB, 0);
	for (i = 0; i < ARRAY_SIZE(levels); i++) {
		struct shot s = { .ram = &ram, .zstd_level = levels[i] };

		shot_write(path, &s);
		r = shot_open(path);
		shot_same(r, &ram);
		assert_false(snap_chunk_stored(r, 0));
		snap_close(r);
	}
	ram_free(&ram);
	unlink(path);
}

/* The same machine twice: the same bytes. */
static void deterministic(void **state)
{
	static const int levels[] = { 0, 3 };
	struct snap_reader *a, *b;
	struct test_ram ram;
	unsigned i;

	ram_init(&ram, SMALL, 0);
	fill_some(&ram);
	for (i = 0; i < ARRAY_SIZE(levels); i++) {
		struct shot s = { .ram = &ram, .zstd_level = levels[i], .records = 3 };

		shot_write(in_dir("a"), &s);
		shot_write(in_dir("b"), &s);
		a = shot_open(in_dir("a"));
		b = shot_open(in_dir("b"));
		assert_int_equal(a->file_size, b->file_size);
		assert_memory_equal(a->digest, b->digest, SNAP_DIGEST_SIZE);
		snap_close(a);
		snap_close(b);
	}
	ram_free(&ram);
}

/* ---- Deltas ---------------------------------------------------------------- */

/* base, one, two, three in the directory; what RAM is in the end. */
static void make_chain(struct test_ram *ram, int base_level, int level)
{
	static const char *const names[] = { "base", "one", "two", "three" };
	struct snap_reader *parent = NULL;
	struct shot s = { .ram = ram, .zstd_level = base_level };
	unsigned i;

	ram_init(ram, SMALL, 0);
	for (i = 0; i < ARRAY_SIZE(names); i++) {
		ram_forget(ram);
		s.parent = parent;
		if (i) {
			s.zstd_level = level;
			/* Some pages of text, some of noise, one that becomes zero again. */
			ram_fill(ram, 0x1000 * i, 8 * KiB, 10 + i, false);
			ram_fill(ram, 0x90000 + 0x3000 * i, 16 * KiB, 20 + i, true);
			memset(ram_page(ram, 0x8000 + 0x1000 * i), 0, 4 * KiB);
			ram_fill(ram, 2 * RAM_CHUNK + i * 0x10000, 4 * KiB, 30 + i, i & 1);
		} else {
			fill_some(ram);
		}
		shot_write(in_dir(names[i]), &s);
		snap_close(parent);
		parent = shot_open(in_dir(names[i]));
		shot_same(parent, ram);
	}
	snap_close(parent);
}

static void chain(void **state)
{
	static const int levels[][2] = { { 0, 0 }, { 0, 1 }, { 3, 0 }, { 1, 1 } };
	struct snap_reader *r;
	struct test_ram ram;
	unsigned i;

	for (i = 0; i < ARRAY_SIZE(levels); i++) {
		make_chain(&ram, levels[i][0], levels[i][1]);
		r = shot_open(in_dir("three"));
		assert_non_null(r->parent->parent->parent);
		assert_null(r->parent->parent->parent->parent);
		assert_true(r->manifest.delta);
		shot_same(r, &ram);
		assert_true(r->file_size < 64 * KiB);
		snap_close(r);
		ram_free(&ram);
	}
}

static bool count_progress(void *opaque, uint64_t done, uint64_t all)
{
	unsigned *n = opaque;

	assert_true(done <= all);
	return ++*n < 3;
}

static void verify_can_be_stopped(void **state)
{
	struct skep_error e = { "" };
	struct snap_reader *r;
	struct test_ram ram;
	unsigned n = 0;

	make_chain(&ram, 0, 1);
	r = shot_open(in_dir("three"));
	assert_int_equal(snap_verify_ram(r, count_progress, &n, &e), -ECANCELED);
	assert_int_equal(n, 3);
	snap_close(r);
	ram_free(&ram);
}

static void flatten(void **state)
{
	static const int levels[] = { 0, 2 };
	struct snap_reader *r, *flat;
	struct skep_error e = { "" };
	uint8_t digest[SNAP_DIGEST_SIZE];
	struct snap_target t;
	struct test_ram ram;
	unsigned i;

	make_chain(&ram, 1, 0);
	r = shot_open(in_dir("three"));
	for (i = 0; i < ARRAY_SIZE(levels); i++) {
		struct flatten_options o = { .zstd_level = levels[i] };

		assert_int_equal(snap_target_open(&t, in_dir("flat"), &e), 0);
		if (snap_flatten(r, t.fd, &o, digest, &e) < 0)
			fail_msg("%s", e.text);
		assert_int_equal(snap_target_commit(&t, false, &e), 0);
		flat = shot_open(in_dir("flat"));
		assert_memory_equal(flat->digest, digest, sizeof(digest));
		assert_false(flat->manifest.delta);
		assert_int_equal(flat->manifest.parent_path.len, 0);
		assert_memory_equal(flat->manifest.id, r->manifest.id, 16);
		assert_int_equal(flat->nrecords, r->nrecords);
		assert_true(!flat->checksums == !!levels[i]);
		shot_same(flat, &ram);
		snap_close(flat);
	}
	snap_close(r);
	r = NULL;
	ram_free(&ram);
}

/* A plain file that is flattened is itself. */
static void plain_flattened_is_itself(void **state)
{
	struct flatten_options o = { 0 };
	uint8_t digest[SNAP_DIGEST_SIZE];
	struct snap_reader *r, *whole;
	struct skep_error e = { "" };
	struct test_ram ram;
	struct shot s = { .ram = &ram, .records = 2 };
	int fd;

	ram_init(&ram, SMALL, 0);
	fill_some(&ram);
	ram.region[0].there[0x40000 / GUEST_PAGE_SIZE] = false;	/* the page of zeroes */
	shot_write(in_dir("whole"), &s);
	whole = shot_open(in_dir("whole"));
	fd = open(in_dir("flat"), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (snap_flatten(whole, fd, &o, digest, &e) < 0)
		fail_msg("%s", e.text);
	close(fd);
	r = shot_open(in_dir("flat"));
	assert_int_equal(r->file_size, whole->file_size);
	assert_int_equal(r->nchunks, whole->nchunks);
	assert_memory_equal(r->checksums, whole->checksums, r->nchunks * 8);
	assert_memory_equal(r->digest, whole->digest, SNAP_DIGEST_SIZE);
	snap_close(r);
	snap_close(whole);
	ram_free(&ram);
}

/* ---- Chains that are not right ------------------------------------------------ */

static void parent_beside_the_child(void **state)
{
	struct snap_reader *r;
	struct test_ram ram;
	char command[256];

	make_chain(&ram, 0, 0);
	/* All files moved: the paths in the manifests are wrong, their names are right. */
	snprintf(command, sizeof(command), "cd %s && mkdir -p else && mv base one two three else",
		 shot_dir);
	assert_int_equal(system(command), 0);
	r = shot_open(in_dir("else/three"));
	shot_same(r, &ram);
	snap_close(r);
	/* Alone, it says what it is and no more. */
	unlink(in_dir("else/two"));
	r = snap_open(in_dir("else/three"), SNAP_OPEN_ALONE, &(struct skep_error){ "" });
	assert_non_null(r);
	assert_null(r->parent);
	snap_close(r);
	shot_refused(in_dir("else/three"), 0, "else/two': No such file");
	ram_free(&ram);
}

static void relative_parent(void **state)
{
	struct snap_reader *base, *r;
	struct test_ram ram;
	struct shot s = { .ram = &ram };

	ram_init(&ram, SMALL, 0);
	fill_some(&ram);
	shot_write(in_dir("base"), &s);
	base = shot_open(in_dir("base"));
	s.parent = base;
	s.parent_path = "../base";
	mkdir(in_dir("below"), 0700);
	shot_write(in_dir("below/child"), &s);
	r = shot_open(in_dir("below/child"));
	snap_close(r);
	/* No path at all, and one that names a directory. */
	s.parent_path = "";
	shot_write(in_dir("below/child"), &s);
	shot_refused(in_dir("below/child"), 0, "does not say where its parent is");
	s.parent_path = "/tmp/";
	shot_write(in_dir("below/child"), &s);
	shot_refused(in_dir("below/child"), 0, "is not a regular file");
	s.parent_path = "/dev/null";
	shot_write(in_dir("below/child"), &s);
	shot_refused(in_dir("below/child"), 0, "is not a regular file");
	snap_close(base);
	ram_free(&ram);
}

static void wrong_parent(void **state)
{
	struct test_ram ram, other;
	struct snap_reader *base;
	struct shot s = { .ram = &ram }, o = { .ram = &other };

	make_chain(&ram, 0, 0);
	/* The same name, other contents. */
	ram_init(&other, SMALL, 0);
	shot_write(in_dir("two"), &o);
	shot_refused(in_dir("three"), 0, "two': is another snapshot");
	shot_write(in_dir("two"), &s);
	truncate(in_dir("two"), 4096);
	shot_refused(in_dir("three"), 0, "two': was cut short");
	ram_free(&other);

	/* A parent of another machine. */
	base = shot_open(in_dir("base"));
	ram_init(&other, SMALL + 4 * KiB, 0);
	o.parent = base;
	shot_write(in_dir("child"), &o);
	shot_refused(in_dir("child"), 0, "other RAM");
	s.parent = base;
	s.cpus = 3;
	shot_write(in_dir("child"), &s);
	shot_refused(in_dir("child"), 0, "other processors");
	snap_close(base);
	ram_free(&other);
	ram_free(&ram);
}

static void too_deep(void **state)
{
	struct snap_reader *parent, *r;
	struct test_ram ram;
	struct shot s = { .ram = &ram };
	char name[32];
	int i;

	ram_init(&ram, 1 * MiB, 0);
	shot_write(in_dir("d0"), &s);
	for (i = 1; i <= SNAP_CHAIN_MAX; i++) {
		snprintf(name, sizeof(name), "d%d", i - 1);
		parent = snap_open(in_dir(name), SNAP_OPEN_ALONE, &(struct skep_error){ "" });
		s.parent = parent;
		ram_forget(&ram);
		ram_fill(&ram, 0x1000 * i, 0x1000, i, true);
		snprintf(name, sizeof(name), "d%d", i);
		shot_write(in_dir(name), &s);
		snap_close(parent);
	}
	snprintf(name, sizeof(name), "d%d", SNAP_CHAIN_MAX - 1);
	r = shot_open(in_dir(name));
	snap_close(r);
	snprintf(name, sizeof(name), "d%d", SNAP_CHAIN_MAX);
	shot_refused(in_dir(name), 0, "flatten");
	ram_free(&ram);
}

/* Its own parent, by a digest that somebody has fitted: the chain ends all the same. */
static void cycle(void **state)
{
	struct snap_reader *r, fake = { .path = (char *)in_dir("loop") };
	struct skep_error e = { "" };
	struct test_ram ram;
	struct shot s = { .ram = &ram, .parent = &fake };

	ram_init(&ram, 1 * MiB, 0);
	memset(fake.digest, 0x5a, sizeof(fake.digest));
	shot_write(in_dir("loop"), &s);
	r = snap_open(in_dir("loop"), SNAP_OPEN_ALONE, &e);
	assert_non_null(r);
	/* As if the digest were its own. */
	memcpy(r->manifest.parent, r->digest, SNAP_DIGEST_SIZE);
	assert_int_equal(snap_open_chain(r, &e), -ELOOP);
	assert_non_null(strstr(e.text, "parent of its own"));
	snap_close(r);
	ram_free(&ram);
}

/* ---- Files that are not snapshots; locks; what the writer refuses ------------------ */

static void not_snapshots(void **state)
{
	int fd;

	shot_refused(in_dir("none"), 0, "No such file");
	shot_refused(shot_dir, 0, "is not a regular file");
	shot_refused("/dev/zero", 0, "is not a regular file");
	assert_int_equal(mkfifo(in_dir("fifo"), 0600), 0);
	shot_refused(in_dir("fifo"), 0, "is not a regular file");
	close(open(in_dir("empty"), O_WRONLY | O_CREAT, 0600));
	shot_refused(in_dir("empty"), 0, "empty");
	fd = open(in_dir("text"), O_WRONLY | O_CREAT, 0600);
	assert_int_equal(write(fd, "hello\n", 6), 6);
	shot_refused(in_dir("text"), 0, "too short");
	assert_int_equal(ftruncate(fd, 1 * GiB), 0);
	shot_refused(in_dir("text"), 0, "no snapshot of skep");
	close(fd);
	shot_refused("/proc/self/exe", 0, "no snapshot of skep");
}

static void locks(void **state)
{
	struct snap_reader *a, *b;
	struct test_ram ram;
	struct shot s = { .ram = &ram };
	int fd;

	ram_init(&ram, 1 * MiB, 0);
	shot_write(in_dir("a"), &s);
	a = shot_open(in_dir("a"));
	b = shot_open(in_dir("a"));
	fd = open(in_dir("a"), O_RDWR | O_CLOEXEC);
	assert_int_equal(flock(fd, LOCK_EX | LOCK_NB), -1);
	snap_close(a);
	assert_int_equal(flock(fd, LOCK_EX | LOCK_NB), -1);
	snap_close(b);
	assert_int_equal(flock(fd, LOCK_EX | LOCK_NB), 0);
	shot_refused(in_dir("a"), 0, "lock");
	close(fd);
	ram_free(&ram);
}

static void writer_refuses(void **state)
{
	struct snap_layout l = { .region = { { 0, 1 * MiB } }, .nregions = 1 };
	static const struct { uint64_t gpa, size; } bad[][2] = {
		{ { 0, 0 } }, { { 4096, MiB } }, { { 0, MiB + 1 } }, { { 0, 3 * GiB } },
		{ { 0, MiB }, { RAM_HIGH_BASE, MiB } }, { { 0, RAM_LOW_MAX }, { 0, MiB } },
		{ { 0, RAM_LOW_MAX }, { RAM_HIGH_BASE, RAM_SIZE_MAX } },
	};
	struct ram_chunk c = { .npages = 256, .nthere = 1, .there = { 1 } };
	struct skep_error e = { "" };
	uint8_t page[4096], digest[16];
	struct snap_writer *w;
	unsigned i, k;
	int fd = memfd_create("test", MFD_CLOEXEC);

	for (i = 0; i < ARRAY_SIZE(bad); i++) {
		struct snap_layout b = { .nregions = bad[i][1].size ? 2 : 1 };

		for (k = 0; k < 2; k++) {
			b.region[k].gpa = bad[i][k].gpa;
			b.region[k].size = bad[i][k].size;
		}
		assert_null(snap_writer_create(fd, &b, &e));
		assert_true(e.text[0]);
	}
	l.zstd_level = 1;
	assert_null(snap_writer_create(fd, &l, &e));
	l.zstd_level = 0;
	w = snap_writer_create(fd, &l, &e);
	assert_non_null(w);
	c.data = page;
	c.gpa = 4096;
	assert_int_equal(snap_writer_ram(w, &c, &e), -EINVAL);
	c.gpa = 0;
	c.npages = 512;
	assert_int_equal(snap_writer_ram(w, &c, &e), -EINVAL);
	c.npages = 255;
	assert_int_equal(snap_writer_ram(w, &c, &e), -EINVAL);
	c.npages = 256;
	assert_int_equal(snap_writer_ram(w, &c, &e), 0);
	assert_int_equal(snap_writer_ram(w, &c, &e), -EINVAL);	/* twice */
	assert_int_equal(snap_writer_note(w, SNAP_NOTE_RECORD, "x", 1, &e), -EINVAL);
	assert_int_equal(snap_writer_finish(w, digest, &e), -EINVAL);
	assert_non_null(strstr(e.text, "manifest"));
	snap_writer_destroy(w);
	assert_null(snap_writer_create(fd, &l, &e));	/* no longer empty */
	snap_writer_destroy(NULL);
	close(fd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(plain, make_dir, remove_dir),
		cmocka_unit_test_setup_teardown(compressed, make_dir, remove_dir),
		cmocka_unit_test_setup_teardown(plain_layout, make_dir, remove_dir),
		cmocka_unit_test_setup_teardown(two_regions_compressed, make_dir, remove_dir),
		cmocka_unit_test_setup_teardown(nothing_at_all, make_dir, remove_dir),
		cmocka_unit_test_setup_teardown(deterministic, make_dir, remove_dir),
		cmocka_unit_test_setup_teardown(chain, make_dir, remove_dir),
		cmocka_unit_test_setup_teardown(verify_can_be_stopped, make_dir, remove_dir),
		cmocka_unit_test_setup_teardown(flatten, make_dir, remove_dir),
		cmocka_unit_test_setup_teardown(plain_flattened_is_itself, make_dir, remove_dir),
		cmocka_unit_test_setup_teardown(parent_beside_the_child, make_dir, remove_dir),
		cmocka_unit_test_setup_teardown(relative_parent, make_dir, remove_dir),
		cmocka_unit_test_setup_teardown(wrong_parent, make_dir, remove_dir),
		cmocka_unit_test_setup_teardown(too_deep, make_dir, remove_dir),
		cmocka_unit_test_setup_teardown(cycle, make_dir, remove_dir),
		cmocka_unit_test_setup_teardown(not_snapshots, make_dir, remove_dir),
		cmocka_unit_test_setup_teardown(locks, make_dir, remove_dir),
		cmocka_unit_test_setup_teardown(writer_refuses, make_dir, remove_dir),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
