/*
 * No interrupt is lost and none comes twice, wherever a machine is saved and restored.
 *
 * For each way that an interrupt can take, all states are visited that its chips can come to: two
 * devices that share a wire, one more with a higher priority, acknowledges, ends of interrupt, masks,
 * the task priority, in every order.  From each state one more thing is done twice: on a board that has
 * come there and was left alone, and on a fresh one that was restored there.
 */
#include "board.h"

#define GSI		10
#define GSI_HIGHER	11
#define VECTOR		0x61
#define VECTOR_HIGHER	0x71
#define PIC_BASE	0x30

#define RTE_LEVEL	0x8000u
#define RTE_REMOTE_IRR	0x4000u
#define RTE_MASKED	0x10000u

enum path { PIC_EDGE, PIC_LEVEL, PIC_POLLED, PIC_AUTO_EOI, IOAPIC_EDGE, IOAPIC_LEVEL, IOAPIC_DIRECTED,
	    MSI_EDGE, PATHS };

static const char *const path_names[] = {
	"8259, edge", "8259, level", "8259 polled through LINT0 as a level", "8259 with automatic EOI",
	"I/O APIC, edge", "I/O APIC, level", "I/O APIC, level, directed EOI", "MSI",
};

/* A board, and the wires of the three devices on it. */
struct side {
	struct board *b;
	struct irq_line a, shares, higher;
	enum path path;
};

static struct config *config;

static bool by_pic(enum path p) { return p <= PIC_AUTO_EOI; }
static bool by_level(enum path p)
{
	return p == PIC_LEVEL || p == PIC_POLLED || p == IOAPIC_LEVEL || p == IOAPIC_DIRECTED;
}

static uint32_t apic(const struct side *s, uint32_t reg)
{
	return (uint32_t)lapic_mmio_read(s->b->apic, reg, 4);
}

static void set_apic(const struct side *s, uint32_t reg, uint32_t v)
{
	lapic_mmio_write(s->b->apic, reg, 4, v);
}

static uint32_t entry(const struct side *s, unsigned pin)
{
	bus_write(&s->b->vm->mmio, IOAPIC_BASE, 4, 0x10 + 2 * pin);
	return (uint32_t)bus_read(&s->b->vm->mmio, IOAPIC_BASE + 0x10, 4);
}

static void set_entry(const struct side *s, unsigned pin, uint32_t low)
{
	bus_write(&s->b->vm->mmio, IOAPIC_BASE, 4, 0x10 + 2 * pin);
	bus_write(&s->b->vm->mmio, IOAPIC_BASE + 0x10, 4, low);
}

/* ---- What a guest does at first --------------------------------------- */

static void start_pic(const struct side *s)
{
	const uint8_t icw4 = s->path == PIC_AUTO_EOI ? 0x03 : 0x01;
	const uint8_t words[][2] = {
		{ 0x20, 0x11 }, { 0x21, PIC_BASE }, { 0x21, 0x04 }, { 0x21, icw4 },
		{ 0xa0, 0x11 }, { 0xa1, PIC_BASE + 8 }, { 0xa1, 0x02 }, { 0xa1, icw4 },
		{ 0x21, 0xfb }, { 0xa1, 0xf3 },
	};

	for (size_t i = 0; i < ARRAY_SIZE(words); i++)
		out8(s->b->vm, words[i][0], words[i][1]);
	if (by_level(s->path))
		out8(s->b->vm, 0x4d1, 0x04);
	/* IRQ 10 comes before 11 by itself; here 11 is the higher one. */
	out8(s->b->vm, 0xa0, 0xc0 | 2);
}

static void start(const struct side *s)
{
	for (struct device *d = s->b->vm->devices; d; d = d->next)
		d->type->reset(d);
	set_apic(s, 0xf0, s->path == IOAPIC_DIRECTED ? 0x11ff : 0x1ff);
	if (by_pic(s->path))
		start_pic(s);
	if (s->path == PIC_POLLED)
		set_apic(s, 0x350, RTE_LEVEL | VECTOR);
	else if (!by_pic(s->path))
		set_apic(s, 0x350, RTE_MASKED);
	if (!by_pic(s->path)) {
		set_entry(s, GSI, VECTOR | (by_level(s->path) ? RTE_LEVEL : 0));
		set_entry(s, GSI_HIGHER, VECTOR_HIGHER);
	}
	chip_requests(s->b->vm->vcpus[0]);
}

