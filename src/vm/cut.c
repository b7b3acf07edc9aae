/*
 * A cut of RAM.  See cut.h.
 *
 * Live: who copies a page.  The machine stands while the cut sets PAGE_FROZEN, and every write
 * tag is dropped, so a writer comes to memory_will_write before it changes a byte.  Then
 *
 *   writer, sees FROZEN:	reader:
 *	copy page -> T			copy page -> buffer
 *	side[page]: NULL -> T, or	clear FROZEN; was it set?
 *	  drop T, there is one		  yes: the buffer is right
 *	clear FROZEN			  no:  side[page] is
 *	write
 *
 * Nobody waits for anybody.  It is right because
 *
 * 1. A byte of the page is written only by who has seen FROZEN clear with acquire (or has cleared
 *    it), and FROZEN is cleared with release, by read-modify-write operations only, so that whoever
 *    sees it clear comes after everything that the one who cleared it did before.
 * 2. The reader finds FROZEN set when it clears it: then nobody had cleared it, and all writes come
 *    after that, by 1; its copy, made before, has none of them.
 * 3. It finds it clear: a writer cleared it.  That writer had made sure that side[page] is not
 *    NULL before, with its own copy or because it found another's: the reader sees one.
 * 4. The copy in side[page] has no write in it, if it was a writer who cleared FROZEN: take the
 *    one that is in, T.  T was put in before the one who cleared FROZEN looked at side[page]
 *    (which is only ever set once), so copying T came before clearing, and so before all writes.
 *    If it was the reader who cleared FROZEN, a late writer may put a spoilt copy in; the
 *    reader does not look.
 *
 * A late writer may be at side[] until it leaves cut_before_write, so the end of a cut clears all
 * FROZEN that is left and then waits until `copiers` is 0.  A writer counts itself and then
 * looks at FROZEN again; the end clears FROZEN and then looks at the count; all four are
 * sequentially consistent, so either the writer sees that there is nothing to do, or the end sees
 * the writer.
 *
 * A writer without memory for a copy fails the cut, not the guest: it sets `failed` before it
 * clears FROZEN, and the reader looks at that before it believes what is in side[].
 */
#include "vm/cut.h"

#include <errno.h>
#include <inttypes.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "vm/copies.h"
#include "vm/memory_inside.h"
#include "vm/vm.h"

#define WORDS	(CUT_CHUNK_PAGES / 64)	/* of a chunk, in a bitmap */

struct ram_cut {
	struct guest_memory *m;
	unsigned flags;
	size_t nchunks, chunk;		/* chunk: the next to be returned */
	uint64_t npages;
	uint64_t *pages;		/* a bit a page: in the cut */
	uint64_t *dirty;		/* those that were dirty; a delta: pages itself */

	/* Live. */
	uint8_t *buffer;		/* RAM_CHUNK bytes */
	_Atomic(uint8_t *) *side;	/* by page; TAKEN: has been returned */
	size_t side_len;
	struct copies *copies;
	_Atomic bool failed;		/* a writer had no memory for a copy */
};

#define TAKEN ((uint8_t *)1)

/* ---- Making ------------------------------------------------------------ */

static void cut_free(struct ram_cut *c)
{
	if (!c)
		return;
	copies_destroy(c->copies);
	if (c->side)
		munmap((void *)c->side, c->side_len);
	if (c->buffer)
		munmap(c->buffer, RAM_CHUNK);
	if (c->dirty != c->pages)
		free(c->dirty);
	free(c->pages);
	free(c);
}

