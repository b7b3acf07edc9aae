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
#define HPET_BASE	0xfed00000ull
#define LAPIC_BASE	0xfee00000ull
#define ECAM_BASE	0xb0000000ull	/* reset value of PCIEXBAR when we boot directly */
#define ECAM_SIZE	0x10000000ull
#define PM_BASE		0x600		/* PMBASE: PM1a_EVT +0, PM1a_CNT +4, PM_TMR +8, GPE0 +0x20 */
#define FWCFG_BASE	0x510
#define DEBUG_EXIT_PORT	0xf4

/*
 * What the ACPI tables say of the fixed hardware (ACPI 6.4, 4.8; chipset/acpi_pm.c):
 * offsets from PMBASE and lengths in bytes.  The PM timer has 32 bits (FADT flag
 * TMR_VAL_EXT).  There is no SMI command port: SCI_EN is always one.  The RTC's alarm
 * is RTC_STS (FADT flag FIX_RTC clear); there is no sleep button (SLP_BUTTON set), and
 * no 8042 (boot architecture flag 8042 clear).  Reset register: port 0xcf9, value 0x06.
 * General-purpose events: 5 is VMGENID's, 8 VMClock's.
 */
#define PM1_EVT_OFFSET	0x00
#define PM1_EVT_LEN	4
#define PM1_CNT_OFFSET	0x04
#define PM1_CNT_LEN	2
#define PM_TMR_OFFSET	0x08
#define PM_TMR_LEN	4
#define GPE0_OFFSET	0x20
#define GPE0_LEN	16
#define PM_BLOCK_LEN	0x80		/* ports decoded from PMBASE */
#define PM_SLP_TYP_S5	7		/* for \_S5: the only sleeping state */
#define SCI_IRQ		9		/* level triggered, active high: a MADT override says so */
#define RESET_PORT	0xcf9
#define RESET_VALUE	0x06
#define IOAPIC_ID	0		/* reset value of its ID register */
#define IOAPIC_PINS	24

/*
 * What the ACPI tables say of the HPET (specification 1.0a, 3.2.4): the low half of its
 * capabilities (Intel's, 3 timers, 64 bits, legacy replacement), bytes decoded, and the
 * shortest period, in ticks of 100 ns, of which no interrupt is lost.
 */
#define HPET_ID		0x8086a201u
#define HPET_PERIOD_FS	100000000u
#define HPET_SIZE	0x400
#define HPET_MIN_TICK	200

/*
 * Makes every chip of the board, PCI, fw_cfg and UARTs.  vm->vcpus[] and their
 * local APICs may be made before or after.  On failure the devices made so far
 * stay in the VM's list, whose owner destroys them.  Device lock.
 */
int chipset_create(struct vm *vm, struct skep_error *e);
/* Frees what is not a device, after the devices are gone.  Fine without chipset_create. */
void chipset_destroy(struct vm *vm);

/*
 * A new input wire of a global system interrupt (0-23); 0 is ISA IRQ 0 (pin 2 of
 * the I/O APIC).  Call it once for each device: wires that share an interrupt are
 * ORed, and level 1 means asserted whatever the polarity is.  A number that does
 * not exist gives a wire that is not connected.  While the machine is built.
 */
struct irq_line chipset_gsi(struct vm *vm, unsigned gsi);
/* EOI message from a local APIC: the level-triggered interrupt of this vector ended. */
void chipset_eoi(struct vm *vm, uint8_t vector);
/* As ioapic_connect_changed and ioapic_entry, of the board's I/O APIC. */
void chipset_watch_ioapic(struct vm *vm, void (*fn)(void *opaque), void *opaque);
uint64_t chipset_ioapic_entry(struct vm *vm, unsigned pin);
/* A message-signalled interrupt write (address, data). Device lock. */
void chipset_msi(struct vm *vm, uint64_t address, uint32_t data);

/*
 * The virtual wire from the 8259 pair to every LINT0: is INTR asserted, and the
 * INTA cycle that gives the vector (a spurious one if the request has gone).
 * The caller has asked lapic_accepts_extint.  Device lock.
 */
bool chipset_pic_intr(struct vm *vm);
int chipset_pic_ack(struct vm *vm);

/* Presses the power button. Device lock. */
void chipset_power_button(struct vm *vm);
/* Raises general-purpose event n (0-63) once. Device lock. */
void chipset_gpe(struct vm *vm, unsigned n);
/* A non-maskable interrupt at every LINT1, unless port 0x70 masks it. Device lock. */
void chipset_nmi(struct vm *vm);

/* Of the board: state of the wires, in the order in which they were handed out. */
struct device_type;
struct state_record;
extern const struct device_type board_type;
extern const struct state_record board_record;

#endif
