/*
 * What others learned the hard way, as far as chips and clocks go: each test is named after the
 * mistake that a real system shipped, which its comment tells.
 */
#include <errno.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "board.h"
#include "char/char.h"
#include "chipset/acpi_pm.h"
#include "chipset/i8254.h"
#include "chipset/uart.h"
#include "chipset/uart_regs.h"
#include "pci/pci.h"
#include "vm/loop.h"

#define COM1	0x3f8
#define PM	0x600

static struct config *plain, *console[2];
static char path[2][64];

static int group_setup(void **state)
{
	plain = board_config(NULL, 0);
	for (unsigned i = 0; i < 2; i++) {
		char spec[80];
		const char *const key[][2] = { { "lpc.com1.path", spec } };

		snprintf(path[i], sizeof(path[i]), "/tmp/skep-lessons-%d-%u", getpid(), i);
		snprintf(spec, sizeof(spec), "unix=%s", path[i]);
		console[i] = board_config(key, 1);
	}
	return 0;
}

static int group_teardown(void **state)
{
	config_destroy(plain);
	for (unsigned i = 0; i < 2; i++)
		config_destroy(console[i]);
	return 0;
}

static struct board *b;

static int setup(void **state)
{
	b = board_make(plain);
	return 0;
}

static int teardown(void **state)
{
	board_free(b);
	return 0;
}

/* The machine goes on in a new process, so to speak. */
static void restore(void)
{
	b = board_restore(b, plain);
}

static void o8(uint16_t port, uint8_t v) { out8(b->vm, port, v); }
static uint32_t i8(uint16_t port) { return in8(b->vm, port); }

static void enable_apic(void)
{
	lapic_mmio_write(b->apic, 0xf0, 4, 0x1ff);
}

static void io_entry(unsigned pin, uint32_t low)
{
	bus_write(&b->vm->mmio, IOAPIC_BASE, 4, 0x10 + 2 * pin);
	bus_write(&b->vm->mmio, IOAPIC_BASE + 0x10, 4, low);
}

static uint32_t io_entry_low(unsigned pin)
{
	bus_write(&b->vm->mmio, IOAPIC_BASE, 4, 0x10 + 2 * pin);
	return bus_read(&b->vm->mmio, IOAPIC_BASE + 0x10, 4);
}

static void eoi(void)
{
	lapic_mmio_write(b->apic, 0xb0, 4, 0);
}

static void init_pic(void)
{
	static const uint8_t words[][2] = {
		{ 0x20, 0x11 }, { 0x21, 0x30 }, { 0x21, 0x04 }, { 0x21, 0x01 },
		{ 0xa0, 0x11 }, { 0xa1, 0x38 }, { 0xa1, 0x02 }, { 0xa1, 0x01 },
	};

	for (size_t i = 0; i < ARRAY_SIZE(words); i++)
		o8(words[i][0], words[i][1]);
}

/* ---- bhyve: the 8254 -------------------------------------------------- */

static void start_pit(uint8_t control, uint16_t count)
{
	enable_apic();
	io_entry(2, 0x51);
	o8(0x43, control);
	o8(0x40, (uint8_t)count);
	o8(0x40, count >> 8);
}

/* Rising edges of channel 0 while so many ticks of its clock pass. */
static unsigned edges_in(uint64_t ticks)
{
	unsigned before = b->messages;
	int64_t ns = clock_ticks_to_ns(clock_ticks(chip_now(b->vm), I8254_HZ) + ticks, I8254_HZ);

	chip_run_to(b->vm, ns);
	return b->messages - before;
}

/* bhyve: "timers not re-armed on restore". */
static void pit_timer_is_armed_again(void **state)
{
	start_pit(0x34, 1000);
	edges_in(2500);
	restore();
	assert_int_not_equal(timers_next_due(b->vm), INT64_MAX);
	assert_int_equal(edges_in(10000), 10);
}

/* bhyve: "mode 3 fires once". */
static void pit_mode_3_fires_more_than_once_after_restore(void **state)
{
	start_pit(0x36, 1000);
	edges_in(300);
	restore();
	assert_int_equal(edges_in(10000), 10);
	edges_in(300);		/* and in the other half of its cycle */
	restore();
	assert_int_equal(edges_in(10000), 10);
}

