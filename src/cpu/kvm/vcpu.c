/*
 * A processor on KVM: made, run, and what it comes out of the guest for.
 *
 * Kicks.  Who wants the processor's attention sets immediate_exit and then sends a signal: a processor
 * that is about to enter the guest comes back at once, one that is inside is interrupted.  The run loop
 * clears immediate_exit and then looks at the requests, so that none is lost.
 */
#include "cpu/kvm/kvm.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "chipset/chipset.h"
#include "chipset/lapic.h"
#include "cpu/model.h"
#include "vm/memory.h"
#include "vm/topology.h"
#include "vm/vm.h"

/* ---- Exits ------------------------------------------------------------------ */

static uint64_t load_value(const uint8_t *p, unsigned size)
{
	uint64_t v = 0;

	memcpy(&v, p, MIN(size, 8u));
	return v;
}

static void exit_io(struct kvm_cpu *k)
{
	const struct kvm_run *run = k->run;
	uint8_t *data = (uint8_t *)run + run->io.data_offset;
	uint32_t i;

	KVM_COUNT(k, io);
	for (i = 0; i < run->io.count; i++, data += run->io.size) {
		if (run->io.direction == KVM_EXIT_IO_OUT) {
			vm_pio_write(k->m->vm, run->io.port, run->io.size,
				     load_value(data, run->io.size));
		} else {
			uint64_t v = vm_pio_read(k->m->vm, run->io.port, run->io.size);

			memcpy(data, &v, run->io.size);
		}
	}
}

/*
 * A write to memory that the kernel holds for read-only: dropped, as the ROM's are, or, where the PAM
 * registers send reads to the ROM and writes to RAM, made.
 */
static bool write_memory(struct kvm_cpu *k, uint64_t gpa, const uint8_t *data, unsigned len)
{
	struct guest_memory *mem = &k->m->vm->memory;
	struct mem_page p = memory_page(mem, gpa);

	if (!p.read && !p.write && !p.rom)
		return false;
	if (p.write && p.flags && gpa % GUEST_PAGE_SIZE + len <= GUEST_PAGE_SIZE) {
		memory_will_write(mem, p.flags);
		memcpy(p.write + gpa % GUEST_PAGE_SIZE, data, len);
	}
	return true;
}

static void exit_mmio(struct kvm_cpu *k)
{
	struct kvm_run *run = k->run;
	unsigned len = MIN(run->mmio.len, 8u), done, n;

	KVM_COUNT(k, mmio);
	if (run->mmio.is_write && write_memory(k, run->mmio.phys_addr, run->mmio.data, len))
		return;
	for (done = 0; done < len; done += n) {
		uint64_t gpa = run->mmio.phys_addr + done, v;

		n = len - done >= 8 ? 8 : len - done >= 4 ? 4 : len - done >= 2 ? 2 : 1;
		if (run->mmio.is_write) {
			vm_mmio_write(k->m->vm, gpa, n, load_value(run->mmio.data + done, n));
		} else {
			v = vm_mmio_read(k->m->vm, gpa, n);
			memcpy(run->mmio.data + done, &v, n);
		}
	}
}

static void exit_eoi(struct kvm_cpu *k)
{
	KVM_COUNT(k, eoi);
	device_lock(k->m->vm);
	chipset_eoi(k->m->vm, k->run->eoi.vector);
	device_unlock(k->m->vm);
}

static bool fail(struct kvm_cpu *k, enum vcpu_exit *why, const char *text)
{
	char state[400];

	kvm_describe(k, state, sizeof(state));
	vm_request_error(k->m->vm, "processor %u: %s; %s", k->v->index, text, state);
	*why = VCPU_EXIT_ERROR;
	return true;
}

static bool exit_internal(struct kvm_cpu *k, enum vcpu_exit *why)
{
	const struct kvm_run *run = k->run;
	struct skep_error e = { "" };
	char text[SKEP_ERROR_TEXT / 2];
	int r;

	if (run->internal.suberror == KVM_INTERNAL_ERROR_EMULATION) {
		r = kvm_help(k, why, &e);
		if (r >= 0)
			return r > 0;
		return fail(k, why, e.text);
	}
	snprintf(text, sizeof(text), "KVM came to an internal error (%u)", run->internal.suberror);
	return fail(k, why, text);
}

static bool exit_system_event(struct kvm_cpu *k, enum vcpu_exit *why)
{
	char text[80];

	snprintf(text, sizeof(text), "KVM tells of a system event (%u)", k->run->system_event.type);
	return fail(k, why, text);
}

