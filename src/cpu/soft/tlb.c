/*
 * TLB upkeep: what drops translations.  SDM vol. 3, 4.10.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "cpu/soft/shared.h"
#include "cpu/soft/tlb.h"
#include "vm/vm.h"

/* ---- Filling ------------------------------------------------------------ */

static unsigned mega_bit(uint64_t lin)
{
	uint64_t n = lin >> 21;

	return (unsigned)(n ^ n >> 10 ^ n >> 18) & 1023;
}

static unsigned giga_bit(uint64_t lin)
{
	uint64_t n = lin >> 30;

	return (unsigned)(n ^ n >> 6 ^ n >> 12) & 63;
}

static void note_large(struct tlb_set *s, uint64_t lin, const struct walk *w)
{
	unsigned n = mega_bit(lin), twin = mega_bit(lin ^ BIT(21)), half = lin >> 63;
	struct tlb_large *l = &s->large[w->global];

	if (w->shift == 30)
		l->giga[half] |= BIT(giga_bit(lin));
	else
		l->mega[half][n / 64] |= BIT(n % 64);
	if (w->shift == 22)	/* INVLPG may name the other half of the page */
		l->mega[half][twin / 64] |= BIT(twin % 64);
}

static unsigned hint_slot(uintptr_t host)
{
	return (unsigned)(host >> 12 ^ host >> 24) & (WRITE_HINTS - 1);
}

static bool has_write_tag(const struct tlb_entry *t, unsigned n)
{
	return ((t->wtag >> 12) & (TLB_SIZE - 1)) == n;
}

/* Entry at, counted over sets and contexts. */
static struct tlb_entry *entry_at(struct soft_mmu *m, unsigned at)
{
	unsigned x = at / TLB_SIZE;

	return &m->set[x / TLB_CONTEXTS].data[x % TLB_CONTEXTS].at[at % TLB_SIZE];
}

/* Entry at has a write tag for this host page now. */
static void note_write(struct soft_mmu *m, uintptr_t host, unsigned at)
{
	unsigned slot = hint_slot(host);
	uint32_t *hint = &m->write_hint[slot];

	if (*hint != HINT_NOWHERE && *hint != HINT_ANYWHERE && *hint != at + 1) {
		unsigned old = *hint - 1u;
		const struct tlb_entry *t = entry_at(m, old);

		if (has_write_tag(t, old % TLB_SIZE) && hint_slot(t->page) == slot) {
			*hint = HINT_ANYWHERE;
			return;
		}
	}
	if (*hint != HINT_ANYWHERE)
		*hint = at + 1;
}

static bool is_global(const struct tlb_context *t, unsigned n)
{
	return t->filled[1][n / 64] >> n % 64 & 1;
}

static bool has_read_tag(const struct tlb_entry *t, unsigned n)
{
	return ((t->rtag >> 12) & (TLB_SIZE - 1)) == n;
}

/* What stands in entry n goes among the victims. */
static void make_victim(struct tlb_context *t, unsigned n)
{
	if (!has_read_tag(&t->at[n], n))
		return;
	t->victim[t->next_victim].entry = t->at[n];
	t->victim[t->next_victim].global = is_global(t, n);
	t->next_victim = (t->next_victim + 1) % TLB_VICTIMS;
	t->victims = MIN(t->victims + 1, TLB_VICTIMS);
}

static struct tlb_entry *entry_put(struct soft_mmu *m, unsigned context, unsigned n,
				   struct tlb_entry e, bool global)
{
	struct tlb_context *t = &m->cur->data[context];

	t->at[n] = e;
	t->filled[global][n / 64] |= BIT(n % 64);
	t->filled[!global][n / 64] &= ~BIT(n % 64);
	t->any[global] = true;
	if (e.wtag == e.rtag)
		note_write(m, e.page,
			   ((unsigned)(m->cur - m->set) * TLB_CONTEXTS + context) * TLB_SIZE + n);
	return &t->at[n];
}

