/*
 * Requests from their arrival to their answer: tags, Tflush, Tversion, and which call is meant.
 *
 * A request is in its session's table of tags from p9_submit until its answer is ready.  Tflush
 * is done where it arrives and takes no thread: what waits in the queue is taken back and
 * comes without an answer; what is being done goes on to its end (it looks at `cancelled` where
 * it is long), and the Rflush follows it.
 */
#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "p9/server.h"

static const struct {
	p9_op *op;
	bool writes;		/* refused by a share that is read-only */
} calls[256] = {
	[P9_TSTATFS] = { p9_statfs }, [P9_TLOPEN] = { p9_lopen },
	[P9_TLCREATE] = { p9_lcreate, true }, [P9_TSYMLINK] = { p9_symlink, true },
	[P9_TMKNOD] = { p9_mknod, true }, [P9_TRENAME] = { p9_rename, true },
	[P9_TREADLINK] = { p9_readlink }, [P9_TGETATTR] = { p9_getattr },
	[P9_TSETATTR] = { p9_setattr, true }, [P9_TXATTRWALK] = { p9_xattrwalk },
	[P9_TXATTRCREATE] = { p9_xattrcreate, true }, [P9_TREADDIR] = { p9_readdir },
	[P9_TFSYNC] = { p9_fsync }, [P9_TLOCK] = { p9_lockop }, [P9_TGETLOCK] = { p9_getlock },
	[P9_TLINK] = { p9_link, true }, [P9_TMKDIR] = { p9_mkdir, true },
	[P9_TRENAMEAT] = { p9_renameat, true }, [P9_TUNLINKAT] = { p9_unlinkat, true },
	[P9_TVERSION] = { p9_version }, [P9_TAUTH] = { p9_auth }, [P9_TATTACH] = { p9_attach },
	[P9_TWALK] = { p9_walk }, [P9_TREAD] = { p9_read }, [P9_TWRITE] = { p9_write, true },
	[P9_TCLUNK] = { p9_clunk }, [P9_TREMOVE] = { p9_remove },	/* clunks in any case */
};

/* ---- sessions ---------------------------------------------------------- */

struct p9_session *p9_session_create(struct p9_server *s)
{
	struct p9_session *ss = calloc(1, sizeof(*ss));

	if (!ss)
		return NULL;
	ss->server = s;
	ss->msize = s->o.msize;
	ss->nbuckets = 64;
	ss->fids = calloc(ss->nbuckets, sizeof(struct p9_fid *));
	if (!ss->fids) {
		free(ss);
		return NULL;
	}
	pthread_mutex_init(&ss->lock, NULL);
	pthread_cond_init(&ss->idle, NULL);
	return ss;
}

void p9_session_drain(struct p9_session *ss)
{
	pthread_mutex_lock(&ss->lock);
	while (ss->inflight)
		pthread_cond_wait(&ss->idle, &ss->lock);
	pthread_mutex_unlock(&ss->lock);
}

void p9_session_reset(struct p9_session *ss)
{
	p9_session_drain(ss);
	p9_fids_drop(ss);
	p9_locks_drop(ss, NULL);
	pthread_mutex_lock(&ss->lock);
	ss->agreed = false;
	ss->msize = ss->server->o.msize;
	pthread_mutex_unlock(&ss->lock);
}

void p9_session_destroy(struct p9_session *ss)
{
	if (!ss)
		return;
	p9_session_reset(ss);
	pthread_cond_destroy(&ss->idle);
	pthread_mutex_destroy(&ss->lock);
	free(ss->fids);
	free(ss);
}

uint32_t p9_session_msize(struct p9_session *ss)
{
	uint32_t msize;

	pthread_mutex_lock(&ss->lock);
	msize = ss->msize;
	pthread_mutex_unlock(&ss->lock);
	return msize;
}

/* ---- tags (session lock) ----------------------------------------------- */

static struct p9_request **tag_at(struct p9_session *ss, uint16_t tag)
{
	struct p9_request **at = &ss->tags[tag % P9_TAG_BUCKETS];

	while (*at && (*at)->tag != tag)
		at = &(*at)->hash_next;
	return at;
}

/* Out of the table; its place is found by the request: more than one may have P9_NOTAG. */
static void tag_remove(struct p9_session *ss, struct p9_request *r)
{
	struct p9_request **at = &ss->tags[r->tag % P9_TAG_BUCKETS];

	while (*at != r)
		at = &(*at)->hash_next;
	*at = r->hash_next;
}

