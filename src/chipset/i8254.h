/*
 * The 8254 timer: ports 0x40-0x43, and port 0x61 with channel 2's gate and
 * output, the speaker enable and the refresh toggle.  Device lock held.
 */
#ifndef SKEP_CHIPSET_I8254_H
#define SKEP_CHIPSET_I8254_H

#include "base/error.h"
#include "vm/irq.h"

struct vm;
struct i8254;
struct device_type;
struct state_record;

#define I8254_HZ 1193182u

extern const struct device_type i8254_type;
extern const struct state_record i8254_record;

/* Maps its ports; the VM's list owns it. */
struct i8254 *i8254_create(struct vm *vm, struct skep_error *e);
/* The output of channel 0, as a level. */
void i8254_connect_irq(struct i8254 *p, struct irq_line irq);

#endif
