/*
 * The translator's blocks: made, linked, entered, and thrown away.
 *
 * Code memory is filled region by region, round and round; a region that is to be filled again
 * loses all its blocks first, which is short work: what they have of memory is freed later, a little
 * for each new block.  Nothing of it is in use then: translations are made by the run loop, which
 * translated code has been left for.
 */
#include <asm/prctl.h>
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "cpu/soft/cache.h"
#include "cpu/soft/jit/inside.h"
#include "vm/vm.h"

#define AUTO_THRESHOLD	30
/* Blocks whose memory is given back for each new one: more than come, so that none pile up. */
#define REAP		16u

/* ---- Life ----------------------------------------------------------------------------- */

static uint8_t *region_start(struct soft_jit *j, unsigned region)
{
	return j->code.write + JIT_THUNKS_SIZE + (size_t)region * JIT_REGION_SIZE;
}

static void begin_region(struct soft_jit *j, unsigned region)
{
	j->region = region;
	j->e.at = region_start(j, region);
	j->e.end = j->e.at + JIT_REGION_SIZE;
}

/* Does a rotation by a constant that is not 1 leave OF alone, as the interpreter does? */
static bool rotate_keeps_of(void)
{
	for (unsigned i = 0; i < 4; i++) {
		uint64_t x = i & 1 ? 0x8000000000000001 : 0x4000000000000000;
		bool of = i & 2, left, right;

		/* OF from adding 127 to a byte, as SAHF does not set it. */
		__asm__("addb $127, %%al\n\trol $3, %1\n\tseto %b0"
			: "=a"(left), "+r"(x) : "0"((unsigned)of) : "cc");
		__asm__("addb $127, %%al\n\tror $5, %1\n\tseto %b0"
			: "=a"(right), "+r"(x) : "0"((unsigned)of) : "cc");
		if (left != of || right != of)
			return false;
	}
	return true;
}

int soft_jit_create(struct soft_cpu *c, struct skep_error *e)
{
	const char *tier = config_string(config_root(c->vm->config), "soft.tier");
	bool asked = tier && !strcmp(tier, "translator");
	struct soft_jit *j;
	int err;

	c->jit_self = c;
	if (tier && !strcmp(tier, "interpreter"))
		return 0;
	j = calloc(1, sizeof(*j));
	if (!j)
		return skep_fail(e, ENOMEM, "not enough memory for the translator");
	err = code_memory_create(&j->code, JIT_THUNKS_SIZE + (size_t)JIT_REGIONS * JIT_REGION_SIZE, e);
	j->pool = err ? NULL : malloc(JIT_MAX_BLOCKS * sizeof(*j->pool));
	j->t = err ? NULL : malloc(sizeof(*j->t));
	if (!j->pool || !j->t) {
		soft_jit_destroy(j);
		if (err)
			return asked ? err : 0;
		return skep_fail(e, ENOMEM, "not enough memory for the translator");
	}
	j->threshold = asked ? 1 : AUTO_THRESHOLD;
	j->bmi2 = __builtin_cpu_supports("bmi2");
	j->rotate_keeps_of = rotate_keeps_of();
	j->e.at = j->code.write;
	j->e.delta = j->code.run - j->code.write;
	jit_make_thunks(j);
	assert(j->e.at <= j->code.write + JIT_THUNKS_SIZE);
	begin_region(j, 0);
	c->jit = j;
	return 0;
}

static void give_memory(struct jit_block *b)
{
	free(b->ops);
	free(b->links);
	b->ops = NULL;
	b->links = NULL;
}

static void free_block(struct soft_jit *j, struct jit_block *b)
{
	give_memory(b);
	b->next = j->free;
	j->free = b;
}

void soft_jit_destroy(struct soft_jit *j)
{
	if (!j)
		return;
	for (unsigned i = 0; i < j->npool; i++)
		give_memory(&j->pool[i]);
	code_memory_destroy(&j->code);
	free(j->pool);
	free(j->t);
	free(j);
}