/* bhyve: "output latch not saved"; and the other half of a word that is being read. */
static void pit_output_latch_is_saved(void **state)
{
	unsigned low, high, value;

	start_pit(0x34, 50000);
	edges_in(1234);
	o8(0x43, 0x00);
	restore();
	edges_in(700);
	low = i8(0x40);
	restore();
	edges_in(700);
	high = i8(0x40);
	value = high << 8 | low;
	assert_in_range(value, 50000 - 1240, 50000 - 1230);
	o8(0x43, 0xe2);		/* status of channel 0, latched */
	restore();
	assert_int_equal(i8(0x40) & 0x3f, 0x34);
}

/* bhyve: "16-bit access only": half a count is written, and the rest after the restore. */
static void pit_half_written_count_is_saved(void **state)
{
	enable_apic();
	io_entry(2, 0x51);
	o8(0x43, 0x34);
	o8(0x40, 0xe8);
	restore();
	o8(0x40, 0x03);
	assert_int_equal(edges_in(10001), 10);
}

/* bhyve: "count 0 taken as 65535 instead of 65536". */
static void pit_count_of_0_is_65536(void **state)
{
	start_pit(0x34, 0);
	edges_in(30000);
	restore();
	assert_int_equal(edges_in(65536 - 30000), 0);
	assert_int_equal(edges_in(1), 1);
	for (unsigned i = 0; i < 20; i++) {
		restore();
		assert_int_equal(edges_in(65535), 0);
		assert_int_equal(edges_in(1), 1);
	}
}

/* bhyve: "source host's uptime in the file". */
static void nothing_of_the_hosts_clock_is_in_a_state(void **state)
{
	struct board *x[2];
	struct board_state s[2];

	for (unsigned i = 0; i < 2; i++) {
		x[i] = board_make_mode(plain, CLOCK_MODE_REALTIME);
		x[i]->vm->clock.wall_base = NSEC_PER_SEC;
		x[i]->vm->clock.offset -= i * 86400 * NSEC_PER_SEC;
		for (struct device *d = x[i]->vm->devices; d; d = d->next)
			d->type->reset(d);
		clock_set_paused(&x[i]->vm->clock, 123456789);
		out8(x[i]->vm, 0x43, 0x34);
		out8(x[i]->vm, 0x40, 0x10);
		out8(x[i]->vm, 0x40, 0x27);
		lapic_mmio_write(x[i]->apic, 0xf0, 4, 0x1ff);
		lapic_mmio_write(x[i]->apic, 0x380, 4, 100000);
		clock_set_paused(&x[i]->vm->clock, 123999999);
		board_export(x[i], &s[i]);
	}
	assert_int_equal(s[0].bytes.len, s[1].bytes.len);
	assert_memory_equal(s[0].bytes.data, s[1].bytes.data, s[0].bytes.len);
	for (unsigned i = 0; i < 2; i++) {
		board_state_free(x[i], &s[i]);
		board_free(x[i]);
	}
}

/* ---- bhyve: I/O APIC, PM timer, RTC, PCI ------------------------------- */

/* bhyve: "I/O APIC id not saved"; nor may the index be forgotten. */
static void io_apic_id_is_saved(void **state)
{
	bus_write(&b->vm->mmio, IOAPIC_BASE, 4, 0);
	bus_write(&b->vm->mmio, IOAPIC_BASE + 0x10, 4, 0x0a000000);
	restore();
	assert_int_equal(bus_read(&b->vm->mmio, IOAPIC_BASE + 0x10, 4), 0x0a000000);
}

static void pci_write(uint32_t address, unsigned size, uint32_t v)
{
	out32(b->vm, 0xcf8, 0x80000000 | address);
	bus_write(&b->vm->ports, 0xcfc, size, v);
}

static void enable_pm(uint16_t base)
{
	pci_write(0xf840, 4, base);
	pci_write(0xf844, 1, 0x80);
}

/* bhyve: "PM timer jumps". */
static void pm_timer_does_not_jump(void **state)
{
	uint32_t before;

	enable_pm(PM);
	chip_run(b->vm, 700 * NSEC_PER_SEC);	/* past its first turn */
	before = in32(b->vm, PM + PM_TMR_OFFSET);
	assert_int_equal(before, (uint32_t)clock_ticks(chip_now(b->vm), PM_TIMER_HZ));
	restore();
	assert_int_equal(in32(b->vm, PM + PM_TMR_OFFSET), before);
	chip_run(b->vm, 1000000);
	assert_in_range(in32(b->vm, PM + PM_TMR_OFFSET) - before, 3579, 3580);
}

