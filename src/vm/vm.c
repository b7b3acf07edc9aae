/* Making, running and ending a machine. */
#include "vm/vm.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <time.h>

#include "boot/boot.h"
#include "chipset/chipset.h"
#include "chipset/lapic.h"
#include "vm/core.h"
#include "vm/inputlog.h"
#include "vm/loop.h"
#include "vm/timer.h"
#include "vm/virtual.h"

/* ---- Making ---------------------------------------------------------- */

static int read_clock(struct config_node *root, struct guest_clock *c, struct skep_error *e)
{
	const char *mode = config_string(root, "clock.mode");
	bool virtual = mode && !strcmp(mode, "virtual");

	clock_init(c, virtual ? CLOCK_MODE_VIRTUAL : CLOCK_MODE_REALTIME);
	if (config_is_set(root, "clock.tsc_khz"))
		c->tsc_khz = (uint32_t)config_uint(root, "clock.tsc_khz");
	if (config_is_set(root, "clock.insn_ps"))
		c->insn_ps = (uint32_t)config_uint(root, "clock.insn_ps");
	if (config_is_set(root, "clock.start")) {
		uint64_t start = config_uint(root, "clock.start");

		if (start > INT64_MAX / 2 / NSEC_PER_SEC)
			return skep_fail(e, EINVAL, "clock.start: %" PRIu64 " is beyond the year 2116,"
					 " which the guest's clocks cannot hold; choose an earlier one",
					 start);
		c->wall_base = (int64_t)start * NSEC_PER_SEC;
	}
	if (!virtual && config_uint(root, "clock.limit"))
		return skep_fail(e, EINVAL, "clock.limit counts instructions and needs "
				 "clock.mode=virtual");
	return 0;
}

static int read_cpus(struct vm *vm, struct config_node *root, struct skep_error *e)
{
	uint64_t cpus = config_uint(root, "cpus");	/* config_freeze has worked it out */

	if (cpus < 1 || cpus > VM_MAX_CPUS)
		return skep_fail(e, EINVAL, "cpus: %" PRIu64 " is not a number of processors from 1 to %d",
				 cpus, VM_MAX_CPUS);
	vm->ncpus = (unsigned)cpus;
	vm->cores = (unsigned)config_uint(root, "cores");
	vm->threads = (unsigned)config_uint(root, "threads");
	return 0;
}

/* Text as config checked it, to bytes in the order in which they are written. */
static void parse_uuid(const char *s, uint8_t uuid[16])
{
	unsigned n = 0;

	for (; *s && n < 32; s++) {
		unsigned c = (unsigned char)*s, v;

		if (c == '-')
			continue;
		v = c <= '9' ? c - '0' : (c | 0x20) - 'a' + 10;
		uuid[n / 2] = (uint8_t)(uuid[n / 2] << 4 | (v & 15));
		n++;
	}
}

static void set_identity(struct vm *vm, struct config_node *root)
{
	const char *name = config_string(root, "name"), *uuid = config_string(root, "uuid");
	unsigned i;

	snprintf(vm->name, sizeof(vm->name), "%s", name ? name : "skep");
	if (uuid) {
		parse_uuid(uuid, vm->uuid);
		return;
	}
	for (i = 0; i < 2; i++)
		store64(vm->uuid + 8 * i, vm_entropy(vm));
	vm->uuid[6] = (vm->uuid[6] & 0x0f) | 0x40;	/* RFC 4122, 4.4: random */
	vm->uuid[8] = (vm->uuid[8] & 0x3f) | 0x80;
}

static bool config_is(struct config_node *root, const char *key, const char *value)
{
	const char *s = config_string(root, key);

	return s && !strcmp(s, value);
}

/* Delivery of the power port: a byte is a press. */
static void press_power(void *opaque, const uint8_t *data, size_t len)
{
	while (len--)
		chipset_power_button(opaque);
}

/* Delivery of the NMI switch: likewise. */
static void press_nmi(void *opaque, const uint8_t *data, size_t len)
{
	while (len--)
		chipset_nmi(opaque);
}

static int create_core(struct vm *vm, struct config_node *root, struct skep_error *e)
{
	struct vm_core_options o = {
		.ram = config_uint(root, "memory.size"),
		.seed = config_uint(root, "seed"),
		.record = config_string(root, "input.record"),
		.replay = config_string(root, "input.replay"),
	};
	int err = read_clock(root, &o.clock, e);

	if (!err)
		err = read_cpus(vm, root, e);
	if (err)
		return err;
	o.seeded = o.clock.mode == CLOCK_MODE_VIRTUAL || config_is_set(root, "seed");
	return vm_core_init(vm, &o, e);
}

