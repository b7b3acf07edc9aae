/* Files: Tlopen, Tlcreate, Tread, Twrite, Tfsync. */
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <unistd.h>

#include "p9/server.h"

#define PIECES 64	/* of a request's data, at a time */

/*
 * O_APPEND stays with the client, which sends offsets, and O_DIRECT too: its buffers are nobody's
 * sectors.  O_CREAT is Tlcreate's.
 */
static int host_flags(uint32_t flags)
{
	int f = flags & P9_OPEN_ACCESS;

	if (flags & P9_OPEN_TRUNC)
		f |= O_TRUNC;
	if (flags & P9_OPEN_DSYNC)
		f |= O_DSYNC;
	if ((flags & P9_OPEN_SYNC) == P9_OPEN_SYNC)
		f |= O_SYNC;
	if (flags & P9_OPEN_NOATIME)
		f |= O_NOATIME;
	return f;
}

int p9_open_restored(struct p9_server *s, int fd, bool dir, uint32_t flags)
{
	int got = openat(s->proc_fd, p9_fd_path(fd).text,
			 (dir ? O_RDONLY | O_DIRECTORY : host_flags(flags) & ~(O_TRUNC | O_NOATIME)) |
			 O_CLOEXEC | O_NOCTTY | O_NONBLOCK);

	return got < 0 ? -errno : got;
}

static int check_flags(const struct p9_call *c, uint32_t flags)
{
	if ((flags & P9_OPEN_ACCESS) == P9_OPEN_ACCESS)
		return -EINVAL;
	if (c->s->o.ro && (flags & (P9_OPEN_ACCESS | P9_OPEN_TRUNC)))
		return -EROFS;
	return 0;
}

/* The fid is open now, as fd, which is the fid's if this succeeds. node: it moves there (or NULL). */
static int set_open(struct p9_call *c, struct p9_fid *f, int fd, uint32_t flags, bool dir,
		    struct p9_node *node)
{
	struct p9_node *was = NULL;
	int err = -EBADF;

	pthread_mutex_lock(&c->ss->lock);
	if (f->kind != P9_FID_PLACE)
		err = -EINVAL;
	else if (!f->gone) {
		err = 0;
		f->fd = fd;
		f->flags = flags;
		f->kind = dir ? P9_FID_DIR : P9_FID_FILE;
		if (node) {
			was = f->node;
			f->node = node;
		}
	}
	pthread_mutex_unlock(&c->ss->lock);
	p9_node_put(&c->s->tree, was);
	return err;
}

/* Opens what u stands for, if it is a regular file or directory: a charged descriptor. */
static int open_node(struct p9_call *c, struct p9_use *u, uint32_t flags, bool *dir)
{
	struct p9_attr a;
	int err = p9_attr_get(c->s, u->fd, &a);

	if (err)
		return err;
	*dir = S_ISDIR(a.stx.stx_mode);
	/* Of others the client has the number, and opens what it has by it; ours are not for it. */
	if (!S_ISREG(a.stx.stx_mode) && !*dir)
		return -ENXIO;
	if (S_ISLNK(a.mode))
		return -ELOOP;
	if (!*dir && (!S_ISREG(a.mode)))
		return -ENXIO;
	if (*dir && (flags & (P9_OPEN_ACCESS | P9_OPEN_TRUNC)))
		return -EISDIR;
	if (!*dir && flags & P9_OPEN_DIRECTORY)
		return -ENOTDIR;
	err = p9_tree_charge(&c->s->tree);
	if (err)
		return err;
	err = p9_reopen(u->fd, *dir ? O_RDONLY | O_DIRECTORY : host_flags(flags));
	if (err < 0)
		p9_tree_uncharge(&c->s->tree);
	return err;
}

static int put_qid_of(struct p9_call *c, int fd)
{
	struct p9_attr a;
	struct p9_qid q;
	int err = p9_attr_get(c->s, fd, &a);

	if (!err)
		err = p9_attr_qid(c->s, &a, &q);
	if (err)
		return err;
	p9_put_qid(&c->out, &q);
	p9_put32(&c->out, p9_iounit(c));
	return 0;
}

static int give_up(struct p9_call *c, int fd, int err)
{
	close(fd);
	p9_tree_uncharge(&c->s->tree);
	return err;
}

int p9_lopen(struct p9_call *c)
{
	uint32_t id = p9_get32(&c->in), flags = p9_get32(&c->in);
	struct p9_use u;
	bool dir;
	int err = p9_end(c), fd;

	if (!err)
		err = check_flags(c, flags);
	if (err)
		return err;
	err = p9_use_fd(c, id, &u);
	if (!err && u.kind != P9_FID_PLACE)
		err = -EINVAL;
	if (!err) {
		fd = open_node(c, &u, flags, &dir);
		err = fd < 0 ? fd : put_qid_of(c, fd);
		if (!err)
			err = set_open(c, u.fid, fd, flags, dir, NULL);
		if (err && fd >= 0)
			give_up(c, fd, err);
	}
	p9_use_put(c, &u);
	return err;
}

