#include "clock/hyperv.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>

#include "chipset/lapic.h"
#include "vm/vm.h"

#define PAGE		GUEST_PAGE_SIZE
#define APIC_HZ		1000000000ull	/* chipset/lapic_timer.c: guest ns */

struct hyperv_model {
	uint64_t guest_os_id;
	bool hypercall_on, hypercall_locked;
	uint64_t hypercall_page;	/* the pages are 0 while they are off */
	bool tsc_on;
	uint64_t tsc_page;
	uint32_t tsc_sequence;		/* of the page, the last time that it was valid */
	bool tsc_invariant;
};

struct hyperv {
	struct device dev;
	struct hyperv_model m;
};

struct hyperv_vp_model {
	bool assist_on;
	uint64_t assist_page;
};

struct hyperv_vp {
	struct device dev;
	struct hyperv_vp_model m;
};

static const struct state_field fields[] = {
	STATE_U64(struct hyperv_model, guest_os_id),
	STATE_BOOL(struct hyperv_model, hypercall_on),
	STATE_BOOL(struct hyperv_model, hypercall_locked),
	STATE_GPA(struct hyperv_model, hypercall_page, .len = PAGE),
	STATE_BOOL(struct hyperv_model, tsc_on),
	STATE_GPA(struct hyperv_model, tsc_page, .len = PAGE),
	STATE_U32(struct hyperv_model, tsc_sequence, .max = UINT32_MAX - 1),
	STATE_BOOL(struct hyperv_model, tsc_invariant),
};

const struct state_record hyperv_record = {
	.kind = "hyperv", .version = 1, .model_size = sizeof(struct hyperv_model),
	.fields = fields, .nfields = ARRAY_SIZE(fields),
};

static const struct state_field vp_fields[] = {
	STATE_BOOL(struct hyperv_vp_model, assist_on),
	STATE_GPA(struct hyperv_vp_model, assist_page, .len = PAGE),
};

const struct state_record hyperv_vp_record = {
	.kind = "hyperv-vp", .version = 1, .model_size = sizeof(struct hyperv_vp_model),
	.fields = vp_fields, .nfields = ARRAY_SIZE(vp_fields),
};

static struct hyperv *of_vm(const struct vm *vm)
{
	return container_of(vm->paravirt, struct hyperv, dev);
}

static struct hyperv_vp *of_cpu(struct vcpu *v)
{
	return container_of(v->paravirt, struct hyperv_vp, dev);
}

static bool is_page(struct vm *vm, uint64_t gpa)
{
	return gpa % PAGE == 0 && dma_reaches(&vm->memory, gpa, PAGE);
}

/* ---- The reference TSC page -------------------------------------------- */

uint64_t hyperv_tsc_scale(uint32_t tsc_khz)
{
	const uint32_t tick_khz = HV_TICKS_HZ / 1000;

	if (tsc_khz <= tick_khz)
		return 0;
	return (uint64_t)((((unsigned __int128)tick_khz << 64) + tsc_khz - 1) / tsc_khz);
}

/* One page is for all processors: only if all their TSCs read the same. */
static bool one_tsc(struct vm *vm, uint64_t *adjust)
{
	unsigned i;

	*adjust = vm->vcpus[0]->lapic ? lapic_get_tsc_adjust(vm->vcpus[0]->lapic) : 0;
	for (i = 1; i < vm->ncpus; i++)
		if (vm->vcpus[i]->lapic && lapic_get_tsc_adjust(vm->vcpus[i]->lapic) != *adjust)
			return false;
	return true;
}

/* 0 says that the page is not valid, and all ones is not used by whoever remembers that. */
static uint32_t next_sequence(uint32_t sequence)
{
	return sequence >= UINT32_MAX - 1 ? 1 : sequence + 1;
}

static void write_sequence(struct hyperv *h, uint32_t sequence)
{
	uint8_t word[4];

	store32(word, sequence);
	dma_write(&h->dev.vm->memory, h->m.tsc_page, word, sizeof(word));
	atomic_thread_fence(memory_order_seq_cst);
}

