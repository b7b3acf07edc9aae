/* Names below the export and the descriptors that stand for them; see node.h. */
#include "p9/node.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/util.h"

#define EVICT	16	/* descriptors closed at a time when there are too many */

int p9_open_below(int dirfd, const char *name, int flags, unsigned mode)
{
	struct open_how how = {
		.flags = (uint64_t)(unsigned)(flags | O_NOFOLLOW | O_CLOEXEC),
		.mode = flags & O_CREAT ? mode : 0,
		.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS,
	};
	long fd;

	do {
		fd = syscall(SYS_openat2, dirfd, name, &how, sizeof(how));
		/* EAGAIN: somebody renamed above us just now; the kernel could not be sure. */
	} while (fd < 0 && (errno == EAGAIN || errno == EINTR));
	return fd < 0 ? -errno : (int)fd;
}

int p9_statx(int fd, struct statx *stx)
{
	return statx(fd, "", AT_EMPTY_PATH | AT_NO_AUTOMOUNT, P9_STATX, stx) < 0 ? -errno : 0;
}

void p9_ident_of(const struct statx *stx, struct p9_ident *id)
{
	id->dev = (uint64_t)stx->stx_dev_major << 32 | stx->stx_dev_minor;
	id->ino = stx->stx_ino;
	id->born = stx->stx_mask & STATX_BTIME ?
		stx->stx_btime.tv_sec * NSEC_PER_SEC + stx->stx_btime.tv_nsec : 0;
}

bool p9_ident_same(const struct p9_ident *a, const struct p9_ident *b)
{
	return a->dev == b->dev && a->ino == b->ino && a->born == b->born;
}

/* ---- the table of names (lock) ----------------------------------------- */

static size_t hash_name(const struct p9_tree *t, const struct p9_node *parent, const char *name)
{
	uint64_t h = (uintptr_t)parent * 0x9e3779b97f4a7c15ull;

	for (; *name; name++)
		h = (h ^ (uint8_t)*name) * 0x100000001b3ull;
	return (h ^ h >> 29) & (t->nbuckets - 1);
}

static struct p9_node *find(struct p9_tree *t, const struct p9_node *parent, const char *name)
{
	struct p9_node *n = t->buckets[hash_name(t, parent, name)];

	while (n && (n->parent != parent || strcmp(n->name, name)))
		n = n->hash_next;
	return n;
}

static void grow(struct p9_tree *t)
{
	size_t old = t->nbuckets;
	struct p9_node **was = t->buckets, **b = calloc(old * 2, sizeof(*b));

	if (!b)
		return;		/* slower, and right */
	t->buckets = b;
	t->nbuckets = old * 2;
	for (size_t i = 0; i < old; i++) {
		for (struct p9_node *n = was[i], *next; n; n = next) {
			size_t at = hash_name(t, n->parent, n->name);

			next = n->hash_next;
			n->hash_next = b[at];
			b[at] = n;
		}
	}
	free(was);
}

static void hash_add(struct p9_tree *t, struct p9_node *n)
{
	size_t at;

	if (++t->nnodes > t->nbuckets)
		grow(t);
	at = hash_name(t, n->parent, n->name);
	n->hash_next = t->buckets[at];
	t->buckets[at] = n;
	n->detached = false;
}

static void hash_remove(struct p9_tree *t, struct p9_node *n)
{
	struct p9_node **at = &t->buckets[hash_name(t, n->parent, n->name)];

	while (*at != n)
		at = &(*at)->hash_next;
	*at = n->hash_next;
	t->nnodes--;
}

/* ---- descriptors (lock) ------------------------------------------------ */

static void unlist(struct p9_node *n)
{
	if (!n->listed)
		return;
	n->older->newer = n->newer;
	n->newer->older = n->older;
	n->listed = false;
}

/* May its descriptor be closed? Only what is found again by its name. */
static void list_if_idle(struct p9_tree *t, struct p9_node *n)
{
	if (n->listed || n->fd < 0 || n->pins || n->detached || !n->parent)
		return;
	n->newer = &t->idle;
	n->older = t->idle.older;
	n->older->newer = n;
	t->idle.older = n;
	n->listed = true;
}

static void close_fd(struct p9_tree *t, struct p9_node *n)
{
	if (n->fd < 0)
		return;
	close(n->fd);
	n->fd = -1;
	t->fds--;
}

