/*
 * What may be compared: which instructions the CPU model announces, which of those a comparison
 * of user-visible state can judge, and which of the flags are defined.
 */
#include "cpu/arch.h"
#include "diff.h"

/* The model's features, as Zydis sorts instructions. */
static const uint8_t announced[] = {
	ZYDIS_ISA_SET_I86, ZYDIS_ISA_SET_I186, ZYDIS_ISA_SET_I286REAL, ZYDIS_ISA_SET_I286PROTECTED,
	ZYDIS_ISA_SET_I386, ZYDIS_ISA_SET_I486REAL, ZYDIS_ISA_SET_I486, ZYDIS_ISA_SET_PENTIUMREAL,
	ZYDIS_ISA_SET_PENTIUMMMX, ZYDIS_ISA_SET_PPRO, ZYDIS_ISA_SET_CMOV, ZYDIS_ISA_SET_FCMOV,
	ZYDIS_ISA_SET_X87, ZYDIS_ISA_SET_SSE, ZYDIS_ISA_SET_SSE2, ZYDIS_ISA_SET_SSE2MMX,
	ZYDIS_ISA_SET_SSE3, ZYDIS_ISA_SET_SSE3X87, ZYDIS_ISA_SET_SSSE3, ZYDIS_ISA_SET_SSSE3MMX,
	ZYDIS_ISA_SET_SSE4, ZYDIS_ISA_SET_SSE42, ZYDIS_ISA_SET_SSEMXCSR, ZYDIS_ISA_SET_SSE_PREFETCH,
	ZYDIS_ISA_SET_AES, ZYDIS_ISA_SET_PCLMULQDQ, ZYDIS_ISA_SET_POPCNT, ZYDIS_ISA_SET_MOVBE,
	ZYDIS_ISA_SET_LONGMODE, ZYDIS_ISA_SET_LAHF, ZYDIS_ISA_SET_CMPXCHG16B, ZYDIS_ISA_SET_FXSAVE,
	ZYDIS_ISA_SET_FXSAVE64, ZYDIS_ISA_SET_XSAVE, ZYDIS_ISA_SET_XSAVEC, ZYDIS_ISA_SET_XSAVEOPT,
	ZYDIS_ISA_SET_RDWRFSGS, ZYDIS_ISA_SET_CLFSH, ZYDIS_ISA_SET_FAT_NOP, ZYDIS_ISA_SET_PAUSE,
	ZYDIS_ISA_SET_PREFETCH_NOP, ZYDIS_ISA_SET_RDPMC, ZYDIS_ISA_SET_RDRAND, ZYDIS_ISA_SET_RDTSCP,
	ZYDIS_ISA_SET_SMAP, ZYDIS_ISA_SET_INVPCID,
};

/* What cpu.model=skep-v3.1 has beyond. */
static const uint8_t announced_v3[] = {
	ZYDIS_ISA_SET_AVX, ZYDIS_ISA_SET_AVX2, ZYDIS_ISA_SET_AVX2GATHER, ZYDIS_ISA_SET_AVXAES,
	ZYDIS_ISA_SET_F16C, ZYDIS_ISA_SET_FMA, ZYDIS_ISA_SET_BMI1, ZYDIS_ISA_SET_BMI2,
	ZYDIS_ISA_SET_LZCNT,
};

static bool model_v3;

void rule_set_model(bool v3)
{
	model_v3 = v3;
}

/* Encodings that mean something older where the feature is missing: BSR, NOP and so on. */
static const uint8_t older_meaning[] = {
	ZYDIS_ISA_SET_LZCNT, ZYDIS_ISA_SET_CET, ZYDIS_ISA_SET_MPX, ZYDIS_ISA_SET_CLDEMOTE,
	ZYDIS_ISA_SET_PREFETCHWT1, ZYDIS_ISA_SET_RTM, ZYDIS_ISA_SET_INVALID,
};

static bool in_set(const uint8_t *set, unsigned n, unsigned isa)
{
	for (unsigned i = 0; i < n; i++)
		if (set[i] == isa)
			return true;
	return false;
}

