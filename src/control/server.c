/*
 * The control thread: it alone owns clients and requests, and holds no lock while it waits, so that
 * a client can keep neither the vm thread nor a processor waiting.
 */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/thread.h"
#include "control/control.h"
#include "control/internal.h"
#include "skep/version.h"
#include "vm/vm.h"

#define ACCEPT_REST_NS	100000000ll	/* descriptors were short: try again after this */
#define FLUSH_NS	250000000ll	/* for the last words to those who read */

void control_wake(struct control *c)
{
	/* Adding one to a counter that is full fails, and the thread is awake then. */
	if (eventfd_write(c->wake, 1) < 0)
		return;
}

void control_event(struct control *c, json_t *event)
{
	for (unsigned i = 0; i < c->nclients; i++)
		if (c->clients[i]->subscribed && !c->clients[i]->ended)
			connection_send(c->clients[i], json_incref(event));
	json_decref(event);
}

/* ---- Clients ------------------------------------------------------------ */

static bool may_control(int fd)
{
	struct ucred peer;
	socklen_t len = sizeof(peer);

	return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) == 0 &&
	       (peer.uid == geteuid() || peer.uid == 0);
}

static void greet(struct connection *n)
{
	connection_send(n, json_pack("{s:{s:s,s:i,s:o}}", "skep", "version", SKEP_VERSION, "protocol",
				     CONTROL_PROTOCOL, "name", control_text(n->control->vm->name)));
}

static void turn_away(struct connection *n, int err, const char *why)
{
	connection_fail(n, NULL, err, why);
	connection_destroy(n);
}

