/*
 * One mutant is a good snapshot with one to a few changes.  Most of them leave the file well
 * formed (keys in order, counts and digest right), so that they come as far as what they lie
 * about; some change several places together, so that the lie agrees with itself.
 */
#include "hostile.h"

#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "cbor.h"
#include "clock/clock.h"
#include "snapshot/format.h"

#define NODES_MAX	4096

struct mutation {
	struct image *m;
	struct rng *r;
	const struct image *others;
	size_t nothers;
	struct arena arena;
	bool sorted;		/* maps are put in order again */
};

static const uint64_t edges[] = {
	0, 1, 2, 3, 7, 8, 15, 16, 17, 31, 32, 63, 64, 0x7f, 0x80, 0xff, 0x100, 0x1ff, 0x200, 0x201,
	0xfff, 0x1000, 0x1001, 0x7fff, 0x8000, 0xffff, 0x10000, 0x1fffff, 0x200000, 0x400000,
	0x7fffffff, 0x80000000, 0xfee00000, 0xfec00000, 0xffffffff, 0x100000000, 0x1ffffffff,
	0x7fffffffffff, 0x800000000000, 0xffff7fffffffffff, 0xffff800000000000, 0x000fffffffffffff,
	INT64_MAX / 4, INT64_MAX / 4 - 1, INT64_MAX / 4 + 1, INT64_MAX / 2, INT64_MAX / 2 + 1,
	INT64_MAX - 1, INT64_MAX, 1ull << 63, UINT64_MAX - 4095, UINT64_MAX - 1, UINT64_MAX,
};

static uint64_t any_number(struct rng *r)
{
	switch (rng_below(r, 4)) {
	case 0: return rng_next(r) >> rng_below(r, 64);
	case 1: return 1ull << rng_below(r, 64);
	default: return edges[rng_below(r, ARRAY_SIZE(edges))];
	}
}

static const char *any_word(struct rng *r)
{
	static const char *const words[] = {
		"", "a", "opt", "req", "kind", "name", "version", "machine", "cpu.0", "lpc.com1", "true",
		"virtual", "null", "stdio", "\033[2J", "\xff\xfe", "%s%n", "../../etc/passwd", "4M", "0",
		"18446744073709551616", "-1", "etc/vmcoreinfo", "etc/table-loader", "etc/acpi/tables",
		"0123456789012345678901234567890123456789012345678901234567890123456789",
	};

	return words[rng_below(r, ARRAY_SIZE(words))];
}

/* ---- One node --------------------------------------------------------------------- */

static void change_number(struct mutation *x, struct node *n)
{
	switch (rng_below(x->r, 8)) {
	case 0: n->value++; break;
	case 1: n->value--; break;
	case 2: case 3: n->value ^= 1ull << rng_below(x->r, rng_chance(x->r, 50) ? 16 : 64); break;
	case 4: n->type ^= 1; break;
	case 5: n->value ^= rng_next(x->r) & rng_next(x->r) & 0xffffffff; break;
	default: n->value = any_number(x->r); break;
	}
	if (rng_chance(x->r, 2))
		n->wide = (uint8_t)(1u << rng_below(x->r, 4));
}

static void change_string(struct mutation *x, struct node *n)
{
	size_t len = n->len, at = rng_below(x->r, len);
	struct node *to;

	switch (rng_below(x->r, 10)) {
	case 0:
		n->len = rng_below(x->r, len + 1);
		break;
	case 1:
		n->len = 0;
		break;
	case 2:		/* longer, sometimes very much so */
		n->len = len + (rng_chance(x->r, 10) ? rng_below(x->r, 200000) : 1 + rng_below(x->r, 100));
		to = node_string(&x->arena, n->type, NULL, 0);
		to->data = arena_get(&x->arena, n->len + 1);
		memset(to->data, 'x', n->len);
		if (len)
			memcpy(to->data, n->data, len);
		n->data = to->data;
		break;
	case 3:
		to = node_text(&x->arena, any_word(x->r));
		n->data = to->data;
		n->len = to->len;
		break;
	case 4:
		n->claim = (int64_t)any_number(x->r);
		break;
	case 5:
		n->type = n->type == NODE_TEXT ? NODE_BYTES : NODE_TEXT;
		break;
	default:
		for (unsigned k = rng_chance(x->r, 30) ? 8 : 1; len && k; k--, at = rng_below(x->r, len))
			n->data[at] = rng_chance(x->r, 50) ? n->data[at] ^ 1 << rng_below(x->r, 8) :
				      (uint8_t)any_number(x->r);
		break;
	}
}

