/*
 * The writer's notes and headers; RAM is in writer_ram.c.
 *
 * The headers come last: a file that was not finished is no ELF file.
 */
#include "snapshot/writer_priv.h"

#include <elf.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>

#define PRSTATUS_SIZE	336	/* struct elf_prstatus of x86-64 */
#define PRSTATUS_PID	32
#define PRSTATUS_REG	112

static int no_memory(struct skep_error *e)
{
	return skep_fail(e, ENOMEM, "no memory left to write the snapshot");
}

struct snap_writer *snap_writer_create(int fd, const struct snap_layout *l, struct skep_error *e)
{
	struct snap_writer *w = calloc(1, sizeof(*w));
	struct stat st;
	unsigned i;

	if (!w) {
		no_memory(e);
		return NULL;
	}
	w->fd = fd;
	w->runs_wanted = l->runs;
	w->whole = l->whole;
	w->nregions = l->nregions;
	for (i = 0; i < l->nregions && i < SNAP_REGIONS_MAX; i++)
		w->region[i] = (struct snap_region){ .gpa = l->region[i].gpa,
						     .size = l->region[i].size };
	if (snap_check_regions(w->region, w->nregions, e) < 0)
		goto fail;
	if (l->zstd_level && !l->runs) {
		skep_fail(e, EINVAL, "a plain snapshot is not compressed");
		goto fail;
	}
	if (fstat(fd, &st) < 0) {
		skep_fail(e, errno, "the file for the snapshot: %s", strerror(errno));
		goto fail;
	}
	if (!S_ISREG(st.st_mode) || st.st_size) {
		skep_fail(e, EINVAL, "the snapshot is written into an empty regular file only");
		goto fail;
	}
	w->end = snap_place_regions(w->region, w->nregions, &w->nchunks);
	if (l->runs)
		w->end = SNAP_RUNS_BASE;
	w->hash = snap_hash_create();
	if (!w->hash || snap_writer_ram_init(w, l) < 0) {
		no_memory(e);
		goto fail;
	}
	return w;
fail:
	snap_writer_destroy(w);
	return NULL;
}

void snap_writer_destroy(struct snap_writer *w)
{
	if (!w)
		return;
	snap_writer_ram_finish(w);
	snap_hash_free(w->hash);
	free(w->core.data);
	free(w->skep.data);
	free(w);
}

uint64_t snap_writer_bytes(const struct snap_writer *w)
{
	return w->bytes;
}

static void put_head(uint8_t *p, const char *name, uint32_t type, uint32_t len)
{
	store32(p, strlen(name) + 1);
	store32(p + 4, len);
	store32(p + 8, type);
}

/* Room for a note; *content: len bytes of zeroes. */
static int note_room(struct snap_notes *n, const char *name, uint32_t type, size_t len,
		     uint8_t **content, struct skep_error *e)
{
	size_t named = ALIGN_UP(strlen(name) + 1, (size_t)4);
	size_t need;
	uint8_t *p;

	if (len > SNAP_NOTES_MAX || n->len > SNAP_NOTES_MAX)
		return skep_fail(e, EFBIG, "the machine's state is larger than the %llu MiB that a "
				 "snapshot holds beside RAM",
				 (unsigned long long)(SNAP_NOTES_MAX / MiB));
	need = n->len + SNAP_NHDR + named + ALIGN_UP(len, (size_t)4);
	if (need > n->cap) {
		size_t cap = MAX(need, 2 * n->cap);

		p = realloc(n->data, cap);
		if (!p)
			return no_memory(e);
		n->data = p;
		n->cap = cap;
	}
	p = n->data + n->len;
	memset(p, 0, need - n->len);
	put_head(p, name, type, len);
	memcpy(p + SNAP_NHDR, name, strlen(name));
	n->len = need;
	*content = p + SNAP_NHDR + named;
	return 0;
}

static int add_note(struct snap_notes *n, const char *name, uint32_t type, const void *data,
		    size_t len, struct skep_error *e)
{
	uint8_t *p;
	int err = note_room(n, name, type, len, &p, e);

	if (!err && len)
		memcpy(p, data, len);
	return err;
}

int snap_writer_note(struct snap_writer *w, enum snap_note type, const void *data, size_t len,
		     struct skep_error *e)
{
	if (type != (w->skep.len ? SNAP_NOTE_RECORD : SNAP_NOTE_MANIFEST))
		return skep_fail(e, EINVAL, "a snapshot has one manifest, and then records");
	return add_note(&w->skep, SNAP_NOTE_NAME, type, data, len, e);
}

