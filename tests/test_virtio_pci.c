/* The PCI transport and the devices of src/virtio that need no host: VIRTIO 1.2, 4.1, 5.4, 5.5. */
#include "virtio_helper.h"

#include "vm/loop.h"

static struct vdrv d;

static int rnd(void **state)
{
	vdrv_begin(&d, &virtio_rnd_type, NULL, 0);
	return 0;
}

static int balloon(void **state)
{
	static const char *const keys[][2] = { { "target", "4M" } };

	vdrv_begin(&d, &virtio_balloon_type, keys, 1);
	return 0;
}

static int end(void **state)
{
	vdrv_end(&d);
	return 0;
}

/* ---- Capabilities -------------------------------------------------------- */

static unsigned find_cap(uint8_t id, int type)
{
	unsigned at = vdrv_config_read(&d, PCI_CAPABILITIES, 1), seen = 0;

	while (at) {
		assert_true(at >= 0x40 && at % 4 == 0 && ++seen < 20);
		if (vdrv_config_read(&d, at, 1) == id &&
		    (type < 0 || vdrv_config_read(&d, at + 3, 1) == (unsigned)type))
			return at;
		at = vdrv_config_read(&d, at + 1, 1);
	}
	return 0;
}

/* 4.1.2, 4.1.4 */
static void capabilities(void **state)
{
	static const struct { unsigned type, offset, length, size; } want[] = {
		{ 1, 0x0000, 64, 16 }, { 2, 0x3000, 4, 20 }, { 3, 0x1000, 4, 16 }, { 5, 0, 0, 20 },
	};

	assert_int_equal(vdrv_config_read(&d, PCI_VENDOR_ID, 4), 0x10441af4);
	assert_true(vdrv_config_read(&d, PCI_REVISION, 1) >= 1);
	assert_true(vdrv_config_read(&d, PCI_SUBSYS_ID, 2) >= 0x40);
	for (unsigned i = 0; i < ARRAY_SIZE(want); i++) {
		unsigned at = find_cap(9, (int)want[i].type);

		assert_true(at);
		assert_int_equal(vdrv_config_read(&d, at + 2, 1), want[i].size);
		assert_int_equal(vdrv_config_read(&d, at + 4, 1), 0);
		assert_int_equal(vdrv_config_read(&d, at + 8, 4), want[i].offset);
		assert_int_equal(vdrv_config_read(&d, at + 12, 4), want[i].length);
	}
	/* No device-specific configuration, so no structure of it (4.1.4.6.1). */
	assert_int_equal(find_cap(9, 4), 0);
	assert_int_equal(vdrv_config_read(&d, find_cap(9, 2) + 16, 4), 4);
	assert_true(find_cap(0x10, -1));
	assert_int_equal(vdrv_config_read(&d, find_cap(0x11, -1) + 2, 2) & 0x7ff, 1);
}

/* ---- Status and features ------------------------------------------------- */

/* 2.2.2, 3.1.1 */
static void features(void **state)
{
	uint64_t offered = vdrv_features(&d);

	assert_int_equal(offered, VIRTIO_F_VERSION_1 | VIRTIO_F_RING_PACKED | VIRTIO_F_INDIRECT_DESC |
				  VIRTIO_F_EVENT_IDX | VIRTIO_F_RING_RESET);
	vdrv_set(&d, VC_DEVICE_SELECT, 4, 2);
	assert_int_equal(vdrv_get(&d, VC_DEVICE_FEATURE, 4), 0);
	assert_false(vdrv_negotiate(&d, offered | BIT(3)));
	assert_false(vdrv_negotiate(&d, offered | BIT(63)));
	assert_false(vdrv_negotiate(&d, offered & ~VIRTIO_F_VERSION_1));
	/* Refused: DRIVER_OK means nothing. */
	vdrv_set(&d, VC_STATUS, 1, 7);
	assert_int_equal(vdrv_get(&d, VC_STATUS, 1), 3);
	assert_true(vdrv_negotiate(&d, VIRTIO_F_VERSION_1));
	/* Fixed from now on; bits are never cleared but all at once. */
	vdrv_set(&d, VC_DRIVER_SELECT, 4, 0);
	vdrv_set(&d, VC_DRIVER_FEATURE, 4, VIRTIO_F_EVENT_IDX);
	assert_int_equal(vdrv_get(&d, VC_DRIVER_FEATURE, 4), 0);
	vdrv_set(&d, VC_STATUS, 1, 1);
	assert_int_equal(vdrv_get(&d, VC_STATUS, 1), 0x0b);
	vdrv_set(&d, VC_STATUS, 1, 0x80);
	assert_int_equal(vdrv_get(&d, VC_STATUS, 1), 0x8b);
	vdrv_set(&d, VC_STATUS, 1, 0);
	assert_int_equal(vdrv_get(&d, VC_STATUS, 1), 0);
	assert_int_equal(d.v->negotiated, 0);
}

