#include "clock/paravirt.h"

#include "clock/hyperv.h"
#include "clock/pvclock.h"
#include "vm/vm.h"

#define KVM_ENOSYS	1000ull
#define KVM_EPERM	1ull

#define TEXT4(a, b, c, d) ((uint32_t)(a) | (uint32_t)(b) << 8 | (uint32_t)(c) << 16 | \
			   (uint32_t)(d) << 24)

const char *const identity_names[] = { "none", "bhyve", "kvm", "hyperv", NULL };

enum vm_identity identity_find(const char *name)
{
	unsigned i;

	for (i = 0; name && identity_names[i]; i++)
		if (!strcmp(identity_names[i], name))
			return (enum vm_identity)i;
	return IDENTITY_NONE;
}

/* ---- CPUID ------------------------------------------------------------- */

#define LEAF_BASE	0x40000000u
#define LEAF_FREQUENCY	0x40000010u	/* kHz of TSC and APIC timer, as VMware has it */

struct leaf {
	uint32_t leaf, out[4];
};

static const struct leaf none_leaves[] = {
	{ LEAF_BASE, { LEAF_FREQUENCY, TEXT4('s', 'k', 'e', 'p'), TEXT4('s', 'k', 'e', 'p'),
		       TEXT4('s', 'k', 'e', 'p') } },
	{ LEAF_FREQUENCY, { 0, 1000000, 0, 0 } },
	{ 0 },
};

static const struct leaf bhyve_leaves[] = {
	{ LEAF_BASE, { LEAF_FREQUENCY, TEXT4('b', 'h', 'y', 'v'), TEXT4('e', ' ', 'b', 'h'),
		       TEXT4('y', 'v', 'e', ' ') } },
	{ LEAF_FREQUENCY, { 0, 1000000, 0, 0 } },
	{ 0 },
};

static const struct leaf kvm_leaves[] = {
	{ LEAF_BASE, { LEAF_FREQUENCY, TEXT4('K', 'V', 'M', 'K'), TEXT4('V', 'M', 'K', 'V'),
		       TEXT4('M', 0, 0, 0) } },
	{ 0x40000001, { KVM_FEATURE_CLOCKSOURCE | KVM_FEATURE_NOP_IO_DELAY |
			KVM_FEATURE_CLOCKSOURCE2 | KVM_FEATURE_MSI_EXT_DEST_ID |
			KVM_FEATURE_CLOCKSOURCE_STABLE, 0, 0, 0 } },
	{ LEAF_FREQUENCY, { 0, 1000000, 0, 0 } },
	{ 0 },
};

static const struct leaf hyperv_leaves[] = {
	{ LEAF_BASE, { 0x40000006, TEXT4('M', 'i', 'c', 'r'), TEXT4('o', 's', 'o', 'f'),
		       TEXT4('t', ' ', 'H', 'v') } },
	{ 0x40000001, { TEXT4('H', 'v', '#', '1'), 0, 0, 0 } },
	/* Guests want a version that they know: 10.0, build 14393. */
	{ 0x40000002, { 14393, 10u << 16, 0, 0 } },
	{ 0x40000003, { HV_ACCESS_TIME_REF_COUNT | HV_ACCESS_APIC | HV_ACCESS_HYPERCALL |
			HV_ACCESS_VP_INDEX | HV_ACCESS_REFERENCE_TSC | HV_ACCESS_FREQUENCY |
			HV_ACCESS_TSC_INVARIANT, 0, 0, HV_FEATURE_FREQUENCY } },
	/* EBX: a processor that spins says so to nobody. */
	{ 0x40000004, { HV_HINT_RELAXED_TIMING, UINT32_MAX, 0, 0 } },
	{ 0x40000005, { VM_MAX_CPUS, VM_MAX_CPUS, 0, 0 } },
	{ 0x40000006, { 0, 0, 0, 0 } },
	{ 0 },
};

