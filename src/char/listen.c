#include <errno.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/util.h"
#include "char/listen.h"
#include "vm/vm.h"

static void on_connection(void *opaque, uint32_t events)
{
	struct listen_backend *l = opaque;
	struct skep_error e;
	int on = 1;
	int fd = accept4(l->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	if (fd < 0)
		return;		/* it left again, or descriptors are short: the next event */
	/* A peer that vanished without a word must not hold the port for ever. */
	setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
	loop_unwatch(l->watch);
	l->watch = NULL;
	char_attach(&l->base, fd, fd, &e);
}

static int start_watching(struct listen_backend *l, struct skep_error *e)
{
	l->watch = loop_watch(l->base.vm, l->fd, EPOLLIN, on_connection, l, e);
	return l->watch ? 0 : -EIO;
}

int listen_start(struct listen_backend *l, int fd, struct skep_error *e)
{
	l->base.flags |= CHAR_OWN_FDS | CHAR_PEERS | CHAR_SOCKET;
	l->fd = fd;
	if (listen(fd, 1) < 0) {
		int err = errno;

		listen_close(&l->base);
		return skep_fail(e, err, "%s.path: cannot listen on '%s': %s", l->base.owner,
				 l->base.spec, strerror(err));
	}
	if (start_watching(l, e) < 0) {
		listen_close(&l->base);
		return -EIO;
	}
	return 0;
}

void listen_gone(struct char_backend *b)
{
	struct listen_backend *l = container_of(b, struct listen_backend, base);
	struct skep_error e;

	if (start_watching(l, &e) < 0)
		vm_request_error(b->vm, "%s: %s", b->owner, e.text);
}

void listen_close(struct char_backend *b)
{
	struct listen_backend *l = container_of(b, struct listen_backend, base);

	if (l->watch)
		loop_unwatch(l->watch);
	l->watch = NULL;
	if (l->fd >= 0)
		close(l->fd);
	l->fd = -1;
}
