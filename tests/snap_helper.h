/* Snapshot files without a machine: RAM as the tests like it, a manifest, a record or two. */
#ifndef SKEP_TESTS_SNAP_HELPER_H
#define SKEP_TESTS_SNAP_HELPER_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "snapshot/reader.h"
#include "snapshot/target.h"
#include "snapshot/writer.h"
#include "state/codec.h"

static char shot_dir[64];

static inline const char *in_dir(const char *name)
{
	static char path[8][PATH_MAX];
	static unsigned turn;
	char *p = path[turn++ % 8];

	snprintf(p, PATH_MAX, "%s/%s", shot_dir, name);
	return p;
}

static inline int make_dir(void **state)
{
	snprintf(shot_dir, sizeof(shot_dir), "/tmp/skep-test-snap-XXXXXX");
	return mkdtemp(shot_dir) ? 0 : -1;
}

static inline int remove_dir(void **state)
{
	char command[128];

	snprintf(command, sizeof(command), "rm -rf '%s'", shot_dir);
	return system(command);
}

/* ---- RAM ------------------------------------------------------------------ */

struct test_ram {
	struct { uint64_t gpa, size; uint8_t *host; bool *there; } region[2];
	unsigned n;
};

static inline void ram_init(struct test_ram *r, uint64_t low, uint64_t high)
{
	const uint64_t size[] = { low, high };
	unsigned i;

	memset(r, 0, sizeof(*r));
	r->n = high ? 2 : 1;
	for (i = 0; i < r->n; i++) {
		r->region[i].gpa = i ? RAM_HIGH_BASE : 0;
		r->region[i].size = size[i];
		r->region[i].host = mmap(NULL, size[i], PROT_READ | PROT_WRITE,
					 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
		assert_ptr_not_equal(r->region[i].host, MAP_FAILED);
		r->region[i].there = calloc(size[i] / GUEST_PAGE_SIZE, sizeof(bool));
	}
}

static inline void ram_free(struct test_ram *r)
{
	unsigned i;

	for (i = 0; i < r->n; i++) {
		munmap(r->region[i].host, r->region[i].size);
		free(r->region[i].there);
	}
}

/* The page at gpa: marked as there. */
static inline uint8_t *ram_page(struct test_ram *r, uint64_t gpa)
{
	unsigned i = gpa >= RAM_HIGH_BASE;
	uint64_t at = gpa - r->region[i].gpa;

	assert_true(at < r->region[i].size);
	r->region[i].there[at / GUEST_PAGE_SIZE] = true;
	return r->region[i].host + (at & ~(GUEST_PAGE_SIZE - 1));
}

/* Bytes that shrink when compressed (text) or do not. */
static inline void ram_fill(struct test_ram *r, uint64_t gpa, uint64_t len, uint64_t seed,
			    bool noise)
{
	uint64_t x = seed * 0x9e3779b97f4a7c15 + 1, at;
	unsigned i;

	for (at = 0; at < len; at += GUEST_PAGE_SIZE) {
		uint8_t *p = ram_page(r, gpa + at);

		for (i = 0; i < GUEST_PAGE_SIZE; i += 8) {
			x ^= x << 13;
			x ^= x >> 7;
			x ^= x << 17;
			store64(p + i, noise ? x : 0x6565657320736920 + (x & 0x0303));
		}
	}
}

static inline void ram_forget(struct test_ram *r)	/* nothing is in the next cut */
{
	unsigned i;

	for (i = 0; i < r->n; i++)
		memset(r->region[i].there, 0, r->region[i].size / GUEST_PAGE_SIZE);
}

/* ---- Files ---------------------------------------------------------------- */

struct shot {
	struct test_ram *ram;
	int zstd_level;
	const struct snap_reader *parent;	/* NULL: no delta */
	const char *parent_path;	/* NULL: the parent's */
	uint32_t cpus;			/* 0: 2 */
	unsigned records;
	void (*spoil)(struct manifest *m);	/* NULL: nothing */
};

static inline void shot_manifest(struct snap_writer *w, const struct shot *s)
{
	struct manifest_setting setting = { .key = "memory.size",
					    .value = { (uint8_t *)"64M", 3 } };
	struct manifest_region region[2];
	struct state_buf b = { 0 };
	struct skep_error e = { "" };
	struct manifest m = {
		.format = SNAP_FORMAT, .generation = 1, .writer = "skep test", .name = "test",
		.id = { 1, 2, 3 }, .guest_ns = 123456789, .guest_wall_ns = 1767225600000000000,
		.host_wall_ns = 1767225700000000000, .tsc_khz = 2000000, .insn_ps = 1000,
		.cpu_model = "skep64-v1", .cpus = s->cpus ? s->cpus : 2,
		.regions = { region, s->ram->n }, .config = { &setting, 1 },
	};
	const char *path;
	unsigned i;

	for (i = 0; i < s->ram->n; i++)
		region[i] = (struct manifest_region){ s->ram->region[i].gpa,
						      s->ram->region[i].size };
	if (s->parent) {
		path = s->parent_path ? s->parent_path : s->parent->path;
		m.delta = true;
		memcpy(m.parent, s->parent->digest, sizeof(m.parent));
		if (path[0])
			m.parent_path = (struct state_blob){ (uint8_t *)path, strlen(path) };
	}
	if (s->spoil)
		s->spoil(&m);
	if (state_encode(&manifest_record, "manifest", &m, 1, &b, &e) < 0)
		fail_msg("%s", e.text);
	assert_int_equal(snap_writer_note(w, SNAP_NOTE_MANIFEST, b.data, b.len, &e), 0);
	state_buf_free(&b);
}

static inline int shot_ram(struct snap_writer *w, const struct test_ram *r, struct skep_error *e)
{
	uint64_t at, page;
	unsigned i, k;
	int err;

	for (i = 0; i < r->n; i++) {
		for (at = 0; at < r->region[i].size; at += RAM_CHUNK) {
			struct ram_chunk c = { .gpa = r->region[i].gpa + at,
					       .data = r->region[i].host + at };

			page = at / GUEST_PAGE_SIZE;
			c.npages = MIN(RAM_CHUNK, r->region[i].size - at) / GUEST_PAGE_SIZE;
			for (k = 0; k < c.npages; k++)
				if (r->region[i].there[page + k]) {
					c.there[k / 64] |= 1ull << (k % 64);
					c.nthere++;
				}
			err = c.nthere ? snap_writer_ram(w, &c, e) : 0;
			if (err < 0)
				return err;
		}
	}
	return 0;
}

static inline int shot_write_fd(int fd, const struct shot *s, struct skep_error *e)
{
	struct snap_layout l = {
		.nregions = s->ram->n, .runs = s->parent || s->zstd_level, .whole = !s->parent,
		.zstd_level = s->zstd_level,
	};
	struct snap_regs regs = { .rip = 0xffffffff81000000, .rflags = 0x202, .cs = 0x10,
				  .ss = 0x18, .fs_base = 0x1111, .gs_base = 0x2222 };
	uint8_t digest[SNAP_DIGEST_SIZE], note[100];
	struct snap_writer *w;
	unsigned i;
	int err;

	for (i = 0; i < s->ram->n; i++) {
		l.region[i].gpa = s->ram->region[i].gpa;
		l.region[i].size = s->ram->region[i].size;
	}
	w = snap_writer_create(fd, &l, e);
	if (!w)
		return -1;
	err = shot_ram(w, s->ram, e);
	shot_manifest(w, s);
	for (i = 0; !err && i < s->records; i++) {
		memset(note, 0x60 + i, sizeof(note));
		err = snap_writer_note(w, SNAP_NOTE_RECORD, note, 1 + i * 3 % sizeof(note), e);
	}
	for (i = 0; !err && i < (s->cpus ? s->cpus : 2); i++) {
		unsigned k;

		for (k = 0; k < 16; k++)
			regs.gpr[k] = 0x1000 * (i + 1) + k;
		err = snap_writer_cpu(w, &regs, e);
	}
	if (!err)
		err = snap_writer_vmcoreinfo(w, "OSRELEASE=6.1.0\n", 16, e);
	if (!err)
		err = snap_writer_finish(w, digest, e);
	snap_writer_destroy(w);
	return err;
}

static inline void shot_write(const char *path, const struct shot *s)
{
	struct skep_error e = { "" };
	int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	assert_true(fd >= 0);
	if (shot_write_fd(fd, s, &e) < 0)
		fail_msg("%s", e.text);
	close(fd);
}

static inline struct snap_reader *shot_open(const char *path)
{
	struct skep_error e = { "" };
	struct snap_reader *r = snap_open(path, 0, &e);

	if (!r)
		fail_msg("%s", e.text);
	return r;
}

static inline void shot_refused(const char *path, unsigned flags, const char *words)
{
	struct skep_error e = { "" };
	struct snap_reader *r = snap_open(path, flags, &e);

	assert_null(r);
	if (!strstr(e.text, words) || e.text[strlen(e.text) - 1] == '\n')
		fail_msg("'%s' is not in '%s'", words, e.text);
}

/* All that the reader loads is what RAM holds. */
static inline void shot_same(struct snap_reader *r, const struct test_ram *ram)
{
	uint8_t *buf = malloc(RAM_CHUNK);
	struct skep_error e = { "" };
	uint64_t at, len;
	unsigned i;

	assert_int_equal(r->nregions, ram->n);
	for (i = 0; i < ram->n; i++) {
		assert_int_equal(r->region[i].gpa, ram->region[i].gpa);
		assert_int_equal(r->region[i].size, ram->region[i].size);
		for (at = 0; at < ram->region[i].size; at += len) {
			uint64_t gpa = ram->region[i].gpa + at;

			len = MIN(RAM_CHUNK, ram->region[i].size - at);
			if (!snap_chunk_stored(r, gpa) && at + len < ram->region[i].size && at)
				continue;
			memset(buf, 0, len);
			if (snap_load_chunk(r, gpa, buf, len, &e) < 0)
				fail_msg("%s", e.text);
			if (memcmp(buf, ram->region[i].host + at, len))
				fail_msg("RAM at %#llx differs", (unsigned long long)gpa);
		}
	}
	if (snap_verify_ram(r, NULL, NULL, &e) < 0)
		fail_msg("%s", e.text);
	free(buf);
}

#endif