static void put_head(struct p9_request *r, uint8_t type, uint32_t len)
{
	store32(r->reply, len);
	r->reply[4] = type;
	store16(r->reply + 5, r->tag);
}

static void answer_error(struct p9_request *r, int err)
{
	r->data = 0;
	if (r->reply_room < P9_HEAD + 4) {
		r->reply_len = 0;
		return;
	}
	put_head(r, P9_RLERROR, P9_HEAD + 4);
	store32(r->reply + P9_HEAD, (uint32_t)-err);
	r->reply_len = P9_HEAD + 4;
}

/*
 * The answer is ready.  A client may use the tag again as soon as it has it, so the tag is free
 * before; but a Tflush that comes meanwhile must not be answered first, so the request stays in the
 * table until it is out.  The session may be gone when nothing is in flight: that is told last.
 */
static void finish(struct p9_session *ss, struct p9_request *r, bool in_table)
{
	struct p9_request *flushers = NULL;

	if (in_table) {
		pthread_mutex_lock(&ss->lock);
		r->answering = true;
		pthread_mutex_unlock(&ss->lock);
	}
	r->answer(r);
	if (in_table) {
		pthread_mutex_lock(&ss->lock);
		tag_remove(ss, r);
		flushers = r->flushers;
		pthread_mutex_unlock(&ss->lock);
	}
	r->release(r);
	while (flushers) {
		struct p9_request *f = flushers;

		flushers = f->next;
		put_head(f, P9_TFLUSH + 1, P9_HEAD);
		f->reply_len = P9_HEAD;
		finish(ss, f, true);
	}
	pthread_mutex_lock(&ss->lock);
	if (--ss->inflight <= ss->versioning)
		pthread_cond_broadcast(&ss->idle);
	pthread_mutex_unlock(&ss->lock);
}

/* What has not begun comes back without an answer. */
static void take_back_all(struct p9_session *ss)
{
	struct p9_request *r;

	while ((r = p9_pool_take_any(ss->server, ss)) != NULL) {
		r->reply_len = r->data = 0;
		finish(ss, r, true);
	}
}

/* ---- Tflush ------------------------------------------------------------ */

/* Session lock held.  What becomes of the Tflush: 0 answer it now, 1 it waits, 2 and take back. */
enum flush { FLUSH_NOW, FLUSH_WAITS, FLUSH_TAKEN_BACK };

static enum flush flush(struct p9_session *ss, struct p9_request *r, uint16_t old,
			struct p9_request **taken)
{
	struct p9_request *o = *tag_at(ss, old);

	if (!o || o == r)
		return FLUSH_NOW;
	atomic_store(&o->cancelled, true);
	if (o->message[4] != P9_TFLUSH && p9_pool_take_back(ss->server, o)) {
		*taken = o;
		return FLUSH_TAKEN_BACK;
	}
	r->next = o->flushers;
	o->flushers = r;
	return FLUSH_WAITS;
}

static void submit_flush(struct p9_session *ss, struct p9_request *r)
{
	struct p9_request *taken = NULL;
	enum flush what;

	if (r->len != P9_HEAD + 2) {
		answer_error(r, -EBADMSG);
		finish(ss, r, true);
		return;
	}
	pthread_mutex_lock(&ss->lock);
	what = flush(ss, r, load16(r->message + P9_HEAD), &taken);
	pthread_mutex_unlock(&ss->lock);
	if (what == FLUSH_WAITS)
		return;
	if (taken) {
		taken->reply_len = taken->data = 0;
		finish(ss, taken, true);
	}
	put_head(r, P9_TFLUSH + 1, P9_HEAD);
	r->reply_len = P9_HEAD;
	finish(ss, r, true);
}

/* ---- Tversion ---------------------------------------------------------- */

