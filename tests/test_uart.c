/* The 16550A, by its registers: PC16550D data sheet, chapter 8. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "chip.h"
#include "chipset/uart.h"
#include "chipset/uart_regs.h"
#include "vm/inputlog.h"
#include "vm/loop.h"

#define COM1 0x3f8

struct bench {
	struct vm *vm;
	struct device *d;
	struct chip_wire irq;
	char path[64];
	int peer;
};

static struct vm *make_vm(enum clock_mode mode)
{
	struct vm_core_options o = { .ram = 1 * MiB, .seeded = true };
	struct vm *vm = calloc(1, sizeof(*vm));
	struct skep_error e = { .text = "" };

	assert_non_null(vm);
	clock_init(&o.clock, mode);
	if (vm_core_init(vm, &o, &e) < 0)
		fail_msg("%s", e.text);
	device_lock(vm);
	return vm;
}

static void start(struct bench *b, enum clock_mode mode, const char *path)
{
	struct skep_error e = { .text = "" };

	memset(b, 0, sizeof(*b));
	b->peer = -1;
	b->vm = make_vm(mode);
	if (path) {
		b->vm->config = config_create();
		if (config_set(b->vm->config, "lpc.com1.path", path, "test", &e) < 0 ||
		    config_freeze(b->vm->config, &e) < 0)
			fail_msg("%s", e.text);
	}
	b->d = uart_make(b->vm, 0, chip_wire(&b->irq, b->vm), &e);
	if (!b->d)
		fail_msg("%s", e.text);
}

static void end(struct bench *b)
{
	struct config *c = b->vm->config;

	if (b->peer >= 0)
		close(b->peer);
	chip_vm_end(b->vm);
	config_destroy(c);
}

static uint8_t in(struct bench *b, unsigned reg) { return in8(b->vm, COM1 + reg); }
static void out(struct bench *b, unsigned reg, uint8_t v) { out8(b->vm, COM1 + reg, v); }

/* One round of the loop, without sleeping. */
static void pump(struct bench *b)
{
	device_unlock(b->vm);
	loop_wake(b->vm);
	loop_iterate(b->vm);
	device_lock(b->vm);
}

/* clock=virtual: what the processor does between two instructions. */
static void deliver_queued(struct vm *vm)
{
	struct input_point now = { .insns = 0, .ns = chip_now(vm) };

	input_log_deliver(vm, &now);
}

/* A socket with us at the other end. */
static void start_peer(struct bench *b, enum clock_mode mode)
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	char path[64], spec[80];

	snprintf(path, sizeof(path), "/tmp/skep-uart-%d", getpid());
	snprintf(spec, sizeof(spec), "unix=%s", path);
	start(b, mode, spec);
	strcpy(sa.sun_path, path);
	b->peer = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);
	assert_int_equal(connect(b->peer, (struct sockaddr *)&sa, sizeof(sa)), 0);
	for (int i = 0; i < 4; i++)
		pump(b);
}

static void test_reset_state(void **state)
{
	struct bench b;

	start(&b, CLOCK_MODE_VIRTUAL, NULL);
	for (int i = 0; i < 2; i++) {
		assert_int_equal(in(&b, UART_IER), 0);
		assert_int_equal(in(&b, UART_IIR), IIR_NONE);
		assert_int_equal(in(&b, UART_LCR), 0);
		assert_int_equal(in(&b, UART_MCR), 0);
		assert_int_equal(in(&b, UART_LSR), LSR_THRE | LSR_TEMT);
		assert_int_equal(in(&b, UART_MSR), 0);
		/* All writable bits on, and back by reset. */
		for (unsigned r = 0; r < 8; r++)
			out(&b, r, 0xff);
		b.d->type->reset(b.d);
	}
	out(&b, UART_SCR, 0x5a);
	assert_int_equal(in(&b, UART_SCR), 0x5a);
	out(&b, UART_IER, 0xff);
	assert_int_equal(in(&b, UART_IER), 0x0f);
	out(&b, UART_MCR, 0xff);
	assert_int_equal(in(&b, UART_MCR), 0x1f);
	out(&b, UART_LCR, LCR_DLAB | 3);
	out(&b, UART_DLL, 0x34);
	out(&b, UART_DLM, 0x12);
	assert_int_equal(in(&b, UART_DLL), 0x34);
	assert_int_equal(in(&b, UART_DLM), 0x12);
	out(&b, UART_LCR, 3);
	assert_int_equal(in(&b, UART_IER), 0x0f);
	end(&b);
}

