/*
 * The contract of the CPU model: CPUID tells what is implemented and nothing
 * more, MSRs keep to their reserved bits, control registers to the model, and
 * only a consistent state is taken in.
 */
#include "soft_helper.h"

#include <errno.h>

#include "cpu/soft/host.h"
#include "cpu/soft/vex_thunk.h"

/* ---- CPUID --------------------------------------------------------------------- */

enum { EAX, EBX, ECX, EDX };

static bool announced(uint32_t leaf, uint32_t sub, unsigned reg, unsigned bit)
{
	uint32_t out[4];

	soft_cpuid(cpu, leaf, sub, out);
	return out[reg] >> bit & 1;
}

/* Does this instruction decode to anything but #UD in 64-bit mode? */
static bool implemented(const char *bytes, unsigned len)
{
	struct soft_op ops[BLOCK_MAX_OPS];
	struct block_bytes in = { .avail = 15 };
	uint8_t code[15];
	unsigned ninsns, nbytes, n;

	memset(code, 0x90, sizeof code);
	memcpy(code, bytes, len);
	in.bytes = code;
	cpu->mode = MODE_CS64 | MODE_LMA | MODE_PE;
	n = soft_decode_block(cpu, &in, 1, ops, &ninsns, &nbytes);
	assert_true(n >= 3);
	for (unsigned i = 1; i + 1 < n; i++)
		if (ops[i].fn == op_ud)
			return false;
	return true;
}

struct feature {
	const char *name;
	uint32_t leaf, sub;
	unsigned reg, bit;
	const char *bytes;	/* an instruction of it, register or memory operands */
	unsigned len;
};

#define INSN(s) (s), sizeof(s) - 1

static const struct feature features[] = {
	{ "sse3", 1, 0, ECX, 0, INSN("\xf2\x0f\xd0\xc1") },
	{ "pclmulqdq", 1, 0, ECX, 1, INSN("\x66\x0f\x3a\x44\xc1\x00") },
	{ "monitor", 1, 0, ECX, 3, INSN("\x0f\x01\xc8") },
	{ "vmx", 1, 0, ECX, 5, INSN("\x0f\x01\xc4") },
	{ "smx", 1, 0, ECX, 6, INSN("\x0f\x37") },
	{ "ssse3", 1, 0, ECX, 9, INSN("\x66\x0f\x38\x00\xc1") },
	{ "fma", 1, 0, ECX, 12, INSN("\xc4\xe2\xe9\x98\xc1") },
	{ "cx16", 1, 0, ECX, 13, INSN("\x48\x0f\xc7\x0f") },
	{ "sse4.1", 1, 0, ECX, 19, INSN("\x66\x0f\x38\x10\xc1") },
	{ "sse4.2", 1, 0, ECX, 20, INSN("\x66\x0f\x3a\x63\xc1\x00") },
	{ "movbe", 1, 0, ECX, 22, INSN("\x0f\x38\xf0\x07") },
	{ "popcnt", 1, 0, ECX, 23, INSN("\xf3\x0f\xb8\xc1") },
	{ "aes", 1, 0, ECX, 25, INSN("\x66\x0f\x38\xdc\xc1") },
	{ "xsave", 1, 0, ECX, 26, INSN("\x0f\xae\x27") },
	{ "avx", 1, 0, ECX, 28, INSN("\xc5\xf8\x28\xc1") },
	{ "avx2", 7, 0, EBX, 5, INSN("\xc5\xf5\xfc\xc2") },
	{ "avx512f", 7, 0, EBX, 16, INSN("\x62\xf1\x74\x48\x58\xc2") },
	{ "vaes", 7, 0, ECX, 9, INSN("\xc4\xe2\x75\xdc\xc1") },
	{ "vpclmulqdq", 7, 0, ECX, 10, INSN("\xc4\xe3\x75\x44\xc1\x00") },
	{ "avx_vnni", 7, 1, EAX, 4, INSN("\xc4\xe2\x75\x50\xc2") },
	{ "amx", 7, 0, EDX, 24, INSN("\xc4\xe2\x78\x49\xc0") },
	{ "fma4", 0x80000001, 0, ECX, 16, INSN("\xc4\xe3\xf1\x68\xc2\x00") },
	{ "f16c", 1, 0, ECX, 29, INSN("\xc4\xe2\x79\x13\xc1") },
	{ "rdrand", 1, 0, ECX, 30, INSN("\x0f\xc7\xf0") },
	{ "fpu", 1, 0, EDX, 0, INSN("\xd9\xe8") },
	{ "tsc", 1, 0, EDX, 4, INSN("\x0f\x31") },
	{ "msr", 1, 0, EDX, 5, INSN("\x0f\x32") },
	{ "cx8", 1, 0, EDX, 8, INSN("\x0f\xc7\x0f") },
	{ "sep", 1, 0, EDX, 11, INSN("\x0f\x34") },
	{ "cmov", 1, 0, EDX, 15, INSN("\x0f\x44\xc1") },
	{ "clflush", 1, 0, EDX, 19, INSN("\x0f\xae\x3f") },
	{ "mmx", 1, 0, EDX, 23, INSN("\x0f\xfc\xc1") },
	{ "fxsr", 1, 0, EDX, 24, INSN("\x0f\xae\x07") },
	{ "sse", 1, 0, EDX, 25, INSN("\x0f\x58\xc1") },
	{ "sse2", 1, 0, EDX, 26, INSN("\x66\x0f\x58\xc1") },
	{ "fsgsbase", 7, 0, EBX, 0, INSN("\xf3\x0f\xae\xc0") },
	{ "bmi1", 7, 0, EBX, 3, INSN("\xc4\xe2\x70\xf2\xc2") },
	{ "bmi2", 7, 0, EBX, 8, INSN("\xc4\xe2\x73\xf5\xc2") },
	{ "invpcid", 7, 0, EBX, 10, INSN("\x66\x0f\x38\x82\x07") },
	{ "rtm", 7, 0, EBX, 11, INSN("\xc7\xf8\x00\x00\x00\x00") },
	{ "rdseed", 7, 0, EBX, 18, INSN("\x0f\xc7\xf8") },
	{ "adx", 7, 0, EBX, 19, INSN("\x66\x0f\x38\xf6\xc1") },
	{ "smap", 7, 0, EBX, 20, INSN("\x0f\x01\xca") },
	{ "clflushopt", 7, 0, EBX, 23, INSN("\x66\x0f\xae\x3f") },
	{ "clwb", 7, 0, EBX, 24, INSN("\x66\x0f\xae\x37") },
	{ "sha", 7, 0, EBX, 29, INSN("\x0f\x38\xc8\xc1") },
	{ "pku", 7, 0, ECX, 3, INSN("\x0f\x01\xee") },
	{ "gfni", 7, 0, ECX, 8, INSN("\x66\x0f\x38\xcf\xc1") },
	{ "rdpid", 7, 0, ECX, 22, INSN("\xf3\x0f\xc7\xf8") },
	{ "movdiri", 7, 0, ECX, 27, INSN("\x0f\x38\xf9\x07") },
	{ "serialize", 7, 0, EDX, 14, INSN("\x0f\x01\xe8") },
	{ "xsaveopt", 0xd, 1, EAX, 0, INSN("\x0f\xae\x37") },
	{ "xsavec", 0xd, 1, EAX, 1, INSN("\x0f\xc7\x27") },
	{ "xsaves", 0xd, 1, EAX, 3, INSN("\x0f\xc7\x2f") },
	{ "lahf", 0x80000001, 0, ECX, 0, INSN("\x9f") },
	{ "svm", 0x80000001, 0, ECX, 2, INSN("\x0f\x01\xd8") },
	{ "sse4a", 0x80000001, 0, ECX, 6, INSN("\x66\x0f\x79\xc1") },
	{ "xop", 0x80000001, 0, ECX, 11, INSN("\x8f\xe9\x78\x81\xc1") },
	{ "syscall", 0x80000001, 0, EDX, 11, INSN("\x0f\x05") },
	{ "rdtscp", 0x80000001, 0, EDX, 27, INSN("\x0f\x01\xf9") },
	{ "3dnow", 0x80000001, 0, EDX, 31, INSN("\x0f\x0f\xc1\x9e") },
};