int p9_version(struct p9_call *c)
{
	struct p9_session *ss = c->ss;
	uint32_t msize = p9_get32(&c->in);
	struct p9_text version = p9_get_text(&c->in);
	bool known = version.len == strlen(P9_VERSION) && !memcmp(version.p, P9_VERSION, version.len);

	if (p9_end(c))
		return -EBADMSG;
	if (msize < P9_MSIZE_MIN)
		return -EMSGSIZE;
	/* It ends all that was: wait for the others, of which no more begin. */
	pthread_mutex_lock(&ss->lock);
	if (ss->versioning) {
		pthread_mutex_unlock(&ss->lock);
		return -EBUSY;
	}
	ss->versioning = true;
	pthread_mutex_unlock(&ss->lock);
	take_back_all(ss);
	pthread_mutex_lock(&ss->lock);
	while (ss->inflight > 1)
		pthread_cond_wait(&ss->idle, &ss->lock);
	pthread_mutex_unlock(&ss->lock);
	p9_fids_drop(ss);
	p9_locks_drop(ss, NULL);
	pthread_mutex_lock(&ss->lock);
	ss->versioning = false;
	ss->agreed = known;
	ss->msize = MIN(msize, ss->server->o.msize);
	msize = ss->msize;
	pthread_mutex_unlock(&ss->lock);
	p9_put32(&c->out, msize);
	if (known)
		p9_put_text(&c->out, P9_VERSION, strlen(P9_VERSION));
	else
		p9_put_text(&c->out, "unknown", 7);
	return 0;
}

/* ---- a request --------------------------------------------------------- */

static int dispatch(struct p9_call *c, uint8_t type)
{
	if (!calls[type].op)
		return -EOPNOTSUPP;
	if (calls[type].writes && c->s->o.ro)
		return -EROFS;
	return calls[type].op(c);
}

void p9_execute(struct p9_request *r)
{
	struct p9_session *ss = r->session;
	struct p9_call c = { .s = ss->server, .ss = ss, .r = r };
	int err;

	c.in = (struct p9_in){ r->message + P9_HEAD, r->len - P9_HEAD, false };
	c.msize = MIN(p9_session_msize(ss), r->reply_room);
	c.out = (struct p9_out){ r->reply, P9_HEAD, sizeof(r->reply), false };
	c.out.room = MIN(c.out.room, c.msize);
	if (c.msize < P9_HEAD + 4) {
		answer_error(r, -EMSGSIZE);
		finish(ss, r, true);
		return;
	}
	err = dispatch(&c, r->message[4]);
	if (!err && c.out.full)
		err = -EMSGSIZE;
	if (err == -EINTR && atomic_load(&r->cancelled)) {
		r->reply_len = r->data = 0;	/* nothing was done */
	} else if (err) {
		answer_error(r, err);
	} else {
		put_head(r, r->message[4] + 1, (uint32_t)c.out.len + r->data);
		r->reply_len = (uint32_t)c.out.len;
	}
	finish(ss, r, true);
}

/* Session lock held: may it begin? */
static int admit(struct p9_session *ss, const struct p9_request *r)
{
	const struct p9_request *old;
	uint8_t type = r->message[4];

	if (ss->inflight > ss->server->o.requests)
		return -EAGAIN;
	if (ss->versioning)
		return -EBUSY;
	old = *tag_at(ss, r->tag);	/* the newest of that number */
	if (old && !old->answering)
		return -EINVAL;		/* the tag is in use */
	if (!ss->agreed && type != P9_TVERSION)
		return -EPROTO;
	return 0;
}

void p9_submit(struct p9_request *r)
{
	struct p9_session *ss = r->session;
	bool is_flush = r->len >= P9_HEAD && r->message[4] == P9_TFLUSH;
	struct p9_request **bucket;
	int err;

	r->reply_len = r->data = 0;
	r->next = r->hash_next = r->flushers = NULL;
	r->answering = false;
	atomic_init(&r->cancelled, false);
	r->tag = r->len >= P9_HEAD ? load16(r->message + 5) : P9_NOTAG;
	pthread_mutex_lock(&ss->lock);
	ss->inflight++;
	err = r->len < P9_HEAD || load32(r->message) < r->len ? -EBADMSG : admit(ss, r);
	if (err == 0) {
		bucket = &ss->tags[r->tag % P9_TAG_BUCKETS];
		r->hash_next = *bucket;
		*bucket = r;
	}
	/*
	 * Under the lock: a Tflush that finds the tag must find the request in the queue.  From here on a
	 * worker may be done with r, and it is not ours to look at.
	 */
	if (err == 0 && !is_flush)
		p9_pool_add(ss->server, r);
	pthread_mutex_unlock(&ss->lock);
	if (err) {
		answer_error(r, err);
		finish(ss, r, false);
	} else if (is_flush) {
		submit_flush(ss, r);
	}
}
