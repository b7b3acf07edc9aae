/*
 * The local APIC: the kernel's page of registers, the record's model, and who has it when.
 *
 * The kernel's timer counts real time, also while the machine stands.  So what is due is noted as guest
 * time, on the processor's thread when it stops, and a count is made of it again when it goes on.  A
 * timer that is due is delivered when the processor next enters the guest: between the last look at
 * it and the stop one may have come due, which the registers do not show, and the host's own timer
 * behind it may be late.  So where a one-shot timer stands at 0 and its interrupt is neither requested
 * nor in service, the kernel is made to look once more, and then the guest goes on for some
 * milliseconds (kvm_settle): what has not come by then was delivered before.
 */
#include "cpu/kvm/kvm.h"

#include <errno.h>
#include <string.h>

#include "chipset/lapic_model.h"
#include "chipset/lapic.h"
#include "cpu/soft/msr.h"
#include "vm/topology.h"
#include "vm/vm.h"

#define PAGE_REG(page, n) ((uint8_t *)(page)->regs + 16 * (n))
#define LVT_MODE_TIMER(lvt) ((lvt) >> 17 & 3)

static uint32_t reg_get(const struct kvm_lapic_state *page, unsigned n)
{
	return load32(PAGE_REG(page, n));
}

static void reg_put(struct kvm_lapic_state *page, unsigned n, uint32_t v)
{
	store32(PAGE_REG(page, n), v);
}

static bool bit_of(const uint32_t *set, uint8_t n)
{
	return set[n / 32] >> n % 32 & 1;
}

static void bit_move(uint32_t *from, uint32_t *to, uint8_t n)
{
	from[n / 32] &= ~(1u << n % 32);
	to[n / 32] |= 1u << n % 32;
}

static int read_page(struct kvm_cpu *k, struct kvm_lapic_state *page)
{
	return kvm_call(k->fd, KVM_GET_LAPIC, page);
}

static bool page_bit(const struct kvm_lapic_state *page, unsigned set, uint8_t n)
{
	return reg_get(page, set + n / 32) >> n % 32 & 1;
}

bool kvm_in_service(struct kvm_cpu *k, uint8_t vector)
{
	struct kvm_lapic_state page;

	return read_page(k, &page) >= 0 && page_bit(&page, REG_ISR, vector);
}

/* ---- The timer ---------------------------------------------------------------- */

/* Has it ended, and perhaps not been delivered? */
static bool stands_at_zero(const struct kvm_lapic_state *page)
{
	uint32_t lvt = reg_get(page, REG_LVT);

	return LVT_MODE_TIMER(lvt) != TIMER_DEADLINE && !(lvt & LVT_MASKED) &&
	       reg_get(page, REG_INITIAL) && !reg_get(page, REG_CURRENT) &&
	       !page_bit(page, REG_IRR, (uint8_t)lvt) && !page_bit(page, REG_ISR, (uint8_t)lvt);
}

int kvm_timer_note(struct kvm_cpu *k, struct skep_error *e)
{
	struct kvm_lapic_state page;
	int err = read_page(k, &page);

	if (err >= 0 && stands_at_zero(&page)) {
		err = kvm_run_signalled(k->fd);
		if (err == -EINTR || err == -EAGAIN)
			err = 0;
		if (!err)
			err = read_page(k, &page);
	}
	if (err < 0)
		return kvm_fail(e, err, "KVM_GET_LAPIC");
	k->timer_due = 0;
	if (reg_get(&page, REG_CURRENT))
		k->timer_due = clock_now(&k->m->vm->clock) + ((int64_t)reg_get(&page, REG_CURRENT) <<
			       lapic_divide_shift(reg_get(&page, REG_DIVIDE)));
	for (unsigned i = 0; i < ARRAY_SIZE(k->irr); i++)
		k->irr[i] = reg_get(&page, REG_IRR + i);
	return stands_at_zero(&page);
}

/* Has the timer been delivered since it was noted, behind our back (posted by the host)? */
static bool was_posted(const struct kvm_cpu *k, const struct lapic_model *m, uint32_t current)
{
	uint8_t vector = (uint8_t)m->lvt[LVT_TIMER];

	return !current && bit_of(m->irr, vector) && !bit_of(k->irr, vector);
}

static void take_timer(const struct kvm_cpu *k, struct lapic_model *m, uint32_t current)
{
	int64_t period = (int64_t)m->initial_count << lapic_divide_shift(m->divide);
	unsigned mode = LVT_MODE_TIMER(m->lvt[LVT_TIMER]);

	m->timer_next = 0;
	if (mode == TIMER_DEADLINE) {
		m->initial_count = 0;
		return;
	}
	if (!m->initial_count || !k->timer_due)
		return;
	m->timer_next = k->timer_due;
	if (was_posted(k, m, current))
		m->timer_next = mode == TIMER_PERIODIC ? m->timer_next + period : 0;
}

/* ---- From the page to the model, and back ----------------------------------------- */