static void features_match(void **state)
{
	soft_reset(cpu, false);
	for (unsigned i = 0; i < ARRAY_SIZE(features); i++) {
		const struct feature *f = &features[i];
		bool is = implemented(f->bytes, f->len);

		if (announced(f->leaf, f->sub, f->reg, f->bit) != is)
			fail_msg("%s: %s", f->name, is ? "there, not announced" :
				 "announced, not there");
	}
}

/* VMCALL calls the hypervisor that CPUID names, without VMX; skep itself takes no calls. */
static void no_hypercalls(void **state)
{
	protected_mode(0);
	assert_int_equal(machine->identity, IDENTITY_NONE);
	assert_int_equal(run_op(op_vmcall, (struct soft_op){ 0 }), EXC_UD);
	machine->identity = IDENTITY_KVM;
	cpu->r[REG_RAX] = 9;
	assert_int_equal(run_op(op_vmcall, (struct soft_op){ 0 }), -1);
	assert_int_equal(cpu->r[REG_RAX], (uint32_t)-1000);
	protected_mode(3);
	assert_int_equal(run_op(op_vmcall, (struct soft_op){ 0 }), -1);
	assert_int_equal(cpu->r[REG_RAX], (uint32_t)-1);
	machine->identity = IDENTITY_NONE;
}

/* Bits without an instruction of their own, each checked elsewhere. */
static void no_other_feature(void **state)
{
	static const struct { uint32_t leaf; unsigned reg; uint32_t bits; } others[] = {
		/* PCID x2APIC TSC-deadline hypervisor */
		{ 1, ECX, 1u << 17 | 1u << 21 | 1u << 24 | 1u << 31 },
		/* DE PSE PAE MCE APIC MTRR PGE MCA PAT PSE-36 */
		{ 1, EDX, 1u << 2 | 1u << 3 | 1u << 6 | 1u << 7 | 1u << 9 | 1u << 12 | 1u << 13 |
			  1u << 14 | 1u << 16 | 1u << 17 },
		/* TSC_ADJUST, x87 pointers, SMEP, ERMS */
		{ 7, EBX, 1u << 1 | 1u << 6 | 1u << 7 | 1u << 9 | 1u << 13 },
		{ 7, ECX, 1u << 2 },			/* UMIP */
		{ 7, EDX, 1u << 26 | 1u << 29 },	/* SPEC_CTRL, ARCH_CAPABILITIES */
		{ 0x80000001, ECX, 0 },
		{ 0x80000001, EDX, 1u << 20 | 1u << 26 | 1u << 29 },	/* NX, 1 GiB, long mode */
	};

	soft_reset(cpu, false);
	for (unsigned i = 0; i < ARRAY_SIZE(others); i++) {
		uint32_t out[4], known = others[i].bits;

		for (unsigned k = 0; k < ARRAY_SIZE(features); k++)
			if (features[k].leaf == others[i].leaf && features[k].reg == others[i].reg)
				known |= 1u << features[k].bit;
		/* LZCNT is an older instruction with a prefix. */
		if (others[i].leaf == 0x80000001 && others[i].reg == ECX && cpu->model->v3)
			known |= 1u << 5;
		soft_cpuid(cpu, others[i].leaf, 0, out);
		assert_int_equal(out[others[i].reg] & ~known, 0);
		assert_int_equal(out[others[i].reg] & others[i].bits, others[i].bits);
	}
}

