/* Endpoints of PCI: BARs, capabilities, MSI, shared INTx, function-level reset (PCI 3.0, PCIe 3.0). */
#include "vm_helper.h"

#include <string.h>

#include "pci/pci.h"

struct thing {
	struct pci_device pci;
	uint64_t last_offset, last_value;
};

static struct vm *vm;
static struct pci_bus *pci;
static int gsi_level[PCI_PIRQS], isa_level[16];
static struct { uint64_t address; uint32_t data; unsigned n; } message;

static uint64_t thing_read(void *opaque, uint64_t offset, unsigned size)
{
	return container_of((struct pci_device *)opaque, struct thing, pci)->pci.devfn << 16 | offset;
}

static void thing_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
	struct thing *t = container_of((struct pci_device *)opaque, struct thing, pci);

	t->last_offset = offset;
	t->last_value = value;
}

static const struct bus_ops thing_ops = { .read = thing_read, .write = thing_write };

static int thing_init(struct device *d, struct skep_error *e)
{
	struct pci_device *p = container_of(d, struct pci_device, dev);

	pci_init_endpoint(p);
	pci_add_bar(p, 0, 0x1000, PCI_BAR_MEM32, &thing_ops, p);
	pci_add_bar(p, 1, 0x20, PCI_BAR_IO, &thing_ops, p);
	pci_add_bar(p, 2, 0x100000000, PCI_BAR_MEM64 | PCI_BAR_PREFETCH, &thing_ops, p);
	pci_add_msi(p, 4);
	return pci_add_msix(p, 4, 5, e);
}

static void thing_finish(struct device *d)
{
	pci_finish_endpoint(container_of(d, struct pci_device, dev));
}

static void thing_reset(struct device *d)
{
	pci_reset_endpoint(container_of(d, struct pci_device, dev));
}

static void thing_written(struct pci_device *p, unsigned offset, unsigned size)
{
}

static const struct config_schema no_keys;
static const struct pci_device_type thing_type = {
	.device = {
		.name = "thing", .help = "a test's", .config = &no_keys, .state = &STATE_NONE,
		.size = sizeof(struct thing), .init = thing_init, .finish = thing_finish,
		.reset = thing_reset, .quiesce = device_nop, .resume = device_nop,
		.export = device_export_nothing, .validate = device_validate_nothing,
		.commit = device_commit_nothing,
	},
	.vendor_id = 0x1234, .device_id = 0x5678, .class_code = 0x088000,
	.config_written = thing_written,
};

static void set_wire(void *opaque, int n, int level) { ((int *)opaque)[n] = level; }

static void take_message(struct vm *m, uint64_t address, uint32_t data)
{
	message.address = address;
	message.data = data;
	message.n++;
}

static struct thing *put(unsigned slot, unsigned fn)
{
	struct skep_error e = { .text = "" };
	char name[32];
	struct device *d;

	snprintf(name, sizeof(name), "pci.0.%u.%u", slot, fn);
	d = device_create(vm, &thing_type.device, name, NULL, &e);
	assert_non_null(d);
	assert_int_equal(pci_attach(pci, container_of(d, struct pci_device, dev), PCI_DEVFN(slot, fn), &e), 0);
	d->type->reset(d);
	return container_of(container_of(d, struct pci_device, dev), struct thing, pci);
}

static int setup(void **state)
{
	struct irq_line gsi[PCI_PIRQS], isa[16];
	struct skep_error e = { .text = "" };

	vm = test_vm(CLOCK_MODE_VIRTUAL);
	pci = pci_create(vm, &e);
	assert_non_null(pci);
	memset(gsi_level, 0, sizeof(gsi_level));
	memset(isa_level, 0, sizeof(isa_level));
	memset(&message, 0, sizeof(message));
	for (int i = 0; i < 16; i++)
		isa[i] = (struct irq_line){ set_wire, isa_level, i };
	for (int i = 0; i < (int)PCI_PIRQS; i++)
		gsi[i] = (struct irq_line){ set_wire, gsi_level, i };
	pci_connect_interrupts(pci, gsi, isa, take_message);
	for (struct device *d = vm->devices; d; d = d->next)
		d->type->reset(d);
	return 0;
}

static int teardown(void **state)
{
	test_vm_free(vm);
	return 0;
}

static void wr(unsigned slot, unsigned reg, unsigned size, uint32_t v)
{
	pci_config_write(pci, 0, PCI_DEVFN(slot, 0), reg, size, v);
}

static uint32_t rd(unsigned slot, unsigned reg, unsigned size)
{
	return pci_config_read(pci, 0, PCI_DEVFN(slot, 0), reg, size);
}

static uint64_t at(uint64_t gpa) { return bus_read(&vm->mmio, gpa, 4); }
#define NOBODY 0xffffffffu

