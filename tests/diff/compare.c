/* What must be equal, and how a difference is told. */
#include <inttypes.h>

#include "cpu/arch.h"
#include "diff.h"

/*
 * RF is pushed by faults (SDM vol. 3, 17.3.1.1) and by some hosts shown to the signal handler and
 * by some not.
 */
#define RFLAGS_COMPARED ((RFLAGS_STATUS | RFLAGS_TF | RFLAGS_DF | RFLAGS_NT | RFLAGS_AC | \
			  RFLAGS_ID | RFLAGS_IOPL | RFLAGS_IF))

static const char *const reg_names[16] = {
	"rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
	"r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15",
};
static const char *const path_names[SOFT_PATHS] = { "cold", "warm", "alone", "translated",
						 "translated, warm" };

const char *path_name(enum soft_path path)
{
	return path_names[path];
}

struct diff {
	FILE *out;
	bool same;
};

static bool differ(struct diff *d)
{
	d->same = false;
	return d->out;
}

static void diff_u64(struct diff *d, const char *name, uint64_t native, uint64_t soft)
{
	if (native != soft && differ(d))
		fprintf(d->out, "    %-8s native %016" PRIx64 "  soft %016" PRIx64 "\n", name, native,
			soft);
}

static void print_bytes(FILE *out, const uint8_t *p, unsigned n)
{
	while (n--)
		fprintf(out, "%02x", p[n]);
}

static void diff_bytes(struct diff *d, const char *name, unsigned number, const uint8_t *native,
		       const uint8_t *soft, unsigned n)
{
	if (!memcmp(native, soft, n) || !differ(d))
		return;
	fprintf(d->out, "    %s%-*u native ", name, (int)(8 - strlen(name)), number);
	print_bytes(d->out, native, n);
	fprintf(d->out, "  soft ");
	print_bytes(d->out, soft, n);
	fprintf(d->out, "\n");
}

static void diff_memory(struct diff *d, const uint8_t *native, const uint8_t *soft)
{
	unsigned shown = 0;

	for (unsigned page = 0; page < DATA_PAGES; page++) {
		unsigned off = page * 0x1000;

		if (page == DATA_HOLE || !memcmp(native + off, soft + off, 0x1000))
			continue;
		if (!differ(d))
			return;
		for (unsigned i = off; i < off + 0x1000; i++)
			if (native[i] != soft[i] && shown++ < 16)
				fprintf(d->out, "    [%08x] native %02x  soft %02x\n", DATA_BASE + i,
					native[i], soft[i]);
	}
	if (shown > 16)
		fprintf(d->out, "    ... %u bytes in all\n", shown);
}

static const char *ending_name(enum ending e)
{
	static const char *const names[] = { "end", "fault", "timeout", "system call", "broken" };

	return names[e];
}

/* Linux tells user mode of every fault above its own addresses as a protection violation. */
#define USER_END 0x7ffffffff000ull

static uint32_t visible_error(const struct outcome *o)
{
	if (o->vector == EXC_PF && o->cr2 >= USER_END)
		return o->error | 1;
	return o->error;
}

/* The instruction that faulted, or NULL. */
static const struct case_insn *culprit(const struct diff_case *k, const struct outcome *o)
{
	for (unsigned i = 0; i < k->ninsns; i++)
		if (o->ending == END_FAULT && o->m.rip == k->start + k->insn[i].off)
			return &k->insn[i];
	return NULL;
}

/*
 * Operands that are read and written in pieces: which piece faults first, and whether those before
 * it have been stored, is the processor's affair.
 */
static bool is_masked(const struct case_insn *i)
{
	return i->mnemonic == ZYDIS_MNEMONIC_VPMASKMOVD || i->mnemonic == ZYDIS_MNEMONIC_VPMASKMOVQ ||
	       i->mnemonic == ZYDIS_MNEMONIC_VMASKMOVPS || i->mnemonic == ZYDIS_MNEMONIC_VMASKMOVPD;
}

static bool in_pieces(const struct case_insn *i)
{
	return i && i->operand > 8 && (i->operand != 16 || i->mnemonic == ZYDIS_MNEMONIC_CMPXCHG16B ||
				       is_masked(i));
}

/* POPA that faults half-way: the registers before that have been loaded, or not. */
static bool is_popa(const struct case_insn *i)
{
	return i && (i->mnemonic == ZYDIS_MNEMONIC_POPA || i->mnemonic == ZYDIS_MNEMONIC_POPAD);
}

