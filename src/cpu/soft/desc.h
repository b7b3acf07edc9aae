/*
 * Segment descriptors, selectors and stacks: what far transfers, exceptions
 * and task switches have in common.  SDM vol. 3, chapters 3, 5 and 6.
 *
 * op is the instruction, or NULL while an event is delivered (the fault is then
 * raised at c->rip).
 */
#ifndef SKEP_CPU_SOFT_DESC_H
#define SKEP_CPU_SOFT_DESC_H

#include "cpu/soft/soft.h"

/* struct cpu_segment.attr. */
#define ATTR_TYPE	0x000f
#define ATTR_ACCESSED	0x0001	/* code, data */
#define ATTR_WRITE	0x0002	/* data: writable; code: readable */
#define ATTR_EXPAND	0x0004	/* data: expand-down; code: conforming */
#define ATTR_CODE	0x0008
#define ATTR_S		0x0010
#define ATTR_DPL	0x0060
#define ATTR_P		0x0080
#define ATTR_L		0x2000
#define ATTR_DB		0x4000
#define ATTR_G		0x8000

/* Types of system descriptors. */
enum { SYS_TSS16 = 1, SYS_LDT = 2, SYS_TSS16_BUSY = 3, SYS_CALL16 = 4, SYS_TASK = 5,
       SYS_INT16 = 6, SYS_TRAP16 = 7, SYS_TSS32 = 9, SYS_TSS32_BUSY = 11, SYS_CALL32 = 12,
       SYS_INT32 = 14, SYS_TRAP32 = 15 };

struct soft_desc {
	uint64_t lin;		/* where it lies */
	uint64_t raw;
	uint64_t base;
	uint32_t limit;		/* in bytes */
	uint16_t attr;
};

static inline unsigned desc_dpl(uint16_t attr)
{
	return attr >> 5 & 3;
}

/* Type of a system descriptor; 0 (reserved) for code and data. */
static inline unsigned desc_system(uint16_t attr)
{
	return attr & ATTR_S ? 0 : attr & ATTR_TYPE;
}

static inline bool desc_is_code(uint16_t attr)
{
	return (attr & (ATTR_S | ATTR_CODE)) == (ATTR_S | ATTR_CODE);
}

static inline bool desc_is_stack(uint16_t attr)
{
	return (attr & (ATTR_S | ATTR_CODE | ATTR_WRITE)) == (ATTR_S | ATTR_WRITE);
}

static inline bool soft_long_mode(const struct soft_cpu *c)
{
	return c->mode & MODE_LMA;
}

/* Protected mode proper: not real, not virtual-8086. */
static inline bool soft_protected(const struct soft_cpu *c)
{
	return (c->mode & (MODE_PE | MODE_VM86)) == MODE_PE;
}

static inline unsigned soft_iopl(const struct soft_cpu *c)
{
	return c->s.rflags >> 12 & 3;
}

/* Linear addresses outside IA-32e mode have 32 bits. */
static inline uint64_t soft_lin_wrap(const struct soft_cpu *c, uint64_t lin)
{
	return soft_long_mode(c) ? lin : (uint32_t)lin;
}

/* Raises with an error code that is a selector (or 0): RPL off, EXT as it is. */
_Noreturn void soft_fault(struct soft_cpu *c, const struct soft_op *op, unsigned vector,
			  uint32_t selector);
/* #GP(0) unless CPL is 0. */
void soft_need_cpl0(struct soft_cpu *c, const struct soft_op *op);

/*
 * Reads a selector's descriptor.  False: null, or beyond its table.  The
 * sixteen-byte form gives the upper half of the base too.
 */
bool desc_fetch(struct soft_cpu *c, const struct soft_op *op, uint16_t sel, struct soft_desc *d);
/* Completes a system descriptor of 16 bytes in IA-32e mode; false: beyond the table or malformed. */
bool desc_extend(struct soft_cpu *c, const struct soft_op *op, uint16_t sel, struct soft_desc *d,
		 uint64_t *high);