void soft_tlb_fill(struct soft_mmu *m, unsigned context, uint64_t lin, uint8_t *host,
		   const struct walk *w, bool writable)
{
	struct tlb_context *t = &m->cur->data[context];
	unsigned n = (lin >> 12) & (TLB_SIZE - 1);
	uint64_t tag = lin & ~0xfffull;
	struct tlb_entry e = {
		.rtag = tag, .wtag = writable ? tag : TLB_INVALID(tag),
		.addend = (uintptr_t)host - tag, .page = (uintptr_t)host,
	};

	if (t->at[n].rtag != tag)
		make_victim(t, n);
	entry_put(m, context, n, e, w->global);
	if (unlikely(w->shift > 12))
		note_large(m->cur, lin, w);
}

static struct tlb_entry *find_victim(struct soft_cpu *c, unsigned context, uint64_t tag, bool write)
{
	struct tlb_context *t = &c->mmu->cur->data[context];
	unsigned n = (tag >> 12) & (TLB_SIZE - 1);

	for (unsigned i = 0; i < t->victims; i++) {
		struct tlb_entry e = t->victim[i].entry, *now = &t->at[n];
		bool global = t->victim[i].global;

		if (e.rtag != tag || (write && e.wtag != tag))
			continue;
		/* They change places; where there is nothing to go, two of a kind are one. */
		if (now->rtag != tag && has_read_tag(now, n)) {
			t->victim[i].entry = *now;
			t->victim[i].global = is_global(t, n);
		}
		SOFT_COUNT(c, tlb_victims);
		return entry_put(c->mmu, context, n, e, global);
	}
	return NULL;
}

struct tlb_entry *soft_tlb_find(struct soft_cpu *c, unsigned context, uint64_t lin, bool write)
{
	static const uint8_t lesser[] = { TLB_KERNEL, TLB_USER };
	unsigned n = (lin >> 12) & (TLB_SIZE - 1);
	uint64_t tag = lin & ~0xfffull;
	struct tlb_entry *found = find_victim(c, context, tag, write);

	/* With AC the supervisor may do what it may without, and what the user may. */
	for (unsigned i = 0; !found && context == TLB_KERNEL_AC && i < ARRAY_SIZE(lesser); i++) {
		const struct tlb_context *t = &c->mmu->cur->data[lesser[i]];

		if ((write ? t->at[n].wtag : t->at[n].rtag) != tag)
			continue;
		SOFT_COUNT(c, tlb_shared);
		make_victim(&c->mmu->cur->data[context], n);
		found = entry_put(c->mmu, context, n, t->at[n], is_global(t, n));
	}
	return found;
}

struct code_tlb_entry *soft_tlb_fill_code(struct soft_cpu *c, uint64_t tag, const struct walk *w,
					  const uint8_t *host)
{
	struct tlb_set *s = c->mmu->cur;
	unsigned n = (tag >> 12) & (CODE_TLB_SIZE - 1);

	s->code[n] = (struct code_tlb_entry){ .tag = tag, .phys = w->phys, .host = host };
	s->code_filled[w->global][n / 64] |= BIT(n % 64);
	s->code_filled[!w->global][n / 64] &= ~BIT(n % 64);
	if (w->shift > 12)
		note_large(s, tag, w);
	if (unlikely(!(tag & 1) && !w->global && !c->mmu->kernel_local)) {
		c->mmu->kernel_local = true;
		soft_mmu_select(c);
	}
	return &s->code[n];
}

/* ---- Dropping ----------------------------------------------------------- */

/* Translations of code have gone from this set; from all, with everything that was global. */
static void new_epoch(struct soft_mmu *m, struct tlb_set *s)
{
	s->epoch = ++m->epochs;
}

static void new_epochs(struct soft_mmu *m)
{
	for (unsigned i = 0; i < MMU_SETS; i++)
		new_epoch(m, &m->set[i]);
	m->kernel_epoch = ++m->epochs;
	memset(m->jump_pages, 0, sizeof m->jump_pages);
}

static void entry_clear(struct tlb_entry *t, unsigned n)
{
	t->rtag = t->wtag = TLB_INVALID((uint64_t)n << 12);
}

static void context_clear(struct tlb_context *t, bool global)
{
	t->victims = t->next_victim = 0;
	if (!t->any[global])
		return;
	t->any[global] = false;
	for (unsigned i = 0; i < TLB_WORDS(TLB_SIZE); i++) {
		for (uint64_t w = t->filled[global][i]; w; w &= w - 1) {
			unsigned n = i * 64 + (unsigned)__builtin_ctzll(w);

			entry_clear(&t->at[n], n);
		}
		t->filled[global][i] = 0;
	}
}

