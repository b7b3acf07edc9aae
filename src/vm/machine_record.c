#include "vm/machine_record.h"

#include <errno.h>
#include <inttypes.h>

#include "vm/inputlog.h"
#include "vm/machine.h"
#include "vm/virtual.h"

static const struct state_field input_fields[] = {
	STATE_TEXT(struct machine_input, port),
	STATE_BLOB(struct machine_input, data, .max = MACHINE_INPUT_BYTES),
};

static const struct state_record input_record = {
	.kind = "machine-input", .version = 1, .model_size = sizeof(struct machine_input),
	.fields = input_fields, .nfields = ARRAY_SIZE(input_fields),
};

static const struct state_field fields[] = {
	STATE_BYTES(struct machine_model, uuid),
	STATE_BOOL(struct machine_model, virtual_clock),
	STATE_TIME(struct machine_model, guest_ns, .max = CLOCK_END),
	STATE_TIME(struct machine_model, wall_base, .max = INT64_MAX / 2),	/* as clock.start */
	STATE_U32(struct machine_model, tsc_khz),
	STATE_U32(struct machine_model, insn_ps),
	STATE_U64(struct machine_model, insns),
	STATE_TIME(struct machine_model, skipped_ns, .max = CLOCK_END),
	STATE_BOOL(struct machine_model, visited),
	STATE_U64(struct machine_model, point_insns),
	STATE_TIME(struct machine_model, point_ns, .max = CLOCK_END),
	STATE_U64(struct machine_model, input_at),
	STATE_U32(struct machine_model, turn, .max = VM_MAX_CPUS - 1),
	STATE_U32(struct machine_model, turn_left, .max = TURN_INSNS),
	STATE_BOOL(struct machine_model, seeded),
	STATE_U64(struct machine_model, seed),
	STATE_ARRAY(struct machine_model, entropy, STATE_T_U64),
	STATE_BOOL(struct machine_model, reset_requested),
	STATE_LIST(struct machine_model, input, &input_record, .max = MACHINE_INPUT_MAX),
};

const struct state_record machine_record = {
	.kind = "machine", .version = 1, .model_size = sizeof(struct machine_model),
	.fields = fields, .nfields = ARRAY_SIZE(fields),
};

int64_t machine_model_guest_ns(const struct machine_model *m)
{
	return m->guest_ns;
}

int machine_model_export(struct vm *vm, struct machine_model *m, struct skep_error *e)
{
	const struct guest_clock *c = &vm->clock;

	memcpy(m->uuid, vm->uuid, sizeof(m->uuid));
	m->virtual_clock = c->mode == CLOCK_MODE_VIRTUAL;
	m->guest_ns = clock_now(c);
	m->wall_base = c->wall_base;
	m->tsc_khz = c->tsc_khz;
	if (m->virtual_clock) {
		m->insn_ps = c->insn_ps;
		m->insns = atomic_load(&c->insns);
		m->skipped_ns = atomic_load(&c->skipped_ns);
		m->visited = vm->visited;
		m->point_insns = vm->last_point.insns;
		m->point_ns = vm->last_point.ns;
		m->input_at = vm->input_at;
	}
	if (turns_taken(vm)) {
		m->turn = atomic_load(&vm->turn.cpu);
		m->turn_left = (uint32_t)turn_left(vm);
	}
	m->seeded = vm->seeded;
	if (vm->seeded) {
		m->seed = vm->seed;
		memcpy(m->entropy, vm->entropy_state, sizeof(m->entropy));
	}
	m->reset_requested = atomic_load(&vm->reset_requested);
	return input_log_export(vm, &m->input, e);
}

/* ---- Validation -------------------------------------------------------- */

static int refuse(struct skep_error *e, const char *field, uint64_t v, const char *why)
{
	return skep_fail(e, EINVAL, "machine: %s %" PRIu64 " %s", field, v, why);
}

/* What the configuration says of the machine: its clock and its seed are contracts. */
static int check_contract(const struct vm *vm, const struct machine_model *m, struct skep_error *e)
{
	const struct guest_clock *c = &vm->clock;

	if (m->virtual_clock != (c->mode == CLOCK_MODE_VIRTUAL))
		return refuse(e, "virtual_clock", m->virtual_clock, "is not what clock.mode says");
	if (m->tsc_khz != c->tsc_khz)
		return refuse(e, "tsc_khz", m->tsc_khz, "is not what clock.tsc_khz says");
	if (m->virtual_clock && m->insn_ps != c->insn_ps)
		return refuse(e, "insn_ps", m->insn_ps, "is not what clock.insn_ps says");
	if (m->seeded != vm->seeded || (m->seeded && m->seed != vm->seed))
		return refuse(e, "seed", m->seed, "is not what the configuration says");
	if (m->seeded && !(m->entropy[0] | m->entropy[1] | m->entropy[2] | m->entropy[3]))
		return refuse(e, "entropy", 0, "in all four words is no state of the generator");
	return 0;
}

