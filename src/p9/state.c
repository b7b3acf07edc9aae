/* Sessions saved and restored: see state.h. */
#include "p9/state.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/say.h"
#include "base/text.h"
#include "p9/lock.h"

#define NODES_MAX	(1u << 20)
#define FIDS_MAX	(1u << 20)
#define SAID_MAX	8	/* sentences; then how many more */

struct prefix_model {
	uint64_t dev;
	uint16_t high;
};

struct node_model {
	uint32_t parent;		/* 0: the export itself; n: the n-th of this list, before this one */
	struct state_blob name;
	uint16_t device;		/* the prefix that has its device */
	uint64_t ino;
	int64_t born, changed;		/* ns since 1970; 0: not known */
	uint16_t type;			/* S_IFMT */
	bool gone;			/* its name leads elsewhere, or nowhere */
	int32_t handle_type;
	struct state_blob handle;
};

struct fid_model {
	uint32_t fid, node, uid, flags;
	uint8_t kind;
	uint32_t xattr_flags;
	struct state_blob xattr_name, xattr_value;
};

struct lock_model {
	uint32_t fid, node, process;
	bool write;
	uint64_t start, end;
	struct state_blob client;
};

static const struct state_field prefix_fields[] = {
	STATE_U64(struct prefix_model, dev),
	STATE_U16(struct prefix_model, high),
};
static const struct state_record prefix_record = {
	.kind = "p9-prefix", .version = 1, .model_size = sizeof(struct prefix_model),
	.fields = prefix_fields, .nfields = ARRAY_SIZE(prefix_fields),
};

static const struct state_field node_fields[] = {
	STATE_U32(struct node_model, parent, .max = NODES_MAX),
	STATE_BLOB(struct node_model, name, .max = P9_NAME_LEN),
	STATE_U16(struct node_model, device),
	STATE_U64(struct node_model, ino),
	STATE_TIME(struct node_model, born),
	STATE_TIME(struct node_model, changed),
	STATE_U16(struct node_model, type, .max = S_IFMT),
	STATE_BOOL(struct node_model, gone),
	STATE_FIELD_(struct node_model, handle_type, STATE_T_U32, 1),
	STATE_BLOB(struct node_model, handle, .max = MAX_HANDLE_SZ),
};
static const struct state_record node_record = {
	.kind = "p9-node", .version = 1, .model_size = sizeof(struct node_model),
	.fields = node_fields, .nfields = ARRAY_SIZE(node_fields),
};

static const struct state_field fid_fields[] = {
	STATE_U32(struct fid_model, fid),
	STATE_U32(struct fid_model, node, .max = NODES_MAX),
	STATE_U32(struct fid_model, uid),
	STATE_U32(struct fid_model, flags),
	STATE_U8(struct fid_model, kind, .max = P9_FID_XATTR_WRITE),
	STATE_U32(struct fid_model, xattr_flags),
	STATE_BLOB(struct fid_model, xattr_name, .max = P9_XATTR_NAME),
	STATE_BLOB(struct fid_model, xattr_value, .max = P9_XATTR_MAX),
};
static const struct state_record fid_record = {
	.kind = "p9-fid", .version = 1, .model_size = sizeof(struct fid_model),
	.fields = fid_fields, .nfields = ARRAY_SIZE(fid_fields),
};

static const struct state_field lock_fields[] = {
	STATE_U32(struct lock_model, fid),
	STATE_U32(struct lock_model, node, .max = NODES_MAX),
	STATE_U32(struct lock_model, process),
	STATE_BOOL(struct lock_model, write),
	STATE_U64(struct lock_model, start),
	STATE_U64(struct lock_model, end),
	STATE_BLOB(struct lock_model, client, .max = P9_LOCK_CLIENT),
};
static const struct state_record lock_record = {
	.kind = "p9-lock", .version = 1, .model_size = sizeof(struct lock_model),
	.fields = lock_fields, .nfields = ARRAY_SIZE(lock_fields),
};

static const struct state_field session_fields[] = {
	STATE_BOOL(struct p9_session_model, agreed),
	STATE_U32(struct p9_session_model, msize),
	STATE_LIST(struct p9_session_model, prefixes, &prefix_record, .max = P9_PREFIXES_MAX),
	STATE_LIST(struct p9_session_model, nodes, &node_record, .max = NODES_MAX),
	STATE_LIST(struct p9_session_model, fids, &fid_record, .max = FIDS_MAX),
	STATE_LIST(struct p9_session_model, locks, &lock_record, .max = P9_LOCKS_MAX),
};
const struct state_record p9_session_record = {
	.kind = "p9-session", .version = 1, .model_size = sizeof(struct p9_session_model),
	.fields = session_fields, .nfields = ARRAY_SIZE(session_fields),
};

