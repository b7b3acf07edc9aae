/*
 * The state of a machine as models: complete, checked, carried to another machine.
 *
 * test_machine [STATES [SEED]]: how many hostile states are tried.
 */
#include "vm_helper.h"

#include <string.h>
#include <time.h>

#include "chipset/lapic.h"
#include "config/config.h"
#include "fields.h"
#include "state/codec.h"
#include "vm/machine.h"
#include "vm/machine_record.h"
#include "vm/timer.h"

#define POINT "20000000"

/* ---- Machines ---------------------------------------------------------- */

static struct config *configure(const char *const *settings)
{
	struct config *c = config_create();
	struct skep_error e = { .text = "" };

	assert_non_null(c);
	assert_int_equal(config_set(c, "memory.size", "32", "test", &e), 0);
	for (; *settings; settings++)
		if (config_set_assignment(c, *settings, "test", &e) < 0)
			fail_msg("%s", e.text);
	if (config_freeze(c, &e) < 0)
		fail_msg("%s", e.text);
	return c;
}

#define SETTINGS(...) ((const char *const[]){ __VA_ARGS__, NULL })
#define VIRTUAL "boot.demo=true", "clock.mode=virtual", "seed=5"

struct run {
	struct config *config;
	struct vm *vm;
	int code;
	struct skep_error e;
};

static struct run make(const char *const *settings, bool restored)
{
	struct run r = { .config = configure(settings) };

	r.vm = restored ? vm_create_restored(r.config, &r.e) : vm_create(r.config, &r.e);
	if (!r.vm)
		fail_msg("%s", r.e.text);
	return r;
}

static void go(struct run *r)
{
	r->code = vm_run(r->vm, &r->e);
}

static void end(struct run *r)
{
	vm_destroy(r->vm);
	config_destroy(r->config);
}

static char *dump(struct vm *vm)
{
	char *text = NULL;
	size_t size;
	FILE *f = open_memstream(&text, &size);

	vm_dump_state(vm, f);
	fclose(f);
	return text;
}

static struct machine_state *export(struct vm *vm)
{
	struct skep_error e = { .text = "" };
	struct machine_state *ms = machine_state_export(vm, &e);

	if (!ms)
		fail_msg("%s", e.text);
	return ms;
}

static void copy_extent(void *opaque, uint64_t gpa, const uint8_t *host, uint64_t len)
{
	assert_int_equal(dma_write(opaque, gpa, host, len), 0);
}

static void copy_ram(struct vm *from, struct vm *to)
{
	memory_each_extent(&from->memory, copy_extent, &to->memory);
}

/* ms fits any machine of the same configuration, by names. */
static void rebind(struct vm *vm, struct machine_state *ms)
{
	struct device *d;
	size_t i;

	for (i = 0; i < ms->nparts; i++)
		for (d = vm->devices; d && ms->parts[i].device; d = d->next)
			if (!strcmp(d->name, ms->parts[i].name))
				ms->parts[i].device = d;
}

static void commit(struct vm *vm, struct machine_state *ms)
{
	struct skep_error e = { .text = "" };

	rebind(vm, ms);
	if (machine_state_validate(vm, ms, &e) < 0)
		fail_msg("%s", e.text);
	machine_state_commit(vm, ms);
}

/* The demo guest after so many instructions: shared, and not run any further. */
static struct run base;

static int setup(void **state)
{
	base = make(SETTINGS(VIRTUAL, "clock.limit=" POINT), false);
	go(&base);
	assert_int_equal(base.code, VM_EXIT_HALT);
	return 0;
}

static int teardown(void **state)
{
	end(&base);
	return 0;
}

static void set(struct machine_state *ms, const char *part, const char *field, uint64_t value)
{
	struct machine_part *p = machine_state_find(ms, part);

	assert_non_null(p);
	if (!field_set(p->record, p->model, field, value))
		fail_msg("%s has no %s", part, field);
}

static uint64_t get(struct machine_state *ms, const char *part, const char *field)
{
	struct machine_part *p = machine_state_find(ms, part);

	assert_non_null(p);
	return field_get(p->record, p->model, field);
}

