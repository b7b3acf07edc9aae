/*
 * Intel 8259A programmable interrupt controller, twice, as the ICH has them
 * (8259A data sheet 231468; ICH9 data sheet, section 13.4 for the ELCR).
 */
#include "chipset/i8259.h"

#include <errno.h>

#include "vm/vm.h"

#define CASCADE		2	/* the slave's place at the master */
#define SPURIOUS	7

#define ICW1_IC4	0x01
#define ICW1_SNGL	0x02
#define ICW1		0x10
#define ICW4_AEOI	0x02
#define ICW4_SFNM	0x10
#define ICW4_BITS	0x1f
#define OCW3		0x08

struct i8259_model {
	uint8_t irr;		/* requests: latched edges and asserted levels */
	uint8_t isr;
	uint8_t imr;
	uint8_t pins;		/* levels of the inputs */
	uint8_t elcr;		/* 1: level triggered */
	uint8_t lowest;		/* input of the lowest priority; 7 after ICW1 */
	uint8_t vector;		/* ICW2, bits 7:3 */
	uint8_t icw3;
	uint8_t icw4;
	uint8_t icw_next;	/* 0: operating; 2-4: that ICW comes next */
	uint8_t single;		/* ICW1: no ICW3 */
	uint8_t need_icw4;
	uint8_t read_isr;	/* OCW3 RR/RIS: reads give the ISR */
	uint8_t poll;		/* the next read is a poll */
	uint8_t special_mask;
	uint8_t rotate_aeoi;
};

struct i8259_pair_model {
	struct i8259_model chip[2];
};

struct i8259 {
	struct device dev;
	struct i8259_pair_model m;
	bool intr;		/* output, as last told */
	void (*intr_fn)(void *opaque, bool level);
	void *intr_opaque;
};

static const uint8_t elcr_mask[2] = { 0xf8, 0xde };	/* IRQ 0, 1, 2, 8 and 13 are edges */

/* Distance from the top: 0 is the highest priority, 8 means none. */
static unsigned priority(const struct i8259_model *c, uint8_t set)
{
	if (!set)
		return 8;
	for (unsigned p = 0; p < 8; p++)
		if (set & 1u << ((c->lowest + 1 + p) & 7))
			return p;
	return 8;
}

static unsigned input_at(const struct i8259_model *c, unsigned priority)
{
	return (c->lowest + 1 + priority) & 7;
}

/* The input that asks for service now, or -1. */
static int requesting(const struct i8259_model *c, bool master)
{
	uint8_t ready = c->irr & ~c->imr;
	uint8_t busy = c->isr;
	unsigned p;

	/* Special mask mode: an input in service that is masked holds nobody back. */
	if (c->special_mask)
		busy &= ~c->imr;
	/* Special fully nested: the slave may be heard again while one of its own is in service. */
	if (master && (c->icw4 & ICW4_SFNM) && (ready & 1u << CASCADE))
		busy &= ~(1u << CASCADE);
	p = priority(c, ready);
	return p < priority(c, busy) ? (int)input_at(c, p) : -1;
}

static bool operating(const struct i8259_model *c)
{
	return c->icw_next == 0;
}

static void update_pins(struct i8259_model *c, unsigned n, bool level)
{
	uint8_t bit = 1u << n;

	if (c->elcr & bit)
		c->irr = level ? c->irr | bit : c->irr & ~bit;
	else if (level && !(c->pins & bit))
		c->irr |= bit;
	c->pins = level ? c->pins | bit : c->pins & ~bit;
}

/* Carries the slave's output to the master, and the master's to the board. */
static void update(struct i8259 *p)
{
	struct i8259_model *master = &p->m.chip[0], *slave = &p->m.chip[1];
	bool out = operating(slave) && requesting(slave, false) >= 0;
	bool intr;

	/* The cascade is no latched edge: INT stays up as long as the slave has a request. */
	master->irr = out ? master->irr | 1u << CASCADE : master->irr & ~(1u << CASCADE);
	master->pins = out ? master->pins | 1u << CASCADE : master->pins & ~(1u << CASCADE);
	intr = operating(master) && requesting(master, true) >= 0;
	if (intr == p->intr)
		return;
	p->intr = intr;
	if (p->intr_fn)
		p->intr_fn(p->intr_opaque, intr);
}

