/* ACPI fixed hardware (ACPI 6.4, 4.8.3) by its ports. */
#include "chip.h"

#include "chipset/acpi_pm.h"
#include "chipset/chipset.h"

#define STS (PM_BASE + 0)
#define EN  (PM_BASE + 2)
#define CNT (PM_BASE + PM1_CNT_OFFSET)
#define TMR (PM_BASE + PM_TMR_OFFSET)
#define GPE_STS (PM_BASE + GPE0_OFFSET)
#define GPE_EN  (PM_BASE + GPE0_OFFSET + GPE0_LEN / 2)

#define PWRBTN 0x100
#define RTC 0x400
#define HALF_TURN (1ll << 31)

static struct vm *vm;
static struct acpi_pm *pm;
static struct chip_wire sci;

static int setup(void **state)
{
	struct skep_error e;

	vm = chip_vm();
	pm = acpi_pm_create(vm, &e);
	assert_non_null(pm);
	acpi_pm_connect_sci(pm, chip_wire(&sci, vm));
	acpi_pm_set_base(pm, PM_BASE, true);
	return 0;
}

static int teardown(void **state)
{
	chip_vm_end(vm);
	return 0;
}

static void timer_runs_at_3579545_hz(void **state)
{
	assert_int_equal(in32(vm, TMR), 0);
	chip_run_to(vm, NSEC_PER_SEC);
	assert_int_equal(in32(vm, TMR), 3579545);
	chip_run_to(vm, 1000 * NSEC_PER_SEC);
	assert_int_equal(in32(vm, TMR), 3579545000u);
	chip_run_to(vm, 2000 * NSEC_PER_SEC);	/* 32 bits, then around */
	assert_int_equal(in32(vm, TMR), (uint32_t)7159090000u);
	assert_int_equal(in16(vm, TMR + 2), (uint32_t)7159090000u >> 16);
	out32(vm, TMR, 0);			/* read-only */
	assert_int_equal(in32(vm, TMR), (uint32_t)7159090000u);
}

/* A known bug of others: the timer jumps over a restore. */
static void timer_continues_over_save_restore(void **state)
{
	chip_run_to(vm, 5 * NSEC_PER_SEC);
	chip_save_restore(vm->devices);
	assert_int_equal(in32(vm, TMR), 5 * 3579545);
	chip_run(vm, NSEC_PER_SEC);
	assert_int_equal(in32(vm, TMR), 6 * 3579545);
}

/* TMR_STS is set whenever the most significant bit changes, either way. */
static void timer_status_at_half_turns(void **state)
{
	int64_t half = clock_ticks_to_ns(HALF_TURN, PM_TIMER_HZ);

	chip_run_to(vm, half - 1000);
	assert_int_equal(in16(vm, STS), 0);
	chip_run_to(vm, half);
	assert_int_equal(in16(vm, STS), 1);
	assert_int_equal(sci.rises, 0);
	out16(vm, STS, 1);
	assert_int_equal(in16(vm, STS), 0);
	out16(vm, EN, 1);
	chip_run_to(vm, 2 * half - 1000);
	assert_int_equal(sci.rises, 0);
	chip_run_to(vm, 2 * half);
	assert_int_equal(sci.rises, 1);
	assert_int_equal(sci.last_rise, clock_ticks_to_ns(2 * HALF_TURN, PM_TIMER_HZ));
	out16(vm, STS, 1);
	assert_int_equal(sci.level, 0);
}

static void power_button(void **state)
{
	acpi_pm_power_button(pm);
	assert_int_equal(in16(vm, STS), PWRBTN);
	assert_int_equal(sci.level, 0);		/* not enabled yet: kept */
	out16(vm, EN, PWRBTN);
	assert_int_equal(sci.level, 1);
	out8(vm, STS + 1, 0);
	assert_int_equal(sci.level, 1);		/* zeroes clear nothing */
	out8(vm, STS + 1, PWRBTN >> 8);
	assert_int_equal(sci.level, 0);
	acpi_pm_power_button(pm);
	assert_int_equal(sci.rises, 2);
	out16(vm, EN, 0);
	assert_int_equal(sci.level, 0);
}

/* ACPI 6.4, 4.8.3.1: RTC_STS is set by the alarm, enabled or not, and stays until it is cleared. */
static void rtc_alarm(void **state)
{
	acpi_pm_rtc_alarm(pm);
	assert_int_equal(in16(vm, STS), RTC);
	assert_int_equal(sci.level, 0);
	chip_save_restore(vm->devices);
	out16(vm, EN, RTC);
	assert_int_equal(sci.level, 1);
	acpi_pm_rtc_alarm(pm);
	assert_int_equal(sci.rises, 1);
	out16(vm, STS, RTC);
	assert_int_equal(sci.level, 0);
	acpi_pm_rtc_alarm(pm);
	assert_int_equal(sci.rises, 2);
}