/* Each turn takes one off the list, so it ends whatever else happens. */
static bool make_room(struct p9_tree *t)
{
	if (t->fds < t->fds_max)
		return true;
	for (unsigned i = 0; i < EVICT && t->idle.newer != &t->idle; i++) {
		struct p9_node *n = t->idle.newer;

		unlist(n);
		close_fd(t, n);
	}
	return t->fds < t->fds_max;
}

int p9_tree_charge(struct p9_tree *t)
{
	int err = 0;

	pthread_mutex_lock(&t->lock);
	if (make_room(t))
		t->fds++;
	else
		err = -ENFILE;
	pthread_mutex_unlock(&t->lock);
	return err;
}

void p9_tree_uncharge(struct p9_tree *t)
{
	pthread_mutex_lock(&t->lock);
	t->fds--;
	pthread_mutex_unlock(&t->lock);
}

static void pin(struct p9_node *n)
{
	n->pins++;
	unlist(n);
}

static void unpin(struct p9_tree *t, struct p9_node *n)
{
	n->pins--;
	list_if_idle(t, n);
}

void p9_node_unpin(struct p9_tree *t, struct p9_node *n)
{
	pthread_mutex_lock(&t->lock);
	unpin(t, n);
	pthread_mutex_unlock(&t->lock);
}

/* fd is for n, charged already; somebody may have been faster. */
static void give_fd(struct p9_tree *t, struct p9_node *n, int fd)
{
	if (n->fd < 0) {
		n->fd = fd;
		return;
	}
	close(fd);
	t->fds--;
}

/* ---- nodes ------------------------------------------------------------- */

/* Lock held.  Its references: one, the caller's. */
static struct p9_node *new_node(struct p9_tree *t, struct p9_node *parent, const char *name,
				const struct p9_ident *ident, uint16_t type)
{
	struct p9_node *n = calloc(1, sizeof(*n));

	if (!n)
		return NULL;
	n->name = strdup(name);
	if (!n->name) {
		free(n);
		return NULL;
	}
	n->parent = parent;
	n->ident = *ident;
	n->type = type;
	n->refs = 1;
	n->fd = -1;
	n->detached = parent != NULL;
	if (parent) {
		parent->refs++;
		hash_add(t, n);
	}
	return n;
}

int p9_tree_init(struct p9_tree *t, int fd, uint32_t fds_max, struct skep_error *e)
{
	struct p9_ident ident;
	struct statx stx;
	int err = p9_statx(fd, &stx);

	memset(t, 0, sizeof(*t));
	t->idle.newer = t->idle.older = &t->idle;
	t->fds_max = fds_max;
	t->nbuckets = 1024;
	t->buckets = calloc(t->nbuckets, sizeof(*t->buckets));
	if (err == 0) {
		p9_ident_of(&stx, &ident);
		t->root = t->buckets ? new_node(t, NULL, "", &ident, S_IFDIR) : NULL;
	}
	if (err || !t->root) {
		free(t->buckets);
		close(fd);
		return skep_fail(e, err ? -err : ENOMEM, "the exported directory: %s",
				 strerror(err ? -err : ENOMEM));
	}
	t->root->fd = fd;
	t->fds = 1;
	pthread_mutex_init(&t->lock, NULL);
	pthread_rwlock_init(&t->names, NULL);
	return 0;
}

void p9_tree_finish(struct p9_tree *t)
{
	p9_node_put(t, t->root);
	free(t->buckets);
	pthread_mutex_destroy(&t->lock);
	pthread_rwlock_destroy(&t->names);
}

static struct p9_node *ref(struct p9_node *n)
{
	n->refs++;
	return n;
}

/* Lock held.  A loop and no recursion: a path may be long. */
static void put(struct p9_tree *t, struct p9_node *n)
{
	while (n && --n->refs == 0) {
		struct p9_node *parent = n->parent;

		unlist(n);
		if (parent && !n->detached)
			hash_remove(t, n);
		close_fd(t, n);
		free(n->name);
		free(n);
		n = parent;
	}
}

struct p9_node *p9_node_get(struct p9_tree *t, struct p9_node *n)
{
	pthread_mutex_lock(&t->lock);
	ref(n);
	pthread_mutex_unlock(&t->lock);
	return n;
}

