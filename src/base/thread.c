#include "base/thread.h"

#include <signal.h>

int thread_start(pthread_t *t, void *(*main)(void *), void *opaque)
{
	/* Blocked, these would kill the process where a handler might explain. */
	static const int synchronous[] = { SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGABRT };
	sigset_t blocked, old;
	unsigned i;
	int err;

	sigfillset(&blocked);
	for (i = 0; i < sizeof(synchronous) / sizeof(synchronous[0]); i++)
		sigdelset(&blocked, synchronous[i]);
	pthread_sigmask(SIG_BLOCK, &blocked, &old);
	err = pthread_create(t, NULL, main, opaque);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	return -err;
}
