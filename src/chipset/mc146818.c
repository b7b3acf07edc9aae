/*
 * MC146818 real-time clock (Motorola data sheet ADI856R2; the ICH9's version of
 * it, ICH9 data sheet, 13.6).
 *
 * The time is the machine's wall clock plus an offset that a guest changes by
 * setting it.  While updates are stopped (SET, or the divider held) the time
 * registers are plain memory, and become the time when updates go on.  Flags
 * are worked out when somebody looks; a timer runs only for an interrupt that
 * is enabled.
 */
#include "chipset/mc146818.h"

#include <errno.h>

#include "chipset/rtc_time.h"
#include "vm/vm.h"

#define PORT		0x70

enum { REG_SEC = 0, REG_SEC_ALARM, REG_MIN, REG_MIN_ALARM, REG_HOUR, REG_HOUR_ALARM, REG_WEEKDAY,
       REG_DAY, REG_MONTH, REG_YEAR, REG_A, REG_B, REG_C, REG_D, REG_CENTURY = 0x32 };

#define A_UIP		0x80
#define A_DV(a)		((a) >> 4 & 7)
#define A_DV_HELD	3	/* 0-2 run, 3-5 do nothing useful, 6-7 hold the divider */
#define A_RS(a)		((a) & 15)
#define B_SET		0x80
#define B_UIE		0x10
#define B_BINARY	0x04
#define B_24H		0x02
#define C_IRQF		0x80
#define C_PF		0x40	/* the enables lie at the same places in B */
#define C_AF		0x20
#define C_UF		0x10
#define C_FLAGS		(C_PF | C_AF | C_UF)
#define D_VRT		0x80

#define ALARM_ANY	0xc0
/* UIP rises 244 us before an update, and an update takes 1984 us (data sheet, table 4). */
#define UIP_NS		(244000 + 1984000)
#define OFFSET_MAX	400000000000ll	/* more than 10000 years of seconds */

struct mc146818_model {
	uint8_t ram[256];	/* time registers while updates are stopped; A, B, C; memory */
	uint8_t index[2];
	uint8_t nmi_masked;
	uint8_t weekday_offset;	/* the day of the week is a counter of its own */
	uint32_t offset_ns;	/* phase of the divider: seconds end when wall + this is whole */
	int64_t offset_s;	/* seconds: time = whole seconds of (wall + offset_ns) + this */
	int64_t checked;	/* guest ns up to which register C is worked out */
};

struct mc146818 {
	struct device dev;
	struct mc146818_model m;
	struct irq_line irq;
	void (*alarm)(void *opaque);
	void *alarm_opaque;
	bool alarming;			/* follows from the model: flag and enable of the alarm */
	struct vm_timer timer;
};

static bool running(const struct mc146818_model *m)
{
	return !(m->ram[REG_B] & B_SET) && A_DV(m->ram[REG_A]) < A_DV_HELD;
}

static bool is_binary(const struct mc146818_model *m) { return m->ram[REG_B] & B_BINARY; }
static bool is_24h(const struct mc146818_model *m) { return m->ram[REG_B] & B_24H; }

/* The divider chain at a guest time, in ns; its whole seconds are those of the updates. */
static int64_t divider_ns(const struct mc146818 *r, const struct mc146818_model *m, int64_t at)
{
	return r->dev.vm->clock.wall_base + at + m->offset_ns;
}

static int64_t floor_second(int64_t ns)
{
	return ns / NSEC_PER_SEC - (ns % NSEC_PER_SEC < 0);
}

static int64_t seconds_at(const struct mc146818 *r, const struct mc146818_model *m, int64_t at)
{
	return floor_second(divider_ns(r, m, at)) + m->offset_s;
}

static int64_t fraction_at(const struct mc146818 *r, const struct mc146818_model *m, int64_t at)
{
	int64_t ns = divider_ns(r, m, at);

	return ns - floor_second(ns) * NSEC_PER_SEC;
}

/* Guest time at which the given second begins. */
static int64_t begin_of(const struct mc146818 *r, const struct mc146818_model *m, int64_t second)
{
	return (second - m->offset_s) * NSEC_PER_SEC - m->offset_ns - r->dev.vm->clock.wall_base;
}

