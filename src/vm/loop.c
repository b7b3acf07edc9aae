/*
 * The event loop: epoll over the watched descriptors, an eventfd by which other
 * threads call, and a timerfd for the earliest timer of clock=realtime.
 */
#include "vm/loop.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "vm/vm.h"

#define BATCH	16

struct loop_watch {
	struct event_loop *loop;
	int fd;
	uint32_t events;
	void (*fn)(void *opaque, uint32_t events);
	void *opaque;
	bool ready_always;	/* a regular file: epoll has no say in it */
	bool dead;		/* unwatched; freed between two batches */
	struct loop_watch *next;
};

struct post {
	event_fn fn;
	void *opaque;
};

struct event_loop {
	struct vm *vm;
	int epoll, wake, timer;
	int64_t programmed;		/* guest ns of the timerfd; INT64_MAX: off. Device lock */
	struct loop_watch *watches;	/* device lock */
	unsigned always;		/* watches of regular files that want events */

	pthread_mutex_t post_lock;	/* innermost */
	struct post *posts;
	size_t nposts, cap;
};

static int add_fd(struct event_loop *l, int fd, uint32_t events, void *ptr)
{
	struct epoll_event ev = { .events = events, .data.ptr = ptr };

	return epoll_ctl(l->epoll, EPOLL_CTL_ADD, fd, &ev) < 0 ? -errno : 0;
}

int loop_create(struct vm *vm, struct skep_error *e)
{
	struct event_loop *l = calloc(1, sizeof(*l));

	if (!l)
		return skep_fail(e, ENOMEM, "no memory for the event loop");
	vm->loop = l;
	l->vm = vm;
	l->programmed = INT64_MAX;
	pthread_mutex_init(&l->post_lock, NULL);
	l->epoll = epoll_create1(EPOLL_CLOEXEC);
	l->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	l->timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	if (l->epoll < 0 || l->wake < 0 || l->timer < 0 ||
	    add_fd(l, l->wake, EPOLLIN, &l->wake) < 0 ||
	    add_fd(l, l->timer, EPOLLIN, &l->timer) < 0) {
		int err = errno;

		loop_destroy(vm);
		return skep_fail(e, err, "the event loop cannot be made: %s", strerror(err));
	}
	return 0;
}

static void close_fd(int fd)
{
	if (fd >= 0)
		close(fd);
}

void loop_destroy(struct vm *vm)
{
	struct event_loop *l = vm->loop;
	struct loop_watch *w;

	if (!l)
		return;
	while ((w = l->watches)) {
		l->watches = w->next;
		free(w);
	}
	close_fd(l->timer);
	close_fd(l->wake);
	close_fd(l->epoll);
	pthread_mutex_destroy(&l->post_lock);
	free(l->posts);
	free(l);
	vm->loop = NULL;
}

void loop_wake(struct vm *vm)
{
	uint64_t one = 1;

	/* EAGAIN: the counter is full, so the loop is awake already. */
	if (vm->loop && write(vm->loop->wake, &one, sizeof(one)) < 0)
		return;
}

/* ---- Timers ---------------------------------------------------------- */

static void program(struct event_loop *l, int64_t due)
{
	struct itimerspec t = { 0 };
	int64_t host;

	l->programmed = due;
	if (due != INT64_MAX) {
		/* Zero would switch the timer off. */
		if (__builtin_add_overflow(due, l->vm->clock.offset, &host))
			host = INT64_MAX;
		host = MAX(host, (int64_t)1);
		t.it_value.tv_sec = host / NSEC_PER_SEC;
		t.it_value.tv_nsec = host % NSEC_PER_SEC;
	}
	timerfd_settime(l->timer, TFD_TIMER_ABSTIME, &t, NULL);
}

void loop_timer_changed(struct vm *vm, int64_t due)
{
	struct event_loop *l = vm->loop;

	if (!l || vm->clock.mode != CLOCK_MODE_REALTIME)
		return;
	if (vm->clock.paused)
		due = INT64_MAX;
	/* A later due time than programmed costs one idle wake-up, and no call now. */
	if (due < l->programmed || vm->clock.paused)
		program(l, due);
}

static void run_timers(struct event_loop *l)
{
	struct vm *vm = l->vm;
	uint64_t expired;

	if (read(l->timer, &expired, sizeof(expired)) < 0 && errno != EAGAIN)
		return;
	device_lock(vm);
	l->programmed = INT64_MAX;
	if (vm->clock.mode == CLOCK_MODE_REALTIME && !vm->clock.paused) {
		timers_run(vm, clock_now(&vm->clock));
		if (timers_next_due(vm) < l->programmed)
			program(l, timers_next_due(vm));
	}
	device_unlock(vm);
}

/* ---- Descriptors ----------------------------------------------------- */

