/* Tgetattr, Tsetattr, Tstatfs, Treadlink. */
#include <errno.h>
#include <fcntl.h>
#include <sys/statfs.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "p9/server.h"

static void put_time(struct p9_out *out, const struct statx_timestamp *t)
{
	p9_put64(out, (uint64_t)t->tv_sec);
	p9_put64(out, t->tv_nsec);
}

static void put_attr(struct p9_call *c, const struct p9_attr *a, const struct p9_qid *q)
{
	struct p9_out *out = &c->out;
	const struct statx *s = &a->stx;

	p9_put64(out, P9_GET_BASIC | (s->stx_mask & STATX_BTIME ? P9_GET_BTIME : 0));
	p9_put_qid(out, q);
	p9_put32(out, a->mode);
	p9_put32(out, a->uid);
	p9_put32(out, a->gid);
	p9_put64(out, s->stx_nlink);
	p9_put64(out, makedev(a->major, a->minor));
	p9_put64(out, s->stx_size);
	/* What is best to ask for at once. */
	p9_put64(out, MAX(p9_iounit(c), s->stx_blksize));
	p9_put64(out, s->stx_blocks);
	put_time(out, &s->stx_atime);
	put_time(out, &s->stx_mtime);
	put_time(out, &s->stx_ctime);
	put_time(out, &s->stx_btime);
	p9_put64(out, 0);	/* generation */
	p9_put64(out, 0);	/* data version */
}

int p9_getattr(struct p9_call *c)
{
	uint32_t id = p9_get32(&c->in);
	struct p9_attr a;
	struct p9_use u;
	struct p9_qid q;
	int err;

	p9_get64(&c->in);	/* the client says what it wants; it gets what there is */
	if (p9_end(c))
		return -EBADMSG;
	err = p9_use_fd(c, id, &u);
	if (!err)
		err = p9_attr_get(c->s, u.fd, &a);
	if (!err)
		err = p9_attr_qid(c->s, &a, &q);
	p9_use_put(c, &u);
	if (!err)
		put_attr(c, &a, &q);
	return err;
}

/* ---- Tsetattr ---------------------------------------------------------- */

struct setattr {
	uint32_t valid, mode, uid, gid;
	uint64_t size;
	struct timespec time[2];
};

/* A descriptor of another fid of the file that may write, if this one may not: a duplicate. */
static int writable_elsewhere(struct p9_session *ss, const struct p9_node *n)
{
	int fd = -EACCES;

	pthread_mutex_lock(&ss->lock);
	for (size_t i = 0; i < ss->nbuckets && fd < 0; i++)
		for (struct p9_fid *f = ss->fids[i]; f && fd < 0; f = f->next)
			if (f->kind == P9_FID_FILE && f->fd >= 0 && f->flags & P9_OPEN_ACCESS &&
			    p9_ident_same(&f->node->ident, &n->ident))
				fd = fcntl(f->fd, F_DUPFD_CLOEXEC, 0);
	pthread_mutex_unlock(&ss->lock);
	return fd;
}

static int set_size(struct p9_call *c, struct p9_use *u, const struct p9_attr *a, uint64_t size)
{
	bool own = u->kind == P9_FID_FILE && u->fid->flags & P9_OPEN_ACCESS;
	int fd = u->fd, err;

	if (S_ISDIR(a->mode))
		return -EISDIR;
	if (!S_ISREG(a->stx.stx_mode) || !S_ISREG(a->mode) || size > INT64_MAX)
		return -EINVAL;
	if (!own) {
		fd = p9_reopen(u->fd, O_WRONLY);
		if (fd == -EACCES)
			fd = writable_elsewhere(c->ss, u->node);
		if (fd < 0)
			return fd;
	}
	err = ftruncate(fd, (off_t)size) < 0 ? -errno : 0;
	if (!own)
		close(fd);
	return err;
}

static int set_times(struct p9_use *u, const struct setattr *s)
{
	struct timespec t[2];

	for (int i = 0; i < 2; i++) {
		t[i] = s->time[i];
		if (!(s->valid & (i ? P9_SET_MTIME : P9_SET_ATIME)))
			t[i].tv_nsec = UTIME_OMIT;
		else if (!(s->valid & (i ? P9_SET_MTIME_TO : P9_SET_ATIME_TO)))
			t[i].tv_nsec = UTIME_NOW;
		else if (t[i].tv_nsec < 0 || t[i].tv_nsec >= NSEC_PER_SEC)
			return -EINVAL;
	}
	return utimensat(u->fd, "", t, AT_EMPTY_PATH) < 0 ? -errno : 0;
}

