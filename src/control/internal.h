/* What the files of the control room share. */
#ifndef SKEP_CONTROL_INTERNAL_H
#define SKEP_CONTROL_INTERNAL_H

#include <jansson.h>
#include <limits.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/un.h>

#include "base/error.h"
#include "snapshot/save.h"

#define CONTROL_PROTOCOL	1
#define CONTROL_CLIENTS		16
#define CONTROL_BACKLOG		128
#define CONTROL_LINE_MAX	(64 * 1024)	/* bytes of a request, newline included */
#define CONTROL_OUT_PAUSE	(32 * 1024)	/* unread output from which requests wait */
#define CONTROL_OUT_MAX		(512 * 1024)	/* unread output at which a client is dropped */
#define CONTROL_STUCK_NS	(10 * 1000000000ll)	/* it has not taken a byte for so long: dropped */

/* ---- runtime.c: the directory, names and addresses ---------------------- */

/* Can this be a machine's name, and so a file's? 0 or -EINVAL with e set. */
int control_check_name(const char *name, struct skep_error *e);
/* The address of a machine's socket in a directory that is open. */
int control_address(int dir, const char *path, const char *name, struct sockaddr_un *sa,
		    struct skep_error *e);
int64_t control_now(void);		/* host monotonic, ns */
/* JSON of a text from anywhere: what is not UTF-8 becomes '?'.  A new reference. */
json_t *control_text(const char *s);

/* ---- claim.c: a name that is ours as long as we hold its lock ------------ */

struct claim {
	int dir, lock, listen;
	char name[64];
};

/* -EADDRINUSE: a machine of that name runs; e says which.  Nothing is left behind on failure. */
int claim_open(struct claim *c, const char *name, struct skep_error *e);
void claim_close(struct claim *c);

/* ---- connection.c: a client --------------------------------------------- */

struct control;

struct connection {
	struct control *control;
	int fd;
	int passed;		/* a descriptor that came and waits for its request, or -1 */
	bool subscribed;
	bool ended;		/* says nothing any more: closed when it has taken its output */
	bool dead;		/* to be freed at the end of this round */
	bool skipping;		/* inside a line that was too long */
	int64_t stuck_since;	/* output has waited since then; 0: none waits */
	size_t in_len, searched;
	char *out;
	size_t out_len, out_at, out_cap;
	char in[CONTROL_LINE_MAX];
};

/* Takes the descriptor over.  NULL: no memory, closed. */
struct connection *connection_create(struct control *c, int fd);
void connection_destroy(struct connection *n);
/* What poll is to watch for. */
short connection_events(const struct connection *n);
/* Reads, serves requests, writes: never blocks. */
void connection_ready(struct connection *n, short revents);
/* Queues a line and sends what goes at once.  Steals the reference. */
void connection_send(struct connection *n, json_t *line);
void connection_reply(struct connection *n, json_t *id, json_t *value);	/* steals value */
void connection_fail(struct connection *n, json_t *id, int err, const char *text);
static inline bool connection_busy(const struct connection *n) { return n->out_at < n->out_len; }

/* ---- commands.c ---------------------------------------------------------- */

/* A request is a line without its newline. */
void control_serve(struct connection *n, const char *line, size_t len);

/* ---- saving.c: the one save that may run --------------------------------- */

enum saving_state {
	SAVING_NONE,
	SAVING_RUNS,
	SAVING_WRITTEN,		/* its client is to say commit or abort */
};

struct saving {
	/* The control thread's. */
	enum saving_state state;
	struct save *save;
	struct connection *owner;	/* NULL: it went away */
	json_t *id;
	bool suspend;
	char *path;

	pthread_mutex_t lock;
	/* From the save's thread; lock. */
	struct save_progress progress;
	bool fresh;			/* progress has not been told yet */
	int64_t told_at;
	bool done, failed;
	struct save_result result;
	struct skep_error error;
};

/* Commands: 0 with *ret, or a negative errno with e set; 1: the reply comes later. */
int saving_start(struct connection *n, json_t *args, json_t *id, json_t **ret,
		 struct skep_error *e);
int saving_commit(struct connection *n, json_t *args, json_t *id, json_t **ret,
		  struct skep_error *e);
int saving_abort(struct connection *n, json_t *args, json_t *id, json_t **ret,
		 struct skep_error *e);
/* The save's thread has said something: pass it on. */
void saving_news(struct control *c);
/* A client is gone, and its save with it. */
void saving_forget(struct control *c, struct connection *n);
/* Gives up whatever there is, once it can; true: nothing is left. */
bool saving_finish(struct control *c);
/* What a status says of it: an object, or null. A new reference. */
json_t *saving_status(struct control *c);

/* ---- server.c -------------------------------------------------------------- */

struct control {
	struct vm *vm;
	struct claim claim;
	pthread_t thread;
	int wake;			/* eventfd: the thread is to look around */
	_Atomic bool stop, started;
	bool started_told;
	int64_t begin;			/* host monotonic */
	char *restored_from;		/* path of the snapshot; NULL: the machine was started */
	int64_t accept_after;		/* descriptors were short; 0: accept */
	int64_t stop_at;		/* when stop was seen; 0: it was not */
	struct connection *clients[CONTROL_CLIENTS];
	unsigned nclients;
	struct saving saving;
};

/* Tells every subscriber.  Steals the reference. */
void control_event(struct control *c, json_t *event);
void control_wake(struct control *c);	/* Any thread. */

#endif
