/*
 * How processors keep each other's decoded code true, and how they lock what the host cannot.
 *
 * Code.  Each processor decodes for itself; `code` says by page of RAM who holds some, and the page
 * has PAGE_CODE as long as anybody does (both change under code_lock).  A write tag of a TLB stands in
 * the place of a look at PAGE_CODE, so the tags of a page must be gone everywhere before what is decoded
 * from it may be kept.  Whoever sets PAGE_CODE takes a *ticket*; each processor drops its tags of all
 * pages with the flag when it sees the number, and publishes how far it has come (c->seen).  Nobody
 * waits for that: until everybody in the guest has come so far, soft_share_code says no, and the
 * asker runs one instruction at a time from bytes that it reads each time.
 *
 * Why no stale code runs.  Say B keeps a block that it decoded from bytes of page P, and A writes there.
 *  - A wrote through a tag, or after a look at flags without PAGE_CODE.  That was before A saw B's
 *    ticket: A looks between blocks only, and tags are filled and used within one.  A published `seen`,
 *    or left the guest, after the write; B read the bytes after it saw that.  B's block has the write.
 *  - Else A saw PAGE_CODE.  A writes the bytes, then reads `code`, then puts the range into the queue
 *    of everybody there and sets their kick, all before its next instruction.  If B's bit was not there
 *    yet, A has not seen B's ticket either, which is the first case.  If it was, then whatever A writes
 *    later, B sees only together with the kick (stores become visible in order, x86-TSO), and every
 *    block of the interpreter begins with a look at it.  Translated code looks after every serializing
 *    instruction (jit_run_one), which is what the guest has to execute, and wherever it jumps
 *    backward or by address.  Until then B runs what it had fetched before, as any processor
 *    may (SDM vol. 3, 8.1.3).
 * A page that everybody is told to forget goes through code_lock, so that PAGE_CODE is not
 * cleared by one while another one has just set it.
 *
 * Devices write, and then look at PAGE_CODE (memory_dma.c), which is set before the bytes are read.
 *
 * Locks.  LOCK within a cache line is the host's own.  What crosses one, or must go through the slow
 * path, runs while no other processor is in the guest (soft_exclusive), to the end of its block.
 */
#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "cpu/soft/cache.h"
#include "cpu/soft/shared.h"
#include "cpu/soft/tlb.h"
#include "vm/virtual.h"
#include "vm/vm.h"

/* So many spins before the host may run somebody else meanwhile. */
#define SPINS 200
/* A waiting loop gives the host's processor away every so many PAUSEs. */
#define PAUSES_A_YIELD 64

struct soft_shared {
	unsigned users;
	pthread_mutex_t code_lock;
	_Atomic uint64_t tickets;
	/* By page of RAM: a bit for each processor that holds code, or watches tables. */
	_Atomic uint64_t *code, *tables;
	size_t bytes;			/* of each of the two */
	pthread_mutex_t alone_lock;	/* held by the one that is alone */
	_Atomic bool alone;		/* it wants the others out of the guest */
};

static _Atomic uint64_t *map_words(size_t bytes)
{
	void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	return p == MAP_FAILED ? NULL : p;
}

static void shared_destroy(struct soft_shared *s)
{
	if (s->code)
		munmap((void *)s->code, s->bytes);
	if (s->tables)
		munmap((void *)s->tables, s->bytes);
	pthread_mutex_destroy(&s->alone_lock);
	pthread_mutex_destroy(&s->code_lock);
	free(s);
}

static struct soft_shared *shared_create(struct vm *vm)
{
	struct soft_shared *s = calloc(1, sizeof *s);

	if (!s)
		return NULL;
	pthread_mutex_init(&s->code_lock, NULL);
	pthread_mutex_init(&s->alone_lock, NULL);
	s->bytes = vm->memory.npages * sizeof *s->code;
	s->code = map_words(s->bytes);
	if (vm->clock.mode == CLOCK_MODE_VIRTUAL)
		s->tables = map_words(s->bytes);
	if (!s->code || (vm->clock.mode == CLOCK_MODE_VIRTUAL && !s->tables)) {
		shared_destroy(s);
		return NULL;
	}
	return s;
}

int soft_shared_join(struct soft_cpu *c, struct skep_error *e)
{
	struct vm *vm = c->vm;

	/* On KVM a soft processor helps out alone: all that it keeps is gone with the instruction. */
	if (vm->ncpus < 2 || vm->kvm)
		return 0;
	if (!vm->soft_shared)
		vm->soft_shared = shared_create(vm);
	if (!vm->soft_shared)
		return skep_fail(e, ENOMEM, "not enough memory for what processors share");
	c->shared = vm->soft_shared;
	c->shared->users++;
	return 0;
}

