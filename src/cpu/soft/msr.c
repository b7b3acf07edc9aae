/*
 * Model-specific registers: one table.  SDM vol. 4, chapter 2.1 (architectural
 * MSRs); vol. 3, 11.11 (MTRRs), 11.12 (PAT), chapter 10 (APIC).
 *
 * An MSR that is not in the table does not exist: #GP.  Those of a hypervisor are not here
 * (clock/paravirt.h).
 */
#include "chipset/lapic.h"
#include "cpu/model.h"
#include "cpu/soft/desc.h"
#include "cpu/soft/msr.h"
#include "cpu/soft/system.h"
#include "vm/vm.h"

/* ---- Checks of values -------------------------------------------------------- */

static bool canonical(struct soft_cpu *c, const struct soft_msr *m, uint64_t v)
{
	return soft_canonical(v);
}

/* UC, WC, WT, WP, WB; in PAT also UC-. */
static bool memory_type(unsigned t, bool pat)
{
	return t == 0 || t == 1 || t == 4 || t == 5 || t == 6 || (pat && t == 7);
}

bool soft_mtrr_type(unsigned type)
{
	return memory_type(type, false);
}

static bool eight_types(uint64_t v, bool pat)
{
	for (unsigned i = 0; i < 8; i++)
		if (!memory_type(v >> (i * 8) & 0xff, pat))
			return false;
	return true;
}

static bool pat_types(struct soft_cpu *c, const struct soft_msr *m, uint64_t v)
{
	return eight_types(v, true);
}

static bool mtrr_fixed_types(struct soft_cpu *c, const struct soft_msr *m, uint64_t v)
{
	return eight_types(v, false);
}

static bool mtrr_type(struct soft_cpu *c, const struct soft_msr *m, uint64_t v)
{
	return memory_type(v & 0xff, false);
}

/* ---- Registers that are more than a field -------------------------------------- */

static uint64_t efer_read(struct soft_cpu *c, const struct soft_msr *m)
{
	return c->s.efer;
}

static bool efer_write(struct soft_cpu *c, const struct soft_msr *m, uint64_t v)
{
	uint64_t old = c->s.efer;

	/* LMA is the processor's; LME may change only while paging is off (9.8.5). */
	v = (v & ~EFER_LMA) | (old & EFER_LMA);
	if ((v ^ old) & EFER_LME && c->s.cr0 & CR0_PG)
		return false;
	c->s.efer = v;
	if ((v ^ old) & EFER_NXE)
		soft_tlb_flush(c, true);
	soft_update_mode(c);
	return true;
}

static uint64_t base_read(struct soft_cpu *c, const struct soft_msr *m)
{
	return c->s.seg[m->number == MSR_FS_BASE ? SEG_FS : SEG_GS].base;
}

static bool base_write(struct soft_cpu *c, const struct soft_msr *m, uint64_t v)
{
	soft_set_seg_base(c, m->number == MSR_FS_BASE ? SEG_FS : SEG_GS, v);
	return true;
}

static void adjust_changed(struct soft_cpu *c)
{
	if (!c->v || !c->v->lapic)
		return;
	device_lock(c->vm);
	lapic_set_tsc_adjust(c->v->lapic, c->s.tsc_adjust);
	paravirt_tsc_moved(c->v);
	device_unlock(c->vm);
}

static uint64_t tsc_read(struct soft_cpu *c, const struct soft_msr *m)
{
	return soft_tsc(c);
}

/* Writing the counter adds the same to IA32_TSC_ADJUST (17.17.3). */
static bool tsc_write(struct soft_cpu *c, const struct soft_msr *m, uint64_t v)
{
	c->s.tsc_adjust += v - soft_tsc(c);
	adjust_changed(c);
	return true;
}

static uint64_t tsc_adjust_read(struct soft_cpu *c, const struct soft_msr *m)
{
	return c->s.tsc_adjust;
}

static bool tsc_adjust_write(struct soft_cpu *c, const struct soft_msr *m, uint64_t v)
{
	c->s.tsc_adjust = v;
	adjust_changed(c);
	return true;
}

static uint64_t deadline_read(struct soft_cpu *c, const struct soft_msr *m)
{
	uint64_t v;

	if (!c->v || !c->v->lapic)
		return 0;
	device_lock(c->vm);
	v = lapic_get_tsc_deadline(c->v->lapic);
	device_unlock(c->vm);
	return v;
}

static bool deadline_write(struct soft_cpu *c, const struct soft_msr *m, uint64_t v)
{
	if (!c->v || !c->v->lapic)
		return true;
	device_lock(c->vm);
	lapic_set_tsc_deadline(c->v->lapic, v);
	device_unlock(c->vm);
	return true;
}

static uint64_t apic_base_read(struct soft_cpu *c, const struct soft_msr *m)
{
	uint64_t v;

	if (!c->v || !c->v->lapic)
		return c->s.apic_base;
	device_lock(c->vm);
	v = lapic_get_base(c->v->lapic);
	device_unlock(c->vm);
	return v;
}

