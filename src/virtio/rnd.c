/*
 * The entropy device: VIRTIO 1.2, section 5.4.
 *
 * What it gives is the machine's entropy (vm_entropy), which a seed makes repeatable, and it gives it
 * at once: with clock=virtual a run with this device is exact.
 */
#include "virtio/virtio.h"
#include "vm/vm.h"

#define DEVICE_ID	4
#define CLASS		0x00ff00	/* none that PCI knows */
#define PLACES		64
#define REQUEST_MAX	4096u		/* bytes for one buffer: fewer than asked for are allowed (5.4.6.2) */

struct rnd {
	struct virtio v;
};

struct rnd_model {
	struct virtio_model virtio;
};

static uint32_t fill(struct virtqueue *q, const struct virtq_chain *c)
{
	uint64_t word[REQUEST_MAX / 8];
	uint32_t n = MIN(c->writable, REQUEST_MAX);

	for (unsigned i = 0; i < (n + 7) / 8; i++)
		word[i] = vm_entropy(q->v->pci.dev.vm);
	return (uint32_t)virtq_write(q, c, 0, word, n);
}

static void rnd_notify(struct virtio *v, struct virtqueue *q)
{
	struct virtq_chain c;

	while (virtq_pop(q, &c) > 0)
		virtq_push(q, &c, fill(q, &c));
	virtq_signal(q);
}

static int rnd_init(struct virtio *v, struct skep_error *e)
{
	return virtio_add_queue(v, PLACES, e);
}

/* Its requests are finished when notify returns: nothing is ever in flight. */
static void rnd_queue_reset(struct virtio *v, struct virtqueue *q)
{
}

static const struct state_field rnd_fields[] = {
	VIRTIO_STATE(struct rnd_model),
};

const struct state_record virtio_rnd_record = {
	.kind = "virtio-rnd",
	.version = 1,
	.model_size = sizeof(struct rnd_model),
	.fields = rnd_fields,
	.nfields = ARRAY_SIZE(rnd_fields),
};

static const struct config_schema no_keys;

const struct virtio_type virtio_rnd_type = {
	VIRTIO_DEVICE("virtio-rnd", "entropy source", DEVICE_ID, CLASS, struct rnd, no_keys,
		      virtio_rnd_record),
	.init = rnd_init,
	.notify = rnd_notify,
	.queue_reset = rnd_queue_reset,
};
