/*
 * A driver of virtio devices for tests, without a processor: it finds the device on the bus, places its
 * BARs, negotiates, and writes rings into guest memory by hand, split or packed.
 *
 *	struct vdrv d;
 *	vdrv_begin(&d, &virtio_rnd_type, keys, nkeys);	a machine with that device at 0:3.0
 *	vdrv_start(&d, features, packed, places);	every queue, DRIVER_OK
 *	gpa = vdrv_alloc(&d, len);
 *	vdrv_add(&d, queue, (struct vseg[]){ { gpa, len, true } }, 1);
 *	vdrv_kick(&d, queue);
 *	assert_true(vdrv_used(&d, queue, &id, &len));
 *	vdrv_end(&d);
 *
 * Messages that the device sends are counted by vector (their data); the levels of wires are recorded.
 */
#ifndef SKEP_TESTS_VIRTIO_HELPER_H
#define SKEP_TESTS_VIRTIO_HELPER_H

#include "vm_helper.h"

#include <errno.h>
#include <string.h>

#include "config/config.h"
#include "pci/pci.h"
#include "state/codec.h"
#include "virtio/rings.h"
#include "virtio/virtio.h"

#define VDRV_SLOT	3
#define VDRV_BAR	0xc0000000ull
#define VDRV_MSIX	0xc0100000ull
#define VDRV_HEAP	0x100000ull
#define VDRV_MSI_ADDRESS	0xfee00000u

/* Registers of the common configuration, VIRTIO 1.2, 4.1.4.3; the other structures of BAR 0. */
enum { VC_DEVICE_SELECT = 0, VC_DEVICE_FEATURE = 4, VC_DRIVER_SELECT = 8, VC_DRIVER_FEATURE = 12,
       VC_CONFIG_VECTOR = 16, VC_QUEUES = 18, VC_STATUS = 20, VC_GENERATION = 21, VC_SELECT = 22,
       VC_SIZE = 24, VC_VECTOR = 26, VC_ENABLE = 28, VC_NOTIFY_OFF = 30, VC_DESC = 32,
       VC_DRIVER = 40, VC_DEVICE = 48, VC_NOTIFY_DATA = 56, VC_RESET = 58,
       V_ISR = 0x1000, V_CONFIG = 0x2000, V_NOTIFY = 0x3000 };

struct vseg {
	uint64_t gpa;
	uint32_t len;
	bool write;
};

struct vdrv_queue {
	uint16_t size;
	uint64_t desc, driver, device;
	uint16_t avail, used;		/* split: counts; packed: places with RING_WRAP */
	uint16_t next_desc;		/* split: the next free descriptor, round and round */
	uint16_t places[VIRTQ_SIZE_MAX];	/* packed: of each id */
};

struct vdrv {
	struct vm *vm;
	struct config *config;
	struct pci_bus *pci;
	struct virtio *v;
	bool packed;
	uint64_t heap;
	struct vdrv_queue q[VIRTIO_QUEUES_MAX];
	unsigned messages[PCI_VECTORS_MAX];
	int gsi[PCI_PIRQS], isa[16];	/* levels */
};

/* The tests' machines find their driver by the VM. */
static struct vdrv *vdrv_current;

static inline void vdrv_message(struct vm *vm, uint64_t address, uint32_t data)
{
	assert_int_equal(address, VDRV_MSI_ADDRESS);
	if (data < PCI_VECTORS_MAX)
		vdrv_current->messages[data]++;
}

static inline void vdrv_wire(void *opaque, int n, int level)
{
	((int *)opaque)[n] = level;
}

static inline void vdrv_config_write(struct vdrv *d, unsigned offset, unsigned size, uint32_t v)
{
	pci_config_write(d->pci, 0, PCI_DEVFN(VDRV_SLOT, 0), offset, size, v);
}

static inline uint32_t vdrv_config_read(struct vdrv *d, unsigned offset, unsigned size)
{
	return pci_config_read(d->pci, 0, PCI_DEVFN(VDRV_SLOT, 0), offset, size);
}

