#include "cli/look.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <unistd.h>

#include "base/text.h"
#include "base/util.h"
#include "cli/cli.h"
#include "config/nearest.h"

#define TELL_EVERY (NSEC_PER_SEC / 10)

bool look_progress(void *opaque, uint64_t done, uint64_t all)
{
	struct look_progress *p = opaque;
	int64_t now = cli_monotonic_ns();
	double seconds, rate;
	char a[32], b[32], c[32];

	if (!p->begin_ns)
		p->begin_ns = p->told_ns = now;
	if (p->quiet || now - p->told_ns < TELL_EVERY || !isatty(STDERR_FILENO))
		return true;
	p->told_ns = now;
	p->shown = true;
	seconds = (double)(now - p->begin_ns) / NSEC_PER_SEC;
	rate = (double)done / seconds;
	fputs("\r", stderr);
	text_print(stderr, p->what, strlen(p->what));
	fprintf(stderr, ": %s of %s, %s/s", look_size(done, a), look_size(all, b),
		look_size((uint64_t)rate, c));
	if (rate > 0 && all > done)
		fprintf(stderr, ", %.0f s left", (double)(all - done) / rate);
	fputs("\033[K", stderr);
	return true;
}

void look_progress_end(struct look_progress *p)
{
	if (p->shown)
		fputs("\r\033[K", stderr);
	p->shown = false;
	p->begin_ns = 0;
}

const char *look_size(uint64_t bytes, char buf[32])
{
	static const struct { uint64_t unit; const char *name; } units[] = {
		{ GiB, "GiB" }, { MiB, "MiB" }, { KiB, "KiB" },
	};
	size_t i;

	for (i = 0; i < ARRAY_SIZE(units); i++) {
		if (bytes < units[i].unit)
			continue;
		if (bytes % units[i].unit == 0 || bytes / units[i].unit >= 100)
			snprintf(buf, 32, "%" PRIu64 " %s", bytes / units[i].unit, units[i].name);
		else
			snprintf(buf, 32, "%.1f %s", (double)bytes / units[i].unit, units[i].name);
		return buf;
	}
	snprintf(buf, 32, "%" PRIu64 " byte%s", bytes, bytes == 1 ? "" : "s");
	return buf;
}

const char *look_count(uint64_t n, const char *what, char buf[48])
{
	snprintf(buf, 48, "%" PRIu64 " %s%s", n, what, n == 1 ? "" : "s");
	return buf;
}

void look_hex(FILE *out, const uint8_t *p, size_t n)
{
	size_t i;

	for (i = 0; i < n; i++)
		fprintf(out, "%02x", p[i]);
}

void look_text(const char *text)
{
	text_print(stdout, text, strlen(text));
}

int look_bad_option(const char *command, const struct option *options, char **argv, int got,
		    struct skep_error *e)
{
	const char *word = argv[optind - 1];
	struct nearest near;
	char hint[160], full[40];

	if (got == ':')
		return skep_fail(e, EINVAL, "%s needs a value", word);
	nearest_init(&near, word);
	for (; options->name; options++) {
		snprintf(full, sizeof(full), "--%s", options->name);
		nearest_offer(&near, full);
	}
	nearest_hint(&near, hint, sizeof(hint));
	if (*hint)
		return skep_fail(e, EINVAL, "there is no option %.80s%s", word, hint);
	return skep_fail(e, EINVAL, "there is no option %.80s; `skep %s --help` lists them", word,
			 command);
}

int look_end(int code)
{
	if (fflush(stdout) == 0 && !ferror(stdout))
		return code;
	cli_complain("the output cannot be written: %s", strerror(errno));
	return CLI_ERROR;
}