/* The link to the k-th child. */
static struct node **child_at(struct node *n, size_t k)
{
	struct node **at = &n->first;

	while (k--)
		at = &(*at)->next;
	return at;
}

/* step: 1 of an array, 2 of a map. */
static void change_children(struct mutation *x, struct node *n, unsigned step)
{
	size_t count = node_children(n) / step, k = rng_below(x->r, count), i;
	struct node **at = child_at(n, k * step), *it = *at, *end;
	unsigned times = 1;

	switch (rng_below(x->r, 7)) {
	case 0:		/* one less */
		for (i = 0; i < step && *at; i++)
			*at = (*at)->next;
		break;
	case 1:		/* none */
		n->first = NULL;
		break;
	case 2:		/* more of the same */
		times = rng_chance(x->r, 10) ? 1 + (unsigned)rng_below(x->r, 500) : 1;
		for (; it && times; times--)
			for (i = 0, end = it; i < step && end; i++, end = end->next) {
				struct node *c = node_copy(&x->arena, end);

				c->next = *at;
				*at = c;
				at = &c->next;
			}
		break;
	case 3:
		n->claim = (int64_t)any_number(x->r);
		break;
	case 4:		/* two change places */
		if (count > 1) {
			struct node *a = *child_at(n, k * step + step - 1);
			struct node *b = *child_at(n, rng_below(x->r, count) * step + step - 1);
			struct node t = *a;

			*a = *b;
			a->next = t.next;
			t.next = b->next;
			*b = t;
		}
		break;
	case 5:		/* another name */
		if (step == 2 && it) {
			struct node *next = it->next, *name = node_text(&x->arena, any_word(x->r));

			*it = *name;
			it->next = next;
		}
		break;
	default:	/* one more, of its own */
		if (step == 2) {
			it = node_text(&x->arena, any_word(x->r));
			it->next = node_uint(&x->arena, any_number(x->r));
			it->next->next = n->first;
		} else {
			it = node_uint(&x->arena, any_number(x->r));
			it->next = n->first;
		}
		n->first = it;
		break;
	}
}

static struct node *any_note(struct mutation *x, const struct image *from);

/* Something else altogether. */
static void replace(struct mutation *x, struct node *n)
{
	struct node *list[NODES_MAX], *other = NULL, *next = n->next, *deep;
	unsigned depth;

	switch (rng_below(x->r, 6)) {
	case 0:
		*n = (struct node){ .type = NODE_SIMPLE, .value = rng_below(x->r, 32), .next = next };
		return;
	case 1:
		*n = (struct node){ .type = rng_below(x->r, 8), .value = rng_below(x->r, 24), .next = next };
		return;
	case 2:		/* nested */
		deep = n;
		*deep = *node_uint(&x->arena, 0);
		for (depth = (unsigned)rng_below(x->r, rng_chance(x->r, 10) ? 2000 : 20); depth; depth--) {
			deep->type = NODE_ARRAY;
			deep->first = node_uint(&x->arena, 0);
			deep = deep->first;
		}
		n->next = next;
		return;
	default:	/* from somewhere */
		other = any_note(x, x->nothers ? &x->others[rng_below(x->r, x->nothers)] : x->m);
		if (!other)
			return;
		other = list[rng_below(x->r, node_list(other, list, NODES_MAX))];
		*n = *node_copy(&x->arena, other);
		n->next = next;
		return;
	}
}

static void change_node(struct mutation *x, struct node *n)
{
	if (rng_chance(x->r, 4)) {
		replace(x, n);
		return;
	}
	switch (n->type) {
	case NODE_UINT:
	case NODE_NEGATIVE:
		change_number(x, n);
		break;
	case NODE_BYTES:
	case NODE_TEXT:
		change_string(x, n);
		break;
	case NODE_ARRAY:
		change_children(x, n, 1);
		break;
	case NODE_MAP:
		change_children(x, n, 2);
		break;
	default:
		n->value ^= 1;
		break;
	}
}

/* ---- One note ----------------------------------------------------------------------- */

static bool is_cbor(const struct image_note *n)
{
	return n->type == SNAP_NOTE_MANIFEST || n->type == SNAP_NOTE_RECORD;
}

