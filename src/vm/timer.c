/*
 * Timers: a binary heap ordered by due time, then by order of timer_init.
 *
 * timer_init reserves the timer's place, so that arming, which is hot, cannot
 * fail and never allocates.
 */
#include "vm/timer.h"

#include <errno.h>
#include <stdlib.h>

#include "vm/vm.h"

struct timer_heap {
	struct vm_timer **at;		/* at[0] is due first */
	size_t len, cap;
	size_t known;			/* timers that have been initialised */
	uint64_t run;			/* calls of timers_run */
	void (*earlier)(struct vm *vm, int64_t due);
};

int timers_create(struct vm *vm, void (*earlier)(struct vm *, int64_t), struct skep_error *e)
{
	vm->timers = calloc(1, sizeof(*vm->timers));
	if (!vm->timers)
		return skep_fail(e, ENOMEM, "no memory for the timers");
	vm->timers->earlier = earlier;
	return 0;
}

void timers_destroy(struct vm *vm)
{
	if (!vm->timers)
		return;
	free(vm->timers->at);
	free(vm->timers);
	vm->timers = NULL;
}

int timers_check(struct vm *vm, struct skep_error *e)
{
	if (vm->timers->cap < vm->timers->known)
		return skep_fail(e, ENOMEM, "no memory for the timers of the devices");
	return 0;
}

void timer_init(struct vm_timer *t, struct vm *vm, const char *name, event_fn fn, void *opaque)
{
	struct timer_heap *h = vm->timers;
	struct vm_timer **at;
	size_t cap;

	*t = (struct vm_timer){ .vm = vm, .fn = fn, .opaque = opaque, .name = name,
				.order = h->known };
	if (++h->known <= h->cap)
		return;
	cap = h->known + 16;
	at = realloc(h->at, cap * sizeof(*at));
	if (!at)
		return;			/* timers_check tells, before the machine runs */
	h->at = at;
	h->cap = cap;
}

static bool sooner(const struct vm_timer *a, const struct vm_timer *b)
{
	return a->due != b->due ? a->due < b->due : a->order < b->order;
}

static void put(struct timer_heap *h, size_t i, struct vm_timer *t)
{
	h->at[i] = t;
	t->slot = i + 1;
}

static void sift_up(struct timer_heap *h, size_t i, struct vm_timer *t)
{
	while (i) {
		size_t up = (i - 1) / 2;

		if (!sooner(t, h->at[up]))
			break;
		put(h, i, h->at[up]);
		i = up;
	}
	put(h, i, t);
}

static void sift_down(struct timer_heap *h, size_t i, struct vm_timer *t)
{
	for (;;) {
		size_t down = 2 * i + 1;

		if (down >= h->len)
			break;
		if (down + 1 < h->len && sooner(h->at[down + 1], h->at[down]))
			down++;
		if (!sooner(h->at[down], t))
			break;
		put(h, i, h->at[down]);
		i = down;
	}
	put(h, i, t);
}

/* Puts t, which may be better or worse than what stood at i, in its place. */
static void settle(struct timer_heap *h, size_t i, struct vm_timer *t)
{
	if (i && sooner(t, h->at[(i - 1) / 2]))
		sift_up(h, i, t);
	else
		sift_down(h, i, t);
}

static void remove_at(struct timer_heap *h, size_t i)
{
	struct vm_timer *last = h->at[--h->len];

	h->at[i]->slot = 0;
	if (i != h->len)
		settle(h, i, last);
}

void timer_arm(struct vm_timer *t, int64_t due_ns)
{
	struct timer_heap *h = t->vm->timers;
	int64_t before = h->len ? h->at[0]->due : INT64_MAX;

	t->due = due_ns;
	t->run = h->run;
	if (t->slot) {
		settle(h, t->slot - 1, t);
	} else {
		if (h->len == h->cap)
			return;		/* no memory: timers_check has said so */
		h->len++;
		sift_up(h, h->len - 1, t);
	}
	if (h->earlier && due_ns < before)
		h->earlier(t->vm, due_ns);
}

void timer_disarm(struct vm_timer *t)
{
	if (t->slot)
		remove_at(t->vm->timers, t->slot - 1);
}

int64_t timers_next_due(struct vm *vm)
{
	return vm->timers->len ? vm->timers->at[0]->due : INT64_MAX;
}

void timers_run(struct vm *vm, int64_t now)
{
	struct timer_heap *h = vm->timers;

	/*
	 * What a callback arms belongs to the next call, even if it is due
	 * already: a guest that programs periods of nothing must not keep
	 * us here.  Such a timer may hide older ones behind it; they follow
	 * in the next call as well.
	 */
	h->run++;
	while (h->len && h->at[0]->due <= now && h->at[0]->run != h->run) {
		struct vm_timer *t = h->at[0];

		remove_at(h, 0);
		t->fn(t->opaque);
	}
}
