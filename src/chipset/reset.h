/*
 * The ways in which software resets a PC: the reset control register 0xcf9, the
 * keyboard controller's pulse command, and port 0x92.  Device lock held.
 */
#ifndef SKEP_CHIPSET_RESET_H
#define SKEP_CHIPSET_RESET_H

#include "base/error.h"
#include "vm/bus.h"

struct vm;
struct reset;
struct device_type;
struct state_record;

extern const struct device_type reset_type;
extern const struct state_record reset_record;
/* Port 0xcf9, one byte, for pci_connect_reset_control; opaque is the struct reset. */
extern const struct bus_ops reset_control_ops;

/* Maps ports 0x60, 0x64 and 0x92; the VM's list owns it. */
struct reset *reset_create(struct vm *vm, struct skep_error *e);

#endif