/* Sets the accessed bit in memory and in d. */
void desc_touch(struct soft_cpu *c, const struct soft_op *op, struct soft_desc *d);
/* Sets or clears the busy bit (bit 1 of the type) in memory and in d. */
void desc_set_busy(struct soft_cpu *c, const struct soft_op *op, struct soft_desc *d, bool busy);
/* What a segment register holds after loading d. */
struct cpu_segment desc_segment(const struct soft_desc *d, uint16_t sel);
/* A null selector loaded. */
struct cpu_segment desc_null(uint16_t sel);
/* A selector of real or virtual-8086 mode. */
struct cpu_segment desc_real(struct soft_cpu *c, unsigned seg, uint16_t sel);

/*
 * Is this instruction pointer inside the code segment? #GP(0) if not.
 * d NULL: the current CS.
 */
void soft_check_rip(struct soft_cpu *c, const struct soft_op *op, const struct soft_desc *d,
		    uint64_t rip);

/* Checks of MOV, POP, LxS: the new contents of a data segment register or SS; raises. */
struct cpu_segment soft_check_data_segment(struct soft_cpu *c, const struct soft_op *op,
					   unsigned seg, uint16_t sel);
/* DS, ES, FS, GS in protected mode; vector is #GP, or #TS in a task switch. */
struct cpu_segment soft_check_data_desc(struct soft_cpu *c, const struct soft_op *op, uint16_t sel,
					unsigned vector);
/*
 * A stack segment for privilege level cpl: null, wrong privilege or type is
 * vector(sel), not present #SS(sel).
 */
struct cpu_segment soft_check_stack_segment(struct soft_cpu *c, const struct soft_op *op,
					    uint16_t sel, unsigned cpl, unsigned vector);

/* Selector and stack pointer of an inner ring from the current TSS; #TS. */
struct soft_inner { uint16_t ss; uint64_t sp; };
struct soft_inner soft_inner_stack(struct soft_cpu *c, const struct soft_op *op, unsigned cpl);
/* The 64-bit TSS: RSP0-2 (slot 0-2) or IST1-7 (slot 4-10). */
uint64_t soft_inner_rsp(struct soft_cpu *c, const struct soft_op *op, unsigned slot);

/*
 * A stack that is pushed to or popped from before it becomes, or while it is,
 * the current one.  Nothing changes but memory until the owner commits sp.
 */
struct soft_stack {
	struct cpu_segment seg;
	uint64_t sp;
	uint8_t width;		/* bytes of the stack pointer that count: 2, 4, 8 */
	bool inner;		/* accesses are the supervisor's */
	uint16_t error;		/* of #SS: 0, or the new stack's selector */
};

struct soft_stack soft_stack_current(struct soft_cpu *c);
void stack_push(struct soft_cpu *c, const struct soft_op *op, struct soft_stack *st,
		unsigned size, uint64_t v);
uint64_t stack_pop(struct soft_cpu *c, const struct soft_op *op, struct soft_stack *st,
		   unsigned size);
/* Writes the bytes of RSP that the stack's width names (4: clears the rest). */
void stack_commit(struct soft_cpu *c, const struct soft_stack *st);

/* Enters a code segment: selector with RPL = cpl, descriptor, privilege. The mode is the caller's. */
void soft_enter_code(struct soft_cpu *c, const struct soft_desc *d, uint16_t sel, unsigned cpl);
/* On the way to an outer ring: segments that it may not have become null. */
void soft_drop_inner_segments(struct soft_cpu *c);
/* Loads CS, SS, DS, ES, FS, GS with virtual-8086 segments; order ES CS SS DS FS GS. */
void soft_enter_vm86(struct soft_cpu *c, const uint16_t sel[6]);

/* task.c */
enum soft_switch { SWITCH_JMP, SWITCH_CALL, SWITCH_IRET, SWITCH_INT };
/*
 * Hardware task switch to the TSS that sel names, checked here for presence and
 * size; its availability and privilege are the caller's.  rip is what the old
 * task resumes at.  Ends with c->rip and everything else the new task's, or raises.
 */
void soft_task_switch(struct soft_cpu *c, const struct soft_op *op, uint16_t sel,
		      struct soft_desc *tss, enum soft_switch how, uint64_t rip,
		      bool has_error, uint32_t error);
/* Through a task gate: checks the TSS selector inside. */
void soft_task_gate(struct soft_cpu *c, const struct soft_op *op, uint64_t gate,
		    enum soft_switch how, uint64_t rip, bool has_error, uint32_t error);
/* IRET with NT set. */
void soft_task_return(struct soft_cpu *c, const struct soft_op *op, uint64_t rip);

#endif
