/*
 * Overlays: against an array that does the same, over snapshots, reverts and clones; files that are
 * damaged or hostile; the process killed, and the host's power cut, at any moment.
 */
#include "disk_helper.h"

#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <sys/wait.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "block/overlay_inside.h"

#define SIZE	(8u * MiB + 1536)	/* not a multiple of a block */
#define BLOCKS	(SIZE / OB)

static uint64_t rng = 88172645463325252ull;

static uint64_t rnd(uint64_t n)
{
	rng ^= rng << 13;
	rng ^= rng >> 7;
	rng ^= rng << 17;
	return rng % n;
}

static struct image *open_over(void **state, const char *base, const char *overlay)
{
	char b[DISK_PATH], o[DISK_PATH];
	struct image_options io = { .owner = "pci.0.3.0",
				    .path = base ? disk_path(state, base, b) : NULL,
				    .overlay = disk_path(state, overlay, o) };

	return disk_open(&io);
}

static void read_all(struct image *im, uint8_t *buf)
{
	assert_int_equal(image_get(im, 0, buf, SIZE), 0);
}

static void assert_same(struct image *im, const uint8_t *want, const char *when)
{
	uint8_t *have = malloc(SIZE);
	size_t i;

	read_all(im, have);
	if (memcmp(have, want, SIZE)) {
		for (i = 0; have[i] == want[i]; i++)
			;
		fail_msg("%s: byte %zu is %02x and not %02x", when, i, have[i], want[i]);
	}
	free(have);
}

/* One request of any kind, in pieces of any kind, to the image and to the array. */
static void one_request(struct image *im, uint8_t *model)
{
	uint64_t offset = rnd(SIZE / 512) * 512;
	uint64_t len = MIN((1 + rnd(rnd(4) ? 64 : 1024)) * 512, SIZE - offset), at = 0, i;
	uint8_t *buf = malloc(len);
	struct iovec v[8];
	unsigned n = 0;

	switch (rnd(8)) {
	case 0:
		assert_int_equal(im->ops->zero(im, offset, len, rnd(2)), 0);
		memset(model + offset, 0, len);
		break;
	case 1:
		/* What a discarded block reads as is the image's business: it is read back. */
		assert_int_equal(im->ops->discard(im, offset, len), 0);
		assert_int_equal(image_get(im, offset, model + offset, len), 0);
		break;
	case 2:
	case 3:
		assert_int_equal(image_get(im, offset, buf, len), 0);
		assert_memory_equal(buf, model + offset, len);
		break;
	default:
		for (i = 0; i < len; i++)
			buf[i] = (uint8_t)rnd(256);
		for (; at < len; n++) {
			uint64_t part = n == 7 ? len - at : MIN(1 + rnd(20000), len - at);

			v[n] = (struct iovec){ buf + at, part };
			at += part;
		}
		assert_int_equal(im->ops->write(im, v, n, offset), 0);
		memcpy(model + offset, buf, len);
	}
	free(buf);
}

static void id_of(uint8_t id[IMAGE_ID_SIZE], unsigned n)
{
	memset(id, 0, IMAGE_ID_SIZE);
	store32(id, n + 1);
}

static void test_model(void **state)
{
	char path[DISK_PATH];
	uint8_t *model = malloc(SIZE), *saved[8] = { NULL }, id[IMAGE_ID_SIZE];
	struct skep_error e = { "" };
	struct image *im;
	unsigned i, k;

	disk_make(disk_path(state, "base", path), SIZE);
	im = open_over(state, "base", "ov");
	read_all(im, model);
	assert_int_equal(load64(model + 512), 2);
	for (i = 0; i < 4000; i++) {
		one_request(im, model);
		k = (unsigned)rnd(8);
		switch (rnd(60)) {
		case 0:
			assert_int_equal(im->ops->flush(im), 0);
			break;
		case 1:
			image_close(im);
			im = open_over(state, rnd(2) ? "base" : NULL, "ov");
			assert_same(im, model, "opened again");
			break;
		case 2:
			if (saved[k])
				break;
			saved[k] = malloc(SIZE);
			memcpy(saved[k], model, SIZE);
			id_of(id, k);
			assert_int_equal(overlay_take(im, id, "label", &e), 0);
			break;
		case 3:
			id_of(id, k);
			assert_int_equal(overlay_drop(im, id, &e), saved[k] ? 0 : -ENOENT);
			free(saved[k]);
			saved[k] = NULL;
			break;
		case 4:
			id_of(id, k);
			assert_int_equal(im->ops->flush(im), 0);
			assert_int_equal(overlay_revert(im, id, &e), saved[k] ? 0 : -ENOENT);
			if (!saved[k])
				break;
			assert_same(im, saved[k], "reverted");
			if (rnd(2)) {
				memcpy(model, saved[k], SIZE);
				assert_int_equal(im->ops->flush(im), 0);
				break;
			}
			/* Nobody wrote: the disk is as it was before. */
			image_close(im);
			im = open_over(state, NULL, "ov");
			assert_same(im, model, "taken back for nothing");
			break;
		}
	}
	assert_same(im, model, "at the end");
	for (k = 0; k < 8; k++) {
		struct image_options io = { .owner = "x", .overlay = disk_path(state, "ov", path),
					    .snapshot = id };
		struct image *view;

		if (!saved[k])
			continue;
		id_of(id, k);
		assert_int_equal(im->ops->flush(im), 0);
		view = disk_open(&io);
		assert_same(view, saved[k], "a view of a snapshot");
		assert_int_equal(overlay_drop(im, id, &e), -EBUSY);
		image_close(view);
		assert_int_equal(overlay_drop(im, id, &e), 0);
		free(saved[k]);
	}
	image_close(im);
	/* Nothing was lost in it: what is not in use can be. */
	struct stat st;
	assert_int_equal(stat(path, &st), 0);
	assert_true((uint64_t)st.st_size < 10 * SIZE);
	free(model);
}