static struct node *parse_note(struct mutation *x, const struct image_note *n)
{
	return is_cbor(n) ? node_parse(&x->arena, n->data, n->len) : NULL;
}

static struct node *any_note(struct mutation *x, const struct image *from)
{
	return from->nnotes ? parse_note(x, &from->note[rng_below(x->r, from->nnotes)]) : NULL;
}

static void store_note(struct mutation *x, struct image_note *n, struct node *root)
{
	free(n->data);
	n->data = node_bytes(root, x->sorted, &n->len);
}

/* A note of ours by the name in it; NULL: there is none. */
static struct image_note *find_note(struct mutation *x, const char *name, struct node **root)
{
	for (size_t i = 0; i < x->m->nnotes; i++) {
		struct node *text;

		*root = parse_note(x, &x->m->note[i]);
		text = node_get(*root, "name");
		if (text && text->len == strlen(name) && !memcmp(text->data, name, text->len))
			return &x->m->note[i];
	}
	return NULL;
}

static struct image_note *pick_note(struct mutation *x)
{
	struct image *m = x->m;

	for (unsigned tries = 0; m->nnotes && tries < 20; tries++) {
		struct image_note *n = &m->note[rng_below(x->r, m->nnotes)];

		if (is_cbor(n))
			return n;
	}
	return NULL;
}

/*
 * Fields, evenly: large arrays of numbers would otherwise have all the attention.  The maps
 * req and opt, and what lies in them, at some depth.
 */
static struct node *pick_field(struct mutation *x, struct node *root)
{
	struct node *n = node_get(root, rng_chance(x->r, 92) ? "req" : "opt");

	while (n && n->first && !rng_chance(x->r, 4)) {
		unsigned step = n->type == NODE_MAP ? 2 : 1, count = node_children(n) / step;

		n = *child_at(n, count ? rng_below(x->r, count) * step + step - 1 : 0);
		if (!n)
			return NULL;
		if (n->type != NODE_MAP && n->type != NODE_ARRAY)
			break;
	}
	return n;
}

static void change_record(struct mutation *x)
{
	struct image_note *note = pick_note(x);
	struct node *list[NODES_MAX], *root = note ? parse_note(x, note) : NULL, *n;
	unsigned times = rng_chance(x->r, 70) ? 1 : 1 + (unsigned)rng_below(x->r, 6);

	if (!root)
		return;
	while (times--) {
		n = rng_chance(x->r, 85) ? pick_field(x, root) :
		    list[rng_below(x->r, node_list(root, list, NODES_MAX))];
		if (n)
			change_node(x, n);
	}
	store_note(x, note, root);
}

/* The same record, of another machine. */
static void take_record(struct mutation *x)
{
	struct image_note *to = pick_note(x);
	struct node *root = to ? parse_note(x, to) : NULL, *name = node_get(root, "name"), *other;
	const struct image *from;

	if (!name || !x->nothers)
		return;
	from = &x->others[rng_below(x->r, x->nothers)];
	for (size_t i = 0; i < from->nnotes; i++) {
		struct node *text;

		other = parse_note(x, &from->note[i]);
		text = node_get(other, "name");
		if (!text || text->len != name->len || memcmp(text->data, name->data, name->len))
			continue;
		store_note(x, to, other);
		return;
	}
}

/* ---- The list of notes ------------------------------------------------------------------ */

static void note_drop(struct image *m, size_t k)
{
	free(m->note[k].name);
	free(m->note[k].data);
	memmove(&m->note[k], &m->note[k + 1], (--m->nnotes - k) * sizeof(m->note[0]));
}

static void change_notes(struct mutation *x)
{
	struct image *m = x->m;
	size_t k = rng_below(x->r, m->nnotes), l = rng_below(x->r, m->nnotes);
	struct image_note t;

	if (!m->nnotes)
		return;
	switch (rng_below(x->r, 8)) {
	case 0:
		note_drop(m, k);
		break;
	case 1:
		t = m->note[k];
		image_insert(m, l, &t);
		break;
	case 2:
		t = m->note[k];
		m->note[k] = m->note[l];
		m->note[l] = t;
		break;
	case 3:
		m->note[k].type = rng_chance(x->r, 50) ? m->note[l].type : (uint32_t)any_number(x->r);
		break;
	case 4:
		m->note[k].name_len = (uint32_t)rng_below(x->r, m->note[k].name_len + 1);
		break;
	case 5:
		if (m->note[k].name_len)
			m->note[k].name[rng_below(x->r, m->note[k].name_len)] ^= 1 << rng_below(x->r, 8);
		break;
	case 6:
		m->note[k].len = rng_below(x->r, m->note[k].len + 1);
		break;
	default:
		if (x->nothers) {
			const struct image *from = &x->others[rng_below(x->r, x->nothers)];

			if (from->nnotes)
				image_insert(m, k, &from->note[rng_below(x->r, from->nnotes)]);
		}
		break;
	}
}

