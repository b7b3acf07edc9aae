/*
 * From "they differ after this step" to the smallest piece of the run that makes them differ.
 *
 * Machine B may run whole blocks where a stop in the middle makes it run instructions by themselves,
 * so a piece cannot be looked at one instruction at a time.  What is looked for is the first count N
 * at which they differ when nothing stops them on the way, and then the last count M at which B can
 * be stopped before, so that [M, N) still makes the difference when it is run in one go.
 *
 * Each try starts both machines at the checkpoint, with nothing in their caches.  Where that does
 * not show the difference, what the caches had learnt before is part of it: the tries then run the
 * whole way from power-on, with the same stops.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "lockstep.h"

#define PIECE_SHOWN 64	/* instructions of the piece that are printed */

enum from { FROM_CHECKPOINT, FROM_CHECKPOINT_WITH_STOPS, FROM_START };

struct search {
	const struct options *o;
	const struct checkpoint *c;
	enum from from;
	unsigned tries;
};

static void walk_to(const struct search *s, struct pair *p, uint64_t from, uint64_t to)
{
	for (uint64_t at = walk_next(s->o, from); at < to; at = walk_next(s->o, at)) {
		pair_run(p, at);
		if (at <= s->c->at && walk_full(s->o, at)) {
			memory_clear_dirty(&p->a->vm->memory);
			memory_clear_dirty(&p->b->vm->memory);
		}
	}
}

/* Both at the checkpoint. */
static struct pair set_out(const struct search *s)
{
	struct pair p;

	if (s->from != FROM_START && s->c->at)
		return pair_restore(s->o, s->c);
	p = pair_create(s->o, false);
	if (s->from == FROM_START && s->c->at) {
		walk_to(s, &p, 0, s->c->at);
		pair_run(&p, s->c->at);
		memory_clear_dirty(&p.a->vm->memory);
		memory_clear_dirty(&p.b->vm->memory);
	}
	return p;
}

/* Both at n; B was stopped at m on its way, if m is not 0. */
static struct pair go(struct search *s, uint64_t m, uint64_t n)
{
	struct pair p = set_out(s);

	s->tries++;
	if (!s->o->quiet) {
		fprintf(stderr, "\rlockstep: try %u: %" PRIu64 " to %" PRIu64 "    ", s->tries,
			m ? m : s->c->at, n);
		fflush(stderr);
	}
	if (s->from == FROM_CHECKPOINT_WITH_STOPS)
		walk_to(s, &p, s->c->at, n);
	if (m > s->c->at)
		machine_run(p.b, m);
	pair_run(&p, n);
	return p;
}

static bool differs(struct search *s, uint64_t m, uint64_t n)
{
	struct pair p = go(s, m, n);
	bool same = same_machines(&p);

	pair_destroy(&p);
	return !same;
}

/* How the difference can be had again; false: in no way. */
static bool reproduce(struct search *s, uint64_t n)
{
	for (s->from = FROM_CHECKPOINT; s->from <= FROM_START; s->from++) {
		if (s->from == FROM_START && s->o->no_rerun)
			break;
		if (differs(s, 0, n))
			return true;
	}
	return false;
}

/* The first count at which they differ, as far as halving finds it. */
static uint64_t first_different(struct search *s, uint64_t n)
{
	uint64_t lo = s->c->at, hi = n;

	while (hi - lo > 1) {
		uint64_t mid = lo + (hi - lo) / 2;

		if (differs(s, 0, mid))
			hi = mid;
		else
			lo = mid;
	}
	return hi;
}

/* The last count at which B may stop and still differ at n. */
static uint64_t last_same(struct search *s, uint64_t n)
{
	uint64_t lo = s->c->at, hi = n;

	/* Mostly it is a short piece: doubling finds its size sooner than halving would. */
	for (uint64_t back = 1; n - lo > back; back *= 2) {
		if (differs(s, n - back, n)) {
			lo = n - back;
			break;
		}
		hi = n - back;
	}
	while (hi - lo > 1) {
		uint64_t mid = lo + (hi - lo) / 2;

		if (differs(s, mid, n))
			lo = mid;
		else
			hi = mid;
	}
	return lo;
}

static const char *const from_text[] = {
	"seen again from the last point at which they were the same",
	"seen again from there only with the same stops on the way",
	"seen again only from power-on: what the caches had learnt is part of it",
};

/* What A runs from m to n, one instruction a line; A stands at n afterwards. */
static void print_piece(struct machine *a, uint64_t m, uint64_t n)
{
	printf("the piece, as A runs it (instructions before it, code, what it is):\n");
	for (uint64_t i = m; i < n && !machine_ended(a); i++) {
		/* The beginning and the end of a long one. */
		if (i - m < PIECE_SHOWN / 2 || n - i <= PIECE_SHOWN / 2)
			print_instruction(a);
		else if (i - m == PIECE_SHOWN / 2)
			printf("  ...\n");
		machine_run(a, i + 1);
	}
}

static void tell_piece(struct search *s, uint64_t m, uint64_t n)
{
	struct cpu_arch_state before;
	struct pair p = set_out(s);

	printf("smallest piece that makes a difference: %" PRIu64 " instruction%s, from count %" PRIu64
	       " to %" PRIu64 "\n(%s; %u tries)\n", n - m, n - m == 1 ? "" : "s", m, n,
	       from_text[s->from], s->tries);
	if (s->from == FROM_CHECKPOINT_WITH_STOPS)
		walk_to(s, &p, s->c->at, m);
	if (m > s->c->at)
		pair_run(&p, m);
	else if (!s->c->at)
		pair_run(&p, 1);
	if (m > s->c->at && !same_machines(&p)) {
		printf("stopped at %" PRIu64 ", they differ already:\n", m);
		print_differences(&p, NULL);
	}
	processor_state(p.a, &before);
	printf("flags before it:");
	print_flags(before.rflags);
	printf("\n");
	print_piece(p.a, machine_insns(p.a), n);
	machine_run(p.b, n);
	printf("after it:\n");
	print_differences(&p, &before);
	pair_destroy(&p);
}

void narrow(const struct options *o, const struct checkpoint *c, uint64_t at)
{
	struct search s = { .o = o, .c = c };
	uint64_t n, m;

	fflush(stdout);
	if (!reproduce(&s, at)) {
		printf("not seen again from count %" PRIu64 "%s\n", c->at,
		       o->no_rerun ? " (without --no-rerun, it is tried from power-on)" :
		       ", nor from power-on");
		return;
	}
	n = first_different(&s, at);
	m = last_same(&s, n);
	if (!o->quiet)
		fprintf(stderr, "\n");
	tell_piece(&s, m, n);
}
