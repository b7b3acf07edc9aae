/*
 * Linux KVM as a backend.  Inside of the room; what others use is vcpu_kvm_ops and probe.h.
 *
 * The split: the local APICs run in the kernel while the machine runs, everything else of the
 * board is ours.  While the machine stands (vcpu_ops.freeze) the registers of the APICs lie in
 * their devices (chipset/lapic.h), so that saving, restoring and resetting them is the same for
 * every backend; thaw gives them back, and sets the guest's TSC to guest time.
 *
 * No structure of the kernel's leaves this room: state.c, fpu.c and apic.c translate between them
 * and the architectural records.
 *
 * Threads: a vCPU's calls are made by its thread while it runs, and by whoever stopped it
 * while it stands; kvm_machine belongs to the device lock, but for what says otherwise.
 */
#ifndef SKEP_CPU_KVM_KVM_H
#define SKEP_CPU_KVM_KVM_H

#include <linux/kvm.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "cpu/arch.h"
#include "cpu/kvm/call.h"
#include "cpu/kvm/host.h"
#include "cpu/vcpu.h"

struct vm;
struct cpu_model;
struct lapic_model;

#define KVM_SLOTS_MAX	40	/* two regions of RAM, the ROM, a slot for each PAM segment */
#define KVM_MSRS_MAX	64

struct kvm_slot {
	uint64_t gpa, size;
	uint8_t *host;
	bool ram;		/* it has flags in guest_memory.page_flags */
	bool read_only;
	bool used;
};

struct kvm_machine {
	struct vm *vm;
	int kvm, fd;			/* /dev/kvm, and the machine */
	unsigned users;
	size_t run_size;		/* bytes of struct kvm_run */
	size_t xsave_size;
	bool sregs2, tsc_control;
	uint32_t host_tsc_khz;
	const struct cpu_model *model;

	pthread_mutex_t slots_lock;	/* innermost */
	struct kvm_slot slots[KVM_SLOTS_MAX];
	bool logging;			/* the kernel notes which pages processors write; slots_lock */

	bool routes_stale;		/* the I/O APIC's entries changed since the kernel was told */

	/* MSRs of the state record that this host has, and those that it has not. */
	struct kvm_msr_field {
		uint32_t number;
		size_t field;		/* in struct cpu_arch_state */
		const char *name;
		bool here;
		uint64_t keep;		/* bits that the record has */
	} msrs[KVM_MSRS_MAX];
	unsigned nmsrs;

	uint64_t tsc_offset;		/* of all processors, but for their TSC_ADJUST */
	uint64_t tsc_skew;		/* what the guest's TSC shows beyond guest time's */
	bool tsc_told;
};

struct kvm_stats {
	_Atomic uint64_t exits, io, mmio, msr, eoi, window, kicks, helped, dirty_pages;
};

struct kvm_cpu {
	struct vcpu *v;
	struct kvm_machine *m;
	int fd;
	struct kvm_run *run;
	bool out;			/* its local APIC is the kernel's now */
	bool intr;			/* the 8259 pair may have an interrupt for it */
	bool ready_known;		/* run->ready_for_interrupt_injection is of this state */
	bool ended;			/* the next run ends at once, with why */
	enum vcpu_exit why;
	bool ext_given;			/* a vector was given that may not have been taken yet */
	uint64_t missing[KVM_MSRS_MAX];	/* values of MSRs that the host has not, as they were set */
	/* Of the APIC's timer when the processor stopped: guest ns at which it is due, or 0. */
	int64_t timer_due;
	uint32_t irr[8];		/* and what was requested then */
	struct vcpu *helper;		/* a soft processor, for what the kernel cannot execute */
	struct kvm_stats stats;
};

#define KVM_COUNT(k, what) \
	atomic_fetch_add_explicit(&(k)->stats.what, 1, memory_order_relaxed)

static inline struct kvm_cpu *kvm_cpu_of(const struct vcpu *v) { return v->backend; }

/* ---- machine.c ---------------------------------------------------------------- */

/* The machine of vm, made for the first processor, and given back by each. Device lock. */
struct kvm_machine *kvm_machine_join(struct vm *vm, struct skep_error *e);
void kvm_machine_leave(struct kvm_machine *m);
/* Tells the kernel which vectors are level-triggered, if that changed. Device lock. */
int kvm_routes_update(struct kvm_machine *m, struct skep_error *e);