static bool apic_base_write(struct soft_cpu *c, const struct soft_msr *m, uint64_t v)
{
	bool ok;

	if (v >> c->model->phys_bits)
		return false;
	if (!c->v || !c->v->lapic) {
		c->s.apic_base = v;
		return true;
	}
	device_lock(c->vm);
	ok = lapic_set_base(c->v->lapic, v);
	device_unlock(c->vm);
	/* The page at the old or new base is not memory (any more). */
	if (ok)
		soft_tlb_flush(c, true);
	return ok;
}

static bool discard(struct soft_cpu *c, const struct soft_msr *m, uint64_t v)
{
	return true;
}

static uint64_t phys_reserved(const struct soft_cpu *c)
{
	return ~(BIT(c->model->phys_bits) - 1);
}

/* Variable MTRRs: base and mask in turn from 200h. */
static uint64_t *mtrr_var(struct soft_cpu *c, uint32_t msr)
{
	unsigned n = (msr - MSR_MTRR_VAR) / 2;

	return msr & 1 ? &c->s.mtrr_var_mask[n] : &c->s.mtrr_var_base[n];
}

static uint64_t mtrr_var_read(struct soft_cpu *c, const struct soft_msr *m)
{
	return *mtrr_var(c, m->number);
}

static bool mtrr_var_write(struct soft_cpu *c, const struct soft_msr *m, uint64_t v)
{
	if (v & phys_reserved(c))
		return false;
	if (m->number & 1 ? v & 0x7ff : v & 0xf00 || !memory_type(v & 0xff, false))
		return false;
	*mtrr_var(c, m->number) = v;
	return true;
}

/* ---- The table ------------------------------------------------------------------ */

#define FIELD(n, f, rsvd, ...) \
	{ .name = #f, .number = (n), .field = offsetof(struct cpu_arch_state, f), \
	  .is_field = true, .reserved = (rsvd), __VA_ARGS__ }
#define CONSTANT(n, nm, v) { .name = (nm), .number = (n), .constant = (v), .read_only = true }
#define FIXED_MTRR(n, i) \
	{ .name = "mtrr_fixed", .number = (n), .is_field = true, .check = mtrr_fixed_types, \
	  .field = offsetof(struct cpu_arch_state, mtrr_fixed) + (i) * sizeof(uint64_t) }
#define VAR_MTRR(n) \
	{ .name = "mtrr_var", .number = MSR_MTRR_VAR + (n), .read = mtrr_var_read, \
	  .write = mtrr_var_write }

#define HIGH32 0xffffffff00000000ull

/* In order of number. */
const struct soft_msr soft_msrs[] = {
	{ .name = "tsc", .number = MSR_TSC, .read = tsc_read, .write = tsc_write },
	CONSTANT(0x17, "platform_id", 0),
	{ .name = "apic_base", .number = MSR_APIC_BASE, .read = apic_base_read,
	  .write = apic_base_write },
	{ .name = "tsc_adjust", .number = MSR_TSC_ADJUST, .read = tsc_adjust_read,
	  .write = tsc_adjust_write },
	FIELD(MSR_SPEC_CTRL, spec_ctrl, ~(BIT(0) | BIT(10))),	/* IBRS, BHI_DIS_S */
	{ .name = "pred_cmd", .number = MSR_PRED_CMD, .reserved = ~1ull, .write_only = true,
	  .write = discard },
	/* Guests write 0 and read the revision after CPUID. */
	{ .name = "bios_sign_id", .number = MSR_BIOS_SIGN_ID, .constant = 1ull << 32,
	  .write = discard },
	CONSTANT(0xfe, "mtrr_cap", 0x508),	/* 8 variable, fixed, WC */
	CONSTANT(MSR_ARCH_CAPABILITIES, "arch_capabilities", CPU_ARCH_CAPABILITIES),
	FIELD(MSR_SYSENTER_CS, sysenter_cs, 0, .keep = 0xffffffff),
	FIELD(MSR_SYSENTER_ESP, sysenter_esp, 0, .check = canonical),
	FIELD(MSR_SYSENTER_EIP, sysenter_eip, 0, .check = canonical),
	CONSTANT(0x179, "mcg_cap", 0),				/* no banks */
	{ .name = "mcg_status", .number = 0x17a, .reserved = ~0ull, .write = discard },
	/* Fast strings may be switched; BTS and PEBS are reported as not there. */
	FIELD(MSR_MISC_ENABLE, misc_enable, ~(MISC_ENABLE_FIXED | 1ull), .keep = 1,
	      .always = MISC_ENABLE_FIXED),
	/* Last-branch recording and branch stepping are not there, and read as off. */
	{ .name = "debugctl", .number = 0x1d9, .reserved = ~3ull, .write = discard },
	VAR_MTRR(0), VAR_MTRR(1), VAR_MTRR(2), VAR_MTRR(3),
	VAR_MTRR(4), VAR_MTRR(5), VAR_MTRR(6), VAR_MTRR(7),
	VAR_MTRR(8), VAR_MTRR(9), VAR_MTRR(10), VAR_MTRR(11),
	VAR_MTRR(12), VAR_MTRR(13), VAR_MTRR(14), VAR_MTRR(15),
	FIXED_MTRR(0x250, 0), FIXED_MTRR(0x258, 1), FIXED_MTRR(0x259, 2),
	FIXED_MTRR(0x268, 3), FIXED_MTRR(0x269, 4), FIXED_MTRR(0x26a, 5), FIXED_MTRR(0x26b, 6),
	FIXED_MTRR(0x26c, 7), FIXED_MTRR(0x26d, 8), FIXED_MTRR(0x26e, 9), FIXED_MTRR(0x26f, 10),
	FIELD(MSR_PAT, pat, 0, .check = pat_types),
	FIELD(MSR_MTRR_DEF_TYPE, mtrr_def_type, ~0xcffull, .check = mtrr_type),
	{ .name = "tsc_deadline", .number = MSR_TSC_DEADLINE, .read = deadline_read,
	  .write = deadline_write },
	{ .name = "efer", .number = MSR_EFER, .read = efer_read, .write = efer_write,
	  .reserved = ~(EFER_SCE | EFER_LME | EFER_LMA | EFER_NXE) },
	FIELD(MSR_STAR, star, 0),
	FIELD(MSR_LSTAR, lstar, 0, .check = canonical),
	FIELD(MSR_CSTAR, cstar, 0, .check = canonical),
	FIELD(MSR_SFMASK, sfmask, HIGH32),
	{ .name = "fs_base", .number = MSR_FS_BASE, .read = base_read, .write = base_write,
	  .check = canonical },
	{ .name = "gs_base", .number = MSR_GS_BASE, .read = base_read, .write = base_write,
	  .check = canonical },
	FIELD(MSR_KERNEL_GS_BASE, kernel_gs_base, 0, .check = canonical),
	FIELD(MSR_TSC_AUX, tsc_aux, HIGH32),
};
const unsigned soft_nmsrs = ARRAY_SIZE(soft_msrs);

