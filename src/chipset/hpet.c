/*
 * High precision event timers (IA-PC HPET specification 1.0a).
 *
 * The counter and the comparators stand in the model as they were at one tick of guest time;
 * what has happened since is worked out when somebody looks, in one step however long it was.
 * A timer of the machine runs only for a match that a wire or a message will show.
 */
#include "chipset/hpet.h"

#include <errno.h>

#include "chipset/chipset.h"
#include "vm/vm.h"

/* Registers. */
#define GCAP_ID		0x000
#define GEN_CONF	0x010
#define GINTR_STA	0x020
#define MAIN_CNT	0x0f0
#define TIMER(n)	(0x100 + 0x20 * (n))
#define TIMER_CONF	0x00
#define TIMER_COMP	0x08
#define TIMER_FSB	0x10

#define CONF_ENABLE	BIT(0)
#define CONF_LEGACY	BIT(1)
#define CONF_BITS	(CONF_ENABLE | CONF_LEGACY)

#define TN_LEVEL	BIT(1)
#define TN_INT_ENABLE	BIT(2)
#define TN_PERIODIC	BIT(3)
#define TN_PERIODIC_CAP	BIT(4)
#define TN_SIZE_CAP	BIT(5)
#define TN_VAL_SET	BIT(6)
#define TN_32BIT	BIT(8)
#define TN_ROUTE(c)	((c) >> 9 & 31)
#define TN_ROUTE_BITS	(31u << 9)
#define TN_FSB		BIT(14)
#define TN_FSB_CAP	BIT(15)
#define TN_CAPS		(TN_PERIODIC_CAP | TN_SIZE_CAP | TN_FSB_CAP)
#define TN_BITS		(TN_LEVEL | TN_INT_ENABLE | TN_PERIODIC | TN_VAL_SET | TN_32BIT | \
			 TN_ROUTE_BITS | TN_FSB)

#define TICK_NS		(NSEC_PER_SEC / HPET_HZ)
/* No tick beyond this is in any state: that of the latest due time. */
#define TICK_MAX	((uint64_t)CLOCK_DUE_MAX / TICK_NS)

/*
 * With clock=realtime a guest may choose a period that no host keeps up with: matches closer
 * than this reach the interrupt controllers as one.  The ACPI table tells the guest.
 */
#define REALTIME_SLACK	HPET_MIN_TICK

struct hpet_timer {
	uint16_t config;	/* the bits that can be written */
	uint64_t comparator;
	uint64_t period;	/* what a match adds to it in periodic mode */
	uint32_t fsb_value, fsb_address;
};

struct hpet_model {
	uint64_t tick;		/* of guest time, up to which all of this is worked out */
	uint64_t counter;	/* at that tick */
	uint8_t config;
	uint8_t status;		/* of level-triggered timers, a bit each */
	struct hpet_timer timer[HPET_TIMERS];
};

struct hpet {
	struct device dev;
	struct hpet_model m;
	struct irq_line pin[HPET_TIMERS][HPET_PINS];
	struct irq_line legacy[2];
	void (*msi)(struct vm *vm, uint64_t address, uint32_t data);
	void (*replace)(void *opaque, bool on, bool restored);
	void *replace_opaque;
	struct vm_timer timer;
};

static uint64_t tick_now(const struct hpet *h)
{
	return clock_ticks(clock_now(&h->dev.vm->clock), HPET_HZ);
}

/* The counter and its comparators. */

static uint64_t width_mask(const struct hpet_timer *t)
{
	return t->config & TN_32BIT ? UINT32_MAX : UINT64_MAX;
}

/* Ticks from the model's until the counter next comes to equal the comparator; UINT64_MAX: never. */
static uint64_t distance(const struct hpet_model *m, const struct hpet_timer *t)
{
	uint64_t d = (t->comparator - m->counter) & width_mask(t);

	if (!(m->config & CONF_ENABLE))
		return UINT64_MAX;
	if (d)
		return d;
	return t->config & TN_32BIT ? BIT(32) : UINT64_MAX;	/* all the way round */
}

