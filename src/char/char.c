/*
 * Character backends: the part that all of them share: the buffers, the
 * pacing in both directions, and peers that come and go.
 */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "base/say.h"
#include "base/text.h"
#include "base/util.h"
#include "char/backend.h"
#include "char/terminal.h"
#include "vm/vm.h"

#define READ_CHUNK	4096u
#define TERMINAL_AHEAD	(64u << 10)	/* typed ahead of the guest, at most */
#define REST_MAX	(256u << 10)	/* read at once from a peer that is gone */
#define LINGER_MS	2000		/* without progress, at the end of the machine */

/* The last one takes every name. */
static const struct char_ops *const all_ops[] = {
	&char_stdio, &char_null, &char_pty, &char_unix, &char_tcp, &char_path, NULL
};

static void update_watches(struct char_backend *b);
static void pump_input(struct char_backend *b);

size_t char_filter_none(struct char_backend *b, uint8_t *data, size_t len)
{
	return len;
}

void char_gone_for_good(struct char_backend *b)
{
}

void char_close_nothing(struct char_backend *b)
{
}

static const struct char_ops *find_ops(const char *spec, const char **arg)
{
	for (size_t i = 0; all_ops[i]; i++) {
		const char *name = all_ops[i]->name;
		size_t len = strlen(name);
		bool prefix = len == 0 || name[len - 1] == '=';

		if (prefix ? strncmp(spec, name, len) == 0 : strcmp(spec, name) == 0) {
			*arg = spec + (prefix ? len : 0);
			return all_ops[i];
		}
	}
	return NULL;
}

void char_describe(FILE *out)
{
	for (size_t i = 0; all_ops[i]; i++)
		fprintf(out, "%-12s %s\n", all_ops[i]->name[0] ? all_ops[i]->name : "/path",
			all_ops[i]->help);
}

static size_t limit(const struct char_backend *b)
{
	return b->vm->clock.mode == CLOCK_MODE_VIRTUAL ? CHAR_LIMIT_VIRTUAL : CHAR_LIMIT;
}

static bool connected(const struct char_backend *b)
{
	return b->out_fd >= 0;
}

/*
 * The machine stands, or its state has gone into a snapshot for good: whatever went out or
 * in now would be told twice, or be missing in what was saved.
 */
static bool held(const struct char_backend *b)
{
	return b->vm->quiesced || vm_suspended(b->vm);
}

/* What the device takes now. */
static size_t device_room(const struct char_backend *b)
{
	return b->receiver && !held(b) ? b->receiver->room(b->receiver_opaque) : 0;
}

static void tell_drained(struct char_backend *b)
{
	/* A device that stands must not go on; the next flush tells it. */
	if (!b->was_full || !char_room(b) || held(b))
		return;
	b->was_full = false;
	if (b->receiver)
		b->receiver->drained(b->receiver_opaque);
}

size_t char_room(const struct char_backend *b)
{
	if (!connected(b))
		return limit(b);	/* kept or discarded, in either case taken */
	return b->out.len < limit(b) ? limit(b) - b->out.len : 0;
}

static void kick(struct char_backend *b)
{
	if (b->kicked)
		return;
	b->kicked = true;
	if (eventfd_write(b->kick_fd, 1) < 0)
		b->kicked = false;	/* only a full counter, which cannot be */
}

static void on_kick(void *opaque, uint32_t events)
{
	struct char_backend *b = opaque;
	eventfd_t value;

	b->kicked = false;
	(void)eventfd_read(b->kick_fd, &value);
	char_flush(b);
	pump_input(b);
	update_watches(b);
}

/* The peer went away: what it did not take stays queued if another may come. */
static void peer_gone(struct char_backend *b)
{
	char_detach(b);
	b->ops->gone(b);
	tell_drained(b);
}

/* Output that cannot be delivered is said once, then taken and discarded. */
static void output_failed(struct char_backend *b, int err)
{
	if (b->flags & CHAR_PEERS) {
		peer_gone(b);
		return;
	}
	skep_say("skep: %s: cannot write to '%s' any more: %s; further output of this port is "
		 "discarded\n", b->owner, b->spec, strerror(err));
	b->out_gone = true;
	b->out.len = 0;
	if (b->in_fd == b->out_fd) {
		peer_gone(b);
		return;
	}
	if (b->out_watch)
		loop_unwatch(b->out_watch);
	if (b->flags & CHAR_OWN_FDS)
		close(b->out_fd);
	b->out_watch = NULL;
	b->out_events = 0;
	b->out_fd = -1;
}

