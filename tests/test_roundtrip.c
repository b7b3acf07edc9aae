/*
 * Save and restore of all devices, by property: a board that is saved and given to a fresh one
 * again and again behaves as one that is left alone, to the last read value, the last interrupt
 * message and the last due time; and no state that validation lets pass can do harm.
 */
#include <inttypes.h>
#include <time.h>
#include <unistd.h>

#include "board.h"
#include "chipset/uart.h"
#include "pci/pci.h"

static const char *const keys[][2] = {
	/* Peers that swallow everything: modem lines are up. */
	{ "lpc.com1.path", "null" }, { "lpc.com2.path", "null" },
};

static struct config *config;

static int group_setup(void **state)
{
	config = board_config(keys, ARRAY_SIZE(keys));
	return 0;
}

static int group_teardown(void **state)
{
	config_destroy(config);
	return 0;
}

/* ---- Random accesses ------------------------------------------------- */

static uint64_t rng;

static uint64_t roll(void)
{
	rng ^= rng << 13;
	rng ^= rng >> 7;
	rng ^= rng << 17;
	return rng * 0x2545f4914f6cdd1dull;
}

static uint64_t below(uint64_t n)
{
	return (roll() >> 16) % n;
}

enum what { IN, OUT, APIC_IN, APIC_OUT, MSR_IN, MSR_OUT, MEM_IN, MEM_OUT, DEADLINE, ADJUST, TPR, ACK,
	    INTA, INPUT, POWER, GPE, NMI, MSI, BASE, RUN, LATE };

static const char *const names[] = {
	"in", "out", "apic in", "apic out", "msr in", "msr out", "mem in", "mem out", "deadline",
	"adjust", "tpr", "ack", "inta", "input", "power", "gpe", "nmi", "msi", "base", "run", "late",
};

struct op {
	enum what what;
	unsigned size;
	uint64_t at, value;
};

static const uint16_t ports[] = {
	0x20, 0x21, 0xa0, 0xa1, 0x4d0, 0x4d1, 0x40, 0x41, 0x42, 0x43, 0x43, 0x61, 0x70, 0x71, 0x72, 0x73,
	0x60, 0x64, 0x92, 0xcf8, 0xcf8, 0xcf9, 0xcfc, 0xcfc, 0xcfd, 0xcff, 0x510, 0x511, 0x514,
	0x600, 0x602, 0x604, 0x608, 0x620, 0x624, 0x628, 0x62f, 0x680, 0x682,
};

static struct op port_op(void)
{
	struct op o = { .what = roll() & BIT(40) ? IN : OUT, .size = 1, .value = roll() };
	uint64_t kind = below(16);

	if (kind < 5)
		o.at = (uint64_t[]){ 0x3f8, 0x2f8, 0x3e8, 0x2e8 }[below(4)] + below(8);
	else
		o.at = ports[below(ARRAY_SIZE(ports))];
	if (kind == 15 || o.at >= 0x510)
		o.size = 1u << below(3);
	/* Values that a driver would write. */
	if (o.at == 0x43 && kind & 1)
		o.value = below(3) << 6 | 0x30 | (o.value & 0x0f);
	if (o.at >= 0x40 && o.at < 0x43 && kind & 2)
		o.value = below(6);
	if (o.at == 0x70 && kind & 1)
		o.value = below(16);
	if (o.at == 0x64 && kind & 1)
		o.value = 0xd1;
	if ((o.at == 0x20 || o.at == 0xa0) && kind & 4)
		o.value = 0x20;
	if (o.at == 0xcf8 && kind & 4) {
		o.size = 4;
		o.value = 0x80000000 | (uint64_t[]){ 0xf840, 0xf844, 0xf8f0, 0x60, 0x90, 0x94 }[below(6)];
	}
	if (o.at == 0xcfc && kind & 4)
		o.value = kind & 1 ? 0x601 : kind & 2 ? 0x80 : ECAM_BASE | 1 | (o.value & 6);
	return o;
}