void soft_jit_enter_thread(struct soft_cpu *c)
{
	syscall(SYS_arch_prctl, ARCH_SET_GS, c);
}

int32_t soft_jit_threshold(const struct soft_cpu *c)
{
	/* Legacy modes are the interpreter's. */
	return c->jit && c->mode & MODE_CS64 ? (int32_t)c->jit->threshold : 0;
}

/* ---- Time that it takes ------------------------------------------------------------------ */

/* Of this thread: what others of the host do meanwhile is not our doing. */
static uint64_t thread_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static void count_time(struct soft_cpu *c, uint64_t since)
{
	uint64_t ns = thread_ns() - since;

	SOFT_COUNT_N(c, translator_ns, ns);
	soft_stat_max(&c->stats.translator_longest_ns, ns);
}

/* ---- Links ---------------------------------------------------------------------------- */

static void unlink_from(struct jit_link *l)
{
	if (!l->to)
		return;
	*l->at = l->next;
	if (l->next)
		l->next->at = l->at;
	l->to = NULL;
}

static void link_to(struct soft_jit *j, struct jit_link *l, struct jit_block *to)
{
	unlink_from(l);
	l->to = to;
	l->next = to->incoming;
	l->at = &to->incoming;
	if (l->next)
		l->next->at = &l->next;
	to->incoming = l;
	emit_patch(&j->e, l->site, to->near_entry);
}

/* ---- Death ---------------------------------------------------------------------------- */

static struct jit_block *block_of(struct soft_jit *j, const struct soft_op *head)
{
	return &j->pool[(uint32_t)head->disp];
}

/* Links to it lead to their own way out again. */
static void unlink_incoming(struct soft_jit *j, struct jit_block *b)
{
	while (b->incoming) {
		struct jit_link *l = b->incoming;

		unlink_from(l);
		emit_patch(&j->e, l->site, l->exit);
	}
}

/* Entries lead to the run loop from now on, and links to their own way out. */
static void kill_block(struct soft_jit *j, struct jit_block *b)
{
	struct emit e = { .at = (uint8_t *)b->near_entry - j->e.delta, .delta = j->e.delta };

	b->dead = true;
	/* A handler that goes on with its own instruction, as REP does, is to see it too. */
	for (unsigned i = 0; i < b->nops; i++)
		if (b->ops[i].flags & OPF_FIRST)
			b->ops[i].fn = op_stale;
	emit_insn(&e, &(struct emit_insn){ .op = 0xb8, .reg = HOST_A, .imm = b->ip, .imm_size = 4 });
	emit_branch(&e, EMIT_JMP, j->thunk.leave);
	unlink_incoming(j, b);
}

void soft_jit_kill(struct soft_cpu *c, struct soft_op *head)
{
	struct jit_block *b = block_of(c->jit, head);

	b->head = NULL;
	kill_block(c->jit, b);
}

static void forget_jumps(struct soft_cpu *c)
{
	/* No key is 0. */
	memset(c->jit_keys, 0, sizeof(c->jit_keys));
}

/* Memory is given back a little at a time: see reap. */
static void doom(struct soft_jit *j, struct jit_block *first, struct jit_block *last)
{
	last->next = j->doomed;
	j->doomed = first;
}

/*
 * Nothing leads to its code any more when this returns, so the code itself is left as it is: only what
 * knows of it changes.
 */
static void evict(struct soft_cpu *c, struct jit_block *b)
{
	struct soft_jit *j = c->jit;

	SOFT_COUNT_N(c, translator_evictions, !b->dead);
	unlink_incoming(j, b);
	for (unsigned i = 0; i < b->nlinks; i++)
		unlink_from(&b->links[i]);
	if (b->head) {
		b->head->fn = op_head;
		b->head->disp = (int32_t)j->threshold;
	}
}