static void page_to_model(const struct kvm_lapic_state *page, struct lapic_model *m)
{
	bool x2apic = m->base & BASE_EXTD;

	for (unsigned i = 0; i < 8; i++) {
		m->irr[i] = reg_get(page, REG_IRR + i);
		m->isr[i] = reg_get(page, REG_ISR + i);
		m->tmr[i] = reg_get(page, REG_TMR + i);
	}
	/* No APIC accepts these vectors; the kernel's does not look at its own messages. */
	m->irr[0] &= ~0xffffu;
	m->isr[0] &= ~0xffffu;
	m->tmr[0] &= ~0xffffu;
	for (unsigned i = 0; i < LVT_COUNT; i++)
		m->lvt[i] = reg_get(page, REG_LVT + i) &
			    (lapic_lvt_mask[i] | (i == LVT_LINT0 ? LVT_REMOTE_IRR : 0));
	/* What x2APIC mode fixes is in no record. */
	m->ldr = x2apic ? 0 : reg_get(page, REG_LDR) & 0xff000000u;
	m->dfr = x2apic ? UINT32_MAX : reg_get(page, REG_DFR) | 0x0fffffffu;
	m->svr = reg_get(page, REG_SVR) & (uint32_t)(0xff | SVR_ENABLE | SVR_NO_EOI_BROADCAST);
	m->icr = reg_get(page, REG_ICR) & ~LAPIC_ICR_RESERVED;
	m->icr_high = reg_get(page, REG_ICR_HIGH) & (x2apic ? UINT32_MAX : 0xff000000u);
	m->esr = reg_get(page, REG_ESR) & (ESR_SEND_VECTOR | ESR_RECV_VECTOR | ESR_REGISTER);
	m->esr_pending = 0;
	m->initial_count = reg_get(page, REG_INITIAL);
	m->divide = reg_get(page, REG_DIVIDE) & 0xb;
	m->tpr = (uint8_t)reg_get(page, REG_TPR);
}

/* What is left of a count, at least one tick: a count of 0 would never end. */
static uint32_t count_left(const struct lapic_model *m, int64_t now)
{
	unsigned shift = lapic_divide_shift(m->divide);
	int64_t left = m->timer_next - now;

	if (!m->timer_next)
		return 0;
	if (left <= 0)
		return 1;
	return (uint32_t)MAX(MIN((left + (1ll << shift) - 1) >> shift, (int64_t)m->initial_count), 1);
}

static void model_to_page(struct kvm_cpu *k, const struct lapic_model *m,
			  struct kvm_lapic_state *page)
{
	uint32_t id = topology_apic_id(k->m->vm, k->v->index);
	bool x2apic = m->base & BASE_EXTD;

	memset(page, 0, sizeof(*page));
	reg_put(page, REG_ID, x2apic ? id : id << 24);
	for (unsigned i = 0; i < 8; i++) {
		reg_put(page, REG_IRR + i, m->irr[i]);
		reg_put(page, REG_ISR + i, m->isr[i]);
		reg_put(page, REG_TMR + i, m->tmr[i]);
	}
	for (unsigned i = 0; i < LVT_COUNT; i++)
		reg_put(page, REG_LVT + i, m->lvt[i]);
	reg_put(page, REG_LDR, x2apic ? (id >> 4) << 16 | 1u << (id & 15) : m->ldr);
	reg_put(page, REG_DFR, m->dfr);
	reg_put(page, REG_SVR, m->svr);
	reg_put(page, REG_ICR, m->icr);
	reg_put(page, REG_ICR_HIGH, m->icr_high);
	reg_put(page, REG_ESR, m->esr);
	reg_put(page, REG_INITIAL, m->initial_count);
	reg_put(page, REG_CURRENT, count_left(m, clock_now(&k->m->vm->clock)));
	reg_put(page, REG_DIVIDE, m->divide);
	reg_put(page, REG_TPR, m->tpr);
}

/* ---- While it is out ------------------------------------------------------------------- */

static bool deliver(struct vm *vm, uint32_t dest, bool logical, unsigned mode, uint8_t vector,
		    bool level)
{
	struct kvm_machine *m = vm->kvm;
	struct kvm_msi msi = {
		.address_lo = 0xfee00000u | (dest & 0xff) << 12 | (logical ? 1u << 2 : 0),
		.address_hi = dest & ~0xffu,
		.data = vector | mode << 8 | (level ? 1u << 14 | 1u << 15 : 0),
	};
	struct skep_error e;
	int r = level ? kvm_routes_update(m, &e) : 0;

	if (r >= 0) {
		r = kvm_call(m->fd, KVM_SIGNAL_MSI, &msi);
		/* A destination that is nobody's, or that takes nothing, is no error of ours. */
		if (r < 0 && r != -EPERM && r != -EINVAL)
			kvm_fail(&e, r, "KVM_SIGNAL_MSI");
		else
			return r > 0;
	}
	vm_request_error(vm, "%s", e.text);
	return false;
}

static void lint(struct vcpu *v, unsigned pin, bool level)
{
	if (pin == 0 || level)
		vcpu_request(v, pin == 0 ? VCPU_REQ_INTR : VCPU_REQ_NMI);
}

static const struct lapic_remote remote = { deliver, lint };