/* ---- slots.c -------------------------------------------------------------------- */

/* Makes the kernel's map of memory that of vm->memory. Any thread. */
int kvm_slots_update(struct kvm_machine *m, struct skep_error *e);
/* vcpu_ops.sync_dirty. */
int kvm_sync_dirty(struct vcpu *v, struct skep_error *e);

/* ---- cpuid.c ---------------------------------------------------------------------- */

int kvm_cpuid_set(struct kvm_cpu *k, struct skep_error *e);

/* ---- msrs.c ----------------------------------------------------------------------- */

/* Which MSRs of the state record the host has: asked of the first processor. */
int kvm_msrs_find(struct kvm_cpu *k, struct skep_error *e);
int kvm_msrs_get(struct kvm_cpu *k, struct cpu_arch_state *s);
int kvm_msrs_set(struct kvm_cpu *k, const struct cpu_arch_state *s, struct skep_error *e);
int kvm_msrs_check(struct kvm_cpu *k, const struct cpu_arch_state *s, struct skep_error *e);
int kvm_msr_get(struct kvm_cpu *k, uint32_t number, uint64_t *value);
int kvm_msr_set(struct kvm_cpu *k, uint32_t number, uint64_t value);
/* Which MSRs come to us, and what they answer. */
int kvm_msrs_filter(struct kvm_machine *m, struct skep_error *e);
void kvm_exit_msr(struct kvm_cpu *k, bool write);

/* ---- vcpu.c -------------------------------------------------------------------------- */

/* What KVM_RUN came back with; true: the run ends with *why. */
bool kvm_exit_serve(struct kvm_cpu *k, enum vcpu_exit *why);

/* ---- state.c, fpu.c --------------------------------------------------------------- */

/* Between instructions, with nothing under way: the processor's thread, before it stops. */
int kvm_settle(struct kvm_cpu *k, struct skep_error *e);
void kvm_get_state(struct vcpu *v, struct cpu_arch_state *s);
int kvm_check_state(struct vcpu *v, const struct cpu_arch_state *s, struct skep_error *e);
int kvm_set_state(struct vcpu *v, const struct cpu_arch_state *s, struct skep_error *e);
int kvm_state_read(struct kvm_cpu *k, struct cpu_arch_state *s, struct skep_error *e);
int kvm_state_write(struct kvm_cpu *k, const struct cpu_arch_state *s, struct skep_error *e);
/* The same without events, and what becomes of those when an instruction was executed elsewhere. */
int kvm_registers_write(struct kvm_cpu *k, const struct cpu_arch_state *s, struct skep_error *e);
int kvm_events_after(struct kvm_cpu *k, const struct cpu_arch_state *s);
int kvm_fpu_get(struct kvm_cpu *k, struct cpu_arch_state *s, struct skep_error *e);
int kvm_fpu_set(struct kvm_cpu *k, const struct cpu_arch_state *s, struct skep_error *e);
/* Where the guest stands, for an error sentence. */
void kvm_describe(struct kvm_cpu *k, char *text, size_t size);

/* ---- apic.c, tsc.c ---------------------------------------------------------------- */

void kvm_freeze(struct vcpu *v);
void kvm_thaw(struct vcpu *v);
/* Notes when the APIC's timer is due, before the processor stops.  1: it may be due now. */
int kvm_timer_note(struct kvm_cpu *k, struct skep_error *e);
/* NMI at LINT1, as the APIC's LVT entry says. */
int kvm_lint1(struct kvm_cpu *k);
/* Is this vector in service in the kernel's APIC? */
bool kvm_in_service(struct kvm_cpu *k, uint8_t vector);
int kvm_tsc_init(struct kvm_cpu *k, struct skep_error *e);
int kvm_tsc_thaw(struct kvm_cpu *k, struct skep_error *e);

/* ---- help.c ------------------------------------------------------------------------ */

/*
 * The soft processor executes the instruction at which the kernel gave up.  0: the kernel goes on;
 * 1: the run ends with *why; else it cannot help, and e says why.
 */
int kvm_help(struct kvm_cpu *k, enum vcpu_exit *why, struct skep_error *e);
void kvm_help_end(struct kvm_cpu *k);

#endif
