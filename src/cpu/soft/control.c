/*
 * Control and debug registers, and what drops translations.  SDM vol. 3, 2.5
 * (control registers), 4.10.4 (invalidation), 17.2 (debug registers).
 *
 * MOV: dst and src are the number of the control or debug register, or the byte
 * offset of the general one.
 */
#include "chipset/lapic.h"
#include "cpu/model.h"
#include "cpu/soft/desc.h"
#include "cpu/soft/sysops.h"
#include "cpu/soft/system.h"
#include "vm/vm.h"

static _Noreturn void gp0(struct soft_cpu *c, const struct soft_op *op)
{
	soft_raise_err(c, op, EXC_GP, 0);
}

static const struct soft_op *mode_changed(struct soft_cpu *c, const struct soft_op *op)
{
	uint64_t rip = soft_next_rip(c, op);

	soft_update_mode(c);
	return soft_go_on(c, op, rip);
}

/* ---- CR0 ------------------------------------------------------------------ */

#define CR0_DEFINED (CR0_PE | CR0_MP | CR0_EM | CR0_TS | CR0_ET | CR0_NE | CR0_WP | CR0_AM | \
		     CR0_NW | CR0_CD | CR0_PG)

/* What enabling or disabling paging asks for (SDM vol. 3, 4.1.1, 9.8.5). */
static void check_paging(struct soft_cpu *c, const struct soft_op *op, uint64_t v)
{
	bool cs_l = c->s.seg[SEG_CS].attr & ATTR_L;

	if (v & CR0_PG) {
		if (!(c->s.efer & EFER_LME) || c->s.cr0 & CR0_PG)
			return;
		if (!(c->s.cr4 & CR4_PAE) || cs_l || !(c->s.seg[SEG_TR].attr & 8))
			gp0(c, op);
	} else if (c->s.cr0 & CR0_PG && (c->s.cr4 & CR4_PCIDE || c->mode & MODE_CS64)) {
		gp0(c, op);
	}
}

static void write_cr0(struct soft_cpu *c, const struct soft_op *op, uint64_t v)
{
	uint64_t changed;

	if (v >> 32)
		gp0(c, op);
	v = (v & CR0_DEFINED) | CR0_ET;
	if ((v & CR0_PG && !(v & CR0_PE)) || (v & CR0_NW && !(v & CR0_CD)))
		gp0(c, op);
	check_paging(c, op, v);
	changed = v ^ c->s.cr0;
	/* PAE paging reads the PDPTEs when paging or caching changes (4.4.1). */
	if (v & CR0_PG && c->s.cr4 & CR4_PAE && !(c->s.efer & EFER_LME) &&
	    changed & (CR0_PG | CR0_CD | CR0_NW))
		soft_load_pdptes(c, op, c->s.cr3);
	c->s.cr0 = v;
	if (changed & CR0_PG) {
		if (v & CR0_PG && c->s.efer & EFER_LME)
			c->s.efer |= EFER_LMA;
		else
			c->s.efer &= ~EFER_LMA;
	}
	if (changed & (CR0_PG | CR0_WP | CR0_PE))
		soft_tlb_flush(c, true);
}

/* ---- CR3 ------------------------------------------------------------------ */

static void write_cr3(struct soft_cpu *c, const struct soft_op *op, uint64_t v)
{
	bool keep = false;

	if (c->s.cr4 & CR4_PCIDE && v & BIT(63)) {
		keep = true;
		v &= ~BIT(63);
	}
	if (soft_long_mode(c)) {
		if (v >> c->model->phys_bits)
			gp0(c, op);
	} else if (c->s.cr0 & CR0_PG && c->s.cr4 & CR4_PAE) {
		soft_load_pdptes(c, op, v);
	}
	soft_tlb_set_cr3(c, v, keep);
}

/* ---- CR4 ------------------------------------------------------------------ */

uint64_t soft_cr4_allowed(const struct soft_cpu *c)
{
	return cpu_model_cr4(c->model);
}

