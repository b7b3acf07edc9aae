/*
 * The PCI bus: configuration mechanism #1 (PCI Local Bus 3.0, section 3.2.2.3.2)
 * and ECAM (PCI Express Base 3.0, section 7.2.2).
 */
#include "pci/pci.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "config/config.h"
#include "state/state.h"
#include "vm/vm.h"

#define ADDRESS_PORT	0xcf8
#define ADDRESS_ENABLE	BIT(31)
#define ADDRESS_MASK	0x80fffffcu	/* bits 30:24 and 1:0 are reserved, read as zero */
#define RESET_OFFSET	1		/* 0xcf9 */
#define DATA_OFFSET	4		/* 0xcfc */

struct pci_bus {
	struct device dev;
	struct pci_device *slot[256];	/* by devfn */
	uint32_t address;
	uint64_t ecam_base, ecam_size;	/* mapped on the bus now; size 0: not */
	struct irq_line gsi[PCI_PIRQS], isa[16];
	unsigned asserted[PCI_PIRQS];	/* functions that assert it */
	uint8_t route[PCI_PIRQS];	/* as the LPC bridge's registers have it */
	void (*msi)(struct vm *vm, uint64_t address, uint32_t data);
	const struct bus_ops *reset_ops;
	void *reset_opaque;
};

struct pci_bus_model {
	uint32_t config_address;
};

static uint32_t all_ones(unsigned size)
{
	return size >= 4 ? UINT32_MAX : (1u << 8 * size) - 1;
}

struct pci_device *pci_find(struct pci_bus *b, uint8_t devfn)
{
	return b->slot[devfn];
}

uint32_t pci_config_read(struct pci_bus *b, unsigned bus, uint8_t devfn, unsigned offset,
			 unsigned size)
{
	struct pci_device *p = bus == 0 ? b->slot[devfn] : NULL;
	const struct pci_device_type *t;
	uint32_t v = 0;

	if (!p || size > 4 || offset > PCI_CONFIG_SIZE - size)
		return all_ones(size);
	t = container_of(p->dev.type, const struct pci_device_type, device);
	if (t->config_reading)
		t->config_reading(p, offset, size);
	memcpy(&v, p->config + offset, size);
	return v;
}

void pci_config_write(struct pci_bus *b, unsigned bus, uint8_t devfn, unsigned offset,
		      unsigned size, uint32_t value)
{
	struct pci_device *p = bus == 0 ? b->slot[devfn] : NULL;
	const struct pci_device_type *t;

	if (!p || size > 4 || offset > PCI_CONFIG_SIZE - size)
		return;
	for (unsigned i = 0; i < size; i++) {
		uint8_t v = (uint8_t)(value >> 8 * i);
		uint8_t w = p->wmask[offset + i];
		uint8_t *reg = &p->config[offset + i];

		*reg = (*reg & ~w) | (v & w);
		*reg &= ~(v & p->w1cmask[offset + i]);
	}
	t = container_of(p->dev.type, const struct pci_device_type, device);
	if (p->endpoint)
		pci_function_written(p, offset, size);
	t->config_written(p, offset, size);
}

/* Configuration mechanism #1. */

static uint64_t ports_read(void *opaque, uint64_t offset, unsigned size)
{
	struct pci_bus *b = opaque;

	if (offset >= DATA_OFFSET) {
		unsigned byte = offset - DATA_OFFSET;

		if (!(b->address & ADDRESS_ENABLE) || byte + size > 4)
			return all_ones(size);
		return pci_config_read(b, b->address >> 16 & 0xff, b->address >> 8 & 0xff,
				       (b->address & 0xfc) + byte, size);
	}
	if (offset == 0 && size == 4)
		return b->address;
	if (offset == RESET_OFFSET && size == 1 && b->reset_ops)
		return b->reset_ops->read(b->reset_opaque, 0, 1);
	return all_ones(size);
}