/* ---- Sentences ----------------------------------------------------------- */

struct said {
	const char *owner;
	unsigned n;
};

/* "a/b/c" below the export, for a person. */
static void path_of(const struct p9_node *n, char *buf, size_t size)
{
	char raw[512];
	size_t at = sizeof(raw) - 1;

	raw[at] = '\0';
	for (; n->parent && at; n = n->parent) {
		size_t len = MIN(strlen(n->name), at);

		at -= len;
		memcpy(raw + at, n->name + strlen(n->name) - len, len);
		if (at && n->parent->parent)
			raw[--at] = '/';
	}
	text_escape(buf, size, raw + at, strlen(raw + at), 0);
}

static void say(struct said *s, const struct p9_node *n, const char *what)
{
	char path[600];

	if (s->n++ >= SAID_MAX)
		return;
	path_of(n, path, sizeof(path));
	skep_say("skep: %s: '%s' in the share %s\n", s->owner, path, what);
}

static void say_rest(const struct said *s)
{
	if (s->n > SAID_MAX)
		skep_say("skep: %s: and so it is with %u more files of the share\n", s->owner, s->n - SAID_MAX);
}

/* ---- Taken --------------------------------------------------------------- */

struct taking {
	struct p9_session *ss;
	struct p9_session_model *m;
	struct p9_node **node;		/* by their number - 1 */
	uint32_t nnodes, room;
	struct said said;
};

static void set_blob(struct taking *t, struct state_blob *b, const void *from, size_t len)
{
	if (!len)
		return;
	b->data = malloc(len);
	if (!b->data) {
		t->m->failed = true;
		return;
	}
	memcpy(b->data, from, len);
	b->len = (uint32_t)len;
}

static bool number_one(struct taking *t, struct p9_node *n)
{
	if (t->nnodes == t->room) {
		uint32_t room = t->room ? 2 * t->room : 64;
		struct p9_node **more = realloc(t->node, room * sizeof(struct p9_node *));

		if (!more || room > NODES_MAX) {
			if (more)
				t->node = more;
			t->m->failed = true;
			return false;
		}
		t->node = more;
		t->room = room;
	}
	t->node[t->nnodes++] = n;
	n->number = t->nnodes;
	return true;
}

/* Parents first: the way up is turned round by the recursion's own array, since it may be long. */
static void number(struct taking *t, struct p9_node *n)
{
	while (n->parent && !n->number) {
		struct p9_node *top = n;

		while (top->parent->parent && !top->parent->number)
			top = top->parent;
		if (!number_one(t, top))
			return;
	}
}

static void take_handle(struct taking *t, int fd, struct node_model *m)
{
	union {
		struct file_handle h;
		char room[sizeof(struct file_handle) + MAX_HANDLE_SZ];
	} u;
	int mount;

	u.h.handle_bytes = MAX_HANDLE_SZ;
	if (name_to_handle_at(fd, "", &u.h, &mount, AT_EMPTY_PATH) < 0)
		return;
	m->handle_type = u.h.handle_type;
	set_blob(t, &m->handle, u.h.f_handle, u.h.handle_bytes);
}

static int64_t ns(const struct statx_timestamp *t)
{
	return t->tv_sec * NSEC_PER_SEC + t->tv_nsec;
}

static void take_node(struct taking *t, struct p9_node *n, struct node_model *m)
{
	struct p9_tree *tree = &t->ss->server->tree;
	struct statx stx;
	uint64_t path = 0;
	int fd;

	p9_qid_path(&t->ss->server->qids, n->ident.dev, n->ident.ino, &path);
	*m = (struct node_model){
		.parent = n->parent->number, .device = (uint16_t)(path >> 48), .ino = n->ident.ino,
		.born = n->ident.born, .type = n->type, .gone = n->detached || n->stale,
	};
	set_blob(t, &m->name, n->name, strlen(n->name));
	fd = m->gone ? -1 : p9_node_pin(tree, n);
	if (fd < 0) {
		m->gone = true;
		return;
	}
	if (p9_statx(fd, &stx) == 0)
		m->changed = ns(&stx.stx_ctime);
	take_handle(t, fd, m);
	p9_node_unpin(tree, n);
}

