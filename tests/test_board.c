/* The board: wires between the chips, resets, and what the guest finds at which port. */
#include "chip.h"

#include "chipset/chipset.h"
#include "chipset/lapic.h"

static struct vm *vm;
static struct lapic *apic;

static int setup(void **state)
{
	struct skep_error e = { .text = "" };

	vm = chip_vm();
	vm->config = config_create();
	assert_non_null(vm->config);
	assert_int_equal(config_set(vm->config, "memory.size", "64M", "test", &e), 0);
	if (config_freeze(vm->config, &e) < 0)
		fail_msg("%s", e.text);
	apic = lapic_create(chip_vcpu(vm), &e);
	assert_non_null(apic);
	if (chipset_create(vm, &e) < 0)
		fail_msg("%s", e.text);
	for (struct device *d = vm->devices; d; d = d->next)
		d->type->reset(d);
	chip_requests(vm->vcpus[0]);
	return 0;
}

static int teardown(void **state)
{
	struct config *c = vm->config;

	chipset_destroy(vm);
	chip_vm_end(vm);
	config_destroy(c);
	return 0;
}

static void init_pic(void)
{
	static const uint8_t words[][2] = {
		{ 0x20, 0x11 }, { 0x21, 0x30 }, { 0x21, 0x04 }, { 0x21, 0x01 },
		{ 0xa0, 0x11 }, { 0xa1, 0x38 }, { 0xa1, 0x02 }, { 0xa1, 0x01 },
	};

	for (size_t i = 0; i < ARRAY_SIZE(words); i++)
		out8(vm, words[i][0], words[i][1]);
}

static void io_entry(unsigned pin, uint32_t low)
{
	bus_write(&vm->mmio, IOAPIC_BASE, 4, 0x10 + 2 * pin);
	bus_write(&vm->mmio, IOAPIC_BASE + 0x10, 4, low);
}

static uint32_t io_entry_low(unsigned pin)
{
	bus_write(&vm->mmio, IOAPIC_BASE, 4, 0x10 + 2 * pin);
	return bus_read(&vm->mmio, IOAPIC_BASE + 0x10, 4);
}

static void enable_apic(void)
{
	lapic_mmio_write(apic, 0xf0, 4, 0x1ff);
	chip_requests(vm->vcpus[0]);
}

static void start_pit(void)
{
	out8(vm, 0x43, 0x34);
	out8(vm, 0x40, 0xa9);		/* 1 kHz */
	out8(vm, 0x40, 0x04);
}

/* PIT, 8259, LINT0: the way of a kernel without APIC. */
static void timer_interrupt_by_virtual_wire(void **state)
{
	unsigned n = 0;

	init_pic();
	start_pit();
	assert_true(lapic_accepts_extint(apic));
	for (unsigned i = 0; i < 1000; i++) {
		chip_run(vm, 1000000);
		if (chip_requests(vm->vcpus[0]) & VCPU_REQ_INTR) {
			assert_true(chipset_pic_intr(vm));
			assert_int_equal(chipset_pic_ack(vm), 0x30);
			out8(vm, 0x20, 0x20);
			n++;
		}
	}
	assert_in_range(n, 999, 1001);
}

/* ISA IRQ 0 is pin 2. */
static void timer_interrupt_by_io_apic(void **state)
{
	unsigned n = 0;

	enable_apic();
	io_entry(2, 0x51);
	start_pit();
	for (unsigned i = 0; i < 1000; i++) {
		chip_run(vm, 1000000);
		if (lapic_ack(apic) == 0x51) {
			lapic_mmio_write(apic, 0xb0, 4, 0);
			n++;
		}
	}
	assert_in_range(n, 999, 1001);
}

static void rtc_is_irq_8(void **state)
{
	enable_apic();
	io_entry(8, 0x58);
	out8(vm, 0x70, 0x0b);
	out8(vm, 0x71, 0x12);
	chip_run(vm, NSEC_PER_SEC);
	assert_int_equal(lapic_ack(apic), 0x58);
}

/* SCI: a level on 9 that ends with its cause, EOI by the local APIC. */
static void power_button_is_a_level_on_irq_9(void **state)
{
	const uint16_t base = 0x600;

	/* PMBASE and ACPI_EN in the LPC bridge, by configuration mechanism 1. */
	out32(vm, 0xcf8, 0x8000f840);
	out32(vm, 0xcfc, base);
	out32(vm, 0xcf8, 0x8000f844);
	out8(vm, 0xcfc, 0x80);
	assert_int_equal(in16(vm, base + PM1_CNT_OFFSET), 1);

	enable_apic();
	io_entry(9, 0x8059);
	out16(vm, base + 2, 0x100);
	chipset_power_button(vm);
	assert_int_equal(lapic_ack(apic), 0x59);
	lapic_mmio_write(apic, 0xb0, 4, 0);
	assert_int_equal(lapic_ack(apic), 0x59);	/* still asserted */
	out16(vm, base, 0x100);
	lapic_mmio_write(apic, 0xb0, 4, 0);
	assert_int_equal(lapic_ack(apic), -1);
	assert_int_equal(io_entry_low(9), 0x8059);
}

