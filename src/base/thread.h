/* Threads that leave signals to the one that made them. */
#ifndef SKEP_BASE_THREAD_H
#define SKEP_BASE_THREAD_H

#include <pthread.h>

/*
 * Starts a thread, named (15 characters at most), in which every signal is
 * blocked but the synchronous ones.  0 or a negative errno.
 */
int thread_start(pthread_t *t, const char *name, void *(*main)(void *), void *opaque);

#endif