static void cpuid_live(void **state)
{
	uint32_t out[4], beyond[4];

	soft_reset(cpu, false);
	assert_false(announced(1, 0, ECX, 27));
	cpu->s.cr4 |= CR4_OSXSAVE;
	assert_true(announced(1, 0, ECX, 27));
	/* One processor: no count of logical ones. */
	assert_false(announced(1, 0, EDX, 28));
	/* Beyond the last basic leaf: the last one's answer. */
	soft_cpuid(cpu, 0, 0, out);
	soft_cpuid(cpu, out[0], 0, out);
	soft_cpuid(cpu, 0x12345, 0, beyond);
	assert_memory_equal(out, beyond, sizeof out);
	soft_cpuid(cpu, 0x80001234, 0, beyond);
	assert_memory_equal(out, beyond, sizeof out);
	/* The signature is what reset leaves in EDX. */
	soft_cpuid(cpu, 1, 0, out);
	assert_int_equal(cpu->r[REG_RDX], out[EAX]);
	soft_cpuid(cpu, 0x80000008, 0, out);
	assert_int_equal(out[EAX], cpu->model->lin_bits << 8 | cpu->model->phys_bits);
}

/* SDM vol. 3, 9.9.1: an APIC ID is package, core and thread, each in bits of its own. */
static void cpuid_topology(void **state)
{
	static const struct {
		unsigned cores, threads, index;
		uint32_t id, core_shift, package_shift;
	} t[] = {
		{ 1, 1, 5, 5, 0, 0 }, { 4, 1, 5, 5, 0, 2 }, { 2, 2, 7, 7, 1, 2 },
		{ 3, 1, 3, 4, 0, 2 }, { 3, 2, 5, 5, 1, 3 }, { 3, 2, 6, 8, 1, 3 },
		{ 3, 3, 8, 10, 2, 4 }, { 3, 3, 9, 16, 2, 4 }, { 0, 0, 2, 2, 0, 0 },
	};
	unsigned index = cpu->v->index;
	uint32_t out[4];

	for (unsigned i = 0; i < ARRAY_SIZE(t); i++) {
		unsigned threads = MAX(t[i].threads, 1u), package = threads * MAX(t[i].cores, 1u);

		machine->cores = t[i].cores;
		machine->threads = t[i].threads;
		cpu->v->index = t[i].index;
		soft_cpuid(cpu, 0xb, 0, out);
		assert_int_equal(out[EAX], t[i].core_shift);
		assert_int_equal(out[EBX], threads);
		assert_int_equal(out[EDX], t[i].id);
		soft_cpuid(cpu, 0xb, 1, out);
		assert_int_equal(out[EAX], t[i].package_shift);
		assert_int_equal(out[EBX], package);
		assert_int_equal(out[ECX], 2 << 8 | 1);
		soft_cpuid(cpu, 1, 0, out);
		assert_int_equal(out[EBX] >> 24, t[i].id);
		assert_int_equal(out[EBX] >> 16 & 0xff, 1u << t[i].package_shift);
		assert_int_equal(out[EDX] >> 28 & 1, package > 1);
		soft_cpuid(cpu, 4, 0, out);
		assert_int_equal(out[EAX] >> 14 & 0xfff, (1u << t[i].core_shift) - 1);
		assert_int_equal(out[EAX] >> 26, (1u << (t[i].package_shift - t[i].core_shift)) - 1);
	}
	cpu->v->index = index;
	machine->cores = machine->threads = 0;
}

/* Crystal x ratio is the TSC, or the leaf says nothing. */
static void cpuid_tsc(void **state)
{
	static const uint32_t khz[] = { 1000000, 2400000, 2999999, 3600000, 1, 800000 };
	uint32_t saved = machine->clock.tsc_khz;
	uint32_t out[4];

	for (unsigned i = 0; i < ARRAY_SIZE(khz); i++) {
		machine->clock.tsc_khz = khz[i];
		soft_cpuid(cpu, 0x15, 0, out);
		if (out[EBX])
			assert_int_equal((uint64_t)out[ECX] * out[EBX] / out[EAX],
					 khz[i] * 1000ull);
		if (out[EBX])
			assert_true((uint64_t)out[ECX] / 1000 * out[EBX] <= UINT32_MAX);
		soft_cpuid(cpu, 0x40000010, 0, out);
		assert_int_equal(out[EAX], khz[i]);
	}
	machine->clock.tsc_khz = saved;
}

/* ---- MSRs ------------------------------------------------------------------------ */

static bool rd(uint32_t msr, uint64_t *v)
{
	return soft_msr_read(cpu, NULL, msr, v);
}

static bool wr(uint32_t msr, uint64_t v)
{
	return soft_msr_write(cpu, NULL, msr, v);
}