/* The overflow whose interrupt is enabled comes once, wherever the machine was saved. */
static void pm_timer_overflow_is_neither_lost_nor_repeated(void **state)
{
	enable_pm(PM);
	enable_apic();
	io_entry(9, 0x8059);
	out16(b->vm, PM + 2, 1);
	for (unsigned i = 0; i < 5; i++) {
		chip_run(b->vm, 100 * NSEC_PER_SEC);
		restore();
	}
	assert_int_equal(lapic_ack(b->apic), -1);
	chip_run(b->vm, 100 * NSEC_PER_SEC);	/* 2^31 ticks are 599.9 s */
	assert_int_equal(lapic_ack(b->apic), 0x59);
	out16(b->vm, PM, 1);
	eoi();
	restore();
	chip_run(b->vm, 590 * NSEC_PER_SEC);
	assert_int_equal(lapic_ack(b->apic), -1);
}

static unsigned cmos(uint8_t index)
{
	o8(0x70, index);
	return i8(0x71);
}

static void cmos_set(uint8_t index, uint8_t v)
{
	o8(0x70, index);
	o8(0x71, v);
}

static unsigned bcd(unsigned v)
{
	return (v >> 4) * 10 + (v & 15);
}

static unsigned rtc_seconds(void)
{
	return bcd(cmos(4)) * 3600 + bcd(cmos(2)) * 60 + bcd(cmos(0));
}

/* bhyve: "RTC may step back". */
static void rtc_does_not_step_back(void **state)
{
	unsigned before, now;

	cmos_set(0xb, 0x82);		/* the guest sets its clock */
	cmos_set(4, 0x11);
	cmos_set(2, 0x58);
	cmos_set(0, 0x30);
	cmos_set(0xb, 0x02);
	before = rtc_seconds();
	assert_int_equal(before, (11 * 60 + 58) * 60 + 30);
	for (unsigned i = 0; i < 200; i++) {
		chip_run(b->vm, 137000000);
		now = rtc_seconds();
		restore();
		assert_int_equal(rtc_seconds(), now);
		assert_in_range(now, before, before + 1);
		before = now;
	}
	assert_int_equal(before, (11 * 60 + 58) * 60 + 30 + 200 * 137 / 1000);
}

/* Its periodic, alarm and update interrupts go on at the same times. */
static void rtc_interrupts_go_on(void **state)
{
	unsigned n = 0;

	enable_apic();
	io_entry(8, 0x58);
	cmos_set(0xa, 0x2a);		/* 64 Hz */
	cmos_set(0xb, 0x42);
	for (unsigned i = 0; i < 640; i++) {
		chip_run(b->vm, NSEC_PER_SEC / 64);
		if (i % 3 == 0)
			restore();
		if (lapic_ack(b->apic) == 0x58) {
			assert_int_equal(cmos(0xc) & 0xc0, 0xc0);
			eoi();
			n++;
		}
		if (i % 7 == 0)
			restore();
	}
	assert_in_range(n, 639, 640);
}

/* bhyve: "BAR values written back without registering the regions again". */
static void moved_ranges_are_registered_again(void **state)
{
	enable_pm(0x1c00);
	pci_write(0x0060, 4, 0xc0000001);	/* PCIEXBAR of the host bridge */
	assert_int_equal(bus_read(&b->vm->mmio, 0xc0000000, 4), 0x29c08086);
	restore();
	assert_int_equal(in16(b->vm, 0x1c00 + PM1_CNT_OFFSET), 1);
	assert_int_equal(in16(b->vm, PM + PM1_CNT_OFFSET), 0xffff);
	assert_int_equal(bus_read(&b->vm->mmio, 0xc0000000, 4), 0x29c08086);
	assert_int_equal(bus_read(&b->vm->mmio, 0xc00f8000, 4), 0x29188086);
	assert_int_equal(bus_read(&b->vm->mmio, ECAM_BASE, 4), 0xffffffff);
	pci_write(0xf840, 4, 0x2000);		/* and they move on from there */
	assert_int_equal(in16(b->vm, 0x1c00 + PM1_CNT_OFFSET), 0xffff);
	assert_int_equal(in16(b->vm, 0x2000 + PM1_CNT_OFFSET), 1);
}

/*
 * bhyve: AHCI's queue size and MSI-X's table_count, read from the file, bounded loops of the
 * restore.  Here each count of a model is compared with what the chip has, and is refused.
 */
