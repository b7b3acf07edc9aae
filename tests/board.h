/*
 * Whole boards for tests of save and restore: every chip, a recorder in place of the processor,
 * guest time moved by hand.  A board's state can be taken and given to another one; what goes
 * over its wires to the processor is summed up, so that two boards can be compared.
 */
#ifndef SKEP_TESTS_BOARD_H
#define SKEP_TESTS_BOARD_H

#include "chip.h"

#include "chipset/chipset.h"
#include "chipset/i8259.h"
#include "chipset/ioapic.h"
#include "chipset/lapic.h"
#include "vm/inputlog.h"
#include "vm/machine_record.h"

struct board {
	struct vm *vm;
	struct lapic *apic;
	uint64_t tsc_adjust;	/* the processor's */
	uint64_t wires;		/* what happened on them: a running sum */
	unsigned intr_edges, messages;
};

/* The configuration that all boards of a test share; it outlives them. */
static inline struct config *board_config(const char *const (*keys)[2], size_t nkeys)
{
	struct config *c = config_create();
	struct skep_error e = { .text = "" };

	assert_non_null(c);
	assert_int_equal(config_set(c, "memory.size", "64M", "test", &e), 0);
	for (size_t i = 0; i < nkeys; i++)
		if (config_set(c, keys[i][0], keys[i][1], "test", &e) < 0)
			fail_msg("%s", e.text);
	if (config_freeze(c, &e) < 0)
		fail_msg("%s", e.text);
	return c;
}

static inline struct device *board_device(const struct board *b, const char *name)
{
	for (struct device *d = b->vm->devices; d; d = d->next)
		if (!strcmp(d->name, name))
			return d;
	fail_msg("no device %s", name);
	return NULL;
}

/* The taps find their board by its machine; a test has few at a time. */
static struct board *board_list[4];

static inline struct board *board_of(const struct vm *vm)
{
	for (unsigned i = 0; i < ARRAY_SIZE(board_list); i++)
		if (board_list[i] && board_list[i]->vm == vm)
			return board_list[i];
	return NULL;
}

static inline void board_note(struct board *b, uint64_t v)
{
	b->wires = (b->wires ^ v) * 0x9e3779b97f4a7c15ull + (b->wires >> 29);
}

static inline bool board_message(struct vm *vm, uint32_t dest, bool logical, unsigned mode,
				 uint8_t vector, bool level)
{
	struct board *b = board_of(vm);

	board_note(b, (uint64_t)dest << 32 | vector | mode << 8 | logical << 12 | level << 13);
	b->messages++;
	return lapic_deliver(vm, dest, logical, mode, vector, level);
}

static inline void board_intr(void *opaque, bool level)
{
	struct board *b = opaque;

	board_note(b, 0xa5a50000u | level);
	b->intr_edges++;
	lapic_lint(b->apic, 0, level);
}

/* A freshly made one, with the taps in place.  With clock=realtime its guest time stands at 0. */
static inline struct board *board_make_mode(struct config *config, enum clock_mode mode)
{
	struct skep_error e = { .text = "" };
	struct board *b = calloc(1, sizeof(*b));
	unsigned i;

	assert_non_null(b);
	b->vm = chip_vm();
	b->vm->config = config;
	if (mode == CLOCK_MODE_REALTIME) {
		clock_init(&b->vm->clock, mode);
		clock_set_paused(&b->vm->clock, 0);
	}
	for (i = 0; i < ARRAY_SIZE(board_list) && board_list[i]; i++)
		;
	assert_true(i < ARRAY_SIZE(board_list));
	board_list[i] = b;
	b->apic = lapic_create(chip_vcpu(b->vm), &e);
	assert_non_null(b->apic);
	if (chipset_create(b->vm, &e) < 0)
		fail_msg("%s", e.text);
	ioapic_connect((struct ioapic *)board_device(b, "ioapic"), board_message);
	i8259_connect_intr((struct i8259 *)board_device(b, "i8259"), board_intr, b);
	for (struct device *d = b->vm->devices; d; d = d->next)
		d->type->reset(d);
	chip_requests(b->vm->vcpus[0]);
	b->wires = b->intr_edges = b->messages = 0;
	return b;
}