static void ports_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
	struct pci_bus *b = opaque;

	if (offset >= DATA_OFFSET) {
		unsigned byte = offset - DATA_OFFSET;

		if ((b->address & ADDRESS_ENABLE) && byte + size <= 4)
			pci_config_write(b, b->address >> 16 & 0xff, b->address >> 8 & 0xff,
					 (b->address & 0xfc) + byte, size, value);
	} else if (offset == 0 && size == 4) {
		b->address = value & ADDRESS_MASK;
	} else if (offset == RESET_OFFSET && size == 1 && b->reset_ops) {
		b->reset_ops->write(b->reset_opaque, 0, 1, value);
	}
}

static const struct bus_ops ports_ops = {
	.read = ports_read,
	.write = ports_write,
	.max_size = 4,
};

void pci_connect_reset_control(struct pci_bus *b, const struct bus_ops *ops, void *opaque)
{
	b->reset_ops = ops;
	b->reset_opaque = opaque;
}

/* ECAM: address bits 27:20 bus, 19:12 device and function, 11:0 register. */

static uint64_t ecam_read(void *opaque, uint64_t offset, unsigned size)
{
	return pci_config_read(opaque, offset >> 20 & 0xff, offset >> 12 & 0xff,
			       offset & 0xfff, size);
}

static void ecam_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
	pci_config_write(opaque, offset >> 20 & 0xff, offset >> 12 & 0xff, offset & 0xfff, size,
			 value);
}

static const struct bus_ops ecam_ops = {
	.read = ecam_read,
	.write = ecam_write,
	.max_size = 4,
};

void pci_set_ecam(struct pci_bus *b, uint64_t base, uint64_t size)
{
	struct vm *vm = b->dev.vm;
	struct skep_error ignored;

	if (b->ecam_size == size && (!size || b->ecam_base == base))
		return;
	if (b->ecam_size)
		bus_unmap(&vm->mmio, b->ecam_base);
	b->ecam_size = 0;
	for (unsigned i = 0; i < ARRAY_SIZE(b->slot); i++)
		if (b->slot[i])
			pci_unmap_bars(b->slot[i]);
	/*
	 * A guest that lays ECAM over another device's range keeps that device
	 * and has no ECAM: the board decodes fixed ranges first, and BARs last.
	 */
	if (size && !bus_map(&vm->mmio, base, size, &ecam_ops, b, "ecam", &ignored)) {
		b->ecam_base = base;
		b->ecam_size = size;
	}
	pci_update_bars(b);
}

/* ---- BARs ---------------------------------------------------------------- */

/* Where the registers want BAR n to decode; false: nowhere. */
static bool bar_wanted(const struct pci_device *p, unsigned n, uint64_t *at)
{
	const struct pci_bar *bar = &p->bar[n];
	uint16_t command = load16(p->config + PCI_COMMAND);
	unsigned reg = PCI_BAR0 + 4 * n;

	if (!bar->size)
		return false;
	if (bar->kind & PCI_BAR_IO) {
		*at = load32(p->config + reg) & ~3u;
		return (command & PCI_COMMAND_IO) && *at && *at + bar->size <= 0x10000;
	}
	*at = load32(p->config + reg) & ~15u;
	if (bar->kind & PCI_BAR_MEM64)
		*at |= (uint64_t)load32(p->config + reg + 4) << 32;
	/* One at 0 was not assigned yet. */
	return (command & PCI_COMMAND_MEMORY) && *at && *at <= p->dev.vm->mmio.limit - (bar->size - 1);
}

static struct bus *bar_bus(const struct pci_device *p, const struct pci_bar *bar)
{
	return bar->kind & PCI_BAR_IO ? &p->dev.vm->ports : &p->dev.vm->mmio;
}

static void bar_unmap(struct pci_device *p, struct pci_bar *bar)
{
	if (bar->mapped)
		bus_unmap(bar_bus(p, bar), bar->at);
	bar->mapped = false;
}

