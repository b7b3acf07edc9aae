/* VM Generation ID and VMClock, by what a guest reads in their pages. */
#include <sys/timex.h>
#include <time.h>

#include "board.h"

#include "boot/fwcfg.h"
#include "boot/tables.h"
#include "chipset/acpi_pm.h"
#include "clock/vmclock.h"
#include "clock/vmgenid.h"

#define GENID_AT	0x5000u
#define CLOCK_AT	0x7000u
#define PM		0x600

static struct config *plain;
static struct board *b;

static int group_setup(void **state)
{
	plain = board_config(NULL, 0);
	return 0;
}

static int group_teardown(void **state)
{
	config_destroy(plain);
	return 0;
}

static void tell(const char *file, uint64_t at)
{
	assert_int_equal(fwcfg_write_file(fwcfg_of(b->vm), file, 0, &at, 8), 0);
}

static void make(enum clock_mode mode)
{
	b = board_make_mode(plain, mode);
	acpi_pm_set_base(board_device(b, "acpi-pm"), PM, true);
	tell(FILE_VMGENID_ADDR, GENID_AT);
	tell(FILE_VMCLOCK_ADDR, CLOCK_AT);
}

static int setup(void **state)
{
	make(CLOCK_MODE_VIRTUAL);
	return 0;
}

static int setup_real(void **state)
{
	make(CLOCK_MODE_REALTIME);
	return 0;
}

static int teardown(void **state)
{
	board_free(b);
	return 0;
}

static uint64_t peek(uint64_t at, unsigned bytes)
{
	uint64_t v = 0;

	assert_int_equal(dma_read(&b->vm->memory, at, &v, bytes), 0);
	return v;
}

static uint64_t field(unsigned offset, unsigned bytes)
{
	return peek(CLOCK_AT + offset, bytes);
}

struct guid { uint64_t low, high; };

static struct guid in_file(void)
{
	size_t len;
	const uint8_t *p = fwcfg_get_file(fwcfg_of(b->vm), FILE_VMGENID, &len);

	assert_int_equal(len, 4096);
	return (struct guid){ load64(p + VMGENID_OFFSET), load64(p + VMGENID_OFFSET + 8) };
}

static struct guid in_ram(void)
{
	return (struct guid){ peek(GENID_AT + VMGENID_OFFSET, 8), peek(GENID_AT + VMGENID_OFFSET + 8, 8) };
}

static bool same(struct guid x, struct guid y)
{
	return x.low == y.low && x.high == y.high;
}

static unsigned events(void)
{
	return in16(b->vm, PM + GPE0_OFFSET);
}

static void clear_events(void)
{
	out16(b->vm, PM + GPE0_OFFSET, 0xffff);
}

/* ---- VM Generation ID -------------------------------------------------- */

static void id_changes_and_is_notified(void **state)
{
	struct guid first = in_file(), second;

	assert_true(first.low || first.high);
	assert_int_equal(events(), 0);
	vm_generation_renew(b->vm, false);
	second = in_ram();
	assert_false(same(first, second));
	assert_true(same(in_file(), second));
	assert_int_equal(events() & 1 << VMGENID_GPE, 1 << VMGENID_GPE);
	/* The event stays until the guest clears it, and reaches it once it enables it. */
	clear_events();
	assert_int_equal(events(), 0);
	vm_generation_renew(b->vm, false);
	assert_false(same(second, in_ram()));
	assert_int_equal(peek(GENID_AT, 8) | peek(GENID_AT + 56, 8), 0);	/* nothing else changes */
}

static void id_survives_a_reset(void **state)
{
	struct guid id = in_file();

	for (struct device *d = b->vm->devices; d; d = d->next)
		d->type->reset(d);
	assert_true(same(id, in_file()));
	/* But nothing is written to where it lay, before firmware has said where it lies. */
	vm_generation_renew(b->vm, false);
	assert_int_equal(in_ram().low, 0);
	assert_false(same(id, in_file()));
}

static void id_is_carried(void **state)
{
	struct guid id;
	uint64_t words[4];

	vm_generation_renew(b->vm, false);
	id = in_file();
	memcpy(words, b->vm->entropy_state, sizeof(words));
	b = board_restore(b, plain);
	memcpy(b->vm->entropy_state, words, sizeof(words));	/* the machine's own record has it */
	assert_true(same(id, in_file()));
	/* The page lies where the guest had it. */
	vm_generation_renew(b->vm, false);
	assert_true(same(in_file(), in_ram()));
	assert_false(same(id, in_ram()));
}

