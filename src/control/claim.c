/*
 * Taking a name: NAME.lock is locked for as long as the machine runs and says its pid; whoever
 * holds the lock, and nobody else, makes and removes NAME.sock.  So a socket that a killed machine
 * left is replaced without a race, and one of a machine that runs never is.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "control/client.h"
#include "control/internal.h"

#define FILE_NAME	80	/* 63 characters and ".lock" */

static int fail_in_use(int lock, const char *name, struct skep_error *e)
{
	char text[24] = "", by[48] = "";
	long pid;

	if (pread(lock, text, sizeof(text) - 1, 0) > 0 && (pid = strtol(text, NULL, 10)) > 0)
		snprintf(by, sizeof(by), " (pid %ld)", pid);
	return skep_fail(e, EADDRINUSE, "a machine named \"%s\" runs already%s; end it with `skep stop "
			 "%s`, or give this one another name", name, by, name);
}

static bool same_file(int dir, const char *file, int fd)
{
	struct stat a, b;

	return fstat(fd, &a) == 0 && fstatat(dir, file, &b, AT_SYMLINK_NOFOLLOW) == 0 &&
	       a.st_dev == b.st_dev && a.st_ino == b.st_ino;
}

/* 0, -EAGAIN: the lock's file was removed under us, or another negative errno with e set. */
static int try_lock(struct claim *c, const char *file, struct skep_error *e)
{
	int err = 0;

	c->lock = openat(c->dir, file, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (c->lock < 0)
		return skep_fail(e, errno, "the lock of the name \"%s\" cannot be made: %s", c->name,
				 strerror(errno));
	if (flock(c->lock, LOCK_EX | LOCK_NB) < 0)
		err = errno == EWOULDBLOCK ? fail_in_use(c->lock, c->name, e) :
		      skep_fail(e, errno, "the name \"%s\" cannot be locked: %s", c->name,
				strerror(errno));
	else if (!same_file(c->dir, file, c->lock))
		err = -EAGAIN;
	if (err) {
		close(c->lock);
		c->lock = -1;
	}
	return err;
}

static int take_lock(struct claim *c, struct skep_error *e)
{
	char file[FILE_NAME], pid[24];
	int err, len;

	snprintf(file, sizeof(file), "%s.lock", c->name);
	/* Each turn is a machine of this name that has just ended. */
	for (int i = 0; i < 100; i++) {
		err = try_lock(c, file, e);
		if (err != -EAGAIN)
			break;
	}
	if (err == -EAGAIN)
		return skep_fail(e, EADDRINUSE, "the name \"%s\" is being taken and left again and "
				 "again; give this machine another one", c->name);
	if (err)
		return err;
	len = snprintf(pid, sizeof(pid), "%ld\n", (long)getpid());
	if (ftruncate(c->lock, 0) < 0 || pwrite(c->lock, pid, len, 0) != len)
		return skep_fail(e, errno ? errno : EIO, "the lock of the name \"%s\" cannot be "
				 "written: %s", c->name, strerror(errno));
	return 0;
}

static int make_socket(struct claim *c, const char *path, struct skep_error *e)
{
	struct sockaddr_un sa;
	char file[FILE_NAME];
	int err = control_address(c->dir, path, c->name, &sa, e);

	if (err)
		return err;
	snprintf(file, sizeof(file), "%s.sock", c->name);
	if (unlinkat(c->dir, file, 0) < 0 && errno != ENOENT)
		return skep_fail(e, errno, "the old socket \"%s/%s\" cannot be removed: %s", path, file,
				 strerror(errno));
	c->listen = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	/* The mode of the socket's inode limits that of its name. */
	if (c->listen < 0 || fchmod(c->listen, 0600) < 0 ||
	    bind(c->listen, (const struct sockaddr *)&sa, sizeof(sa)) < 0 ||
	    listen(c->listen, CONTROL_BACKLOG) < 0)
		return skep_fail(e, errno, "the control socket \"%s/%s\" cannot be made: %s", path, file,
				 strerror(errno));
	return 0;
}

int claim_open(struct claim *c, const char *name, struct skep_error *e)
{
	char path[PATH_MAX];
	int err;

	*c = (struct claim){ .dir = -1, .lock = -1, .listen = -1 };
	err = control_check_name(name, e);
	if (err)
		return err;
	snprintf(c->name, sizeof(c->name), "%s", name);
	c->dir = control_open_directory(true, path, e);
	err = c->dir < 0 ? c->dir : take_lock(c, e);
	if (!err)
		err = make_socket(c, path, e);
	if (err)
		claim_close(c);
	return err;
}

static void remove_file(struct claim *c, const char *suffix)
{
	char file[FILE_NAME];

	snprintf(file, sizeof(file), "%s.%s", c->name, suffix);
	unlinkat(c->dir, file, 0);
}

void claim_close(struct claim *c)
{
	if (c->listen >= 0) {
		remove_file(c, "sock");
		close(c->listen);
	}
	if (c->lock >= 0) {
		/* Last: from here on the name is free. */
		remove_file(c, "lock");
		close(c->lock);
	}
	if (c->dir >= 0)
		close(c->dir);
	*c = (struct claim){ .dir = -1, .lock = -1, .listen = -1 };
}
