/*
 * Snapshot files that are damaged, cut short, or made to deceive: refused by a sentence, or read
 * within bounds.
 */
#include "snap_helper.h"

#include <elf.h>
#include <errno.h>

#include "snapshot/container.h"

#define SMALL (2 * MiB + 64 * KiB)

struct image {			/* a file in memory */
	uint8_t *data;
	size_t len;
	size_t notes, notes_len;
};

static void image_load(struct image *m, const char *path)
{
	struct stat st;
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	assert_int_equal(fstat(fd, &st), 0);
	m->len = st.st_size;
	m->data = malloc(m->len);
	assert_int_equal(pread(fd, m->data, m->len, 0), m->len);
	close(fd);
	m->notes = load64(m->data + 64 + 8);
	m->notes_len = load64(m->data + 64 + 32);
	assert_int_equal(m->notes + m->notes_len, m->len);
}

static void make(struct image *m, struct test_ram *ram, int level, unsigned records)
{
	struct shot s = { .ram = ram, .zstd_level = level, .records = records };

	ram_init(ram, SMALL, 0);
	ram_fill(ram, 0, 8 * KiB, 1, false);
	ram_fill(ram, 0x10000, 4 * KiB, 2, true);
	ram_fill(ram, RAM_CHUNK + 0x2000, 8 * KiB, 3, false);
	shot_write(in_dir("file"), &s);
	image_load(m, in_dir("file"));
}

static void image_free(struct image *m)
{
	free(m->data);
	m->data = NULL;
}

/* Makes the end mark right again. */
static void seal(struct image *m)
{
	struct snap_hash *h = snap_hash_create();
	unsigned n = load16(m->data + 56);

	snap_digest_begin(h);
	snap_digest_update(h, m->data, 64 + 56 * (n > 3 ? 3 : n));
	snap_digest_update(h, m->data + m->notes, m->notes_len - 16);
	snap_digest_end(h, m->data + m->notes + m->notes_len - 16);
	snap_hash_free(h);
}

/* The content of our note of this type; *len: its bytes. */
static uint8_t *find_note(struct image *m, uint32_t type, size_t *len)
{
	uint8_t *p = m->data + m->notes, *end = p + m->notes_len;

	while (p < end) {
		uint32_t name = load32(p), n = load32(p + 4);

		if (load32(p + 8) == type) {
			*len = n;
			return p + 12 + ALIGN_UP(name, 4u);
		}
		p += 12 + ALIGN_UP(name, 4u) + ALIGN_UP(n, 4u);
	}
	fail();
	return NULL;
}

static struct snap_reader *open_image(const struct image *m, size_t len, struct skep_error *e)
{
	int fd = memfd_create("snapshot", MFD_CLOEXEC);

	assert_int_equal(ftruncate(fd, len), 0);
	/* Holes stay holes: the two megabytes before a plain file's RAM are zero anyway. */
	assert_int_equal(pwrite(fd, m->data, MIN(len, 4096ul), 0), MIN(len, 4096ul));
	if (len > 4096) {
		size_t from = load16(m->data + 56) > 1 ? MIN(len, 2 * MiB) : 4096;

		assert_int_equal(pwrite(fd, m->data + from, len - from, from), len - from);
	}
	e->text[0] = '\0';
	return snap_open_fd(fd, "image", 0, e);
}

static void must_refuse(const struct image *m, size_t len, const char *words)
{
	struct skep_error e;
	struct snap_reader *r = open_image(m, len, &e);

	if (r)
		fail_msg("not refused; '%s' was due", words);
	if (!strstr(e.text, words) || strncmp(e.text, "image: ", 7))
		fail_msg("'%s' is not in '%s'", words, e.text);
}

/* ---- Damage ------------------------------------------------------------------ */

static void every_truncation(void **state)
{
	static const int levels[] = { 0, 1 };
	struct test_ram ram;
	struct image m;
	unsigned i;
	size_t n;

	for (i = 0; i < ARRAY_SIZE(levels); i++) {
		make(&m, &ram, levels[i], 3);
		for (n = 0; n < m.len; n++) {
			/* Of a plain file's RAM: each page's edges. */
			if (!levels[i] && n > 200 && n < m.notes && (n + 1) % 4096 > 2)
				continue;
			must_refuse(&m, n, "");
		}
		image_free(&m);
		ram_free(&ram);
	}
}

