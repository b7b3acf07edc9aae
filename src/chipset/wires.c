#include "chipset/wires.h"

#include <errno.h>

#include "chipset/chipset.h"
#include "chipset/i8259.h"
#include "chipset/ioapic.h"
#include "vm/vm.h"

#define GSI_COUNT	24
#define ISA_IRQS	16
#define CASCADE		2
#define TIMER_PIN	2	/* ISA IRQ 0 goes to pin 2 (MADT: interrupt source override) */
#define SOURCES		1024	/* more than a bus of 32 slots with 8 functions can use */

struct board_model {
	uint8_t level[SOURCES / 8];	/* by source, in the order in which they were added */
};

struct wires {
	struct device dev;
	struct board_model m;
	struct i8259 *pic;
	struct ioapic *ioapic;
	unsigned nsources;
	uint8_t gsi[SOURCES];
	bool replaceable[SOURCES];
	bool replaced;			/* so say the HPET's registers, which are its state */
	unsigned high[GSI_COUNT];	/* sources that assert */
};

static void drive(struct wires *w, unsigned gsi, bool level)
{
	if (gsi < ISA_IRQS)
		i8259_set(w->pic, gsi, level);
	ioapic_set(w->ioapic, gsi == 0 ? TIMER_PIN : gsi, level);
}

static bool level_of(const struct wires *w, unsigned n)
{
	return w->m.level[n / 8] & 1u << n % 8;
}

/* Has a source, which did not before, a part in its interrupt's level, or has it no longer? */
static void count(struct wires *w, unsigned n, bool asserts)
{
	unsigned gsi = w->gsi[n];

	w->high[gsi] += asserts ? 1 : -1;
	if (w->high[gsi] == (asserts ? 1 : 0))
		drive(w, gsi, asserts);
}

static void wire_set(void *opaque, int n, int level)
{
	struct wires *w = opaque;

	if (level_of(w, n) == !!level)
		return;
	w->m.level[n / 8] ^= 1u << n % 8;
	if (!w->replaced || !w->replaceable[n])
		count(w, n, level);
}

static void recount(struct wires *w)
{
	memset(w->high, 0, sizeof(w->high));
	for (unsigned n = 0; n < w->nsources; n++)
		if (level_of(w, n) && !(w->replaced && w->replaceable[n]))
			w->high[w->gsi[n]]++;
}

void wires_replace(struct wires *w, bool on, bool restored)
{
	bool was = w->replaced;

	w->replaced = on;
	if (restored) {
		recount(w);
		return;
	}
	for (unsigned n = 0; was != on && n < w->nsources; n++)
		if (w->replaceable[n] && level_of(w, n))
			count(w, n, !on);
}

struct irq_line wires_add(struct wires *w, unsigned gsi)
{
	unsigned n = w->nsources;

	if (gsi >= GSI_COUNT || gsi == CASCADE || n >= SOURCES)
		return (struct irq_line){ .set = NULL };
	w->gsi[n] = (uint8_t)gsi;
	w->nsources++;
	return (struct irq_line){ .set = wire_set, .opaque = w, .n = (int)n };
}

struct irq_line wires_add_replaceable(struct wires *w, unsigned gsi)
{
	struct irq_line l = wires_add(w, gsi);

	if (l.set)
		w->replaceable[l.n] = true;
	return l;
}

void wires_connect(struct wires *w, struct i8259 *pic, struct ioapic *ioapic)
{
	w->pic = pic;
	w->ioapic = ioapic;
}

/* First of all devices: each one then drives its wires as its own reset says. */
static void board_reset(struct device *d)
{
	struct wires *w = container_of(d, struct wires, dev);

	for (unsigned n = 0; n < w->nsources; n++)
		wire_set(w, (int)n, 0);
}

static void board_export(const struct device *d, void *model)
{
	*(struct board_model *)model = container_of(d, const struct wires, dev)->m;
}

static int board_validate(const struct device *d, const void *model, struct skep_error *e)
{
	const struct wires *w = container_of(d, const struct wires, dev);
	const struct board_model *m = model;

	for (unsigned n = w->nsources; n < SOURCES; n++)
		if (m->level[n / 8] & 1u << n % 8)
			return skep_fail(e, EINVAL, "%s: wire %u is asserted, but this machine has %u",
					 d->name, n, w->nsources);
	return 0;
}

/* The interrupt controllers carry their own pins: nothing is raised here. */
static void board_commit(struct device *d, const void *model)
{
	struct wires *w = container_of(d, struct wires, dev);

	w->m = *(const struct board_model *)model;
	recount(w);
}

static const struct state_field fields[] = {
	STATE_BYTES(struct board_model, level),
};

const struct state_record board_record = {
	.kind = "board",
	.version = 1,
	.model_size = sizeof(struct board_model),
	.fields = fields,
	.nfields = ARRAY_SIZE(fields),
};

static const struct config_schema no_keys;

const struct device_type board_type = {
	.name = "board",
	.help = "interrupt wires of the board",
	.config = &no_keys,
	.state = &board_record,
	.size = sizeof(struct wires),
	.init = device_init_nothing,
	.finish = device_nop,
	.reset = board_reset,
	.quiesce = device_nop,
	.resume = device_nop,
	.export = board_export,
	.validate = board_validate,
	.commit = board_commit,
};

struct wires *wires_create(struct vm *vm, struct skep_error *e)
{
	struct device *d = device_create(vm, &board_type, "board", NULL, e);

	return d ? container_of(d, struct wires, dev) : NULL;
}