static void take_fid(struct taking *t, const struct p9_fid *f, struct fid_model *m)
{
	*m = (struct fid_model){
		.fid = f->id, .node = f->node->number, .uid = f->uid, .flags = f->flags,
		.kind = (uint8_t)f->kind, .xattr_flags = f->xattr.flags,
	};
	set_blob(t, &m->xattr_name, f->xattr.name, strlen(f->xattr.name));
	if (f->kind == P9_FID_XATTR_READ || f->kind == P9_FID_XATTR_WRITE)
		set_blob(t, &m->xattr_value, f->xattr.value, f->xattr.len);
	if (f->node->detached && f->fd >= 0 && !f->node->stale)
		say(&t->said, f->node, "is open but has no name any more: this machine keeps it, and one that "
		    "is restored from this save gets ESTALE; save again when the guest has closed it");
}

static int by_fid(const void *a, const void *b)
{
	const struct fid_model *x = a, *y = b;

	return x->fid < y->fid ? -1 : x->fid > y->fid;
}

/* In the order of their numbers, so that two saves of one state are alike. */
static void take_fids(struct taking *t)
{
	struct p9_session *ss = t->ss;
	struct fid_model *fm = calloc(MAX(ss->nfids, (size_t)1), sizeof(*fm));
	uint32_t n = 0;

	if (!fm) {
		t->m->failed = true;
		return;
	}
	for (size_t i = 0; i < ss->nbuckets; i++)
		for (struct p9_fid *f = ss->fids[i]; f; f = f->next)
			take_fid(t, f, &fm[n++]);
	qsort(fm, n, sizeof(*fm), by_fid);
	t->m->fids = (struct state_list){ n ? fm : NULL, n };
	if (!n)
		free(fm);
}

static int by_pointer_fid(const void *a, const void *b)
{
	const struct p9_fid *x = *(struct p9_fid *const *)a, *y = *(struct p9_fid *const *)b;

	return x->id < y->id ? -1 : x->id > y->id;
}

static void number_all(struct taking *t)
{
	struct p9_session *ss = t->ss;
	struct p9_fid **order = calloc(MAX(ss->nfids, (size_t)1), sizeof(struct p9_fid *));
	size_t n = 0;

	if (!order) {
		t->m->failed = true;
		return;
	}
	for (size_t i = 0; i < ss->nbuckets; i++)
		for (struct p9_fid *f = ss->fids[i]; f; f = f->next)
			order[n++] = f;
	qsort(order, n, sizeof(struct p9_fid *), by_pointer_fid);
	for (size_t i = 0; i < n; i++)
		number(t, order[i]->node);
	free(order);
}

static void take_nodes(struct taking *t)
{
	struct node_model *nm = calloc(MAX(t->nnodes, 1u), sizeof(*nm));

	if (!nm) {
		t->m->failed = true;
		return;
	}
	for (uint32_t i = 0; i < t->nnodes; i++)
		take_node(t, t->node[i], &nm[i]);
	t->m->nodes = (struct state_list){ t->nnodes ? nm : NULL, t->nnodes };
	if (!t->nnodes)
		free(nm);
}

static void take_prefixes(struct taking *t)
{
	struct p9_qids *q = &t->ss->server->qids;
	struct prefix_model *pm = calloc(q->n, sizeof(*pm));

	if (!pm) {
		t->m->failed = true;
		return;
	}
	for (uint32_t i = 0; i < q->n; i++)
		pm[i] = (struct prefix_model){ q->prefix[i].dev, q->prefix[i].high };
	t->m->prefixes = (struct state_list){ pm, q->n };
}

static uint32_t number_of_file(const struct taking *t, const struct p9_ident *file, uint32_t fid)
{
	const struct p9_fid *f = p9_fid_get(t->ss, fid);
	uint32_t n = f && p9_ident_same(&f->node->ident, file) ? f->node->number : 0;

	p9_fid_put(t->ss, (struct p9_fid *)f);
	return n;
}