static ssize_t write_some(struct char_backend *b, const uint8_t *data, size_t len)
{
	if (b->flags & CHAR_SOCKET)
		return send(b->out_fd, data, len, MSG_NOSIGNAL | MSG_DONTWAIT);
	return write(b->out_fd, data, len);
}

static void write_out(struct char_backend *b)
{
	while (b->out.len && b->out_fd >= 0) {
		const uint8_t *data;
		size_t len = char_queue_peek(&b->out, &data);
		ssize_t n = write_some(b, data, len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN)
			break;
		if (n < 0) {
			output_failed(b, errno);
			break;
		}
		char_queue_drop(&b->out, n);
	}
	tell_drained(b);
}

void char_flush(struct char_backend *b)
{
	if (!held(b))
		write_out(b);
}

/* Nobody there: the oldest bytes make way. */
static void keep_last(struct char_backend *b)
{
	if (b->out.len > CHAR_KEEP)
		char_queue_drop(&b->out, b->out.len - CHAR_KEEP);
}

void char_write(struct char_backend *b, const void *data, size_t len)
{
	bool idle = b->out.len == 0;

	if (b->out_gone || (!connected(b) && !(b->flags & CHAR_PEERS)))
		return;
	if (char_queue_push(&b->out, data, len) < 0) {
		vm_request_error(b->vm, "%s: out of memory for console output", b->owner);
		return;
	}
	if (!connected(b))
		keep_last(b);
	else if (idle)
		kick(b);
	if (!char_room(b))
		b->was_full = true;
}

/* True when the vCPU that waits must get out of here. */
static bool stopping(struct vm *vm)
{
	bool stop = vm_exiting(vm);

	for (unsigned i = 0; i < vm->ncpus && !stop; i++)
		stop = vm->vcpus[i] && atomic_load(&vm->vcpus[i]->stop_reasons) != 0;
	return stop;
}

bool char_wait(struct char_backend *b)
{
	struct vm *vm = b->vm;

	while (!char_room(b)) {
		struct timespec ts = { .tv_nsec = 2000000 };
		bool stop;

		/*
		 * The vm thread does the writing; it needs the lock.  A short
		 * sleep rather than a condition: this is the slow path of a
		 * console that nobody reads.
		 */
		device_unlock(vm);
		nanosleep(&ts, NULL);
		stop = stopping(vm);
		device_lock(vm);
		if (stop)
			return false;
	}
	return true;
}

void char_break(struct char_backend *b)
{
	if (b->receiver)
		b->receiver->brk(b->receiver_opaque);
}

/* Hands over what was read, as far as the device has room. */
static void deliver(struct char_backend *b)
{
	while (b->in.len && b->receiver) {
		size_t room = device_room(b);
		const uint8_t *data;
		size_t len = MIN(char_queue_peek(&b->in, &data), room);

		if (!len)
			break;
		b->receiver->receive(b->receiver_opaque, data, len);
		char_queue_drop(&b->in, len);
	}
}

/* How much may be read from the host now. */
static size_t want_input(const struct char_backend *b)
{
	size_t ahead = b->flags & CHAR_TERMINAL ? TERMINAL_AHEAD : 0;
	size_t room = device_room(b);

	if (b->in_fd < 0 || b->in.len >= room + ahead)
		return 0;
	return MIN(room + ahead - b->in.len, READ_CHUNK);
}

/* Input ended: of a socket or a terminal both ways, else only this one. */
static void input_ended(struct char_backend *b)
{
	if (b->flags & CHAR_PEERS) {
		char_flush(b);
		if (b->in_fd >= 0)
			peer_gone(b);
		return;
	}
	if (b->in_watch)
		loop_unwatch(b->in_watch);
	b->in_watch = NULL;
	b->in_events = 0;
	if ((b->flags & CHAR_OWN_FDS) && b->in_fd != b->out_fd)
		close(b->in_fd);
	b->in_fd = -1;
}

/* Peers that come, write and go while the device takes nothing are heard up to a bound. */
static void keep_input(struct char_backend *b, const uint8_t *data, size_t len)
{
	if (b->in.len + len > CHAR_UNREAD_MAX)
		return;
	if (char_queue_push(&b->in, data, len) < 0)
		vm_request_error(b->vm, "%s: out of memory for console input", b->owner);
}

/* One read; false when there is no more to be had now. */
static bool read_some(struct char_backend *b)
{
	uint8_t buf[READ_CHUNK];
	size_t want = want_input(b);
	ssize_t n;

	if (!want)
		return false;
	do
		n = read(b->in_fd, buf, want);
	while (n < 0 && errno == EINTR);
	if (n < 0 && errno == EAGAIN)
		return false;
	if (n <= 0) {
		input_ended(b);
		return false;
	}
	n = b->ops->filter(b, buf, n);
	keep_input(b, buf, n);
	deliver(b);
	return true;
}

