/*
 * The tables that translations were made from.
 *
 * A processor may go on with a translation after its entry has changed, until
 * INVLPG and the like drop it (SDM vol. 3, 4.10.2).  With the virtual clock that must
 * not depend on what the TLBs happen to hold, which after a restore is nothing:
 * here they never hold what the tables do not say.  Pages with paging structures
 * are watched as pages with code are, and a write to a present entry drops what was
 * made from it.  The bits that the processor sets itself need nothing: they were
 * clear, and so nothing is there that has them set.
 *
 * What the watch costs is little: the entries that are written most were not
 * present before.
 */
#include <stdlib.h>

#include "cpu/soft/cache.h"
#include "cpu/soft/exec.h"
#include "cpu/soft/shared.h"
#include "cpu/soft/tlb.h"
#include "vm/vm.h"

#define WAYS	8
#define ROWS	128
#define NO_TABLE UINT64_MAX
/* So many writes with no walk in between: it is a table no more, or is being filled. */
#define WRITES_MAX 256
/* A table that was found at so many addresses has several at once. */
#define MOVES_MAX 4

struct table {
	uint64_t phys;		/* NO_TABLE: free */
	uint64_t lin;		/* of what its first entry translates */
	uint64_t used;		/* walk that came by last */
	uint16_t writes;	/* since then */
	uint8_t shift;		/* an entry covers 1 << shift bytes */
	uint8_t entry_bits;	/* an entry has 1 << entry_bits bytes */
	uint8_t moves;
};

struct soft_tables {
	struct table at[ROWS][WAYS];
	uint64_t walks;
};

struct soft_tables *soft_tables_create(void)
{
	struct soft_tables *t = calloc(1, sizeof *t);

	for (unsigned i = 0; t && i < ROWS * WAYS; i++)
		t->at[i / WAYS][i % WAYS].phys = NO_TABLE;
	return t;
}

static struct table *row_of(struct soft_tables *t, uint64_t phys)
{
	return t->at[(phys >> 12 ^ phys >> 19) % ROWS];
}

static struct table *find(struct soft_tables *t, uint64_t phys)
{
	struct table *row = row_of(t, phys);

	for (unsigned i = 0; i < WAYS; i++)
		if (row[i].phys == phys)
			return &row[i];
	return NULL;
}

static _Atomic uint8_t *flags_of(struct soft_cpu *c, uint64_t phys)
{
	return memory_page(&c->vm->memory, phys).flags;
}

/* Everything that was made from a table goes. */
static void drop_all(struct soft_cpu *c, const struct table *t)
{
	unsigned bits = t->shift + 12 - t->entry_bits;

	soft_tlb_drop_range(c, t->lin, t->moves < MOVES_MAX ? bits : 64);
}

static void forget(struct soft_cpu *c, struct table *t)
{
	_Atomic uint8_t *flags = flags_of(c, t->phys);

	drop_all(c, t);
	if (flags && c->shared)
		soft_unshare_table(c, flags);
	else if (flags)
		atomic_fetch_and(flags, (uint8_t)~PAGE_TABLE);
	t->phys = NO_TABLE;
}

/* Takes the place that was not used for longest: not one of this walk, which has four tables. */
static struct table *claim(struct soft_cpu *c, uint64_t phys)
{
	struct table *row = row_of(c->mmu->tables, phys), *t = row;

	for (unsigned i = 0; i < WAYS; i++) {
		if (row[i].phys == NO_TABLE) {
			t = &row[i];
			break;
		}
		if (row[i].used < t->used)
			t = &row[i];
	}
	if (t->phys != NO_TABLE)
		forget(c, t);
	return t;
}

void soft_tables_walk(struct soft_cpu *c)
{
	if (c->mmu->tables)
		c->mmu->tables->walks++;
}

