/*
 * The file's way to its name.
 *
 * The temporary name is a function of the target's name, so that what a crash left behind is
 * found by the next save, and at most one such file lies there for each target.  Whoever writes
 * holds a lock on the file: a temporary that can be locked is nobody's.
 */
#include "snapshot/target.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/util.h"
#include "snapshot/container.h"

#define BUSY_TRIES	50	/* for another save that is just renaming */
#define BUSY_WAIT_NS	10000000

/* The machine's memory is in it: nobody else's to read, whatever the umask. */
#define MODE		0600

static int failed(const struct snap_target *t, const char *what, struct skep_error *e)
{
	return skep_fail(e, errno, "%s: %s: %s%s", t->path, what, strerror(errno), snap_remedy(errno));
}

/* ---- Where ---------------------------------------------------------------- */

static int open_directory(struct snap_target *t, struct skep_error *e)
{
	char *slash = strrchr(t->path, '/');
	char *dir = slash ? strndup(t->path, slash == t->path ? 1 : slash - t->path) : strdup(".");

	if (!dir)
		return skep_fail(e, ENOMEM, "%s: no memory left", t->path);
	t->dir = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (t->dir < 0) {
		int err = skep_fail(e, errno, "%s: its directory '%s' cannot be opened: %s: it must "
				    "be there, and readable", t->path, dir, strerror(errno));

		free(dir);
		return err;
	}
	free(dir);
	return 0;
}

