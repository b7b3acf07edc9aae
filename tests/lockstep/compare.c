/* Two machines that stand, held against each other. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lockstep.h"
#include "state/codec.h"
#include "vm/memory_inside.h"

#define SHOWN 24	/* differences of each kind */

void processor_state(const struct machine *m, struct cpu_arch_state *s)
{
	memset(s, 0, sizeof(*s));
	m->vm->vcpus[0]->ops->get_state(m->vm->vcpus[0], s);
}

static bool same_end(const struct pair *p)
{
	bool a = machine_ended(p->a), b = machine_ended(p->b);

	return a == b && machine_insns(p->a) == machine_insns(p->b) &&
	       (!a || p->a->code == p->b->code);
}

static void count_difference(void *opaque, const char *field, const char *a, const char *b, bool host)
{
	if (!host)
		(*(unsigned *)opaque)++;
}

bool same_processors(const struct pair *p)
{
	struct cpu_arch_state a, b;
	unsigned n = 0;

	if (!same_end(p))
		return false;
	device_lock(p->a->vm);
	processor_state(p->a, &a);
	device_unlock(p->a->vm);
	device_lock(p->b->vm);
	processor_state(p->b, &b);
	device_unlock(p->b->vm);
	/* Nearly always all bytes are the same; if not, it may be padding. */
	if (memcmp(&a, &b, sizeof(a)))
		state_diff(&cpu_arch_record, &a, &b, count_difference, &n);
	return !n;
}

/* ---- Everything else ----------------------------------------------------------------- */

typedef void part_fn(void *opaque, const char *part, const struct state_record *r, const void *a,
		     const void *b);

/* Calls fn for each record of both. */
static void each_part(const struct pair *p, part_fn *fn, void *opaque)
{
	struct skep_error e = { "" };
	struct machine_state *a = machine_state_export(p->a->vm, &e);
	struct machine_state *b = a ? machine_state_export(p->b->vm, &e) : NULL;

	if (!b)
		lockstep_die("the state cannot be taken", &e);
	for (size_t i = 0; i < a->nparts; i++) {
		struct machine_part *other = machine_state_find(b, a->parts[i].name);

		if (!other)
			lockstep_die(a->parts[i].name, NULL);
		fn(opaque, a->parts[i].name, a->parts[i].record, a->parts[i].model, other->model);
	}
	machine_state_free(a);
	machine_state_free(b);
}

static void count_part(void *opaque, const char *part, const struct state_record *r, const void *a,
		       const void *b)
{
	state_diff(r, a, b, count_difference, opaque);
}

/* The next page from i on that one of them has written since the checkpoint and that differs. */
static size_t next_page(const struct pair *p, size_t i)
{
	const struct guest_memory *a = &p->a->vm->memory, *b = &p->b->vm->memory;

	for (; i < a->npages; i++) {
		size_t in_a = memory_find(a, i, a->npages, PAGE_DIRTY, true);

		i = memory_find(b, i, in_a, PAGE_DIRTY, true);
		if (i < a->npages && memcmp(page_host(a, i), page_host(b, i), GUEST_PAGE_SIZE))
			break;
	}
	return i;
}

bool same_machines(const struct pair *p)
{
	unsigned n = 0;

	if (!same_processors(p))
		return false;
	each_part(p, count_part, &n);
	return !n && next_page(p, 0) >= p->a->vm->memory.npages;
}

/* ---- Consoles -------------------------------------------------------------------------- */

/* At most n bytes at this place; how many there are. */
static size_t console_bytes(const struct machine *m, uint64_t at, char *buf, size_t n)
{
	ssize_t got = pread(m->console, buf, n, (off_t)at);

	return got > 0 ? (size_t)got : 0;
}

bool same_consoles(struct pair *p)
{
	char a[4096], b[4096];

	for (;;) {
		size_t na = console_bytes(p->a, p->printed, a, sizeof(a));
		size_t nb = console_bytes(p->b, p->printed, b, sizeof(b)), n = MIN(na, nb), i = 0;

		while (i < n && a[i] == b[i])
			i++;
		p->printed += i;
		/* What one's host has not taken yet is no difference, unless both are over. */
		if (i < n || (na != nb && machine_ended(p->a))) {
			printf("the consoles differ from byte %" PRIu64 " on\n", p->printed);
			return false;
		}
		if (na != nb || !n)
			return true;
	}
}

/* ---- In words ---------------------------------------------------------------------------- */