/* ---- The set ----------------------------------------------------------- */

static void every_record_is_listed(void **state)
{
	struct skep_error e = { .text = "" };
	size_t i, k;

	for (i = 0; machine_records[i]; i++) {
		if (state_record_check(machine_records[i], &e) < 0)
			fail_msg("%s", e.text);
		for (k = 0; k < i; k++)
			assert_string_not_equal(machine_records[i]->kind, machine_records[k]->kind);
	}
	for (i = 0; device_types[i]; i++) {
		if (device_types[i]->state == &STATE_NONE)
			continue;
		for (k = 0; machine_records[k]; k++)
			if (machine_records[k] == device_types[i]->state)
				break;
		if (!machine_records[k])
			fail_msg("%s is not in machine_records", device_types[i]->state->kind);
	}
}

static void parts(void **state)
{
	struct skep_error e = { .text = "" };
	struct machine_state *ms = machine_state_blank(base.vm, &e);
	struct machine_state *full = export(base.vm);
	char *before = dump(base.vm), *after;
	size_t i, k;

	assert_non_null(ms);
	assert_int_equal(ms->nparts, full->nparts);
	assert_string_equal(ms->parts[0].name, "machine");
	assert_string_equal(ms->parts[1].name, "cpu.0");
	assert_non_null(machine_state_find(ms, "lpc.com1"));
	assert_null(machine_state_find(ms, "lpc.com"));
	for (i = 0; i < ms->nparts; i++)
		for (k = 0; k < i; k++)
			assert_string_not_equal(ms->parts[i].name, ms->parts[k].name);
	/* A part that was not read, whichever it is. */
	for (i = 0; i < full->nparts; i++) {
		full->parts[i].filled = false;
		assert_true(machine_state_validate(base.vm, full, &e) < 0);
		assert_non_null(strstr(e.text, full->parts[i].name));
		full->parts[i].filled = true;
	}
	assert_int_equal(machine_state_validate(base.vm, full, &e), 0);
	after = dump(base.vm);
	assert_string_equal(before, after);
	free(before);
	free(after);
	machine_state_free(ms);
	machine_state_free(full);
	machine_state_free(NULL);
}

static void goes_on_elsewhere(void **state)
{
	struct run r = make(SETTINGS(VIRTUAL, "clock.limit=30000000"), true);
	struct run straight = make(SETTINGS(VIRTUAL, "clock.limit=30000000"), false);
	struct machine_state *ms = export(base.vm);
	char *want, *got;

	commit(r.vm, ms);
	copy_ram(base.vm, r.vm);
	want = dump(base.vm);
	got = dump(r.vm);
	assert_string_equal(want, got);
	free(want);
	free(got);
	go(&straight);
	go(&r);
	assert_int_equal(r.code, VM_EXIT_HALT);
	want = dump(straight.vm);
	got = dump(r.vm);
	assert_string_equal(want, got);
	free(want);
	free(got);
	machine_state_free(ms);
	end(&r);
	end(&straight);
}

/* ---- Refusals ---------------------------------------------------------- */

/* One field is changed; the sentence names the part and the field. */
static void refused(const char *part, const char *field, uint64_t value, const char *want)
{
	struct machine_state *ms = export(base.vm);
	struct skep_error e = { .text = "" };

	set(ms, part, field, value);
	if (machine_state_validate(base.vm, ms, &e) == 0)
		fail_msg("%s.%s = %#llx is taken", part, field, (unsigned long long)value);
	if (!strstr(e.text, part) && strncmp(part, "cpu.", 4))
		fail_msg("%s.%s: %s", part, field, e.text);
	if (!strstr(e.text, want))
		fail_msg("%s.%s: %s", part, field, e.text);
	machine_state_free(ms);
}

