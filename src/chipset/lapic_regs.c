/*
 * Registers of the local APIC, as the guest reaches them: a page of memory in
 * xAPIC mode (SDM vol. 3, 11.4.1), MSRs 0x800-0x8ff in x2APIC mode (11.12.1).
 */
#include "chipset/lapic_priv.h"

#define MSR_BASE	0x800u
/* Version 0x14, six LVT entries, and EOI broadcasts can be suppressed. */
#define VERSION		(0x14u | (LVT_COUNT - 1) << 16 | 1u << 24)

const uint32_t lapic_lvt_mask[LVT_COUNT] = {
	[LVT_TIMER] = 0x000700ff,
	[LVT_THERMAL] = 0x000107ff,
	[LVT_PERF] = 0x000107ff,
	[LVT_LINT0] = 0x0001a7ff,
	[LVT_LINT1] = 0x0001a7ff,
	[LVT_ERROR] = 0x000100ff,
};

/* Bits of an LVT entry that the guest may write but that stay as they are. */
#define LVT_READ_ONLY	0x00005000u

static bool reg_read(struct lapic *a, unsigned reg, uint32_t *v)
{
	const struct lapic_model *m = &a->m;

	switch (reg) {
	case REG_ID:
		*v = lapic_x2apic(a) ? a->id : a->id << 24;
		return true;
	case REG_VERSION:
		*v = VERSION;
		return true;
	case REG_TPR:
		*v = m->tpr;
		return true;
	case REG_PPR:
		*v = lapic_ppr(a);
		return true;
	case REG_LDR:
		*v = lapic_x2apic(a) ? (a->id >> 4) << 16 | 1u << (a->id & 0xf) : m->ldr;
		return true;
	case REG_SVR:
		*v = m->svr;
		return true;
	case REG_ISR ... REG_ISR + 7:
		*v = m->isr[reg - REG_ISR];
		return true;
	case REG_TMR ... REG_TMR + 7:
		*v = m->tmr[reg - REG_TMR];
		return true;
	case REG_IRR ... REG_IRR + 7:
		*v = m->irr[reg - REG_IRR];
		return true;
	case REG_ESR:
		*v = m->esr;
		return true;
	case REG_ICR:
		*v = m->icr;
		return true;
	case REG_LVT ... REG_LVT_LAST:
		*v = m->lvt[reg - REG_LVT];
		return true;
	case REG_INITIAL:
		*v = m->initial_count;
		return true;
	case REG_CURRENT:
		*v = lapic_timer_count(a);
		return true;
	case REG_DIVIDE:
		*v = m->divide;
		return true;
	default:
		return false;
	}
}

static void write_svr(struct lapic *a, uint32_t v)
{
	a->m.svr = v & (0xff | SVR_ENABLE | SVR_NO_EOI_BROADCAST);
	if (!lapic_sw_enabled(a)) {
		/* 11.4.7.2: every LVT mask is set and stays set. */
		lapic_timer_set_lvt(a, a->m.lvt[LVT_TIMER] | LVT_MASKED);
		for (unsigned i = 0; i < LVT_COUNT; i++)
			a->m.lvt[i] |= LVT_MASKED;
	}
	lapic_recheck(a);
}

static void write_lvt(struct lapic *a, unsigned entry, uint32_t v)
{
	uint32_t *lvt = &a->m.lvt[entry];

	v = (v & lapic_lvt_mask[entry]) | (*lvt & LVT_REMOTE_IRR);
	if (!lapic_sw_enabled(a))
		v |= LVT_MASKED;
	if (entry == LVT_TIMER) {
		lapic_timer_set_lvt(a, v);
		return;
	}
	*lvt = v;
	if (entry == LVT_LINT0 || entry == LVT_LINT1)
		lapic_lint_written(a, entry - LVT_LINT0);
}

/* What both modes have in common; v has no reserved bits that matter. */
static bool reg_write(struct lapic *a, unsigned reg, uint32_t v)
{
	struct lapic_model *m = &a->m;

	switch (reg) {
	case REG_TPR:
		m->tpr = (uint8_t)v;
		if (lapic_pending_vector(a) >= 0)
			lapic_recheck(a);
		return true;
	case REG_EOI:
		lapic_eoi(a);
		return true;
	case REG_SVR:
		write_svr(a, v);
		return true;
	case REG_ESR:
		/* 11.5.3: a write makes what was collected since the last one readable. */
		m->esr = m->esr_pending;
		m->esr_pending = 0;
		return true;
	case REG_LVT ... REG_LVT_LAST:
		write_lvt(a, reg - REG_LVT, v);
		return true;
	case REG_INITIAL:
		lapic_timer_set_initial(a, v);
		return true;
	case REG_DIVIDE:
		lapic_timer_set_divide(a, v);
		return true;
	default:
		return false;
	}
}

