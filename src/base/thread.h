/* Threads that leave signals to the one that made them. */
#ifndef SKEP_BASE_THREAD_H
#define SKEP_BASE_THREAD_H

#include <pthread.h>

/*
 * Starts a thread in which every signal is blocked but the synchronous ones.
 * It names itself: from outside that takes a walk through /proc.  0 or a
 * negative errno.
 */
int thread_start(pthread_t *t, void *(*main)(void *), void *opaque);

#endif