/* PCI 3.0, 6.2.5.1: all ones are written, the size is read. */
static void sizing(void **state)
{
	put(3, 0);
	for (unsigned n = 0; n < 6; n++)
		wr(3, PCI_BAR0 + 4 * n, 4, 0xffffffff);
	assert_int_equal(rd(3, 0x10, 4), 0xfffff000);
	assert_int_equal(rd(3, 0x14, 4), 0xffffffe1);
	assert_int_equal(rd(3, 0x18, 4), 0x0000000c);
	assert_int_equal(rd(3, 0x1c, 4), 0xffffffff);
	assert_int_equal(rd(3, 0x20, 4), 0xfffff000);
	assert_int_equal(rd(3, 0x24, 4), 0);
	/* A byte at a time, too. */
	wr(3, 0x11, 1, 0x12);
	assert_int_equal(rd(3, 0x10, 4), 0xffff1000);
	wr(3, 0x30, 4, 0xffffffff);	/* no ROM */
	assert_int_equal(rd(3, 0x30, 4), 0);
}

static void decoding(void **state)
{
	put(3, 0);
	wr(3, 0x10, 4, 0xc0000000);
	wr(3, 0x14, 4, 0x4000);
	wr(3, 0x18, 4, 0);
	wr(3, 0x1c, 4, 0x10);
	assert_int_equal(at(0xc0000004), NOBODY);
	wr(3, PCI_COMMAND, 2, PCI_COMMAND_MEMORY);
	assert_int_equal(at(0xc0000004), 3 << 19 | 4);
	assert_int_equal(at(0xc0000ffc), 3 << 19 | 0xffc);
	assert_int_equal(at(0xc0001000), NOBODY);
	assert_int_equal(at(0x1000000008), 3 << 19 | 8);
	assert_int_equal(bus_read(&vm->ports, 0x4004, 4), NOBODY);
	wr(3, PCI_COMMAND, 2, PCI_COMMAND_IO);
	assert_int_equal(at(0xc0000004), NOBODY);
	assert_int_equal(bus_read(&vm->ports, 0x4004, 4), 3 << 19 | 4);
	/* Moved while it decodes. */
	wr(3, PCI_COMMAND, 2, PCI_COMMAND_MEMORY);
	wr(3, 0x10, 4, 0xd0000000);
	assert_int_equal(at(0xc0000004), NOBODY);
	assert_int_equal(at(0xd0000004), 3 << 19 | 4);
	/* At 0, and beyond the end of the bus, nothing decodes. */
	wr(3, 0x10, 4, 0);
	wr(3, 0x1c, 4, 0xffffffff);
	assert_int_equal(at(0xd0000004), NOBODY);
	assert_int_equal(at(4), NOBODY);
}

/* What lies over each other is told apart by place, whatever the order in which it came. */
static void overlaps(void **state)
{
	static const uint64_t io_apic = 0xfec00000;
	struct skep_error e;

	put(4, 0);
	put(3, 0);
	wr(4, PCI_COMMAND, 2, PCI_COMMAND_MEMORY);
	wr(3, PCI_COMMAND, 2, PCI_COMMAND_MEMORY);
	for (unsigned first = 3; first <= 4; first++) {
		wr(first, 0x10, 4, 0xc0000000);
		wr(7 - first, 0x10, 4, 0xc0000000);
		assert_int_equal(at(0xc0000000), 3 << 19);
		wr(3, 0x10, 4, 0xc8000000);
		assert_int_equal(at(0xc0000000), 4 << 19);
		assert_int_equal(at(0xc8000000), 3 << 19);
		wr(3, 0x10, 4, 0);
		wr(4, 0x10, 4, 0);
	}
	/* The board's own ranges come before, and ECAM. */
	assert_int_equal(bus_map(&vm->mmio, io_apic, 4096, &thing_ops, pci_find(pci, 0), "board", &e), 0);
	wr(3, 0x10, 4, io_apic);
	assert_int_equal(at(io_apic), 0);
	bus_unmap(&vm->mmio, io_apic);
	wr(3, 0x10, 4, 0xb0000000);
	assert_int_equal(at(0xb0000000), 3 << 19);
	pci_config_write(pci, 0, 0, 0x60, 4, 0xb0000001);
	assert_int_equal(at(0xb0000000), 0x29c08086);
	pci_config_write(pci, 0, 0, 0x60, 4, 0xd0000001);
	assert_int_equal(at(0xb0000000), 3 << 19);
}

static void capability_list(void **state)
{
	static const uint8_t want[] = { 0x10, 0x05, 0x11 };
	unsigned cap, n = 0;

	put(3, 0);
	assert_true(rd(3, PCI_STATUS, 2) & PCI_STATUS_CAPS);
	for (cap = rd(3, PCI_CAPABILITIES, 1); cap; cap = rd(3, cap + 1, 1)) {
		assert_true(n < 3);
		assert_int_equal(rd(3, cap, 1), want[n++]);
	}
	assert_int_equal(n, 3);
	/* PCI Express Base 3.0, 7.8.2: version 2, root complex integrated endpoint; FLR. */
	cap = rd(3, PCI_CAPABILITIES, 1);
	assert_int_equal(rd(3, cap + 2, 2), 0x92);
	assert_true(rd(3, cap + 4, 4) & 1u << 28);
	assert_int_equal(rd(3, 0x100, 4), 0);
}

