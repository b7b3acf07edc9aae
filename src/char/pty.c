/*
 * A pseudo-terminal.  We hold the master only, so that we see whether anybody
 * has the other end open; while nobody has, the master reports a hang-up
 * without end, and is looked at four times a second instead of being watched.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <termios.h>
#include <unistd.h>

#include "base/util.h"
#include "char/backend.h"
#include "vm/vm.h"

#define LOOK_NS 250000000

struct pty_backend {
	struct char_backend base;
	int master, timer;
	struct loop_watch *watch;	/* of the timer, while nobody is there */
};

static void look(void *opaque, uint32_t events)
{
	struct pty_backend *p = opaque;
	struct pollfd pfd = { .fd = p->master, .events = POLLOUT };
	struct skep_error e;
	uint64_t ticks;

	(void)!read(p->timer, &ticks, sizeof(ticks));
	if (poll(&pfd, 1, 0) < 0 || (pfd.revents & POLLHUP))
		return;
	loop_unwatch(p->watch);
	p->watch = NULL;
	char_attach(&p->base, p->master, p->master, &e);
}

static int start_looking(struct pty_backend *p, struct skep_error *e)
{
	p->watch = loop_watch(p->base.vm, p->timer, EPOLLIN, look, p, e);
	return p->watch ? 0 : -EIO;
}

static void pty_gone(struct char_backend *b)
{
	struct pty_backend *p = container_of(b, struct pty_backend, base);
	struct skep_error e;

	if (start_looking(p, &e) < 0)
		vm_request_error(b->vm, "%s: %s", b->owner, e.text);
}

/* Raw from the start, or the line discipline would echo our output back to us. */
static int make_raw(const char *name)
{
	struct termios t;
	int fd = open(name, O_RDWR | O_NOCTTY | O_CLOEXEC);

	if (fd < 0)
		return -1;
	if (tcgetattr(fd, &t) == 0) {
		cfmakeraw(&t);
		tcsetattr(fd, TCSANOW, &t);
	}
	close(fd);
	return 0;
}

static void pty_close(struct char_backend *b)
{
	struct pty_backend *p = container_of(b, struct pty_backend, base);

	if (p->watch)
		loop_unwatch(p->watch);
	char_detach(b);
	if (p->timer >= 0)
		close(p->timer);
	if (p->master >= 0)
		close(p->master);
}

static int pty_open(struct char_backend *b, const char *arg, struct skep_error *e)
{
	struct pty_backend *p = container_of(b, struct pty_backend, base);
	struct itimerspec every = { .it_interval.tv_nsec = LOOK_NS, .it_value.tv_nsec = LOOK_NS };
	char name[64];
	int err;

	p->timer = -1;
	b->flags |= CHAR_PEERS;
	p->master = posix_openpt(O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);
	if (p->master < 0 || grantpt(p->master) < 0 || unlockpt(p->master) < 0 ||
	    ptsname_r(p->master, name, sizeof(name)) != 0 || make_raw(name) < 0)
		goto fail;
	p->timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
	if (p->timer < 0 || timerfd_settime(p->timer, 0, &every, NULL) < 0)
		goto fail;
	if (start_looking(p, e) < 0) {
		pty_close(b);
		return -EIO;
	}
	fprintf(stderr, "skep: %s is %s\n", b->owner, name);
	return 0;
fail:
	err = errno;
	pty_close(b);
	return skep_fail(e, err, "%s.path=pty: cannot make a pseudo-terminal: %s", b->owner,
			 strerror(err));
}

const struct char_ops char_pty = {
	.name = "pty",
	.help = "a new pseudo-terminal, whose name is printed at start",
	.size = sizeof(struct pty_backend),
	.open = pty_open,
	.filter = char_filter_none,
	.gone = pty_gone,
	.close = pty_close,
};
