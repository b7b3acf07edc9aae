/*
 * Treaddir.  A cookie is the host's own (d_off), so a directory can be read on from anywhere, also
 * after a restore; what it is worth is the host's file system's to say, and any number is harmless.
 */
#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "p9/server.h"

#define BUFFER 32768

struct host_dirent {
	uint64_t ino;
	int64_t off;
	uint16_t reclen;
	uint8_t type;
	char name[];
};

struct listing {
	struct p9_call *c;
	struct p9_fid *f;
	int fd;
	uint64_t dev;
	uint64_t self, up;		/* what "." and ".." are to the client */
	uint32_t left;			/* bytes of the answer */
};

/* 1: the answer is full. */
static int put_entry(struct listing *l, const struct host_dirent *d)
{
	uint8_t buf[24 + P9_NAME_LEN];
	struct p9_out out = { buf, 0, sizeof(buf), false };
	struct p9_qid q = { 0 };
	size_t len = strlen(d->name);
	uint32_t mode;

	if (len > P9_NAME_LEN)
		return 0;		/* no client could name it */
	if (24 + len > l->left)
		return 1;
	mode = p9_attr_type(l->c->s, l->fd, d->name, d->type);
	q.type = S_ISDIR(mode) ? P9_QID_DIR : S_ISLNK(mode) ? P9_QID_SYMLINK : P9_QID_FILE;
	if (!strcmp(d->name, "."))
		q.path = l->self;
	else if (!strcmp(d->name, ".."))
		q.path = l->up;
	else if (l->c->s->o.multidevs == P9_WARN || p9_qid_path(&l->c->s->qids, l->dev, d->ino, &q.path))
		q.path = d->ino;
	p9_put_qid(&out, &q);
	p9_put64(&out, (uint64_t)d->off);
	p9_put8(&out, IFTODT(mode));
	p9_put_text(&out, d->name, len);
	if (!p9_put_data(l->c->r, buf, out.len))
		return 1;
	l->left -= (uint32_t)out.len;
	l->f->dir_at = (uint64_t)d->off;
	return 0;
}

/* fid lock held. */
static int list(struct listing *l, uint64_t offset)
{
	uint8_t *buf = malloc(BUFFER);
	int err = buf ? 0 : -ENOMEM, full = 0;

	if (!err && lseek(l->fd, (off_t)offset, SEEK_SET) < 0)
		err = errno == EINVAL ? 0 : -errno, full = 1;	/* a cookie that it never gave: the end */
	while (!err && !full) {
		/* Not much more than what can be sent: the rest would be read again. */
		size_t want = MIN((size_t)BUFFER, MAX((size_t)l->left * 2, (size_t)1024));
		long got = syscall(SYS_getdents64, l->fd, buf, want);

		if (got < 0)
			err = -errno;
		if (got <= 0)
			break;
		for (long at = 0; at < got && !full;) {
			const struct host_dirent *d = (const void *)(buf + at);

			full = put_entry(l, d);
			at += d->reclen;
		}
	}
	free(buf);
	/* Not a single entry fits: say so, or the client takes it for the end. */
	return !err && full && !l->c->r->data && l->left < 24 + P9_NAME_LEN + 1 && l->left ? -EINVAL : err;
}

static uint64_t number_of(struct p9_call *c, struct p9_node *n)
{
	uint64_t path = 0;

	p9_qid_path(&c->s->qids, n->ident.dev, n->ident.ino, &path);
	return path;
}

int p9_readdir(struct p9_call *c)
{
	uint32_t id = p9_get32(&c->in), count;
	uint64_t offset = p9_get64(&c->in);
	struct listing l = { .c = c };
	struct p9_node *up;
	struct p9_use u;
	int err;

	count = p9_get32(&c->in);
	if (p9_end(c))
		return -EBADMSG;
	if (c->msize < P9_READ_HEAD)
		return -EMSGSIZE;
	err = p9_use(c, id, &u);
	if (!err && u.kind != P9_FID_DIR)
		err = u.kind == P9_FID_FILE ? -ENOTDIR : -EBADF;
	if (!err && u.fd < 0)
		err = -ESTALE;
	if (!err) {
		up = p9_node_up(&c->s->tree, u.node);
		l.f = u.fid;
		l.fd = u.fd;
		l.dev = u.node->ident.dev;
		l.self = number_of(c, u.node);
		l.up = number_of(c, up);
		l.left = MIN(count, c->msize - P9_READ_HEAD);
		p9_node_put(&c->s->tree, up);
		pthread_mutex_lock(&u.fid->lock);
		err = list(&l, offset);
		pthread_mutex_unlock(&u.fid->lock);
	}
	p9_use_put(c, &u);
	p9_put32(&c->out, c->r->data);
	return err;
}