static void msi(void **state)
{
	struct pci_device *p = &put(3, 0)->pci;
	unsigned cap = p->msi;

	assert_int_equal(rd(3, cap + 2, 2), 0x0184);	/* 64 bits, masks, 4 vectors */
	pci_message(p, 1);
	assert_int_equal(message.n, 0);
	wr(3, PCI_COMMAND, 2, PCI_COMMAND_MASTER);
	wr(3, cap + 4, 4, 0xfee01003);
	wr(3, cap + 8, 4, 0);
	wr(3, cap + 12, 2, 0x4043);
	wr(3, cap + 2, 2, 0x0011);	/* enabled, two of the vectors given */
	pci_message(p, 1);
	assert_int_equal(message.n, 1);
	assert_int_equal(message.address, 0xfee01000);
	assert_int_equal(message.data, 0x4043);
	pci_message(p, 2);
	assert_int_equal(message.data, 0x4042);
	wr(3, cap + 16, 4, 0xffffffff);
	assert_int_equal(rd(3, cap + 16, 4), 0xf);
	pci_message(p, 0);
	pci_message(p, 0);
	assert_int_equal(message.n, 2);
	assert_int_equal(rd(3, cap + 20, 4), 1);
	wr(3, cap + 16, 4, 0);
	assert_int_equal(message.n, 3);
	assert_int_equal(rd(3, cap + 20, 4), 0);
	/* A message and the line exclude each other. */
	pci_set_intx(p, true);
	assert_int_equal(gsi_level[3], 0);
	wr(3, cap + 2, 2, 0);
	assert_int_equal(gsi_level[3], 1);
}

/* Functions and slots eight apart share a line: it is asserted as long as one of them does. */
static void shared_line(void **state)
{
	struct thing *t[] = { put(3, 0), put(3, 1), put(11, 0), put(4, 0) };

	pci_set_intx(&t[0]->pci, true);
	pci_set_intx(&t[2]->pci, true);
	pci_set_intx(&t[0]->pci, false);
	assert_int_equal(gsi_level[3], 1);
	pci_set_intx(&t[1]->pci, true);
	pci_set_intx(&t[1]->pci, true);
	pci_set_intx(&t[2]->pci, false);
	assert_int_equal(gsi_level[3], 1);
	pci_set_intx(&t[1]->pci, false);
	assert_int_equal(gsi_level[3], 0);
	pci_set_intx(&t[3]->pci, true);
	assert_int_equal(gsi_level[3], 0);
	assert_int_equal(gsi_level[4], 1);
	/* Two lines on one interrupt of the 8259s. */
	pci_config_write(pci, 0, PCI_DEVFN(31, 0), 0x63, 1, 10);
	pci_config_write(pci, 0, PCI_DEVFN(31, 0), 0x68, 1, 10);
	assert_int_equal(isa_level[10], 1);
	pci_set_intx(&t[0]->pci, true);
	pci_set_intx(&t[3]->pci, false);
	assert_int_equal(isa_level[10], 1);
	pci_set_intx(&t[0]->pci, false);
	assert_int_equal(isa_level[10], 0);
}

/* PCI Express Base 3.0, 6.6.2. */
static void function_reset(void **state)
{
	struct pci_device *p = &put(3, 0)->pci;
	uint8_t before[PCI_CONFIG_SIZE];

	memcpy(before, p->config, sizeof(before));
	wr(3, PCI_COMMAND, 2, 0xffff);
	for (unsigned n = 0; n < 6; n++)
		wr(3, PCI_BAR0 + 4 * n, 4, 0xc0000000 + 0x10000 * n);
	wr(3, PCI_INTERRUPT_LINE, 1, 11);
	wr(3, PCI_CACHE_LINE, 1, 16);
	wr(3, p->msix + 2, 2, 0xc000);
	wr(3, p->msi + 12, 2, 0x1234);
	pci_set_intx(p, true);
	wr(3, p->express + 8, 2, 0xffff);
	assert_memory_equal(before, p->config, sizeof(before));
	assert_int_equal(at(0xc0000000), NOBODY);
	assert_int_equal(gsi_level[3], 0);
}

static void functions(void **state)
{
	struct skep_error e = { .text = "" };
	struct thing *t = put(3, 0);

	assert_true(pci_attach(pci, &t->pci, PCI_DEVFN(3, 0), &e) < 0);
	assert_non_null(strstr(e.text, "taken"));
	put(3, 7);
	assert_int_equal(pci_config_read(pci, 0, PCI_DEVFN(3, 7), 0, 4), 0x56781234);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(sizing), T(decoding), T(overlaps), T(capability_list), T(msi), T(shared_line),
		T(function_reset), T(functions),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
