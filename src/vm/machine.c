/*
 * The state of a whole machine as models: taken from it, checked, given to it.
 *
 * The order of a commit: the machine's own record, which sets guest time; the
 * processors; the devices in order of creation.  A processor's TSC_ADJUST must be known
 * before its local APIC's TSC deadline is armed, and whatever the processor does to an
 * APIC's timer on the way is overwritten by the APIC's own record.  Local APICs come before
 * the controllers that drive their pins, the board's wires before those who hold them.
 * Nothing is raised: each record carries its side of every wire.
 */
#include "vm/machine.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "boot/fwcfg.h"
#include "chipset/acpi_pm.h"
#include "chipset/chipset.h"
#include "chipset/hpet.h"
#include "chipset/i8254.h"
#include "chipset/i8259.h"
#include "chipset/ioapic.h"
#include "chipset/lapic.h"
#include "chipset/mc146818.h"
#include "chipset/reset.h"
#include "chipset/uart.h"
#include "clock/hyperv.h"
#include "clock/pvclock.h"
#include "clock/vmclock.h"
#include "clock/vmgenid.h"
#include "pci/pci.h"
#include "virtio/console.h"
#include "virtio/net.h"
#include "virtio/virtio.h"
#include "virtio/vsock.h"
#include "vm/inputlog.h"
#include "vm/machine_record.h"
#include "vm/vm.h"

/* As vm/devices.c lists the types. */
const struct state_record *const machine_records[] = {
	&machine_record,
	&cpu_arch_record,
	&lapic_record,
	&pvclock_record,
	&hyperv_record,
	&hyperv_vp_record,
	&board_record,
	&i8259_record,
	&ioapic_record,
	&i8254_record,
	&mc146818_record,
	&hpet_record,
	&acpi_pm_record,
	&reset_record,
	&uart_record,
	&fwcfg_record,
	&vmgenid_record,
	&vmclock_record,
	&pci_bus_record,
	&hostbridge_record,
	&lpc_record,
	&virtio_blk_record,
	&virtio_9p_record,
	&virtio_rnd_record,
	&virtio_balloon_record,
	&virtio_net_record,
	&virtio_console_record,
	&virtio_vsock_record,
	NULL,
};

/* ---- Making the set ---------------------------------------------------- */

static size_t count_parts(const struct vm *vm)
{
	size_t n = 1 + vm->ncpus;
	const struct device *d;

	for (d = vm->devices; d; d = d->next)
		n += d->type->state != &STATE_NONE;
	return n;
}

/* The next part, with a model of its own; false: no memory. */
static bool add_part(struct machine_state *ms, const struct state_record *r, const char *name)
{
	struct machine_part *p = &ms->parts[ms->nparts];

	p->model = calloc(1, r->model_size);
	if (!p->model)
		return false;
	p->record = r;
	snprintf(p->name, sizeof(p->name), "%s", name);
	ms->nparts++;
	return true;
}

static bool add_parts(struct vm *vm, struct machine_state *ms)
{
	struct device *d;
	char name[16];
	unsigned i;

	if (!add_part(ms, &machine_record, "machine"))
		return false;
	for (i = 0; i < vm->ncpus; i++) {
		snprintf(name, sizeof(name), "cpu.%u", i);
		if (!add_part(ms, &cpu_arch_record, name))
			return false;
		ms->parts[ms->nparts - 1].cpu = i;
	}
	for (d = vm->devices; d; d = d->next) {
		if (d->type->state == &STATE_NONE)
			continue;
		if (!add_part(ms, d->type->state, d->name))
			return false;
		ms->parts[ms->nparts - 1].device = d;
	}
	return true;
}

struct machine_state *machine_state_blank(struct vm *vm, struct skep_error *e)
{
	struct machine_state *ms = calloc(1, sizeof(*ms));

	if (ms)
		ms->parts = calloc(count_parts(vm), sizeof(*ms->parts));
	if (!ms || !ms->parts || !add_parts(vm, ms)) {
		machine_state_free(ms);
		skep_fail(e, ENOMEM, "no memory for the state of the machine");
		return NULL;
	}
	return ms;
}

void machine_state_free(struct machine_state *ms)
{
	size_t i;

	if (!ms)
		return;
	for (i = 0; i < ms->nparts; i++) {
		state_free(ms->parts[i].record, ms->parts[i].model);
		free(ms->parts[i].model);
	}
	free(ms->parts);
	free(ms);
}

struct machine_part *machine_state_find(struct machine_state *ms, const char *name)
{
	size_t i;

	for (i = 0; i < ms->nparts; i++)
		if (!strcmp(ms->parts[i].name, name))
			return &ms->parts[i];
	return NULL;
}

/* ---- Export ------------------------------------------------------------ */

static int export_part(struct vm *vm, struct machine_part *p, struct skep_error *e)
{
	if (p->record == &machine_record)
		return machine_model_export(vm, p->model, e);
	if (p->device)
		p->device->type->export(p->device, p->model);
	else
		vm->vcpus[p->cpu]->ops->get_state(vm->vcpus[p->cpu], p->model);
	return 0;
}

static int validate_all(struct vm *vm, const struct machine_state *ms, struct skep_error *e);

/* What could not be restored is better refused now. */
struct machine_state *machine_state_export(struct vm *vm, struct skep_error *e)
{
	struct machine_state *ms = machine_state_blank(vm, e);
	int err = 0;
	size_t i;

