/*
 * Extended attributes.  With security=mapped a client's names of the user namespace are the host's, but
 * for those that begin with user.skep. or user.virtfs., which hold what is mapped and are not to be
 * seen; of the other namespaces (security, system, trusted) a name N is kept as user.virtfs.N,
 * as QEMU does it with access control lists.  Else a client has user and system.posix_acl, and with
 * passthrough whatever the server may.
 */
#include <errno.h>
#include <stdlib.h>
#include <sys/xattr.h>

#include "p9/server.h"

#define KEPT	"user.virtfs."

static bool begins(const char *s, const char *with)
{
	return !strncmp(s, with, strlen(with));
}

static bool is_foreign(const char *name)
{
	return begins(name, "security.") || begins(name, "system.") || begins(name, "trusted.");
}

static bool is_acl(const char *name)
{
	return begins(name, "system.posix_acl_");
}

/* The host's name of a client's one. */
static int host_name(const struct p9_server *s, const char *name, char host[P9_XATTR_NAME + 1])
{
	const char *kept = "";

	switch (s->o.security) {
	case P9_MAPPED:
		if (begins(name, "user.skep.") || begins(name, KEPT))
			return -EACCES;
		if (is_foreign(name))
			kept = KEPT;
		else if (!begins(name, "user."))
			return -EOPNOTSUPP;
		break;
	case P9_NONE:
		if (!begins(name, "user.") && !is_acl(name))
			return -EOPNOTSUPP;
		break;
	case P9_PASSTHROUGH:
		break;
	}
	if (strlen(kept) + strlen(name) > P9_XATTR_NAME)
		return -ERANGE;
	strcpy(host, kept);
	strcat(host, name);
	return 0;
}

/* The client's name of the host's one; NULL: it has none. */
static const char *client_name(const struct p9_server *s, const char *host)
{
	if (s->o.security == P9_PASSTHROUGH)
		return host;
	if (s->o.security == P9_NONE)
		return begins(host, "user.") || is_acl(host) ? host : NULL;
	if (begins(host, KEPT))
		return is_foreign(host + strlen(KEPT)) ? host + strlen(KEPT) : NULL;
	return begins(host, "user.") && !begins(host, "user.skep.") ? host : NULL;
}

/* A value or list into a buffer that fits; what changes meanwhile is read again, a few times. */
static ssize_t read_whole(int fd, const char *name, uint8_t **out)
{
	for (int turn = 0; turn < 8; turn++) {
		struct p9_fd_path path = p9_fd_path(fd);
		ssize_t n = name ? getxattr(path.text, name, NULL, 0) : listxattr(path.text, NULL, 0);
		uint8_t *buf;

		if (n < 0)
			return -errno;
		if (n > (ssize_t)P9_XATTR_MAX)
			return -E2BIG;
		buf = malloc((size_t)n + 1);
		if (!buf)
			return -ENOMEM;
		n = name ? getxattr(path.text, name, buf, (size_t)n + 1) :
			listxattr(path.text, (char *)buf, (size_t)n + 1);
		if (n >= 0) {
			*out = buf;
			return n;
		}
		free(buf);
		if (errno != ERANGE)
			return -errno;
	}
	return -EAGAIN;
}

/* What the client may see of a list, in place. */
static size_t filter(const struct p9_server *s, uint8_t *list, size_t len)
{
	size_t kept = 0;

	for (size_t at = 0; at < len;) {
		char *host = (char *)list + at;
		size_t n = strnlen(host, len - at);
		const char *name;

		if (at + n == len)
			break;		/* not terminated: no name */
		name = client_name(s, host);
		at += n + 1;
		if (name) {
			n -= (size_t)(name - host);
			memmove(list + kept, name, n + 1);
			kept += n + 1;
		}
	}
	return kept;
}

static int xattr_text(struct p9_text text, char name[P9_XATTR_NAME + 1])
{
	if (text.len > P9_XATTR_NAME)
		return -ERANGE;
	if (memchr(text.p, '\0', text.len))
		return -EINVAL;
	memcpy(name, text.p, text.len);
	name[text.len] = '\0';
	return 0;
}

