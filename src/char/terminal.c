#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>

#include "base/util.h"
#include "char/terminal.h"

/*
 * Signals that end the process.  Each is caught only while its disposition is
 * the default one: a handler that somebody else installed stays, and is to
 * call char_restore_terminal if it ends the process.
 */
static const int ending[] = { SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGSEGV, SIGBUS, SIGILL,
			      SIGFPE, SIGABRT, SIGSYS, SIGXCPU, SIGXFSZ, SIGALRM };

static struct {
	_Atomic bool raw;		/* set last, cleared first */
	int fd;
	struct termios saved, rawmode;
	bool at_exit;			/* the exit hook is in place */
	bool caught[ARRAY_SIZE(ending)];
	bool caught_stop;
} terminal;

void terminal_restore_signal_safe(void)
{
	int saved = errno;

	if (atomic_load(&terminal.raw))
		tcsetattr(terminal.fd, TCSANOW, &terminal.saved);
	errno = saved;
}

static void on_ending_signal(int sig)
{
	terminal_restore_signal_safe();
	/* SA_RESETHAND: the default is back, and does what it would have done. */
	raise(sig);
}

/* Stopped from outside (in raw mode Ctrl-Z goes to the guest). */
static void on_stop_signal(int sig)
{
	int saved = errno;

	terminal_restore_signal_safe();
	raise(SIGSTOP);
	/* SIGCONT: here again. */
	if (atomic_load(&terminal.raw))
		tcsetattr(terminal.fd, TCSANOW, &terminal.rawmode);
	errno = saved;
}

static bool catch_signal(int sig, void (*fn)(int), int flags)
{
	struct sigaction sa;

	if (sigaction(sig, NULL, &sa) < 0 || (sa.sa_flags & SA_SIGINFO) ||
	    sa.sa_handler != SIG_DFL)
		return false;
	memset(&sa, 0, sizeof(sa));
	sa.sa_handler = fn;
	sa.sa_flags = flags;
	sigemptyset(&sa.sa_mask);
	return sigaction(sig, &sa, NULL) == 0;
}

static void release_signal(int sig, void (*fn)(int))
{
	struct sigaction sa;

	if (sigaction(sig, NULL, &sa) == 0 && !(sa.sa_flags & SA_SIGINFO) && sa.sa_handler == fn)
		signal(sig, SIG_DFL);
}

static void catch_signals(void)
{
	for (size_t i = 0; i < ARRAY_SIZE(ending); i++)
		terminal.caught[i] = catch_signal(ending[i], on_ending_signal, SA_RESETHAND);
	terminal.caught_stop = catch_signal(SIGTSTP, on_stop_signal, SA_RESTART);
}

static void release_signals(void)
{
	for (size_t i = 0; i < ARRAY_SIZE(ending); i++)
		if (terminal.caught[i])
			release_signal(ending[i], on_ending_signal);
	if (terminal.caught_stop)
		release_signal(SIGTSTP, on_stop_signal);
}

/* tcsetattr of a background process would stop it (SIGTTOU) on its way out. */
static void set_now(int fd, const struct termios *t)
{
	sigset_t block, old;

	sigemptyset(&block);
	sigaddset(&block, SIGTTOU);
	pthread_sigmask(SIG_BLOCK, &block, &old);
	tcsetattr(fd, TCSANOW, t);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
}

int terminal_raw(int fd)
{
	struct termios t;

	if (atomic_load(&terminal.raw))
		return -EBUSY;
	if (tcgetattr(fd, &t) < 0)
		return -errno;
	terminal.fd = fd;
	terminal.saved = t;
	cfmakeraw(&t);
	/* Our own sentences end in a newline only, and may come at any time. */
	t.c_oflag = terminal.saved.c_oflag;
	terminal.rawmode = t;
	if (!terminal.at_exit) {
		terminal.at_exit = true;
		atexit(terminal_restore);
	}
	catch_signals();
	atomic_store(&terminal.raw, true);
	if (tcsetattr(fd, TCSANOW, &t) < 0) {
		int err = errno;

		terminal_restore();
		return -err;
	}
	return 0;
}

void terminal_restore(void)
{
	if (!atomic_load(&terminal.raw))
		return;
	set_now(terminal.fd, &terminal.saved);
	atomic_store(&terminal.raw, false);
	release_signals();
}

/*
 * A peer that is gone shows up as EPIPE from write, not as a signal that
 * kills the machine; an existing handler is left alone.
 */
void char_ignore_sigpipe(void)
{
	struct sigaction sa;

	if (sigaction(SIGPIPE, NULL, &sa) == 0 && sa.sa_handler == SIG_DFL) {
		memset(&sa, 0, sizeof(sa));
		sa.sa_handler = SIG_IGN;
		sigaction(SIGPIPE, &sa, NULL);
	}
}