static struct op apic_op(void)
{
	struct op o = { .what = APIC_OUT, .size = 4, .value = roll() & 0xffffffff };
	static const uint16_t regs[] = {
		0x80, 0xb0, 0xb0, 0xb0, 0xd0, 0xe0, 0xf0, 0x280, 0x300, 0x310, 0x320, 0x350, 0x360, 0x370,
		0x380, 0x390, 0x3e0, 0x20, 0x30, 0x100, 0x170, 0x200,
	};
	uint64_t kind = below(16);

	o.at = kind ? regs[below(ARRAY_SIZE(regs))] : below(4096);
	if (kind < 4)
		o.what = APIC_IN;
	else if (kind < 7)
		o.what = MSR_OUT;
	else if (kind < 9)
		o.what = MSR_IN;
	if (o.what == APIC_IN)
		o.size = 1u << below(4);
	if (o.at == 0xf0 && kind & 1)
		o.value = 0x1ff;
	if (o.at == 0x320)
		o.value &= 0x600ff | (kind & 8) << 13;
	if (o.at == 0x380)
		o.value &= kind & 1 ? 0xffff : 0xfffff;
	if (o.at == 0x80)
		o.value &= kind & 1 ? 0 : 0xff;
	if (o.at == 0x300)	/* few INITs: they undo everything */
		o.value &= kind == 15 ? 0xffffffff : 0xcf8ff;
	if (o.what == MSR_IN || o.what == MSR_OUT)
		o.at = 0x800 + (o.at >> 4);
	return o;
}

static struct op hpet_op(void)
{
	static const uint16_t regs[] = {
		0x00, 0x04, 0x10, 0x10, 0x20, 0x20, 0xf0, 0xf4, 0x100, 0x104, 0x108, 0x10c, 0x110, 0x114,
	};
	struct op o = { .what = roll() & BIT(40) ? MEM_OUT : MEM_IN, .size = 4, .value = roll() };
	uint64_t kind = below(16), reg = regs[below(ARRAY_SIZE(regs))];

	o.at = HPET_BASE + reg + (reg >= 0x100 ? 0x20 * below(3) : 0);
	if (kind == 15) {
		o.at = HPET_BASE + below(0x400);
		o.size = 1u << below(4);
	} else if (kind & 1 && !(reg & 4)) {
		o.size = 8;
	}
	if (reg == 0x10 && kind)	/* mostly running */
		o.value |= 1;
	if (reg == 0xf0 && kind & 2)	/* where the comparators are */
		o.value &= 0xffff;
	if (reg == 0x100 && kind & 2)	/* enabled, and to a pin that there is */
		o.value = (o.value & 0x4f4a) | 4 | (20 + (o.value >> 16 & 3)) << 9;
	if (reg == 0x108 && kind & 6)
		o.value &= kind & 8 ? 0xfff : 0x3ffff;
	if (reg == 0x114)
		o.value = LAPIC_BASE | (o.value & 0xff00c);
	return o;
}

static struct op io_apic_op(void)
{
	struct op o = { .what = roll() & BIT(40) ? MEM_OUT : MEM_IN, .size = 4 };

	switch (below(8)) {
	case 0:
		o.at = ECAM_BASE + (below(2) * 31 << 15) + below(256);
		o.size = 1u << below(3);
		o.value = roll();
		break;
	case 1:
		o.at = IOAPIC_BASE + below(0x50);
		o.size = 1u << below(4);
		o.value = roll();
		break;
	case 2: case 3: case 4:
		o.what = MEM_OUT;
		o.at = IOAPIC_BASE;
		o.value = below(4) ? 0x10 + below(48) : below(256);
		break;
	default:
		o.at = IOAPIC_BASE + (below(8) ? 0x10 : 0x40);
		o.value = roll() & 0xffffffff;
		if (below(2))		/* unmasked, to the one processor there is */
			o.value = (o.value & 0x8800) | 0x20 | (o.value & 0x5f);
		break;
	}
	return o;
}

static struct op other_op(void)
{
	struct op o = { .value = roll() };