/* Time registers. */

static bool is_time_register(uint8_t index)
{
	return index == REG_CENTURY ||
	       (index <= REG_YEAR && index != REG_SEC_ALARM && index != REG_MIN_ALARM &&
		index != REG_HOUR_ALARM);
}

static void registers_from_time(const struct mc146818 *r, struct mc146818_model *m, int64_t at)
{
	bool bin = is_binary(m);
	struct rtc_time t;

	rtc_from_seconds(seconds_at(r, m, at), &t);
	m->ram[REG_SEC] = rtc_encode(t.sec, bin);
	m->ram[REG_MIN] = rtc_encode(t.min, bin);
	m->ram[REG_HOUR] = rtc_encode_hour(t.hour, bin, is_24h(m));
	m->ram[REG_WEEKDAY] = rtc_encode((t.weekday + m->weekday_offset) % 7 + 1, bin);
	m->ram[REG_DAY] = rtc_encode(t.day, bin);
	m->ram[REG_MONTH] = rtc_encode(t.month, bin);
	m->ram[REG_YEAR] = rtc_encode(t.year % 100, bin);
	m->ram[REG_CENTURY] = rtc_encode(t.year / 100, bin);
}

static void time_from_registers(const struct mc146818 *r, struct mc146818_model *m, int64_t at)
{
	bool bin = is_binary(m);
	struct rtc_time t = {
		.sec = rtc_decode(m->ram[REG_SEC], bin),
		.min = rtc_decode(m->ram[REG_MIN], bin),
		.hour = rtc_decode_hour(m->ram[REG_HOUR], bin, is_24h(m)),
		.day = rtc_decode(m->ram[REG_DAY], bin),
		.month = rtc_decode(m->ram[REG_MONTH], bin),
		.year = rtc_decode(m->ram[REG_CENTURY], bin) % 100 * 100 +
			rtc_decode(m->ram[REG_YEAR], bin) % 100,
	};
	int64_t seconds = rtc_to_seconds(&t);
	unsigned weekday = rtc_decode(m->ram[REG_WEEKDAY], bin);

	m->offset_s = seconds - floor_second(divider_ns(r, m, at));
	rtc_from_seconds(seconds, &t);
	m->weekday_offset = (uint8_t)((weekday + 6 + 7 - t.weekday) % 7);
}

/* Flags. */

/* Periodic interrupts in a second (data sheet, table 5, 32.768 kHz column). */
static uint32_t periodic_rate(const struct mc146818_model *m)
{
	unsigned rs = A_RS(m->ram[REG_A]);

	if (rs == 0 || A_DV(m->ram[REG_A]) >= A_DV_HELD)
		return 0;
	return rs < 3 ? 512u >> rs : 65536u >> rs;
}

static int64_t periods_at(const struct mc146818 *r, const struct mc146818_model *m, int64_t at)
{
	uint32_t rate = periodic_rate(m);

	return floor_second(divider_ns(r, m, at)) * rate +
	       fraction_at(r, m, at) * rate / NSEC_PER_SEC;
}

static bool alarm_field(uint8_t alarm, uint8_t value)
{
	return (alarm & ALARM_ANY) == ALARM_ANY || alarm == value;
}

static bool alarm_possible(const struct mc146818_model *m)
{
	bool bin = is_binary(m), sec = false, min = false, hour = false;

	for (unsigned i = 0; i < 60; i++) {
		sec |= alarm_field(m->ram[REG_SEC_ALARM], rtc_encode(i, bin));
		min |= alarm_field(m->ram[REG_MIN_ALARM], rtc_encode(i, bin));
	}
	for (unsigned i = 0; i < 24; i++)
		hour |= alarm_field(m->ram[REG_HOUR_ALARM], rtc_encode_hour(i, bin, is_24h(m)));
	return sec && min && hour;
}