static void msr_table(void **state)
{
	for (unsigned i = 1; i < soft_nmsrs; i++)
		assert_true(soft_msrs[i - 1].number < soft_msrs[i].number);
	for (unsigned i = 0; i < soft_nmsrs; i++) {
		const struct soft_msr *m = &soft_msrs[i];
		uint64_t before = 0, after = 0;
		bool readable;

		soft_reset(cpu, false);
		readable = rd(m->number, &before);
		assert_int_equal(readable, !m->write_only);
		/* What it holds may be written (the TSC moves on by itself). */
		assert_int_equal(wr(m->number, m->write_only || m->constant ? 0 : before),
				 !m->read_only);
		for (unsigned bit = 0; bit < 64; bit++) {
			if (!(m->reserved >> bit & 1))
				continue;
			assert_false(wr(m->number, before | BIT(bit)));
			assert_int_equal(rd(m->number, &after), readable);
			if (m->number != MSR_TSC)
				assert_int_equal(after, before);
		}
	}
}

static void msr_values(void **state)
{
	static const uint32_t canonical[] = { MSR_LSTAR, MSR_CSTAR, MSR_FS_BASE, MSR_GS_BASE,
					      MSR_KERNEL_GS_BASE, MSR_SYSENTER_ESP,
					      MSR_SYSENTER_EIP };
	uint64_t v;

	soft_reset(cpu, false);
	for (unsigned i = 0; i < ARRAY_SIZE(canonical); i++) {
		assert_true(wr(canonical[i], 0xffff800012345678));
		assert_true(rd(canonical[i], &v));
		assert_int_equal(v, 0xffff800012345678);
		assert_false(wr(canonical[i], 0x0000800000000000));
		assert_true(rd(canonical[i], &v));
		assert_int_equal(v, 0xffff800012345678);
	}
	assert_int_equal(cpu->r[SLOT_GS], 0xffff800012345678);
	/* PAT: 2, 3 and 8 and above are no memory types; the MTRRs do not have 7 either. */
	assert_true(wr(MSR_PAT, 0x0007040600070401));
	assert_false(wr(MSR_PAT, 0x0007040600070402));
	assert_false(wr(MSR_PAT, 0x0807040600070406));
	assert_true(wr(0x250, 0x0605040100060606));
	assert_false(wr(0x250, 0x0607060606060606));
	assert_true(wr(0x2ff, 0xc06));
	assert_false(wr(0x2ff, 0xc02));
	assert_true(wr(0x200, 0x80000006));
	assert_false(wr(0x200, 0x80000007));
	assert_false(wr(0x200, BIT(40)));
	assert_true(wr(0x201, 0xff80000800));
	assert_false(wr(0x201, 0xff80000400));
	/* Not there. */
	assert_false(rd(0x12345678, &v));
	assert_false(wr(0x12345678, 0));
	assert_false(rd(0x3a, &v));		/* FEATURE_CONTROL: no VMX */
	assert_false(rd(0x210, &v));
	assert_false(rd(MSR_PRED_CMD, &v));
	assert_true(wr(MSR_PRED_CMD, 1));
}

static void msr_efer(void **state)
{
	uint64_t v;

	soft_reset(cpu, false);
	assert_true(wr(MSR_EFER, EFER_LME | EFER_NXE | EFER_SCE));
	/* LMA cannot be written. */
	assert_true(wr(MSR_EFER, EFER_LMA));
	assert_true(rd(MSR_EFER, &v));
	assert_int_equal(v, 0);
	protected_mode(0);
	cpu->s.cr0 |= CR0_PG;
	assert_false(wr(MSR_EFER, EFER_LME));
	assert_true(wr(MSR_EFER, EFER_NXE));
}

static void msr_tsc(void **state)
{
	uint64_t v;

	soft_reset(cpu, false);
	clock_skip_to(&machine->clock, 5000000);
	assert_true(wr(MSR_TSC, 1000));
	assert_true(rd(MSR_TSC, &v));
	assert_int_equal(v, 1000);
	assert_true(rd(MSR_TSC_ADJUST, &v));
	assert_int_equal(v, 1000 - clock_tsc(&machine->clock));
	assert_true(wr(MSR_TSC_ADJUST, 0));
	assert_int_equal(soft_tsc(cpu), clock_tsc(&machine->clock));
}

/* ---- Control registers -------------------------------------------------------------- */

static int to_cr(unsigned n, uint64_t v)
{
	cpu->r[REG_RAX] = v;
	return run_op(op_mov_to_cr, (struct soft_op){ .dst = (uint8_t)n });
}

static void control_registers(void **state)
{
	protected_mode(0);
	assert_int_equal(to_cr(0, CR0_PG), EXC_GP);			/* no PE */
	assert_int_equal(to_cr(0, CR0_PE | CR0_NW), EXC_GP);		/* no CD */
	assert_int_equal(to_cr(0, CR0_PE | CR0_CD | CR0_NW), -1);
	assert_int_equal(cpu->s.cr0, CR0_PE | CR0_CD | CR0_NW | CR0_ET);
	for (unsigned bit = 0; bit < 32; bit++) {
		protected_mode(0);
		if (BIT(bit) & soft_cr4_allowed(cpu) & ~CR4_PCIDE)
			assert_int_equal(to_cr(4, BIT(bit)), -1);
		else
			assert_int_equal(to_cr(4, BIT(bit)), EXC_GP);
	}
	protected_mode(3);
	assert_int_equal(to_cr(0, CR0_PE), EXC_GP);
	assert_int_equal(run_op(op_clts, (struct soft_op){ 0 }), EXC_GP);
	/* SMSW is for everybody, LMSW never leaves protected mode. */
	assert_int_equal(run_op(op_smsw, (struct soft_op){ 0 }), -1);
	assert_int_equal(cpu->r[REG_RAX], cpu->s.cr0);
	protected_mode(0);
	store16(&cpu->r[REG_RAX], 0);
	assert_int_equal(run_op(op_lmsw, (struct soft_op){ 0 }), -1);
	assert_true(cpu->s.cr0 & CR0_PE);
	/* Long mode without PAE, or with a 16-bit TSS. */
	cpu->s.efer |= EFER_LME;
	assert_int_equal(to_cr(0, CR0_PE | CR0_PG), EXC_GP);
	assert_false(cpu->s.efer & EFER_LMA);
	cpu->s.cr4 |= CR4_PAE;
	cpu->s.seg[SEG_TR].attr = 0x83;
	assert_int_equal(to_cr(0, CR0_PE | CR0_PG), EXC_GP);
	cpu->s.seg[SEG_TR].attr = 0x8b;
	assert_int_equal(to_cr(0, CR0_PE | CR0_PG), -1);
	assert_true(cpu->s.efer & EFER_LMA);
	assert_true(cpu->mode & MODE_LMA);
	assert_int_equal(to_cr(4, 0), EXC_GP);
	soft_reset(cpu, false);
}