static bool is_segment(const ZydisDecodedOperand *o)
{
	return o->type == ZYDIS_OPERAND_TYPE_REGISTER &&
	       ZydisRegisterGetClass(o->reg.value) == ZYDIS_REGCLASS_SEGMENT;
}

/* INT n: vectors that the host's kernel gives to user mode, or takes as a system call. */
static enum rule rule_int(uint64_t vector)
{
	return vector == 0x80 || vector == 1 || vector == 2 ? RULE_SKIP : RULE_RUN;
}

enum rule rule_for(const ZydisDecodedInstruction *insn, const ZydisDecodedOperand *ops,
		   const struct host_facts *host)
{
	bool v3 = model_v3 && in_set(announced_v3, sizeof announced_v3, insn->meta.isa_set);

	if (!v3 && (insn->mnemonic == ZYDIS_MNEMONIC_TZCNT ||
		    in_set(older_meaning, sizeof older_meaning, insn->meta.isa_set)))
		return RULE_SKIP;
	if (!v3 && !in_set(announced, sizeof announced, insn->meta.isa_set))
		return RULE_UD;
	if (insn->meta.branch_type == ZYDIS_BRANCH_TYPE_FAR)
		return RULE_SKIP;
	switch (insn->mnemonic) {
	/* Time, identity, chance; the host's own tables and system. */
	case ZYDIS_MNEMONIC_SYSCALL: case ZYDIS_MNEMONIC_SYSENTER:
	case ZYDIS_MNEMONIC_CPUID: case ZYDIS_MNEMONIC_RDTSC: case ZYDIS_MNEMONIC_RDTSCP:
	case ZYDIS_MNEMONIC_RDPMC: case ZYDIS_MNEMONIC_RDRAND: case ZYDIS_MNEMONIC_XGETBV:
	case ZYDIS_MNEMONIC_IRET: case ZYDIS_MNEMONIC_IRETD: case ZYDIS_MNEMONIC_IRETQ:
	case ZYDIS_MNEMONIC_LAR: case ZYDIS_MNEMONIC_LSL: case ZYDIS_MNEMONIC_VERR:
	case ZYDIS_MNEMONIC_VERW: case ZYDIS_MNEMONIC_SLDT: case ZYDIS_MNEMONIC_STR:
	case ZYDIS_MNEMONIC_SMSW: case ZYDIS_MNEMONIC_SGDT: case ZYDIS_MNEMONIC_SIDT:
	case ZYDIS_MNEMONIC_LDS: case ZYDIS_MNEMONIC_LES: case ZYDIS_MNEMONIC_LFS:
	case ZYDIS_MNEMONIC_LGS: case ZYDIS_MNEMONIC_LSS:
		return RULE_SKIP;
	case ZYDIS_MNEMONIC_MOV: case ZYDIS_MNEMONIC_POP:
		return is_segment(&ops[0]) ? RULE_SKIP : RULE_RUN;
	case ZYDIS_MNEMONIC_INT:
		return rule_int(ops[0].imm.value.u & 0xff);
	case ZYDIS_MNEMONIC_RDFSBASE: case ZYDIS_MNEMONIC_RDGSBASE:
	case ZYDIS_MNEMONIC_WRFSBASE: case ZYDIS_MNEMONIC_WRGSBASE:
		return host->fsgsbase ? RULE_RUN : RULE_SKIP;
	/* 66 before a near branch in 64-bit code: ignored by Intel only. */
	case ZYDIS_MNEMONIC_JMP: case ZYDIS_MNEMONIC_CALL: case ZYDIS_MNEMONIC_RET:
	case ZYDIS_MNEMONIC_SYSRET: case ZYDIS_MNEMONIC_SYSEXIT:
		return host->intel ? RULE_RUN : RULE_SKIP;
	/* They show the instruction pointers of x87, which are the model's own. */
	case ZYDIS_MNEMONIC_FNSTENV: case ZYDIS_MNEMONIC_FNSAVE: case ZYDIS_MNEMONIC_FXSAVE:
	case ZYDIS_MNEMONIC_FXSAVE64: case ZYDIS_MNEMONIC_XSAVE: case ZYDIS_MNEMONIC_XSAVE64:
	case ZYDIS_MNEMONIC_XSAVEC: case ZYDIS_MNEMONIC_XSAVEC64: case ZYDIS_MNEMONIC_XSAVEOPT:
	case ZYDIS_MNEMONIC_XSAVEOPT64: case ZYDIS_MNEMONIC_XRSTOR: case ZYDIS_MNEMONIC_XRSTOR64:
		return RULE_ALONE;
	/* Their alignment check (#AC) is the processor's affair: nothing before them may ask for it. */
	case ZYDIS_MNEMONIC_MASKMOVQ: case ZYDIS_MNEMONIC_MASKMOVDQU:
	case ZYDIS_MNEMONIC_VMASKMOVDQU:
		return RULE_ALONE;
	/* Their addresses are a vector's elements, which have to be settled. */
	case ZYDIS_MNEMONIC_VGATHERDPS: case ZYDIS_MNEMONIC_VGATHERDPD:
	case ZYDIS_MNEMONIC_VGATHERQPS: case ZYDIS_MNEMONIC_VGATHERQPD:
	case ZYDIS_MNEMONIC_VPGATHERDD: case ZYDIS_MNEMONIC_VPGATHERDQ:
	case ZYDIS_MNEMONIC_VPGATHERQD: case ZYDIS_MNEMONIC_VPGATHERQQ:
		return RULE_ALONE;
	default:
		return RULE_RUN;
	}
}