static void bad_machine(void **state)
{
	static const struct { const char *field; uint64_t value; } bad[] = {
		{ "virtual_clock", 0 }, { "virtual_clock", 2 },
		{ "guest_ns", 1 }, { "guest_ns", INT64_MAX }, { "guest_ns", (uint64_t)-1 },
		{ "wall_base", INT64_MAX }, { "wall_base", (uint64_t)INT64_MIN },
		{ "tsc_khz", 0 }, { "tsc_khz", 1000001 }, { "insn_ps", 0 }, { "insn_ps", 999 },
		{ "skipped_ns", (uint64_t)-1 }, { "skipped_ns", INT64_MAX },
		{ "visited", 0 }, { "visited", 2 }, { "point_insns", UINT64_MAX },
		{ "point_ns", INT64_MAX / 8 }, { "point_ns", (uint64_t)-1 },
		{ "input_at", 1 }, { "seeded", 0 }, { "seed", 6 }, { "reset_requested", 1 },
		{ "reset_requested", 2 }, { "turn", 1 }, { "turn", UINT32_MAX }, { "turn_left", 1 },
		{ "turn_left", 10001 },
	};
	struct machine_state *ms = export(base.vm);
	struct skep_error e = { .text = "" };

	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++)
		refused("machine", bad[i].field, bad[i].value,
			!strcmp(bad[i].field, "seeded") ? "seed" :
			!strcmp(bad[i].field, "visited") && !bad[i].value ? "point_insns" :
			bad[i].field);
	refused("machine", "insns", 1, "guest_ns");
	/* The generator would give zeroes for ever. */
	for (unsigned i = 0; i < 4; i++) {
		char field[16];

		snprintf(field, sizeof(field), "entropy[%u]", i);
		set(ms, "machine", field, 0);
	}
	assert_true(machine_state_validate(base.vm, ms, &e) < 0);
	assert_non_null(strstr(e.text, "entropy"));
	machine_state_free(ms);
}

static void two_records_must_agree(void **state)
{
	refused("lapic.0", "base", 0xfee01900, "apic_base");
	refused("lapic.0", "tpr", 0x20, "cr8");
	refused("cpu.0", "cr8", 2, "cr8");
	refused("cpu.0", "apic_base", 0xfee00100, "apic_base");
}

static void waiting_input(struct machine_state *ms, uint32_t n)
{
	struct machine_model *m = machine_state_find(ms, "machine")->model;
	struct machine_input *in = calloc(n, sizeof(*in));

	for (uint32_t i = 0; i < n; i++) {
		strcpy(in[i].port, i % 2 ? "power" : "lpc.com1");
		in[i].data.len = 1 + i % 5;
		in[i].data.data = malloc(in[i].data.len);
		memset(in[i].data.data, 'a' + i % 20, in[i].data.len);
	}
	m->input = (struct state_list){ in, n };
	m->input_at = m->insns + 1;
}

static void input_waits(void **state)
{
	struct run r = make(SETTINGS(VIRTUAL), true);
	struct machine_state *ms = export(base.vm), *again;
	struct machine_model *m = machine_state_find(ms, "machine")->model;
	struct machine_input *in;
	struct skep_error e = { .text = "" };

	waiting_input(ms, 9);
	in = m->input.items;
	commit(r.vm, ms);
	again = export(r.vm);
	m = machine_state_find(again, "machine")->model;
	assert_int_equal(m->input.count, 9);
	for (uint32_t i = 0; i < 9; i++) {
		const struct machine_input *x = (struct machine_input *)m->input.items + i;

		assert_string_equal(x->port, in[i].port);
		assert_int_equal(x->data.len, in[i].data.len);
		assert_memory_equal(x->data.data, in[i].data.data, in[i].data.len);
	}
	assert_int_equal(m->input_at, m->insns + 1);
	/* A second commit replaces it. */
	commit(r.vm, again);
	machine_state_free(again);
	again = export(r.vm);
	m = machine_state_find(again, "machine")->model;
	assert_int_equal(m->input.count, 9);

	strcpy(in[3].port, "lpc.com9");
	assert_true(machine_state_validate(base.vm, ms, &e) < 0);
	assert_non_null(strstr(e.text, "lpc.com9"));
	strcpy(in[3].port, "power");
	in[3].data.len = 0;
	free(in[3].data.data);
	in[3].data.data = NULL;
	rebind(base.vm, ms);
	assert_true(machine_state_validate(base.vm, ms, &e) < 0);
	assert_non_null(strstr(e.text, "input[3]"));
	machine_state_free(ms);
	machine_state_free(again);
	end(&r);
}