void soft_table_used(struct soft_cpu *c, uint64_t phys, uint64_t lin, unsigned shift,
		     unsigned entry_bits)
{
	struct soft_tables *all = c->mmu->tables;
	unsigned bits = shift + 12 - entry_bits;
	_Atomic uint8_t *flags;
	struct table *t;

	if (!all)
		return;
	phys &= ~0xfffull;
	/* The top level has both halves. */
	lin = bits >= 48 ? 0 : lin & ~(BIT(bits) - 1);
	t = find(all, phys);
	if (likely(t && ((t->lin == lin && t->shift == shift && t->entry_bits == entry_bits) ||
			 t->moves == MOVES_MAX))) {
		t->used = all->walks;
		t->writes = 0;
		return;
	}
	if (t) {
		/* Another place in the tables now; or several, if it comes back. */
		drop_all(c, t);
		if (t->used == all->walks)
			t->moves = MOVES_MAX;
		else if (t->moves < MOVES_MAX)
			t->moves++;
		t->lin = lin;
		t->shift = (uint8_t)shift;
		t->entry_bits = (uint8_t)entry_bits;
		t->used = all->walks;
		t->writes = 0;
		return;
	}
	flags = flags_of(c, phys);
	if (!flags)
		return;		/* not RAM: nobody writes it */
	t = claim(c, phys);
	*t = (struct table){ .phys = phys, .lin = lin, .used = all->walks, .shift = (uint8_t)shift,
			     .entry_bits = (uint8_t)entry_bits };
	if (c->shared) {
		soft_share_table(c, flags);
		return;
	}
	atomic_fetch_or(flags, PAGE_TABLE);
	soft_tlb_drop_writes(c, phys);
}

/* What entry n covers. */
static uint64_t entry_lin(const struct table *t, unsigned n)
{
	uint64_t lin = t->lin + ((uint64_t)n << t->shift);

	if (t->shift + 12u - t->entry_bits >= 48)
		lin = (uint64_t)((int64_t)(lin << 16) >> 16);
	return lin;
}

static uint64_t entry(const struct table *t, const uint8_t *page, unsigned n)
{
	return t->entry_bits == 3 ? load64(page + n * 8) : load32(page + n * 4);
}

static void drop_entry(struct soft_cpu *c, const struct table *t, unsigned n, uint64_t e)
{
	if (t->moves == MOVES_MAX)
		soft_tlb_flush(c, true);
	else if (t->shift > 12)
		soft_tlb_drop_range(c, entry_lin(t, n), t->shift);
	else
		soft_tlb_drop_page(c, entry_lin(t, n), !(e & BIT(63) && t->entry_bits == 3));
}

void soft_table_write(struct soft_cpu *c, const struct soft_op *op, uint64_t phys,
		      const uint8_t *host, unsigned len)
{
	struct table *t = c->mmu->tables ? find(c->mmu->tables, phys & ~0xfffull) : NULL;
	unsigned from = phys & 0xfff, first, last;
	uint64_t code = soft_fetch_lin(c, c->r[SLOT_IPBASE]);

	if (!t)
		return;
	first = from >> t->entry_bits;
	last = (from + len - 1) >> t->entry_bits;
	host -= from;
	/* The block that is running must not go on, nor lead on, in a page that is no longer there. */
	for (unsigned n = first; n <= last; n++)
		if (op && (op->left || op->fn == op_call) && !c->alone && entry(t, host, n) & 1 &&
		    (t->moves == MOVES_MAX || (entry_lin(t, n) ^ code) >> t->shift == 0))
			soft_restart_alone(c, op);
	if (++t->writes >= WRITES_MAX) {
		forget(c, t);
		return;
	}
	for (unsigned n = first; n <= last; n++)
		if (entry(t, host, n) & 1)
			drop_entry(c, t, n, entry(t, host, n));
}

void soft_tables_written(struct soft_cpu *c, uint64_t phys, uint64_t len)
{
	struct soft_tables *all = c->mmu->tables;

	for (unsigned i = 0; all && i < ROWS * WAYS; i++) {
		struct table *t = &all->at[i / WAYS][i % WAYS];

		if (t->phys != NO_TABLE && t->phys < phys + len && phys < t->phys + 4096)
			forget(c, t);
	}
}