void i8259_set(struct i8259 *p, unsigned irq, bool level)
{
	if (irq > 15 || irq == CASCADE)
		return;
	update_pins(&p->m.chip[irq >> 3], irq & 7, level);
	update(p);
}

bool i8259_intr(const struct i8259 *p)
{
	return p->intr;
}

/* One chip's part of INTA: the input it acknowledges; -1 is a spurious one. */
static int acknowledge(struct i8259_model *c, bool master)
{
	int n = requesting(c, master);

	if (n < 0)
		return -1;
	if (!(c->elcr & 1u << n))
		c->irr &= ~(1u << n);
	if (c->icw4 & ICW4_AEOI) {
		if (c->rotate_aeoi)
			c->lowest = n;
	} else {
		c->isr |= 1u << n;
	}
	return n;
}

int i8259_ack(struct i8259 *p)
{
	struct i8259_model *c = &p->m.chip[0];
	int n = acknowledge(c, true);

	if (n == CASCADE) {
		c = &p->m.chip[1];
		n = acknowledge(c, false);
	}
	update(p);
	return c->vector | (n < 0 ? SPURIOUS : n);
}

void i8259_connect_intr(struct i8259 *p, void (*intr)(void *opaque, bool level), void *opaque)
{
	p->intr_fn = intr;
	p->intr_opaque = opaque;
}

/* Registers. */

static void write_icw1(struct i8259_model *c, uint8_t v)
{
	c->icw_next = 2;
	c->need_icw4 = v & ICW1_IC4;
	c->single = !!(v & ICW1_SNGL);
	/* The edge sense circuit is reset: an input must fall and rise to be seen. */
	c->irr = c->pins & c->elcr;
	c->isr = 0;
	c->imr = 0;
	c->lowest = 7;
	c->icw4 = 0;
	c->special_mask = 0;
	c->read_isr = 0;
	c->poll = 0;
	c->rotate_aeoi = 0;
	/* LTIM is ignored: the ELCR decides, input by input (ICH9, 13.4.2). */
}

static void write_icw(struct i8259_model *c, uint8_t v)
{
	switch (c->icw_next) {
	case 2:
		c->vector = v & 0xf8;
		c->icw_next = !c->single ? 3 : c->need_icw4 ? 4 : 0;
		break;
	case 3:
		c->icw3 = v;
		c->icw_next = c->need_icw4 ? 4 : 0;
		break;
	default:
		c->icw4 = v & ICW4_BITS;
		c->icw_next = 0;
		break;
	}
}

static void non_specific_eoi(struct i8259_model *c, bool rotate)
{
	/* In special mask mode a masked input in service is not ended by it. */
	uint8_t candidates = c->special_mask ? c->isr & ~c->imr : c->isr;
	unsigned p = priority(c, candidates);

	if (p == 8)
		return;
	p = input_at(c, p);
	c->isr &= ~(1u << p);
	if (rotate)
		c->lowest = p;
}

/* OCW2: R, SL and EOI in bits 7:5. */
static void write_ocw2(struct i8259_model *c, uint8_t v)
{
	uint8_t n = v & 7;

	switch (v >> 5) {
	case 0:			/* rotate in automatic EOI mode: clear */
		c->rotate_aeoi = 0;
		break;
	case 1:			/* non-specific EOI */
		non_specific_eoi(c, false);
		break;
	case 3:			/* specific EOI */
		c->isr &= ~(1u << n);
		break;
	case 4:			/* rotate in automatic EOI mode: set */
		c->rotate_aeoi = 1;
		break;
	case 5:			/* rotate on non-specific EOI */
		non_specific_eoi(c, true);
		break;
	case 6:			/* set priority */
		c->lowest = n;
		break;
	case 7:			/* rotate on specific EOI */
		c->isr &= ~(1u << n);
		c->lowest = n;
		break;
	default:		/* 2: no operation */
		break;
	}
}

static void write_ocw3(struct i8259_model *c, uint8_t v)
{
	if (v & 0x40)
		c->special_mask = v >> 5 & 1;
	/* "If both P and RR are one, poll overrides." */
	if (v & 0x04)
		c->poll = 1;
	else if (v & 0x02)
		c->read_isr = v & 1;
}

