/*
 * vCPU threads, reasons to be stopped, requests, and the interrupt side.
 *
 * Two handshakes carry everything:
 *  - stop_reasons is set before VCPU_REQ_STOP, and whoever takes VCPU_REQ_STOP
 *    looks at stop_reasons afterwards, so a stop is never lost;
 *  - requests is set before `waiting` is read, and vcpu_wait sets `waiting` before
 *    it reads requests, so a wake-up is never lost.
 */
#include "cpu/vcpu.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/thread.h"
#include "chipset/chipset.h"
#include "chipset/lapic.h"
#include "vm/virtual.h"
#include "vm/vm.h"

struct vcpu *vcpu_create(struct vm *vm, unsigned index, const struct vcpu_ops *ops,
			 struct skep_error *e)
{
	struct vcpu *v = calloc(1, sizeof(*v));

	if (!v) {
		skep_fail(e, ENOMEM, "no memory for processor %u", index);
		return NULL;
	}
	v->vm = vm;
	v->index = index;
	v->ops = ops;
	atomic_init(&v->stop_reasons, STOP_PAUSE);
	pthread_mutex_init(&v->wait_lock, NULL);
	pthread_cond_init(&v->wait_cond, NULL);
	if (ops->create(v, e) < 0) {
		pthread_cond_destroy(&v->wait_cond);
		pthread_mutex_destroy(&v->wait_lock);
		free(v);
		return NULL;
	}
	return v;
}

void vcpu_destroy(struct vcpu *v)
{
	if (!v)
		return;
	if (v->thread_started) {
		vcpu_stop(v, STOP_SHUTDOWN);
		vcpu_join(v);
	}
	v->ops->destroy(v);
	pthread_cond_destroy(&v->wait_cond);
	pthread_mutex_destroy(&v->wait_lock);
	free(v);
}

const struct vcpu_ops *vcpu_backend_find(const char *name)
{
	static const struct vcpu_ops *const all[] = { &vcpu_soft_ops, &vcpu_kvm_ops };

	for (unsigned i = 0; i < ARRAY_SIZE(all); i++)
		if (!strcmp(all[i]->name, name))
			return all[i];
	return NULL;
}

void vcpu_nop(struct vcpu *v)
{
}

int vcpu_nop_sync(struct vcpu *v, struct skep_error *e)
{
	return 0;
}

/* ---- The thread ------------------------------------------------------ */

/* Waits for permission to run; false: the thread ends. */
static bool enter(struct vcpu *v)
{
	uint32_t reasons;

	pthread_mutex_lock(&v->wait_lock);
	for (;;) {
		atomic_fetch_and(&v->requests, ~VCPU_REQ_STOP);
		reasons = atomic_load(&v->stop_reasons);
		if (!reasons || (reasons & STOP_SHUTDOWN))
			break;
		pthread_cond_wait(&v->wait_cond, &v->wait_lock);
	}
	v->running = !reasons;
	pthread_mutex_unlock(&v->wait_lock);
	return !reasons;
}

static void leave(struct vcpu *v)
{
	pthread_mutex_lock(&v->wait_lock);
	v->running = false;
	pthread_cond_broadcast(&v->wait_cond);
	pthread_mutex_unlock(&v->wait_lock);
}

static void handle_exit(struct vcpu *v, enum vcpu_exit why)
{
	switch (why) {
	case VCPU_EXIT_STOPPED:
		return;
	case VCPU_EXIT_TRIPLE_FAULT:
		if (v->vm->reset_on_triple_fault)
			vm_request_reset(v->vm);
		else
			vm_request_exit(v->vm, VM_EXIT_TRIPLE_FAULT);
		return;
	case VCPU_EXIT_LIMIT:
		if (virtual_stop_point(v->vm))
			return;
		/* fall through */
	case VCPU_EXIT_HALTED:
		vm_request_exit(v->vm, VM_EXIT_HALT);
		return;
	case VCPU_EXIT_ERROR:
		/* The backend has said why; this is for one that has not. */
		vm_request_error(v->vm, "processor %u cannot go on", v->index);
		return;
	}
}

/* For whoever measures how long it takes to the first instruction of the guest. */
static void note_first_run(struct vm *vm)
{
	struct timespec t;

	if (atomic_load_explicit(&vm->first_run_ns, memory_order_relaxed))
		return;
	clock_gettime(CLOCK_MONOTONIC, &t);
	atomic_store(&vm->first_run_ns, t.tv_sec * NSEC_PER_SEC + t.tv_nsec);
}

