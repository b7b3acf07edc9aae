/* The 8259A pair against its data sheet (Intel 231468) and the ICH9's ELCR. */
#include "chip.h"

#include "chipset/i8259.h"

static struct vm *vm;
static struct i8259 *pic;
static unsigned intr_rises;
static bool intr_level;

static void intr(void *opaque, bool level)
{
	intr_rises += level && !intr_level;
	intr_level = level;
}

static int setup(void **state)
{
	struct skep_error e;

	vm = chip_vm();
	pic = i8259_create(vm, &e);
	assert_non_null(pic);
	intr_rises = 0;
	intr_level = false;
	i8259_connect_intr(pic, intr, NULL);
	return 0;
}

static int teardown(void **state)
{
	chip_vm_end(vm);
	return 0;
}

/* ICW1-4 as a PC has them: vectors 0x30 and 0x38, everything unmasked. */
static void init_pair(uint8_t icw4_master, uint8_t icw4_slave)
{
	out8(vm, 0x20, 0x11);
	out8(vm, 0x21, 0x30);
	out8(vm, 0x21, 0x04);
	out8(vm, 0x21, icw4_master);
	out8(vm, 0xa0, 0x11);
	out8(vm, 0xa1, 0x38);
	out8(vm, 0xa1, 0x02);
	out8(vm, 0xa1, icw4_slave);
	out8(vm, 0x21, 0x00);
	out8(vm, 0xa1, 0x00);
}

static void up(unsigned n) { i8259_set(pic, n, true); }
static void down(unsigned n) { i8259_set(pic, n, false); }
static void pulse(unsigned n) { up(n); down(n); }
static uint8_t irr(unsigned port) { out8(vm, port, 0x0a); return in8(vm, port); }
static uint8_t isr(unsigned port) { out8(vm, port, 0x0b); return in8(vm, port); }
static void eoi(unsigned port) { out8(vm, port, 0x20); }

static void nothing_before_initialization(void **state)
{
	up(0);
	up(8);
	assert_false(i8259_intr(pic));
	out8(vm, 0x20, 0x11);
	out8(vm, 0x21, 0x30);
	assert_false(i8259_intr(pic));	/* in the middle of it */
}

static void vectors_and_cascade(void **state)
{
	init_pair(1, 1);
	up(0);
	assert_true(intr_level);
	assert_int_equal(i8259_ack(pic), 0x30);
	assert_false(intr_level);
	assert_int_equal(isr(0x20), 0x01);
	eoi(0x20);
	up(12);
	assert_int_equal(irr(0x20), 0x04);
	assert_int_equal(irr(0xa0), 0x10);
	assert_int_equal(i8259_ack(pic), 0x3c);
	assert_int_equal(isr(0x20), 0x04);
	assert_int_equal(isr(0xa0), 0x10);
	eoi(0xa0);
	eoi(0x20);
	assert_int_equal(isr(0x20) | isr(0xa0), 0);
}

static void edge_wants_a_new_edge(void **state)
{
	init_pair(1, 1);
	up(3);
	assert_int_equal(i8259_ack(pic), 0x33);
	eoi(0x20);
	assert_false(intr_level);	/* still high: no new request */
	up(3);
	assert_false(intr_level);
	down(3);
	up(3);
	assert_true(intr_level);
	/* A pulse that is over before the acknowledge is remembered. */
	assert_int_equal(i8259_ack(pic), 0x33);
	eoi(0x20);
	down(3);
	pulse(3);
	assert_int_equal(i8259_ack(pic), 0x33);
}

static void fully_nested_priorities(void **state)
{
	init_pair(1, 1);
	pulse(5);
	pulse(4);
	assert_int_equal(i8259_ack(pic), 0x34);
	assert_false(intr_level);	/* 5 waits for the end of 4 */
	pulse(1);
	assert_true(intr_level);	/* 1 does not */
	assert_int_equal(i8259_ack(pic), 0x31);
	assert_int_equal(isr(0x20), 0x12);
	eoi(0x20);			/* non-specific: the highest in service */
	assert_int_equal(isr(0x20), 0x10);
	assert_false(intr_level);
	eoi(0x20);
	assert_int_equal(i8259_ack(pic), 0x35);
	/* The slave's inputs lie between 1 and 3. */
	eoi(0x20);
	pulse(3);
	pulse(15);
	assert_int_equal(i8259_ack(pic), 0x3f);
	eoi(0xa0);
	eoi(0x20);
	assert_int_equal(i8259_ack(pic), 0x33);
}

static void mask_register(void **state)
{
	init_pair(1, 1);
	out8(vm, 0x21, 0x10);
	assert_int_equal(in8(vm, 0x21), 0x10);
	pulse(4);
	assert_false(intr_level);
	assert_int_equal(irr(0x20), 0x10);	/* masked requests are kept */
	out8(vm, 0x21, 0x00);
	assert_true(intr_level);
	out8(vm, 0x21, 0x04);			/* the cascade masked: no slave */
	assert_int_equal(i8259_ack(pic), 0x34);
	eoi(0x20);
	pulse(9);
	assert_false(intr_level);
}