static void write_cr4(struct soft_cpu *c, const struct soft_op *op, uint64_t v)
{
	uint64_t changed = v ^ c->s.cr4;

	if (v & ~soft_cr4_allowed(c))
		gp0(c, op);
	if (soft_long_mode(c) && !(v & CR4_PAE))
		gp0(c, op);
	/* 4.10.1: PCIDs are switched on in IA-32e mode, with PCID 0. */
	if (v & changed & CR4_PCIDE && (!soft_long_mode(c) || c->s.cr3 & 0xfff))
		gp0(c, op);
	if (c->s.cr0 & CR0_PG && v & CR4_PAE && !soft_long_mode(c) &&
	    changed & (CR4_PAE | CR4_PGE | CR4_PSE | CR4_SMEP))
		soft_load_pdptes(c, op, c->s.cr3);
	c->s.cr4 = v;
	if (changed & (CR4_PSE | CR4_PAE | CR4_PGE | CR4_PCIDE | CR4_SMEP | CR4_SMAP))
		soft_tlb_flush(c, true);
	/* The set of translations in use is chosen by PCID. */
	if (changed & CR4_PCIDE)
		soft_tlb_set_cr3(c, c->s.cr3, false);
}

/* ---- CR8 ------------------------------------------------------------------ */

static uint64_t read_cr8(struct soft_cpu *c)
{
	uint64_t v;

	if (!c->v || !c->v->lapic)
		return c->s.cr8;
	device_lock(c->vm);
	v = lapic_get_tpr(c->v->lapic);
	device_unlock(c->vm);
	return v;
}

static void write_cr8(struct soft_cpu *c, const struct soft_op *op, uint64_t v)
{
	if (v & ~0xfull)
		gp0(c, op);
	c->s.cr8 = v;
	if (!c->v || !c->v->lapic)
		return;
	soft_sync_clock(c, op);
	device_lock(c->vm);
	lapic_set_tpr(c->v->lapic, (uint8_t)v);
	device_unlock(c->vm);
}

/* ---- MOV CR ---------------------------------------------------------------- */

static unsigned reg_size(struct soft_cpu *c)
{
	return c->mode & MODE_CS64 ? 8 : 4;
}

const struct soft_op *op_mov_from_cr(struct soft_cpu *c, const struct soft_op *op)
{
	uint64_t v;

	soft_need_cpl0(c, op);
	switch (op->src) {
	case 0: v = c->s.cr0; break;
	case 2: v = c->s.cr2; break;
	case 3: v = c->s.cr3; break;
	case 4: v = c->s.cr4; break;
	case 8: v = read_cr8(c); break;
	default: soft_raise(c, op, EXC_UD);
	}
	soft_reg_set(c, op->dst, reg_size(c), v);
	return op + 1;
}

const struct soft_op *op_mov_to_cr(struct soft_cpu *c, const struct soft_op *op)
{
	uint64_t v;

	soft_need_cpl0(c, op);
	v = soft_reg_get(c, op->src, reg_size(c));
	switch (op->dst) {
	case 0: write_cr0(c, op, v); break;
	case 2: c->s.cr2 = v; break;
	case 3: write_cr3(c, op, v); break;
	case 4: write_cr4(c, op, v); break;
	case 8: write_cr8(c, op, v); break;
	default: soft_raise(c, op, EXC_UD);
	}
	return mode_changed(c, op);
}

const struct soft_op *op_clts(struct soft_cpu *c, const struct soft_op *op)
{
	soft_need_cpl0(c, op);
	c->s.cr0 &= ~CR0_TS;
	return mode_changed(c, op);
}

/* LMSW writes PE, MP, EM, TS, and cannot clear PE. */
const struct soft_op *op_lmsw(struct soft_cpu *c, const struct soft_op *op)
{
	uint64_t v;

	soft_need_cpl0(c, op);
	v = op->flags & OPF_MEM ? soft_load(c, op, soft_ea(c, op), 2) : R16(c, op->src);
	v = (c->s.cr0 & ~0xeull) | (v & 0xf);
	write_cr0(c, op, v);
	return mode_changed(c, op);
}

