/*
 * A machine that consists of page tables, descriptor tables and handlers that HLT: user code runs
 * until something raises.  What pages there are for it is its maker's to say.
 */
#ifndef SKEP_TESTS_DIFF_BARE_H
#define SKEP_TESTS_DIFF_BARE_H

#include "cpu/soft/soft.h"
#include "diff.h"
#include "vm/core.h"

#define BARE_RAM	(4 * MiB)

/* Guest-physical; the system's own pages are mapped at KERNEL plus their address. */
#define PHYS_GDT	0x100000u
#define PHYS_IDT	0x101000u
#define PHYS_TSS	0x102000u
#define PHYS_HANDLERS	0x103000u	/* of each exception, then one of all other vectors */
#define PHYS_TABLES	0x300000u
#define KERNEL		0xffff800000000000ull
#define HANDLER_SIZE	16u

#define PTE_P	1u
#define PTE_W	2u
#define PTE_U	4u
#define PTE_AD	0x60u
#define PTE_NX	BIT(63)

struct bare {
	struct vm *vm;
	struct vcpu *v;
	struct soft_cpu *c;
	uint8_t *ram;
	uint64_t next_table;
	struct cpu_arch_state template;
};

/*
 * stack: guest-physical page of the handlers' stack.  v3: cpu.model=skep-v3.1.  NULL, or why there is
 * none; *b wants bare_finish() in any case.
 */
const char *bare_init(struct bare *b, enum clock_mode mode, const char *tier, bool v3, uint64_t stack);
void bare_finish(struct bare *b);
/* Before anything has run. */
void bare_map(struct bare *b, uint64_t lin, uint64_t phys, uint64_t flags);
/* The processor is as *m says, in user mode; compat: in 32-bit code. */
void bare_load(struct bare *b, const struct machine *m, bool compat);

#endif
