/*
 * VIRTIO 1.2 devices on the modern PCI transport (sections 2 and 4.1).
 *
 * A device is one struct virtio_type and an instance that begins with struct virtio:
 *
 *	struct rnd { struct virtio v; ... };
 *	struct rnd_model { struct virtio_model virtio; ... };	its fields start with VIRTIO_STATE(...)
 *	const struct virtio_type virtio_rnd_type = {
 *		VIRTIO_DEVICE("virtio-rnd", "entropy source", 4, 0x00ff00, struct rnd,
 *			      rnd_schema, rnd_record),
 *		.init = ..., .notify = ...
 *	};
 *
 * and a line each in vm/devices.c (&virtio_rnd_type.pci.device), vm/machine.c (its record) and in
 * config_slot_types of config/schema.c, which makes `-s 3,virtio-rnd` and pci.0.3.0.device know it.
 * Keys of the configuration are those of rnd_schema, below pci.0.3.0, read in init from
 * v->pci.dev.config.
 *
 * The transport does negotiation, queues, interrupts, reset, quiesce and resume, save and restore;
 * what a device adds are the hooks below.  All hooks run with the device lock held.  A hook that is
 * NULL has nothing to do.
 *
 * Life.  init; then any number of: reset, the driver's negotiation, `start` (DRIVER_OK), notify
 * and configuration accesses; finish.  Between, at any time: quiesce ... (export) ... resume, and
 * instead of negotiation a restore: commit, then start if the driver had got so far, then resume.
 *
 * clock=virtual: what a notify hook does at once (virtio-rnd) is exact by itself.  A completion
 * that comes later must come from a timer whose due time is a function of the request alone, and
 * guest time waits for the host there (vm/event.h); what comes from outside passes vm_input.
 */
#ifndef SKEP_VIRTIO_VIRTIO_H
#define SKEP_VIRTIO_VIRTIO_H

#include <stdbool.h>
#include <stdint.h>

#include "pci/pci.h"
#include "state/state.h"
#include "virtio/queue.h"

#define VIRTIO_QUEUES_MAX	64u

/* Device status, section 2.1. */
#define VIRTIO_ACKNOWLEDGE	0x01
#define VIRTIO_DRIVER		0x02
#define VIRTIO_DRIVER_OK	0x04
#define VIRTIO_FEATURES_OK	0x08
#define VIRTIO_NEEDS_RESET	0x40
#define VIRTIO_FAILED		0x80

/* Feature bits that do not depend on the device, section 6. The transport offers them. */
#define VIRTIO_F_INDIRECT_DESC	BIT(28)
#define VIRTIO_F_EVENT_IDX	BIT(29)
#define VIRTIO_F_VERSION_1	BIT(32)
#define VIRTIO_F_RING_PACKED	BIT(34)
#define VIRTIO_F_RING_RESET	BIT(40)

struct virtio_type {
	struct pci_device_type pci;	/* first; VIRTIO_DEVICE fills it in */
	uint16_t id;			/* device type, section 5 */

	/*
	 * Reads the configuration, opens the host's side, and says what there is: virtio_add_queue
	 * for each queue in turn, v->features (the device's own bits), v->config_size.  After a failure
	 * finish is not called.
	 */
	int (*init)(struct virtio *v, struct skep_error *e);
	void (*finish)(struct virtio *v);
	/*
	 * The device is as after power-on, whatever went before.  When it returns nothing reads or
	 * writes guest memory any more; chains in flight are dropped (they are stale afterwards).
	 */
	void (*reset)(struct virtio *v);
	/* The driver is ready, with v->negotiated; or a restore, where it was. */
	void (*start)(struct virtio *v);
	/* The driver put buffers into the queue; never before start, nor while quiesced. */
	void (*notify)(struct virtio *v, struct virtqueue *q);
	/* One queue is reset (2.6.1), as reset does for all. NULL: VIRTIO_F_RING_RESET is not offered. */
	void (*queue_reset)(struct virtio *v, struct virtqueue *q);

	/*
	 * The device-specific configuration (v->config_size bytes): copies [offset, offset+size), which
	 * lie within it, to buf; and the driver's writes.  If config_read tells more than one access can
	 * read, whoever changes it calls virtio_config_changed.
	 */
	void (*config_read)(struct virtio *v, unsigned offset, unsigned size, void *buf);
	void (*config_write)(struct virtio *v, unsigned offset, unsigned size, const void *buf);

	/*
	 * quiesce: waits until nothing is in flight: every chain pushed (signal, too) or unpopped, no
	 * writable iovec alive.  What arrives from the host meanwhile is held.  resume comes before
	 * kicked queues are notified again.
	 */
	void (*quiesce)(struct virtio *v);
	void (*resume)(struct virtio *v);
	/* The device's own fields of the model; model points to its struct virtio_model's owner. */
	void (*export)(const struct virtio *v, void *model);
	int (*validate)(const struct virtio *v, const void *model, struct skep_error *e);
	void (*commit)(struct virtio *v, const void *model);
};

struct virtio {
	struct pci_device pci;		/* first */

	/* Set by init. */
	uint64_t features;		/* offered: the device's own bits */
	unsigned config_size;
	unsigned nqueues;
	struct virtqueue *queue;	/* nqueues of them */

	/* What the driver does: registers of 4.1.4.3. */
	uint64_t negotiated;		/* features that the driver accepted */
	uint8_t status;
	uint8_t isr;
	uint8_t config_generation;
	uint16_t config_vector;
	uint16_t queue_select;
	uint32_t feature_select, driver_select;