static void counts_are_compared_never_used(void **state)
{
	static const struct { const char *device, *field; uint64_t max; } counts[] = {
		{ "lpc.com1", "rx_count", UART_FIFO }, { "lpc.com1", "tx_count", UART_FIFO },
		{ "lpc.com1", "line_count", 512 },
	};

	for (size_t i = 0; i < ARRAY_SIZE(counts); i++) {
		struct device *d = board_device(b, counts[i].device);
		const struct state_record *r = d->type->state;
		struct state_buf bytes = { 0 };
		struct skep_error e = { .text = "" };
		uint8_t *m;
		size_t k;

		chip_export(d, (void **)&m, &bytes);
		assert_int_equal(chip_check(d, m, &e), 0);
		for (k = 0; strcmp(r->fields[k].name, counts[i].field); k++)
			assert_true(k < r->nfields);
		for (uint64_t n = counts[i].max + 1; n < 70000; n = n * 3 + 1) {
			memcpy(m + r->fields[k].offset, &n, r->fields[k].size);
			if (n >> 8 * r->fields[k].size)
				break;
			assert_true(chip_check(d, m, &e) < 0);
		}
		chip_model_free(d, m);
		state_buf_free(&bytes);
	}
}

/* The same: a wire that this machine does not have. */
static void wires_that_are_not_there_are_refused(void **state)
{
	struct device *d = board_device(b, "board");
	struct state_buf bytes = { 0 };
	struct skep_error e = { .text = "" };
	uint8_t *m;

	chip_export(d, (void **)&m, &bytes);
	m[127] = 0x80;
	assert_true(chip_check(d, m, &e) < 0);
	assert_non_null(strstr(e.text, "board: wire 1023"));
	chip_model_free(d, m);
	state_buf_free(&bytes);
}

/* ---- Pins and levels --------------------------------------------------- */

/* Propolis#669: userspace pin state not carried: lost interrupts.  Imported, and nothing raised. */
static void pins_are_carried_without_raising(void **state)
{
	unsigned messages, edges;

	init_pic();
	enable_apic();
	io_entry(4, 0x8054);
	o8(COM1 + UART_MCR, MCR_OUT2);
	o8(COM1 + UART_IER, IER_THRE);		/* at once: it is empty */
	assert_int_equal(lapic_ack(b->apic), 0x54);
	assert_true(chipset_pic_intr(b->vm));
	messages = b->messages;
	edges = b->intr_edges;
	for (unsigned i = 0; i < 3; i++)
		restore();
	assert_int_equal(b->messages, messages);
	assert_int_equal(b->intr_edges, edges);
	/* The edge that waits in the 8259 is there, once. */
	assert_int_equal(chipset_pic_ack(b->vm), 0x34);
	o8(0x20, 0x20);
	assert_false(chipset_pic_intr(b->vm));
	/* The level is still up: its end brings it again, and the cause takes it down. */
	eoi();
	assert_int_equal(lapic_ack(b->apic), 0x54);
	restore();
	i8(COM1 + UART_IIR);
	eoi();
	assert_int_equal(lapic_ack(b->apic), -1);
}

/* A level in service: remote IRR, TMR and the wire are one state. */
static void level_in_service_goes_on(void **state)
{
	enable_pm(PM);
	enable_apic();
	io_entry(9, 0x8059);
	out16(b->vm, PM + 2, 0x100);
	chipset_power_button(b->vm);
	assert_int_equal(lapic_ack(b->apic), 0x59);
	assert_int_equal(io_entry_low(9) & 0x4000, 0x4000);
	restore();
	assert_int_equal(io_entry_low(9) & 0x4000, 0x4000);
	assert_int_equal(lapic_ack(b->apic), -1);	/* on its way already: not twice */
	eoi();
	assert_int_equal(lapic_ack(b->apic), 0x59);
	out16(b->vm, PM, 0x100);
	restore();
	eoi();
	assert_int_equal(lapic_ack(b->apic), -1);
	assert_int_equal(io_entry_low(9) & 0x4000, 0);
}

/* An edge that was accepted and not taken yet waits in the IRR. */
static void accepted_interrupts_wait(void **state)
{
	start_pit(0x30, 100);
	edges_in(200);
	assert_int_equal(b->messages, 1);
	restore();
	assert_int_equal(lapic_pending_vector(b->apic), 0x51);
	assert_int_equal(lapic_ack(b->apic), 0x51);
	restore();
	assert_int_equal(lapic_ack(b->apic), -1);
	assert_int_equal(lapic_mmio_read(b->apic, 0x120, 4), 1u << 17);
	eoi();
	assert_int_equal(lapic_mmio_read(b->apic, 0x120, 4), 0);
}

/* ---- The local APIC's timer -------------------------------------------- */

static void set_deadline(uint64_t in)
{
	lapic_mmio_write(b->apic, 0x320, 4, 0x40041);
	lapic_set_tsc_deadline(b->apic, clock_tsc(&b->vm->clock) + b->tsc_adjust + in);
}

