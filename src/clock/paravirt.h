/*
 * What a guest is told about the hypervisor under it, and the clocks that go with that
 * (identity=).
 *
 *   none	CPUID says "skepskepskep" and the frequencies of TSC and APIC timer; nothing else
 *   bhyve	the same under bhyve's name, which has no paravirtual clock either
 *   kvm	kvmclock: both pairs of MSRs (pvclock.c); 15-bit destinations of interrupts
 *   hyperv	Hyper-V's clocks, hypercall page and APIC MSRs (hyperv.c)
 *
 * Only what is built is announced, and an MSR that is not announced raises #GP.  Every clock
 * here is a function of guest time alone (clock.h), so all of them agree with the TSC at every
 * moment, and none changes over a restore.
 *
 * The TSC is invariant in every identity: its frequency is a contract of the machine
 * (clock.tsc_khz), and it goes on with guest time wherever the machine is restored.  Linux
 * therefore prefers the plain TSC to kvmclock and to Hyper-V's page, both of which it can still
 * choose.  Hyper-V's way to say so is its own: the bit of CPUID appears when the guest asks.
 */
#ifndef SKEP_CLOCK_PARAVIRT_H
#define SKEP_CLOCK_PARAVIRT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"

struct vm;
struct vcpu;

enum vm_identity { IDENTITY_NONE, IDENTITY_BHYVE, IDENTITY_KVM, IDENTITY_HYPERV };

/* The values of the key, in the order of the enum, NULL-terminated. */
extern const char *const identity_names[];
enum vm_identity identity_find(const char *name);	/* NULL or unknown: IDENTITY_NONE */

/* CPUID 4000_0000h and above; false: beyond the last leaf, which is the caller's to answer. */
bool identity_cpuid(const struct vm *vm, uint32_t leaf, uint32_t out[4]);
/* Does CPUID 8000_0007h announce the invariant TSC (now)? Takes the device lock. */
bool identity_invariant_tsc(struct vm *vm);

/*
 * Do messages and the I/O APIC's entries have seven bits more for their destination (KVM_FEATURE_
 * MSI_EXT_DEST_ID): address bits 11:5, entry bits 55:49?  Elsewhere these bits are reserved.
 */
bool identity_wide_destinations(const struct vm *vm);

/* Makes the devices that vm->identity needs, after the local APICs. Device lock. */
int paravirt_create(struct vm *vm, struct skep_error *e);

/* Is it one of the numbers that an identity may answer? */
bool paravirt_owns(const struct vm *vm, uint32_t msr);
/* False: #GP. On the vCPU's thread, its clock brought up to date. Device lock. */
bool paravirt_msr_read(struct vcpu *v, uint32_t msr, uint64_t *value);
bool paravirt_msr_write(struct vcpu *v, uint32_t msr, uint64_t value);
/* VMCALL at this privilege level; false: #UD. Takes the device lock. */
bool paravirt_hypercall(struct vcpu *v, unsigned cpl, uint64_t *result);
/* The guest changed the vCPU's TSC_ADJUST: what is derived from its TSC is told anew. Device lock. */
void paravirt_tsc_moved(struct vcpu *v);
/* The vCPU got an INIT: what it had registered is off. Device lock. */
void paravirt_init_cpu(struct vcpu *v);

/*
 * The guest stood for longer than it could know: tells it, so that its watchdogs do not bark.
 * Not for a save, which no guest may notice; a no-op with clock.mode=virtual, where nothing but
 * instructions passes.  Device lock, vCPUs stopped.
 */
void paravirt_stood(struct vm *vm);
/* It is another process now: pages in guest memory are written anew, and it is told. As above. */
void paravirt_restored(struct vm *vm);

#endif