static void code_clear(struct tlb_set *s, bool global)
{
	for (unsigned i = 0; i < TLB_WORDS(CODE_TLB_SIZE); i++) {
		for (uint64_t w = s->code_filled[global][i]; w; w &= w - 1)
			s->code[i * 64 + (unsigned)__builtin_ctzll(w)].tag = CODE_INVALID;
		s->code_filled[global][i] = 0;
	}
}

static void set_clear(struct soft_mmu *m, struct tlb_set *s, bool global_too)
{
	for (unsigned global = 0; global < 1u + global_too; global++) {
		for (unsigned x = 0; x < TLB_CONTEXTS; x++)
			context_clear(&s->data[x], global);
		code_clear(s, global);
		memset(&s->large[global], 0, sizeof s->large[global]);
	}
	new_epoch(m, s);
}

/* What translates [lin, lin + 2^bits) of the entries that a map names; bits is 12 or more. */
struct range {
	uint64_t lin;
	unsigned bits;
	unsigned first, last;	/* words of the map */
	uint64_t mask;		/* of each of them */
};

/* Neighbouring pages have neighbouring entries. */
static struct range range_of(uint64_t lin, unsigned bits, unsigned entries)
{
	struct range r = { .lin = lin, .bits = bits, .last = entries / 64 - 1, .mask = ~0ull };
	unsigned n = (lin >> 12) & (entries - 1) & ~(unsigned)(BIT(MIN(bits, 43u) - 12) - 1);

	if (BIT(bits - 12) >= entries)
		return r;
	r.first = n / 64;
	if (bits < 18) {
		r.last = r.first;
		r.mask = (BIT(BIT(bits - 12)) - 1) << n % 64;
	} else {
		r.last = r.first + (unsigned)BIT(bits - 18) - 1;
	}
	return r;
}

static bool in_range(const struct range *r, uint64_t tag)
{
	return (tag ^ r->lin) >> r->bits == 0;
}

static void context_clear_range(struct tlb_context *t, bool global, const struct range *r)
{
	t->victims = t->next_victim = 0;
	for (unsigned i = r->first; t->any[global] && i <= r->last; i++)
		for (uint64_t w = t->filled[global][i] & r->mask; w; w &= w - 1) {
			unsigned n = i * 64 + (unsigned)__builtin_ctzll(w);

			if (in_range(r, t->at[n].rtag)) {
				entry_clear(&t->at[n], n);
				t->filled[global][i] &= ~(w & -w);
			}
		}
}

static void code_clear_range(struct tlb_set *s, bool global, const struct range *r)
{
	for (unsigned i = r->first; i <= r->last; i++)
		for (uint64_t w = s->code_filled[global][i] & r->mask; w; w &= w - 1) {
			unsigned n = i * 64 + (unsigned)__builtin_ctzll(w);

			if (in_range(r, s->code[n].tag)) {
				s->code[n].tag = CODE_INVALID;
				s->code_filled[global][i] &= ~(w & -w);
			}
		}
}

static void set_clear_range(struct soft_mmu *m, struct tlb_set *s, uint64_t lin, unsigned bits)
{
	struct range data = range_of(lin, bits, TLB_SIZE);
	struct range code = range_of(lin, bits, CODE_TLB_SIZE);

	for (unsigned global = 0; global < 2; global++) {
		for (unsigned x = 0; x < TLB_CONTEXTS; x++)
			context_clear_range(&s->data[x], global, &data);
		code_clear_range(s, global, &code);
	}
	new_epoch(m, s);
	m->kernel_epoch = ++m->epochs;
}

/* ---- Making and choosing ------------------------------------------------ */