/* Under a seed the same past gives the same id; clones differ by their names. */
static void seeded_ids(void **state)
{
	struct guid id[4];

	for (unsigned i = 0; i < 4; i++) {
		uint64_t words[4];

		memcpy(words, b->vm->entropy_state, sizeof(words));
		snprintf(b->vm->name, sizeof(b->vm->name), "bee-%u", i);
		vm_generation_renew(b->vm, i >= 2);
		id[i] = in_ram();
		memcpy(b->vm->entropy_state, words, sizeof(words));
	}
	assert_true(same(id[0], id[1]));
	assert_false(same(id[0], id[2]));
	assert_false(same(id[2], id[3]));
}

/* The address is the guest's: whatever it says, nothing happens but in its RAM. */
static void address_that_is_none(void **state)
{
	static const uint64_t at[] = { UINT64_MAX, UINT64_MAX - 39, 1 * MiB, 0xa0000, 1 * MiB - 41,
				       ECAM_BASE, 1 };

	for (size_t i = 0; i < ARRAY_SIZE(at); i++) {
		tell(FILE_VMGENID_ADDR, at[i]);
		tell(FILE_VMCLOCK_ADDR, at[i]);
		vm_generation_renew(b->vm, false);
	}
	assert_int_equal(field(VMCLOCK_SEQ_COUNT, 4), 0);	/* of when it lay there */
}

/* ---- VMClock ----------------------------------------------------------- */

static void page_of_a_virtual_clock(void **state)
{
	assert_int_equal(field(VMCLOCK_MAGIC, 4), 0x4b4c4356);
	assert_int_equal(field(VMCLOCK_SIZE, 4), 4096);
	assert_int_equal(field(VMCLOCK_VERSION, 2), 1);
	assert_int_equal(field(VMCLOCK_COUNTER_ID, 1), VMCLOCK_COUNTER_INVALID);
	assert_int_equal(field(VMCLOCK_TIME_TYPE, 1), 0);
	assert_int_equal(field(VMCLOCK_STATUS, 1), VMCLOCK_STATUS_UNKNOWN);
	assert_int_equal(field(VMCLOCK_FLAGS, 8),
			 VMCLOCK_FLAG_GENERATION | VMCLOCK_FLAG_NOTIFICATION);
	for (unsigned at = VMCLOCK_TAI_OFFSET; at < VMCLOCK_GENERATION; at++)
		assert_int_equal(field(at, 1), 0);
}

static void markers_change(void **state)
{
	uint64_t marker = field(VMCLOCK_DISRUPTION, 8), generation = field(VMCLOCK_GENERATION, 8);

	assert_int_equal(field(VMCLOCK_SEQ_COUNT, 4), 0);
	vm_generation_renew(b->vm, false);
	assert_int_equal(field(VMCLOCK_SEQ_COUNT, 4), 2);
	assert_true(field(VMCLOCK_DISRUPTION, 8) != marker);
	assert_true(field(VMCLOCK_GENERATION, 8) != generation);
	assert_int_equal(events() & 1 << VMCLOCK_GPE, 1 << VMCLOCK_GPE);
	/* A virtual clock was not disrupted by a pause, and says nothing. */
	clear_events();
	marker = field(VMCLOCK_DISRUPTION, 8);
	for (struct device *d = b->vm->devices; d; d = d->next)
		d->type->resume(d);
	assert_int_equal(field(VMCLOCK_SEQ_COUNT, 4), 2);
	assert_int_equal(field(VMCLOCK_DISRUPTION, 8), marker);
	assert_int_equal(events(), 0);
	b = board_restore(b, plain);
	vm_generation_renew(b->vm, false);
	assert_int_equal(field(VMCLOCK_SEQ_COUNT, 4), 4);
}

static void resume(void)
{
	struct device *d = board_device(b, "vmclock");

	clock_resume(&b->vm->clock);
	d->type->resume(d);
	clock_pause(&b->vm->clock);
}

/* UTC in ns that the page's formula gives for a TSC. */
static int64_t utc_of(uint64_t tsc)
{
	unsigned shift = field(VMCLOCK_PERIOD_SHIFT, 1);
	unsigned __int128 d = (unsigned __int128)(tsc - field(VMCLOCK_COUNTER, 8)) *
			      (field(VMCLOCK_PERIOD, 8) >> 16) >> shift;	/* s / 2^48 */
	uint64_t frac = field(VMCLOCK_TIME_FRAC, 8) >> 16;

	d += frac;
	return (int64_t)(field(VMCLOCK_TIME_SEC, 8) + (uint64_t)(d >> 48)) * NSEC_PER_SEC +
	       (int64_t)((d & (BIT(48) - 1)) * NSEC_PER_SEC >> 48);
}

