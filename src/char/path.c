/*
 * A file, FIFO or device node by name.  A regular file gets the output,
 * appended, so that a machine that is started again keeps its log and a
 * mistyped name destroys nothing; it gives no input.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <termios.h>
#include <unistd.h>

#include "char/backend.h"

/* A terminal's other end must see our bytes as they are. */
static void make_raw(int fd)
{
	struct termios t;

	if (tcgetattr(fd, &t) < 0)
		return;
	cfmakeraw(&t);
	tcsetattr(fd, TCSANOW, &t);
}

static int cannot_open(struct char_backend *b, const char *path, struct skep_error *e)
{
	int err = errno;

	return skep_fail(e, err, "%s.path: cannot open '%s' for writing: %s", b->owner, path,
			 strerror(err));
}

static int path_open(struct char_backend *b, const char *path, struct skep_error *e)
{
	int flags = O_CLOEXEC | O_NOCTTY | O_NONBLOCK;
	struct stat st;
	int fd;

	if (stat(path, &st) == 0 && (S_ISCHR(st.st_mode) || S_ISFIFO(st.st_mode)))
		fd = open(path, O_RDWR | flags);
	else
		fd = open(path, O_WRONLY | O_CREAT | O_APPEND | flags, 0666);
	if (fd < 0)
		return cannot_open(b, path, e);
	if (fstat(fd, &st) < 0) {
		int rc = cannot_open(b, path, e);

		close(fd);
		return rc;
	}
	b->flags |= CHAR_OWN_FDS;
	if (S_ISCHR(st.st_mode) && isatty(fd)) {
		make_raw(fd);
		return char_attach(b, fd, fd, e);
	}
	/* FIFOs would give our own output back; other devices do not poll. */
	if (!S_ISFIFO(st.st_mode))
		b->flags |= CHAR_OUT_FILE;
	return char_attach(b, -1, fd, e);
}

const struct char_ops char_path = {
	.name = "",
	.help = "output appended to a file, or both ways through a terminal device",
	.size = sizeof(struct char_backend),
	.open = path_open,
	.filter = char_filter_none,
	.gone = char_gone_for_good,
	.close = char_close_nothing,
};
