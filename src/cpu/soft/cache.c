#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "cpu/soft/cache.h"
#include "cpu/soft/jit/jit.h"
#include "cpu/soft/mmu.h"
#include "cpu/soft/shared.h"
#include "cpu/soft/vex_thunk.h"
#include "vm/vm.h"

#define ARENA_OPS	(2048u * 1024)		/* 64 MiB, of which what is used counts */
#define MAX_BLOCKS	(256u * 1024)
#define HASH_SIZE	(128u * 1024)
#define PAGE_HASH_SIZE	4096u
#define MAX_PAGES	(32u * 1024)
#define NO_PAGE		UINT64_MAX

struct block {
	uint64_t phys;			/* of the first byte */
	uint64_t phys2;			/* second page, or NO_PAGE */
	uint32_t mode;
	uint16_t nops;
	uint16_t nbytes;
	struct soft_op *ops;
	struct block *hash_next;
	struct block *page_next[2];	/* in the list of its first and second page */
	bool dead;
};

struct code_page {
	uint64_t phys;
	struct block *blocks;
	struct code_page *hash_next;
	uint64_t granules;		/* bit n: code in bytes 64n .. 64n+63 */
};

struct soft_cache {
	struct soft_op *arena;
	size_t arena_used;
	struct block *blocks;
	size_t nblocks;
	struct code_page *pages;
	size_t npages;
	struct block *hash[HASH_SIZE];
	struct code_page *page_hash[PAGE_HASH_SIZE];
};

struct soft_cache *soft_cache_create(struct skep_error *e)
{
	struct soft_cache *k = calloc(1, sizeof *k);

	if (!k)
		goto fail;
	/* Megabytes, of which what counts as used is written first. */
	k->blocks = malloc(MAX_BLOCKS * sizeof *k->blocks);
	k->pages = malloc(MAX_PAGES * sizeof *k->pages);
	k->arena = mmap(NULL, ARENA_OPS * sizeof *k->arena, PROT_READ | PROT_WRITE,
			MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (k->arena == MAP_FAILED)
		k->arena = NULL;
	if (k->blocks && k->pages && k->arena)
		return k;
fail:
	soft_cache_destroy(k);
	skep_fail(e, ENOMEM, "not enough memory for the processor's code cache");
	return NULL;
}

void soft_cache_destroy(struct soft_cache *k)
{
	if (!k)
		return;
	if (k->arena)
		munmap(k->arena, ARENA_OPS * sizeof *k->arena);
	free(k->blocks);
	free(k->pages);
	free(k);
}

void soft_cache_flush(struct soft_cpu *c)
{
	struct soft_cache *k = c->cache;

	SOFT_COUNT(c, code_flushes);
	c->jit_wanted = NULL;
	/* An empty one stays as untouched as it is: that is how a machine begins. */
	if (k->nblocks) {
		memset(k->hash, 0, sizeof k->hash);
		memset(k->page_hash, 0, sizeof k->page_hash);
		memset(c->jumps, 0, JUMP_ENTRIES * sizeof *c->jumps);
	}
	k->nblocks = k->npages = k->arena_used = 0;
	soft_vex_flush(c->vex);
	soft_jit_flush(c);
}

static unsigned block_hash(uint64_t phys, uint32_t mode)
{
	uint64_t h = (phys ^ (uint64_t)mode << 40) * 0x9e3779b97f4a7c15ull;

	return (unsigned)(h >> 40) & (HASH_SIZE - 1);
}

static unsigned page_hash(uint64_t phys)
{
	return (unsigned)(phys >> 12 ^ phys >> 24) & (PAGE_HASH_SIZE - 1);
}

static struct code_page *page_find(struct soft_cache *k, uint64_t phys)
{
	struct code_page *p = k->page_hash[page_hash(phys)];

	while (p && p->phys != phys)
		p = p->hash_next;
	return p;
}

static struct code_page *page_get(struct soft_cache *k, uint64_t phys)
{
	struct code_page *p = page_find(k, phys);

