/*
 * A device type and its instances.
 *
 * A type is one `static const struct device_type`, listed in the table in
 * vm/devices.c.  Every hook is filled in, by a deliberate no-op
 * (device_nop and friends) where there is nothing to do; device_types_check()
 * refuses to start otherwise.
 *
 * All hooks run with the device lock held.
 */
#ifndef SKEP_VM_DEVICE_H
#define SKEP_VM_DEVICE_H

#include "base/error.h"
#include "config/config.h"
#include "state/state.h"

struct vm;
struct device;

struct device_type {
	const char *name;			/* "i8254" */
	const char *help;			/* one line for `-s help` and the man page */
	const struct config_schema *config;	/* keys below the device's node */
	const struct state_record *state;	/* STATE_NONE if it has none */
	size_t size;				/* of the instance; starts with struct device */

	int (*init)(struct device *d, struct skep_error *e);
	void (*finish)(struct device *d);
	void (*reset)(struct device *d);	/* one known state, whatever went before */
	void (*quiesce)(struct device *d);	/* after it returns: no DMA, no completions */
	void (*resume)(struct device *d);
	void (*export)(const struct device *d, void *model);	/* live -> model */
	int (*validate)(const struct device *d, const void *model, struct skep_error *e);
	void (*commit)(struct device *d, const void *model);	/* model -> live */
};

struct device {
	const struct device_type *type;
	struct vm *vm;
	char name[32];			/* instance: "lpc.com1", "pci.0.31.0", "i8254" */
	struct config_node *config;	/* the node that describes it, or NULL */
	struct device *next;		/* in the VM's list, in order of creation */
};

/* Deliberate no-ops. */
int device_init_nothing(struct device *d, struct skep_error *e);
void device_nop(struct device *d);
void device_export_nothing(const struct device *d, void *model);
int device_validate_nothing(const struct device *d, const void *model, struct skep_error *e);
void device_commit_nothing(struct device *d, const void *model);

/*
 * Allocates (zeroed), fills in the header, calls init, links it into the VM.
 * Returns NULL with e set.  Wires are connected by the caller through the
 * device's own typed setter after creation, before the VM runs.
 */
struct device *device_create(struct vm *vm, const struct device_type *type, const char *name,
			     struct config_node *config, struct skep_error *e);
void device_destroy(struct device *d);		/* NULL is fine */

/* Every known type, NULL-terminated: vm/devices.c. */
extern const struct device_type *const device_types[];
int device_types_check(struct skep_error *e);

#endif