static inline struct board *board_make(struct config *config)
{
	return board_make_mode(config, CLOCK_MODE_VIRTUAL);
}

static inline void board_free(struct board *b)
{
	for (unsigned i = 0; i < ARRAY_SIZE(board_list); i++)
		if (board_list[i] == b)
			board_list[i] = NULL;
	chipset_destroy(b->vm);
	chip_vm_end(b->vm);
	free(b);
}

/* One model for each device, in the order of the list. */
struct board_state {
	unsigned n;
	void *model[32];
	struct state_buf bytes;		/* all of them, encoded */
};

static inline void board_export(const struct board *b, struct board_state *s)
{
	memset(s, 0, sizeof(*s));
	for (struct device *d = b->vm->devices; d; d = d->next) {
		assert_true(s->n < ARRAY_SIZE(s->model));
		s->model[s->n] = NULL;
		if (d->type->state != &STATE_NONE)
			chip_export(d, &s->model[s->n], &s->bytes);
		s->n++;
	}
}

static inline void board_state_free(const struct board *b, struct board_state *s)
{
	unsigned i = 0;

	for (struct device *d = b->vm->devices; d; d = d->next, i++)
		if (s->model[i])
			chip_model_free(d, s->model[i]);
	state_buf_free(&s->bytes);
}

static inline int board_check(const struct board *b, const struct board_state *s,
			      struct skep_error *e)
{
	unsigned i = 0;
	int err = 0;

	for (struct device *d = b->vm->devices; d && !err; d = d->next, i++)
		if (s->model[i])
			err = chip_check(d, s->model[i], e);
	return err;
}

/* The order of vm/machine.c: guest time, the processor, the devices. */
static inline void board_commit(struct board *b, const struct board_state *s, int64_t now,
				uint64_t tsc_adjust)
{
	unsigned i = 0;

	if (b->vm->clock.mode == CLOCK_MODE_REALTIME)
		clock_set_paused(&b->vm->clock, now);
	else
		clock_skip_to(&b->vm->clock, now);
	b->tsc_adjust = tsc_adjust;
	lapic_set_tsc_adjust(b->apic, tsc_adjust);
	for (struct device *d = b->vm->devices; d; d = d->next, i++)
		if (s->model[i])
			d->type->commit(d, s->model[i]);
}

/* Saved, checked, and given to the other board, which is to be as this one is. */
static inline void board_copy(const struct board *from, struct board *to)
{
	struct board_state s, again;
	struct skep_error e = { .text = "" };

	board_export(from, &s);
	if (board_check(to, &s, &e) < 0)
		fail_msg("%s", e.text);
	board_commit(to, &s, chip_now(from->vm), from->tsc_adjust);
	board_export(to, &again);
	assert_int_equal(s.bytes.len, again.bytes.len);
	assert_memory_equal(s.bytes.data, again.bytes.data, s.bytes.len);
	board_state_free(from, &s);
	board_state_free(to, &again);
	to->wires = from->wires;
	to->intr_edges = from->intr_edges;
	to->messages = from->messages;
	atomic_store(&to->vm->vcpus[0]->requests, atomic_load(&from->vm->vcpus[0]->requests));
}

/* A fresh board in the state of this one, which goes away. */
static inline struct board *board_restore(struct board *from, struct config *config)
{
	struct board *to = board_make_mode(config, from->vm->clock.mode);

	board_copy(from, to);
	board_free(from);
	return to;
}

/* Bytes from the host to a serial port (or a press of "power"), here and now. */
static inline void board_input(struct board *b, const char *port, const void *data, uint32_t len)
{
	struct machine_input in = { .data = { .data = (uint8_t *)(uintptr_t)data, .len = len } };
	struct state_list list = { .items = &in, .count = 1 };
	struct input_point now = { .ns = chip_now(b->vm) };

	snprintf(in.port, sizeof(in.port), "%s", port);
	input_log_commit(b->vm, &list);
	input_log_deliver(b->vm, &now);
}

#endif