static uint64_t scaled(uint64_t tsc, uint64_t scale)
{
	return (uint64_t)((unsigned __int128)tsc * scale >> 64);
}

/*
 * What is added to the scaled TSC; false: no page can say it, since the TSC was moved to before
 * its own zero, which it is yet to pass.
 */
static bool tsc_offset(struct vm *vm, uint64_t scale, uint64_t *offset)
{
	uint64_t adjust;

	if (!one_tsc(vm, &adjust))
		return false;
	if (clock_tsc(&vm->clock) + adjust < adjust) {
		*offset = scaled(-adjust, scale);	/* moved back */
		return true;
	}
	*offset = -scaled(adjust, scale);
	return adjust < 3ull << 62;
}

/* Processors may read meanwhile: it is invalid first. */
static void write_tsc_page(struct hyperv *h)
{
	struct vm *vm = h->dev.vm;
	uint64_t scale = hyperv_tsc_scale(vm->clock.tsc_khz), offset;
	uint8_t s[16];

	if (!h->m.tsc_on)
		return;
	write_sequence(h, 0);
	if (!scale || !tsc_offset(vm, scale, &offset))
		return;
	store64(s, scale);
	store64(s + 8, offset);
	dma_write(&vm->memory, h->m.tsc_page + 8, s, sizeof(s));
	atomic_thread_fence(memory_order_seq_cst);
	h->m.tsc_sequence = next_sequence(h->m.tsc_sequence);
	write_sequence(h, h->m.tsc_sequence);
}

void hyperv_tsc_moved(struct vm *vm)
{
	write_tsc_page(of_vm(vm));
}

void hyperv_restored(struct vm *vm)
{
	write_tsc_page(of_vm(vm));
}

/* ---- MSRs of the partition --------------------------------------------- */

#define PAGE_MSR_ON	1ull
#define PAGE_MSR_ADDRESS (~(PAGE - 1))

static bool set_guest_os_id(struct hyperv *h, uint64_t value)
{
	h->m.guest_os_id = value;
	/* A guest without a name makes no calls. */
	if (!value && !h->m.hypercall_locked) {
		h->m.hypercall_on = false;
		h->m.hypercall_page = 0;
	}
	return true;
}

/* VMCALL; RET. */
static const uint8_t hypercall_code[] = { 0x0f, 0x01, 0xc1, 0xc3 };

static bool set_hypercall(struct hyperv *h, uint64_t value)
{
	uint64_t gpa = value & PAGE_MSR_ADDRESS;
	bool on = value & PAGE_MSR_ON;

	/* Locked until the machine is reset; and nothing is switched on before there is a name. */
	if (h->m.hypercall_locked || (on && !h->m.guest_os_id))
		return true;
	if (on && !is_page(h->dev.vm, gpa))
		return false;
	h->m.hypercall_on = on;
	h->m.hypercall_page = on ? gpa : 0;
	h->m.hypercall_locked = value & 2;
	if (on)
		dma_write(&h->dev.vm->memory, gpa, hypercall_code, sizeof(hypercall_code));
	return true;
}

static bool set_tsc_page(struct hyperv *h, uint64_t value)
{
	uint64_t gpa = value & PAGE_MSR_ADDRESS;
	bool on = value & PAGE_MSR_ON;

	if (on && !is_page(h->dev.vm, gpa))
		return false;
	h->m.tsc_on = on;
	h->m.tsc_page = on ? gpa : 0;
	if (on)
		dma_zero(&h->dev.vm->memory, gpa, PAGE);
	write_tsc_page(h);
	return true;
}

static bool set_assist(struct hyperv_vp *p, uint64_t value)
{
	uint64_t gpa = value & PAGE_MSR_ADDRESS;
	bool on = value & PAGE_MSR_ON;

	if (on && !is_page(p->dev.vm, gpa))
		return false;
	p->m.assist_on = on;
	p->m.assist_page = on ? gpa : 0;
	/* No end of interrupt may be left out; the rest of the page is the guest's. */
	if (on)
		dma_zero(&p->dev.vm->memory, gpa, 4);
	return true;
}

