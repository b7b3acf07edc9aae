/*
 * The architectural state of an x86-64 processor: what the SDM names, in
 * fixed-width fields, and nothing of how it is executed.
 */
#ifndef SKEP_CPU_ARCH_H
#define SKEP_CPU_ARCH_H

#include "base/util.h"

#include <stdbool.h>
#include <stdint.h>

enum { REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
       REG_R8, REG_R9, REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15 };

enum { SEG_ES, SEG_CS, SEG_SS, SEG_DS, SEG_FS, SEG_GS, SEG_LDTR, SEG_TR, SEG_COUNT };

/*
 * Segment attributes as in bits 40-55 of a descriptor: type 3:0, S 4, DPL 6:5,
 * P 7, (limit 19:16 left zero), AVL 12, L 13, D/B 14, G 15.  limit is in bytes,
 * already scaled by G.  unusable: a null selector in long mode.
 */
struct cpu_segment {
	uint16_t selector;
	uint16_t attr;
	uint32_t limit;
	uint64_t base;
	uint8_t unusable;
};

struct cpu_table { uint64_t base; uint16_t limit; };	/* GDTR, IDTR */

/* x87 and SSE as FXSAVE lays them out logically, and AVX; st[0] is physical register 0. */
struct cpu_fpu {
	uint16_t fcw, fsw;	/* TOP in fsw 13:11 */
	uint8_t ftw;		/* abridged: bit n set = physical register n not empty */
	uint16_t fop;
	uint64_t fip, fdp;
	uint16_t fcs, fds;
	_Alignas(16) uint8_t st[8][16];	/* by PHYSICAL register; 10 bytes used */
	uint32_t mxcsr;
	_Alignas(16) uint8_t xmm[16][16];
	_Alignas(16) uint8_t ymmh[16][16];	/* bits 255:128 of YMM0-15 */
};

struct cpu_arch_state {
	uint64_t gpr[16];
	uint64_t rip, rflags;
	struct cpu_segment seg[SEG_COUNT];
	struct cpu_table gdtr, idtr;
	uint64_t cr0, cr2, cr3, cr4, cr8;
	uint64_t dr[4], dr6, dr7;
	uint64_t xcr0;
	struct cpu_fpu fpu;

	/* MSRs by name. */
	uint64_t efer, star, lstar, cstar, sfmask, kernel_gs_base;
	uint64_t sysenter_cs, sysenter_esp, sysenter_eip;
	uint64_t pat, misc_enable, tsc_aux, apic_base, xss;
	uint64_t tsc_adjust;
	uint64_t mtrr_def_type, mtrr_fixed[11], mtrr_var_base[8], mtrr_var_mask[8];
	uint64_t spec_ctrl;

	/* PAE page-directory pointers as loaded by MOV CR3 (SDM vol. 3, 4.4.1). */
	uint64_t pdpte[4];

	/* Events. */
	uint8_t halted;			/* in HLT */
	uint8_t wait_sipi;
	uint8_t sti_shadow, ss_shadow;	/* interrupt shadow after STI, after MOV/POP SS */
	uint8_t nmi_pending, nmi_blocked;
	uint8_t init_pending;		/* INIT came and was not looked at yet */
	uint8_t sipi_pending;		/* the same of a start-up IPI, with this vector */
	uint8_t sipi_vector;
	uint64_t pending_dbg;		/* DR6 bits of a #DB held over by MOV SS */
};

#define RFLAGS_CF	0x00000001u
#define RFLAGS_PF	0x00000004u
#define RFLAGS_AF	0x00000010u
#define RFLAGS_ZF	0x00000040u
#define RFLAGS_SF	0x00000080u
#define RFLAGS_TF	0x00000100u
#define RFLAGS_IF	0x00000200u
#define RFLAGS_DF	0x00000400u
#define RFLAGS_OF	0x00000800u
#define RFLAGS_IOPL	0x00003000u
#define RFLAGS_NT	0x00004000u
#define RFLAGS_RF	0x00010000u
#define RFLAGS_VM	0x00020000u
#define RFLAGS_AC	0x00040000u
#define RFLAGS_VIF	0x00080000u
#define RFLAGS_VIP	0x00100000u
#define RFLAGS_ID	0x00200000u
#define RFLAGS_STATUS	(RFLAGS_CF | RFLAGS_PF | RFLAGS_AF | RFLAGS_ZF | RFLAGS_SF | RFLAGS_OF)

#define CR0_PE BIT(0)
#define CR0_MP BIT(1)
#define CR0_EM BIT(2)
#define CR0_TS BIT(3)
#define CR0_ET BIT(4)
#define CR0_NE BIT(5)
#define CR0_WP BIT(16)
#define CR0_AM BIT(18)
#define CR0_NW BIT(29)
#define CR0_CD BIT(30)
#define CR0_PG BIT(31)

#define CR4_VME BIT(0)
#define CR4_PVI BIT(1)
#define CR4_TSD BIT(2)
#define CR4_DE BIT(3)
#define CR4_PSE BIT(4)
#define CR4_PAE BIT(5)
#define CR4_MCE BIT(6)
#define CR4_PGE BIT(7)
#define CR4_PCE BIT(8)
#define CR4_OSFXSR BIT(9)
#define CR4_OSXMMEXCPT BIT(10)
#define CR4_UMIP BIT(11)
#define CR4_FSGSBASE BIT(16)
#define CR4_PCIDE BIT(17)
#define CR4_OSXSAVE BIT(18)
#define CR4_SMEP BIT(20)
#define CR4_SMAP BIT(21)

/* XCR0, and the state components of XSAVE (SDM vol. 1, 13.1). */
#define XCR0_X87 BIT(0)
#define XCR0_SSE BIT(1)
#define XCR0_AVX BIT(2)
#define XSAVE_AVX_END 832u	/* bytes of an area with all of these */

#define EFER_SCE BIT(0)
#define EFER_LME BIT(8)
#define EFER_LMA BIT(10)
#define EFER_NXE BIT(11)

enum { EXC_DE = 0, EXC_DB = 1, EXC_NMI = 2, EXC_BP = 3, EXC_OF = 4, EXC_BR = 5, EXC_UD = 6,
       EXC_NM = 7, EXC_DF = 8, EXC_TS = 10, EXC_NP = 11, EXC_SS = 12, EXC_GP = 13, EXC_PF = 14,
       EXC_MF = 16, EXC_AC = 17, EXC_MC = 18, EXC_XM = 19 };

/* Every field of the state above, for dump and, later, save: cpu/arch.c */
struct state_record;
extern const struct state_record cpu_arch_record;

/*
 * Power-on, or INIT, which leaves some of it alone (SDM vol. 3, table 9-1): cpu/reset.c.  signature is
 * EAX of CPUID leaf 1; all processors but the boot processor wait to be started.
 */
void cpu_arch_reset(struct cpu_arch_state *s, bool init, bool boot, uint32_t signature);

#endif