/* What waited for room; and files, which no event announces. */
static void pump_input(struct char_backend *b)
{
	deliver(b);
	if (b->flags & CHAR_IN_FILE)
		while (read_some(b))
			;
}

/*
 * The peer hung up while the device has no room.  What it sent last is taken all the
 * same: only the end behind it tells that nobody takes output any more, and a
 * hang-up that stays is an event without end.
 */
static void read_rest(struct char_backend *b)
{
	uint8_t buf[READ_CHUNK];
	ssize_t n;

	for (unsigned i = 0; i < REST_MAX / READ_CHUNK; i++) {
		n = read(b->in_fd, buf, sizeof(buf));
		if (n < 0 && (errno == EAGAIN || errno == EINTR))
			return;		/* somebody came back; or the next event goes on */
		if (n <= 0) {
			input_ended(b);
			return;
		}
		n = b->ops->filter(b, buf, n);
		keep_input(b, buf, n);
	}
}

static void on_input(struct char_backend *b, uint32_t events)
{
	if ((events & EPOLLHUP) && (b->flags & CHAR_PEERS) && !want_input(b))
		read_rest(b);
	else if (events & (EPOLLIN | EPOLLHUP | EPOLLERR | EPOLLRDHUP))
		read_some(b);
}

static void on_in_event(void *opaque, uint32_t events)
{
	struct char_backend *b = opaque;

	if (b->in_fd == b->out_fd && (events & EPOLLOUT))
		char_flush(b);
	if (b->in_fd >= 0)
		on_input(b, events);
	update_watches(b);
}

static void on_out_event(void *opaque, uint32_t events)
{
	struct char_backend *b = opaque;

	char_flush(b);
	update_watches(b);
}

/* Nothing wanted means not watched at all: EPOLLHUP cannot be masked. */
static void set_watch(struct char_backend *b, struct loop_watch **w, uint32_t *now, int fd,
		      uint32_t events, void (*fn)(void *, uint32_t))
{
	struct skep_error e;

	if (*now == events)
		return;
	*now = events;
	if (*w && events) {
		loop_set_events(*w, events);
		return;
	}
	if (*w) {
		loop_unwatch(*w);
		*w = NULL;
		return;
	}
	*w = loop_watch(b->vm, fd, events, fn, b, &e);
	if (!*w)
		vm_request_error(b->vm, "%s: %s", b->owner, e.text);
}

static void update_watches(struct char_backend *b)
{
	uint32_t in = 0, out = 0;

	if (b->in_fd >= 0 && !(b->flags & CHAR_IN_FILE) && want_input(b))
		in = EPOLLIN;
	if (b->out_fd >= 0 && !(b->flags & CHAR_OUT_FILE) && b->out.len && !held(b))
		out = EPOLLOUT;
	if (b->in_fd == b->out_fd) {
		if (b->in_fd >= 0)
			set_watch(b, &b->in_watch, &b->in_events, b->in_fd, in | out,
				  on_in_event);
		return;
	}
	if (b->in_fd >= 0)
		set_watch(b, &b->in_watch, &b->in_events, b->in_fd, in, on_in_event);
	if (b->out_fd >= 0)
		set_watch(b, &b->out_watch, &b->out_events, b->out_fd, out, on_out_event);
}

void char_accept(struct char_backend *b)
{
	if (b->in.len || b->in_fd >= 0)
		kick(b);
}

/* ---- The machine stands, and goes on --------------------------------- */

void char_quiesce(struct char_backend *b)
{
	char_flush(b);
}

void char_resume(struct char_backend *b)
{
	kick(b);
}

static int export_queue(const struct char_queue *q, struct state_blob *blob)
{
	const uint8_t *data;
	size_t first;

	if (!q->len)
		return 0;
	blob->data = malloc(q->len);
	if (!blob->data)
		return -ENOMEM;
	blob->len = (uint32_t)q->len;
	first = char_queue_peek(q, &data);
	memcpy(blob->data, data, first);
	memcpy(blob->data + first, q->data, q->len - first);
	return 0;
}

int char_export(const struct char_backend *b, struct state_blob *unsent,
		struct state_blob *unread)
{
	int err = export_queue(&b->out, unsent);

	return err < 0 ? err : export_queue(&b->in, unread);
}

static void import_queue(struct char_backend *b, struct char_queue *q,
			 const struct state_blob *blob)
{
	char_queue_finish(q);
	if (char_queue_push(q, blob->data, blob->len) < 0)
		vm_request_error(b->vm, "%s: out of memory for the console's saved bytes", b->owner);
}

