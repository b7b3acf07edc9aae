#include "base/error.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

int skep_fail(struct skep_error *e, int err, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(e->text, sizeof(e->text), fmt, ap);
	va_end(ap);
	return err > 0 ? -err : err;
}

void skep_error_prefix(struct skep_error *e, const char *fmt, ...)
{
	char context[SKEP_ERROR_TEXT], text[SKEP_ERROR_TEXT];
	va_list ap;
	size_t n;

	va_start(ap, fmt);
	vsnprintf(context, sizeof(context), fmt, ap);
	va_end(ap);
	memcpy(text, e->text, sizeof(text));
	text[sizeof(text) - 1] = '\0';

	/* A context that leaves no room for the sentence is cut, the sentence next. */
	snprintf(e->text, sizeof(e->text), "%s", context);
	n = strlen(e->text);
	snprintf(e->text + n, sizeof(e->text) - n, ": %s", text);
}