/* PAE page-directory pointers are read, and refused, when CR3 is written. */
static void pae_pointers(void **state)
{
	protected_mode(0);
	cpu->s.cr4 |= CR4_PAE;
	store64(ram + 0x7000, 0x5001);
	store64(ram + 0x7008, 0x6001);
	cpu->s.cr3 = 0x7000;
	assert_int_equal(to_cr(0, CR0_PE | CR0_PG), -1);
	assert_int_equal(cpu->s.pdpte[1], 0x6001);
	store64(ram + 0x7020, 0x5003);				/* W is reserved here */
	assert_int_equal(to_cr(3, 0x7020), EXC_GP);
	assert_int_equal(cpu->s.cr3, 0x7000);
	assert_int_equal(cpu->s.pdpte[0], 0x5001);
	soft_reset(cpu, false);
}

/* ---- State ----------------------------------------------------------------------------- */

static void state_round_trip(void **state)
{
	struct skep_error e = { .text = "" };
	struct cpu_arch_state a, b;

	soft_reset(cpu, false);
	soft_get_state(cpu, &a);
	assert_int_equal(soft_set_state(cpu, &a, &e), 0);
	soft_get_state(cpu, &b);
	assert_memory_equal(&a, &b, sizeof a);
	protected_mode(3);
	cpu->cc = CC_ONE | CC_CF | CC_OF | CC_ZF;
	soft_get_state(cpu, &a);
	assert_int_equal(a.rflags, 2 | RFLAGS_CF | RFLAGS_OF | RFLAGS_ZF);
	assert_int_equal(soft_set_state(cpu, &a, &e), 0);
	soft_get_state(cpu, &b);
	assert_memory_equal(&a, &b, sizeof a);
	assert_int_equal(cpu->cpl, 3);
}

/* One thing wrong at a time; the sentence names it and nothing has changed. */
static void refuse(const struct cpu_arch_state *s, const char *name, unsigned line)
{
	struct skep_error e = { .text = "" };
	struct cpu_arch_state before, after;

	soft_get_state(cpu, &before);
	if (soft_set_state(cpu, s, &e) == 0)
		fail_msg("line %u: taken", line);
	if (strncmp(e.text, "cpu: ", 5) || !strstr(e.text, name))
		fail_msg("line %u: %s", line, e.text);
	assert_true(soft_validate_state(cpu, s, &e) < 0);
	soft_get_state(cpu, &after);
	assert_memory_equal(&before, &after, sizeof before);
}

#define REFUSE(name, ...)				\
	do {						\
		struct cpu_arch_state s = good;		\
		__VA_ARGS__;				\
		refuse(&s, name, __LINE__);		\
	} while (0)