static void chip_write(void *opaque, uint64_t offset, uint64_t value, unsigned n)
{
	struct i8259 *p = opaque;
	struct i8259_model *c = &p->m.chip[n];
	uint8_t v = (uint8_t)value;

	if (offset & 1) {
		if (operating(c))
			c->imr = v;
		else
			write_icw(c, v);
	} else if (v & ICW1) {
		write_icw1(c, v);
	} else if (v & OCW3) {
		write_ocw3(c, v);
	} else {
		write_ocw2(c, v);
	}
	update(p);
}

static uint64_t chip_read(void *opaque, uint64_t offset, unsigned n)
{
	struct i8259 *p = opaque;
	struct i8259_model *c = &p->m.chip[n];

	/* A poll takes the next read of either address, and is an acknowledge (data sheet, Poll). */
	if (c->poll) {
		int input;

		c->poll = 0;
		input = acknowledge(c, n == 0);
		update(p);
		return input < 0 ? 0 : 0x80 | input;
	}
	if (offset & 1)
		return c->imr;
	return c->read_isr ? c->isr : c->irr;
}

static uint64_t master_read(void *o, uint64_t off, unsigned size) { return chip_read(o, off, 0); }
static uint64_t slave_read(void *o, uint64_t off, unsigned size) { return chip_read(o, off, 1); }

static void master_write(void *o, uint64_t off, unsigned size, uint64_t v)
{
	chip_write(o, off, v, 0);
}

static void slave_write(void *o, uint64_t off, unsigned size, uint64_t v)
{
	chip_write(o, off, v, 1);
}

static uint64_t elcr_read(void *opaque, uint64_t offset, unsigned size)
{
	struct i8259 *p = opaque;

	return p->m.chip[offset & 1].elcr;
}

static void elcr_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
	struct i8259 *p = opaque;
	struct i8259_model *c = &p->m.chip[offset & 1];
	uint8_t was = c->elcr;

	c->elcr = value & elcr_mask[offset & 1];
	/* A level input requests as long as it is asserted, and only then. */
	c->irr = (c->irr & ~(was | c->elcr)) | (c->pins & c->elcr);
	update(p);
}

static const struct bus_ops master_ops = { master_read, master_write, 1 };
static const struct bus_ops slave_ops = { slave_read, slave_write, 1 };
static const struct bus_ops elcr_ops = { elcr_read, elcr_write, 1 };

/* Hooks. */

static int i8259_init(struct device *d, struct skep_error *e)
{
	struct i8259 *p = container_of(d, struct i8259, dev);
	struct bus *ports = &d->vm->ports;
	int r = bus_map(ports, 0x20, 2, &master_ops, p, d->name, e);

	if (r < 0)
		return r;
	r = bus_map(ports, 0xa0, 2, &slave_ops, p, d->name, e);
	if (r < 0)
		goto no_slave;
	r = bus_map(ports, 0x4d0, 2, &elcr_ops, p, d->name, e);
	if (r < 0)
		goto no_elcr;
	d->type->reset(d);
	return 0;
no_elcr:
	bus_unmap(ports, 0xa0);
no_slave:
	bus_unmap(ports, 0x20);
	return r;
}

static void i8259_finish(struct device *d)
{
	bus_unmap(&d->vm->ports, 0x20);
	bus_unmap(&d->vm->ports, 0xa0);
	bus_unmap(&d->vm->ports, 0x4d0);
}

/* The data sheet knows no reset: waiting for ICW1, nothing requested, everything masked. */
static void i8259_reset(struct device *d)
{
	struct i8259 *p = container_of(d, struct i8259, dev);

	for (unsigned i = 0; i < 2; i++) {
		uint8_t pins = p->m.chip[i].pins;

		p->m.chip[i] = (struct i8259_model){
			.pins = i == 0 ? pins & ~(1u << CASCADE) : pins,
			.imr = 0xff,
			.lowest = 7,
		};
	}
	update(p);
}

static void i8259_export(const struct device *d, void *model)
{
	*(struct i8259_pair_model *)model = container_of(d, const struct i8259, dev)->m;
}