/* One client; false: nobody else waits. */
static bool accept_client(struct control *c)
{
	int fd = accept4(c->claim.listen, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	struct connection *n;

	if (fd < 0) {
		/* It has left again, or descriptors are short, which another turn does not help. */
		if (errno != EAGAIN && errno != ECONNABORTED && errno != EINTR)
			c->accept_after = control_now() + ACCEPT_REST_NS;
		return false;
	}
	n = connection_create(c, fd);
	if (!n)
		return true;
	if (!may_control(fd)) {
		turn_away(n, EPERM, "this machine belongs to another user");
	} else if (c->nclients == CONTROL_CLIENTS) {
		turn_away(n, EBUSY, "16 clients are connected already; try again later");
	} else {
		c->clients[c->nclients++] = n;
		greet(n);
	}
	return true;
}

/* Frees those that are gone or have been stuck for too long. */
static void sweep(struct control *c, int64_t now)
{
	for (unsigned i = 0; i < c->nclients;) {
		struct connection *n = c->clients[i];

		if (n->stuck_since && now - n->stuck_since > CONTROL_STUCK_NS)
			n->dead = true;
		if (!n->dead) {
			i++;
			continue;
		}
		saving_forget(c, n);
		connection_destroy(n);
		c->clients[i] = c->clients[--c->nclients];
	}
}

/* ---- The thread ------------------------------------------------------------ */

/* Milliseconds until something is due though nothing happens; -1: never. */
static int next_due(struct control *c, int64_t now)
{
	int64_t due = c->accept_after ? c->accept_after : INT64_MAX;

	for (unsigned i = 0; i < c->nclients; i++)
		if (c->clients[i]->stuck_since)
			due = MIN(due, c->clients[i]->stuck_since + CONTROL_STUCK_NS);
	if (c->stop_at)
		due = MIN(due, now + 50000000);
	if (due == INT64_MAX)
		return -1;
	return due <= now ? 1 : (int)((due - now) / 1000000) + 1;
}

static void wait_for_something(struct control *c)
{
	struct pollfd p[2 + CONTROL_CLIENTS];
	int64_t now = control_now();
	eventfd_t count;
	unsigned n;

	sweep(c, now);
	n = c->nclients;
	if (c->accept_after && now >= c->accept_after)
		c->accept_after = 0;
	p[0] = (struct pollfd){ .fd = c->wake, .events = POLLIN };
	p[1] = (struct pollfd){ .fd = c->accept_after || c->stop_at ? -1 : c->claim.listen,
				.events = POLLIN };
	for (unsigned i = 0; i < n; i++)
		p[2 + i] = (struct pollfd){ .fd = c->clients[i]->fd,
					    .events = connection_events(c->clients[i]) };
	if (poll(p, 2 + n, next_due(c, now)) < 0)
		return;		/* EINTR, or no memory for a moment */
	if (p[0].revents && eventfd_read(c->wake, &count) < 0)
		return;
	for (unsigned i = 0; i < n; i++)
		if (p[2 + i].revents)
			connection_ready(c->clients[i], p[2 + i].revents);
	sweep(c, control_now());
	for (int i = 0; p[1].revents && i < CONTROL_CLIENTS && accept_client(c); i++)
		;
}

static void tell_started(struct control *c)
{
	if (c->started_told || !atomic_load(&c->started))
		return;
	c->started_told = true;
	control_event(c, json_pack("{s:s}", "event", "started"));
}

static const char *exit_reason(int code)
{
	switch (code) {
	case VM_EXIT_REBOOT: return "reboot";
	case VM_EXIT_POWEROFF: return "poweroff";
	case VM_EXIT_HALT: return "halt";
	case VM_EXIT_TRIPLE_FAULT: return "triple-fault";
	case VM_EXIT_ERROR: return "error";
	case VM_EXIT_SUSPENDED: return "suspended";
	default: return "debug-exit";
	}
}

static void tell_stopping(struct control *c)
{
	struct vm *vm = c->vm;
	struct skep_error error;
	int code;

	pthread_mutex_lock(&vm->exit_lock);
	code = vm->exiting ? vm->exit_code : VM_EXIT_ERROR;
	error = vm->exit_error;
	pthread_mutex_unlock(&vm->exit_lock);
	control_event(c, json_pack("{s:s,s:s,s:i,s:o}", "event", "stopping", "reason",
				   exit_reason(code), "code",
				   code >= VM_EXIT_DEBUG_BASE ? code - VM_EXIT_DEBUG_BASE : code,
				   "text", code == VM_EXIT_ERROR ? control_text(error.text) :
				   json_null()));
}

static bool all_taken(struct control *c)
{
	for (unsigned i = 0; i < c->nclients; i++)
		if (connection_busy(c->clients[i]))
			return false;
	return true;
}

static void *run(void *opaque)
{
	struct control *c = opaque;
	int64_t until;

	pthread_setname_np(pthread_self(), "control");
	do {
		wait_for_something(c);
		if (atomic_load(&c->stop) && !c->stop_at)
			c->stop_at = control_now();
		saving_news(c);
		tell_started(c);
	} while (!c->stop_at || !saving_finish(c));

	tell_stopping(c);
	until = control_now() + FLUSH_NS;
	while (!all_taken(c) && control_now() < until)
		wait_for_something(c);
	return NULL;
}

/* The vm thread's first turn after power-on; device lock. */
static void machine_runs(void *opaque)
{
	struct control *c = opaque;

	atomic_store(&c->started, true);
	control_wake(c);
}

/* ---- Start and end --------------------------------------------------------- */

static void destroy(struct control *c)
{
	while (c->nclients)
		connection_destroy(c->clients[--c->nclients]);
	claim_close(&c->claim);
	if (c->wake >= 0)
		close(c->wake);
	pthread_mutex_destroy(&c->saving.lock);
	free(c->restored_from);
	free(c);
}

static int start(struct control *c, struct skep_error *e)
{
	int err = claim_open(&c->claim, c->vm->name, e);

	if (err)
		return err;
	c->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (c->wake < 0)
		return skep_fail(e, errno, "the control socket: %s", strerror(errno));
	err = thread_start(&c->thread, run, c);
	if (err)
		return skep_fail(e, -err, "no thread for the control socket: %s", strerror(-err));
	loop_post(c->vm, machine_runs, c);
	return 0;
}

static bool unwanted(struct vm *vm)
{
	const char *how = vm->config ? config_string(config_root(vm->config), "control") : NULL;

	return how && !strcmp(how, "none");
}

int control_start(struct vm *vm, struct control **out, struct skep_error *e)
{
	struct control *c;
	int err;

	*out = NULL;
	if (unwanted(vm))
		return 0;
	c = calloc(1, sizeof(*c));
	if (!c)
		return skep_fail(e, ENOMEM, "no memory for the control socket");
	c->vm = vm;
	c->wake = -1;
	c->claim = (struct claim){ .dir = -1, .lock = -1, .listen = -1 };
	c->begin = control_now();
	pthread_mutex_init(&c->saving.lock, NULL);
	if (vm->origin.known && vm->origin.path)
		c->restored_from = strdup(vm->origin.path);
	err = start(c, e);
	if (err) {
		destroy(c);
		return err;
	}
	*out = c;
	return 0;
}

void control_stop(struct control *c)
{
	if (!c)
		return;
	atomic_store(&c->stop, true);
	control_wake(c);
	pthread_join(c->thread, NULL);
	destroy(c);
}
