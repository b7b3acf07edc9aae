#include "boot/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/util.h"

static int slurp(struct boot_file *f, int fd, uint64_t limit, struct skep_error *e)
{
	size_t cap = 0;

	for (;;) {
		ssize_t n;

		if (f->size == cap) {
			uint8_t *data = realloc(f->data, cap ? 2 * cap : 1 * MiB);

			if (!data)
				return skep_fail(e, ENOMEM, "%s: no memory left to read '%s'", f->key,
						 f->path);
			f->data = data;
			cap = cap ? 2 * cap : 1 * MiB;
		}
		n = read(fd, f->data + f->size, cap - f->size);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return skep_fail(e, errno, "%s: cannot read '%s': %s", f->key, f->path,
					 strerror(errno));
		if (!n)
			return 0;
		f->size += n;
		if (f->size > limit)
			return skep_fail(e, EFBIG,
					 "%s: '%s' gives more than the %llu MiB that fit into the "
					 "machine: raise memory.size", f->key, f->path,
					 (unsigned long long)(limit / MiB));
	}
}

int boot_file_open(struct boot_file *f, const char *key, const char *path, uint64_t limit,
		   struct skep_error *e)
{
	struct stat st;
	int fd, r = 0;

	*f = (struct boot_file){ .key = key, .fd = -1, .path = strdup(path) };
	if (!f->path)
		return skep_fail(e, ENOMEM, "%s: no memory left", key);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &st) < 0) {
		r = skep_fail(e, errno, "%s: cannot open '%s': %s", key, path, strerror(errno));
	} else if (S_ISDIR(st.st_mode)) {
		r = skep_fail(e, EISDIR, "%s: '%s' is a directory: name a file in it", key, path);
	} else if (S_ISREG(st.st_mode)) {
		f->size = st.st_size;
		f->fd = fd;
	} else {
		r = slurp(f, fd, limit, e);
	}
	if (fd >= 0 && f->fd != fd)
		close(fd);
	if (r)
		boot_file_close(f);
	return r;
}

int boot_file_borrow(struct boot_file *f, const char *key, const char *path,
		     const uint8_t *data, size_t size, struct skep_error *e)
{
	*f = (struct boot_file){ .key = key, .fd = -1, .path = strdup(path) };
	if (!f->path)
		return skep_fail(e, ENOMEM, "%s: no memory left", key);
	f->data = (uint8_t *)data;
	f->size = size;
	f->borrowed = true;
	return 0;
}

void boot_file_close(struct boot_file *f)
{
	if (f->path && f->fd >= 0)
		close(f->fd);
	if (!f->borrowed)
		free(f->data);
	free(f->path);
	*f = (struct boot_file){ .fd = -1 };
}

int boot_file_read(const struct boot_file *f, uint64_t offset, void *buf, size_t len,
		   struct skep_error *e)
{
	size_t done = 0;

	if (offset > f->size || len > f->size - offset)
		return skep_fail(e, ENOEXEC, "%s: '%s' is truncated: it ends at byte %llu, and its "
				 "headers promise %llu: fetch it again", f->key, f->path,
				 (unsigned long long)f->size, (unsigned long long)(offset + len));
	if (f->fd < 0) {
		memcpy(buf, f->data + offset, len);
		return 0;
	}
	while (done < len) {
		ssize_t n = pread(f->fd, (char *)buf + done, len - done, offset + done);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return skep_fail(e, errno, "%s: cannot read '%s': %s", f->key, f->path,
					 strerror(errno));
		if (!n)
			return skep_fail(e, EIO, "%s: '%s' became shorter while the machine runs: "
					 "put the file back", f->key, f->path);
		done += n;
	}
	return 0;
}