static void pair_of_a_real_clock(void **state)
{
	struct timex x = { 0 };
	struct timespec t;
	int64_t now;
	bool synchronised = adjtimex(&x) >= 0 && !(x.status & STA_UNSYNC);

	resume();
	assert_int_equal(field(VMCLOCK_COUNTER_ID, 1), VMCLOCK_COUNTER_TSC);
	assert_int_equal(field(VMCLOCK_STATUS, 1),
			 synchronised ? VMCLOCK_STATUS_SYNCHRONIZED : VMCLOCK_STATUS_UNKNOWN);
	assert_int_equal(!!(field(VMCLOCK_FLAGS, 8) & VMCLOCK_FLAG_TIME_MAXERROR), synchronised);
	/* 1 GHz, the standard's own example. */
	assert_int_equal(b->vm->clock.tsc_khz, 1000000);
	assert_int_equal(field(VMCLOCK_PERIOD, 8), 0x89705f4136b4a597);
	assert_int_equal(field(VMCLOCK_PERIOD_SHIFT, 1), 29);
	/* What the guest makes of it now is the host's UTC now. */
	clock_gettime(CLOCK_REALTIME, &t);
	now = t.tv_sec * NSEC_PER_SEC + t.tv_nsec;
	assert_in_range(utc_of(clock_tsc(&b->vm->clock)) - now + 500000000, 0, 1000000000);
	assert_in_range(utc_of(field(VMCLOCK_COUNTER, 8) + 3000000000u) -
			utc_of(field(VMCLOCK_COUNTER, 8)) - 2999999990ll, 0, 20);
}

/* Guest time stood: the TSC is behind by as much, and the guest must know. */
static void pause_is_a_disruption_of_a_real_clock(void **state)
{
	uint64_t marker, generation = field(VMCLOCK_GENERATION, 8), seq;

	resume();
	marker = field(VMCLOCK_DISRUPTION, 8);
	seq = field(VMCLOCK_SEQ_COUNT, 4);
	resume();
	assert_true(field(VMCLOCK_DISRUPTION, 8) != marker);
	assert_int_equal(field(VMCLOCK_SEQ_COUNT, 4), seq + 2);
	assert_int_equal(field(VMCLOCK_GENERATION, 8), generation);
	assert_int_equal(events() & 1 << VMCLOCK_GPE, 1 << VMCLOCK_GPE);
}

/* restore --exact: nothing that the guest can see changes; the next pause is like any other. */
static void exact_restore_shows_nothing(void **state)
{
	uint8_t before[VMCLOCK_BYTES], after[VMCLOCK_BYTES];

	resume();
	assert_int_equal(dma_read(&b->vm->memory, CLOCK_AT, before, sizeof(before)), 0);
	clear_events();
	vm_generation_keep(b->vm);
	resume();
	assert_int_equal(dma_read(&b->vm->memory, CLOCK_AT, after, sizeof(after)), 0);
	assert_memory_equal(before, after, sizeof(before));
	assert_int_equal(events(), 0);
	resume();
	assert_int_equal(field(VMCLOCK_SEQ_COUNT, 4), load32(before + VMCLOCK_SEQ_COUNT) + 2);
}

static void state_that_cannot_be(void **state)
{
	struct device *d = board_device(b, "vmclock");
	struct skep_error e;
	uint32_t *model = calloc(1, d->type->state->model_size);

	d->type->export(d, model);
	assert_int_equal(chip_check(d, model, &e), 0);
	model[0] = 1;		/* seq_count */
	assert_true(chip_check(d, model, &e) < 0);
	assert_non_null(strstr(e.text, "seq_count 1 is odd"));
	free(model);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
#define R(f) cmocka_unit_test_setup_teardown(f, setup_real, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(id_changes_and_is_notified), T(id_survives_a_reset), T(id_is_carried), T(seeded_ids),
		T(address_that_is_none), T(page_of_a_virtual_clock), T(markers_change),
		R(pair_of_a_real_clock), R(pause_is_a_disruption_of_a_real_clock),
		R(exact_restore_shows_nothing), T(state_that_cannot_be),
	};

	return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
