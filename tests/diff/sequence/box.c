/*
 * A machine that can be stopped after any instruction, with clock.mode=virtual.
 */
#include <stdlib.h>

#include "../bare.h"
#include "cpu/soft/cache.h"
#include "sequence.h"

/* Guest-physical. */
#define PHYS_WRITTEN	0x200000u	/* code, data, stack: SEQ_RAM bytes */
#define PHYS_STACK	(PHYS_WRITTEN + (SEQ_CODE_PAGES + SEQ_DATA_PAGES) * 0x1000)

/* ---- Making one --------------------------------------------------------------------- */

static void map_pages(struct bare *b)
{
	uint64_t phys = PHYS_WRITTEN;

	for (unsigned i = 0; i < SEQ_CODE_PAGES; i++, phys += 0x1000) {
		bare_map(b, SEQ_CODE + i * 0x1000, phys, PTE_U | PTE_W);
		bare_map(b, SEQ_ALIAS + i * 0x1000, phys, PTE_U | PTE_W | PTE_NX);
	}
	for (unsigned i = 0; i < SEQ_DATA_PAGES; i++, phys += 0x1000)
		if (i != SEQ_DATA_HOLE)
			bare_map(b, SEQ_DATA + i * 0x1000, phys,
				 PTE_U | PTE_NX | (i == SEQ_DATA_RO ? 0 : PTE_W));
}

void box_destroy(struct bare *b)
{
	if (!b)
		return;
	bare_finish(b);
	free(b);
}

struct bare *box_create(enum box_way way, bool v3, const char **why)
{
	const char *tier = way == BOX_TRANSLATED ? "translator" : "interpreter";
	struct bare *b = calloc(1, sizeof *b);

	if (!b)
		abort();
	*why = bare_init(b, CLOCK_MODE_VIRTUAL, tier, v3, PHYS_STACK);
	if (*why) {
		box_destroy(b);
		return NULL;
	}
	b->c->test.on = b->c->test.alone = way == BOX_ALONE;
	if (way == BOX_SHORT_BLOCKS)
		b->c->test.block_insns = 3;
	map_pages(b);
	return b;
}

/* ---- Running -------------------------------------------------------------------------- */

static void load_page(struct bare *b, unsigned page, const uint8_t *bytes)
{
	uint64_t phys = PHYS_WRITTEN + page * 0x1000;

	if (!memcmp(b->ram + phys, bytes, 0x1000))
		return;
	memcpy(b->ram + phys, bytes, 0x1000);
	/* Pages of code only, and where somebody has jumped into data: nothing is executable there. */
	if (page < SEQ_CODE_PAGES)
		soft_code_written(b->c, phys, 0x1000);
}

static void load_ram(struct bare *b, const struct program *p)
{
	static _Thread_local uint8_t code[SEQ_CODE_PAGES * 0x1000];

	memset(code, CODE_FILL, sizeof code);
	memcpy(code + (p->start - SEQ_CODE), p->code, p->len);
	for (unsigned i = 0; i < SEQ_CODE_PAGES; i++)
		load_page(b, i, code + i * 0x1000);
	for (unsigned i = 0; i < SEQ_DATA_PAGES; i++)
		load_page(b, SEQ_CODE_PAGES + i, p->data + i * 0x1000);
	memset(b->ram + PHYS_STACK, 0, 0x1000);
}

void box_load(struct bare *b, const struct program *p, bool cold)
{
	struct soft_cpu *c = b->c;

	if (cold) {
		soft_cache_flush(c);
		soft_tlb_flush(c, true);
	}
	load_ram(b, p);
	memset(&c->sys, 0, sizeof c->sys);
	bare_load(b, &p->in, false);
	/* Time begins again. */
	c->insns_base = 0;
	c->budget = 0;
	c->budget_given = 0;
	b->vm->visited = false;
	atomic_store(&b->vm->clock.insns, 0);
}

bool box_run(struct bare *b, uint64_t n)
{
	b->vm->insn_limit = box_insns(b) + n;
	return b->v->ops->run(b->v) != VCPU_EXIT_LIMIT;
}

void box_state(struct bare *b, struct cpu_arch_state *s)
{
	memset(s, 0, sizeof *s);
	b->v->ops->get_state(b->v, s);
}

const uint8_t *box_ram(const struct bare *b)
{
	return b->ram + PHYS_WRITTEN;
}

uint64_t box_insns(const struct bare *b)
{
	return atomic_load(&b->vm->clock.insns);
}