int kvm_lint1(struct kvm_cpu *k)
{
	struct kvm_lapic_state page;
	uint32_t lvt;
	int err = read_page(k, &page);

	if (err < 0)
		return err;
	lvt = reg_get(&page, REG_LVT + LVT_LINT1);
	if (lvt & LVT_MASKED || LVT_MODE(lvt) != APIC_NMI)
		return 0;
	return kvm_call(k->fd, KVM_NMI, NULL);
}

/* ---- Standing and going on ------------------------------------------------------------- */

/*
 * What was on its way is as if it had not begun: a local APIC's interrupt that was acknowledged is
 * requested again, an NMI is pending, a fault comes again.
 */
static int undo_events(struct kvm_cpu *k, struct lapic_model *m)
{
	struct kvm_vcpu_events ev;
	int err = kvm_call(k->fd, KVM_GET_VCPU_EVENTS, &ev);
	uint8_t vector;

	if (err < 0 || !(ev.interrupt.injected || ev.nmi.injected || ev.exception.injected ||
			 ev.exception.pending))
		return err;
	vector = ev.interrupt.nr;
	if (ev.interrupt.injected && !ev.interrupt.soft && bit_of(m->isr, vector))
		bit_move(m->isr, m->irr, vector);
	if (ev.nmi.injected) {
		ev.nmi.pending = 1;
		ev.nmi.masked = 0;
	}
	ev.interrupt.injected = ev.nmi.injected = ev.exception.injected = ev.exception.pending = 0;
	ev.flags &= ~(uint32_t)KVM_VCPUEVENT_VALID_SIPI_VECTOR;
	ev.flags |= KVM_VCPUEVENT_VALID_NMI_PENDING;
	return kvm_call(k->fd, KVM_SET_VCPU_EVENTS, &ev);
}

static int take_back(struct kvm_cpu *k, struct lapic_model *m)
{
	struct kvm_lapic_state page;
	struct kvm_sregs sregs;
	int err = kvm_call(k->fd, KVM_GET_SREGS, &sregs);

	if (err >= 0)
		err = read_page(k, &page);
	if (err >= 0)
		err = kvm_msr_get(k, MSR_TSC_DEADLINE, &m->tsc_deadline);
	if (err < 0)
		return err;
	m->base = sregs.apic_base;
	page_to_model(&page, m);
	take_timer(k, m, reg_get(&page, REG_CURRENT));
	if (LVT_MODE_TIMER(m->lvt[LVT_TIMER]) != TIMER_DEADLINE)
		m->tsc_deadline = 0;
	else if (m->tsc_deadline)
		m->tsc_deadline -= k->m->tsc_skew;
	return undo_events(k, m);
}

void kvm_freeze(struct vcpu *v)
{
	struct kvm_cpu *k = kvm_cpu_of(v);
	struct skep_error e;
	int err;

	if (!k->out || !v->lapic)
		return;
	err = take_back(k, lapic_registers(v->lapic));
	k->out = false;
	lapic_set_remote(v->lapic, NULL);
	if (err < 0) {
		kvm_fail(&e, err, "taking back the local APIC");
		vm_request_error(v->vm, "%s", e.text);
	}
}

static int hand_out(struct kvm_cpu *k, const struct lapic_model *m, struct skep_error *e)
{
	struct kvm_lapic_state page;
	int err;

	model_to_page(k, m, &page);
	err = kvm_call(k->fd, KVM_SET_LAPIC, &page);
	if (err < 0)
		return kvm_fail(e, err, "KVM_SET_LAPIC");
	err = kvm_tsc_thaw(k, e);
	if (!err && m->tsc_deadline) {
		err = kvm_msr_set(k, MSR_TSC_DEADLINE, m->tsc_deadline + k->m->tsc_skew);
		if (err < 0)
			kvm_fail(e, err, "the TSC deadline");
	}
	return err ? err : kvm_routes_update(k->m, e);
}

/* The kernel touches memory without asking: nothing may wait to be fetched from a snapshot. */
static int fetch_memory(struct vm *vm, struct skep_error *e)
{
	int err = 0;

	for (unsigned i = 0; i < vm->memory.nram && !err && atomic_load(&vm->memory.npending); i++)
		err = memory_need(&vm->memory, vm->memory.ram[i].gpa, vm->memory.ram[i].size, e);
	return err;
}

void kvm_thaw(struct vcpu *v)
{
	struct kvm_cpu *k = kvm_cpu_of(v);
	struct lapic_model *m;
	struct skep_error e;

	if (k->out || !v->lapic)
		return;
	m = lapic_registers(v->lapic);
	k->timer_due = m->timer_next;
	memcpy(k->irr, m->irr, sizeof(k->irr));
	k->ready_known = false;
	if (fetch_memory(v->vm, &e) < 0 || hand_out(k, m, &e) < 0)
		vm_request_error(v->vm, "%s", e.text);
	k->out = true;
	lapic_set_remote(v->lapic, &remote);
	/* A level at LINT0 may have been there all the time. */
	vcpu_request(v, VCPU_REQ_INTR);
}
