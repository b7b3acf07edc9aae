/*
 * The state of a whole machine, but for RAM: one model for each record, in a fixed order
 * (machine, processors, devices in order of creation).  Exporting takes it from a machine
 * that stands; importing is three steps, of which only the last one touches the machine:
 *
 *	ms = machine_state_blank(vm);		 one empty model for each record it must have
 *	decode every record of the file into its model (all of them, none twice, none else)
 *	machine_state_validate(vm, ms)		 ranges, cross-field rules, the processor's consistency
 *	machine_state_commit(vm, ms)		 cannot fail
 */
#ifndef SKEP_VM_MACHINE_H
#define SKEP_VM_MACHINE_H

#include "state/state.h"

struct vm;
struct device;

struct machine_part {
	const struct state_record *record;
	char name[32];			/* "machine", "cpu.0", "lpc.com1" */
	void *model;			/* record->model_size bytes, owned */
	bool filled;			/* for who decodes: this part has been read */
	struct device *device;		/* NULL: the machine or a processor */
	unsigned cpu;			/* index, where record is cpu_arch_record */
};

struct machine_state {
	struct machine_part *parts;
	size_t nparts;
};

/* Every kind of record that can stand in a snapshot, NULL-terminated; the manifest is not here. */
extern const struct state_record *const machine_records[];

/* NULL with e set: no memory.  vm thread or the save's, no lock held, vCPUs stopped. */
struct machine_state *machine_state_blank(struct vm *vm, struct skep_error *e);
/* The same, filled in from the machine, which is quiesced (vm_pause). */
struct machine_state *machine_state_export(struct vm *vm, struct skep_error *e);
struct machine_part *machine_state_find(struct machine_state *ms, const char *name);
int machine_state_validate(struct vm *vm, const struct machine_state *ms, struct skep_error *e);
void machine_state_commit(struct vm *vm, const struct machine_state *ms);
void machine_state_free(struct machine_state *ms);	/* NULL is fine */

/*
 * The "machine" record (vm/machine_record.h): what belongs to no chip.  Guest time, the wall
 * clock's base, the count of instructions, entropy, the last point visited and host input that
 * waits, uuid.
 */
extern const struct state_record machine_record;
struct machine_model;
int64_t machine_model_guest_ns(const struct machine_model *m);

#endif