/*
 * Newer processors fill these holes of the opcode maps: what is undefined to the decoder may be
 * an instruction to the host.
 */
bool rule_undefined_is_safe(const uint8_t *bytes, ZyanStatus status, bool compat)
{
	unsigned i = 0;

	if (status == ZYDIS_STATUS_ILLEGAL_LOCK)
		return true;
	if (status != ZYDIS_STATUS_DECODING_ERROR)
		return false;
	for (; i < 14; i++) {
		uint8_t b = bytes[i];
		bool prefix = b == 0x66 || b == 0x67 || b == 0xf0 || b == 0xf2 || b == 0xf3 ||
			      b == 0x26 || b == 0x2e || b == 0x36 || b == 0x3e || b == 0x64 ||
			      b == 0x65 || (!compat && (b & 0xf0) == 0x40);

		if (!prefix)
			break;
	}
	if (bytes[i] == 0x62 || bytes[i] == 0xc4 || bytes[i] == 0xc5 || bytes[i] == 0x8f ||
	    bytes[i] == 0xd5 || bytes[i] == 0xc6 || bytes[i] == 0xc7)
		return false;		/* EVEX, VEX, XOP, REX2, XABORT, XBEGIN */
	if (bytes[i] != 0x0f)
		return true;
	switch (bytes[i + 1]) {
	case 0x0b: case 0xb9: case 0xff: case 0xba: case 0x71: case 0x72: case 0x73:
		return true;
	default:
		return false;
	}
}

/* ---- Flags ------------------------------------------------------------------------ */

#define F_LOGIC	RFLAGS_AF
#define F_ALL	RFLAGS_STATUS

/*
 * SDM vol. 2, "Flags Affected" of each.  Counts of shifts are seldom known: OF is undefined unless
 * the count is 1.
 */