static const char *const reg_names[16] = {
	"rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
	"r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15",
};

void print_flags(uint64_t f)
{
	static const struct { uint32_t bit; const char *name; } names[] = {
		{ RFLAGS_CF, "CF" }, { RFLAGS_PF, "PF" }, { RFLAGS_AF, "AF" }, { RFLAGS_ZF, "ZF" },
		{ RFLAGS_SF, "SF" }, { RFLAGS_TF, "TF" }, { RFLAGS_IF, "IF" }, { RFLAGS_DF, "DF" },
		{ RFLAGS_OF, "OF" }, { RFLAGS_NT, "NT" }, { RFLAGS_RF, "RF" }, { RFLAGS_VM, "VM" },
		{ RFLAGS_AC, "AC" }, { RFLAGS_ID, "ID" },
	};

	for (unsigned i = 0; i < ARRAY_SIZE(names); i++)
		if (f & names[i].bit)
			printf(" %s", names[i].name);
}

struct teller {
	const char *part;
	unsigned shown;
};

static void tell(void *opaque, const char *field, const char *a, const char *b, bool host)
{
	struct teller *t = opaque;
	unsigned n;

	if (host || t->shown++ >= SHOWN)
		return;
	/* "gpr[11]" is r11 to people. */
	if (!strncmp(t->part, "cpu.", 4) && sscanf(field, "gpr[%u]", &n) == 1 && n < 16)
		field = reg_names[n];
	printf("  %s.%-10s A %s  B %s\n", t->part, field, a, b);
}

static void tell_part(void *opaque, const char *part, const struct state_record *r, const void *a,
		      const void *b)
{
	struct teller t = { .part = part };

	state_diff(r, a, b, tell, &t);
	if (t.shown > SHOWN)
		printf("  ... %u fields of %s in all\n", t.shown, part);
}

static void print_page(const struct pair *p, size_t page)
{
	const uint8_t *a = page_host(&p->a->vm->memory, page), *b = page_host(&p->b->vm->memory, page);
	unsigned n = 0, shown = 0;

	for (size_t i = 0; i < GUEST_PAGE_SIZE; i++)
		n += a[i] != b[i];
	printf("  RAM page %#" PRIx64 ": %u bytes\n", page_gpa(&p->a->vm->memory, page), n);
	for (size_t i = 0; i < GUEST_PAGE_SIZE && shown < 8; i += 8) {
		if (!memcmp(a + i, b + i, 8))
			continue;
		printf("    +%03zx  A %016" PRIx64 "  B %016" PRIx64 "\n", i, load64(a + i), load64(b + i));
		shown++;
	}
}

static void print_flag_difference(const struct pair *p)
{
	struct cpu_arch_state a, b;

	processor_state(p->a, &a);
	processor_state(p->b, &b);
	if (a.rflags == b.rflags)
		return;
	printf("  flags: only in A:");
	print_flags(a.rflags & ~b.rflags);
	printf("; only in B:");
	print_flags(b.rflags & ~a.rflags);
	printf("\n");
}

static void tell_change(void *opaque, const char *field, const char *a, const char *b, bool host)
{
	unsigned n;

	if (sscanf(field, "gpr[%u]", &n) == 1 && n < 16)
		field = reg_names[n];
	printf("  %-16s %s -> %s\n", field, a, b);
}

void print_differences(const struct pair *p, const struct cpu_arch_state *before)
{
	struct cpu_arch_state after;
	unsigned pages = 0;

	if (machine_insns(p->a) != machine_insns(p->b))
		printf("  instructions: A %" PRIu64 ", B %" PRIu64 "\n", machine_insns(p->a),
		       machine_insns(p->b));
	if (machine_ended(p->a) != machine_ended(p->b))
		printf("  machine %s has ended\n", machine_ended(p->a) ? "A" : "B");
	else if (machine_ended(p->a) && p->a->code != p->b->code)
		printf("  exit codes: A %d, B %d\n", p->a->code, p->b->code);
	each_part(p, tell_part, NULL);
	print_flag_difference(p);
	for (size_t i = 0; (i = next_page(p, i)) < p->a->vm->memory.npages; i++)
		if (pages++ < SHOWN)
			print_page(p, i);
	if (pages > SHOWN)
		printf("  ... %u pages of RAM in all\n", pages);
	if (!before)
		return;
	printf("what the piece changes in the processor, as A runs it:\n");
	processor_state(p->a, &after);
	state_diff(&cpu_arch_record, before, &after, tell_change, NULL);
}