/* ---- MSRs of the local APIC -------------------------------------------- */

static bool apic_read(struct lapic *a, unsigned reg, uint64_t *value)
{
	if (lapic_get_base(a) & BIT(10))
		return lapic_msr_read(a, 0x800 + reg, value);
	*value = lapic_mmio_read(a, reg << 4, 4);
	if (reg == 0x30)
		*value |= lapic_mmio_read(a, 0x310, 4) << 32;
	return true;
}

static bool apic_write(struct lapic *a, unsigned reg, uint64_t value)
{
	if (lapic_get_base(a) & BIT(10))
		return lapic_msr_write(a, 0x800 + reg, value);
	if (reg == 0x30)
		lapic_mmio_write(a, 0x310, 4, value >> 32);
	lapic_mmio_write(a, reg << 4, 4, (uint32_t)value);
	return true;
}

/* ---- Access ------------------------------------------------------------ */

bool hyperv_msr_read(struct vcpu *v, uint32_t msr, uint64_t *value)
{
	const struct hyperv_model *m = &of_vm(v->vm)->m;
	const struct hyperv_vp_model *vp = &of_cpu(v)->m;

	switch (msr) {
	case HV_MSR_GUEST_OS_ID:
		*value = m->guest_os_id;
		return true;
	case HV_MSR_HYPERCALL:
		*value = m->hypercall_page | (uint64_t)m->hypercall_locked << 1 | m->hypercall_on;
		return true;
	case HV_MSR_VP_INDEX:
		*value = v->index;
		return true;
	case HV_MSR_TIME_REF_COUNT:
		*value = clock_ticks(clock_now(&v->vm->clock), HV_TICKS_HZ);
		return true;
	case HV_MSR_REFERENCE_TSC:
		*value = m->tsc_page | m->tsc_on;
		return true;
	case HV_MSR_TSC_FREQUENCY:
		*value = v->vm->clock.tsc_khz * 1000ull;
		return true;
	case HV_MSR_APIC_FREQUENCY:
		*value = APIC_HZ;
		return true;
	case HV_MSR_ICR:
		return apic_read(v->lapic, 0x30, value);
	case HV_MSR_TPR:
		return apic_read(v->lapic, 0x08, value);
	case HV_MSR_VP_ASSIST:
		*value = vp->assist_page | vp->assist_on;
		return true;
	case HV_MSR_TSC_INVARIANT:
		*value = m->tsc_invariant;
		return true;
	default:
		return false;
	}
}

bool hyperv_msr_write(struct vcpu *v, uint32_t msr, uint64_t value)
{
	struct hyperv *h = of_vm(v->vm);

	switch (msr) {
	case HV_MSR_GUEST_OS_ID:
		return set_guest_os_id(h, value);
	case HV_MSR_HYPERCALL:
		return set_hypercall(h, value);
	case HV_MSR_REFERENCE_TSC:
		return set_tsc_page(h, value);
	case HV_MSR_EOI:
		return apic_write(v->lapic, 0x0b, 0);
	case HV_MSR_ICR:
		return apic_write(v->lapic, 0x30, value);
	case HV_MSR_TPR:
		return !(value & ~0xffull) && apic_write(v->lapic, 0x08, value);
	case HV_MSR_VP_ASSIST:
		return set_assist(of_cpu(v), value);
	case HV_MSR_TSC_INVARIANT:
		if (value & ~1ull)
			return false;
		h->m.tsc_invariant = value;
		return true;
	default:
		return false;
	}
}

bool hyperv_hypercalls(const struct vm *vm)
{
	return of_vm(vm)->m.hypercall_on;
}

bool hyperv_invariant_tsc(const struct vm *vm)
{
	return of_vm(vm)->m.tsc_invariant;
}

