/* What all virtio devices do alike: status, queues, life, state (VIRTIO 1.2, sections 2 and 3). */
#include "virtio/virtio.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>

#include "base/say.h"
#include "virtio/rings.h"
#include "vm/vm.h"

#define STATUS_BITS (VIRTIO_ACKNOWLEDGE | VIRTIO_DRIVER | VIRTIO_DRIVER_OK | VIRTIO_FEATURES_OK | \
		     VIRTIO_FAILED)
#define ISR_QUEUE	1
#define ISR_CONFIG	2

uint64_t virtio_offered(const struct virtio *v)
{
	return v->features | VIRTIO_F_INDIRECT_DESC | VIRTIO_F_EVENT_IDX | VIRTIO_F_VERSION_1 |
	       VIRTIO_F_RING_PACKED | (virtio_type_of(v)->queue_reset ? VIRTIO_F_RING_RESET : 0);
}

bool virtio_running(const struct virtio *v)
{
	return (v->status & (VIRTIO_DRIVER_OK | VIRTIO_NEEDS_RESET)) == VIRTIO_DRIVER_OK &&
	       pci_bus_master(&v->pci);
}

/* ---- Interrupts ---------------------------------------------------------- */

static void raise_isr(struct virtio *v, uint8_t bit)
{
	v->isr |= bit;
	pci_set_intx(&v->pci, true);
}

/* 4.1.4.5.1: the queue's bit is for drivers without MSI-X, the other one for all. */
void virtio_queue_interrupt(struct virtqueue *q)
{
	if (pci_msix_enabled(&q->v->pci))
		pci_message(&q->v->pci, q->vector);
	else
		raise_isr(q->v, ISR_QUEUE);
}

static void config_interrupt(struct virtio *v)
{
	if (!(v->status & VIRTIO_DRIVER_OK))
		return;
	raise_isr(v, ISR_CONFIG);
	pci_message(&v->pci, v->config_vector);
}

void virtio_config_changed(struct virtio *v)
{
	v->config_generation++;
	config_interrupt(v);
}

void virtio_broken(struct virtio *v, const char *fmt, ...)
{
	char why[160];
	va_list ap;

	if (v->status & VIRTIO_NEEDS_RESET)
		return;
	v->status |= VIRTIO_NEEDS_RESET;
	if (!v->complained) {
		va_start(ap, fmt);
		vsnprintf(why, sizeof(why), fmt, ap);
		va_end(ap);
		skep_say("skep: %s: the guest's driver broke the rules of %s: %s; the device stands until "
			 "it is reset\n", v->pci.dev.name, v->pci.dev.type->name, why);
		v->complained = true;
	}
	config_interrupt(v);
}

/* ---- Status and kicks ---------------------------------------------------- */

/* Buffers that one notification brings, before others get the device lock. */
#define BUDGET	(4 * VIRTQ_SIZE_MAX)

static void run_again(void *opaque)
{
	virtio_run_kicked(opaque);
}

/*
 * Another processor may fill the queue for ever while this one empties it.  With clock=virtual they
 * take turns, and where the hook stops would be the host's choice.
 */
static void notify(struct virtio *v, struct virtqueue *q)
{
	const struct virtio_type *t = virtio_type_of(v);
	struct vm *vm = v->pci.dev.vm;
	bool spent;

	if (!q->kicked || !q->enabled || v->quiesced || !virtio_running(v) || !t->notify)
		return;
	if (vm->clock.mode != CLOCK_MODE_VIRTUAL)
		q->budget = BUDGET;
	t->notify(v, q);
	spent = !q->budget;
	q->budget = VIRTQ_NO_BUDGET;
	if (spent)
		loop_post(vm, run_again, v);
}

void virtio_run_kicked(struct virtio *v)
{
	for (unsigned n = 0; n < v->nqueues; n++)
		notify(v, &v->queue[n]);
}

void virtio_kick(struct virtio *v, unsigned n)
{
	if (n >= v->nqueues || !v->queue[n].enabled)
		return;
	v->queue[n].kicked = true;
	notify(v, &v->queue[n]);
}

static void start(struct virtio *v)
{
	const struct virtio_type *t = virtio_type_of(v);

	if (t->start)
		t->start(v);
}

/* 3.1.1: features are agreed on at FEATURES_OK, and fixed from then on. */
void virtio_set_status(struct virtio *v, uint8_t status)
{
	uint8_t set = status & STATUS_BITS & ~v->status;

	if (!status) {
		virtio_device_reset(v);
		return;
	}
	if (set & VIRTIO_FEATURES_OK && (v->negotiated & ~virtio_offered(v) ||
					 !(v->negotiated & VIRTIO_F_VERSION_1)))
		set &= ~VIRTIO_FEATURES_OK;
	if (!((v->status | set) & VIRTIO_FEATURES_OK))
		set &= ~VIRTIO_DRIVER_OK;
	v->status |= set;
	if (set & VIRTIO_DRIVER_OK) {
		start(v);
		virtio_run_kicked(v);
	}
}