/* What is wrong with one chip; NULL: nothing. */
static const char *chip_wrong(const struct i8259_model *c)
{
	if (c->icw_next == 1 || (c->icw_next == 3 && c->single) || (c->icw_next == 4 && !c->need_icw4))
		return "icw_next is not a word that ICW1 has announced";
	if (c->icw4 && !c->need_icw4)
		return "there is an icw4 that ICW1 has not announced";
	if (c->vector & 7)
		return "vector is not a multiple of 8";
	if ((c->irr ^ c->pins) & c->elcr)
		return "irr and pins differ at a level-triggered input";
	return NULL;
}

static int i8259_validate(const struct device *d, const void *model, struct skep_error *e)
{
	const struct i8259_pair_model *m = model;
	const struct i8259_model *master = &m->chip[0], *slave = &m->chip[1];
	uint8_t cascade = operating(slave) && requesting(slave, false) >= 0 ? 1u << CASCADE : 0;

	for (unsigned i = 0; i < 2; i++) {
		const char *wrong = chip_wrong(&m->chip[i]);

		if (m->chip[i].elcr & ~elcr_mask[i])
			return skep_fail(e, EINVAL, "%s: elcr %#x makes a fixed edge input a level",
					 d->name, m->chip[i].elcr);
		if (wrong)
			return skep_fail(e, EINVAL, "%s: chip[%u]: %s", d->name, i, wrong);
	}
	if ((master->irr & 1u << CASCADE) != cascade || (master->pins & 1u << CASCADE) != cascade)
		return skep_fail(e, EINVAL, "%s: the master's input 2 is not the slave's output", d->name);
	return 0;
}

static void i8259_commit(struct device *d, const void *model)
{
	struct i8259 *p = container_of(d, struct i8259, dev);
	const struct i8259_model *master = &p->m.chip[0];

	p->m = *(const struct i8259_pair_model *)model;
	/* The output is imported, not raised: the processors look again when they start. */
	p->intr = operating(master) && requesting(master, true) >= 0;
}

static const struct state_field chip_fields[] = {
	STATE_U8(struct i8259_model, irr),
	STATE_U8(struct i8259_model, isr),
	STATE_U8(struct i8259_model, imr),
	STATE_U8(struct i8259_model, pins),
	STATE_U8(struct i8259_model, elcr),
	STATE_U8(struct i8259_model, lowest, .max = 7),
	STATE_U8(struct i8259_model, vector, .max = 0xf8),
	STATE_U8(struct i8259_model, icw3),
	STATE_U8(struct i8259_model, icw4, .max = ICW4_BITS),
	STATE_U8(struct i8259_model, icw_next, .max = 4),
	STATE_U8(struct i8259_model, single, .max = 1),
	STATE_U8(struct i8259_model, need_icw4, .max = 1),
	STATE_U8(struct i8259_model, read_isr, .max = 1),
	STATE_U8(struct i8259_model, poll, .max = 1),
	STATE_U8(struct i8259_model, special_mask, .max = 1),
	STATE_U8(struct i8259_model, rotate_aeoi, .max = 1),
};

static const struct state_record chip_record = {
	.kind = "i8259-chip",
	.version = 1,
	.model_size = sizeof(struct i8259_model),
	.fields = chip_fields,
	.nfields = ARRAY_SIZE(chip_fields),
};

static const struct state_field pair_fields[] = {
	STATE_STRUCTS(struct i8259_pair_model, chip, &chip_record),
};

const struct state_record i8259_record = {
	.kind = "i8259",
	.version = 1,
	.model_size = sizeof(struct i8259_pair_model),
	.fields = pair_fields,
	.nfields = ARRAY_SIZE(pair_fields),
};

static const struct config_schema no_keys;

const struct device_type i8259_type = {
	.name = "i8259",
	.help = "pair of 8259A interrupt controllers",
	.config = &no_keys,
	.state = &i8259_record,
	.size = sizeof(struct i8259),
	.init = i8259_init,
	.finish = i8259_finish,
	.reset = i8259_reset,
	.quiesce = device_nop,
	.resume = device_nop,
	.export = i8259_export,
	.validate = i8259_validate,
	.commit = i8259_commit,
};

struct i8259 *i8259_create(struct vm *vm, struct skep_error *e)
{
	struct device *d = device_create(vm, &i8259_type, "i8259", NULL, e);

	return d ? container_of(d, struct i8259, dev) : NULL;
}