static void *map_zeroes(size_t len)
{
	void *p = mmap(NULL, len, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	return p == MAP_FAILED ? NULL : p;
}

static struct ram_cut *cut_alloc(struct guest_memory *m, unsigned flags)
{
	struct ram_cut *c = calloc(1, sizeof(*c));
	size_t words;

	if (!c)
		return NULL;
	c->m = m;
	c->flags = flags;
	c->nchunks = (m->npages + CUT_CHUNK_PAGES - 1) / CUT_CHUNK_PAGES;
	words = c->nchunks * WORDS;
	c->pages = calloc(words, sizeof(*c->pages));
	c->dirty = flags & CUT_DELTA ? c->pages : calloc(words, sizeof(*c->dirty));
	if (flags & CUT_LIVE) {
		c->side_len = m->npages * sizeof(*c->side);
		c->side = map_zeroes(c->side_len);
		c->buffer = map_zeroes(RAM_CHUNK);
		c->copies = copies_create(m);
	}
	if (c->pages && c->dirty && (!(flags & CUT_LIVE) || (c->side && c->buffer && c->copies)))
		return c;
	cut_free(c);
	return NULL;
}

/* Eight bytes of 0 or 1 to eight bits: byte n goes to bit 56 + n, nothing else gets there. */
static uint8_t pack(uint64_t bytes)
{
	return (uint8_t)(bytes * 0x0102040810204080ull >> 56);
}

/* And back. */
static uint64_t unpack(uint8_t bits)
{
	uint64_t spread = bits * EVERY(1) & 0x8040201008040201ull;

	return (spread + EVERY(0x7f)) >> 7 & EVERY(1);
}

/* One pass over the flags, eight pages at a time: this is how long the guest stands. */
static void take_flags(struct ram_cut *c)
{
	_Atomic uint64_t *words = flags_words(c->m);
	uint8_t *pages = (uint8_t *)c->pages, *dirty = (uint8_t *)c->dirty;
	bool delta = c->flags & CUT_DELTA, live = c->flags & CUT_LIVE;
	size_t n = ALIGN_UP(c->m->npages, 8) / 8, i;

	for (i = 0; i < n; i++) {
		uint64_t was = atomic_load_explicit(&words[i], memory_order_relaxed), is, in, d;

		if (likely(!(was & EVERY(PAGE_DIRTY | PAGE_TOUCHED))))
			continue;
		d = was & EVERY(PAGE_DIRTY);
		in = delta ? d : (was & EVERY(PAGE_TOUCHED)) / PAGE_TOUCHED;
		pages[i] = pack(in);
		dirty[i] = pack(d);
		c->npages += (unsigned)__builtin_popcountll(in);
		/* Nobody else is here now, but a flag that came would not be lost. */
		do {
			is = (was & ~EVERY(PAGE_DIRTY)) | (live ? in * PAGE_FROZEN : 0);
		} while (is != was && !atomic_compare_exchange_weak(&words[i], &was, is));
	}
}

struct ram_cut *memory_cut(struct guest_memory *m, unsigned flags, struct skep_error *e)
{
	struct ram_cut *c;

	if (memory_lost(m, e) < 0)
		return NULL;
	if ((flags & CUT_LIVE) && m->vm->vcpus[0] && !m->vm->vcpus[0]->ops->live_cut) {
		skep_fail(e, EOPNOTSUPP, "--live needs backend=soft: backend=%s does not tell of the first "
			  "write to each page; save without it", m->vm->vcpus[0]->ops->name);
		return NULL;
	}
	if (m->vm->vcpus[0] && m->vm->vcpus[0]->ops->sync_dirty(m->vm->vcpus[0], e) < 0)
		return NULL;
	if (atomic_exchange(&m->cutting, true)) {
		skep_fail(e, EBUSY, "the machine is being saved already; wait until that is done");
		return NULL;
	}
	c = cut_alloc(m, flags);
	if (!c) {
		atomic_store(&m->cutting, false);
		skep_fail(e, ENOMEM, "no memory for a save");
		return NULL;
	}
	if (flags & CUT_LIVE)
		atomic_store(&m->cut, c);
	take_flags(c);
	/* Write tags stand for pages that are dirty and not frozen: for none, now. */
	vm_flush_tlbs(m->vm);
	return c;
}

uint64_t ram_cut_pages(const struct ram_cut *c)
{
	return c->npages;
}

/* ---- Writers ----------------------------------------------------------- */

/*
 * A copy while others may write, which memcpy may not be asked for; whether it is any good is
 * found out afterwards.
 */
static void copy_page(uint8_t *to, const uint8_t *from)
{
	size_t n = GUEST_PAGE_SIZE / 8;

	__asm__ volatile("rep movsq" : "+D"(to), "+S"(from), "+c"(n) : : "memory");
}

static void give_copy(struct ram_cut *c, size_t page)
{
	uint8_t *copy, *none = NULL;

	if (atomic_load(&c->side[page]))
		return;
	copy = copies_take(c->copies);
	if (!copy) {
		atomic_store(&c->failed, true);
		return;
	}
	copy_page(copy, page_host(c->m, page));
	if (!atomic_compare_exchange_strong(&c->side[page], &none, copy))
		copies_return(c->copies, copy);
}

static bool thaw(_Atomic uint8_t *flags)
{
	return atomic_fetch_and(flags, (uint8_t)~PAGE_FROZEN) & PAGE_FROZEN;
}

void cut_before_write(struct guest_memory *m, _Atomic uint8_t *flags)
{
	atomic_fetch_add(&m->copiers, 1);
	if (atomic_load(flags) & PAGE_FROZEN) {
		give_copy(atomic_load(&m->cut), (size_t)(flags - m->page_flags));
		thaw(flags);
	}
	atomic_fetch_sub(&m->copiers, 1);
}

/* ---- Reading ----------------------------------------------------------- */

/* The page as it was, to the buffer. */
static bool take_page(struct ram_cut *c, size_t page, uint8_t *to)
{
	_Atomic uint8_t *flags = &c->m->page_flags[page];
	uint8_t *copy;

	if (atomic_load(flags) & PAGE_FROZEN) {
		copy_page(to, page_host(c->m, page));
		if (thaw(flags))
			return true;
	}
	copy = atomic_load(&c->side[page]);
	if (!copy || atomic_load(&c->failed))
		return false;
	memcpy(to, copy, GUEST_PAGE_SIZE);
	atomic_store(&c->side[page], TAKEN);
	copies_return(c->copies, copy);
	return true;
}

static int read_chunk(struct ram_cut *c, size_t n, struct ram_chunk *chunk, struct skep_error *e)
{
	const uint64_t *in = &c->pages[n * WORDS];
	size_t first = n * CUT_CHUNK_PAGES, i;
	const struct mem_region *r = page_region(c->m, first);
	size_t left = r->first_page + r->size / GUEST_PAGE_SIZE - first;
	size_t npages = MIN(left, CUT_CHUNK_PAGES);
	bool delta = c->flags & CUT_DELTA;

	*chunk = (struct ram_chunk){
		.gpa = page_gpa(c->m, first),
		.npages = (uint32_t)npages,
		.data = c->flags & CUT_LIVE ? c->buffer : page_host(c->m, first),
	};
	if (memory_fetch(c->m, first, chunk->npages, e) < 0)
		return -EIO;
	for (i = 0; i < CUT_CHUNK_PAGES; i++) {
		const uint8_t *data = chunk->data + i * GUEST_PAGE_SIZE;

		if (!in[i / 64]) {
			i |= 63;
			continue;
		}
		if (!(in[i / 64] >> i % 64 & 1))
			continue;
		if (c->flags & CUT_LIVE && !take_page(c, first + i, (uint8_t *)data))
			return skep_fail(e, ENOMEM, "no memory for the pages that the guest wrote during "
					 "the save");
		if (!delta && page_is_zero(data))
			continue;
		chunk->there[i / 64] |= BIT(i % 64);
		chunk->nthere++;
	}
	return 0;
}

static bool chunk_empty(const struct ram_cut *c, size_t n)
{
	uint64_t any = 0;
	unsigned i;

	for (i = 0; i < WORDS; i++)
		any |= c->pages[n * WORDS + i];
	return !any;
}

int ram_cut_next(struct ram_cut *c, struct ram_chunk *chunk, struct skep_error *e)
{
	while (c->chunk < c->nchunks) {
		size_t n = c->chunk++;
		int err;

		if (chunk_empty(c, n))
			continue;
		err = read_chunk(c, n, chunk, e);
		/* What was lost reads as zeroes. */
		if (!err)
			err = memory_lost(c->m, e);
		if (err < 0)
			return err;
		if (chunk->nthere)
			return 1;
	}
	return memory_lost(c->m, e);
}

int64_t ram_cut_braked(const struct ram_cut *c)
{
	return c->copies ? copies_braked(c->copies) : 0;
}

static bool was_written(const struct ram_cut *c, size_t page)
{
	return c->dirty[page / 64] >> page % 64 & 1;
}

void ram_cut_written(const struct ram_cut *c, void (*fn)(void *opaque, uint64_t gpa, uint64_t npages),
		     void *opaque)
{
	size_t npages = c->m->npages, page, end;

	for (page = 0; page < npages; page = end) {
		end = page + 1;
		if (!(page % 64) && !c->dirty[page / 64])
			end = page + 64;
		if (!was_written(c, page))
			continue;
		/* Regions are told apart. */
		while (end < npages && was_written(c, end) &&
		       page_region(c->m, end) == page_region(c->m, page))
			end++;
		fn(opaque, page_gpa(c->m, page), end - page);
	}
}

/* ---- Ending ------------------------------------------------------------ */

/* Writers go on unwatched, and none of them is with us any more. */
static void end_live(struct ram_cut *c)
{
	_Atomic uint64_t *words = flags_words(c->m);
	const uint8_t *pages = (const uint8_t *)c->pages;
	size_t n = c->nchunks * CUT_CHUNK_PAGES / 8, i;

	for (i = 0; i < n; i++)
		if (pages[i] && atomic_load(&words[i]) & EVERY(PAGE_FROZEN))
			atomic_fetch_and(&words[i], ~EVERY(PAGE_FROZEN));
	while (atomic_load(&c->m->copiers))
		sched_yield();
	atomic_store(&c->m->cut, NULL);
}

static void end_cut(struct ram_cut *c)
{
	struct guest_memory *m = c->m;

	if (c->flags & CUT_LIVE)
		end_live(c);
	cut_free(c);
	atomic_store(&m->cutting, false);
}

void ram_cut_commit(struct ram_cut *c)
{
	end_cut(c);
}

void ram_cut_abort(struct ram_cut *c)
{
	const uint8_t *dirty;
	size_t n, i;

	if (!c)
		return;
	dirty = (const uint8_t *)c->dirty;
	n = c->nchunks * CUT_CHUNK_PAGES / 8;
	for (i = 0; i < n; i++)
		if (dirty[i])
			atomic_fetch_or(&flags_words(c->m)[i], unpack(dirty[i]) * PAGE_DIRTY);
	end_cut(c);
}