/* Power pressed while the machine stood is seen by the guest of the restored one. */
static void input_is_delivered(void **state)
{
	struct run r = make(SETTINGS(VIRTUAL, "clock.limit=60000000"), true);
	struct machine_state *ms = export(base.vm);

	waiting_input(ms, 2);
	commit(r.vm, ms);
	copy_ram(base.vm, r.vm);
	go(&r);
	machine_state_free(ms);
	ms = export(r.vm);
	assert_int_equal(((struct machine_model *)machine_state_find(ms, "machine")->model)->input.count,
			 0);
	machine_state_free(ms);
	end(&r);
}

/* ---- Hostile states ---------------------------------------------------- */

static uint64_t random64(uint64_t *x)
{
	*x ^= *x << 13;
	*x ^= *x >> 7;
	*x ^= *x << 17;
	return *x;
}

/* A random scalar or byte of a model, at any depth, gets a new value. */
static void mutate(const struct state_record *r, uint8_t *model, uint64_t *x)
{
	const struct state_field *f;
	unsigned unit, n;
	uint8_t *p;

	if (!r->nfields)
		return;
	f = &r->fields[random64(x) % r->nfields];
	p = model + f->offset;
	unit = field_scalar(f->type);
	if (f->type == STATE_T_STRUCT) {
		mutate(f->sub, p + random64(x) % f->count * f->size, x);
	} else if (f->type == STATE_T_LIST) {
		const struct state_list *l = (struct state_list *)p;

		if (l->count)
			mutate(f->sub, (uint8_t *)l->items +
			       random64(x) % l->count * f->sub->model_size, x);
	} else if (f->type == STATE_T_BYTES) {
		p[random64(x) % (f->size * f->count)] = (uint8_t)random64(x);
	} else if (unit) {
		uint64_t v = 0;

		n = f->size / unit * f->count;
		p += random64(x) % n * unit;
		memcpy(&v, p, unit);
		switch (random64(x) % 4) {
		case 0: v ^= BIT(random64(x) % (8 * unit)); break;
		case 1: v = random64(x); break;
		case 2: v += random64(x) % 5 - 2; break;
		default: v = random64(x) % 2 ? UINT64_MAX : 0; break;
		}
		memcpy(p, &v, unit);
	}
}

/*
 * What validation takes runs: no crash, no hang, and what the machine comes to passes validation
 * again (the export checks it).
 */
static unsigned long states = 400, seed = 1;

static void taken_states_run(void **state)
{
	uint64_t x = 0x123456789abcdefull * (2 * seed + 1);
	unsigned taken = 0, refusals = 0;

	while (taken + refusals < states) {
		struct machine_state *ms = export(base.vm), *after;
		struct machine_part *p = &ms->parts[random64(&x) % ms->nparts];
		struct skep_error e = { .text = "" };
		struct run r;

		/* The processor's is the largest, and every second one. */
		if (random64(&x) % 2)
			p = machine_state_find(ms, "cpu.0");
		for (unsigned n = 1 + random64(&x) % 3; n--;)
			mutate(p->record, p->model, &x);
		if (machine_state_validate(base.vm, ms, &e) < 0) {
			assert_true(e.text[0]);
			refusals++;
			machine_state_free(ms);
			continue;
		}
		taken++;
		r = make(SETTINGS(VIRTUAL), true);
		commit(r.vm, ms);
		copy_ram(base.vm, r.vm);
		r.vm->insn_limit = atomic_load(&r.vm->clock.insns) + 3000;
		/* A state that waits for ever waits for us. */
		if (!((struct cpu_arch_state *)machine_state_find(ms, "cpu.0")->model)->halted)
			go(&r);
		after = machine_state_export(r.vm, &e);
		if (!after)
			fail_msg("after a change of %s: %s", p->name, e.text);
		machine_state_free(after);
		machine_state_free(ms);
		end(&r);
	}
	assert_true(taken > states / 20);
	assert_true(refusals > states / 20);
}

