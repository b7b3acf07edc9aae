/* State tables: dump, check, errors; the table of the processor; device types. */
#include "vm_helper.h"

#include <string.h>

#include "cpu/arch.h"
#include "state/state.h"

struct inner { uint8_t a; uint16_t b[2]; };
struct outer {
	uint8_t u8;
	uint16_t u16;
	uint32_t u32;
	uint64_t u64;
	bool flag;
	int64_t when;
	uint8_t raw[3];
	uint8_t rows[2][2];
	uint8_t matrix[2][3];
	struct inner one, many[2];
};

static const struct state_field inner_fields[] = {
	STATE_U8(struct inner, a, .max = 9),
	STATE_ARRAY(struct inner, b, STATE_T_U16),
};
static const struct state_record inner_record = { "inner", 1, sizeof(struct inner), inner_fields,
						  ARRAY_SIZE(inner_fields), NULL, NULL };
static const struct state_field outer_fields[] = {
	STATE_U8(struct outer, u8),
	STATE_U16(struct outer, u16, .max = 0x100),
	STATE_U32(struct outer, u32),
	STATE_U64(struct outer, u64),
	STATE_BOOL(struct outer, flag),
	STATE_TIME(struct outer, when, .max = 1000),
	STATE_BYTES(struct outer, raw),
	STATE_ARRAY(struct outer, rows, STATE_T_BYTES),
	STATE_ARRAY(struct outer, matrix, STATE_T_U8),
	STATE_STRUCT(struct outer, one, &inner_record),
	STATE_STRUCTS(struct outer, many, &inner_record),
};
static const struct state_record outer_record = { "outer", 1, sizeof(struct outer), outer_fields,
						  ARRAY_SIZE(outer_fields), NULL, NULL };

static struct outer sample(void)
{
	return (struct outer){
		.u8 = 255, .u16 = 0x100, .u32 = UINT32_MAX, .u64 = UINT64_MAX, .flag = true,
		.when = -5, .raw = { 0, 0xab, 1 }, .rows = { { 1, 2 }, { 3, 4 } },
		.matrix = { { 1, 2, 3 }, { 4, 5, 6 } }, .one = { 9, { 1, 2 } },
		.many = { { 0, { 3, 4 } }, { 1, { 5, 6 } } },
	};
}

static void dump(void **state)
{
	static const char want[] =
		"x.u8 = 0xff\nx.u16 = 0x100\nx.u32 = 0xffffffff\nx.u64 = 0xffffffffffffffff\n"
		"x.flag = 0x1\nx.when = -5\nx.raw = 00ab01\nx.rows[0] = 0102\nx.rows[1] = 0304\n"
		"x.matrix[0] = 0x1\nx.matrix[1] = 0x2\nx.matrix[2] = 0x3\nx.matrix[3] = 0x4\n"
		"x.matrix[4] = 0x5\nx.matrix[5] = 0x6\n"
		"x.one.a = 0x9\nx.one.b[0] = 0x1\nx.one.b[1] = 0x2\n"
		"x.many[0].a = 0x0\nx.many[0].b[0] = 0x3\nx.many[0].b[1] = 0x4\n"
		"x.many[1].a = 0x1\nx.many[1].b[0] = 0x5\nx.many[1].b[1] = 0x6\n";
	struct outer o = sample();
	char *text = NULL;
	size_t len;
	FILE *f = open_memstream(&text, &len);

	assert_non_null(f);
	state_dump(f, "x", &outer_record, &o);
	state_dump(f, "y", &STATE_NONE, NULL);
	fclose(f);
	assert_string_equal(text, want);
	free(text);
}

static void check(void **state)
{
	struct skep_error e = { .text = "" };
	struct outer o = sample();
	uint8_t two = 2;

	assert_int_equal(state_check(&outer_record, "x", &o, NULL, &e), 0);
	o.u16 = 0x101;
	assert_true(state_check(&outer_record, "x", &o, NULL, &e) < 0);
	assert_non_null(strstr(e.text, "x.u16: 0x101"));
	o = sample();
	o.when = 1001;
	assert_true(state_check(&outer_record, "x", &o, NULL, &e) < 0);
	o.when = INT64_MIN;
	assert_int_equal(state_check(&outer_record, "x", &o, NULL, &e), 0);
	o.many[1].a = 10;
	assert_true(state_check(&outer_record, "x", &o, NULL, &e) < 0);
	assert_non_null(strstr(e.text, "x.many[1].a"));
	o = sample();
	memcpy((char *)&o + offsetof(struct outer, flag), &two, 1);
	assert_true(state_check(&outer_record, "x", &o, NULL, &e) < 0);
	assert_non_null(strstr(e.text, "x.flag"));
	assert_int_equal(state_check(&STATE_NONE, "y", NULL, NULL, &e), 0);
}

static size_t covered(const struct state_record *r)
{
	size_t i, n = 0;

	for (i = 0; i < r->nfields; i++)
		n += r->fields[i].type == STATE_T_STRUCT ?
			covered(r->fields[i].sub) * r->fields[i].count :
			(size_t)r->fields[i].size * r->fields[i].count;
	return n;
}

/* Every byte of the processor's state is in its table, but for padding. */
static void processor_is_whole(void **state)
{
	const struct state_record *r = &cpu_arch_record;
	size_t i, end = 0;

	for (i = 0; i < r->nfields; i++) {
		const struct state_field *f = &r->fields[i];

		assert_true(f->offset >= end);
		assert_true(f->offset - end < 16);	/* alignment, no forgotten field of note */
		end = f->offset + (size_t)f->size * f->count;
	}
	assert_true(r->model_size - end < 16);
	/* 35 padding bytes would hide a field: say how many there are. */
	assert_true(sizeof(struct cpu_arch_state) - covered(r) <=
		    SEG_COUNT * 7 + 2 * 6 + 32 + 16);
}

static void errors(void **state)
{
	struct skep_error e;
	char longer[2 * SKEP_ERROR_TEXT];

	assert_int_equal(skep_fail(&e, 22, "key: %d", 5), -22);
	assert_int_equal(skep_fail(&e, -22, "key: %d", 5), -22);
	skep_error_prefix(&e, "file:%d", 3);
	assert_string_equal(e.text, "file:3: key: 5");
	memset(longer, 'x', sizeof(longer) - 1);
	longer[sizeof(longer) - 1] = '\0';
	skep_fail(&e, 1, "%s", longer);
	assert_int_equal(strlen(e.text), SKEP_ERROR_TEXT - 1);
	skep_error_prefix(&e, "%s", longer);
	assert_int_equal(strlen(e.text), SKEP_ERROR_TEXT - 1);
}

static void device_types_are_whole(void **state)
{
	struct skep_error e = { .text = "" };

	if (device_types_check(&e) < 0)
		fail_msg("%s", e.text);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(dump),
		cmocka_unit_test(check),
		cmocka_unit_test(processor_is_whole),
		cmocka_unit_test(errors),
		cmocka_unit_test(device_types_are_whole),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