void pci_unmap_bars(struct pci_device *p)
{
	for (unsigned n = 0; n < PCI_BARS; n++)
		bar_unmap(p, &p->bar[n]);
}

/* Maps what is not mapped yet, by slot, function and number; false: something was in the way. */
static bool map_bars(struct pci_bus *b)
{
	bool all = true;

	for (unsigned i = 0; i < ARRAY_SIZE(b->slot); i++)
		for (unsigned n = 0; b->slot[i] && n < PCI_BARS; n++) {
			struct pci_device *p = b->slot[i];
			struct pci_bar *bar = &p->bar[n];
			struct skep_error ignored;
			uint64_t at;

			if (bar->mapped || !bar_wanted(p, n, &at))
				continue;
			bar->at = at;
			bar->mapped = !bus_map(bar_bus(p, bar), at, bar->size, bar->ops, bar->opaque,
					       p->dev.name, &ignored);
			all &= bar->mapped;
		}
	return all;
}

/*
 * What decodes where is a function of the registers alone, so that a restored machine, which knows
 * no history, decodes alike: where BARs overlap each other, the first one by slot, function and
 * number has the range.
 */
void pci_update_bars(struct pci_bus *b)
{
	for (unsigned i = 0; i < ARRAY_SIZE(b->slot); i++)
		for (unsigned n = 0; b->slot[i] && n < PCI_BARS; n++) {
			struct pci_bar *bar = &b->slot[i]->bar[n];
			uint64_t at;

			if (bar->mapped && (!bar_wanted(b->slot[i], n, &at) || at != bar->at))
				bar_unmap(b->slot[i], bar);
		}
	if (map_bars(b))
		return;
	for (unsigned i = 0; i < ARRAY_SIZE(b->slot); i++)
		if (b->slot[i])
			pci_unmap_bars(b->slot[i]);
	map_bars(b);
}

/* ---- Interrupts ---------------------------------------------------------- */

/* Interrupts of the 8259s that a PIRQ can be routed to (ICH9 data sheet, PIRQ[n]_ROUT). */
#define ROUTABLE	0xdef8u
#define ROUTE_OFF	0x80

static int routed(const struct pci_bus *b, unsigned n)
{
	unsigned irq = b->route[n] & 15;

	return b->route[n] & ROUTE_OFF || !(ROUTABLE >> irq & 1) ? -1 : (int)irq;
}

static void drive_isa(struct pci_bus *b, int irq)
{
	bool level = false;

	if (irq < 0)
		return;
	for (unsigned n = 0; n < PCI_PIRQS; n++)
		level |= routed(b, n) == irq && b->asserted[n];
	irq_set(&b->isa[irq], level);
}

void pci_drive_intx(struct pci_device *p, bool level, bool restored)
{
	struct pci_bus *b = p->bus;
	unsigned n;

	if (level == p->intx_driven || !b)
		return;
	p->intx_driven = level;
	n = pci_intx_gsi(p->devfn >> 3, 0) - 16;
	b->asserted[n] += level ? 1 : -1;
	if (restored || b->asserted[n] != (level ? 1 : 0))
		return;
	irq_set(&b->gsi[n], level);
	drive_isa(b, routed(b, n));
}

void pci_route(struct pci_bus *b, unsigned n, uint8_t reg, bool restored)
{
	int was = routed(b, n);

	b->route[n] = reg;
	if (restored || was == routed(b, n))
		return;
	drive_isa(b, was);
	drive_isa(b, routed(b, n));
}

void pci_send(struct pci_bus *b, uint64_t address, uint32_t data)
{
	if (b && b->msi)
		b->msi(b->dev.vm, address, data);
}

void pci_connect_interrupts(struct pci_bus *b, const struct irq_line gsi[PCI_PIRQS],
			    const struct irq_line isa[16],
			    void (*msi)(struct vm *vm, uint64_t address, uint32_t data))
{
	memcpy(b->gsi, gsi, sizeof(b->gsi));
	memcpy(b->isa, isa, sizeof(b->isa));
	b->msi = msi;
}

