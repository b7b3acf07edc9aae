/* Fids: what a client calls its files by. */
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "p9/server.h"

static struct p9_fid **fid_at(struct p9_session *ss, uint32_t id)
{
	struct p9_fid **at = &ss->fids[(id * 0x9e3779b1u >> 8) & (ss->nbuckets - 1)];

	while (*at && (*at)->id != id)
		at = &(*at)->next;
	return at;
}

static void grow(struct p9_session *ss)
{
	struct p9_fid **was = ss->fids, **wider = calloc(ss->nbuckets * 2, sizeof(struct p9_fid *));
	size_t n = ss->nbuckets;

	if (!wider)
		return;
	ss->fids = wider;
	ss->nbuckets *= 2;
	for (size_t i = 0; i < n; i++) {
		for (struct p9_fid *f = was[i], *next; f; f = next) {
			struct p9_fid **at = fid_at(ss, f->id);

			next = f->next;
			f->next = NULL;
			*at = f;
		}
	}
	free(was);
}

int p9_fid_add(struct p9_session *ss, uint32_t id, struct p9_node *node, uint32_t uid,
	       struct p9_fid **out)
{
	struct p9_fid *f;
	int err = 0;

	if (id == P9_NOFID)
		return -EBADF;
	f = calloc(1, sizeof(*f));
	if (!f)
		return -ENOMEM;
	f->id = id;
	f->refs = out ? 2 : 1;
	f->uid = uid;
	f->fd = -1;
	f->node = node;
	pthread_mutex_init(&f->lock, NULL);
	pthread_mutex_lock(&ss->lock);
	if (*fid_at(ss, id))
		err = -EEXIST;
	else if (ss->nfids >= ss->server->o.fids)
		err = -ENFILE;
	else {
		if (++ss->nfids > ss->nbuckets)
			grow(ss);
		*fid_at(ss, id) = f;
	}
	pthread_mutex_unlock(&ss->lock);
	if (err) {
		pthread_mutex_destroy(&f->lock);
		free(f);
	} else if (out) {
		*out = f;
	}
	return err;
}

struct p9_fid *p9_fid_get(struct p9_session *ss, uint32_t id)
{
	struct p9_fid *f;

	pthread_mutex_lock(&ss->lock);
	f = *fid_at(ss, id);
	if (f)
		f->refs++;
	pthread_mutex_unlock(&ss->lock);
	return f;
}

struct p9_fid *p9_fid_take(struct p9_session *ss, uint32_t id)
{
	struct p9_fid **at, *f;

	pthread_mutex_lock(&ss->lock);
	at = fid_at(ss, id);
	f = *at;
	if (f) {
		*at = f->next;
		ss->nfids--;
		f->gone = true;
	}
	pthread_mutex_unlock(&ss->lock);
	return f;
}

int p9_fid_put(struct p9_session *ss, struct p9_fid *f)
{
	struct p9_server *s = ss->server;
	bool last;
	int err = 0;

	if (!f)
		return 0;
	pthread_mutex_lock(&ss->lock);
	last = --f->refs == 0;
	pthread_mutex_unlock(&ss->lock);
	if (!last)
		return 0;
	if (f->kind == P9_FID_XATTR_WRITE)
		err = p9_xattr_commit(ss, f);
	if (f->kind == P9_FID_FILE)
		p9_locks_drop(ss, f);
	if (f->fd >= 0) {
		close(f->fd);
		p9_tree_uncharge(&s->tree);
	}
	p9_node_put(&s->tree, f->node);
	free(f->xattr.value);
	pthread_mutex_destroy(&f->lock);
	free(f);
	return err;
}

/*
 * An attribute that is being written when a session ends is not kept: whoever ends sessions is no
 * worker.
 */
void p9_fids_drop(struct p9_session *ss)
{
	for (size_t i = 0; i < ss->nbuckets; i++) {
		while (ss->fids[i]) {
			struct p9_fid *f = p9_fid_take(ss, ss->fids[i]->id);

			if (f->kind == P9_FID_XATTR_WRITE)
				f->kind = P9_FID_PLACE;
			p9_fid_put(ss, f);
		}
	}
}

int p9_use(struct p9_call *c, uint32_t id, struct p9_use *u)
{
	struct p9_session *ss = c->ss;

	*u = (struct p9_use){ .fd = -1 };
	u->fid = p9_fid_get(ss, id);
	if (!u->fid)
		return -EBADF;
	pthread_mutex_lock(&ss->lock);
	u->kind = u->fid->kind;
	u->node = u->fid->node;
	if (u->kind == P9_FID_FILE || u->kind == P9_FID_DIR)
		u->fd = u->fid->fd;
	p9_node_get(&c->s->tree, u->node);
	pthread_mutex_unlock(&ss->lock);
	return 0;
}

int p9_use_fd(struct p9_call *c, uint32_t id, struct p9_use *u)
{
	int err = p9_use(c, id, u);

	if (err || u->fd >= 0)
		return err;
	if (u->kind == P9_FID_FILE || u->kind == P9_FID_DIR)
		return -ESTALE;		/* was open, and could not be opened again */
	err = p9_node_pin(&c->s->tree, u->node);
	if (err < 0)
		return err;
	u->fd = err;
	u->pinned = true;
	return 0;
}

void p9_use_put(struct p9_call *c, struct p9_use *u)
{
	if (u->pinned)
		p9_node_unpin(&c->s->tree, u->node);
	p9_node_put(&c->s->tree, u->node);
	p9_fid_put(c->ss, u->fid);
}