/* FCR: IIR 7:6 tell of the FIFOs; without bit 0 nothing is taken. */
static void test_fifo_control(void **state)
{
	struct bench b;

	start(&b, CLOCK_MODE_VIRTUAL, NULL);
	out(&b, UART_FCR, 0xc0);
	assert_int_equal(in(&b, UART_IIR), 0x01);
	out(&b, UART_FCR, 0xc1);
	assert_int_equal(in(&b, UART_IIR), 0xc1);
	out(&b, UART_FCR, 0);
	assert_int_equal(in(&b, UART_IIR), 0x01);
	end(&b);
}

static void test_thre_interrupt(void **state)
{
	struct bench b;

	start(&b, CLOCK_MODE_VIRTUAL, NULL);
	out(&b, UART_MCR, MCR_OUT2);
	out(&b, UART_IER, IER_THRE);		/* enabling it while THRE is set raises it */
	assert_int_equal(b.irq.level, 1);
	assert_int_equal(in(&b, UART_IIR), IIR_THRE);	/* and reading IIR ends it */
	assert_int_equal(b.irq.level, 0);
	assert_int_equal(in(&b, UART_IIR), IIR_NONE);
	out(&b, UART_IER, IER_THRE);		/* no transition, nothing */
	assert_int_equal(b.irq.level, 0);
	out(&b, UART_IER, 0);
	out(&b, UART_IER, IER_THRE);
	assert_int_equal(in(&b, UART_IIR), IIR_THRE);
	/* Each byte sent is an edge of its own, even if the last one is still pending. */
	unsigned rises = b.irq.rises;
	out(&b, UART_THR, 'a');
	out(&b, UART_THR, 'b');
	assert_int_equal(b.irq.rises, rises + 2);
	assert_int_equal(in(&b, UART_IIR), IIR_THRE);
	/* OUT2 gates the wire, not the register. */
	out(&b, UART_THR, 'c');
	out(&b, UART_MCR, 0);
	assert_int_equal(b.irq.level, 0);
	assert_int_equal(in(&b, UART_IIR), IIR_THRE);
	end(&b);
}

static void loop(struct bench *b, uint8_t mcr)
{
	out(b, UART_LCR, 3);
	out(b, UART_MCR, MCR_LOOP | mcr);
}

static void test_loopback(void **state)
{
	struct bench b;

	start(&b, CLOCK_MODE_VIRTUAL, NULL);
	loop(&b, 0);
	for (unsigned c = 0; c < 256; c++) {
		out(&b, UART_THR, c);
		assert_int_equal(in(&b, UART_LSR), LSR_THRE | LSR_TEMT | LSR_DR);
		assert_int_equal(in(&b, UART_RBR), c);
		assert_int_equal(in(&b, UART_LSR), LSR_THRE | LSR_TEMT);
	}
	out(&b, UART_LCR, 0);		/* five bits */
	out(&b, UART_THR, 0xff);
	assert_int_equal(in(&b, UART_RBR), 0x1f);
	/* Without FIFOs a second character destroys the first. */
	out(&b, UART_LCR, 3);
	out(&b, UART_THR, 1);
	out(&b, UART_THR, 2);
	assert_int_equal(in(&b, UART_LSR) & LSR_OE, LSR_OE);
	assert_int_equal(in(&b, UART_LSR) & LSR_OE, 0);
	assert_int_equal(in(&b, UART_RBR), 2);
	/* With FIFOs the seventeenth is lost. */
	out(&b, UART_FCR, 1);
	for (unsigned i = 0; i < 17; i++)
		out(&b, UART_THR, i);
	assert_int_equal(in(&b, UART_LSR) & (LSR_OE | LSR_DR), LSR_OE | LSR_DR);
	for (unsigned i = 0; i < 16; i++)
		assert_int_equal(in(&b, UART_RBR), i);
	assert_int_equal(in(&b, UART_LSR) & LSR_DR, 0);
	end(&b);
}

