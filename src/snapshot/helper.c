#include "snapshot/helper.h"

#include <stdbool.h>
#include <stdlib.h>

#include "base/thread.h"

enum stage { IDLE, GIVEN, TAKEN, DONE };

struct snap_helper {
	pthread_t thread;
	pthread_mutex_t lock;	/* of what follows */
	pthread_cond_t given, done;
	enum stage stage;
	bool leave;
	void (*work)(void *opaque);
	void *opaque;
};

static void *helper_main(void *opaque)
{
	struct snap_helper *h = opaque;

	pthread_mutex_lock(&h->lock);
	while (!h->leave) {
		if (h->stage != GIVEN) {
			pthread_cond_wait(&h->given, &h->lock);
			continue;
		}
		h->stage = TAKEN;
		pthread_mutex_unlock(&h->lock);
		h->work(h->opaque);
		pthread_mutex_lock(&h->lock);
		h->stage = DONE;
		pthread_cond_signal(&h->done);
	}
	pthread_mutex_unlock(&h->lock);
	return NULL;
}

struct snap_helper *snap_helper_create(void)
{
	struct snap_helper *h = calloc(1, sizeof(*h));

	if (!h)
		return NULL;
	pthread_mutex_init(&h->lock, NULL);
	pthread_cond_init(&h->given, NULL);
	pthread_cond_init(&h->done, NULL);
	if (thread_start(&h->thread, helper_main, h) == 0)
		return h;
	pthread_mutex_destroy(&h->lock);
	pthread_cond_destroy(&h->given);
	pthread_cond_destroy(&h->done);
	free(h);
	return NULL;
}

void snap_helper_destroy(struct snap_helper *h)
{
	if (!h)
		return;
	pthread_mutex_lock(&h->lock);
	h->leave = true;
	pthread_cond_signal(&h->given);
	pthread_mutex_unlock(&h->lock);
	pthread_join(h->thread, NULL);
	pthread_mutex_destroy(&h->lock);
	pthread_cond_destroy(&h->given);
	pthread_cond_destroy(&h->done);
	free(h);
}

void snap_helper_begin(struct snap_helper *h, void (*work)(void *opaque), void *opaque)
{
	pthread_mutex_lock(&h->lock);
	h->work = work;
	h->opaque = opaque;
	h->stage = GIVEN;
	pthread_cond_signal(&h->given);
	pthread_mutex_unlock(&h->lock);
}

void snap_helper_end(struct snap_helper *h)
{
	bool mine;

	pthread_mutex_lock(&h->lock);
	mine = h->stage == GIVEN;
	while (h->stage == TAKEN)
		pthread_cond_wait(&h->done, &h->lock);
	h->stage = IDLE;
	pthread_mutex_unlock(&h->lock);
	if (mine)
		h->work(h->opaque);
}
