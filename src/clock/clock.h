/*
 * Guest time: the one object that every clock in the machine derives from.
 *
 * Guest nanoseconds count from power-on and never go back.  The TSC is guest
 * time at tsc_khz; wall time is guest time plus a fixed base.
 *
 *   realtime  guest ns follow the host's CLOCK_MONOTONIC while not paused.
 *   virtual   guest ns = instructions executed x ns_per_insn (a rational),
 *             plus what HLT skipped.  Deterministic (DESIGN section 6).
 */
#ifndef SKEP_CLOCK_CLOCK_H
#define SKEP_CLOCK_CLOCK_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct vm;

/* Where a virtual clock starts when nobody says: 2026-01-01 00:00:00 UTC, seconds. */
#define CLOCK_VIRTUAL_START	1767225600ll

/*
 * No machine lives longer, in guest ns (73 years): what is due later never comes, so
 * that a guest that asks for the end of time overflows no clock.
 */
#define CLOCK_END	(INT64_MAX / 4)
/* Nor does a device hold a due time beyond this: what a guest programs just before the end. */
#define CLOCK_DUE_MAX	(2 * CLOCK_END)

enum clock_mode { CLOCK_MODE_REALTIME, CLOCK_MODE_VIRTUAL };

struct guest_clock {
	enum clock_mode mode;
	uint32_t tsc_khz;		/* the contract; default 1000000 (1 GHz) */
	int64_t offset;			/* realtime: guest ns = host monotonic - offset */
	int64_t wall_base;		/* ns since the Epoch at guest ns 0 */
	bool paused;
	int64_t paused_at;
	/* virtual: */
	uint32_t insn_ps;		/* picoseconds an instruction; default 1000 */
	_Atomic uint64_t insns;		/* instructions retired by the machine */
	_Atomic int64_t skipped_ns;	/* what HLT jumped over */
};

/* Guest time 0 is now, and it runs; wall_base is the host's (realtime) or CLOCK_VIRTUAL_START. */
void clock_init(struct guest_clock *c, enum clock_mode mode);
/* Stops and restarts guest time (realtime; a no-op on virtual). vm thread. */
void clock_pause(struct guest_clock *c);
void clock_resume(struct guest_clock *c);

/*
 * Moves a clock that stands (realtime) on by so many ns, so that all that derives from it sees
 * them pass; not beyond CLOCK_END. Before any vCPU; device lock.
 */
void clock_advance(struct guest_clock *c, int64_t ns);

/* It stands (realtime), and goes on from this guest time. vm thread. */
void clock_set_paused(struct guest_clock *c, int64_t ns);

/* Makes the wall clock read the host's now (realtime). vm thread, before any vCPU. */
void clock_set_wall_now(struct guest_clock *c);

/* Any thread. */
int64_t clock_now(const struct guest_clock *c);		/* guest ns */
int64_t clock_wall(const struct guest_clock *c);	/* ns since the Epoch */
uint64_t clock_tsc(const struct guest_clock *c);	/* raw, without a vCPU's TSC_ADJUST */
uint64_t clock_ns_to_tsc(const struct guest_clock *c, int64_t ns);
int64_t clock_tsc_to_ns(const struct guest_clock *c, uint64_t tsc);	/* rounds up, INT64_MAX at most */

/* virtual: the first instruction count at which guest time is >= ns. vCPU side. */
uint64_t clock_insns_until(const struct guest_clock *c, int64_t ns);
/* virtual: HLT jumps to ns (never back). vCPU side. */
void clock_skip_to(struct guest_clock *c, int64_t ns);

/* Ticks of a clock of hz since guest ns 0, exact for the life of the machine. */
uint64_t clock_ticks(int64_t ns, uint32_t hz);
/* First guest ns at which clock_ticks() >= ticks; INT64_MAX if that is never. */
int64_t clock_ticks_to_ns(uint64_t ticks, uint32_t hz);

#endif
