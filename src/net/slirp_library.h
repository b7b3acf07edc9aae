/* libslirp, which is loaded when it is used: it brings GLib with it. */
#ifndef SKEP_NET_SLIRP_LIBRARY_H
#define SKEP_NET_SLIRP_LIBRARY_H

#include <slirp/libslirp.h>

#include "base/error.h"

struct slirp_library {
	__typeof__(&slirp_new) create;
	__typeof__(&slirp_cleanup) cleanup;
	__typeof__(&slirp_pollfds_fill) pollfds_fill;
	__typeof__(&slirp_pollfds_poll) pollfds_poll;
	__typeof__(&slirp_input) input;
	__typeof__(&slirp_handle_timer) handle_timer;
	__typeof__(&slirp_add_hostfwd) add_hostfwd;
};

/*
 * Fills in the functions; -ENOENT with a sentence that names the package.  The library stays
 * loaded until the process ends.  vm thread, before any vCPU.
 */
int slirp_library_load(struct slirp_library *l, const char *owner, struct skep_error *e);

#endif
