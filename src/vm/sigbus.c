/* What a signal handler may do, and no more: atomics, mmap and write. */
#include "vm/sigbus.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <sys/mman.h>
#include <unistd.h>

#define PAGE	4096ull
#define SLOTS	256		/* two a machine */

/*
 * A range.  The version is odd while the rest is being changed.  A handler that meets a slot in
 * change passes on: the range that it is after is in use, and its slot does not change.
 */
struct slot {
	_Atomic unsigned version;
	_Atomic uintptr_t from, to;	/* from == to: free */
	_Atomic uint64_t gpa;
	_Atomic(struct sigbus_sink *) sink;
};

static struct slot slots[SLOTS];
static pthread_mutex_t slots_lock = PTHREAD_MUTEX_INITIALIZER;	/* who changes them */
static struct sigaction before;		/* set before our handler is */

static bool find(uintptr_t at, uint64_t *gpa, struct sigbus_sink **sink)
{
	for (unsigned i = 0; i < SLOTS; i++) {
		struct slot *s = &slots[i];
		unsigned version = atomic_load(&s->version);
		uintptr_t from = atomic_load(&s->from), to = atomic_load(&s->to);

		if (version & 1 || at < from || at >= to)
			continue;
		*gpa = atomic_load(&s->gpa) + (at - from);
		*sink = atomic_load(&s->sink);
		if (atomic_load(&s->version) == version)
			return true;
	}
	return false;
}

/* Not ours: as if this file did not exist. */
static void pass_on(int sig, siginfo_t *info, void *context)
{
	struct sigaction plain = { .sa_handler = SIG_DFL };

	if (before.sa_flags & SA_SIGINFO) {
		before.sa_sigaction(sig, info, context);
		return;
	}
	if (before.sa_handler != SIG_DFL && before.sa_handler != SIG_IGN) {
		before.sa_handler(sig);
		return;
	}
	if (before.sa_handler == SIG_IGN && info->si_code <= 0)
		return;
	/* The access happens again and ends the process; what somebody sent has to be sent again. */
	sigaction(sig, &plain, NULL);
	if (info->si_code <= 0)
		raise(sig);
}

static void handle(int sig, siginfo_t *info, void *context)
{
	uintptr_t at = (uintptr_t)info->si_addr;
	struct sigbus_sink *sink;
	uint64_t gpa, none = 0, one = 1;
	int saved = errno;

	/* si_code <= 0: sent by somebody, and there is no address. */
	if (info->si_code <= 0 || !find(at, &gpa, &sink) ||
	    mmap((void *)(at & ~(uintptr_t)(PAGE - 1)), PAGE, PROT_READ | PROT_WRITE,
		 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0) == MAP_FAILED) {
		pass_on(sig, info, context);
		errno = saved;
		return;
	}
	atomic_compare_exchange_strong(&sink->where, &none, (gpa & ~(PAGE - 1)) | 1);
	if (sink->eventfd >= 0 && write(sink->eventfd, &one, sizeof(one)) < 0) {
		/* The counter is full: it has told already. */
	}
	errno = saved;
}

/* Also where somebody has taken the signal since the last time. slots_lock. */
static int install(void)
{
	struct sigaction ours = { .sa_sigaction = handle, .sa_flags = SA_SIGINFO | SA_ONSTACK }, now;

	sigemptyset(&ours.sa_mask);
	if (sigaction(SIGBUS, NULL, &now) < 0)
		return -errno;
	if (now.sa_flags & SA_SIGINFO && now.sa_sigaction == handle)
		return 0;
	before = now;
	return sigaction(SIGBUS, &ours, NULL) < 0 ? -errno : 0;
}

static void change(struct slot *s, uintptr_t from, uintptr_t to, uint64_t gpa,
		   struct sigbus_sink *sink)
{
	atomic_fetch_add(&s->version, 1);
	atomic_store(&s->from, from);
	atomic_store(&s->to, to);
	atomic_store(&s->gpa, gpa);
	atomic_store(&s->sink, sink);
	atomic_fetch_add(&s->version, 1);
}

int sigbus_watch(const void *host, size_t len, uint64_t gpa, struct sigbus_sink *sink)
{
	uintptr_t from = (uintptr_t)host;
	int err;

	pthread_mutex_lock(&slots_lock);
	err = install();
	if (!err) {
		unsigned i = 0;

		while (i < SLOTS && atomic_load(&slots[i].sink))
			i++;
		if (i < SLOTS)
			change(&slots[i], from, from + len, gpa, sink);
		else
			err = -ENOSPC;
	}
	pthread_mutex_unlock(&slots_lock);
	return err;
}

void sigbus_unwatch(struct sigbus_sink *sink)
{
	pthread_mutex_lock(&slots_lock);
	for (unsigned i = 0; i < SLOTS; i++)
		if (atomic_load(&slots[i].sink) == sink)
			change(&slots[i], 0, 0, 0, NULL);
	pthread_mutex_unlock(&slots_lock);
}