	if (p)
		return p;
	p = &k->pages[k->npages++];
	*p = (struct code_page){ .phys = phys, .hash_next = k->page_hash[page_hash(phys)] };
	k->page_hash[page_hash(phys)] = p;
	return p;
}

/* Granules that bytes [first, last] of a page touch. */
static uint64_t granule_mask(unsigned first, unsigned last)
{
	unsigned a = first >> 6, b = last >> 6;

	return (b == 63 ? ~0ull : BIT(b + 1) - 1) & ~(BIT(a) - 1);
}

static void page_add(struct soft_cache *k, struct block *b, unsigned which, uint64_t phys,
		     unsigned first, unsigned last)
{
	struct code_page *p = page_get(k, phys);

	b->page_next[which] = p->blocks;
	p->blocks = b;
	p->granules |= granule_mask(first, last);
}

static void block_kill(struct soft_cpu *c, struct block *b)
{
	struct soft_cache *k = c->cache;
	struct block **at = &k->hash[block_hash(b->phys, b->mode)];

	if (b->dead)
		return;
	b->dead = true;
	while (*at && *at != b)
		at = &(*at)->hash_next;
	if (*at)
		*at = b->hash_next;
	if (b->ops[0].fn == op_head_jit)
		soft_jit_kill(c, &b->ops[0]);
	b->ops[0].fn = op_stale_head;
	for (unsigned i = 1; i < b->nops; i++)
		if (b->ops[i].flags & OPF_FIRST)
			b->ops[i].fn = op_stale;
}

static struct block **next_in_page(struct block *b, uint64_t phys)
{
	return &b->page_next[(b->phys & ~0xfffull) == phys ? 0 : 1];
}

/* No decoded code is left in the page. */
static void unprotect_code(struct soft_cpu *c, uint64_t phys)
{
	struct mem_page m = memory_page(&c->vm->memory, phys);

	if (m.flags && c->shared)
		soft_unshare_code(c, m.flags);
	else if (m.flags)
		atomic_fetch_and(m.flags, (uint8_t)~PAGE_CODE);
}

void soft_code_written(struct soft_cpu *c, uint64_t phys, uint64_t len)
{
	uint64_t last = phys + len - 1;

	for (uint64_t page = phys & ~0xfffull; page <= last; page += 4096) {
		struct code_page *p = page_find(c->cache, page);
		unsigned from = page < phys ? (unsigned)(phys - page) : 0;
		unsigned to = last - page < 4096 ? (unsigned)(last - page) : 4095;
		uint64_t left = 0;
		struct block **at;

		if (!p) {
			/* The cache was emptied since. */
			unprotect_code(c, page);
			continue;
		}
		if (!(p->granules & granule_mask(from, to)))
			continue;
		for (at = &p->blocks; *at;) {
			struct block *b = *at;
			bool second = (b->phys & ~0xfffull) != page;
			unsigned b_from = second ? 0 : (unsigned)(b->phys & 0xfff);
			unsigned end = (unsigned)(b->phys & 0xfff) + b->nbytes - 1;
			unsigned b_to = second ? end - 4096 : MIN(end, 4095u);

			if (b->dead || (b_from <= to && from <= b_to)) {
				*at = *next_in_page(b, page);
				SOFT_COUNT(c, code_killed);
				block_kill(c, b);
			} else {
				left |= granule_mask(b_from, b_to);
				at = next_in_page(b, page);
			}
		}
		p->granules = left;
		if (!left)
			unprotect_code(c, page);
	}
}

static struct block *block_find(struct soft_cache *k, uint64_t phys, uint32_t mode)
{
	struct block *b = k->hash[block_hash(phys, mode)];

