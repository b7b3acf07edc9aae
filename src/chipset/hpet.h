/*
 * High precision event timers at HPET_BASE: one counter of 64 bits and three comparators, each
 * of which can be periodic and of 32 or 64 bits.  Device lock held for everything.
 */
#ifndef SKEP_CHIPSET_HPET_H
#define SKEP_CHIPSET_HPET_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "vm/irq.h"

struct vm;
struct hpet;
struct device_type;
struct state_record;

/*
 * 100 ns a tick: the slowest that the specification allows, and a whole number of guest
 * nanoseconds, so that this clock and those made of nanoseconds never drift apart.
 */
#define HPET_HZ			10000000u
#define HPET_TIMERS		3
#define HPET_PINS		24

/* Pins of the I/O APIC that a timer may be routed to, a bit each (as the ICH9's). */
#define HPET_ROUTES(timer)	((timer) == 2 ? 0x00f00800u : 0x00f00000u)

extern const struct device_type hpet_type;
extern const struct state_record hpet_record;

/* Maps its registers; the VM's list owns it. */
struct hpet *hpet_create(struct vm *vm, struct skep_error *e);

/* The wire of a timer (0-2) to one of the pins that HPET_ROUTES names. */
void hpet_connect_pin(struct hpet *h, unsigned timer, unsigned pin, struct irq_line irq);
/* The wire of timer 0 or 1 in legacy replacement: IRQ 0 and IRQ 8. */
void hpet_connect_legacy(struct hpet *h, unsigned timer, struct irq_line irq);
/* Where a message goes. */
void hpet_connect_msi(struct hpet *h, void (*msi)(struct vm *vm, uint64_t address, uint32_t data));
/*
 * Who disconnects the 8254 and the RTC from their interrupts while legacy replacement is on.
 * restored: the wires have the state that goes with it already, and nothing is to be driven.
 */
void hpet_connect_replace(struct hpet *h, void (*replace)(void *opaque, bool on, bool restored),
			  void *opaque);

#endif
