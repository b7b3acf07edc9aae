/*
 * ACPI fixed hardware: PM1 event and control, the PM timer, GPE block 0, at the
 * ports that PMBASE says (layout: chipset/chipset.h).  Device lock held.
 */
#ifndef SKEP_CHIPSET_ACPI_PM_H
#define SKEP_CHIPSET_ACPI_PM_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "vm/irq.h"

struct vm;
struct acpi_pm;
struct device_type;
struct state_record;

#define PM_TIMER_HZ 3579545u

extern const struct device_type acpi_pm_type;
extern const struct state_record acpi_pm_record;

/* Decodes nothing until acpi_pm_set_base; the VM's list owns it. */
struct acpi_pm *acpi_pm_create(struct vm *vm, struct skep_error *e);
void acpi_pm_connect_sci(struct acpi_pm *pm, struct irq_line sci);
/*
 * PMBASE moved.  opaque is the struct acpi_pm (lpc_connect_pm).  A block that
 * would overlap other ports is not decoded until it moves on.
 */
void acpi_pm_set_base(void *opaque, uint16_t base, bool enabled);
void acpi_pm_power_button(struct acpi_pm *pm);
/* The RTC's alarm interrupt was asserted. */
void acpi_pm_rtc_alarm(struct acpi_pm *pm);
/* General-purpose event n (0-63) happened. */
void acpi_pm_gpe(struct acpi_pm *pm, unsigned n);

#endif