/* Moves a comparator on by so many ticks; true if there was a match, or more than one. */
static bool comparator_advance(const struct hpet_model *m, struct hpet_timer *t, uint64_t ticks)
{
	uint64_t d = distance(m, t);

	if (d > ticks || d == UINT64_MAX)
		return false;
	if ((t->config & TN_PERIODIC) && t->period)
		t->comparator = (t->comparator + ((ticks - d) / t->period + 1) * t->period) &
				width_mask(t);
	return true;
}

/* Moves all of it on to a tick. Returns the timers that matched, a bit each. */
static unsigned advance(struct hpet_model *m, uint64_t tick)
{
	unsigned matched = 0;

	if (tick <= m->tick)
		return 0;
	for (unsigned n = 0; n < HPET_TIMERS; n++) {
		if (!comparator_advance(m, &m->timer[n], tick - m->tick))
			continue;
		matched |= 1u << n;
		/* The status is there whether the interrupt is enabled or not. */
		if (m->timer[n].config & TN_LEVEL)
			m->status |= 1u << n;
	}
	if (m->config & CONF_ENABLE)
		m->counter += tick - m->tick;
	m->tick = tick;
	return matched;
}

static bool replaces_legacy(const struct hpet_model *m, unsigned n)
{
	return (m->config & CONF_LEGACY) && n < 2;
}

static bool sends_message(const struct hpet_model *m, unsigned n)
{
	return (m->timer[n].config & TN_FSB) && !replaces_legacy(m, n);
}

/* Is its interrupt enabled and led to somewhere? */
static bool interrupts(const struct hpet_model *m, unsigned n)
{
	uint16_t c = m->timer[n].config;

	return (m->config & CONF_ENABLE) && (c & TN_INT_ENABLE) &&
	       (replaces_legacy(m, n) || (c & TN_FSB) || HPET_ROUTES(n) >> TN_ROUTE(c) & 1);
}

/* Would the next match be seen outside?  Not at a level that is up already. */
static bool visible(const struct hpet_model *m, unsigned n)
{
	return interrupts(m, n) && (sends_message(m, n) || !(m->timer[n].config & TN_LEVEL) ||
				    !(m->status & 1u << n));
}

/* The tick of the next match that is visible, later than the model's; UINT64_MAX: none. */
static uint64_t next_visible(const struct hpet_model *m)
{
	uint64_t next = UINT64_MAX, at;

	for (unsigned n = 0; n < HPET_TIMERS; n++)
		if (visible(m, n) && !__builtin_add_overflow(m->tick, distance(m, &m->timer[n]), &at))
			next = MIN(next, at);
	return next;
}

/* Interrupts. */

static const struct irq_line *edge_wire(const struct hpet *h, unsigned n)
{
	return replaces_legacy(&h->m, n) ? &h->legacy[n] :
	       &h->pin[n][TN_ROUTE(h->m.timer[n].config) % HPET_PINS];
}

/* One match of a timer that is not level-triggered by wire, whose status speaks for itself. */
static void announce(struct hpet *h, unsigned n)
{
	const struct hpet_timer *t = &h->m.timer[n];

	if (!interrupts(&h->m, n))
		return;
	if (sends_message(&h->m, n)) {
		if (h->msi)
			h->msi(h->dev.vm, t->fsb_address, t->fsb_value);
	} else if (!(t->config & TN_LEVEL)) {
		irq_pulse(edge_wire(h, n));
	}
}

/* Every wire as status and routing say; between edges that is low. */
static void drive(struct hpet *h)
{
	const struct hpet_model *m = &h->m;

	for (unsigned n = 0; n < HPET_TIMERS; n++) {
		bool up = interrupts(m, n) && !sends_message(m, n) && (m->status & 1u << n);
		bool legacy = replaces_legacy(m, n);

		for (unsigned pin = 0; pin < HPET_PINS; pin++)
			if (HPET_ROUTES(n) >> pin & 1)
				irq_set(&h->pin[n][pin],
					up && !legacy && pin == TN_ROUTE(m->timer[n].config));
		if (n < ARRAY_SIZE(h->legacy))
			irq_set(&h->legacy[n], up && legacy);
	}
}

