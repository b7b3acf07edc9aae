/* The counters of a soft processor, by name. */
#include "cpu/soft/soft.h"
#include "cpu/soft/stats.h"

void soft_stats_tell(struct vcpu *v, void (*tell)(void *opaque, const char *section,
						  const char *name, uint64_t value),
		     void *opaque)
{
	static const char *const names[SOFT_VECTORS] = {
		"DE", "DB", "NMI", "BP", "OF", "BR", "UD", "NM", "DF", "09", "TS", "NP", "SS", "GP",
		"PF", "0f", "MF", "AC", "MC", "XM", "VE", "CP", "16", "17", "18", "19", "1a", "1b",
		"1c", "1d", "1e", "1f",
	};
	struct soft_cpu *c = v->backend;
	struct soft_stats *s = &c->stats;

#define X(section, name) \
	tell(opaque, #section, #name, atomic_load_explicit(&s->section##_##name, memory_order_relaxed));
	SOFT_STATS(X)
#undef X
	/* Most vectors never come. */
	for (unsigned i = 0; i < SOFT_VECTORS; i++) {
		uint64_t n = atomic_load_explicit(&s->exceptions[i], memory_order_relaxed);

		if (n)
			tell(opaque, "exceptions", names[i], n);
	}
}
