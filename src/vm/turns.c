/*
 * clock=virtual with several processors: they take turns, one at a time, so that all that they do
 * is one order of instructions, which a seed repeats.
 *
 * A turn is TURN_INSNS instructions long, or ends when its processor waits.  Then it goes to the next
 * one by number that does not wait, or was sent something.  When nobody runs, it is processor 0's,
 * whose thread moves time on (virtual_idle).
 *
 * Whose turn it is and what is left of it are part of a snapshot.  Whether a processor was looked
 * at and found waiting is not: after a restore some are looked at once more, find nothing, and pass
 * the turn on at the same instruction count to the one who would have got it.
 */
#include "vm/virtual.h"

#include "vm/vm.h"

/* What a processor that waits may go on for. */
#define WAKES (VCPU_REQ_INTR | VCPU_REQ_NMI | VCPU_REQ_INIT | VCPU_REQ_SIPI)

static uint64_t insns(const struct vm *vm)
{
	return atomic_load_explicit(&vm->clock.insns, memory_order_relaxed);
}

static bool may_run(const struct vcpu *v)
{
	return atomic_load(&v->idle) == VCPU_IDLE_NOT || atomic_load(&v->requests) & WAKES;
}

bool turns_taken(const struct vm *vm)
{
	return vm->clock.mode == CLOCK_MODE_VIRTUAL && vm->ncpus > 1;
}

void turn_set(struct vm *vm, unsigned cpu, uint64_t left)
{
	vm->turn.end = insns(vm) + left;
	atomic_store(&vm->turn.cpu, cpu);
}

uint64_t turn_left(const struct vm *vm)
{
	return vm->turn.end > insns(vm) ? vm->turn.end - insns(vm) : 0;
}

void turn_shorten(struct vm *vm, uint64_t n)
{
	uint64_t left = turn_left(vm);

	vm->turn.end = insns(vm) + (left > n ? left - n : 0);
}

bool turn_pass(struct vcpu *v)
{
	struct vm *vm = v->vm;
	unsigned next = 0, i;

	for (i = 1; i <= vm->ncpus; i++) {
		next = (v->index + i) % vm->ncpus;
		if (may_run(vm->vcpus[next]))
			break;
	}
	if (i > vm->ncpus)
		next = 0;
	turn_set(vm, next, TURN_INSNS);
	if (next != v->index)
		vcpu_wake(vm->vcpus[next]);
	return i <= vm->ncpus || next != v->index;
}

bool turn_wait(struct vcpu *v)
{
	pthread_mutex_lock(&v->wait_lock);
	while (atomic_load(&v->vm->turn.cpu) != v->index && !atomic_load(&v->stop_reasons))
		pthread_cond_wait(&v->wait_cond, &v->wait_lock);
	pthread_mutex_unlock(&v->wait_lock);
	return !atomic_load(&v->stop_reasons);
}
