/*
 * The CPU models.  Revision numbers are part of the name: what a revision
 * answers never changes once a release has saved a machine with it.
 *
 * Leaves that depend on the machine or on live state (APIC id, OSXSAVE, XCR0,
 * number of processors, TSC frequency) are completed by the backend (soft/cpuid.c); those of
 * the hypervisor, from 4000_0000h, are the machine's identity (clock/paravirt.c).
 */
#include "cpu/model.h"

#include <stddef.h>
#include <string.h>

#include "base/util.h"
#include "cpu/arch.h"

#define NOSUB UINT32_MAX
#define B(n) (1u << (n))

/* Leaf 1 ECX. */
#define F1C_V2_1 (B(0)  /* SSE3 */ | B(1) /* PCLMULQDQ */ | B(9) /* SSSE3 */ | \
		  B(13) /* CMPXCHG16B */ | B(17) /* PCID */ | B(19) /* SSE4.1 */ | \
		  B(20) /* SSE4.2 */ | B(21) /* x2APIC */ | B(22) /* MOVBE */ | \
		  B(23) /* POPCNT */ | B(24) /* TSC-deadline */ | B(25) /* AES */ | \
		  B(26) /* XSAVE */ | B(30) /* RDRAND */ | B(31) /* hypervisor */)
/*
 * Leaf 1 EDX.  DE, MTRR, MCE and MCA (without a bank) are what every kernel for such a
 * processor takes for granted; without them it warns.
 */
#define F1D_V2_1 (B(0)  /* FPU */ | B(2) /* DE */ | B(3) /* PSE */ | B(4) /* TSC */ | \
		  B(5)  /* MSR */ | B(6) /* PAE */ | B(7) /* MCE */ | B(8) /* CX8 */ | \
		  B(9)  /* APIC */ | B(11) /* SEP */ | B(12) /* MTRR */ | B(13) /* PGE */ | \
		  B(14) /* MCA */ | B(15) /* CMOV */ | B(16) /* PAT */ | B(17) /* PSE-36 */ | \
		  B(19) /* CLFLUSH */ | B(23) /* MMX */ | B(24) /* FXSR */ | B(25) /* SSE */ | \
		  B(26) /* SSE2 */)
/*
 * Leaf 7 EBX.  Bits 6 and 13: the x87 pointers are stored with a pending
 * exception only, and without segments.
 */
#define F7B_V2_1 (B(0) /* FSGSBASE */ | B(1) /* TSC_ADJUST */ | B(6) /* FDP_EXCPTN_ONLY */ | \
		  B(7) /* SMEP */ | B(9) /* ERMS */ | B(10) /* INVPCID */ | \
		  B(13) /* no FPU CS/DS */ | B(20) /* SMAP */)
#define F7C_V2_1 (B(2) /* UMIP */)
/* With these and the _NO bits of ARCH_CAPABILITIES a guest turns no costly mitigation on. */
#define F7D_V2_1 (B(26) /* IBRS and IBPB */ | B(29) /* ARCH_CAPABILITIES */)
/* Leaf 7.2 EDX: a switch that spares guests clearing branch history on every system call. */
#define F72D_V2_1 (B(4) /* BHI_CTRL */)
/* Leaf 8000_0001h. */
#define FXC_V2_1 (B(0) /* LAHF in 64-bit mode */)
#define FXD_V2_1 (B(11) /* SYSCALL */ | B(20) /* NX */ | B(26) /* 1 GiB pages */ | \
		  B(27) /* RDTSCP */ | B(29) /* 64-bit mode */)

/* What skep-v3.1 has beyond: x86-64-v3. */
#define F1C_V3_1 (F1C_V2_1 | B(12) /* FMA */ | B(28) /* AVX */ | B(29) /* F16C */)
#define F7B_V3_1 (F7B_V2_1 | B(3) /* BMI1 */ | B(5) /* AVX2 */ | B(8) /* BMI2 */)
#define FXC_V3_1 (FXC_V2_1 | B(5) /* LZCNT */)

/*
 * skep-v1.1: what every processor with x86-64 has, and every KVM can give.  It promises nothing about
 * speculation, which is the host's.
 */
#define F1C_V1_1 (B(13) /* CMPXCHG16B */ | B(21) /* x2APIC */ | B(24) /* TSC-deadline */ | \
		  B(31) /* hypervisor */)
#define F7B_V1_1 (B(1) /* TSC_ADJUST */ | B(6) /* FDP_EXCPTN_ONLY */ | B(13) /* no FPU CS/DS */)
#define FXC_V1_1 (B(0) /* LAHF in 64-bit mode */)
#define FXD_V1_1 (B(11) /* SYSCALL */ | B(20) /* NX */ | B(29) /* 64-bit mode */)

/* Four registers of text. */
#define TEXT4(a, b, c, d) ((uint32_t)(a) | (uint32_t)(b) << 8 | (uint32_t)(c) << 16 | \
			   (uint32_t)(d) << 24)

