/* A machine for tests: no board, no configuration, a processor that only counts. */
#ifndef SKEP_TESTS_VM_HELPER_H
#define SKEP_TESTS_VM_HELPER_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "vm/core.h"

#define TEST_RAM (16 * MiB)

struct fake_cpu {
	unsigned kicks, invalidations;
	uint64_t gpa, len;		/* of the last invalidation */
};

static int fake_create(struct vcpu *v, struct skep_error *e)
{
	v->backend = calloc(1, sizeof(struct fake_cpu));
	return v->backend ? 0 : -1;
}
static void fake_destroy(struct vcpu *v) { free(v->backend); }
static void fake_reset(struct vcpu *v, bool init) { }
static void fake_kick(struct vcpu *v) { ((struct fake_cpu *)v->backend)->kicks++; }
static void fake_get_state(struct vcpu *v, struct cpu_arch_state *s) { }
static int fake_check_state(struct vcpu *v, const struct cpu_arch_state *s, struct skep_error *e)
{
	return 0;
}
static int fake_set_state(struct vcpu *v, const struct cpu_arch_state *s, struct skep_error *e)
{
	return 0;
}
static void fake_invalidate(struct vcpu *v, uint64_t gpa, uint64_t len)
{
	struct fake_cpu *f = v->backend;

	f->invalidations++;
	f->gpa = gpa;
	f->len = len;
}
/* Runs until it is told to stop. */
static enum vcpu_exit fake_run(struct vcpu *v)
{
	while (!atomic_load(&v->stop_reasons)) {
		vcpu_wait(v);
		atomic_store(&v->requests, 0);
	}
	return VCPU_EXIT_STOPPED;
}

static const struct vcpu_ops fake_ops = {
	.name = "fake", .create = fake_create, .destroy = fake_destroy, .reset = fake_reset,
	.run = fake_run, .kick = fake_kick, .get_state = fake_get_state,
	.check_state = fake_check_state,
	.set_state = fake_set_state, .invalidate_code = fake_invalidate,
	.freeze = vcpu_nop, .thaw = vcpu_nop, .sync_dirty = vcpu_nop_sync, .live_cut = true,
};

static inline struct vm *test_vm_options(const struct vm_core_options *o)
{
	struct skep_error e = { .text = "" };
	struct vm *vm = calloc(1, sizeof(*vm));

	assert_non_null(vm);
	if (vm_core_init(vm, o, &e) < 0)
		fail_msg("%s", e.text);
	vm->vcpus[0] = vcpu_create(vm, 0, &fake_ops, &e);
	assert_non_null(vm->vcpus[0]);
	vm->ncpus = 1;
	return vm;
}

static inline struct vm *test_vm(enum clock_mode mode)
{
	struct vm_core_options o = { .ram = TEST_RAM, .seeded = true };

	clock_init(&o.clock, mode);
	return test_vm_options(&o);
}

static inline struct fake_cpu *test_cpu(struct vm *vm)
{
	return vm->vcpus[0]->backend;
}

static inline void test_vm_free(struct vm *vm)
{
	vcpu_destroy(vm->vcpus[0]);
	vm->vcpus[0] = NULL;
	vm->ncpus = 0;
	vm_core_finish(vm);
	free(vm);
}

#endif
