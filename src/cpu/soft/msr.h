/* The table of model-specific registers: msr.c. */
#ifndef SKEP_CPU_SOFT_MSR_H
#define SKEP_CPU_SOFT_MSR_H

#include "cpu/soft/soft.h"

#define MSR_TSC			0x00000010u
#define MSR_APIC_BASE		0x0000001bu
#define MSR_TSC_ADJUST		0x0000003bu
#define MSR_SPEC_CTRL		0x00000048u
#define MSR_PRED_CMD		0x00000049u
#define MSR_BIOS_SIGN_ID	0x0000008bu
#define MSR_ARCH_CAPABILITIES	0x0000010au
#define MSR_SYSENTER_CS		0x00000174u
#define MSR_SYSENTER_ESP	0x00000175u
#define MSR_SYSENTER_EIP	0x00000176u
#define MSR_MISC_ENABLE		0x000001a0u
#define MSR_MTRR_VAR		0x00000200u
#define MSR_PAT			0x00000277u
#define MSR_MTRR_DEF_TYPE	0x000002ffu
#define MSR_TSC_DEADLINE	0x000006e0u
#define MSR_EFER		0xc0000080u
#define MSR_STAR		0xc0000081u
#define MSR_LSTAR		0xc0000082u
#define MSR_CSTAR		0xc0000083u
#define MSR_SFMASK		0xc0000084u
#define MSR_FS_BASE		0xc0000100u
#define MSR_GS_BASE		0xc0000101u
#define MSR_KERNEL_GS_BASE	0xc0000102u
#define MSR_TSC_AUX		0xc0000103u

/* Branch trace storage and PEBS unavailable. */
#define MISC_ENABLE_FIXED	0x1800ull

struct soft_msr {
	const char *name;
	uint32_t number;
	uint64_t reserved;	/* bits that must be written as zero */
	/* More about the value; false: #GP. */
	bool (*check)(struct soft_cpu *c, const struct soft_msr *m, uint64_t v);
	/* A uint64_t of struct cpu_arch_state: value & keep (0: all) | always. */
	bool is_field;
	size_t field;
	uint64_t keep, always;
	/* Or functions; read NULL: the constant. */
	uint64_t constant;
	bool read_only, write_only;
	uint64_t (*read)(struct soft_cpu *c, const struct soft_msr *m);
	bool (*write)(struct soft_cpu *c, const struct soft_msr *m, uint64_t v);
};

/* Is it a memory type that an MTRR can give? */
bool soft_mtrr_type(unsigned type);

extern const struct soft_msr soft_msrs[];
extern const unsigned soft_nmsrs;

#endif
