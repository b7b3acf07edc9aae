#include "base/text.h"

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

/* Bytes of the character at s, or 0: there is none that UTF-8 allows. */
static size_t character(const uint8_t *s, size_t len, uint32_t *c)
{
	static const uint32_t least[] = { 0, 0, 0x80, 0x800, 0x10000 };
	size_t n, i;

	n = s[0] < 0x80 ? 1 : s[0] >> 5 == 6 ? 2 : s[0] >> 4 == 14 ? 3 : s[0] >> 3 == 30 ? 4 : 0;
	if (!n || n > len)
		return 0;
	*c = n == 1 ? s[0] : s[0] & (0x7fu >> n);
	for (i = 1; i < n; i++) {
		if (s[i] >> 6 != 2)
			return 0;
		*c = *c << 6 | (s[i] & 0x3f);
	}
	if (*c < least[n] || *c > 0x10ffff || (*c >= 0xd800 && *c < 0xe000))
		return 0;
	return n;
}

/* Control characters, and those that change how the text around them is shown. */
static bool steers(uint32_t c)
{
	return c < 0x20 || (c >= 0x7f && c < 0xa0) || c == 0x61c || c == 0x200e || c == 0x200f ||
	       (c >= 0x2028 && c <= 0x202e) || (c >= 0x2066 && c <= 0x2069) || c == 0xfeff;
}

/*
 * The next piece of the text as it may be shown: what is fine stays as it is, the rest is
 * spelled out, in piece.  Returns how many bytes of the text it stands for.
 */
static size_t shown(const uint8_t *s, size_t len, bool keep_lines, char piece[20])
{
	uint32_t c;
	size_t n = character(s, len, &c), i;

	if (n && (!steers(c) || (keep_lines && c == '\n'))) {
		memcpy(piece, s, n);
		piece[n] = '\0';
		return n;
	}
	n = n ? n : 1;
	for (i = 0; i < n; i++)
		snprintf(piece + 4 * i, 5, "\\x%02x", s[i]);
	return n;
}

void text_print(FILE *out, const void *text, size_t len)
{
	const uint8_t *s = text;
	char piece[20];

	while (len) {
		size_t n = shown(s, len, false, piece);

		fputs(piece, out);
		s += n;
		len -= n;
	}
}

char *text_escape(char *buf, size_t size, const void *text, size_t len, int keep_lines)
{
	const uint8_t *s = text;
	char piece[20];
	size_t at = 0;

	while (len) {
		size_t n = shown(s, len, keep_lines, piece), room = strlen(piece);

		if (at + room >= size)
			break;
		memcpy(buf + at, piece, room);
		at += room;
		s += n;
		len -= n;
	}
	buf[at] = '\0';
	return buf;
}

void text_json(FILE *out, const void *text, size_t len)
{
	const uint8_t *s = text;
	uint32_t c;

	fputc('"', out);
	while (len) {
		size_t n = character(s, len, &c);

		if (!n)
			fprintf(out, "\\u%04x", s[0]);
		else if (c == '"' || c == '\\')
			fprintf(out, "\\%c", (int)c);
		else if (steers(c))
			fprintf(out, "\\u%04x", c);
		else
			fwrite(s, 1, n, out);
		n = n ? n : 1;
		s += n;
		len -= n;
	}
	fputc('"', out);
}