/* Does a guest ask for edges that come faster than a host can make them? */
static bool too_fast(const struct hpet_model *m)
{
	for (unsigned n = 0; n < HPET_TIMERS; n++) {
		const struct hpet_timer *t = &m->timer[n];

		if (visible(m, n) && (t->config & TN_PERIODIC) && t->period &&
		    t->period < REALTIME_SLACK)
			return true;
	}
	return false;
}

static void arm(struct hpet *h)
{
	const struct guest_clock *clock = &h->dev.vm->clock;
	uint64_t next = next_visible(&h->m);
	int64_t due;

	if (next > TICK_MAX) {
		timer_disarm(&h->timer);
		return;
	}
	due = clock_ticks_to_ns(next, HPET_HZ);
	if (clock->mode == CLOCK_MODE_REALTIME && too_fast(&h->m))
		due = MAX(due, clock_now(clock) + REALTIME_SLACK * TICK_NS);
	if (!timer_armed(&h->timer) || h->timer.due != due)
		timer_arm(&h->timer, due);
}

/* Everything up to now has happened.  Matches that were missed (the host was late) are one. */
static void sync(struct hpet *h)
{
	uint8_t status = h->m.status;
	unsigned matched = advance(&h->m, tick_now(h));

	for (unsigned n = 0; n < HPET_TIMERS; n++)
		if (matched & 1u << n)
			announce(h, n);
	if (h->m.status != status)
		drive(h);
}

static void changed(struct hpet *h)
{
	drive(h);
	arm(h);
}

static void fired(void *opaque)
{
	struct hpet *h = opaque;

	sync(h);
	arm(h);
}

/* Registers. */

static void write_config(struct hpet *h, uint64_t v)
{
	bool legacy = v & CONF_LEGACY;

	h->m.config = v & CONF_BITS;
	/* Who takes a pin over finds it as its own wire says, not as the other's. */
	if (!legacy)
		drive(h);
	if (h->replace)
		h->replace(h->replace_opaque, legacy, false);
}

static void write_timer_config(struct hpet_model *m, unsigned n, uint64_t v)
{
	struct hpet_timer *t = &m->timer[n];

	v &= TN_BITS;
	/* "If the value is not supported ... the value read back will not match." */
	if (!(HPET_ROUTES(n) >> TN_ROUTE(v) & 1))
		v = (v & ~(uint64_t)TN_ROUTE_BITS) | (t->config & TN_ROUTE_BITS);
	if (!(v & TN_PERIODIC))
		v &= ~TN_VAL_SET;	/* there is no accumulator to set */
	t->config = (uint16_t)v;
	t->comparator &= width_mask(t);
	t->period &= width_mask(t);
	if (!(v & TN_LEVEL))
		m->status &= ~(1u << n);
}

static uint64_t merge(uint64_t old, uint64_t v, uint64_t mask)
{
	return (old & ~mask) | (v & mask);
}

/* In periodic mode a write gives the period, and the accumulator too if VAL_SET allows it once. */
static void write_comparator(struct hpet_timer *t, uint64_t v, uint64_t mask)
{
	bool periodic = t->config & TN_PERIODIC;

	mask &= width_mask(t);
	if (!periodic || (t->config & TN_VAL_SET))
		t->comparator = merge(t->comparator, v, mask);
	if (periodic)
		t->period = merge(t->period, v, mask);
	t->config &= ~TN_VAL_SET;
}

static void write_timer(struct hpet *h, unsigned n, unsigned reg, uint64_t v, uint64_t mask)
{
	struct hpet_timer *t = &h->m.timer[n];
	uint64_t fsb = (uint64_t)t->fsb_address << 32 | t->fsb_value;

	switch (reg) {
	case TIMER_CONF:
		write_timer_config(&h->m, n, merge(t->config, v, mask));
		break;
	case TIMER_COMP:
		write_comparator(t, v, mask);
		break;
	case TIMER_FSB:
		fsb = merge(fsb, v, mask);
		t->fsb_value = (uint32_t)fsb;
		t->fsb_address = (uint32_t)(fsb >> 32);
		break;
	}
}