/* What is there already may be replaced if it is a file of its own. */
static int check_existing(const struct snap_target *t, struct skep_error *e)
{
	char link[PATH_MAX];
	struct stat st;
	ssize_t n;

	if (fstatat(t->dir, t->name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return errno == ENOENT ? 0 : failed(t, "cannot be looked at", e);
	if (S_ISREG(st.st_mode))
		return 0;
	if (S_ISDIR(st.st_mode))
		return skep_fail(e, EISDIR, "%s: is a directory: name a file in it", t->path);
	if (!S_ISLNK(st.st_mode))
		return skep_fail(e, EINVAL, "%s: is not a regular file: name another", t->path);
	n = readlinkat(t->dir, t->name, link, sizeof(link) - 1);
	link[MAX(n, 0)] = '\0';
	return skep_fail(e, ELOOP, "%s: is a symbolic link to '%s', and would be replaced by a file: "
			 "name that file, or remove the link", t->path, link);
}

static int split_path(struct snap_target *t, const char *path, struct skep_error *e)
{
	const char *slash;

	t->path = strdup(path);
	if (!t->path)
		return skep_fail(e, ENOMEM, "%s: no memory left", path);
	slash = strrchr(t->path, '/');
	t->name = strdup(slash ? slash + 1 : t->path);
	if (!t->name)
		return skep_fail(e, ENOMEM, "%s: no memory left", path);
	if (!t->name[0] || !strcmp(t->name, ".") || !strcmp(t->name, ".."))
		return skep_fail(e, EISDIR, "'%s': names no file to save to", path);
	if (strlen(t->name) > NAME_MAX)
		return skep_fail(e, ENAMETOOLONG, "%s: its name is too long", path);
	return 0;
}

/* ---- Temporary names ------------------------------------------------------- */

static void temporary_name(const struct snap_target *t, char out[64])
{
	snprintf(out, 64, ".skep-%016llx.tmp",
		 (unsigned long long)snap_sum(t->name, strlen(t->name)));
}

/* Does the name still stand for this open file? */
static bool is_linked(const struct snap_target *t, const char *name, int fd)
{
	struct stat a, b;

	return fstatat(t->dir, name, &a, AT_SYMLINK_NOFOLLOW) == 0 && fstat(fd, &b) == 0 &&
	       a.st_dev == b.st_dev && a.st_ino == b.st_ino;
}

/*
 * Removes what lies under the temporary name if nobody holds it.  0: try to take the name again;
 * 1: another save has it.
 */
static int remove_stale(struct snap_target *t, const char *name, struct skep_error *e)
{
	int fd = openat(t->dir, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	int err = 0;

	if (fd < 0)
		return errno == ENOENT ? 0 :
			skep_fail(e, errno, "%s: '%s' beside it is in the way: %s: remove it", t->path,
				  name, strerror(errno));
	if (flock(fd, LOCK_EX | LOCK_NB) < 0)
		err = errno == EWOULDBLOCK ? 1 : failed(t, "cannot lock a temporary file", e);
	else if (is_linked(t, name, fd) && unlinkat(t->dir, name, 0) < 0 && errno != ENOENT)
		err = failed(t, "cannot remove a temporary file", e);
	close(fd);
	return err;
}

/* Locks our file.  A file system without locks goes without. */
static bool hold(int fd)
{
	return flock(fd, LOCK_EX | LOCK_NB) == 0 || errno != EWOULDBLOCK;
}

static void wait_a_little(void)
{
	nanosleep(&(struct timespec){ .tv_nsec = BUSY_WAIT_NS }, NULL);
}

static int busy(const struct snap_target *t, struct skep_error *e)
{
	return skep_fail(e, EBUSY, "%s: another save to it is under way", t->path);
}

/* A file with a name from the beginning. */
static int open_named(struct snap_target *t, struct skep_error *e)
{
	char name[64];
	int err, tries;

	temporary_name(t, name);
	for (tries = 0; tries < BUSY_TRIES; tries++) {
		t->fd = openat(t->dir, name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, MODE);
		if (t->fd >= 0) {
			/* Before it was locked another save may have taken it for a stale one. */
			if (hold(t->fd) && is_linked(t, name, t->fd)) {
				memcpy(t->temporary, name, sizeof(name));
				return 0;
			}
			close(t->fd);
			t->fd = -1;
			continue;
		}
		if (errno != EEXIST)
			return failed(t, "cannot be made", e);
		err = remove_stale(t, name, e);
		if (err < 0)
			return err;
		/* A whole save holds it: waiting does not help. */
		if (err)
			return busy(t, e);
	}
	return busy(t, e);
}

/* Can an unnamed file be given a name later?  That goes through /proc. */
static bool can_link(int fd)
{
	char proc[64];

	snprintf(proc, sizeof(proc), "/proc/self/fd/%d", fd);
	return faccessat(AT_FDCWD, proc, F_OK, 0) == 0;
}

static int open_file(struct snap_target *t, struct skep_error *e)
{
	t->fd = openat(t->dir, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, MODE);
	if (t->fd >= 0 && can_link(t->fd)) {
		hold(t->fd);	/* nobody else can know it yet */
		return 0;
	}
	if (t->fd < 0 && errno != EOPNOTSUPP && errno != EISDIR && errno != EINVAL &&
	    errno != ENOENT)
		return failed(t, "cannot be made", e);
	if (t->fd >= 0)
		close(t->fd);
	t->fd = -1;
	return open_named(t, e);
}

static int open_target(struct snap_target *t, const char *path, bool named, struct skep_error *e)
{
	int err;

	*t = (struct snap_target){ .dir = -1, .fd = -1 };
	err = split_path(t, path, e);
	if (!err)
		err = open_directory(t, e);
	if (!err)
		err = check_existing(t, e);
	if (!err)
		err = named ? open_named(t, e) : open_file(t, e);
	if (err < 0)
		snap_target_abort(t);
	return err;
}

int snap_target_open(struct snap_target *t, const char *path, struct skep_error *e)
{
	return open_target(t, path, false, e);
}

int snap_target_open_named(struct snap_target *t, const char *path, struct skep_error *e)
{
	return open_target(t, path, true, e);
}

void snap_target_abort(struct snap_target *t)
{
	if (!t->path)
		return;
	if (t->temporary[0])
		unlinkat(t->dir, t->temporary, 0);
	if (t->fd >= 0)
		close(t->fd);
	if (t->dir >= 0)
		close(t->dir);
	free(t->path);
	free(t->name);
	*t = (struct snap_target){ .dir = -1, .fd = -1 };
}

/* ---- Commit ----------------------------------------------------------------- */

/* Gives an unnamed file its temporary name. */
static int link_file(struct snap_target *t, struct skep_error *e)
{
	char proc[64], name[64];
	int err, tries;

	snprintf(proc, sizeof(proc), "/proc/self/fd/%d", t->fd);
	temporary_name(t, name);
	for (tries = 0; tries < BUSY_TRIES; tries++) {
		if (linkat(AT_FDCWD, proc, t->dir, name, AT_SYMLINK_FOLLOW) == 0) {
			memcpy(t->temporary, name, sizeof(name));
			return 0;
		}
		if (errno != EEXIST)
			return failed(t, "cannot be given a name", e);
		err = remove_stale(t, name, e);
		if (err < 0)
			return err;
		if (err)
			wait_a_little();
	}
	return busy(t, e);
}

static int commit(struct snap_target *t, bool sync, struct skep_error *e)
{
	int err;

	if (sync && fsync(t->fd) < 0)
		return failed(t, "cannot be written to the disk", e);
	/* A directory made meanwhile is not replaced, nor is a link. */
	err = check_existing(t, e);
	if (!err && !t->temporary[0])
		err = link_file(t, e);
	if (err < 0)
		return err;
	/* From its name on, it is open to readers; a save still sees that it is taken. */
	flock(t->fd, LOCK_SH | LOCK_NB);
	if (renameat(t->dir, t->temporary, t->dir, t->name) < 0)
		return failed(t, "cannot be put in its place", e);
	t->temporary[0] = '\0';
	if (sync && fsync(t->dir) < 0)
		return failed(t, "is there, but its directory cannot be written to the disk", e);
	return 0;
}

int snap_target_commit(struct snap_target *t, bool sync, struct skep_error *e)
{
	int err = commit(t, sync, e);

	snap_target_abort(t);
	return err;
}