/* ---- Tlcreate ---------------------------------------------------------- */

struct create {
	char name[P9_NAME_LEN + 1];
	uint32_t flags, mode, gid;
};

/* It is there already: as Tlopen has it. */
static int open_existing(struct p9_call *c, struct p9_use *u, const struct create *cr,
			 struct p9_node **node)
{
	struct p9_use there = { .fid = u->fid };
	struct statx stx;
	bool dir;
	int err = p9_node_walk(&c->s->tree, u->node, cr->name, &stx, node), fd;

	if (err)
		return err;
	there.node = *node;
	fd = p9_node_pin(&c->s->tree, *node);
	if (fd >= 0) {
		there.fd = fd;
		fd = open_node(c, &there, cr->flags, &dir);
		p9_node_unpin(&c->s->tree, *node);
		if (fd >= 0 && dir)
			fd = give_up(c, fd, -EISDIR);
	}
	if (fd < 0)
		p9_node_put(&c->s->tree, *node);
	return fd;
}

static int make_file(struct p9_call *c, struct p9_use *u, const struct create *cr,
		     struct p9_node **node)
{
	uint32_t mode = S_IFREG | (cr->mode & 07777);
	int flags = host_flags(cr->flags) & ~(O_TRUNC | O_NOATIME), fd, err;
	struct statx stx;

	err = p9_tree_charge(&c->s->tree);
	if (err)
		return err;
	fd = p9_open_below(u->fd, cr->name, flags | O_CREAT | O_EXCL | O_NOCTTY | O_NONBLOCK,
			   p9_attr_host_mode(c->s, mode) & 0777);
	if (fd < 0) {
		p9_tree_uncharge(&c->s->tree);
		return fd;
	}
	err = p9_attr_new(c->s, fd, mode, u->fid->uid, cr->gid, 0, 0);
	if (!err)
		err = p9_statx(fd, &stx);
	if (!err)
		err = p9_node_made(&c->s->tree, u->node, cr->name, &stx, node);
	if (err) {
		p9_node_unlink(&c->s->tree, u->node, cr->name, 0, NULL);
		return give_up(c, fd, err);
	}
	return fd;
}

int p9_lcreate(struct p9_call *c)
{
	uint32_t id = p9_get32(&c->in);
	struct p9_text name = p9_get_text(&c->in);
	struct p9_node *node = NULL;
	struct create cr;
	struct p9_use u;
	int err, fd;

	cr.flags = p9_get32(&c->in);
	cr.mode = p9_get32(&c->in);
	cr.gid = p9_get32(&c->in);
	err = p9_end(c);
	if (!err)
		err = p9_name(name, cr.name);
	if (!err)
		err = check_flags(c, cr.flags);
	if (err)
		return err;
	err = p9_use_fd(c, id, &u);
	if (!err && u.kind != P9_FID_PLACE)
		err = -EINVAL;
	if (!err) {
		fd = make_file(c, &u, &cr, &node);
		if (fd == -EEXIST && !(cr.flags & P9_OPEN_EXCL))
			fd = open_existing(c, &u, &cr, &node);
		err = fd < 0 ? fd : put_qid_of(c, fd);
		if (!err)
			err = set_open(c, u.fid, fd, cr.flags, false, node);
		if (err && fd >= 0) {
			give_up(c, fd, err);
			p9_node_put(&c->s->tree, node);
		}
	}
	p9_use_put(c, &u);
	return err;
}

/* ---- data -------------------------------------------------------------- */

/* The next pieces of a vector from byte `at`, `want` bytes at most: how many pieces. */
static unsigned slice(const struct iovec *v, unsigned nv, size_t at, size_t want,
		      struct iovec out[PIECES])
{
	unsigned n = 0;

	for (unsigned i = 0; i < nv && n < PIECES && want; i++) {
		size_t len = v[i].iov_len;

		if (at >= len) {
			at -= len;
			continue;
		}
		out[n].iov_base = (uint8_t *)v[i].iov_base + at;
		out[n].iov_len = MIN(len - at, want);
		want -= out[n++].iov_len;
		at = 0;
	}
	return n;
}

/* How much was moved, or -errno if nothing was. */
static ssize_t move(struct p9_call *c, int fd, uint64_t offset, uint32_t count, bool write)
{
	const struct iovec *v = write ? c->r->wdata : c->r->rdata;
	unsigned nv = write ? c->r->nwdata : c->r->nrdata;
	struct iovec piece[PIECES];
	size_t done = 0;

	while (done < count) {
		unsigned n = slice(v, nv, done, count - done, piece);
		ssize_t got;

		if (!n)
			break;
		if (atomic_load(&c->r->cancelled))
			return done ? (ssize_t)done : -EINTR;
		got = write ? pwritev(fd, piece, (int)n, (off_t)(offset + done)) :
			preadv(fd, piece, (int)n, (off_t)(offset + done));
		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return done ? (ssize_t)done : -errno;
		if (got == 0)
			break;
		done += (size_t)got;
	}
	return (ssize_t)done;
}

