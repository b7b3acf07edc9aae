/* Configuration space as a guest drives it: ports, ECAM, the board's two bridges. */
#include "vm_helper.h"

#include <string.h>

#include "chipset/chipset.h"
#include "pci/pci.h"

#define CF8(dev, reg)	(0x80000000u | (dev) << 11 | ((reg) & 0xfc))

static struct vm *vm;
static struct pci_bus *pci;
static struct { uint16_t base; bool enabled; unsigned calls; } pm;
static uint8_t reset_register;

static void pm_set_base(void *opaque, uint16_t base, bool enabled)
{
	pm.base = base;
	pm.enabled = enabled;
	pm.calls++;
}

static uint64_t reset_read(void *opaque, uint64_t offset, unsigned size) { return reset_register; }
static void reset_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
	reset_register = value;
}
static const struct bus_ops reset_ops = { .read = reset_read, .write = reset_write };

static int setup(void **state)
{
	struct skep_error e = { .text = "" };

	vm = test_vm(CLOCK_MODE_VIRTUAL);
	pci = pci_create(vm, &e);
	if (!pci)
		fail_msg("%s", e.text);
	lpc_connect_pm(pci_find(pci, PCI_DEVFN(31, 0)), pm_set_base, NULL);
	for (struct device *d = vm->devices; d; d = d->next)
		d->type->reset(d);
	return 0;
}

static int teardown(void **state)
{
	test_vm_free(vm);
	return 0;
}

static uint64_t in(uint16_t port, unsigned size) { return bus_read(&vm->ports, port, size); }
static void out(uint16_t port, unsigned size, uint64_t v) { bus_write(&vm->ports, port, size, v); }

static uint32_t cfg_read(unsigned dev, unsigned reg, unsigned size)
{
	out(0xcf8, 4, CF8(dev, reg));
	return in(0xcfc + (reg & 3), size);
}

static void cfg_write(unsigned dev, unsigned reg, unsigned size, uint32_t v)
{
	out(0xcf8, 4, CF8(dev, reg));
	out(0xcfc + (reg & 3), size, v);
}

static void names_and_ids(void **state)
{
	assert_ptr_equal(pci_of(vm), pci);
	assert_string_equal(pci_find(pci, 0)->dev.name, "pci.0.0.0");
	assert_string_equal(pci_find(pci, PCI_DEVFN(31, 0))->dev.name, "pci.0.31.0");
	assert_int_equal(cfg_read(0, 0, 4), 0x29c08086);
	assert_int_equal(cfg_read(31, 0, 4), 0x29188086);
	assert_int_equal(cfg_read(0, 8, 4) >> 8, 0x060000);
	assert_int_equal(cfg_read(31, 8, 4) >> 8, 0x060100);
	assert_int_equal(cfg_read(0, 0x0e, 1), 0x00);
	assert_int_equal(cfg_read(31, 0x0e, 1), 0x80);
}

static void every_width(void **state)
{
	for (unsigned i = 0; i < 4; i++)
		assert_int_equal(cfg_read(0, i, 1), 0x29c08086u >> 8 * i & 0xff);
	assert_int_equal(cfg_read(0, 0, 2), 0x8086);
	assert_int_equal(cfg_read(0, 1, 2), 0xc080);
	assert_int_equal(cfg_read(0, 2, 2), 0x29c0);
}

static void address_register(void **state)
{
	out(0xcf8, 4, 0xffffffff);
	assert_int_equal(in(0xcf8, 4), 0x80fffffc);
	/* Narrower writes do not reach it. */
	out(0xcf8, 2, 0);
	out(0xcfa, 1, 0);
	assert_int_equal(in(0xcf8, 4), 0x80fffffc);
	/* Not enabled: nothing answers, nothing is written. */
	out(0xcf8, 4, CF8(31, 0x60) & 0x7fffffff);
	assert_int_equal(in(0xcfc, 4), 0xffffffff);
	out(0xcfc, 4, 0);
	assert_int_equal(cfg_read(31, 0x60, 1), 0x80);
}

static void reset_control_lies_within(void **state)
{
	out(0xcf8, 4, CF8(31, 0));
	pci_connect_reset_control(pci, &reset_ops, NULL);
	out(0xcf9, 1, 0x42);
	assert_int_equal(reset_register, 0x42);
	assert_int_equal(in(0xcf9, 1), 0x42);
	assert_int_equal(in(0xcf8, 4), CF8(31, 0));
	/* A dword write of the address is not a reset. */
	reset_register = 0;
	out(0xcf8, 4, 0x80000600);
	assert_int_equal(reset_register, 0);
}

