#include "vm/bus.h"

#include <errno.h>
#include <inttypes.h>
#include <sched.h>
#include <stdbool.h>
#include <stdlib.h>

#include "base/util.h"

struct bus_range {
	uint64_t first, last;		/* both inclusive, so that 2^64-1 can be one */
	const struct bus_ops *ops;
	void *opaque;
	const char *name;
};

/*
 * Places that stay free: a range that moves (a BAR, ECAM) finds one without memory, whether the
 * guest moves it or a restore does, which cannot fail.
 */
#define SPARE	16

struct bus_map {
	size_t n, cap;
	struct bus_range at[];		/* by address, disjoint */
};

static struct bus_map empty_map;

void bus_init(struct bus *b, const char *name, uint64_t limit)
{
	b->name = name;
	b->limit = limit;
	atomic_init(&b->readers, 0);
	atomic_init(&b->map, &empty_map);
}

static void map_free(struct bus_map *m)
{
	if (m != &empty_map)
		free(m);
}

void bus_finish(struct bus *b)
{
	map_free(atomic_load(&b->map));
	atomic_store(&b->map, &empty_map);
}

/* Index of the first range that ends at or after addr. */
static size_t find(const struct bus_map *m, uint64_t addr)
{
	size_t lo = 0, hi = m->n;

	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;

		if (m->at[mid].last < addr)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

/*
 * Copies the range that holds addr to *r and returns true; else false, and
 * r->first is where the next range begins (beyond the limit if there is none).
 *
 * The count of readers is what lets a writer know when an old map, which it
 * has taken out of sight, may go: readers stay for some nanoseconds.
 */
static bool lookup(struct bus *b, uint64_t addr, struct bus_range *r)
{
	struct bus_map *m;
	bool hit = false;
	size_t i;

	for (;;) {
		atomic_fetch_add(&b->readers, 1);
		m = atomic_load(&b->map);
		if (likely(m != NULL))
			break;
		atomic_fetch_sub(&b->readers, 1);	/* bus_unmap is at work */
		sched_yield();
	}
	i = find(m, addr);
	if (i < m->n) {
		*r = m->at[i];
		hit = r->first <= addr;
	} else {
		*r = (struct bus_range){ .first = UINT64_MAX, .last = UINT64_MAX };
	}
	atomic_fetch_sub(&b->readers, 1);
	return hit;
}

/* Nobody looks at the map that was swapped out any more. */
static void wait_for_readers(struct bus *b)
{
	while (atomic_load(&b->readers))
		sched_yield();
}

/* The map is hidden from readers meanwhile. */
static void insert_in_place(struct bus *b, struct bus_map *m, size_t i, const struct bus_range *r)
{
	atomic_store(&b->map, NULL);
	wait_for_readers(b);
	memmove(m->at + i + 1, m->at + i, (m->n - i) * sizeof(m->at[0]));
	m->at[i] = *r;
	m->n++;
	atomic_store(&b->map, m);
}

int bus_map(struct bus *b, uint64_t base, uint64_t size, const struct bus_ops *ops,
	    void *opaque, const char *name, struct skep_error *e)
{
	struct bus_map *old = atomic_load(&b->map), *m;
	uint64_t last = base + size - 1;
	size_t i;

	if (!size || last < base || last > b->limit)
		return skep_fail(e, EINVAL, "%s: %s range %#" PRIx64 "+%#" PRIx64
				 " does not fit the bus, which ends at %#" PRIx64,
				 name, b->name, base, size, b->limit);
	i = find(old, base);
	if (i < old->n && old->at[i].first <= last)
		return skep_fail(e, EEXIST, "%s: %s range %#" PRIx64 "-%#" PRIx64
				 " overlaps %#" PRIx64 "-%#" PRIx64 " of %s", name, b->name, base,
				 last, old->at[i].first, old->at[i].last, old->at[i].name);
	m = malloc(sizeof(*m) + (old->n + 1 + SPARE) * sizeof(m->at[0]));
	if (!m && old->n < old->cap) {
		insert_in_place(b, old, i, &(struct bus_range){ base, last, ops, opaque, name });
		return 0;
	}
	if (!m)
		return skep_fail(e, ENOMEM, "%s: no memory for a %s range", name, b->name);
	m->n = old->n + 1;
	m->cap = m->n + SPARE;
	memcpy(m->at, old->at, i * sizeof(m->at[0]));
	m->at[i] = (struct bus_range){ base, last, ops, opaque, name };
	memcpy(m->at + i + 1, old->at + i, (old->n - i) * sizeof(m->at[0]));
	atomic_store(&b->map, m);
	wait_for_readers(b);
	map_free(old);
	return 0;
}

void bus_unmap(struct bus *b, uint64_t base)
{
	struct bus_map *m = atomic_load(&b->map);
	size_t i = find(m, base);

	if (i == m->n || m->at[i].first != base)
		return;
	/* In place, as insert_in_place does it: unlike a copy this cannot fail. */
	atomic_store(&b->map, NULL);
	wait_for_readers(b);
	memmove(m->at + i, m->at + i + 1, (m->n - i - 1) * sizeof(m->at[0]));
	m->n--;
	atomic_store(&b->map, m);
}

/* Largest power of two up to n (1-8). */
static unsigned piece_size(uint64_t n)
{
	return n >= 8 ? 8 : n >= 4 ? 4 : n >= 2 ? 2 : 1;
}

static uint64_t size_mask(unsigned size)
{
	return size >= 8 ? UINT64_MAX : (1ull << size * 8) - 1;
}

/*
 * Cuts the access at addr with left bytes to go: how many of them one device
 * (or nobody: ops NULL) answers at once.
 */
static unsigned next_piece(struct bus *b, uint64_t addr, unsigned left, struct bus_range *r)
{
	uint64_t room;
	unsigned max;

	if (!lookup(b, addr, r)) {
		r->ops = NULL;
		room = r->first > addr ? r->first - addr : left;
		return MIN(room, (uint64_t)left);
	}
	max = r->ops->max_size ? r->ops->max_size : 8;
	room = r->last - addr;		/* less one: the whole 64-bit space has no size */
	return piece_size(MIN(MIN(left, max) - 1, room) + 1);
}

uint64_t bus_read(struct bus *b, uint64_t addr, unsigned size)
{
	uint64_t value = 0, part;
	unsigned done, n;

	for (done = 0; done < size; done += n) {
		uint64_t at = addr + done;
		struct bus_range r;

		/* Beyond the end of the bus, or around it, is nothing. */
		if (at > b->limit || at < addr)
			return value | (UINT64_MAX << done * 8 & size_mask(size));
		n = next_piece(b, at, size - done, &r);
		part = r.ops ? r.ops->read(r.opaque, at - r.first, n) : UINT64_MAX;
		value |= (part & size_mask(n)) << done * 8;
	}
	return value;
}

void bus_write(struct bus *b, uint64_t addr, unsigned size, uint64_t value)
{
	unsigned done, n;

	for (done = 0; done < size; done += n) {
		uint64_t at = addr + done;
		struct bus_range r;

		if (at > b->limit || at < addr)
			return;
		n = next_piece(b, at, size - done, &r);
		if (r.ops)
			r.ops->write(r.opaque, at - r.first, n,
				     value >> done * 8 & size_mask(n));
	}
}
