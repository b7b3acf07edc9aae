/* The CPU model as the kernel's CPUID table, and whether this host can be it. */
#include "cpu/kvm/kvm.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "clock/paravirt.h"
#include "cpu/cpuid.h"
#include "cpu/model.h"
#include "vm/vm.h"

#define ENTRIES		256
#define IDENTITY_LEAVES	0x11
#define LEAF_IDENTITY	0x40000000u
#define SUB_MAX		8		/* sub-leaves of any leaf of a model */

struct table {
	struct kvm_cpuid2 head;
	struct kvm_cpuid_entry2 at[ENTRIES];
};

/* ---- What the host lacks ----------------------------------------------------- */

enum { EAX, EBX, ECX, EDX };

/* Bits of the leaves that name features; a letter for each word. */
static const struct feature_word {
	uint32_t leaf, sub;
	unsigned reg;
	uint32_t mask;			/* what is the host's to give */
	const char *names[32];
} words[] = {
	{ 1, 0, ECX, ~(1u << 24 | 1u << 31 | 1u << 21), {
		"SSE3", "PCLMULQDQ", [9] = "SSSE3", [12] = "FMA", "CMPXCHG16B", [17] = "PCID",
		[19] = "SSE4.1", "SSE4.2", [22] = "MOVBE", "POPCNT", [25] = "AES", "XSAVE", [28] = "AVX",
		"F16C", "RDRAND" } },
	{ 1, 0, EDX, UINT32_MAX, {
		"FPU", [2] = "DE", "PSE", "TSC", "MSR", "PAE", "MCE", "CX8", "APIC", [11] = "SEP", "MTRR",
		"PGE", "MCA", "CMOV", "PAT", "PSE36", [19] = "CLFLUSH", [23] = "MMX", "FXSR", "SSE",
		"SSE2" } },
	/* Bits 6 and 13 say what is not there. */
	{ 7, 0, EBX, ~(1u << 6 | 1u << 13), {
		"FSGSBASE", "TSC_ADJUST", [3] = "BMI1", [5] = "AVX2", [7] = "SMEP", "BMI2", "ERMS",
		"INVPCID", [20] = "SMAP" } },
	{ 7, 0, ECX, UINT32_MAX, { [2] = "UMIP" } },
	{ 7, 0, EDX, UINT32_MAX, { [26] = "IBRS", [29] = "ARCH_CAPABILITIES" } },
	{ 7, 2, EDX, UINT32_MAX, { [4] = "BHI_CTRL" } },
	{ 0xd, 1, EAX, UINT32_MAX, { "XSAVEOPT", "XSAVEC" } },
	{ 0x80000001, 0, ECX, UINT32_MAX, { "LAHF", [5] = "LZCNT" } },
	{ 0x80000001, 0, EDX, UINT32_MAX, {
		[11] = "SYSCALL", [20] = "NX", [26] = "1-GiB-pages", "RDTSCP", [29] = "long-mode" } },
};

static const struct kvm_cpuid_entry2 *find(const struct table *t, uint32_t leaf, uint32_t sub)
{
	for (unsigned i = 0; i < t->head.nent; i++)
		if (t->at[i].function == leaf && t->at[i].index == sub)
			return &t->at[i];
	return NULL;
}

static uint32_t reg_of(const struct kvm_cpuid_entry2 *l, unsigned reg)
{
	return !l ? 0 : reg == EAX ? l->eax : reg == EBX ? l->ebx : reg == ECX ? l->ecx : l->edx;
}

static uint32_t wanted(const struct cpu_model *model, const struct feature_word *w)
{
	const struct cpuid_leaf *l = cpu_model_leaf(model, w->leaf, w->sub);

	if (!l)
		return 0;
	return (w->reg == EAX ? l->eax : w->reg == EBX ? l->ebx : w->reg == ECX ? l->ecx : l->edx) &
	       w->mask;
}

static void name_bits(const struct feature_word *w, uint32_t bits, char *text, size_t size)
{
	for (unsigned i = 0; i < 32; i++) {
		size_t len = strlen(text);

		if (!(bits >> i & 1))
			continue;
		if (w->names[i])
			snprintf(text + len, size - len, " %s", w->names[i]);
		else
			snprintf(text + len, size - len, " %#x.%c:%u", w->leaf, "abcd"[w->reg], i);
	}
}

static int get_supported(int kvm, struct table *t, struct skep_error *e)
{
	int err;

	memset(t, 0, sizeof(*t));
	t->head.nent = ENTRIES;
	err = kvm_call(kvm, KVM_GET_SUPPORTED_CPUID, t);
	return err < 0 ? kvm_fail(e, err, "KVM_GET_SUPPORTED_CPUID") : 0;
}

static uint64_t arch_capabilities(int kvm)
{
	struct {
		struct kvm_msrs head;
		struct kvm_msr_entry entry;
	} q = { .head.nmsrs = 1, .entry.index = 0x10a };

	return kvm_call(kvm, KVM_GET_MSRS, &q) == 1 ? q.entry.data : 0;
}