static void absent_devices(void **state)
{
	for (unsigned dev = 1; dev < 31; dev++)
		assert_int_equal(cfg_read(dev, 0, 4), 0xffffffff);
	for (unsigned fn = 1; fn < 8; fn++) {
		out(0xcf8, 4, CF8(31, 0) | fn << 8);
		assert_int_equal(in(0xcfc, 4), 0xffffffff);
	}
	out(0xcf8, 4, CF8(0, 0) | 1 << 16);
	assert_int_equal(in(0xcfc, 4), 0xffffffff);
	assert_int_equal(in(0xcfc, 1), 0xff);
	out(0xcfc, 4, 0);
}

static void masks_hold(void **state)
{
	for (unsigned dev = 0; dev < 32; dev += 31) {
		uint32_t id = cfg_read(dev, 0, 4), class = cfg_read(dev, 8, 4);
		uint32_t subsys = cfg_read(dev, 0x2c, 4);

		for (unsigned value = 0; value < 2; value++) {
			for (unsigned reg = 0; reg < 256; reg += 4)
				if (dev || reg < 0x60 || reg > 0x96)
					cfg_write(dev, reg, 4, value ? 0xffffffff : 0);
			assert_int_equal(cfg_read(dev, 0, 4), id);
			assert_int_equal(cfg_read(dev, 8, 4), class);
			assert_int_equal(cfg_read(dev, 0x2c, 4), subsys);
			for (unsigned bar = 0x10; bar < 0x28; bar += 4)
				assert_int_equal(cfg_read(dev, bar, 4), 0);
		}
	}
}

static void ecam_follows_its_register(void **state)
{
	assert_int_equal(bus_read(&vm->mmio, 0xe0000000, 4), 0xffffffff);
	cfg_write(0, 0x60, 4, 0xb0000001);
	assert_int_equal(bus_read(&vm->mmio, 0xb0000000, 4), 0x29c08086);
	assert_int_equal(bus_read(&vm->mmio, 0xb0000000 + (31 << 15), 4), 0x29188086);
	assert_int_equal(bus_read(&vm->mmio, 0xb0000002, 2), 0x29c0);
	assert_int_equal(bus_read(&vm->mmio, 0xb0000000 + (31 << 15) + 0x100, 4), 0);
	assert_int_equal(bus_read(&vm->mmio, 0xb0100000, 4), 0xffffffff);
	assert_int_equal(bus_read(&vm->mmio, 0xbffffffc, 4), 0xffffffff);
	/* Written through itself, it moves from under the access. */
	bus_write(&vm->mmio, 0xb0000060, 4, 0xc0000001);
	assert_int_equal(bus_read(&vm->mmio, 0xb0000000, 4), 0xffffffff);
	assert_int_equal(bus_read(&vm->mmio, 0xc0000000, 4), 0x29c08086);
	/* Above 4 GiB. */
	cfg_write(0, 0x60, 4, 0);
	cfg_write(0, 0x64, 4, 0xffffffff);
	cfg_write(0, 0x60, 4, 1);
	assert_int_equal(cfg_read(0, 0x64, 4), 0xf);
	assert_int_equal(bus_read(&vm->mmio, 0xf00000000, 4), 0x29c08086);
	cfg_write(0, 0x60, 4, 0);
	assert_int_equal(bus_read(&vm->mmio, 0xf00000000, 4), 0xffffffff);
}

static void ecam_lengths(void **state)
{
	static const struct { uint32_t reg; uint64_t base, size; } t[] = {
		{ 0xdc000001, 0xd0000000, 256 * MiB },	/* bits below the length do not count */
		{ 0xdc000003, 0xd8000000, 128 * MiB },
		{ 0xdc000005, 0xdc000000, 64 * MiB },
	};

	for (unsigned i = 0; i < ARRAY_SIZE(t); i++) {
		cfg_write(0, 0x60, 4, t[i].reg);
		assert_int_equal(bus_read(&vm->mmio, t[i].base, 4), 0x29c08086);
		assert_int_equal(bus_read(&vm->mmio, t[i].base - 4096, 4), 0xffffffff);
	}
	cfg_write(0, 0x60, 4, 0xd0000007);	/* reserved length */
	assert_int_equal(bus_read(&vm->mmio, 0xd0000000, 4), 0xffffffff);
}

static void ecam_over_another_device(void **state)
{
	struct skep_error e;

	assert_int_equal(bus_map(&vm->mmio, IOAPIC_BASE, 4096, &reset_ops, NULL, "other", &e), 0);
	reset_register = 0x17;
	cfg_write(0, 0x60, 4, 0xf0000001);
	assert_int_equal(bus_read(&vm->mmio, IOAPIC_BASE, 4) & 0xff, 0x17);
	cfg_write(0, 0x60, 4, 0xb0000001);
	assert_int_equal(bus_read(&vm->mmio, 0xb0000000, 4), 0x29c08086);
	bus_unmap(&vm->mmio, IOAPIC_BASE);
}