static ssize_t read_for(struct p9_call *c, int fd, const char *name, uint8_t **value)
{
	char host[P9_XATTR_NAME + 1];
	ssize_t n;

	if (*name) {
		n = host_name(c->s, name, host);
		if (n == -EACCES)
			n = -ENODATA;	/* as if it were not there */
		return n ? n : read_whole(fd, host, value);
	}
	n = read_whole(fd, NULL, value);
	return n < 0 ? n : (ssize_t)filter(c->s, *value, (size_t)n);
}

int p9_xattrwalk(struct p9_call *c)
{
	uint32_t id = p9_get32(&c->in), newid = p9_get32(&c->in);
	struct p9_text text = p9_get_text(&c->in);
	char name[P9_XATTR_NAME + 1];
	uint8_t *value = NULL;
	struct p9_node *n;
	struct p9_fid *f;
	struct p9_use u;
	ssize_t len = 0;
	int err = p9_end(c);

	if (!err)
		err = xattr_text(text, name);
	if (err)
		return err;
	err = p9_use_fd(c, id, &u);
	if (!err) {
		len = read_for(c, u.fd, name, &value);
		err = len < 0 ? (int)len : 0;
	}
	if (!err) {
		n = p9_node_get(&c->s->tree, u.node);
		err = p9_fid_add(c->ss, newid, n, u.fid->uid, &f);
		if (err)
			p9_node_put(&c->s->tree, n);
	}
	if (!err) {
		/* It is in the table, and a client may have used it by now: then it is that. */
		pthread_mutex_lock(&c->ss->lock);
		if (f->kind == P9_FID_PLACE) {
			f->xattr.value = value;
			f->xattr.len = (uint32_t)len;
			f->kind = P9_FID_XATTR_READ;
			value = NULL;
		} else {
			err = -EBUSY;
		}
		pthread_mutex_unlock(&c->ss->lock);
		p9_fid_put(c->ss, f);
	}
	free(value);
	p9_use_put(c, &u);
	p9_put64(&c->out, (uint64_t)len);
	return err;
}

int p9_xattrcreate(struct p9_call *c)
{
	uint32_t id = p9_get32(&c->in), flags;
	struct p9_text text = p9_get_text(&c->in);
	char name[P9_XATTR_NAME + 1], host[P9_XATTR_NAME + 1];
	uint64_t size = p9_get64(&c->in);
	uint8_t *value = NULL;
	struct p9_use u;
	int err;

	flags = p9_get32(&c->in);
	err = p9_end(c);
	if (!err)
		err = xattr_text(text, name);
	if (!err)
		err = host_name(c->s, name, host);
	if (!err && size > P9_XATTR_MAX)
		err = -E2BIG;
	if (!err && flags & ~(uint32_t)(XATTR_CREATE | XATTR_REPLACE))
		err = -EINVAL;
	if (err)
		return err;
	value = calloc(1, size + 1);
	err = p9_use(c, id, &u);
	if (!err && !value)
		err = -ENOMEM;
	if (!err) {
		pthread_mutex_lock(&c->ss->lock);
		if (u.fid->kind != P9_FID_PLACE) {
			err = -EINVAL;
		} else {
			strcpy(u.fid->xattr.name, host);
			u.fid->xattr.value = value;
			u.fid->xattr.len = (uint32_t)size;
			u.fid->xattr.flags = flags;
			u.fid->kind = P9_FID_XATTR_WRITE;
			value = NULL;
		}
		pthread_mutex_unlock(&c->ss->lock);
	}
	free(value);
	p9_use_put(c, &u);
	return err;
}

/* A size of 0 takes the attribute away, as Linux's client has it. */
int p9_xattr_commit(struct p9_session *ss, struct p9_fid *f)
{
	struct p9_tree *t = &ss->server->tree;
	struct p9_fd_path path;
	int fd, err = 0;

	/* The name may come from a file that somebody has edited, and the share have been another one. */
	if (ss->server->o.ro)
		return -EROFS;
	if (!client_name(ss->server, f->xattr.name))
		return -EACCES;
	fd = p9_node_pin(t, f->node);
	if (fd < 0)
		return fd;
	path = p9_fd_path(fd);
	if (f->xattr.len ? setxattr(path.text, f->xattr.name, f->xattr.value, f->xattr.len,
				    (int)f->xattr.flags) :
	    removexattr(path.text, f->xattr.name))
		err = -errno;
	p9_node_unpin(t, f->node);
	return err;
}
