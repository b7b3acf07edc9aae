/*
 * struct vm: the whole machine on one page.  It owns everything; there are no
 * globals, and two of them in one process work.
 *
 * Threads.  One *vm thread* (the one that calls vm_run) owns lifecycle, the
 * pause state machine and the event loop.  Each vCPU is a thread.
 *
 * Locks, in the order in which they are taken:
 *	control	-> vm->lock -> vm->device_lock -> memory (lock-free)
 * Innermost, with nothing taken under them, so that they can be taken in any
 * state: vm->exit_lock, vcpu->wait_lock, the loop's lock of posted calls.
 * Above wait_lock alone, and in any state as well: the lock of vm/copies.c.
 * Device code runs under device_lock: MMIO, PIO, timers, completions.
 */
#ifndef SKEP_VM_VM_H
#define SKEP_VM_VM_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "base/error.h"
#include "base/util.h"
#include "clock/clock.h"
#include "clock/paravirt.h"
#include "config/config.h"
#include "cpu/vcpu.h"
#include "vm/bus.h"
#include "vm/device.h"
#include "vm/event.h"
#include "vm/input.h"
#include "vm/irq.h"
#include "vm/memory.h"

#define VM_MAX_CPUS 64

/* Process exit codes: BHYVE.md; 5 is ours. */
enum vm_exit {
	VM_EXIT_REBOOT = 0,
	VM_EXIT_POWEROFF = 1,
	VM_EXIT_HALT = 2,
	VM_EXIT_TRIPLE_FAULT = 3,
	VM_EXIT_ERROR = 4,
	VM_EXIT_SUSPENDED = 5,
	VM_EXIT_DEBUG_BASE = 0x100,	/* + isa-debug-exit's (value << 1 | 1) */
};

/*
 * clock=virtual: the machine stands, for STOP_POINT, when it has executed exactly `at` instructions
 * (0: never), and `reached` is called, on the vCPU's thread without a lock.  Whoever is told sets
 * the next one, before vm_resume(STOP_POINT).  Set while no vCPU runs.
 */
struct vm_stop_point {
	uint64_t at;
	void (*reached)(void *opaque);
	void *opaque;
};

/*
 * The snapshot that RAM was last the same as: what a delta is based on.  Belongs to who saves, who
 * changes it under vm->lock for those who only look.
 */
struct vm_origin {
	bool known;
	uint8_t digest[16];
	char *path;		/* owned */
	void *held;		/* what RAM still comes from; released after it, or NULL */
	void (*release)(void *held);
};

struct block;
struct timer_heap;
struct event_loop;
struct input_log;
struct chipset;		/* chipset/chipset.h: the motherboard */
struct boot_image;	/* boot/boot.h: what to load at every reset */

struct vm {
	char name[64];
	uint8_t uuid[16];
	struct config *config;		/* frozen; borrowed */

	pthread_mutex_t lock;		/* pause state */
	pthread_mutex_t device_lock;
	uint32_t pause_reasons;		/* STOP_* for which the whole machine stands; lock */
	bool quiesced;			/* vCPUs and devices stand; device lock */

	struct guest_memory memory;
	struct bus ports;		/* 0-0xffff */
	struct bus mmio;
	struct guest_clock clock;
	struct timer_heap *timers;
	struct event_loop *loop;
	struct input_log *input;
	struct input_port power;	/* the power button, as outside input */
	struct input_port nmi;		/* and the switch of the board that makes an NMI */
	/* clock=virtual (virtual.c; device lock): the last point at which things were done. */
	struct input_point last_point;
	bool visited;
	uint64_t input_at;		/* instruction count for which host input waits, or 0 */

	enum vm_identity identity;
	struct device *paravirt;	/* identity=hyperv: the partition (clock/hyperv.c) */
	bool stood;			/* for a user or a debugger, since it last ran; lock */
	int64_t stood_since;		/* host ns, time in which the host slept included; lock */
	bool advance;			/* guest time moves on by that when it goes on; lock */

	unsigned ncpus;
	unsigned cores, threads;	/* in a package, in a core; 0 counts as 1 (vm/topology.h) */
	struct vcpu *vcpus[VM_MAX_CPUS];
	struct vm_turn {
		_Atomic unsigned cpu;	/* clock=virtual: who runs (vm/virtual.h) */
		uint64_t end;		/* until this instruction count; its own thread's */
	} turn;
	const struct vcpu_ops *backend;
	struct soft_shared *soft_shared;	/* what soft processors have in common, from two on */
	struct kvm_machine *kvm;	/* backend=kvm: the kernel's side of the machine */

	struct device *devices;		/* in order of creation */
	struct block *disks;		/* their backends (block/block.h), likewise; device lock */
	struct chipset *chipset;
	struct boot_image *boot;

