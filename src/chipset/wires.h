/*
 * The interrupt wires of the board.  Several sources share an input by being
 * ORed; each has its own place here, so that none can pull down another's level.
 * Device lock held.
 */
#ifndef SKEP_CHIPSET_WIRES_H
#define SKEP_CHIPSET_WIRES_H

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

#endif