void char_import(struct char_backend *b, const struct state_blob *unsent,
		 const struct state_blob *unread)
{
	static const struct state_blob none;
	bool lost = b->out_gone || (!connected(b) && !(b->flags & CHAR_PEERS));

	import_queue(b, &b->out, lost ? &none : unsent);
	import_queue(b, &b->in, unread);
	b->was_full = !char_room(b);
	kick(b);
}

int char_attach(struct char_backend *b, int in_fd, int out_fd, struct skep_error *e)
{
	b->in_fd = in_fd;
	b->out_fd = out_fd;
	b->in_events = b->out_events = 0;
	char_flush(b);
	/* A file is read, and all else watched, once the device is there. */
	kick(b);
	return 0;
}

void char_detach(struct char_backend *b)
{
	if (b->in_watch)
		loop_unwatch(b->in_watch);
	if (b->out_watch)
		loop_unwatch(b->out_watch);
	b->in_watch = b->out_watch = NULL;
	b->in_events = b->out_events = 0;
	if (b->flags & CHAR_OWN_FDS) {
		if (b->in_fd >= 0)
			close(b->in_fd);
		if (b->out_fd >= 0 && b->out_fd != b->in_fd)
			close(b->out_fd);
	}
	b->in_fd = b->out_fd = -1;
}

void char_set_receiver(struct char_backend *b, const struct char_receiver *r, void *opaque)
{
	b->receiver = r;
	b->receiver_opaque = opaque;
	kick(b);
}

static void backend_free(struct char_backend *b)
{
	if (b->kick_watch)
		loop_unwatch(b->kick_watch);
	if (b->kick_fd >= 0)
		close(b->kick_fd);
	char_queue_finish(&b->out);
	char_queue_finish(&b->in);
	free(b->spec);
	free(b);
}

static struct char_backend *backend_alloc(struct vm *vm, const struct char_ops *ops,
					  const char *owner, const char *spec,
					  struct skep_error *e)
{
	struct char_backend *b = calloc(1, ops->size);

	if (!b) {
		skep_fail(e, ENOMEM, "%s: out of memory", owner);
		return NULL;
	}
	b->ops = ops;
	b->vm = vm;
	b->in_fd = b->out_fd = -1;
	snprintf(b->owner, sizeof(b->owner), "%s", owner);
	b->spec = malloc(4 * strlen(spec) + 1);
	if (b->spec)
		text_escape(b->spec, 4 * strlen(spec) + 1, spec, strlen(spec), 0);
	b->kick_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (!b->spec || b->kick_fd < 0) {
		skep_fail(e, errno, "%s: cannot set up '%s': %s", owner, spec, strerror(errno));
		backend_free(b);
		return NULL;
	}
	b->kick_watch = loop_watch(vm, b->kick_fd, EPOLLIN, on_kick, b, e);
	if (!b->kick_watch) {
		skep_error_prefix(e, "%s", owner);
		backend_free(b);
		return NULL;
	}
	return b;
}

struct char_backend *char_create(struct vm *vm, const char *owner, const char *spec,
				 struct skep_error *e)
{
	const char *arg = spec;
	const struct char_ops *ops = find_ops(spec, &arg);
	struct char_backend *b;

	if (!spec[0]) {
		skep_fail(e, EINVAL, "%s.path: empty; give stdio, pty, unix=/path, tcp=ip:port, "
			  "null or a file", owner);
		return NULL;
	}
	b = backend_alloc(vm, ops, owner, spec, e);
	if (!b)
		return NULL;
	char_ignore_sigpipe();
	if (ops->open(b, arg, e) < 0) {
		char_detach(b);
		backend_free(b);
		return NULL;
	}
	return b;
}

/* The last words of the guest matter most: wait while the peer takes any. */
static void linger(struct char_backend *b)
{
	while (b->out.len && b->out_fd >= 0) {
		struct pollfd p = { .fd = b->out_fd, .events = POLLOUT };
		size_t before = b->out.len;

		write_out(b);
		if (b->out.len < before)
			continue;
		if (b->out_fd < 0 || poll(&p, 1, LINGER_MS) <= 0)
			break;
	}
	if (b->out.len && b->out_fd >= 0)
		skep_say("skep: %s: '%s' did not take the last %zu bytes of output\n", b->owner,
			 b->spec, b->out.len);
}

void char_destroy(struct char_backend *b)
{
	if (!b)
		return;
	b->receiver = NULL;
	if (!vm_suspended(b->vm))
		linger(b);
	b->ops->close(b);
	char_detach(b);
	backend_free(b);
}