/* ---- Tables of RAM, and the header -------------------------------------------------------- */

static struct image_note *find_type(struct image *m, uint32_t type)
{
	for (size_t i = 0; i < m->nnotes; i++)
		if (m->note[i].type == type)
			return &m->note[i];
	return NULL;
}

static void change_runs(struct mutation *x, struct image_note *n)
{
	size_t count = n->len / sizeof(struct snap_run), k = rng_below(x->r, count), field, other;
	uint8_t *run = n->data + k * sizeof(struct snap_run), *p;

	if (!count)
		return;
	other = rng_below(x->r, count) * sizeof(struct snap_run);
	field = 8 * rng_below(x->r, 6);
	p = run + field;
	switch (rng_below(x->r, 8)) {
	case 0:		/* a run of zeroes, as a delta has them */
		memset(run + 16, 0, sizeof(struct snap_run) - 16);
		run[32] = SNAP_ZERO;
		break;
	case 1:
		memmove(run, run + sizeof(struct snap_run), n->len - (k + 1) * sizeof(struct snap_run));
		n->len -= sizeof(struct snap_run);
		break;
	case 2:
		memcpy(p, n->data + other + field, 8);
		break;
	case 3:
		store64(p, load64(p) + 4096 * (rng_below(x->r, 9) - 4));
		break;
	case 4:
		run[32] ^= 1;
		break;
	case 5:
		*p ^= 1 << rng_below(x->r, 8);
		break;
	default:
		store64(p, any_number(x->r));
		break;
	}
}

static void change_tables(struct mutation *x)
{
	struct image_note *runs = find_type(x->m, SNAP_NOTE_PAGES);
	struct image_note *sums = find_type(x->m, SNAP_NOTE_CHECKSUMS);

	if (runs)
		change_runs(x, runs);
	if (sums && sums->len >= 8) {
		uint8_t *p = sums->data + 8 * rng_below(x->r, sums->len / 8);

		store64(p, rng_chance(x->r, 50) ? 0 : any_number(x->r));
		if (rng_chance(x->r, 20))
			sums->len = rng_below(x->r, sums->len + 1);
	}
}

static void change_ram(struct mutation *x)
{
	struct image_part *p;

	if (!x->m->nparts)
		return;
	p = &x->m->parts[rng_below(x->r, x->m->nparts)];
	for (unsigned k = 1 + (unsigned)rng_below(x->r, 16); p->len && k; k--)
		p->data[rng_below(x->r, p->len)] = (uint8_t)any_number(x->r);
	x->m->other_ram = true;
}

static void change_header(struct mutation *x)
{
	struct image *m = x->m;
	size_t at = rng_below(x->r, 64 + 56 * MIN(3u, (unsigned)load16(m->head + 56)));
	unsigned width = 1u << rng_below(x->r, 4);
	uint64_t v = any_number(x->r);

	at &= ~(size_t)(width - 1);
	m->loose = rng_chance(x->r, 50);
	if (rng_chance(x->r, 50))
		m->head[at] ^= 1 << rng_below(x->r, 8);
	else
		memcpy(m->head + at, &v, width);
	if (rng_chance(x->r, 10)) {
		m->notes_offset = rng_below(x->r, m->notes_offset / 4096 + 4) * 4096;
		m->other_ram = true;
	}
}

/* ---- Lies that agree with themselves -------------------------------------------------------- */

/* The value of a setting in the manifest; NULL: it is not there. */
static struct node *find_setting(struct node *manifest, const char *key)
{
	struct node *list = node_get(node_get(manifest, "req"), "config");
	struct node *s = list && list->type == NODE_ARRAY ? list->first : NULL;

	for (; s; s = s->next) {
		struct node *k = node_get(s, "key");

		if (k && k->len == strlen(key) && !memcmp(k->data, key, k->len))
			return node_get(s, "value");
	}
	return NULL;
}