/*
 * Each byte is flipped where the file lies, so that a plain file of megabytes is not written a
 * thousand times.
 */
static void flip_all(struct image *m, int fd, size_t from, size_t to)
{
	struct skep_error e;
	struct snap_reader *r;
	uint8_t byte;
	size_t at;
	int bit;

	for (at = from; at < to; at++) {
		for (bit = 0; bit < 8; bit++) {
			byte = m->data[at] ^ 1 << bit;
			assert_int_equal(pwrite(fd, &byte, 1, at), 1);
			r = snap_open(in_dir("file"), 0, &e);
			if (r)
				fail_msg("bit %d of byte %zu is not noticed", bit, at);
		}
		assert_int_equal(pwrite(fd, m->data + at, 1, at), 1);
	}
}

static void every_bit_of_headers_and_notes(void **state)
{
	static const int levels[] = { 0, 1 };
	struct test_ram ram;
	struct image m;
	unsigned i;
	int fd;

	for (i = 0; i < ARRAY_SIZE(levels); i++) {
		make(&m, &ram, levels[i], 3);
		fd = open(in_dir("file"), O_WRONLY | O_CLOEXEC);
		flip_all(&m, fd, 0, 64 + 56 * load16(m.data + 56));
		flip_all(&m, fd, m.notes, m.len);
		close(fd);
		snap_close(shot_open(in_dir("file")));
		image_free(&m);
		ram_free(&ram);
	}
}

/* RAM is verified when it is read: any bit, stored or in a hole. */
static void bits_of_ram(void **state)
{
	static const int levels[] = { 0, 1 };
	struct test_ram ram;
	struct skep_error e;
	struct snap_reader *r;
	struct image m;
	size_t at, from, to, step;
	uint8_t byte;
	unsigned i;
	int fd;

	for (i = 0; i < ARRAY_SIZE(levels); i++) {
		make(&m, &ram, levels[i], 1);
		fd = open(in_dir("file"), O_WRONLY | O_CLOEXEC);
		from = levels[i] ? 4096 : 2 * MiB;
		r = shot_open(in_dir("file"));
		to = m.notes;
		if (levels[i])
			to = r->runs[r->nruns - 1].offset + r->runs[r->nruns - 1].stored;
		snap_close(r);
		step = levels[i] ? 1 : 4099;
		for (at = from; at < to; at += step) {
			r = shot_open(in_dir("file"));
			byte = m.data[at] ^ 1 << (at % 8);
			assert_int_equal(pwrite(fd, &byte, 1, at), 1);
			e.text[0] = '\0';
			/* A bit of a frame that nobody reads may change; what comes out may not. */
			if (snap_verify_ram(r, NULL, NULL, &e) == 0) {
				assert_true(levels[i]);
				shot_same(r, &ram);
			} else {
				assert_non_null(strstr(e.text, "damaged"));
			}
			snap_close(r);
			assert_int_equal(pwrite(fd, m.data + at, 1, at), 1);
		}
		close(fd);
		image_free(&m);
		ram_free(&ram);
	}
}

/* A chunk that is damaged is not handed out. */
static void damaged_chunk(void **state)
{
	uint8_t *buf = calloc(1, RAM_CHUNK);
	struct test_ram ram;
	struct skep_error e = { "" };
	struct snap_reader *r;
	struct image m;
	int fd;

	make(&m, &ram, 0, 0);
	r = shot_open(in_dir("file"));
	fd = open(in_dir("file"), O_WRONLY | O_CLOEXEC);
	assert_int_equal(pwrite(fd, "x", 1, 2 * MiB + 12345), 1);
	assert_int_equal(snap_load_chunk(r, 0, buf, RAM_CHUNK, &e), -EBADMSG);
	assert_non_null(strstr(e.text, "RAM at 0 "));
	/* The next one is well; a chunk is loaded whole or not at all. */
	assert_int_equal(snap_load_chunk(r, RAM_CHUNK, buf, SMALL - RAM_CHUNK, &e), 0);
	assert_int_equal(snap_load_chunk(r, RAM_CHUNK, buf, 4096, &e), -EINVAL);
	assert_int_equal(snap_load_chunk(r, 4096, buf, RAM_CHUNK, &e), -EINVAL);
	assert_int_equal(snap_load_chunk(r, RAM_HIGH_BASE, buf, RAM_CHUNK, &e), -EINVAL);
	/* Somebody cuts it short while it is read: a sentence, and no signal. */
	assert_int_equal(ftruncate(fd, 3 * MiB), 0);
	assert_int_equal(snap_load_chunk(r, 0, buf, RAM_CHUNK, &e), -ENODATA);
	assert_non_null(strstr(e.text, "cut short"));
	close(fd);
	snap_close(r);
	image_free(&m);
	ram_free(&ram);
	free(buf);
}