/* The first second after `from` that the alarm registers name; INT64_MAX: none ever is. */
static int64_t next_alarm(const struct mc146818_model *m, int64_t from)
{
	bool bin = is_binary(m);
	int64_t s = from + 1;

	if (!alarm_possible(m))
		return INT64_MAX;
	/* Whole hours and minutes are skipped: at most 25 + 60 + 60 steps. */
	for (;;) {
		struct rtc_time t;

		rtc_from_seconds(s, &t);
		if (!alarm_field(m->ram[REG_HOUR_ALARM], rtc_encode_hour(t.hour, bin, is_24h(m))))
			s += 3600 - (t.min * 60 + t.sec);
		else if (!alarm_field(m->ram[REG_MIN_ALARM], rtc_encode(t.min, bin)))
			s += 60 - t.sec;
		else if (!alarm_field(m->ram[REG_SEC_ALARM], rtc_encode(t.sec, bin)))
			s++;
		else
			return s;
	}
}

/* Register C as it stands at a guest time. */
static void work_out(const struct mc146818 *r, struct mc146818_model *m, int64_t now)
{
	uint8_t *c = &m->ram[REG_C];

	if (now <= m->checked)
		return;
	if (periodic_rate(m) && periods_at(r, m, now) != periods_at(r, m, m->checked))
		*c |= C_PF;
	if (running(m)) {
		int64_t from = seconds_at(r, m, m->checked), to = seconds_at(r, m, now);

		if (from != to)
			*c |= C_UF;
		if (from < to && !(*c & C_AF) && next_alarm(m, from) <= to)
			*c |= C_AF;
	}
	m->checked = now;
}

static bool interrupting(const struct mc146818_model *m)
{
	return m->ram[REG_C] & m->ram[REG_B] & C_FLAGS;
}

static bool alarming(const struct mc146818_model *m)
{
	return m->ram[REG_C] & m->ram[REG_B] & C_AF;
}

/* What others see of register C. */
static void drive(struct mc146818 *r)
{
	bool before = r->alarming;

	r->alarming = alarming(&r->m);
	irq_set(&r->irq, interrupting(&r->m));
	if (r->alarming && !before && r->alarm)
		r->alarm(r->alarm_opaque);
}

static int64_t next_due(const struct mc146818 *r, int64_t now)
{
	const struct mc146818_model *m = &r->m;
	uint8_t b = m->ram[REG_B];
	uint32_t rate = periodic_rate(m);
	/* While the line is up nothing new can be seen before register C is read, but an alarm. */
	bool up = interrupting(m);
	int64_t due = INT64_MAX;

	if (!up && (b & C_PF) && rate) {
		int64_t second = floor_second(divider_ns(r, m, now));
		int64_t next = fraction_at(r, m, now) * rate / NSEC_PER_SEC + 1;
		int64_t at = second * NSEC_PER_SEC + (next * NSEC_PER_SEC + rate - 1) / rate;

		due = MIN(due, at - m->offset_ns - r->dev.vm->clock.wall_base);
	}
	if (!running(m))
		return due;
	if (!up && (b & C_UF))
		due = MIN(due, begin_of(r, m, seconds_at(r, m, now) + 1));
	if ((b & C_AF) && !alarming(m)) {
		int64_t alarm = next_alarm(m, seconds_at(r, m, now));

		if (alarm != INT64_MAX)
			due = MIN(due, begin_of(r, m, alarm));
	}
	return due;
}

static void arm(struct mc146818 *r, int64_t now)
{
	int64_t due = next_due(r, now);

	if (due == INT64_MAX)
		timer_disarm(&r->timer);
	else
		timer_arm(&r->timer, due);
}

static int64_t sync(struct mc146818 *r)
{
	int64_t now = clock_now(&r->dev.vm->clock);

	work_out(r, &r->m, now);
	drive(r);
	return now;
}

static void changed(struct mc146818 *r, int64_t now)
{
	drive(r);
	arm(r, now);
}

static void fired(void *opaque)
{
	struct mc146818 *r = opaque;

	changed(r, sync(r));
}

/* Registers. */

static void write_a(struct mc146818 *r, uint8_t v, int64_t now)
{
	struct mc146818_model *m = &r->m;
	bool was_running = running(m), was_held = A_DV(m->ram[REG_A]) >= A_DV_HELD;
	int64_t phase;

	if (was_running && A_DV(v) >= A_DV_HELD)
		registers_from_time(r, m, now);
	m->ram[REG_A] = v & ~A_UIP;
	if (was_held && A_DV(v) < A_DV_HELD) {
		/* "The first update cycle begins one-half second later." */
		phase = fraction_at(r, m, now);
		m->offset_ns = (uint32_t)((m->offset_ns + NSEC_PER_SEC * 3 / 2 - phase) %
					  NSEC_PER_SEC);
	}
	if (!was_running && running(m))
		time_from_registers(r, m, now);
}