static void set_setting(struct mutation *x, struct node *manifest, const char *key,
			const char *value)
{
	struct node *v = find_setting(manifest, key), *list, *map, *to;

	if (!v) {
		list = node_get(node_get(manifest, "req"), "config");
		if (!list || list->type != NODE_ARRAY)
			return;
		map = node_uint(&x->arena, 0);
		map->type = NODE_MAP;
		map->first = node_text(&x->arena, "key");
		map->first->next = node_text(&x->arena, key);
		map->first->next->next = node_text(&x->arena, "value");
		v = map->first->next->next->next = node_string(&x->arena, NODE_BYTES, "", 0);
		map->next = list->first;
		list->first = map;
	}
	to = node_string(&x->arena, NODE_BYTES, value, strlen(value));
	v->type = NODE_BYTES;
	v->data = to->data;
	v->len = to->len;
}

static void change_config(struct mutation *x)
{
	static const char *const settings[][2] = {
		{ "memory.size", "8388608" }, { "memory.size", "549755813888" }, { "cpus", "2" },
		{ "memory.size", "4194305" }, { "clock.mode", "realtime" }, { "clock.mode", "virtual" },
		{ "boot.kernel", "/dev/null" }, { "boot.kernel", "/dev/zero" },
		{ "boot.kernel", "/proc/self/mem" }, { "boot.initrd", "/dev/zero" },
		{ "boot.cmdline", "x" }, { "boot.demo", "true" }, { "on_reboot", "restart" },
		{ "input.record", "/tmp/never" }, { "input.replay", "/dev/zero" },
		{ "clock.limit", "1" }, { "config.dump", "true" }, { "clone", "1" },
		{ "lpc.debug_exit", "true" }, { "lpc.com2.path", "pty" }, { "lpc.com3.path", "/etc/passwd" },
		{ "lpc.com4.path", "tcp=127.0.0.1:1" }, { "lpc.com1.path", "unix=/tmp/never" },
		{ "fwcfg.0.name", "opt/x" }, { "fwcfg.0.file", "/dev/zero" }, { "fwcfg.0.string", "y" },
		{ "pci.0.4.0.device", "lpc" }, { "pci.0.4.0.device", "virtio-blk" }, { "a.b.c.d", "e" },
		{ "name", "../x" }, { "name", "%(name)" }, { "uuid", "0" }, { "seed", "5" },
		{ "cpu.model", "skep-v2.1" }, { "cpu.model", "x" }, { "clock.start", "4611686018" },
		{ "clock.tsc_khz", "1000" }, { "clock.insn_ps", "1000000000" }, { "sockets", "64" },
		{ "identity", "kvm" }, { "identity", "hyperv" }, { "identity", "none" },
		{ "x86.triple_fault", "reset" }, { "backend", "kvm" }, { "control", "auto" },
		{ "memory.wired", "true" }, { "destroy_on_poweroff", "false" }, { "", "" }, { ".", "" },
	};
	size_t k = rng_below(x->r, ARRAY_SIZE(settings));
	struct node *manifest;
	struct image_note *n = find_note(x, "manifest", &manifest);

	if (!n)
		return;
	set_setting(x, manifest, settings[k][0],
		    rng_chance(x->r, 90) ? settings[k][1] : any_word(x->r));
	store_note(x, n, manifest);
}

/* What a machine's clock says, wherever it stands. */
struct times {
	struct node *manifest, *machine;
	struct image_note *manifest_note, *machine_note;
};

static bool times_find(struct mutation *x, struct times *t)
{
	t->manifest_note = find_note(x, "manifest", &t->manifest);
	t->machine_note = find_note(x, "machine", &t->machine);
	return t->manifest_note && t->machine_note;
}

static struct node *field(struct node *record, const char *name)
{
	return node_get(node_get(record, "req"), name);
}

static uint64_t number(struct node *record, const char *name)
{
	struct node *n = field(record, name);

	return n && n->type == NODE_UINT ? n->value : 0;
}

static void decimal(char text[24], uint64_t v)
{
	char *p = text + 23;

	*p = '\0';
	do
		*--p = (char)('0' + v % 10);
	while (v /= 10);
	memmove(text, p, strlen(p) + 1);
}

