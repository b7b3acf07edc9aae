/* The other side of the control socket, for commands. One thread. */
#ifndef SKEP_CONTROL_CLIENT_H
#define SKEP_CONTROL_CLIENT_H

#include <jansson.h>
#include <limits.h>
#include <stdbool.h>

#include "base/error.h"

/*
 * The runtime directory: $SKEP_RUNTIME_DIR; /run/skep for root; $XDG_RUNTIME_DIR/skep where that is
 * a directory of ours; /tmp/skep-UID.
 */
int control_directory(char *buf, size_t size, struct skep_error *e);
/*
 * Opens the runtime directory, which must be ours alone; make: makes it first.  Returns the
 * descriptor, or a negative errno with e set (-ENOENT when nobody has made it). path gets its name.
 */
int control_open_directory(bool make, char path[PATH_MAX], struct skep_error *e);

/*
 * The names of machines that have a socket there that somebody listens on, sorted and
 * NULL-terminated; control_free_names.  NULL with e set.  No directory: no names.
 */
char **control_names(struct skep_error *e);
void control_free_names(char **names);	/* NULL is fine */

struct control_client;
/* Finds and connects to a machine by its name.  NULL with e set; e lists those that run. */
struct control_client *control_connect(const char *name, struct skep_error *e);
void control_close(struct control_client *c);	/* NULL is fine */
/* Replies are waited for this long from now on; 0 (at first): for ever. */
void control_set_timeout(struct control_client *c, unsigned ms);
/*
 * Sends {"execute": command, "arguments": {...}} (arguments: borrowed, may be NULL), with a
 * descriptor (or -1), and waits for the reply.  event (may be NULL) sees what comes before it.
 * Returns the "return" object (a new reference), or NULL with the sentence of the machine.
 */
json_t *control_call(struct control_client *c, const char *command, json_t *arguments, int fd,
		     void (*event)(void *opaque, json_t *event), void *opaque, struct skep_error *e);
/*
 * Waits until the machine's process has ended, or at most ms milliseconds (-1: for ever): 0,
 * -ETIMEDOUT or another negative errno with e set.
 */
int control_wait(struct control_client *c, int ms, void (*event)(void *opaque, json_t *event),
		 void *opaque, struct skep_error *e);

#endif