static void wires_that_share_are_ored(void **state)
{
	struct irq_line a = chipset_gsi(vm, 16), b = chipset_gsi(vm, 16);
	struct irq_line none = chipset_gsi(vm, 24), cascade = chipset_gsi(vm, 2);

	enable_apic();
	io_entry(16, 0x8060);
	irq_set(&a, 1);
	irq_set(&b, 1);
	assert_int_equal(lapic_ack(apic), 0x60);
	irq_set(&a, 0);
	irq_set(&a, 0);
	lapic_mmio_write(apic, 0xb0, 4, 0);
	assert_int_equal(lapic_ack(apic), 0x60);	/* b still asserts */
	irq_set(&b, 0);
	lapic_mmio_write(apic, 0xb0, 4, 0);
	assert_int_equal(lapic_ack(apic), -1);
	irq_set(&none, 1);
	irq_set(&cascade, 1);
}

static void isa_interrupts_reach_both(void **state)
{
	struct irq_line line = chipset_gsi(vm, 5);

	init_pic();
	enable_apic();
	io_entry(5, 0x65);
	irq_pulse(&line);
	assert_int_equal(lapic_ack(apic), 0x65);
	assert_int_equal(chipset_pic_ack(vm), 0x35);
}

static void message_signalled(void **state)
{
	enable_apic();
	chipset_msi(vm, 0xfee00000, 0x4070);
	assert_int_equal(lapic_ack(apic), 0x70);
	chipset_msi(vm, 0xfee01000, 0x4071);	/* another processor */
	chipset_msi(vm, 0xfed00000, 0x4071);	/* no message at all */
	chipset_msi(vm, 0x1fee00000, 0x4071);
	chipset_msi(vm, 0xfee00000, 0x8071);	/* the end of a level */
	lapic_mmio_write(apic, 0xd0, 4, 0x02000000);
	chipset_msi(vm, 0xfee02004, 0x4081);	/* logical */
	assert_int_equal(lapic_ack(apic), 0x81);
	assert_int_equal(lapic_ack(apic), -1);
}

/* Bits 11:5 of the address: reserved, or bits 14:8 of the destination. */
static void message_destinations(void **state)
{
	enable_apic();
	chipset_msi(vm, 0xfee00fe0, 0x4070);
	assert_int_equal(lapic_ack(apic), 0x70);
	lapic_mmio_write(apic, 0xb0, 4, 0);
	vm->identity = IDENTITY_KVM;
	chipset_msi(vm, 0xfee00fe0, 0x4070);	/* 0x7f00 */
	chipset_msi(vm, 0xfee00020, 0x4070);	/* 0x0100 */
	chipset_msi(vm, 0xfeeff020, 0x4070);	/* 0x01ff is nobody, and not everybody */
	chipset_msi(vm, 0xfee01024, 0x4070);	/* logical: no APIC has these bits */
	assert_int_equal(lapic_ack(apic), -1);
	chipset_msi(vm, 0xfeeff000, 0x4070);
	assert_int_equal(lapic_ack(apic), 0x70);
}

static void nmi_and_its_mask(void **state)
{
	enable_apic();
	lapic_mmio_write(apic, 0x360, 4, 0x400);
	chipset_nmi(vm);
	assert_int_equal(chip_requests(vm->vcpus[0]), VCPU_REQ_NMI);
	out8(vm, 0x70, 0x80);
	chipset_nmi(vm);
	assert_int_equal(chip_requests(vm->vcpus[0]), 0);
}

static void expect_reset(bool yes)
{
	assert_int_equal(vm->exiting, yes);
	if (yes)
		assert_int_equal(vm->exit_code, VM_EXIT_REBOOT);
	vm->exiting = false;
}

static void reset_by_cf9(void **state)
{
	out8(vm, 0xcf9, 0x02);
	expect_reset(false);
	out8(vm, 0xcf9, 0x06);
	expect_reset(true);
	assert_int_equal(in8(vm, 0xcf9), 0x06);
	out8(vm, 0xcf9, 0x0e);
	expect_reset(false);			/* RST_CPU was set already */
	out8(vm, 0xcf9, 0x00);
	out8(vm, 0xcf9, 0x04);			/* soft */
	expect_reset(true);
	out32(vm, 0xcf8, 0x80000600);		/* a configuration address is no reset */
	expect_reset(false);
}

