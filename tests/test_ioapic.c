/* The I/O APIC against its data sheets (Intel 290566, ICH9 13.5). */
#include "chip.h"

#include "chipset/chipset.h"
#include "chipset/ioapic.h"

struct message {
	uint32_t dest;
	bool logical, level;
	unsigned mode;
	uint8_t vector;
};

static struct vm *vm;
static struct ioapic *io;
static struct message last;
static unsigned sent;
static bool accept = true;

static bool deliver(struct vm *v, uint32_t dest, bool logical, unsigned mode, uint8_t vector,
		    bool level)
{
	last = (struct message){ dest, logical, level, mode, vector };
	sent++;
	return accept;
}

static int setup(void **state)
{
	struct skep_error e;

	vm = chip_vm();
	io = ioapic_create(vm, &e);
	assert_non_null(io);
	ioapic_connect(io, deliver);
	sent = 0;
	accept = true;
	return 0;
}

static int teardown(void **state)
{
	chip_vm_end(vm);
	return 0;
}

static uint32_t reg(unsigned n)
{
	bus_write(&vm->mmio, IOAPIC_BASE, 4, n);
	return bus_read(&vm->mmio, IOAPIC_BASE + 0x10, 4);
}

static void set_reg(unsigned n, uint32_t v)
{
	bus_write(&vm->mmio, IOAPIC_BASE, 4, n);
	bus_write(&vm->mmio, IOAPIC_BASE + 0x10, 4, v);
}

static void entry(unsigned pin, uint32_t low, uint8_t dest)
{
	set_reg(0x11 + 2 * pin, (uint32_t)dest << 24);
	set_reg(0x10 + 2 * pin, low);
}

static uint32_t entry_low(unsigned pin) { return reg(0x10 + 2 * pin); }

static void up(unsigned pin) { ioapic_set(io, pin, true); }
static void down(unsigned pin) { ioapic_set(io, pin, false); }

#define LEVEL		(1u << 15)
#define REMOTE_IRR	(1u << 14)
#define LOW_ACTIVE	(1u << 13)
#define MASKED		(1u << 16)

static void identity_and_version(void **state)
{
	assert_int_equal(reg(1), 0x00170020);
	set_reg(1, 0);
	assert_int_equal(reg(1), 0x00170020);
	set_reg(0, 0xff000000);
	assert_int_equal(reg(0), 0x0f000000);
	assert_int_equal(reg(2), 0x0f000000);	/* the arbitration ID follows */
	assert_int_equal(bus_read(&vm->mmio, IOAPIC_BASE, 4), 2);
	assert_int_equal(reg(0x40), 0);		/* behind the last entry */
	set_reg(0xff, UINT32_MAX);
	assert_int_equal(bus_read(&vm->mmio, IOAPIC_BASE + 0x20, 4), 0);
	assert_int_equal(bus_read(&vm->mmio, IOAPIC_BASE + 0xffc, 4), 0);
}

static void entries_after_reset_are_masked(void **state)
{
	for (unsigned pin = 0; pin < 24; pin++) {
		assert_int_equal(entry_low(pin), MASKED);
		assert_int_equal(reg(0x11 + 2 * pin), 0);
		up(pin);
	}
	up(24);
	up(UINT32_MAX);
	assert_int_equal(sent, 0);
}

static void entry_bits(void **state)
{
	entry(5, 0xffffffff, 0xff);
	assert_int_equal(entry_low(5), 0x1afff);	/* delivery status and remote IRR are read-only */
	assert_int_equal(reg(0x1b), 0xff000000);
}

static void edge_delivers_once(void **state)
{
	entry(4, 0x0831, 3);			/* logical, fixed, edge */
	up(4);
	assert_int_equal(sent, 1);
	assert_int_equal(last.vector, 0x31);
	assert_int_equal(last.dest, 3);
	assert_true(last.logical);
	assert_false(last.level);
	assert_int_equal(entry_low(4), 0x0831);	/* no remote IRR for edges */
	up(4);
	assert_int_equal(sent, 1);
	down(4);
	up(4);
	assert_int_equal(sent, 2);
}

