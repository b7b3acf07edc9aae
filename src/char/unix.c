/* A Unix stream socket on which we listen: only its owner may connect. */
#include <errno.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/util.h"
#include "char/listen.h"

/* What stands at the path: 0 nothing, 1 a socket nobody listens on, or a refusal. */
static int examine(struct char_backend *b, const struct sockaddr_un *sa, struct skep_error *e)
{
	struct stat st;
	int fd, rc, err;

	if (lstat(sa->sun_path, &st) < 0)
		return 0;	/* bind says what is wrong, if anything is */
	if (!S_ISSOCK(st.st_mode))
		return skep_fail(e, EEXIST, "%s.path: '%s' exists and is not a socket; give "
				 "another name", b->owner, sa->sun_path);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return skep_fail(e, errno, "%s.path: %s", b->owner, strerror(errno));
	rc = connect(fd, (const struct sockaddr *)sa, sizeof(*sa));
	err = errno;
	close(fd);
	if (rc < 0 && err == ECONNREFUSED)
		return 1;
	return skep_fail(e, EADDRINUSE, "%s.path: somebody listens on '%s' already; give another "
			 "name or stop them", b->owner, sa->sun_path);
}

static int bind_socket(struct listen_backend *l, const struct sockaddr_un *sa)
{
	struct stat st;
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	if (fd < 0)
		return -errno;
	/* The mode of the socket's inode limits that of its name. */
	if (fchmod(fd, 0600) < 0 || bind(fd, (const struct sockaddr *)sa, sizeof(*sa)) < 0) {
		int err = errno;

		close(fd);
		return -err;
	}
	if (lstat(sa->sun_path, &st) == 0) {
		memcpy(l->unlink_path, sa->sun_path, sizeof(l->unlink_path));
		l->dev = st.st_dev;
		l->ino = st.st_ino;
	}
	return fd;
}

static int unix_open(struct char_backend *b, const char *path, struct skep_error *e)
{
	struct listen_backend *l = container_of(b, struct listen_backend, base);
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	int rc;

	l->fd = -1;
	if (!path[0] || strlen(path) >= sizeof(sa.sun_path))
		return skep_fail(e, ENAMETOOLONG, "%s.path: a socket's name has 1 to %zu bytes, "
				 "'%s' has %zu", b->owner, sizeof(sa.sun_path) - 1, path,
				 strlen(path));
	memcpy(sa.sun_path, path, strlen(path));
	rc = examine(b, &sa, e);
	if (rc < 0)
		return rc;
	if (rc)
		unlink(path);
	rc = bind_socket(l, &sa);
	if (rc < 0)
		return skep_fail(e, -rc, "%s.path: cannot make the socket '%s': %s", b->owner,
				 path, strerror(-rc));
	return listen_start(l, rc, e);
}

static void unix_close(struct char_backend *b)
{
	struct listen_backend *l = container_of(b, struct listen_backend, base);
	struct stat st;

	listen_close(b);
	if (l->unlink_path[0] && lstat(l->unlink_path, &st) == 0 && st.st_dev == l->dev &&
	    st.st_ino == l->ino)
		unlink(l->unlink_path);
}

const struct char_ops char_unix = {
	.name = "unix=",
	.help = "unix=/path: a Unix socket to connect to",
	.size = sizeof(struct listen_backend),
	.open = unix_open,
	.filter = char_filter_none,
	.gone = listen_gone,
	.close = unix_close,
};
