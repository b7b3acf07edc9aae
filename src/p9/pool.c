/*
 * The threads that do what clients ask.  Each has a umask and a current directory of its own
 * (/proc/self/fd), so that a file is reached by the number of its descriptor wherever a call
 * wants a path: "12" is the file behind descriptor 12 and nothing else.  It works where there is no
 * /proc to be seen, as in a sandbox, once they have started.
 */
#include "p9/server.h"

#include <errno.h>
#include <sched.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/thread.h"

static int settle_in(const struct p9_server *s)
{
	prctl(PR_SET_NAME, "9p");
	if (unshare(CLONE_FS) < 0 || chdir("/proc/self/fd") < 0)
		return -errno;
	umask(0);
	return p9_keep_capabilities(s);
}

static void *worker(void *opaque)
{
	struct p9_server *s = opaque;
	int err = settle_in(s);

	pthread_mutex_lock(&s->queue_lock);
	s->nready++;
	if (err)
		s->worker_error = err;
	pthread_cond_broadcast(&s->queue_some);
	while (!err) {
		struct p9_request *r;

		while (!s->first && !s->stopping)
			pthread_cond_wait(&s->queue_some, &s->queue_lock);
		r = s->first;
		if (!r)
			break;
		s->first = r->next;
		if (!s->first)
			s->last = &s->first;
		pthread_mutex_unlock(&s->queue_lock);
		p9_execute(r);
		pthread_mutex_lock(&s->queue_lock);
	}
	pthread_mutex_unlock(&s->queue_lock);
	return NULL;
}

int p9_pool_start(struct p9_server *s, struct skep_error *e)
{
	int err = 0;

	pthread_mutex_init(&s->queue_lock, NULL);
	pthread_cond_init(&s->queue_some, NULL);
	s->last = &s->first;
	while (s->nworkers < s->o.workers && !err) {
		err = thread_start(&s->worker[s->nworkers], worker, s);
		s->nworkers += err == 0;
	}
	pthread_mutex_lock(&s->queue_lock);
	while (s->nready < s->nworkers)
		pthread_cond_wait(&s->queue_some, &s->queue_lock);
	pthread_mutex_unlock(&s->queue_lock);
	if (err)
		skep_fail(e, -err, "%s: cannot start a thread: %s", s->owner, strerror(-err));
	else if (s->worker_error)
		err = skep_fail(e, -s->worker_error, "%s: a share's thread cannot enter /proc/self/fd or "
				"keep its capabilities: %s", s->owner, strerror(-s->worker_error));
	if (err)
		p9_pool_stop(s);
	return err;
}

void p9_pool_stop(struct p9_server *s)
{
	pthread_mutex_lock(&s->queue_lock);
	s->stopping = true;
	pthread_cond_broadcast(&s->queue_some);
	pthread_mutex_unlock(&s->queue_lock);
	while (s->nworkers)
		pthread_join(s->worker[--s->nworkers], NULL);
	pthread_cond_destroy(&s->queue_some);
	pthread_mutex_destroy(&s->queue_lock);
}

void p9_pool_add(struct p9_server *s, struct p9_request *r)
{
	pthread_mutex_lock(&s->queue_lock);
	r->next = NULL;
	*s->last = r;
	s->last = &r->next;
	pthread_cond_signal(&s->queue_some);
	pthread_mutex_unlock(&s->queue_lock);
}

/* Queue lock held: takes out what *at points to. */
static struct p9_request *take(struct p9_server *s, struct p9_request **at)
{
	struct p9_request *r = *at;

	if (r) {
		*at = r->next;
		if (!*at)
			s->last = at;
		r->next = NULL;
	}
	return r;
}

bool p9_pool_take_back(struct p9_server *s, struct p9_request *r)
{
	struct p9_request **at;
	bool found;

	pthread_mutex_lock(&s->queue_lock);
	for (at = &s->first; *at && *at != r; at = &(*at)->next)
		;
	found = take(s, at) != NULL;
	pthread_mutex_unlock(&s->queue_lock);
	return found;
}

struct p9_request *p9_pool_take_any(struct p9_server *s, const struct p9_session *ss)
{
	struct p9_request **at, *r;

	pthread_mutex_lock(&s->queue_lock);
	for (at = &s->first; *at && (*at)->session != ss; at = &(*at)->next)
		;
	r = take(s, at);
	pthread_mutex_unlock(&s->queue_lock);
	return r;
}
