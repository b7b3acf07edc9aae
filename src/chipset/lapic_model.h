/*
 * The registers of a local APIC, as they are saved: for the chip itself (lapic*.c) and for whoever
 * runs one in its place (struct lapic_remote).
 */
#ifndef SKEP_CHIPSET_LAPIC_MODEL_H
#define SKEP_CHIPSET_LAPIC_MODEL_H

#include <stdint.h>

#include "base/util.h"

/* Registers by number: offset / 16 in the page, MSR - 0x800 (SDM vol. 3, table 11-1, 11-6). */
enum {
	REG_ID = 0x02, REG_VERSION = 0x03, REG_TPR = 0x08, REG_APR = 0x09, REG_PPR = 0x0a,
	REG_EOI = 0x0b, REG_RRD = 0x0c, REG_LDR = 0x0d, REG_DFR = 0x0e, REG_SVR = 0x0f,
	REG_ISR = 0x10, REG_TMR = 0x18, REG_IRR = 0x20, REG_ESR = 0x28,
	REG_ICR = 0x30, REG_ICR_HIGH = 0x31, REG_LVT = 0x32, REG_LVT_LAST = 0x37,
	REG_INITIAL = 0x38, REG_CURRENT = 0x39, REG_DIVIDE = 0x3e, REG_SELF_IPI = 0x3f,
};

enum { LVT_TIMER, LVT_THERMAL, LVT_PERF, LVT_LINT0, LVT_LINT1, LVT_ERROR, LVT_COUNT };

#define LVT_MASKED	BIT(16)
#define LVT_LEVEL	BIT(15)
#define LVT_REMOTE_IRR	BIT(14)
#define LVT_MODE(lvt)	((lvt) >> 8 & 7)

#define TIMER_ONESHOT	0u
#define TIMER_PERIODIC	1u
#define TIMER_DEADLINE	2u

#define SVR_ENABLE	BIT(8)
#define SVR_NO_EOI_BROADCAST BIT(12)

#define ESR_SEND_VECTOR	0x20
#define ESR_RECV_VECTOR	0x40
#define ESR_REGISTER	0x80

#define BASE_BSP	BIT(8)
#define BASE_EXTD	BIT(10)
#define BASE_EN		BIT(11)

#define APIC_MIN_VECTOR	16

#define LAPIC_ICR_RESERVED 0xfff33000u	/* bits 31:20, 17:16, 13, 12 */

struct lapic_model {
	uint64_t base;			/* IA32_APIC_BASE */
	uint64_t tsc_deadline;		/* 0: disarmed */
	int64_t timer_next;		/* guest ns of the next expiry by count; 0: stopped */
	uint32_t irr[8], isr[8], tmr[8];
	uint32_t lvt[LVT_COUNT];
	uint32_t ldr, dfr, svr;
	uint32_t icr, icr_high;
	uint32_t esr, esr_pending;	/* as read; collected since it was last written */
	uint32_t initial_count;
	uint32_t divide;
	uint8_t tpr;
	uint8_t lint[2];		/* levels of the two pins */
};

/* Bits of each LVT entry that the guest can set. */
extern const uint32_t lapic_lvt_mask[LVT_COUNT];

/* log2 of what the timer's clock of 1 GHz is divided by: bits 3, 1 and 0; 000 is 2, 111 is 1. */
static inline unsigned lapic_divide_shift(uint32_t divide)
{
	return (((divide & 3) | (divide >> 1 & 4)) + 1) & 7;
}

#endif
