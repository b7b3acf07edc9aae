/* Inside of the local APIC: shared by lapic*.c only.  Device lock held. */
#ifndef SKEP_CHIPSET_LAPIC_PRIV_H
#define SKEP_CHIPSET_LAPIC_PRIV_H

#include <stdbool.h>
#include <stdint.h>

#include "base/util.h"
#include "chipset/lapic.h"
#include "vm/vm.h"

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

struct lapic {
	struct device dev;
	struct lapic_model m;
	struct vcpu *v;
	uint32_t id;
	uint64_t tsc_adjust;		/* the vCPU's MSR; saved with the vCPU */
	struct vm_timer timer;
	void (*eoi)(void *opaque, uint8_t vector);
	void *eoi_opaque;
};

static inline bool lapic_x2apic(const struct lapic *a) { return a->m.base & BASE_EXTD; }
static inline bool lapic_hw_enabled(const struct lapic *a) { return a->m.base & BASE_EN; }
static inline bool lapic_sw_enabled(const struct lapic *a) { return a->m.svr & SVR_ENABLE; }

/* lapic.c */
/* Registers as after INIT (SDM vol. 3, 11.4.7.3): everything but IA32_APIC_BASE and pins. */
void lapic_init_registers(struct lapic *a);
uint8_t lapic_ppr(const struct lapic *a);
/* A fixed interrupt arrives; false: this APIC takes none, or not this vector. */
bool lapic_accept(struct lapic *a, uint8_t vector, bool level);
void lapic_eoi(struct lapic *a);
/* Sets ESR bits, and raises the error interrupt when they are new. */
void lapic_error(struct lapic *a, uint32_t bits);
/* A local source asks for what its LVT entry says. */
void lapic_lvt_fire(struct lapic *a, unsigned entry);
/* Something that decides whether there is an interrupt changed: the processor looks again. */
void lapic_recheck(struct lapic *a);
/* The LVT entry of a pin was written while the pin may be high. */
void lapic_lint_written(struct lapic *a, unsigned pin);

/* lapic_regs.c */
/* Bits of each LVT entry that the guest can set. */
extern const uint32_t lapic_lvt_mask[LVT_COUNT];

/* lapic_ipi.c */
void lapic_send_ipi(struct lapic *a, uint32_t icr, uint32_t dest);
void lapic_self_ipi(struct lapic *a, uint8_t vector);

/* lapic_timer.c */
void lapic_timer_fired(void *opaque);
/* Brings the timer up to guest time now: what is due has happened when it returns. */
void lapic_timer_sync(struct lapic *a);
/* Arms the event for the next expiry that anybody would notice. */
void lapic_timer_rearm(struct lapic *a);
uint32_t lapic_timer_count(struct lapic *a);
void lapic_timer_set_initial(struct lapic *a, uint32_t count);
void lapic_timer_set_divide(struct lapic *a, uint32_t divide);
void lapic_timer_set_lvt(struct lapic *a, uint32_t lvt);
/* The model as it stands at guest time now: expiries that nobody noticed are past. */
void lapic_timer_export(const struct lapic *a, struct lapic_model *m);

/* lapic_state.c */
extern const struct state_record lapic_record;
int lapic_validate(const struct device *d, const void *model, struct skep_error *e);

#endif
