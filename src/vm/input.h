/*
 * Outside input (console, later network and control): the one way in.
 *
 * With clock=realtime a record is delivered at once on the calling thread, or
 * when the machine goes on, if it stands (vm_pause).
 * With clock=virtual it is queued, delivered on the vCPU side between two
 * instructions, and the instruction count is written to the log
 * (input.record=FILE), or on replay (input.replay=FILE) read from it, in which
 * case host input is dropped.
 */
#ifndef SKEP_VM_INPUT_H
#define SKEP_VM_INPUT_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

struct vm;

/* Where in a run with clock=virtual something happens: HLT moves ns at the same count. */
struct input_point {
	uint64_t insns;		/* instructions retired */
	int64_t ns;		/* guest time */
};

struct input_port {
	struct vm *vm;
	char name[32];		/* "lpc.com1"; the key in the log; no spaces */
	/* Delivery: device lock held.  Takes all bytes (the device queues them). */
	void (*deliver)(void *opaque, const uint8_t *data, size_t len);
	void *opaque;
	struct input_port *next;
};

/* The port is registered until the VM ends; name is copied. vm thread, before any vCPU. */
void input_port_add(struct input_port *p, struct vm *vm, const char *name,
		    void (*deliver)(void *, const uint8_t *, size_t), void *opaque);
/* Bytes that wait for their delivery to this port. Device lock held. */
size_t vm_input_waiting(const struct input_port *p);
/* Device lock held. */
void vm_input(struct input_port *p, const uint8_t *data, size_t len);

#endif
