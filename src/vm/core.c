#include "vm/core.h"

#include <errno.h>
#include <stdlib.h>

#include "chipset/lapic.h"
#include "vm/entropy.h"
#include "vm/inputlog.h"
#include "vm/loop.h"
#include "vm/timer.h"
#include "vm/virtual.h"

static void timers_earlier(struct vm *vm, int64_t due)
{
	if (vm->clock.mode == CLOCK_MODE_VIRTUAL)
		virtual_earlier(vm, due);
	else
		loop_timer_changed(vm, due);
}

int vm_core_init(struct vm *vm, const struct vm_core_options *o, struct skep_error *e)
{
	int err;

	pthread_mutex_init(&vm->lock, NULL);
	pthread_mutex_init(&vm->device_lock, NULL);
	pthread_mutex_init(&vm->exit_lock, NULL);
	bus_init(&vm->ports, "port", 0xffff);
	bus_init(&vm->mmio, "memory", UINT64_MAX);
	vm->clock = o->clock;
	entropy_init(vm, o->seeded, o->seed);

	err = memory_init(&vm->memory, vm, o->ram, e);
	if (!err)
		err = timers_create(vm, timers_earlier, e);
	if (!err)
		err = loop_create(vm, e);
	if (!err)
		err = input_log_create(vm, o->record, o->replay, e);
	if (err)
		vm_core_finish(vm);
	return err;
}

void vm_destroy_devices(struct vm *vm)
{
	struct device *d;

	while ((d = vm->devices)) {
		while (d->next)
			d = d->next;
		device_destroy(d);
	}
}

void vm_core_finish(struct vm *vm)
{
	device_lock(vm);
	vm_destroy_devices(vm);
	device_unlock(vm);
	input_log_destroy(vm);
	loop_destroy(vm);
	timers_destroy(vm);
	bus_finish(&vm->mmio);
	bus_finish(&vm->ports);
	memory_finish(&vm->memory);
	if (vm->origin.release)
		vm->origin.release(vm->origin.held);
	free(vm->origin.path);
	pthread_mutex_destroy(&vm->exit_lock);
	pthread_mutex_destroy(&vm->device_lock);
	pthread_mutex_destroy(&vm->lock);
}

#define APIC_BASE_ENABLED	0x800u	/* IA32_APIC_BASE: EN */

/* ---- What a processor does to the rest of the machine ----------------- */

uint64_t vm_pio_read(struct vm *vm, uint16_t port, unsigned size)
{
	uint64_t value;

	device_lock(vm);
	value = bus_read(&vm->ports, port, size);
	device_unlock(vm);
	return value;
}

void vm_pio_write(struct vm *vm, uint16_t port, unsigned size, uint64_t value)
{
	device_lock(vm);
	bus_write(&vm->ports, port, size, value);
	device_unlock(vm);
}

/*
 * The local APIC's page is each processor's own, wherever IA32_APIC_BASE puts it
 * (SDM vol. 3, 11.4.4): it lies before the bus.  Another thread than a
 * vCPU's looks from the boot processor.
 */
static struct lapic *lapic_at(struct vm *vm, uint64_t gpa)
{
	struct vcpu *v = vcpu_current(vm);
	uint64_t base;

	if (!v)
		v = vm->vcpus[0];
	if (!v || !v->lapic)
		return NULL;
	base = lapic_get_base(v->lapic);
	if (!(base & APIC_BASE_ENABLED) || (base ^ gpa) >> 12)
		return NULL;
	return v->lapic;
}

uint64_t vm_mmio_read(struct vm *vm, uint64_t gpa, unsigned size)
{
	struct lapic *a;
	uint64_t value;

	device_lock(vm);
	a = lapic_at(vm, gpa);
	value = a ? lapic_mmio_read(a, gpa % GUEST_PAGE_SIZE, size) :
		bus_read(&vm->mmio, gpa, size);
	device_unlock(vm);
	return value;
}

void vm_mmio_write(struct vm *vm, uint64_t gpa, unsigned size, uint64_t value)
{
	struct lapic *a;

	device_lock(vm);
	a = lapic_at(vm, gpa);
	if (a)
		lapic_mmio_write(a, gpa % GUEST_PAGE_SIZE, size, value);
	else
		bus_write(&vm->mmio, gpa, size, value);
	device_unlock(vm);
}

void vm_flush_tlbs(struct vm *vm)
{
	unsigned i;

	for (i = 0; i < vm->ncpus; i++)
		if (vm->vcpus[i])
			vcpu_request(vm->vcpus[i], VCPU_REQ_TLB);
}

void vm_invalidate_code(struct vm *vm, uint64_t gpa, uint64_t len)
{
	unsigned i;

	for (i = 0; i < vm->ncpus; i++)
		if (vm->vcpus[i])
			vm->vcpus[i]->ops->invalidate_code(vm->vcpus[i], gpa, len);
}