/* "If the IR input is gone at INTA the 8259A acts as if IR7 had come, without an ISR bit." */
static void spurious_7_and_15(void **state)
{
	init_pair(1, 1);
	out8(vm, 0x4d0, 0x20);		/* IRQ 5 level */
	up(5);
	assert_true(intr_level);
	down(5);
	assert_false(intr_level);
	assert_int_equal(i8259_ack(pic), 0x37);
	assert_int_equal(isr(0x20), 0);
	/* Masked between INTR and INTA. */
	pulse(3);
	out8(vm, 0x21, 0x08);
	assert_int_equal(i8259_ack(pic), 0x37);
	out8(vm, 0x21, 0x00);
	i8259_ack(pic);
	eoi(0x20);
	/* At the slave: INT has gone down again with the request. */
	out8(vm, 0x4d1, 0x08);
	up(11);
	assert_int_equal(irr(0x20), 0x04);
	down(11);
	assert_int_equal(irr(0x20), 0x00);
	assert_int_equal(i8259_ack(pic), 0x37);
}

static void level_triggered_by_elcr(void **state)
{
	init_pair(1, 1);
	out8(vm, 0x4d0, 0xff);
	out8(vm, 0x4d1, 0xff);
	assert_int_equal(in8(vm, 0x4d0), 0xf8);	/* 0, 1, 2, 8 and 13 cannot be levels */
	assert_int_equal(in8(vm, 0x4d1), 0xde);
	up(10);
	assert_int_equal(i8259_ack(pic), 0x3a);
	assert_int_equal(irr(0xa0), 0x04);	/* asserted, therefore still requested */
	eoi(0xa0);
	eoi(0x20);
	assert_true(intr_level);		/* and again after the end */
	assert_int_equal(i8259_ack(pic), 0x3a);
	down(10);
	eoi(0xa0);
	eoi(0x20);
	assert_false(intr_level);
	assert_int_equal(irr(0xa0), 0);
}

static void specific_eoi(void **state)
{
	init_pair(1, 1);
	pulse(6);
	i8259_ack(pic);
	pulse(2 + 1);
	i8259_ack(pic);
	assert_int_equal(isr(0x20), 0x48);
	out8(vm, 0x20, 0x60 | 6);
	assert_int_equal(isr(0x20), 0x08);
	out8(vm, 0x20, 0x40);		/* no operation */
	assert_int_equal(isr(0x20), 0x08);
}

static void automatic_eoi(void **state)
{
	init_pair(3, 1);
	pulse(4);
	assert_int_equal(i8259_ack(pic), 0x34);
	assert_int_equal(isr(0x20), 0);
	/* With rotation the one just served becomes the last. */
	out8(vm, 0x20, 0x80);
	pulse(4);
	i8259_ack(pic);
	pulse(4);
	pulse(7);
	assert_int_equal(i8259_ack(pic), 0x37);
	assert_int_equal(i8259_ack(pic), 0x34);
	out8(vm, 0x20, 0x00);		/* rotation off: 4 stays the last */
	pulse(5);
	i8259_ack(pic);
	pulse(4);
	pulse(6);
	assert_int_equal(i8259_ack(pic), 0x36);
}

static void rotation(void **state)
{
	init_pair(1, 1);
	out8(vm, 0x20, 0xc0 | 5);	/* 5 lowest, so 6 highest */
	pulse(0);
	pulse(6);
	assert_int_equal(i8259_ack(pic), 0x36);
	out8(vm, 0x20, 0xa0);		/* rotate on non-specific EOI: 6 lowest, 7 highest */
	pulse(7);
	assert_int_equal(i8259_ack(pic), 0x37);
	out8(vm, 0x20, 0xe0 | 7);	/* rotate on specific EOI: 7 lowest */
	assert_int_equal(i8259_ack(pic), 0x30);
	assert_int_equal(isr(0x20), 0x01);
}

static void special_mask(void **state)
{
	init_pair(1, 1);
	pulse(3);
	i8259_ack(pic);
	pulse(5);
	assert_false(intr_level);
	out8(vm, 0x21, 0x08);		/* mask the one in service */
	assert_false(intr_level);
	out8(vm, 0x20, 0x68);		/* and only special mask mode lets 5 through */
	assert_true(intr_level);
	assert_int_equal(i8259_ack(pic), 0x35);
	eoi(0x20);			/* non-specific: not the masked one */
	assert_int_equal(isr(0x20), 0x08);
	out8(vm, 0x20, 0x48);
	eoi(0x20);
	assert_int_equal(isr(0x20), 0);
}

