/* The probe's guest: what it ran, and how fast.  In a process that ends soon after. */
#ifndef SKEP_CPU_KVM_PROBE_GUEST_H
#define SKEP_CPU_KVM_PROBE_GUEST_H

#include <stdbool.h>
#include <stdint.h>

enum { PROBE_START, PROBE_LOOP, PROBE_SSE2, PROBE_CX16, PROBE_INT3, PROBE_XSAVE, PROBE_STAGES };

struct probe_result {
	int error;		/* negative errno of what ended it, or 0 */
	int stage;		/* the last one that was right; -1: none */
	int64_t loop_ns;
	uint32_t kips, us, tsc_khz;
	bool xsave;		/* this host gives XSAVE to guests at all */
};

/* Nothing that it takes is given back: the process's end does that. */
void probe_guest_run(int kvm, struct probe_result *r);

#endif
