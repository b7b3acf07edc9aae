/*
 * Local APIC: acceptance, priorities, end of interrupt, local sources, and the
 * transitions of IA32_APIC_BASE (SDM vol. 3, 11.4, 11.5, 11.8, 11.12.5).
 */
#include "chipset/lapic_priv.h"

#include <errno.h>
#include <stdio.h>

#include "chipset/chipset.h"
#include "vm/topology.h"

static void bit_set(uint32_t *set, uint8_t n) { set[n / 32] |= 1u << n % 32; }
static void bit_clear(uint32_t *set, uint8_t n) { set[n / 32] &= ~(1u << n % 32); }
static bool bit_test(const uint32_t *set, uint8_t n) { return set[n / 32] >> n % 32 & 1; }

static int bit_highest(const uint32_t *set)
{
	for (int i = 7; i >= 0; i--)
		if (set[i])
			return i * 32 + 31 - __builtin_clz(set[i]);
	return -1;
}

void lapic_recheck(struct lapic *a)
{
	if (a->v)
		vcpu_request(a->v, VCPU_REQ_INTR);
}

/* 11.8.3.1: the processor priority is the higher class of TPR and ISRV. */
uint8_t lapic_ppr(const struct lapic *a)
{
	int isrv = bit_highest(a->m.isr);

	if (isrv < 0 || (a->m.tpr & 0xf0) >= (isrv & 0xf0))
		return a->m.tpr;
	return isrv & 0xf0;
}

int lapic_pending_vector(struct lapic *a)
{
	int irrv;

	if (!lapic_hw_enabled(a))
		return -1;
	irrv = bit_highest(a->m.irr);
	return irrv >= 0 && (irrv & 0xf0) > (lapic_ppr(a) & 0xf0) ? irrv : -1;
}

int lapic_ack(struct lapic *a)
{
	int vector = lapic_pending_vector(a);

	if (vector >= 0) {
		bit_clear(a->m.irr, vector);
		bit_set(a->m.isr, vector);
	}
	return vector;
}

bool lapic_accept(struct lapic *a, uint8_t vector, bool level)
{
	if (!lapic_hw_enabled(a) || !lapic_sw_enabled(a))
		return false;
	if (vector < APIC_MIN_VECTOR) {
		lapic_error(a, ESR_RECV_VECTOR);
		return false;
	}
	if (level)
		bit_set(a->m.tmr, vector);
	else
		bit_clear(a->m.tmr, vector);
	bit_set(a->m.irr, vector);
	lapic_recheck(a);
	return true;
}

void lapic_error(struct lapic *a, uint32_t bits)
{
	uint32_t fresh = bits & ~a->m.esr_pending;
	uint32_t lvt = a->m.lvt[LVT_ERROR];

	a->m.esr_pending |= bits;
	/* The error entry knows fixed delivery only; a bad vector of its own adds a bit, no more. */
	if (!fresh || (lvt & LVT_MASKED))
		return;
	if ((lvt & 0xff) < APIC_MIN_VECTOR)
		a->m.esr_pending |= ESR_RECV_VECTOR;
	else
		lapic_accept(a, lvt & 0xff, false);
}

void lapic_lvt_fire(struct lapic *a, unsigned entry)
{
	uint32_t *lvt = &a->m.lvt[entry];

	if (!lapic_hw_enabled(a) || (*lvt & LVT_MASKED))
		return;
	switch (entry == LVT_TIMER ? APIC_FIXED : LVT_MODE(*lvt)) {
	case APIC_FIXED:
		/* Only LINT0 knows level triggering (figure 11-8, note on bit 15). */
		if (entry == LVT_LINT0 && (*lvt & LVT_LEVEL)) {
			if (!(*lvt & LVT_REMOTE_IRR) && lapic_accept(a, *lvt & 0xff, true))
				*lvt |= LVT_REMOTE_IRR;
		} else {
			lapic_accept(a, *lvt & 0xff, false);
		}
		break;
	case APIC_NMI:
		vcpu_request(a->v, VCPU_REQ_NMI);
		break;
	case APIC_INIT:
		lapic_init_registers(a);
		vcpu_request(a->v, VCPU_REQ_INIT);
		break;
	case APIC_EXTINT:
		lapic_recheck(a);
		break;
	default:		/* SMI: there is no SMM; the rest is reserved */
		break;
	}
}

