/*
 * kvmclock: the time page of each vCPU and the wall clock (Linux, Documentation/virt/kvm/x86/
 * msr.rst, cpuid.rst).
 *
 * Guest ns are (TSC - tsc_timestamp) scaled, plus system_time.  Here system_time is 0 and
 * tsc_timestamp is what the vCPU's TSC read at guest ns 0, for ever: what stands in the page
 * depends on nothing but the vCPU's TSC_ADJUST, and all vCPUs agree, so the stable bit is true.
 * The scale has 32 bits: exact where the frequency is 10^6 kHz times a power of two, as by
 * default, and else off by at most one part in 2^32, 1 ms in seven weeks.
 */
#ifndef SKEP_CLOCK_PVCLOCK_H
#define SKEP_CLOCK_PVCLOCK_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"

struct vcpu;
struct device_type;
struct state_record;

#define MSR_KVM_WALL_CLOCK_OLD	0x00000011u
#define MSR_KVM_SYSTEM_TIME_OLD	0x00000012u
#define MSR_KVM_WALL_CLOCK	0x4b564d00u
#define MSR_KVM_SYSTEM_TIME	0x4b564d01u
#define MSR_KVM_LAST		0x4b564dffu

/* CPUID 4000_0001h EAX. */
#define KVM_FEATURE_CLOCKSOURCE		(1u << 0)
#define KVM_FEATURE_NOP_IO_DELAY	(1u << 1)
#define KVM_FEATURE_CLOCKSOURCE2	(1u << 3)
#define KVM_FEATURE_MSI_EXT_DEST_ID	(1u << 15)
#define KVM_FEATURE_CLOCKSOURCE_STABLE	(1u << 24)

/* The page: all little-endian, 32 bytes. */
#define PVCLOCK_PAGE_SIZE	32
#define PVCLOCK_WALL_SIZE	12
#define PVCLOCK_TSC_STABLE	0x01
#define PVCLOCK_GUEST_STOPPED	0x02

struct pvclock_scale {
	uint32_t mul;
	int8_t shift;
};

/* From the TSC's frequency to nanoseconds. */
struct pvclock_scale pvclock_scale(uint32_t tsc_khz);
/* What a guest makes of it. */
uint64_t pvclock_ns(struct pvclock_scale s, uint64_t tsc);

extern const struct device_type pvclock_type;		/* instance "pv.N" */
extern const struct state_record pvclock_record;

/* Device lock for all of these; for what they do see paravirt.h. */
int pvclock_create(struct vcpu *v, struct skep_error *e);
bool pvclock_msr_read(struct vcpu *v, uint32_t msr, uint64_t *value);
bool pvclock_msr_write(struct vcpu *v, uint32_t msr, uint64_t value);
void pvclock_tsc_moved(struct vcpu *v);
void pvclock_init_cpu(struct vcpu *v);
void pvclock_stood(struct vcpu *v);

#endif