void virtio_enable_queue(struct virtio *v, struct virtqueue *q)
{
	bool packed = virtio_has(v, VIRTIO_F_RING_PACKED);
	struct skep_error e = { .text = "" };

	if (q->enabled || !(v->status & VIRTIO_FEATURES_OK))
		return;
	if (virtq_check_addresses(q, packed, &e)) {
		virtio_broken(v, "%s", e.text);
		return;
	}
	virtq_start(q, packed);
	q->enabled = true;
}

void virtio_reset_queue(struct virtio *v, struct virtqueue *q)
{
	const struct virtio_type *t = virtio_type_of(v);

	if (!virtio_has(v, VIRTIO_F_RING_RESET) || !t->queue_reset)
		return;
	t->queue_reset(v, q);
	virtq_reset(q);
}

/* ---- Life ---------------------------------------------------------------- */

int virtio_add_queue(struct virtio *v, unsigned max, struct skep_error *e)
{
	struct virtqueue *q;

	if (v->nqueues == VIRTIO_QUEUES_MAX || !max || max > VIRTQ_SIZE_MAX || max & (max - 1))
		return skep_fail(e, EINVAL, "%s: queue %u of %u places cannot be", v->pci.dev.name,
				 v->nqueues, max);
	q = realloc(v->queue, (v->nqueues + 1) * sizeof(*q));
	if (!q)
		return skep_fail(e, ENOMEM, "%s: no memory for a queue", v->pci.dev.name);
	v->queue = q;
	q[v->nqueues] = (struct virtqueue){ .v = v, .index = (uint16_t)v->nqueues, .max = (uint16_t)max };
	virtq_reset(&q[v->nqueues]);
	v->nqueues++;
	return 0;
}

static void free_queues(struct virtio *v)
{
	pci_finish_endpoint(&v->pci);
	free(v->queue);
	v->queue = NULL;
	v->nqueues = 0;
}

int virtio_init(struct device *d, struct skep_error *e)
{
	struct virtio *v = virtio_of(d);
	const struct virtio_type *t = virtio_type_of(v);
	int err;

	pci_init_endpoint(&v->pci);
	err = t->init(v, e);
	if (!err) {
		err = virtio_pci_init(v, e);
		if (err && t->finish)
			t->finish(v);
	}
	if (err) {
		free_queues(v);
		return err;
	}
	virtio_device_reset(v);
	pci_reset_endpoint(&v->pci);
	return 0;
}

void virtio_finish(struct device *d)
{
	struct virtio *v = virtio_of(d);
	const struct virtio_type *t = virtio_type_of(v);

	if (t->finish)
		t->finish(v);
	free_queues(v);
}

void virtio_device_reset(struct virtio *v)
{
	const struct virtio_type *t = virtio_type_of(v);

	if (t->reset)
		t->reset(v);
	for (unsigned n = 0; n < v->nqueues; n++)
		virtq_reset(&v->queue[n]);
	v->negotiated = 0;
	v->status = v->isr = v->config_generation = 0;
	v->config_vector = VIRTQ_NO_VECTOR;
	v->queue_select = 0;
	v->feature_select = v->driver_select = 0;
	pci_set_intx(&v->pci, false);
}

void virtio_reset(struct device *d)
{
	struct virtio *v = virtio_of(d);

	virtio_device_reset(v);
	memset(v->pci.config + v->access_cap + 4, 0, 16);
	pci_reset_endpoint(&v->pci);
}

void virtio_quiesce(struct device *d)
{
	struct virtio *v = virtio_of(d);
	const struct virtio_type *t = virtio_type_of(v);

	if (t->quiesce)
		t->quiesce(v);
	v->quiesced = true;
}

void virtio_resume(struct device *d)
{
	struct virtio *v = virtio_of(d);
	const struct virtio_type *t = virtio_type_of(v);

	if (vm_suspended(d->vm))
		return;
	v->quiesced = false;
	if (t->resume)
		t->resume(v);
	virtio_run_kicked(v);
}

/* ---- State --------------------------------------------------------------- */

