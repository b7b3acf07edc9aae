/* Buses: overlaps, gaps, splitting, the ends of the address space, changes from within. */
#include "vm_helper.h"

#include <string.h>

#include "vm/bus.h"

/* A device that answers with its tag and the offset, and writes down what it is asked. */
struct toy {
	uint8_t tag;
	char log[256];
	struct bus *bus;	/* unmapped from within a write, if set */
	uint64_t base;
};

static uint64_t toy_read(void *opaque, uint64_t offset, unsigned size)
{
	struct toy *t = opaque;
	uint64_t v = 0;
	unsigned i;

	snprintf(t->log + strlen(t->log), sizeof(t->log) - strlen(t->log), "r%u@%llx ", size,
		 (unsigned long long)offset);
	for (i = 0; i < size; i++)
		v |= (uint64_t)(uint8_t)(t->tag + offset + i) << 8 * i;
	/* What is above the size is for the bus to drop. */
	return size < 8 ? v | ~0ull << 8 * size : v;
}

static void toy_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
	struct toy *t = opaque;

	snprintf(t->log + strlen(t->log), sizeof(t->log) - strlen(t->log), "w%u@%llx=%llx ", size,
		 (unsigned long long)offset, (unsigned long long)value);
	if (t->bus)
		bus_unmap(t->bus, t->base);
}

static const struct bus_ops wide = { toy_read, toy_write, 0 };
static const struct bus_ops narrow = { toy_read, toy_write, 1 };
static const struct bus_ops middle = { toy_read, toy_write, 4 };

static struct bus b;
static struct skep_error e;

static int setup(void **state)
{
	bus_init(&b, "port", 0xffff);
	return 0;
}

static int teardown(void **state)
{
	bus_finish(&b);
	return 0;
}

static void nothing_answers(void **state)
{
	assert_int_equal(bus_read(&b, 0, 1), 0xff);
	assert_int_equal(bus_read(&b, 0xffff, 1), 0xff);
	assert_int_equal(bus_read(&b, 0xffff, 4), 0xffffffff);
	assert_int_equal(bus_read(&b, 0x10000, 2), 0xffff);
	assert_true(bus_read(&b, UINT64_MAX - 3, 8) == UINT64_MAX);
	bus_write(&b, 0xfffe, 8, 1);
	bus_write(&b, UINT64_MAX, 8, 1);
}

static void overlaps_are_refused(void **state)
{
	struct toy t = { 0 };

	assert_int_equal(bus_map(&b, 0x3f8, 8, &wide, &t, "com1", &e), 0);
	assert_true(bus_map(&b, 0x3f8, 8, &wide, &t, "x", &e) < 0);
	assert_non_null(strstr(e.text, "com1"));
	assert_non_null(strstr(e.text, "x: port range 0x3f8-0x3ff"));
	assert_true(bus_map(&b, 0x3ff, 1, &wide, &t, "x", &e) < 0);
	assert_true(bus_map(&b, 0x3f0, 9, &wide, &t, "x", &e) < 0);
	assert_true(bus_map(&b, 0, 0x10000, &wide, &t, "x", &e) < 0);
	assert_true(bus_map(&b, 0x3fa, 2, &wide, &t, "x", &e) < 0);
	assert_int_equal(bus_map(&b, 0x400, 1, &wide, &t, "after", &e), 0);
	assert_int_equal(bus_map(&b, 0x3f0, 8, &wide, &t, "before", &e), 0);

	assert_true(bus_map(&b, 0x10, 0, &wide, &t, "x", &e) < 0);
	assert_true(bus_map(&b, 0xffff, 2, &wide, &t, "x", &e) < 0);
	assert_true(bus_map(&b, UINT64_MAX, 2, &wide, &t, "x", &e) < 0);
	assert_true(bus_map(&b, 0x8000, UINT64_MAX, &wide, &t, "x", &e) < 0);

	/* What is gone may come back; what is not there goes quietly. */
	bus_unmap(&b, 0x3f9);
	assert_true(bus_map(&b, 0x3f8, 8, &wide, &t, "x", &e) < 0);
	bus_unmap(&b, 0x3f8);
	assert_int_equal(bus_read(&b, 0x3f8, 1), 0xff);
	assert_int_equal(bus_map(&b, 0x3f8, 8, &wide, &t, "again", &e), 0);
}

static void wide_accesses_are_split(void **state)
{
	struct toy n = { .tag = 0x10 }, w = { .tag = 0x40 }, h = { .tag = 0x80 };

	assert_int_equal(bus_map(&b, 0x100, 8, &narrow, &n, "narrow", &e), 0);
	assert_int_equal(bus_map(&b, 0x108, 8, &wide, &w, "wide", &e), 0);
	assert_int_equal(bus_map(&b, 0x110, 8, &middle, &h, "middle", &e), 0);

	assert_int_equal(bus_read(&b, 0x101, 4), 0x14131211);
	assert_string_equal(n.log, "r1@1 r1@2 r1@3 r1@4 ");
	assert_true(bus_read(&b, 0x108, 8) == 0x4746454443424140);
	assert_string_equal(w.log, "r8@0 ");
	bus_write(&b, 0x110, 8, 0x1122334455667788);
	assert_string_equal(h.log, "w4@0=55667788 w4@4=11223344 ");

	/* From one into the next. */
	n.log[0] = w.log[0] = '\0';
	assert_int_equal(bus_read(&b, 0x106, 4), 0x41401716);
	assert_string_equal(n.log, "r1@6 r1@7 ");
	assert_string_equal(w.log, "r2@0 ");
}