static inline uint64_t vdrv_get(struct vdrv *d, unsigned offset, unsigned size)
{
	return bus_read(&d->vm->mmio, VDRV_BAR + offset, size);
}

static inline void vdrv_set(struct vdrv *d, unsigned offset, unsigned size, uint64_t v)
{
	bus_write(&d->vm->mmio, VDRV_BAR + offset, size, v);
}

/* BARs placed, memory and bus master on, every MSI-X vector unmasked with its number as data. */
static inline void vdrv_enable(struct vdrv *d, bool msix)
{
	vdrv_config_write(d, PCI_BAR0, 4, VDRV_BAR);
	vdrv_config_write(d, PCI_BAR0 + 4, 4, 0);
	vdrv_config_write(d, PCI_BAR0 + 8, 4, VDRV_MSIX);
	vdrv_config_write(d, PCI_COMMAND, 2, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
	for (unsigned i = 0; msix && i < d->v->pci.nvectors; i++) {
		bus_write(&d->vm->mmio, VDRV_MSIX + 16 * i, 4, VDRV_MSI_ADDRESS);
		bus_write(&d->vm->mmio, VDRV_MSIX + 16 * i + 8, 4, i);
		bus_write(&d->vm->mmio, VDRV_MSIX + 16 * i + 12, 4, 0);
	}
	vdrv_config_write(d, d->v->pci.msix + 2, 2, msix ? 0x8000 : 0);
}

/* type: one that vm/devices.c has, or a test's own (then without keys). */
static inline void vdrv_begin(struct vdrv *d, const struct virtio_type *type,
			      const char *const (*keys)[2], size_t nkeys)
{
	struct irq_line gsi[PCI_PIRQS], isa[16];
	struct skep_error e = { .text = "" };
	const char *name = "pci.0.3.0";
	struct config_node *node = NULL;
	struct device *dev;
	char key[128];

	memset(d, 0, sizeof(*d));
	d->vm = test_vm(CLOCK_MODE_VIRTUAL);
	d->heap = VDRV_HEAP;
	if (nkeys) {
		d->config = config_create();
		assert_int_equal(config_set(d->config, "pci.0.3.0.device", type->pci.device.name, "test", &e), 0);
		for (size_t i = 0; i < nkeys; i++) {
			snprintf(key, sizeof(key), "%s.%s", name, keys[i][0]);
			if (config_set(d->config, key, keys[i][1], "test", &e) < 0)
				fail_msg("%s", e.text);
		}
		if (config_freeze(d->config, &e) < 0)
			fail_msg("%s", e.text);
		node = config_find(d->config, name);
		d->vm->config = d->config;
	}
	device_lock(d->vm);
	d->pci = pci_create(d->vm, &e);
	assert_non_null(d->pci);
	for (int i = 0; i < 16; i++)
		isa[i] = (struct irq_line){ vdrv_wire, d->isa, i };
	for (int i = 0; i < (int)PCI_PIRQS; i++)
		gsi[i] = (struct irq_line){ vdrv_wire, d->gsi, i };
	pci_connect_interrupts(d->pci, gsi, isa, vdrv_message);
	vdrv_current = d;
	dev = device_create(d->vm, &type->pci.device, name, node, &e);
	if (!dev)
		fail_msg("%s", e.text);
	d->v = virtio_of(dev);
	if (pci_attach(d->pci, &d->v->pci, PCI_DEVFN(VDRV_SLOT, 0), &e))
		fail_msg("%s", e.text);
	for (struct device *x = d->vm->devices; x; x = x->next)
		x->type->reset(x);
	vdrv_enable(d, true);
}

static inline void vdrv_end(struct vdrv *d)
{
	device_unlock(d->vm);
	test_vm_free(d->vm);
	if (d->config)
		config_destroy(d->config);
	vdrv_current = NULL;
}

/* Zeroed guest memory, aligned to 4 KiB. */
static inline uint64_t vdrv_alloc(struct vdrv *d, size_t len)
{
	uint64_t gpa = d->heap;

	d->heap = ALIGN_UP(d->heap + len, 4096ull);
	assert_true(d->heap <= TEST_RAM);
	assert_int_equal(dma_zero(&d->vm->memory, gpa, len), 0);
	return gpa;
}

static inline void vdrv_put(struct vdrv *d, uint64_t gpa, const void *data, size_t len)
{
	assert_int_equal(dma_write(&d->vm->memory, gpa, data, len), 0);
}

static inline void vdrv_take(struct vdrv *d, uint64_t gpa, void *data, size_t len)
{
	assert_int_equal(dma_read(&d->vm->memory, gpa, data, len), 0);
}

static inline void vdrv_put16(struct vdrv *d, uint64_t gpa, uint16_t v) { vdrv_put(d, gpa, &v, 2); }
static inline uint16_t vdrv_take16(struct vdrv *d, uint64_t gpa)
{
	uint16_t v;

	vdrv_take(d, gpa, &v, 2);
	return v;
}

static inline uint64_t vdrv_features(struct vdrv *d)
{
	uint64_t v;

	vdrv_set(d, VC_DEVICE_SELECT, 4, 0);
	v = vdrv_get(d, VC_DEVICE_FEATURE, 4);
	vdrv_set(d, VC_DEVICE_SELECT, 4, 1);
	return v | vdrv_get(d, VC_DEVICE_FEATURE, 4) << 32;
}

/* Up to FEATURES_OK; returns whether the device took them. */
static inline bool vdrv_negotiate(struct vdrv *d, uint64_t features)
{
	vdrv_set(d, VC_STATUS, 1, 0);
	assert_int_equal(vdrv_get(d, VC_STATUS, 1), 0);
	vdrv_set(d, VC_STATUS, 1, VIRTIO_ACKNOWLEDGE);
	vdrv_set(d, VC_STATUS, 1, VIRTIO_ACKNOWLEDGE | VIRTIO_DRIVER);
	vdrv_set(d, VC_DRIVER_SELECT, 4, 0);
	vdrv_set(d, VC_DRIVER_FEATURE, 4, (uint32_t)features);
	vdrv_set(d, VC_DRIVER_SELECT, 4, 1);
	vdrv_set(d, VC_DRIVER_FEATURE, 4, features >> 32);
	vdrv_set(d, VC_STATUS, 1, VIRTIO_ACKNOWLEDGE | VIRTIO_DRIVER | VIRTIO_FEATURES_OK);
	d->packed = features & VIRTIO_F_RING_PACKED;
	return vdrv_get(d, VC_STATUS, 1) & VIRTIO_FEATURES_OK;
}

static inline void vdrv_queue_addresses(struct vdrv *d, unsigned n)
{
	struct vdrv_queue *q = &d->q[n];

	vdrv_set(d, VC_SELECT, 2, n);
	vdrv_set(d, VC_SIZE, 2, q->size);
	vdrv_set(d, VC_VECTOR, 2, n + 1);
	for (unsigned i = 0; i < 2; i++) {
		vdrv_set(d, VC_DESC + 4 * i, 4, q->desc >> 32 * i);
		vdrv_set(d, VC_DRIVER + 4 * i, 4, q->driver >> 32 * i);
		vdrv_set(d, VC_DEVICE + 4 * i, 4, q->device >> 32 * i);
	}
}

static inline void vdrv_queue(struct vdrv *d, unsigned n, uint16_t size)
{
	struct vdrv_queue *q = &d->q[n];

	memset(q, 0, sizeof(*q));
	q->size = size;
	q->desc = vdrv_alloc(d, 16u * size);
	q->driver = vdrv_alloc(d, 6 + 2u * size);
	q->device = vdrv_alloc(d, 6 + 8u * size);
	q->avail = q->used = d->packed ? RING_WRAP : 0;
	vdrv_queue_addresses(d, n);
	vdrv_set(d, VC_ENABLE, 2, 1);
}

/* features 0: all that it offers, without packed rings, which packed asks for. */
static inline void vdrv_start(struct vdrv *d, uint64_t features, bool packed, uint16_t places)
{
	if (!features)
		features = vdrv_features(d) & ~VIRTIO_F_RING_PACKED;
	features |= VIRTIO_F_VERSION_1 | (packed ? VIRTIO_F_RING_PACKED : 0);
	assert_true(vdrv_negotiate(d, features));
	vdrv_set(d, VC_CONFIG_VECTOR, 2, 0);
	for (unsigned n = 0; n < d->v->nqueues; n++)
		vdrv_queue(d, n, MIN(places, d->v->queue[n].max));
	vdrv_set(d, VC_STATUS, 1, VIRTIO_ACKNOWLEDGE | VIRTIO_DRIVER | VIRTIO_FEATURES_OK |
	       VIRTIO_DRIVER_OK);
}

static inline bool vdrv_broken(struct vdrv *d)
{
	return vdrv_get(d, VC_STATUS, 1) & VIRTIO_NEEDS_RESET;
}

/* Split: one descriptor by number. */
static inline void vdrv_desc(struct vdrv *d, unsigned n, unsigned i, uint64_t gpa, uint32_t len,
			     uint16_t flags, uint16_t next)
{
	struct split_desc s = { gpa, len, flags, next };

	vdrv_put(d, d->q[n].desc + 16u * i, &s, sizeof(s));
}

/* Split: the chain that begins at head becomes available. */
static inline void vdrv_offer(struct vdrv *d, unsigned n, uint16_t head)
{
	struct vdrv_queue *q = &d->q[n];

	vdrv_put16(d, q->driver + 4 + 2u * (q->avail % q->size), head);
	vdrv_put16(d, q->driver + 2, ++q->avail);
}

/* Packed: flags that make a place available in this lap. */
static inline uint16_t vdrv_lap(uint16_t pos)
{
	return pos & RING_WRAP ? 0x0080 : 0x8000;
}

static inline uint16_t vdrv_advance(const struct vdrv_queue *q, uint16_t pos, unsigned n)
{
	unsigned p = (pos & 0x7fffu) + n, wrap = pos & RING_WRAP;

	if (p >= q->size) {
		p -= q->size;
		wrap ^= RING_WRAP;
	}
	return (uint16_t)(p | wrap);
}

/* A packed descriptor at a place, its flags without those of the lap; the flags go last. */
static inline void vdrv_place(struct vdrv *d, unsigned n, uint16_t pos, struct packed_desc s)
{
	uint64_t at = d->q[n].desc + 16u * (pos & 0x7fffu);

	s.flags |= vdrv_lap(pos);
	vdrv_put(d, at, &s, sizeof(s));
}

static inline uint16_t vdrv_add_split(struct vdrv *d, unsigned n, const struct vseg *s, unsigned count)
{
	struct vdrv_queue *q = &d->q[n];
	uint16_t head = q->next_desc;

	for (unsigned i = 0; i < count; i++) {
		uint16_t at = q->next_desc, next = (uint16_t)((at + 1u) % q->size);

		vdrv_desc(d, n, at, s[i].gpa, s[i].len,
			  (s[i].write ? DESC_WRITE : 0) | (i + 1 < count ? DESC_NEXT : 0), next);
		q->next_desc = next;
	}
	vdrv_offer(d, n, head);
	return head;
}

static inline uint16_t vdrv_add_packed(struct vdrv *d, unsigned n, const struct vseg *s, unsigned count)
{
	struct vdrv_queue *q = &d->q[n];
	uint16_t id = q->next_desc++ % q->size;

	q->places[id] = (uint16_t)count;
	/* The first place makes all of them available, so it is written last. */
	for (unsigned i = count; i-- > 0; )
		vdrv_place(d, n, vdrv_advance(q, q->avail, i), (struct packed_desc){
			s[i].gpa, s[i].len, id,
			(s[i].write ? DESC_WRITE : 0) | (i + 1 < count ? DESC_NEXT : 0) });
	q->avail = vdrv_advance(q, q->avail, count);
	return id;
}

/* A chain of these segments; returns the id under which it comes back. */
static inline uint16_t vdrv_add(struct vdrv *d, unsigned n, const struct vseg *s, unsigned count)
{
	return d->packed ? vdrv_add_packed(d, n, s, count) : vdrv_add_split(d, n, s, count);
}

/* The same through an indirect table. */
static inline uint16_t vdrv_add_indirect(struct vdrv *d, unsigned n, const struct vseg *s,
					 unsigned count)
{
	uint64_t table = vdrv_alloc(d, 16u * count);
	struct vdrv_queue *q = &d->q[n];

	for (unsigned i = 0; i < count; i++) {
		uint16_t flags = s[i].write ? DESC_WRITE : 0;
		struct split_desc e = { s[i].gpa, s[i].len, flags | (i + 1 < count ? DESC_NEXT : 0),
					(uint16_t)(i + 1) };
		struct packed_desc p = { s[i].gpa, s[i].len, 0, flags };

		vdrv_put(d, table + 16u * i, d->packed ? (void *)&p : (void *)&e, 16);
	}
	if (d->packed) {
		uint16_t id = q->next_desc++ % q->size;

		q->places[id] = 1;
		vdrv_place(d, n, q->avail, (struct packed_desc){ table, 16u * count, id, DESC_INDIRECT });
		q->avail = vdrv_advance(q, q->avail, 1);
		return id;
	}
	vdrv_desc(d, n, q->next_desc, table, 16u * count, DESC_INDIRECT, 0);
	vdrv_offer(d, n, q->next_desc);
	q->next_desc = (uint16_t)((q->next_desc + 1u) % q->size);
	return (uint16_t)((q->next_desc + q->size - 1u) % q->size);
}

static inline void vdrv_kick(struct vdrv *d, unsigned n)
{
	vdrv_set(d, V_NOTIFY + 4 * n, 2, n);
}

/* The next buffer that the device gave back; false: there is none. */
static inline bool vdrv_used(struct vdrv *d, unsigned n, uint16_t *id, uint32_t *len)
{
	struct vdrv_queue *q = &d->q[n];
	struct { uint32_t id, len; } e;
	struct packed_desc p;
	bool wrap;

	if (!d->packed) {
		if (vdrv_take16(d, q->device + 2) == q->used)
			return false;
		vdrv_take(d, q->device + 4 + 8u * (q->used % q->size), &e, sizeof(e));
		q->used++;
		*id = (uint16_t)e.id;
		*len = e.len;
		return true;
	}
	vdrv_take(d, q->desc + 16u * (q->used & 0x7fffu), &p, sizeof(p));
	wrap = q->used & RING_WRAP;
	if (!!(p.flags & 0x80) != wrap || !!(p.flags & 0x8000) != wrap)
		return false;
	*id = p.id;
	*len = p.len;
	q->used = vdrv_advance(q, q->used, q->places[p.id % VIRTQ_SIZE_MAX]);
	return true;
}

/* Saved, checked, reset, and given back: the device goes on where it stood. */
static inline void vdrv_save_restore(struct vdrv *d)
{
	struct device *dev = &d->v->pci.dev;
	const struct state_record *r = dev->type->state;
	struct skep_error e = { .text = "" };
	struct state_buf a = { 0 }, b = { 0 };
	void *m = calloc(1, r->model_size), *again = calloc(1, r->model_size);

	dev->type->quiesce(dev);
	dev->type->export(dev, m);
	if (state_check(r, dev->name, m, NULL, &e) < 0 || dev->type->validate(dev, m, &e) < 0)
		fail_msg("%s", e.text);
	assert_int_equal(state_encode(r, dev->name, m, r->version, &a, &e), 0);
	dev->type->reset(dev);
	dev->type->commit(dev, m);
	dev->type->export(dev, again);
	assert_int_equal(state_encode(r, dev->name, again, r->version, &b, &e), 0);
	assert_int_equal(a.len, b.len);
	assert_memory_equal(a.data, b.data, a.len);
	dev->type->resume(dev);
	state_buf_free(&a);
	state_buf_free(&b);
	state_free(r, m);
	state_free(r, again);
	free(m);
	free(again);
}

#endif