void lapic_lint(struct lapic *a, unsigned pin, bool level)
{
	bool rising = level && !a->m.lint[pin];

	a->m.lint[pin] = level;
	if (a->remote) {
		a->remote->lint(a->v, pin, level);
		return;
	}
	if (rising && lapic_hw_enabled(a))
		lapic_lvt_fire(a, LVT_LINT0 + pin);
	else if (rising && pin == 0)
		lapic_recheck(a);	/* an APIC that is off: LINT0 is INTR */
	else if (rising)
		vcpu_request(a->v, VCPU_REQ_NMI);
}

void lapic_lint_written(struct lapic *a, unsigned pin)
{
	uint32_t *lvt = &a->m.lvt[LVT_LINT0 + pin];
	unsigned mode = LVT_MODE(*lvt);

	if (mode != APIC_FIXED || !(*lvt & LVT_LEVEL))
		*lvt &= ~LVT_REMOTE_IRR;
	/* Edges that came while the entry was masked are gone; levels are not. */
	if (a->m.lint[pin] && (mode == APIC_EXTINT || (mode == APIC_FIXED && (*lvt & LVT_LEVEL))))
		lapic_lvt_fire(a, LVT_LINT0 + pin);
}

bool lapic_accepts_extint(struct lapic *a)
{
	uint32_t lvt = a->m.lvt[LVT_LINT0];

	if (!lapic_hw_enabled(a))
		return true;
	return !(lvt & LVT_MASKED) && LVT_MODE(lvt) == APIC_EXTINT;
}

void lapic_set_remote(struct lapic *a, const struct lapic_remote *remote)
{
	a->remote = remote;
	if (remote)
		timer_disarm(&a->timer);
}

struct lapic_model *lapic_registers(struct lapic *a)
{
	return &a->m;
}

void lapic_connect_eoi(struct lapic *a, void (*eoi)(void *opaque, uint8_t vector), void *opaque)
{
	a->eoi = eoi;
	a->eoi_opaque = opaque;
}

static void lint0_eoi(struct lapic *a, uint8_t vector)
{
	uint32_t *lvt = &a->m.lvt[LVT_LINT0];

	if (!(*lvt & LVT_REMOTE_IRR) || (*lvt & 0xff) != vector)
		return;
	*lvt &= ~LVT_REMOTE_IRR;
	if (a->m.lint[0])
		lapic_lvt_fire(a, LVT_LINT0);
}

void lapic_eoi(struct lapic *a)
{
	int vector = bit_highest(a->m.isr);

	if (vector < 0)
		return;
	bit_clear(a->m.isr, vector);
	if (bit_test(a->m.tmr, vector)) {
		lint0_eoi(a, vector);
		if (a->eoi && !(a->m.svr & SVR_NO_EOI_BROADCAST))
			a->eoi(a->eoi_opaque, vector);
	}
	if (lapic_pending_vector(a) >= 0)
		lapic_recheck(a);
}

uint8_t lapic_get_tpr(struct lapic *a)
{
	return a->m.tpr >> 4;
}

void lapic_set_tpr(struct lapic *a, uint8_t tpr)
{
	a->m.tpr = (uint8_t)(tpr << 4);
	if (lapic_pending_vector(a) >= 0)
		lapic_recheck(a);
}

void lapic_init_registers(struct lapic *a)
{
	struct lapic_model *m = &a->m;

	*m = (struct lapic_model){
		.base = m->base,
		.lint = { m->lint[0], m->lint[1] },
		.dfr = UINT32_MAX,
		.svr = 0xff,
	};
	for (unsigned i = 0; i < LVT_COUNT; i++)
		m->lvt[i] = LVT_MASKED;
	lapic_timer_rearm(a);
}

uint64_t lapic_get_base(struct lapic *a)
{
	return a->m.base;
}

