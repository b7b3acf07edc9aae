/*
 * Opens one snapshot.  Nothing in the file is believed: the note segment is read as a whole
 * (at most SNAP_NOTES_MAX, and never more than the file has), its digest compared, and then each
 * thing that it says is compared with what must be there.
 */
#include "snapshot/reader_priv.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "snapshot/draft.h"
#include "state/codec.h"

static int no_memory(struct skep_error *e)
{
	return skep_fail(e, ENOMEM, "no memory left to read it");
}

static int damaged(struct skep_error *e, const char *what)
{
	return skep_fail(e, EBADMSG, "%s: the file is damaged, or nothing that skep wrote", what);
}

/* ---- The file ----------------------------------------------------------- */

int snap_open_file(const char *path, struct skep_error *e)
{
	struct stat st;
	int fd;

	/* What is no file is not opened at all: a device may act on it. */
	if (stat(path, &st) < 0)
		return skep_fail(e, errno, "%s", strerror(errno));
	if (!S_ISREG(st.st_mode))
		return skep_fail(e, S_ISDIR(st.st_mode) ? EISDIR : EINVAL, "is not a regular file");
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	if (fd < 0)
		return skep_fail(e, errno, "%s", strerror(errno));
	return fd;
}

static int lock_file(struct snap_reader *r, struct skep_error *e)
{
	struct stat st;

	if (fstat(r->fd, &st) < 0)
		return skep_fail(e, errno, "%s", strerror(errno));
	if (!S_ISREG(st.st_mode))
		return skep_fail(e, EINVAL, "is not a regular file");
	r->file_size = st.st_size;
	if (flock(r->fd, LOCK_SH | LOCK_NB) == 0)
		return 0;
	if (errno == EWOULDBLOCK)
		return skep_fail(e, EBUSY, "is being changed: somebody holds a lock on it");
	/* A file system without locks is one where nobody can hold one. */
	return errno == ENOLCK || errno == EOPNOTSUPP || errno == EINVAL ? 0 :
		skep_fail(e, errno, "cannot be locked: %s", strerror(errno));
}

/* ---- Headers ------------------------------------------------------------ */

struct headers {
	uint8_t raw[SNAP_HEADERS_MAX];
	size_t len;
	unsigned loads;
	uint64_t notes_offset, notes_len;
};

/* Whoever packs a file to send it may forget to unpack it; NULL: it is nothing like that. */
static const char *packer(const uint8_t *begin)
{
	static const struct {
		uint8_t magic[6];
		uint8_t len;
		const char *program;
	} known[] = {
		{ { 0x1f, 0x8b }, 2, "gzip" },
		{ { 0x28, 0xb5, 0x2f, 0xfd }, 4, "zstd" },
		{ { 0xfd, '7', 'z', 'X', 'Z', 0 }, 6, "xz" },
		{ { 'B', 'Z', 'h' }, 3, "bzip2" },
		{ { 0x04, 0x22, 0x4d, 0x18 }, 4, "lz4" },
	};

	for (size_t i = 0; i < ARRAY_SIZE(known); i++)
		if (!memcmp(begin, known[i].magic, known[i].len))
			return known[i].program;
	return NULL;
}

static int no_snapshot(const uint8_t *begin, struct skep_error *e)
{
	const char *program = packer(begin);

	if (program)
		return skep_fail(e, EBADMSG, "is packed: unpack it first, with %s -d", program);
	return skep_fail(e, EBADMSG, "is no snapshot of skep");
}