static void empty_region(struct soft_cpu *c, unsigned region)
{
	struct soft_jit *j = c->jit;
	struct jit_block *last = NULL;

	for (struct jit_block *b = j->blocks[region]; b; b = b->next) {
		evict(c, b);
		last = b;
	}
	if (last)
		doom(j, j->blocks[region], last);
	j->blocks[region] = NULL;
	forget_jumps(c);
}

void soft_jit_flush(struct soft_cpu *c)
{
	struct soft_jit *j = c->jit;
	uint64_t since;

	if (!j)
		return;
	since = thread_ns();
	for (unsigned i = 0; i < JIT_REGIONS; i++) {
		if (j->blocks[i])
			doom(j, j->blocks[i], j->oldest[i]);
		j->blocks[i] = NULL;
	}
	forget_jumps(c);
	begin_region(j, 0);
	count_time(c, since);
}

/* Frees some of what was evicted or flushed. */
static void reap(struct soft_jit *j, unsigned n)
{
	while (n-- && j->doomed) {
		struct jit_block *b = j->doomed;

		j->doomed = b->next;
		free_block(j, b);
	}
}

/* ---- The jump cache ------------------------------------------------------------------------ */

static void remember_jump(struct soft_cpu *c, uint64_t rip, const struct jit_block *b)
{
	unsigned i = jit_jump_index(rip);

	c->jit_rips[i] = rip;
	c->jit_keys[i] = c->jump_key;
	c->jit_codes[i] = b->far_entry;
}

/* ---- Running ---------------------------------------------------------------------------- */

const struct soft_op *op_back(struct soft_cpu *c, const struct soft_op *op)
{
	return op;
}

bool jit_run_one(struct soft_cpu *c, const struct soft_op *op)
{
	uint8_t xmm = c->jit_xmm;
	const struct jit_block *b;

	c->jit_xmm = 0;
	c->jit_inside = true;
	while (op && op->fn != op_back)
		op = op->fn(c, op);
	c->jit_inside = false;
	if (!op) {
		SOFT_COUNT(c, translator_exit_interpreter);
		return false;
	}
	b = (const struct jit_block *)op->imm;
	/*
	 * A look at the kick, because the instruction may serialize (SDM vol. 3, 8.3): code that another
	 * processor wrote before must be seen after it.
	 */
	if (unlikely(b->dead || atomic_load_explicit(&c->kick, memory_order_relaxed))) {
		c->rip = soft_op_rip(c, op);
		c->budget += op->left;
		if (b->dead)
			SOFT_COUNT(c, translator_exit_written);
		else
			SOFT_COUNT(c, translator_exit_request);
		return false;
	}
	c->jit_xmm = xmm;
	return true;
}

/* The block that a link leads to, if it has been translated; c->rip is its target. */
static struct jit_block *target_of(struct soft_cpu *c)
{
	const struct soft_op *head = soft_jump_find(c, c->rip);

	return head && head->fn == op_head_jit ? block_of(c->jit, head) : NULL;
}

/*
 * The next block after a handler left, if the run loop has nothing to do in between and it has
 * been translated.
 */
static struct jit_block *go_on(struct soft_cpu *c)
{
	struct jit_block *b;

	if (atomic_load_explicit(&c->kick, memory_order_relaxed) || c->budget <= 0 ||
	    atomic_load_explicit(&c->v->requests, memory_order_relaxed) || c->exc_raised ||
	    c->s.halted || c->stepping || c->step_once || c->s.sti_shadow || c->s.ss_shadow)
		return NULL;
	b = target_of(c);
	if (b && c->budget >= b->ninsns) {
		c->r[SLOT_IPBASE] = c->rip - b->ip;
		remember_jump(c, c->rip, b);
		return b;
	}
	return NULL;
}