static int check_times(const struct machine_model *m, struct skep_error *e)
{
	/* Behind that the count would run over, and guest time go back. */
	if (m->insns > INT64_MAX)
		return skep_fail(e, EINVAL, "machine: insns %" PRIu64 " is more than any machine executes",
				 m->insns);
	if (m->guest_ns < 0)
		return skep_fail(e, EINVAL, "machine: guest_ns %" PRId64 " lies before power-on",
				 m->guest_ns);
	if (m->wall_base < -CLOCK_END)
		return skep_fail(e, EINVAL, "machine: wall_base %" PRId64 " is no time that a clock of "
				 "the guest can hold", m->wall_base);
	if (m->skipped_ns < 0)
		return skep_fail(e, EINVAL, "machine: skipped_ns %" PRId64 " is negative",
				 m->skipped_ns);
	return 0;
}

static int check_virtual(const struct vm *vm, const struct machine_model *m, struct skep_error *e)
{
	struct guest_clock c = { .mode = CLOCK_MODE_VIRTUAL, .insn_ps = m->insn_ps,
				 .tsc_khz = m->tsc_khz };

	atomic_init(&c.insns, m->insns);
	atomic_init(&c.skipped_ns, m->skipped_ns);
	if (clock_now(&c) != m->guest_ns)
		return skep_fail(e, EINVAL, "machine: guest_ns %" PRId64 " is not the time of %" PRIu64
				 " instructions and %" PRId64 " ns skipped", m->guest_ns, m->insns,
				 m->skipped_ns);
	if (m->point_insns > m->insns || m->point_ns > m->guest_ns || m->point_ns < 0)
		return skep_fail(e, EINVAL, "machine: the last point, point_insns %" PRIu64
				 " and point_ns %" PRId64 ", is yet to come", m->point_insns,
				 m->point_ns);
	if (!m->visited && (m->point_insns || m->point_ns))
		return refuse(e, "point_insns", m->point_insns, "was not visited");
	if (m->turn >= vm->ncpus)
		return refuse(e, "turn", m->turn, "is no processor of this machine");
	if (m->turn_left && vm->ncpus == 1)
		return refuse(e, "turn_left", m->turn_left, "is left, and there is one processor");
	if (m->input_at && (!m->input.count || m->input_at > m->insns + 1))
		return refuse(e, "input_at", m->input_at, "waits for input that is not there");
	return 0;
}

static int check_realtime(const struct machine_model *m, struct skep_error *e)
{
	const char *name = m->insn_ps ? "insn_ps" : m->insns ? "insns" :
		m->skipped_ns ? "skipped_ns" : m->visited ? "visited" :
		m->point_insns ? "point_insns" : m->point_ns ? "point_ns" :
		m->input_at ? "input_at" : m->turn ? "turn" : m->turn_left ? "turn_left" : NULL;

	return name ? skep_fail(e, EINVAL, "machine: %s is set, and the clock is not virtual", name) : 0;
}

int machine_model_validate(struct vm *vm, const struct machine_model *m, struct skep_error *e)
{
	int err = check_contract(vm, m, e);

	if (!err)
		err = check_times(m, e);
	if (!err)
		err = m->virtual_clock ? check_virtual(vm, m, e) : check_realtime(m, e);
	if (!err && m->reset_requested && !vm->restart_on_reset)
		err = refuse(e, "reset_requested", 1, "needs on_reboot=restart");
	return err ? err : input_log_validate(vm, &m->input, e);
}

/* ---- Commit ------------------------------------------------------------ */

/* No processor executes another instruction before the reset (vm_request_reset). */
static void commit_reset(struct vm *vm, bool requested)
{
	unsigned i;

	atomic_store(&vm->reset_requested, requested);
	for (i = 0; requested && i < vm->ncpus; i++)
		vcpu_stop(vm->vcpus[i], STOP_RESET);
}

void machine_model_commit(struct vm *vm, const struct machine_model *m)
{
	memcpy(vm->uuid, m->uuid, sizeof(vm->uuid));
	vm->clock.wall_base = m->wall_base;
	if (m->virtual_clock) {
		atomic_store(&vm->clock.insns, m->insns);
		atomic_store(&vm->clock.skipped_ns, m->skipped_ns);
		vm->visited = m->visited;
		vm->last_point = (struct input_point){ m->point_insns, m->point_ns };
		vm->input_at = m->input_at;
		turn_set(vm, m->turn, m->turn_left);
	} else {
		clock_set_paused(&vm->clock, m->guest_ns);
	}
	/* Words from the host that the machine holds have been given to nobody: they stay. */
	if (m->seeded)
		memcpy(vm->entropy_state, m->entropy, sizeof(vm->entropy_state));
	commit_reset(vm, m->reset_requested);
	input_log_commit(vm, &m->input);
}