/* What the model promises about speculation only the host can keep. */
static void check_promises(int kvm, const struct cpu_model *model, char *lacks, size_t size)
{
	const struct cpuid_leaf *l = cpu_model_leaf(model, 7, 0);
	size_t len = strlen(lacks);

	if (l && l->edx & BIT(29) && CPU_ARCH_CAPABILITIES & ~arch_capabilities(kvm))
		snprintf(lacks + len, size - len, " ARCH_CAPABILITIES:%#llx",
			 (unsigned long long)(CPU_ARCH_CAPABILITIES & ~arch_capabilities(kvm)));
}

int kvm_model_check(int kvm, const struct cpu_model *model, struct skep_error *e)
{
	const struct kvm_cpuid_entry2 *sizes;
	struct table *t = malloc(sizeof(*t));
	char lacks[SKEP_ERROR_TEXT / 2] = "";
	int err = t ? get_supported(kvm, t, e) : skep_fail(e, ENOMEM, "no memory for CPUID");

	for (unsigned i = 0; !err && i < ARRAY_SIZE(words); i++)
		name_bits(&words[i], wanted(model, &words[i]) &
			  ~reg_of(find(t, words[i].leaf, words[i].sub), words[i].reg), lacks,
			  sizeof(lacks));
	if (!err) {
		sizes = find(t, 0x80000008, 0);
		if (sizes && (sizes->eax & 0xff) < model->phys_bits)
			snprintf(lacks + strlen(lacks), sizeof(lacks) - strlen(lacks),
				 " %u-bit-addresses", model->phys_bits);
		check_promises(kvm, model, lacks, sizeof(lacks));
	}
	free(t);
	if (err || !lacks[0])
		return err;
	return skep_fail(e, ENOTSUP, "cpu.model=%s: this host's KVM lacks%s; skep-v1.1 needs none of it, and "
			 "backend=soft has it all", model->name, lacks);
}

/* ---- The table ------------------------------------------------------------------ */

static void add_entry(struct table *t, const struct cpuid_context *c, uint32_t leaf, uint32_t sub,
		      bool indexed)
{
	struct kvm_cpuid_entry2 *x = &t->at[t->head.nent];
	uint32_t out[4];

	if (t->head.nent == ENTRIES)
		return;
	cpu_cpuid(c, leaf, sub, out);
	*x = (struct kvm_cpuid_entry2){
		.function = leaf, .index = sub, .flags = indexed ? KVM_CPUID_FLAG_SIGNIFCANT_INDEX : 0,
		.eax = out[EAX], .ebx = out[EBX], .ecx = out[ECX], .edx = out[EDX],
	};
	t->head.nent++;
}

static void fill_table(struct table *t, const struct cpuid_context *c)
{
	const struct cpu_model *m = c->model;
	uint32_t out[4];

	for (unsigned i = 0; i < m->nleaves; i++) {
		const struct cpuid_leaf *l = &m->leaves[i];
		bool last = i + 1 == m->nleaves || m->leaves[i + 1].leaf != l->leaf;

		add_entry(t, c, l->leaf, l->sub == UINT32_MAX ? 0 : l->sub, l->sub != UINT32_MAX);
		/* The end of a list that the guest walks until it finds it. */
		if (l->sub != UINT32_MAX && last && (l->leaf == 4 || l->leaf == 0xb))
			add_entry(t, c, l->leaf, l->sub + 1, true);
	}
	for (uint32_t leaf = LEAF_IDENTITY; identity_cpuid(c->vm, leaf, out) &&
	     leaf < LEAF_IDENTITY + IDENTITY_LEAVES; leaf++)
		add_entry(t, c, leaf, 0, false);
}

int kvm_cpuid_set(struct kvm_cpu *k, struct skep_error *e)
{
	/* APIC, OSXSAVE and the sizes of XSAVE areas the kernel completes by itself. */
	const struct cpuid_context c = {
		.vm = k->m->vm, .model = k->m->model, .index = k->v->index, .xcr0 = 1,
	};
	const struct cpuid_leaf *l = cpu_model_leaf(k->m->model, 7, 0);
	struct table *t = calloc(1, sizeof(*t));
	int err;

	if (!t)
		return skep_fail(e, ENOMEM, "no memory for CPUID");
	fill_table(t, &c);
	err = kvm_call(k->fd, KVM_SET_CPUID2, t);
	free(t);
	if (err < 0)
		return kvm_fail(e, err, "KVM_SET_CPUID2");
	if (!l || !(l->edx & BIT(29)))
		return 0;
	err = kvm_msr_set(k, 0x10a, CPU_ARCH_CAPABILITIES);
	return err < 0 ? kvm_fail(e, err, "IA32_ARCH_CAPABILITIES") : 0;
}