static int read_headers(struct snap_reader *r, struct headers *h, struct skep_error *e)
{
	static const uint8_t ident[] = { ELFMAG0, ELFMAG1, ELFMAG2, ELFMAG3 };
	Elf64_Ehdr eh;
	Elf64_Phdr ph;
	int err;

	if (!r->file_size)
		return skep_fail(e, EBADMSG, "is empty: no snapshot");
	if (r->file_size < sizeof(eh))
		return damaged(e, "is too short for a snapshot");
	err = snap_pread(r->fd, &eh, sizeof(eh), 0, e);
	if (err < 0)
		return err;
	if (memcmp(eh.e_ident, ident, sizeof(ident)) || eh.e_type != ET_CORE ||
	    eh.e_machine != EM_X86_64 || eh.e_phoff != sizeof(eh) ||
	    eh.e_phentsize != sizeof(ph) || !eh.e_phnum || eh.e_phnum > 1 + SNAP_REGIONS_MAX)
		return no_snapshot(eh.e_ident, e);
	h->loads = eh.e_phnum - 1;
	h->len = sizeof(eh) + eh.e_phnum * sizeof(ph);
	err = snap_pread(r->fd, h->raw, h->len, 0, e);
	if (err < 0)
		return err;
	memcpy(&ph, h->raw + sizeof(eh), sizeof(ph));
	if (ph.p_type != PT_NOTE)
		return skep_fail(e, EBADMSG, "is no snapshot of skep: its notes are missing");
	h->notes_offset = ph.p_offset;
	h->notes_len = ph.p_filesz;
	if (h->notes_offset % SNAP_PAGE || h->notes_offset < SNAP_RUNS_BASE ||
	    h->notes_offset > r->file_size || h->notes_len > r->file_size - h->notes_offset)
		return skep_fail(e, EBADMSG, "was cut short, or its headers are damaged: it has "
				 "%llu bytes, and its notes would be %llu bytes at %llu",
				 (unsigned long long)r->file_size, (unsigned long long)h->notes_len,
				 (unsigned long long)h->notes_offset);
	if (h->notes_offset + h->notes_len != r->file_size)
		return skep_fail(e, EBADMSG, "has %llu bytes after its end: it is damaged",
				 (unsigned long long)(r->file_size - h->notes_offset -
						      h->notes_len));
	if (h->notes_len > SNAP_NOTES_MAX)
		return skep_fail(e, EFBIG, "has %llu bytes of notes, and %llu are allowed",
				 (unsigned long long)h->notes_len,
				 (unsigned long long)SNAP_NOTES_MAX);
	return 0;
}

/* ---- Notes -------------------------------------------------------------- */

int snap_next_note(const struct snap_reader *r, size_t *at, struct snap_note_view *n,
		   struct skep_error *e)
{
	size_t left = r->notes_len - *at;
	const uint8_t *p = r->notes + *at;
	uint64_t name_len, need, data;

	if (left < SNAP_NHDR)
		return damaged(e, "has half a note at its end");
	name_len = load32(p);
	n->len = load32(p + 4);
	n->type = load32(p + 8);
	data = SNAP_NHDR + ALIGN_UP(name_len, 4);
	need = data + ALIGN_UP((uint64_t)n->len, 4);
	if (need > left)
		return damaged(e, "has a note that reaches beyond its end");
	n->name = (const char *)p + SNAP_NHDR;
	if (!name_len || strnlen(n->name, name_len) != name_len - 1)
		return damaged(e, "has a note whose name is no string");
	n->data = p + data;
	*at += need;
	return 0;
}

/* The end mark lies at the very end, and says what everything before it must sum up to. */
static int check_digest(struct snap_reader *r, const struct headers *h, struct skep_error *e)
{
	const uint8_t *mark = r->notes + r->notes_len - SNAP_DIGEST_SIZE;
	struct snap_hash *hash = snap_hash_create();
	uint8_t digest[SNAP_DIGEST_SIZE];

	if (!hash)
		return no_memory(e);
	snap_digest_begin(hash);
	snap_digest_update(hash, h->raw, h->len);
	snap_digest_update(hash, r->notes, r->notes_len - SNAP_DIGEST_SIZE);
	snap_digest_end(hash, digest);
	snap_hash_free(hash);
	if (memcmp(digest, mark, SNAP_DIGEST_SIZE))
		return skep_fail(e, EBADMSG, "is damaged: its headers and notes do not have the "
				 "digest that its end mark names");
	memcpy(r->digest, digest, SNAP_DIGEST_SIZE);
	return 0;
}

static int read_notes(struct snap_reader *r, const struct headers *h, struct skep_error *e)
{
	if (h->notes_len < SNAP_NHDR + 8 + SNAP_DIGEST_SIZE)
		return damaged(e, "has no end mark");
	r->notes_len = h->notes_len;
	r->notes_offset = h->notes_offset;
	r->notes_memory = malloc(r->notes_len + 4);
	if (!r->notes_memory)
		return no_memory(e);
	r->notes = r->notes_memory;
	return snap_pread(r->fd, r->notes, r->notes_len, r->notes_offset, e);
}

