/*
 * Asking the machine to end or to start again.  Any thread may, in any lock
 * state: only innermost locks are taken here.
 */
#include <stdarg.h>

#include "vm/loop.h"
#include "vm/vm.h"

static void stop_all(struct vm *vm, uint32_t reason)
{
	unsigned i;

	for (i = 0; i < vm->ncpus; i++)
		if (vm->vcpus[i])
			vcpu_stop(vm->vcpus[i], reason);
	loop_wake(vm);
}

bool vm_exiting(struct vm *vm)
{
	bool exiting;

	pthread_mutex_lock(&vm->exit_lock);
	exiting = vm->exiting;
	pthread_mutex_unlock(&vm->exit_lock);
	return exiting;
}

bool vm_suspended(struct vm *vm)
{
	bool suspended;

	pthread_mutex_lock(&vm->exit_lock);
	suspended = vm->exiting && vm->exit_code == VM_EXIT_SUSPENDED;
	pthread_mutex_unlock(&vm->exit_lock);
	return suspended;
}

static void request_exit(struct vm *vm, int code, const struct skep_error *why)
{
	pthread_mutex_lock(&vm->exit_lock);
	if (!vm->exiting) {
		vm->exiting = true;
		vm->exit_code = code;
		if (why)
			vm->exit_error = *why;
	}
	pthread_mutex_unlock(&vm->exit_lock);
	stop_all(vm, STOP_SHUTDOWN);
}

void vm_request_exit(struct vm *vm, int code)
{
	struct skep_error why;

	/* What a guest does whose RAM has become zeroes is our failure, not its own. */
	if (code != VM_EXIT_SUSPENDED && memory_lost(&vm->memory, &why) < 0)
		request_exit(vm, VM_EXIT_ERROR, &why);
	else
		request_exit(vm, code, NULL);
}

void vm_request_error(struct vm *vm, const char *fmt, ...)
{
	struct skep_error why;
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(why.text, sizeof(why.text), fmt, ap);
	va_end(ap);
	request_exit(vm, VM_EXIT_ERROR, &why);
}

void vm_request_reset(struct vm *vm)
{
	if (!vm->restart_on_reset) {
		vm_request_exit(vm, VM_EXIT_REBOOT);
		return;
	}
	atomic_store(&vm->reset_requested, true);
	stop_all(vm, STOP_RESET);
}

static void power_pressed(void *opaque)
{
	struct vm *vm = opaque;

	vm_input(&vm->power, (const uint8_t *)"\1", 1);
}

void vm_power_button(struct vm *vm)
{
	loop_post(vm, power_pressed, vm);
}

static void nmi_pressed(void *opaque)
{
	struct vm *vm = opaque;

	vm_input(&vm->nmi, (const uint8_t *)"\1", 1);
}

void vm_nmi(struct vm *vm)
{
	loop_post(vm, nmi_pressed, vm);
}