static void state_refused(void **state)
{
	struct cpu_arch_state good;

	protected_mode(0);
	soft_get_state(cpu, &good);
	REFUSE("cr0", s.cr0 |= BIT(32));
	REFUSE("cr0", s.cr0 |= BIT(6));
	REFUSE("cr0", s.cr0 &= ~CR0_ET);
	REFUSE("cr0", s.cr0 = (s.cr0 & ~CR0_PE) | CR0_PG);
	REFUSE("cr0", s.cr0 |= CR0_NW);
	REFUSE("cr4", s.cr4 |= CR4_VME);
	REFUSE("cr4", s.cr4 |= BIT(12));
	REFUSE("cr4", s.cr4 |= CR4_PCIDE);
	REFUSE("efer", s.efer |= EFER_LMA);
	REFUSE("efer", s.efer |= BIT(12));
	REFUSE("cr4", (s.efer |= EFER_LME | EFER_LMA, s.cr0 |= CR0_PG));
	REFUSE("efer", (s.efer |= EFER_LME, s.cr0 |= CR0_PG));
	REFUSE("cr3", s.cr3 = BIT(40));
	REFUSE("cr8", s.cr8 = 16);
	REFUSE("dr6", s.dr6 |= BIT(32));
	REFUSE("dr6", s.dr6 |= BIT(12));
	REFUSE("dr6", s.dr6 &= ~BIT(4));
	REFUSE("dr7", s.dr7 |= BIT(32));
	REFUSE("dr7", s.dr7 |= BIT(14));
	REFUSE("dr7", s.dr7 &= ~BIT(10));
	REFUSE("xcr0", s.xcr0 = 2);
	REFUSE("xcr0", s.xcr0 = 7);
	REFUSE("xss", s.xss = 1);
	REFUSE("pdpte", s.pdpte[2] = 3);
	REFUSE("pdpte", s.pdpte[0] = BIT(40) | 1);
	REFUSE("pdpte", s.pdpte[3] = BIT(63) | 1);
	REFUSE("fpu.mxcsr", s.fpu.mxcsr |= BIT(16));
	REFUSE("fpu.fcw", s.fpu.fcw |= BIT(7));
	REFUSE("fpu.fcw", s.fpu.fcw |= BIT(13));
	REFUSE("fpu.fcw", s.fpu.fcw &= ~BIT(6));
	REFUSE("fpu.fsw", s.fpu.fsw |= BIT(7));
	REFUSE("fpu.fsw", s.fpu.fsw |= BIT(15));
	REFUSE("fpu.fsw", (s.fpu.fcw = 0x37e, s.fpu.fsw = 1));
	REFUSE("fpu.fop", s.fpu.fop = 0x800);
	REFUSE("fpu.fcs", s.fpu.fcs = 8);
	REFUSE("fpu.fds", s.fpu.fds = 8);
	REFUSE("fpu.st[7]", s.fpu.st[7][10] = 1);
	REFUSE("fpu.st[0]", s.fpu.st[0][15] = 1);
	REFUSE("pat", s.pat = 2);
	REFUSE("star", s.lstar = BIT(47));
	REFUSE("cstar", s.cstar = BIT(47));
	REFUSE("sfmask", s.sfmask = BIT(32));
	REFUSE("tsc_aux", s.tsc_aux = BIT(32));
	REFUSE("sysenter_cs", s.sysenter_cs = BIT(32));
	REFUSE("sysenter_esp", s.sysenter_esp = BIT(47));
	REFUSE("sysenter_eip", s.sysenter_eip = BIT(62));
	REFUSE("kernel_gs_base", s.kernel_gs_base = BIT(50));
	REFUSE("spec_ctrl", s.spec_ctrl = 2);
	REFUSE("misc_enable", s.misc_enable = 1);
	REFUSE("misc_enable", s.misc_enable |= 2);
	REFUSE("mtrr_var_base", s.mtrr_var_base[3] = BIT(45));
	REFUSE("mtrr_var_base", s.mtrr_var_base[3] = 2);
	REFUSE("mtrr_var_mask", s.mtrr_var_mask[7] = 0x400);
	REFUSE("mtrr_fixed", s.mtrr_fixed[2] = 2);
	REFUSE("mtrr_def_type", s.mtrr_def_type = 0x1000);
	REFUSE("mtrr_def_type", s.mtrr_def_type = 3);
	REFUSE("apic_base", s.apic_base |= BIT(40));
	REFUSE("apic_base", s.apic_base |= 1);
	REFUSE("apic_base", s.apic_base = 0xfee00500);
	REFUSE("apic_base", s.apic_base &= ~BIT(8));
	REFUSE("rflags", s.rflags = 0);
	REFUSE("rflags", s.rflags |= BIT(15));
	REFUSE("rflags", s.rflags |= BIT(22));
	REFUSE("segment register es", s.rflags |= RFLAGS_VM);
	REFUSE("rflags", (s.rflags |= RFLAGS_VM, s.cr0 &= ~CR0_PE));
	REFUSE("rip", s.rip = BIT(32));
	REFUSE("gdtr.base", s.gdtr.base = BIT(47));
	REFUSE("idtr.base", s.idtr.base = BIT(63));
	REFUSE("register cs", s.seg[SEG_CS].unusable = 1);
	REFUSE("register cs", s.seg[SEG_CS].attr = 0xc093);
	REFUSE("register cs", s.seg[SEG_CS].attr &= ~0x80);
	REFUSE("register cs", s.seg[SEG_CS].attr &= ~1);
	REFUSE("register cs", s.seg[SEG_CS].limit = 0xfffff000);
	REFUSE("register cs", s.seg[SEG_CS].attr |= 0x60);
	REFUSE("register ss", s.seg[SEG_SS].unusable = 1);
	REFUSE("register ss", s.seg[SEG_SS] = (struct cpu_segment){ .unusable = 1, .attr = 0x60 });
	REFUSE("register cs", s.seg[SEG_SS].attr = 0xc0f3);
	REFUSE("register ss", s.seg[SEG_SS].attr = 0xc091);
	REFUSE("register ss", s.seg[SEG_SS].attr = 0xc092);
	REFUSE("register ss", (s.cr0 &= ~CR0_PE, s.seg[SEG_SS].attr |= 0x20));
	REFUSE("register ds", s.seg[SEG_DS].attr = 0xc099);
	REFUSE("register ds", s.seg[SEG_DS] = (struct cpu_segment){ .unusable = 1, .base = 1 });
	REFUSE("register ds", s.seg[SEG_DS].unusable = 2);
	REFUSE("register es", s.seg[SEG_ES].base = BIT(32));
	REFUSE("fs base", s.seg[SEG_FS].base = BIT(47));
	REFUSE("fs base", s.seg[SEG_FS] = (struct cpu_segment){ .unusable = 1, .base = BIT(47) });
	REFUSE("register gs", s.seg[SEG_GS].attr |= 0x100);
	REFUSE("register tr", s.seg[SEG_TR].attr = 0x89);
	REFUSE("register tr", s.seg[SEG_TR] = (struct cpu_segment){ .unusable = 1 });
	REFUSE("register ldtr", s.seg[SEG_LDTR] = s.seg[SEG_TR]);
	REFUSE("halted", s.halted = 2);
	REFUSE("sti_shadow", s.sti_shadow = 1);
	REFUSE("ss_shadow", (s.rflags |= RFLAGS_IF, s.sti_shadow = s.ss_shadow = 1));
	REFUSE("halted", (s.halted = 1, s.ss_shadow = 1));
	REFUSE("wait_sipi", s.wait_sipi = 1);
	REFUSE("init_pending", s.init_pending = 2);
	REFUSE("sipi_vector", s.sipi_vector = 8);
	REFUSE("pending_dbg", s.pending_dbg = BIT(20));

	protected_mode(3);
	soft_get_state(cpu, &good);
	REFUSE("halted", s.halted = 1);
	REFUSE("register ss", s.seg[SEG_SS] = (struct cpu_segment){ .unusable = 1, .attr = 0x60 });
}