/* ---- What may happen --------------------------------------------------- */

static bool pending(const struct side *s)
{
	return lapic_pending_vector(s->b->apic) >= 0 ||
	       (lapic_accepts_extint(s->b->apic) && chipset_pic_intr(s->b->vm));
}

/* As vcpu_intr_ack; a polling handler asks the 8259 pair then, whose word comes in bits 15:8. */
static int acknowledge(const struct side *s)
{
	struct vm *vm = s->b->vm;
	int v;

	if (lapic_accepts_extint(s->b->apic) && chipset_pic_intr(vm))
		return chipset_pic_ack(vm);
	v = lapic_ack(s->b->apic);
	if (v >= 0 && s->path == PIC_POLLED) {
		out8(vm, 0x20, 0x0c);
		v |= (int)in8(vm, 0x20) << 8;
		out8(vm, 0xa0, 0x0c);
		v |= (int)in8(vm, 0xa0) << 16;
	}
	return v;
}

static uint8_t in_service(const struct side *s)
{
	for (int n = 255; n >= 16; n--)
		if (apic(s, 0x100 + (n / 32) * 16) >> n % 32 & 1)
			return (uint8_t)n;
	return 0;
}

static void end_of_interrupt(const struct side *s)
{
	uint8_t vector = in_service(s);

	if (by_pic(s->path)) {
		out8(s->b->vm, 0xa0, 0x20);
		out8(s->b->vm, 0x20, 0x20);
	}
	set_apic(s, 0xb0, 0);
	if (s->path == IOAPIC_DIRECTED && vector == VECTOR)
		bus_write(&s->b->vm->mmio, IOAPIC_BASE + 0x40, 4, vector);
}

static void mask(const struct side *s, bool on)
{
	if (by_pic(s->path))
		out8(s->b->vm, 0xa1, on ? 0xf7 : 0xf3);
	else
		set_entry(s, GSI, (entry(s, GSI) & ~RTE_MASKED) | (on ? RTE_MASKED : 0));
}

static void raise(const struct side *s, const struct irq_line *l, int level, uint32_t message)
{
	if (s->path != MSI_EDGE)
		irq_set(l, level);
	else if (level)
		chipset_msi(s->b->vm, LAPIC_BASE, message);
}

enum op { A_UP, A_DOWN, B_UP, B_DOWN, HIGHER, ACK, EOI, MASK, UNMASK, PRIORITY, NO_PRIORITY, OPS };

static const char *const op_names[] = {
	"a up", "a down", "b up", "b down", "higher", "ack", "eoi", "mask", "unmask", "tpr 60", "tpr 0",
};

static int apply(const struct side *s, enum op op)
{
	switch (op) {
	case A_UP:
	case A_DOWN:
		raise(s, &s->a, op == A_UP, 0x4000 | VECTOR);
		return 0;
	case B_UP:
	case B_DOWN:
		raise(s, &s->shares, op == B_UP, 0x4000 | VECTOR);
		return 0;
	case HIGHER:
		raise(s, &s->higher, 1, 0x4000 | VECTOR_HIGHER);
		raise(s, &s->higher, 0, 0);
		return 0;
	case ACK:
		return acknowledge(s);
	case EOI:
		end_of_interrupt(s);
		return 0;
	case MASK:
	case UNMASK:
		mask(s, op == MASK);
		return 0;
	default:
		set_apic(s, 0x80, op == PRIORITY ? 0x60 : 0);
		return 0;
	}
}

/* ---- States -------------------------------------------------------------- */

#define STATES_MAX	20000
#define DEPTH_MAX	40

struct state {
	uint8_t *bytes;
	size_t len;
	unsigned parent;
	uint8_t op, depth;
};

static struct state states[STATES_MAX];
static unsigned nstates;

static unsigned *buckets;
#define BUCKETS 65536u

static uint32_t hash(const uint8_t *p, size_t len)
{
	uint32_t h = 2166136261u;

	while (len--)
		h = (h ^ *p++) * 16777619u;
	return h;
}

