/*
 * Intel I/O APIC (82093AA data sheet 290566; version 0x20 with an EOI
 * register, ICH9 data sheet, section 13.5).
 *
 * Pins are told whether they are asserted, whatever the board's polarity is, so the polarity bit of
 * an entry is kept and means nothing: a guest that sets it otherwise than the tables say still gets
 * its interrupts, as it does from every other machine of this kind.
 */
#include "chipset/ioapic.h"

#include <errno.h>

#include "chipset/chipset.h"
#include "vm/vm.h"

#define VERSION		(0x20u | (IOAPIC_PINS - 1) << 16)

/* Registers in memory, and behind the index. */
#define IOREGSEL	0x00
#define IOWIN		0x10
#define EOI		0x40
#define REG_ID		0x00
#define REG_VERSION	0x01
#define REG_ARB		0x02
#define REG_REDIR	0x10

#define RTE_REMOTE_IRR	BIT(14)
#define RTE_LEVEL	BIT(15)
#define RTE_MASKED	BIT(16)
#define RTE_READ_ONLY	(BIT(12) | RTE_REMOTE_IRR)
#define RTE_WIDE	(0x7full << 49)		/* bits 14:8 of the destination, where there are so many */
#define RTE_BITS	(0xff00000000000000ull | 0x1ffffull)

enum { MODE_FIXED = 0, MODE_LOWEST = 1 };

struct ioapic_model {
	uint64_t redir[IOAPIC_PINS];
	uint32_t pins;		/* levels of the inputs */
	uint8_t index;
	uint8_t id;
};

struct ioapic {
	struct device dev;
	struct ioapic_model m;
	ioapic_deliver_fn deliver;
	void (*changed)(void *opaque);
	void *changed_opaque;
};

/* What an entry can hold. */
static uint64_t rte_bits(const struct device *d)
{
	return identity_wide_destinations(d->vm) ? RTE_BITS | RTE_WIDE : RTE_BITS;
}

static bool send(struct ioapic *io, uint64_t rte)
{
	uint32_t dest = (uint32_t)(rte >> 56 | (rte & RTE_WIDE) >> 49 << 8);
	unsigned mode = rte >> 8 & 7;
	bool level = rte & RTE_LEVEL;

	/* NMI, SMI, INIT and ExtINT are edges whatever the trigger bit says (82093AA, 3.2.4). */
	if (mode != MODE_FIXED && mode != MODE_LOWEST)
		level = false;
	return io->deliver && io->deliver(io->dev.vm, dest, rte & BIT(11), mode,
					  (uint8_t)rte, level);
}

/* Sends what an asserted level asks for, unless it is on its way already. */
static void service_level(struct ioapic *io, unsigned pin)
{
	uint64_t *rte = &io->m.redir[pin];
	unsigned mode = *rte >> 8 & 7;

	if (!(io->m.pins & 1u << pin) || !(*rte & RTE_LEVEL) ||
	    (*rte & (RTE_MASKED | RTE_REMOTE_IRR)))
		return;
	if (send(io, *rte) && (mode == MODE_FIXED || mode == MODE_LOWEST))
		*rte |= RTE_REMOTE_IRR;
}

void ioapic_set(struct ioapic *io, unsigned pin, bool level)
{
	uint32_t bit;
	bool rising;

	if (pin >= IOAPIC_PINS)
		return;
	bit = 1u << pin;
	rising = level && !(io->m.pins & bit);
	io->m.pins = level ? io->m.pins | bit : io->m.pins & ~bit;
	if (!rising)
		return;
	if (io->m.redir[pin] & RTE_LEVEL)
		service_level(io, pin);
	/* An edge on a masked pin is neither delivered nor held (82093AA, 3.2.4, bit 16). */
	else if (!(io->m.redir[pin] & RTE_MASKED))
		send(io, io->m.redir[pin]);
}

void ioapic_eoi(struct ioapic *io, uint8_t vector)
{
	for (unsigned pin = 0; pin < IOAPIC_PINS; pin++) {
		uint64_t *rte = &io->m.redir[pin];

		if ((uint8_t)*rte != vector || !(*rte & RTE_REMOTE_IRR))
			continue;
		*rte &= ~RTE_REMOTE_IRR;
		service_level(io, pin);		/* still asserted: again */
	}
}

static void entries_changed(struct ioapic *io)
{
	if (io->changed)
		io->changed(io->changed_opaque);
}

void ioapic_connect_changed(struct ioapic *io, void (*fn)(void *opaque), void *opaque)
{
	io->changed = fn;
	io->changed_opaque = opaque;
}

uint64_t ioapic_entry(const struct ioapic *io, unsigned pin)
{
	return io->m.redir[pin];
}

void ioapic_connect(struct ioapic *io, ioapic_deliver_fn deliver)
{
	io->deliver = deliver;
}

static uint32_t reg_read(const struct ioapic *io)
{
	const struct ioapic_model *m = &io->m;
	unsigned n = m->index - REG_REDIR;

	switch (m->index) {
	case REG_ID:
	case REG_ARB:
		return (uint32_t)m->id << 24;
	case REG_VERSION:
		return VERSION;
	default:
		if (m->index < REG_REDIR || n >= 2 * IOAPIC_PINS)
			return 0;
		return (uint32_t)(m->redir[n / 2] >> (n & 1 ? 32 : 0));
	}
}