static int set_all(struct p9_call *c, struct p9_use *u, const struct setattr *s)
{
	uint32_t mode = s->valid & P9_SET_MODE ? s->mode : UINT32_MAX;
	uint32_t uid = s->valid & P9_SET_UID ? s->uid : UINT32_MAX;
	uint32_t gid = s->valid & P9_SET_GID ? s->gid : UINT32_MAX;
	struct p9_attr a;
	int err = p9_attr_get(c->s, u->fd, &a);

	if (!err && s->valid & P9_SET_SIZE)
		err = set_size(c, u, &a, s->size);
	if (!err && (mode & uid & gid) != UINT32_MAX)
		err = p9_attr_change(c->s, u->fd, &a, mode, uid, gid);
	if (!err && s->valid & (P9_SET_ATIME | P9_SET_MTIME))
		err = set_times(u, s);
	return err;
}

int p9_setattr(struct p9_call *c)
{
	uint32_t id = p9_get32(&c->in);
	struct setattr s;
	struct p9_use u;
	int err;

	s.valid = p9_get32(&c->in);
	s.mode = p9_get32(&c->in);
	s.uid = p9_get32(&c->in);
	s.gid = p9_get32(&c->in);
	s.size = p9_get64(&c->in);
	for (int i = 0; i < 2; i++) {
		s.time[i].tv_sec = (time_t)p9_get64(&c->in);
		s.time[i].tv_nsec = (long)p9_get64(&c->in);
	}
	if (p9_end(c))
		return -EBADMSG;
	if (s.valid & ~P9_SET_ALL)
		return -EINVAL;
	err = p9_use_fd(c, id, &u);
	if (!err)
		err = set_all(c, &u, &s);
	p9_use_put(c, &u);
	return err;
}

/* ---- the rest ---------------------------------------------------------- */

int p9_statfs(struct p9_call *c)
{
	uint32_t id = p9_get32(&c->in);
	struct statfs f;
	struct p9_use u;
	uint64_t fsid;
	int err;

	if (p9_end(c))
		return -EBADMSG;
	err = p9_use_fd(c, id, &u);
	if (!err && fstatfs(u.fd, &f) < 0)
		err = -errno;
	p9_use_put(c, &u);
	if (err)
		return err;
	memcpy(&fsid, &f.f_fsid, sizeof(fsid));
	p9_put32(&c->out, 0x01021997);	/* V9FS_MAGIC */
	p9_put32(&c->out, (uint32_t)f.f_bsize);
	p9_put64(&c->out, f.f_blocks);
	p9_put64(&c->out, f.f_bfree);
	p9_put64(&c->out, f.f_bavail);
	p9_put64(&c->out, f.f_files);
	p9_put64(&c->out, f.f_ffree);
	p9_put64(&c->out, fsid);
	p9_put32(&c->out, MIN((uint32_t)f.f_namelen, P9_NAME_LEN));
	return 0;
}

/* A mapped link is a file that holds the target; else the link itself is what the O_PATH names. */
static ssize_t target_of(struct p9_use *u, const struct p9_attr *a, char *buf, size_t room)
{
	ssize_t n;
	int fd;

	if (!S_ISLNK(a->mode))
		return -EINVAL;
	if (S_ISLNK(a->stx.stx_mode)) {
		n = readlinkat(u->fd, "", buf, room);
		return n < 0 ? -errno : n;
	}
	fd = p9_reopen(u->fd, O_RDONLY);
	if (fd < 0)
		return fd;
	n = pread(fd, buf, room, 0);
	n = n < 0 ? -errno : n;
	close(fd);
	return n;
}

int p9_readlink(struct p9_call *c)
{
	uint32_t id = p9_get32(&c->in);
	char target[PATH_MAX];
	struct p9_attr a;
	struct p9_use u;
	ssize_t n = 0;
	int err;

	if (p9_end(c))
		return -EBADMSG;
	err = p9_use_fd(c, id, &u);
	if (!err)
		err = p9_attr_get(c->s, u.fd, &a);
	if (!err) {
		n = target_of(&u, &a, target, sizeof(target));
		err = n < 0 ? (int)n : 0;
	}
	p9_use_put(c, &u);
	if (!err)
		p9_put_text(&c->out, target, (size_t)n);
	return err;
}