/* 4.1.4.3.1 */
static void queues(void **state)
{
	assert_int_equal(vdrv_get(&d, VC_QUEUES, 2), 1);
	vdrv_set(&d, VC_SELECT, 2, 1);
	for (unsigned at = VC_SIZE; at < 60; at += 2)
		assert_int_equal(vdrv_get(&d, at, 2), 0);
	vdrv_set(&d, VC_SIZE, 2, 8);
	vdrv_set(&d, VC_ENABLE, 2, 1);
	vdrv_set(&d, VC_SELECT, 2, 0xffff);
	vdrv_set(&d, VC_DESC, 4, 0x1000);
	vdrv_set(&d, VC_RESET, 2, 1);
	vdrv_set(&d, VC_SELECT, 2, 0);
	assert_int_equal(vdrv_get(&d, VC_SIZE, 2), 64);
	assert_int_equal(vdrv_get(&d, VC_VECTOR, 2), 0xffff);
	assert_int_equal(vdrv_get(&d, VC_CONFIG_VECTOR, 2), 0xffff);
	assert_int_equal(vdrv_get(&d, VC_DESC, 4), 0);
	/* Vectors that it does not have (4.1.5.1.2). */
	vdrv_set(&d, VC_VECTOR, 2, 1);
	assert_int_equal(vdrv_get(&d, VC_VECTOR, 2), 1);
	vdrv_set(&d, VC_VECTOR, 2, 2);
	assert_int_equal(vdrv_get(&d, VC_VECTOR, 2), 0xffff);
	vdrv_set(&d, VC_CONFIG_VECTOR, 2, 0x1234);
	assert_int_equal(vdrv_get(&d, VC_CONFIG_VECTOR, 2), 0xffff);
	/* Sizes beyond what it offers, and none. */
	vdrv_set(&d, VC_SIZE, 2, 128);
	assert_int_equal(vdrv_get(&d, VC_SIZE, 2), 64);
	vdrv_set(&d, VC_SIZE, 2, 0);
	assert_int_equal(vdrv_get(&d, VC_SIZE, 2), 64);
	/* Before the features are agreed on no queue starts. */
	vdrv_queue(&d, 0, 8);
	assert_int_equal(vdrv_get(&d, VC_ENABLE, 2), 0);
	/* A split queue has a power of two (2.7). */
	assert_true(vdrv_negotiate(&d, VIRTIO_F_VERSION_1));
	vdrv_queue(&d, 0, 24);
	assert_true(vdrv_broken(&d));
	assert_true(vdrv_negotiate(&d, VIRTIO_F_VERSION_1 | VIRTIO_F_RING_PACKED));
	vdrv_queue(&d, 0, 24);
	assert_false(vdrv_broken(&d));
	assert_int_equal(vdrv_get(&d, VC_ENABLE, 2), 1);
	/* An enabled one keeps its place. */
	vdrv_set(&d, VC_DESC, 4, 0x5000);
	vdrv_set(&d, VC_SIZE, 2, 8);
	assert_int_equal(vdrv_get(&d, VC_DESC, 4), d.q[0].desc);
	assert_int_equal(vdrv_get(&d, VC_SIZE, 2), 24);
	assert_int_equal(vdrv_get(&d, VC_NOTIFY_OFF, 2), 0);
}

static uint32_t ask(unsigned n)
{
	uint64_t to = vdrv_alloc(&d, n);
	uint16_t id;
	uint32_t len;

	vdrv_add(&d, 0, &(struct vseg){ to, n, true }, 1);
	vdrv_kick(&d, 0);
	assert_true(vdrv_used(&d, 0, &id, &len));
	return len;
}

/* ---- Interrupts ---------------------------------------------------------- */