void p9_node_put(struct p9_tree *t, struct p9_node *n)
{
	if (!n)
		return;
	pthread_mutex_lock(&t->lock);
	put(t, n);
	pthread_mutex_unlock(&t->lock);
}

/* Lock held: its name leads elsewhere.  Its descriptor, if any, is the only way to it now. */
static void detach(struct p9_tree *t, struct p9_node *n)
{
	if (n->detached || !n->parent)
		return;
	hash_remove(t, n);
	n->detached = true;
	unlist(n);
}

static unsigned depth(const struct p9_node *n)
{
	unsigned d = 0;

	for (; n->parent && d <= P9_DEPTH_MAX; n = n->parent)
		d++;
	return d;
}

/* ---- opened again by name ---------------------------------------------- */

/* The name must still lead to the same file: a descriptor, charged; or -ESTALE and the like. */
static int reopen(struct p9_tree *t, int dirfd, const struct p9_node *n)
{
	struct p9_ident ident;
	struct statx stx;
	int err = p9_tree_charge(t), fd;

	if (err)
		return err;
	fd = p9_open_below(dirfd, n->name, O_PATH, 0);
	err = fd < 0 ? fd : p9_statx(fd, &stx);
	if (err == 0) {
		p9_ident_of(&stx, &ident);
		if (p9_ident_same(&ident, &n->ident))
			return fd;
		err = -ESTALE;
	}
	if (fd >= 0)
		close(fd);
	p9_tree_uncharge(t);
	return err == -ENOENT || err == -ENOTDIR || err == -ELOOP ? -ESTALE : err;
}

/*
 * Names are held, so the way up stays as it is, and n's reference keeps all of it.  Each step
 * pins the next and lets go of the one before.
 */
static int pin_by_way(struct p9_tree *t, struct p9_node *n, struct p9_node **way, size_t room)
{
	struct p9_node *at = n;
	size_t steps = 0;
	int err = 0;

	pthread_mutex_lock(&t->lock);
	for (; at->fd < 0 && steps < room; at = at->parent) {
		if (at->stale || at->detached || !at->parent) {
			pthread_mutex_unlock(&t->lock);
			return -ESTALE;
		}
		way[steps++] = at;
	}
	if (at->fd < 0) {
		pthread_mutex_unlock(&t->lock);
		return -ENAMETOOLONG;
	}
	pin(at);
	pthread_mutex_unlock(&t->lock);
	while (steps && !err) {
		struct p9_node *next = way[--steps];
		int fd = reopen(t, at->fd, next);

		pthread_mutex_lock(&t->lock);
		if (fd >= 0) {
			give_fd(t, next, fd);
			pin(next);
			unpin(t, at);
			at = next;
		} else {
			err = fd;
			next->stale |= err == -ESTALE;
		}
		pthread_mutex_unlock(&t->lock);
	}
	if (err)
		p9_node_unpin(t, at);
	return err;
}

int p9_node_pin(struct p9_tree *t, struct p9_node *n)
{
	struct p9_node **way;
	size_t room = 0;
	int err;

	pthread_mutex_lock(&t->lock);
	if (n->fd >= 0) {
		pin(n);
		pthread_mutex_unlock(&t->lock);
		return n->fd;
	}
	pthread_mutex_unlock(&t->lock);
	pthread_rwlock_rdlock(&t->names);
	for (const struct p9_node *at = n; at; at = at->parent)
		room++;
	way = malloc(room * sizeof(struct p9_node *));
	err = way ? pin_by_way(t, n, way, room) : -ENOMEM;
	pthread_rwlock_unlock(&t->names);
	free(way);
	return err ? err : n->fd;
}

/* ---- walking ----------------------------------------------------------- */

/*
 * Lock held.  The node of name, if it is this file; what stood there before is told apart.
 * Referenced; NULL: no memory.
 */
static struct p9_node *settle(struct p9_tree *t, struct p9_node *parent, const char *name,
			      const struct p9_ident *ident, uint16_t type)
{
	struct p9_node *n = find(t, parent, name);

	if (n && p9_ident_same(&n->ident, ident) && !n->stale)
		return ref(n);
	if (n)
		detach(t, n);
	return new_node(t, parent, name, ident, type);
}

static int walk_from(struct p9_tree *t, struct p9_node *parent, int dirfd, const char *name,
		     struct statx *stx, struct p9_node **out)
{
	int fd = p9_open_below(dirfd, name, O_PATH, 0), err;
	struct p9_ident ident;
	struct p9_node *n;

