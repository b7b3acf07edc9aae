/*
 * Calls that fail on demand.  The program that links inject.c has its own malloc, pwritev, fsync and so
 * on, which the libraries find before the C library's: what libzstd or jansson allocates is counted too.
 * They do what they always do, but on threads that are marked the n-th call of a kind fails.
 *
 * fsync does nothing: the tests do not pull the plug.
 */
#ifndef SKEP_TESTS_FAULTS_INJECT_H
#define SKEP_TESTS_FAULTS_INJECT_H

#include <stdbool.h>
#include <stddef.h>

enum fault_kind {
	FAULT_MEMORY,		/* malloc, calloc, realloc, strdup ... */
	FAULT_COPY,		/* mmap of 2 MiB on a thread that is not marked: the guest's, in a live cut */
	FAULT_OPEN,		/* whatever makes a descriptor, or a stream */
	FAULT_READ, FAULT_WRITE, FAULT_FSYNC, FAULT_LINK, FAULT_RENAME, FAULT_UNLINK, FAULT_STAT,
	FAULT_LOCK, FAULT_ACCESS, FAULT_MMAP, FAULT_MADVISE, FAULT_THREAD, FAULT_RANDOM, FAULT_WATCH,
	FAULT_SIGNAL, FAULT_IOCTL, FAULT_SEND, FAULT_RECEIVE,
	FAULT_KINDS
};

extern const char *const fault_names[FAULT_KINDS];

#define FAULT_SHORT (-1)	/* in the place of an errno: reads and writes do half of it */

/*
 * Marks this thread, and with it those that it makes from now on; the n-th call (from 1) of the kind
 * fails with error from now on, and with all that come after it if stays.
 */
void fault_arm(enum fault_kind kind, unsigned n, int error, bool stays);
/* From now on all threads count as marked, but those that are spared, and those that they make. */
void fault_everywhere(bool on);
void fault_spare_me(void);
/* No more; the threads are unmarked.  Did a call fail? */
bool fault_disarm(void);
/* Calls of a kind on marked threads since fault_arm. */
unsigned fault_calls(enum fault_kind kind);

/* Blocks of memory that are allocated, and bytes that are mapped, less those given back since. */
long fault_blocks(void);
long fault_mapped(void);

#endif
