/*
 * A machine without processors for tests of chips: registers are driven by
 * hand, guest time is moved by hand (clock=virtual), interrupts are recorded.
 */
#ifndef SKEP_TESTS_CHIP_H
#define SKEP_TESTS_CHIP_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "state/codec.h"
#include "vm/core.h"

struct chip_wire {
	int level;
	unsigned rises, falls;
	int64_t last_rise;	/* guest ns */
	struct vm *vm;
};

static inline void chip_wire_set(void *opaque, int n, int level)
{
	struct chip_wire *w = opaque;

	if (!w->level && level) {
		w->rises++;
		w->last_rise = clock_now(&w->vm->clock);
	}
	if (w->level && !level)
		w->falls++;
	w->level = level;
}

static inline struct irq_line chip_wire(struct chip_wire *w, struct vm *vm)
{
	*w = (struct chip_wire){ .vm = vm };
	return (struct irq_line){ .set = chip_wire_set, .opaque = w };
}

static inline struct vm *chip_vm(void)
{
	struct vm_core_options o = { .ram = 1 * MiB, .seeded = true };
	struct vm *vm = calloc(1, sizeof(*vm));
	struct skep_error e = { .text = "" };

	assert_non_null(vm);
	clock_init(&o.clock, CLOCK_MODE_VIRTUAL);
	if (vm_core_init(vm, &o, &e) < 0)
		fail_msg("%s", e.text);
	device_lock(vm);
	return vm;
}

static inline void chip_vm_end(struct vm *vm)
{
	vm_destroy_devices(vm);
	device_unlock(vm);
	for (unsigned i = 0; i < vm->ncpus; i++)
		free(vm->vcpus[i]);
	vm->ncpus = 0;
	vm_core_finish(vm);
	free(vm);
}

static inline int64_t chip_now(struct vm *vm)
{
	return clock_now(&vm->clock);
}

/* Moves guest time to ns, with every timer fired at its own time. */
static inline void chip_run_to(struct vm *vm, int64_t ns)
{
	int64_t due;

	while ((due = timers_next_due(vm)) <= ns) {
		clock_skip_to(&vm->clock, due);
		timers_run(vm, chip_now(vm));
	}
	clock_skip_to(&vm->clock, ns);
}

static inline void chip_run(struct vm *vm, int64_t ns)
{
	chip_run_to(vm, chip_now(vm) + ns);
}

/* Moves guest time as a host does that is late: nothing fires on the way. */
static inline void chip_jump(struct vm *vm, int64_t ns)
{
	clock_skip_to(&vm->clock, chip_now(vm) + ns);
}

static inline uint32_t in8(struct vm *vm, uint16_t port) { return bus_read(&vm->ports, port, 1); }
static inline uint32_t in16(struct vm *vm, uint16_t port) { return bus_read(&vm->ports, port, 2); }
static inline uint32_t in32(struct vm *vm, uint16_t port) { return bus_read(&vm->ports, port, 4); }
static inline void out8(struct vm *vm, uint16_t port, uint8_t v)
{
	bus_write(&vm->ports, port, 1, v);
}
static inline void out16(struct vm *vm, uint16_t port, uint16_t v)
{
	bus_write(&vm->ports, port, 2, v);
}
static inline void out32(struct vm *vm, uint16_t port, uint32_t v)
{
	bus_write(&vm->ports, port, 4, v);
}

/* A device's state as a snapshot holds it. The caller frees both. */
static inline void chip_export(const struct device *d, void **model, struct state_buf *bytes)
{
	const struct state_record *r = d->type->state;
	struct skep_error e = { .text = "" };

	*model = calloc(1, r->model_size + 1);
	assert_non_null(*model);
	d->type->export(d, *model);
	if (state_encode(r, d->name, *model, r->version, bytes, &e) < 0)
		fail_msg("%s", e.text);
}

static inline void chip_model_free(const struct device *d, void *model)
{
	state_free(d->type->state, model);
	free(model);
}

/* As a loader does: ranges, then the device's own rules. */
static inline int chip_check(const struct device *d, const void *model, struct skep_error *e)
{
	int err = state_check(d->type->state, d->name, model, NULL, e);

	return err < 0 ? err : d->type->validate(d, model, e);
}

/* Save and restore of one device: export, check as a loader does, commit, export: the same. */
static inline void chip_save_restore(struct device *d)
{
	struct state_buf a = { 0 }, b = { 0 };
	struct skep_error e = { .text = "" };
	void *before, *after;

	chip_export(d, &before, &a);
	if (chip_check(d, before, &e) < 0)
		fail_msg("%s", e.text);
	d->type->commit(d, before);
	chip_export(d, &after, &b);
	assert_int_equal(a.len, b.len);
	assert_memory_equal(a.data, b.data, a.len);
	chip_model_free(d, before);
	chip_model_free(d, after);
	state_buf_free(&a);
	state_buf_free(&b);
}

/* A recorder in place of a processor. */
static inline void chip_kick(struct vcpu *v)
{
}

static inline void chip_invalidate(struct vcpu *v, uint64_t gpa, uint64_t len)
{
}

static const struct vcpu_ops chip_vcpu_ops = {
	.name = "recorder",
	.kick = chip_kick,
	.invalidate_code = chip_invalidate,
	.freeze = vcpu_nop, .thaw = vcpu_nop, .sync_dirty = vcpu_nop_sync, .live_cut = true,
};

static inline struct vcpu *chip_vcpu(struct vm *vm)
{
	struct vcpu *v = calloc(1, sizeof(*v));

	assert_non_null(v);
	v->vm = vm;
	v->index = vm->ncpus;
	v->ops = &chip_vcpu_ops;
	pthread_mutex_init(&v->wait_lock, NULL);
	pthread_cond_init(&v->wait_cond, NULL);
	vm->vcpus[vm->ncpus++] = v;
	return v;
}

/* What was asked of the processor since the last call. */
static inline uint32_t chip_requests(struct vcpu *v)
{
	return atomic_exchange(&v->requests, 0);
}

#endif
