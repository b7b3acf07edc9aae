/*
 * Who may open a disk.  A writer locks all of the file, and so excludes other writers, readers,
 * and QEMU and its tools, which lock single bytes from 100 and 200 on.  A reader shares with
 * readers, ours and QEMU's, and excludes writers.  The locks belong to the open file (F_OFD_SETLK):
 * two disks of one process exclude each other as well.
 */
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/say.h"
#include "base/text.h"
#include "block/image.h"

#define READER_BYTES	100	/* 0 to 99: readers of ours */
#define QEMU_NO_WRITE	201	/* QEMU: somebody wants nobody to write ... */
#define QEMU_NO_RESIZE	203	/* ... or to resize */

static int set_lock(int fd, short type, off_t start, off_t len)
{
	struct flock l = { .l_type = type, .l_whence = SEEK_SET, .l_start = start, .l_len = len };

	return fcntl(fd, F_OFD_SETLK, &l) < 0 ? -errno : 0;
}

/* Has this process, as /proc shows it, the file open? */
static bool process_has(const char *pid, const struct stat *st)
{
	char path[300];
	struct dirent *d;
	bool found = false;
	DIR *dir;

	snprintf(path, sizeof(path), "/proc/%s/fd", pid);
	dir = opendir(path);
	while (dir && !found && (d = readdir(dir))) {
		struct stat other;

		if (d->d_name[0] == '.' || fstatat(dirfd(dir), d->d_name, &other, 0) < 0)
			continue;
		found = other.st_dev == st->st_dev && other.st_ino == st->st_ino;
	}
	if (dir)
		closedir(dir);
	return found;
}

/* Writes "process 123 (skep run vm1)", or nothing that helps. */
static void name_process(const char *pid, char *buf, size_t size)
{
	char path[300], line[120] = "", shown[sizeof(line)];
	size_t n = 0, i;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%s/cmdline", pid);
	f = fopen(path, "re");
	if (f) {
		n = fread(line, 1, sizeof(line) - 1, f);
		fclose(f);
	}
	while (n && !line[n - 1])
		n--;
	for (i = 0; i < n; i++)
		if (!line[i])
			line[i] = ' ';
	snprintf(buf, size, "process %.16s (%s)", pid, text_escape(shown, sizeof(shown), line, n, 0));
}

static void find_holder(int fd, char *buf, size_t size)
{
	DIR *proc = opendir("/proc");
	char self[16];
	struct dirent *d;
	struct stat st;

	snprintf(buf, size, "somebody else");
	snprintf(self, sizeof(self), "%d", (int)getpid());
	if (!proc || fstat(fd, &st) < 0) {
		if (proc)
			closedir(proc);
		return;
	}
	while ((d = readdir(proc))) {
		if (!isdigit((unsigned char)d->d_name[0]) || !strcmp(d->d_name, self) ||
		    !process_has(d->d_name, &st))
			continue;
		name_process(d->d_name, buf, size);
		break;
	}
	closedir(proc);
}

/* Far beyond any byte of a file, and not part of what a writer locks. */
#define PARTS		((off_t)1 << 61)

int image_lock_part(int fd, uint64_t part, bool write)
{
	return set_lock(fd, write ? F_WRLCK : F_RDLCK, PARTS + (off_t)(part & UINT32_MAX), 1);
}

void image_unlock_parts(int fd)
{
	set_lock(fd, F_UNLCK, PARTS, (off_t)UINT32_MAX + 1);
}

static int take(int fd, bool write)
{
	int err;

	if (write)
		return set_lock(fd, F_WRLCK, 0, PARTS);
	err = set_lock(fd, F_RDLCK, 0, READER_BYTES);
	if (!err)
		err = set_lock(fd, F_RDLCK, QEMU_NO_WRITE, 1);
	if (!err)
		err = set_lock(fd, F_RDLCK, QEMU_NO_RESIZE, 1);
	return err;
}

int image_lock(int fd, const char *owner, const char *path, bool write, struct skep_error *e)
{
	int err = take(fd, write);
	char who[200];

	if (!err)
		return 0;
	if (err != -EAGAIN && err != -EACCES) {
		skep_say("skep: %s: %s cannot be locked (%s): take care that nobody else %s it\n", owner,
			 path, strerror(-err), write ? "uses" : "writes to");
		return 0;
	}
	find_holder(fd, who, sizeof(who));
	return skep_fail(e, EBUSY, "%s: %s is in use by %s; a disk that one machine writes to cannot be "
			 "another's%s", owner, path, who,
			 write ? ": give this one an overlay= of its own, or open it with ro in both" : "");
}
