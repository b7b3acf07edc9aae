/*
 * Lock-step: two machines of one configuration, which differ in how their processor runs code, run
 * the same guest side by side and are compared in steps of so many instructions.  With
 * clock.mode=virtual nothing else can make them differ.
 *
 * machine.c makes machines and runs them; compare.c holds two of them against each other; narrow.c
 * looks for the smallest piece of the run that shows a difference; report.c tells it.
 */
#ifndef SKEP_TESTS_LOCKSTEP_H
#define SKEP_TESTS_LOCKSTEP_H

#include <pthread.h>
#include <semaphore.h>
#include <stdbool.h>
#include <stdint.h>

#include "config/config.h"
#include "vm/machine.h"
#include "vm/vm.h"

/* How one of the two runs code. */
struct way {
	const char *name;		/* "A", "B" */
	const char *tier;		/* soft.tier */
	unsigned block_insns, forget;	/* soft_cpu.test, as in tests/soft_exact.c */
	bool on, alone;
};

/* A fault on purpose in B, so that it can be seen that one is found. */
struct plant {
	uint64_t at;		/* after this many instructions; 0: none */
	uint64_t within;	/* only if at least so many before it were run in one go */
	uint64_t gpa;		/* a byte of RAM changes; 0: DR2 does */
};

#define MAX_SETTINGS 64

struct options {
	const char *settings[MAX_SETTINGS];	/* key=value, in order */
	unsigned nsettings;
	struct way way[2];
	struct plant plant;
	uint64_t step, start, limit;	/* instructions; limit 0: to the guest's end */
	uint64_t ram_every;		/* RAM and devices are compared each so many steps */
	bool quiet, no_rerun;
};

struct machine {
	const struct options *o;
	const struct way *way;
	struct config *config;
	struct vm *vm;
	pthread_t thread;
	bool started;
	sem_t stands;
	int code;
	struct skep_error e;
	int console;			/* a file in memory with what it has printed; -1: none */
};

struct pair {
	struct machine *a, *b;
	uint64_t printed;		/* so much of what they have printed is the same */
};

/*
 * A point at which both were the same in everything: what both can be put back to.  RAM is kept
 * whole, and what was written since the last point is copied at each.
 */
struct checkpoint {
	uint64_t at;			/* instructions; 0: power-on */
	struct machine_state *state;
	uint8_t *ram;			/* by page number */
	uint8_t *there;			/* a byte a page: not zero */
	size_t npages;
};

/* Ends the process: the tool itself cannot go on. */
_Noreturn void lockstep_die(const char *what, const struct skep_error *e);

/* ---- machine.c --------------------------------------------------------------- */

/* console: what they print is kept. */
struct pair pair_create(const struct options *o, bool console);
/* Both as they were at the checkpoint (not at 0). */
struct pair pair_restore(const struct options *o, const struct checkpoint *c);
void pair_destroy(struct pair *p);
/* Both go on to an instruction count, at the same time, unless a guest ends before. */
void pair_run(struct pair *p, uint64_t insns);
/* Only one of them. */
void machine_run(struct machine *m, uint64_t insns);
uint64_t machine_insns(const struct machine *m);
bool machine_ended(const struct machine *m);

void checkpoint_init(struct checkpoint *c, const struct machine *m);
/* Both stand, and have been found to be the same.  Their RAM counts as clean from now on. */
void checkpoint_take(struct checkpoint *c, struct pair *p);
void checkpoint_free(struct checkpoint *c);

/* ---- main.c: where the walk stops ------------------------------------------------ */

uint64_t walk_next(const struct options *o, uint64_t at);
/* Is everything compared there? */
bool walk_full(const struct options *o, uint64_t at);

/* ---- compare.c --------------------------------------------------------------- */

/* Are the processors, and whether and how they have ended, the same? */
bool same_processors(const struct pair *p);
/* Is everything: processors, devices, clock, and what RAM was written since the checkpoint? */
bool same_machines(const struct pair *p);
/* Have they printed the same? */
bool same_consoles(struct pair *p);
/* Says in what they differ; before: the state of both before the last step, or NULL. */
void print_differences(const struct pair *p, const struct cpu_arch_state *before);
void processor_state(const struct machine *m, struct cpu_arch_state *s);

/* ---- narrow.c, report.c --------------------------------------------------------- */

/*
 * They were the same at the checkpoint and are not at `differs`; the walk's stops between the two
 * are multiples of o->step.  Finds out more and prints it.
 */
void narrow(const struct options *o, const struct checkpoint *c, uint64_t differs);
/* What a machine executes next, for people. */
void print_instruction(struct machine *m);
void print_flags(uint64_t rflags);

#endif
