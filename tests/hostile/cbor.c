#include "cbor.h"

#include <stdlib.h>
#include <string.h>

#include "base/util.h"

#define DEPTH_MAX	32
#define BLOCK_SIZE	(64 * 1024)

/* ---- Memory ----------------------------------------------------------------- */

void *arena_get(struct arena *a, size_t len)
{
	struct block *b = a->blocks;
	void *p;

	len = ALIGN_UP(len, 16);
	if (!b || b->size - b->used < len) {
		size_t size = MAX((size_t)BLOCK_SIZE, len + sizeof(*b) + 16);

		b = malloc(size);
		if (!b)
			abort();
		b->next = a->blocks;
		b->used = ALIGN_UP(sizeof(*b), 16);
		b->size = size;
		a->blocks = b;
	}
	p = (char *)b + b->used;
	b->used += len;
	return memset(p, 0, len);
}

void arena_free(struct arena *a)
{
	while (a->blocks) {
		struct block *next = a->blocks->next;

		free(a->blocks);
		a->blocks = next;
	}
}

/* ---- Bytes to a tree ---------------------------------------------------------- */

struct parser {
	struct arena *a;
	const uint8_t *p, *end;
};

static bool head(struct parser *s, enum node_type *type, uint64_t *v)
{
	unsigned more, k;

	if (s->p == s->end)
		return false;
	*type = *s->p >> 5;
	*v = *s->p++ & 31;
	if (*v < 24)
		return true;
	if (*v > 27)
		return false;
	more = 1u << (*v - 24);
	if ((size_t)(s->end - s->p) < more)
		return false;
	for (*v = 0, k = 0; k < more; k++)
		*v = *v << 8 | *s->p++;
	return true;
}

static struct node *parse(struct parser *s, unsigned depth)
{
	struct node *n = arena_get(s->a, sizeof(*n)), **at = &n->first;
	uint64_t v, count;

	if (depth > DEPTH_MAX || !head(s, &n->type, &v))
		return NULL;
	n->value = v;
	if (n->type == NODE_BYTES || n->type == NODE_TEXT) {
		if (v > (size_t)(s->end - s->p))
			return NULL;
		n->len = v;
		n->data = memcpy(arena_get(s->a, v + 1), s->p, v);
		s->p += v;
		return n;
	}
	count = n->type == NODE_ARRAY ? v : n->type == NODE_MAP ? 2 * v : n->type == NODE_TAG;
	for (; count; count--) {
		*at = parse(s, depth + 1);
		if (!*at)
			return NULL;
		at = &(*at)->next;
	}
	return n;
}

struct node *node_parse(struct arena *a, const uint8_t *data, size_t len)
{
	struct parser s = { a, data, data + len };
	struct node *n = parse(&s, 0);

	return s.p == s.end ? n : NULL;
}

struct node *node_copy(struct arena *a, const struct node *n)
{
	struct node *to = arena_get(a, sizeof(*to)), **at = &to->first;
	const struct node *c;

	*to = *n;
	to->next = to->first = NULL;
	if (n->data)
		to->data = memcpy(arena_get(a, n->len + 1), n->data, n->len);
	for (c = n->first; c; c = c->next) {
		*at = node_copy(a, c);
		at = &(*at)->next;
	}
	return to;
}

/* ---- A tree to bytes ----------------------------------------------------------- */

struct out {
	uint8_t *data;
	size_t len, room;
};

static void put(struct out *o, const void *data, size_t len)
{
	if (len > o->room - o->len) {
		o->room = 2 * (o->len + len) + 256;
		o->data = realloc(o->data, o->room);
		if (!o->data)
			abort();
	}
	if (len)
		memcpy(o->data + o->len, data, len);
	o->len += len;
}

static void put_head(struct out *o, const struct node *n, uint64_t v)
{
	unsigned size = v < 24 ? 0 : v <= UINT8_MAX ? 1 : v <= UINT16_MAX ? 2 : v <= UINT32_MAX ? 4 : 8;
	uint8_t b[9];
	unsigned i;

	size = MAX(size, (unsigned)n->wide);
	b[0] = (uint8_t)(n->type << 5 | (size == 8 ? 27 : size == 4 ? 26 : size == 2 ? 25 :
					 size == 1 ? 24 : v));
	for (i = 0; i < size; i++)
		b[1 + i] = (uint8_t)(v >> 8 * (size - 1 - i));
	put(o, b, 1 + size);
}

unsigned node_children(const struct node *n)
{
	const struct node *c;
	unsigned count = 0;

	for (c = n->first; c; c = c->next)
		count++;
	return count;
}

/* Shorter ones first, then by byte: what is no text comes where it comes. */
static bool after(const struct node *a, const struct node *b)
{
	if (a->len != b->len)
		return a->len > b->len;
	return a->len && b->len && memcmp(a->data, b->data, a->len) > 0;
}

static void sort_map(struct node *n)
{
	bool swapped = true;

	while (swapped) {
		struct node **at = &n->first;

		swapped = false;
		while (*at && (*at)->next && (*at)->next->next && (*at)->next->next->next) {
			struct node *k = *at, *l = k->next->next, *rest = l->next->next;

			if (after(k, l)) {
				*at = l;
				l->next->next = k;
				k->next->next = rest;
				swapped = true;
			}
			at = &(*at)->next->next;
		}
	}
}

static void put_node(struct out *o, struct node *n, bool sorted)
{
	struct node *c;

	switch (n->type) {
	case NODE_BYTES:
	case NODE_TEXT:
		put_head(o, n, n->len + (uint64_t)n->claim);
		put(o, n->data, n->len);
		return;
	case NODE_ARRAY:
		put_head(o, n, node_children(n) + (uint64_t)n->claim);
		break;
	case NODE_MAP:
		if (sorted)
			sort_map(n);
		put_head(o, n, node_children(n) / 2 + (uint64_t)n->claim);
		break;
	default:
		put_head(o, n, n->value);
		break;
	}
	for (c = n->first; c; c = c->next)
		put_node(o, c, sorted);
}

uint8_t *node_bytes(struct node *n, bool sorted, size_t *len)
{
	struct out o = { 0 };

	put_node(&o, n, sorted);
	*len = o.len;
	return o.data;
}

/* ---- Nodes ---------------------------------------------------------------------- */

struct node *node_uint(struct arena *a, uint64_t v)
{
	struct node *n = arena_get(a, sizeof(*n));

	n->value = v;
	return n;
}

struct node *node_string(struct arena *a, enum node_type type, const void *data, size_t len)
{
	struct node *n = arena_get(a, sizeof(*n));

	n->type = type;
	n->len = len;
	n->data = arena_get(a, len + 1);
	if (len)
		memcpy(n->data, data, len);
	return n;
}

struct node *node_text(struct arena *a, const char *text)
{
	return node_string(a, NODE_TEXT, text, strlen(text));
}

struct node *node_get(struct node *n, const char *key)
{
	struct node *k = n && n->type == NODE_MAP ? n->first : NULL;

	for (; k && k->next; k = k->next->next)
		if (k->type == NODE_TEXT && k->len == strlen(key) && !memcmp(k->data, key, k->len))
			return k->next;
	return NULL;
}

bool node_set(struct node *n, uint64_t v)
{
	if (!n || n->type > NODE_NEGATIVE)
		return false;
	n->type = NODE_UINT;
	n->value = v;
	return true;
}

size_t node_list(struct node *n, struct node **list, size_t max)
{
	struct node *c;
	size_t count = 0;

	if (max)
		list[count++] = n;
	for (c = n->first; c; c = c->next)
		count += node_list(c, list + count, max - count);
	return count;
}