static void write_redir(struct ioapic *io, unsigned n, uint32_t value)
{
	uint64_t *rte = &io->m.redir[n / 2];
	uint64_t v = n & 1 ? (uint64_t)value << 32 | (uint32_t)*rte
			   : (*rte & ~0xffffffffull) | value;

	*rte = (v & rte_bits(&io->dev) & ~RTE_READ_ONLY) | (*rte & RTE_REMOTE_IRR);
	/* Remote IRR means nothing for an edge; making an entry one clears it. */
	if (!(*rte & RTE_LEVEL))
		*rte &= ~RTE_REMOTE_IRR;
	entries_changed(io);
	service_level(io, n / 2);
}

static void reg_write(struct ioapic *io, uint32_t value)
{
	unsigned n = io->m.index - REG_REDIR;

	if (io->m.index == REG_ID)
		io->m.id = value >> 24 & 0xf;
	else if (io->m.index >= REG_REDIR && n < 2 * IOAPIC_PINS)
		write_redir(io, n, value);
}

static uint64_t ioapic_read(void *opaque, uint64_t offset, unsigned size)
{
	struct ioapic *io = opaque;
	unsigned byte = offset & 3;
	uint32_t v = 0;

	switch (offset & ~3ull) {
	case IOREGSEL:
		v = io->m.index;
		break;
	case IOWIN:
		v = reg_read(io);
		break;
	}
	return v >> 8 * byte;
}

/* Registers are written whole, but the index is a byte and may be written as one. */
static void ioapic_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
	struct ioapic *io = opaque;

	if (offset == IOREGSEL)
		io->m.index = (uint8_t)value;
	else if (size < 4)
		return;
	else if (offset == IOWIN)
		reg_write(io, (uint32_t)value);
	else if (offset == EOI)
		ioapic_eoi(io, (uint8_t)value);
}

static const struct bus_ops ops = { ioapic_read, ioapic_write, 4 };

/* Hooks. */

static int ioapic_init(struct device *d, struct skep_error *e)
{
	d->type->reset(d);
	return bus_map(&d->vm->mmio, IOAPIC_BASE, 0x1000, &ops,
		       container_of(d, struct ioapic, dev), d->name, e);
}

static void ioapic_finish(struct device *d)
{
	bus_unmap(&d->vm->mmio, IOAPIC_BASE);
}

static void ioapic_reset(struct device *d)
{
	struct ioapic *io = container_of(d, struct ioapic, dev);

	io->m = (struct ioapic_model){ .pins = io->m.pins, .id = IOAPIC_ID };
	for (unsigned i = 0; i < IOAPIC_PINS; i++)
		io->m.redir[i] = RTE_MASKED;
	entries_changed(io);
}

static void ioapic_export(const struct device *d, void *model)
{
	*(struct ioapic_model *)model = container_of(d, const struct ioapic, dev)->m;
}

static int ioapic_validate(const struct device *d, const void *model, struct skep_error *e)
{
	const struct ioapic_model *m = model;

	for (unsigned i = 0; i < IOAPIC_PINS; i++) {
		uint64_t rte = m->redir[i];

		if ((rte & ~(rte_bits(d) & ~BIT(12))) ||
		    ((rte & RTE_REMOTE_IRR) && !(rte & RTE_LEVEL)))
			return skep_fail(e, EINVAL, "%s: redir[%u] %#llx is not a redirection entry",
					 d->name, i, (unsigned long long)rte);
	}
	return 0;
}

static void ioapic_commit(struct device *d, const void *model)
{
	struct ioapic *io = container_of(d, struct ioapic, dev);

	/* Pins and remote IRRs are imported as they were: nothing is raised. */
	io->m = *(const struct ioapic_model *)model;
	entries_changed(io);
}

static const struct state_field fields[] = {
	STATE_ARRAY(struct ioapic_model, redir, STATE_T_U64, .max = RTE_BITS | RTE_WIDE),
	STATE_U32(struct ioapic_model, pins, .max = (1u << IOAPIC_PINS) - 1),
	STATE_U8(struct ioapic_model, index),
	STATE_U8(struct ioapic_model, id, .max = 0xf),
};

const struct state_record ioapic_record = {
	.kind = "ioapic",
	.version = 1,
	.model_size = sizeof(struct ioapic_model),
	.fields = fields,
	.nfields = ARRAY_SIZE(fields),
};

static const struct config_schema no_keys;

const struct device_type ioapic_type = {
	.name = "ioapic",
	.help = "I/O APIC with 24 pins",
	.config = &no_keys,
	.state = &ioapic_record,
	.size = sizeof(struct ioapic),
	.init = ioapic_init,
	.finish = ioapic_finish,
	.reset = ioapic_reset,
	.quiesce = device_nop,
	.resume = device_nop,
	.export = ioapic_export,
	.validate = ioapic_validate,
	.commit = ioapic_commit,
};

struct ioapic *ioapic_create(struct vm *vm, struct skep_error *e)
{
	struct device *d = device_create(vm, &ioapic_type, "ioapic", NULL, e);

	return d ? container_of(d, struct ioapic, dev) : NULL;
}
