/* What takes more than a change: files that are large where they should be small. */
#include "hostile.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/util.h"
#include "cbor.h"
#include "snapshot/format.h"

static _Noreturn void wrong(const char *what, const char *why)
{
	fprintf(stderr, "hostile: %s: %s\n", what, why);
	abort();
}

static enum hostile_result load(struct image *m, const char *path, char *text)
{
	const struct hostile_options o = { .path = path, .choice = 1 << 9, .insns = 1000 };
	size_t len;
	uint8_t *data = image_bytes(m, &len);
	enum hostile_result got = hostile_load(data, len, &o, text);

	free(data);
	return got;
}

static void must_refuse(struct image *m, const char *path, const char *words)
{
	char text[256] = "it was accepted";

	if (load(m, path, text) != HOSTILE_REFUSED || !strstr(text, words))
		wrong(words, text);
	image_free(m);
}

/* The note that holds the record of this name, and its tree. */
static struct image_note *find(struct image *m, struct arena *a, const char *name,
			       struct node **root)
{
	size_t i;

	for (i = 0; i < m->nnotes; i++) {
		struct node *text;

		if (m->note[i].type != SNAP_NOTE_RECORD && m->note[i].type != SNAP_NOTE_MANIFEST)
			continue;
		*root = node_parse(a, m->note[i].data, m->note[i].len);
		text = node_get(*root, "name");
		if (text && text->len == strlen(name) && !memcmp(text->data, name, text->len))
			return &m->note[i];
	}
	wrong(name, "there is no such record");
}

static void replace(struct image_note *n, struct node *root)
{
	free(n->data);
	n->data = node_bytes(root, true, &n->len);
}

/* Each costs memory: so many no machine has. */
static void records(const struct seed *s)
{
	struct image m;
	size_t at, i;

	image_copy(&m, &s->image);
	for (at = 0; m.note[at].type != SNAP_NOTE_RECORD; at++)
		;
	for (i = 0; i < 5000; i++) {
		struct image_note n = m.note[at];

		n.len = 1;
		image_insert(&m, at, &n);
	}
	must_refuse(&m, s->path, "more than 4096 records");
}

/* Keys that a reader may skip: it says so, but not without end. */
static void optional_keys(const struct seed *s)
{
	FILE *said = tmpfile();
	int keep = dup(STDERR_FILENO), c;
	struct arena a = { 0 };
	struct node *root, *opt;
	struct image_note *n;
	unsigned lines = 0;
	char key[16];
	struct image m;

	image_copy(&m, &s->image);
	n = find(&m, &a, "reset", &root);
	opt = node_get(root, "opt");
	for (unsigned i = 300000; i-- > 0;) {
		struct node *k;

		snprintf(key, sizeof(key), "k%06u", i);
		k = node_text(&a, key);
		k->next = node_uint(&a, 0);
		k->next->next = opt->first;
		opt->first = k;
	}
	free(n->data);
	n->data = node_bytes(root, false, &n->len);
	if (!said || keep < 0)
		wrong("optional keys", "no file for what is said");
	dup2(fileno(said), STDERR_FILENO);
	if (load(&m, s->path, NULL) != HOSTILE_ACCEPTED)
		lines = 1u << 31;
	dup2(keep, STDERR_FILENO);
	close(keep);
	rewind(said);
	while ((c = fgetc(said)) != EOF)
		lines += c == '\n';
	fclose(said);
	if (!lines || lines > 20)
		wrong("optional keys", "they are told without end, or not at all");
	arena_free(&a);
	image_free(&m);
}

/* A count that could run over would take guest time back. */
static void instructions(const struct seed *s)
{
	struct arena a = { 0 };
	struct node *root, *req;
	struct image_note *n;
	struct image m;

	image_copy(&m, &s->image);
	n = find(&m, &a, "machine", &root);
	req = node_get(root, "req");
	node_set(node_get(req, "insns"), 1ull << 63);
	replace(n, root);
	must_refuse(&m, s->path, "insns");
	arena_free(&a);
}

static struct node *setting(struct arena *a, const char *key, const char *value)
{
	struct node *n = node_uint(a, 0);

	n->type = NODE_MAP;
	n->first = node_text(a, "key");
	n->first->next = node_text(a, key);
	n->first->next->next = node_text(a, "value");
	n->first->next->next->next = node_string(a, NODE_BYTES, value, strlen(value));
	return n;
}

/* A machine that resets, whose kernel is a pipe that nobody writes to: it ends, and does not wait. */
static void kernel_is_a_pipe(const struct seed *s)
{
	struct arena a = { 0 };
	struct node *root, *list, *it, **at, *key;
	struct image_note *n;
	char path[160];
	struct image m;

	snprintf(path, sizeof(path), "%s.pipe", s->path);
	unlink(path);
	if (mkfifo(path, 0600) < 0)
		wrong("a pipe", "it cannot be made");
	image_copy(&m, &s->image);
	n = find(&m, &a, "machine", &root);
	it = node_get(node_get(root, "req"), "reset_requested");
	*it = (struct node){ .type = NODE_SIMPLE, .value = 21, .next = it->next };
	replace(n, root);
	n = find(&m, &a, "manifest", &root);
	list = node_get(node_get(root, "req"), "config");
	for (at = &list->first; *at; at = &(*at)->next) {
		key = node_get(*at, "key");
		if (key->len == 11 && !memcmp(key->data, "boot.kernel", 11)) {
			it = setting(&a, "boot.kernel", path);
			it->next = (*at)->next;
			*at = it;
		}
	}
	replace(n, root);
	if (load(&m, s->path, NULL) != HOSTILE_ACCEPTED)
		wrong("a pipe", "the machine was refused");
	unlink(path);
	arena_free(&a);
	image_free(&m);
}

void limits(const struct seed *zstd)
{
	records(zstd);
	optional_keys(zstd);
	instructions(zstd);
	kernel_is_a_pipe(zstd);
}
