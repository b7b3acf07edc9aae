/*
 * Local APIC, one a processor: xAPIC (MMIO at LAPIC_BASE) and x2APIC (MSRs).
 * SDM vol. 3, chapter 11.  Device lock held unless a function says otherwise.
 */
#ifndef SKEP_CHIPSET_LAPIC_H
#define SKEP_CHIPSET_LAPIC_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"

struct vm;
struct vcpu;
struct device;
struct lapic;

/* Delivery modes of ICR, LVT and messages. */
enum { APIC_FIXED = 0, APIC_LOWEST = 1, APIC_SMI = 2, APIC_NMI = 4, APIC_INIT = 5,
       APIC_STARTUP = 6, APIC_EXTINT = 7 };

struct device_type;
struct state_record;
extern const struct device_type lapic_type;
extern const struct state_record lapic_record;

/*
 * A device of its own (device_type lapic_type), instance "lapic.N", in its
 * power-on state.  Sets v->lapic.  Its APIC ID is topology_apic_id's.
 */
struct lapic *lapic_create(struct vcpu *v, struct skep_error *e);

/* The processor that a local APIC belongs to, and what a model shares with that processor's. */
unsigned lapic_index(const struct device *d);
void lapic_model_shared(const void *model, uint64_t *base, uint8_t *tpr);

/* IA32_APIC_BASE (MSR 0x1b). Write returns false where the SDM wants #GP. */
uint64_t lapic_get_base(struct lapic *a);
bool lapic_set_base(struct lapic *a, uint64_t value);
/* x2APIC MSRs 0x800-0x8ff; false: #GP. */
bool lapic_msr_read(struct lapic *a, uint32_t msr, uint64_t *value);
bool lapic_msr_write(struct lapic *a, uint32_t msr, uint64_t value);
/* MSR 0x6e0. */
uint64_t lapic_get_tsc_deadline(struct lapic *a);
void lapic_set_tsc_deadline(struct lapic *a, uint64_t tsc);
/* The vCPU's IA32_TSC_ADJUST changed: the deadline is compared with TSC + adjust. */
void lapic_set_tsc_adjust(struct lapic *a, uint64_t adjust);
uint64_t lapic_get_tsc_adjust(const struct lapic *a);
/* CR8: the value is 0-15, bits 7:4 of TPR (SDM vol. 3, 11.8.6.1). */
uint8_t lapic_get_tpr(struct lapic *a);
void lapic_set_tpr(struct lapic *a, uint8_t tpr);

/*
 * Bus message (IOAPIC, MSI, IPI) to every local APIC that dest names; lowest
 * priority is arbitrated here.  Returns false when nobody accepted.
 */
bool lapic_deliver(struct vm *vm, uint32_t dest, bool logical, unsigned mode, uint8_t vector,
		   bool level);

/*
 * Highest pending maskable vector above PPR, or -1.  ExtINT through LINT0 (virtual wire) is
 * answered with the 8259's vector by chipset.c, which vcpu_intr_* call.
 */
int lapic_pending_vector(struct lapic *a);
/* Moves that vector from IRR to ISR and returns it, or -1. */
int lapic_ack(struct lapic *a);
/* The 8259's INTR output as seen at LINT0: true if LVT0 is ExtINT and unmasked, or the APIC is off. */
bool lapic_accepts_extint(struct lapic *a);

/* The level of LINT0 (the 8259 pair's INTR) or LINT1 (NMI), pin 0 or 1, changed. */
void lapic_lint(struct lapic *a, unsigned pin, bool level);

/*
 * Who hears of the end of a level-triggered interrupt: the board's I/O APIC
 * unless a test connects something else.
 */
void lapic_connect_eoi(struct lapic *a, void (*eoi)(void *opaque, uint8_t vector), void *opaque);

/*
 * Somebody else (the host's kernel) runs the local APICs while the machine runs.  The model is its
 * for that time: what is sent goes to it, and nothing here changes or asks for a timer.  While the
 * machine stands the APICs are ours, with all that arrives meanwhile.
 */
struct lapic_model;
struct lapic_remote {
	/* As lapic_deliver. */
	bool (*deliver)(struct vm *vm, uint32_t dest, bool logical, unsigned mode, uint8_t vector,
			bool level);
	/* As lapic_lint: the level of a pin changed. */
	void (*lint)(struct vcpu *v, unsigned pin, bool level);
};
/* Hands it out, or takes it back (NULL); the caller moves the registers. */
void lapic_set_remote(struct lapic *a, const struct lapic_remote *remote);
struct lapic_model *lapic_registers(struct lapic *a);

/*
 * The page at lapic_get_base() of the vCPU that makes the access; the bus does
 * not know it.  Only in xAPIC mode: otherwise all ones, and writes are dropped.
 */
uint64_t lapic_mmio_read(struct lapic *a, uint64_t offset, unsigned size);
void lapic_mmio_write(struct lapic *a, uint64_t offset, unsigned size, uint64_t value);

#endif
