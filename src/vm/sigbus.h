/*
 * SIGBUS on RAM that is a private mapping of a file: the file was truncated under us, or cannot
 * be read.  The page becomes zeroes, so that whoever looked at it goes on; where it was is noted,
 * and an eventfd tells the vm thread, which stops the machine with a sentence (memory_map_file).
 *
 * A process has one handler for a signal, so the ranges that are watched stand in one table for
 * all machines: the second process-wide state beside char/terminal.c.  It is fixed in size and
 * read without a lock.  A SIGBUS elsewhere goes to whoever had the signal before.
 */
#ifndef SKEP_VM_SIGBUS_H
#define SKEP_VM_SIGBUS_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

struct sigbus_sink {
	_Atomic uint64_t where;		/* 0, or guest-physical page | 1 of the first loss */
	int eventfd;			/* written at each loss; -1: none.  Owner's */
};

/*
 * From now on a SIGBUS in [host, host+len), which shows guest-physical gpa, goes to the sink;
 * page aligned.  0, -ENOSPC when the table is full, or what sigaction said.  Any thread.
 */
int sigbus_watch(const void *host, size_t len, uint64_t gpa, struct sigbus_sink *sink);
/* No range goes to the sink any more.  Nobody touches its ranges by now. Any thread. */
void sigbus_unwatch(struct sigbus_sink *sink);

#endif