/* ---- Deceit: the digest is right, and what it covers is not ------------------------ */

static void headers_that_lie(void **state)
{
	static const struct { size_t at; uint8_t byte; const char *words; } lies[] = {
		{ 0, 0x7e, "no snapshot" }, { 4, 1, "headers" }, { 5, 2, "headers" },
		{ 7, 3, "headers" }, { 16, ET_EXEC, "no snapshot" }, { 18, 3, "no snapshot" },
		{ 24, 1, "headers" }, { 32, 72, "no snapshot" }, { 40, 1, "headers" },
		{ 48, 1, "headers" }, { 54, 57, "no snapshot" }, { 56, 0, "no snapshot" },
		{ 56, 4, "no snapshot" }, { 57, 0xff, "no snapshot" }, { 56, 1, "headers" },
		{ 60, 1, "headers" }, { 64, PT_LOAD, "notes are missing" }, { 68, 4, "headers" },
		{ 64 + 8, 1, "cut short" }, { 64 + 15, 0x80, "cut short" },
		{ 64 + 39, 0x80, "cut short" }, { 64 + 48, 8, "headers" },
		{ 120, PT_NOTE, "headers" }, { 124, 0, "headers" }, { 120 + 10, 0x21, "headers" },
		{ 120 + 17, 1, "headers" }, { 120 + 25, 1, "headers" }, { 120 + 33, 1, "headers" },
		{ 120 + 41, 1, "headers" }, { 120 + 48, 1, "headers" },
	};
	struct test_ram ram;
	struct image m;
	unsigned i;

	make(&m, &ram, 0, 1);
	for (i = 0; i < ARRAY_SIZE(lies); i++) {
		uint8_t was = m.data[lies[i].at];

		m.data[lies[i].at] = lies[i].byte;
		seal(&m);
		must_refuse(&m, m.len, lies[i].words);
		m.data[lies[i].at] = was;
	}
	/* Bytes after the end. */
	m.data = realloc(m.data, m.len + 4);
	memset(m.data + m.len, 0, 4);
	seal(&m);
	must_refuse(&m, m.len + 4, "after its end");
	image_free(&m);
	ram_free(&ram);
}

static void notes_that_lie(void **state)
{
	struct test_ram ram;
	struct image m;
	uint8_t *p, was[12];
	size_t len;

	make(&m, &ram, 0, 2);
	p = find_note(&m, SNAP_NOTE_RECORD, &len) - 20;
	memcpy(was, p, 12);
	store32(p + 8, SNAP_NOTE_MANIFEST);	/* a second manifest */
	seal(&m);
	must_refuse(&m, m.len, "where none belongs");
	store32(p + 8, 0x534b4599);		/* of the future */
	seal(&m);
	must_refuse(&m, m.len, "where none belongs");
	store32(p + 8, SNAP_NOTE_END);
	seal(&m);
	must_refuse(&m, m.len, "where none belongs");
	memcpy(p, was, 12);
	store32(p + 4, UINT32_MAX);		/* longer than the file */
	seal(&m);
	must_refuse(&m, m.len, "reaches beyond");
	memcpy(p, was, 12);
	store32(p, UINT32_MAX);
	seal(&m);
	must_refuse(&m, m.len, "reaches beyond");
	store32(p, 0);
	seal(&m);
	must_refuse(&m, m.len, "name");
	memcpy(p, was, 12);
	p[12] = 'X';				/* not ours, among ours */
	seal(&m);
	must_refuse(&m, m.len, "another kind");
	p[12] = 0;				/* two strings */
	seal(&m);
	must_refuse(&m, m.len, "name");
	p[12] = 'S';
	p = find_note(&m, SNAP_NOTE_END, &len) - 20;
	store32(p + 4, 12);
	seal(&m);
	must_refuse(&m, m.len, "");
	store32(p + 4, 16);
	/* No manifest: the first of our notes is a record. */
	p = find_note(&m, SNAP_NOTE_MANIFEST, &len) - 20;
	store32(p + 8, SNAP_NOTE_RECORD);
	seal(&m);
	must_refuse(&m, m.len, "where none belongs");
	store32(p + 8, SNAP_NOTE_MANIFEST);
	/* Another table than the headers promise. */
	p = find_note(&m, SNAP_NOTE_CHECKSUMS, &len) - 20;
	store32(p + 8, SNAP_NOTE_PAGES);
	seal(&m);
	must_refuse(&m, m.len, "page table");
	image_free(&m);
	ram_free(&ram);
}

