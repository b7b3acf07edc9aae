/*
 * A listening socket that takes one peer at a time; the next one waits in the
 * kernel's queue until the first has left.
 */
#ifndef SKEP_CHAR_LISTEN_H
#define SKEP_CHAR_LISTEN_H

#include "char/backend.h"

struct listen_backend {
	struct char_backend base;
	int fd;				/* listens */
	struct loop_watch *watch;	/* while nobody is connected */
	char unlink_path[108];		/* Unix: removed at the end if still ours */
	uint64_t dev, ino;
};

/* Takes fd (closes it on failure). */
int listen_start(struct listen_backend *l, int fd, struct skep_error *e);
void listen_gone(struct char_backend *b);
void listen_close(struct char_backend *b);

#endif
