/* A byte queue that grows by doubling and gives big memory back when empty. */
#include <errno.h>
#include <stdlib.h>

#include "base/util.h"
#include "char/backend.h"

#define QUEUE_MIN	4096u
#define QUEUE_BIG	(256u << 10)

static int queue_grow(struct char_queue *q, size_t need)
{
	size_t cap = q->cap ? q->cap : QUEUE_MIN;
	uint8_t *data;
	size_t first;

	while (cap < need)
		cap *= 2;
	data = malloc(cap);
	if (!data)
		return -ENOMEM;
	first = MIN(q->len, q->cap - q->head);
	if (q->len) {
		memcpy(data, q->data + q->head, first);
		memcpy(data + first, q->data, q->len - first);
	}
	free(q->data);
	q->data = data;
	q->cap = cap;
	q->head = 0;
	return 0;
}

int char_queue_push(struct char_queue *q, const uint8_t *data, size_t len)
{
	size_t tail, first;

	if (!len)
		return 0;
	if (q->len + len > q->cap && queue_grow(q, q->len + len) < 0)
		return -ENOMEM;
	tail = (q->head + q->len) & (q->cap - 1);	/* cap is a power of two */
	first = MIN(len, q->cap - tail);
	memcpy(q->data + tail, data, first);
	memcpy(q->data, data + first, len - first);
	q->len += len;
	return 0;
}

size_t char_queue_peek(const struct char_queue *q, const uint8_t **data)
{
	*data = q->data + q->head;
	return MIN(q->len, q->cap - q->head);
}

void char_queue_drop(struct char_queue *q, size_t len)
{
	q->head = (q->head + len) & (q->cap - 1);
	q->len -= len;
	if (q->len)
		return;
	q->head = 0;
	if (q->cap > QUEUE_BIG)
		char_queue_finish(q);
}

void char_queue_finish(struct char_queue *q)
{
	free(q->data);
	q->data = NULL;
	q->cap = q->head = q->len = 0;
}