/* ---- Order and wires --------------------------------------------------- */

/*
 * A TSC deadline with IA32_TSC_ADJUST below zero: compared with the raw counter it would be past,
 * fire, and be gone (kata-containers#13798, where the local APIC was set after the MSRs).
 */
static void tsc_deadline_survives(void **state)
{
	struct run r = make(SETTINGS(VIRTUAL), true);
	struct machine_state *ms = export(base.vm), *again;
	uint64_t adjust = (uint64_t)-15000000, tsc;

	tsc = clock_tsc(&base.vm->clock) + adjust;
	set(ms, "cpu.0", "tsc_adjust", adjust);
	set(ms, "lapic.0", "lvt[0]", 2 << 17 | 0x41);
	set(ms, "lapic.0", "timer_next", 0);
	set(ms, "lapic.0", "initial_count", 0);
	set(ms, "lapic.0", "tsc_deadline", tsc + 5000000);
	set(ms, "lapic.0", "svr", 0x1ff);
	set(ms, "lapic.0", "irr[2]", 0);
	commit(r.vm, ms);
	again = export(r.vm);
	assert_int_equal(get(again, "lapic.0", "tsc_deadline"), tsc + 5000000);
	assert_int_equal(get(again, "lapic.0", "irr[2]"), 0);
	device_lock(r.vm);
	assert_true(timers_next_due(r.vm) <= clock_now(&r.vm->clock) + 5000001);
	device_unlock(r.vm);
	machine_state_free(ms);
	machine_state_free(again);
	end(&r);
}

/*
 * Pins are imported without being raised (Propolis#669): a wire that is high, and an interrupt
 * that was served already, do not make a new one; and an edge that waits is not lost.
 */
static void pins_are_not_raised(void **state)
{
	struct run r = make(SETTINGS(VIRTUAL), true);
	struct machine_state *ms = export(base.vm), *again;
	struct machine_part *board = machine_state_find(ms, "board");
	struct field_place level = field_find(board->record, board->model, "level");
	char *want, *got;

	/* The timer's wire is high at the board and at the controllers' pins, edge taken long ago. */
	level.p[0] |= 1;
	set(ms, "i8259", "chip[0].pins", get(ms, "i8259", "chip[0].pins") | 1);
	set(ms, "i8259", "chip[0].irr", 0);
	commit(r.vm, ms);
	again = export(r.vm);
	assert_int_equal(get(again, "i8259", "chip[0].irr"), 0);
	assert_int_equal(get(again, "i8259", "chip[0].pins") & 1, 1);
	for (unsigned i = 0; i < 8; i++) {
		char field[16];

		snprintf(field, sizeof(field), "irr[%u]", i);
		assert_int_equal(get(again, "lapic.0", field), get(ms, "lapic.0", field));
	}
	/* Twice is the same as once. */
	want = dump(r.vm);
	commit(r.vm, again);
	got = dump(r.vm);
	assert_string_equal(want, got);
	free(want);
	free(got);
	machine_state_free(ms);
	machine_state_free(again);
	end(&r);
}

static void requests_after_commit(void **state)
{
	struct run r = make(SETTINGS(VIRTUAL), true);
	struct machine_state *ms = export(base.vm), *again;
	const uint32_t events = VCPU_REQ_INIT | VCPU_REQ_SIPI | VCPU_REQ_NMI;
	struct vcpu *v = r.vm->vcpus[0];

	/* What the devices' commits asked for is nothing that came from the guest. */
	vcpu_request(v, events);
	commit(r.vm, ms);
	assert_true(atomic_load(&v->requests) & VCPU_REQ_INTR);
	assert_true(atomic_load(&v->requests) & VCPU_REQ_TLB);
	assert_int_equal(atomic_load(&v->requests) & events, 0);
	set(ms, "cpu.0", "nmi_pending", 1);
	set(ms, "cpu.0", "init_pending", 1);
	set(ms, "cpu.0", "sipi_pending", 1);
	set(ms, "cpu.0", "sipi_vector", 0x9a);
	commit(r.vm, ms);
	assert_int_equal(atomic_load(&v->requests) & events, VCPU_REQ_INIT | VCPU_REQ_SIPI);
	assert_int_equal(atomic_load(&v->sipi_vector), 0x9a);
	/* One that has come and one that is latched are one (SDM vol. 3, 6.7). */
	vcpu_request(v, VCPU_REQ_NMI);
	again = export(r.vm);
	assert_int_equal(get(again, "cpu.0", "nmi_pending"), 1);
	assert_int_equal(get(again, "cpu.0", "init_pending"), 1);
	assert_int_equal(get(again, "cpu.0", "sipi_vector"), 0x9a);
	machine_state_free(ms);
	machine_state_free(again);
	end(&r);
}