/*
 * kata#13798: the LAPIC restored after the MSRs, and the TSC deadline silently lost.  The deadline is
 * compared with TSC + adjust: known too late, it would fire at once, or never.
 */
static void tsc_deadline_survives(void **state)
{
	static const uint64_t adjust[] = { 0, 1ull << 50, 0 - (1ull << 40) };

	for (unsigned i = 0; i < ARRAY_SIZE(adjust); i++) {
		int64_t due;

		enable_apic();
		b->tsc_adjust = adjust[i];
		lapic_set_tsc_adjust(b->apic, adjust[i]);
		chip_run(b->vm, 5000000);
		set_deadline(3000000);
		due = chip_now(b->vm) + 3000000;
		assert_true(timers_next_due(b->vm) == due);
		restore();
		assert_true(timers_next_due(b->vm) == due);
		chip_run_to(b->vm, due - 1);
		restore();
		assert_int_equal(lapic_ack(b->apic), -1);
		chip_run_to(b->vm, due);
		assert_int_equal(lapic_ack(b->apic), 0x41);
		eoi();
		restore();
		assert_int_equal(lapic_get_tsc_deadline(b->apic), 0);
		assert_int_equal(lapic_ack(b->apic), -1);
	}
}

/* A deadline that passed while the host was late: it comes after the restore, once. */
static void overdue_deadline_comes_once(void **state)
{
	enable_apic();
	set_deadline(1000);
	chip_jump(b->vm, 5000);
	restore();
	assert_int_equal(lapic_ack(b->apic), -1);
	chip_run(b->vm, 0);
	assert_int_equal(lapic_ack(b->apic), 0x41);
	eoi();
	restore();
	chip_run(b->vm, 1000000);
	assert_int_equal(lapic_ack(b->apic), -1);
}

static void periodic_timer_keeps_its_phase(void **state)
{
	int64_t first, n;

	enable_apic();
	lapic_mmio_write(b->apic, 0x3e0, 4, 0xb);
	lapic_mmio_write(b->apic, 0x320, 4, 0x20042);
	lapic_mmio_write(b->apic, 0x380, 4, 1000);
	first = chip_now(b->vm) + 1000;
	for (n = 0; n < 100; n++) {
		chip_run_to(b->vm, first + 1000 * n - 1);
		assert_int_equal(lapic_ack(b->apic), -1);
		restore();
		assert_int_equal(lapic_mmio_read(b->apic, 0x390, 4), 1);
		chip_run_to(b->vm, first + 1000 * n);
		assert_int_equal(lapic_ack(b->apic), 0x42);
		eoi();
	}
}

/* ---- Restore of a restore, save after save ------------------------------ */

static void busy(void)
{
	init_pic();
	start_pit(0x34, 5000);
	enable_pm(PM);
	cmos_set(0xa, 0x26);
	cmos_set(0xb, 0x72);
	set_deadline(123456789);
	o8(COM1 + UART_FCR, FCR_ENABLE);
	o8(COM1 + UART_MCR, MCR_OUT2);
	o8(COM1 + UART_IER, 0xf);
	board_input(b, "lpc.com1", "hello, more than a FIFO holds", 29);
	chip_run(b->vm, 7777777);
}

static void expect_same_bytes(const struct board *x, const struct board *y)
{
	struct board_state s, t;

	board_export(x, &s);
	board_export(y, &t);
	assert_int_equal(s.bytes.len, t.bytes.len);
	assert_memory_equal(s.bytes.data, t.bytes.data, s.bytes.len);
	board_state_free(x, &s);
	board_state_free(y, &t);
}

static void restore_of_a_restore(void **state)
{
	struct board *reference = b;

	busy();
	b = board_make(plain);
	board_copy(reference, b);
	for (unsigned i = 0; i < 20; i++) {
		restore();
		chip_run(b->vm, 1000000);
		chip_run(reference->vm, 1000000);
		expect_same_bytes(reference, b);
	}
	board_free(reference);
}

static void save_after_save(void **state)
{
	struct board_state s[3];

	busy();
	for (unsigned i = 0; i < 3; i++) {
		board_export(b, &s[i]);
		assert_int_equal(s[i].bytes.len, s[0].bytes.len);
		assert_memory_equal(s[i].bytes.data, s[0].bytes.data, s[0].bytes.len);
	}
	for (unsigned i = 0; i < 3; i++)
		board_state_free(b, &s[i]);
}

