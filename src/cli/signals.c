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

#include "base/say.h"
#include "base/util.h"
#include "cli/cli.h"

struct signals {
	pthread_t thread;
	int signal_fd, stop_fd;
	pthread_mutex_t lock;
	const struct signal_handlers *handlers;	/* NULL: no machine; lock */
	unsigned count;		/* signals that the machine, or its end, has seen; lock */
	bool over;		/* the machine was there and is not any more; lock */
};

/* What whoever started us had ignored (nohup, a shell's background job) stays ignored. */
static void make_set(sigset_t *set)
{
	static const int ours[] = { SIGTERM, SIGINT, SIGHUP, SIGQUIT };
	struct sigaction sa;

	sigemptyset(set);
	for (size_t i = 0; i < ARRAY_SIZE(ours); i++)
		if (sigaction(ours[i], NULL, &sa) == 0 && sa.sa_handler != SIG_IGN)
			sigaddset(set, ours[i]);
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

/* What the signal does to any process; a raw terminal has a handler of its own for that. */
static void die(int n)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, n);
	pthread_sigmask(SIG_UNBLOCK, &set, NULL);
	raise(n);
}

static void say(const char *what, int n)
{
	/* The terminal may be raw, and the guest in the middle of a line. */
	const char *eol = isatty(STDERR_FILENO) ? "\r\n" : "\n";
	const char *bol = isatty(STDERR_FILENO) ? eol : "";

	skep_say("%sskep: %s: %s%s", bol, signal_text(n), what, eol);
}

/* Done first and said afterwards: nobody may read what is said. */
static void handle(struct signals *s, int n)
{
	const struct signal_handlers *h;
	bool again;

	pthread_mutex_lock(&s->lock);
	h = s->handlers;
	again = s->count > 0 || n == SIGQUIT;
	if (!h && (!s->over || again)) {
		pthread_mutex_unlock(&s->lock);
		die(n);
		return;
	}
	s->count++;
	if (!h) {
		say("the machine is ending; another one kills it", n);
	} else if (again) {
		h->stop(h->opaque);
		say("stopping at once", n);
	} else {
		h->power_button(h->opaque);
		say("power button pressed; a second one stops at once", n);
	}
	pthread_mutex_unlock(&s->lock);
}

void signals_machine(struct signals *s, const struct signal_handlers *h)
{
	pthread_mutex_lock(&s->lock);
	s->over = !h;
	s->count = 0;
	s->handlers = h;
	pthread_mutex_unlock(&s->lock);
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

static void signals_free(struct signals *s)
{
	if (s->signal_fd >= 0)
		close(s->signal_fd);
	if (s->stop_fd >= 0)
		close(s->stop_fd);
	pthread_mutex_destroy(&s->lock);
	free(s);
}

struct signals *signals_start(struct skep_error *e)
{
	struct signals *s = calloc(1, sizeof(*s));
	sigset_t set;
	int ret;

	if (!s) {
		skep_fail(e, ENOMEM, "out of memory");
		return NULL;
	}
	pthread_mutex_init(&s->lock, NULL);
	make_set(&set);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	signal(SIGPIPE, SIG_IGN);
	signal(SIGXFSZ, SIG_IGN);	/* a limit on file sizes is an error like others */
	s->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	s->stop_fd = eventfd(0, EFD_CLOEXEC);
	ret = s->signal_fd < 0 || s->stop_fd < 0 ? errno :
	      pthread_create(&s->thread, NULL, run, s);
	if (ret) {
		skep_fail(e, ret, "cannot wait for signals: %s", strerror(ret));
		pthread_sigmask(SIG_UNBLOCK, &set, NULL);
		signals_free(s);
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
	signals_free(s);
}
