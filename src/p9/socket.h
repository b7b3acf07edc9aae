/*
 * 9P over a stream socket.  A connection is a session with two threads of its own: one reads
 * messages, one sends answers, so that a client which does not take its answers holds up
 * nobody but itself.
 */
#ifndef SKEP_P9_SOCKET_H
#define SKEP_P9_SOCKET_H

#include "p9/p9.h"

struct p9_connection;

/* Takes fd, also when it fails (NULL). */
struct p9_connection *p9_connection_start(struct p9_server *s, uint32_t msize, int fd,
					  struct skep_error *e);
/* Has the client gone? Any thread. */
bool p9_connection_over(const struct p9_connection *c);
/* Its session, for who saves it. */
struct p9_session *p9_connection_session(struct p9_connection *c);
/* Ends it whatever it does, waits for what is in flight, frees it. */
void p9_connection_end(struct p9_connection *c);

/*
 * "unix:/path" or "tcp:host:port" (port 0: any, told in *port): a listening socket, or a negative
 * errno with e set.  A Unix socket's name is for its owner alone.
 */
int p9_listen(const char *where, uint16_t *port, struct skep_error *e);

#endif