/* Registers are written whole or by halves; anything else goes nowhere (2.3.2). */
static void hpet_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
	struct hpet *h = opaque;
	unsigned shift = 8 * (offset & 7), reg = offset & ~7u;
	uint64_t mask = size == 8 ? UINT64_MAX : (uint64_t)UINT32_MAX << shift;

	if (size < 4 || offset % size)
		return;
	value <<= shift;
	sync(h);
	if (reg >= TIMER(0) && reg < TIMER(HPET_TIMERS))
		write_timer(h, (reg - TIMER(0)) / 0x20, reg & 0x18, value, mask);
	else if (reg == GEN_CONF)
		write_config(h, merge(h->m.config, value, mask));
	else if (reg == GINTR_STA)
		h->m.status &= ~(value & mask);
	else if (reg == MAIN_CNT)
		h->m.counter = merge(h->m.counter, value, mask);
	changed(h);
}

static uint64_t read_timer(const struct hpet *h, unsigned n, unsigned reg)
{
	const struct hpet_timer *t = &h->m.timer[n];

	switch (reg) {
	case TIMER_CONF:
		return (uint64_t)HPET_ROUTES(n) << 32 | TN_CAPS | t->config;
	case TIMER_COMP:
		return t->comparator;
	case TIMER_FSB:
		return (uint64_t)t->fsb_address << 32 | t->fsb_value;
	default:
		return 0;
	}
}

static uint64_t read_counter(const struct hpet *h)
{
	uint64_t tick = tick_now(h);

	if (!(h->m.config & CONF_ENABLE) || tick < h->m.tick)
		return h->m.counter;
	return h->m.counter + (tick - h->m.tick);
}

static uint64_t read_register(struct hpet *h, unsigned reg)
{
	/* The hot one: it disturbs nothing. */
	if (reg == MAIN_CNT)
		return read_counter(h);
	if (reg == GCAP_ID)
		return (uint64_t)HPET_PERIOD_FS << 32 | HPET_ID;
	if (reg == GEN_CONF)
		return h->m.config;
	sync(h);
	arm(h);
	if (reg == GINTR_STA)
		return h->m.status;
	if (reg >= TIMER(0) && reg < TIMER(HPET_TIMERS))
		return read_timer(h, (reg - TIMER(0)) / 0x20, reg & 0x18);
	return 0;
}

static uint64_t hpet_read(void *opaque, uint64_t offset, unsigned size)
{
	return read_register(opaque, offset & ~7u) >> 8 * (offset & 7);
}

static const struct bus_ops ops = { hpet_read, hpet_write, 8 };

/* Hooks. */

static int hpet_init(struct device *d, struct skep_error *e)
{
	struct hpet *h = container_of(d, struct hpet, dev);

	timer_init(&h->timer, d->vm, "hpet", fired, h);
	d->type->reset(d);
	return bus_map(&d->vm->mmio, HPET_BASE, HPET_SIZE, &ops, h, d->name, e);
}

static void hpet_finish(struct device *d)
{
	timer_disarm(&container_of(d, struct hpet, dev)->timer);
	bus_unmap(&d->vm->mmio, HPET_BASE);
}

static void hpet_reset(struct device *d)
{
	struct hpet *h = container_of(d, struct hpet, dev);

	h->m = (struct hpet_model){ .tick = tick_now(h) };
	for (unsigned n = 0; n < HPET_TIMERS; n++)
		h->m.timer[n].comparator = UINT64_MAX;
	changed(h);
	if (h->replace)
		h->replace(h->replace_opaque, false, false);
}

/* The part of sync() that no wire sees; a match that is late and will be seen is still to come. */
static void hpet_export(const struct device *d, void *model)
{
	const struct hpet *h = container_of(d, const struct hpet, dev);
	struct hpet_model *m = model;
	uint64_t tick = tick_now(h), next = next_visible(&h->m);

	*m = h->m;
	advance(m, next > tick ? tick : next - 1);
}