/* Device lock. */
static int create_devices(struct vm *vm, struct skep_error *e)
{
	unsigned i;
	int err;

	for (i = 0; i < vm->ncpus; i++) {
		vm->vcpus[i] = vcpu_create(vm, i, vm->backend, e);
		if (!vm->vcpus[i])
			return -ENOMEM;
		if (!lapic_create(vm->vcpus[i], e))
			return -ENOMEM;
	}
	err = paravirt_create(vm, e);
	if (!err)
		err = chipset_create(vm, e);
	if (!err && vm->kvm)
		chipset_watch_ioapic(vm, kvm_routes_changed, vm);
	if (!err && !vm->restored)
		err = boot_load(vm, e);
	if (!err)
		err = timers_check(vm, e);
	if (!err)
		err = input_log_check(vm, e);
	return err;
}

/* auto is decided before (cpu/kvm/probe.h); who asks nobody gets the one that runs everywhere. */
static const struct vcpu_ops *backend_of(struct config_node *root)
{
	const char *name = config_string(root, "backend");
	const struct vcpu_ops *ops = name ? vcpu_backend_find(name) : NULL;

	return ops ? ops : &vcpu_soft_ops;
}

static struct vm *create(struct config *config, bool restored, struct skep_error *e)
{
	struct config_node *root = config_root(config);
	struct vm *vm;
	int err;

	if (device_types_check(e) < 0)
		return NULL;
	vm = calloc(1, sizeof(*vm));
	if (!vm) {
		skep_fail(e, ENOMEM, "no memory for a machine");
		return NULL;
	}
	vm->config = config;
	vm->restored = restored;
	if (create_core(vm, root, e) < 0) {
		free(vm);
		return NULL;
	}
	set_identity(vm, root);
	vm->backend = backend_of(root);
	vm->identity = identity_find(config_string(root, "identity"));
	vm->insn_limit = config_uint(root, "clock.limit");
	vm->restart_on_reset = config_is(root, "on_reboot", "restart");
	vm->reset_on_triple_fault = config_is(root, "x86.triple_fault", "reset");

	device_lock(vm);
	input_port_add(&vm->power, vm, "power", press_power, vm);
	input_port_add(&vm->nmi, vm, "nmi", press_nmi, vm);
	err = create_devices(vm, e);
	device_unlock(vm);
	if (err < 0) {
		vm_destroy(vm);
		return NULL;
	}
	vm_pause(vm, STOP_PAUSE);	/* until vm_run switches it on */
	return vm;
}

struct vm *vm_create(struct config *config, struct skep_error *e)
{
	return create(config, false, e);
}

struct vm *vm_create_restored(struct config *config, struct skep_error *e)
{
	return create(config, true, e);
}

void vm_destroy(struct vm *vm)
{
	unsigned i;

	if (!vm)
		return;
	for (i = 0; i < vm->ncpus; i++)
		if (vm->vcpus[i] && vm->vcpus[i]->thread_started) {
			vcpu_stop(vm->vcpus[i], STOP_SHUTDOWN);
			vcpu_join(vm->vcpus[i]);
		}
	device_lock(vm);
	boot_unload(vm);
	vm_destroy_devices(vm);
	chipset_destroy(vm);
	device_unlock(vm);
	for (i = 0; i < vm->ncpus; i++) {
		vcpu_destroy(vm->vcpus[i]);
		vm->vcpus[i] = NULL;
	}
	vm_core_finish(vm);
	free(vm);
}

/* ---- Standing -------------------------------------------------------- */

static int64_t host_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_BOOTTIME, &t);
	return t.tv_sec * NSEC_PER_SEC + t.tv_nsec;
}

/* vm->lock. */
static void pause_machine(struct vm *vm, uint32_t reason)
{
	struct device *d;
	unsigned i;

	for (i = 0; i < vm->ncpus; i++)
		vcpu_stop(vm->vcpus[i], reason);
	for (i = 0; i < vm->ncpus; i++)
		vcpu_wait_stopped(vm->vcpus[i]);
	if (!vm->pause_reasons) {
		device_lock(vm);
		clock_pause(&vm->clock);
		loop_timer_changed(vm, INT64_MAX);
		for (i = 0; i < vm->ncpus; i++)
			vm->vcpus[i]->ops->freeze(vm->vcpus[i]);
		for (d = vm->devices; d; d = d->next)
			d->type->quiesce(d);
		vm->quiesced = true;
		device_unlock(vm);
		vm->stood_since = host_ns();
	}
	vm->pause_reasons |= reason;
	vm->stood |= (reason & (STOP_USER | STOP_DEBUG)) != 0;
}

void vm_pause(struct vm *vm, uint32_t reason)
{
	pthread_mutex_lock(&vm->lock);
	pause_machine(vm, reason);
	pthread_mutex_unlock(&vm->lock);
}

/* Resumes the devices, last made first: the list is singly linked, and short. */
static void resume_devices(struct device *d)
{
	if (!d)
		return;
	resume_devices(d->next);
	d->type->resume(d);
}