uint32_t rule_undefined_flags(const ZydisDecodedInstruction *insn, const ZydisDecodedOperand *ops)
{
	switch (insn->mnemonic) {
	case ZYDIS_MNEMONIC_AND: case ZYDIS_MNEMONIC_OR: case ZYDIS_MNEMONIC_XOR:
	case ZYDIS_MNEMONIC_TEST:
		return RFLAGS_AF;
	case ZYDIS_MNEMONIC_SHL: case ZYDIS_MNEMONIC_SHR: case ZYDIS_MNEMONIC_SAR:
		/* CF too when a SHL or SHR by more than the operand's size. */
		return RFLAGS_AF | (insn->raw.imm[0].size == 0 && insn->opcode < 0xd2 ? 0 :
				    RFLAGS_OF | (ops[0].size < 32 ? RFLAGS_CF : 0));
	case ZYDIS_MNEMONIC_ROL: case ZYDIS_MNEMONIC_ROR: case ZYDIS_MNEMONIC_RCL:
	case ZYDIS_MNEMONIC_RCR:
		return insn->raw.imm[0].size == 0 && insn->opcode < 0xd2 ? 0 : RFLAGS_OF;
	case ZYDIS_MNEMONIC_SHLD: case ZYDIS_MNEMONIC_SHRD:
		/* A count above 16 of a 16-bit operand leaves all of them undefined. */
		return ops[0].size == 16 ? F_ALL : RFLAGS_AF | RFLAGS_OF;
	case ZYDIS_MNEMONIC_MUL: case ZYDIS_MNEMONIC_IMUL:
		return RFLAGS_SF | RFLAGS_ZF | RFLAGS_AF | RFLAGS_PF;
	case ZYDIS_MNEMONIC_DIV: case ZYDIS_MNEMONIC_IDIV:
		return F_ALL;
	case ZYDIS_MNEMONIC_BT: case ZYDIS_MNEMONIC_BTS: case ZYDIS_MNEMONIC_BTR:
	case ZYDIS_MNEMONIC_BTC:
		return RFLAGS_OF | RFLAGS_SF | RFLAGS_AF | RFLAGS_PF;
	case ZYDIS_MNEMONIC_BSF: case ZYDIS_MNEMONIC_BSR:
		return F_ALL & ~RFLAGS_ZF;
	case ZYDIS_MNEMONIC_AAA: case ZYDIS_MNEMONIC_AAS:
		return RFLAGS_OF | RFLAGS_SF | RFLAGS_ZF | RFLAGS_PF;
	case ZYDIS_MNEMONIC_AAM: case ZYDIS_MNEMONIC_AAD:
		return RFLAGS_OF | RFLAGS_AF | RFLAGS_CF;
	case ZYDIS_MNEMONIC_DAA: case ZYDIS_MNEMONIC_DAS:
		return RFLAGS_OF;
	case ZYDIS_MNEMONIC_ANDN: case ZYDIS_MNEMONIC_BLSI: case ZYDIS_MNEMONIC_BLSMSK:
	case ZYDIS_MNEMONIC_BLSR: case ZYDIS_MNEMONIC_BZHI:
		return RFLAGS_AF | RFLAGS_PF;
	case ZYDIS_MNEMONIC_BEXTR:
		return RFLAGS_AF | RFLAGS_SF | RFLAGS_PF;
	case ZYDIS_MNEMONIC_LZCNT: case ZYDIS_MNEMONIC_TZCNT:
		return F_ALL & ~(RFLAGS_ZF | RFLAGS_CF);
	default:
		return 0;
	}
}

/* ---- Coverage ---------------------------------------------------------------------- */