#define PIRQ	VDRV_SLOT	/* of INTA: 3 is D */

static void intx(void **state)
{
	vdrv_enable(&d, false);
	vdrv_start(&d, VIRTIO_F_VERSION_1, false, 8);
	ask(8);
	assert_int_equal(d.gsi[PIRQ], 1);
	assert_int_equal(vdrv_config_read(&d, PCI_STATUS, 2) & 8, 8);
	/* Reading it ends it, and tells why (4.1.4.5). */
	assert_int_equal(vdrv_get(&d, V_ISR, 1), 1);
	assert_int_equal(d.gsi[PIRQ], 0);
	assert_int_equal(vdrv_get(&d, V_ISR, 1), 0);
	virtio_config_changed(d.v);
	assert_int_equal(d.gsi[PIRQ], 1);
	ask(8);
	assert_int_equal(vdrv_get(&d, V_ISR, 1), 3);
	/* Disabled: the status bit still tells. */
	ask(8);
	vdrv_config_write(&d, PCI_COMMAND, 2, 0x406);
	assert_int_equal(d.gsi[PIRQ], 0);
	assert_int_equal(vdrv_config_read(&d, PCI_STATUS, 2) & 8, 8);
	vdrv_config_write(&d, PCI_COMMAND, 2, 6);
	assert_int_equal(d.gsi[PIRQ], 1);
	/* Messages take over, and back. */
	vdrv_config_write(&d, d.v->pci.msix + 2, 2, 0x8000);
	assert_int_equal(d.gsi[PIRQ], 0);
	vdrv_config_write(&d, d.v->pci.msix + 2, 2, 0);
	assert_int_equal(d.gsi[PIRQ], 1);
	vdrv_set(&d, VC_STATUS, 1, 0);
	assert_int_equal(d.gsi[PIRQ], 0);
	assert_int_equal(d.messages[0] + d.messages[1], 0);
}

/* To the 8259s as the LPC bridge routes it. */
static void routes(void **state)
{
	vdrv_enable(&d, false);
	vdrv_start(&d, VIRTIO_F_VERSION_1, false, 8);
	pci_config_write(d.pci, 0, PCI_DEVFN(31, 0), 0x60 + PIRQ, 1, 11);
	ask(8);
	assert_int_equal(d.isa[11], 1);
	assert_int_equal(d.gsi[PIRQ], 1);
	pci_config_write(d.pci, 0, PCI_DEVFN(31, 0), 0x60 + PIRQ, 1, 10);
	assert_int_equal(d.isa[11], 0);
	assert_int_equal(d.isa[10], 1);
	pci_config_write(d.pci, 0, PCI_DEVFN(31, 0), 0x60 + PIRQ, 1, 0x8a);
	assert_int_equal(d.isa[10], 0);
	for (unsigned irq = 0; irq < 16; irq++) {
		pci_config_write(d.pci, 0, PCI_DEVFN(31, 0), 0x60 + PIRQ, 1, irq);
		assert_int_equal(d.isa[irq], 0xdef8 >> irq & 1);
	}
	vdrv_get(&d, V_ISR, 1);
	assert_int_equal(d.isa[15], 0);
	/* Restored, nothing is raised: the controllers have their pins. */
	ask(8);
	assert_int_equal(d.isa[15], 1);
	memset(d.isa, 0, sizeof(d.isa));
	memset(d.gsi, 0, sizeof(d.gsi));
	vdrv_save_restore(&d);
	assert_int_equal(d.isa[15], 0);
	assert_int_equal(d.gsi[PIRQ], 0);
	d.isa[15] = d.gsi[PIRQ] = 1;
	vdrv_get(&d, V_ISR, 1);
	assert_int_equal(d.isa[15], 0);
	assert_int_equal(d.gsi[PIRQ], 0);
}

static uint32_t pba(void)
{
	return (uint32_t)bus_read(&d.vm->mmio, VDRV_MSIX + 0x800, 4);
}

static void mask(unsigned vector, bool on)
{
	bus_write(&d.vm->mmio, VDRV_MSIX + 16 * vector + 12, 4, on);
}