static void runs_that_lie(void **state)
{
	enum { GPA = 0, LEN = 8, OFFSET = 16, STORED = 24, ENCODING = 32, CHECKSUM = 40 };
	static const struct { unsigned run, field; uint64_t v; const char *words; } lies[] = {
		{ 0, GPA, 1, "not made of pages" }, { 0, GPA, SMALL, "outside RAM" },
		{ 0, GPA, UINT64_MAX & ~4095ull, "outside RAM" },
		{ 0, GPA, RAM_HIGH_BASE, "outside RAM" }, { 1, GPA, 0x1000, "overlaps" },
		{ 0, GPA, 0x1f0000, "overlaps" }, { 2, GPA, 0, "overlaps" },
		{ 1, GPA, RAM_CHUNK - 0x1000, NULL },
		{ 0, LEN, 0, "not made of pages" }, { 0, LEN, 4095, "not made of pages" },
		{ 0, LEN, 1ull << 63, "not made of pages" }, { 1, LEN, RAM_CHUNK, "two chunks" },
		{ 2, LEN, 128 * KiB, "outside RAM" }, { 2, LEN, 4 * MiB, "not made of pages" },
		{ 0, OFFSET, 0, "nothing of RAM" }, { 0, OFFSET, 4095, "nothing of RAM" },
		{ 0, OFFSET, 1 * GiB, "nothing of RAM" }, { 0, OFFSET, UINT64_MAX, "nothing of RAM" },
		{ 2, OFFSET, 4096, "nothing of RAM" }, { 1, OFFSET, 8193, "not stored" },
		{ 0, STORED, 0, "did not shrink" }, { 0, STORED, UINT64_MAX, "did not shrink" },
		{ 0, STORED, 8192, "did not shrink" }, { 1, STORED, 1, "not stored" },
		{ 0, ENCODING, 3, "unknown encoding" }, { 0, ENCODING, UINT32_MAX, "unknown" },
		{ 0, ENCODING, 1ull << 32 | 1, "reserved" }, { 0, ENCODING, SNAP_ZERO, "yet stored" },
		{ 0, ENCODING, SNAP_RAW, "not stored" },
	};
	struct test_ram ram;
	struct skep_error e;
	struct snap_reader *r;
	struct image m;
	uint8_t *p;
	size_t len;
	unsigned i;

	make(&m, &ram, 1, 1);
	p = find_note(&m, SNAP_NOTE_PAGES, &len);
	assert_int_equal(len, 3 * sizeof(struct snap_run));
	for (i = 0; i < ARRAY_SIZE(lies); i++) {
		uint8_t *field = p + lies[i].run * sizeof(struct snap_run) + lies[i].field;
		uint64_t was = load64(field);

		store64(field, lies[i].v);
		seal(&m);
		if (lies[i].words) {
			must_refuse(&m, m.len, lies[i].words);
		} else {
			r = open_image(&m, m.len, &e);
			assert_non_null(r);
			snap_close(r);
		}
		store64(field, was);
	}
	/* A run that claims to be shorter or longer than what it unpacks to. */
	for (i = 4096; i <= 3 * 4096; i += 2 * 4096) {
		store64(p + LEN, i);
		seal(&m);
		r = open_image(&m, m.len, &e);
		assert_non_null(r);
		assert_int_equal(snap_verify_ram(r, NULL, NULL, &e), -EBADMSG);
		assert_non_null(strstr(e.text, "one frame of its size"));
		snap_close(r);
	}
	store64(p + LEN, 8192);
	store64(p + CHECKSUM, load64(p + CHECKSUM) + 1);
	seal(&m);
	r = open_image(&m, m.len, &e);
	assert_non_null(r);
	assert_int_equal(snap_verify_ram(r, NULL, NULL, &e), -EBADMSG);
	assert_non_null(strstr(e.text, "checksum"));
	snap_close(r);
	image_free(&m);
	ram_free(&ram);
}