static void test_clone(void **state)
{
	char path[DISK_PATH], clone[DISK_PATH];
	uint8_t id[IMAGE_ID_SIZE] = { 7 }, *model = malloc(SIZE), *then = malloc(SIZE);
	struct skep_error e = { "" };
	struct image_options io = { .owner = "x", .overlay = disk_path(state, "clone", clone), .fresh = true,
				    .from = path, .from_snapshot = id };
	struct image *im, *c;
	unsigned i;

	disk_make(disk_path(state, "base", path), SIZE);
	im = open_over(state, "base", "ov");
	read_all(im, model);
	for (i = 0; i < 300; i++)
		one_request(im, model);
	memcpy(then, model, SIZE);
	assert_int_equal(overlay_take(im, id, "s", &e), 0);
	assert_int_equal(im->ops->flush(im), 0);
	disk_path(state, "ov", path);
	c = disk_open(&io);
	/* Both go their own way; the original has its file open meanwhile. */
	for (i = 0; i < 300; i++) {
		one_request(im, model);
		one_request(c, then);
	}
	assert_same(im, model, "the original");
	assert_same(c, then, "the clone");
	assert_int_equal(overlay_drop(im, id, &e), -EBUSY);
	image_close(c);
	/* It is there already: nothing that is restored may lie over it. */
	assert_null(image_open(&io, &e));
	assert_non_null(strstr(e.text, "there already"));
	c = open_over(state, NULL, "clone");
	assert_same(c, then, "the clone, opened again");
	image_close(c);
	assert_int_equal(overlay_drop(im, id, &e), 0);
	image_close(im);
	io = (struct image_options){ .owner = "x", .overlay = clone };
	assert_null(image_open(&io, &e));
	assert_non_null(strstr(e.text, "no such snapshot"));
	free(model);
	free(then);
}

static void test_identity(void **state)
{
	char path[DISK_PATH], buf[512] = "x";
	struct image_identity a, b;
	struct skep_error e = { "" };
	struct image_options io = { .owner = "x", .overlay = path };
	struct image *im;
	int fd;

	disk_make(disk_path(state, "base", path), SIZE);
	im = open_over(state, "base", "ov");
	assert_int_equal(im->ops->identify(im, &a, &e), 0);
	image_close(im);
	im = open_over(state, "base", "ov");
	assert_int_equal(im->ops->identify(im, &b, &e), 0);
	assert_int_equal(image_compare(&a, &b, &e), 0);
	/* A write shows even if nobody closes or flushes after it. */
	assert_int_equal(image_put(im, 0, buf, 512), 0);
	disk_path(state, "ov", path);
	fd = open(path, O_RDONLY);
	struct overlay_super s[2];
	assert_int_equal(pread(fd, s, sizeof(s), 0), sizeof(s));
	close(fd);
	assert_int_not_equal(MAX(s[0].sequence, s[1].sequence), b.sequence);
	assert_int_equal(im->ops->identify(im, &a, &e), 0);
	assert_int_equal(image_compare(&a, &b, &e), -ESTALE);
	assert_int_equal(image_put(im, 0, buf, 512), 0);
	image_close(im);
	/* The disk below changes: the two are no pair any more. */
	fd = open(disk_path(state, "base", path), O_WRONLY);
	assert_int_equal(pwrite(fd, "y", 1, 4096), 1);
	close(fd);
	disk_path(state, "ov", path);
	assert_null(image_open(&io, &e));
	assert_non_null(strstr(e.text, "written to since"));
}