static void special_fully_nested(void **state)
{
	init_pair(0x01, 1);
	pulse(12);
	i8259_ack(pic);
	pulse(9);
	assert_false(intr_level);	/* the slave asks, the master's ISR 2 is in the way */
	eoi(0xa0);
	eoi(0x20);
	assert_int_equal(i8259_ack(pic), 0x39);
	eoi(0xa0);
	eoi(0x20);

	init_pair(0x11, 1);
	pulse(12);
	i8259_ack(pic);
	pulse(3);
	assert_false(intr_level);	/* lower ones still wait */
	pulse(9);
	assert_true(intr_level);
	assert_int_equal(i8259_ack(pic), 0x39);
}

static void poll_mode(void **state)
{
	init_pair(1, 1);
	out8(vm, 0x20, 0x0c);
	assert_int_equal(in8(vm, 0x20), 0x00);	/* nobody */
	pulse(6);
	out8(vm, 0x20, 0x0c);
	assert_int_equal(in8(vm, 0x20), 0x86);
	assert_int_equal(isr(0x20), 0x40);	/* it was an acknowledge */
	assert_false(intr_level);
	eoi(0x20);
	pulse(11);
	out8(vm, 0x20, 0x0c);
	assert_int_equal(in8(vm, 0x20), 0x82);
	out8(vm, 0xa0, 0x0c);
	assert_int_equal(in8(vm, 0xa0), 0x83);
	assert_int_equal(isr(0xa0), 0x08);
	assert_int_equal(in8(vm, 0xa1), 0x00);	/* one read only: this is the mask again */
}

static void icw1_starts_anew(void **state)
{
	init_pair(3, 1);
	out8(vm, 0x21, 0xff);
	pulse(3);
	out8(vm, 0x20, 0x68);
	out8(vm, 0x20, 0xc0 | 3);
	up(4);
	out8(vm, 0x20, 0x11);
	out8(vm, 0x21, 0x40);
	out8(vm, 0x21, 0x04);
	out8(vm, 0x21, 0x01);
	assert_int_equal(in8(vm, 0x21), 0x00);	/* the mask is cleared */
	assert_int_equal(in8(vm, 0x20), 0x00);	/* reads are the IRR; latched edges are gone */
	assert_false(intr_level);		/* 4 is high, but no new edge */
	down(4);
	up(4);
	assert_int_equal(i8259_ack(pic), 0x44);
	assert_int_equal(isr(0x20), 0x10);	/* automatic EOI is off again */
}

static void icw_without_3_or_4(void **state)
{
	out8(vm, 0x20, 0x12);		/* single, no ICW4 */
	out8(vm, 0x21, 0x50);
	out8(vm, 0x21, 0xfe);		/* this is the mask already */
	assert_int_equal(in8(vm, 0x21), 0xfe);
	pulse(0);
	assert_int_equal(i8259_ack(pic), 0x50);
}

static void input_2_is_the_cascade(void **state)
{
	init_pair(1, 1);
	up(2);
	assert_false(intr_level);
	up(16);				/* and others do not exist */
	assert_false(intr_level);
}

static void save_restore_imports_without_raising(void **state)
{
	struct device *d = vm->devices;

	init_pair(1, 1);
	out8(vm, 0x4d1, 0x08);
	up(3);
	i8259_ack(pic);
	up(11);
	pulse(12);
	out8(vm, 0xa0, 0x0b);
	intr_rises = 0;
	chip_save_restore(d);
	assert_int_equal(intr_rises, 0);
	assert_true(i8259_intr(pic));
	assert_int_equal(in8(vm, 0xa0), 0x00);	/* still the ISR */
	up(3);					/* pin was high: no edge */
	assert_int_equal(i8259_ack(pic), 0x3b);
	down(11);
	eoi(0xa0);
	eoi(0x20);
	assert_int_equal(i8259_ack(pic), 0x3c);
	eoi(0xa0);
	eoi(0x20);
	eoi(0x20);
	assert_false(intr_level);
	/* In the middle of the initialization sequence. */
	out8(vm, 0x20, 0x11);
	out8(vm, 0x21, 0x60);
	chip_save_restore(d);
	out8(vm, 0x21, 0x04);
	out8(vm, 0x21, 0x01);
	pulse(7);
	assert_int_equal(i8259_ack(pic), 0x67);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(nothing_before_initialization),
		T(vectors_and_cascade),
		T(edge_wants_a_new_edge),
		T(fully_nested_priorities),
		T(mask_register),
		T(spurious_7_and_15),
		T(level_triggered_by_elcr),
		T(specific_eoi),
		T(automatic_eoi),
		T(rotation),
		T(special_mask),
		T(special_fully_nested),
		T(poll_mode),
		T(icw1_starts_anew),
		T(icw_without_3_or_4),
		T(input_2_is_the_cascade),
		T(save_restore_imports_without_raising),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
