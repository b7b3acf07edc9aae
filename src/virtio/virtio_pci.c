/* The PCI transport: VIRTIO 1.2, section 4.1. */
#include <errno.h>

#include "virtio/virtio.h"
#include "vm/vm.h"

/* BAR 0: a page for each structure. BAR 2: MSI-X. */
#define BAR_REGISTERS	0
#define BAR_MSIX	2
#define PAGE		0x1000u
#define COMMON		0x0000u
#define ISR		0x1000u
#define CONFIG		0x2000u
#define NOTIFY		0x3000u
#define BAR_SIZE	0x4000u
#define NOTIFY_MULTIPLIER	4

/* 4.1.4: capabilities. */
#define CAP_VENDOR	0x09
#define CAP_COMMON	1
#define CAP_NOTIFY	2
#define CAP_ISR		3
#define CAP_CONFIG	4
#define CAP_PCI_ACCESS	5
#define ACCESS_BAR	4
#define ACCESS_OFFSET	8
#define ACCESS_LENGTH	12
#define ACCESS_DATA	16

/* 4.1.4.3: struct virtio_pci_common_cfg. */
struct common {
	uint32_t device_feature_select, device_feature;
	uint32_t driver_feature_select, driver_feature;
	uint16_t config_vector, num_queues;
	uint8_t device_status, config_generation;
	uint16_t queue_select, queue_size, queue_vector, queue_enable, queue_notify_off;
	uint64_t queue_desc, queue_driver, queue_device;
	uint16_t queue_notify_data, queue_reset;
	uint32_t end;
};
_Static_assert(sizeof(struct common) == 64 && offsetof(struct common, queue_desc) == 32 &&
	       offsetof(struct common, queue_reset) == 58, "the layout of the specification");

static struct virtqueue *selected(struct virtio *v)
{
	return v->queue_select < v->nqueues ? &v->queue[v->queue_select] : NULL;
}

static struct common get_common(struct virtio *v)
{
	const struct virtqueue *q = selected(v);
	struct common c = {
		.device_feature_select = v->feature_select,
		.driver_feature_select = v->driver_select,
		.config_vector = v->config_vector,
		.num_queues = (uint16_t)v->nqueues,
		.device_status = v->status,
		.config_generation = v->config_generation,
		.queue_select = v->queue_select,
	};

	if (v->feature_select < 2)
		c.device_feature = (uint32_t)(virtio_offered(v) >> 32 * v->feature_select);
	if (v->driver_select < 2)
		c.driver_feature = (uint32_t)(v->negotiated >> 32 * v->driver_select);
	if (q) {
		c.queue_size = q->size;
		c.queue_vector = q->vector;
		c.queue_enable = q->enabled;
		c.queue_notify_off = q->index;
		c.queue_desc = q->desc;
		c.queue_driver = q->driver;
		c.queue_device = q->device;
		c.queue_notify_data = q->index;
	}
	return c;
}

/* A vector that the device does not have reads back as none (4.1.5.1.2). */
static uint16_t good_vector(const struct virtio *v, uint16_t vector)
{
	return vector < v->pci.nvectors ? vector : VIRTQ_NO_VECTOR;
}

static void set_queue(struct virtio *v, struct virtqueue *q, const struct common *c, unsigned at,
		      unsigned n)
{
#define WROTE(field) \
	pci_touches(at, n, offsetof(struct common, field), sizeof(((struct common *)0)->field))
	if (WROTE(queue_vector))
		q->vector = good_vector(v, c->queue_vector);
	if (!q->enabled) {
		if (WROTE(queue_size) && c->queue_size && c->queue_size <= q->max)
			q->size = c->queue_size;
		q->desc = c->queue_desc;
		q->driver = c->queue_driver;
		q->device = c->queue_device;
	}
	if (WROTE(queue_enable) && c->queue_enable == 1)
		virtio_enable_queue(v, q);
	if (WROTE(queue_reset) && c->queue_reset == 1)
		virtio_reset_queue(v, q);
}

static void set_features(struct virtio *v, uint32_t bits)
{
	unsigned shift = 32 * v->driver_select;

	if (v->driver_select < 2 && !(v->status & VIRTIO_FEATURES_OK))
		v->negotiated = (v->negotiated & ~(0xffffffffull << shift)) | (uint64_t)bits << shift;
}

/* Whatever the width of an access (4.1.3.1 wants a field's own): the bytes are laid over what stands there. */
static void common_write(struct virtio *v, unsigned at, unsigned n, uint64_t value)
{
	struct common c = get_common(v);
	struct virtqueue *q = selected(v);

	memcpy((uint8_t *)&c + at, &value, n);
	if (WROTE(device_feature_select))
		v->feature_select = c.device_feature_select;
	else if (WROTE(driver_feature_select))
		v->driver_select = c.driver_feature_select;
	else if (WROTE(driver_feature))
		set_features(v, c.driver_feature);
	else if (WROTE(config_vector))
		v->config_vector = good_vector(v, c.config_vector);
	else if (WROTE(device_status))
		virtio_set_status(v, c.device_status);
	else if (WROTE(queue_select))
		v->queue_select = c.queue_select;
	else if (q)
		set_queue(v, q, &c, at, n);
}
#undef WROTE

/* ---- The BAR ------------------------------------------------------------- */

