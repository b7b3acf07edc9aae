#include "vm/virtual.h"

#include <inttypes.h>

#include "vm/inputlog.h"
#include "vm/vm.h"

/*
 * A timer callback may arm a timer that is due at once.  So many rounds of
 * that happen at one point; the rest waits for the next instruction, so that
 * no guest can hold the machine at a point for ever.
 */
#define ROUNDS	64

static uint64_t insns(struct vm *vm)
{
	return atomic_load_explicit(&vm->clock.insns, memory_order_relaxed);
}

/* Has virtual_run_due been here before?  Outside input comes on a first visit only. */
static bool visited(const struct vm *vm, const struct input_point *now)
{
	return vm->visited && vm->last_point.insns == now->insns && vm->last_point.ns == now->ns;
}

static struct input_point point_now(struct vm *vm)
{
	return (struct input_point){ .insns = insns(vm), .ns = clock_now(&vm->clock) };
}

static void run_due(struct vm *vm)
{
	struct input_point now = point_now(vm);
	bool again = visited(vm, &now);
	unsigned i;

	vm->visited = true;
	vm->last_point = now;
	for (i = 0; i < ROUNDS && timers_next_due(vm) <= now.ns; i++)
		timers_run(vm, now.ns);
	input_log_deliver(vm, &now, again);
}

void virtual_run_due(struct vm *vm)
{
	device_lock(vm);
	run_due(vm);
	device_unlock(vm);
}

/* Instructions from now until count, at least one. */
static uint64_t until(uint64_t now, uint64_t count)
{
	return count > now ? count - now : 1;
}

uint64_t virtual_budget(struct vm *vm)
{
	struct input_point next;
	uint64_t now, budget = UINT64_MAX;
	int64_t due;

	device_lock(vm);
	now = insns(vm);
	due = timers_next_due(vm);
	if (vm->insn_limit)
		budget = now >= vm->insn_limit ? 0 : vm->insn_limit - now;
	if (due != INT64_MAX)
		budget = MIN(budget, until(now, clock_insns_until(&vm->clock, due)));
	if (input_log_waiting(vm))
		budget = MIN(budget, 1ull);
	if (input_log_next(vm, &next))
		budget = MIN(budget, until(now, next.insns));
	device_unlock(vm);
	return budget;
}

bool virtual_idle(struct vm *vm)
{
	struct input_point now, next;
	int64_t due;

	device_lock(vm);
	now = point_now(vm);
	due = timers_next_due(vm);
	if (vm->insn_limit && now.insns >= vm->insn_limit) {
		device_unlock(vm);
		return true;		/* virtual_budget says why */
	}
	if (input_log_waiting(vm)) {
		/* A new point is made for it when this one has been visited. */
		due = MIN(due, now.ns + visited(vm, &now));
	} else if (input_log_next(vm, &next)) {
		if (next.insns == now.insns)
			due = MIN(due, next.ns);
		else if (due == INT64_MAX)
			vm_request_error(vm, "input.replay: the machine halts for good at instruction %"
					 PRIu64 ", before the next input at %" PRIu64 "; the log "
					 "belongs to another machine", now.insns, next.insns);
	}
	if (due != INT64_MAX) {
		clock_skip_to(&vm->clock, due);
		run_due(vm);
	}
	device_unlock(vm);
	return due != INT64_MAX;
}

void virtual_earlier(struct vm *vm, int64_t due)
{
	if (vm->vcpus[0])
		vcpu_request(vm->vcpus[0], VCPU_REQ_EVENT);
}
