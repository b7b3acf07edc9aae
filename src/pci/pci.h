/*
 * PCI Express: one bus, reached by ports 0xcf8/0xcfc and by ECAM.
 *
 * A PCI device is a struct device whose type carries a PCI header.  Its 4 KiB
 * of configuration space is a byte array with a write mask beside it: a plain
 * register needs no code, and config_written is told of every write that
 * reached it.  Absent devices and other buses read as all ones.
 *
 * A function that is not one of the board's bridges is an *endpoint*:
 *
 *	init	pci_init_endpoint, then pci_add_bar, pci_add_msix ...: what it has
 *	finish	pci_finish_endpoint
 *	reset	pci_reset_endpoint, then the device's own registers: also what a
 *		function-level reset calls
 *	export	pci_export_endpoint fills the struct pci_model that lies in the
 *		device's model (STATE_STRUCT(..., &pci_function_record));
 *		pci_validate_endpoint and pci_commit_endpoint are the way back
 *
 * Which of INTx, MSI and MSI-X is in use is the guest's choice, and
 * pci_msix_enabled and pci_msi_enabled tell.  A device that may still master the
 * bus (pci_bus_master) reaches memory through the DMA door (vm/memory.h).
 *
 * Everything here runs with the device lock held.
 */
#ifndef SKEP_PCI_PCI_H
#define SKEP_PCI_PCI_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "base/util.h"
#include "state/state.h"
#include "vm/bus.h"
#include "vm/device.h"
#include "vm/irq.h"

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
#define PCI_CACHE_LINE		0x0c
#define PCI_HEADER_TYPE		0x0e
#define PCI_BAR0		0x10
#define PCI_SUBSYS_VENDOR	0x2c
#define PCI_SUBSYS_ID		0x2e
#define PCI_CAPABILITIES	0x34
#define PCI_INTERRUPT_LINE	0x3c
#define PCI_INTERRUPT_PIN	0x3d

#define PCI_COMMAND_IO		0x0001
#define PCI_COMMAND_MEMORY	0x0002
#define PCI_COMMAND_MASTER	0x0004
#define PCI_COMMAND_NO_INTX	0x0400
#define PCI_STATUS_INTX		0x0008
#define PCI_STATUS_CAPS		0x0010

#define PCI_HEADER_MULTI	0x80

/* The global system interrupt of INTA-INTD (pin 0-3): PIRQ A-H are GSI 16-23. */
static inline unsigned pci_intx_gsi(unsigned slot, unsigned pin)
{
	return 16 + ((slot + pin) & 7);
}

#define PCI_BARS		6
/* What a BAR is: the low bits of its register. */
#define PCI_BAR_MEM32		0x0
#define PCI_BAR_IO		0x1
#define PCI_BAR_MEM64		0x4	/* takes the next BAR's register as well */
#define PCI_BAR_PREFETCH	0x8

#define PCI_VECTORS_MAX		128	/* MSI-X vectors of one function */
#define PCI_PIRQS		8	/* PIRQA-PIRQH */

struct pci_bus;
struct pci_device;

struct pci_bar {
	uint64_t size;			/* bytes, a power of two; 0: there is none */
	uint8_t kind;
	const struct bus_ops *ops;
	void *opaque;
	bool mapped;			/* at `at` on the bus */
	uint64_t at;
};

/* One entry of the MSI-X table, with its bit of the PBA. */
struct pci_vector {
	uint64_t address;
	uint32_t data;
	bool masked, pending;
};

/* What a guest can change in an endpoint's standard registers. Fields of pci_function_record. */
struct pci_model {
	uint16_t command;
	uint8_t cache_line, interrupt_line;
	uint32_t bar[PCI_BARS];
	uint16_t device_control;	/* of the PCI Express capability */
	uint16_t msi_control, msi_data;
	uint64_t msi_address;
	uint32_t msi_mask, msi_pending;
	uint16_t msix_control;
	struct state_list msix;		/* of struct pci_vector */
};

struct pci_device_type {
	struct device_type device;	/* first: the list in vm/devices.c holds &type.device */
	uint16_t vendor_id, device_id;
	uint16_t subsys_vendor, subsys_id;
	uint32_t class_code;		/* base << 16 | sub << 8 | interface */
	uint8_t revision;
	uint8_t header_type;
	/* Bytes [offset, offset + size) were written, masks applied already. */
	void (*config_written)(struct pci_device *p, unsigned offset, unsigned size);
	/* They are about to be read; may be NULL. */
	void (*config_reading)(struct pci_device *p, unsigned offset, unsigned size);
};

struct pci_device {
	struct device dev;		/* first */
	struct pci_bus *bus;
	uint8_t devfn;
	uint8_t config[PCI_CONFIG_SIZE];
	uint8_t wmask[PCI_CONFIG_SIZE];		/* bits the guest may change */
	uint8_t w1cmask[PCI_CONFIG_SIZE];	/* bits that writing a 1 clears */

	/* Endpoints only; function.c and msi.c. */
	bool endpoint;
	struct pci_bar bar[PCI_BARS];
	uint8_t last_cap;			/* offset of the last capability in the list */
	uint8_t next_cap;			/* where the next one goes */
	uint8_t express, msi, msix;		/* offsets of these capabilities; 0: none */
	unsigned nvectors;			/* of MSI-X */
	struct pci_vector *vector;
	bool intx;				/* the device asserts INTx */
	bool intx_driven;			/* and it reaches the line */
};

