/*
 * The real-time clock and its battery-backed memory: MC146818 registers at ports
 * 0x70/0x71, a second bank of 128 bytes at 0x72/0x73, UTC.  Device lock held.
 */
#ifndef SKEP_CHIPSET_MC146818_H
#define SKEP_CHIPSET_MC146818_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "vm/irq.h"

struct vm;
struct mc146818;
struct device_type;
struct state_record;

extern const struct device_type mc146818_type;
extern const struct state_record mc146818_record;

/* Maps its ports; the VM's list owns it. */
struct mc146818 *mc146818_create(struct vm *vm, struct skep_error *e);
void mc146818_connect_irq(struct mc146818 *r, struct irq_line irq);
/*
 * Calls fn whenever the alarm interrupt is asserted (flag and enable, however they met): what ACPI's
 * RTC_STS latches.
 */
void mc146818_connect_alarm(struct mc146818 *r, void (*fn)(void *opaque), void *opaque);
/* A byte of battery-backed memory, as firmware wrote it; index 0x0e-0xff. */
void mc146818_set_ram(struct mc146818 *r, uint8_t index, uint8_t value);
/* Bit 7 of port 0x70: no NMI reaches the processors. */
bool mc146818_nmi_masked(const struct mc146818 *r);

#endif