/* The bus as a device. */

static int pci_bus_init(struct device *d, struct skep_error *e)
{
	struct pci_bus *b = container_of(d, struct pci_bus, dev);

	memset(b->route, ROUTE_OFF, sizeof(b->route));
	return bus_map(&d->vm->ports, ADDRESS_PORT, 8, &ports_ops, b, d->name, e);
}

static void pci_bus_finish(struct device *d)
{
	struct pci_bus *b = container_of(d, struct pci_bus, dev);

	/* Devices that were made later are gone already. */
	if (b->ecam_size)
		bus_unmap(&d->vm->mmio, b->ecam_base);
	bus_unmap(&d->vm->ports, ADDRESS_PORT);
}

static void pci_bus_reset(struct device *d)
{
	container_of(d, struct pci_bus, dev)->address = 0;
}

static void pci_bus_export(const struct device *d, void *model)
{
	struct pci_bus_model *m = model;

	m->config_address = container_of(d, const struct pci_bus, dev)->address;
}

static int pci_bus_validate(const struct device *d, const void *model, struct skep_error *e)
{
	const struct pci_bus_model *m = model;

	if (m->config_address & ~ADDRESS_MASK)
		return skep_fail(e, EINVAL, "%s: config_address %#x has reserved bits set",
				 d->name, m->config_address);
	return 0;
}

static void pci_bus_commit(struct device *d, const void *model)
{
	const struct pci_bus_model *m = model;

	container_of(d, struct pci_bus, dev)->address = m->config_address;
}

static const struct state_field pci_bus_fields[] = {
	STATE_U32(struct pci_bus_model, config_address, .max = ADDRESS_MASK),
};

const struct state_record pci_bus_record = {
	.kind = "pci-bus",
	.version = 1,
	.model_size = sizeof(struct pci_bus_model),
	.fields = pci_bus_fields,
	.nfields = ARRAY_SIZE(pci_bus_fields),
};

static const struct config_schema no_keys;

const struct device_type pci_bus_type = {
	.name = "pci-bus",
	.help = "PCI configuration space, ports 0xcf8-0xcff and ECAM",
	.config = &no_keys,
	.state = &pci_bus_record,
	.size = sizeof(struct pci_bus),
	.init = pci_bus_init,
	.finish = pci_bus_finish,
	.reset = pci_bus_reset,
	.quiesce = device_nop,
	.resume = device_nop,
	.export = pci_bus_export,
	.validate = pci_bus_validate,
	.commit = pci_bus_commit,
};

/* Devices on it. */

void pci_init_header(struct pci_device *p)
{
	const struct pci_device_type *t =
		container_of(p->dev.type, const struct pci_device_type, device);

	memset(p->config, 0, sizeof(p->config));
	memset(p->wmask, 0, sizeof(p->wmask));
	memset(p->w1cmask, 0, sizeof(p->w1cmask));
	store16(p->config + PCI_VENDOR_ID, t->vendor_id);
	store16(p->config + PCI_DEVICE_ID, t->device_id);
	p->config[PCI_REVISION] = t->revision;
	p->config[PCI_CLASS_PROG] = t->class_code & 0xff;
	p->config[PCI_CLASS_SUB] = t->class_code >> 8 & 0xff;
	p->config[PCI_CLASS_BASE] = t->class_code >> 16 & 0xff;
	p->config[PCI_HEADER_TYPE] = t->header_type;
	store16(p->config + PCI_SUBSYS_VENDOR, t->subsys_vendor);
	store16(p->config + PCI_SUBSYS_ID, t->subsys_id);
}

void pci_detach(struct pci_device *p)
{
	if (p->bus)
		p->bus->slot[p->devfn] = NULL;
	p->bus = NULL;
}

