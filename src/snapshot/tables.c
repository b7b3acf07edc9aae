/* The tables of RAM: compared with the regions, the headers and the file before anything uses them. */
#include "snapshot/reader_priv.h"

#include <errno.h>

int snap_check_checksums(struct snap_reader *r, const uint8_t *data, size_t len,
			 struct skep_error *e)
{
	const struct snap_region *last = &r->region[r->nregions - 1];

	if (r->manifest.delta)
		return skep_fail(e, EBADMSG, "says that it is a delta, and has no page table");
	if (len != r->nchunks * sizeof(uint64_t))
		return skep_fail(e, EBADMSG, "has a table of %zu bytes of checksums, and its RAM needs "
				 "%zu", len, r->nchunks * sizeof(uint64_t));
	if (r->notes_offset != last->offset + last->size)
		return skep_fail(e, EBADMSG, "has its notes at %#llx, and its RAM ends at %#llx",
				 (unsigned long long)r->notes_offset,
				 (unsigned long long)(last->offset + last->size));
	r->checksums = (const uint64_t *)data;
	return 0;
}

static const char *stored_wrong(const struct snap_reader *r, const struct snap_run *run,
				uint64_t end)
{
	switch (run->encoding) {
	case SNAP_ZERO:
		if (run->offset || run->stored || run->checksum)
			return "is zero, and yet stored";
		if (!r->manifest.delta)
			return "is zero, which is told in a delta only";
		return NULL;
	case SNAP_RAW:
		if (run->stored != run->len || run->offset % SNAP_PAGE)
			return "is not stored as what it is";
		break;
	case SNAP_ZSTD:
		if (!run->stored || run->stored >= run->len)
			return "is compressed, and did not shrink";
		break;
	default:
		return "has an unknown encoding";
	}
	/* Stored bytes follow each other as the runs do: none twice, none in headers or notes. */
	if (run->offset < end || run->offset > r->notes_offset ||
	    run->stored > r->notes_offset - run->offset)
		return "is stored where nothing of RAM may lie";
	return NULL;
}

static const char *run_wrong(const struct snap_reader *r, const struct snap_run *run,
			     uint64_t next)
{
	const struct snap_region *in;

	if (run->reserved)
		return "has a reserved field that is not zero";
	if (!run->len || run->len % SNAP_PAGE || run->gpa % SNAP_PAGE || run->len > RAM_CHUNK)
		return "is not made of pages";
	if (run->gpa < next)
		return "overlaps the one before";
	in = snap_find_region(r->region, r->nregions, run->gpa, run->len);
	if (!in)
		return "lies outside RAM";
	if ((run->gpa - in->gpa) / RAM_CHUNK != (run->gpa + run->len - 1 - in->gpa) / RAM_CHUNK)
		return "reaches over two chunks";
	return NULL;
}

int snap_check_runs(struct snap_reader *r, const uint8_t *data, size_t len, struct skep_error *e)
{
	const struct snap_run *run = (const struct snap_run *)data;
	uint64_t next = 0, end = SNAP_RUNS_BASE;
	const char *wrong;
	size_t i;

	if (len % sizeof(*run))
		return skep_fail(e, EBADMSG, "has a page table of %zu bytes, which is no whole number "
				 "of runs", len);
	r->runs = run;
	r->nruns = len / sizeof(*run);
	for (i = 0; i < r->nruns; i++, run++) {
		wrong = run_wrong(r, run, next);
		if (!wrong)
			wrong = stored_wrong(r, run, end);
		if (wrong)
			return skep_fail(e, EBADMSG, "page table: run %zu, %llu bytes at %#llx, %s",
					 i, (unsigned long long)run->len,
					 (unsigned long long)run->gpa, wrong);
		next = run->gpa + run->len;
		if (run->encoding != SNAP_ZERO)
			end = run->offset + run->stored;
	}
	if (r->notes_offset != ALIGN_UP(end, SNAP_PAGE))
		return skep_fail(e, EBADMSG, "has its notes at %#llx, and its RAM ends at %#llx",
				 (unsigned long long)r->notes_offset, (unsigned long long)end);
	return 0;
}

size_t snap_first_run(const struct snap_reader *r, uint64_t gpa)
{
	size_t low = 0, high = r->nruns;

	while (low < high) {
		size_t mid = low + (high - low) / 2;

		if (r->runs[mid].gpa < gpa)
			low = mid + 1;
		else
			high = mid;
	}
	return low;
}