static bool opened_for(const struct p9_use *u, uint32_t access)
{
	uint32_t have = u->fid->flags & P9_OPEN_ACCESS;

	return u->kind == P9_FID_FILE && (have == O_RDWR || have == access);
}

static int read_attribute(struct p9_call *c, struct p9_fid *f, uint64_t offset, uint32_t count)
{
	bool fits = true;

	pthread_mutex_lock(&f->lock);
	if (offset < f->xattr.len)
		fits = p9_put_data(c->r, f->xattr.value + offset,
				   MIN((uint64_t)count, f->xattr.len - offset));
	pthread_mutex_unlock(&f->lock);
	return fits ? 0 : -EMSGSIZE;
}

int p9_read(struct p9_call *c)
{
	uint32_t id = p9_get32(&c->in), count;
	uint64_t offset = p9_get64(&c->in);
	struct p9_use u;
	ssize_t got;
	int err;

	count = p9_get32(&c->in);
	if (p9_end(c))
		return -EBADMSG;
	if (c->msize < P9_READ_HEAD)
		return -EMSGSIZE;
	count = MIN(count, c->msize - P9_READ_HEAD);
	err = p9_use(c, id, &u);
	if (!err && u.kind == P9_FID_XATTR_READ) {
		err = read_attribute(c, u.fid, offset, count);
	} else if (!err && u.kind == P9_FID_FILE && u.fd < 0) {
		err = -ESTALE;
	} else if (!err && opened_for(&u, O_RDONLY)) {
		got = offset > (uint64_t)INT64_MAX - count ? 0 : move(c, u.fd, offset, count, false);
		err = got < 0 ? (int)got : 0;
		c->r->data = err ? 0 : (uint32_t)got;
	} else if (!err) {
		err = u.kind == P9_FID_DIR ? -EISDIR : -EBADF;
	}
	p9_use_put(c, &u);
	p9_put32(&c->out, c->r->data);
	return err;
}

/* An attribute's value comes piece by piece, and never more than was announced. */
static int write_attribute(struct p9_call *c, struct p9_fid *f, uint64_t offset, uint32_t count)
{
	int err = 0;

	pthread_mutex_lock(&f->lock);
	if (offset > f->xattr.len || count > f->xattr.len - offset) {
		err = -ENOSPC;
	} else {
		struct iovec piece[PIECES];
		size_t done = 0;
		unsigned n;

		while (done < count &&
		       (n = slice(c->r->wdata, c->r->nwdata, done, count - done, piece)) > 0) {
			for (unsigned i = 0; i < n; i++) {
				memcpy(f->xattr.value + offset + done, piece[i].iov_base,
				       piece[i].iov_len);
				done += piece[i].iov_len;
			}
		}
	}
	pthread_mutex_unlock(&f->lock);
	return err;
}

int p9_write(struct p9_call *c)
{
	uint32_t id = p9_get32(&c->in), count;
	uint64_t offset = p9_get64(&c->in);
	struct p9_use u;
	ssize_t put = 0;
	int err;

	count = p9_get32(&c->in);
	/* The data are what the message's size says, and of that the transport has given all. */
	if (p9_end(c) || load32(c->r->message) - P9_WRITE_HEAD != count)
		return -EBADMSG;
	err = p9_use(c, id, &u);
	if (!err && u.kind == P9_FID_XATTR_WRITE) {
		err = write_attribute(c, u.fid, offset, count);
		put = count;
	} else if (!err && u.kind == P9_FID_FILE && u.fd < 0) {
		err = -ESTALE;
	} else if (!err && opened_for(&u, O_WRONLY)) {
		put = offset > (uint64_t)INT64_MAX - count ? -EFBIG : move(c, u.fd, offset, count, true);
		err = put < 0 ? (int)put : 0;
	} else if (!err) {
		err = -EBADF;
	}
	p9_use_put(c, &u);
	p9_put32(&c->out, (uint32_t)put);
	return err;
}

int p9_fsync(struct p9_call *c)
{
	uint32_t id = p9_get32(&c->in), data = p9_get32(&c->in);
	struct p9_use u;
	int err = p9_end(c);

	if (err)
		return err;
	err = p9_use(c, id, &u);
	if (!err && u.kind != P9_FID_FILE && u.kind != P9_FID_DIR)
		err = -EBADF;
	if (!err && u.fd < 0)
		err = -ESTALE;
	if (!err && (data ? fdatasync(u.fd) : fsync(u.fd)) < 0)
		err = -errno;
	p9_use_put(c, &u);
	return err;
}
