#include "base/say.h"

#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>

#include "base/util.h"

void skep_say(const char *fmt, ...)
{
	struct pollfd p = { .fd = STDERR_FILENO, .events = POLLOUT };
	char text[1024];
	va_list ap;
	int len;

	va_start(ap, fmt);
	len = vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	if (len <= 0 || poll(&p, 1, 0) <= 0 || !(p.revents & POLLOUT))
		return;
	/* A pipe that is writable takes a whole page without blocking. */
	len = MIN(len, (int)sizeof(text) - 1);
	if (write(STDERR_FILENO, text, len) < 0)
		return;		/* nobody is left to be told */
}