/* XRSTOR that refuses the MXCSR of a compacted image: the registers may have been loaded. */
static bool is_xrstor(const struct case_insn *i)
{
	return i && (i->mnemonic == ZYDIS_MNEMONIC_XRSTOR || i->mnemonic == ZYDIS_MNEMONIC_XRSTOR64);
}

/* Bytes in which a fault may be found; an XSAVE area's depend on what is saved. */
static unsigned extent(const struct case_insn *i)
{
	return i->operand >= 512 ? 832 : i->operand;
}

static unsigned operand(const struct case_insn *i)
{
	return i ? i->operand : 0;
}

static void diff_fault(struct diff *d, const struct diff_case *k, const struct outcome *a,
		       const struct outcome *b)
{
	const struct case_insn *i;

	if (a->ending != b->ending) {
		if (differ(d))
			fprintf(d->out, "    native %s (vector %u)  soft %s (vector %u)\n",
				ending_name(a->ending), a->vector, ending_name(b->ending), b->vector);
		if (d->out && b->ending == END_FAULT && b->vector == EXC_PF)
			fprintf(d->out, "    soft cr2 %016" PRIx64 " error %x\n", b->cr2, b->error);
		return;
	}
	if (a->ending != END_FAULT)
		return;
	/* SDM vol. 2, FXSAVE: whether a misaligned image is #AC or #GP may vary. */
	if (a->vector == EXC_AC && b->vector == EXC_GP && operand(culprit(k, a)) >= 512)
		return;
	i = culprit(k, a);
	/* An area that is wrong and not all there: which is found first depends on what is wrong. */
	if (is_xrstor(i) && (a->vector == EXC_GP || a->vector == EXC_PF) &&
	    (b->vector == EXC_GP || b->vector == EXC_PF))
		return;
	diff_u64(d, "vector", a->vector, b->vector);
	if (a->vector != b->vector)
		return;
	if (a->vector == EXC_PF && in_pieces(i) &&
	    (uint32_t)(a->cr2 - b->cr2 + extent(i)) < 2u * extent(i))
		return;
	diff_u64(d, "error", visible_error(a), visible_error(b));
	if (a->vector == EXC_PF)
		diff_u64(d, "cr2", a->cr2, b->cr2);
}

#define FSW_TOP 0x3800

/*
 * mmx_fault: an MMX instruction that faulted may, or may not, have set TOP and the tags before it
 * did (a processor's affair); registers are then compared by their physical number.
 */
static void diff_fpu(struct diff *d, const struct machine *ma, const struct machine *mb,
		     bool mmx_fault)
{
	const struct fx_image *a = &ma->fx, *b = &mb->fx;
	unsigned ignore = mmx_fault ? FSW_TOP : 0;
	unsigned shift = mmx_fault ? (unsigned)(a->fsw - b->fsw) >> 11 & 7 : 0;

	diff_u64(d, "fcw", a->fcw, b->fcw);
	diff_u64(d, "fsw", a->fsw & ~ignore, b->fsw & ~ignore);
	if (!mmx_fault)
		diff_u64(d, "ftw", a->ftw, b->ftw);
	diff_u64(d, "mxcsr", a->mxcsr, b->mxcsr);
	for (unsigned i = 0; i < 8; i++)
		diff_bytes(d, "st", i, a->st[i], b->st[(i + shift) & 7], 10);
	for (unsigned i = 0; i < 16; i++)
		diff_bytes(d, "xmm", i, a->xmm[i], b->xmm[i], 16);
	for (unsigned i = 0; i < 16; i++)
		diff_bytes(d, "ymmh", i, ma->ymmh[i], mb->ymmh[i], 16);
}

/*
 * The CPU model is Intel's in what specifications leave open: which of two faults comes first, what
 * has been stored before, whether a branch to an address that is not canonical faults before or
 * after it.  Of another vendor's fault only the kind and, mostly, the place are compared.
 */
static bool compare_foreign_fault(const struct outcome *a, const struct outcome *b, struct diff *d)
{
	diff_u64(d, "vector", a->vector, b->vector);
	if (a->vector != EXC_GP)
		diff_u64(d, "rip", a->m.rip, b->m.rip);
	return d->same;
}