static void reset_by_keyboard_controller(void **state)
{
	assert_int_equal(in8(vm, 0x64), 0);
	assert_int_equal(in8(vm, 0x60), 0);
	out8(vm, 0x64, 0xaa);
	out8(vm, 0x60, 0xed);
	out8(vm, 0x64, 0xff);			/* pulses nothing */
	expect_reset(false);
	out8(vm, 0x64, 0xfe);
	expect_reset(true);
	out8(vm, 0x64, 0xd1);			/* A20 on, reset high */
	out8(vm, 0x60, 0xdf);
	expect_reset(false);
	out8(vm, 0x64, 0xd1);
	out8(vm, 0x60, 0xfe);
	expect_reset(true);
}

static void reset_by_port_92(void **state)
{
	assert_int_equal(in8(vm, 0x92), 0x02);
	out8(vm, 0x92, 0x02);
	expect_reset(false);
	out8(vm, 0x92, 0x03);
	expect_reset(true);
}

/* Every device of the board exports, checks and takes back its state. */
static void whole_board_saves_and_restores(void **state)
{
	struct irq_line line = chipset_gsi(vm, 17);

	init_pic();
	enable_apic();
	io_entry(17, 0x8061);
	start_pit();
	chip_run(vm, 12345678);
	irq_set(&line, 1);
	for (struct device *d = vm->devices; d; d = d->next)
		if (d->type->state != &STATE_NONE)
			chip_save_restore(d);
	/* The wire's level came along: letting go of it ends the level. */
	assert_int_equal(lapic_ack(apic), 0x61);
	irq_set(&line, 0);
	lapic_mmio_write(apic, 0xb0, 4, 0);
	assert_int_equal(lapic_ack(apic), -1);
}

/* One known state, whatever went before. */
static void reset_is_one_state(void **state)
{
	struct irq_line line = chipset_gsi(vm, 17);
	char *text[2];
	size_t len[2];

	for (unsigned i = 0; i < 2; i++) {
		FILE *f = open_memstream(&text[i], &len[i]);

		for (struct device *d = vm->devices; d; d = d->next)
			d->type->reset(d);
		for (struct device *d = vm->devices; d; d = d->next) {
			void *model = calloc(1, d->type->state->model_size + 1);

			d->type->export(d, model);
			state_dump(f, d->name, d->type->state, model);
			chip_model_free(d, model);
		}
		fclose(f);
		init_pic();
		enable_apic();
		io_entry(17, 0x8061);
		start_pit();
		irq_set(&line, 1);
		out8(vm, 0x61, 0x03);
		out8(vm, 0x92, 0x00);
		out8(vm, 0x64, 0xd1);
	}
	assert_string_equal(text[0], text[1]);
	free(text[0]);
	free(text[1]);
}

/* Accesses of every size at every port: nothing breaks. */
static void every_port_at_every_size(void **state)
{
	uint64_t x = 0x9e3779b97f4a7c15ull;

	for (unsigned round = 0; round < 3; round++)
		for (unsigned port = 0; port < 0xfff0; port++)
			for (unsigned size = 1; size <= 4; size *= 2) {
				x ^= x << 13;
				x ^= x >> 7;
				x ^= x << 17;
				bus_write(&vm->ports, port, size, x);
				bus_read(&vm->ports, port, size);
				if (port % 64 == 0)
					chip_jump(vm, x % 100000);
			}
	for (unsigned i = 0; i < 200000; i++) {
		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		bus_write(&vm->mmio, IOAPIC_BASE + (x & 0x50), 4, x >> 32);
		lapic_mmio_write(apic, x >> 8 & 0xff0, 4, x >> 32);
		lapic_mmio_read(apic, x >> 20 & 0xfff, 1u << (x & 3));
		if (i % 16 == 0) {
			chip_jump(vm, x % 10000);
			timers_run(vm, chip_now(vm));
			lapic_ack(apic);
		}
	}
	for (struct device *d = vm->devices; d; d = d->next)
		if (d->type->state != &STATE_NONE)
			chip_save_restore(d);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(timer_interrupt_by_virtual_wire),
		T(timer_interrupt_by_io_apic),
		T(rtc_is_irq_8),
		T(power_button_is_a_level_on_irq_9),
		T(wires_that_share_are_ored),
		T(isa_interrupts_reach_both),
		T(message_signalled),
		T(message_destinations),
		T(nmi_and_its_mask),
		T(reset_by_cf9),
		T(reset_by_keyboard_controller),
		T(reset_by_port_92),
		T(whole_board_saves_and_restores),
		T(reset_is_one_state),
		T(every_port_at_every_size),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