/* From the oldest, which stands last. */
static void take_locks(struct taking *t)
{
	struct p9_server *s = t->ss->server;
	struct lock_model *lm = calloc(s->nlocks + 1, sizeof(*lm));
	uint32_t n = 0, i;

	if (!lm) {
		t->m->failed = true;
		return;
	}
	for (const struct p9_lock *l = s->locks; l; l = l->next)
		n += l->owner.ss == t->ss;
	i = n;
	for (const struct p9_lock *l = s->locks; l; l = l->next) {
		if (l->owner.ss != t->ss)
			continue;
		lm[--i] = (struct lock_model){ l->fid, number_of_file(t, &l->file, l->fid), l->owner.process,
					       l->write, l->start, l->end, { NULL, 0 } };
		set_blob(t, &lm[i].client, l->owner.client, l->owner.len);
	}
	t->m->locks = (struct state_list){ n ? lm : NULL, n };
	if (!n)
		free(lm);
}

void p9_session_export(struct p9_session *ss, struct p9_session_model *m)
{
	struct taking t = { .ss = ss, .m = m, .said.owner = ss->server->owner };

	*m = (struct p9_session_model){ .agreed = ss->agreed, .msize = ss->msize };
	number_all(&t);
	take_nodes(&t);
	take_fids(&t);
	take_locks(&t);
	take_prefixes(&t);	/* last: nodes may have met a new one */
	say_rest(&t.said);
	for (uint32_t i = 0; i < t.nnodes; i++)
		t.node[i]->number = 0;
	free(t.node);
}

/* ---- Checked ------------------------------------------------------------- */

static int validate_node(const struct p9_session_model *m, uint32_t i, struct skep_error *e)
{
	const struct node_model *n = (const struct node_model *)m->nodes.items + i;
	char name[P9_NAME_LEN + 1];

	if (n->parent > i)
		return skep_fail(e, EINVAL, "9p node %u stands below node %u, which comes later", i + 1,
				 n->parent);
	if (p9_name((struct p9_text){ (const char *)n->name.data, (uint16_t)n->name.len }, name))
		return skep_fail(e, EINVAL, "9p node %u has a name that cannot be", i + 1);
	if (n->device >= m->prefixes.count)
		return skep_fail(e, EINVAL, "9p node %u is on device %u, and there are %u", i + 1, n->device,
				 m->prefixes.count);
	return 0;
}

static int validate_fid(const struct p9_session_model *m, uint32_t i, struct skep_error *e)
{
	const struct fid_model *f = (const struct fid_model *)m->fids.items + i;
	const struct node_model *nodes = m->nodes.items;
	uint16_t type = f->node && f->node <= m->nodes.count ? nodes[f->node - 1].type : S_IFDIR;

	if (f->fid == P9_NOFID || (i && f->fid <= f[-1].fid))
		return skep_fail(e, EINVAL, "9p fid %u is there twice or out of order", f->fid);
	if (f->node > m->nodes.count)
		return skep_fail(e, EINVAL, "9p fid %u stands for node %u, and there are %u", f->fid, f->node,
				 m->nodes.count);
	if ((f->kind == P9_FID_DIR && type != S_IFDIR) || (f->kind == P9_FID_FILE && type != S_IFREG))
		return skep_fail(e, EINVAL, "9p fid %u is open as what node %u is not", f->fid, f->node);
	if ((f->flags & P9_OPEN_ACCESS) == P9_OPEN_ACCESS)
		return skep_fail(e, EINVAL, "9p fid %u is open with the flags %#x", f->fid, f->flags);
	/* An attribute's name was checked when the client gave it, and is the host's by now. */
	if (f->kind == P9_FID_XATTR_WRITE &&
	    (!f->xattr_name.len || memchr(f->xattr_name.data, 0, f->xattr_name.len) ||
	     f->xattr_flags > 3))
		return skep_fail(e, EINVAL, "9p fid %u writes an attribute that cannot be", f->fid);
	return 0;
}

int p9_session_validate(const struct p9_session *ss, const struct p9_session_model *m,
			struct skep_error *e)
{
	const struct prefix_model *p = m->prefixes.items;
	const struct lock_model *l = m->locks.items;
	int err = 0;

	if (m->failed)
		return skep_fail(e, ENOMEM, "no memory for a copy of what the guest has open");
	if (m->msize < P9_MSIZE_MIN || m->msize > ss->server->o.msize)
		return skep_fail(e, EINVAL, "messages of %u bytes were agreed on, and this share has msize=%u",
				 m->msize, ss->server->o.msize);
	if (m->fids.count > ss->server->o.fids)
		return skep_fail(e, EINVAL, "the guest has %u files in hand, and this share has fids=%u",
				 m->fids.count, ss->server->o.fids);
	if (!m->prefixes.count || p[0].high)
		return skep_fail(e, EINVAL, "the first prefix of 9p qids is not the share's");
	for (uint32_t i = 0; i < m->nodes.count && !err; i++)
		err = validate_node(m, i, e);
	for (uint32_t i = 0; i < m->fids.count && !err; i++)
		err = validate_fid(m, i, e);
	for (uint32_t i = 0; i < m->locks.count && !err; i++)
		if (l[i].node > m->nodes.count || l[i].start > l[i].end)
			err = skep_fail(e, EINVAL, "9p lock %u cannot be", i + 1);
	return err;
}

