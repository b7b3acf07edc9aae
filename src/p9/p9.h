/*
 * A 9P2000.L server for one directory of the host.
 *
 * It knows nothing of how messages travel: a transport (virtio-9p, a socket) makes a session
 * and submits requests; each comes back through its callbacks, on a thread of the server's or
 * from p9_submit itself.  Requests of a session run in parallel, as the protocol allows, and
 * Tflush takes back what has not begun.
 *
 * The client is hostile.  What keeps it below the directory is in node.h.
 */
#ifndef SKEP_P9_P9_H
#define SKEP_P9_P9_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include "base/error.h"
#include "p9/proto.h"

struct p9_server;
struct p9_session;

/* How owners, modes and special files of the client are kept on the host. */
enum p9_security {
	P9_MAPPED,		/* in an extended attribute; the host's files are the server's own */
	P9_PASSTHROUGH,		/* as they are: wants capabilities */
	P9_NONE,		/* as they are where the server may, and left alone where not */
};

/* Other file systems that are mounted below the directory. */
enum p9_multidevs {
	P9_REMAP,		/* qids tell them apart */
	P9_FORBID,		/* cannot be entered */
	P9_WARN,		/* qids are inode numbers, which may collide; said once */
};

#define P9_MAPS_MAX	16

/* Ids of the host [host, host+count) are the client's [guest, guest+count). */
struct p9_idmap {
	uint32_t host, guest, count;
};

struct p9_options {
	const char *path;	/* borrowed until p9_server_create returns */
	bool ro;
	enum p9_security security;
	enum p9_multidevs multidevs;
	bool cache;		/* may clients keep contents by a file's version? */
	bool squash;		/* all belongs to this user and group of the client's */
	uint32_t squash_uid, squash_gid;
	struct p9_idmap map[P9_MAPS_MAX];
	unsigned nmap;		/* 0: ids are the same on both sides */
	uint32_t msize;		/* bytes of the largest message */
	uint32_t fids;		/* quota of a session */
	uint32_t files;		/* quota of descriptors of the server */
	uint32_t requests;	/* quota of requests in flight of a session */
	unsigned workers;	/* threads */
};

void p9_options_init(struct p9_options *o);
/*
 * Sets one option from text ("security", "mapped-xattr"); a value of NULL or "" is a bare word
 * ("ro").  -ENOENT: there is no such option.
 */
int p9_option_set(struct p9_options *o, const char *key, const char *value, struct skep_error *e);

#define P9_REPLY_MAX	4608u	/* the largest answer without data: an Rreadlink */

struct p9_request {
	/* The transport's: */
	struct p9_session *session;
	/*
	 * The message with its head, in memory that nobody else writes.  Of a Twrite it may be the
	 * first P9_WRITE_HEAD bytes alone; the data are in wdata then, as many bytes as the head's
	 * size says.
	 */
	const uint8_t *message;
	uint32_t len;
	const struct iovec *wdata;
	unsigned nwdata;
	/* Where the data of an Rread or Rreaddir go. */
	const struct iovec *rdata;
	unsigned nrdata;
	uint32_t reply_room;		/* bytes of the largest answer that the transport can carry */
	/*
	 * The answer is ready to be sent; then, r is the transport's again.  Both on any thread, or from
	 * p9_submit itself; both once, in this order.
	 */
	void (*answer)(struct p9_request *r);
	void (*release)(struct p9_request *r);
	void *opaque;

	/* The answer: reply_len bytes of reply, then `data` bytes of rdata. 0: none (flushed). */
	uint32_t reply_len, data;
	uint8_t reply[P9_REPLY_MAX];

	/* The server's: */
	uint16_t tag;
	bool answering;			/* its tag is free again */
	_Atomic bool cancelled;
	struct p9_request *next;	/* in the queue */
	struct p9_request *hash_next;	/* by tag */
	struct p9_request *flushers;	/* Tflush that wait for this one, by `next` */
};

/*
 * Opens o->path and starts the threads.  owner ("pci.0.5.0", "9pserve") is for sentences.
 * NULL with e set.  The current directory and umask of the calling thread stay.
 */
struct p9_server *p9_server_create(const struct p9_options *o, const char *owner,
				   struct skep_error *e);
void p9_server_destroy(struct p9_server *s);	/* without sessions; NULL is fine */

/* NULL: no memory. Any thread. */
struct p9_session *p9_session_create(struct p9_server *s);
/* Waits for its requests, which are answered; then gives up all fids and locks. NULL is fine. */
void p9_session_destroy(struct p9_session *ss);
/* All fids and locks are given up and the version is to be agreed on again (a reset device). */
void p9_session_reset(struct p9_session *ss);
/* Waits until every request has come back.  None may be submitted meanwhile. */
void p9_session_drain(struct p9_session *ss);
uint32_t p9_session_msize(struct p9_session *ss);	/* agreed on; before that the server's own */

/* Any thread; never waits for the file system.  r is the server's until release(r) is called. */
void p9_submit(struct p9_request *r);

#endif
