/*
 * A thread that waits for the signals which end a machine.  It includes no
 * machine header: <signal.h> names registers as cpu/arch.h does.
 */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "cli/cli.h"

struct signals {
	struct signal_handlers handlers;
	pthread_t thread;
	int signal_fd, stop_fd;
	unsigned pressed;
};

static void make_set(sigset_t *set)
{
	sigemptyset(set);
	sigaddset(set, SIGTERM);
	sigaddset(set, SIGINT);
	sigaddset(set, SIGHUP);
	sigaddset(set, SIGQUIT);
}

void signals_block(void)
{
	sigset_t set;

	make_set(&set);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	signal(SIGPIPE, SIG_IGN);
}

static const char *signal_text(int n)
{
	switch (n) {
	case SIGTERM: return "SIGTERM";
	case SIGINT: return "SIGINT";
	case SIGHUP: return "SIGHUP";
	default: return "SIGQUIT";
	}
}

static void handle(struct signals *s, int n)
{
	/* The terminal may be raw, and the guest in the middle of a line. */
	const char *eol = isatty(STDERR_FILENO) ? "\r\n" : "\n";
	const char *bol = isatty(STDERR_FILENO) ? eol : "";

	if (n == SIGQUIT || s->pressed) {
		fprintf(stderr, "%sskep: %s: stopping at once%s", bol, signal_text(n), eol);
		s->handlers.stop(s->handlers.opaque);
		return;
	}
	s->pressed++;
	fprintf(stderr, "%sskep: %s: power button pressed; a second one stops at once%s", bol,
		signal_text(n), eol);
	s->handlers.power_button(s->handlers.opaque);
}

static void *run(void *opaque)
{
	struct signals *s = opaque;
	struct pollfd fds[2] = {
		{ .fd = s->signal_fd, .events = POLLIN },
		{ .fd = s->stop_fd, .events = POLLIN },
	};

	for (;;) {
		struct signalfd_siginfo info;

		if (poll(fds, 2, -1) < 0 && errno != EINTR)
			return NULL;
		if (fds[1].revents)
			return NULL;
		if (fds[0].revents && read(s->signal_fd, &info, sizeof(info)) == sizeof(info))
			handle(s, info.ssi_signo);
	}
}

static void close_fds(struct signals *s)
{
	if (s->signal_fd >= 0)
		close(s->signal_fd);
	if (s->stop_fd >= 0)
		close(s->stop_fd);
}

struct signals *signals_start(const struct signal_handlers *h, struct skep_error *e)
{
	struct signals *s = calloc(1, sizeof(*s));
	sigset_t set;
	int ret;

	if (!s) {
		skep_fail(e, ENOMEM, "out of memory");
		return NULL;
	}
	s->handlers = *h;
	make_set(&set);
	s->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	s->stop_fd = eventfd(0, EFD_CLOEXEC);
	ret = s->signal_fd < 0 || s->stop_fd < 0 ? errno :
	      pthread_create(&s->thread, NULL, run, s);
	if (ret) {
		skep_fail(e, ret, "cannot wait for signals: %s", strerror(ret));
		close_fds(s);
		free(s);
		return NULL;
	}
	return s;
}

void signals_stop(struct signals *s)
{
	if (!s)
		return;
	/* Adding one to a counter of zero cannot fail. */
	if (eventfd_write(s->stop_fd, 1) == 0)
		pthread_join(s->thread, NULL);
	close_fds(s);
	free(s);
}
