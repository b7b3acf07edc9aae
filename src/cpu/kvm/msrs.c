/*
 * Model-specific registers: those of the state record, which the kernel keeps, and those that come
 * to us because an identity, or the contract of the CPU model, is ours.
 */
#include "cpu/kvm/kvm.h"

#include <errno.h>
#include <string.h>

#include "chipset/lapic.h"
#include "cpu/soft/msr.h"
#include "vm/vm.h"

#define MSR_MCG_CAP	0x179u
#define MSR_MCG_STATUS	0x17au
#define MSR_SPEC_CTRL_RESET 0
#define PARAVIRT_KVM	0x4b564d00u
#define PARAVIRT_HYPERV	0x40000000u

/* ---- Access --------------------------------------------------------------- */

struct one_msr {
	struct kvm_msrs head;
	struct kvm_msr_entry entry;
};

int kvm_msr_get(struct kvm_cpu *k, uint32_t number, uint64_t *value)
{
	struct one_msr q = { .head.nmsrs = 1, .entry.index = number };
	int n = kvm_call(k->fd, KVM_GET_MSRS, &q);

	*value = q.entry.data;
	return n == 1 ? 0 : n < 0 ? n : -ENOENT;
}

int kvm_msr_set(struct kvm_cpu *k, uint32_t number, uint64_t value)
{
	struct one_msr q = { .head.nmsrs = 1, .entry = { .index = number, .data = value } };
	int n = kvm_call(k->fd, KVM_SET_MSRS, &q);

	/* The count of those that it took: none. */
	return n == 1 ? 0 : n < 0 ? n : -EINVAL;
}

/* ---- Those of the state record ----------------------------------------------- */

static void add_msr(struct kvm_machine *m, uint32_t number, size_t field, const char *name,
		    uint64_t keep)
{
	if (m->nmsrs < KVM_MSRS_MAX)
		m->msrs[m->nmsrs++] = (struct kvm_msr_field){ .number = number, .field = field,
							      .name = name, .keep = keep };
}

static void list_msrs(struct kvm_machine *m)
{
	for (unsigned i = 0; i < soft_nmsrs; i++)
		if (soft_msrs[i].is_field)
			add_msr(m, soft_msrs[i].number, soft_msrs[i].field, soft_msrs[i].name,
				soft_msrs[i].keep ? soft_msrs[i].keep | soft_msrs[i].always : UINT64_MAX);
	for (unsigned i = 0; i < 8; i++) {
		add_msr(m, MSR_MTRR_VAR + 2 * i, offsetof(struct cpu_arch_state, mtrr_var_base[i]),
			"mtrr_var_base", UINT64_MAX);
		add_msr(m, MSR_MTRR_VAR + 2 * i + 1, offsetof(struct cpu_arch_state, mtrr_var_mask[i]),
			"mtrr_var_mask", UINT64_MAX);
	}
	add_msr(m, MSR_TSC_ADJUST, offsetof(struct cpu_arch_state, tsc_adjust), "tsc_adjust",
		UINT64_MAX);
}

static uint64_t *field_of(const struct kvm_msr_field *f, struct cpu_arch_state *s)
{
	return (uint64_t *)((char *)s + f->field);
}

static uint64_t value_of(const struct kvm_msr_field *f, const struct cpu_arch_state *s)
{
	uint64_t v;

	memcpy(&v, (const char *)s + f->field, sizeof(v));
	return v;
}

struct msr_list {
	struct kvm_msrs head;
	struct kvm_msr_entry at[KVM_MSRS_MAX];
};

int kvm_msrs_find(struct kvm_cpu *k, struct skep_error *e)
{
	struct kvm_machine *m = k->m;
	struct msr_list q = { .head.nmsrs = 0 };
	unsigned i = 0, n;
	int got;

	if (m->nmsrs)
		return 0;
	list_msrs(m);
	/* The kernel stops at the first that it has not: begin again behind that one. */
	while (i < m->nmsrs) {
		for (n = 0; i + n < m->nmsrs; n++)
			q.at[n].index = m->msrs[i + n].number;
		q.head.nmsrs = n;
		got = kvm_call(k->fd, KVM_GET_MSRS, &q);
		if (got < 0)
			return kvm_fail(e, got, "KVM_GET_MSRS");
		for (n = 0; n < (unsigned)got && i < m->nmsrs; n++)
			m->msrs[i++].here = true;
		i++;
	}
	return 0;
}