void soft_shared_leave(struct soft_cpu *c)
{
	if (!c->shared || --c->shared->users)
		return;
	c->vm->soft_shared = NULL;
	shared_destroy(c->shared);
}

static struct soft_cpu *other(const struct soft_cpu *c, unsigned i)
{
	struct vcpu *v = c->vm->vcpus[i];

	return v && v != c->v ? v->backend : NULL;
}

/* ---- In the guest, and out ---------------------------------------------- */

/* The flags of the page of RAM at host. */
static _Atomic uint8_t *flags_at(struct guest_memory *m, const uint8_t *host)
{
	for (unsigned i = 0; i < m->nram; i++) {
		uint64_t at = (uint64_t)(host - m->ram[i].host);

		if (host >= m->ram[i].host && at < m->ram[i].size)
			return &m->page_flags[m->ram[i].first_page + at / GUEST_PAGE_SIZE];
	}
	return NULL;
}

static bool is_protected(struct soft_cpu *c, const uint8_t *host)
{
	const _Atomic uint8_t *flags = flags_at(&c->vm->memory, host);

	return !flags || atomic_load_explicit(flags, memory_order_relaxed) & (PAGE_CODE | PAGE_TABLE);
}

/* Drops the write tags of every page that holds code or watched tables. */
static void drop_protected(struct soft_cpu *c)
{
	uint64_t tickets = atomic_load(&c->shared->tickets);

	soft_tlb_drop_writes_if(c, is_protected);
	atomic_store_explicit(&c->seen, tickets, memory_order_release);
}

static void catch_up(struct soft_cpu *c)
{
	if (atomic_load_explicit(&c->seen, memory_order_relaxed) !=
	    atomic_load(&c->shared->tickets))
		drop_protected(c);
}

void soft_enter_guest(struct soft_cpu *c)
{
	struct soft_shared *s = c->shared;

	if (!s)
		return;
	for (;;) {
		/* Before the looks at alone and tickets: who sets them looks at this afterwards. */
		atomic_store(&c->in_guest, true);
		if (!atomic_load(&s->alone))
			break;
		atomic_store(&c->in_guest, false);
		pthread_mutex_lock(&s->alone_lock);
		pthread_mutex_unlock(&s->alone_lock);
	}
	catch_up(c);
}

static void release_exclusive(struct soft_cpu *c)
{
	c->exclusive = false;
	atomic_store(&c->shared->alone, false);
	pthread_mutex_unlock(&c->shared->alone_lock);
}

void soft_leave_guest(struct soft_cpu *c)
{
	if (!c->shared)
		return;
	if (c->exclusive)
		release_exclusive(c);
	atomic_store_explicit(&c->in_guest, false, memory_order_release);
}

void soft_shared_serve(struct soft_cpu *c)
{
	if (!c->shared)
		return;
	if (c->exclusive)
		release_exclusive(c);
	if (atomic_load(&c->shared->alone)) {
		soft_leave_guest(c);
		soft_enter_guest(c);
	}
	catch_up(c);
}

/* ---- Code --------------------------------------------------------------- */

/* Has everybody who is in the guest seen this processor's last ticket? */
static bool all_seen(struct soft_cpu *c)
{
	if (c->asked == c->answered)
		return true;
	for (unsigned i = 0; i < c->vm->ncpus; i++) {
		struct soft_cpu *o = other(c, i);

		if (o && atomic_load(&o->in_guest) &&
		    atomic_load_explicit(&o->seen, memory_order_acquire) < c->asked)
			return false;
	}
	c->answered = c->asked;
	return true;
}

static void kick_others(struct soft_cpu *c)
{
	for (unsigned i = 0; i < c->vm->ncpus; i++) {
		struct soft_cpu *o = other(c, i);

		if (o && atomic_load(&o->in_guest))
			atomic_store(&o->kick, KICKED);
	}
}

/* Sets this processor's bit and the flag; what it asks for is in c->asked. */
static void share(struct soft_cpu *c, _Atomic uint64_t *holders, _Atomic uint8_t *flags, uint8_t flag)
{
	struct soft_shared *s = c->shared;
	bool first;

	pthread_mutex_lock(&s->code_lock);
	atomic_fetch_or(holders, BIT(c->v->index));
	first = !(atomic_fetch_or(flags, flag) & flag);
	/* Somebody else may have set it, and wait for answers: then we wait for the same. */
	c->asked = first ? atomic_fetch_add(&s->tickets, 1) + 1 : atomic_load(&s->tickets);
	pthread_mutex_unlock(&s->code_lock);
	catch_up(c);
	if (first)
		kick_others(c);
}

