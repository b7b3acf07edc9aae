/*
 * Is this host's KVM worth using?  That /dev/kvm opens proves nothing: some modules emulate what runs
 * in kernel mode, a thousand times slower, and know only a part of it.  So a guest of a few dozen
 * instructions is run and timed, in a process of its own, since the end of a machine can take long.
 *
 * The verdict is kept in a file, for this boot, kernel, module and release.
 */
#ifndef SKEP_CPU_KVM_PROBE_H
#define SKEP_CPU_KVM_PROBE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

struct cpu_model;

#define KVM_PROBE_MIPS	200	/* millions of instructions a second in kernel mode, at least */

struct kvm_verdict {
	bool usable;
	bool fresh;		/* measured now, not read */
	bool opens;		/* the device and all that is needed of it are there */
	uint32_t kips;		/* thousands of instructions a second in kernel mode; 0: it did not come so far */
	uint32_t us;		/* from the first call of the kernel to the last exit */
	uint32_t tsc_khz;
	bool tsc_control;	/* other frequencies can be given to a guest */
	char passed[80];	/* what was executed right, in words */
	char why[200];		/* not usable: a sentence */
};

/*
 * dir: an open directory in which the verdict is kept, or -1; again: measures whatever was kept.
 * Before any thread of ours, for it forks.
 */
void kvm_probe(struct kvm_verdict *v, int dir, bool again);
/* 0: this host's KVM can be this CPU model; else e says what is lacking. */
int kvm_probe_model(const struct cpu_model *model, struct skep_error *e);
/* The kernel's KVM modules, in words; false: none is loaded. */
bool kvm_modules(char *text, size_t size);

#endif