static bool exit_other(struct kvm_cpu *k, enum vcpu_exit *why)
{
	const struct kvm_run *run = k->run;
	char text[120];

	if (run->exit_reason == KVM_EXIT_FAIL_ENTRY)
		snprintf(text, sizeof(text), "the host's processor refuses to enter the guest "
			 "(hardware reason %#llx)",
			 (unsigned long long)run->fail_entry.hardware_entry_failure_reason);
	else
		snprintf(text, sizeof(text), "KVM came back for a reason that is not known here (%u)",
			 run->exit_reason);
	return fail(k, why, text);
}

bool kvm_exit_serve(struct kvm_cpu *k, enum vcpu_exit *why)
{
	KVM_COUNT(k, exits);
	switch (k->run->exit_reason) {
	case KVM_EXIT_IO:
		exit_io(k);
		return false;
	case KVM_EXIT_MMIO:
		exit_mmio(k);
		return false;
	case KVM_EXIT_X86_RDMSR:
	case KVM_EXIT_X86_WRMSR:
		kvm_exit_msr(k, k->run->exit_reason == KVM_EXIT_X86_WRMSR);
		return false;
	case KVM_EXIT_IOAPIC_EOI:
		exit_eoi(k);
		return false;
	case KVM_EXIT_IRQ_WINDOW_OPEN:
		KVM_COUNT(k, window);
		return false;
	case KVM_EXIT_INTR:
	case KVM_EXIT_DEBUG:
	case KVM_EXIT_SET_TPR:
		return false;
	case KVM_EXIT_HLT:		/* with the kernel's APIC it waits by itself */
		return false;
	case KVM_EXIT_SHUTDOWN:
		*why = VCPU_EXIT_TRIPLE_FAULT;
		return true;
	case KVM_EXIT_INTERNAL_ERROR:
		return exit_internal(k, why);
	case KVM_EXIT_SYSTEM_EVENT:
		return exit_system_event(k, why);
	default:
		return exit_other(k, why);
	}
}

/* ---- Before it enters ---------------------------------------------------------- */

/* The 8259 pair: its vector goes in where the guest and LINT0's entry allow it. */
static int give_extint(struct kvm_cpu *k)
{
	struct kvm_interrupt irq;
	struct vm *vm = k->m->vm;
	bool ready = k->ready_known && k->run->ready_for_interrupt_injection;
	bool up;
	int vector = -1, err;

	device_lock(vm);
	up = chipset_pic_intr(vm);
	if (up && ready)
		vector = chipset_pic_ack(vm);
	if (vector >= 0)
		up = chipset_pic_intr(vm);
	device_unlock(vm);
	k->intr = up;
	k->run->request_interrupt_window = up;
	if (vector < 0)
		return 0;
	irq.irq = (uint32_t)vector;
	err = kvm_call(k->fd, KVM_INTERRUPT, &irq);
	k->ext_given = err >= 0;
	k->ready_known = false;
	return err;
}

/* False: the run ends with *why. */
static bool serve_requests(struct kvm_cpu *k, enum vcpu_exit *why)
{
	struct vcpu *v = k->v;
	struct skep_error e = { "" };
	uint32_t r = atomic_exchange(&v->requests, 0);
	int err = 0;

	if (r & VCPU_REQ_TLB)
		err = kvm_slots_update(k->m, &e);
	if (!err && r & VCPU_REQ_NMI) {
		err = kvm_lint1(k);
		if (err < 0)
			kvm_fail(&e, err, "KVM_NMI");
	}
	k->intr |= !!(r & VCPU_REQ_INTR);
	if (atomic_load(&v->stop_reasons)) {
		/* What was not looked at waits. */
		atomic_fetch_or(&v->requests, r & VCPU_REQ_INTR);
		if (!err)
			err = kvm_settle(k, &e);
		*why = VCPU_EXIT_STOPPED;
		if (!err)
			return false;
	}
	if (!err && k->intr) {
		err = give_extint(k);
		if (err < 0)
			kvm_fail(&e, err, "KVM_INTERRUPT");
	}
	if (err >= 0)
		return true;
	vm_request_error(v->vm, "%s", e.text);
	*why = VCPU_EXIT_ERROR;
	return false;
}

static enum vcpu_exit run_vcpu(struct vcpu *v)
{
	struct kvm_cpu *k = kvm_cpu_of(v);
	struct skep_error e;
	enum vcpu_exit why;
	int err;

	if (k->ended) {
		k->ended = false;
		return k->why;
	}
	kvm_kick_accept();
	for (;;) {
		/* Cleared before the requests are looked at, so that a later kick is seen. */
		__atomic_store_n(&k->run->immediate_exit, 0, __ATOMIC_SEQ_CST);
		if (!serve_requests(k, &why))
			return why;
		err = kvm_run_once(k->fd);
		k->ready_known = true;
		if (err == -EINTR || err == -EAGAIN) {
			KVM_COUNT(k, kicks);
			continue;
		}
		if (err < 0) {
			kvm_fail(&e, err, "KVM_RUN");
			fail(k, &why, e.text);
			return why;
		}
		k->ext_given = false;
		if (kvm_exit_serve(k, &why))
			return why;
	}
}