static void drop_share(struct soft_cpu *c, _Atomic uint64_t *holders, _Atomic uint8_t *flags,
		    uint8_t flag)
{
	uint64_t mine = BIT(c->v->index);

	if (!(atomic_load(holders) & mine))
		return;
	pthread_mutex_lock(&c->shared->code_lock);
	if (!(atomic_fetch_and(holders, ~mine) & ~mine))
		atomic_fetch_and(flags, (uint8_t)~flag);
	pthread_mutex_unlock(&c->shared->code_lock);
}

static size_t page_of(const struct soft_cpu *c, const _Atomic uint8_t *flags)
{
	return (size_t)(flags - c->vm->memory.page_flags);
}

bool soft_share_code(struct soft_cpu *c, _Atomic uint8_t *flags)
{
	_Atomic uint64_t *holders = &c->shared->code[page_of(c, flags)];

	if (!(atomic_load_explicit(holders, memory_order_relaxed) & BIT(c->v->index)))
		share(c, holders, flags, PAGE_CODE);
	return all_seen(c);
}

void soft_unshare_code(struct soft_cpu *c, _Atomic uint8_t *flags)
{
	drop_share(c, &c->shared->code[page_of(c, flags)], flags, PAGE_CODE);
}

void soft_share_table(struct soft_cpu *c, _Atomic uint8_t *flags)
{
	share(c, &c->shared->tables[page_of(c, flags)], flags, PAGE_TABLE);
}

void soft_unshare_table(struct soft_cpu *c, _Atomic uint8_t *flags)
{
	drop_share(c, &c->shared->tables[page_of(c, flags)], flags, PAGE_TABLE);
}

void soft_ram_written(struct soft_cpu *c, uint64_t phys, uint64_t len)
{
	struct mem_page page;
	uint64_t holders;
	size_t n;

	soft_code_written(c, phys, len);
	if (!c->shared)
		return;
	page = memory_page(&c->vm->memory, phys);
	if (!page.flags)
		return;
	n = page_of(c, page.flags);
	holders = atomic_load(&c->shared->code[n]);
	if (c->shared->tables)
		holders |= atomic_load(&c->shared->tables[n]);
	holders &= ~BIT(c->v->index);
	while (holders) {
		struct vcpu *v = c->vm->vcpus[__builtin_ctzll(holders)];

		holders &= holders - 1;
		v->ops->invalidate_code(v, phys, len);
	}
}

/* ---- Locks -------------------------------------------------------------- */

void soft_exclusive(struct soft_cpu *c, const struct soft_op *op, uint64_t lin, unsigned size)
{
	struct soft_shared *s = c->shared;

	/* With the virtual clock nobody else is in the guest anyhow. */
	if (!s || c->vm->clock.mode == CLOCK_MODE_VIRTUAL)
		return;
	if (!c->exclusive) {
		soft_leave_guest(c);
		pthread_mutex_lock(&s->alone_lock);
		atomic_store(&s->alone, true);
		kick_others(c);
		for (unsigned i = 0; i < c->vm->ncpus; i++) {
			struct soft_cpu *o = other(c, i);

			for (unsigned n = 0; o && atomic_load(&o->in_guest); n++) {
				if (n < SPINS)
					__builtin_ia32_pause();
				else
					sched_yield();
			}
		}
		atomic_store(&c->in_guest, true);
		c->exclusive = true;
		catch_up(c);
		/* The run loop ends it before the next block (soft_shared_serve). */
		atomic_store(&c->kick, KICKED);
	}
	/* The tables may have changed while we waited. */
	soft_check_write(c, op, lin, size);
}

/*
 * Who takes turns and waits for another one gives up some of its turn.  The end of a turn is an
 * instruction count like any other event, so the budget is cut to what is left, right here.
 */
static const struct soft_op *pause_turn(struct soft_cpu *c, const struct soft_op *op)
{
	int64_t *budget = c->alone ? &c->step_rest : &c->budget, cut;

	c->budget += op->left;
	c->rip = soft_next_rip(c, op);
	soft_sync_clock(c, NULL);
	turn_shorten(c->vm, TURN_PAUSE);
	cut = *budget - (int64_t)turn_left(c->vm);
	if (cut > 0) {
		*budget -= cut;
		if (!c->alone)
			c->budget_given -= (uint64_t)cut;
	}
	return NULL;
}

const struct soft_op *soft_pause(struct soft_cpu *c, const struct soft_op *op)
{
	if (c->vm->clock.mode == CLOCK_MODE_VIRTUAL)
		return pause_turn(c, op);
	/* Who holds what this loop waits for may have no processor of the host. */
	if (++c->pauses % PAUSES_A_YIELD == 0)
		sched_yield();
	return op + 1;
}
