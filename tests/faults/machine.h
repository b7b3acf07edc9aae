/* A machine that runs faults/guest.S in this process, is saved, and is looked at. */
#ifndef SKEP_TESTS_FAULTS_MACHINE_H
#define SKEP_TESTS_FAULTS_MACHINE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <pthread.h>
#include <stdbool.h>

#include "base/error.h"
#include "snapshot/reader.h"
#include "snapshot/restore.h"
#include "snapshot/save.h"
#include "vm/vm.h"

struct machine {
	struct config *config;
	struct vm *vm;
	pthread_t thread;
	bool runs;		/* vm_run is under way, or has ended and was not joined */
	_Atomic bool ended;	/* vm_run has */
	int code;
	struct skep_error error;
	uint32_t told;		/* the round that the console told last */
	long console_at;
	struct control *control;	/* saves go by its socket */
	bool named;		/* saves as on file systems without unnamed files */
};

/* Where files are made: a directory of this process, with a path for each name. */
void make_place(void);
void remove_place(void);
const char *in_place(const char *name);
/* Fails the test when anything but these names (NULL-terminated) lies there. */
void only_there(const char *const *names);

/* Starts the guest; its console goes to a file. */
struct machine *machine_start(const char *guest, bool virtual);
/* Saves go by the control socket from now on, whose runtime directory is "run" in the place. */
void machine_listen(struct machine *m);
/* Lets a restored one run in the place of one that has ended; the console goes on. */
void machine_run(struct machine *m);
/* Ends it, and looks at what it told to the end. */
void machine_end(struct machine *m);
/* Waits for the end that has to come; its exit code. */
int machine_join(struct machine *m);

uint32_t machine_round(struct machine *m);
uint32_t machine_errors(struct machine *m);	/* that the guest found in its memory */
/* It runs: some rounds pass, its memory is right, and the console told each round once. */
void machine_goes_on(struct machine *m);

/*
 * Saves as the command does: the target opened, written, put into its place, the save told.
 * 0 or a negative errno with e set.
 */
int machine_save(struct machine *m, const char *path, const struct save_options *o,
		 struct skep_error *e);

/* The machine from a file, console where it was (quiet: nowhere).  NULL with e set. */
struct machine *machine_restore(const char *path, const struct restore_options *o, bool quiet,
				struct skep_error *e);
/* The file is whole, and a machine restored from it runs without an error. */
void file_is_whole(const char *path);
/* What the file (and its parents) say of RAM is what the machine has, which stands. */
void file_is_machine(const char *path, struct machine *m);

/* Does a sentence name what happened? */
bool names_cause(const char *text, int error);

unsigned count_entries(const char *directory);	/* of /proc/self/fd, /proc/self/task */

#endif