static uint64_t config_read(struct virtio *v, unsigned at, unsigned n)
{
	const struct virtio_type *t = virtio_type_of(v);
	uint64_t value = 0;

	if (at < v->config_size && t->config_read)
		t->config_read(v, at, MIN(n, v->config_size - at), &value);
	return value;
}

static void config_write(struct virtio *v, unsigned at, unsigned n, uint64_t value)
{
	const struct virtio_type *t = virtio_type_of(v);

	if (at < v->config_size && n <= v->config_size - at && t->config_write)
		t->config_write(v, at, n, &value);
}

/* Reading it ends the interrupt (4.1.4.5). */
static uint64_t isr_read(struct virtio *v)
{
	uint8_t isr = v->isr;

	v->isr = 0;
	pci_set_intx(&v->pci, false);
	return isr;
}

static uint64_t bar_read(void *opaque, uint64_t offset, unsigned size)
{
	struct virtio *v = opaque;
	unsigned at = offset % PAGE;
	uint64_t value = 0;
	struct common c;

	switch (offset - at) {
	case COMMON:
		c = get_common(v);
		if (at + size <= sizeof(c))
			memcpy(&value, (uint8_t *)&c + at, size);
		return value;
	case ISR:
		return at == 0 ? isr_read(v) : 0;
	case CONFIG:
		return config_read(v, at, size);
	default:
		return 0;
	}
}

static void bar_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
	struct virtio *v = opaque;
	unsigned at = offset % PAGE;

	switch (offset - at) {
	case COMMON:
		if (at + size <= sizeof(struct common))
			common_write(v, at, size, value);
		break;
	case CONFIG:
		config_write(v, at, size, value);
		break;
	case NOTIFY:
		if (at % NOTIFY_MULTIPLIER == 0)
			virtio_kick(v, at / NOTIFY_MULTIPLIER);
		break;
	default:
		break;
	}
}

static const struct bus_ops bar_ops = {
	.read = bar_read,
	.write = bar_write,
};

/* ---- The window in configuration space, 4.1.4.9 -------------------------- */

/* What the driver chose is an access that the BAR could get. */
static bool window(const struct virtio *v, uint32_t *offset, uint32_t *length)
{
	const uint8_t *c = v->pci.config + v->access_cap;

	*offset = load32(c + ACCESS_OFFSET);
	*length = load32(c + ACCESS_LENGTH);
	return c[ACCESS_BAR] == BAR_REGISTERS && (*length == 1 || *length == 2 || *length == 4) &&
	       *offset % *length == 0 && *offset < BAR_SIZE;
}

void virtio_config_reading(struct pci_device *p, unsigned offset, unsigned size)
{
	struct virtio *v = container_of(p, struct virtio, pci);
	uint8_t *data = p->config + v->access_cap + ACCESS_DATA;
	uint32_t at, length, value = 0;

	if (!pci_touches(offset, size, v->access_cap + ACCESS_DATA, 4))
		return;
	if (window(v, &at, &length))
		value = (uint32_t)bar_read(v, at, length);
	store32(data, value);
}

void virtio_config_written(struct pci_device *p, unsigned offset, unsigned size)
{
	struct virtio *v = container_of(p, struct virtio, pci);
	uint32_t at, length;

	if (pci_touches(offset, size, PCI_COMMAND, 2))
		virtio_run_kicked(v);
	if (!pci_touches(offset, size, v->access_cap + ACCESS_DATA, 4))
		return;
	if (window(v, &at, &length))
		bar_write(v, at, length, load32(p->config + v->access_cap + ACCESS_DATA) &
					 (length == 4 ? UINT32_MAX : (1u << 8 * length) - 1));
	store32(p->config + v->access_cap + ACCESS_DATA, 0);
}

/* ---- Capabilities -------------------------------------------------------- */

static uint8_t add_cap(struct virtio *v, uint8_t type, unsigned size, uint32_t offset,
		       uint32_t length)
{
	unsigned at = pci_add_capability(&v->pci, CAP_VENDOR, size);
	uint8_t *c = v->pci.config + at;

	c[2] = (uint8_t)size;
	c[3] = type;
	c[4] = BAR_REGISTERS;
	store32(c + 8, offset);
	store32(c + 12, length);
	return (uint8_t)at;
}

int virtio_pci_init(struct virtio *v, struct skep_error *e)
{
	unsigned at;

	if (v->config_size > PAGE)
		return skep_fail(e, EINVAL, "%s: a configuration of %u bytes", v->pci.dev.name,
				 v->config_size);
	pci_add_bar(&v->pci, BAR_REGISTERS, BAR_SIZE, PCI_BAR_MEM64, &bar_ops, v);
	add_cap(v, CAP_COMMON, 16, COMMON, sizeof(struct common));
	add_cap(v, CAP_ISR, 16, ISR, 4);
	if (v->config_size)
		add_cap(v, CAP_CONFIG, 16, CONFIG, v->config_size);
	at = add_cap(v, CAP_NOTIFY, 20, NOTIFY, MAX(v->nqueues, 1u) * NOTIFY_MULTIPLIER);
	store32(v->pci.config + at + 16, NOTIFY_MULTIPLIER);
	v->access_cap = add_cap(v, CAP_PCI_ACCESS, 20, 0, 0);
	v->pci.wmask[v->access_cap + ACCESS_BAR] = 0xff;
	memset(v->pci.wmask + v->access_cap + ACCESS_OFFSET, 0xff, 12);
	return pci_add_msix(&v->pci, BAR_MSIX, v->nqueues + 1, e);
}