/* The plain table says zero, and the file has bytes there; and the other way round. */
static void checksums_that_lie(void **state)
{
	struct test_ram ram;
	struct skep_error e;
	struct snap_reader *r;
	struct image m;
	uint8_t *p;
	size_t len;

	make(&m, &ram, 0, 0);
	p = find_note(&m, SNAP_NOTE_CHECKSUMS, &len);
	assert_int_equal(len, 16);
	store64(p, 0);
	seal(&m);
	r = open_image(&m, m.len, &e);
	assert_non_null(r);
	assert_int_equal(snap_verify_ram(r, NULL, NULL, &e), -EBADMSG);
	assert_non_null(strstr(e.text, "not zero"));
	snap_close(r);
	/* One entry less than RAM needs. */
	store32(p - 16, 8);
	memmove(p + 8, p + 16, 36);
	m.len -= 8;
	m.notes_len -= 8;
	store64(m.data + 64 + 32, m.notes_len);
	store64(m.data + 64 + 40, m.notes_len);
	seal(&m);
	must_refuse(&m, m.len, "checksums");
	image_free(&m);
	ram_free(&ram);
}

/* ---- Manifests that lie ----------------------------------------------------------- */

static void bad_format(struct manifest *m) { m->format = 2; }
static void no_cpus(struct manifest *m) { m->cpus = 0; }
static void delta_without_parent(struct manifest *m) { m->delta = true; }
static void parent_without_delta(struct manifest *m) { m->parent[3] = 1; }
static void delta_when_plain(struct manifest *m) { m->delta = true; m->parent[0] = 1; }
static void no_regions(struct manifest *m) { m->regions = (struct state_list){ 0 }; }

static struct manifest_region wrong[2];

static void other_size(struct manifest *m)
{
	wrong[0] = (struct manifest_region){ 0, SMALL + 4096 };
	m->regions = (struct state_list){ wrong, 1 };
}

static void odd_size(struct manifest *m)
{
	wrong[0] = (struct manifest_region){ 0, SMALL + 1 };
	m->regions = (struct state_list){ wrong, 1 };
}

static void huge(struct manifest *m)
{
	wrong[0] = (struct manifest_region){ 0, UINT64_MAX & ~4095ull };
	m->regions = (struct state_list){ wrong, 1 };
}

static void elsewhere(struct manifest *m)
{
	wrong[0] = (struct manifest_region){ 0x1000, SMALL };
	m->regions = (struct state_list){ wrong, 1 };
}

static void twice_zero(struct manifest *m)
{
	wrong[0] = wrong[1] = (struct manifest_region){ 0, SMALL };
	m->regions = (struct state_list){ wrong, 2 };
}

static void high_too_large(struct manifest *m)
{
	wrong[0] = (struct manifest_region){ 0, RAM_LOW_MAX };
	wrong[1] = (struct manifest_region){ RAM_HIGH_BASE, RAM_SIZE_MAX };
	m->regions = (struct state_list){ wrong, 2 };
}

static struct manifest_setting settings[2];

static void key_twice(struct manifest *m)
{
	settings[0] = settings[1] = (struct manifest_setting){
		.key = "cpus", .value = { (uint8_t *)"1", 1 }
	};
	m->config = (struct state_list){ settings, 2 };
}

static void value_with_nul(struct manifest *m)
{
	settings[0] = (struct manifest_setting){ .key = "cpus", .value = { (uint8_t *)"1\0", 2 } };
	m->config = (struct state_list){ settings, 1 };
}

