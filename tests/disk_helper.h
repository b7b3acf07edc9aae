/* Disks for tests: files in a directory that goes away with the test. */
#ifndef SKEP_TESTS_DISK_HELPER_H
#define SKEP_TESTS_DISK_HELPER_H

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/util.h"
#include "block/block.h"
#include "block/overlay.h"

#define DISK_PATH 300

struct disk_dir {
	char path[64];
};

static inline int disk_dir_setup(void **state)
{
	struct disk_dir *d = calloc(1, sizeof(*d));

	/* Memory, where there is such a directory: many tests sync after each write. */
	strcpy(d->path, access("/dev/shm", W_OK) ? "/tmp/skep-disk-XXXXXX" : "/dev/shm/skep-disk-XXXXXX");
	assert_non_null(mkdtemp(d->path));
	*state = d;
	return 0;
}

static inline int disk_dir_teardown(void **state)
{
	struct disk_dir *d = *state;
	char command[128];

	snprintf(command, sizeof(command), "rm -rf %s", d->path);
	if (system(command))
		return -1;
	free(d);
	return 0;
}

static inline const char *disk_path(void **state, const char *name, char buf[DISK_PATH])
{
	snprintf(buf, DISK_PATH, "%s/%s", ((struct disk_dir *)*state)->path, name);
	return buf;
}

/* A file of size bytes, each sector of which begins with its number. */
static inline void disk_make(const char *path, uint64_t size)
{
	int fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
	uint64_t at;

	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, (off_t)size), 0);
	for (at = 0; at < size; at += 512) {
		uint64_t n = at / 512 + 1;

		assert_int_equal(pwrite(fd, &n, sizeof(n), (off_t)at), sizeof(n));
	}
	close(fd);
}

static inline struct image *disk_open(const struct image_options *o)
{
	struct skep_error e = { "" };
	struct image *im = image_open(o, &e);

	if (!im)
		fail_msg("%s", e.text);
	return im;
}

static inline int image_get(struct image *im, uint64_t offset, void *buf, size_t len)
{
	struct iovec v = { buf, len };

	return im->ops->read(im, &v, 1, offset);
}

static inline int image_put(struct image *im, uint64_t offset, const void *buf, size_t len)
{
	struct iovec v = { (void *)buf, len };

	return im->ops->write(im, &v, 1, offset);
}

#endif
