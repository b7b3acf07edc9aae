/*
 * Endpoints: the standard registers of a function (PCI Local Bus 3.0, chapter 6), its capability
 * list, BARs, INTx, and the PCI Express capability of a root complex integrated endpoint (PCI
 * Express Base 3.0, section 7.8) with function-level reset (6.6.2).
 */
#include "pci/pci.h"

#include <errno.h>
#include <stdlib.h>

#include "vm/vm.h"

#define CAP_EXPRESS		0x10
#define EXPRESS_SIZE		0x3c
#define EXPRESS_VERSION		0x0002
#define EXPRESS_INTEGRATED	0x0090	/* device type 9, root complex integrated endpoint */
#define DEVICE_CAPABILITIES	0x04
#define DEVICE_CONTROL		0x08
#define DEVICE_ROLE_ERRORS	BIT(15)	/* role-based error reporting: must be one */
#define DEVICE_FLR		BIT(28)
#define CONTROL_FLR		0x8000	/* initiate; reads as zero */
#define CONTROL_BITS		0x781f	/* error reports, relaxed order, no snoop, read request size */
#define CONTROL_RESET		0x2810	/* 512-byte reads, no snoop, relaxed order */

#define CAPS_FIRST		0x40

/* SERR and parity error response do nothing here, but software may set them. */
#define COMMAND_BITS \
	(PCI_COMMAND_IO | PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER | PCI_COMMAND_NO_INTX | 0x0140)

unsigned pci_add_capability(struct pci_device *p, uint8_t id, unsigned size)
{
	unsigned at = p->next_cap;

	p->config[at] = id;
	p->config[p->last_cap ? p->last_cap + 1u : PCI_CAPABILITIES] = (uint8_t)at;
	p->last_cap = (uint8_t)at;
	p->next_cap = (uint8_t)ALIGN_UP(at + size, 4u);
	return at;
}

static void add_express(struct pci_device *p)
{
	unsigned at = pci_add_capability(p, CAP_EXPRESS, EXPRESS_SIZE);

	store16(p->config + at + 2, EXPRESS_VERSION | EXPRESS_INTEGRATED);
	store32(p->config + at + DEVICE_CAPABILITIES, DEVICE_ROLE_ERRORS | DEVICE_FLR);
	store16(p->wmask + at + DEVICE_CONTROL, CONTROL_BITS | CONTROL_FLR);
	p->express = (uint8_t)at;
}

void pci_init_endpoint(struct pci_device *p)
{
	pci_init_header(p);
	p->endpoint = true;
	p->next_cap = CAPS_FIRST;
	store16(p->config + PCI_STATUS, PCI_STATUS_CAPS);
	store16(p->wmask + PCI_COMMAND, COMMAND_BITS);
	p->wmask[PCI_CACHE_LINE] = 0xff;
	p->wmask[PCI_INTERRUPT_LINE] = 0xff;
	p->config[PCI_INTERRUPT_PIN] = 1;
	add_express(p);
}

void pci_finish_endpoint(struct pci_device *p)
{
	pci_unmap_bars(p);
	pci_detach(p);
	free(p->vector);
	p->vector = NULL;
	p->nvectors = 0;
}

void pci_add_bar(struct pci_device *p, unsigned n, uint64_t size, uint8_t kind,
		 const struct bus_ops *ops, void *opaque)
{
	unsigned reg = PCI_BAR0 + 4 * n;

	p->bar[n] = (struct pci_bar){ .size = size, .kind = kind, .ops = ops, .opaque = opaque };
	p->config[reg] = kind;
	store32(p->wmask + reg, (uint32_t)~(size - 1));
	if (kind & PCI_BAR_MEM64)
		store32(p->wmask + reg + 4, (uint32_t)(~(size - 1) >> 32));
}

/* ---- INTx ---------------------------------------------------------------- */

static bool intx_reaches(const struct pci_device *p)
{
	return p->intx && !(load16(p->config + PCI_COMMAND) & PCI_COMMAND_NO_INTX) &&
	       !pci_msix_enabled(p) && !pci_msi_enabled(p);
}

/* The status bit tells what the device wants, disabled or not (PCI 3.0, 6.2.3). */
static void show_intx(struct pci_device *p)
{
	p->config[PCI_STATUS] = (uint8_t)((p->config[PCI_STATUS] & ~PCI_STATUS_INTX) |
					  (p->intx ? PCI_STATUS_INTX : 0));
}

void pci_set_intx(struct pci_device *p, bool level)
{
	p->intx = level;
	show_intx(p);
	pci_drive_intx(p, intx_reaches(p), false);
}

/* ---- Writes -------------------------------------------------------------- */