/* Data sheet, bit 16: an edge on a masked pin is neither delivered nor held pending. */
static void masked_edge_is_lost(void **state)
{
	entry(4, MASKED | 0x31, 0);
	up(4);
	entry(4, 0x31, 0);
	assert_int_equal(sent, 0);
	down(4);
	up(4);
	assert_int_equal(sent, 1);
}

static void level_until_eoi(void **state)
{
	entry(16, LEVEL | LOW_ACTIVE | 0x51, 1);
	up(16);
	assert_int_equal(sent, 1);
	assert_true(last.level);
	assert_int_equal(entry_low(16), LEVEL | LOW_ACTIVE | REMOTE_IRR | 0x51);
	down(16);
	up(16);
	assert_int_equal(sent, 1);		/* in service: not again */
	ioapic_eoi(io, 0x52);
	assert_int_equal(sent, 1);		/* somebody else's */
	ioapic_eoi(io, 0x51);
	assert_int_equal(sent, 2);		/* still asserted: again */
	down(16);
	ioapic_eoi(io, 0x51);
	assert_int_equal(sent, 2);
	assert_int_equal(entry_low(16), LEVEL | LOW_ACTIVE | 0x51);
}

static void masked_level_comes_after_unmasking(void **state)
{
	entry(9, LEVEL | MASKED | 0x41, 0);
	up(9);
	assert_int_equal(sent, 0);
	entry(9, LEVEL | 0x41, 0);
	assert_int_equal(sent, 1);
	/* Masking what was accepted changes nothing. */
	entry(9, LEVEL | MASKED | 0x41, 0);
	assert_int_equal(entry_low(9), LEVEL | MASKED | REMOTE_IRR | 0x41);
	ioapic_eoi(io, 0x41);
	assert_int_equal(sent, 1);
	assert_int_equal(entry_low(9), LEVEL | MASKED | 0x41);
	entry(9, LEVEL | 0x41, 0);
	assert_int_equal(sent, 2);
}

static void eoi_register(void **state)
{
	entry(16, LEVEL | 0x51, 0);
	entry(17, LEVEL | 0x51, 0);
	up(16);
	up(17);
	down(16);
	down(17);
	bus_write(&vm->mmio, IOAPIC_BASE + 0x40, 4, 0x51);
	assert_false(entry_low(16) & REMOTE_IRR);	/* every entry with this vector */
	assert_false(entry_low(17) & REMOTE_IRR);
}

/* Making an entry edge-triggered and back is how old kernels end an interrupt. */
static void edge_clears_remote_irr(void **state)
{
	entry(16, LEVEL | 0x51, 0);
	up(16);
	down(16);
	assert_true(entry_low(16) & REMOTE_IRR);
	entry(16, MASKED | 0x51, 0);
	assert_false(entry_low(16) & REMOTE_IRR);
	entry(16, LEVEL | 0x51, 0);
	up(16);
	assert_int_equal(sent, 2);
}

static void refused_level_is_tried_again(void **state)
{
	entry(16, LEVEL | 0x51, 0);
	accept = false;
	up(16);
	assert_false(entry_low(16) & REMOTE_IRR);
	accept = true;
	set_reg(0x10 + 2 * 16, LEVEL | 0x52);
	assert_int_equal(last.vector, 0x52);
	assert_true(entry_low(16) & REMOTE_IRR);
}

/* Fixed and lowest priority alone are levels; NMI, SMI, INIT and ExtINT are edges whatever the entry says. */
static void every_delivery_mode(void **state)
{
	for (unsigned mode = 0; mode < 8; mode++)
		for (unsigned trigger = 0; trigger < 2; trigger++)
			for (unsigned logical = 0; logical < 2; logical++) {
				unsigned pin = 8 + mode, before = sent;
				bool level = trigger && mode < 2;

				entry(pin, (trigger ? LEVEL : 0) | logical << 11 | mode << 8 | 0x51, 0xa5);
				up(pin);
				assert_int_equal(sent, before + 1);
				assert_int_equal(last.mode, mode);
				assert_int_equal(last.vector, 0x51);
				assert_int_equal(last.dest, 0xa5);
				assert_int_equal(last.logical, logical);
				assert_int_equal(last.level, level);
				assert_int_equal(!!(entry_low(pin) & REMOTE_IRR), level);
				down(pin);
				ioapic_eoi(io, 0x51);
				assert_int_equal(sent, before + 1);
			}
}

