/* The maps of an overlay, and its free space. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "block/overlay_inside.h"

uint32_t overlay_sum(const void *block, size_t len)
{
	return (uint32_t)XXH3_64bits(block, len);
}

int overlay_read_block(struct overlay *o, uint64_t block, void *buf, size_t len)
{
	struct iovec v = { buf, len };

	return fd_read(o->fd, &v, 1, block * OB);
}

int overlay_write_block(struct overlay *o, uint64_t block, const void *buf, size_t len)
{
	struct iovec v = { (void *)buf, len };

	return fd_write(o->fd, &v, 1, block * OB);
}

/* ---- Nodes --------------------------------------------------------------- */

struct node *node_new(unsigned level)
{
	struct node *n = calloc(1, sizeof(*n));
	bool ok;

	if (!n)
		return NULL;
	n->level = (uint8_t)level;
	n->dirty = true;
	if (!level) {
		n->entry = calloc(LEAF_ENTRIES, sizeof(*n->entry));
		ok = n->entry;
	} else {
		n->ref = calloc(NODE_ENTRIES, sizeof(*n->ref));
		n->child = calloc(NODE_ENTRIES, sizeof(*n->child));
		ok = n->ref && n->child;
	}
	if (ok)
		return n;
	node_free(n);
	return NULL;
}

void node_free(struct node *n)
{
	unsigned i;

	if (!n)
		return;
	if (!n->level) {
		free(n->entry);
	} else {
		for (i = 0; n->child && i < NODE_ENTRIES; i++)
			node_free(n->child[i]);
		free(n->child);
		free(n->ref);
	}
	free(n);
}

static void *node_block(const struct node *n)
{
	return n->level ? (void *)n->ref : (void *)n->entry;
}

static bool good_block(const struct overlay *o, uint64_t block)
{
	return block >= FIRST_BLOCK && block < o->super.end;
}

/* Is what a map says possible?  It is looked at once, and kept. */
static bool node_good(const struct overlay *o, const struct node *n)
{
	unsigned i;

	for (i = 0; n->level && i < NODE_ENTRIES; i++)
		if (n->ref[i].block && (!good_block(o, n->ref[i].block) || n->ref[i].birth > BIRTH_MAX))
			return false;
	for (i = 0; !n->level && i < LEAF_ENTRIES; i++)
		if (ENTRY_BLOCK(n->entry[i]) > ENTRY_ZERO && !good_block(o, ENTRY_BLOCK(n->entry[i])))
			return false;
	return true;
}

static int node_load(struct overlay *o, const struct overlay_ref *ref, unsigned level,
		     struct node **out)
{
	struct node *n = node_new(level);
	int err;

	if (!n)
		return -ENOMEM;
	n->dirty = false;
	n->at = *ref;
	err = good_block(o, ref->block) ? overlay_read_block(o, ref->block, node_block(n), OB) : -EIO;
	if (!err && (overlay_sum(node_block(n), OB) != ref->sum || !node_good(o, n)))
		err = -EIO;
	if (err) {
		node_free(n);
		return err;
	}
	*out = n;
	return 0;
}

int map_root(struct overlay *o, const struct overlay_ref *ref, struct node **root)
{
	if (ref->block)
		return node_load(o, ref, LEVELS - 1, root);
	*root = node_new(LEVELS - 1);
	if (!*root)
		return -ENOMEM;
	(*root)->dirty = false;
	return 0;
}

/* The index in a map of the given level that leads to leaf number n. */
static unsigned child_index(uint64_t leaf, unsigned level)
{
	return (unsigned)(leaf >> 8 * (level - 1)) % NODE_ENTRIES;
}

static int step_down(struct overlay *o, struct node *n, unsigned i, bool make, struct node **child)
{
	int err = 0;

	*child = n->child[i];
	if (!*child && n->ref[i].block)
		err = node_load(o, &n->ref[i], n->level - 1u, child);
	else if (!*child && make && !(*child = node_new(n->level - 1u)))
		err = -ENOMEM;
	if (!err)
		n->child[i] = *child;
	return err;
}

int map_leaf(struct overlay *o, uint64_t block, bool make, struct node **leaf)
{
	struct node *path[LEVELS], *n = o->root;
	unsigned depth = 0;
	int err = 0;

	*leaf = NULL;
	while (n) {
		path[depth++] = n;
		if (!n->level)
			break;
		err = step_down(o, n, child_index(block / LEAF_ENTRIES, n->level), make, &n);
		if (err)
			return err;
	}
	if (n)
		*leaf = n;
	while (make && depth)
		path[--depth]->dirty = true;
	return 0;
}

/* ---- Writing maps -------------------------------------------------------- */

static int node_write(struct overlay *o, struct node *n)
{
	uint64_t block, got;
	unsigned i;
	int err;

	for (i = 0; n->level && i < NODE_ENTRIES; i++) {
		struct node *c = n->child[i];

		if (!c || !c->dirty)
			continue;
		err = node_write(o, c);
		if (err)
			return err;
		n->ref[i] = c->at;
	}
	err = space_get(o, 1, &block, &got);
	if (err)
		return err;
	err = overlay_write_block(o, block, node_block(n), OB);
	if (!err && n->at.block && n->at.birth > o->pinned)
		err = space_free(o, n->at.block);
	if (err) {
		space_unget(o, block, 1);
		return err;
	}
	n->at = (struct overlay_ref){ block, o->generation, overlay_sum(node_block(n), OB) };
	n->dirty = false;
	return 0;
}

int map_write(struct overlay *o)
{
	return o->root->dirty ? node_write(o, o->root) : 0;
}

/* ---- Free space ----------------------------------------------------------- */