/* Any rate of instructions and any count of them, at the time that they make together. */
static void change_virtual_time(struct mutation *x, struct times *t)
{
	static const uint64_t rates[] = { 1, 2, 999, 1000, 1001, 1000000, 1000000000 };
	uint64_t ps = number(t->machine, "insn_ps"), insns, skipped, run;
	char text[24];

	if (rng_chance(x->r, 50))
		ps = rates[rng_below(x->r, ARRAY_SIZE(rates))];
	insns = rng_chance(x->r, 50) ? any_number(x->r) : number(t->machine, "insns");
	skipped = rng_chance(x->r, 50) ? any_number(x->r) : number(t->machine, "skipped_ns");
	run = insns / 1000 * ps + insns % 1000 * ps / 1000;
	if (rng_chance(x->r, 30) && run < CLOCK_END)
		skipped = CLOCK_END - run - rng_below(x->r, 3);
	decimal(text, ps);
	set_setting(x, t->manifest, "clock.insn_ps", text);
	node_set(field(t->manifest, "insn_ps"), ps);
	node_set(field(t->machine, "insn_ps"), ps);
	node_set(field(t->machine, "insns"), insns);
	node_set(field(t->machine, "skipped_ns"), skipped);
	node_set(field(t->machine, "guest_ns"), run + skipped);
	if (rng_chance(x->r, 50)) {
		node_set(field(t->machine, "point_insns"), 0);
		node_set(field(t->machine, "point_ns"), 0);
	}
}

/* The clock follows the host's from now on. */
static void make_realtime(struct mutation *x, struct times *t)
{
	static const char *const gone[] = { "insn_ps", "insns", "skipped_ns", "point_insns", "point_ns",
					    "input_at" };
	struct node *n;

	set_setting(x, t->manifest, "clock.mode", "realtime");
	set_setting(x, t->manifest, "clock.insn_ps", "1000");
	set_setting(x, t->manifest, "seed", "0");
	node_set(field(t->manifest, "insn_ps"), 1000);
	for (unsigned i = 0; i < ARRAY_SIZE(gone); i++)
		node_set(field(t->machine, gone[i]), 0);
	n = field(t->manifest, "virtual_clock");
	if (n)
		*n = (struct node){ .type = NODE_SIMPLE, .value = 20, .next = n->next };
	n = field(t->machine, "virtual_clock");
	if (n)
		*n = (struct node){ .type = NODE_SIMPLE, .value = 20, .next = n->next };
	n = field(t->machine, "visited");
	if (n)
		*n = (struct node){ .type = NODE_SIMPLE, .value = 20, .next = n->next };
	if (rng_chance(x->r, 50))
		node_set(field(t->machine, "guest_ns"), any_number(x->r) % (CLOCK_END + 1));
}

static void change_tsc(struct mutation *x, struct times *t)
{
	static const uint64_t rates[] = { 1000, 1001, 3579545, 9999999, 10000000 };
	uint64_t khz = rates[rng_below(x->r, ARRAY_SIZE(rates))];
	char text[24];

	decimal(text, khz);
	set_setting(x, t->manifest, "clock.tsc_khz", text);
	node_set(field(t->manifest, "tsc_khz"), khz);
	node_set(field(t->machine, "tsc_khz"), khz);
}

/* The reset line was pulled: what was saved of the tables and the boot files is used again. */
static void ask_reset(struct mutation *x, struct times *t)
{
	struct node *n = field(t->machine, "reset_requested");

	set_setting(x, t->manifest, "on_reboot", "restart");
	if (rng_chance(x->r, 70))
		set_setting(x, t->manifest, "boot.demo", "true");
	if (n)
		*n = (struct node){ .type = NODE_SIMPLE, .value = 21, .next = n->next };
}

/* Host input that waits: any bytes, to any port. */
static void add_input(struct mutation *x, struct times *t)
{
	static const char *const ports[] = { "power", "lpc.com1", "lpc.com2", "lpc.com1.break", "lpc.com3" };
	struct node *list = field(t->machine, "input"), *map, *data;
	unsigned times = 1 + (unsigned)rng_below(x->r, 3);

	for (; list && list->type == NODE_ARRAY && times; times--) {
		size_t len = rng_chance(x->r, 30) ? 65536 : 1 + rng_below(x->r, 700);

		map = node_uint(&x->arena, 0);
		map->type = NODE_MAP;
		data = node_string(&x->arena, NODE_BYTES, NULL, 0);
		data->data = arena_get(&x->arena, len);
		data->len = len;
		map->first = node_text(&x->arena, "data");
		map->first->next = data;
		data->next = node_text(&x->arena, "port");
		data->next->next = node_text(&x->arena, ports[rng_below(x->r, ARRAY_SIZE(ports))]);
		map->next = list->first;
		list->first = map;
	}
}