	device_lock(vm);
	if (ms && !vm->has_state)
		err = skep_fail(e, EAGAIN, "the machine was not switched on yet: there is nothing to "
				"save; try again in a moment");
	for (i = 0; ms && !err && i < ms->nparts; i++) {
		err = export_part(vm, &ms->parts[i], e);
		ms->parts[i].filled = !err;
	}
	if (ms && !err)
		err = validate_all(vm, ms, e);
	device_unlock(vm);
	if (err) {
		machine_state_free(ms);
		return NULL;
	}
	return ms;
}

/* ---- Validation -------------------------------------------------------- */

static bool is_ram(void *opaque, uint64_t gpa, uint64_t len)
{
	const struct guest_memory *m = opaque;
	unsigned i;

	for (i = 0; i < m->nram; i++)
		if (gpa >= m->ram[i].gpa && gpa - m->ram[i].gpa <= m->ram[i].size &&
		    len <= m->ram[i].size - (gpa - m->ram[i].gpa))
			return true;
	return false;
}

static int validate_part(struct vm *vm, const struct machine_part *p, struct skep_error *e)
{
	const struct state_context context = { is_ram, &vm->memory };
	int err;

	if (!p->filled)
		return skep_fail(e, EINVAL, "%s: its state is missing", p->name);
	err = state_check(p->record, p->name, p->model, &context, e);
	if (err)
		return err;
	if (p->record == &machine_record)
		return machine_model_validate(vm, p->model, e);
	if (p->device)
		return p->device->type->validate(p->device, p->model, e);
	return vm->vcpus[p->cpu]->ops->check_state(vm->vcpus[p->cpu], p->model, e);
}

/* CR8 and IA32_APIC_BASE are the local APIC's: two records tell them, and must agree. */
static int check_lapic(const struct machine_part *lapic, const struct machine_state *ms,
		       struct skep_error *e)
{
	const struct cpu_arch_state *s = NULL;
	uint64_t base;
	uint8_t tpr;
	size_t i;

	for (i = 0; i < ms->nparts && !s; i++)
		if (ms->parts[i].record == &cpu_arch_record &&
		    ms->parts[i].cpu == lapic_index(lapic->device))
			s = ms->parts[i].model;
	if (!s)
		return 0;
	lapic_model_shared(lapic->model, &base, &tpr);
	if (s->apic_base != base)
		return skep_fail(e, EINVAL, "%s: base %#" PRIx64 " is not the apic_base of its processor, "
				 "%#" PRIx64, lapic->name, base, s->apic_base);
	if (s->cr8 != tpr >> 4)
		return skep_fail(e, EINVAL, "%s: tpr %#x does not fit the cr8 of its processor, %#" PRIx64,
				 lapic->name, tpr, s->cr8);
	return 0;
}

/* Device lock. */
static int validate_all(struct vm *vm, const struct machine_state *ms, struct skep_error *e)
{
	int err = 0;
	size_t i;

	for (i = 0; i < ms->nparts && !err; i++)
		err = validate_part(vm, &ms->parts[i], e);
	for (i = 0; i < ms->nparts && !err; i++)
		if (ms->parts[i].record == &lapic_record)
			err = check_lapic(&ms->parts[i], ms, e);
	return err;
}

int machine_state_validate(struct vm *vm, const struct machine_state *ms, struct skep_error *e)
{
	int err;

	device_lock(vm);
	err = validate_all(vm, ms, e);
	device_unlock(vm);
	return err;
}

/* ---- Commit ------------------------------------------------------------ */

static void commit_cpu(struct vm *vm, const struct machine_part *p)
{
	struct vcpu *v = vm->vcpus[p->cpu];
	struct skep_error e = { .text = "" };

	/* The same checks were made before: this is for a caller who left them out. */
	if (v->ops->set_state(v, p->model, &e) < 0)
		vm_request_error(vm, "%s", e.text);
}

/* What a processor has to look at when it starts, and nothing of what the devices' commits asked. */
static void settle_requests(struct vcpu *v, const struct cpu_arch_state *s)
{
	uint32_t bits = VCPU_REQ_INTR | VCPU_REQ_TLB;

	if (s->init_pending)
		bits |= VCPU_REQ_INIT;
	if (s->sipi_pending)
		bits |= VCPU_REQ_SIPI;
	atomic_store(&v->sipi_vector, s->sipi_vector);
	atomic_fetch_and(&v->requests, VCPU_REQ_STOP | VCPU_REQ_CODE);
	atomic_fetch_or(&v->requests, bits);
	v->ops->kick(v);
}

void machine_state_commit(struct vm *vm, const struct machine_state *ms)
{
	size_t i;

	device_lock(vm);
	for (i = 0; i < ms->nparts; i++) {
		const struct machine_part *p = &ms->parts[i];

		if (p->record == &machine_record)
			machine_model_commit(vm, p->model);
		else if (p->device)
			p->device->type->commit(p->device, p->model);
		else
			commit_cpu(vm, p);
	}
	for (i = 0; i < ms->nparts; i++)
		if (ms->parts[i].record == &cpu_arch_record)
			settle_requests(vm->vcpus[ms->parts[i].cpu], ms->parts[i].model);
	vm->has_state = true;
	device_unlock(vm);
}
