/*
 * Character backends: where the bytes of a serial port come from and go to.
 *
 *	stdio		the terminal, raw, with an escape key; or whatever 0 and 1 are
 *	null		nothing
 *	pty		a new pseudo-terminal, whose name is printed
 *	unix=/path	a Unix socket on which we listen
 *	tcp=ip:port	a TCP socket on which we listen; IPv6 in brackets
 *	/path		a file (output is appended), FIFO or device node
 *
 * Output never blocks and is never dropped while somebody is there to take
 * it: what the peer does not take at once waits in a buffer, and the device
 * sees by char_room that it should hold back.  While a socket or pty has no
 * peer the last CHAR_KEEP bytes are kept for whoever comes.
 *
 * Input is read only as far as the device has room, so the host side is
 * paced and nothing is lost.
 *
 * While the machine stands nothing goes out and nothing reaches the device; what
 * waits in either direction is part of a snapshot, by content.  A machine that
 * was suspended writes no more: its last bytes are the restored one's to write.
 *
 * The device lock is held for every function and callback here, and all
 * callbacks but those made from char_write come from the vm thread.
 */
#ifndef SKEP_CHAR_CHAR_H
#define SKEP_CHAR_CHAR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "base/error.h"
#include "state/state.h"

#define CHAR_KEEP	(64u << 10)	/* bytes kept while nobody is connected */
#define CHAR_LIMIT	(64u << 10)	/* buffered before the device should wait, realtime */
#define CHAR_LIMIT_VIRTUAL (16u << 20)	/* the same with clock=virtual */
#define CHAR_UNSENT_MAX	(32u << 20)	/* out: each stop of the machine may add a FIFO to the limit */
#define CHAR_UNREAD_MAX	(1u << 20)	/* in */

struct vm;
struct char_backend;

/* The device's side. */
struct char_receiver {
	size_t (*room)(void *opaque);	/* bytes that receive would take now */
	void (*receive)(void *opaque, const uint8_t *data, size_t len);	/* len <= room */
	void (*brk)(void *opaque);	/* a break condition */
	void (*drained)(void *opaque);	/* char_room was 0 and no longer is */
};

/*
 * owner is the configuration path ("lpc.com1") and names the port in
 * sentences; both strings are copied.  NULL with e set on failure.
 * vm thread, before any vCPU runs.
 */
struct char_backend *char_create(struct vm *vm, const char *owner, const char *spec,
				 struct skep_error *e);
/* Gives a slow peer a bounded time to take what is buffered. NULL is fine. */
void char_destroy(struct char_backend *b);
void char_set_receiver(struct char_backend *b, const struct char_receiver *r, void *opaque);

/* Takes all bytes, whatever char_room says. */
void char_write(struct char_backend *b, const void *data, size_t len);
/* Bytes to go before the device should hold back. */
size_t char_room(const struct char_backend *b);
/*
 * Waits until there is room, giving up the device lock meanwhile; false when
 * the machine is being stopped and the caller should just write.  vCPU side.
 */
bool char_wait(struct char_backend *b);
/* The receiver has room again: read on (soon, on the vm thread). */
void char_accept(struct char_backend *b);

/* The machine is about to stand: what the peer takes at once goes out, the rest waits. */
void char_quiesce(struct char_backend *b);
/* It goes on (soon, on the vm thread). */
void char_resume(struct char_backend *b);
/*
 * What waits to go out and what the device has not taken yet, into blobs that are empty before.
 * -ENOMEM: not all is there.
 */
int char_export(const struct char_backend *b, struct state_blob *unsent,
		struct state_blob *unread);
/* Replaces both; the machine stands.  Without a peer and the hope of one nothing goes out. */
void char_import(struct char_backend *b, const struct state_blob *unsent,
		 const struct state_blob *unread);

/* One line a backend, for `-l help`. Any thread, no lock. */
void char_describe(FILE *out);

/*
 * Puts the process's terminal back as it was, if stdio made it raw.
 * Async-signal-safe; for whoever owns a handler of a fatal signal.
 */
void char_restore_terminal(void);

#endif