static void kick(struct vcpu *v)
{
	struct kvm_cpu *k = kvm_cpu_of(v);

	if (!k || !k->run)
		return;
	__atomic_store_n(&k->run->immediate_exit, 1, __ATOMIC_SEQ_CST);
	if (atomic_load(&v->running) && !pthread_equal(v->thread, pthread_self()))
		kvm_kick_thread(v->thread);
}

/* ---- Made and unmade ------------------------------------------------------------- */

static void destroy(struct vcpu *v)
{
	struct kvm_cpu *k = kvm_cpu_of(v);

	if (!k)
		return;
	kvm_help_end(k);
	if (k->run)
		munmap(k->run, k->m->run_size);
	if (k->fd >= 0)
		close(k->fd);
	if (k->m)
		kvm_machine_leave(k->m);
	v->backend = NULL;
	free(k);
}

static int map_run(struct kvm_cpu *k, struct skep_error *e)
{
	void *p = mmap(NULL, k->m->run_size, PROT_READ | PROT_WRITE, MAP_SHARED, k->fd, 0);

	if (p == MAP_FAILED)
		return kvm_fail(e, -errno, "mapping struct kvm_run");
	k->run = p;
	return 0;
}

static int set_up(struct kvm_cpu *k, struct skep_error *e)
{
	int err;

	k->fd = kvm_call_value(k->m->fd, KVM_CREATE_VCPU, topology_apic_id(k->m->vm, k->v->index));
	if (k->fd < 0)
		return kvm_fail(e, k->fd, "KVM_CREATE_VCPU");
	err = map_run(k, e);
	if (!err)
		err = kvm_tsc_init(k, e);
	if (!err)
		err = kvm_cpuid_set(k, e);
	return err ? err : kvm_msrs_find(k, e);
}

static void reset(struct vcpu *v, bool init)
{
	struct kvm_cpu *k = kvm_cpu_of(v);
	struct cpu_arch_state s = { .rip = 0 };
	struct skep_error e;

	if (init && kvm_state_read(k, &s, &e) < 0) {
		vm_request_error(v->vm, "%s", e.text);
		return;
	}
	cpu_arch_reset(&s, init, v->index == 0, cpu_model_leaf(k->m->model, 1, 0)->eax);
	if (v->index && !init)
		s.apic_base &= ~BIT(8);		/* not the boot processor's */
	if (v->lapic)
		lapic_set_tsc_adjust(v->lapic, s.tsc_adjust);
	if (kvm_state_write(k, &s, &e) < 0)
		vm_request_error(v->vm, "%s", e.text);
}

static int create(struct vcpu *v, struct skep_error *e)
{
	struct kvm_cpu *k = calloc(1, sizeof(*k));
	int err;

	if (!k)
		return skep_fail(e, ENOMEM, "no memory for processor %u", v->index);
	k->fd = -1;
	k->v = v;
	k->m = kvm_machine_join(v->vm, e);
	if (!k->m) {
		free(k);
		return -EIO;
	}
	v->backend = k;
	err = set_up(k, e);
	if (err < 0)
		destroy(v);
	return err;
}

/* The kernel keeps the guest's code true by itself. */
static void invalidate_code(struct vcpu *v, uint64_t gpa, uint64_t len)
{
}

static void stats(struct vcpu *v, void (*tell)(void *opaque, const char *section, const char *name,
					       uint64_t value), void *opaque)
{
	struct kvm_stats *s = &kvm_cpu_of(v)->stats;
	const struct { const char *name; _Atomic uint64_t *value; } all[] = {
		{ "exits", &s->exits }, { "io", &s->io }, { "mmio", &s->mmio }, { "msr", &s->msr },
		{ "eoi", &s->eoi }, { "window", &s->window }, { "kicks", &s->kicks },
		{ "helped", &s->helped },
	};

	for (unsigned i = 0; i < ARRAY_SIZE(all); i++)
		tell(opaque, "kvm", all[i].name,
		     atomic_load_explicit(all[i].value, memory_order_relaxed));
}

const struct vcpu_ops vcpu_kvm_ops = {
	.name = "kvm",
	.create = create,
	.destroy = destroy,
	.reset = reset,
	.run = run_vcpu,
	.kick = kick,
	.get_state = kvm_get_state,
	.check_state = kvm_check_state,
	.set_state = kvm_set_state,
	.freeze = kvm_freeze,
	.thaw = kvm_thaw,
	.sync_dirty = kvm_sync_dirty,
	.live_cut = false,
	.invalidate_code = invalidate_code,
	.stats = stats,
};