	while (b && (b->phys != phys || b->mode != mode))
		b = b->hash_next;
	return b;
}

/* The block that an op belongs to; blocks lie in the arena one after the other.  NULL: none. */
static const struct block *block_of(const struct soft_cache *k, const struct soft_op *op)
{
	size_t from = 0, to = k->nblocks;

	if (op < k->arena || op >= k->arena + k->arena_used)
		return NULL;
	while (to - from > 1) {
		size_t middle = (from + to) / 2;

		if (k->blocks[middle].ops <= op)
			from = middle;
		else
			to = middle;
	}
	return &k->blocks[from];
}

bool soft_cache_same_page(const struct soft_cpu *c, const struct soft_op *a, const struct soft_op *b)
{
	const struct block *x = block_of(c->cache, a), *y = block_of(c->cache, b);

	return x && y && x->phys >> 12 == y->phys >> 12;
}

/* What of the mode decoding does not look at. */
#define MODE_NOT_KEYED (MODE_USER | MODE_AC)

const struct soft_op *soft_cache_find(struct soft_cpu *c)
{
	struct soft_cache *k = c->cache;
	uint64_t lin = soft_fetch_lin(c, c->rip), next_lin;
	uint32_t mode = c->mode & ~MODE_NOT_KEYED;
	struct soft_fetch fetch;
	struct jump_entry *j;
	struct block *b;
	uint64_t phys, phys2 = NO_PAGE;
	unsigned off, ninsns, nbytes, nops, max = BLOCK_MAX_INSNS;
	uint8_t joined[32];

	SOFT_COUNT(c, code_lookups);
	off = lin & 0xfff;
	next_lin = soft_fetch_lin(c, c->rip + 4096 - off);
	fetch = soft_fetch(c, lin);
	if (!fetch.host)
		return NULL;
	phys = fetch.phys | off;
	b = block_find(k, phys, mode);
	if (b && b->phys2 != NO_PAGE && soft_fetch(c, next_lin).phys != b->phys2) {
		block_kill(c, b);
		b = NULL;
	}
	if (b)
		goto found;

	if (k->arena_used + BLOCK_MAX_OPS > ARENA_OPS || k->nblocks == MAX_BLOCKS ||
	    k->npages + 2 > MAX_PAGES || !soft_vex_room(c->vex))
		soft_cache_flush(c);
	/*
	 * Who writes the page from another thread looks at the flag after the bytes; so the
	 * flag is set before the bytes are read.
	 */
	if (!soft_mmu_protect_code(c, phys & ~0xfffull))
		return NULL;
	struct block_bytes in = { fetch.host + off, 4096 - off, off };
	struct soft_op *ops = k->arena + k->arena_used;

	if (unlikely(c->test.block_insns))
		max = MIN(max, c->test.block_insns);
	nops = soft_decode_block(c, &in, max, ops, &ninsns, &nbytes);
	if (!nops) {
		/* One instruction that reaches into the next page. */
		unsigned here = 4096 - off;
		struct soft_fetch next;

		if (!(c->mode & MODE_CS64) && c->rip + here > c->s.seg[SEG_CS].limit)
			return NULL;
		next = soft_fetch(c, next_lin);
		if (!next.host || next.phys == fetch.phys)
			return NULL;
		/* The first page again: the fetch may have set a bit of its own in it. */
		if (!soft_mmu_protect_code(c, phys & ~0xfffull) ||
		    !soft_mmu_protect_code(c, next.phys))
			return NULL;
		memcpy(joined, in.bytes, here);
		memcpy(joined + here, next.host, 15);
		in.bytes = joined;
		in.avail = here + 15;
		phys2 = next.phys;
		nops = soft_decode_block(c, &in, 1, ops, &ninsns, &nbytes);
		ops[0].dst = 1;		/* depends on a second mapping: may not be linked to */
		if (off + nbytes <= 4096)
			return NULL;	/* no instruction after all: #UD or #GP */
	}
	SOFT_COUNT(c, code_blocks);
	SOFT_COUNT_N(c, code_instructions, ninsns);
	b = &k->blocks[k->nblocks++];
	*b = (struct block){ .phys = phys, .phys2 = phys2, .mode = mode, .nops = (uint16_t)nops,
			     .nbytes = (uint16_t)nbytes, .ops = ops,
			     .hash_next = k->hash[block_hash(phys, mode)] };
	k->hash[block_hash(phys, mode)] = b;
	k->arena_used += nops;
	/* A block that depends on two mappings is not worth a translation. */
	ops[0].disp = phys2 == NO_PAGE ? soft_jit_threshold(c) : 0;
	page_add(k, b, 0, phys & ~0xfffull, off, MIN(off + nbytes - 1, 4095u));
	if (phys2 != NO_PAGE)
		page_add(k, b, 1, phys2, 0, off + nbytes - 1 - 4096);
found:
	/* A block serves every mapping, and so every limit: it is checked here each time. */
	if (!(c->mode & MODE_CS64) && c->rip + b->nbytes - 1 > c->s.seg[SEG_CS].limit)
		return NULL;
	if (c->mode & MODE_CSLIMIT)
		return b->ops;
	soft_mmu_note_jump(c, lin);
	if (b->phys2 != NO_PAGE)
		soft_mmu_note_jump(c, next_lin);
	j = soft_jump_entry(c, c->rip);
	*j = (struct jump_entry){ .rip = c->rip, .key = c->jump_key, .head = b->ops };
	return b->ops;
}

void soft_cache_translate(struct soft_cpu *c)
{
	uint64_t lin = soft_fetch_lin(c, c->rip);
	struct soft_fetch fetch = soft_fetch(c, lin);
	struct block *b;

	if (!fetch.host || !soft_jit_threshold(c))
		return;
	b = block_find(c->cache, fetch.phys | (lin & 0xfff), c->mode & ~MODE_NOT_KEYED);
	if (b && b->phys2 == NO_PAGE && b->ops[0].fn == op_head && soft_vex_room(c->vex))
		soft_jit_translate(c, fetch.host + (lin & 0xfff), b->nbytes, (unsigned)(lin & 0xfff),
				   b->ops);
}
