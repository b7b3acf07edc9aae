#include "clock.h"

void clock_agrees(clock_fn now, u64 hz, u64 tsc_hz, u64 ticks, u64 apart)
{
	u64 tsc, start = now(&tsc), first = tsc, last = start, back = 0, off = 0, t;

	do {
		t = now(&tsc);
		back += t < last;
		last = t;
		/* Ticks since the start by the TSC alone. */
		u64 by_tsc = (tsc - first) / tsc_hz * hz + (tsc - first) % tsc_hz * hz / tsc_hz;
		u64 d = t - start > by_tsc ? t - start - by_tsc : by_tsc - (t - start);

		off = d > off ? d : off;
	} while (t - start < ticks);
	check_eq(back, 0, "steps back");
	check(off < apart, "%llu ticks from the TSC", (unsigned long long)off);
}

void clock_until(clock_fn now, bool (*told)(void))
{
	u64 tsc, last = now(&tsc), t;

	print("waiting\n");
	do {
		t = now(&tsc);
		if (t < last)
			die("time went back from %llu to %llu", (unsigned long long)last,
			    (unsigned long long)t);
		last = t;
	} while (!told());
}