	switch (below(16)) {
	case 0:
		o.what = DEADLINE;
		break;
	case 1:
		o.what = below(8) ? TPR : ADJUST;
		break;
	case 2: case 3: case 4:
		o.what = ACK;
		break;
	case 5: case 6:
		o.what = INTA;
		break;
	case 7: case 8: case 9:
		o.what = INPUT;
		o.size = 1 + (unsigned)below(below(8) ? 24 : 600);
		break;
	case 10:
		o.what = POWER;
		break;
	case 11:
		o.what = GPE;
		break;
	case 12:
		o.what = NMI;
		break;
	case 13:
		o.what = MSI;
		break;
	default:
		o.what = below(64) ? LATE : BASE;
		/* The PM timer turns over every ten minutes. */
		o.at = below(below(8) ? 20000 : below(8) ? 2000000 : 1000 * NSEC_PER_SEC);
		break;
	}
	return o;
}

static struct op next_op(void)
{
	struct op o = { .what = RUN };
	uint64_t kind = below(22);

	if (kind >= 20)
		return hpet_op();
	if (kind < 8)
		return port_op();
	if (kind < 11)
		return apic_op();
	if (kind < 14)
		return io_apic_op();
	if (kind < 17)
		return other_op();
	/* Mostly short; now and then so long that the RTC's seconds pass. */
	o.at = below(kind == 17 ? 1000 : kind == 18 ? 300000 : below(20) ? 3000000 : 1500000000);
	return o;
}

/* ---- One of them, on one board --------------------------------------- */

/* As chip_run_to, but no guest can keep us: after so many callbacks the host is late instead. */
static void run_to(struct vm *vm, int64_t ns)
{
	unsigned callbacks = 0;
	int64_t due;

	while ((due = timers_next_due(vm)) <= ns && callbacks++ < 4000) {
		clock_skip_to(&vm->clock, due);
		timers_run(vm, chip_now(vm));
	}
	clock_skip_to(&vm->clock, ns);
}

static uint64_t set_base(struct board *b, uint64_t v)
{
	/* On, off and x2APIC; never elsewhere: the page is reached directly here. */
	return lapic_set_base(b->apic, LAPIC_BASE | 0x100 | (v & 0xc00));
}

static uint64_t msr(struct board *b, const struct op *o)
{
	uint64_t v = 0;

	if (o->what == MSR_OUT)
		return lapic_msr_write(b->apic, (uint32_t)o->at, o->value);
	return lapic_msr_read(b->apic, (uint32_t)o->at, &v) ? v : 0xdead;
}

static uint64_t signal(struct board *b, const struct op *o)
{
	static const char text[600] = "what a person types, or a program sends";
	char port[32];

	switch (o->what) {
	case INPUT:
		snprintf(port, sizeof(port), "lpc.com%u%s", (unsigned)(o->value & 3) + 1,
			 o->value & 0x70 ? "" : ".break");
		board_input(b, port, text, o->size);
		return 0;
	case POWER:
		chipset_power_button(b->vm);
		return 0;
	case GPE:
		chipset_gpe(b->vm, o->value & 63);
		return 0;
	case NMI:
		chipset_nmi(b->vm);
		return 0;
	default:
		chipset_msi(b->vm, LAPIC_BASE | (o->value & 0xc), (uint32_t)(o->value >> 32) & 0xc8ff);
		return 0;
	}
}

static uint64_t processor(struct board *b, const struct op *o)
{
	struct vm *vm = b->vm;

	switch (o->what) {
	case DEADLINE:
		lapic_set_tsc_deadline(b->apic, clock_tsc(&vm->clock) + b->tsc_adjust +
				       (o->value & 0xfffff));
		return lapic_get_tsc_deadline(b->apic);
	case ADJUST:
		b->tsc_adjust = o->value;
		lapic_set_tsc_adjust(b->apic, o->value);
		return 0;
	case TPR:
		lapic_set_tpr(b->apic, o->value & 3);
		return lapic_get_tpr(b->apic);
	case ACK:
		return (uint64_t)lapic_ack(b->apic);
	case INTA:
		return chipset_pic_intr(vm) ? (uint64_t)chipset_pic_ack(vm) : 0;
	default:
		return set_base(b, o->value);
	}
}

