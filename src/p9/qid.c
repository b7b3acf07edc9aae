/* qids: see qid.h. */
#include "p9/qid.h"

#include <errno.h>
#include <stdlib.h>

#define LOW_BITS 48

int p9_qids_init(struct p9_qids *q, uint64_t root_dev)
{
	q->room = 8;
	q->prefix = calloc(q->room, sizeof(*q->prefix));
	if (!q->prefix)
		return -ENOMEM;
	q->prefix[0].dev = q->root_dev = root_dev;
	q->n = 1;
	pthread_mutex_init(&q->lock, NULL);
	return 0;
}

void p9_qids_finish(struct p9_qids *q)
{
	free(q->prefix);
	pthread_mutex_destroy(&q->lock);
}

static int append(struct p9_qids *q, uint64_t dev, uint16_t high)
{
	if (q->n == P9_PREFIXES_MAX)
		return -ENOSPC;
	if (q->n == q->room) {
		struct p9_prefix *p = realloc(q->prefix, 2 * q->room * sizeof(*p));

		if (!p)
			return -ENOMEM;
		q->prefix = p;
		q->room *= 2;
	}
	q->prefix[q->n++] = (struct p9_prefix){ dev, high };
	return 0;
}

int p9_qid_path(struct p9_qids *q, uint64_t dev, uint64_t ino, uint64_t *path)
{
	uint16_t high = (uint16_t)(ino >> LOW_BITS);
	uint32_t i = 0;
	int err = 0;

	if (dev != q->root_dev || high) {
		pthread_mutex_lock(&q->lock);
		while (i < q->n && (q->prefix[i].dev != dev || q->prefix[i].high != high))
			i++;
		if (i == q->n)
			err = append(q, dev, high);
		pthread_mutex_unlock(&q->lock);
	}
	*path = (uint64_t)i << LOW_BITS | (ino & ((1ull << LOW_BITS) - 1));
	return err;
}

int p9_qids_set(struct p9_qids *q, uint32_t i, const struct p9_prefix *p)
{
	int err = 0;

	pthread_mutex_lock(&q->lock);
	if (i < q->n)
		q->prefix[i] = *p;
	else
		err = i == q->n ? append(q, p->dev, p->high) : -EINVAL;
	if (i == 0)
		q->root_dev = p->dev;
	pthread_mutex_unlock(&q->lock);
	return err;
}