/* ---- Given back ---------------------------------------------------------- */

struct giving {
	struct p9_session *ss;
	struct p9_server *s;
	const struct p9_session_model *m;
	struct p9_node **node;		/* with a reference each; NULL: no memory */
	uint64_t *dev;			/* what a prefix's device is on this host; 0: not met yet */
	struct said said;
};

static bool same_handle(int fd, const struct node_model *m)
{
	union {
		struct file_handle h;
		char room[sizeof(struct file_handle) + MAX_HANDLE_SZ];
	} u;
	int mount;

	if (!m->handle.len)
		return true;
	u.h.handle_bytes = MAX_HANDLE_SZ;
	return name_to_handle_at(fd, "", &u.h, &mount, AT_EMPTY_PATH) == 0 &&
		u.h.handle_type == m->handle_type && u.h.handle_bytes == m->handle.len &&
		!memcmp(u.h.f_handle, m->handle.data, m->handle.len);
}

/* The device's number may be another one since the host was started; the first file tells. */
static bool same_device(struct giving *g, const struct node_model *m, const struct p9_ident *now)
{
	const struct prefix_model *p = g->m->prefixes.items;

	if (g->dev[m->device])
		return g->dev[m->device] == now->dev;
	for (uint32_t i = 0; i < g->m->prefixes.count; i++)
		if (p[i].dev == p[m->device].dev)
			g->dev[i] = now->dev;
	return true;
}

/* What is there now, if it is what was there. */
static bool same_file(struct giving *g, int fd, const struct node_model *m, struct p9_ident *now)
{
	struct statx stx;

	if (p9_statx(fd, &stx))
		return false;
	p9_ident_of(&stx, now);
	if (now->ino != m->ino || now->born != m->born || (stx.stx_mode & S_IFMT) != m->type)
		return false;
	if (!same_handle(fd, m) || (!m->handle.len && !m->born && m->changed != ns(&stx.stx_ctime)))
		return false;
	return same_device(g, m, now);
}

static bool changed_since(int fd, const struct node_model *m)
{
	struct statx stx;

	return p9_statx(fd, &stx) == 0 && m->changed != ns(&stx.stx_ctime);
}

static void give_node(struct giving *g, uint32_t i)
{
	const struct node_model *m = (const struct node_model *)g->m->nodes.items + i;
	struct p9_node *parent = m->parent ? g->node[m->parent - 1] : g->s->tree.root;
	struct p9_ident now = { 0, m->ino, m->born };
	char name[P9_NAME_LEN + 1];
	bool same = false;
	int dirfd = -ESTALE, fd;

	if (!parent)
		return;
	memcpy(name, m->name.data, m->name.len);
	name[m->name.len] = '\0';
	if (!m->gone && !parent->stale && m->parent <= i)
		dirfd = p9_node_pin(&g->s->tree, parent);
	if (dirfd >= 0) {
		fd = p9_open_below(dirfd, name, O_PATH, 0);
		same = fd >= 0 && same_file(g, fd, m, &now);
		if (fd >= 0)
			close(fd);
		p9_node_unpin(&g->s->tree, parent);
	}
	g->node[i] = p9_node_restored(&g->s->tree, parent, name, &now, m->type, same);
}

static void open_again(struct giving *g, struct p9_fid *f, const struct node_model *m)
{
	int fd = p9_node_pin(&g->s->tree, f->node), got;
	uint32_t flags = f->flags & ~(uint32_t)P9_OPEN_TRUNC;

	if (fd < 0)
		return;
	if (f->kind == P9_FID_FILE && m && changed_since(fd, m))
		say(&g->said, f->node, "was changed since the save, and the guest has it open: it goes on "
		    "with the file as it is");
	got = p9_tree_charge(&g->s->tree);
	if (!got) {
		got = p9_open_restored(g->s, fd, f->kind == P9_FID_DIR, flags);
		if (got < 0)
			p9_tree_uncharge(&g->s->tree);
		else
			f->fd = got;
	}
	if (got < 0)
		say(&g->said, f->node, "cannot be opened again, as the guest had it: it gets ESTALE");
	p9_node_unpin(&g->s->tree, f->node);
}

