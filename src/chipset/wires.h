/*
 * The interrupt wires of the board.  Several sources share an input by being
 * ORed; each has its own place here, so that none can pull down another's level.
 * Device lock held.
 */
#ifndef SKEP_CHIPSET_WIRES_H
#define SKEP_CHIPSET_WIRES_H

#include <stdbool.h>

#include "base/error.h"
#include "vm/irq.h"

struct vm;
struct wires;
struct i8259;
struct ioapic;

/* The device "board"; the VM's list owns it. */
struct wires *wires_create(struct vm *vm, struct skep_error *e);
void wires_connect(struct wires *w, struct i8259 *pic, struct ioapic *ioapic);
/* As chipset_gsi. */
struct irq_line wires_add(struct wires *w, unsigned gsi);
/* One that the HPET's legacy replacement disconnects: the 8254's and the RTC's. */
struct irq_line wires_add_replaceable(struct wires *w, unsigned gsi);
/*
 * Disconnects those, or connects them again with the levels that they have now.
 * restored: nothing is driven, the interrupt controllers have their pins already.
 */
void wires_replace(struct wires *w, bool on, bool restored);

#endif
