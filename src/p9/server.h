/* What the files of the server share: the server, its sessions, fids and calls. */
#ifndef SKEP_P9_SERVER_H
#define SKEP_P9_SERVER_H

#include <limits.h>
#include <pthread.h>

#include "p9/node.h"
#include "p9/p9.h"
#include "p9/qid.h"
#include "p9/wire.h"

#define P9_WORKERS_MAX	16u
#define P9_TAG_BUCKETS	256u
#define P9_META_LOCKS	16u
#define P9_LOCKS_MAX	4096u		/* record locks of a session */
#define P9_XATTR_MAX	65536u		/* bytes of an extended attribute, and of a list of names */
#define P9_XATTR_NAME	255u

struct p9_lock;

struct p9_server {
	struct p9_options o;
	char owner[48];
	int proc_fd;			/* /proc/self/fd, for who is no worker */
	struct p9_tree tree;
	struct p9_qids qids;
	pthread_mutex_t meta_lock[P9_META_LOCKS];	/* mapped attributes: read, changed, written */
	_Atomic bool warned;				/* multidevs=warn */

	pthread_mutex_t lock_lock;
	struct p9_lock *locks;				/* lock_lock */
	unsigned nlocks;

	/* The threads and what waits for them. */
	pthread_mutex_t queue_lock;
	pthread_cond_t queue_some;
	struct p9_request *first, **last;
	bool stopping;
	pthread_t worker[P9_WORKERS_MAX];
	unsigned nworkers, nready;
	int worker_error;
};

enum p9_fid_kind {
	P9_FID_PLACE,		/* not open */
	P9_FID_FILE, P9_FID_DIR,
	P9_FID_XATTR_READ,	/* an attribute's value, or the list of names */
	P9_FID_XATTR_WRITE,	/* what is to be an attribute's value when it is clunked */
};

struct p9_fid {
	struct p9_fid *next;
	uint32_t id, refs;		/* session lock; the table has one */
	bool gone;			/* not in the table any more */
	uint32_t uid;			/* whom the client said it is */
	struct p9_node *node;		/* session lock */
	enum p9_fid_kind kind;		/* session lock */
	int fd;				/* of an open file, until the last reference goes */
	uint32_t flags;			/* as the client gave them */
	pthread_mutex_t lock;		/* the rest: position of a directory, an attribute */
	uint64_t dir_at;
	struct {
		char name[P9_XATTR_NAME + 1];
		uint8_t *value;
		uint32_t len, flags;
	} xattr;
};

struct p9_session {
	struct p9_server *server;
	pthread_mutex_t lock;
	pthread_cond_t idle;
	struct p9_request *tags[P9_TAG_BUCKETS];	/* in flight */
	unsigned inflight;
	bool versioning;		/* a Tversion is at work: nothing else may begin */
	bool agreed;			/* on the version */
	uint32_t msize;
	struct p9_fid **fids;
	size_t nbuckets, nfids;
};

/* A fid in the hands of a call, and a descriptor to reach its file by. */
struct p9_use {
	struct p9_fid *fid;
	struct p9_node *node;		/* as it was when the call began */
	enum p9_fid_kind kind;
	int fd;				/* the open file's, else the node's (O_PATH), pinned */
	bool pinned;
};

/* A file as the client sees it. */
struct p9_attr {
	struct statx stx;		/* the host's */
	uint32_t mode, uid, gid, major, minor;
};

/* One call: the message that is left to read, the answer. */
struct p9_call {
	struct p9_server *s;
	struct p9_session *ss;
	struct p9_request *r;
	struct p9_in in;
	struct p9_out out;
	uint32_t msize;
};

/* ---- fid.c: fids; any thread ------------------------------------------- */

/* Takes the reference to node. -EEXIST, -ENFILE (quota), -ENOMEM, and the reference stays. */
int p9_fid_add(struct p9_session *ss, uint32_t id, struct p9_node *node, uint32_t uid,
	       struct p9_fid **out);
/* A reference to it; NULL: there is none. */
struct p9_fid *p9_fid_get(struct p9_session *ss, uint32_t id);
/* The same, out of the table. */
struct p9_fid *p9_fid_take(struct p9_session *ss, uint32_t id);
/* The last one closes: what an attribute's write gives is returned, else 0. */
int p9_fid_put(struct p9_session *ss, struct p9_fid *f);
void p9_fids_drop(struct p9_session *ss);