	bool quiesced;
	bool complained;		/* of what the driver did; once is enough */
	uint8_t access_cap;		/* offset of the window's capability */
};

struct virtio_queue_model {
	uint16_t size, vector;
	bool enabled, kicked;
	uint64_t desc, driver, device;
	uint16_t next, signalled;
};

/* Fields of virtio_record; VIRTIO_STATE puts it into a device's own table. */
struct virtio_model {
	struct pci_model pci;
	uint64_t features;		/* offered by the machine that was saved */
	uint64_t negotiated;
	uint8_t status, isr, config_generation;
	uint16_t config_vector, queue_select;
	uint32_t feature_select, driver_select;
	uint8_t access_bar;		/* of the window in configuration space, 4.1.4.9 */
	uint32_t access_offset, access_length;
	struct state_list queues;	/* of struct virtio_queue_model */
	/* Not in the record. */
	unsigned in_flight;
	bool failed;
};

extern const struct state_record virtio_record;
#define VIRTIO_STATE(st) STATE_STRUCT(st, virtio, &virtio_record)

/* The hooks of struct device_type for every virtio device. */
int virtio_init(struct device *d, struct skep_error *e);
void virtio_finish(struct device *d);
void virtio_reset(struct device *d);
void virtio_quiesce(struct device *d);
void virtio_resume(struct device *d);
void virtio_export(const struct device *d, void *model);
int virtio_validate(const struct device *d, const void *model, struct skep_error *e);
void virtio_commit(struct device *d, const void *model);
void virtio_config_written(struct pci_device *p, unsigned offset, unsigned size);
void virtio_config_reading(struct pci_device *p, unsigned offset, unsigned size);

/*
 * The first members of a struct virtio_type: name and help, device type (section 5), PCI class, the
 * instance (which begins with struct virtio), struct config_schema and struct state_record, whose
 * model begins with `struct virtio_model virtio`.
 */
#define VIRTIO_DEVICE(name_, help_, id_, class_, instance_, schema_, record_) \
	.pci = { \
		.device = { \
			.name = (name_), \
			.help = (help_), \
			.config = &(schema_), \
			.state = &(record_), \
			.size = sizeof(instance_), \
			.init = virtio_init, \
			.finish = virtio_finish, \
			.reset = virtio_reset, \
			.quiesce = virtio_quiesce, \
			.resume = virtio_resume, \
			.export = virtio_export, \
			.validate = virtio_validate, \
			.commit = virtio_commit, \
		}, \
		.vendor_id = 0x1af4, \
		.device_id = 0x1040 + (id_), \
		.subsys_vendor = 0x1af4, \
		.subsys_id = 0x40 + (id_), \
		.class_code = (class_), \
		.revision = 0x01, \
		.config_written = virtio_config_written, \
		.config_reading = virtio_config_reading, \
	}, \
	.id = (id_)

static inline struct virtio *virtio_of(struct device *d)
{
	return container_of(container_of(d, struct pci_device, dev), struct virtio, pci);
}
static inline const struct virtio_type *virtio_type_of(const struct virtio *v)
{
	return container_of(container_of(v->pci.dev.type, const struct pci_device_type, device),
			    const struct virtio_type, pci);
}

/* From init, for queues 0, 1, 2 ...: one with up to max places (a power of two up to VIRTQ_SIZE_MAX). */
int virtio_add_queue(struct virtio *v, unsigned max, struct skep_error *e);
static inline bool virtio_has(const struct virtio *v, uint64_t feature)
{
	return v->negotiated & feature;
}
/* Is the driver ready, the device not broken, and may it master the bus? */
bool virtio_running(const struct virtio *v);
/* The device-specific configuration changed: a new generation, and an interrupt. */
void virtio_config_changed(struct virtio *v);
/*
 * The driver did what cannot be: nothing moves any more until it resets the device.  Says why, once,
 * on the terminal; format as printf.
 */
void virtio_broken(struct virtio *v, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* For queue.c: an interrupt of this queue. */
void virtio_queue_interrupt(struct virtqueue *q);

/* ---- Between virtio.c and virtio_pci.c ----------------------------------- */

/* All that the device offers. */
uint64_t virtio_offered(const struct virtio *v);
/* Capabilities, BARs and vectors, once init has made the queues. */
int virtio_pci_init(struct virtio *v, struct skep_error *e);
/* The driver resets the device (status 0): all but its PCI registers. */
void virtio_device_reset(struct virtio *v);
/* The driver writes the status register; a kick of queue n. */
void virtio_set_status(struct virtio *v, uint8_t status);
void virtio_kick(struct virtio *v, unsigned n);
/* Notifies of what was kicked and not seen, if the device may run now. */
void virtio_run_kicked(struct virtio *v);
void virtio_enable_queue(struct virtio *v, struct virtqueue *q);
void virtio_reset_queue(struct virtio *v, struct virtqueue *q);

/* Every virtio device there is; vm/devices.c lists them. */
extern const struct virtio_type virtio_blk_type;
extern const struct state_record virtio_blk_record;
extern const struct virtio_type virtio_9p_type;
extern const struct state_record virtio_9p_record;
extern const struct virtio_type virtio_rnd_type;
extern const struct state_record virtio_rnd_record;
extern const struct virtio_type virtio_balloon_type;
extern const struct state_record virtio_balloon_record;

#endif
