/*
 * What a client sees of a file, and what the host keeps of it.
 *
 * security=mapped keeps owner, mode and device number of what the client made in one
 * extended attribute, user.skep.meta: six little-endian words (version, uid, gid, mode, major, minor;
 * UINT32_MAX: the host's).  On the host such a file is the server's own, 0600 or 0700, and a symbolic
 * link, device, FIFO or socket is a regular file.  Shares made by QEMU's security_model=mapped-xattr
 * can be read: its user.virtfs.uid, .gid, .mode and .rdev count where ours is missing.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "base/say.h"
#include "p9/server.h"

#define META_NAME	"user.skep.meta"
#define META_WORDS	6
#define META_VERSION	1
#define NOBODY		65534u
#define UNSET		UINT32_MAX

struct p9_fd_path p9_fd_path(int fd)
{
	struct p9_fd_path p;

	snprintf(p.text, sizeof(p.text), "%d", fd);
	return p;
}

/*
 * Only for what is known to be a regular file or directory: of these the type does not change, and the
 * descriptor is the file itself, so nothing else can be opened here.
 */
int p9_reopen(int fd, int flags)
{
	int got = open(p9_fd_path(fd).text, flags | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);

	if (got < 0 && errno == EPERM && flags & O_NOATIME)
		got = open(p9_fd_path(fd).text, (flags & ~O_NOATIME) | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	return got < 0 ? -errno : got;
}

/* ---- ids --------------------------------------------------------------- */

static uint32_t to_guest(const struct p9_options *o, uint32_t id)
{
	for (unsigned i = 0; i < o->nmap; i++)
		if (id - o->map[i].host < o->map[i].count)
			return o->map[i].guest + (id - o->map[i].host);
	return o->nmap ? NOBODY : id;
}

static int to_host(const struct p9_options *o, uint32_t *id)
{
	if (*id == UNSET || !o->nmap)
		return 0;
	for (unsigned i = 0; i < o->nmap; i++) {
		if (*id - o->map[i].guest < o->map[i].count) {
			*id = o->map[i].host + (*id - o->map[i].guest);
			return 0;
		}
	}
	return -EINVAL;		/* as the kernel has it for ids that a file system cannot hold */
}

uint32_t p9_uid_of(struct p9_server *s, uint32_t uid)
{
	return s->o.squash && uid != UNSET ? s->o.squash_uid : uid;
}

uint32_t p9_gid_of(struct p9_server *s, uint32_t gid)
{
	return s->o.squash && gid != UNSET ? s->o.squash_gid : gid;
}

/* ---- the mapped attribute ---------------------------------------------- */

struct meta {
	uint32_t uid, gid, mode, major, minor;
};

static bool may_be_mapped(const struct p9_server *s, uint32_t mode)
{
	return s->o.security == P9_MAPPED && (S_ISREG(mode) || S_ISDIR(mode));
}

typedef ssize_t get_fn(const char *path, const char *name, void *value, size_t size);

/* get: getxattr for "FD", which is a link to the file; lgetxattr for "FD/name". */
static uint32_t qemu_word(get_fn *get, const char *path, const char *name)
{
	uint8_t v[4];

	return get(path, name, v, sizeof(v)) == (ssize_t)sizeof(v) ? load32(v) : UNSET;
}

/* What QEMU has left; a look at the list first, since most files have none. */
static void qemu_meta(const char *path, struct meta *m)
{
	uint8_t rdev[8];

	m->uid = qemu_word(getxattr, path, "user.virtfs.uid");
	m->gid = qemu_word(getxattr, path, "user.virtfs.gid");
	m->mode = qemu_word(getxattr, path, "user.virtfs.mode");
	if (getxattr(path, "user.virtfs.rdev", rdev, sizeof(rdev)) == (ssize_t)sizeof(rdev)) {
		m->major = major(load64(rdev));
		m->minor = minor(load64(rdev));
	}
}

static void meta_read(const char *path, struct meta *m)
{
	uint8_t w[META_WORDS * 4];
	ssize_t n = getxattr(path, META_NAME, w, sizeof(w));

	*m = (struct meta){ UNSET, UNSET, UNSET, 0, 0 };
	if (n == (ssize_t)sizeof(w) && load32(w) == META_VERSION) {
		*m = (struct meta){ load32(w + 4), load32(w + 8), load32(w + 12), load32(w + 16),
				    load32(w + 20) };
	} else if (n < 0 && errno == ENODATA && listxattr(path, NULL, 0) > 0) {
		qemu_meta(path, m);
	}
}

static int meta_write(int fd, const struct meta *m)
{
	uint8_t w[META_WORDS * 4];

	store32(w, META_VERSION);
	store32(w + 4, m->uid);
	store32(w + 8, m->gid);
	store32(w + 12, m->mode);
	store32(w + 16, m->major);
	store32(w + 20, m->minor);
	return setxattr(p9_fd_path(fd).text, META_NAME, w, sizeof(w), 0) < 0 ? -errno : 0;
}

/* A directory is one on both sides; what else the attribute says holds for regular files alone. */
static uint32_t mapped_mode(uint32_t host, uint32_t meta)
{
	if (meta == UNSET)
		return host;
	if (S_ISDIR(host) || S_ISDIR(meta))
		return (host & S_IFMT) | (meta & 07777);
	return (meta & S_IFMT ? meta & S_IFMT : host & S_IFMT) | (meta & 07777);
}

int p9_attr_get(struct p9_server *s, int fd, struct p9_attr *a)
{
	int err = p9_statx(fd, &a->stx);
	struct meta m;

	if (err)
		return err;
	a->mode = a->stx.stx_mode;
	a->uid = to_guest(&s->o, a->stx.stx_uid);
	a->gid = to_guest(&s->o, a->stx.stx_gid);
	a->major = a->stx.stx_rdev_major;
	a->minor = a->stx.stx_rdev_minor;
	if (may_be_mapped(s, a->mode)) {
		meta_read(p9_fd_path(fd).text, &m);
		a->mode = mapped_mode(a->mode, m.mode);
		a->uid = m.uid == UNSET ? a->uid : m.uid;
		a->gid = m.gid == UNSET ? a->gid : m.gid;
		a->major = m.major;
		a->minor = m.minor;
	}
	a->uid = p9_uid_of(s, a->uid);
	a->gid = p9_gid_of(s, a->gid);
	return 0;
}

/* The mapped mode of an entry of a directory; the last component is not followed. */
static uint32_t entry_mode(const char *path)
{
	uint8_t w[META_WORDS * 4];
	ssize_t n = lgetxattr(path, META_NAME, w, sizeof(w));

	if (n == (ssize_t)sizeof(w) && load32(w) == META_VERSION)
		return load32(w + 12);
	return n < 0 && errno == ENODATA ? qemu_word(lgetxattr, path, "user.virtfs.mode") : UNSET;
}

uint32_t p9_attr_type(struct p9_server *s, int dirfd, const char *name, uint8_t d_type)
{
	uint32_t mode = DTTOIF(d_type);
	char path[12 + 1 + 4 * P9_NAME_LEN];
	struct stat st;

	if (d_type == DT_UNKNOWN) {
		if (fstatat(dirfd, name, &st, AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT) < 0)
			return 0;
		mode = st.st_mode & S_IFMT;
	}
	if (s->o.security != P9_MAPPED || !S_ISREG(mode) ||
	    snprintf(path, sizeof(path), "%d/%s", dirfd, name) >= (int)sizeof(path))
		return mode;
	return mapped_mode(mode, entry_mode(path)) & S_IFMT;
}

int p9_attr_qid(struct p9_server *s, const struct p9_attr *a, struct p9_qid *q)
{
	uint64_t dev = (uint64_t)a->stx.stx_dev_major << 32 | a->stx.stx_dev_minor;
	uint64_t t = (uint64_t)a->stx.stx_mtime.tv_sec * NSEC_PER_SEC + a->stx.stx_mtime.tv_nsec;

	q->type = S_ISDIR(a->mode) ? P9_QID_DIR : S_ISLNK(a->mode) ? P9_QID_SYMLINK : P9_QID_FILE;
	/* 0 tells Linux that the file must not be cached at all. */
	q->version = s->o.cache ? (uint32_t)(t ^ t >> 32 ^ a->stx.stx_size << 8) | 1 : 0;
	if (dev != s->qids.root_dev && s->o.multidevs == P9_FORBID)
		return -ENODEV;
	if (dev != s->qids.root_dev && s->o.multidevs == P9_WARN) {
		if (!s->warned) {
			s->warned = true;
			skep_say("skep: %s: a file system is mounted below the share, and multidevs=warn: its "
				 "inode numbers may be the same as others'; multidevs=remap tells them "
				 "apart\n", s->owner);
		}
		q->path = a->stx.stx_ino;
		return 0;
	}
	return p9_qid_path(&s->qids, dev, a->stx.stx_ino, &q->path);
}

/* ---- changes ----------------------------------------------------------- */

static int change_mapped(struct p9_server *s, int fd, const struct p9_attr *was, uint32_t mode,
			 uint32_t uid, uint32_t gid)
{
	pthread_mutex_t *lock = &s->meta_lock[was->stx.stx_ino % P9_META_LOCKS];
	struct meta m;
	int err;

	if (!may_be_mapped(s, was->stx.stx_mode))
		return -EPERM;		/* the host's own link, FIFO or device: it holds no attribute */
	pthread_mutex_lock(lock);
	meta_read(p9_fd_path(fd).text, &m);
	if (mode != UNSET)
		m.mode = (mapped_mode(was->stx.stx_mode, m.mode) & S_IFMT) | (mode & 07777);
	if (uid != UNSET)
		m.uid = uid;
	if (gid != UNSET)
		m.gid = gid;
	/* As chown(2) does it: who owns a program now has not said that it runs as them. */
	if ((uid != UNSET || gid != UNSET) && mode == UNSET && m.mode != UNSET && S_ISREG(m.mode))
		m.mode &= ~(S_ISUID | (m.mode & S_IXGRP ? S_ISGID : 0));
	err = meta_write(fd, &m);
	pthread_mutex_unlock(lock);
	return err;
}

int p9_attr_change(struct p9_server *s, int fd, const struct p9_attr *was, uint32_t mode,
		   uint32_t uid, uint32_t gid)
{
	bool lenient = s->o.security == P9_NONE;
	int err;

	uid = p9_uid_of(s, uid);
	gid = p9_gid_of(s, gid);
	if (s->o.security == P9_MAPPED)
		return change_mapped(s, fd, was, mode, uid, gid);
	err = to_host(&s->o, &uid);
	if (!err)
		err = to_host(&s->o, &gid);
	if (err)
		return err;
	/* First the owner: that clears the bits that mode may set again. */
	if ((uid != UNSET || gid != UNSET) && fchownat(fd, "", uid, gid, AT_EMPTY_PATH) < 0 &&
	    !(lenient && errno == EPERM))
		return -errno;
	if (mode == UNSET)
		return 0;
	if (S_ISLNK(was->stx.stx_mode))
		return -EOPNOTSUPP;
	return chmod(p9_fd_path(fd).text, mode & 07777) < 0 ? -errno : 0;
}

uint32_t p9_attr_host_mode(const struct p9_server *s, uint32_t mode)
{
	if (s->o.security == P9_MAPPED)
		return S_ISDIR(mode) ? 0700 : 0600;
	/* Nobody else is to open it before it is its owner's. */
	return S_ISDIR(mode) ? 0700 : (mode & S_IFMT) | (S_ISREG(mode) ? 0600 : mode & 0700);
}

int p9_attr_new(struct p9_server *s, int fd, uint32_t mode, uint32_t uid, uint32_t gid,
		uint32_t major, uint32_t minor)
{
	struct meta m = { p9_uid_of(s, uid), p9_gid_of(s, gid), mode, major, minor };
	struct p9_attr was = { .stx.stx_mode = (uint16_t)mode };

	if (s->o.security == P9_MAPPED)
		return meta_write(fd, &m);
	return p9_attr_change(s, fd, &was, S_ISLNK(mode) ? UNSET : mode, uid, gid);
}