/* Why translated code was left; jit_run_one has counted its own reasons. */
static void count_exit(struct soft_cpu *c, uint64_t why)
{
	if (why == JIT_EXIT_MISS)
		SOFT_COUNT(c, translator_exit_unknown);
	else if (why != JIT_EXIT_LEAVE)
		return;
	else if (atomic_load_explicit(&c->kick, memory_order_relaxed))
		SOFT_COUNT(c, translator_exit_request);
	else if (c->budget < JIT_MAX_INSNS)
		SOFT_COUNT(c, translator_exit_budget);
	else
		SOFT_COUNT(c, translator_exit_written);
}

const struct soft_op *op_head_jit(struct soft_cpu *c, const struct soft_op *op)
{
	struct soft_jit *j = c->jit;
	struct jit_block *b = block_of(j, op);
	uint64_t (*enter)(const uint8_t *code);

	memcpy(&enter, &j->thunk.enter, sizeof(enter));
	c->rip = soft_op_rip(c, op);
	if (c->jit_inside)
		return NULL;
	SOFT_COUNT(c, translator_entries);
	remember_jump(c, c->rip, b);
	for (;;) {
		uint64_t why = enter(b->near_entry);
		struct jit_link *l;

		if (why <= JIT_EXIT_ONE) {
			count_exit(c, why);
			b = go_on(c);
			if (!b)
				return NULL;
			continue;
		}
		l = (struct jit_link *)why;
		c->rip = c->r[SLOT_IPBASE] + l->target;
		b = target_of(c);
		if (!b) {
			SOFT_COUNT(c, translator_exit_unknown);
			return NULL;
		}
		SOFT_COUNT(c, translator_links);
		/* Not if the page is mapped elsewhere by now, and only some of it has been noticed. */
		if (l->page == b->page)
			link_to(j, l, b);
	}
}

/* ---- Translating -------------------------------------------------------------------------- */

/* Backward jumps are taken, as a rule: what follows is another block. */
static bool likely_taken(const struct jit_insn *x)
{
	return x->class == JIT_JCC && x->ops->disp >= 0 && x->ops->disp <= x->ip;
}

static void decode(struct jit_translation *t, const uint8_t *bytes, unsigned nbytes, unsigned ip)
{
	ZydisDecoder z;
	ZydisDecoderContext context;
	unsigned at = 0;
	bool ends = false;

	soft_decoder_init(&z, t->c);
	while (t->ninsns < JIT_MAX_INSNS && at < nbytes && !ends) {
		struct jit_insn *x = &t->insn[t->ninsns];
		struct soft_decode d = { .c = t->c, .mode = t->c->mode, .insn = &x->in, .op = x->op };

		if (!ZYAN_SUCCESS(ZydisDecoderDecodeInstruction(&z, &context, bytes + at, nbytes - at,
								&x->in)) ||
		    !ZYAN_SUCCESS(ZydisDecoderDecodeOperands(&z, &context, &x->in, x->op,
							     x->in.operand_count)))
			break;
		x->ip = (uint16_t)(ip + at);
		x->ops = t->ops + t->nops;
		x->nops = (uint8_t)soft_decode_one(&d, x->ip, x->ops);
		jit_classify(t, x);
		at += x->in.length;
		x->ops[x->nops] = (struct soft_op){ .fn = op_back, .ip = (uint16_t)(ip + at) };
		t->nops += x->nops + 1u;
		t->ninsns++;
		ends = d.ends_block || likely_taken(x);
	}
	t->end_ip = ip + at;
}

/* May its handler be called from the code? */
static bool needs_handler(const struct jit_insn *x)
{
	return !(x->class == JIT_NOTHING || x->class == JIT_LEA || (x->class == JIT_REWRITE && x->mem < 0));
}