/* What is wrong with a timer; NULL: nothing. */
static const char *timer_wrong(const struct hpet_model *m, unsigned n)
{
	const struct hpet_timer *t = &m->timer[n];

	if (t->config & ~TN_BITS)
		return "config has bits that cannot be set";
	if (TN_ROUTE(t->config) && !(HPET_ROUTES(n) >> TN_ROUTE(t->config) & 1))
		return "it is routed to a pin that it is not connected to";
	if ((t->config & TN_VAL_SET) && !(t->config & TN_PERIODIC))
		return "its accumulator is to be set, but it is not periodic";
	if ((t->comparator | t->period) & ~width_mask(t))
		return "comparator or period do not fit in 32 bits";
	if ((m->status & 1u << n) && !(t->config & TN_LEVEL))
		return "it has a status, but is not level-triggered";
	return NULL;
}

static int hpet_validate(const struct device *d, const void *model, struct skep_error *e)
{
	for (unsigned n = 0; n < HPET_TIMERS; n++) {
		const char *wrong = timer_wrong(model, n);

		if (wrong)
			return skep_fail(e, EINVAL, "%s: timer[%u]: %s", d->name, n, wrong);
	}
	return 0;
}

static void hpet_commit(struct device *d, const void *model)
{
	struct hpet *h = container_of(d, struct hpet, dev);

	h->m = *(const struct hpet_model *)model;
	if (h->replace)
		h->replace(h->replace_opaque, h->m.config & CONF_LEGACY, true);
	arm(h);		/* the wires keep their levels: the board imports those itself */
}

static const struct state_field timer_fields[] = {
	STATE_U16(struct hpet_timer, config, .max = TN_BITS),
	STATE_U64(struct hpet_timer, comparator),
	STATE_U64(struct hpet_timer, period),
	STATE_U32(struct hpet_timer, fsb_value),
	STATE_U32(struct hpet_timer, fsb_address),
};

static const struct state_record timer_record = {
	.kind = "hpet-timer",
	.version = 1,
	.model_size = sizeof(struct hpet_timer),
	.fields = timer_fields,
	.nfields = ARRAY_SIZE(timer_fields),
};

static const struct state_field fields[] = {
	STATE_U64(struct hpet_model, tick, .max = TICK_MAX),
	STATE_U64(struct hpet_model, counter),
	STATE_U8(struct hpet_model, config, .max = CONF_BITS),
	STATE_U8(struct hpet_model, status, .max = BIT(HPET_TIMERS) - 1),
	STATE_STRUCTS(struct hpet_model, timer, &timer_record),
};

const struct state_record hpet_record = {
	.kind = "hpet",
	.version = 1,
	.model_size = sizeof(struct hpet_model),
	.fields = fields,
	.nfields = ARRAY_SIZE(fields),
};

static const struct config_schema no_keys;

const struct device_type hpet_type = {
	.name = "hpet",
	.help = "high precision event timers",
	.config = &no_keys,
	.state = &hpet_record,
	.size = sizeof(struct hpet),
	.init = hpet_init,
	.finish = hpet_finish,
	.reset = hpet_reset,
	.quiesce = device_nop,
	.resume = device_nop,
	.export = hpet_export,
	.validate = hpet_validate,
	.commit = hpet_commit,
};

struct hpet *hpet_create(struct vm *vm, struct skep_error *e)
{
	struct device *d = device_create(vm, &hpet_type, "hpet", NULL, e);

	return d ? container_of(d, struct hpet, dev) : NULL;
}

void hpet_connect_pin(struct hpet *h, unsigned timer, unsigned pin, struct irq_line irq)
{
	h->pin[timer][pin] = irq;
}

void hpet_connect_legacy(struct hpet *h, unsigned timer, struct irq_line irq)
{
	h->legacy[timer] = irq;
}

void hpet_connect_msi(struct hpet *h, void (*msi)(struct vm *vm, uint64_t address, uint32_t data))
{
	h->msi = msi;
}

void hpet_connect_replace(struct hpet *h, void (*replace)(void *opaque, bool on, bool restored),
			  void *opaque)
{
	h->replace = replace;
	h->replace_opaque = opaque;
}
