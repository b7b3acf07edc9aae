/* Several processors: starts them, hands them work.  64-bit guests only. */
#ifndef GUEST_SMP_H
#define GUEST_SMP_H

#include "guest.h"

#define SMP_MAX 16

extern volatile unsigned smp_count;	/* processors that run, the first one included */
extern u32 smp_apic_id[SMP_MAX];	/* by number: 0 is the boot processor */

/* Local APIC of the processor that asks, in its present mode. */
enum { ID = 0x20, TPR = 0x80, EOI = 0xb0, LDR = 0xd0, DFR = 0xe0, SVR = 0xf0, ESR = 0x280,
       ICR = 0x300, ICR_HI = 0x310, LVT_LINT0 = 0x350 };
enum { TO_SELF = 1 << 18, TO_ALL = 2 << 18, TO_OTHERS = 3 << 18, LOGICAL = 1 << 11,
       ASSERT = 1 << 14, LOWEST = 1 << 8, SEND_NMI = 4 << 8, INIT = 5 << 8,
       STARTUP = 6 << 8 };
u32 apic_read(unsigned reg);
void apic_write(unsigned reg, u32 v);
void apic_eoi(void);
/* Sends; dest is an APIC ID or a logical set of the mode that this APIC is in. */
void ipi(u32 dest, u32 low);
void x2apic_on(void);			/* on this processor; there is no way back but INIT */

/* Starts all others by INIT and start-up to everybody. */
void smp_start(void);
/* Runs fn(number, arg) on all at once, here too, and waits for the last one. */
void smp_run(void (*fn)(unsigned cpu, ulong arg), ulong arg);
/* The same, but goes on at once here; smp_join waits. */
void smp_begin(void (*fn)(unsigned cpu, ulong arg), ulong arg);
void smp_join(void);
unsigned smp_self(void);		/* number of this processor, by its APIC ID */
/* In a job, n processors meet here; each passes its own variable, zero at the job's start. */
void smp_meet(unsigned *phase, unsigned n);

static inline void cpu_pause(void) { asm volatile("pause" ::: "memory"); }
static inline void barrier(void) { asm volatile("" ::: "memory"); }
static inline void mfence(void) { asm volatile("mfence" ::: "memory"); }

/* Waits until the expression is true; false: it was not for many seconds. */
#define UNTIL(x) ({ u64 end_ = rdtsc() + 60000000000ull; bool ok_; \
		    do cpu_pause(); while (!(ok_ = (x)) && rdtsc() < end_); ok_; })

#endif
