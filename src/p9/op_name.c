/*
 * Names that are made, moved and taken away: each call has the descriptor of a parent and one
 * component, and follows nothing.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "p9/server.h"

/* What all that make something have: where, by what name, whose. */
struct made {
	struct p9_use dir;
	char name[P9_NAME_LEN + 1];
	uint32_t mode, gid;		/* S_IFMT too */
	uint32_t major, minor;
	struct p9_text target;		/* of a symbolic link */
};

/* Sends what was made there, and gives it its owner; or takes it away again. */
static int complete(struct p9_call *c, struct made *m)
{
	struct p9_node *n;
	struct p9_attr a;
	struct p9_qid q;
	struct statx stx;
	int err = p9_node_walk(&c->s->tree, m->dir.node, m->name, &stx, &n), fd;

	if (err)
		return err;
	fd = p9_node_pin(&c->s->tree, n);
	if (fd < 0) {
		p9_node_put(&c->s->tree, n);
		return fd;
	}
	/* Somebody on the host may have put another thing there by now: then nothing is changed. */
	if ((stx.stx_mode & S_IFMT) != (c->s->o.security == P9_MAPPED && !S_ISDIR(m->mode) ? S_IFREG :
					m->mode & S_IFMT))
		err = -ESTALE;
	if (!err)
		err = p9_attr_new(c->s, fd, m->mode, m->dir.fid->uid, m->gid, m->major, m->minor);
	if (err && err != -ESTALE)
		p9_node_unlink(&c->s->tree, m->dir.node, m->name, S_ISDIR(m->mode) ? AT_REMOVEDIR : 0, n);
	if (!err)
		err = p9_attr_get(c->s, fd, &a);
	if (!err)
		err = p9_attr_qid(c->s, &a, &q);
	if (!err)
		p9_put_qid(&c->out, &q);
	p9_node_unpin(&c->s->tree, n);
	p9_node_put(&c->s->tree, n);
	return err;
}

/* security=mapped: a regular file stands for it; a link's target is what it holds. */
static int make_stand_in(struct p9_call *c, struct made *m)
{
	int fd = p9_open_below(m->dir.fd, m->name, O_WRONLY | O_CREAT | O_EXCL | O_NOCTTY, 0600), err = 0;

	if (fd < 0)
		return fd;
	if (m->target.len && write(fd, m->target.p, m->target.len) != m->target.len) {
		err = -EIO;
		p9_node_unlink(&c->s->tree, m->dir.node, m->name, 0, NULL);
	}
	close(fd);
	return err;
}

static int make_real(struct p9_call *c, struct made *m)
{
	uint32_t mode = p9_attr_host_mode(c->s, m->mode);
	char target[PATH_MAX];
	int rc;

	if (S_ISLNK(m->mode)) {
		memcpy(target, m->target.p, m->target.len);
		target[m->target.len] = '\0';
		rc = symlinkat(target, m->dir.fd, m->name);
	} else if ((S_ISCHR(m->mode) || S_ISBLK(m->mode)) && c->s->o.security != P9_PASSTHROUGH) {
		return -EPERM;
	} else {
		rc = mknodat(m->dir.fd, m->name, mode, makedev(m->major, m->minor));
	}
	return rc < 0 ? -errno : 0;
}

static int make(struct p9_call *c, uint32_t id, struct p9_text name, struct made *m)
{
	int err = p9_end(c);

	if (!err)
		err = p9_name(name, m->name);
	if (err)
		return err;
	err = p9_use_fd(c, id, &m->dir);
	if (!err && m->dir.kind != P9_FID_PLACE && m->dir.kind != P9_FID_DIR)
		err = -EINVAL;
	if (!err && S_ISDIR(m->mode))
		err = mkdirat(m->dir.fd, m->name, p9_attr_host_mode(c->s, m->mode) & 0777) < 0 ?
			-errno : 0;
	else if (!err)
		err = c->s->o.security == P9_MAPPED ? make_stand_in(c, m) : make_real(c, m);
	if (!err)
		err = complete(c, m);
	p9_use_put(c, &m->dir);
	return err;
}

int p9_mkdir(struct p9_call *c)
{
	uint32_t id = p9_get32(&c->in);
	struct p9_text name = p9_get_text(&c->in);
	struct made m = { .mode = S_IFDIR | (p9_get32(&c->in) & 07777) };

	m.gid = p9_get32(&c->in);
	return make(c, id, name, &m);
}