static void test_modem_status(void **state)
{
	static const struct { uint8_t mcr, msr; } map[] = {
		{ MCR_DTR, MSR_DSR }, { MCR_RTS, MSR_CTS }, { MCR_OUT1, MSR_RI }, { MCR_OUT2, MSR_DCD },
	};
	struct bench b;

	start(&b, CLOCK_MODE_VIRTUAL, NULL);
	loop(&b, 0);
	in(&b, UART_MSR);
	for (unsigned i = 0; i < ARRAY_SIZE(map); i++) {
		uint8_t delta = map[i].msr >> 4;

		out(&b, UART_MCR, MCR_LOOP | map[i].mcr);
		/* RI: the trailing edge only. */
		assert_int_equal(in(&b, UART_MSR), map[i].msr | (map[i].msr == MSR_RI ? 0 : delta));
		assert_int_equal(in(&b, UART_MSR), map[i].msr);
		out(&b, UART_MCR, MCR_LOOP);
		assert_int_equal(in(&b, UART_MSR), delta);
		assert_int_equal(in(&b, UART_MSR), 0);
	}
	/* Linux's probe. */
	out(&b, UART_MCR, 0x1a);
	assert_int_equal(in(&b, UART_MSR) & 0xf0, 0x90);
	out(&b, UART_IER, IER_MODEM);
	in(&b, UART_MSR);
	out(&b, UART_MCR, 0x18);
	assert_int_equal(in(&b, UART_IIR), IIR_MODEM);
	assert_int_equal(b.irq.level, 1);
	in(&b, UART_MSR);
	assert_int_equal(b.irq.level, 0);
	end(&b);
}

static void test_trigger_levels(void **state)
{
	static const uint8_t levels[4] = { 1, 4, 8, 14 };
	struct bench b;

	start(&b, CLOCK_MODE_VIRTUAL, NULL);
	loop(&b, MCR_OUT2);
	out(&b, UART_IER, IER_RX);
	for (unsigned t = 0; t < 4; t++) {
		out(&b, UART_FCR, FCR_ENABLE | FCR_RX_RESET | t << 6);
		for (unsigned i = 1; i <= levels[t]; i++) {
			assert_int_equal(in(&b, UART_IIR), 0xc0 | IIR_NONE);
			out(&b, UART_THR, i);
		}
		assert_int_equal(in(&b, UART_IIR), 0xc0 | IIR_RX);
		assert_int_equal(b.irq.level, 1);
		in(&b, UART_RBR);		/* below the level again */
		assert_int_equal(in(&b, UART_IIR), 0xc0 | IIR_NONE);
		assert_int_equal(b.irq.level, 0);
	}
	end(&b);
}

/* Four character times: 40 bits at 115200 are 347 us. */
static void test_character_timeout(void **state)
{
	struct bench b;

	start(&b, CLOCK_MODE_VIRTUAL, NULL);
	out(&b, UART_LCR, LCR_DLAB);
	out(&b, UART_DLL, 1);
	out(&b, UART_DLM, 0);
	loop(&b, MCR_OUT2);
	out(&b, UART_IER, IER_RX);
	out(&b, UART_FCR, FCR_ENABLE | 0x80);
	out(&b, UART_THR, 'x');
	out(&b, UART_THR, 'y');
	chip_run(b.vm, 340000);
	assert_int_equal(in(&b, UART_IIR), 0xc1);
	out(&b, UART_THR, 'z');		/* starts it anew */
	chip_run(b.vm, 340000);
	assert_int_equal(in(&b, UART_IIR), 0xc1);
	chip_run(b.vm, 10000);
	assert_int_equal(in(&b, UART_IIR), 0xcc);
	assert_int_equal(b.irq.level, 1);
	chip_save_restore(b.d);
	assert_int_equal(in(&b, UART_RBR), 'x');	/* reading ends it and starts it anew */
	assert_int_equal(in(&b, UART_IIR), 0xc1);
	chip_save_restore(b.d);
	chip_run(b.vm, 350000);
	assert_int_equal(in(&b, UART_IIR), 0xcc);
	in(&b, UART_RBR);
	in(&b, UART_RBR);
	chip_run(b.vm, 1000000);
	assert_int_equal(in(&b, UART_IIR), 0xc1);
	end(&b);
}