static void *vcpu_main(void *opaque)
{
	struct vcpu *v = opaque;
	char name[16];

	snprintf(name, sizeof(name), "vcpu%u", v->index);
	pthread_setname_np(pthread_self(), name);
	while (enter(v)) {
		note_first_run(v->vm);
		/* The request that it leads to stops this processor before it can run on. */
		handle_exit(v, v->ops->run(v));
		leave(v);
	}
	return NULL;
}

int vcpu_start(struct vcpu *v, struct skep_error *e)
{
	int err = thread_start(&v->thread, vcpu_main, v);

	if (err)
		return skep_fail(e, -err, "no thread for processor %u: %s", v->index,
				 strerror(-err));
	v->thread_started = true;
	return 0;
}

void vcpu_join(struct vcpu *v)
{
	if (!v->thread_started)
		return;
	pthread_join(v->thread, NULL);
	v->thread_started = false;
}

struct vcpu *vcpu_current(struct vm *vm)
{
	pthread_t self = pthread_self();
	unsigned i;

	for (i = 0; i < vm->ncpus; i++)
		if (vm->vcpus[i] && vm->vcpus[i]->running &&
		    pthread_equal(vm->vcpus[i]->thread, self))
			return vm->vcpus[i];
	return NULL;
}

/* ---- Requests and reasons -------------------------------------------- */

void vcpu_wake(struct vcpu *v)
{
	pthread_mutex_lock(&v->wait_lock);
	pthread_cond_broadcast(&v->wait_cond);
	pthread_mutex_unlock(&v->wait_lock);
}

void vcpu_request(struct vcpu *v, uint32_t bits)
{
	atomic_fetch_or(&v->requests, bits);
	v->ops->kick(v);
	if (atomic_load(&v->waiting))
		vcpu_wake(v);
}

void vcpu_stop(struct vcpu *v, uint32_t reason)
{
	atomic_fetch_or(&v->stop_reasons, reason);
	vcpu_request(v, VCPU_REQ_STOP);
	/* The thread may sleep for another reason, which is no end for a shutdown. */
	vcpu_wake(v);
}

void vcpu_go(struct vcpu *v, uint32_t reason)
{
	atomic_fetch_and(&v->stop_reasons, ~reason);
	vcpu_wake(v);
}

void vcpu_wait_stopped(struct vcpu *v)
{
	pthread_mutex_lock(&v->wait_lock);
	while (v->running)
		pthread_cond_wait(&v->wait_cond, &v->wait_lock);
	pthread_mutex_unlock(&v->wait_lock);
}

void vcpu_wait(struct vcpu *v)
{
	pthread_mutex_lock(&v->wait_lock);
	atomic_store(&v->waiting, true);
	while (!atomic_load(&v->requests))
		pthread_cond_wait(&v->wait_cond, &v->wait_lock);
	atomic_store(&v->waiting, false);
	pthread_mutex_unlock(&v->wait_lock);
}

/*
 * Nobody is deaf for good to whom something was sent: who sends does so before it becomes deaf
 * itself, and who is sent to takes the request only after it has said that it goes on.
 */
bool vcpu_idle(struct vcpu *v, enum vcpu_idle idle)
{
	const uint32_t wakes = VCPU_REQ_STOP | VCPU_REQ_NMI | VCPU_REQ_INIT | VCPU_REQ_SIPI;
	const struct vm *vm = v->vm;
	unsigned i;

	atomic_store(&v->idle, (uint8_t)idle);
	if (idle != VCPU_IDLE_DEAF)
		return true;
	for (i = 0; i < vm->ncpus; i++)
		if (atomic_load(&vm->vcpus[i]->idle) != VCPU_IDLE_DEAF ||
		    atomic_load(&vm->vcpus[i]->requests) & wakes)
			return true;
	return false;
}

/* ---- Interrupts ------------------------------------------------------ */

/* The 8259 pair through the virtual wire (MP specification 1.4, 3.6.2.2). */
static bool extint_pending(struct vcpu *v)
{
	return lapic_accepts_extint(v->lapic) && chipset_pic_intr(v->vm);
}

bool vcpu_intr_pending(struct vcpu *v)
{
	bool pending;

	if (!v->lapic)
		return false;
	device_lock(v->vm);
	pending = lapic_pending_vector(v->lapic) >= 0 || extint_pending(v);
	device_unlock(v->vm);
	return pending;
}

int vcpu_intr_ack(struct vcpu *v)
{
	int vector;

	if (!v->lapic)
		return -1;
	device_lock(v->vm);
	/* ExtINT has no priority of its own; it comes first, since it cannot nest. */
	vector = extint_pending(v) ? chipset_pic_ack(v->vm) : lapic_ack(v->lapic);
	device_unlock(v->vm);
	return vector;
}
