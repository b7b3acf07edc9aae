/* What the commands that talk to running machines share. */
#ifndef SKEP_CLI_CONTROL_H
#define SKEP_CLI_CONTROL_H

#include <getopt.h>
#include <stdbool.h>

#include "base/error.h"
#include "control/client.h"

/*
 * Takes the options; apply sees each by its value, optarg set.  0 with optind after them, 1: help
 * was asked for and printed ('h'), or a negative errno with e set.
 */
int control_options(int argc, char **argv, const char *help, const struct option *options,
		    int (*apply)(void *opaque, int got, struct skep_error *e), void *opaque,
		    struct skep_error *e);
/* mode: powerbutton, poweroff, reset.  ms bounds the wait for the process's end; -1: none. */
int control_stop_machine(const char *name, const char *mode, bool wait, int ms,
			 struct skep_error *e);
/* A non-maskable interrupt. */
int control_nmi(const char *name, struct skep_error *e);

#endif