/* As a host with everything decodes. */
void rule_decoder(ZydisDecoder *z, bool compat)
{
	if (compat)
		ZydisDecoderInit(z, ZYDIS_MACHINE_MODE_LONG_COMPAT_32, ZYDIS_STACK_WIDTH_32);
	else
		ZydisDecoderInit(z, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
}

ZyanStatus rule_decode(const ZydisDecoder *z, const uint8_t *bytes, ZydisDecodedInstruction *insn,
		       ZydisDecodedOperand *ops)
{
	ZyanStatus status = ZydisDecoderDecodeFull(z, bytes, 15, insn, ops);

	/* Zydis 4.0 sees R13 where there is no base, with REX.B and 32-bit addresses. */
	if (ZYAN_SUCCESS(status) && insn->raw.modrm.mod == 0 && insn->raw.sib.offset &&
	    insn->raw.sib.base == 5)
		for (unsigned i = 0; i < insn->operand_count; i++)
			if (ops[i].type == ZYDIS_OPERAND_TYPE_MEMORY &&
			    ops[i].visibility == ZYDIS_OPERAND_VISIBILITY_EXPLICIT) {
				ops[i].mem.base = ZYDIS_REGISTER_NONE;
				ops[i].mem.disp.has_displacement = ZYAN_TRUE;
				ops[i].mem.disp.value = insn->raw.disp.value;
			}
	return status;
}

static void scan(const ZydisDecoder *z, const uint8_t *bytes, const struct host_facts *host,
		 uint8_t *wanted)
{
	ZydisDecodedInstruction insn;
	ZydisDecodedOperand ops[ZYDIS_MAX_OPERAND_COUNT];
	enum rule rule;

	if (!ZYAN_SUCCESS(rule_decode(z, bytes, &insn, ops)))
		return;
	rule = rule_for(&insn, ops, host);
	if (rule == RULE_RUN || rule == RULE_ALONE)
		wanted[insn.mnemonic] = 1;
}

/* Every opcode, mandatory prefix and ModRM. */
static void scan_all(bool compat, const struct host_facts *host, uint8_t *wanted)
{
	static const uint8_t maps[4][2] = { { 0, 0 }, { 0x0f, 0 }, { 0x0f, 0x38 }, { 0x0f, 0x3a } };
	static const uint8_t prefixes[] = { 0, 0x66, 0xf3, 0xf2 };
	ZydisDecoder z;

	rule_decoder(&z, compat);
	for (unsigned i = 0; i < 4 * 4 * 2 * 0x10000; i++) {
		uint8_t b[16] = { 0 };
		unsigned n = 0;

		if (prefixes[i & 3])
			b[n++] = prefixes[i & 3];
		if (i >> 2 & 1) {
			if (compat)
				continue;
			b[n++] = 0x48;
		}
		for (unsigned j = 0; j < 2; j++)
			if (maps[i >> 3 & 3][j])
				b[n++] = maps[i >> 3 & 3][j];
		b[n++] = (uint8_t)(i >> 5);
		b[n++] = (uint8_t)(i >> 13);
		scan(&z, b, host, wanted);
	}
}

/* The same behind VEX prefixes: of either length, with and without a second source. */
static void scan_vex(bool compat, const struct host_facts *host, uint8_t *wanted)
{
	ZydisDecoder z;

	rule_decoder(&z, compat);
	for (unsigned i = 0; i < 3 * 32 * 0x10000u; i++) {
		unsigned map = 1 + i % 3, bits = i / 3 % 32, rest = i / 96;
		uint8_t vvvv = bits & 1 ? 0xf : 0xd;
		uint8_t b[16] = { 0xc4, (uint8_t)(0xe0 | map),
				  (uint8_t)((bits & 2) << 6 | vvvv << 3 | (bits >> 2 & 7)),
				  (uint8_t)rest, (uint8_t)(rest >> 8), 0x10 };

		scan(&z, b, host, wanted);
	}
}

unsigned rule_print_missing(const uint32_t *seen, const struct host_facts *host, FILE *out)
{
	static uint8_t wanted[ZYDIS_MNEMONIC_MAX_VALUE + 1];
	unsigned all = 0, missing = 0;

	scan_all(false, host, wanted);
	if (host->compat)
		scan_all(true, host, wanted);
	if (model_v3)
		scan_vex(false, host, wanted);
	for (unsigned m = 0; m <= ZYDIS_MNEMONIC_MAX_VALUE; m++) {
		all += wanted[m];
		if (wanted[m] && !seen[m]) {
			fprintf(out, "not generated: %s\n", ZydisMnemonicGetString((ZydisMnemonic)m));
			missing++;
		}
	}
	fprintf(out, "%u mnemonics announced and comparable, %u of them not generated\n", all,
		missing);
	return missing;
}
