/*
 * A small 9P2000.L client for tests: one message at a time, or several in flight by hand.
 *
 * Messages are described by a text: b w d q are integers of 1, 2, 4 and 8 bytes, s is a C string,
 * x is bytes (pointer, then size_t).
 */
#ifndef SKEP_TESTS_P9_CLIENT_H
#define SKEP_TESTS_P9_CLIENT_H

#include <stdarg.h>

#include "p9/p9.h"
#include "p9/socket.h"
#include "p9/wire.h"

#define CLIENT_ROOM	(1024 * 1024 + 64)

struct client {
	struct p9_server *server;	/* NULL: somebody else's */
	struct p9_connection *connection;
	int fd;
	uint8_t *out, *in;		/* CLIENT_ROOM bytes each */
	struct p9_in body;		/* of the answer */
	uint8_t type;
	uint16_t tag;
};

struct client_attr {
	struct p9_qid qid;
	uint32_t mode, uid, gid;
	uint64_t nlink, rdev, size, blocks;
	int64_t atime, mtime, ctime;
};

/* A server for path with options "key=value key ..." and a client that is connected to it. */
void client_start(struct client *c, const char *path, const char *options);
/* Another client of the same server. */
void client_join(struct client *c, struct client *other);
/* Talks to what is at the end of this socket. */
void client_connect(struct client *c, int fd);
void client_stop(struct client *c);

/* Sends; then receives an answer, which must come. */
void client_send(struct client *c, uint8_t type, uint16_t tag, const char *what, ...);
void client_vsend(struct client *c, uint8_t type, uint16_t tag, const char *what, va_list ap);
void client_raw(struct client *c, const void *bytes, size_t n);
bool client_receive(struct client *c);	/* false: the server has closed */

/* One call: 0 and the answer in c->body, or -errno as the server gave it. */
int client_call(struct client *c, uint8_t type, const char *what, ...);

/* What tests do all the time; 0 or -errno. */
int client_version(struct client *c, uint32_t msize);
int client_attach(struct client *c, uint32_t fid, uint32_t uid);	/* with a Tversion before */
int client_walk(struct client *c, uint32_t fid, uint32_t newfid, const char *path);
int client_clunk(struct client *c, uint32_t fid);
int client_open(struct client *c, uint32_t fid, uint32_t flags);
/* fid (a directory) becomes the new file, open. */
int client_create(struct client *c, uint32_t fid, const char *name, uint32_t flags, uint32_t mode);
int client_getattr(struct client *c, uint32_t fid, struct client_attr *a);
int client_setattr(struct client *c, uint32_t fid, uint32_t valid, uint32_t mode, uint32_t uid,
		   uint32_t gid, uint64_t size);
/* Bytes, or -errno. */
int client_read(struct client *c, uint32_t fid, uint64_t offset, void *buf, uint32_t n);
int client_write(struct client *c, uint32_t fid, uint64_t offset, const void *buf, uint32_t n);

#endif