bool identity_cpuid(const struct vm *vm, uint32_t leaf, uint32_t out[4])
{
	static const struct leaf *const leaves[] = {
		[IDENTITY_NONE] = none_leaves, [IDENTITY_BHYVE] = bhyve_leaves,
		[IDENTITY_KVM] = kvm_leaves, [IDENTITY_HYPERV] = hyperv_leaves,
	};
	const struct leaf *l = leaves[vm->identity];

	if (leaf < LEAF_BASE || leaf > l->out[0])
		return false;
	memset(out, 0, 4 * sizeof(*out));
	for (; l->leaf; l++)
		if (l->leaf == leaf)
			memcpy(out, l->out, sizeof(l->out));
	if (leaf == LEAF_FREQUENCY)
		out[0] = vm->clock.tsc_khz;
	return true;
}

bool identity_wide_destinations(const struct vm *vm)
{
	return vm->identity == IDENTITY_KVM;
}

bool identity_invariant_tsc(struct vm *vm)
{
	bool there;

	if (vm->identity != IDENTITY_HYPERV)
		return true;
	device_lock(vm);
	there = hyperv_invariant_tsc(vm);
	device_unlock(vm);
	return there;
}

/* ---- The identity's own ------------------------------------------------ */

int paravirt_create(struct vm *vm, struct skep_error *e)
{
	unsigned i;
	int err = 0;

	if (vm->identity == IDENTITY_HYPERV)
		return hyperv_create(vm, e);
	for (i = 0; vm->identity == IDENTITY_KVM && i < vm->ncpus && !err; i++)
		err = pvclock_create(vm->vcpus[i], e);
	return err;
}

bool paravirt_owns(const struct vm *vm, uint32_t msr)
{
	switch (vm->identity) {
	case IDENTITY_KVM:
		return msr == MSR_KVM_WALL_CLOCK_OLD || msr == MSR_KVM_SYSTEM_TIME_OLD ||
		       (msr >= MSR_KVM_WALL_CLOCK && msr <= MSR_KVM_LAST);
	case IDENTITY_HYPERV:
		return msr >= HV_MSR_GUEST_OS_ID && msr <= HV_MSR_LAST;
	default:
		return false;
	}
}

bool paravirt_msr_read(struct vcpu *v, uint32_t msr, uint64_t *value)
{
	if (v->vm->identity == IDENTITY_KVM)
		return pvclock_msr_read(v, msr, value);
	return hyperv_msr_read(v, msr, value);
}

bool paravirt_msr_write(struct vcpu *v, uint32_t msr, uint64_t value)
{
	if (v->vm->identity == IDENTITY_KVM)
		return pvclock_msr_write(v, msr, value);
	return hyperv_msr_write(v, msr, value);
}

bool paravirt_hypercall(struct vcpu *v, unsigned cpl, uint64_t *result)
{
	bool on = false;

	switch (v->vm->identity) {
	case IDENTITY_KVM:
		*result = -(cpl ? KVM_EPERM : KVM_ENOSYS);
		return true;
	case IDENTITY_HYPERV:
		device_lock(v->vm);
		on = hyperv_hypercalls(v->vm);
		device_unlock(v->vm);
		*result = HV_INVALID_HYPERCALL_CODE;
		return on && !cpl;
	default:
		return false;
	}
}

void paravirt_tsc_moved(struct vcpu *v)
{
	if (v->vm->identity == IDENTITY_KVM)
		pvclock_tsc_moved(v);
	else if (v->vm->identity == IDENTITY_HYPERV)
		hyperv_tsc_moved(v->vm);
}

void paravirt_init_cpu(struct vcpu *v)
{
	if (v->vm->identity == IDENTITY_KVM)
		pvclock_init_cpu(v);
	else if (v->vm->identity == IDENTITY_HYPERV)
		hyperv_init_cpu(v);
}

static void tell_stood(struct vm *vm)
{
	unsigned i;

	for (i = 0; vm->identity == IDENTITY_KVM && i < vm->ncpus; i++)
		pvclock_stood(vm->vcpus[i]);
}

void paravirt_stood(struct vm *vm)
{
	if (vm->clock.mode != CLOCK_MODE_VIRTUAL)
		tell_stood(vm);
}

void paravirt_restored(struct vm *vm)
{
	if (vm->identity == IDENTITY_HYPERV)
		hyperv_restored(vm);
	tell_stood(vm);
}
