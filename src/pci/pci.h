/*
 * PCI configuration space: one bus, reached by ports 0xcf8/0xcfc and by ECAM.
 *
 * A PCI device is a struct device whose type carries a PCI header.  Its 4 KiB
 * of configuration space is a byte array with a write mask beside it: a plain
 * register needs no code, and config_written is told of every write that
 * reached it.  Absent devices and other buses read as all ones.
 *
 * Everything here runs with the device lock held.
 */
#ifndef SKEP_PCI_PCI_H
#define SKEP_PCI_PCI_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "vm/bus.h"
#include "vm/device.h"

#define PCI_CONFIG_SIZE		4096u
#define PCI_DEVFN(dev, fn)	((uint8_t)((dev) << 3 | (fn)))

/* Configuration header, PCI Local Bus 3.0, section 6.1. */
#define PCI_VENDOR_ID		0x00
#define PCI_DEVICE_ID		0x02
#define PCI_COMMAND		0x04
#define PCI_STATUS		0x06
#define PCI_REVISION		0x08
#define PCI_CLASS_PROG		0x09
#define PCI_CLASS_SUB		0x0a
#define PCI_CLASS_BASE		0x0b
#define PCI_HEADER_TYPE		0x0e
#define PCI_SUBSYS_VENDOR	0x2c
#define PCI_SUBSYS_ID		0x2e

#define PCI_HEADER_MULTI	0x80

/* The global system interrupt of INTA-INTD (pin 0-3): PIRQ A-H are GSI 16-23. */
static inline unsigned pci_intx_gsi(unsigned slot, unsigned pin)
{
	return 16 + ((slot + pin) & 7);
}

struct pci_bus;
struct pci_device;

struct pci_device_type {
	struct device_type device;	/* first: the list in vm/devices.c holds &type.device */
	uint16_t vendor_id, device_id;
	uint16_t subsys_vendor, subsys_id;
	uint32_t class_code;		/* base << 16 | sub << 8 | interface */
	uint8_t revision;
	uint8_t header_type;
	/* Bytes [offset, offset + size) were written, masks applied already. */
	void (*config_written)(struct pci_device *p, unsigned offset, unsigned size);
};

struct pci_device {
	struct device dev;		/* first */
	struct pci_bus *bus;
	uint8_t devfn;
	uint8_t config[PCI_CONFIG_SIZE];
	uint8_t wmask[PCI_CONFIG_SIZE];		/* bits the guest may change */
	uint8_t w1cmask[PCI_CONFIG_SIZE];	/* bits that writing a 1 clears */
};

extern const struct device_type pci_bus_type;
extern const struct state_record pci_bus_record, hostbridge_record, lpc_record;
extern const struct pci_device_type hostbridge_type, lpc_type;

/*
 * Makes the bus, its ports 0xcf8-0xcff, and the devices of the board: the host
 * bridge at 0:0.0 and the LPC bridge at 0:31.0, whether the configuration
 * names them or not.  The devices belong to the VM's list.
 */
struct pci_bus *pci_create(struct vm *vm, struct skep_error *e);
/* The VM's bus, or NULL before pci_create. */
struct pci_bus *pci_of(struct vm *vm);
/* NULL: nothing there. */
struct pci_device *pci_find(struct pci_bus *b, uint8_t devfn);
/* Puts a created device on the bus; a taken place is an error. */
int pci_attach(struct pci_bus *b, struct pci_device *p, uint8_t devfn, struct skep_error *e);

/*
 * Port 0xcf9, the reset control register, lies within the address register's
 * four bytes: byte accesses to it are passed on (offset 0) to this wire.
 */
void pci_connect_reset_control(struct pci_bus *b, const struct bus_ops *ops, void *opaque);

/* The host bridge's PCIEXBAR moved: re-maps ECAM. size 0: not decoded. */
void pci_set_ecam(struct pci_bus *b, uint64_t base, uint64_t size);

/* Accesses as the guest makes them; size 1, 2 or 4. */
uint32_t pci_config_read(struct pci_bus *b, unsigned bus, uint8_t devfn, unsigned offset,
			 unsigned size);
void pci_config_write(struct pci_bus *b, unsigned bus, uint8_t devfn, unsigned offset,
		      unsigned size, uint32_t value);

/* For a device's init: fills in the header from the type. */
void pci_init_header(struct pci_device *p);

/*
 * The power management block lies where the LPC bridge's PMBASE says: called
 * at reset and whenever PMBASE or ACPI_CNTL changes.  A base that is not
 * enabled is not decoded.
 */
void lpc_connect_pm(struct pci_device *lpc,
		    void (*set_base)(void *opaque, uint16_t base, bool enabled), void *opaque);

#endif
