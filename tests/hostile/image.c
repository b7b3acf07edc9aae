#include "hostile.h"

#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "snapshot/container.h"

#define EHDR	64
#define PHDR	56
#define PAGE	4096u

static void *copy(const void *data, size_t len)
{
	void *p = malloc(len ? len : 1);

	if (!p)
		abort();
	if (len)
		memcpy(p, data, len);
	return p;
}

void image_insert(struct image *m, size_t k, const struct image_note *n)
{
	struct image_note own = *n;

	own.name = copy(n->name, n->name_len);
	own.data = copy(n->data, n->len);
	if (m->nnotes == m->room) {
		m->room = 2 * m->room + 64;
		m->note = realloc(m->note, m->room * sizeof(*m->note));
		if (!m->note)
			abort();
	}
	memmove(&m->note[k + 1], &m->note[k], (m->nnotes++ - k) * sizeof(m->note[0]));
	m->note[k] = own;
}

/* ---- Apart ----------------------------------------------------------------- */

static bool parse_notes(struct image *m, const uint8_t *p, size_t len)
{
	size_t at = 0;

	while (at < len) {
		uint64_t name, data;

		if (len - at < SNAP_NHDR)
			return false;
		name = load32(p + at);
		data = load32(p + at + 4);
		if (ALIGN_UP(name, 4) + ALIGN_UP(data, 4) > len - at - SNAP_NHDR)
			return false;
		image_insert(m, m->nnotes, &(struct image_note){
			.name = (uint8_t *)p + at + SNAP_NHDR, .name_len = (uint32_t)name,
			.type = load32(p + at + 8),
			.data = (uint8_t *)p + at + SNAP_NHDR + ALIGN_UP(name, 4), .len = data,
		});
		at += SNAP_NHDR + ALIGN_UP(name, 4) + ALIGN_UP(data, 4);
	}
	return at == len;
}

static void add_part(struct image *m, uint64_t offset, const uint8_t *data, size_t len)
{
	m->parts = realloc(m->parts, (m->nparts + 1) * sizeof(*m->parts));
	if (!m->parts)
		abort();
	m->parts[m->nparts++] = (struct image_part){ offset, copy(data, len), len };
}

static bool zero(const uint8_t *p, size_t len)
{
	while (len && !*p) {
		p++;
		len--;
	}
	return !len;
}

/* What is not zero between header and notes. */
static void find_parts(struct image *m, const uint8_t *data)
{
	uint64_t at, from = 0;

	for (at = IMAGE_HEAD; at < m->notes_offset; at += PAGE) {
		bool some = !zero(data + at, MIN(PAGE, m->notes_offset - at));

		if (some && !from)
			from = at;
		if (!some && from) {
			add_part(m, from, data + from, at - from);
			from = 0;
		}
	}
	if (from)
		add_part(m, from, data + from, m->notes_offset - from);
}

bool image_parse(struct image *m, const uint8_t *data, size_t len)
{
	uint64_t offset, size;

	memset(m, 0, sizeof(*m));
	if (len < IMAGE_HEAD || len > IMAGE_MAX || memcmp(data, "\177ELF", 4))
		return false;
	offset = load64(data + EHDR + 8);
	size = load64(data + EHDR + 32);
	if (offset < IMAGE_HEAD || offset % 4 || offset > len || size != len - offset)
		return false;
	memcpy(m->head, data, IMAGE_HEAD);
	m->notes_offset = offset;
	if (!parse_notes(m, data + offset, size)) {
		image_free(m);
		return false;
	}
	find_parts(m, data);
	return true;
}

void image_copy(struct image *to, const struct image *from)
{
	size_t i;

	*to = *from;
	to->parts = NULL;
	to->note = NULL;
	to->nparts = to->nnotes = to->room = 0;
	for (i = 0; i < from->nparts; i++)
		add_part(to, from->parts[i].offset, from->parts[i].data, from->parts[i].len);
	for (i = 0; i < from->nnotes; i++)
		image_insert(to, i, &from->note[i]);
}

void image_free(struct image *m)
{
	size_t i;

	for (i = 0; i < m->nparts; i++)
		free(m->parts[i].data);
	free(m->parts);
	for (i = 0; i < m->nnotes; i++) {
		free(m->note[i].name);
		free(m->note[i].data);
	}
	free(m->note);
	m->parts = NULL;
	m->note = NULL;
	m->nparts = m->nnotes = m->room = 0;
}

