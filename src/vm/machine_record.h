/*
 * The "machine" record: what belongs to no chip.  For machine.c, the dump and tests.  The machine's
 * name is not here: it is the configuration's, and may be another after a restore.
 */
#ifndef SKEP_VM_MACHINE_RECORD_H
#define SKEP_VM_MACHINE_RECORD_H

#include "state/state.h"
#include "vm/input.h"
#include "vm/vm.h"

#define MACHINE_INPUT_MAX	4096		/* pieces of host input that may wait */
#define MACHINE_INPUT_BYTES	65536		/* in one of them */

struct machine_input {
	char port[32];			/* name of the input port */
	struct state_blob data;
};

struct machine_model {
	uint8_t uuid[16];
	bool virtual_clock;
	int64_t guest_ns;
	int64_t wall_base;		/* ns since the Epoch at guest ns 0 */
	uint32_t tsc_khz;
	/* clock=virtual; else 0. */
	uint32_t insn_ps;
	uint64_t insns;
	int64_t skipped_ns;
	bool visited;			/* the last point was: what is due there has happened */
	uint64_t point_insns;
	int64_t point_ns;
	uint64_t input_at;
	uint32_t turn, turn_left;	/* whose turn it is, instructions left of it; one processor: 0 */
	/* Entropy from a seed: the generator.  The host's is nobody's state. */
	bool seeded;
	uint64_t seed;
	uint64_t entropy[4];
	bool reset_requested;		/* the reset line was pulled, and on_reboot=restart */
	struct state_list input;	/* of struct machine_input: not delivered yet */
};

/* Device lock for all three; the machine stands.  validate compares with the machine's contract. */
int machine_model_export(struct vm *vm, struct machine_model *m, struct skep_error *e);
int machine_model_validate(struct vm *vm, const struct machine_model *m, struct skep_error *e);
void machine_model_commit(struct vm *vm, const struct machine_model *m);

#endif