/* Figure 11-27 of 11.12.5: the legal transitions between the three modes. */
static bool transition_legal(uint64_t from, uint64_t to)
{
	bool en = to & BASE_EN, extd = to & BASE_EXTD;

	if (extd && !en)
		return false;
	if ((from & BASE_EXTD) && en && !extd)
		return false;		/* x2APIC to xAPIC: only through disabled */
	if (!(from & BASE_EN) && extd)
		return false;		/* disabled to x2APIC: only through xAPIC */
	return true;
}

bool lapic_set_base(struct lapic *a, uint64_t value)
{
	const uint64_t reserved = ~(0x000ffffffffff000ull | BASE_BSP | BASE_EXTD | BASE_EN);
	uint64_t old = a->m.base;

	if ((value & reserved) || !transition_legal(old, value))
		return false;
	/* Which processor is the boot processor was decided at power-on. */
	a->m.base = (value & ~BASE_BSP) | (old & BASE_BSP);
	if ((old & BASE_EN) && !(value & BASE_EN))
		lapic_init_registers(a);
	if ((value & BASE_EXTD) && !(old & BASE_EXTD)) {
		/* The ICR becomes one register, LDR and DFR are not kept (11.12.5.1). */
		a->m.icr_high = 0;
		a->m.ldr = 0;
		a->m.dfr = UINT32_MAX;
	}
	lapic_recheck(a);
	return true;
}

/* Hooks. */

static int lapic_dev_init(struct device *d, struct skep_error *e)
{
	struct lapic *a = container_of(d, struct lapic, dev);

	timer_init(&a->timer, d->vm, "lapic", lapic_timer_fired, a);
	return 0;
}

static void lapic_finish(struct device *d)
{
	timer_disarm(&container_of(d, struct lapic, dev)->timer);
}

static void lapic_reset(struct device *d)
{
	struct lapic *a = container_of(d, struct lapic, dev);

	a->m = (struct lapic_model){
		.base = LAPIC_BASE | BASE_EN | (a->id == 0 ? BASE_BSP : 0),
	};
	a->tsc_adjust = 0;
	lapic_init_registers(a);
	/*
	 * The virtual wire, as firmware leaves it on the boot processor (MultiProcessor
	 * Specification 1.4, 3.6.2.2): kernels that start without firmware of their
	 * own get the 8259's interrupts.
	 */
	if (a->id == 0)
		a->m.lvt[LVT_LINT0] = APIC_EXTINT << 8;
}

static void lapic_export(const struct device *d, void *model)
{
	const struct lapic *a = container_of(d, const struct lapic, dev);
	struct lapic_model *m = model;

	*m = a->m;
	lapic_timer_export(a, m);
}

static void lapic_commit(struct device *d, const void *model)
{
	struct lapic *a = container_of(d, struct lapic, dev);

	a->m = *(const struct lapic_model *)model;
	lapic_timer_rearm(a);
}

static const struct config_schema no_keys;

const struct device_type lapic_type = {
	.name = "lapic",
	.help = "local APIC of a processor",
	.config = &no_keys,
	.state = &lapic_record,
	.size = sizeof(struct lapic),
	.init = lapic_dev_init,
	.finish = lapic_finish,
	.reset = lapic_reset,
	.quiesce = device_nop,
	.resume = device_nop,
	.export = lapic_export,
	.validate = lapic_validate,
	.commit = lapic_commit,
};

static void board_eoi(void *opaque, uint8_t vector)
{
	chipset_eoi(opaque, vector);
}

struct lapic *lapic_create(struct vcpu *v, struct skep_error *e)
{
	struct device *d;
	struct lapic *a;
	char name[sizeof(d->name)];

	snprintf(name, sizeof(name), "lapic.%u", v->index);
	d = device_create(v->vm, &lapic_type, name, NULL, e);
	if (!d)
		return NULL;
	a = container_of(d, struct lapic, dev);
	a->v = v;
	a->id = topology_apic_id(v->vm, v->index);
	lapic_connect_eoi(a, board_eoi, v->vm);
	lapic_reset(d);
	v->lapic = a;
	return a;
}