static int add_record(struct snap_reader *r, const struct snap_note_view *n, size_t *cap,
		      struct skep_error *e)
{
	if (r->nrecords == SNAP_RECORDS_MAX)
		return skep_fail(e, EFBIG, "has more than %d records, and no machine has so many",
				 SNAP_RECORDS_MAX);
	if (r->nrecords == *cap) {
		size_t more = *cap ? 2 * *cap : 64;
		void *p = realloc(r->records, more * sizeof(*r->records));

		if (!p)
			return no_memory(e);
		r->records = p;
		*cap = more;
	}
	r->records[r->nrecords++] = (struct snap_record){
		n->data, n->len, r->notes_offset + (n->data - r->notes)
	};
	return 0;
}

/* Notes of others first, then the manifest, records, one table, the end mark. */
static int walk_notes(struct snap_reader *r, struct snap_note_view *table, struct skep_error *e)
{
	uint32_t stage = 0;	/* the type of ours that came last */
	size_t at = 0, cap = 0;
	struct snap_note_view n;
	int err = 0;

	while (!err && at < r->notes_len) {
		err = snap_next_note(r, &at, &n, e);
		if (err < 0)
			return err;
		if (strcmp(n.name, SNAP_NOTE_NAME)) {
			if (stage)
				return damaged(e, "has a note of another kind among its own");
			continue;
		}
		if (n.type == SNAP_NOTE_MANIFEST && !stage) {
			r->manifest_note = (struct snap_record){
				n.data, n.len, r->notes_offset + (n.data - r->notes)
			};
		} else if (n.type == SNAP_NOTE_RECORD && stage && stage <= SNAP_NOTE_RECORD) {
			err = add_record(r, &n, &cap, e);
		} else if ((n.type == SNAP_NOTE_CHECKSUMS || n.type == SNAP_NOTE_PAGES) && stage &&
			   stage <= SNAP_NOTE_RECORD) {
			*table = n;
		} else if (n.type != SNAP_NOTE_END || stage < SNAP_NOTE_CHECKSUMS ||
			   stage == SNAP_NOTE_END) {
			return skep_fail(e, EBADMSG, "has a note of type %#x where none belongs: it is "
					 "of a newer skep, or damaged", n.type);
		} else if (n.len != SNAP_DIGEST_SIZE || at != r->notes_len) {
			return damaged(e, "has an end mark that is not its end");
		}
		stage = n.type;
	}
	if (!err && stage != SNAP_NOTE_END)
		return damaged(e, "has no end mark");
	return err;
}

/* Tables are used where they lie: notes are 4-byte aligned in the file, and these want 8. */
static void align_table(struct snap_reader *r, struct snap_note_view *table)
{
	size_t i;

	if (!((uintptr_t)table->data & 7))
		return;
	memmove(r->notes + 4, r->notes, r->notes_len);
	r->notes += 4;
	table->data += 4;
	r->manifest_note.data += 4;
	for (i = 0; i < r->nrecords; i++)
		r->records[i].data += 4;
}

/* ---- The manifest ------------------------------------------------------- */

static int check_settings(const struct manifest *m, struct skep_error *e)
{
	const struct manifest_setting *s = m->config.items;
	uint32_t i, k;

	for (i = 0; i < m->config.count; i++) {
		if (s[i].value.len && memchr(s[i].value.data, 0, s[i].value.len))
			return skep_fail(e, EBADMSG, "manifest: the value of '%s' is no text",
					 s[i].key);
		for (k = 0; k < i; k++)
			if (!strcmp(s[i].key, s[k].key))
				return skep_fail(e, EBADMSG, "manifest: '%s' is there twice",
						 s[i].key);
	}
	return 0;
}