	if (fd < 0)
		return fd;
	err = p9_statx(fd, stx);
	if (err) {
		close(fd);
		return err;
	}
	p9_ident_of(stx, &ident);
	pthread_mutex_lock(&t->lock);
	if (depth(parent) >= P9_DEPTH_MAX) {
		n = NULL;
		err = -ENAMETOOLONG;
	} else {
		n = settle(t, parent, name, &ident, stx->stx_mode & S_IFMT);
		err = n ? 0 : -ENOMEM;
	}
	if (n && n->fd < 0 && make_room(t)) {
		n->fd = fd;
		t->fds++;
		list_if_idle(t, n);
		fd = -1;
	} else if (n && n->fd < 0) {
		put(t, n);
		n = NULL;
		err = -ENFILE;
	}
	pthread_mutex_unlock(&t->lock);
	if (fd >= 0)
		close(fd);
	*out = n;
	return err;
}

int p9_node_walk(struct p9_tree *t, struct p9_node *parent, const char *name, struct statx *stx,
		 struct p9_node **out)
{
	int dirfd = p9_node_pin(t, parent), err;

	if (dirfd < 0)
		return dirfd;
	pthread_rwlock_rdlock(&t->names);
	err = walk_from(t, parent, dirfd, name, stx, out);
	pthread_rwlock_unlock(&t->names);
	p9_node_unpin(t, parent);
	return err;
}

int p9_node_made(struct p9_tree *t, struct p9_node *parent, const char *name,
		 const struct statx *stx, struct p9_node **out)
{
	struct p9_ident ident;

	p9_ident_of(stx, &ident);
	pthread_rwlock_rdlock(&t->names);
	pthread_mutex_lock(&t->lock);
	*out = depth(parent) >= P9_DEPTH_MAX ? NULL :
		settle(t, parent, name, &ident, stx->stx_mode & S_IFMT);
	pthread_mutex_unlock(&t->lock);
	pthread_rwlock_unlock(&t->names);
	return *out ? 0 : -ENOMEM;
}

struct p9_node *p9_node_restored(struct p9_tree *t, struct p9_node *parent, const char *name,
				 const struct p9_ident *ident, uint16_t type, bool there)
{
	struct p9_node *n;

	pthread_mutex_lock(&t->lock);
	n = there ? settle(t, parent, name, ident, type) : new_node(t, parent, name, ident, type);
	if (n && !there) {
		n->stale = true;
		detach(t, n);
	}
	pthread_mutex_unlock(&t->lock);
	return n;
}

struct p9_node *p9_node_up(struct p9_tree *t, struct p9_node *n)
{
	pthread_rwlock_rdlock(&t->names);
	pthread_mutex_lock(&t->lock);
	n = ref(n->parent ? n->parent : n);
	pthread_mutex_unlock(&t->lock);
	pthread_rwlock_unlock(&t->names);
	return n;
}

int p9_node_place(struct p9_tree *t, struct p9_node *n, struct p9_node **parent, char **name)
{
	int err = 0;

	pthread_rwlock_rdlock(&t->names);
	pthread_mutex_lock(&t->lock);
	if (!n->parent)
		err = -EBUSY;
	else if (n->detached || n->stale)
		err = -ESTALE;
	else {
		*name = strdup(n->name);
		*parent = *name ? ref(n->parent) : NULL;
		err = *name ? 0 : -ENOMEM;
	}
	pthread_mutex_unlock(&t->lock);
	pthread_rwlock_unlock(&t->names);
	return err;
}

/* ---- names that go away or move (names held for writing) --------------- */

/* What has this name: does it go on without one?  Then its descriptor must be there. */
static struct p9_node *keep(struct p9_tree *t, struct p9_node *parent, int dirfd, const char *name)
{
	struct p9_node *n;
	int fd;

	pthread_mutex_lock(&t->lock);
	n = find(t, parent, name);
	if (n)
		ref(n);
	pthread_mutex_unlock(&t->lock);
	if (!n || n->fd >= 0)
		return n;
	fd = reopen(t, dirfd, n);
	pthread_mutex_lock(&t->lock);
	if (fd >= 0)
		give_fd(t, n, fd);
	else
		n->stale |= fd == -ESTALE;
	pthread_mutex_unlock(&t->lock);
	return n;
}