/* ---- Times ------------------------------------------------------------- */

struct background {
	struct run r;
	pthread_t thread;
};

static void *run_in_background(void *opaque)
{
	go(opaque);
	return NULL;
}

static void real_time_goes_on(void **state)
{
	struct background b = { .r = make(SETTINGS("boot.demo=true"), false) };
	struct vm *from = b.r.vm;
	struct run to = make(SETTINGS("boot.demo=true"), true);
	struct machine_state *ms;
	int64_t at, wall;

	assert_int_equal(pthread_create(&b.thread, NULL, run_in_background, &b.r), 0);
	while (!atomic_load(&from->first_run_ns))
		nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
	vm_pause(from, STOP_SAVE);
	at = clock_now(&from->clock);
	ms = export(from);
	nanosleep(&(struct timespec){ .tv_nsec = 30000000 }, NULL);
	assert_int_equal(get(ms, "machine", "insns"), 0);
	assert_int_equal(get(ms, "machine", "guest_ns"), at);
	commit(to.vm, ms);
	/* No gap: guest time stands where it stood, and so does the wall clock. */
	assert_int_equal(clock_now(&to.vm->clock), at);
	wall = clock_wall(&to.vm->clock);
	assert_int_equal(wall, clock_wall(&from->clock));
	vm_resume(to.vm, STOP_PAUSE);
	assert_in_range(clock_now(&to.vm->clock), at, at + 20000000);
	vm_pause(to.vm, STOP_PAUSE);
	/* Words of the host's that nobody was given are no state. */
	assert_int_equal(get(ms, "machine", "entropy[0]") | get(ms, "machine", "seed"), 0);
	machine_state_free(ms);
	vm_request_exit(from, VM_EXIT_POWEROFF);
	pthread_join(b.thread, NULL);
	end(&b.r);
	end(&to);
}

/*
 * Stopped whenever the host pleases, carried to another machine, and on from there: at the end
 * nobody can tell.
 */
static void stopped_anywhere(void **state)
{
	static const char *const settings[] = { VIRTUAL, "clock.limit=60000000", NULL };
	struct run straight = make(settings, false);
	struct background b = { .r = make(settings, false) };
	char *want, *got;
	unsigned moves = 0;

	go(&straight);
	while (!vm_exiting(b.r.vm)) {
		struct machine_state *ms;
		struct run next;

		assert_int_equal(pthread_create(&b.thread, NULL, run_in_background, &b.r), 0);
		while (!moves && !atomic_load(&b.r.vm->first_run_ns))
			nanosleep(&(struct timespec){ .tv_nsec = 1000 }, NULL);
		nanosleep(&(struct timespec){ .tv_nsec = 1000000 * (moves % 7) + 1 }, NULL);
		vm_pause(b.r.vm, STOP_SAVE);
		if (vm_exiting(b.r.vm)) {
			pthread_join(b.thread, NULL);
			break;
		}
		ms = export(b.r.vm);
		next = make(settings, true);
		commit(next.vm, ms);
		copy_ram(b.r.vm, next.vm);
		machine_state_free(ms);
		vm_request_exit(b.r.vm, VM_EXIT_POWEROFF);
		pthread_join(b.thread, NULL);
		end(&b.r);
		b.r = next;
		moves++;
	}
	assert_true(moves > 2);
	want = dump(straight.vm);
	got = dump(b.r.vm);
	assert_string_equal(want, got);
	free(want);
	free(got);
	end(&straight);
	end(&b.r);
}

