/*
 * The two 8259A interrupt controllers of a PC: master at 0x20, slave at 0xa0
 * on the master's input 2, edge/level registers at 0x4d0 and 0x4d1.
 * Device lock held for everything.
 */
#ifndef SKEP_CHIPSET_I8259_H
#define SKEP_CHIPSET_I8259_H

#include <stdbool.h>

#include "base/error.h"

struct vm;
struct i8259;
struct device_type;
struct state_record;

extern const struct device_type i8259_type;
extern const struct state_record i8259_record;

/* Maps its ports; the VM's list owns it. */
struct i8259 *i8259_create(struct vm *vm, struct skep_error *e);
/* Called when the master's INTR output changes. */
void i8259_connect_intr(struct i8259 *p, void (*intr)(void *opaque, bool level), void *opaque);
/* Input 0-15 (2 is the cascade and is not connected). */
void i8259_set(struct i8259 *p, unsigned irq, bool level);
bool i8259_intr(const struct i8259 *p);
/* The INTA cycles: the vector, that of input 7 when the request has gone (spurious). */
int i8259_ack(struct i8259 *p);

#endif
