#include "clock/pvclock.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>

#include "chipset/lapic.h"
#include "vm/vm.h"

struct pvclock_model {
	bool time_on;
	uint64_t time;		/* where the time page is; 0 while it is off */
	uint64_t wall;		/* where the wall clock was last asked for, or 0; pv.0's only */
};

struct pvclock {
	struct device dev;
	struct pvclock_model m;
	struct vcpu *v;
};

static const struct state_field fields[] = {
	STATE_BOOL(struct pvclock_model, time_on),
	STATE_GPA(struct pvclock_model, time, .len = PVCLOCK_PAGE_SIZE),
	STATE_GPA(struct pvclock_model, wall, .len = PVCLOCK_WALL_SIZE),
};

const struct state_record pvclock_record = {
	.kind = "pvclock", .version = 1, .model_size = sizeof(struct pvclock_model),
	.fields = fields, .nfields = ARRAY_SIZE(fields),
};

static struct pvclock *of_cpu(struct vcpu *v)
{
	return container_of(v->paravirt, struct pvclock, dev);
}

/* ---- The scale --------------------------------------------------------- */

struct pvclock_scale pvclock_scale(uint32_t tsc_khz)
{
	/* ns a tick is 10^6 / kHz; the shift brings it to between a half and one. */
	struct pvclock_scale s = { .shift = 0 };
	uint64_t num = 1000000, den = tsc_khz;

	while (num >= den) {
		den <<= 1;
		s.shift++;
	}
	while (2 * num < den) {
		num <<= 1;
		s.shift--;
	}
	s.mul = (uint32_t)MIN(((num << 32) + den / 2) / den, (uint64_t)UINT32_MAX);
	return s;
}

uint64_t pvclock_ns(struct pvclock_scale s, uint64_t tsc)
{
	tsc = s.shift < 0 ? tsc >> -s.shift : tsc << s.shift;
	return (uint64_t)((unsigned __int128)tsc * s.mul >> 32);
}

/* ---- Guest memory ------------------------------------------------------ */

static bool is_memory(struct vm *vm, uint64_t gpa, size_t len)
{
	return gpa % 4 == 0 && dma_reaches(&vm->memory, gpa, len);
}

/*
 * The first word is a version, odd while the rest changes, for guests that read meanwhile.  The
 * address was checked when it was given.
 */
static void write_versioned(struct vm *vm, uint64_t gpa, uint8_t *s, size_t len)
{
	uint8_t word[4] = { 0 };
	uint32_t version;

	dma_read(&vm->memory, gpa, word, sizeof(word));
	version = (load32(word) | 1) + (load32(word) & 1) * 2;
	store32(word, version);
	dma_write(&vm->memory, gpa, word, sizeof(word));
	atomic_thread_fence(memory_order_seq_cst);
	dma_write(&vm->memory, gpa + 4, s + 4, len - 4);
	atomic_thread_fence(memory_order_seq_cst);
	store32(word, version + 1);
	dma_write(&vm->memory, gpa, word, sizeof(word));
}

/* flags: besides those that the guest has yet to take note of. */
static void write_time(struct pvclock *p, uint8_t flags)
{
	struct vm *vm = p->dev.vm;
	struct pvclock_scale scale = pvclock_scale(vm->clock.tsc_khz);
	uint8_t s[PVCLOCK_PAGE_SIZE] = { 0 }, old = 0;

	if (!p->m.time_on)
		return;
	dma_read(&vm->memory, p->m.time + 29, &old, 1);
	/* system_time, at 16, is 0. */
	store64(s + 8, p->v->lapic ? lapic_get_tsc_adjust(p->v->lapic) : 0);
	store32(s + 24, scale.mul);
	s[28] = (uint8_t)scale.shift;
	s[29] = flags | PVCLOCK_TSC_STABLE | (old & PVCLOCK_GUEST_STOPPED);
	write_versioned(vm, p->m.time, s, sizeof(s));
}

/* The wall clock at guest ns 0. */
static void write_wall(struct vm *vm, uint64_t gpa)
{
	int64_t base = vm->clock.wall_base, ns = base % NSEC_PER_SEC;
	uint8_t s[PVCLOCK_WALL_SIZE] = { 0 };

	if (ns < 0)
		ns += NSEC_PER_SEC;
	store32(s + 4, (uint32_t)((base - ns) / NSEC_PER_SEC));
	store32(s + 8, (uint32_t)ns);
	write_versioned(vm, gpa, s, sizeof(s));
}

/* ---- MSRs -------------------------------------------------------------- */