static void acpi_mode_is_always_on(void **state)
{
	assert_int_equal(in16(vm, CNT), 1);
	out16(vm, CNT, 0);
	assert_int_equal(in16(vm, CNT), 1);
	out16(vm, CNT, 0x1406);			/* GBL_RLS reads as zero, BM_RLD is kept */
	assert_int_equal(in16(vm, CNT), 0x1403);
}

static void s5_powers_off(void **state)
{
	out16(vm, CNT, PM_SLP_TYP_S5 << 10);
	assert_false(vm->exiting);
	out16(vm, CNT, PM_SLP_TYP_S5 << 10 | 1 << 13);
	assert_true(vm->exiting);
	assert_int_equal(vm->exit_code, VM_EXIT_POWEROFF);
	assert_int_equal(in16(vm, CNT) & 1 << 13, 0);
}

static void other_sleep_types_do_nothing(void **state)
{
	for (unsigned typ = 0; typ < 7; typ++)
		out16(vm, CNT, (uint16_t)(typ << 10 | 1 << 13));
	assert_false(vm->exiting);
}

static void s5_by_bytes(void **state)
{
	out8(vm, CNT + 1, PM_SLP_TYP_S5 << 2 | 1 << 5);
	assert_true(vm->exiting);
}

static void general_purpose_events(void **state)
{
	acpi_pm_gpe(pm, 13);
	acpi_pm_gpe(pm, 63);
	acpi_pm_gpe(pm, 64);			/* there is none */
	assert_int_equal(in8(vm, GPE_STS + 1), 0x20);
	assert_int_equal(in8(vm, GPE_STS + 7), 0x80);
	assert_int_equal(sci.level, 0);
	out8(vm, GPE_EN + 1, 0x20);
	assert_int_equal(sci.level, 1);
	out8(vm, GPE_STS + 1, 0x20);
	assert_int_equal(sci.level, 0);
	out32(vm, GPE_EN + 4, 0x80000000);
	assert_int_equal(sci.level, 1);
	out8(vm, GPE_STS + 7, 0xff);
	assert_int_equal(sci.level, 0);
}

static void only_bits_that_exist(void **state)
{
	out16(vm, EN, 0xffff);
	assert_int_equal(in16(vm, EN), 0x0521);
	out32(vm, STS, UINT32_MAX);
	assert_int_equal(in32(vm, STS), 0x05210000);
	for (unsigned port = PM_BASE; port < PM_BASE + PM_BLOCK_LEN; port++)
		if (port < CNT || port > CNT + 1)
			out8(vm, (uint16_t)port, 0xff);
	assert_false(vm->exiting);
}

static void relocates_with_pmbase(void **state)
{
	struct skep_error e;
	static const struct bus_ops none = { 0 };

	chip_run(vm, NSEC_PER_SEC);
	acpi_pm_set_base(pm, 0x400, true);
	assert_int_equal(in32(vm, 0x408), 3579545);
	assert_int_equal(in32(vm, TMR), UINT32_MAX);
	acpi_pm_set_base(pm, 0x400, false);
	assert_int_equal(in32(vm, 0x408), UINT32_MAX);
	/* A place that is taken: nothing decodes, until it moves on. */
	assert_int_equal(bus_map(&vm->ports, 0x810, 1, &none, NULL, "someone", &e), 0);
	acpi_pm_set_base(pm, 0x800, true);
	assert_int_equal(in32(vm, 0x808), UINT32_MAX);
	acpi_pm_set_base(pm, PM_BASE, true);
	assert_int_equal(in32(vm, TMR), 3579545);
	bus_unmap(&vm->ports, 0x810);
}

/* Where the block lies is the LPC bridge's state: its commit maps it (test_lessons has both). */
static void restored_registers_are_where_the_bridge_says(void **state)
{
	struct device *d = vm->devices;
	void *model = calloc(1, d->type->state->model_size);

	acpi_pm_set_base(pm, 0x400, true);
	out16(vm, 0x402, PWRBTN);
	d->type->export(d, model);
	acpi_pm_set_base(pm, 0x400, false);
	d->type->reset(d);
	d->type->commit(d, model);
	assert_int_equal(in16(vm, 0x402), 0xffff);
	acpi_pm_set_base(pm, 0x400, true);
	assert_int_equal(in16(vm, 0x402), PWRBTN);
	free(model);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(timer_runs_at_3579545_hz),
		T(timer_continues_over_save_restore),
		T(timer_status_at_half_turns),
		T(power_button),
		T(rtc_alarm),
		T(acpi_mode_is_always_on),
		T(s5_powers_off),
		T(other_sleep_types_do_nothing),
		T(s5_by_bytes),
		T(general_purpose_events),
		T(only_bits_that_exist),
		T(relocates_with_pmbase),
		T(restored_registers_are_where_the_bridge_says),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