static void give_fid(struct giving *g, const struct fid_model *m)
{
	struct p9_node *n = m->node ? g->node[m->node - 1] : g->s->tree.root;
	const struct node_model *nm = m->node ? (const struct node_model *)g->m->nodes.items + m->node - 1 :
		NULL;
	struct p9_fid *f;

	if (!n)
		return;
	p9_node_get(&g->s->tree, n);
	if (p9_fid_add(g->ss, m->fid, n, m->uid, &f)) {
		p9_node_put(&g->s->tree, n);
		return;
	}
	f->kind = m->kind;
	f->flags = m->flags;
	if (m->xattr_name.len)
		memcpy(f->xattr.name, m->xattr_name.data, m->xattr_name.len);
	f->xattr.flags = m->xattr_flags;
	f->xattr.value = calloc(1, (size_t)m->xattr_value.len + 1);
	if (f->xattr.value && m->xattr_value.len) {
		memcpy(f->xattr.value, m->xattr_value.data, m->xattr_value.len);
		f->xattr.len = m->xattr_value.len;
	}
	if (f->kind == P9_FID_FILE || f->kind == P9_FID_DIR) {
		if (!n->stale)
			open_again(g, f, nm);
		else if (nm && nm->gone)
			say(&g->said, n, "had no name any more when it was saved, and the guest had it open: it "
			    "gets ESTALE");
		else
			say(&g->said, n, "is not the file any more that the guest had open when it was saved: it "
			    "gets ESTALE");
	}
	p9_fid_put(g->ss, f);
}

static void give_lock(struct giving *g, const struct lock_model *m)
{
	struct p9_node *n = m->node ? g->node[m->node - 1] : g->s->tree.root;
	struct p9_lock l = { .fid = m->fid, .write = m->write, .start = m->start, .end = m->end };

	if (!n || n->stale)
		return;
	l.file = n->ident;
	l.owner.ss = g->ss;
	l.owner.process = m->process;
	l.owner.len = (uint8_t)m->client.len;
	if (m->client.len)
		memcpy(l.owner.client, m->client.data, m->client.len);
	pthread_mutex_lock(&g->s->lock_lock);
	p9_lock_set(g->s, &l, false);
	pthread_mutex_unlock(&g->s->lock_lock);
}

static void give_prefixes(struct giving *g)
{
	const struct prefix_model *p = g->m->prefixes.items;

	for (uint32_t i = 0; i < g->m->prefixes.count; i++) {
		/* One that was not met again keeps its number, which nothing else gets. */
		struct p9_prefix now = { g->dev[i] ? g->dev[i] : ~p[i].dev, p[i].high };

		p9_qids_set(&g->s->qids, i, &now);
	}
}

void p9_session_commit(struct p9_session *ss, const struct p9_session_model *m)
{
	const struct prefix_model *p = m->prefixes.items;
	struct giving g = { .ss = ss, .s = ss->server, .m = m, .said.owner = ss->server->owner };

	g.node = calloc(m->nodes.count + 1, sizeof(struct p9_node *));
	g.dev = calloc(m->prefixes.count + 1, sizeof(*g.dev));
	if (g.node && g.dev) {
		for (uint32_t i = 0; i < m->prefixes.count; i++)
			g.dev[i] = p[i].dev == p[0].dev ? g.s->tree.root->ident.dev : 0;
		for (uint32_t i = 0; i < m->nodes.count; i++)
			give_node(&g, i);
		give_prefixes(&g);
		for (uint32_t i = 0; i < m->fids.count; i++)
			give_fid(&g, (const struct fid_model *)m->fids.items + i);
		for (uint32_t i = 0; i < m->locks.count; i++)
			give_lock(&g, (const struct lock_model *)m->locks.items + i);
		say_rest(&g.said);
		for (uint32_t i = 0; i < m->nodes.count; i++)
			p9_node_put(&g.s->tree, g.node[i]);
	} else {
		skep_say("skep: %s: no memory for what the guest has open in the share\n", ss->server->owner);
	}
	pthread_mutex_lock(&ss->lock);
	ss->agreed = m->agreed;
	ss->msize = m->msize;
	pthread_mutex_unlock(&ss->lock);
	free(g.node);
	free(g.dev);
}