/* ---- Together -------------------------------------------------------------- */

static size_t note_size(const struct image_note *n)
{
	return SNAP_NHDR + ALIGN_UP((size_t)n->name_len, 4) + ALIGN_UP(n->len, 4);
}

static void seal(const struct image *m, uint8_t *notes, size_t len)
{
	struct snap_hash *h = snap_hash_create();
	unsigned n = load16(m->head + 56);

	if (!h)
		abort();
	snap_digest_begin(h);
	snap_digest_update(h, m->head, MIN(EHDR + PHDR * n, (unsigned)SNAP_HEADERS_MAX));
	snap_digest_update(h, notes, len - SNAP_DIGEST_SIZE);
	snap_digest_end(h, notes + len - SNAP_DIGEST_SIZE);
	snap_hash_free(h);
}

uint8_t *image_notes(struct image *m, size_t *len)
{
	size_t size = 0, at = 0, i;
	uint8_t *out;

	for (i = 0; i < m->nnotes; i++)
		size += note_size(&m->note[i]);
	out = calloc(1, size + 1);
	if (!out)
		abort();
	for (i = 0; i < m->nnotes; i++) {
		const struct image_note *n = &m->note[i];

		store32(out + at, n->name_len);
		store32(out + at + 4, (uint32_t)n->len);
		store32(out + at + 8, n->type);
		memcpy(out + at + SNAP_NHDR, n->name, n->name_len);
		memcpy(out + at + SNAP_NHDR + ALIGN_UP((size_t)n->name_len, 4), n->data, n->len);
		at += note_size(n);
	}
	if (!m->loose) {
		store64(m->head + EHDR + 32, size);
		store64(m->head + EHDR + 40, size);
	}
	if (m->nnotes && m->note[m->nnotes - 1].len == SNAP_DIGEST_SIZE)
		seal(m, out, size);
	*len = size;
	return out;
}

uint8_t *image_bytes(struct image *m, size_t *len)
{
	size_t size, i;
	uint8_t *notes = image_notes(m, &size), *out;

	out = calloc(1, m->notes_offset + size + 1);
	if (!out)
		abort();
	memcpy(out, m->head, MIN((uint64_t)IMAGE_HEAD, m->notes_offset));
	for (i = 0; i < m->nparts; i++)
		if (m->parts[i].offset + m->parts[i].len <= m->notes_offset)
			memcpy(out + m->parts[i].offset, m->parts[i].data, m->parts[i].len);
	memcpy(out + m->notes_offset, notes, size);
	free(notes);
	*len = m->notes_offset + size;
	return out;
}

/* ---- Without holes ---------------------------------------------------------- */

static const char magic[8] = "SKEPHOLE";

uint8_t *sparse_pack(const uint8_t *data, size_t len, size_t *packed)
{
	uint8_t *out = malloc(len + len / 64 + 64);
	size_t at, n = sizeof(magic), from;

	if (!out)
		abort();
	memcpy(out, magic, sizeof(magic));
	for (at = 0; at < len;) {
		while (at < len && zero(data + at, MIN((size_t)512, len - at)))
			at += MIN((size_t)512, len - at);
		from = at;
		while (at < len && !zero(data + at, MIN((size_t)512, len - at)))
			at += MIN((size_t)512, len - at);
		if (from == at)
			continue;
		store64(out + n, from);
		store64(out + n + 8, at - from);
		memcpy(out + n + 16, data + from, at - from);
		n += 16 + at - from;
	}
	store64(out + n, len);
	store64(out + n + 8, 0);
	*packed = n + 16;
	return out;
}

uint8_t *sparse_unpack(const uint8_t *data, size_t len, size_t *unpacked)
{
	uint8_t *out;
	size_t at;

	if (len < sizeof(magic) || memcmp(data, magic, sizeof(magic)))
		return NULL;
	out = calloc(1, IMAGE_MAX);
	if (!out)
		abort();
	*unpacked = 0;
	for (at = sizeof(magic); len - at >= 16;) {
		uint64_t offset = load64(data + at), n = load64(data + at + 8);

		at += 16;
		if (offset > IMAGE_MAX || n > IMAGE_MAX - offset || n > len - at)
			break;
		if (!n) {
			*unpacked = offset;
			break;
		}
		memcpy(out + offset, data + at, n);
		at += n;
		*unpacked = MAX(*unpacked, offset + n);
	}
	return out;
}
