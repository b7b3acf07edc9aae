/*
 * The part of Hyper-V's interface that a guest needs for its clocks (Hypervisor Top Level
 * Functional Specification, chapters 2, 3, 10, 12): identification, the hypercall page (every
 * call is answered with HV_STATUS_INVALID_HYPERCALL_CODE), VP index, reference counter, reference
 * TSC page, frequencies, APIC MSRs and VP assist page (without any assist), invariant TSC.
 *
 * The reference counter counts 100 ns of guest time since power-on; the page gives the same.
 */
#ifndef SKEP_CLOCK_HYPERV_H
#define SKEP_CLOCK_HYPERV_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"

struct vm;
struct vcpu;
struct device_type;
struct state_record;

#define HV_MSR_GUEST_OS_ID	0x40000000u
#define HV_MSR_HYPERCALL	0x40000001u
#define HV_MSR_VP_INDEX		0x40000002u
#define HV_MSR_TIME_REF_COUNT	0x40000020u
#define HV_MSR_REFERENCE_TSC	0x40000021u
#define HV_MSR_TSC_FREQUENCY	0x40000022u
#define HV_MSR_APIC_FREQUENCY	0x40000023u
#define HV_MSR_EOI		0x40000070u
#define HV_MSR_ICR		0x40000071u
#define HV_MSR_TPR		0x40000072u
#define HV_MSR_VP_ASSIST	0x40000073u
#define HV_MSR_TSC_INVARIANT	0x40000118u
#define HV_MSR_LAST		0x40000fffu

/* CPUID 4000_0003h EAX; EDX bit 8 goes with the frequencies. */
#define HV_ACCESS_TIME_REF_COUNT (1u << 1)
#define HV_ACCESS_APIC		(1u << 4)
#define HV_ACCESS_HYPERCALL	(1u << 5)
#define HV_ACCESS_VP_INDEX	(1u << 6)
#define HV_ACCESS_REFERENCE_TSC	(1u << 9)
#define HV_ACCESS_FREQUENCY	(1u << 11)
#define HV_ACCESS_TSC_INVARIANT	(1u << 15)
#define HV_FEATURE_FREQUENCY	(1u << 8)
/* 4000_0004h EAX: the guest's own watchdogs may be patient. */
#define HV_HINT_RELAXED_TIMING	(1u << 5)

#define HV_INVALID_HYPERCALL_CODE 2

#define HV_TICK_NS		100
#define HV_TICKS_HZ		10000000

/*
 * Ticks of 100 ns in 2^64 ticks of the TSC, rounded up so that whole ticks are not lost; 0: the
 * TSC is too slow for a page, and the guest reads the counter.
 */
uint64_t hyperv_tsc_scale(uint32_t tsc_khz);

extern const struct device_type hyperv_type;		/* "hyperv": the partition */
extern const struct device_type hyperv_vp_type;		/* "hv.N": a processor's part */
extern const struct state_record hyperv_record, hyperv_vp_record;

/* Device lock for all of these; for what they do see paravirt.h. */
int hyperv_create(struct vm *vm, struct skep_error *e);
bool hyperv_msr_read(struct vcpu *v, uint32_t msr, uint64_t *value);
bool hyperv_msr_write(struct vcpu *v, uint32_t msr, uint64_t value);
bool hyperv_hypercalls(const struct vm *vm);	/* has the guest switched them on? */
bool hyperv_invariant_tsc(const struct vm *vm);	/* has it asked for the bit? */
void hyperv_tsc_moved(struct vm *vm);
void hyperv_init_cpu(struct vcpu *v);
/* The reference TSC page with another sequence number: whoever was reading it reads again. */
void hyperv_restored(struct vm *vm);

#endif
