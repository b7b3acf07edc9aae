/* What the files of the skep command share. */
#ifndef SKEP_CLI_CLI_H
#define SKEP_CLI_CLI_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "base/error.h"

struct config;
struct save_point;
struct vm;

/* Exit code of a run that could not start or ended in an error (vm.h: VM_EXIT_ERROR). */
#define CLI_ERROR 4

/* Taken at the start of main; for the figures of --stats. */
struct cli_start {
	int64_t monotonic_ns;	/* when the process started, as near as it can tell */
};

/* Commands: argv[0] is the command's name.  They return the process's exit code. */
int cli_run(int argc, char **argv, const struct cli_start *start);
int cli_demo(int argc, char **argv, const struct cli_start *start);
int cli_run_demo(int argc, char **argv, const struct cli_start *start);	/* the guest alone */
int cli_restore(int argc, char **argv, const struct cli_start *start);
int cli_save(int argc, char **argv, const struct cli_start *start);
int cli_clone(int argc, char **argv, const struct cli_start *start);
int cli_list(int argc, char **argv, const struct cli_start *start);
int cli_stats(int argc, char **argv, const struct cli_start *start);
int cli_status(int argc, char **argv, const struct cli_start *start);
int cli_pause(int argc, char **argv, const struct cli_start *start);	/* and resume */
int cli_stop(int argc, char **argv, const struct cli_start *start);
int cli_ctl(int argc, char **argv, const struct cli_start *start);
int cli_bhyvectl(int argc, char **argv, const struct cli_start *start);
int cli_inspect(int argc, char **argv, const struct cli_start *start);
int cli_diff(int argc, char **argv, const struct cli_start *start);
int cli_verify(int argc, char **argv, const struct cli_start *start);
int cli_snapshot(int argc, char **argv, const struct cli_start *start);
int cli_9pserve(int argc, char **argv, const struct cli_start *start);
int cli_profile(int argc, char **argv, const struct cli_start *start);
int cli_check_host(int argc, char **argv, const struct cli_start *start);
int cli_help(int argc, char **argv);
int cli_version(int argc, char **argv);

/* The verdict on this host's KVM, kept in the runtime directory. */
struct kvm_verdict;
void cli_probe(struct kvm_verdict *v, bool again);
/*
 * Decides backend=auto in a configuration that is not frozen yet: writes kvm where that is usable and
 * can be this machine, else leaves it (soft).  Says why not, to a terminal, when it was measured.
 */
int cli_choose_backend(struct config *c, struct skep_error *e);

/* "skep: sentence" on standard error. */
void cli_complain(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* options.c: what the arguments of run ask for besides the configuration. */
enum run_topic { RUN_MACHINE, RUN_HELP, RUN_HELP_SLOTS, RUN_HELP_LPC, RUN_HELP_KEYS };

struct run_options {
	enum run_topic topic;
	const char *dump_state;	/* --dump-state=FILE; borrowed from argv */
	const char *stats;	/* --stats=FILE */
	struct save_point *save_at;	/* --save-at=COUNT:FILE, in order; owned */
	size_t nsave_at;
	bool paused;		/* --paused: stands until somebody says resume */
};

/* Adds a "COUNT:FILE" (cut up: argv's) to o->save_at. */
int run_options_save_at(struct run_options *o, char *arg, struct skep_error *e);
void run_options_free(struct run_options *o);

/*
 * run.c: runs the machine that make() gives to its end, with signals, control socket and output
 * files.  make's failure leaves a sentence in e.  Returns the process's exit code.
 */
struct machine_maker {
	struct vm *(*make)(struct config *c, void *opaque, struct skep_error *e);
	void *opaque;
};
int cli_run_machine(struct config *c, const struct run_options *o, const struct cli_start *start,
		    const struct machine_maker *maker);

/* Sets the configuration from argv.  0, or a negative errno with e set. */
int run_options_parse(int argc, char **argv, struct config *c, struct run_options *o,
		      struct skep_error *e);
void run_options_help(FILE *out);

/* devices.c: -s, -l, -f and -c, as bhyve writes them. */
int slot_parse(struct config *c, const char *arg, struct skep_error *e);
int lpc_parse(struct config *c, const char *arg, struct skep_error *e);
int fwcfg_parse(struct config *c, const char *arg, struct skep_error *e);
int cpus_parse(struct config *c, const char *arg, struct skep_error *e);
int domain_parse(struct config *c, const char *arg, struct skep_error *e);
void slot_help(FILE *out);
void lpc_help(FILE *out);

/* signals.c: what signals mean to a running machine. */
struct signals;
struct signal_handlers {
	void (*power_button)(void *opaque);	/* the first SIGTERM, SIGINT or SIGHUP */
	void (*stop)(void *opaque);		/* the second one, or SIGQUIT */
	void *opaque;
};

/*
 * Takes the signals over from here on; before any other thread.  While no machine
 * is there yet they do what they do to any process.
 */
struct signals *signals_start(struct skep_error *e);
/*
 * A machine runs: its handlers are called on a thread of their own; h must outlive
 * that.  NULL: it is over, and what is left to do is done unless a second
 * signal comes, which ends the process.  None is being called any more then.
 */
void signals_machine(struct signals *s, const struct signal_handlers *h);
void signals_stop(struct signals *s);	/* NULL is fine */

/* stats.c: the figures of a run that has ended, as one JSON object. */
struct run_stats {
	const struct cli_start *start;
	int64_t run_ns;		/* monotonic, when vm_run was called */
	int64_t end_ns;		/* and when it returned */
	int exit_code;
};
void stats_write(FILE *out, struct vm *vm, const struct run_stats *s);
int64_t cli_monotonic_ns(void);

#endif
