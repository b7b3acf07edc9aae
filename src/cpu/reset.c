/* Power-on and INIT (SDM vol. 3, table 9-1). */
#include <string.h>

#include "cpu/arch.h"

#define PAT_RESET	0x0007040600070406ull
/* Branch trace storage and PEBS unavailable; fast strings on. */
#define MISC_ENABLE	0x1801ull
#define APIC_BASE	0xfee00900ull
#define DR6_RESET	0xffff0ff0ull
#define DR7_RESET	0x400ull

/* Attributes: present, accessed; data that can be written, code that can be read, LDT, busy TSS. */
#define ATTR_DATA	0x93
#define ATTR_CODE	0x9b
#define ATTR_LDT	0x82
#define ATTR_TSS	0x8b

static void reset_segments(struct cpu_arch_state *s)
{
	for (unsigned i = 0; i < SEG_COUNT; i++)
		s->seg[i] = (struct cpu_segment){ .attr = ATTR_DATA, .limit = 0xffff };
	s->seg[SEG_CS].selector = 0xf000;
	s->seg[SEG_CS].base = 0xffff0000;
	s->seg[SEG_CS].attr = ATTR_CODE;
	s->seg[SEG_LDTR].attr = ATTR_LDT;
	s->seg[SEG_TR].attr = ATTR_TSS;
	s->gdtr = s->idtr = (struct cpu_table){ .base = 0, .limit = 0xffff };
}

/* What INIT leaves alone. */
static void reset_power_on(struct cpu_arch_state *s)
{
	memset(s, 0, sizeof(*s));
	s->fpu.fcw = 0x40;
	s->fpu.ftw = 0xff;		/* all valid, +0.0 */
	s->fpu.mxcsr = 0x1f80;
	s->pat = PAT_RESET;
	s->misc_enable = MISC_ENABLE;
	s->cr0 = CR0_CD | CR0_NW;
	s->xcr0 = XCR0_X87;
	s->apic_base = APIC_BASE;
}

void cpu_arch_reset(struct cpu_arch_state *s, bool init, bool boot, uint32_t signature)
{
	if (!init)
		reset_power_on(s);
	memset(s->gpr, 0, sizeof(s->gpr));
	s->gpr[REG_RDX] = signature;
	s->cr0 = CR0_ET | (s->cr0 & (CR0_CD | CR0_NW));
	s->cr2 = s->cr3 = s->cr4 = s->cr8 = 0;
	s->efer = 0;
	s->rip = 0xfff0;
	s->rflags = 2;
	memset(s->dr, 0, sizeof(s->dr));
	memset(s->pdpte, 0, sizeof(s->pdpte));
	s->dr6 = DR6_RESET;
	s->dr7 = DR7_RESET;
	s->pending_dbg = 0;
	s->halted = s->sti_shadow = s->ss_shadow = 0;
	s->nmi_pending = s->nmi_blocked = 0;
	s->wait_sipi = !boot;
	reset_segments(s);
}