	/*
	 * All entropy comes from here (vm_entropy; device lock): a generator's state
	 * when seeded (clock=virtual, or seed= given), else words from the host.
	 */
	bool seeded;
	uint64_t seed;
	uint64_t entropy_state[4];
	unsigned entropy_left;

	/*
	 * Made for a state that comes from elsewhere: vm_run goes on where that stands; what to boot
	 * is opened at the first reset; the tables in fw_cfg are those of the state, for good.
	 */
	bool restored;
	bool renewed;			/* restored, and the guest may notice (not --exact). Device lock */
	bool has_state;			/* it was reset, or restored: there is something to save. Device lock */
	bool restart_on_reset;		/* on_reboot=restart */
	bool reset_on_triple_fault;	/* x86.triple_fault=reset */
	_Atomic bool reset_requested;

	/* Why and whether the run is over; guarded by exit_lock. */
	pthread_mutex_t exit_lock;
	bool exiting;
	int exit_code;
	struct skep_error exit_error;
	uint64_t insn_limit;		/* clock=virtual: stop at this count; 0 = none */
	struct vm_stop_point stop_point;
	struct vm_origin origin;
	_Atomic bool saving;		/* one save at a time */
	_Atomic int64_t first_run_ns;	/* host monotonic, when a processor first ran; 0: not yet */
};

/*
 * Builds the machine that the frozen configuration describes: memory, buses,
 * clock, chipset, devices, processors, boot image.  On failure nothing is left
 * behind.  The configuration must outlive the VM.
 */
struct vm *vm_create(struct config *config, struct skep_error *e);
/*
 * The same for a machine that is to be restored: no file to boot and no file for fw_cfg is opened.  machine_state_commit (vm/machine.h) and RAM come before vm_run.
 */
struct vm *vm_create_restored(struct config *config, struct skep_error *e);
void vm_destroy(struct vm *vm);		/* NULL is fine */

/* Runs until the guest, the user or an error ends it; returns an enum vm_exit. */
int vm_run(struct vm *vm, struct skep_error *e);

/* Any thread, any lock state: ends the run with this code (the first one wins). */
void vm_request_exit(struct vm *vm, int code);
/* Is the run over? Any thread, any lock state. */
bool vm_exiting(struct vm *vm);
/*
 * Does it end because all that it is has gone into a snapshot?  Then nothing may leave it any
 * more: it would be told twice.  Any thread, any lock state.
 */
bool vm_suspended(struct vm *vm);
/* Any thread, any lock state: ends the run with VM_EXIT_ERROR and this sentence. */
void vm_request_error(struct vm *vm, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Any thread, any lock state: presses the ACPI power button, soon. */
void vm_power_button(struct vm *vm);
/* Any thread, any lock state: a non-maskable interrupt at LINT1 of every processor, soon. */
void vm_nmi(struct vm *vm);
/*
 * The machine's reset line (0xcf9, keyboard controller, triple fault when
 * x86.triple_fault=reset).  on_reboot decides: exit (0) or restart in place.
 * Any thread, any lock state; no vCPU executes another instruction before it.
 */
void vm_request_reset(struct vm *vm);

/*
 * Stops every vCPU for a reason and waits until none runs, then the devices and
 * the clock; and the way back, when the last reason is gone.  Any thread but a
 * vCPU's, no lock held.
 */
void vm_pause(struct vm *vm, uint32_t reason);
void vm_resume(struct vm *vm, uint32_t reason);
/*
 * clock=realtime: when a machine that stands goes on, whoever lets it, its guest time has moved on by
 * as long as it stood, as a restore with --time=advance does.  A machine that runs takes no notice.
 */
void vm_advance(struct vm *vm);

static inline void device_lock(struct vm *vm) { pthread_mutex_lock(&vm->device_lock); }
static inline void device_unlock(struct vm *vm) { pthread_mutex_unlock(&vm->device_lock); }

/* vCPU side accesses: take the device lock around the device's callback. */
uint64_t vm_pio_read(struct vm *vm, uint16_t port, unsigned size);
void vm_pio_write(struct vm *vm, uint16_t port, unsigned size, uint64_t value);
uint64_t vm_mmio_read(struct vm *vm, uint64_t gpa, unsigned size);
void vm_mmio_write(struct vm *vm, uint64_t gpa, unsigned size, uint64_t value);

/* Every processor drops its cached translations before its next instruction. Any thread. */
void vm_flush_tlbs(struct vm *vm);
/* RAM in [gpa, gpa+len) that held code was written by a device. Any thread. */
void vm_invalidate_code(struct vm *vm, uint64_t gpa, uint64_t len);

/* Deterministic under seed=; device lock held. */
uint64_t vm_entropy(struct vm *vm);

/*
 * The whole architectural state as text, one field a line, then a digest of
 * RAM: two machines in the same state print the same bytes.  VM paused or ended.
 */
void vm_dump_state(struct vm *vm, FILE *out);

#endif
