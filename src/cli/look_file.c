/* What is said of any snapshot: kind, sizes, dates. */
#include <inttypes.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>

#include "base/util.h"
#include "cli/look.h"
#include "snapshot/reader.h"

const char *look_date(int64_t ns, char buf[48])
{
	int64_t seconds = ns / NSEC_PER_SEC - (ns % NSEC_PER_SEC < 0);
	time_t t = seconds;
	struct tm tm;

	/* Any number of nanoseconds is a year that gmtime knows. */
	if (!gmtime_r(&t, &tm) || !strftime(buf, 48, "%Y-%m-%d %H:%M:%S UTC", &tm))
		snprintf(buf, 48, "%" PRId64 " s after 1970", seconds);
	return buf;
}

const char *look_span(int64_t ns, char buf[48])
{
	uint64_t n = ns < 0 ? 0 - (uint64_t)ns : (uint64_t)ns, s = n / NSEC_PER_SEC;

	if (s >= 2 * 86400)
		snprintf(buf, 48, "%" PRIu64 " days %" PRIu64 " h", s / 86400, s % 86400 / 3600);
	else if (s >= 3600)
		snprintf(buf, 48, "%" PRIu64 " h %" PRIu64 " min", s / 3600, s % 3600 / 60);
	else if (s >= 60)
		snprintf(buf, 48, "%" PRIu64 " min %" PRIu64 " s", s / 60, s % 60);
	else if (s >= 1)
		snprintf(buf, 48, "%.2f s", (double)n / NSEC_PER_SEC);
	else
		snprintf(buf, 48, "%.1f ms", (double)n / 1e6);
	return buf;
}

static void count_runs(const struct snap_reader *r, struct look_file *f)
{
	bool compressed = !r->manifest.delta;
	size_t i;

	for (i = 0; i < r->nruns; i++) {
		f->told += r->runs[i].len;
		f->stored += r->runs[i].stored;
		compressed = compressed || r->runs[i].encoding == SNAP_ZSTD;
	}
	if (!r->manifest.delta)
		f->told = f->ram;
	f->kind = !r->manifest.delta ? "compressed" : compressed ? "compressed delta" : "delta";
}

void look_file(const struct snap_reader *r, struct look_file *f)
{
	const struct snap_reader *p;
	struct stat st;
	unsigned i;

	memset(f, 0, sizeof(*f));
	f->size = r->file_size;
	f->allocated = fstat(r->fd, &st) == 0 ? (uint64_t)st.st_blocks * 512 : f->size;
	for (i = 0; i < r->nregions; i++)
		f->ram += r->region[i].size;
	for (p = r->parent; p; p = p->parent)
		f->parents++;
	if (!r->checksums) {
		count_runs(r, f);
		return;
	}
	f->kind = "plain";
	f->told = f->ram;
	f->stored = f->allocated > r->notes_len ? MIN(f->allocated - r->notes_len, f->ram) : 0;
}

void look_file_json(const struct look_file *f)
{
	printf("\"kind\": \"%s\", \"size\": %" PRIu64 ", \"allocated\": %" PRIu64 ", \"ram_bytes\": %"
	       PRIu64 ", \"ram_told\": %" PRIu64 ", \"ram_stored\": %" PRIu64, f->kind, f->size,
	       f->allocated, f->ram, f->told, f->stored);
}
