/* COM1: output by polling, input by interrupt (board.c). */
#include <stdarg.h>

#include "board.h"

#define COM1 0x3f8

void console_init(void)
{
	outb(COM1 + 1, 0);
	outb(COM1 + 3, 0x80);
	outb(COM1, 1);			/* 115200 */
	outb(COM1 + 1, 0);
	outb(COM1 + 3, 3);		/* 8N1 */
	outb(COM1 + 2, 7);		/* FIFOs, cleared, announced at every byte */
	outb(COM1 + 4, 0x0b);		/* DTR, RTS, OUT2 */
	outb(COM1 + 1, 1);		/* receive interrupt */
}

static void put(char c)
{
	if (c == '\n')
		put('\r');
	while (!(inb(COM1 + 5) & 0x20))
		;
	outb(COM1, c);
}

static void put_number(uint64_t v, unsigned base, unsigned width, char pad)
{
	char buf[24];
	unsigned n = 0;

	do {
		buf[n++] = "0123456789abcdef"[v % base];
		v /= base;
	} while (v);
	while (n < width && n < sizeof(buf))
		buf[n++] = pad;
	while (n)
		put(buf[--n]);
}

void print(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	for (; *fmt; fmt++) {
		unsigned width = 0;
		char pad = ' ';
		bool wide = false;

		if (*fmt != '%') {
			put(*fmt);
			continue;
		}
		if (*++fmt == '0')
			pad = '0';
		for (; *fmt >= '0' && *fmt <= '9'; fmt++)
			width = width * 10 + *fmt - '0';
		for (; *fmt == 'l'; fmt++)
			wide = true;
		if (*fmt == 's') {
			for (const char *s = va_arg(ap, const char *); *s; s++)
				put(*s);
		} else if (*fmt == 'c') {
			put(va_arg(ap, int));
		} else {
			put_number(wide ? va_arg(ap, uint64_t) : va_arg(ap, unsigned),
				   *fmt == 'x' ? 16 : 10, width, pad);
		}
	}
	va_end(ap);
}
