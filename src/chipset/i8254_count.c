/* The six modes of the 8254 (data sheet 231164, "Mode definitions"). */
#include "chipset/i8254_count.h"

#define NEVER UINT64_MAX

unsigned pit_mode(const struct i8254_channel *c)
{
	unsigned mode = PIT_MODE(c->control);

	return mode > 5 ? mode - 4 : mode;
}

static uint32_t modulus(const struct i8254_channel *c)
{
	return c->control & PIT_BCD ? 10000 : 65536;
}

/* A count of 0 is the largest one. */
static uint32_t effective(const struct i8254_channel *c)
{
	uint32_t r = c->reload, n = r;

	if (c->control & PIT_BCD)
		n = ((r >> 12) * 1000 + (r >> 8 & 15) * 100 + (r >> 4 & 15) * 10 + (r & 15)) % 10000;
	return n ? n : modulus(c);
}

static uint64_t elapsed(const struct i8254_channel *c, uint64_t tick)
{
	if (c->state != PIT_COUNTING || tick <= c->start)
		return c->base;
	return c->base + (tick - c->start);
}

/* Mode 3: how long OUT is high; an odd count gives the high half one more. */
static uint32_t high_ticks(uint32_t count)
{
	return (count + 1) / 2;
}

static void load(struct i8254_channel *c, uint64_t start, uint64_t base)
{
	c->count = effective(c);
	c->start = start;
	c->base = base;
	c->pending = 0;
	c->switch_at = 0;
}

static void count_from(struct i8254_channel *c, uint64_t tick, bool before)
{
	/* A count is loaded by the first clock pulse after the write or trigger. */
	load(c, tick + 1, 0);
	c->before = before;
	c->state = c->gate || pit_mode(c) == 1 || pit_mode(c) == 5 ? PIT_COUNTING : PIT_HELD;
}

void pit_settle(struct i8254_channel *c, uint64_t tick)
{
	uint64_t at = c->switch_at, phase;

	if (!c->pending || tick < at)
		return;
	phase = elapsed(c, at) % c->count;
	if (pit_mode(c) == 3 && phase == high_ticks(c->count))
		load(c, at, high_ticks(effective(c)));	/* goes on with the low half */
	else
		load(c, at, 0);
}

/* When a count written at this tick, while another one runs, is loaded. */
static uint64_t cycle_end(const struct i8254_channel *c, uint64_t tick)
{
	uint64_t phase = elapsed(c, tick) % c->count;
	uint32_t high = high_ticks(c->count);

	if (pit_mode(c) == 3 && c->count > 1 && phase < high)
		return tick + high - phase;
	return tick + c->count - phase;
}

static void new_count(struct i8254_channel *c, uint64_t tick)
{
	bool first = !c->loaded;

	c->loaded = 1;
	switch (pit_mode(c)) {
	case 0:
		count_from(c, tick, false);
		return;
	case 4:
		count_from(c, tick, pit_out(c, tick));
		return;
	case 1:
	case 5:
		c->pending = 1;
		c->switch_at = NEVER;
		return;
	default:
		break;
	}
	if (first) {
		count_from(c, tick, true);
	} else if (c->state == PIT_COUNTING && tick < c->start) {
		c->count = effective(c);	/* the clock pulse that loads is still to come */
	} else if (!c->pending) {
		c->pending = 1;
		c->switch_at = c->state == PIT_COUNTING ? cycle_end(c, tick) : NEVER;
	}
}

static void hold(struct i8254_channel *c, uint64_t tick)
{
	c->base = elapsed(c, tick);
	c->state = PIT_HELD;
}

void pit_control(struct i8254_channel *c, uint8_t control)
{
	*c = (struct i8254_channel){
		.control = control & 0x3f,
		.state = PIT_IDLE,
		.gate = c->gate,
		.reload = c->reload,
	};
	c->before = pit_mode(c) != 0;
}

void pit_write(struct i8254_channel *c, uint64_t tick, uint8_t v)
{
	switch (PIT_ACCESS(c->control)) {
	case 1:
		c->reload = v;
		break;
	case 2:
		c->reload = (uint16_t)(v << 8);
		break;
	default:
		if (!c->write_high) {
			c->write_high = 1;
			c->write_low = v;
			/* Mode 0: the first byte stops the count and takes OUT down. */
			if (pit_mode(c) == 0 && c->state == PIT_COUNTING)
				hold(c, tick);
			return;
		}
		c->write_high = 0;
		c->reload = (uint16_t)(v << 8 | c->write_low);
		break;
	}
	new_count(c, tick);
}