struct soft_mmu *soft_mmu_create(bool exact)
{
	/* Much of it is never touched: pages of zeroes are entries that match nothing, but for two. */
	struct soft_mmu *m = mmap(NULL, sizeof *m, PROT_READ | PROT_WRITE,
				  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (m == MAP_FAILED)
		return NULL;
	m->tables = exact ? soft_tables_create() : NULL;
	if (exact && !m->tables) {
		soft_mmu_destroy(m);
		return NULL;
	}
	for (unsigned i = 0; i < MMU_SETS; i++) {
		for (unsigned x = 0; x < TLB_CONTEXTS; x++)
			entry_clear(&m->set[i].data[x].at[0], 0);
		m->set[i].code[0].tag = CODE_INVALID;
	}
	new_epochs(m);
	/* In another address space, the tables must say so. */
	m->kernel_local = exact;
	m->cur = &m->set[0];
	m->cur->used = true;
	return m;
}

void soft_mmu_destroy(struct soft_mmu *m)
{
	if (!m)
		return;
	free(m->tables);
	munmap(m, sizeof *m);
}

unsigned soft_mmu_context(const struct soft_cpu *c)
{
	return c->mode & MODE_USER ? TLB_USER : c->mode & MODE_AC ? TLB_KERNEL_AC : TLB_KERNEL;
}

void soft_mmu_select(struct soft_cpu *c)
{
	struct soft_mmu *m = c->mmu;
	uint64_t epoch = c->mode & MODE_USER || m->kernel_local ? m->cur->epoch : m->kernel_epoch;

	c->tlb = m->cur->data[soft_mmu_context(c)].at;
	/* Fetches do not look at AC. */
	c->jump_key = epoch << 16 | (c->mode & ~(uint32_t)MODE_AC);
}

static unsigned jump_page(uint64_t lin)
{
	uint64_t page = lin >> 12;

	return (unsigned)(page ^ page >> 12 ^ page >> 24) & 4095;
}

void soft_mmu_note_jump(struct soft_cpu *c, uint64_t lin)
{
	unsigned n = jump_page(lin);

	c->mmu->jump_pages[lin >> 63][n / 64] |= BIT(n % 64);
}

/*
 * No jump entry is good any more.  The block that runs may still lead to others of its page,
 * without a look-up, and those be entered into translated code's cache.
 */
static void drop_all_jumps(struct soft_cpu *c)
{
	new_epochs(c->mmu);
	soft_mmu_note_jump(c, soft_fetch_lin(c, c->r[SLOT_IPBASE]));
}

/* ---- What the processor asks for ---------------------------------------- */

void soft_tlb_flush(struct soft_cpu *c, bool global_too)
{
	if (global_too)
		SOFT_COUNT(c, tlb_flushes_all);
	else
		SOFT_COUNT(c, tlb_flushes);
	if (global_too) {
		for (unsigned i = 0; i < MMU_SETS; i++)
			set_clear(c->mmu, &c->mmu->set[i], true);
		drop_all_jumps(c);
		c->mmu->kernel_local = c->mmu->tables;
	} else {
		set_clear(c->mmu, c->mmu->cur, false);
	}
	soft_mmu_select(c);
}

static void set_clear_4k(struct tlb_set *s, uint64_t lin)
{
	uint64_t page = lin & ~0xfffull;

	for (unsigned x = 0; x < TLB_CONTEXTS; x++) {
		unsigned n = (lin >> 12) & (TLB_SIZE - 1);
		struct tlb_context *t = &s->data[x];

		if (t->at[n].rtag == page)
			entry_clear(&t->at[n], n);
		for (unsigned i = 0; i < t->victims; i++)
			if (t->victim[i].entry.rtag == page)
				t->victims = t->next_victim = 0;
	}
	s->code[(lin >> 12) & (CODE_TLB_SIZE - 1)].tag = CODE_INVALID;
}

static bool may_be_large(const struct tlb_set *s, uint64_t lin, unsigned *bits)
{
	const struct tlb_large *local = &s->large[0], *global = &s->large[1];
	unsigned n = mega_bit(lin), half = lin >> 63;

	*bits = 30;
	if ((local->giga[half] | global->giga[half]) & BIT(giga_bit(lin)))
		return true;
	*bits = 22;
	return (local->mega[half][n / 64] | global->mega[half][n / 64]) & BIT(n % 64);
}

/*
 * SDM vol. 3, 4.10.4.1: INVLPG drops a large page whole, and here it stands in
 * pieces of 4 KiB.  Its size is not known any more: all that it could cover goes.
 */
static void set_clear_page(struct soft_cpu *c, struct tlb_set *s, uint64_t lin)
{
	unsigned bits;

	if (likely(!may_be_large(s, lin, &bits))) {
		set_clear_4k(s, lin);
		return;
	}
	SOFT_COUNT(c, tlb_ranges);
	set_clear_range(c->mmu, s, lin, bits);
}

/*
 * Jump entries of a page, translated code's too: all are dropped if there may be one, for few
 * pages that go have code.
 */
static void drop_jumps(struct soft_cpu *c, uint64_t lin)
{
	unsigned n = jump_page(lin);

	if (!(c->mmu->jump_pages[lin >> 63][n / 64] & BIT(n % 64)))
		return;
	SOFT_COUNT(c, tlb_jumps);
	drop_all_jumps(c);
}

void soft_tlb_drop_range(struct soft_cpu *c, uint64_t lin, unsigned bits)
{
	if (bits >= 48) {
		soft_tlb_flush(c, true);
		return;
	}
	for (unsigned i = 0; i < MMU_SETS; i++)
		set_clear_range(c->mmu, &c->mmu->set[i], lin, bits);
	soft_mmu_select(c);
}

void soft_tlb_drop_page(struct soft_cpu *c, uint64_t lin, bool code)
{
	for (unsigned i = 0; i < MMU_SETS; i++)
		set_clear_4k(&c->mmu->set[i], lin);
	if (code)
		drop_jumps(c, lin);
	soft_mmu_select(c);
}

void soft_tlb_flush_page(struct soft_cpu *c, uint64_t lin)
{
	SOFT_COUNT(c, tlb_pages);
	/* A global translation may stand in every set. */
	for (unsigned i = 0; i < MMU_SETS; i++)
		set_clear_page(c, &c->mmu->set[i], lin);
	drop_jumps(c, lin);
	soft_mmu_select(c);	/* the epoch may be another */
}

void soft_tlb_invpcid(struct soft_cpu *c, unsigned type, uint16_t pcid, uint64_t lin)
{
	for (unsigned i = 0; i < MMU_SETS; i++) {
		struct tlb_set *s = &c->mmu->set[i];

		switch (type) {
		case 0:		/* one address in one PCID */
			if (s->used && s->pcid == pcid) {
				set_clear_page(c, s, lin);
				drop_jumps(c, lin);
			}
			break;
		case 1:		/* one PCID, globals stay */
			if (s->used && s->pcid == pcid)
				set_clear(c->mmu, s, false);
			break;
		case 2:		/* all, globals too */
			set_clear(c->mmu, s, true);
			break;
		default:	/* all, globals stay */
			set_clear(c->mmu, s, false);
			break;
		}
	}
	if (type == 2)
		drop_all_jumps(c);
	soft_mmu_select(c);
}

void soft_tlb_set_cr3(struct soft_cpu *c, uint64_t cr3, bool keep)
{
	struct soft_mmu *m = c->mmu;
	bool pcide = c->s.cr4 & CR4_PCIDE;
	uint16_t pcid = pcide ? cr3 & 0xfff : 0;
	uint64_t root = cr3 & ~0xfffull;
	struct tlb_set *victim = NULL;

	/* What is dropped here by the way is not asked for: kernel_epoch stays. */
	SOFT_COUNT(c, tlb_switches);
	c->s.cr3 = cr3;
	for (unsigned i = 0; i < MMU_SETS; i++) {
		struct tlb_set *s = &m->set[i];

		if (s->used && s->pcid == pcid) {
			/*
			 * Global translations stay; but where it must not show, only those
			 * that a walk of the new tables would give.  (With PAE paging CR3 itself
			 * does not tell whether they are others.)
			 */
			bool other = m->tables && (s->root != root || (c->s.cr4 & CR4_PAE &&
								       !(c->s.efer & EFER_LMA)));

			m->cur = s;
			s->last_use = ++m->uses;
			s->root = root;
			if (!keep || other)
				SOFT_COUNT(c, tlb_flushes);
			if (!keep || other)
				set_clear(m, s, other);
			soft_mmu_select(c);
			return;
		}
		if (!victim || s->last_use < victim->last_use)
			victim = s;
	}
	set_clear(m, victim, true);
	victim->used = true;
	victim->pcid = pcid;
	victim->root = root;
	victim->last_use = ++m->uses;
	m->cur = victim;
	soft_mmu_select(c);
}

static void victims_drop_write(struct tlb_context *t, uintptr_t page)
{
	for (unsigned i = 0; i < t->victims; i++)
		if (t->victim[i].entry.page == page)
			t->victim[i].entry.wtag = TLB_INVALID(t->victim[i].entry.rtag);
}

/* Takes the write tags of a host page from a context, and notes who else has some in its slot. */
static void context_drop_writes(struct soft_mmu *m, unsigned x, uintptr_t page)
{
	struct tlb_context *t = &m->set[x / TLB_CONTEXTS].data[x % TLB_CONTEXTS];

	for (unsigned i = 0; i < TLB_WORDS(TLB_SIZE); i++)
		for (uint64_t w = t->filled[0][i] | t->filled[1][i]; w; w &= w - 1) {
			unsigned n = i * 64 + (unsigned)__builtin_ctzll(w);
			struct tlb_entry *e = &t->at[n];

			if (!has_write_tag(e, n) || hint_slot(e->page) != hint_slot(page))
				continue;
			if (e->page == page)
				e->wtag = TLB_INVALID(e->wtag);
			else
				note_write(m, e->page, x * TLB_SIZE + n);
		}
}

static void context_drop_writes_if(struct soft_cpu *c, struct tlb_context *t,
				   bool (*drop)(struct soft_cpu *c, const uint8_t *host))
{
	for (unsigned i = 0; i < TLB_WORDS(TLB_SIZE); i++)
		for (uint64_t w = t->filled[0][i] | t->filled[1][i]; w; w &= w - 1) {
			unsigned n = i * 64 + (unsigned)__builtin_ctzll(w);
			struct tlb_entry *e = &t->at[n];

			if (has_write_tag(e, n) && drop(c, (const uint8_t *)e->page))
				e->wtag = TLB_INVALID(e->wtag);
		}
	for (unsigned i = 0; i < t->victims; i++) {
		struct tlb_entry *e = &t->victim[i].entry;

		if (e->wtag == e->rtag && drop(c, (const uint8_t *)e->page))
			e->wtag = TLB_INVALID(e->rtag);
	}
}

void soft_tlb_drop_writes_if(struct soft_cpu *c, bool (*drop)(struct soft_cpu *c, const uint8_t *host))
{
	for (unsigned i = 0; i < MMU_SETS; i++)
		for (unsigned x = 0; x < TLB_CONTEXTS; x++)
			if (c->mmu->set[i].used)
				context_drop_writes_if(c, &c->mmu->set[i].data[x], drop);
}

void soft_tlb_drop_writes(struct soft_cpu *c, uint64_t phys_page)
{
	struct soft_mmu *m = c->mmu;
	uintptr_t page = (uintptr_t)memory_page(&c->vm->memory, phys_page).write;
	uint32_t *hint = &m->write_hint[hint_slot(page)];

	SOFT_COUNT(c, tlb_write_tags);
	if (!page || *hint == HINT_NOWHERE)
		return;
	for (unsigned x = 0; x < MMU_SETS * TLB_CONTEXTS; x++)
		victims_drop_write(&m->set[x / TLB_CONTEXTS].data[x % TLB_CONTEXTS], page);
	if (*hint != HINT_ANYWHERE) {
		struct tlb_entry *e = entry_at(m, *hint - 1u);

		if (has_write_tag(e, (*hint - 1u) % TLB_SIZE) && e->page == page) {
			e->wtag = TLB_INVALID(e->wtag);
			*hint = HINT_NOWHERE;
		}
		return;
	}
	*hint = HINT_NOWHERE;
	for (unsigned x = 0; x < MMU_SETS * TLB_CONTEXTS; x++) {
		struct tlb_context *t = &m->set[x / TLB_CONTEXTS].data[x % TLB_CONTEXTS];

		if (t->any[0] || t->any[1])
			context_drop_writes(m, x, page);
	}
}

bool soft_mmu_protect_code(struct soft_cpu *c, uint64_t phys_page)
{
	struct mem_page page = memory_page(&c->vm->memory, phys_page);

	if (!page.flags)
		return true;		/* nobody writes it */
	if (c->shared)
		return soft_share_code(c, page.flags);
	if (!(atomic_load_explicit(page.flags, memory_order_relaxed) & PAGE_CODE)) {
		atomic_fetch_or(page.flags, PAGE_CODE);
		soft_tlb_drop_writes(c, phys_page);
	}
	return true;
}