/* Every byte of what leads to data, changed: refused, or the same disk, and never a crash. */
static void test_hostile(void **state)
{
	char path[DISK_PATH], base[DISK_PATH];
	uint8_t *model = malloc(SIZE), id[IMAGE_ID_SIZE] = { 1 }, *file, *bad;
	struct skep_error e = { "" };
	struct image_options io = { .owner = "x", .path = base, .overlay = path };
	struct image *im;
	struct stat st;
	unsigned i, refused = 0;
	int fd;

	disk_make(disk_path(state, "base", base), SIZE);
	im = open_over(state, "base", "ov");
	read_all(im, model);
	for (i = 0; i < 50; i++)
		one_request(im, model);
	assert_int_equal(overlay_take(im, id, "label", &e), 0);
	for (i = 0; i < 20; i++)
		one_request(im, model);
	image_close(im);
	fd = open(disk_path(state, "ov", path), O_RDWR);
	assert_int_equal(fstat(fd, &st), 0);
	file = malloc((size_t)st.st_size);
	bad = malloc(SIZE);
	assert_int_equal(pread(fd, file, (size_t)st.st_size, 0), st.st_size);
	for (i = 0; i < 1500; i++) {
		/* Also with the sums right: superblocks and the base's, where a file says how large it is. */
		uint64_t at = i < 1000 ? rnd(3) * OB + rnd(14) * 8 : rnd((uint64_t)st.st_size / 8) * 8;
		uint64_t block = at / OB * OB, value = rnd(3) ? rnd(1 << rnd(20)) : rnd(UINT64_MAX);
		uint8_t copy[OB];

		if (at + 8 > (uint64_t)st.st_size || block + OB > (uint64_t)st.st_size)
			continue;
		memcpy(copy, file + block, OB);
		store64(copy + at % OB, value);
		if (at < 3 * OB)
			store64(copy + OB - 8, XXH3_64bits(copy, OB - 8));
		assert_int_equal(pwrite(fd, copy, OB, (off_t)block), OB);
		/* The other superblock must not help. */
		if (block < 2 * OB)
			assert_int_equal(pwrite(fd, bad, OB, (off_t)(OB - block)), OB);
		e.text[0] = '\0';
		im = image_open(&io, &e);
		if (im && im->size == SIZE) {
			image_get(im, 0, bad, SIZE);
			image_put(im, 4096, file, 8192);
			im->ops->flush(im);
			overlay_revert(im, id, &e);
			overlay_drop(im, id, &e);
		}
		refused += !im;
		if (!im)
			assert_true(e.text[0]);
		image_close(im);
		assert_int_equal(ftruncate(fd, st.st_size), 0);
		assert_int_equal(pwrite(fd, file, (size_t)st.st_size, 0), st.st_size);
	}
	assert_true(refused > 100);
	/* Truncated anywhere. */
	for (i = 0; i < 100; i++) {
		off_t len = (off_t)rnd((uint64_t)st.st_size);

		assert_int_equal(ftruncate(fd, len), 0);
		im = image_open(&io, &e);
		if (im)
			image_get(im, 0, bad, SIZE);
		image_close(im);
		if (len)
			assert_null(im);
		fd = (close(fd), open(path, O_RDWR | O_CREAT, 0600));
		assert_int_equal(pwrite(fd, file, (size_t)st.st_size, 0), st.st_size);
		assert_int_equal(ftruncate(fd, st.st_size), 0);
	}
	close(fd);
	free(file);
	free(bad);
	free(model);
}

/* ---- The end comes at any moment --------------------------------------------- */

#define CELLS	256u

struct shared {
	_Atomic uint32_t flushed[CELLS], written[CELLS];
	_Atomic uint32_t snapshot[CELLS];
	_Atomic bool has_snapshot;
};

