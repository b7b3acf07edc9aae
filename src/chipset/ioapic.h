/*
 * The I/O APIC: 24 pins, at IOAPIC_BASE.  Device lock held for everything.
 */
#ifndef SKEP_CHIPSET_IOAPIC_H
#define SKEP_CHIPSET_IOAPIC_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"

struct vm;
struct ioapic;
struct device_type;
struct state_record;

extern const struct device_type ioapic_type;
extern const struct state_record ioapic_record;

/* The wire to the local APICs; false: nobody accepted. As lapic_deliver. */
typedef bool (*ioapic_deliver_fn)(struct vm *vm, uint32_t dest, bool logical, unsigned mode,
				  uint8_t vector, bool level);

/* Maps its page; the VM's list owns it. */
struct ioapic *ioapic_create(struct vm *vm, struct skep_error *e);
void ioapic_connect(struct ioapic *io, ioapic_deliver_fn deliver);
/*
 * Pin 0-23: level true is asserted.  The board's wires carry assertion, not
 * voltage, so the polarity bit of an entry is kept and changes nothing.
 */
void ioapic_set(struct ioapic *io, unsigned pin, bool level);
/*
 * Who has to know which interrupts are level-triggered before they are delivered: fn is called
 * whenever an entry may have changed.  ioapic_entry returns one as it stands.
 */
void ioapic_connect_changed(struct ioapic *io, void (*fn)(void *opaque), void *opaque);
uint64_t ioapic_entry(const struct ioapic *io, unsigned pin);
/* A local APIC ended the level-triggered interrupt with this vector. */
void ioapic_eoi(struct ioapic *io, uint8_t vector);

#endif