static void export_queues(const struct virtio *v, struct virtio_model *m)
{
	struct virtio_queue_model *qm = calloc(MAX(v->nqueues, 1u), sizeof(*qm));

	m->failed = !qm;
	if (!qm)
		return;
	for (unsigned n = 0; n < v->nqueues; n++) {
		const struct virtqueue *q = &v->queue[n];

		qm[n] = (struct virtio_queue_model){
			.size = q->size, .vector = q->vector, .enabled = q->enabled,
			.kicked = q->kicked, .desc = q->desc, .driver = q->driver,
			.device = q->device, .next = q->used, .signalled = q->signalled,
		};
		m->in_flight += q->in_flight;
	}
	m->queues = (struct state_list){ qm, v->nqueues };
	if (!v->nqueues) {
		free(qm);
		m->queues.items = NULL;
	}
}

void virtio_export(const struct device *d, void *model)
{
	const struct virtio *v = container_of(container_of(d, struct pci_device, dev), struct virtio, pci);
	const struct virtio_type *t = virtio_type_of(v);
	const uint8_t *access = v->pci.config + v->access_cap;
	struct virtio_model *m = model;

	*m = (struct virtio_model){
		.features = virtio_offered(v),
		.negotiated = v->negotiated,
		.status = v->status,
		.isr = v->isr,
		.config_generation = v->config_generation,
		.config_vector = v->config_vector,
		.queue_select = v->queue_select,
		.feature_select = v->feature_select,
		.driver_select = v->driver_select,
		.access_bar = access[4],
		.access_offset = load32(access + 8),
		.access_length = load32(access + 12),
	};
	pci_export_endpoint(&v->pci, &m->pci);
	export_queues(v, m);
	if (t->export)
		t->export(v, model);
}

static int validate_queue(const struct virtio *v, const struct virtio_model *m, unsigned n,
			  struct skep_error *e)
{
	const struct virtio_queue_model *qm = (const struct virtio_queue_model *)m->queues.items + n;
	bool packed = m->negotiated & VIRTIO_F_RING_PACKED;
	struct virtqueue q = v->queue[n];

	q.size = qm->size;
	q.desc = qm->desc;
	q.driver = qm->driver;
	q.device = qm->device;
	if (!q.size || q.size > q.max)
		return skep_fail(e, EINVAL, "%s: queue %u has %u places, and the device offers %u",
				 v->pci.dev.name, n, q.size, q.max);
	if (qm->vector != VIRTQ_NO_VECTOR && qm->vector >= v->pci.nvectors)
		return skep_fail(e, EINVAL, "%s: queue %u has message vector %u, and the device has %u",
				 v->pci.dev.name, n, qm->vector, v->pci.nvectors);
	if (!qm->enabled) {
		if (qm->kicked || qm->next || qm->signalled)
			return skep_fail(e, EINVAL, "%s: queue %u is not enabled, but was used",
					 v->pci.dev.name, n);
		return 0;
	}
	if (!(m->status & VIRTIO_FEATURES_OK))
		return skep_fail(e, EINVAL, "%s: queue %u is enabled before the features are agreed on",
				 v->pci.dev.name, n);
	if (packed && ((qm->next & ~RING_WRAP) >= q.size || (qm->signalled & ~RING_WRAP) >= q.size))
		return skep_fail(e, EINVAL, "%s: queue %u stands at %#x, which is no place of it",
				 v->pci.dev.name, n, qm->next);
	if (virtq_check_addresses(&q, packed, e)) {
		skep_error_prefix(e, "%s", v->pci.dev.name);
		return -EINVAL;
	}
	return 0;
}

static int validate_common(const struct virtio *v, const struct virtio_model *m,
			   struct skep_error *e)
{
	const char *name = v->pci.dev.name;
	uint64_t offered = virtio_offered(v);

	if (m->features != offered)
		return skep_fail(e, EINVAL, "%s: the guest was offered the features %#" PRIx64 ", and this "
				 "machine's device offers %#" PRIx64 "; give it the same settings and "
				 "backend", name, m->features, offered);
	if (m->status & ~(STATUS_BITS | VIRTIO_NEEDS_RESET) || m->isr & ~(ISR_QUEUE | ISR_CONFIG))
		return skep_fail(e, EINVAL, "%s: status %#x, isr %#x: reserved bits are set", name,
				 m->status, m->isr);
	if ((m->status & VIRTIO_FEATURES_OK && (m->negotiated & ~offered ||
						!(m->negotiated & VIRTIO_F_VERSION_1))) ||
	    (m->status & VIRTIO_DRIVER_OK && !(m->status & VIRTIO_FEATURES_OK)))
		return skep_fail(e, EINVAL, "%s: status %#x cannot be with the features %#" PRIx64, name,
				 m->status, m->negotiated);
	if (m->config_vector != VIRTQ_NO_VECTOR && m->config_vector >= v->pci.nvectors)
		return skep_fail(e, EINVAL, "%s: config_vector is %u, and the device has %u vectors", name,
				 m->config_vector, v->pci.nvectors);
	return 0;
}