static bool is_used(const struct overlay *o, uint64_t b)
{
	return o->used[b / 64] >> b % 64 & 1;
}

static void set_used(struct overlay *o, uint64_t b, bool on)
{
	if (on)
		o->used[b / 64] |= BIT(b % 64);
	else
		o->used[b / 64] &= ~BIT(b % 64);
}

static int make_room(struct overlay *o, uint64_t blocks)
{
	uint64_t room = MAX(o->room, (uint64_t)4096);
	uint64_t *used;

	if (blocks <= o->room)
		return 0;
	while (room < blocks)
		room *= 2;
	used = realloc(o->used, room / 8);
	if (!used)
		return -ENOMEM;
	memset((uint8_t *)used + o->room / 8, 0, (room - o->room) / 8);
	o->used = used;
	o->room = room;
	return 0;
}

int space_get(struct overlay *o, uint64_t want, uint64_t *block, uint64_t *got)
{
	uint64_t b = o->hint, n;

	/* On from where the last one ended: what is written in turn lies in turn. */
	while (b < o->nblocks && is_used(o, b))
		b = b % 64 || ~o->used[b / 64] ? b + 1 : b + 64;
	b = MIN(b, o->nblocks);
	for (n = 0; n < want && b + n < o->nblocks && !is_used(o, b + n); n++)
		;
	if (!n || b + n == o->nblocks) {
		if (b + want >= BIT(40))
			return -ENOSPC;
		if (make_room(o, b + want) < 0)
			return -ENOMEM;
		n = want;
		o->nblocks = MAX(o->nblocks, b + want);
	}
	*block = b;
	*got = n;
	for (; n--; b++)
		set_used(o, b, true);
	o->hint = b;
	return 0;
}

void space_unget(struct overlay *o, uint64_t block, uint64_t n)
{
	o->hint = MIN(o->hint, block);
	while (n--)
		set_used(o, block++, false);
}

int space_free(struct overlay *o, uint64_t block)
{
	if (o->nfreed == o->max_freed) {
		size_t max = o->max_freed ? 2 * o->max_freed : 256;
		uint64_t *freed = realloc(o->freed, max * sizeof(*freed));

		if (!freed)
			return -ENOMEM;
		o->freed = freed;
		o->max_freed = max;
	}
	o->freed[o->nfreed++] = block;
	return 0;
}

/* ---- What is in use -------------------------------------------------------- */

struct marker {
	struct overlay *o;
	uint64_t *maps;		/* a bit a block: it is a map, and was looked into */
};

static bool bit(const uint64_t *bits, uint64_t n)
{
	return bits[n / 64] >> n % 64 & 1;
}

static int mark_ref(struct marker *m, const struct overlay_ref *ref, unsigned level);

static int mark_node(struct marker *m, const struct node *n)
{
	unsigned i;
	int err = 0;

	for (i = 0; !n->level && i < LEAF_ENTRIES; i++) {
		uint64_t b = ENTRY_BLOCK(n->entry[i]);

		if (b <= ENTRY_ZERO)
			continue;
		if (bit(m->maps, b))
			return -EIO;
		set_used(m->o, b, true);
	}
	for (i = 0; n->level && i < NODE_ENTRIES && !err; i++)
		if (n->ref[i].block)
			err = mark_ref(m, &n->ref[i], n->level - 1u);
	return err;
}

/* Each map is looked into once, so that no file keeps us longer than it is large. */
static int mark_ref(struct marker *m, const struct overlay_ref *ref, unsigned level)
{
	struct node *n;
	int err;

	if (!good_block(m->o, ref->block))
		return -EIO;
	if (bit(m->maps, ref->block))
		return 0;
	if (is_used(m->o, ref->block))
		return -EIO;		/* a map that is something else as well */
	m->maps[ref->block / 64] |= BIT(ref->block % 64);
	set_used(m->o, ref->block, true);
	err = node_load(m->o, ref, level, &n);
	if (err)
		return err;
	err = mark_node(m, n);
	node_free(n);
	return err;
}

static int mark_all(struct marker *m)
{
	struct overlay *o = m->o;
	uint64_t b, table = (o->super.nsnapshots + 15) / 16;
	unsigned i;
	int err = 0;

	for (b = 0; b < FIRST_BLOCK; b++)
		set_used(o, b, true);
	for (b = 0; b < table; b++)
		set_used(o, o->super.snapshots.block + b, true);
	if (o->super.root.block)
		err = mark_ref(m, &o->super.root, LEVELS - 1);
	for (i = 0; i < o->nsnaps && !err; i++)
		if (o->snap[i].root.block)
			err = mark_ref(m, &o->snap[i].root, LEVELS - 1);
	return err;
}

int map_mark(struct overlay *o, struct skep_error *e)
{
	struct marker m = { .o = o };
	uint64_t *was, *now = NULL;
	int err = make_room(o, o->super.end);

	was = o->used;
	if (!err && (!(m.maps = calloc(o->room / 64, 8)) || !(now = calloc(o->room / 64, 8))))
		err = -ENOMEM;
	if (err) {
		free(m.maps);
		free(now);
		return skep_fail(e, ENOMEM, "%s.overlay: no memory for a disk of %" PRIu64 " bytes",
				 o->owner, o->im.size);
	}
	o->used = now;
	err = mark_all(&m);
	free(m.maps);
	/* A disk that is in use goes on with what is known to be in use. */
	o->used = err ? was : now;
	free(err ? now : was);
	if (err)
		return skep_fail(e, -err, "%s.overlay: %s is damaged: its maps do not hold together",
				 o->owner, o->im.name);
	o->nblocks = o->super.end;
	o->nfreed = 0;
	o->hint = FIRST_BLOCK;
	return 0;
}
