/* Tattach, Tauth, Twalk, Tclunk, Tremove: how fids come and go. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>

#include "p9/server.h"

int p9_auth(struct p9_call *c)
{
	return -EOPNOTSUPP;	/* who may connect is the transport's business */
}

static int node_attr(struct p9_call *c, struct p9_node *n, struct p9_qid *q, struct p9_attr *a)
{
	int fd = p9_node_pin(&c->s->tree, n), err;

	if (fd < 0)
		return fd;
	err = p9_attr_get(c->s, fd, a);
	p9_node_unpin(&c->s->tree, n);
	return err ? err : p9_attr_qid(c->s, a, q);
}

/* One step; n's reference is exchanged for the next one's.  ".." is answered from what we know. */
static int step(struct p9_call *c, struct p9_node **n, struct p9_text text, struct p9_qid *q)
{
	char name[P9_NAME_LEN + 1];
	struct p9_node *next;
	struct p9_attr a;
	struct statx stx;
	int err;

	if (text.len == 2 && !memcmp(text.p, "..", 2)) {
		next = p9_node_up(&c->s->tree, *n);
	} else {
		err = p9_name(text, name);
		if (err == -EINVAL)
			err = -ENOENT;
		if (!err)
			err = p9_node_walk(&c->s->tree, *n, name, &stx, &next);
		if (err)
			return err;
	}
	err = node_attr(c, next, q, &a);
	if (err) {
		p9_node_put(&c->s->tree, next);
		return err;
	}
	p9_node_put(&c->s->tree, *n);
	*n = next;
	return 0;
}

/* aname: a directory below the export, by its components; "" and "/" are the export itself. */
static int attach_below(struct p9_call *c, struct p9_node **n, struct p9_text aname)
{
	struct p9_qid q;
	size_t i = 0;
	int err = 0;

	while (i < aname.len && !err) {
		struct p9_text part = { aname.p + i, 0 };

		while (i < aname.len && aname.p[i] != '/') {
			part.len++;
			i++;
		}
		i++;
		if (part.len)
			err = step(c, n, part, &q);
	}
	return err;
}

int p9_attach(struct p9_call *c)
{
	uint32_t id = p9_get32(&c->in), afid = p9_get32(&c->in), uid;
	struct p9_text aname;
	struct p9_node *n;
	struct p9_attr a;
	struct p9_qid q;
	int err;

	p9_get_text(&c->in);
	aname = p9_get_text(&c->in);
	uid = p9_get32(&c->in);
	if (p9_end(c))
		return -EBADMSG;
	if (afid != P9_NOFID)
		return -EOPNOTSUPP;
	n = p9_node_get(&c->s->tree, c->s->tree.root);
	err = attach_below(c, &n, aname);
	if (!err)
		err = node_attr(c, n, &q, &a);
	if (!err && !S_ISDIR(a.mode))
		err = -ENOTDIR;
	if (!err)
		err = p9_fid_add(c->ss, id, n, uid == P9_NONUNAME ? 0 : uid, NULL);
	if (err) {
		p9_node_put(&c->s->tree, n);
		return err;
	}
	p9_put_qid(&c->out, &q);
	return 0;
}

/* The fid leads elsewhere now; takes n's reference. */
static int move_fid(struct p9_call *c, struct p9_use *u, struct p9_node *n)
{
	struct p9_node *was = n;
	int err = -EBADF;

	pthread_mutex_lock(&c->ss->lock);
	if (!u->fid->gone && u->fid->kind == P9_FID_PLACE) {
		was = u->fid->node;
		u->fid->node = n;
		err = 0;
	}
	pthread_mutex_unlock(&c->ss->lock);
	if (!err)
		p9_node_put(&c->s->tree, was);
	return err;
}

static int walk_names(struct p9_call *c, struct p9_use *u, uint32_t newid, unsigned names)
{
	struct p9_node *n = p9_node_get(&c->s->tree, u->node);
	uint8_t *count = p9_put(&c->out, 2);
	struct p9_qid q;
	unsigned done = 0;
	int err = 0;

	while (done < names && !err) {
		err = step(c, &n, p9_get_text(&c->in), &q);
		if (!err) {
			p9_put_qid(&c->out, &q);
			done++;
		}
	}
	/* Only a failure of the first name is one; of others the client hears by their number. */
	if (err && done) {
		err = 0;
	} else if (!err) {
		err = newid == u->fid->id ? move_fid(c, u, n) :
			p9_fid_add(c->ss, newid, n, u->fid->uid, NULL);
		if (!err)
			n = NULL;
	}
	p9_node_put(&c->s->tree, n);
	if (!err && count)
		store16(count, (uint16_t)done);
	return err;
}

int p9_walk(struct p9_call *c)
{
	uint32_t id = p9_get32(&c->in), newid = p9_get32(&c->in);
	unsigned names = p9_get16(&c->in);
	struct p9_in look = c->in;
	struct p9_use u;
	int err;

	/* All of it is looked at before anything is done. */
	if (names > P9_WALK_MAX)
		return -EINVAL;
	for (unsigned i = 0; i < names; i++)
		p9_get_text(&look);
	if (look.bad || look.left)
		return -EBADMSG;
	err = p9_use(c, id, &u);
	if (!err && u.kind != P9_FID_PLACE)
		err = -EINVAL;
	if (!err)
		err = walk_names(c, &u, newid, names);
	p9_use_put(c, &u);
	return err;
}

int p9_clunk(struct p9_call *c)
{
	uint32_t id = p9_get32(&c->in);
	struct p9_fid *f;

	if (p9_end(c))
		return -EBADMSG;
	f = p9_fid_take(c->ss, id);
	return f ? p9_fid_put(c->ss, f) : -EBADF;
}

/* Whatever comes of it, the fid is gone. */
int p9_remove(struct p9_call *c)
{
	uint32_t id = p9_get32(&c->in);
	struct p9_node *parent = NULL;
	char *name = NULL;
	struct p9_use u;
	int err;

	if (p9_end(c))
		return -EBADMSG;
	err = p9_use(c, id, &u);
	if (err)
		return err;
	p9_fid_put(c->ss, p9_fid_take(c->ss, id));
	if (c->s->o.ro)
		err = -EROFS;
	if (!err)
		err = p9_node_place(&c->s->tree, u.node, &parent, &name);
	if (!err)
		err = p9_node_unlink(&c->s->tree, parent, name,
				     u.node->type == S_IFDIR ? AT_REMOVEDIR : 0, u.node);
	free(name);
	p9_node_put(&c->s->tree, parent);
	p9_use_put(c, &u);
	return err;
}