void pci_function_written(struct pci_device *p, unsigned offset, unsigned size)
{
	bool command = pci_touches(offset, size, PCI_COMMAND, 2);

	if (p->bus && (command || pci_touches(offset, size, PCI_BAR0, 4 * PCI_BARS)))
		pci_update_bars(p->bus);
	if (pci_touches(offset, size, p->express + DEVICE_CONTROL, 2)) {
		uint8_t *reg = p->config + p->express + DEVICE_CONTROL;
		uint16_t v = load16(reg);

		store16(reg, v & ~CONTROL_FLR);
		if (v & CONTROL_FLR) {
			p->dev.type->reset(&p->dev);
			return;
		}
	}
	pci_msi_written(p, offset, size);
	if (command) {
		pci_set_intx(p, p->intx);
		pci_update_interrupts(p);
	}
}

/* ---- Reset and state ----------------------------------------------------- */

static void load_model(struct pci_device *p, const struct pci_model *m)
{
	uint8_t *c = p->config;

	store16(c + PCI_COMMAND, m->command);
	c[PCI_CACHE_LINE] = m->cache_line;
	c[PCI_INTERRUPT_LINE] = m->interrupt_line;
	for (unsigned n = 0; n < PCI_BARS; n++)
		store32(c + PCI_BAR0 + 4 * n, m->bar[n]);
	store16(c + p->express + DEVICE_CONTROL, m->device_control);
	pci_msi_commit(p, m);
	if (p->bus)
		pci_update_bars(p->bus);
}

void pci_reset_endpoint(struct pci_device *p)
{
	struct pci_model m = { .device_control = CONTROL_RESET };

	for (unsigned n = 0; n < PCI_BARS; n++)
		m.bar[n] = p->bar[n].kind;
	pci_msi_reset(p);
	load_model(p, &m);
	pci_set_intx(p, false);
}

void pci_export_endpoint(const struct pci_device *p, struct pci_model *m)
{
	const uint8_t *c = p->config;

	*m = (struct pci_model){
		.command = load16(c + PCI_COMMAND),
		.cache_line = c[PCI_CACHE_LINE],
		.interrupt_line = c[PCI_INTERRUPT_LINE],
		.device_control = load16(c + p->express + DEVICE_CONTROL),
	};
	for (unsigned n = 0; n < PCI_BARS; n++)
		m->bar[n] = load32(c + PCI_BAR0 + 4 * n);
	pci_msi_export(p, m);
}

int pci_validate_endpoint(const struct pci_device *p, const struct pci_model *m,
			  struct skep_error *e)
{
	if (m->command & ~COMMAND_BITS)
		return skep_fail(e, EINVAL, "%s: command %#x has reserved bits set", p->dev.name,
				 m->command);
	if (m->device_control & ~CONTROL_BITS)
		return skep_fail(e, EINVAL, "%s: device_control %#x has reserved bits set", p->dev.name,
				 m->device_control);
	for (unsigned n = 0; n < PCI_BARS; n++) {
		uint32_t mask = load32(p->wmask + PCI_BAR0 + 4 * n);

		if ((m->bar[n] & ~mask) != p->bar[n].kind)
			return skep_fail(e, EINVAL, "%s: bar[%u] is %#x, which its %s cannot hold",
					 p->dev.name, n, m->bar[n], p->bar[n].size ? "size" : "absence");
	}
	return pci_msi_validate(p, m, e);
}

void pci_commit_endpoint(struct pci_device *p, const struct pci_model *m, bool intx)
{
	load_model(p, m);
	p->intx = intx;
	show_intx(p);
	pci_drive_intx(p, intx_reaches(p), true);
}

static const struct state_field vector_fields[] = {
	STATE_U64(struct pci_vector, address),
	STATE_U32(struct pci_vector, data),
	STATE_BOOL(struct pci_vector, masked),
	STATE_BOOL(struct pci_vector, pending),
};

static const struct state_record vector_record = {
	.kind = "pci-vector",
	.version = 1,
	.model_size = sizeof(struct pci_vector),
	.fields = vector_fields,
	.nfields = ARRAY_SIZE(vector_fields),
};

static const struct state_field function_fields[] = {
	STATE_U16(struct pci_model, command, .max = COMMAND_BITS),
	STATE_U8(struct pci_model, cache_line),
	STATE_U8(struct pci_model, interrupt_line),
	STATE_ARRAY(struct pci_model, bar, STATE_T_U32),
	STATE_U16(struct pci_model, device_control, .max = CONTROL_BITS),
	STATE_U16(struct pci_model, msi_control),
	STATE_U16(struct pci_model, msi_data),
	STATE_U64(struct pci_model, msi_address),
	STATE_U32(struct pci_model, msi_mask),
	STATE_U32(struct pci_model, msi_pending),
	STATE_U16(struct pci_model, msix_control),
	STATE_LIST(struct pci_model, msix, &vector_record, .max = PCI_VECTORS_MAX),
};

const struct state_record pci_function_record = {
	.kind = "pci-function",
	.version = 1,
	.model_size = sizeof(struct pci_model),
	.fields = function_fields,
	.nfields = ARRAY_SIZE(function_fields),
};
