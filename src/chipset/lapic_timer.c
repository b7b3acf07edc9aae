/*
 * The local APIC's timer (SDM vol. 3, 11.5.4).  Its clock is 1 GHz of guest
 * time, so that a count is nanoseconds divided by the divisor.
 */
#include "chipset/lapic_priv.h"

/*
 * With clock=realtime a guest may program a period that the host cannot keep
 * up with.  Expiries closer than this are taken together: the IRR bit would
 * merge them anyway.
 */
#define REALTIME_SLACK_NS 10000

static unsigned timer_mode(const struct lapic_model *m)
{
	return m->lvt[LVT_TIMER] >> 17 & 3;
}

static int64_t period_ns(const struct lapic_model *m)
{
	return (int64_t)m->initial_count << lapic_divide_shift(m->divide);
}

/* One look at the clock, now: with clock=realtime a second one would see it later. */
static int64_t deadline_ns(const struct lapic *a, int64_t now)
{
	const struct guest_clock *c = &a->dev.vm->clock;
	uint64_t raw = clock_ns_to_tsc(c, now), tsc = raw + a->tsc_adjust, due;

	/* Overdue: since when is the same whenever somebody looks, also after a restore. */
	if (a->m.tsc_deadline <= tsc) {
		due = tsc - a->m.tsc_deadline;
		return due < raw ? clock_tsc_to_ns(c, raw - due) : 0;
	}
	if (__builtin_add_overflow(raw, a->m.tsc_deadline - tsc, &due))
		return INT64_MAX;
	return clock_tsc_to_ns(c, due);
}

/* Moves timer_next behind now; true if it had been reached. */
static bool count_expire(struct lapic_model *m, int64_t now)
{
	int64_t period = period_ns(m);

	if (!m->timer_next || m->timer_next > now)
		return false;
	if (timer_mode(m) == TIMER_PERIODIC && period)
		m->timer_next += ((now - m->timer_next) / period + 1) * period;
	else
		m->timer_next = 0;
	return true;
}

void lapic_timer_sync(struct lapic *a)
{
	int64_t now = clock_now(&a->dev.vm->clock);
	bool fire = count_expire(&a->m, now);

	if (a->m.tsc_deadline && deadline_ns(a, now) <= now) {
		a->m.tsc_deadline = 0;
		fire = true;
	}
	if (fire)
		lapic_lvt_fire(a, LVT_TIMER);
}

void lapic_timer_rearm(struct lapic *a)
{
	const struct guest_clock *c = &a->dev.vm->clock;
	int64_t due = INT64_MAX;

	if (a->remote)
		return;
	if (a->m.timer_next)
		due = a->m.timer_next;
	else if (a->m.tsc_deadline)
		due = deadline_ns(a, clock_now(c));
	if (due == INT64_MAX || (a->m.lvt[LVT_TIMER] & LVT_MASKED)) {
		timer_disarm(&a->timer);
		return;
	}
	if (c->mode == CLOCK_MODE_REALTIME && timer_mode(&a->m) == TIMER_PERIODIC &&
	    period_ns(&a->m) < REALTIME_SLACK_NS)
		due = MAX(due, clock_now(c) + REALTIME_SLACK_NS);
	/* Polling the current count must not cost a walk through the timers each time. */
	if (!timer_armed(&a->timer) || a->timer.due != due)
		timer_arm(&a->timer, due);
}

void lapic_timer_fired(void *opaque)
{
	struct lapic *a = opaque;

	lapic_timer_sync(a);
	lapic_timer_rearm(a);
}

static uint32_t count_left(const struct lapic_model *m, int64_t now)
{
	unsigned shift = lapic_divide_shift(m->divide);
	int64_t left = m->timer_next - now;

	if (!m->timer_next || left <= 0)
		return 0;
	/* The count changes at the end of each divided tick. */
	return (uint32_t)MIN((left + (1ll << shift) - 1) >> shift, (int64_t)m->initial_count);
}

uint32_t lapic_timer_count(struct lapic *a)
{
	lapic_timer_sync(a);
	lapic_timer_rearm(a);
	return count_left(&a->m, clock_now(&a->dev.vm->clock));
}

void lapic_timer_set_initial(struct lapic *a, uint32_t count)
{
	struct lapic_model *m = &a->m;

	lapic_timer_sync(a);
	/* "In TSC-deadline mode writes to the initial-count register are ignored." */
	if (timer_mode(m) == TIMER_DEADLINE)
		return;
	m->initial_count = count;
	m->timer_next = count ? clock_now(&a->dev.vm->clock) + period_ns(m) : 0;
	lapic_timer_rearm(a);
}

void lapic_timer_set_divide(struct lapic *a, uint32_t divide)
{
	struct lapic_model *m = &a->m;
	int64_t now = clock_now(&a->dev.vm->clock);
	uint32_t left;

	lapic_timer_sync(a);
	left = count_left(m, now);
	m->divide = divide & 0xb;
	if (left)
		m->timer_next = now + ((int64_t)left << lapic_divide_shift(m->divide));
	lapic_timer_rearm(a);
}

void lapic_timer_set_lvt(struct lapic *a, uint32_t lvt)
{
	struct lapic_model *m = &a->m;
	unsigned old = timer_mode(m);

	lapic_timer_sync(a);
	m->lvt[LVT_TIMER] = lvt;
	/* A change into or out of TSC-deadline mode disarms (11.5.4.1). */
	if (old != timer_mode(m) && (old == TIMER_DEADLINE || timer_mode(m) == TIMER_DEADLINE)) {
		m->timer_next = 0;
		m->initial_count = 0;
		m->tsc_deadline = 0;
	}
	lapic_timer_rearm(a);
}

uint64_t lapic_get_tsc_deadline(struct lapic *a)
{
	lapic_timer_sync(a);
	lapic_timer_rearm(a);
	return a->m.tsc_deadline;
}

void lapic_set_tsc_deadline(struct lapic *a, uint64_t tsc)
{
	lapic_timer_sync(a);
	if (timer_mode(&a->m) != TIMER_DEADLINE)
		return;
	a->m.tsc_deadline = tsc;
	/* One that is past already is delivered at once. */
	lapic_timer_sync(a);
	lapic_timer_rearm(a);
}

uint64_t lapic_get_tsc_adjust(const struct lapic *a)
{
	return a->tsc_adjust;
}

void lapic_set_tsc_adjust(struct lapic *a, uint64_t adjust)
{
	if (a->tsc_adjust == adjust)
		return;
	lapic_timer_sync(a);
	a->tsc_adjust = adjust;
	lapic_timer_sync(a);
	lapic_timer_rearm(a);
}

void lapic_timer_export(const struct lapic *a, struct lapic_model *m)
{
	int64_t now = clock_now(&a->dev.vm->clock);

	/* An unmasked expiry that is due has its event armed: it fires after the restore. */
	if (!(m->lvt[LVT_TIMER] & LVT_MASKED))
		return;
	count_expire(m, now);
	if (m->tsc_deadline && deadline_ns(a, now) <= now)
		m->tsc_deadline = 0;
}
