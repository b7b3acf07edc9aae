/*
 * Messages between local APICs, and to them from the I/O APIC and from devices
 * (SDM vol. 3, 11.6, 11.12.9, 11.12.10).
 */
#include "chipset/lapic_priv.h"

#include <errno.h>

struct message {
	uint32_t dest;
	bool logical;
	bool wide;		/* dest has 32 bits (sent in x2APIC mode), else 8 */
	unsigned mode;
	uint8_t vector;
	bool level;
};

enum { SHORTHAND_NONE, SHORTHAND_SELF, SHORTHAND_ALL, SHORTHAND_OTHERS };

static uint32_t x2apic_ldr(uint32_t id)
{
	return (id >> 4) << 16 | 1u << (id & 0xf);
}

static bool logical_match(const struct lapic *a, const struct message *m)
{
	uint32_t ldr = a->m.ldr >> 24;

	if (lapic_x2apic(a)) {
		ldr = x2apic_ldr(a->id);
		return m->dest >> 16 == ldr >> 16 && (m->dest & ldr & 0xffff);
	}
	if (m->dest > 0xff)
		return false;
	if (a->m.dfr >> 28 == 0xf)	/* flat */
		return m->dest & ldr;
	return m->dest >> 4 == ldr >> 4 && (m->dest & ldr & 0xf);
}

static bool dest_match(const struct lapic *a, const struct message *m)
{
	/* All ones name everybody, in either destination mode. */
	if (m->dest == (m->wide ? UINT32_MAX : 0xff))
		return true;
	if (m->logical)
		return logical_match(a, m);
	return m->dest == a->id;
}

static bool accept_mode(struct lapic *a, const struct message *m)
{
	if (!lapic_hw_enabled(a))
		return false;
	switch (m->mode) {
	case APIC_FIXED:
	case APIC_LOWEST:
		return lapic_accept(a, m->vector, m->level);
	case APIC_NMI:
		vcpu_request(a->v, VCPU_REQ_NMI);
		return true;
	case APIC_INIT:
		lapic_init_registers(a);
		/* A start-up that came before it is void. */
		atomic_fetch_and(&a->v->requests, ~(uint32_t)VCPU_REQ_SIPI);
		vcpu_request(a->v, VCPU_REQ_INIT);
		return true;
	case APIC_STARTUP:
		atomic_store(&a->v->sipi_vector, m->vector);
		vcpu_request(a->v, VCPU_REQ_SIPI);
		return true;
	case APIC_SMI:		/* accepted, and there is no SMM to enter */
		return true;
	default:		/* ExtINT: the 8259 pair is wired to LINT0 only */
		return false;
	}
}

/* 11.6.2.4: the processor at the lowest priority; equal ones by their order. */
static bool deliver_lowest(struct vm *vm, const struct message *m, const struct lapic *except)
{
	struct lapic *best = NULL;

	for (unsigned i = 0; i < vm->ncpus; i++) {
		struct lapic *a = vm->vcpus[i] ? vm->vcpus[i]->lapic : NULL;

		if (!a || a == except || !lapic_hw_enabled(a) || !lapic_sw_enabled(a) ||
		    !dest_match(a, m))
			continue;
		if (!best || lapic_ppr(a) < lapic_ppr(best))
			best = a;
	}
	return best && accept_mode(best, m);
}

static bool deliver(struct vm *vm, const struct message *m, const struct lapic *except)
{
	bool accepted = false;

	if (m->mode == APIC_LOWEST)
		return deliver_lowest(vm, m, except);
	for (unsigned i = 0; i < vm->ncpus; i++) {
		struct lapic *a = vm->vcpus[i] ? vm->vcpus[i]->lapic : NULL;

		if (a && a != except && dest_match(a, m))
			accepted |= accept_mode(a, m);
	}
	return accepted;
}

bool lapic_deliver(struct vm *vm, uint32_t dest, bool logical, unsigned mode, uint8_t vector,
		   bool level)
{
	const struct lapic *first = vm->vcpus[0] ? vm->vcpus[0]->lapic : NULL;
	const struct message m = {
		.dest = dest,
		.logical = logical,
		.wide = dest > 0xff,
		.mode = mode,
		.vector = vector,
		.level = level,
	};

	if (first && first->remote)
		return first->remote->deliver(vm, dest, logical, mode, vector, level);
	return deliver(vm, &m, NULL);
}

void lapic_send_ipi(struct lapic *a, uint32_t icr, uint32_t dest)
{
	unsigned shorthand = icr >> 18 & 3;
	struct message m = {
		.dest = dest,
		.logical = icr & BIT(11),
		.wide = lapic_x2apic(a),
		.mode = icr >> 8 & 7,
		.vector = (uint8_t)icr,
	};

	if (m.mode == 3 || m.mode == APIC_EXTINT)
		return;
	/* INIT level de-assert only set arbitration IDs, on processors long gone (11.6.1). */
	if (m.mode == APIC_INIT && (icr & BIT(15)) && !(icr & BIT(14)))
		return;
	if ((m.mode == APIC_FIXED || m.mode == APIC_LOWEST) && m.vector < APIC_MIN_VECTOR) {
		lapic_error(a, ESR_SEND_VECTOR);
		return;
	}
	if (shorthand == SHORTHAND_NONE) {
		deliver(a->dev.vm, &m, NULL);
		return;
	}
	/* INIT and start-up may not name the sender (table 11-3). */
	if (shorthand != SHORTHAND_OTHERS && (m.mode == APIC_INIT || m.mode == APIC_STARTUP))
		return;
	if (shorthand == SHORTHAND_SELF) {
		accept_mode(a, &m);
		return;
	}
	m.dest = UINT32_MAX;
	m.wide = true;
	deliver(a->dev.vm, &m, shorthand == SHORTHAND_OTHERS ? a : NULL);
}

void lapic_self_ipi(struct lapic *a, uint8_t vector)
{
	if (vector < APIC_MIN_VECTOR)
		lapic_error(a, ESR_SEND_VECTOR);
	else
		lapic_accept(a, vector, false);
}