static void gaps_within_an_access(void **state)
{
	struct toy t = { .tag = 1 };

	assert_int_equal(bus_map(&b, 0x201, 1, &wide, &t, "one", &e), 0);
	assert_int_equal(bus_map(&b, 0x206, 2, &wide, &t, "two", &e), 0);
	assert_true(bus_read(&b, 0x200, 8) == 0x0201ffffffff01ff);
	assert_string_equal(t.log, "r1@0 r2@0 ");
	t.log[0] = '\0';
	bus_write(&b, 0x200, 8, 0x8877665544332211);
	assert_string_equal(t.log, "w1@0=22 w2@0=8877 ");
	/* Three bytes to the end of a range are two and one. */
	t.log[0] = '\0';
	assert_int_equal(bus_map(&b, 0x300, 3, &wide, &t, "three", &e), 0);
	assert_int_equal(bus_read(&b, 0x300, 4), 0xff030201);
	assert_string_equal(t.log, "r2@0 r1@2 ");
}

static void ends_of_the_bus(void **state)
{
	struct bus m;
	struct toy t = { .tag = 0 };

	assert_int_equal(bus_map(&b, 0xffff, 1, &wide, &t, "last", &e), 0);
	assert_int_equal(bus_read(&b, 0xffff, 2), 0xff00);
	assert_string_equal(t.log, "r1@0 ");

	bus_init(&m, "memory", UINT64_MAX);
	t.log[0] = '\0';
	assert_int_equal(bus_map(&m, UINT64_MAX - 3, 4, &wide, &t, "top", &e), 0);
	assert_int_equal(bus_map(&m, 0, 4, &wide, &t, "bottom", &e), 0);
	/* The access does not come round to the bottom. */
	assert_true(bus_read(&m, UINT64_MAX - 1, 8) == 0xffffffffffff0302);
	assert_string_equal(t.log, "r2@2 ");
	bus_write(&m, UINT64_MAX, 8, 0x1234);
	assert_string_equal(t.log, "r2@2 w1@3=34 ");
	assert_int_equal(bus_read(&m, UINT64_MAX - 5, 1), 0xff);
	bus_finish(&m);

	/* All of it as one range. */
	bus_init(&m, "memory", UINT64_MAX);
	assert_int_equal(bus_map(&m, 1, UINT64_MAX, &wide, &t, "all", &e), 0);
	t.log[0] = '\0';
	bus_read(&m, UINT64_MAX, 1);
	assert_string_equal(t.log, "r1@fffffffffffffffe ");
	bus_finish(&m);
}

static void a_device_may_unmap_itself(void **state)
{
	struct toy t = { .bus = &b, .base = 0x500 };

	assert_int_equal(bus_map(&b, 0x500, 4, &narrow, &t, "shy", &e), 0);
	bus_write(&b, 0x500, 4, 0x01020304);
	/* The rest of the access found nothing. */
	assert_string_equal(t.log, "w1@0=4 ");
	assert_int_equal(bus_read(&b, 0x500, 1), 0xff);
}

static void many_ranges(void **state)
{
	struct toy t[64];
	unsigned i, k;

	memset(t, 0, sizeof(t));
	for (i = 0; i < 64; i++) {
		k = i * 37 % 64;	/* in no order */
		t[k].tag = (uint8_t)k;
		assert_int_equal(bus_map(&b, 0x1000 + k * 16, 8, &wide, &t[k], "many", &e), 0);
	}
	for (i = 0; i < 64; i++) {
		assert_int_equal(bus_read(&b, 0x1000 + i * 16, 1), i);
		assert_int_equal(bus_read(&b, 0x1000 + i * 16 + 8, 1), 0xff);
	}
	for (i = 0; i < 64; i += 2)
		bus_unmap(&b, 0x1000 + i * 16);
	for (i = 0; i < 64; i++)
		assert_int_equal(bus_read(&b, 0x1000 + i * 16, 1), i % 2 ? i : 0xff);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(nothing_answers, setup, teardown),
		cmocka_unit_test_setup_teardown(overlaps_are_refused, setup, teardown),
		cmocka_unit_test_setup_teardown(wide_accesses_are_split, setup, teardown),
		cmocka_unit_test_setup_teardown(gaps_within_an_access, setup, teardown),
		cmocka_unit_test_setup_teardown(ends_of_the_bus, setup, teardown),
		cmocka_unit_test_setup_teardown(a_device_may_unmap_itself, setup, teardown),
		cmocka_unit_test_setup_teardown(many_ranges, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