static int check_manifest(struct snap_reader *r, struct skep_error *e)
{
	const struct manifest *m = &r->manifest;
	const struct manifest_region *region = m->regions.items;
	const struct state_blob *p = &m->parent_path;
	static const uint8_t none[SNAP_DIGEST_SIZE];
	uint32_t i;
	int err;

	if (m->format != SNAP_FORMAT)
		return skep_fail(e, ENOTSUP, "is in format %u, and this skep reads format %u",
				 m->format, SNAP_FORMAT);
	if (!m->cpus)
		return skep_fail(e, EBADMSG, "manifest: a machine has a processor");
	for (i = 0; i < m->regions.count && i < SNAP_REGIONS_MAX; i++)
		r->region[i] = (struct snap_region){ .gpa = region[i].gpa, .size = region[i].size };
	r->nregions = m->regions.count;
	err = snap_check_regions(r->region, r->nregions, e);
	if (err < 0)
		return err;
	if (m->delta != !!memcmp(m->parent, none, sizeof(none)) || (!m->delta && p->len) ||
	    (p->len && memchr(p->data, 0, p->len)))
		return skep_fail(e, EBADMSG, "manifest: what it says of a parent contradicts itself");
	return check_settings(m, e);
}

/* ---- All of it ---------------------------------------------------------- */

static int read_one(struct snap_reader *r, struct skep_error *e)
{
	uint8_t expected[SNAP_HEADERS_MAX];
	struct snap_note_view table = { 0 };
	struct headers h;
	int err;

	err = lock_file(r, e);
	if (!err)
		err = read_headers(r, &h, e);
	if (!err)
		err = read_notes(r, &h, e);
	if (!err)
		err = check_digest(r, &h, e);
	if (!err)
		err = walk_notes(r, &table, e);
	if (err < 0)
		return err;
	align_table(r, &table);
	err = state_decode(&manifest_record, "manifest", r->manifest_note.data,
			   r->manifest_note.len, &r->manifest, NULL, NULL, e);
	if (err < 0)
		return snap_draft_manifest_changed(&r->manifest_note, err, e);
	err = check_manifest(r, e);
	if (err < 0)
		return err;
	snap_place_regions(r->region, r->nregions, &r->nchunks);
	if (table.type == SNAP_NOTE_PAGES)
		err = snap_check_runs(r, table.data, table.len, e);
	else
		err = snap_check_checksums(r, table.data, table.len, e);
	if (err < 0)
		return err;
	/* Whatever the headers say is known by now: they can be nothing but this. */
	if (h.len != snap_headers(expected, r->region, r->checksums ? r->nregions : 0,
				  h.notes_offset, h.notes_len) || memcmp(h.raw, expected, h.len))
		return damaged(e, "has ELF headers that do not fit its manifest");
	return 0;
}

struct snap_reader *snap_open_one(int fd, const char *path, struct skep_error *e)
{
	struct snap_reader *r = calloc(1, sizeof(*r));
	int err;

	if (!r) {
		close(fd);
		errno = -no_memory(e);
		return NULL;
	}
	r->fd = fd;
	r->path = strdup(path);
	err = r->path ? read_one(r, e) : no_memory(e);
	if (err < 0) {
		snap_close(r);
		errno = -err;
		return NULL;
	}
	return r;
}

struct snap_reader *snap_open_fd(int fd, const char *path, unsigned flags, struct skep_error *e)
{
	struct snap_reader *r = snap_open_one(fd, path ? path : "the snapshot", e);
	int err;

	if (!r) {
		skep_error_prefix(e, "%s", path ? path : "the snapshot");
		return NULL;
	}
	/* The chain names the files itself: not all that is wrong lies in this one. */
	if (flags & SNAP_OPEN_PART)
		e->text[0] = '\0';
	err = flags & SNAP_OPEN_ALONE ? 0 : snap_open_chain(r, e);
	if (err < 0 && !(flags & SNAP_OPEN_PART)) {
		snap_close(r);
		errno = -err;
		return NULL;
	}
	return r;
}

struct snap_reader *snap_open(const char *path, unsigned flags, struct skep_error *e)
{
	int fd = snap_open_file(path, e);

	if (fd < 0) {
		skep_error_prefix(e, "%s", path);
		errno = -fd;
		return NULL;
	}
	return snap_open_fd(fd, path, flags, e);
}

void snap_close(struct snap_reader *r)
{
	while (r) {
		struct snap_reader *parent = r->parent;

		if (r->fd >= 0)
			close(r->fd);	/* and with it the lock */
		state_free(&manifest_record, &r->manifest);
		snap_inflate_free(r->inflate);
		free(r->records);
		free(r->notes_memory);
		free(r->path);
		free(r);
		r = parent;
	}
}
