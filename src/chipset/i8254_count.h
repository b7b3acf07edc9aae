/*
 * The counting element of one 8254 channel, as a function of the clock tick.
 *
 * Nothing here counts: what a channel shows at a tick follows from the tick at
 * which its count was loaded, so that time may pass in steps of any size and
 * there is no drift.  Ticks are those of the 1.193182 MHz clock since power-on.
 */
#ifndef SKEP_CHIPSET_I8254_COUNT_H
#define SKEP_CHIPSET_I8254_COUNT_H

#include <stdbool.h>
#include <stdint.h>

/* Bits of the control word, 8254 data sheet 231164, figure 7. */
#define PIT_BCD		0x01
#define PIT_MODE(c)	((c) >> 1 & 7)
#define PIT_ACCESS(c)	((c) >> 4 & 3)

/* What the counting element does. */
enum { PIT_IDLE,	/* no count since the control word, or no trigger yet */
       PIT_COUNTING,	/* since tick `start`, which may be the next one */
       PIT_HELD };	/* gate is low, or half a count is written (mode 0) */

struct i8254_channel {
	uint8_t control;	/* bits 5:0 of the control word, as read back */
	uint8_t state;
	uint8_t gate;
	uint8_t write_high;	/* the next byte written is the high one of two */
	uint8_t write_low;	/* the low one, waiting for it */
	uint8_t read_high;	/* likewise for reading */
	uint8_t latched;	/* a count is latched: bytes still to be read, 0-2 */
	uint8_t status_latched;
	uint8_t status;
	uint8_t loaded;		/* a whole count was written since the control word */
	uint8_t pending;	/* `reload` waits for a trigger or for the end of the cycle */
	uint16_t latch;
	uint16_t reload;	/* count register, as written */
	uint8_t before;		/* OUT until `start` */
	uint32_t count;		/* what was loaded: 1-65536, 1-10000 in BCD */
	uint64_t start;		/* tick of the load, or at which a held count went on */
	uint64_t base;		/* ticks counted at `start` */
	uint64_t switch_at;	/* pending: tick at which it is loaded; UINT64_MAX: by a trigger */
};

/* Mode 0-5: 6 and 7 are 2 and 3. */
unsigned pit_mode(const struct i8254_channel *c);
/* Takes over a new count whose time has come by this tick (modes 2 and 3). */
void pit_settle(struct i8254_channel *c, uint64_t tick);
/* A control word was written for the channel. */
void pit_control(struct i8254_channel *c, uint8_t control);
/* A byte of a count is written; the channel is settled. */
void pit_write(struct i8254_channel *c, uint64_t tick, uint8_t v);
/* The gate changes; the channel is settled. */
void pit_set_gate(struct i8254_channel *c, uint64_t tick, bool gate);

/* The following want a settled channel too. */
bool pit_out(const struct i8254_channel *c, uint64_t tick);
/* The counting element as the guest reads it: binary or BCD. */
uint16_t pit_value(const struct i8254_channel *c, uint64_t tick);
/* The null count flag: what was written last is not in the counting element. */
bool pit_null(const struct i8254_channel *c, uint64_t tick);
/* The first tick after this one at which OUT rises or falls; UINT64_MAX: never. */
uint64_t pit_next_change(const struct i8254_channel *c, uint64_t tick);

#endif
