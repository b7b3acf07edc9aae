/* The instruction that a machine executes next, read through its page tables without a trace. */
#include <inttypes.h>
#include <stdio.h>

#include <Zydis/Zydis.h>

#include "lockstep.h"

#define PTE_P	BIT(0)
#define PTE_PS	BIT(7)
#define ADDRESS	0x000ffffffffff000ull

static uint64_t entry(const struct machine *m, uint64_t gpa, unsigned size)
{
	uint64_t v = 0;

	return dma_read(&m->vm->memory, gpa, &v, size) < 0 ? 0 : v;
}

/* The physical address of lin; false: not mapped. */
static bool translate(const struct machine *m, const struct cpu_arch_state *s, uint64_t lin,
		      uint64_t *phys)
{
	bool pae = s->cr4 & CR4_PAE, lma = s->efer & EFER_LMA;
	unsigned bits = pae ? 9 : 10, size = pae ? 8 : 4;
	int level = !pae ? 2 : lma ? 4 : 2;
	uint64_t table = s->cr3 & (pae ? ADDRESS : 0xfffff000), e;

	*phys = lin;
	if (!(s->cr0 & CR0_PG))
		return true;
	if (pae && !lma) {
		e = s->pdpte[lin >> 30 & 3];
		if (!(e & PTE_P))
			return false;
		table = e & ADDRESS;
	}
	for (; level; level--) {
		unsigned shift = 12 + bits * ((unsigned)level - 1);
		uint64_t in_page = BIT(shift) - 1;

		e = entry(m, table + (lin >> shift & (BIT(bits) - 1)) * size, size);
		if (!(e & PTE_P))
			return false;
		if (level == 1 || (level <= 3 && e & PTE_PS && (pae || s->cr4 & CR4_PSE))) {
			*phys = (e & ADDRESS & ~in_page) | (lin & in_page);
			return true;
		}
		table = e & ADDRESS;
	}
	return false;
}

static unsigned fetch(const struct machine *m, const struct cpu_arch_state *s, uint8_t bytes[15])
{
	uint64_t base = s->efer & EFER_LMA && s->seg[SEG_CS].attr & BIT(13) ? 0 : s->seg[SEG_CS].base;
	unsigned n = 0;

	for (; n < 15; n++) {
		uint64_t phys;

		if (!translate(m, s, base + s->rip + n, &phys) ||
		    dma_read(&m->vm->memory, phys, &bytes[n], 1) < 0)
			break;
	}
	return n;
}

static void disassemble(const struct cpu_arch_state *s, const uint8_t *bytes, unsigned avail)
{
	ZydisDecodedOperand ops[ZYDIS_MAX_OPERAND_COUNT];
	bool lma = s->efer & EFER_LMA, big = s->seg[SEG_CS].attr & BIT(14);
	ZydisDecodedInstruction insn;
	ZydisFormatter f;
	ZydisDecoder z;
	char text[128];

	if (lma && s->seg[SEG_CS].attr & BIT(13))
		ZydisDecoderInit(&z, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
	else if (big)
		ZydisDecoderInit(&z, ZYDIS_MACHINE_MODE_LEGACY_32, ZYDIS_STACK_WIDTH_32);
	else
		ZydisDecoderInit(&z, ZYDIS_MACHINE_MODE_LEGACY_16, ZYDIS_STACK_WIDTH_16);
	ZydisFormatterInit(&f, ZYDIS_FORMATTER_STYLE_INTEL);
	if (!ZYAN_SUCCESS(ZydisDecoderDecodeFull(&z, bytes, avail, &insn, ops))) {
		for (unsigned i = 0; i < avail; i++)
			printf("%02x", bytes[i]);
		printf("  (no instruction)");
		return;
	}
	for (unsigned i = 0; i < insn.length; i++)
		printf("%02x", bytes[i]);
	if (ZYAN_SUCCESS(ZydisFormatterFormatInstruction(&f, &insn, ops, insn.operand_count_visible, text,
							 sizeof(text), s->rip, NULL)))
		printf("%*s  %s", insn.length < 10 ? (10 - insn.length) * 2 : 0, "", text);
}

void print_instruction(struct machine *m)
{
	struct cpu_arch_state s;
	uint8_t bytes[15];
	unsigned n;

	device_lock(m->vm);
	processor_state(m, &s);
	device_unlock(m->vm);
	n = fetch(m, &s, bytes);
	printf("  %" PRIu64 "  %04x:%016" PRIx64 "  ", machine_insns(m), s.seg[SEG_CS].selector, s.rip);
	if (n)
		disassemble(&s, bytes, n);
	else
		printf("(no code there)");
	printf("%s\n", s.halted ? "  halted" : "");
}