/* vm->lock. */
static void resume_machine(struct vm *vm, uint32_t reason)
{
	unsigned i;

	if (vm->pause_reasons && !(vm->pause_reasons &= ~reason)) {
		device_lock(vm);
		vm->quiesced = false;
		if (vm->stood)
			paravirt_stood(vm);
		vm->stood = false;
		if (vm->advance)
			clock_advance(&vm->clock, host_ns() - vm->stood_since);
		vm->advance = false;
		clock_resume(&vm->clock);
		for (i = 0; i < vm->ncpus; i++)
			vm->vcpus[i]->ops->thaw(vm->vcpus[i]);
		resume_devices(vm->devices);
		input_log_resume(vm);
		loop_timer_changed(vm, timers_next_due(vm));
		device_unlock(vm);
	}
	for (i = 0; i < vm->ncpus; i++)
		vcpu_go(vm->vcpus[i], reason);
}

void vm_resume(struct vm *vm, uint32_t reason)
{
	pthread_mutex_lock(&vm->lock);
	resume_machine(vm, reason);
	pthread_mutex_unlock(&vm->lock);
	/* A reset may have waited for this. */
	if (atomic_load(&vm->reset_requested))
		loop_wake(vm);
}

void vm_advance(struct vm *vm)
{
	pthread_mutex_lock(&vm->lock);
	vm->advance = vm->pause_reasons != 0;
	pthread_mutex_unlock(&vm->lock);
}

/* ---- Running --------------------------------------------------------- */

/* One known state of everything, whatever went before.  vCPUs stopped. */
static int machine_reset(struct vm *vm, struct skep_error *e)
{
	struct device *d;
	unsigned i;
	int err = 0;

	device_lock(vm);
	if (!vm->boot)
		err = boot_load(vm, e);		/* restored, and now it starts from the beginning */
	if (err) {
		device_unlock(vm);
		return err;
	}
	for (d = vm->devices; d; d = d->next)
		d->type->reset(d);
	for (i = 0; i < vm->ncpus; i++) {
		atomic_fetch_and(&vm->vcpus[i]->requests,
				 ~(VCPU_REQ_INTR | VCPU_REQ_NMI | VCPU_REQ_INIT | VCPU_REQ_SIPI));
		vm->vcpus[i]->ops->reset(vm->vcpus[i], false);
	}
	err = boot_place(vm, e);
	if (turns_taken(vm))
		turn_set(vm, 0, TURN_INSNS);
	vm->has_state = !err;
	device_unlock(vm);
	return err;
}

/*
 * False: the machine stands for somebody else, who must not see its memory change (a save); the
 * reset waits, and is part of what is saved.
 */
static bool restart(struct vm *vm)
{
	struct skep_error e = { .text = "" };

	pthread_mutex_lock(&vm->lock);
	if (vm->pause_reasons) {
		pthread_mutex_unlock(&vm->lock);
		return false;
	}
	pause_machine(vm, STOP_RESET);
	atomic_store(&vm->reset_requested, false);
	if (machine_reset(vm, &e) < 0)
		vm_request_error(vm, "%s", e.text);
	resume_machine(vm, STOP_RESET);
	pthread_mutex_unlock(&vm->lock);
	return true;
}

static int power_on(struct vm *vm, struct skep_error *e)
{
	unsigned i;
	int err = 0;

	/* The wall clock is that of power-on, not that of vm_create. */
	if (vm->clock.mode == CLOCK_MODE_REALTIME && !vm->restored &&
	    !config_is_set(config_root(vm->config), "clock.start"))
		clock_set_wall_now(&vm->clock);
	/* Whoever pauses the machine now, to save it, waits until there is one. */
	pthread_mutex_lock(&vm->lock);
	if (!vm->restored)
		err = machine_reset(vm, e);
	pthread_mutex_unlock(&vm->lock);
	for (i = 0; i < vm->ncpus && !err; i++)
		err = vcpu_start(vm->vcpus[i], e);
	if (!err)
		vm_resume(vm, STOP_PAUSE);
	return err;
}

static void power_off(struct vm *vm)
{
	unsigned i;

	vm_pause(vm, STOP_SHUTDOWN);
	for (i = 0; i < vm->ncpus; i++)
		vcpu_join(vm->vcpus[i]);
}

int vm_run(struct vm *vm, struct skep_error *e)
{
	int code = VM_EXIT_ERROR;

	if (power_on(vm, e) < 0) {
		power_off(vm);
		return code;
	}
	while (!vm_exiting(vm)) {
		if (!atomic_load(&vm->reset_requested) || !restart(vm))
			loop_iterate(vm);
	}
	power_off(vm);

	pthread_mutex_lock(&vm->exit_lock);
	code = vm->exit_code;
	if (code == VM_EXIT_ERROR)
		*e = vm->exit_error;
	pthread_mutex_unlock(&vm->exit_lock);
	return code;
}