static const struct soft_msr *find(uint32_t number)
{
	unsigned low = 0, high = soft_nmsrs;

	while (low < high) {
		unsigned mid = (low + high) / 2;

		if (soft_msrs[mid].number == number)
			return &soft_msrs[mid];
		if (soft_msrs[mid].number < number)
			low = mid + 1;
		else
			high = mid;
	}
	return NULL;
}

static uint64_t *field_of(struct soft_cpu *c, const struct soft_msr *m)
{
	return (uint64_t *)((char *)&c->s + m->field);
}

/* ---- Access ----------------------------------------------------------------------- */

static bool is_x2apic(uint32_t msr)
{
	return msr >= 0x800 && msr <= 0x8ff;
}

static void sync(struct soft_cpu *c, const struct soft_op *op)
{
	if (op)
		soft_sync_clock(c, op);
}

bool soft_msr_read(struct soft_cpu *c, const struct soft_op *op, uint32_t msr, uint64_t *value)
{
	const struct soft_msr *m;
	bool ok;

	if (is_x2apic(msr)) {
		if (!c->v || !c->v->lapic)
			return false;
		sync(c, op);
		device_lock(c->vm);
		ok = lapic_msr_read(c->v->lapic, msr, value);
		device_unlock(c->vm);
		return ok;
	}
	if (paravirt_owns(c->vm, msr)) {
		sync(c, op);
		device_lock(c->vm);
		ok = paravirt_msr_read(c->v, msr, value);
		device_unlock(c->vm);
		return ok;
	}
	m = find(msr);
	if (!m || m->write_only)
		return false;
	if (m->is_field) {
		*value = *field_of(c, m);
	} else if (m->read) {
		sync(c, op);
		*value = m->read(c, m);
	} else {
		*value = m->constant;
	}
	return true;
}

bool soft_msr_write(struct soft_cpu *c, const struct soft_op *op, uint32_t msr, uint64_t value)
{
	const struct soft_msr *m;
	bool ok;

	if (is_x2apic(msr)) {
		if (!c->v || !c->v->lapic)
			return false;
		sync(c, op);
		device_lock(c->vm);
		ok = lapic_msr_write(c->v->lapic, msr, value);
		device_unlock(c->vm);
		return ok;
	}
	if (paravirt_owns(c->vm, msr)) {
		sync(c, op);
		device_lock(c->vm);
		ok = paravirt_msr_write(c->v, msr, value);
		device_unlock(c->vm);
		return ok;
	}
	m = find(msr);
	if (!m || m->read_only || value & m->reserved || (m->check && !m->check(c, m, value)))
		return false;
	if (m->is_field) {
		if (m->keep)
			value &= m->keep;
		*field_of(c, m) = value | m->always;
		return true;
	}
	sync(c, op);
	return m->write(c, m, value);
}