int snap_writer_foreign(struct snap_writer *w, const char *name, uint32_t type, const void *data,
			size_t len, struct skep_error *e)
{
	return add_note(&w->core, name, type, data, len, e);
}

int snap_writer_vmcoreinfo(struct snap_writer *w, const void *data, size_t len,
			   struct skep_error *e)
{
	return add_note(&w->core, "VMCOREINFO", 0, data, len, e);
}

int snap_writer_cpu(struct snap_writer *w, const struct snap_regs *r, struct skep_error *e)
{
	/* The kernel's user_regs_struct; -1: not in a system call. */
	const uint64_t regs[] = {
		r->gpr[15], r->gpr[14], r->gpr[13], r->gpr[12], r->gpr[5], r->gpr[3],
		r->gpr[11], r->gpr[10], r->gpr[9], r->gpr[8], r->gpr[0], r->gpr[1], r->gpr[2],
		r->gpr[6], r->gpr[7], UINT64_MAX, r->rip, r->cs, r->rflags, r->gpr[4], r->ss,
		r->fs_base, r->gs_base, r->ds, r->es, r->fs, r->gs,
	};
	uint8_t *p;
	int err = note_room(&w->core, "CORE", NT_PRSTATUS, PRSTATUS_SIZE, &p, e);

	if (err < 0)
		return err;
	store32(p + PRSTATUS_PID, ++w->ncpus);
	memcpy(p + PRSTATUS_REG, regs, sizeof(regs));
	return 0;
}

/* ---- The end of the file ----------------------------------------------- */

/* Bytes to the file and into the digest; at: where they belong, moved on. */
static int put(struct snap_writer *w, const void *data, size_t len, uint64_t *at,
	       struct skep_error *e)
{
	int err = snap_pwrite(w->fd, data, len, *at, e);

	if (err < 0)
		return err;
	snap_digest_update(w->hash, data, len);
	*at += len;
	w->bytes += len;
	return 0;
}

int snap_writer_finish(struct snap_writer *w, uint8_t digest[SNAP_DIGEST_SIZE],
		       struct skep_error *e)
{
	const size_t named = sizeof(SNAP_NOTE_NAME) + (-sizeof(SNAP_NOTE_NAME) & 3);
	const size_t head = SNAP_NHDR + named;
	const void *table = w->runs_wanted ? (const void *)w->runs : (const void *)w->sums;
	size_t table_len = w->runs_wanted ? w->nruns * sizeof(*w->runs)
					  : w->nchunks * sizeof(*w->sums);
	uint64_t notes = ALIGN_UP(w->end, SNAP_PAGE), at = notes;
	uint64_t len = w->core.len + w->skep.len + 2 * head + table_len + SNAP_DIGEST_SIZE;
	uint8_t headers[SNAP_HEADERS_MAX], mark[2 * SNAP_NHDR] = { 0 };
	size_t hlen;
	int err;

	if (!w->skep.len)
		return skep_fail(e, EINVAL, "a snapshot needs a manifest");
	if (len > SNAP_NOTES_MAX)
		return skep_fail(e, EFBIG, "the pages of this snapshot are so scattered that their "
				 "table takes more than %llu MiB: save without --delta",
				 (unsigned long long)(SNAP_NOTES_MAX / MiB));
	hlen = snap_headers(headers, w->region, w->runs_wanted ? 0 : w->nregions, notes, len);
	snap_digest_begin(w->hash);
	snap_digest_update(w->hash, headers, hlen);
	err = put(w, w->core.data, w->core.len, &at, e);
	if (!err)
		err = put(w, w->skep.data, w->skep.len, &at, e);
	put_head(mark, SNAP_NOTE_NAME, w->runs_wanted ? SNAP_NOTE_PAGES : SNAP_NOTE_CHECKSUMS,
		 table_len);
	memcpy(mark + SNAP_NHDR, SNAP_NOTE_NAME, sizeof(SNAP_NOTE_NAME));
	if (!err)
		err = put(w, mark, head, &at, e);
	if (!err)
		err = put(w, table, table_len, &at, e);
	put_head(mark, SNAP_NOTE_NAME, SNAP_NOTE_END, SNAP_DIGEST_SIZE);
	if (!err)
		err = put(w, mark, head, &at, e);
	if (err < 0)
		return err;
	snap_digest_end(w->hash, digest);
	err = snap_pwrite(w->fd, digest, SNAP_DIGEST_SIZE, at, e);
	if (!err)
		err = snap_pwrite(w->fd, headers, hlen, 0, e);
	w->bytes += SNAP_DIGEST_SIZE + hlen;
	return err;
}