static void write_b(struct mc146818 *r, uint8_t v, int64_t now)
{
	struct mc146818_model *m = &r->m;
	bool was_running = running(m);

	if (was_running && (v & B_SET))
		registers_from_time(r, m, now);
	/* Stopping the updates takes the update interrupt away. */
	m->ram[REG_B] = v & B_SET ? v & ~B_UIE : v;
	if (!was_running && running(m))
		time_from_registers(r, m, now);
}

static void cmos_write(struct mc146818 *r, uint8_t index, uint8_t v)
{
	struct mc146818_model *m = &r->m;
	int64_t now = sync(r);

	if (index == REG_A) {
		write_a(r, v, now);
	} else if (index == REG_B) {
		write_b(r, v, now);
	} else if (index == REG_C || index == REG_D) {
		return;			/* read-only */
	} else if (is_time_register(index) && running(m)) {
		registers_from_time(r, m, now);
		m->ram[index] = v;
		time_from_registers(r, m, now);
	} else {
		m->ram[index] = v;
	}
	changed(r, now);
}

static uint8_t read_c(struct mc146818 *r)
{
	uint8_t v = r->m.ram[REG_C];

	if (interrupting(&r->m))
		v |= C_IRQF;
	r->m.ram[REG_C] = 0;
	return v;
}

static uint8_t cmos_read(struct mc146818 *r, uint8_t index)
{
	struct mc146818_model *m = &r->m;
	int64_t now = sync(r);
	uint8_t v;

	if (index == REG_A && running(m) && fraction_at(r, m, now) >= NSEC_PER_SEC - UIP_NS)
		return m->ram[REG_A] | A_UIP;
	if (index == REG_D)
		return D_VRT;
	if (index == REG_C) {
		v = read_c(r);
		changed(r, now);
		return v;
	}
	if (is_time_register(index) && running(m))
		registers_from_time(r, m, now);
	return m->ram[index];
}

static uint64_t port_read(void *opaque, uint64_t offset, unsigned size)
{
	struct mc146818 *r = opaque;
	unsigned bank = offset >> 1;

	if (!(offset & 1))
		return 0xff;		/* the indices are write-only */
	return cmos_read(r, (uint8_t)(bank << 7 | r->m.index[bank]));
}

static void port_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
	struct mc146818 *r = opaque;
	unsigned bank = offset >> 1;

	if (offset & 1) {
		cmos_write(r, (uint8_t)(bank << 7 | r->m.index[bank]), (uint8_t)value);
		return;
	}
	r->m.index[bank] = value & 0x7f;
	if (bank == 0)
		r->m.nmi_masked = value >> 7 & 1;
}

static const struct bus_ops ops = { port_read, port_write, 1 };

bool mc146818_nmi_masked(const struct mc146818 *r)
{
	return r->m.nmi_masked;
}

void mc146818_set_ram(struct mc146818 *r, uint8_t index, uint8_t value)
{
	bool memory = index > REG_D && index != REG_CENTURY;

	if (memory)
		r->m.ram[index] = value;
}

/* Hooks. */

static int mc146818_init(struct device *d, struct skep_error *e)
{
	struct mc146818 *r = container_of(d, struct mc146818, dev);

	timer_init(&r->timer, d->vm, "mc146818", fired, r);
	d->type->reset(d);
	return bus_map(&d->vm->ports, PORT, 4, &ops, r, d->name, e);
}

static void mc146818_finish(struct device *d)
{
	timer_disarm(&container_of(d, struct mc146818, dev)->timer);
	bus_unmap(&d->vm->ports, PORT);
}

/*
 * Time and memory are on the battery and stay; what the RESET pin clears is
 * cleared, and the mode of the clock becomes what firmware makes of it: 24
 * hours, BCD, running, 1024 Hz.
 */
