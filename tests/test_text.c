/* Text of unknown origin: what a terminal and a JSON reader get to see. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>
#include <jansson.h>
#include <string.h>

#include "base/text.h"
#include "base/util.h"

static const struct {
	const char *text, *shown;
} cases[] = {
	{ "", "" },
	{ "plain text", "plain text" },
	{ "gr\xc3\xbc\xc3\x9f \xe2\x82\xac \xf0\x9f\x90\x9d", "gr\xc3\xbc\xc3\x9f \xe2\x82\xac \xf0\x9f\x90\x9d" },
	{ "\x1b[2J\a\r\n\t\x7f", "\\x1b[2J\\x07\\x0d\\x0a\\x09\\x7f" },
	{ "\xc2\x9b" "31m", "\\xc2\\x9b31m" },			/* CSI as one character */
	{ "\xe2\x80\xae\xe2\x81\xa6", "\\xe2\\x80\\xae\\xe2\\x81\\xa6" },	/* right to left */
	{ "\xff\xfe", "\\xff\\xfe" },
	{ "\xc0\xaf", "\\xc0\\xaf" },				/* overlong */
	{ "\xe0\x80\xaf", "\\xe0\\x80\\xaf" },
	{ "\xed\xa0\x80", "\\xed\\xa0\\x80" },			/* surrogate */
	{ "\xf4\x90\x80\x80", "\\xf4\\x90\\x80\\x80" },		/* beyond Unicode */
	{ "\xe2\x82", "\\xe2\\x82" },				/* cut off */
	{ "\xe2\x82x", "\\xe2\\x82x" },
	{ "\x80" "a\xbf", "\\x80a\\xbf" },
	{ "\"\\", "\"\\" },
};

static void shown(void **state)
{
	char buf[200], *out;
	size_t i, len;
	FILE *f;

	for (i = 0; i < ARRAY_SIZE(cases); i++) {
		text_escape(buf, sizeof(buf), cases[i].text, strlen(cases[i].text), 0);
		assert_string_equal(buf, cases[i].shown);
		f = open_memstream(&out, &len);
		text_print(f, cases[i].text, strlen(cases[i].text));
		fclose(f);
		assert_string_equal(out, cases[i].shown);
		free(out);
	}
	text_escape(buf, sizeof(buf), "a\0b\nc", 5, 1);
	assert_string_equal(buf, "a\\x00b\nc");
}

/* What does not fit is left out from a whole character on. */
static void cut_short(void **state)
{
	char buf[16];
	size_t size, i;

	for (size = 1; size < sizeof(buf); size++) {
		memset(buf, 'X', sizeof(buf));
		assert_ptr_equal(text_escape(buf, size, "a\xe2\x82\xac\x1b" "b", 6, 0), buf);
		for (i = size; i < sizeof(buf); i++)
			assert_int_equal(buf[i], 'X');
		assert_string_equal(buf, size < 2 ? "" : size < 5 ? "a" : size < 9 ? "a\xe2\x82\xac" :
				    size < 10 ? "a\xe2\x82\xac\\x1b" : "a\xe2\x82\xac\\x1b" "b");
	}
}

/* Whatever the bytes are, it is a JSON string; and text comes back as it was. */
static void json(void **state)
{
	char *out, text[32];
	size_t len, i, k;
	uint32_t x = 1;
	json_t *j, *same;
	FILE *f;

	for (i = 0; i < 20000; i++) {
		size_t n = i < ARRAY_SIZE(cases) ? strlen(cases[i].text) : i % 12;

		assert_true(n <= sizeof(text));

		for (k = 0; k < n; k++) {
			x = x * 1664525 + 1013904223;
			text[k] = i < ARRAY_SIZE(cases) ? cases[i].text[k] : (char)(x >> 24);
		}
		f = open_memstream(&out, &len);
		text_json(f, text, n);
		fclose(f);
		j = json_loadb(out, len, JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL);
		assert_non_null(j);
		same = json_stringn(text, n);	/* NULL: it is not UTF-8 */
		assert_true(!same || json_equal(j, same));
		json_decref(same);
		for (k = 0; k < len; k++)
			assert_true((uint8_t)out[k] >= 0x20 && out[k] != 0x7f);
		json_decref(j);
		free(out);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(shown), cmocka_unit_test(cut_short), cmocka_unit_test(json),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