/* What a VM entry takes, and what the processor itself can come to. */
static void state_taken(void **state)
{
	struct cpu_arch_state good, s, again;
	struct skep_error e = { .text = "" };

	protected_mode(0);
	soft_get_state(cpu, &good);
	good.cr0 |= CR0_PG;
	good.cr4 |= CR4_PAE;
	good.efer |= EFER_LME | EFER_LMA;
	good.seg[SEG_CS].attr = 0xa09b;
#define TAKE(...)							\
	do {								\
		s = good;						\
		__VA_ARGS__;						\
		if (soft_set_state(cpu, &s, &e) < 0)			\
			fail_msg("line %d: %s", __LINE__, e.text);	\
		soft_get_state(cpu, &again);				\
		assert_memory_equal(&s, &again, sizeof s);		\
	} while (0)
	TAKE((void)0);
	/* Run to the end of the lower half: the fault comes with the next fetch. */
	TAKE(s.rip = BIT(47));
	/* 64-bit code with no stack segment; it may go on as 32-bit code, and to real mode. */
	TAKE(s.seg[SEG_SS] = (struct cpu_segment){ .unusable = 1 });
	TAKE((s.seg[SEG_SS] = (struct cpu_segment){ .unusable = 1 }, s.seg[SEG_CS].attr = 0xc09b));
	TAKE((s.seg[SEG_SS] = (struct cpu_segment){ .unusable = 1 }, s.seg[SEG_CS].attr = 0xc09b,
	      s.cr0 &= ~(CR0_PG | CR0_PE), s.efer = EFER_LME));
	TAKE((s.seg[SEG_SS] = (struct cpu_segment){ .unusable = 1, .selector = 2, .attr = 0x40 },
	      s.seg[SEG_CS].attr = 0xa0db, s.seg[SEG_CS].selector = 0xa));
	assert_int_equal(cpu->cpl, 2);
	/* A task switch that failed leaves selectors without segments. */
	TAKE(s.seg[SEG_DS] = (struct cpu_segment){ .unusable = 1, .selector = 0x1234 });
	/* Left long mode with wide bases, and with the pointers of PAE paging as they were. */
	TAKE((s.seg[SEG_GS].base = ~0ull << 40, s.pdpte[1] = 0x1e19));
	TAKE((s.init_pending = s.sipi_pending = 1, s.sipi_vector = 0x9a));
	assert_int_equal(atomic_load(&cpu->v->requests) & (VCPU_REQ_INIT | VCPU_REQ_SIPI),
			 VCPU_REQ_INIT | VCPU_REQ_SIPI);
	TAKE((s.fpu.fcw = 0x37e, s.fpu.fsw = 0x8081));
	TAKE(s.halted = 1);
	soft_reset(cpu, false);
}

/* INIT keeps what power-on sets: caches, floating point, MSRs but EFER. */
static void init_and_power_on(void **state)
{
	protected_mode(0);
	cpu->s.fpu.fcw = 0x37f;
	cpu->s.star = 0x1234;
	cpu->s.efer = EFER_SCE;
	cpu->s.cr0 |= CR0_CD;
	soft_reset(cpu, true);
	assert_int_equal(cpu->s.fpu.fcw, 0x37f);
	assert_int_equal(cpu->s.star, 0x1234);
	assert_int_equal(cpu->s.efer, 0);
	assert_int_equal(cpu->s.cr0, CR0_CD | CR0_ET);
	assert_int_equal(cpu->rip, 0xfff0);
	assert_int_equal(cpu->s.seg[SEG_CS].base, 0xffff0000);
	soft_reset(cpu, false);
	assert_int_equal(cpu->s.cr0, CR0_CD | CR0_NW | CR0_ET);
	assert_int_equal(cpu->s.star, 0);
	assert_int_equal(cpu->s.fpu.fcw, 0x40);
	assert_int_equal(cpu->s.dr6, 0xffff0ff0);
	assert_int_equal(cpu->s.dr7, 0x400);
}

/* ---- cpu.model=skep-v3.1 ---------------------------------------------------------- */

/* A host that lacks one of its features is told which; the default model runs there. */
static void host_lacks(void **state)
{
	static const struct { unsigned bit; const char *name; bool v2; } lacks[] = {
		{ HOST_SSE42, "SSE4.2", true }, { HOST_POPCNT, "POPCNT", true },
		{ HOST_AES, "AES", true }, { HOST_PCLMULQDQ, "PCLMULQDQ", true },
		{ HOST_AVX, "no AVX;", false }, { HOST_AVX2, "AVX2", false },
		{ HOST_BMI1, "BMI1", false }, { HOST_BMI2, "BMI2", false }, { HOST_FMA, "FMA", false },
		{ HOST_F16C, "F16C", false }, { HOST_LZCNT, "LZCNT", false },
	};
	const struct cpu_model *v2 = cpu_model_find("skep-v2.1"), *v3 = cpu_model_find("skep-v3.1");
	struct skep_error e = { .text = "" };

	assert_int_equal(soft_host_check(v3, ~0u, &e), 0);
	for (unsigned i = 0; i < ARRAY_SIZE(lacks); i++) {
		assert_int_equal(soft_host_check(v3, ~lacks[i].bit, &e), -ENOTSUP);
		if (!strstr(e.text, lacks[i].name))
			fail_msg("%s: %s", lacks[i].name, e.text);
		assert_int_equal(!!strstr(e.text, "cpu.model=skep-v3.1"), !lacks[i].v2);
		assert_int_equal(soft_host_check(v2, ~lacks[i].bit, &e), lacks[i].v2 ? -ENOTSUP : 0);
	}
}