static void pam_registers(void **state)
{
	for (unsigned i = 0; i < 16; i++)
		assert_int_equal(vm->memory.pam[i], 0);
	cfg_write(0, 0x90, 1, 0xff);
	assert_int_equal(cfg_read(0, 0x90, 1), 0x30);
	for (unsigned i = 12; i < 16; i++)
		assert_int_equal(vm->memory.pam[i], PAM_READ | PAM_WRITE);
	/* One dword write reaches four registers. */
	cfg_write(0, 0x90, 4, 0x12312130);
	assert_int_equal(vm->memory.pam[0], PAM_READ);
	assert_int_equal(vm->memory.pam[1], PAM_WRITE);
	assert_int_equal(vm->memory.pam[2], PAM_READ);
	assert_int_equal(vm->memory.pam[3], PAM_READ | PAM_WRITE);
	assert_int_equal(vm->memory.pam[4], PAM_WRITE);
	assert_int_equal(vm->memory.pam[5], PAM_READ);
	cfg_write(0, 0x96, 1, 0x31);
	assert_int_equal(vm->memory.pam[10], PAM_READ);
	assert_int_equal(vm->memory.pam[11], PAM_READ | PAM_WRITE);
}

static void pmbase_moves_the_block(void **state)
{
	assert_false(pm.enabled);
	cfg_write(31, 0x40, 4, 0xffffffff);
	assert_int_equal(cfg_read(31, 0x40, 4), 0xff81);
	assert_int_equal(pm.base, 0xff80);
	assert_false(pm.enabled);
	cfg_write(31, 0x44, 1, 0x80);
	assert_true(pm.enabled);
	cfg_write(31, 0x40, 2, 0x600);
	assert_int_equal(pm.base, 0x600);
	assert_true(pm.enabled);
}

static void reset_gives_one_state(void **state)
{
	cfg_write(0, 0x60, 4, 0xb0000001);
	cfg_write(0, 0x93, 1, 0x33);
	cfg_write(31, 0x44, 1, 0x80);
	cfg_write(31, 0x63, 1, 0x0a);
	for (struct device *d = vm->devices; d; d = d->next)
		d->type->reset(d);
	assert_int_equal(in(0xcf8, 4), 0);
	assert_int_equal(bus_read(&vm->mmio, 0xb0000000, 4), 0xffffffff);
	assert_int_equal(vm->memory.pam[4], 0);
	assert_false(pm.enabled);
	assert_int_equal(cfg_read(31, 0x63, 1), 0x80);
}

static void state_round_trip(void **state)
{
	uint8_t model[64];

	cfg_write(0, 0x60, 4, 0xb0000001);
	cfg_write(0, 0x94, 1, 0x21);
	cfg_write(31, 0x40, 4, 0x600);
	cfg_write(31, 0x44, 1, 0x80);
	for (struct device *d = vm->devices; d; d = d->next) {
		struct skep_error e;
		uint8_t again[64] = { 0 };

		memset(model, 0, sizeof(model));
		assert_true(d->type->state->model_size <= sizeof(model));
		d->type->export(d, model);
		assert_int_equal(state_check(d->type->state, d->name, model, NULL, &e), 0);
		assert_int_equal(d->type->validate(d, model, &e), 0);
		d->type->reset(d);
		d->type->commit(d, model);
		d->type->export(d, again);
		assert_memory_equal(model, again, sizeof(model));
		memset(model, 0xff, sizeof(model));
		assert_true(d->type->validate(d, model, &e) < 0);
	}
	assert_int_equal(bus_read(&vm->mmio, 0xb0000000, 4), 0x29c08086);
	assert_int_equal(vm->memory.pam[6], PAM_READ);
	assert_int_equal(vm->memory.pam[7], PAM_WRITE);
	assert_true(pm.enabled);
}

static void anything_goes(void **state)
{
	uint64_t x = 88172645463325252ull;

	for (unsigned i = 0; i < 200000; i++) {
		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		if (x & 1)
			out(0xcf8 + (x >> 8 & 7), 1u << (x >> 4 & 3), x >> 20);
		else if (x & 2)
			(void)in(0xcf8 + (x >> 8 & 7), 1u << (x >> 4 & 3));
		else if (x & 4)
			bus_write(&vm->mmio, 0xb0000000 + (x >> 8 & 0xfffffff), 1u << (x >> 4 & 3),
				  x >> 30);
		else
			cfg_write(x & 8 ? 31 : 0, x >> 8 & 0xff, 1 + (x >> 4 & 1), x >> 30);
	}
	assert_int_equal(cfg_read(0, 0, 4), 0x29c08086);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(names_and_ids), T(every_width), T(address_register),
		T(reset_control_lies_within), T(absent_devices), T(masks_hold),
		T(ecam_follows_its_register), T(ecam_lengths), T(ecam_over_another_device),
		T(pam_registers), T(pmbase_moves_the_block), T(reset_gives_one_state),
		T(state_round_trip), T(anything_goes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