/* Is the name still that of the file that is meant? */
static int check(int dirfd, const char *name, const struct p9_node *want)
{
	struct p9_ident ident;
	struct statx stx;
	int fd, err;

	if (!want)
		return 0;
	fd = p9_open_below(dirfd, name, O_PATH, 0);
	if (fd < 0)
		return fd;
	err = p9_statx(fd, &stx);
	close(fd);
	if (err)
		return err;
	p9_ident_of(&stx, &ident);
	return p9_ident_same(&ident, &want->ident) ? 0 : -ESTALE;
}

int p9_node_unlink(struct p9_tree *t, struct p9_node *parent, const char *name, int flags,
		   struct p9_node *want)
{
	int dirfd = p9_node_pin(t, parent), err;
	struct p9_node *n;

	if (dirfd < 0)
		return dirfd;
	pthread_rwlock_wrlock(&t->names);
	err = check(dirfd, name, want);
	if (err == 0) {
		n = keep(t, parent, dirfd, name);
		err = unlinkat(dirfd, name, flags) < 0 ? -errno : 0;
		pthread_mutex_lock(&t->lock);
		if (n && err == 0)
			detach(t, n);
		put(t, n);
		pthread_mutex_unlock(&t->lock);
	}
	pthread_rwlock_unlock(&t->names);
	p9_node_unpin(t, parent);
	return err;
}

/* Lock held. */
static void moved(struct p9_tree *t, struct p9_node *n, struct p9_node *to, char *as)
{
	struct p9_node *from = n->parent;

	unlist(n);
	hash_remove(t, n);
	free(n->name);
	n->name = as;
	n->parent = ref(to);
	hash_add(t, n);
	list_if_idle(t, n);
	put(t, from);
}

static bool is_below(const struct p9_node *n, const struct p9_node *top)
{
	for (; n; n = n->parent)
		if (n == top)
			return true;
	return false;
}

static void after_rename(struct p9_tree *t, struct p9_node *n, struct p9_node *over,
			 struct p9_node *to, char *as)
{
	pthread_mutex_lock(&t->lock);
	if (over && over != n)
		detach(t, over);
	/* The kernel refuses to move a directory below itself; its name may have been another's. */
	if (n && is_below(to, n))
		detach(t, n);
	else if (n && !n->detached) {
		moved(t, n, to, as);
		as = NULL;
	}
	pthread_mutex_unlock(&t->lock);
	free(as);
}

static int rename_between(struct p9_tree *t, struct p9_node *from, int fromfd, const char *name,
			  struct p9_node *to, int tofd, const char *as)
{
	struct p9_node *n = keep(t, from, fromfd, name), *over = keep(t, to, tofd, as);
	char *copy = strdup(as);
	int err = copy ? 0 : -ENOMEM;

	pthread_mutex_lock(&t->lock);
	if (!err && depth(to) >= P9_DEPTH_MAX)
		err = -ENAMETOOLONG;
	pthread_mutex_unlock(&t->lock);
	if (!err && renameat(fromfd, name, tofd, as) < 0)
		err = -errno;
	/* Two names of one file: POSIX has rename do nothing, and both stay. */
	if (!err && faccessat(fromfd, name, F_OK, AT_SYMLINK_NOFOLLOW) < 0) {
		after_rename(t, n, over, to, copy);
		copy = NULL;
	}
	pthread_mutex_lock(&t->lock);
	put(t, n);
	put(t, over);
	pthread_mutex_unlock(&t->lock);
	free(copy);
	return err;
}

int p9_node_rename(struct p9_tree *t, struct p9_node *from, const char *name, struct p9_node *to,
		   const char *as, struct p9_node *want)
{
	int fromfd = p9_node_pin(t, from), tofd, err;

	if (fromfd < 0)
		return fromfd;
	tofd = p9_node_pin(t, to);
	if (tofd < 0) {
		p9_node_unpin(t, from);
		return tofd;
	}
	pthread_rwlock_wrlock(&t->names);
	err = check(fromfd, name, want);
	if (err == 0)
		err = rename_between(t, from, fromfd, name, to, tofd, as);
	pthread_rwlock_unlock(&t->names);
	p9_node_unpin(t, to);
	p9_node_unpin(t, from);
	return err;
}
