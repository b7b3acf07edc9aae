/* Inside of the local APIC: shared by lapic*.c only.  Device lock held. */
#ifndef SKEP_CHIPSET_LAPIC_PRIV_H
#define SKEP_CHIPSET_LAPIC_PRIV_H

#include <stdbool.h>
#include <stdint.h>

#include "base/util.h"
#include "chipset/lapic.h"
#include "chipset/lapic_model.h"
#include "vm/vm.h"

struct lapic {
	struct device dev;
	struct lapic_model m;
	struct vcpu *v;
	uint32_t id;
	uint64_t tsc_adjust;		/* the vCPU's MSR; saved with the vCPU */
	const struct lapic_remote *remote;	/* who runs it now; NULL: we do */
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