int pci_attach(struct pci_bus *b, struct pci_device *p, uint8_t devfn, struct skep_error *e)
{
	if (b->slot[devfn])
		return skep_fail(e, EBUSY, "%s: slot %u, function %u is taken by %s",
				 p->dev.name, devfn >> 3, devfn & 7, b->slot[devfn]->dev.name);
	p->bus = b;
	p->devfn = devfn;
	b->slot[devfn] = p;
	return 0;
}

static int create_device(struct pci_bus *b, const struct device_type *t, unsigned slot,
			 unsigned function, struct skep_error *e)
{
	struct vm *vm = b->dev.vm;
	struct device *d;
	char name[32];

	snprintf(name, sizeof(name), "pci.0.%u.%u", slot, function);
	d = device_create(vm, t, name, vm->config ? config_find(vm->config, name) : NULL, e);
	if (!d)
		return -EINVAL;
	return pci_attach(b, container_of(d, struct pci_device, dev), PCI_DEVFN(slot, function), e);
}

bool pci_is_device_type(const struct device_type *t)
{
	for (const struct config_slot_type *s = config_slot_types; s->name; s++)
		if (!strcmp(s->name, t->name))
			return true;
	return false;
}

/* A function that the configuration names; config_freeze has checked the numbers and the type. */
static int create_named(struct pci_bus *b, struct config_node *node, unsigned slot, unsigned function,
			struct skep_error *e)
{
	const char *name = config_string(node, "device");
	const struct device_type *type = NULL;

	for (size_t i = 0; name && device_types[i]; i++)
		if (!strcmp(device_types[i]->name, name) && pci_is_device_type(device_types[i]))
			type = device_types[i];
	if (!type)
		return skep_fail(e, ENODEV, "%s.device: there is no device \"%s\"", config_path(node),
				 name ? name : "");
	if (type == &hostbridge_type.device || type == &lpc_type.device)
		return 0;
	if (function && !b->slot[PCI_DEVFN(slot, 0)])
		return skep_fail(e, EINVAL, "%s: a guest looks at functions 1 to 7 of a slot only if there "
				 "is a function 0; put a device at %u:0, or this one there",
				 config_path(node), slot);
	if (function)
		b->slot[PCI_DEVFN(slot, 0)]->config[PCI_HEADER_TYPE] |= PCI_HEADER_MULTI;
	return create_device(b, type, slot, function, e);
}

int pci_create_devices(struct pci_bus *b, struct skep_error *e)
{
	struct config *c = b->dev.vm->config;
	struct config_node *root = c ? config_find(c, "pci") : NULL, *bus, *slot, *node;
	int err = 0;

	for (bus = root ? config_first(root) : NULL; bus; bus = config_next(bus)) {
		if (strcmp(config_name(bus), "0"))
			return skep_fail(e, EINVAL, "%s: this machine has one PCI bus, 0; write pci.0",
					 config_path(bus));
		for (slot = config_first(bus); slot && !err; slot = config_next(slot))
			for (node = config_first(slot); node && !err; node = config_next(node))
				err = create_named(b, node, (unsigned)strtoul(config_name(slot), NULL, 10) & 31,
						   (unsigned)strtoul(config_name(node), NULL, 10) & 7, e);
	}
	return err;
}

struct pci_bus *pci_create(struct vm *vm, struct skep_error *e)
{
	struct device *d = device_create(vm, &pci_bus_type, "pci", NULL, e);
	struct pci_bus *b;

	if (!d)
		return NULL;
	b = container_of(d, struct pci_bus, dev);
	if (create_device(b, &hostbridge_type.device, 0, 0, e) ||
	    create_device(b, &lpc_type.device, 31, 0, e))
		return NULL;
	return b;
}

struct pci_bus *pci_of(struct vm *vm)
{
	for (struct device *d = vm->devices; d; d = d->next)
		if (d->type == &pci_bus_type)
			return container_of(d, struct pci_bus, dev);
	return NULL;
}