void pit_set_gate(struct i8254_channel *c, uint64_t tick, bool gate)
{
	bool rising = gate && !c->gate;
	unsigned mode = pit_mode(c);

	if (gate == c->gate)
		return;
	c->gate = gate;
	if (!rising) {
		if (mode != 1 && mode != 5 && c->state == PIT_COUNTING)
			hold(c, tick);
		return;
	}
	if (!c->loaded)
		return;
	if (mode == 0 || mode == 4) {
		if (c->state != PIT_HELD || (mode == 0 && c->write_high))
			return;
		c->state = PIT_COUNTING;
		if (tick > c->start)
			c->start = tick;
	} else {
		count_from(c, tick, pit_out(c, tick));
	}
}

bool pit_out(const struct i8254_channel *c, uint64_t tick)
{
	uint64_t e = elapsed(c, tick);
	unsigned mode = pit_mode(c);

	if (c->state == PIT_IDLE || tick < c->start)
		return c->before && !(mode == 0 && c->write_high);
	switch (mode) {
	case 0:
		return e >= c->count && !c->write_high;
	case 1:
		return e >= c->count;
	case 2:		/* low while the count is 1; a low gate takes it up at once */
		return c->state == PIT_HELD || c->count < 2 || e % c->count != c->count - 1;
	case 3:
		return c->state == PIT_HELD || c->count < 2 || e % c->count < high_ticks(c->count);
	default:	/* 4, 5: a strobe of one clock at zero */
		return e != c->count;
	}
}

/* Mode 3 counts by two, from the count or, if that is odd, from one less. */
static uint32_t square_value(uint32_t count, uint64_t phase)
{
	uint32_t high = high_ticks(count), top = count & ~1u;

	return top - 2 * (uint32_t)(phase < high ? phase : phase - high);
}

static uint16_t to_bcd(uint32_t v)
{
	return (uint16_t)(v / 1000 << 12 | v / 100 % 10 << 8 | v / 10 % 10 << 4 | v % 10);
}

uint16_t pit_value(const struct i8254_channel *c, uint64_t tick)
{
	uint64_t e = elapsed(c, tick);
	uint32_t m = modulus(c), v;

	if (!c->count)
		return 0;
	if (pit_mode(c) == 2)
		v = c->count - (uint32_t)(e % c->count);
	else if (pit_mode(c) == 3 && c->count > 1)
		v = square_value(c->count, e % c->count);
	else
		v = c->count + m - (uint32_t)(e % m);	/* goes on through zero */
	v %= m;
	return c->control & PIT_BCD ? to_bcd(v) : (uint16_t)v;
}

bool pit_null(const struct i8254_channel *c, uint64_t tick)
{
	return !c->loaded || c->pending || tick < c->start;
}

/* The next of two points in a cycle, from the ticks counted now; both below count. */
static uint64_t next_phase(uint64_t e, uint32_t count, uint32_t a)
{
	uint64_t phase = e % count;

	if (phase < a)
		return e + a - phase;
	return e + count - phase;
}

/* Ticks counted at the change of OUT that follows e; NEVER if none does. */
static uint64_t next_change_count(const struct i8254_channel *c, uint64_t e)
{
	switch (pit_mode(c)) {
	case 0:
	case 1:
		return e < c->count ? c->count : NEVER;
	case 2:
		return c->count < 2 ? NEVER : next_phase(e, c->count, c->count - 1);
	case 3:
		return c->count < 2 ? NEVER : next_phase(e, c->count, high_ticks(c->count));
	default:
		return e < c->count ? c->count : e == c->count ? e + 1 : NEVER;
	}
}

uint64_t pit_next_change(const struct i8254_channel *c, uint64_t tick)
{
	uint64_t e, next;

	if (c->state == PIT_IDLE)
		return NEVER;
	if (tick < c->start) {
		if (pit_out(c, c->start) != (bool)c->before)
			return c->start;
		tick = c->start;
	}
	if (c->state == PIT_HELD)
		return NEVER;
	/* A count that never changes OUT may be followed by one that does. */
	if (c->count < 2 && c->pending && c->switch_at != NEVER) {
		struct i8254_channel then = *c;

		pit_settle(&then, c->switch_at);
		return pit_next_change(&then, tick > c->switch_at ? tick : c->switch_at);
	}
	e = elapsed(c, tick);
	next = next_change_count(c, e);
	return next == NEVER ? NEVER : tick + (next - e);
}
