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

static struct input_point point_now(struct vm *vm)
{
	return (struct input_point){ .insns = insns(vm), .ns = clock_now(&vm->clock) };
}

/*
 * The first visit of a point does everything that is due there; when the
 * host makes the backend come again, nothing more happens.
 */
static void visit(struct vm *vm, const struct input_point *now)
{
	unsigned i;

	if (vm->visited && vm->last_point.insns == now->insns && vm->last_point.ns == now->ns)
		return;
	vm->visited = true;
	vm->last_point = *now;
	for (i = 0; i < ROUNDS && timers_next_due(vm) <= now->ns; i++)
		timers_run(vm, now->ns);
	input_log_replay(vm, now);
}

static void deliver_host_input(struct vm *vm, const struct input_point *now)
{
	vm->input_at = 0;
	input_log_deliver(vm, now);
}

void virtual_run_due(struct vm *vm)
{
	struct input_point now;

	device_lock(vm);
	now = point_now(vm);
	visit(vm, &now);
	if (vm->input_at && now.insns >= vm->input_at)
		deliver_host_input(vm, &now);
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
	if (vm->stop_point.at)
		budget = MIN(budget, now >= vm->stop_point.at ? 0 : vm->stop_point.at - now);
	if (due != INT64_MAX)
		budget = MIN(budget, until(now, clock_insns_until(&vm->clock, due)));
	if (turns_taken(vm))
		budget = MIN(budget, until(now, vm->turn.end));
	if (input_log_next(vm, &next))
		budget = MIN(budget, until(now, next.insns));
	/*
	 * Input from the host comes at the end of the next instruction, where a
	 * replay will be stopped by its budget as well.  Here and now would be
	 * before the interrupts of this point in one run, after them in another.
	 */
	if (!vm->input_at && input_log_waiting(vm))
		vm->input_at = now + 1;
	if (vm->input_at)
		budget = MIN(budget, until(now, vm->input_at));
	device_unlock(vm);
	return budget;
}

/* When the halt may end, at the earliest; INT64_MAX: no event is known. */
static int64_t idle_until(struct vm *vm, const struct input_point *now)
{
	int64_t due = timers_next_due(vm);
	struct input_point next;

	if (due > CLOCK_END)
		due = INT64_MAX;
	if (input_log_waiting(vm))
		return now->ns + 1;	/* a point of its own */
	if (!input_log_next(vm, &next))
		return due;
	if (next.insns == now->insns)
		return MIN(due, next.ns);
	if (due == INT64_MAX)
		vm_request_error(vm, "input.replay: the machine halts for good at instruction %" PRIu64
				 ", before the next input at %" PRIu64 "; the log belongs to another "
				 "machine", now->insns, next.insns);
	return due;
}

static bool limit_reached(const struct vm *vm, uint64_t now)
{
	return (vm->insn_limit && now >= vm->insn_limit) ||
	       (vm->stop_point.at && now >= vm->stop_point.at);
}

bool virtual_stop_point(struct vm *vm)
{
	struct vm_stop_point stop = vm->stop_point;
	unsigned i;

	if (!stop.at || insns(vm) < stop.at || (vm->insn_limit && insns(vm) >= vm->insn_limit))
		return false;
	for (i = 0; i < vm->ncpus; i++)
		vcpu_stop(vm->vcpus[i], STOP_POINT);
	stop.reached(stop.opaque);
	return true;
}

bool virtual_idle(struct vm *vm)
{
	struct input_point now;
	int64_t due;

	device_lock(vm);
	now = point_now(vm);
	/* At the limit, or where the machine is to stand, virtual_budget says why. */
	if (limit_reached(vm, now.insns)) {
		device_unlock(vm);
		return true;
	}
	due = idle_until(vm, &now);
	if (due != INT64_MAX && now.ns < INT64_MAX) {
		/* What is still due here (see ROUNDS) has had its chance at this point. */
		clock_skip_to(&vm->clock, MAX(due, now.ns + 1));
		now = point_now(vm);
		visit(vm, &now);
		deliver_host_input(vm, &now);
	}
	device_unlock(vm);
	return due != INT64_MAX && now.ns < INT64_MAX;
}

void virtual_changed(struct vm *vm)
{
	unsigned i;

	for (i = 0; i < vm->ncpus; i++)
		if (vm->vcpus[i])
			vcpu_request(vm->vcpus[i], VCPU_REQ_EVENT);
}

void virtual_earlier(struct vm *vm, int64_t due)
{
	struct vcpu *v = vcpu_current(vm);

	/* The others look when it is their turn. */
	if (v)
		vcpu_request(v, VCPU_REQ_EVENT);
	else
		virtual_changed(vm);
}