static bool set_time(struct pvclock *p, uint64_t value)
{
	uint64_t gpa = value & ~1ull;

	if (!(value & 1)) {
		p->m.time_on = false;
		p->m.time = 0;
		return true;
	}
	if (!is_memory(p->dev.vm, gpa, PVCLOCK_PAGE_SIZE))
		return false;
	p->m.time_on = true;
	p->m.time = gpa;
	/* What was in that memory says nothing. */
	dma_zero(&p->dev.vm->memory, gpa + 4, PVCLOCK_PAGE_SIZE - 4);
	write_time(p, 0);
	return true;
}

static bool set_wall(struct vm *vm, uint64_t gpa)
{
	if (gpa && !is_memory(vm, gpa, PVCLOCK_WALL_SIZE))
		return false;
	of_cpu(vm->vcpus[0])->m.wall = gpa;
	if (gpa)
		write_wall(vm, gpa);
	return true;
}

bool pvclock_msr_read(struct vcpu *v, uint32_t msr, uint64_t *value)
{
	const struct pvclock *p = of_cpu(v);

	switch (msr) {
	case MSR_KVM_WALL_CLOCK_OLD:
	case MSR_KVM_WALL_CLOCK:
		*value = of_cpu(v->vm->vcpus[0])->m.wall;
		return true;
	case MSR_KVM_SYSTEM_TIME_OLD:
	case MSR_KVM_SYSTEM_TIME:
		*value = p->m.time | p->m.time_on;
		return true;
	default:
		return false;
	}
}

bool pvclock_msr_write(struct vcpu *v, uint32_t msr, uint64_t value)
{
	switch (msr) {
	case MSR_KVM_WALL_CLOCK_OLD:
	case MSR_KVM_WALL_CLOCK:
		return set_wall(v->vm, value);
	case MSR_KVM_SYSTEM_TIME_OLD:
	case MSR_KVM_SYSTEM_TIME:
		return set_time(of_cpu(v), value);
	default:
		return false;
	}
}

void pvclock_tsc_moved(struct vcpu *v)
{
	write_time(of_cpu(v), 0);
}

void pvclock_init_cpu(struct vcpu *v)
{
	set_time(of_cpu(v), 0);
}

void pvclock_stood(struct vcpu *v)
{
	write_time(of_cpu(v), PVCLOCK_GUEST_STOPPED);
}

/* ---- The device -------------------------------------------------------- */

static void pvclock_reset(struct device *d)
{
	container_of(d, struct pvclock, dev)->m = (struct pvclock_model){ 0 };
}

static void pvclock_export(const struct device *d, void *model)
{
	*(struct pvclock_model *)model = container_of(d, const struct pvclock, dev)->m;
}

static int pvclock_validate(const struct device *d, const void *model, struct skep_error *e)
{
	const struct pvclock *p = container_of(d, const struct pvclock, dev);
	const struct pvclock_model *m = model;

	if (m->time_on ? !is_memory(d->vm, m->time, PVCLOCK_PAGE_SIZE) : m->time != 0)
		return skep_fail(e, EINVAL, "%s: time %#llx is no place for the page", d->name,
				 (unsigned long long)m->time);
	if (m->wall && (p->v->index || !is_memory(d->vm, m->wall, PVCLOCK_WALL_SIZE)))
		return skep_fail(e, EINVAL, "%s: wall %#llx is no place for the wall clock", d->name,
				 (unsigned long long)m->wall);
	return 0;
}

/* RAM holds the pages, as they were. */
static void pvclock_commit(struct device *d, const void *model)
{
	container_of(d, struct pvclock, dev)->m = *(const struct pvclock_model *)model;
}

static const struct config_schema no_keys;

const struct device_type pvclock_type = {
	.name = "pvclock",
	.help = "kvmclock of a processor",
	.config = &no_keys,
	.state = &pvclock_record,
	.size = sizeof(struct pvclock),
	.init = device_init_nothing,
	.finish = device_nop,
	.reset = pvclock_reset,
	.quiesce = device_nop,
	.resume = device_nop,
	.export = pvclock_export,
	.validate = pvclock_validate,
	.commit = pvclock_commit,
};

int pvclock_create(struct vcpu *v, struct skep_error *e)
{
	struct device *d;
	char name[sizeof(d->name)];

	snprintf(name, sizeof(name), "pv.%u", v->index);
	d = device_create(v->vm, &pvclock_type, name, NULL, e);
	if (!d)
		return -ENOMEM;
	container_of(d, struct pvclock, dev)->v = v;
	v->paravirt = d;
	return 0;
}