/* The number of the state in which the board is, and whether it is a new one. */
static unsigned number(const struct side *s, unsigned parent, enum op op, bool *fresh)
{
	struct board_state now;
	uint32_t h;

	board_export(s->b, &now);
	h = hash(now.bytes.data, now.bytes.len);
	for (;; h++) {
		unsigned n = buckets[h % BUCKETS];

		if (!n)
			break;
		if (states[n].len == now.bytes.len &&
		    !memcmp(states[n].bytes, now.bytes.data, now.bytes.len)) {
			board_state_free(s->b, &now);
			*fresh = false;
			return n;
		}
	}
	assert_true(++nstates < STATES_MAX);
	states[nstates] = (struct state){ malloc(now.bytes.len), now.bytes.len, parent, (uint8_t)op,
					  parent ? states[parent].depth + 1 : 0 };
	assert_non_null(states[nstates].bytes);
	memcpy(states[nstates].bytes, now.bytes.data, now.bytes.len);
	buckets[h % BUCKETS] = nstates;
	board_state_free(s->b, &now);
	*fresh = true;
	return nstates;
}

static void told(enum path path, unsigned n, const char *what, const char *why)
{
	char text[1000] = "";
	uint8_t ops[DEPTH_MAX];
	unsigned i = 0;

	for (; states[n].parent && i < DEPTH_MAX; n = states[n].parent)
		ops[i++] = states[n].op;
	while (i--) {
		strcat(text, op_names[ops[i]]);
		strcat(text, ", ");
	}
	fail_msg("%s: after %sthen %s: %s", path_names[path], text, what, why);
}

/* What edges ask for, in a few lines: what must come when all is served. */
struct wanted {
	bool a, b, masked, one, higher;
};

static bool is_higher(int v) { return (v & 0xff) == VECTOR_HIGHER || v == PIC_BASE + GSI_HIGHER; }

static void want(struct wanted *w, enum path path, enum op op, int got)
{
	bool was = w->a || w->b, message = path == MSI_EDGE;

	if (op == A_UP || op == A_DOWN)
		w->a = op == A_UP;
	if (op == B_UP || op == B_DOWN)
		w->b = op == B_UP;
	if (op == MASK || op == UNMASK)
		w->masked = op == MASK && !message;
	/* The 8259 latches what it does not let through; the I/O APIC does not. */
	if ((op == A_UP || op == B_UP) && (!was || message) && (!w->masked || by_pic(path)))
		w->one = true;
	if (op == HIGHER)
		w->higher = true;
	if (op == ACK && is_higher(got))
		w->higher = false;
	else if (op == ACK && got >= 0)
		w->one = false;
}

/* Returns how many interrupts are to come yet, if they are edges. */
static unsigned go_to(const struct side *s, unsigned n)
{
	struct wanted w = { 0 };
	uint8_t ops[DEPTH_MAX];
	unsigned i = 0;

	for (; states[n].parent; n = states[n].parent) {
		assert_true(i < DEPTH_MAX);
		ops[i++] = states[n].op;
	}
	start(s);
	while (i--)
		want(&w, s->path, ops[i], apply(s, ops[i]));
	return w.one + w.higher;
}

/* Gives one board's state to the other, which raises nothing meanwhile. */
static void restore(const struct side *from, const struct side *to, unsigned n, const char *what)
{
	struct vcpu *v = to->b->vm->vcpus[0];

	chip_requests(v);
	to->b->intr_edges = to->b->messages = 0;
	from->b->intr_edges = from->b->messages = 0;
	board_copy(from->b, to->b);
	if (to->b->intr_edges || to->b->messages)
		told(from->path, n, what, "a restore raised something");
}

/* ---- Until everybody has been served ------------------------------------- */

static bool asserted(const struct side *s, bool *a)
{
	struct device *d = board_device(s->b, "board");
	void *model;
	struct state_buf bytes = { 0 };
	const uint8_t *level;
	bool b;

	chip_export(d, &model, &bytes);
	level = model;
	*a = level[s->a.n / 8] >> s->a.n % 8 & 1;
	b = level[s->shares.n / 8] >> s->shares.n % 8 & 1;
	chip_model_free(d, model);
	state_buf_free(&bytes);
	return *a || b;
}