static void manifests_that_lie(void **state)
{
	static const struct { void (*spoil)(struct manifest *); const char *words; } lies[] = {
		{ bad_format, "format 2" }, { no_cpus, "processor" },
		{ delta_without_parent, "parent" }, { parent_without_delta, "parent" },
		{ delta_when_plain, "no page table" }, { no_regions, "0 regions" },
		{ other_size, "its RAM ends at" }, { odd_size, "not possible" },
		{ huge, "not possible" }, { elsewhere, "not possible" },
		{ twice_zero, "not possible" }, { high_too_large, "not possible" },
		{ key_twice, "'cpus' is there twice" }, { value_with_nul, "no text" },
	};
	struct test_ram ram;
	unsigned i;

	ram_init(&ram, SMALL, 0);
	for (i = 0; i < ARRAY_SIZE(lies); i++) {
		struct shot s = { .ram = &ram, .spoil = lies[i].spoil };

		shot_write(in_dir("lie"), &s);
		shot_refused(in_dir("lie"), 0, lies[i].words);
	}
	ram_free(&ram);
}

/* A file that claims as many notes as there are, all of them holes. */
static void notes_of_holes(void **state)
{
	struct test_ram ram;
	struct image m;
	int fd;

	make(&m, &ram, 1, 0);
	store64(m.data + 64 + 8, 4096);
	store64(m.data + 64 + 32, SNAP_NOTES_MAX + 4);
	fd = open(in_dir("holes"), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	assert_int_equal(pwrite(fd, m.data, 120, 0), 120);
	assert_int_equal(ftruncate(fd, 4096 + SNAP_NOTES_MAX + 4), 0);
	shot_refused(in_dir("holes"), 0, "are allowed");
	close(fd);
	image_free(&m);
	ram_free(&ram);
}

/* ---- Anything at all ----------------------------------------------------------------- */

/* Random changes to headers and notes, sealed: refused, or all of it can be read. */
static void mutations(void **state)
{
	const char *lots = getenv("SKEP_TEST_LONG");
	static const int levels[] = { 0, 1 };
	unsigned i, k, n, opened = 0, rounds = lots && *lots ? 100000 : 3000;
	uint64_t x = 88172645463325252;
	uint8_t *buf = malloc(RAM_CHUNK), *was;
	struct test_ram ram;
	struct skep_error e;
	struct image m;

	for (k = 0; k < ARRAY_SIZE(levels); k++) {
		make(&m, &ram, levels[k], 2);
		was = malloc(m.len);
		memcpy(was, m.data, m.len);
		for (i = 0; i < rounds / (levels[k] ? 1 : 10); i++) {
			struct snap_reader *r;

			for (n = 0; n < 1 + i % 3; n++) {
				size_t at;

				x ^= x << 13;
				x ^= x >> 7;
				x ^= x << 17;
				at = (x >> 8) % (m.notes_len + 120);
				at = at < 120 ? at : m.notes + at - 120;
				if (x & 1)
					m.data[at] ^= 1 << (x >> 1 & 7);
				else
					m.data[at] = x >> 56;
			}
			seal(&m);
			r = open_image(&m, m.len, &e);
			if (r) {
				opened++;
				snap_verify_ram(r, NULL, NULL, &e);
				memset(buf, 0, RAM_CHUNK);
				snap_load_chunk(r, 0, buf, RAM_CHUNK, &e);
				snap_close(r);
			} else {
				assert_true(strlen(e.text) > 10);
			}
			memcpy(m.data, was, 4096);
			memcpy(m.data + m.notes, was + m.notes, m.notes_len);
		}
		free(was);
		image_free(&m);
		ram_free(&ram);
	}
	assert_true(opened > 0);
	free(buf);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(every_truncation, make_dir, remove_dir),
		cmocka_unit_test_setup_teardown(every_bit_of_headers_and_notes, make_dir,
						remove_dir),
		cmocka_unit_test_setup_teardown(bits_of_ram, make_dir, remove_dir),
		cmocka_unit_test_setup_teardown(damaged_chunk, make_dir, remove_dir),
		cmocka_unit_test_setup_teardown(headers_that_lie, make_dir, remove_dir),
		cmocka_unit_test_setup_teardown(notes_that_lie, make_dir, remove_dir),
		cmocka_unit_test_setup_teardown(runs_that_lie, make_dir, remove_dir),
		cmocka_unit_test_setup_teardown(checksums_that_lie, make_dir, remove_dir),
		cmocka_unit_test_setup_teardown(manifests_that_lie, make_dir, remove_dir),
		cmocka_unit_test_setup_teardown(notes_of_holes, make_dir, remove_dir),
		cmocka_unit_test_setup_teardown(mutations, make_dir, remove_dir),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