/* Leaf 4: type 1 data, 2 code, 3 unified; ways - 1, lines of 64 bytes, sets - 1. */
#define CACHE_EAX(type, level) ((type) | (level) << 5 | 1u << 8)
#define CACHE_EBX(ways) (63u | ((ways) - 1u) << 22)

/*
 * What all models of this family answer alike, below and above leaf Dh (XSAVE).  A later model that
 * differs in one of these has rows of its own: what is here never changes.
 */
#define LEAVES_BELOW_D(f1c, f7b)							\
	/* "GenuineIntel": its SYSCALL, SYSENTER and MSRs are what is implemented. */	\
	{ 0x0, NOSUB, 0x16, TEXT4('G', 'e', 'n', 'u'), TEXT4('n', 't', 'e', 'l'),	\
	  TEXT4('i', 'n', 'e', 'I') },							\
	/*										\
	 * Family 6, model 0x9f, stepping 1: a number that Intel gave to no product, so	\
	 * that no guest applies a product's errata.					\
	 */										\
	{ 0x1, NOSUB, 0x000906f1, 8u << 8, f1c, F1D_V2_1 },				\
	/* "See leaf 4" and no TLB descriptors. */					\
	{ 0x2, NOSUB, 0x0000ff01, 0, 0, 0 },						\
	{ 0x4, 0, CACHE_EAX(1, 1), CACHE_EBX(8), 63, 0 },	/* 32 KiB data */	\
	{ 0x4, 1, CACHE_EAX(2, 1), CACHE_EBX(8), 63, 0 },	/* 32 KiB code */	\
	{ 0x4, 2, CACHE_EAX(3, 2), CACHE_EBX(8), 2047, 0 },	/* 1 MiB unified */	\
	{ 0x6, NOSUB, B(2) /* ARAT */, 0, 0, 0 },					\
	{ 0x7, 0, 2, f7b, F7C_V2_1, F7D_V2_1 },						\
	{ 0x7, 2, 0, 0, 0, F72D_V2_1 },							\
	{ 0xb, 0, 0, 1, 1u << 8, 0 },							\
	{ 0xb, 1, 0, 1, 2u << 8 | 1, 0 }

#define LEAVES_ABOVE_D(version, fxc)							\
	/* Crystal of 1 GHz, which is also the APIC timer's; the ratio is completed. */	\
	{ 0x15, NOSUB, 1, 1, 1000000000, 0 },						\
	{ 0x16, NOSUB, 1000, 1000, 1000, 0 },						\
	{ 0x80000000, NOSUB, 0x80000008, 0, 0, 0 },					\
	{ 0x80000001, NOSUB, 0, 0, fxc, FXD_V2_1 },					\
	{ 0x80000002, NOSUB, TEXT4('s', 'k', 'e', 'p'), TEXT4('-', 'v', version, '.'),	\
	  TEXT4('1', ' ', 's', 'o'), TEXT4('f', 't', ' ', 'p') },			\
	{ 0x80000003, NOSUB, TEXT4('r', 'o', 'c', 'e'), TEXT4('s', 's', 'o', 'r'), 0, 0 }, \
	{ 0x80000004, NOSUB, 0, 0, 0, 0 },						\
	/* 1 MiB, 8-way, 64-byte lines. */						\
	{ 0x80000006, NOSUB, 0, 0, 1024u << 16 | 6u << 12 | 64, 0 },			\
	{ 0x80000007, NOSUB, 0, 0, 0, B(8) /* invariant TSC */ },			\
	{ 0x80000008, NOSUB, 48u << 8 | 40, 0, 0, 0 }

#define XSAVE_FORMS (B(0) /* XSAVEOPT */ | B(1) /* XSAVEC */)

static const struct cpuid_leaf v2_1_leaves[] = {
	LEAVES_BELOW_D(F1C_V2_1, F7B_V2_1),
	/* x87 and SSE: the legacy region and the header. */
	{ 0xd, 0, 3, 576, 576, 0 },
	{ 0xd, 1, XSAVE_FORMS, 576, 0, 0 },
	LEAVES_ABOVE_D('2', FXC_V2_1),
};

static const struct cpuid_leaf v3_1_leaves[] = {
	LEAVES_BELOW_D(F1C_V3_1, F7B_V3_1),
	/* x87, SSE and AVX; EBX of both, the size of what is enabled, is completed. */
	{ 0xd, 0, 7, 576, 832, 0 },
	{ 0xd, 1, XSAVE_FORMS, 576, 0, 0 },
	{ 0xd, 2, 256, 576, 0, 0 },
	LEAVES_ABOVE_D('3', FXC_V3_1),
};

