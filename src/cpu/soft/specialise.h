/*
 * Makes a decoded block faster without changing what it does: handlers are
 * exchanged for twins that do less (no index, no flags), and a comparison and
 * its branch become one.
 */
#ifndef SKEP_CPU_SOFT_SPECIALISE_H
#define SKEP_CPU_SOFT_SPECIALISE_H

#include "cpu/soft/decode.h"

/* What an instruction is to the flags of the ones before it. */
enum flag_effect {
	EFFECT_BARRIER,		/* may read flags, fault, leave, or is not known */
	EFFECT_NEUTRAL,		/* register to register, does not read flags */
	EFFECT_KILLS,		/* the same, and writes all six without looking at the old ones */
};
uint8_t soft_flag_effect(const struct soft_decode *d);

/* Handler -> twin, hashed; made once a processor.  free() releases it. */
struct soft_twins *soft_twins_create(void);

/* first_op[i] is the index in ops of instruction i's first op; first_op[count] ends the last. */
void soft_specialise(const struct soft_twins *t, struct soft_op *ops, const uint8_t *first_op,
		     const uint8_t *effect, unsigned count);

#endif