int p9_symlink(struct p9_call *c)
{
	uint32_t id = p9_get32(&c->in);
	struct p9_text name = p9_get_text(&c->in);
	struct made m = { .mode = S_IFLNK | 0777 };

	m.target = p9_get_text(&c->in);
	m.gid = p9_get32(&c->in);
	if (p9_end(c))
		return -EBADMSG;
	if (m.target.len >= PATH_MAX)
		return -ENAMETOOLONG;
	if (!m.target.len)
		return -ENOENT;
	if (memchr(m.target.p, '\0', m.target.len))
		return -EINVAL;
	return make(c, id, name, &m);
}

int p9_mknod(struct p9_call *c)
{
	uint32_t id = p9_get32(&c->in);
	struct p9_text name = p9_get_text(&c->in);
	struct made m = { .mode = p9_get32(&c->in) };

	m.major = p9_get32(&c->in);
	m.minor = p9_get32(&c->in);
	m.gid = p9_get32(&c->in);
	if (!(m.mode & S_IFMT))
		m.mode |= S_IFREG;
	m.mode &= S_IFMT | 07777;
	switch (m.mode & S_IFMT) {
	case S_IFREG: case S_IFCHR: case S_IFBLK: case S_IFIFO: case S_IFSOCK:
		return make(c, id, name, &m);
	default:
		return -EINVAL;
	}
}

int p9_link(struct p9_call *c)
{
	uint32_t dir = p9_get32(&c->in), id = p9_get32(&c->in);
	struct p9_text text = p9_get_text(&c->in);
	char name[P9_NAME_LEN + 1];
	struct p9_use d = { 0 }, u = { 0 };
	int err = p9_end(c);

	if (!err)
		err = p9_name(text, name);
	if (err)
		return err;
	err = p9_use_fd(c, dir, &d);
	if (!err)
		err = p9_use_fd(c, id, &u);
	/* The descriptor's own file, also if it is a symbolic link. */
	if (!err && linkat(AT_FDCWD, p9_fd_path(u.fd).text, d.fd, name, AT_SYMLINK_FOLLOW) < 0)
		err = -errno;
	p9_use_put(c, &u);
	p9_use_put(c, &d);
	return err;
}

int p9_renameat(struct p9_call *c)
{
	uint32_t from = p9_get32(&c->in), to;
	struct p9_text name = p9_get_text(&c->in), as;
	char old[P9_NAME_LEN + 1], new[P9_NAME_LEN + 1];
	struct p9_use f = { 0 }, t = { 0 };
	int err;

	to = p9_get32(&c->in);
	as = p9_get_text(&c->in);
	err = p9_end(c);
	if (!err)
		err = p9_name(name, old);
	if (!err)
		err = p9_name(as, new);
	if (err)
		return err;
	err = p9_use(c, from, &f);
	if (!err)
		err = p9_use(c, to, &t);
	if (!err)
		err = p9_node_rename(&c->s->tree, f.node, old, t.node, new, NULL);
	p9_use_put(c, &t);
	p9_use_put(c, &f);
	return err;
}

int p9_rename(struct p9_call *c)
{
	uint32_t id = p9_get32(&c->in), to = p9_get32(&c->in);
	struct p9_text as = p9_get_text(&c->in);
	struct p9_use f = { 0 }, t = { 0 };
	struct p9_node *parent = NULL;
	char new[P9_NAME_LEN + 1], *old = NULL;
	int err = p9_end(c);

	if (!err)
		err = p9_name(as, new);
	if (err)
		return err;
	err = p9_use(c, id, &f);
	if (!err)
		err = p9_use(c, to, &t);
	if (!err)
		err = p9_node_place(&c->s->tree, f.node, &parent, &old);
	if (!err)
		err = p9_node_rename(&c->s->tree, parent, old, t.node, new, f.node);
	free(old);
	p9_node_put(&c->s->tree, parent);
	p9_use_put(c, &t);
	p9_use_put(c, &f);
	return err;
}

int p9_unlinkat(struct p9_call *c)
{
	uint32_t id = p9_get32(&c->in), flags;
	struct p9_text text = p9_get_text(&c->in);
	char name[P9_NAME_LEN + 1];
	struct p9_use d;
	int err;

	flags = p9_get32(&c->in);
	err = p9_end(c);
	if (!err)
		err = p9_name(text, name);
	if (!err && flags & ~P9_UNLINK_DIR)
		err = -EINVAL;
	if (err)
		return err;
	err = p9_use(c, id, &d);
	if (!err)
		err = p9_node_unlink(&c->s->tree, d.node, name, flags ? AT_REMOVEDIR : 0, NULL);
	p9_use_put(c, &d);
	return err;
}