static uint64_t apply(struct board *b, const struct op *o)
{
	struct vm *vm = b->vm;

	switch (o->what) {
	case IN:
		return bus_read(&vm->ports, o->at, o->size);
	case OUT:
		bus_write(&vm->ports, o->at, o->size, o->value);
		return 0;
	case MEM_IN:
		return bus_read(&vm->mmio, o->at, o->size);
	case MEM_OUT:
		bus_write(&vm->mmio, o->at, o->size, o->value);
		return 0;
	case APIC_IN:
		return lapic_mmio_read(b->apic, o->at, o->size);
	case APIC_OUT:
		lapic_mmio_write(b->apic, o->at, o->size, o->value);
		return 0;
	case MSR_IN: case MSR_OUT:
		return msr(b, o);
	case RUN:
		run_to(vm, chip_now(vm) + (int64_t)o->at);
		return 0;
	case LATE:
		chip_jump(vm, (int64_t)o->at);
		return 0;
	case INPUT: case POWER: case GPE: case NMI: case MSI:
		return signal(b, o);
	default:
		return processor(b, o);
	}
}

/* What the processor and the outside see of a board. */
struct seen {
	uint64_t result, wires;
	int64_t now, due;
	uint32_t requests;
	int vector;
	bool intr, extint, exiting;
	int exit_code;
};

static struct seen look(struct board *b, uint64_t result)
{
	struct vm *vm = b->vm;
	struct seen s = {
		.result = result,
		.wires = b->wires,
		.now = chip_now(vm),
		.due = timers_next_due(vm),
		.requests = atomic_load(&vm->vcpus[0]->requests),
		.vector = lapic_pending_vector(b->apic),
		.intr = chipset_pic_intr(vm),
		.extint = lapic_accepts_extint(b->apic),
		.exiting = vm->exiting,
		.exit_code = vm->exiting ? vm->exit_code : 0,
	};

	atomic_store(&vm->vcpus[0]->requests, 0);
	vm->exiting = false;
	return s;
}

/* ---- The properties -------------------------------------------------- */

static bool sanitized(void)
{
	const char *s = getenv("SKEP_TEST_SANITIZED");

	return s && *s == '1';
}

static unsigned steps(unsigned n)
{
	const char *s = getenv("SKEP_TEST_LONG");

	return s && *s == '1' ? 20 * n : sanitized() ? n / 4 : n;
}

static void expect_same(const struct seen *a, const struct seen *b, uint64_t seed, unsigned step,
			const struct op *o)
{
	if (a->result == b->result && a->wires == b->wires && a->now == b->now && a->due == b->due &&
	    a->requests == b->requests && a->vector == b->vector && a->intr == b->intr &&
	    a->extint == b->extint && a->exiting == b->exiting && a->exit_code == b->exit_code)
		return;
	fail_msg("seed %" PRIu64 ", step %u (%s %#" PRIx64 ", %u, %#" PRIx64 "): "
		 "result %" PRIx64 " %" PRIx64 ", wires %" PRIx64 " %" PRIx64 ", now %" PRId64
		 " %" PRId64 ", due %" PRId64 " %" PRId64 ", requests %x %x, vector %d %d, intr %d %d",
		 seed, step, names[o->what], o->at, o->size, o->value, a->result, b->result, a->wires,
		 b->wires, a->now, b->now, a->due, b->due, a->requests, b->requests, a->vector,
		 b->vector, a->intr, b->intr);
}

static void tell_difference(void *opaque, const char *field, const char *x, const char *y, bool host)
{
	printf("%s.%s: %s and %s\n", (const char *)opaque, field, x, y);
}

static void expect_same_state(const struct board *a, const struct board *b, uint64_t seed,
			      unsigned step)
{
	struct board_state x, y;

	board_export(a, &x);
	board_export(b, &y);
	if (x.bytes.len != y.bytes.len || memcmp(x.bytes.data, y.bytes.data, x.bytes.len)) {
		unsigned i = 0;

		for (struct device *d = a->vm->devices; d; d = d->next, i++)
			if (x.model[i])
				state_diff(d->type->state, x.model[i], y.model[i], tell_difference,
					   d->name);
		fail_msg("seed %" PRIu64 ", step %u: two states", seed, step);
	}
	board_state_free(a, &x);
	board_state_free(b, &y);
}