static const struct cpuid_leaf v1_1_leaves[] = {
	{ 0x0, NOSUB, 0x16, TEXT4('G', 'e', 'n', 'u'), TEXT4('n', 't', 'e', 'l'),
	  TEXT4('i', 'n', 'e', 'I') },
	{ 0x1, NOSUB, 0x000906f1, 8u << 8, F1C_V1_1, F1D_V2_1 },
	{ 0x2, NOSUB, 0x0000ff01, 0, 0, 0 },
	{ 0x4, 0, CACHE_EAX(1, 1), CACHE_EBX(8), 63, 0 },
	{ 0x4, 1, CACHE_EAX(2, 1), CACHE_EBX(8), 63, 0 },
	{ 0x4, 2, CACHE_EAX(3, 2), CACHE_EBX(8), 2047, 0 },
	{ 0x6, NOSUB, B(2) /* ARAT */, 0, 0, 0 },
	{ 0x7, 0, 0, F7B_V1_1, 0, 0 },
	{ 0xb, 0, 0, 1, 1u << 8, 0 },
	{ 0xb, 1, 0, 1, 2u << 8 | 1, 0 },
	{ 0x15, NOSUB, 1, 1, 1000000000, 0 },
	{ 0x16, NOSUB, 1000, 1000, 1000, 0 },
	{ 0x80000000, NOSUB, 0x80000008, 0, 0, 0 },
	{ 0x80000001, NOSUB, 0, 0, FXC_V1_1, FXD_V1_1 },
	{ 0x80000002, NOSUB, TEXT4('s', 'k', 'e', 'p'), TEXT4('-', 'v', '1', '.'),
	  TEXT4('1', ' ', 'p', 'r'), TEXT4('o', 'c', 'e', 's') },
	{ 0x80000003, NOSUB, TEXT4('s', 'o', 'r', 0), 0, 0, 0 },
	{ 0x80000004, NOSUB, 0, 0, 0, 0 },
	{ 0x80000006, NOSUB, 0, 0, 1024u << 16 | 6u << 12 | 64, 0 },
	{ 0x80000007, NOSUB, 0, 0, 0, B(8) /* invariant TSC */ },
	{ 0x80000008, NOSUB, 48u << 8 | 40, 0, 0, 0 },
};

static const struct cpu_model skep_v1_1 = {
	.name = "skep-v1.1",
	.help = "x86-64 as every host has it, with x2APIC and the TSC deadline: for both backends",
	.phys_bits = 40,
	.lin_bits = 48,
	.xcr0 = 1,
	.leaves = v1_1_leaves,
	.nleaves = ARRAY_SIZE(v1_1_leaves),
};

static const struct cpu_model skep_v2_1 = {
	.name = "skep-v2.1",
	.help = "x86-64-v2 with AES, PCLMULQDQ, MOVBE, XSAVE, RDRAND, FSGSBASE, SMEP, SMAP, "
		"UMIP, PCID, x2APIC",
	.phys_bits = 40,
	.lin_bits = 48,
	.xcr0 = 3,
	.leaves = v2_1_leaves,
	.nleaves = ARRAY_SIZE(v2_1_leaves),
};

static const struct cpu_model skep_v3_1 = {
	.name = "skep-v3.1",
	.help = "x86-64-v3: skep-v2.1 with AVX, AVX2, BMI1, BMI2, FMA, F16C, LZCNT, where the host has "
		"them",
	.phys_bits = 40,
	.lin_bits = 48,
	.xcr0 = 7,
	.v3 = true,
	.leaves = v3_1_leaves,
	.nleaves = ARRAY_SIZE(v3_1_leaves),
};

const struct cpu_model *const cpu_models[] = { &skep_v1_1, &skep_v2_1, &skep_v3_1, NULL };

const struct cpuid_leaf *cpu_model_leaf(const struct cpu_model *m, uint32_t leaf, uint32_t sub)
{
	for (unsigned i = 0; i < m->nleaves; i++)
		if (m->leaves[i].leaf == leaf &&
		    (m->leaves[i].sub == NOSUB || m->leaves[i].sub == sub))
			return &m->leaves[i];
	return NULL;
}

uint64_t cpu_model_cr4(const struct cpu_model *m)
{
	const struct cpuid_leaf *one = cpu_model_leaf(m, 1, 0), *seven = cpu_model_leaf(m, 7, 0);
	uint64_t v = CR4_TSD | CR4_DE | CR4_PSE | CR4_PAE | CR4_MCE | CR4_PGE | CR4_PCE |
		     CR4_OSFXSR | CR4_OSXMMEXCPT;	/* VME and PVI are in no model */

	if (one && one->ecx & B(17))
		v |= CR4_PCIDE;
	if (one && one->ecx & B(26))
		v |= CR4_OSXSAVE;
	if (seven && seven->ebx & B(0))
		v |= CR4_FSGSBASE;
	if (seven && seven->ebx & B(7))
		v |= CR4_SMEP;
	if (seven && seven->ebx & B(20))
		v |= CR4_SMAP;
	if (seven && seven->ecx & B(2))
		v |= CR4_UMIP;
	return v;
}

const struct cpu_model *cpu_model_find(const char *name)
{
	for (unsigned i = 0; cpu_models[i]; i++)
		if (!strcmp(cpu_models[i]->name, name))
			return cpu_models[i];
	return NULL;
}
