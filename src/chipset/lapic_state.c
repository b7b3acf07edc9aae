/* The modelled local APIC: its table, and what a set of registers must satisfy. */
#include "chipset/lapic_priv.h"

#include <errno.h>

static const struct state_field fields[] = {
	STATE_U64(struct lapic_model, base),
	STATE_U64(struct lapic_model, tsc_deadline),
	STATE_TIME(struct lapic_model, timer_next),
	STATE_ARRAY(struct lapic_model, irr, STATE_T_U32),
	STATE_ARRAY(struct lapic_model, isr, STATE_T_U32),
	STATE_ARRAY(struct lapic_model, tmr, STATE_T_U32),
	STATE_ARRAY(struct lapic_model, lvt, STATE_T_U32),
	STATE_U32(struct lapic_model, ldr),
	STATE_U32(struct lapic_model, dfr),
	STATE_U32(struct lapic_model, svr),
	STATE_U32(struct lapic_model, icr),
	STATE_U32(struct lapic_model, icr_high),
	STATE_U32(struct lapic_model, esr, .max = 0xff),
	STATE_U32(struct lapic_model, esr_pending, .max = 0xff),
	STATE_U32(struct lapic_model, initial_count),
	STATE_U32(struct lapic_model, divide, .max = 0xb),
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

int lapic_validate(const struct device *d, const void *model, struct skep_error *e)
{
	const struct lapic *a = container_of(d, const struct lapic, dev);
	const struct lapic_model *m = model;
	const uint64_t base_bits = 0x000ffffffffff000ull | BASE_BSP | BASE_EXTD | BASE_EN;

	if ((m->base & ~base_bits) || (m->base & (BASE_EN | BASE_EXTD)) == BASE_EXTD)
		return skep_fail(e, EINVAL, "%s: base %#llx is not an IA32_APIC_BASE", d->name,
				 (unsigned long long)m->base);
	if (!(m->base & BASE_BSP) != (a->id != 0))
		return skep_fail(e, EINVAL, "%s: base %#llx names the wrong boot processor",
				 d->name, (unsigned long long)m->base);
	if ((m->irr[0] | m->isr[0]) & 0xffff)
		return skep_fail(e, EINVAL, "%s: irr or isr holds one of the vectors 0-15, which no APIC accepts",
				 d->name);
	if (m->svr & ~(uint32_t)(0xff | SVR_ENABLE | SVR_NO_EOI_BROADCAST))
		return skep_fail(e, EINVAL, "%s: svr %#x has reserved bits set", d->name, m->svr);
	for (unsigned i = 0; i < LVT_COUNT; i++)
		if (m->lvt[i] & ~0x0007e7ffu)
			return skep_fail(e, EINVAL, "%s: lvt[%u] %#x has reserved bits set",
					 d->name, i, m->lvt[i]);
	if (m->timer_next < 0 || (m->timer_next && !m->initial_count))
		return skep_fail(e, EINVAL, "%s: timer_next %lld does not fit initial_count %u",
				 d->name, (long long)m->timer_next, m->initial_count);
	if (m->timer_next && m->tsc_deadline)
		return skep_fail(e, EINVAL, "%s: both timer_next and tsc_deadline are armed",
				 d->name);
	return 0;
}

unsigned lapic_index(const struct device *d)
{
	return container_of(d, const struct lapic, dev)->id;
}

void lapic_model_shared(const void *model, uint64_t *base, uint8_t *tpr)
{
	const struct lapic_model *m = model;

	*base = m->base;
	*tpr = m->tpr;
}