/*
 * The left board is never touched but by the guest.  The right one is exported at random moments
 * (which must change nothing), and given to a fresh board, or to one that has a life of its
 * own behind it.
 */
static void twins(uint64_t seed, unsigned n)
{
	struct board *left = board_make(config), *right = board_make(config), *used;
	struct board_state s;
	unsigned restores = 0;

	rng = seed | 1;
	for (unsigned i = 0; i < n; i++) {
		struct op o = next_op();
		struct seen a = look(left, apply(left, &o)), b = look(right, apply(right, &o));

		expect_same(&a, &b, seed, i, &o);
		switch (below(64)) {
		case 0:
			right = board_restore(right, config);
			restores++;
			break;
		case 1:
			board_export(right, &s);
			board_state_free(right, &s);
			break;
		case 2:
			if (below(8))
				break;
			expect_same_state(left, right, seed, i);
			break;
		case 3:
			if (below(16))
				break;
			used = board_make(config);
			for (unsigned k = 0; k < 200; k++) {
				o = next_op();
				if (o.what != RUN && o.what != LATE)
					apply(used, &o);
			}
			used->vm->exiting = false;
			board_copy(right, used);
			board_free(right);
			right = used;
			break;
		default:
			break;
		}
	}
	assert_true(restores > n / 200);
	assert_true(left->messages > n / 1000);
	assert_true(left->intr_edges > n / 2000);
	board_free(left);
	board_free(right);
}

static void restored_again_and_again_it_goes_on_alike(void **state)
{
	for (unsigned k = 0; k < 8; k++)
		twins(0x5eed0000 + k, steps(50000));
}

static uint64_t random_seed(void)
{
	const char *given = getenv("SKEP_TEST_SEED");
	struct timespec t;

	clock_gettime(CLOCK_REALTIME, &t);
	return given ? strtoull(given, NULL, 0) : (uint64_t)t.tv_nsec << 20 ^ (uint64_t)t.tv_sec;
}

static void with_a_random_seed(void **state)
{
	uint64_t seed = random_seed();

	printf("seed %" PRIu64 " (SKEP_TEST_SEED=... repeats it)\n", seed);
	twins(seed, steps(50000));
}

/* ---- Hostile models -------------------------------------------------- */

static uint64_t odd_value(uint64_t max, uint64_t old, int64_t now)
{
	switch (below(12)) {
	case 0:
		return 0;
	case 1:
		return max;
	case 2:
		return max + 1;
	case 3:
		return below(max + 1 ? max + 1 : max);
	case 4:
		return roll();
	case 5:
		return roll() >> below(64);
	case 6:
		return old ^ BIT(below(64));
	case 7:
		return old + below(3) - 1;
	case 8:		/* about now, in ns or in ticks of some clock */
		return (uint64_t)now / (1 + below(1000)) + below(2000) - 1000;
	case 9:
		return BIT(below(64)) - below(2);
	case 10:
		return UINT64_MAX - below(4);
	default:
		return (uint64_t)CLOCK_DUE_MAX + below(3) - 1;
	}
}

static void mutate_scalar(const struct state_field *f, uint8_t *p, unsigned size, int64_t now)
{
	uint64_t old = 0, max = f->max ? f->max : UINT64_MAX >> (64 - 8 * size), v;

	memcpy(&old, p, size);
	if (f->type == STATE_T_BOOL)
		max = 1;
	v = odd_value(max, old, now);
	if (f->type == STATE_T_BOOL)	/* what a decoder can give */
		v &= 1;
	memcpy(p, &v, size);
}

static void mutate_blob(const struct state_field *f, struct state_blob *b)
{
	uint32_t len = (uint32_t)below(f->max < 64 ? f->max + 2 : 64);

	free(b->data);
	b->data = len ? calloc(1, len) : NULL;
	b->len = len;
}

