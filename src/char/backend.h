/* What the backends share among themselves; devices include char/char.h only. */
#ifndef SKEP_CHAR_BACKEND_H
#define SKEP_CHAR_BACKEND_H

#include "char/char.h"

struct loop_watch;

struct char_ops {
	/* "stdio" matches as a whole, "tcp=" as a prefix; "" is any path. */
	const char *name;
	const char *help;
	size_t size;		/* of the instance, which starts with struct char_backend */
	int (*open)(struct char_backend *b, const char *arg, struct skep_error *e);
	/* Looks at input before the device: removes escapes in place, returns what is left. */
	size_t (*filter)(struct char_backend *b, uint8_t *data, size_t len);
	/* The peer is gone (the descriptors are closed by now): wait for the next one. */
	void (*gone)(struct char_backend *b);
	void (*close)(struct char_backend *b);
};

/* A byte queue; size bounds it only in so far as the user does. */
struct char_queue {
	uint8_t *data;
	size_t cap, head, len;
};

enum char_flags {
	CHAR_OWN_FDS = 1,	/* close them when the peer is gone */
	CHAR_IN_FILE = 2,	/* in_fd cannot be polled and never blocks */
	CHAR_OUT_FILE = 4,	/* the same of out_fd */
	CHAR_SOCKET = 8,	/* send with MSG_NOSIGNAL | MSG_DONTWAIT */
	CHAR_PEERS = 16,	/* peers come and go: keep output for the next one */
	CHAR_TERMINAL = 32,	/* read ahead of the device, for the escape key's sake */
};

struct char_backend {
	const struct char_ops *ops;
	struct vm *vm;
	char owner[32];
	char *spec;			/* for sentences: as it may be shown */
	unsigned flags;		/* CHAR_* */

	int in_fd, out_fd;	/* -1: none; equal for sockets and the like */
	struct loop_watch *in_watch, *out_watch;	/* out_watch unused if equal */
	uint32_t in_events, out_events;			/* what is watched now */
	int kick_fd;		/* eventfd: something to do for the vm thread */
	struct loop_watch *kick_watch;
	bool kicked;

	struct char_queue out;
	struct char_queue in;	/* read, not yet taken by the device */
	bool was_full;		/* drained() is owed */
	bool out_gone;		/* nobody will ever take output again */

	const struct char_receiver *receiver;
	void *receiver_opaque;
};

/* A peer is there.  Either descriptor may be -1. */
int char_attach(struct char_backend *b, int in_fd, int out_fd, struct skep_error *e);
/* Stops watching, closes owned descriptors; does not call gone. */
void char_detach(struct char_backend *b);
/* Writes what the peer takes now. */
void char_flush(struct char_backend *b);
/* Sends a break to the device. */
void char_break(struct char_backend *b);

/* Queue helpers; push returns -ENOMEM with nothing queued. */
int char_queue_push(struct char_queue *q, const uint8_t *data, size_t len);
/* The contiguous part at the head. */
size_t char_queue_peek(const struct char_queue *q, const uint8_t **data);
void char_queue_drop(struct char_queue *q, size_t len);
void char_queue_finish(struct char_queue *q);

/* Default hooks. */
size_t char_filter_none(struct char_backend *b, uint8_t *data, size_t len);
void char_gone_for_good(struct char_backend *b);
void char_close_nothing(struct char_backend *b);

extern const struct char_ops char_stdio, char_null, char_pty, char_unix, char_tcp, char_path;

#endif
