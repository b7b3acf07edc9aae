/*
 * Intel 8254 programmable interval timer (data sheet 231164) and the NMI status
 * and control register, port 0x61 (ICH9 data sheet, 13.7.1).
 */
#include "chipset/i8254.h"

#include <errno.h>

#include "chipset/i8254_count.h"
#include "vm/vm.h"

#define PORT		0x40
#define PORT_CONTROL	3
#define PORT_NMI_SC	0x61

#define NMI_SC_GATE2	0x01
#define NMI_SC_WRITABLE	0x0f
#define NMI_SC_REFRESH	0x10	/* toggles with every refresh cycle */
#define NMI_SC_OUT2	0x20
#define REFRESH_NS	15085

/*
 * With clock=realtime a guest may choose a period that no host keeps up with:
 * edges closer than this reach the interrupt controllers as one.
 */
#define REALTIME_SLACK_NS 20000

/* No tick beyond this is in any state: that of the latest due time. */
#define TICK_MAX	(CLOCK_DUE_MAX / NSEC_PER_SEC * I8254_HZ)

#define STATUS_NULL	0x40
#define STATUS_OUT	0x80

struct i8254_model {
	struct i8254_channel channel[3];
	uint64_t irq_tick;	/* tick up to which channel 0's output is on its wire */
	uint8_t nmi_sc;		/* port 0x61, bits 3:0 */
};

struct i8254 {
	struct device dev;
	struct i8254_model m;
	struct irq_line irq;
	struct vm_timer timer;
};

static uint64_t tick_now(const struct i8254 *p)
{
	return clock_ticks(clock_now(&p->dev.vm->clock), I8254_HZ);
}

static void arm(struct i8254 *p)
{
	const struct guest_clock *clock = &p->dev.vm->clock;
	uint64_t next = pit_next_change(&p->m.channel[0], p->m.irq_tick);
	int64_t due;

	if (next == UINT64_MAX) {
		timer_disarm(&p->timer);
		return;
	}
	due = clock_ticks_to_ns(next, I8254_HZ);
	if (clock->mode == CLOCK_MODE_REALTIME && p->m.channel[0].count < 64)
		due = MAX(due, clock_now(clock) + REALTIME_SLACK_NS);
	/* Polling the ports must not cost a walk through the timers each time. */
	if (!timer_armed(&p->timer) || p->timer.due != due)
		timer_arm(&p->timer, due);
}

/*
 * Puts channel 0's output on the wire as it went up to this tick.  Changes that
 * were missed (the host was late) are merged, but an edge stays an edge.
 */
static void catch_up(struct i8254 *p, uint64_t tick)
{
	struct i8254_channel *c = &p->m.channel[0];
	uint64_t first = pit_next_change(c, p->m.irq_tick);
	bool out;

	if (first > tick) {
		pit_settle(c, tick);
		return;
	}
	pit_settle(c, first);
	out = pit_out(c, first);
	irq_set(&p->irq, out);
	if (pit_next_change(c, first) <= tick)
		irq_set(&p->irq, !out);
	pit_settle(c, tick);
	irq_set(&p->irq, pit_out(c, tick));
	p->m.irq_tick = tick;
}

/* Everything up to now has happened, for every channel. */
static uint64_t sync(struct i8254 *p)
{
	uint64_t tick = tick_now(p);

	catch_up(p, tick);
	pit_settle(&p->m.channel[1], tick);
	pit_settle(&p->m.channel[2], tick);
	return tick;
}

/* Channel 0 was written to: its output may have changed at once. */
static void changed(struct i8254 *p, uint64_t tick)
{
	irq_set(&p->irq, pit_out(&p->m.channel[0], tick));
	p->m.irq_tick = tick;
	arm(p);
}

static void fired(void *opaque)
{
	struct i8254 *p = opaque;

	sync(p);
	arm(p);
}

/* Registers. */

static void latch_count(struct i8254_channel *c, uint64_t tick)
{
	if (c->latched)
		return;		/* the first one stays until it is read */
	c->latch = pit_value(c, tick);
	c->latched = PIT_ACCESS(c->control) == 3 ? 2 : 1;
}

static void latch_status(struct i8254_channel *c, uint64_t tick)
{
	if (c->status_latched)
		return;
	c->status = c->control | (pit_null(c, tick) ? STATUS_NULL : 0) |
		    (pit_out(c, tick) ? STATUS_OUT : 0);
	c->status_latched = 1;
}