void hyperv_init_cpu(struct vcpu *v)
{
	of_cpu(v)->m = (struct hyperv_vp_model){ 0 };
}

/* ---- The devices ------------------------------------------------------- */

static void hyperv_reset(struct device *d)
{
	container_of(d, struct hyperv, dev)->m = (struct hyperv_model){ 0 };
}

static void hyperv_export(const struct device *d, void *model)
{
	*(struct hyperv_model *)model = container_of(d, const struct hyperv, dev)->m;
}

static int check_page(const struct device *d, const char *what, bool on, uint64_t gpa,
		      struct skep_error *e)
{
	if (on ? is_page(d->vm, gpa) : !gpa)
		return 0;
	return skep_fail(e, EINVAL, "%s: %s %#llx is no place for that page", d->name, what,
			 (unsigned long long)gpa);
}

static int hyperv_validate(const struct device *d, const void *model, struct skep_error *e)
{
	const struct hyperv_model *m = model;
	int err = check_page(d, "hypercall_page", m->hypercall_on, m->hypercall_page, e);

	if (!err && m->hypercall_on && !m->guest_os_id && !m->hypercall_locked)
		err = skep_fail(e, EINVAL, "%s: hypercall_on needs a guest_os_id", d->name);
	return err ? err : check_page(d, "tsc_page", m->tsc_on, m->tsc_page, e);
}

/* RAM holds the pages, as they were. */
static void hyperv_commit(struct device *d, const void *model)
{
	container_of(d, struct hyperv, dev)->m = *(const struct hyperv_model *)model;
}

static void vp_reset(struct device *d)
{
	container_of(d, struct hyperv_vp, dev)->m = (struct hyperv_vp_model){ 0 };
}

static void vp_export(const struct device *d, void *model)
{
	*(struct hyperv_vp_model *)model = container_of(d, const struct hyperv_vp, dev)->m;
}

static int vp_validate(const struct device *d, const void *model, struct skep_error *e)
{
	const struct hyperv_vp_model *m = model;

	return check_page(d, "assist_page", m->assist_on, m->assist_page, e);
}

static void vp_commit(struct device *d, const void *model)
{
	container_of(d, struct hyperv_vp, dev)->m = *(const struct hyperv_vp_model *)model;
}

static const struct config_schema no_keys;

const struct device_type hyperv_type = {
	.name = "hyperv",
	.help = "Hyper-V's clocks and hypercall page",
	.config = &no_keys,
	.state = &hyperv_record,
	.size = sizeof(struct hyperv),
	.init = device_init_nothing,
	.finish = device_nop,
	.reset = hyperv_reset,
	.quiesce = device_nop,
	.resume = device_nop,
	.export = hyperv_export,
	.validate = hyperv_validate,
	.commit = hyperv_commit,
};

const struct device_type hyperv_vp_type = {
	.name = "hyperv-vp",
	.help = "Hyper-V's part of a processor",
	.config = &no_keys,
	.state = &hyperv_vp_record,
	.size = sizeof(struct hyperv_vp),
	.init = device_init_nothing,
	.finish = device_nop,
	.reset = vp_reset,
	.quiesce = device_nop,
	.resume = device_nop,
	.export = vp_export,
	.validate = vp_validate,
	.commit = vp_commit,
};

int hyperv_create(struct vm *vm, struct skep_error *e)
{
	char name[sizeof(vm->paravirt->name)];
	unsigned i;

	vm->paravirt = device_create(vm, &hyperv_type, "hyperv", NULL, e);
	for (i = 0; vm->paravirt && i < vm->ncpus; i++) {
		snprintf(name, sizeof(name), "hv.%u", i);
		vm->vcpus[i]->paravirt = device_create(vm, &hyperv_vp_type, name, NULL, e);
		if (!vm->vcpus[i]->paravirt)
			return -ENOMEM;
	}
	return vm->paravirt ? 0 : -ENOMEM;
}