static void narrow_accesses(void **state)
{
	bus_write(&vm->mmio, IOAPIC_BASE, 1, 0x01);
	assert_int_equal(bus_read(&vm->mmio, IOAPIC_BASE + 0x12, 1), 0x17);
	bus_write(&vm->mmio, IOAPIC_BASE, 1, 0x00);
	bus_write(&vm->mmio, IOAPIC_BASE + 0x10, 2, 0xffff);
	bus_write(&vm->mmio, IOAPIC_BASE + 0x13, 1, 0x0f);
	assert_int_equal(reg(0), 0);
}

/* Bits 14:8 of the destination, for guests that were told that there are so many. */
static void wide_destinations(void **state)
{
	set_reg(0x11 + 2 * 5, 0x12fe0000);
	assert_int_equal(reg(0x11 + 2 * 5), 0x12000000);
	vm->identity = IDENTITY_KVM;
	set_reg(0x11 + 2 * 5, 0x12ff0000);
	assert_int_equal(reg(0x11 + 2 * 5), 0x12fe0000);
	set_reg(0x10 + 2 * 5, 0x51);
	up(5);
	assert_int_equal(last.dest, 0x7f12);
	chip_save_restore(vm->devices);
	assert_int_equal(reg(0x11 + 2 * 5), 0x12fe0000);
}

/* A pin is asserted or not; the polarity says by which voltage, and there is none. */
static void polarity_is_kept_and_means_nothing(void **state)
{
	entry(9, LEVEL | LOW_ACTIVE | 0x41, 0);
	assert_int_equal(entry_low(9), LEVEL | LOW_ACTIVE | 0x41);
	assert_int_equal(sent, 0);
	up(9);
	assert_int_equal(sent, 1);
	entry(10, LOW_ACTIVE | 0x42, 0);
	up(10);
	assert_int_equal(sent, 2);
	down(10);
	assert_int_equal(sent, 2);
}

/* What is written while a level is under way counts from its end on. */
static void entry_written_while_in_service(void **state)
{
	entry(9, LEVEL | 0x41, 0);
	up(9);
	set_reg(0x10 + 2 * 9, LEVEL | REMOTE_IRR | BIT(12) | 0x42);
	assert_int_equal(entry_low(9), LEVEL | REMOTE_IRR | 0x42);
	assert_int_equal(sent, 1);
	ioapic_eoi(io, 0x41);			/* not its vector any more */
	assert_int_equal(sent, 1);
	ioapic_eoi(io, 0x42);
	assert_int_equal(sent, 2);
	assert_int_equal(last.vector, 0x42);
	/* Written zero, it is not cleared either. */
	set_reg(0x10 + 2 * 9, LEVEL | 0x42);
	assert_true(entry_low(9) & REMOTE_IRR);
	set_reg(0x11 + 2 * 9, 0x01000000);
	assert_int_equal(sent, 2);
}

/* A known bug of others: the ID was not saved. */
static void save_restore_with_id_pins_and_remote_irr(void **state)
{
	set_reg(0, 5u << 24);
	entry(4, 0x31, 0);
	entry(16, LEVEL | 0x51, 0);
	up(4);
	up(16);
	sent = 0;
	chip_save_restore(vm->devices);
	assert_int_equal(sent, 0);		/* pins are imported, not raised */
	assert_int_equal(reg(0), 5u << 24);
	up(4);
	assert_int_equal(sent, 0);
	ioapic_eoi(io, 0x51);
	assert_int_equal(sent, 1);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(identity_and_version),
		T(entries_after_reset_are_masked),
		T(entry_bits),
		T(edge_delivers_once),
		T(masked_edge_is_lost),
		T(level_until_eoi),
		T(masked_level_comes_after_unmasking),
		T(eoi_register),
		T(edge_clears_remote_irr),
		T(refused_level_is_tried_again),
		T(every_delivery_mode),
		T(narrow_accesses),
		T(wide_destinations),
		T(polarity_is_kept_and_means_nothing),
		T(entry_written_while_in_service),
		T(save_restore_with_id_pins_and_remote_irr),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
