#include "clock/clock.h"

#include <time.h>

#include "base/util.h"

#define DEFAULT_TSC_KHZ	1000000
#define DEFAULT_INSN_PS	1000

static int64_t host_ns(clockid_t id)
{
	struct timespec t;

	clock_gettime(id, &t);
	return t.tv_sec * NSEC_PER_SEC + t.tv_nsec;
}

void clock_init(struct guest_clock *c, enum clock_mode mode)
{
	memset(c, 0, sizeof(*c));
	c->mode = mode;
	c->tsc_khz = DEFAULT_TSC_KHZ;
	c->insn_ps = DEFAULT_INSN_PS;
	if (mode == CLOCK_MODE_REALTIME) {
		c->offset = host_ns(CLOCK_MONOTONIC);
		c->wall_base = host_ns(CLOCK_REALTIME);
	} else {
		c->wall_base = CLOCK_VIRTUAL_START * NSEC_PER_SEC;
	}
}

void clock_pause(struct guest_clock *c)
{
	if (c->mode != CLOCK_MODE_REALTIME || c->paused)
		return;
	c->paused_at = clock_now(c);
	c->paused = true;
}

void clock_resume(struct guest_clock *c)
{
	if (c->mode != CLOCK_MODE_REALTIME || !c->paused)
		return;
	c->offset = host_ns(CLOCK_MONOTONIC) - c->paused_at;
	c->paused = false;
}

void clock_advance(struct guest_clock *c, int64_t ns)
{
	if (c->mode == CLOCK_MODE_REALTIME && c->paused && ns > 0 && c->paused_at < CLOCK_END)
		c->paused_at += MIN(ns, CLOCK_END - c->paused_at);
}

void clock_set_paused(struct guest_clock *c, int64_t ns)
{
	c->paused_at = ns;
	c->paused = true;
}

void clock_set_wall_now(struct guest_clock *c)
{
	c->wall_base = host_ns(CLOCK_REALTIME) - clock_now(c);
}

/* v * num / den, rounded down, without losing a bit as long as the result fits. */
static uint64_t scale_down(uint64_t v, uint32_t num, uint32_t den)
{
	uint64_t q = v / den, r = v % den, whole;

	if (__builtin_mul_overflow(q, (uint64_t)num, &whole) ||
	    __builtin_add_overflow(whole, r * num / den, &whole))
		return UINT64_MAX;
	return whole;
}

/* The same, rounded up. */
static uint64_t scale_up(uint64_t v, uint32_t num, uint32_t den)
{
	uint64_t q = v / den, r = v % den, whole;
	uint64_t rest = r * num / den + (r * num % den != 0);

	if (__builtin_mul_overflow(q, (uint64_t)num, &whole) ||
	    __builtin_add_overflow(whole, rest, &whole))
		return UINT64_MAX;
	return whole;
}

static int64_t clamp_ns(uint64_t ns)
{
	return ns > INT64_MAX ? INT64_MAX : (int64_t)ns;
}

static int64_t add_ns(int64_t a, int64_t b)
{
	int64_t sum;

	return __builtin_add_overflow(a, b, &sum) ? INT64_MAX : sum;
}

int64_t clock_now(const struct guest_clock *c)
{
	int64_t run;

	if (c->mode == CLOCK_MODE_REALTIME)
		return c->paused ? c->paused_at : host_ns(CLOCK_MONOTONIC) - c->offset;
	run = clamp_ns(scale_down(atomic_load_explicit(&c->insns, memory_order_relaxed),
				  c->insn_ps, 1000));
	return add_ns(run, atomic_load_explicit(&c->skipped_ns, memory_order_relaxed));
}

int64_t clock_wall(const struct guest_clock *c)
{
	return add_ns(clock_now(c), c->wall_base);
}

uint64_t clock_ns_to_tsc(const struct guest_clock *c, int64_t ns)
{
	return ns <= 0 ? 0 : scale_down((uint64_t)ns, c->tsc_khz, 1000000);
}

uint64_t clock_tsc(const struct guest_clock *c)
{
	return clock_ns_to_tsc(c, clock_now(c));
}

int64_t clock_tsc_to_ns(const struct guest_clock *c, uint64_t tsc)
{
	return clamp_ns(scale_up(tsc, 1000000, c->tsc_khz));
}

uint64_t clock_insns_until(const struct guest_clock *c, int64_t ns)
{
	int64_t skipped = atomic_load_explicit(&c->skipped_ns, memory_order_relaxed);

	/* skipped_ns is never negative, so the difference cannot overflow. */
	return ns <= skipped ? 0 : scale_up((uint64_t)(ns - skipped), 1000, c->insn_ps);
}

void clock_skip_to(struct guest_clock *c, int64_t ns)
{
	int64_t now = clock_now(c);

	if (c->mode == CLOCK_MODE_VIRTUAL && ns > now)
		atomic_fetch_add_explicit(&c->skipped_ns, ns - now, memory_order_relaxed);
}

uint64_t clock_ticks(int64_t ns, uint32_t hz)
{
	return ns <= 0 ? 0 : scale_down((uint64_t)ns, hz, NSEC_PER_SEC);
}

int64_t clock_ticks_to_ns(uint64_t ticks, uint32_t hz)
{
	return clamp_ns(scale_up(ticks, NSEC_PER_SEC, hz));
}
