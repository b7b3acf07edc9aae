/*
 * The motherboard: which chips there are and how they are wired.
 * chipset.c is the one place that knows; chips do not include each other.
 *
 *   IRQ n (0-15)  -> 8259 pair and I/O APIC pin n (IRQ 0 -> pin 2)
 *   GSI 16-23     -> I/O APIC pins, PCI INTx (PIRQ A-H)
 *   SCI           -> IRQ 9, level, active high
 */
#ifndef SKEP_CHIPSET_CHIPSET_H
#define SKEP_CHIPSET_CHIPSET_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "vm/irq.h"

struct vm;
struct vcpu;

/* Guest-physical and port addresses of the board. */
#define IOAPIC_BASE	0xfec00000ull
#define LAPIC_BASE	0xfee00000ull
#define ECAM_BASE	0xb0000000ull	/* reset value of PCIEXBAR when we boot directly */
#define ECAM_SIZE	0x10000000ull
#define PM_BASE		0x600		/* PMBASE: PM1a_EVT +0, PM1a_CNT +4, PM_TMR +8, GPE0 +0x20 */
#define FWCFG_BASE	0x510
#define DEBUG_EXIT_PORT	0xf4

int chipset_create(struct vm *vm, struct skep_error *e);
void chipset_destroy(struct vm *vm);

/* The input wire of a global system interrupt (0-23).  The receiver handles sharing. */
struct irq_line chipset_gsi(struct vm *vm, unsigned gsi);
/* A message-signalled interrupt write (address, data). Device lock. */
void chipset_msi(struct vm *vm, uint64_t address, uint32_t data);

/* Presses the power button. Device lock. */
void chipset_power_button(struct vm *vm);

#endif
