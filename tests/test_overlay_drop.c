/*
 * Snapshots of an overlay given up while others use it: a commit under way, a reader, a map that the
 * host cannot read; and what an overlay may lie over.
 */
#include "disk_helper.h"

#include <errno.h>
#include <pthread.h>
#include <sys/resource.h>
#include <time.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "block/overlay_inside.h"

#define SIZE	(4u * MiB)

/* What happens in the middle of the next commit. */
static void (*in_sync)(void);
static bool sync_fails;

int __real_fdatasync(int fd);
int __wrap_fdatasync(int fd);
int __wrap_fdatasync(int fd)
{
	void (*f)(void) = in_sync;

	in_sync = NULL;
	if (f)
		f();
	if (sync_fails) {
		sync_fails = false;
		errno = EIO;
		return -1;
	}
	return __real_fdatasync(fd);
}

static struct image_options options(void **state, const char *base, char buf[2][DISK_PATH])
{
	return (struct image_options){ .owner = "pci.0.3.0",
				       .path = base ? disk_path(state, base, buf[0]) : NULL,
				       .overlay = disk_path(state, "ov", buf[1]) };
}

static struct image *open_ov(void **state, const char *base)
{
	char buf[2][DISK_PATH];
	struct image_options io = options(state, base, buf);

	return disk_open(&io);
}

static void id_of(uint8_t id[IMAGE_ID_SIZE], unsigned n)
{
	memset(id, 0, IMAGE_ID_SIZE);
	store32(id, n + 1);
}

static void put(struct image *im, uint64_t block, uint8_t with)
{
	uint8_t buf[OB];

	memset(buf, with, sizeof(buf));
	assert_int_equal(image_put(im, block * OB, buf, OB), 0);
}

static void assert_block(struct image *im, uint64_t block, uint8_t with)
{
	uint8_t buf[OB], want[OB];

	memset(want, with, sizeof(want));
	assert_int_equal(image_get(im, block * OB, buf, OB), 0);
	assert_memory_equal(buf, want, OB);
}

static void take(struct image *im, unsigned n)
{
	struct skep_error e = { "" };
	uint8_t id[IMAGE_ID_SIZE];

	id_of(id, n);
	assert_int_equal(overlay_take(im, id, "s", &e), 0);
	assert_int_equal(im->ops->flush(im), 0);
}

/* A disk with blocks 0 to 99, all of which two snapshots have as they were. */
static struct image *two_snapshots(void **state)
{
	char path[DISK_PATH];
	struct image *im;
	unsigned n, i;

	disk_make(disk_path(state, "base", path), SIZE);
	im = open_ov(state, "base");
	for (n = 0; n < 3; n++) {
		for (i = 0; i < 100; i++)
			put(im, i, (uint8_t)(10 * (n + 1)));
		if (n < 2)
			take(im, n);
	}
	assert_int_equal(im->ops->flush(im), 0);
	return im;
}

/* ---- A drop in the middle of a commit ----------------------------------------- */

static struct image *the_image;
static pthread_t dropper;

static void *drop_first(void *opaque)
{
	struct skep_error e = { "" };
	uint8_t id[IMAGE_ID_SIZE];

	id_of(id, 0);
	overlay_drop(the_image, id, &e);
	return NULL;
}

static void drop_meanwhile(void)
{
	struct timespec t = { .tv_nsec = 1000000 };

	assert_int_equal(pthread_create(&dropper, NULL, drop_first, NULL), 0);
	while (overlay_count(the_image) > 1)
		nanosleep(&t, NULL);
}

static void test_drop_in_commit(void **state)
{
	struct image *im = the_image = two_snapshots(state);
	unsigned i;

	put(im, 200, 1);
	in_sync = drop_meanwhile;
	assert_int_equal(im->ops->flush(im), 0);
	pthread_join(dropper, NULL);
	/* What was free is used again. */
	for (i = 300; i < 700; i++)
		put(im, i, 7);
	assert_int_equal(im->ops->flush(im), 0);
	image_close(im);
	im = open_ov(state, NULL);
	assert_int_equal(overlay_count(im), 1);
	assert_block(im, 5, 30);
	assert_block(im, 200, 1);
	image_close(im);
}

/* ---- A reader in the middle of a drop ------------------------------------------ */

static struct image_options reader;
static bool reader_came_in;

static void read_meanwhile(void)
{
	struct skep_error e = { "" };
	struct image *im = image_open(&reader, &e);

	reader_came_in = im;
	image_close(im);
}

