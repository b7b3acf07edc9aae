/* From text to typed values. */
#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "base/util.h"
#include "config/internal.h"
#include "config/nearest.h"

static const char *const true_words[] = { "true", "on", "yes", "1" };
static const char *const false_words[] = { "false", "off", "no", "0" };

int value_parse_bool(const char *text, bool *v)
{
	for (size_t i = 0; i < ARRAY_SIZE(true_words); i++) {
		if (!strcasecmp(text, true_words[i])) {
			*v = true;
			return 0;
		}
		if (!strcasecmp(text, false_words[i])) {
			*v = false;
			return 0;
		}
	}
	return -EINVAL;
}

static int digit_value(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c = tolower((unsigned char)c);
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	return 16;
}

/* Digits, decimal or 0x hexadecimal, no sign; returns the rest, NULL if there is no number. */
static const char *parse_number(const char *p, uint64_t *v)
{
	int base = 10;
	uint64_t n = 0;
	const char *start;

	if (p[0] == '0' && (p[1] == 'x' || p[1] == 'X')) {
		base = 16;
		p += 2;
	}
	for (start = p; digit_value(*p) < base; p++)
		if (__builtin_mul_overflow(n, (uint64_t)base, &n) ||
		    __builtin_add_overflow(n, (uint64_t)digit_value(*p), &n))
			return NULL;
	*v = n;
	return p == start ? NULL : p;
}

int value_parse_uint(const char *text, uint64_t *v)
{
	const char *end = parse_number(text, v);

	return end && !*end ? 0 : -EINVAL;
}

int value_parse_size(const char *text, uint64_t unit, uint64_t *v)
{
	static const char letters[] = "KMGT";
	const char *end = parse_number(text, v), *l;
	uint64_t scale = unit ? unit : 1;

	if (!end)
		return -EINVAL;
	if (*end) {
		scale = 1;
		l = strchr(letters, toupper((unsigned char)*end));
		if (l) {
			scale = 1ull << (10 * (l - letters + 1));
			end++;
			if (!strcasecmp(end, "iB"))
				end++;
		}
		if (tolower((unsigned char)*end) == 'b')
			end++;
		if (*end)
			return -EINVAL;
	}
	return __builtin_mul_overflow(*v, scale, v) ? -EINVAL : 0;
}

int value_parse_uuid(const char *text, uint8_t out[16])
{
	int n = 0;

	for (const char *p = text; *p; p++) {
		if (p - text == 8 || p - text == 13 || p - text == 18 || p - text == 23) {
			if (*p != '-')
				return -EINVAL;
			continue;
		}
		if (n == 32 || digit_value(*p) > 15)
			return -EINVAL;
		if (n % 2 == 0)
			out[n / 2] = 0;
		out[n / 2] = out[n / 2] << 4 | digit_value(*p);
		n++;
	}
	return n == 32 ? 0 : -EINVAL;
}

const char *value_size_text(uint64_t v, char buf[24])
{
	static const char letters[] = "KMGT";
	int i = 0;

	while (v && v % 1024 == 0 && i < 4) {
		v /= 1024;
		i++;
	}
	if (i)
		snprintf(buf, 24, "%" PRIu64 "%c", v, letters[i - 1]);
	else
		snprintf(buf, 24, "%" PRIu64, v);
	return buf;
}

const char *value_type_name(enum config_type t)
{
	switch (t) {
	case CONFIG_STRING: return "string";
	case CONFIG_PATH: return "path";
	case CONFIG_BOOL: return "boolean";
	case CONFIG_UINT: return "number";
	case CONFIG_SIZE: return "size";
	case CONFIG_CHOICE: return "choice";
	case CONFIG_UUID: return "uuid";
	}
	return "unknown";
}

static int check_range(const struct config_key *k, const char *what, const char *text,
		       uint64_t v, struct skep_error *e)
{
	char lo[24], hi[24], given[24];
	const char *min, *max;

	if (v >= k->min && (!k->max || v <= k->max))
		return 0;
	if (k->type == CONFIG_SIZE) {
		min = value_size_text(k->min, lo);
		max = value_size_text(k->max, hi);
		text = value_size_text(v, given);
	} else {
		snprintf(lo, sizeof(lo), "%" PRIu64, k->min);
		snprintf(hi, sizeof(hi), "%" PRIu64, k->max);
		min = lo;
		max = hi;
	}
	if (v < k->min)
		return skep_fail(e, EINVAL, "%s: %s is too small; the least is %s", what, text, min);
	return skep_fail(e, EINVAL, "%s: %s is too large; the most is %s", what, text, max);
}

static int fail_choice(const struct config_key *k, const char *what, const char *text,
		       struct skep_error *e)
{
	char list[200] = "", hint[160];
	struct nearest near;
	size_t len = 0;

	nearest_init(&near, text);
	for (const char *const *c = k->choices; *c; c++) {
		int n = snprintf(list + len, sizeof(list) - len, "%s%s", len ? ", " : "", *c);

		len = MIN(len + n, sizeof(list) - 1);
		nearest_offer(&near, *c);
	}
	return skep_fail(e, EINVAL, "%s: \"%s\" is none of: %s%s", what, text, list,
			 nearest_hint(&near, hint, sizeof(hint)));
}

int value_parse(const struct config_key *k, const char *what, const char *text,
		uint64_t *number, struct skep_error *e)
{
	uint64_t v = 0;
	uint8_t uuid[16];
	bool b;

	switch (k->type) {
	case CONFIG_STRING:
		break;
	case CONFIG_PATH:
		if (!*text)
			return skep_fail(e, EINVAL, "%s: a path cannot be empty", what);
		break;
	case CONFIG_BOOL:
		if (value_parse_bool(text, &b))
			return skep_fail(e, EINVAL, "%s: \"%s\" is neither true nor false "
					 "(true on yes 1, false off no 0)", what, text);
		v = b;
		break;
	case CONFIG_UINT:
		if (value_parse_uint(text, &v))
			return skep_fail(e, EINVAL, "%s: \"%s\" is not a whole number (decimal, "
					 "or 0x and hexadecimal, of at most 64 bits)", what, text);
		break;
	case CONFIG_SIZE:
		if (value_parse_size(text, k->unit, &v))
			return skep_fail(e, EINVAL, "%s: \"%s\" is not a size; write a whole number "
					 "with K, M, G or T, such as 512M", what, text);
		break;
	case CONFIG_CHOICE:
		for (const char *const *c = k->choices; ; c++) {
			if (!*c)
				return fail_choice(k, what, text, e);
			if (!strcmp(*c, text))
				break;
		}
		break;
	case CONFIG_UUID:
		if (value_parse_uuid(text, uuid))
			return skep_fail(e, EINVAL, "%s: \"%s\" is not a UUID such as "
					 "123e4567-e89b-12d3-a456-426614174000", what, text);
		break;
	}
	if (number)
		*number = v;
	if (k->type == CONFIG_UINT || k->type == CONFIG_SIZE)
		return check_range(k, what, text, v, e);
	return 0;
}