bool compare_outcomes(const struct diff_case *k, const struct outcome *native,
		      const struct outcome *soft, FILE *out)
{
	struct diff d = { out, true };
	const struct machine *a = &native->m, *b = &soft->m;
	uint64_t flags = RFLAGS_COMPARED &
			 ~(uint64_t)(native->ending == END_EXIT ? k->undefined_end : k->undefined_any);

	if (k->foreign && native->ending == END_FAULT && soft->ending == END_FAULT)
		return compare_foreign_fault(native, soft, &d);
	diff_fault(&d, k, native, soft);
	if (native->ending == END_TIMEOUT && d.same)
		return true;
	diff_u64(&d, "rip", a->rip, b->rip);
	for (unsigned i = 0; i < (k->compat ? 8 : 16); i++)
		if (!(native->ending == END_FAULT && is_popa(culprit(k, native)) && i != REG_RSP))
			diff_u64(&d, reg_names[i], a->gpr[i], b->gpr[i]);
	diff_u64(&d, "rflags", a->rflags & flags, b->rflags & flags);
	if (!k->compat) {
		diff_u64(&d, "fs base", a->fs_base, b->fs_base);
		diff_u64(&d, "gs base", a->gs_base, b->gs_base);
	}
	if (!(native->ending == END_FAULT && is_xrstor(culprit(k, native))))
		diff_fpu(&d, a, b, culprit(k, native) && culprit(k, native)->mmx);
	if (native->ending != END_FAULT || native->vector != EXC_PF || !in_pieces(culprit(k, native)))
		diff_memory(&d, native->memory, soft->memory);
	return d.same;
}

bool compare_ud(const struct diff_case *k, const uint8_t *memory, const struct outcome *soft,
		FILE *out)
{
	struct outcome want = { .m = k->in, .ending = END_FAULT, .vector = EXC_UD, .memory = memory };

	return compare_outcomes(k, &want, soft, out);
}

/* ---- A case in words ------------------------------------------------------------------ */

static void print_code(const struct diff_case *k, FILE *out)
{
	ZydisDecoder z;
	ZydisFormatter f;
	ZydisDecodedInstruction insn;
	ZydisDecodedOperand ops[ZYDIS_MAX_OPERAND_COUNT];
	char text[128];

	rule_decoder(&z, k->compat);
	ZydisFormatterInit(&f, ZYDIS_FORMATTER_STYLE_INTEL);
	for (unsigned i = 0; i < k->ninsns; i++) {
		const struct case_insn *c = &k->insn[i];

		fprintf(out, "    %08x  ", k->start + c->off);
		for (unsigned j = 0; j < c->len; j++)
			fprintf(out, "%02x", k->code[c->off + j]);
		if (ZYAN_SUCCESS(rule_decode(&z, k->code + c->off, &insn, ops)) &&
		    ZYAN_SUCCESS(ZydisFormatterFormatInstruction(&f, &insn, ops,
								 insn.operand_count_visible, text,
								 sizeof text, k->start + c->off,
								 NULL)))
			fprintf(out, "  %s", text);
		else
			fprintf(out, "  (no instruction)");
		fprintf(out, "%s\n",
			memcmp(k->code + c->off, k->native_code + c->off, c->len) ?
			"  (natively without lock)" : "");
	}
}

static void print_fpu(const struct machine *m, FILE *out)
{
	const struct fx_image *x = &m->fx;

	fprintf(out, "    fcw %04x fsw %04x ftw %02x mxcsr %08x\n", x->fcw, x->fsw, x->ftw, x->mxcsr);
	for (unsigned i = 0; i < 8; i++) {
		fprintf(out, "    st%u ", i);
		print_bytes(out, x->st[i], 10);
		fprintf(out, i & 1 ? "\n" : "  ");
	}
	for (unsigned i = 0; i < 16; i++) {
		fprintf(out, "    xmm%-2u ", i);
		print_bytes(out, x->xmm[i], 16);
		fprintf(out, ":");
		print_bytes(out, m->ymmh[i], 16);
		fprintf(out, i & 1 ? "\n" : "  ");
	}
}

void compare_print_case(const struct diff_case *k, bool state, FILE *out)
{
	const struct machine *m = &k->in;

	fprintf(out, "seed %" PRIu64 " case %" PRIu64 ", %s code:\n", k->seed, k->number,
		k->compat ? "32-bit" : "64-bit");
	print_code(k, out);
	if (!state)
		return;
	for (unsigned i = 0; i < (k->compat ? 8 : 16); i++)
		fprintf(out, "    %-3s %016" PRIx64 "%s", reg_names[i], m->gpr[i],
			i % 4 == 3 ? "\n" : " ");
	fprintf(out, "    rflags %06" PRIx64 " fs %" PRIx64 " gs %" PRIx64 "\n", m->rflags, m->fs_base,
		m->gs_base);
	print_fpu(m, out);
	for (unsigned i = 0; i < k->npatches; i++) {
		fprintf(out, "    [%08x] ", k->patch[i].addr);
		for (unsigned j = 0; j < k->patch[i].len; j++)
			fprintf(out, "%02x", k->patch[i].bytes[j]);
		fprintf(out, "\n");
	}
}
