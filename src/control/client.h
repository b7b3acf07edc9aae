/* The other side of the control socket, for commands. One thread. */
#ifndef SKEP_CONTROL_CLIENT_H
#define SKEP_CONTROL_CLIENT_H

#include <jansson.h>

#include "base/error.h"

/* The runtime directory: $SKEP_RUNTIME_DIR, $XDG_RUNTIME_DIR/skep, /run/skep (root), /tmp/skep-UID. */
int control_directory(char *buf, size_t size, struct skep_error *e);

struct control_client;
/* Finds and connects to a machine by its name.  NULL with e set; e lists those that run. */
struct control_client *control_connect(const char *name, struct skep_error *e);
void control_close(struct control_client *c);	/* NULL is fine */
/*
 * Sends {"execute": command, "arguments": {...}} (arguments: borrowed, may be NULL), with a
 * descriptor (or -1), and waits for the reply.  event (may be NULL) sees what comes before it.
 * Returns the "return" object (a new reference), or NULL with the sentence of the machine.
 */
json_t *control_call(struct control_client *c, const char *command, json_t *arguments, int fd,
		     void (*event)(void *opaque, json_t *event), void *opaque, struct skep_error *e);

#endif