static void mc146818_reset(struct device *d)
{
	struct mc146818 *r = container_of(d, struct mc146818, dev);
	struct mc146818_model *m = &r->m;
	int64_t now = clock_now(&d->vm->clock);

	if (m->ram[REG_A] && !running(m))	/* not at power-on */
		time_from_registers(r, m, now);
	m->ram[REG_A] = 0x26;
	m->ram[REG_B] = B_24H;
	m->ram[REG_C] = 0;
	m->index[0] = m->index[1] = 0;
	m->nmi_masked = 0;
	m->checked = now;
	changed(r, now);
}

static void mc146818_export(const struct device *d, void *model)
{
	const struct mc146818 *r = container_of(d, const struct mc146818, dev);
	struct mc146818_model *m = model;
	int64_t now = clock_now(&d->vm->clock);

	*m = r->m;
	/* An interrupt that is due has its timer armed, and is worked out when that fires. */
	if (next_due(r, m->checked) > now)
		work_out(r, m, now);
	if (running(m))
		registers_from_time(r, m, now);
}

static int mc146818_validate(const struct device *d, const void *model, struct skep_error *e)
{
	const struct mc146818_model *m = model;

	if (m->offset_s < -OFFSET_MAX)
		return skep_fail(e, EINVAL, "%s: offset_s %lld is more than 10000 years", d->name,
				 (long long)m->offset_s);
	if ((m->ram[REG_A] & A_UIP) || (m->ram[REG_C] & ~C_FLAGS) || m->ram[REG_D])
		return skep_fail(e, EINVAL, "%s: register A, C or D has bits set that are not state",
				 d->name);
	if ((m->ram[REG_B] & B_SET) && (m->ram[REG_B] & B_UIE))
		return skep_fail(e, EINVAL, "%s: register B has SET and UIE, which exclude each other",
				 d->name);
	if (m->checked < 0)
		return skep_fail(e, EINVAL, "%s: checked %lld is before power-on", d->name,
				 (long long)m->checked);
	return 0;
}

static void mc146818_commit(struct device *d, const void *model)
{
	struct mc146818 *r = container_of(d, struct mc146818, dev);

	r->m = *(const struct mc146818_model *)model;
	r->alarming = alarming(&r->m);
	arm(r, r->m.checked);	/* not the line: the board imports its level */
}

static const struct state_field fields[] = {
	STATE_BYTES(struct mc146818_model, ram),
	STATE_ARRAY(struct mc146818_model, index, STATE_T_U8, .max = 0x7f),
	STATE_U8(struct mc146818_model, nmi_masked, .max = 1),
	STATE_U8(struct mc146818_model, weekday_offset, .max = 6),
	STATE_U32(struct mc146818_model, offset_ns, .max = NSEC_PER_SEC - 1),
	STATE_TIME(struct mc146818_model, offset_s, .max = OFFSET_MAX),
	STATE_TIME(struct mc146818_model, checked, .max = CLOCK_END),
};

const struct state_record mc146818_record = {
	.kind = "mc146818",
	.version = 1,
	.model_size = sizeof(struct mc146818_model),
	.fields = fields,
	.nfields = ARRAY_SIZE(fields),
};

static const struct config_schema no_keys;

const struct device_type mc146818_type = {
	.name = "mc146818",
	.help = "real-time clock and CMOS memory",
	.config = &no_keys,
	.state = &mc146818_record,
	.size = sizeof(struct mc146818),
	.init = mc146818_init,
	.finish = mc146818_finish,
	.reset = mc146818_reset,
	.quiesce = device_nop,
	.resume = device_nop,
	.export = mc146818_export,
	.validate = mc146818_validate,
	.commit = mc146818_commit,
};

struct mc146818 *mc146818_create(struct vm *vm, struct skep_error *e)
{
	struct device *d = device_create(vm, &mc146818_type, "mc146818", NULL, e);

	return d ? container_of(d, struct mc146818, dev) : NULL;
}

void mc146818_connect_irq(struct mc146818 *r, struct irq_line irq)
{
	r->irq = irq;
}

void mc146818_connect_alarm(struct mc146818 *r, void (*fn)(void *opaque), void *opaque)
{
	r->alarm = fn;
	r->alarm_opaque = opaque;
}