/* Writes version after version to cells of any place, and says what was flushed. */
static void write_for_ever(void **state, struct shared *s)
{
	struct image *im = open_over(state, "base", "ov");
	uint32_t pending[CELLS] = { 0 };
	uint8_t buf[OB], id[IMAGE_ID_SIZE];
	struct skep_error e;
	unsigned i, k;

	for (i = 1; ; i++) {
		k = (unsigned)rnd(CELLS);
		pending[k] = s->written[k] + 1;
		memset(buf, 0, sizeof(buf));
		store32(buf, pending[k]);
		store32(buf + 508, k);
		atomic_store(&s->written[k], pending[k]);
		if (image_put(im, (uint64_t)k * 32768 + 512 * (k % 8), buf, k % 3 ? 512 : 4096))
			_exit(1);
		if (!rnd(10)) {
			if (im->ops->flush(im))
				_exit(1);
			for (k = 0; k < CELLS; k++)
				atomic_store(&s->flushed[k], MAX(s->flushed[k], pending[k]));
		}
		if (!rnd(40)) {
			id_of(id, i);
			if (overlay_take(im, id, "moment", &e) || im->ops->flush(im))
				_exit(1);
			for (k = 0; k < CELLS; k++)
				atomic_store(&s->flushed[k], MAX(s->flushed[k], pending[k]));
			overlay_drop_label(im, "moment", id);
		}
	}
}

static void check_cells(void **state, struct shared *s)
{
	struct image *im = open_over(state, NULL, "ov");
	uint8_t buf[512];
	unsigned k;

	for (k = 0; k < CELLS; k++) {
		uint32_t have;

		assert_int_equal(image_get(im, (uint64_t)k * 32768 + 512 * (k % 8), buf, 512), 0);
		have = load32(buf);
		if (!s->written[k])
			continue;
		if (have < s->flushed[k] && s->flushed[k])
			fail_msg("cell %u: version %u, and %u was flushed", k, have, s->flushed[k]);
		if (have > s->written[k] && load32(buf + 508) == k)
			fail_msg("cell %u: version %u was never written", k, have);
	}
	image_close(im);
}

static void test_kill(void **state)
{
	struct shared *s = mmap(NULL, sizeof(*s), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1,
				0);
	unsigned rounds = getenv("SKEP_TEST_LONG") ? 300 : 20;
	char path[DISK_PATH];
	int fd = open(disk_path(state, "base", path), O_RDWR | O_CREAT, 0600);

	assert_int_equal(ftruncate(fd, CELLS * 32768), 0);
	close(fd);
	while (rounds--) {
		pid_t pid = fork();
		int status;

		if (!pid)
			write_for_ever(state, s);
		usleep(10000 + (useconds_t)rnd(40000));
		kill(pid, SIGKILL);
		waitpid(pid, &status, 0);
		assert_true(WIFSIGNALED(status));
		rnd(7);
		check_cells(state, s);
	}
	munmap(s, sizeof(*s));
}

/*
 * The power is cut: of what was written since the last fdatasync any part may be there, and any may
 * not.  The writes of the overlay's file are recorded, and the file is made again without some of them.
 */
struct record {
	uint64_t offset;
	uint32_t len;
	uint8_t *data;
};

static struct {
	int fd;
	struct record *r;
	size_t n, synced;
} tape = { .fd = -1 };

ssize_t __real_pwritev64(int fd, const struct iovec *iov, int n, off_t offset);
int __real_fdatasync(int fd);

ssize_t __wrap_pwritev64(int fd, const struct iovec *iov, int n, off_t offset);
ssize_t __wrap_pwritev64(int fd, const struct iovec *iov, int n, off_t offset)
{
	if (fd == tape.fd) {
		struct record *r;

		tape.r = realloc(tape.r, (tape.n + 1) * sizeof(*tape.r));
		r = &tape.r[tape.n++];
		*r = (struct record){ (uint64_t)offset, (uint32_t)iov_length(iov, (unsigned)n), NULL };
		r->data = malloc(r->len);
		iov_gather(r->data, iov, (unsigned)n, r->len);
	}
	return __real_pwritev64(fd, iov, n, offset);
}

int __wrap_fdatasync(int fd);
int __wrap_fdatasync(int fd)
{
	int err = __real_fdatasync(fd);

	if (fd == tape.fd)
		tape.synced = tape.n;
	return err;
}

static void cut_power(void **state, const uint8_t *start, size_t start_len, const char *name)
{
	char path[DISK_PATH];
	int fd = open(disk_path(state, name, path), O_RDWR | O_CREAT | O_TRUNC, 0600);
	size_t i, sector;

	assert_int_equal(pwrite(fd, start, start_len, 0), (ssize_t)start_len);
	for (i = 0; i < tape.n; i++) {
		const struct record *r = &tape.r[i];

		/* Blocks of the disk go one by one. */
		for (sector = 0; sector < r->len; sector += 512)
			if (i < tape.synced || rnd(2))
				assert_int_equal(pwrite(fd, r->data + sector, MIN(512u, r->len - sector),
							(off_t)(r->offset + sector)),
						 MIN(512u, r->len - sector));
	}
	/* The size of a file is metadata that a write moves on with the data or not. */
	close(fd);
}