static void write_control(struct i8254 *p, uint64_t tick, uint8_t v)
{
	struct i8254_channel *c = &p->m.channel[v >> 6 & 3];

	if (v >> 6 == 3) {		/* read-back: bits 5 and 4 are active low */
		for (unsigned i = 0; i < 3; i++) {
			if (!(v & 2u << i))
				continue;
			if (!(v & 0x20))
				latch_count(&p->m.channel[i], tick);
			if (!(v & 0x10))
				latch_status(&p->m.channel[i], tick);
		}
	} else if (PIT_ACCESS(v) == 0) {
		latch_count(c, tick);
	} else {
		pit_control(c, v);
	}
}

static void pit_port_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
	struct i8254 *p = opaque;
	uint64_t tick = sync(p);

	if (offset == PORT_CONTROL)
		write_control(p, tick, (uint8_t)value);
	else
		pit_write(&p->m.channel[offset], tick, (uint8_t)value);
	changed(p, tick);
}

static uint64_t pit_port_read(void *opaque, uint64_t offset, unsigned size)
{
	struct i8254 *p = opaque;
	struct i8254_channel *c;
	uint64_t tick;
	uint16_t v;
	bool high;

	if (offset == PORT_CONTROL)
		return 0xff;		/* write-only */
	tick = sync(p);
	arm(p);
	c = &p->m.channel[offset];
	if (c->status_latched) {
		c->status_latched = 0;
		return c->status;
	}
	v = c->latched ? c->latch : pit_value(c, tick);
	if (c->latched)
		c->latched--;
	high = PIT_ACCESS(c->control) == 2;
	if (PIT_ACCESS(c->control) == 3) {
		high = c->read_high;
		c->read_high = !high;
	}
	return high ? v >> 8 : v & 0xff;
}

static uint64_t nmi_sc_read(void *opaque, uint64_t offset, unsigned size)
{
	struct i8254 *p = opaque;
	uint64_t tick = sync(p);
	uint8_t v = p->m.nmi_sc;

	arm(p);
	if (clock_now(&p->dev.vm->clock) / REFRESH_NS & 1)
		v |= NMI_SC_REFRESH;
	if (pit_out(&p->m.channel[2], tick))
		v |= NMI_SC_OUT2;
	return v;
}

static void nmi_sc_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
	struct i8254 *p = opaque;
	uint64_t tick = sync(p);

	arm(p);
	p->m.nmi_sc = value & NMI_SC_WRITABLE;
	pit_set_gate(&p->m.channel[2], tick, value & NMI_SC_GATE2);
}

static const struct bus_ops pit_ops = { pit_port_read, pit_port_write, 1 };
static const struct bus_ops nmi_sc_ops = { nmi_sc_read, nmi_sc_write, 1 };

/* Hooks. */

static int i8254_init(struct device *d, struct skep_error *e)
{
	struct i8254 *p = container_of(d, struct i8254, dev);
	int r;

	timer_init(&p->timer, d->vm, "i8254", fired, p);
	d->type->reset(d);
	r = bus_map(&d->vm->ports, PORT, 4, &pit_ops, p, d->name, e);
	if (r < 0)
		return r;
	r = bus_map(&d->vm->ports, PORT_NMI_SC, 1, &nmi_sc_ops, p, d->name, e);
	if (r < 0)
		bus_unmap(&d->vm->ports, PORT);
	return r;
}

static void i8254_finish(struct device *d)
{
	timer_disarm(&container_of(d, struct i8254, dev)->timer);
	bus_unmap(&d->vm->ports, PORT);
	bus_unmap(&d->vm->ports, PORT_NMI_SC);
}

/* The data sheet leaves it undefined; here nothing counts until it is programmed. */
static void i8254_reset(struct device *d)
{
	struct i8254 *p = container_of(d, struct i8254, dev);

	p->m = (struct i8254_model){ 0 };
	for (unsigned i = 0; i < 3; i++) {
		p->m.channel[i].gate = i != 2;
		pit_control(&p->m.channel[i], 0x30);
	}
	changed(p, tick_now(p));
}

/* The part of sync() that no wire sees: what the registers show has been taken over. */
static void i8254_export(const struct device *d, void *model)
{
	const struct i8254 *p = container_of(d, const struct i8254, dev);
	struct i8254_model *m = model;
	uint64_t tick = tick_now(p), first = pit_next_change(&p->m.channel[0], p->m.irq_tick);

	*m = p->m;
	pit_settle(&m->channel[1], tick);
	pit_settle(&m->channel[2], tick);
	/* Channel 0 may have an edge to come that is late: it stands right before that. */
	m->irq_tick = first > tick ? tick : first - 1;
	pit_settle(&m->channel[0], m->irq_tick);
}