/* -EBADF; afterwards p9_use_put, which is harmless after a failure. */
int p9_use(struct p9_call *c, uint32_t id, struct p9_use *u);
/* The same, and u->fd is there. */
int p9_use_fd(struct p9_call *c, uint32_t id, struct p9_use *u);
void p9_use_put(struct p9_call *c, struct p9_use *u);

/* ---- attr.c: what the client sees of a file ---------------------------- */

/* fd may be O_PATH.  Worker threads, since these reach a file as "FD" in /proc/self/fd. */
int p9_attr_get(struct p9_server *s, int fd, struct p9_attr *a);
/* Of an entry of an open directory: S_IFMT. */
uint32_t p9_attr_type(struct p9_server *s, int dirfd, const char *name, uint8_t d_type);
int p9_attr_qid(struct p9_server *s, const struct p9_attr *a, struct p9_qid *q);
/* mode, uid, gid: UINT32_MAX leaves it. */
int p9_attr_change(struct p9_server *s, int fd, const struct p9_attr *was, uint32_t mode,
		   uint32_t uid, uint32_t gid);
/* Of a file that was just made with p9_attr_host_mode; mode with S_IFMT. */
int p9_attr_new(struct p9_server *s, int fd, uint32_t mode, uint32_t uid, uint32_t gid,
		uint32_t major, uint32_t minor);
/* What a file of this mode gets on the host. */
uint32_t p9_attr_host_mode(const struct p9_server *s, uint32_t mode);
/* "N", the file behind a descriptor for calls that want a path. */
struct p9_fd_path { char text[12]; };
struct p9_fd_path p9_fd_path(int fd);
/* Another open descriptor of a regular file or directory. */
int p9_reopen(int fd, int flags);

/* op_file.c: what a client had open, as it had it; flags are the client's. No worker's business. */
int p9_open_restored(struct p9_server *s, int fd, bool dir, uint32_t flags);

/* ---- xattr.c ----------------------------------------------------------- */

int p9_xattr_commit(struct p9_session *ss, struct p9_fid *f);	/* at its clunk */

/* ---- lock.c ------------------------------------------------------------ */

void p9_locks_drop(struct p9_session *ss, const struct p9_fid *f);	/* NULL: all of the session */

/* ---- names and helpers of calls (call.c) ------------------------------- */

/* 0, -EINVAL or -ENAMETOOLONG: may this be one component? */
int p9_name(struct p9_text text, char name[P9_NAME_LEN + 1]);
/* The message is used up and was good; else -EBADMSG. */
int p9_end(const struct p9_call *c);
uint32_t p9_uid_of(struct p9_server *s, uint32_t uid);	/* squashed */
uint32_t p9_gid_of(struct p9_server *s, uint32_t gid);
uint32_t p9_iounit(const struct p9_call *c);
/* Copies into r->rdata from its byte `at`; false: no room. */
bool p9_put_data(struct p9_request *r, const void *from, size_t n);

/* ---- calls: 0 or -errno, the answer's body in c->out ------------------- */

typedef int p9_op(struct p9_call *c);
p9_op p9_version, p9_auth, p9_attach, p9_walk, p9_clunk, p9_remove;
p9_op p9_lopen, p9_lcreate, p9_read, p9_write, p9_fsync, p9_readdir;
p9_op p9_statfs, p9_getattr, p9_setattr, p9_readlink;
p9_op p9_symlink, p9_mknod, p9_mkdir, p9_link, p9_rename, p9_renameat, p9_unlinkat;
p9_op p9_xattrwalk, p9_xattrcreate, p9_lockop, p9_getlock;

/* ---- server.c ----------------------------------------------------------- */

/* passthrough: this thread has the capabilities for it and no others. 0 or -errno. */
int p9_keep_capabilities(const struct p9_server *s);

/* ---- pool.c ------------------------------------------------------------ */

int p9_pool_start(struct p9_server *s, struct skep_error *e);
void p9_pool_stop(struct p9_server *s);
void p9_pool_add(struct p9_server *s, struct p9_request *r);
bool p9_pool_take_back(struct p9_server *s, struct p9_request *r);	/* had it not begun? */
struct p9_request *p9_pool_take_any(struct p9_server *s, const struct p9_session *ss);
/* session.c: on a worker */
void p9_execute(struct p9_request *r);

#endif