static void test_power(void **state)
{
	char path[DISK_PATH], over[DISK_PATH];
	uint8_t id[IMAGE_ID_SIZE], buf[OB], *start;
	uint32_t flushed[CELLS] = { 0 }, written[CELLS] = { 0 };
	struct skep_error e;
	struct image *im;
	struct stat st;
	unsigned round, i, k;
	int fd = open(disk_path(state, "base", path), O_RDWR | O_CREAT, 0600);

	assert_int_equal(ftruncate(fd, CELLS * 32768), 0);
	close(fd);
	image_close(open_over(state, "base", "ov"));
	for (round = 0; round < 40; round++) {
		struct image_options io = { .owner = "x", .overlay = over };

		fd = open(disk_path(state, "ov", path), O_RDONLY);
		assert_int_equal(fstat(fd, &st), 0);
		start = malloc((size_t)st.st_size);
		assert_int_equal(pread(fd, start, (size_t)st.st_size, 0), st.st_size);
		close(fd);
		im = open_over(state, "base", "ov");
		tape.fd = overlay_of(im)->fd;
		for (i = 0; i < 1 + rnd(120); i++) {
			k = (unsigned)rnd(CELLS);
			memset(buf, 0, sizeof(buf));
			store32(buf, ++written[k]);
			assert_int_equal(image_put(im, (uint64_t)k * 32768, buf, k % 3 ? 512 : 4096), 0);
			if (!rnd(15)) {
				assert_int_equal(im->ops->flush(im), 0);
				memcpy(flushed, written, sizeof(flushed));
			}
			if (!rnd(30)) {
				id_of(id, round * 1000 + i);
				assert_int_equal(overlay_take(im, id, "x", &e), 0);
				assert_int_equal(im->ops->flush(im), 0);
				memcpy(flushed, written, sizeof(flushed));
				overlay_drop_label(im, "x", id);
			}
		}
		cut_power(state, start, (size_t)st.st_size, "cut");
		tape.fd = -1;
		image_close(im);
		disk_path(state, "cut", over);
		im = disk_open(&io);
		for (k = 0; k < CELLS; k++) {
			assert_int_equal(image_get(im, (uint64_t)k * 32768, buf, 512), 0);
			if (load32(buf) < flushed[k] || load32(buf) > written[k])
				fail_msg("round %u, cell %u: version %u, flushed %u, written %u", round, k,
					 load32(buf), flushed[k], written[k]);
			/* It goes on with what the disk had after all. */
		}
		image_close(im);
		memcpy(flushed, written, sizeof(flushed));
		for (i = 0; i < tape.n; i++)
			free(tape.r[i].data);
		free(tape.r);
		tape.r = NULL;
		tape.n = tape.synced = 0;
		free(start);
	}
}

static void test_full(void **state)
{
	char path[DISK_PATH];
	struct skep_error e = { "" };
	uint8_t id[IMAGE_ID_SIZE];
	struct image *im;
	unsigned i;

	disk_make(disk_path(state, "base", path), SIZE);
	im = open_over(state, "base", "ov");
	for (i = 0; i < OVERLAY_SNAPSHOTS_MAX; i++) {
		id_of(id, i);
		assert_int_equal(overlay_take(im, id, "/a/very/long/path/to/somewhere", &e), 0);
	}
	id_of(id, i);
	assert_int_equal(overlay_take(im, id, "x", &e), -EMFILE);
	assert_non_null(strstr(e.text, "save over"));
	image_close(im);
	im = open_over(state, "base", "ov");
	assert_int_equal(overlay_count(im), OVERLAY_SNAPSHOTS_MAX);
	overlay_drop_label(im, "/a/very/long/path/to/somewhere", id);
	assert_int_equal(overlay_count(im), 0);
	assert_int_equal(overlay_grow(im, 2 * SIZE, &e), 0);
	image_close(im);
	im = open_over(state, "base", "ov");
	assert_true(im->size > SIZE);
	uint8_t sector[512] = { 1, 2 }, back[512];
	assert_int_equal(image_get(im, im->size - 512, back, 512), 0);
	assert_int_equal(back[0], 0);
	assert_int_equal(image_put(im, im->size - 512, sector, 512), 0);
	assert_int_equal(image_get(im, im->size - 512, back, 512), 0);
	assert_memory_equal(back, sector, 512);
	image_close(im);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, disk_dir_setup, disk_dir_teardown)
	const struct CMUnitTest tests[] = {
		T(test_model), T(test_clone), T(test_identity), T(test_hostile), T(test_kill), T(test_power),
		T(test_full),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