static void test_break_and_priorities(void **state)
{
	struct bench b;

	start(&b, CLOCK_MODE_VIRTUAL, NULL);
	loop(&b, MCR_OUT2);
	in(&b, UART_MSR);
	out(&b, UART_FCR, FCR_ENABLE);
	out(&b, UART_THR, 'a');
	out(&b, UART_LCR, 3 | LCR_BREAK);
	out(&b, UART_LCR, 3);
	out(&b, UART_MCR, MCR_LOOP | MCR_OUT2 | MCR_RTS);
	out(&b, UART_IER, 0x0f);
	/* The error belongs to the second character: first comes received data. */
	assert_int_equal(in(&b, UART_LSR), LSR_THRE | LSR_TEMT | LSR_DR | LSR_FIFO_ERROR);
	assert_int_equal(in(&b, UART_IIR), 0xc0 | IIR_RX);
	assert_int_equal(in(&b, UART_RBR), 'a');
	assert_int_equal(in(&b, UART_IIR), 0xc0 | IIR_LINE);
	assert_int_equal(in(&b, UART_LSR), 0x60 | LSR_DR | LSR_BI | LSR_FIFO_ERROR);
	assert_int_equal(in(&b, UART_LSR), 0x60 | LSR_DR);
	assert_int_equal(in(&b, UART_IIR), 0xc0 | IIR_RX);
	assert_int_equal(in(&b, UART_RBR), 0);
	assert_int_equal(in(&b, UART_IIR), 0xc0 | IIR_THRE);
	assert_int_equal(in(&b, UART_IIR), 0xc0 | IIR_MODEM);
	assert_int_equal(b.irq.level, 1);
	in(&b, UART_MSR);
	assert_int_equal(b.irq.level, 0);
	end(&b);
}

/* 100 KB from the host: nothing is lost, however slowly the guest reads. */
static void paced_input(enum clock_mode mode)
{
	enum { TOTAL = 100000 };
	struct bench b;
	unsigned sent = 0, got = 0, idle = 0;

	start_peer(&b, mode);
	out(&b, UART_FCR, FCR_ENABLE | 0xc0);
	assert_int_equal(in(&b, UART_MSR) & 0xf0, MSR_CTS | MSR_DSR | MSR_DCD);
	while (got < TOTAL && idle < 1000) {
		uint8_t buf[1000];
		unsigned n = MIN((unsigned)sizeof(buf), TOTAL - sent), before = got;
		ssize_t done;

		for (unsigned i = 0; i < n; i++)
			buf[i] = (sent + i) * 7;
		done = send(b.peer, buf, n, MSG_DONTWAIT);
		sent += done > 0 ? done : 0;
		pump(&b);
		if (mode == CLOCK_MODE_VIRTUAL)
			deliver_queued(b.vm);
		for (unsigned i = 0; i < 50 && (in(&b, UART_LSR) & LSR_DR); i++, got++)
			if (in(&b, UART_RBR) != (uint8_t)(got * 7))
				fail_msg("byte %u is wrong", got);
		idle = got == before ? idle + 1 : 0;
		assert_int_equal(in(&b, UART_LSR) & LSR_OE, 0);
	}
	assert_int_equal(got, TOTAL);
	end(&b);
}

static void test_input_realtime(void **state)
{
	paced_input(CLOCK_MODE_REALTIME);
}

static void test_input_virtual(void **state)
{
	paced_input(CLOCK_MODE_VIRTUAL);
}

