/*
 * A virtual processor, whatever executes it.
 *
 * Each vCPU is a thread.  It runs only while its mask of reasons to be
 * stopped is zero, so that a debugger stop and a save can overlap and neither
 * ends the other.
 */
#ifndef SKEP_CPU_VCPU_H
#define SKEP_CPU_VCPU_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "cpu/arch.h"

struct vm;
struct vcpu;
struct lapic;
struct device;

/* Reasons to be stopped. */
#define STOP_DEBUG	0x01
#define STOP_SAVE	0x02
#define STOP_RESET	0x04
#define STOP_WAIT_SIPI	0x08
#define STOP_SHUTDOWN	0x10
#define STOP_PAUSE	0x20	/* not switched on yet */
#define STOP_USER	0x40	/* somebody asked for it: skep pause */
#define STOP_POINT	0x80	/* the machine has come to its vm_stop_point */
#define STOP_CUT	0x100	/* it writes faster than it is saved (vm/copies.h); this processor alone */

/* Things for the processor to look at between instructions. */
#define VCPU_REQ_STOP	0x01	/* stop_reasons changed */
#define VCPU_REQ_INTR	0x02	/* the LAPIC or the PIC has something: look again */
#define VCPU_REQ_NMI	0x04
#define VCPU_REQ_INIT	0x08
#define VCPU_REQ_SIPI	0x10	/* vector in sipi_vector */
#define VCPU_REQ_TLB	0x20	/* flush every cached translation (PAM, memory map) */
#define VCPU_REQ_CODE	0x40	/* code pages were written: drain the invalidation queue */
#define VCPU_REQ_EVENT	0x80	/* clock=virtual: timers or input changed, recompute */

/* Why vcpu_ops.run returned. */
enum vcpu_exit {
	VCPU_EXIT_STOPPED,	/* stop_reasons is not zero */
	VCPU_EXIT_TRIPLE_FAULT,
	VCPU_EXIT_HALTED,	/* HLT that nothing can end (IF=0, no NMI source) */
	VCPU_EXIT_ERROR,	/* internal: vm->error says what */
	VCPU_EXIT_LIMIT,	/* clock=virtual: the instruction limit was reached */
};

/* What a processor waits for, if it executes nothing. */
enum vcpu_idle {
	VCPU_IDLE_NOT,
	VCPU_IDLE_HALT,		/* HLT: an interrupt */
	VCPU_IDLE_DEAF,		/* HLT without interrupts, or not started: NMI, INIT, SIPI */
};

struct vcpu_ops {
	const char *name;		/* "soft" */
	int (*create)(struct vcpu *v, struct skep_error *e);
	void (*destroy)(struct vcpu *v);
	/* Architectural power-on / INIT state.  vCPU stopped. */
	void (*reset)(struct vcpu *v, bool init);
	/* Runs on the vCPU's own thread, without the device lock. */
	enum vcpu_exit (*run)(struct vcpu *v);
	/* Makes run look at v->requests soon. Any thread. */
	void (*kick)(struct vcpu *v);
	/*
	 * Architectural state in and out; vCPU stopped, device lock held.  check_state says
	 * whether set_state would take it, and changes nothing; after it set_state cannot fail.
	 */
	void (*get_state)(struct vcpu *v, struct cpu_arch_state *s);
	int (*check_state)(struct vcpu *v, const struct cpu_arch_state *s, struct skep_error *e);
	int (*set_state)(struct vcpu *v, const struct cpu_arch_state *s, struct skep_error *e);
	/*
	 * Guest time stands, or goes on: for a backend whose clocks or local APICs are not ours.
	 * Called for each in turn, vCPUs stopped, device lock held, the clock standing already, or
	 * running again.  freeze follows thaw, or nothing.
	 */
	void (*freeze)(struct vcpu *v);
	void (*thaw)(struct vcpu *v);
	/*
	 * Every page that processors have written is DIRTY and TOUCHED when it returns (vm/memory.h).
	 * vCPUs stopped.  Called for the first processor, for all of them.
	 */
	int (*sync_dirty)(struct vcpu *v, struct skep_error *e);
	bool live_cut;			/* its writes give a live cut its copies */
	/* Guest-physical [gpa, gpa+len) was written by someone else: drop code. Any thread. */
	void (*invalidate_code)(struct vcpu *v, uint64_t gpa, uint64_t len);
	/*
	 * Tells each of its counters, those of one section together; the names are constants.
	 * Any thread, whether it runs or not.
	 */
	void (*stats)(struct vcpu *v, void (*tell)(void *opaque, const char *section,
						   const char *name, uint64_t value), void *opaque);
};