/* PCI 3.0, 6.8.2: masked messages are pending, and go out once when they may. */
static void msix(void **state)
{
	vdrv_start(&d, VIRTIO_F_VERSION_1, false, 8);
	ask(8);
	assert_int_equal(d.messages[1], 1);
	mask(1, true);
	ask(8);
	ask(8);
	assert_int_equal(pba(), 2);
	vdrv_save_restore(&d);
	assert_int_equal(pba(), 2);
	assert_int_equal(d.messages[1], 1);
	mask(1, false);
	assert_int_equal(pba(), 0);
	assert_int_equal(d.messages[1], 2);
	/* The function's mask. */
	vdrv_config_write(&d, d.v->pci.msix + 2, 2, 0xc000);
	virtio_config_changed(d.v);
	assert_int_equal(pba(), 1);
	vdrv_config_write(&d, d.v->pci.msix + 2, 2, 0x8000);
	assert_int_equal(d.messages[0], 1);
	/* Who may not master the bus sends no messages. */
	vdrv_config_write(&d, PCI_COMMAND, 2, PCI_COMMAND_MEMORY);
	virtio_config_changed(d.v);
	assert_int_equal(d.messages[0], 1);
	vdrv_config_write(&d, PCI_COMMAND, 2, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
	assert_int_equal(d.messages[0], 2);
	/* What the table holds reads back; what is behind it does not exist. */
	assert_int_equal(bus_read(&d.vm->mmio, VDRV_MSIX + 16, 4), VDRV_MSI_ADDRESS);
	assert_int_equal(bus_read(&d.vm->mmio, VDRV_MSIX + 16 + 8, 4), 1);
	bus_write(&d.vm->mmio, VDRV_MSIX + 32, 4, 0xffffffff);
	assert_int_equal(bus_read(&d.vm->mmio, VDRV_MSIX + 32, 4), 0);
	bus_write(&d.vm->mmio, VDRV_MSIX + 0x800, 4, 0xffffffff);
	assert_int_equal(pba(), 0);
	/* None for the queue: no interrupt. */
	vdrv_set(&d, VC_SELECT, 2, 0);
	vdrv_set(&d, VC_VECTOR, 2, 0xffff);
	ask(8);
	assert_int_equal(d.messages[1], 2);
}

/* ---- The window in configuration space (4.1.4.9) -------------------------- */

static void window(void **state)
{
	unsigned at = find_cap(9, 5);

	vdrv_config_write(&d, PCI_COMMAND, 2, 0);	/* it does not need the BAR to decode */
	vdrv_config_write(&d, at + 4, 1, 0);
	vdrv_config_write(&d, at + 12, 4, 2);
	vdrv_config_write(&d, at + 8, 4, VC_QUEUES);
	assert_int_equal(vdrv_config_read(&d, at + 16, 2), 1);
	vdrv_config_write(&d, at + 8, 4, VC_SELECT);
	vdrv_config_write(&d, at + 16, 4, 0x77);
	assert_int_equal(d.v->queue_select, 0x77);
	vdrv_config_write(&d, at + 12, 4, 1);
	vdrv_config_write(&d, at + 8, 4, VC_STATUS);
	vdrv_config_write(&d, at + 16, 1, 1);
	assert_int_equal(d.v->status, 1);
	vdrv_save_restore(&d);
	assert_int_equal(vdrv_config_read(&d, at + 16, 1), 1);
	/* What is no access of the BAR does nothing. */
	for (unsigned i = 0; i < 5; i++) {
		static const struct { uint8_t bar; uint32_t offset, length; } bad[] = {
			{ 2, 0, 4 }, { 0, 0x4000, 4 }, { 0, 0xfffffffc, 4 }, { 0, 20, 3 }, { 0, 21, 4 },
		};

		vdrv_config_write(&d, at + 4, 1, bad[i].bar);
		vdrv_config_write(&d, at + 8, 4, bad[i].offset);
		vdrv_config_write(&d, at + 12, 4, bad[i].length);
		vdrv_config_write(&d, at + 16, 4, 0);
		assert_int_equal(vdrv_config_read(&d, at + 16, 4), 0);
		assert_int_equal(d.v->status, 1);
	}
}

/* ---- One state after any reset ------------------------------------------- */

static void encode(struct state_buf *b)
{
	struct device *dev = &d.v->pci.dev;
	struct skep_error e = { .text = "" };
	void *m = calloc(1, dev->type->state->model_size);

	dev->type->export(dev, m);
	assert_int_equal(state_encode(dev->type->state, dev->name, m, 1, b, &e), 0);
	state_free(dev->type->state, m);
	free(m);
}

static void same_as(const struct state_buf *want)
{
	struct state_buf b = { 0 };

	encode(&b);
	assert_int_equal(b.len, want->len);
	assert_memory_equal(b.data, want->data, b.len);
	state_buf_free(&b);
}

static void scramble(uint64_t *x, unsigned n)
{
	while (n--) {
		*x ^= *x << 13;
		*x ^= *x >> 7;
		*x ^= *x << 17;
		if (*x & 1)
			vdrv_config_write(&d, *x >> 8 & 0xff, 1u << (*x >> 4) % 3, *x >> 20);
		else if (*x & 2)
			vdrv_set(&d, *x >> 8 & 0x3f, 1u << (*x >> 4) % 4, *x >> 20);
		else if (*x & 4)
			vdrv_set(&d, *x >> 8 & 0x3fff, 1u << (*x >> 4) % 4, *x >> 20);
		else
			bus_write(&d.vm->mmio, VDRV_MSIX + (*x >> 8 & 0x3f), 4, *x >> 20);
	}
}

/* However it is reset: by the board or as a function, from whatever state. */
static void resets_are_one(void **state)
{
	struct device *dev = &d.v->pci.dev;
	struct state_buf first = { 0 };
	uint64_t x = 0x123456789abcdefull;

	dev->type->reset(dev);
	encode(&first);
	for (unsigned i = 0; i < 400; i++) {
		vdrv_enable(&d, i & 1);
		if (i % 3 == 0)
			vdrv_start(&d, 0, i & 4, 8);
		d.heap = VDRV_HEAP;
		scramble(&x, 60);
		if (i & 8)
			dev->type->reset(dev);
		else
			vdrv_config_write(&d, d.v->pci.express + 8, 2, 0x8000);
		assert_int_equal(d.gsi[PIRQ], 0);
		same_as(&first);
	}
	/* The status register resets the device, and leaves the function alone. */
	vdrv_enable(&d, true);
	vdrv_start(&d, 0, false, 8);
	vdrv_set(&d, VC_STATUS, 1, 0);
	assert_int_equal(vdrv_config_read(&d, PCI_COMMAND, 2), 6);
	assert_true(pci_msix_enabled(&d.v->pci));
	state_buf_free(&first);
}

/* From any state that a guest brings it to. */
static void anything_is_saved(void **state)
{
	uint64_t x = 0x98765432123456ull;

	for (unsigned i = 0; i < 300; i++) {
		vdrv_enable(&d, i & 1);
		if (i % 3 == 0)
			vdrv_start(&d, 0, i & 4, 8);
		d.heap = VDRV_HEAP;
		scramble(&x, 40);
		vdrv_save_restore(&d);
	}
}

static void never_started(void **state)
{
	vdrv_save_restore(&d);
	assert_true(vdrv_negotiate(&d, VIRTIO_F_VERSION_1));
	vdrv_save_restore(&d);
	assert_int_equal(vdrv_get(&d, VC_STATUS, 1), 0x0b);
	vdrv_queue(&d, 0, 8);
	vdrv_save_restore(&d);
	vdrv_set(&d, VC_STATUS, 1, 0x0f);
	assert_int_equal(ask(16), 16);
}

/* What a file says is checked: each of these is refused by name, and nothing has changed. */
static void refusals(void **state)
{
	struct device *dev = &d.v->pci.dev;

	vdrv_start(&d, 0, false, 8);
	for (unsigned i = 0; ; i++) {
		struct virtio_model *m = calloc(1, dev->type->state->model_size);
		struct virtio_queue_model *q;
		struct pci_vector *v;
		struct skep_error e = { .text = "" };
		bool last = false;

		dev->type->export(dev, m);
		q = m->queues.items;
		v = m->pci.msix.items;
		switch (i) {
		case 0: m->features ^= BIT(5); break;
		case 1: m->negotiated |= BIT(5); break;
		case 2: m->negotiated &= ~VIRTIO_F_VERSION_1; break;
		case 3: m->status |= 0x10; break;
		case 4: m->status &= ~VIRTIO_FEATURES_OK; break;
		case 5: m->isr = 4; break;
		case 6: m->config_vector = 2; break;
		case 7: m->queues.count = 0; break;
		case 8: q->size = 0; break;
		case 9: q->size = 65; break;
		case 10: q->size = 24; break;
		case 11: q->vector = 2; break;
		case 12: q->desc = 0xa0000; break;
		case 13: q->driver = UINT64_MAX - 1; break;
		case 14: q->device = TEST_RAM - 4; break;
		case 15: q->desc |= 8; break;
		case 16: q->enabled = false; q->next = 1; break;
		case 17: m->pci.msix.count = 1; break;
		case 18: v[0].address |= 1; break;
		case 19: m->pci.command = 0x8000; break;
		case 20: m->pci.bar[0] |= 0x10; break;
		case 21: m->pci.bar[3] = 0x1000; break;
		case 22: m->pci.msix_control = 1; break;
		case 23: m->pci.msi_control = 1; break;
		case 24: m->pci.device_control = 0x8000; break;
		case 25: m->negotiated |= VIRTIO_F_RING_PACKED; q->next = 8; break;
		default: last = true; break;
		}
		if (last)
			assert_int_equal(dev->type->validate(dev, m, &e), 0);
		else if (!dev->type->validate(dev, m, &e))
			fail_msg("case %u was taken", i);
		else
			assert_non_null(strstr(e.text, "pci.0.3.0"));
		state_free(dev->type->state, m);
		free(m);
		if (last)
			break;
	}
	assert_int_equal(ask(8), 8);
}

/* ---- virtio-rnd ---------------------------------------------------------- */

static void entropy(void **state)
{
	uint8_t a[64], b[64];
	uint64_t to;

	vdrv_start(&d, 0, true, 8);
	assert_int_equal(ask(64), 64);
	to = d.heap - 4096;
	vdrv_take(&d, to, a, 64);
	assert_int_equal(ask(64), 64);
	vdrv_take(&d, d.heap - 4096, b, 64);
	assert_memory_not_equal(a, b, 64);
	assert_int_equal(ask(7), 7);
	assert_int_equal(ask(1), 1);
	/* Fewer than were asked for (5.4.6.2), but at least one. */
	assert_int_equal(ask(3 * 1024 * 1024), 4096);
	/* A seeded machine repeats itself. */
	vdrv_end(&d);
	rnd(NULL);
	vdrv_start(&d, 0, true, 8);
	ask(64);
	vdrv_take(&d, d.heap - 4096, b, 64);
	assert_memory_equal(a, b, 64);
}

/* ---- virtio-balloon ------------------------------------------------------ */

static void fill(uint64_t gpa, size_t len)
{
	static uint8_t page[4096];

	memset(page, 0xaa, sizeof(page));
	for (size_t i = 0; i < len; i += 4096)
		vdrv_put(&d, gpa + i, page, 4096);
}

static bool is_zero(uint64_t gpa, size_t len)
{
	uint8_t page[4096];

	for (size_t i = 0; i < len; i += 4096) {
		vdrv_take(&d, gpa + i, page, 4096);
		for (unsigned n = 0; n < 4096; n++)
			if (page[n])
				return false;
	}
	return true;
}

/* What was given away reads as zero, and goes into no save until it is written. */
static void inflate_and_deflate(void **state)
{
	uint32_t pfn[] = { 0x800, 0x801, 0x802, 0x900, 0x902, 0xa0, 0xffffffff, 0x1000, 0x803 };
	uint64_t list, touched;
	uint16_t id;
	uint32_t len;

	vdrv_start(&d, 0, false, 8);
	assert_int_equal(vdrv_get(&d, V_CONFIG, 4), 1024);
	fill(0x800000, 0x110000);
	list = vdrv_alloc(&d, sizeof(pfn));
	vdrv_put(&d, list, pfn, sizeof(pfn));
	touched = memory_touched(&d.vm->memory);
	vdrv_add(&d, 0, &(struct vseg){ list, sizeof(pfn), false }, 1);
	vdrv_kick(&d, 0);
	assert_true(vdrv_used(&d, 0, &id, &len));
	assert_false(vdrv_broken(&d));
	assert_true(is_zero(0x800000, 0x4000));
	assert_true(is_zero(0x900000, 0x1000));
	assert_false(is_zero(0x901000, 0x1000));
	assert_true(is_zero(0x902000, 0x1000));
	assert_false(is_zero(0x804000, 0x1000));
	assert_int_equal(memory_touched(&d.vm->memory), touched - 6 * 4096);
	fill(0x800000, 4096);
	assert_int_equal(memory_touched(&d.vm->memory), touched - 5 * 4096);
	vdrv_set(&d, V_CONFIG + 4, 4, 6);
	vdrv_set(&d, V_CONFIG, 4, 77);		/* not the driver's */
	vdrv_save_restore(&d);
	assert_int_equal(vdrv_get(&d, V_CONFIG, 4), 1024);
	assert_int_equal(vdrv_get(&d, V_CONFIG + 4, 4), 6);
	vdrv_add(&d, 1, &(struct vseg){ list, sizeof(pfn), false }, 1);
	vdrv_kick(&d, 1);
	assert_true(vdrv_used(&d, 1, &id, &len));
}

static void reporting(void **state)
{
	uint64_t touched;
	uint16_t id;
	uint32_t len;
	struct vseg s[] = { { 0x800000, 0x200000, true }, { 0xc00800, 0x1800, true } };

	for (unsigned poisoned = 0; poisoned < 2; poisoned++) {
		vdrv_start(&d, 0, true, 8);
		vdrv_set(&d, V_CONFIG + 12, 4, poisoned);
		fill(0x800000, 0x200000);
		fill(0xc00000, 0x2000);
		touched = memory_touched(&d.vm->memory);
		vdrv_add(&d, 2, s, 2);
		vdrv_kick(&d, 2);
		assert_true(vdrv_used(&d, 2, &id, &len));
		assert_int_equal(is_zero(0x800000, 0x200000), !poisoned);
		/* Of what is no whole page only the whole ones. */
		assert_false(is_zero(0xc00000, 0x1000));
		assert_int_equal(is_zero(0xc01000, 0x1000), !poisoned);
		assert_int_equal(memory_touched(&d.vm->memory), touched - (poisoned ? 0 : 0x201000));
	}
}

/* Each of many pages by itself: others get the device lock in between. */
static void many_to_inflate(void **state)
{
	static uint32_t pfn[65536];
	uint64_t list;
	uint16_t id;
	uint32_t len;
	unsigned n = 0;

	vdrv_start(&d, 0, false, 8);
	for (unsigned i = 0; i < ARRAY_SIZE(pfn); i++)
		pfn[i] = 0x800 + 2 * (i % 64);
	list = vdrv_alloc(&d, sizeof(pfn));
	vdrv_put(&d, list, pfn, sizeof(pfn));
	for (unsigned i = 0; i < 4; i++)
		vdrv_add(&d, 0, &(struct vseg){ list, sizeof(pfn), false }, 1);
	clock_init(&d.vm->clock, CLOCK_MODE_REALTIME);
	vdrv_kick(&d, 0);
	while (vdrv_used(&d, 0, &id, &len))
		n++;
	assert_in_range(n, 1, 2);
	for (unsigned i = 0; i < 8; i++) {
		device_unlock(d.vm);
		loop_wake(d.vm);
		loop_iterate(d.vm);
		device_lock(d.vm);
	}
	while (vdrv_used(&d, 0, &id, &len))
		n++;
	assert_int_equal(n, 4);
}

/* What is wrong is given back: else nobody could save the machine until its guest resets the device. */
static void too_much_to_inflate(void **state)
{
	vdrv_start(&d, 0, false, 8);
	vdrv_add(&d, 0, &(struct vseg){ 0x800000, 0x200000, false }, 1);
	vdrv_kick(&d, 0);
	assert_true(vdrv_broken(&d));
	vdrv_save_restore(&d);
	assert_true(vdrv_broken(&d));
}

int main(void)
{
#define R(f) cmocka_unit_test_setup_teardown(f, rnd, end)
#define B(f) cmocka_unit_test_setup_teardown(f, balloon, end)
	const struct CMUnitTest tests[] = {
		R(capabilities), R(features), R(queues), R(intx), R(routes), R(msix), R(window),
		R(resets_are_one), B(resets_are_one), R(anything_is_saved), B(anything_is_saved),
		R(never_started), R(refusals), R(entropy), B(inflate_and_deflate), B(reporting),
		B(too_much_to_inflate), B(many_to_inflate),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