int virtio_validate(const struct device *d, const void *model, struct skep_error *e)
{
	const struct virtio *v = container_of(container_of(d, struct pci_device, dev), struct virtio, pci);
	const struct virtio_type *t = virtio_type_of(v);
	const struct virtio_model *m = model;
	int err;

	if (m->failed)
		return skep_fail(e, ENOMEM, "%s: no memory for a copy of its queues", d->name);
	if (m->in_flight)
		return skep_fail(e, EBUSY, "%s: %u requests are still in flight", d->name, m->in_flight);
	err = pci_validate_endpoint(&v->pci, &m->pci, e);
	if (!err)
		err = validate_common(v, m, e);
	if (err)
		return err;
	if (m->queues.count != v->nqueues)
		return skep_fail(e, EINVAL, "%s: %u queues, and the device has %u", d->name,
				 m->queues.count, v->nqueues);
	for (unsigned n = 0; n < v->nqueues && !err; n++)
		err = validate_queue(v, m, n, e);
	return !err && t->validate ? t->validate(v, model, e) : err;
}

static void commit_queue(struct virtqueue *q, const struct virtio_queue_model *m)
{
	q->size = m->size;
	q->vector = m->vector;
	q->enabled = m->enabled;
	q->kicked = m->kicked;
	q->desc = m->desc;
	q->driver = m->driver;
	q->device = m->device;
	q->avail = q->used = m->next;
	q->signalled = m->signalled;
}

void virtio_commit(struct device *d, const void *model)
{
	struct virtio *v = virtio_of(d);
	const struct virtio_type *t = virtio_type_of(v);
	const struct virtio_model *m = model;
	const struct virtio_queue_model *qm = m->queues.items;
	uint8_t *access = v->pci.config + v->access_cap;

	if (t->reset)
		t->reset(v);
	for (unsigned n = 0; n < v->nqueues; n++) {
		virtq_reset(&v->queue[n]);
		if (n < m->queues.count)
			commit_queue(&v->queue[n], &qm[n]);
	}
	v->negotiated = m->negotiated;
	v->status = m->status;
	v->isr = m->isr;
	v->config_generation = m->config_generation;
	v->config_vector = m->config_vector;
	v->queue_select = m->queue_select;
	v->feature_select = m->feature_select;
	v->driver_select = m->driver_select;
	access[4] = m->access_bar;
	store32(access + 8, m->access_offset);
	store32(access + 12, m->access_length);
	pci_commit_endpoint(&v->pci, &m->pci, v->isr);
	if (t->commit)
		t->commit(v, model);
	if (v->status & VIRTIO_DRIVER_OK)
		start(v);
}

static const struct state_field queue_fields[] = {
	STATE_U16(struct virtio_queue_model, size, .max = VIRTQ_SIZE_MAX),
	STATE_U16(struct virtio_queue_model, vector),
	STATE_BOOL(struct virtio_queue_model, enabled),
	STATE_BOOL(struct virtio_queue_model, kicked),
	STATE_U64(struct virtio_queue_model, desc),
	STATE_U64(struct virtio_queue_model, driver),
	STATE_U64(struct virtio_queue_model, device),
	STATE_U16(struct virtio_queue_model, next),
	STATE_U16(struct virtio_queue_model, signalled),
};

static const struct state_record queue_record = {
	.kind = "virtqueue",
	.version = 1,
	.model_size = sizeof(struct virtio_queue_model),
	.fields = queue_fields,
	.nfields = ARRAY_SIZE(queue_fields),
};

static const struct state_field virtio_fields[] = {
	STATE_STRUCT(struct virtio_model, pci, &pci_function_record),
	STATE_U64(struct virtio_model, features),
	STATE_U64(struct virtio_model, negotiated),
	STATE_U8(struct virtio_model, status),
	STATE_U8(struct virtio_model, isr, .max = ISR_QUEUE | ISR_CONFIG),
	STATE_U8(struct virtio_model, config_generation),
	STATE_U16(struct virtio_model, config_vector),
	STATE_U16(struct virtio_model, queue_select),
	STATE_U32(struct virtio_model, feature_select),
	STATE_U32(struct virtio_model, driver_select),
	STATE_U8(struct virtio_model, access_bar),
	STATE_U32(struct virtio_model, access_offset),
	STATE_U32(struct virtio_model, access_length),
	STATE_LIST(struct virtio_model, queues, &queue_record, .max = VIRTIO_QUEUES_MAX),
};

const struct state_record virtio_record = {
	.kind = "virtio",
	.version = 1,
	.model_size = sizeof(struct virtio_model),
	.fields = virtio_fields,
	.nfields = ARRAY_SIZE(virtio_fields),
};