/* What is wrong with a channel; NULL: nothing. */
static const char *channel_wrong(const struct i8254_channel *c)
{
	bool word = PIT_ACCESS(c->control) == 3, triggered = pit_mode(c) == 1 || pit_mode(c) == 5;

	if (!PIT_ACCESS(c->control))
		return "control is a latch command, which is not kept";
	if (c->count > (c->control & PIT_BCD ? 10000 : 65536) || (c->state != PIT_IDLE && !c->count))
		return "count is not what its mode can count from";
	if ((c->state != PIT_IDLE || c->count || c->pending) && !c->loaded)
		return "it counts, but no count was written";
	if (c->pending && (pit_mode(c) == 0 || pit_mode(c) == 4))
		return "a count is pending in a mode that loads it at once";
	if (c->pending ? c->switch_at > TICK_MAX && c->switch_at != UINT64_MAX : c->switch_at != 0)
		return "switch_at is no tick at which a pending count is loaded";
	if (c->switch_at != UINT64_MAX && c->pending && (triggered || !c->count))
		return "a count is pending behind none";
	if ((c->write_high || c->read_high || c->latched == 2) && !word)
		return "half a word is there, but it is accessed by bytes";
	return NULL;
}

static int i8254_validate(const struct device *d, const void *model, struct skep_error *e)
{
	const struct i8254_model *m = model;

	for (unsigned i = 0; i < 3; i++) {
		const char *wrong = channel_wrong(&m->channel[i]);

		if (wrong)
			return skep_fail(e, EINVAL, "%s: channel[%u]: %s", d->name, i, wrong);
		if (m->channel[i].gate != (i == 2 ? m->nmi_sc & NMI_SC_GATE2 : 1))
			return skep_fail(e, EINVAL, "%s: channel[%u]: gate is not as it is wired", d->name,
					 i);
	}
	return 0;
}

static void i8254_commit(struct device *d, const void *model)
{
	struct i8254 *p = container_of(d, struct i8254, dev);

	p->m = *(const struct i8254_model *)model;
	arm(p);		/* the wire keeps its level: the board imports that itself */
}

static const struct state_field channel_fields[] = {
	STATE_U8(struct i8254_channel, control, .max = 0x3f),
	STATE_U8(struct i8254_channel, state, .max = PIT_HELD),
	STATE_U8(struct i8254_channel, gate, .max = 1),
	STATE_U8(struct i8254_channel, write_high, .max = 1),
	STATE_U8(struct i8254_channel, write_low),
	STATE_U8(struct i8254_channel, read_high, .max = 1),
	STATE_U8(struct i8254_channel, latched, .max = 2),
	STATE_U8(struct i8254_channel, status_latched, .max = 1),
	STATE_U8(struct i8254_channel, status),
	STATE_U8(struct i8254_channel, loaded, .max = 1),
	STATE_U8(struct i8254_channel, pending, .max = 1),
	STATE_U16(struct i8254_channel, latch),
	STATE_U16(struct i8254_channel, reload),
	STATE_U8(struct i8254_channel, before, .max = 1),
	STATE_U32(struct i8254_channel, count, .max = 65536),
	STATE_U64(struct i8254_channel, start, .max = TICK_MAX),
	STATE_U64(struct i8254_channel, base, .max = TICK_MAX),
	STATE_U64(struct i8254_channel, switch_at),
};

static const struct state_record channel_record = {
	.kind = "i8254-channel",
	.version = 1,
	.model_size = sizeof(struct i8254_channel),
	.fields = channel_fields,
	.nfields = ARRAY_SIZE(channel_fields),
};

static const struct state_field fields[] = {
	STATE_STRUCTS(struct i8254_model, channel, &channel_record),
	STATE_U64(struct i8254_model, irq_tick, .max = TICK_MAX),
	STATE_U8(struct i8254_model, nmi_sc, .max = NMI_SC_WRITABLE),
};

const struct state_record i8254_record = {
	.kind = "i8254",
	.version = 1,
	.model_size = sizeof(struct i8254_model),
	.fields = fields,
	.nfields = ARRAY_SIZE(fields),
};

static const struct config_schema no_keys;

const struct device_type i8254_type = {
	.name = "i8254",
	.help = "8254 interval timer and port 0x61",
	.config = &no_keys,
	.state = &i8254_record,
	.size = sizeof(struct i8254),
	.init = i8254_init,
	.finish = i8254_finish,
	.reset = i8254_reset,
	.quiesce = device_nop,
	.resume = device_nop,
	.export = i8254_export,
	.validate = i8254_validate,
	.commit = i8254_commit,
};

struct i8254 *i8254_create(struct vm *vm, struct skep_error *e)
{
	struct device *d = device_create(vm, &i8254_type, "i8254", NULL, e);

	return d ? container_of(d, struct i8254, dev) : NULL;
}

void i8254_connect_irq(struct i8254 *p, struct irq_line irq)
{
	p->irq = irq;
	changed(p, tick_now(p));
}
