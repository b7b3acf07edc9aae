/* Tlock, Tgetlock: see lock.h. */
#include "p9/lock.h"

#include <errno.h>
#include <stdlib.h>

static bool same_owner(const struct p9_owner *a, const struct p9_owner *b)
{
	return a->ss == b->ss && a->process == b->process && a->len == b->len &&
		!memcmp(a->client, b->client, a->len);
}

static bool overlap(const struct p9_lock *a, const struct p9_lock *b)
{
	return p9_ident_same(&a->file, &b->file) && a->start <= b->end && b->start <= a->end;
}

const struct p9_lock *p9_lock_conflict(const struct p9_server *s, const struct p9_lock *l)
{
	const struct p9_lock *o = s->locks;

	while (o && !(overlap(o, l) && (o->write || l->write) && !same_owner(&o->owner, &l->owner)))
		o = o->next;
	return o;
}

static int add(struct p9_server *s, const struct p9_lock *l, uint64_t start, uint64_t end)
{
	struct p9_lock *n = malloc(sizeof(*n));

	if (!n)
		return -ENOMEM;
	*n = *l;
	n->start = start;
	n->end = end;
	n->next = s->locks;
	s->locks = n;
	s->nlocks++;
	return 0;
}

/* What is left of the owner's locks outside of l: up to two pieces of each. */
static int cut_out(struct p9_server *s, const struct p9_lock *l)
{
	struct p9_lock **at = &s->locks;

	while (*at) {
		struct p9_lock *o = *at;

		if (!overlap(o, l) || !same_owner(&o->owner, &l->owner)) {
			at = &o->next;
		} else if (o->start < l->start && o->end > l->end) {
			int err = add(s, o, l->end + 1, o->end);	/* at the head: at stays good */

			if (err)
				return err;
			if (at == &s->locks)
				at = &s->locks->next;
			o->end = l->start - 1;
			at = &o->next;
		} else if (o->start < l->start) {
			o->end = l->start - 1;
			at = &o->next;
		} else if (o->end > l->end) {
			o->start = l->end + 1;
			at = &o->next;
		} else {
			*at = o->next;
			free(o);
			s->nlocks--;
		}
	}
	return 0;
}

/* Does l leave two pieces of one that its owner has? */
static bool splits(const struct p9_server *s, const struct p9_lock *l)
{
	const struct p9_lock *o = s->locks;

	while (o && !(overlap(o, l) && same_owner(&o->owner, &l->owner) && o->start < l->start &&
		      o->end > l->end))
		o = o->next;
	return o;
}

int p9_lock_set(struct p9_server *s, const struct p9_lock *l, bool unlock)
{
	int err;

	if (s->nlocks + splits(s, l) + !unlock > P9_LOCKS_MAX)
		return -ENOLCK;
	err = cut_out(s, l);
	return err || unlock ? err : add(s, l, l->start, l->end);
}

void p9_locks_drop(struct p9_session *ss, const struct p9_fid *f)
{
	struct p9_server *s = ss->server;
	struct p9_lock **at = &s->locks;

	pthread_mutex_lock(&s->lock_lock);
	while (*at) {
		struct p9_lock *o = *at;

		if (o->owner.ss == ss && (!f || o->fid == f->id)) {
			*at = o->next;
			free(o);
			s->nlocks--;
		} else {
			at = &o->next;
		}
	}
	pthread_mutex_unlock(&s->lock_lock);
}

/* start, length, process and client, as both messages have them. */
static int get_lock(struct p9_call *c, struct p9_lock *l)
{
	uint64_t length;
	struct p9_text client;

	l->start = p9_get64(&c->in);
	length = p9_get64(&c->in);
	l->owner.process = p9_get32(&c->in);
	client = p9_get_text(&c->in);
	if (p9_end(c))
		return -EBADMSG;
	if (client.len > P9_LOCK_CLIENT || (length && length - 1 > UINT64_MAX - l->start))
		return -EINVAL;
	l->end = length ? l->start + length - 1 : UINT64_MAX;
	l->owner.ss = c->ss;
	l->owner.len = (uint8_t)client.len;
	memcpy(l->owner.client, client.p, client.len);
	return 0;
}

static int use_file(struct p9_call *c, uint32_t id, struct p9_lock *l)
{
	struct p9_use u;
	int err = p9_use(c, id, &u);

	if (!err && u.kind != P9_FID_FILE && u.kind != P9_FID_DIR)
		err = -EBADF;
	if (!err && u.fd < 0)
		err = -ESTALE;
	if (!err) {
		l->file = u.node->ident;
		l->fid = id;
	}
	p9_use_put(c, &u);
	return err;
}

int p9_lockop(struct p9_call *c)
{
	uint32_t id = p9_get32(&c->in);
	uint8_t type = p9_get8(&c->in), status = P9_LOCK_SUCCESS;
	struct p9_lock l = { .write = type == P9_LOCK_WRITE };
	int err;

	p9_get32(&c->in);	/* who wants to wait asks again */
	err = get_lock(c, &l);
	if (!err && type > P9_LOCK_UNLOCK)
		err = -EINVAL;
	if (!err)
		err = use_file(c, id, &l);
	if (err)
		return err;
	pthread_mutex_lock(&c->s->lock_lock);
	if (type != P9_LOCK_UNLOCK && p9_lock_conflict(c->s, &l))
		status = P9_LOCK_BLOCKED;
	else
		err = p9_lock_set(c->s, &l, type == P9_LOCK_UNLOCK);
	pthread_mutex_unlock(&c->s->lock_lock);
	p9_put8(&c->out, status);
	return err;
}

int p9_getlock(struct p9_call *c)
{
	uint32_t id = p9_get32(&c->in);
	uint8_t type = p9_get8(&c->in);
	struct p9_lock l = { .write = type == P9_LOCK_WRITE }, found;
	const struct p9_lock *o;
	int err = get_lock(c, &l);

	if (!err && type > P9_LOCK_WRITE)
		err = -EINVAL;
	if (!err)
		err = use_file(c, id, &l);
	if (err)
		return err;
	pthread_mutex_lock(&c->s->lock_lock);
	o = p9_lock_conflict(c->s, &l);
	found = o ? *o : l;
	pthread_mutex_unlock(&c->s->lock_lock);
	p9_put8(&c->out, !o ? P9_LOCK_UNLOCK : found.write ? P9_LOCK_WRITE : P9_LOCK_READ);
	p9_put64(&c->out, found.start);
	p9_put64(&c->out, found.end == UINT64_MAX ? 0 : found.end - found.start + 1);
	p9_put32(&c->out, found.owner.process);
	p9_put_text(&c->out, found.owner.client, found.owner.len);
	return 0;
}
