/* The modelled local APIC: its table, and what a set of registers must satisfy. */
#include "chipset/lapic_priv.h"

#include <errno.h>

#define ESR_BITS	(ESR_SEND_VECTOR | ESR_RECV_VECTOR | ESR_REGISTER)
#define DIVIDE_BITS	0xbu
#define DFR_FIXED	0x0fffffffu

static const struct state_field fields[] = {
	STATE_U64(struct lapic_model, base, .max = 0x000fffffffffffffull),
	STATE_U64(struct lapic_model, tsc_deadline),
	STATE_TIME(struct lapic_model, timer_next, .max = CLOCK_DUE_MAX),
	STATE_ARRAY(struct lapic_model, irr, STATE_T_U32),
	STATE_ARRAY(struct lapic_model, isr, STATE_T_U32),
	STATE_ARRAY(struct lapic_model, tmr, STATE_T_U32),
	STATE_ARRAY(struct lapic_model, lvt, STATE_T_U32),
	STATE_U32(struct lapic_model, ldr),
	STATE_U32(struct lapic_model, dfr),
	STATE_U32(struct lapic_model, svr),
	STATE_U32(struct lapic_model, icr),
	STATE_U32(struct lapic_model, icr_high),
	STATE_U32(struct lapic_model, esr, .max = ESR_BITS),
	STATE_U32(struct lapic_model, esr_pending, .max = ESR_BITS),
	STATE_U32(struct lapic_model, initial_count),
	STATE_U32(struct lapic_model, divide, .max = DIVIDE_BITS),
	STATE_U8(struct lapic_model, tpr),
	STATE_ARRAY(struct lapic_model, lint, STATE_T_U8, .max = 1),
};

const struct state_record lapic_record = {
	.kind = "lapic",
	.version = 1,
	.model_size = sizeof(struct lapic_model),
	.fields = fields,
	.nfields = ARRAY_SIZE(fields),
};

static bool lvt_valid(const struct lapic_model *m, unsigned entry)
{
	uint32_t lvt = m->lvt[entry];

	/* Only a level at LINT0 waits for its end. */
	if (entry == LVT_LINT0 && LVT_MODE(lvt) == APIC_FIXED && (lvt & LVT_LEVEL))
		lvt &= ~(uint32_t)LVT_REMOTE_IRR;
	return !(lvt & ~lapic_lvt_mask[entry]);
}

/* What is wrong; NULL: nothing. */
static const char *registers_wrong(const struct lapic_model *m)
{
	bool x2apic = m->base & BASE_EXTD;

	for (unsigned i = 0; i < LVT_COUNT; i++)
		if (!lvt_valid(m, i))
			return "an entry of lvt has bits set that it does not have";
	if (x2apic ? m->ldr || m->dfr != UINT32_MAX :
	    (m->ldr & 0x00ffffff) || (m->dfr & DFR_FIXED) != DFR_FIXED || (m->icr_high & 0x00ffffff))
		return "ldr, dfr or icr_high is not of the mode that base says";
	if (m->icr & LAPIC_ICR_RESERVED)
		return "icr has reserved bits set";
	if ((m->esr | m->esr_pending) & ~ESR_BITS)
		return "esr or esr_pending has an error that this APIC does not know";
	if (m->divide & ~DIVIDE_BITS)
		return "divide has reserved bits set";
	return NULL;
}

static const char *timer_wrong(const struct lapic_model *m)
{
	bool deadline = (m->lvt[LVT_TIMER] >> 17 & 3) == TIMER_DEADLINE;

	if (m->timer_next < 0 || (m->timer_next && !m->initial_count))
		return "timer_next does not fit initial_count";
	if (deadline ? m->timer_next || m->initial_count : m->tsc_deadline != 0)
		return "the timer is armed in another mode than lvt[0] says";
	return NULL;
}

int lapic_validate(const struct device *d, const void *model, struct skep_error *e)
{
	const struct lapic *a = container_of(d, const struct lapic, dev);
	const struct lapic_model *m = model;
	const uint64_t base_bits = 0x000ffffffffff000ull | BASE_BSP | BASE_EXTD | BASE_EN;
	const char *wrong;

	if ((m->base & ~base_bits) || (m->base & (BASE_EN | BASE_EXTD)) == BASE_EXTD)
		return skep_fail(e, EINVAL, "%s: base %#llx is not an IA32_APIC_BASE", d->name,
				 (unsigned long long)m->base);
	if (!(m->base & BASE_BSP) != (a->id != 0))
		return skep_fail(e, EINVAL, "%s: base %#llx names the wrong boot processor",
				 d->name, (unsigned long long)m->base);
	if ((m->irr[0] | m->isr[0] | m->tmr[0]) & 0xffff)
		return skep_fail(e, EINVAL, "%s: irr, isr or tmr holds one of the vectors 0-15, which no "
				 "APIC accepts", d->name);
	if (m->svr & ~(uint32_t)(0xff | SVR_ENABLE | SVR_NO_EOI_BROADCAST))
		return skep_fail(e, EINVAL, "%s: svr %#x has reserved bits set", d->name, m->svr);
	wrong = registers_wrong(m);
	if (!wrong)
		wrong = timer_wrong(m);
	return wrong ? skep_fail(e, EINVAL, "%s: %s", d->name, wrong) : 0;
}

unsigned lapic_index(const struct device *d)
{
	return container_of(d, const struct lapic, dev)->v->index;
}

void lapic_model_shared(const void *model, uint64_t *base, uint8_t *tpr)
{
	const struct lapic_model *m = model;

	*base = m->base;
	*tpr = m->tpr;
}
