/* Every field of the architectural state, in the order in which it is shown. */
#include "cpu/arch.h"

#include "state/state.h"

static const struct state_field segment_fields[] = {
	STATE_U16(struct cpu_segment, selector),
	STATE_U16(struct cpu_segment, attr, .max = 0xf0ff),
	STATE_U32(struct cpu_segment, limit),
	STATE_U64(struct cpu_segment, base),
	STATE_U8(struct cpu_segment, unusable, .max = 1),
};

static const struct state_record segment_record = {
	.kind = "cpu-segment", .version = 1, .model_size = sizeof(struct cpu_segment),
	.fields = segment_fields, .nfields = ARRAY_SIZE(segment_fields),
};

static const struct state_field table_fields[] = {
	STATE_U64(struct cpu_table, base),
	STATE_U16(struct cpu_table, limit),
};

static const struct state_record table_record = {
	.kind = "cpu-table", .version = 1, .model_size = sizeof(struct cpu_table),
	.fields = table_fields, .nfields = ARRAY_SIZE(table_fields),
};

static const struct state_field fpu_fields[] = {
	STATE_U16(struct cpu_fpu, fcw),
	STATE_U16(struct cpu_fpu, fsw),
	STATE_U8(struct cpu_fpu, ftw),
	STATE_U16(struct cpu_fpu, fop, .max = 0x7ff),
	STATE_U64(struct cpu_fpu, fip),
	STATE_U64(struct cpu_fpu, fdp),
	STATE_U16(struct cpu_fpu, fcs),
	STATE_U16(struct cpu_fpu, fds),
	STATE_ARRAY(struct cpu_fpu, st, STATE_T_BYTES),
	STATE_U32(struct cpu_fpu, mxcsr, .max = 0xffff),
	STATE_ARRAY(struct cpu_fpu, xmm, STATE_T_BYTES),
	STATE_ARRAY(struct cpu_fpu, ymmh, STATE_T_BYTES),
};

static const struct state_record fpu_record = {
	.kind = "cpu-fpu", .version = 1, .model_size = sizeof(struct cpu_fpu),
	.fields = fpu_fields, .nfields = ARRAY_SIZE(fpu_fields),
};

static const struct state_field cpu_fields[] = {
	STATE_ARRAY(struct cpu_arch_state, gpr, STATE_T_U64),
	STATE_U64(struct cpu_arch_state, rip),
	STATE_U64(struct cpu_arch_state, rflags, .max = 0x3fffff),
	STATE_STRUCTS(struct cpu_arch_state, seg, &segment_record),
	STATE_STRUCT(struct cpu_arch_state, gdtr, &table_record),
	STATE_STRUCT(struct cpu_arch_state, idtr, &table_record),
	STATE_U64(struct cpu_arch_state, cr0, .max = UINT32_MAX),
	STATE_U64(struct cpu_arch_state, cr2),
	STATE_U64(struct cpu_arch_state, cr3),
	STATE_U64(struct cpu_arch_state, cr4, .max = UINT32_MAX),
	STATE_U64(struct cpu_arch_state, cr8, .max = 15),
	STATE_ARRAY(struct cpu_arch_state, dr, STATE_T_U64),
	STATE_U64(struct cpu_arch_state, dr6, .max = UINT32_MAX),
	STATE_U64(struct cpu_arch_state, dr7, .max = UINT32_MAX),
	STATE_U64(struct cpu_arch_state, xcr0),
	STATE_STRUCT(struct cpu_arch_state, fpu, &fpu_record),
	STATE_U64(struct cpu_arch_state, efer, .max = UINT32_MAX),
	STATE_U64(struct cpu_arch_state, star),
	STATE_U64(struct cpu_arch_state, lstar),
	STATE_U64(struct cpu_arch_state, cstar),
	STATE_U64(struct cpu_arch_state, sfmask, .max = UINT32_MAX),
	STATE_U64(struct cpu_arch_state, kernel_gs_base),
	STATE_U64(struct cpu_arch_state, sysenter_cs),
	STATE_U64(struct cpu_arch_state, sysenter_esp),
	STATE_U64(struct cpu_arch_state, sysenter_eip),
	STATE_U64(struct cpu_arch_state, pat),
	STATE_U64(struct cpu_arch_state, misc_enable),
	STATE_U64(struct cpu_arch_state, tsc_aux, .max = UINT32_MAX),
	STATE_U64(struct cpu_arch_state, apic_base),
	STATE_U64(struct cpu_arch_state, xss),
	STATE_U64(struct cpu_arch_state, tsc_adjust),
	STATE_U64(struct cpu_arch_state, mtrr_def_type),
	STATE_ARRAY(struct cpu_arch_state, mtrr_fixed, STATE_T_U64),
	STATE_ARRAY(struct cpu_arch_state, mtrr_var_base, STATE_T_U64),
	STATE_ARRAY(struct cpu_arch_state, mtrr_var_mask, STATE_T_U64),
	STATE_U64(struct cpu_arch_state, spec_ctrl),
	STATE_ARRAY(struct cpu_arch_state, pdpte, STATE_T_U64),
	STATE_U8(struct cpu_arch_state, halted, .max = 1),
	STATE_U8(struct cpu_arch_state, wait_sipi, .max = 1),
	STATE_U8(struct cpu_arch_state, sti_shadow, .max = 1),
	STATE_U8(struct cpu_arch_state, ss_shadow, .max = 1),
	STATE_U8(struct cpu_arch_state, nmi_pending, .max = 1),
	STATE_U8(struct cpu_arch_state, nmi_blocked, .max = 1),
	STATE_U8(struct cpu_arch_state, init_pending, .max = 1),
	STATE_U8(struct cpu_arch_state, sipi_pending, .max = 1),
	STATE_U8(struct cpu_arch_state, sipi_vector),
	STATE_U64(struct cpu_arch_state, pending_dbg),
};

const struct state_record cpu_arch_record = {
	.kind = "cpu", .version = 1, .model_size = sizeof(struct cpu_arch_state),
	.fields = cpu_fields, .nfields = ARRAY_SIZE(cpu_fields),
};