/* A handler that serves one of the two each time.  Returns how many interrupts came. */
static unsigned drain(const struct side *s, unsigned n)
{
	unsigned came = 0;
	bool a;

	set_apic(s, 0x80, 0);
	mask(s, false);
	/* What was in service comes to its end first. */
	for (unsigned i = 0; i < 4; i++)
		end_of_interrupt(s);
	for (unsigned i = 0; pending(s); i++) {
		int v = acknowledge(s);

		if (i == 32)
			told(s->path, n, "serving all", "interrupts do not end");
		came++;
		if (!is_higher(v) && asserted(s, &a))
			raise(s, a ? &s->a : &s->shares, 0, 0);
		end_of_interrupt(s);
	}
	if (by_level(s->path) && asserted(s, &a))
		told(s->path, n, "serving all", "a device asserts and is not heard");
	if (in_service(s) || (entry(s, GSI) & RTE_REMOTE_IRR))
		told(s->path, n, "serving all", "something stays in service");
	return came;
}

/* ---- All of it ------------------------------------------------------------- */

static void step(const struct side *alone, const struct side *restored, unsigned n, enum op op)
{
	uint32_t asked[2];
	bool before, fresh;
	int got[2];
	unsigned to;

	go_to(alone, n);
	restore(alone, restored, n, op_names[op]);
	chip_requests(alone->b->vm->vcpus[0]);
	chip_requests(restored->b->vm->vcpus[0]);
	before = pending(alone);
	if (pending(restored) != before)
		told(alone->path, n, "a restore", "an interrupt is pending on one of them");
	got[0] = apply(alone, op);
	got[1] = apply(restored, op);
	asked[0] = chip_requests(alone->b->vm->vcpus[0]);
	asked[1] = chip_requests(restored->b->vm->vcpus[0]);
	if (got[0] != got[1] || asked[0] != asked[1] || alone->b->wires != restored->b->wires)
		told(alone->path, n, op_names[op], "the restored one goes on otherwise");
	if (op != ACK && !before && pending(alone) && !(asked[0] & VCPU_REQ_INTR))
		told(alone->path, n, op_names[op], "the processor is not told");
	to = number(alone, n, op, &fresh);
	if (number(restored, n, op, &fresh) != to || fresh)
		told(alone->path, n, op_names[op], "the restored one is in another state");
}

static void explore(enum path path)
{
	struct side alone = { .path = path }, restored = { .path = path };
	struct side *both[] = { &alone, &restored };
	unsigned wanted, came;
	bool fresh;

	for (unsigned i = 0; i < 2; i++) {
		both[i]->b = board_make(config);
		both[i]->a = chipset_gsi(both[i]->b->vm, GSI);
		both[i]->shares = chipset_gsi(both[i]->b->vm, GSI);
		both[i]->higher = chipset_gsi(both[i]->b->vm, GSI_HIGHER);
	}
	nstates = 0;
	buckets = calloc(BUCKETS, sizeof(*buckets));
	assert_non_null(buckets);
	start(&alone);
	number(&alone, 0, 0, &fresh);
	for (unsigned n = 1; n <= nstates; n++) {
		for (unsigned op = 0; op < OPS; op++)
			step(&alone, &restored, n, op);
		wanted = go_to(&alone, n);
		restore(&alone, &restored, n, "serving all");
		came = drain(&alone, n);
		if (drain(&restored, n) != came)
			told(path, n, "serving all", "as many interrupts did not come to the restored one");
		if (!by_level(path) && came != wanted)
			told(path, n, "serving all", "interrupts were lost or came twice");
	}
	print_message("%s: %u states\n", path_names[path], nstates);
	while (nstates)
		free(states[nstates--].bytes);
	free(buckets);
	board_free(alone.b);
	board_free(restored.b);
}

static void every_state_of_every_path(void **state)
{
	for (enum path p = 0; p < PATHS; p++)
		explore(p);
}

static int group_setup(void **state)
{
	config = board_config(NULL, 0);
	return 0;
}

static int group_teardown(void **state)
{
	config_destroy(config);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_state_of_every_path),
	};

	return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
