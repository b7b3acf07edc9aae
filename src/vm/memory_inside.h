/* Inside of guest memory: what memory*.c and cut.c share, and nobody else uses. */
#ifndef SKEP_VM_MEMORY_INSIDE_H
#define SKEP_VM_MEMORY_INSIDE_H

#include "base/util.h"
#include "vm/memory.h"

#define HOLE_BASE	0xa0000ull	/* legacy video memory: never RAM */
#define PAM_BASE	0xc0000ull
#define PAM_END		0x100000ull
#define CHUNK_PAGES	(RAM_CHUNK / GUEST_PAGE_SIZE)

/* The same flag in each of eight pages. */
#define EVERY(flag)	((flag) * 0x0101010101010101ull)

/*
 * The flags of eight pages at once, by the number of the first one / 8.  There is room for whole
 * words at the end.
 */
static inline _Atomic uint64_t *flags_words(const struct guest_memory *m)
{
	return (_Atomic uint64_t *)(void *)m->page_flags;
}

/* The first page of [from, to) in which one of the flags is set, or in which none is; or to. */
size_t memory_find(const struct guest_memory *m, size_t from, size_t to, uint8_t flags, bool set);

/* The region that holds all of [gpa, gpa+len), or NULL.  len > 0. */
const struct mem_region *memory_region(const struct guest_memory *m, uint64_t gpa, uint64_t len);
/* The same for devices, which do not reach what lies under video memory. */
const struct mem_region *memory_dma_region(const struct guest_memory *m, uint64_t gpa,
					   uint64_t len);

/* Index of the page of gpa, which lies in r. */
static inline size_t region_page(const struct mem_region *r, uint64_t gpa)
{
	return r->first_page + (gpa - r->gpa) / GUEST_PAGE_SIZE;
}

/* The region of a page by its index. */
static inline const struct mem_region *page_region(const struct guest_memory *m, size_t page)
{
	return &m->ram[m->nram > 1 && page >= m->ram[1].first_page];
}

static inline uint8_t *page_host(const struct guest_memory *m, size_t page)
{
	const struct mem_region *r = page_region(m, page);

	return r->host + (page - r->first_page) * GUEST_PAGE_SIZE;
}

static inline uint64_t page_gpa(const struct guest_memory *m, size_t page)
{
	const struct mem_region *r = page_region(m, page);

	return r->gpa + (page - r->first_page) * GUEST_PAGE_SIZE;
}

/* Fetches what is pending of these pages; memory_lost tells what could not be. */
int memory_fetch(struct guest_memory *m, size_t page, size_t npages, struct skep_error *e);

/* In front of every look at RAM.  Costs one branch where nothing is pending. */
static inline void memory_present(struct guest_memory *m, size_t page, size_t npages)
{
	struct skep_error e;

	/* Acquire: with the last chunk its bytes are there. */
	if (unlikely(atomic_load_explicit(&m->npending, memory_order_acquire)))
		memory_fetch(m, page, npages, &e);
}

/* Makes host memory of RAM zero, and gives it back. */
int memory_make_zero(struct guest_memory *m, const struct mem_region *r, uint64_t gpa,
		     uint64_t len);

/* Frees what memory_lazy.c holds. */
void memory_lazy_finish(struct guest_memory *m);

/* cut.c: the page is FROZEN; when this returns, it is not, and the cut has its copy. */
void cut_before_write(struct guest_memory *m, _Atomic uint8_t *flags);

static inline bool page_is_zero(const uint8_t *p)
{
	/* Shifted by a word onto itself: all words equal the first one. */
	return !load64(p) && !memcmp(p, p + 8, GUEST_PAGE_SIZE - 8);
}

#endif