/* ---- The start from elsewhere ------------------------------------------ */

/* Before it is switched on a machine has no state. */
static void not_switched_on(void **state)
{
	struct run r = make(SETTINGS(VIRTUAL), false);
	struct skep_error e = { .text = "" };

	assert_null(machine_state_export(r.vm, &e));
	assert_non_null(strstr(e.text, "not switched on"));
	end(&r);
}

/* No file of the host is needed until the machine is reset; then the sentence names it. */
static void files_may_be_gone(void **state)
{
	static const char *const settings[] = {
		"boot.kernel=/nonexistent/kernel", "clock.mode=virtual", "seed=5",
		"on_reboot=restart", "fwcfg.0.name=opt/x", "fwcfg.0.file=/nonexistent/item", NULL
	};
	struct run r = make(settings, true);
	struct machine_state *ms = export(base.vm);

	commit(r.vm, ms);
	copy_ram(base.vm, r.vm);
	/* A reset that was asked for before the save comes first of all. */
	set(ms, "machine", "reset_requested", 1);
	commit(r.vm, ms);
	go(&r);
	assert_int_equal(r.code, VM_EXIT_ERROR);
	assert_non_null(strstr(r.e.text, "/nonexistent/kernel"));
	assert_int_equal(atomic_load(&r.vm->clock.insns), atomic_load(&base.vm->clock.insns));
	machine_state_free(ms);
	end(&r);
}

/* A reset of a restored machine starts its guest again, with the tables that came with it. */
static void resets_after_restore(void **state)
{
	struct run r = make(SETTINGS(VIRTUAL, "on_reboot=restart"), true);
	struct machine_state *ms = export(base.vm), *again;
	uint32_t i, n;

	set(ms, "machine", "reset_requested", 1);
	commit(r.vm, ms);
	copy_ram(base.vm, r.vm);
	r.vm->insn_limit = atomic_load(&r.vm->clock.insns) + 500000;
	go(&r);
	assert_int_equal(r.code, VM_EXIT_HALT);
	again = export(r.vm);
	assert_int_equal(get(again, "machine", "reset_requested"), 0);
	n = (uint32_t)((struct state_list *)field_find(machine_state_find(ms, "fwcfg")->record,
		machine_state_find(ms, "fwcfg")->model, "items").p)->count;
	for (i = 0; i < n; i++) {
		char field[40];
		struct machine_part *a = machine_state_find(ms, "fwcfg");
		struct machine_part *b = machine_state_find(again, "fwcfg");
		struct state_blob *x, *y;

		snprintf(field, sizeof(field), "items[%u].data", i);
		x = (struct state_blob *)field_find(a->record, a->model, field).p;
		y = (struct state_blob *)field_find(b->record, b->model, field).p;
		assert_int_equal(x->len, y->len);
		if (x->len)
			assert_memory_equal(x->data, y->data, x->len);
	}
	machine_state_free(ms);
	machine_state_free(again);
	end(&r);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_record_is_listed),
		cmocka_unit_test(parts),
		cmocka_unit_test(goes_on_elsewhere),
		cmocka_unit_test(bad_machine),
		cmocka_unit_test(two_records_must_agree),
		cmocka_unit_test(input_waits),
		cmocka_unit_test(input_is_delivered),
		cmocka_unit_test(taken_states_run),
		cmocka_unit_test(tsc_deadline_survives),
		cmocka_unit_test(pins_are_not_raised),
		cmocka_unit_test(requests_after_commit),
		cmocka_unit_test(real_time_goes_on),
		cmocka_unit_test(stopped_anywhere),
		cmocka_unit_test(not_switched_on),
		cmocka_unit_test(files_may_be_gone),
		cmocka_unit_test(resets_after_restore),
	};

	if (argc > 1)
		states = strtoul(argv[1], NULL, 0);
	if (argc > 2)
		seed = strtoul(argv[2], NULL, 0);
	return cmocka_run_group_tests(tests, setup, teardown);
}