/* A peer that does not read: THRE stays clear, then everything arrives in order. */
static void test_back_pressure(void **state)
{
	struct bench b;
	unsigned sent = 0, got = 0;
	uint8_t buf[4096];

	start_peer(&b, CLOCK_MODE_REALTIME);
	out(&b, UART_FCR, FCR_ENABLE);
	out(&b, UART_MCR, MCR_OUT2);
	while (in(&b, UART_LSR) & LSR_THRE) {
		out(&b, UART_THR, sent++ * 3);
		if (sent % 512 == 0)
			pump(&b);
		assert_true(sent < 10000000);
	}
	out(&b, UART_IER, IER_THRE);
	assert_int_equal(b.irq.level, 0);
	for (unsigned idle = 0; idle < 100; idle++) {
		ssize_t n = read(b.peer, buf, sizeof(buf));

		for (ssize_t i = 0; i < n; i++, got++)
			if (buf[i] != (uint8_t)(got * 3))
				fail_msg("byte %u is wrong", got);
		if (n > 0)
			idle = 0;
		pump(&b);
	}
	assert_int_equal(got, sent);
	assert_int_equal(b.irq.level, 1);
	assert_int_equal(in(&b, UART_LSR) & LSR_TEMT, LSR_TEMT);
	end(&b);
}

/* With clock=virtual the guest cannot see how fast the host is. */
static void test_output_virtual(void **state)
{
	struct bench b;

	start_peer(&b, CLOCK_MODE_VIRTUAL);
	for (unsigned i = 0; i < 1000000; i++) {
		out(&b, UART_THR, i);
		assert_int_equal(in(&b, UART_LSR), LSR_THRE | LSR_TEMT);
	}
	close(b.peer);
	b.peer = -1;
	pump(&b);
	end(&b);
}

/* What is saved on one machine is the same on another, and hostile models are refused. */
static void test_state(void **state)
{
	struct bench b;
	size_t size;
	uint8_t *m;
	struct skep_error e;
	unsigned refused = 0;

	start(&b, CLOCK_MODE_VIRTUAL, NULL);
	loop(&b, MCR_OUT2);
	out(&b, UART_FCR, FCR_ENABLE | 0xc0);
	for (unsigned i = 0; i < 5; i++)
		out(&b, UART_THR, 'a' + i);
	out(&b, UART_LCR, 3 | LCR_BREAK);
	chip_save_restore(b.d);
	for (unsigned i = 0; i < 5; i++)
		assert_int_equal(in(&b, UART_RBR), 'a' + i);
	size = b.d->type->state->model_size;
	m = malloc(size);
	srand(1);
	for (unsigned i = 0; i < 20000; i++) {
		b.d->type->export(b.d, m);
		for (int n = rand() % 3; n >= 0; n--)
			m[rand() % 80] = rand();
		if (state_check(b.d->type->state, b.d->name, m, NULL, &e) < 0 ||
		    b.d->type->validate(b.d, m, &e) < 0) {
			refused++;
			continue;
		}
		b.d->type->commit(b.d, m);
		for (unsigned r = 0; r < 8; r++)
			in(&b, r);
	}
	assert_true(refused > 1000);
	free(m);
	end(&b);
}

static void test_random_access(void **state)
{
	struct bench b;

	start_peer(&b, CLOCK_MODE_VIRTUAL);
	srand(2);
	for (unsigned i = 0; i < 300000; i++) {
		unsigned r = rand() % 8;

		if (rand() & 1)
			out(&b, r, rand());
		else
			in(&b, r);
		if (i % 100 == 0) {
			chip_run(b.vm, rand() % 1000000);
			send(b.peer, "hello, world", 12, MSG_DONTWAIT);
			pump(&b);
			deliver_queued(b.vm);
		}
		if (i % 1000 == 0)
			chip_save_restore(b.d);
	}
	end(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_reset_state),
		cmocka_unit_test(test_fifo_control),
		cmocka_unit_test(test_thre_interrupt),
		cmocka_unit_test(test_loopback),
		cmocka_unit_test(test_modem_status),
		cmocka_unit_test(test_trigger_levels),
		cmocka_unit_test(test_character_timeout),
		cmocka_unit_test(test_break_and_priorities),
		cmocka_unit_test(test_input_realtime),
		cmocka_unit_test(test_input_virtual),
		cmocka_unit_test(test_back_pressure),
		cmocka_unit_test(test_output_virtual),
		cmocka_unit_test(test_state),
		cmocka_unit_test(test_random_access),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