/* ---- The host's side of a serial port ----------------------------------- */

/* clock=realtime, running, with its console at a socket on which we are. */
struct seat {
	struct board *b;
	int peer;
};

static void pump(struct board *x)
{
	device_unlock(x->vm);
	for (unsigned i = 0; i < 4; i++) {
		loop_wake(x->vm);
		loop_iterate(x->vm);
	}
	device_lock(x->vm);
}

static void stand(struct board *x)
{
	device_unlock(x->vm);
	vm_pause(x->vm, STOP_SAVE);
	device_lock(x->vm);
}

static void go_on(struct board *x)
{
	device_unlock(x->vm);
	vm_resume(x->vm, STOP_SAVE);
	device_lock(x->vm);
	pump(x);
}

static int attach(struct board *x, unsigned n)
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0), size = 4096;

	strcpy(sa.sun_path, path[n]);
	setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof(size));
	assert_int_equal(connect(fd, (struct sockaddr *)&sa, sizeof(sa)), 0);
	pump(x);
	return fd;
}

static struct seat seat(unsigned n, bool connected)
{
	struct seat s = { .b = board_make_mode(console[n], CLOCK_MODE_REALTIME), .peer = -1 };

	clock_resume(&s.b->vm->clock);
	if (connected)
		s.peer = attach(s.b, n);
	return s;
}

static void leave(struct seat *s)
{
	if (s->peer >= 0)
		close(s->peer);
	board_free(s->b);
}

static char guest_read(struct board *x)
{
	assert_int_equal(in8(x->vm, COM1 + UART_LSR) & LSR_DR, LSR_DR);
	return (char)in8(x->vm, COM1 + UART_RBR);
}

static void expect_typed(struct board *x, const char *text)
{
	for (; *text; text++) {
		assert_int_equal(guest_read(x), *text);
		pump(x);
	}
	assert_int_equal(in8(x->vm, COM1 + UART_LSR) & LSR_DR, 0);
}

/* A peer may always hang on a little: reads until there is nothing for a while. */
static size_t peer_read(struct board *x, int fd, uint8_t *to, size_t max)
{
	size_t len = 0;

	for (unsigned idle = 0; idle < 3;) {
		ssize_t n = recv(fd, to + len, max - len, MSG_DONTWAIT);

		if (n > 0) {
			len += (size_t)n;
			idle = 0;
		} else {
			if (x)
				pump(x);
			idle++;
		}
	}
	return len;
}

/* What the host sends while the machine stands is there once when it goes on, and not in the state. */
static void input_while_it_stands_is_neither_lost_nor_doubled(void **state)
{
	struct seat a = seat(0, true), c;
	struct board_state s, t;
	struct skep_error e = { .text = "" };

	assert_int_equal(send(a.peer, "abc", 3, 0), 3);
	pump(a.b);
	stand(a.b);
	board_export(a.b, &s);
	assert_int_equal(send(a.peer, "def", 3, 0), 3);
	pump(a.b);
	/* "A device without a pause hook": nothing has moved. */
	board_export(a.b, &t);
	assert_int_equal(s.bytes.len, t.bytes.len);
	assert_memory_equal(s.bytes.data, t.bytes.data, s.bytes.len);
	go_on(a.b);
	expect_typed(a.b, "abcdef");

	c = seat(1, true);
	stand(c.b);
	assert_int_equal(board_check(c.b, &s, &e), 0);
	board_commit(c.b, &s, 1000, 0);
	go_on(c.b);
	expect_typed(c.b, "abc");
	board_state_free(a.b, &s);
	board_state_free(a.b, &t);
	leave(&a);
	leave(&c);
}

static void *field_of(const struct device *d, void *model, const char *name)
{
	const struct state_record *r = d->type->state;

	for (size_t k = 0; k < r->nfields; k++)
		if (!strcmp(r->fields[k].name, name))
			return (uint8_t *)model + r->fields[k].offset;
	fail_msg("no field %s", name);
	return NULL;
}