extern const struct vcpu_ops vcpu_soft_ops;
extern const struct vcpu_ops vcpu_kvm_ops;
/* backend=kvm: the I/O APIC's entries changed.  opaque is the vm.  Device lock. */
void kvm_routes_changed(void *opaque);
/* By name; NULL: there is none. */
const struct vcpu_ops *vcpu_backend_find(const char *name);

struct vcpu {
	struct vm *vm;
	unsigned index;
	const struct vcpu_ops *ops;
	void *backend;			/* the ops' own */
	struct lapic *lapic;
	struct device *paravirt;	/* what identity= gives a processor, or NULL (clock/paravirt.h) */
	pthread_t thread;
	bool thread_started;
	_Atomic uint32_t requests;	/* VCPU_REQ_* */
	_Atomic uint32_t stop_reasons;	/* STOP_* */
	_Atomic uint8_t sipi_vector;
	_Atomic bool running;		/* inside ops->run; changes under wait_lock */
	_Atomic bool waiting;		/* inside vcpu_wait */
	_Atomic uint8_t idle;		/* enum vcpu_idle */
	_Atomic uint64_t insns;		/* executed, with clock=realtime */
	/* HLT, a stopped processor and those who wait for it to stop wait here. */
	pthread_mutex_t wait_lock;
	pthread_cond_t wait_cond;
};

/*
 * Makes a stopped processor (STOP_PAUSE) in its power-on state; owned by the
 * caller.  NULL with e set.  Its thread begins with vcpu_start and ends after
 * STOP_SHUTDOWN. vm thread for all of these.
 */
struct vcpu *vcpu_create(struct vm *vm, unsigned index, const struct vcpu_ops *ops,
			 struct skep_error *e);
void vcpu_destroy(struct vcpu *v);	/* NULL is fine; joins the thread */
int vcpu_start(struct vcpu *v, struct skep_error *e);
void vcpu_join(struct vcpu *v);		/* after vcpu_stop(v, STOP_SHUTDOWN) */
/* Waits until the processor is outside ops->run; vcpu_stop came before. No lock held. */
void vcpu_wait_stopped(struct vcpu *v);
/* The vCPU whose thread this is; NULL on any other thread. */
struct vcpu *vcpu_current(struct vm *vm);

/* Sets request bits and kicks the processor, waking it from HLT. Any thread. */
void vcpu_request(struct vcpu *v, uint32_t bits);
/* Adds / removes reasons to be stopped. Any thread. vcpu_stop does not wait. */
void vcpu_stop(struct vcpu *v, uint32_t reason);
/* Makes it look at what it waits for. Any thread. */
void vcpu_wake(struct vcpu *v);
void vcpu_go(struct vcpu *v, uint32_t reason);
/*
 * Called by a backend on HLT, without the device lock: returns when
 * v->requests is not zero.  realtime: sleeps.  virtual: the backend skips
 * guest time to the next event itself and only calls this when there is none.
 */
void vcpu_wait(struct vcpu *v);

/*
 * Says what this processor waits for, before vcpu_wait, and that it goes on, after it.  False: all
 * of them wait for another one to do something; the machine has come to its end. vCPU's thread.
 */
bool vcpu_idle(struct vcpu *v, enum vcpu_idle idle);

/* What hooks of backends do that have nothing to do there. */
void vcpu_nop(struct vcpu *v);
int vcpu_nop_sync(struct vcpu *v, struct skep_error *e);

/*
 * The interrupt side, called on the vCPU thread.  Each takes the device lock
 * where it needs it.
 */
bool vcpu_intr_pending(struct vcpu *v);		/* maskable, priority above TPR */
int vcpu_intr_ack(struct vcpu *v);		/* vector, or -1: it went away */

#endif