/* One in `odds` of its scalars; 1: all of them. */
static void mutate(const struct state_record *r, uint8_t *model, unsigned odds, int64_t now)
{
	static const uint8_t sizes[] = {
		[STATE_T_U8] = 1, [STATE_T_U16] = 2, [STATE_T_U32] = 4, [STATE_T_U64] = 8,
		[STATE_T_BOOL] = 1, [STATE_T_TIME] = 8, [STATE_T_GPA] = 8, [STATE_T_LIST] = 0,
	};

	for (size_t k = 0; k < r->nfields; k++) {
		const struct state_field *f = &r->fields[k];
		uint8_t *p = model + f->offset;
		struct state_list *l = (struct state_list *)p;
		unsigned size = sizes[f->type], i, n = f->size * f->count;

		switch (f->type) {
		case STATE_T_STRUCT:
			for (i = 0; i < f->count; i++)
				mutate(f->sub, p + (size_t)i * f->size, odds, now);
			break;
		case STATE_T_LIST:
			for (i = 0; i < l->count; i++)
				mutate(f->sub, (uint8_t *)l->items + (size_t)i * f->sub->model_size,
				       odds * 8, now);
			break;
		case STATE_T_BLOB:
			if (!below(odds))
				mutate_blob(f, (struct state_blob *)p);
			break;
		case STATE_T_BYTES: case STATE_T_TEXT:
			for (i = 0; i < n; i++)
				if (!below(16 * odds))
					p[i] = (uint8_t)roll();
			if (f->type == STATE_T_TEXT)
				p[n - 1] = 0;
			break;
		default:
			for (i = 0; i + size <= n; i += size)
				if (!below(odds))
					mutate_scalar(f, p + i, size, now);
			break;
		}
	}
}

static const char *fresh_reason(const struct skep_error *e)
{
	const char *colon = strchr(e->text, ':');

	return colon ? colon : "";
}

/* Takes a board through a hostile state: each device's is changed until it passes. */
static unsigned hostile_state(struct board *b, struct board_state *s, unsigned *refused)
{
	struct skep_error e;
	unsigned accepted = 0, i = 0;

	for (struct device *d = b->vm->devices; d; d = d->next, i++) {
		if (!s->model[i])
			continue;
		for (unsigned k = 0; k < 12; k++) {
			unsigned odds = 1u << below(7);
			void *m = calloc(1, d->type->state->model_size);

			e.text[0] = '\0';
			d->type->export(d, m);
			mutate(d->type->state, m, odds, chip_now(b->vm));
			if (chip_check(d, m, &e) < 0) {
				/* A refusal is a sentence that names the device. */
				assert_memory_equal(e.text, d->name, strlen(d->name));
				assert_true(strlen(fresh_reason(&e)) > 3);
				(*refused)++;
				chip_model_free(d, m);
				continue;
			}
			chip_model_free(d, s->model[i]);
			s->model[i] = m;
			accepted++;
			break;
		}
	}
	return accepted;
}

static void no_state_that_passes_can_do_harm(void **state)
{
	unsigned rounds = steps(1600), accepted = 0, refused = 0;
	uint64_t seed = random_seed();

	printf("seed %" PRIu64 " (SKEP_TEST_SEED=... repeats it)\n", seed);
	alarm(280 * (1 + steps(1600) / 1600));	/* a hang is a failure */
	for (unsigned round = 0; round < rounds; round++) {
		struct board *b = board_make(config);
		struct board_state s;
		struct op o;
		unsigned i;

		/* Half of them with the same seeds each time. */
		rng = round % 2 ? (seed + round) | 1 : 0xbad0000 + round;
		for (i = 0; i < 100; i++) {
			o = next_op();
			apply(b, &o);
		}
		board_export(b, &s);
		accepted += hostile_state(b, &s, &refused);
		board_commit(b, &s, chip_now(b->vm), roll());
		for (i = 0; i < 1000; i++) {
			o = next_op();
			if (o.what == RUN)
				o.at %= 200000;
			apply(b, &o);
			b->vm->exiting = false;
		}
		board_state_free(b, &s);
		/* Whatever it has become, it can be saved, and what is saved is accepted. */
		b = board_restore(b, config);
		board_free(b);
	}
	alarm(0);
	printf("%u states accepted, %u refused\n", accepted, refused);
	assert_true(accepted > rounds);
	assert_true(refused > rounds);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(restored_again_and_again_it_goes_on_alike),
		cmocka_unit_test(with_a_random_seed),
		cmocka_unit_test(no_state_that_passes_can_do_harm),
	};

	return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