/* What the host's side has read ahead of the guest (a terminal does) is part of the state. */
static void input_that_the_guest_has_not_taken_survives(void **state)
{
	struct board *x = board_make_mode(console[0], CLOCK_MODE_REALTIME);
	struct device *d = board_device(x, "lpc.com1");
	struct state_buf bytes = { 0 }, again = { 0 };
	struct skep_error e = { .text = "" };
	struct state_blob *unread;
	char text[2000] = "";
	void *m, *n;

	for (unsigned i = 0; i + 1 < sizeof(text); i++)
		text[i] = 'a' + i % 26;
	stand(x);
	chip_export(d, &m, &bytes);
	unread = field_of(d, m, "unread");
	unread->data = (uint8_t *)strdup(text);
	unread->len = sizeof(text) - 1;
	assert_int_equal(chip_check(d, m, &e), 0);
	d->type->commit(d, m);
	pump(x);
	bytes.len = 0;
	assert_int_equal(state_encode(d->type->state, d->name, m, 1, &bytes, &e), 0);
	chip_export(d, &n, &again);
	assert_int_equal(bytes.len, again.len);
	assert_memory_equal(bytes.data, again.data, bytes.len);
	go_on(x);
	expect_typed(x, text);
	chip_model_free(d, m);
	chip_model_free(d, n);
	state_buf_free(&bytes);
	state_buf_free(&again);
	board_free(x);
}

/* The guest writes until its transmitter is stuck: the peer does not read. */
static size_t write_until_stuck(struct board *x, uint8_t *sent, size_t max)
{
	size_t n = 0;

	out8(x->vm, COM1 + UART_FCR, FCR_ENABLE);
	while (n < max) {
		if (!(in8(x->vm, COM1 + UART_LSR) & LSR_THRE)) {
			pump(x);
			if (!(in8(x->vm, COM1 + UART_LSR) & LSR_THRE))
				break;
		}
		sent[n] = (uint8_t)(n * 7 + (n >> 8));
		out8(x->vm, COM1 + UART_THR, sent[n++]);
	}
	/* The FIFO behind the full buffer takes some more. */
	for (unsigned i = 0; i < 10; i++) {
		sent[n] = (uint8_t)(n * 7 + (n >> 8));
		out8(x->vm, COM1 + UART_THR, sent[n++]);
	}
	return n;
}

/*
 * "Save with TX in flight", and a suspend: what the old machine's peer has got and what the restored
 * machine sends are together what the guest has written, each byte once.  And the transmitter,
 * for which nobody will ever say "drained", goes on: "work queued before the save with no kick
 * after it: deadlock" (CH#8004, FC#5554).
 */
static void output_is_told_once_over_a_suspend(void **state)
{
	enum { MAX = 4 << 20 };
	struct seat a = seat(0, true), c = seat(1, true);
	uint8_t *sent = malloc(MAX + 16), *got = malloc(MAX + 16);
	size_t n = write_until_stuck(a.b, sent, MAX), len;

	assert_in_range(n, CHAR_LIMIT, MAX);
	out8(a.b->vm, COM1 + UART_MCR, MCR_OUT2);
	out8(a.b->vm, COM1 + UART_IER, IER_THRE);
	stand(a.b);
	stand(c.b);
	/* The old one is not read any more from the save on: it writes nothing. */
	board_copy(a.b, c.b);
	len = peer_read(a.b, a.peer, got, MAX);
	vm_request_exit(a.b->vm, VM_EXIT_SUSPENDED);
	go_on(a.b);
	len += peer_read(a.b, a.peer, got + len, MAX - len);
	assert_true(len < n);
	board_free(a.b);
	len += peer_read(NULL, a.peer, got + len, MAX - len);
	close(a.peer);

	go_on(c.b);
	len += peer_read(c.b, c.peer, got + len, MAX - len);
	assert_int_equal(len, n);
	assert_memory_equal(got, sent, n);
	/* The guest hears that the transmitter is empty. */
	assert_int_equal(in8(c.b->vm, COM1 + UART_IIR) & 0xf, IIR_THRE);
	assert_int_equal(in8(c.b->vm, COM1 + UART_LSR) & LSR_TEMT, LSR_TEMT);
	leave(&c);
	free(sent);
	free(got);
}

/* A checkpoint: both go on, and each tells all that was not told before. */
static void output_is_complete_over_a_checkpoint(void **state)
{
	enum { MAX = 4 << 20 };
	struct seat a = seat(0, true), c = seat(1, true);
	uint8_t *sent = malloc(MAX + 16), *got = malloc(MAX + 16);
	size_t n = write_until_stuck(a.b, sent, MAX), len, rest;

	stand(a.b);
	stand(c.b);
	board_copy(a.b, c.b);
	go_on(a.b);
	len = peer_read(a.b, a.peer, got, MAX);
	assert_int_equal(len, n);
	assert_memory_equal(got, sent, n);
	go_on(c.b);
	rest = peer_read(c.b, c.peer, got, MAX);
	assert_in_range(rest, CHAR_LIMIT, n);
	assert_memory_equal(got, sent + n - rest, rest);
	leave(&a);
	leave(&c);
	free(sent);
	free(got);
}

