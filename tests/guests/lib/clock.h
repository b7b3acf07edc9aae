/* A clock of the hypervisor's, held against the TSC.  64-bit guests only. */
#ifndef GUEST_CLOCK_H
#define GUEST_CLOCK_H

#include "guest.h"

/* Reads the clock, and the TSC at the same moment. */
typedef u64 (*clock_fn)(u64 *tsc);

/* For so many of the clock's ticks: it never goes back, and is never `apart` ticks from the TSC. */
void clock_agrees(clock_fn now, u64 hz, u64 tsc_hz, u64 ticks, u64 apart);
/* Says "waiting", and reads the clock, which must not go back, until told() is true. */
void clock_until(clock_fn now, bool (*told)(void));

#endif