static void change_machine(struct mutation *x)
{
	struct times t;

	if (!times_find(x, &t))
		return;
	switch (rng_below(x->r, 6)) {
	case 0: make_realtime(x, &t); break;
	case 1: change_tsc(x, &t); break;
	case 2: ask_reset(x, &t); break;
	case 3: add_input(x, &t); break;
	default: change_virtual_time(x, &t); break;
	}
	if (rng_chance(x->r, 20))
		node_set(field(t.machine, "wall_base"), any_number(x->r));
	if (rng_chance(x->r, 20))
		node_set(field(t.manifest, "host_wall_ns"), any_number(x->r));
	store_note(x, t.machine_note, t.machine);
	store_note(x, t.manifest_note, t.manifest);
}

/* Every time that a device holds, at an end of time. */
static void change_device_times(struct mutation *x)
{
	static const char *const names[] = { "start", "base", "switch_at", "irq_tick", "timer_next",
		"tsc_deadline", "checked", "timeout_due", "overflows", "offset_s", "count",
		"initial_count", "tick", "counter", "comparator", "period", "time", "wall", "tsc_page",
		"hypercall_page", "assist_page", "tsc_adjust" };
	const char *name = names[rng_below(x->r, ARRAY_SIZE(names))];
	struct node *list[NODES_MAX];
	uint64_t v = any_number(x->r);

	for (size_t i = 0; i < x->m->nnotes; i++) {
		struct node *root = parse_note(x, &x->m->note[i]);
		size_t n = root ? node_list(root, list, NODES_MAX) : 0, k;
		bool changed = false;

		for (k = 0; k + 1 < n; k++)
			if (list[k]->type == NODE_TEXT && list[k]->len == strlen(name) &&
			    !memcmp(list[k]->data, name, list[k]->len) && list[k]->next)
				changed |= node_set(list[k]->next, rng_chance(x->r, 80) ? v :
						    any_number(x->r));
		if (changed)
			store_note(x, &x->m->note[i], root);
	}
}

/* Bits of the processor that decide how everything else is read. */
static void change_mode(struct mutation *x)
{
	static const struct { const char *name; unsigned bits; } words[] = {
		{ "cr0", 32 }, { "cr4", 22 }, { "efer", 12 }, { "rflags", 22 }, { "cr3", 40 }, { "rip", 48 },
		{ "dr7", 32 }, { "apic_base", 40 }, { "pending_dbg", 16 }, { "cr8", 4 }, { "xcr0", 3 },
	};
	struct node *cpu, *n;
	struct image_note *note = find_note(x, "cpu.0", &cpu);
	unsigned times = 1 + (unsigned)rng_below(x->r, 4);

	for (; note && times; times--) {
		size_t k = rng_below(x->r, ARRAY_SIZE(words));

		n = field(cpu, words[k].name);
		if (n && n->type == NODE_UINT)
			n->value ^= 1ull << rng_below(x->r, words[k].bits);
	}
	if (note)
		store_note(x, note, cpu);
}

/* ---- All of them ------------------------------------------------------------------------------ */

void mutate(struct image *m, struct rng *r, const struct image *others, size_t nothers)
{
	static const struct { void (*change)(struct mutation *x); unsigned weight; } changes[] = {
		{ change_record, 50 }, { take_record, 8 }, { change_notes, 5 }, { change_tables, 6 },
		{ change_ram, 3 }, { change_header, 3 }, { change_config, 6 }, { change_machine, 8 },
		{ change_device_times, 5 }, { change_mode, 6 },
	};
	struct mutation x = { .m = m, .r = r, .others = others, .nothers = nothers,
			      .sorted = !rng_chance(r, 10) };
	unsigned times = rng_chance(r, 50) ? 1 : 1 + (unsigned)rng_below(r, 5), k;

	while (times--) {
		size_t at = rng_below(r, 100);

		for (k = 0; at >= changes[k].weight; k++)
			at -= changes[k].weight;
		changes[k].change(&x);
	}
	arena_free(&x.arena);
}