struct loop_watch *loop_watch(struct vm *vm, int fd, uint32_t events,
			      void (*fn)(void *, uint32_t), void *opaque, struct skep_error *e)
{
	struct loop_watch *w = calloc(1, sizeof(*w));
	int err;

	if (!w) {
		skep_fail(e, ENOMEM, "no memory to watch a file descriptor");
		return NULL;
	}
	*w = (struct loop_watch){ .loop = vm->loop, .fd = fd, .events = events, .fn = fn,
				  .opaque = opaque };
	err = add_fd(vm->loop, fd, events, w);
	if (err == -EPERM) {
		/* Regular files and /dev/null cannot wait: they are always ready. */
		w->ready_always = true;
		vm->loop->always += events != 0;
		loop_wake(vm);
	} else if (err < 0) {
		skep_fail(e, -err, "file descriptor %d cannot be watched: %s", fd,
			  strerror(-err));
		free(w);
		return NULL;
	}
	w->next = vm->loop->watches;
	vm->loop->watches = w;
	return w;
}

void loop_set_events(struct loop_watch *w, uint32_t events)
{
	struct epoll_event ev = { .events = events, .data.ptr = w };
	uint32_t was = w->events;

	w->events = events;
	if (w->ready_always) {
		w->loop->always += (events != 0) - (was != 0);
		loop_wake(w->loop->vm);
	} else {
		epoll_ctl(w->loop->epoll, EPOLL_CTL_MOD, w->fd, &ev);
	}
}

void loop_unwatch(struct loop_watch *w)
{
	if (!w || w->dead)
		return;
	if (w->ready_always)
		w->loop->always -= w->events != 0;
	else
		epoll_ctl(w->loop->epoll, EPOLL_CTL_DEL, w->fd, NULL);
	w->dead = true;		/* an event of this batch may still name it */
}

static void sweep_dead(struct event_loop *l)
{
	struct loop_watch **p = &l->watches, *w;

	while ((w = *p)) {
		if (w->dead) {
			*p = w->next;
			free(w);
		} else {
			p = &w->next;
		}
	}
}

static void call_watch(struct event_loop *l, struct loop_watch *w, uint32_t events)
{
	device_lock(l->vm);
	if (!w->dead)
		w->fn(w->opaque, events);
	device_unlock(l->vm);
}

static void run_always_ready(struct event_loop *l)
{
	struct loop_watch *w;

	device_lock(l->vm);
	for (w = l->watches; w; w = w->next)
		if (w->ready_always && !w->dead && w->events)
			w->fn(w->opaque, w->events & (EPOLLIN | EPOLLOUT));
	device_unlock(l->vm);
}

/* ---- Calls from other threads ---------------------------------------- */

void loop_post(struct vm *vm, event_fn fn, void *opaque)
{
	struct event_loop *l = vm->loop;
	bool failed = false;
	size_t i;

	pthread_mutex_lock(&l->post_lock);
	for (i = 0; i < l->nposts; i++)
		if (l->posts[i].fn == fn && l->posts[i].opaque == opaque)
			break;
	if (i == l->cap) {
		size_t cap = l->cap * 2 + 16;
		struct post *p = realloc(l->posts, cap * sizeof(*p));

		failed = !p;
		if (p) {
			l->posts = p;
			l->cap = cap;
		}
	}
	if (i == l->nposts && !failed)
		l->posts[l->nposts++] = (struct post){ fn, opaque };
	pthread_mutex_unlock(&l->post_lock);

	if (failed)
		vm_request_error(vm, "no memory for a call to the vm thread");
	loop_wake(vm);
}

static bool take_post(struct event_loop *l, struct post *p)
{
	bool some;

	pthread_mutex_lock(&l->post_lock);
	some = l->nposts != 0;
	if (some) {
		*p = l->posts[0];
		l->nposts--;
		memmove(l->posts, l->posts + 1, l->nposts * sizeof(*p));
	}
	pthread_mutex_unlock(&l->post_lock);
	return some;
}

/* Those that wait now: one that posts itself again must not keep the rest of the loop waiting. */
static void run_posts(struct event_loop *l)
{
	uint64_t count;
	struct post p;
	size_t n;

	if (read(l->wake, &count, sizeof(count)) < 0 && errno != EAGAIN)
		return;
	pthread_mutex_lock(&l->post_lock);
	n = l->nposts;
	pthread_mutex_unlock(&l->post_lock);
	while (n-- && take_post(l, &p)) {
		device_lock(l->vm);
		p.fn(p.opaque);
		device_unlock(l->vm);
	}
}

void loop_iterate(struct vm *vm)
{
	struct event_loop *l = vm->loop;
	struct epoll_event ev[BATCH];
	int i, n, wait;

	device_lock(vm);
	sweep_dead(l);
	wait = l->always ? 0 : -1;
	device_unlock(vm);

	n = epoll_wait(l->epoll, ev, BATCH, wait);
	for (i = 0; i < n; i++) {
		if (ev[i].data.ptr == &l->wake)
			run_posts(l);
		else if (ev[i].data.ptr == &l->timer)
			run_timers(l);
		else
			call_watch(l, ev[i].data.ptr, ev[i].events);
	}
	if (!wait)
		run_always_ready(l);
}
