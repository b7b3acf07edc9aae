/*
 * What the x87 files share.
 *
 * The state is s.fpu: registers by physical number, TOP in FSW, one "not empty"
 * bit for each physical register in ftw.  A handler loads its operands into the
 * host's (empty) x87, runs the host's instruction under the guest's control word,
 * notes the status word and takes the results out again: exec_x87.c says how.
 */
#ifndef SKEP_CPU_SOFT_X87_H
#define SKEP_CPU_SOFT_X87_H

#include "cpu/soft/simd.h"

#define FSW_IE		0x0001
#define FSW_DE		0x0002
#define FSW_ZE		0x0004
#define FSW_OE		0x0008
#define FSW_UE		0x0010
#define FSW_PE		0x0020
#define FSW_SF		0x0040
#define FSW_C0		0x0100
#define FSW_C1		0x0200
#define FSW_C2		0x0400
#define FSW_TOP		0x3800
#define FSW_C3		0x4000
#define FSW_B		0x8000
#define FSW_EXCEPTIONS	0x003f
#define FSW_CC		(FSW_C0 | FSW_C1 | FSW_C2 | FSW_C3)
/* Found before computing: nothing is stored when unmasked. */
#define FSW_BEFORE	(FSW_IE | FSW_DE | FSW_ZE)

#define FCW_INIT	0x037f

/* A register's ten bytes in memory. */
typedef struct { uint8_t b[10]; } __attribute__((may_alias)) x87_m10;

static inline unsigned x87_top(const struct soft_cpu *c)
{
	return c->s.fpu.fsw >> 11 & 7;
}

static inline void x87_set_top(struct soft_cpu *c, unsigned top)
{
	c->s.fpu.fsw = (uint16_t)((c->s.fpu.fsw & ~FSW_TOP) | (top & 7) << 11);
}

/* The register ST(i). */
static inline uint8_t *x87_st(struct soft_cpu *c, unsigned i)
{
	return c->s.fpu.st[(x87_top(c) + i) & 7];
}

static inline bool x87_empty(const struct soft_cpu *c, unsigned i)
{
	return !(c->s.fpu.ftw >> ((x87_top(c) + i) & 7) & 1);
}

static inline void x87_set_valid(struct soft_cpu *c, unsigned i)
{
	c->s.fpu.ftw |= (uint8_t)(1u << ((x87_top(c) + i) & 7));
}

static inline void x87_set_empty(struct soft_cpu *c, unsigned i)
{
	c->s.fpu.ftw &= (uint8_t)~(1u << ((x87_top(c) + i) & 7));
}

static inline void x87_pop(struct soft_cpu *c)
{
	x87_set_empty(c, 0);
	x87_set_top(c, x87_top(c) + 1);
}

/* ES and B follow from the flags and the masks. */
static inline void x87_update_summary(struct soft_cpu *c)
{
	struct cpu_fpu *f = &c->s.fpu;

	if (f->fsw & ~f->fcw & FSW_EXCEPTIONS)
		f->fsw |= FSW_ES | FSW_B;
	else
		f->fsw &= (uint16_t)~(FSW_ES | FSW_B);
}

/* Bit 6 reads as one, reserved bits as zero. */
static inline void x87_set_control(struct soft_cpu *c, uint16_t fcw)
{
	c->s.fpu.fcw = (fcw & 0x1f3f) | 0x40;
}

static inline void x87_clear_pointers(struct soft_cpu *c)
{
	struct cpu_fpu *f = &c->s.fpu;

	f->fop = f->fcs = f->fds = 0;
	f->fip = f->fdp = 0;
}

/* FNINIT */
static inline void x87_init(struct soft_cpu *c)
{
	c->s.fpu.fcw = FCW_INIT;
	c->s.fpu.fsw = 0;
	c->s.fpu.ftw = 0;
	x87_clear_pointers(c);
}

/* Before a waiting instruction: leaves with what a pending exception means (#MF or FERR#). */
#define X87_GUARD(c, op) MMX_GUARD(c, op)

#endif