/* xAPIC. */

static void xapic_write(struct lapic *a, unsigned reg, uint32_t v)
{
	struct lapic_model *m = &a->m;

	switch (reg) {
	case REG_ICR:
		m->icr = v & ~LAPIC_ICR_RESERVED;
		lapic_send_ipi(a, m->icr, m->icr_high >> 24);
		return;
	case REG_ICR_HIGH:
		m->icr_high = v & 0xff000000;
		return;
	case REG_LDR:
		m->ldr = v & 0xff000000;
		return;
	case REG_DFR:
		m->dfr = v | 0x0fffffff;
		return;
	case REG_ID:		/* read-only here, as on every recent processor */
	case REG_VERSION:
	case REG_APR:
	case REG_PPR:
	case REG_RRD:
	case REG_ISR ... REG_IRR + 7:
	case REG_CURRENT:
		return;
	default:
		if (!reg_write(a, reg, v))
			lapic_error(a, ESR_REGISTER);
	}
}

static uint32_t xapic_read(struct lapic *a, unsigned reg)
{
	uint32_t v = 0;

	switch (reg) {
	case REG_DFR:
		return a->m.dfr;
	case REG_ICR_HIGH:
		return a->m.icr_high;
	case REG_APR:		/* no APIC bus to arbitrate for, no remote reads */
	case REG_RRD:
	case REG_EOI:
		return 0;
	default:
		if (!reg_read(a, reg, &v))
			lapic_error(a, ESR_REGISTER);
		return v;
	}
}

static bool xapic_mode(const struct lapic *a)
{
	return lapic_hw_enabled(a) && !lapic_x2apic(a) && !a->remote;
}

/*
 * 11.4.1: registers are 32 bits wide at multiples of 16 and other accesses are
 * undefined.  Here a read gives the bytes that lie there (zero between the
 * registers), and a write that is not a whole register does nothing.
 */
uint64_t lapic_mmio_read(struct lapic *a, uint64_t offset, unsigned size)
{
	unsigned byte = offset & 0xf;
	uint64_t mask = size >= 8 ? UINT64_MAX : BIT(8 * size) - 1;

	if (!xapic_mode(a) || offset > 0xfff)
		return mask;
	if (byte >= 4)
		return 0;
	return (uint64_t)xapic_read(a, offset >> 4) >> 8 * byte & mask;
}

void lapic_mmio_write(struct lapic *a, uint64_t offset, unsigned size, uint64_t value)
{
	if (xapic_mode(a) && offset <= 0xfff && !(offset & 0xf) && size >= 4)
		xapic_write(a, offset >> 4, (uint32_t)value);
}

/* x2APIC. */

static bool x2apic_reserved_clear(unsigned reg, uint32_t v)
{
	switch (reg) {
	case REG_TPR:
		return !(v & ~0xffu);
	case REG_EOI:
	case REG_ESR:
		return v == 0;
	case REG_SVR:
		return !(v & ~(uint32_t)(0xff | SVR_ENABLE | SVR_NO_EOI_BROADCAST));
	case REG_LVT ... REG_LVT_LAST:
		return !(v & ~(lapic_lvt_mask[reg - REG_LVT] | LVT_READ_ONLY));
	case REG_DIVIDE:
		return !(v & ~0xbu);
	case REG_SELF_IPI:
		return !(v & ~0xffu);
	default:
		return true;
	}
}

bool lapic_msr_read(struct lapic *a, uint32_t msr, uint64_t *value)
{
	uint32_t v;

	if (!lapic_x2apic(a) || !reg_read(a, msr - MSR_BASE, &v))
		return false;
	*value = v;
	if (msr - MSR_BASE == REG_ICR)
		*value |= (uint64_t)a->m.icr_high << 32;
	return true;
}

bool lapic_msr_write(struct lapic *a, uint32_t msr, uint64_t value)
{
	unsigned reg = msr - MSR_BASE;

	if (!lapic_x2apic(a))
		return false;
	if (reg == REG_ICR) {
		if (value & LAPIC_ICR_RESERVED)
			return false;
		a->m.icr = (uint32_t)value;
		a->m.icr_high = value >> 32;
		lapic_send_ipi(a, a->m.icr, a->m.icr_high);
		return true;
	}
	if (value >> 32 || !x2apic_reserved_clear(reg, (uint32_t)value))
		return false;
	if (reg == REG_SELF_IPI) {
		lapic_self_ipi(a, (uint8_t)value);
		return true;
	}
	return reg_write(a, reg, (uint32_t)value);
}