/* Memory of its own for the ops that translated code refers to. */
static bool settle(struct jit_translation *t)
{
	struct jit_block *b = t->b;
	unsigned n = 0;

	for (unsigned i = 0; i < t->ninsns; i++)
		n += needs_handler(&t->insn[i]) ? t->insn[i].nops + 1u : 0;
	b->ops = n ? malloc(n * sizeof(*b->ops)) : NULL;
	if (n && !b->ops)
		return false;
	b->nops = 0;
	for (unsigned i = 0; i < t->ninsns; i++) {
		struct jit_insn *x = &t->insn[i];
		struct soft_op *to = b->ops + b->nops;

		x->left = (uint8_t)(t->ninsns - 1 - i);
		if (!needs_handler(x))
			continue;
		for (unsigned k = 0; k <= x->nops; k++) {
			to[k] = x->ops[k];
			to[k].left = x->left;
		}
		to[x->nops].imm = (uintptr_t)b;
		b->nops = (uint16_t)(b->nops + x->nops + 1);
		x->ops = to;
	}
	return true;
}

static bool has_room(const struct soft_jit *j)
{
	return j->e.end - j->e.at >= (ptrdiff_t)JIT_BLOCK_ROOM &&
	       (j->free || j->doomed || j->npool < JIT_MAX_BLOCKS);
}

static struct jit_block *new_block(struct soft_cpu *c)
{
	struct soft_jit *j = c->jit;
	struct jit_block *b;

	/* Another region, until there is room for the code and a number for the block. */
	for (unsigned n = 0; n < JIT_REGIONS && !has_room(j); n++) {
		unsigned next = (j->region + 1) % JIT_REGIONS;

		empty_region(c, next);
		begin_region(j, next);
	}
	reap(j, REAP);
	b = j->free;
	if (b)
		j->free = b->next;
	else if (j->npool < JIT_MAX_BLOCKS)
		b = &j->pool[j->npool++];
	if (b)
		*b = (struct jit_block){ 0 };
	return b;
}

static void count_block(struct soft_cpu *c, const struct jit_translation *t)
{
	unsigned groups = 0;

	for (unsigned i = 0; i < t->ndetours; i++)
		groups += t->detour[i].kind == DETOUR_GROUP;
	SOFT_COUNT(c, translator_blocks);
	SOFT_COUNT_N(c, translator_loops, t->loop != NULL);
	SOFT_COUNT_N(c, translator_groups, groups);
	SOFT_COUNT_N(c, translator_code_bytes, (uint64_t)(t->e.at - c->jit->e.at));
}

static void translate(struct soft_cpu *c, const uint8_t *bytes, unsigned nbytes, unsigned ip,
		      struct soft_op *head)
{
	struct soft_jit *j = c->jit;
	struct jit_translation *t = j->t;
	struct jit_block *b = new_block(c);

	if (!b)
		return;
	t->c = c;
	t->j = j;
	t->b = b;
	t->e = j->e;
	t->grouped = false;
	t->ninsns = t->nops = t->nlinks = t->ndetours = t->nrefills = 0;
	t->out_of_line = false;
	t->loop = NULL;
	t->loop_site = NULL;
	decode(t, bytes, nbytes, ip);
	if (!t->ninsns || !settle(t)) {
		free_block(j, b);
		return;
	}
	b->ip = (uint16_t)ip;
	b->page = bytes - ip;
	b->ninsns = (uint16_t)t->ninsns;
	if (!jit_emit_block(t)) {
		free_block(j, b);
		return;
	}
	count_block(c, t);
	j->e.at = t->e.at;
	b->nlinks = t->nlinks;
	for (unsigned i = 0; i < t->nlinks; i++)
		b->links[i] = t->links[i];
	b->next = j->blocks[j->region];
	if (!b->next)
		j->oldest[j->region] = b;
	j->blocks[j->region] = b;
	b->head = head;
	head->disp = (int32_t)(b - j->pool);
	head->fn = op_head_jit;
}

void soft_jit_translate(struct soft_cpu *c, const uint8_t *bytes, unsigned nbytes, unsigned ip,
			struct soft_op *head)
{
	uint64_t since = thread_ns();

	translate(c, bytes, nbytes, ip, head);
	count_time(c, since);
}