/* Nobody was connected: the last words are kept for whoever comes, also to the restored machine. */
static void output_without_a_listener_survives(void **state)
{
	struct seat a = seat(0, false), c = seat(1, false);
	uint8_t got[64];

	for (const char *p = "login: "; *p; p++)
		out8(a.b->vm, COM1 + UART_THR, (uint8_t)*p);
	stand(a.b);
	stand(c.b);
	board_copy(a.b, c.b);
	leave(&a);
	go_on(c.b);
	c.peer = attach(c.b, 1);
	assert_int_equal(peer_read(c.b, c.peer, got, sizeof(got)), 7);
	assert_memory_equal(got, "login: ", 7);
	leave(&c);
}

/* The restored machine has no console where the old one had a full transmitter: the guest goes on. */
static void full_transmitter_without_a_peer_empties(void **state)
{
	enum { MAX = 4 << 20 };
	struct seat a = seat(0, true);
	struct board *c = board_make_mode(plain, CLOCK_MODE_REALTIME);
	struct board_state s;
	struct skep_error e = { .text = "" };
	uint8_t *sent = malloc(MAX + 16);

	write_until_stuck(a.b, sent, MAX);
	stand(a.b);
	board_export(a.b, &s);
	stand(c);
	assert_int_equal(board_check(c, &s, &e), 0);
	board_commit(c, &s, chip_now(a.b->vm), 0);
	go_on(c);
	assert_int_equal(in8(c->vm, COM1 + UART_LSR) & LSR_TEMT, LSR_TEMT);
	out8(c->vm, COM1 + UART_THR, 'x');
	board_state_free(a.b, &s);
	board_free(c);
	leave(&a);
	free(sent);
}

/*
 * bhyve: "a device without a pause hook counted as paused; an unpaused backend changed RAM
 * mid-dump".  While it stands, no timer, no peer and no loop changes anything.
 */
static void a_machine_that_stands_does_nothing(void **state)
{
	struct seat a = seat(0, true);
	struct board_state s, t;
	unsigned messages;

	b = a.b;
	busy();
	for (unsigned i = 0; i < 100; i++)
		out8(b->vm, COM1 + UART_THR, 'x');
	stand(b);
	board_export(b, &s);
	messages = b->messages;
	assert_int_equal(send(a.peer, "typed", 5, 0), 5);
	for (unsigned i = 0; i < 10; i++) {
		usleep(5000);
		pump(b);
	}
	close(a.peer);
	pump(b);
	a.peer = attach(b, 0);
	pump(b);
	board_export(b, &t);
	assert_int_equal(b->messages, messages);
	assert_int_equal(s.bytes.len, t.bytes.len);
	assert_memory_equal(s.bytes.data, t.bytes.data, s.bytes.len);
	board_state_free(b, &s);
	board_state_free(b, &t);
	go_on(b);
	usleep(10000);
	pump(b);
	assert_true(b->messages > messages);
	leave(&a);
	b = NULL;
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(pit_timer_is_armed_again),
		T(pit_mode_3_fires_more_than_once_after_restore),
		T(pit_output_latch_is_saved),
		T(pit_half_written_count_is_saved),
		T(pit_count_of_0_is_65536),
		T(nothing_of_the_hosts_clock_is_in_a_state),
		T(io_apic_id_is_saved),
		T(pm_timer_does_not_jump),
		T(pm_timer_overflow_is_neither_lost_nor_repeated),
		T(rtc_does_not_step_back),
		T(rtc_interrupts_go_on),
		T(moved_ranges_are_registered_again),
		T(counts_are_compared_never_used),
		T(wires_that_are_not_there_are_refused),
		T(pins_are_carried_without_raising),
		T(level_in_service_goes_on),
		T(accepted_interrupts_wait),
		T(tsc_deadline_survives),
		T(overdue_deadline_comes_once),
		T(periodic_timer_keeps_its_phase),
		T(restore_of_a_restore),
		T(save_after_save),
		cmocka_unit_test(input_while_it_stands_is_neither_lost_nor_doubled),
		cmocka_unit_test(input_that_the_guest_has_not_taken_survives),
		cmocka_unit_test(output_is_told_once_over_a_suspend),
		cmocka_unit_test(output_is_complete_over_a_checkpoint),
		cmocka_unit_test(output_without_a_listener_survives),
		cmocka_unit_test(full_transmitter_without_a_peer_empties),
		cmocka_unit_test(a_machine_that_stands_does_nothing),
	};

	return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
