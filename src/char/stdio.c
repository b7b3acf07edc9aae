/*
 * The console on standard input and output.
 *
 * On a terminal: raw mode, so that every key is the guest's, but for an
 * escape key.  Elsewhere: bytes in, bytes out, and the end of input is just
 * the end of input.
 *
 * The descriptors are shared with whoever started us, so O_NONBLOCK is never
 * set on them: a terminal or pipe is opened again through /proc, which gives
 * a description of our own.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <termios.h>
#include <unistd.h>

#include "base/say.h"
#include "base/util.h"
#include "char/backend.h"
#include "char/terminal.h"
#include "vm/vm.h"

#define ESCAPE 0x01	/* Ctrl-A */

struct stdio_backend {
	struct char_backend base;
	bool terminal;		/* stdin is one, and we made it raw */
	bool escaped;		/* the escape key was the last */
};

static void help(struct char_backend *b)
{
	skep_say("\r\nCtrl-A h   this help\r\n"
		 "Ctrl-A x   stop the machine at once\r\n"
		 "Ctrl-A p   press the power button\r\n"
		 "Ctrl-A b   send a break (SysRq)\r\n"
		 "Ctrl-A Ctrl-A   send Ctrl-A\r\n");
}

/* The key after the escape key; true if it goes to the guest. */
static bool escape(struct char_backend *b, uint8_t key)
{
	switch (key) {
	case ESCAPE:
		return true;
	case 'x':
	case 'X':
		vm_request_exit(b->vm, VM_EXIT_POWEROFF);
		skep_say("\r\nskep: stopped by Ctrl-A x\r\n");
		return false;
	case 'p':
	case 'P':
		vm_power_button(b->vm);
		return false;
	case 'b':
	case 'B':
		char_break(b);
		return false;
	default:
		help(b);
		return false;
	}
}

static size_t stdio_filter(struct char_backend *b, uint8_t *data, size_t len)
{
	struct stdio_backend *s = container_of(b, struct stdio_backend, base);
	size_t kept = 0;

	if (!s->terminal)
		return len;
	for (size_t i = 0; i < len; i++) {
		if (s->escaped) {
			s->escaped = false;
			if (escape(b, data[i]))
				data[kept++] = data[i];
		} else if (data[i] == ESCAPE) {
			s->escaped = true;
		} else {
			data[kept++] = data[i];
		}
	}
	return kept;
}

/* Regular files and the like: epoll refuses them, and they never block. */
static bool unpollable(int fd)
{
	struct stat st;

	if (fstat(fd, &st) < 0)
		return true;
	if (S_ISREG(st.st_mode) || S_ISDIR(st.st_mode) || S_ISBLK(st.st_mode))
		return true;
	return S_ISCHR(st.st_mode) && !isatty(fd);
}

/* A non-blocking description of our own, or a duplicate if there is none to be had. */
static int reopen(int fd, int mode)
{
	struct stat st;
	char path[32];
	int own;

	if (fstat(fd, &st) == 0 && (S_ISFIFO(st.st_mode) || isatty(fd))) {
		snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
		own = open(path, mode | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
		if (own >= 0)
			return own;
	}
	return fcntl(fd, F_DUPFD_CLOEXEC, 3);
}

static bool is_socket(int fd)
{
	struct stat st;

	return fstat(fd, &st) == 0 && S_ISSOCK(st.st_mode);
}

static int stdio_open(struct char_backend *b, const char *arg, struct skep_error *e)
{
	struct stdio_backend *s = container_of(b, struct stdio_backend, base);
	int in, out, rc, flags;

	/* main() puts what cannot be written in place of a closed one. */
	if ((flags = fcntl(STDOUT_FILENO, F_GETFL)) < 0 || (flags & O_ACCMODE) == O_RDONLY)
		return skep_fail(e, EBADF, "%s.path=stdio: standard output is closed; "
				 "give null or a file", b->owner);
	if (isatty(STDIN_FILENO)) {
		rc = terminal_raw(STDIN_FILENO);
		if (rc == -EBUSY)
			return skep_fail(e, EBUSY, "%s.path=stdio: another port has the terminal; "
					 "give that one or this pty, unix=, tcp= or a file",
					 b->owner);
		if (rc < 0)
			return skep_fail(e, -rc, "%s.path=stdio: cannot make the terminal raw: %s",
					 b->owner, strerror(-rc));
		s->terminal = true;
		b->flags |= CHAR_TERMINAL;
	}
	b->flags |= CHAR_OWN_FDS;
	if (unpollable(STDIN_FILENO))
		b->flags |= CHAR_IN_FILE;
	if (unpollable(STDOUT_FILENO))
		b->flags |= CHAR_OUT_FILE;
	if (is_socket(STDOUT_FILENO))
		b->flags |= CHAR_SOCKET;
	in = reopen(STDIN_FILENO, O_RDONLY);	/* -1 if closed: then no input */
	out = reopen(STDOUT_FILENO, O_WRONLY);
	if (out < 0) {
		rc = errno;
		if (in >= 0)
			close(in);
		if (s->terminal)
			terminal_restore();
		return skep_fail(e, rc, "%s.path=stdio: %s", b->owner, strerror(rc));
	}
	if (s->terminal && isatty(STDERR_FILENO))
		skep_say("skep: this terminal is %s; Ctrl-A x stops the machine, "
			 "Ctrl-A h helps\n", b->owner);
	return char_attach(b, in, out, e);
}

static void stdio_close(struct char_backend *b)
{
	struct stdio_backend *s = container_of(b, struct stdio_backend, base);

	if (s->terminal)
		terminal_restore();
}

void char_restore_terminal(void)
{
	terminal_restore_signal_safe();
}

const struct char_ops char_stdio = {
	.name = "stdio",
	.help = "this terminal, raw, Ctrl-A is the escape key; or pipes and files on 0 and 1",
	.size = sizeof(struct stdio_backend),
	.open = stdio_open,
	.filter = stdio_filter,
	.gone = char_gone_for_good,
	.close = stdio_close,
};