static void avx_state(void **state)
{
	struct skep_error e = { .text = "" };
	struct cpu_arch_state good, got;

	protected_mode(0);
	soft_get_state(cpu, &good);
	for (unsigned i = 0; i < 256; i++)
		good.fpu.ymmh[i / 16][i % 16] = (uint8_t)(i * 7);
	good.xcr0 = 7;
	assert_int_equal(soft_set_state(cpu, &good, &e), 0);
	soft_get_state(cpu, &got);
	assert_memory_equal(&got.fpu, &good.fpu, sizeof got.fpu);
	assert_int_equal(got.xcr0, 7);
	REFUSE("xcr0", s.xcr0 = 5);
	REFUSE("xcr0", s.xcr0 = 15);
	/* INIT leaves the registers, power-on clears them. */
	soft_reset(cpu, true);
	assert_memory_equal(cpu->s.fpu.ymmh, good.fpu.ymmh, sizeof got.fpu.ymmh);
	assert_int_equal(cpu->s.xcr0, 7);
	soft_reset(cpu, false);
	memset(good.fpu.ymmh, 0, sizeof good.fpu.ymmh);
	assert_memory_equal(cpu->s.fpu.ymmh, good.fpu.ymmh, sizeof got.fpu.ymmh);
	assert_int_equal(cpu->s.xcr0, 1);
}

/* What the model has not cannot be in its state. */
static void no_avx_state(void **state)
{
	struct cpu_arch_state good;

	protected_mode(0);
	soft_get_state(cpu, &good);
	REFUSE("ymmh[3]", s.fpu.ymmh[3][15] = 1);
	REFUSE("xcr0", s.xcr0 = 7);
}

/* Everything that needs the enabled component raises without it; BMI does not ask. */
static void avx_mode(void **state)
{
	protected_mode(0);
	cpu->s.cr4 |= CR4_OSXSAVE;
	for (unsigned v = 1; v < 8; v += 2) {
		cpu->s.xcr0 = v;
		soft_update_mode(cpu);
		assert_int_equal(!(cpu->mode & MODE_NOAVX), v == 7);
	}
	cpu->s.cr0 |= CR0_TS;
	soft_update_mode(cpu);
	assert_true(cpu->mode & MODE_NOAVX);
	cpu->s.cr0 &= ~CR0_TS;
	cpu->s.cr4 &= ~CR4_OSXSAVE;
	soft_update_mode(cpu);
	assert_true(cpu->mode & MODE_NOAVX);
}

/* Distinct instructions without end: the host code for them is made again, and never too much. */
static void many_thunks(void **state)
{
	unsigned full = 0;

	for (unsigned n = 0; n < 20000; n++) {
		/* vpshufd $imm, %ymmA, %ymmB and its like: 65536 of them */
		char code[] = { (char)0xc5, (char)(n & 0x1000 ? 0x7d : 0xfd), 0x70,
				(char)(0xc0 | (n >> 8 & 7) << 3 | (n >> 11 & 1) | (n >> 13 & 3) << 1),
				(char)n };

		if (!soft_vex_room(cpu->vex)) {
			full++;
			soft_cache_flush(cpu);
			assert_true(soft_vex_room(cpu->vex));
		}
		assert_true(implemented(code, sizeof code));
	}
	assert_true(full > 0);
}

static int avx_setup(void **state)
{
	soft_model = "skep-v3.1";
	return soft_setup(state);
}

static int v3_tests(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(features_match),
		cmocka_unit_test(no_other_feature),
		cmocka_unit_test(cpuid_live),
		cmocka_unit_test(state_round_trip),
		cmocka_unit_test(avx_state),
		cmocka_unit_test(avx_mode),
		cmocka_unit_test(many_thunks),
	};
	struct skep_error e = { .text = "" };

	if (soft_host_check(cpu_model_find("skep-v3.1"), soft_host_features(), &e) < 0) {
		printf("SKIP: %s\n", e.text);
		return 0;
	}
	return cmocka_run_group_tests_name("skep-v3.1", tests, avx_setup, soft_teardown);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(features_match),
		cmocka_unit_test(no_hypercalls),
		cmocka_unit_test(no_other_feature),
		cmocka_unit_test(cpuid_live),
		cmocka_unit_test(cpuid_topology),
		cmocka_unit_test(cpuid_tsc),
		cmocka_unit_test(msr_table),
		cmocka_unit_test(msr_values),
		cmocka_unit_test(msr_efer),
		cmocka_unit_test(msr_tsc),
		cmocka_unit_test(control_registers),
		cmocka_unit_test(pae_pointers),
		cmocka_unit_test(state_round_trip),
		cmocka_unit_test(state_refused),
		cmocka_unit_test(state_taken),
		cmocka_unit_test(init_and_power_on),
		cmocka_unit_test(host_lacks),
		cmocka_unit_test(no_avx_state),
	};
	int failed = cmocka_run_group_tests_name("CPU model", tests, soft_setup, soft_teardown);

	return failed + v3_tests();
}