extern const struct device_type pci_bus_type;
extern const struct state_record pci_bus_record, hostbridge_record, lpc_record;
/* The sub-record of struct pci_model. */
extern const struct state_record pci_function_record;
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
 * Makes the devices that the configuration names (pci.0.SLOT.FUNCTION.device), by slot and
 * function. After the board's own.
 */
int pci_create_devices(struct pci_bus *b, struct skep_error *e);
/* Is it a type that -s can name? Such types are struct pci_device_type. */
bool pci_is_device_type(const struct device_type *t);

/* ---- Wires --------------------------------------------------------------- */

/*
 * Where interrupts go: a wire to each GSI 16-23 (PIRQA-H), one to each ISA interrupt (those that
 * PIRQs cannot be routed to are not used), and what takes a message.
 */
void pci_connect_interrupts(struct pci_bus *b, const struct irq_line gsi[PCI_PIRQS],
			    const struct irq_line isa[16],
			    void (*msi)(struct vm *vm, uint64_t address, uint32_t data));
/*
 * The LPC bridge routes PIRQ n (0-7) to the 8259s as its register says.  restored: nothing is
 * driven, the controllers have their pins already.
 */
void pci_route(struct pci_bus *b, unsigned n, uint8_t reg, bool restored);

/* ---- Endpoints ----------------------------------------------------------- */

/* Header, command and status, INTA, and the PCI Express capability with function-level reset. */
void pci_init_endpoint(struct pci_device *p);
void pci_finish_endpoint(struct pci_device *p);
/*
 * A register that decodes size bytes (a power of two; at least 16 of memory, 4 of I/O) where the
 * guest puts it; ops as for bus_map, offsets from its start.  n 0-5; a PCI_BAR_MEM64 takes n + 1, too.
 */
void pci_add_bar(struct pci_device *p, unsigned n, uint64_t size, uint8_t kind,
		 const struct bus_ops *ops, void *opaque);
/*
 * A capability of size bytes (id and next pointer included) at the end of the list; returns its
 * offset. Its bytes are zero and read-only: the caller fills in config and wmask.
 */
unsigned pci_add_capability(struct pci_device *p, uint8_t id, unsigned size);
/* n message vectors with a table and a PBA in a memory BAR of their own. 1 to PCI_VECTORS_MAX. */
int pci_add_msix(struct pci_device *p, unsigned bar, unsigned n, struct skep_error *e);
/* 1, 2, 4 ... 32 message vectors with a 64-bit address and masks. */
void pci_add_msi(struct pci_device *p, unsigned n);

static inline bool pci_bus_master(const struct pci_device *p)
{
	return load16(p->config + PCI_COMMAND) & PCI_COMMAND_MASTER;
}
bool pci_msix_enabled(const struct pci_device *p);
bool pci_msi_enabled(const struct pci_device *p);
/*
 * Sends vector v of MSI-X, or of MSI, whichever is enabled; neither, or a v that is not there: nothing
 * happens.  One that is masked, or while the function is no bus master, stays pending, and goes out later.
 */
void pci_message(struct pci_device *p, unsigned v);
/* The level of INTA.  It reaches the line unless the guest disabled it or uses messages. */
void pci_set_intx(struct pci_device *p, bool level);

/* Registers as after power-on: no BAR decodes, nothing is enabled, INTA is not asserted. */
void pci_reset_endpoint(struct pci_device *p);
/* No memory: the model has too few vectors, and its validation says so. */
void pci_export_endpoint(const struct pci_device *p, struct pci_model *m);
int pci_validate_endpoint(const struct pci_device *p, const struct pci_model *m,
			  struct skep_error *e);
/* intx: what the device asserts in the state that it now gets; nothing is raised. */
void pci_commit_endpoint(struct pci_device *p, const struct pci_model *m, bool intx);

/* ---- Between the files of this room -------------------------------------- */

/* The device goes away. */
void pci_detach(struct pci_device *p);
/* The registers say something else about decoding: lays all BARs as they say. */
void pci_update_bars(struct pci_bus *b);
void pci_unmap_bars(struct pci_device *p);
/* An endpoint's part in its PIRQ changed. restored: only counted. */
void pci_drive_intx(struct pci_device *p, bool level, bool restored);
void pci_send(struct pci_bus *b, uint64_t address, uint32_t data);
/* Looks again at what is enabled, masked and pending: INTx, and messages that may go out now. */
void pci_update_interrupts(struct pci_device *p);
void pci_function_written(struct pci_device *p, unsigned offset, unsigned size);
void pci_msi_written(struct pci_device *p, unsigned offset, unsigned size);
void pci_msi_reset(struct pci_device *p);
void pci_msi_export(const struct pci_device *p, struct pci_model *m);
int pci_msi_validate(const struct pci_device *p, const struct pci_model *m, struct skep_error *e);
void pci_msi_commit(struct pci_device *p, const struct pci_model *m);
static inline bool pci_touches(unsigned offset, unsigned size, unsigned reg, unsigned len)
{
	return offset < reg + len && reg < offset + size;
}

/*
 * The power management block lies where the LPC bridge's PMBASE says: called
 * at reset and whenever PMBASE or ACPI_CNTL changes.  A base that is not
 * enabled is not decoded.
 */
void lpc_connect_pm(struct pci_device *lpc,
		    void (*set_base)(void *opaque, uint16_t base, bool enabled), void *opaque);

#endif