int kvm_msrs_get(struct kvm_cpu *k, struct cpu_arch_state *s)
{
	const struct kvm_machine *m = k->m;
	struct msr_list q = { .head.nmsrs = 0 };
	unsigned i, n = 0;
	int got;

	for (i = 0; i < m->nmsrs; i++)
		if (m->msrs[i].here)
			q.at[n++].index = m->msrs[i].number;
	q.head.nmsrs = n;
	got = kvm_call(k->fd, KVM_GET_MSRS, &q);
	if (got != (int)n)
		return got < 0 ? got : -ENOENT;
	for (i = n = 0; i < m->nmsrs; i++)
		*field_of(&m->msrs[i], s) = m->msrs[i].here ? q.at[n++].data & m->msrs[i].keep :
					    k->missing[i];
	return 0;
}

int kvm_msrs_check(struct kvm_cpu *k, const struct cpu_arch_state *s, struct skep_error *e)
{
	const struct kvm_machine *m = k->m;

	/* One that the host has not must be as after a reset: then nothing is lost. */
	for (unsigned i = 0; i < m->nmsrs; i++)
		if (!m->msrs[i].here && value_of(&m->msrs[i], s))
			return skep_fail(e, ENOTSUP, "cpu: this host's KVM has no MSR %s (%#x), which is %#llx in "
					 "the state; restore it with backend=soft", m->msrs[i].name,
					 m->msrs[i].number, (unsigned long long)value_of(&m->msrs[i], s));
	return 0;
}

int kvm_msrs_set(struct kvm_cpu *k, const struct cpu_arch_state *s, struct skep_error *e)
{
	const struct kvm_machine *m = k->m;
	struct msr_list q = { .head.nmsrs = 0 };
	unsigned i, n = 0;
	int took;

	for (i = 0; i < m->nmsrs; i++) {
		k->missing[i] = value_of(&m->msrs[i], s);
		if (m->msrs[i].here)
			q.at[n++] = (struct kvm_msr_entry){ .index = m->msrs[i].number,
							    .data = value_of(&m->msrs[i], s) };
	}
	q.head.nmsrs = n;
	took = kvm_call(k->fd, KVM_SET_MSRS, &q);
	if (took < 0)
		return kvm_fail(e, took, "KVM_SET_MSRS");
	if (took < (int)n)
		return skep_fail(e, EINVAL, "backend=kvm: this host's KVM refuses %#llx for MSR %#x",
				 (unsigned long long)q.at[took].data, q.at[took].index);
	return 0;
}

/* ---- Those that come to us ---------------------------------------------------- */

int kvm_msrs_filter(struct kvm_machine *m, struct skep_error *e)
{
	/* All zero: none of them is the kernel's. */
	static uint8_t ours[0x1000 / 8];
	static const struct { uint32_t base, n; } ranges[] = {
		{ 0x11, 2 },			/* kvmclock, the old pair */
		{ PARAVIRT_KVM, 0x100 },
		{ PARAVIRT_HYPERV, 0x1000 },
		{ MSR_MCG_CAP, 3 },		/* machine checks: the model has no banks */
	};
	struct kvm_msr_filter f = { .flags = KVM_MSR_FILTER_DEFAULT_ALLOW };
	int err;

	for (unsigned i = 0; i < ARRAY_SIZE(ranges); i++)
		f.ranges[i] = (struct kvm_msr_filter_range){
			.flags = KVM_MSR_FILTER_READ | KVM_MSR_FILTER_WRITE,
			.base = ranges[i].base, .nmsrs = ranges[i].n, .bitmap = ours,
		};
	err = kvm_call(m->fd, KVM_X86_SET_MSR_FILTER, &f);
	return err < 0 ? kvm_fail(e, err, "KVM_X86_SET_MSR_FILTER") : 0;
}

/* What a paravirtual clock must know of this processor: how far its TSC is from guest time. */
static void tell_adjust(struct kvm_cpu *k)
{
	uint64_t adjust;

	if (k->v->lapic && !kvm_msr_get(k, MSR_TSC_ADJUST, &adjust))
		lapic_set_tsc_adjust(k->v->lapic, adjust + k->m->tsc_skew);
}

/* False: #GP. */
static bool msr_access(struct kvm_cpu *k, uint32_t number, bool write, uint64_t *value)
{
	bool ok;

	if (paravirt_owns(k->m->vm, number)) {
		device_lock(k->m->vm);
		tell_adjust(k);
		ok = write ? paravirt_msr_write(k->v, number, *value) :
			     paravirt_msr_read(k->v, number, value);
		device_unlock(k->m->vm);
		return ok;
	}
	if (number != MSR_MCG_STATUS && (number != MSR_MCG_CAP || write))
		return false;
	if (write)
		return !*value;
	*value = 0;
	return true;
}

void kvm_exit_msr(struct kvm_cpu *k, bool write)
{
	struct kvm_run *run = k->run;
	uint64_t value = run->msr.data;

	KVM_COUNT(k, msr);
	run->msr.error = !msr_access(k, run->msr.index, write, &value);
	if (!write && !run->msr.error)
		run->msr.data = value;
}