const struct soft_op *op_smsw(struct soft_cpu *c, const struct soft_op *op)
{
	if (c->s.cr4 & CR4_UMIP && c->cpl != 0)
		gp0(c, op);
	if (op->flags & OPF_MEM)
		soft_store(c, op, soft_ea(c, op), 2, c->s.cr0);
	else
		soft_reg_set(c, op->dst, op->size, c->s.cr0);
	return op + 1;
}

/* ---- Debug registers -------------------------------------------------------- */

/* DR4 and DR5 are DR6 and DR7, unless CR4.DE says that they are not there. */
static unsigned debug_register(struct soft_cpu *c, const struct soft_op *op, unsigned n)
{
	if (n >= 8)
		soft_raise(c, op, EXC_UD);
	soft_need_cpl0(c, op);
	if ((n == 4 || n == 5) && c->s.cr4 & CR4_DE)
		soft_raise(c, op, EXC_UD);
	if (c->s.dr7 & DR7_GD) {
		c->sys.dr6 = DR6_BD;
		soft_raise(c, op, EXC_DB);
	}
	return n == 4 || n == 5 ? n + 2 : n;
}

const struct soft_op *op_mov_from_dr(struct soft_cpu *c, const struct soft_op *op)
{
	unsigned n = debug_register(c, op, op->src);
	uint64_t v = n == 6 ? c->s.dr6 : n == 7 ? c->s.dr7 : c->s.dr[n];

	soft_reg_set(c, op->dst, reg_size(c), v);
	return op + 1;
}

const struct soft_op *op_mov_to_dr(struct soft_cpu *c, const struct soft_op *op)
{
	unsigned n = debug_register(c, op, op->dst);
	uint64_t v = soft_reg_get(c, op->src, reg_size(c));

	if (n >= 6 && v >> 32)
		gp0(c, op);
	if (n == 6) {
		c->s.dr6 = (v & DR6_WRITABLE) | DR6_FIXED;
		return op + 1;
	}
	if (n == 7)
		c->s.dr7 = (v & DR7_WRITABLE) | DR7_FIXED;
	else
		c->s.dr[n] = v;
	/* Pages with data breakpoints are not cached (soft_page_has_breakpoint). */
	soft_tlb_flush(c, true);
	return mode_changed(c, op);
}

/* ---- Invalidation ------------------------------------------------------------ */

const struct soft_op *op_invlpg(struct soft_cpu *c, const struct soft_op *op)
{
	uint64_t lin = soft_ea(c, op);

	soft_need_cpl0(c, op);
	if (soft_canonical(lin))
		soft_tlb_flush_page(c, lin);
	return soft_go_on(c, op, soft_next_rip(c, op));
}

/* Register dst: the type. SDM vol. 2, INVPCID. */
const struct soft_op *op_invpcid(struct soft_cpu *c, const struct soft_op *op)
{
	uint64_t type, desc[2];

	if (c->mode & MODE_VM86)
		gp0(c, op);
	soft_need_cpl0(c, op);
	type = soft_reg_get(c, op->dst, reg_size(c));
	if (type > 3)
		gp0(c, op);
	soft_load_bytes(c, op, soft_ea(c, op), desc, 16);
	if (type <= 1 && (desc[0] >> 12 || (desc[0] && !(c->s.cr4 & CR4_PCIDE))))
		gp0(c, op);
	if (type == 0 && !soft_canonical(desc[1]))
		gp0(c, op);
	soft_tlb_invpcid(c, (unsigned)type, desc[0] & 0xfff, desc[1]);
	return soft_go_on(c, op, soft_next_rip(c, op));
}

/* INVD and WBINVD: there are no caches that could differ from memory. */
const struct soft_op *op_wbinvd(struct soft_cpu *c, const struct soft_op *op)
{
	soft_need_cpl0(c, op);
	return op + 1;
}