static void test_reader_in_drop(void **state)
{
	struct image *im = two_snapshots(state);
	char buf[2][DISK_PATH];
	struct skep_error e = { "" };
	uint8_t id[IMAGE_ID_SIZE];

	id_of(id, 0);
	reader = options(state, NULL, buf);
	reader.read_only = true;
	reader.snapshot = id;
	read_meanwhile();
	assert_true(reader_came_in);
	in_sync = read_meanwhile;
	assert_int_equal(overlay_drop(im, id, &e), 0);
	assert_false(reader_came_in);
	/* The lock was for that time only. */
	id_of(id, 1);
	read_meanwhile();
	assert_true(reader_came_in);
	assert_int_equal(overlay_drop(im, id, &e), 0);
	image_close(im);
}

/* ---- A map that cannot be read while free space is looked for -------------------- */

static void test_damage_in_drop(void **state)
{
	struct image *im = two_snapshots(state);
	char path[DISK_PATH];
	int fd = open(disk_path(state, "ov", path), O_RDWR);
	struct skep_error e = { "" };
	uint8_t id[IMAGE_ID_SIZE];
	struct overlay *o = overlay_of(im);
	unsigned i;

	/* It is in memory, so that nobody needs it but who counts what is in use. */
	assert_block(im, 5, 30);
	assert_int_equal(pwrite(fd, "damage", 6, (off_t)(o->super.root.block * OB)), 6);
	close(fd);
	id_of(id, 0);
	assert_int_not_equal(overlay_drop(im, id, &e), 0);
	for (i = 300; i < 700; i++)
		put(im, i, 7);
	for (i = 0; i < 100; i++)
		assert_block(im, i, 30);
	image_close(im);
}

/* A drop whose sync fails may have lost what the guest wrote; its own flush, later, must not say otherwise. */
static void test_sync_fails_in_drop(void **state)
{
	struct image *im = two_snapshots(state);
	struct skep_error e = { "" };
	uint8_t id[IMAGE_ID_SIZE];

	put(im, 7, 1);
	sync_fails = true;
	id_of(id, 0);
	assert_int_not_equal(overlay_drop(im, id, &e), 0);
	assert_int_equal(im->ops->flush(im), -EIO);
	image_close(im);
}

/* ---- What is written with sync is there ------------------------------------------- */

static void test_sync(void **state)
{
	char buf[2][DISK_PATH], path[DISK_PATH], command[3 * DISK_PATH];
	struct image_options io;
	struct image *im, *copy;

	disk_make(disk_path(state, "base", path), SIZE);
	io = options(state, "base", buf);
	io.sync = true;
	im = disk_open(&io);
	put(im, 3, 9);
	assert_int_equal(im->ops->zero(im, 8 * OB, OB, false), 0);
	disk_path(state, "copy", path);
	snprintf(command, sizeof(command), "cp %s %s", buf[1], path);
	assert_int_equal(system(command), 0);
	io.overlay = path;
	io.path = NULL;
	io.sync = false;
	copy = disk_open(&io);
	assert_block(copy, 3, 9);
	assert_block(copy, 8, 0);
	image_close(copy);
	image_close(im);
}

/* ---- An overlay that lies over itself ---------------------------------------------- */

static void test_over_itself(void **state)
{
	struct rlimit files, was;
	struct overlay_base about;
	char buf[2][DISK_PATH];
	struct image_options io = options(state, NULL, buf);
	struct skep_error e = { "" };
	struct image *im = two_snapshots(state);
	int fd;

	image_close(im);
	fd = open(buf[1], O_RDWR);
	assert_int_equal(pread(fd, &about, sizeof(about), 2 * OB), sizeof(about));
	about.has_snapshot = 1;
	about.kind = IMAGE_OVERLAY;
	id_of(about.snapshot, 1);
	snprintf(about.path, sizeof(about.path), "%s", buf[1]);
	about.sum = XXH3_64bits(&about, OB - 8);
	assert_int_equal(pwrite(fd, &about, sizeof(about), 2 * OB), sizeof(about));
	close(fd);
	getrlimit(RLIMIT_NOFILE, &was);
	files = was;
	files.rlim_cur = files.rlim_max;
	setrlimit(RLIMIT_NOFILE, &files);
	assert_null(image_open(&io, &e));
	assert_non_null(strstr(e.text, "one over the other"));
	setrlimit(RLIMIT_NOFILE, &was);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, disk_dir_setup, disk_dir_teardown)
	const struct CMUnitTest tests[] = {
		T(test_drop_in_commit), T(test_reader_in_drop), T(test_damage_in_drop),
		T(test_sync_fails_in_drop), T(test_sync),
		T(test_over_itself),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
