/*
 * Room for the pages that writers give to a live cut.
 *
 * A guest can write faster than a disk, and its copies come to as much as its RAM then: a host that has
 * no room for that would end the machine that was to be saved.  So the room is granted in steps, as long
 * as the host has memory to spare.  When it has not, the processors are braked (STOP_CUT), which takes
 * effect between two instructions; when the reader has taken half of the copies, they go on.  Nobody
 * waits inside an instruction, and no lock is held meanwhile.
 */
#include "vm/copies.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>

#include "vm/memory_inside.h"
#include "vm/vm.h"

#define PIECE	RAM_CHUNK		/* bytes that are asked of the host at once */
#define LEAST	(16 * MiB / GUEST_PAGE_SIZE)	/* pages that are always granted */
#define STEP	(64 * MiB / GUEST_PAGE_SIZE)
#define SPARE	4			/* so much of the host's memory is to stay free: a quarter */

struct copies {
	struct vm *vm;
	_Atomic int64_t braked_at;	/* host ns; 0: it is not; written under lock */

	pthread_mutex_t lock;		/* nothing but a vCPU's wait_lock is taken under it */
	uint8_t **pieces;
	size_t npieces, max_pieces;
	size_t used;			/* pages of the last piece that were given out */
	uint8_t *returned;		/* pages that came back, each with the address of the next */
	size_t held, limit;		/* pages */
};

struct copies *copies_create(struct guest_memory *m)
{
	struct copies *c = calloc(1, sizeof(*c));

	if (!c)
		return NULL;
	/* Each page has one copy; but writers who come to a page at once have one more in hand. */
	c->max_pieces = m->npages / CHUNK_PAGES + 2;
	c->pieces = calloc(c->max_pieces, sizeof(*c->pieces));
	if (!c->pieces) {
		free(c);
		return NULL;
	}
	pthread_mutex_init(&c->lock, NULL);
	c->vm = m->vm;
	c->limit = LEAST;
	return c;
}

static int64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * NSEC_PER_SEC + t.tv_nsec;
}

/* lock */
static void brake(struct copies *c, bool on)
{
	unsigned i;

	atomic_store(&c->braked_at, on ? now_ns() : 0);
	for (i = 0; i < c->vm->ncpus; i++) {
		if (on)
			vcpu_stop(c->vm->vcpus[i], STOP_CUT);
		else
			vcpu_go(c->vm->vcpus[i], STOP_CUT);
	}
}

void copies_destroy(struct copies *c)
{
	size_t i;

	if (!c)
		return;
	if (atomic_load(&c->braked_at))
		brake(c, false);
	for (i = 0; i < c->npieces; i++)
		munmap(c->pieces[i], PIECE);
	free(c->pieces);
	pthread_mutex_destroy(&c->lock);
	free(c);
}

int64_t copies_braked(const struct copies *c)
{
	return atomic_load(&c->braked_at);
}

/* Has the host memory to spare, without swapping? One that does not say has not. */
static bool host_has_room(void)
{
	FILE *f = fopen("/proc/meminfo", "re");
	unsigned long long total = 0, available = 0;
	char line[128];

	while (f && !available && fgets(line, sizeof(line), f))
		if (sscanf(line, "MemTotal: %llu kB", &total) != 1)
			sscanf(line, "MemAvailable: %llu kB", &available);
	if (f)
		fclose(f);
	return available > total / SPARE;
}

static uint8_t *fresh(struct copies *c)
{
	void *p;

	if (!c->npieces || c->used == CHUNK_PAGES) {
		if (c->npieces == c->max_pieces)
			return NULL;
		p = mmap(NULL, PIECE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		if (p == MAP_FAILED)
			return NULL;
		c->pieces[c->npieces++] = p;
		c->used = 0;
	}
	return c->pieces[c->npieces - 1] + c->used++ * GUEST_PAGE_SIZE;
}

uint8_t *copies_take(struct copies *c)
{
	uint8_t *p;

	pthread_mutex_lock(&c->lock);
	p = c->returned;
	if (p)
		memcpy(&c->returned, p, sizeof(c->returned));
	else
		p = fresh(c);
	if (p && ++c->held >= c->limit && !c->braked_at) {
		if (host_has_room())
			c->limit += STEP;
		else
			brake(c, true);
	}
	pthread_mutex_unlock(&c->lock);
	return p;
}

void copies_return(struct copies *c, uint8_t *page)
{
	pthread_mutex_lock(&c->lock);
	memcpy(page, &c->returned, sizeof(c->returned));
	c->returned = page;
	if (--c->held <= c->limit / 2 && c->braked_at)
		brake(c, false);
	pthread_mutex_unlock(&c->lock);
}
